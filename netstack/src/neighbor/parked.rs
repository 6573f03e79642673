//! Frames that wait for a neighbour's address.
//!
//! # Theory of operation
//! A slab of waiting frames, threaded into one list per neighbour slot, oldest first. The slab, the lists and the free
//! list are built at construction; parking and releasing only relink them.
//!
//! Three bounds, with two answers. A neighbour whose list is full loses its *oldest* frame to the new one, because the
//! latest is the one worth saving (RFC 1122 section 2.3.2.2: "SHOULD save (rather than discard) at least one (the latest)
//! packet of each set of packets destined to the same unresolved IP address"). When all neighbours together hold as many
//! frames or octets as they may, the *new* frame is refused, so that no neighbour can push out another's. What is dropped
//! or refused goes back to the caller, who counts it and gives the slab back: nothing disappears in here.
//!
//! A list is named by the neighbour's slot. Whoever frees a slot must empty its list first; `super::Neighbors` never
//! frees the slot of an unresolved neighbour without naming it to its caller.

use alloc::vec;
use alloc::vec::Vec;

use crate::config::Limits;
use crate::frame::Frame;

/// An index that means "no frame".
const NONE: u32 = u32::MAX;

#[derive(Debug)]
struct Node<T> {
    /// None while the node is free.
    item: Option<(Frame, T)>,
    /// The next younger frame of the same neighbour, or the next free node.
    next: u32,
}

#[derive(Clone, Copy, Debug)]
struct List {
    oldest: u32,
    youngest: u32,
    len: u32,
}

impl List {
    const EMPTY: Self = Self { oldest: NONE, youngest: NONE, len: 0 };
}

/// What became of a frame that was to wait.
#[derive(Debug)]
#[must_use = "a frame that comes back has to be counted and recycled"]
pub enum Parking<T> {
    /// It waits.
    Parked,
    /// It waits; its neighbour's oldest frame gave way and comes back here.
    ParkedDroppingOldest(Frame, T),
    /// There is no room for it.
    Refused(Frame, T),
}

/// Waiting frames of one switch, each with what its caller wants back with it.
#[derive(Debug)]
pub struct Parked<T> {
    nodes: Vec<Node<T>>,
    free: u32,
    lists: Vec<List>,
    len: usize,
    bytes: usize,
    max_per_neighbor: u32,
    max_bytes: usize,
}

impl<T> Parked<T> {
    /// Nothing parked yet, with the memory for `Limits::parked` frames of `Limits::neighbors` neighbours.
    pub fn new(limits: &Limits) -> Self {
        let mut parked = Self {
            nodes: Vec::with_capacity(limits.parked as usize),
            free: NONE,
            lists: vec![List::EMPTY; limits.neighbors as usize],
            len: 0,
            bytes: 0,
            max_per_neighbor: limits.parked_per_neighbor,
            max_bytes: limits.parked_bytes,
        };
        for index in 0..limits.parked {
            parked.nodes.push(Node { item: None, next: parked.free });
            parked.free = index;
        }
        parked
    }

    /// Lets a frame wait for the neighbour in `slot`.
    pub fn park(&mut self, slot: u32, frame: Frame, context: T) -> Parking<T> {
        let Some(&list) = self.lists.get(slot as usize) else {
            return Parking::Refused(frame, context);
        };
        let full = list.len >= self.max_per_neighbor;
        // What the oldest frame of a full list would leave behind.
        let leaving = match self.nodes.get(list.oldest as usize) {
            Some(Node { item: Some((oldest, _)), .. }) if full => oldest.len(),
            _ if full => return Parking::Refused(frame, context), // A bound of no frame at all.
            _ => 0,
        };
        let too_many_octets = frame.len() > self.max_bytes.saturating_sub(self.bytes - leaving);
        if too_many_octets || (!full && self.free == NONE) {
            return Parking::Refused(frame, context);
        }
        let dropped = if full { self.take_oldest(slot) } else { None };
        self.append(slot, frame, context);
        match dropped {
            Some((frame, context)) => Parking::ParkedDroppingOldest(frame, context),
            None => Parking::Parked,
        }
    }

    /// Takes the frame that has waited longest for the neighbour in `slot`.
    pub fn take_oldest(&mut self, slot: u32) -> Option<(Frame, T)> {
        let list = self.lists.get_mut(slot as usize)?;
        let index = list.oldest;
        let node = self.nodes.get_mut(index as usize)?;
        let (frame, context) = node.item.take()?;
        list.oldest = node.next;
        list.len -= 1;
        if list.oldest == NONE {
            list.youngest = NONE;
        }
        node.next = self.free;
        self.free = index;
        self.len -= 1;
        self.bytes -= frame.len();
        Some((frame, context))
    }

    /// Takes all frames that wait for the neighbour in `slot` and appends them to `out`, oldest first; says how many.
    pub fn release(&mut self, slot: u32, out: &mut Vec<(Frame, T)>) -> usize {
        let before = out.len();
        while let Some(item) = self.take_oldest(slot) {
            out.push(item);
        }
        out.len() - before
    }

    /// Frames waiting for all neighbours.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no frame waits.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Octets waiting for all neighbours.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Frames waiting for the neighbour in `slot`.
    pub fn waiting(&self, slot: u32) -> u32 {
        self.lists.get(slot as usize).map_or(0, |list| list.len)
    }

    fn append(&mut self, slot: u32, frame: Frame, context: T) {
        let index = self.free;
        let bytes = frame.len();
        let node = &mut self.nodes[index as usize];
        self.free = node.next;
        *node = Node { item: Some((frame, context)), next: NONE };
        let list = &mut self.lists[slot as usize];
        let youngest = core::mem::replace(&mut list.youngest, index);
        list.len += 1;
        if youngest == NONE {
            list.oldest = index;
        } else {
            self.nodes[youngest as usize].next = index;
        }
        self.len += 1;
        self.bytes += bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::FramePool;
    use alloc::collections::VecDeque;
    use proptest::prelude::*;

    const SLOTS: u32 = 3;

    fn limits(per_neighbor: u32, frames: u32, bytes: usize) -> Limits {
        Limits {
            neighbors: SLOTS,
            parked_per_neighbor: per_neighbor,
            parked: frames,
            parked_bytes: bytes,
            ..Limits::default()
        }
    }

    #[test]
    fn arp_3_the_latest_frames_are_saved_in_order() {
        let mut pool = FramePool::new();
        let mut parked = Parked::new(&limits(3, 10, 10_000));
        for id in 0..3 {
            assert!(matches!(parked.park(1, pool.take(60), id), Parking::Parked));
        }
        for id in 3..8 {
            let Parking::ParkedDroppingOldest(frame, old) = parked.park(1, pool.take(60), id) else {
                panic!("the oldest gives way");
            };
            assert_eq!((frame.len(), old), (60, id - 3));
        }
        let mut out = Vec::new();
        assert_eq!(parked.release(1, &mut out), 3);
        assert_eq!(out.iter().map(|x| x.1).collect::<Vec<_>>(), [5, 6, 7]);
        assert!(parked.is_empty());
        assert_eq!(parked.bytes(), 0);
    }

    #[test]
    fn one_neighbour_cannot_push_out_another() {
        let mut pool = FramePool::new();
        let mut parked = Parked::new(&limits(4, 4, 1000));
        for id in 0..4 {
            assert!(matches!(parked.park(0, pool.take(100), id), Parking::Parked));
        }
        assert!(matches!(parked.park(1, pool.take(100), 9), Parking::Refused(_, 9)));
        // A list that is full makes room for itself, but not in octets that others hold.
        assert!(matches!(parked.park(0, pool.take(701), 9), Parking::Refused(_, 9)));
        assert!(matches!(parked.park(0, pool.take(700), 9), Parking::ParkedDroppingOldest(_, 0)));
        assert_eq!((parked.len(), parked.bytes(), parked.waiting(0)), (4, 1000, 4));
    }

    #[test]
    fn bounds_of_nothing_refuse_everything() {
        let mut pool = FramePool::new();
        for limits in [limits(0, 4, 1000), limits(4, 0, 1000), limits(4, 4, 0)] {
            let mut parked = Parked::new(&limits);
            assert!(matches!(parked.park(0, pool.take(60), ()), Parking::Refused(..)));
            assert!(parked.take_oldest(0).is_none());
        }
        let mut parked = Parked::new(&limits(4, 4, 1000));
        assert!(matches!(parked.park(SLOTS, pool.take(60), ()), Parking::Refused(..)));
        assert!(parked.take_oldest(SLOTS).is_none());
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Park(u32, usize),
        TakeOldest(u32),
        Release(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            8 => (0..SLOTS, 1usize..300).prop_map(|(slot, len)| Step::Park(slot, len)),
            1 => (0..SLOTS).prop_map(Step::TakeOldest),
            1 => (0..SLOTS).prop_map(Step::Release),
        ]
    }

    proptest! {
        #[test]
        fn behaves_like_queues_and_gives_everything_back_once(steps in proptest::collection::vec(step(), 0..200)) {
            const PER: usize = 4;
            const FRAMES: usize = 6;
            const BYTES: usize = 900;
            let mut pool = FramePool::new();
            let mut parked = Parked::new(&limits(4, 6, BYTES));
            let mut model = [const { VecDeque::<(usize, usize)>::new() }; SLOTS as usize];
            let mut back = Vec::new();
            let mut out = Vec::with_capacity(FRAMES);
            let mut given = 0usize;
            for step in steps {
                let frames: usize = model.iter().map(VecDeque::len).sum();
                let bytes: usize = model.iter().flatten().map(|x| x.1).sum();
                match step {
                    Step::Park(slot, len) => {
                        let id = given;
                        given += 1;
                        let queue = &mut model[slot as usize];
                        let gives_way = (queue.len() == PER).then(|| queue[0]);
                        let room_frames = frames - usize::from(gives_way.is_some()) < FRAMES;
                        let room_bytes = bytes - gives_way.map_or(0, |x| x.1) + len <= BYTES;
                        match parked.park(slot, pool.take(len), id) {
                            Parking::Parked => {
                                prop_assert!(room_frames && room_bytes && gives_way.is_none());
                                queue.push_back((id, len));
                            }
                            Parking::ParkedDroppingOldest(frame, old) => {
                                prop_assert!(room_frames && room_bytes);
                                prop_assert_eq!(gives_way, Some((old, frame.len())));
                                queue.pop_front();
                                queue.push_back((id, len));
                                back.push(old);
                                pool.recycle(frame);
                            }
                            Parking::Refused(frame, refused) => {
                                prop_assert!(!(room_frames && room_bytes));
                                prop_assert_eq!((refused, frame.len()), (id, len));
                                back.push(refused);
                                pool.recycle(frame);
                            }
                        }
                    }
                    Step::TakeOldest(slot) => {
                        let taken = parked.take_oldest(slot).map(|(frame, id)| (id, frame.len()));
                        prop_assert_eq!(taken, model[slot as usize].pop_front());
                        back.extend(taken.map(|x| x.0));
                    }
                    Step::Release(slot) => {
                        prop_assert_eq!(parked.release(slot, &mut out), model[slot as usize].len());
                        for (frame, id) in out.drain(..) {
                            prop_assert_eq!(model[slot as usize].pop_front(), Some((id, frame.len())));
                            back.push(id);
                            pool.recycle(frame);
                        }
                    }
                }
                prop_assert_eq!(parked.len(), model.iter().map(VecDeque::len).sum::<usize>());
                prop_assert_eq!(parked.bytes(), model.iter().flatten().map(|x| x.1).sum::<usize>());
                prop_assert!(parked.len() <= FRAMES && parked.bytes() <= BYTES);
            }
            for slot in 0..SLOTS {
                parked.release(slot, &mut out);
            }
            back.extend(out.drain(..).map(|x| x.1));
            back.sort_unstable();
            prop_assert_eq!(back, (0..given).collect::<Vec<_>>());
        }
    }
}
