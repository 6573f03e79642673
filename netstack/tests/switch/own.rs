//! ARP-5, ARP-7, IP6-3 and IP6-4: own addresses probed and defended, proxy answers, router advertisements.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use netstack::addr::{IpNet, MacAddr, PortId, SegmentId};
use netstack::config::{AdvertisedPrefix, Config, RouteTarget, RouterAdvertisement};
use netstack::event::Event;
use netstack::verdict::{DropReason, Fate, Origin};
use smoltcp::wire;

use crate::lab::{Lab, Out, dropped, entered, left, ports};
use crate::packets::{
    BROADCAST, Packet, announce, ask, asked_for, discovery, mac_from, mac_to, sound, tell, told,
};
use crate::world::{
    FAMILIES, FAR, Family, GUEST, Host, OTHER, POD_A, POD_B, PODS, UPLINK, acquainted, everybody, ip,
    managed, net, route, via, with,
};

const SECOND: Duration = Duration::from_secs(1);
const ALL_NODES: MacAddr = MacAddr([0x33, 0x33, 0, 0, 0, 1]);

fn router(family: Family) -> IpAddr {
    ip(family.of("10.0.0.1", "fd00::1"))
}

/// An ARP announcement or unsolicited advertisement: address and MAC address.
fn announced(frame: &[u8]) -> Option<(IpAddr, MacAddr)> {
    sound(frame);
    if frame[12..14] == [8, 6] {
        let packet = wire::ArpPacket::new_checked(&frame[14..]).ok()?;
        let address: [u8; 4] = packet.source_protocol_addr().try_into().ok()?;
        let fits = packet.operation() == wire::ArpOperation::Request
            && packet.target_protocol_addr() == address
            && mac_to(frame) == BROADCAST;
        return fits.then(|| (address.into(), MacAddr(packet.source_hardware_addr().try_into().unwrap())));
    }
    let (address, mac, to) = told(frame)?;
    // Unsolicited and overriding.
    (to == ALL_NODES && frame[58] & 0x60 == 0x20).then_some((address, mac))
}

fn conflict(host: &Host, address: IpAddr) -> Event {
    Event::AddressConflict { segment: SegmentId(0), address, mac: host.mac, port: PortId(host.port) }
}

#[test]
fn arp_5_claims_to_addresses_in_use_are_defended_once_in_ten_seconds() {
    for family in FAMILIES {
        for (address, owner) in [(POD_A.ip(family), POD_A.mac), (router(family), PODS)] {
            let mut lab = acquainted(everybody());
            for frame in [
                announce(GUEST.mac, address),
                ask(GUEST.mac, address, OTHER.ip(family)),
                tell(GUEST.mac, address, POD_B.mac, POD_B.ip(family)),
            ] {
                let out = lab.send(GUEST.port, &frame);
                assert_eq!(ports(&out), [GUEST.port, OTHER.port], "who may have heard it");
                assert!(out.iter().all(|o| announced(&o.bytes) == Some((address, owner))));
                assert_eq!(lab.events(), [conflict(&GUEST, address)]);
                lab.expect([
                    dropped(GUEST.port, DropReason::ManagedAddressClaimed),
                    left(GUEST.port, Origin::Originated),
                    left(OTHER.port, Origin::Originated),
                ]);
                // However often it is said again: no war.
                for _ in 0..1000 {
                    lab.now += Duration::from_millis(9);
                    lab.send(GUEST.port, &frame);
                }
                assert_eq!(lab.events(), []);
                lab.expect([dropped(GUEST.port, DropReason::ManagedAddressClaimed) * 1000]);
                lab.now += SECOND;
            }
            assert_eq!((lab.switch.conflicts().claims, lab.switch.conflicts().defended), (3003, 3));
        }
    }
}

#[test]
fn arp_5_a_probe_for_an_address_in_use_is_answered_and_told() {
    for family in FAMILIES {
        let mut lab = Lab::new(everybody());
        lab.offer(GUEST.port, &ask(GUEST.mac, family.unspecified(), POD_A.ip(family)));
        assert_eq!(lab.events(), [conflict(&GUEST, POD_A.ip(family))]);
        assert_eq!(told(&lab.drain()[0].bytes).unwrap().1, POD_A.mac);
        lab.expect([entered(GUEST.port, Fate::Consumed), left(GUEST.port, Origin::Originated)]);
    }
}

#[test]
fn arp_5_what_we_said_ourselves_is_no_conflict() {
    for family in FAMILIES {
        let mut lab = Lab::new(everybody());
        for (mac, address) in [(PODS, router(family)), (POD_A.mac, POD_A.ip(family))] {
            lab.send(GUEST.port, &announce(mac, address));
            lab.expect([dropped(GUEST.port, DropReason::ManagedAddressClaimed)]);
        }
        assert_eq!(lab.events(), []);
    }
}

/// Everybody, with a router that probes its addresses on the pods' segment.
fn probing() -> Config {
    with(|c| c.segments[0].gateway.as_mut().unwrap().probe = true)
}

fn is_probe(frame: &[u8], address: IpAddr) -> bool {
    let anonymous = match address {
        IpAddr::V4(_) => frame[28..32] == [0; 4],
        IpAddr::V6(_) => frame[22..38] == [0; 16],
    };
    anonymous && asked_for(frame, address).is_some() && mac_from(frame) == PODS
}

#[test]
fn arp_5_ip6_3_an_address_is_probed_then_announced_and_used() {
    for family in FAMILIES {
        let mut lab = Lab::new(probing());
        let question = ask(POD_A.mac, POD_A.ip(family), router(family));
        let echo = POD_A.via_router(router(family)).echo(1, 2, b"x");
        // Not yet: nobody is told of it, and it takes nothing.
        assert_eq!(ports(&lab.send(POD_A.port, &question)), [GUEST.port, OTHER.port]);
        lab.settle();
        lab.send(POD_A.port, &echo);
        lab.expect([dropped(POD_A.port, DropReason::AddressTentative)]);
        assert!(lab.explain(POD_A.port, &echo).outcome.contains("address_tentative"));
        // Addresses without probing are used all the time.
        assert!(
            told(
                &lab.send(FAR.port, &ask(FAR.mac, FAR.ip(family), ip(family.of("10.1.0.1", "fd00:1::1"))))[0]
                    .bytes
            )
            .is_some()
        );
        let out = lab.wait(20 * SECOND);
        let events = lab.events();
        let sent = |port: u16| out.iter().filter(move |o| o.port == port).map(|o| &o.bytes[..]);
        for port in [GUEST.port, OTHER.port] {
            let probes = sent(port).filter(|f| is_probe(f, router(family))).count();
            assert_eq!(probes, family.of(3, 1));
            let announcements = sent(port).filter(|f| announced(f) == Some((router(family), PODS))).count();
            assert_eq!(announcements, 2);
        }
        for address in [router(Family::V4), router(Family::V6), PODS.link_local().into()] {
            assert!(events.contains(&Event::AddressReady { segment: SegmentId(0), address }), "{address}");
        }
        assert!(out.iter().all(|o| [GUEST.port, OTHER.port].contains(&o.port)), "managed stations are known");
        lab.settle();
        assert_eq!(told(&lab.send(POD_A.port, &question)[0].bytes).unwrap().1, PODS);
        assert_eq!(ports(&lab.send(POD_A.port, &echo)), [POD_A.port]);
        lab.settle();
    }
}

#[test]
fn arp_5_ip6_3_an_address_that_somebody_has_or_wants_stays_unused() {
    for family in FAMILIES {
        for heard in [
            announce(GUEST.mac, router(family)),
            ask(GUEST.mac, family.unspecified(), router(family)),
            tell(GUEST.mac, router(family), OTHER.mac, OTHER.ip(family)),
        ] {
            let mut lab = Lab::new(probing());
            lab.send(OTHER.port, &announce(OTHER.mac, OTHER.ip(family)));
            lab.wait(SECOND);
            lab.settle();
            assert!(lab.explain(GUEST.port, &heard).outcome.contains("is taken"));
            let out = lab.send(GUEST.port, &heard);
            assert!(!out.is_empty() && out.iter().all(|o| o.bytes == heard), "a message between others");
            let lost = Event::DuplicateAddress {
                segment: SegmentId(0),
                address: router(family),
                mac: GUEST.mac,
                port: PortId(GUEST.port),
            };
            assert_eq!(lab.events(), [lost]);
            let out = lab.wait(100 * SECOND);
            assert!(out.iter().all(|o| asked_for(&o.bytes, router(family)).is_none()));
            assert!(out.iter().all(|o| announced(&o.bytes).is_none_or(|(a, _)| a != router(family))));
            lab.settle();
            // Here it is an address like any other: the question for it goes to where its owner may be.
            assert_eq!(
                ports(&lab.send(POD_A.port, &ask(POD_A.mac, POD_A.ip(family), router(family)))),
                [GUEST.port, OTHER.port]
            );
            let out = lab.send(FAR.port, &FAR.via_router(router(family)).udp(1, 2, b"x"));
            assert!(out.iter().all(|o| asked_for(&o.bytes, router(family)).is_some()), "the router asks too");
            assert_eq!(ports(&out), [GUEST.port, OTHER.port]);
            let asks_as = family.of("10.1.0.1", "fe80::ff:fe00:ee00");
            let source = match family {
                Family::V4 => IpAddr::from(<[u8; 4]>::try_from(&out[0].bytes[28..32]).unwrap()),
                Family::V6 => IpAddr::from(<[u8; 16]>::try_from(&out[0].bytes[22..38]).unwrap()),
            };
            assert_eq!(source, ip(asks_as), "never as the one it has lost");
            lab.settle();
        }
    }
}

#[test]
fn arp_5_a_new_configuration_probes_what_is_new_and_nothing_else() {
    let mut lab = Lab::new(everybody());
    // In use already: switching probing on does not take it away.
    lab.install(probing());
    assert_eq!(lab.switch.poll_timeout(), None);
    let mut more = probing();
    more.segments[0].gateway.as_mut().unwrap().addresses.push(net("10.9.0.1/24"));
    lab.install(more.clone());
    lab.settle();
    let probes = lab.wait(20 * SECOND);
    assert!(probes.iter().all(|o| {
        is_probe(&o.bytes, ip("10.9.0.1")) || announced(&o.bytes) == Some((ip("10.9.0.1"), PODS))
    }));
    assert_eq!(probes.len(), 2 * (3 + 2));
    lab.settle();
    lab.install(more);
    assert_eq!(lab.switch.poll_timeout(), None);
    lab.settle();
}

/// Everybody, with a router that answers for what it routes elsewhere, and a station of the pods' prefix that lives
/// behind the uplink.
fn proxying() -> Config {
    with(|c| {
        c.segments[0].proxy_neighbors = true;
        c.routes.push(route("10.0.0.77/32", RouteTarget::Via(vec![via(1, FAR.v4)])));
        c.routes.push(route("fd00::77/128", RouteTarget::Via(vec![via(1, FAR.v6)])));
        c.routes.push(route("10.4.0.0/16", RouteTarget::Blackhole));
        c.routes.push(route("fd00:4::/32", RouteTarget::Blackhole));
    })
}

fn answers(out: &[Out], target: IpAddr) -> bool {
    match out {
        [only] => told(&only.bytes).is_some_and(|(address, mac, _)| (address, mac) == (target, PODS)),
        _ => false,
    }
}

#[test]
fn arp_7_the_router_answers_for_what_leaves_by_another_segment() {
    for family in FAMILIES {
        for (host, target) in [
            (POD_A, FAR.ip(family)),
            (GUEST, FAR.ip(family)),
            (POD_A, ip(family.of("203.0.113.1", "2001:db8::1"))),
            // In the segment's own prefix, but with a host route elsewhere.
            (POD_A, ip(family.of("10.0.0.77", "fd00::77"))),
            (GUEST, ip(family.of("10.0.0.77", "fd00::77"))),
        ] {
            let mut lab = Lab::new(proxying());
            let out = lab.send(host.port, &ask(host.mac, host.ip(family), target));
            assert!(answers(&out, target), "{target}");
            if family == Family::V6 {
                // Solicited, and without the override flag (RFC 4861 section 7.2.8).
                assert_eq!(out[0].bytes[58] & 0xe0, 0x40);
            }
            lab.expect([entered(host.port, Fate::Consumed), left(host.port, Origin::Originated)]);
        }
    }
}

#[test]
fn arp_7_nobody_is_answered_for_neighbours_and_for_what_has_no_way() {
    for family in FAMILIES {
        for target in [
            // A peer of the same segment, a network that leads nowhere, and addresses of this link alone.
            ip(family.of("10.0.0.9", "fd00::9")),
            ip(family.of("10.4.0.1", "fd00:4::1")),
            ip(family.of("169.254.7.7", "fe80::7")),
            ip(family.of("10.1.0.255", "fe80::8")),
        ] {
            let mut lab = Lab::new(proxying());
            let question = ask(GUEST.mac, GUEST.ip(family), target);
            let out = lab.send(GUEST.port, &question);
            assert!(out.iter().all(|o| o.bytes == question), "{target} is asked on");
            assert_eq!(ports(&out), [OTHER.port]);
            lab.settle();
        }
        // By default nobody is answered at all.
        let mut lab = Lab::new(everybody());
        assert_eq!(
            ports(&lab.send(GUEST.port, &ask(GUEST.mac, GUEST.ip(family), FAR.ip(family)))),
            [OTHER.port]
        );
        lab.settle();
    }
}

#[test]
fn arp_7_a_probe_is_answered_only_for_what_is_known_to_be_elsewhere() {
    for family in FAMILIES {
        let mut lab = Lab::new(proxying());
        for free in [
            ip(family.of("10.0.0.9", "fd00::9")),
            ip(family.of("203.0.113.1", "2001:db8::1")),
            FAR.ip(family),
        ] {
            let out = lab.send(GUEST.port, &ask(GUEST.mac, family.unspecified(), free));
            assert_eq!(ports(&out), [OTHER.port], "{free}");
        }
        let taken = ip(family.of("10.0.0.77", "fd00::77"));
        assert!(answers(&lab.send(GUEST.port, &ask(GUEST.mac, family.unspecified(), taken)), taken));
        lab.settle();
    }
}

#[test]
fn arp_7_a_managed_station_with_a_foreign_address_is_answered() {
    let moved =
        Host { port: 7, mac: MacAddr([2, 0, 0, 0, 0, 0x77]), v4: "10.9.0.5", v6: "fd00:9::5", ..POD_A };
    let mut config = proxying();
    config.ports.push(managed(&moved, 0));
    for family in FAMILIES {
        let mut lab = Lab::new(config.clone());
        // Its old router and its old neighbours, which it believes to be on its link.
        for target in [ip(family.of("10.9.0.1", "fd00:9::1")), ip(family.of("10.9.0.6", "fd00:9::6"))] {
            assert!(answers(&lab.send(moved.port, &ask(moved.mac, moved.ip(family), target)), target));
        }
        lab.settle();
    }
}

#[test]
fn arp_7_who_moves_away_and_comes_back_is_announced() {
    let here = proxying();
    let mut away = here.clone();
    away.ports.retain(|port| port.id != PortId(POD_B.port));
    for (prefix, hop) in [("10.0.0.3/32", FAR.v4), ("fd00::3/128", FAR.v6)] {
        away.routes.push(route(prefix, RouteTarget::Via(vec![via(1, hop)])));
    }
    let mut lab = Lab::new(here.clone());
    lab.install(away);
    let out = lab.drain();
    for family in FAMILIES {
        for port in [POD_A.port, GUEST.port, OTHER.port] {
            let told = |o: &&Out| o.port == port && announced(&o.bytes) == Some((POD_B.ip(family), PODS));
            assert_eq!(out.iter().filter(told).count(), 1, "{family:?} on {port}");
        }
    }
    assert_eq!(out.len(), 6);
    lab.settle();
    lab.install(here);
    let out = lab.drain();
    for family in FAMILIES {
        let told =
            |o: &&Out| o.port == POD_A.port && announced(&o.bytes) == Some((POD_B.ip(family), POD_B.mac));
        assert_eq!(out.iter().filter(told).count(), 1, "{family:?}");
    }
    lab.settle();
}

fn advertisement() -> RouterAdvertisement {
    RouterAdvertisement {
        other: true,
        prefixes: vec![AdvertisedPrefix::new(net("fd00::/64")), AdvertisedPrefix::new(net("fd00:8::/56"))],
        dns_servers: vec!["fd00::53".parse().unwrap()],
        ..RouterAdvertisement::default()
    }
}

fn advertising(change: impl FnOnce(&mut RouterAdvertisement)) -> Config {
    let mut told = advertisement();
    change(&mut told);
    with(|c| {
        c.segments[0].mtu = 1420;
        c.segments[0].gateway.as_mut().unwrap().advertise = Some(told);
    })
}

/// Router lifetime in seconds of an advertisement from the pods' router to all nodes, checked by `smoltcp::wire`.
fn advertised(frame: &[u8]) -> Option<u64> {
    if frame[12..14] != [0x86, 0xdd] || frame[54] != 134 {
        return None;
    }
    sound(frame);
    let (source, all): (Ipv6Addr, Ipv6Addr) = (PODS.link_local(), "ff02::1".parse().unwrap());
    let packet = wire::Ipv6Packet::new_checked(&frame[14..]).unwrap();
    assert_eq!((packet.src_addr(), packet.dst_addr(), packet.hop_limit()), (source, all, 255));
    assert_eq!((mac_to(frame), mac_from(frame)), (ALL_NODES, PODS));
    let message = wire::Icmpv6Packet::new_checked(packet.payload()).unwrap();
    let read = wire::NdiscRepr::parse(&message).unwrap();
    let wire::NdiscRepr::RouterAdvert { flags, router_lifetime, lladdr, mtu, prefix_info, .. } = read else {
        panic!("{read:?}")
    };
    assert_eq!(flags, wire::NdiscRouterFlags::OTHER);
    assert_eq!((lladdr, mtu), (Some(wire::EthernetAddress(PODS.0).into()), Some(1420)));
    // `smoltcp` keeps the last prefix of several.
    let prefix = prefix_info.unwrap();
    assert_eq!((prefix.prefix_len, prefix.prefix.to_string()), (56, "fd00:8::".to_owned()));
    assert_eq!(prefix.flags, wire::NdiscPrefixInfoFlags::ON_LINK);
    Some(router_lifetime.secs())
}

fn solicit(host: &Host) -> Vec<u8> {
    let all_routers = ip("ff02::2");
    let to = MacAddr::for_multicast(all_routers);
    let mut packet = Packet::new(host.mac, to, host.mac.link_local().into(), all_routers);
    packet.hop_limit = 255;
    packet.icmp(133, 0, [0; 4], &[])
}

#[test]
fn ip6_4_the_router_tells_everybody_about_itself() {
    let mut lab = Lab::new(advertising(|_| ()));
    let out = lab.wait(SECOND);
    assert_eq!(ports(&out), [POD_A.port, POD_B.port, GUEST.port, OTHER.port]);
    assert!(out.iter().all(|o| advertised(&o.bytes) == Some(1800)));
    let bytes = &out[0].bytes;
    // The first prefix with both its flags, and the DNS server at the end (RFC 8106).
    let prefix =
        [&[3, 4, 64, 0xc0][..], &(30u32 * 86_400).to_be_bytes(), &(7u32 * 86_400).to_be_bytes()].concat();
    assert!(bytes.windows(prefix.len()).any(|w| w == prefix));
    let server: Ipv6Addr = "fd00::53".parse().unwrap();
    assert_eq!(bytes[bytes.len() - 24..], [&[25, 3, 0, 0, 0, 0, 7, 8][..], &server.octets()].concat());
    lab.settle();
    // Two more soon, the others when their time has come.
    assert_eq!(lab.wait(33 * SECOND).len(), 2 * 4);
    assert!(lab.wait(160 * SECOND).is_empty());
    let rest = lab.wait(60_000 * SECOND).len() / 4;
    assert!((100..=300).contains(&rest), "{rest}");
    lab.settle();
}

#[test]
fn ip6_4_a_solicitation_is_answered_within_half_a_second_and_not_too_often() {
    let mut lab = Lab::new(advertising(|_| ()));
    lab.wait(100 * SECOND);
    lab.settle();
    for host in [GUEST, POD_A] {
        let heard = lab.send(host.port, &solicit(&host));
        // Other routers of the segment hear it as well.
        assert!(heard.iter().all(|o| o.bytes == solicit(&host)) && !heard.is_empty());
        assert!(lab.explain(host.port, &solicit(&host)).to_string().contains("router solicitation"));
        assert_eq!(lab.wait(SECOND / 2).len(), 4);
        // A flood of them costs one advertisement in three seconds.
        let mut more = 0;
        for _ in 0..1000 {
            lab.send(host.port, &solicit(&host));
            more += lab.wait(Duration::from_millis(10)).len();
        }
        assert!((2 * 4..=4 * 4).contains(&more), "{more} in ten seconds");
        lab.wait(10 * SECOND);
        lab.settle();
    }
    // Without advertisements a solicitation is a frame like any other.
    let mut lab = Lab::new(everybody());
    assert_eq!(ports(&lab.send(GUEST.port, &solicit(&GUEST))), [OTHER.port]);
    assert_eq!(lab.switch.neighbors().len(), 0);
    lab.settle();
}

#[test]
fn ip6_4_a_router_that_ceases_says_so() {
    let mut lab = Lab::new(advertising(|_| ()));
    lab.wait(10 * SECOND);
    lab.install(with(|c| c.segments[0].mtu = 1420));
    let out = lab.drain();
    assert_eq!(out.len(), 4);
    assert!(out.iter().all(|o| advertised(&o.bytes) == Some(0)));
    lab.settle();
    assert!(lab.wait(1000 * SECOND).is_empty());
    // One that never said anything has nothing to take back, and neither has one whose address is another's.
    let mut probing = advertising(|_| ());
    probing.segments[0].gateway.as_mut().unwrap().probe = true;
    let mut lab = Lab::new(probing);
    let told = lab.send(GUEST.port, &announce(GUEST.mac, PODS.link_local().into()));
    assert!(!told.is_empty());
    assert!(lab.wait(20 * SECOND).iter().all(|o| advertised(&o.bytes).is_none()));
    lab.install(everybody());
    assert!(lab.drain().is_empty());
    lab.settle();
    let mut lab = Lab::new(advertising(|_| ()));
    lab.install(everybody());
    assert!(lab.drain().is_empty());
    lab.settle();
}

#[test]
fn ip6_4_what_is_changed_is_told_at_once_but_not_too_soon() {
    let mut lab = Lab::new(advertising(|_| ()));
    lab.wait(SECOND);
    lab.install(advertising(|told| told.router_lifetime = 900));
    assert!(lab.wait(SECOND).is_empty());
    let out = lab.wait(2 * SECOND);
    assert!(out.len() == 4 && out.iter().all(|o| advertised(&o.bytes) == Some(900)));
    // The same again changes nothing.
    let before = lab.switch.poll_timeout();
    lab.install(advertising(|told| told.router_lifetime = 900));
    assert_eq!(lab.switch.poll_timeout(), before);
    lab.settle();
}

#[test]
fn ip6_4_nothing_is_advertised_from_an_address_that_is_being_probed() {
    let mut config = advertising(|_| ());
    config.segments[0].gateway.as_mut().unwrap().probe = true;
    let mut lab = Lab::new(config);
    let start = lab.now;
    let mut first = None;
    for _ in 0..1000 {
        if first.is_none()
            && lab.wait(Duration::from_millis(10)).iter().any(|o| advertised(&o.bytes).is_some())
        {
            first = Some(lab.now - start);
        }
    }
    let first = first.expect("it is advertised then");
    assert!(first > SECOND && first < 6 * SECOND, "{first:?}");
    lab.settle();
}

#[test]
fn arp_7_the_uplink_is_not_concerned() {
    // Proxying is a matter of the segment that asks.
    let mut lab = Lab::new(proxying());
    for family in FAMILIES {
        let out = lab.send(FAR.port, &ask(FAR.mac, FAR.ip(family), POD_A.ip(family)));
        assert!(out.is_empty());
        lab.expect([dropped(FAR.port, DropReason::NoOtherPort)]);
        assert_eq!(
            told(
                &lab.send(FAR.port, &ask(FAR.mac, FAR.ip(family), ip(family.of("10.1.0.1", "fd00:1::1"))))[0]
                    .bytes
            )
            .unwrap()
            .1,
            UPLINK
        );
        lab.settle();
    }
    // Discovery of the wrong form stays what it was.
    let target: Ipv6Addr = "fd00:1::2".parse().unwrap();
    let packet = Packet::new(GUEST.mac, PODS, GUEST.ip(Family::V6), target.into());
    let out = lab.send(GUEST.port, &discovery(packet, 135, [0; 4], target, Some((1, GUEST.mac))));
    assert!(answers(&out, target.into()), "a verification by unicast is answered like a question to all");
    lab.settle();
}

/// An address without a prefix, which a service may have been given.
fn extra(family: Family) -> (IpAddr, IpNet) {
    let (address, net) = family.of(("10.0.0.77", "10.0.0.77/32"), ("fd00::77", "fd00::77/128"));
    (ip(address), crate::world::net(net))
}

fn with_extra(family: Family) -> Config {
    with(|c| c.segments[0].gateway.as_mut().unwrap().addresses.push(extra(family).1))
}

#[test]
fn an_address_that_a_running_router_gets_is_announced_three_times_and_answered_for() {
    for family in FAMILIES {
        let (address, _) = extra(family);
        let mut lab = acquainted(everybody());
        lab.install(with_extra(family));
        let asked = ask(GUEST.mac, GUEST.ip(family), address);
        assert_eq!(told(&lab.send(GUEST.port, &asked)[0].bytes).unwrap().1, PODS, "before any time is told");
        lab.settle();
        for time in [SECOND / 2, SECOND, SECOND] {
            let out = lab.wait(time);
            assert_eq!(ports(&out), [GUEST.port, OTHER.port]);
            assert!(out.iter().all(|out| announced(&out.bytes) == Some((address, PODS))));
        }
        assert!(lab.wait(SECOND * 60).iter().all(|out| announced(&out.bytes).is_none()));
        // Nobody listens there: as at any address of the router's.
        let out = lab.send(GUEST.port, &GUEST.via_router(address).tcp_syn(1, 80));
        assert_eq!(ports(&out), [GUEST.port]);
        lab.settle();
        // What is taken away is not answered for any more, nor announced.
        lab.install(everybody());
        lab.settle();
        assert!(lab.send(GUEST.port, &asked).iter().all(|out| told(&out.bytes).is_none()));
        lab.install(with_extra(family));
        lab.install(everybody());
        assert!(lab.wait(SECOND * 10).iter().all(|out| announced(&out.bytes).is_none()));
        lab.settle();
    }
}

#[test]
fn who_is_known_stays_known_when_the_router_gets_one_address_more() {
    for family in FAMILIES {
        let mut lab = acquainted(everybody());
        let known = |lab: &Lab| lab.switch.neighbors().iter(lab.now).count();
        let before = known(&lab);
        assert!(before > 0);
        lab.install(with_extra(family));
        assert_eq!(known(&lab), before);
        lab.settle();
    }
}

/// Two switches on one link: the stations believe whoever has the address now, from the first frame that it says so.
#[test]
fn an_address_that_moves_from_one_switch_to_another_is_followed() {
    for family in FAMILIES {
        let (address, _) = extra(family);
        let other = MacAddr([2, 0, 0, 0, 0xee, 0x77]);
        let beside = |extra: bool| {
            let mut config = if extra { with_extra(family) } else { everybody() };
            let gateway = config.segments[0].gateway.as_mut().unwrap();
            gateway.mac = other;
            // Each has addresses of its own, and only one of them that one.
            gateway.addresses[0] = net("10.0.0.9/24");
            gateway.addresses[1] = net("fd00::9/64");
            config
        };
        let mut here = acquainted(with_extra(family));
        let mut there = Lab::new(beside(false));
        // A station's cache, which takes what is announced.
        let mut cache = PODS;
        let hear = |out: Vec<Out>, cache: &mut MacAddr| {
            for out in out.iter().filter(|out| out.port == GUEST.port) {
                if let Some((said, mac)) = announced(&out.bytes)
                    && said == address
                {
                    *cache = mac;
                }
            }
        };
        here.install(everybody());
        there.install(beside(true));
        hear(there.wait(Duration::from_millis(1)), &mut cache);
        hear(here.wait(SECOND * 5), &mut cache);
        assert_eq!(cache, other);
        // And back.
        there.install(beside(false));
        here.install(with_extra(family));
        hear(here.wait(Duration::from_millis(1)), &mut cache);
        hear(there.wait(SECOND * 5), &mut cache);
        assert_eq!(cache, PODS);
        here.settle();
        there.settle();
    }
}
