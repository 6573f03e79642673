//! `--latency`.

use clap::{Args, ValueEnum};

/// What the data path pays for being quick.
#[derive(Debug, Args)]
pub(super) struct Pace {
    /// What to pay for a short way from pod to pod; an idle cluster costs next to nothing with any of them
    #[arg(long, value_name = "PRICE", default_value = "balanced")]
    latency: Latency,
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
    pub(super) const fn latency(&self) -> netstack::driver::Latency {
        match self.latency {
            Latency::Balanced => netstack::driver::Latency::Balanced,
            Latency::Low => netstack::driver::Latency::Low,
            Latency::Idle => netstack::driver::Latency::Idle,
        }
    }
}
