//! A table of backends alone, without a switch.

use core::ffi::c_char;

use lb::hash::FlowHash;
use lb::{Backend, Pool};

use crate::address::netstack_endpoint;
use crate::handle::Opaque;
use crate::result::{Code, found, netstack_result};
use crate::services::{netstack_backend, read_backends};

/// Backends of one address family, and the way to choose one: made once, then never changed. Whoever has the same key and
/// the same backends chooses alike, on any machine.
pub struct netstack_maglev(());

impl Opaque for netstack_maglev {
    type Value = Backends;
    const KIND: u16 = 7;
}

/// A pool, and the hash that goes with it.
#[derive(Debug)]
pub struct Backends {
    pool: Pool,
    hash: FlowHash,
}

impl From<&Backend> for netstack_backend {
    fn from(backend: &Backend) -> Self {
        Self { address: backend.address.into(), port: backend.port, weight: backend.weight }
    }
}

/// A table of these backends by one of netstack_policy, under a key of 16 octets. `size` is the number of slots of Maglev's
/// table, a prime; 0 for one that suits the number of backends.
/// INVALID_BACKENDS: `error` says what is wrong with them, or with the size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_maglev_new(
    backends: *const netstack_backend,
    count: usize,
    policy: u32,
    size: u32,
    key: *const u8,
    maglev: *mut *mut netstack_maglev,
    error: *mut *mut c_char,
) -> netstack_result {
    boundary!(caller, {
        let mut out = caller.out(maglev)?;
        let backends = read_backends(caller, backends, count)?;
        let mut octets = [0; 16];
        octets.copy_from_slice(caller.slice(key, 16)?);
        let size = (size > 0).then_some(size);
        let pool = Pool::new(backends, crate::services::policy(policy)?, size, octets);
        let pool = caller.tell(error, Code::InvalidBackends, pool)?;
        out.put(caller.give(Backends { pool, hash: FlowHash::new(octets) }));
        Ok(())
    })
}

/// Frees a table; NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_maglev_free(maglev: *mut netstack_maglev) -> netstack_result {
    boundary!(caller, { caller.free(maglev) })
}

/// The hash of a flow under the table's key.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_maglev_hash(
    maglev: *const netstack_maglev,
    source: *const netstack_endpoint,
    destination: *const netstack_endpoint,
    protocol: u8,
    hash: *mut u64,
) -> netstack_result {
    boundary!(caller, {
        let mut out = caller.out(hash)?;
        let (source, destination) =
            (caller.value(source)?.to_socket()?, caller.value(destination)?.to_socket()?);
        let table = caller.read(maglev)?;
        let (from, to) = (source.port(), destination.port());
        out.put(table.hash.hash(source.ip(), destination.ip(), protocol, from, to));
        Ok(())
    })
}

/// The backend for a flow's hash. `draw` is for policies that have no use for the hash: random of all 64 bits, or one more
/// each time.
/// NOT_FOUND: no backend has a weight.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_maglev_select(
    maglev: *const netstack_maglev,
    hash: u64,
    draw: u64,
    backend: *mut netstack_backend,
) -> netstack_result {
    boundary!(caller, {
        let mut out = caller.out(backend)?;
        let table = caller.read(maglev)?;
        out.put(found(table.pool.select(hash, draw))?.into());
        Ok(())
    })
}

/// Writes the backends, in order of their addresses, and beside each its part of new connections: slots, turns or weight.
/// `count` gets how many there are. Either list may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_maglev_shares(
    maglev: *const netstack_maglev,
    backends: *mut netstack_backend,
    parts: *mut u64,
    capacity: usize,
    count: *mut usize,
) -> netstack_result {
    boundary!(caller, {
        let mut count = caller.out(count)?;
        let room = |wanted: bool| if wanted { capacity } else { 0 };
        let mut backends = caller.out_slice(backends, room(!backends.is_null()))?;
        let mut parts = caller.out_slice(parts, room(!parts.is_null()))?;
        let table = caller.read(maglev)?;
        count.put(table.pool.backends().len());
        for share in table.pool.shares() {
            backends.put(share.backend.into());
            parts.put(share.parts);
        }
        Ok(())
    })
}
