//! What services do not take and policies forbid: told to its sender, or dropped without a word.

use alloc::format;
use alloc::string::String;
use core::net::IpAddr;
use core::time::Duration;

use lb::Refusal;

use super::Switch;
use super::admit::Arrival;
use super::commit::is_news;
use super::connections::{Denial, Tracked};
use super::explain::{Recorder, Stage};
use super::layer3::Layer3;
use super::slow::{Answer, Decision};
use crate::config::Snapshot;
use crate::emit::IcmpError;
use crate::event::Event;
use crate::icmp::Occasion;
use crate::parse::Transport;
use crate::verdict::DropReason;

/// Why services do not take packets, as far as it is told.
pub(super) const DENIALS: [DropReason; 4] = [
    DropReason::ServiceNoBackend,
    DropReason::ServiceSourceRange,
    DropReason::ServiceAddressFree,
    DropReason::ServicePortClosed,
];

impl Switch {
    /// Tells that services do not take a packet, unless that has just been told.
    pub(super) fn tell_denial(&mut self, now: Duration, arrival: &Arrival<'_>, reason: DropReason) {
        let which = DENIALS.iter().position(|denial| *denial == reason);
        let told = which.and_then(|which| self.denials_told.get_mut(which));
        let Some((told, ip)) = told.zip(arrival.ip()) else { return };
        if is_news(now, told) {
            let port = match ip.transport {
                Transport::Tcp { destination_port, .. }
                | Transport::Udp { destination_port, .. }
                | Transport::Sctp { destination_port, .. } => destination_port,
                Transport::Icmp { .. } | Transport::Opaque => 0,
            };
            let (source, destination) = (ip.source, ip.destination);
            self.event(Event::ServiceRefused { reason, source, destination, port });
        }
    }

    /// Why a packet goes no further because of services: the one that it asks for does not take it, or it is for an address
    /// that is given to services alone and goes nowhere else. Or a policy forbids its connection.
    pub(super) fn denial(
        &self,
        snapshot: &Snapshot,
        arrival: &Arrival<'_>,
        tracked: &Tracked,
        destination: IpAddr,
        redirected: bool,
    ) -> Option<Denial> {
        if let Some(denial) = tracked.denial() {
            return Some(denial);
        }
        let (services, gateway) = snapshot.services().zip(arrival.segment.gateway())?;
        let is_own = || self.own(snapshot, arrival.segment, gateway, destination).is_some();
        if redirected || !services.is_reserved(destination) || is_own() {
            return None;
        }
        let (reason, how) = match services.registry().has_address(destination) {
            true => (DropReason::ServicePortClosed, Refusal::Reject),
            false => (DropReason::ServiceAddressFree, Refusal::Drop),
        };
        Some(Denial { reason, how, mark: None, judgement: None })
    }
}

impl Layer3<'_> {
    /// A packet that services do not take, or that policies forbid. Who is told is told at once, as by a host where nobody listens.
    pub(super) fn deny<R: Recorder>(&self, denial: &Denial, recorder: &mut R) -> Decision {
        match denial.judgement.zip(self.snapshot.policies()) {
            Some((judgement, policies)) => recorder.step(Stage::Policy, || policies.describe(&judgement)),
            None => recorder.step(Stage::Service, || self.words(denial)),
        }
        let answer = match denial.how {
            Refusal::Drop => None,
            Refusal::Reject if !self.is_intact() => return self.drop(DropReason::TransportChecksum, None),
            Refusal::Reject => match self.ip.transport {
                Transport::Tcp { .. } => self.may_answer(Occasion::Other).then_some(Answer::Reset),
                Transport::Udp { .. }
                | Transport::Icmp { .. }
                | Transport::Sctp { .. }
                | Transport::Opaque => self.error(IcmpError::PortUnreachable),
            },
        };
        self.drop(denial.reason, answer)
    }

    fn words(&self, denial: &Denial) -> String {
        // The mark is the balancer's, whose registry may have come to the same services by another line of changes.
        let registry = self.switch.balancer().map(|balancer| balancer.registry());
        let service = registry.zip(denial.mark).and_then(|(registry, mark)| registry.of(mark));
        let how = match denial.how {
            Refusal::Reject => "rejected",
            Refusal::Drop => "dropped",
        };
        let why = denial.reason.describe().trim();
        match service {
            Some(service) => format!("{}: {how}. {why}", service.name),
            None => format!("{how}. {why}"),
        }
    }
}
