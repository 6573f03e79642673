//! Datagrams of one flow that follow each other, which leave by one call.
//!
//! A call for each datagram is most of what a datagram costs. The kernel takes many of one size at once (`UDP_SEGMENT`, udp(7)),
//! carries them as one as far as it can, and they arrive one by one as if they had been sent so.

use super::flows::Flow;
use super::outside::Outside;
use super::turn::Fate;
use super::{Edge, MESSAGE};

/// Datagrams of one call (Linux: `UDP_MAX_SEGMENTS`), and their octets, headers of 48 octets among them.
const DATAGRAMS: usize = 64;
const OCTETS: usize = MESSAGE - 48;

/// Datagrams on their way to one socket, `size` octets each but for the last, which may be shorter.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    slot: u32,
    size: usize,
    count: usize,
    octets: Vec<u8>,
}

impl Gathered {
    /// Whether this one may go with those that are here.
    fn admits(&self, slot: u32, datagram: &[u8]) -> bool {
        let alike = self.slot == slot && !datagram.is_empty() && datagram.len() <= self.size;
        alike && self.count < DATAGRAMS && self.octets.len() + datagram.len() <= OCTETS
    }
}

impl<O: Outside> Edge<O> {
    /// Has a datagram leave with others of its flow, before this turn ends.
    pub(super) fn gather(&mut self, slot: u32, datagram: &[u8]) {
        if !self.gathered.admits(slot, datagram) {
            self.send_gathered();
        }
        let gathered = &mut self.gathered;
        if gathered.count == 0 {
            (gathered.slot, gathered.size) = (slot, datagram.len());
        }
        gathered.octets.extend_from_slice(datagram);
        gathered.count += 1;
        if datagram.len() < gathered.size || datagram.is_empty() {
            self.send_gathered();
        }
    }

    /// Sends what was gathered. Its flow is still there: none ends before.
    pub(super) fn send_gathered(&mut self) {
        if self.gathered.count == 0 {
            return;
        }
        let mut gathered = std::mem::take(&mut self.gathered);
        let fate = self.with(gathered.slot, |flow, turn, _| {
            if let Flow::Messages(flow) = flow {
                flow.send_all(turn, &gathered.octets, gathered.size, gathered.count);
            }
            Fate::Stays
        });
        self.after(gathered.slot, fate);
        gathered.octets.clear();
        gathered.count = 0;
        self.gathered = gathered;
    }
}
