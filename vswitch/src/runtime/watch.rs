//! Noticing what ends underneath: a pod whose first process is gone, and the helper itself.
//!
//! # Theory of operation
//! A TAP reports that its network namespace is gone, but a namespace outlives the pod's processes while it has a name
//! or a stranger in it. So the first process of each pod is looked at as well: its network namespace in `/proc` is the
//! one that was made, or the pod has ended. What is left of an ended pod is then removed, so that it looks the same
//! whatever way it went: no process, no name, no device, and a port that is `gone`. A helper that has ended has taken
//! all pods along; what it could not remove any more is reclaimed at once.
//!
//! Nothing here waits: the helper's end is seen on its socket, and a look that finds another one at work goes without.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use netstack::addr::PortId;

use super::{Placed, Runtime};
use crate::cluster::Place;
use crate::helper::{Helper, Namespace};

/// An end that is news: the switch where it shows, and a sentence.
pub(super) type End = (String, String);

impl Runtime {
    /// Looks after every pod and the helper, and removes what is left of those that have ended.
    pub(super) fn notice_ends(&self) -> Vec<End> {
        // Pods first: when they ended because the helper did, the helper is seen to have ended too.
        let ended: Vec<Arc<Placed>> =
            self.all_placed().into_iter().filter(|p| self.has_just_ended(p)).collect();
        let Some(mut guard) = self.helper.try_lock() else { return Vec::new() };
        let Some(helper) = guard.as_mut() else { return Vec::new() };
        if helper.has_ended() {
            let helper = guard.take();
            drop(guard);
            return self.bury_all(helper);
        }
        ended.iter().filter_map(|placed| self.bury(helper, placed)).collect()
    }

    fn has_just_ended(&self, placed: &Placed) -> bool {
        placed.namespace.as_ref().is_some_and(|namespace| !is_held(namespace))
            && !self.log.lock().ended.contains(&placed.endpoint.place)
    }

    /// Removes what is left of one pod.
    fn bury(&self, helper: &mut Helper, placed: &Placed) -> Option<End> {
        let place = &placed.endpoint.place;
        let known = self.mark_ended(placed);
        let mut text = format!("{place} has ended: its first process is gone");
        if placed.endpoint.shares.is_none() {
            text.push_str("; its port carries nothing any more");
        }
        match placed.namespace.as_ref().map(|namespace| helper.delete(&namespace.name)) {
            None => {}
            Some(Ok(problems)) => {
                for problem in problems {
                    text.push_str("; left behind: ");
                    text.push_str(&problem);
                }
            }
            Some(Err(error)) => text.push_str(&format!("; it could not be cleared up: {error}")),
        }
        // That its device is gone has been told before.
        (!known).then(|| (placed.endpoint.attachment.switch.clone(), text))
    }

    /// Removes what is left of the helper, which has taken all pods along.
    fn bury_all(&self, helper: Option<Helper>) -> Vec<End> {
        // Collects the process; that it is gone is known.
        drop(helper.map(Helper::shutdown));
        for placed in self.all_placed().iter().filter(|p| p.namespace.is_some()) {
            self.mark_ended(placed);
        }
        let mut text = "the helper has ended, and every pod with it; `vswitch down` ends the rest".to_owned();
        for problem in self.reclaim() {
            text.push_str("; ");
            text.push_str(&problem);
        }
        vec![("vswitch".to_owned(), text)]
    }

    /// Removes what a helper that was killed left behind; returns what could not be removed.
    pub(super) fn reclaim(&self) -> Vec<String> {
        match Helper::reclaim(&self.state) {
            Ok(reclaimed) => reclaimed.problems,
            Err(error) => vec![error.to_string()],
        }
    }

    /// Takes the device off the port of a place that has ended; whether its end was known already.
    fn mark_ended(&self, placed: &Placed) -> bool {
        let (place, attachment) = (placed.endpoint.place.clone(), &placed.endpoint.attachment);
        if placed.endpoint.shares.is_some() {
            return !self.log.lock().ended.insert(place);
        }
        let key: (String, PortId) = (attachment.switch.clone(), attachment.port);
        if let Some(&engine) = self.switches().get(&attachment.switch) {
            let port = attachment.port;
            // When the data path has stopped there is no device either.
            let _ = self.paths.call(engine.thread, move |driver| drop(driver.detach(engine.id, port)));
        }
        let mut log = self.log.lock();
        log.ended.insert(place);
        !log.gone.insert(key)
    }
}

/// Whether the pod's first process still holds the network namespace that was made for it.
fn is_held(namespace: &Namespace) -> bool {
    let path = format!("/proc/{}/ns/net", namespace.pause_pid);
    fs::metadata(path).is_ok_and(|metadata| metadata.ino() == namespace.netns_inode)
}

/// Places whose end has been noticed.
pub(super) type Ended = std::collections::BTreeSet<Place>;
