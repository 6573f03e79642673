//! The edge as a library: a host in this process reaches servers on this machine by real sockets, turned by a driver. It
//! needs no right that an ordinary user does not have.
#![allow(clippy::unwrap_used, reason = "all of this file is tests")]

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, UdpSocket};
use std::thread::JoinHandle;
use std::time::Duration;

use netstack::addr::{MacAddr, PortId};
use netstack::device::memory::{self, MemoryOptions};
use netstack::driver::{Clock, Driver, Engine, EngineId};
use netstack::event::Event;
use netstack::frame::{FrameBatch, FramePool};
use netstack::host::{Host, HostConfig, HostEvent, TcpError, TcpHandle};
use netstack::seed::Seed;
use vswitch::edge::{self, Carried, Door, Edge, EdgeConfig, EdgeDrop, Opening, Refusal, Sockets};

const POD: MacAddr = MacAddr::local(1);
const EDGE: MacAddr = MacAddr::local(2);
const OWN_V4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 0, 2));
const OWN_V6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfd00, 0x192, 0, 0, 0, 0, 0, 2));
const PATIENCE: Duration = Duration::from_secs(60);

/// A pod without a kernel.
struct Pod {
    host: Host,
    pool: FramePool,
}

impl Engine for Pod {
    fn handle_frames(&mut self, now: Duration, _port: PortId, batch: &mut FrameBatch) {
        self.host.handle_frames(now, batch);
    }

    fn handle_timeout(&mut self, now: Duration) {
        self.host.handle_timeout(now);
    }

    fn poll_transmit(&mut self, batch: &mut FrameBatch) -> Option<PortId> {
        self.host.poll_transmit(batch).then_some(PortId(0))
    }

    fn poll_timeout(&self) -> Option<Duration> {
        self.host.poll_timeout()
    }

    fn poll_event(&mut self) -> Option<Event> {
        None
    }

    fn pool(&mut self) -> &mut FramePool {
        &mut self.pool
    }
}

struct Lab {
    driver: Driver,
    pod: EngineId,
    edge: EngineId,
}

impl Lab {
    fn new() -> Self {
        let seed = Seed::from_u64(1);
        let mut config =
            HostConfig::new(POD, vec!["10.0.0.2/24".parse().unwrap(), "fd00::2/64".parse().unwrap()]);
        config.gateway_v4 = Some(Ipv4Addr::new(192, 0, 0, 2));
        config.gateway_v6 = Some(EDGE.link_local());
        let host = Host::new(config, seed).unwrap();
        let mut config = EdgeConfig::new(EDGE, vec![OWN_V4, OWN_V6], POD);
        config.reach.openings.push(Opening::MachineLoopback);
        config.timers.linger = Duration::from_millis(100);
        let sockets = Sockets::new().unwrap();
        let bell = sockets.bell().unwrap();
        let mut driver = Driver::new(Clock::start()).unwrap();
        let pod = driver.add_engine(Box::new(Pod { host, pool: FramePool::new() }));
        let edge = driver.add_engine(Box::new(Edge::new(config, sockets, FramePool::new(), &seed)));
        let (near, far) = memory::pair(64, MemoryOptions::default()).unwrap();
        driver.attach(pod, PortId(0), Box::new(near)).unwrap();
        driver.attach(edge, edge::LINK, Box::new(far)).unwrap();
        driver.attach(edge, edge::BELL, Box::new(bell)).unwrap();
        Self { driver, pod, edge }
    }

    fn host(&mut self) -> &mut Host {
        &mut self.driver.engine_mut::<Pod>(self.pod).unwrap().host
    }

    fn edge(&mut self) -> &mut Edge<Sockets> {
        self.driver.engine_mut(self.edge).unwrap()
    }

    fn now(&self) -> Duration {
        self.driver.clock().now()
    }

    fn turn(&mut self) {
        self.driver.run_once(Some(Duration::from_millis(1))).unwrap();
    }

    fn until(&mut self, what: &str, mut condition: impl FnMut(&mut Self) -> bool) {
        let deadline = self.now() + PATIENCE;
        while !condition(self) {
            assert!(self.now() < deadline, "it did not happen that {what}: {:?}", self.edge().counters());
            self.turn();
        }
    }

    fn connect(&mut self, to: SocketAddr) -> TcpHandle {
        let now = self.now();
        self.host().tcp_connect(now, to).unwrap()
    }

    /// Says all of it, ends, and hears the other side to its end.
    fn exchange(&mut self, to: SocketAddr, said: &[u8]) -> Result<Vec<u8>, TcpError> {
        let connection = self.connect(to);
        let (mut sent, mut heard, mut buffer) = (0, Vec::new(), vec![0; 65_536]);
        let deadline = self.now() + PATIENCE;
        loop {
            assert!(
                self.now() < deadline,
                "{sent} said, {} heard: {:?}",
                heard.len(),
                self.edge().counters()
            );
            self.turn();
            let now = self.now();
            let host = self.host();
            if let Some(error) = host.tcp_error(connection) {
                host.tcp_release(now, connection);
                return Err(error);
            }
            if sent < said.len() {
                match host.tcp_send(now, connection, &said[sent..]) {
                    Ok(count) => sent += count,
                    Err(TcpError::WouldBlock) => {}
                    Err(error) => return Err(error),
                }
                if sent == said.len() {
                    host.tcp_close(now, connection);
                }
            }
            match host.tcp_recv(now, connection, &mut buffer) {
                Ok(0) if sent == said.len() => break,
                Ok(count) => heard.extend_from_slice(&buffer[..count]),
                Err(TcpError::WouldBlock) => {}
                Err(error) => return Err(error),
            }
        }
        let now = self.now();
        self.host().tcp_release(now, connection);
        Ok(heard)
    }

    fn assert_at_rest(&mut self) {
        self.until("everything is at rest", |lab| lab.edge().carried().0 == 0);
        let (flows, held) = (self.edge().carried().1, self.edge().held());
        assert_eq!((held, self.edge().outside().open_sockets()), (0, flows));
    }
}

/// Octets that repeat late.
fn octets(length: usize) -> Vec<u8> {
    let mut rng = Seed::from_u64(9).rng("octets");
    let mut all = vec![0; length];
    vswitch::probe::fill(&mut rng, &mut all);
    all
}

/// A server on a loopback address of this machine that takes so many clients, and where pods see it.
fn server(
    v6: bool,
    clients: usize,
    serve: impl Fn(std::net::TcpStream) + Send + Sync + 'static,
) -> (SocketAddr, JoinHandle<()>) {
    let (own, seen) =
        if v6 { (IpAddr::from(Ipv6Addr::LOCALHOST), OWN_V6) } else { (Ipv4Addr::LOCALHOST.into(), OWN_V4) };
    let listener = TcpListener::bind((own, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let thread = std::thread::spawn(move || {
        std::thread::scope(|scope| {
            let serve = &serve;
            for _ in 0..clients {
                let stream = listener.accept().unwrap().0;
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                scope.spawn(move || serve(stream));
            }
        });
    });
    (SocketAddr::new(seen, port), thread)
}

#[test]
fn megabytes_go_there_and_back_by_both_families() {
    let mut lab = Lab::new();
    for v6 in [false, true] {
        for length in [0, 1, 2048, 10 << 20] {
            let (to, thread) = server(v6, 1, |mut stream| {
                let mut all = Vec::new();
                stream.read_to_end(&mut all).unwrap();
                stream.write_all(&all).unwrap();
            });
            let said = octets(length);
            // A pod that says nothing ends by itself.
            let heard = if length == 0 {
                let connection = lab.connect(to);
                lab.until("it stands", |lab| {
                    lab.edge().counters().established > 0 && lab.host().tcp_writable(connection) > 0
                });
                let now = lab.now();
                lab.host().tcp_close(now, connection);
                lab.until("the other side has ended", |lab| {
                    let now = lab.now();
                    lab.host().tcp_recv(now, connection, &mut [0; 1]) == Ok(0)
                });
                Vec::new()
            } else {
                lab.exchange(to, &said).unwrap()
            };
            assert!(heard == said, "{to} {length}: {} octets", heard.len());
            thread.join().unwrap();
            lab.assert_at_rest();
        }
    }
}

#[test]
fn a_server_that_says_much_and_one_that_breaks_off() {
    let mut lab = Lab::new();
    let all = octets(20 << 20);
    let said = all.clone();
    let (to, thread) = server(false, 1, move |mut stream| stream.write_all(&said).unwrap());
    let connection = lab.connect(to);
    let (mut heard, mut buffer) = (Vec::new(), vec![0; 65_536]);
    lab.until("all of it is heard", |lab| {
        let now = lab.now();
        match lab.host().tcp_recv(now, connection, &mut buffer) {
            Ok(0) => return true,
            Ok(count) => heard.extend_from_slice(&buffer[..count]),
            Err(error) => assert_eq!(error, TcpError::WouldBlock),
        }
        false
    });
    assert!(heard == all);
    let now = lab.now();
    lab.host().tcp_release(now, connection);
    thread.join().unwrap();
    lab.assert_at_rest();
    let (to, thread) = server(true, 1, |stream| {
        // Closing with octets unread resets.
        std::thread::sleep(Duration::from_millis(50));
        drop(stream);
    });
    let connection = lab.connect(to);
    lab.until("it stands", |lab| lab.host().tcp_writable(connection) > 0);
    let now = lab.now();
    lab.host().tcp_send(now, connection, b"hello").unwrap();
    lab.until("it is reset", |lab| lab.host().tcp_error(connection) == Some(TcpError::Reset));
    thread.join().unwrap();
    lab.assert_at_rest();
    assert_eq!(lab.edge().counters().reset_by_outside, 1);
}

#[test]
fn refused_stays_refused_and_takes_no_time() {
    let mut lab = Lab::new();
    for (own, seen) in [(IpAddr::from(Ipv4Addr::LOCALHOST), OWN_V4), (Ipv6Addr::LOCALHOST.into(), OWN_V6)] {
        // Somebody had the port a moment ago, so nobody has it now.
        let port = TcpListener::bind((own, 0)).unwrap().local_addr().unwrap().port();
        let begun = lab.now();
        assert_eq!(lab.exchange(SocketAddr::new(seen, port), b"x"), Err(TcpError::Refused));
        assert!(lab.now() - begun < Duration::from_secs(1));
    }
    assert_eq!(lab.edge().counters().refused, 2);
    lab.assert_at_rest();
}

#[test]
fn one_side_may_go_on_long_after_the_other_has_ended() {
    let mut lab = Lab::new();
    let (to, thread) = server(false, 1, |mut stream| {
        stream.shutdown(Shutdown::Write).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        assert!(all == octets(3 << 20));
    });
    assert_eq!(lab.exchange(to, &octets(3 << 20)), Ok(Vec::new()));
    lab.assert_at_rest();
    thread.join().unwrap();
}

#[test]
fn datagrams_and_their_errors() {
    let mut lab = Lab::new();
    for (own, seen) in [(IpAddr::from(Ipv4Addr::LOCALHOST), OWN_V4), (Ipv6Addr::LOCALHOST.into(), OWN_V6)] {
        let server = UdpSocket::bind((own, 0)).unwrap();
        let to = SocketAddr::new(seen, server.local_addr().unwrap().port());
        server.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        let any = if seen.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = lab.host().udp_bind(any.parse().unwrap()).unwrap();
        for length in [0, 1, 1000, 1400] {
            let now = lab.now();
            lab.host().udp_send_to(now, socket, &octets(length), to).unwrap();
            let mut buffer = vec![0; 70_000];
            lab.until("it has come and gone back", |lab| {
                if let Ok((count, from)) = server.recv_from(&mut buffer) {
                    server.send_to(&buffer[..count], from).unwrap();
                }
                let Ok(datagram) = lab.host().udp_recv_from(socket, &mut buffer) else { return false };
                assert_eq!((datagram.from, datagram.len), (to, length));
                true
            });
        }
        drop(server);
        while lab.host().poll_event().is_some() {}
        let now = lab.now();
        lab.host().udp_send_to(now, socket, b"is anybody there", to).unwrap();
        lab.until("nobody is, which is told", |lab| {
            let told: Vec<HostEvent> = std::iter::from_fn(|| lab.host().poll_event()).collect();
            told.iter().any(|event| matches!(event, HostEvent::IcmpError { .. }))
        });
    }
    assert_eq!(lab.edge().counters().messages, [10, 8]);
}

#[test]
fn hundreds_at_once_and_all_gone_afterwards() {
    const MANY: usize = 300;
    let mut lab = Lab::new();
    let (to, thread) = server(false, MANY, |mut stream| {
        let mut octet = [0];
        while stream.read(&mut octet).unwrap() > 0 {
            stream.write_all(&octet).unwrap();
        }
    });
    let all: Vec<TcpHandle> = (0..MANY).map(|_| lab.connect(to)).collect();
    lab.until("all stand", |lab| all.iter().all(|one| lab.host().tcp_writable(*one) > 0));
    assert_eq!(lab.edge().outside().open_sockets(), MANY);
    for one in &all {
        let now = lab.now();
        lab.host().tcp_send(now, *one, b"x").unwrap();
    }
    lab.until("all are answered", |lab| all.iter().all(|one| lab.host().tcp_readable(*one) > 0));
    for one in all {
        let now = lab.now();
        assert_eq!(lab.host().tcp_recv(now, one, &mut [0; 10]), Ok(1));
        lab.host().tcp_release(now, one);
    }
    lab.assert_at_rest();
    thread.join().unwrap();
    let counters = lab.edge().counters();
    assert!(EdgeDrop::ALL.iter().all(|reason| counters.dropped(*reason) == 0), "{counters:?}");
}

#[test]
fn an_edge_that_carries_nothing_turns_nothing() {
    let mut lab = Lab::new();
    let (to, thread) = server(false, 1, |mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
    });
    let connection = lab.connect(to);
    lab.until("it stands", |lab| lab.host().tcp_writable(connection) > 0);
    for _ in 0..50 {
        lab.turn();
    }
    let before = lab.driver.turns();
    let begun = lab.now();
    while lab.now() - begun < Duration::from_millis(500) {
        lab.driver.run_once(Some(Duration::from_millis(100))).unwrap();
        assert!(lab.driver.turns() - before < 20, "it turns for nothing");
    }
    let now = lab.now();
    lab.host().tcp_release(now, connection);
    lab.assert_at_rest();
    thread.join().unwrap();
}

/// A port that nobody has.
fn free_port(address: IpAddr) -> SocketAddr {
    TcpListener::bind((address, 0)).unwrap().local_addr().unwrap()
}

#[test]
fn clients_of_this_machine_come_in_by_doors() {
    let mut lab = Lab::new();
    for (own, seen, inside) in [
        (IpAddr::from(Ipv4Addr::LOCALHOST), OWN_V4, "10.0.0.2:80"),
        (Ipv6Addr::LOCALHOST.into(), OWN_V6, "[fd00::2]:80"),
    ] {
        let door = Door { carried: Carried::Tcp, at: free_port(own), to: inside.parse().unwrap() };
        let listener = lab.host().tcp_listen(door.to).unwrap();
        lab.edge().publish(door).unwrap();
        let said = octets(5 << 20);
        let expected = said.clone();
        let client = std::thread::spawn(move || {
            let mut stream = std::net::TcpStream::connect(door.at).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            stream.write_all(&said).unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
            let mut all = Vec::new();
            stream.read_to_end(&mut all).unwrap();
            all
        });
        let (mut connection, mut heard, mut buffer) = (None, Vec::new(), vec![0; 65_536]);
        lab.until("all of it is heard", |lab| {
            connection = connection.or_else(|| lab.host().tcp_accept(listener));
            let (Some(connection), now) = (connection, lab.now()) else { return false };
            match lab.host().tcp_recv(now, connection, &mut buffer) {
                Ok(0) => return true,
                Ok(count) => heard.extend_from_slice(&buffer[..count]),
                Err(error) => assert_eq!(error, TcpError::WouldBlock),
            }
            false
        });
        assert!(heard == expected);
        let connection = connection.unwrap();
        assert_eq!(lab.host().tcp_endpoints(connection).unwrap().1.ip(), seen);
        let mut sent = 0;
        lab.until("all of it is said", |lab| {
            let now = lab.now();
            match lab.host().tcp_send(now, connection, &heard[sent..]) {
                Ok(count) => sent += count,
                Err(error) => assert_eq!(error, TcpError::WouldBlock),
            }
            sent == heard.len()
        });
        let now = lab.now();
        lab.host().tcp_release(now, connection);
        lab.until("the client has heard it", |_| client.is_finished());
        assert!(client.join().unwrap() == expected);
        lab.assert_at_rest();
        assert!(lab.edge().withdraw(&door));
        assert!(std::net::TcpStream::connect(door.at).is_err(), "nobody listens any more");
    }
}

#[test]
fn datagrams_come_in_by_doors_and_are_answered_from_the_address_that_was_asked() {
    let mut lab = Lab::new();
    let at: SocketAddr = format!("0.0.0.0:{}", free_port(Ipv4Addr::LOCALHOST.into()).port()).parse().unwrap();
    let door = Door { carried: Carried::Udp, at, to: "10.0.0.2:53".parse().unwrap() };
    let socket = lab.host().udp_bind(door.to).unwrap();
    lab.edge().publish(door).unwrap();
    for asked in ["127.0.0.1", "127.0.0.77"] {
        let client = UdpSocket::bind("127.0.0.9:0").unwrap();
        client.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        let asked = SocketAddr::new(asked.parse().unwrap(), at.port());
        for length in [0, 1, 1400] {
            client.send_to(&octets(length), asked).unwrap();
            let mut buffer = vec![0; 2000];
            lab.until("it has come and gone back", |lab| {
                let now = lab.now();
                if let Ok(datagram) = lab.host().udp_recv_from(socket, &mut buffer) {
                    lab.host().udp_send_to(now, socket, &buffer[..datagram.len], datagram.from).unwrap();
                }
                let Ok((count, from)) = client.recv_from(&mut buffer) else { return false };
                assert_eq!((count, from), (length, asked));
                true
            });
        }
    }
}

#[test]
fn a_port_that_is_in_use_is_told_to_be() {
    let mut lab = Lab::new();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = other.local_addr().unwrap();
    let door = Door { carried: Carried::Tcp, at, to: "10.0.0.2:80".parse().unwrap() };
    assert_eq!(lab.edge().publish(door), Err(Refusal::InUse));
    let elsewhere = Door { at: "203.0.113.250:80".parse().unwrap(), ..door };
    assert_eq!(lab.edge().publish(elsewhere), Err(Refusal::NoRoute));
    drop(other);
    assert_eq!(lab.edge().publish(door), Ok(()));
}
