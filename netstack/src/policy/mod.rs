//! Who may talk to whom.
//!
//! # Theory of operation
//! A *subject* is a station that policies are about. For each direction, connections that it opens (egress) and that are
//! opened to it (ingress), it has a [`Ruleset`]: three tiers, asked one after the other.
//!
//! 1. *Admin*: rules in an order. The first that matches accepts, denies, or passes the connection on to the next tier;
//!    where none matches it goes on, too.
//! 2. *Policies*: a set of rules that accept, in whose order nothing lies. Once a station has any, be they none at all, it
//!    is *isolated*: what no rule accepts is denied. Where it is not isolated the connection goes on.
//! 3. *Baseline*: as the first tier. What goes on from here meets the default.
//!
//! A connection is let through if both its ends agree, the source's egress and the destination's ingress, as far as they are
//! subjects here. A station may always talk to itself, and with the node that it lives on.
//!
//! Rules name stations by *group*. Which groups a station is in is kept by its address ([`Peer`]), not with the group: a
//! station that comes or goes changes what is behind its own addresses and nothing else, however many rules name it. All
//! maps are shared by clones ([`lb::Map`]), so that one who keeps them up to date changes a clone and hands it on.
//! A table of rules ([`RuleTable`]) is made once and shared by all whom the same rules are on.
//!
//! Nothing here knows of packets. A switch asks once for each connection that is opened, and again for those that it knows
//! when it has got other policies.

mod blocks;
mod ports;
mod rule;
mod table;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;

use lb::Map;

pub use rule::{Action, Block, GroupId, Peers, PolicyId, PortMatch, PortName, Ports, Rule};
pub use table::RuleTable;

use ports::Asked;

/// What is known of a station that rules may name.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Peer {
    /// The groups that it is in, in order, each once.
    groups: Box<[GroupId]>,
    /// What it calls its ports.
    ports: Box<[NamedPort]>,
}

impl Peer {
    /// A station that is in these groups and calls its ports so.
    pub fn new(
        groups: impl IntoIterator<Item = GroupId>,
        ports: impl IntoIterator<Item = NamedPort>,
    ) -> Self {
        let mut groups: Vec<GroupId> = groups.into_iter().collect();
        groups.sort_unstable();
        groups.dedup();
        Self { groups: groups.into(), ports: ports.into_iter().collect() }
    }

    /// The groups that it is in.
    pub fn groups(&self) -> &[GroupId] {
        &self.groups
    }
}

/// A port of a station, and what the station calls it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct NamedPort {
    /// The name.
    pub name: PortName,
    /// IP protocol number.
    pub protocol: u8,
    /// The port.
    pub number: u16,
}

/// Which way a connection goes, seen from the station that rules are on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Direction {
    /// Somebody opens it to the station.
    Ingress,
    /// The station opens it.
    Egress,
}

impl Direction {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

/// The rules of a station in one direction. A tier without rules is left out.
#[derive(Clone, Debug, Default)]
pub struct Ruleset {
    /// The first tier.
    pub admin: Option<Arc<RuleTable>>,
    /// The second.
    pub isolation: Option<Isolation>,
    /// The third.
    pub baseline: Option<Arc<RuleTable>>,
    /// Whether what all tiers let go on is denied in the end.
    pub denies: bool,
}

/// The second tier of a station that is isolated.
#[derive(Clone, Debug)]
pub struct Isolation {
    /// The policy that what is denied is put down to: the first of those that isolate the station.
    pub by: PolicyId,
    /// What is accepted.
    pub rules: Arc<RuleTable>,
}

impl Ruleset {
    /// Whether nothing is ever denied, because there is nobody who could.
    pub fn is_open(&self) -> bool {
        self.admin.is_none() && self.isolation.is_none() && self.baseline.is_none() && !self.denies
    }

    fn judge(
        &self,
        direction: Direction,
        address: IpAddr,
        peer: Option<&Peer>,
        asked: &Asked<'_>,
    ) -> Judgement {
        let said = |is_allowed, by| Judgement { direction, is_allowed, by };
        let first = |table: &Option<Arc<RuleTable>>| table.as_ref()?.first(address, peer, asked);
        if let Some(rule) = first(&self.admin) {
            let by = By::Admin { policy: rule.policy, rule: rule.number };
            match rule.action {
                Action::Accept => return said(true, by),
                Action::Deny => return said(false, by),
                Action::Pass => {}
            }
        }
        if let Some(isolation) = &self.isolation {
            return match isolation.rules.first(address, peer, asked) {
                Some(rule) => said(true, By::Policy { policy: rule.policy, rule: rule.number }),
                None => said(false, By::Isolation { policy: isolation.by }),
            };
        }
        if let Some(rule) = first(&self.baseline) {
            let by = By::Baseline { policy: rule.policy, rule: rule.number };
            match rule.action {
                Action::Accept => return said(true, by),
                Action::Deny => return said(false, by),
                Action::Pass => {}
            }
        }
        said(!self.denies, By::Default)
    }
}

/// A station that policies are about.
#[derive(Clone, Debug, Default)]
pub struct Subject {
    /// What may be opened to it.
    pub ingress: Arc<Ruleset>,
    /// What it may open.
    pub egress: Arc<Ruleset>,
}

/// A connection that is opened: from whom it really comes, and to whom it really goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Question {
    /// Who opens it, as he is before anybody translates him.
    pub source: IpAddr,
    /// Whom it is opened to, after all translation.
    pub destination: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// The port that is asked for, of protocols that have ports.
    pub port: u16,
}

/// What was said about a connection in one direction.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Judgement {
    /// In which.
    pub direction: Direction,
    /// What.
    pub is_allowed: bool,
    /// Who said it.
    pub by: By,
}

/// Who decided.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum By {
    /// A rule of the first tier.
    Admin {
        /// Its policy.
        policy: PolicyId,
        /// Its place there.
        rule: u32,
    },
    /// A rule of the second.
    Policy {
        /// Its policy.
        policy: PolicyId,
        /// Its place there.
        rule: u32,
    },
    /// No rule of the second tier accepts it, and a policy isolates the station.
    Isolation {
        /// The policy.
        policy: PolicyId,
    },
    /// A rule of the third.
    Baseline {
        /// Its policy.
        policy: PolicyId,
        /// Its place there.
        rule: u32,
    },
    /// Nobody: what holds then.
    Default,
}

impl By {
    /// The policy that decided, if one did.
    pub const fn policy(self) -> Option<PolicyId> {
        match self {
            Self::Admin { policy, .. }
            | Self::Policy { policy, .. }
            | Self::Isolation { policy }
            | Self::Baseline { policy, .. } => Some(policy),
            Self::Default => None,
        }
    }
}

/// What was said about a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Verdict {
    /// By who opens it, if he is a subject.
    pub egress: Option<Judgement>,
    /// By whom it is opened to, if he is one and was asked.
    pub ingress: Option<Judgement>,
}

impl Verdict {
    /// Why it is not let through, if it is not.
    pub fn refusal(&self) -> Option<Judgement> {
        [self.egress, self.ingress].into_iter().flatten().find(|judgement| !judgement.is_allowed)
    }

    /// Whether it is let through.
    pub fn is_allowed(&self) -> bool {
        self.refusal().is_none()
    }
}

/// Stations by address, for all who share them.
#[derive(Clone, Debug, Default)]
pub struct PeerMap(Map<IpAddr, Arc<Peer>>);

impl PeerMap {
    /// Says who is behind an address; none if nobody is any more.
    pub fn set(&mut self, address: IpAddr, peer: Option<Arc<Peer>>) {
        match peer {
            Some(peer) => self.0.insert(address, peer),
            None => {
                self.0.remove(&address);
            }
        }
    }

    /// Who is behind an address.
    pub fn get(&self, address: IpAddr) -> Option<&Arc<Peer>> {
        self.0.get(&address)
    }
}

/// All policies of a switch. A clone costs next to nothing, and a change what it changes.
#[derive(Clone, Default)]
pub struct Policies {
    peers: PeerMap,
    subjects: Map<IpAddr, Arc<Subject>>,
    names: Map<u32, Arc<str>>,
    /// The addresses of the node itself.
    node: Arc<[IpAddr]>,
    audits: bool,
}

impl fmt::Debug for Policies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.names.values().count();
        f.debug_struct("Policies")
            .field("policies", &names)
            .field("audits", &self.audits)
            .finish_non_exhaustive()
    }
}

impl Policies {
    /// Without policies: nobody is forbidden anything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Replaces who is behind which address.
    pub fn set_peers(&mut self, peers: PeerMap) {
        self.peers = peers;
    }

    /// Says what rules are on the station with this address; none if it is no subject any more.
    pub fn set_subject(&mut self, address: IpAddr, subject: Option<Arc<Subject>>) {
        match subject {
            Some(subject) => self.subjects.insert(address, subject),
            None => {
                self.subjects.remove(&address);
            }
        }
    }

    /// Names a policy; none if there is no such policy any more.
    pub fn set_name(&mut self, policy: PolicyId, name: Option<Arc<str>>) {
        match name {
            Some(name) => self.names.insert(policy.0, name),
            None => {
                self.names.remove(&policy.0);
            }
        }
    }

    /// Says which addresses are the node's own, with whom its stations may always talk.
    pub fn set_node(&mut self, addresses: Arc<[IpAddr]>) {
        self.node = addresses;
    }

    /// Has what is denied be counted, and let through all the same.
    pub fn set_audit(&mut self, audits: bool) {
        self.audits = audits;
    }

    /// Whether what is denied is only counted.
    pub fn audits(&self) -> bool {
        self.audits
    }

    /// What a policy is called.
    pub fn name(&self, policy: PolicyId) -> Option<&Arc<str>> {
        self.names.get(&policy.0)
    }

    /// The rules on the station with this address.
    pub fn subject(&self, address: IpAddr) -> Option<&Arc<Subject>> {
        self.subjects.get(&address)
    }

    /// Who is behind an address.
    pub fn peer(&self, address: IpAddr) -> Option<&Arc<Peer>> {
        self.peers.get(address)
    }

    /// Says whether a connection may be opened.
    pub fn judge(&self, question: &Question) -> Verdict {
        let Question { source, destination, .. } = *question;
        let from = self.subjects.get(&source);
        if source == destination {
            return Verdict::default();
        }
        let egress = from.filter(|_| !self.is_node(destination)).map(|subject| {
            let asked = self.asked(question);
            subject.egress.judge(Direction::Egress, destination, asked.of, &asked)
        });
        let goes_on = egress.is_none_or(|judgement| judgement.is_allowed);
        Verdict { egress, ingress: if goes_on { self.judge_ingress(question) } else { None } }
    }

    /// What the one whom a connection is opened to says alone, if he is a subject.
    pub fn judge_ingress(&self, question: &Question) -> Option<Judgement> {
        let Question { source, destination, .. } = *question;
        let subject =
            self.subjects.get(&destination).filter(|_| source != destination && !self.is_node(source))?;
        let sender = self.peers.get(source).map(|peer| &**peer);
        Some(subject.ingress.judge(Direction::Ingress, source, sender, &self.asked(question)))
    }

    fn is_node(&self, address: IpAddr) -> bool {
        self.node.contains(&address)
    }

    fn asked(&self, question: &Question) -> Asked<'_> {
        let Question { destination, protocol, port, .. } = *question;
        Asked { protocol, port, of: self.peers.get(destination).map(|peer| &**peer) }
    }

    /// A judgement in words.
    pub fn describe(&self, judgement: &Judgement) -> String {
        let name = |policy: PolicyId| self.name(policy).map_or("a policy that is no more", |name| &**name);
        let verdict = if judgement.is_allowed { "allowed" } else { "denied" };
        let direction = judgement.direction.name();
        match judgement.by {
            By::Admin { policy, rule } => {
                alloc::format!("{direction} {verdict} by {} (admin tier), {direction}[{rule}]", name(policy))
            }
            By::Policy { policy, rule } => {
                alloc::format!("{direction} {verdict} by {}, {direction}[{rule}]", name(policy))
            }
            By::Isolation { policy } => {
                alloc::format!(
                    "{direction} {verdict}: {} isolates the pod, and no rule allows it",
                    name(policy)
                )
            }
            By::Baseline { policy, rule } => {
                alloc::format!(
                    "{direction} {verdict} by {} (baseline tier), {direction}[{rule}]",
                    name(policy)
                )
            }
            By::Default => alloc::format!("{direction} {verdict}: no policy says otherwise"),
        }
    }
}
