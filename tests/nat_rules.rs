//! The table of rules in `nat/README.md` holds against the tests.
#![allow(clippy::unwrap_used, reason = "all of this file is tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use vswitch_tests::top;

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

/// The names of tests in a file or folder, by rule.
fn tests_in(path: &Path, found: &mut BTreeMap<u32, BTreeSet<String>>) {
    if path.is_dir() {
        for entry in fs::read_dir(path).unwrap() {
            tests_in(&entry.unwrap().path(), found);
        }
    } else if path.extension().is_some_and(|extension| extension == "rs") {
        let text = fs::read_to_string(path).unwrap();
        for name in text.lines().filter_map(|line| line.trim_start().strip_prefix("fn ")) {
            let name = name.split(['(', '<']).next().unwrap_or_default();
            for rule in rules_of(name) {
                found.entry(rule).or_default().insert(name.to_owned());
            }
        }
    }
}

#[test]
fn every_rule_has_its_tests_and_every_test_its_rule() {
    let mut tests = BTreeMap::new();
    for place in ["nat/src", "nat/tests", "netstack/tests", "tests"] {
        tests_in(&top().join(place), &mut tests);
    }
    let readme = top().join("nat/README.md");
    let text = fs::read_to_string(&readme).unwrap();
    let mut listed = BTreeSet::new();
    let held = text.lines().map(|line| {
        let Some(row) = line.strip_prefix("| NAT-") else { return line.to_owned() };
        let cells: Vec<&str> = row.split(" |").map(str::trim).collect();
        let [rule, says, source, behaviours, _, ""] = cells[..] else { panic!("{line}") };
        let rule: u32 = rule.parse().unwrap();
        assert!(listed.insert(rule), "NAT-{rule} stands there twice");
        assert!(says.ends_with('.'), "NAT-{rule}: a sentence");
        let proved = tests.remove(&rule).unwrap_or_else(|| panic!("NAT-{rule} has no test"));
        let proved: Vec<String> = proved.iter().map(|name| format!("`{name}`")).collect();
        format!("| NAT-{rule} | {says} | {source} | {behaviours} | {} |", proved.join(", "))
    });
    let held: String = held.map(|line| line + "\n").collect();
    assert!(tests.is_empty(), "tests of no rule: {tests:?}");
    // Two workers, load balancing, policy and port control are not this crate's.
    assert_eq!(listed, (1..=56).filter(|rule| ![52, 54, 55].contains(rule)).collect());
    if std::env::var_os("UPDATE_RULES").is_some() {
        fs::write(readme, &held).unwrap();
    } else {
        assert!(held == text, "{} does not list the tests there are: see there", readme.display());
    }
}

#[test]
fn names_tell_their_rules() {
    assert_eq!(rules_of("nat_40_and_41_fragments"), [40, 41]);
    assert_eq!(rules_of("nat_7_parity_and_more"), [7]);
    assert!(rules_of("natural").is_empty());
}
