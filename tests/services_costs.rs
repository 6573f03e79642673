//! What a service costs a packet and a new connection in the switch, in instructions. Times are measured by
//! `cargo bench -p vswitch-benches --bench services`.

use vswitch_tests::costs;

/// Instructions per frame. To be brought up to date where an operation became cheaper, and with a reason in the commit where
/// it became dearer.
const BUDGETS: &[(&str, f64)] = &[
    ("services/packet/0", 879.0),
    ("services/packet/1", 933.0),
    ("services/packet/10000", 934.0),
    ("services/new/0", 5_631.0),
    ("services/new/1", 6_849.0),
    ("services/new/10000", 6_857.0),
];

#[test]
fn frames_take_the_instructions_that_are_written_down() {
    let Some(counted) = costs::hold("services_costs", BUDGETS) else { return };
    let ratio = |many: &str, few: &str| counted[many] / counted[few];
    // Among 10,000 services as with one.
    assert!((0.95..1.05).contains(&ratio("services/packet/10000", "services/packet/1")));
    assert!((0.9..1.1).contains(&ratio("services/new/10000", "services/new/1")));
}
