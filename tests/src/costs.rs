//! Instructions of pieces of work that `vswitch_benches` knows by name, counted by a profiler: the same on every run, on a
//! busy machine too, so that a test can hold them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{run, skip, top};

/// How much more than its budget an operation may cost: what the compiler makes of a change elsewhere in the crate.
const DEARER: f64 = 1.03;
/// How much less: with more room than this a budget guards nothing.
const CHEAPER: f64 = 0.8;

/// Counts each piece of work and holds it to its budget of instructions for an operation; what was counted, by name. None if
/// the profiler is missing.
#[expect(clippy::print_stderr, reason = "the budgets are brought up to date from what it shows")]
pub fn hold(test: &str, budgets: &[(&str, f64)]) -> Option<BTreeMap<String, f64>> {
    if Command::new("valgrind").arg("--version").output().is_err() {
        skip(test, "valgrind is not installed");
        return None;
    }
    let folder = std::env::temp_dir().join(format!("{test}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("the temporary folder can be written to");
    let names: Vec<&str> = budgets.iter().map(|(name, _)| *name).collect();
    let counted = count(&folder, &names);
    std::fs::remove_dir_all(&folder).expect("it was made above");

    let mut wrong = Vec::new();
    for (name, budget) in budgets {
        let instructions = counted[*name];
        eprintln!("{name:28} {instructions:12.1}   budget {budget:12.1}");
        if !(budget * CHEAPER..=budget * DEARER).contains(&instructions) {
            wrong.push(format!("{name}: {instructions:.1} instead of {budget:.1}"));
        }
    }
    assert!(wrong.is_empty(), "instructions per operation:\n{}", wrong.join("\n"));
    Some(counted)
}

/// Builds what does the work as it is shipped, and not as tests are.
fn worker() -> PathBuf {
    let top = top();
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--release", "--package", "vswitch-benches", "--bin", "instructions"])
        .current_dir(&top)
        .status()
        .expect("cargo runs, for it runs this test");
    assert!(status.success(), "the benches build");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| top.join("target"), PathBuf::from);
    target.join("release/instructions")
}

/// Has the profiler count each piece of work by itself: instructions per operation, by name.
fn count(folder: &Path, names: &[&str]) -> BTreeMap<String, f64> {
    // Its name in the profile; each time it returns, what was counted since it was called is written to the next file.
    const MEASURED: &str = "instructions::measured";
    let output = format!("--callgrind-out-file={}", folder.join("counted").display());
    let (zero, dump) = (format!("--zero-before={MEASURED}"), format!("--dump-after={MEASURED}"));
    let worker = worker().display().to_string();
    let mut arguments = vec!["-q", "--tool=callgrind", &output, &zero, &dump, &worker];
    arguments.extend(names);
    let done = run("valgrind", &arguments);
    let per_operation = |(line, number): (&str, u32)| {
        let (name, operations) = line.split_once(' ').expect("a name and a number");
        let operations: f64 = operations.parse().expect("a number");
        let counted = std::fs::read_to_string(folder.join(format!("counted.{number}"))).expect("a profile");
        let total = counted.lines().find_map(|line| line.strip_prefix("totals: ")).expect("a sum");
        (name.to_owned(), total.parse::<f64>().expect("a number") / operations)
    };
    done.lines().zip(1..).map(per_operation).collect()
}
