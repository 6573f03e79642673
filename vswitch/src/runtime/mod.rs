//! A running cluster: switches and devices on the data path's thread, namespaces in the helper, and what the control
//! plane may ask of both.

mod capture;
mod packet;
mod station;
mod trace;
mod views;
mod watch;

pub use capture::{Capture, CaptureError};
pub use packet::{Kind, PacketSpec, PacketSpecError};
pub use station::Exchange;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io::{self, Read as _};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use netstack::addr::PortId;
use netstack::config::{ConfigErrors, Limits, Snapshot};
use netstack::device::Device;
use netstack::device::memory::{self, MemoryOptions};
use netstack::device::tap::{self, Tap};
use netstack::driver::{Clock, Driver, DriverEvent, DriverHandle, EngineId, Stopped};
use netstack::frame::{Depot, FramePool, OffloadFeatures};
use netstack::seed::Seed;
use netstack::switch::Switch;
use parking_lot::Mutex;

use self::station::Station;
use crate::cluster::{Cluster, Endpoint, Place, SwitchPlan, Wiring, wire};
use crate::control::api::EventView;
use crate::helper::{DOCTOR_KNOWS, Helper, HelperError, HelperOptions, Namespace, NamespaceSpec, Offload};
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
    station: Option<EngineId>,
}

/// A running cluster. Dropping it stops the data path; [`Runtime::stop`] also removes the namespaces and says what could
/// not be removed.
#[derive(Debug)]
pub struct Runtime {
    cluster: Cluster,
    handle: DriverHandle,
    thread: Mutex<Option<JoinHandle<io::Result<()>>>>,
    clock: Clock,
    switches: BTreeMap<String, EngineId>,
    places: BTreeMap<Place, Placed>,
    helper: Mutex<Option<Helper>>,
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

/// An end station's device, and the namespace it leads into.
type Plugged = (Endpoint, Option<Namespace>, Option<Tap>);

impl Runtime {
    /// Starts `cluster`: namespaces first, then the switches, all ports open at once.
    ///
    /// # Errors
    /// What failed; everything made until then has been removed again.
    pub fn start(cluster: Cluster, options: &Options) -> Result<Self, RuntimeError> {
        let wiring = wire(&cluster);
        let (helper, plugged, fallback) = match options.mode {
            Mode::Memory => (None, in_memory(&wiring), None),
            Mode::Tap => {
                let (helper, plugged) = in_namespaces(&cluster, &wiring, options)?;
                (Some(helper), plugged, None)
            }
            Mode::Auto => match in_namespaces(&cluster, &wiring, options) {
                Ok((helper, plugged)) => (Some(helper), plugged, None),
                // Who tells it adds what the doctor knows.
                Err(error) => (None, in_memory(&wiring), Some(error.to_string().replace(DOCTOR_KNOWS, ""))),
            },
        };
        let clock = Clock::start();
        let mut built = Built::default();
        let mut failure = None;
        let spawned = Driver::spawn(clock, "data path", |driver| {
            let result = build(driver, wiring, plugged, &mut built);
            result.map_err(|error| {
                failure = Some(error);
                io::Error::other("see the error kept beside")
            })
        });
        let (handle, thread) = match (spawned, failure) {
            (Ok(spawned), _) => spawned,
            (Err(_), Some(error)) => return Err(error),
            (Err(error), None) => return Err(error.into()),
        };
        Ok(Self {
            cluster,
            handle,
            thread: Mutex::new(Some(thread)),
            clock,
            switches: built.switches,
            places: built.places,
            helper: Mutex::new(helper),
            state: options.state.clone(),
            fallback,
            log: Mutex::default(),
            taps: Mutex::default(),
        })
    }

    /// The model it was started from.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// `tap` or `memory`.
    pub fn mode(&self) -> &'static str {
        if self.places.values().any(|p| p.namespace.is_some()) { "tap" } else { "memory" }
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
    pub fn namespace(&self, place: &Place) -> Result<&Namespace, RuntimeError> {
        let placed = self.places.get(place).ok_or_else(|| RuntimeError::UnknownPlace(place.clone()))?;
        placed.namespace.as_ref().ok_or_else(|| RuntimeError::NoNamespace(place.clone()))
    }

    /// Runs `ask` with one switch on the data path's thread, between two batches.
    fn with_switch<R: Send + 'static>(
        &self,
        name: &str,
        ask: impl FnOnce(&mut Switch) -> R + Send + 'static,
    ) -> Result<Option<R>, RuntimeError> {
        let Some(&id) = self.switches.get(name) else { return Ok(None) };
        Ok(self.handle.call(move |driver| driver.engine_mut::<Switch>(id).map(ask))?)
    }

    /// Lets an in-process pod do something and waits for it, `patience` at the most.
    ///
    /// # Errors
    /// What went wrong, in a sentence.
    pub fn exchange(&self, place: &Place, exchange: Exchange, patience: Duration) -> Result<Report, String> {
        let id = self.places.get(place).and_then(|p| p.station);
        let id = id.ok_or_else(|| format!("{place} is not an in-process pod"))?;
        let begin = move |driver: &mut Driver| {
            let now = driver.clock().now();
            if let Some(station) = driver.engine_mut::<Station>(id) {
                station.begin(now, exchange);
            }
        };
        self.handle.call(begin).map_err(|e| e.to_string())?;
        let deadline = self.clock.now() + patience;
        while self.clock.now() < deadline {
            let ask = move |driver: &mut Driver| driver.engine_mut::<Station>(id).and_then(Station::outcome);
            if let Some(outcome) = self.handle.call(ask).map_err(|e| e.to_string())? {
                return outcome;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Err(format!("no end after {} seconds", patience.as_secs()))
    }

    /// Takes in what the data path has to tell since the last call, and returns it.
    pub fn collect_events(&self) -> Vec<EventView> {
        let Ok(news) = self.handle.call(|driver| {
            let polled: Vec<_> = std::iter::from_fn(|| driver.poll_event()).take(EVENTS).collect();
            let told = polled.into_iter().map(|event| (event, views::told_by_switch(driver, &event)));
            told.collect::<Vec<_>>()
        }) else {
            return Vec::new();
        };
        let at_seconds = self.clock.now().as_secs_f64();
        let mut told: Vec<EventView> = {
            let gone = &mut self.log.lock().gone;
            news.into_iter().filter_map(|news| self.describe(news, at_seconds, gone)).collect()
        };
        let ends = self.notice_ends().into_iter();
        told.extend(ends.map(|(switch, text)| EventView { at_seconds, switch, text }));
        let events = &mut self.log.lock().events;
        events.extend(told.iter().cloned());
        let surplus = events.len().saturating_sub(EVENTS);
        events.drain(..surplus);
        told
    }

    /// Events collected so far, oldest first.
    pub fn events(&self) -> Vec<EventView> {
        self.log.lock().events.iter().cloned().collect()
    }

    fn describe(
        &self,
        (event, text): (DriverEvent, Option<String>),
        at_seconds: f64,
        gone: &mut BTreeSet<(String, PortId)>,
    ) -> Option<EventView> {
        let name_of =
            |id: EngineId| self.switches.iter().find(|(_, e)| **e == id).map(|(name, _)| name.clone());
        let (switch, text) = match event {
            DriverEvent::DeviceGone { engine, port, error } => {
                let switch = name_of(engine)?;
                gone.insert((switch.clone(), port));
                let place = self
                    .places
                    .values()
                    .find(|p| p.endpoint.attachment.switch == switch && p.endpoint.attachment.port == port);
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
        let mut problems = Vec::new();
        if let Some(helper) = self.helper.lock().take() {
            match helper.shutdown() {
                Ok(left) => problems.extend(left),
                // It was killed, and what it had made under other names is still there.
                Err(HelperError::Gone) => problems.extend(self.reclaim()),
                Err(error) => problems.push(error.to_string()),
            }
        }
        self.handle.stop();
        if let Some(thread) = self.thread.lock().take() {
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => problems.push(format!("the data path ended with an error: {error}")),
                Err(_) => problems.push("the data path panicked".to_owned()),
            }
        }
        problems
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.handle.stop();
    }
}

fn in_memory(wiring: &Wiring) -> Vec<Plugged> {
    wiring.endpoints.iter().map(|e| (e.clone(), None, None)).collect()
}

/// Starts the helper and makes every namespace. Dropping the helper on failure removes what was made.
fn in_namespaces(
    cluster: &Cluster,
    wiring: &Wiring,
    options: &Options,
) -> Result<(Helper, Vec<Plugged>), RuntimeError> {
    let mut start = HelperOptions::new(options.state.clone());
    start.grace = options.grace;
    let mut helper = Helper::start(&start)?;
    let mut plugged = Vec::new();
    let made = wiring.endpoints.iter().try_for_each(|endpoint| {
        let offload = options.offload && !options.plain.contains(&endpoint.place);
        let created = helper.create(&spec(cluster, endpoint, offload))?;
        let mode = if created.namespace.vnet_hdr { tap::Mode::Offload } else { tap::Mode::Plain };
        let device = Tap::from_fd(created.tap, mode, usize::from(endpoint.mtu))
            .map_err(|source| RuntimeError::Tap { place: endpoint.place.clone(), source })?;
        plugged.push((endpoint.clone(), Some(created.namespace), Some(device)));
        Ok(())
    });
    match made {
        Ok(()) => Ok((helper, plugged)),
        Err(error) => {
            // The first error is what the user needs to see; what the helper could not undo is in its log.
            drop(helper.shutdown());
            Err(error)
        }
    }
}

fn spec(cluster: &Cluster, endpoint: &Endpoint, offload: bool) -> NamespaceSpec {
    let mut spec = NamespaceSpec::new(endpoint.place.netns(&cluster.name), endpoint.mac);
    spec.hostname = Some(endpoint.place.name().to_owned());
    spec.addresses.clone_from(&endpoint.addresses);
    spec.gateway_v4 = endpoint.gateway_v4;
    spec.gateway_v6 = endpoint.gateway_v6;
    spec.mtu = endpoint.mtu;
    spec.offload = if offload { Offload::Auto } else { Offload::Off };
    spec
}

#[derive(Default)]
struct Built {
    switches: BTreeMap<String, EngineId>,
    places: BTreeMap<Place, Placed>,
}

/// Puts switches and devices onto the driver.
fn build(
    driver: &mut Driver,
    wiring: Wiring,
    plugged: Vec<Plugged>,
    built: &mut Built,
) -> Result<(), RuntimeError> {
    let depot = Depot::new();
    let seed = fresh_seed()?;
    let mtu = wiring.endpoints.first().map_or(1500, |e| usize::from(e.mtu));
    let mut plans = wiring.switches;
    for (endpoint, _, tap) in &plugged {
        set_offload(&mut plans, endpoint, tap.as_ref().map_or(OffloadFeatures::NONE, Device::offload));
    }
    for plan in &plans {
        let pool = FramePool::with_depot(Arc::clone(&depot));
        let mut switch = Switch::new(Limits::default(), &seed, pool);
        let snapshot = Snapshot::compile(plan.config.clone(), None)
            .map_err(|source| RuntimeError::Config { switch: plan.name.clone(), source })?;
        switch.install(snapshot);
        built.switches.insert(plan.name.clone(), driver.add_engine(Box::new(switch)));
    }
    for plan in &plans {
        for (own, other, theirs) in &plan.links {
            let (near, far) =
                memory::pair(LINK_BATCHES, MemoryOptions { mtu, offload: OffloadFeatures::ALL })?;
            driver.attach(built.switches[&plan.name], *own, Box::new(near))?;
            driver.attach(built.switches[other], *theirs, Box::new(far))?;
        }
    }
    for (endpoint, namespace, tap) in plugged {
        let switch = built.switches[&endpoint.attachment.switch];
        let mut station = None;
        let device: Box<dyn Device> = match tap {
            Some(tap) => Box::new(tap),
            None => {
                let (near, far) =
                    memory::pair(LINK_BATCHES, MemoryOptions { mtu, offload: OffloadFeatures::NONE })?;
                let host = Station::new(&endpoint, &seed)
                    .map_err(|reason| RuntimeError::Station { place: endpoint.place.clone(), reason })?;
                let id = driver.add_engine(Box::new(host));
                driver.attach(id, PortId(0), Box::new(far))?;
                station = Some(id);
                Box::new(near)
            }
        };
        driver.attach(switch, endpoint.attachment.port, device)?;
        built.places.insert(endpoint.place.clone(), Placed { endpoint, namespace, station });
    }
    Ok(())
}

fn set_offload(plans: &mut [SwitchPlan], endpoint: &Endpoint, offload: OffloadFeatures) {
    let port = plans
        .iter_mut()
        .find(|p| p.name == endpoint.attachment.switch)
        .and_then(|p| p.config.ports.iter_mut().find(|p| p.id == endpoint.attachment.port));
    if let Some(port) = port {
        port.offload = offload;
    }
}

fn fresh_seed() -> io::Result<Seed> {
    let mut bytes = [0; 32];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(Seed(bytes))
}
