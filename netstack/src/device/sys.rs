//! System calls: every unsafe block of this crate, each a call into the kernel and nothing else.
#![expect(unsafe_code, reason = "the one place where this crate calls the kernel without help from std")]

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use crate::sync::Notify;

/// Turns the kernel's -1 into the error it stands for.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Takes ownership of a descriptor that the kernel has just made.
fn own(fd: libc::c_int) -> OwnedFd {
    // SAFETY: the callers pass what a successful call has returned to them alone, so nobody else closes it.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A counter that another thread raises and that epoll can wait for (eventfd(2)).
#[derive(Debug)]
pub(crate) struct EventFd(File);

impl EventFd {
    /// A counter at zero.
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: eventfd takes no pointers.
        let fd = check(unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) })?;
        Ok(Self(File::from(own(fd))))
    }
}

impl AsRawFd for EventFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Notify for EventFd {
    fn notify(&self) {
        // The only failure is a counter at its maximum, which is readable already.
        let _ = (&self.0).write(&1u64.to_ne_bytes());
    }

    fn drain(&self) -> u64 {
        let mut count = [0; 8];
        match (&self.0).read(&mut count) {
            Ok(8) => u64::from_ne_bytes(count),
            Ok(_) | Err(_) => 0,
        }
    }
}

/// A set of descriptors to wait on (epoll(7)), level-triggered, for input only.
#[derive(Debug)]
pub(crate) struct Epoll {
    fd: OwnedFd,
    ready: Vec<libc::epoll_event>,
    /// How many of those the last wait has filled.
    count: usize,
}

impl AsRawFd for Epoll {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl Epoll {
    /// An empty set that reports up to `capacity` descriptors per wait; more are reported by the next one.
    pub(crate) fn new(capacity: usize) -> io::Result<Self> {
        // SAFETY: epoll_create1 takes no pointers.
        let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        let ready = vec![libc::epoll_event { events: 0, u64: 0 }; capacity.max(1)];
        Ok(Self { fd: own(fd), ready, count: 0 })
    }

    /// Adds a descriptor, which is reported as `token`.
    pub(crate) fn add(&self, fd: RawFd, token: u64) -> io::Result<()> {
        // A constant below 2^31, of a type that differs between the two sides of the call.
        let mut event = libc::epoll_event { events: libc::EPOLLIN.unsigned_abs(), u64: token };
        // SAFETY: `event` outlives the call, which only reads it.
        check(unsafe { libc::epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event) })
            .map(drop)
    }

    /// Takes a descriptor out; one that is not in is no error.
    pub(crate) fn remove(&self, fd: RawFd) {
        // SAFETY: EPOLL_CTL_DEL ignores the event, so it may be null (Linux 2.6.9 and later).
        let _ = check(unsafe {
            libc::epoll_ctl(self.fd.as_raw_fd(), libc::EPOLL_CTL_DEL, fd, std::ptr::null_mut())
        });
    }

    /// Waits for input, at most `timeout` (`None`: for ever), and says whether there is any. The timeout is rounded up to
    /// a millisecond, so that a sleep never ends before the deadline it was computed from. A signal ends the wait with
    /// nothing ready.
    pub(crate) fn wait(&mut self, timeout: Option<Duration>) -> io::Result<bool> {
        let millis = match timeout {
            None => -1,
            Some(wait) => i32::try_from(wait.as_nanos().div_ceil(1_000_000)).unwrap_or(i32::MAX),
        };
        let capacity = i32::try_from(self.ready.len()).unwrap_or(i32::MAX);
        // SAFETY: `ready` has room for `capacity` events and outlives the call, which writes no more than those.
        let result = check(unsafe {
            libc::epoll_wait(self.fd.as_raw_fd(), self.ready.as_mut_ptr(), capacity, millis)
        });
        self.count = match result {
            Ok(count) => usize::try_from(count).unwrap_or(0),
            Err(error) if error.kind() == ErrorKind::Interrupted => 0,
            Err(error) => return Err(error),
        };
        Ok(self.count > 0)
    }

    /// The tokens of what the last wait found ready.
    pub(crate) fn tokens(&self) -> impl Iterator<Item = u64> + '_ {
        self.ready.iter().take(self.count).map(|event| event.u64)
    }
}

#[cfg(feature = "tap")]
pub(crate) use tap::TapFd;

#[cfg(feature = "tap")]
mod tap {
    use std::ffi::CStr;
    use std::os::fd::IntoRawFd;

    use super::*;

    /// `struct ifreq` as far as TUNSETIFF and TUNGETIFF use it: a name and flags, padded to the kernel's size.
    #[repr(C)]
    struct InterfaceRequest {
        name: [u8; libc::IFNAMSIZ],
        flags: libc::c_short,
        padding: [u8; 22],
    }

    impl InterfaceRequest {
        /// `name` is cut to what the kernel takes, a final zero included.
        fn new(name: &str, flags: libc::c_int) -> Self {
            let mut request = Self { name: [0; libc::IFNAMSIZ], flags: 0, padding: [0; 22] };
            let room = &mut request.name[..libc::IFNAMSIZ - 1];
            for (slot, &byte) in room.iter_mut().zip(name.as_bytes()) {
                *slot = byte;
            }
            // The flags of a TAP fill the upper bits of a short (IFF_VNET_HDR is 0x4000, IFF_PERSIST 0x0800).
            request.flags = libc::c_short::try_from(flags).unwrap_or(0);
            request
        }

        fn name(&self) -> String {
            CStr::from_bytes_until_nul(&self.name)
                .map(|n| n.to_string_lossy().into_owned())
                .unwrap_or_default()
        }
    }

    /// A descriptor of /dev/net/tun.
    #[derive(Debug)]
    pub(crate) struct TapFd(File);

    impl TapFd {
        /// Takes a descriptor over, set to non-blocking.
        pub(crate) fn new(fd: OwnedFd) -> io::Result<Self> {
            set_nonblocking(&fd)?;
            Ok(Self(File::from(fd)))
        }

        /// Takes over what another owner gives up.
        pub(crate) fn from_owner(owner: impl IntoRawFd) -> io::Result<Self> {
            Self::new(own(owner.into_raw_fd()))
        }

        /// The descriptor's file, for reading and writing.
        pub(crate) fn file(&self) -> &File {
            &self.0
        }

        /// Gives the file up.
        pub(crate) fn into_file(self) -> File {
            self.0
        }

        /// Makes or joins the interface (TUNSETIFF) and returns the name it has.
        pub(crate) fn set_interface(&self, name: &str, flags: libc::c_int) -> io::Result<String> {
            let mut request = InterfaceRequest::new(name, flags);
            // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, whose size and layout `InterfaceRequest` has,
            // and which outlives the call.
            check(unsafe { libc::ioctl(self.0.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
            Ok(request.name())
        }

        /// The interface's name and flags (TUNGETIFF).
        pub(crate) fn interface(&self) -> io::Result<(String, libc::c_int)> {
            let mut request = InterfaceRequest::new("", 0);
            // SAFETY: as for TUNSETIFF; TUNGETIFF writes one `struct ifreq`.
            check(unsafe { libc::ioctl(self.0.as_raw_fd(), libc::TUNGETIFF, &raw mut request) })?;
            Ok((request.name(), libc::c_int::from(request.flags)))
        }

        /// The size of the header before each frame (TUNSETVNETHDRSZ).
        pub(crate) fn set_header_size(&self, size: libc::c_int) -> io::Result<()> {
            // SAFETY: TUNSETVNETHDRSZ reads one int, which outlives the call.
            check(unsafe { libc::ioctl(self.0.as_raw_fd(), libc::TUNSETVNETHDRSZ, &raw const size) })
                .map(drop)
        }

        /// What this side accepts of the kernel (TUNSETOFFLOAD).
        pub(crate) fn set_offload(&self, features: libc::c_uint) -> io::Result<()> {
            let features = libc::c_ulong::from(features);
            // SAFETY: TUNSETOFFLOAD takes its argument by value.
            check(unsafe { libc::ioctl(self.0.as_raw_fd(), libc::TUNSETOFFLOAD, features) }).map(drop)
        }
    }

    impl AsRawFd for TapFd {
        fn as_raw_fd(&self) -> RawFd {
            self.0.as_raw_fd()
        }
    }

    /// Sets O_NONBLOCK and FD_CLOEXEC, whoever made the descriptor.
    fn set_nonblocking(fd: &OwnedFd) -> io::Result<()> {
        let fd = fd.as_raw_fd();
        // SAFETY: these commands of fcntl take and return integers.
        unsafe {
            let flags = check(libc::fcntl(fd, libc::F_GETFL))?;
            check(libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK))?;
            check(libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC))?;
        }
        Ok(())
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_request_has_the_size_of_the_kernels() {
            assert_eq!(size_of::<InterfaceRequest>(), size_of::<libc::ifreq>());
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn notifications_are_counted_and_taken_back() {
        let event = EventFd::new().unwrap();
        let mut epoll = Epoll::new(4).unwrap();
        epoll.add(event.as_raw_fd(), 7).unwrap();
        assert!(!epoll.wait(Some(Duration::ZERO)).unwrap());
        event.notify();
        event.notify();
        assert!(epoll.wait(None).unwrap());
        assert_eq!(epoll.tokens().collect::<Vec<_>>(), [7]);
        assert_eq!(event.drain(), 2);
        assert_eq!(event.drain(), 0);
        assert!(!epoll.wait(Some(Duration::ZERO)).unwrap());
        event.notify();
        epoll.remove(event.as_raw_fd());
        assert!(!epoll.wait(Some(Duration::ZERO)).unwrap());
    }
}
