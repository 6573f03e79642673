//! The words of an expression, and what is told of a wrong one.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use super::{MAX_EXPRESSION, MAX_WORDS};

/// What an expression may begin with.
pub(super) const TERMS: &str =
    "not, (, host, net, port, portrange, src, dst, ether, ip, ip6, arp, tcp, udp, sctp, icmp, icmp6 or vlan";

/// Words of pcap-filter(7) that mean something there and nothing here.
const UNSUPPORTED: &str = "action addr1 addr2 addr3 addr4 address1 address2 address3 address4 aarp ah atalk bcc broadcast byte \
    carp clnp connectmsg csnp decnet dir direction dpc es-is esis esp fddi fisu gateway geneve greater \
    hdpc hopc hslc hsls iface ifindex ifname igmp igrp iih ilmic inbound ipx is-is isis iso l1 l2 lane \
    lat len less link llc lsp lssu lsu mask metac metaconnect mopdl moprc mpls msu multicast netbeui oam \
    oamf4 oamf4ec oamf4sc on opc outbound pf pim ppp pppoed pppoes proto protochain psnp ra radio rarp \
    reason rnr rset rulenum ruleset sca sio slip sls snp srnr stp subrulenum subtype ta tr type vci vpi \
    vrrp wlan";

/// Why an expression is none.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("filter, {place}: {problem}")]
pub struct FilterError {
    place: String,
    problem: String,
}

/// A word and the column, from 1, that it begins in.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word<'a> {
    pub(super) text: &'a str,
    pub(super) column: usize,
}

impl Word<'_> {
    /// The error that this word is, or the end if it is empty.
    pub(super) fn wrong(self, problem: impl Into<String>) -> FilterError {
        let place = match self.text {
            "" => "at its end".into(),
            text => format!("{text:?} at column {}", self.column),
        };
        FilterError { place, problem: problem.into() }
    }
}

/// Cuts a text into words, no more than are allowed; the signs of `and`, `or` and `not` become those words.
pub(super) fn words(text: &str) -> Result<Vec<Word<'_>>, FilterError> {
    let whole = |problem| FilterError { place: "as a whole".into(), problem };
    if text.len() > MAX_EXPRESSION {
        return Err(whole(format!("it has {} octets; at most {MAX_EXPRESSION} are read", text.len())));
    }
    let mut words = Vec::new();
    let mut rest = text;
    let mut column = 1;
    while let Some(first) = rest.chars().next() {
        let (len, name) = match first {
            c if c.is_whitespace() => (c.len_utf8(), None),
            '(' | ')' => (1, Some(&rest[..1])),
            '!' => (1, Some("not")),
            '&' if rest.starts_with("&&") => (2, Some("and")),
            '|' if rest.starts_with("||") => (2, Some("or")),
            _ => {
                let ends = |c: char| c.is_whitespace() || "()!&|".contains(c);
                // A lone & or | is a word, so that it can be told.
                let len = rest.find(ends).map_or(rest.len(), |at| at.max(first.len_utf8()));
                (len, Some(&rest[..len]))
            }
        };
        if let Some(text) = name {
            let word = Word { text, column };
            if text.contains(['[', ']', '<', '>', '=', '&', '|', '+', '*', '^', '%', '\\']) {
                return Err(word.wrong(format!(
                    "octets of a frame cannot be compared in this subset of pcap-filter(7); expected {TERMS}"
                )));
            }
            words.push(word);
        }
        column += rest[..len].chars().count();
        rest = &rest[len..];
    }
    if words.len() > MAX_WORDS {
        return Err(whole(format!("it has {} words; at most {MAX_WORDS} are read", words.len())));
    }
    Ok(words)
}

/// Whether it is a word of pcap-filter(7) that means nothing here.
pub(super) fn is_unsupported(text: &str) -> bool {
    UNSUPPORTED.split_whitespace().any(|word| word == text)
}

/// What to add when a word has a meaning elsewhere.
pub(super) fn unsupported(word: Word<'_>) -> &'static str {
    if is_unsupported(word.text) { "; this word of pcap-filter(7) is not supported here" } else { "" }
}
