//! Where conversations go another way through us than through Linux, on purpose: each with the clause that says so. A line
//! that a conversation does not need fails the test.

use crate::exceptions::Ours;

/// One reason for differences.
pub(crate) struct Difference {
    pub(crate) ours: Ours,
    /// Conversations and their steps, counted from 1. Those without a family are of both; `*` stands for anything.
    pub(crate) places: &'static [(&'static str, &'static [usize])],
    pub(crate) reason: &'static str,
}

impl Difference {
    /// The place that a step of a conversation is, if it is one.
    pub(crate) fn place(&self, conversation: &str, step: usize) -> Option<&'static str> {
        let named = |pattern: &str, name: &str| match pattern.split_once('*') {
            Some((head, tail)) => name.starts_with(head) && name.ends_with(tail),
            None => name == pattern,
        };
        let mut places = self.places.iter();
        let (pattern, _) = places.find(|(pattern, steps)| {
            steps.contains(&step) && (named(pattern, conversation) || named(pattern, &conversation[3..]))
        })?;
        Some(pattern)
    }
}

pub(crate) const DIFFERENCES: &[Difference] = &[
    Difference {
        ours: Ours::Nothing,
        places: &[
            ("stranger asks a mapping (*", &[3]),
            ("udp unsolicited", &[1]),
            ("tcp unsolicited", &[1]),
            ("udp length (*", &[2]),
            ("tcp malformed (*, syn)", &[3]),
            ("tcp in the middle (inside, FA)", &[2, 3]),
            ("tcp in the middle (inside, SA)", &[2, 3]),
            ("tcp in the middle (inside, R*", &[2, 3]),
            ("tcp in the middle (outside, A)", &[1]),
            ("tcp in the middle (outside, PA)", &[1]),
            ("tcp in the middle (outside, FA)", &[3, 4]),
            ("tcp in the middle (outside, SA)", &[3, 4]),
            ("tcp in the middle (outside, R*", &[3, 4]),
            ("tcp at random (3)", &[15]),
        ],
        reason: "the address belongs to the translator: who calls without having been asked is not answered (RFC 5382 \
                 REQ-4; RFC 4787 REQ-8 calls it filtering); Linux answers as the host that has the address, too",
    },
    Difference {
        ours: Ours::Different,
        places: &[("udp unsolicited", &[2, 3]), ("udp length (*", &[3, 4])],
        reason: "such a call takes no port away: the inside keeps its own (RFC 4787 REQ-1); in Linux its answer occupies it",
    },
    Difference {
        ours: Ours::Different,
        places: &[("ports at random (ping, 22)", &[20])],
        reason: "an inside endpoint whose port was taken towards one destination has two mappings in both, and gets the one \
                 that kept its port towards a third; in Linux the later one (RFC 4787 REQ-1 says one, and *linux* shares)",
    },
    Difference {
        ours: Ours::Different,
        places: &[("hairpin to a mapping", &[2, 3])],
        reason: "RFC 4787 REQ-9: hosts inside reach each other's mappings; Linux says that the port is unreachable",
    },
    Difference {
        ours: Ours::Nothing,
        places: &[
            ("v4 error with a fault (quoted header)", &[2]),
            ("v4 error with a fault (quoted length)", &[2]),
            ("v4 error with a fault (quoted ttl)", &[2]),
        ],
        reason: "RFC 5508 REQ-3: an error is dropped that quotes a header with a wrong checksum; Linux passes it on",
    },
    Difference {
        ours: Ours::Frames(1),
        places: &[
            ("udp checksums (wrong)", &[4, 5]),
            ("ping with wrong checksum (later)", &[2, 3]),
            ("tcp malformed (checksum, data)", &[4]),
        ],
        reason: "RFC 1624: a wrong checksum stays exactly as wrong, and its receiver drops the packet; Linux sums up each \
                 packet, we those alone that begin or end something",
    },
    Difference {
        ours: Ours::Tracked,
        places: &[("tcp malformed (checksum, data)", &[5])],
        reason: "a consequence: what was passed on counts as sent",
    },
    Difference {
        ours: Ours::Tracked,
        places: &[("tcp reset (*window)", &[7]), ("tcp reset in window and a challenge", &[5])],
        reason: "RFC 5961 section 3: a RST in window that is not exact shortens the time and leaves no other trace; in Linux \
                 its number counts as sent, so that the connection is short-lived until that is acknowledged",
    },
    Difference {
        ours: Ours::Nothing,
        places: &[("tcp refused (1002)", &[2])],
        reason: "RFC 9293 section 3.10.7.3: a RST that answers a SYN has to acknowledge it exactly; Linux permits one more, \
                 which is meant for keep-alives",
    },
    Difference {
        ours: Ours::Frames(1),
        places: &[("tcp refused (1002)", &[3])],
        reason: "a consequence: the exact one that follows still finds its connection",
    },
    Difference {
        ours: Ours::Tracked,
        places: &[
            ("tcp in the middle (inside, A)", &[2]),
            ("tcp in the middle (inside, PA)", &[2]),
            ("tcp in the middle (inside, FA)", &[6]),
            ("tcp in the middle (inside, SA)", &[6]),
            ("tcp in the middle (inside, R*", &[6]),
            ("tcp in the middle (outside, A)", &[3]),
            ("tcp in the middle (outside, PA)", &[3]),
            ("tcp in the middle (outside, FA)", &[7]),
            ("tcp in the middle (outside, SA)", &[7]),
            ("tcp in the middle (outside, R*", &[7]),
            ("tcp picked up keep alive", &[2]),
        ],
        reason: "RFC 5382 REQ-5: a connection is established once both sides were heard; of one picked up in its middle \
                 Linux gives the full time one segment later",
    },
    Difference {
        ours: Ours::Tracked,
        places: &[("fragments (tcp, *", &[4, 5]), ("fragments of tcp are acknowledged (*", &[4, 6])],
        reason: "Linux puts datagrams together and so knows when all of a segment is acknowledged; we know where a fragment \
                 may end at most (RFC 4787 REQ-14 asks for no more), and wait for no acknowledgement",
    },
    Difference {
        ours: Ours::Frames(2),
        places: &[
            ("fragments with a fault (missing last)", &[1]),
            ("fragments with a fault (overlap)", &[1]),
        ],
        reason: "RFC 4787 REQ-14: fragments pass as they come once the first is known, and what overlaps is refused from \
                 then on, so that nobody can put it together; Linux waits until it has all of them",
    },
    Difference {
        ours: Ours::Different,
        places: &[("v4 fragments of two inside hosts", &[2])],
        reason: "RFC 6864 section 5.3.1: datagrams of two hosts behind one address have different identifications; Linux \
                 keeps those that the hosts chose",
    },
    Difference {
        ours: Ours::Different,
        places: &[("v6 fragments of two inside hosts", &[2])],
        reason: "identifications of 32 bits stay as the hosts chose them: nothing is put together and cut anew, as Linux does",
    },
    Difference {
        ours: Ours::Nothing,
        places: &[("v4 icmp types (13)", &[2])],
        reason: "RFC 1812 section 4.3.3.8: a router may answer timestamp requests; it need not",
    },
    Difference {
        ours: Ours::Nothing,
        places: &[("v6 icmpv6 types (130)", &[1])],
        reason: "RFC 3810 section 5: multicast listener queries belong to their link; Linux lets them pass untranslated",
    },
    Difference {
        ours: Ours::Nothing,
        places: &[("v6 icmpv6 types (139)", &[1])],
        reason: "RFC 4620 is an experiment that we do not take part in: node information queries have no connections",
    },
    Difference { ours: Ours::Tracked, places: &[("v6 icmpv6 types (139)", &[2])], reason: "a consequence" },
];
