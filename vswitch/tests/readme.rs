//! The README's console lines, run as they stand against a running cluster; and what the command's own README shows.

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
    // Whoever types them has seen by then that the pods run.
    let all_ready = || {
        let pods: serde_json::Value =
            serde_json::from_str(&run("vswitch get pods -o json").1).unwrap_or_default();
        let pods = pods.as_array().map(Vec::as_slice).unwrap_or_default();
        !pods.is_empty() && pods.iter().all(|pod| pod["status"]["conditions"][0]["status"] == "True")
    };
    let wait = || std::thread::sleep(std::time::Duration::from_millis(50));
    let ready = (0..600).any(|_| {
        all_ready() || {
            wait();
            false
        }
    });
    assert!(ready, "the pods do not get ready");
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

const WEB: &str = "\
{apiVersion: v1, kind: Node, metadata: {name: node-1}}
---
{apiVersion: v1, kind: Node, metadata: {name: node-2}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: none}]}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 10.100.87.105, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
";

/// What the README shows, but for the connections: there are none here.
#[test]
fn a_service_is_described_as_the_readme_shows() {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let shown = readme.split("$ vswitch describe service web\n").nth(1).unwrap().split("```").next().unwrap();
    let shown: Vec<&str> = shown.lines().skip_while(|line| !line.starts_with("Port ")).collect();
    let state = std::env::temp_dir().join(format!("vswitch-described-{}", std::process::id()));
    fs::create_dir_all(&state).unwrap();
    let manifest = state.join("web.yaml");
    fs::write(&manifest, WEB).unwrap();
    let command = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_vswitch"));
        command.args(arguments).env("VSWITCH_STATE_DIR", state.join("state"));
        command
    };
    let mut up = command(&["up", "--require", "memory", "-f", manifest.to_str().unwrap()]);
    let mut up = up.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut told = BufReader::new(up.stdout.take().unwrap());
    let mut line = String::new();
    while !line.contains("is up") {
        line.clear();
        assert!(told.read_line(&mut line).unwrap() > 0, "the cluster did not come up");
    }
    let output = command(&["describe", "service", "web"]).output().unwrap();
    let down = command(&["down"]).status().unwrap();
    up.wait().unwrap();
    fs::remove_dir_all(&state).unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success() && down.success(), "{text}");
    let seen: Vec<&str> = text.lines().skip_while(|line| !line.starts_with("Port ")).collect();
    let column = shown.iter().find_map(|line| line.find("CONNECTIONS")).unwrap();
    let but_connections = |lines: &[&str]| -> Vec<String> {
        lines.iter().map(|line| line.chars().take(column).collect::<String>().trim_end().to_owned()).collect()
    };
    assert_eq!(but_connections(&seen), but_connections(&shown), "{text}");
}
