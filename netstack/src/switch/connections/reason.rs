//! The translator's reasons in the switch's words.

use nat::ports::Refused;
use nat::{Invalid, Refusal, fragment};

use crate::verdict::DropReason;

/// Why a packet belongs to no connection.
pub(super) const fn misfit_reason(invalid: Invalid) -> DropReason {
    match invalid {
        Invalid::Checksum => DropReason::TransportChecksum,
        Invalid::Malformed | Invalid::Tcp(_) | Invalid::Sctp(_) => DropReason::ConnectionInvalid,
        Invalid::Unasked | Invalid::Unrelated => DropReason::IcmpUnrelated,
        Invalid::Error(_) => DropReason::IcmpQuoteInvalid,
    }
}

/// Why a connection does not begin.
pub(super) const fn refusal_reason(refusal: Refusal) -> DropReason {
    match refusal {
        Refusal::Full => DropReason::ConnectionTableFull,
        Refusal::Clash => DropReason::ConnectionClash,
        Refusal::Ports(Refused::Exhausted | Refused::Unmapped) => DropReason::PortsExhausted,
        Refusal::Ports(Refused::Quota | Refused::Subscribers) => DropReason::PortQuota,
    }
}

/// The translator's own word for a reason.
pub(super) fn refusal_named(reason: DropReason) -> Option<Refusal> {
    let all =
        [Refusal::Full, Refusal::Clash, Refusal::Ports(Refused::Exhausted), Refusal::Ports(Refused::Quota)];
    all.into_iter().find(|&candidate| refusal_reason(candidate) == reason)
}

/// Why a fragment goes no further.
pub(super) const fn fragment_reason(refusal: fragment::Refusal) -> DropReason {
    match refusal {
        fragment::Refusal::Pressure => DropReason::FragmentsFull,
        fragment::Refusal::Timeout => DropReason::FragmentTimeout,
        fragment::Refusal::Rejected => DropReason::FragmentOrphaned,
        fragment::Refusal::Duplicate
        | fragment::Refusal::Overlap
        | fragment::Refusal::Length
        | fragment::Refusal::Tiny
        | fragment::Refusal::Count => DropReason::FragmentRefused,
    }
}
