//! The `vswitch` command. Everything it does is in the library of the same name.

use std::process::ExitCode;

fn main() -> ExitCode {
    // The inner roles need a process without threads, so they are taken before anything else runs.
    match vswitch::inner_role() {
        Some(code) => code,
        None => vswitch::cli::main(),
    }
}
