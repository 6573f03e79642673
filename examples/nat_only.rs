//! A translator between two byte slices, with nothing else of the project: a client asks, and is seen with the router's
//! address; the answer finds its way back. `cargo run --example nat_only`.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::net::Ipv4Addr;
use std::time::Duration;

use nat::behaviour::Behaviour;
use nat::packet::{self, Packet};
use nat::rule::{Match, Prefix, Rule, SourceAction, Way};
use nat::timeouts::Timeouts;
use nat::translate::ChecksumState;
use nat::{Config, Nat, Tracked, ports};

const OUTSIDE: u32 = 2;

/// Takes a packet that came in by an interface; says whether it may leave, with its octets as they leave.
fn forward(nat: &mut Nat<Ipv4Addr>, now: Duration, way: Way, bytes: &mut [u8]) -> bool {
    let Ok(packet) = packet::parse(bytes) else { return false };
    let rewrite = match nat.track(now, 0, &packet, bytes, ChecksumState::Complete) {
        Tracked::Known { rewrite, .. } => rewrite,
        Tracked::New(new) => {
            let destination = nat.destination(&new, way);
            match nat.prepare(now, &new, destination.into(), way) {
                Ok(prepared) if nat.commit(now, &prepared).is_ok() => prepared.rewrite(),
                Ok(_) | Err(_) => return false,
            }
        }
        Tracked::Related { rewrite: Some(rewrite), source, .. } => {
            return rewrite.apply_error(bytes, &packet, source).is_ok();
        }
        Tracked::Related { rewrite: None, .. } | Tracked::Untracked => None,
        Tracked::Invalid(_) => return false,
    };
    rewrite.is_none_or(|rewrite| rewrite.apply(bytes, &packet, ChecksumState::Complete).is_ok())
}

fn show(packet: &Packet) -> String {
    let tuple = packet.tuple::<Ipv4Addr>(0).expect("it has L4 ports");
    format!("{} > {}", tuple.source.to_socket(), tuple.destination.to_socket())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut config = Config::new(65_536, Behaviour::node(), Timeouts::rfc(), 0x5eed);
    config.pools.push(ports::Config::new(vec![Ipv4Addr::new(192, 0, 2, 1)], 0x5eed));
    let inside = Prefix { address: Ipv4Addr::new(10, 0, 0, 0), length: 8 };
    let matches = Match { sources: vec![inside], egress: Some(OUTSIDE), ..Match::default() };
    config.rules.source.push(Rule { matches, action: SourceAction::Pool(0) });
    let mut nat = Nat::new(config)?;

    // A datagram of 10.0.0.7:40000 to 203.0.113.9:53, without a UDP checksum, and the answer to what the server sees.
    let mut question = [
        0x45, 0, 0, 29, 0, 0, 0x40, 0, 64, 17, 0xf4, 0xbf, 10, 0, 0, 7, 203, 0, 113, 9, // IPv4
        0x9c, 0x40, 0, 53, 0, 9, 0, 0, b'?', // UDP
    ];
    let mut answer = [
        0x45, 0, 0, 29, 0, 0, 0x40, 0, 64, 17, 0x3c, 0xc5, 203, 0, 113, 9, 192, 0, 2, 1, // IPv4
        0, 53, 0x9c, 0x40, 0, 9, 0, 0, b'!', // UDP
    ];
    let now = Duration::from_secs(1);
    for (bytes, way) in [
        (&mut question, Way { ingress: 1, egress: Some(OUTSIDE), zone: 0 }),
        (&mut answer, Way { ingress: OUTSIDE, egress: Some(1), zone: 0 }),
    ] {
        let before = packet::parse(bytes).map_err(|fault| format!("{fault:?}"))?;
        assert!(forward(&mut nat, now, way, bytes), "it is dropped");
        let after = packet::parse(bytes).map_err(|fault| format!("{fault:?}"))?;
        println!("{}  becomes  {}", show(&before), show(&after));
    }
    assert_eq!(question[12..16], [192, 0, 2, 1]);
    assert_eq!(answer[16..20], [10, 0, 0, 7]);
    assert_eq!(nat.len(), 1);
    Ok(())
}

#[test]
fn it_runs() {
    main().unwrap_or_else(|error| panic!("{error}"));
}
