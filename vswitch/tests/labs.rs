//! The labs of `examples`, as their READMEs walk through them: every command run in order, its output held against what
//! stands there. `…` in a README stands for anything; `UPDATE_LABS=1` writes what was seen into it.
#![allow(clippy::unwrap_used, reason = "all of this file is tests")]

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Cluster, executable, ready};

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A README as lines, those of console blocks as commands with what they print.
enum Part {
    Text(String),
    Command { command: String, output: Vec<String> },
}

fn parse(readme: &str) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut console = false;
    for line in readme.lines() {
        if line.starts_with("```") {
            console = line == "```console";
            parts.push(Part::Text(line.to_owned()));
        } else if let (true, Some(command)) = (console, line.strip_prefix("$ ")) {
            parts.push(Part::Command { command: command.to_owned(), output: Vec::new() });
        } else if let (true, Some(Part::Command { output, .. })) = (console, parts.last_mut()) {
            output.push(line.to_owned());
        } else {
            parts.push(Part::Text(line.to_owned()));
        }
    }
    parts
}

/// Whether `line` is `pattern`, in which `…` stands for anything.
fn matches(pattern: &str, line: &str) -> bool {
    let mut pieces = pattern.split('…');
    let first = pieces.next().unwrap();
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    let pieces: Vec<&str> = pieces.collect();
    let Some((last, middle)) = pieces.split_last() else { return rest.is_empty() };
    for piece in middle {
        let Some(at) = rest.find(piece) else { return false };
        rest = &rest[at + piece.len()..];
    }
    rest.ends_with(last)
}

/// States of a neighbour, which change with time.
const STATES: [&str; 4] = ["reachable", "stale", "delay", "probe"];

/// What differs from run to run, as `…`.
fn mask(line: &str) -> String {
    let words: Vec<String> = line.split(' ').map(mask_word).collect();
    let line = words.join(" ");
    match line.split_once("peer address ") {
        Some((before, peer)) => format!("{before}peer address {}:…", peer.rsplit_once(':').unwrap().0),
        None => line,
    }
}

fn mask_word(word: &str) -> String {
    let number = |text: &str| text.chars().all(|c| c.is_ascii_digit() || "./".contains(c));
    if let Some(time) = word.strip_prefix("time=").filter(|time| number(time.trim_end_matches("ms"))) {
        return format!("time=…{}", if time.ends_with("ms") { "ms" } else { "" });
    }
    let decimal = word.contains('.') && word.parse::<f64>().is_ok();
    let summary = number(word) && word.matches('/').count() == 3;
    if decimal || summary || STATES.contains(&word) { "…" } else { word }.to_owned()
}

#[test]
fn dots_stand_for_anything() {
    assert!(matches("a … c", "a b c") && matches("…", "") && matches("time=… ms", "time=0.1 ms"));
    assert!(!matches("a … c", "a b d") && !matches("a", "ab") && !matches("a…b…c", "acb"));
    assert_eq!(mask("64 bytes: ttl=64 time=0.042 ms"), "64 bytes: ttl=64 time=… ms");
    assert_eq!(mask("rtt min/avg/max/mdev = 0.1/0.2/0.3/0.000 ms"), "rtt min/avg/max/mdev = … ms");
}

fn walk(lab: &str, tools: &[&str]) {
    if !ready(tools) {
        return;
    }
    let directory = top().join("examples").join(lab);
    let cluster = Cluster::up(lab, &["-f", directory.to_str().unwrap()]);
    common::until("the pods are ready", || {
        cluster.get("pods").iter().all(|pod| pod["status"]["conditions"][0]["status"] == "True")
    });
    let path =
        format!("{}:{}", Path::new(executable()).parent().unwrap().display(), std::env::var("PATH").unwrap());
    let file = directory.join("README.md");
    let readme = fs::read_to_string(&file).unwrap();
    let (mut seen, mut wrong, mut commands) = (String::new(), Vec::new(), 0);
    for part in parse(&readme) {
        let (command, expected) = match part {
            Part::Text(line) => {
                seen.push_str(&line);
                seen.push('\n');
                continue;
            }
            Part::Command { command, output } => (command, output),
        };
        commands += 1;
        let output = Command::new("sh")
            .args(["-c", &command])
            .current_dir(top())
            .env("PATH", &path)
            .env("VSWITCH_STATE_DIR", &cluster.state)
            .output()
            .unwrap();
        let text = common::both(&output);
        seen.push_str(&format!("$ {command}\n"));
        text.lines().for_each(|line| seen.push_str(&format!("{}\n", mask(line.trim_end()))));
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        let same = lines.len() == expected.len() && expected.iter().zip(&lines).all(|(e, l)| matches(e, l));
        if !output.status.success() || !same {
            wrong.push(format!("$ {command}\n{text}\nstands there as:\n{}", expected.join("\n")));
        }
    }
    if std::env::var_os("UPDATE_LABS").is_some() {
        fs::write(&file, seen).unwrap();
        return;
    }
    assert!(commands >= 5 && wrong.is_empty(), "{}: {}", file.display(), wrong.join("\n\n"));
}

#[test]
fn docker0_is_as_its_readme_says() {
    walk("docker0", &["ping", "curl"]);
}

#[test]
fn the_lab_is_as_its_readme_says() {
    walk("lab", &["ping", "curl", "traceroute", "ip"]);
}
