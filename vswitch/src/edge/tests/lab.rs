//! A pod, an edge, and what is between them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use netstack::addr::{IpNet, MacAddr};
use netstack::driver::Engine as _;
use netstack::frame::{Frame, FrameBatch, FramePool, OffloadFeatures};
use netstack::host::{Host, HostConfig, TcpError, TcpHandle, TcpState};
use netstack::offload::{complete_checksum, segment, validate};
use netstack::parse::{self, Ip, Network};
use netstack::seed::{Rng, Seed};

use super::world::World;
use crate::edge::{Edge, EdgeConfig, LINK};

pub(super) const POD: MacAddr = MacAddr::local(1);
pub(super) const EDGE: MacAddr = MacAddr::local(2);
pub(super) const OWN: [&str; 2] = ["192.0.0.2", "fd00:192::2"];
/// How long the outside waits between two steps.
const STEP: Duration = Duration::from_micros(500);

/// What the way between pod and edge does to frames, in thousandths.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Way {
    pub(super) lost: u32,
    pub(super) twice: u32,
    /// Up to so many microseconds more than others.
    pub(super) late: u32,
    /// Super-frames are cut on the way to the pod, as for a device that does not take them.
    pub(super) cuts: bool,
}

/// See the module.
pub(super) struct Lab {
    pub(super) now: Duration,
    pub(super) pod: Host,
    pub(super) edge: Edge<World>,
    pub(super) way: Way,
    rng: Rng,
    pool: FramePool,
    under_way: BTreeMap<(Duration, u64), (bool, Frame)>,
    count: u64,
    next_step: Duration,
    /// Frames that went to the pod, super-frames as one.
    pub(super) to_pod: u64,
}

impl Lab {
    pub(super) fn new(seed: u64) -> Self {
        Self::with(seed, |_| {})
    }

    pub(super) fn with(seed: u64, change: impl FnOnce(&mut EdgeConfig)) -> Self {
        let nets: Vec<IpNet> = ["10.0.0.2/24", "fd00::2/64"].iter().map(|net| net.parse().unwrap()).collect();
        let mut config = HostConfig::new(POD, nets);
        config.gateway_v4 = Some("192.0.0.2".parse().unwrap());
        config.gateway_v6 = Some(EDGE.link_local());
        config.limits.transmit_queue = 8192;
        let seed = Seed::from_u64(seed);
        let own = OWN.iter().map(|address| address.parse().unwrap()).collect();
        let mut edge = EdgeConfig::new(EDGE, own, POD);
        change(&mut edge);
        Self {
            now: Duration::from_secs(1),
            pod: Host::new(config, seed).unwrap(),
            edge: Edge::new(edge, World::new(), FramePool::new(), &seed),
            way: Way::default(),
            rng: seed.rng("lab"),
            pool: FramePool::new(),
            under_way: BTreeMap::new(),
            count: 0,
            next_step: Duration::from_secs(1),
            to_pod: 0,
        }
    }

    pub(super) fn world(&mut self) -> &mut World {
        self.edge.outside()
    }

    /// Puts a frame on the way.
    pub(super) fn send(&mut self, to_pod: bool, frame: Frame) {
        let copies = 1 + u64::from(self.rng.below(1000) < self.way.twice);
        for _ in 0..copies {
            if self.rng.below(1000) < self.way.lost {
                continue;
            }
            let late = if self.way.late > 0 { self.rng.below(self.way.late) } else { 0 };
            let at = self.now + Duration::from_micros(20 + u64::from(late));
            self.count += 1;
            let copy = self.pool.duplicate(&frame);
            self.under_way.insert((at, self.count), (to_pod, copy));
        }
    }

    fn take_from_edge(&mut self, mut frame: Frame) {
        self.to_pod += 1;
        let Some(ip) = packet(&frame) else { return self.send(true, frame) };
        validate(&frame, &ip).expect("what the edge says of its frames is true");
        if frame.offload.segmentation.is_none() {
            complete_checksum(&mut frame).unwrap();
            assert!(ip.fragment.is_some() || parse::verify_transport_checksum(frame.bytes(), &ip));
            assert!(frame.len() <= 1514, "{}", frame.len());
            return self.send(true, frame);
        }
        if !self.way.cuts {
            return self.send(true, frame);
        }
        let mut pieces = Vec::new();
        segment(&frame, &ip, OffloadFeatures::NONE, &mut self.pool, &mut |piece| pieces.push(piece)).unwrap();
        for piece in pieces {
            assert!(piece.len() <= 1514);
            self.send(true, piece);
        }
    }

    /// Takes out what both have to send.
    fn flush(&mut self) {
        let mut batch = FrameBatch::new();
        while self.pod.poll_transmit(&mut batch) {
            let frames: Vec<Frame> = batch.drain().collect();
            frames.into_iter().for_each(|frame| self.send(false, frame));
        }
        while self.edge.poll_transmit(&mut batch) == Some(LINK) {
            let frames: Vec<Frame> = batch.drain().collect();
            frames.into_iter().for_each(|frame| self.take_from_edge(frame));
        }
    }

    /// Goes on to the next thing that happens, at most until then.
    pub(super) fn step(&mut self, until: Duration) {
        self.flush();
        let arrival = self.under_way.keys().next().map(|(at, _)| *at);
        let times =
            [arrival, self.pod.poll_timeout(), self.edge.poll_timeout(), Some(self.next_step), Some(until)];
        let next = times.into_iter().flatten().min().unwrap_or(until);
        self.now = self.now.max(next);
        while let Some(entry) = self.under_way.first_entry().filter(|entry| entry.key().0 <= self.now) {
            let (to_pod, frame) = entry.remove();
            let mut batch = FrameBatch::new();
            batch.push(frame).unwrap();
            if to_pod {
                self.pod.handle_frames(self.now, &mut batch);
            } else {
                self.edge.handle_frames(self.now, LINK, &mut batch);
            }
        }
        if self.next_step <= self.now {
            self.edge.outside().step();
            self.next_step = self.now + STEP;
        }
        if self.edge.outside().is_waiting() {
            self.edge.serve_outside(self.now);
        }
        if self.pod.poll_timeout().is_some_and(|at| at <= self.now) {
            self.pod.handle_timeout(self.now);
        }
        if self.edge.poll_timeout().is_some_and(|at| at <= self.now) {
            self.edge.handle_timeout(self.now);
        }
        self.flush();
    }

    pub(super) fn run_for(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.step(until);
        }
    }

    /// Goes on for long, in strides: nothing but timers is expected to happen.
    pub(super) fn wait(&mut self, time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.next_step = self.now + Duration::from_secs(1);
            self.step(until);
        }
    }

    /// Pod and edge get to know each other while nothing is lost.
    pub(super) fn meet(&mut self) {
        for own in OWN {
            self.pod.ping(self.now, own.parse().unwrap(), 1, 1, b"").unwrap();
        }
        self.run_for(Duration::from_millis(5));
    }

    pub(super) fn connect(&mut self, to: &str) -> TcpHandle {
        let to: SocketAddr = to.parse().unwrap();
        self.pod.tcp_connect(self.now, to).unwrap()
    }

    /// Has the pod say `octets` and end, and hear the other side to its end; what it has heard.
    pub(super) fn exchange(
        &mut self,
        to: &str,
        octets: &[u8],
        ends_first: bool,
    ) -> Result<Vec<u8>, TcpError> {
        let connection = self.connect(to);
        self.talk(connection, octets, ends_first)
    }

    pub(super) fn talk(
        &mut self,
        connection: TcpHandle,
        octets: &[u8],
        ends_first: bool,
    ) -> Result<Vec<u8>, TcpError> {
        let (mut said, mut heard, mut closed) = (0, Vec::new(), false);
        let mut buffer = vec![0; 40_000];
        // The pod's TCP doubles its patience with every loss, and knows nothing of what came behind it.
        let deadline = self.now + Duration::from_secs(3600);
        loop {
            assert!(self.now < deadline, "no end: {said} of {} said, {} heard", octets.len(), heard.len());
            self.step(self.now + STEP);
            if let Some(error) = self.pod.tcp_error(connection) {
                self.pod.tcp_release(self.now, connection);
                return Err(error);
            }
            match self.pod.tcp_send(self.now, connection, &octets[said..]) {
                Ok(count) => said += count,
                Err(TcpError::WouldBlock | TcpError::Closed) => {}
                Err(error) => return Err(error),
            }
            let count = match self.pod.tcp_recv(self.now, connection, &mut buffer) {
                Ok(0) if said == octets.len() => {
                    if !closed {
                        self.pod.tcp_close(self.now, connection);
                    }
                    break;
                }
                Ok(count) => count,
                Err(TcpError::WouldBlock) => 0,
                Err(error) => return Err(error),
            };
            heard.extend_from_slice(&buffer[..count]);
            let stands = self.pod.tcp_state(connection) != TcpState::SynSent;
            if said == octets.len() && ends_first && stands && !closed {
                closed = true;
                self.pod.tcp_close(self.now, connection);
            }
        }
        self.pod.tcp_release(self.now, connection);
        Ok(heard)
    }

    /// Nothing is left, anywhere.
    pub(super) fn assert_at_rest(&mut self) {
        assert_eq!(self.edge.carried(), (0, 0));
        assert_eq!(self.edge.held(), 0);
        assert!(self.world().peers.is_empty(), "{:?}", self.world().peers);
    }
}

pub(super) fn packet(frame: &Frame) -> Option<Ip> {
    let link = parse::link(frame.bytes()).unwrap();
    match parse::network(frame.bytes(), &link).unwrap() {
        Network::Ip(ip) => Some(ip),
        Network::Arp(_) | Network::Other => None,
    }
}

/// Octets that repeat late and are the same on every run.
pub(super) fn octets(length: usize, seed: u64) -> Vec<u8> {
    let mut rng = Seed::from_u64(seed).rng("octets");
    let mut all = Vec::with_capacity(length + 8);
    while all.len() < length {
        all.extend_from_slice(&rng.next_u64().to_le_bytes());
    }
    all.truncate(length);
    all
}
