//! What policies cost a packet and a new connection in the switch, in instructions. Times are measured by
//! `cargo bench -p vswitch-benches --bench policies`.

use vswitch_tests::costs;

/// Instructions per frame. To be brought up to date where an operation became cheaper, and with a reason in the commit where
/// it became dearer.
const BUDGETS: &[(&str, f64)] = &[
    ("policies/packet/0", 879.0),
    ("policies/packet/10000", 879.0),
    ("policies/new/0", 5_593.0),
    ("policies/new/1", 6_501.0),
    ("policies/new/10000", 6_658.0),
    ("policies/new/10000/one", 7_238.0),
];

#[test]
fn frames_take_the_instructions_that_are_written_down() {
    let Some(counted) = costs::hold("policies_costs", BUDGETS) else { return };
    let ratio = |many: &str, few: &str| counted[many] / counted[few];
    // What is known costs what it does without policies.
    assert!((0.97..1.03).contains(&ratio("policies/packet/10000", "policies/packet/0")));
    // Among 10,000 policies as with one; also where all of them are about the station that is asked.
    assert!((0.9..1.1).contains(&ratio("policies/new/10000", "policies/new/1")));
    assert!((0.9..1.15).contains(&ratio("policies/new/10000/one", "policies/new/1")));
}
