//! The way out: finishing a frame for a port's device, tagging it, queueing it.

use alloc::vec::Vec;

use super::Switch;
use crate::addr::PortId;
use crate::bridge;
use crate::config::{Port, Segment, Snapshot};
use crate::flow::Plan;
use crate::frame::Frame;
use crate::offload::{self, Checksum, OffloadFeatures};
use crate::parse::{self, Ip, Network};
use crate::verdict::{EgressDrop, Origin};

impl Switch {
    /// Rewrites a routed frame and sends it, in fragments where it must be.
    #[expect(clippy::too_many_arguments, reason = "a route's parts, which parked frames keep apart")]
    pub(super) fn transmit(
        &mut self,
        snapshot: &Snapshot,
        port: PortId,
        segment: &Segment,
        plan: &Plan,
        fragment: Option<u16>,
        mut frame: Frame,
        origin: Origin,
    ) {
        plan.apply(&mut frame);
        match fragment {
            None => self.send(snapshot, port, segment, frame, origin),
            Some(mtu) => self.send_fragments(snapshot, port, segment, usize::from(mtu), frame, origin),
        }
    }

    /// Sends an untagged frame of `segment` by `port`: completes what the device leaves to software, pushes the tag,
    /// and queues.
    pub(super) fn send(
        &mut self,
        snapshot: &Snapshot,
        id: PortId,
        segment: &Segment,
        mut frame: Frame,
        origin: Origin,
    ) {
        let (port, tag) = match self.way_out(snapshot, id, segment) {
            Ok(way) => way,
            Err(reason) => return self.refuse(id, frame, reason, origin),
        };
        if frame.offload.segmentation.is_some_and(|s| !port.offload().takes(s.kind)) {
            return self.send_segments(port, tag, frame, origin);
        }
        if let Checksum::Partial { .. } = frame.offload.checksum
            && !port.offload().checksum
            && offload::complete_checksum(&mut frame).is_err()
        {
            return self.refuse(id, frame, EgressDrop::OffloadInvalid, origin);
        }
        self.tag_and_queue(port, tag, frame, origin);
    }

    /// The port and the tag that frames of a segment leave by, if they may.
    fn way_out<'s>(
        &self,
        snapshot: &'s Snapshot,
        id: PortId,
        segment: &Segment,
    ) -> Result<(&'s Port, Option<u16>), EgressDrop> {
        if self.loops.is_blocked(id) {
            return Err(EgressDrop::LoopBlocked);
        }
        let port = snapshot.port(id).ok_or(EgressDrop::PortClosed)?;
        Ok((port, port.tag_for(segment.id()).ok_or(EgressDrop::PortClosed)?))
    }

    fn send_segments(&mut self, port: &Port, tag: Option<u16>, frame: Frame, origin: Origin) {
        let Some(ip) = reparse(&frame) else {
            return self.refuse(port.id(), frame, EgressDrop::OffloadInvalid, origin);
        };
        let mut pieces = core::mem::take(&mut self.pieces);
        let cut =
            offload::segment(&frame, &ip, port.offload(), &mut self.pool, &mut |piece| pieces.push(piece));
        self.finish_pieces(port, tag, frame, origin, Origin::Segment, &mut pieces, cut.is_ok());
        self.pieces = pieces;
    }

    fn send_fragments(
        &mut self,
        snapshot: &Snapshot,
        id: PortId,
        segment: &Segment,
        mtu: usize,
        mut frame: Frame,
        origin: Origin,
    ) {
        let (port, tag) = match self.way_out(snapshot, id, segment) {
            Ok(way) => way,
            Err(reason) => return self.refuse(id, frame, reason, origin),
        };
        let Some(ip) = reparse(&frame) else {
            return self.refuse(id, frame, EgressDrop::OffloadInvalid, origin);
        };
        let mut pieces = core::mem::take(&mut self.pieces);
        let pool = &mut self.pool;
        let cut = if frame.offload.segmentation.is_some() {
            // A super-frame whose pieces are themselves too long: cut into pieces first, then those into fragments.
            let mut segments = core::mem::take(&mut self.segments);
            let mut ok =
                offload::segment(&frame, &ip, OffloadFeatures::NONE, pool, &mut |s| segments.push(s)).is_ok();
            for segment in segments.drain(..) {
                ok &= fragment(&segment, mtu, pool, &mut pieces);
                pool.recycle(segment);
            }
            self.segments = segments;
            ok
        } else {
            let complete = match frame.offload.checksum {
                Checksum::Partial { .. } => offload::complete_checksum(&mut frame).is_ok(),
                Checksum::Complete | Checksum::Verified => true,
            };
            complete && fragment(&frame, mtu, pool, &mut pieces)
        };
        self.finish_pieces(port, tag, frame, origin, Origin::Fragment, &mut pieces, cut);
        self.pieces = pieces;
    }

    /// Queues what a frame was cut into, and counts that it was replaced.
    #[expect(clippy::too_many_arguments, reason = "shared by segments and fragments")]
    fn finish_pieces(
        &mut self,
        port: &Port,
        tag: Option<u16>,
        whole: Frame,
        origin: Origin,
        piece_origin: Origin,
        pieces: &mut Vec<Frame>,
        cut: bool,
    ) {
        if !cut {
            pieces.drain(..).for_each(|piece| self.pool.recycle(piece));
            return self.refuse(port.id(), whole, EgressDrop::OffloadInvalid, origin);
        }
        self.counters_mut(port.id()).replaced[origin.index()] += 1;
        self.pool.recycle(whole);
        for piece in pieces.drain(..) {
            self.tag_and_queue(port, tag, piece, piece_origin);
        }
    }

    /// Pushes the tag and queues.
    pub(super) fn tag_and_queue(&mut self, port: &Port, tag: Option<u16>, mut frame: Frame, origin: Origin) {
        let id = port.id();
        if let Some(vlan) = tag
            && !bridge::push_tag(&mut frame, vlan)
        {
            return self.refuse(id, frame, EgressDrop::TooBig, origin);
        }
        self.port_mut(id);
        let Self { ports, ready, pool, .. } = self;
        ports[usize::from(id.0)].send(id, &mut frame, origin, ready, pool);
    }

    fn refuse(&mut self, id: PortId, frame: Frame, reason: EgressDrop, origin: Origin) {
        self.port_mut(id).refuse(reason, origin);
        self.pool.recycle(frame);
    }
}

fn fragment(frame: &Frame, mtu: usize, pool: &mut crate::frame::FramePool, pieces: &mut Vec<Frame>) -> bool {
    let Some(ip) = reparse(frame) else { return false };
    offload::fragment_ipv4(frame, &ip, mtu, pool, &mut |piece| pieces.push(piece)).is_ok()
}

/// The headers of a frame that is about to be cut. It was parsed on its way in; it is parsed again here because this is
/// the rare case, and carrying the offsets along would burden the common one.
fn reparse(frame: &Frame) -> Option<Ip> {
    let link = parse::link(frame.bytes()).ok()?;
    match parse::network(frame.bytes(), &link).ok()? {
        Network::Ip(ip) => Some(ip),
        Network::Arp(_) | Network::Other => None,
    }
}
