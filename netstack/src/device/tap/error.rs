//! Why a TAP could not be had, with the remedy.

use std::io;

/// Why a TAP could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TapError {
    /// The kernel has no TUN/TAP driver, or its device node is missing.
    #[error(
        "/dev/net/tun cannot be opened because it is missing: load the driver with `modprobe tun`, or in a container \
         pass the device in (`--device /dev/net/tun`)"
    )]
    NoDriver,
    /// The process may not open the driver, or not make interfaces in its network namespace.
    #[error(
        "no permission to {action}: run as root, or in a user namespace of your own (`unshare --user --net \
         --map-root-user`), or grant CAP_NET_ADMIN and access to /dev/net/tun"
    )]
    Permission {
        /// What was refused.
        action: &'static str,
    },
    /// Another process has the interface open.
    #[error("interface {name} is in use by another process: choose another name, or stop that process")]
    Busy {
        /// The interface.
        name: String,
    },
    /// An interface of this name exists and is no TAP, or one with several queues.
    #[error(
        "interface {name} exists and is not a TAP that can be joined: choose another name, or delete it with \
         `ip link delete {name}`"
    )]
    Taken {
        /// The interface.
        name: String,
    },
    /// The kernel would cut the name.
    #[error("interface name {name:?} has {} octets: the kernel takes at most {max}", name.len())]
    NameTooLong {
        /// The name.
        name: String,
        /// The most octets a name may have.
        max: usize,
    },
    /// The name has a character that the kernel refuses or would replace.
    #[error(
        "interface name {name:?} is not usable: it must not be empty, \".\" or \"..\" nor hold '/', ':', '%' or spaces"
    )]
    NameInvalid {
        /// The name.
        name: String,
    },
    /// The kernel has no virtio-net header or no offload for TAPs.
    #[error("this kernel does not offer checksum and segmentation offload on a TAP: open it in plain mode")]
    NoOffload,
    /// The descriptor that was passed in is not one of a TAP without packet information.
    #[error("the descriptor is not a TAP opened with IFF_TAP | IFF_NO_PI")]
    NotATap,
    /// Something else; the system's words.
    #[error("could not {action}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// The error.
        source: io::Error,
    },
}

/// Most octets of an interface's name: IFNAMSIZ less the final zero.
pub(super) const NAME_MAX: usize = libc::IFNAMSIZ - 1;

/// Checks what the kernel would refuse (dev_valid_name) or replace (`%d`).
pub(super) fn check_name(name: &str) -> Result<(), TapError> {
    if name.len() > NAME_MAX {
        return Err(TapError::NameTooLong { name: name.into(), max: NAME_MAX });
    }
    let bad = |byte: u8| matches!(byte, b'/' | b':' | b'%' | 0) || byte.is_ascii_whitespace() || byte == 0x0b;
    if name.is_empty() || name == "." || name == ".." || name.bytes().any(bad) {
        return Err(TapError::NameInvalid { name: name.into() });
    }
    Ok(())
}

/// What opening /dev/net/tun failed with.
pub(super) fn opening(source: io::Error) -> TapError {
    let action = "open /dev/net/tun";
    match source.raw_os_error() {
        Some(libc::ENOENT | libc::ENODEV | libc::ENXIO) => TapError::NoDriver,
        Some(libc::EPERM | libc::EACCES) => TapError::Permission { action },
        Some(_) | None => TapError::Io { action, source },
    }
}

/// What TUNSETIFF failed with.
pub(super) fn attaching(name: &str, source: io::Error) -> TapError {
    let action = "make a TAP interface";
    match source.raw_os_error() {
        Some(libc::EPERM | libc::EACCES) => TapError::Permission { action },
        Some(libc::EBUSY) => TapError::Busy { name: name.into() },
        // EEXIST: tun_set_iff on a name that another kind of interface has. EINVAL: another kind of TUN/TAP.
        Some(libc::EEXIST | libc::EINVAL) => TapError::Taken { name: name.into() },
        Some(_) | None => TapError::Io { action, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_kernel_would_not_keep_are_refused() {
        for good in ["tap0", "a", "exactly-15-byte", "eth0.100"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        assert!(matches!(check_name("sixteen-octets-x"), Err(TapError::NameTooLong { max: 15, .. })));
        for bad in ["", ".", "..", "a/b", "tap%d", "a b", "a:1", "a\0"] {
            assert!(matches!(check_name(bad), Err(TapError::NameInvalid { .. })), "{bad:?}");
        }
    }

    #[test]
    fn every_error_names_its_remedy() {
        let errno = io::Error::from_raw_os_error;
        for (error, word) in [
            (opening(errno(libc::ENOENT)), "modprobe tun"),
            (opening(errno(libc::EACCES)), "CAP_NET_ADMIN"),
            (attaching("t", errno(libc::EPERM)), "as root"),
            (attaching("t", errno(libc::EBUSY)), "another name"),
            (attaching("t", errno(libc::EINVAL)), "ip link delete t"),
            (attaching("t", errno(libc::ENOMEM)), "make a TAP interface"),
        ] {
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
