//! `compare FIRST NAME...`: takes the time of pieces of work in turns, so that whatever slows the machine down slows them all
//! down, and prints for each its nanoseconds for an operation and what that is beside the first.
#![expect(clippy::print_stdout, reason = "it tells what it measured")]

use std::time::Duration;

use vswitch_benches::work::{Work, case};

/// How often each is measured.
const ROUNDS: usize = 300;

#[expect(clippy::disallowed_methods, reason = "time enters at the measurement")]
fn time(work: &mut dyn Work) -> Duration {
    let start = std::time::Instant::now();
    work.turn();
    start.elapsed()
}

/// The value that this part of them is below.
fn quantile(values: &[f64], part: usize, of: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[(sorted.len() - 1) * part / of]
}

fn main() {
    let names: Vec<String> = std::env::args().skip(1).collect();
    let mut works: Vec<Box<dyn Work>> = names
        .iter()
        .map(|name| (case(name).unwrap_or_else(|| panic!("there is no {name}")).begin)())
        .collect();
    let mut times: Vec<Vec<f64>> = vec![Vec::with_capacity(ROUNDS); works.len()];
    for _ in 0..ROUNDS {
        for (work, times) in works.iter_mut().zip(&mut times) {
            // The first turn brings back what the others have driven out of the caches.
            time(&mut **work);
            work.reset();
            times.push(time(&mut **work).as_secs_f64() * 1e9 / f64::from(work.operations()));
            work.reset();
        }
    }
    println!(
        "{:32} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "ns for an operation", "fastest", "tenth", "median", "beside", "by tenth"
    );
    for (name, of) in names.iter().zip(&times) {
        let beside: Vec<f64> = of.iter().zip(&times[0]).map(|(this, first)| this / first).collect();
        println!(
            "{name:32} {:9.1} {:9.1} {:9.1} {:8.1}% {:8.1}%",
            quantile(of, 0, 1),
            quantile(of, 1, 10),
            quantile(of, 1, 2),
            100.0 * quantile(&beside, 1, 2),
            100.0 * quantile(of, 1, 10) / quantile(&times[0], 1, 10),
        );
    }
}
