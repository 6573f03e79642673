//! When to answer with an ICMP error, and how often.
//!
//! # Theory of operation
//! An error about an error, or to a crowd, or to an address that names nobody, multiplies traffic or helps someone to
//! aim it: [`may_answer`] holds the rules about which packets must never cause one. Those it lets through are counted
//! out by a [`RateLimiter`] (RFC 1812 section 4.3.2.8, RFC 4443 section 2.4 f): a bucket for all of them, and one for
//! each destination, so that one loud sender does not silence the answers to others.

use alloc::boxed::Box;
use alloc::vec;
use core::hash::BuildHasher;
use core::net::IpAddr;
use core::time::Duration;

use crate::addr::scope::{is_group, martian_source};
use crate::parse::{Ip, Link, Transport, protocol};
use crate::rate::{Bucket, Pace};
use crate::seed::{Seed, TableHasher};

/// What the error would report, as far as it decides who may hear it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Occasion {
    /// An IPv6 packet too big for the next link: path MTU discovery works for multicast as well (RFC 4443 section 2.4
    /// e.3).
    PacketTooBig,
    /// An IPv6 option that asks to be reported even by those who got it by multicast (parameter problem code 2; RFC
    /// 4443 section 2.4 e.3, RFC 8200 section 4.2: action bits 10).
    UnrecognizedOption,
    /// Anything else.
    Other,
}

/// Whether an ICMP error may be sent about a packet that has passed the parser.
///
/// Never about (RFC 1122 section 3.2.2 and RFC 1812 section 4.3.2.7 for IPv4, RFC 4443 section 2.4 e for IPv6):
/// - an ICMP error or redirect, or an ICMP message that cannot be told from one;
/// - a frame sent to a link-layer group, or a packet sent to an IP group or broadcast; IPv6 makes the two exceptions of
///   [`Occasion`];
/// - a source that names no single host: see [`martian_source`];
/// - an IPv4 fragment other than the first. RFC 4443 has no such rule for IPv6, where a fragment that does not fit must
///   be answered; one of an ICMPv6 message is not.
///
/// `directed_broadcast` says that the destination is the broadcast address of a prefix that the caller knows, or the
/// source is. The caller does not ask about what is discarded silently, malformed packets among it.
pub fn may_answer(link: &Link, ip: &Ip, occasion: Occasion, directed_broadcast: bool) -> bool {
    if martian_source(ip.source) || directed_broadcast {
        return false;
    }
    let to_group = link.destination.is_multicast() || is_group(ip.destination);
    match ip.source {
        IpAddr::V4(_) => {
            let first = ip.fragment.is_none_or(|fragment| fragment.offset == 0);
            !to_group && first && !may_be_error_v4(ip)
        }
        IpAddr::V6(_) => {
            let excepted = matches!(occasion, Occasion::PacketTooBig | Occasion::UnrecognizedOption);
            (!to_group || excepted) && !may_be_error_v6(ip)
        }
    }
}

/// Whether this is an ICMP message other than those known to be queries or replies (the IANA registry "ICMP Type
/// Numbers": echo, router discovery, timestamp, information, address mask, extended echo).
fn may_be_error_v4(ip: &Ip) -> bool {
    match ip.transport {
        Transport::Icmp { kind, .. } => !matches!(kind, 0 | 8 | 9 | 10 | 13..=18 | 42 | 43),
        Transport::Opaque => ip.protocol == protocol::ICMP,
        Transport::Tcp { .. } | Transport::Udp { .. } | Transport::Sctp { .. } => false,
    }
}

/// Whether this is an ICMPv6 error (RFC 4443 section 2.1: types below 128) or a redirect (RFC 4861 section 4.5: 137).
fn may_be_error_v6(ip: &Ip) -> bool {
    match ip.transport {
        Transport::Icmp { kind, .. } => matches!(kind, 0..128 | 137),
        Transport::Opaque => ip.protocol == protocol::ICMPV6,
        Transport::Tcp { .. } | Transport::Udp { .. } | Transport::Sctp { .. } => false,
    }
}

/// Errors that may go out at once when none did for long (Linux `icmp_msgs_burst`).
const GLOBAL_BURST: u32 = 50;
/// Errors to one destination that may go out at once when none did for long (Linux `XRLIM_BURST_FACTOR`).
const DESTINATION_BURST: u32 = 6;
/// One error to one destination per second after a burst (Linux `icmp_ratelimit`). One policy for both families.
const DESTINATION_PACE: Pace = Pace::every(Duration::from_secs(1), DESTINATION_BURST);
/// Buckets for destinations: 16 KiB.
const BUCKETS: usize = 1024;

/// What a limiter has decided so far.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct RateCounters {
    /// Answers let through.
    pub allowed: u64,
    /// Answers suppressed because too many went to the same destination.
    pub suppressed_destination: u64,
    /// Answers suppressed because too many went out at all.
    pub suppressed_global: u64,
}

/// Bounds the ICMP errors of one switch: over all, and to each destination one per second after a burst of six.
///
/// Destinations share 1,024 buckets by a keyed hash. Two that fall together share one allowance, which errs on the
/// side of silence, and nobody outside can aim for another's bucket. A destination that is refused takes nothing from
/// what all share, so it cannot use up the others' part. Allocates at construction only.
#[derive(Clone, Debug)]
pub struct RateLimiter {
    pace: Pace,
    all: Bucket,
    destinations: Box<[Bucket]>,
    hasher: TableHasher,
    counters: RateCounters,
}

impl RateLimiter {
    /// A limiter for `per_second` errors over all destinations, after a burst of 50; 0 for none ever.
    pub fn new(per_second: u32, seed: &Seed) -> Self {
        Self {
            pace: Pace::new(per_second, GLOBAL_BURST),
            all: Bucket::default(),
            destinations: vec![Bucket::default(); BUCKETS].into_boxed_slice(),
            hasher: seed.hasher("icmp rate"),
            counters: RateCounters::default(),
        }
    }

    /// Whether an error may go to `destination` now, and if so counts it. `now` does not run backwards.
    pub fn allow(&mut self, now: Duration, destination: IpAddr) -> bool {
        let position = self.bucket_of(destination);
        let own = self.destinations[position].after_one(now, DESTINATION_PACE);
        let Some(own) = own else {
            self.counters.suppressed_destination += 1;
            return false;
        };
        let Some(all) = self.all.after_one(now, self.pace) else {
            self.counters.suppressed_global += 1;
            return false;
        };
        self.destinations[position] = own;
        self.all = all;
        self.counters.allowed += 1;
        true
    }

    /// What has been decided so far.
    pub fn counters(&self) -> RateCounters {
        self.counters
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "any bits of the hash serve, and the rest is below BUCKETS"
    )]
    fn bucket_of(&self, destination: IpAddr) -> usize {
        self.hasher.hash_one(destination) as usize % BUCKETS
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::addr::MacAddr;
    use crate::parse::{Fragment, ethertype};
    use proptest::prelude::*;

    const UNICAST: MacAddr = MacAddr([2, 0, 0, 0, 0, 1]);

    fn link(destination: MacAddr) -> Link {
        Link {
            destination,
            source: MacAddr([2, 0, 0, 0, 0, 2]),
            tag: None,
            ethertype: ethertype::IPV4,
            payload: 14,
        }
    }

    fn udp(source: &str, destination: &str) -> Ip {
        Ip {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
            offset: 14,
            transport_offset: 34,
            end: 100,
            hop_limit: 1,
            protocol: protocol::UDP,
            dont_fragment: false,
            fragment: None,
            source_route: false,
            option_problem: None,
            transport: Transport::Udp { source_port: 1, destination_port: 2 },
        }
    }

    fn v4() -> Ip {
        udp("10.0.0.1", "10.1.0.1")
    }

    fn v6() -> Ip {
        udp("fd00::1", "fd00:1::1")
    }

    fn icmp(ip: Ip, kind: u8) -> Ip {
        let protocol = if ip.source.is_ipv4() { protocol::ICMP } else { protocol::ICMPV6 };
        Ip { protocol, transport: Transport::Icmp { kind, code: 0, id: None }, ..ip }
    }

    fn fragment(ip: Ip, offset: u16) -> Ip {
        let transport = if offset == 0 { ip.transport } else { Transport::Opaque };
        Ip { fragment: Some(Fragment { offset, more: true, id: 1 }), transport, ..ip }
    }

    fn answered(ip: &Ip) -> bool {
        may_answer(&link(UNICAST), ip, Occasion::Other, false)
    }

    #[test]
    fn ordinary_packets_are_answered() {
        assert!(answered(&v4()) && answered(&v6()));
        let tcp = Transport::Tcp { source_port: 1, destination_port: 2, flags: 2, header_len: 20 };
        assert!(answered(&Ip { protocol: 6, transport: tcp, ..v4() }));
        assert!(answered(&Ip { protocol: 47, transport: Transport::Opaque, ..v6() }));
    }

    #[test]
    fn icmp_errors_are_not_answered_queries_are() {
        for kind in 0..=u8::MAX {
            let query = [0, 8, 9, 10, 13, 14, 15, 16, 17, 18, 42, 43].contains(&kind);
            assert_eq!(answered(&icmp(v4(), kind)), query, "ICMP type {kind}");
            assert_eq!(answered(&icmp(v6(), kind)), kind >= 128 && kind != 137, "ICMPv6 type {kind}");
        }
        for occasion in [Occasion::PacketTooBig, Occasion::UnrecognizedOption] {
            assert!(!may_answer(&link(UNICAST), &icmp(v6(), 1), occasion, false));
        }
    }

    #[test]
    fn groups_are_not_answered_but_for_the_two_exceptions_of_ipv6() {
        for mac in ["ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01", "33:33:00:00:00:01"] {
            let link = link(mac.parse().unwrap());
            assert!(!may_answer(&link, &v4(), Occasion::Other, false));
            assert!(!may_answer(&link, &v4(), Occasion::PacketTooBig, false));
            assert!(!may_answer(&link, &v6(), Occasion::Other, false));
            assert!(may_answer(&link, &v6(), Occasion::PacketTooBig, false));
            assert!(may_answer(&link, &v6(), Occasion::UnrecognizedOption, false));
        }
        for destination in ["224.0.0.1", "239.1.2.3", "255.255.255.255"] {
            assert!(!answered(&udp("10.0.0.1", destination)), "{destination}");
        }
        let multicast = udp("fd00::1", "ff05::1");
        assert!(!answered(&multicast));
        assert!(may_answer(&link(UNICAST), &multicast, Occasion::PacketTooBig, false));
        assert!(may_answer(&link(UNICAST), &multicast, Occasion::UnrecognizedOption, false));
        assert!(!may_answer(&link(UNICAST), &v4(), Occasion::Other, true));
    }

    #[test]
    fn sources_that_name_no_host_are_not_answered() {
        for source in ["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"] {
            assert!(!answered(&udp(source, "10.1.0.1")), "{source}");
        }
        for source in ["::", "::1", "ff02::1", "::ffff:10.0.0.1"] {
            let ip = udp(source, "fd00::1");
            assert!(!answered(&ip), "{source}");
            assert!(!may_answer(&link(UNICAST), &ip, Occasion::PacketTooBig, false), "{source}");
        }
    }

    #[test]
    fn later_fragments_are_not_answered_in_ipv4_and_of_icmp() {
        assert!(answered(&fragment(v4(), 0)));
        assert!(!answered(&fragment(v4(), 8)));
        assert!(answered(&fragment(v6(), 0)));
        assert!(answered(&fragment(v6(), 8)));
        assert!(!answered(&fragment(icmp(v6(), 128), 8)));
    }

    #[test]
    fn a_destination_gets_six_at_once_and_then_one_per_second() {
        let mut limiter = RateLimiter::new(1000, &Seed::from_u64(1));
        let to = IpAddr::from([10, 0, 0, 1]);
        let at = |ms| Duration::from_hours(1) + Duration::from_millis(ms);
        assert_eq!((0..20).filter(|_| limiter.allow(at(0), to)).count(), 6);
        assert!(!limiter.allow(at(999), to));
        assert!(limiter.allow(at(1000), to));
        assert!(!limiter.allow(at(1000), to));
        assert_eq!((0..20).filter(|_| limiter.allow(at(60_000), to)).count(), 6);
        assert_eq!(
            limiter.counters(),
            RateCounters { allowed: 13, suppressed_destination: 30, suppressed_global: 0 }
        );
    }

    #[test]
    fn all_destinations_share_the_global_rate() {
        let mut limiter = RateLimiter::new(100, &Seed::from_u64(1));
        let mut sent = 0;
        for n in 0..5000u32 {
            let now = Duration::from_millis(u64::from(n));
            sent += u32::from(limiter.allow(now, IpAddr::V4((0x0a00_0000 + n).into())));
        }
        // Five seconds at 100 each, and the burst.
        assert!((500..=550).contains(&sent), "{sent}");
        assert!(limiter.counters().suppressed_global > 4000);
    }

    #[test]
    fn a_loud_destination_does_not_silence_others() {
        let mut limiter = RateLimiter::new(10, &Seed::from_u64(1));
        let (loud, quiet) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        for n in 0..100_000u64 {
            let now = Duration::from_millis(n);
            limiter.allow(now, loud);
            if n % 1000 == 0 {
                assert!(limiter.allow(now, quiet), "{n}");
            }
        }
    }

    #[test]
    fn rate_zero_is_silence_and_time_may_be_anything() {
        let mut silent = RateLimiter::new(0, &Seed::from_u64(1));
        assert!(!silent.allow(Duration::MAX, IpAddr::from([10, 0, 0, 1])));
        let mut limiter = RateLimiter::new(u32::MAX, &Seed::from_u64(1));
        for now in [Duration::ZERO, Duration::MAX, Duration::ZERO] {
            limiter.allow(now, IpAddr::from([10, 0, 0, 1]));
        }
    }

    proptest! {
        /// A naive bucket that is filled second by second and never asked for more than it may hold.
        #[test]
        fn no_window_exceeds_rate_and_burst(gaps in proptest::collection::vec(0u64..3000, 1..100)) {
            let mut limiter = RateLimiter::new(1000, &Seed::from_u64(5));
            let to = "fd00::1".parse().unwrap();
            let (mut now, mut level) = (10_000u64, 6000u64);
            for gap in gaps {
                now += gap;
                level = (level + gap).min(6000);
                let expected = level >= 1000;
                prop_assert_eq!(limiter.allow(Duration::from_millis(now), to), expected);
                if expected { level -= 1000; }
            }
        }
    }
}
