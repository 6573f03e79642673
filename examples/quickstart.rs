//! Two hosts, a switch, and two cables, on virtual time: `cargo run --example quickstart`.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

// begin
use netstack::sim::{Lab, LinkProfile};
use netstack::{addr::MacAddr, addr::PortId, host::HostConfig, seed::Seed};
use std::time::Duration;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut lab = Lab::new(Seed::from_u64(7)); // everything random comes from here
    let (switch, cable) = (lab.add_bridge("lan", 2)?, LinkProfile::delayed(Duration::from_millis(2)));
    let alice = lab.add_host("alice", HostConfig::new(MacAddr::local(1), vec!["fd00::1/64".parse()?]))?;
    let bob = lab.add_host("bob", HostConfig::new(MacAddr::local(2), vec!["fd00::2/64".parse()?]))?;
    lab.connect(alice, (switch, PortId(0)), cable)?;
    lab.connect(bob, (switch, PortId(1)), cable)?;
    lab.host_mut(alice).ping(Duration::ZERO, "fd00::2".parse()?, 1, 1, b"hello")?;
    lab.run_for(Duration::from_secs(1))?; // after each step every frame is accounted for, or this fails
    println!("{:?}", lab.host_mut(alice).poll_event());
    Ok(())
}
// end

#[test]
fn it_runs_and_stands_in_the_readme() {
    main().unwrap_or_else(|error| panic!("{error}"));
    let own =
        include_str!("quickstart.rs").split("// begin\n").nth(1).and_then(|rest| rest.split("// end").next());
    let readme = include_str!("../README.md");
    assert!(own.is_some_and(|own| readme.contains(own)), "the README shows another program");
}
