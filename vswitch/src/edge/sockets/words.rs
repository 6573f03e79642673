//! What the kernel says, in the edge's words.

use nix::errno::Errno;

use super::Refusal;

/// Why something was not done.
pub(super) fn refusal(errno: Errno) -> Refusal {
    match errno as i32 {
        libc::ECONNREFUSED => Refusal::Refused,
        libc::ECONNRESET | libc::EPIPE | libc::ECONNABORTED | libc::ENOTCONN => Refusal::Reset,
        libc::ETIMEDOUT => Refusal::TimedOut,
        libc::ENETUNREACH | libc::ENETDOWN | libc::EAFNOSUPPORT | libc::EINVAL => Refusal::NoRoute,
        libc::EHOSTUNREACH | libc::EHOSTDOWN | libc::ENONET | libc::ENOPROTOOPT | libc::EPROTO => {
            Refusal::Unreachable
        }
        libc::EACCES | libc::EPERM => Refusal::Prohibited,
        libc::EMSGSIZE => Refusal::TooLong,
        libc::EADDRINUSE => Refusal::InUse,
        // The last two are what `connect` says when no local port is left.
        libc::EMFILE
        | libc::ENFILE
        | libc::ENOMEM
        | libc::ENOBUFS
        | libc::ENOSPC
        | libc::EADDRNOTAVAIL
        | libc::EAGAIN => Refusal::NoSockets,
        _ => Refusal::Unsupported,
    }
}

/// Why a socket cannot be at an address, or, being for datagrams, speak to one: then it is not ports that have run out, but no
/// interface has that address, or one to speak from.
pub(super) fn refusal_of_address(errno: Errno) -> Refusal {
    if errno == Errno::EADDRNOTAVAIL { Refusal::NoRoute } else { refusal(errno) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_a_connect_is_told_apart() {
        for (errno, word) in [
            (Errno::ECONNREFUSED, Refusal::Refused),
            (Errno::EHOSTUNREACH, Refusal::Unreachable),
            (Errno::ENETUNREACH, Refusal::NoRoute),
            (Errno::ETIMEDOUT, Refusal::TimedOut),
            (Errno::EMFILE, Refusal::NoSockets),
            (Errno::EPERM, Refusal::Prohibited),
            (Errno::EPIPE, Refusal::Reset),
            (Errno::EMSGSIZE, Refusal::TooLong),
            (Errno::EPROTONOSUPPORT, Refusal::Unsupported),
        ] {
            assert_eq!(refusal(errno), word, "{errno}");
        }
    }
}
