//! The way out by the machine's own stack: an interface in the network namespace of this process, and routes to what is
//! behind it. All of it goes with the TAP, however this process ends.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netstack::addr::{IpNet, MacAddr};
use netstack::device::tap::{Mode, Tap};
use rtnetlink::packet_route::address::AddressHeaderFlags;
use rtnetlink::packet_route::route::RouteMessage;
use rtnetlink::{Handle, LinkUnspec, RouteMessageBuilder};

use crate::helper::Failure;
use crate::helper::netlink::{connect, failure, in_a_thread, index_of, set_link};

/// A prefix, and the next hop to it.
pub(super) type Route = (IpNet, IpAddr);

/// Makes the interface, brings it up, and gives it its addresses and routes. Its MAC address is the edge's, so that whoever
/// knows that goes on with either.
///
/// # Errors
/// Why there is none, in a sentence.
pub(super) fn make(
    name: &str,
    mac: MacAddr,
    mtu: u16,
    addresses: &[IpNet],
    routes: &[Route],
) -> Result<Tap, String> {
    let mut tap = Tap::open(name, Mode::Offload).map_err(|error| error.to_string())?;
    tap.set_mtu(usize::from(mtu));
    let configured = in_a_thread(async || {
        let handle = connect()?;
        let index = index_of(name)?;
        let link = LinkUnspec::new_with_index(index).address(mac.0.to_vec()).mtu(u32::from(mtu)).up().build();
        set_link(&handle, link, || format!("cannot bring {name} up")).await?;
        for network in addresses {
            let mut request = handle.address().add(index, network.addr(), network.prefix_len());
            if network.addr().is_ipv6() {
                // There is nobody else on that link.
                request.message_mut().header.flags |= AddressHeaderFlags::Nodad;
            }
            let what = |error| failure(format!("cannot add the address {network} to {name}"), error);
            request.execute().await.map_err(what)?;
        }
        add(&handle, index, routes).await
    });
    configured.map_err(|failure| failure.to_string())?;
    Ok(tap)
}

/// Gives the interface other routes.
///
/// # Errors
/// What could not be done, in a sentence.
pub(super) fn reroute(name: &str, gone: &[Route], new: &[Route]) -> Result<(), String> {
    let done = in_a_thread(async || {
        let handle = connect()?;
        let index = index_of(name)?;
        for route in gone {
            let what = |error| failure(format!("cannot remove the machine's route to {}", route.0), error);
            handle.route().del(message(index, route)).execute().await.map_err(what)?;
        }
        add(&handle, index, new).await
    });
    done.map_err(|failure| failure.to_string())
}

async fn add(handle: &Handle, index: u32, routes: &[Route]) -> Result<(), Failure> {
    for route in routes {
        let what = |error| failure(format!("cannot add a route of the machine to {}", route.0), error);
        handle.route().add(message(index, route)).execute().await.map_err(what)?;
    }
    Ok(())
}

fn message(index: u32, (to, by): &Route) -> RouteMessage {
    match to {
        IpNet::V4(to) => {
            let route = RouteMessageBuilder::<Ipv4Addr>::new().output_interface(index);
            let route = route.destination_prefix(to.addr(), to.prefix_len());
            match by {
                IpAddr::V4(by) => route.gateway(*by).build(),
                IpAddr::V6(_) => route.build(),
            }
        }
        IpNet::V6(to) => {
            let route = RouteMessageBuilder::<Ipv6Addr>::new().output_interface(index);
            let route = route.destination_prefix(to.addr(), to.prefix_len());
            match by {
                IpAddr::V6(by) => route.gateway(*by).build(),
                IpAddr::V4(_) => route.build(),
            }
        }
    }
}
