//! The table of queries, and what is said about messages.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, Record, RecordType};

use crate::kubernetes::{Endpoint, Port, Service, Shape, pod_records};
use crate::{
    Cache, Code, Data, DomainName, Foreign, Heard, MAX_UDP, QueryType, Registrar, Reply, Resolver, Transport,
};

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn name(text: &str) -> DomainName {
    DomainName::parse(text).unwrap()
}

fn service(full_name: &str, shape: Shape) -> Service {
    let (namespace, name) = full_name.split_once('/').unwrap();
    let (namespace, name) = (namespace.to_owned(), name.to_owned());
    Service { namespace, name, shape, ports: Vec::new(), endpoints: Vec::new() }
}

fn addresses(texts: &[&str]) -> Shape {
    Shape::Addresses(texts.iter().map(|text| address(text)).collect())
}

fn endpoint(text: &str, hostname: Option<&str>) -> Endpoint {
    Endpoint { address: address(text), hostname: hostname.map(Arc::from) }
}

fn port(name: &str, protocol: &'static str, number: u16) -> Port {
    Port { name: name.to_owned(), protocol, number, endpoints: Vec::new() }
}

/// The cluster that the table asks.
fn cluster() -> Vec<Service> {
    let mut web = service("default/web", addresses(&["10.96.0.20", "fd00:10:96::20"]));
    web.ports = vec![port("http", "tcp", 80), port("stats", "udp", 8125)];
    web.endpoints = vec![endpoint("10.244.0.2", None), endpoint("fd00:10:244::2", None)];
    let mut four = service("default/four", addresses(&["10.96.0.21"]));
    four.ports = vec![port("", "tcp", 80)];
    let six = service("default/six", addresses(&["fd00:10:96::21"]));
    let mut db = service("default/db", Shape::Headless);
    let both = [endpoint("10.244.1.2", Some("db-0")), endpoint("fd00:10:244:1::2", Some("db-0"))];
    db.endpoints = both.iter().cloned().chain([endpoint("10.244.1.3", None)]).collect();
    let at = vec![(both[0].clone(), 5432), (both[1].clone(), 5432), (endpoint("10.244.1.3", None), 5433)];
    db.ports = vec![Port { endpoints: at, ..port("sql", "tcp", 5432) }];
    let mut dns = service("kube-system/kube-dns", addresses(&["10.96.0.10", "fd00:10:96::a"]));
    dns.ports = vec![port("dns", "udp", 53), port("dns-tcp", "tcp", 53)];
    let external = |full_name: &str, target: &str| service(full_name, Shape::External(name(target)));
    vec![
        web,
        four,
        six,
        db,
        dns,
        service("default/empty", Shape::Headless),
        external("other/ext", "www.example.com"),
        external("other/alias", "web.default.svc.cluster.local"),
        external("other/far", "alias.other.svc.cluster.local"),
        external("other/dangling", "missing.default.svc.cluster.local"),
        external("other/one", "two.other.svc.cluster.local"),
        external("other/two", "one.other.svc.cluster.local"),
    ]
}

fn registrar() -> Registrar {
    let prefixes = ["10.244.0.0/16", "fd00:10:244::/56", "10.96.0.0/12", "fd00:10:96::/112"];
    let prefixes = prefixes.map(|text| text.parse().unwrap());
    let server = ["kube-dns", "kube-system", "svc"];
    let mut registrar = Registrar::new(name("cluster.local"), &server, &prefixes).unwrap();
    for service in cluster() {
        let owner = format!("service/{}/{}", service.namespace, service.name).into();
        registrar.set(&owner, service.records(&name("cluster.local")));
    }
    let pod = [address("10.244.0.2"), address("fd00:10:244::2")];
    registrar.set(&"pod/default/web-0".into(), pod_records("default", &pod, &name("cluster.local")));
    registrar
}

fn resolver() -> Resolver {
    Resolver::new(registrar().zone().clone())
}

fn query(text: &str, kind: RecordType) -> Message {
    let mut message = Message::new(4660, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(text).unwrap(), kind));
    message
}

fn ask(resolver: &mut Resolver, message: &Message, transport: Transport) -> Message {
    let octets = message.to_vec().unwrap();
    let Reply::Answer(answer) = resolver.query(&octets, transport) else { panic!("no answer to {message}") };
    let answer = Message::from_vec(&answer).unwrap();
    assert_eq!(answer.metadata.id, message.metadata.id);
    answer
}

fn lines(records: &[Record]) -> String {
    let line = |record: &Record| format!("{} {}", record.record_type(), record.data).trim_end().to_owned();
    let mut lines: Vec<String> = records.iter().map(line).collect();
    lines.sort();
    lines.join(", ")
}

/// Name, type, code, answers, and the zone of the SOA in the authority section.
fn table() -> Vec<(&'static str, &'static str, &'static str, &'static str, &'static str)> {
    let lines = include_str!("queries.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let split = |line: &'static str| {
        let parts: Vec<&str> = line.split('|').map(str::trim).collect();
        let [name, kind, code, answers, soa] = parts[..] else { panic!("{line}") };
        (name, kind, code, answers, soa)
    };
    lines.map(split).collect()
}

#[test]
fn every_query_of_the_table_has_the_answer_of_the_specification() {
    let mut resolver = resolver();
    let table = table();
    let serial = resolver.zone().serial().to_string();
    assert!(table.len() >= 100, "{}", table.len());
    let mut wrong = Vec::new();
    for (name, kind, code, answers, soa) in table {
        let answers = answers.replace("SERIAL", &serial);
        let number = kind.strip_prefix("TYPE").and_then(|number| number.parse::<u16>().ok());
        let kind = number.map_or_else(|| kind.parse().unwrap(), RecordType::from);
        for transport in [Transport::Udp, Transport::Tcp] {
            let query = query(name, kind);
            let octets = query.to_vec().unwrap();
            let found = match resolver.query(&octets, transport) {
                Reply::Nothing => panic!("{name}"),
                Reply::Foreign(_) => ("FOREIGN".to_owned(), String::new(), String::new()),
                Reply::Answer(octets) => {
                    let answer = Message::from_vec(&octets).unwrap();
                    let header = &answer.metadata;
                    let code = format!("{:?}", header.response_code).to_uppercase();
                    let served = !["SERVFAIL", "REFUSED"].contains(&code.as_str());
                    assert_eq!(header.authoritative, served, "{name} {kind}");
                    assert!(!header.truncation && header.recursion_desired && answer.edns.is_none());
                    assert_eq!(answer.queries, query.queries);
                    let negative = answer.authorities.iter().filter(|r| r.record_type() == RecordType::SOA);
                    let soa = negative.map(|record| record.name.to_string()).collect::<Vec<_>>().join(", ");
                    let all = answer.answers.iter().chain(&answer.authorities);
                    assert!(all.clone().all(|record| record.ttl == crate::TTL), "{name} {kind}");
                    (code, lines(&answer.answers), soa)
                }
            };
            if (found.0.as_str(), found.1.as_str(), found.2.as_str()) != (code, answers.as_str(), soa) {
                wrong.push(format!("{name} {kind}: {} | {} | {}", found.0, found.1, found.2));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn names_are_answered_in_the_case_that_they_were_asked_in() {
    let answer =
        ask(&mut resolver(), &query("WEB.Default.sVc.Cluster.Local.", RecordType::A), Transport::Udp);
    assert_eq!(answer.queries[0].name.to_string(), "WEB.Default.sVc.Cluster.Local.");
    assert_eq!(answer.answers[0].name.to_string(), "WEB.Default.sVc.Cluster.Local.");
}

#[test]
fn ptr_and_srv_lead_back_and_forth() {
    let mut resolver = resolver();
    for (name, data) in resolver.zone().clone().records() {
        let (target, kind) = match data {
            Data::Ptr(target) => (target, "ptr"),
            Data::Srv(srv) => (&srv.target, "srv"),
            Data::A(_) | Data::Aaaa(_) | Data::Cname(_) | Data::Txt(_) => continue,
        };
        let types = [RecordType::A, RecordType::AAAA];
        let found: Vec<String> = types
            .iter()
            .flat_map(|kind| ask(&mut resolver, &query(&target.to_string(), *kind), Transport::Udp).answers)
            .map(|record| record.data.to_string())
            .collect();
        let back = found.iter().any(|found| crate::reverse::name_of(address(found)) == *name);
        assert!(if kind == "ptr" { back } else { !found.is_empty() }, "{name} {data}: {found:?}");
    }
}

#[test]
fn who_asks_for_a_port_gets_the_addresses_of_those_who_have_it() {
    let answer = ask(
        &mut resolver(),
        &query("_sql._tcp.db.default.svc.cluster.local.", RecordType::SRV),
        Transport::Udp,
    );
    assert_eq!(lines(&answer.additionals), "A 10.244.1.2, A 10.244.1.3, AAAA fd00:10:244:1::2");
}

#[test]
fn several_addresses_take_turns_to_be_the_first() {
    let mut resolver = resolver();
    let mut first = std::collections::BTreeMap::<String, u32>::new();
    for _ in 0..100 {
        let answer =
            ask(&mut resolver, &query("db.default.svc.cluster.local.", RecordType::A), Transport::Udp);
        *first.entry(answer.answers[0].data.to_string()).or_default() += 1;
    }
    assert_eq!(first.values().copied().collect::<Vec<_>>(), [50, 50]);
}

/// A headless Service of so many endpoints.
fn large(endpoints: u16) -> Resolver {
    let mut registrar = registrar();
    let mut large = service("default/large", Shape::Headless);
    let address = |n: u16| IpAddr::from([10, 244, n.to_be_bytes()[0], n.to_be_bytes()[1]]);
    large.endpoints = (0..endpoints).map(|n| Endpoint { address: address(n), hostname: None }).collect();
    registrar.set(&"service/default/large".into(), large.records(&name("cluster.local")));
    Resolver::new(registrar.zone().clone())
}

#[test]
fn long_answers_are_cut_to_what_a_client_takes_and_whole_over_tcp() {
    let mut resolver = large(1000);
    let mut query = query("large.default.svc.cluster.local.", RecordType::A);
    for (payload, limit) in
        [(None, 512), (Some(100), 512), (Some(800), 800), (Some(65_535), usize::from(MAX_UDP))]
    {
        query.edns = payload.map(|payload| {
            let mut edns = Edns::new();
            edns.set_max_payload(payload);
            edns
        });
        let Reply::Answer(octets) = resolver.query(&query.to_vec().unwrap(), Transport::Udp) else {
            panic!()
        };
        assert!(octets.len() <= limit && octets.len() + 40 > limit, "{} of {limit}", octets.len());
        let answer = Message::from_vec(&octets).unwrap();
        assert!(answer.metadata.truncation && !answer.answers.is_empty());
        assert_eq!(answer.edns.is_some(), payload.is_some());
    }
    assert_eq!(resolver.counters().truncated, 4);
    let answer = ask(&mut resolver, &query, Transport::Tcp);
    assert!(!answer.metadata.truncation);
    assert_eq!(answer.answers.len(), 1000);
    // Additional records are left out before anything is said to be missing.
    let answer =
        ask(&mut large(20), &self::query("large.default.svc.cluster.local.", RecordType::A), Transport::Udp);
    assert_eq!((answer.answers.len(), answer.metadata.truncation), (20, false));
}

#[test]
fn edns_is_answered_with_edns() {
    let mut resolver = resolver();
    let mut query = query("web.default.svc.cluster.local.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_max_payload(4096).set_dnssec_ok(true);
    query.edns = Some(edns.clone());
    let answer = ask(&mut resolver, &query, Transport::Udp);
    let offered = answer.edns.unwrap();
    assert_eq!((offered.version(), offered.max_payload(), offered.flags().dnssec_ok), (0, MAX_UDP, true));
    edns.set_version(1);
    query.edns = Some(edns);
    let answer = ask(&mut resolver, &query, Transport::Udp);
    assert_eq!(u16::from(answer.metadata.response_code), Code::BadVers.number());
    assert_eq!(answer.edns.unwrap().version(), 0);
    assert!(answer.answers.is_empty());
}

/// Octets and the code they are answered with; none if they are not.
fn code_of(octets: &[u8]) -> Option<u8> {
    match resolver().query(octets, Transport::Udp) {
        Reply::Answer(answer) => {
            assert_eq!(answer[..2], octets[..2]);
            assert!(answer[2] & 0x80 != 0 && answer.len() >= 12);
            Some(answer[3] & 0xf)
        }
        Reply::Nothing => None,
        Reply::Foreign(foreign) => panic!("{foreign:?}"),
    }
}

#[test]
fn what_is_no_sound_query_is_answered_as_the_rfcs_say() {
    let sound = query("web.default.svc.cluster.local.", RecordType::A).to_vec().unwrap();
    assert_eq!(code_of(&sound), Some(0));
    let with = |at: usize, octet: u8| {
        let mut octets = sound.clone();
        octets[at] = octet;
        octets
    };
    // A response is answered by nobody, nor is what has no header.
    assert_eq!(code_of(&with(2, 0x81)), None);
    assert_eq!(code_of(&sound[..11]), None);
    assert_eq!(code_of(&[]), None);
    // Opcodes that there are not here: IQUERY, STATUS, NOTIFY, UPDATE, and one of nobody's.
    for opcode in [1, 2, 4, 5, 15] {
        assert_eq!(code_of(&with(2, opcode << 3)), Some(4), "{opcode}");
    }
    // Two questions, none, one that is not there.
    let two = [&with(5, 2)[..], &sound[12..]].concat();
    assert_eq!(code_of(&two), Some(1));
    assert_eq!(code_of(&with(5, 0)), Some(1));
    assert_eq!(code_of(&sound[..12]), Some(1));
    assert_eq!(code_of(&sound[..sound.len() - 1]), Some(1));
    // A name that is compressed to itself, and one behind its own place.
    let head = &sound[..12];
    assert_eq!(code_of(&[head, &[0xc0, 12, 0, 1, 0, 1]].concat()), Some(1));
    assert_eq!(code_of(&[head, &[0xc0, 40, 0, 1, 0, 1]].concat()), Some(1));
    assert_eq!(code_of(&[head, &[1, b'a', 0xc0, 12, 0, 1, 0, 1]].concat()), Some(1));
    // A name of 256 octets.
    let long = [&[63; 64][..], &[63; 64], &[63; 64], &[63; 64], &[0, 0, 1, 0, 1]].concat();
    assert_eq!(code_of(&[head, &long].concat()), Some(1));
    // Two OPT records.
    let opt = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];
    let mut octets = [&sound[..], &opt, &opt].concat();
    octets[11] = 2;
    assert_eq!(code_of(&octets), Some(1));
    // Other classes.
    for class in [DNSClass::CH, DNSClass::HS, DNSClass::ANY, DNSClass::NONE] {
        let mut query = query("web.default.svc.cluster.local.", RecordType::A);
        query.queries[0].query_class = class;
        assert_eq!(code_of(&query.to_vec().unwrap()), Some(5), "{class}");
    }
    let mut update = query("cluster.local.", RecordType::SOA);
    update.metadata.op_code = OpCode::Update;
    assert_eq!(code_of(&update.to_vec().unwrap()), Some(4));
}

#[test]
fn names_of_others_are_others_and_answered_with_a_failure_if_nobody_knows() {
    let mut resolver = resolver();
    for text in ["www.example.com.", ".", "local.", "10.in-addr.arpa.", "1.113.0.203.in-addr.arpa."] {
        let query = query(text, RecordType::A);
        let Reply::Foreign(foreign) = resolver.query(&query.to_vec().unwrap(), Transport::Udp) else {
            panic!("{text}");
        };
        assert_eq!(foreign.question.name(), &name(text));
        let Reply::Answer(octets) = resolver.fail(&foreign) else { panic!("{text}") };
        let answer = Message::from_vec(&octets).unwrap();
        assert_eq!(u16::from(answer.metadata.response_code), 2);
        assert_eq!(answer.queries, query.queries);
    }
    assert_eq!(resolver.counters().foreign, 5);
    assert_eq!(resolver.counters().answers[&(QueryType::A, Code::ServFail)], 5);
}

#[test]
fn an_address_outside_of_the_clusters_prefixes_has_its_name_and_no_zone() {
    let mut registrar = registrar();
    let mut far = service("default/far", Shape::Headless);
    far.endpoints = vec![endpoint("203.0.113.5", None)];
    registrar.set(&"far".into(), far.records(&name("cluster.local")));
    let mut resolver = Resolver::new(registrar.zone().clone());
    let answer = ask(&mut resolver, &query("5.113.0.203.in-addr.arpa.", RecordType::PTR), Transport::Udp);
    assert_eq!(lines(&answer.answers), "PTR 203-0-113-5.far.default.svc.cluster.local.");
    for others in ["113.0.203.in-addr.arpa.", "6.113.0.203.in-addr.arpa."] {
        let octets = query(others, RecordType::PTR).to_vec().unwrap();
        assert!(matches!(resolver.query(&octets, Transport::Udp), Reply::Foreign(_)), "{others}");
    }
}

#[test]
fn a_service_that_goes_takes_its_names_with_it_and_no_others() {
    let mut registrar = registrar();
    let before = registrar.zone().len();
    let web = cluster().remove(0);
    registrar.set(&"service/default/web".into(), Vec::new());
    let mut resolver = Resolver::new(registrar.zone().clone());
    let gone = ask(&mut resolver, &query("web.default.svc.cluster.local.", RecordType::A), Transport::Udp);
    assert_eq!(u16::from(gone.metadata.response_code), Code::NxDomain.number());
    let there = ask(&mut resolver, &query("db.default.svc.cluster.local.", RecordType::A), Transport::Udp);
    assert_eq!(there.answers.len(), 2);
    registrar.set(&"service/default/web".into(), web.records(&name("cluster.local")));
    assert_eq!(registrar.zone().len(), before);
    // A server that has the older value goes on with the new one when it gets it.
    resolver.install(registrar.zone().clone());
    let back = ask(&mut resolver, &query("web.default.svc.cluster.local.", RecordType::A), Transport::Udp);
    assert_eq!(back.answers.len(), 1);
}

/// What a server upstream says to a question, which it repeats.
fn upstream(asked: &[u8], change: impl FnOnce(&mut Message)) -> Vec<u8> {
    let mut message = Message::from_vec(asked).unwrap().into_response();
    message.metadata.recursion_available = true;
    change(&mut message);
    message.to_vec().unwrap()
}

fn a(name: Name, ttl: u32, last: u8) -> Record {
    Record::from_rdata(
        name,
        ttl,
        hickory_proto::rr::RData::A(std::net::Ipv4Addr::new(192, 0, 2, last).into()),
    )
}

fn foreign(resolver: &mut Resolver, text: &str) -> Foreign {
    let octets = query(text, RecordType::A).to_vec().unwrap();
    let Reply::Foreign(foreign) = resolver.query(&octets, Transport::Udp) else { panic!("{text}") };
    foreign
}

#[test]
fn what_others_say_is_passed_on_in_the_clients_case_and_ages() {
    let mut resolver = resolver();
    let asked = foreign(&mut resolver, "www.Example.COM.");
    let (attempt, octets) = asked.attempt(4711, 0xaaaa_5555_1234_5678_9abc_def0_1122_3344).unwrap();
    let sent = Message::from_vec(&octets).unwrap();
    let mixed = sent.queries[0].name.to_string();
    assert!(mixed != mixed.to_lowercase() && mixed.to_lowercase() == "www.example.com.", "{mixed}");
    assert_eq!((sent.metadata.id, sent.metadata.recursion_desired), (4711, true));
    let said = upstream(&octets, |message| {
        let name = message.queries[0].name.clone();
        message.answers = vec![a(name.clone(), 300, 1), a(name, 100, 2)];
    });
    let Heard::Answer(known) = attempt.hear(&said) else { panic!() };
    assert_eq!(known.ttl(), 100);
    let Reply::Answer(answer) = resolver.pass_on(&asked, &known, 40) else { panic!() };
    let answer = Message::from_vec(&answer).unwrap();
    assert_eq!(answer.answers.iter().map(|r| r.ttl).collect::<Vec<_>>(), [260, 60]);
    assert!(answer.answers.iter().all(|record| record.name.to_string() == "www.Example.COM."));
    assert!(!answer.metadata.authoritative && answer.metadata.recursion_available);
    assert_eq!(answer.queries[0].name.to_string(), "www.Example.COM.");
}

#[test]
fn only_the_answer_to_what_was_asked_is_believed() {
    let asked = foreign(&mut resolver(), "www.example.com.");
    let (attempt, octets) = asked.attempt(1, 0x5555_5555_5555_5555_5555_5555_5555_5555).unwrap();
    let hear = |change: &dyn Fn(&mut Message)| attempt.hear(&upstream(&octets, change));
    assert!(matches!(hear(&|_| {}), Heard::Answer(_)));
    assert!(matches!(hear(&|m| m.metadata.id = 2), Heard::Stray));
    assert!(matches!(hear(&|m| m.queries[0].name = m.queries[0].name.to_lowercase()), Heard::Stray));
    assert!(matches!(hear(&|m| m.queries[0].query_type = RecordType::AAAA), Heard::Stray));
    assert!(matches!(hear(&|m| m.queries.clear()), Heard::Stray));
    assert!(matches!(hear(&|m| m.metadata.truncation = true), Heard::Truncated));
    for code in [ResponseCode::ServFail, ResponseCode::Refused, ResponseCode::NotImp] {
        assert!(matches!(hear(&|m| m.metadata.response_code = code), Heard::Refused), "{code}");
    }
    assert!(matches!(attempt.hear(&octets), Heard::Stray), "the question itself");
    assert!(matches!(attempt.hear(&octets[..5]), Heard::Stray));
}

#[test]
fn a_service_that_is_a_name_of_others_is_what_they_say() {
    let mut resolver = resolver();
    let asked = foreign(&mut resolver, "ext.other.svc.cluster.local.");
    assert_eq!(asked.name(), &name("www.example.com"));
    let (attempt, octets) = asked.attempt(1, 0).unwrap();
    let said = upstream(&octets, |message| {
        let cdn = Name::from_ascii("cdn.example.net.").unwrap();
        let first = hickory_proto::rr::rdata::CNAME(cdn.clone());
        let alias = hickory_proto::rr::RData::CNAME(first);
        message.answers = vec![Record::from_rdata(message.queries[0].name.clone(), 60, alias), a(cdn, 60, 7)];
    });
    let Heard::Answer(known) = attempt.hear(&said) else { panic!() };
    let Reply::Answer(answer) = resolver.pass_on(&asked, &known, 0) else { panic!() };
    let answer = Message::from_vec(&answer).unwrap();
    assert_eq!(lines(&answer.answers), "A 192.0.2.7, CNAME cdn.example.net., CNAME www.example.com.");
    let owners: Vec<String> = answer.answers.iter().map(|record| record.name.to_string()).collect();
    assert_eq!(owners, ["ext.other.svc.cluster.local.", "www.example.com.", "cdn.example.net."]);
    // Without them it still is that name.
    let Reply::Answer(answer) = resolver.fail(&asked) else { panic!() };
    let answer = Message::from_vec(&answer).unwrap();
    assert_eq!(
        (lines(&answer.answers).as_str(), u16::from(answer.metadata.response_code)),
        ("CNAME www.example.com.", 0)
    );
}

#[test]
fn answers_are_remembered_as_long_as_they_say_and_no_more_than_there_is_room() {
    let mut resolver = resolver();
    let mut cache = Cache::new(3);
    let seconds = Duration::from_secs;
    let known = |asked: &Foreign, change: &dyn Fn(&mut Message)| {
        let (attempt, octets) = asked.attempt(1, 0).unwrap();
        let Heard::Answer(known) = attempt.hear(&upstream(&octets, change)) else { panic!() };
        Arc::from(known)
    };
    let positive = |message: &mut Message| message.answers = vec![a(message.queries[0].name.clone(), 30, 1)];
    let soa = |message: &mut Message| {
        let zone = Name::from_ascii("example.com.").unwrap();
        let soa = hickory_proto::rr::rdata::SOA::new(zone.clone(), zone.clone(), 1, 1, 1, 1, 7);
        message.metadata.response_code = ResponseCode::NXDomain;
        message.authorities = vec![Record::from_rdata(zone, 600, hickory_proto::rr::RData::SOA(soa))];
    };
    let first = foreign(&mut resolver, "a.example.com.");
    cache.put(seconds(100), &first, &known(&first, &positive));
    assert_eq!(cache.get(seconds(129), &first).map(|(_, age)| age), Some(29));
    assert!(cache.get(seconds(130), &first).is_none());
    // That something is not there is believed for as long as its zone says; without that not at all.
    let missing = foreign(&mut resolver, "b.example.com.");
    cache.put(seconds(100), &missing, &known(&missing, &soa));
    assert!(cache.get(seconds(106), &missing).is_some() && cache.get(seconds(107), &missing).is_none());
    let empty = foreign(&mut resolver, "c.example.com.");
    cache.put(seconds(100), &empty, &known(&empty, &|_| {}));
    assert_eq!(cache.len(), 2);
    // What is said again is as young as it was said last, and the oldest goes first.
    cache.put(seconds(110), &first, &known(&first, &positive));
    for text in ["d.example.com.", "e.example.com."] {
        let other = foreign(&mut resolver, text);
        cache.put(seconds(111), &other, &known(&other, &positive));
    }
    assert_eq!(cache.len(), 3);
    assert!(cache.get(seconds(111), &missing).is_none() && cache.get(seconds(111), &first).is_some());
    cache.clear();
    assert!(cache.is_empty());
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(4096))]

    /// Sound queries of which some octets are others: nothing panics, and what is answered is bounded and can be read.
    #[test]
    fn whatever_is_sent_is_answered_with_a_message_or_not_at_all(
        at in 0..131usize,
        kind in 0..300u16,
        changes in proptest::collection::vec((0..80usize, proptest::prelude::any::<u8>()), 0..4),
        payload in proptest::option::of(0..2000u16),
        more in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..20),
    ) {
        let mut resolver = large(100);
        let table = table();
        let mut query = query(table[at % table.len()].0, RecordType::from(kind));
        query.edns = payload.map(|payload| {
            let mut edns = Edns::new();
            edns.set_max_payload(payload);
            edns
        });
        let mut octets = query.to_vec().unwrap();
        for (at, octet) in changes {
            let length = octets.len();
            octets[at % length] = octet;
        }
        octets.extend(more);
        for (transport, most) in [(Transport::Udp, usize::from(MAX_UDP)), (Transport::Tcp, 65_535)] {
            let reply = match resolver.query(&octets, transport) {
                Reply::Foreign(foreign) => resolver.fail(&foreign),
                reply @ (Reply::Answer(_) | Reply::Nothing) => reply,
            };
            let Reply::Answer(answer) = reply else { continue };
            proptest::prop_assert!(answer.len() <= most && answer[..2] == octets[..2]);
            // What has no more than a header says so by its counts only where it repeats none.
            if answer.len() > 12 {
                proptest::prop_assert!(Message::from_vec(&answer).is_ok(), "{octets:x?}");
            }
        }
    }
}
