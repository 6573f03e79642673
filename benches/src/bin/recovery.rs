//! `recovery FLOWS`: prints the milliseconds that frames of so many known flows take, at full rate, until they go as fast again as
//! before a change of the configuration: for each kind of change, the median of several.
#![expect(clippy::print_stdout, reason = "it tells what it measured")]

use std::time::{Duration, Instant};

use vswitch_benches::swap::{Change, recovery};

/// Changes of each kind that are measured.
const CHANGES: usize = 5;

#[expect(clippy::disallowed_methods, reason = "time enters at the measurement")]
fn main() {
    let flows = std::env::args().nth(1).and_then(|word| word.parse().ok()).expect("a number of flows");
    let start = Instant::now();
    for change in Change::ALL {
        let once = |_| recovery(change, flows, || start.elapsed()).expect("the rate comes back");
        let mut times: Vec<Duration> = (0..CHANGES).map(once).collect();
        times.sort_unstable();
        println!("{} {:.1} ms", change.name(), times[CHANGES / 2].as_secs_f64() * 1e3);
    }
}
