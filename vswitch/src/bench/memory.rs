//! What the switch alone costs: whole frames of 64 octets on one thread, without devices and system calls. The pieces of work are
//! those of `cargo bench`.

use std::time::Duration;

use benches::compare::take_turns;
use benches::work::{Work, case};

use super::account::Cost;
use crate::clock;
use crate::progress;

/// What is told, and the work by its name among the benchmarks.
const ROWS: [(&str, &str); 6] = [
    ("bridged", "flows/l2/1"),
    ("routed", "flows/l3/1"),
    ("through a service, 1 flow", "flows/vip/1"),
    ("through a service, 8,000 flows", "flows/vip/8000"),
    ("first packet of a connection", "services/new/1"),
    ("a switch that does nothing", "flows/null/1"),
];

/// Has all of them take turns, for so long each.
///
/// # Errors
/// When a frame was lost, which is told on standard error.
pub(super) fn measure(each: Duration, watched: bool) -> Result<Vec<Cost>, &'static str> {
    // The work has its own checks, which panic.
    std::thread::spawn(move || on_this_thread(each, watched)).join().map_err(|_| "in memory a frame was lost")
}

fn on_this_thread(each: Duration, watched: bool) -> Vec<Cost> {
    let show = |text: &str| {
        if watched {
            progress::show(text);
        }
    };
    show("in memory: filling tables");
    let begin = |(_, name)| case(name).map(|case| (case.begin)());
    let mut works: Vec<Box<dyn Work>> = ROWS.into_iter().filter_map(begin).collect();
    show("in memory: all in turns");
    let (start, whole) = (clock::now(), each * u32::try_from(ROWS.len()).unwrap_or(1));
    let rounds = std::iter::once(()).chain(std::iter::from_fn(|| (start.elapsed() < whole).then_some(())));
    let times = take_turns(&mut works, rounds);
    let cost = |((name, _), times): ((&'static str, _), &benches::compare::Times)| {
        let nanoseconds = times.quantile(1, 10);
        Cost { name, nanoseconds, million_frames_per_second: 1e3 / nanoseconds }
    };
    ROWS.into_iter().zip(&times).map(cost).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_work_of_each_name() {
        for (_, name) in ROWS {
            assert!(case(name).is_some(), "{name}");
        }
    }
}
