//! Tables: where each comes from, and what its columns are.

use serde_json::Value as Json;

use super::{Table, policy, services};
use crate::control::table::bytes;

/// How one kind of thing is listed.
pub(super) struct Listing {
    /// Where the API has it.
    pub(super) path: &'static str,
    /// Columns, and how many of them are shown without `-o wide`.
    pub(super) columns: &'static [Column],
    pub(super) narrow: usize,
    /// Its name within its namespace.
    pub(super) name: fn(&Json) -> String,
    /// A field that changes without anything having happened.
    pub(super) volatile: Option<&'static str>,
    /// Its namespace.
    pub(super) namespace: fn(&Json) -> Option<String>,
}

/// A column's head and its cell of one thing.
pub(super) type Column = (&'static str, fn(&Json) -> String);

pub(super) fn listing(table: Table) -> Listing {
    let object = |path, columns: &'static [Column], narrow| Listing {
        path,
        columns,
        narrow,
        name: |o| text(o, "/metadata/name"),
        volatile: None,
        namespace: |o| o.pointer("/metadata/namespace").and_then(Json::as_str).map(str::to_owned),
    };
    let view = |path, columns: &'static [Column], narrow, name| Listing {
        path,
        columns,
        narrow,
        name,
        volatile: None,
        namespace: |_| None,
    };
    match table {
        Table::Pods => object("/v1/objects/pods", PODS, 7),
        Table::Nodes => object("/v1/objects/nodes", NODES, 4),
        Table::Namespaces => object("/v1/objects/namespaces", NAMESPACES, 2),
        Table::Deployments => object("/v1/objects/deployments", DEPLOYMENTS, 3),
        Table::Clusters => object("/v1/objects/clusters", CLUSTERS, 2),
        Table::Services => object("/v1/objects/services", services::SERVICES, 6),
        Table::Endpoints => object("/v1/objects/endpoints", services::ENDPOINTS, 3),
        Table::EndpointSlices => object("/v1/objects/endpointslices", services::SLICES, 5),
        Table::Pools => object("/v1/objects/ipaddresspools", services::POOLS, 4),
        Table::Advertisements => object("/v1/objects/l2advertisements", services::ADVERTISEMENTS, 3),
        Table::Policies => Listing {
            volatile: Some("dropped"),
            namespace: |o| o.pointer("/namespace").and_then(Json::as_str).map(str::to_owned),
            ..view("/v1/policies", policy::COLUMNS, 7, |o| text(o, "/name"))
        },
        Table::Dns => view("/v1/names", NAMES, 3, |o| text(o, "/name")),
        Table::Places => view("/v1/places", PLACES, 4, |o| text(o, "/place")),
        Table::Ports => {
            view("/v1/ports", PORTS, 9, |o| format!("{}:{}", text(o, "/switch"), text(o, "/port")))
        }
        Table::Fdb => view("/v1/fdb", FDB, 6, |o| text(o, "/mac")),
        Table::Neighbors => view("/v1/neighbors", NEIGHBORS, 5, |o| text(o, "/address")),
        Table::Routes => view("/v1/routes", ROUTES, 4, |o| text(o, "/prefix")),
        Table::Drops => view("/v1/drops", DROPS, 5, |o| text(o, "/reason")),
        Table::Connections => Listing {
            volatile: Some("timeout_seconds"),
            ..view("/v1/connections", CONNECTIONS, 7, connection)
        },
        Table::Published => view("/v1/published", PUBLISHED, 4, |o| text(o, "/name")),
        Table::Events => view("/v1/events", EVENTS, 3, |o| text(o, "/at_seconds")),
    }
}

const PODS: &[Column] = &[
    ("NAMESPACE", |o| text(o, "/metadata/namespace")),
    ("NAME", |o| text(o, "/metadata/name")),
    ("READY", |o| {
        let all = list(o, "/status/containerStatuses");
        let ready = all.iter().filter(|c| c["ready"] == true).count();
        let wanted = list(o, "/spec/containers").len();
        format!("{ready}/{wanted}")
    }),
    ("STATUS", |o| {
        let reason = text(o, "/status/reason");
        if reason == "-" { text(o, "/status/phase") } else { reason }
    }),
    ("RESTARTS", |o| {
        let counts = list(o, "/status/containerStatuses").iter().filter_map(|c| c["restartCount"].as_u64());
        counts.sum::<u64>().to_string()
    }),
    ("IP", |o| text(o, "/status/podIP")),
    ("NODE", |o| text(o, "/spec/nodeName")),
    ("IPS", |o| joined(list(o, "/status/podIPs").iter().map(|ip| text(ip, "/ip")))),
    ("IMAGES", |o| joined(list(o, "/spec/containers").iter().map(|c| text(c, "/image")))),
    ("LABELS", labels),
];

const NODES: &[Column] = &[
    ("NAME", |o| text(o, "/metadata/name")),
    ("STATUS", |o| {
        if text(o, "/status/conditions/0/status") == "True" { "Ready" } else { "NotReady" }.to_owned()
    }),
    ("INTERNAL-IP", |o| {
        let all = list(o, "/status/addresses").iter().filter(|a| a["type"] == "InternalIP");
        joined(all.map(|a| text(a, "/address")))
    }),
    ("POD-CIDRS", |o| joined(list(o, "/spec/podCIDRs").iter().map(cell))),
    ("SEGMENT", |o| text(o, "/status/segment")),
    ("LABELS", labels),
];

const NAMESPACES: &[Column] =
    &[("NAME", |o| text(o, "/metadata/name")), ("STATUS", |o| text(o, "/status/phase")), ("LABELS", labels)];

const DEPLOYMENTS: &[Column] = &[
    ("NAMESPACE", |o| text(o, "/metadata/namespace")),
    ("NAME", |o| text(o, "/metadata/name")),
    ("READY", |o| format!("{}/{}", text(o, "/status/readyReplicas"), text(o, "/status/replicas"))),
    ("LABELS", labels),
];

const CLUSTERS: &[Column] = &[
    ("NAME", |o| text(o, "/metadata/name")),
    ("POD-CIDRS", |o| joined(list(o, "/spec/podCIDRs").iter().map(cell))),
    ("SEGMENTS", |o| joined(list(o, "/spec/segments").iter().map(|s| text(s, "/name")))),
];

const NAMES: &[Column] = &[
    ("NAME", |o| text(o, "/name")),
    ("TYPE", |o| text(o, "/type")),
    ("DATA", |o| text(o, "/data")),
    ("TTL", |o| text(o, "/ttl")),
];

const PLACES: &[Column] = &[
    ("PLACE", |o| text(o, "/place")),
    ("ADDRESSES", |o| joined(list(o, "/addresses").iter().map(cell))),
    ("SWITCH", |o| text(o, "/switch")),
    ("NETNS", |o| text(o, "/netns")),
];

const PORTS: &[Column] = &[
    ("SWITCH", |o| text(o, "/switch")),
    ("PORT", |o| text(o, "/port")),
    ("ID", |o| text(o, "/id")),
    ("SEGMENT", |o| joined(list(o, "/segments").iter().map(cell))),
    ("STATION", |o| text(o, "/station")),
    ("STATE", |o| text(o, "/state")),
    ("RX", |o| bytes(o["rx_bytes"].as_u64().unwrap_or(0))),
    ("TX", |o| bytes(o["tx_bytes"].as_u64().unwrap_or(0))),
    ("DROPS", |o| text(o, "/drops")),
    ("RX-FRAMES", |o| text(o, "/rx_frames")),
    ("TX-FRAMES", |o| text(o, "/tx_frames")),
    ("STORM-DROPS", |o| text(o, "/storm_drops")),
    ("THREAD", |o| text(o, "/thread")),
    ("OFFLOAD", |o| joined(list(o, "/offload").iter().map(cell))),
    ("MAC", |o| text(o, "/mac")),
    ("ADDRESSES", |o| joined(list(o, "/addresses").iter().map(cell))),
];

const FDB: &[Column] = &[
    ("SWITCH", |o| text(o, "/switch")),
    ("SEGMENT", |o| text(o, "/segment")),
    ("MAC", |o| text(o, "/mac")),
    ("PORT", |o| text(o, "/port")),
    ("KIND", |o| text(o, "/kind")),
    ("AGE", |o| o["age_seconds"].as_f64().map_or_else(|| "-".to_owned(), |age| format!("{age:.0}s"))),
];

const NEIGHBORS: &[Column] = &[
    ("SWITCH", |o| text(o, "/switch")),
    ("SEGMENT", |o| text(o, "/segment")),
    ("ADDRESS", |o| text(o, "/address")),
    ("MAC", |o| text(o, "/mac")),
    ("STATE", |o| text(o, "/state")),
];

const ROUTES: &[Column] = &[
    ("SWITCH", |o| text(o, "/switch")),
    ("PREFIX", |o| text(o, "/prefix")),
    ("TARGET", |o| text(o, "/target")),
    ("KIND", |o| text(o, "/kind")),
];

const DROPS: &[Column] = &[
    ("SWITCH", |o| text(o, "/switch")),
    ("PORT", |o| text(o, "/port")),
    ("REASON", |o| text(o, "/reason")),
    ("FRAMES", |o| text(o, "/count")),
    ("MEANING", |o| text(o, "/description")),
];

const CONNECTIONS: &[Column] = &[
    ("NODE", |o| text(o, "/node")),
    ("PROTO", |o| text(o, "/protocol")),
    ("STATE", |o| text(o, "/state")),
    ("SOURCE", |o| asking(&o["original"], "source")),
    ("DESTINATION", |o| end(&o["original"], "destination")),
    ("STATUS", |o| joined(list(o, "/status").iter().map(cell))),
    ("TIMEOUT", |o| format!("{}s", text(o, "/timeout_seconds"))),
    ("REPLY-SOURCE", |o| end(&o["reply"], "source")),
    ("REPLY-DESTINATION", |o| asking(&o["reply"], "destination")),
];

/// What tells a connection from all others.
fn connection(o: &Json) -> String {
    let words = CONNECTIONS.iter().filter(|(head, _)| !["STATE", "STATUS", "TIMEOUT"].contains(head));
    words.map(|(_, cell)| cell(o)).collect::<Vec<_>>().join(" ")
}

/// One end of a tuple, as people write it.
fn end(tuple: &Json, which: &str) -> String {
    let address = tuple[which].as_str().unwrap_or("-");
    match tuple[format!("{which}_port")].as_u64() {
        Some(port) if address.contains(':') => format!("[{address}]:{port}"),
        Some(port) => format!("{address}:{port}"),
        None => address.to_owned(),
    }
}

/// The end that asks, with the identifier of its query if it is one.
fn asking(tuple: &Json, which: &str) -> String {
    let end = end(tuple, which);
    tuple["id"].as_u64().map_or_else(|| end.clone(), |id| format!("{end},id={id}"))
}

const PUBLISHED: &[Column] = &[
    ("NAME", |o| text(o, "/name")),
    ("BY", |o| text(o, "/by")),
    ("LEADS TO", |o| {
        let doors = o["doors"].as_array().into_iter().flatten();
        let doors: Vec<String> = doors.map(|d| format!("{} > {}", text(d, "/at"), text(d, "/to"))).collect();
        doors.join(", ")
    }),
    ("PROBLEM", |o| text(o, "/problem")),
];

const EVENTS: &[Column] = &[
    ("AT", |o| format!("{:.3}", o["at_seconds"].as_f64().unwrap_or(0.0))),
    ("SWITCH", |o| text(o, "/switch")),
    ("EVENT", |o| text(o, "/text")),
];

/// A field as text; `-` where there is none.
pub(super) fn text(object: &Json, pointer: &str) -> String {
    object.pointer(pointer).map_or_else(|| "-".to_owned(), cell)
}

pub(super) fn cell(value: &Json) -> String {
    match value {
        Json::Null => "-".to_owned(),
        Json::String(text) => text.clone(),
        Json::Bool(_) | Json::Number(_) | Json::Array(_) | Json::Object(_) => value.to_string(),
    }
}

pub(super) fn list<'a>(object: &'a Json, pointer: &str) -> &'a [Json] {
    object.pointer(pointer).and_then(Json::as_array).map_or(&[], Vec::as_slice)
}

pub(super) fn joined(items: impl Iterator<Item = String>) -> String {
    let all: Vec<String> = items.collect();
    if all.is_empty() { "-".to_owned() } else { all.join(",") }
}

pub(super) fn labels(object: &Json) -> String {
    let labels = object.pointer("/metadata/labels").and_then(Json::as_object);
    joined(labels.into_iter().flatten().map(|(name, value)| format!("{name}={}", cell(value))))
}
