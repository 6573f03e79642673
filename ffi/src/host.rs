//! Hosts without a kernel: the five verbs.

use core::ffi::{c_char, c_void};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::ptr;
use core::time::Duration;

use netstack::addr::{IpNet, MacAddr, PortId};
use netstack::driver::Engine;
use netstack::event::Event;
use netstack::frame::{FrameBatch, FramePool};
use netstack::host::{Congestion, Host, HostConfig, HostLimits};
use nix::sys::eventfd::EventFd;

use crate::address::parse;
use crate::batch::{check_empty, copy_in, netstack_batch};
use crate::caller::{Caller, Growable, Outcome, Userdata};
use crate::frames::{Waiting, netstack_buffer, netstack_frame};
use crate::handle::Opaque;
use crate::result::{Code, netstack_result};
use crate::socket::Sockets;
use crate::switch::{deadline_us, or_default, read_seed, time};

/// A host: one network interface with addresses, and TCP and UDP sockets.
pub struct netstack_host(());

impl Opaque for netstack_host {
    type Value = HostState;
    const KIND: u16 = 6;
}

/// Tells that something about a socket has changed: `ready` is a sum of NETSTACK_READY_FLAG_*.
pub type netstack_ready_callback =
    Option<unsafe extern "C" fn(userdata: *mut c_void, socket: u64, ready: u32)>;

type ReadyFunction = unsafe extern "C" fn(userdata: *mut c_void, socket: u64, ready: u32);

/// A host, and what C callers have beside it.
#[derive(Debug)]
pub struct HostState {
    pub(crate) host: Host,
    pub(crate) sockets: Sockets,
    pub(crate) callback: Option<(ReadyFunction, Userdata)>,
    pub(crate) eventfd: Option<EventFd>,
    /// Buffers for what comes from C; the host has its own for what it sends.
    pool: FramePool,
    batch: FrameBatch,
    waiting: Waiting,
}

/// What a host is made from.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct netstack_host_options {
    /// The size of this struct.
    pub struct_size: usize,
    /// Its MAC address.
    pub mac: [u8; 6],
    /// The largest IP packet, in octets: 576 to 65535; 0 for 1500.
    pub mtu: u16,
    /// How TCP reacts to loss: 0 as RFC 5681 says, 1 not at all, for links that lose nothing.
    pub congestion: u32,
    /// Its addresses with the prefixes that are on the link, each a text such as "10.0.0.2/24".
    pub addresses: *const *const c_char,
    /// How many those are.
    pub address_count: usize,
    /// The next hop of IPv4 packets to elsewhere, or NULL.
    pub gateway_v4: *const c_char,
    /// The next hop of IPv6 packets to elsewhere, or NULL.
    pub gateway_v6: *const c_char,
    /// TCP connections in any state; 0 for the default.
    pub tcp_connections: u32,
    /// Connections of one listener that wait to be accepted; 0 for the default.
    pub backlog: u32,
    /// UDP sockets; 0 for the default.
    pub udp_sockets: u32,
    /// Octets of receive buffer of a connection; 0 for the default.
    pub receive_buffer: usize,
    /// Octets of send buffer of a connection; 0 for the default.
    pub send_buffer: usize,
}

impl Default for netstack_host_options {
    fn default() -> Self {
        Self {
            struct_size: size_of::<Self>(),
            mac: [0; 6],
            mtu: 0,
            congestion: 0,
            addresses: ptr::null(),
            address_count: 0,
            gateway_v4: ptr::null(),
            gateway_v6: ptr::null(),
            tcp_connections: 0,
            backlog: 0,
            udp_sockets: 0,
            receive_buffer: 0,
            send_buffer: 0,
        }
    }
}

impl Growable for netstack_host_options {}

/// Makes options those of a host without addresses, whose MAC address is missing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_host_options_init(options: *mut netstack_host_options) -> netstack_result {
    boundary!(caller, {
        caller.out(options)?.put(netstack_host_options::default());
        Ok(())
    })
}

/// The largest buffer of a connection: what window scaling can offer (RFC 7323 section 2.3).
const MOST_OCTETS: usize = 1 << 30;

fn read_options(caller: &Caller, given: &netstack_host_options) -> Outcome<HostConfig> {
    let read = |text: &*const c_char| parse::<IpNet>(caller.text(*text)?);
    let addresses = caller.slice(given.addresses, given.address_count)?.iter().map(read);
    let mut config = HostConfig::new(MacAddr(given.mac), addresses.collect::<Outcome<_>>()?);
    config.gateway_v4 = caller.optional_text(given.gateway_v4)?.map(parse::<Ipv4Addr>).transpose()?;
    config.gateway_v6 = caller.optional_text(given.gateway_v6)?.map(parse::<Ipv6Addr>).transpose()?;
    if given.mtu != 0 {
        config.mtu = given.mtu.into();
    }
    config.congestion = match given.congestion {
        0 => Congestion::Reno,
        1 => Congestion::None,
        _ => return Err(Code::InvalidArgument),
    };
    let defaults = HostLimits::default();
    let or_octets = |given: usize, default: usize| match given {
        0 => Ok(default),
        1..=MOST_OCTETS => Ok(given),
        _ => Err(Code::InvalidArgument),
    };
    config.limits = HostLimits {
        tcp_flows: or_default(given.tcp_connections, defaults.tcp_flows)?,
        backlog: if given.backlog == 0 { defaults.backlog } else { given.backlog as usize },
        udp_sockets: or_default(given.udp_sockets, defaults.udp_sockets)?,
        receive_buffer: or_octets(given.receive_buffer, defaults.receive_buffer)?,
        send_buffer: or_octets(given.send_buffer, defaults.send_buffer)?,
        ..defaults
    };
    Ok(config)
}

impl HostState {
    fn take_in(&mut self, now: Duration, frames: &mut FrameBatch) {
        self.host.handle_frames(now, frames);
        self.tell();
    }

    fn turn(&mut self, now: Duration) {
        self.host.handle_timeout(now);
        self.tell();
    }

    /// Fills an empty batch; what was polled to be copied out goes first.
    fn give_out(&mut self, frames: &mut FrameBatch) {
        if self.waiting.is_empty() {
            self.host.poll_transmit(frames);
        } else {
            self.waiting.fill(frames);
        }
    }
}

/// A driver turns it like any host.
impl Engine for HostState {
    fn handle_frames(&mut self, now: Duration, _port: PortId, batch: &mut FrameBatch) {
        self.take_in(now, batch);
    }

    fn handle_timeout(&mut self, now: Duration) {
        self.turn(now);
    }

    fn poll_transmit(&mut self, batch: &mut FrameBatch) -> Option<PortId> {
        self.give_out(batch);
        (!batch.is_empty()).then_some(PortId(0))
    }

    fn poll_timeout(&self) -> Option<Duration> {
        self.host.poll_timeout()
    }

    fn poll_event(&mut self) -> Option<Event> {
        None
    }

    fn pool(&mut self) -> &mut FramePool {
        &mut self.pool
    }
}

/// A host. `seed` is 32 octets or NULL.
/// INVALID_CONFIG: `error` says what is wrong with the options.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_host_new(
    options: *const netstack_host_options,
    seed: *const u8,
    host: *mut *mut netstack_host,
    error: *mut *mut c_char,
) -> netstack_result {
    boundary!(caller, {
        let mut out = caller.out(host)?;
        let config = read_options(caller, &caller.options(options)?)?;
        let seed = read_seed(caller, seed)?;
        let host = caller.tell(error, Code::InvalidConfig, Host::new(config, seed))?;
        out.put(caller.give(HostState {
            host,
            sockets: Sockets::default(),
            callback: None,
            eventfd: None,
            pool: FramePool::new(),
            batch: FrameBatch::new(),
            waiting: Waiting::default(),
        }));
        Ok(())
    })
}

/// Frees a host with its sockets; NULL is allowed. The other sides are not told.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_host_free(host: *mut netstack_host) -> netstack_result {
    boundary!(caller, { caller.free(host) })
}

/// Takes in frames, copying them. `accepted` gets how many were: all of them, or those before the one for which it fails.
/// TOO_LONG: a frame has at most 65600 octets.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_host_handle_frames(
    host: *mut netstack_host,
    now_us: u64,
    frames: *const netstack_frame,
    count: usize,
    accepted: *mut usize,
) -> netstack_result {
    boundary!(caller, {
        let mut accepted = caller.out(accepted)?;
        let mut rest = caller.slice(frames, count)?;
        let mut state = caller.write(host)?;
        let mut batch = core::mem::take(&mut state.batch);
        let mut outcome = Ok(());
        while outcome.is_ok() && !rest.is_empty() {
            let (taken, result) = copy_in(caller, &mut batch, &mut state.pool, rest);
            state.take_in(time(now_us), &mut batch);
            rest = &rest[taken..];
            outcome = result;
        }
        state.batch = batch;
        accepted.put(count - rest.len());
        outcome
    })
}

/// Takes in the frames of a batch without copying them. The batch is empty afterwards.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_host_handle_batch(
    host: *mut netstack_host,
    now_us: u64,
    batch: *mut netstack_batch,
) -> netstack_result {
    boundary!(caller, {
        let mut state = caller.write(host)?;
        let mut batch = caller.write(batch)?;
        state.take_in(time(now_us), &mut batch.frames);
        Ok(())
    })
}

/// Does what is due. The work of one call is bounded: while netstack_host_poll_timeout says that something is due, call
/// again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_host_handle_timeout(
    host: *mut netstack_host,
    now_us: u64,
) -> netstack_result {
    boundary!(caller, {
        caller.write(host)?.turn(time(now_us));
        Ok(())
    })
}

/// When netstack_host_handle_timeout has something to do next; NETSTACK_NEVER if nothing is pending.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_host_poll_timeout(
    host: *const netstack_host,
    deadline: *mut u64,
) -> netstack_result {
    boundary!(caller, {
        let mut out = caller.out(deadline)?;
        out.put(deadline_us(caller.read(host)?.host.poll_timeout()));
        Ok(())
    })
}

/// Copies frames that leave into buffers, one into each. `count` gets how many; with 0 nothing is to be sent.
/// BUFFER_TOO_SMALL: `count` frames were copied, and buffers[count].len says how long the next is, which stays.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_host_poll_transmit(
    host: *mut netstack_host,
    buffers: *mut netstack_buffer,
    capacity: usize,
    count: *mut usize,
) -> netstack_result {
    boundary!(caller, {
        let mut count = caller.out(count)?;
        let buffers = caller.elements_mut(buffers, capacity)?;
        let mut state = caller.write(host)?;
        let HostState { host, batch, waiting, pool, .. } = &mut *state;
        if waiting.is_empty() && host.poll_transmit(batch) {
            waiting.keep(PortId(0), batch);
        }
        let (copied, outcome) = waiting.copy_out(caller, buffers, |frame| pool.recycle(frame));
        count.put(copied);
        outcome
    })
}

/// Moves frames that leave into a batch, which must be empty. `count` gets how many; with 0 nothing is to be sent.
/// INVALID_ARGUMENT: the batch is not empty.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_host_poll_batch(
    host: *mut netstack_host,
    batch: *mut netstack_batch,
    count: *mut usize,
) -> netstack_result {
    boundary!(caller, {
        let mut count = caller.out(count)?;
        let mut state = caller.write(host)?;
        let mut batch = caller.write(batch)?;
        check_empty(&batch)?;
        state.give_out(&mut batch.frames);
        count.put(batch.frames.len());
        Ok(())
    })
}

/// Sends an echo request with an identifier, a sequence number and a payload. The answer is an event.
/// NO_ROUTE, TOO_LONG.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_host_ping(
    host: *mut netstack_host,
    now_us: u64,
    destination: *const crate::address::netstack_address,
    id: u16,
    sequence: u16,
    payload: *const u8,
    length: usize,
) -> netstack_result {
    boundary!(caller, {
        let destination: IpAddr = caller.value(destination)?.to_ip()?;
        let payload = caller.slice(payload, length)?;
        let mut state = caller.write(host)?;
        let sent = state.host.ping(time(now_us), destination, id, sequence, payload);
        sent.map_err(crate::socket::send_code)
    })
}
