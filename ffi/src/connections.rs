//! The connections of a switch.

use core::ffi::c_char;

use netstack::switch::ConnectionEntry;

use crate::address::netstack_endpoint;
use crate::event::name;
use crate::result::{Code, netstack_result};
use crate::switch::{deadline_us, netstack_switch, time};

/// A connection as it is now.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct netstack_connection {
    /// IP protocol number.
    pub protocol: u8,
    /// Whether there was an answer; 0 or 1.
    pub answered: u8,
    /// Whether it is kept when the table is full; 0 or 1.
    pub assured: u8,
    /// Its protocol's state as Linux's tools write it, ending in NUL; empty where the protocol has none.
    pub state: [c_char; 24],
    /// How long it is kept if it stays silent, in microseconds.
    pub remaining_us: u64,
    /// Where packets of who opened it come from. Of an ICMP query the port is its identifier.
    pub source: netstack_endpoint,
    /// Where they go, as they come.
    pub destination: netstack_endpoint,
    /// Where answers come from, as they come. Where these two are not the inverse of those, packets are translated.
    pub reply_source: netstack_endpoint,
    /// Where answers go, as they come.
    pub reply_destination: netstack_endpoint,
}

impl From<ConnectionEntry> for netstack_connection {
    fn from(entry: ConnectionEntry) -> Self {
        let [source, destination] = entry.original.map(Into::into);
        let [reply_source, reply_destination] = entry.reply.map(Into::into);
        Self {
            protocol: entry.protocol,
            answered: entry.is_answered.into(),
            assured: entry.is_assured.into(),
            state: name(entry.state.unwrap_or_default()),
            remaining_us: deadline_us(Some(entry.remaining)),
            source,
            destination,
            reply_source,
            reply_destination,
        }
    }
}

/// Writes some of the connections of a switch, up to `capacity`, which must be 2 or more. `cursor` is 0 at first and gets
/// where to go on; it is 0 again at the end. Connections that are there all the while are seen once.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_switch_connections(
    sw: *const netstack_switch,
    now_us: u64,
    cursor: *mut u64,
    connections: *mut netstack_connection,
    capacity: usize,
    count: *mut usize,
) -> netstack_result {
    boundary!(caller, {
        let from = caller.value(cursor.cast_const())?;
        let (mut cursor, mut count) = (caller.out(cursor)?, caller.out(count)?);
        let mut out = caller.out_slice(connections, capacity)?;
        let state = caller.read(sw)?;
        if capacity < 2 {
            return Err(Code::InvalidArgument);
        }
        let slots = state.switch.connection_slots();
        let mut slot = usize::try_from(from).map_err(|_| Code::InvalidArgument)?;
        // A slot holds one connection of each family at most.
        while slot < slots && out.room() >= 2 {
            let next = (slot + out.room() / 2).min(slots);
            for entry in state.switch.connection_entries_in(time(now_us), slot..next) {
                out.put(entry.into());
            }
            slot = next;
        }
        count.put(out.written());
        cursor.put(if slot < slots { slot as u64 } else { 0 });
        Ok(())
    })
}

/// How many connections there are, of both families.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_switch_connection_count(
    sw: *const netstack_switch,
    count: *mut usize,
) -> netstack_result {
    boundary!(caller, {
        let mut out = caller.out(count)?;
        let state = caller.read(sw)?;
        out.put(state.switch.connections().map_or(0, |(v4, v6)| v4.len() + v6.len()));
        Ok(())
    })
}
