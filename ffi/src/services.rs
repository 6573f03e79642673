//! Services of a switch that runs, and who answers for them.

use core::ffi::c_char;
use core::ptr;
use core::time::Duration;
use std::sync::Arc;

use lb::{Backend, Entrance, Frontend, Policy, Pool, Refusal, Service, Way};
use netstack::config::ServicesConfig;

use crate::address::{netstack_address, netstack_endpoint};
use crate::caller::{Caller, Growable, Outcome};
use crate::config::from_json;
use crate::result::{Code, found, netstack_result};
use crate::switch::{SwitchState, netstack_switch};

/// How one of several backends is chosen.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum netstack_policy {
    /// By the flow's hash, from a table: few flows move when backends come and go.
    Maglev = 0,
    /// At random.
    Random = 1,
    /// One after the other.
    RoundRobin = 2,
    /// By the flow's hash, without a table: no flow moves without need.
    Rendezvous = 3,
}

/// Who answers clients.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct netstack_backend {
    /// Its address.
    pub address: netstack_address,
    /// Its L4 port.
    pub port: u16,
    /// Its part of new connections, as against the others'; none if 0.
    pub weight: u32,
}

/// A service: where clients ask, who answers, and how it is balanced. netstack_service_init makes it one by Maglev, without
/// affinity, whose clients are seen as they are and told when nobody is there.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct netstack_service {
    /// The size of this struct.
    pub struct_size: usize,
    /// What it is known by; ends in NUL.
    pub name: *const c_char,
    /// Where clients ask.
    pub frontends: *const netstack_endpoint,
    /// How many those are.
    pub frontend_count: usize,
    /// Who answers.
    pub backends: *const netstack_backend,
    /// How many those are.
    pub backend_count: usize,
    /// 6 for TCP, 17 for UDP, 132 for SCTP.
    pub protocol: u32,
    /// One of netstack_policy.
    pub policy: u32,
    /// Not 0: backends see an address of the pool that "services.masquerade" names in place of the client's.
    pub masquerade: u32,
    /// Not 0: when there is no backend, packets are dropped without a word.
    pub drop_when_empty: u32,
    /// Not 0: a connection whose backend is gone is reset.
    pub reset_gone: u32,
    /// For how long a client comes back to the backend that it had, in microseconds; 0 for not at all.
    pub affinity_us: u64,
}

impl Default for netstack_service {
    fn default() -> Self {
        Self {
            struct_size: size_of::<Self>(),
            name: ptr::null(),
            frontends: ptr::null(),
            frontend_count: 0,
            backends: ptr::null(),
            backend_count: 0,
            protocol: 6,
            policy: 0,
            masquerade: 0,
            drop_when_empty: 0,
            reset_gone: 0,
            affinity_us: 0,
        }
    }
}

impl Growable for netstack_service {}

/// Makes a service one of TCP without name, frontends and backends.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_service_init(service: *mut netstack_service) -> netstack_result {
    boundary!(caller, {
        caller.out(service)?.put(netstack_service::default());
        Ok(())
    })
}

/// A policy by its number.
pub(crate) fn policy(number: u32) -> Outcome<Policy> {
    const MAGLEV: u32 = netstack_policy::Maglev as u32;
    const RANDOM: u32 = netstack_policy::Random as u32;
    const ROUND_ROBIN: u32 = netstack_policy::RoundRobin as u32;
    const RENDEZVOUS: u32 = netstack_policy::Rendezvous as u32;
    match number {
        MAGLEV => Ok(Policy::Maglev),
        RANDOM => Ok(Policy::Random),
        ROUND_ROBIN => Ok(Policy::RoundRobin),
        RENDEZVOUS => Ok(Policy::Rendezvous),
        _ => Err(Code::InvalidArgument),
    }
}

/// The caller's backends.
pub(crate) fn read_backends(
    caller: &Caller,
    backends: *const netstack_backend,
    count: usize,
) -> Outcome<Vec<Backend>> {
    let read = |it: &netstack_backend| {
        Ok(Backend { address: it.address.to_ip()?, port: it.port, weight: it.weight })
    };
    caller.slice(backends, count)?.iter().map(read).collect()
}

/// Installs other services, and leaves everything else as it is.
fn change(
    caller: &Caller,
    state: &mut SwitchState,
    error: *mut *mut c_char,
    change: impl FnOnce(&mut ServicesConfig) -> Outcome,
) -> Outcome {
    let snapshot = state.switch.snapshot();
    let mut services = match snapshot.services() {
        Some(services) => services.config().clone(),
        None => ServicesConfig { key: state.key, ..ServicesConfig::default() },
    };
    change(&mut services)?;
    let next = caller.tell(error, Code::InvalidConfig, snapshot.with_services(Some(services)))?;
    drop(state.switch.install(next));
    Ok(())
}

fn read_service(caller: &Caller, given: &netstack_service, key: [u8; 16]) -> Outcome<Service> {
    let protocol = u8::try_from(given.protocol).map_err(|_| Code::InvalidArgument)?;
    let backends = read_backends(caller, given.backends, given.backend_count)?;
    let pool = Pool::new(backends.iter().copied(), policy(given.policy)?, None, key);
    let way = Way {
        pool: Arc::new(pool.map_err(|_| Code::InvalidBackends)?),
        masquerade: given.masquerade != 0,
        when_empty: if given.drop_when_empty == 0 { Refusal::Reject } else { Refusal::Drop },
    };
    let entrance = |at: &netstack_endpoint| {
        let at = at.to_socket()?;
        Ok(Entrance {
            frontend: Frontend { address: at.ip(), protocol, port: at.port() },
            sources: Vec::new(),
            ways: [way.clone(), way.clone(), way.clone()],
        })
    };
    let frontends = caller.slice(given.frontends, given.frontend_count)?;
    Ok(Service {
        name: caller.text(given.name)?.into(),
        entrances: frontends.iter().map(entrance).collect::<Outcome<_>>()?,
        affinity: (given.affinity_us > 0).then(|| Duration::from_micros(given.affinity_us)),
        serving: backends.iter().map(|backend| (backend.address, backend.port)).collect(),
        reset_gone: given.reset_gone != 0,
    })
}

/// Adds a service, or puts it in the place of the one with its name. The configuration must track connections.
/// ALREADY_EXISTS: another service has one of the frontends. INVALID_BACKENDS: they make no table. INVALID_CONFIG: `error`
/// says why there can be no services.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_switch_set_service(
    sw: *mut netstack_switch,
    service: *const netstack_service,
    error: *mut *mut c_char,
) -> netstack_result {
    boundary!(caller, {
        let given = caller.options(service)?;
        let mut state = caller.write(sw)?;
        change(caller, &mut state, error, |services| {
            let service = read_service(caller, &given, services.key)?;
            services.registry.set(service).map(drop).map_err(|_| Code::AlreadyExists)
        })
    })
}

/// The same from JSON, which is that of one member of "services.registry" in a configuration.
/// INVALID_JSON, INVALID_CONFIG: `error` says what is wrong. ALREADY_EXISTS: another service has one of the frontends.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_switch_set_service_json(
    sw: *mut netstack_switch,
    json: *const c_char,
    length: usize,
    error: *mut *mut c_char,
) -> netstack_result {
    boundary!(caller, {
        let mut state = caller.write(sw)?;
        let service: Service = from_json(caller, json, length, error)?;
        change(caller, &mut state, error, |services| {
            services.registry.set(service).map(drop).map_err(|_| Code::AlreadyExists)
        })
    })
}

/// Takes a service away. Connections that it has begun go on as far as their backends do.
/// NOT_FOUND: there is none of this name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_switch_remove_service(
    sw: *mut netstack_switch,
    name: *const c_char,
) -> netstack_result {
    boundary!(caller, {
        let name = caller.text(name)?;
        let mut state = caller.write(sw)?;
        change(caller, &mut state, ptr::null_mut(), |services| {
            if services.registry.remove(name) { Ok(()) } else { Err(Code::NotFound) }
        })
    })
}

/// Gives a service other backends. Connections to those that stay go on; those whose backend is gone move to another
/// where that can be, or end.
/// NOT_FOUND: there is none of this name. INVALID_BACKENDS: they make no table.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_switch_set_backends(
    sw: *mut netstack_switch,
    name: *const c_char,
    backends: *const netstack_backend,
    count: usize,
) -> netstack_result {
    boundary!(caller, {
        let name = caller.text(name)?;
        let backends = read_backends(caller, backends, count)?;
        let mut state = caller.write(sw)?;
        change(caller, &mut state, ptr::null_mut(), |services| {
            let mut service = found(services.registry.get(name))?.clone();
            for way in service.entrances.iter_mut().flat_map(|entrance| &mut entrance.ways) {
                let pool = Pool::new(backends.iter().copied(), way.pool.policy(), None, services.key);
                way.pool = Arc::new(pool.map_err(|_| Code::InvalidBackends)?);
            }
            service.serving = backends.iter().map(|backend| (backend.address, backend.port)).collect();
            services.registry.set(service).map(drop).map_err(|_| Code::AlreadyExists)
        })
    })
}
