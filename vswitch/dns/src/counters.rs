//! What was asked and how it was answered, counted.

use std::collections::BTreeMap;

/// How a query was answered (RFC 6895 section 2.3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[expect(missing_docs, reason = "the names are those of the registry, which defines them")]
pub enum Code {
    NoError,
    FormErr,
    ServFail,
    NxDomain,
    NotImp,
    Refused,
    BadVers,
}

impl Code {
    /// All there are.
    pub(crate) const ALL: [Self; 7] = [
        Self::NoError,
        Self::FormErr,
        Self::ServFail,
        Self::NxDomain,
        Self::NotImp,
        Self::Refused,
        Self::BadVers,
    ];

    /// The number.
    pub const fn number(self) -> u16 {
        match self {
            Self::NoError => 0,
            Self::FormErr => 1,
            Self::ServFail => 2,
            Self::NxDomain => 3,
            Self::NotImp => 4,
            Self::Refused => 5,
            Self::BadVers => 16,
        }
    }

    /// The name in the registry.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoError => "NOERROR",
            Self::FormErr => "FORMERR",
            Self::ServFail => "SERVFAIL",
            Self::NxDomain => "NXDOMAIN",
            Self::NotImp => "NOTIMP",
            Self::Refused => "REFUSED",
            Self::BadVers => "BADVERS",
        }
    }
}

/// What was asked for. Clients choose the number, so those that are seldom are counted together.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
#[expect(missing_docs, reason = "the names are those of the registry, which defines them")]
pub enum QueryType {
    A,
    Ns,
    Cname,
    Soa,
    Ptr,
    Mx,
    Txt,
    Aaaa,
    Srv,
    Svcb,
    Https,
    Ixfr,
    Axfr,
    Any,
    /// Another one, or a query that could not be read so far.
    Other,
}

impl QueryType {
    const NUMBERS: [(u16, Self); 14] = [
        (1, Self::A),
        (2, Self::Ns),
        (5, Self::Cname),
        (6, Self::Soa),
        (12, Self::Ptr),
        (15, Self::Mx),
        (16, Self::Txt),
        (28, Self::Aaaa),
        (33, Self::Srv),
        (64, Self::Svcb),
        (65, Self::Https),
        (251, Self::Ixfr),
        (252, Self::Axfr),
        (255, Self::Any),
    ];

    /// That of a number.
    pub fn of(number: u16) -> Self {
        let known = Self::NUMBERS.iter().find(|(own, _)| *own == number);
        known.map_or(Self::Other, |(_, kind)| *kind)
    }

    /// The name in the registry.
    pub const fn name(self) -> &'static str {
        match self {
            Self::A => "A",
            Self::Ns => "NS",
            Self::Cname => "CNAME",
            Self::Soa => "SOA",
            Self::Ptr => "PTR",
            Self::Mx => "MX",
            Self::Txt => "TXT",
            Self::Aaaa => "AAAA",
            Self::Srv => "SRV",
            Self::Svcb => "SVCB",
            Self::Https => "HTTPS",
            Self::Ixfr => "IXFR",
            Self::Axfr => "AXFR",
            Self::Any => "ANY",
            Self::Other => "other",
        }
    }
}

/// Queries so far. Bounded, whatever clients send.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Answers, by what was asked and how it was answered.
    pub answers: BTreeMap<(QueryType, Code), u64>,
    /// Answers that were cut to what fits a datagram.
    pub truncated: u64,
    /// Messages that are no queries, and were not answered.
    pub ignored: u64,
    /// Queries about names that are not ours.
    pub foreign: u64,
}

impl Counters {
    pub(crate) fn answered(&mut self, asked: QueryType, code: Code) {
        *self.answers.entry((asked, code)).or_default() += 1;
    }

    /// All answers.
    pub fn total(&self) -> u64 {
        self.answers.values().sum()
    }
}
