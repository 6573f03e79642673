//! What goes from pod to pod over TAPs, and beside it by the kernel's own bridge: the same programs in the same two network
//! namespaces, in turns.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use lb::{Backend, Entrance, Frontend, Policy, Pool, Refusal, Registry, Service, Way};
use netstack::driver::Latency;

use super::account::{Account, Figure};
use super::bridge;
use super::ends::{Ends, Found};
use super::load::{DATAGRAMS, Load, REQUESTS, REQUESTS_OF_SERVICE, STREAMS};
use crate::cluster::Place;
use crate::ephemeral::{self, Ephemeral};
use crate::objects::builtin;
use crate::progress;
use crate::runtime::{Mode, Runtime};

/// How often each figure is measured: an odd number, so that there is one in the middle.
const ROUNDS: u32 = 9;
/// Of the range that Services of the built-in cluster have.
const CLUSTER_IP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 96, 0, 100));
const TCP: u8 = 6;

/// What is measured.
struct Row {
    name: &'static str,
    unit: &'static str,
    load: Load,
    port: u16,
    /// Whether ours goes through a service; the kernel's never does.
    service: bool,
}

const fn row(name: &'static str, unit: &'static str, load: Load, port: u16) -> Row {
    Row { name, unit, load, port, service: false }
}

const fn through_service(name: &'static str, unit: &'static str, load: Load, port: u16) -> Row {
    Row { name, unit, load, port, service: true }
}

const ROWS: [Row; 8] = [
    row("TCP, 1 stream", "Gbit/s", Load::Streams(1), STREAMS),
    row("TCP, 4 streams", "Gbit/s", Load::Streams(4), STREAMS),
    row("frames of 64 octets, delivered", "thousand/s", Load::Flood, DATAGRAMS),
    row("requests, 1 connection", "thousand/s", Load::Requests(1), REQUESTS),
    row("requests, 16 connections", "thousand/s", Load::Requests(16), REQUESTS),
    row("connections, 16 at a time", "thousand/s", Load::Connections(16), REQUESTS),
    through_service("service: TCP, 1 stream", "Gbit/s", Load::Streams(1), STREAMS),
    through_service(
        "service: connections, 16 at a time",
        "thousand/s",
        Load::Connections(16),
        REQUESTS_OF_SERVICE,
    ),
];

/// What one turn of a row has found: ours and the kernel's.
type Turn = [Option<Found>; 2];

/// Measures all rows for so long each, our way and the kernel's, and puts them into `account`.
///
/// # Errors
/// When the machine does not let the two pods be made, with what to do about it.
pub(super) fn measure(
    each: Duration,
    latency: Latency,
    watched: bool,
    account: &mut Account,
) -> Result<(), Box<dyn std::error::Error>> {
    let show = |text: &str| {
        if watched {
            progress::show(text);
        }
    };
    show("over TAPs: making pods");
    let cluster =
        Ephemeral::start(builtin(&ephemeral::name("bench")), Mode::Tap, true, latency, NonZeroUsize::MIN)?;
    let measured = between_pods(cluster.runtime(), each, &show, account);
    let left = cluster.stop();
    account.problems.extend(left.into_iter().map(|problem| format!("left behind: {problem}")));
    measured
}

fn between_pods(
    runtime: &Runtime,
    each: Duration,
    show: &impl Fn(&str),
    account: &mut Account,
) -> Result<(), Box<dyn std::error::Error>> {
    let [client, server]: [Place; 2] = ["alpha".parse()?, "beta".parse()?];
    let cluster = runtime.cluster();
    let address = cluster.addresses(&server).and_then(|all| all.iter().find(|a| a.is_ipv4()).copied());
    let address = address.ok_or("the built-in cluster gives its pods addresses")?;
    let node = cluster.nodes.first().ok_or("the built-in cluster has nodes")?.name.as_str().into();
    runtime.balance(vec![(node, registry(address, runtime.balancing_key())?)])?;
    let mut ends = Ends::start(&runtime.namespace(&client)?, &runtime.namespace(&server)?)?;
    let mut turns: [Vec<Turn>; ROWS.len()] = std::array::from_fn(|_| Vec::new());
    let seconds = (each / ROUNDS).as_secs_f64();
    for round in 1..=ROUNDS {
        for (row, turns) in ROWS.iter().zip(&mut turns) {
            let ours = if row.service { CLUSTER_IP } else { address };
            let mut turn = Turn::default();
            for ((to, by), found) in
                [(ours, "vswitch"), (bridge::ADDRESSES[1].into(), "kernel")].into_iter().zip(&mut turn)
            {
                show(&format!("over TAPs, round {round} of {ROUNDS}: {}, {by}", row.name));
                match ends.measure(row.load, SocketAddr::new(to, row.port), seconds) {
                    Ok(value) => *found = Some(value),
                    Err(why) => account.problems.push(format!("{}, {by}: {why}", row.name)),
                }
            }
            turns.push(turn);
        }
    }
    account.tap = ROWS.iter().zip(&turns).map(|(row, turns)| figure(row, turns)).collect();
    drop(ends);
    account.problems.extend(runtime.check()?.into_iter().map(|line| format!("not accounted for: {line}")));
    Ok(())
}

/// One service with one backend.
fn registry(address: IpAddr, key: [u8; 16]) -> Result<Registry, Box<dyn std::error::Error>> {
    let mut registry = Registry::new();
    for port in [STREAMS, REQUESTS_OF_SERVICE] {
        let backend = Backend { address, port, weight: 1 };
        let pool = Arc::new(Pool::new([backend], Policy::Maglev, None, key)?);
        let way = Way { pool, masquerade: false, when_empty: Refusal::Reject };
        let frontend = Frontend { address: CLUSTER_IP, protocol: TCP, port };
        let entrance = Entrance { frontend, sources: Vec::new(), ways: [way.clone(), way.clone(), way] };
        registry.set(Service {
            name: format!("default/bench:{port}").into(),
            entrances: vec![entrance],
            affinity: None,
            serving: [(address, port)].into_iter().collect(),
            reset_gone: false,
        })?;
    }
    Ok(registry)
}

fn figure(row: &Row, turns: &[Turn]) -> Figure {
    let of = |side: usize, what: fn(Found) -> f64| {
        median(turns.iter().filter_map(|turn| turn[side]).map(what).collect())
    };
    let ratios =
        turns.iter().filter_map(|[ours, kernel]| Some(ours.as_ref()?.value / kernel.as_ref()?.value));
    let delivered = of(0, |found| found.delivered).zip(of(1, |found| found.delivered));
    Figure {
        name: row.name,
        unit: row.unit,
        ours: of(0, |found| found.value),
        kernel: of(1, |found| found.value),
        ratio: median(ratios.collect()),
        delivered: delivered.filter(|_| row.load == Load::Flood).map(Into::into),
    }
}

/// The value in the middle; of an even number, the lower of the two.
fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len().checked_sub(1)? / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_value_in_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0]), Some(3.0));
        assert_eq!(median(vec![9.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![9.0, 1.0]), Some(1.0));
    }

    #[test]
    fn ratios_are_taken_turn_by_turn() {
        let turn = |ours: f64, kernel: f64| {
            [ours, kernel].map(|value| Some(Found { value, delivered: value / 100.0 }))
        };
        // Something slowed the machine down in the second turn, and one measurement failed in the last.
        let turns = [turn(50.0, 100.0), turn(5.0, 10.0), turn(60.0, 100.0), [turn(70.0, 1.0)[0], None]];
        let flood = figure(&ROWS[2], &turns);
        assert_eq!((flood.ours, flood.kernel, flood.ratio), (Some(50.0), Some(100.0), Some(0.5)));
        assert_eq!(flood.delivered, Some([0.5, 1.0]));
        assert_eq!(figure(&ROWS[0], &turns).delivered, None);
        let nothing = figure(&ROWS[0], &[[None; 2]]);
        assert_eq!((nothing.ours, nothing.kernel, nothing.ratio), (None, None, None));
    }
}
