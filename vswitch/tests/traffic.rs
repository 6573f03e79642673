//! Real programs in real pods.
#![allow(clippy::unwrap_used, reason = "all of this file is tests")]

mod common;

use common::{Cluster, ready};

#[test]
fn ping_works_everywhere() {
    if !ready(&["ping"]) {
        return;
    }
    let cluster = Cluster::up("ping", &[]);
    cluster.must("alpha", &["ping", "-c", "1", "-W", "2", "10.244.1.2"]);
}
