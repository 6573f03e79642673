//! What was counted.

use core::ffi::c_char;

use netstack::addr::PortId;
use netstack::counters::Counters;
use netstack::verdict::{Fate, Origin};

use crate::caller::{Growable, Outcome};
use crate::event::name;
use crate::result::{found, netstack_result};
use crate::switch::{SwitchState, netstack_switch};

/// All ports together, in place of a port's number.
pub const NETSTACK_ALL_PORTS: u32 = u32::MAX;

/// Frames of a switch or of one of its ports.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct netstack_counters {
    /// The size of this struct, set by the caller.
    pub struct_size: usize,
    /// Frames that entered.
    pub rx_frames: u64,
    /// Octets of those.
    pub rx_bytes: u64,
    /// Frames handed out.
    pub tx_frames: u64,
    /// Octets of those.
    pub tx_bytes: u64,
    /// Frames that entered and were forwarded to one port.
    pub forwarded: u64,
    /// Frames that entered and were flooded.
    pub flooded: u64,
    /// Frames that entered and were for the switch itself.
    pub consumed: u64,
    /// Frames that entered and had to wait for a neighbour.
    pub parked: u64,
    /// Frames that entered and were dropped; netstack_switch_drops says why.
    pub dropped: u64,
    /// Frames that the switch made itself: answers, questions, errors.
    pub originated: u64,
    /// Frames on their way out that were dropped.
    pub egress_dropped: u64,
    /// Frames that left as those of their flow before them, without a decision. Of all ports together; else 0.
    pub known: u64,
    /// Connections that services have given a backend. Of all ports together; else 0.
    pub balanced: u64,
    /// Frames in output queues now. Of all ports together; else 0.
    pub queued: u64,
    /// Frames waiting for neighbours now. Of all ports together; else 0.
    pub waiting: u64,
    /// Events that nobody polled in time. Of all ports together; else 0.
    pub events_lost: u64,
}

impl Growable for netstack_counters {}

/// A count by name.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct netstack_count {
    /// What is counted; ends in NUL.
    pub name: [c_char; 40],
    /// How many.
    pub count: u64,
}

fn counters_of(state: &SwitchState, port: u32) -> Outcome<Counters> {
    if port == NETSTACK_ALL_PORTS {
        return Ok(state.switch.counters());
    }
    let port = u16::try_from(port).ok().map(PortId);
    found(port.and_then(|port| state.switch.port_counters(port)).cloned())
}

/// Writes the counters of a port, or of NETSTACK_ALL_PORTS, as far as counters->struct_size goes.
/// NOT_FOUND: there never was such a port.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_switch_counters(
    sw: *const netstack_switch,
    port: u32,
    counters: *mut netstack_counters,
) -> netstack_result {
    boundary!(caller, {
        let state = caller.read(sw)?;
        let of = counters_of(&state, port)?;
        let all = |count: u64| if port == NETSTACK_ALL_PORTS { count } else { 0 };
        let counted = netstack_counters {
            struct_size: 0,
            rx_frames: of.rx_frames,
            rx_bytes: of.rx_bytes,
            tx_frames: of.tx_frames,
            tx_bytes: of.tx_bytes,
            forwarded: of.fate(Fate::Forwarded),
            flooded: of.fate(Fate::Flooded),
            consumed: of.fate(Fate::Consumed),
            parked: of.fate(Fate::Parked),
            dropped: of.fate(Fate::Dropped),
            originated: of.origin(Origin::Originated),
            egress_dropped: of.egress_drops.iter().flatten().sum(),
            known: all(state.switch.known()),
            balanced: all(state.switch.balanced()),
            queued: all(state.switch.queued() as u64),
            waiting: all(state.switch.parked() as u64),
            events_lost: all(state.switch.events_lost()),
        };
        caller.fill(counters, &counted)
    })
}

/// Writes why frames of a port, or of NETSTACK_ALL_PORTS, were dropped, the most frequent reason first. `count` gets how
/// many reasons there are, which may be more than `capacity`.
/// NOT_FOUND: there never was such a port.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_switch_drops(
    sw: *const netstack_switch,
    port: u32,
    drops: *mut netstack_count,
    capacity: usize,
    count: *mut usize,
) -> netstack_result {
    boundary!(caller, {
        let mut count = caller.out(count)?;
        let mut drops = caller.out_slice(drops, capacity)?;
        let state = caller.read(sw)?;
        let rows = counters_of(&state, port)?.drops_by_name();
        count.put(rows.len());
        for (reason, count) in rows {
            drops.put(netstack_count { name: name(reason), count });
        }
        Ok(())
    })
}

/// Whether every frame is accounted for: what entered, what left, what was dropped and what waits add up.
/// INVALID_ARGUMENT: they do not, which is a bug; `error` says where.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_switch_check(
    sw: *const netstack_switch,
    error: *mut *mut c_char,
) -> netstack_result {
    boundary!(caller, {
        let state = caller.read(sw)?;
        caller.tell(error, crate::result::Code::InvalidArgument, state.switch.check())
    })
}
