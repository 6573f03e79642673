//! A translator of packets alone, without a switch.

use core::ffi::c_char;
use core::net::{Ipv4Addr, Ipv6Addr};
use core::ops::Range;
use core::time::Duration;
use std::collections::BTreeSet;

use nat::connection::{Connection, Status};
use nat::packet::{self, Packet};
use nat::rule::Way;
use nat::translate::ChecksumState;
use nat::tuple::{Address, Direction};
use nat::{Nat, Tracked};
use netstack::addr::SegmentId;
use netstack::config::{Config, NatConfig, SegmentConfig, Snapshot};
use netstack::seed::Seed;

use crate::caller::Out;
use crate::config::from_json;
use crate::connections::netstack_connection;
use crate::event::name;
use crate::handle::Opaque;
use crate::result::{Code, netstack_result};
use crate::switch::{deadline_us, read_seed, time};

/// No interface, where one leaves by is not known.
pub const NETSTACK_NO_INTERFACE: u32 = u32::MAX;

/// Tracking and translation of both address families.
pub struct netstack_nat(());

impl Opaque for netstack_nat {
    type Value = Translators;
    const KIND: u16 = 8;
}

/// One of each family.
#[derive(Debug)]
pub struct Translators {
    v4: Nat<Ipv4Addr>,
    v6: Nat<Ipv6Addr>,
}

/// What becomes of a packet.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum netstack_nat_verdict {
    /// It may leave as it is.
    Pass = 0,
    /// It was translated and may leave.
    Translated = 1,
    /// It is no packet, or contradicts itself: drop it.
    Malformed = 2,
    /// It belongs to no connection and may open none: drop it.
    Invalid = 3,
    /// The connection that it would open cannot begin, for want of room or of ports: drop it.
    Refused = 4,
    /// It cannot be translated: drop it.
    Unfit = 5,
}

impl Translators {
    fn new(config: NatConfig, capacity: usize, seed: &Seed) -> Result<Self, String> {
        let of = |rule: &netstack::config::nat::NatMatch| [rule.ingress, rule.egress];
        let source = config.source.iter().flat_map(|rule| of(&rule.matches));
        let named = source.chain(config.destination.iter().flat_map(|rule| of(&rule.matches)));
        // Rules may name any interface here: what a switch calls a segment.
        let interfaces: BTreeSet<SegmentId> = named.flatten().collect();
        let segments = interfaces.into_iter().map(|id| SegmentConfig::new(id, id.to_string())).collect();
        let config = Config { segments, nat: Some(config), ..Config::default() };
        let snapshot = Snapshot::compile(config, None).map_err(|errors| errors.to_string())?;
        let translator = snapshot.translator().ok_or("nothing is to be tracked")?;
        let seed = seed.derive("ffi nat");
        let text = |error: nat::ports::ConfigError| error.to_string();
        Ok(Self {
            v4: Nat::new(translator.alone(capacity, seed)).map_err(text)?,
            v6: Nat::new(translator.alone(capacity, seed)).map_err(text)?,
        })
    }
}

/// Takes a packet that came in by an interface; says what becomes of it, having translated it in place.
fn pass<A: Address>(
    nat: &mut Nat<A>,
    now: Duration,
    way: Way,
    packet: &Packet,
    bytes: &mut [u8],
) -> netstack_nat_verdict {
    use netstack_nat_verdict as Verdict;
    let translated = |done: bool| if done { Verdict::Translated } else { Verdict::Unfit };
    let rewrite = match nat.track(now, 0, packet, bytes, ChecksumState::Complete) {
        Tracked::Known { rewrite, .. } => rewrite,
        Tracked::New(new) => {
            let destination = nat.destination(&new, way);
            let prepared = nat.prepare(now, &new, destination.into(), way);
            match prepared.and_then(|it| nat.commit(now, &it).map(|_| it)) {
                Ok(prepared) => prepared.rewrite(),
                Err(refusal) => {
                    nat.count_refusal(refusal);
                    return Verdict::Refused;
                }
            }
        }
        Tracked::Related { rewrite: Some(rewrite), source, .. } => {
            return translated(rewrite.apply_error(bytes, packet, source).is_ok());
        }
        Tracked::Related { rewrite: None, .. } | Tracked::Untracked => None,
        Tracked::Invalid(_) => return Verdict::Invalid,
    };
    match rewrite {
        Some(rewrite) => translated(rewrite.apply(bytes, packet, ChecksumState::Complete).is_ok()),
        None => Verdict::Pass,
    }
}

/// A translator for up to `capacity` connections of each family, from JSON: that of "nat" in a configuration, where what
/// rules call a segment is the number of an interface. `seed` is 32 octets or NULL.
/// INVALID_JSON, INVALID_CONFIG: `error` says what is wrong.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_nat_new(
    json: *const c_char,
    length: usize,
    capacity: usize,
    seed: *const u8,
    nat: *mut *mut netstack_nat,
    error: *mut *mut c_char,
) -> netstack_result {
    boundary!(caller, {
        let mut out = caller.out(nat)?;
        let config: NatConfig = from_json(caller, json, length, error)?;
        if !(1..=MOST_CONNECTIONS).contains(&capacity) {
            return Err(Code::InvalidArgument);
        }
        let made = Translators::new(config, capacity, &read_seed(caller, seed)?);
        out.put(caller.give(caller.tell(error, Code::InvalidConfig, made)?));
        Ok(())
    })
}

/// More are not indexed.
const MOST_CONNECTIONS: usize = 1 << 24;

/// Frees a translator; NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_nat_free(nat: *mut netstack_nat) -> netstack_result {
    boundary!(caller, { caller.free(nat) })
}

/// Takes an IP packet that came in by one interface and leaves by another, or by NETSTACK_NO_INTERFACE, and translates it
/// in place. `verdict` gets one of netstack_nat_verdict. What follows the packet in `data` is left alone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_nat_translate(
    nat: *mut netstack_nat,
    now_us: u64,
    ingress: u32,
    egress: u32,
    data: *mut u8,
    length: usize,
    verdict: *mut u32,
) -> netstack_result {
    boundary!(caller, {
        let mut out = caller.out(verdict)?;
        let bytes = caller.slice_mut(data, length)?;
        let mut nat = caller.write(nat)?;
        let way = Way { ingress, egress: (egress != NETSTACK_NO_INTERFACE).then_some(egress), zone: 0 };
        let Ok(packet) = packet::parse(bytes) else {
            out.put(netstack_nat_verdict::Malformed as u32);
            return Ok(());
        };
        let now = time(now_us);
        out.put(if packet.layout.source.is_ipv4() {
            pass(&mut nat.v4, now, way, &packet, bytes) as u32
        } else {
            pass(&mut nat.v6, now, way, &packet, bytes) as u32
        });
        Ok(())
    })
}

/// Ends connections whose time is up, a bounded piece of it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_nat_handle_timeout(nat: *mut netstack_nat, now_us: u64) -> netstack_result {
    boundary!(caller, {
        let mut nat = caller.write(nat)?;
        nat.v4.expire(time(now_us));
        nat.v6.expire(time(now_us));
        Ok(())
    })
}

/// When netstack_nat_handle_timeout has something to do next; NETSTACK_NEVER if nothing is pending.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_nat_poll_timeout(
    nat: *const netstack_nat,
    now_us: u64,
    deadline: *mut u64,
) -> netstack_result {
    boundary!(caller, {
        let mut out = caller.out(deadline)?;
        let nat = caller.read(nat)?;
        let now = time(now_us);
        let wait = [nat.v4.next_expiry(now), nat.v6.next_expiry(now)].into_iter().flatten().min();
        out.put(deadline_us(wait.map(|wait| now + wait)));
        Ok(())
    })
}

/// How many connections there are, of both families.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_nat_count(nat: *const netstack_nat, count: *mut usize) -> netstack_result {
    boundary!(caller, {
        let mut out = caller.out(count)?;
        let nat = caller.read(nat)?;
        out.put(nat.v4.len() + nat.v6.len());
        Ok(())
    })
}

/// Writes some of the connections, as netstack_switch_connections does.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_nat_connections(
    nat: *const netstack_nat,
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
        let nat = caller.read(nat)?;
        if capacity < 2 {
            return Err(Code::InvalidArgument);
        }
        let slots = nat.v4.slots().max(nat.v6.slots());
        let mut slot = usize::try_from(from).map_err(|_| Code::InvalidArgument)?;
        while slot < slots && out.room() >= 2 {
            let next = (slot + out.room() / 2).min(slots);
            list(&nat.v4, time(now_us), slot..next, &mut out);
            list(&nat.v6, time(now_us), slot..next, &mut out);
            slot = next;
        }
        count.put(out.written());
        cursor.put(if slot < slots { slot as u64 } else { 0 });
        Ok(())
    })
}

fn list<A: Address>(
    nat: &Nat<A>,
    now: Duration,
    slots: Range<usize>,
    out: &mut Out<'_, netstack_connection>,
) {
    for (_, connection) in nat.connections_in(slots) {
        if !connection.remaining(now).is_zero() {
            out.put(entry(connection, now));
        }
    }
}

fn entry<A: Address>(connection: &Connection<A>, now: Duration) -> netstack_connection {
    let [original, reply] = [Direction::Original, Direction::Reply].map(|way| connection.tuple(way));
    netstack_connection {
        protocol: original.protocol,
        answered: connection.status.has(Status::SEEN_REPLY).into(),
        assured: connection.status.has(Status::ASSURED).into(),
        state: name(connection.state.name().unwrap_or_default()),
        remaining_us: deadline_us(Some(connection.remaining(now))),
        source: original.source.to_socket().into(),
        destination: original.destination.to_socket().into(),
        reply_source: reply.source.to_socket().into(),
        reply_destination: reply.destination.to_socket().into(),
    }
}
