//! What a packet is to the connections there are, and how it goes on.

use alloc::format;
use alloc::string::String;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use lb::{Mark, Refusal};
use nat::connection::ConnectionId;
use nat::packet::Packet;
use nat::rule::Way;
use nat::translate::Rewrite;
use nat::tuple::{Address, Direction};
use nat::{New, Prepared, Towards};

use super::Connections;
use super::family::Family;
use super::service::{Balancing, Judged};
use crate::addr::{PortId, SegmentId};
use crate::flow::cache::Cache;
use crate::flow::glance::{self, PacketKey};
use crate::flow::{Change, Translation};
use crate::frame::Frame;
use crate::policy::Judgement;
use crate::switch::explain::{Recorder, Stage};
use crate::switch::flows::{Caches, Through};
use crate::verdict::DropReason;

/// A fragment that waits for the first of its datagram, and where it came from.
#[derive(Debug)]
pub(in crate::switch) struct Held {
    pub(in crate::switch) frame: Frame,
    pub(in crate::switch) port: PortId,
    pub(in crate::switch) segment: SegmentId,
}

/// What the later fragments of a datagram are told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(in crate::switch) struct Verdict<A> {
    pub(super) rewrite: Option<Rewrite<A>>,
    pub(super) identification: Option<u16>,
}

/// What was said of the first fragment, if it is a later one; or why it goes no further.
pub(in crate::switch) type Taken<A> = Result<Option<Verdict<A>>, DropReason>;

/// What a frame is to the connections there are.
#[derive(Clone, Copy, Debug)]
pub(in crate::switch) enum Tracked {
    /// Nothing: no packet, or one that is not tracked here.
    Not,
    V4(Seen<Ipv4Addr>),
    V6(Seen<Ipv6Addr>),
}

/// A packet that was tracked.
#[derive(Clone, Copy, Debug)]
pub(in crate::switch) struct Seen<A> {
    pub(in crate::switch) packet: Packet,
    pub(in crate::switch) what: What<A>,
}

/// What a packet is to the connections there are.
#[derive(Clone, Copy, Debug)]
pub(in crate::switch) enum What<A> {
    /// Of this connection.
    Known { id: ConnectionId, direction: Direction, rewrite: Option<Rewrite<A>> },
    /// An error about a packet of this one, and where it is to come from.
    Related { id: ConnectionId, rewrite: Option<Rewrite<A>>, source: A },
    /// The first of a connection that does not exist yet, and where a service, a rule or a mapping sends it.
    Opens { new: New<A>, towards: Towards<A>, judged: Judged },
    /// One that goes no further, because of the service that it asks for or of a policy.
    Denied(Denial),
    /// A fragment other than the first, which was told what the first was.
    Later(Verdict<A>),
    /// A fragment that would wait for the first.
    Waits,
    /// Of a kind that has no connections.
    Untracked,
}

/// Why a service or a policy does not take a packet, and what its sender is told.
#[derive(Clone, Copy, Debug)]
pub(in crate::switch) struct Denial {
    pub(in crate::switch) reason: DropReason,
    pub(in crate::switch) how: Refusal,
    /// Of which service.
    pub(in crate::switch) mark: Option<Mark>,
    /// What policies said, if they were who denied it.
    pub(in crate::switch) judgement: Option<Judgement>,
}

/// How a packet goes on.
#[derive(Clone, Copy, Debug)]
pub(in crate::switch) enum Passage {
    /// As it came.
    Plain,
    V4(Going<Ipv4Addr>),
    V6(Going<Ipv6Addr>),
}

#[derive(Clone, Copy, Debug)]
pub(in crate::switch) enum Going<A> {
    Translated(Change<A>),
    /// It begins a connection.
    Opens(Opening<A>),
}

/// A connection that is about to begin.
#[derive(Clone, Copy, Debug)]
pub(in crate::switch) struct Opening<A> {
    pub(super) towards: Towards<A>,
    pub(super) judged: Judged,
    pub(super) way: Way,
    pub(super) prepared: Prepared<A>,
}

/// The families, so that everything else is written once.
pub(in crate::switch) trait Kind: Address + glance::Family {
    fn flows_mut(flows: &mut Caches) -> &mut Cache<PacketKey<Self>, Through<Self>>;
    fn of(connections: &Connections) -> &Family<Self>;
    fn of_mut(connections: &mut Connections) -> &mut Family<Self>;
    /// The family and what it has in common with the other one.
    fn parts(connections: &mut Connections) -> (&mut Family<Self>, &mut Balancing);
    fn tracked(seen: Seen<Self>) -> Tracked;
    fn passage(going: Going<Self>) -> Passage;
    fn translation(change: Change<Self>) -> Translation;
}

macro_rules! kind {
    ($address:ty, $field:ident, $variant:ident) => {
        impl Kind for $address {
            fn flows_mut(flows: &mut Caches) -> &mut Cache<PacketKey<Self>, Through<Self>> {
                &mut flows.$field
            }
            fn of(connections: &Connections) -> &Family<Self> {
                &connections.$field
            }
            fn of_mut(connections: &mut Connections) -> &mut Family<Self> {
                &mut connections.$field
            }
            fn parts(connections: &mut Connections) -> (&mut Family<Self>, &mut Balancing) {
                (&mut connections.$field, &mut connections.balancing)
            }
            fn tracked(seen: Seen<Self>) -> Tracked {
                Tracked::$variant(seen)
            }
            fn passage(going: Going<Self>) -> Passage {
                Passage::$variant(going)
            }
            fn translation(change: Change<Self>) -> Translation {
                Translation::$variant(change)
            }
        }
    };
}
kind!(Ipv4Addr, v4, V4);
kind!(Ipv6Addr, v6, V6);

impl Tracked {
    /// Where the packet goes if that is not where it says.
    pub(in crate::switch) fn destination(&self) -> Option<IpAddr> {
        match self {
            Self::Not => None,
            Self::V4(seen) => seen.destination().map(IpAddr::V4),
            Self::V6(seen) => seen.destination().map(IpAddr::V6),
        }
    }

    /// Whether it is a fragment that would wait for the first of its datagram.
    pub(in crate::switch) fn waits(&self) -> bool {
        match self {
            Self::Not => false,
            Self::V4(seen) => matches!(seen.what, What::Waits),
            Self::V6(seen) => matches!(seen.what, What::Waits),
        }
    }

    /// Why a service or a policy does not take it, if it was asked and does not.
    pub(in crate::switch) fn denial(&self) -> Option<Denial> {
        match self {
            Self::Not => None,
            Self::V4(seen) => seen.denial(),
            Self::V6(seen) => seen.denial(),
        }
    }

    /// Whether it is of a connection, or may be, so that policies have been asked about it.
    pub(in crate::switch) fn is_judged(&self) -> bool {
        match self {
            Self::Not => false,
            Self::V4(seen) => !matches!(seen.what, What::Untracked),
            Self::V6(seen) => !matches!(seen.what, What::Untracked),
        }
    }

    pub(in crate::switch) fn packet(&self) -> Option<&Packet> {
        match self {
            Self::Not => None,
            Self::V4(seen) => Some(&seen.packet),
            Self::V6(seen) => Some(&seen.packet),
        }
    }
}

impl<A: Address> Seen<A> {
    /// The connection that the next packets of its flow are of too, and how they leave; none if they have to be tracked like
    /// this one.
    pub(in crate::switch) fn known(&self) -> Option<(ConnectionId, Direction, Option<Rewrite<A>>)> {
        match self.what {
            What::Known { id, direction, rewrite } => Some((id, direction, rewrite)),
            What::Related { .. }
            | What::Opens { .. }
            | What::Denied(_)
            | What::Later(_)
            | What::Waits
            | What::Untracked => None,
        }
    }

    fn denial(&self) -> Option<Denial> {
        match self.what {
            What::Denied(denial) => Some(denial),
            What::Known { .. }
            | What::Related { .. }
            | What::Opens { .. }
            | What::Later(_)
            | What::Waits
            | What::Untracked => None,
        }
    }

    fn destination(&self) -> Option<A> {
        match self.what {
            What::Known { rewrite, .. } | What::Related { rewrite, .. } => {
                rewrite.map(|rewrite| rewrite.destination().address)
            }
            What::Opens { towards, .. } => towards.destination.map(|endpoint| endpoint.address),
            What::Later(verdict) => verdict.rewrite.map(|rewrite| rewrite.destination().address),
            What::Denied(_) | What::Waits | What::Untracked => None,
        }
    }
}

impl Passage {
    /// What is to be written into the packet, as far as is known before it leaves.
    pub(in crate::switch) fn translation(&self) -> Option<Translation> {
        match self {
            Self::Plain => None,
            Self::V4(going) => going.change().map(Kind::translation),
            Self::V6(going) => going.change().map(Kind::translation),
        }
    }

    /// Puts it into words, if there is anything to tell.
    pub(in crate::switch) fn record<R: Recorder>(&self, recorder: &mut R) {
        match self.translation() {
            Some(Translation::V4(change)) => recorder.step(Stage::Translate, || words(&change)),
            Some(Translation::V6(change)) => recorder.step(Stage::Translate, || words(&change)),
            None => {}
        }
    }

    /// Whether a connection is to begin.
    pub(in crate::switch) const fn opens(&self) -> bool {
        matches!(self, Self::V4(Going::Opens(_)) | Self::V6(Going::Opens(_)))
    }
}

impl<A: Address> Going<A> {
    fn change(&self) -> Option<Change<A>> {
        match self {
            Self::Translated(change) => Some(*change),
            Self::Opens(opening) => opening.prepared.rewrite().map(Change::of),
        }
    }
}

fn words<A: Address>(change: &Change<A>) -> String {
    let Change { rewrite, error_from, .. } = change;
    match error_from {
        Some(source) => format!(
            "leaves from {source:?} to {:?}, with the quoted packet as its sender knows it",
            rewrite.destination().address
        ),
        None => format!("leaves as {} > {}", rewrite.source().to_socket(), rewrite.destination().to_socket()),
    }
}
