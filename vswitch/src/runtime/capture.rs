//! Captures: copies of frames as they pass a port, written as pcapng or as text.
//!
//! The data path only asks the filter, copies a frame and puts it into a bounded queue; when the reader is slow, copies are dropped and
//! counted, never frames. Captured frames hold finished checksums; super-frames are captured whole, as the kernel's own
//! captures on an interface with segmentation offload are.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use netstack::addr::PortId;
use netstack::device::Direction;
use netstack::device::pcap::{InterfaceId, PcapNg};
use netstack::driver::{Driver, Observer};
use netstack::filter::Filter;
use netstack::frame::{Frame, FramePool};
use netstack::offload;
use netstack::switch::Switch;

use super::lines::Lines;
use super::paths::EngineAt;
use super::{Runtime, RuntimeError};
use crate::cluster::Place;
use crate::control::api::CaptureFormat;

/// Copies that wait for a slow reader, and their octets: a copy of a super-frame is 64 KiB.
const QUEUE: usize = 4096;
const QUEUE_BYTES: usize = 16 << 20;

/// Why there is nothing to capture.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// The text names no port.
    #[error(
        "{0:?} names no port: write `any`, POD, node/NAME, host/NAME or SWITCH:PORT as `vswitch get ports` lists them"
    )]
    NoSuchPort(String),
    /// The port is there, and what was plugged in is not.
    #[error("{0} carries nothing any more: its device is gone")]
    Gone(String),
    /// The data path could not be asked.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

struct Copy {
    port: usize,
    at: Duration,
    direction: Direction,
    frame: Frame,
}

/// Where the copies of one port for one capture go.
struct Tap {
    capture: u64,
    index: usize,
    filter: Arc<Filter>,
    copies: Sender<Copy>,
    shared: Arc<Shared>,
}

/// What a capture counts.
#[derive(Debug, Default)]
struct Shared {
    /// Octets of copies that were not read yet.
    waiting: AtomicUsize,
    missed: AtomicU64,
}

/// The captures of each port. A port has one observer, which serves them all and alone keeps their taps: when the
/// device goes, so does its observer, and captures that wait for nothing else end.
#[derive(Debug, Default)]
pub(super) struct Taps {
    last: u64,
    by_port: BTreeMap<(EngineAt, PortId), Vec<Weak<Tap>>>,
}

/// A capture that runs until it is dropped.
#[derive(Debug)]
pub struct Capture {
    runtime: Arc<Runtime>,
    number: u64,
    ports: Vec<(String, EngineAt, PortId)>,
    copies: Receiver<Copy>,
    shared: Arc<Shared>,
}

impl std::fmt::Debug for Tap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tap")
            .field("capture", &self.capture)
            .field("index", &self.index)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Copy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Copy").field("port", &self.port).field("at", &self.at).finish_non_exhaustive()
    }
}

impl Tap {
    fn take(&self, pool: &mut FramePool, at: Duration, direction: Direction, frame: &Frame) {
        if !self.filter.matches(frame.bytes()) {
            return;
        }
        let len = frame.len();
        let shared = &self.shared;
        if shared.waiting.fetch_add(len, Ordering::Relaxed) + len > QUEUE_BYTES {
            shared.waiting.fetch_sub(len, Ordering::Relaxed);
            shared.missed.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let mut frame = pool.duplicate(frame);
        // What cannot be finished is captured as it is: a capture shows what was there.
        let _ = offload::complete_checksum(&mut frame);
        match self.copies.try_send(Copy { port: self.index, at, direction, frame }) {
            Ok(()) => {}
            Err(TrySendError::Full(copy) | TrySendError::Disconnected(copy)) => {
                shared.waiting.fetch_sub(len, Ordering::Relaxed);
                shared.missed.fetch_add(1, Ordering::Relaxed);
                pool.recycle(copy.frame);
            }
        }
    }
}

impl Capture {
    /// Starts to capture at the ports that `what` names: `any`, a place, or `SWITCH:PORT`, those
    /// frames that `filter` matches. Captures of the same port do not disturb each other.
    ///
    /// # Errors
    /// When `what` names no port, or only such that carry nothing any more.
    pub fn start(runtime: Arc<Runtime>, what: &str, filter: Filter) -> Result<Self, CaptureError> {
        let ports = runtime.named_ports(what)?;
        if ports.is_empty() {
            return Err(CaptureError::NoSuchPort(what.to_owned()));
        }
        let (sender, copies) = bounded::<Copy>(QUEUE);
        let (shared, filter) = (Arc::<Shared>::default(), Arc::new(filter));
        let number = {
            let last = &mut runtime.taps.lock().last;
            *last += 1;
            *last
        };
        let mut watched = 0;
        for (index, (_, engine, port)) in ports.iter().enumerate() {
            let (copies, shared, filter) = (sender.clone(), Arc::clone(&shared), Arc::clone(&filter));
            let tap = Arc::new(Tap { capture: number, index, filter, copies, shared });
            watched += usize::from(runtime.change_taps((*engine, *port), |taps| taps.push(tap))?);
        }
        if watched == 0 {
            return Err(CaptureError::Gone(what.to_owned()));
        }
        Ok(Self { runtime, number, ports, copies, shared })
    }

    /// Writes until `stop` says so or the writer fails; `stop` is asked at least four times a second.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn write(
        &self,
        format: CaptureFormat,
        out: impl Write,
        mut stop: impl FnMut(u64) -> bool,
    ) -> io::Result<u64> {
        let offset = self.runtime.clock.wall_offset();
        let names = self.ports.iter().map(|(name, _, _)| name.as_str());
        let mut sink = match format {
            CaptureFormat::Pcapng => {
                let mut file = PcapNg::new(out)?;
                let interfaces = names.map(|name| file.interface(name)).collect::<io::Result<_>>()?;
                Sink::File(file, interfaces)
            }
            CaptureFormat::Text => Sink::Lines(Lines::new(out, names)?),
        };
        sink.flush(0)?;
        let mut written = 0;
        while !stop(written) {
            match self.copies.recv_timeout(Duration::from_millis(250)) {
                Ok(copy) => {
                    self.shared.waiting.fetch_sub(copy.frame.len(), Ordering::Relaxed);
                    sink.frame(copy.port, offset + copy.at, copy.direction, copy.frame.bytes())?;
                    written += 1;
                    if self.copies.is_empty() {
                        sink.flush(self.missed())?;
                    }
                }
                Err(RecvTimeoutError::Timeout) => sink.flush(self.missed())?,
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        sink.flush(self.missed())?;
        Ok(written)
    }

    /// Copies dropped because they were not read in time.
    pub fn missed(&self) -> u64 {
        self.shared.missed.load(Ordering::Relaxed)
    }
}

/// Where copies are written.
enum Sink<W: Write> {
    File(PcapNg<W>, Vec<InterfaceId>),
    Lines(Lines<W>),
}

impl<W: Write> Sink<W> {
    fn frame(&mut self, port: usize, at: Duration, direction: Direction, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::File(file, interfaces) => file.packet(interfaces[port], at, direction, bytes.len(), bytes),
            Self::Lines(lines) => lines.frame(port, at, direction, bytes),
        }
    }

    fn flush(&mut self, missed: u64) -> io::Result<()> {
        match self {
            Self::File(file, _) => file.flush(),
            Self::Lines(lines) => lines.flush(missed),
        }
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        for (_, engine, port) in &self.ports {
            // When the data path has stopped there is nothing to take back.
            let _ =
                self.runtime.change_taps((*engine, *port), |taps| taps.retain(|t| t.capture != self.number));
        }
    }
}

impl Runtime {
    /// Changes who captures at a port; false when no device is there.
    fn change_taps(
        &self,
        (engine, port): (EngineAt, PortId),
        change: impl FnOnce(&mut Vec<Arc<Tap>>),
    ) -> Result<bool, RuntimeError> {
        let mut guard = self.taps.lock();
        let known = guard.by_port.entry((engine, port)).or_default();
        let mut taps: Vec<Arc<Tap>> = known.iter().filter_map(Weak::upgrade).collect();
        change(&mut taps);
        *known = taps.iter().map(Arc::downgrade).collect();
        let observer = (!taps.is_empty()).then(|| {
            let mut pool = FramePool::new();
            let observer: Observer = Box::new(move |at, direction, frame| {
                for tap in &taps {
                    tap.take(&mut pool, at, direction, frame);
                }
            });
            observer
        });
        let observe = move |driver: &mut Driver| driver.set_observer(engine.id, port, observer);
        Ok(self.paths.call(engine.thread, observe)?)
    }

    /// Ports by name: what `vswitch capture` takes.
    fn named_ports(&self, what: &str) -> Result<Vec<(String, EngineAt, PortId)>, RuntimeError> {
        let place = what.parse::<Place>().ok();
        let mut found = Vec::new();
        for (name, &at) in &self.switches() {
            let ports = self.with_switch(name, |switch: &mut Switch| {
                let ports = switch.snapshot().ports().map(|p| (p.name().to_owned(), p.id()));
                ports.collect::<Vec<_>>()
            })?;
            for (port, port_id) in ports.unwrap_or_default() {
                let full = format!("{name}:{port}");
                let is_place = place.as_ref().is_some_and(|p| p.to_string() == port);
                if what == "any" || what == full || is_place {
                    found.push((full, at, port_id));
                }
            }
        }
        Ok(found)
    }
}
