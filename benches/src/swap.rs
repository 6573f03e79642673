//! What is measured of a configuration that changes while frames go through.

use std::sync::Arc;

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
