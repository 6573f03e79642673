//! Serving the control socket.
//!
//! Handlers ask the data path between two batches and answer from plain data; a client that is slow or stuck holds its
//! own connection and nothing else.

use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path as UrlPath, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use manifest::{Source, Strictness};
use netstack::filter::Filter;
use serde::{Deserialize, Serialize};
use tokio::net::UnixListener;
use tokio::sync::{Notify, Semaphore, mpsc};

use super::api::{
    ApplyRequest, ApplyView, CaptureFormat, ConnectionQuery, DownView, ErrorBody, PublishRequest,
    PublishedView, ScaleRequest, Status, TraceRequest,
};
use super::changes::Changes;
use super::connections::Connections;
use super::objects::{Listed, list};
use super::plane::{Plane, PlaneError};
use super::routes::MAX_BODY;
use super::{names, policies as rules, routes, services};
use crate::cluster::Place;
use crate::runtime::{Capture, ConnectionFilter, PacketSpec, Runtime, RuntimeError};

/// How often the data path is asked for events.
const EVENT_INTERVAL: Duration = Duration::from_millis(500);
/// Chunks of a capture that wait for its reader.
const CHUNKS: usize = 64;
/// The media type of captures in octets.
pub(super) const PCAPNG: &str = "application/x-pcapng";
/// Captures at once; each of them slows the data path.
const MAX_CAPTURES: usize = 16;
/// How long answers that are on their way have to leave when the cluster ends.
const LAST_MOMENT: Duration = Duration::from_millis(200);

/// What handlers share.
#[derive(Clone, Debug)]
pub(super) struct Shared {
    plane: Arc<Plane>,
    runtime: Arc<Runtime>,
    changes: Changes,
    down: Arc<Notify>,
    captures: Arc<Semaphore>,
    /// Clients that were cut off because they did not read.
    stalled: Arc<AtomicU64>,
}

/// Opens the control socket: from here on clients can connect and wait. Called in the context of an executor.
///
/// # Errors
/// When the socket cannot be bound.
pub fn listen(socket: &Path) -> io::Result<UnixListener> {
    // Whoever holds the state directory's lock owns the socket; what a killed one left is stale.
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let listener = UnixListener::bind(socket)?;
    std::fs::set_permissions(socket, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Serves until `stop` is notified or a client asks to come down, and has `changes` make what changes; calls `told` with every event of the data path.
pub async fn serve(
    plane: Arc<Plane>,
    changes: Changes,
    listener: UnixListener,
    stop: Arc<Notify>,
    told: impl FnMut(&super::api::EventView),
) {
    let runtime = Arc::clone(plane.runtime());
    let captures = Arc::new(Semaphore::new(MAX_CAPTURES));
    let (down, stalled) = (Arc::clone(&stop), Arc::new(AtomicU64::new(0)));
    let counter = Arc::clone(&stalled);
    let shared = Shared { plane, runtime: Arc::clone(&runtime), changes, down, captures, stalled };
    let mut connections = Connections::new(routes::router(shared), counter);
    tokio::select! {
        () = connections.serve(&listener) => {}
        () = stop.notified() => {}
        () = watch(runtime, told) => {}
    }
    // The answer to `down` is on its way.
    connections.finish(LAST_MOMENT).await;
}

/// Collects what the data path has to tell, for ever.
async fn watch(runtime: Arc<Runtime>, mut told: impl FnMut(&super::api::EventView)) {
    let mut ticks = tokio::time::interval(EVENT_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let there = Arc::clone(&runtime);
        let events = tokio::task::spawn_blocking(move || there.collect_events()).await.unwrap_or_default();
        events.iter().for_each(&mut told);
    }
}

/// A verb of the control plane that takes manifests.
pub(super) type Verb = fn(&Plane, &[Source], Strictness) -> Result<ApplyView, PlaneError>;

pub(super) fn manifests(verb: Verb) -> axum::routing::MethodRouter<Shared> {
    let handle = move |State(shared): State<Shared>, Json(request): Json<ApplyRequest>| async move {
        let strictness = Strictness::lenient_if(request.lenient);
        let sources: Vec<Source> =
            request.sources.into_iter().map(|s| Source { name: s.name.into(), text: s.text }).collect();
        let large = sources.iter().map(|source| source.text.len()).sum::<usize>() > MAX_BODY;
        let Shared { plane, changes, .. } = shared;
        change(&changes, large, move || verb(&plane, &sources, strictness)).await
    };
    post(handle)
}

pub(super) async fn scale(State(shared): State<Shared>, Json(request): Json<ScaleRequest>) -> Response {
    let Shared { plane, changes, .. } = shared;
    change(&changes, false, move || plane.scale(&request)).await
}

/// Has the control plane change something.
async fn change(
    changes: &Changes,
    large: bool,
    verb: impl FnOnce() -> Result<ApplyView, PlaneError> + Send + 'static,
) -> Response {
    let error = match changes.make(large, verb).await {
        Some(Ok(view)) => return Json(view).into_response(),
        Some(Err(error)) => error,
        None => return problem(StatusCode::INTERNAL_SERVER_ERROR, "the change was not finished".to_owned()),
    };
    let status = match &error {
        PlaneError::Runtime(error) => status_of(error),
        PlaneError::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
        PlaneError::Unknown(_) => StatusCode::NOT_FOUND,
        PlaneError::State(_) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    problem(status, error.to_string())
}

/// Asks the runtime on a thread that may wait.
pub(super) async fn ask<T: Serialize + Send + 'static>(
    shared: Shared,
    question: impl FnOnce(&Runtime) -> Result<T, RuntimeError> + Send + 'static,
) -> Response {
    match tokio::task::spawn_blocking(move || question(&shared.runtime)).await {
        Ok(Ok(answer)) => Json(answer).into_response(),
        Ok(Err(error)) => problem(status_of(&error), error.to_string()),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

fn status_of(error: &RuntimeError) -> StatusCode {
    match error {
        RuntimeError::UnknownPlace(_) => StatusCode::NOT_FOUND,
        RuntimeError::NoNamespace(_) | RuntimeError::Packet(_) | RuntimeError::NoAddress(_) => {
            StatusCode::BAD_REQUEST
        }
        RuntimeError::Frame(_) => StatusCode::CONFLICT,
        RuntimeError::Helper(_)
        | RuntimeError::NameServer { .. }
        | RuntimeError::Tap { .. }
        | RuntimeError::Config { .. }
        | RuntimeError::Proxy { .. }
        | RuntimeError::Station { .. }
        | RuntimeError::Io(_)
        | RuntimeError::Egress { .. }
        | RuntimeError::Stopped(_) => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

pub(super) fn problem(status: StatusCode, error: String) -> Response {
    (status, Json(ErrorBody { error })).into_response()
}

pub(super) async fn objects(State(shared): State<Shared>, UrlPath(kind): UrlPath<String>) -> Response {
    let Some(kind) = Listed::by_name(&kind) else {
        return problem(StatusCode::NOT_FOUND, format!("there are no objects of the kind {kind:?}"));
    };
    match tokio::task::spawn_blocking(move || list(&shared.plane, kind)).await {
        Ok(objects) => Json(objects).into_response(),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// What names stand for.
pub(super) async fn names(State(shared): State<Shared>) -> Response {
    match tokio::task::spawn_blocking(move || names::names(&shared.plane)).await {
        Ok(names) => Json(names).into_response(),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// Ports of this machine that lead inside.
pub(super) async fn published(State(shared): State<Shared>) -> Response {
    doors(shared, |plane| Ok(plane.published())).await
}

pub(super) async fn publish(State(shared): State<Shared>, Json(request): Json<PublishRequest>) -> Response {
    doors(shared, move |plane| plane.publish_ports(&request.ports)).await
}

pub(super) async fn withdraw(State(shared): State<Shared>, Json(request): Json<PublishRequest>) -> Response {
    doors(shared, move |plane| plane.withdraw_ports(&request.ports)).await
}

async fn doors(
    shared: Shared,
    verb: impl FnOnce(&Plane) -> Result<Vec<PublishedView>, String> + Send + 'static,
) -> Response {
    match tokio::task::spawn_blocking(move || verb(&shared.plane)).await {
        Ok(Ok(views)) => Json(views).into_response(),
        Ok(Err(error)) => problem(StatusCode::UNPROCESSABLE_ENTITY, error),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

#[derive(Deserialize)]
pub(super) struct BalancingQuery {
    service: String,
}

/// What nodes make of a Service.
pub(super) async fn balancing(State(shared): State<Shared>, Query(query): Query<BalancingQuery>) -> Response {
    let BalancingQuery { service } = query;
    let missing = format!("the Service {service} does not exist; `vswitch get services` lists those that do");
    match tokio::task::spawn_blocking(move || services::balanced(&shared.plane, &service)).await {
        Ok(Ok(Some(views))) => Json(views).into_response(),
        Ok(Ok(None)) => problem(StatusCode::NOT_FOUND, missing),
        Ok(Err(error)) => problem(StatusCode::SERVICE_UNAVAILABLE, error.to_string()),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

/// Policies, and what they have stopped.
pub(super) async fn policies(State(shared): State<Shared>) -> Response {
    match tokio::task::spawn_blocking(move || rules::policies(&shared.plane)).await {
        Ok(Ok(views)) => Json(views).into_response(),
        Ok(Err(error)) => problem(status_of(&error), error.to_string()),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

#[derive(Deserialize)]
pub(super) struct MatrixQuery {
    namespace: Option<String>,
    ports: Option<String>,
}

/// Who can reach whom.
pub(super) async fn matrix(State(shared): State<Shared>, Query(query): Query<MatrixQuery>) -> Response {
    let compute = move || rules::matrix(&shared.plane, query.namespace.as_deref(), query.ports.as_deref());
    match tokio::task::spawn_blocking(compute).await {
        Ok(Ok(view)) => Json(view).into_response(),
        Ok(Err(error)) => problem(StatusCode::BAD_REQUEST, error),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

#[derive(Deserialize)]
pub(super) struct LogsQuery {
    pod: String,
}

/// Where the logs of a pod's containers are: only this user can read them anyway.
pub(super) async fn logs(State(shared): State<Shared>, Query(query): Query<LogsQuery>) -> Response {
    let place = match query.pod.parse::<Place>() {
        Ok(place) => place,
        Err(error) => return problem(StatusCode::BAD_REQUEST, error.to_string()),
    };
    match shared.plane.logs(&place) {
        Some(logs) => Json(logs).into_response(),
        None => problem(StatusCode::NOT_FOUND, format!("{place} is no pod; `vswitch get pods` lists them")),
    }
}

pub(super) async fn status(State(shared): State<Shared>) -> Json<Status> {
    let runtime = &shared.runtime;
    Json(Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        cluster: runtime.cluster().name.clone(),
        mode: runtime.mode().to_owned(),
        uptime_seconds: runtime.now().as_secs_f64(),
    })
}

pub(super) async fn trace(State(shared): State<Shared>, Json(request): Json<TraceRequest>) -> Response {
    let from = match request.from.parse::<Place>() {
        Ok(place) => place,
        Err(error) => return problem(StatusCode::BAD_REQUEST, error.to_string()),
    };
    let packet = match request.packet.parse::<PacketSpec>() {
        Ok(packet) => packet,
        Err(error) => return problem(StatusCode::BAD_REQUEST, error.to_string()),
    };
    ask(shared, move |runtime| runtime.trace(&from, &packet)).await
}

pub(super) async fn connections(
    State(shared): State<Shared>,
    Query(query): Query<ConnectionQuery>,
) -> Response {
    match ConnectionFilter::try_from(query) {
        Ok(filter) => ask(shared, move |runtime| runtime.connections(&filter)).await,
        Err(error) => problem(StatusCode::BAD_REQUEST, error.to_string()),
    }
}

#[derive(Deserialize)]
pub(super) struct CaptureQuery {
    port: String,
    #[serde(default)]
    filter: String,
    #[serde(default)]
    format: CaptureFormat,
    count: Option<u64>,
}

/// Streams a capture until the client leaves or has what it wanted.
pub(super) async fn capture(State(shared): State<Shared>, Query(query): Query<CaptureQuery>) -> Response {
    let filter = match query.filter.parse::<Filter>() {
        Ok(filter) => filter,
        Err(error) => return problem(StatusCode::BAD_REQUEST, error.to_string()),
    };
    let Ok(place) = Arc::clone(&shared.captures).try_acquire_owned() else {
        let text = format!("{MAX_CAPTURES} captures run already, and that many may; end one of them");
        return problem(StatusCode::SERVICE_UNAVAILABLE, text);
    };
    let runtime = Arc::clone(&shared.runtime);
    let started = tokio::task::spawn_blocking(move || Capture::start(runtime, &query.port, filter)).await;
    let capture = match started {
        Ok(Ok(capture)) => capture,
        Ok(Err(error)) => return problem(StatusCode::NOT_FOUND, error.to_string()),
        Err(error) => return problem(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    };
    let (sender, receiver) = mpsc::channel::<Result<Bytes, io::Error>>(CHUNKS);
    let most = query.count.unwrap_or(u64::MAX);
    tokio::task::spawn_blocking(move || {
        let _place = place;
        let closed = sender.clone();
        let out = io::BufWriter::with_capacity(64 * 1024, Chunks(sender));
        // A reader that left is the usual end of a capture.
        let _ = capture.write(query.format, out, |written| written >= most || closed.is_closed());
    });
    let body = Body::from_stream(tokio_stream(receiver));
    let media = match query.format {
        CaptureFormat::Pcapng => PCAPNG,
        CaptureFormat::Text => "text/plain; charset=utf-8",
    };
    ([(header::CONTENT_TYPE, media)], body).into_response()
}

/// The receiving end of a channel as a stream.
fn tokio_stream(
    mut receiver: mpsc::Receiver<Result<Bytes, io::Error>>,
) -> impl futures_util::Stream<Item = Result<Bytes, io::Error>> {
    futures_util::stream::poll_fn(move |context| receiver.poll_recv(context))
}

/// Writes into a channel of chunks.
struct Chunks(mpsc::Sender<Result<Bytes, io::Error>>);

impl io::Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .blocking_send(Ok(Bytes::copy_from_slice(bytes)))
            .map_err(|_| io::Error::new(io::ErrorKind::BrokenPipe, "the reader left"))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

pub(super) async fn down(State(shared): State<Shared>) -> Json<DownView> {
    shared.plane.forget();
    shared.down.notify_one();
    Json(DownView { down: true })
}

pub(super) async fn metrics(State(shared): State<Shared>) -> Response {
    let text = move || super::metrics::text(&shared.plane, shared.stalled.load(Ordering::Relaxed));
    match tokio::task::spawn_blocking(text).await {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, super::metrics::MEDIA_TYPE)], text).into_response(),
        Ok(Err(error)) => problem(status_of(&error), error.to_string()),
        Err(error) => problem(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}
