//! What is measured of policies in a switch: whole frames, from a client's device to that of a station that policies isolate.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use netstack::addr::PortId;
use netstack::config::{Config, Limits, NatConfig, Snapshot, Station};
use netstack::frame::{FrameBatch, FramePool, OffloadFeatures};
use netstack::policy::{
    Action, GroupId, Isolation, Peer, PeerMap, Peers, Policies, PolicyId, PortMatch, Ports, Rule, RuleTable,
    Ruleset, Subject,
};
use netstack::seed::Seed;
use netstack::switch::Switch;

use crate::services::datagram;
use crate::work::{Case, TURN, Work, begin};
use crate::{STATIONS, config};

const NOW: Duration = Duration::from_secs(1000);
const UDP: u8 = 17;
/// Frames per batch.
const BATCH: usize = 32;
/// Who asks.
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 10);
/// Addresses that are asked. The stations beside the client share them: to policies each is one by itself.
const ASKED: u32 = 1024;
/// Groups that each station is in.
const GROUPS: u32 = 8;
/// Stations that policies know, for each two policies one; besides those that are asked.
const KNOWN: u32 = 2;

/// All pieces of work, for each number of policies; 0 is without any. Many stations are asked in no order, each of which has
/// a few policies; with `/one` a single one that all policies are about.
pub fn cases(policies: &[u32]) -> Vec<Case> {
    let mut cases = Vec::new();
    for &policies in policies {
        for (suffix, all) in [("", false), ("/one", true)] {
            if all && policies < 2 {
                continue;
            }
            cases.push(begin(format!("packet/{policies}{suffix}"), move || {
                Through::established(policies, all)
            }));
            cases.push(begin(format!("new/{policies}{suffix}"), move || Through::new(policies, all)));
        }
    }
    cases
}

/// A policy lets one group ask for some ports, and a prefix that nobody here is of for another.
fn rules(policy: u32) -> [Rule; 2] {
    let rule = |number, peers, port: u16| Rule {
        policy: PolicyId(policy),
        number,
        action: Action::Accept,
        peers,
        ports: Ports::These(vec![PortMatch::Range { protocol: UDP, first: port, last: port + 99 }]),
    };
    let groups = Peers::These { groups: vec![GroupId(policy)], blocks: Vec::new() };
    let [.., high, low] = policy.to_be_bytes();
    let net = format!("172.{}.{low}.{}/32", 16 + high % 16, high).parse().expect("a prefix");
    let block = netstack::policy::Block { net, except: Vec::new() };
    [rule(0, groups, 8000), rule(1, Peers::These { groups: Vec::new(), blocks: vec![block] }, 9000)]
}

fn asked(n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 1, 0).to_bits() + n)
}

/// A station that policies know: the client, those that are asked, and others elsewhere.
fn station(n: u32) -> IpAddr {
    match n {
        0 => CLIENT.into(),
        1..=ASKED => asked(n - 1).into(),
        n => Ipv4Addr::from_bits(Ipv4Addr::new(10, 244, 0, 0).to_bits() + n).into(),
    }
}

fn enforced(count: u32, all: bool) -> Policies {
    let known = (count / KNOWN).max(ASKED + 1);
    let mut peers = PeerMap::default();
    for n in 0..known {
        let groups = (0..GROUPS).map(|k| GroupId((n + k * known / GROUPS) % count));
        peers.set(station(n), Some(Arc::new(Peer::new(groups, []))));
    }
    let mut policies = Policies::new();
    policies.set_peers(peers);
    for n in 1..known {
        // The client is in the group of the first.
        let about: Vec<u32> = match all {
            true if n == 1 => (0..count).collect(),
            true => continue,
            false => [0, n % count, (n + 1) % count].into(),
        };
        let rules: Vec<Rule> = about.iter().flat_map(|policy| rules(*policy)).collect();
        let isolation = Isolation { by: PolicyId(about[0]), rules: Arc::new(RuleTable::new(&rules)) };
        let ingress = Arc::new(Ruleset { isolation: Some(isolation), ..Ruleset::default() });
        policies.set_subject(station(n), Some(Arc::new(Subject { ingress, ..Subject::default() })));
    }
    policies
}

/// The usual one, with room for the addresses that are asked.
fn configuration() -> Config {
    let mut config = Config { nat: Some(NatConfig::default()), ..config(OffloadFeatures::NONE) };
    let net = |text: &str| text.parse().expect("a prefix");
    if let Some(gateway) = &mut config.segments[0].gateway {
        gateway.addresses = vec![net("10.0.0.1/16"), net("fd00::1/64")];
    }
    for n in 0..ASKED {
        let port = usize::try_from(n).expect("small") % usize::from(STATIONS - 1) + 1;
        if let Station::Managed { addresses, .. } = &mut config.ports[port].station {
            addresses.push(asked(n).into());
        }
    }
    config
}

/// Datagrams from the client to those that are asked, a connection each.
struct Through {
    switch: Switch,
    batch: FrameBatch,
    frames: Vec<Vec<u8>>,
    now: Duration,
    /// Whether each turn's connections are new.
    anew: bool,
    received: u32,
}

impl Through {
    fn new(policies: u32, all: bool) -> Self {
        let snapshot = Snapshot::compile(configuration(), None).expect("a good configuration");
        let enforced = (policies > 0).then(|| Arc::new(enforced(policies, all)));
        let mut switch = Switch::new(Limits::default(), &Seed::from_u64(1), FramePool::new());
        switch.install(snapshot.with_policies(enforced).expect("connections are tracked"));
        let frame = |n: u32| {
            let to = if all { 0 } else { n.wrapping_mul(2_654_435_761) % ASKED };
            let (from, port) = (u16::try_from(20_000 + n), u16::try_from(8000 + n % 10));
            datagram(from.expect("a port"), (asked(to), port.expect("a port")))
        };
        let frames = (0..TURN).map(frame).collect();
        Self { switch, batch: FrameBatch::new(), frames, now: NOW, anew: true, received: 0 }
    }

    fn established(policies: u32, all: bool) -> Self {
        let mut through = Self { anew: false, ..Self::new(policies, all) };
        // The first frame of a flow begins it, the next ones make it known.
        for _ in 0..8 {
            through.turn();
            through.reset();
        }
        through
    }
}

impl Work for Through {
    fn turn(&mut self) {
        for frames in self.frames.chunks(BATCH) {
            for frame in frames {
                let frame = self.switch.pool().copy_of(frame);
                assert!(self.batch.push(frame).is_ok(), "there is room");
            }
            self.switch.handle_frames(self.now, PortId(0), &mut self.batch);
            while self.switch.poll_transmit(&mut self.batch).is_some() {
                while let Some(frame) = self.batch.pop() {
                    self.received += 1;
                    self.switch.pool().recycle(frame);
                }
            }
        }
    }

    fn reset(&mut self) {
        assert_eq!(self.received, TURN, "{:?}", self.switch.counters().drops_by_name());
        self.received = 0;
        if self.anew {
            self.now += Duration::from_secs(3600);
            while self.switch.poll_timeout().is_some_and(|at| at <= self.now) {
                self.switch.handle_timeout(self.now);
            }
            assert!(self.switch.connections().is_some_and(|(v4, _)| v4.is_empty()));
        }
    }
}
