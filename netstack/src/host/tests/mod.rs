//! Two hosts on one link, on a virtual clock.

mod datagram;
mod interop;
mod neighbor;
mod tcp;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::net::{IpAddr, SocketAddr};
use core::time::Duration;

use super::*;

/// Which family a test speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

const BOTH: [Family; 2] = [Family::V4, Family::V6];

fn address(host: u8, family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([10, 0, 0, host]),
        Family::V6 => IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(host)]),
    }
}

fn any(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([0; 4]),
        Family::V6 => IpAddr::from([0u8; 16]),
    }
}

fn config(host: u8) -> HostConfig {
    let nets = vec![
        IpNet::new(address(host, Family::V4), 24).unwrap(),
        IpNet::new(address(host, Family::V6), 64).unwrap(),
    ];
    HostConfig::new(MacAddr::local(u64::from(host)), nets)
}

/// A random octet.
fn octet(rng: &mut crate::seed::Rng) -> u8 {
    rng.next_u64().to_be_bytes()[0]
}

/// Octets that differ from place to place.
fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut rng = Seed::from_u64(seed).rng("pattern");
    (0..len.div_ceil(8)).flat_map(|_| rng.next_u64().to_le_bytes()).take(len).collect()
}

type Filter = Box<dyn FnMut(usize, &Frame) -> bool>;

/// Hosts 1 and 2, back to back.
struct Lab {
    hosts: [Host; 2],
    now: Duration,
    /// Whether a frame of this side gets through.
    filter: Filter,
}

const LATENCY: Duration = Duration::from_micros(50);

impl Lab {
    fn new() -> Self {
        Self::with(config(1), config(2))
    }

    fn with(first: HostConfig, second: HostConfig) -> Self {
        let host = |config, seed| Host::new(config, Seed::from_u64(seed)).unwrap();
        Self {
            hosts: [host(first, 1), host(second, 2)],
            now: Duration::from_secs(1000),
            filter: Box::new(|_, _| true),
        }
    }

    /// Carries what either side has to send; returns whether there was anything.
    fn exchange(&mut self) -> bool {
        let mut moved = false;
        for side in 0..2 {
            let mut batch = FrameBatch::new();
            while self.hosts[side].poll_transmit(&mut batch) {
                moved = true;
                let mut through = FrameBatch::new();
                for frame in batch.drain() {
                    if (self.filter)(side, &frame) {
                        through.push(frame).unwrap();
                    }
                }
                self.hosts[1 - side].handle_frames(self.now, &mut through);
                assert!(through.is_empty());
            }
        }
        moved
    }

    /// One exchange, or the next timer. Returns false when nothing will ever happen again.
    fn step(&mut self) -> bool {
        if self.exchange() {
            self.now += LATENCY;
            return true;
        }
        let Some(next) = self.hosts.iter().filter_map(Host::poll_timeout).min() else { return false };
        self.now = self.now.max(next);
        for host in &mut self.hosts {
            host.handle_timeout(self.now);
        }
        true
    }

    /// Steps until `done`, and panics if that takes more than `bound` steps.
    #[track_caller]
    fn drive(&mut self, bound: usize, mut done: impl FnMut(&mut Self) -> bool) {
        for _ in 0..bound {
            if done(self) {
                return;
            }
            if !self.step() {
                assert!(done(self), "nothing left to do at {:?}", self.now);
                return;
            }
        }
        panic!("not done after {bound} steps, at {:?}", self.now);
    }

    /// Steps until nothing is due before `until`.
    fn run_until(&mut self, until: Duration) {
        for _ in 0..1_000_000 {
            if self.exchange() {
                continue;
            }
            match self.hosts.iter().filter_map(Host::poll_timeout).min() {
                Some(next) if next <= until => {
                    self.now = self.now.max(next);
                    self.hosts.iter_mut().for_each(|host| host.handle_timeout(self.now));
                }
                _ => {
                    self.now = until;
                    return;
                }
            }
        }
        panic!("still busy at {:?}", self.now);
    }

    /// A connection from host 1 to a listener on host 2, both established.
    #[track_caller]
    fn connection(&mut self, family: Family) -> (TcpHandle, TcpHandle) {
        let server = SocketAddr::new(address(2, family), 80);
        let listener = self.hosts[1].tcp_listen(server).unwrap();
        let client = self.hosts[0].tcp_connect(self.now, server).unwrap();
        let mut accepted = None;
        self.drive(100, |lab| {
            accepted = accepted.or_else(|| lab.hosts[1].tcp_accept(listener));
            accepted.is_some() && lab.hosts[0].tcp_state(client) == TcpState::Established
        });
        self.hosts[1].tcp_unlisten(self.now, listener);
        (client, accepted.unwrap())
    }

    /// A UDP socket of host 1, one of host 2, and the address of the latter.
    #[track_caller]
    fn datagram_sockets(&mut self, family: Family) -> (UdpHandle, UdpHandle, SocketAddr) {
        let to = SocketAddr::new(address(2, family), 7);
        let from = self.hosts[0].udp_bind(SocketAddr::new(any(family), 0)).unwrap();
        (from, self.hosts[1].udp_bind(to).unwrap(), to)
    }

    /// Lets host 1 and host 2 learn each other's MAC address.
    #[track_caller]
    fn introduce(&mut self, family: Family) {
        self.hosts[0].ping(self.now, address(2, family), 0, 0, b"").unwrap();
        self.run_until(self.now + Duration::from_millis(1));
        assert!(matches!(self.events(0)[..], [HostEvent::EchoReply { .. }]));
    }

    /// Sends `data` from one side while the other reads until the end of the stream.
    fn send_all(&mut self, side: usize, connection: TcpHandle, data: &[u8], sent: &mut usize) {
        while *sent < data.len() {
            match self.hosts[side].tcp_send(self.now, connection, &data[*sent..]) {
                Ok(count) => *sent += count,
                Err(TcpError::WouldBlock) => return,
                Err(error) => panic!("send: {error}"),
            }
        }
    }

    /// Reads what is there; returns whether the stream has ended.
    fn read_all(&mut self, side: usize, connection: TcpHandle, into: &mut Vec<u8>) -> bool {
        let mut buffer = [0; 4096];
        loop {
            match self.hosts[side].tcp_recv(self.now, connection, &mut buffer) {
                Ok(0) => return true,
                Ok(count) => into.extend_from_slice(&buffer[..count]),
                Err(TcpError::WouldBlock) => return false,
                Err(error) => panic!("recv: {error}"),
            }
        }
    }

    fn events(&mut self, side: usize) -> Vec<HostEvent> {
        core::iter::from_fn(|| self.hosts[side].poll_event()).collect()
    }

    #[track_caller]
    fn check(&self) {
        for host in &self.hosts {
            assert!(host.counters().balanced(), "{:?}", host.counters());
        }
    }
}

#[test]
fn a_host_can_move_between_threads() {
    fn send<T: Send>() {}
    send::<Host>();
}

#[test]
fn a_bad_configuration_says_why() {
    let error = |change: &dyn Fn(&mut HostConfig)| -> String {
        let mut config = config(1);
        change(&mut config);
        alloc::format!("{}", Host::new(config, Seed::from_u64(1)).err().unwrap())
    };
    assert!(error(&|c| c.mac = MacAddr::BROADCAST).contains("ff:ff"));
    assert!(error(&|c| c.mtu = 500).contains("500"));
    assert!(error(&|c| c.mtu = 1000).contains("1280"));
    assert!(error(&|c| c.addresses.push("224.0.0.1/32".parse().unwrap())).contains("224.0.0.1"));
    assert!(error(&|c| c.limits.send_buffer = 0).contains("octet"));
}

#[test]
fn the_same_seed_gives_the_same_frames() {
    let run = || {
        let mut frames: Vec<Vec<u8>> = Vec::new();
        let mut lab = Lab::new();
        let log = alloc::rc::Rc::new(core::cell::RefCell::new(Vec::new()));
        let inner = log.clone();
        lab.filter = Box::new(move |_, frame| {
            inner.borrow_mut().push(frame.bytes().to_vec());
            true
        });
        let (client, _) = lab.connection(Family::V6);
        lab.hosts[0].tcp_send(lab.now, client, b"hello").unwrap();
        lab.hosts[0].tcp_close(lab.now, client);
        lab.run_until(lab.now + Duration::from_secs(5));
        frames.append(&mut log.borrow_mut());
        frames
    };
    let first = run();
    assert!(first.len() > 5);
    assert_eq!(first, run());
}
