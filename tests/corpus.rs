//! Replays the fuzzers' corpora: every input that ever mattered, at every test run.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says what it skips"
)]

use std::fs;

use vswitch_tests::{fuzz, top};

fn replay(name: &str, target: fn(&[u8])) {
    let folder = top().join("tests/corpus").join(name);
    let mut count = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        target(&fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count >= 20, "{}: {count} inputs", folder.display());
}

#[test]
fn switch() {
    replay("switch", fuzz::switch);
}

#[test]
fn parse() {
    replay("parse", fuzz::parse);
}

#[test]
fn filter() {
    replay("filter", fuzz::filter);
}

#[test]
fn rewrite() {
    replay("rewrite", fuzz::rewrite);
}

#[test]
fn nat() {
    replay("nat", fuzz::nat);
}

#[test]
fn balancer() {
    replay("balancer", fuzz::balancer);
}

#[test]
fn manifest() {
    replay("manifest", fuzz::manifest);
}

#[test]
fn dns() {
    replay("dns", fuzz::dns);
}
