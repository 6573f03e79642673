//! Flows of messages: UDP, and echo.
//!
//! # Theory of operation
//! Each pod's port (or echo identifier) has a socket of its own for each destination, which hears nobody else. So an answer
//! comes from the address and port that was asked, the kernel sorts out everything else, and what ICMP says of one
//! destination is told to whoever asked that one. The price is a descriptor for each destination, and that a pod is seen
//! at another port by each.
//!
//! A message that a socket has no room for is lost, as it would be in any full queue, and counted.

use std::time::Duration;

use nat::checksum;
use netstack::emit::IcmpError;
use netstack::flow::FlowKey;

use super::config::{EdgeDrop, EdgeTimers};
use super::doors::Client;
use super::link::quote;
use super::outside::{Messages, Outside, Refusal};
use super::turn::Turn;

/// Messages that a flow takes in before others have their turn.
const MESSAGES_PER_TURN: usize = 64;
/// Where name servers are asked.
const DNS: u16 = 53;
/// Octets of an echo's header: kind, code, checksum, identifier, sequence.
const ECHO_HEADER: usize = 8;
const ECHO_REPLY: u8 = 0;
const ECHO_REPLY_V6: u8 = 129;

/// See the module.
#[derive(Debug)]
pub(super) struct MessageFlow {
    messages: Messages,
    /// Who came in by a door; its socket is the door's then.
    client: Option<Client>,
    replied: bool,
    deadline: Duration,
}

impl MessageFlow {
    pub(super) const fn new(messages: Messages) -> Self {
        Self { messages, client: None, replied: false, deadline: Duration::ZERO }
    }

    /// The flow of a client who came in by a door.
    pub(super) const fn of_client(messages: Messages, client: Client) -> Self {
        Self { client: Some(client), ..Self::new(messages) }
    }

    /// Who came in by a door, if it is his flow.
    pub(super) const fn client(&self) -> Option<Client> {
        self.client
    }

    /// Brings the inside what a client has sent.
    pub(super) fn bring<O: Outside>(&mut self, turn: &mut Turn<'_, O>, octets: &[u8]) {
        self.touch(turn);
        turn.link.send_datagram(&turn.key, octets, turn.counters);
        turn.counters.messages[1] += 1;
    }

    /// When it ends if nothing more comes.
    pub(super) const fn deadline(&self) -> Duration {
        self.deadline
    }

    fn patience(&self, key: &FlowKey, timers: &EdgeTimers) -> Duration {
        match (self.messages, self.replied) {
            (Messages::Echo, _) => timers.echo,
            (Messages::Udp, _) if key.destination_port == DNS => timers.dns,
            (Messages::Udp, true) => timers.replied,
            (Messages::Udp, false) => timers.unreplied,
        }
    }

    fn touch<O>(&mut self, turn: &Turn<'_, O>) {
        self.deadline = turn.now + self.patience(&turn.key, turn.timers);
    }

    /// Sends a message of the pod's.
    pub(super) fn send<O: Outside>(&mut self, turn: &mut Turn<'_, O>, message: &[u8]) {
        self.replied |= self.client.is_some();
        self.touch(turn);
        let mut sent = self.send_once(turn, message);
        if let Err(refusal) = sent {
            // It may be what became of an earlier message: then this one has not been tried yet.
            self.tell(turn, refusal);
            sent = self.send_once(turn, message);
        }
        match sent {
            Ok(true) => turn.counters.messages[0] += 1,
            Ok(false) => turn.drop(EdgeDrop::NoRoom),
            Err(Refusal::NoSockets) => turn.drop(EdgeDrop::NoRoom),
            Err(
                Refusal::Refused
                | Refusal::Reset
                | Refusal::TimedOut
                | Refusal::NoRoute
                | Refusal::Unreachable
                | Refusal::Prohibited
                | Refusal::TooLong
                | Refusal::InUse
                | Refusal::Unsupported,
            ) => turn.drop(EdgeDrop::Refused),
        }
    }

    /// Sends datagrams of `size` octets, the last of which may be shorter: all at once where that can be, else one by one.
    pub(super) fn send_all<O: Outside>(
        &mut self,
        turn: &mut Turn<'_, O>,
        datagrams: &[u8],
        size: usize,
        count: usize,
    ) {
        if count > 1 && self.client.is_none() {
            match turn.outside.send_messages(turn.socket, datagrams, size) {
                Ok(true) => {
                    self.touch(turn);
                    turn.counters.messages[0] += count as u64;
                    return;
                }
                // There may be room for some of them.
                Ok(false) => {}
                Err(refusal) => self.tell(turn, refusal),
            }
        }
        if datagrams.is_empty() {
            return self.send(turn, datagrams);
        }
        for datagram in datagrams.chunks(size) {
            self.send(turn, datagram);
        }
    }

    fn send_once<O: Outside>(&self, turn: &mut Turn<'_, O>, message: &[u8]) -> Result<bool, Refusal> {
        match self.client {
            Some(Client { door, at, from }) => turn.outside.send_from(door, at, from, message),
            None => turn.outside.send_message(turn.socket, message),
        }
    }

    /// Takes in what has come for the pod.
    pub(super) fn receive<O: Outside>(&mut self, turn: &mut Turn<'_, O>, scratch: &mut [u8]) {
        for _ in 0..MESSAGES_PER_TURN {
            match turn.outside.receive_message(turn.socket, scratch) {
                Ok(Some(count)) => {
                    let Some(message) = scratch.get_mut(..count) else { return };
                    self.replied = true;
                    self.touch(turn);
                    self.deliver(turn, message);
                }
                Ok(None) => return,
                Err(refusal) => self.tell(turn, refusal),
            }
        }
    }

    fn deliver<O: Outside>(&self, turn: &mut Turn<'_, O>, message: &mut [u8]) {
        match self.messages {
            Messages::Udp => turn.link.send_datagram(&turn.key, message, turn.counters),
            Messages::Echo if restore(&turn.key, message) => {
                turn.link.send_icmp(&turn.key, message, turn.counters);
            }
            Messages::Echo => return turn.drop(EdgeDrop::Stray),
        }
        turn.counters.messages[1] += 1;
    }

    /// Tells the pod what has become of its messages, as a router would have.
    fn tell<O: Outside>(&self, turn: &mut Turn<'_, O>, refusal: Refusal) {
        let error = match (refusal, self.messages) {
            (Refusal::Refused, Messages::Udp) => IcmpError::PortUnreachable,
            (Refusal::NoRoute, _) => IcmpError::NoRoute,
            (Refusal::Unreachable | Refusal::TimedOut, _) => IcmpError::AddressUnreachable,
            (Refusal::Prohibited, _) => IcmpError::AdminProhibited,
            (
                Refusal::Refused
                | Refusal::Reset
                | Refusal::TooLong
                | Refusal::NoSockets
                | Refusal::InUse
                | Refusal::Unsupported,
                _,
            ) => return,
        };
        turn.send_error(self.quote(&turn.key), error);
    }

    /// What an error about this flow quotes: length and checksum of UDP are not looked at by whoever gets it.
    pub(super) fn quote(&self, key: &FlowKey) -> [u8; 8] {
        match self.messages {
            Messages::Udp => quote(key, 8 << 16),
            Messages::Echo => {
                let [high, low] = key.source_port.to_be_bytes();
                let request = if key.source.is_ipv4() { 8 } else { 128 };
                [request, 0, 0, 0, high, low, 0, 0]
            }
        }
    }
}

/// Gives an echo reply the identifier that its request had; false if it is none.
fn restore(key: &FlowKey, message: &mut [u8]) -> bool {
    let reply = if key.source.is_ipv4() { ECHO_REPLY } else { ECHO_REPLY_V6 };
    if message.len() < ECHO_HEADER || message[0] != reply || message[1] != 0 {
        return false;
    }
    message[2..4].fill(0);
    message[4..6].copy_from_slice(&key.source_port.to_be_bytes());
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let pseudo = match key.source.is_ipv4() {
        true => 0,
        false => checksum::pseudo_header(key.destination, key.source, key.protocol, length),
    };
    let sum = !checksum::fold(pseudo + checksum::sum(message));
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    true
}
