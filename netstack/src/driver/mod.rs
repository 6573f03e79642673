//! Devices, switches and the clock, joined on one thread.
//!
//! # Theory of operation
//! A driver owns engines (switches, hosts) and the devices on their ports, and turns: it runs the commands that other
//! threads sent, asks the kernel which devices have input, moves batches, and lets engines do what is due.
//!
//! *Fairness.* A turn makes up to [`ROUNDS`] rounds over the devices that are ready; in a round each moves one batch
//! into its engine, and what the engine then has to send goes to its devices at once. The round begins one device
//! further each turn. So a device that is always ready delays another by one batch per round, and a device that refuses
//! what it is sent delays nobody: refused frames are counted and gone.
//!
//! *Waiting.* Kernel devices are asked only after epoll, level-triggered, has said that they have input; devices in
//! memory are asked every round, which costs one load each. Before the driver sleeps it tells each memory device so,
//! and does not sleep if one of them has frames. Two engines of one thread that are linked in memory thus exchange
//! batches without a system call. The sleep ends with input, a command, or the earliest deadline of an engine.
//!
//! *Answers.* The kernel's stack at the other end of a device often answers before the write returns: an echo request, a
//! SYN, a segment that is to be acknowledged. So a device whose frames come one by one is asked again as soon as it was sent
//! little, without epoll; and its first frame of a turn goes on before it is asked for a second, mostly in vain.
//!
//! *Reading.* A device that reads by itself costs a system call for each frame and one for the end. Where its batches
//! hold several frames again and again, the kernel reads it instead, through a ring that all such devices of the driver
//! share ([`Reading::Automatic`]): one call brings what has come for all of them. The driver then sleeps in the ring,
//! which watches epoll for the others. A device goes back when its batches are of one frame again, all do after a sleep of
//! [`LONG_SLEEP`]: whoever sleeps between frames is woken sooner by epoll. A ring belongs to a thread; a driver that goes
//! on on another one does so without, as where the kernel has none to give, and [`Driver::ring_refusal`] says why.
//!
//! *Latency.* A sleep and the wake-up that ends it cost more than a batch, so the driver may look for input for a while
//! before it sleeps; with a ring a look is a load, otherwise a system call. [`Latency::Idle`] never does.
//! [`Latency::Low`] does until [`LINGER`] after the last frame. [`Latency::Balanced`] learns from its sleeps: one that
//! ended with input within [`SHORT_SLEEP`] doubles the time that is spent looking before the next, up to
//! [`LONGEST_LOOK`], any other halves it; and what is spent in vain comes out of an allowance of a twentieth of the time,
//! of which [`MOST_CREDIT`] can be saved up. It does not look while more threads want to run than there are cores: those who
//! are to send what it would look for may be the ones that wait. So steady traffic keeps the driver awake, sparse traffic costs a small part of
//! a core, and no traffic costs nothing: timers and commands do not count as input.
//!
//! *Failure.* A device that reports an error is detached and reported; its port stays, and frames for it are counted.
//! A device whose other end is gone is first emptied.
//!
//! *Limits.* [`ROUNDS`] batches per device and [`COMMANDS_PER_TURN`] commands per turn, [`EVENTS`] events that nobody
//! polled (then the oldest is dropped and counted).

mod attachment;
mod clock;
mod engine;
mod handle;
mod patience;
mod reading;

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

pub use attachment::Observer;
pub use clock::Clock;
pub use engine::{DeviceCounters, DriverEvent, Engine, EngineId};
pub use handle::{DriverHandle, Stopped};
pub use patience::{LINGER, LONGEST_LOOK, Latency, MOST_CREDIT, SHORT_SLEEP};
pub use reading::{LONG_SLEEP, Reading};

use self::attachment::{Attachment, Slot};
use self::handle::Inbox;
use self::patience::Patience;
use self::reading::Reads;
use crate::addr::PortId;
use crate::device::Device;
use crate::device::sys::{Epoll, EventFd};
use crate::frame::FrameBatch;
use crate::publish::Subscriber;
use crate::sync;

/// Batches that one device may move per turn.
pub const ROUNDS: usize = 16;
/// Commands per turn.
pub const COMMANDS_PER_TURN: usize = 16;
/// Events that wait for [`Driver::poll_event`].
pub const EVENTS: usize = 1024;
/// Descriptors reported by one wait; level-triggered, so the others are reported by the next.
const READY: usize = 256;
/// The token of the descriptor that commands wake.
const WAKE: u64 = u64::MAX;

/// What a turn did.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Turn {
    /// Commands run.
    pub commands: usize,
    /// Batches moved into engines.
    pub batches: usize,
    /// Frames in those.
    pub frames: usize,
    /// Engines that did something due.
    pub timeouts: usize,
    /// Frames may be waiting still, so the next turn will not sleep.
    pub more: bool,
}

/// Joins engines, devices and the clock.
#[derive(Debug)]
pub struct Driver {
    clock: Clock,
    epoll: Epoll,
    wake: std::sync::Arc<EventFd>,
    handle: DriverHandle,
    inbox: Inbox,
    engines: Vec<Option<Slot>>,
    attachments: Vec<Option<Attachment>>,
    /// Where the next round begins.
    first: usize,
    events: VecDeque<DriverEvent>,
    events_dropped: u64,
    batch: FrameBatch,
    turns: u64,
    patience: Patience,
    reads: Reads,
    more: bool,
    stopping: bool,
}

impl Driver {
    /// A driver with nothing to drive. Fails when the process has no file descriptor left.
    pub fn new(clock: Clock) -> io::Result<Self> {
        let (epoll, wake) = (Epoll::new(READY)?, std::sync::Arc::new(EventFd::new()?));
        epoll.add(wake.as_raw_fd(), WAKE)?;
        let (handle, inbox) = DriverHandle::new(wake.clone());
        Ok(Self {
            clock,
            epoll,
            wake,
            handle,
            inbox,
            engines: Vec::new(),
            attachments: Vec::new(),
            first: 0,
            events: VecDeque::new(),
            events_dropped: 0,
            batch: FrameBatch::new(),
            turns: 0,
            patience: Patience::default(),
            reads: Reads::default(),
            more: false,
            stopping: false,
        })
    }

    /// Reaches this driver from other threads.
    pub fn handle(&self) -> DriverHandle {
        self.handle.clone()
    }

    /// The clock that engines are turned with.
    pub fn clock(&self) -> Clock {
        self.clock
    }

    /// What the driver pays from now on for a short way from frame to frame.
    pub fn set_latency(&mut self, latency: Latency) {
        self.patience.latency = latency;
    }

    /// Adds an engine.
    pub fn add_engine(&mut self, engine: Box<dyn Engine>) -> EngineId {
        let id = EngineId(u32::try_from(self.engines.len()).unwrap_or(u32::MAX));
        self.engines.push(Some(Slot { engine, ports: BTreeMap::new(), prologue: None, unattached: 0 }));
        self.more = true;
        id
    }

    /// Detaches an engine's devices, which are dropped, and gives the engine back.
    pub fn remove_engine(&mut self, id: EngineId) -> Option<Box<dyn Engine>> {
        let ports: Vec<PortId> = self.slot(id)?.ports.keys().copied().collect();
        for port in ports {
            drop(self.detach(id, port));
        }
        Some(self.engines.get_mut(id.0 as usize)?.take()?.engine)
    }

    /// An engine, as what it is; `None` if there is none or it is of another type. What it has to send afterwards goes
    /// out within the turn.
    pub fn engine_mut<E: Engine>(&mut self, id: EngineId) -> Option<&mut E> {
        self.more = true;
        let engine: &mut dyn Any = &mut *self.slot_mut(id)?.engine;
        engine.downcast_mut()
    }

    /// Calls `install` with each new snapshot that `subscriber` sees, at the start of a turn. A published snapshot does
    /// not end a sleep: see [`DriverHandle::wake`].
    pub fn follow<E: Engine, T: Send + Sync + 'static>(
        &mut self,
        id: EngineId,
        mut subscriber: Subscriber<T>,
        mut install: impl FnMut(&mut E, sync::Arc<T>) + Send + 'static,
    ) {
        if let Some(slot) = self.slot_mut(id) {
            slot.prologue = Some(Box::new(move |engine: &mut dyn Engine| {
                let engine: &mut dyn Any = engine;
                if let (Some(snapshot), Some(engine)) = (subscriber.changed(), engine.downcast_mut()) {
                    install(engine, snapshot);
                }
            }));
        }
    }

    /// Puts a device on a port. One that is there already is detached and dropped.
    ///
    /// # Errors
    /// `NotFound` when there is no such engine; otherwise what epoll says of the device's descriptor.
    pub fn attach(&mut self, id: EngineId, port: PortId, device: Box<dyn Device>) -> io::Result<()> {
        if self.slot(id).is_none() {
            return Err(io::Error::new(io::ErrorKind::NotFound, format!("no {id}")));
        }
        drop(self.detach(id, port));
        let place = self.attachments.iter().position(Option::is_none).unwrap_or(self.attachments.len());
        if let Some(fd) = device.raw_fd() {
            self.epoll.add(fd, place as u64)?;
        }
        if place == self.attachments.len() {
            self.attachments.push(None);
        }
        self.attachments[place] = Some(Attachment::new(id, port, device));
        if let Some(slot) = self.slot_mut(id) {
            slot.ports.insert(port, place);
        }
        self.reads.reconsider(place);
        self.more = true;
        Ok(())
    }

    /// Takes the device off a port. Frames for the port are counted ([`Driver::unattached`]) from here on.
    pub fn detach(&mut self, id: EngineId, port: PortId) -> Option<Box<dyn Device>> {
        let place = *self.slot(id)?.ports.get(&port)?;
        self.stop_ring_read(place);
        self.slot_mut(id)?.ports.remove(&port);
        let attachment = self.attachments.get_mut(place)?.take()?;
        if let Some(fd) = attachment.device.raw_fd() {
            self.epoll.remove(fd);
        }
        Some(attachment.device)
    }

    /// What went through the device on a port.
    pub fn device_counters(&self, id: EngineId, port: PortId) -> Option<DeviceCounters> {
        Some(self.attachment(id, port)?.counters)
    }

    /// Frames that an engine had for ports with no device.
    pub fn unattached(&self, id: EngineId) -> Option<u64> {
        Some(self.slot(id)?.unattached)
    }

    /// Lets `observer` see each frame on a port, or nobody. False when no device is there.
    pub fn set_observer(&mut self, id: EngineId, port: PortId, observer: Option<Observer>) -> bool {
        let place = self.slot(id).and_then(|slot| slot.ports.get(&port)).copied();
        let attachment = place.and_then(|place| self.attachments.get_mut(place)?.as_mut());
        attachment.map(|attachment| attachment.observer = observer).is_some()
    }

    /// The next event: the driver's own first, then those of the engines.
    pub fn poll_event(&mut self) -> Option<DriverEvent> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        let mut slots = (0u32..).zip(&mut self.engines);
        slots.find_map(|(id, slot)| {
            let event = slot.as_mut()?.engine.poll_event()?;
            Some(DriverEvent::Engine { engine: EngineId(id), event })
        })
    }

    /// Events dropped because nobody polled.
    pub fn events_dropped(&self) -> u64 {
        self.events_dropped
    }

    /// Turns so far: stands still while there is nothing to do.
    pub fn turns(&self) -> u64 {
        self.turns
    }

    /// Ends [`Driver::run`] after the turn it is in.
    pub fn stop(&mut self) {
        self.stopping = true;
    }

    /// Turns until [`Driver::stop`]. Fails when waiting for input fails, which no device causes.
    pub fn run(&mut self) -> io::Result<()> {
        while !self.stopping {
            self.run_once(None)?;
        }
        Ok(())
    }

    /// One turn: waits for something to do, at most `max_wait` (`None`: for ever), and does a bounded part of it.
    pub fn run_once(&mut self, max_wait: Option<Duration>) -> io::Result<Turn> {
        self.wait(max_wait)?;
        self.turns += 1;
        self.more = false;
        let mut turn = Turn { commands: self.run_commands(), ..Turn::default() };
        self.run_prologues();
        for number in 0..ROUNDS {
            let before = turn.batches;
            self.round(&mut turn, number == 0);
            if turn.batches == before {
                break;
            }
        }
        if turn.frames > 0 {
            self.patience.moved(self.clock.now());
        }
        self.first = self.first.wrapping_add(1);
        self.run_timeouts(&mut turn);
        self.more |= self.attachments.iter().flatten().any(|attachment| attachment.ready);
        turn.more = self.more;
        Ok(turn)
    }

    /// How long the wait before this turn may be. Where it is not zero, every memory device knows of it.
    fn sleep_for(&mut self, max_wait: Option<Duration>) -> Option<Duration> {
        if self.more || !self.inbox.commands.is_empty() {
            return Some(Duration::ZERO);
        }
        let deadline = self.engines.iter().flatten().filter_map(|slot| slot.engine.poll_timeout()).min();
        let due_in = deadline.map(|deadline| deadline.saturating_sub(self.clock.now()));
        let held_back = self.attachments.iter().flatten().filter_map(|a| a.device.wake_within()).min();
        let timeout = [due_in, max_wait, held_back].into_iter().flatten().min();
        if timeout == Some(Duration::ZERO) {
            return timeout;
        }
        let mut polled = self.attachments.iter_mut().flatten().filter(|attachment| attachment.polled);
        if polled.all(|attachment| attachment.device.prepare_sleep()) {
            timeout
        } else {
            Some(Duration::ZERO)
        }
    }

    fn run_commands(&mut self) -> usize {
        let mut count = 0;
        while count < COMMANDS_PER_TURN
            && let Ok(command) = self.inbox.commands.try_recv()
        {
            command(self);
            count += 1;
        }
        count
    }

    fn run_prologues(&mut self) {
        for slot in self.engines.iter_mut().flatten() {
            if let Some(prologue) = &mut slot.prologue {
                prologue(&mut *slot.engine);
            }
        }
    }

    /// One batch from each device that may have one.
    fn round(&mut self, turn: &mut Turn, first: bool) {
        let count = self.attachments.len();
        let mut failed = false;
        for step in 0..count {
            let place = self.first.wrapping_add(step) % count;
            let Some(attachment) = &mut self.attachments[place] else { continue };
            if !(attachment.ready || attachment.polled) {
                continue;
            }
            let Some(Some(slot)) = self.engines.get_mut(attachment.engine.0 as usize) else { continue };
            let frames = attachment.receive(&mut *slot.engine, &self.clock, &mut self.batch, first);
            failed |= attachment.failed.is_some();
            if frames > 0 {
                if attachment.density.note(frames) {
                    self.reads.reconsider(place);
                }
                turn.batches += 1;
                turn.frames += frames;
                failed |= slot.flush(&mut self.attachments, self.clock.now(), &mut self.batch);
            }
        }
        if failed {
            self.detach_failed();
        }
    }

    /// Lets engines do what is due, and sends what commands, snapshots and timers have left behind.
    fn run_timeouts(&mut self, turn: &mut Turn) {
        let now = self.clock.now();
        let mut failed = false;
        for slot in self.engines.iter_mut().flatten() {
            if slot.engine.poll_timeout().is_some_and(|deadline| deadline <= now) {
                slot.engine.handle_timeout(now);
                turn.timeouts += 1;
            }
            failed |= slot.flush(&mut self.attachments, now, &mut self.batch);
        }
        if failed {
            self.detach_failed();
        }
    }

    fn detach_failed(&mut self) {
        let failures: Vec<DriverEvent> = self
            .attachments
            .iter()
            .flatten()
            .filter_map(|a| {
                Some(DriverEvent::DeviceGone { engine: a.engine, port: a.port, error: a.failed? })
            })
            .collect();
        for event in failures {
            if let DriverEvent::DeviceGone { engine, port, .. } = event {
                drop(self.detach(engine, port));
            }
            if self.events.len() >= EVENTS {
                self.events.pop_front();
                self.events_dropped += 1;
            }
            self.events.push_back(event);
        }
    }

    fn slot(&self, id: EngineId) -> Option<&Slot> {
        self.engines.get(id.0 as usize)?.as_ref()
    }

    fn slot_mut(&mut self, id: EngineId) -> Option<&mut Slot> {
        self.engines.get_mut(id.0 as usize)?.as_mut()
    }

    fn attachment(&self, id: EngineId, port: PortId) -> Option<&Attachment> {
        let place = *self.slot(id)?.ports.get(&port)?;
        self.attachments.get(place)?.as_ref()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
