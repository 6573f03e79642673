//! Devices: links in memory, and TAPs of the kernel.

use core::ffi::c_char;
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};

use netstack::device::memory::{self, MemoryDevice, MemoryOptions};
use netstack::device::tap::{Kind, Mode, Tap, TapError};
use netstack::device::{Device, DeviceError};

use crate::batch::{Batch, netstack_batch};
use crate::caller::Outcome;
use crate::handle::Opaque;
use crate::ports::{features, netstack_device_flag};
use crate::result::{Code, netstack_result};

/// Something that frames come from and go to.
pub struct netstack_device(());

impl Opaque for netstack_device {
    type Value = AnyDevice;
    const KIND: u16 = 4;
}

/// A device of any kind that C can make.
#[derive(Debug)]
pub enum AnyDevice {
    /// One end of a link in memory.
    Memory(MemoryDevice),
    /// A TAP.
    Tap(Box<Tap>),
}

impl AnyDevice {
    fn device(&self) -> &dyn Device {
        match self {
            Self::Memory(memory) => memory,
            Self::Tap(tap) => &**tap,
        }
    }

    fn device_mut(&mut self) -> &mut dyn Device {
        match self {
            Self::Memory(memory) => memory,
            Self::Tap(tap) => &mut **tap,
        }
    }

    /// As a driver takes it.
    pub(crate) fn into_device(self) -> Box<dyn Device> {
        match self {
            Self::Memory(memory) => Box::new(memory),
            Self::Tap(tap) => tap,
        }
    }
}

/// How a TAP is opened.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum netstack_tap_mode {
    /// With offload if the kernel has it, otherwise plain.
    Auto = 0,
    /// Finished frames of at most the MTU.
    Plain = 1,
    /// Partial checksums and super-frames in both directions.
    Offload = 2,
}

fn tap_mode(number: u32) -> Outcome<Mode> {
    const AUTO: u32 = netstack_tap_mode::Auto as u32;
    const PLAIN: u32 = netstack_tap_mode::Plain as u32;
    const OFFLOAD: u32 = netstack_tap_mode::Offload as u32;
    match number {
        AUTO => Ok(Mode::Auto),
        PLAIN => Ok(Mode::Plain),
        OFFLOAD => Ok(Mode::Offload),
        _ => Err(Code::InvalidArgument),
    }
}

fn tap_code(error: &TapError) -> Code {
    match error {
        TapError::Permission { .. } => Code::Permission,
        TapError::NameTooLong { .. } | TapError::NameInvalid { .. } | TapError::NotATap => {
            Code::InvalidArgument
        }
        TapError::Busy { .. } | TapError::Taken { .. } => Code::AlreadyExists,
        TapError::NoDriver | TapError::NoOffload | TapError::Io { .. } => Code::Os,
        _ => Code::Os,
    }
}

fn device_code(error: DeviceError) -> Code {
    match error {
        DeviceError::Gone => Code::DeviceGone,
        DeviceError::Os(_) => Code::Os,
        _ => Code::Os,
    }
}

/// A link in memory that holds up to `capacity` batches (at least 1) in each direction, for packets of up to `mtu` octets.
/// `flags` say what either end takes without software's help, as a sum of NETSTACK_DEVICE_FLAG_*. Either end may move to
/// another thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_device_memory_pair(
    capacity: usize,
    mtu: usize,
    flags: u32,
    left: *mut *mut netstack_device,
    right: *mut *mut netstack_device,
) -> netstack_result {
    boundary!(caller, {
        let (mut left, mut right) = (caller.out(left)?, caller.out(right)?);
        if !(1..=MOST_BATCHES).contains(&capacity) {
            return Err(Code::InvalidArgument);
        }
        let options = MemoryOptions { mtu, offload: features(flags)? };
        let (a, b) = memory::pair(capacity, options).map_err(|_| Code::Os)?;
        left.put(caller.give(AnyDevice::Memory(a)));
        right.put(caller.give(AnyDevice::Memory(b)));
        Ok(())
    })
}

/// The longest link.
const MOST_BATCHES: usize = 1 << 16;

/// Makes the TAP interface `name` in the network namespace of this thread, or joins it if it is persistent and free. It is
/// down and has no address. `mode` is one of netstack_tap_mode.
/// PERMISSION, ALREADY_EXISTS, INVALID_ARGUMENT, OS: `error` says why, and what to do.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_device_tap_open(
    name: *const c_char,
    mode: u32,
    device: *mut *mut netstack_device,
    error: *mut *mut c_char,
) -> netstack_result {
    boundary!(caller, {
        let mut out = caller.out(device)?;
        let opened = Tap::open(caller.text(name)?, tap_mode(mode)?);
        let code = opened.as_ref().err().map_or(Code::Ok, tap_code);
        let tap = caller.tell(error, code, opened)?;
        out.put(caller.give(AnyDevice::Tap(Box::new(tap))));
        Ok(())
    })
}

/// Makes a device of a TAP's descriptor that somebody else opened. The descriptor is duplicated: the caller's stays his, but is
/// non-blocking from then on.
/// `mtu` is the interface's.
/// INVALID_ARGUMENT, OS: `error` says why.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_device_tap_from_fd(
    descriptor: i32,
    mode: u32,
    mtu: usize,
    device: *mut *mut netstack_device,
    error: *mut *mut c_char,
) -> netstack_result {
    boundary!(caller, {
        let mut out = caller.out(device)?;
        let mode = tap_mode(mode)?;
        let owned = duplicate(caller.descriptor(descriptor)?)?;
        let opened = Tap::from_fd(owned, mode, mtu);
        let code = opened.as_ref().err().map_or(Code::Ok, tap_code);
        let tap = caller.tell(error, code, opened)?;
        out.put(caller.give(AnyDevice::Tap(Box::new(tap))));
        Ok(())
    })
}

fn duplicate(descriptor: BorrowedFd<'_>) -> Outcome<OwnedFd> {
    descriptor.try_clone_to_owned().map_err(|_| Code::Os)
}

/// Frees a device; NULL is allowed. The other end of a link finds that this one is gone, an interface vanishes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_device_free(device: *mut netstack_device) -> netstack_result {
    boundary!(caller, { caller.free(device) })
}

/// Receives frames until the batch is full or nothing waits, behind those that it holds. `count` gets how many. Never
/// blocks.
/// DEVICE_GONE: the other end is gone, and nothing is left of what it sent.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_device_receive(
    device: *mut netstack_device,
    batch: *mut netstack_batch,
    count: *mut usize,
) -> netstack_result {
    boundary!(caller, {
        let mut out = caller.out(count)?;
        let mut device = caller.write(device)?;
        let mut batch = caller.write(batch)?;
        let Batch { frames, pool } = &mut *batch;
        out.put(device.device_mut().recv_batch(pool, frames).map_err(device_code)?);
        Ok(())
    })
}

/// Sends the frames of a batch, which is empty afterwards. `sent` gets how many the device took; it refuses what does not
/// fit its queue. `sent` may be NULL.
/// DEVICE_GONE: the other end is gone.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_device_send(
    device: *mut netstack_device,
    batch: *mut netstack_batch,
    sent: *mut u64,
) -> netstack_result {
    boundary!(caller, {
        let mut out = caller.optional_out(sent)?;
        let mut device = caller.write(device)?;
        let mut batch = caller.write(batch)?;
        let Batch { frames, pool } = &mut *batch;
        out.put(device.device_mut().send_batch(pool, frames).map_err(device_code)?.frames);
        Ok(())
    })
}

/// The descriptor that becomes readable when frames wait; it stays the device's. Before a link in memory is waited for
/// this way, netstack_device_prepare_sleep has to say that one may.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_device_descriptor(
    device: *const netstack_device,
    descriptor: *mut i32,
) -> netstack_result {
    boundary!(caller, {
        let mut out = caller.out(descriptor)?;
        let fd: Option<RawFd> = caller.read(device)?.device().raw_fd();
        out.put(fd.ok_or(Code::NotFound)?);
        Ok(())
    })
}

/// Says that the caller is about to wait for the descriptor. `may_sleep` gets false when frames wait already.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_device_prepare_sleep(
    device: *mut netstack_device,
    may_sleep: *mut bool,
) -> netstack_result {
    boundary!(caller, {
        let mut out = caller.out(may_sleep)?;
        out.put(caller.write(device)?.device_mut().prepare_sleep());
        Ok(())
    })
}

/// What the device takes over from software, as a sum of NETSTACK_DEVICE_FLAG_*: what to give to
/// netstack_config_set_offload for its port.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_device_offload(
    device: *const netstack_device,
    flags: *mut u32,
) -> netstack_result {
    boundary!(caller, {
        let mut out = caller.out(flags)?;
        let features = caller.read(device)?.device().offload();
        let flag = |has: bool, flag: netstack_device_flag| if has { flag as u32 } else { 0 };
        out.put(
            flag(features.checksum, netstack_device_flag::Checksum)
                | flag(features.tso4, netstack_device_flag::Tso4)
                | flag(features.tso6, netstack_device_flag::Tso6)
                | flag(features.uso, netstack_device_flag::Uso),
        );
        Ok(())
    })
}

/// Which mode a TAP was opened in, PLAIN or OFFLOAD of netstack_tap_mode, and its name, which ends in NUL; `name` may be
/// NULL, otherwise it has room for `capacity` octets, of which 16 are enough.
/// INVALID_ARGUMENT: it is no TAP.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_device_tap(
    device: *const netstack_device,
    mode: *mut u32,
    name: *mut c_char,
    capacity: usize,
) -> netstack_result {
    boundary!(caller, {
        let mut mode = caller.out(mode)?;
        let device = caller.read(device)?;
        let AnyDevice::Tap(tap) = &*device else { return Err(Code::InvalidArgument) };
        mode.put(match tap.mode() {
            Kind::Plain => netstack_tap_mode::Plain as u32,
            Kind::Offload => netstack_tap_mode::Offload as u32,
        });
        if name.is_null() {
            return Ok(());
        }
        caller.copy_text(tap.name(), name, capacity, core::ptr::null_mut())
    })
}
