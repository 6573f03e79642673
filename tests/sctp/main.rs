//! SCTP associations that scapy builds, through a masquerade, and what leaves read by scapy.
//!
//! The pool has one port, so that every packet's port changes and with it the CRC32c that covers it. Both come from scapy:
//! neither the tags nor the checksums nor the states that are expected were worked out here.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::{Command, Stdio};
use std::time::Duration;

use nat::behaviour::Behaviour;
use nat::connection::State;
use nat::packet::parse;
use nat::ports::PortSet;
use nat::rule::{Match, Rule, SourceAction, Way};
use nat::timeouts::Timeouts;
use nat::translate::ChecksumState;
use nat::tuple::Address;
use nat::{Config, Invalid, Nat, Tracked};
use serde_json::{Value, json};
use vswitch_tests::{skip, top};

const INSIDE: u32 = 1;
const OUTSIDE: u32 = 2;
const PORT: u16 = 6000;

fn scapy(mode: &str, input: &Value) -> Value {
    let mut script = Command::new("/usr/bin/python3")
        .arg("-B")
        .arg(top().join("tests/sctp/association.py"))
        .arg(mode)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    script.stdin.take().unwrap().write_all(input.to_string().as_bytes()).unwrap();
    let output = script.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn decode(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

/// Masquerades what comes from inside behind one port of one address.
fn masquerade<A: Address>(external: A) -> Nat<A> {
    let mut config = Config::new(16, Behaviour::strict(), Timeouts::rfc(), 1);
    let mut pool = nat::ports::Config::new(vec![external], 2);
    pool.ports = PortSet::range(PORT..=PORT);
    config.pools.push(pool);
    let matches = Match { ingress: Some(INSIDE), ..Match::default() };
    config.rules.source.push(Rule { matches, action: SourceAction::Pool(0) });
    Nat::new(config).unwrap()
}

/// Passes a packet through, if it belongs to an association or opens one.
fn pass<A: Address>(
    nat: &mut Nat<A>,
    now: Duration,
    from_inside: bool,
    mut bytes: Vec<u8>,
) -> Option<Vec<u8>> {
    let packet = parse(&bytes).unwrap();
    let state = ChecksumState::Complete;
    let rewrite = match nat.track(now, 0, &packet, &bytes, state) {
        Tracked::Known { rewrite, .. } => rewrite,
        Tracked::New(new) => {
            let (ingress, egress) = if from_inside { (INSIDE, OUTSIDE) } else { (OUTSIDE, INSIDE) };
            let way = Way { ingress, egress: Some(egress), zone: 0 };
            let prepared = nat.prepare(now, &new, nat.destination(&new, way).into(), way).unwrap();
            nat.commit(now, &prepared).unwrap();
            prepared.rewrite()
        }
        Tracked::Invalid(Invalid::Sctp(_)) => return None,
        other @ (Tracked::Invalid(_) | Tracked::Related { .. } | Tracked::Untracked) => panic!("{other:?}"),
    };
    rewrite.unwrap().apply(&mut bytes, &packet, state).unwrap();
    Some(bytes)
}

/// Plays a family's conversations one after the other; what is to be read of what left.
fn play<A: Address>(steps: &[Value], external: A) -> Vec<Value> {
    let mut nat = masquerade(external);
    let mut now = Duration::from_secs(1000);
    let mut read = Vec::new();
    let mut before = (None, "NONE".to_owned());
    for step in steps {
        let conversation = step["conversation"].as_u64();
        if before.0 != conversation {
            // The former one is over, and its port has waited.
            for _ in 0..2 {
                now += Duration::from_secs(300);
                nat.expire(now);
            }
            assert!(nat.is_empty(), "{step}");
        }
        now += Duration::from_millis(10);
        let sent = decode(step["sent"].as_str().unwrap());
        let left = pass(&mut nat, now, step["side"] == "client", sent);
        let states: Vec<String> = nat
            .connections()
            .map(|(_, connection)| match connection.state {
                State::Sctp(sctp) => sctp.state().to_string(),
                other @ (State::Tcp(_) | State::Udp(_) | State::Query | State::Other) => panic!("{other:?}"),
            })
            .collect();
        match (step["state"].as_str(), left) {
            (Some(state), Some(left)) => {
                assert_eq!(states, [state], "{step}");
                let mut step = step.clone();
                step["left"] = json!(left.iter().map(|octet| format!("{octet:02x}")).collect::<String>());
                read.push(step);
            }
            (None, None) => assert_eq!(states, [before.1.as_str()], "{step}"),
            (Some(_), None) => panic!("it was refused: {step}"),
            (None, Some(_)) => panic!("it was let through: {step}"),
        }
        before = (conversation, states[0].clone());
    }
    read
}

#[test]
fn associations_pass_a_masquerade() {
    if Command::new("/usr/bin/python3")
        .args(["-c", "import scapy"])
        .output()
        .is_ok_and(|o| !o.status.success())
    {
        return skip("sctp", "python3-scapy is not installed");
    }
    let steps = scapy("make", &Value::Null);
    let of = |family: &str| -> Vec<Value> {
        steps.as_array().unwrap().iter().filter(|step| step["family"] == family).cloned().collect()
    };
    let mut read = Vec::new();
    for (family, external) in [("v4", "192.0.2.1"), ("v6", "2001:db8:1::1")] {
        let steps = of(family);
        assert!(steps.len() > 40, "{} packets", steps.len());
        read.extend(match external.parse().unwrap() {
            IpAddr::V4(external) => play::<Ipv4Addr>(&steps, external),
            IpAddr::V6(external) => play::<Ipv6Addr>(&steps, external),
        });
    }
    assert_eq!(scapy("read", &json!(read)), json!([]));
    // It does find a checksum that is off by a bit.
    let mut wrong = read[0].clone();
    let last = wrong["left"].as_str().unwrap().len() - 1;
    let octets = wrong["left"].as_str().unwrap();
    let other = if octets.ends_with('0') { "1" } else { "0" };
    wrong["left"] = json!([&octets[..last], other].concat());
    assert_ne!(scapy("read", &json!([wrong])), json!([]));
}
