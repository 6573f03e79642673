//! Maglev's table with nothing else of the project: four backends share the connections of a service, one goes, and who was
//! with the others stays. `cargo run --example maglev_only`.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::net::Ipv4Addr;

use lb::hash::FlowHash;
use lb::{Backend, Policy, Pool};

const CONNECTIONS: u16 = 10_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Whoever has the same key and the same backends chooses alike.
    let key = *b"of the cluster's";
    let backend = |n: u8| Backend { address: Ipv4Addr::new(10, 244, n, 2).into(), port: 8080, weight: 1 };
    let before = Pool::new((1..=4).map(backend), Policy::Maglev, None, key)?;
    let after = Pool::new((1..=3).map(backend), Policy::Maglev, None, key)?;
    for share in before.shares() {
        println!("{} has {} of {} slots", share.backend.address, share.parts, share.of);
    }

    // A client's connections to 10.96.0.1:80, from one L4 port after the other.
    let hash = FlowHash::new(key);
    let (client, service) = (Ipv4Addr::new(10, 244, 9, 9), Ipv4Addr::new(10, 96, 0, 1));
    let (mut lost, mut moved) = (0, 0);
    for port in 20_000..20_000 + CONNECTIONS {
        let flow = hash.hash(client.into(), service.into(), 6, port, 80);
        // The second number is for policies that draw: Maglev's does not.
        let had = before.select(flow, 0).ok_or("no backend")?;
        let has = after.select(flow, 0).ok_or("no backend")?;
        lost += u16::from(*had == backend(4));
        moved += u16::from(*had != backend(4) && had != has);
    }
    println!(
        "10.244.4.2 goes: of {CONNECTIONS} connections {lost} were its own, and {moved} others would move"
    );
    assert!((2_250..2_750).contains(&lost), "a quarter");
    assert!(moved < 100, "less than a hundredth");
    Ok(())
}

#[test]
fn it_runs() {
    main().unwrap_or_else(|error| panic!("{error}"));
}
