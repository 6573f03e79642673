//! An outside in memory.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};

use crate::edge::{Farewell, Messages, Outside, Peeked, Ready, Refusal, SocketId};

/// What whoever is reached does.
#[derive(Clone, Debug)]
pub(super) enum Manner {
    /// Gives back all that it gets, and ends when its client does.
    Echo,
    /// Says this and ends.
    Source(Vec<u8>),
    /// Takes everything, says this once its client has ended, and ends.
    Answer(Vec<u8>),
    /// Never lets a connection stand.
    Silent,
    /// Says no at once, or when it is asked again.
    No(Refusal, bool),
    /// Takes nothing.
    Deaf,
}

#[derive(Debug)]
pub(super) struct Peer {
    pub(super) to: SocketAddr,
    pub(super) manner: Manner,
    pub(super) messages: Option<Messages>,
    connected: bool,
    /// For the pod, not discarded.
    pub(super) incoming: VecDeque<u8>,
    unsaid: VecDeque<u8>,
    ended: bool,
    /// From the pod.
    pub(super) got: Vec<u8>,
    echoed: usize,
    pub(super) got_end: bool,
    room: usize,
    full: bool,
    pub(super) broken: Option<Refusal>,
    pub(super) answers: VecDeque<Result<Vec<u8>, Refusal>>,
    pub(super) sent: Vec<Vec<u8>>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct World {
    manners: BTreeMap<SocketAddr, Manner>,
    pub(super) peers: BTreeMap<u32, Peer>,
    found: VecDeque<(SocketId, Ready)>,
    pub(super) sockets: usize,
    /// Doors, and who waits at them.
    pub(super) doors: BTreeMap<u32, (SocketAddr, VecDeque<(SocketAddr, Manner)>)>,
    /// Datagrams to doors: from where, to which address. And from them: to where, from which.
    pub(super) coming: VecDeque<(SocketAddr, IpAddr, Vec<u8>)>,
    pub(super) going: Vec<(SocketAddr, IpAddr, Vec<u8>)>,
    /// Those that were closed: where to, what they got, whether it ended, how they ended.
    pub(super) closed: Vec<(SocketAddr, Vec<u8>, bool, Farewell)>,
    /// Whether several messages are taken at once, and how often they were.
    pub(super) joins: bool,
    pub(super) joined: usize,
    /// Octets that a socket takes between two steps, and says.
    pub(super) pace: usize,
    /// Octets that wait for the pod at the most.
    pub(super) buffer: usize,
}

impl World {
    pub(super) fn new() -> Self {
        Self { sockets: usize::MAX, pace: usize::MAX, buffer: 1 << 20, ..Self::default() }
    }

    pub(super) fn serve(&mut self, at: &str, manner: Manner) {
        self.manners.insert(at.parse().unwrap(), manner);
    }

    pub(super) fn peer(&mut self, to: &str) -> &mut Peer {
        let to: SocketAddr = to.parse().unwrap();
        self.peers.values_mut().find(|peer| peer.to == to).unwrap()
    }

    /// Breaks off all connections there.
    pub(super) fn break_off(&mut self, to: &str) {
        let to: SocketAddr = to.parse().unwrap();
        for (id, peer) in self.peers.iter_mut().filter(|(_, peer)| peer.to == to) {
            peer.broken = Some(Refusal::Reset);
            peer.incoming.clear();
            self.found.push_back((
                SocketId(*id),
                Ready { readable: true, ended: true, broken: false, writable: true },
            ));
        }
    }

    /// Somebody comes to a door.
    pub(super) fn come(&mut self, door: &str, from: &str, manner: Manner) {
        let door: SocketAddr = door.parse().unwrap();
        let (id, (_, waiting)) = self.doors.iter_mut().find(|(_, (at, _))| *at == door).unwrap();
        waiting.push_back((from.parse().unwrap(), manner));
        self.found.push_back((SocketId(*id), Ready { readable: true, ..Ready::default() }));
    }

    /// A datagram comes to a door.
    pub(super) fn send_in(&mut self, door: &str, from: &str, at: &str, octets: &[u8]) {
        let door: SocketAddr = door.parse().unwrap();
        let (id, _) = self.doors.iter().find(|(_, (at, _))| *at == door).unwrap();
        self.coming.push_back((from.parse().unwrap(), at.parse().unwrap(), octets.to_vec()));
        self.found.push_back((SocketId(*id), Ready { readable: true, ..Ready::default() }));
    }

    /// A message for whoever has asked there.
    pub(super) fn say(&mut self, to: &str, answer: Result<Vec<u8>, Refusal>) {
        let to: SocketAddr = to.parse().unwrap();
        let (id, peer) = self.peers.iter_mut().find(|(_, peer)| peer.to == to).unwrap();
        peer.answers.push_back(answer);
        self.found.push_back((SocketId(*id), Ready { readable: true, ..Ready::default() }));
    }

    /// Lets everybody go on.
    pub(super) fn step(&mut self) {
        let (pace, buffer) = (self.pace, self.buffer);
        for (id, peer) in &mut self.peers {
            if peer.broken.is_some() || peer.messages.is_some() {
                continue;
            }
            let ready = peer.step(pace, buffer);
            if ready.readable || ready.writable {
                self.found.push_back((SocketId(*id), ready));
            }
        }
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.found.is_empty()
    }

    fn add(&mut self, id: SocketId, to: SocketAddr, messages: Option<Messages>) -> Result<(), Refusal> {
        let manner = self.manners.get(&to).cloned().unwrap_or(Manner::No(Refusal::Unreachable, true));
        if self.peers.len() >= self.sockets {
            return Err(Refusal::NoSockets);
        }
        if let Manner::No(refusal, true) = manner {
            return Err(refusal);
        }
        let unsaid = match &manner {
            Manner::Source(all) => all.iter().copied().collect(),
            Manner::Echo | Manner::Answer(_) | Manner::Silent | Manner::No(..) | Manner::Deaf => {
                VecDeque::new()
            }
        };
        let peer = Peer {
            to,
            room: if matches!(manner, Manner::Deaf) { 0 } else { self.pace },
            manner,
            messages,
            connected: false,
            incoming: VecDeque::new(),
            unsaid,
            ended: false,
            got: Vec::new(),
            echoed: 0,
            got_end: false,
            full: false,
            broken: None,
            answers: VecDeque::new(),
            sent: Vec::new(),
        };
        assert!(self.peers.insert(id.0, peer).is_none(), "{id:?} is open already");
        Ok(())
    }

    fn of(&mut self, id: SocketId) -> &mut Peer {
        self.peers.get_mut(&id.0).unwrap_or_else(|| panic!("{id:?} is not open"))
    }
}

impl Peer {
    fn step(&mut self, pace: usize, buffer: usize) -> Ready {
        let mut ready = Ready::default();
        if !self.connected {
            if matches!(self.manner, Manner::Silent) {
                return ready;
            }
            if let Manner::No(refusal, _) = self.manner {
                self.broken = Some(refusal);
                return Ready { readable: true, ended: true, broken: false, writable: true };
            }
            self.connected = true;
            return Ready { writable: true, ..Ready::default() };
        }
        if !matches!(self.manner, Manner::Deaf) {
            self.room = pace;
            ready.writable = std::mem::take(&mut self.full);
        }
        if matches!(self.manner, Manner::Echo) {
            self.unsaid.extend(&self.got[self.echoed..]);
            self.echoed = self.got.len();
        }
        if let (Manner::Answer(answer), true) = (&mut self.manner, self.got_end) {
            self.unsaid.extend(std::mem::take(answer));
        }
        let count = self.unsaid.len().min(pace).min(buffer.saturating_sub(self.incoming.len()));
        self.incoming.extend(self.unsaid.drain(..count));
        ready.readable = count > 0;
        let done = self.unsaid.is_empty() && !self.ended;
        let ends = match self.manner {
            Manner::Source(_) => true,
            Manner::Echo | Manner::Answer(_) => self.got_end,
            Manner::Silent | Manner::No(..) | Manner::Deaf => false,
        };
        if done && ends {
            self.ended = true;
            (ready.readable, ready.ended) = (true, true);
        }
        ready
    }
}

impl Outside for World {
    fn connect(&mut self, socket: SocketId, to: SocketAddr) -> Result<(), Refusal> {
        self.add(socket, to, None)
    }

    fn connected(&mut self, socket: SocketId) -> Result<bool, Refusal> {
        let peer = self.of(socket);
        peer.broken.map_or(Ok(peer.connected), Err)
    }

    fn send(&mut self, socket: SocketId, octets: &[u8]) -> Result<usize, Refusal> {
        let peer = self.of(socket);
        assert!(!peer.got_end, "octets behind the end");
        if let Some(refusal) = peer.broken {
            return Err(refusal);
        }
        let count = octets.len().min(peer.room);
        peer.room -= count;
        peer.full |= count < octets.len();
        peer.got.extend_from_slice(&octets[..count]);
        Ok(count)
    }

    fn peek(&mut self, socket: SocketId, offset: usize, into: &mut [u8]) -> Result<Peeked, Refusal> {
        let peer = self.of(socket);
        assert!(!into.is_empty() && offset <= peer.incoming.len() || peer.broken.is_some());
        if let Some(refusal) = peer.broken {
            return Err(refusal);
        }
        let count = (peer.incoming.len() - offset).min(into.len());
        for (to, from) in into.iter_mut().zip(peer.incoming.range(offset..)) {
            *to = *from;
        }
        Ok(match count {
            0 if peer.ended => Peeked::End,
            0 => Peeked::Nothing,
            count => Peeked::Octets(count),
        })
    }

    fn discard(&mut self, socket: SocketId, count: usize) {
        let peer = self.of(socket);
        if peer.broken.is_none() {
            assert!(count <= peer.incoming.len(), "octets that were never there are acknowledged");
            peer.incoming.drain(..count);
        }
    }

    fn shutdown(&mut self, socket: SocketId) {
        let peer = self.of(socket);
        assert!(!peer.got_end, "an end is passed on once");
        peer.got_end = true;
    }

    fn open(&mut self, socket: SocketId, messages: Messages, to: SocketAddr) -> Result<(), Refusal> {
        self.add(socket, to, Some(messages))
    }

    fn send_message(&mut self, socket: SocketId, message: &[u8]) -> Result<bool, Refusal> {
        let peer = self.of(socket);
        if let Some(refusal) = peer.broken.take() {
            return Err(refusal);
        }
        peer.sent.push(message.to_vec());
        if matches!(peer.manner, Manner::Echo) {
            peer.answers.push_back(Ok(message.to_vec()));
            self.found.push_back((socket, Ready { readable: true, ..Ready::default() }));
        }
        Ok(true)
    }

    fn send_messages(&mut self, socket: SocketId, messages: &[u8], size: usize) -> Result<bool, Refusal> {
        if !self.joins {
            return Err(Refusal::Unsupported);
        }
        self.joined += 1;
        for message in messages.chunks(size) {
            self.send_message(socket, message)?;
        }
        Ok(true)
    }

    fn receive_message(&mut self, socket: SocketId, into: &mut [u8]) -> Result<Option<usize>, Refusal> {
        match self.of(socket).answers.pop_front() {
            None => Ok(None),
            Some(Err(refusal)) => Err(refusal),
            Some(Ok(message)) => {
                into[..message.len()].copy_from_slice(&message);
                Ok(Some(message.len()))
            }
        }
    }

    fn close(&mut self, socket: SocketId, farewell: Farewell) {
        if self.doors.remove(&socket.0).is_some() {
            return;
        }
        let peer = self.peers.remove(&socket.0).unwrap_or_else(|| panic!("{socket:?} is not open"));
        self.closed.push((peer.to, peer.got, peer.got_end, farewell));
    }

    fn listen(&mut self, socket: SocketId, at: SocketAddr) -> Result<(), Refusal> {
        if self.doors.values().any(|(other, _)| *other == at) {
            return Err(Refusal::InUse);
        }
        self.doors.insert(socket.0, (at, VecDeque::new()));
        Ok(())
    }

    fn accept(&mut self, listener: SocketId, socket: SocketId) -> Result<Option<SocketAddr>, Refusal> {
        let (_, waiting) = self.doors.get_mut(&listener.0).unwrap();
        if waiting.is_empty() {
            return Ok(None);
        }
        if self.peers.len() >= self.sockets {
            return Err(Refusal::NoSockets);
        }
        let (from, manner) = waiting.pop_front().unwrap();
        self.manners.insert(from, manner);
        self.add(socket, from, None)?;
        self.of(socket).connected = true;
        Ok(Some(from))
    }

    fn bind(&mut self, socket: SocketId, at: SocketAddr) -> Result<(), Refusal> {
        self.listen(socket, at)
    }

    fn receive_from(
        &mut self,
        _socket: SocketId,
        into: &mut [u8],
    ) -> Result<Option<(usize, SocketAddr, IpAddr)>, Refusal> {
        Ok(self.coming.pop_front().map(|(from, at, octets)| {
            into[..octets.len()].copy_from_slice(&octets);
            (octets.len(), from, at)
        }))
    }

    fn send_from(
        &mut self,
        _socket: SocketId,
        at: IpAddr,
        to: SocketAddr,
        octets: &[u8],
    ) -> Result<bool, Refusal> {
        self.going.push((to, at, octets.to_vec()));
        Ok(true)
    }

    fn look(&mut self) {}

    fn poll_ready(&mut self) -> Option<(SocketId, Ready)> {
        // Those that were closed meanwhile are told of once too often, as real ones are.
        self.found.pop_front()
    }
}
