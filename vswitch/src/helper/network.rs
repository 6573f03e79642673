//! Moving a TAP into a pod's network namespace and configuring it there.
//!
//! # Theory of operation
//! A thread that lives for one configuration opens a netlink socket in the helper's namespace, enters the pod's, and
//! opens another one there. `/proc/sys/net` is that of the thread that looks. The defaults for new interfaces are
//! written before the TAP is moved in, because an interface copies them on arrival.

use std::fs;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd as _, OwnedFd};

use futures_util::TryStreamExt as _;
use netstack::addr::MacAddr;
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::packet_route::neighbour::{NeighbourMessage, NeighbourState};
use rtnetlink::packet_route::route::{RouteMessage, RouteScope};
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};

use super::netlink::{connect, enter, failure, in_a_thread, index_of, set_link};
use super::netns::DOCTOR_KNOWS;
use super::protocol::Failure;
use super::spec::{NamespaceSpec, Offload};
use crate::sys;

/// `if_nametoindex("lo")` in every network namespace (`LOOPBACK_IFINDEX`, `include/net/net_namespace.h`).
const LOOPBACK: u32 = 1;

/// Makes the TAP in the calling thread's network namespace; returns its queue and whether it has offload headers.
pub(super) fn make_tap(spec: &NamespaceSpec) -> Result<(OwnedFd, bool), Failure> {
    let refused = |error: io::Error| {
        let mut failure = Failure::system("cannot make a TAP device with /dev/net/tun", &error);
        if let Some(remedy) = tun_remedy(&error) {
            failure.message.push_str(&format!(" ({remedy})"));
        }
        failure.message.push_str(DOCTOR_KNOWS);
        failure
    };
    if spec.offload == Offload::Auto {
        match sys::open_tap(&spec.interface, true) {
            Ok(tap) => return Ok((tap, true)),
            // A kernel that does not know the flag.
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            Err(error) => return Err(refused(error)),
        }
    }
    sys::open_tap(&spec.interface, false).map(|tap| (tap, false)).map_err(refused)
}

/// What to do when `/dev/net/tun` cannot be opened.
pub(crate) fn tun_remedy(error: &io::Error) -> Option<&'static str> {
    let kind = error.kind();
    if kind == io::ErrorKind::PermissionDenied {
        return Some(
            "as root: chmod 0666 /dev/net/tun, what udev does by default; what a process may do with it is decided by \
             its network namespace",
        );
    }
    (kind == io::ErrorKind::NotFound).then_some(
        "as root: modprobe tun; in a container pass the device in, with docker by --device /dev/net/tun",
    )
}

/// Moves the TAP named in `spec` from the calling thread's network namespace into `netns` and configures it there.
/// Returns what is not quite as asked. In a namespace that is not ours nothing else is changed; `foreign` then receives
/// the index that the interface has there, by which to remove it.
pub(super) fn configure(
    spec: &NamespaceSpec,
    netns: &OwnedFd,
    user_namespace: bool,
    foreign: Option<&mut Option<u32>>,
) -> Result<Vec<String>, Failure> {
    in_a_thread(async || configure_in_this_thread(spec, netns, user_namespace, foreign).await)
}

/// Removes the interface with this index from a namespace that lives on. It is no error if it is gone.
pub(super) fn remove(netns: &OwnedFd, index: u32) -> Result<(), Failure> {
    in_a_thread(async || {
        enter(netns)?;
        match connect()?.link().del(index).execute().await {
            Err(rtnetlink::Error::NetlinkError(message))
                if message.to_io().raw_os_error() == Some(libc::ENODEV) =>
            {
                Ok(())
            }
            other => {
                other.map_err(|error| failure("cannot remove the interface of the pod".to_owned(), error))
            }
        }
    })
}

/// Removes what an interface of the namespace has learned of its neighbours.
pub(super) fn forget_neighbors(netns: &OwnedFd, interface: &str) -> Result<(), Failure> {
    in_a_thread(async || {
        enter(netns)?;
        let index = index_of(interface)?;
        let handle = connect()?;
        let what = |error| failure(format!("cannot read the neighbours of {interface}"), error);
        let known: Vec<NeighbourMessage> =
            handle.neighbours().get().execute().try_collect().await.map_err(what)?;
        for neighbor in known {
            let learned = !matches!(neighbor.header.state, NeighbourState::Permanent | NeighbourState::Noarp);
            if neighbor.header.ifindex == index && learned {
                // It may have gone by itself meanwhile.
                let _ = handle.neighbours().del(neighbor).execute().await;
            }
        }
        Ok(())
    })
}

async fn configure_in_this_thread(
    spec: &NamespaceSpec,
    netns: &OwnedFd,
    user_namespace: bool,
    foreign: Option<&mut Option<u32>>,
) -> Result<Vec<String>, Failure> {
    let helper = connect()?;
    let index = index_of(&spec.interface)?;
    enter(netns)?;
    let mut warnings = Vec::new();
    if foreign.is_none() {
        set_defaults(user_namespace, &mut warnings);
    }

    let moved = LinkUnspec::new_with_index(index).setns_by_fd(netns.as_raw_fd()).build();
    set_link(&helper, moved, || {
        format!("cannot move the TAP into the pod (does it have an interface {} already?)", spec.interface)
    })
    .await?;

    let pod = connect()?;
    // The interface may have got another index on its way.
    let index = index_of(&spec.interface)?;
    if let Some(known) = foreign {
        *known = Some(index);
        warn_without_loopback(&mut warnings);
    } else {
        let up = LinkUnspec::new_with_index(LOOPBACK).up().build();
        set_link(&pod, up, || "cannot bring lo up".to_owned()).await?;
    }
    set_interface_options(&spec.interface, &mut warnings);
    let MacAddr(mac) = spec.mac;
    let link = LinkUnspec::new_with_index(index)
        .address(mac.to_vec())
        .mtu(u32::from(spec.mtu))
        .txqueuelen(spec.tx_queue_length)
        .build();
    set_link(&pod, link, || format!("cannot set address {} and MTU {}", spec.mac, spec.mtu)).await?;
    let up = LinkUnspec::new_with_index(index).up().build();
    set_link(&pod, up, || format!("cannot bring {} up", spec.interface)).await?;
    add_addresses(&pod, index, spec).await?;
    let gateways = [spec.gateway_v4.map(IpAddr::V4), spec.gateway_v6.map(IpAddr::V6)];
    for gateway in gateways.into_iter().flatten() {
        add_default_route(&pod, index, gateway, spec.covers(gateway)).await?;
    }
    Ok(warnings)
}

async fn add_addresses(handle: &Handle, index: u32, spec: &NamespaceSpec) -> Result<(), Failure> {
    for network in &spec.addresses {
        let mut request = handle.address().add(index, network.addr(), network.prefix_len());
        if network.addr().is_ipv6() {
            // The switch knows who has which address; a pod must not wait a second to use its own (RFC 4862
            // section 5.4 would have it probe first).
            request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
        }
        request
            .execute()
            .await
            .map_err(|error| failure(format!("cannot add the address {network}"), error))?;
    }
    Ok(())
}

async fn add_default_route(
    handle: &Handle,
    index: u32,
    gateway: IpAddr,
    covered: bool,
) -> Result<(), Failure> {
    let (host, default): (RouteMessage, RouteMessage) = match gateway {
        IpAddr::V4(gateway) => {
            let route = || RouteMessageBuilder::<Ipv4Addr>::new().output_interface(index);
            (
                route().destination_prefix(gateway, 32).scope(RouteScope::Link).build(),
                route().destination_prefix(Ipv4Addr::UNSPECIFIED, 0).gateway(gateway).build(),
            )
        }
        IpAddr::V6(gateway) => {
            let route = || RouteMessageBuilder::<Ipv6Addr>::new().output_interface(index);
            (
                route().destination_prefix(gateway, 128).build(),
                route().destination_prefix(Ipv6Addr::UNSPECIFIED, 0).gateway(gateway).build(),
            )
        }
    };
    if !covered {
        let what = |error| failure(format!("cannot add a host route to the gateway {gateway}"), error);
        handle.route().add(host).execute().await.map_err(what)?;
    }
    let what = |error| failure(format!("cannot add a default route via {gateway}"), error);
    handle.route().add(default).execute().await.map_err(what)
}

/// A namespace that was made by `ip netns add` has a `lo` that is down, and then not even its own addresses answer.
fn warn_without_loopback(warnings: &mut Vec<String>) {
    let Ok(mut interfaces) = nix::ifaddrs::getifaddrs() else { return };
    let up = nix::net::if_::InterfaceFlags::IFF_UP;
    if !interfaces.any(|interface| interface.interface_name == "lo" && interface.flags.contains(up)) {
        warnings.push(
            "lo is down in the existing network namespace, so that programs there reach neither localhost nor the \
             pod's own addresses; `ip link set lo up` in it helps"
                .to_owned(),
        );
    }
}

/// What every interface of the namespace starts with, and the namespace itself.
fn set_defaults(user_namespace: bool, warnings: &mut Vec<String>) {
    for interface in ["all", "default"] {
        set_interface_options(interface, warnings);
    }
    // Everybody may ping. A user namespace that maps one group cannot name others.
    let groups = if user_namespace { "0 0" } else { "0 2147483647" };
    set_option("ipv4/ping_group_range", groups, warnings);
    // As container runtimes have it: a pod's ports are its own, so low ones need no privilege.
    set_option("ipv4/ip_unprivileged_port_start", "0", warnings);
}

/// IPv6 is on, addresses are ours alone to give and are used without probing.
fn set_interface_options(interface: &str, warnings: &mut Vec<String>) {
    let options = [
        ("disable_ipv6", "0"),
        ("accept_ra", "0"),
        ("autoconf", "0"),
        ("accept_dad", "0"),
        ("router_solicitations", "0"),
    ];
    for (option, value) in options {
        set_option(&format!("ipv6/conf/{interface}/{option}"), value, warnings);
    }
}

fn set_option(option: &str, value: &str, warnings: &mut Vec<String>) {
    match fs::write(format!("/proc/sys/net/{option}"), value) {
        // A kernel without IPv6 has no such option; asking for IPv6 addresses then fails by itself.
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            warnings.push(format!("net/{option} is not {value}: {error}"));
        }
        _ => {}
    }
}
