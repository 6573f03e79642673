//! `vswitch/http`: a web server that says who answers.

use std::io;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::extract::connect_info::Connected;
use axum::http::Uri;
use axum::routing::get;
use axum::serve::IncomingStream;
use nix::sys::socket::SockType;
use tokio::net::TcpListener;

/// The two ends of a connection.
#[derive(Clone, Copy, Debug)]
struct Ends {
    own: Option<SocketAddr>,
    peer: SocketAddr,
}

impl Connected<IncomingStream<'_, TcpListener>> for Ends {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Self {
        Self { own: stream.io().local_addr().ok(), peer: *stream.remote_addr() }
    }
}

/// Answers every path with who answers whom, and `/healthz` with `ok`, for ever.
pub(super) async fn serve(port: u16) -> io::Result<()> {
    let listener = TcpListener::from_std(super::bind(SockType::Stream, port)?.into())?;
    let router = Router::new().route("/healthz", get(|| async { "ok\n" })).fallback(answer);
    axum::serve(listener, router.into_make_service_with_connect_info::<Ends>()).await
}

async fn answer(ConnectInfo(ends): ConnectInfo<Ends>, uri: Uri) -> String {
    let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned());
    let host = host.unwrap_or_default();
    let own = ends.own.map_or_else(|| "?".to_owned(), |own| plain(own).to_string());
    format!("host {host}\nown address {own}\npeer address {}\npath {}\n", plain(ends.peer), uri.path())
}

/// The address as its owner would write it: a socket for both families shows IPv4 addresses inside IPv6 ones.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
