//! Reading a stream without losing anything of it.
//!
//! What a pod has not acknowledged must be there to be sent again. There are two ways to that:
//!
//! - *Octets stay in the kernel*, are looked at (`MSG_PEEK`), and are let go of later. Linux 6.9 and later remember for each
//!   socket up to where it was looked at (`SO_PEEK_OFF`). Nothing is stored here, and it takes two calls.
//! - *Octets are taken out*, and a copy is kept until they are let go of. That takes one call, and memory.
//!
//! What comes in little pieces, as answers do, is taken out, [`LITTLE`] octets at most; what comes in large ones stays where
//! it is. Where the kernel remembers no place everything is taken out: then the copy is as large as what is under way to a
//! pod, and there is none while nothing is.

use std::io;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;

use super::super::outside::Peeked;
use super::calls;
use crate::sys;

/// The most octets that are kept of a stream where the kernel remembers places.
const LITTLE: usize = 2048;

/// See the module.
#[derive(Debug)]
pub(super) struct Peeking {
    /// What was taken out and not let go of: it comes before everything in the kernel.
    kept: Vec<u8>,
    /// The most that is kept.
    most: usize,
    /// The kernel's place, once it was told one.
    place: Option<usize>,
    /// More came at once lately than is kept.
    large: bool,
    /// What the stream breaks off with, behind what was read last. The kernel says it once.
    broken: Option<Errno>,
}

impl Peeking {
    /// Of a socket of a kernel that remembers places, or does not.
    pub(super) const fn new(places: bool) -> Self {
        let most = if places { LITTLE } else { usize::MAX };
        Self { kept: Vec::new(), most, place: None, large: false, broken: None }
    }

    /// Whether the kernel remembers places of sockets like this one.
    pub(super) fn has_places(socket: BorrowedFd<'_>) -> bool {
        set_place(socket, 0).is_ok()
    }

    pub(super) fn peek(
        &mut self,
        socket: BorrowedFd<'_>,
        offset: usize,
        into: &mut [u8],
    ) -> Result<Peeked, Errno> {
        let again = self.kept.get(offset..).unwrap_or_default();
        let known = again.len().min(into.len());
        into[..known].copy_from_slice(&again[..known]);
        let (rest, beyond) = (&mut into[known..], offset.saturating_sub(self.kept.len()));
        if rest.is_empty() {
            return Ok(Peeked::Octets(known));
        }
        let read = self.read(socket, beyond, rest);
        match self.after(known, read)? {
            Some(0) => Ok(Peeked::End),
            Some(count) => Ok(Peeked::Octets(count)),
            None => Ok(Peeked::Nothing),
        }
    }

    /// Reads what the kernel has from `beyond` octets on.
    fn read(&mut self, socket: BorrowedFd<'_>, beyond: usize, into: &mut [u8]) -> Result<usize, Errno> {
        if let Some(errno) = self.broken {
            return Err(errno);
        }
        if beyond > 0 || self.large || self.kept.len() >= self.most {
            return self.look(socket, beyond, into);
        }
        let room = into.len().min(self.most - self.kept.len());
        let taken = self.take(socket, &mut into[..room])?;
        if taken < room || room == into.len() {
            return Ok(taken);
        }
        let more = self.look(socket, 0, &mut into[room..]);
        self.after(taken, more).map(Option::unwrap_or_default)
    }

    /// What there is altogether, if some octets were there already; what went wrong behind them is told by the next look.
    fn after(&mut self, known: usize, read: Result<usize, Errno>) -> Result<Option<usize>, Errno> {
        match read {
            Ok(count) => Ok(Some(known + count)),
            Err(Errno::EAGAIN | Errno::EINTR) => Ok((known > 0).then_some(known)),
            Err(errno) if known > 0 => {
                self.broken = Some(errno);
                Ok(Some(known))
            }
            Err(errno) => Err(errno),
        }
    }

    /// Takes octets out of the kernel and keeps them.
    fn take(&mut self, socket: BorrowedFd<'_>, into: &mut [u8]) -> Result<usize, Errno> {
        let taken = calls::receive(socket, into)?;
        self.kept.extend_from_slice(&into[..taken]);
        self.moved(taken);
        Ok(taken)
    }

    /// Looks at octets in the kernel.
    fn look(&mut self, socket: BorrowedFd<'_>, offset: usize, into: &mut [u8]) -> Result<usize, Errno> {
        if self.place != Some(offset) {
            set_place(socket, offset).map_err(|_| Errno::EOPNOTSUPP)?;
            self.place = Some(offset);
        }
        let count = calls::peek(socket, into)?;
        self.place = Some(offset + count);
        self.large = count > LITTLE;
        Ok(count)
    }

    pub(super) fn discard(&mut self, socket: BorrowedFd<'_>, count: usize) {
        let kept = count.min(self.kept.len());
        self.kept.drain(..kept);
        if self.kept.is_empty() {
            self.kept = Vec::new();
        }
        if count > kept {
            self.moved(count - kept);
            // Also when it is little: as long as something is left of what came in one piece, the kernel counts all of it, and
            // the other side may see no window.
            discard_in_kernel(socket, count - kept);
        }
    }

    /// The kernel has this many octets less, and counts its place from what is left.
    fn moved(&mut self, count: usize) {
        self.place = self.place.map(|place| place.saturating_sub(count));
    }
}

fn set_place(socket: BorrowedFd<'_>, offset: usize) -> io::Result<()> {
    let offset = i32::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    sys::set_number(socket, libc::SOL_SOCKET, libc::SO_PEEK_OFF, offset)
}

/// TCP takes the truncation of what it gives as the wish not to get it at all (tcp(7)), so nothing is copied.
fn discard_in_kernel(socket: BorrowedFd<'_>, count: usize) {
    let mut left = count;
    while left > 0 {
        match sys::discard(socket, left) {
            Ok(done) if done > 0 => left -= done.min(left),
            // What was peeked at is there; whatever ends the connection is told by the next peek.
            Ok(_) | Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd as _;

    use netstack::seed::{Rng, Seed};
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::sys::socket;

    use super::*;

    /// The end that writes, and the one that is read.
    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let writes = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        writes.set_nonblocking(true).unwrap();
        (writes, listener.accept().unwrap().0)
    }

    /// Waits until something has come, an end or a break among it.
    fn wait(read: &TcpStream) {
        let mut fds = [PollFd::new(read.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut fds, PollTimeout::from(10_000_u16)), Ok(1), "nothing comes within ten seconds");
    }

    fn below(rng: &mut Rng, bound: usize) -> usize {
        rng.below(u32::try_from(bound).unwrap()) as usize
    }

    #[test]
    fn what_is_read_again_is_the_same_however_it_is_stored() {
        for (places, seed) in (0..20).flat_map(|seed| [(true, seed), (false, seed)]) {
            let mut rng = Seed::from_u64(seed).rng("peeking");
            let (mut writes, read) = pair();
            assert!(
                !places || Peeking::has_places(read.as_fd()),
                "Linux 6.9 or later is needed for this test"
            );
            let mut peeking = Peeking::new(places);
            let (mut sent, mut una, mut next) = (Vec::new(), 0, 0);
            let mut into = vec![0; 1 << 16];
            for _ in 0..400 {
                let size = [100, 3000, 40_000][below(&mut rng, 3)];
                let size = below(&mut rng, size);
                let octets: Vec<u8> = (0..size).map(|_| rng.next_u64().to_le_bytes()[0]).collect();
                let written = writes.write(&octets).unwrap_or(0);
                sent.extend_from_slice(&octets[..written]);
                // From the next octet on, or once more from one that is under way.
                let under_way = next - una;
                let again = rng.below(4) == 0 && under_way > 0;
                let offset = if again { below(&mut rng, under_way) } else { under_way };
                let most = if again { into.len().min(under_way - offset) } else { into.len() };
                let room = 1 + below(&mut rng, most);
                match peeking.peek(read.as_fd(), offset, &mut into[..room]).unwrap() {
                    Peeked::Octets(count) => {
                        let at = una + offset;
                        assert!(into[..count] == sent[at..at + count], "{places} {seed}: other octets");
                        next = next.max(at + count);
                    }
                    Peeked::Nothing => assert!(!again, "{places} {seed}: what was read once is there"),
                    Peeked::End => panic!("{places} {seed}: it has not ended"),
                }
                if rng.below(2) == 0 {
                    let count = below(&mut rng, next - una + 1);
                    peeking.discard(read.as_fd(), count);
                    una += count;
                }
                assert!(peeking.kept.len() <= if places { LITTLE } else { next - una });
            }
            drop(writes);
            loop {
                // What is not let go of keeps the rest from coming.
                peeking.discard(read.as_fd(), next - una);
                una = next;
                wait(&read);
                match peeking.peek(read.as_fd(), 0, &mut into).unwrap() {
                    Peeked::Octets(count) => {
                        assert!(into[..count] == sent[next..next + count], "{places} {seed}: other octets");
                        next += count;
                    }
                    Peeked::End => break,
                    Peeked::Nothing => panic!("{places} {seed}: something has come"),
                }
            }
            assert_eq!(next, sent.len(), "{places} {seed}: all of it has come");
        }
    }

    #[test]
    fn a_break_is_told_behind_the_octets_before_it_and_again() {
        for places in [true, false] {
            let (mut writes, read) = pair();
            let mut peeking = Peeking::new(places);
            writes.write_all(&[7; LITTLE]).unwrap();
            let mut into = vec![0; 2 * LITTLE];
            let octets = Ok(Peeked::Octets(LITTLE));
            wait(&read);
            assert_eq!(peeking.peek(read.as_fd(), 0, &mut into), octets, "{places}");
            let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
            socket::setsockopt(&writes, socket::sockopt::Linger, &at_once).unwrap();
            drop(writes);
            wait(&read);
            // Once more with what there is, beside which the break is found.
            assert_eq!(peeking.peek(read.as_fd(), 0, &mut into), octets, "{places}");
            for _ in 0..2 {
                let broken = Err(Errno::ECONNRESET);
                assert_eq!(peeking.peek(read.as_fd(), LITTLE, &mut into), broken, "{places}");
            }
        }
    }
}
