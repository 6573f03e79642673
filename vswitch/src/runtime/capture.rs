//! Captures: copies of frames as they pass a port, written as pcapng.
//!
//! The data path only copies a frame and puts it into a bounded queue; when the reader is slow, copies are dropped and
//! counted, never frames. Captured frames hold finished checksums; super-frames are captured whole, as the kernel's own
//! captures on an interface with segmentation offload are.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crossbeam::channel::{Receiver, RecvTimeoutError, TrySendError, bounded};
use netstack::addr::PortId;
use netstack::device::Direction;
use netstack::device::pcap::PcapNg;
use netstack::driver::{EngineId, Observer};
use netstack::frame::{Frame, FramePool};
use netstack::offload;
use netstack::switch::Switch;

use super::{Runtime, RuntimeError};
use crate::cluster::Place;

/// Copies that wait for a slow reader.
const QUEUE: usize = 4096;

/// Why there is nothing to capture.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CaptureError {
    /// The text names no port.
    #[error(
        "{0:?} names no port: write `any`, POD, node/NAME, host/NAME or SWITCH:PORT as `vswitch get ports` lists them"
    )]
    NoSuchPort(String),
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

/// A capture that runs until it is dropped.
#[derive(Debug)]
pub struct Capture {
    runtime: Arc<Runtime>,
    ports: Vec<(String, EngineId, PortId)>,
    copies: Receiver<Copy>,
    missed: Arc<AtomicU64>,
}

impl std::fmt::Debug for Copy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Copy").field("port", &self.port).field("at", &self.at).finish_non_exhaustive()
    }
}

impl Capture {
    /// Starts to capture at the ports that `what` names: `any`, a place, or `SWITCH:PORT`. A port has one observer, so a
    /// later capture of the same port takes over from an earlier one.
    ///
    /// # Errors
    /// When `what` names no port.
    pub fn start(runtime: Arc<Runtime>, what: &str) -> Result<Self, CaptureError> {
        let ports = runtime.named_ports(what)?;
        if ports.is_empty() {
            return Err(CaptureError::NoSuchPort(what.to_owned()));
        }
        let (sender, copies) = bounded::<Copy>(QUEUE);
        let missed = Arc::new(AtomicU64::new(0));
        for (index, (_, engine, port)) in ports.iter().enumerate() {
            let (sender, missed) = (sender.clone(), Arc::clone(&missed));
            let mut pool = FramePool::new();
            let observer: Observer = Box::new(move |at, direction, frame| {
                let mut frame = pool.duplicate(frame);
                // What cannot be finished is captured as it is: a capture shows what was there.
                let _ = offload::complete_checksum(&mut frame);
                match sender.try_send(Copy { port: index, at, direction, frame }) {
                    Ok(()) => {}
                    Err(TrySendError::Full(copy) | TrySendError::Disconnected(copy)) => {
                        missed.fetch_add(1, Ordering::Relaxed);
                        pool.recycle(copy.frame);
                    }
                }
            });
            let (engine, port) = (*engine, *port);
            let set = runtime.handle.call(move |driver| driver.set_observer(engine, port, Some(observer)));
            set.map_err(RuntimeError::from)?;
        }
        Ok(Self { runtime, ports, copies, missed })
    }

    /// Writes pcapng until `stop` says so or the writer fails; `stop` is asked at least four times a second.
    ///
    /// # Errors
    /// When the writer fails.
    pub fn write(&self, out: impl Write, mut stop: impl FnMut(u64) -> bool) -> io::Result<u64> {
        let offset = self.runtime.clock.wall_offset();
        let mut file = PcapNg::new(out)?;
        let mut interfaces = Vec::new();
        for (name, _, _) in &self.ports {
            interfaces.push(file.interface(name)?);
        }
        file.flush()?;
        let mut written = 0;
        while !stop(written) {
            match self.copies.recv_timeout(Duration::from_millis(250)) {
                Ok(copy) => {
                    let bytes = copy.frame.bytes();
                    file.packet(interfaces[copy.port], offset + copy.at, copy.direction, bytes.len(), bytes)?;
                    written += 1;
                    if self.copies.is_empty() {
                        file.flush()?;
                    }
                }
                Err(RecvTimeoutError::Timeout) => file.flush()?,
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        file.flush()?;
        Ok(written)
    }

    /// Copies dropped because they were not read in time.
    pub fn missed(&self) -> u64 {
        self.missed.load(Ordering::Relaxed)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        for (_, engine, port) in &self.ports {
            let (engine, port) = (*engine, *port);
            // When the data path has stopped there is nothing to take back.
            let _ = self.runtime.handle.call(move |driver| driver.set_observer(engine, port, None));
        }
    }
}

impl Runtime {
    /// Ports by name: what `vswitch capture` takes.
    fn named_ports(&self, what: &str) -> Result<Vec<(String, EngineId, PortId)>, RuntimeError> {
        let place = what.parse::<Place>().ok();
        let mut found = Vec::new();
        for (name, &id) in &self.switches {
            let ports = self.with_switch(name, |switch: &mut Switch| {
                let ports = switch.snapshot().ports().map(|p| (p.name().to_owned(), p.id()));
                ports.collect::<Vec<_>>()
            })?;
            for (port, port_id) in ports.unwrap_or_default() {
                let full = format!("{name}:{port}");
                let is_place = place.as_ref().is_some_and(|p| p.to_string() == port);
                if what == "any" || what == full || is_place {
                    found.push((full, id, port_id));
                }
            }
        }
        Ok(found)
    }
}
