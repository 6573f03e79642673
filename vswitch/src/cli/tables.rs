//! What can be listed.

use clap::ValueEnum;

/// A kind of objects, or a table of switches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Table {
    /// Pods.
    #[value(alias = "pod", alias = "po")]
    Pods,
    /// Nodes.
    #[value(alias = "node", alias = "no")]
    Nodes,
    /// Namespaces.
    #[value(alias = "namespace", alias = "ns")]
    Namespaces,
    /// Deployments.
    #[value(alias = "deployment", alias = "deploy")]
    Deployments,
    /// The Cluster object, if there is one.
    #[value(alias = "cluster")]
    Clusters,
    /// Services, with their addresses and ports.
    #[value(alias = "service", alias = "svc")]
    Services,
    /// Whom each Service leads to.
    #[value(alias = "endpoint", alias = "ep")]
    Endpoints,
    /// The same, by port and family, with those that were given.
    #[value(name = "endpointslices", alias = "endpointslice")]
    EndpointSlices,
    /// Address pools of load balancers.
    #[value(name = "ipaddresspools", alias = "ipaddresspool", alias = "pools")]
    Pools,
    /// Which nodes announce them.
    #[value(name = "l2advertisements", alias = "l2advertisement")]
    Advertisements,
    /// Who may talk to whom: policies of namespaces and of the cluster.
    #[value(
        alias = "policy",
        alias = "networkpolicies",
        alias = "networkpolicy",
        alias = "netpol",
        alias = "clusternetworkpolicies",
        alias = "clusternetworkpolicy",
        alias = "cnp"
    )]
    Policies,
    /// What the cluster's names stand for: the zone as it is served.
    #[value(alias = "names")]
    Dns,
    /// Everyone with an address: pods, nodes, hosts.
    #[value(alias = "place", alias = "hosts", alias = "host")]
    Places,
    /// Ports and their counters.
    #[value(alias = "port")]
    Ports,
    /// MAC addresses.
    Fdb,
    /// Neighbours.
    #[value(alias = "neighbor")]
    Neighbors,
    /// Routes.
    #[value(alias = "route")]
    Routes,
    /// Drops by reason.
    #[value(alias = "drop")]
    Drops,
    /// Connections that nodes track, and how they are translated.
    #[value(alias = "connection", alias = "conntrack")]
    Connections,
    /// Ports of this machine that lead inside.
    #[value(alias = "doors")]
    Published,
    /// What happened.
    #[value(alias = "event")]
    Events,
}
