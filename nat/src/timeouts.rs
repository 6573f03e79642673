//! How long a connection that is silent is kept.
//!
//! Two complete sets, and every value can be set. [`Timeouts::rfc`] keeps the floors of the RFCs; [`Timeouts::linux`] is
//! Linux's defaults, several of which lie below those floors.

use core::time::Duration;

/// The longest time a value may have: ticks of a millisecond in 31 bits, so that earlier and later stay distinct.
pub const LONGEST: Duration = Duration::from_millis((1 << 31) - 1);

/// One time for each state that a connection can be silent in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct Timeouts {
    /// UDP without an answer so far (RFC 4787 REQ-5: at least 2 minutes, 5 recommended).
    pub udp: Duration,
    /// UDP with answers, for longer than [`Self::UDP_STREAM_AFTER`].
    pub udp_stream: Duration,
    /// TCP, by state (RFC 5382 REQ-5: established at least 2 h 4 min, the others at least 4 minutes).
    pub tcp: TcpTimeouts,
    /// ICMP and ICMPv6 queries (RFC 5508 REQ-2: at least 60 s).
    pub icmp: Duration,
    /// SCTP, by state.
    pub sctp: SctpTimeouts,
    /// Protocols without ports.
    pub generic: Duration,
    /// How long fragments wait for others of their datagram, IPv4 (RFC 791) and IPv6 (RFC 8200 section 4.5).
    pub reassembly: [Duration; 2],
}

/// Times of TCP's states (RFC 5382 REQ-5, RFC 7857 section 2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct TcpTimeouts {
    /// A SYN was seen.
    pub syn_sent: Duration,
    /// A SYN and its answer.
    pub syn_recv: Duration,
    /// The handshake is complete.
    pub established: Duration,
    /// A FIN from who has not had one.
    pub fin_wait: Duration,
    /// That FIN is acknowledged.
    pub close_wait: Duration,
    /// FINs from both.
    pub last_ack: Duration,
    /// Both acknowledged.
    pub time_wait: Duration,
    /// A RST was seen.
    pub close: Duration,
    /// SYNs from both.
    pub syn_sent2: Duration,
    /// At most this while data was sent three times without an answer.
    pub retransmitted: Duration,
    /// At most this while data is not acknowledged.
    pub unacknowledged: Duration,
    /// At most this for a connection seen from its middle, until its other side is heard.
    pub picked_up: Duration,
}

/// Times of SCTP's states.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(deny_unknown_fields))]
pub struct SctpTimeouts {
    /// INIT was seen.
    pub cookie_wait: Duration,
    /// COOKIE ECHO was seen.
    pub cookie_echoed: Duration,
    /// The association stands.
    pub established: Duration,
    /// SHUTDOWN was sent.
    pub shutdown_sent: Duration,
    /// SHUTDOWN was received.
    pub shutdown_received: Duration,
    /// SHUTDOWN ACK was sent.
    pub shutdown_ack_sent: Duration,
    /// It is over.
    pub closed: Duration,
    /// A path known only by HEARTBEATs.
    pub heartbeat_sent: Duration,
}

impl Timeouts {
    /// How long datagrams must have gone both ways before a UDP flow counts as a stream, as in Linux.
    pub const UDP_STREAM_AFTER: Duration = Duration::from_secs(2);

    /// What the RFCs require and recommend.
    pub const fn rfc() -> Self {
        let transitory = Duration::from_secs(240);
        Self {
            udp: Duration::from_secs(300),
            udp_stream: Duration::from_secs(300),
            tcp: TcpTimeouts {
                syn_sent: transitory,
                syn_recv: transitory,
                established: Duration::from_secs(7_440),
                fin_wait: transitory,
                close_wait: transitory,
                last_ack: transitory,
                time_wait: transitory,
                close: transitory,
                syn_sent2: transitory,
                retransmitted: Duration::from_secs(300),
                unacknowledged: Duration::from_secs(300),
                picked_up: Duration::from_secs(300),
            },
            icmp: Duration::from_secs(60),
            sctp: SctpTimeouts::linux(),
            generic: Duration::from_secs(600),
            reassembly: [Duration::from_secs(30), Duration::from_secs(60)],
        }
    }

    /// What Linux does unless told otherwise.
    pub const fn linux() -> Self {
        Self {
            udp: Duration::from_secs(30),
            udp_stream: Duration::from_secs(120),
            tcp: TcpTimeouts {
                syn_sent: Duration::from_secs(120),
                syn_recv: Duration::from_secs(60),
                established: Duration::from_secs(432_000),
                fin_wait: Duration::from_secs(120),
                close_wait: Duration::from_secs(60),
                last_ack: Duration::from_secs(30),
                time_wait: Duration::from_secs(120),
                close: Duration::from_secs(10),
                syn_sent2: Duration::from_secs(120),
                retransmitted: Duration::from_secs(300),
                unacknowledged: Duration::from_secs(300),
                picked_up: Duration::from_secs(300),
            },
            icmp: Duration::from_secs(30),
            sctp: SctpTimeouts::linux(),
            generic: Duration::from_secs(600),
            reassembly: [Duration::from_secs(30), Duration::from_secs(60)],
        }
    }
}

impl SctpTimeouts {
    /// Linux's; no RFC sets others.
    pub const fn linux() -> Self {
        Self {
            cookie_wait: Duration::from_secs(3),
            cookie_echoed: Duration::from_secs(3),
            established: Duration::from_secs(210),
            shutdown_sent: Duration::from_secs(3),
            shutdown_received: Duration::from_secs(3),
            shutdown_ack_sent: Duration::from_secs(3),
            closed: Duration::from_secs(10),
            heartbeat_sent: Duration::from_secs(30),
        }
    }
}
