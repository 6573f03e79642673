//! What pods get of the policies that are about them, made once for all pods that the same policies are about.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use netstack::policy::{Isolation, PolicyId, Rule, RuleTable, Ruleset, Subject};

use super::spec::Tier;

/// Of so many that nobody has any more, those that are left are looked through.
const STALE: usize = 1024;

/// What was made of a policy.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) id: PolicyId,
    pub(super) tier: Tier,
    /// None where it says nothing.
    pub(super) ingress: Option<Vec<Rule>>,
    pub(super) egress: Option<Vec<Rule>>,
}

/// Policies in their order, as they are in memory: another version of a policy is another policy. They are kept alive by
/// what was made of them.
type Key = Vec<usize>;

/// What was made, and of what.
#[derive(Debug)]
struct Made<T> {
    made: Weak<T>,
    /// So that no other has their place in memory as long as this is kept.
    _of: Vec<Arc<Compiled>>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Rulesets {
    subjects: HashMap<Key, Made<Subject>>,
    tables: HashMap<(bool, Key), Made<RuleTable>>,
    /// How many there were when they were looked through last.
    swept: usize,
}

fn key(policies: &[&Arc<Compiled>]) -> Key {
    policies.iter().map(|policy| Arc::as_ptr(policy).addr()).collect()
}

fn owned(policies: &[&Arc<Compiled>]) -> Vec<Arc<Compiled>> {
    policies.iter().map(|policy| Arc::clone(policy)).collect()
}

impl Rulesets {
    /// What a pod gets that these are about, in their order; none if nothing is ever denied.
    pub(super) fn subject(&mut self, policies: &[&Arc<Compiled>], denies: bool) -> Option<Arc<Subject>> {
        if policies.is_empty() && !denies {
            return None;
        }
        let key = key(policies);
        if let Some(known) = self.subjects.get(&key).and_then(|made| made.made.upgrade()) {
            return Some(known);
        }
        let ingress = Arc::new(self.ruleset(policies, true, denies));
        let egress = Arc::new(self.ruleset(policies, false, denies));
        let subject = Arc::new(Subject { ingress, egress });
        self.subjects.insert(key, Made { made: Arc::downgrade(&subject), _of: owned(policies) });
        Some(subject)
    }

    fn ruleset(&mut self, policies: &[&Arc<Compiled>], ingress: bool, denies: bool) -> Ruleset {
        let mut table = |tier: Tier| {
            let of = |policy: &&&Arc<Compiled>| policy.tier == tier && rules(policy, ingress).is_some();
            let these: Vec<&Arc<Compiled>> = policies.iter().filter(of).copied().collect();
            let first = these.first()?.id;
            Some((first, self.table(&these, ingress)))
        };
        Ruleset {
            admin: table(Tier::Admin).map(|(_, rules)| rules),
            isolation: table(Tier::Policy).map(|(by, rules)| Isolation { by, rules }),
            baseline: table(Tier::Baseline).map(|(_, rules)| rules),
            denies,
        }
    }

    fn table(&mut self, policies: &[&Arc<Compiled>], ingress: bool) -> Arc<RuleTable> {
        let key = (ingress, key(policies));
        if let Some(known) = self.tables.get(&key).and_then(|made| made.made.upgrade()) {
            return known;
        }
        let table =
            Arc::new(RuleTable::new(policies.iter().filter_map(|policy| rules(policy, ingress)).flatten()));
        self.tables.insert(key, Made { made: Arc::downgrade(&table), _of: owned(policies) });
        table
    }

    /// Forgets what nobody has any more, now and then.
    pub(super) fn sweep(&mut self) {
        if self.subjects.len() + self.tables.len() < 2 * self.swept + STALE {
            return;
        }
        self.subjects.retain(|_, made| made.made.strong_count() > 0);
        self.tables.retain(|_, made| made.made.strong_count() > 0);
        self.swept = self.subjects.len() + self.tables.len();
    }
}

fn rules(policy: &Compiled, ingress: bool) -> Option<&Vec<Rule>> {
    if ingress { policy.ingress.as_ref() } else { policy.egress.as_ref() }
}
