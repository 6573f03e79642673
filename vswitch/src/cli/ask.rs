//! Verbs that ask a running cluster.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write};
use std::process::ExitCode;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Capture, Exec, Failure, Format, Get, Table, Trace};
use crate::control::api::{
    DropView, EventView, FdbView, NeighborView, PlaceView, PortView, RouteView, TraceRequest, TraceView,
};
use crate::control::client::{Client, ClientError};
use crate::control::table::{bytes, render};
use crate::helper::exec::{Enter, NamespaceRef};

pub(super) fn exec(client: &Client, exec: &Exec) -> Result<ExitCode, Failure> {
    let places: Vec<PlaceView> = client.get("/v1/places")?;
    let wanted = exec.place.to_string();
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

pub(super) fn get(client: &Client, get: &Get) -> Result<ExitCode, Failure> {
    match get.kind {
        Table::Places => {
            print(client, get, "/v1/places", &["PLACE", "ADDRESSES", "SWITCH", "NETNS"], place_row)
        }
        Table::Ports => ports(client, get),
        Table::Fdb => print(
            client,
            get,
            "/v1/fdb",
            &["SWITCH", "SEGMENT", "MAC", "PORT", "KIND", "AGE"],
            |f: &FdbView| {
                let age = f.age_seconds.map_or_else(|| "-".to_owned(), |a| format!("{a:.0}s"));
                vec![f.switch.clone(), f.segment.clone(), f.mac.clone(), f.port.clone(), f.kind.clone(), age]
            },
        ),
        Table::Neighbors => {
            let header = ["SWITCH", "SEGMENT", "ADDRESS", "MAC", "STATE"];
            print(client, get, "/v1/neighbors", &header, |n: &NeighborView| {
                vec![
                    n.switch.clone(),
                    n.segment.clone(),
                    n.address.to_string(),
                    dash(&n.mac),
                    n.state.clone(),
                ]
            })
        }
        Table::Routes => {
            print(client, get, "/v1/routes", &["SWITCH", "PREFIX", "TARGET", "KIND"], |r: &RouteView| {
                vec![r.switch.clone(), r.prefix.clone(), r.target.clone(), r.kind.clone()]
            })
        }
        Table::Drops => {
            let header = ["SWITCH", "PORT", "REASON", "FRAMES", "MEANING"];
            print(client, get, "/v1/drops", &header, |d: &DropView| {
                let count = d.count.to_string();
                vec![d.switch.clone(), d.port.clone(), d.reason.clone(), count, d.description.clone()]
            })
        }
        Table::Events => print(client, get, "/v1/events", &["AT", "SWITCH", "EVENT"], |e: &EventView| {
            vec![format!("{:.3}", e.at_seconds), e.switch.clone(), e.text.clone()]
        }),
    }
}

fn dash(text: &Option<String>) -> String {
    text.clone().unwrap_or_else(|| "-".to_owned())
}

fn list(items: &[String]) -> String {
    if items.is_empty() { "-".to_owned() } else { items.join(",") }
}

fn place_row(place: &PlaceView) -> Vec<String> {
    vec![place.place.clone(), list(&texts(&place.addresses)), place.switch.clone(), dash(&place.netns)]
}

fn ports(client: &Client, get: &Get) -> Result<ExitCode, Failure> {
    let wide = get.output.output == Format::Wide;
    let mut header = vec!["SWITCH", "PORT", "ID", "SEGMENT", "STATION", "STATE", "RX", "TX", "DROPS"];
    if wide {
        header.extend(["RX-FRAMES", "TX-FRAMES", "OFFLOAD", "MAC", "ADDRESSES"]);
    }
    print(client, get, "/v1/ports", &header, |p: &PortView| {
        let mut row = vec![
            p.switch.clone(),
            p.port.clone(),
            p.id.to_string(),
            list(&p.segments),
            p.station.clone(),
            p.state.clone(),
            bytes(p.rx_bytes),
            bytes(p.tx_bytes),
            p.drops.to_string(),
        ];
        if wide {
            row.extend([p.rx_frames.to_string(), p.tx_frames.to_string()]);
            row.extend([list(&p.offload), dash(&p.mac), list(&texts(&p.addresses))]);
        }
        row
    })
}

fn texts(items: &[impl ToString]) -> Vec<String> {
    items.iter().map(ToString::to_string).collect()
}

fn print<T: Serialize + DeserializeOwned>(
    client: &Client,
    get: &Get,
    path: &str,
    header: &[&str],
    row: impl Fn(&T) -> Vec<String>,
) -> Result<ExitCode, Failure> {
    let items: Vec<T> = client.get(path)?;
    let text = match get.output.output {
        Format::Json => format!("{}\n", serde_json::to_string_pretty(&items)?),
        Format::Table | Format::Wide => render(header, &items.iter().map(row).collect::<Vec<_>>()),
    };
    io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// Exit status 0 when the packet reaches an end station, 1 when it does not.
pub(super) fn trace(client: &Client, trace: &Trace) -> Result<ExitCode, Failure> {
    let request = TraceRequest { from: trace.from.to_string(), packet: trace.packet.clone() };
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

pub(super) fn capture(client: &Client, capture: &Capture) -> Result<ExitCode, Failure> {
    let encoded: String = capture.port.bytes().map(escape).collect();
    let count = capture.count.map_or_else(String::new, |n| format!("&count={n}"));
    let path = format!("/v1/capture?port={encoded}{count}");
    let ended = match &capture.write {
        Some(file) => {
            let mut out = File::create(file).map_err(|e| format!("{}: {e}", file.display()))?;
            client.stream(&path, &mut out)
        }
        None if io::stdout().is_terminal() => {
            return Err("a capture is binary; write it with -w FILE, or pipe it into `tcpdump -r -`".into());
        }
        None => client.stream(&path, &mut io::stdout().lock()),
    };
    match ended {
        Ok(()) => {}
        // What was captured until then has been written.
        Err(ClientError::Connection(_)) => {
            writeln!(io::stderr(), "the cluster went down, and the capture with it")?
        }
        Err(error) => return Err(error.into()),
    }
    Ok(ExitCode::SUCCESS)
}

/// A query's octet (RFC 3986 section 2.1).
fn escape(octet: u8) -> String {
    if octet.is_ascii_alphanumeric() || b"-._~/:".contains(&octet) {
        char::from(octet).to_string()
    } else {
        format!("%{octet:02X}")
    }
}
