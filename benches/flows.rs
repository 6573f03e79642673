//! `cargo bench -p vswitch-benches --bench flows`: what a frame costs whose flow is known, among how many. The README beside
//! this says what each number means.

mod turns;

use criterion::{Criterion, criterion_group, criterion_main};
use vswitch_benches::flows::cases;

fn flows(criterion: &mut Criterion) {
    let counts: &[u32] =
        if turns::testing() { &[1] } else { &[1, 100, 8_000, 100_000, 1_000_000, 10_000_000] };
    turns::measure(criterion, "flows", cases(counts));
}

criterion_group!(benches, flows);
criterion_main!(benches);
