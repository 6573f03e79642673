//! What is measured of a configuration that changes while frames go through.

use std::sync::Arc;
use std::time::Duration;

use netstack::config::{Config, RouteConfig, RouteTarget, Snapshot};
use netstack::switch::Switch;

use crate::flows::{Path, Shape, Stream, config, switch};
use crate::work::{Case, TURN, Work, begin};

/// All pieces of work, for each number of flows that are known.
pub fn cases(flows: &[u32]) -> Vec<Case> {
    let mut cases = Vec::new();
    for &count in flows {
        cases.push(begin(format!("install/{count}"), move || Install(Changing::new(count))));
        cases.push(begin(format!("first/{count}"), move || After {
            changing: Changing::new(count),
            passes: 0,
        }));
        cases.push(begin(format!("then/{count}"), move || After {
            changing: Changing::new(count),
            passes: 3,
        }));
    }
    cases
}

/// A switch with a service whose routes change.
struct Changing {
    stream: Stream<Switch>,
    snapshots: [Arc<Snapshot>; 2],
    flows: u32,
}

impl Changing {
    fn new(flows: u32) -> Self {
        let route = RouteConfig {
            prefix: "203.0.113.0/24".parse().expect("a prefix"),
            target: RouteTarget::Blackhole,
        };
        let plain = config(Path::Balanced, flows);
        let with = Config { routes: vec![route], ..plain.clone() };
        let plain = Snapshot::compile(plain, None).expect("it is good");
        // What did not change is shared, as with every change of a configuration.
        let with = Snapshot::compile(with, Some(&plain)).expect("it is good");
        let snapshots = [with, plain];
        Self {
            stream: Stream::new(switch(Path::Balanced, flows), Shape::new(Path::Balanced, flows)),
            snapshots,
            flows,
        }
    }

    /// Takes up the other configuration; what was known of flows is found out again.
    fn install(&mut self) {
        self.snapshots.swap(0, 1);
        self.stream.forwards.install(Arc::clone(&self.snapshots[0]));
    }

    /// As many frames as there are flows.
    fn pass(&mut self) {
        for _ in 0..self.flows.div_ceil(TURN) {
            self.stream.turn();
            self.stream.reset();
        }
    }
}

/// The change itself.
struct Install(Changing);

impl Work for Install {
    fn operations(&self) -> u32 {
        1
    }

    fn turn(&mut self) {
        self.0.install();
    }

    fn reset(&mut self) {
        self.0.pass();
    }
}

/// Frames after a change and so many frames for each flow.
struct After {
    changing: Changing,
    passes: u32,
}

impl Work for After {
    fn turn(&mut self) {
        self.changing.stream.turn();
    }

    fn reset(&mut self) {
        self.changing.stream.reset();
        self.changing.install();
        for _ in 0..self.passes {
            self.changing.pass();
        }
    }
}

/// Frames of a stretch whose rate is looked at: 32 turns.
const STRETCH: u32 = 32;
/// The most stretches that are waited for.
const ENOUGH: u32 = 10_000;
/// How much longer than before a frame may take when it is said to be as fast, in percent.
const AS_FAST: u128 = 105;

/// How long frames of so many known flows, at full rate, take until they go as fast as before a change of the configuration;
/// nothing when they never do. The rate before is the median of stretches, the one after that of five in a row.
pub fn recovery(flows: u32, clock: impl Fn() -> Duration) -> Option<Duration> {
    let mut changing = Changing::new(flows);
    let stretch = |changing: &mut Changing| {
        let start = clock();
        for _ in 0..STRETCH {
            changing.stream.turn();
            changing.stream.reset();
        }
        (start, clock())
    };
    let took = |(start, end): (Duration, Duration)| (end - start).as_nanos();
    let middle = |times: &[(Duration, Duration)]| {
        let mut times: Vec<u128> = times.iter().copied().map(took).collect();
        times.sort_unstable();
        times[times.len() / 2]
    };
    let before: Vec<_> = (0..200).map(|_| stretch(&mut changing)).collect();
    let usual = middle(&before);
    let changed = clock();
    changing.install();
    let mut after = Vec::new();
    for _ in 0..ENOUGH {
        after.push(stretch(&mut changing));
        let Some(last) = after.last_chunk::<5>() else { continue };
        if middle(last) * 100 <= usual * AS_FAST {
            return Some(last[0].0 - changed);
        }
    }
    None
}
