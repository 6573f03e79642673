//! The end of the agents' connections in vswitch.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{oneshot, watch};

use super::duties::{Hello, Listeners};
use super::{AGENT_ROLE, NodeDuties};
use crate::cluster::Place;
use crate::container::{Container, PodSpec, Program};
use crate::helper::SELF;
use crate::state::StatePaths;

/// Octets of an agent's first line.
const MAX_HELLO: u64 = 4096;
/// How long an agent may take to send it.
const HELLO_LIMIT: Duration = Duration::from_secs(10);
/// An agent has nothing to finish.
const GRACE: Duration = Duration::from_secs(1);

/// The duties of one node; absent as long as nobody has said what they are.
type Told = watch::Sender<Option<Arc<Listeners>>>;

/// Tells every node's agent its duties.
#[derive(Debug)]
pub struct Agents {
    socket: PathBuf,
    nodes: Arc<Mutex<BTreeMap<String, Told>>>,
    /// Dropped to end the thread.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Agents {
    /// Listens for agents, at a socket in the state directory, whose lock the caller holds.
    ///
    /// # Errors
    /// When there can be no socket, or no thread.
    pub fn start(state: &StatePaths) -> io::Result<Self> {
        let socket = state.agents_socket();
        match std::fs::remove_file(&socket) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = std::os::unix::net::UnixListener::bind(&socket)?;
        listener.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let nodes: Arc<Mutex<BTreeMap<String, Told>>> = Arc::default();
        let (stop, stopped) = oneshot::channel();
        let known = Arc::clone(&nodes);
        let work = move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = stopped => {}
                    () = accept(listener, known) => {}
                }
            });
        };
        let thread = std::thread::Builder::new().name("agents".to_owned()).spawn(work)?;
        Ok(Self { socket, nodes, stop: Some(stop), thread: Some(thread) })
    }

    /// Says what is to listen in a node's namespace from now on. An agent that an earlier vswitch has started goes on with
    /// what it knows until this is called for its node.
    pub fn set(&self, node: &str, duties: &NodeDuties) {
        let listeners = Some(Arc::new(Listeners::of(duties)));
        told(&self.nodes, node).send_if_modified(|now| {
            let news = *now != listeners;
            *now = listeners;
            news
        });
    }

    /// Whether a node has anything for an agent to do, or has had.
    pub fn is_wanted(&self, node: &str) -> bool {
        self.nodes.lock().get(node).is_some_and(|told| told.borrow().is_some())
    }

    /// What is run in the namespace of a node.
    pub fn workload(&self, cluster: &str, node: &str) -> PodSpec {
        let words = [SELF, AGENT_ROLE, &self.socket.display().to_string(), node].map(str::to_owned);
        let agent = Container::new("agent", "vswitch/agent", Program::Command(words.to_vec()));
        let mut pod = PodSpec::new(Place::Node(node.to_owned()).netns(cluster));
        // No pod's log has a name that begins like this.
        pod.log_prefix = format!("node.{node}");
        pod.containers = vec![agent];
        pod.termination_grace = GRACE;
        pod
    }
}

impl Agents {
    /// Has no agent find the way here any more.
    pub fn close(&self) {
        // The next one makes it anew.
        let _ = std::fs::remove_file(&self.socket);
    }
}

impl Drop for Agents {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic has been reported where it happened.
            let _ = thread.join();
        }
        self.close();
    }
}

fn told(nodes: &Mutex<BTreeMap<String, Told>>, node: &str) -> Told {
    nodes.lock().entry(node.to_owned()).or_insert_with(|| watch::channel(None).0).clone()
}

async fn accept(listener: std::os::unix::net::UnixListener, nodes: Arc<Mutex<BTreeMap<String, Told>>>) {
    let Ok(listener) = UnixListener::from_std(listener) else { return };
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let nodes = Arc::clone(&nodes);
        tokio::spawn(async move {
            // An agent whose connection failed makes another.
            let _ = tell(stream, &nodes).await;
        });
    }
}

/// Tells one agent its duties as long as it is there.
async fn tell(stream: UnixStream, nodes: &Mutex<BTreeMap<String, Told>>) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader).take(MAX_HELLO);
    let mut line = String::new();
    tokio::time::timeout(HELLO_LIMIT, reader.read_line(&mut line)).await??;
    let Hello { node } = serde_json::from_str(&line)?;
    let mut duties = told(nodes, &node).subscribe();
    let mut known: Option<Arc<Listeners>> = None;
    let mut more = [0];
    loop {
        let next = duties.borrow_and_update().clone();
        if let Some(next) = next {
            let nothing = Listeners::default();
            let order = known.as_deref().unwrap_or(&nothing).order(&next, known.is_none());
            let mut text = serde_json::to_vec(&order)?;
            text.push(b'\n');
            writer.write_all(&text).await?;
            known = Some(next);
        }
        tokio::select! {
            changed = duties.changed() => changed.map_err(io::Error::other)?,
            // It says nothing more.
            _ = reader.read(&mut more) => return Ok(()),
        }
    }
}
