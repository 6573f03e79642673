//! What is measured of translation: pieces of work that stand alone, so that one tool can take their time and another count
//! their instructions.

mod flows;
mod packets;
mod table;
mod translator;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ::nat::tuple::{Address, protocol};

use packets::{Apply, Parse};
use table::{Lookup, Memory, Sweep};
pub use translator::filled;
use translator::{End, Established, New};

/// Operations in a turn, unless said otherwise.
pub const TURN: u32 = 1024;

const SEED: u64 = 0x5eed;
const NOW: Duration = Duration::from_secs(1000);

/// A piece of work.
pub trait Work {
    /// How many operations a turn is.
    fn operations(&self) -> u32 {
        TURN
    }
    /// Does them: what is measured.
    fn turn(&mut self);
    /// Makes ready for the next turn, which is not measured.
    fn reset(&mut self) {}
}

/// A piece of work by name, and how to begin it.
pub struct Case {
    /// What is done, the address family, and with how many flows if that may matter.
    pub name: String,
    /// Makes it ready.
    pub begin: Box<dyn Fn() -> Box<dyn Work>>,
}

impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

/// All pieces of work, those that depend on how many flows there are for each of `flows`.
pub fn cases(flows: &[u32]) -> Vec<Case> {
    let memory = |&count: &u32| Case {
        name: format!("memory/{count}"),
        begin: Box::new(move || Box::new(Memory::of(count))),
    };
    let mut cases: Vec<Case> = flows.iter().map(memory).collect();
    cases.extend(family::<Ipv4Addr>("v4", flows));
    cases.extend(family::<Ipv6Addr>("v6", flows));
    cases
}

/// The piece of work with a name, whatever the number of flows in it.
pub fn case(name: &str) -> Option<Case> {
    let flows: Vec<u32> = name.split('/').filter_map(|part| part.parse().ok()).collect();
    cases(&flows).into_iter().find(|case| case.name == name)
}

fn family<A: Address + 'static>(family: &str, flows: &[u32]) -> Vec<Case> {
    fn case<W: Work + 'static>(name: String, begin: impl Fn() -> W + 'static) -> Case {
        Case { name, begin: Box::new(move || Box::new(begin())) }
    }
    let mut cases = Vec::new();
    for &count in flows {
        cases.push(case(format!("lookup/{family}/{count}"), move || Lookup::<A>::among(count, false)));
        cases.push(case(format!("lookup/{family}/{count}/batch"), move || Lookup::<A>::among(count, true)));
        cases.push(case(format!("new/{family}/{count}"), move || New::<A>::among(count)));
        cases.push(case(format!("established/{family}/{count}"), move || Established::<A>::among(count)));
        cases.push(case(format!("end/{family}/{count}"), move || End::<A>::among(count)));
    }
    cases.push(case(format!("parse/{family}"), Parse::new::<A>));
    for (name, number) in [("tcp", protocol::TCP), ("udp", protocol::UDP)] {
        cases.push(case(format!("rewrite/{family}/{name}"), move || Apply::<A>::of(number)));
    }
    cases.push(case(format!("sweep/{family}"), Sweep::<A>::new));
    cases
}
