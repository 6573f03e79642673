//! Answering health checks, in kube-proxy's words.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::errno::Errno;
use nix::sys::socket::SockType;
use parking_lot::Mutex;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use super::HealthCheck;
use super::relay::PORT_TAKEN;
use super::role::say;
use crate::clock;
use crate::container::image::bind_to;

/// Connections of one port at once; further ones wait to be accepted.
const MAX_CONNECTIONS: usize = 128;
/// How long a client may take to ask.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is known.
#[derive(Debug, Default)]
pub(super) struct Health(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    checks: BTreeMap<u16, HealthCheck>,
    /// Whether vswitch is there: without it nothing is switched.
    connected: bool,
    /// When it was heard of last, since the Unix epoch.
    updated: Duration,
}

impl Health {
    pub(super) fn set(&self, check: HealthCheck) {
        self.0.lock().checks.insert(check.port, check);
    }

    pub(super) fn remove(&self, port: u16) {
        self.0.lock().checks.remove(&port);
    }

    pub(super) fn connected(&self) {
        let mut state = self.0.lock();
        state.connected = true;
        state.updated = clock::since_epoch();
    }

    pub(super) fn disconnected(&self) {
        self.0.lock().connected = false;
    }

    /// Whether all is well, and the words for it.
    pub(super) fn answer(&self, port: u16, path: &str) -> (StatusCode, serde_json::Value, Option<u32>) {
        let state = self.0.lock();
        let status = |well| if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        if let Some(check) = state.checks.get(&port) {
            let words = json!({
                "service": {"namespace": check.namespace, "name": check.name},
                "localEndpoints": check.local_endpoints,
                "serviceProxyHealthy": state.connected,
            });
            let well = check.local_endpoints > 0 && state.connected;
            return (status(well), words, Some(check.local_endpoints));
        }
        if port != super::HEALTHZ_PORT || !["/healthz", "/livez"].contains(&path) {
            return (StatusCode::NOT_FOUND, json!({}), None);
        }
        let words = json!({
            "lastUpdated": time(state.updated),
            "currentTime": time(clock::since_epoch()),
            "nodeEligible": true,
        });
        (status(state.connected), words, None)
    }
}

fn time(since_epoch: Duration) -> String {
    let seconds = i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).map_or_else(|_| String::new(), |time| time.to_string())
}

/// Answers at one port of all addresses, until it is aborted.
pub(super) async fn serve(port: u16, health: Arc<Health>) {
    let mut told = false;
    let listener = loop {
        match listener(port) {
            Ok(listener) => break listener,
            Err(error) => {
                if !told {
                    say(&format!("no health checks are answered at port {port}: {error}"));
                }
                told = true;
                tokio::time::sleep(PORT_TAKEN).await;
            }
        }
    };
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else { continue };
        let health = Arc::clone(&health);
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let response = response(&health, port, request.uri().path());
                async { Ok::<_, Infallible>(response) }
            });
            let mut server = http1::Builder::new();
            server.keep_alive(false).timer(TokioTimer::new()).header_read_timeout(PATIENCE);
            // How it ended is the client's business.
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
            drop(permit);
        });
    }
}

/// For both families, or for IPv4 alone where there is no other.
fn listener(port: u16) -> io::Result<TcpListener> {
    let bound = match bind_to(SockType::Stream, SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))) {
        Err(Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL) => {
            bind_to(SockType::Stream, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))
        }
        bound => bound,
    };
    TcpListener::from_std(bound?.into())
}

fn response(health: &Health, port: u16, path: &str) -> Response<Full<Bytes>> {
    let (status, words, weight) = health.answer(port, path);
    let mut response = Response::new(Full::new(Bytes::from(words.to_string())));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    if let Some(weight) = weight {
        headers.insert("x-load-balancing-endpoint-weight", HeaderValue::from(weight));
    }
    response
}
