//! What is measured of load balancing.

mod plain;
mod services;
mod tables;

use crate::work::{Case, Work, begin};
use services::{Add, Choose, Find, Stand};
use tables::{Build, How, Lookup};

/// Backends of a table.
const BACKENDS: u32 = 1_000;
/// The sizes of tables that the paper gives times for.
const SIZES: [u32; 2] = [65_537, 655_373];

/// All pieces of work, those that depend on how many services there are for each of `services`.
pub fn cases(services: &[u32]) -> Vec<Case> {
    let mut cases = Vec::new();
    for size in SIZES {
        cases.push(begin(format!("build/{size}"), move || Build::new(size, How::InPlace)));
        cases.push(begin(format!("build/{size}/modulo"), move || Build::new(size, How::Modulo)));
        cases.push(begin(format!("build/{size}/plain"), move || Build::new(size, How::Matrix)));
        cases.push(begin(format!("lookup/{size}"), move || Lookup::new(size)));
    }
    for &count in services {
        cases.push(begin(format!("find/{count}"), move || Find::among(count)));
        cases.push(begin(format!("choose/{count}"), move || Choose::among(count)));
        cases.push(begin(format!("standing/{count}"), move || Stand::among(count)));
        cases.push(begin(format!("renewal/{count}"), move || Stand::after_a_change(count)));
        cases.push(begin(format!("set/{count}"), move || Add::to(count)));
    }
    cases
}
