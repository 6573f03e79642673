//! `vswitch/echo`: returns what it gets, over TCP and UDP.

use std::io;

use nix::sys::socket::SockType;
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use super::ending::Ending;

const CHUNK: usize = 16 * 1024;
/// The longest UDP datagram.
const DATAGRAM: usize = 65_535;

/// Echoes on one port of both protocols, for ever.
pub(super) async fn serve(port: u16, ending: &Ending) -> io::Result<()> {
    let tcp = TcpListener::from_std(super::bind(SockType::Stream, port)?.into())?;
    let udp = UdpSocket::from_std(super::bind(SockType::Datagram, port)?.into())?;
    tokio::select! {
        ended = streams(tcp, ending) => ended,
        ended = datagrams(udp) => ended,
    }
}

async fn streams(listener: TcpListener, ending: &Ending) -> io::Result<()> {
    let serve = |stream, _, told| async move {
        // A peer that is gone needs no echo.
        let _ = echo(stream).await;
        drop(told);
    };
    ending.accept(&listener, serve).await
}

async fn echo(stream: TcpStream) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        stream.readable().await?;
        let length = match stream.try_read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        };
        let mut rest = buffer.get(..length).unwrap_or_default();
        while !rest.is_empty() {
            stream.writable().await?;
            match stream.try_write(rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }
}

async fn datagrams(socket: UdpSocket) -> io::Result<()> {
    let mut buffer = vec![0; DATAGRAM];
    loop {
        // What ICMP says about an earlier echo shows here, and concerns nobody any more.
        let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
        let _ = socket.send_to(buffer.get(..length).unwrap_or_default(), from).await;
    }
}
