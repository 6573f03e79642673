//! What a switch has to tell.

use core::ffi::c_char;
use core::net::IpAddr;

use netstack::addr::{MacAddr, PortId, SegmentId};
use netstack::event::Event;
use netstack::verdict::DropReason;

use crate::address::netstack_address;
use crate::result::netstack_result;
use crate::switch::netstack_switch;

/// What changed. Behind each kind: which fields of netstack_event say something.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum netstack_event_kind {
    /// Something that this version of the ABI has no number for.
    #[default]
    Other = 0,
    /// A learned MAC address appeared on another port: segment, mac, other_port (where it was), port.
    MacMoved = 1,
    /// So many more moved: value.
    MacMovesUntold = 2,
    /// Storm control drops frames: port.
    Storm = 3,
    /// Two ports are part of a loop: port (blocked), other_port, value (microseconds for which it is).
    LoopDetected = 4,
    /// A port is open again: port.
    LoopCleared = 5,
    /// Somebody else claims an address in use: segment, address, mac, port.
    AddressConflict = 6,
    /// A gateway's address is in use elsewhere and stays unused: segment, address, mac, port.
    DuplicateAddress = 7,
    /// A gateway's address is in use from here on: segment, address.
    AddressReady = 8,
    /// The MAC table, or a port's share, is full: port.
    FdbFull = 9,
    /// A neighbour has another MAC address: segment, address, mac.
    NeighborChanged = 10,
    /// A neighbour did not answer: segment, address.
    NeighborFailed = 11,
    /// The neighbour table is full: segment.
    NeighborTableFull = 12,
    /// A connection was refused: address (who wanted it), reason.
    ConnectionRefused = 13,
    /// A service did not take a packet: address (who asked), destination, l4_port, reason.
    ServiceRefused = 14,
    /// A configuration was installed: value (its generation).
    Installed = 15,
}

/// Something that changed.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct netstack_event {
    /// One of netstack_event_kind.
    pub kind: u32,
    /// A broadcast domain.
    pub segment: u16,
    /// A port of the switch.
    pub port: u16,
    /// Another one.
    pub other_port: u16,
    /// An L4 port.
    pub l4_port: u16,
    /// A MAC address.
    pub mac: [u8; 6],
    /// An address.
    pub address: netstack_address,
    /// Another one.
    pub destination: netstack_address,
    /// A number.
    pub value: u64,
    /// Why, as counters have it; ends in NUL.
    pub reason: [c_char; 40],
}

impl Default for netstack_event {
    fn default() -> Self {
        Self {
            kind: 0,
            segment: 0,
            port: 0,
            other_port: 0,
            l4_port: 0,
            mac: [0; 6],
            address: netstack_address::default(),
            destination: netstack_address::default(),
            value: 0,
            reason: [0; 40],
        }
    }
}

/// A name in a field of C: cut if it is too long, always with a NUL.
pub(crate) fn name<const N: usize>(text: &str) -> [c_char; N] {
    let mut field = [0; N];
    for (place, byte) in field.iter_mut().take(N - 1).zip(text.bytes()) {
        *place = c_char::from_ne_bytes([byte]);
    }
    field
}

impl netstack_event {
    fn new(kind: netstack_event_kind) -> Self {
        Self { kind: kind as u32, ..Self::default() }
    }

    fn on(self, SegmentId(segment): SegmentId) -> Self {
        Self { segment, ..self }
    }

    fn at(self, PortId(port): PortId) -> Self {
        Self { port, ..self }
    }

    fn beside(self, PortId(other_port): PortId) -> Self {
        Self { other_port, ..self }
    }

    fn of(self, address: IpAddr) -> Self {
        Self { address: address.into(), ..self }
    }

    fn with(self, MacAddr(mac): MacAddr) -> Self {
        Self { mac, ..self }
    }

    fn because(self, reason: DropReason) -> Self {
        Self { reason: name(reason.name()), ..self }
    }
}

impl From<Event> for netstack_event {
    fn from(event: Event) -> Self {
        use netstack_event_kind as Kind;
        match event {
            Event::MacMoved { segment, mac, from, to } => {
                Self::new(Kind::MacMoved).on(segment).with(mac).beside(from).at(to)
            }
            Event::MacMovesUntold { count } => Self { value: count, ..Self::new(Kind::MacMovesUntold) },
            Event::Storm { port } => Self::new(Kind::Storm).at(port),
            Event::LoopDetected { port, other, blocked_for, .. } => {
                let value = u64::try_from(blocked_for.as_micros()).unwrap_or(u64::MAX);
                Self { value, ..Self::new(Kind::LoopDetected).at(port).beside(other) }
            }
            Event::LoopCleared { port } => Self::new(Kind::LoopCleared).at(port),
            Event::AddressConflict { segment, address, mac, port } => {
                Self::new(Kind::AddressConflict).on(segment).of(address).with(mac).at(port)
            }
            Event::DuplicateAddress { segment, address, mac, port } => {
                Self::new(Kind::DuplicateAddress).on(segment).of(address).with(mac).at(port)
            }
            Event::AddressReady { segment, address } => Self::new(Kind::AddressReady).on(segment).of(address),
            Event::FdbFull { port } => Self::new(Kind::FdbFull).at(port),
            Event::NeighborChanged { segment, address, mac } => {
                Self::new(Kind::NeighborChanged).on(segment).of(address).with(mac)
            }
            Event::NeighborFailed { segment, address } => {
                Self::new(Kind::NeighborFailed).on(segment).of(address)
            }
            Event::NeighborTableFull { segment } => Self::new(Kind::NeighborTableFull).on(segment),
            Event::ConnectionRefused { reason, source } => {
                Self::new(Kind::ConnectionRefused).of(source).because(reason)
            }
            Event::ServiceRefused { reason, source, destination, port } => {
                let told = Self::new(Kind::ServiceRefused).of(source).because(reason);
                Self { destination: destination.into(), l4_port: port, ..told }
            }
            Event::Installed { generation } => Self { value: generation, ..Self::new(Kind::Installed) },
            _ => Self::new(Kind::Other),
        }
    }
}

/// Takes the oldest event that was not told yet. `told` gets whether there was one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_switch_poll_event(
    sw: *mut netstack_switch,
    event: *mut netstack_event,
    told: *mut bool,
) -> netstack_result {
    boundary!(caller, {
        let (mut out, mut told) = (caller.out(event)?, caller.out(told)?);
        let event = caller.write(sw)?.switch.poll_event();
        told.put(event.is_some());
        if let Some(event) = event {
            out.put(event.into());
        }
        Ok(())
    })
}
