//! The closed list of what can happen to a frame.
//!
//! Every frame that enters has exactly one [`Fate`]; every frame that leaves has exactly one [`Origin`]. Neither list
//! has a catch-all, and no `match` on them has a wildcard arm: a new case must be named and counted everywhere.

macro_rules! closed_list {
    ($(#[$doc:meta])* $name:ident { $($(#[doc = $text:literal])+ $variant:ident = $label:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
        pub enum $name { $($(#[doc = $text])+ $variant,)+ }

        impl $name {
            /// Every case, in order of declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name that counters and commands show.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $label),+ }
            }

            /// What it means, in a sentence or two.
            pub const fn describe(self) -> &'static str {
                match self { $(Self::$variant => concat!($($text),+)),+ }
            }

            /// The position in [`Self::ALL`].
            pub const fn index(self) -> usize {
                self as usize
            }
        }

        impl core::fmt::Display for $name {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.pad(self.name())
            }
        }
    };
}

closed_list! {
    /// Why a frame that entered went no further.
    DropReason {
        // Ports.
        /// The port is not named by the installed configuration, so it carries nothing.
        PortClosed = "port_closed",
        /// Shorter than an Ethernet header (14 octets).
        FrameTooShort = "frame_too_short",
        /// Longer than the port's MTU allows, its Ethernet header and tags aside.
        FrameTooLong = "frame_too_long",
        /// The source MAC address is a group address or all zero.
        SourceMacInvalid = "source_mac_invalid",
        /// An 802.1Q tag is cut off.
        VlanTruncated = "vlan_truncated",
        /// VLAN identifier 4095 is reserved (IEEE 802.1Q table 9-2).
        VlanReserved = "vlan_reserved",
        /// The port does not carry this VLAN, or not untagged frames.
        VlanNotAllowed = "vlan_not_allowed",
        /// A managed port sent a frame with a MAC address that is not its own.
        SpoofedMac = "spoofed_mac",
        /// A managed port sent a packet with a source address that is not its own.
        SpoofedAddress = "spoofed_address",
        /// A managed port claimed another's address by ARP.
        SpoofedArp = "spoofed_arp",
        /// A managed port claimed another's address by neighbour discovery.
        SpoofedNeighbor = "spoofed_neighbor",

        // Malformed packets.
        /// An ARP packet is cut off or is not Ethernet/IPv4.
        ArpMalformed = "arp_malformed",
        /// Less than an IPv4 header (RFC 1812 section 5.2.2).
        Ipv4Truncated = "ipv4_truncated",
        /// EtherType IPv4, but another version in the header.
        Ipv4Version = "ipv4_version",
        /// The IPv4 header length is under 20 octets or over the packet's.
        Ipv4HeaderLength = "ipv4_header_length",
        /// The IPv4 total length is under the header's or over what arrived.
        Ipv4TotalLength = "ipv4_total_length",
        /// The IPv4 header checksum is wrong.
        Ipv4Checksum = "ipv4_checksum",
        /// An IPv4 option has an impossible length.
        Ipv4Options = "ipv4_options",
        /// A fragment reaches beyond 65,535 octets, or a non-final one is not a multiple of 8 octets.
        FragmentMalformed = "fragment_malformed",
        /// Less than an IPv6 header.
        Ipv6Truncated = "ipv6_truncated",
        /// EtherType IPv6, but another version in the header.
        Ipv6Version = "ipv6_version",
        /// The IPv6 payload length is over what arrived, or 0 with a payload.
        Ipv6PayloadLength = "ipv6_payload_length",
        /// An IPv6 extension header is cut off.
        Ipv6ExtensionTruncated = "ipv6_extension_truncated",
        /// More IPv6 extension headers than this stack follows.
        Ipv6ExtensionChain = "ipv6_extension_chain",
        /// A hop-by-hop header that is not first (RFC 8200 section 4.1), or an unknown option that asks for a drop.
        Ipv6ExtensionOrder = "ipv6_extension_order",
        /// A type 0 routing header (RFC 5095).
        Ipv6RoutingHeader = "ipv6_routing_header",
        /// The first fragment does not hold all headers (RFC 7112).
        Ipv6HeadersFragmented = "ipv6_headers_fragmented",
        /// Less than a TCP header.
        TcpTruncated = "tcp_truncated",
        /// The TCP data offset is under 20 octets or over the segment's.
        TcpHeaderLength = "tcp_header_length",
        /// Less than a UDP header.
        UdpTruncated = "udp_truncated",
        /// The UDP length is under 8 octets or over what arrived.
        UdpLength = "udp_length",
        /// Less than an ICMP header.
        IcmpTruncated = "icmp_truncated",
        /// Less than an ICMPv6 header.
        Icmpv6Truncated = "icmpv6_truncated",
        /// Less than an SCTP header.
        SctpTruncated = "sctp_truncated",
        /// The L4 checksum is wrong, of a packet to an address of ours, of one that would begin a connection, or of a TCP
        /// segment that would change one's state.
        TransportChecksum = "transport_checksum",
        /// A neighbour discovery message fails RFC 4861 section 6.1 or 7.1 (hop limit, code, checksum, options).
        NeighborDiscoveryInvalid = "neighbor_discovery_invalid",

        // Bridge.
        /// Addressed to 01-80-C2-00-00-00 … 0F, which no bridge forwards (IEEE 802.1Q table 8-1).
        ReservedMulticast = "reserved_multicast",
        /// The destination is on the port the frame came from.
        SameIngress = "same_ingress",
        /// A flood with no other port to go to.
        NoOtherPort = "no_other_port",
        /// A unicast to a routed segment's other station, which this switch does not bridge.
        NotForUs = "not_for_us",
        /// An announcement about a managed pod's address from someone else.
        ManagedAddressClaimed = "managed_address_claimed",
        /// More broadcast, multicast and unknown unicast came in by the port than its storm control lets through.
        StormControl = "storm_control",
        /// The port is blocked because it is part of a loop.
        LoopBlocked = "loop_blocked",
        /// From an isolated port to an isolated port.
        PortIsolated = "port_isolated",

        // Router.
        /// A source address that must not be forwarded (RFC 1812 section 5.3.7, RFC 4291).
        MartianSource = "martian_source",
        /// A destination address that must not be forwarded.
        MartianDestination = "martian_destination",
        /// The source would not be reached through the port the packet came from.
        ReversePath = "reverse_path",
        /// IPv4 loose or strict source routing (RFC 7126 section 4.3 and 4.4).
        SourceRoute = "source_route",
        /// A link-local or link-scoped packet that would have to leave its link (RFC 4291 section 2.5.6).
        BeyondScope = "beyond_scope",
        /// A multicast or broadcast packet for the router: multicast is not routed.
        MulticastNotRouted = "multicast_not_routed",
        /// TTL or hop limit ran out.
        TtlExceeded = "ttl_exceeded",
        /// No route to the destination.
        NoRoute = "no_route",
        /// A blackhole route.
        RouteBlackhole = "route_blackhole",
        /// An unreachable route.
        RouteUnreachable = "route_unreachable",
        /// A prohibit route.
        RouteProhibit = "route_prohibit",
        /// Does not fit the next link and must not be fragmented here.
        PacketTooBig = "packet_too_big",
        /// Too many frames already wait for this neighbour, or for all of them.
        NeighborQueueFull = "neighbor_queue_full",
        /// No room for another neighbour.
        NeighborTableFull = "neighbor_table_full",
        /// The neighbour did not answer.
        NeighborFailed = "neighbor_failed",
        /// For an address of ours that is still being probed for duplicates (RFC 4862 section 5.4, RFC 5227 section 2.1).
        AddressTentative = "address_tentative",
        /// For an address of ours, protocol or port with nobody behind it.
        NoListener = "no_listener",

        // Connections.
        /// Fits no connection and may begin none: TCP flags or numbers that make no sense there, a wrong SCTP tag.
        ConnectionInvalid = "connection_invalid",
        /// An ICMP error about a packet of no connection (RFC 5508 REQ-4), or an answer that nobody asked for.
        IcmpUnrelated = "icmp_unrelated",
        /// An ICMP error that is damaged or quotes too little (RFC 5508 REQ-3).
        IcmpQuoteInvalid = "icmp_quote_invalid",
        /// There are as many connections as there may be, and none that could make room.
        ConnectionTableFull = "connection_table_full",
        /// The answers would belong to another connection.
        ConnectionClash = "connection_clash",
        /// No external port is free (RFC 4787 REQ-3).
        PortsExhausted = "ports_exhausted",
        /// The sender has as many external ports as it may have (RFC 6888 REQ-4).
        PortQuota = "port_quota",
        /// For an external address, and nobody inside has asked for it or is published there.
        NoMapping = "no_mapping",
        /// A packet that cannot be translated: a fragment of SCTP, whose ports its checksum covers.
        TranslationUnfit = "translation_unfit",
        /// A fragment that overlaps another, repeats one, or leaves its headers to the next (RFC 5722, RFC 3128).
        FragmentRefused = "fragment_refused",
        /// A fragment that had to make room for others while it waited for the first of its datagram.
        FragmentsFull = "fragments_full",
        /// A fragment of whose datagram the first did not come in time.
        FragmentTimeout = "fragment_timeout",
        /// A fragment whose first one was dropped.
        FragmentOrphaned = "fragment_orphaned",

        // Services.
        /// A service that has no backend for clients like this one.
        ServiceNoBackend = "service_no_backend",
        /// A service whose source ranges leave this client out.
        ServiceSourceRange = "service_source_range",
        /// For an address that is kept for services, and that none has.
        ServiceAddressFree = "service_address_free",
        /// For a service's address, and a protocol or port that it does not serve.
        ServicePortClosed = "service_port_closed",
        /// Of a connection whose backend is gone, to a service that has such connections reset.
        ServiceBackendGone = "service_backend_gone",

        // Policies.
        /// A policy does not let the sender open such a connection, or the receiver be asked for it; or no longer.
        PolicyDenied = "policy_denied",

        // Consumption that ends badly.
        /// An offload state that does not fit the frame it came with.
        OffloadInvalid = "offload_invalid",
    }
}

closed_list! {
    /// What became of a frame that entered.
    Fate {
        /// Sent on to one port, bridged or routed.
        Forwarded = "forwarded",
        /// Sent on to every other port of its segment.
        Flooded = "flooded",
        /// Was for the switch itself: ARP, neighbour discovery, echo, a gratuitous announcement.
        Consumed = "consumed",
        /// Waits for a neighbour's address.
        Parked = "parked",
        /// Went no further; see [`DropReason`].
        Dropped = "dropped",
    }
}

closed_list! {
    /// Where a frame that leaves came from.
    Origin {
        /// A frame that entered, sent on.
        Forwarded = "forwarded",
        /// One copy of a flood.
        FloodCopy = "flood_copy",
        /// Cut from a super-frame for a port that does not take those.
        Segment = "segment",
        /// Cut from a datagram for a smaller MTU.
        Fragment = "fragment",
        /// Made here: ARP, neighbour discovery, ICMP, RST.
        Originated = "originated",
        /// A parked frame whose neighbour answered.
        Unparked = "unparked",
    }
}

closed_list! {
    /// Why a frame on its way out was not queued. Counted per [`Origin`].
    EgressDrop {
        /// The port's output queue is full.
        QueueFull = "queue_full",
        /// The frame is longer than the port's MTU allows.
        TooBig = "too_big",
        /// The port was closed while the frame was on its way.
        PortClosed = "port_closed",
        /// The frame could not be finished for a port without offload.
        OffloadInvalid = "offload_invalid",
        /// The port is blocked because it is part of a loop.
        LoopBlocked = "loop_blocked",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn names_are_unique_and_every_case_is_described() {
        let mut names: Vec<_> = DropReason::ALL.iter().map(|r| r.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), DropReason::ALL.len());
        for (i, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), i);
            assert!(reason.describe().len() > 10, "{reason}");
        }
    }
}
