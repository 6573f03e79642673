//! Switches: the five verbs, and installing a configuration.

use core::ffi::c_char;
use core::time::Duration;
use std::fs::File;
use std::io::Read;

use netstack::addr::PortId;
use netstack::config::{Limits, Snapshot};
use netstack::device::Direction;
use netstack::driver::Engine;
use netstack::event::Event;
use netstack::frame::{FrameBatch, FramePool};
use netstack::seed::Seed;
use netstack::switch::Switch;

use crate::batch::{check_empty, copy_in, netstack_batch};
use crate::caller::{Caller, Growable, Outcome};
use crate::capture::Capture;
use crate::config::netstack_config;
use crate::frames::{Waiting, netstack_buffer, netstack_drain_callback, netstack_frame};
use crate::handle::Opaque;
use crate::result::{Code, netstack_result};

/// No deadline.
pub const NETSTACK_NEVER: u64 = u64::MAX;

/// A switch: bridge, neighbours, router, connections and services in one object.
pub struct netstack_switch(());

impl Opaque for netstack_switch {
    type Value = SwitchState;
    const KIND: u16 = 3;
}

/// A switch, and what C callers have beside it.
#[derive(Debug)]
pub struct SwitchState {
    pub(crate) switch: Switch,
    pub(crate) capture: Option<Capture>,
    /// What backends of services are chosen by where no configuration says it.
    pub(crate) key: [u8; 16],
    /// The time that was told last.
    now: Duration,
    batch: FrameBatch,
    waiting: Waiting,
}

/// How much a switch may hold: of each 0 for the default, and 16777216 at most.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct netstack_limits {
    /// The size of this struct.
    pub struct_size: usize,
    /// Learned MAC addresses.
    pub fdb_entries: u32,
    /// Learned MAC addresses of one port.
    pub fdb_entries_per_port: u32,
    /// Neighbours.
    pub neighbors: u32,
    /// Frames waiting for one neighbour.
    pub parked_per_neighbor: u32,
    /// Frames waiting for all neighbours.
    pub parked: u32,
    /// Frames in one port's output queue.
    pub queue_frames: u32,
    /// Octets in one port's output queue.
    pub queue_bytes: usize,
    /// Events kept until polled.
    pub events: u32,
    /// ICMP errors in a second.
    pub icmp_errors_per_second: u32,
    /// Connections tracked, of each address family.
    pub connections: u32,
    /// Clients whose backend is remembered.
    pub affinities: u32,
    /// Flows whose next frames need no decision.
    pub flows: u32,
    /// Not 0: no flow is remembered, and `flows` means nothing.
    pub no_flows: u32,
}

impl Growable for netstack_limits {}

/// Makes all limits the default ones.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_limits_init(limits: *mut netstack_limits) -> netstack_result {
    boundary!(caller, {
        let mut out = caller.out(limits)?;
        out.put(netstack_limits { struct_size: size_of::<netstack_limits>(), ..netstack_limits::default() });
        Ok(())
    })
}

impl netstack_limits {
    fn to_limits(self) -> Outcome<Limits> {
        let defaults = Limits::default();
        Ok(Limits {
            fdb_entries: or_default(self.fdb_entries, defaults.fdb_entries)?,
            fdb_entries_per_port: or_default(self.fdb_entries_per_port, defaults.fdb_entries_per_port)?,
            neighbors: or_default(self.neighbors, defaults.neighbors)?,
            parked_per_neighbor: or_default(self.parked_per_neighbor, defaults.parked_per_neighbor)?,
            parked: or_default(self.parked, defaults.parked)?,
            parked_bytes: defaults.parked_bytes,
            queue_frames: or_default(self.queue_frames, defaults.queue_frames)?,
            queue_bytes: if self.queue_bytes == 0 { defaults.queue_bytes } else { self.queue_bytes },
            events: or_default(self.events, defaults.events)?,
            icmp_errors_per_second: or_default(self.icmp_errors_per_second, defaults.icmp_errors_per_second)?,
            connections: or_default(self.connections, defaults.connections)?,
            affinities: or_default(self.affinities, defaults.affinities)?,
            flows: if self.no_flows == 0 { or_default(self.flows, defaults.flows)? } else { 0 },
        })
    }
}

/// The most that a table may hold. Memory is taken at once, and who has none left ends.
pub(crate) const MOST: u32 = 1 << 24;

/// A limit of the caller's, or the default where he has given none.
pub(crate) fn or_default(given: u32, default: u32) -> Outcome<u32> {
    match given {
        0 => Ok(default),
        1..=MOST => Ok(given),
        _ => Err(Code::InvalidArgument),
    }
}

impl SwitchState {
    fn new(limits: Limits, seed: &Seed) -> Self {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&seed.derive("ffi services").to_le_bytes());
        key[8..].copy_from_slice(&seed.derive("ffi services, second half").to_le_bytes());
        Self {
            switch: Switch::new(limits, seed, FramePool::new()),
            capture: None,
            key,
            now: Duration::ZERO,
            batch: FrameBatch::new(),
            waiting: Waiting::default(),
        }
    }

    fn take_in(&mut self, now: Duration, port: PortId, frames: &mut FrameBatch) {
        self.now = now;
        if let Some(capture) = &mut self.capture {
            capture.take(&self.switch, now, Direction::Inbound, port, frames);
        }
        self.switch.handle_frames(now, port, frames);
    }

    /// Fills an empty batch; what was polled to be copied out goes first.
    fn give_out(&mut self, frames: &mut FrameBatch) -> Option<PortId> {
        if !self.waiting.is_empty() {
            self.waiting.fill(frames);
            return Some(self.waiting.port());
        }
        let port = self.switch.poll_transmit(frames)?;
        if let Some(capture) = &mut self.capture {
            capture.take(&self.switch, self.now, Direction::Outbound, port, frames);
        }
        Some(port)
    }

    /// Has frames wait to be taken one by one, if there are any.
    fn prepare(&mut self) {
        if self.waiting.is_empty() {
            let mut batch = core::mem::take(&mut self.batch);
            if let Some(port) = self.give_out(&mut batch) {
                self.waiting.keep(port, &mut batch);
            }
            self.batch = batch;
        }
    }
}

/// A driver turns it like any switch.
impl Engine for SwitchState {
    fn handle_frames(&mut self, now: Duration, port: PortId, batch: &mut FrameBatch) {
        self.take_in(now, port, batch);
    }

    fn handle_timeout(&mut self, now: Duration) {
        self.now = now;
        self.switch.handle_timeout(now);
    }

    fn poll_transmit(&mut self, batch: &mut FrameBatch) -> Option<PortId> {
        self.give_out(batch)
    }

    fn poll_timeout(&self) -> Option<Duration> {
        self.switch.poll_timeout()
    }

    fn poll_event(&mut self) -> Option<Event> {
        // Whoever asks the switch gets them: a driver's own events are told apart.
        None
    }

    fn pool(&mut self) -> &mut FramePool {
        self.switch.pool()
    }
}

/// A time of the caller.
pub(crate) const fn time(now_us: u64) -> Duration {
    Duration::from_micros(now_us)
}

/// A deadline for the caller: never earlier than it is, so that it is due when it is told.
pub(crate) fn deadline_us(deadline: Option<Duration>) -> u64 {
    let micros = |at: Duration| u64::try_from(at.as_nanos().div_ceil(1000)).unwrap_or(NETSTACK_NEVER);
    deadline.map_or(NETSTACK_NEVER, micros)
}

/// A seed of the caller's 32 octets, or of the operating system's.
pub(crate) fn read_seed(caller: &Caller, seed: *const u8) -> Outcome<Seed> {
    let mut octets = [0; 32];
    if seed.is_null() {
        let drawn = File::open("/dev/urandom").and_then(|mut random| random.read_exact(&mut octets));
        drawn.map_err(|_| Code::Os)?;
    } else {
        octets.copy_from_slice(caller.slice(seed, 32)?);
    }
    Ok(Seed(octets))
}

/// A switch that carries nothing until a configuration is installed. `limits` may be NULL; `seed` is 32 octets or NULL.
/// Memory for its tables is taken at once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_switch_new(
    limits: *const netstack_limits,
    seed: *const u8,
    sw: *mut *mut netstack_switch,
) -> netstack_result {
    boundary!(caller, {
        let mut out = caller.out(sw)?;
        let limits = caller.options(limits)?.to_limits()?;
        let seed = read_seed(caller, seed)?;
        out.put(caller.give(SwitchState::new(limits, &seed)));
        Ok(())
    })
}

/// Frees a switch; NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_switch_free(sw: *mut netstack_switch) -> netstack_result {
    boundary!(caller, { caller.free(sw) })
}

/// Installs a copy of a configuration. What does not differ from the one before stays as it is, connections too.
/// INVALID_CONFIG: `error` names everything that is wrong, a line each, and the switch goes on as before.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_switch_install(
    sw: *mut netstack_switch,
    config: *const netstack_config,
    error: *mut *mut c_char,
) -> netstack_result {
    boundary!(caller, {
        let mut state = caller.write(sw)?;
        let config = caller.read(config)?.clone();
        let compiled = Snapshot::compile(config, Some(state.switch.snapshot()));
        let snapshot = caller.tell(error, Code::InvalidConfig, compiled)?;
        drop(state.switch.install(snapshot));
        Ok(())
    })
}

/// The configuration that is installed, to be changed and installed again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_switch_config(
    sw: *const netstack_switch,
    config: *mut *mut netstack_config,
) -> netstack_result {
    boundary!(caller, {
        let mut out = caller.out(config)?;
        let state = caller.read(sw)?;
        let snapshot = state.switch.snapshot();
        let mut config = snapshot.config().clone();
        config.services = snapshot.services().map(|services| services.config().clone());
        out.put(caller.give(config));
        Ok(())
    })
}

/// Takes in frames that came by a port, copying them. `accepted` gets how many were: all of them, or those before the one
/// for which it fails.
/// TOO_LONG: a frame has at most 65600 octets.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_switch_handle_frames(
    sw: *mut netstack_switch,
    now_us: u64,
    port: u16,
    frames: *const netstack_frame,
    count: usize,
    accepted: *mut usize,
) -> netstack_result {
    boundary!(caller, {
        let mut accepted = caller.out(accepted)?;
        let mut rest = caller.slice(frames, count)?;
        let mut state = caller.write(sw)?;
        let mut batch = core::mem::take(&mut state.batch);
        let mut outcome = Ok(());
        while outcome.is_ok() && !rest.is_empty() {
            let (taken, result) = copy_in(caller, &mut batch, state.switch.pool(), rest);
            state.take_in(time(now_us), PortId(port), &mut batch);
            rest = &rest[taken..];
            outcome = result;
        }
        state.batch = batch;
        accepted.put(count - rest.len());
        outcome
    })
}

/// Takes in the frames of a batch, which came by a port, without copying them. The batch is empty afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_switch_handle_batch(
    sw: *mut netstack_switch,
    now_us: u64,
    port: u16,
    batch: *mut netstack_batch,
) -> netstack_result {
    boundary!(caller, {
        let mut state = caller.write(sw)?;
        let mut batch = caller.write(batch)?;
        state.take_in(time(now_us), PortId(port), &mut batch.frames);
        Ok(())
    })
}

/// Does what is due. The work of one call is bounded: while netstack_switch_poll_timeout says that something is due, call
/// again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_switch_handle_timeout(
    sw: *mut netstack_switch,
    now_us: u64,
) -> netstack_result {
    boundary!(caller, {
        caller.write(sw)?.handle_timeout(time(now_us));
        Ok(())
    })
}

/// When netstack_switch_handle_timeout has something to do next; NETSTACK_NEVER if nothing is pending.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_switch_poll_timeout(
    sw: *const netstack_switch,
    deadline_us: *mut u64,
) -> netstack_result {
    boundary!(caller, {
        let mut out = caller.out(deadline_us)?;
        out.put(crate::switch::deadline_us(caller.read(sw)?.switch.poll_timeout()));
        Ok(())
    })
}

/// Copies frames that leave by one port into buffers, one into each, and names the port. `count` gets how many; with 0
/// nothing is to be sent, and `port` is not written.
/// BUFFER_TOO_SMALL: `count` frames were copied, and buffers[count].len says how long the next is, which stays.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_switch_poll_transmit(
    sw: *mut netstack_switch,
    buffers: *mut netstack_buffer,
    capacity: usize,
    port: *mut u16,
    count: *mut usize,
) -> netstack_result {
    boundary!(caller, {
        let (mut port, mut count) = (caller.out(port)?, caller.out(count)?);
        let buffers = caller.elements_mut(buffers, capacity)?;
        let mut state = caller.write(sw)?;
        state.prepare();
        if state.waiting.is_empty() {
            count.put(0);
            return Ok(());
        }
        port.put(state.waiting.port().0);
        let SwitchState { waiting, switch, .. } = &mut *state;
        let (copied, outcome) = waiting.copy_out(caller, buffers, |frame| switch.pool().recycle(frame));
        count.put(copied);
        outcome
    })
}

/// Moves frames that leave by one port into a batch, which must be empty, and names the port. `count` gets how many; with 0
/// nothing is to be sent, and `port` is not written.
/// INVALID_ARGUMENT: the batch is not empty.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_switch_poll_batch(
    sw: *mut netstack_switch,
    batch: *mut netstack_batch,
    port: *mut u16,
    count: *mut usize,
) -> netstack_result {
    boundary!(caller, {
        let (mut port, mut count) = (caller.out(port)?, caller.out(count)?);
        let mut state = caller.write(sw)?;
        let mut batch = caller.write(batch)?;
        check_empty(&batch)?;
        if let Some(id) = state.give_out(&mut batch.frames) {
            port.put(id.0);
        }
        count.put(batch.frames.len());
        Ok(())
    })
}

/// Calls back with every frame that is to be sent, until there is none. `count` gets how many; it may be NULL. The switch
/// is in use meanwhile.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_switch_drain(
    sw: *mut netstack_switch,
    callback: netstack_drain_callback,
    userdata: *mut core::ffi::c_void,
    count: *mut usize,
) -> netstack_result {
    boundary!(caller, {
        let mut out = caller.optional_out(count)?;
        let callback = callback.ok_or(Code::NullPointer)?;
        let mut state = caller.write(sw)?;
        let mut count = 0;
        loop {
            state.prepare();
            let Some(frame) = state.waiting.pop() else { break };
            let bytes = frame.bytes();
            call_back!(callback, userdata, state.waiting.port().0, bytes.as_ptr(), bytes.len());
            state.switch.pool().recycle(frame);
            count += 1;
        }
        out.put(count);
        Ok(())
    })
}
