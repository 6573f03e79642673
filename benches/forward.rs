//! `cargo bench -p vswitch-benches`: what the parts of forwarding cost. The README beside this says what each number means.

use std::hint::black_box;

use criterion::{
    BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime,
};
use netstack::addr::MacAddr;
use netstack::frame::OffloadFeatures;
use netstack::parse;
use vswitch_benches::{BATCH, Bed, FOREIGN, Sample, ethernet, mac, super_frame, tcp};

fn parse(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("parse");
    group.throughput(Throughput::Elements(1));
    for (name, sample) in [
        ("ethernet/64B", ethernet(16, mac(17), 64)),
        ("tcp4/64B", tcp(0, 1, false, 64)),
        ("tcp6/74B", tcp(0, 1, true, 74)),
        ("tcp4/1514B", tcp(0, 1, false, 1514)),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let frame = black_box(&sample.bytes[..]);
                parse::link(frame).and_then(|link| parse::network(frame, &link))
            });
        });
    }
    group.finish();
}

/// Measures a switch, and beside it a switch that does nothing, with the same frames.
fn beside_null(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    sample: &Sample,
    batch: u64,
    out_per_frame: u64,
    taking: OffloadFeatures,
) {
    group.throughput(Throughput::Elements(batch));
    let size = sample.bytes.len();
    let mut bed = Bed::switch(taking);
    group.bench_function(format!("{name}/{size}B/batch{batch}"), |bencher| {
        bencher.iter(|| bed.turn(sample, batch));
    });
    bed.check(out_per_frame);
    let mut null = Bed::null();
    group.bench_function(format!("{name}/{size}B/batch{batch}/null"), |bencher| {
        bencher.iter(|| null.turn(sample, batch));
    });
    assert_eq!(null.sent, null.received);
}

fn bridge(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("bridge");
    for size in [64, 1514] {
        beside_null(&mut group, "hit", &ethernet(16, mac(17), size), BATCH, 1, OffloadFeatures::NONE);
        beside_null(&mut group, "managed4", &tcp(0, 1, false, size), BATCH, 1, OffloadFeatures::NONE);
    }
    beside_null(&mut group, "managed6", &tcp(0, 1, true, 74), BATCH, 1, OffloadFeatures::NONE);
    beside_null(&mut group, "hit", &ethernet(16, mac(17), 64), 1, 1, OffloadFeatures::NONE);
    group.finish();
}

fn route(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("route");
    for (name, v6, sizes) in [("v4", false, [64, 1514]), ("v6", true, [74, 1514])] {
        for size in sizes {
            beside_null(&mut group, name, &tcp(0, 9, v6, size), BATCH, 1, OffloadFeatures::NONE);
        }
    }
    group.finish();
}

fn flood(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("flood");
    let copies = u64::from(FOREIGN) - 1;
    for size in [64, 1514] {
        let sample = ethernet(16, MacAddr::BROADCAST, size);
        beside_null(&mut group, &format!("{copies}ports"), &sample, BATCH, copies, OffloadFeatures::NONE);
    }
    group.finish();
}

fn offload(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("offload");
    for (family, v6, headers) in [("v4", false, 54), ("v6", true, 74)] {
        let sample = super_frame(0, 1, v6, headers + 28_000, 1400);
        beside_null(&mut group, &format!("segment/{family}"), &sample, 8, 20, OffloadFeatures::NONE);
        let sample = super_frame(0, 2, v6, headers + 28_000, 1400);
        beside_null(&mut group, &format!("whole/{family}"), &sample, 8, 1, OffloadFeatures::NONE);
    }
    group.finish();
}

criterion_group!(benches, parse, bridge, route, flood, offload);
criterion_main!(benches);
