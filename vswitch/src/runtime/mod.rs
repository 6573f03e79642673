//! A running cluster: switches and devices on the data path's threads, namespaces in the helper, and what the control
//! plane may ask of both.

mod balance;
mod capture;
mod connections;
mod difference;
mod egress;
mod fabric;
mod interface;
mod lines;
mod making;
mod name_servers;
mod packet;
mod paths;
mod policies;
mod proxies;
mod questions;
mod rewiring;
mod station;
mod trace;
mod views;
mod watch;

pub(crate) use balance::Balanced;
pub use capture::{Capture, CaptureError};
pub(crate) use connections::ConnectionCounts;
pub use connections::{ConnectionFilter, FilterError};
pub(crate) use egress::EgressCounts;
pub use fabric::Applied;
pub(crate) use name_servers::NameServerCounts;
pub use packet::{Kind, PacketSpec, PacketSpecError};
pub(crate) use policies::PolicyCount;
pub(crate) use proxies::ProxyCounts;
pub use station::Exchange;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, Read as _};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use netstack::addr::PortId;
use netstack::config::ConfigErrors;
use netstack::device::tap;
use netstack::driver::{Clock, Driver, DriverEvent, Latency, Stopped};
use netstack::frame::{Depot, OffloadFeatures};
use netstack::seed::Seed;
use netstack::switch::Switch;
use parking_lot::{Mutex, RwLock};

use self::fabric::Fabric;
use self::paths::{EngineAt, Paths, Switches};
use self::station::Station;
use crate::cluster::{Cluster, Endpoint, Place, UNDERLAY};
use crate::control::api::EventView;
use crate::helper::{DOCTOR_KNOWS, Helper, HelperError, HelperOptions, Namespace};
use crate::names::Forwarder;
use crate::probe::Report;
use crate::state::StatePaths;

/// Batches in a link between two switches: with super-frames this is more than any TCP window in flight.
const LINK_BATCHES: usize = 64;
/// Events kept for `GET /v1/events`.
const EVENTS: usize = 1000;

/// What pods are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Mode {
    /// Namespaces and TAP devices if the machine allows them, else memory.
    #[default]
    Auto,
    /// Namespaces and TAP devices, or an error.
    Tap,
    /// In-process pods on memory links.
    Memory,
}

/// How to start a cluster.
#[derive(Clone, Debug)]
pub struct Options {
    /// What pods are made of.
    pub mode: Mode,
    /// Whether TAPs carry super-frames and unfinished checksums.
    pub offload: bool,
    /// Places whose TAPs carry finished frames whatever `offload` says.
    pub plain: Vec<Place>,
    /// The state directory, whose lock the caller holds.
    pub state: StatePaths,
    /// How long pods outlive a process that was killed.
    pub grace: Duration,
    /// What the data path pays for a short way from pod to pod.
    pub latency: Latency,
    /// How many threads move frames. Each switch lives on one of them.
    pub threads: NonZeroUsize,
    /// Whether threads that move frames and ask for names give up what they do not need: capabilities, files, system calls.
    pub confined: bool,
}

/// Why a cluster did not start, or could not be asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// The helper failed.
    #[error(transparent)]
    Helper(#[from] HelperError),
    /// A TAP could not be used.
    #[error("the TAP of {place}: {source}")]
    Tap {
        /// Whose.
        place: Place,
        /// Why.
        source: tap::TapError,
    },
    /// A switch's configuration is wrong.
    #[error("{switch}: {source}")]
    Config {
        /// Whose.
        switch: String,
        /// What.
        source: ConfigErrors,
    },
    /// An in-process pod's configuration is wrong.
    #[error("{place}: {reason}")]
    Station {
        /// Whose.
        place: Place,
        /// What.
        reason: String,
    },
    /// A node's userspace proxy cannot be made.
    #[error("the service proxy of {node}: {reason}")]
    Proxy {
        /// Whose.
        node: String,
        /// Why.
        reason: String,
    },
    /// A node's name server cannot be made.
    #[error("the name server of {node}: {reason}")]
    NameServer {
        /// Whose.
        node: String,
        /// Why.
        reason: String,
    },
    /// There is no interface for what leaves.
    #[error(
        "the interface that `egress: kernel` needs cannot be made: {reason}; it takes root, which `egress: user` does not"
    )]
    Egress {
        /// Why.
        reason: String,
    },
    /// The wanted cluster differs in what cannot change while it runs.
    #[error(
        "the {0} of a cluster cannot change while it runs; end it with `vswitch down` and start it again"
    )]
    Frame(&'static str),
    /// The operating system refused.
    #[error("cannot set up the data path: {0}")]
    Io(#[from] io::Error),
    /// The data path has ended.
    #[error("the data path has stopped")]
    Stopped(#[from] Stopped),
    /// Nobody has that name.
    #[error("{0} does not exist; `vswitch get pods` lists who does")]
    UnknownPlace(Place),
    /// Asked for what in-process pods do not have.
    #[error("{0} is an in-process pod on a memory link: it has no namespace to enter")]
    NoNamespace(Place),
    /// The text describes no packet.
    #[error(transparent)]
    Packet(#[from] PacketSpecError),
    /// A packet of a family in which the sender has no address.
    #[error("{0} has no address of that family")]
    NoAddress(Place),
}

/// One end station and what stands behind it.
#[derive(Debug)]
struct Placed {
    endpoint: Endpoint,
    namespace: Option<Namespace>,
    station: Option<EngineAt>,
    /// What its device takes over.
    offload: OffloadFeatures,
}

impl Placed {
    /// Whether the link at this port is its own.
    fn owns(&self, switch: &str, port: PortId) -> bool {
        let attachment = &self.endpoint.attachment;
        self.endpoint.shares.is_none() && attachment.switch == switch && attachment.port == port
    }
}

/// A running cluster. Dropping it stops the data path; [`Runtime::stop`] also removes the namespaces and says what could
/// not be removed.
#[derive(Debug)]
pub struct Runtime {
    /// Held during a change, so that there is one at a time.
    changing: Mutex<()>,
    fabric: RwLock<Fabric>,
    /// What the userspace proxies of nodes carry.
    proxied: Mutex<proxies::Proxied>,
    /// What name servers know.
    zone: Mutex<Option<dns::Zone>>,
    /// Asks others for them.
    forwarder: Arc<Forwarder>,
    balance: Mutex<balance::Balance>,
    paths: Paths,
    clock: Clock,
    depot: Arc<Depot>,
    seed: Seed,
    /// Whether end stations are namespaces, not in-process.
    in_namespaces: bool,
    offload: bool,
    plain: Vec<Place>,
    helper: Mutex<Option<Helper>>,
    /// Namespaces that an earlier process left behind, as long as nobody has taken them over.
    found: Mutex<BTreeMap<String, Namespace>>,
    state: StatePaths,
    /// Why memory links are used although TAPs were wanted.
    fallback: Option<String>,
    log: Mutex<Log>,
    taps: Mutex<capture::Taps>,
}

#[derive(Debug, Default)]
struct Log {
    events: VecDeque<EventView>,
    gone: BTreeSet<(String, PortId)>,
    ended: watch::Ended,
}

impl Runtime {
    /// Starts `cluster`: namespaces first, then the switches, all ports open at once.
    ///
    /// `kept` is the helper that an earlier process left behind and this one has adopted. Its namespaces that are still as
    /// they are wanted are taken over; what is in them does not notice. Without one a helper is started.
    ///
    /// # Errors
    /// What failed; everything made until then has been removed again.
    pub fn start(cluster: Cluster, options: &Options, kept: Option<Helper>) -> Result<Self, RuntimeError> {
        if options.mode == Mode::Memory {
            return Self::start_as(cluster, options, None);
        }
        let start = || {
            let mut start = HelperOptions::new(options.state.clone());
            start.grace = options.grace;
            Helper::start(&start)
        };
        let helper = kept.map_or_else(start, Ok);
        let started = helper
            .map_err(RuntimeError::from)
            .and_then(|helper| Self::start_as(cluster.clone(), options, Some(helper)));
        match started {
            Err(error) if options.mode == Mode::Auto => {
                let mut runtime = Self::start_as(cluster, options, None)?;
                // Who tells it adds what the doctor knows.
                runtime.fallback = Some(error.to_string().replace(DOCTOR_KNOWS, ""));
                Ok(runtime)
            }
            started => started,
        }
    }

    fn start_as(
        cluster: Cluster,
        options: &Options,
        mut helper: Option<Helper>,
    ) -> Result<Self, RuntimeError> {
        let found = helper.as_mut().map(Helper::list).transpose()?.unwrap_or_default();
        let (clock, seed) = (Clock::start(), fresh_seed()?);
        let (paths, forwarder, unconfined) = paths::start(options, clock, &seed)?;
        let runtime = Self {
            changing: Mutex::default(),
            fabric: RwLock::new(Fabric::empty(&cluster.name)),
            proxied: Mutex::default(),
            zone: Mutex::default(),
            forwarder: Arc::new(forwarder),
            balance: Mutex::default(),
            paths,
            clock,
            depot: Depot::new(),
            seed,
            in_namespaces: helper.is_some(),
            offload: options.offload,
            plain: options.plain.clone(),
            helper: Mutex::new(helper),
            found: Mutex::new(
                found.into_iter().map(|namespace| (namespace.name.clone(), namespace)).collect(),
            ),
            state: options.state.clone(),
            fallback: None,
            log: Mutex::default(),
            taps: Mutex::default(),
        };
        for problem in unconfined {
            runtime.tell(UNDERLAY, format!("the data path has more rights than it needs: {problem}"));
        }
        let applied = runtime.apply(cluster, |_| {}).map(|mut applied| {
            applied.problems.extend(runtime.remove_found());
            applied
        });
        match applied {
            Ok(applied) if applied.problems.is_empty() => Ok(runtime),
            Ok(applied) => {
                drop(runtime.stop());
                Err(io::Error::other(applied.problems.join("; ")).into())
            }
            Err(error) => {
                // The first error is what the user needs to see; what the helper could not undo is in its log.
                drop(runtime.stop());
                Err(error)
            }
        }
    }

    /// Removes what an earlier process left behind and nobody has taken over; returns what could not be removed.
    fn remove_found(&self) -> Vec<String> {
        let found = std::mem::take(&mut *self.found.lock());
        let mut helper = self.helper.lock();
        let Some(helper) = helper.as_mut() else { return Vec::new() };
        let removed = found.keys().map(|name| helper.delete(name));
        removed.flat_map(|ended| ended.unwrap_or_else(|error| vec![error.to_string()])).collect()
    }

    /// The model of what stands.
    pub fn cluster(&self) -> Arc<Cluster> {
        Arc::clone(&self.fabric.read().cluster)
    }

    /// `tap` or `memory`.
    pub fn mode(&self) -> &'static str {
        if self.in_namespaces { "tap" } else { "memory" }
    }

    /// Whether end stations are network namespaces, in which programs can run.
    pub fn has_namespaces(&self) -> bool {
        self.in_namespaces
    }

    /// Why memory links are used although TAPs were wanted.
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    /// Time since the data path started.
    pub fn now(&self) -> Duration {
        self.clock.now()
    }

    /// The namespace of a place.
    ///
    /// # Errors
    /// When nobody has that name, or it has no namespace.
    pub fn namespace(&self, place: &Place) -> Result<Namespace, RuntimeError> {
        self.placed(place)?.namespace.clone().ok_or_else(|| RuntimeError::NoNamespace(place.clone()))
    }

    fn placed(&self, place: &Place) -> Result<Arc<Placed>, RuntimeError> {
        let placed = self.fabric.read().places.get(place).cloned();
        placed.ok_or_else(|| RuntimeError::UnknownPlace(place.clone()))
    }

    /// Everyone, in order.
    fn all_placed(&self) -> Vec<Arc<Placed>> {
        self.fabric.read().places.values().cloned().collect()
    }

    /// The switches by name.
    fn switches(&self) -> Switches {
        self.fabric.read().switches.clone()
    }

    /// Runs `ask` with one switch on its thread, between two batches.
    fn with_switch<R: Send + 'static>(
        &self,
        name: &str,
        ask: impl FnOnce(&mut Switch) -> R + Send + 'static,
    ) -> Result<Option<R>, RuntimeError> {
        let at = self.fabric.read().switches.get(name).copied();
        let Some(EngineAt { thread, id }) = at else { return Ok(None) };
        Ok(self.paths.ask(thread, move |driver| driver.engine_mut::<Switch>(id).map(ask))?)
    }

    /// Lets an in-process pod do something and waits for it, `patience` at the most.
    ///
    /// # Errors
    /// What went wrong, in a sentence.
    pub fn exchange(&self, place: &Place, exchange: Exchange, patience: Duration) -> Result<Report, String> {
        let station = self.placed(place).ok().and_then(|p| p.station);
        let EngineAt { thread, id } = station.ok_or_else(|| format!("{place} is not an in-process pod"))?;
        let begin = move |driver: &mut Driver| {
            let now = driver.clock().now();
            if let Some(station) = driver.engine_mut::<Station>(id) {
                station.begin(now, exchange);
            }
        };
        self.paths.call(thread, begin).map_err(|e| e.to_string())?;
        let deadline = self.clock.now() + patience;
        while self.clock.now() < deadline {
            let ask = move |driver: &mut Driver| driver.engine_mut::<Station>(id).and_then(Station::outcome);
            if let Some(outcome) = self.paths.call(thread, ask).map_err(|e| e.to_string())? {
                return outcome;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Err(format!("no end after {} seconds", patience.as_secs()))
    }

    /// Takes in what the data path has to tell since the last call, and returns it.
    pub fn collect_events(&self) -> Vec<EventView> {
        let at_seconds = self.clock.now().as_secs_f64();
        let mut told = Vec::new();
        for thread in 0..self.paths.count() {
            let Ok(news) = self.paths.call(thread, views::news) else { continue };
            let gone = &mut self.log.lock().gone;
            told.extend(news.into_iter().filter_map(|news| self.describe(thread, news, at_seconds, gone)));
        }
        let ends = self.notice_ends().into_iter();
        told.extend(ends.map(|(switch, text)| EventView { at_seconds, switch, text }));
        self.keep(told.iter().cloned());
        told
    }

    /// Has an event of a node's switch stand among the others.
    pub(crate) fn tell(&self, switch: &str, text: String) {
        let at_seconds = self.clock.now().as_secs_f64();
        self.keep([EventView { at_seconds, switch: switch.to_owned(), text }]);
    }

    fn keep(&self, told: impl IntoIterator<Item = EventView>) {
        let events = &mut self.log.lock().events;
        events.extend(told);
        let surplus = events.len().saturating_sub(EVENTS);
        events.drain(..surplus);
    }

    /// Events collected so far, oldest first.
    pub fn events(&self) -> Vec<EventView> {
        self.log.lock().events.iter().cloned().collect()
    }

    fn describe(
        &self,
        thread: usize,
        (event, text): views::News,
        at_seconds: f64,
        gone: &mut BTreeSet<(String, PortId)>,
    ) -> Option<EventView> {
        let fabric = self.fabric.read();
        let name_of = |id| {
            let at = EngineAt { thread, id };
            fabric.switches.iter().find(|(_, other)| **other == at).map(|(name, _)| name.clone())
        };
        let (switch, text) = match event {
            DriverEvent::DeviceGone { engine, port, error } => {
                let switch = name_of(engine)?;
                gone.insert((switch.clone(), port));
                let place = fabric.places.values().find(|p| p.owns(&switch, port));
                let who = place.map_or_else(|| port.to_string(), |p| p.endpoint.place.to_string());
                (switch, format!("the device of {who} is gone: {error}; its port carries nothing any more"))
            }
            DriverEvent::Engine { engine, .. } => (name_of(engine)?, text?),
            _ => return None,
        };
        Some(EventView { at_seconds, switch, text })
    }

    /// Stops the data path and removes every namespace; returns what could not be removed, in sentences.
    pub fn stop(&self) -> Vec<String> {
        self.forwarder.stop();
        let mut problems = Vec::new();
        if let Some(helper) = self.helper.lock().take() {
            match helper.shutdown() {
                Ok(left) => problems.extend(left),
                // It was killed, and what it had made under other names is still there.
                Err(HelperError::Gone) => problems.extend(self.reclaim()),
                Err(error) => problems.push(error.to_string()),
            }
        }
        problems.extend(self.paths.stop());
        problems
    }
}

fn fresh_seed() -> io::Result<Seed> {
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(Seed(bytes))
}
