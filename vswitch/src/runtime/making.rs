//! Making end stations, beside those that they replace.

use netstack::device::Device as _;
use netstack::device::memory::{self, MemoryDevice, MemoryOptions};
use netstack::device::tap::{self, Tap};
use netstack::frame::OffloadFeatures;

use super::difference::Difference;
use super::fabric::Applied;
use super::station::Station;
use super::{LINK_BATCHES, Runtime, RuntimeError};
use crate::cluster::{Cluster, Endpoint, Place};
use crate::helper::{Created, Helper, HelperError, Namespace, NamespaceSpec, Offload, made_of};
use crate::names;

/// Ends the name of a namespace as long as the one that it replaces still stands. No name of a place has that many parts.
const SUCCESSOR: &str = ".new";

/// An end station that has been made and is to be plugged in.
pub(super) struct Made {
    pub(super) endpoint: Endpoint,
    pub(super) namespace: Option<Namespace>,
    pub(super) plug: Plug,
}

pub(super) enum Plug {
    /// Nothing: its link is another's.
    Shared,
    Tap(Tap),
    Station(Box<Station>, MemoryDevice, MemoryDevice),
}

impl Plug {
    pub(super) fn offload(&self) -> OffloadFeatures {
        match self {
            Self::Tap(tap) => tap.offload(),
            Self::Station(..) | Self::Shared => OffloadFeatures::NONE,
        }
    }
}

impl Runtime {
    /// Makes end stations, those that replace another under a name of their own, because the other still stands; if one
    /// cannot be made, none is left. Those that can only be made in the other's absence are left out.
    pub(super) fn make(&self, cluster: &Cluster, difference: &Difference) -> Result<Vec<Made>, RuntimeError> {
        let mut made = Vec::with_capacity(difference.new.len());
        for endpoint in difference.new.iter().filter(|e| !difference.excludes(e)) {
            let mut spec = self.spec(cluster, endpoint);
            if difference.replaced(endpoint).is_some() {
                spec.name.push_str(SUCCESSOR);
            }
            let host = self.host_of(endpoint, &made);
            let one = host.and_then(|host| self.make_one(endpoint, &spec, host.as_ref()));
            made.push(one.inspect_err(|_| self.unmake(&made))?);
        }
        Ok(made)
    }

    /// The namespace that an end station is to share, if it is to have none of its own.
    fn host_of(&self, endpoint: &Endpoint, made: &[Made]) -> Result<Option<Namespace>, RuntimeError> {
        match &endpoint.shares {
            Some(host) if self.in_namespaces => {
                let new = made.iter().find(|one| one.endpoint.place == *host);
                new.and_then(|one| one.namespace.clone()).map_or_else(|| self.namespace(host), Ok).map(Some)
            }
            Some(_) | None => Ok(None),
        }
    }

    fn make_one(
        &self,
        endpoint: &Endpoint,
        spec: &NamespaceSpec,
        host: Option<&Namespace>,
    ) -> Result<Made, RuntimeError> {
        let mut helper = self.helper.lock();
        match (helper.as_mut(), host) {
            (Some(helper), Some(host)) if self.in_namespaces => self.join(helper, endpoint, spec, host),
            (Some(helper), None) if self.in_namespaces => self.make_namespace(helper, endpoint, spec),
            (None, _) if self.in_namespaces => Err(RuntimeError::Helper(HelperError::Gone)),
            // There is nothing in-process to share.
            _ if endpoint.shares.is_some() => {
                Ok(Made { endpoint: endpoint.clone(), namespace: None, plug: Plug::Shared })
            }
            _ => self.make_station(endpoint),
        }
    }

    /// Removes what was made and is not to be. The error that led to it is what the user needs to see; what could not be
    /// undone is in the helper's log.
    pub(super) fn unmake(&self, made: &[Made]) {
        let mut helper = self.helper.lock();
        for namespace in made.iter().filter_map(|one| one.namespace.as_ref()) {
            let _ = helper.as_mut().map(|helper| helper.delete(&namespace.name));
        }
    }

    /// Now that those are gone that are replaced: their successors get their names, and those are made that could not be
    /// before.
    pub(super) fn succeed(
        &self,
        cluster: &Cluster,
        difference: &Difference,
        made: &mut Vec<Made>,
        applied: &mut Applied,
    ) {
        let mut trouble = |place: &Place, what: &dyn std::fmt::Display| {
            applied.problems.push(format!("{place}: {what}"));
        };
        for one in made.iter_mut() {
            let mut helper = self.helper.lock();
            let (Some(helper), Some(namespace)) = (helper.as_mut(), &mut one.namespace) else { continue };
            let Some(name) = namespace.name.strip_suffix(SUCCESSOR).map(str::to_owned) else { continue };
            match helper.rename(&namespace.name, &name) {
                Ok(problems) => {
                    problems.iter().for_each(|problem| trouble(&one.endpoint.place, problem));
                    namespace.name = name;
                }
                Err(error) => trouble(&one.endpoint.place, &error),
            }
        }
        for endpoint in difference.new.iter().filter(|e| difference.excludes(e)) {
            match self.make_one(endpoint, &self.spec(cluster, endpoint), None) {
                Ok(one) => made.push(one),
                Err(error) => {
                    trouble(&endpoint.place, &error);
                }
            }
        }
    }

    fn make_namespace(
        &self,
        helper: &mut Helper,
        endpoint: &Endpoint,
        spec: &NamespaceSpec,
    ) -> Result<Made, RuntimeError> {
        let created = match self.found.lock().remove(&spec.name) {
            Some(namespace) if namespace.alive && namespace.tag == spec.tag => {
                Created { tap: helper.tap(&spec.name)?, namespace }
            }
            Some(_) => {
                helper.delete(&spec.name)?;
                helper.create(spec)?
            }
            None => helper.create(spec)?,
        };
        let mode = if created.namespace.vnet_hdr { tap::Mode::Offload } else { tap::Mode::Plain };
        let tap = Tap::from_fd(created.tap, mode, usize::from(endpoint.mtu))
            .map_err(|source| RuntimeError::Tap { place: endpoint.place.clone(), source })?;
        Ok(Made { endpoint: endpoint.clone(), namespace: Some(created.namespace), plug: Plug::Tap(tap) })
    }

    /// Makes an end station in the network namespace of another, or takes over one that is in that very namespace.
    fn join(
        &self,
        helper: &mut Helper,
        endpoint: &Endpoint,
        spec: &NamespaceSpec,
        host: &Namespace,
    ) -> Result<Made, RuntimeError> {
        let same =
            |found: &Namespace| found.alive && found.tag == spec.tag && found.netns_inode == host.netns_inode;
        let namespace = match self.found.lock().remove(&spec.name) {
            Some(namespace) if same(&namespace) => namespace,
            Some(_) => {
                helper.delete(&spec.name)?;
                helper.join(spec, &host.name)?
            }
            None => helper.join(spec, &host.name)?,
        };
        Ok(Made { endpoint: endpoint.clone(), namespace: Some(namespace), plug: Plug::Shared })
    }

    fn spec(&self, cluster: &Cluster, endpoint: &Endpoint) -> NamespaceSpec {
        spec(cluster, endpoint, self.offload && !self.plain.contains(&endpoint.place))
    }

    fn make_station(&self, endpoint: &Endpoint) -> Result<Made, RuntimeError> {
        let options = MemoryOptions { mtu: usize::from(endpoint.mtu), offload: OffloadFeatures::NONE };
        let (near, far) = memory::pair(LINK_BATCHES, options)?;
        let station = Station::new(endpoint, &self.seed)
            .map_err(|reason| RuntimeError::Station { place: endpoint.place.clone(), reason })?;
        let plug = Plug::Station(Box::new(station), near, far);
        Ok(Made { endpoint: endpoint.clone(), namespace: None, plug })
    }
}

fn spec(cluster: &Cluster, endpoint: &Endpoint, offload: bool) -> NamespaceSpec {
    let mut spec = NamespaceSpec::new(endpoint.place.netns(&cluster.name), endpoint.mac);
    spec.hostname = Some(endpoint.hostname.clone());
    spec.addresses.clone_from(&endpoint.addresses);
    spec.gateway_v4 = endpoint.gateway_v4;
    spec.gateway_v6 = endpoint.gateway_v6;
    spec.mtu = endpoint.mtu;
    spec.offload = if offload { Offload::Auto } else { Offload::Off };
    spec.existing.clone_from(&endpoint.existing);
    spec.tag = made_of(&spec);
    // Programs have read them: whoever stands keeps those that he has, so they do not tell one from another.
    let pod = match &endpoint.place {
        Place::Pod { namespace, name } => {
            cluster.pods.iter().find(|pod| pod.name == *name && pod.namespace == *namespace)
        }
        Place::Node(_) | Place::Host(_) => None,
    };
    // Where there is none, names are not completed with anything of the machine's.
    let machine = || std::fs::read_to_string(&cluster.services.names.resolv_conf).unwrap_or_default();
    spec.files = pod.map(|pod| names::files(cluster, pod, &machine())).unwrap_or_default();
    spec
}
