//! Which fields have an effect here. Kubernetes has many more; who uses one is told that nothing follows from it.

use std::collections::{BTreeSet, HashMap};

use super::tree::{Node, Value};

/// Kind, field, and what it does. `[]` stands for every element of a list. A field that is listed has an effect with all
/// that is below it, unless parts of it are listed too: then those parts alone. The same table stands in MANIFESTS.md.
pub const EFFECTS: &[(&str, &str, &str)] = &[
    ("any", "apiVersion", "tells the kind"),
    ("any", "kind", "tells the kind"),
    ("any", "metadata.name", "names the object"),
    (
        "any",
        "metadata.namespace",
        "namespace of what is in one: all but Clusters, Namespaces, Nodes and ClusterNetworkPolicies; `default` if unset",
    ),
    ("any", "metadata.labels", "what selectors select by"),
    (
        "any",
        "metadata.annotations",
        "those that begin with `vswitch/` or `metallb.io/` are read, others are kept",
    ),
    ("Cluster", "spec.podCIDRs", "prefixes from which nodes get their part, one of each family at most"),
    ("Cluster", "spec.serviceCIDRs", "prefixes of Services, towards which pods keep their own addresses"),
    (
        "Cluster",
        "spec.nonMasqueradeCIDRs",
        "prefixes outside towards which pods keep their own addresses as well",
    ),
    (
        "Cluster",
        "spec.proxyMode",
        "`maglev` translates; `userspace` has a proxy on each node end connections and open others to backends",
    ),
    ("Cluster", "spec.nodePortRange", "ports of nodes that lead to Services, 30000-32767 if unset"),
    (
        "Cluster",
        "spec.masqueradeAll",
        "`true`: pods, too, are seen with their node's address behind a cluster IP",
    ),
    (
        "Cluster",
        "spec.dnsDomain",
        "the domain that the names of Services and pods are beneath, `cluster.local` if unset",
    ),
    (
        "Cluster",
        "spec.dns.addresses",
        "the addresses of the cluster's name server, the tenth of each of `serviceCIDRs` if unset; `[]` for no such server",
    ),
    (
        "Cluster",
        "spec.dns.resolvConf",
        "the file that names whom it asks for all other names, `/etc/resolv.conf` of this machine if unset",
    ),
    ("Cluster", "spec.dns.stubDomains", "domains and the addresses of those who are asked for them instead"),
    (
        "Cluster",
        "spec.dns.records",
        "further names: `name`, and either `addresses` or `target`, another name",
    ),
    (
        "Cluster",
        "spec.dns.logQueries",
        "`true`: each query is written to the log that `vswitch logs -n kube-system kube-dns` shows",
    ),
    (
        "Cluster",
        "spec.defaultPolicy",
        "`allow`, or `deny`: what holds for connections of pods that no policy says anything about",
    ),
    ("Cluster", "spec.policyMode", "`enforce`, or `audit`: what policies deny is counted and let through"),
    ("Cluster", "spec.mtu", "largest IP packet on every link; below 1280 there is no IPv6"),
    ("Cluster", "spec.segments[].name", "names an L3 segment of the underlay"),
    ("Cluster", "spec.segments[].cidrs", "its prefixes; the router has the first address of each"),
    (
        "Cluster",
        "spec.segments[].external",
        "`true`: nobody on it has routes to pods, who are seen there behind their node's address",
    ),
    (
        "Cluster",
        "spec.segments[].stormControl",
        "`rate` and `burst` of the broadcast, multicast and unknown unicast frames that a host's port lets in; 1000 a second if unset",
    ),
    (
        "Cluster",
        "spec.segments[].loopGuard",
        "blocks a host's port that is part of a loop; `false` lets it be",
    ),
    (
        "Cluster",
        "spec.segments[].isolated",
        "`true`: its hosts reach the router and the nodes, but not each other",
    ),
    (
        "Cluster",
        "spec.segments[].routerAdvertisements",
        "`true`: the router advertises itself and the IPv6 prefixes",
    ),
    (
        "Cluster",
        "spec.segments[].proxyNeighbors",
        "`true`: the router answers ARP and neighbour discovery for what it routes elsewhere",
    ),
    (
        "Cluster",
        "spec.segments[].duplicateAddressDetection",
        "`true`: the router uses its addresses only once nobody else turns out to have them",
    ),
    ("Cluster", "spec.podSegments.stormControl", "the same for pods' ports"),
    ("Cluster", "spec.podSegments.isolated", "`true`: pods of one node reach the router, but not each other"),
    ("Cluster", "spec.hosts", "plain machines: `name`, `segment`, `addresses`"),
    (
        "Cluster",
        "spec.egress",
        "`user`: what is outside the cluster is reached by sockets of whoever runs vswitch; `kernel`: by an interface of the machine, with root; `none`: it is not; `user` if unset",
    ),
    (
        "Cluster",
        "spec.egressPolicy.open",
        "`machineLoopback` (at 192.0.0.2 and fd00:192::2) and `metadata` are reached only if they are named",
    ),
    ("Cluster", "spec.egressPolicy.allow", "prefixes; if there are any, nothing else is reached outside"),
    ("Cluster", "spec.egressPolicy.deny", "prefixes that are not reached; where both fit the longer decides"),
    (
        "Cluster",
        "spec.publishAddresses",
        "addresses of this machine at which ports of nodes appear: NodePorts, ports of load balancers, hostPorts; 127.0.0.1 and ::1 if unset",
    ),
    ("Cluster", "spec.images", "image name to the command that runs for it"),
    ("Node", "spec.podCIDR", "prefix of its pods' addresses; the first address is the node's"),
    ("Node", "spec.podCIDRs", "the same, one of each family at most"),
    ("Node", "status.addresses", "those of type `InternalIP` put it on the segment they belong to"),
    ("Pod", "spec.nodeName", "the node it is on; unset: the one with the fewest pods"),
    ("Pod", "spec.nodeSelector", "labels that the node must have"),
    ("Pod", "spec.hostname", "host name inside the pod; its own name if unset"),
    ("Pod", "spec.subdomain", "with `hostname`: its name beneath the headless Service of this name"),
    (
        "Pod",
        "spec.hostNetwork",
        "`true`: it lives in its node's namespace, with the node's addresses and host name; its ports are the node's",
    ),
    (
        "Pod",
        "spec.dnsPolicy",
        "`ClusterFirst`, `ClusterFirstWithHostNet`, `Default` or `None`: whom it asks for names",
    ),
    ("Pod", "spec.dnsConfig", "`nameservers`, `searches` and `options` besides, or with `None` alone"),
    ("Pod", "spec.hostAliases", "names of addresses in its `/etc/hosts`"),
    ("Pod", "spec.enableServiceLinks", "`false`: its containers do not find Services in their environment"),
    ("Pod", "spec.restartPolicy", "whether containers that ended are started again"),
    ("Pod", "spec.terminationGracePeriodSeconds", "time between TERM and KILL"),
    ("Pod", "spec.securityContext.runAsUser", "user of every container"),
    ("Pod", "spec.securityContext.runAsGroup", "group of every container"),
    ("Pod", "spec.containers[].name", "names the container"),
    ("Pod", "spec.containers[].image", "looked up in `images` of the Cluster and among the built-in ones"),
    ("Pod", "spec.containers[].command", "the program, a command of this machine"),
    ("Pod", "spec.containers[].args", "its arguments"),
    ("Pod", "spec.containers[].env[].name", "name of a variable"),
    ("Pod", "spec.containers[].env[].value", "its value; `$(NAME)` stands for an earlier one"),
    ("Pod", "spec.containers[].workingDir", "where it starts"),
    ("Pod", "spec.containers[].ports[].name", "names the port"),
    ("Pod", "spec.containers[].ports[].containerPort", "what it listens on"),
    ("Pod", "spec.containers[].ports[].protocol", "`TCP`, `UDP` or `SCTP`; TCP if unset"),
    ("Pod", "spec.containers[].ports[].hostPort", "port of the node that leads to the container's"),
    (
        "Pod",
        "spec.containers[].ports[].hostIP",
        "at which of the node's addresses; `0.0.0.0` and `::` mean all of a family, unset all",
    ),
    ("Pod", "spec.containers[].startupProbe", "holds the other probes back until it succeeds"),
    ("Pod", "spec.containers[].livenessProbe", "restarts the container when it fails"),
    ("Pod", "spec.containers[].readinessProbe", "whether the pod is ready"),
    (
        "Pod",
        "spec.containers[].lifecycle.preStop",
        "`exec`, `httpGet` or `sleep` before TERM, within the time between TERM and KILL",
    ),
    ("Pod", "spec.containers[].securityContext.runAsUser", "its user"),
    ("Pod", "spec.containers[].securityContext.runAsGroup", "its group"),
    ("Pod", "spec.containers[].securityContext.allowPrivilegeEscalation", "`false` sets no_new_privs"),
    ("Pod", "spec.initContainers", "run one after the other before the containers; fields as there"),
    ("Pod", "status.podIP", "the address it asks for"),
    ("Pod", "status.podIPs", "the addresses it asks for, one of each family at most"),
    ("Deployment", "spec.replicas", "number of pods, named NAME-0, NAME-1 and so on"),
    ("Deployment", "spec.selector", "must select the template's labels"),
    (
        "Deployment",
        "spec.strategy.type",
        "`RollingUpdate` replaces pods in turn when the template changes, `Recreate` all at once",
    ),
    (
        "Deployment",
        "spec.strategy.rollingUpdate.maxUnavailable",
        "how many are replaced at a time, a number or a share of all; 1 if unset",
    ),
    (
        "Deployment",
        "spec.progressDeadlineSeconds",
        "how long those that were replaced may take to be ready before the others are let be; 600 if unset",
    ),
    ("Deployment", "spec.template.metadata.labels", "labels of the pods"),
    ("Deployment", "spec.template.metadata.annotations", "annotations of the pods"),
    ("Deployment", TEMPLATE, "what the pods are; fields as in a Pod"),
    ("Service", "spec.type", "`ClusterIP`, `NodePort`, `LoadBalancer` or `ExternalName`"),
    ("Service", "spec.clusterIP", "the address it asks for; `None` for none"),
    ("Service", "spec.clusterIPs", "the same, one of each family at most"),
    ("Service", "spec.ipFamilies", "the families it has, the first one first"),
    ("Service", "spec.ipFamilyPolicy", "`SingleStack`, `PreferDualStack` or `RequireDualStack`"),
    ("Service", "spec.ports[].name", "names the port; needed where there are several"),
    ("Service", "spec.ports[].protocol", "`TCP`, `UDP` or `SCTP`; TCP if unset"),
    ("Service", "spec.ports[].port", "the port that clients ask"),
    (
        "Service",
        "spec.ports[].targetPort",
        "the port of the pods, by number or by name; the same as `port` if unset",
    ),
    ("Service", "spec.ports[].nodePort", "the port of every node's addresses that leads there"),
    ("Service", "spec.ports[].appProtocol", "is kept and shown"),
    ("Service", "spec.selector", "labels of the pods that it leads to"),
    ("Service", "spec.sessionAffinity", "`ClientIP` sends a client to the same pod again"),
    ("Service", "spec.sessionAffinityConfig", "for how long: `clientIP.timeoutSeconds`, 10800 if unset"),
    (
        "Service",
        "spec.externalTrafficPolicy",
        "`Local` leads from outside to pods of the node that was asked, who see the client's address",
    ),
    (
        "Service",
        "spec.internalTrafficPolicy",
        "`Local` leads from a cluster IP to pods of the client's node alone",
    ),
    ("Service", "spec.healthCheckNodePort", "the port that is kept for the health check of each node"),
    ("Service", "spec.externalIPs", "further addresses that lead there, wherever nodes see packets to them"),
    ("Service", "spec.externalName", "the name that its own stands for; nothing is translated"),
    ("Service", "spec.loadBalancerIP", "the address of a pool that it asks for"),
    (
        "Service",
        "spec.loadBalancerClass",
        "if set the Service is another implementation's and gets no address here",
    ),
    ("Service", "spec.loadBalancerSourceRanges", "who may ask the load balancer's addresses"),
    ("Service", "spec.allocateLoadBalancerNodePorts", "`false`: no node ports but those that are given"),
    ("Service", "spec.publishNotReadyAddresses", "pods are asked before they are ready"),
    ("Service", "spec.trafficDistribution", "`PreferSameZone` (`PreferClose`) or `PreferSameNode`"),
    ("Service", "status.loadBalancer", "addresses that somebody else gave it, each with its `ipMode`"),
    ("EndpointSlice", "addressType", "`IPv4` or `IPv6`"),
    ("EndpointSlice", "endpoints[].addresses", "the first one is asked"),
    ("EndpointSlice", "endpoints[].conditions", "`ready`, `serving`, `terminating`"),
    ("EndpointSlice", "endpoints[].nodeName", "where it is, for `Local` policies"),
    ("EndpointSlice", "endpoints[].zone", "is shown"),
    ("EndpointSlice", "endpoints[].hints", "for which zones and nodes it is meant"),
    ("EndpointSlice", "endpoints[].hostname", "its name beneath its Service"),
    ("EndpointSlice", "endpoints[].targetRef", "is kept and shown"),
    (
        "EndpointSlice",
        "ports",
        "`name`, `protocol`, `port`; those of a name belong to the Service's port of that name",
    ),
    ("IPAddressPool", "spec.addresses", "prefixes, and ranges as 192.0.2.10-192.0.2.20"),
    ("IPAddressPool", "spec.autoAssign", "`false`: only for Services that name the pool or an address of it"),
    ("IPAddressPool", "spec.avoidBuggyIPs", "leaves out addresses that end in .0 and .255"),
    (
        "IPAddressPool",
        "spec.serviceAllocation",
        "`priority`, `namespaces`, `namespaceSelectors`, `serviceSelectors`",
    ),
    (
        "L2Advertisement",
        "spec.ipAddressPools",
        "the pools; all if there are none, here and in `ipAddressPoolSelectors`",
    ),
    ("L2Advertisement", "spec.ipAddressPoolSelectors", "the pools by label"),
    ("L2Advertisement", "spec.nodeSelectors", "the nodes one of which announces each address; all if unset"),
    ("NetworkPolicy", "spec.podSelector", "the pods of its namespace that it is about; all if unset"),
    (
        "NetworkPolicy",
        "spec.policyTypes",
        "`Ingress`, `Egress`; unset: the former, and the latter if there are rules for it",
    ),
    ("NetworkPolicy", "spec.ingress", "what may be opened to them: `from` and `ports`"),
    ("NetworkPolicy", "spec.egress", "what they may open: `to` and `ports`"),
    ("ClusterNetworkPolicy", "spec.tier", "`Admin`, before NetworkPolicies, or `Baseline`, behind them"),
    ("ClusterNetworkPolicy", "spec.priority", "0 to 1000; within a tier lower ones are asked first"),
    ("ClusterNetworkPolicy", "spec.subject", "the pods it is about: `namespaces` or `pods`"),
    ("ClusterNetworkPolicy", "spec.ingress", "rules in order: `action`, `from`, `protocols`"),
    (
        "ClusterNetworkPolicy",
        "spec.egress",
        "rules in order: `action`, `to` (`namespaces`, `pods`, `nodes`, `networks`), `protocols`",
    ),
];

/// A pod inside a Deployment.
const TEMPLATE: &str = "spec.template.spec";

/// Fields that every object gets in a real cluster and that say nothing to anybody here.
const BOOKKEEPING: &[&str] = &[
    "metadata.creationTimestamp",
    "metadata.generation",
    "metadata.managedFields",
    "metadata.resourceVersion",
    "metadata.selfLink",
    "metadata.uid",
];

/// How fields stand to the table, as far as they have been met: thousands of objects have the same few.
#[derive(Default)]
pub(super) struct Standings(HashMap<&'static str, HashMap<String, Standing>>);

impl Standings {
    /// A warning that names the fields of an object that have no effect, if there are any.
    pub(super) fn without(&mut self, kind: &'static str, node: &Node) -> Option<String> {
        let mut fields = BTreeSet::new();
        self.walk(kind, node, &mut String::new(), &mut fields);
        let list: Vec<&str> = fields.iter().map(String::as_str).collect();
        (!list.is_empty()).then(|| format!("no effect here: {}", list.join(", ")))
    }

    fn of(&mut self, kind: &'static str, path: &str) -> Standing {
        let of_kind = self.0.entry(kind).or_default();
        if let Some(standing) = of_kind.get(path) {
            return *standing;
        }
        // What of a Deployment is its template is a pod without a status.
        let (of, looked_up) = match path.strip_prefix("spec.template.") {
            Some(inner) if kind == "Deployment" && inner.starts_with("spec.") => ("Pod", inner),
            _ => (kind, path),
        };
        let standing = standing(of, &looked_up.replacen("initContainers", "containers", 1));
        of_kind.insert(path.to_owned(), standing);
        standing
    }

    fn walk(&mut self, kind: &'static str, node: &Node, path: &mut String, fields: &mut BTreeSet<String>) {
        match &node.value {
            Value::Map(entries) => {
                for entry in entries.iter().filter(|entry| entry.value.value != Value::Null) {
                    let length = path.len();
                    if length > 0 {
                        path.push('.');
                    }
                    path.push_str(&entry.key);
                    // What a cluster reports is not what a user asks for.
                    let reported = path.starts_with("status");
                    match self.of(kind, path) {
                        Standing::Listed => {}
                        Standing::Above => self.walk(kind, &entry.value, path, fields),
                        Standing::Unlisted if reported => {}
                        Standing::Unlisted => {
                            fields.insert(path.clone());
                        }
                    }
                    path.truncate(length);
                }
            }
            Value::List(items) => {
                let length = path.len();
                path.push_str("[]");
                items.iter().for_each(|item| self.walk(kind, item, path, fields));
                path.truncate(length);
            }
            Value::Null | Value::Bool(_) | Value::Integer(_) | Value::Float(_) | Value::Text(_) => {}
        }
    }
}

/// How a field stands to the table.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// It is listed, or something above it is.
    Listed,
    /// Something below it is.
    Above,
    Unlisted,
}

fn standing(kind: &str, path: &str) -> Standing {
    if BOOKKEEPING.contains(&path) {
        return Standing::Listed;
    }
    if (kind, path) == ("Deployment", TEMPLATE) {
        return Standing::Above;
    }
    let below = |short: &str, long: &str| {
        long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    let of_kind = EFFECTS.iter().filter(|(k, ..)| *k == kind || *k == "any").map(|(_, field, _)| *field);
    let mut answer = Standing::Unlisted;
    for field in of_kind {
        if below(field, path) {
            return Standing::Listed;
        }
        if below(path, field) {
            answer = Standing::Above;
        }
    }
    answer
}

#[cfg(test)]
mod tests {
    use super::super::tree;
    use super::*;

    #[test]
    fn fields_without_effect_are_named_once() {
        let text = "metadata: {name: a, uid: x, labels: {a: b}, finalizers: [z]}\nspec:\n  tolerations: []\n  nodeName: n\n\
                    \x20 securityContext: {runAsUser: 1, fsGroup: 2}\n  containers:\n\
                    \x20 - {name: a, env: [{name: A, valueFrom: {}}], stdin: true, ports: [{containerPort: 1}]}\n\
                    \x20 - {name: b, stdin: true}\nstatus: {phase: Running, podIP: 10.0.0.1}\n";
        let node = &tree::read_all(text).unwrap()[0];
        let expected = "no effect here: metadata.finalizers, spec.containers[].env[].valueFrom, spec.containers[].stdin, \
                        spec.securityContext.fsGroup, spec.tolerations";
        assert_eq!(Standings::default().without("Pod", node).as_deref(), Some(expected));
        let template = "spec:\n  replicas: 1\n  paused: true\n  template: {spec: {hostname: h, schedulerName: s, initContainers: [{name: a, tty: true}]}}\n";
        let node = &tree::read_all(template).unwrap()[0];
        let expected = "no effect here: spec.paused, spec.template.spec.initContainers[].tty, spec.template.spec.schedulerName";
        assert_eq!(Standings::default().without("Deployment", node).as_deref(), Some(expected));
        assert_eq!(
            Standings::default()
                .without("Pod", &tree::read_all("spec: {containers: [{name: a}]}").unwrap()[0]),
            None
        );
    }

    #[test]
    fn the_documented_table_is_this_one() {
        let text = include_str!("../../MANIFESTS.md");
        let (_, text) = text.split_once("## Fields that have an effect").unwrap();
        let rows: Vec<&str> =
            text.lines().filter(|line| line.starts_with("| `") || line.starts_with("| any")).collect();
        let expected: Vec<String> = EFFECTS
            .iter()
            .map(|(kind, field, effect)| match *kind {
                "any" => format!("| any | `{field}` | {effect} |"),
                kind => format!("| `{kind}` | `{field}` | {effect} |"),
            })
            .collect();
        assert_eq!(rows, expected, "MANIFESTS.md should have these rows:\n{}", expected.join("\n"));
    }
}
