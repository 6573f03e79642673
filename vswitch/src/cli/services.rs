//! Tables of Services and endpoints, and what `describe` says of a Service.

use std::collections::BTreeMap;
use std::io::Write;

use serde_json::Value as Json;

use super::Failure;
use super::capture::escaped;
use super::columns::{Column, cell, joined, labels, list, text};
use crate::control::client::Client;
use crate::control::services::{BalancedView, EndpointView};
use crate::control::table::render;

pub(super) const SERVICES: &[Column] = &[
    ("NAMESPACE", |o| text(o, "/metadata/namespace")),
    ("NAME", |o| text(o, "/metadata/name")),
    ("TYPE", |o| text(o, "/spec/type")),
    ("CLUSTER-IP", |o| text(o, "/spec/clusterIP")),
    ("EXTERNAL-IP", external),
    ("PORT(S)", ports),
    ("CLUSTER-IPS", |o| joined(list(o, "/spec/clusterIPs").iter().map(cell))),
    ("SELECTOR", |o| {
        let selector = o.pointer("/spec/selector").and_then(Json::as_object);
        joined(selector.into_iter().flatten().map(|(name, value)| format!("{name}={}", cell(value))))
    }),
    ("LABELS", labels),
];

/// Addresses outside, or the name that it stands for, as kubectl has it.
fn external(service: &Json) -> String {
    let ingress = list(service, "/status/loadBalancer/ingress").iter().map(|one| text(one, "/ip"));
    let all: Vec<String> = ingress.chain(list(service, "/spec/externalIPs").iter().map(cell)).collect();
    match text(service, "/spec/type").as_str() {
        "ExternalName" => text(service, "/spec/externalName"),
        "LoadBalancer" if all.is_empty() => "<pending>".to_owned(),
        _ => joined(all.into_iter()),
    }
}

/// `80:30080/TCP`.
fn ports(service: &Json) -> String {
    joined(list(service, "/spec/ports").iter().map(|port| {
        let node = port["nodePort"].as_u64().map(|number| format!(":{number}")).unwrap_or_default();
        format!("{}{node}/{}", cell(&port["port"]), port["protocol"].as_str().unwrap_or("TCP"))
    }))
}

/// So many are shown; of the others only how many there are.
const SHOWN: usize = 3;

pub(super) const ENDPOINTS: &[Column] = &[
    ("NAMESPACE", |o| text(o, "/metadata/namespace")),
    ("NAME", |o| text(o, "/metadata/name")),
    ("ENDPOINTS", |o| {
        let all = endpoints(o, "addresses");
        match all.len().checked_sub(SHOWN).filter(|more| *more > 0) {
            Some(more) => format!("{} + {more} more...", all[..SHOWN].join(",")),
            None => joined(all.into_iter()),
        }
    }),
    ("ALL", |o| joined(endpoints(o, "addresses").into_iter())),
    ("NOT-READY", |o| joined(endpoints(o, "notReadyAddresses").into_iter())),
];

fn endpoints(object: &Json, which: &str) -> Vec<String> {
    let mut all = Vec::new();
    for subset in list(object, "/subsets") {
        let port = text(subset, "/ports/0/port");
        let of = list(subset, &format!("/{which}")).iter().map(|one| at(&text(one, "/ip"), &port));
        all.extend(of);
    }
    all
}

fn at(address: &str, port: &str) -> String {
    if address.contains(':') { format!("[{address}]:{port}") } else { format!("{address}:{port}") }
}

pub(super) const SLICES: &[Column] = &[
    ("NAMESPACE", |o| text(o, "/metadata/namespace")),
    ("NAME", |o| text(o, "/metadata/name")),
    ("ADDRESSTYPE", |o| text(o, "/addressType")),
    ("PORTS", |o| joined(list(o, "/ports").iter().map(|port| text(port, "/port")))),
    ("ENDPOINTS", |o| {
        joined(list(o, "/endpoints").iter().flat_map(|one| list(one, "/addresses").iter().map(cell)))
    }),
    ("LABELS", labels),
];

pub(super) const POOLS: &[Column] = &[
    ("NAMESPACE", |o| text(o, "/metadata/namespace")),
    ("NAME", |o| text(o, "/metadata/name")),
    ("AUTO-ASSIGN", |o| o.pointer("/spec/autoAssign").map_or_else(|| "true".to_owned(), cell)),
    ("ADDRESSES", |o| joined(list(o, "/spec/addresses").iter().map(cell))),
];

pub(super) const ADVERTISEMENTS: &[Column] = &[
    ("NAMESPACE", |o| text(o, "/metadata/namespace")),
    ("NAME", |o| text(o, "/metadata/name")),
    ("POOLS", |o| joined(list(o, "/spec/ipAddressPools").iter().map(cell))),
];

/// What nodes make of a Service, port by port.
pub(super) fn describe(client: &Client, service: &str, out: &mut impl Write) -> Result<(), Failure> {
    let all: Vec<BalancedView> = client.get(&format!("/v1/balancing?service={}", escaped(service)))?;
    for view in &all {
        let affinity = view.affinity_seconds.map(|s| format!(", clients come back for {s} s"));
        writeln!(
            out,
            "\nPort {} {}, {}: {}{}",
            view.port,
            view.protocol,
            view.family,
            view.policy,
            affinity.unwrap_or_default()
        )?;
        if let Some(problem) = &view.problem {
            writeln!(out, "not translated on {problem}")?;
        }
        let rows: Vec<Vec<String>> = view
            .nodes
            .iter()
            .map(|node| {
                let size = node.table_size.map_or_else(|| "-".to_owned(), |size| size.to_string());
                vec![node.node.clone(), size, joined(node.frontends.iter().cloned())]
            })
            .collect();
        if !rows.is_empty() {
            write!(out, "{}", render(&["NODE", "TABLE", "FRONTENDS"], &rows))?;
        }
        let head = ["ENDPOINT", "STATE", "POD", "NODE", "ZONE", "WEIGHT", "SHARE", "CONNECTIONS"];
        let rows: Vec<Vec<String>> = view.endpoints.iter().map(endpoint).collect();
        if !rows.is_empty() {
            write!(out, "{}", render(&head, &rows))?;
        }
        let clients = view.nodes.iter().flat_map(|node| node.affinities.iter().map(move |one| (node, one)));
        let row = |(node, one): (
            &crate::control::services::BalancingNodeView,
            &crate::control::services::AffinityView,
        )| {
            vec![
                node.node.clone(),
                one.client.to_string(),
                one.backend.clone(),
                format!("{}s", one.left_seconds),
            ]
        };
        let rows: Vec<Vec<String>> = clients.map(row).collect();
        if !rows.is_empty() {
            write!(out, "{}", render(&["NODE", "CLIENT", "BACKEND", "LEFT"], &rows))?;
        }
    }
    Ok(())
}

fn endpoint(view: &EndpointView) -> Vec<String> {
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
    // Where every node has the same, once.
    let shares = by_node(&view.shares, |(parts, of)| {
        let per_mille = u128::from(*parts) * 1000 / u128::from((*of).max(1));
        format!("{}.{} %", per_mille / 10, per_mille % 10)
    });
    vec![
        view.endpoint.clone(),
        view.state.clone(),
        or_dash(&view.pod),
        or_dash(&view.node),
        or_dash(&view.zone),
        view.weight.to_string(),
        shares,
        joined(view.connections.iter().map(|(node, count)| format!("{node}={count}"))),
    ]
}

fn by_node<T>(values: &BTreeMap<String, T>, show: impl Fn(&T) -> String) -> String {
    let all: Vec<(&String, String)> = values.iter().map(|(node, value)| (node, show(value))).collect();
    match all.as_slice() {
        [(_, first), rest @ ..] if rest.iter().all(|(_, other)| other == first) => first.clone(),
        _ => joined(all.into_iter().map(|(node, value)| format!("{node}={value}"))),
    }
}
