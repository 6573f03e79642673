//! Who may talk to whom, from the text of the specification: slow, plain, and from the objects as they are written.
//!
//! Of `NetworkPolicy` see <https://kubernetes.io/docs/concepts/services-networking/network-policies/> and the comments of its
//! type; of `ClusterNetworkPolicy` <https://network-policy-api.sigs.k8s.io>. Nothing of the program is used here but what
//! reads prefixes.

use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

/// All objects of a cluster.
#[derive(Clone, Debug, Default)]
pub(crate) struct World {
    pub(crate) objects: Vec<Value>,
    /// What holds where no policy says anything.
    pub(crate) denies: bool,
}

/// One end of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End<'a> {
    /// A pod, and which of its addresses is used.
    Pod(&'a Value, IpAddr),
    /// Somebody else.
    Outside(IpAddr),
}

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ask {
    pub(crate) protocol: &'static str,
    pub(crate) port: u16,
}

enum Answer {
    Accept,
    Deny,
    GoOn,
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn items<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

pub(crate) fn namespace(object: &Value) -> &str {
    match text(object, "/metadata/namespace") {
        "" => "default",
        name => name,
    }
}

/// Whether labels are what a selector demands. One without demands selects everything.
fn selected(selector: &Value, labels: &Value) -> bool {
    let label = |key: &str| labels.get(key).and_then(Value::as_str);
    let pairs = selector.get("matchLabels").and_then(Value::as_object);
    let equal = pairs.into_iter().flatten().all(|(key, value)| label(key) == value.as_str());
    equal
        && items(selector, "/matchExpressions").iter().all(|one| {
            let value = label(text(one, "/key"));
            let listed =
                items(one, "/values").iter().any(|listed| value.is_some() && listed.as_str() == value);
            match text(one, "/operator") {
                "In" => listed,
                "NotIn" => !listed,
                "Exists" => value.is_some(),
                "DoesNotExist" => value.is_none(),
                other => panic!("{other}"),
            }
        })
}

impl World {
    fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.objects.iter().filter(move |object| text(object, "/kind") == kind)
    }

    pub(crate) fn pods(&self) -> Vec<&Value> {
        self.of_kind("Pod").collect()
    }

    /// Every namespace has a label with its name.
    fn namespace_labels(&self, name: &str) -> Value {
        let object = self.of_kind("Namespace").find(|object| text(object, "/metadata/name") == name);
        let labels = object.and_then(|object| object.pointer("/metadata/labels")).cloned();
        let mut labels = labels.unwrap_or_else(|| Value::Object(serde_json::Map::new()));
        labels["kubernetes.io/metadata.name"] = name.into();
        labels
    }

    fn is_in_namespaces(&self, selector: &Value, pod: &Value) -> bool {
        selected(selector, &self.namespace_labels(namespace(pod)))
    }

    fn is_pod(selector: &Value, pod: &Value) -> bool {
        selected(selector, pod.pointer("/metadata/labels").unwrap_or(&Value::Null))
    }

    /// Whether a connection may be opened: the one who opens it may, and the one who is asked may be asked.
    pub(crate) fn allows(&self, from: End<'_>, to: End<'_>, ask: Ask) -> bool {
        if let (End::Pod(one, _), End::Pod(other, _)) = (from, to)
            && std::ptr::eq(one, other)
        {
            return true;
        }
        let may_open = match from {
            End::Outside(_) => true,
            End::Pod(pod, _) => self.one_way(pod, to, "Egress", to, ask),
        };
        let may_be_asked = match to {
            End::Outside(_) => true,
            End::Pod(pod, _) => self.one_way(pod, from, "Ingress", to, ask),
        };
        may_open && may_be_asked
    }

    /// What the policies that are about a pod say of one direction.
    fn one_way(&self, pod: &Value, peer: End<'_>, direction: &str, asked: End<'_>, ask: Ask) -> bool {
        match self.cluster_tier("Admin", pod, peer, direction, asked, ask) {
            Answer::Accept => return true,
            Answer::Deny => return false,
            Answer::GoOn => {}
        }
        let field = format!("/spec/{}", direction.to_lowercase());
        let isolating: Vec<&Value> = self
            .of_kind("NetworkPolicy")
            .filter(|policy| namespace(policy) == namespace(pod))
            .filter(|policy| Self::is_pod(policy.pointer("/spec/podSelector").unwrap_or(&Value::Null), pod))
            .filter(|policy| Self::types(policy).contains(&direction))
            .collect();
        if !isolating.is_empty() {
            return isolating.iter().any(|policy| {
                items(policy, &field).iter().any(|rule| {
                    let peers = if direction == "Ingress" { "/from" } else { "/to" };
                    let peers = items(rule, peers);
                    let ports = items(rule, "/ports");
                    (peers.is_empty() || peers.iter().any(|one| self.is_peer(one, namespace(policy), peer)))
                        && (ports.is_empty() || ports.iter().any(|one| Self::is_port(one, asked, ask)))
                })
            });
        }
        match self.cluster_tier("Baseline", pod, peer, direction, asked, ask) {
            Answer::Accept => true,
            Answer::Deny => false,
            Answer::GoOn => !self.denies,
        }
    }

    /// Every policy is about ingress unless it says otherwise, and about egress if it has a rule for it.
    fn types(policy: &Value) -> Vec<&str> {
        let listed: Vec<&str> = items(policy, "/spec/policyTypes").iter().filter_map(Value::as_str).collect();
        match (listed.is_empty(), items(policy, "/spec/egress").is_empty()) {
            (false, _) => listed,
            (true, true) => vec!["Ingress"],
            (true, false) => vec!["Ingress", "Egress"],
        }
    }

    fn is_peer(&self, one: &Value, of: &str, peer: End<'_>) -> bool {
        if let Some(block) = one.get("ipBlock") {
            let (End::Pod(_, address) | End::Outside(address)) = peer;
            let within = |text: &Value| text.as_str().unwrap().parse::<IpNet>().unwrap().contains(&address);
            return within(&block["cidr"]) && !items(block, "/except").iter().any(within);
        }
        let End::Pod(pod, _) = peer else { return false };
        let inside = match one.get("namespaceSelector") {
            Some(selector) => self.is_in_namespaces(selector, pod),
            None => namespace(pod) == of,
        };
        inside && one.get("podSelector").is_none_or(|selector| Self::is_pod(selector, pod))
    }

    fn is_port(one: &Value, asked: End<'_>, ask: Ask) -> bool {
        let protocol = one.get("protocol").and_then(Value::as_str).unwrap_or("TCP");
        if protocol != ask.protocol {
            return false;
        }
        match one.get("port") {
            None => true,
            Some(Value::String(name)) => Self::is_called(asked, ask, name),
            Some(port) => {
                let first = port.as_u64().unwrap();
                let last = one.get("endPort").and_then(Value::as_u64).unwrap_or(first);
                (first..=last).contains(&u64::from(ask.port))
            }
        }
    }

    /// Whether the pod that is asked calls the port so.
    fn is_called(asked: End<'_>, ask: Ask, name: &str) -> bool {
        let End::Pod(pod, _) = asked else { return false };
        items(pod, "/spec/containers").iter().flat_map(|container| items(container, "/ports")).any(|port| {
            let protocol = port.get("protocol").and_then(Value::as_str).unwrap_or("TCP");
            text(port, "/name") == name
                && protocol == ask.protocol
                && port["containerPort"].as_u64() == Some(u64::from(ask.port))
        })
    }

    /// Rules in order: of policies by priority, then as they stand.
    fn cluster_tier(
        &self,
        tier: &str,
        pod: &Value,
        peer: End<'_>,
        direction: &str,
        asked: End<'_>,
        ask: Ask,
    ) -> Answer {
        let mut policies: Vec<&Value> = self
            .of_kind("ClusterNetworkPolicy")
            .filter(|policy| text(policy, "/spec/tier") == tier)
            .filter(|policy| {
                self.is_cluster_peer(&policy["spec"]["subject"], End::Pod(pod, [0, 0, 0, 0].into()))
            })
            .collect();
        policies.sort_by_key(|policy| {
            (policy["spec"]["priority"].as_i64().unwrap(), text(policy, "/metadata/name"))
        });
        let (rules, peers) =
            if direction == "Ingress" { ("/spec/ingress", "/from") } else { ("/spec/egress", "/to") };
        for rule in policies.into_iter().flat_map(|policy| items(policy, rules)) {
            let protocols = items(rule, "/protocols");
            let is_asked =
                protocols.is_empty() || protocols.iter().any(|one| Self::is_protocol(one, asked, ask));
            if is_asked && items(rule, peers).iter().any(|one| self.is_cluster_peer(one, peer)) {
                return match text(rule, "/action") {
                    "Accept" => Answer::Accept,
                    "Deny" => Answer::Deny,
                    "Pass" => Answer::GoOn,
                    other => panic!("{other}"),
                };
            }
        }
        Answer::GoOn
    }

    fn is_cluster_peer(&self, one: &Value, peer: End<'_>) -> bool {
        if let Some(networks) = one.get("networks") {
            let (End::Pod(_, address) | End::Outside(address)) = peer;
            let within = |text: &Value| text.as_str().unwrap().parse::<IpNet>().unwrap().contains(&address);
            return networks.as_array().unwrap().iter().any(within);
        }
        let End::Pod(pod, _) = peer else { return false };
        if let Some(selector) = one.get("namespaces") {
            return self.is_in_namespaces(selector, pod);
        }
        let pods = &one["pods"];
        self.is_in_namespaces(&pods["namespaceSelector"], pod) && Self::is_pod(&pods["podSelector"], pod)
    }

    fn is_protocol(one: &Value, asked: End<'_>, ask: Ask) -> bool {
        if let Some(name) = one.get("destinationNamedPort") {
            return Self::is_called(asked, ask, name.as_str().unwrap());
        }
        let Some(given) = one.get(ask.protocol.to_lowercase()) else { return false };
        let Some(port) = given.get("destinationPort") else { return true };
        let number = |field: &str| port.pointer(field).and_then(Value::as_u64);
        let (first, last) =
            (number("/number").or(number("/range/start")), number("/number").or(number("/range/end")));
        (first.unwrap()..=last.unwrap()).contains(&u64::from(ask.port))
    }
}
