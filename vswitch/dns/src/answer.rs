//! From a query to its answer.

use crate::counters::{Code, Counters, QueryType};
use crate::forward::Known;
use crate::kubernetes::usual_pod_name;
use crate::message::{Draft, Question, Read, Section, read};
use crate::name::DomainName;
use crate::zone::{Data, Node, Zone};

/// For how many seconds an answer is believed, also that something is not there. Pods come and go.
pub const TTL: u32 = 5;
/// So many names may stand for each other in a row.
const MAX_CHAIN: usize = 8;
/// So many addresses are added for what SRV records name.
const MAX_ADDITIONAL: usize = 16;

/// What a query came by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Transport {
    /// A datagram, whose sender may be anybody, and whose answer must be short.
    Udp,
    /// A connection.
    Tcp,
}

/// What becomes of a query.
#[derive(Debug)]
pub enum Reply {
    /// This is the answer.
    Answer(Vec<u8>),
    /// It is about a name that others know.
    Foreign(Foreign),
    /// Nothing: it was no query.
    Nothing,
}

/// A query for others, whose answer is still owed.
#[derive(Clone, Debug)]
pub struct Foreign {
    /// The query.
    pub question: Question,
    /// What it came by.
    pub transport: Transport,
    /// The names that the one that was asked for stands for, one after the other: others are asked for the last.
    pub chain: Vec<DomainName>,
}

/// What a zone says about a name.
enum Found<'a> {
    /// Nobody has it.
    Missing,
    /// It exists, and has perhaps records of other types.
    Nothing,
    /// It is another's as well.
    Alias(&'a DomainName),
    /// Records of the type.
    Records(Vec<&'a Data>),
    /// What stands for all there is.
    Anything,
    /// What the zone says of itself.
    OfZone,
}

/// Answers queries about what a zone says.
#[derive(Debug)]
pub struct Resolver {
    zone: Zone,
    /// Turns with each answer, so that each of several addresses is the first one as often as the others.
    turn: usize,
    counters: Counters,
}

impl Resolver {
    /// Of this zone.
    pub fn new(zone: Zone) -> Self {
        Self { zone, turn: 0, counters: Counters::default() }
    }

    /// Goes on with another zone.
    pub fn install(&mut self, zone: Zone) {
        self.zone = zone;
    }

    /// The zone.
    pub fn zone(&self) -> &Zone {
        &self.zone
    }

    /// Queries so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Answers a query, if it is about a name of ours.
    pub fn query(&mut self, octets: &[u8], transport: Transport) -> Reply {
        let question = match read(octets) {
            Read::Question(question) => question,
            Read::Wrong(code, answer) => {
                self.counters.answered(QueryType::Other, code);
                return Reply::Answer(answer);
            }
            Read::Ignored => {
                self.counters.ignored += 1;
                return Reply::Nothing;
            }
        };
        if question.is_of_another_version() {
            return self.refuse(&question, transport, Code::BadVers);
        }
        let transfer = matches!(question.kind(), QueryType::Axfr | QueryType::Ixfr);
        if transfer || !question.is_internet() {
            return self.refuse(&question, transport, Code::Refused);
        }
        if !self.zone.is_ours(question.name().wire()) {
            self.counters.foreign += 1;
            return Reply::Foreign(Foreign { question: *question, transport, chain: Vec::new() });
        }
        self.turn = self.turn.wrapping_add(1);
        match self.resolve(&question) {
            Ok((code, draft)) => self.send(&question, transport, code, draft),
            Err(chain) => {
                self.counters.foreign += 1;
                Reply::Foreign(Foreign { question: *question, transport, chain })
            }
        }
    }

    /// The answer to a query for others that nobody has answered. What is known here is told.
    pub fn fail(&mut self, foreign: &Foreign) -> Reply {
        let Foreign { question, transport, chain } = foreign;
        if chain.is_empty() {
            return self.refuse(question, *transport, Code::ServFail);
        }
        let mut draft = Draft::new(question, Code::NoError, true);
        let mut owner = None;
        for target in chain {
            draft.alias(owner, target);
            owner = Some(target);
        }
        self.send(question, *transport, Code::NoError, draft)
    }

    /// The answer to a query for others, who have said this so many seconds ago.
    pub fn pass_on(&mut self, foreign: &Foreign, known: &Known, age: u32) -> Reply {
        let draft = foreign.draft(known, age);
        self.send(&foreign.question, foreign.transport, draft.code(), draft)
    }

    fn refuse(&mut self, question: &Question, transport: Transport, code: Code) -> Reply {
        self.send(question, transport, code, Draft::new(question, code, false))
    }

    fn send(&mut self, question: &Question, transport: Transport, code: Code, draft: Draft) -> Reply {
        let limit = match transport {
            Transport::Udp => question.limit(),
            Transport::Tcp => usize::from(u16::MAX),
        };
        let Some((octets, truncated)) = draft.finish(limit) else {
            self.counters.ignored += 1;
            return Reply::Nothing;
        };
        self.counters.answered(question.kind(), code);
        self.counters.truncated += u64::from(truncated);
        Reply::Answer(octets)
    }

    /// Looks a name up, and what it stands for, and so on.
    ///
    /// # Errors
    /// What it stands for, of which others know the last.
    fn resolve(&self, question: &Question) -> Result<(Code, Draft), Vec<DomainName>> {
        let mut chain: Vec<&DomainName> = Vec::new();
        let (code, found) = loop {
            let name = chain.last().copied().unwrap_or(question.name());
            match self.find(name, question.kind(), question.record_type()) {
                Found::Missing => break (Code::NxDomain, Found::Missing),
                Found::Alias(target) if chain.len() < MAX_CHAIN => {
                    chain.push(target);
                    if !self.zone.is_ours(target.wire()) {
                        return Err(chain.into_iter().cloned().collect());
                    }
                }
                Found::Alias(target) => break (Code::ServFail, Found::Alias(target)),
                found @ (Found::Nothing | Found::Records(_) | Found::Anything | Found::OfZone) => {
                    break (Code::NoError, found);
                }
            }
        };
        if code == Code::ServFail {
            return Ok((code, Draft::new(question, code, false)));
        }
        let mut draft = Draft::new(question, code, true);
        let mut owner = None;
        for target in chain {
            draft.alias(owner, target);
            owner = Some(target);
        }
        self.write(&mut draft, question, owner, &found);
        Ok((code, draft))
    }

    /// Writes what was found about the last name of a chain: `owner`, or the name that was asked for.
    fn write(&self, draft: &mut Draft, question: &Question, owner: Option<&DomainName>, found: &Found<'_>) {
        let name = owner.unwrap_or(question.name());
        let apex = self.zone.apex_of(name.wire()).map(DomainName::of_wire);
        match found {
            Found::Missing | Found::Nothing => {
                // A name of ours that is in no zone of ours begins one of its own.
                let apex = apex.unwrap_or_else(|| name.clone());
                draft.soa(Section::Authority, &apex, &self.zone);
            }
            Found::Records(all) => {
                let first = self.turn % all.len().max(1);
                for data in all[first..].iter().chain(&all[..first]) {
                    draft.answer(owner, data);
                }
                self.write_additional(draft, all);
            }
            Found::Anything => draft.hinfo(),
            Found::OfZone => {
                if question.kind() == QueryType::Soa {
                    draft.soa(Section::Answer, name, &self.zone);
                } else {
                    draft.ns(name, &self.zone);
                }
            }
            // All that is known has been written.
            Found::Alias(_) => {}
        }
    }

    /// Adds the addresses of those whom SRV records name (RFC 2782).
    fn write_additional(&self, draft: &mut Draft, all: &[&Data]) {
        let targets = all.iter().filter_map(|data| match data {
            Data::Srv(srv) => Some(&srv.target),
            Data::A(_) | Data::Aaaa(_) | Data::Cname(_) | Data::Ptr(_) | Data::Txt(_) => None,
        });
        let mut targets: Vec<&DomainName> = targets.collect();
        targets.sort_unstable();
        targets.dedup();
        let known = targets.iter().filter_map(|target| Some((target, self.zone.node(target.wire())?)));
        let addresses = known.flat_map(|(target, node)| unique(node).map(move |data| (*target, data)));
        let addresses = addresses.filter(|(_, data)| matches!(data, Data::A(_) | Data::Aaaa(_)));
        for (target, data) in addresses.take(MAX_ADDITIONAL) {
            draft.additional(target, data);
        }
    }

    fn find(&self, name: &DomainName, kind: QueryType, number: u16) -> Found<'_> {
        let node = self.zone.node(name.wire()).or_else(|| {
            let usual = usual_pod_name(name.wire(), &self.zone.domain)?;
            self.zone.node(usual.wire())
        });
        let Some(node) = node else { return Found::Missing };
        let is_apex = self.zone.apexes.contains(name);
        if kind == QueryType::Any && (is_apex || !node.entries.is_empty()) {
            return Found::Anything;
        }
        if matches!(kind, QueryType::Soa | QueryType::Ns) && is_apex {
            return Found::OfZone;
        }
        let records: Vec<&Data> = unique(node).filter(|data| number_of(data) == number).collect();
        if !records.is_empty() {
            return Found::Records(records);
        }
        let alias = node.data().find_map(|data| match data {
            Data::Cname(target) => Some(target),
            Data::A(_) | Data::Aaaa(_) | Data::Ptr(_) | Data::Srv(_) | Data::Txt(_) => None,
        });
        alias.map_or(Found::Nothing, Found::Alias)
    }
}

/// What is said of a name, each once however many say it.
fn unique(node: &Node) -> impl Iterator<Item = &Data> {
    let several = node.entries.windows(2).any(|pair| pair[0].owner != pair[1].owner);
    let mut seen = std::collections::HashSet::new();
    node.data().filter(move |data| !several || seen.insert(*data))
}

/// The number of a record's type.
const fn number_of(data: &Data) -> u16 {
    match data {
        Data::A(_) => 1,
        Data::Cname(_) => 5,
        Data::Ptr(_) => 12,
        Data::Txt(_) => 16,
        Data::Aaaa(_) => 28,
        Data::Srv(_) => 33,
    }
}
