//! The README's console lines, run as they stand against a running cluster.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says what it skips"
)]

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

#[test]
fn every_console_line_of_the_readme_works() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md")).unwrap();
    let lines: Vec<&str> = readme.lines().filter_map(|l| l.strip_prefix("$ ")).collect();
    assert!(lines.len() >= 10, "the README shows commands: {lines:?}");
    let writable = fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun");
    if let Err(error) = writable {
        eprintln!("skipped: readme: /dev/net/tun cannot be opened: {error}");
        assert!(std::env::var_os("CI").is_none(), "may not be skipped under CI");
        return;
    }
    let vswitch = Path::new(env!("CARGO_BIN_EXE_vswitch"));
    let state = std::env::temp_dir().join(format!("vswitch-readme-{}", std::process::id()));
    let mut up = Command::new(vswitch)
        .args(["up", "--name", &format!("readme{}", std::process::id())])
        .env("VSWITCH_STATE_DIR", &state)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut told = BufReader::new(up.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("is up") {
        line.clear();
        assert!(told.read_line(&mut line).unwrap() > 0, "the cluster did not come up");
    }
    let path = format!("{}:{}", vswitch.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let run = |command: &str| {
        let output = Command::new("sh")
            .args(["-c", command])
            .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
            .env("PATH", &path)
            .env("VSWITCH_STATE_DIR", &state)
            .output()
            .unwrap();
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        (output.status.success(), text)
    };
    let failed: Vec<String> = lines
        .iter()
        .map(|line| (line, run(line)))
        .filter(|(_, (ok, _))| !ok)
        .map(|(line, (_, text))| format!("$ {line}\n{text}"))
        .collect();
    let (down, text) = run("vswitch down");
    up.wait().unwrap();
    fs::remove_dir_all(&state).unwrap();
    assert!(down, "{text}");
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
