//! Services: addresses that are no station's, and who answers what is asked for there.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::net::IpAddr;

use lb::{Origin, Registry};

use super::translator::Translator;
use super::validate::ConfigError;
use super::{Gateway, NatConfig};
use crate::addr::IpNet;
use crate::route::PrefixSet;

/// What a switch that tracks connections knows of services.
#[derive(Clone, PartialEq, Eq, Default)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(default, deny_unknown_fields)
)]
pub struct ServicesConfig {
    /// The services, each with its frontends and backends.
    pub registry: Registry,
    /// Sources that are [`Origin::Inside`]. What comes by a node-local segment is [`Origin::Node`] whatever its source, and
    /// everything else [`Origin::Outside`].
    pub inside: Vec<IpNet>,
    /// Addresses that are given to services. A packet for one of them never leaves as it is: where no service has the
    /// address it is dropped, and what asks a live one for something else is rejected.
    pub ranges: Vec<IpNet>,
    /// The pool of [`NatConfig`] whose addresses masqueraded clients are seen with; without one nobody is masqueraded.
    pub masquerade: Option<String>,
    /// What backends are chosen by, besides who asks: switches with the same key choose alike. Whoever knows it can have one
    /// backend chosen for all that he sends.
    pub key: [u8; 16],
}

impl fmt::Debug for ServicesConfig {
    /// Everything but the key, which stays out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServicesConfig")
            .field("registry", &self.registry)
            .field("inside", &self.inside)
            .field("ranges", &self.ranges)
            .field("masquerade", &self.masquerade)
            .finish_non_exhaustive()
    }
}

/// Services, compiled.
#[derive(Debug)]
pub struct Services {
    config: ServicesConfig,
    inside: PrefixSet,
    ranges: PrefixSet,
    masquerade: Option<usize>,
}

impl Services {
    /// Compiles what was found without errors.
    pub(super) fn compile(config: ServicesConfig, translator: &Translator) -> Arc<Self> {
        let named = |name: &str| translator.pools().iter().position(|pool| is_named(pool.as_ref(), name));
        Arc::new(Self {
            inside: PrefixSet::new(&config.inside),
            ranges: PrefixSet::new(&config.ranges),
            masquerade: config.masquerade.as_deref().and_then(named),
            config,
        })
    }

    /// What it was compiled from.
    pub fn config(&self) -> &ServicesConfig {
        &self.config
    }

    /// Whether two differ in nothing but the services that there are.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let (ours, theirs) = (&self.config, &other.config);
        (&ours.inside, &ours.ranges, self.masquerade) == (&theirs.inside, &theirs.ranges, other.masquerade)
    }

    /// The services.
    #[inline]
    pub fn registry(&self) -> &Registry {
        &self.config.registry
    }

    /// Where a client is whose packet came in by this interface.
    #[inline]
    pub fn origin(&self, gateway: &Gateway, source: IpAddr) -> Origin {
        if gateway.node_local {
            Origin::Node
        } else if self.inside.contains(source) {
            Origin::Inside
        } else {
            Origin::Outside
        }
    }

    /// Whether it is an address that is given to services alone.
    #[inline]
    pub fn is_reserved(&self, address: IpAddr) -> bool {
        self.ranges.contains(address)
    }

    /// The number of the pool that masqueraded clients are seen with.
    #[inline]
    pub fn masquerade(&self) -> Option<usize> {
        self.masquerade
    }
}

fn is_named(pool: Option<&super::nat::PoolConfig>, name: &str) -> bool {
    pool.is_some_and(|pool| pool.name == name)
}

/// Everything that is wrong with `config`, as far as the registry itself has not refused it.
pub(super) fn check(config: &ServicesConfig, nat: Option<&NatConfig>, errors: &mut Vec<ConfigError>) {
    let mut problem = |problem: String| errors.push(ConfigError::Services { problem });
    let Some(nat) = nat else {
        return problem(
            "need connections: add `nat`, with its defaults if nothing else is translated".into(),
        );
    };
    if let Some(name) = &config.masquerade
        && !nat.pools.iter().any(|pool| is_named(Some(pool), name))
    {
        let known: Vec<&str> = nat.pools.iter().map(|pool| pool.name.as_str()).collect();
        let known = if known.is_empty() { "none".to_string() } else { known.join(", ") };
        problem(alloc::format!("masquerade names the pool {name:?}, which is not in `nat` (there: {known})"));
    }
    for (field, nets) in [("inside", &config.inside), ("ranges", &config.ranges)] {
        for net in nets.iter().filter(|net| **net != net.trunc()) {
            let network = net.trunc();
            problem(alloc::format!("{field}: {net} has bits set behind its length; write {network}"));
        }
    }
    for net in config.ranges.iter().filter(|net| net.prefix_len() == 0) {
        problem(alloc::format!("ranges: {net} is every address there is; name those given to services"));
    }
}
