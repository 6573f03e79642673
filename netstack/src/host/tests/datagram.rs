//! UDP, ping and ICMP errors between two hosts.

use super::*;
use crate::offload::Checksum;

#[test]
fn datagrams_go_there_and_back() {
    for family in BOTH {
        let mut lab = Lab::new();
        let server_address = SocketAddr::new(address(2, family), 7);
        let server = lab.hosts[1].udp_bind(SocketAddr::new(any(family), 7)).unwrap();
        let client = lab.hosts[0].udp_bind(SocketAddr::new(any(family), 0)).unwrap();
        let header = if family == Family::V4 { 28 } else { 48 };
        for len in [0, 1, 100, 1500 - header] {
            let data = pattern(len as u64, len);
            lab.hosts[0].udp_send_to(lab.now, client, &data, server_address).unwrap();
            lab.run_until(lab.now + Duration::from_millis(1));
            assert_eq!(lab.events(1), [HostEvent::UdpReady(server)]);
            let mut buffer = [0; 2000];
            let got = lab.hosts[1].udp_recv_from(server, &mut buffer).unwrap();
            assert_eq!((got.len, got.full_len, got.to), (len, len, address(2, family)));
            assert_eq!(got.from.ip(), address(1, family));
            assert_eq!(&buffer[..len], data);
            lab.hosts[1].udp_send_to(lab.now, server, &buffer[..len], got.from).unwrap();
            lab.run_until(lab.now + Duration::from_millis(1));
            let mut short = [0; 50];
            let back = lab.hosts[0].udp_recv_from(client, &mut short).unwrap();
            assert_eq!((back.len, back.full_len, back.from), (len.min(50), len, server_address));
            assert_eq!(lab.hosts[0].udp_recv_from(client, &mut short), Err(UdpError::WouldBlock));
            lab.events(0);
        }
        let most = 1500 - header;
        let long = vec![0; most + 1];
        let sent = lab.hosts[0].udp_send_to(lab.now, client, &long, server_address);
        assert_eq!(sent, Err(SendError::MessageTooLong { most }));
        lab.hosts[0].udp_close(client);
        assert_eq!(lab.hosts[0].udp_send_to(lab.now, client, b"", server_address), Err(SendError::Stale));
        lab.check();
    }
}

#[test]
fn a_full_udp_queue_drops_the_newest_and_counts() {
    let mut second = config(2);
    (second.limits.udp_datagrams, second.limits.udp_bytes) = (3, 1 << 20);
    let mut lab = Lab::with(config(1), second);
    let (from, sink, to) = lab.datagram_sockets(Family::V4);
    for i in 0..5u8 {
        lab.hosts[0].udp_send_to(lab.now, from, &[i], to).unwrap();
    }
    lab.run_until(lab.now + Duration::from_millis(1));
    let mut buffer = [9];
    for i in 0..3 {
        lab.hosts[1].udp_recv_from(sink, &mut buffer).unwrap();
        assert_eq!(buffer, [i]);
    }
    assert_eq!(lab.hosts[1].udp_recv_from(sink, &mut buffer), Err(UdpError::WouldBlock));
    assert_eq!(lab.hosts[1].counters().udp_queue_full, 2);
    lab.check();
}

#[test]
fn broadcast_reaches_a_socket_and_is_never_refused() {
    let mut lab = Lab::new();
    let from = lab.hosts[0].udp_bind("0.0.0.0:0".parse().unwrap()).unwrap();
    let sink = lab.hosts[1].udp_bind("0.0.0.0:7".parse().unwrap()).unwrap();
    for to in ["255.255.255.255:7", "10.0.0.255:7", "10.0.0.255:8"] {
        lab.hosts[0].udp_send_to(lab.now, from, b"all", to.parse().unwrap()).unwrap();
    }
    lab.run_until(lab.now + Duration::from_millis(1));
    let mut buffer = [0; 8];
    assert_eq!(lab.hosts[1].udp_recv_from(sink, &mut buffer).unwrap().to, IpAddr::from([255; 4]));
    assert_eq!(lab.hosts[1].udp_recv_from(sink, &mut buffer).unwrap().to, IpAddr::from([10, 0, 0, 255]));
    assert!(lab.events(0).is_empty());
}

#[test]
fn ping_comes_back_as_it_went() {
    for family in BOTH {
        let mut lab = Lab::new();
        let payload = pattern(7, 1000);
        lab.hosts[0].set_hop_limit(3);
        lab.hosts[0].ping(lab.now, address(2, family), 77, 5, &payload).unwrap();
        lab.run_until(lab.now + Duration::from_secs(1));
        let expected = HostEvent::EchoReply {
            from: address(2, family),
            id: 77,
            sequence: 5,
            hop_limit: 64,
            payload: bytes::Bytes::from(payload),
        };
        assert_eq!(lab.events(0), [expected]);
        assert!(matches!(
            lab.hosts[0].ping(lab.now, address(2, family), 1, 1, &[0; 1500]),
            Err(SendError::MessageTooLong { .. })
        ));
    }
}

#[test]
fn link_local_addresses_answer_too() {
    let mut lab = Lab::new();
    let far = IpAddr::V6(lab.hosts[1].mac().link_local());
    lab.hosts[0].ping(lab.now, far, 1, 1, b"link").unwrap();
    lab.run_until(lab.now + Duration::from_secs(1));
    assert!(matches!(lab.events(0)[..], [HostEvent::EchoReply { from, .. }] if from == far));
}

#[test]
fn a_datagram_to_nobody_is_answered_by_port_unreachable() {
    for family in BOTH {
        let mut lab = Lab::new();
        let from = lab.hosts[0].udp_bind(SocketAddr::new(address(1, family), 5000)).unwrap();
        let to = SocketAddr::new(address(2, family), 7);
        lab.hosts[0].udp_send_to(lab.now, from, &[0; 1400], to).unwrap();
        lab.run_until(lab.now + Duration::from_millis(1));
        let quoted = Quoted {
            protocol: 17,
            source: SocketAddr::new(address(1, family), 5000),
            destination: to,
            echo: None,
        };
        let code = if family == Family::V4 { 3 } else { 4 };
        let error = IcmpError::Unreachable { code };
        assert_eq!(lab.events(0), [HostEvent::IcmpError { from: to.ip(), error, quoted }]);
    }
}

#[test]
fn errors_stop_at_the_rate_limit() {
    let mut lab = Lab::new();
    let from = lab.hosts[0].udp_bind("0.0.0.0:0".parse().unwrap()).unwrap();
    let to = SocketAddr::new(address(2, Family::V4), 7);
    lab.introduce(Family::V4);
    for _ in 0..200 {
        lab.hosts[0].udp_send_to(lab.now, from, b"x", to).unwrap();
    }
    lab.exchange();
    lab.exchange();
    assert_eq!(lab.events(0).len(), 50);
    assert_eq!(lab.hosts[1].counters().icmp_limited, 150);
}

/// A frame as some router between the hosts would send it, to host 1.
fn from_router(lab: &mut Lab, kind: u8, code: u8, word: u32, family: Family, quote: &[u8]) {
    let (to, router) = (address(1, family), address(77, family));
    let v4 = family == Family::V4;
    let mut message = vec![kind, code, 0, 0];
    message.extend_from_slice(&word.to_be_bytes());
    message.extend_from_slice(quote);
    let protocol = if v4 { protocol::ICMP } else { protocol::ICMPV6 };
    let link = &mut lab.hosts[1].link;
    let (mut frame, at) = link.ip_packet(router, to, protocol, message.len(), 64);
    frame.bytes_mut()[at..].copy_from_slice(&message);
    if v4 {
        smoltcp::wire::Icmpv4Packet::new_unchecked(&mut frame.bytes_mut()[at..]).fill_checksum();
    } else if let (IpAddr::V6(router), IpAddr::V6(to)) = (router, to) {
        smoltcp::wire::Icmpv6Packet::new_unchecked(&mut frame.bytes_mut()[at..]).fill_checksum(&router, &to);
    }
    link.send_to(frame, MacAddr::local(1), if v4 { 0x0800 } else { 0x86dd });
}

/// Sends large segments through a "router" of a smaller MTU and hands back what it would quote.
#[test]
fn packet_too_big_lowers_the_path_mtu_of_tcp_and_udp() {
    for family in BOTH {
        let mut lab = Lab::new();
        let (client, server) = lab.connection(family);
        let quotes: alloc::rc::Rc<core::cell::RefCell<Vec<Vec<u8>>>> = alloc::rc::Rc::default();
        let log = quotes.clone();
        lab.filter = Box::new(move |side, frame| {
            let too_big = side == 0 && frame.len() > 14 + 1300;
            if too_big {
                log.borrow_mut().push(frame.bytes()[14..14 + 68].to_vec());
            }
            !too_big
        });
        let data = pattern(1, 200_000);
        let (mut sent, mut got) = (0, Vec::new());
        lab.drive(2000, |lab| {
            lab.send_all(0, client, &data, &mut sent);
            for quote in core::mem::take(&mut *quotes.borrow_mut()) {
                let (kind, code) = if family == Family::V4 { (3, 4) } else { (2, 0) };
                from_router(lab, kind, code, 1300, family, &quote);
            }
            lab.read_all(1, server, &mut got);
            got.len() == data.len()
        });
        assert!(got == data);
        let socket = lab.hosts[0].udp_bind(SocketAddr::new(any(family), 0)).unwrap();
        let most = 1300 - if family == Family::V4 { 28 } else { 48 };
        let to = SocketAddr::new(address(2, family), 9);
        let sent = lab.hosts[0].udp_send_to(lab.now, socket, &[0; 1400], to);
        assert_eq!(sent, Err(SendError::MessageTooLong { most }));
        let expected = IcmpError::PacketTooBig { mtu: 1300 };
        assert!(
            lab.events(0)
                .iter()
                .any(|e| matches!(e, HostEvent::IcmpError { error, .. } if *error == expected))
        );
    }
}

#[test]
fn an_error_that_quotes_a_sequence_never_sent_changes_nothing() {
    let mut lab = Lab::new();
    let (client, _) = lab.connection(Family::V4);
    let (local, remote) = lab.hosts[0].tcp_endpoints(client).unwrap();
    let mut quote = vec![0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, 6, 0, 0];
    for (address, _) in [(local.ip(), 0), (remote.ip(), 0)] {
        if let IpAddr::V4(a) = address {
            quote.extend_from_slice(&a.octets());
        }
    }
    quote.extend_from_slice(&local.port().to_be_bytes());
    quote.extend_from_slice(&remote.port().to_be_bytes());
    let sequence = lab.hosts[0].tcp.peek(client.0).map(|flow| flow.may_have_sent(0)).unwrap();
    quote.extend_from_slice(&if sequence { 0x8000_0000_u32 } else { 0 }.to_be_bytes());
    from_router(&mut lab, 3, 4, 576, Family::V4, &quote);
    lab.run_until(lab.now + Duration::from_millis(10));
    assert_eq!(lab.hosts[0].link.path_mtu(remote.ip()), 1500);
}

#[test]
fn a_traceroute_can_be_written() {
    for family in BOTH {
        let mut lab = Lab::new();
        lab.introduce(family);
        let expired: alloc::rc::Rc<core::cell::RefCell<Vec<Vec<u8>>>> = alloc::rc::Rc::default();
        let log = expired.clone();
        lab.filter = Box::new(move |side, frame| {
            let at = if frame.bytes()[12] == 0x08 { 22 } else { 21 };
            let through = side == 1 || frame.bytes()[at] > 1;
            if !through {
                log.borrow_mut().push(frame.bytes()[14..].to_vec());
            }
            through
        });
        let mut hops = Vec::new();
        for hop in 1..=2u8 {
            lab.hosts[0].set_hop_limit(hop);
            lab.hosts[0].ping(lab.now, address(2, family), 42, u16::from(hop), b"where").unwrap();
            lab.exchange();
            for quote in core::mem::take(&mut *expired.borrow_mut()) {
                from_router(&mut lab, if family == Family::V4 { 11 } else { 3 }, 0, 0, family, &quote);
            }
            lab.exchange();
            hops.extend(lab.events(0));
        }
        let [HostEvent::IcmpError { from, error, quoted }, HostEvent::EchoReply { sequence: 2, .. }] =
            &hops[..]
        else {
            panic!("{hops:?}");
        };
        assert_eq!((*from, *error), (address(77, family), IcmpError::TimeExceeded { code: 0 }));
        assert_eq!(quoted.echo, Some((42, 1)));
    }
}

/// Sends a datagram from host 1 to host 2, changes the frame on its way, and says whether the datagram is received.
fn deliver(
    lab: &mut Lab,
    (from, sink, to): (UdpHandle, UdpHandle, SocketAddr),
    change: impl FnOnce(&mut Frame),
) -> bool {
    lab.hosts[0].udp_send_to(lab.now, from, b"payload", to).unwrap();
    let mut batch = FrameBatch::new();
    lab.hosts[0].poll_transmit(&mut batch);
    let mut frame = batch.pop().unwrap();
    change(&mut frame);
    batch.push(frame).unwrap();
    lab.hosts[1].handle_frames(lab.now, &mut batch);
    lab.hosts[1].udp_recv_from(sink, &mut [0; 8]).is_ok()
}

#[test]
fn the_state_of_the_checksum_travels_with_the_frame() {
    let mut lab = Lab::new();
    let sockets = lab.datagram_sockets(Family::V4);
    lab.introduce(Family::V4);
    let mut send = |state: Checksum| {
        deliver(&mut lab, sockets, |frame| {
            frame.bytes_mut()[40] ^= 0xff;
            frame.offload.checksum = state;
        })
    };
    assert!(!send(Checksum::Complete));
    assert!(send(Checksum::Verified));
    assert!(send(Checksum::Partial { start: 34, offset: 6 }));
    assert_eq!(lab.hosts[1].counters().dropped(DropReason::TransportChecksum), 1);
}

#[test]
fn random_bytes_never_panic_and_are_always_counted() {
    let mut lab = Lab::new();
    let mut rng = Seed::from_u64(9).rng("noise");
    let sink = lab.hosts[1].udp_bind("[::]:7".parse().unwrap()).unwrap();
    for round in 0..50_000u32 {
        let mut bytes = pattern(u64::from(round), rng.below(120) as usize);
        if bytes.len() >= 60 {
            // Mostly addressed to host 2, with plausible first octets, so that it gets deep.
            bytes[..6].copy_from_slice(&MacAddr::local(2).0);
            bytes[6] &= 0xfe;
            match rng.below(3) {
                0 => {
                    bytes[12..15].copy_from_slice(&[0x08, 0x00, 0x45]);
                    bytes[16..18].copy_from_slice(&44u16.to_be_bytes());
                    bytes[20..22].copy_from_slice(&[0x40, 0]);
                    bytes[23] = [1, 6, 17, 132][rng.below(4) as usize];
                    bytes[26..34].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
                    smoltcp::wire::Ipv4Packet::new_unchecked(&mut bytes[14..]).fill_checksum();
                }
                1 => {
                    let length = u8::try_from(bytes.len() - 54).unwrap();
                    bytes[12..15].copy_from_slice(&[0x86, 0xdd, 0x60]);
                    bytes[18..20].copy_from_slice(&[0, length]);
                    bytes[20] = [0, 6, 17, 43, 44, 58, 60][rng.below(7) as usize];
                    if let (IpAddr::V6(a), IpAddr::V6(b)) = (address(1, Family::V6), address(2, Family::V6)) {
                        bytes[22..38].copy_from_slice(&a.octets());
                        bytes[38..54].copy_from_slice(&b.octets());
                    }
                }
                _ => bytes[12..20].copy_from_slice(&[0x08, 0x06, 0, 1, 8, 0, 6, 4]),
            }
        }
        let mut frame = lab.hosts[1].link.pool.copy_of(&bytes);
        frame.offload.checksum = Checksum::Verified;
        let mut batch = FrameBatch::new();
        batch.push(frame).unwrap();
        lab.hosts[1].handle_frames(lab.now, &mut batch);
        while lab.hosts[1].poll_transmit(&mut batch) {
            batch.drain().for_each(drop);
        }
        while lab.hosts[1].poll_event().is_some() {}
        while lab.hosts[1].udp_recv_from(sink, &mut [0; 64]).is_ok() {}
        lab.now += Duration::from_millis(1);
        lab.hosts[1].handle_timeout(lab.now);
    }
    lab.check();
}

#[test]
fn a_packet_to_one_host_in_a_frame_to_all_is_not_believed() {
    let mut lab = Lab::new();
    let sockets = lab.datagram_sockets(Family::V4);
    lab.introduce(Family::V4);
    let mut receive = |station: MacAddr| {
        deliver(&mut lab, sockets, |frame| frame.bytes_mut()[..6].copy_from_slice(&station.0))
    };
    assert!(receive(MacAddr::local(2)));
    assert!(!receive(MacAddr::BROADCAST));
    assert!(!receive(MacAddr::local(3)), "somebody else's frame, flooded");
    assert_eq!(lab.hosts[1].counters().dropped(DropReason::NotForUs), 2);
}
