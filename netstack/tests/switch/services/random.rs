//! Services that come, change and go under traffic of every kind, with a plain model beside the switch.
//!
//! The model knows which services there are, which flow has which backend and which clients are remembered. It does not
//! know how a backend is chosen, only among whom. Connections live longer than any history, so that none ends unseen.

use std::collections::BTreeSet;

use netstack::config::nat::Timeouts;
use proptest::prelude::*;
use proptest::sample::Index;

use super::*;

const CLIENTS: [Host; 6] = [POD_A, POD_B, GUEST, OTHER, FAR, NODE];
const SERVERS: [(Host, u16); 6] =
    [(POD_A, 8001), (POD_B, 8001), (POD_B, 8002), (GUEST, 8001), (NODE, 8001), (FAR, 8001)];
/// The ports of those who share a bridge.
const PODS: [u16; 4] = [POD_A.port, POD_B.port, GUEST.port, OTHER.port];
/// Those that answer clients from outside by an entrance that keeps to its own.
const LOCAL: u8 = 0b0111;
/// Each service's protocol, and which of two addresses is its own; those of the first have a port of the node as well.
const SERVICES: [(u8, usize); 5] = [(TCP, 0), (UDP, 0), (SCTP, 0), (UDP, 1), (TCP, 1)];
const ADDRESSES: [[&str; 2]; 2] = [VIP, ["10.96.0.11", "fd00:96::11"]];
const NODE_PORT: u16 = 30_080;
const SERVER_SEQUENCE: u32 = 9000;
const CLIENT_TAG: [u8; 4] = [0, 0, 0, 7];
const SERVER_TAG: [u8; 4] = [0, 0, 0, 9];

/// What a service is to be.
#[derive(Clone, Debug)]
struct Wish {
    /// Bits of [`SERVERS`].
    backends: u8,
    finishing: u8,
    affinity: Option<u64>,
    reset: bool,
    /// Clients in the cluster.
    masquerade: bool,
    /// Clients from outside keep their address, and get a backend of [`LOCAL`] or no answer.
    local: bool,
    /// Nobody but the node may ask.
    closed: bool,
    policy: Policy,
}

#[derive(Clone, Debug)]
enum Step {
    Set {
        family: Family,
        which: usize,
        wish: Wish,
    },
    Remove {
        family: Family,
        which: usize,
    },
    /// Everything is read anew, as after a change of a file; or from whoever has kept it from the beginning.
    Anew,
    Kept,
    /// There are no services for a moment.
    Blink,
    Ask {
        family: Family,
        which: usize,
        client: usize,
        port: u16,
        by_node: bool,
    },
    /// A client sends more, a backend answers, or both end what they have.
    More(Index),
    Answer(Index),
    Close(Index),
    /// A port that no service has, or an address.
    Stray {
        family: Family,
        client: usize,
        protocol: u8,
        free: bool,
    },
    Wait(u64),
}

fn family() -> impl Strategy<Value = Family> {
    prop::sample::select(FAMILIES.to_vec())
}

fn wish() -> impl Strategy<Value = Wish> {
    let servers = || prop_oneof![4 => 0u8..64, 1 => Just(0)];
    let policies = vec![Policy::Maglev, Policy::Random, Policy::RoundRobin, Policy::Rendezvous];
    let flags = (any::<bool>(), prop::bool::weighted(0.2), any::<bool>(), prop::bool::weighted(0.1));
    (servers(), servers(), proptest::option::of(1u64..12), flags, prop::sample::select(policies)).prop_map(
        |(backends, finishing, affinity, (reset, masquerade, local, closed), policy)| Wish {
            backends,
            finishing,
            affinity,
            reset,
            masquerade,
            local,
            closed,
            policy,
        },
    )
}

fn step() -> impl Strategy<Value = Step> {
    let (services, clients) = (0..SERVICES.len(), 0..CLIENTS.len());
    prop_oneof![
        6 => (family(), services.clone(), wish())
            .prop_map(|(family, which, wish)| Step::Set { family, which, wish }),
        1 => (family(), services.clone()).prop_map(|(family, which)| Step::Remove { family, which }),
        1 => prop_oneof![2 => Just(Step::Blink), 1 => Just(Step::Anew), 2 => Just(Step::Kept)],
        12 => (family(), services, clients.clone(), 0u16..3, prop::bool::weighted(0.3)).prop_map(
            |(family, which, client, port, by_node)| Step::Ask { family, which, client, port, by_node }
        ),
        8 => any::<Index>().prop_map(Step::More),
        8 => any::<Index>().prop_map(Step::Answer),
        2 => any::<Index>().prop_map(Step::Close),
        1 => (family(), clients, prop::sample::select(vec![TCP, UDP, SCTP]), any::<bool>())
            .prop_map(|(family, client, protocol, free)| Step::Stray { family, client, protocol, free }),
        1 => (0u64..4000).prop_map(Step::Wait),
    ]
}

/// A flow by what its client sends.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Key {
    service: usize,
    v6: bool,
    client: usize,
    port: u16,
    asked: SocketAddr,
}

#[derive(Clone, Debug)]
struct Flow {
    server: usize,
    /// Whom the server sees.
    seen: SocketAddr,
    answered: bool,
    closed: bool,
    /// When its service came.
    since: usize,
    sequence: u32,
}

#[derive(Clone, Debug)]
struct Known {
    wish: Wish,
    since: usize,
}

/// What becomes of a packet.
#[derive(Debug)]
enum Expected {
    /// One of these answers: bits of [`SERVERS`].
    One(u8),
    Refused(DropReason, Refusal),
}

impl Key {
    fn family(&self) -> Family {
        if self.v6 { Family::V6 } else { Family::V4 }
    }

    fn protocol(&self) -> u8 {
        SERVICES[self.service].0
    }

    fn client(&self) -> Host {
        CLIENTS[self.client]
    }

    fn origin(&self) -> Origin {
        match self.client().port {
            port if port == NODE.port => Origin::Node,
            port if port == FAR.port => Origin::Outside,
            _ => Origin::Inside,
        }
    }

    fn socket(&self) -> SocketAddr {
        SocketAddr::new(self.client().ip(self.family()), self.port)
    }
}

impl Wish {
    fn pool(&self, origin: Origin) -> u8 {
        if self.local && origin == Origin::Outside { self.backends & LOCAL } else { self.backends }
    }

    fn masquerades(&self, origin: Origin) -> bool {
        match origin {
            Origin::Inside => self.masquerade,
            Origin::Node => true,
            Origin::Outside => !self.local,
        }
    }

    fn serves(&self, server: usize) -> bool {
        (self.backends | self.finishing) & (1 << server) != 0
    }

    fn service(&self, family: Family, which: usize) -> Service {
        let (protocol, address) = SERVICES[which];
        let servers = |bits: u8| {
            let all = (0..SERVERS.len()).filter(move |at| bits & (1 << at) != 0);
            all.map(move |at| server(family, at))
        };
        let way = |origin| {
            let backends =
                servers(self.pool(origin)).map(|(address, port)| lb::Backend { address, port, weight: 1 });
            let pool = lb::Pool::new(backends, self.policy, None, [3; 16]).unwrap();
            let local = self.local && origin == Origin::Outside;
            let when_empty = if local { Refusal::Drop } else { Refusal::Reject };
            lb::Way { pool: pool.into(), masquerade: self.masquerades(origin), when_empty }
        };
        let sources = match self.closed {
            true => vec![net("192.0.2.0/24"), net("2001:db8:9::/48")],
            false => Vec::new(),
        };
        let frontends = frontends(family, address);
        let entrance = |&(address, port): &(IpAddr, u16)| lb::Entrance {
            frontend: lb::Frontend { address, protocol, port },
            sources: sources.clone(),
            ways: [Origin::Inside, Origin::Node, Origin::Outside].map(way),
        };
        Service {
            name: name(family, which).into(),
            entrances: frontends.iter().map(entrance).collect(),
            affinity: self.affinity.map(Duration::from_secs),
            serving: servers(self.backends | self.finishing).collect(),
            reset_gone: self.reset,
        }
    }
}

fn name(family: Family, which: usize) -> String {
    format!("{family:?}-service-{which}")
}

fn address(family: Family, which: usize) -> IpAddr {
    ip(family.of(ADDRESSES[which][0], ADDRESSES[which][1]))
}

fn frontends(family: Family, which: usize) -> Vec<(IpAddr, u16)> {
    let node = (which == 0).then_some((NODE.ip(family), NODE_PORT));
    [(address(family, which), 80)].into_iter().chain(node).collect()
}

fn server(family: Family, at: usize) -> (IpAddr, u16) {
    (SERVERS[at].0.ip(family), SERVERS[at].1)
}

fn chunk(kind: u8, value: &[u8]) -> Vec<u8> {
    let mut chunk = vec![kind, 0];
    chunk.extend(u16::try_from(4 + value.len()).unwrap().to_be_bytes());
    chunk.extend(value);
    chunk
}

/// The value of an INIT or INIT ACK.
fn opening(tag: [u8; 4]) -> Vec<u8> {
    [&tag[..], &[0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 9]].concat()
}

/// The endpoints of a packet of any protocol with ports.
fn ends(frame: &[u8]) -> (SocketAddr, SocketAddr) {
    let (from, to) = endpoints(frame);
    let at = if frame[14] >> 4 == 4 { 34 } else { 54 };
    if frame[if at == 34 { 23 } else { 20 }] != SCTP {
        return (from, to);
    }
    let mut packet = frame[at..].to_vec();
    let checksum: [u8; 4] = packet[8..12].try_into().unwrap();
    packet[8..12].fill(0);
    assert_eq!(checksum, crc32c(&packet), "SCTP checksum from {from} to {to}");
    let port = |at: usize| u16::from_be_bytes([packet[at], packet[at + 1]]);
    (SocketAddr::new(from.ip(), port(0)), SocketAddr::new(to.ip(), port(2)))
}

fn long_lived() -> Timeouts {
    let mut timeouts = Timeouts::rfc();
    let (udp, tcp, sctp) = (&mut timeouts.udp, &mut timeouts.tcp, &mut timeouts.sctp);
    for time in [
        udp,
        &mut timeouts.udp_stream,
        &mut tcp.syn_sent,
        &mut tcp.syn_recv,
        &mut tcp.time_wait,
        &mut tcp.retransmitted,
        &mut tcp.unacknowledged,
        &mut sctp.cookie_wait,
        &mut sctp.cookie_echoed,
        &mut sctp.established,
        &mut sctp.closed,
    ] {
        *time = Duration::from_secs(3600);
    }
    timeouts
}

struct History {
    lab: Lab,
    kept: lb::Registry,
    services: BTreeMap<(bool, usize), Known>,
    flows: BTreeMap<Key, Flow>,
    /// The backend that a client had last, and when: by service, when that came, and client.
    affinities: BTreeMap<(bool, usize, usize, IpAddr), (usize, Duration)>,
    balanced: u64,
    /// Services that ever came.
    came: usize,
    sequence: u32,
    met: BTreeSet<&'static str>,
}

impl History {
    fn new() -> Self {
        let mut config = node(|nat| nat.timeouts = long_lived());
        config.services = Some(services([]));
        Self {
            lab: acquainted(config),
            kept: lb::Registry::new(),
            services: BTreeMap::new(),
            flows: BTreeMap::new(),
            affinities: BTreeMap::new(),
            balanced: 0,
            came: 0,
            sequence: 1000,
            met: BTreeSet::new(),
        }
    }

    fn step(&mut self, step: &Step) {
        self.pass(Duration::from_secs(1));
        match step {
            Step::Set { family, which, wish } => self.set(*family, *which, wish),
            Step::Remove { family, which } => {
                self.kept.remove(&name(*family, *which));
                change(&mut self.lab, |registry| {
                    registry.remove(&name(*family, *which));
                });
                self.services.remove(&(*family == Family::V6, *which));
            }
            Step::Anew => self.anew(),
            Step::Kept => change(&mut self.lab, |registry| registry.clone_from(&self.kept)),
            Step::Blink => {
                let of = self.lab.switch.snapshot().services().unwrap().config().clone();
                for of in [None, Some(of)] {
                    let next = self.lab.switch.snapshot().with_services(of).unwrap();
                    self.lab.switch.install(next);
                }
            }
            Step::Ask { family, which, client, port, by_node } => {
                let by_node = *by_node && SERVICES[*which].1 == 0 && CLIENTS[*client].port != NODE.port;
                let v6 = *family == Family::V6;
                let asked = frontends(*family, SERVICES[*which].1)[usize::from(by_node)].into();
                self.ask(Key { service: *which, v6, client: *client, port: 5000 + port, asked });
            }
            Step::More(at) => self.with_flow(at, Self::ask),
            Step::Answer(at) => self.with_flow(at, Self::answer),
            Step::Close(at) => self.with_flow(at, Self::close),
            Step::Stray { family, client, protocol, free } => {
                self.stray(*family, CLIENTS[*client], *protocol, *free);
            }
            Step::Wait(milliseconds) => self.pass(Duration::from_millis(*milliseconds)),
        }
        self.check();
    }

    /// Time passes, in which those whom the router does not manage say where they are.
    fn pass(&mut self, time: Duration) {
        self.lab.wait(time);
        for host in [GUEST, OTHER, FAR] {
            crate::world::introduce(&mut self.lab, &host);
        }
    }

    fn with_flow(&mut self, at: &Index, act: impl FnOnce(&mut Self, Key)) {
        let open: Vec<Key> =
            self.flows.iter().filter(|(_, flow)| !flow.closed).map(|(key, _)| *key).collect();
        if !open.is_empty() {
            act(self, open[at.index(open.len())]);
        }
    }

    fn set(&mut self, family: Family, which: usize, wish: &Wish) {
        let service = wish.service(family, which);
        self.kept.set(service.clone()).unwrap();
        change(&mut self.lab, |registry| {
            registry.set(service).unwrap();
        });
        self.came += 1;
        let known = Known { wish: wish.clone(), since: self.came };
        let entry = self.services.entry((family == Family::V6, which)).or_insert(known);
        entry.wish = wish.clone();
    }

    fn anew(&mut self) {
        let family = |v6| if v6 { Family::V6 } else { Family::V4 };
        let all = self.services.iter().map(|(&(v6, which), known)| known.wish.service(family(v6), which));
        let config = Config { services: Some(services(all)), ..node(|nat| nat.timeouts = long_lived()) };
        self.lab.install(config);
        self.lab.events();
    }

    /// What must become of the next packet of a flow's client: whether it opens a connection, and who answers.
    fn expected(&self, key: &Key) -> (bool, Expected) {
        let known = self.services.get(&(key.v6, key.service));
        let mut opens = true;
        // The ports of an association that was closed are its own until it is forgotten.
        if let Some(flow) = self.flows.get(key).filter(|flow| !flow.closed || key.protocol() == SCTP) {
            let same = known.filter(|known| known.since == flow.since);
            let serves = same.is_some_and(|known| known.wish.serves(flow.server));
            let has_state = flow.answered && key.protocol() != UDP;
            match (serves, has_state && same.is_some_and(|known| known.wish.reset)) {
                (true, _) => opens = false,
                (false, true) => {
                    return (false, Expected::Refused(DropReason::ServiceBackendGone, Refusal::Reject));
                }
                (false, false) => opens = !has_state,
            }
            if !opens {
                return (false, Expected::One(1 << flow.server));
            }
        }
        let Some(known) = known else {
            let live = (0..SERVICES.len()).any(|which| {
                SERVICES[which].1 == SERVICES[key.service].1 && self.services.contains_key(&(key.v6, which))
            });
            return (opens, closed_or_free(live));
        };
        let (wish, origin) = (&known.wish, key.origin());
        if wish.closed && origin != Origin::Node {
            return (opens, Expected::Refused(DropReason::ServiceSourceRange, Refusal::Drop));
        }
        let pool = wish.pool(origin);
        if pool == 0 {
            let silent = wish.local && origin == Origin::Outside;
            let how = if silent { Refusal::Drop } else { Refusal::Reject };
            return (opens, Expected::Refused(DropReason::ServiceNoBackend, how));
        }
        let remembered = wish.affinity.and_then(|seconds| {
            let (server, used) = self.affinities.get(&self.remembered(key, known))?;
            let valid = self.lab.now - *used < Duration::from_secs(seconds);
            (valid && pool & (1 << server) != 0).then_some(1 << server)
        });
        (opens, Expected::One(remembered.unwrap_or(pool)))
    }

    fn remembered(&self, key: &Key, known: &Known) -> (bool, usize, usize, IpAddr) {
        (key.v6, key.service, known.since, key.socket().ip())
    }

    /// The client sends the next packet of a flow, or the first.
    fn ask(&mut self, key: Key) {
        let (opens, expected) = self.expected(&key);
        // Without its service a port of the node is the node's own.
        if opens && key.asked.port() == NODE_PORT && !self.services.contains_key(&(key.v6, key.service)) {
            return;
        }
        let open = self.flows.get(&key).filter(|flow| !flow.closed);
        let open = open.map(|flow| (flow.answered, flow.sequence));
        self.sequence += 100_000;
        let (answered, sequence) = open.unwrap_or((false, self.sequence));
        let packet = key.client().via_router(key.asked.ip());
        let frame = match (key.protocol(), answered) {
            (UDP, _) => packet.udp(key.port, key.asked.port(), b"question"),
            (TCP, false) => packet.tcp_segment(key.port, key.asked.port(), SYN, (sequence, 0)),
            (TCP, true) => {
                let numbers = (sequence + 1, SERVER_SEQUENCE + 1);
                packet.tcp_segment(key.port, key.asked.port(), ACK, numbers)
            }
            (_, false) => sctp_init(&packet, key.port, key.asked.port()),
            (_, true) => {
                let data = chunk(0, &[0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, b'd', b'a', b't', b'a']);
                sctp(&packet, (key.port, key.asked.port()), SERVER_TAG, &data)
            }
        };
        match expected {
            Expected::One(servers) => self.answered_by(key, &frame, opens.then_some(sequence), servers),
            Expected::Refused(reason, how) => {
                self.flows.remove(&key);
                let trace = self.lab.explain(key.client().port, &frame).to_string();
                assert!(trace.contains(reason.name()), "not {}:\n{trace}", reason.name());
                let of_service =
                    [DropReason::ServiceNoBackend, DropReason::ServiceSourceRange].contains(&reason);
                let name = name(key.family(), key.service);
                assert!(!of_service || trace.contains(&name), "not {name}:\n{trace}");
                self.refused(key.client(), key.family(), &frame, reason, how);
            }
        }
    }

    /// A frame of a client's that must come to one of these servers; it opens a connection if it has a sequence number.
    fn answered_by(&mut self, key: Key, frame: &[u8], opens: Option<u32>, servers: u8) {
        let (family, client) = (key.family(), key.client());
        let trace = self.lab.explain(client.port, frame);
        let out = one(self.lab.send(client.port, frame));
        let (seen, backend) = ends(&out.bytes);
        let before = self.flows.get(&key).filter(|_| opens.is_some());
        match (&trace.frame, before) {
            // The external port of one that moves on is still its old one's.
            (Some(frame), Some(_)) => assert_eq!(ends(frame).1, backend, "{trace}"),
            (frame, _) => assert_eq!(frame.as_deref(), Some(&out.bytes[..]), "{trace}"),
        }
        let at = (0..SERVERS.len()).find(|&at| backend == server(family, at).into());
        let at = at.filter(|at| servers & (1 << at) != 0);
        let at =
            at.unwrap_or_else(|| panic!("{key:?} came to {backend}, not to one of {servers:#b}\n{trace}"));
        assert_eq!(out.port, SERVERS[at].0.port);
        self.lab.expect([entered(client.port, Fate::Forwarded), left(out.port, From::Forwarded)]);
        let Some(sequence) = opens else {
            assert_eq!(seen, self.flows[&key].seen, "{key:?} is seen otherwise than before");
            return;
        };
        let known = &self.services[&(key.v6, key.service)];
        assert_eq!(seen.ip(), self.seen_as(&key, &known.wish, at), "{key:?} at {backend}\n{trace}");
        assert!(trace.to_string().contains(&name(family, key.service)), "{trace}");
        let since = known.since;
        let flow = Flow { server: at, seen, answered: false, closed: false, since, sequence };
        if known.wish.affinity.is_some() {
            let remembered = self.remembered(&key, known);
            self.affinities.insert(remembered, (at, self.lab.now));
        }
        self.balanced += 1;
        self.flows.insert(key, flow);
        let protocol = key.protocol();
        let ends = self.flows.iter().filter(|(key, _)| key.protocol() == protocol);
        let ends: Vec<_> = ends.map(|(key, flow)| (key.v6, flow.seen, flow.server)).collect();
        assert_eq!(ends.len(), ends.iter().collect::<BTreeSet<_>>().len(), "two flows look alike: {ends:?}");
        self.met.insert("chosen");
    }

    /// With which address a server sees a client.
    fn seen_as(&self, key: &Key, wish: &Wish, at: usize) -> IpAddr {
        let (family, client, server) = (key.family(), key.client(), SERVERS[at].0);
        let outside = PODS.contains(&client.port) && server.port == FAR.port;
        // A backend behind the masquerading address itself sees who asks.
        if (wish.masquerades(key.origin()) || outside) && server.port != NODE.port {
            NODE.ip(family)
        } else if client.port == server.port {
            key.asked.ip()
        } else {
            client.ip(family)
        }
    }

    /// A frame of a client's that services do not take.
    fn refused(&mut self, client: Host, family: Family, frame: &[u8], reason: DropReason, how: Refusal) {
        self.met.insert(reason.name());
        let mut changes = vec![dropped(client.port, reason)];
        let is_segment = frame[family.of(23, 20)] == TCP;
        match how {
            Refusal::Drop => assert!(self.lab.send(client.port, frame).is_empty()),
            Refusal::Reject if is_segment && reason == DropReason::ServiceBackendGone => {
                let out = one(self.lab.send(client.port, frame));
                assert_eq!((out.port, segment(&out.bytes).0), (client.port, RST));
                assert_eq!(segment(&out.bytes).1, SERVER_SEQUENCE + 1);
                let (from, to) = ends(frame);
                assert_eq!(ends(&out.bytes), (to, from));
            }
            Refusal::Reject => told(&mut self.lab, &client, family, frame),
        }
        if how == Refusal::Reject {
            changes.push(left(client.port, From::Originated));
        }
        self.lab.expect(changes);
    }

    /// The server of a flow sends, and its client gets it from whom it asked.
    fn reply(&mut self, key: &Key, make: impl FnOnce(&Packet, (u16, u16)) -> Vec<u8>) {
        let (family, client, flow) = (key.family(), key.client(), &self.flows[key]);
        let (server, port) = SERVERS[flow.server];
        let bridged = PODS.contains(&client.port) && PODS.contains(&server.port);
        let packet = if flow.seen.ip() == client.ip(family) && bridged {
            server.to(&client, family)
        } else {
            server.via_router(flow.seen.ip())
        };
        let frame = make(&packet, (port, flow.seen.port()));
        let trace = self.lab.explain(server.port, &frame);
        let out = one(self.lab.send(server.port, &frame));
        assert_eq!(trace.frame.as_deref(), Some(&out.bytes[..]), "{trace}");
        assert_eq!((out.port, ends(&out.bytes)), (client.port, (key.asked, key.socket())), "{trace}");
        self.lab.expect([entered(server.port, Fate::Forwarded), left(client.port, From::Forwarded)]);
    }

    fn answer(&mut self, key: Key) {
        let (answered, sequence) = (self.flows[&key].answered, self.flows[&key].sequence);
        match key.protocol() {
            TCP => {
                let flags = if answered { ACK } else { SYN | ACK };
                let numbers = (SERVER_SEQUENCE + u32::from(answered), sequence + 1);
                self.reply(&key, |p, (from, to)| p.tcp_segment(from, to, flags, numbers));
            }
            UDP => self.reply(&key, |p, (from, to)| p.udp(from, to, b"answer")),
            _ => {
                let value = [&opening(SERVER_TAG)[..], &[0, 7, 0, 8, 1, 2, 3, 4]].concat();
                let sent = if answered { chunk(3, &[0; 12]) } else { chunk(2, &value) };
                self.reply(&key, |p, ports| sctp(p, ports, CLIENT_TAG, &sent));
            }
        }
        let flow = self.flows.get_mut(&key).unwrap();
        flow.answered = true;
        // The client takes note at once, if its packets still come through.
        if !answered && key.protocol() != UDP && matches!(self.expected(&key).1, Expected::One(_)) {
            self.establish(&key);
        }
    }

    /// What completes a handshake.
    fn establish(&mut self, key: &Key) {
        let (client, asked, flow) = (key.client(), key.asked, self.flows[key].clone());
        let packet = client.via_router(asked.ip());
        let frame = match key.protocol() {
            TCP => {
                let numbers = (flow.sequence + 1, SERVER_SEQUENCE + 1);
                packet.tcp_segment(key.port, asked.port(), ACK, numbers)
            }
            _ => sctp(&packet, (key.port, asked.port()), SERVER_TAG, &chunk(10, &[1, 2, 3, 4])),
        };
        self.answered_by(*key, &frame, None, 1 << flow.server);
        if key.protocol() == SCTP {
            self.reply(key, |p, ports| sctp(p, ports, CLIENT_TAG, &chunk(11, &[])));
        }
    }

    fn close(&mut self, key: Key) {
        let Flow { server, answered, sequence, .. } = self.flows[&key].clone();
        let comes_through = matches!(self.expected(&key), (false, Expected::One(_)));
        if key.protocol() == UDP || !answered || !comes_through {
            return;
        }
        let (packet, ports) = (key.client().via_router(key.asked.ip()), (key.port, key.asked.port()));
        if key.protocol() == TCP {
            let fin = packet.tcp_segment(ports.0, ports.1, FIN | ACK, (sequence + 1, SERVER_SEQUENCE + 1));
            self.answered_by(key, &fin, None, 1 << server);
            let numbers = (SERVER_SEQUENCE + 1, sequence + 2);
            self.reply(&key, |p, (from, to)| p.tcp_segment(from, to, FIN | ACK, numbers));
            let last = packet.tcp_segment(ports.0, ports.1, ACK, (sequence + 2, SERVER_SEQUENCE + 2));
            self.answered_by(key, &last, None, 1 << server);
        } else {
            let abort = sctp(&packet, ports, SERVER_TAG, &chunk(6, &[]));
            self.answered_by(key, &abort, None, 1 << server);
        }
        self.flows.get_mut(&key).unwrap().closed = true;
        self.met.insert("closed");
    }

    fn stray(&mut self, family: Family, client: Host, protocol: u8, free: bool) {
        let destination = if free { ip(family.of(FREE[0], FREE[1])) } else { address(family, 0) };
        let packet = client.via_router(destination);
        let frame = match protocol {
            TCP => packet.tcp_syn(5000, 81),
            UDP => packet.udp(5000, 81, b"x"),
            _ => sctp_init(&packet, 5000, 81),
        };
        let v6 = family == Family::V6;
        let live =
            !free && (0..SERVICES.len()).any(|n| SERVICES[n].1 == 0 && self.services.contains_key(&(v6, n)));
        let Expected::Refused(reason, how) = closed_or_free(live) else { unreachable!() };
        self.refused(client, family, &frame, reason, how);
    }

    /// Nothing is remembered but the flows that there are.
    fn check(&self) {
        assert_eq!(connections(&self.lab), self.flows.len(), "{:?}", self.flows);
        assert_eq!(self.lab.switch.balanced(), self.balanced);
    }
}

const fn closed_or_free(live: bool) -> Expected {
    match live {
        true => Expected::Refused(DropReason::ServicePortClosed, Refusal::Reject),
        false => Expected::Refused(DropReason::ServiceAddressFree, Refusal::Drop),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, ..ProptestConfig::default() })]

    #[test]
    fn every_packet_goes_where_the_services_of_the_moment_say(steps in proptest::collection::vec(step(), 1..100)) {
        let mut history = History::new();
        steps.iter().for_each(|step| history.step(step));
        history.lab.settle();
    }
}

/// One long history meets all that services can say.
#[test]
fn the_histories_reach_every_fate() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut history = History::new();
    for _ in 0..500 {
        history.step(&step().new_tree(&mut runner).unwrap().current());
    }
    history.lab.settle();
    let all = [
        DropReason::ServiceNoBackend,
        DropReason::ServiceSourceRange,
        DropReason::ServicePortClosed,
        DropReason::ServiceAddressFree,
        DropReason::ServiceBackendGone,
    ];
    let all: BTreeSet<&str> = all.iter().map(|reason| reason.name()).chain(["chosen", "closed"]).collect();
    assert_eq!(history.met, all);
}
