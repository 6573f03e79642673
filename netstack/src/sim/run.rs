//! How a laboratory moves: the agenda, a step, and runs of steps with the invariants held after each.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::{Ordering, Reverse};
use core::time::Duration;

use super::{Incident, Lab, LabError, Side, Violation};
use crate::addr::PortId;
use crate::device::fault::Offered;
use crate::frame::{Frame, FrameBatch};
use crate::parse::Summary;

/// Steps that may be taken without time passing.
pub const MAX_STEPS_AT_ONCE: u64 = 1 << 22;

/// What is to happen.
#[derive(Debug)]
pub(super) enum What {
    /// A frame arrives at the other end of a link.
    Arrival { cable: usize, from: Side },
    /// A timer of a node may be due.
    Timer { node: usize },
    /// A frame that was put in by hand arrives.
    Injection { node: usize, port: PortId, frame: Frame },
}

/// An entry of the agenda.
#[derive(Debug)]
pub(super) struct Event {
    at: Duration,
    entry: u64,
    what: What,
}

impl Event {
    fn key(&self) -> (Duration, u64) {
        (self.at, self.entry)
    }
}

impl Ord for Event {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialOrd for Event {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Event {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for Event {}

impl Lab {
    /// Lets the next thing happen. Returns false when nothing ever will again unless the owner does something.
    ///
    /// # Errors
    /// [`LabError::Violation`], [`LabError::Stuck`].
    pub fn step(&mut self) -> Result<bool, LabError> {
        self.settle()?;
        self.advance(Duration::MAX)
    }

    /// Runs for `time` and leaves the clock there.
    ///
    /// # Errors
    /// [`LabError::Violation`], [`LabError::Stuck`].
    pub fn run_for(&mut self, time: Duration) -> Result<(), LabError> {
        self.run_until(self.now.saturating_add(time), |_| false).map(drop)
    }

    /// Runs until `done` says so, which is asked at the start, after each step and at `deadline`, where the run ends.
    /// Returns whether it was done; if not, the clock stands at `deadline`. `done` may use hosts and switches: what they then have to send is
    /// sent before the next step.
    ///
    /// # Errors
    /// [`LabError::Violation`], [`LabError::Stuck`].
    pub fn run_until(
        &mut self,
        deadline: Duration,
        mut done: impl FnMut(&mut Self) -> bool,
    ) -> Result<bool, LabError> {
        loop {
            self.settle()?;
            if done(self) {
                break;
            }
            self.settle()?;
            if !self.advance(deadline)? {
                if deadline < Duration::MAX {
                    self.now = self.now.max(deadline);
                }
                self.check()?;
                let late = done(self);
                self.settle()?;
                return Ok(late);
            }
        }
        self.settle()?;
        self.check()?;
        Ok(true)
    }

    /// Runs until nothing is under way and no timer is set, which is long after the last frame: connections have left
    /// TIME-WAIT and bridges have forgotten what they learned. Returns the number of steps.
    ///
    /// # Errors
    /// [`LabError::NotIdle`] if that takes more than `max_steps`; [`LabError::Violation`], [`LabError::Stuck`].
    pub fn run_until_idle(&mut self, max_steps: u64) -> Result<u64, LabError> {
        let begin = self.steps;
        loop {
            self.settle()?;
            let steps = self.steps - begin;
            if steps >= max_steps && !self.is_idle() {
                let timers = self.nodes.iter().filter(|n| n.engine.poll_timeout().is_some()).count();
                return Err(LabError::NotIdle { steps, at: self.now, in_flight: self.in_flight(), timers });
            }
            if !self.advance(Duration::MAX)? {
                self.check()?;
                return Ok(self.steps - begin);
            }
        }
    }

    /// Whether nothing will happen unless the owner does something.
    pub fn is_idle(&self) -> bool {
        let injected = self.agenda.iter().any(|Reverse(event)| matches!(event.what, What::Injection { .. }));
        !injected
            && self.touched.is_empty()
            && self.in_flight() == 0
            && self.nodes.iter().all(|node| node.engine.poll_timeout().is_none())
    }

    /// Whether every frame everywhere is accounted for at this moment, by switches, hosts and lines, each by itself and
    /// all together.
    ///
    /// # Errors
    /// The first [`LabError::Violation`] found.
    pub fn check(&self) -> Result<(), LabError> {
        let mut arrivals = vec![[0; 2]; self.cables.len()];
        for Reverse(event) in &self.agenda {
            if let What::Arrival { cable, from } = event.what {
                arrivals[cable][from.index()] += 1;
            }
        }
        // Received from lines and sent to lines, by node.
        let mut totals: Vec<(u64, u64)> =
            self.nodes.iter().map(|node| (node.injected, node.unplugged.values().sum())).collect();
        for (id, cable) in self.cables.iter().enumerate() {
            for side in [Side::First, Side::Second] {
                self.check_line(id, side)?;
                let line = &cable.lines[side.index()];
                let expected = arrivals[id][side.index()];
                if cable.plugged && line.in_flight() != expected {
                    let text = format!("{} frames under way, {expected} to arrive", line.in_flight());
                    return Err(self.violation(self.line_name(id, side), text));
                }
                totals[cable.ends[side.index()].place().0].1 += line.counters().offered;
                totals[cable.ends[side.other().index()].place().0].0 += line.counters().delivered;
            }
        }
        for (id, node) in self.nodes.iter().enumerate() {
            self.check_node(id)?;
            let (received, sent) = node.engine.totals();
            if totals[id] != (received, sent) {
                let (delivered, offered) = totals[id];
                let text = format!(
                    "received {received} and sent {sent} frames, but was given {delivered}, and {offered} were taken"
                );
                return Err(self.violation(node.name.clone(), text));
            }
        }
        Ok(())
    }

    fn check_node(&self, node: usize) -> Result<(), LabError> {
        let node = &self.nodes[node];
        node.engine.check().map_err(|text| self.violation(node.name.clone(), text))
    }

    fn check_line(&self, cable: usize, from: Side) -> Result<(), LabError> {
        let line = &self.cables[cable].lines[from.index()];
        line.check().map_err(|text| self.violation(self.line_name(cable, from), text))
    }

    fn line_name(&self, cable: usize, from: Side) -> String {
        let ends = &self.cables[cable].ends;
        let name = |side: Side| {
            let (node, port) = ends[side.index()].place();
            format!("{} {port}", self.nodes[node].name)
        };
        format!("link {cable} from {} to {}", name(from), name(from.other()))
    }

    fn violation(&self, culprit: String, what: String) -> LabError {
        LabError::Violation(Box::new(Violation {
            culprit,
            what,
            step: self.steps,
            at: self.now,
            seed: self.seed,
        }))
    }

    /// Puts something on the agenda.
    pub(super) fn enter(&mut self, at: Duration, what: What) {
        self.agenda.push(Reverse(Event { at, entry: self.entries, what }));
        self.entries += 1;
    }

    /// Takes the first entry that changes something and is not after `until`; returns whether there was one.
    fn advance(&mut self, until: Duration) -> Result<bool, LabError> {
        loop {
            match self.agenda.peek() {
                Some(Reverse(event)) if event.at <= until => {}
                Some(_) | None => return Ok(false),
            }
            let Some(Reverse(event)) = self.agenda.pop() else { return Ok(false) };
            if self.perform(event)? {
                return Ok(true);
            }
        }
    }

    fn perform(&mut self, event: Event) -> Result<bool, LabError> {
        let at = event.at;
        match event.what {
            What::Arrival { cable, from } => {
                let Some(frame) = self.cables[cable].lines[from.index()].take(at) else {
                    // It was cut off, or else somebody has to answer for it.
                    return self.check_line(cable, from).map(|()| false);
                };
                let (node, port) = self.cables[cable].ends[from.other().index()].place();
                self.begin(at, node)?;
                self.log.note(self.steps, at, || Incident::Arrived {
                    at: node,
                    frame: Summary::of(frame.bytes()),
                });
                self.observe(cable, from, true, &frame);
                self.hand_over(node, port, frame);
                self.check_line(cable, from)?;
                self.turn(node)?;
            }
            What::Timer { node } => {
                let state = &mut self.nodes[node];
                if state.armed == Some(at) {
                    state.armed = None;
                }
                if state.engine.poll_timeout().is_none_or(|due| due > at) {
                    self.arm(node);
                    return Ok(false);
                }
                self.begin(at, node)?;
                self.log.note(self.steps, at, || Incident::Timeout { at: node });
                self.nodes[node].engine.handle_timeout(at);
                self.turn(node)?;
            }
            What::Injection { node, port, frame } => {
                self.begin(at, node)?;
                self.log.note(self.steps, at, || Incident::Injected {
                    at: node,
                    frame: Summary::of(frame.bytes()),
                });
                self.nodes[node].injected += 1;
                self.hand_over(node, port, frame);
                self.turn(node)?;
            }
        }
        Ok(true)
    }

    /// Counts a step at `at`, which moves the clock there.
    fn begin(&mut self, at: Duration, node: usize) -> Result<(), LabError> {
        self.steps += 1;
        self.last = Some(node);
        self.steps_at_once = if at > self.now { 0 } else { self.steps_at_once + 1 };
        self.now = self.now.max(at);
        if self.steps_at_once < MAX_STEPS_AT_ONCE {
            return Ok(());
        }
        let culprit = self.nodes[node].name.clone();
        Err(LabError::Stuck { at, steps: self.steps_at_once, culprit })
    }

    fn hand_over(&mut self, node: usize, port: PortId, frame: Frame) {
        let mut batch = self.batch.take().unwrap_or_default();
        let refused = batch.push(frame);
        debug_assert!(refused.is_ok(), "the batch was empty");
        self.nodes[node].engine.handle_frames(self.now, port, &mut batch);
        self.batch = Some(batch);
    }

    /// Lets what the owner has had hold of send what it has to send.
    fn settle(&mut self) -> Result<(), LabError> {
        while let Some(node) = self.touched.pop() {
            self.nodes[node].touched = false;
            self.turn(node)?;
        }
        Ok(())
    }

    /// After something happened at a node: takes what it sends, notes when it wants to be woken, and holds it to its
    /// accounts.
    fn turn(&mut self, node: usize) -> Result<(), LabError> {
        self.pump(node)?;
        self.arm(node);
        self.check_node(node)?;
        let plugs = &self.nodes[node].plugs;
        plugs.values().try_for_each(|&(cable, side)| self.check_line(cable, side))
    }

    fn pump(&mut self, node: usize) -> Result<(), LabError> {
        let mut batch: FrameBatch = self.batch.take().unwrap_or_default();
        while let Some(port) = self.nodes[node].engine.poll_transmit(&mut batch) {
            for frame in batch.drain() {
                let state = &self.nodes[node];
                if let Err(text) = state.engine.check_fit(port, &frame) {
                    return Err(self.violation(state.name.clone(), text));
                }
                self.send(node, port, frame);
            }
        }
        self.batch = Some(batch);
        Ok(())
    }

    /// Puts a frame on the link at a port.
    fn send(&mut self, node: usize, port: PortId, frame: Frame) {
        let Some(&(cable, side)) = self.nodes[node].plugs.get(&port) else {
            *self.nodes[node].unplugged.entry(port).or_default() += 1;
            self.log.note(self.steps, self.now, || Incident::Unplugged {
                from: node,
                frame: Summary::of(frame.bytes()),
            });
            self.pool.recycle(frame);
            return;
        };
        self.observe(cable, side, false, &frame);
        let summary = self.log.is_on().then(|| Summary::of(frame.bytes()));
        let cable_state = &mut self.cables[cable];
        let to = cable_state.ends[side.other().index()].place().0;
        let became = cable_state.lines[side.index()].offer(self.now, frame, &mut self.pool);
        if let Some(frame) = summary {
            self.log.note(self.steps, self.now, || Incident::Sent { from: node, to, frame, became });
        }
        if let Offered::Carried { due, copy_due, .. } = became {
            for due in core::iter::once(due).chain(copy_due) {
                self.enter(due, What::Arrival { cable, from: side });
            }
        }
    }

    /// Sees to it that the agenda has an entry no later than the node wants to be woken.
    fn arm(&mut self, node: usize) {
        let state = &mut self.nodes[node];
        let Some(due) = state.engine.poll_timeout().map(|due| due.max(self.now)) else { return };
        if state.armed.is_none_or(|armed| due < armed) {
            state.armed = Some(due);
            self.enter(due, What::Timer { node });
        }
    }
}
