//! Licences, bans and sources of every dependency, held against `.deny.toml`: the quick part of what cargo deny checks.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use serde_json::Value;
use vswitch_tests::{run, top};

/// The strings in the list that begins behind `key = [`.
fn list(text: &str, key: &str) -> Vec<String> {
    let start = text.find(&format!("{key} = [")).unwrap_or_else(|| panic!("{key} stands in .deny.toml"));
    let end = start + text[start..].find(']').unwrap();
    text[start..end].split('"').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Licences that are allowed for one crate alone: lines such as `{ crate = "it", allow = ["THIS"] },`.
fn exceptions(text: &str) -> Vec<(String, String)> {
    let lines = text.lines().filter(|line| line.contains("crate = ") && line.contains("allow = ["));
    lines
        .map(|line| {
            let quoted: Vec<&str> = line.split('"').skip(1).step_by(2).collect();
            (quoted[0].to_owned(), quoted[1].to_owned())
        })
        .collect()
}

/// Whether an SPDX expression (or the old `A/B` form) is satisfied by the allowed licences.
fn satisfied(expression: &str, allowed: &[String]) -> bool {
    expression.replace('/', " OR ").split(" OR ").any(|alternative| {
        alternative.split(" AND ").all(|part| {
            let part = part.trim_matches(|c: char| c == '(' || c == ')' || c == ' ');
            allowed.iter().any(|a| a == part)
        })
    })
}

#[test]
fn every_dependency_is_allowed() {
    let text = fs::read_to_string(top().join(".deny.toml")).unwrap();
    let allowed = list(&text, "allow");
    let exceptions = exceptions(&text);
    let denied: Vec<String> = list(&text, "deny").into_iter().step_by(2).collect();
    let manifest = top().join("Cargo.toml");
    let arguments = [
        "metadata",
        "--format-version",
        "1",
        "--all-features",
        "--locked",
        "--manifest-path",
        manifest.to_str().unwrap(),
    ];
    let metadata: Value = serde_json::from_str(&run(env!("CARGO"), &arguments)).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    assert!(packages.len() > 50, "{} packages", packages.len());
    let mut wrong = Vec::new();
    for package in packages {
        let (name, licence) =
            (package["name"].as_str().unwrap(), package["license"].as_str().unwrap_or("none"));
        let excepted = exceptions.iter().any(|(it, of)| it == name && of == licence);
        if !excepted && !satisfied(licence, &allowed) {
            wrong.push(format!("{name}: licence {licence}"));
        }
        if denied.iter().any(|d| d == name) {
            wrong.push(format!("{name} is banned"));
        }
        if package["source"].as_str().is_some_and(|s| !s.starts_with("registry+")) {
            wrong.push(format!("{name} comes from {}", package["source"]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_planted_licence_is_noticed() {
    let allowed = ["MIT", "Apache-2.0"].map(str::to_owned);
    assert!(satisfied("MIT/Apache-2.0", &allowed) && satisfied("Apache-2.0 AND MIT", &allowed));
    assert!(
        !satisfied("GPL-3.0", &allowed)
            && !satisfied("MIT AND GPL-3.0", &allowed)
            && !satisfied("none", &allowed)
    );
}
