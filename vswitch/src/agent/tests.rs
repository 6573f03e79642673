use std::io::{Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use super::duties::Listeners;
use super::health::Health;
use super::role::Agent;
use super::*;
use crate::cluster::Protocol;

const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn relay(protocol: Protocol, port: u16, to: &[SocketAddr]) -> Relay {
    Relay { protocol, listen: vec![LOCALHOST], port, to: to.to_vec() }
}

fn duties(relays: Vec<Relay>) -> Listeners {
    Listeners::of(&NodeDuties { relays, health_checks: Vec::new() })
}

fn check(port: u16, local_endpoints: u32) -> HealthCheck {
    HealthCheck { port, namespace: "shop".into(), name: "web".into(), local_endpoints }
}

/// A port that nobody has.
fn free() -> u16 {
    TcpListener::bind((LOCALHOST, 0)).unwrap().local_addr().unwrap().port()
}

#[test]
fn only_what_changed_is_told_and_everything_at_first() {
    let to: SocketAddr = "10.96.0.1:80".parse().unwrap();
    let mut all = NodeDuties {
        relays: vec![relay(Protocol::Tcp, 30080, &[to]), relay(Protocol::Udp, 30053, &[])],
        health_checks: vec![check(30001, 1)],
    };
    all.relays[0].listen.push("::1".parse().unwrap());
    let first = Listeners::of(&all);
    let order = Listeners::default().order(&first, true);
    assert_eq!((order.reset, order.relays.len(), order.health.len()), (true, 3, 1));
    assert_eq!(first.order(&first, false).relays, []);
    all.relays[0].listen.pop();
    all.relays[1].to = vec![to];
    all.health_checks[0].local_endpoints = 0;
    let order = first.order(&Listeners::of(&all), false);
    let told: Vec<(String, Option<usize>)> =
        order.relays.iter().map(|r| (r.at.to_string(), r.to.as_ref().map(Vec::len))).collect();
    assert_eq!(told, [("[::1]:30080".to_owned(), None), ("127.0.0.1:30053".to_owned(), Some(1))]);
    assert_eq!(order.health[0].check.as_ref().unwrap().local_endpoints, 0);
}

#[test]
fn health_is_told_in_kube_proxys_words_and_not_well_without_vswitch() {
    let health = Health::default();
    health.set(check(30001, 2));
    assert_eq!(health.answer(30001, "/").0, 503);
    health.connected();
    let (status, words, weight) = health.answer(30001, "/any");
    assert_eq!((status.as_u16(), weight), (200, Some(2)));
    let expected =
        r#"{"service":{"namespace":"shop","name":"web"},"localEndpoints":2,"serviceProxyHealthy":true}"#;
    assert_eq!(words, serde_json::from_str::<serde_json::Value>(expected).unwrap());
    health.set(check(30001, 0));
    assert_eq!(health.answer(30001, "/").0, 503);
    assert_eq!(health.answer(HEALTHZ_PORT, "/healthz").0, 200);
    assert_eq!(health.answer(HEALTHZ_PORT, "/x").0, 404);
    health.disconnected();
    assert_eq!(health.answer(HEALTHZ_PORT, "/livez").0, 503);
    health.remove(30001);
    assert_eq!(health.answer(30001, "/").0, 404);
}

/// Runs `test` beside an agent that has been told its duties by `tell`.
fn with_agent(test: impl FnOnce(&dyn Fn(Listeners)) + Send) {
    let (orders, mut told) = tokio::sync::mpsc::unbounded_channel();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut agent = Agent::new();
                while let Some(listeners) = told.recv().await {
                    agent.follow(Listeners::default().order(&listeners, true));
                }
            });
        });
        test(&|listeners| orders.send(listeners).unwrap());
        drop(orders);
    });
}

fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("it did not happen that {what}");
}

#[test]
fn tcp_is_relayed_both_ways_to_its_ends_and_refused_without_anybody() {
    let server = TcpListener::bind((LOCALHOST, 0)).unwrap();
    let (to, dead, port) = (server.local_addr().unwrap(), SocketAddr::new(LOCALHOST, free()), free());
    with_agent(|tell| {
        // The one that refuses is passed over.
        tell(duties(vec![relay(Protocol::Tcp, port, &[dead, to])]));
        until("the port is open", || {
            let Ok(mut near) = TcpStream::connect((LOCALHOST, port)) else { return false };
            let (mut far, _) = server.accept().unwrap();
            near.write_all(b"question").unwrap();
            near.shutdown(std::net::Shutdown::Write).unwrap();
            let mut text = String::new();
            far.read_to_string(&mut text).unwrap();
            assert_eq!(text, "question");
            // The other direction lives on.
            far.write_all(b"answer").unwrap();
            drop(far);
            text.clear();
            near.read_to_string(&mut text).unwrap();
            assert_eq!(text, "answer");
            true
        });
        tell(duties(vec![relay(Protocol::Tcp, port, &[dead])]));
        until("nobody accepts", || {
            let mut near = TcpStream::connect((LOCALHOST, port)).unwrap();
            near.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
            let reset = std::io::ErrorKind::ConnectionReset;
            near.read_exact(&mut [0]).is_err_and(|error| error.kind() == reset)
        });
        tell(duties(vec![relay(Protocol::Tcp, port, &[])]));
        until("the port is closed", || TcpStream::connect((LOCALHOST, port)).is_err());
        tell(duties(vec![relay(Protocol::Tcp, port, &[to])]));
        until("the port is open again", || TcpStream::connect((LOCALHOST, port)).is_ok());
        tell(duties(Vec::new()));
        until("the port is closed", || TcpStream::connect((LOCALHOST, port)).is_err());
    });
}

#[test]
fn udp_finds_its_way_back_and_a_new_target_at_once() {
    let servers = [(); 2].map(|()| UdpSocket::bind((LOCALHOST, 0)).unwrap());
    let [one, other] = servers.each_ref().map(|server| server.local_addr().unwrap());
    let port = UdpSocket::bind((LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
    for server in servers {
        std::thread::spawn(move || {
            let mut datagram = [0; 100];
            while let Ok((length, from)) = server.recv_from(&mut datagram) {
                let own = server.local_addr().unwrap().port().to_string();
                server.send_to(&[&datagram[..length], own.as_bytes()].concat(), from).unwrap();
            }
        });
    }
    let client = UdpSocket::bind((LOCALHOST, 0)).unwrap();
    client.connect((LOCALHOST, port)).unwrap();
    client.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let ask = || {
        let mut answer = [0; 100];
        client.send(b"x").ok()?;
        let length = client.recv(&mut answer).ok()?;
        Some(String::from_utf8(answer[..length].to_vec()).unwrap())
    };
    with_agent(|tell| {
        for target in [one, other] {
            tell(duties(vec![relay(Protocol::Udp, port, &[target])]));
            until("it answers", || ask().is_some_and(|answer| answer == format!("x{}", target.port())));
        }
        // Nothing is lost of what others send first.
        for _ in 0..100 {
            let client = UdpSocket::bind((LOCALHOST, 0)).unwrap();
            client.connect((LOCALHOST, port)).unwrap();
            client.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            client.send(b"one").unwrap();
            client.send(b"two").unwrap();
            let mut answer = [0; 100];
            for _ in 0..2 {
                assert!(client.recv(&mut answer).unwrap() > 3);
            }
        }
        tell(duties(vec![relay(Protocol::Udp, port, &[])]));
        until("it is refused", || {
            let refused = |e: std::io::Error| e.kind() == std::io::ErrorKind::ConnectionRefused;
            client.send(b"x").is_err_and(refused) || client.recv(&mut [0; 9]).is_err_and(refused)
        });
    });
}

#[test]
fn two_ends_of_a_socket_tell_duties_and_what_changes() {
    let directory = std::env::temp_dir().join(format!("vswitch-agents-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let state = crate::state::StatePaths::new(&directory);
    let agents = Agents::start(&state).unwrap();
    assert!(!agents.is_wanted("a"));
    let stream = std::os::unix::net::UnixStream::connect(state.agents_socket()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    (&stream).write_all(b"{\"node\":\"a\"}\n").unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(stream));
    let mut next = || serde_json::from_str::<serde_json::Value>(&lines.next().unwrap().unwrap()).unwrap();
    let service = |name: &str, duties: NodeDuties| (name.into(), duties);
    let one =
        |port, check| NodeDuties { relays: vec![relay(Protocol::Tcp, port, &[])], health_checks: check };
    agents.set("b", Vec::new());
    agents.set("a", vec![service("s", one(1, vec![check(2, 1)])), service("t", one(3, Vec::new()))]);
    let first = next();
    let ports = |order: &serde_json::Value| -> Vec<String> {
        let relays = order["relays"].as_array().unwrap().iter();
        relays.map(|relay| format!("{} {}", relay["at"].as_str().unwrap(), relay["to"])).collect()
    };
    assert_eq!(first["reset"], true);
    assert_eq!(ports(&first), ["127.0.0.1:1 []", "127.0.0.1:3 []"]);
    // What is as it was is not told; a port that another Service has now is not taken from it.
    agents.set("a", vec![service("t", one(3, Vec::new()))]);
    agents.set("a", vec![service("s", one(3, vec![check(2, 1)])), service("t", one(4, Vec::new()))]);
    let second = next();
    assert_eq!((second["reset"].as_bool(), second["health"].as_array().unwrap().len()), (Some(false), 0));
    assert_eq!(ports(&second), ["127.0.0.1:1 null", "127.0.0.1:4 []"]);
    agents.set("a", vec![service("s", NodeDuties::default())]);
    let third = next();
    assert_eq!(ports(&third), ["127.0.0.1:3 null"]);
    assert!(third["health"][0]["check"].is_null());
    // A node that comes back begins anew.
    agents.retain(|node| node != "a");
    assert!(agents.is_wanted("b") && !agents.is_wanted("a"));
    drop(agents);
    assert!(!state.agents_socket().exists());
    std::fs::remove_dir_all(&directory).unwrap();
}
