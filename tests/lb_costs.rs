//! What load balancing costs, in instructions. Times are measured by `cargo bench -p vswitch-benches --bench lb`.

use vswitch_tests::costs;

/// Instructions per operation. To be brought up to date where an operation became cheaper, and with a reason in the commit
/// where it became dearer.
const BUDGETS: &[(&str, f64)] = &[
    ("lb/lookup/65537", 9.0),
    ("lb/find/1", 132.0),
    ("lb/find/10000", 144.8),
    ("lb/choose/1", 421.0),
    ("lb/choose/10000", 433.8),
    ("lb/standing/10000", 14.0),
    ("lb/renewal/1", 69.0),
    ("lb/renewal/10000", 69.0),
    ("lb/set/10", 23_308.0),
    ("lb/set/10000", 28_955.0),
    ("lb/build/65537", 11_055_699.0),
];

#[test]
fn operations_take_the_instructions_that_are_written_down() {
    let Some(counted) = costs::hold("lb_costs", BUDGETS) else { return };
    // A new connection costs the same among 10,000 services as with one; one more service, among 10,000 as among ten.
    let ratio = |many: &str, few: &str| counted[many] / counted[few];
    assert!((0.95..1.05).contains(&ratio("lb/choose/10000", "lb/choose/1")));
    assert!((0.95..1.05).contains(&ratio("lb/renewal/10000", "lb/renewal/1")));
    assert!((0.3..3.0).contains(&ratio("lb/set/10000", "lb/set/10")));
}
