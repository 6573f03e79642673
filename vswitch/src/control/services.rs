//! Services and endpoints as Kubernetes shows them, and what nodes make of them.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use manifest::Key;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json, json};

use super::names;
use super::objects::set;
use super::plane::Plane;
use crate::runtime::{Balanced, RuntimeError};
use crate::service::{Controller, Endpoint, Kind, Planned, PortEndpoints};

/// A Service with one of its ports in one family, as nodes balance it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BalancedView {
    /// `NAMESPACE/NAME`.
    pub service: String,
    /// The port's name, or its number.
    pub port: String,
    /// `TCP`, `UDP` or `SCTP`.
    pub protocol: String,
    /// `IPv4` or `IPv6`.
    pub family: String,
    /// How backends are selected.
    pub policy: String,
    /// For how long a client comes back to the same backend.
    pub affinity_seconds: Option<u64>,
    /// What each node makes of it.
    pub nodes: Vec<BalancingNodeView>,
    /// Its endpoints.
    pub endpoints: Vec<EndpointView>,
    /// Why a node does not translate for it.
    pub problem: Option<String>,
}

/// What one node makes of a Service's port.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BalancingNodeView {
    /// The node.
    pub node: String,
    /// Where it can be asked there.
    pub frontends: Vec<String>,
    /// Slots of the table that pods' connections are selected by.
    pub table_size: Option<u32>,
    /// Clients that come back to a backend.
    pub affinities: Vec<AffinityView>,
}

/// A client that comes back to a backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AffinityView {
    /// The client.
    pub client: IpAddr,
    /// The backend.
    pub backend: String,
    /// For how long, unless it opens another connection.
    pub left_seconds: u64,
}

/// An endpoint, and how much of a Service it has.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EndpointView {
    /// Address and port.
    pub endpoint: String,
    /// The pod, if it is known.
    pub pod: Option<String>,
    /// The node it is on.
    pub node: Option<String>,
    /// Its zone.
    pub zone: Option<String>,
    /// `ready`, `not ready`, `terminating`.
    pub state: String,
    /// Its weight.
    pub weight: u32,
    /// By node: of pods' new connections it gets so many of so many.
    pub shares: BTreeMap<String, (u64, u64)>,
    /// By node: connections to it that the node tracks.
    pub connections: BTreeMap<String, u64>,
}

/// How an endpoint's condition is called.
pub(super) fn state(endpoint: &Endpoint) -> &'static str {
    match (endpoint.condition.terminating, endpoint.condition.ready) {
        (true, _) => "terminating",
        (false, true) => "ready",
        (false, false) => "not ready",
    }
}

/// What nodes make of a Service, `NAMESPACE/NAME`; `None` if it does not exist.
///
/// # Errors
/// When the data path has stopped.
pub(super) fn balanced(plane: &Plane, service: &str) -> Result<Option<Vec<BalancedView>>, RuntimeError> {
    let names = plane.services(|controller| {
        let (_, served) = controller.service(service)?;
        Some(served.iter().map(|served| Arc::clone(served.name)).collect::<Vec<_>>())
    });
    let Some(names) = names else { return Ok(None) };
    let done = plane.runtime().balanced(&names)?;
    let mut problems = plane.balancing.unheard();
    let views = plane.services(|controller| {
        problems.extend(controller.conflicts().clone());
        let (planned, served) = controller.service(service)?;
        let view = |served: &PortEndpoints<'_>| BalancedView {
            problem: problems.get(served.name).cloned(),
            ..view(controller, planned, served, &done)
        };
        Some(served.iter().map(view).collect())
    });
    Ok(views)
}

fn view(
    controller: &Controller,
    planned: &Planned,
    served: &PortEndpoints<'_>,
    done: &[Balanced],
) -> BalancedView {
    let PortEndpoints { name, family, port, endpoints } = *served;
    let spec = &planned.spec;
    let mut view = BalancedView {
        service: spec.full_name(),
        port: if port.name.is_empty() { port.port.to_string() } else { port.name.clone() },
        protocol: port.protocol.name().to_owned(),
        family: family.name().to_owned(),
        policy: format!("{:?}", spec.policy).to_lowercase(),
        affinity_seconds: spec.affinity.map(|time| time.as_secs()),
        nodes: Vec::new(),
        endpoints: endpoints.iter().map(endpoint_view).collect(),
        problem: None,
    };
    for (node, registry) in controller.registries() {
        let Some(service) = registry.get(name) else { continue };
        let done = done.iter().find(|done| *done.switch == **node);
        let inside = service.entrances.first().map(|entrance| &entrance.ways[0].pool);
        let shares: BTreeMap<String, (u64, u64)> = inside
            .iter()
            .flat_map(|pool| pool.shares())
            .map(|s| (SocketAddr::new(s.backend.address, s.backend.port).to_string(), (s.parts, s.of)))
            .collect();
        for endpoint in &mut view.endpoints {
            if let Some(share) = shares.get(&endpoint.endpoint) {
                endpoint.shares.insert(node.to_string(), *share);
            }
        }
        for ((_, backend), count) in
            done.iter().flat_map(|d| &d.connections).filter(|((of, _), _)| of == name)
        {
            let backend = SocketAddr::from(*backend).to_string();
            if let Some(endpoint) = view.endpoints.iter_mut().find(|e| e.endpoint == backend) {
                endpoint.connections.insert(node.to_string(), *count);
            }
        }
        let affinities =
            done.iter().flat_map(|d| &d.affinities).filter(|(affinity, _)| affinity.service == *name);
        let frontends =
            service.entrances.iter().map(|e| SocketAddr::new(e.frontend.address, e.frontend.port));
        view.nodes.push(BalancingNodeView {
            node: node.to_string(),
            frontends: frontends.map(|at| at.to_string()).collect(),
            table_size: inside.and_then(|pool| pool.table_size()),
            affinities: affinities.map(|(affinity, left)| affinity_view(affinity, *left)).collect(),
        });
    }
    view
}

fn affinity_view(affinity: &lb::Affinity, left: std::time::Duration) -> AffinityView {
    let backend = SocketAddr::from(affinity.backend).to_string();
    AffinityView { client: affinity.client, backend, left_seconds: left.as_secs() }
}

fn endpoint_view(endpoint: &Endpoint) -> EndpointView {
    let text = |shared: &Option<Arc<str>>| shared.as_deref().map(str::to_owned);
    EndpointView {
        endpoint: SocketAddr::new(endpoint.address, endpoint.port).to_string(),
        pod: text(&endpoint.pod),
        node: text(&endpoint.node),
        zone: text(&endpoint.zone),
        state: state(endpoint).to_owned(),
        weight: endpoint.weight,
        shares: BTreeMap::new(),
        connections: BTreeMap::new(),
    }
}

/// The Services, each with what it was given.
pub(super) fn services(plane: &Plane) -> Vec<Json> {
    let desired = plane.desired();
    let mut all = Vec::new();
    for located in desired.store.of_kind("Service") {
        let key = located.object.key();
        let planned = desired.plan.services.get(format!("{}/{}", key.namespace, key.name).as_str());
        if let (Ok(mut object), Some(planned)) = (located.object.to_json(), planned) {
            complete(&mut object, &key, planned);
            all.push(object);
        }
    }
    all.extend(names::service(&plane.runtime().cluster()));
    all
}

fn complete(object: &mut Json, key: &Key, planned: &Planned) {
    let Planned { spec, families, allocation } = planned;
    set(object, "metadata", json!({"namespace": key.namespace}));
    set(object, "spec", json!({"type": spec.kind.name()}));
    if spec.kind == Kind::ExternalName {
        return;
    }
    let addresses: Vec<String> = match spec.headless {
        true => vec!["None".to_owned()],
        false => allocation.cluster_ips.iter().map(ToString::to_string).collect(),
    };
    let families: Vec<&str> = families.iter().map(|family| family.name()).collect();
    set(
        object,
        "spec",
        json!({"clusterIP": addresses.first(), "clusterIPs": addresses, "ipFamilies": families}),
    );
    if let Some(port) = allocation.health_check_port {
        set(object, "spec", json!({"healthCheckNodePort": port}));
    }
    let ports = object.pointer_mut("/spec/ports").and_then(Json::as_array_mut).into_iter().flatten();
    for (json, port) in ports.zip(&spec.ports) {
        let Some(json) = json.as_object_mut() else { continue };
        json.entry("protocol").or_insert_with(|| port.protocol.name().into());
        json.entry("targetPort").or_insert_with(|| port.port.into());
        if let Some(number) = allocation.node_port(port.protocol, port.port) {
            json.insert("nodePort".to_owned(), number.into());
        }
    }
    let proxied = |address: &IpAddr| spec.ingress.iter().any(|one| one.address == *address && one.proxied);
    let mode = |address: &IpAddr| if proxied(address) { "Proxy" } else { "VIP" };
    let foreign =
        spec.ingress.iter().map(|one| &one.address).filter(|a| !allocation.load_balancer.contains(a));
    let ingress = allocation.load_balancer.iter().chain(foreign);
    let ingress: Vec<Json> = ingress.map(|a| json!({"ip": a, "ipMode": mode(a)})).collect();
    if !ingress.is_empty() {
        set(object, "status", json!({"loadBalancer": {"ingress": ingress}}));
    }
}

/// The endpoints of Services, as the older kind that lists all of them in one object.
pub(super) fn endpoints(plane: &Plane) -> Vec<Json> {
    let mut all = Vec::new();
    each_service(plane, |planned, served| {
        let subsets: Vec<Json> = served
            .iter()
            .map(|PortEndpoints { port, endpoints, .. }| {
                let of = |ready: bool| {
                    let fit = endpoints.iter().filter(move |e| e.condition.ready == ready);
                    fit.map(address).collect::<Vec<Json>>()
                };
                let number = endpoints.first().map_or(port.port, |endpoint| endpoint.port);
                let port = json!({"name": port.name, "port": number, "protocol": port.protocol.name()});
                json!({"addresses": of(true), "notReadyAddresses": of(false), "ports": [port]})
            })
            .collect();
        let metadata = json!({"namespace": planned.spec.namespace, "name": planned.spec.name});
        all.push(json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata, "subsets": subsets}));
    });
    all
}

/// The slices that the user gave, and one for each port in each family of a Service that selects pods.
pub(super) fn endpoint_slices(plane: &Plane) -> Vec<Json> {
    let desired = plane.desired();
    let mut all: Vec<Json> = Vec::new();
    for located in desired.store.of_kind("EndpointSlice") {
        let Ok(mut object) = located.object.to_json() else { continue };
        set(&mut object, "metadata", json!({"namespace": located.object.key().namespace}));
        all.push(object);
    }
    each_service(plane, |planned, served| {
        let spec = &planned.spec;
        for PortEndpoints { family, port, endpoints, .. } in
            served.iter().filter(|_| !spec.selector.is_empty())
        {
            let own = endpoints.iter().filter(|endpoint| endpoint.pod.is_some());
            let own: Vec<Json> = own.map(slice_endpoint).collect();
            let number = endpoints.first().map_or(port.port, |endpoint| endpoint.port);
            let suffix = if port.name.is_empty() { port.port.to_string() } else { port.name.clone() };
            let name = format!("{}-{suffix}-{}", spec.name, family.name().to_lowercase());
            let labels = json!({
                "kubernetes.io/service-name": spec.name,
                "endpointslice.kubernetes.io/managed-by": "vswitch",
            });
            all.push(json!({
                "apiVersion": "discovery.k8s.io/v1",
                "kind": "EndpointSlice",
                "metadata": {"namespace": spec.namespace, "name": name, "labels": labels},
                "addressType": family.name(),
                "ports": [{"name": port.name, "port": number, "protocol": port.protocol.name()}],
                "endpoints": own,
            }));
        }
    });
    all
}

fn each_service(plane: &Plane, mut tell: impl FnMut(&Planned, &[PortEndpoints<'_>])) {
    let desired = plane.desired();
    let mut names: Vec<&Arc<str>> = desired.plan.services.keys().collect();
    names.sort_unstable();
    plane.services(|controller| {
        for name in names {
            let Some((planned, served)) = controller.service(name) else { continue };
            tell(planned, &served);
        }
    });
}

fn address(endpoint: &Endpoint) -> Json {
    let mut json = Map::new();
    json.insert("ip".to_owned(), json!(endpoint.address));
    if let Some(node) = &endpoint.node {
        json.insert("nodeName".to_owned(), json!(**node));
    }
    json.extend(target(endpoint));
    json.into()
}

fn target(endpoint: &Endpoint) -> Option<(String, Json)> {
    let (namespace, name) = endpoint.pod.as_deref()?.split_once('/')?;
    Some(("targetRef".to_owned(), json!({"kind": "Pod", "namespace": namespace, "name": name})))
}

fn slice_endpoint(endpoint: &Endpoint) -> Json {
    let condition = endpoint.condition;
    let mut json = Map::new();
    json.insert("addresses".to_owned(), json!([endpoint.address]));
    let conditions =
        json!({"ready": condition.ready, "serving": condition.serving, "terminating": condition.terminating});
    json.insert("conditions".to_owned(), conditions);
    for (field, value) in [("nodeName", &endpoint.node), ("zone", &endpoint.zone)] {
        json.extend(value.as_ref().map(|value| (field.to_owned(), json!(**value))));
    }
    json.extend(target(endpoint));
    json.into()
}
