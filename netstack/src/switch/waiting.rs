//! Frames that wait for a neighbour.

use super::connections::Passage;
use super::slow::Route;
use crate::addr::{PortId, SegmentId};
use crate::flow::Plan;

/// What a parked frame needs to go on.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) ingress: PortId,
    pub(super) ingress_segment: SegmentId,
    pub(super) egress: SegmentId,
    pub(super) plan: Plan,
    pub(super) passage: Passage,
    pub(super) fragment: Option<u16>,
    /// The number of the policies that let it through: under others it is to be decided about again.
    pub(super) policies: u32,
}

impl Waiting {
    pub(super) const fn new(
        (ingress, ingress_segment): (PortId, SegmentId),
        route: &Route,
        passage: &Passage,
        policies: u32,
    ) -> Self {
        let Route { egress, plan, fragment, .. } = *route;
        Self { ingress, ingress_segment, egress, plan, passage: *passage, fragment, policies }
    }
}
