//! Configurations: from JSON, or by calls.

use core::ffi::c_char;
use core::net::IpAddr;

use netstack::addr::{IpNet, MacAddr, PortId, SegmentId};
use netstack::config::{
    Config, GatewayConfig, NextHop, PortConfig, RouteConfig, RouteTarget, SegmentConfig, Snapshot, VlanMode,
};
use serde::de::DeserializeOwned;

use crate::address::parse;
use crate::caller::{Caller, Outcome};
use crate::handle::Opaque;
use crate::result::{Code, found, netstack_result};

/// What a switch is to be: ports, segments, routes, translation, services. Plain data until a switch installs it.
pub struct netstack_config(());

impl Opaque for netstack_config {
    type Value = Config;
    const KIND: u16 = 1;
}

/// A configuration without ports.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_config_new(config: *mut *mut netstack_config) -> netstack_result {
    boundary!(caller, {
        let mut out = caller.out(config)?;
        out.put(caller.give(Config::default()));
        Ok(())
    })
}

/// Reads a configuration from JSON of `length` octets, in the same schema and with the same errors as the Rust crate.
/// INVALID_JSON: `error` says what is wrong, and where.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_config_from_json(
    json: *const c_char,
    length: usize,
    config: *mut *mut netstack_config,
    error: *mut *mut c_char,
) -> netstack_result {
    boundary!(caller, {
        let mut out = caller.out(config)?;
        let value: Config = from_json(caller, json, length, error)?;
        out.put(caller.give(value));
        Ok(())
    })
}

/// Writes a configuration as JSON.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_config_to_json(
    config: *const netstack_config,
    json: *mut *mut c_char,
) -> netstack_result {
    boundary!(caller, {
        let mut out = caller.out(json)?;
        let config = caller.read(config)?;
        let text = serde_json::to_string(&*config).map_err(|_| Code::InvalidConfig)?;
        out.put(caller.string(text));
        Ok(())
    })
}

/// A second configuration like this one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_config_clone(
    config: *const netstack_config,
    clone: *mut *mut netstack_config,
) -> netstack_result {
    boundary!(caller, {
        let mut out = caller.out(clone)?;
        let config = caller.read(config)?;
        out.put(caller.give(config.clone()));
        Ok(())
    })
}

/// Frees a configuration; NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_config_free(config: *mut netstack_config) -> netstack_result {
    boundary!(caller, { caller.free(config) })
}

/// Whether a switch would install it.
/// INVALID_CONFIG: `error` names everything that is wrong, a line each.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_config_check(
    config: *const netstack_config,
    error: *mut *mut c_char,
) -> netstack_result {
    boundary!(caller, {
        let config = caller.read(config)?;
        caller.tell(error, Code::InvalidConfig, Snapshot::compile(config.clone(), None)).map(drop)
    })
}

/// Adds a broadcast domain that packets of up to `mtu` octets fit.
/// ALREADY_EXISTS: there is one with this number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_config_add_segment(
    config: *mut netstack_config,
    segment: u16,
    name: *const c_char,
    mtu: u16,
) -> netstack_result {
    boundary!(caller, {
        let mut config = caller.write(config)?;
        let id = SegmentId(segment);
        if config.segments.iter().any(|old| old.id == id) {
            return Err(Code::AlreadyExists);
        }
        let segment = SegmentConfig { mtu, ..SegmentConfig::new(id, caller.text(name)?) };
        config.segments.push(segment);
        Ok(())
    })
}

/// Gives a segment an interface of the router, with a MAC address of 6 octets. Addresses are added afterwards.
/// NOT_FOUND: no such segment. ALREADY_EXISTS: it has one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_config_set_gateway(
    config: *mut netstack_config,
    segment: u16,
    mac: *const u8,
) -> netstack_result {
    boundary!(caller, {
        let mut config = caller.write(config)?;
        let mac = read_mac(caller, mac)?;
        let segment = segment_of(&mut config, segment)?;
        if segment.gateway.is_some() {
            return Err(Code::AlreadyExists);
        }
        segment.gateway = Some(GatewayConfig::new(mac, Vec::new()));
        Ok(())
    })
}

/// Gives the router's interface on a segment an address with the prefix that is on this link, such as "10.0.0.1/24".
/// NOT_FOUND: no such segment, or it has no gateway.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_config_add_gateway_address(
    config: *mut netstack_config,
    segment: u16,
    address: *const c_char,
) -> netstack_result {
    boundary!(caller, {
        let mut config = caller.write(config)?;
        let address = parse::<IpNet>(caller.text(address)?)?;
        let gateway = found(segment_of(&mut config, segment)?.gateway.as_mut())?;
        gateway.addresses.push(address);
        Ok(())
    })
}

/// Adds a route to a prefix such as "0.0.0.0/0", through a segment, by way of a gateway; `gateway` is NULL where the
/// destinations themselves are on the segment.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_config_add_route(
    config: *mut netstack_config,
    prefix: *const c_char,
    segment: u16,
    gateway: *const c_char,
) -> netstack_result {
    boundary!(caller, {
        let mut config = caller.write(config)?;
        let prefix = parse::<IpNet>(caller.text(prefix)?)?;
        let gateway = caller.optional_text(gateway)?.map(parse::<IpAddr>).transpose()?;
        let hop = NextHop { segment: SegmentId(segment), gateway };
        config.routes.push(RouteConfig { prefix, target: RouteTarget::Via(vec![hop]) });
        Ok(())
    })
}

/// Adds a port on one segment, with anybody behind it: frames come and leave untagged, addresses are learned.
/// ALREADY_EXISTS: there is one with this number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_config_add_port(
    config: *mut netstack_config,
    port: u16,
    name: *const c_char,
    segment: u16,
) -> netstack_result {
    boundary!(caller, {
        let mut config = caller.write(config)?;
        let id = PortId(port);
        if config.ports.iter().any(|old| old.id == id) {
            return Err(Code::AlreadyExists);
        }
        let port = PortConfig::new(id, caller.text(name)?, VlanMode::Access(SegmentId(segment)));
        config.ports.push(port);
        Ok(())
    })
}

/// Adds something from JSON: `list` is "ports", "segments" or "routes", and the JSON is that of one member of this list.
/// INVALID_JSON: `error` says what is wrong. NOT_FOUND: no such list.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_config_add_json(
    config: *mut netstack_config,
    list: *const c_char,
    json: *const c_char,
    length: usize,
    error: *mut *mut c_char,
) -> netstack_result {
    boundary!(caller, {
        let mut config = caller.write(config)?;
        match caller.text(list)? {
            "ports" => config.ports.push(from_json(caller, json, length, error)?),
            "segments" => config.segments.push(from_json(caller, json, length, error)?),
            "routes" => config.routes.push(from_json(caller, json, length, error)?),
            _ => return Err(Code::NotFound),
        }
        Ok(())
    })
}

/// Takes the member at a place out of a list: "ports", "segments", "routes", or of "nat" the "pools", "source" or
/// "destination" rules. Those behind it move up.
/// NOT_FOUND: no such list, or it is shorter.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_config_remove(
    config: *mut netstack_config,
    list: *const c_char,
    index: usize,
) -> netstack_result {
    fn remove<T>(list: &mut Vec<T>, index: usize) -> Outcome {
        if index >= list.len() {
            return Err(Code::NotFound);
        }
        list.remove(index);
        Ok(())
    }
    boundary!(caller, {
        let mut config = caller.write(config)?;
        match caller.text(list)? {
            "ports" => return remove(&mut config.ports, index),
            "segments" => return remove(&mut config.segments, index),
            "routes" => return remove(&mut config.routes, index),
            _ => {}
        }
        let nat = found(config.nat.as_mut())?;
        match caller.text(list)? {
            "pools" => remove(&mut nat.pools, index),
            "source" => remove(&mut nat.source, index),
            "destination" => remove(&mut nat.destination, index),
            _ => Err(Code::NotFound),
        }
    })
}

/// Reads JSON, and tells what is wrong with it.
pub(crate) fn from_json<T: DeserializeOwned>(
    caller: &Caller,
    json: *const c_char,
    length: usize,
    error: *mut *mut c_char,
) -> Outcome<T> {
    if json.is_null() {
        return Err(Code::NullPointer);
    }
    let bytes = caller.slice(json.cast::<u8>(), length)?;
    caller.tell(error, Code::InvalidJson, serde_json::from_slice(bytes))
}

/// The 6 octets of a MAC address.
pub(crate) fn read_mac(caller: &Caller, mac: *const u8) -> Outcome<MacAddr> {
    let octets = caller.slice(mac, 6)?;
    octets.try_into().map(MacAddr).map_err(|_| Code::InvalidArgument)
}

fn segment_of(config: &mut Config, segment: u16) -> Outcome<&mut SegmentConfig> {
    found(config.segments.iter_mut().find(|it| it.id == SegmentId(segment)))
}
