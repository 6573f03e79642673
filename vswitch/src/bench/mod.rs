//! `vswitch bench`: the main figures, on the user's own machine and in less than a minute.
//!
//! In memory it measures what a frame costs the switch, with the pieces of work of the benchmarks. Over TAPs it measures what goes
//! from pod to pod, and in turns with it what goes between the same two network namespaces over the kernel's bridge: what slows
//! the machine down slows both down, and the ratio stays. What `benches/peers` measures with more time and more peers is measured
//! here without any tool.

mod account;
mod bridge;
mod ends;
mod load;
mod memory;
mod tap;

use std::time::Duration;

use netstack::driver::Latency;

pub use account::{Account, Cost, Figure};
pub(crate) use bridge::hold as hold_bridge;
pub(crate) use load::{ask as ask_load, serve as serve_load};

use crate::progress;

/// A half of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// The switch alone.
    Memory,
    /// Between pods.
    Tap,
}

/// How to measure.
#[derive(Clone, Debug)]
pub struct Options {
    /// Only this part.
    pub only: Option<Part>,
    /// How long each figure takes.
    pub each: Duration,
    /// What the data path pays for a short way from pod to pod.
    pub latency: Latency,
    /// Whether to show what is being done on standard error.
    pub progress: bool,
}

/// Measures. What was lost is among the problems of the account.
///
/// # Errors
/// When TAPs cannot be used and nothing else was asked for.
pub fn run(options: &Options) -> Result<Account, Box<dyn std::error::Error>> {
    let mut account = Account {
        version: env!("CARGO_PKG_VERSION"),
        processors: std::thread::available_parallelism().map_or(1, usize::from),
        ..Account::default()
    };
    if options.only != Some(Part::Tap) {
        match memory::measure(options.each, options.progress) {
            Ok(costs) => account.memory = costs,
            Err(why) => account.problems.push(why.to_owned()),
        }
    }
    // Last: when it fails the process may only end.
    let mut told = Ok(());
    if options.only != Some(Part::Memory) {
        told = tap::measure(options.each, options.latency, options.progress, &mut account);
    }
    if options.progress {
        progress::show("");
    }
    match told {
        Err(error) if options.only.is_none() => account.no_tap = Some(error.to_string()),
        told => told?,
    }
    Ok(account)
}
