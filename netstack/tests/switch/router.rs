//! IP4-1 to IP4-11 and IP6-5 to IP6-9: what a router does with a packet, in both families alike.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use netstack::config::{Limits, ReversePath, RouteTarget};
use netstack::verdict::{DropReason, Fate, Origin};
use smoltcp::wire;

use crate::lab::{Change, Counter, Lab, Out, counted, dropped, entered, left};
use crate::packets::{
    BROADCAST, IcmpMessage, Packet, as_routed, icmp, mac_from, mac_to, sound, with_wrong_checksum,
};
use crate::world::{
    FAMILIES, FAR, Family, GUEST, POD_A, POD_B, PODS, UPLINK, acquainted, everybody, introduce, ip,
    reverse_path, route, via, with,
};

fn forwarded(from: u16, to: u16) -> [Change; 2] {
    [entered(from, Fate::Forwarded), left(to, Origin::Forwarded)]
}

/// Dropped, and told to the sender.
fn refused(port: u16, reason: DropReason) -> [Change; 2] {
    [dropped(port, reason), left(port, Origin::Originated)]
}

fn pods_router(family: Family) -> IpAddr {
    ip(family.of("10.0.0.1", "fd00::1"))
}

/// The error about `sent` among `out`, with what every error must have: sent from the router on the link where the
/// packet came from, back to its sender, quoting it as it came.
fn error_about(sent: &[u8], out: &[Out]) -> IcmpMessage {
    assert_eq!(out.len(), 1);
    let frame = &out[0].bytes;
    assert_eq!((mac_to(frame), mac_from(frame)), (mac_from(sent), mac_to(sent)));
    let error = icmp(frame);
    let limit = if error.source.is_ipv4() { 576 } else { 1280 };
    assert!(frame.len() - 14 <= limit);
    let quoted = error.body.len();
    assert_eq!(error.body, sent[14..14 + quoted]);
    assert!(14 + quoted == sent.len() || frame.len() - 14 == limit, "as much as fits");
    error
}

#[test]
fn ip4_2_a_routed_packet_has_new_addresses_and_one_hop_less() {
    let mut lab = acquainted(everybody());
    for family in FAMILIES {
        for hop_limit in [2, 64, 255] {
            let mut packet = POD_A.via_router(FAR.ip(family));
            packet.hop_limit = hop_limit;
            for sent in
                [packet.udp(1, 2, b"payload"), packet.tcp(1, 2, b"payload"), packet.echo(1, 2, b"payload")]
            {
                let out = lab.send(POD_A.port, &sent);
                assert_eq!(out[0].bytes, as_routed(&sent, UPLINK, FAR.mac));
                sound(&out[0].bytes);
                lab.expect(forwarded(POD_A.port, FAR.port));
            }
        }
    }
}

#[test]
fn ip4_2_a_packet_to_the_same_segment_by_the_router_goes_out_again() {
    let mut lab = acquainted(everybody());
    for family in FAMILIES {
        let sent = POD_A.via_router(POD_B.ip(family)).udp(1, 2, b"x");
        assert_eq!(lab.send(POD_A.port, &sent)[0].bytes, as_routed(&sent, PODS, POD_B.mac));
        lab.expect(forwarded(POD_A.port, POD_B.port));
        // Even to itself.
        let sent = GUEST.via_router(GUEST.ip(family)).udp(1, 2, b"x");
        assert_eq!(lab.send(GUEST.port, &sent)[0].bytes, as_routed(&sent, PODS, GUEST.mac));
        lab.expect(forwarded(GUEST.port, GUEST.port));
    }
}

#[test]
fn ip4_2_a_wrong_upper_checksum_is_not_repaired() {
    let mut lab = acquainted(everybody());
    for family in FAMILIES {
        let sent = with_wrong_checksum(POD_A.via_router(FAR.ip(family)).udp(1, 2, b"x"), family.of(40, 60));
        assert_eq!(lab.send(POD_A.port, &sent)[0].bytes, as_routed(&sent, UPLINK, FAR.mac));
        lab.expect(forwarded(POD_A.port, FAR.port));
    }
}

#[test]
fn ip4_2_ttl_exceeded() {
    let mut lab = acquainted(everybody());
    for family in FAMILIES {
        for hop_limit in [0, 1] {
            let mut packet = POD_A.via_router(FAR.ip(family));
            packet.hop_limit = hop_limit;
            let sent = packet.udp(1, 2, &[7; 1400]);
            let error = error_about(&sent, &lab.send(POD_A.port, &sent));
            assert_eq!((error.kind, error.code, error.rest), family.of((11, 0, 0), (3, 0, 0)));
            assert_eq!((error.source, error.destination), (pods_router(family), POD_A.ip(family)));
            lab.expect(refused(POD_A.port, DropReason::TtlExceeded));
        }
    }
}

#[test]
fn ip4_1_malformed_headers_are_dropped_in_silence() {
    let mut lab = acquainted(everybody());
    let good = POD_A.via_router(FAR.ip(Family::V4)).udp(1, 2, b"payload");
    let mut cases = Vec::new();
    for (at, value, reason) in [
        (14, 0x55, DropReason::Ipv4Version),
        (14, 0x44, DropReason::Ipv4HeaderLength),
        (14, 0x4f, DropReason::Ipv4HeaderLength),
        (17, 19, DropReason::Ipv4TotalLength),
        (16, 0xff, DropReason::Ipv4TotalLength),
        (24, !good[24], DropReason::Ipv4Checksum),
    ] {
        let mut bad = good.clone();
        bad[at] = value;
        cases.push((bad, reason));
    }
    cases.push((good[..30].to_vec(), DropReason::Ipv4Truncated));
    let good = POD_A.via_router(FAR.ip(Family::V6)).udp(1, 2, b"payload");
    for (at, value, reason) in [
        (14, 0x50, DropReason::Ipv6Version),
        (18, 0xff, DropReason::Ipv6PayloadLength),
        (20, 0, DropReason::Ipv6ExtensionTruncated),
    ] {
        let mut bad = good.clone();
        bad[at] = value;
        cases.push((bad, reason));
    }
    cases.push((good[..50].to_vec(), DropReason::Ipv6Truncated));
    for (bad, reason) in cases {
        assert!(lab.send(POD_A.port, &bad).is_empty());
        lab.expect([dropped(POD_A.port, reason)]);
    }
}

#[test]
fn ip4_6_martians() {
    let mut lab = acquainted(everybody());
    let sources: [&[&str]; 2] = [
        &["0.1.2.3", "127.0.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "10.0.0.1", "10.1.0.1"],
        &["::1", "::", "ff02::1", "::ffff:10.0.0.9", "fd00::1", "fd00:1::1"],
    ];
    let destinations: [&[&str]; 2] =
        [&["0.1.2.3", "127.0.0.1", "240.0.0.1", "10.1.0.255", "10.1.0.0"], &["::1", "::", "::ffff:10.0.0.9"]];
    for family in FAMILIES {
        for source in *family.of(&sources[0], &sources[1]) {
            let mut packet = FAR.via_router(POD_A.ip(family));
            packet.source = ip(source);
            lab.send(FAR.port, &packet.udp(1, 2, b"x"));
            lab.expect([dropped(FAR.port, DropReason::MartianSource)]);
        }
        for destination in *family.of(&destinations[0], &destinations[1]) {
            lab.send(POD_A.port, &POD_A.via_router(ip(destination)).udp(1, 2, b"x"));
            lab.expect([dropped(POD_A.port, DropReason::MartianDestination)]);
        }
        let group = ip(family.of("239.1.2.3", "ff05::1"));
        lab.send(POD_A.port, &POD_A.via_router(group).udp(1, 2, b"x"));
        lab.expect([dropped(POD_A.port, DropReason::MulticastNotRouted)]);
    }
}

#[test]
fn ip6_9_link_local_packets_stay_on_their_link() {
    let mut lab = acquainted(everybody());
    let mut packet = GUEST.via_router(FAR.ip(Family::V6));
    packet.source = GUEST.mac.link_local().into();
    let sent = packet.udp(1, 2, b"x");
    let error = error_about(&sent, &lab.send(GUEST.port, &sent));
    assert_eq!((error.kind, error.code), (1, 2), "beyond the scope of the source address");
    assert_eq!(error.source, IpAddr::V6(PODS.link_local()));
    lab.expect(refused(GUEST.port, DropReason::BeyondScope));
    let sent = GUEST.via_router(FAR.mac.link_local().into()).udp(1, 2, b"x");
    error_about(&sent, &lab.send(GUEST.port, &sent));
    lab.expect(refused(GUEST.port, DropReason::BeyondScope));
    // RFC 3927 section 7 asks for no error.
    for (source, destination) in
        [("169.254.1.2", FAR.v4), (GUEST.v4, "169.254.9.9"), (GUEST.v4, "255.255.255.255")]
    {
        let mut packet = GUEST.via_router(ip(destination));
        packet.source = ip(source);
        assert!(lab.send(GUEST.port, &packet.udp(1, 2, b"x")).is_empty());
        lab.expect([dropped(GUEST.port, DropReason::BeyondScope)]);
    }
}

#[test]
fn ip4_8_routes_that_refuse() {
    let mut lab = acquainted(with(|c| {
        c.routes = ["10.4.0.0/16", "fd00:4::/32"].map(|p| route(p, RouteTarget::Blackhole)).to_vec();
        c.routes.extend(["10.5.0.0/16", "fd00:5::/32"].map(|p| route(p, RouteTarget::Unreachable)));
        c.routes.extend(["10.6.0.0/16", "fd00:6::/32"].map(|p| route(p, RouteTarget::Prohibit)));
    }));
    for family in FAMILIES {
        let to = |v4, v6| POD_A.via_router(ip(family.of(v4, v6))).udp(1, 2, b"x");
        for (sent, reason, answer) in [
            (to("10.4.0.1", "fd00:4::1"), DropReason::RouteBlackhole, None),
            (to("10.5.0.1", "fd00:5::1"), DropReason::RouteUnreachable, Some(family.of((3, 1), (1, 0)))),
            (to("10.6.0.1", "fd00:6::1"), DropReason::RouteProhibit, Some(family.of((3, 13), (1, 1)))),
            (to("10.7.0.1", "fd00:7::1"), DropReason::NoRoute, Some(family.of((3, 0), (1, 0)))),
        ] {
            let out = lab.send(POD_A.port, &sent);
            match answer {
                None => lab.expect([dropped(POD_A.port, reason)]),
                Some(answer) => {
                    let error = error_about(&sent, &out);
                    assert_eq!((error.kind, error.code), answer);
                    assert_eq!(error.source, pods_router(family));
                    lab.expect(refused(POD_A.port, reason));
                }
            }
        }
    }
}

#[test]
fn ip4_10_the_longest_prefix_wins() {
    let mut lab = acquainted(with(|c| {
        for (prefix, target) in [
            ("10.9.0.0/16", RouteTarget::Blackhole),
            ("10.9.1.0/24", RouteTarget::Via(vec![via(1, FAR.v4)])),
            ("10.9.1.7/32", RouteTarget::Prohibit),
            ("fd09::/32", RouteTarget::Blackhole),
            ("fd09:0:1::/48", RouteTarget::Via(vec![via(1, FAR.v6)])),
            ("fd09:0:1::7/128", RouteTarget::Prohibit),
        ] {
            c.routes.push(route(prefix, target));
        }
    }));
    for family in FAMILIES {
        let to = |v4, v6| POD_A.via_router(ip(family.of(v4, v6))).udp(1, 2, b"x");
        lab.send(POD_A.port, &to("10.9.2.1", "fd09:0:2::1"));
        lab.expect([dropped(POD_A.port, DropReason::RouteBlackhole)]);
        lab.send(POD_A.port, &to("10.9.1.1", "fd09:0:1::1"));
        lab.expect(forwarded(POD_A.port, FAR.port));
        lab.send(POD_A.port, &to("10.9.1.7", "fd09:0:1::7"));
        lab.expect(refused(POD_A.port, DropReason::RouteProhibit));
    }
}

#[test]
fn ip4_10_flows_spread_over_next_hops_and_keep_theirs() {
    let config = with(|c| {
        c.routes[0].target =
            RouteTarget::Via(["10.1.0.2", "10.1.0.3", "10.1.0.4"].map(|a| via(1, a)).to_vec());
        c.routes[1].target =
            RouteTarget::Via(["fd00:1::2", "fd00:1::3", "fd00:1::4"].map(|a| via(1, a)).to_vec());
    });
    let mut lab = Lab::new(config);
    for (last, v4, v6) in
        [(2, "10.1.0.2", "fd00:1::2"), (3, "10.1.0.3", "fd00:1::3"), (4, "10.1.0.4", "fd00:1::4")]
    {
        let mac = netstack::addr::MacAddr([2, 0, 0, 0, 7, last]);
        introduce(&mut lab, &crate::world::Host { mac, v4, v6, ..FAR });
    }
    for family in FAMILIES {
        let mut flows: BTreeMap<u8, u32> = BTreeMap::new();
        for port in 0..300 {
            let mut chosen = Vec::new();
            for payload in [&b"first"[..], b"and another"] {
                let mut packet = POD_A.via_router(ip(family.of("203.0.113.9", "2001:db8::9")));
                packet.id = payload.len() as u16;
                chosen.push(mac_to(&lab.send(POD_A.port, &packet.udp(port, 53, payload))[0].bytes).0[5]);
            }
            assert_eq!(chosen[0], chosen[1], "a flow keeps its path");
            *flows.entry(chosen[0]).or_default() += 1;
        }
        assert!(flows.len() == 3 && flows.values().all(|&n| (60..=140).contains(&n)), "{flows:?}");
    }
    lab.settle();
}

#[test]
fn ip4_11_reverse_path_filter() {
    for family in FAMILIES {
        // From the uplink: its own prefix, a pod's, one that the default route would lead to (the uplink again).
        let sources = [
            (FAR.ip(family), [true, true, true]),
            (ip(family.of("10.0.0.77", "fd00::77")), [true, false, true]),
            (ip(family.of("203.0.113.1", "2001:db8::1")), [true, true, true]),
            (ip(family.of("10.4.0.1", "fd00:4::1")), [true, false, false]),
        ];
        for (index, filter) in
            [ReversePath::Off, ReversePath::Strict, ReversePath::Loose].into_iter().enumerate()
        {
            let mut lab = acquainted(with(|c| {
                reverse_path(c, 1, filter);
                c.routes.extend(["10.4.0.0/16", "fd00:4::/32"].map(|p| route(p, RouteTarget::Blackhole)));
            }));
            for (source, passes) in sources {
                let mut packet = FAR.via_router(POD_A.ip(family));
                packet.source = source;
                lab.send(FAR.port, &packet.udp(1, 2, b"x"));
                match passes[index] {
                    true => lab.expect(forwarded(FAR.port, POD_A.port)),
                    false => lab.expect([dropped(FAR.port, DropReason::ReversePath)]),
                }
                // What an interface accepts does not depend on where the packet goes.
                packet.destination = ip(family.of("10.1.0.1", "fd00:1::1"));
                packet.to = UPLINK;
                lab.send(FAR.port, &packet.echo(1, 2, b"x"));
                match passes[index] {
                    true => {
                        lab.expect([entered(FAR.port, Fate::Consumed), left(FAR.port, Origin::Originated)])
                    }
                    false => lab.expect([dropped(FAR.port, DropReason::ReversePath)]),
                }
            }
        }
    }
    // A link-local source is on every link.
    let mut lab = acquainted(with(|c| reverse_path(c, 1, ReversePath::Strict)));
    let mut packet = FAR.via_router(UPLINK.link_local().into());
    packet.source = FAR.mac.link_local().into();
    lab.send(FAR.port, &packet.echo(1, 2, b"x"));
    lab.expect([entered(FAR.port, Fate::Consumed), left(FAR.port, Origin::Originated)]);
}

#[test]
fn ip6_8_what_does_not_fit_is_told_with_the_mtu() {
    for family in FAMILIES {
        for mtu in [1280, 1400] {
            let mut lab = acquainted(with(|c| c.segments[1].mtu = mtu));
            let overhead = family.of(28, 48);
            let packet = POD_A.via_router(FAR.ip(family));
            let fits = packet.udp(1, 2, &vec![7; usize::from(mtu) - overhead]);
            assert_eq!(lab.send(POD_A.port, &fits)[0].bytes, as_routed(&fits, UPLINK, FAR.mac));
            lab.expect(forwarded(POD_A.port, FAR.port));
            let longer = packet.udp(1, 2, &vec![7; usize::from(mtu) - overhead + 1]);
            let error = error_about(&longer, &lab.send(POD_A.port, &longer));
            assert_eq!(
                (error.kind, error.code, error.rest),
                family.of((3, 4, u32::from(mtu)), (2, 0, u32::from(mtu)))
            );
            lab.expect(refused(POD_A.port, DropReason::PacketTooBig));
        }
    }
}

/// Puts IPv4 fragments together again.
fn reassembled(fragments: &[Vec<u8>]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (i, fragment) in fragments.iter().enumerate() {
        sound(fragment);
        let packet = wire::Ipv4Packet::new_checked(&fragment[14..]).unwrap();
        assert_eq!(usize::from(packet.frag_offset()), payload.len());
        assert_eq!(packet.more_frags(), i + 1 < fragments.len());
        payload.extend_from_slice(packet.payload());
    }
    payload
}

#[test]
fn ip4_5_without_df_the_packet_is_cut() {
    for mtu in [68, 576, 1280] {
        let mut lab = Lab::new(with(|c| {
            c.segments[1].mtu = mtu;
            c.segments[1].gateway.as_mut().unwrap().addresses.remove(1);
            c.routes.remove(1);
            if let netstack::config::Station::Managed { addresses, .. } = &mut c.ports[4].station {
                addresses.remove(1);
            }
        }));
        introduce(&mut lab, &FAR);
        let mut packet = POD_A.via_router(FAR.ip(Family::V4));
        packet.dont_fragment = false;
        let sent = packet.udp(1, 2, &(0..1400).map(|i| i as u8).collect::<Vec<u8>>());
        let out = lab.send(POD_A.port, &sent);
        assert!(out.iter().all(|o| o.port == FAR.port && o.bytes.len() - 14 <= usize::from(mtu)));
        let fragments: Vec<Vec<u8>> = out.into_iter().map(|o| o.bytes).collect();
        assert!(fragments.iter().all(|f| mac_to(f) == FAR.mac && mac_from(f) == UPLINK && f[22] == 63));
        assert_eq!(reassembled(&fragments), sent[34..]);
        lab.expect([
            entered(POD_A.port, Fate::Forwarded),
            counted(Counter::Replaced(FAR.port, Origin::Forwarded)),
            left(FAR.port, Origin::Fragment) * fragments.len() as u64,
        ]);
    }
}

#[test]
fn ip4_5_a_parked_packet_is_cut_as_well() {
    let mut lab = Lab::new(with(|c| c.segments[1].mtu = 1280));
    let mut packet = POD_A.via_router(FAR.ip(Family::V4));
    packet.dont_fragment = false;
    let sent = packet.udp(1, 2, &[7; 1400]);
    lab.send(POD_A.port, &sent);
    lab.settle();
    let answer = crate::packets::tell(FAR.mac, FAR.ip(Family::V4), UPLINK, ip("10.1.0.1"));
    let out: Vec<Vec<u8>> = lab.send(FAR.port, &answer).into_iter().map(|o| o.bytes).collect();
    assert_eq!(reassembled(&out), sent[34..]);
    lab.expect([
        entered(FAR.port, Fate::Consumed),
        counted(Counter::Replaced(FAR.port, Origin::Unparked)),
        left(FAR.port, Origin::Fragment) * 2,
    ]);
}

/// A packet that runs out of hops, as it would be told about if it were an ordinary one.
fn dying(change: impl FnOnce(&mut Packet)) -> Packet {
    let mut packet = POD_A.via_router(FAR.ip(Family::V4));
    packet.hop_limit = 1;
    change(&mut packet);
    packet
}

#[test]
fn ip4_3_never_an_error_about_an_error_or_a_later_fragment() {
    let mut lab = acquainted(everybody());
    for family in FAMILIES {
        let packet = dying(|p| {
            p.source = POD_A.ip(family);
            p.destination = FAR.ip(family);
        });
        let quoted = POD_A.via_router(FAR.ip(family)).udp(1, 2, b"x")[14..].to_vec();
        for kind in family.of([3, 4, 5, 11, 12].to_vec(), [1, 2, 3, 4, 100].to_vec()) {
            assert!(lab.send(POD_A.port, &packet.icmp(kind, 0, [0; 4], &quoted)).is_empty());
            lab.expect([dropped(POD_A.port, DropReason::TtlExceeded)]);
        }
        // About a query there is one.
        let sent = packet.echo(1, 2, b"x");
        error_about(&sent, &lab.send(POD_A.port, &sent));
        lab.expect(refused(POD_A.port, DropReason::TtlExceeded));
    }
    let mut later = dying(|p| p.dont_fragment = false).protocol(17, &[7; 64]);
    wire::Ipv4Packet::new_unchecked(&mut later[14..]).set_frag_offset(64);
    wire::Ipv4Packet::new_unchecked(&mut later[14..]).fill_checksum();
    assert!(lab.send(POD_A.port, &later).is_empty());
    lab.expect([dropped(POD_A.port, DropReason::TtlExceeded)]);
}

#[test]
fn ip4_3_never_an_error_about_what_everybody_got() {
    let mut lab = acquainted(everybody());
    for family in FAMILIES {
        // By broadcast of the link layer a packet does not even reach the router.
        let mut packet = POD_A.via_router(FAR.ip(family));
        packet.to = BROADCAST;
        packet.hop_limit = 1;
        let out = lab.send(POD_A.port, &packet.udp(1, 2, b"x"));
        assert!(out.iter().all(|o| o.port != POD_A.port));
        lab.settle();
        let group = ip(family.of("239.1.2.3", "ff0e::1"));
        assert!(lab.send(POD_A.port, &POD_A.via_router(group).udp(1, 2, b"x")).is_empty());
        lab.settle();
    }
    // From a broadcast address there is nobody to tell.
    let packet = Packet { source: ip("10.0.0.255"), ..dying(|_| {}) };
    let sent = Packet { from: GUEST.mac, ..packet }.udp(1, 2, b"x");
    assert!(lab.send(GUEST.port, &sent).is_empty());
    lab.expect([dropped(GUEST.port, DropReason::TtlExceeded)]);
}

#[test]
fn ip4_4_errors_are_few_per_destination_and_in_all() {
    for family in FAMILIES {
        let limits = Limits { icmp_errors_per_second: 10, ..Limits::default() };
        let mut lab = Lab::with_limits(everybody(), limits);
        let dead = |n: u16| {
            let mut packet = GUEST.via_router(FAR.ip(family));
            packet.source = ip(&family.of(format!("10.0.0.{}", 50 + n), format!("fd00::{:x}", 50 + n)));
            packet.hop_limit = 1;
            packet.udp(1, 2, b"x")
        };
        let answers: usize = (0..20).map(|_| lab.send(GUEST.port, &dead(0)).len()).sum();
        assert_eq!(answers, 6, "a burst to one");
        lab.now += Duration::from_secs(1);
        let answers: usize = (0..20).map(|_| lab.send(GUEST.port, &dead(0)).len()).sum();
        assert_eq!(answers, 1, "one per second to one");
        lab.now += Duration::from_secs(100);
        let answers: usize = (0..200).map(|n| lab.send(GUEST.port, &dead(n)).len()).sum();
        assert_eq!(answers, 50, "a burst to all");
        lab.now += Duration::from_secs(1);
        let answers: usize = (0..200).map(|n| lab.send(GUEST.port, &dead(n)).len()).sum();
        assert_eq!(answers, 10, "ten per second to all");
        lab.expect([
            dropped(GUEST.port, DropReason::TtlExceeded) * 440,
            left(GUEST.port, Origin::Originated) * 67,
        ]);
    }
}

#[test]
fn ip4_8_nobody_listens_on_the_router() {
    // Without the machine behind the node-local link, which would get all this.
    let mut lab = acquainted(with(|c| drop(c.ports.remove(4))));
    for family in FAMILIES {
        let router = POD_A.via_router(pods_router(family));
        let udp = router.udp(1, 2, b"x");
        let error = error_about(&udp, &lab.send(POD_A.port, &udp));
        assert_eq!((error.kind, error.code), family.of((3, 3), (1, 4)));
        lab.expect(refused(POD_A.port, DropReason::NoListener));
        let unknown = router.protocol(253, &[7; 20]);
        let error = error_about(&unknown, &lab.send(POD_A.port, &unknown));
        assert_eq!((error.kind, error.code, error.rest), family.of((3, 2, 0), (4, 1, 6)));
        lab.expect(refused(POD_A.port, DropReason::NoListener));
        let out = lab.send(POD_A.port, &router.tcp_syn(1000, 80));
        sound(&out[0].bytes);
        let segment = wire::TcpPacket::new_checked(&out[0].bytes[family.of(34, 54)..]).unwrap();
        assert!(segment.rst() && segment.ack_number().0 == 1001 && segment.src_port() == 80);
        lab.expect(refused(POD_A.port, DropReason::NoListener));
        // What is broken is not answered.
        lab.send(POD_A.port, &with_wrong_checksum(udp, family.of(40, 60)));
        lab.expect([dropped(POD_A.port, DropReason::TransportChecksum)]);
        // An unknown query is ignored.
        lab.send(POD_A.port, &router.icmp(family.of(17, 200), 0, [0; 4], b"x"));
        lab.expect([dropped(POD_A.port, DropReason::NoListener)]);
    }
}

#[test]
fn ip4_9_options() {
    let mut lab = acquainted(everybody());
    let with_options = |options: &[u8]| {
        let mut frame = POD_A.via_router(FAR.ip(Family::V4)).udp(1, 2, b"x");
        frame.splice(34..34, options.iter().copied());
        frame[14] += (options.len() / 4) as u8;
        frame[17] += options.len() as u8;
        wire::Ipv4Packet::new_unchecked(&mut frame[14..]).fill_checksum();
        frame
    };
    // Record route, timestamp and router alert pass as they are.
    for options in [[7, 7, 4, 0, 0, 0, 0, 0], [68, 8, 5, 0, 0, 0, 0, 0], [148, 4, 0, 0, 1, 1, 1, 0]] {
        let sent = with_options(&options);
        assert_eq!(lab.send(POD_A.port, &sent)[0].bytes, as_routed(&sent, UPLINK, FAR.mac));
        lab.expect(forwarded(POD_A.port, FAR.port));
    }
    for source_route in [131, 137] {
        lab.send(POD_A.port, &with_options(&[source_route, 7, 4, 10, 1, 0, 2, 0]));
        lab.expect([dropped(POD_A.port, DropReason::SourceRoute)]);
    }
    for (options, pointer) in [([7, 1, 4, 0, 0, 0, 0, 0], 20), ([1, 7, 9, 0, 0, 0, 0, 0], 21)] {
        let sent = with_options(&options);
        let error = error_about(&sent, &lab.send(POD_A.port, &sent));
        assert_eq!((error.kind, error.code, error.rest >> 24), (12, 0, pointer));
        lab.expect(refused(POD_A.port, DropReason::Ipv4Options));
    }
}

#[test]
fn ip6_7_extension_headers() {
    let mut lab = acquainted(everybody());
    // Next header, then eight octets of each extension header, then what is behind them.
    let with_headers = |first: u8, headers: &[u8]| {
        let mut frame = POD_A.via_router(FAR.ip(Family::V6)).udp(1, 2, b"x");
        frame[20] = first;
        frame.splice(54..54, headers.iter().copied());
        frame[19] += headers.len() as u8;
        frame
    };
    // Hop-by-hop with padding, destination options, routing header type 4 at its end, an atomic fragment.
    for (first, headers) in [
        (0, vec![17, 0, 1, 4, 0, 0, 0, 0]),
        (60, vec![17, 0, 1, 4, 0, 0, 0, 0]),
        (43, vec![17, 0, 4, 0, 0, 0, 0, 0]),
        (44, vec![17, 0, 0, 0, 0, 0, 0, 9]),
        (0, vec![60, 0, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0]),
    ] {
        let sent = with_headers(first, &headers);
        assert_eq!(lab.send(POD_A.port, &sent)[0].bytes, as_routed(&sent, UPLINK, FAR.mac));
        lab.expect(forwarded(POD_A.port, FAR.port));
    }
    for (first, headers, reason) in [
        (43, vec![17, 0, 0, 1, 0, 0, 0, 0], DropReason::Ipv6RoutingHeader),
        (60, vec![0, 0, 1, 4, 0, 0, 0, 0, 17, 0, 1, 4, 0, 0, 0, 0], DropReason::Ipv6ExtensionOrder),
        (0, vec![17, 0, 0x41, 4, 0, 0, 0, 0], DropReason::Ipv6ExtensionOrder),
        (44, vec![17, 0, 0, 1, 0, 0, 0, 9], DropReason::FragmentMalformed),
        (60, [60, 0, 1, 4, 0, 0, 0, 0].repeat(9), DropReason::Ipv6ExtensionChain),
    ] {
        lab.send(POD_A.port, &with_headers(first, &headers));
        lab.expect([dropped(POD_A.port, reason)]);
    }
}

#[test]
fn echo_to_any_address_of_the_router_from_any_segment() {
    let mut lab = acquainted(everybody());
    for family in FAMILIES {
        for own in [("10.0.0.1", "fd00::1"), ("10.1.0.1", "fd00:1::1")] {
            let own = ip(family.of(own.0, own.1));
            for host in [POD_A, GUEST, FAR] {
                let mut packet = host.via_router(own);
                packet.hop_limit = 1;
                let out = lab.send(host.port, &packet.echo(77, 3, b"hello"));
                let reply = icmp(&out[0].bytes);
                assert_eq!((mac_from(&out[0].bytes), mac_to(&out[0].bytes)), (host.router, host.mac));
                assert_eq!((reply.source, reply.destination), (own, host.ip(family)));
                assert_eq!((reply.kind, reply.code, reply.rest), (family.of(0, 129), 0, 77 << 16 | 3));
                assert_eq!(reply.body, b"hello");
                lab.expect([entered(host.port, Fate::Consumed), left(host.port, Origin::Originated)]);
            }
        }
        let broken =
            with_wrong_checksum(POD_A.via_router(pods_router(family)).echo(1, 2, b"x"), family.of(36, 56));
        lab.send(POD_A.port, &broken);
        lab.expect([dropped(POD_A.port, DropReason::TransportChecksum)]);
    }
    let mut packet = GUEST.via_router(PODS.link_local().into());
    packet.source = GUEST.mac.link_local().into();
    let reply = icmp(&lab.send(GUEST.port, &packet.echo(1, 2, b"x"))[0].bytes);
    assert_eq!(reply.source, IpAddr::V6(PODS.link_local()));
    lab.settle();
}

#[test]
fn frames_to_the_router_that_are_no_packets() {
    let mut lab = acquainted(everybody());
    lab.send(POD_A.port, &crate::packets::ethernet(POD_A.mac, PODS, 0x88b5, 46));
    lab.expect([dropped(POD_A.port, DropReason::NotForUs)]);
}

#[test]
fn padding_of_one_link_does_not_get_onto_the_next() {
    let mut lab = acquainted(everybody());
    for family in FAMILIES {
        let sent = POD_A.via_router(FAR.ip(family)).udp(1, 2, b"x");
        let mut padded = sent.clone();
        padded.extend_from_slice(b"secret of the last frame");
        assert_eq!(lab.send(POD_A.port, &padded)[0].bytes, as_routed(&sent, UPLINK, FAR.mac));
        lab.expect(forwarded(POD_A.port, FAR.port));
    }
}
