//! `cargo bench -p vswitch-benches --bench swap`: what it costs to change the configuration while frames go through. The README
//! beside this says what each number means.

mod turns;

use criterion::{Criterion, criterion_group, criterion_main};
use vswitch_benches::swap::cases;

fn swap(criterion: &mut Criterion) {
    let counts: &[u32] = if turns::testing() { &[1] } else { &[1, 100_000] };
    turns::measure(criterion, "swap", cases(counts));
}

criterion_group!(benches, swap);
criterion_main!(benches);
