//! Where we differ from Linux on purpose. Each line names the case, what we do, and the clause that says so. A line that
//! no case needs fails the test: an exception must not outlive its reason.

use crate::oracle::Frames;

/// What comes out of ours where it is not what comes out of Linux.
pub(crate) enum Ours {
    /// Nothing at all.
    Nothing,
    /// As many frames as Linux sends, with other octets.
    Different,
    /// This many frames.
    Frames(usize),
    /// The same frames; what is tracked is not the same.
    Tracked,
}

impl Ours {
    /// Whether that is what came out of ours.
    pub(crate) fn allows(&self, linux: &Frames, ours: &Frames) -> bool {
        match self {
            Self::Nothing => ours.is_empty(),
            Self::Different => ours.len() == linux.len(),
            Self::Frames(count) => ours.len() == *count,
            Self::Tracked => ours == linux,
        }
    }
}

/// Case, our behaviour, reason.
pub(crate) const EXCEPTIONS: &[(&str, Ours, &str)] = &[
    (
        "v4 neighbour that does not exist",
        Ours::Different,
        "RFC 1812 section 4.3.2.3: an error quotes the original datagram; Linux quotes it with its TTL already lowered",
    ),
    (
        "v6 neighbour that does not exist",
        Ours::Different,
        "as for IPv4; and RFC 4861 section 7.2.2 leaves the source of a solicitation open: ours is the address on the \
         target's prefix, Linux's the link-local one",
    ),
    (
        "v6 from own address",
        Ours::Nothing,
        "a packet from the router's own address that comes from outside is spoofed (RFC 1812 section 5.3.7 for IPv4, \
         where Linux drops it too); both families alike",
    ),
    (
        "v4 padded",
        Ours::Nothing,
        "a UDP packet without a UDP header belongs to no flow, so no policy or translation could judge it (RFC 3128 \
         section 4.2 drops what hides the ports)",
    ),
    ("v4 truncated udp", Ours::Nothing, "as above: no whole UDP header (RFC 3128)"),
    ("v4 truncated tcp", Ours::Nothing, "as above: no whole TCP header (RFC 3128)"),
    (
        "v4 source class e",
        Ours::Nothing,
        "RFC 1812 section 5.3.7: a router SHOULD NOT forward packets from class E; Linux has forwarded them since 2.6.25",
    ),
    (
        "v4 source link-local",
        Ours::Nothing,
        "RFC 3927 section 7: a router MUST NOT forward a packet with a link-local source or destination",
    ),
    (
        "v4 destination class e",
        Ours::Nothing,
        "RFC 1812 section 5.3.7: not forwarded whatever the routes say; Linux looks for a route and reports that there is \
         none",
    ),
    (
        "v6 routing header type 0",
        Ours::Nothing,
        "RFC 5095 section 4.2: filtering routing header type 0 is what it recommends; Linux forwards it to others",
    ),
    (
        "v6 destination link-local",
        Ours::Different,
        "RFC 4291 section 2.5.6: a router must not forward link-local destinations; Linux looks for the neighbour on the \
         same link, where the sender could have found it itself",
    ),
    (
        "v6 destination unspecified",
        Ours::Nothing,
        "RFC 4291 section 2.5.2: never a destination; dropped as a martian, not as a missing route",
    ),
    (
        "nd solicitation by unicast",
        Ours::Different,
        "RFC 4861 section 4.4: the answer to a unicast solicitation SHOULD include the target's link-layer address; Linux \
         leaves it out",
    ),
    (
        "bridge 01-80-c2-00-00-00",
        Ours::Nothing,
        "IEEE 802.1Q table 8-1: never forwarded; Linux forwards BPDUs when spanning tree is off",
    ),
    (
        "bridge malformed ipv4 inside",
        Ours::Frames(1),
        "IEEE 802.1Q section 8.6: a bridge forwards whatever the payload; Linux's bridge looks inside for netfilter",
    ),
    ("bridge malformed ipv6 inside a multicast", Ours::Frames(2), "as above, to both other ports"),
];
