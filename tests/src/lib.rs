//! What several tests share: finding the workspace, running tools, and skipping loudly.

pub mod costs;
pub mod fuzz;

use std::path::{Path, PathBuf};
use std::process::Command;

/// The workspace's top directory.
pub fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("this package stands below the top").to_owned()
}

/// Says that a test does not run here and why. Under CI that is a failure, unless the reason stands on the short list of
/// what a CI machine may lack.
#[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
pub fn skip(test: &str, why: &str) {
    const ALLOWED_IN_CI: &[&str] = &[];
    eprintln!("skipped: {test}: {why}");
    assert!(
        std::env::var_os("CI").is_none() || ALLOWED_IN_CI.contains(&test),
        "{test} may not be skipped under CI: {why}"
    );
}

/// Runs a command to its end and returns what it printed; fails with both outputs when it fails.
pub fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .output()
        .unwrap_or_else(|e| panic!("{program} cannot be started: {e}; .ci/run installs what the tests need"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{program} {args:?} ended with {}:\n{text}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text
}
