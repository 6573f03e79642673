//! The kernel's own way between two network namespaces, beside ours: a bridge and two veths.
//!
//! # Theory of operation
//! A process that runs in the first pod makes a network namespace that is its own alone, and in it the bridge and both veths, of
//! which it gives each pod an end. When it ends, the namespace goes, and with it the veths, at both ends. It needs no rights but
//! those over the two pods, so it works in a user namespace as well.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use nix::sched::{CloneFlags, unshare};
use rtnetlink::{LinkBridge, LinkUnspec, LinkVeth};

use crate::helper::Failure;
use crate::helper::netlink::{connect, enter, failure, in_a_thread, index_of, set_link};

/// What the two pods have there; a prefix that no cluster of ours has.
pub(super) const ADDRESSES: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 77, 0, 2), Ipv4Addr::new(10, 77, 0, 3)];
const PREFIX_LENGTH: u8 = 24;
const BRIDGE: &str = "bridge0";
/// A veth's end in its pod.
const INNER: &str = "kernel0";

/// Joins the pod that this runs in and the one whose network namespace is standard input, says so on `out`, and holds what it has
/// made until the process ends.
///
/// # Errors
/// What the kernel refuses.
pub(crate) fn hold(out: &mut impl Write) -> Result<Infallible, Box<dyn std::error::Error>> {
    let pods: [OwnedFd; 2] =
        [File::open("/proc/thread-self/ns/net")?.into(), io::stdin().as_fd().try_clone_to_owned()?];
    unshare(CloneFlags::CLONE_NEWNET)?;
    // Where the module for it is loaded, bridged packets would pass the hooks of IP as well.
    let _ = fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "0");
    in_a_thread(async || {
        connect()?
            .link()
            .add(LinkBridge::new(BRIDGE).build())
            .execute()
            .await
            .map_err(|error| cannot_make("bridge", error))
    })?;
    for (pod, address) in pods.iter().zip(ADDRESSES) {
        in_a_thread(async || join(pod, address).await)?;
    }
    writeln!(out, "ready")?;
    out.flush()?;
    loop {
        std::thread::park();
    }
}

/// Gives a pod one end of a veth, with this address.
async fn join(pod: &OwnedFd, address: Ipv4Addr) -> Result<(), Failure> {
    let outer = format!("port{}", address.octets()[3]);
    let node = connect()?;
    node.link()
        .add(LinkVeth::new(&outer, INNER).build())
        .execute()
        .await
        .map_err(|error| cannot_make("veth", error))?;
    let port = LinkUnspec::new_with_index(index_of(&outer)?).controller(index_of(BRIDGE)?).up().build();
    set_link(&node, port, || format!("cannot put {outer} on the bridge")).await?;
    let moved = LinkUnspec::new_with_index(index_of(INNER)?).setns_by_fd(pod.as_raw_fd()).build();
    set_link(&node, moved, || "cannot move a veth into a pod".to_owned()).await?;
    enter(pod)?;
    let (inside, index) = (connect()?, index_of(INNER)?);
    let up = LinkUnspec::new_with_index(index).up().build();
    set_link(&inside, up, || "cannot bring a veth up".to_owned()).await?;
    let what = |error| failure(format!("cannot add the address {address}"), error);
    inside.address().add(index, address.into(), PREFIX_LENGTH).execute().await.map_err(what)
}

fn cannot_make(what: &str, error: rtnetlink::Error) -> Failure {
    failure(format!("cannot make a {what} (a kernel without them may get them by `modprobe {what}`)"), error)
}
