//! The programs of `ffi/tests`, built by two compilers, plainly, with sanitizers, and under valgrind.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use vswitch_tests::top;

use crate::{debug_library, has, run, run_all, scratch, text};

const WARNINGS: [&str; 5] = ["-std=c99", "-Wall", "-Wextra", "-Wpedantic", "-Werror"];
const COMPILERS: [&str; 2] = ["gcc", "clang"];
/// What a static library of Rust's needs of the system.
const SYSTEM: [&str; 4] = ["-lgcc_s", "-lpthread", "-ldl", "-lm"];

/// Builds a program, once, and returns where it is. The source is below `ffi`, or anywhere by its whole path.
pub(crate) fn build(compiler: &str, source: &str, extra: &[&str]) -> PathBuf {
    static BUILT: Mutex<BTreeMap<String, PathBuf>> = Mutex::new(BTreeMap::new());
    let mut built = BUILT.lock().unwrap_or_else(PoisonError::into_inner);
    let line = [&[compiler, source], extra].concat().join(" ");
    if let Some(program) = built.get(&line) {
        return program.clone();
    }
    let program = scratch("programs").join(built.len().to_string());
    compile(compiler, source, extra, &program);
    built.insert(line, program.clone());
    program
}

fn compile(compiler: &str, source: &str, extra: &[&str], program: &Path) {
    let (include, path) = (top().join("ffi/include"), top().join("ffi").join(source));
    let mut arguments: Vec<String> = Vec::new();
    if source.ends_with(".c") {
        arguments.extend(WARNINGS.map(str::to_owned));
    } else {
        arguments.extend(["-std=c++11", "-Wall", "-Wextra", "-Wpedantic", "-Werror"].map(str::to_owned));
    }
    arguments.extend(extra.iter().map(|&it| it.to_owned()));
    arguments.extend(["-g", "-I", text(&include), text(&path), text(debug_library())].map(str::to_owned));
    arguments.extend(SYSTEM.map(str::to_owned));
    arguments.extend(["-o", text(program)].map(str::to_owned));
    run_all(compiler, &arguments);
}

#[test]
fn version_is_the_crates_from_c() {
    let expected = format!("-DEXPECTED_VERSION=\"{}\"", env!("CARGO_PKG_VERSION"));
    for compiler in COMPILERS.into_iter().filter(|it| has("c_abi", it)) {
        let program = build(compiler, "tests/version.c", &[&expected]);
        assert_eq!(run(text(&program), &[]).trim(), env!("CARGO_PKG_VERSION"));
    }
}

#[test]
fn c_programs_run_by_either_compiler() {
    for compiler in COMPILERS.into_iter().filter(|it| has("c_abi", it)) {
        let directory = scratch(&format!("{compiler}-files"));
        for (name, argument) in
            [("misuse", ""), ("verbs", text(&directory)), ("tables", ""), ("nonsense", "100000")]
        {
            let program = build(compiler, &format!("tests/{name}.c"), &[]);
            assert_eq!(run(text(&program), &[argument]).trim(), format!("{name}: ok"));
        }
    }
}

/// What `verbs.c` has captured, read by somebody else.
#[test]
fn captures_are_read_by_tshark() {
    if !has("c_abi", "gcc") || !has("c_abi", "tshark") {
        return;
    }
    let directory = scratch("capture");
    run(text(&build("gcc", "tests/verbs.c", &[])), &[text(&directory)]);
    let file = directory.join("capture.pcapng");
    let fields = ["frame.interface_name", "frame.time_epoch", "eth.src", "frame.len"];
    let mut arguments = vec!["-r", text(&file), "-T", "fields"];
    arguments.extend(fields.iter().flat_map(|field| ["-e", *field]));
    let printed = run("tshark", &arguments);
    let expected = ["left", "right"]
        .map(|interface| format!("{interface}\t1700000001.000000000\t02:00:00:00:00:09\t60\n"));
    assert_eq!(printed, expected.concat());
}

#[test]
fn header_is_one_for_cpp() {
    for compiler in ["g++", "clang++"].into_iter().filter(|it| has("c_abi", it)) {
        let program = build(compiler, "tests/header.cpp", &[]);
        assert_eq!(run(text(&program), &[]).trim(), env!("CARGO_PKG_VERSION"));
    }
}

#[test]
fn two_threads_run_the_example_a_thousand_times() {
    if has("c_abi", "gcc") {
        let program = build("gcc", "tests/threads.c", &["-O1"]);
        assert_eq!(run(text(&program), &["1000", "and break the rules"]).trim(), "threads: ok");
    }
}

pub(crate) const SANITIZED: [&str; 3] =
    ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"];

#[test]
fn sanitizers_find_nothing() {
    if !has("c_abi", "gcc") || !has("c_abi", "nm") {
        return;
    }
    let directory = scratch("sanitized");
    let files = text(&directory);
    for (name, argument) in
        [("misuse", ""), ("verbs", files), ("tables", ""), ("nonsense", "100000"), ("threads", "20")]
    {
        let program = build("gcc", &format!("tests/{name}.c"), &SANITIZED);
        let symbols = run("nm", &[text(&program)]);
        assert!(symbols.contains("__asan_init") && symbols.contains("__ubsan_"), "the sanitizers are linked");
        assert_eq!(run(text(&program), &[argument]).trim(), format!("{name}: ok"));
    }
}

/// What the sanitizers are there for: were they not at work, this would end well.
#[test]
fn sanitizers_find_what_there_is_to_be_found() {
    if !has("c_abi", "gcc") {
        return;
    }
    let source = scratch("faults").join("faults.c");
    let code = "#include <netstack.h>\n#include <stdlib.h>\n#include <string.h>\n\
        int main(int count, char **arguments) {\n\
        netstack_batch *batch = NULL; netstack_view view; size_t added; (void)arguments;\n\
        if (netstack_batch_new(&batch) != NETSTACK_RESULT_OK) return 0;\n\
        if (netstack_batch_reserve(batch, 1, 60, &view, &added) != NETSTACK_RESULT_OK) return 0;\n\
        if (count == 2) memset(view.data, 0, 1 << 20); /* beyond its buffer */\n\
        if (count == 3) batch = NULL; /* lost */\n\
        netstack_batch_free(batch);\n return 0;\n}\n";
    std::fs::write(&source, code).unwrap();
    let program = build("gcc", text(&source), &SANITIZED);
    let run = |arguments: &[&str]| Command::new(&program).args(arguments).output().unwrap();
    assert!(run(&[]).status.success());
    let beyond = run(&["1"]);
    assert!(String::from_utf8_lossy(&beyond.stderr).contains("heap-buffer-overflow"), "{beyond:?}");
    let lost = run(&["1", "2"]);
    assert!(!lost.status.success(), "{lost:?}");
    assert!(String::from_utf8_lossy(&lost.stderr).contains("detected memory leaks"), "{lost:?}");
}

fn valgrind(name: &str, options: &[&str], arguments: &[&str]) {
    let program = build("gcc", &format!("tests/{name}.c"), &["-O1"]);
    let suppressions = format!("--suppressions={}", text(&top().join("ffi/tests/valgrind.supp")));
    let mut all: Vec<String> =
        ["--error-exitcode=9", "--fair-sched=yes", &suppressions].map(str::to_owned).into();
    all.extend(options.iter().map(|&it| it.to_owned()));
    all.push(text(&program).to_owned());
    all.extend(arguments.iter().map(|&it| it.to_owned()));
    assert_eq!(run_all("valgrind", &all).trim(), format!("{name}: ok"));
}

#[test]
fn valgrind_finds_no_error_and_no_leak() {
    if !has("c_abi", "gcc") || !has("c_abi", "valgrind") {
        return;
    }
    const MEMCHECK: [&str; 3] =
        ["--leak-check=full", "--errors-for-leak-kinds=definite,indirect,possible", "--track-origins=no"];
    valgrind("misuse", &MEMCHECK, &[]);
    valgrind("verbs", &MEMCHECK, &[text(&scratch("memcheck"))]);
    valgrind("tables", &MEMCHECK, &[]);
    valgrind("threads", &MEMCHECK, &["5"]);
    valgrind("nonsense", &MEMCHECK, &["5000"]);
}

#[test]
fn helgrind_finds_no_race() {
    if has("c_abi", "gcc") && has("c_abi", "valgrind") {
        valgrind("threads", &["--tool=helgrind"], &["20"]);
    }
}
