//! A laboratory around one switch: virtual time, frames in and out, and counters that must be accounted for.
//!
//! After every verb the switch's equations of conservation are checked, and the octets it counts are compared with those
//! that really went in and out. Every counter that moves must be stated by [`Lab::expect`]: what moved and was not
//! stated fails the test, at the latest when the lab is dropped. [`Lab::settle`] states everything at once, for
//! preparations.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::Mul;
use std::sync::Arc;
use std::time::Duration;

use netstack::addr::PortId;
use netstack::config::{Config, Limits, Snapshot};
use netstack::event::Event;
use netstack::frame::{Frame, FrameBatch, FramePool};
use netstack::offload::{Checksum, Offload};
use netstack::seed::Seed;
use netstack::switch::{Switch, Trace};
use netstack::verdict::{DropReason, EgressDrop, Fate, Origin};

/// Ports that a lab looks at.
const PORTS: u16 = 16;

/// One counter of one port.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Counter {
    Rx(u16),
    Tx(u16),
    Fate(u16, Fate),
    Drop(u16, DropReason),
    Origin(u16, Origin),
    Egress(u16, EgressDrop, Origin),
    Replaced(u16, Origin),
    ParkedDrop(u16, DropReason),
}

/// Counters that move together.
#[derive(Clone, Debug)]
pub(crate) struct Change(Vec<(Counter, u64)>);

impl Mul<u64> for Change {
    type Output = Self;

    fn mul(mut self, times: u64) -> Self {
        self.0.iter_mut().for_each(|(_, by)| *by *= times);
        self
    }
}

/// A frame came in by `port` and met this fate.
pub(crate) fn entered(port: u16, fate: Fate) -> Change {
    Change(vec![(Counter::Rx(port), 1), (Counter::Fate(port, fate), 1)])
}

/// A frame came in by `port` and was dropped.
pub(crate) fn dropped(port: u16, reason: DropReason) -> Change {
    let mut change = entered(port, Fate::Dropped);
    change.0.push((Counter::Drop(port, reason), 1));
    change
}

/// A frame was queued for `port` and handed to its device.
pub(crate) fn left(port: u16, origin: Origin) -> Change {
    Change(vec![(Counter::Origin(port, origin), 1), (Counter::Tx(port), 1)])
}

/// A frame was queued for `port`.
pub(crate) fn queued(port: u16, origin: Origin) -> Change {
    Change(vec![(Counter::Origin(port, origin), 1)])
}

/// A frame was on its way out of `port` and was not queued.
pub(crate) fn refused(port: u16, reason: EgressDrop, origin: Origin) -> Change {
    Change(vec![(Counter::Origin(port, origin), 1), (Counter::Egress(port, reason, origin), 1)])
}

/// One counter alone.
pub(crate) fn counted(counter: Counter) -> Change {
    Change(vec![(counter, 1)])
}

/// A frame that left.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Out {
    pub(crate) port: u16,
    pub(crate) bytes: Vec<u8>,
    pub(crate) offload: Offload,
}

/// What the ports of some frames are.
pub(crate) fn ports(out: &[Out]) -> Vec<u16> {
    let mut ports: Vec<u16> = out.iter().map(|o| o.port).collect();
    ports.sort_unstable();
    ports
}

pub(crate) struct Lab {
    pub(crate) switch: Switch,
    pub(crate) now: Duration,
    pool: FramePool,
    stated: BTreeMap<Counter, u64>,
    octets_in: u64,
    octets_out: u64,
}

impl Lab {
    pub(crate) fn new(config: Config) -> Self {
        Self::with_limits(config, Limits::default())
    }

    pub(crate) fn with_limits(config: Config, limits: Limits) -> Self {
        Self::with_seed(config, limits, 1)
    }

    pub(crate) fn with_seed(config: Config, limits: Limits, seed: u64) -> Self {
        let mut switch = Switch::new(limits, &Seed::from_u64(seed), FramePool::new());
        switch.install(Snapshot::compile(config, None).unwrap());
        while switch.poll_event().is_some() {}
        Self {
            switch,
            now: Duration::from_secs(1000),
            pool: FramePool::new(),
            stated: BTreeMap::new(),
            octets_in: 0,
            octets_out: 0,
        }
    }

    /// Installs another configuration, compiled from the one before; returns the old snapshot.
    pub(crate) fn install(&mut self, config: Config) -> Arc<Snapshot> {
        let next = Snapshot::compile(config, Some(self.switch.snapshot())).unwrap();
        let old = self.switch.install(next);
        self.check();
        old
    }

    /// Feeds one frame without taking anything out.
    pub(crate) fn offer(&mut self, port: u16, bytes: &[u8]) {
        self.offer_with(port, bytes, Offload::default());
    }

    pub(crate) fn offer_with(&mut self, port: u16, bytes: &[u8], offload: Offload) {
        let mut frame = self.pool.copy_of(bytes);
        frame.offload = offload;
        let mut batch = FrameBatch::new();
        batch.push(frame).unwrap();
        self.octets_in += bytes.len() as u64;
        self.switch.handle_frames(self.now, PortId(port), &mut batch);
        assert!(batch.is_empty());
        self.check();
    }

    /// Feeds one frame and takes out what leaves at once.
    pub(crate) fn send(&mut self, port: u16, bytes: &[u8]) -> Vec<Out> {
        self.offer(port, bytes);
        self.drain()
    }

    pub(crate) fn send_with(&mut self, port: u16, bytes: &[u8], offload: Offload) -> Vec<Out> {
        self.offer_with(port, bytes, offload);
        self.drain()
    }

    /// Takes out all that is queued. What leaves must be fit for the port it leaves by.
    pub(crate) fn drain(&mut self) -> Vec<Out> {
        let mut out = Vec::new();
        let mut batch = FrameBatch::new();
        while let Some(port) = self.switch.poll_transmit(&mut batch) {
            assert!(!batch.is_empty(), "{port} is named and there is nothing for it");
            let features = self.switch.snapshot().port(port).expect("only named ports send").offload();
            for frame in batch.drain() {
                let partial = matches!(frame.offload.checksum, Checksum::Partial { .. });
                assert!(features.checksum || !partial, "an unfinished checksum for {port}");
                assert!(frame.offload.segmentation.is_none_or(|s| features.takes(s.kind)), "{frame:?}");
                out.push(self.taken(port, frame));
            }
            self.check();
        }
        assert_eq!(self.switch.queued(), 0);
        out
    }

    fn taken(&mut self, port: PortId, frame: Frame) -> Out {
        self.octets_out += frame.len() as u64;
        let out = Out { port: port.0, bytes: frame.bytes().to_vec(), offload: frame.offload };
        self.pool.recycle(frame);
        out
    }

    /// Lets time pass, doing what is due when it is due, and takes out what leaves meanwhile.
    pub(crate) fn wait(&mut self, time: Duration) -> Vec<Out> {
        let end = self.now + time;
        let mut out = self.drain();
        while let Some(at) = self.switch.poll_timeout().filter(|&at| at <= end) {
            self.now = self.now.max(at);
            self.switch.handle_timeout(self.now);
            self.check();
            out.extend(self.drain());
        }
        self.now = end;
        out
    }

    pub(crate) fn explain(&self, port: u16, bytes: &[u8]) -> Trace {
        self.switch.explain(self.now, PortId(port), bytes)
    }

    pub(crate) fn events(&mut self) -> Vec<Event> {
        std::iter::from_fn(|| self.switch.poll_event()).collect()
    }

    /// States what has changed since the last statement: exactly this and nothing else.
    pub(crate) fn expect(&mut self, changes: impl IntoIterator<Item = Change>) {
        let mut expected: BTreeMap<Counter, u64> = BTreeMap::new();
        for (counter, by) in changes.into_iter().flat_map(|c| c.0) {
            *expected.entry(counter).or_default() += by;
        }
        if let Some(difference) = self.difference(&expected) {
            panic!("{difference}");
        }
        self.settle();
    }

    /// Accepts whatever has changed.
    pub(crate) fn settle(&mut self) {
        self.stated = self.counters();
        while self.switch.poll_event().is_some() {}
    }

    /// How what changed differs from what was expected, and the state of the tables, or none.
    fn difference(&self, expected: &BTreeMap<Counter, u64>) -> Option<String> {
        let now = self.counters();
        let before = |c: &Counter| self.stated.get(c).copied().unwrap_or(0);
        let changed: BTreeMap<Counter, u64> =
            now.iter().map(|(c, n)| (*c, n - before(c))).filter(|(_, n)| *n > 0).collect();
        if changed == *expected {
            return None;
        }
        let mut text = String::from("counters changed otherwise than expected:\n");
        let all: std::collections::BTreeSet<&Counter> = changed.keys().chain(expected.keys()).collect();
        for counter in all {
            let by = |map: &BTreeMap<Counter, u64>| map.get(counter).copied().unwrap_or(0);
            let mark = if by(&changed) == by(expected) { ' ' } else { '!' };
            let _ = writeln!(text, "{mark} {counter:?}: +{}, expected +{}", by(&changed), by(expected));
        }
        for entry in self.switch.fdb().iter(self.now) {
            let _ = writeln!(text, "fdb: {entry:?}");
        }
        for entry in self.switch.neighbors().iter(self.now) {
            let _ = writeln!(text, "neighbour: {entry:?}");
        }
        Some(text)
    }

    fn counters(&self) -> BTreeMap<Counter, u64> {
        let mut all = BTreeMap::new();
        for port in 0..PORTS {
            let Some(counters) = self.switch.port_counters(PortId(port)) else { continue };
            all.insert(Counter::Rx(port), counters.rx_frames);
            all.insert(Counter::Tx(port), counters.tx_frames);
            all.extend(Fate::ALL.iter().map(|&f| (Counter::Fate(port, f), counters.fate(f))));
            for &reason in DropReason::ALL {
                all.insert(Counter::Drop(port, reason), counters.dropped(reason));
                all.insert(Counter::ParkedDrop(port, reason), counters.parked_drops[reason.index()]);
            }
            for &origin in Origin::ALL {
                all.insert(Counter::Origin(port, origin), counters.origin(origin));
                all.insert(Counter::Replaced(port, origin), counters.replaced[origin.index()]);
                for &reason in EgressDrop::ALL {
                    let count = counters.egress_drops[reason.index()][origin.index()];
                    all.insert(Counter::Egress(port, reason, origin), count);
                }
            }
        }
        all
    }

    fn check(&self) {
        self.switch.check().unwrap();
        let counters = self.switch.counters();
        assert_eq!((counters.rx_bytes, counters.tx_bytes), (self.octets_in, self.octets_out));
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !std::thread::panicking()
            && let Some(difference) = self.difference(&BTreeMap::new())
        {
            panic!("something happened that the test does not state: {difference}");
        }
    }
}
