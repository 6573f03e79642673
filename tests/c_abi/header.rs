//! That `ffi/include/netstack.h` is what the sources say. `UPDATE_HEADER=1 cargo test -p vswitch-tests --test c_abi header`
//! writes it.

use std::fmt::Write;
use std::fs;

use cbindgen::{Builder, Config};

use crate::{env, top};

/// The documentation at the top of the crate, as a comment in C.
fn contract() -> String {
    let source = fs::read_to_string(top().join("ffi/src/lib.rs")).unwrap();
    let mut comment = String::from("/*\n");
    for line in source.lines().map_while(|line| line.strip_prefix("//!")) {
        writeln!(comment, "{}", format!(" *{line}").trim_end()).unwrap();
    }
    comment.push_str(" *\n * Made from the documentation of the Rust sources: not to be edited.\n */");
    comment
}

/// The crate's version, whole and in parts.
fn version() -> String {
    let whole = env!("CARGO_PKG_VERSION");
    let parts: Vec<u32> =
        whole.split(['.', '-', '+']).take(3).map(|part| part.parse().expect("a number")).collect();
    let number = parts.iter().fold(0, |number, part| number * 1000 + part);
    let mut lines =
        String::from("/* The version of this header; netstack_version() is that of the library. */\n");
    writeln!(lines, "#define NETSTACK_VERSION \"{whole}\"").unwrap();
    for (name, part) in ["MAJOR", "MINOR", "PATCH"].iter().zip(&parts) {
        writeln!(lines, "#define NETSTACK_VERSION_{name} {part}").unwrap();
    }
    writeln!(lines, "/* Its parts in one number, to be compared: 1002003 is 1.2.3. */").unwrap();
    write!(lines, "#define NETSTACK_VERSION_NUMBER {number}").unwrap();
    lines
}

fn generate() -> String {
    let ffi = top().join("ffi");
    let mut config = Config::from_file(ffi.join("cbindgen.toml")).expect("cbindgen.toml can be read");
    config.header = Some(contract());
    config.after_includes = Some(format!("\n{}", version()));
    let bindings = Builder::new()
        .with_config(config)
        .with_src(ffi.join("src/lib.rs"))
        .generate()
        .expect("the sources can be read");
    let mut header = Vec::new();
    bindings.write(&mut header);
    String::from_utf8(header).unwrap()
}

#[test]
fn header_is_what_the_sources_say() {
    let path = top().join("ffi/include/netstack.h");
    let generated = generate();
    if env::var_os("UPDATE_HEADER").is_some() {
        fs::write(&path, &generated).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap();
    let differing = committed.lines().zip(generated.lines()).position(|(a, b)| a != b);
    assert!(
        committed == generated,
        "{} is out of date from line {} on; UPDATE_HEADER=1 writes it",
        path.display(),
        differing.map_or(committed.lines().count().min(generated.lines().count()), |at| at) + 1
    );
}

#[test]
fn header_has_every_function_and_nothing_for_tests() {
    let header = fs::read_to_string(top().join("ffi/include/netstack.h")).unwrap();
    let mut functions = 0;
    for entry in fs::read_dir(top().join("ffi/src")).unwrap() {
        let source = fs::read_to_string(entry.unwrap().path()).unwrap();
        for line in source.lines().filter(|line| line.starts_with("pub ") && line.contains("extern \"C\" fn"))
        {
            let name = line.split("fn ").nth(1).and_then(|rest| rest.split('(').next()).unwrap();
            assert!(name.starts_with("netstack_"), "{name}");
            assert_eq!(header.contains(&format!("{name}(")), name != "netstack_test_panic", "{name}");
            functions += 1;
        }
    }
    assert!(functions > 100, "{functions} functions");
}
