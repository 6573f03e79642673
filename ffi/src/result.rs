//! What every function returns.

use core::ffi::c_char;

use crate::caller::Outcome;

/// What became of a call. Numbers are never given to another meaning.
#[repr(u32)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum netstack_result {
    /// It was done.
    Ok = 0,
    /// A pointer is NULL that must not be.
    NullPointer = 1,
    /// What is given as a handle is none: it was freed, given away, or never was one.
    InvalidHandle = 2,
    /// The handle is one of another kind.
    WrongHandle = 3,
    /// The handle is in use at this moment: by a callback's caller, or by another thread.
    Busy = 4,
    /// The library failed inside. The handles that the call changed answer with this from now on; free them.
    Panic = 5,
    /// An argument is out of its range, or does not fit the others.
    InvalidArgument = 6,
    /// A buffer is too small.
    BufferTooSmall = 7,
    /// A text is not UTF-8.
    NotUtf8 = 8,
    /// JSON that cannot be read.
    InvalidJson = 9,
    /// A configuration with faults.
    InvalidConfig = 10,
    /// There is nothing of that name or number.
    NotFound = 11,
    /// There is one of that name or number already.
    AlreadyExists = 12,
    /// Not now: nothing has come, there is no room, or the handshake is not over.
    WouldBlock = 13,
    /// This side was closed, so nothing more can be sent.
    Closed = 14,
    /// The socket is closed, or never was one of this host.
    StaleSocket = 15,
    /// The other side refused the connection.
    Refused = 16,
    /// The other side reset the connection.
    Reset = 17,
    /// The other side did not answer in time.
    TimedOut = 18,
    /// The other side cannot be reached.
    Unreachable = 19,
    /// This side aborted the connection.
    Aborted = 20,
    /// There is no way to the destination: no address of its family, or no gateway.
    NoRoute = 21,
    /// The address is none of the host's.
    AddressNotOurs = 22,
    /// The address and port are in use, or no port is free.
    AddressInUse = 23,
    /// As many as the limits allow.
    TableFull = 24,
    /// Longer than one packet or frame can be.
    TooLong = 25,
    /// The device's other end is gone.
    DeviceGone = 26,
    /// The operating system refused.
    Os = 27,
    /// The operating system wants more rights for this.
    Permission = 28,
    /// The driver has stopped.
    Stopped = 29,
    /// Backends that make no table: one twice, two address families, or too many.
    InvalidBackends = 30,
}

impl netstack_result {
    const ALL: [Self; 31] = [
        Self::Ok,
        Self::NullPointer,
        Self::InvalidHandle,
        Self::WrongHandle,
        Self::Busy,
        Self::Panic,
        Self::InvalidArgument,
        Self::BufferTooSmall,
        Self::NotUtf8,
        Self::InvalidJson,
        Self::InvalidConfig,
        Self::NotFound,
        Self::AlreadyExists,
        Self::WouldBlock,
        Self::Closed,
        Self::StaleSocket,
        Self::Refused,
        Self::Reset,
        Self::TimedOut,
        Self::Unreachable,
        Self::Aborted,
        Self::NoRoute,
        Self::AddressNotOurs,
        Self::AddressInUse,
        Self::TableFull,
        Self::TooLong,
        Self::DeviceGone,
        Self::Os,
        Self::Permission,
        Self::Stopped,
        Self::InvalidBackends,
    ];

    const fn message(self) -> &'static str {
        match self {
            Self::Ok => "done",
            Self::NullPointer => "a pointer is NULL that must not be",
            Self::InvalidHandle => "not a handle: freed, given away, or never one",
            Self::WrongHandle => "a handle of another kind",
            Self::Busy => "the handle is in use: by the caller of this callback, or by another thread",
            Self::Panic => "the library failed inside; the handles involved are of no more use",
            Self::InvalidArgument => "an argument is out of its range, or does not fit the others",
            Self::BufferTooSmall => "a buffer is too small",
            Self::NotUtf8 => "a text is not UTF-8",
            Self::InvalidJson => "JSON that cannot be read",
            Self::InvalidConfig => "a configuration with faults",
            Self::NotFound => "nothing of that name or number",
            Self::AlreadyExists => "one of that name or number exists",
            Self::WouldBlock => "the operation would block",
            Self::Closed => "this side was closed",
            Self::StaleSocket => "the socket is closed, or never was one of this host",
            Self::Refused => "the other side refused the connection",
            Self::Reset => "the other side reset the connection",
            Self::TimedOut => "the other side did not answer in time",
            Self::Unreachable => "the other side cannot be reached",
            Self::Aborted => "this side aborted the connection",
            Self::NoRoute => "no way to the destination",
            Self::AddressNotOurs => "not an address of this host",
            Self::AddressInUse => "the address and port are in use, or no port is free",
            Self::TableFull => "as many as the limits allow",
            Self::TooLong => "longer than one packet or frame can be",
            Self::DeviceGone => "the device's other end is gone",
            Self::Os => "the operating system refused",
            Self::Permission => "the operating system wants more rights for this",
            Self::Stopped => "the driver has stopped",
            Self::InvalidBackends => "backends that make no table",
        }
    }
}

/// Writes what a result means, in English and ending in NUL, into `buffer` of `capacity` octets.
/// `length` gets the text's length without the NUL; it may be NULL.
/// BUFFER_TOO_SMALL: the text does not fit; `length` is written, `buffer` is not.
/// NOT_FOUND: there is no such result.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_result_message(
    result: u32,
    buffer: *mut c_char,
    capacity: usize,
    length: *mut usize,
) -> netstack_result {
    boundary!(caller, {
        let known = netstack_result::ALL.into_iter().find(|known| *known as u32 == result);
        let message = known.ok_or(netstack_result::NotFound)?.message();
        caller.copy_text(message, buffer, capacity, length)
    })
}

/// A short name for what helpers return.
pub(crate) type Code = netstack_result;

/// Turns what may be there into NOT_FOUND.
pub(crate) fn found<T>(it: Option<T>) -> Outcome<T> {
    it.ok_or(Code::NotFound)
}
