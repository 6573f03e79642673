//! Datagrams of 18 octets, frames of 64 with their headers and checksum, as fast as they go and 32 for a system call. Each has a
//! number, by which one that comes twice is seen, and its complement, by which one that was changed is. The upper half of a
//! number says when its sender began: what was held up on its way until another measurement is none of its.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::socket::{
    MsgFlags, MultiHeaders, SockaddrIn, recvmmsg, sendmmsg, setsockopt, sockopt::RcvBuf, sockopt::RcvBufForce,
};
use parking_lot::Mutex;

use super::Asked;
use crate::clock;

const SIZE: usize = 18;
/// Datagrams for one system call.
const BATCH: usize = 32;
/// Octets that may wait for the receiver.
const ROOM: usize = 4 << 20;
const MARK: [u8; 2] = *b"dg";

type Datagram = [u8; SIZE];

fn datagram(number: u64) -> Datagram {
    let mut bytes = [0; SIZE];
    bytes[..2].copy_from_slice(&MARK);
    bytes[2..10].copy_from_slice(&number.to_be_bytes());
    bytes[10..].copy_from_slice(&(!number).to_be_bytes());
    bytes
}

/// The number of what is a datagram of ours.
fn number(bytes: &[u8]) -> Option<u64> {
    let number = u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?);
    (bytes == datagram(number)).then_some(number)
}

/// The first number of somebody who begins now.
fn first_number() -> u64 {
    let milliseconds = clock::since_epoch().as_millis() & u128::from(u32::MAX);
    u64::try_from(milliseconds).unwrap_or(0) << 32
}

/// Sends.
pub(super) fn flood(to: SocketAddr, time: Duration) -> io::Result<Asked> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect(to)?;
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    let (start, first, mut sent) = (clock::now(), first_number(), 0);
    loop {
        let datagrams: Vec<Datagram> = (first + sent..).take(BATCH).map(datagram).collect();
        let parts: Vec<[IoSlice<'_>; 1]> = datagrams.iter().map(|d| [IoSlice::new(d)]).collect();
        let all = sendmmsg(socket.as_raw_fd(), &mut headers, &parts, [None; BATCH], [], MsgFlags::empty());
        match all {
            // If it took less than all, the rest was sent and lost.
            Ok(_) => sent += BATCH as u64,
            // A queue that is full, or a port that is not open yet.
            Err(Errno::ENOBUFS | Errno::EAGAIN | Errno::ECONNREFUSED | Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let elapsed = start.elapsed();
        if elapsed >= time {
            return Ok(Asked { sent, confirmed: 0, seconds: elapsed.as_secs_f64() });
        }
    }
}

/// What has come.
#[derive(Debug, Default)]
pub(super) struct Arrived {
    pub(super) datagrams: u64,
    pub(super) twice: u64,
    pub(super) changed: u64,
    pub(super) first: Option<Instant>,
    pub(super) last: Option<Instant>,
    /// When the sender began whose datagrams these are, and the one before.
    began: Option<u64>,
    before: Option<u64>,
    /// A bit for each number.
    seen: Vec<u64>,
}

/// More than can be sent while anybody waits.
const NUMBERS: u64 = 1 << 30;

impl Arrived {
    /// What has come, to begin anew: more of the same sender will not be counted.
    pub(super) fn take(&mut self) -> Self {
        let before = self.began.or(self.before);
        std::mem::replace(self, Self { before, ..Self::default() })
    }

    fn count(&mut self, bytes: &[u8]) {
        let Some(number) = number(bytes).filter(|number| number % (1 << 32) < NUMBERS) else {
            self.changed += 1;
            return;
        };
        let (began, number) = (number >> 32, number % (1 << 32));
        if self.before.is_some_and(|before| began <= before) {
            return;
        }
        self.began = Some(began);
        let (Ok(word), bit) = (usize::try_from(number / 64), 1 << (number % 64)) else { return };
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        self.twice += u64::from(self.seen[word] & bit != 0);
        self.seen[word] |= bit;
        self.datagrams += 1;
    }
}

/// A socket with room for what comes while its reader does not run.
pub(super) fn receiver(at: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(at)?;
    // Only who rules the machine may have more than others.
    if setsockopt(&socket, RcvBufForce, &ROOM).is_err() {
        setsockopt(&socket, RcvBuf, &ROOM)?;
    }
    Ok(socket)
}

/// Counts until the socket fails.
pub(super) fn count_all(socket: &UdpSocket, arrived: &Mutex<Arrived>) -> io::Result<()> {
    let mut headers = MultiHeaders::<SockaddrIn>::preallocate(BATCH, None);
    let mut buffers = [[0; 2 * SIZE]; BATCH];
    loop {
        let mut parts: Vec<[IoSliceMut<'_>; 1]> =
            buffers.iter_mut().map(|buffer| [IoSliceMut::new(buffer)]).collect();
        let got = recvmmsg(socket.as_raw_fd(), &mut headers, &mut parts, MsgFlags::MSG_WAITFORONE, None);
        let lengths: Vec<usize> = match got {
            Ok(messages) => messages.map(|message| message.bytes).collect(),
            Err(Errno::EINTR) => continue,
            Err(errno) => return Err(errno.into()),
        };
        let now = clock::now();
        let mut arrived = arrived.lock();
        let before = arrived.datagrams;
        for (buffer, length) in buffers.iter().zip(lengths) {
            arrived.count(&buffer[..length]);
        }
        if arrived.datagrams > before {
            arrived.first.get_or_insert(now);
            arrived.last = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[test]
    fn what_arrives_was_sent() {
        let socket = receiver(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let (to, arrived) = (socket.local_addr().unwrap(), Arc::new(Mutex::new(Arrived::default())));
        let there = Arc::clone(&arrived);
        std::thread::spawn(move || count_all(&socket, &there));
        let asked = flood(to, Duration::from_millis(5)).unwrap();
        while arrived.lock().datagrams == 0 {
            std::thread::yield_now();
        }
        let arrived = arrived.lock();
        assert!(arrived.datagrams <= asked.sent, "{arrived:?}");
        assert_eq!((arrived.twice, arrived.changed), (0, 0));
    }

    #[test]
    fn what_was_held_up_is_none_of_the_next_ones() {
        let mut arrived = Arrived::default();
        let of = |began: u64, number: u64| datagram(began << 32 | number);
        arrived.count(&of(7, 0));
        assert_eq!(arrived.take().datagrams, 1);
        for bytes in [of(7, 0), of(7, 1), of(9, 0), of(6, 0), of(9, 1)] {
            arrived.count(&bytes);
        }
        assert_eq!((arrived.datagrams, arrived.twice, arrived.changed), (2, 0, 0));
        arrived.take();
        assert_eq!(arrived.take().datagrams, 0);
        arrived.count(&of(9, 2));
        assert_eq!(arrived.datagrams, 0);
    }

    #[test]
    fn what_comes_twice_or_changed_is_counted() {
        let mut arrived = Arrived::default();
        for bytes in [datagram(3), datagram(200), datagram(3)] {
            arrived.count(&bytes);
        }
        let mut changed = datagram(4);
        changed[17] ^= 1;
        arrived.count(&changed);
        arrived.count(&datagram(5)[..17]);
        arrived.count(&[]);
        assert_eq!((arrived.datagrams, arrived.twice, arrived.changed), (3, 1, 3));
    }
}
