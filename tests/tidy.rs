//! House rules as a test: who may import whom, how long a file or a function may be, which words do not stay.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says what it skips"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use vswitch_tests::top;

/// Rows of netstack: a module imports only from rows below its own, or from itself. Longest path wins.
const ROWS: &[(&str, u32)] = &[
    ("addr", 0),
    ("seed", 0),
    ("sync", 0),
    ("table", 1),
    ("rate", 1),
    ("frame", 1),
    ("flow::FlowKey", 1),
    ("flow::key", 1),
    ("verdict", 0),
    ("event", 1),
    ("parse", 2),
    ("counters", 2),
    ("config", 2),
    ("filter", 3),
    ("emit", 3),
    ("offload", 3),
    ("bridge", 4),
    ("neighbor", 4),
    ("route", 4),
    ("icmp", 4),
    ("policy", 4),
    ("flow", 4),
    ("config::validate", 5),
    ("config::router", 5),
    ("config::services", 5),
    ("config::Services", 5),
    ("config::translator", 5),
    ("config::snapshot", 5),
    ("config::Snapshot", 5),
    ("config::Gateway", 5),
    ("config::Port", 5),
    ("config::Segment", 5),
    ("config::Router", 5),
    ("config::Target", 5),
    ("config::StationEntry", 5),
    ("switch", 6),
    ("host", 6),
    ("device", 6),
    ("publish", 6),
    ("driver", 7),
    ("sim", 7),
];

/// Files that only put a row's parts together, and so name rows above their own.
const COMPOSERS: &[&str] = &["lib.rs", "config/mod.rs", "flow/mod.rs"];

/// Lines of a file, tests aside, and of a function.
const FILE_LINES: usize = 500;
const FUNCTION_LINES: usize = 70;

/// Marks of unfinished work, and where they may stand anyway.
const BANNED: &[&str] = &["todo!(", "unimplemented!(", "dbg!(", "FIXME"];

/// Files with `unsafe`, each with its argument at the place.
const UNSAFE: &[&str] = &[
    "netstack/src/device/ring.rs",
    "netstack/src/device/sys.rs",
    "vswitch/src/sys.rs",
    "benches/src/bin/c_abi.rs",
    "ffi/src/caller.rs",
    "ffi/src/handle.rs",
    "ffi/src/panic.rs",
];

/// Crates without I/O: they may not know std's clock, files, sockets or threads.
const PURE: &[&str] = &["nat/src", "lb/src"];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn all_sources() -> Vec<(String, String)> {
    ["netstack", "vswitch", "nat", "lb", "ffi", "benches", "examples", "tests"]
        .iter()
        .flat_map(|name| sources(&top().join(name)))
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            (path.strip_prefix(top()).unwrap().display().to_string(), text)
        })
        .collect()
}

/// Tests may be as long as their tables.
fn is_test(name: &str) -> bool {
    name.ends_with("tests.rs") || name.contains("/tests/") || name.starts_with("tests/")
}

/// The text in front of the file's unit tests.
fn without_tests(text: &str) -> &str {
    text.split("\n#[cfg(test)]\n").next().unwrap_or(text).split("\n#[cfg(all(test").next().unwrap_or(text)
}

/// `use crate::a::{b, c::d};` as `a::b`, `a::c::d`.
fn imports(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for statement in without_tests(text).split(';') {
        let Some(at) = statement.rfind("use crate::") else { continue };
        let before = &statement[..at];
        if before.lines().last().is_some_and(|l| l.trim_start().starts_with("//")) {
            continue;
        }
        expand("", statement[at + "use crate::".len()..].trim(), &mut found);
    }
    found
}

fn expand(prefix: &str, tree: &str, found: &mut Vec<String>) {
    let join = |tail: &str| if prefix.is_empty() { tail.to_owned() } else { format!("{prefix}::{tail}") };
    match tree.split_once('{') {
        Some((head, group)) if !head.contains(',') => {
            let prefix = join(head.trim_end_matches("::").trim());
            let prefix = prefix.trim_end_matches("::");
            for part in split_group(group.rsplit_once('}').map_or(group, |(inner, _)| inner)) {
                expand(prefix, part.trim(), found);
            }
        }
        _ if tree.is_empty() => {}
        _ => found.push(join(tree.split(" as ").next().unwrap_or(tree).trim())),
    }
}

fn split_group(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&group[start..]);
    parts
}

fn row(path: &str) -> Option<(&'static str, u32)> {
    ROWS.iter()
        .filter(|(name, _)| {
            path == *name || path.strip_prefix(name).is_some_and(|rest| rest.starts_with("::"))
        })
        .max_by_key(|(name, _)| name.len())
        .copied()
}

fn module_of(file: &str) -> String {
    file.trim_end_matches(".rs").trim_end_matches("/mod").replace('/', "::")
}

fn top_module(path: &str) -> &str {
    path.split("::").next().unwrap_or(path)
}

fn wrong_imports(file: &str, text: &str) -> Vec<String> {
    let own = module_of(file);
    let Some((_, own_row)) = row(&own) else { return vec![format!("{file}: stands in no row")] };
    imports(text)
        .into_iter()
        .filter(|path| top_module(path) != top_module(&own))
        .filter_map(|path| match row(&path) {
            Some((_, theirs)) if theirs < own_row => None,
            Some((_, theirs)) => Some(format!("{file} (row {own_row}) imports {path} (row {theirs})")),
            None => Some(format!("{file} imports {path}, which stands in no row")),
        })
        .collect()
}

#[test]
fn modules_import_only_from_rows_below() {
    let folder = top().join("netstack/src");
    let wrong: Vec<String> = sources(&folder)
        .iter()
        .map(|path| {
            (path.strip_prefix(&folder).unwrap().display().to_string(), fs::read_to_string(path).unwrap())
        })
        .filter(|(file, _)| !COMPOSERS.contains(&file.as_str()) && !file.ends_with("tests.rs"))
        .flat_map(|(file, text)| wrong_imports(&file, &text))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_import_rule_catches_a_planted_arrow() {
    let planted = "use crate::addr::MacAddr;\nuse crate::{neighbor::Neighbors, config::Limits};\n";
    assert_eq!(
        wrong_imports("bridge/fdb.rs", planted),
        ["bridge/fdb.rs (row 4) imports neighbor::Neighbors (row 4)"]
    );
    assert!(wrong_imports("switch/slow.rs", planted).is_empty());
    assert_eq!(wrong_imports("frame/mod.rs", "use crate::switch::Switch;").len(), 1);
}

#[test]
fn row_three_crates_know_neither_each_other_nor_the_stack() {
    for (name, text) in all_sources() {
        for (folder, foreign) in [("nat/src", ["lb::", "netstack::"]), ("lb/src", ["nat::", "netstack::"])] {
            if name.starts_with(folder) {
                for word in foreign {
                    assert!(!without_tests(&text).contains(&format!("use {word}")), "{name} uses {word}");
                }
            }
        }
        if PURE.iter().any(|p| name.starts_with(p)) && name.ends_with("lib.rs") {
            assert!(text.contains("#![no_std]") && text.contains("#![forbid(unsafe_code)]"), "{name}");
        }
    }
}

#[test]
fn files_and_functions_are_short() {
    let mut long = Vec::new();
    for (name, text) in all_sources() {
        if is_test(&name) {
            continue;
        }
        let body = without_tests(&text);
        let lines = body.lines().count();
        if lines > FILE_LINES {
            long.push(format!("{name}: {lines} lines, at most {FILE_LINES}"));
        }
        for (at, length, function) in functions(body) {
            if length > FUNCTION_LINES {
                long.push(format!("{name}:{at}: fn {function} has {length} lines, at most {FUNCTION_LINES}"));
            }
        }
    }
    assert!(long.is_empty(), "{}", long.join("\n"));
}

/// Line, length and name of every function, by the indentation that rustfmt gives.
fn functions(text: &str) -> Vec<(usize, usize, String)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let Some(rest) = code.split_once("fn ") else { continue };
        let head = rest.0.split_whitespace().all(|w| {
            matches!(w, "pub" | "const" | "async" | "unsafe" | "extern" | "\"C\"") || w.starts_with("pub(")
        });
        if !head {
            continue;
        }
        let indent = line.len() - code.len();
        let end = format!("{}}}", " ".repeat(indent));
        let one_line = line.trim_end().ends_with('}') || line.trim_end().ends_with(';');
        let length =
            if one_line { 1 } else { lines[at..].iter().position(|l| *l == end).map_or(1, |n| n + 1) };
        let name = rest.1.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("").to_owned();
        found.push((at + 1, length, name));
    }
    found
}

#[test]
fn function_lengths_are_measured() {
    let text = "pub(crate) fn long(\n    a: u8,\n) {\n    a\n}\n\nimpl X {\n    fn short() {}\n}\n";
    assert_eq!(functions(text), [(1, 5, "long".to_owned()), (8, 1, "short".to_owned())]);
}

#[test]
fn no_unfinished_marks_and_unsafe_only_where_it_is_argued() {
    let mut wrong = Vec::new();
    for (name, text) in all_sources() {
        if name == "tests/tidy.rs" {
            continue;
        }
        for word in BANNED {
            if text.contains(word) {
                wrong.push(format!("{name} holds {word}"));
            }
        }
        let code_unsafe = text.lines().any(|l| {
            let l = l.trim_start();
            !l.starts_with("//")
                && (l.contains("unsafe {") || l.contains("unsafe fn") || l.contains("unsafe impl"))
        });
        if code_unsafe && !UNSAFE.contains(&name.as_str()) && !is_test(&name) {
            wrong.push(format!("{name} holds unsafe code; it belongs into one of {UNSAFE:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_match_on_a_closed_list_has_a_wildcard() {
    // clippy::wildcard_enum_match_arm is denied; here, that nobody switches it off.
    for (name, text) in all_sources() {
        if name != "tests/tidy.rs" {
            assert!(!text.contains("allow(clippy::wildcard_enum_match_arm"), "{name}");
        }
    }
}

#[test]
fn what_is_said_of_services_is_tested() {
    let text = fs::read_to_string(top().join("vswitch/SERVICES.md")).unwrap();
    let mut all: Vec<String> = all_sources().into_iter().map(|(_, text)| text).collect();
    all.retain(|text| text.contains("#[test]") || text.contains("proptest!"));
    let mut rows = 0;
    for line in text.lines().filter(|line| line.starts_with("| ")).skip(1) {
        let tests: Vec<&str> = line.rsplit('|').nth(1).unwrap().split('`').skip(1).step_by(2).collect();
        assert!(!tests.is_empty(), "no test: {line}");
        for test in tests {
            let begin = format!("fn {test}(");
            assert!(all.iter().any(|text| text.contains(&begin)), "there is no test {test}");
        }
        rows += 1;
    }
    assert!(rows > 15, "{rows}");
}

#[test]
fn the_top_level_is_the_agreed_one() {
    const AGREED: &[&str] = &[
        "Cargo.toml",
        "Cargo.lock",
        "netstack",
        "vswitch",
        "nat",
        "lb",
        "ffi",
        "benches",
        "examples",
        "tests",
        "README.md",
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "target",
    ];
    let found: BTreeMap<String, ()> = fs::read_dir(top())
        .unwrap()
        .map(|e| (e.unwrap().file_name().to_string_lossy().into_owned(), ()))
        .filter(|(n, ())| !n.starts_with('.'))
        .collect();
    let extra: Vec<&String> = found.keys().filter(|n| !AGREED.contains(&n.as_str())).collect();
    assert!(extra.is_empty(), "{extra:?}");
}
