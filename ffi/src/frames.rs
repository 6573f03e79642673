//! Frames in buffers of the caller, copied, and the state of a switch or host that this needs.

use core::ffi::c_void;
use std::collections::VecDeque;

use netstack::addr::PortId;
use netstack::frame::{Frame, FrameBatch};

use crate::caller::{Caller, Outcome};
use crate::result::Code;

/// A frame of the caller, to be copied in.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct netstack_frame {
    /// Its octets, from the Ethernet header on, without FCS.
    pub data: *const u8,
    /// How many.
    pub len: usize,
}

/// A buffer of the caller, for a frame to be copied to.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct netstack_buffer {
    /// Where.
    pub data: *mut u8,
    /// How many octets it holds.
    pub capacity: usize,
    /// How many the frame has: written by the library.
    pub len: usize,
}

/// Gets a frame that leaves by a port: `data` is good until it returns.
pub type netstack_drain_callback =
    Option<unsafe extern "C" fn(userdata: *mut c_void, port: u16, data: *const u8, len: usize)>;

/// Frames that were polled by the batch and are taken one by one.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    port: u16,
    frames: VecDeque<Frame>,
}

impl Waiting {
    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Keeps the frames of a batch.
    pub(crate) fn keep(&mut self, port: PortId, batch: &mut FrameBatch) {
        self.port = port.0;
        self.frames.extend(batch.drain());
    }

    /// The port that they leave by.
    pub(crate) fn port(&self) -> PortId {
        PortId(self.port)
    }

    /// The oldest.
    pub(crate) fn pop(&mut self) -> Option<Frame> {
        self.frames.pop_front()
    }

    /// Moves them into a batch as far as they fit.
    pub(crate) fn fill(&mut self, batch: &mut FrameBatch) {
        while let Some(frame) = self.frames.pop_front() {
            if let Err(frame) = batch.push(frame) {
                return self.frames.push_front(frame);
            }
        }
    }

    /// Copies frames into buffers, one into each, and gives them away afterwards. Returns how many.
    ///
    /// # Errors
    /// BUFFER_TOO_SMALL at the first that does not fit: its buffer says how long it is, and the frame stays.
    pub(crate) fn copy_out(
        &mut self,
        caller: &Caller,
        buffers: &mut [netstack_buffer],
        mut done: impl FnMut(Frame),
    ) -> (usize, Outcome) {
        for (at, buffer) in buffers.iter_mut().enumerate() {
            let Some(frame) = self.frames.front() else { return (at, Ok(())) };
            buffer.len = frame.len();
            if frame.len() > buffer.capacity {
                return (at, Err(Code::BufferTooSmall));
            }
            match caller.slice_mut(buffer.data, frame.len()) {
                Ok(bytes) => bytes.copy_from_slice(frame.bytes()),
                Err(code) => return (at, Err(code)),
            }
            self.frames.pop_front().into_iter().for_each(&mut done);
        }
        (buffers.len(), Ok(()))
    }
}
