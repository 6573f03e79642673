//! A compiled port.

use alloc::vec::Vec;

use super::{PortConfig, Station, VlanMode};
use crate::addr::{PortId, SegmentId};
use crate::frame::OffloadFeatures;
use crate::rate::Pace;

/// A compiled port.
#[derive(Debug)]
pub struct Port {
    config: PortConfig,
    /// What the switch's frames must look like when they leave here, by segment: the VLAN identifier to push.
    tags: Vec<(SegmentId, Option<u16>)>,
    storm: Option<Pace>,
}

impl Port {
    pub(super) fn compile(config: &PortConfig) -> Self {
        let tags = match &config.vlan {
            VlanMode::Access(segment) => alloc::vec![(*segment, None)],
            VlanMode::Trunk { native, tagged } => {
                native.iter().map(|&s| (s, None)).chain(tagged.iter().map(|&(v, s)| (s, Some(v)))).collect()
            }
        };
        let storm = config.storm.map(|s| Pace::new(s.rate, s.burst));
        Self { config: config.clone(), tags, storm }
    }

    /// What it was compiled from.
    pub(super) fn config(&self) -> &PortConfig {
        &self.config
    }

    /// Its number.
    pub fn id(&self) -> PortId {
        self.config.id
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// What its device takes over from software.
    #[inline]
    pub fn offload(&self) -> OffloadFeatures {
        self.config.offload
    }

    /// Whether frames that were made ready for `other` may leave here: the same segments under the same tags, and a
    /// device that takes over the same from software.
    pub fn carries_like(&self, other: &Self) -> bool {
        self.config.vlan == other.config.vlan && self.config.offload == other.config.offload
    }

    /// Who is behind it.
    #[inline]
    pub fn station(&self) -> &Station {
        &self.config.station
    }

    /// How many broadcast, multicast and unknown unicast frames it lets in.
    #[inline]
    pub fn storm(&self) -> Option<Pace> {
        self.storm
    }

    /// Whether loops are looked for behind it.
    pub fn is_loop_guarded(&self) -> bool {
        self.config.loop_guard && matches!(self.config.station, Station::Foreign)
    }

    /// Whether nothing is bridged between it and other isolated ports.
    #[inline]
    pub fn is_isolated(&self) -> bool {
        self.config.isolated
    }

    /// The segments it carries and the VLAN identifier that frames of each leave with.
    pub fn tags(&self) -> &[(SegmentId, Option<u16>)] {
        &self.tags
    }

    /// Where a frame that came in with this tag (TCI) belongs. VLAN identifier 0 is a priority tag: as untagged.
    #[inline]
    pub fn segment_of(&self, tci: Option<u16>) -> Option<SegmentId> {
        let vlan = tci.map(|t| t & 0x0fff).filter(|&v| v != 0);
        self.tags.iter().find(|(_, tag)| *tag == vlan).map(|&(segment, _)| segment)
    }

    /// The VLAN identifier that frames of `segment` leave with; the outer `None` means that the port is not on it.
    #[inline]
    pub fn tag_for(&self, segment: SegmentId) -> Option<Option<u16>> {
        self.tags.iter().find(|(s, _)| *s == segment).map(|&(_, tag)| tag)
    }
}
