//! A driver on a thread of its own, for callers who want no loop.
//!
//! # Theory of operation
//! The driver owns the switch and the devices on its ports. What the caller wants of them is done on the driver's thread,
//! between two batches, while the caller waits for it: with a callback he gets the switch lent, and uses it like any other.
//! The thread ends when the driver is freed.

use core::ffi::c_void;
use std::io;
use std::thread::{JoinHandle, ThreadId};

use netstack::addr::PortId;
use netstack::device::memory::{self, MemoryOptions};
use netstack::driver::{Clock, Driver, DriverEvent, DriverHandle, Engine, EngineId, Latency};

use crate::caller::{Outcome, Userdata};
use crate::device::netstack_device;
use crate::handle::{self, Opaque};
use crate::host::netstack_host;
use crate::result::{Code, found, netstack_result};
use crate::switch::{SwitchState, netstack_switch};

/// A switch, devices, hosts and a clock, on a thread of their own.
pub struct netstack_driver(());

impl Opaque for netstack_driver {
    type Value = Running;
    const KIND: u16 = 5;
}

/// What reaches the thread.
#[derive(Debug)]
pub struct Running {
    handle: DriverHandle,
    thread: Option<JoinHandle<io::Result<()>>>,
    id: ThreadId,
    clock: Clock,
    switch: EngineId,
    hosts: Vec<EngineId>,
    /// Whether a call in a callback has failed inside: what it was changing is not to be used any more.
    failed: bool,
}

/// Gets a driver's switch lent, on the driver's thread, and its time in microseconds. The handle is good until it returns.
pub type netstack_switch_callback =
    Option<unsafe extern "C" fn(userdata: *mut c_void, sw: *mut netstack_switch, now_us: u64)>;

/// Gets a host of a driver lent, on the driver's thread, and the driver's time in microseconds. The handle is good until it
/// returns.
pub type netstack_host_callback =
    Option<unsafe extern "C" fn(userdata: *mut c_void, host: *mut netstack_host, now_us: u64)>;

/// Batches on the link between a host of a driver and its switch.
const HOST_LINK: usize = 64;

impl Running {
    fn start(switch: SwitchState) -> Outcome<Self> {
        let clock = Clock::start();
        let mut id = None;
        let (handle, thread) = Driver::spawn(clock, "netstack", |driver| {
            id = Some(driver.add_engine(Box::new(switch)));
            Ok(())
        })
        .map_err(|_| Code::Os)?;
        let switch = id.ok_or(Code::Os)?;
        Ok(Self {
            handle,
            id: thread.thread().id(),
            thread: Some(thread),
            clock,
            switch,
            hosts: Vec::new(),
            failed: false,
        })
    }

    /// Whether this is its thread: a callback.
    fn is_own(&self) -> bool {
        std::thread::current().id() == self.id
    }

    /// Has something done on the driver's thread and waits for it.
    fn call<R: Send + 'static>(&self, work: impl FnOnce(&mut Driver) -> R + Send + 'static) -> Outcome<R> {
        // A callback on that thread would wait for itself.
        if self.is_own() {
            return Err(Code::Busy);
        }
        if self.failed {
            return Err(Code::Panic);
        }
        self.handle.call(work).map_err(|_| Code::Stopped)
    }

    /// Lends an engine to a callback, on the driver's thread.
    fn lend<O>(
        &mut self,
        engine: EngineId,
        callback: unsafe extern "C" fn(userdata: *mut c_void, handle: *mut O, now_us: u64),
        userdata: Userdata,
    ) -> Outcome
    where
        O: Opaque<Value: Engine> + 'static,
    {
        let clock = self.clock;
        let called = self.call(move |it| {
            let userdata = userdata;
            let state = it.engine_mut::<O::Value>(engine)?;
            let now = micros(&clock);
            let run = |handle| call_back!(callback, userdata.0, handle, now);
            let lent = handle::lend::<O, _>(state, run);
            Some(lent.inspect_err(|_| give_up(it, engine)))
        })?;
        let called = called.ok_or(Code::Stopped)?;
        self.failed = called == Err(Code::Panic);
        called
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.is_own() {
            // Nobody can wait for himself.
            return;
        }
        self.handle.stop();
        if let Some(thread) = self.thread.take() {
            // How it ended is of no interest any more.
            drop(thread.join());
        }
    }
}

/// Starts a thread that turns a switch. The switch is taken.
/// OS: no thread or no descriptor is left; the switch is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_driver_start(
    sw: *mut netstack_switch,
    driver: *mut *mut netstack_driver,
) -> netstack_result {
    boundary!(caller, {
        let mut out = caller.out(driver)?;
        let switch = caller.take_sound(sw)?;
        out.put(caller.give(Running::start(*switch)?));
        Ok(())
    })
}

/// Ends the thread and frees the driver with its switch, devices and hosts; NULL is allowed.
/// BUSY: called in a callback of the driver.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_driver_free(driver: *mut netstack_driver) -> netstack_result {
    boundary!(caller, {
        if !driver.is_null() && caller.read(driver.cast_const()).is_ok_and(|it| it.is_own()) {
            return Err(Code::Busy);
        }
        caller.free(driver)
    })
}

/// Puts a device on a port of the switch. The device is taken; one that is there already is freed.
/// OS: the device cannot be waited for; it is freed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_driver_attach(
    driver: *mut netstack_driver,
    port: u16,
    device: *mut netstack_device,
) -> netstack_result {
    boundary!(caller, {
        let driver = caller.write(driver)?;
        let device = caller.take_sound(device)?.into_device();
        let engine = driver.switch;
        driver.call(move |it| it.attach(engine, PortId(port), device))?.map_err(|_| Code::Os)
    })
}

/// Takes the device off a port and frees it.
/// NOT_FOUND: there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_driver_detach(driver: *mut netstack_driver, port: u16) -> netstack_result {
    boundary!(caller, {
        let driver = caller.write(driver)?;
        let engine = driver.switch;
        found(driver.call(move |it| it.detach(engine, PortId(port)))?).map(drop)
    })
}

/// Puts a host behind a port of the switch, by a link in memory, on the driver's thread. The host is taken. `id` gets its
/// number for netstack_driver_with_host.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_driver_add_host(
    driver: *mut netstack_driver,
    port: u16,
    host: *mut netstack_host,
    id: *mut u32,
) -> netstack_result {
    boundary!(caller, {
        let mut out = caller.out(id)?;
        let mut driver = caller.write(driver)?;
        let host = caller.take_sound(host)?;
        let (left, right) = memory::pair(HOST_LINK, MemoryOptions::default()).map_err(|_| Code::Os)?;
        let switch = driver.switch;
        let added = driver.call(move |it| {
            let engine = it.add_engine(host);
            it.attach(switch, PortId(port), Box::new(left))?;
            it.attach(engine, PortId(0), Box::new(right))?;
            io::Result::Ok(engine)
        })?;
        driver.hosts.push(added.map_err(|_| Code::Os)?);
        out.put(u32::try_from(driver.hosts.len() - 1).map_err(|_| Code::TableFull)?);
        Ok(())
    })
}

/// Calls back on the driver's thread, between two batches, with the switch, and waits until that has returned. Frames wait
/// meanwhile, so be short. What the callback touches must be fit for two threads.
/// BUSY: called in a callback of the driver. STOPPED: the thread has ended. PANIC: a call in the callback did, and the thread
/// ends.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_driver_with_switch(
    driver: *mut netstack_driver,
    callback: netstack_switch_callback,
    userdata: *mut c_void,
) -> netstack_result {
    boundary!(caller, {
        let callback = callback.ok_or(Code::NullPointer)?;
        let mut driver = caller.write(driver)?;
        let engine = driver.switch;
        driver.lend(engine, callback, Userdata(userdata))
    })
}

/// The same with a host.
/// NOT_FOUND: there is no host of this number.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_driver_with_host(
    driver: *mut netstack_driver,
    id: u32,
    callback: netstack_host_callback,
    userdata: *mut c_void,
) -> netstack_result {
    boundary!(caller, {
        let callback = callback.ok_or(Code::NullPointer)?;
        let mut driver = caller.write(driver)?;
        let index = usize::try_from(id).map_err(|_| Code::NotFound)?;
        let engine = *found(driver.hosts.get(index))?;
        driver.lend(engine, callback, Userdata(userdata))
    })
}

/// The driver's time in microseconds, and what to add to it for microseconds since the UNIX epoch. Either may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_driver_now(
    driver: *const netstack_driver,
    now_us: *mut u64,
    epoch_us: *mut u64,
) -> netstack_result {
    boundary!(caller, {
        let (mut now, mut epoch) = (caller.optional_out(now_us)?, caller.optional_out(epoch_us)?);
        let driver = caller.read(driver)?;
        now.put(micros(&driver.clock));
        epoch.put(u64::try_from(driver.clock.wall_offset().as_micros()).unwrap_or(u64::MAX));
        Ok(())
    })
}

/// What the driver pays for a short way from frame to frame: 0 for a twentieth of a core at most (the default), 1 for a
/// core as long as there is traffic, 2 for nothing.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_driver_set_latency(
    driver: *mut netstack_driver,
    latency: u32,
) -> netstack_result {
    boundary!(caller, {
        let latency = match latency {
            0 => Latency::Balanced,
            1 => Latency::Low,
            2 => Latency::Idle,
            _ => return Err(Code::InvalidArgument),
        };
        caller.write(driver)?.call(move |it| it.set_latency(latency))
    })
}

/// Takes the number of a port whose device is gone and was taken off. `told` gets whether there is one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_driver_poll_gone(
    driver: *mut netstack_driver,
    port: *mut u16,
    told: *mut bool,
) -> netstack_result {
    boundary!(caller, {
        let (mut out, mut told) = (caller.out(port)?, caller.out(told)?);
        let driver = caller.write(driver)?;
        let switch = driver.switch;
        let gone = driver.call(move |it| {
            loop {
                if let DriverEvent::DeviceGone { engine, port, .. } = it.poll_event()?
                    && engine == switch
                {
                    return Some(port);
                }
            }
        })?;
        told.put(gone.is_some());
        if let Some(port) = gone {
            out.put(port.0);
        }
        Ok(())
    })
}

/// Turns nothing any more: an engine may be half changed.
fn give_up(driver: &mut Driver, engine: EngineId) {
    drop(driver.remove_engine(engine));
    driver.stop();
}

fn micros(clock: &Clock) -> u64 {
    u64::try_from(clock.now().as_micros()).unwrap_or(u64::MAX)
}
