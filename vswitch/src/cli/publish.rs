//! `publish` and `withdraw`.

use std::io::{self, Write as _};
use std::process::ExitCode;

use super::Failure;
use crate::control::api::{PublishRequest, PublishedView};
use crate::control::client::Client;

/// Sends the ports there, and shows what is published then.
pub(super) fn ports(client: &Client, ports: Vec<String>, path: &str) -> Result<ExitCode, Failure> {
    let views: Vec<PublishedView> = client.post(path, &PublishRequest { ports })?;
    let mut out = io::stdout().lock();
    for door in views.iter().flat_map(|view| &view.doors) {
        writeln!(out, "{} {} leads to {}", door.protocol, door.at, door.to)?;
    }
    Ok(ExitCode::SUCCESS)
}
