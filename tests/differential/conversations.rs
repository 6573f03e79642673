//! Conversations through a Linux router that masquerades, and through ours.
//!
//! `conversations.py` plays each conversation of `nat_*.py` to the kernel and then, through a pipe, to a switch in memory
//! that is configured alike. A later step may depend on what came out of an earlier one, so what is sent may differ, too;
//! it is compared like what comes out. Beside what is masked in single packets, see there:
//! - ports and identifiers that a router chose at random are compared by relation: equal where and when the other router's
//!   are equal, see `relation`. What leaves unchanged has to be unchanged in both.
//! - Identifications of fragments are compared by relation, too.
//! - The frames of one step have no order.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::process::Stdio;
use std::time::Duration;

use nat::Nat;
use nat::connection::{Connection, State, Status};
use nat::tuple::{Address, Direction};
use serde_json::{Value, json};

use crate::deliberate::DIFFERENCES;
use crate::oracle::{self, Frames, encode};
use crate::relation::Relation;
use crate::switched::Switched;

/// Conversations that there must be at least.
const LEAST: usize = 700;
/// Seconds that a conversation may take with the kernel: less than what its times differ by.
const LAG: u64 = 4;
/// How long a step takes us: no time passes in a conversation.
const STEP: Duration = Duration::ZERO;

/// One step of a conversation with one router.
struct Step {
    side: String,
    sent: Vec<Vec<u8>>,
    came: Frames,
    connections: Vec<Known>,
}

/// What a router knows of a connection of an inside host.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) struct Known {
    pub(crate) protocol: String,
    /// TCP's and SCTP's.
    pub(crate) state: String,
    /// Whether something was answered, and whether it is assured.
    pub(crate) flags: [bool; 2],
    /// Seconds for which it is kept.
    pub(crate) left: u64,
}

impl Known {
    fn read(value: &Value) -> Self {
        let flag = |at: usize| value[at].as_bool().unwrap();
        Self {
            protocol: oracle::text(&value[0]),
            state: oracle::text(&value[1]),
            flags: [flag(3), flag(4)],
            left: value[2].as_u64().unwrap(),
        }
    }

    /// What ours tracks of the inside hosts.
    fn of<A: Address>(nat: &Nat<A>, now: Duration) -> Vec<Self> {
        let inside = ["10.1.0.2", "10.1.0.3", "fd00:1::2", "fd00:1::3"].map(|a| a.parse::<IpAddr>().unwrap());
        let is_inside = |c: &Connection<A>| {
            [Direction::Original, Direction::Reply]
                .iter()
                .any(|d| inside.contains(&c.tuple(*d).source.address.into()))
        };
        let known = |c: &Connection<A>| {
            let protocol = match c.state {
                State::Tcp(_) => "tcp",
                State::Udp(_) => "udp",
                State::Sctp(_) => "sctp",
                State::Query if A::BITS == 32 => "icmp",
                State::Query => "icmpv6",
                State::Other => "unknown",
            };
            let assured = protocol == "tcp" && c.status.has(Status::ASSURED);
            let flags = [c.status.has(Status::SEEN_REPLY), assured];
            Self {
                protocol: protocol.to_owned(),
                flags,
                state: c.state.to_string(),
                left: c.remaining(now).as_secs(),
            }
        };
        nat.connections().map(|(_, connection)| connection).filter(|c| is_inside(c)).map(known).collect()
    }

    /// Equal, but that the other one has been counting down in real time.
    fn fits(&self, other: &Self) -> bool {
        let left = other.left..=other.left + LAG;
        Self { left: 0, ..self.clone() } == Self { left: 0, ..other.clone() } && left.contains(&self.left)
    }
}

impl Step {
    /// What differs from what Linux does.
    fn differs(&self, linux: &Self) -> bool {
        (&self.side, &self.sent, &self.came) != (&linux.side, &linux.sent, &linux.came)
            || self.connections.len() != linux.connections.len()
            || !self.connections.iter().zip(&linux.connections).all(|(ours, linux)| ours.fits(linux))
    }
}

#[test]
fn the_same_conversations_through_linux_and_through_us() {
    let Some(mut script) = oracle::script("conversations.py") else { return };
    // Only those with one of these words in their name, to look at them closely.
    script.args(std::env::var("CONVERSATIONS").iter().flat_map(|words| words.split(',')));
    let mut script = script.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("python3 runs");
    let mut input = script.stdin.take().unwrap();
    let (mut name, mut count, mut kernel) = (String::new(), 0, None);
    let (mut ours, mut steps) = (Switched::translator(), Vec::new());
    let (mut used, mut wrong) = (BTreeSet::new(), Vec::new());
    for line in BufReader::new(script.stdout.take().unwrap()).lines() {
        let message: Value = serde_json::from_str(&line.unwrap()).expect("the script says JSON");
        if let Some(begun) = message["begin"].as_str() {
            (name, ours, steps) = (begun.to_owned(), Switched::translator(), Vec::new());
            count += 1;
        } else if let Some([side, frames]) = message["send"].as_array().map(Vec::as_slice) {
            let step = play(&mut ours, &oracle::text(side), frames);
            let came =
                json!(step.came.iter().map(|(port, frame)| json!([port, encode(frame)])).collect::<Vec<_>>());
            writeln!(input, "{came}").unwrap();
            steps.push(step);
        } else if let Some(linux) = message["linux"].as_array() {
            let linux = linux.iter().map(|step| Step {
                side: oracle::text(&step[0]),
                sent: step[1].as_array().unwrap().iter().map(oracle::octets).collect(),
                came: oracle::frames(&step[2]),
                connections: step[3].as_array().unwrap().iter().map(Known::read).collect(),
            });
            compare(
                &name,
                &comparable(linux.collect()),
                &comparable(std::mem::take(&mut steps)),
                &mut used,
                &mut wrong,
            );
        } else {
            kernel = Some(oracle::text(&message["end"]));
        }
    }
    assert!(script.wait().unwrap().success(), "the script fails in {name}");
    let kernel = kernel.expect("the script comes to its end");
    if std::env::var("CONVERSATIONS").is_err() {
        assert!(count >= LEAST, "{count} conversations");
        wrong.extend(unused(&used));
    }
    assert!(
        wrong.is_empty(),
        "{} differences from Linux {kernel} in {count} conversations:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

fn play(ours: &mut Switched, side: &str, frames: &Value) -> Step {
    let sent: Vec<Vec<u8>> = frames.as_array().unwrap().iter().map(oracle::octets).collect();
    let came = ours.play(side, &sent.iter().map(Vec::as_slice).collect::<Vec<_>>(), STEP);
    let (v4, v6) = ours.switch.connections().unwrap();
    let connections = [Known::of(v4, ours.now()), Known::of(v6, ours.now())].concat();
    Step { side: side.to_owned(), sent, came, connections }
}

/// The steps with everything masked that need not be equal.
fn comparable(steps: Vec<Step>) -> Vec<Step> {
    let mut relation = Relation::default();
    let mut masked = |Step { side, sent, came, mut connections }: Step| {
        let sent = sent.iter().map(|frame| relation.sent(frame)).collect();
        let mut came: Frames = came
            .iter()
            .map(|(port, frame)| {
                let mut frame = relation.came(port, frame);
                if *port == side && is_router_own(&frame) {
                    oracle::mask_originated(&mut frame);
                }
                (port.clone(), frame)
            })
            .collect();
        came.sort();
        connections.sort();
        Step { side, sent, came, connections }
    };
    steps.into_iter().map(&mut masked).collect()
}

/// Of what goes back to where the step came from: whether the router can have made it itself.
fn is_router_own(frame: &[u8]) -> bool {
    let (protocol, upper) = if frame[12] == 0x08 { (frame[23], 34) } else { (frame[20], 54) };
    match (protocol, frame.get(upper), frame.get(upper + 13)) {
        (1, Some(0 | 3 | 11 | 12), _) | (58, Some(1..=4 | 129), _) => true,
        (6, _, Some(flags)) => flags & 4 != 0,
        _ => false,
    }
}

/// Compares a conversation step by step, and notes which places of deliberate differences were needed.
fn compare(
    name: &str,
    linux: &[Step],
    ours: &[Step],
    used: &mut BTreeSet<(&'static str, usize)>,
    wrong: &mut Vec<String>,
) {
    let mut report = String::new();
    if linux.len() != ours.len() {
        report += &format!("\n   {} steps with Linux, {} with ours", linux.len(), ours.len());
    }
    for (number, (linux, ours)) in (1..).zip(linux.iter().zip(ours)) {
        let known = DIFFERENCES.iter().find_map(|known| Some((known, known.place(name, number)?)));
        match known {
            None if !ours.differs(linux) => {}
            Some((known, place)) if ours.differs(linux) && known.ours.allows(&linux.came, &ours.came) => {
                used.insert((place, number));
            }
            Some((known, _)) if !ours.differs(linux) => {
                report += &format!("\n   step {number}: no difference is needed: {}", known.reason);
            }
            Some(_) | None => report += &format!("\n   step {number}{}", side_by_side(linux, ours)),
        }
    }
    if !report.is_empty() {
        wrong.push(format!("{name}{report}"));
    }
}

fn side_by_side(linux: &Step, ours: &Step) -> String {
    let sent = |step: &Step| -> Frames {
        step.sent.iter().map(|frame| (step.side.clone(), frame.clone())).collect()
    };
    let mut text = format!("\n    sent:{}", oracle::list(&sent(linux)));
    if linux.sent != ours.sent {
        text += &format!("\n    sent to ours:{}", oracle::list(&sent(ours)));
    }
    for (router, step) in [("linux", linux), ("ours", ours)] {
        text += &format!("\n    {router}: {}{}", tracked(step), oracle::list(&step.came));
    }
    text
}

fn tracked(step: &Step) -> String {
    let words = step.connections.iter().map(|Known { protocol, state, flags: [answered, assured], left }| {
        let flags =
            [(" answered", answered), (" assured", assured)].map(|(word, &has)| if has { word } else { "" });
        format!("{protocol} {state}{} {left} s", flags.concat())
    });
    words.collect::<Vec<_>>().join(", ")
}

fn unused(used: &BTreeSet<(&str, usize)>) -> Vec<String> {
    let places = DIFFERENCES.iter().flat_map(|known| known.places);
    let steps = places.flat_map(|(place, steps)| steps.iter().map(move |&step| (*place, step)));
    steps.filter(|step| !used.contains(step)).map(|(c, step)| format!("{c:?} has no step {step}")).collect()
}

#[test]
fn a_planted_difference_is_found() {
    let frame = |port: u16| {
        let mut frame = oracle::decode(
            "020000000b02020000000b01080045000024123440003f11158f0a0200010a02000202bc005000102dfb7175657374696f6e",
        );
        frame[34..36].copy_from_slice(&port.to_be_bytes());
        frame
    };
    let known = Known { protocol: "udp".into(), state: String::new(), flags: [false; 2], left: 30 };
    let step = |came: Frames, connections: Vec<Known>| Step {
        side: "a".into(),
        sent: vec![frame(700)],
        came,
        connections,
    };
    let differences = |ours: Step| {
        let linux = step(vec![("b".into(), frame(700))], vec![known.clone()]);
        let (mut used, mut wrong) = (BTreeSet::new(), Vec::new());
        compare("v4 planted", &comparable(vec![linux]), &comparable(vec![ours]), &mut used, &mut wrong);
        wrong.len()
    };
    let good = vec![("b".to_owned(), frame(700))];
    assert_eq!(differences(step(good.clone(), vec![known.clone()])), 0);
    for at in 0..good[0].1.len() {
        let mut bad = good.clone();
        bad[0].1[at] ^= 0x10;
        assert_eq!(differences(step(bad, vec![known.clone()])), 1, "octet {at}");
    }
    assert_eq!(differences(step(vec![("b".into(), frame(701))], vec![known.clone()])), 1, "another port");
    assert_eq!(differences(step(Vec::new(), vec![known.clone()])), 1, "a lost packet");
    assert_eq!(differences(step(good.clone(), Vec::new())), 1, "no connection");
    let longer = Known { left: 120, ..known.clone() };
    assert_eq!(differences(step(good, vec![longer])), 1, "another time");
}
