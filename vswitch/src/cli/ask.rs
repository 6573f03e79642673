//! Verbs that ask a running cluster.

use std::io::{self, Write};
use std::process::ExitCode;

use super::{Exec, Failure, Format, Output, Trace};
use crate::control::api::{PlaceView, Status, TraceRequest, TraceView};
use crate::control::client::{Client, ClientError};
use crate::helper::exec::{Enter, NamespaceRef};

pub(super) fn exec(client: &Client, exec: &Exec) -> Result<ExitCode, Failure> {
    let places: Vec<PlaceView> = client.get("/v1/places")?;
    let wanted = exec.namespace.of(&exec.place)?.to_string();
    let place = places.iter().find(|p| p.place == wanted).ok_or_else(|| {
        let known: Vec<&str> = places.iter().map(|p| p.place.as_str()).collect();
        format!("{wanted} does not exist; there are {}", known.join(", "))
    })?;
    let (Some(pause_pid), Some(netns_inode)) = (place.pause_pid, place.netns_inode) else {
        return Err(format!(
            "{wanted} is an in-process pod on a memory link: there is no namespace to enter"
        )
        .into());
    };
    let (program, arguments) = exec.command.split_first().ok_or("no command is given")?;
    let enter = Enter::new(NamespaceRef { pause_pid, netns_inode }, program).arguments(arguments);
    // Only returns when it fails: from here on this process is the command.
    Err(enter.replace().into())
}

/// What this command is, and what the running cluster is if there is one.
pub(super) fn version(client: &Client, output: &Output) -> Result<ExitCode, Failure> {
    let own = env!("CARGO_PKG_VERSION");
    let server: Option<Status> = match client.get("/v1/status") {
        Ok(status) => Some(status),
        Err(ClientError::NotRunning(_)) => None,
        Err(error) => return Err(error.into()),
    };
    let both = serde_json::json!({"client": {"version": own}, "server": server});
    let text = match (output.output, &server) {
        (Format::Json, _) => format!("{}\n", serde_json::to_string_pretty(&both)?),
        (Format::Yaml, _) => super::get::yaml(&both)?,
        (Format::Table | Format::Wide, None) => format!("client {own}\nserver none\n"),
        (Format::Table | Format::Wide, Some(s)) => {
            format!(
                "client {own}\nserver {} (cluster {}, process {}, {})\n",
                s.version, s.cluster, s.pid, s.mode
            )
        }
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Exit status 0 when the packet reaches an end station, 1 when it does not.
pub(super) fn trace(client: &Client, trace: &Trace) -> Result<ExitCode, Failure> {
    let request =
        TraceRequest { from: trace.namespace.of(&trace.from)?.to_string(), packet: trace.packet.clone() };
    let view: TraceView = client.post("/v1/trace", &request)?;
    let mut out = io::stdout().lock();
    if trace.output.output == Format::Json {
        writeln!(out, "{}", serde_json::to_string_pretty(&view)?)?;
    } else {
        for hop in &view.hops {
            writeln!(out, "{}, in by {}", hop.switch, hop.port)?;
            for (stage, text) in &hop.steps {
                writeln!(out, "  {stage:<10} {text}")?;
            }
            writeln!(out, "  {:<10} {}", "outcome", hop.outcome)?;
        }
        writeln!(out, "{}", view.outcome)?;
    }
    Ok(if view.delivered { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
