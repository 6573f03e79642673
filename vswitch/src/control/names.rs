//! The name server as Kubernetes would show it, and what it serves.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::api::LogView;
use super::plane::Plane;
use crate::cluster::{Cluster, Place};
use crate::names::{NAME, NAMESPACE, PORT};
use crate::state::StatePaths;

/// The only container of its pod.
const CONTAINER: &str = "dns";

/// One record of the zone as it is served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NameView {
    /// The name.
    pub name: String,
    /// For how many seconds an answer is believed.
    pub ttl: u32,
    /// The type.
    #[serde(rename = "type")]
    pub kind: String,
    /// What it says, as in a master file.
    pub data: String,
}

/// Every record, in order of names.
pub(super) fn names(plane: &Plane) -> Vec<NameView> {
    let zone = plane.balancing.zone();
    let records = zone.iter().flat_map(|zone| zone.records());
    let view = |(name, data): (&dns::DomainName, &dns::Data)| {
        let text = data.to_string();
        let (kind, data) = text.split_once(' ').unwrap_or((&text, ""));
        NameView { name: name.to_string(), ttl: dns::TTL, kind: kind.to_owned(), data: data.to_owned() }
    };
    records.map(view).collect()
}

fn labels() -> Json {
    json!({"k8s-app": NAME})
}

/// Its Service, if there is one.
pub(super) fn service(cluster: &Cluster) -> Option<Json> {
    let addresses = &cluster.services.names.servers;
    let families = addresses.iter().map(|a| if a.is_ipv4() { "IPv4" } else { "IPv6" });
    let families: Vec<&str> = families.collect();
    let port = |name: &str, protocol: &str| json!({"name": name, "protocol": protocol, "port": PORT, "targetPort": PORT});
    (!addresses.is_empty()).then(|| {
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"namespace": NAMESPACE, "name": NAME, "labels": labels()},
            "spec": {
                "type": "ClusterIP",
                "clusterIP": addresses[0],
                "clusterIPs": addresses,
                "ipFamilies": families,
                "selector": {"k8s-app": NAME},
                "ports": [port("dns", "UDP"), port("dns-tcp", "TCP")],
            },
        })
    })
}

/// Whether this is the pod that the name server shows itself as.
pub(super) fn is_name_server(cluster: &Cluster, place: &Place) -> bool {
    let own = Place::Pod { namespace: NAMESPACE.to_owned(), name: NAME.to_owned() };
    *place == own && !cluster.services.names.servers.is_empty()
}

/// Where it logs what it is asked, if it does.
pub(super) fn log(state: &StatePaths) -> LogView {
    LogView { container: CONTAINER.to_owned(), path: state.query_log() }
}

/// Its pod, if there is one: it is on every node, and has no namespace to be entered.
pub(super) fn pod(cluster: &Cluster) -> Option<Json> {
    let addresses = &cluster.services.names.servers;
    let ips: Vec<Json> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
    let ports = json!([
        {"name": "dns", "protocol": "UDP", "containerPort": PORT},
        {"name": "dns-tcp", "protocol": "TCP", "containerPort": PORT},
    ]);
    (!addresses.is_empty()).then(|| {
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"namespace": NAMESPACE, "name": NAME, "labels": labels()},
            "spec": {"containers": [{"name": CONTAINER, "image": "vswitch/dns", "ports": ports}]},
            "status": {
                "phase": "Running",
                "podIP": addresses[0],
                "podIPs": ips,
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [{
                    "name": CONTAINER,
                    "ready": true,
                    "restartCount": 0,
                    "state": {"running": {}},
                }],
            },
        })
    })
}
