//! The rules of one tier, compiled.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::IpAddr;

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use super::Peer;
use super::blocks::BlockTable;
use super::ports::{Asked, PortTable};
use super::rule::{Action, Block, GroupId, Peers, PolicyId, Ports, Rule};

/// A rule by name, and what becomes of what it matches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Matched {
    pub(super) policy: PolicyId,
    pub(super) number: u32,
    pub(super) action: Action,
}

/// Rules, the first of which that matches decides. It is found without trying one after the other: by the groups that the
/// station at the other end is in, by its address, and by what is asked for. So the price of an answer depends on how
/// many groups a station is in and not on how many rules there are.
#[derive(Clone, Debug, Default)]
pub struct RuleTable {
    /// By rank.
    rules: Box<[Matched]>,
    everyone: PortTable,
    groups: HashMap<GroupId, PortTable, FixedState>,
    /// The keys of `groups`, in order.
    named: Box<[GroupId]>,
    blocks: BlockTable,
}

impl RuleTable {
    /// Compiles rules, the first of which that matches decides.
    pub fn new<'a>(rules: impl IntoIterator<Item = &'a Rule>) -> Self {
        let (mut order, mut everyone, mut blocks) = (Vec::new(), Vec::new(), Vec::new());
        let mut groups: BTreeMap<GroupId, Vec<(u32, &Ports)>> = BTreeMap::new();
        for (rank, rule) in (0u32..).zip(rules) {
            let Rule { policy, number, action, peers, ports } = rule;
            order.push(Matched { policy: *policy, number: *number, action: *action });
            match peers {
                Peers::Everyone => everyone.push((rank, ports)),
                Peers::These { groups: these, blocks: those } => {
                    these.iter().for_each(|group| groups.entry(*group).or_default().push((rank, ports)));
                    blocks.extend(those.iter().map(|block: &Block| (rank, ports, block)));
                }
            }
        }
        Self {
            rules: order.into(),
            everyone: PortTable::build(everyone.into_iter()),
            named: groups.keys().copied().collect(),
            groups: groups
                .into_iter()
                .map(|(group, rules)| (group, PortTable::build(rules.into_iter())))
                .collect(),
            blocks: BlockTable::build(&blocks),
        }
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The first rule that matches a connection with `address`, whose station is `peer` if it is known.
    pub(super) fn first(&self, address: IpAddr, peer: Option<&Peer>, asked: &Asked<'_>) -> Option<Matched> {
        let anybody = if self.everyone.is_empty() { None } else { self.everyone.find(asked) };
        let member = peer.and_then(|peer| self.first_of_groups(&peer.groups, asked));
        let ranks = [anybody, member, self.blocks.find(address, asked)];
        let first = ranks.into_iter().flatten().min()?;
        self.rules.get(usize::try_from(first).ok()?).copied()
    }

    /// Whichever are fewer, the station's groups or those that rules name, are looked for among the others.
    fn first_of_groups(&self, groups: &[GroupId], asked: &Asked<'_>) -> Option<u32> {
        let find = |group: &GroupId| self.groups.get(group)?.find(asked);
        if groups.len() <= self.named.len() {
            return groups.iter().filter_map(find).min();
        }
        self.named.iter().filter(|group| groups.binary_search(group).is_ok()).filter_map(find).min()
    }
}
