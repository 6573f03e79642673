//! Capture filters in the language of pcap-filter(7), the part of it that a switched network needs.
//!
//! # Theory of Operation
//! `language` reads an expression into a tree of tests, once; `matching` holds a frame's octets against the tree, for
//! every frame that passes a captured port, without allocating. A filter says the same as libpcap's: whoever knows
//! `tcpdump` must not be surprised, and a frame that one of the two shows must be shown by the other. So the octets are
//! read where libpcap reads them and not through [`crate::parse`], which refuses the malformed packets that captures are
//! made to see. What follows from that:
//! - `ip`, `host` and all the others look at untagged frames until the expression says `vlan`; from that word on, in the
//!   order of the text, they look behind one tag (`vlan and vlan`: two).
//! - `tcp` and its like do not walk IPv6 extension headers, except that a fragment header may stand in between; `port`
//!   stops at any. `port` matches no IPv4 fragment but the first.
//! - A frame that ends within what a test has to read matches nothing, `not` included.
//!
//! It lives here and not with the command because a filter belongs where the copy is made: any embedder's
//! observer (`driver::Observer`) asks it before it copies, and a capture of few frames in heavy traffic loses none
//! and costs little.

mod language;
mod matching;
#[cfg(test)]
mod tests;
mod words;

use alloc::boxed::Box;
use core::str::FromStr;

pub use words::FilterError;

use crate::addr::{IpNet, MacAddr};
use crate::parse::ETHERNET_HEADER;

/// Octets of an expression.
pub const MAX_EXPRESSION: usize = 4096;
/// Words of an expression, which bounds how deep its tree is.
pub const MAX_WORDS: usize = 512;

/// What a capture shows. The default shows all.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Filter(Option<Expression>);

impl Filter {
    /// Whether the frame is wanted. Allocates nothing.
    pub fn matches(&self, frame: &[u8]) -> bool {
        self.0.as_ref().is_none_or(|expression| expression.holds(frame) == Some(true))
    }
}

impl FromStr for Filter {
    type Err = FilterError;

    /// Reads an expression; an empty one is the default.
    fn from_str(text: &str) -> Result<Self, FilterError> {
        language::read(text).map(Self)
    }
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Expression {
    Test(Test),
    Not(Box<Self>),
    And(Box<(Self, Self)>),
    Or(Box<(Self, Self)>),
}

/// One question about a frame.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Test {
    /// Where the Ethernet payload begins for this test: behind the tags that the expression has named before it.
    payload: usize,
    what: Question,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Question {
    EtherType(u16),
    /// A tag, and which VLAN it names.
    Vlan(Option<u16>),
    Station(MacAddr, Direction),
    /// An address, in packets of these kinds.
    Address(IpNet, Direction, &'static [Carrier]),
    /// What the IP header says is carried.
    Protocol(u8, Families),
    /// Ports in this range, both ends included, of these protocols.
    Ports((u16, u16), Direction, &'static [u8]),
}

/// A packet with addresses in it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Carrier {
    ethertype: u16,
    /// Where source and destination stand in it.
    addresses: [usize; 2],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Families {
    v4: bool,
    v6: bool,
}

/// Which of source and destination is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Direction {
    Source,
    Destination,
    Either,
    Both,
}

impl Test {
    const fn behind(tags: usize, what: Question) -> Self {
        Self { payload: ETHERNET_HEADER + tags * crate::parse::VLAN_TAG, what }
    }
}
