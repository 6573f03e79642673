//! What a configuration says of a port beyond its segment.

use core::ffi::c_char;
use core::net::IpAddr;

use netstack::addr::{PortId, SegmentId};
use netstack::config::{Config, PortConfig, Station, VlanMode};
use netstack::frame::OffloadFeatures;

use crate::address::parse;
use crate::caller::Outcome;
use crate::config::{netstack_config, read_mac};
use crate::result::{Code, found, netstack_result};

/// What devices take over from software, to be added up.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum netstack_device_flag {
    /// Nothing.
    None = 0,
    /// Finishes L4 checksums.
    Checksum = 1,
    /// Cuts TCP super-frames over IPv4.
    Tso4 = 2,
    /// Cuts TCP super-frames over IPv6.
    Tso6 = 4,
    /// Cuts UDP super-frames.
    Uso = 8,
    /// All of it.
    All = 15,
}

/// Flags as the stack has them.
pub(crate) fn features(flags: u32) -> Outcome<OffloadFeatures> {
    if flags & !(netstack_device_flag::All as u32) != 0 {
        return Err(Code::InvalidArgument);
    }
    let has = |flag: netstack_device_flag| flags & flag as u32 != 0;
    Ok(OffloadFeatures {
        checksum: has(netstack_device_flag::Checksum),
        tso4: has(netstack_device_flag::Tso4),
        tso6: has(netstack_device_flag::Tso6),
        uso: has(netstack_device_flag::Uso),
    })
}

fn port_of(config: &mut Config, port: u16) -> Outcome<&mut PortConfig> {
    found(config.ports.iter_mut().find(|it| it.id == PortId(port)))
}

/// Says that exactly one station is behind a port, with this MAC address of 6 octets: the switch answers ARP and neighbour
/// discovery for it, and drops what it sends under another name. Addresses are added afterwards.
/// NOT_FOUND: no such port.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_config_set_station(
    config: *mut netstack_config,
    port: u16,
    mac: *const u8,
) -> netstack_result {
    boundary!(caller, {
        let mut config = caller.write(config)?;
        let mac = read_mac(caller, mac)?;
        port_of(&mut config, port)?.station = Station::Managed { mac, addresses: Vec::new() };
        Ok(())
    })
}

/// Gives the station behind a port an address, such as "10.0.0.2".
/// NOT_FOUND: no such port, or anybody may be behind it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_config_add_station_address(
    config: *mut netstack_config,
    port: u16,
    address: *const c_char,
) -> netstack_result {
    boundary!(caller, {
        let mut config = caller.write(config)?;
        let address = parse::<IpAddr>(caller.text(address)?)?;
        match &mut port_of(&mut config, port)?.station {
            Station::Managed { addresses, .. } => addresses.push(address),
            Station::Foreign => return Err(Code::NotFound),
        }
        Ok(())
    })
}

/// Makes frames of a VLAN (1 to 4094) on a port belong to a segment; they come and leave tagged. The port's own segment
/// stays that of untagged frames.
/// NOT_FOUND: no such port.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_config_add_vlan(
    config: *mut netstack_config,
    port: u16,
    vlan: u16,
    segment: u16,
) -> netstack_result {
    boundary!(caller, {
        let mut config = caller.write(config)?;
        let port = port_of(&mut config, port)?;
        let member = (vlan, SegmentId(segment));
        match &mut port.vlan {
            VlanMode::Access(native) => {
                port.vlan = VlanMode::Trunk { native: Some(*native), tagged: vec![member] };
            }
            VlanMode::Trunk { tagged, .. } => tagged.push(member),
        }
        Ok(())
    })
}

/// Says what the device behind a port takes over from software, as a sum of NETSTACK_DEVICE_FLAG_*. Without it frames
/// leave finished: checksums computed, no longer than the MTU. Of frames that leave unfinished only a batch says in what state
/// they are, so take them by netstack_switch_poll_batch.
/// NOT_FOUND: no such port.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_config_set_offload(
    config: *mut netstack_config,
    port: u16,
    flags: u32,
) -> netstack_result {
    boundary!(caller, {
        let mut config = caller.write(config)?;
        port_of(&mut config, port)?.offload = features(flags)?;
        Ok(())
    })
}
