//! Checksum and segmentation state, which travels with a frame: the virtio-net header's meaning without its octets.

/// What is known of a frame's L4 checksum.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Checksum {
    /// The field holds a full checksum, true or not: whoever needs to know verifies it.
    #[default]
    Complete,
    /// The field holds a full checksum that the device has verified already.
    Verified,
    /// The field holds only the sum of the pseudo-header; the ones' complement sum from `start` to the end of the
    /// packet belongs at `start + offset`. Both are in octets, `start` from the frame's first octet.
    Partial {
        /// Where summing begins: the L4 header.
        start: u16,
        /// The checksum field's distance from `start`.
        offset: u16,
    },
}

/// How a super-frame is to be cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SegmentKind {
    /// TCP over IPv4 (TSO).
    TcpV4,
    /// TCP over IPv6 (TSO6).
    TcpV6,
    /// UDP over either family (USO): each piece is a datagram of its own.
    Udp,
}

/// A super-frame: one set of headers, a payload of several segments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segmentation {
    /// Protocol of the pieces.
    pub kind: SegmentKind,
    /// Payload octets per piece (the last may be shorter); never 0.
    pub size: u16,
    /// CWR is to be set on the first piece only (RFC 3168 section 6.1.2).
    pub ecn: bool,
}

/// The state that travels with a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Offload {
    /// L4 checksum state.
    pub checksum: Checksum,
    /// Set for a super-frame.
    pub segmentation: Option<Segmentation>,
}

impl Offload {
    /// Whether the L4 checksum needs no verification: it was verified by the device, or the packet never left this
    /// machine and its checksum is still to be made.
    pub const fn is_trusted(&self) -> bool {
        matches!(self.checksum, Checksum::Verified | Checksum::Partial { .. })
    }
}

/// What a device takes over from software on frames given to it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(default))]
pub struct OffloadFeatures {
    /// Accepts [`Checksum::Partial`].
    pub checksum: bool,
    /// Accepts TCP super-frames over IPv4.
    pub tso4: bool,
    /// Accepts TCP super-frames over IPv6.
    pub tso6: bool,
    /// Accepts UDP super-frames of both families.
    pub uso: bool,
}

impl OffloadFeatures {
    /// A device that wants finished frames.
    pub const NONE: Self = Self { checksum: false, tso4: false, tso6: false, uso: false };
    /// A device that takes everything.
    pub const ALL: Self = Self { checksum: true, tso4: true, tso6: true, uso: true };

    /// Whether a super-frame of this kind may be handed over whole.
    pub const fn takes(self, kind: SegmentKind) -> bool {
        match kind {
            SegmentKind::TcpV4 => self.tso4,
            SegmentKind::TcpV6 => self.tso6,
            SegmentKind::Udp => self.uso,
        }
    }
}
