//! A Service as it is meant: what its object says, held against the rules of the API server, with defaults filled in.

use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::{Service, ServiceSpec};

use super::Complaints;
use super::port::{self, Port};
use super::words::{Distribution, Family, Ingress, Kind, Stack};
use crate::cluster::Labels;

/// Annotation with the way backends are selected.
const POLICY: &str = "vswitch/lb-policy";
/// Annotation with the size of Maglev's table.
const TABLE_SIZE: &str = "vswitch/table-size";
/// Annotation that resets connections whose backend is gone.
const RESET_GONE: &str = "vswitch/reset-gone";
/// Annotations that are understood; others with this prefix are faults.
const ANNOTATIONS: [&str; 3] = [POLICY, TABLE_SIZE, RESET_GONE];
/// Labels by which kube-proxy leaves a Service to somebody else.
const NOT_OURS: [&str; 2] = ["service.kubernetes.io/service-proxy-name", "service.kubernetes.io/headless"];
/// How long a client comes back to the same pod if nobody says, and the most that may be said.
const AFFINITY_SECONDS: (i32, i32) = (10_800, 86_400);

/// See the module.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Spec {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: Labels,
    /// Its type.
    pub kind: Kind,
    /// Whether it is somebody else's, by a label.
    pub not_ours: bool,
    /// Whether it has no address (`clusterIP: None`).
    pub headless: bool,
    /// The addresses it asks for.
    pub cluster_ips: Vec<IpAddr>,
    /// The families it asks for.
    pub families: Vec<Family>,
    /// See [`Stack`].
    pub stack: Option<Stack>,
    /// Its ports.
    pub ports: Vec<Port>,
    /// Labels of its pods; without any it has no pods by itself.
    pub selector: Labels,
    /// For how long a client comes back to the same backend.
    pub affinity: Option<Duration>,
    /// Whether clients outside get endpoints of the node alone.
    pub external_local: bool,
    /// Whether clients of cluster IPs get endpoints of the node alone.
    pub internal_local: bool,
    /// The port it asks for its health check.
    pub health_check_port: Option<u16>,
    /// The name that its own stands for, if it is of the type ExternalName.
    pub external_name: String,
    /// Further addresses.
    pub external_ips: Vec<IpAddr>,
    /// Who may ask load balancer addresses; anybody if empty.
    pub source_ranges: Vec<IpNet>,
    /// The implementation that is to give it its address.
    pub class: Option<String>,
    /// Whether it gets node ports that it does not ask for.
    pub allocates_node_ports: bool,
    /// Addresses that somebody else gave it.
    pub ingress: Vec<Ingress>,
    /// Addresses of pools that it asks for.
    pub wanted_addresses: Vec<IpAddr>,
    /// The pool it asks for.
    pub wanted_pool: Option<String>,
    /// It shares its address with those that say the same.
    pub sharing: Option<String>,
    /// Whether pods are asked before they are ready.
    pub not_ready_too: bool,
    /// See [`Distribution`].
    pub distribution: Distribution,
    /// How backends are selected.
    pub policy: lb::Policy,
    /// Slots of Maglev's table.
    pub table_size: Option<u32>,
    /// Whether connections whose backend is gone are reset.
    pub reset_gone: bool,
}

impl Spec {
    /// `NAMESPACE/NAME`.
    pub fn full_name(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Whether nodes translate for it.
    pub fn is_proxied(&self) -> bool {
        !(self.headless || self.not_ours || self.kind == Kind::ExternalName)
    }

    /// Whether it has a port of every node.
    pub const fn wants_node_ports(&self) -> bool {
        match self.kind {
            Kind::NodePort => true,
            Kind::LoadBalancer => self.allocates_node_ports,
            Kind::ClusterIp | Kind::ExternalName => false,
        }
    }

    /// Whether nodes answer for its health on a port of theirs.
    pub fn wants_health_check(&self) -> bool {
        self.kind == Kind::LoadBalancer && self.external_local
    }

    /// Reads an object of this namespace and name. What is wrong with it is added to `complaints`.
    pub fn read(object: &Service, namespace: &str, name: &str, complaints: &mut Complaints) -> Self {
        let default = ServiceSpec::default();
        let given = object.spec.as_ref().unwrap_or(&default);
        let mut spec = Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            labels: object.metadata.labels.clone().unwrap_or_default(),
            selector: given.selector.clone().unwrap_or_default(),
            class: given.load_balancer_class.clone(),
            external_name: given.external_name.clone().unwrap_or_default(),
            allocates_node_ports: given.allocate_load_balancer_node_ports.unwrap_or(true),
            not_ready_too: given.publish_not_ready_addresses.unwrap_or(false),
            ..Self::default()
        };
        spec.not_ours = NOT_OURS.iter().any(|label| spec.labels.contains_key(*label));
        if !is_dns1035(name) {
            let rule = "1 to 63 lower case letters, digits and `-`, begin with a letter and not end with `-`";
            complaints.fault("metadata.name", format!("{name:?} must be {rule}"));
        }
        spec.kind = one_of(given.type_.as_deref(), &Kind::NAMES, "spec.type", complaints);
        spec.read_addresses(given, complaints);
        spec.ports = port::read(given, &spec, complaints);
        spec.read_affinity(given, complaints);
        spec.read_policies(given, complaints);
        spec.read_load_balancer(object, given, complaints);
        spec.read_annotations(object, complaints);
        spec.check_kind(given, complaints);
        spec
    }

    /// `clusterIP`, `clusterIPs`, families, `externalIPs`.
    fn read_addresses(&mut self, given: &ServiceSpec, complaints: &mut Complaints) {
        let listed = given.cluster_ips.as_deref().unwrap_or_default();
        let single = given.cluster_ip.as_ref().filter(|text| !text.is_empty());
        if let (Some(single), Some(first)) = (single, listed.first())
            && single != first
        {
            let message = format!("{single} must be the first of clusterIPs, which is {first}");
            complaints.fault("spec.clusterIP", message);
        }
        let all = match listed {
            [] => single.into_iter().map(|text| ("spec.clusterIP".to_owned(), text)).collect(),
            listed => indexed("spec.clusterIPs", listed),
        };
        self.headless = all.first().is_some_and(|(_, text)| *text == "None");
        if self.headless && all.len() > 1 {
            complaints.fault("spec.clusterIPs", "`None` must stand alone");
        }
        for (path, text) in all.into_iter().filter(|_| !self.headless) {
            let Some(address) = address(&path, text, complaints) else { continue };
            if self.cluster_ips.iter().any(|other| Family::of(*other) == Family::of(address)) {
                complaints.fault(path, "there is one of this family already");
            } else {
                self.cluster_ips.push(address);
            }
        }
        const FAMILIES: [(&str, Family); 2] = [("IPv4", Family::V4), ("IPv6", Family::V6)];
        for (path, text) in indexed("spec.ipFamilies", given.ip_families.as_deref().unwrap_or_default()) {
            let Some(family) = word(text, &FAMILIES, &path, complaints) else { continue };
            if self.families.contains(&family) {
                complaints.fault(path, format!("{text} is there already"));
            } else {
                self.families.push(family);
            }
        }
        const STACKS: [(&str, Stack); 3] = [
            ("SingleStack", Stack::Single),
            ("PreferDualStack", Stack::PreferDual),
            ("RequireDualStack", Stack::RequireDual),
        ];
        let policy = given.ip_family_policy.as_deref();
        self.stack = policy.and_then(|text| word(text, &STACKS, "spec.ipFamilyPolicy", complaints));
        for (path, text) in indexed("spec.externalIPs", given.external_ips.as_deref().unwrap_or_default()) {
            let Some(address) = address(&path, text, complaints) else { continue };
            if is_special(address) {
                let message =
                    format!("{address} is no address that clients outside could ask; take a unicast one");
                complaints.fault(path, message);
            } else if !self.external_ips.contains(&address) {
                self.external_ips.push(address);
            }
        }
    }

    fn read_affinity(&mut self, given: &ServiceSpec, complaints: &mut Complaints) {
        const AFFINITIES: [(&str, bool); 2] = [("None", false), ("ClientIP", true)];
        let by_client =
            one_of(given.session_affinity.as_deref(), &AFFINITIES, "spec.sessionAffinity", complaints);
        let config = given.session_affinity_config.as_ref();
        let seconds = config.and_then(|config| config.client_ip.as_ref()?.timeout_seconds);
        if !by_client && config.is_some() {
            let message = "must not be set while sessionAffinity is None; set that to ClientIP";
            complaints.fault("spec.sessionAffinityConfig", message);
        }
        let (default, most) = AFFINITY_SECONDS;
        let seconds = seconds.unwrap_or(default);
        match u64::try_from(seconds) {
            Ok(whole) if (1..=most).contains(&seconds) => {
                self.affinity = by_client.then(|| Duration::from_secs(whole));
            }
            Ok(_) | Err(_) => complaints.fault(
                "spec.sessionAffinityConfig.clientIP.timeoutSeconds",
                format!("{seconds} is not between 1 and {most}"),
            ),
        }
    }

    fn read_policies(&mut self, given: &ServiceSpec, complaints: &mut Complaints) {
        const POLICIES: [(&str, bool); 2] = [("Cluster", false), ("Local", true)];
        let external = given.external_traffic_policy.as_deref().filter(|text| !text.is_empty());
        let visible = self.kind == Kind::NodePort
            || self.kind == Kind::LoadBalancer
            || given.external_ips.iter().flatten().next().is_some();
        if external.is_some() && !visible {
            let message = "may only be set for Services that are asked from outside: of the type NodePort or \
                           LoadBalancer, or with externalIPs";
            complaints.fault("spec.externalTrafficPolicy", message);
        }
        self.external_local = one_of(external, &POLICIES, "spec.externalTrafficPolicy", complaints);
        let internal = given.internal_traffic_policy.as_deref();
        self.internal_local = one_of(internal, &POLICIES, "spec.internalTrafficPolicy", complaints);
        const DISTRIBUTIONS: [(&str, Distribution); 3] = [
            ("PreferClose", Distribution::SameZone),
            ("PreferSameZone", Distribution::SameZone),
            ("PreferSameNode", Distribution::SameNode),
        ];
        let distribution = given.traffic_distribution.as_deref();
        let path = "spec.trafficDistribution";
        self.distribution =
            distribution.and_then(|text| word(text, &DISTRIBUTIONS, path, complaints)).unwrap_or_default();
        if let Some(port) = given.health_check_node_port.filter(|port| *port != 0) {
            if !self.wants_health_check() {
                let message =
                    "may only be set for Services of the type LoadBalancer with externalTrafficPolicy Local";
                complaints.fault("spec.healthCheckNodePort", message);
            }
            self.health_check_port = port::number("spec.healthCheckNodePort", port, complaints);
        }
    }

    /// What only load balancers have.
    fn read_load_balancer(&mut self, object: &Service, given: &ServiceSpec, complaints: &mut Complaints) {
        let ranges = given.load_balancer_source_ranges.as_deref().unwrap_or_default();
        for (path, text) in indexed("spec.loadBalancerSourceRanges", ranges) {
            match text.trim().parse::<IpNet>() {
                Ok(net) => self.source_ranges.push(net.trunc()),
                Err(_) => {
                    complaints.fault(path, format!("{text:?} is no prefix; write it as 192.0.2.0/24"));
                }
            }
        }
        if self.kind != Kind::LoadBalancer {
            let set = [
                ("loadBalancerSourceRanges", !ranges.is_empty()),
                ("allocateLoadBalancerNodePorts", given.allocate_load_balancer_node_ports.is_some()),
                ("loadBalancerClass", given.load_balancer_class.is_some()),
            ];
            for (field, _) in set.iter().filter(|(_, set)| *set) {
                let message = "may only be set for Services of the type LoadBalancer";
                complaints.fault(format!("spec.{field}"), message);
            }
            return;
        }
        let status = object.status.as_ref().and_then(|status| status.load_balancer.as_ref());
        let ingress = status.and_then(|status| status.ingress.as_deref()).unwrap_or_default();
        for (index, one) in ingress.iter().enumerate() {
            let path = format!("status.loadBalancer.ingress[{index}]");
            let Some(text) = &one.ip else { continue };
            let Some(address) = address(&format!("{path}.ip"), text, complaints) else { continue };
            const MODES: [(&str, bool); 2] = [("VIP", false), ("Proxy", true)];
            let proxied = one_of(one.ip_mode.as_deref(), &MODES, &format!("{path}.ipMode"), complaints);
            self.ingress.push(Ingress { address, proxied });
        }
        if let Some(text) = given.load_balancer_ip.as_ref().filter(|text| !text.is_empty()) {
            self.wanted_addresses.extend(address("spec.loadBalancerIP", text, complaints));
        }
    }

    fn read_annotations(&mut self, object: &Service, complaints: &mut Complaints) {
        let Some(annotations) = &object.metadata.annotations else { return };
        let path = |name: &str| format!("metadata.annotations.{name}");
        let unknown = annotations.keys().filter(|name| name.starts_with("vswitch/"));
        for name in unknown.filter(|name| !ANNOTATIONS.contains(&name.as_str())) {
            let known = ANNOTATIONS.join(", ");
            complaints.fault(path(name), format!("there is no such annotation; there are {known}"));
        }
        const POLICIES: [(&str, lb::Policy); 4] = [
            ("maglev", lb::Policy::Maglev),
            ("random", lb::Policy::Random),
            ("round-robin", lb::Policy::RoundRobin),
            ("rendezvous", lb::Policy::Rendezvous),
        ];
        let get = |name: &str| annotations.get(name).map(String::as_str);
        self.policy = one_of(get(POLICY), &POLICIES, &path(POLICY), complaints);
        const SWITCH: [(&str, bool); 2] = [("false", false), ("true", true)];
        self.reset_gone = one_of(get(RESET_GONE), &SWITCH, &path(RESET_GONE), complaints);
        if let Some(text) = get(TABLE_SIZE) {
            // A pool of nothing still looks at the size.
            let checked =
                text.parse::<u32>().map_err(|_| format!("{text:?} is no number")).and_then(|size| {
                    let pool = lb::Pool::new([], lb::Policy::Maglev, Some(size), [0; 16]);
                    pool.map(|_| size).map_err(|error| error.to_string())
                });
            match checked {
                Ok(size) => self.table_size = Some(size),
                Err(message) => complaints.fault(path(TABLE_SIZE), message),
            }
        }
        // An earlier group name of the same project stands beside the one of today.
        let metallb = |name: &str| {
            let groups = ["metallb.io", "metallb.universe.tf"];
            groups.iter().find_map(|group| get(&format!("{group}/{name}")).map(str::to_owned))
        };
        self.wanted_pool = metallb("address-pool");
        self.sharing = metallb("allow-shared-ip").filter(|key| !key.is_empty());
        let texts = metallb("loadBalancerIPs").unwrap_or_default();
        for text in texts.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            let address = address(&path("metallb.io/loadBalancerIPs"), text, complaints);
            self.wanted_addresses.extend(address);
        }
    }

    /// What types exclude.
    fn check_kind(&mut self, given: &ServiceSpec, complaints: &mut Complaints) {
        let name = given.external_name.as_deref().unwrap_or_default();
        match self.kind {
            Kind::ExternalName => {
                if !is_dns_name(name) {
                    let message = format!("{name:?} must be a name of the resolver, as www.example.com");
                    complaints.fault("spec.externalName", message);
                }
                let set = [
                    ("clusterIP", self.headless || !self.cluster_ips.is_empty()),
                    ("ipFamilies", !self.families.is_empty()),
                    ("ipFamilyPolicy", self.stack.is_some()),
                    ("internalTrafficPolicy", given.internal_traffic_policy.is_some()),
                    ("trafficDistribution", given.traffic_distribution.is_some()),
                ];
                for (field, _) in set.iter().filter(|(_, set)| *set) {
                    complaints.fault(
                        format!("spec.{field}"),
                        "may not be set for a Service of the type ExternalName",
                    );
                }
            }
            Kind::NodePort | Kind::LoadBalancer if self.headless => {
                let message =
                    format!("may not be `None` for a Service of the type {}; leave it out", self.kind.name());
                complaints.fault("spec.clusterIP", message);
            }
            Kind::ClusterIp | Kind::NodePort | Kind::LoadBalancer => {}
        }
        if self.kind != Kind::ExternalName && !name.is_empty() {
            complaints.warn("spec.externalName", "has an effect only for Services of the type ExternalName");
        }
        if self.not_ours {
            let message = "a label leaves this Service to another proxy: nothing is translated for it";
            complaints.warn("metadata.labels", message);
        }
    }
}

/// The elements of a list, each with its path.
fn indexed<'a>(path: &str, list: &'a [String]) -> Vec<(String, &'a String)> {
    list.iter().enumerate().map(|(index, text)| (format!("{path}[{index}]"), text)).collect()
}

fn address(path: &str, text: &str, complaints: &mut Complaints) -> Option<IpAddr> {
    let address = text.parse().ok();
    if address.is_none() {
        complaints.fault(path, format!("{text:?} is no address"));
    }
    address
}

/// What a word means, if it is one of these.
pub(super) fn word<T: Copy>(
    text: &str,
    words: &[(&str, T)],
    path: &str,
    complaints: &mut Complaints,
) -> Option<T> {
    let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
    if found.is_none() {
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        complaints.fault(path, format!("{text:?} is none of {}", known.join(", ")));
    }
    found
}

/// The same with a default, the first.
fn one_of<T: Copy>(text: Option<&str>, words: &[(&str, T)], path: &str, complaints: &mut Complaints) -> T {
    text.and_then(|text| word(text, words, path, complaints)).unwrap_or(words[0].1)
}

fn is_special(address: IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    };
    link_local || address.is_loopback() || address.is_multicast() || address.is_unspecified()
}

/// The rule of RFC 1035 for labels, which names of Services follow.
fn is_dns1035(name: &str) -> bool {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&name.len())
        && name.bytes().all(good)
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
}

/// A name of labels as in RFC 1123, with or without the last dot.
fn is_dns_name(name: &str) -> bool {
    let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_';
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(good)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    name.len() <= 253 && name.split('.').all(label)
}
