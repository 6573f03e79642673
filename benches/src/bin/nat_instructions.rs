//! Does each piece of work of `vswitch_benches::nat` once, in a function of its own that a profiler can wait for, and prints
//! their names and how many operations each is. The test `instructions` runs it.
#![expect(clippy::print_stdout, reason = "it tells the test what it did")]

use vswitch_benches::nat::{Work, cases};

/// The profiler counts what happens in here.
#[inline(never)]
fn measured(work: &mut dyn Work) {
    work.turn();
}

fn main() {
    let filter = std::env::args().nth(1).unwrap_or_default();
    for case in cases(&[1_000, 60_000]).into_iter().filter(|case| case.name.contains(&filter)) {
        let mut work = (case.begin)();
        // The first turn pays for what the others find ready.
        work.turn();
        work.reset();
        measured(&mut *work);
        println!("{} {}", case.name, work.operations());
    }
}
