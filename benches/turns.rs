//! Takes the time of pieces of work.

use std::time::Duration;

use criterion::measurement::{Measurement as _, WallTime};
use criterion::{Criterion, Throughput};
use vswitch_benches::work::Case;

/// Measures each case in a group of this name.
pub(crate) fn measure(criterion: &mut Criterion, group: &str, cases: Vec<Case>) {
    let mut group = criterion.benchmark_group(group);
    group.throughput(Throughput::Elements(1));
    group
        .sample_size(20)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(300));
    for case in cases {
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

/// Whether each case is only to be run once, as few as they can be.
pub(crate) fn testing() -> bool {
    std::env::args().any(|argument| argument == "--test")
}
