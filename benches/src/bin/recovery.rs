//! `recovery FLOWS`: prints the milliseconds that frames of so many known flows take, at full rate, until they go as fast again as
//! before a change of the configuration: the median of several changes.
#![expect(clippy::print_stdout, reason = "it tells what it measured")]

use std::time::{Duration, Instant};

use vswitch_benches::swap::recovery;

/// Changes that are measured.
const CHANGES: usize = 5;

#[expect(clippy::disallowed_methods, reason = "time enters at the measurement")]
fn main() {
    let flows = std::env::args().nth(1).and_then(|word| word.parse().ok()).expect("a number of flows");
    let start = Instant::now();
    let mut times: Vec<Duration> =
        (0..CHANGES).map(|_| recovery(flows, || start.elapsed()).expect("the rate comes back")).collect();
    times.sort_unstable();
    println!("{:.1} ms", times[CHANGES / 2].as_secs_f64() * 1e3);
}
