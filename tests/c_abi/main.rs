//! The C library from outside: its header, its symbols, its installation, programs in C, C++, Python and Go, and all of it
//! under the tools that see what goes wrong with memory and threads.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says what it skips"
)]

mod examples;
mod header;
mod install;
mod programs;
mod refusals;

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use vswitch_tests::{run, top};

/// Where builds go.
fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| top().join("target"), PathBuf::from)
}

/// The static library with assertions, and with the function that panics on demand.
fn debug_library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let arguments = ["build", "--quiet", "--package", "vswitch-ffi", "--features", "test-panic"];
        cargo(&arguments);
        target().join("debug/libnetstack.a")
    })
}

/// A prefix that the library was installed to, as users get it.
fn prefix() -> &'static Path {
    static INSTALLED: OnceLock<PathBuf> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let prefix = scratch("prefix");
        let status = Command::new(top().join("ffi/install"))
            .arg(&prefix)
            .env("CARGO", env!("CARGO"))
            .env("CARGO_TARGET_DIR", target())
            .status()
            .expect("a shell runs");
        assert!(status.success(), "ffi/install installs");
        prefix
    })
}

fn cargo(arguments: &[&str]) {
    let status = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(top())
        .status()
        .expect("cargo runs, for it runs this test");
    assert!(status.success(), "cargo {arguments:?}");
}

/// A directory for one purpose, used again by the next run.
fn scratch(purpose: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("c_abi").join(purpose);
    std::fs::create_dir_all(&directory).unwrap();
    directory
}

/// Whether a tool is there; says so if not.
fn has(test: &str, tool: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {tool}")]).output();
    let found = found.is_ok_and(|output| output.status.success());
    if !found {
        vswitch_tests::skip(test, &format!("{tool} is not installed"));
    }
    found
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs a command with arguments of any kind.
fn run_all(program: &str, arguments: &[String]) -> String {
    run(program, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
}
