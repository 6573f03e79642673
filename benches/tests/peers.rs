//! That `peers/run` measures, ends when it is told to, and leaves nothing behind, whatever happens to it. Its figures are
//! not looked at here: only that there are some.
#![allow(clippy::unwrap_used, reason = "all of this file is tests")]
#![allow(clippy::disallowed_methods, reason = "a script takes real time")]

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

/// Its status when the machine lacks something.
const CANNOT: i32 = 77;

fn script(arguments: &[&str]) -> Command {
    let mut command = Command::new("python3");
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("peers/run")).args(arguments);
    command.arg("--no-install").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Whether the script can run here. If not, it says why; where everything has to run (`CI` is set), that is a failure.
fn can_run() -> bool {
    let Ok(output) = script(&["--only", "kernel,bare", "--check"]).output() else {
        return skip("needs python3");
    };
    match output.status.code() {
        Some(0) => true,
        Some(CANNOT) => skip(said(&output).trim().trim_start_matches("skipped: ")),
        _ => panic!("{:?}: {}", output.status, said(&output)),
    }
}

fn skip(why: &str) -> bool {
    assert!(std::env::var_os("CI").is_none_or(|v| v.is_empty()), "skipped under CI: {why}");
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
    false
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// What the run of this process has made and not removed.
fn left_by(pid: u32) -> Vec<PathBuf> {
    let begin = format!("peers{pid}-");
    let namespaces = fs::read_dir("/run/netns").into_iter().flatten().map(|e| e.unwrap().path());
    let mut left: Vec<PathBuf> =
        namespaces.filter(|p| p.file_name().unwrap().to_str().unwrap().starts_with(&begin)).collect();
    left.extend(Some(PathBuf::from(format!("/run/vswitch-peers/{pid}"))).filter(|p| p.exists()));
    left
}

/// A run that is in the middle of a measurement.
fn started() -> Child {
    let mut child = script(&["--only", "kernel", "--rows", "ping", "--seconds", "120"]).spawn().unwrap();
    for _ in 0..1200 {
        if left_by(child.id()).len() == 4 {
            return child;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    child.kill().unwrap();
    panic!("it made no namespaces within a minute: {}", said(&child.wait_with_output().unwrap()));
}

fn signal(name: &str, child: &Child) {
    let status = Command::new("kill").args(["-s", name, &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

#[test]
fn a_quick_run_measures_everything_and_leaves_nothing() {
    if !can_run() {
        return;
    }
    let file = std::env::temp_dir().join(format!("peers-{}.json", std::process::id()));
    let arguments = ["--quick", "--only", "kernel,bare", "--json", file.to_str().unwrap()];
    let child = script(&arguments).spawn().unwrap();
    let pid = child.id();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{:?}\n{}", output.status, said(&output));
    assert_eq!(left_by(pid), Vec::<PathBuf>::new());
    let result: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    fs::remove_file(&file).unwrap();
    let samples = result["samples"].as_array().unwrap();
    for role in result["roles"].as_array().unwrap() {
        let role = role["name"].as_str().unwrap();
        if result["skipped"].get(role).is_some() {
            continue;
        }
        for row in result["rows"].as_array().unwrap() {
            let of = |s: &&Value| s["role"] == role && s["row"] == *row;
            let sample = samples.iter().find(of).unwrap_or_else(|| panic!("nothing of {role} {row}"));
            assert!(sample["value"].as_f64().unwrap() > 0.0, "{sample}");
            assert!(sample["cpu"].as_f64().unwrap() >= 0.0, "{sample}");
        }
    }
    assert!(samples.iter().any(|s| s["role"] == "kernel"), "{result}");
    assert!(said(&output).contains("of the kernel's bridge"), "{}", said(&output));
}

#[test]
fn who_interrupts_it_finds_nothing_left() {
    if !can_run() {
        return;
    }
    for name in ["INT", "TERM"] {
        let child = started();
        let pid = child.id();
        signal(name, &child);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{}", said(&output));
        assert_eq!(left_by(pid), Vec::<PathBuf>::new(), "{}", said(&output));
    }
}

#[test]
fn the_next_run_removes_what_a_killed_one_left() {
    if !can_run() {
        return;
    }
    let child = started();
    let pid = child.id();
    signal("KILL", &child);
    child.wait_with_output().unwrap();
    assert!(!left_by(pid).is_empty(), "a killed script cannot have removed anything");
    let output = script(&["--only", "kernel", "--rows", "ping", "--quick"]).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(left_by(pid), Vec::<PathBuf>::new());
}

/// What a run would have written of two rounds, of which the second was twice as fast for everybody.
fn two_rounds(figures: &[(&str, &str, f64)]) -> String {
    let mut samples = Vec::new();
    for round in [0, 1] {
        for (role, row, value) in figures {
            let value = value * f64::from(round + 1);
            samples.push(json!({"role": role, "row": row, "round": round, "value": value, "cpu": 1.0}));
        }
    }
    let mut roles: Vec<&str> = figures.iter().map(|(role, ..)| *role).collect();
    roles.dedup();
    let roles: Vec<Value> = roles.iter().map(|role| json!({"name": role, "title": role})).collect();
    json!({
        "machine": {}, "date": "today", "seconds": 1, "background": 0.01, "roles": roles, "rows": ["tcp1", "ping"],
        "samples": samples, "failures": [], "skipped": {"vde": "no reason"},
    })
    .to_string()
}

#[test]
fn ratios_are_taken_within_a_round_and_lost_rows_are_told() {
    let file = std::env::temp_dir().join(format!("peers-shown-{}.json", std::process::id()));
    fs::write(
        &file,
        two_rounds(&[
            ("kernel", "tcp1", 10.0),
            ("kernel", "ping", 5.0),
            ("bare-poll", "tcp1", 8.0),
            ("vswitch", "tcp1", 7.9),
            ("vswitch", "ping", 20.0),
        ]),
    )
    .unwrap();
    let Ok(output) = script(&["--from", file.to_str().unwrap()]).output() else { return };
    fs::remove_file(&file).unwrap();
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    for line in [
        // The rounds differ by a factor of two, the ratios do not.
        "| bare-poll | 0.80 | 12.0 (8.00–16.0) |",
        "| TCP, 1 stream, beside the best bare forwarder | bare-poll | ≥ 0.95 x | 0.99 | holds |",
        "| TCP, 1 stream, beside the kernel's bridge | kernel | ≥ 0.9 x | 0.79 | **missed** |",
        "- TCP, 1 stream: kernel (1.27 x `vswitch`): ",
        "- TCP, 1 stream: bare-poll (1.01 x `vswitch`): ",
        "- Flood ping: kernel (0.25 x `vswitch`): ",
        "| bare-poll | tcp1 | 0.87 | 0.80 | -8% |",
        "- vde: no reason",
    ] {
        assert!(text.contains(line), "`{line}` is not in\n{text}");
    }
}

#[test]
fn a_wrong_word_is_named() {
    for (arguments, word) in [(["--only", "kernle"], "kernle"), (["--rows", "tcp9"], "tcp9")] {
        let Ok(output) = script(&arguments).output() else { return };
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains(word), "{}", said(&output));
    }
}
