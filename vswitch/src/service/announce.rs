//! Which node announces a load balancer's address: exactly one.

use std::net::IpAddr;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use manifest::L2Advertisement;
use sha2::{Digest as _, Sha256};

use super::Complaints;
use super::pool::{AddressPool, selects};
use crate::cluster::Labels;

/// Which nodes announce which pools.
#[derive(Clone, PartialEq, Debug)]
pub struct Advertisement {
    pools: Vec<String>,
    pool_selectors: Vec<LabelSelector>,
    node_selectors: Vec<LabelSelector>,
}

impl Advertisement {
    /// Reads an object. What has no effect is added to `complaints`.
    pub fn read(object: &L2Advertisement, complaints: &mut Complaints) -> Self {
        if !object.spec.interfaces.is_empty() {
            complaints.warn("spec.interfaces", "has no effect: a node has one interface");
        }
        Self {
            pools: object.spec.ip_address_pools.clone(),
            pool_selectors: object.spec.ip_address_pool_selectors.clone(),
            node_selectors: object.spec.node_selectors.clone(),
        }
    }

    fn covers(&self, pool: &AddressPool) -> bool {
        self.pools.is_empty() && self.pool_selectors.is_empty()
            || self.pools.contains(&pool.name)
            || self.pool_selectors.iter().any(|selector| selects(selector, &pool.labels))
    }

    /// Whether a node may announce addresses of a pool. Without any advertisement every node may.
    pub fn admits(all: &[Self], pool: &AddressPool, labels: &Labels) -> bool {
        all.is_empty()
            || all.iter().any(|one| {
                one.covers(pool)
                    && (one.node_selectors.is_empty()
                        || one.node_selectors.iter().any(|selector| selects(selector, labels)))
            })
    }
}

/// The one of several nodes that has an address: who leaves takes only his own addresses along.
pub fn owner<'a>(address: IpAddr, nodes: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let draw = |node: &&str| {
        let digest = Sha256::new().chain_update(address.to_string()).chain_update([0]).chain_update(node);
        <[u8; 32]>::from(digest.finalize())
    };
    nodes.max_by_key(draw)
}
