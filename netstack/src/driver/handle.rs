//! Reaching a driver from other threads.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use super::{Clock, Driver};
use crate::device::sys::EventFd;
use crate::sync::Notify;
use crate::sync::channel::{self, Receiver, Sender};

/// Commands that wait; a caller beyond those waits before it can queue its own.
const COMMANDS: usize = 64;

/// Something to do between two batches.
pub(super) type Command = Box<dyn FnOnce(&mut Driver) + Send>;

/// The driver stopped before it did what it was asked to.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the driver has stopped")]
pub struct Stopped;

/// Reaches one driver from any thread.
#[derive(Clone, Debug)]
pub struct DriverHandle {
    commands: Sender<Command>,
    wake: Arc<EventFd>,
    /// Nothing is ever sent on it: it ends with the driver.
    ended: Receiver<Infallible>,
}

/// The driver's end of its handles.
#[derive(Debug)]
pub(super) struct Inbox {
    /// What it was asked to do.
    pub(super) commands: Receiver<Command>,
    /// Held for as long as commands are taken out. A queued command outlives the receiver of the queue, and so does
    /// the channel for its answer: by that alone nobody would learn that no answer comes.
    _alive: Sender<Infallible>,
}

impl DriverHandle {
    pub(super) fn new(wake: Arc<EventFd>) -> (Self, Inbox) {
        let (sender, commands) = channel::bounded(COMMANDS);
        let (alive, ended) = channel::bounded(0);
        (Self { commands: sender, wake, ended }, Inbox { commands, _alive: alive })
    }

    /// Runs `command` on the driver's thread, between two batches, and returns what it returns. Must not be called on
    /// that thread itself, which would wait for its own answer. Waits until the driver turns. Keep commands short:
    /// frames wait meanwhile.
    pub fn call<R: Send + 'static>(
        &self,
        command: impl FnOnce(&mut Driver) -> R + Send + 'static,
    ) -> Result<R, Stopped> {
        let (answer, answered) = channel::bounded(1);
        let command = move |driver: &mut Driver| drop(answer.send(command(driver)));
        self.commands.send(Box::new(command)).map_err(|_| Stopped)?;
        self.wake.notify();
        channel::select! {
            recv(answered) -> answer => answer.map_err(|_| Stopped),
            // The answer may have been the last thing the driver gave.
            recv(self.ended) -> _ => answered.try_recv().map_err(|_| Stopped),
        }
    }

    /// Makes the driver turn once, for example after a snapshot was published that it follows. Never waits.
    pub fn wake(&self) {
        self.wake.notify();
    }

    /// Ends [`Driver::run`] after the turn it is in. A driver that has stopped stays so.
    pub fn stop(&self) {
        // Whether the answer comes or not, the driver has stopped or is about to.
        let _ = self.call(Driver::stop);
    }
}

impl Driver {
    /// Runs a driver on a thread of its own: `build` sets it up on the calling thread, so that its errors are returned
    /// from here. The thread ends after [`DriverHandle::stop`] or when waiting for input fails.
    pub fn spawn(
        clock: Clock,
        name: &str,
        build: impl FnOnce(&mut Self) -> io::Result<()>,
    ) -> io::Result<(DriverHandle, JoinHandle<io::Result<()>>)> {
        let mut driver = Self::new(clock)?;
        build(&mut driver)?;
        let handle = driver.handle();
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || driver.run())?;
        Ok((handle, thread))
    }
}
