//! `instructions NAME...`: does these pieces of work (`nat/lookup/v4/1000`, `lb/choose/10`), in a function of its own that a
//! profiler can wait for, and prints for each its name and how many operations it is. The tests of costs run it.
#![expect(clippy::print_stdout, reason = "it tells the test what it did")]

use vswitch_benches::work::{Work, case};

/// The profiler counts what happens in here.
#[inline(never)]
fn measured(work: &mut dyn Work) {
    work.turn();
}

fn main() {
    for name in std::env::args().skip(1) {
        let case = case(&name).unwrap_or_else(|| panic!("there is no {name}"));
        let mut work = (case.begin)();
        // The first turn pays for what the others find ready.
        work.turn();
        work.reset();
        measured(&mut *work);
        println!("{name} {}", work.operations());
    }
}
