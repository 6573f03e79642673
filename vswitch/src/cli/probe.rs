//! The programs that this executable is inside pods, which no user starts.

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Subcommand;

use super::Failure;
use crate::{bench, probe};

#[derive(Debug, Subcommand)]
pub(super) enum Probe {
    Serve {
        port: u16,
    },
    Tcp {
        to: std::net::SocketAddr,
        bytes: u64,
    },
    Udp {
        to: std::net::SocketAddr,
        count: u64,
        size: usize,
    },
    Ping {
        to: std::net::IpAddr,
        count: u64,
        size: usize,
    },
    /// The asking end of `bench`.
    Load,
    /// Its serving end.
    ServeLoad,
    /// The kernel's bridge between the two.
    Bridge,
}

pub(super) fn run(probe: &Probe) -> Result<ExitCode, Failure> {
    let report = match *probe {
        Probe::Tcp { to, bytes } => probe::tcp(to, bytes)?,
        Probe::Udp { to, count, size } => probe::udp(to, count, size)?,
        Probe::Ping { to, count, size } => probe::ping(to, count, size)?,
        Probe::Serve { port } => {
            probe::serve(port, &mut io::stdout())?;
            return Ok(ExitCode::SUCCESS);
        }
        Probe::Load => {
            bench::ask_load(io::stdin().lock(), io::stdout())?;
            return Ok(ExitCode::SUCCESS);
        }
        Probe::ServeLoad => {
            bench::serve_load(io::stdin().lock(), io::stdout())?;
            return Ok(ExitCode::SUCCESS);
        }
        Probe::Bridge => match bench::hold_bridge(&mut io::stdout())? {},
    };
    writeln!(io::stdout(), "{}", serde_json::to_string(&report)?)?;
    Ok(ExitCode::SUCCESS)
}
