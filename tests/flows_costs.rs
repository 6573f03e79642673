//! What a frame costs whose flow is known, in instructions, from the device that it comes in by to the one that it leaves by. Times
//! are measured by `cargo bench -p vswitch-benches --bench flows`.

use vswitch_tests::costs;

/// Instructions per frame. To be brought up to date where an operation became cheaper, and with a reason in the commit where
/// it became dearer.
const BUDGETS: &[(&str, f64)] = &[
    ("flows/null/1", 160.0),
    ("flows/l2/1", 505.0),
    ("flows/l3/1", 730.0),
    ("flows/vip/1", 964.0),
    ("flows/vip/100", 1_005.0),
];

#[test]
fn frames_of_known_flows_take_the_instructions_that_are_written_down() {
    let Some(counted) = costs::hold("flows_costs", BUDGETS) else { return };
    // However many flows there are, as long as they are known.
    assert!(counted["flows/vip/100"] < 1.05 * counted["flows/vip/1"]);
}
