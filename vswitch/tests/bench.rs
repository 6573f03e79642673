//! That `vswitch bench` measures all that it says, loses nothing and leaves nothing behind. How fast anything is does not matter
//! here.
#![allow(clippy::unwrap_used, reason = "all of this file is tests")]

mod common;

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use common::{both, executable, left_of, ready, success, until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// A `vswitch bench` in a process group of its own.
fn start(arguments: &[&str]) -> Child {
    let mut command = Command::new(executable());
    command.arg("bench").args(arguments).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn account(arguments: &[&str]) -> Value {
    let bench = start(&[arguments, &["-o", "json"]].concat());
    let group = bench.id();
    let text = success("bench", &bench.wait_with_output().unwrap());
    assert_nothing_left(group);
    let account: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert_eq!(account["problems"], serde_json::json!([]), "{account}");
    assert_eq!(account["version"], env!("CARGO_PKG_VERSION"));
    assert!(account["processors"].as_u64().unwrap() > 0);
    account
}

/// Processes of this group, the first of which has ended, and what else it has made.
fn assert_nothing_left(group: u32) {
    until("all its processes and namespaces are gone", || {
        let stats = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
            let text = fs::read_to_string(entry.path().join("stat")).ok()?;
            // State, parent, group.
            let fields: Vec<String> =
                text.rsplit(") ").next()?.split(' ').take(3).map(str::to_owned).collect();
            (fields[2] == group.to_string() && !fields[0].starts_with(['Z', 'X'])).then_some(())
        });
        stats.count() == 0 && left_of(&format!("bench-{group}")).is_empty()
    });
    assert!(!std::env::temp_dir().join(format!("vswitch-bench-{group}")).exists());
}

fn positive(row: &Value, field: &str) {
    assert!(row[field].as_f64().is_some_and(|number| number > 0.0), "{field}: {row}");
}

#[test]
fn the_switch_alone_is_measured_in_memory() {
    let account = account(&["--only", "memory", "--seconds", "0.05"]);
    let rows = account["memory"].as_array().unwrap();
    assert_eq!(rows.len(), 6, "{account}");
    for row in rows {
        positive(row, "nanoseconds");
        positive(row, "million_frames_per_second");
    }
    assert_eq!(account.get("tap"), None);
    assert_eq!(account.get("no_tap"), None);
}

#[test]
fn pods_are_measured_beside_the_kernels_bridge() {
    if !ready(&[]) {
        return;
    }
    let account = account(&["--only", "tap", "--seconds", "0.2"]);
    let rows = account["tap"].as_array().unwrap();
    assert_eq!(rows.len(), 8, "{account}");
    for row in rows {
        for field in ["ours", "kernel", "ratio"] {
            positive(row, field);
        }
    }
    let delivered: Vec<&Value> = rows.iter().filter_map(|row| row.get("delivered")).collect();
    assert_eq!(delivered.len(), 1, "only datagrams may be lost: {account}");
    assert_eq!(account.get("memory"), None);
}

#[test]
fn one_that_is_interrupted_leaves_nothing() {
    if !ready(&[]) {
        return;
    }
    let bench = start(&["--only", "tap", "--seconds", "300"]);
    let group = bench.id();
    until("it has pods", || !left_of(&format!("bench-{group}")).is_empty());
    std::thread::sleep(Duration::from_secs(2));
    kill(Pid::from_raw(group.try_into().unwrap()), Signal::SIGINT).unwrap();
    let output = bench.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(128 + Signal::SIGINT as i32), "{}", both(&output));
    assert_eq!(both(&output), "");
    assert_nothing_left(group);
}

#[test]
fn what_cannot_be_measured_is_refused_with_what_can() {
    for (arguments, hint) in [
        (&["--only", "disk"][..], "[possible values: memory, tap]"),
        (&["--seconds", "0"], "from 0.01 to 600"),
        (&["--seconds", "fast"], "from 0.01 to 600"),
    ] {
        let output = start(arguments).wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{}", both(&output));
        assert!(both(&output).contains(hint), "{}", both(&output));
    }
}
