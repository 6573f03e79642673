//! `compare [--rounds N] FIRST NAME...`: takes the time of pieces of work in turns, and prints for each its nanoseconds for an
//! operation and what that is beside the first.
#![expect(clippy::print_stdout, reason = "it tells what it measured")]

use vswitch_benches::compare::take_turns;
use vswitch_benches::work::{Work, case};

/// How often each is measured, unless it is said.
const ROUNDS: usize = 300;

fn main() {
    let mut names: Vec<String> = std::env::args().skip(1).collect();
    let mut rounds = ROUNDS;
    if names.first().is_some_and(|word| word == "--rounds") {
        rounds = names.get(1).and_then(|number| number.parse().ok()).expect("a number after --rounds");
        names.drain(..2);
    }
    let mut works: Vec<Box<dyn Work>> = names
        .iter()
        .map(|name| (case(name).unwrap_or_else(|| panic!("there is no {name}")).begin)())
        .collect();
    let times = take_turns(&mut works, 0..rounds);
    println!(
        "{:32} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "ns for an operation", "fastest", "tenth", "median", "beside", "by tenth"
    );
    for (name, of) in names.iter().zip(&times) {
        println!(
            "{name:32} {:9.1} {:9.1} {:9.1} {:8.1}% {:8.1}%",
            of.quantile(0, 1),
            of.quantile(1, 10),
            of.quantile(1, 2),
            100.0 * of.beside(&times[0]).quantile(1, 2),
            100.0 * of.quantile(1, 10) / times[0].quantile(1, 10),
        );
    }
}
