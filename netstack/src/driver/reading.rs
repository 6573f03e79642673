//! Who reads devices: each by itself, after epoll has said that it has input, or the kernel for all of them, through a
//! ring. And how the driver waits for either.

use std::collections::VecDeque;
use std::io;
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use super::{Driver, WAKE};
use crate::device::DeviceError;
use crate::device::ring::Ring;
use crate::frame::FramePool;
use crate::sync::Notify as _;

/// Who reads the devices that can be read either way.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[non_exhaustive]
pub enum Reading {
    /// Under load the ring, else the device itself.
    #[default]
    Automatic,
    /// The device itself, always.
    Direct,
    /// The ring, if the kernel has one to give.
    Ring,
}

/// Batches of several frames, less those of one, after which a device is read through the ring.
const DENSE: u32 = 16;
/// Frames in a batch of several.
const SEVERAL: usize = 4;
/// A sleep as long as this has all devices read by themselves again.
pub const LONG_SLEEP: Duration = Duration::from_millis(10);
/// How long the last completion of a cancelled read may take, and how often it is waited for.
const LAST_READ: Duration = Duration::from_millis(100);
const ATTEMPTS: usize = 50;

/// Who reads one device.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Reader {
    /// Itself, when epoll says so.
    Itself,
    /// The ring; whether the kernel has the request, and what that has given so far.
    Ring { armed: bool, frames: u32 },
}

/// The ring and what is to be done with it.
#[derive(Debug, Default)]
pub(super) struct Reads {
    reading: Reading,
    ring: Option<Ring>,
    /// Why there is none, and never will be.
    refusal: Option<String>,
    /// Attachments that the ring reads.
    count: usize,
    /// Places of those whose request has ended, in the order in which they are to be armed.
    to_arm: VecDeque<usize>,
    /// Places of those that may want another reader.
    undecided: Vec<usize>,
}

impl Reads {
    /// The device at `place` may want another reader than it has.
    pub(super) fn reconsider(&mut self, place: usize) {
        self.undecided.push(place);
    }
}

/// How dense the traffic of one device is: grows with each batch of several frames, falls with each other one. A stream of
/// super-frames is not dense: a device that reads them by itself uses the same few slabs again and again, which stay in
/// cache, and a call for each is little beside copying it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Density(u32);

impl Density {
    /// Whether batches of several frames are the exception.
    pub(super) fn is_least(self) -> bool {
        self.0 == 0
    }

    /// Takes a batch into account, and says whether that may change who reads.
    pub(super) fn note(&mut self, frames: usize) -> bool {
        let before = self.0;
        self.0 = if frames >= SEVERAL { (before + 1).min(2 * DENSE) } else { before.saturating_sub(1) };
        self.0 != before && (self.0 == DENSE || self.0 == 0)
    }
}

impl Driver {
    /// Says who reads devices from now on.
    pub fn set_reading(&mut self, reading: Reading) {
        self.reads.reading = reading;
        self.reads.undecided.extend(0..self.attachments.len());
    }

    /// Whether a driver made now could read devices through a ring, found out by making one.
    ///
    /// # Errors
    /// What the kernel said: it is older than Linux 6.7, or was told to refuse (`kernel.io_uring_disabled`, seccomp).
    pub fn try_ring() -> io::Result<()> {
        Ring::new(&mut FramePool::new()).map(drop)
    }

    /// Why devices are not read through a ring although they may be; `None` as long as nothing speaks against it.
    pub fn ring_refusal(&self) -> Option<&str> {
        self.reads.refusal.as_deref()
    }

    /// Waits for input, a command or a deadline, and marks the devices that have frames.
    pub(super) fn wait(&mut self, max_wait: Option<Duration>) -> io::Result<()> {
        self.choose_readers();
        let timeout = self.sleep_for(max_wait);
        let waited = self.wait_for(timeout);
        // What engines of this driver say to each other in the turn that follows is heard in it.
        for attachment in self.attachments.iter_mut().flatten().filter(|attachment| attachment.polled) {
            attachment.device.end_sleep();
        }
        waited
    }

    fn wait_for(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        if timeout == Some(Duration::ZERO) {
            return self.look().map(drop);
        }
        let begin = self.clock.now();
        let patience = self.patience.look_for(begin);
        let patience = timeout.map_or(patience, |timeout| patience.min(timeout));
        let mut spent = Duration::ZERO;
        while spent < patience {
            if self.look()? {
                return Ok(());
            }
            std::hint::spin_loop();
            spent = self.clock.now() - begin;
        }
        self.patience.looked_in_vain(spent);
        let input = self.sleep(timeout.map(|timeout| timeout.saturating_sub(spent)))?;
        let slept = self.clock.now() - begin - spent;
        self.patience.slept(slept, input);
        if slept >= LONG_SLEEP && self.reads.reading == Reading::Automatic {
            self.leave_ring();
        }
        Ok(())
    }

    /// Looks for input without waiting, and says whether there is any.
    fn look(&mut self) -> io::Result<bool> {
        self.keep_armed();
        match &mut self.reads.ring {
            Some(ring) if self.reads.count > 0 => {
                if !ring.is_due() {
                    return Ok(false);
                }
                let polled = ring.poll();
                self.reap(polled)
            }
            _ => self.ask_epoll(Some(Duration::ZERO)),
        }
    }

    /// Sleeps until there is input, at most `timeout` (`None`: for ever), and says whether there is any.
    fn sleep(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        self.keep_armed();
        match &mut self.reads.ring {
            Some(ring) if self.reads.count > 0 => {
                let entered = ring.enter(timeout);
                self.reap(entered)
            }
            _ => self.ask_epoll(timeout),
        }
    }

    fn ask_epoll(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        let found = self.epoll.wait(timeout)?;
        for token in self.epoll.tokens() {
            if token == WAKE {
                self.wake.drain();
                continue;
            }
            let place = usize::try_from(token).ok();
            if let Some(attachment) = place.and_then(|place| self.attachments.get_mut(place)?.as_mut()) {
                attachment.ready = true;
            }
        }
        Ok(found)
    }

    /// Hands to their devices what the ring has read, and says whether there is any input. A ring that failed is given up.
    fn reap(&mut self, entered: io::Result<()>) -> io::Result<bool> {
        let mut found = false;
        while let Some(ring) = &mut self.reads.ring
            && let Some(completion) = ring.next()
        {
            let Ok(place) = usize::try_from(completion.token) else { continue };
            let Some(Some(attachment)) = self.attachments.get_mut(place) else { continue };
            let Some(Some(slot)) = self.engines.get_mut(attachment.engine.0 as usize) else { continue };
            let Reader::Ring { armed, frames } = &mut attachment.reader else { continue };
            let pool = slot.engine.pool();
            match completion.read {
                Ok(read) => {
                    *frames += 1;
                    attachment.counters.rx_by_ring += 1;
                    let frame = ring.take(read, pool);
                    attachment.device.take_read(pool, Ok(frame));
                    attachment.ready = true;
                    found = true;
                }
                Err(libc::ENOBUFS | libc::ECANCELED | libc::EAGAIN | libc::EINTR) => {}
                Err(errno) => {
                    attachment.device.take_read(pool, Err(errno));
                    attachment.ready = true;
                    found = true;
                }
            }
            if !completion.armed {
                *armed = false;
                // Whoever got nothing because others had taken all buffers comes before them.
                if *frames == 0 {
                    self.reads.to_arm.push_front(place);
                } else {
                    self.reads.to_arm.push_back(place);
                }
            }
        }
        if let Err(error) = entered {
            self.lose_ring(&error);
            return Ok(true);
        }
        if self.reads.ring.as_mut().is_some_and(Ring::take_watched) {
            found |= self.ask_epoll(Some(Duration::ZERO))?;
        }
        Ok(found)
    }

    /// Gives devices to the ring and takes them back.
    fn choose_readers(&mut self) {
        while let Some(place) = self.reads.undecided.pop() {
            let Some(Some(attachment)) = self.attachments.get(place) else { continue };
            let by_ring = attachment.reader != Reader::Itself;
            let wanted = match self.reads.reading {
                Reading::Direct => false,
                Reading::Ring => true,
                Reading::Automatic if by_ring => attachment.density.0 > 0,
                Reading::Automatic => attachment.density.0 >= DENSE,
            };
            if wanted && !by_ring && attachment.device.takes_reads() {
                self.read_by_ring(place);
            } else if by_ring && !wanted {
                self.read_directly(place);
            }
        }
    }

    /// Has the kernel read and watch all that the ring is for, whatever of it has ended since: also what a look has seen end
    /// that then found nothing. A sleep would not hear of it.
    fn keep_armed(&mut self) {
        if self.reads.count > 0
            && let Err(error) = self.arm()
        {
            self.lose_ring(&error);
        }
    }

    /// Queues what the kernel is to read and watch.
    fn arm(&mut self) -> io::Result<()> {
        let Some(ring) = &mut self.reads.ring else { return Ok(()) };
        while let Some(place) = self.reads.to_arm.pop_front() {
            let Some(Some(attachment)) = self.attachments.get_mut(place) else { continue };
            if let (Reader::Ring { armed: false, .. }, Some(fd)) =
                (attachment.reader, attachment.device.raw_fd())
            {
                ring.arm(fd, place as u64)?;
                attachment.reader = Reader::Ring { armed: true, frames: 0 };
            }
        }
        ring.watch(self.epoll.as_raw_fd())
    }

    /// From now on the ring reads the device at `place`, if there is one.
    fn read_by_ring(&mut self, place: usize) {
        if self.reads.refusal.is_some() {
            return;
        }
        let Some(attachment) = &mut self.attachments[place] else { return };
        let Some(fd) = attachment.device.raw_fd() else { return };
        let Some(Some(slot)) = self.engines.get_mut(attachment.engine.0 as usize) else { return };
        if self.reads.ring.is_none() {
            match Ring::new(slot.engine.pool()) {
                Ok(ring) => self.reads.ring = Some(ring),
                Err(error) => {
                    self.reads.refusal = Some(error.to_string());
                    return;
                }
            }
        }
        self.epoll.remove(fd);
        attachment.reader = Reader::Ring { armed: false, frames: 0 };
        self.reads.count += 1;
        self.reads.to_arm.push_back(place);
    }

    /// From now on the device at `place` is not read through the ring; what has been read is with the device.
    pub(super) fn stop_ring_read(&mut self, place: usize) {
        let reader = |driver: &Self| driver.attachments.get(place)?.as_ref().map(|a| a.reader);
        if let (Some(Reader::Ring { armed: true, .. }), Some(ring)) = (reader(self), &mut self.reads.ring) {
            let mut cancelled = ring.cancel(place as u64);
            for _ in 0..ATTEMPTS {
                let entered = match (&mut self.reads.ring, cancelled) {
                    (Some(ring), Ok(())) => ring.enter(Some(LAST_READ)),
                    (_, result) => result,
                };
                cancelled = Ok(());
                // An error here is one of epoll, which the next wait meets as well.
                let _ = self.reap(entered);
                if !matches!(reader(self), Some(Reader::Ring { armed: true, .. })) {
                    break;
                }
            }
        }
        if let Some(Some(attachment)) = self.attachments.get_mut(place)
            && attachment.reader != Reader::Itself
        {
            attachment.reader = Reader::Itself;
            self.reads.count -= 1;
        }
        self.reads.to_arm.retain(|&armed| armed != place);
    }

    /// From now on the device at `place` reads by itself.
    fn read_directly(&mut self, place: usize) {
        self.stop_ring_read(place);
        self.return_to_epoll(place);
    }

    /// Load is over: all devices read by themselves.
    fn leave_ring(&mut self) {
        for place in 0..self.attachments.len() {
            if self.attachments[place].as_ref().is_some_and(|a| a.reader != Reader::Itself) {
                self.read_directly(place);
            }
        }
    }

    /// Has epoll say when the device at `place` has input.
    fn return_to_epoll(&mut self, place: usize) {
        let Some(Some(attachment)) = self.attachments.get_mut(place) else { return };
        attachment.density = Density::default();
        attachment.ready = true;
        if let Some(fd) = attachment.device.raw_fd()
            && let Err(error) = self.epoll.add(fd, place as u64)
        {
            attachment.failed = Some(DeviceError::Os(error.raw_os_error().unwrap_or(libc::EIO)));
        }
    }

    /// The ring cannot be used any more: all devices read by themselves again.
    fn lose_ring(&mut self, error: &io::Error) {
        self.reads.refusal = Some(match error.raw_os_error() {
            Some(libc::EEXIST) => "the driver has changed to another thread than the ring's".to_owned(),
            _ => error.to_string(),
        });
        self.reads.ring = None;
        self.reads.count = 0;
        self.reads.to_arm.clear();
        for place in 0..self.attachments.len() {
            if let Some(attachment) = &mut self.attachments[place]
                && attachment.reader != Reader::Itself
            {
                attachment.reader = Reader::Itself;
                self.return_to_epoll(place);
            }
        }
    }
}
