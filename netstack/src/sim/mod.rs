//! A seeded laboratory: switches, hosts and the links between them on a virtual clock.
//!
//! ```
//! use std::time::Duration;
//! use netstack::addr::{MacAddr, PortId};
//! use netstack::host::{HostConfig, HostEvent};
//! use netstack::seed::Seed;
//! use netstack::sim::{Lab, LinkProfile};
//!
//! let mut lab = Lab::new(Seed::from_u64(1));
//! let switch = lab.add_bridge("switch", 2)?;
//! let a = lab.add_host("a", HostConfig::new(MacAddr::local(1), vec!["fd00::1/64".parse()?]))?;
//! let b = lab.add_host("b", HostConfig::new(MacAddr::local(2), vec!["fd00::2/64".parse()?]))?;
//! let cable = LinkProfile::delayed(Duration::from_millis(1));
//! lab.connect(a, (switch, PortId(0)), cable)?;
//! lab.connect(b, (switch, PortId(1)), cable)?;
//!
//! lab.host_mut(a).ping(Duration::ZERO, "fd00::2".parse()?, 1, 1, b"hello")?;
//! let answered = lab.run_until(Duration::from_secs(1), |lab| {
//!     matches!(lab.host_mut(a).poll_event(), Some(HostEvent::EchoReply { .. }))
//! })?;
//! // Four times over the switch: who has fd00::2? I. Echo? Echo!
//! assert!(answered && lab.now() == Duration::from_millis(8));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Theory of operation
//! A [`Lab`] owns everything and is turned by one thread. What is to happen stands in an agenda ordered by time, and by the
//! order of entry where times are equal: a frame that arrives, a timer that is due, a frame put in by hand. One
//! [step](Lab::step) takes the first, lets the switch or host concerned do what it wants, and puts what it sends on the
//! links, which are [lines](crate::device::fault::Line) with faults of their own. Time is what the agenda says; nothing
//! waits, and a step that changes nothing (a timer that was put off since) is none.
//!
//! *Everything follows from the seed.* Each switch, host and line draws from a seed derived from the laboratory's and its
//! name. The same seed and the same calls give the same frames at the same times, to the octet.
//!
//! *Invariants.* After each step the switch or host concerned must have accounted for every frame ([`Switch::check`],
//! [`HostCounters::balanced`](crate::host::HostCounters::balanced)), the lines at its ports too
//! ([`Line::check`](crate::device::fault::Line::check)), and what it sent must be fit for its port. Nothing else can have
//! changed in a step. At the end of each run [`Lab::check`] looks at all of them, and compares what each says it sent and
//! received with what the lines at it say. The first that does not hold ends the run with a [`Violation`], which names it,
//! the step and the seed; [`Lab::trace`] tells what came before.
//!
//! *The owner's hand.* [`Lab::host_mut`] and [`Lab::switch_mut`] give the thing itself, for its sockets and events; what it
//! has to send is taken before the next step. Frames go in by the links and by [`Lab::inject`] only: one that is handed to
//! an engine directly is missing in the accounts.
//!
//! *Bounds* are those of switches, hosts and lines; the trace is bounded, and [`MAX_STEPS_AT_ONCE`] steps without time
//! passing end a run with an error.

mod error;
mod node;
mod run;
mod trace;

pub use crate::device::fault::{Line, LineCounters, LinkProfile, Probability};
pub use error::{AddError, ConnectError, LabError, Violation};
pub use node::{End, HostId, Side, SwitchId};
pub use run::MAX_STEPS_AT_ONCE;

use alloc::boxed::Box;
use alloc::collections::BinaryHeap;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::fmt;
use core::time::Duration;

use self::node::{Engine, Node};
use self::run::Event;
use self::trace::{Incident, Log};
use crate::addr::{PortId, SegmentId};
use crate::config::{Config, Limits, PortConfig, SegmentConfig, Snapshot, VlanMode};
use crate::frame::{Frame, FrameBatch, FramePool};
use crate::host::{Host, HostConfig};
use crate::seed::Seed;
use crate::switch::Switch;

/// A link of a laboratory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct LinkId(usize);

/// A frame on a link, as an [`Observer`] sees it.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// When.
    pub at: Duration,
    /// On which link.
    pub link: LinkId,
    /// Who sent it.
    pub from: End,
    /// Whom it is on its way to.
    pub to: End,
    /// Whether it has arrived there; else it was just sent, and may yet be lost, damaged or copied.
    pub arrived: bool,
    /// The frame. It may be a super-frame, or have an unfinished checksum.
    pub frame: &'a Frame,
}

/// Sees each frame of a laboratory when it is sent and when it arrives.
pub type Observer = Box<dyn FnMut(&Seen<'_>) + Send>;

/// Two ends and a line each way.
#[derive(Debug)]
struct Cable {
    ends: [End; 2],
    /// By the side that sends.
    lines: [Line; 2],
    plugged: bool,
}

/// A laboratory; see the [module](self).
pub struct Lab {
    seed: Seed,
    now: Duration,
    steps: u64,
    /// Steps taken since time last passed.
    steps_at_once: u64,
    entries: u64,
    /// The node that the last step concerned.
    last: Option<usize>,
    agenda: BinaryHeap<Reverse<Event>>,
    nodes: Vec<Node>,
    cables: Vec<Cable>,
    /// What the owner has had hold of.
    touched: Vec<usize>,
    pool: FramePool,
    batch: Option<FrameBatch>,
    log: Log,
    observer: Option<Observer>,
}

impl fmt::Debug for Lab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lab")
            .field("now", &self.now)
            .field("steps", &self.steps)
            .field("nodes", &self.nodes)
            .field("cables", &self.cables)
            .finish_non_exhaustive()
    }
}

impl Lab {
    /// An empty laboratory at time zero.
    pub fn new(seed: Seed) -> Self {
        Self {
            seed,
            now: Duration::ZERO,
            steps: 0,
            steps_at_once: 0,
            entries: 0,
            last: None,
            agenda: BinaryHeap::new(),
            nodes: Vec::new(),
            cables: Vec::new(),
            touched: Vec::new(),
            pool: FramePool::new(),
            batch: None,
            log: Log::new(),
            observer: None,
        }
    }

    /// Adds a switch. Its name stands in traces and errors, and decides what it draws from the seed.
    ///
    /// # Errors
    /// There is a switch or host of that name.
    pub fn add_switch(
        &mut self,
        name: &str,
        snapshot: Arc<Snapshot>,
        limits: Limits,
    ) -> Result<SwitchId, AddError> {
        self.check_name(name)?;
        let seed = self.seed_of("switch", name);
        let mut switch = Switch::new(limits, &seed, FramePool::new());
        drop(switch.install(snapshot));
        Ok(SwitchId(self.add(name, Engine::Switch(Box::new(switch)))))
    }

    /// Adds a plain switch: `ports` ports, numbered from 0, on one segment with an MTU of 1500, and no router.
    ///
    /// # Errors
    /// There is a switch or host of that name.
    pub fn add_bridge(&mut self, name: &str, ports: u16) -> Result<SwitchId, AddError> {
        let port = |id| PortConfig::new(PortId(id), format!("port-{id}"), VlanMode::Access(SegmentId(0)));
        let lan = SegmentConfig::new(SegmentId(0), "lan");
        let config =
            Config { ports: (0..ports).map(port).collect(), segments: alloc::vec![lan], ..Config::default() };
        // Ports on a bridged segment alone leave nothing to get wrong but their number, and that one carries nothing.
        let snapshot = Snapshot::compile(config, None).unwrap_or_else(|_| Snapshot::empty());
        self.add_switch(name, snapshot, Limits::default())
    }

    /// Adds a host. Its name stands in traces and errors, and decides what it draws from the seed.
    ///
    /// # Errors
    /// There is a switch or host of that name, or what is wrong with its configuration.
    pub fn add_host(&mut self, name: &str, config: HostConfig) -> Result<HostId, AddError> {
        self.check_name(name)?;
        let host = Host::new(config, self.seed_of("host", name))?;
        Ok(HostId(self.add(name, Engine::Host(Box::new(host)))))
    }

    fn check_name(&self, name: &str) -> Result<(), AddError> {
        let taken = self.nodes.iter().any(|node| node.name == name);
        if taken { Err(AddError::NameTaken(name.into())) } else { Ok(()) }
    }

    fn seed_of(&self, kind: &str, name: &str) -> Seed {
        Seed::from_u64(self.seed.derive(&format!("{kind} {name}")))
    }

    fn add(&mut self, name: &str, engine: Engine) -> usize {
        self.nodes.push(Node::new(name, engine));
        let node = self.nodes.len() - 1;
        // It may have something to do by and by, whether anything happens to it or not.
        self.touch(node);
        node
    }

    /// Joins two ends by a link that does the same to frames in both directions.
    ///
    /// # Errors
    /// An end is taken, or both are one.
    ///
    /// # Panics
    /// If an end is of another laboratory.
    pub fn connect(
        &mut self,
        first: impl Into<End>,
        second: impl Into<End>,
        profile: LinkProfile,
    ) -> Result<LinkId, ConnectError> {
        self.connect_asymmetric(first, second, profile, profile)
    }

    /// Joins two ends by a link: `forth` is done to frames from the first end, `back` to those from the second.
    ///
    /// # Errors
    /// An end is taken, or both are one.
    ///
    /// # Panics
    /// If an end is of another laboratory.
    pub fn connect_asymmetric(
        &mut self,
        first: impl Into<End>,
        second: impl Into<End>,
        forth: LinkProfile,
        back: LinkProfile,
    ) -> Result<LinkId, ConnectError> {
        let ends = [first.into(), second.into()];
        if ends[0] == ends[1] {
            return Err(ConnectError::SameEnd);
        }
        for end in ends {
            let (node, port) = end.place();
            if self.nodes[node].plugs.contains_key(&port) {
                return Err(ConnectError::Occupied(end));
            }
        }
        let id = self.cables.len();
        for (end, side) in ends.into_iter().zip([Side::First, Side::Second]) {
            let (node, port) = end.place();
            self.nodes[node].plugs.insert(port, (id, side));
        }
        let line = |profile, side: Side| Line::new(profile, self.seed.rng(&format!("link {id}, {side} end")));
        let lines = [line(forth, Side::First), line(back, Side::Second)];
        self.cables.push(Cable { ends, lines, plugged: true });
        Ok(LinkId(id))
    }

    /// Takes a link away: what is under way on it is lost. Its counters can be read afterwards.
    pub fn disconnect(&mut self, link: LinkId) {
        let cable = &mut self.cables[link.0];
        if !core::mem::replace(&mut cable.plugged, false) {
            return;
        }
        cable.lines.iter_mut().for_each(|line| line.cut(&mut self.pool));
        for (node, port) in cable.ends.map(End::place) {
            self.nodes[node].plugs.remove(&port);
        }
    }

    /// Does something else to frames that `from` sends on a link from here on.
    pub fn set_profile(&mut self, link: LinkId, from: Side, profile: LinkProfile) {
        self.cables[link.0].lines[from.index()].set_profile(profile);
    }

    /// The direction of a link in which `from` sends: its counters, and how much is under way on it.
    pub fn line(&self, link: LinkId, from: Side) -> &Line {
        &self.cables[link.0].lines[from.index()]
    }

    /// The ends of a link.
    pub fn ends(&self, link: LinkId) -> [End; 2] {
        self.cables[link.0].ends
    }

    /// The link that is plugged in at an end, and which side of it is here.
    pub fn link_at(&self, end: impl Into<End>) -> Option<(LinkId, Side)> {
        let (node, port) = end.into().place();
        self.nodes[node].plugs.get(&port).map(|&(cable, side)| (LinkId(cable), side))
    }

    /// Every link that was ever made, those taken away included.
    pub fn links(&self) -> impl Iterator<Item = LinkId> + use<> {
        (0..self.cables.len()).map(LinkId)
    }

    /// A host.
    ///
    /// # Panics
    /// If it is another laboratory's.
    pub fn host(&self, id: HostId) -> &Host {
        match &self.nodes[id.0].engine {
            Engine::Host(host) => host,
            Engine::Switch(_) => foreign(),
        }
    }

    /// A host, to use its sockets and take its events. What it has to send is taken before the next step.
    ///
    /// # Panics
    /// If it is another laboratory's.
    pub fn host_mut(&mut self, id: HostId) -> &mut Host {
        self.touch(id.0);
        match &mut self.nodes[id.0].engine {
            Engine::Host(host) => host,
            Engine::Switch(_) => foreign(),
        }
    }

    /// A switch.
    ///
    /// # Panics
    /// If it is another laboratory's.
    pub fn switch(&self, id: SwitchId) -> &Switch {
        match &self.nodes[id.0].engine {
            Engine::Switch(switch) => switch,
            Engine::Host(_) => foreign(),
        }
    }

    /// A switch, to take its events. What it has to send is taken before the next step.
    ///
    /// # Panics
    /// If it is another laboratory's.
    pub fn switch_mut(&mut self, id: SwitchId) -> &mut Switch {
        self.touch(id.0);
        match &mut self.nodes[id.0].engine {
            Engine::Switch(switch) => switch,
            Engine::Host(_) => foreign(),
        }
    }

    /// Gives a switch another configuration, now, and returns the old one.
    ///
    /// # Panics
    /// If it is another laboratory's.
    pub fn install(&mut self, id: SwitchId, snapshot: Arc<Snapshot>) -> Arc<Snapshot> {
        let generation = snapshot.generation();
        self.log.note(self.steps, self.now, || Incident::Installed { at: id.0, generation });
        self.switch_mut(id).install(snapshot)
    }

    fn touch(&mut self, node: usize) {
        if !core::mem::replace(&mut self.nodes[node].touched, true) {
            self.touched.push(node);
        }
    }

    /// Lets a frame of these octets arrive at an end as if it came from a wire there, in the next step.
    ///
    /// # Panics
    /// If it is longer than [`MAX_FRAME`](crate::frame::MAX_FRAME), or the end is of another laboratory.
    pub fn inject(&mut self, to: impl Into<End>, octets: &[u8]) {
        let frame = self.pool.copy_of(octets);
        self.inject_frame(to, frame);
    }

    /// Lets a frame arrive at an end as if it came from a wire there, in the next step.
    ///
    /// # Panics
    /// If the end is of another laboratory.
    pub fn inject_frame(&mut self, to: impl Into<End>, frame: Frame) {
        let (node, port) = to.into().place();
        assert!(node < self.nodes.len(), "the end is of another laboratory");
        self.enter(self.now, run::What::Injection { node, port, frame });
    }

    /// The time.
    pub fn now(&self) -> Duration {
        self.now
    }

    /// The seed that everything follows from.
    pub fn seed(&self) -> &Seed {
        &self.seed
    }

    /// Steps taken.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The host that the last step concerned, if it was one: only that host can have something new to tell.
    pub fn last_host(&self) -> Option<HostId> {
        let node = self.last?;
        match self.nodes[node].engine {
            Engine::Host(_) => Some(HostId(node)),
            Engine::Switch(_) => None,
        }
    }

    /// Frames under way on all links.
    pub fn in_flight(&self) -> usize {
        self.cables.iter().flat_map(|cable| &cable.lines).map(Line::in_flight).sum()
    }

    /// Frames that left by an end while nothing was plugged in there.
    pub fn unplugged(&self, end: impl Into<End>) -> u64 {
        let (node, port) = end.into().place();
        self.nodes[node].unplugged.get(&port).copied().unwrap_or(0)
    }

    /// The last things that happened, a line each, oldest first.
    pub fn trace(&self) -> String {
        let mut text = String::new();
        for line in self.log.lines(|node| self.nodes[node].name.clone()) {
            text.push_str(&line);
            text.push('\n');
        }
        text
    }

    /// How many things the trace keeps: 256 unless told otherwise.
    pub fn set_trace_capacity(&mut self, entries: usize) {
        self.log.set_capacity(entries);
    }

    /// Lets `observer` see each frame from here on, or nobody.
    pub fn set_observer(&mut self, observer: Option<Observer>) {
        self.observer = observer;
    }

    fn observe(&mut self, link: usize, from: Side, arrived: bool, frame: &Frame) {
        if let Some(observer) = &mut self.observer {
            let ends = self.cables[link].ends;
            let (from, to) = (ends[from.index()], ends[from.other().index()]);
            observer(&Seen { at: self.now, link: LinkId(link), from, to, arrived, frame });
        }
    }
}

/// An identifier of one laboratory was used in another, which is a mistake in the program.
#[track_caller]
fn foreign() -> ! {
    panic!("an identifier of another laboratory")
}

#[cfg(test)]
#[cfg(all(feature = "std", not(loom)))]
mod tests;
