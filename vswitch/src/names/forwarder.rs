//! Asking others: the machine's own resolvers, by sockets of the machine's.
//!
//! # Theory of operation
//! A thread of its own, so that nobody's slowness is the data path's. Name servers hand questions to it and go on; what is
//! said comes back to them between two batches, several at once where there are several. Each attempt has a socket of its
//! own, so its port is by chance like its identifier and the case of its letters.
//!
//! - *Whom to ask* stands in a file like `/etc/resolv.conf`, which is looked at every second. Nobody else is ever asked.
//! - *A server that says nothing* is asked last for a while; all together have about four seconds.
//! - *Everything is bounded*: questions at the same time, those that wait, and what is remembered.

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use dns::{Attempt, Cache, DomainName, Foreign, Heard, Known, resolv_conf};
use netstack::driver::{Clock, DriverHandle, EngineId};
use netstack::seed::{Rng, Seed};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::LocalSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::query_log::{Logged, QueryLog};
use super::{NameServer, PORT};
use crate::service::Names;

/// Questions that wait to be looked at.
const WAITING: usize = 4096;
/// Questions that are asked at the same time. More are told that nobody knows.
const ASKED: usize = 1024;
/// Answers that are remembered.
const REMEMBERED: usize = 10_000;
/// Answers that are handed back at once.
const BATCH: usize = 256;
/// How long a server has to answer.
const ATTEMPT: Duration = Duration::from_secs(1);
/// The same over TCP.
const STREAM: Duration = Duration::from_secs(2);
/// Attempts in all.
const ATTEMPTS: usize = 4;
/// How long a server that said nothing is asked last.
const AVOIDED: Duration = Duration::from_secs(10);
/// How often the file is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// Where a name server is: its thread, and what it is called there.
pub(crate) type Home = (usize, EngineId);

/// What is said about a question: what, and how many seconds ago; none if nobody knows.
pub(crate) type Said = (u64, Option<(Arc<Known>, u32)>);

/// A name server's way to ask others.
#[derive(Clone, Debug)]
pub(crate) struct Forwarding {
    home: Home,
    orders: mpsc::Sender<Order>,
    clock: Clock,
    /// Whether what is asked is logged.
    logs: Arc<AtomicBool>,
}

impl Forwarding {
    /// The time.
    pub(super) fn now(&self) -> Duration {
        self.clock.now()
    }

    /// Whether what is asked is logged.
    pub(super) fn logs(&self) -> bool {
        self.logs.load(Ordering::Relaxed)
    }

    /// Has a query logged; whether that can be.
    pub(super) fn log(&self, logged: Logged) -> bool {
        self.orders.try_send(Order::Log(Box::new(logged))).is_ok()
    }

    /// Has others asked; whether that can be.
    pub(super) fn ask(&self, token: u64, foreign: Arc<Foreign>) -> bool {
        self.orders.try_send(Order::Ask { home: self.home, token, foreign }).is_ok()
    }
}

/// Who is asked.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Sources {
    /// A file like `/etc/resolv.conf`.
    file: PathBuf,
    /// Others for what is beneath these domains.
    stubs: Vec<(DomainName, Vec<IpAddr>)>,
    /// Whether what is asked is logged.
    logs: bool,
}

impl Sources {
    /// Those of a cluster.
    pub(crate) fn of(names: &Names) -> Self {
        // What is no domain was refused before.
        let stub = |(domain, servers): &(String, Vec<IpAddr>)| {
            Some((DomainName::parse(domain).ok()?, servers.clone()))
        };
        Self {
            file: names.resolv_conf.as_str().into(),
            stubs: names.stubs.iter().filter_map(stub).collect(),
            logs: names.log_queries,
        }
    }
}

/// What the thread is told.
#[derive(Debug)]
enum Order {
    Ask { home: Home, token: u64, foreign: Arc<Foreign> },
    Follow(Sources),
    Log(Box<Logged>),
    Stop,
}

/// The thread that asks others.
#[derive(Debug)]
pub(crate) struct Forwarder {
    orders: mpsc::Sender<Order>,
    clock: Clock,
    logs: Arc<AtomicBool>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Forwarder {
    /// Starts it; it asks nobody before it knows of a file. `paths` are the threads that name servers are on; queries are
    /// logged to `log`.
    ///
    /// # Errors
    /// Those of the operating system.
    pub(crate) fn start(
        paths: Vec<DriverHandle>,
        clock: Clock,
        seed: &Seed,
        log: PathBuf,
    ) -> io::Result<Self> {
        let (orders, taken) = mpsc::channel(WAITING);
        let executor = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let shared = Shared {
            clock,
            rng: seed.rng("dns forwarder"),
            sources: Sources::default(),
            text: String::new(),
            servers: Vec::new(),
            avoided: HashMap::new(),
            cache: Cache::new(REMEMBERED),
        };
        let log = QueryLog::new(log);
        let run = move || {
            LocalSet::new().block_on(&executor, run(taken, paths, Rc::new(RefCell::new(shared)), log));
        };
        let thread = std::thread::Builder::new().name("names".to_owned()).spawn(run)?;
        Ok(Self { orders, clock, logs: Arc::default(), thread: Mutex::new(Some(thread)) })
    }

    /// The way of a name server to ask others.
    pub(crate) fn of(&self, home: Home) -> Forwarding {
        Forwarding { home, orders: self.orders.clone(), clock: self.clock, logs: Arc::clone(&self.logs) }
    }

    /// Asks these from now on.
    pub(crate) fn follow(&self, sources: Sources) {
        self.logs.store(sources.logs, Ordering::Relaxed);
        // It takes what it is told, or it has ended.
        let _ = self.orders.blocking_send(Order::Follow(sources));
    }

    /// Ends it. The threads that name servers are on must still turn, or have ended.
    pub(crate) fn stop(&self) {
        let _ = self.orders.blocking_send(Order::Stop);
        if let Some(thread) = self.thread.lock().take() {
            // A panic has been reported where it happened.
            let _ = thread.join();
        }
    }
}

/// What all questions have in common.
struct Shared {
    clock: Clock,
    rng: Rng,
    sources: Sources,
    /// What the file said last.
    text: String,
    servers: Vec<IpAddr>,
    /// Until when each is asked last.
    avoided: HashMap<IpAddr, Duration>,
    cache: Cache,
}

impl Shared {
    /// Looks at the file. Who asks others forgets what those before have said.
    fn look(&mut self) {
        // One that is being replaced is there again at once; until then those are asked that it named.
        let Ok(text) = std::fs::read_to_string(&self.sources.file) else { return };
        if text == self.text {
            return;
        }
        let servers = resolv_conf::nameservers(&text);
        self.text = text;
        if servers != self.servers {
            self.servers = servers;
            self.avoided.clear();
            self.cache.clear();
        }
    }

    /// Whom to ask for a name, one after the other.
    fn order(&self, name: &DomainName) -> Vec<IpAddr> {
        let stubs = self.sources.stubs.iter().filter(|(domain, _)| name.is_within(domain));
        // The most special one of those that hold.
        let stub = stubs.max_by_key(|(domain, _)| domain.labels().count());
        let servers = stub.map_or(&self.servers, |(_, servers)| servers);
        let now = self.clock.now();
        let is_avoided = |server: &&IpAddr| self.avoided.get(*server).is_some_and(|until| *until > now);
        let (last, first): (Vec<&IpAddr>, Vec<&IpAddr>) = servers.iter().partition(is_avoided);
        let once: Vec<IpAddr> = first.into_iter().chain(last).copied().collect();
        let rounds = ATTEMPTS / once.len().max(1);
        once.iter().copied().cycle().take(once.len() * rounds.max(1)).collect()
    }

    fn avoid(&mut self, server: IpAddr) {
        self.avoided.insert(server, self.clock.now() + AVOIDED);
    }

    fn attempt(&mut self, foreign: &Foreign) -> Option<(Attempt, Vec<u8>)> {
        let [low, high, ..] = self.rng.next_u64().to_le_bytes();
        let case = u128::from(self.rng.next_u64()) << 64 | u128::from(self.rng.next_u64());
        foreign.attempt(u16::from_le_bytes([low, high]), case)
    }
}

type Done = (Home, Said);

async fn run(
    mut orders: mpsc::Receiver<Order>,
    paths: Vec<DriverHandle>,
    shared: Rc<RefCell<Shared>>,
    mut log: QueryLog,
) {
    let (tell, mut told) = mpsc::unbounded_channel::<Done>();
    let asked = Arc::new(Semaphore::new(ASKED));
    let mut ticks = interval(LOOK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                None | Some(Order::Stop) => return,
                Some(Order::Follow(sources)) => {
                    let mut shared = shared.borrow_mut();
                    if !sources.logs {
                        log.close();
                    }
                    if shared.sources != sources {
                        shared.sources = sources;
                        shared.cache.clear();
                        shared.look();
                    }
                }
                Some(Order::Log(logged)) => log.write(&[*logged]),
                Some(Order::Ask { home, token, foreign }) => {
                    let known = remembered(&shared, &foreign);
                    // The other end is below, as long as this is.
                    if let Some(said) = known {
                        let _ = tell.send((home, (token, Some(said))));
                        continue;
                    }
                    let Ok(permit) = Arc::clone(&asked).try_acquire_owned() else {
                        let _ = tell.send((home, (token, None)));
                        continue;
                    };
                    let (shared, tell) = (Rc::clone(&shared), tell.clone());
                    tokio::task::spawn_local(async move {
                        let said = ask(&shared, &foreign).await;
                        let _ = tell.send((home, (token, said)));
                        drop(permit);
                    });
                }
            },
            count = told.recv_many(&mut batch, BATCH) => {
                if count == 0 || !hand_back(&paths, &mut batch) {
                    return;
                }
            }
            _ = ticks.tick() => shared.borrow_mut().look(),
        }
    }
}

fn remembered(shared: &RefCell<Shared>, foreign: &Foreign) -> Option<(Arc<Known>, u32)> {
    let shared = &mut *shared.borrow_mut();
    let now = shared.clock.now();
    shared.cache.get(now, foreign)
}

/// Hands what was said to those who have asked; whether there is still somebody.
fn hand_back(paths: &[DriverHandle], batch: &mut Vec<Done>) -> bool {
    let mut threads: BTreeMap<usize, Vec<(EngineId, Said)>> = BTreeMap::new();
    for ((thread, id), said) in batch.drain(..) {
        threads.entry(thread).or_default().push((id, said));
    }
    for (thread, all) in threads {
        let Some(path) = paths.get(thread) else { continue };
        let handed = path.call(move |driver| {
            let now = driver.clock().now();
            for (id, said) in all {
                // Who is gone needs nothing any more.
                if let Some(server) = driver.engine_mut::<NameServer>(id) {
                    server.hear(now, said);
                }
            }
        });
        if handed.is_err() {
            return false;
        }
    }
    true
}

/// Asks one server after the other, until one says something.
async fn ask(shared: &RefCell<Shared>, foreign: &Foreign) -> Option<(Arc<Known>, u32)> {
    let order = shared.borrow().order(foreign.name());
    for server in order {
        let (attempt, octets) = shared.borrow_mut().attempt(foreign)?;
        let at = SocketAddr::new(server, PORT);
        let mut heard = timeout(ATTEMPT, by_datagram(at, &attempt, &octets)).await.unwrap_or(None);
        if matches!(heard, Some(Heard::Truncated)) {
            heard = timeout(STREAM, by_stream(at, &attempt, &octets)).await.unwrap_or(None);
        }
        match heard {
            Some(Heard::Answer(known)) => {
                let known: Arc<Known> = Arc::from(known);
                let shared = &mut *shared.borrow_mut();
                shared.avoided.remove(&server);
                let now = shared.clock.now();
                shared.cache.put(now, foreign, &known);
                return Some((known, 0));
            }
            // It is there, and another may know better.
            Some(Heard::Refused) => {}
            Some(Heard::Truncated | Heard::Stray) | None => shared.borrow_mut().avoid(server),
        }
    }
    None
}

async fn by_datagram(at: SocketAddr, attempt: &Attempt, octets: &[u8]) -> Option<Heard> {
    let any: IpAddr = match at {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await.ok()?;
    // From here on nobody else is heard.
    socket.connect(at).await.ok()?;
    socket.send(octets).await.ok()?;
    let mut buffer = vec![0; 4096];
    loop {
        let count = socket.recv(&mut buffer).await.ok()?;
        let heard = attempt.hear(&buffer[..count]);
        if !matches!(heard, Heard::Stray) {
            return Some(heard);
        }
    }
}

async fn by_stream(at: SocketAddr, attempt: &Attempt, octets: &[u8]) -> Option<Heard> {
    let mut stream = TcpStream::connect(at).await.ok()?;
    let length = u16::try_from(octets.len()).ok()?;
    stream.write_all(&[&length.to_be_bytes()[..], octets].concat()).await.ok()?;
    let length = stream.read_u16().await.ok()?;
    let mut buffer = vec![0; length.into()];
    stream.read_exact(&mut buffer).await.ok()?;
    Some(attempt.hear(&buffer))
}
