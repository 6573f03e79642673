//! Connections of the control socket, and what each of them may cost.
//!
//! # Theory of operation
//! One connection carries one request. Until that has arrived it holds a connection and at most a small body; it has
//! [`REQUEST_TIME`] for it. Of [`MAX_CONNECTIONS`] the oldest whose request has not arrived makes room for a new one, so
//! that clients which send nothing displace each other, and a client that sends its request at once is answered however
//! many of them there are. Connections that are being answered are never displaced: when all are, a new one is closed.
//! Large bodies wait for one of [`LARGE_BODIES`] places, so that their memory is bounded as well. A client that does not
//! read its answer for [`READ_TIME`] is cut off, and counted.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};

use super::impatient::Impatient;
use super::routes::{MAX_BODY, MAX_MANIFESTS};
use super::server::problem;

/// Connections at once.
const MAX_CONNECTIONS: usize = 128;
/// How long a request may take to arrive: its header, then its body.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// How long a client may read nothing while there is more for it: long enough for somebody who looks at a page of a
/// capture.
const READ_TIME: Duration = Duration::from_secs(30);
/// Octets of a request's header; a request has a short line and few fields.
const MAX_HEADER: usize = 16 << 10;
/// How many bodies beyond [`MAX_BODY`] are read at once.
const LARGE_BODIES: usize = 2;
/// How long to wait before accepting again when the process has no descriptor left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A connection, and whether its request has arrived.
struct Open {
    task: AbortHandle,
    arrived: Arc<AtomicBool>,
}

/// All connections.
pub(super) struct Connections {
    router: Router,
    tasks: JoinSet<()>,
    /// In the order in which they were accepted.
    open: VecDeque<Open>,
    large: Arc<Semaphore>,
    stalled: Arc<AtomicU64>,
}

impl Connections {
    /// None yet; requests go to `router`. Clients that were cut off because they did not read are counted in `stalled`.
    pub(super) fn new(router: Router, stalled: Arc<AtomicU64>) -> Self {
        let large = Arc::new(Semaphore::new(LARGE_BODIES));
        Self { router, tasks: JoinSet::new(), open: VecDeque::new(), large, stalled }
    }

    /// Accepts and serves, for ever.
    pub(super) async fn serve(&mut self, listener: &UnixListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => self.add(stream),
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            }
            // Those that are open read what has arrived before the next one can displace them.
            tokio::task::yield_now().await;
        }
    }

    fn add(&mut self, stream: UnixStream) {
        while self.tasks.try_join_next().is_some() {}
        self.open.retain(|open| !open.task.is_finished());
        if self.open.len() >= MAX_CONNECTIONS {
            let waiting = self.open.iter().position(|open| !open.arrived.load(Ordering::Relaxed));
            let Some(displaced) = waiting.and_then(|at| self.open.remove(at)) else { return };
            displaced.task.abort();
        }
        let arrived = Arc::new(AtomicBool::new(false));
        let (router, large) = (self.router.clone(), Arc::clone(&self.large));
        let stream = Impatient::new(stream, READ_TIME, Arc::clone(&self.stalled));
        let task = self.tasks.spawn(connection(stream, router, Arc::clone(&arrived), large));
        self.open.push_back(Open { task, arrived });
    }

    /// Gives answers that are on their way so much time to leave.
    pub(super) async fn finish(mut self, patience: Duration) {
        self.open.retain(|open| {
            open.arrived.load(Ordering::Relaxed) || {
                open.task.abort();
                false
            }
        });
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        // Whoever has not left by then is cut off.
        let _ = tokio::time::timeout(patience, ended).await;
    }
}

async fn connection(
    stream: Impatient<UnixStream>,
    router: Router,
    arrived: Arc<AtomicBool>,
    large: Arc<Semaphore>,
) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(|request: Request<Incoming>| {
        let (router, arrived, large) = (router.clone(), Arc::clone(&arrived), Arc::clone(&large));
        async move {
            let read = tokio::time::timeout(REQUEST_TIME, read(request, &large)).await;
            let request = match read {
                Ok(Ok(request)) => request,
                Ok(Err(refused)) => return Ok::<Response, Infallible>(refused),
                Err(_) => {
                    let text = format!("the request did not arrive within {REQUEST_TIME:?}");
                    return Ok(problem(StatusCode::REQUEST_TIMEOUT, text));
                }
            };
            arrived.store(true, Ordering::Relaxed);
            router.call(request).await
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIME)
        .max_buf_size(MAX_HEADER)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    // A client that leaves in the middle is its own affair.
    drop(served);
}

/// The whole request, or what to answer instead.
async fn read(request: Request<Incoming>, large: &Semaphore) -> Result<Request<Body>, Response> {
    let too_large = || {
        let text = format!("the request's body has more than {} MiB", MAX_MANIFESTS >> 20);
        problem(StatusCode::PAYLOAD_TOO_LARGE, text)
    };
    let (parts, body) = request.into_parts();
    let size = body.size_hint();
    if size.lower() > MAX_MANIFESTS as u64 {
        return Err(too_large());
    }
    let small = size.upper().is_some_and(|upper| upper <= MAX_BODY as u64);
    let place = if small { None } else { large.acquire().await.ok() };
    let body = Limited::new(body, MAX_MANIFESTS).collect().await.map_err(|error| {
        if error.is::<LengthLimitError>() {
            too_large()
        } else {
            problem(StatusCode::BAD_REQUEST, format!("the request's body does not arrive: {error}"))
        }
    })?;
    drop(place);
    Ok(Request::from_parts(parts, Body::from(body.to_bytes())))
}
