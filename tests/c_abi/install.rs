//! What is installed: symbols, what it needs, how large it is, and a project of somebody else that finds it.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use vswitch_tests::top;

use crate::{has, prefix, run, run_all, scratch, text};

const VERSION: &str = env!("CARGO_PKG_VERSION");

fn library() -> String {
    text(&prefix().join(format!("lib/libnetstack.so.{VERSION}"))).to_owned()
}

#[test]
fn shared_library_exports_what_the_header_declares_and_nothing_else() {
    if !has("c_abi", "nm") {
        return;
    }
    let symbols = run("nm", &["-D", "--defined-only", &library()]);
    let exported: BTreeSet<&str> =
        symbols.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    let foreign: Vec<_> = exported.iter().filter(|name| !name.starts_with("netstack_")).collect();
    assert!(foreign.is_empty(), "{foreign:?}");
    assert!(!exported.contains("netstack_test_panic"));
    let header = fs::read_to_string(prefix().join("include/netstack.h")).unwrap();
    // The static library has no others to be seen either.
    let symbols = run("nm", &["-g", "--defined-only", text(&prefix().join("lib/libnetstack.a"))]);
    let visible: BTreeSet<&str> = symbols.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    assert_eq!(visible, exported);
    let missing: Vec<_> = exported.iter().filter(|name| !header.contains(&format!("{name}("))).collect();
    assert!(missing.is_empty() && exported.len() > 100, "{missing:?} of {}", exported.len());
}

#[test]
fn shared_library_is_small_and_needs_the_c_library_alone() {
    if !has("c_abi", "readelf") {
        return;
    }
    let size = fs::metadata(library()).unwrap().len();
    assert!(size < 4 << 20, "{size} octets");
    let dynamic = run("readelf", &["-d", &library()]);
    let tagged = |tag: &str| -> Vec<String> {
        let lines = dynamic.lines().filter(|line| line.contains(tag));
        lines.filter_map(|line| Some(line.split_once('[')?.1.trim_end_matches(']').to_owned())).collect()
    };
    assert_eq!(tagged("(SONAME)"), [format!("libnetstack.so.{VERSION}")]);
    // The loader is a part of the C library.
    let allowed =
        |name: &String| name == "libc.so.6" || name == "libgcc_s.so.1" || name.starts_with("ld-linux");
    let needed = tagged("(NEEDED)");
    assert!(!needed.is_empty() && needed.iter().all(allowed), "{needed:?}");
    eprintln!("libnetstack.so: {size} octets stripped, needs {needed:?}");
}

#[test]
fn static_library_links_by_itself() {
    if !has("c_abi", "gcc") {
        return;
    }
    let program = scratch("static").join("two_hosts");
    let (include, source) = (prefix().join("include"), top().join("ffi/examples/two_hosts.c"));
    let library = prefix().join("lib/libnetstack.a");
    let arguments =
        ["-I", text(&include), text(&source), text(&library), "-lgcc_s", "-lm", "-o", text(&program)];
    run("gcc", &arguments);
    assert!(run(text(&program), &[]).ends_with("hello\n"));
}

#[test]
fn project_of_somebody_else_finds_it_by_pkg_config() {
    if !has("c_abi", "pkg-config") || !has("c_abi", "gcc") {
        return;
    }
    let outside = scratch("outside");
    let source = outside.join("main.c");
    fs::copy(top().join("ffi/examples/two_hosts.c"), &source).unwrap();
    let found = Command::new("pkg-config")
        .args(["--cflags", "--libs", "netstack"])
        .env("PKG_CONFIG_PATH", prefix().join("lib/pkgconfig"))
        .output()
        .unwrap();
    assert!(found.status.success(), "{found:?}");
    let program = outside.join("main");
    let mut arguments = vec![text(&source).to_owned()];
    arguments.extend(String::from_utf8(found.stdout).unwrap().split_whitespace().map(str::to_owned));
    arguments.extend(["-o", text(&program)].map(str::to_owned));
    run_all("gcc", &arguments);
    let output = Command::new(&program).env("LD_LIBRARY_PATH", prefix().join("lib")).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).ends_with("hello\n"), "{output:?}");
}

#[test]
fn versions_agree() {
    let installed = fs::read_to_string(prefix().join("lib/pkgconfig/netstack.pc")).unwrap();
    assert!(installed.contains(&format!("\nVersion: {VERSION}\n")), "{installed}");
    assert!(prefix().join("lib/libnetstack.a").exists());
    assert_eq!(
        fs::read_link(prefix().join("lib/libnetstack.so")).unwrap().to_str(),
        Some(&*format!("libnetstack.so.{VERSION}"))
    );
}
