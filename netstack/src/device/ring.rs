//! Reads that the kernel makes by itself (io_uring(7)): a descriptor's frames are read into buffers lent beforehand as
//! they come, and one call fetches those of all descriptors.
//!
//! # Theory of operation
//! *Reading.* A descriptor is armed once (`IORING_OP_READ_MULTISHOT`, Linux 6.7) and read from then on until it fails,
//! is cancelled, or the buffers run out; the last of its completions says so. With deferred task work the kernel does
//! all this within [`Ring::enter`] alone, on the calling thread, and between two calls nothing changes but a flag that
//! says that there is something to do: [`Ring::is_due`] costs a load.
//!
//! *Buffers.* [`BUFFERS`] large frames of a pool are lent to the kernel, which takes them in the order in which they
//! were lent. What is read into one leaves as a frame: a short one is copied and its buffer lent again, a long one leaves
//! with its buffer, and a fresh one of the pool takes its place. So the buffers that wait in the ring are always as many,
//! however many descriptors there are, and a flood on one of them ends with the buffers: it is armed anew behind the
//! others.
//!
//! *Safety.* The kernel writes into lent buffers and reads the table of them as long as a request is under way. Both
//! belong to the ring, which touches a lent buffer only after a completion has named it. Every request is counted when it
//! is handed over and counted off by its last completion. The memory is freed once none is left; the ring sees to that
//! before it goes, and where it cannot (the kernel refuses, because a ring belongs to the thread that made it) the memory
//! is never freed. A descriptor that is closed while it is armed changes nothing of this: the request holds the open file.
#![expect(
    unsafe_code,
    reason = "beside `sys` the one place where this crate calls the kernel without help from std"
)]

use std::io;
use std::mem;
use std::os::fd::RawFd;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use io_uring::types::{BufRingEntry, CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, Probe, cqueue, opcode, squeue};

use crate::frame::{Frame, FramePool, HEADROOM, MAX_FRAME, SMALL_SLAB};

/// Buffers that are lent, a power of two. As many frames can be read in one go.
pub(crate) const BUFFERS: u16 = 32;
/// Octets of headroom that a read begins earlier than other frames do: the header that a TAP has in front.
pub(crate) const LEAD: usize = 10;
/// Octets of a read that a small slab takes.
const SMALL_READ: usize = SMALL_SLAB - HEADROOM + LEAD;

const REQUESTS: u32 = 64;
/// Completions of a full set of buffers, and the last ones of many descriptors; what is beyond waits in the kernel.
const COMPLETIONS: u32 = 1024;
const GROUP: u16 = 0;
/// Tokens of requests that read nothing.
const WATCH: u64 = u64::MAX;
const CANCEL: u64 = u64::MAX - 1;
/// How long a request that was cancelled may take to end, and how often it is asked for.
const PATIENCE: Duration = Duration::from_millis(100);
const ATTEMPTS: usize = 50;

/// The table through which buffers are lent: where the kernel looks for them, on a page of its own.
#[repr(C, align(4096))]
struct Table([BufRingEntry; BUFFERS as usize]);

/// A frame that was read: where it is until [`Ring::take`].
#[derive(Debug)]
#[must_use = "its buffer comes back by `Ring::take` alone"]
pub(crate) struct Read {
    buffer: u16,
    len: usize,
}

/// What became of an armed descriptor.
#[derive(Debug)]
pub(crate) struct Completion {
    /// What it was armed with.
    pub(crate) token: u64,
    /// The frame, or the `errno` of the failure.
    pub(crate) read: Result<Read, i32>,
    /// Whether it goes on.
    pub(crate) armed: bool,
}

/// A ring. It belongs to the thread that made it: another one is refused by the kernel.
pub(crate) struct Ring {
    ring: IoUring,
    /// `None` once the kernel keeps it for good, as `buffers` are.
    table: Option<Box<Table>>,
    buffers: Vec<Frame>,
    /// How many buffers have been lent since the beginning.
    lent: u16,
    /// Requests whose last completion has not been seen.
    under_way: usize,
    watching: bool,
    watched: bool,
    flags: EnterFlags,
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ring").field("under_way", &self.under_way).finish_non_exhaustive()
    }
}

impl Ring {
    /// A ring with buffers of `pool`. Fails where the kernel has none (before 6.7), or refuses it.
    pub(crate) fn new(pool: &mut FramePool) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_cqsize(COMPLETIONS)
            .build(REQUESTS)?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        if !probe.is_supported(opcode::ReadMulti::CODE) {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "it has no multishot reads"));
        }
        // SAFETY: an entry is three integers, for which all zeros are a value.
        let mut table = unsafe { Box::<Table>::new_zeroed().assume_init() };
        let address = (&raw mut *table).expose_provenance() as u64;
        // SAFETY: the table is of as many entries and stays where it is: it is freed only when no request is left that
        // could look into it, and the ring is gone.
        unsafe { ring.submitter().register_buf_ring_with_flags(address, BUFFERS, GROUP, 0)? };
        let mut flags = EnterFlags::GETEVENTS | EnterFlags::EXT_ARG;
        if ring.params().is_feature_no_iowait() {
            // An idle thread is not one that waits for a disk.
            flags |= EnterFlags::NO_IOWAIT;
        }
        let buffers = (0..BUFFERS).map(|_| Self::fresh(pool)).collect();
        let (lent, under_way) = (0, 0);
        let mut ring = Self {
            ring,
            table: Some(table),
            buffers,
            lent,
            under_way,
            watching: false,
            watched: false,
            flags,
        };
        for buffer in 0..BUFFERS {
            ring.lend(buffer);
        }
        Ok(ring)
    }

    /// A frame to read into.
    fn fresh(pool: &mut FramePool) -> Frame {
        let mut frame = pool.take(MAX_FRAME);
        let grown = frame.grow_front(LEAD);
        debug_assert!(grown, "a fresh frame has headroom");
        frame
    }

    /// A copy in a small slab, the header in the headroom.
    fn short(pool: &mut FramePool, bytes: &[u8]) -> Frame {
        let mut frame = pool.take(0);
        let fits = frame.grow_front(LEAD) && frame.set_len(bytes.len());
        debug_assert!(fits, "a fresh frame has headroom, and the read is short");
        frame.bytes_mut().copy_from_slice(bytes);
        frame
    }

    /// Puts a buffer behind those that the kernel may write to.
    fn lend(&mut self, buffer: u16) {
        let Some(table) = &mut self.table else { return };
        let bytes = self.buffers[usize::from(buffer)].bytes_mut();
        let entry = &mut table.0[usize::from(self.lent & (BUFFERS - 1))];
        entry.set_addr(bytes.as_mut_ptr().expose_provenance() as u64);
        entry.set_len(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        entry.set_bid(buffer);
        self.lent = self.lent.wrapping_add(1);
        // SAFETY: the table begins with its first entry, in a spare field of which the end of what was lent is kept,
        // aligned as an integer of 16 bits; nobody but this thread and the kernel within its calls looks at it.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(table.0.as_mut_ptr()).cast_mut()) };
        tail.store(self.lent, Ordering::Release);
    }

    /// Reads from `fd` what comes, until a completion says that it does no more. The descriptor must read without
    /// waiting, and give a frame each time.
    pub(crate) fn arm(&mut self, fd: RawFd, token: u64) -> io::Result<()> {
        debug_assert!(token < CANCEL);
        // A length of 0 stands for the buffer's.
        self.push(&opcode::ReadMulti::new(Fd(fd), 0, GROUP).build().user_data(token))
    }

    /// Ends the reading for `token`, whose last completion comes soon.
    pub(crate) fn cancel(&mut self, token: u64) -> io::Result<()> {
        self.push(&opcode::AsyncCancel2::new(CancelBuilder::user_data(token)).build().user_data(CANCEL))
    }

    /// Has [`Ring::enter`] end its wait also when `fd` becomes readable, once.
    pub(crate) fn watch(&mut self, fd: RawFd) -> io::Result<()> {
        if !mem::replace(&mut self.watching, true) {
            let events = u32::from(libc::POLLIN.unsigned_abs());
            self.push(&opcode::PollAdd::new(Fd(fd), events).build().user_data(WATCH))?;
        }
        Ok(())
    }

    /// Whether what was watched has become readable since the last call.
    pub(crate) fn take_watched(&mut self) -> bool {
        mem::take(&mut self.watched)
    }

    fn push(&mut self, request: &squeue::Entry) -> io::Result<()> {
        if self.ring.submission().is_full() {
            self.call(0, None)?;
        }
        // SAFETY: the requests that are pushed name no memory: reads take theirs from the table.
        let pushed = unsafe { self.ring.submission().push(request) };
        pushed.map_err(|_| io::Error::from_raw_os_error(libc::EBUSY))?;
        self.under_way += 1;
        Ok(())
    }

    /// Whether a call would find something to do at once.
    pub(crate) fn is_due(&mut self) -> bool {
        let requests = self.ring.submission();
        let due = requests.taskrun() || requests.cq_overflow() || !requests.is_empty();
        drop(requests);
        due || !self.ring.completion().is_empty()
    }

    /// Hands over what was asked for and lets the kernel read, without waiting.
    pub(crate) fn poll(&mut self) -> io::Result<()> {
        if self.is_due() { self.call(0, None) } else { Ok(()) }
    }

    /// The same, and waits for a completion, at most `timeout` (`None`: for ever). A signal ends the wait.
    pub(crate) fn enter(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let wanted = u32::from(self.ring.completion().is_empty());
        self.call(wanted, timeout)
    }

    fn call(&mut self, wanted: u32, timeout: Option<Duration>) -> io::Result<()> {
        let requests = u32::try_from(self.ring.submission().len()).unwrap_or(u32::MAX);
        let limit = timeout.map(Timespec::from);
        let mut arguments = SubmitArgs::new();
        if let Some(limit) = &limit {
            arguments = arguments.timespec(limit);
        }
        // SAFETY: the arguments outlive the call and are what EXT_ARG announces; as many requests are queued.
        let result =
            unsafe { self.ring.submitter().enter(requests, wanted, self.flags.bits(), Some(&arguments)) };
        match result.map_err(|error| error.raw_os_error()) {
            // What was queued is handed over even if the wait behind it ends like that. EBUSY: completions wait in the
            // kernel until there is room for them.
            Ok(_) | Err(Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)) => Ok(()),
            Err(errno) => Err(io::Error::from_raw_os_error(errno.unwrap_or(libc::EIO))),
        }
    }

    /// The next of what the last calls have brought.
    pub(crate) fn next(&mut self) -> Option<Completion> {
        loop {
            let entry = self.ring.completion().next()?;
            let armed = cqueue::more(entry.flags());
            if !armed {
                self.under_way -= 1;
            }
            let token = entry.user_data();
            if token == WATCH {
                self.watching = false;
                self.watched = true;
            } else if token != CANCEL {
                let read = match (usize::try_from(entry.result()), cqueue::buffer_select(entry.flags())) {
                    (Ok(len), Some(buffer)) if buffer < BUFFERS => Ok(Read { buffer, len }),
                    // Of a device that is not read like this the kernel tells no buffer.
                    (Ok(_), _) => Err(libc::EOPNOTSUPP),
                    (Err(_), _) => Err(entry.result().wrapping_neg()),
                };
                return Some(Completion { token, read, armed });
            }
        }
    }

    /// The frame that was read, with what a TAP has in front of it, in a slab of its own; the buffer is lent again.
    pub(crate) fn take(&mut self, read: Read, pool: &mut FramePool) -> Frame {
        let Read { buffer, len } = read;
        let slot = &mut self.buffers[usize::from(buffer)];
        let frame = if len <= SMALL_READ {
            Self::short(pool, slot.bytes().get(..len).unwrap_or_default())
        } else {
            let mut frame = mem::replace(slot, Self::fresh(pool));
            let cut = frame.set_len(len);
            debug_assert!(cut, "no more is read than there is room for");
            frame
        };
        self.lend(buffer);
        frame
    }

    /// Cancels what is under way and waits for its end.
    fn close(&mut self) -> io::Result<()> {
        if self.under_way > 0 {
            let all = CancelBuilder::any().all();
            self.push(&opcode::AsyncCancel2::new(all).build().user_data(CANCEL))?;
        }
        for _ in 0..ATTEMPTS {
            while self.next().is_some() {}
            if self.under_way == 0 {
                return Ok(());
            }
            self.enter(Some(PATIENCE))?;
        }
        Err(io::ErrorKind::TimedOut.into())
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        if self.close().is_err() {
            mem::forget(self.table.take());
            mem::forget(mem::take(&mut self.buffers));
        }
    }
}
