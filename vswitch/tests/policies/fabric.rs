//! The switches of a cluster joined in memory, and frames of every protocol that policies know.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use manifest::{Source, Strictness};
use netstack::addr::{MacAddr, PortId};
use netstack::config::{Limits, Snapshot};
use netstack::frame::{FrameBatch, FramePool};
use netstack::seed::Seed;
use netstack::switch::Switch;
use serde_json::Value;
use vswitch::cluster::{Cluster, Endpoint, Place, PortNumbers, wire};
use vswitch::objects::{Allocations, Store, compile};
use vswitch::policy::Keeper;

use super::evaluator::{Ask, World};

/// Connections, flows and whatever else is kept, in each switch.
const KEPT: u32 = 16_384;

/// A cluster of objects.
#[track_caller]
pub(crate) fn cluster(world: &World, before: &Allocations) -> (Cluster, Allocations) {
    let mut objects = world.objects.clone();
    let policy = if world.denies { "deny" } else { "allow" };
    objects.push(serde_json::json!({
        "apiVersion": "vswitch/v1alpha1", "kind": "Cluster", "spec": {"defaultPolicy": policy}
    }));
    let list = serde_json::json!({"apiVersion": "v1", "kind": "List", "items": objects});
    let source = Source { name: "world".into(), text: list.to_string() };
    let (store, _) =
        Store::read(&[source], Strictness::Strict).unwrap_or_else(|error| panic!("{error}\n{list:#}"));
    let compiled = compile(&store, before, "lab").unwrap_or_else(|error| panic!("{error}\n{list:#}"));
    (compiled.cluster, compiled.allocations)
}

/// Switches that stand, and who is behind their ports.
pub(crate) struct Fabric {
    switches: BTreeMap<String, Switch>,
    links: BTreeMap<(String, PortId), (String, PortId)>,
    endpoints: BTreeMap<(String, PortId), Place>,
    by_place: BTreeMap<Place, Endpoint>,
    numbers: PortNumbers,
    keeper: Keeper,
    pool: FramePool,
    now: Duration,
}

impl Fabric {
    pub(crate) fn new(cluster: &Cluster) -> Self {
        let mut fabric = Self {
            switches: BTreeMap::new(),
            links: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            by_place: BTreeMap::new(),
            numbers: PortNumbers::default(),
            keeper: Keeper::default(),
            pool: FramePool::new(),
            now: Duration::from_secs(1000),
        };
        fabric.install(cluster);
        fabric
    }

    /// Makes it another cluster: each switch gets its ports and its policies at once.
    pub(crate) fn install(&mut self, cluster: &Cluster) {
        let wiring = wire(cluster, &mut self.numbers);
        self.keeper.update(cluster);
        (self.links, self.endpoints, self.by_place) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for plan in &wiring.switches {
            let limits = Limits { connections: KEPT, flows: KEPT, ..plan.limits };
            let new = || Switch::new(limits, &Seed::from_u64(1), FramePool::new());
            let switch = self.switches.entry(plan.name.clone()).or_insert_with(new);
            let snapshot = Snapshot::compile(plan.config.clone(), None).unwrap();
            let snapshot = match self.keeper.of(&plan.name) {
                Some(policies) => snapshot.with_policies(Some(Arc::clone(policies))).unwrap(),
                None => snapshot,
            };
            switch.install(snapshot);
            while switch.poll_event().is_some() {}
            for (own, other, theirs) in &plan.links {
                self.links.insert((plan.name.clone(), *own), (other.clone(), *theirs));
                self.links.insert((other.clone(), *theirs), (plan.name.clone(), *own));
            }
        }
        for endpoint in wiring.endpoints {
            let at = (endpoint.attachment.switch.clone(), endpoint.attachment.port);
            self.endpoints.insert(at, endpoint.place.clone());
            self.by_place.insert(endpoint.place.clone(), endpoint);
        }
    }

    pub(crate) fn switch(&self, name: &str) -> &Switch {
        &self.switches[name]
    }

    pub(crate) fn endpoint(&self, place: &Place) -> &Endpoint {
        &self.by_place[place]
    }

    /// Lets a place send a frame, and says whom it reached; what neighbours ask each other is not told.
    pub(crate) fn send(&mut self, from: &Place, frame: &[u8]) -> Vec<Place> {
        let at = &self.by_place[from].attachment;
        let mut queue = VecDeque::from([(at.switch.clone(), at.port, self.pool.copy_of(frame))]);
        let (mut reached, mut batch) = (Vec::new(), FrameBatch::new());
        while let Some((name, port, frame)) = queue.pop_front() {
            let switch = self.switches.get_mut(&name).unwrap();
            assert!(batch.push(frame).is_ok());
            switch.handle_frames(self.now, port, &mut batch);
            while let Some(port) = switch.poll_transmit(&mut batch) {
                for frame in batch.drain() {
                    let at = (name.clone(), port);
                    if let Some((other, theirs)) = self.links.get(&at) {
                        queue.push_back((other.clone(), *theirs, frame));
                    } else if !is_discovery(frame.bytes())
                        && let Some(place) = self.endpoints.get(&at)
                    {
                        reached.push(place.clone());
                    }
                }
            }
            switch.check().unwrap();
        }
        reached
    }

    /// What a place sends to an address: by the station's own MAC address where it is on the link, else by the gateway's.
    pub(crate) fn frame(&self, from: &Place, to: IpAddr, source_port: u16, ask: Ask) -> Vec<u8> {
        let sender = &self.by_place[from];
        let source = sender.addresses.iter().find(|net| net.addr().is_ipv4() == to.is_ipv4()).unwrap();
        let snapshot = self.switches[&sender.attachment.switch].snapshot();
        let segment = snapshot.port(sender.attachment.port).unwrap().segment_of(None).unwrap();
        let segment = snapshot.segment(segment).unwrap();
        let gateway = segment.gateway().unwrap().mac;
        let own = source.contains(&to) && source.prefix_len() < source.max_prefix_len();
        let station = segment.station_by_address(to).filter(|_| own).map(|station| station.mac);
        packet((sender.mac, station.unwrap_or(gateway)), (source.addr(), to), source_port, ask)
    }
}

pub(crate) fn place(pod: &Value) -> Place {
    let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
    Place::Pod { namespace: super::evaluator::namespace(pod).to_owned(), name }
}

/// ARP and neighbour discovery.
fn is_discovery(frame: &[u8]) -> bool {
    frame[12..14] == [8, 6]
        || (frame[12..14] == [0x86, 0xdd] && frame[20] == 58 && (133..=137).contains(&frame[54]))
}

fn sum(octets: &[u8]) -> u64 {
    octets.chunks(2).map(|pair| u64::from(pair[0]) << 8 | u64::from(*pair.get(1).unwrap_or(&0))).sum()
}

fn folded(mut sum: u64) -> [u8; 2] {
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    (!(sum as u16)).to_be_bytes()
}

fn crc32c(octets: &[u8]) -> [u8; 4] {
    let mut crc = u32::MAX;
    for octet in octets {
        crc ^= u32::from(*octet);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg());
        }
    }
    (!crc).to_le_bytes()
}

/// The packet that opens a connection: SYN, datagram, or INIT.
pub(crate) fn packet(
    (from, to): (MacAddr, MacAddr),
    (source, destination): (IpAddr, IpAddr),
    source_port: u16,
    ask: Ask,
) -> Vec<u8> {
    let ports = [source_port.to_be_bytes(), ask.port.to_be_bytes()].concat();
    let octets = |address: IpAddr| match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    let addresses = [octets(source), octets(destination)].concat();
    let pseudo =
        |number: u8, upper: &[u8]| sum(&addresses) + u64::from(number) + upper.len() as u64 + sum(upper);
    let (number, upper) = match ask.protocol {
        "TCP" => {
            let mut upper = [&ports[..], &[0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]].concat();
            let checksum = folded(pseudo(6, &upper));
            upper[16..18].copy_from_slice(&checksum);
            (6, upper)
        }
        "UDP" => {
            let mut upper = [&ports[..], &[0, 12, 0, 0], b"ask?"].concat();
            let checksum = folded(pseudo(17, &upper));
            upper[6..8].copy_from_slice(&checksum);
            (17, upper)
        }
        "SCTP" => {
            let init = [1, 0, 0, 20, 0, 0, 0, 7, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 9];
            let mut upper = [&ports[..], &[0; 8], &init].concat();
            let checksum = crc32c(&upper);
            upper[8..12].copy_from_slice(&checksum);
            (132, upper)
        }
        other => panic!("{other}"),
    };
    let length = upper.len() as u16;
    let mut frame = [&to.0[..], &from.0].concat();
    if source.is_ipv4() {
        let total = (20 + length).to_be_bytes();
        let mut header = [&[0x45, 0][..], &total, &[0, 1, 0x40, 0, 64, number, 0, 0], &addresses].concat();
        let checksum = folded(sum(&header));
        header[10..12].copy_from_slice(&checksum);
        frame.extend([8, 0]);
        frame.extend(header);
    } else {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend(length.to_be_bytes());
        frame.extend([number, 64]);
        frame.extend(addresses);
    }
    frame.extend(upper);
    frame
}
