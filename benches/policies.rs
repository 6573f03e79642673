//! `cargo bench -p vswitch-benches --bench policies`: what a policy costs a packet, and whether it matters how many there are.
//! The README beside this says what each number means.

mod turns;

use criterion::{Criterion, criterion_group, criterion_main};
use vswitch_benches::policies::cases;

fn policies(criterion: &mut Criterion) {
    let counts: &[u32] = if turns::testing() { &[0, 10] } else { &[0, 1, 100, 1_000, 10_000] };
    turns::measure(criterion, "policies", cases(counts));
}

criterion_group!(benches, policies);
criterion_main!(benches);
