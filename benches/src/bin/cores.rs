//! `cores`: what one more core buys. Frames go from a source through one switch, or through two that are linked in memory, to
//! a sink, all driven by one thread or by two; in turns, so that whatever slows the machine down slows them all down.
#![expect(clippy::print_stdout, reason = "it tells what it measured")]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::Duration;

use netstack::addr::{MacAddr, PortId, SegmentId};
use netstack::config::{Config, Limits, PortConfig, SegmentConfig, Snapshot, Station, VlanMode};
use netstack::device::memory::{MemoryDevice, MemoryOptions, pair};
use netstack::driver::{Clock, Driver, DriverHandle, Engine};
use netstack::event::Event;
use netstack::frame::{Depot, FrameBatch, FramePool};
use netstack::seed::Seed;
use netstack::switch::Switch;
use vswitch_benches::EXPERIMENT;

/// How often each is measured, for how long, and what goes before.
const ROUNDS: usize = 10;
const SPAN: Duration = Duration::from_millis(200);
const WARM: Duration = Duration::from_millis(100);
/// Frames on their way: fewer than the links hold, so that none is lost, and enough to keep two threads busy.
const WINDOW: u64 = 1024;
const BATCH: u64 = 32;
/// Batches that a link holds, each way.
const LINK: usize = 64;
const SOURCES: u64 = 100;
const SINK: MacAddr = MacAddr([2, 0, 0, 0, 1, 0]);
const IN: PortId = PortId(0);
const OUT: PortId = PortId(1);

/// Sends as much as may be on its way.
struct Source {
    pool: FramePool,
    sent: u64,
    arrived: Arc<AtomicU64>,
}

impl Engine for Source {
    fn handle_frames(&mut self, _: Duration, _: PortId, batch: &mut FrameBatch) {
        batch.drain().for_each(|frame| self.pool.recycle(frame));
    }

    fn handle_timeout(&mut self, _: Duration) {}

    fn poll_transmit(&mut self, batch: &mut FrameBatch) -> Option<PortId> {
        if self.sent - self.arrived.load(Ordering::Relaxed) + BATCH > WINDOW {
            return None;
        }
        for _ in 0..BATCH {
            let [.., station] = (self.sent % SOURCES).to_be_bytes();
            let mut bytes = [7; 64];
            bytes[..6].copy_from_slice(&SINK.0);
            bytes[6..12].copy_from_slice(&[2, 0, 0, 0, 0, station]);
            bytes[12..14].copy_from_slice(&EXPERIMENT.to_be_bytes());
            assert!(batch.push(self.pool.copy_of(&bytes)).is_ok(), "a batch has room for as many");
            self.sent += 1;
        }
        Some(IN)
    }

    fn poll_timeout(&self) -> Option<Duration> {
        Some(Duration::ZERO)
    }

    fn poll_event(&mut self) -> Option<Event> {
        None
    }

    fn pool(&mut self) -> &mut FramePool {
        &mut self.pool
    }
}

/// Counts what arrives; sends one frame, by which it is known where it is.
struct Sink {
    pool: FramePool,
    known: bool,
    arrived: Arc<AtomicU64>,
}

impl Engine for Sink {
    fn handle_frames(&mut self, _: Duration, _: PortId, batch: &mut FrameBatch) {
        self.arrived.fetch_add(batch.len() as u64, Ordering::Relaxed);
        batch.drain().for_each(|frame| self.pool.recycle(frame));
    }

    fn handle_timeout(&mut self, _: Duration) {}

    fn poll_transmit(&mut self, batch: &mut FrameBatch) -> Option<PortId> {
        if std::mem::replace(&mut self.known, true) {
            return None;
        }
        let mut bytes = [7; 64];
        bytes[..6].copy_from_slice(&[0xff; 6]);
        bytes[6..12].copy_from_slice(&SINK.0);
        batch.push(self.pool.copy_of(&bytes)).ok().map(|()| IN)
    }

    fn poll_timeout(&self) -> Option<Duration> {
        None
    }

    fn poll_event(&mut self) -> Option<Event> {
        None
    }

    fn pool(&mut self) -> &mut FramePool {
        &mut self.pool
    }
}

/// A bridge of two ports whose stations are learned.
fn bridge(pool: FramePool) -> Switch {
    let port = |id: PortId| PortConfig {
        station: Station::Foreign,
        ..PortConfig::new(id, format!("{id}"), VlanMode::Access(SegmentId(0)))
    };
    let config = Config {
        ports: vec![port(IN), port(OUT)],
        segments: vec![SegmentConfig::new(SegmentId(0), "segment")],
        ..Config::default()
    };
    let mut switch = Switch::new(Limits::default(), &Seed::from_u64(1), pool);
    switch.install(Snapshot::compile(config, None).expect("a good configuration"));
    switch
}

/// Adds an engine with these devices on its ports.
fn add(driver: &mut Driver, engine: impl Engine, devices: Vec<(PortId, MemoryDevice)>) -> io::Result<()> {
    let id = driver.add_engine(Box::new(engine));
    devices.into_iter().try_for_each(|(port, device)| driver.attach(id, port, Box::new(device)))
}

/// The threads of one arrangement, and what has arrived at its sinks.
struct Running {
    threads: Vec<(DriverHandle, JoinHandle<io::Result<()>>)>,
    arrived: Vec<Arc<AtomicU64>>,
}

impl Running {
    /// As many rows of a source, switches and a sink as there are lists; each says which thread drives what.
    fn start(rows: &[&[usize]]) -> io::Result<Self> {
        let count = rows.iter().flat_map(|row| *row).max().map_or(0, |most| most + 1);
        let mut drivers = (0..count).map(|_| Driver::new(Clock::start())).collect::<io::Result<Vec<_>>>()?;
        let mut arrived = Vec::new();
        for row in rows {
            let (first, last) = (row[0], row[row.len() - 1]);
            // What the sink gives back is the source's to take.
            let depot = Depot::new();
            let pool = || FramePool::with_depot(Arc::clone(&depot));
            let count = Arc::new(AtomicU64::new(0));
            let (near, mut far) = pair(LINK, MemoryOptions::default())?;
            let source = Source { pool: pool(), sent: 0, arrived: Arc::clone(&count) };
            add(&mut drivers[first], source, vec![(IN, near)])?;
            for &thread in *row {
                let (near, next) = pair(LINK, MemoryOptions::default())?;
                let before = std::mem::replace(&mut far, next);
                add(&mut drivers[thread], bridge(pool()), vec![(IN, before), (OUT, near)])?;
            }
            let sink = Sink { pool: pool(), known: false, arrived: Arc::clone(&count) };
            add(&mut drivers[last], sink, vec![(IN, far)])?;
            arrived.push(count);
        }
        let spawn = |mut driver: Driver| (driver.handle(), std::thread::spawn(move || driver.run()));
        Ok(Self { threads: drivers.into_iter().map(spawn).collect(), arrived })
    }

    fn count(&self) -> u64 {
        self.arrived.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Million frames per second.
    fn measure(self) -> io::Result<f64> {
        sleep(WARM);
        let clock = Clock::start();
        let (before, start) = (self.count(), clock.now());
        sleep(SPAN);
        let (after, end) = (self.count(), clock.now());
        for (handle, thread) in self.threads {
            handle.stop();
            thread.join().expect("a driver does not panic")?;
        }
        Ok((after - before) as f64 / (end - start).as_secs_f64() / 1e6)
    }
}

fn main() -> io::Result<()> {
    let arrangements: [(&str, &[&[usize]]); 4] = [
        ("one switch on one thread", &[&[0]]),
        ("two switches beside each other on two threads", &[&[0], &[1]]),
        ("two switches after each other on one thread", &[&[0, 0]]),
        ("two switches after each other on two threads", &[&[0, 1]]),
    ];
    let mut rates: Vec<Vec<f64>> = vec![Vec::new(); arrangements.len()];
    for _ in 0..ROUNDS {
        for ((_, rows), rates) in arrangements.iter().zip(&mut rates) {
            rates.push(Running::start(rows)?.measure()?);
        }
    }
    println!("{:48} {:>8} {:>8} {:>8}", "million frames per second", "median", "least", "most");
    for ((name, _), rates) in arrangements.iter().zip(&mut rates) {
        rates.sort_by(f64::total_cmp);
        println!("{name:48} {:8.2} {:8.2} {:8.2}", rates[ROUNDS / 2], rates[0], rates[ROUNDS - 1]);
    }
    Ok(())
}
