//! `cargo bench -p vswitch-benches --bench nat`: how long the parts of translation take. The README beside this says what
//! each number means.

mod turns;

use criterion::{Criterion, criterion_group, criterion_main};
use vswitch_benches::nat::cases;

fn translation(criterion: &mut Criterion) {
    let flows: &[u32] = if turns::testing() { &[1_000] } else { &[1_000, 100_000, 1_000_000, 10_000_000] };
    turns::measure(criterion, "nat", cases(flows));
}

criterion_group!(benches, translation);
criterion_main!(benches);
