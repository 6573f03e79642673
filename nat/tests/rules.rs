//! The table of rules holds against the tests.
#![allow(clippy::unwrap_used, reason = "all of this file is tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The rules that names such as `nat_40_and_41_fragments` speak of.
fn rules_of(name: &str) -> Vec<u32> {
    let mut rules = Vec::new();
    let mut words = name.strip_prefix("nat_").unwrap_or_default().split('_');
    while let Some(rule) = words.next().and_then(|word| word.parse().ok()) {
        rules.push(rule);
        if words.next() != Some("and") {
            break;
        }
    }
    rules
}

fn tests_in(directory: &Path, found: &mut BTreeMap<u32, Vec<String>>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tests_in(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let functions = text.lines().filter_map(|line| line.trim_start().strip_prefix("fn "));
            for name in functions {
                let name = name.split(['(', '<']).next().unwrap_or_default();
                for rule in rules_of(name) {
                    found.entry(rule).or_default().push(name.to_owned());
                }
            }
        }
    }
}

#[test]
fn every_rule_has_a_test_and_every_test_a_rule() {
    let mut tests = BTreeMap::new();
    tests_in(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut tests);
    let mut kept = BTreeSet::new();
    let mut listed = BTreeSet::new();
    for row in include_str!("../RULES.md").lines().filter(|line| line.starts_with("| NAT-")) {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        let [rule, says, _, _, by] = cells[..] else { panic!("{row}") };
        let rule: u32 = rule.strip_prefix("NAT-").unwrap().parse().unwrap();
        assert!(listed.insert(rule), "NAT-{rule} stands there twice");
        assert!(says.ends_with('.'), "NAT-{rule}: a sentence");
        match by {
            "tests" => assert!(kept.insert(rule)),
            "the router" => {}
            other => panic!("NAT-{rule} is kept by {other:?}?"),
        }
    }
    let tested: BTreeSet<u32> = tests.keys().copied().collect();
    assert_eq!(kept.difference(&tested).collect::<Vec<_>>(), Vec::<&u32>::new(), "rules without a test");
    assert_eq!(tested.difference(&kept).collect::<Vec<_>>(), Vec::<&u32>::new(), "tests of no rule");
    // Two workers, load balancing, policy and port control are not this crate's.
    assert_eq!(listed, (1..=56).filter(|rule| ![52, 54, 55].contains(rule)).collect());
}

#[test]
fn names_tell_their_rules() {
    assert_eq!(rules_of("nat_40_and_41_fragments"), [40, 41]);
    assert_eq!(rules_of("nat_7_parity_and_more"), [7]);
    assert_eq!(rules_of("natural"), []);
}
