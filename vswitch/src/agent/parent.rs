//! The end of the agents' connections in vswitch.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, oneshot};

use super::duties::{Hello, Listeners, Order};
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

/// Changes that an agent may be behind with before it is told everything once more.
const BEHIND: usize = 64;

/// What one node's agent is told.
#[derive(Debug)]
struct Node {
    /// What listens for each Service; absent as long as nobody has said.
    services: Option<HashMap<Arc<str>, Listeners>>,
    /// What changes, for agents that know what was before.
    news: broadcast::Sender<Arc<Order>>,
}

impl Default for Node {
    fn default() -> Self {
        Self { services: None, news: broadcast::Sender::new(BEHIND) }
    }
}

impl Node {
    /// All of it, and what changes from now on.
    fn everything(&self) -> (Option<Arc<Order>>, broadcast::Receiver<Arc<Order>>) {
        let all = self.services.as_ref().map(|services| {
            let mut all = Listeners::default();
            services.values().cloned().for_each(|one| all.extend(one));
            Arc::new(Listeners::default().order(&all, true))
        });
        (all, self.news.subscribe())
    }
}

type Nodes = Arc<Mutex<BTreeMap<String, Node>>>;

/// Tells every node's agent its duties.
#[derive(Debug)]
pub struct Agents {
    socket: PathBuf,
    nodes: Nodes,
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
        let nodes = Nodes::default();
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

    /// Says what is to listen in a node's namespace for some Services from now on, all that there are with the first call. An
    /// agent that an earlier vswitch has started goes on with what it knows until this is called for its node.
    pub fn set(&self, node: &str, changes: Vec<(Arc<str>, NodeDuties)>) {
        let mut nodes = self.nodes.lock();
        let node = nodes.entry(node.to_owned()).or_default();
        let is_first = node.services.is_none();
        let services = node.services.get_or_insert_default();
        let (mut before, mut after) = (Listeners::default(), Listeners::default());
        for (service, duties) in changes {
            let next = Listeners::of(&duties);
            let old = match next == Listeners::default() {
                true => services.remove(&service),
                false => services.insert(service, next.clone()),
            };
            before.extend(old.unwrap_or_default());
            after.extend(next);
        }
        let order = before.order(&after, is_first);
        if !order.is_empty() {
            // Without an agent there is nobody to tell; it asks for everything when it comes.
            let _ = node.news.send(Arc::new(order));
        }
    }

    /// Forgets nodes that are gone.
    pub fn retain(&self, stays: impl Fn(&str) -> bool) {
        self.nodes.lock().retain(|node, _| stays(node));
    }

    /// Whether a node has anything for an agent to do, or has had.
    pub fn is_wanted(&self, node: &str) -> bool {
        self.nodes.lock().get(node).is_some_and(|node| node.services.is_some())
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

async fn accept(listener: std::os::unix::net::UnixListener, nodes: Nodes) {
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
async fn tell(stream: UnixStream, nodes: &Nodes) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader).take(MAX_HELLO);
    let mut line = String::new();
    tokio::time::timeout(HELLO_LIMIT, reader.read_line(&mut line)).await??;
    let Hello { node } = serde_json::from_str(&line)?;
    let everything = || nodes.lock().entry(node.clone()).or_default().everything();
    let (mut next, mut news) = everything();
    let mut more = [0];
    loop {
        if let Some(order) = next {
            let mut text = serde_json::to_vec(&*order)?;
            text.push(b'\n');
            writer.write_all(&text).await?;
        }
        next = tokio::select! {
            told = news.recv() => match told {
                Ok(order) => Some(order),
                Err(RecvError::Lagged(_)) => {
                    let (all, from_now) = everything();
                    news = from_now;
                    all
                }
                // The node is gone.
                Err(RecvError::Closed) => return Ok(()),
            },
            // It says nothing more.
            _ = reader.read(&mut more) => return Ok(()),
        };
    }
}
