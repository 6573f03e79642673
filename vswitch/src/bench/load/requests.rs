//! Requests of 64 octets and their answers, over TCP. Each connection has one request on its way at a time. At the end nothing new
//! is begun, and what is on its way is waited for: so the server has answered exactly as many as the client counts.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::{Asked, PATIENCE};
use crate::clock;

/// Octets of a request and of an answer.
const SIZE: usize = 64;
const REQUEST: [u8; 4] = *b"requ";
const ANSWER: [u8; 4] = *b"answ";

/// A mark, a number, and nothing.
fn message(mark: [u8; 4], number: u64) -> [u8; SIZE] {
    let mut bytes = [0; SIZE];
    bytes[..4].copy_from_slice(&mark);
    bytes[4..12].copy_from_slice(&number.to_be_bytes());
    bytes
}

/// What the server has counted, before the client could know of it.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) connections: AtomicU64,
    pub(super) answered: AtomicU64,
    pub(super) broken: AtomicU64,
}

/// Answers on every connection.
pub(super) async fn answer_all(listener: TcpListener, counts: Arc<Counts>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                counts.connections.fetch_add(1, Ordering::SeqCst);
                let counts = Arc::clone(&counts);
                tokio::spawn(async move {
                    if answer(stream, &counts).await.is_err() {
                        counts.broken.fetch_add(1, Ordering::SeqCst);
                    }
                });
            }
            Err(_) => {
                counts.broken.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
            }
        }
    }
}

async fn answer(mut stream: TcpStream, counts: &Counts) -> io::Result<()> {
    stream.set_nodelay(true)?;
    while let Some(mut bytes) = receive(&mut stream).await? {
        if bytes[..4] != REQUEST {
            return Err(io::ErrorKind::InvalidData.into());
        }
        bytes[..4].copy_from_slice(&ANSWER);
        counts.answered.fetch_add(1, Ordering::SeqCst);
        stream.write_all(&bytes).await?;
    }
    Ok(())
}

/// The next message; none when the other end has closed.
async fn receive(stream: &mut TcpStream) -> io::Result<Option<[u8; SIZE]>> {
    // More room than is needed: one read that does not fill it has seen all there is, without another system call.
    let mut bytes = [0; 2 * SIZE];
    let mut filled = 0;
    while filled < SIZE {
        match stream.read(&mut bytes[filled..]).await? {
            0 if filled == 0 => return Ok(None),
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            got => filled += got,
        }
    }
    if filled > SIZE {
        // Nobody sends more before there is an answer.
        return Err(io::ErrorKind::InvalidData.into());
    }
    Ok(bytes.first_chunk().copied())
}

/// Asks so many at a time; with `anew` every request has a connection of its own, which the client closes.
pub(super) fn ask(to: SocketAddr, clients: u16, anew: bool, time: Duration) -> io::Result<Asked> {
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    executor.block_on(async {
        let all = timeout(time + PATIENCE, ask_all(to, clients, anew, time));
        all.await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "there are requests without an answer"))?
    })
}

async fn ask_all(to: SocketAddr, clients: u16, anew: bool, time: Duration) -> io::Result<Asked> {
    let mut standing = Vec::new();
    for _ in 0..clients {
        standing.push(if anew { None } else { Some(open(to).await?) });
    }
    let (start, numbers) = (clock::now(), Arc::new(AtomicU64::new(0)));
    let mut running = JoinSet::new();
    for stream in standing {
        running.spawn(client(stream, to, start + time, Arc::clone(&numbers)));
    }
    let mut asked = Asked::default();
    while let Some(joined) = running.join_next().await {
        let Asked { sent, confirmed, .. } = joined.map_err(io::Error::other)??;
        asked.sent += sent;
        asked.confirmed += confirmed;
    }
    Ok(Asked { seconds: start.elapsed().as_secs_f64(), ..asked })
}

async fn client(
    mut standing: Option<TcpStream>,
    to: SocketAddr,
    end: Instant,
    numbers: Arc<AtomicU64>,
) -> io::Result<Asked> {
    let mut asked = Asked::default();
    loop {
        let number = numbers.fetch_add(1, Ordering::Relaxed);
        let right = match &mut standing {
            Some(stream) => exchange(stream, number).await?,
            None => exchange(&mut open(to).await?, number).await?,
        };
        asked.sent += 1;
        asked.confirmed += u64::from(right);
        if clock::now() >= end {
            return Ok(asked);
        }
    }
}

async fn open(to: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Whether the answer was the right one.
async fn exchange(stream: &mut TcpStream, number: u64) -> io::Result<bool> {
    stream.write_all(&message(REQUEST, number)).await?;
    let answer = receive(stream).await?;
    Ok(answer.ok_or(io::ErrorKind::UnexpectedEof)? == message(ANSWER, number))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Asks a server on a thread of its own, and gives what both ends have counted.
    fn both(clients: u16, anew: bool) -> (Asked, Arc<Counts>) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let (to, counts) = (listener.local_addr().unwrap(), Arc::new(Counts::default()));
        let there = Arc::clone(&counts);
        std::thread::spawn(move || {
            let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            executor.block_on(async { answer_all(TcpListener::from_std(listener).unwrap(), there).await });
        });
        (ask(to, clients, anew, Duration::from_millis(20)).unwrap(), counts)
    }

    #[test]
    fn both_ends_count_the_same() {
        for (clients, anew) in [(1, false), (16, false), (16, true)] {
            let (asked, counts) = both(clients, anew);
            assert!(asked.sent >= u64::from(clients), "{asked:?}");
            assert_eq!(asked.confirmed, asked.sent);
            assert_eq!(counts.answered.load(Ordering::SeqCst), asked.sent);
            let connections = if anew { asked.sent } else { u64::from(clients) };
            assert_eq!(counts.connections.load(Ordering::SeqCst), connections);
            assert_eq!(counts.broken.load(Ordering::SeqCst), 0);
        }
    }

    #[test]
    fn an_answer_to_another_request_is_not_right() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let to = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            use std::io::{Read as _, Write as _};
            let (mut stream, _) = listener.accept().unwrap();
            stream.read_exact(&mut [0; SIZE]).unwrap();
            stream.write_all(&message(ANSWER, 77)).unwrap();
        });
        let asked = ask(to, 1, true, Duration::ZERO).unwrap();
        assert_eq!((asked.sent, asked.confirmed), (1, 0));
    }
}
