//! What translation costs, in instructions. Times are measured by `cargo bench -p vswitch-benches --bench nat`.

use vswitch_tests::costs;

/// Instructions per operation. To be brought up to date where an operation became cheaper, and with a reason in the commit
/// where it became dearer.
const BUDGETS: &[(&str, f64)] = &[
    ("nat/parse/v4", 323.0),
    ("nat/parse/v6", 404.0),
    ("nat/lookup/v4/1000", 139.5),
    ("nat/lookup/v4/100000", 139.2),
    ("nat/lookup/v4/1000/batch", 163.9),
    ("nat/lookup/v6/1000", 157.1),
    ("nat/new/v4/1000", 2_446.3),
    ("nat/new/v4/20000", 2_607.2),
    ("nat/new/v4/60000", 2_971.3),
    ("nat/new/v6/1000", 2_895.9),
    ("nat/end/v4/1000", 916.0),
    ("nat/end/v6/1000", 1_136.9),
    ("nat/rewrite/v4/tcp", 51.6),
    ("nat/rewrite/v4/udp", 59.1),
    ("nat/rewrite/v6/tcp", 87.0),
    ("nat/rewrite/v6/udp", 91.0),
    ("nat/established/v4/1000", 1_001.9),
    ("nat/established/v6/1000", 1_098.8),
    ("nat/sweep/v4", 25.2),
    ("nat/sweep/v6", 25.2),
];

#[test]
fn operations_take_the_instructions_that_are_written_down() {
    let Some(counted) = costs::hold("nat_costs", BUDGETS) else { return };
    // What is found in one place costs the same among many; what is random in a new connection is at most 16 draws of a port.
    let ratio = |many: &str, few: &str| counted[many] / counted[few];
    assert!((0.9..1.1).contains(&ratio("nat/lookup/v4/100000", "nat/lookup/v4/1000")));
    assert!((0.9..1.15).contains(&ratio("nat/new/v4/20000", "nat/new/v4/1000")));
    assert!((0.9..1.3).contains(&ratio("nat/new/v4/60000", "nat/new/v4/1000")));
}
