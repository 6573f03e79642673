//! Reading an expression.
//!
//! ```text
//! expression = term { ("and" | "or") (term | operand) }       equal precedence, from left to right
//! term       = "not" term | "(" expression ")" | primitive
//! primitive  = "ip" | "ip6" | "arp" | "tcp" | "udp" | "sctp" | "icmp" | "icmp6" | "vlan" [NUMBER]
//!            | [protocol] [direction] [type] operand          at least one of direction and type
//! protocol   = "ether" | "ip" | "ip6" | "arp" | "tcp" | "udp" | "sctp"
//! direction  = "src" | "dst" | "src or dst" | "dst or src" | "src and dst" | "dst and src"
//! type       = "host" | "net" | "port" | "portrange"
//! operand    = VALUE | "not" operand | "(" operand { ("and" | "or") operand } ")"
//! ```
//! An operand that follows `and` or `or` by itself takes the qualifiers of the primitive before: `port 80 or 443`.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::ToString as _;
use core::net::IpAddr;

use super::words::{FilterError, TERMS, Word, is_unsupported, unsupported, words};
use super::{Carrier, Direction, Expression, Families, Question, Test};
use crate::addr::{IpNet, MacAddr};
use crate::parse::{ethertype, protocol};

const IPV4: Carrier = Carrier { ethertype: ethertype::IPV4, addresses: [12, 16] };
const ARP: Carrier = Carrier { ethertype: ethertype::ARP, addresses: [14, 24] };
/// Reverse ARP (RFC 903) has ARP's layout.
const RARP: Carrier = Carrier { ethertype: 0x8035, addresses: [14, 24] };
const IPV6: Carrier = Carrier { ethertype: ethertype::IPV6, addresses: [8, 24] };

/// What stands in front of an operand.
#[derive(Clone, Copy, Debug)]
struct Qualifiers<'a> {
    protocol: Option<Word<'a>>,
    direction: Direction,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Host,
    Net,
    Port,
    PortRange,
}

fn type_of(word: &str) -> Option<Kind> {
    Some(match word {
        "host" => Kind::Host,
        "net" => Kind::Net,
        "port" => Kind::Port,
        "portrange" => Kind::PortRange,
        _ => return None,
    })
}

fn is_protocol(word: &str) -> bool {
    matches!(word, "ether" | "ip" | "ip6" | "arp" | "tcp" | "udp" | "sctp")
}

/// Reads an expression; none if there are no words.
pub(super) fn read(text: &str) -> Result<Option<Expression>, FilterError> {
    let words = words(text)?;
    if words.is_empty() {
        return Ok(None);
    }
    let end = Word { text: "", column: text.chars().count() + 1 };
    let mut reader = Reader { words: &words, end, tags: 0, last: None };
    let expression = reader.expression()?;
    match reader.next() {
        Word { text: "", .. } => Ok(Some(expression)),
        word if word.text == ")" => Err(word.wrong("no ( is open; expected and, or, or the end")),
        word => Err(word.wrong(format!("expected and, or, or the end{}", unsupported(word)))),
    }
}

/// Whether a word is part of the language, and so no value.
fn is_keyword(word: &str) -> bool {
    type_of(word).is_some()
        || is_protocol(word)
        || matches!(word, "" | ")" | "and" | "or" | "src" | "dst" | "vlan" | "icmp" | "icmp6")
        || is_unsupported(word)
}

struct Reader<'a> {
    words: &'a [Word<'a>],
    end: Word<'a>,
    /// How many tags the expression has named so far.
    tags: usize,
    /// The qualifiers that an operand by itself takes.
    last: Option<Qualifiers<'a>>,
}

impl<'a> Reader<'a> {
    fn peek(&self) -> Word<'a> {
        self.words.first().copied().unwrap_or(self.end)
    }

    fn next(&mut self) -> Word<'a> {
        let word = self.peek();
        self.words = self.words.get(1..).unwrap_or_default();
        word
    }

    /// Passes over the word if it is the next.
    fn take(&mut self, wanted: &str) -> bool {
        let found = self.peek().text == wanted;
        if found {
            self.next();
        }
        found
    }

    /// Joins what `part` reads by `and` and `or`, from left to right.
    fn joined(
        &mut self,
        part: impl Fn(&mut Self, bool) -> Result<Expression, FilterError>,
    ) -> Result<Expression, FilterError> {
        let mut left = part(self, true)?;
        loop {
            let join = match self.peek().text {
                "and" => Expression::And,
                "or" => Expression::Or,
                _ => return Ok(left),
            };
            self.next();
            left = join(Box::new((left, part(self, false)?)));
        }
    }

    fn expression(&mut self) -> Result<Expression, FilterError> {
        self.joined(|reader, first| match reader.last {
            Some(qualifiers) if !first && reader.stands_at_operand() => reader.operand(qualifiers),
            _ => reader.term(),
        })
    }

    /// Whether what comes next, behind `not` and parentheses, is a value and no new primitive.
    fn stands_at_operand(&self) -> bool {
        let value = self.words.iter().find(|word| !matches!(word.text, "not" | "("));
        value.is_some_and(|word| !is_keyword(word.text))
    }

    fn term(&mut self) -> Result<Expression, FilterError> {
        if self.take("not") {
            return Ok(Expression::Not(Box::new(self.term()?)));
        }
        let open = self.peek();
        if self.take("(") {
            self.last = None;
            let inner = self.expression()?;
            self.last = None;
            self.close(open)?;
            return Ok(inner);
        }
        self.primitive()
    }

    fn close(&mut self, open: Word<'_>) -> Result<(), FilterError> {
        let word = self.peek();
        if self.take(")") {
            return Ok(());
        }
        let more = unsupported(word);
        Err(word.wrong(format!("expected and, or, or the ) of the ( at column {}{more}", open.column)))
    }

    fn primitive(&mut self) -> Result<Expression, FilterError> {
        self.last = None;
        let first = self.next();
        let protocol = is_protocol(first.text).then_some(first);
        let start = if protocol.is_some() { self.peek() } else { first };
        let direction = match start.text {
            "src" | "dst" => {
                if protocol.is_some() {
                    self.next();
                }
                Some(self.direction(start.text))
            }
            _ => None,
        };
        let kind = if protocol.is_some() || direction.is_some() {
            let kind = type_of(self.peek().text);
            if kind.is_some() {
                self.next();
            }
            kind
        } else {
            type_of(first.text)
        };
        if direction.is_none() && kind.is_none() {
            return self.alone(first);
        }
        let qualifiers = Qualifiers {
            protocol,
            direction: direction.unwrap_or(Direction::Either),
            kind: kind.unwrap_or(Kind::Host),
        };
        self.last = Some(qualifiers);
        self.operand(qualifiers)
    }

    /// The direction that begins with `first`.
    fn direction(&mut self, first: &str) -> Direction {
        let other = if first == "src" { "dst" } else { "src" };
        if let [join, second, ..] = self.words
            && second.text == other
            && let "or" | "and" = join.text
        {
            let both = join.text == "and";
            self.words = &self.words[2..];
            return if both { Direction::Both } else { Direction::Either };
        }
        if first == "src" { Direction::Source } else { Direction::Destination }
    }

    /// A primitive of one word, or `vlan` with its number.
    fn alone(&mut self, word: Word<'a>) -> Result<Expression, FilterError> {
        const BOTH: Families = Families { v4: true, v6: true };
        let what = match word.text {
            "ip" => Question::EtherType(ethertype::IPV4),
            "ip6" => Question::EtherType(ethertype::IPV6),
            "arp" => Question::EtherType(ethertype::ARP),
            "tcp" => Question::Protocol(protocol::TCP, BOTH),
            "udp" => Question::Protocol(protocol::UDP, BOTH),
            "sctp" => Question::Protocol(protocol::SCTP, BOTH),
            "icmp" => Question::Protocol(protocol::ICMP, Families { v4: true, v6: false }),
            "icmp6" => Question::Protocol(protocol::ICMPV6, Families { v4: false, v6: true }),
            "vlan" => {
                let id = match self.peek().text {
                    number if number.starts_with(|c: char| c.is_ascii_digit()) => Some(vlan(self.next())?),
                    _ => None,
                };
                let test = Test::behind(self.tags, Question::Vlan(id));
                self.tags += 1;
                return Ok(Expression::Test(test));
            }
            "ether" => {
                let next = self.peek();
                let more = unsupported(next);
                return Err(next.wrong(format!("expected src, dst or host behind ether{more}")));
            }
            _ => return Err(word.wrong(format!("expected {TERMS}{}", unsupported(word)))),
        };
        Ok(Expression::Test(Test::behind(self.tags, what)))
    }

    fn operand(&mut self, qualifiers: Qualifiers<'a>) -> Result<Expression, FilterError> {
        if self.take("not") {
            return Ok(Expression::Not(Box::new(self.operand(qualifiers)?)));
        }
        let open = self.peek();
        if self.take("(") {
            let inner = self.joined(|reader, _| reader.operand(qualifiers))?;
            self.close(open)?;
            return Ok(inner);
        }
        let word = self.next();
        let what = match qualifiers.kind {
            Kind::Host | Kind::Net => place(qualifiers, word)?,
            Kind::Port | Kind::PortRange => ports(qualifiers, word)?,
        };
        Ok(Expression::Test(Test::behind(self.tags, what)))
    }
}

fn vlan(word: Word<'_>) -> Result<u16, FilterError> {
    number(word.text)
        .filter(|id| *id <= 4095)
        .ok_or_else(|| word.wrong("expected a VLAN identifier, 0 to 4095"))
}

/// A decimal number. libpcap takes one that begins with 0 as octal, which nobody means.
fn number(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain)
}

fn place(qualifiers: Qualifiers<'_>, word: Word<'_>) -> Result<Question, FilterError> {
    let Qualifiers { protocol, direction, kind } = qualifiers;
    match protocol {
        Some(protocol) if matches!(protocol.text, "tcp" | "udp" | "sctp") => {
            let name = protocol.text;
            return Err(protocol
                .wrong(format!("a host or net has no {name}; write {name} and host …, or {name} port …")));
        }
        Some(protocol) if protocol.text == "ether" => {
            if kind == Kind::Net {
                return Err(
                    protocol.wrong("expected ether host behind ether, there are no nets of MAC addresses")
                );
            }
            return match word.text.parse::<MacAddr>() {
                Ok(mac) => Ok(Question::Station(mac, direction)),
                Err(error) => Err(word.wrong(error.to_string())),
            };
        }
        Some(_) | None => {}
    }
    let net = match kind {
        Kind::Net => net(word)?,
        Kind::Host | Kind::Port | Kind::PortRange => host(word)?,
    };
    let name = protocol.map_or("", |word| word.text);
    let carriers: &[Carrier] = match (net, name) {
        (IpNet::V4(_), "") => &[IPV4, ARP, RARP],
        (IpNet::V4(_), "ip") => &[IPV4],
        (IpNet::V4(_), "arp") => &[ARP],
        (IpNet::V6(_), "" | "ip6") => &[IPV6],
        (IpNet::V4(_) | IpNet::V6(_), _) => {
            return Err(word.wrong(format!("{name} has no addresses of this family")));
        }
    };
    Ok(Question::Address(net, direction, carriers))
}

fn host(word: Word<'_>) -> Result<IpNet, FilterError> {
    if word.text.parse::<MacAddr>().is_ok() {
        return Err(word.wrong("a MAC address stands behind ether host, ether src or ether dst"));
    }
    let address: Result<IpAddr, _> = word.text.parse();
    let wrong = || word.wrong("expected an IPv4 or IPv6 address in full; names are not looked up");
    address.map(IpNet::from).map_err(|_| wrong())
}

fn net(word: Word<'_>) -> Result<IpNet, FilterError> {
    if let Ok(address) = word.text.parse::<IpAddr>() {
        return Ok(address.into());
    }
    let wrong = || word.wrong("expected a prefix such as 10.244.0.0/16 or fd00:10:244::/56");
    let net: IpNet = word.text.parse().map_err(|_| wrong())?;
    if net != net.trunc() {
        return Err(word.wrong(format!("bits behind the prefix are set; did you mean {}?", net.trunc())));
    }
    Ok(net)
}

fn ports(qualifiers: Qualifiers<'_>, word: Word<'_>) -> Result<Question, FilterError> {
    const ANY: &[u8] = &[protocol::SCTP, protocol::TCP, protocol::UDP];
    let protocols: &[u8] = match qualifiers.protocol {
        None => ANY,
        Some(Word { text: "tcp", .. }) => &[protocol::TCP],
        Some(Word { text: "udp", .. }) => &[protocol::UDP],
        Some(Word { text: "sctp", .. }) => &[protocol::SCTP],
        Some(other) => {
            let name = other.text;
            return Err(other.wrong(format!(
                "expected tcp, udp, sctp or nothing before port and portrange; write {name} and port …"
            )));
        }
    };
    let (first, last, expected) = match qualifiers.kind {
        Kind::PortRange => {
            let (first, last) = word.text.split_once('-').unwrap_or((word.text, word.text));
            (first, last, "expected two port numbers such as 8000-8080")
        }
        Kind::Port | Kind::Host | Kind::Net => {
            (word.text, word.text, "expected a port number, 0 to 65535; names are not looked up")
        }
    };
    match (number(first), number(last)) {
        (Some(first), Some(last)) => {
            let range = (first.min(last), first.max(last));
            Ok(Question::Ports(range, qualifiers.direction, protocols))
        }
        _ => Err(word.wrong(expected)),
    }
}
