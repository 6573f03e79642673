//! What is measured of flows that are known: whole frames, from the device that they come in by to the one that they leave by.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use lb::{Backend, Entrance, Frontend, Policy, Pool, Refusal, Registry, Service, Way};
use netstack::addr::{MacAddr, PortId, SegmentId};
use netstack::config::nat::{NatMatch, PoolConfig, SourceNat, SourceRule};
use netstack::config::{
    Config, GatewayConfig, Limits, NatConfig, PortConfig, ReversePath, SegmentConfig, ServicesConfig,
    Snapshot, Station, VlanMode,
};
use netstack::frame::{Checksum, FrameBatch, FramePool, Offload, OffloadFeatures, SegmentKind, Segmentation};
use netstack::seed::Seed;
use netstack::switch::Switch;

use crate::work::{Case, TURN, Work, begin};
use crate::{Forwards, NullSwitch, mac};

const KEY: [u8; 16] = *b"sixteen octets !";
const ROUTER: MacAddr = MacAddr([2, 0, 0, 0, 0xff, 1]);
/// Where clients come in, by a router of their own; another foreign port of their segment; and a server's port.
const CLIENTS: PortId = PortId(0);
const BESIDE: u16 = 1;
const SERVERS: u16 = 2;
/// Managed stations behind ports of their own.
const STATIONS: u16 = 8;
const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
/// Flows of one client's address.
const PORTS: u32 = 1 << 14;

/// How frames go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Path {
    /// Between two stations of a segment that the switch has no address on.
    Bridged,
    /// By the router, without connections.
    Routed,
    /// By the router, from another address.
    Masqueraded,
    /// By the router, to a service with [`STATIONS`] backends.
    Balanced,
}

/// Which flow comes next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Order {
    /// Any, as likely as any other.
    Uniform,
    /// The nth with a chance of one in n.
    Zipf,
}

/// What is sent how.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    path: Path,
    flows: u32,
    order: Order,
    /// Frames per batch.
    batch: usize,
    /// Octets of a frame.
    len: usize,
}

/// Frames per batch, unless said otherwise.
const BATCH: usize = 32;
/// Octets of a frame, unless said otherwise.
const LEN: usize = 64;
/// Octets of the longest frame: as much UDP payload as one super-frame holds for a link of 1500 octets.
const LONG: usize = 42 + 44 * 1472;

impl Shape {
    pub(crate) const fn new(path: Path, flows: u32) -> Self {
        Self { path, flows, order: Order::Uniform, batch: BATCH, len: LEN }
    }

    /// The same by other orders, batches and lengths, with what is added to its name.
    fn variants(self) -> Vec<(String, Self)> {
        let mut variants = vec![(String::new(), self)];
        if self.flows >= 1000 {
            variants.push(("/zipf".to_owned(), Self { order: Order::Zipf, ..self }));
        }
        if self.flows == 100 {
            variants.extend([1, 8, 64].map(|batch| (format!("/batch{batch}"), Self { batch, ..self })));
            variants.push(("/1514B".to_owned(), Self { len: 1514, ..self }));
        }
        // Bridges that look into no packets leave the cutting of super-frames to the slow path.
        if self.flows == 100 && self.path != Path::Bridged {
            variants.push(("/64KiB".to_owned(), Self { len: LONG, batch: 1, ..self }));
        }
        variants
    }
}

/// All pieces of work, for each number of flows.
pub fn cases(flows: &[u32]) -> Vec<Case> {
    const PATHS: &[(&str, Path)] =
        &[("l2", Path::Bridged), ("l3", Path::Routed), ("snat", Path::Masqueraded), ("vip", Path::Balanced)];
    let mut cases = Vec::new();
    for &count in flows {
        for &(name, path) in PATHS {
            // Stations are not told apart by what they say.
            if path == Path::Bridged && count > 4096 {
                continue;
            }
            for (suffix, shape) in Shape::new(path, count).variants() {
                cases.push(begin(format!("{name}/{count}{suffix}"), move || {
                    Stream::new(switch(path, count), shape)
                }));
            }
        }
        for (suffix, shape) in Shape::new(Path::Balanced, count).variants() {
            cases.push(begin(format!("null/{count}{suffix}"), move || {
                Stream::new(NullSwitch::default(), shape)
            }));
        }
    }
    cases
}

pub(crate) fn config(path: Path, flows: u32) -> Config {
    let gateway = |address: &str| {
        let mut gateway = GatewayConfig::new(ROUTER, vec![address.parse().expect("a prefix")]);
        gateway.reverse_path = ReversePath::Off;
        gateway
    };
    let segment = |id: u16, gateway: Option<GatewayConfig>| SegmentConfig {
        gateway,
        ..SegmentConfig::new(SegmentId(id), format!("segment-{id}"))
    };
    let clients = (path != Path::Bridged).then(|| gateway("10.64.0.1/10"));
    let port = |id: u16| {
        let (on, station) = match id {
            0 | BESIDE => (0, Station::Foreign),
            id => (1, Station::Managed { mac: mac(id), addresses: vec![server(id - SERVERS)] }),
        };
        PortConfig {
            offload: OffloadFeatures::ALL,
            station,
            ..PortConfig::new(PortId(id), format!("port-{id}"), VlanMode::Access(SegmentId(on)))
        }
    };
    Config {
        ports: (0..SERVERS + STATIONS).map(port).collect(),
        segments: vec![segment(0, clients), segment(1, Some(gateway("10.0.0.1/24")))],
        nat: match path {
            Path::Bridged | Path::Routed => None,
            Path::Balanced => Some(NatConfig::default()),
            Path::Masqueraded => Some(masquerade(flows)),
        },
        services: (path == Path::Balanced).then(services),
        ..Config::default()
    }
}

/// Clients get ports of as many addresses as they need.
fn masquerade(flows: u32) -> NatConfig {
    let addresses = (0..=flows / 30_000).map(|n| Ipv4Addr::from_bits(0xc612_0001 + n).into()).collect();
    let pool = PoolConfig { hosts: flows / PORTS + 1, ..PoolConfig::new("outside", addresses) };
    let rule = SourceRule { matches: NatMatch::default(), action: SourceNat::Pool(pool.name.clone()) };
    NatConfig { pools: vec![pool], source: vec![rule], ..NatConfig::default() }
}

fn server(n: u16) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, 10 + u8::try_from(n).expect("few stations")).into()
}

fn services() -> ServicesConfig {
    let backends = || (0..STATIONS).map(|n| (server(n), 8080));
    let all = backends().map(|(address, port)| Backend { address, port, weight: 1 });
    let pool = Arc::new(Pool::new(all, Policy::Maglev, None, KEY).expect("a pool"));
    let way = Way { pool, masquerade: false, when_empty: Refusal::Reject };
    let frontend = Frontend { address: VIP.into(), protocol: 17, port: 80 };
    let service = Service {
        name: "default/web:http".into(),
        entrances: vec![Entrance { frontend, sources: Vec::new(), ways: [way.clone(), way.clone(), way] }],
        affinity: None,
        serving: backends().collect(),
        reset_gone: false,
    };
    let mut registry = Registry::new();
    registry.set(service).expect("its frontend is free");
    ServicesConfig {
        registry,
        inside: vec!["10.0.0.0/16".parse().expect("a prefix")],
        ranges: vec!["10.96.0.0/12".parse().expect("a prefix")],
        masquerade: None,
        key: KEY,
    }
}

pub(crate) fn switch(path: Path, flows: u32) -> Switch {
    let limits = Limits { connections: flows.max(1024), flows: (2 * flows).max(1024), ..Limits::default() };
    let mut switch = Switch::new(limits, &Seed::from_u64(1), FramePool::new());
    switch.install(Snapshot::compile(config(path, flows), None).expect("a good configuration"));
    switch
}

/// What of a frame differs between flows.
#[derive(Clone, Copy)]
struct Flow {
    source: [u8; 4],
    /// The IP header's checksum.
    checksum: [u8; 2],
    port: [u8; 2],
}

/// A datagram from the clients' router, or from a station of many to another; without a checksum, which UDP over IPv4 may do.
fn template(path: Path, len: usize) -> Vec<u8> {
    let mut bytes = vec![7; len];
    let size = |from: usize| u16::try_from(len - from).expect("it fits a packet").to_be_bytes();
    bytes[..6].copy_from_slice(&if path == Path::Bridged { mac(0x2000).0 } else { ROUTER.0 });
    bytes[6..12].copy_from_slice(&mac(0x1000).0);
    bytes[12..34]
        .copy_from_slice(&[8, 0, 0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    bytes[16..18].copy_from_slice(&size(14));
    let to = if path == Path::Balanced { VIP.octets() } else { [10, 0, 0, 10] };
    bytes[30..34].copy_from_slice(&to);
    bytes[34..42].copy_from_slice(&[0, 0, 0, 80, 0, 0, 0, 0]);
    bytes[38..40].copy_from_slice(&size(34));
    bytes
}

/// What a device says of such a frame that is longer than its link's packets: to be cut, with a checksum for each piece.
fn offload(len: usize) -> Offload {
    if len <= 1514 {
        return Offload::default();
    }
    Offload {
        checksum: Checksum::Partial { start: 34, offset: 6 },
        segmentation: Some(Segmentation { kind: SegmentKind::Udp, size: 1472, ecn: false }),
    }
}

impl Flow {
    fn new(template: &[u8], n: u32) -> Self {
        let mut header = [0; 20];
        header.copy_from_slice(&template[14..34]);
        let source = Ipv4Addr::from_bits(0x0a40_0002 + n / PORTS).octets();
        header[12..16].copy_from_slice(&source);
        let port = u16::try_from(1024 + n % PORTS).expect("a port").to_be_bytes();
        Self { source, checksum: nat::checksum::checksum(&header).to_be_bytes(), port }
    }

    fn write(&self, frame: &mut [u8]) {
        frame[24..26].copy_from_slice(&self.checksum);
        frame[26..30].copy_from_slice(&self.source);
        frame[34..36].copy_from_slice(&self.port);
    }
}

/// Frames of many flows that are all known.
pub(crate) struct Stream<F> {
    pub(crate) forwards: F,
    shape: Shape,
    template: Vec<u8>,
    offload: Offload,
    /// The flows that frames are of, one after the other and from the beginning again.
    sequence: Vec<Flow>,
    at: usize,
    batch: FrameBatch,
    received: u32,
}

/// Frames of each flow before anything is measured.
const PASSES: u32 = 10;
/// The most frames before the sequence begins again.
const LONGEST: u32 = 1 << 22;

impl<F: Forwards> Stream<F> {
    pub(crate) fn new(forwards: F, shape: Shape) -> Self {
        let Shape { path, flows: count, order, len, .. } = shape;
        let template = template(path, len);
        let mut stream = Self {
            forwards,
            shape,
            sequence: (0..count).map(|n| Flow::new(&template, n)).collect(),
            template,
            offload: offload(len),
            at: 0,
            batch: FrameBatch::new(),
            received: 0,
        };
        let mut hello = stream.forwards.pool().copy_of(&stream.template[..LEN]);
        hello.bytes_mut()[..12].copy_from_slice(&[ROUTER.0, mac(0x2000).0].concat());
        assert!(stream.batch.push(hello).is_ok(), "there is room");
        stream.forwards.take(PortId(BESIDE), &mut stream.batch);
        while stream.forwards.give(&mut stream.batch) {
            stream.batch.drain().for_each(drop);
        }
        // The first frame of a flow begins it, the second makes it known; and the table that they are in grows with them.
        for _ in 0..PASSES {
            for _ in 0..count.div_ceil(TURN) {
                stream.turn();
                stream.reset();
            }
        }
        let mut rng = Seed::from_u64(7).rng("order");
        let length = (4 * count).next_multiple_of(TURN).min(LONGEST);
        let mut next = || match order {
            Order::Uniform => rng.below(count),
            Order::Zipf => {
                // The inverse of the distribution's function, near enough: a power of the count, evenly chosen.
                let even = f64::from(rng.below(u32::MAX)) / f64::from(u32::MAX);
                truncated(f64::from(count).powf(even) - 1.0)
            }
        };
        stream.sequence = (0..length).map(|_| Flow::new(&stream.template, next())).collect();
        stream.at = 0;
        stream
    }
}

impl<F: Forwards> Work for Stream<F> {
    fn turn(&mut self) {
        let Shape { path, batch, .. } = self.shape;
        for _ in 0..TURN as usize / batch {
            for _ in 0..batch {
                let flow = self.sequence[self.at % self.sequence.len()];
                self.at += 1;
                let mut frame = self.forwards.pool().copy_of(&self.template);
                frame.offload = self.offload;
                if path == Path::Bridged {
                    let [high, low] = flow.port;
                    // As many stations as flows.
                    frame.bytes_mut()[10..12].copy_from_slice(&[high | 0x80, low]);
                }
                flow.write(frame.bytes_mut());
                assert!(self.batch.push(frame).is_ok(), "there is room");
            }
            self.forwards.take(CLIENTS, &mut self.batch);
            while self.forwards.give(&mut self.batch) {
                while let Some(frame) = self.batch.pop() {
                    self.received += 1;
                    self.forwards.pool().recycle(frame);
                }
            }
        }
    }

    fn reset(&mut self) {
        assert_eq!(self.received, TURN, "every frame has come out");
        self.received = 0;
    }
}

/// The whole part of a number of flows.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at least 0 and below 2^32")]
const fn truncated(number: f64) -> u32 {
    number as u32
}
