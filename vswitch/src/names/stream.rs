//! A client that is connected: messages one after the other, each behind its length (RFC 1035 section 4.2.2).

use std::net::SocketAddr;
use std::time::Duration;

use netstack::host::{Host, TcpError, TcpHandle};

use super::IDLE;
use super::desk::Told;

/// The octets that a message's length takes.
const LENGTH: usize = 2;
/// So many octets of answers may wait until the client takes some. One answer more than that is always let in.
const WAITING: usize = 64 * 1024;

/// See the module.
#[derive(Debug)]
pub(super) struct Stream {
    from: SocketAddr,
    /// What was sent, and how much of it has been read.
    input: Vec<u8>,
    read: usize,
    /// Answers that are to be sent.
    output: Vec<u8>,
    /// So many octets of them have been.
    sent: usize,
    /// Answers that will come later.
    owed: usize,
    /// Whether the client has said that nothing more will come.
    ended: bool,
    until: Duration,
}

impl Stream {
    pub(super) fn new(now: Duration, from: SocketAddr) -> Self {
        let (input, output) = (Vec::new(), Vec::new());
        Self { from, input, read: 0, output, sent: 0, owed: 0, ended: false, until: now + IDLE }
    }

    /// Where the client is.
    pub(super) fn from(&self) -> SocketAddr {
        self.from
    }

    /// When it is let go, unless it asks for something before.
    pub(super) fn until(&self) -> Duration {
        self.until
    }

    /// Octets that are kept for it.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.input.len() + self.output.len()
    }

    /// Reads, answers and sends what can be; whether the client is still there.
    pub(super) fn advance(
        &mut self,
        host: &mut Host,
        now: Duration,
        client: TcpHandle,
        buffer: &mut [u8],
        answer: &mut dyn FnMut(&[u8]) -> Told,
    ) -> bool {
        loop {
            if self.send(host, now, client).is_err() {
                host.tcp_abort(now, client);
                return false;
            }
            if self.output.len() < WAITING && self.answer_one(now, answer) {
                continue;
            }
            if self.ended && self.output.is_empty() && self.owed == 0 {
                host.tcp_release(now, client);
                return false;
            }
            if self.ended || self.output.len() >= WAITING {
                return true;
            }
            self.input.drain(..self.read);
            self.read = 0;
            match host.tcp_recv(now, client, buffer) {
                Ok(0) => self.ended = true,
                Ok(count) => self.input.extend_from_slice(&buffer[..count]),
                Err(TcpError::WouldBlock) => return true,
                Err(_) => {
                    host.tcp_abort(now, client);
                    return false;
                }
            }
        }
    }

    /// Takes in an answer that was owed.
    pub(super) fn hear(&mut self, answer: &[u8]) {
        self.owed = self.owed.saturating_sub(1);
        self.put(answer);
    }

    fn put(&mut self, answer: &[u8]) {
        let length = u16::try_from(answer.len()).unwrap_or(u16::MAX);
        self.output.extend_from_slice(&length.to_be_bytes());
        self.output.extend_from_slice(&answer[..usize::from(length)]);
    }

    /// Sends what there is room for.
    fn send(&mut self, host: &mut Host, now: Duration, client: TcpHandle) -> Result<(), TcpError> {
        while self.sent < self.output.len() {
            match host.tcp_send(now, client, &self.output[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(TcpError::WouldBlock) => break,
                Err(error) => return Err(error),
            }
        }
        self.output.drain(..self.sent);
        self.sent = 0;
        Ok(())
    }

    /// Answers the next message, if it has come as a whole. What is no question at all is the client's last.
    fn answer_one(&mut self, now: Duration, answer: &mut dyn FnMut(&[u8]) -> Told) -> bool {
        let rest = &self.input[self.read..];
        let Some(&[high, low]) = rest.first_chunk::<LENGTH>() else { return false };
        let end = LENGTH + usize::from(u16::from_be_bytes([high, low]));
        let Some(message) = rest.get(LENGTH..end) else { return false };
        let answered = answer(message);
        self.read += end;
        self.until = now + IDLE;
        match answered {
            Told::Answer(answered) => self.put(&answered),
            Told::Later => self.owed += 1,
            Told::Never => {
                self.read = self.input.len();
                self.ended = true;
            }
        }
        true
    }
}
