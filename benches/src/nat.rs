//! What is measured of translation: pieces of work that stand alone, so that one tool can take their time and another count
//! their instructions.

mod flows;
mod packets;
mod table;
mod translator;

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ::nat::tuple::{Address, protocol};

use crate::work::{Case, TURN, Work, begin};
use packets::{Apply, Parse};
use table::{Lookup, Memory, Sweep};
pub use translator::filled;
use translator::{End, Established, New};

const SEED: u64 = 0x5eed;
const NOW: Duration = Duration::from_secs(1000);

/// All pieces of work, those that depend on how many flows there are for each of `flows`.
pub fn cases(flows: &[u32]) -> Vec<Case> {
    let memory = |&count: &u32| begin(format!("memory/{count}"), move || Memory::of(count));
    let mut cases: Vec<Case> = flows.iter().map(memory).collect();
    cases.extend(family::<Ipv4Addr>("v4", flows));
    cases.extend(family::<Ipv6Addr>("v6", flows));
    cases
}

fn family<A: Address + 'static>(family: &str, flows: &[u32]) -> Vec<Case> {
    let mut cases = Vec::new();
    for &count in flows {
        cases.push(begin(format!("lookup/{family}/{count}"), move || Lookup::<A>::among(count, false)));
        cases.push(begin(format!("lookup/{family}/{count}/batch"), move || Lookup::<A>::among(count, true)));
        cases.push(begin(format!("new/{family}/{count}"), move || New::<A>::among(count)));
        cases.push(begin(format!("established/{family}/{count}"), move || Established::<A>::among(count)));
        cases.push(begin(format!("end/{family}/{count}"), move || End::<A>::among(count)));
    }
    cases.push(begin(format!("parse/{family}"), Parse::new::<A>));
    for (name, number) in [("tcp", protocol::TCP), ("udp", protocol::UDP)] {
        cases.push(begin(format!("rewrite/{family}/{name}"), move || Apply::<A>::of(number)));
    }
    cases.push(begin(format!("sweep/{family}"), Sweep::<A>::new));
    cases
}
