//! Connections in TIME-WAIT, in the order in which they came into it.

use alloc::boxed::Box;
use alloc::collections::VecDeque;

use smoltcp::socket::tcp::State;

use super::flow::{Flow, Tuple};
use super::table::{Handle, Table};

/// So many are looked at for one that can go.
const LOOKED_AT: usize = 16;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Lingering(VecDeque<Handle>);

impl Lingering {
    pub(super) fn push(&mut self, handle: Handle) {
        self.0.push_back(handle);
    }

    /// The one that has been in it for longest and that nobody wants anything of. What it still keeps away has hardly ever
    /// come by then: Linux, too, lets such go beyond `tcp_max_tw_buckets`.
    pub(super) fn oldest(&mut self, flows: &mut Table<Tuple, Box<Flow>>) -> Option<u32> {
        for _ in 0..self.0.len().min(LOOKED_AT) {
            let handle = self.0.pop_front()?;
            match flows.of(handle).filter(|flow| flow.state() == State::TimeWait) {
                Some(flow) if flow.released => return Some(handle.slot),
                Some(_) => self.0.push_back(handle),
                None => {}
            }
        }
        None
    }

    /// Forgets those that are gone, if they are many.
    pub(super) fn sweep(&mut self, flows: &Table<Tuple, Box<Flow>>, most: usize) {
        if self.0.len() > most {
            self.0.retain(|&handle| flows.live(handle).is_some());
        }
    }
}
