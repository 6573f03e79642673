//! The examples of `ffi/examples`, each run as `ffi/README.md` says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use vswitch_tests::{skip, top};

use crate::{has, prefix, scratch, text};

fn example(name: &str) -> PathBuf {
    top().join("ffi/examples").join(name)
}

/// With the installed library to be found by everything.
fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env("PKG_CONFIG_PATH", prefix().join("lib/pkgconfig"))
        .env("LD_LIBRARY_PATH", prefix().join("lib"));
    command
}

fn done(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs the command beside an example in the README, in a copy of the folder.
fn as_the_readme_says(name: &str) -> String {
    let readme = fs::read_to_string(top().join("ffi/README.md")).unwrap();
    let row = readme.lines().find(|line| line.starts_with(&format!("| [`{name}`]"))).unwrap();
    let command_line = row.rsplit('|').nth(1).unwrap().trim().trim_matches('`');
    let folder = scratch("readme").join(name.replace('/', "-"));
    for file in fs::read_dir(top().join("ffi/examples")).unwrap().map(|entry| entry.unwrap().path()) {
        copy(&file, &folder);
    }
    let mut shell = command("sh");
    // The language's own tools keep what they make away from the user's.
    shell.env("GOCACHE", scratch("go-cache")).env("GOTOOLCHAIN", "local").env("PYTHONDONTWRITEBYTECODE", "1");
    done(&shell.args(["-c", command_line]).current_dir(&folder).output().unwrap())
}

/// Copies a file, or a folder of files, into a folder.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    let target = to.join(from.file_name().unwrap());
    if from.is_dir() {
        for file in fs::read_dir(from).unwrap().map(|entry| entry.unwrap().path()) {
            copy(&file, &target);
        }
    } else {
        fs::copy(from, target).unwrap();
    }
}

/// Builds an example with every warning.
fn build(compiler: &str, source: &str) -> PathBuf {
    let program = scratch("examples").join(source.replace('.', "-"));
    let line = format!(
        "{compiler} {} -Wall -Wextra -Werror $(pkg-config --cflags --libs netstack) -o {}",
        text(&example(source)),
        text(&program)
    );
    done(&command("sh").args(["-c", &line]).output().unwrap());
    program
}

#[test]
fn two_hosts_in_c() {
    if has("c_abi", "gcc") && has("c_abi", "pkg-config") {
        build("cc -std=c99", "two_hosts.c");
        let printed = as_the_readme_says("two_hosts.c");
        assert!(printed.starts_with("HTTP/1.1 200 OK") && printed.ends_with("hello\n"), "{printed}");
    }
}

#[test]
fn wrapper_in_cpp() {
    if has("c_abi", "g++") && has("c_abi", "pkg-config") {
        build("c++ -std=c++11", "ping.cpp");
        let printed = as_the_readme_says("ping.cpp");
        assert!(printed.starts_with("fd00::2 answered\nas it should: "), "{printed}");
    }
}

#[test]
fn standard_library_of_python() {
    if has("c_abi", "python3") {
        let printed = as_the_readme_says("two_hosts.py");
        assert!(printed.starts_with("nohtyP morf olleh\n") && printed.contains("flooded to"), "{printed}");
    }
}

#[test]
fn cgo() {
    if has("c_abi", "go") && has("c_abi", "pkg-config") {
        assert_eq!(as_the_readme_says("go/main.go"), "10.0.0.2 answered\n");
    }
}

/// Two TAPs, one of them in a namespace of its own, and pings through the switch between them.
#[test]
fn two_taps() {
    if !has("c_abi", "gcc") || !has("c_abi", "ip") || !has("c_abi", "unshare") || !has("c_abi", "ping") {
        return;
    }
    if !Path::new("/dev/net/tun").exists() {
        return skip("c_abi", "/dev/net/tun does not exist");
    }
    if !Command::new("unshare")
        .args(["--user", "--map-root-user", "--net", "true"])
        .status()
        .unwrap()
        .success()
    {
        return skip("c_abi", "no permission to make a network namespace");
    }
    let program = build("cc -std=c99", "tap_switch.c");
    let script = r#"
        set -eu
        program=$1; directory=$2
        rm -f "$directory/in" "$directory/out"
        mkfifo "$directory/in"
        "$program" left right <"$directory/in" >"$directory/out" 2>&1 &
        switch=$!
        exec 3>"$directory/in"
        for _ in $(seq 100); do grep -q ready "$directory/out" && break; sleep 0.05; done
        unshare --net sleep 60 &
        other=$!
        trap 'kill $other $switch 2>/dev/null || true' EXIT
        for _ in $(seq 100); do
            [ "$(readlink /proc/$other/ns/net)" != "$(readlink /proc/$$/ns/net)" ] && break; sleep 0.05
        done
        ip link set right netns $other
        ip address add 10.9.0.1/24 dev left
        ip link set left up
        nsenter --target $other --net sh -c 'ip address add 10.9.0.2/24 dev right; ip link set right up'
        ping -c 3 -i 0.2 -W 5 10.9.0.2
        exec 3>&-
        wait $switch
        cat "$directory/out"
    "#;
    let directory = scratch("taps");
    let output = command("unshare")
        .args(["--user", "--map-root-user", "--net", "--", "sh", "-c", script, "sh"])
        .args([text(&program), text(&directory)])
        .output()
        .unwrap();
    let printed = done(&output);
    assert!(printed.contains(" 0% packet loss") && printed.contains("ready\n"), "{printed}");
    assert!(printed.contains("frames in"), "{printed}");
}
