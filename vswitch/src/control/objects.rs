//! Objects as Kubernetes shows them: what is wanted, with what became of it as `status`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use manifest::{Key, Object};
use serde_json::{Map, Value as Json, json};

use super::plane::{Desired, Plane};
use super::{names, services};
use crate::cluster::{Cluster, Node, Pod, Replacement};
use crate::container::{ContainerState, ContainerStatus, PodStatus};

/// A kind of which objects can be listed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Listed {
    /// Pods, those of Deployments included.
    Pods,
    /// Nodes.
    Nodes,
    /// Namespaces that are declared or have pods.
    Namespaces,
    /// Deployments.
    Deployments,
    /// The one Cluster.
    Clusters,
    /// Services, with what they were given.
    Services,
    /// The endpoints of each Service in one object.
    Endpoints,
    /// EndpointSlices: those given, and those of the Services that select pods.
    EndpointSlices,
    /// Address pools of load balancers.
    Pools,
    /// Which nodes announce them.
    Advertisements,
}

impl Listed {
    /// The names in `/v1/objects/NAME`.
    pub const NAMES: [(&'static str, Self); 10] = [
        ("pods", Self::Pods),
        ("nodes", Self::Nodes),
        ("namespaces", Self::Namespaces),
        ("deployments", Self::Deployments),
        ("clusters", Self::Clusters),
        ("services", Self::Services),
        ("endpoints", Self::Endpoints),
        ("endpointslices", Self::EndpointSlices),
        ("ipaddresspools", Self::Pools),
        ("l2advertisements", Self::Advertisements),
    ];

    /// By the name in `/v1/objects/NAME`.
    pub fn by_name(name: &str) -> Option<Self> {
        Self::NAMES.iter().find(|(known, _)| *known == name).map(|&(_, kind)| kind)
    }
}

/// All objects of a kind, in order of namespace and name.
pub fn list(plane: &Plane, kind: Listed) -> Vec<Json> {
    let (desired, cluster) = (plane.desired(), plane.runtime().cluster());
    let statuses = plane.statuses();
    match kind {
        Listed::Pods => {
            let mut pods: Vec<&Pod> = cluster.pods.iter().collect();
            pods.sort_by_key(|pod| pod.place());
            let own = pods.into_iter().map(|pod| pod_object(&desired, &cluster, pod, &statuses));
            own.chain(names::pod(&cluster)).collect()
        }
        Listed::Nodes => cluster.nodes.iter().map(|node| node_object(&desired, node)).collect(),
        Listed::Namespaces => namespaces(&desired, &cluster),
        Listed::Deployments => deployments(&desired, &cluster, &statuses),
        Listed::Clusters => of_kind(&desired, "Cluster").collect(),
        Listed::Services => services::services(plane),
        Listed::Endpoints => services::endpoints(plane),
        Listed::EndpointSlices => services::endpoint_slices(plane),
        Listed::Pools => of_kind(&desired, "IPAddressPool").collect(),
        Listed::Advertisements => of_kind(&desired, "L2Advertisement").collect(),
    }
}

fn of_kind(desired: &Desired, kind: &'static str) -> impl Iterator<Item = Json> {
    desired.store.of_kind(kind).filter_map(|located| located.object.to_json().ok())
}

pub(super) fn wanted(desired: &Desired, kind: &'static str, namespace: &str, name: &str) -> Option<Json> {
    let key = Key { kind, namespace: namespace.to_owned(), name: name.to_owned() };
    desired.store.get(&key)?.object.to_json().ok()
}

/// Puts fields into a mapping inside an object, which is made if it is not there.
pub(super) fn set(object: &mut Json, field: &str, values: Json) {
    let (Some(object), Json::Object(values)) = (object.as_object_mut(), values) else { return };
    let inner = object.entry(field).or_insert_with(|| Json::Object(Map::new()));
    if let Some(inner) = inner.as_object_mut() {
        inner.extend(values);
    }
}

fn pod_object(
    desired: &Desired,
    cluster: &Cluster,
    pod: &Pod,
    statuses: &BTreeMap<String, PodStatus>,
) -> Json {
    let mut object = wanted(desired, "Pod", &pod.namespace, &pod.name).unwrap_or_else(|| {
        let spec = manifest::pod_spec_json(&pod.spec);
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"labels": pod.labels}, "spec": spec})
    });
    set(&mut object, "metadata", json!({"name": pod.name, "namespace": pod.namespace}));
    set(&mut object, "spec", json!({"nodeName": pod.node}));
    let ips: Vec<Json> = pod.addresses.iter().map(|ip| json!({"ip": ip})).collect();
    let node = cluster.nodes.iter().find(|node| node.name == pod.node);
    let status = statuses.get(&pod.place().netns(&cluster.name));
    let ready = status.is_some_and(|status| status.ready);
    let mut told = json!({
        "phase": status.map_or_else(|| "Pending".to_owned(), |status| status.phase.to_string()),
        "podIPs": ips,
        "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
    });
    let containers = |list: &[ContainerStatus]| list.iter().map(container_status).collect::<Vec<Json>>();
    if let (Some(status), Some(told)) = (status, told.as_object_mut()) {
        told.insert("containerStatuses".to_owned(), containers(&status.containers).into());
        if !status.init_containers.is_empty() {
            told.insert("initContainerStatuses".to_owned(), containers(&status.init_containers).into());
        }
        told.insert("reason".to_owned(), status.summary().into());
    }
    if let (Some(ip), Some(told)) = (pod.addresses.first(), told.as_object_mut()) {
        told.insert("podIP".to_owned(), json!(ip));
        told.insert("hostIP".to_owned(), json!(node.and_then(|node| node.addresses.first())));
    }
    set(&mut object, "status", told);
    object
}

fn container_status(status: &ContainerStatus) -> Json {
    let state = |state: &ContainerState| match state {
        ContainerState::Waiting { reason, message } => {
            json!({"waiting": {"reason": reason, "message": message}})
        }
        ContainerState::Running { since } => json!({"running": {"startedAt": time(*since)}}),
        ContainerState::Terminated(ended) => json!({"terminated": terminated(ended)}),
    };
    json!({
        "name": status.name,
        "image": status.image,
        "ready": status.ready,
        "started": status.started,
        "restartCount": status.restarts,
        "state": state(&status.state),
        "lastState": status.last.as_ref().map_or_else(|| json!({}), |ended| json!({"terminated": terminated(ended)})),
        "message": status.complaint,
    })
}

fn terminated(ended: &crate::container::Ended) -> Json {
    json!({
        "exitCode": ended.code,
        "reason": ended.reason,
        "message": ended.message,
        "startedAt": time(ended.started),
        "finishedAt": time(ended.at),
    })
}

/// A time since the Unix epoch as Kubernetes writes it (RFC 3339), in UTC.
fn time(since_epoch: Duration) -> Json {
    let seconds = i64::try_from(since_epoch.as_secs()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_second(seconds).map_or(Json::Null, |time| time.to_string().into())
}

fn node_object(desired: &Desired, node: &Node) -> Json {
    let mut object = wanted(desired, "Node", "", &node.name)
        .unwrap_or_else(|| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node.name}}));
    let cidrs: Vec<String> = node.gateways.iter().map(|gateway| gateway.trunc().to_string()).collect();
    set(&mut object, "spec", json!({"podCIDR": cidrs.first(), "podCIDRs": cidrs}));
    let addresses = node.addresses.iter().map(|address| json!({"type": "InternalIP", "address": address}));
    let hostname = json!({"type": "Hostname", "address": node.name});
    let addresses: Vec<Json> = addresses.chain([hostname]).collect();
    let status = json!({
        "addresses": addresses,
        "conditions": [{"type": "Ready", "status": "True"}],
        "segment": node.segment,
    });
    set(&mut object, "status", status);
    object
}

fn namespaces(desired: &Desired, cluster: &Cluster) -> Vec<Json> {
    let mut all: BTreeMap<String, Json> = BTreeMap::new();
    let names = cluster.pods.iter().map(|pod| pod.namespace.clone()).chain(["default".to_owned()]);
    for name in names {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        all.insert(name, object);
    }
    for located in desired.store.of_kind("Namespace") {
        if let (Object::Namespace(namespace), Ok(json)) = (&located.object, located.object.to_json()) {
            all.insert(namespace.metadata.name.clone().unwrap_or_default(), json);
        }
    }
    for object in all.values_mut() {
        set(object, "status", json!({"phase": "Active"}));
    }
    all.into_values().collect()
}

fn deployments(desired: &Desired, cluster: &Cluster, statuses: &BTreeMap<String, PodStatus>) -> Vec<Json> {
    let mut all = Vec::new();
    for located in desired.store.of_kind("Deployment") {
        let (Object::Deployment(deployment), Ok(mut json)) = (&located.object, located.object.to_json())
        else {
            continue;
        };
        let key = located.object.key();
        let replicas = deployment.spec.replicas.unwrap_or(1);
        let places = (0..replicas).map(|index| crate::cluster::Place::Pod {
            namespace: key.namespace.clone(),
            name: format!("{}-{index}", key.name),
        });
        let ready = |place: &crate::cluster::Place| {
            statuses.get(&place.netns(&cluster.name)).is_some_and(|s| s.ready)
        };
        let ready = places.filter(ready).count();
        let template = deployment.spec.template.spec.as_ref();
        let of_this = |pod: &&Pod| {
            let name = |r: &Arc<Replacement>| r.deployment == format!("{}/{}", key.namespace, key.name);
            pod.replacement.as_ref().is_some_and(name)
        };
        let updated = cluster.pods.iter().filter(of_this).filter(|pod| template == Some(&*pod.spec)).count();
        set(&mut json, "metadata", json!({"namespace": key.namespace}));
        set(
            &mut json,
            "status",
            json!({
                "replicas": replicas,
                "updatedReplicas": updated,
                "readyReplicas": ready,
                "availableReplicas": ready,
            }),
        );
        all.push(json);
    }
    all
}
