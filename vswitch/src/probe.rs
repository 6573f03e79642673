//! Small programs that run inside pods and talk to each other: what `vswitch demo` uses instead of tools that may not be
//! installed. Plain blocking sockets of the kernel, so that they test the switch from outside.
//!
//! The server takes TCP connections and UDP datagrams on one port. A TCP client sends a length and that many octets,
//! gets their SHA-256 back, then as many other octets with their SHA-256. Datagrams are echoed.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use netstack::seed::{Rng, Seed};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage};
use sha2::{Digest, Sha256};

use crate::clock;

/// The port that the server listens on unless told otherwise.
pub const PORT: u16 = 7007;
const CHUNK: usize = 256 * 1024;
/// How long a silent peer is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a probe found.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Report {
    /// Octets that arrived intact, both directions together.
    pub bytes: u64,
    /// Seconds it took.
    pub seconds: f64,
    /// Messages sent (datagrams, echo requests) or 0.
    pub sent: u64,
    /// Messages that came back intact.
    pub received: u64,
    /// Median round trip in seconds, for messages.
    pub median_rtt: f64,
}

/// Serves until killed; says `ready` on `out` once both sockets listen.
///
/// # Errors
/// When the port cannot be bound.
pub fn serve(port: u16, out: &mut impl Write) -> io::Result<()> {
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    let tcp = TcpListener::bind(any)?;
    let udp = UdpSocket::bind(any)?;
    writeln!(out, "ready")?;
    out.flush()?;
    std::thread::spawn(move || {
        let mut datagram = vec![0; 65_536];
        loop {
            if let Ok((len, from)) = udp.recv_from(&mut datagram) {
                // A reply that cannot be sent is for the client to notice.
                let _ = udp.send_to(&datagram[..len], from);
            }
        }
    });
    for stream in tcp.incoming() {
        let stream = stream?;
        std::thread::spawn(move || answer(stream));
    }
    Ok(())
}

fn answer(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut header = [0; 8];
    stream.read_exact(&mut header)?;
    let len = u64::from_be_bytes(header);
    let digest = receive(&mut stream, len)?;
    stream.write_all(&digest)?;
    let digest = send(&mut stream, len, len ^ 0x5eed)?;
    stream.write_all(&digest)
}

/// Sends and receives `bytes` octets each way and compares the hashes.
///
/// # Errors
/// When the connection fails or a hash differs.
pub fn tcp(to: SocketAddr, bytes: u64) -> io::Result<Report> {
    let start = clock::now();
    let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(&bytes.to_be_bytes())?;
    let sent = send(&mut stream, bytes, bytes)?;
    let mut theirs = [0; 32];
    stream.read_exact(&mut theirs)?;
    check(sent, theirs, "what we sent")?;
    let received = receive(&mut stream, bytes)?;
    stream.read_exact(&mut theirs)?;
    check(received, theirs, "what we received")?;
    Ok(Report { bytes: bytes * 2, seconds: start.elapsed().as_secs_f64(), ..Report::default() })
}

fn check(ours: [u8; 32], theirs: [u8; 32], what: &str) -> io::Result<()> {
    if ours == theirs {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, format!("the SHA-256 of {what} differs at the two ends")))
}

/// Writes `len` octets that depend on `seed`, and returns their hash.
fn send(stream: &mut impl Write, len: u64, seed: u64) -> io::Result<[u8; 32]> {
    let (mut hash, mut left, mut chunk) = (Sha256::new(), len, vec![0; CHUNK]);
    let mut rng = Seed::from_u64(seed).rng("payload");
    while left > 0 {
        let now = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        fill(&mut rng, &mut chunk[..now]);
        hash.update(&chunk[..now]);
        stream.write_all(&chunk[..now])?;
        left -= now as u64;
    }
    Ok(hash.finalize().into())
}

fn receive(stream: &mut impl Read, len: u64) -> io::Result<[u8; 32]> {
    let (mut hash, mut left, mut chunk) = (Sha256::new(), len, vec![0; CHUNK]);
    while left > 0 {
        let most = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        let got = stream.read(&mut chunk[..most])?;
        if got == 0 {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("closed with {left} octets to come"),
            ));
        }
        hash.update(&chunk[..got]);
        left -= got as u64;
    }
    Ok(hash.finalize().into())
}

/// Octets that repeat nowhere soon, so that a frame in the wrong place changes the hash.
pub fn fill(rng: &mut Rng, chunk: &mut [u8]) {
    for word in chunk.chunks_mut(8) {
        word.copy_from_slice(&rng.next_u64().to_le_bytes()[..word.len()]);
    }
}

/// Sends `count` datagrams of `size` octets, one at a time, and compares the echoes.
///
/// # Errors
/// When the socket fails; lost datagrams are only counted.
pub fn udp(to: SocketAddr, count: u64, size: usize) -> io::Result<Report> {
    let local = if to.is_ipv4() {
        SocketAddr::from(([0, 0, 0, 0], 0))
    } else {
        SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))
    };
    let socket = UdpSocket::bind(local)?;
    socket.connect(to)?;
    socket.set_read_timeout(Some(Duration::from_secs(1)))?;
    messages(count, size, |payload, reply| {
        socket.send(payload)?;
        socket.recv(reply)
    })
}

/// Sends `count` echo requests, one at a time, and compares the replies.
///
/// # Errors
/// When ping sockets are not allowed here; lost echoes are only counted.
pub fn ping(to: IpAddr, count: u64, size: usize) -> io::Result<Report> {
    let (family, protocol, request, reply_type) = match to {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp, 8, 0),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6, 128, 129),
    };
    let socket: OwnedFd = socket::socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, protocol)?;
    let second = nix::sys::time::TimeVal::new(1, 0);
    socket::setsockopt(&socket, socket::sockopt::ReceiveTimeout, &second)?;
    let address = SockaddrStorage::from(SocketAddr::new(to, 0));
    socket::connect(socket.as_raw_fd(), &address)?;
    let mut sequence = 0u16;
    messages(count, size, |payload, reply| {
        sequence = sequence.wrapping_add(1);
        // Type, code, checksum and identifier (the kernel's to fill), sequence number.
        let mut packet = vec![request, 0, 0, 0, 0, 0];
        packet.extend_from_slice(&sequence.to_be_bytes());
        packet.extend_from_slice(payload);
        nix::unistd::write(&socket, &packet)?;
        let mut buffer = vec![0; packet.len() + 64];
        loop {
            let got = nix::unistd::read(&socket, &mut buffer)?;
            if got >= 8 && buffer[0] == reply_type && buffer[6..8] == sequence.to_be_bytes() {
                reply[..got - 8].copy_from_slice(&buffer[8..got]);
                return Ok(got - 8);
            }
        }
    })
}

/// Exchanges messages one at a time; what does not come back equal is lost.
fn messages(
    count: u64,
    size: usize,
    mut exchange: impl FnMut(&[u8], &mut [u8]) -> io::Result<usize>,
) -> io::Result<Report> {
    let start = clock::now();
    let (mut payload, mut reply) = (vec![0; size], vec![0; size + 64]);
    let mut rng = Seed::from_u64(count).rng("messages");
    let mut rtts = Vec::new();
    for _ in 0..count {
        fill(&mut rng, &mut payload);
        let sent = clock::now();
        match exchange(&payload, &mut reply) {
            Ok(len) if reply[..len] == payload[..] => rtts.push(sent.elapsed().as_secs_f64()),
            Ok(_) => {}
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(e) => return Err(e),
        }
    }
    rtts.sort_by(f64::total_cmp);
    Ok(Report {
        bytes: rtts.len() as u64 * size as u64 * 2,
        seconds: start.elapsed().as_secs_f64(),
        sent: count,
        received: rtts.len() as u64,
        median_rtt: rtts.get(rtts.len() / 2).copied().unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;
    use std::thread;

    /// A server at a free port of the loopback, for one connection.
    fn one_connection(serve: impl FnOnce(TcpStream) -> io::Result<()> + Send + 'static) -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || serve(listener.accept().unwrap().0));
        address
    }

    #[test]
    fn intact_octets_are_accepted() {
        let report = tcp(one_connection(answer), 1 << 20).unwrap();
        assert_eq!(report.bytes, 2 << 20);
    }

    #[test]
    fn one_changed_octet_on_the_way_there_is_noticed() {
        let address = one_connection(|mut stream| {
            let mut header = [0; 8];
            stream.read_exact(&mut header)?;
            let mut body = vec![0; 100_000];
            stream.read_exact(&mut body)?;
            body[77_777] ^= 1;
            stream.write_all(&Sha256::digest(&body))
        });
        assert_eq!(tcp(address, 100_000).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn two_swapped_pieces_on_the_way_back_are_noticed() {
        let address = one_connection(|mut stream| {
            let mut header = [0; 8];
            stream.read_exact(&mut header)?;
            let digest = receive(&mut stream, 100_000)?;
            stream.write_all(&digest)?;
            let mut body = Vec::new();
            let digest = send(&mut body, 100_000, 1)?;
            let (one, other) = body.split_at_mut(50_000);
            one[..1448].swap_with_slice(&mut other[..1448]);
            stream.write_all(&body)?;
            stream.write_all(&digest)
        });
        assert_eq!(tcp(address, 100_000).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
