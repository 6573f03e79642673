//! Octets over TCP, as fast as they go. When the time is over the sender says that nothing more comes, and waits to be told how
//! much has come.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::{Asked, PATIENCE};
use crate::clock;

/// Octets for one system call: what iperf3 takes.
const CHUNK: usize = 128 * 1024;

/// Counts what comes on each connection, and tells the other end.
pub(super) fn count_all(listener: &TcpListener) {
    for stream in listener.incoming().flatten() {
        // Who is not told notices.
        thread::spawn(move || count(stream));
    }
}

fn count(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let (mut chunk, mut total) = (vec![0; CHUNK], 0);
    loop {
        match stream.read(&mut chunk)? {
            0 => return stream.write_all(&u64::to_be_bytes(total)),
            got => total += got as u64,
        }
    }
}

/// Sends on so many streams at once.
pub(super) fn send(to: SocketAddr, streams: u16, time: Duration) -> io::Result<Asked> {
    let standing = (0..streams).map(|_| TcpStream::connect_timeout(&to, PATIENCE));
    let standing: Vec<TcpStream> = standing.collect::<io::Result<_>>()?;
    let start = clock::now();
    let threads: Vec<_> =
        standing.into_iter().map(|stream| thread::spawn(move || send_one(stream, start + time))).collect();
    let mut asked = Asked::default();
    for thread in threads {
        let (sent, confirmed) =
            thread.join().unwrap_or_else(|_| Err(io::Error::other("a sender panicked")))?;
        asked.sent += sent;
        asked.confirmed += confirmed;
    }
    Ok(Asked { seconds: start.elapsed().as_secs_f64(), ..asked })
}

/// What was sent, and what has come.
fn send_one(mut stream: TcpStream, end: Instant) -> io::Result<(u64, u64)> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let (chunk, mut sent) = (vec![7; CHUNK], 0);
    loop {
        stream.write_all(&chunk)?;
        sent += CHUNK as u64;
        if clock::now() >= end {
            break;
        }
    }
    stream.shutdown(Shutdown::Write)?;
    let mut confirmed = [0; 8];
    stream.read_exact(&mut confirmed)?;
    Ok((sent, u64::from_be_bytes(confirmed)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sent_is_confirmed() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        thread::spawn(move || count_all(&listener));
        let asked = send(to, 3, Duration::from_millis(20)).unwrap();
        assert!(asked.sent >= 3 * CHUNK as u64 && asked.seconds >= 0.02, "{asked:?}");
        assert_eq!(asked.confirmed, asked.sent);
    }

    #[test]
    fn octets_that_are_missing_show() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let total = io::copy(&mut stream, &mut io::sink()).unwrap();
            stream.write_all(&(total - 1).to_be_bytes()).unwrap();
        });
        let asked = send(to, 1, Duration::ZERO).unwrap();
        assert_eq!(asked.confirmed + 1, asked.sent);
    }
}
