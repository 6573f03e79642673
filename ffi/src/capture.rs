//! Capture files of what goes through a switch.

use core::ffi::c_char;
use core::time::Duration;
use std::fs::File;
use std::io::{self, BufWriter};

use netstack::addr::PortId;
use netstack::device::Direction;
use netstack::device::pcap::{InterfaceId, PcapNg};
use netstack::frame::{Frame, FrameBatch, FramePool};
use netstack::offload::complete_checksum;
use netstack::switch::Switch;

use crate::result::{Code, found, netstack_result};
use crate::switch::{netstack_switch, time};

/// Which way a frame goes, seen from the switch.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum netstack_direction {
    /// Into it.
    Inbound = 1,
    /// Out of it.
    Outbound = 2,
}

/// A capture file that is being written.
#[derive(Debug)]
pub struct Capture {
    file: PcapNg<BufWriter<File>>,
    /// By port number, once it has been seen.
    interfaces: Vec<Option<InterfaceId>>,
    /// What the caller's time is to be added to, for a time since the UNIX epoch.
    epoch: Duration,
    /// For copies whose checksums are completed.
    pool: FramePool,
    packets: u64,
    failed: bool,
}

impl Capture {
    fn create(path: &str, epoch: Duration) -> io::Result<Self> {
        let file = PcapNg::new(BufWriter::new(File::create(path)?))?;
        let (interfaces, pool) = (Vec::new(), FramePool::new());
        Ok(Self { file, interfaces, epoch, pool, packets: 0, failed: false })
    }

    /// Writes the frames of a batch. After a failure nothing more is written: the file ends with what it has.
    pub(crate) fn take(
        &mut self,
        switch: &Switch,
        now: Duration,
        direction: Direction,
        port: PortId,
        frames: &FrameBatch,
    ) {
        for frame in frames {
            if !self.failed && self.packet(switch, now, direction, port, frame).is_err() {
                self.failed = true;
            }
        }
    }

    fn packet(
        &mut self,
        switch: &Switch,
        now: Duration,
        direction: Direction,
        port: PortId,
        frame: &Frame,
    ) -> io::Result<()> {
        let interface = self.interface(switch, port)?;
        // A reader cannot know that a checksum is only begun.
        let mut copy = self.pool.duplicate(frame);
        let _ = complete_checksum(&mut copy);
        let bytes = copy.bytes();
        let written = self.file.packet(interface, self.epoch + now, direction, bytes.len(), bytes);
        self.pool.recycle(copy);
        self.packets += 1;
        written
    }

    fn interface(&mut self, switch: &Switch, port: PortId) -> io::Result<InterfaceId> {
        let index = usize::from(port.0);
        if let Some(&Some(known)) = self.interfaces.get(index) {
            return Ok(known);
        }
        let name = switch.snapshot().port(port).map_or_else(|| port.to_string(), |it| it.name().to_owned());
        let id = self.file.interface(&name)?;
        if index >= self.interfaces.len() {
            self.interfaces.resize(index + 1, None);
        }
        self.interfaces[index] = Some(id);
        Ok(id)
    }
}

/// Begins to write every frame that enters or leaves a switch to a pcapng file, with finished checksums. `epoch_us` is the
/// time since the UNIX epoch at which the caller's time was 0.
/// ALREADY_EXISTS: it is being captured. OS: `error` says why the file cannot be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_switch_capture(
    sw: *mut netstack_switch,
    path: *const c_char,
    epoch_us: u64,
    error: *mut *mut c_char,
) -> netstack_result {
    boundary!(caller, {
        let path = caller.text(path)?;
        let mut state = caller.write(sw)?;
        if state.capture.is_some() {
            return Err(Code::AlreadyExists);
        }
        state.capture = Some(caller.tell(error, Code::Os, Capture::create(path, time(epoch_us)))?);
        Ok(())
    })
}

/// Ends a capture. `packets` gets how many were written; it may be NULL.
/// NOT_FOUND: there is none. OS: not everything could be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_switch_capture_end(
    sw: *mut netstack_switch,
    packets: *mut u64,
) -> netstack_result {
    boundary!(caller, {
        let mut out = caller.optional_out(packets)?;
        let mut state = caller.write(sw)?;
        let mut capture = found(state.capture.take())?;
        out.put(capture.packets);
        let flushed = capture.file.flush();
        if capture.failed || flushed.is_err() { Err(Code::Os) } else { Ok(()) }
    })
}
