//! What a configuration says of tracking and translation. Rules of a switch that runs are changed by installing a
//! configuration that says otherwise: what does not differ is kept, and connections stay.

use core::ffi::c_char;
use core::net::IpAddr;

use netstack::addr::{IpNet, SegmentId};
use netstack::config::Config;
use netstack::config::nat::{
    DestinationNat, DestinationRule, NatConfig, NatMatch, PoolConfig, PortRange, SourceNat, SourceRule,
};

use crate::address::{netstack_endpoint, parse};
use crate::config::{from_json, netstack_config};
use crate::result::{Code, netstack_result};

fn nat_of(config: &mut Config) -> &mut NatConfig {
    config.nat.get_or_insert_with(NatConfig::default)
}

/// Has connections tracked, as services and translation need it, with the times that the RFCs recommend. The functions
/// that add pools and rules do this by themselves.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_config_track(config: *mut netstack_config) -> netstack_result {
    boundary!(caller, {
        nat_of(&mut *caller.write(config)?);
        Ok(())
    })
}

/// Adds external addresses whose ports are given out, under a name that rules use. `addresses` are `count` texts.
/// ALREADY_EXISTS: there is a pool of this name.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_config_add_pool(
    config: *mut netstack_config,
    name: *const c_char,
    addresses: *const *const c_char,
    count: usize,
) -> netstack_result {
    boundary!(caller, {
        let mut config = caller.write(config)?;
        let name = caller.text(name)?;
        let read = |text: &*const c_char| parse::<IpAddr>(caller.text(*text)?);
        let addresses = caller.slice(addresses, count)?.iter().map(read).collect::<Result<_, _>>()?;
        let nat = nat_of(&mut config);
        if nat.pools.iter().any(|pool| pool.name == name) {
            return Err(Code::AlreadyExists);
        }
        nat.pools.push(PoolConfig::new(name, addresses));
        Ok(())
    })
}

/// Adds a rule: new connections from a prefix (NULL: from anywhere) that leave by a segment get ports of a pool.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_config_add_masquerade(
    config: *mut netstack_config,
    sources: *const c_char,
    egress: u16,
    pool: *const c_char,
) -> netstack_result {
    boundary!(caller, {
        let mut config = caller.write(config)?;
        let sources = caller.optional_text(sources)?.map(parse::<IpNet>).transpose()?;
        let action = SourceNat::Pool(caller.text(pool)?.to_owned());
        let matches = NatMatch {
            egress: Some(SegmentId(egress)),
            sources: sources.into_iter().collect(),
            ..NatMatch::default()
        };
        nat_of(&mut config).source.push(SourceRule { matches, action });
        Ok(())
    })
}

/// Adds a rule: new connections of an IP protocol (6 for TCP, 17 for UDP) to one endpoint go to another.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_config_add_forward(
    config: *mut netstack_config,
    protocol: u8,
    from: *const netstack_endpoint,
    to: *const netstack_endpoint,
) -> netstack_result {
    boundary!(caller, {
        let mut config = caller.write(config)?;
        let (from, to) = (caller.value(from)?.to_socket()?, caller.value(to)?.to_socket()?);
        let only = |port| Some(PortRange { first: port, last: port });
        let matches = NatMatch {
            destinations: vec![from.ip().into()],
            protocol: Some(protocol),
            destination_ports: only(from.port()),
            ..NatMatch::default()
        };
        let action = DestinationNat::To { address: Some(to.ip()), ports: only(to.port()) };
        nat_of(&mut config).destination.push(DestinationRule { matches, action });
        Ok(())
    })
}

/// Adds a rule or a pool from JSON: `list` is "source", "destination" or "pools", and the JSON is that of one member of
/// this list in the configuration's "nat".
/// INVALID_JSON: `error` says what is wrong. NOT_FOUND: no such list.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_config_add_nat_json(
    config: *mut netstack_config,
    list: *const c_char,
    json: *const c_char,
    length: usize,
    error: *mut *mut c_char,
) -> netstack_result {
    boundary!(caller, {
        let mut config = caller.write(config)?;
        match caller.text(list)? {
            "source" => {
                let rule = from_json(caller, json, length, error)?;
                nat_of(&mut config).source.push(rule);
            }
            "destination" => {
                let rule = from_json(caller, json, length, error)?;
                nat_of(&mut config).destination.push(rule);
            }
            "pools" => {
                let pool = from_json(caller, json, length, error)?;
                nat_of(&mut config).pools.push(pool);
            }
            _ => return Err(Code::NotFound),
        }
        Ok(())
    })
}
