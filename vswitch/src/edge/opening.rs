//! Flows that begin, and what comes for those that there are.

use nat::checksum;
use netstack::emit::{self, IcmpError};
use netstack::flow::FlowKey;
use netstack::frame::Frame;
use netstack::parse::{self, Ip, protocol};

use super::Edge;
use super::config::EdgeDrop;
use super::flows::Flow;
use super::intake::{ECHO_REQUEST, ECHO_REQUEST_V6};
use super::messages::MessageFlow;
use super::outside::{Farewell, Messages, Outside, Refusal, SocketId};
use super::tcp::{Segment, Tcp};
use super::turn::{Fate, Turn};

const UDP_HEADER: usize = 8;

impl<O: Outside> Edge<O> {
    pub(super) fn receive_segment(
        &mut self,
        key: FlowKey,
        frame: &Frame,
        link: &parse::Link,
        ip: &Ip,
    ) -> Result<(), EdgeDrop> {
        let segment = Segment::read(frame.bytes(), ip).ok_or(EdgeDrop::Malformed)?;
        let known = self.flows.slot_of(&key);
        // A flow that there is may go on whatever the policy says by now; another one in its place may not begin.
        let opens = segment.opens() && self.is_open(key.destination);
        if opens && !known.is_some_and(|slot| self.is_taken(slot, &segment)) {
            return self.open(key, &segment, frame, link, ip);
        }
        let Some(slot) = known else {
            self.reset(frame, link, ip);
            return Err(EdgeDrop::NoConnection);
        };
        let fate = self.with(slot, |flow, turn, _| match flow {
            Flow::Tcp(tcp) => tcp.on_segment(turn, &segment),
            Flow::Messages(_) => Fate::Stays,
        });
        self.after(slot, fate);
        Ok(())
    }

    /// Whether a flow keeps its place although a pod asks for a connection there; one that does not is gone then.
    fn is_taken(&mut self, slot: u32, syn: &Segment<'_>) -> bool {
        let taken = self.with(slot, |flow, turn, _| match flow {
            Flow::Tcp(tcp) if tcp.gives_way_to(syn) => {
                tcp.give_way(turn);
                false
            }
            Flow::Tcp(_) | Flow::Messages(_) => true,
        });
        if taken == Some(false) {
            self.flows.remove(slot);
        }
        taken == Some(true)
    }

    /// Takes up a connection.
    fn open(
        &mut self,
        key: FlowKey,
        syn: &Segment<'_>,
        frame: &Frame,
        link: &parse::Link,
        ip: &Ip,
    ) -> Result<(), EdgeDrop> {
        if self.flows.connections() >= self.config.limits.connections {
            self.reset(frame, link, ip);
            return Err(EdgeDrop::TooManyConnections);
        }
        self.counters.asked += 1;
        let (to, first) = (self.target(&key), u32::try_from(self.rng.next_u64() >> 32).unwrap_or(0));
        let mut turn = Turn {
            now: self.now,
            key,
            socket: SocketId(self.flows.next_slot()),
            outside: &mut self.outside,
            link: &mut self.link,
            counters: &mut self.counters,
            timers: &self.config.timers,
            limits: &self.config.limits,
            held: &mut self.held,
        };
        // One that is refused at once has been told so.
        if let Some(tcp) = Tcp::begin(&mut turn, to, syn, first) {
            let slot = self.flows.insert(key, Flow::Tcp(Box::new(tcp)));
            self.after(slot, Some(Fate::Stays));
        }
        Ok(())
    }

    fn reset(&mut self, frame: &Frame, link: &parse::Link, ip: &Ip) {
        let reset = emit::tcp_reset(&mut self.link.pool, frame.bytes(), link, ip);
        if let Some(reset) = reset {
            self.link.enqueue(reset, &mut self.counters);
        }
    }

    /// A datagram, or with a size several in one frame.
    pub(super) fn receive_datagrams(
        &mut self,
        key: FlowKey,
        upper: &[u8],
        size: Option<usize>,
    ) -> Result<(), EdgeDrop> {
        let header = upper.first_chunk::<UDP_HEADER>().ok_or(EdgeDrop::Malformed)?;
        let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
        let whole = if size.is_some() { upper } else { upper.get(..length).ok_or(EdgeDrop::Malformed)? };
        let payload = whole.get(UDP_HEADER..).ok_or(EdgeDrop::Malformed)?;
        match size {
            Some(size) => payload
                .chunks(size.max(1))
                .try_for_each(|datagram| self.receive_message(key, Messages::Udp, datagram)),
            None => self.receive_message(key, Messages::Udp, payload),
        }
    }

    /// A datagram, or an echo request, that came in fragments.
    pub(super) fn receive_reassembled(&mut self, ip: &Ip, upper: &[u8]) -> Result<(), EdgeDrop> {
        let first = upper.first_chunk::<8>().ok_or(EdgeDrop::Malformed)?;
        let word = |at: usize| u16::from_be_bytes([first[at], first[at + 1]]);
        let (v4, udp) = (ip.source.is_ipv4(), ip.protocol == protocol::UDP);
        let request = if v4 { (protocol::ICMP, ECHO_REQUEST) } else { (protocol::ICMPV6, ECHO_REQUEST_V6) };
        if !udp && (ip.protocol, first[0]) != request {
            return Err(EdgeDrop::NotCarried);
        }
        let length = u32::try_from(upper.len()).unwrap_or(u32::MAX);
        let pseudo = match v4 && !udp {
            true => 0,
            false => checksum::pseudo_header(ip.source, ip.destination, ip.protocol, length),
        };
        // Over IPv4 a datagram may have none.
        let none = udp && v4 && word(6) == 0;
        if !none && !checksum::is_valid(pseudo + checksum::sum(upper)) {
            return Err(EdgeDrop::Checksum);
        }
        let (source_port, destination_port) = if udp { (word(0), word(2)) } else { (word(4), word(4)) };
        let key = FlowKey {
            source: ip.source,
            destination: ip.destination,
            protocol: ip.protocol,
            source_port,
            destination_port,
        };
        if !self.permits(&key) {
            return Err(EdgeDrop::Prohibited);
        }
        if udp {
            self.receive_datagrams(key, upper, None)
        } else {
            self.receive_message(key, Messages::Echo, upper)
        }
    }

    /// A message of a pod's, whole.
    pub(super) fn receive_message(
        &mut self,
        key: FlowKey,
        messages: Messages,
        message: &[u8],
    ) -> Result<(), EdgeDrop> {
        let slot = match self.flows.slot_of(&key) {
            Some(slot) => slot,
            None => self.open_messages(key, messages)?,
        };
        if messages == Messages::Udp {
            self.gather(slot, message);
            return Ok(());
        }
        let fate = self.with(slot, |flow, turn, _| {
            if let Flow::Messages(flow) = flow {
                flow.send(turn, message);
            }
            Fate::Stays
        });
        self.after(slot, fate);
        Ok(())
    }

    /// Opens a socket for a flow of messages. Where there are none left, another flow gives up its own.
    fn open_messages(&mut self, key: FlowKey, messages: Messages) -> Result<u32, EdgeDrop> {
        // Before the flow whose they are can be displaced.
        self.send_gathered();
        if self.flows.messages() >= self.config.limits.messages {
            self.displace();
        }
        let to = self.target(&key);
        let mut opened = self.outside.open(SocketId(self.flows.next_slot()), messages, to);
        if opened == Err(Refusal::NoSockets) && self.displace() {
            opened = self.outside.open(SocketId(self.flows.next_slot()), messages, to);
        }
        let error = match opened {
            Ok(()) => return Ok(self.flows.insert(key, Flow::Messages(MessageFlow::new(messages)))),
            Err(Refusal::NoSockets) => return Err(EdgeDrop::NoSockets),
            Err(Refusal::NoRoute) => IcmpError::NoRoute,
            Err(Refusal::Unreachable | Refusal::TimedOut) => IcmpError::AddressUnreachable,
            Err(Refusal::Prohibited) => IcmpError::AdminProhibited,
            Err(
                Refusal::Refused | Refusal::Reset | Refusal::TooLong | Refusal::InUse | Refusal::Unsupported,
            ) => {
                return Err(EdgeDrop::Refused);
            }
        };
        let quote = MessageFlow::new(messages).quote(&key);
        self.link.send_error(self.now, &key, quote, error, &mut self.counters);
        Err(EdgeDrop::Refused)
    }

    /// Ends the flow of messages that is missed least; false if there is none.
    pub(super) fn displace(&mut self) -> bool {
        let Some(slot) = self.flows.least() else { return false };
        self.end_messages(slot);
        self.counters.displaced += 1;
        true
    }

    /// Ends a flow of messages.
    pub(super) fn end_messages(&mut self, slot: u32) {
        match self.flows.remove(slot) {
            Some(Flow::Messages(flow)) => match flow.client() {
                Some(client) => self.doors.forget(&client),
                None => self.outside.close(SocketId(slot), Farewell::Gentle),
            },
            Some(Flow::Tcp(_)) | None => debug_assert!(false, "it is a flow of messages"),
        }
    }
}
