//! Frame bytes to fields, for a host: the shared parser, and what only a host refuses.

use crate::parse::{self, Link, Network};
use crate::verdict::DropReason;

/// Reads a frame down to the upper layer's ports. A host is on one untagged link, and reads IPv4 options only if they
/// are whole.
pub(super) fn frame(bytes: &[u8]) -> Result<(Link, Network), DropReason> {
    let link = parse::link(bytes)?;
    if link.tag.is_some() {
        return Err(DropReason::VlanNotAllowed);
    }
    match parse::network(bytes, &link)? {
        Network::Ip(ip) if ip.option_problem.is_some() => Err(DropReason::Ipv4Options),
        network @ (Network::Arp(_) | Network::Ip(_) | Network::Other) => Ok((link, network)),
    }
}
