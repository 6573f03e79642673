//! `cargo bench -p vswitch-benches --bench lb`: how long the parts of load balancing take. The README beside this says what
//! each number means.

mod turns;

use criterion::{Criterion, criterion_group, criterion_main};
use vswitch_benches::lb::cases;

fn balancing(criterion: &mut Criterion) {
    let services: &[u32] = if turns::testing() { &[10] } else { &[1, 10, 100, 1_000, 10_000] };
    turns::measure(criterion, "lb", cases(services));
}

criterion_group!(benches, balancing);
criterion_main!(benches);
