//! The C library from C: built, linked, run.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says what it skips"
)]

use std::path::PathBuf;
use std::process::Command;

use vswitch_tests::{run, top};

#[test]
fn version_is_the_crates_from_c() {
    let top = top();
    let status = Command::new(env!("CARGO"))
        .args(["build", "--quiet", "--package", "vswitch-ffi"])
        .current_dir(&top)
        .status()
        .expect("cargo runs, for it runs this test");
    assert!(status.success(), "the library builds");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| top.join("target"), PathBuf::from);
    let library = target.join("debug/libnetstack.a");
    let include = top.join("ffi/include");
    let expected = format!("-DEXPECTED_VERSION=\"{}\"", env!("CARGO_PKG_VERSION"));
    for compiler in ["gcc", "clang"] {
        if Command::new(compiler).arg("--version").output().is_err() {
            vswitch_tests::skip("c_abi", &format!("{compiler} is not installed"));
            continue;
        }
        let program =
            std::env::temp_dir().join(format!("netstack-version-{compiler}-{}", std::process::id()));
        let arguments = [
            "-std=c99",
            "-Wall",
            "-Wextra",
            "-Wpedantic",
            "-Werror",
            &expected,
            "-I",
            include.to_str().unwrap(),
            top.join("ffi/tests/version.c").to_str().unwrap(),
            library.to_str().unwrap(),
            "-lpthread",
            "-ldl",
            "-lm",
            "-o",
            program.to_str().unwrap(),
        ]
        .map(str::to_owned);
        run(compiler, &arguments.iter().map(String::as_str).collect::<Vec<_>>());
        let printed = run(program.to_str().unwrap(), &[]);
        std::fs::remove_file(&program).unwrap();
        assert_eq!(printed.trim(), env!("CARGO_PKG_VERSION"));
    }
}
