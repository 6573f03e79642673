//! `--latency` and `--threads`.

use std::num::NonZeroUsize;

use clap::{Args, ValueEnum, value_parser};

/// Above this is a typing error.
const MOST_THREADS: i64 = 256;

/// What the data path pays for being quick, and on how many cores it runs.
#[derive(Debug, Args)]
pub(super) struct Pace {
    /// What to pay for a short way from pod to pod; an idle cluster costs next to nothing with any of them
    #[arg(long, value_name = "PRICE", default_value = "balanced")]
    latency: Latency,
    /// On how many threads frames are moved, each with the switches of some nodes
    ///
    /// Nodes on different threads work at the same time, each on a core of its own; one node never uses more than one core. A
    /// frame that goes from thread to thread costs waking another core, and `--latency low` takes a core for each thread.
    /// More threads than there are switches (one for each node, one between them) are not used.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u16).range(1..=MOST_THREADS))]
    threads: u16,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Latency {
    /// The data path stays awake between frames where those before say that it pays
    Balanced,
    /// It stays awake as long as there is traffic, and takes a whole core meanwhile
    Low,
    /// It sleeps whenever there is nothing to do
    Idle,
}

impl Pace {
    pub(super) fn threads(&self) -> NonZeroUsize {
        NonZeroUsize::new(usize::from(self.threads)).unwrap_or(NonZeroUsize::MIN)
    }

    pub(super) const fn latency(&self) -> netstack::driver::Latency {
        match self.latency {
            Latency::Balanced => netstack::driver::Latency::Balanced,
            Latency::Low => netstack::driver::Latency::Low,
            Latency::Idle => netstack::driver::Latency::Idle,
        }
    }
}
