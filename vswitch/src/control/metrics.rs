//! What Prometheus reads, made at the time it asks from the same views that `get` shows.
//!
//! The text is OpenMetrics 1.0, which Prometheus reads as well as its own older format. Names follow its conventions: a
//! counter ends in `_total`, a unit stands in the name.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::{Registry, Unit};

use super::api::PortView;
use super::plane::Plane;
use super::{names, services};
use crate::container::Phase;
use crate::edge::{EdgeCounters, EdgeDrop};
use crate::names::{BOUNDS, NameServerCounters};
use crate::proxy::ProxyCounters;
use crate::runtime::{
    ConnectionCounts, EgressCounts, NameServerCounts, PolicyCount, ProxyCounts, RuntimeError,
};
use crate::service::Kind;

/// Of the text.
pub(super) const MEDIA_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All phases, so that one without pods is told as 0.
const PHASES: &[Phase] = &[Phase::Pending, Phase::Running, Phase::Succeeded, Phase::Failed];

type Labels = Vec<(&'static str, String)>;
/// What is counted of a port: name, unit, meaning, and where it stands.
type PortCounter = (&'static str, Option<Unit>, &'static str, fn(&PortView) -> u64);

const PORT_COUNTERS: [PortCounter; 4] = [
    ("vswitch_port_receive_frames", None, "Frames that a port received from its device.", |p| p.rx_frames),
    ("vswitch_port_receive", Some(Unit::Bytes), "Octets that a port received from its device.", |p| {
        p.rx_bytes
    }),
    ("vswitch_port_transmit_frames", None, "Frames that a port gave to its device.", |p| p.tx_frames),
    ("vswitch_port_transmit", Some(Unit::Bytes), "Octets that a port gave to its device.", |p| p.tx_bytes),
];

/// One moment of a cluster.
#[derive(Debug, Default)]
struct Scrape {
    uptime: f64,
    thread_loads: Vec<u64>,
    ports: Vec<PortView>,
    drops: BTreeMap<(String, String, String), u64>,
    fdb: BTreeMap<String, u64>,
    neighbors: BTreeMap<String, u64>,
    connections: Vec<ConnectionCounts>,
    external_ports: Vec<(Labels, u64)>,
    phases: BTreeMap<String, u64>,
    restarts: Vec<(Labels, u64)>,
    services: Vec<(Labels, u64)>,
    endpoints: Vec<(Labels, u64)>,
    balanced: Vec<(Labels, u64)>,
    proxies: Vec<ProxyCounts>,
    name_servers: Vec<NameServerCounts>,
    policies: Vec<PolicyCount>,
    egress: Option<EgressCounts>,
    stalled: u64,
}

/// The text for a cluster as it is now, of whose clients so many have `stalled`.
///
/// # Errors
/// When the data path has stopped.
pub(super) fn text(plane: &Plane, stalled: u64) -> Result<String, RuntimeError> {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Scrape { stalled, ..Scrape::take(plane)? }));
    let mut text = String::new();
    // Writing into a text does not fail.
    let _ = encode(&mut text, &registry);
    Ok(text)
}

fn count(keys: impl Iterator<Item = String>, into: &mut BTreeMap<String, u64>) {
    keys.for_each(|key| *into.entry(key).or_default() += 1);
}

impl Scrape {
    fn take(plane: &Plane) -> Result<Self, RuntimeError> {
        let runtime = plane.runtime();
        let (cluster, statuses) = (runtime.cluster(), plane.statuses());
        let mut scrape =
            Self { uptime: runtime.now().as_secs_f64(), ports: runtime.ports()?, ..Self::default() };
        scrape.thread_loads = runtime.thread_loads();
        for drop in runtime.drops()? {
            *scrape.drops.entry((drop.switch, drop.port, drop.reason)).or_default() += drop.count;
        }
        // A switch that knows nobody is told as 0, and so is a phase that no pod is in.
        for port in &scrape.ports {
            scrape.fdb.entry(port.switch.clone()).or_default();
            scrape.neighbors.entry(port.switch.clone()).or_default();
        }
        count(runtime.fdb()?.into_iter().map(|entry| entry.switch), &mut scrape.fdb);
        count(runtime.neighbors()?.into_iter().map(|entry| entry.switch), &mut scrape.neighbors);
        scrape.connections = runtime.connection_counts()?;
        let uses = runtime.port_uses()?.into_iter().map(|(switch, one)| {
            let address = one.address.to_string();
            let labels =
                vec![("switch", switch), ("address", address), ("protocol", one.protocol.to_owned())];
            (labels, u64::from(one.taken))
        });
        scrape.external_ports = uses.collect();
        scrape.phases = PHASES.iter().map(|phase| (phase.to_string(), 0)).collect();
        for pod in &cluster.pods {
            let status = statuses.get(&pod.place().netns(&cluster.name));
            let phase = status.map_or(Phase::Pending, |status| status.phase);
            *scrape.phases.entry(phase.to_string()).or_default() += 1;
            let containers = status.into_iter().flat_map(|s| s.init_containers.iter().chain(&s.containers));
            scrape.restarts.extend(containers.map(|container| {
                let labels = vec![
                    ("namespace", pod.namespace.clone()),
                    ("pod", pod.name.clone()),
                    ("container", container.name.clone()),
                ];
                (labels, u64::from(container.restarts))
            }));
        }
        if names::pod(&cluster).is_some() {
            *scrape.phases.entry(Phase::Running.to_string()).or_default() += 1;
        }
        scrape.count_services(plane);
        let balanced = runtime.balanced_counts()?.into_iter();
        scrape.balanced = balanced.map(|(switch, count)| (vec![("switch", switch)], count)).collect();
        scrape.proxies = runtime.proxy_counts()?;
        scrape.name_servers = runtime.name_server_counts()?;
        scrape.policies = runtime.policy_counts()?;
        scrape.egress = runtime.egress_counts()?;
        Ok(scrape)
    }

    /// Services by type, endpoints by state.
    fn count_services(&mut self, plane: &Plane) {
        let (mut services, mut endpoints) = (BTreeMap::new(), BTreeMap::new());
        let kinds = [Kind::ClusterIp, Kind::NodePort, Kind::LoadBalancer, Kind::ExternalName];
        services.extend(kinds.map(|kind| (kind.name(), 0u64)));
        endpoints.extend(["ready", "terminating", "not ready"].map(|state| (state, 0u64)));
        let plan = plane.desired().plan;
        plane.services(|controller| {
            for (name, planned) in plan.services.iter() {
                *services.entry(planned.spec.kind.name()).or_default() += 1;
                let served = controller.service(name).into_iter().flat_map(|(_, served)| served);
                for endpoint in served.flat_map(|served| served.endpoints) {
                    *endpoints.entry(services::state(endpoint)).or_default() += 1;
                }
            }
        });
        self.services = services.into_iter().map(|(kind, n)| (vec![("type", kind.to_owned())], n)).collect();
        self.endpoints =
            endpoints.into_iter().map(|(state, n)| (vec![("state", state.to_owned())], n)).collect();
    }
}

impl Collector for Scrape {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let to = &mut encoder;
        to.encode_descriptor("vswitch_build", "What serves.", None, MetricType::Info)?
            .encode_info(&[("version", env!("CARGO_PKG_VERSION"))])?;
        let help = "Time since the data path started.";
        to.encode_descriptor("vswitch_uptime", help, Some(&Unit::Seconds), MetricType::Gauge)?
            .encode_gauge(&self.uptime)?;
        let loads = self.thread_loads.iter().enumerate();
        let loads = loads.map(|(thread, count)| (vec![("thread", thread.to_string())], *count)).collect();
        gauge(to, "vswitch_data_path_switches", "Switches that a thread of the data path turns.", loads)?;
        for (name, unit, help, value) in &PORT_COUNTERS {
            let rows = self.ports.iter().map(|port| {
                (vec![("switch", port.switch.clone()), ("port", port.port.clone())], value(port))
            });
            counter(to, name, help, unit.as_ref(), rows)?;
        }
        let drops = self.drops.iter().map(|((switch, port, reason), count)| {
            let labels = vec![("switch", switch.clone()), ("port", port.clone()), ("reason", reason.clone())];
            (labels, *count)
        });
        counter(to, "vswitch_port_drops", "Frames that were dropped at a port.", None, drops)?;
        let by = |label: &'static str, counts: &BTreeMap<String, u64>| {
            let rows = counts.iter().map(|(key, count)| (vec![(label, key.clone())], *count));
            rows.collect::<Vec<(Labels, u64)>>()
        };
        gauge(to, "vswitch_fdb_entries", "MAC addresses that a switch knows.", by("switch", &self.fdb))?;
        let neighbors = by("switch", &self.neighbors);
        gauge(to, "vswitch_neighbor_entries", "Neighbours that a switch knows.", neighbors)?;
        encode_connections(to, &self.connections)?;
        let help = "Ports of a node's own address that pods are seen with.";
        gauge(to, "vswitch_nat_ports_in_use", help, self.external_ports.clone())?;
        gauge(to, "vswitch_services", "Services by type.", self.services.clone())?;
        let help = "Endpoints of Services' ports, in each family, by state.";
        gauge(to, "vswitch_endpoints", help, self.endpoints.clone())?;
        let help = "Connections that got a backend of a Service; those refused are drops, by reason.";
        counter(to, "vswitch_service_connections", help, None, self.balanced.iter().cloned())?;
        encode_proxies(to, &self.proxies)?;
        encode_name_servers(to, &self.name_servers)?;
        encode_policies(to, &self.policies)?;
        if let Some(egress) = &self.egress {
            encode_egress(to, egress)?;
        }
        gauge(to, "vswitch_pods", "Pods by phase.", by("phase", &self.phases))?;
        let help = "How often a container has been started again.";
        counter(to, "vswitch_container_restarts", help, None, self.restarts.iter().cloned())?;
        let help = "Clients of the control socket that were cut off because they did not read.";
        to.encode_descriptor("vswitch_control_stalled", help, None, MetricType::Counter)?
            .encode_counter(&self.stalled, None::<&Exemplar<Labels, u64>>)
    }
}

/// What is counted of connections: name, meaning, and where it stands.
type ConnectionCounter = (&'static str, &'static str, fn(&ConnectionCounts) -> u64);

const CONNECTION_COUNTERS: [ConnectionCounter; 4] = [
    ("vswitch_connections_opened", "Connections that began.", |c| c.opened),
    ("vswitch_connections_expired", "Connections that ended because they were silent.", |c| c.expired),
    ("vswitch_connections_displaced", "Connections that made room for others in a full table.", |c| {
        c.displaced
    }),
    ("vswitch_connections_invalid", "Packets that belong to no connection and may open none.", |c| c.invalid),
];

fn encode_connections(to: &mut DescriptorEncoder<'_>, all: &[ConnectionCounts]) -> fmt::Result {
    let labels = |c: &ConnectionCounts| vec![("switch", c.switch.clone()), ("family", c.family.to_owned())];
    let now = all.iter().map(|counts| (labels(counts), counts.connections)).collect();
    gauge(to, "vswitch_connections", "Connections that a switch tracks.", now)?;
    for (name, help, value) in CONNECTION_COUNTERS {
        counter(to, name, help, None, all.iter().map(|counts| (labels(counts), value(counts))))?;
    }
    let refused = all.iter().flat_map(|counts| {
        let by_reason = |&(reason, count): &(&'static str, u64)| {
            ([labels(counts), vec![("reason", reason.to_owned())]].concat(), count)
        };
        counts.refused.iter().map(by_reason).collect::<Vec<_>>()
    });
    counter(to, "vswitch_connections_refused", "Connections that could not begin.", None, refused)
}

/// What is counted of a proxy: name, unit, meaning, and where it stands.
type ProxyCounter = (&'static str, Option<Unit>, &'static str, fn(&ProxyCounters) -> u64);

const PROXY_COUNTERS: [ProxyCounter; 7] = [
    ("vswitch_proxy_accepted", None, "TCP connections that a service proxy took.", |c| c.accepted),
    ("vswitch_proxy_refused", None, "Those that ended because no backend could be reached.", |c| c.refused),
    ("vswitch_proxy_retried", None, "Other backends tried after one could not be reached.", |c| c.retried),
    ("vswitch_proxy_tcp", Some(Unit::Bytes), "Octets carried over TCP, both ways.", |c| c.octets),
    ("vswitch_proxy_datagrams", None, "Datagrams carried, both ways.", |c| c.datagrams),
    ("vswitch_proxy_datagrams_dropped", None, "Datagrams without a backend, or too long.", |c| {
        c.datagrams_dropped
    }),
    ("vswitch_proxy_displaced", None, "Clients of UDP that made room for others.", |c| c.displaced),
];

fn encode_proxies(to: &mut DescriptorEncoder<'_>, all: &[ProxyCounts]) -> fmt::Result {
    let labels = |proxy: &ProxyCounts| vec![("node", proxy.node.clone())];
    let carried = all.iter().flat_map(|proxy| {
        let (tcp, udp) = proxy.carried;
        let row = |protocol: &str, count| {
            ([labels(proxy), vec![("protocol", protocol.to_owned())]].concat(), count as u64)
        };
        [row("TCP", tcp), row("UDP", udp)]
    });
    let help = "Connections and clients of UDP that a service proxy carries.";
    gauge(to, "vswitch_proxy_clients", help, carried.collect())?;
    for (name, unit, help, value) in &PROXY_COUNTERS {
        let rows = all.iter().map(|proxy| (labels(proxy), value(&proxy.counters)));
        counter(to, name, help, unit.as_ref(), rows)?;
    }
    Ok(())
}

fn encode_name_servers(to: &mut DescriptorEncoder<'_>, all: &[NameServerCounts]) -> fmt::Result {
    let labels = |server: &NameServerCounts| vec![("node", server.node.clone())];
    let answers = all.iter().flat_map(|server| {
        let answers = server.counters.queries.answers.iter().map(|((kind, code), count)| {
            let how = vec![("type", kind.name().to_owned()), ("rcode", code.name().to_owned())];
            ([labels(server), how].concat(), *count)
        });
        answers.collect::<Vec<_>>()
    });
    counter(to, "vswitch_dns_responses", "Answers of a name server, by what was asked.", None, answers)?;
    let requests = all.iter().flat_map(|server| {
        let row = |(protocol, count): (&str, u64)| {
            ([labels(server), vec![("protocol", protocol.to_owned())]].concat(), count)
        };
        ["UDP", "TCP"].into_iter().zip(server.counters.asked).map(row).collect::<Vec<_>>()
    });
    counter(to, "vswitch_dns_requests", "Messages that a name server received.", None, requests)?;
    let help = "Clients that are connected to a name server.";
    let connected = all.iter().map(|server| (labels(server), server.connected as u64)).collect();
    gauge(to, "vswitch_dns_clients", help, connected)?;
    for (name, help, value) in NAME_SERVER_COUNTERS {
        counter(to, name, help, None, all.iter().map(|server| (labels(server), value(&server.counters))))?;
    }
    let help = "How long clients of a name server waited, from when their questions came in.";
    let kind = MetricType::Histogram;
    let mut family = to.encode_descriptor("vswitch_dns_response", help, Some(&Unit::Seconds), kind)?;
    for server in all {
        let waits = &server.counters.latencies;
        let bounds = BOUNDS.iter().map(|micros| Duration::from_micros(*micros).as_secs_f64());
        let buckets: Vec<(f64, u64)> = bounds.chain([f64::INFINITY]).zip(waits.counts).collect();
        let (labels, none) = (labels(server), None::<&HashMap<usize, Exemplar<Labels, f64>>>);
        let sum = waits.sum.as_secs_f64();
        family.encode_family(&labels)?.encode_histogram(sum, waits.count(), &buckets, none)?;
    }
    Ok(())
}

/// What else is counted of a name server: name, meaning, and where it stands.
type NameServerCounter = (&'static str, &'static str, fn(&NameServerCounters) -> u64);

const NAME_SERVER_COUNTERS: [NameServerCounter; 6] = [
    ("vswitch_dns_truncated", "Answers cut to what fits a datagram.", |c| c.queries.truncated),
    ("vswitch_dns_ignored", "Messages that are no queries, and were not answered.", |c| c.queries.ignored),
    ("vswitch_dns_foreign", "Queries about names that are not the cluster's.", |c| c.queries.foreign),
    ("vswitch_dns_idle", "Clients that were let go because they were silent.", |c| c.idle),
    ("vswitch_dns_unsent", "Answers that could not be sent.", |c| c.unsent),
    ("vswitch_dns_unlogged", "Queries that the log could not take.", |c| c.unlogged),
];

/// What holds without a policy has the label `default`.
fn encode_policies(to: &mut DescriptorEncoder<'_>, all: &[PolicyCount]) -> fmt::Result {
    let labels = |(switch, policy, _): &PolicyCount| {
        vec![("switch", switch.clone()), ("policy", policy.as_deref().unwrap_or("default").to_owned())]
    };
    let help = "Packets that a policy has stopped.";
    counter(to, "vswitch_policy_drops", help, None, all.iter().map(|one| (labels(one), one.2.dropped)))?;
    let help = "Connections that a policy would have stopped if it were enforced.";
    counter(to, "vswitch_policy_audited", help, None, all.iter().map(|one| (labels(one), one.2.audited)))
}

/// What is counted of the way out: name, unit, meaning, and where it stands.
type EgressCounter = (&'static str, &'static str, fn(&EdgeCounters) -> u64);

const EGRESS_COUNTERS: [EgressCounter; 9] = [
    ("vswitch_egress_asked", "Connections to the outside that were asked for.", |c| c.asked),
    ("vswitch_egress_established", "Those that came to stand.", |c| c.established),
    ("vswitch_egress_refused", "Those that the outside refused, for whatever reason.", |c| c.refused),
    ("vswitch_egress_reset_by_pods", "Connections that were broken off inside.", |c| c.reset_by_pods),
    ("vswitch_egress_reset_by_outside", "Connections that were broken off outside.", |c| c.reset_by_outside),
    ("vswitch_egress_given_up", "Connections whose inside did not answer any more.", |c| c.given_up),
    ("vswitch_egress_retransmitted", "Segments that were sent to the inside again.", |c| c.retransmitted),
    ("vswitch_egress_displaced", "Flows of UDP and echo that made room for others.", |c| c.displaced),
    ("vswitch_egress_errors", "Errors that the inside was told of by ICMP.", |c| c.errors),
];

fn encode_egress(to: &mut DescriptorEncoder<'_>, egress: &EgressCounts) -> fmt::Result {
    let (connections, messages) = egress.carried;
    let flows = [("connections", connections), ("messages", messages)];
    let flows = flows.map(|(kind, count)| (vec![("kind", kind.to_owned())], count as u64)).to_vec();
    gauge(to, "vswitch_egress_flows", "Flows to the outside that are carried.", flows)?;
    let help = "Octets from pods that sockets have not taken yet.";
    to.encode_descriptor("vswitch_egress_held", help, Some(&Unit::Bytes), MetricType::Gauge)?
        .encode_gauge(&(egress.held as u64))?;
    for (name, help, value) in EGRESS_COUNTERS {
        to.encode_descriptor(name, help, None, MetricType::Counter)?
            .encode_counter(&value(&egress.counters), None::<&Exemplar<Labels, u64>>)?;
    }
    let both = |counts: [u64; 2]| {
        ["out", "in"].into_iter().zip(counts).map(|(way, n)| (vec![("direction", way.to_owned())], n))
    };
    let octets = both(egress.counters.octets);
    counter(to, "vswitch_egress_tcp", "Octets carried over TCP.", Some(&Unit::Bytes), octets)?;
    let messages = both(egress.counters.messages);
    counter(to, "vswitch_egress_messages", "Datagrams and echo messages carried.", None, messages)?;
    let drops = EdgeDrop::ALL
        .iter()
        .map(|reason| (vec![("reason", reason.name().to_owned())], egress.counters.dropped(*reason)));
    counter(to, "vswitch_egress_drops", "What went no further on the way out.", None, drops)
}

fn counter(
    to: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    unit: Option<&Unit>,
    rows: impl IntoIterator<Item = (Labels, u64)>,
) -> fmt::Result {
    let mut family = to.encode_descriptor(name, help, unit, MetricType::Counter)?;
    rows.into_iter().try_for_each(|(labels, value)| {
        family.encode_family(&labels)?.encode_counter(&value, None::<&Exemplar<Labels, u64>>)
    })
}

fn gauge(to: &mut DescriptorEncoder<'_>, name: &str, help: &str, rows: Vec<(Labels, u64)>) -> fmt::Result {
    let mut family = to.encode_descriptor(name, help, None, MetricType::Gauge)?;
    rows.into_iter().try_for_each(|(labels, value)| family.encode_family(&labels)?.encode_gauge(&value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::names::Latencies;

    #[test]
    fn what_leaves_the_cluster_is_told_if_there_is_a_way_out() {
        let mut counters = EdgeCounters::default();
        (counters.octets, counters.messages) = ([1, 2], [3, 4]);
        (counters.asked, counters.errors) = (5, 6);
        let egress = Some(EgressCounts { counters, carried: (7, 8), held: 9 });
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Scrape { egress, ..Scrape::default() }));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            r#"vswitch_egress_flows{kind="connections"} 7"#,
            r#"vswitch_egress_flows{kind="messages"} 8"#,
            "vswitch_egress_held_bytes 9",
            "vswitch_egress_asked_total 5",
            "vswitch_egress_errors_total 6",
            r#"vswitch_egress_tcp_bytes_total{direction="out"} 1"#,
            r#"vswitch_egress_tcp_bytes_total{direction="in"} 2"#,
            r#"vswitch_egress_messages_total{direction="out"} 3"#,
            r#"vswitch_egress_messages_total{direction="in"} 4"#,
            r#"vswitch_egress_drops_total{reason="prohibited"} 0"#,
        ] {
            assert!(text.lines().any(|other| other == line), "{line} is not in\n{text}");
        }
    }

    #[test]
    fn each_number_stands_under_its_own_name() {
        let port = serde_json::from_value(json!({
            "switch": "s", "thread": 1, "port": "p", "id": 1, "segments": [], "station": "foreign", "mac": null, "addresses": [],
            "offload": [], "state": "up", "rx_frames": 1, "rx_bytes": 2, "tx_frames": 3, "tx_bytes": 4, "drops": 5, "storm_drops": 0,
        }));
        let restarts =
            vec![("namespace", "n".to_owned()), ("pod", "p".to_owned()), ("container", "c".to_owned())];
        let scrape = Scrape {
            uptime: 1.5,
            thread_loads: vec![32, 33],
            ports: vec![port.unwrap()],
            drops: BTreeMap::from([(("s".into(), "p".into(), "storm".into()), 5)]),
            fdb: BTreeMap::from([("s".into(), 6)]),
            neighbors: BTreeMap::from([("s".into(), 7)]),
            connections: vec![ConnectionCounts {
                switch: "s".into(),
                family: "ipv4",
                connections: 11,
                opened: 12,
                expired: 13,
                displaced: 14,
                invalid: 15,
                refused: [("table_full", 16), ("ports", 17), ("clash", 18)],
            }],
            external_ports: vec![(vec![("address", "10.0.0.1".to_owned())], 19)],
            phases: BTreeMap::from([("Running".into(), 8)]),
            restarts: vec![(restarts, 9)],
            services: vec![(vec![("type", "NodePort".to_owned())], 20)],
            endpoints: vec![(vec![("state", "ready".to_owned())], 21)],
            balanced: vec![(vec![("switch", "s".to_owned())], 22)],
            proxies: vec![ProxyCounts {
                node: "s".into(),
                counters: ProxyCounters {
                    accepted: 23,
                    refused: 24,
                    retried: 25,
                    octets: 26,
                    datagrams: 27,
                    datagrams_dropped: 28,
                    displaced: 29,
                },
                carried: (30, 31),
            }],
            name_servers: vec![NameServerCounts {
                node: "s".into(),
                counters: NameServerCounters {
                    queries: dns::Counters {
                        answers: BTreeMap::from([((dns::QueryType::A, dns::Code::NxDomain), 34)]),
                        truncated: 35,
                        ignored: 36,
                        foreign: 37,
                    },
                    asked: [38, 39],
                    idle: 40,
                    unsent: 41,
                    unlogged: 44,
                    latencies: Latencies {
                        counts: [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2],
                        sum: Duration::from_secs(12),
                    },
                },
                connected: 42,
            }],
            policies: vec![
                (
                    "s".into(),
                    Some("NetworkPolicy a/b".into()),
                    netstack::switch::PolicyCounters { dropped: 43, audited: 44 },
                ),
                ("s".into(), None, netstack::switch::PolicyCounters { dropped: 45, audited: 46 }),
            ],
            egress: None,
            stalled: 10,
        };
        let mut registry = Registry::default();
        registry.register_collector(Box::new(scrape));
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        let is_between = |line: &str| {
            let bucket = line.split_once("le=\"").and_then(|(_, rest)| rest.split_once('"'));
            bucket.is_some_and(|(bound, _)| !["5e-5", "0.00005", "+Inf"].contains(&bound))
        };
        let samples = text.lines().filter(|line| !line.starts_with('#') && !is_between(line));
        let samples: Vec<&str> = samples.skip(1).collect();
        assert_eq!(
            samples,
            [
                "vswitch_uptime_seconds 1.5",
                r#"vswitch_data_path_switches{thread="0"} 32"#,
                r#"vswitch_data_path_switches{thread="1"} 33"#,
                r#"vswitch_port_receive_frames_total{switch="s",port="p"} 1"#,
                r#"vswitch_port_receive_bytes_total{switch="s",port="p"} 2"#,
                r#"vswitch_port_transmit_frames_total{switch="s",port="p"} 3"#,
                r#"vswitch_port_transmit_bytes_total{switch="s",port="p"} 4"#,
                r#"vswitch_port_drops_total{switch="s",port="p",reason="storm"} 5"#,
                r#"vswitch_fdb_entries{switch="s"} 6"#,
                r#"vswitch_neighbor_entries{switch="s"} 7"#,
                r#"vswitch_connections{switch="s",family="ipv4"} 11"#,
                r#"vswitch_connections_opened_total{switch="s",family="ipv4"} 12"#,
                r#"vswitch_connections_expired_total{switch="s",family="ipv4"} 13"#,
                r#"vswitch_connections_displaced_total{switch="s",family="ipv4"} 14"#,
                r#"vswitch_connections_invalid_total{switch="s",family="ipv4"} 15"#,
                r#"vswitch_connections_refused_total{switch="s",family="ipv4",reason="table_full"} 16"#,
                r#"vswitch_connections_refused_total{switch="s",family="ipv4",reason="ports"} 17"#,
                r#"vswitch_connections_refused_total{switch="s",family="ipv4",reason="clash"} 18"#,
                r#"vswitch_nat_ports_in_use{address="10.0.0.1"} 19"#,
                r#"vswitch_services{type="NodePort"} 20"#,
                r#"vswitch_endpoints{state="ready"} 21"#,
                r#"vswitch_service_connections_total{switch="s"} 22"#,
                r#"vswitch_proxy_clients{node="s",protocol="TCP"} 30"#,
                r#"vswitch_proxy_clients{node="s",protocol="UDP"} 31"#,
                r#"vswitch_proxy_accepted_total{node="s"} 23"#,
                r#"vswitch_proxy_refused_total{node="s"} 24"#,
                r#"vswitch_proxy_retried_total{node="s"} 25"#,
                r#"vswitch_proxy_tcp_bytes_total{node="s"} 26"#,
                r#"vswitch_proxy_datagrams_total{node="s"} 27"#,
                r#"vswitch_proxy_datagrams_dropped_total{node="s"} 28"#,
                r#"vswitch_proxy_displaced_total{node="s"} 29"#,
                r#"vswitch_dns_responses_total{node="s",type="A",rcode="NXDOMAIN"} 34"#,
                r#"vswitch_dns_requests_total{node="s",protocol="UDP"} 38"#,
                r#"vswitch_dns_requests_total{node="s",protocol="TCP"} 39"#,
                r#"vswitch_dns_clients{node="s"} 42"#,
                r#"vswitch_dns_truncated_total{node="s"} 35"#,
                r#"vswitch_dns_ignored_total{node="s"} 36"#,
                r#"vswitch_dns_foreign_total{node="s"} 37"#,
                r#"vswitch_dns_idle_total{node="s"} 40"#,
                r#"vswitch_dns_unsent_total{node="s"} 41"#,
                r#"vswitch_dns_unlogged_total{node="s"} 44"#,
                r#"vswitch_dns_response_seconds_sum{node="s"} 12.0"#,
                r#"vswitch_dns_response_seconds_count{node="s"} 3"#,
                r#"vswitch_dns_response_seconds_bucket{le="0.00005",node="s"} 1"#,
                r#"vswitch_dns_response_seconds_bucket{le="+Inf",node="s"} 3"#,
                r#"vswitch_policy_drops_total{switch="s",policy="NetworkPolicy a/b"} 43"#,
                r#"vswitch_policy_drops_total{switch="s",policy="default"} 45"#,
                r#"vswitch_policy_audited_total{switch="s",policy="NetworkPolicy a/b"} 44"#,
                r#"vswitch_policy_audited_total{switch="s",policy="default"} 46"#,
                r#"vswitch_pods{phase="Running"} 8"#,
                r#"vswitch_container_restarts_total{namespace="n",pod="p",container="c"} 9"#,
                "vswitch_control_stalled_total 10",
            ]
        );
    }
}
