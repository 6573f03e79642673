//! Policies as nodes enforce them, and who can reach whom.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::plane::Plane;
use crate::cluster::Protocol;
use crate::policy::{PolicySpec, RuleSpec, Tier};
use crate::runtime::RuntimeError;

/// Pods that a matrix is made of: with more it has more cells than anybody reads.
pub(super) const MOST_PODS: usize = 300;

/// A policy, whom it is about, and what it has stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PolicyView {
    /// `NetworkPolicy` or `ClusterNetworkPolicy`; `Default` for what holds where no policy says anything.
    pub kind: String,
    /// Its namespace, if it is in one.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// `Admin`, `NetworkPolicy` or `Baseline`.
    pub tier: String,
    /// Within its tier; lower ones are asked first.
    pub priority: Option<i32>,
    /// Which pods it is about, in words.
    pub subject: String,
    /// Those that it is about now.
    pub pods: Vec<String>,
    /// Its rules about what is opened to them, in words; none if it says nothing of that.
    pub ingress: Option<Vec<String>>,
    /// Its rules about what they open.
    pub egress: Option<Vec<String>>,
    /// Whether what is denied is only counted.
    pub audited: bool,
    /// By node: packets that were dropped.
    pub dropped: BTreeMap<String, u64>,
    /// By node: what would have been stopped if policies were enforced.
    pub would_drop: BTreeMap<String, u64>,
}

/// Who can reach whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct MatrixView {
    /// Pods, in order.
    pub pods: Vec<String>,
    /// From each to each: the ports that can be reached, in words; `-` for none, `all` for all there are.
    pub reach: Vec<Vec<String>>,
    /// Each answer.
    pub cells: Vec<CellView>,
}

/// Whether one pod can reach a port of another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct CellView {
    /// Who opens a connection.
    pub from: String,
    /// To whom.
    pub to: String,
    /// At which port, as `TCP/80`.
    pub port: String,
    /// `IPv4` or `IPv6`.
    pub family: String,
    /// Whether it is let through.
    pub allowed: bool,
    /// By which policies and rules.
    pub why: String,
}

/// Every policy, and what holds without one.
///
/// # Errors
/// When the data path has stopped.
pub(super) fn policies(plane: &Plane) -> Result<Vec<PolicyView>, RuntimeError> {
    let runtime = plane.runtime();
    let all = runtime.cluster().policies.clone();
    let counts = runtime.policy_counts()?;
    let of = |title: Option<&str>, which: fn(&netstack::switch::PolicyCounters) -> u64| {
        let mine = counts.iter().filter(|(_, policy, _)| policy.as_deref() == title);
        let by_node = mine.map(|(node, _, counters)| (node.clone(), which(counters)));
        by_node.filter(|(_, count)| *count > 0).collect::<BTreeMap<String, u64>>()
    };
    let audited = all.defaults.audits;
    let mut views: Vec<PolicyView> = all
        .policies
        .iter()
        .map(|(title, spec)| PolicyView {
            audited,
            dropped: of(Some(&**title), |counters| counters.dropped),
            would_drop: of(Some(&**title), |counters| counters.audited),
            pods: runtime.selected(title),
            ..view(spec)
        })
        .collect();
    views.sort_by(|a, b| (&a.kind, &a.namespace, &a.name).cmp(&(&b.kind, &b.namespace, &b.name)));
    if all.defaults.denies {
        views.push(PolicyView {
            kind: "Default".to_owned(),
            namespace: None,
            name: "deny".to_owned(),
            tier: "-".to_owned(),
            priority: None,
            subject: "all pods that no policy says anything about".to_owned(),
            pods: Vec::new(),
            ingress: Some(Vec::new()),
            egress: Some(Vec::new()),
            audited,
            dropped: of(None, |counters| counters.dropped),
            would_drop: of(None, |counters| counters.audited),
        });
    }
    Ok(views)
}

fn view(spec: &PolicySpec) -> PolicyView {
    let words = |rules: &Option<Vec<RuleSpec>>, preposition: &str| {
        let rules = rules.as_ref()?;
        Some(rules.iter().map(|rule| rule.describe(preposition)).collect())
    };
    let kind = match spec.tier {
        Tier::Policy => "NetworkPolicy",
        Tier::Admin | Tier::Baseline => "ClusterNetworkPolicy",
    };
    PolicyView {
        kind: kind.to_owned(),
        namespace: spec.namespace.clone(),
        name: spec.name.clone(),
        tier: spec.tier.name().to_owned(),
        priority: (spec.tier != Tier::Policy).then_some(spec.priority),
        subject: spec.subject.to_string(),
        pods: Vec::new(),
        ingress: words(&spec.ingress, "from"),
        egress: words(&spec.egress, "to"),
        audited: false,
        dropped: BTreeMap::new(),
        would_drop: BTreeMap::new(),
    }
}

/// Who can reach whom, of the pods of a namespace or of all, at the ports that are asked or at those that they have.
///
/// # Errors
/// Why that cannot be said, in a sentence.
pub(super) fn matrix(
    plane: &Plane,
    namespace: Option<&str>,
    ports: Option<&str>,
) -> Result<MatrixView, String> {
    let asked: Vec<(Protocol, u16)> = ports
        .iter()
        .flat_map(|text| text.split(','))
        .filter(|text| !text.is_empty())
        .map(port)
        .collect::<Result<_, _>>()?;
    let cluster = plane.runtime().cluster();
    let inside = |pod: &&crate::cluster::Pod| namespace.is_none_or(|namespace| pod.namespace == namespace);
    let count = cluster.pods.iter().filter(inside).count();
    if count > MOST_PODS {
        return Err(format!(
            "there are {count} pods, and {MOST_PODS} are the most; name a namespace with -n"
        ));
    }
    let matrix = plane.runtime().matrix(&asked, |pod| inside(&pod));
    let name = |at: usize| matrix.ends.get(at).map(|end| end.name.clone()).unwrap_or_default();
    let cell = |cell: &crate::policy::Cell| CellView {
        from: name(cell.from),
        to: name(cell.to),
        port: matrix
            .ends
            .get(cell.to)
            .and_then(|end| end.ports.get(cell.port))
            .map(|port| port.2.clone())
            .unwrap_or_default(),
        family: if cell.v6 { "IPv6" } else { "IPv4" }.to_owned(),
        allowed: cell.allowed,
        why: cell.why.clone(),
    };
    let ends = 0..matrix.ends.len();
    let reach = ends.clone().map(|from| ends.clone().map(|to| matrix.between(from, to)).collect());
    Ok(MatrixView {
        pods: matrix.ends.iter().map(|end| end.name.clone()).collect(),
        reach: reach.collect(),
        cells: matrix.cells.iter().map(cell).collect(),
    })
}

/// `tcp/80`.
fn port(text: &str) -> Result<(Protocol, u16), String> {
    let wrong = || format!("{text:?} is no port; write tcp/80, udp/53 or sctp/9000");
    let (protocol, number) = text.split_once('/').ok_or_else(wrong)?;
    let protocol = Protocol::by_name(&protocol.to_uppercase()).ok_or_else(wrong)?;
    let number = number.parse().ok().filter(|number| *number > 0).ok_or_else(wrong)?;
    Ok((protocol, number))
}
