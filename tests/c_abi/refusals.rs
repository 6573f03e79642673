//! Every function of the header, called with nothing, with a handle of another kind, and with one that was freed: a program in
//! C that is written from the prototypes, so that no function is forgotten.

use std::fmt::Write;
use std::fs;

use vswitch_tests::top;

use crate::programs::{SANITIZED, build};
use crate::{has, run, scratch, text};

/// A function of the header: its name and the types of its parameters.
struct Function {
    name: String,
    parameters: Vec<String>,
}

/// All that return a result.
fn functions() -> Vec<Function> {
    let header = fs::read_to_string(top().join("ffi/include/netstack.h")).unwrap();
    let prototypes = header.split("\nnetstack_result ").skip(1);
    prototypes
        .map(|rest| {
            let (name, rest) = rest.split_once('(').unwrap();
            let list = rest.split_once(");").unwrap().0;
            let parameters = list.split(',').map(|it| it.split_whitespace().collect::<Vec<_>>().join(" "));
            Function { name: name.to_owned(), parameters: parameters.collect() }
        })
        .collect()
}

/// The kind of a handle that is the first parameter, if one is.
fn first_handle(function: &Function) -> Option<&str> {
    const KINDS: [&str; 8] = ["config", "batch", "switch", "device", "driver", "host", "maglev", "nat"];
    let first = function.parameters.first()?.trim_start_matches("const ");
    KINDS.into_iter().find(|kind| first.starts_with(&format!("netstack_{kind} *")) && !first.contains("**"))
}

/// A call with zeros and with room for whatever is behind pointers, but for the first parameter.
fn call(function: &Function, first: Option<&str>, pointers: &str) -> String {
    let arguments = function.parameters.iter().enumerate().map(|(at, parameter)| match first {
        Some(handle) if at == 0 => handle.to_owned(),
        _ if parameter.contains('*') => pointers.to_owned(),
        _ => "0".to_owned(),
    });
    format!("{}({})", function.name, arguments.collect::<Vec<_>>().join(", "))
}

fn program() -> String {
    let mut code = String::from(
        "#include \"check.h\"\n\
         static _Alignas(64) uint8_t room[4096];\n\
         #define ROOM ((void *)memset(room, 0, sizeof room))\n\
         static int wrong;\n\
         static void refused(const char *call, uint32_t got, uint32_t expected) {\n\
         if (got == expected || (expected != NETSTACK_RESULT_OK && got == NETSTACK_RESULT_INVALID_ARGUMENT)) return;\n\
         fprintf(stderr, \"%s is %u, not %u\\n\", call, (unsigned)got, (unsigned)expected);\n\
         wrong = 1;\n}\n\
         int main(void) {\n\
         netstack_config *other = NULL, *freed = NULL; netstack_batch *batch = NULL, *gone = NULL;\n\
         DONE(netstack_config_new(&other)); DONE(netstack_config_new(&freed)); DONE(netstack_config_free(freed));\n\
         DONE(netstack_batch_new(&batch)); DONE(netstack_batch_new(&gone)); DONE(netstack_batch_free(gone));\n",
    );
    let mut refuse = |call: &str, code_name: &str| {
        writeln!(code, "refused(\"{call}\", (uint32_t){call}, NETSTACK_RESULT_{code_name});").unwrap();
    };
    for function in functions() {
        let nothing = call(&function, None, "NULL");
        let expected = match &*function.name {
            name if name.ends_with("_free") => "OK",
            // There is a result 0, and no room for what it means.
            "netstack_result_message" => "BUFFER_TOO_SMALL",
            _ => "NULL_POINTER",
        };
        refuse(&nothing, expected);
        let Some(kind) = first_handle(&function) else { continue };
        // Who has nobody to be called back is told that first.
        let deaf = function.parameters.iter().any(|it| it.contains("_callback"))
            && function.name != "netstack_host_on_ready";
        let or = |expected: &'static str| if deaf { "NULL_POINTER" } else { expected };
        let wrong = if kind == "config" { "(void *)batch" } else { "(void *)other" };
        refuse(&call(&function, Some(wrong), "ROOM"), or("WRONG_HANDLE"));
        let freed = if kind == "batch" { "(void *)gone" } else { "(void *)freed" };
        refuse(&call(&function, Some(freed), "ROOM"), or("INVALID_HANDLE"));
    }
    code.push_str("DONE(netstack_config_free(other)); DONE(netstack_batch_free(batch));\nputs(wrong ? \"\" : \"refusals: ok\");\nreturn wrong;\n}\n");
    code
}

#[test]
fn every_function_refuses_what_is_no_handle() {
    let names: Vec<String> = functions().into_iter().map(|function| function.name).collect();
    assert!(names.len() > 100 && names.iter().all(|name| name.starts_with("netstack_")), "{names:?}");
    if !has("c_abi", "gcc") {
        return;
    }
    let source = scratch("refusals").join("refusals.c");
    fs::write(&source, program()).unwrap();
    let tests = top().join("ffi/tests");
    let include = ["-std=c11", "-I", text(&tests)];
    let program = build("gcc", text(&source), &[&include[..], &SANITIZED[..]].concat());
    assert_eq!(run(text(&program), &[]).trim(), "refusals: ok");
}
