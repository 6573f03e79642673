//! Our switch, set up as `kernel.py` sets up the kernel.

use std::net::IpAddr;
use std::time::Duration;

use netstack::addr::{MacAddr, PortId, SegmentId};
use netstack::config::nat::{
    Behaviour, DestinationNat, DestinationRule, NatConfig, NatMatch, PoolConfig, PortRange, SourceNat,
    SourceRule, Timeouts,
};
use netstack::config::{
    Config, GatewayConfig, Limits, NextHop, PortConfig, RouteConfig, RouteTarget, SegmentConfig, Snapshot,
    VlanMode,
};
use netstack::emit;
use netstack::frame::{Frame, FrameBatch, FramePool};
use netstack::parse::{self, NeighborDiscovery, Network};
use netstack::seed::Seed;
use netstack::switch::Switch;

use crate::oracle::Frames;

/// Our switch, set up as `kernel.py` sets up the kernel.
pub(crate) struct Switched {
    pub(crate) switch: Switch,
    ports: Vec<&'static str>,
    pool: FramePool,
    now: Duration,
}

impl Switched {
    fn new(config: Config, ports: Vec<&'static str>) -> Self {
        let limits = Limits { icmp_errors_per_second: 1_000_000, connections: 256, ..Limits::default() };
        let mut switch = Switch::new(limits, &Seed::from_u64(1), FramePool::new());
        switch.install(Snapshot::compile(config, None).unwrap());
        Self { switch, ports, pool: FramePool::new(), now: Duration::from_secs(1) }
    }

    pub(crate) fn bridge() -> Self {
        let port = |id: u16, name: &str| PortConfig::new(PortId(id), name, VlanMode::Access(SegmentId(0)));
        let segment = SegmentConfig::new(SegmentId(0), "br0");
        let names = vec!["p0", "p1", "p2"];
        let ports = (0..).zip(&names).map(|(id, name)| port(id, name)).collect();
        Self::new(Config { ports, segments: vec![segment], ..Config::default() }, names)
    }

    pub(crate) fn router() -> Self {
        Self::routing(None)
    }

    /// A router that masquerades what leaves to `b`, with a published port, as `conversations.py` sets up the kernel.
    pub(crate) fn translator() -> Self {
        let external: Vec<IpAddr> = ["10.2.0.1", "fd00:2::1"].iter().map(|a| a.parse().unwrap()).collect();
        let mut pool = PoolConfig::new("b", external.clone());
        pool.ports = vec![PortRange { first: 1, last: u16::MAX }];
        let matches = NatMatch { egress: Some(SegmentId(1)), ..NatMatch::default() };
        let source = vec![SourceRule { matches, action: SourceNat::Pool(pool.name.clone()) }];
        let mut destination = Vec::new();
        for (external, inside) in external.into_iter().zip(["10.1.0.2", "fd00:1::2"]) {
            for protocol in [6, 17] {
                let at = |port| Some(PortRange { first: port, last: port });
                let matches = NatMatch {
                    destinations: vec![external.into()],
                    protocol: Some(protocol),
                    destination_ports: at(8080),
                    ..NatMatch::default()
                };
                let address = Some(inside.parse().unwrap());
                destination
                    .push(DestinationRule { matches, action: DestinationNat::To { address, ports: at(80) } });
            }
        }
        let (behaviour, timeouts) = (Behaviour::linux(), Timeouts::linux());
        Self::routing(Some(NatConfig {
            behaviour,
            timeouts,
            pools: vec![pool],
            source,
            destination,
            ..NatConfig::default()
        }))
    }

    fn routing(nat: Option<NatConfig>) -> Self {
        let side = |id: u16, name: &str, mac: &str, mtu: u16, addresses: [&str; 2]| {
            let port = PortConfig::new(PortId(id), name, VlanMode::Access(SegmentId(id)));
            let addresses = addresses.iter().map(|a| a.parse().unwrap()).collect();
            let gateway = Some(GatewayConfig::new(mac.parse().unwrap(), addresses));
            (port, SegmentConfig { mtu, gateway, ..SegmentConfig::new(SegmentId(id), name) })
        };
        let (port_a, a) = side(0, "a", "02:00:00:00:0a:01", 1500, ["10.1.0.1/24", "fd00:1::1/64"]);
        let (port_b, b) = side(1, "b", "02:00:00:00:0b:01", 1280, ["10.2.0.1/24", "fd00:2::1/64"]);
        let mut routes = Vec::new();
        for (net, via) in [("10.#.0.0/16", "10.2.0.2"), ("fd00:#::/32", "fd00:2::2")] {
            let hop = NextHop { segment: SegmentId(1), gateway: Some(via.parse().unwrap()) };
            for (number, target) in [
                ("3", RouteTarget::Via(vec![hop])),
                ("4", RouteTarget::Blackhole),
                ("5", RouteTarget::Unreachable),
                ("6", RouteTarget::Prohibit),
            ] {
                routes.push(RouteConfig { prefix: net.replace('#', number).parse().unwrap(), target });
            }
        }
        let config =
            Config { ports: vec![port_a, port_b], segments: vec![a, b], routes, nat, services: None };
        let mut ours = Self::new(config, vec!["a", "b"]);
        ours.introduce("a", "10.1.0.2", "fd00:1::2", "02:00:00:00:0a:02", ("10.1.0.1", "fd00:1::1"));
        ours.introduce("a", "10.1.0.2", "fe80::2", "02:00:00:00:0a:02", ("10.1.0.1", "fd00:1::1"));
        ours.introduce("b", "10.2.0.2", "fd00:2::2", "02:00:00:00:0b:02", ("10.2.0.1", "fd00:2::1"));
        ours.introduce("a", "10.1.0.3", "fd00:1::3", "02:00:00:00:0a:03", ("10.1.0.1", "fd00:1::1"));
        ours.introduce("b", "10.2.0.3", "fd00:2::3", "02:00:00:00:0b:03", ("10.2.0.1", "fd00:2::1"));
        ours
    }

    /// A host asks for the router in both families, from which the router learns where the host is. (Linux is told by
    /// permanent neighbour entries.)
    fn introduce(&mut self, side: &str, v4: &str, v6: &str, mac: &str, router: (&str, &str)) {
        let mac: MacAddr = mac.parse().unwrap();
        let mut pool = FramePool::new();
        let arp = emit::arp_request(
            &mut pool,
            mac,
            v4.parse().unwrap(),
            router.0.parse().unwrap(),
            MacAddr::BROADCAST,
        );
        let nd =
            emit::neighbor_solicitation(&mut pool, mac, v6.parse().unwrap(), router.1.parse().unwrap(), None);
        for frame in [arp, nd] {
            let answers = self.play(side, &[frame.bytes()], Duration::from_secs(4));
            assert_eq!(answers.len(), 1, "the router answers");
        }
    }

    pub(crate) fn now(&self) -> Duration {
        self.now
    }

    /// Plays frames from one side and some time of what follows from them.
    pub(crate) fn play(&mut self, side: &str, frames: &[&[u8]], time: Duration) -> Frames {
        let port = self.ports.iter().position(|p| *p == side).expect("a known port");
        let mut batch = FrameBatch::new();
        for frame in frames {
            batch.push(self.pool.copy_of(frame)).unwrap();
        }
        self.switch.handle_frames(self.now, PortId(u16::try_from(port).unwrap()), &mut batch);
        let (mut out, mut replies) = (Vec::new(), Vec::new());
        let end = self.now + time;
        loop {
            while let Some(port) = self.switch.poll_transmit(&mut batch) {
                for frame in batch.drain() {
                    match answer(&mut self.pool, frame.bytes()) {
                        Some(reply) => replies.push((port, reply)),
                        None => {
                            out.push((self.ports[usize::from(port.0)].to_owned(), frame.bytes().to_vec()))
                        }
                    }
                    self.pool.recycle(frame);
                }
            }
            for (port, reply) in replies.drain(..) {
                batch.push(reply).unwrap();
                self.switch.handle_frames(self.now, port, &mut batch);
            }
            self.switch.check().unwrap();
            match self.switch.poll_timeout() {
                Some(at) if at <= end => {
                    self.now = self.now.max(at);
                    self.switch.handle_timeout(self.now);
                }
                _ => break,
            }
        }
        self.now = end;
        out
    }
}

/// The hosts' answers when the router verifies that they are still there. (Linux's entries are permanent.)
fn answer(pool: &mut FramePool, frame: &[u8]) -> Option<Frame> {
    let hosts = [
        ("10.1.0.2", "02:00:00:00:0a:02"),
        ("fd00:1::2", "02:00:00:00:0a:02"),
        ("fe80::2", "02:00:00:00:0a:02"),
        ("10.1.0.3", "02:00:00:00:0a:03"),
        ("fd00:1::3", "02:00:00:00:0a:03"),
        ("10.2.0.2", "02:00:00:00:0b:02"),
        ("fd00:2::2", "02:00:00:00:0b:02"),
        ("10.2.0.3", "02:00:00:00:0b:03"),
        ("fd00:2::3", "02:00:00:00:0b:03"),
    ];
    let mac_of = |address: IpAddr| -> Option<MacAddr> {
        hosts.iter().find(|(a, _)| a.parse() == Ok(address)).map(|(_, mac)| mac.parse().unwrap())
    };
    let link = parse::link(frame).ok()?;
    match parse::network(frame, &link).ok()? {
        Network::Arp(arp) if arp.operation == 1 => {
            let mac = mac_of(IpAddr::V4(arp.target))?;
            Some(emit::arp_reply(pool, mac, arp.target, arp.sender_mac, arp.sender))
        }
        Network::Ip(ip) => match (parse::neighbor_discovery(frame, &ip).ok()??, ip.source) {
            (NeighborDiscovery::Solicit { target, .. }, IpAddr::V6(source)) => {
                let mac = mac_of(IpAddr::V6(target))?;
                Some(emit::neighbor_advertisement(
                    pool,
                    target,
                    mac,
                    Some((link.source, source)),
                    false,
                    true,
                ))
            }
            _ => None,
        },
        Network::Arp(_) | Network::Other => None,
    }
}
