//! `bench`.

use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::pace::Pace;
use super::{Failure, Format, Output, get};
use crate::bench::{Options, Part, run};

#[derive(Debug, Args)]
pub(super) struct Bench {
    /// Measure only this; without it both, or what the machine allows
    #[arg(long, value_name = "WHAT")]
    only: Option<Only>,
    /// Seconds for each figure, over TAPs for each of both ways
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    seconds: Duration,
    #[command(flatten)]
    pace: Pace,
    #[command(flatten)]
    output: Output,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Only {
    /// What a frame costs the switch alone, on one thread
    Memory,
    /// What goes from pod to pod over TAPs, beside the kernel's bridge
    Tap,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().filter(|seconds| (0.01..=600.0).contains(seconds));
    seconds.map(Duration::from_secs_f64).ok_or_else(|| "a number from 0.01 to 600 is needed".to_owned())
}

pub(super) fn bench(bench: &Bench) -> Result<ExitCode, Failure> {
    let options = Options {
        only: bench.only.map(|only| match only {
            Only::Memory => Part::Memory,
            Only::Tap => Part::Tap,
        }),
        each: bench.seconds,
        latency: bench.pace.latency(),
        progress: io::stderr().is_terminal(),
    };
    let account = run(&options)?;
    let text = match bench.output.output {
        Format::Json => format!("{}\n", serde_json::to_string_pretty(&account)?),
        Format::Yaml => get::yaml(&serde_json::to_value(&account)?)?,
        Format::Table | Format::Wide => account.text(),
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(if account.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
