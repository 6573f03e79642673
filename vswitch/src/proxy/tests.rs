//! Clients, a proxy and backends on one link, on a virtual clock.

use std::sync::Arc;

use lb::{Backend, Entrance, Policy, Pool, Refusal, Service, Way};
use netstack::host::{TcpError, TcpHandle, TcpState};

use super::*;

const PROXY: u8 = 100;
/// The port of the proxy that stands for the Service.
const PORT: u16 = 2000;
const CLIENT: usize = 0;

fn address(host: u8, v6: bool) -> IpAddr {
    if v6 {
        IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(host)])
    } else {
        IpAddr::from([10, 0, 0, host])
    }
}

fn nets(host: u8) -> Vec<IpNet> {
    vec![IpNet::new(address(host, false), 24).unwrap(), IpNet::new(address(host, true), 64).unwrap()]
}

fn frontend(protocol: u8, v6: bool) -> Frontend {
    Frontend { address: address(PROXY, v6), protocol, port: PORT }
}

/// A registry in which each protocol and family of the Service has these backends.
fn registry(backends: &[u8], affinity: Option<Duration>) -> Registry {
    let mut registry = Registry::new();
    for (v6, protocol) in [false, true].into_iter().flat_map(|v6| [(v6, protocol::TCP), (v6, protocol::UDP)])
    {
        let backends: Vec<Backend> = backends
            .iter()
            .map(|&host| Backend { address: address(host, v6), port: 80, weight: 1 })
            .collect();
        let serving = backends.iter().map(|backend| (backend.address, backend.port)).collect();
        let pool = Arc::new(Pool::new(backends, Policy::RoundRobin, None, [0; 16]).unwrap());
        let way = Way { pool, masquerade: false, when_empty: Refusal::Reject };
        let ways = [way.clone(), way.clone(), way];
        let entrances = vec![Entrance { frontend: frontend(protocol, v6), sources: Vec::new(), ways }];
        let name = format!("default/web:{protocol}:{v6}").into();
        registry.set(Service { name, entrances, affinity, serving, reset_gone: true }).unwrap();
    }
    registry
}

/// Host 0 is the client, hosts 1 and up are backends that listen on port 80; host number `n` has the address `n + 1`.
struct World {
    now: Duration,
    proxy: ServiceProxy,
    hosts: Vec<Host>,
    listeners: Vec<[TcpListener; 2]>,
    sockets: Vec<[UdpHandle; 2]>,
    frames: FramePool,
}

impl World {
    fn new(backends: u8) -> Self {
        let proxy =
            ServiceProxy::new(MacAddr::local(100), nets(PROXY), &[], 1500, [7; 16], Seed::from_u64(100));
        let mut world = Self {
            now: Duration::from_secs(1),
            proxy: proxy.unwrap(),
            hosts: Vec::new(),
            listeners: Vec::new(),
            sockets: Vec::new(),
            frames: FramePool::new(),
        };
        for number in 1..=backends + 1 {
            let mut config = HostConfig::new(MacAddr::local(u64::from(number)), nets(number));
            config.limits.udp_sockets = 2 * SESSIONS;
            let mut host = Host::new(config, Seed::from_u64(u64::from(number))).unwrap();
            let at = [false, true].map(|v6| SocketAddr::new(address(number, v6), 80));
            world.listeners.push(at.map(|at| host.tcp_listen(at).unwrap()));
            world.sockets.push(at.map(|at| host.udp_bind(at).unwrap()));
            world.hosts.push(host);
        }
        world
    }

    fn install(&mut self, registry: Registry) {
        assert_eq!(self.proxy.install(self.now, registry), []);
    }

    /// Carries all frames there are; returns whether there were any.
    fn exchange(&mut self) -> bool {
        let mut sent: Vec<(usize, Vec<u8>)> = Vec::new();
        let mut batch = FrameBatch::new();
        for (at, host) in self.hosts.iter_mut().enumerate() {
            while host.poll_transmit(&mut batch) {
                sent.extend(batch.drain().map(|frame| (at, frame.bytes().to_vec())));
            }
        }
        while self.proxy.poll_transmit(&mut batch).is_some() {
            sent.extend(batch.drain().map(|frame| (usize::MAX, frame.bytes().to_vec())));
        }
        for (from, bytes) in &sent {
            for (_, host) in self.hosts.iter_mut().enumerate().filter(|(at, _)| at != from) {
                batch.push(self.frames.copy_of(bytes)).unwrap();
                host.handle_frames(self.now, &mut batch);
            }
            if *from != usize::MAX {
                batch.push(self.frames.copy_of(bytes)).unwrap();
                self.proxy.handle_frames(self.now, PortId(0), &mut batch);
            }
        }
        !sent.is_empty()
    }

    /// Goes on until nothing happens any more within `span`.
    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            while self.exchange() {
                self.now += Duration::from_micros(50);
            }
            let hosts = self.hosts.iter().filter_map(Host::poll_timeout);
            match hosts.chain(self.proxy.poll_timeout()).min() {
                Some(next) if next <= end => self.now = self.now.max(next),
                _ => break,
            }
            let now = self.now;
            self.hosts.iter_mut().for_each(|host| host.handle_timeout(now));
            self.proxy.handle_timeout(now);
        }
        self.now = end;
    }

    fn settle(&mut self) {
        self.run(Duration::from_millis(20));
    }

    fn connect(&mut self, v6: bool) -> TcpHandle {
        let to = SocketAddr::new(address(PROXY, v6), PORT);
        let connection = self.hosts[CLIENT].tcp_connect(self.now, to).unwrap();
        self.settle();
        connection
    }

    /// The connections that backend `host` has got.
    fn accept(&mut self, host: usize, v6: bool) -> Option<TcpHandle> {
        let listener = self.listeners[host][usize::from(v6)];
        self.hosts[host].tcp_accept(listener)
    }

    fn send(&mut self, host: usize, connection: TcpHandle, octets: &[u8]) {
        assert_eq!(self.hosts[host].tcp_send(self.now, connection, octets), Ok(octets.len()));
        self.settle();
    }

    fn receive(&mut self, host: usize, connection: TcpHandle) -> Result<Vec<u8>, TcpError> {
        let mut buffer = [0; 4096];
        let count = self.hosts[host].tcp_recv(self.now, connection, &mut buffer)?;
        Ok(buffer[..count].to_vec())
    }
}

#[test]
fn a_client_and_a_backend_have_a_connection_each() {
    for v6 in [false, true] {
        let mut world = World::new(1);
        world.install(registry(&[2], None));
        let client = world.connect(v6);
        let backend = world.accept(1, v6).unwrap();
        let (_, seen) = world.hosts[1].tcp_endpoints(backend).unwrap();
        assert_eq!(seen.ip(), address(PROXY, v6));
        let (own, _) = world.hosts[CLIENT].tcp_endpoints(client).unwrap();
        assert_ne!(own.port(), seen.port());
        world.send(CLIENT, client, b"question");
        assert_eq!(world.receive(1, backend).unwrap(), b"question");
        // The client has said all, and is still answered.
        world.hosts[CLIENT].tcp_close(world.now, client);
        world.settle();
        assert_eq!(world.receive(1, backend).unwrap(), b"");
        world.send(1, backend, b"answer");
        assert_eq!(world.receive(CLIENT, client).unwrap(), b"answer");
        assert_eq!(world.receive(CLIENT, client), Err(TcpError::WouldBlock));
        world.hosts[1].tcp_close(world.now, backend);
        world.settle();
        assert_eq!(world.receive(CLIENT, client).unwrap(), b"");
        assert_eq!(world.proxy.carried(), (0, 0));
        let counters = world.proxy.counters();
        assert_eq!((counters.accepted, counters.octets, counters.refused), (1, 14, 0));
    }
}

#[test]
fn much_is_carried_whole_and_in_order_both_ways() {
    let mut world = World::new(1);
    world.install(registry(&[2], None));
    let client = world.connect(false);
    let backend = world.accept(1, false).unwrap();
    let octets: Vec<u8> = (0..1_000_000u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    let (mut to, mut fro) = ((0, Vec::new()), (0, Vec::new()));
    for _ in 0..20_000 {
        for (from, at, (sent, got)) in
            [((CLIENT, client), (1, backend), &mut to), ((1, backend), (CLIENT, client), &mut fro)]
        {
            let end = octets.len().min(*sent + 20_000);
            *sent += world.hosts[from.0].tcp_send(world.now, from.1, &octets[*sent..end]).unwrap_or(0);
            world.run(Duration::from_micros(200));
            while let Ok(some) = world.receive(at.0, at.1) {
                got.extend(some);
            }
        }
        if to.1.len() + fro.1.len() == 2 * octets.len() {
            break;
        }
    }
    assert!(to.1 == octets && fro.1 == octets);
}

#[test]
fn backends_take_turns_and_one_that_refuses_is_passed_over() {
    let mut world = World::new(3);
    // Nobody listens at the second any more.
    world.install(registry(&[2, 3, 4], None));
    let refusing = world.listeners[2][0];
    world.hosts[2].tcp_unlisten(world.now, refusing);
    for _ in 0..6 {
        let client = world.connect(false);
        assert_eq!(world.hosts[CLIENT].tcp_state(client), TcpState::Established);
    }
    let count = |world: &mut World, host| std::iter::from_fn(|| world.accept(host, false)).count();
    assert_eq!(count(&mut world, 1) + count(&mut world, 3), 6);
    assert_eq!(world.proxy.counters().refused, 0);
    assert!(world.proxy.counters().retried >= 1);
}

#[test]
fn a_client_is_reset_when_nobody_can_be_reached_and_when_its_backend_fails() {
    let mut world = World::new(1);
    world.install(registry(&[2], None));
    let client = world.connect(true);
    let backend = world.accept(1, true).unwrap();
    world.hosts[1].tcp_abort(world.now, backend);
    world.settle();
    assert_eq!(world.receive(CLIENT, client), Err(TcpError::Reset));
    for listener in world.listeners[1] {
        world.hosts[1].tcp_unlisten(world.now, listener);
    }
    let client = world.connect(true);
    assert_eq!(world.receive(CLIENT, client), Err(TcpError::Reset));
    assert_eq!((world.proxy.carried(), world.proxy.counters().refused), ((0, 0), 1));
    // And the other way round.
    let mut world = World::new(1);
    world.install(registry(&[2], None));
    let client = world.connect(false);
    let backend = world.accept(1, false).unwrap();
    world.hosts[CLIENT].tcp_abort(world.now, client);
    world.settle();
    assert_eq!(world.receive(1, backend), Err(TcpError::Reset));
    assert_eq!(world.proxy.carried(), (0, 0));
}

#[test]
fn a_client_with_affinity_stays_with_its_backend_as_long_as_there_is_one() {
    let mut world = World::new(3);
    world.install(registry(&[2, 3, 4], Some(Duration::from_secs(100))));
    let served = |world: &mut World| {
        world.connect(false);
        (1..=3).find(|&host| world.accept(host, false).is_some()).unwrap()
    };
    let first = served(&mut world);
    for _ in 0..5 {
        assert_eq!(served(&mut world), first);
    }
    let others: Vec<u8> = [2, 3, 4].into_iter().filter(|&host| usize::from(host) != first + 1).collect();
    world.install(registry(&others, Some(Duration::from_secs(100))));
    assert_ne!(served(&mut world), first);
}

#[test]
fn each_client_of_udp_has_a_backend_until_that_is_gone_or_it_is_silent() {
    for v6 in [false, true] {
        let mut world = World::new(2);
        world.install(registry(&[2, 3], None));
        let at = SocketAddr::new(address(PROXY, v6), PORT);
        let own = |world: &mut World, port| {
            world.hosts[CLIENT].udp_bind(SocketAddr::new(address(1, v6), port)).unwrap()
        };
        let sockets = [own(&mut world, 5000), own(&mut world, 5001)];
        let mut buffer = [0; 64];
        // Who serves a client: whoever gets its datagram, and answers.
        let mut served = |world: &mut World, socket| {
            world.hosts[CLIENT].udp_send_to(world.now, socket, b"ping", at).unwrap();
            world.settle();
            let mut by = None;
            for host in 1..=2 {
                let theirs = world.sockets[host][usize::from(v6)];
                if let Ok(datagram) = world.hosts[host].udp_recv_from(theirs, &mut buffer) {
                    assert_eq!(
                        (&buffer[..datagram.len], datagram.from.ip()),
                        (&b"ping"[..], address(PROXY, v6))
                    );
                    world.hosts[host].udp_send_to(world.now, theirs, b"pong", datagram.from).unwrap();
                    by = Some(host);
                }
            }
            world.settle();
            let answer = world.hosts[CLIENT].udp_recv_from(socket, &mut buffer).unwrap();
            assert_eq!((&buffer[..answer.len], answer.from), (&b"pong"[..], at));
            by.unwrap()
        };
        let (one, other) = (served(&mut world, sockets[0]), served(&mut world, sockets[1]));
        assert_ne!(one, other, "they take turns");
        assert_eq!((served(&mut world, sockets[0]), served(&mut world, sockets[1])), (one, other));
        assert_eq!(world.proxy.carried(), (0, 2));
        let left = u8::try_from(other + 1).unwrap();
        world.install(registry(&[left], None));
        assert_eq!(served(&mut world, sockets[0]), other);
        world.run(Duration::from_secs(200));
        assert_eq!(world.proxy.carried(), (0, 0));
    }
}

#[test]
fn at_the_limit_a_silent_client_of_udp_makes_room_for_a_new_one() {
    let mut world = World::new(1);
    world.install(registry(&[2], None));
    let at = SocketAddr::new(address(PROXY, false), PORT);
    let clients: Vec<UdpHandle> = (0..=u16::try_from(SESSIONS).unwrap())
        .map(|n| world.hosts[CLIENT].udp_bind(SocketAddr::new(address(1, false), 10_000 + n)).unwrap())
        .collect();
    // With which port of the proxy the backend sees a client.
    let seen = |world: &mut World, client: UdpHandle| {
        world.now += Duration::from_micros(10);
        world.hosts[CLIENT].udp_send_to(world.now, client, b"ping", at).unwrap();
        while world.exchange() {}
        let theirs = world.sockets[1][0];
        world.hosts[1].udp_recv_from(theirs, &mut [0; 64]).unwrap().from.port()
    };
    let (last, first) = clients.split_last().unwrap();
    let ports: Vec<u16> = first.iter().map(|client| seen(&mut world, *client)).collect();
    // The first of all goes on speaking, so it is the second that has been silent longest.
    assert_eq!(seen(&mut world, first[0]), ports[0]);
    seen(&mut world, *last);
    assert_eq!((world.proxy.carried().1, world.proxy.counters().displaced), (first.len(), 1));
    assert_eq!(seen(&mut world, first[0]), ports[0]);
    assert_eq!(seen(&mut world, first[2]), ports[2]);
    assert_ne!(seen(&mut world, first[1]), ports[1]);
    assert_eq!((world.proxy.counters().displaced, world.proxy.counters().datagrams_dropped), (2, 0));
}

#[test]
fn a_service_that_goes_takes_its_listeners_along() {
    let mut world = World::new(1);
    world.install(registry(&[2], None));
    world.connect(false);
    world.install(Registry::new());
    let client = world.connect(false);
    assert_eq!(world.hosts[CLIENT].tcp_error(client), Some(TcpError::Refused));
    world.install(registry(&[2], None));
    let client = world.connect(false);
    assert_eq!(world.hosts[CLIENT].tcp_state(client), TcpState::Established);
}
