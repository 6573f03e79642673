//! TCP between two hosts.

use super::*;

fn transfer(lab: &mut Lab, family: Family, len: usize, bound: usize) {
    let (client, server) = lab.connection(family);
    let data = [pattern(1, len), pattern(2, len)];
    let (mut sent, mut got) = ([0, 0], [Vec::new(), Vec::new()]);
    let mut ended = [false, false];
    let handles = [client, server];
    lab.drive(bound, |lab| {
        for side in 0..2 {
            let before = sent[side];
            lab.send_all(side, handles[side], &data[side], &mut sent[side]);
            if sent[side] == len && before < len {
                lab.hosts[side].tcp_close(lab.now, handles[side]);
            }
            ended[side] = ended[side] || lab.read_all(side, handles[side], &mut got[side]);
        }
        ended == [true, true]
    });
    assert!(got[1] == data[0], "client to server");
    assert!(got[0] == data[1], "server to client");
    lab.run_until(lab.now + Duration::from_secs(700));
    assert_eq!([lab.hosts[0].tcp_connections(), lab.hosts[1].tcp_connections()], [0, 0]);
    lab.check();
}

#[test]
fn a_mebibyte_each_way_arrives_whole() {
    for family in BOTH {
        for mtu in [1280, 1500, 9000, 65535] {
            let (mut first, mut second) = (config(1), config(2));
            (first.mtu, second.mtu) = (mtu, mtu);
            transfer(&mut Lab::with(first, second), family, 1 << 20, 20_000);
        }
    }
}

#[test]
fn a_mebibyte_arrives_over_an_ipv4_link_of_the_smallest_mtu() {
    let small = |host| {
        let mut config = config(host);
        config.addresses.truncate(1);
        config.mtu = MIN_MTU;
        config
    };
    transfer(&mut Lab::with(small(1), small(2)), Family::V4, 1 << 20, 40_000);
}

#[test]
fn every_seventh_frame_lost_delays_but_loses_nothing() {
    for family in BOTH {
        for congestion in [Congestion::Reno, Congestion::None] {
            let (mut first, mut second) = (config(1), config(2));
            (first.congestion, second.congestion) = (congestion, congestion);
            let mut lab = Lab::with(first, second);
            let mut count = 0;
            lab.filter = Box::new(move |_, _| {
                count += 1;
                count % 7 != 0
            });
            transfer(&mut lab, family, 1 << 18, 100_000);
        }
    }
}

#[test]
fn two_hundred_connections_at_once() {
    for family in BOTH {
        let mut lab = Lab::with(config(1), {
            let mut config = config(2);
            config.limits.backlog = 200;
            config
        });
        let server = SocketAddr::new(any(family), 7);
        let listener = lab.hosts[1].tcp_listen(server).unwrap();
        let to = SocketAddr::new(address(2, family), 7);
        let clients: Vec<TcpHandle> =
            (0..200).map(|_| lab.hosts[0].tcp_connect(lab.now, to).unwrap()).collect();
        let data: Vec<Vec<u8>> = (0..200).zip(3000..).map(|(i, len)| pattern(i, len)).collect();
        let (mut sent, mut got) = (vec![0; 200], vec![Vec::new(); 200]);
        let mut ended = [false; 200];
        let mut servers: Vec<TcpHandle> = Vec::new();
        lab.drive(5000, |lab| {
            while let Some(accepted) = lab.hosts[1].tcp_accept(listener) {
                servers.push(accepted);
            }
            for &server in &servers {
                // An echo server: back to where it came from, and the end after the end.
                let mut chunk = Vec::new();
                let room = lab.hosts[1].tcp_writable(server);
                let mut buffer = vec![0; room];
                match lab.hosts[1].tcp_recv(lab.now, server, &mut buffer) {
                    Ok(0) if room > 0 => lab.hosts[1].tcp_close(lab.now, server),
                    Ok(count) => chunk.extend_from_slice(&buffer[..count]),
                    Err(_) => {}
                }
                if !chunk.is_empty() {
                    assert_eq!(lab.hosts[1].tcp_send(lab.now, server, &chunk), Ok(chunk.len()));
                }
            }
            for (i, &client) in clients.iter().enumerate() {
                let before = sent[i];
                if lab.hosts[0].tcp_state(client) != TcpState::SynSent {
                    lab.send_all(0, client, &data[i], &mut sent[i]);
                }
                if sent[i] == data[i].len() && before < sent[i] {
                    lab.hosts[0].tcp_close(lab.now, client);
                }
                ended[i] = ended[i] || lab.read_all(0, client, &mut got[i]);
            }
            ended.iter().all(|&e| e)
        });
        assert!(got == data);
        lab.check();
    }
}

#[test]
fn a_closed_port_refuses() {
    for family in BOTH {
        let mut lab = Lab::new();
        let to = SocketAddr::new(address(2, family), 81);
        let client = lab.hosts[0].tcp_connect(lab.now, to).unwrap();
        lab.drive(50, |lab| lab.hosts[0].tcp_error(client).is_some());
        assert_eq!(lab.hosts[0].tcp_recv(lab.now, client, &mut [0; 8]), Err(TcpError::Refused));
        assert_eq!(lab.hosts[0].tcp_send(lab.now, client, b"x"), Err(TcpError::Refused));
        assert!(lab.events(0).contains(&HostEvent::TcpReady(client)));
        assert!(lab.now < Duration::from_secs(1001), "a refusal takes no timer");
        lab.hosts[0].tcp_close(lab.now, client);
        assert_eq!(lab.hosts[0].tcp_connections(), 0);
        assert_eq!(lab.hosts[0].tcp_recv(lab.now, client, &mut [0; 8]), Err(TcpError::Stale));
        assert_eq!(lab.hosts[1].counters().dropped(DropReason::NoListener), 1);
        lab.check();
    }
}

#[test]
fn half_close_leaves_the_other_direction_open() {
    for family in BOTH {
        let mut lab = Lab::new();
        let (client, server) = lab.connection(family);
        lab.hosts[0].tcp_send(lab.now, client, b"question").unwrap();
        lab.hosts[0].tcp_close(lab.now, client);
        assert_eq!(lab.hosts[0].tcp_send(lab.now, client, b"more"), Err(TcpError::Closed));
        let mut question = Vec::new();
        lab.drive(100, |lab| lab.read_all(1, server, &mut question));
        assert_eq!(question, b"question");
        assert_eq!(lab.hosts[1].tcp_state(server), TcpState::CloseWait);
        lab.run_until(lab.now + Duration::from_secs(300));
        assert_eq!(lab.hosts[0].tcp_state(client), TcpState::FinWait2);

        let answer = pattern(3, 100_000);
        let (mut sent, mut got) = (0, Vec::new());
        let mut closed = false;
        lab.drive(5000, |lab| {
            lab.send_all(1, server, &answer, &mut sent);
            if sent == answer.len() && !core::mem::replace(&mut closed, true) {
                lab.hosts[1].tcp_close(lab.now, server);
            }
            lab.read_all(0, client, &mut got)
        });
        assert_eq!(got, answer);
        assert_eq!(lab.hosts[0].tcp_state(client), TcpState::TimeWait);
        lab.run_until(lab.now + Duration::from_secs(11));
        assert_eq!([lab.hosts[0].tcp_connections(), lab.hosts[1].tcp_connections()], [0, 0]);
    }
}

#[test]
fn unread_data_outlives_time_wait() {
    let mut lab = Lab::new();
    let (client, server) = lab.connection(Family::V4);
    lab.hosts[0].tcp_close(lab.now, client);
    lab.drive(50, |lab| lab.hosts[1].tcp_state(server) == TcpState::CloseWait);
    lab.hosts[1].tcp_send(lab.now, server, b"late reader").unwrap();
    lab.hosts[1].tcp_close(lab.now, server);
    lab.run_until(lab.now + Duration::from_secs(100));
    let mut got = Vec::new();
    lab.read_all(0, client, &mut got);
    assert_eq!(got, b"late reader");
    lab.run_until(lab.now + Duration::from_secs(1));
    assert_eq!(lab.hosts[0].tcp_connections(), 0);
}

#[test]
fn abort_resets_the_other_side() {
    for family in BOTH {
        let mut lab = Lab::new();
        let (client, server) = lab.connection(family);
        lab.hosts[1].tcp_send(lab.now, server, b"unread").unwrap();
        lab.drive(50, |lab| lab.hosts[0].tcp_readable(client) == 6);
        lab.hosts[1].tcp_abort(lab.now, server);
        assert_eq!(lab.hosts[1].tcp_state(server), TcpState::Closed);
        lab.drive(50, |lab| lab.hosts[0].tcp_error(client) == Some(TcpError::Reset));
        let mut buffer = [0; 8];
        assert_eq!(
            lab.hosts[0].tcp_recv(lab.now, client, &mut buffer),
            Ok(6),
            "what arrived before can be read"
        );
        assert_eq!(lab.hosts[0].tcp_recv(lab.now, client, &mut buffer), Err(TcpError::Reset));
        assert_eq!(lab.hosts[0].tcp_send(lab.now, client, b"x"), Err(TcpError::Reset));
        assert_eq!(lab.hosts[1].tcp_connections(), 0);
        lab.hosts[0].tcp_close(lab.now, client);
        assert_eq!(lab.hosts[0].tcp_connections(), 0);
    }
}

#[test]
fn data_for_a_released_connection_is_answered_by_a_reset() {
    let mut lab = Lab::new();
    let (client, server) = lab.connection(Family::V4);
    lab.hosts[0].tcp_release(lab.now, client);
    lab.drive(50, |lab| lab.hosts[1].tcp_state(server) == TcpState::CloseWait);
    lab.hosts[1].tcp_send(lab.now, server, b"nobody reads this").unwrap();
    lab.drive(50, |lab| lab.hosts[1].tcp_error(server) == Some(TcpError::Reset));
    assert_eq!(lab.hosts[0].tcp_connections(), 0);
}

#[test]
fn an_orphan_does_not_wait_forever() {
    let mut lab = Lab::new();
    let (client, server) = lab.connection(Family::V4);
    lab.hosts[0].tcp_release(lab.now, client);
    lab.run_until(lab.now + Duration::from_secs(59));
    assert_eq!(lab.hosts[0].tcp_connections(), 1);
    lab.run_until(lab.now + Duration::from_secs(2));
    assert_eq!(lab.hosts[0].tcp_connections(), 0);
    assert_eq!(lab.hosts[1].tcp_error(server), Some(TcpError::Reset));
}

#[test]
fn a_silent_peer_times_out_but_an_idle_one_does_not() {
    let mut lab = Lab::new();
    let (client, server) = lab.connection(Family::V6);
    lab.run_until(lab.now + Duration::from_secs(100_000));
    lab.hosts[0].tcp_send(lab.now, client, b"still there?").unwrap();
    lab.drive(50, |lab| lab.hosts[1].tcp_readable(server) == 12);
    lab.run_until(lab.now + Duration::from_secs(1));
    lab.filter = Box::new(|_, _| false);
    lab.hosts[0].tcp_send(lab.now, client, b"and now?").unwrap();
    let since = lab.now;
    lab.drive(1000, |lab| lab.hosts[0].tcp_error(client).is_some());
    assert_eq!(lab.hosts[0].tcp_error(client), Some(TcpError::TimedOut));
    let waited = lab.now - since;
    assert!(waited >= Duration::from_secs(100) && waited < Duration::from_secs(130), "{waited:?}");
}

#[test]
fn a_connect_into_silence_times_out_without_a_reset() {
    let mut lab = Lab::new();
    // The neighbour is there, the segments vanish.
    lab.filter = Box::new(|_, frame| frame.bytes()[12..14] == [0x08, 0x06]);
    let client = lab.hosts[0].tcp_connect(lab.now, SocketAddr::new(address(2, Family::V4), 80)).unwrap();
    let since = lab.now;
    lab.drive(200, |lab| lab.hosts[0].tcp_error(client).is_some());
    assert_eq!(lab.hosts[0].tcp_error(client), Some(TcpError::TimedOut));
    assert_eq!(lab.now - since, Duration::from_secs(60));
    let mut batch = FrameBatch::new();
    assert!(!lab.hosts[0].poll_transmit(&mut batch), "{batch:?}");
}

#[test]
fn a_full_backlog_stays_silent_and_the_client_gets_in_later() {
    let mut second = config(2);
    second.limits.backlog = 3;
    let mut lab = Lab::with(config(1), second);
    let server = SocketAddr::new(address(2, Family::V4), 80);
    let listener = lab.hosts[1].tcp_listen(server).unwrap();
    let clients: Vec<TcpHandle> =
        (0..5).map(|_| lab.hosts[0].tcp_connect(lab.now, server).unwrap()).collect();
    lab.run_until(lab.now + Duration::from_millis(500));
    let established =
        |lab: &Lab| clients.iter().filter(|&&c| lab.hosts[0].tcp_state(c) == TcpState::Established).count();
    assert_eq!(established(&lab), 3);
    assert_eq!(lab.hosts[1].counters().backlog_full, 2);
    assert!(lab.events(1).contains(&HostEvent::TcpIncoming(listener)));
    let accepted: Vec<TcpHandle> = core::iter::from_fn(|| lab.hosts[1].tcp_accept(listener)).collect();
    assert_eq!(accepted.len(), 3);
    lab.run_until(lab.now + Duration::from_secs(5));
    assert_eq!(established(&lab), 5);
    lab.hosts[1].tcp_unlisten(lab.now, listener);
    lab.run_until(lab.now + Duration::from_secs(1));
    let reset = clients.iter().filter(|&&c| lab.hosts[0].tcp_error(c) == Some(TcpError::Reset)).count();
    assert_eq!(reset, 2, "those not accepted are reset");
    lab.check();
}

#[test]
fn a_connection_that_dies_before_it_is_accepted_leaves_no_trace() {
    let mut lab = Lab::new();
    let server = SocketAddr::new(address(2, Family::V6), 80);
    let listener = lab.hosts[1].tcp_listen(server).unwrap();
    let client = lab.hosts[0].tcp_connect(lab.now, server).unwrap();
    lab.run_until(lab.now + Duration::from_millis(100));
    lab.hosts[0].tcp_abort(lab.now, client);
    lab.run_until(lab.now + Duration::from_millis(100));
    assert_eq!(lab.hosts[1].tcp_accept(listener), None);
    assert_eq!(lab.hosts[1].tcp_connections(), 0);
}

#[test]
fn a_handshake_that_stops_halfway_is_forgotten() {
    let mut second = config(2);
    second.limits.backlog = 1;
    let mut lab = Lab::with(config(1), second);
    let server = SocketAddr::new(address(2, Family::V4), 80);
    let listener = lab.hosts[1].tcp_listen(server).unwrap();
    lab.filter = Box::new(|side, frame| side == 0 || frame.bytes()[12..14] == [0x08, 0x06]);
    let client = lab.hosts[0].tcp_connect(lab.now, server).unwrap();
    lab.run_until(lab.now + Duration::from_secs(2));
    assert_eq!(lab.hosts[1].tcp_connections(), 1);
    lab.hosts[0].tcp_abort(lab.now, client);
    lab.run_until(lab.now + Duration::from_secs(31));
    assert_eq!(lab.hosts[1].tcp_connections(), 0);
    lab.filter = Box::new(|_, _| true);
    lab.hosts[0].tcp_connect(lab.now, server).unwrap();
    lab.run_until(lab.now + Duration::from_secs(1));
    assert!(lab.hosts[1].tcp_accept(listener).is_some());
}

#[test]
fn those_in_time_wait_make_room_in_a_full_table() {
    let small = |host| {
        let mut config = config(host);
        config.limits.tcp_flows = 4;
        config
    };
    let mut lab = Lab::with(small(1), config(2));
    let server = SocketAddr::new(address(2, Family::V4), 80);
    let listener = lab.hosts[1].tcp_listen(server).unwrap();
    let mut held = Vec::new();
    // The first three linger and are wanted no more; one more lingers whose owner may still read; the others find room.
    for round in 0..10 {
        let client = lab.hosts[0].tcp_connect(lab.now, server).unwrap();
        lab.run_until(lab.now + Duration::from_millis(10));
        let accepted = lab.hosts[1].tcp_accept(listener).unwrap();
        lab.hosts[0].tcp_close(lab.now, client);
        lab.run_until(lab.now + Duration::from_millis(10));
        lab.hosts[1].tcp_release(lab.now, accepted);
        lab.run_until(lab.now + Duration::from_millis(100));
        assert_eq!(lab.hosts[0].tcp_state(client), TcpState::TimeWait, "round {round}");
        match round {
            3 => held.push(client),
            _ => lab.hosts[0].tcp_release(lab.now, client),
        }
    }
    assert_eq!(lab.hosts[0].tcp_connections(), 4);
    assert_eq!(lab.hosts[0].counters().time_waits_shortened, 6);
    assert_eq!(lab.hosts[0].counters().connects_refused, 0);
    // Who is still wanted stays as long as everybody else.
    assert_eq!(lab.hosts[0].tcp_state(held[0]), TcpState::TimeWait);
    lab.run_until(lab.now + Duration::from_secs(11));
    assert_eq!(lab.hosts[0].tcp_state(held[0]), TcpState::Closed);
}

#[test]
fn a_full_table_refuses_both_ways() {
    let small = |host| {
        let mut config = config(host);
        config.limits.tcp_flows = 4;
        config
    };
    let mut lab = Lab::with(small(1), config(2));
    let server = SocketAddr::new(address(2, Family::V4), 80);
    lab.hosts[1].tcp_listen(server).unwrap();
    for _ in 0..4 {
        lab.hosts[0].tcp_connect(lab.now, server).unwrap();
    }
    assert_eq!(lab.hosts[0].tcp_connect(lab.now, server), Err(ConnectError::TableFull));
    assert_eq!(lab.hosts[0].counters().connects_refused, 1);

    let mut lab = Lab::with(config(1), small(2));
    lab.hosts[1].tcp_listen(server).unwrap();
    let clients: Vec<TcpHandle> =
        (0..6).map(|_| lab.hosts[0].tcp_connect(lab.now, server).unwrap()).collect();
    lab.run_until(lab.now + Duration::from_millis(100));
    assert_eq!(lab.hosts[1].counters().tcp_table_full, 2);
    assert!(clients.iter().all(|&c| lab.hosts[0].tcp_error(c).is_none()), "silence, not refusal");
    lab.check();
}

#[test]
fn ten_thousand_connections_come_and_go() {
    let mut lab = Lab::new();
    let server = SocketAddr::new(any(Family::V4), 80);
    let listener = lab.hosts[1].tcp_listen(server).unwrap();
    let to = [address(2, Family::V4), address(2, Family::V6)];
    let v6 = lab.hosts[1].tcp_listen(SocketAddr::new(any(Family::V6), 80)).unwrap();
    let mut allocated = 0;
    for round in 0..10_000 {
        let remote = SocketAddr::new(to[round % 2], 80);
        let client = lab.hosts[0].tcp_connect(lab.now, remote).unwrap();
        lab.drive(50, |lab| lab.hosts[0].tcp_state(client) == TcpState::Established);
        let accept = |lab: &mut Lab| lab.hosts[1].tcp_accept([listener, v6][round % 2]);
        let mut accepted = None;
        lab.drive(50, |lab| {
            accepted = accepted.or_else(|| accept(lab));
            accepted.is_some()
        });
        // Either side may be the one that closes first.
        let (first, last) = if round % 3 == 0 { (0, 1) } else { (1, 0) };
        let handles = [client, accepted.unwrap()];
        lab.hosts[first].tcp_close(lab.now, handles[first]);
        lab.drive(50, |lab| lab.hosts[last].tcp_state(handles[last]) == TcpState::CloseWait);
        lab.hosts[last].tcp_close(lab.now, handles[last]);
        lab.drive(50, |lab| lab.hosts[last].tcp_state(handles[last]) == TcpState::Closed);
        if round % 50 == 49 {
            lab.run_until(lab.now + Duration::from_secs(11));
            assert_eq!([lab.hosts[0].tcp_connections(), lab.hosts[1].tcp_connections()], [0, 0]);
        }
        lab.hosts.iter_mut().for_each(|host| while host.poll_event().is_some() {});
        let now: u64 = lab.hosts.iter().map(|host| host.counters().buffers_allocated).sum();
        if round == 100 {
            allocated = now;
        }
        assert!(round < 100 || now == allocated, "a warm host uses its buffers again");
    }
    lab.check();
}

#[test]
fn a_syn_behind_the_end_reopens_a_connection_in_time_wait() {
    let mut lab = Lab::new();
    let server = SocketAddr::new(address(2, Family::V4), 80);
    let listener = lab.hosts[1].tcp_listen(server).unwrap();
    let client = lab.hosts[0].tcp_connect(lab.now, server).unwrap();
    lab.run_until(lab.now + Duration::from_millis(100));
    let accepted = lab.hosts[1].tcp_accept(listener).unwrap();
    let (local, _) = lab.hosts[0].tcp_endpoints(client).unwrap();
    lab.hosts[1].tcp_close(lab.now, accepted);
    lab.run_until(lab.now + Duration::from_millis(100));
    lab.hosts[0].tcp_close(lab.now, client);
    lab.run_until(lab.now + Duration::from_millis(100));
    assert_eq!(lab.hosts[1].tcp_state(accepted), TcpState::TimeWait);

    // The same client port again, by hand: a SYN far behind and one just behind the old end.
    let end = lab.hosts[1].tcp.peek(accepted.0).unwrap().fin_sequence.unwrap();
    let mut syn = |sequence: u32| {
        let link = &mut lab.hosts[0].link;
        let (mut frame, at) = link.ip_packet(local.ip(), server.ip(), protocol::TCP, 20, 64);
        let bytes = &mut frame.bytes_mut()[at..];
        bytes.fill(0);
        let mut segment = TcpPacket::new_unchecked(bytes);
        segment.set_src_port(local.port());
        segment.set_dst_port(80);
        segment.set_seq_number(smoltcp::wire::TcpSeqNumber(sequence.cast_signed()));
        segment.set_header_len(20);
        segment.set_syn(true);
        segment.fill_checksum(&local.ip().into(), &server.ip().into());
        link.send(frame, server.ip());
        let mut batch = FrameBatch::new();
        lab.hosts[0].poll_transmit(&mut batch);
        lab.hosts[1].handle_frames(lab.now, &mut batch);
        lab.hosts[1].tcp_state(accepted)
    };
    assert_eq!(syn(end.wrapping_sub(1000)), TcpState::TimeWait);
    assert_eq!(syn(end.wrapping_add(1000)), TcpState::Closed);
    assert_eq!(lab.hosts[1].tcp_connections(), 1);
}

#[test]
fn hostile_segments_never_panic() {
    let mut lab = Lab::new();
    let (client, server) = lab.connection(Family::V4);
    let (local, remote) = lab.hosts[0].tcp_endpoints(client).unwrap();
    let mut rng = Seed::from_u64(5).rng("hostile");
    let near = lab.hosts[0].tcp.peek(client.0).unwrap().sequence;
    let acknowledged = lab.hosts[1].tcp.peek(server.0).unwrap().sequence;
    lab.hosts[1].tcp_send(lab.now, server, &pattern(1, 5000)).unwrap();
    for round in 0..20_000 {
        let payload = rng.below(40) as usize;
        let link = &mut lab.hosts[0].link;
        let (mut frame, at) = link.ip_packet(local.ip(), remote.ip(), protocol::TCP, 20 + payload, 64);
        let bytes = &mut frame.bytes_mut()[at..];
        bytes.iter_mut().for_each(|b| *b = octet(&mut rng));
        let mut segment = TcpPacket::new_unchecked(bytes);
        segment.set_src_port(if round % 10 == 0 { u16::from(octet(&mut rng)) + 1 } else { local.port() });
        segment.set_dst_port(remote.port());
        let offset = rng.below(3000).wrapping_sub(1500);
        if round % 2 == 0 {
            segment.set_seq_number(smoltcp::wire::TcpSeqNumber(near.wrapping_add(offset).cast_signed()));
            let ack = acknowledged.wrapping_add(rng.below(3000));
            segment.set_ack_number(smoltcp::wire::TcpSeqNumber(ack.cast_signed()));
            // A RST in the window would end the game early.
            segment.set_rst(false);
            segment.set_syn(round % 64 == 0);
        }
        segment.set_header_len(if round % 7 == 0 { 60 } else { [20, 24, 28, 32][(payload / 4).min(3)] });
        segment.fill_checksum(&local.ip().into(), &remote.ip().into());
        link.send(frame, remote.ip());
        let mut batch = FrameBatch::new();
        lab.hosts[0].link.drain_into(&mut batch);
        lab.hosts[1].handle_frames(lab.now, &mut batch);
        while lab.hosts[1].poll_transmit(&mut batch) {
            batch.drain().for_each(drop);
        }
        lab.now += Duration::from_millis(u64::from(rng.below(20)));
        lab.hosts[1].handle_timeout(lab.now);
    }
    lab.check();
}

#[test]
fn extension_headers_in_front_of_tcp_are_followed() {
    let mut lab = Lab::new();
    let server = SocketAddr::new(address(2, Family::V6), 80);
    lab.hosts[1].tcp_listen(server).unwrap();
    lab.hosts[0].ping(lab.now, server.ip(), 1, 1, b"").unwrap();
    lab.run_until(lab.now + Duration::from_millis(1));
    lab.hosts[0].tcp_connect(lab.now, server).unwrap();
    let mut batch = FrameBatch::new();
    lab.hosts[0].poll_transmit(&mut batch);
    let plain = batch.pop().unwrap();
    let mut bytes = plain.bytes().to_vec();
    // A hop-by-hop header and destination options, of padding both.
    bytes[20] = 0;
    bytes[19] += 16;
    let headers = [60, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0];
    bytes.splice(54..54, headers);
    batch.push(lab.hosts[1].link.pool.copy_of(&bytes)).unwrap();
    lab.hosts[1].handle_frames(lab.now, &mut batch);
    assert_eq!(lab.hosts[1].tcp_connections(), 1);
    assert!(lab.hosts[1].poll_transmit(&mut batch));
    lab.hosts[0].handle_frames(lab.now, &mut batch);
    assert_eq!(lab.hosts[0].counters().drops, [0; DropReason::ALL.len()]);
}
