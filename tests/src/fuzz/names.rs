//! The name server: whatever is sent, an answer that is one, and not longer than may be.

use std::net::IpAddr;

use dns::kubernetes::{Endpoint, Port, Service, Shape, pod_records};
use dns::{DomainName, MAX_UDP, Registrar, Reply, Resolver, Transport};

fn name(text: &str) -> DomainName {
    DomainName::parse(text).expect("a sound name")
}

fn service(name: &str, shape: Shape, endpoints: Vec<Endpoint>) -> Service {
    let at = endpoints.iter().map(|endpoint| (endpoint.clone(), 80)).collect();
    let port = Port { name: "http".into(), protocol: "tcp", number: 80, endpoints: at };
    Service { namespace: "default".into(), name: name.into(), shape, ports: vec![port], endpoints }
}

/// Services of every shape, one of them with more endpoints than a datagram holds.
fn resolver() -> Resolver {
    let domain = name("cluster.local");
    let prefixes = ["10.244.0.0/16", "10.96.0.0/12", "fd00:10:96::/112"];
    let prefixes = prefixes.map(|text| text.parse().expect("a sound prefix"));
    let registrar = Registrar::new(domain.clone(), &["ns"], &prefixes);
    let mut registrar = registrar.expect("short names");
    let endpoint = |n: u8| Endpoint { address: [10, 244, 0, n].into(), hostname: None };
    let own: [IpAddr; 2] = ["10.96.0.20", "fd00:10:96::20"].map(|text| text.parse().expect("an address"));
    let external = |target| Shape::External(name(target));
    let all = [
        service("web", Shape::Addresses(own.to_vec()), vec![endpoint(1)]),
        service("db", Shape::Headless, (0..200).map(endpoint).collect()),
        service("ext", external("www.example.com"), Vec::new()),
        service("one", external("two.default.svc.cluster.local"), Vec::new()),
        service("two", external("one.default.svc.cluster.local"), Vec::new()),
    ];
    for service in all {
        registrar.set(&service.name.as_str().into(), service.records(&domain));
    }
    registrar.set(&"pod".into(), pod_records("default", &own, &domain));
    Resolver::new(registrar.zone().clone())
}

thread_local! {
    static RESOLVER: std::cell::RefCell<Resolver> = std::cell::RefCell::new(resolver());
}

/// A message over both transports.
pub fn dns(data: &[u8]) {
    RESOLVER.with_borrow_mut(|resolver| {
        for transport in [Transport::Udp, Transport::Tcp] {
            match resolver.query(data, transport) {
                Reply::Nothing => {
                    assert!(data.len() < 12 || data[2] & 0x80 != 0, "a query without an answer")
                }
                Reply::Answer(answer) => judge(data, &answer, transport),
                Reply::Foreign(foreign) => match resolver.fail(&foreign) {
                    Reply::Answer(answer) => judge(data, &answer, transport),
                    other @ (Reply::Foreign(_) | Reply::Nothing) => panic!("{other:?}"),
                },
            }
        }
    });
}

fn judge(query: &[u8], answer: &[u8], transport: Transport) {
    let most = if transport == Transport::Udp { usize::from(MAX_UDP) } else { 65_535 };
    assert!((12..=most).contains(&answer.len()), "{} octets", answer.len());
    assert_eq!(answer[..2], query[..2], "the identifier");
    assert!(answer[2] & 0x80 != 0, "a response");
    assert_eq!(answer[2] & 0x79, query[2] & 0x79, "opcode, and whether recursion is desired");
    let word = |at: usize| usize::from(u16::from_be_bytes([answer[at], answer[at + 1]]));
    // Who offers nothing gets what everybody takes.
    if transport == Transport::Udp && query[10..12] == [0, 0] {
        assert!(answer.len() <= 512, "{} octets without EDNS", answer.len());
    }
    let mut at = 12;
    for _ in 0..word(4) {
        at = skip_name(answer, at) + 4;
    }
    for _ in 0..word(6) + word(8) + word(10) {
        at = skip_name(answer, at) + 8;
        at += 2 + word(at);
    }
    assert_eq!(at, answer.len(), "what the header counts is what there is");
}

/// Where a name ends. Pointers lead back to names that were written before.
fn skip_name(message: &[u8], mut at: usize) -> usize {
    loop {
        let length = usize::from(message[at]);
        match length {
            0 => return at + 1,
            1..=63 => at += length + 1,
            _ => {
                assert!(length >= 0xc0, "no other kinds of labels");
                let target = (length & 0x3f) << 8 | usize::from(message[at + 1]);
                assert!((12..at).contains(&target), "a pointer forward");
                return at + 2;
            }
        }
    }
}
