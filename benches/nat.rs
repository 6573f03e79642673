//! `cargo bench -p vswitch-benches --bench nat`: how long the parts of translation take. The README beside this says what
//! each number means.

use std::time::Duration;

use criterion::measurement::{Measurement as _, WallTime};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use vswitch_benches::nat::cases;

fn translation(criterion: &mut Criterion) {
    let testing = std::env::args().any(|argument| argument == "--test");
    let flows: &[u32] = if testing { &[1_000] } else { &[1_000, 100_000, 1_000_000, 10_000_000] };
    let mut group = criterion.benchmark_group("nat");
    group.throughput(Throughput::Elements(1));
    group
        .sample_size(20)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(300));
    for case in cases(flows) {
        // Begun when it is first asked for: a filter may leave it out, and the largest take gigabytes.
        let mut work = None;
        group.bench_function(&case.name, |bencher| {
            let work = work.get_or_insert_with(&case.begin);
            bencher.iter_custom(|turns| {
                // The fastest of a sample's turns stands for all: what else runs on the machine only ever slows them down.
                let mut least = Duration::MAX;
                for _ in 0..turns {
                    let start = WallTime.start();
                    work.turn();
                    least = least.min(WallTime.end(start));
                    work.reset();
                }
                least.mul_f64(turns as f64 / f64::from(work.operations()))
            });
        });
    }
    group.finish();
}

criterion_group!(benches, translation);
criterion_main!(benches);
