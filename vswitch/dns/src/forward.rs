//! Names that others know: what is asked upstream, which answers are believed, and what the client gets of them.
//!
//! Nothing here sends anything. Whoever does gives each attempt an identifier and the case of its letters by chance, and a
//! port of its own: an answer is believed only if it repeats the first two (RFC 5452 section 4.3, and what is known as
//! 0x20), and it must have come from where the question went to.

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, RData, Record, RecordType};

use crate::answer::Foreign;
use crate::message::{Draft, MAX_UDP};
use crate::name::{DomainName, labels};

/// The longest that anything is believed, in seconds.
const MAX_TTL: u32 = 86_400;
/// The longest that it is believed that something is not there (RFC 2308 section 5).
const MAX_NEGATIVE: u32 = 900;

/// A question as it was sent upstream.
#[derive(Clone, Debug)]
pub struct Attempt {
    id: u16,
    query: Query,
}

/// What others say.
#[derive(Clone, Debug)]
pub struct Known {
    message: Message,
    /// For how many seconds it may be told again.
    ttl: u32,
}

/// What a datagram or message from upstream is.
#[derive(Clone, Debug)]
pub enum Heard {
    /// The answer.
    Answer(Box<Known>),
    /// The answer is too long for a datagram: to be asked again over TCP.
    Truncated,
    /// The server does not answer this: another is to be asked.
    Refused,
    /// Not an answer to this question.
    Stray,
}

impl Foreign {
    /// The name that others are asked for.
    pub fn name(&self) -> &DomainName {
        self.chain.last().unwrap_or(self.question.name())
    }

    /// The question for upstream, with an identifier and the case of letters by chance.
    pub fn attempt(&self, id: u16, case: u128) -> Option<(Attempt, Vec<u8>)> {
        let mut number = 0u32;
        let mixed: Vec<Vec<u8>> = labels(self.name().wire())
            .map(|label| {
                let letters = label.iter().map(|letter| {
                    number = number.wrapping_add(1);
                    if case.rotate_left(number) & 1 == 1 { letter.to_ascii_uppercase() } else { *letter }
                });
                letters.collect()
            })
            .collect();
        let name = Name::from_labels(mixed.iter().map(Vec::as_slice)).ok()?;
        let mut query = Query::query(name, RecordType::from(self.question.record_type()));
        query.query_class = DNSClass::IN;
        let mut message = Message::new(id, MessageType::Query, OpCode::Query);
        message.metadata.recursion_desired = true;
        message.metadata.checking_disabled = self.question.checking_disabled();
        message.queries.push(query.clone());
        let mut edns = Edns::new();
        edns.set_max_payload(MAX_UDP).set_dnssec_ok(self.question.dnssec_ok());
        message.edns = Some(edns);
        let octets = message.to_vec().ok()?;
        Some((Attempt { id, query }, octets))
    }

    /// What the client gets of what others say, which was heard so many seconds ago.
    pub(crate) fn draft(&self, known: &Known, age: u32) -> Draft {
        let mut draft = Draft::of_others(&self.question, &known.message);
        let mut owner = None;
        for target in &self.chain {
            draft.alias(owner, target);
            owner = Some(target);
        }
        let older = |record: &Record| {
            let mut record = record.clone();
            record.ttl = record.ttl.min(MAX_TTL).saturating_sub(age);
            record
        };
        draft.copy(self.name(), owner, known.message.answers.iter().map(older));
        draft.copy_authorities(known.message.authorities.iter().map(older));
        draft
    }
}

impl Attempt {
    /// Whether what came is the answer, from the right place.
    pub fn hear(&self, octets: &[u8]) -> Heard {
        let Ok(message) = Message::from_vec(octets) else { return Heard::Stray };
        let header = &message.metadata;
        if header.id != self.id || header.message_type != MessageType::Response {
            return Heard::Stray;
        }
        // Some answer what they do not understand without repeating it.
        let refuses = [ResponseCode::FormErr, ResponseCode::NotImp];
        if message.queries.is_empty() && refuses.contains(&header.response_code) {
            return Heard::Refused;
        }
        let [asked] = &message.queries[..] else { return Heard::Stray };
        let same = asked.query_type == self.query.query_type
            && asked.query_class == self.query.query_class
            && asked.name.eq_case(&self.query.name);
        if !same {
            return Heard::Stray;
        }
        if header.truncation {
            return Heard::Truncated;
        }
        if ![ResponseCode::NoError, ResponseCode::NXDomain].contains(&header.response_code) {
            return Heard::Refused;
        }
        let ttl = ttl(&message);
        Heard::Answer(Box::new(Known { message, ttl }))
    }
}

impl Known {
    /// For how many seconds it may be told again; not at all if 0.
    pub fn ttl(&self) -> u32 {
        self.ttl
    }
}

/// For how long a message is believed.
fn ttl(message: &Message) -> u32 {
    let negative = message.authorities.iter().find_map(|record| {
        let RData::SOA(soa) = &record.data else { return None };
        Some(record.ttl.min(soa.minimum).min(MAX_NEGATIVE))
    });
    let answers = message.answers.iter().map(|record| record.ttl).min();
    let is_negative = message.metadata.response_code != ResponseCode::NoError || answers.is_none();
    let positive = answers.unwrap_or(MAX_TTL).min(MAX_TTL);
    if is_negative { negative.unwrap_or(0).min(positive) } else { positive }
}
