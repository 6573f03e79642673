//! Which of several next hops a flow takes (ECMP).

use core::net::IpAddr;

use siphasher::sip::SipHasher13;

use crate::config::NextHop;

/// The position in `hops` of the next hop for the flow whose hash is `hash` ([`lb::hash::FlowHash`]). Depends on what
/// the hops are, not on their order, so that a flow keeps its path (RFC 2991, RFC 2992) while its hop is there:
/// removing one moves only its flows. 0 if there is no hop.
pub fn select_next_hop(hash: u64, hops: &[NextHop]) -> usize {
    if hops.len() < 2 {
        return 0;
    }
    lb::rendezvous::select(hash, hops.iter().map(hop_id)).unwrap_or(0)
}

/// A number that stands for the hop wherever it is listed: the same on every switch, in every run. The key is no secret
/// and need not be, since configuration names the hops.
pub fn hop_id(hop: &NextHop) -> u64 {
    let mut bytes = [0; 19];
    let [s0, s1] = hop.segment.0.to_be_bytes();
    bytes[..2].copy_from_slice(&[s0, s1]);
    match hop.gateway {
        None => {}
        Some(IpAddr::V4(a)) => {
            bytes[2] = 4;
            bytes[3..7].copy_from_slice(&a.octets());
        }
        Some(IpAddr::V6(a)) => {
            bytes[2] = 6;
            bytes[3..].copy_from_slice(&a.octets());
        }
    }
    SipHasher13::new().hash(&bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::SegmentId;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn hops() -> impl Strategy<Value = Vec<NextHop>> {
        let gateway = proptest::option::of(any::<IpAddr>());
        let hop = (0u16..4, gateway).prop_map(|(s, gateway)| NextHop { segment: SegmentId(s), gateway });
        proptest::collection::hash_set(hop, 2..9).prop_map(|set| set.into_iter().collect())
    }

    #[test]
    fn each_of_two_hops_gets_its_half() {
        let hop = |n| NextHop { segment: SegmentId(1), gateway: Some(IpAddr::from([10, 0, 0, n])) };
        let mut rng = crate::seed::Seed::from_u64(1).rng("flows");
        let first = (0..10_000).filter(|_| select_next_hop(rng.next_u64(), &[hop(1), hop(2)]) == 0).count();
        assert!((4700..5300).contains(&first), "{first}");
    }

    #[test]
    fn few_hops() {
        assert_eq!(select_next_hop(9, &[]), 0);
        assert_eq!(select_next_hop(9, &[NextHop { segment: SegmentId(1), gateway: None }]), 0);
    }

    proptest! {
        #[test]
        fn removing_a_hop_moves_its_flows_only(
            hops in hops(), hash: u64, gone: prop::sample::Index, turn in 0usize..8,
        ) {
            let chosen = hops[select_next_hop(hash, &hops)];
            let mut left = hops.clone();
            let gone = left.remove(gone.index(hops.len()));
            let turn = turn % left.len();
            left.rotate_left(turn);
            if gone != chosen {
                prop_assert_eq!(left[select_next_hop(hash, &left)], chosen);
            }
        }
    }
}
