//! Kernel TAP devices: an Ethernet interface whose other end is a file descriptor.
//!
//! # Theory of operation
//! One read is one frame and one write is one frame; but for a ring, by which it reads ahead (`device::ring`), the kernel
//! has no call that moves several (`recvmmsg` wants a socket). What makes a TAP fast is therefore the size of a frame: with
//! offload, a header before each frame carries checksum and segmentation state, and a TCP sender hands over up to 64 KiB at
//! once.
//!
//! *Receiving.* The size of the next frame is not known before it is read, so each is read into a large slab, header and
//! all: the header falls into the headroom. A short frame is then copied into a small slab, which costs a small part of
//! the system call, and the large slab is free again. The pool is last in, first out, so all TAPs of a thread share the
//! same few large slabs, which stay in cache.
//!
//! Whoever reads in the device's stead hands over frames as they are read, header in front; they wait here until they are
//! received, and stay with the device when that reading ends.
//!
//! *Sending.* The header is written into the headroom: one read and one write are each of one piece, which the kernel
//! copies faster than pieces. Datagrams of one flow that follow each other in a batch are written as one super-frame where
//! the kernel takes it: it goes through the stack of the other end once, and is cut apart for its socket.
//!
//! *Refusals.* The interface is down (EIO), out of memory, or takes no frame of this shape (EINVAL): the frame is
//! counted as refused. EBADFD means that the interface is gone for good, because its namespace is.
//!
//! A TAP that is to live in a pod's namespace is made outside and moved in: made inside, it would keep the namespace
//! alive, and nobody would notice its end. The send buffer stays unlimited (no TUNSETSNDBUF): a limit makes the kernel
//! stop its own queues in ways that cost orders of magnitude.

mod error;
mod header;

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

pub use error::TapError;
use rustix::io::retry_on_intr;

use self::header::HEADER;
use super::ring::LEAD;
use super::sys::TapFd;
use super::{Device, DeviceError, Sent};
use crate::frame::{Frame, FrameBatch, FramePool, HEADROOM, MAX_FRAME, SMALL_SLAB};
use crate::offload::{Checksum, OffloadFeatures, join};

/// What a fresh interface has, in octets.
const DEFAULT_MTU: usize = 1500;
/// Octets of a frame that the small slab takes.
const SMALL_FRAME: usize = SMALL_SLAB - HEADROOM;

/// How to open a TAP.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Mode {
    /// With offload if the kernel has it, otherwise plain.
    #[default]
    Auto,
    /// Finished frames of at most the MTU, through the `tun-tap` crate.
    Plain,
    /// Partial checksums and super-frames in both directions.
    Offload,
}

/// What a TAP turned out to be.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Kind {
    /// Finished frames only.
    Plain,
    /// Frames with offload state.
    Offload,
}

/// A TAP interface. It vanishes when this is dropped, unless somebody made it persistent.
#[derive(Debug)]
pub struct Tap {
    fd: TapFd,
    name: String,
    mtu: usize,
    /// Whether a virtio-net header stands before each frame.
    headed: bool,
    features: OffloadFeatures,
    /// What was read in our stead and nobody has received, and how that reading ended.
    ahead: VecDeque<Frame>,
    failure: Option<DeviceError>,
    unsupported: u64,
}

impl Tap {
    /// Makes interface `name` in the calling thread's network namespace, or joins it if it is persistent and free.
    /// The interface is down and has no address yet; setting it up is the business of whoever owns the namespace.
    pub fn open(name: &str, mode: Mode) -> Result<Self, TapError> {
        error::check_name(name)?;
        match mode {
            Mode::Plain => Self::open_plain(name),
            Mode::Offload => Self::open_offload(name),
            Mode::Auto => match Self::open_offload(name) {
                Err(TapError::NoOffload) => Self::open_plain(name),
                other => other,
            },
        }
    }

    fn open_plain(name: &str) -> Result<Self, TapError> {
        // The crate reports both steps with one error; opening the driver first tells them apart.
        drop(open_driver()?);
        let interface = tun_tap::Iface::without_packet_info(name, tun_tap::Mode::Tap)
            .map_err(|source| error::attaching(name, source))?;
        let name = interface.name().to_owned();
        let fd =
            TapFd::from_owner(interface).map_err(|source| doing("set the TAP to non-blocking", source))?;
        // A persistent interface may have kept what its last owner asked for.
        set_offload(&fd, 0)?;
        Ok(Self::new(fd, name, DEFAULT_MTU, false, OffloadFeatures::NONE))
    }

    fn open_offload(name: &str) -> Result<Self, TapError> {
        let fd = TapFd::new(open_driver()?).map_err(|source| doing("set the TAP to non-blocking", source))?;
        let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        let name = fd.set_interface(name, flags).map_err(|source| error::attaching(name, source))?;
        fd.set_header_size(HEADER_INT).map_err(|_| TapError::NoOffload)?;
        let features = negotiate(&fd)?;
        Ok(Self::new(fd, name, DEFAULT_MTU, true, features))
    }

    /// Takes over a TAP that somebody else opened and passed on, whatever namespace its interface is in. Whether a
    /// virtio-net header stands before each frame is asked of the kernel; `mode` says what to do with it. `mtu` is the
    /// interface's, in octets.
    pub fn from_fd(fd: OwnedFd, mode: Mode, mtu: usize) -> Result<Self, TapError> {
        let fd = TapFd::new(fd).map_err(|source| doing("set the TAP to non-blocking", source))?;
        let (name, flags) = fd.interface().map_err(|_| TapError::NotATap)?;
        if flags & libc::IFF_TAP == 0 || flags & libc::IFF_NO_PI == 0 {
            return Err(TapError::NotATap);
        }
        let headed = flags & libc::IFF_VNET_HDR != 0;
        if headed {
            fd.set_header_size(HEADER_INT).map_err(|source| doing("set the TAP's header size", source))?;
        }
        let features = match (mode, headed) {
            (Mode::Offload, false) => return Err(TapError::NoOffload),
            (Mode::Auto | Mode::Offload, true) => negotiate(&fd)?,
            (Mode::Plain, _) | (Mode::Auto, false) => {
                set_offload(&fd, 0)?;
                OffloadFeatures::NONE
            }
        };
        Ok(Self::new(fd, name, mtu, headed, features))
    }

    fn new(fd: TapFd, name: String, mtu: usize, headed: bool, features: OffloadFeatures) -> Self {
        let ahead = VecDeque::new();
        Self { fd, name, mtu, headed, features, ahead, failure: None, unsupported: 0 }
    }

    /// The interface's name when it was opened; whoever moves it to another namespace may rename it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What was got.
    pub fn mode(&self) -> Kind {
        if self.features == OffloadFeatures::NONE { Kind::Plain } else { Kind::Offload }
    }

    /// Says what the interface's MTU was set to, in octets; the kernel does not tell its file descriptor.
    pub fn set_mtu(&mut self, mtu: usize) {
        self.mtu = mtu;
    }

    /// Frames that arrived with a header that has no meaning here and were dropped; a sound kernel sends none.
    pub fn unsupported(&self) -> u64 {
        self.unsupported
    }

    /// Reads one frame into `buffer`, a fresh one of [`MAX_FRAME`] octets. A header without meaning is `InvalidData`.
    fn read(&self, buffer: &mut Frame) -> io::Result<()> {
        let grown = buffer.grow_front(if self.headed { HEADER } else { 0 });
        debug_assert!(grown, "a fresh frame has headroom for the header");
        let len = retry_on_intr(|| rustix::io::read(self.fd.file(), buffer.bytes_mut()))?;
        let cut = buffer.set_len(len);
        debug_assert!(cut, "no more is read than there is room for");
        self.take_header(buffer).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// Makes the header in front of a frame its offload state; `None` if it has no meaning.
    fn take_header(&self, frame: &mut Frame) -> Option<()> {
        if self.headed {
            frame.offload = header::decode(frame.bytes().first_chunk()?).ok()?;
            let cut = frame.shrink_front(HEADER);
            debug_assert!(cut, "the header has just been read");
        }
        Some(())
    }

    /// Hands on what was read in our stead.
    fn hand_on(&mut self, batch: &mut FrameBatch) -> Result<usize, DeviceError> {
        let before = batch.len();
        while !batch.is_full()
            && let Some(frame) = self.ahead.pop_front()
        {
            let refused = batch.push(frame);
            debug_assert!(refused.is_ok(), "the batch was not full");
        }
        match (batch.len() - before, self.failure) {
            (0, Some(error)) if self.ahead.is_empty() => Err(error),
            (received, _) => Ok(received),
        }
    }

    /// Writes one frame. What the descriptor cannot express is refused as the kernel refuses a malformed one.
    fn write(&self, frame: &mut Frame) -> io::Result<()> {
        if self.headed {
            let header = header::encode(&frame.offload, frame.bytes());
            if !frame.grow_front(HEADER) {
                return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
            }
            frame.bytes_mut()[..HEADER].copy_from_slice(&header);
        } else if matches!(frame.offload.checksum, Checksum::Partial { .. })
            || frame.offload.segmentation.is_some()
        {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        // A frame is taken whole or not at all.
        retry_on_intr(|| rustix::io::write(self.fd.file(), frame.bytes()))?;
        Ok(())
    }
}

const HEADER_INT: libc::c_int = 10;
const _: () = assert!(HEADER == 10 && HEADER == LEAD);

fn doing(action: &'static str, source: io::Error) -> TapError {
    TapError::Io { action, source }
}

fn open_driver() -> Result<OwnedFd, TapError> {
    // The standard library opens with O_CLOEXEC.
    let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun");
    file.map(OwnedFd::from).map_err(error::opening)
}

fn set_offload(fd: &TapFd, features: libc::c_uint) -> Result<(), TapError> {
    fd.set_offload(features).map_err(|source| doing("set the TAP's offload", source))
}

/// Asks for everything, and for less from kernels that do not know UDP segmentation (before 6.2).
fn negotiate(fd: &TapFd) -> Result<OffloadFeatures, TapError> {
    let tcp = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
    let with_udp = tcp | libc::TUN_F_USO4 | libc::TUN_F_USO6;
    for (bits, uso) in [(with_udp, true), (tcp, false)] {
        match fd.set_offload(bits) {
            Ok(()) => return Ok(OffloadFeatures { uso, ..OffloadFeatures::ALL }),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {}
            Err(source) => return Err(doing("set the TAP's offload", source)),
        }
    }
    Err(TapError::NoOffload)
}

/// The same frame in a small slab; the large one is free again.
fn repack(pool: &mut FramePool, buffer: Frame) -> Frame {
    let frame = pool.duplicate(&buffer);
    pool.recycle(buffer);
    frame
}

/// What a failed read or write says about the device; `None` if only about this frame.
fn fatal(error: &io::Error) -> Option<DeviceError> {
    match error.raw_os_error() {
        Some(libc::EBADFD) => Some(DeviceError::Gone),
        Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM | libc::EIO | libc::EINVAL | libc::EMSGSIZE) => None,
        // A short write has no errno; the kernel takes a frame whole or not at all.
        None => None,
        Some(errno) => Some(DeviceError::Os(errno)),
    }
}

impl Device for Tap {
    fn mtu(&self) -> usize {
        self.mtu
    }

    fn offload(&self) -> OffloadFeatures {
        self.features
    }

    fn recv_batch(&mut self, pool: &mut FramePool, batch: &mut FrameBatch) -> Result<usize, DeviceError> {
        if !self.ahead.is_empty() || self.failure.is_some() {
            return self.hand_on(batch);
        }
        let before = batch.len();
        let mut failure = None;
        while !batch.is_full() {
            let mut buffer = pool.take(MAX_FRAME);
            match self.read(&mut buffer) {
                Ok(()) => {
                    let frame = if buffer.len() <= SMALL_FRAME { repack(pool, buffer) } else { buffer };
                    let refused = batch.push(frame);
                    debug_assert!(refused.is_ok(), "the batch was not full");
                }
                Err(error) => {
                    pool.recycle(buffer);
                    if error.kind() == io::ErrorKind::InvalidData {
                        self.unsupported += 1;
                    } else if error.kind() != io::ErrorKind::Interrupted {
                        failure = fatal(&error);
                        break;
                    }
                }
            }
        }
        match (batch.len() - before, failure) {
            (0, Some(error)) => Err(error),
            // What was received before the failure is the caller's; the kernel reports the failure again.
            (received, _) => Ok(received),
        }
    }

    fn send_batch(&mut self, pool: &mut FramePool, batch: &mut FrameBatch) -> Result<Sent, DeviceError> {
        let joins = self.features.checksum && self.features.uso;
        let mut sent = Sent::default();
        let mut failure = None;
        let mut frames = batch.drain();
        let mut next = frames.next();
        while let Some(mut frame) = next {
            let (mut count, mut bytes) = (1, frame.len() as u64);
            next = frames.next();
            while joins && let Some(other) = next.take_if(|other| join(&mut frame, other, pool)) {
                (count, bytes) = (count + 1, bytes + other.len() as u64);
                pool.recycle(other);
                next = frames.next();
            }
            if failure.is_none() {
                match self.write(&mut frame) {
                    Ok(()) => {
                        sent.frames += count;
                        sent.bytes += bytes;
                    }
                    Err(error) => {
                        failure = fatal(&error);
                        sent.refused += count;
                    }
                }
            }
            pool.recycle(frame);
        }
        failure.map_or(Ok(sent), Err)
    }

    fn raw_fd(&self) -> Option<RawFd> {
        Some(self.fd.as_raw_fd())
    }

    fn takes_reads(&self) -> bool {
        true
    }

    fn take_read(&mut self, pool: &mut FramePool, read: Result<Frame, i32>) {
        match read {
            Ok(mut frame) => {
                if self.take_header(&mut frame).is_some() {
                    self.ahead.push_back(frame);
                } else {
                    self.unsupported += 1;
                    pool.recycle(frame);
                }
            }
            Err(errno) => self.failure = fatal(&io::Error::from_raw_os_error(errno)),
        }
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.file().as_fd()
    }
}

impl From<Tap> for OwnedFd {
    /// Gives the descriptor up, to pass it to another process.
    fn from(tap: Tap) -> Self {
        File::into(tap.fd.into_file())
    }
}
