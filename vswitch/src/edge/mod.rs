//! The edge: where pods reach the outside, and nobody needs any privilege.
//!
//! # Theory of operation
//! An edge is an engine of the driver with one link, to a router that sends it everything that it knows no other way for.
//! What comes in is ended here and carried on by ordinary sockets of this process: a TCP connection by a connection (`tcp`),
//! datagrams and echo requests by sockets that speak to one destination each (`messages`). So the outside sees this machine,
//! with this machine's routes, VPNs and rules, and an ordinary user is enough.
//!
//! - *Sockets are behind a trait* ([`Outside`]): those of this machine are [`Sockets`]; in a laboratory they are
//!   whatever it likes, on a clock of its own. Nothing in here knows another clock, or waits.
//! - *The driver* knows nothing of sockets. What tells it that some have got on is a device at a port of its own
//!   ([`BELL`]), which gives a frame of no octets then.
//! - *Fairness*: segments are made when there is room for them, one frame for each connection in turn, and no more in one
//!   turn than the link holds. Connections do not know each other, so one that stands still holds up none.
//! - *Who may go where* is decided before anything else ([`Reach`]).
//! - *Everything is bounded* ([`EdgeLimits`]), and everything that goes no further is counted with its reason
//!   ([`EdgeDrop`]). What fails is told to pods as the network would have: a reset, an ICMP error. What did not
//!   happen is never pretended: a ping is answered by whoever was pinged, or not at all.

mod config;
mod doors;
mod flows;
mod gathering;
mod intake;
mod link;
mod messages;
mod opening;
mod outside;
mod reach;
mod reassembly;
mod sockets;
mod tcp;
#[cfg(test)]
mod tests;
mod turn;

use std::collections::VecDeque;
use std::time::Duration;

use netstack::addr::{IpNet, PortId};
use netstack::driver::Engine;
use netstack::event::Event;
use netstack::frame::{FrameBatch, FramePool};
use netstack::seed::{Rng, Seed};

pub use self::config::{EdgeConfig, EdgeCounters, EdgeDrop, EdgeLimits, EdgeTimers};
pub use self::doors::{Carried, Door};
pub use self::outside::{Farewell, Messages, Outside, Peeked, Ready, Refusal, SocketId};
pub use self::reach::{LINK_LOCAL_METADATA, Opening, Reach};
pub use self::sockets::{Bell, Sockets};

use self::doors::Doors;
use self::flows::{Flow, Flows};
use self::gathering::Gathered;
use self::link::Link;
use self::reassembly::Reassembly;
use self::turn::{Fate, Turn};

/// The port with the link to the router.
pub const LINK: PortId = PortId(0);
/// The port with the device that tells that sockets have got on.
pub const BELL: PortId = PortId(1);
/// Batches of segments made at a time. Whoever is at the other end of the link takes one at a time, too: what is made faster than
/// that only fills the link.
const BATCHES_PER_TURN: usize = 2;
/// Flows looked at in one turn because their time has come.
const DEADLINES_PER_TURN: usize = 256;
/// The longest message.
const MESSAGE: usize = 65_535;

/// See the module.
#[derive(Debug)]
pub struct Edge<O> {
    config: EdgeConfig,
    outside: O,
    link: Link,
    flows: Flows,
    doors: Doors,
    /// Octets from pods that are held for sockets.
    held: usize,
    /// Connections that may have something to send, the next one first.
    line: VecDeque<u32>,
    /// Connections that have something to acknowledge at the end of the turn.
    owing: Vec<u32>,
    /// Batches that may still be made before the driver has its turn.
    budget: usize,
    gathered: Gathered,
    reassembly: Reassembly,
    rng: Rng,
    scratch: Vec<u8>,
    counters: EdgeCounters,
    now: Duration,
}

impl<O: Outside> Edge<O> {
    /// An edge that carries nothing yet.
    pub fn new(config: EdgeConfig, outside: O, pool: FramePool, seed: &Seed) -> Self {
        let mut rng = seed.rng("edge sequences");
        let identification = u32::try_from(rng.next_u64() >> 32).unwrap_or(0);
        Self {
            link: Link::new(&config, pool, identification),
            flows: Flows::new(seed.hasher("edge flows")),
            doors: Doors::default(),
            held: 0,
            line: VecDeque::new(),
            owing: Vec::new(),
            budget: BATCHES_PER_TURN,
            gathered: Gathered::default(),
            reassembly: Reassembly::new(config.limits.fragmented, config.timers.fragments),
            rng,
            scratch: vec![0; MESSAGE],
            counters: EdgeCounters::default(),
            now: Duration::ZERO,
            outside,
            config,
        }
    }

    /// What it has done so far.
    pub fn counters(&self) -> &EdgeCounters {
        &self.counters
    }

    /// TCP connections and flows of messages that are carried.
    pub fn carried(&self) -> (usize, usize) {
        (self.flows.connections(), self.flows.messages())
    }

    /// Octets from pods that sockets have not taken yet.
    pub fn held(&self) -> usize {
        self.held
    }

    /// The sockets.
    pub fn outside(&mut self) -> &mut O {
        &mut self.outside
    }

    /// Has pods reach other destinations from now on. Flows that there are stay.
    pub fn set_reach(&mut self, reach: Reach) {
        self.config.reach = reach;
    }

    /// Has these prefixes be inside from now on.
    pub fn set_inside(&mut self, inside: Vec<IpNet>) {
        self.config.inside = inside;
    }

    /// Lets sockets do what they can now.
    pub fn serve_outside(&mut self, now: Duration) {
        self.now = now;
        self.outside.look();
        while let Some((socket, ready)) = self.outside.poll_ready() {
            if self.serve_door(socket) {
                continue;
            }
            let fate = self.with(socket.0, |flow, turn, scratch| match flow {
                Flow::Tcp(tcp) => tcp.on_ready(turn, ready),
                Flow::Messages(flow) => {
                    flow.receive(turn, scratch);
                    Fate::Stays
                }
            });
            self.after(socket.0, fate);
        }
        self.acknowledge();
    }

    /// Gives a flow its turn.
    fn with<R>(
        &mut self,
        slot: u32,
        run: impl FnOnce(&mut Flow, &mut Turn<'_, O>, &mut [u8]) -> R,
    ) -> Option<R> {
        let (key, flow) = self.flows.get_mut(slot)?;
        let mut turn = Turn {
            now: self.now,
            key,
            socket: SocketId(slot),
            outside: &mut self.outside,
            link: &mut self.link,
            counters: &mut self.counters,
            timers: &self.config.timers,
            limits: &self.config.limits,
            held: &mut self.held,
        };
        Some(run(flow, &mut turn, &mut self.scratch))
    }

    /// What is to be done after a flow's turn.
    fn after(&mut self, slot: u32, fate: Option<Fate>) {
        if fate == Some(Fate::Over) {
            self.flows.remove(slot);
            return;
        }
        let deadline = match self.flows.get_mut(slot) {
            None => return,
            Some((_, Flow::Messages(flow))) => flow.deadline(),
            Some((_, Flow::Tcp(tcp))) => {
                if tcp.wants_turn() && !tcp.queued {
                    tcp.queued = true;
                    self.line.push_back(slot);
                }
                if tcp.owes() {
                    self.owing.push(slot);
                }
                tcp.deadline()
            }
        };
        self.flows.arm(slot, deadline);
    }

    /// Acknowledges what has come in this turn, once for each connection.
    fn acknowledge(&mut self) {
        let mut owing = std::mem::take(&mut self.owing);
        for slot in owing.drain(..) {
            self.with(slot, |flow, turn, _| {
                if let Flow::Tcp(tcp) = flow {
                    tcp.acknowledge(turn);
                }
            });
        }
        self.owing = owing;
    }

    /// Looks at the flows whose time has come.
    fn run_deadlines(&mut self) {
        self.reassembly.expire(self.now, &mut self.counters);
        for _ in 0..DEADLINES_PER_TURN {
            let Some(slot) = self.flows.poll_due(self.now) else { return };
            let fate = self.with(slot, |flow, turn, _| match flow {
                Flow::Tcp(tcp) => Some(tcp.on_deadline(turn)),
                Flow::Messages(flow) => (turn.now < flow.deadline()).then_some(Fate::Stays),
            });
            match fate {
                Some(None) => self.end_messages(slot),
                Some(fate) => self.after(slot, fate),
                None => {}
            }
        }
    }

    /// Has a connection looked at when it now wants to be.
    fn rearm(&mut self, slot: u32) {
        let deadline = match self.flows.get_mut(slot) {
            Some((_, Flow::Tcp(tcp))) => tcp.deadline(),
            Some((_, Flow::Messages(flow))) => flow.deadline(),
            None => return,
        };
        self.flows.arm(slot, deadline);
    }

    /// Makes segments until the batch is full or there are none.
    fn make_segments(&mut self, batch: &mut FrameBatch) {
        while !batch.is_full()
            && let Some(slot) = self.line.pop_front()
        {
            let made = self.with(slot, |flow, turn, _| match flow {
                Flow::Tcp(tcp) => {
                    tcp.queued = false;
                    tcp.next_frame(turn)
                }
                Flow::Messages(_) => Ok(None),
            });
            match made {
                Some(Ok(Some(frame))) => {
                    let refused = batch.push(frame);
                    debug_assert!(refused.is_ok(), "the batch is not full");
                    self.after(slot, Some(Fate::Stays));
                }
                Some(Ok(None)) => self.rearm(slot),
                Some(Err(fate)) => self.after(slot, Some(fate)),
                None => {}
            }
        }
    }
}

impl<O: Outside + Send + 'static> Engine for Edge<O> {
    fn handle_frames(&mut self, now: Duration, port: PortId, batch: &mut FrameBatch) {
        self.now = now;
        self.budget = BATCHES_PER_TURN;
        for frame in batch.drain() {
            if port == LINK
                && let Err(reason) = self.receive(&frame)
            {
                self.counters.drop(reason);
            }
            self.link.pool.recycle(frame);
        }
        self.outside.settle();
        self.send_gathered();
        if port == BELL {
            self.serve_outside(now);
        }
        self.acknowledge();
    }

    fn handle_timeout(&mut self, now: Duration) {
        self.now = now;
        self.budget = BATCHES_PER_TURN;
        self.run_deadlines();
        self.serve_doors_again();
        self.acknowledge();
    }

    fn poll_transmit(&mut self, batch: &mut FrameBatch) -> Option<PortId> {
        if self.link.drain_into(batch) && self.budget > 0 {
            let before = batch.len();
            self.make_segments(batch);
            if batch.len() > before {
                self.budget -= 1;
            }
        }
        // Resets of connections that have just broken.
        self.link.drain_into(batch);
        (!batch.is_empty()).then_some(LINK)
    }

    fn poll_timeout(&self) -> Option<Duration> {
        if !self.line.is_empty() {
            return Some(Duration::ZERO);
        }
        [self.flows.next_due(), self.reassembly.next_due(), self.doors.again].into_iter().flatten().min()
    }

    fn poll_event(&mut self) -> Option<Event> {
        None
    }

    fn pool(&mut self) -> &mut FramePool {
        &mut self.link.pool
    }
}
