//! A client and a name server on one link, on a virtual clock.

use dns::kubernetes::{Endpoint, Service, Shape};
use dns::{DomainName, Registrar};
use netstack::host::TcpState;

use super::*;

const SERVER: [&str; 2] = ["10.96.0.10", "fd00:10:96::a"];
const CLIENT: [&str; 2] = ["10.244.0.1", "fd00:10:244::1"];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn zone() -> Zone {
    let domain = DomainName::parse("cluster.local").unwrap();
    let mut registrar = Registrar::new(domain.clone(), &["ns"], &[]).unwrap();
    let service = |name: &str, shape, endpoints| Service {
        namespace: "default".into(),
        name: name.into(),
        shape,
        ports: Vec::new(),
        endpoints,
    };
    let endpoint = |n: u8| Endpoint { address: [10, 244, 0, n].into(), hostname: None };
    let web = service("web", Shape::Addresses(vec![ip("10.96.0.20"), ip("fd00:10:96::20")]), Vec::new());
    let large = service("large", Shape::Headless, (0..200).map(endpoint).collect());
    for service in [web, large] {
        registrar.set(&service.name.as_str().into(), service.records(&domain));
    }
    registrar.zone().clone()
}

/// A query for A records.
fn query(id: u16, name: &str) -> Vec<u8> {
    let name = DomainName::parse(name).unwrap();
    let header = [id.to_be_bytes(), [1, 0], [0, 1], [0, 0], [0, 0], [0, 0]].concat();
    [&header[..], name.wire(), &[0, 1, 0, 1]].concat()
}

/// Identifier, code and number of answers.
fn read(answer: &[u8]) -> (u16, u8, u16) {
    let word = |at: usize| u16::from_be_bytes([answer[at], answer[at + 1]]);
    (word(0), answer[3] & 0xf, word(6))
}

struct World {
    now: Duration,
    server: NameServer,
    client: Host,
    frames: FramePool,
    /// How often the server was turned.
    turns: usize,
}

impl World {
    fn new() -> Self {
        let gateways = CLIENT.map(ip);
        let server =
            NameServer::new(MacAddr::local(1), &SERVER.map(ip), &gateways, 1500, Seed::from_u64(1)).unwrap();
        assert!(server.listens());
        let nets = [IpNet::new(gateways[0], 8).unwrap(), IpNet::new(gateways[1], 16).unwrap()];
        let config = HostConfig::new(MacAddr::local(2), nets.to_vec());
        let client = Host::new(config, Seed::from_u64(2)).unwrap();
        Self { now: Duration::from_secs(1), server, client, frames: FramePool::new(), turns: 0 }
    }

    fn with_zone() -> Self {
        let mut world = Self::new();
        world.server.install(zone());
        world
    }

    fn exchange(&mut self) -> bool {
        let mut batch = FrameBatch::new();
        let mut any = false;
        while self.client.poll_transmit(&mut batch) {
            any = true;
            let frames: Vec<Vec<u8>> = batch.drain().map(|frame| frame.bytes().to_vec()).collect();
            for bytes in frames {
                batch.push(self.frames.copy_of(&bytes)).unwrap();
                self.turns += 1;
                self.server.handle_frames(self.now, PortId(0), &mut batch);
            }
        }
        while self.server.poll_transmit(&mut batch).is_some() {
            any = true;
            let frames: Vec<Vec<u8>> = batch.drain().map(|frame| frame.bytes().to_vec()).collect();
            for bytes in frames {
                batch.push(self.frames.copy_of(&bytes)).unwrap();
                self.client.handle_frames(self.now, &mut batch);
            }
        }
        any
    }

    /// Goes on until nothing happens any more within `span`.
    fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            while self.exchange() {
                self.now += Duration::from_micros(50);
            }
            match self.client.poll_timeout().into_iter().chain(self.server.poll_timeout()).min() {
                Some(next) if next <= end => self.now = self.now.max(next),
                _ => break,
            }
            self.turns += 1;
            self.client.handle_timeout(self.now);
            self.server.handle_timeout(self.now);
        }
        self.now = end;
    }

    fn connect(&mut self, server: &str) -> TcpHandle {
        let client = self.client.tcp_connect(self.now, SocketAddr::new(ip(server), PORT)).unwrap();
        self.run(Duration::from_millis(100));
        assert_eq!(self.client.tcp_state(client), TcpState::Established);
        client
    }

    fn send(&mut self, client: TcpHandle, octets: &[u8]) {
        assert_eq!(self.client.tcp_send(self.now, client, octets), Ok(octets.len()));
        self.run(Duration::from_millis(100));
    }

    fn receive(&mut self, client: TcpHandle) -> Vec<u8> {
        let (mut all, mut buffer) = (Vec::new(), vec![0; 65_536]);
        loop {
            match self.client.tcp_recv(self.now, client, &mut buffer) {
                Ok(0) | Err(_) => return all,
                Ok(count) => all.extend_from_slice(&buffer[..count]),
            }
            self.run(Duration::from_millis(100));
        }
    }
}

fn framed(message: &[u8]) -> Vec<u8> {
    [&u16::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
}

/// The messages of a stream.
fn split(mut stream: &[u8]) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    while let [high, low, rest @ ..] = stream {
        let (message, more) = rest.split_at(usize::from(u16::from_be_bytes([*high, *low])));
        all.push(message.to_vec());
        stream = more;
    }
    all
}

#[test]
fn datagrams_are_answered_from_the_address_that_was_asked_in_both_families() {
    let mut world = World::with_zone();
    let mut buffer = [0; 2000];
    for (at, any) in SERVER.into_iter().zip(["0.0.0.0", "::"]) {
        let socket = world.client.udp_bind(SocketAddr::new(ip(any), 0)).unwrap();
        let to = SocketAddr::new(ip(at), PORT);
        for (id, name, expected) in [
            (7, "web.default.svc.cluster.local", (0, 1)),
            (8, "none.cluster.local", (3, 0)),
            (9, "example.com", (2, 0)),
        ] {
            world.client.udp_send_to(world.now, socket, &query(id, name), to).unwrap();
            world.run(Duration::from_millis(10));
            let datagram = world.client.udp_recv_from(socket, &mut buffer).unwrap();
            assert_eq!(datagram.from, to);
            assert_eq!(read(&buffer[..datagram.len]), (id, expected.0, expected.1), "{name}");
        }
    }
    let counters = world.server.counters();
    assert_eq!((counters.asked, counters.queries.total(), counters.unsent), ([6, 0], 6, 0));
}

#[test]
fn crowds_of_clients_are_all_answered() {
    let mut world = World::with_zone();
    let mut answered = 0;
    // Few packets wait for a neighbour that is not known yet.
    let first = world.client.udp_bind(SocketAddr::new(ip("0.0.0.0"), 0)).unwrap();
    let to = SocketAddr::new(ip(SERVER[0]), PORT);
    world.client.udp_send_to(world.now, first, &query(0, "cluster.local"), to).unwrap();
    world.run(Duration::from_millis(1));
    for round in 0..400 {
        let any = SocketAddr::new(ip("0.0.0.0"), 0);
        let sockets: Vec<UdpHandle> = (0..50).map(|_| world.client.udp_bind(any).unwrap()).collect();
        for (id, socket) in sockets.iter().enumerate() {
            let question = query(u16::try_from(id).unwrap(), "web.default.svc.cluster.local");
            world.client.udp_send_to(world.now, *socket, &question, to).unwrap();
        }
        world.run(Duration::from_micros(500));
        for (id, socket) in sockets.into_iter().enumerate() {
            let mut buffer = [0; 600];
            let datagram = world.client.udp_recv_from(socket, &mut buffer);
            let datagram = datagram.unwrap_or_else(|error| panic!("{round} {id}: {error}"));
            assert_eq!(usize::from(read(&buffer[..datagram.len]).0), id);
            world.client.udp_close(socket);
            answered += 1;
        }
    }
    assert_eq!(answered, 20_000);
}

#[test]
fn questions_over_tcp_may_come_all_at_once_and_octet_by_octet() {
    for server in SERVER {
        let mut world = World::with_zone();
        let client = world.connect(server);
        let names =
            ["web.default.svc.cluster.local", "none.cluster.local", "large.default.svc.cluster.local"];
        let questions = (0u16..).zip(names).map(|(id, name)| framed(&query(id, name)));
        let all = questions.collect::<Vec<_>>().concat();
        world.send(client, &all);
        let expected = [(0, 0, 1), (1, 3, 0), (2, 0, 200)];
        let answers = world.receive(client);
        assert_eq!(split(&answers).iter().map(|answer| read(answer)).collect::<Vec<_>>(), expected);
        for octet in &all {
            world.send(client, &[*octet]);
        }
        let answers = world.receive(client);
        assert_eq!(split(&answers).iter().map(|answer| read(answer)).collect::<Vec<_>>(), expected);
        assert_eq!((world.server.connected(), world.server.counters().asked), (1, [0, 6]));
        // Who says that he has asked everything still gets his answer.
        world.client.tcp_send(world.now, client, &framed(&query(9, names[0]))).unwrap();
        world.client.tcp_close(world.now, client);
        world.run(Duration::from_millis(100));
        let answers = world.receive(client);
        assert_eq!(read(&split(&answers)[0]), (9, 0, 1));
        assert_eq!(world.server.connected(), 0);
    }
}

#[test]
fn a_client_that_reads_slowly_gets_everything_and_costs_little() {
    let mut world = World::with_zone();
    let client = world.connect(SERVER[0]);
    let one = framed(&query(1, "large.default.svc.cluster.local"));
    let (mut asked, mut answers) = (0, Vec::new());
    while asked < 500 {
        // Nothing is read while there is room to ask.
        while asked < 500 && world.client.tcp_send(world.now, client, &one) == Ok(one.len()) {
            asked += 1;
            world.run(Duration::from_millis(10));
        }
        let stream = &world.server.streams.values().next().unwrap();
        assert!(stream.waiting() < 200_000, "{}", stream.waiting());
        answers.extend(world.receive(client));
    }
    world.run(Duration::from_secs(1));
    answers.extend(world.receive(client));
    let answers = split(&answers);
    assert_eq!(answers.len(), 500);
    assert!(answers.iter().all(|answer| read(answer) == (1, 0, 200)));
}

#[test]
fn a_client_that_sends_two_octets_and_leaves_is_forgotten() {
    let mut world = World::with_zone();
    let client = world.connect(SERVER[0]);
    world.send(client, &[0, 40]);
    assert_eq!(world.server.connected(), 1);
    world.client.tcp_close(world.now, client);
    world.run(Duration::from_secs(1));
    assert_eq!(world.server.connected(), 0);
    let turns = world.turns;
    world.run(Duration::from_secs(60));
    assert!(world.turns - turns < 100, "{} turns for nothing", world.turns - turns);
}

#[test]
fn a_client_that_is_silent_is_let_go_also_in_the_middle_of_a_question() {
    let mut world = World::with_zone();
    let (silent, half, busy) = (world.connect(SERVER[0]), world.connect(SERVER[0]), world.connect(SERVER[1]));
    let one = framed(&query(1, "web.default.svc.cluster.local"));
    for second in 0..15 {
        // What is never a whole question does not count.
        if let Some(octet) = one.get(second) {
            let _ = world.client.tcp_send(world.now, half, &[*octet]);
        }
        world.send(busy, &one);
        world.run(Duration::from_secs(1));
    }
    assert_eq!(world.server.connected(), 1);
    assert_eq!(world.server.counters().idle, 2);
    assert_eq!(split(&world.receive(busy)).len(), 15);
    let mut buffer = [0; 10];
    for gone in [silent, half] {
        assert!(world.client.tcp_recv(world.now, gone, &mut buffer).is_err());
    }
}

#[test]
fn what_is_no_question_ends_a_connection() {
    let mut world = World::with_zone();
    let client = world.connect(SERVER[0]);
    let mut response = query(1, "web.default.svc.cluster.local");
    response[2] |= 0x80;
    world.send(client, &[framed(&query(2, "cluster.local")), framed(&response), framed(&response)].concat());
    assert_eq!(split(&world.receive(client)).len(), 1);
    world.run(Duration::from_secs(1));
    assert_eq!(world.server.connected(), 0);
}

#[test]
fn who_knows_nothing_yet_says_nothing() {
    let mut world = World::new();
    let socket = world.client.udp_bind(SocketAddr::new(ip("0.0.0.0"), 0)).unwrap();
    let question = query(1, "web.default.svc.cluster.local");
    let to = SocketAddr::new(ip(SERVER[0]), PORT);
    let mut buffer = [0; 600];
    world.client.udp_send_to(world.now, socket, &question, to).unwrap();
    world.run(Duration::from_secs(1));
    assert!(world.client.udp_recv_from(socket, &mut buffer).is_err());
    world.server.install(zone());
    world.client.udp_send_to(world.now, socket, &question, to).unwrap();
    world.run(Duration::from_secs(1));
    assert!(world.client.udp_recv_from(socket, &mut buffer).is_ok());
}
