//! The control plane of the virtual switch, and what it needs of the operating system.
//!
//! The system side is small and self-contained: [`helper`] owns network namespaces and TAP devices in a process of
//! its own, [`helper::exec`] runs programs inside them, [`container`] keeps such programs running, [`state`] keeps two
//! instances apart, [`doctor`] says what the machine allows. Only `sys` contains unsafe code.

pub mod agent;
pub mod bench;
pub mod cli;
mod clock;
pub mod cluster;
mod confine;
pub mod container;
pub mod control;
pub mod demo;
pub mod doctor;
pub mod edge;
mod ephemeral;
pub mod helper;
pub mod names;
pub mod objects;
pub mod policy;
pub mod probe;
mod progress;
pub mod proxy;
pub mod runtime;
pub mod service;
pub mod state;
mod sys;

pub use manifest; // What `objects` and the API speak of.

use std::process::ExitCode;

/// Runs one of the roles in which this executable starts itself again (`__helper`, `__pause`, `__enter`, `__image`,
/// `__check`, `__agent`), if the first argument names one. Must be called first thing in `main`, before any thread exists: the roles enter user
/// and mount namespaces, which the kernel allows to single-threaded processes only.
pub fn inner_role() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let role = arguments.next()?;
    match role.to_str()? {
        helper::HELPER_ROLE => Some(helper::server::main()),
        helper::PAUSE_ROLE => Some(helper::pause::main()),
        helper::ENTER_ROLE => Some(helper::exec::main(arguments)),
        container::image::ROLE => Some(container::image::main(arguments)),
        agent::AGENT_ROLE => Some(agent::agent_main(arguments)),
        container::CHECK_ROLE => Some(container::check_main(arguments)),
        _ => None,
    }
}
