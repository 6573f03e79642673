//! The command line.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// A virtual switch for Kubernetes manifests on one machine.
#[derive(Debug, Parser)]
#[command(name = "vswitch", version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Say what this machine allows, with the remedy for what it does not
    Doctor,
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let result = match Arguments::parse().verb {
        Verb::Doctor => doctor(),
    };
    result.unwrap_or_else(|error| {
        let _ = writeln!(io::stderr(), "vswitch: {error}");
        ExitCode::FAILURE
    })
}

fn doctor() -> io::Result<ExitCode> {
    let checks = crate::doctor::checks();
    io::stdout().write_all(crate::doctor::report(&checks).as_bytes())?;
    Ok(if crate::doctor::all_usable(&checks) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
