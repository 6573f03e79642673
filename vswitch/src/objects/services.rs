//! Services and what belongs to them: read, checked against each other, and given what they ask for.
//!
//! # Theory of operation
//! Unlike the rest of a cluster they are not computed all at once: there may be thousands, and one that is applied should
//! not cost what all of them cost. A [`Plan`] is a persistent value. A change makes another from it, which shares all that
//! has not changed, and is thrown away if the change is refused.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use manifest::{Invalid, Key, Located, Object, Problem};
use rpds::HashTrieMapSync as Map;

use super::Store;
use crate::cluster::{Cluster, Labels};
use crate::service::{
    AddressPool, Advertisement, Allocation, Book, Complaints, Draft, Family, Frame, Kind, Planned, Pools,
    Slice, Spec, Surroundings,
};

/// Kinds of objects that concern every Service.
const FRAME: [&str; 4] = ["Cluster", "IPAddressPool", "L2Advertisement", "Namespace"];

/// All Services with what they have, and all slices. A clone costs next to nothing.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Services, `NAMESPACE/NAME`.
    pub services: Map<Arc<str>, Arc<Planned>>,
    /// Slices, `NAMESPACE/NAME`.
    pub slices: Map<Arc<str>, Arc<Slice>>,
    /// Where load balancer addresses come from.
    pub pools: Arc<Pools>,
    /// Who announces them.
    pub advertisements: Arc<[Advertisement]>,
    /// What Services have in common.
    pub frame: Arc<Frame>,
    book: Book,
}

/// What of a [`Plan`] changes.
#[derive(Clone, Debug, Default)]
pub struct Planning {
    /// The plan afterwards.
    pub plan: Plan,
    /// Services that changed; those that are gone without what they have.
    pub services: Vec<(Arc<str>, Option<Arc<Planned>>)>,
    /// Slices that changed.
    pub slices: Vec<(Arc<str>, Option<Arc<Slice>>)>,
    /// What is probably not meant as it is written.
    pub warnings: Vec<Problem>,
}

impl Plan {
    /// Makes the plan of `store`, of which `changed` differs from what this plan was made of: everything if none. The
    /// cluster is that of `store`; `remembered` is what Services had in an earlier life.
    ///
    /// # Errors
    /// Every fault of every Service and slice.
    pub fn change(
        &self,
        store: &Store,
        changed: Option<&[Key]>,
        cluster: &Cluster,
        remembered: &BTreeMap<String, Allocation>,
    ) -> Result<Planning, Invalid> {
        let all = changed.is_none_or(|keys| keys.iter().any(|key| FRAME.contains(&key.kind)));
        let mut work = Work { store, remembered, planning: Planning::default(), problems: Vec::new() };
        work.planning.plan = self.clone();
        if all {
            work.frame(cluster);
            work.planning.plan.book = Book::default();
        }
        let keys: Vec<Key> = match changed.filter(|_| !all) {
            Some(keys) => keys.to_vec(),
            None => self.keys().chain(store.keys().cloned()).collect(),
        };
        work.slices(&keys);
        work.services(&keys, cluster, all);
        match work.problems.is_empty() {
            true => Ok(work.planning),
            false => Err(Invalid::new(work.problems)),
        }
    }

    /// What Services have, to be remembered.
    pub fn allocations(&self) -> BTreeMap<String, Allocation> {
        let all = self.services.iter().filter(|(_, planned)| planned.allocation != Allocation::default());
        all.map(|(name, planned)| (name.to_string(), planned.allocation.clone())).collect()
    }

    fn keys(&self) -> impl Iterator<Item = Key> + '_ {
        let services = self.services.keys().map(|name| key("Service", name));
        services.chain(self.slices.keys().map(|name| key("EndpointSlice", name)))
    }
}

fn key(kind: &'static str, full_name: &str) -> Key {
    let (namespace, name) = full_name.split_once('/').unwrap_or(("", full_name));
    Key { kind, namespace: namespace.to_owned(), name: name.to_owned() }
}

fn full_name(key: &Key) -> Arc<str> {
    format!("{}/{}", key.namespace, key.name).into()
}

struct Work<'a> {
    store: &'a Store,
    remembered: &'a BTreeMap<String, Allocation>,
    planning: Planning,
    problems: Vec<Problem>,
}

impl Work<'_> {
    fn tell(&mut self, at: &Located, complaints: Complaints) {
        let problem = |(path, message): (String, String)| at.problem(&path, message);
        self.problems.extend(complaints.faults.into_iter().map(problem));
        self.planning.warnings.extend(complaints.warnings.into_iter().map(problem));
    }

    /// Pools and all else that every Service looks at.
    fn frame(&mut self, cluster: &Cluster) {
        let mut pools = Pools::default();
        let mut advertisements = Vec::new();
        for at in self.store.iter() {
            let mut complaints = Complaints::default();
            if let Object::Namespace(namespace) = &at.object {
                let labels: Labels = namespace.metadata.labels.clone().unwrap_or_default();
                pools.namespaces.insert(at.object.key().name, labels);
            } else if let Object::IPAddressPool(object) = &at.object {
                let pool = AddressPool::read(object, &mut complaints);
                let overlap = |(first, last): &(IpAddr, IpAddr)| {
                    pools.pools.iter().find(|other| {
                        other
                            .ranges
                            .iter()
                            .any(|(a, b)| a.is_ipv4() == first.is_ipv4() && a <= last && first <= b)
                    })
                };
                if let Some(other) = pool.ranges.iter().find_map(overlap) {
                    let message = format!("overlap with those of the IPAddressPool {}", other.name);
                    complaints.fault("spec.addresses", message);
                }
                pools.pools.push(pool);
            } else if let Object::L2Advertisement(object) = &at.object {
                advertisements.push(Advertisement::read(object, &mut complaints));
            }
            self.tell(at, complaints);
        }
        let plan = &mut self.planning.plan;
        plan.pools = Arc::new(pools);
        plan.advertisements = advertisements.into();
        plan.frame = Arc::new(cluster.services.clone());
    }

    fn slices(&mut self, keys: &[Key]) {
        let mut seen = HashSet::new();
        for key in keys.iter().filter(|key| key.kind == "EndpointSlice" && seen.insert(*key)) {
            let name = full_name(key);
            let located = self.store.get(key).map(|at| (at, &at.object));
            let slice = if let Some((at, Object::EndpointSlice(object))) = located {
                let mut complaints = Complaints::default();
                let slice = Slice::read(object, &key.namespace, &mut complaints);
                self.tell(at, complaints);
                Some(Arc::new(slice))
            } else {
                None
            };
            match &slice {
                Some(slice) => self.planning.plan.slices.insert_mut(Arc::clone(&name), Arc::clone(slice)),
                None => {
                    self.planning.plan.slices.remove_mut(&name);
                }
            }
            self.planning.slices.push((name, slice));
        }
    }

    fn services(&mut self, keys: &[Key], cluster: &Cluster, all: bool) {
        let mut drafts = Vec::new();
        let mut located = Vec::new();
        let mut seen = HashSet::new();
        for key in keys.iter().filter(|key| key.kind == "Service" && seen.insert(*key)) {
            let name = full_name(key);
            let standing = self.planning.plan.services.get(&name).cloned();
            if let Some(planned) = standing.as_ref().filter(|_| !all) {
                self.planning.plan.book.release(planned);
            }
            self.planning.plan.services.remove_mut(&name);
            let Some(at) = self.store.get(key) else {
                self.planning.services.push((name, None));
                continue;
            };
            let Object::Service(object) = &at.object else { continue };
            let mut complaints = Complaints::default();
            let spec = Spec::read(object, &key.namespace, &key.name, &mut complaints);
            drafts.push(Draft::new(spec, standing, self.remembered.get(&*name), complaints));
            located.push((name, at));
        }
        let in_use = OnceCell::new();
        let in_use = |address| in_use.get_or_init(|| addresses(cluster)).contains(&address);
        let Plan { frame, pools, .. } = &self.planning.plan;
        let (frame, pools) = (Arc::clone(frame), Arc::clone(pools));
        let around = Surroundings { frame: &frame, pools: &pools, in_use: &in_use };
        self.planning.plan.book.plan(&mut drafts, &around);
        for (mut draft, (name, at)) in drafts.into_iter().zip(located) {
            let complaints = std::mem::take(&mut draft.complaints);
            let planned = Arc::new(Planned::from(draft));
            self.tell(at, complaints);
            self.warn_of_open_family(at, &planned);
            self.planning.plan.services.insert_mut(Arc::clone(&name), Arc::clone(&planned));
            self.planning.services.push((name, Some(planned)));
        }
    }

    /// Source ranges hold for their own family alone.
    fn warn_of_open_family(&mut self, at: &Located, planned: &Planned) {
        let ranges = &planned.spec.source_ranges;
        let covered = |family: &Family| ranges.iter().any(|net| Family::of(net.addr()) == *family);
        if planned.spec.kind == Kind::LoadBalancer
            && !ranges.is_empty()
            && let Some(family) = planned.families.iter().find(|family| !covered(family))
        {
            let message =
                format!("no {} prefix is among them: anybody may ask by that family", family.name());
            self.planning.warnings.push(at.problem("spec.loadBalancerSourceRanges", message));
        }
    }
}

/// Every address that somebody has.
fn addresses(cluster: &Cluster) -> HashSet<IpAddr> {
    let gateways = cluster.segments.iter().flat_map(|s| &s.gateways);
    let gateways = gateways.chain(cluster.nodes.iter().flat_map(|n| &n.gateways)).map(ipnet::IpNet::addr);
    let nodes = cluster.nodes.iter().flat_map(|n| n.addresses.iter().copied());
    let pods = cluster.pods.iter().flat_map(|p| p.addresses.iter().copied());
    let hosts = cluster.hosts.iter().flat_map(|h| h.addresses.iter().copied());
    let servers = cluster.services.names.servers.iter().copied();
    gateways.chain(nodes).chain(pods).chain(hosts).chain(servers).collect()
}
