//! Two hosts on one switch, in memory, on a clock of our own: `cargo run --example in_memory`.
//!
//! Prints who answered whom.

#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::error::Error;
use std::time::Duration;

use netstack::addr::{MacAddr, PortId, SegmentId};
use netstack::config::{Config, Limits, PortConfig, SegmentConfig, Snapshot, VlanMode};
use netstack::frame::{FrameBatch, FramePool};
use netstack::host::{Host, HostConfig, HostEvent};
use netstack::seed::Seed;
use netstack::switch::Switch;

fn port(id: u16) -> PortConfig {
    PortConfig::new(PortId(id), format!("port-{id}"), VlanMode::Access(SegmentId(0)))
}

fn main() -> Result<(), Box<dyn Error>> {
    let lan = SegmentConfig::new(SegmentId(0), "lan");
    let config = Config { ports: vec![port(0), port(1)], segments: vec![lan], ..Config::default() };
    let mut switch = Switch::new(Limits::default(), &Seed::from_u64(1), FramePool::new());
    switch.install(Snapshot::compile(config, None)?);

    let host = |id: u64, net: &str| -> Result<Host, Box<dyn Error>> {
        Ok(Host::new(HostConfig::new(MacAddr::local(id), vec![net.parse()?]), Seed::from_u64(id))?)
    };
    let mut hosts = [host(1, "fd00::1/64")?, host(2, "fd00::2/64")?];

    // The loop that every embedder writes once: what hosts send goes into the switch, what it sends goes to the hosts.
    let (now, mut batch) = (Duration::ZERO, FrameBatch::new());
    hosts[0].ping(now, "fd00::2".parse()?, 1, 1, b"hello")?;
    for _ in 0..8 {
        for (id, host) in (0..).zip(&mut hosts) {
            while host.poll_transmit(&mut batch) {
                switch.handle_frames(now, PortId(id), &mut batch);
            }
        }
        while let Some(PortId(id)) = switch.poll_transmit(&mut batch) {
            hosts[usize::from(id)].handle_frames(now, &mut batch);
        }
    }
    switch.check()?; // every frame is accounted for
    while let Some(event) = hosts[0].poll_event() {
        if let HostEvent::EchoReply { from, payload, .. } = event {
            println!("{from} answered {:?}", String::from_utf8_lossy(&payload));
            return Ok(());
        }
    }
    Err("no answer".into())
}

#[test]
fn it_runs() {
    main().unwrap_or_else(|error| panic!("{error}"));
}
