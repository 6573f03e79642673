//! The data path's threads, and which of them has what.
//!
//! # Theory of operation
//! Each thread turns a driver of its own. A switch lives on one of them from when it stands until it goes, and so does what
//! is plugged into it: devices, in-process pods, its node's userspace proxy. A new switch goes where the fewest are. Threads
//! have nothing in common but the links between switches and the depot of their frames; whoever asks about all switches
//! asks thread by thread, so what he hears is true of each at a time of its own. Threads without a switch sleep.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::DirBuilder;
use std::io;
use std::num::NonZeroUsize;
use std::os::unix::fs::DirBuilderExt as _;
use std::thread::JoinHandle;

use netstack::driver::{Clock, Driver, DriverHandle, EngineId, Latency, Stopped};
use netstack::seed::Seed;
use parking_lot::Mutex;

use super::Options;
use super::questions::Questions;
use crate::confine::{Work, confined};
use crate::names::Forwarder;

/// An engine, and the thread that turns it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct EngineAt {
    pub(super) thread: usize,
    pub(super) id: EngineId,
}

/// The switches by name.
pub(super) type Switches = BTreeMap<String, EngineAt>;

/// One thread.
#[derive(Debug)]
struct Path {
    handle: DriverHandle,
    questions: Questions,
    thread: Mutex<Option<JoinHandle<io::Result<()>>>>,
}

/// All of them. Dropping this stops them.
#[derive(Debug)]
pub(super) struct Paths(Vec<Path>);

impl Paths {
    /// Starts so many threads with nothing to do.
    pub(super) fn start(threads: NonZeroUsize, clock: Clock, latency: Latency) -> io::Result<Self> {
        // If one cannot start, those before it are stopped.
        let mut paths = Self(Vec::with_capacity(threads.get()));
        for number in 0..threads.get() {
            let (handle, thread) = Driver::spawn(clock, &format!("data path {number}"), |driver| {
                driver.set_latency(latency);
                Ok(())
            })?;
            let questions = Questions::new(handle.clone(), clock);
            paths.0.push(Path { handle, questions, thread: Mutex::new(Some(thread)) });
        }
        Ok(paths)
    }

    /// Handles of all of them, in order.
    pub(super) fn handles(&self) -> Vec<DriverHandle> {
        self.0.iter().map(|path| path.handle.clone()).collect()
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// Runs a change on one thread, between two batches.
    pub(super) fn call<R: Send + 'static>(
        &self,
        thread: usize,
        change: impl FnOnce(&mut Driver) -> R + Send + 'static,
    ) -> Result<R, Stopped> {
        self.0[thread].handle.call(change)
    }

    /// Asks one thread, as [`Questions::ask`] does.
    pub(super) fn ask<R: Send + 'static>(
        &self,
        thread: usize,
        question: impl FnOnce(&mut Driver) -> R + Send + 'static,
    ) -> Result<R, Stopped> {
        self.0[thread].questions.ask(question)
    }

    /// Stops all of them and waits for their ends; returns how they ended if not well, in sentences.
    pub(super) fn stop(&self) -> Vec<String> {
        self.0.iter().for_each(|path| path.handle.stop());
        let ended = self.0.iter().enumerate().filter_map(|(number, path)| {
            let thread = path.thread.lock().take()?;
            match thread.join() {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(format!("data path {number} ended with an error: {error}")),
                Err(_) => Some(format!("data path {number} panicked")),
            }
        });
        ended.collect()
    }
}

impl Drop for Paths {
    fn drop(&mut self) {
        self.0.iter().for_each(|path| path.handle.stop());
    }
}

/// Starts the data path's threads and the one that asks for names, confined to their work unless nobody wants that. Says what
/// they could not give up as well.
///
/// # Errors
/// Those of the operating system.
pub(super) fn start(
    options: &Options,
    clock: Clock,
    seed: &Seed,
) -> io::Result<(Paths, Forwarder, BTreeSet<String>)> {
    let start = || Paths::start(options.threads, clock, options.latency);
    let log = options.state.query_log();
    if !options.confined {
        let paths = start()?;
        let forwarder = Forwarder::start(paths.handles(), clock, seed, log)?;
        return Ok((paths, forwarder, BTreeSet::new()));
    }
    // What a thread is to have left must be there when it gives up the rest.
    let logs = options.state.logs();
    DirBuilder::new().recursive(true).mode(0o700).create(&logs)?;
    let (paths, kept) = confined(Work::Frames, start);
    let paths = paths?;
    let handles = paths.handles();
    let (forwarder, also_kept) = confined(Work::Names(&logs), || Forwarder::start(handles, clock, seed, log));
    Ok((paths, forwarder?, kept.into_iter().chain(also_kept).collect()))
}

/// The thread of each switch that is wanted: the one where it stands, else the one that will have the fewest.
pub(super) fn spread<'a>(
    wanted: &[&'a str],
    stands: impl Fn(&str) -> Option<usize>,
    threads: usize,
) -> BTreeMap<&'a str, usize> {
    let mut homes: BTreeMap<&str, usize> =
        wanted.iter().filter_map(|name| Some((*name, stands(name)?))).collect();
    let mut loads = vec![0usize; threads];
    homes.values().for_each(|thread| loads[*thread] += 1);
    for name in wanted {
        homes.entry(name).or_insert_with(|| {
            let thread = (0..threads).min_by_key(|thread| loads[*thread]).unwrap_or_default();
            loads[thread] += 1;
            thread
        });
    }
    homes
}

/// What is to be done, by the thread on which it is.
pub(super) fn by_thread<T>(all: impl IntoIterator<Item = (usize, T)>) -> BTreeMap<usize, Vec<T>> {
    let mut threads: BTreeMap<usize, Vec<T>> = BTreeMap::new();
    all.into_iter().for_each(|(thread, one)| threads.entry(thread).or_default().push(one));
    threads
}

#[cfg(test)]
mod tests {
    use super::*;

    fn homes(wanted: &[&str], standing: &[(&str, usize)], threads: usize) -> Vec<usize> {
        let stands = |name: &str| standing.iter().find(|(other, _)| *other == name).map(|(_, home)| *home);
        let homes = spread(wanted, stands, threads);
        wanted.iter().map(|name| homes[name]).collect()
    }

    #[test]
    fn switches_are_spread_in_turn() {
        assert_eq!(homes(&["a", "b", "underlay"], &[], 1), [0, 0, 0]);
        assert_eq!(homes(&["a", "b", "underlay"], &[], 2), [0, 1, 0]);
        assert_eq!(homes(&["a", "b", "underlay"], &[], 5), [0, 1, 2]);
    }

    #[test]
    fn who_stands_stays_and_who_is_new_goes_where_the_fewest_stay() {
        let standing = [("a", 0), ("b", 1), ("c", 0), ("d", 1), ("underlay", 0)];
        assert_eq!(homes(&["a", "b", "c", "d", "e", "underlay"], &standing, 2), [0, 1, 0, 1, 1, 0]);
        // Those that go do not count.
        assert_eq!(homes(&["b", "d", "e", "f", "g", "underlay"], &standing, 2), [1, 1, 0, 0, 1, 0]);
    }

    #[test]
    fn all_threads_end() {
        let three = NonZeroUsize::new(3).unwrap();
        let paths = Paths::start(three, Clock::start(), Latency::default()).unwrap();
        assert_eq!((0..paths.count()).filter_map(|thread| paths.call(thread, |_| ()).ok()).count(), 3);
        assert_eq!(paths.stop(), [""; 0]);
        assert_eq!(paths.call(2, |_| ()), Err(Stopped));
    }
}
