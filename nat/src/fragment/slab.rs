//! Places for values, all there from the beginning.

use alloc::vec::Vec;

/// No place.
pub(super) const NONE: u32 = u32::MAX;

/// Up to a fixed number of values, each at a place that it keeps.
#[derive(Debug)]
pub(super) struct Slab<T> {
    places: Vec<Place<T>>,
    free: u32,
    taken: usize,
}

#[derive(Debug)]
enum Place<T> {
    Taken(T),
    /// And the next free one.
    Free(u32),
}

impl<T> Slab<T> {
    pub(super) fn new(capacity: u32) -> Self {
        let next = |place| if place + 1 < capacity { place + 1 } else { NONE };
        let free = if capacity == 0 { NONE } else { 0 };
        Self { places: (0..capacity).map(|place| Place::Free(next(place))).collect(), free, taken: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.taken
    }

    pub(super) fn is_full(&self) -> bool {
        self.free == NONE
    }

    /// The place the value got, or the value back if all are taken.
    pub(super) fn insert(&mut self, value: T) -> Result<u32, T> {
        let at = self.free;
        match self.places.get_mut(at as usize) {
            Some(place) => {
                if let Place::Free(next) = *place {
                    self.free = next;
                }
                *place = Place::Taken(value);
                self.taken += 1;
                Ok(at)
            }
            None => Err(value),
        }
    }

    pub(super) fn remove(&mut self, at: u32) -> Option<T> {
        let place = self.places.get_mut(at as usize).filter(|place| matches!(place, Place::Taken(_)))?;
        let Place::Taken(value) = core::mem::replace(place, Place::Free(self.free)) else { return None };
        self.free = at;
        self.taken -= 1;
        Some(value)
    }

    pub(super) fn get(&self, at: u32) -> Option<&T> {
        match self.places.get(at as usize)? {
            Place::Taken(value) => Some(value),
            Place::Free(_) => None,
        }
    }

    pub(super) fn get_mut(&mut self, at: u32) -> Option<&mut T> {
        match self.places.get_mut(at as usize)? {
            Place::Taken(value) => Some(value),
            Place::Free(_) => None,
        }
    }
}
