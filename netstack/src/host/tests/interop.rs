//! A smoltcp interface on Ethernet as the other end: an implementation of ARP, ND, ICMP, UDP and TCP that is not ours.

use super::*;
use alloc::collections::VecDeque;
use smoltcp::iface::{self, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::socket::{icmp, tcp, udp};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, Icmpv4Packet, Icmpv4Repr, Icmpv6Packet, Icmpv6Repr, IpCidr};

#[derive(Default)]
struct Wire {
    to_peer: VecDeque<Vec<u8>>,
    from_peer: VecDeque<Vec<u8>>,
}

struct Rx(Vec<u8>);
struct Tx<'a>(&'a mut VecDeque<Vec<u8>>);

impl phy::RxToken for Rx {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, f: F) -> R {
        f(&self.0)
    }
}

impl phy::TxToken for Tx<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, len: usize, f: F) -> R {
        let mut frame = vec![0; len];
        let result = f(&mut frame);
        self.0.push_back(frame);
        result
    }
}

impl phy::Device for Wire {
    type RxToken<'a> = Rx;
    type TxToken<'a> = Tx<'a>;

    fn receive(&mut self, _: Instant) -> Option<(Rx, Tx<'_>)> {
        let frame = self.to_peer.pop_front()?;
        Some((Rx(frame), Tx(&mut self.from_peer)))
    }

    fn transmit(&mut self, _: Instant) -> Option<Tx<'_>> {
        Some(Tx(&mut self.from_peer))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        // Checksums are verified and made by default.
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = 1514;
        capabilities
    }
}

/// Our host 1 and a smoltcp peer with the addresses of host 2.
struct Pair {
    host: Host,
    wire: Wire,
    peer: Interface,
    sockets: SocketSet<'static>,
    now: Duration,
}

impl Pair {
    fn new() -> Self {
        let mut wire = Wire::default();
        let mut config_peer = iface::Config::new(EthernetAddress(MacAddr::local(2).0).into());
        config_peer.random_seed = 4;
        let mut peer = Interface::new(config_peer, &mut wire, Instant::ZERO);
        peer.update_ip_addrs(|addresses| {
            addresses.push(IpCidr::new(address(2, Family::V4).into(), 24)).unwrap();
            addresses.push(IpCidr::new(address(2, Family::V6).into(), 64)).unwrap();
        });
        let host = Host::new(config(1), Seed::from_u64(1)).unwrap();
        Self { host, wire, peer, sockets: SocketSet::new(Vec::new()), now: Duration::from_secs(50) }
    }

    fn step(&mut self) {
        let mut batch = FrameBatch::new();
        while self.host.poll_transmit(&mut batch) {
            self.wire.to_peer.extend(batch.drain().map(|frame| frame.bytes().to_vec()));
        }
        let now = Instant::from_micros(i64::try_from(self.now.as_micros()).unwrap());
        self.peer.poll(now, &mut self.wire, &mut self.sockets);
        let mut pool = crate::frame::FramePool::new();
        for bytes in core::mem::take(&mut self.wire.from_peer) {
            batch.push(pool.copy_of(&bytes)).unwrap();
            self.host.handle_frames(self.now, &mut batch);
        }
        self.now += Duration::from_millis(1);
        if self.host.poll_timeout().is_some_and(|at| at <= self.now) {
            self.host.handle_timeout(self.now);
        }
    }

    #[track_caller]
    fn drive(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        for _ in 0..20_000 {
            if done(self) {
                return;
            }
            self.step();
        }
        panic!("{what}: not done at {:?}, {:?}", self.now, self.host.counters());
    }

    fn tcp(&mut self) -> SocketHandle {
        let buffer = || tcp::SocketBuffer::new(vec![0; 20_000]);
        self.sockets.add(tcp::Socket::new(buffer(), buffer()))
    }

    /// Sends `data` both ways over an established connection, and closes both.
    fn converse(&mut self, ours: TcpHandle, theirs: SocketHandle) {
        let data = [pattern(1, 150_000), pattern(2, 150_000)];
        let (mut sent, mut got) = ([0, 0], [Vec::new(), Vec::new()]);
        let mut ended = [false, false];
        self.drive("conversation", |pair| {
            if sent[0] < data[0].len() {
                match pair.host.tcp_send(pair.now, ours, &data[0][sent[0]..]) {
                    Ok(count) => sent[0] += count,
                    Err(error) => assert_eq!(error, TcpError::WouldBlock),
                }
                if sent[0] == data[0].len() {
                    pair.host.tcp_close(pair.now, ours);
                }
            }
            let mut buffer = [0; 3000];
            while !ended[0] {
                match pair.host.tcp_recv(pair.now, ours, &mut buffer) {
                    Ok(0) => ended[0] = true,
                    Ok(count) => got[0].extend_from_slice(&buffer[..count]),
                    Err(error) => {
                        assert_eq!(error, TcpError::WouldBlock);
                        break;
                    }
                }
            }
            let socket = pair.sockets.get_mut::<tcp::Socket<'_>>(theirs);
            if sent[1] < data[1].len() {
                sent[1] += socket.send_slice(&data[1][sent[1]..]).unwrap_or(0);
                if sent[1] == data[1].len() {
                    socket.close();
                }
            }
            if socket.can_recv() {
                let count = socket.recv_slice(&mut buffer).unwrap();
                got[1].extend_from_slice(&buffer[..count]);
            }
            ended[1] = !socket.may_recv() && got[1].len() == data[0].len();
            ended == [true, true]
        });
        assert!(got[0] == data[1] && got[1] == data[0]);
        self.drive("the end", |pair| pair.host.tcp_connections() == 0);
    }
}

#[test]
fn our_client_talks_to_their_server() {
    for family in BOTH {
        let mut pair = Pair::new();
        let theirs = pair.tcp();
        pair.sockets.get_mut::<tcp::Socket<'_>>(theirs).listen(80).unwrap();
        let ours = pair.host.tcp_connect(pair.now, SocketAddr::new(address(2, family), 80)).unwrap();
        pair.drive("handshake", |pair| pair.host.tcp_state(ours) == TcpState::Established);
        pair.converse(ours, theirs);
        assert!(pair.host.counters().balanced());
    }
}

#[test]
fn their_client_talks_to_our_server() {
    for family in BOTH {
        let mut pair = Pair::new();
        let listener = pair.host.tcp_listen(SocketAddr::new(any(family), 80)).unwrap();
        let theirs = pair.tcp();
        let socket = pair.sockets.get_mut::<tcp::Socket<'_>>(theirs);
        socket.connect(pair.peer.context(), (address(1, family), 80), 50_000).unwrap();
        let mut ours = None;
        pair.drive("handshake", |pair| {
            ours = ours.or_else(|| pair.host.tcp_accept(listener));
            ours.is_some()
        });
        pair.converse(ours.unwrap(), theirs);
    }
}

#[test]
fn each_refuses_the_others_connect() {
    for family in BOTH {
        let mut pair = Pair::new();
        let ours = pair.host.tcp_connect(pair.now, SocketAddr::new(address(2, family), 81)).unwrap();
        pair.drive("our connect", |pair| pair.host.tcp_error(ours) == Some(TcpError::Refused));
        let theirs = pair.tcp();
        let socket = pair.sockets.get_mut::<tcp::Socket<'_>>(theirs);
        socket.connect(pair.peer.context(), (address(1, family), 81), 50_000).unwrap();
        pair.drive("their connect", |pair| {
            pair.sockets.get::<tcp::Socket<'_>>(theirs).state() == tcp::State::Closed
        });
        assert_eq!(pair.host.counters().dropped(DropReason::NoListener), 1);
    }
}

#[test]
fn datagrams_pass_both_ways() {
    for family in BOTH {
        let mut pair = Pair::new();
        let buffer = || udp::PacketBuffer::new(vec![udp::PacketMetadata::EMPTY; 8], vec![0; 8000]);
        let theirs = pair.sockets.add(udp::Socket::new(buffer(), buffer()));
        pair.sockets.get_mut::<udp::Socket<'_>>(theirs).bind(7).unwrap();
        let ours = pair.host.udp_bind(SocketAddr::new(any(family), 5000)).unwrap();
        for len in [0, 1, 999, 1400] {
            let data = pattern(len as u64, len);
            let to = SocketAddr::new(address(2, family), 7);
            pair.host.udp_send_to(pair.now, ours, &data, to).unwrap();
            pair.drive("to the peer", |pair| pair.sockets.get::<udp::Socket<'_>>(theirs).can_recv());
            let socket = pair.sockets.get_mut::<udp::Socket<'_>>(theirs);
            let (got, meta) = socket.recv().unwrap();
            assert_eq!(got, data);
            let got = got.to_vec();
            socket.send_slice(&got, meta).unwrap();
            let mut back = vec![0; 2000];
            let mut datagram = None;
            pair.drive("back", |pair| {
                datagram = pair.host.udp_recv_from(ours, &mut back).ok();
                datagram.is_some()
            });
            assert_eq!(&back[..datagram.unwrap().len], data);
        }
        // The peer says that nobody listens where nobody does.
        pair.host.udp_send_to(pair.now, ours, b"?", SocketAddr::new(address(2, family), 8)).unwrap();
        let code = if family == Family::V4 { 3 } else { 4 };
        pair.drive("port unreachable", |pair| {
            matches!(
                pair.host.poll_event(),
                Some(HostEvent::IcmpError { error: IcmpError::Unreachable { code: c }, .. }) if c == code
            )
        });
    }
}

#[test]
fn each_answers_the_others_ping() {
    for family in BOTH {
        let mut pair = Pair::new();
        pair.host.ping(pair.now, address(2, family), 9, 1, b"are you there").unwrap();
        pair.drive("our ping", |pair| {
            matches!(pair.host.poll_event(), Some(HostEvent::EchoReply { id: 9, sequence: 1, payload, .. })
                if &payload[..] == b"are you there")
        });

        let buffer = || icmp::PacketBuffer::new(vec![icmp::PacketMetadata::EMPTY; 4], vec![0; 1000]);
        let theirs = pair.sockets.add(icmp::Socket::new(buffer(), buffer()));
        let socket = pair.sockets.get_mut::<icmp::Socket<'_>>(theirs);
        socket.bind(icmp::Endpoint::Ident(0x22)).unwrap();
        let checksums = phy::ChecksumCapabilities::default();
        let (ident, seq_no, data) = (0x22, 3, &b"and you"[..]);
        match (address(1, family), address(2, family)) {
            (IpAddr::V6(to), IpAddr::V6(from)) => {
                let request = Icmpv6Repr::EchoRequest { ident, seq_no, data };
                let room = socket.send(request.buffer_len(), IpAddr::V6(to).into()).unwrap();
                request.emit(&from, &to, &mut Icmpv6Packet::new_unchecked(room), &checksums);
            }
            (to, _) => {
                let request = Icmpv4Repr::EchoRequest { ident, seq_no, data };
                let room = socket.send(request.buffer_len(), to.into()).unwrap();
                request.emit(&mut Icmpv4Packet::new_unchecked(room), &checksums);
            }
        }
        pair.drive("their ping", |pair| pair.sockets.get::<icmp::Socket<'_>>(theirs).can_recv());
        let (reply, from) = pair.sockets.get_mut::<icmp::Socket<'_>>(theirs).recv().unwrap();
        assert_eq!((&reply[8..], IpAddr::from(from)), (data, address(1, family)));
    }
}
