//! What is measured of a configuration that changes while frames go through.

use std::sync::Arc;
use std::time::Duration;

use netstack::addr::{MacAddr, PortId};
use netstack::config::{Config, PortConfig, RouteConfig, RouteTarget, Snapshot, Station, VlanMode};
use netstack::switch::Switch;

use crate::flows::{Path, Shape, Stream, config, switch};
use crate::work::{Case, TURN, Work, begin};

/// All pieces of work, for each number of flows that are known.
pub fn cases(flows: &[u32]) -> Vec<Case> {
    let mut cases = Vec::new();
    for &count in flows {
        for change in Change::ALL {
            let name = |what: &str| format!("{what}/{count}/{}", change.name());
            let changing = move || Changing::new(change, count);
            cases.push(begin(name("install"), move || Install(changing())));
            cases.push(begin(name("first"), move || After { changing: changing(), passes: 0 }));
            cases.push(begin(name("then"), move || After { changing: changing(), passes: 3 }));
        }
    }
    cases
}

/// What a configuration has more than the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Change {
    /// A route.
    Route,
    /// A port with a managed station behind it.
    Pod,
    /// A smaller MTU on a segment, which may concern every flow.
    Mtu,
}

impl Change {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Route, Self::Pod, Self::Mtu];

    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Route => "route",
            Self::Pod => "pod",
            Self::Mtu => "mtu",
        }
    }

    fn of(self, mut config: Config) -> Config {
        match self {
            Self::Route => config.routes.push(RouteConfig {
                prefix: "203.0.113.0/24".parse().expect("a prefix"),
                target: RouteTarget::Blackhole,
            }),
            Self::Pod => {
                let id = PortId(u16::try_from(config.ports.len()).expect("a few ports"));
                let mac = MacAddr([2, 0, 0, 0, 0xcc, 1]);
                let segment = &config.segments[1];
                let gateway = segment.gateway.as_ref().expect("it is routed");
                let addresses = gateway.addresses.iter().filter_map(|net| net.hosts().last()).collect();
                let port = PortConfig::new(id, "another", VlanMode::Access(segment.id));
                config.ports.push(PortConfig { station: Station::Managed { mac, addresses }, ..port });
            }
            Self::Mtu => config.segments[1].mtu -= 1,
        }
        config
    }
}

/// A switch with a service whose configuration changes.
struct Changing {
    stream: Stream<Switch>,
    /// The one that there is, and the other.
    configs: [Config; 2],
    next: Arc<Snapshot>,
    flows: u32,
}

impl Changing {
    fn new(change: Change, flows: u32) -> Self {
        let plain = config(Path::Balanced, flows);
        let configs = [plain.clone(), change.of(plain)];
        let stream = Stream::new(switch(Path::Balanced, flows), Shape::new(Path::Balanced, flows));
        let next = Arc::clone(stream.forwards.snapshot());
        let mut changing = Self { stream, configs, next, flows };
        changing.prepare();
        changing
    }

    /// Compiles the other configuration from the one that there is, as every change of a configuration is.
    fn prepare(&mut self) {
        let before = self.stream.forwards.snapshot();
        self.next = Snapshot::compile(self.configs[1].clone(), Some(before)).expect("it is good");
    }

    /// Takes up the other configuration, which was compiled beforehand.
    fn install(&mut self) {
        self.configs.swap(0, 1);
        self.stream.forwards.install(Arc::clone(&self.next));
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
        self.0.prepare();
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
        self.changing.prepare();
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
pub fn recovery(change: Change, flows: u32, clock: impl Fn() -> Duration) -> Option<Duration> {
    let mut changing = Changing::new(change, flows);
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
