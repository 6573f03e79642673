//! `vswitch/http`: a web server that says who answers.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use nix::sys::socket::SockType;
use tokio::net::{TcpListener, TcpStream};

use super::ending::{Ending, Told};

/// How long a connection may be silent once the server is to end. Until then its next request is answered.
const SILENCE: Duration = Duration::from_secs(5);

/// The two ends of a connection.
#[derive(Clone, Copy, Debug)]
struct Ends {
    own: Option<SocketAddr>,
    peer: SocketAddr,
}

/// Answers every path with who answers whom, and `/healthz` with `ok`, for ever.
pub(super) async fn serve(port: u16, ending: &Ending) -> io::Result<()> {
    let listener = TcpListener::from_std(super::bind(SockType::Stream, port)?.into())?;
    ending.accept(&listener, connection).await
}

async fn connection(stream: TcpStream, peer: SocketAddr, mut told: Told) {
    let ends = Ends { own: stream.local_addr().ok(), peer };
    let last = told.clone();
    let service = service_fn(move |request| {
        let (answer, is_last) = (answer(ends, &request), last.is_told());
        async move {
            let mut response = Response::new(Full::new(Bytes::from(answer)));
            let headers = response.headers_mut();
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
            if is_last {
                headers.insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let silent = async {
        told.told().await;
        tokio::time::sleep(SILENCE).await;
    };
    tokio::select! {
        // How it ended is the client's business.
        _ = connection.as_mut() => return,
        () = silent => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

fn answer(ends: Ends, request: &Request<Incoming>) -> String {
    if request.uri().path() == "/healthz" {
        return "ok\n".to_owned();
    }
    let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned());
    let host = host.unwrap_or_default();
    let own = ends.own.map_or_else(|| "?".to_owned(), |own| plain(own).to_string());
    format!(
        "host {host}\nown address {own}\npeer address {}\npath {}\n",
        plain(ends.peer),
        request.uri().path()
    )
}

/// The address as its owner would write it: a socket for both families shows IPv4 addresses inside IPv6 ones.
fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
