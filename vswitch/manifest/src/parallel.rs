//! Work on many things at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// The most threads at once: more would wait for memory.
const MOST_THREADS: usize = 8;
/// So many items are taken at a time, unless there are too few for every thread to take some.
const AT_ONCE: usize = 64;

/// What `work` makes of each of `items`, in their order. As many threads take part as there are processors, the calling one
/// among them; each takes some more when it is done with those it has, so that slow ones hold nobody up for longer than
/// that.
pub fn each<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(MOST_THREADS).min(items.len());
    if threads <= 1 {
        return items.iter().map(work).collect();
    }
    let some: Vec<&[T]> = items.chunks((items.len() / (4 * threads)).clamp(1, AT_ONCE)).collect();
    let next = AtomicUsize::new(0);
    let done: Mutex<Vec<(usize, Vec<R>)>> = Mutex::new(Vec::with_capacity(some.len()));
    let take = || {
        while let Some((at, items)) = {
            let at = next.fetch_add(1, Ordering::Relaxed);
            some.get(at).map(|items| (at, items))
        } {
            let results = items.iter().map(&work).collect();
            done.lock().unwrap_or_else(PoisonError::into_inner).push((at, results));
        }
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            // Where there can be no other thread, this one does it all.
            let _ = thread::Builder::new().name("parallel".to_owned()).spawn_scoped(scope, take);
        }
        take();
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_unstable_by_key(|(at, _)| *at);
    done.into_iter().flat_map(|(_, results)| results).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_in_the_order_of_the_items() {
        for count in [0, 1, 7, 1000] {
            let items: Vec<usize> = (0..count).collect();
            assert_eq!(each(&items, |item| item * 2), items.iter().map(|item| item * 2).collect::<Vec<_>>());
        }
    }
}
