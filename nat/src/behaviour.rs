//! How a translator acts where the field disagrees.
//!
//! Three combinations are known to go together, and every value can be set. Timers are another choice, see
//! [`Timeouts`](crate::timeouts::Timeouts).

use crate::ports::Keep;
use crate::tcp::Knobs;

/// Which packets from outside may use a mapping, beside those of its own connections (RFC 4787 section 5). Packets from
/// inside always may (RFC 4787 REQ-9).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Filtering {
    /// All.
    EndpointIndependent,
    /// Those from addresses that the inside endpoint has sent to.
    AddressDependent,
    /// None.
    AddressAndPortDependent,
}

/// When an external port is used for several inside endpoints, towards different destinations (RFC 7857 section 3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Sharing {
    /// Never (RFC 4787 REQ-3).
    Never,
    /// When an address has no free port left.
    Exhausted,
    /// Whenever the inside port can be kept that way.
    Eager,
}

/// What the sender of a packet is told whose connection is refused for want of a port, a quota or a place in the table
/// (RFC 5508 REQ-8, RFC 6888 REQ-11).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum OnRefusal {
    /// Destination unreachable, communication administratively prohibited.
    Prohibited,
    /// Destination unreachable, host unreachable.
    HostUnreachable,
    /// Nothing.
    Silence,
}

/// All choices.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct Behaviour {
    /// Who may use a mapping from outside.
    pub filtering: Filtering,
    /// When external ports are shared.
    pub sharing: Sharing,
    /// How like the inside port the external one is.
    pub keep: Keep,
    /// Whether packets from outside keep a translated connection alive (RFC 4787 REQ-6).
    pub inbound_refreshes: bool,
    /// How TCP is tracked.
    pub tcp: Knobs,
    /// What the sender of a refused packet is told.
    pub on_refusal: OnRefusal,
}

impl Behaviour {
    /// The RFCs to the letter.
    pub const fn strict() -> Self {
        Self {
            filtering: Filtering::AddressAndPortDependent,
            sharing: Sharing::Never,
            keep: Keep { port: true, parity: true, class: true },
            inbound_refreshes: false,
            tcp: Knobs::strict(),
            on_refusal: OnRefusal::Prohibited,
        }
    }

    /// What Linux does with `masquerade`.
    pub const fn linux() -> Self {
        Self {
            filtering: Filtering::AddressAndPortDependent,
            sharing: Sharing::Eager,
            keep: Keep { port: true, parity: false, class: false },
            inbound_refreshes: true,
            tcp: Knobs::linux(),
            on_refusal: OnRefusal::Silence,
        }
    }

    /// What suits a cluster's node: one mapping for each inside endpoint as long as ports last, nobody let in who was not
    /// asked, and nothing that leaves untranslated.
    pub const fn node() -> Self {
        Self {
            filtering: Filtering::AddressAndPortDependent,
            sharing: Sharing::Exhausted,
            keep: Keep { port: true, parity: false, class: false },
            inbound_refreshes: true,
            tcp: Knobs::node(),
            on_refusal: OnRefusal::Prohibited,
        }
    }
}
