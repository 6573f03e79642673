//! Messages: the only place that knows the crate that reads and writes them.

use hickory_proto::op::{Edns, Message, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA, CNAME, HINFO, NS, PTR, SOA, SRV, TXT};
use hickory_proto::rr::{DNSClass, Name, RData, Record};

use crate::answer::{TTL, Transport};
use crate::counters::{Code, QueryType};
use crate::name::DomainName;
use crate::zone::{Data, Srv, Zone};

/// The longest message over UDP, whatever a client says that it takes: what passes every link without fragments, so that
/// nobody is sent more than that in somebody else's name (RFC 9715 section 3.1).
pub const MAX_UDP: u16 = 1232;
/// What every client takes (RFC 1035 section 4.2.1).
const MIN_UDP: u16 = 512;
/// Octets of a header.
const HEADER: usize = 12;
/// The fewest octets of a record: a name that is a pointer, type, class, TTL and length.
const MIN_RECORD: usize = 12;

/// A query that could be read.
#[derive(Clone, Debug)]
pub struct Question {
    id: u16,
    recursion_desired: bool,
    checking_disabled: bool,
    asked: Query,
    name: DomainName,
    edns: Option<Offer>,
}

/// What the OPT record of a query says (RFC 6891).
#[derive(Clone, Copy, Debug)]
struct Offer {
    version: u8,
    payload: u16,
    dnssec_ok: bool,
}

/// What octets are.
pub(crate) enum Read {
    /// A query.
    Question(Box<Question>),
    /// A query that cannot be, and the answer to it.
    Wrong(Code, Vec<u8>),
    /// Nothing that may be answered: too short, or an answer itself.
    Ignored,
}

/// Reads a message.
pub(crate) fn read(octets: &[u8]) -> Read {
    let Some(header) = octets.first_chunk::<HEADER>() else { return Read::Ignored };
    if header[2] & 0x80 != 0 {
        return Read::Ignored;
    }
    let wrong = |code| Read::Wrong(code, bare(header, code));
    if (header[2] >> 3) & 0xf != 0 {
        return wrong(Code::NotImp);
    }
    // One question and no other number of them (RFC 9619 section 4).
    if [header[4], header[5]] != [0, 1] {
        return wrong(Code::FormErr);
    }
    let Ok(message) = Message::from_vec(octets) else { return wrong(Code::FormErr) };
    let Some(asked) = message.queries.first().cloned() else { return wrong(Code::FormErr) };
    let Ok(name) = DomainName::from_labels(asked.name.iter()) else { return wrong(Code::FormErr) };
    let offer = |edns: &Edns| Offer {
        version: edns.version(),
        payload: edns.max_payload(),
        dnssec_ok: edns.flags().dnssec_ok,
    };
    Read::Question(Box::new(Question {
        id: message.metadata.id,
        recursion_desired: message.metadata.recursion_desired,
        checking_disabled: message.metadata.checking_disabled,
        edns: message.edns.as_ref().map(offer),
        asked,
        name,
    }))
}

/// A query and its answer in a line, as CoreDNS writes it into its log: identifier, question, protocol, length, whether
/// signatures are asked for, and how much is taken; then code, flags and length of the answer. What cannot be read is `-`.
pub fn journal(query: &[u8], answer: &[u8], transport: Transport) -> String {
    let id = query.first_chunk().map_or(0, |id| u16::from_be_bytes(*id));
    let question = match read(query) {
        Read::Question(question) => Some(question),
        Read::Wrong(..) | Read::Ignored => None,
    };
    let words = question.as_ref().map_or_else(|| "- - -".to_owned(), |question| question.words());
    let signed = question.as_ref().is_some_and(|question| question.dnssec_ok());
    let (protocol, most) = match transport {
        Transport::Udp => {
            ("udp", question.as_ref().map_or(MIN_UDP, |q| q.edns.map_or(MIN_UDP, |edns| edns.payload)))
        }
        Transport::Tcp => ("tcp", u16::MAX),
    };
    let code =
        Message::from_vec(answer).map_or(ResponseCode::ServFail, |message| message.metadata.response_code);
    let known = Code::ALL.into_iter().find(|known| response_code(*known) == code);
    let code = known.map_or_else(|| u16::from(code).to_string(), |known| known.name().to_owned());
    let flags = answer.get(2..4).map_or(0, |flags| u16::from_be_bytes([flags[0], flags[1]]));
    let flags: Vec<&str> = FLAGS.iter().filter(|(bit, _)| flags & bit != 0).map(|(_, name)| *name).collect();
    let (asked, answered) = (query.len(), answer.len());
    format!("{id} \"{words} {protocol} {asked} {signed} {most}\" {code} {} {answered}", flags.join(","))
}

/// The bits of a header that are either set or not (RFC 1035 section 4.1.1, RFC 4035 section 3).
const FLAGS: [(u16, &str); 7] = [
    (0x8000, "qr"),
    (0x0400, "aa"),
    (0x0200, "tc"),
    (0x0100, "rd"),
    (0x0080, "ra"),
    (0x0020, "ad"),
    (0x0010, "cd"),
];

/// An answer of a header alone, to what cannot be read further.
fn bare(header: &[u8; HEADER], code: Code) -> Vec<u8> {
    let mut answer = vec![0; HEADER];
    answer[..2].copy_from_slice(&header[..2]);
    // A response, with the opcode and whether recursion is desired as they came.
    answer[2] = 0x80 | (header[2] & 0x79);
    answer[3] = u8::try_from(code.number()).unwrap_or(0) & 0xf;
    answer
}

impl Question {
    /// The name that is asked for.
    pub fn name(&self) -> &DomainName {
        &self.name
    }

    /// The number of the type that is asked for.
    pub fn record_type(&self) -> u16 {
        self.asked.query_type.into()
    }

    /// The same as it is counted.
    pub fn kind(&self) -> QueryType {
        QueryType::of(self.record_type())
    }

    /// Whether signatures are asked for (RFC 3225).
    pub fn dnssec_ok(&self) -> bool {
        self.edns.is_some_and(|edns| edns.dnssec_ok)
    }

    /// Whether the client checks signatures itself.
    pub(crate) fn checking_disabled(&self) -> bool {
        self.checking_disabled
    }

    /// Whether it is of the only class there still is.
    pub(crate) fn is_internet(&self) -> bool {
        self.asked.query_class == DNSClass::IN
    }

    /// Whether it is of a version of EDNS that there is not.
    pub(crate) fn is_of_another_version(&self) -> bool {
        self.edns.is_some_and(|edns| edns.version > 0)
    }

    /// What is asked, in words.
    fn words(&self) -> String {
        format!("{} {} {}", self.asked.query_type, self.asked.query_class, self.name)
    }

    /// How long an answer over UDP may be.
    pub(crate) fn limit(&self) -> usize {
        let offered = self.edns.map_or(MIN_UDP, |edns| edns.payload);
        offered.clamp(MIN_UDP, MAX_UDP).into()
    }
}

/// An answer that is being written.
pub(crate) struct Draft {
    message: Message,
    /// As it was asked, in its own case.
    asked: Name,
}

/// The sections that records of a zone's own stand in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section {
    Answer,
    Authority,
}

impl Draft {
    pub(crate) fn new(question: &Question, code: Code, authoritative: bool) -> Self {
        let mut message = Message::response(question.id, OpCode::Query);
        let header = &mut message.metadata;
        header.authoritative = authoritative;
        header.recursion_desired = question.recursion_desired;
        header.recursion_available = true;
        header.checking_disabled = question.checking_disabled;
        header.response_code = response_code(code);
        message.queries.push(question.asked.clone());
        if let Some(offer) = question.edns {
            let mut edns = Edns::new();
            edns.set_max_payload(MAX_UDP).set_dnssec_ok(offer.dnssec_ok);
            message.edns = Some(edns);
        }
        Self { message, asked: question.asked.name.clone() }
    }

    /// With what others say of themselves in the header.
    pub(crate) fn of_others(question: &Question, other: &Message) -> Self {
        let mut draft = Self::new(question, Code::NoError, false);
        draft.message.metadata.response_code = other.metadata.response_code;
        draft.message.metadata.authentic_data = other.metadata.authentic_data;
        draft
    }

    /// Adds that a name, or the one that was asked for, is another's.
    pub(crate) fn alias(&mut self, owner: Option<&DomainName>, target: &DomainName) {
        self.answer(owner, &Data::Cname(target.clone()));
    }

    /// Adds answers of others. They were asked for `upstream` in the case of chance; the client knows it as `owner`, or as it
    /// has asked itself.
    pub(crate) fn copy(
        &mut self,
        upstream: &DomainName,
        owner: Option<&DomainName>,
        records: impl Iterator<Item = Record>,
    ) {
        let known = owner.map_or_else(|| self.asked.clone(), name);
        for mut record in records {
            if is_same(&record.name, upstream) {
                record.name.clone_from(&known);
            }
            self.message.answers.push(record);
        }
    }

    /// Adds what others say of their zones.
    pub(crate) fn copy_authorities(&mut self, records: impl Iterator<Item = Record>) {
        self.message.authorities.extend(records);
    }

    /// Adds an answer, about the name that was asked for if no other is named.
    pub(crate) fn answer(&mut self, owner: Option<&DomainName>, data: &Data) {
        let owner = owner.map_or_else(|| self.asked.clone(), name);
        self.message.answers.push(Record::from_rdata(owner, TTL, rdata(data)));
    }

    /// Adds what the client will ask for next.
    pub(crate) fn additional(&mut self, owner: &DomainName, data: &Data) {
        self.message.additionals.push(Record::from_rdata(name(owner), TTL, rdata(data)));
    }

    /// Adds what a zone says of itself. Its minimum is for how long it is believed that something is not there (RFC 2308
    /// section 5).
    pub(crate) fn soa(&mut self, section: Section, apex: &DomainName, zone: &Zone) {
        let master = name(&zone.server);
        let mailbox = zone.domain.beneath(&["hostmaster"]).unwrap_or_else(|_| zone.domain.clone());
        let soa = SOA::new(master, name(&mailbox), zone.serial, 7200, 1800, 86_400, TTL);
        let record = Record::from_rdata(name(apex), TTL, RData::SOA(soa));
        self.section(section).push(record);
    }

    /// Adds the zone's server.
    pub(crate) fn ns(&mut self, apex: &DomainName, zone: &Zone) {
        let record = Record::from_rdata(name(apex), TTL, RData::NS(NS(name(&zone.server))));
        self.message.answers.push(record);
    }

    /// Adds what is said instead of everything there is (RFC 8482 section 4.2).
    pub(crate) fn hinfo(&mut self) {
        let hinfo = HINFO::new("RFC8482".to_owned(), String::new());
        self.message.answers.push(Record::from_rdata(self.asked.clone(), TTL, RData::HINFO(hinfo)));
    }

    fn section(&mut self, section: Section) -> &mut Vec<Record> {
        match section {
            Section::Answer => &mut self.message.answers,
            Section::Authority => &mut self.message.authorities,
        }
    }

    /// How it answers, as it is counted.
    pub(crate) fn code(&self) -> Code {
        if self.message.metadata.response_code == ResponseCode::NXDomain {
            Code::NxDomain
        } else {
            Code::NoError
        }
    }

    /// The octets, as many as may be, and whether answers had to be left out: then the client is to ask over TCP. None if
    /// not even the question fits.
    pub(crate) fn finish(mut self, limit: usize) -> Option<(Vec<u8>, bool)> {
        let octets = self.message.to_vec().ok()?;
        if octets.len() <= limit {
            return Some((octets, false));
        }
        // Nobody needs these.
        self.message.additionals.clear();
        let mut octets = self.message.to_vec().ok()?;
        if octets.len() <= limit {
            return Some((octets, false));
        }
        self.message.metadata.truncation = true;
        let all = std::mem::take(&mut self.message.answers);
        octets = self.message.to_vec().ok().filter(|octets| octets.len() <= limit)?;
        // As many as fit, which are those in front of the first that does not.
        let (mut fit, mut unfit) = (0, all.len().min(limit / MIN_RECORD) + 1);
        while fit + 1 < unfit {
            let count = fit.midpoint(unfit);
            self.message.answers = all.get(..count).unwrap_or(&all).to_vec();
            let longer = self.message.to_vec().ok()?;
            if longer.len() <= limit {
                (octets, fit) = (longer, count);
            } else {
                unfit = count;
            }
        }
        Some((octets, true))
    }
}

fn is_same(name: &Name, own: &DomainName) -> bool {
    name.iter().map(<[u8]>::to_ascii_lowercase).eq(own.labels().map(<[u8]>::to_vec))
}

fn response_code(code: Code) -> ResponseCode {
    match code {
        Code::NoError => ResponseCode::NoError,
        Code::FormErr => ResponseCode::FormErr,
        Code::ServFail => ResponseCode::ServFail,
        Code::NxDomain => ResponseCode::NXDomain,
        Code::NotImp => ResponseCode::NotImp,
        Code::Refused => ResponseCode::Refused,
        Code::BadVers => ResponseCode::BADVERS,
    }
}

/// The same name in the other crate's words. What is one here is one there.
fn name(own: &DomainName) -> Name {
    Name::from_labels(own.labels()).unwrap_or_else(|_| Name::root())
}

fn rdata(data: &Data) -> RData {
    match data {
        Data::A(address) => RData::A(A(*address)),
        Data::Aaaa(address) => RData::AAAA(AAAA(*address)),
        Data::Cname(target) => RData::CNAME(CNAME(name(target))),
        Data::Ptr(target) => RData::PTR(PTR(name(target))),
        Data::Srv(Srv { priority, weight, port, target }) => {
            RData::SRV(SRV::new(*priority, *weight, *port, name(target)))
        }
        Data::Txt(text) => RData::TXT(TXT::new(vec![text.to_string()])),
    }
}
