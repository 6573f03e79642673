//! What translation costs, in instructions: the same on every run, on a busy machine too, so that a test can hold it.
//! Times are measured by `cargo bench -p vswitch-benches --bench nat`.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and shows what it measured"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use vswitch_tests::{run, skip, top};

/// Instructions per operation. To be brought up to date where an operation became cheaper, and with a reason in the commit
/// where it became dearer.
const BUDGETS: &[(&str, f64)] = &[
    ("parse/v4", 327.0),
    ("parse/v6", 433.0),
    ("lookup/v4/1000", 122.0),
    ("lookup/v4/100000", 122.0),
    ("lookup/v4/1000/batch", 170.0),
    ("lookup/v6/1000", 134.0),
    ("new/v4/1000", 2630.0),
    ("new/v4/20000", 2788.0),
    ("new/v4/60000", 3151.0),
    ("new/v6/1000", 3141.0),
    ("end/v4/1000", 898.0),
    ("end/v6/1000", 1110.0),
    ("rewrite/v4/tcp", 59.0),
    ("rewrite/v4/udp", 65.0),
    ("rewrite/v6/tcp", 66.0),
    ("rewrite/v6/udp", 73.0),
    ("established/v4/1000", 955.0),
    ("established/v6/1000", 1057.0),
    ("sweep/v4", 25.2),
    ("sweep/v6", 25.2),
];

/// How much more than its budget an operation may cost: what the compiler makes of a change elsewhere in the crate.
const DEARER: f64 = 1.08;
/// How much less: with more room than this a budget guards nothing.
const CHEAPER: f64 = 0.8;

/// Builds what does the work as it is shipped, and not as tests are.
fn worker() -> PathBuf {
    let top = top();
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--release", "--package", "vswitch-benches", "--bin", "nat_instructions"])
        .current_dir(&top)
        .status()
        .expect("cargo runs, for it runs this test");
    assert!(status.success(), "the benches build");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| top.join("target"), PathBuf::from);
    target.join("release/nat_instructions")
}

/// Has the profiler count each piece of work by itself: instructions per operation, by name.
fn count(folder: &Path) -> BTreeMap<String, f64> {
    // Its name in the profile; each time it returns, what was counted since it was called is written to the next file.
    const MEASURED: &str = "nat_instructions::measured";
    let output = format!("--callgrind-out-file={}", folder.join("counted").display());
    let (zero, dump) = (format!("--zero-before={MEASURED}"), format!("--dump-after={MEASURED}"));
    let worker = worker();
    let mut arguments = vec!["-q", "--tool=callgrind", &output, &zero, &dump, worker.to_str().unwrap()];
    arguments.extend(BUDGETS.iter().map(|(name, _)| *name));
    let done = run("valgrind", &arguments);
    let per_operation = |(line, number): (&str, u32)| {
        let (name, operations) = line.split_once(' ').unwrap();
        let counted = std::fs::read_to_string(folder.join(format!("counted.{number}"))).unwrap();
        let total = counted.lines().find_map(|line| line.strip_prefix("totals: ")).unwrap();
        (name.to_owned(), total.parse::<f64>().unwrap() / operations.parse::<f64>().unwrap())
    };
    done.lines().zip(1..).map(per_operation).collect()
}

#[test]
fn operations_take_the_instructions_that_are_written_down() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        return skip("nat_costs", "valgrind is not installed");
    }
    let folder = std::env::temp_dir().join(format!("nat-costs-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let counted = count(&folder);
    std::fs::remove_dir_all(&folder).unwrap();

    let mut wrong = Vec::new();
    for (name, budget) in BUDGETS {
        let instructions = counted[*name];
        eprintln!("{name:24} {instructions:8.1}   budget {budget:8.1}");
        if !(budget * CHEAPER..=budget * DEARER).contains(&instructions) {
            wrong.push(format!("{name}: {instructions:.1} instead of {budget:.1}"));
        }
    }
    assert!(wrong.is_empty(), "instructions per operation:\n{}", wrong.join("\n"));

    // What is found in one place costs the same among many; what is random in a new connection is at most 16 draws of a port.
    let ratio = |many: &str, few: &str| counted[many] / counted[few];
    assert!((0.9..1.1).contains(&ratio("lookup/v4/100000", "lookup/v4/1000")));
    assert!((0.9..1.15).contains(&ratio("new/v4/20000", "new/v4/1000")));
    assert!((0.9..1.3).contains(&ratio("new/v4/60000", "new/v4/1000")));
}
