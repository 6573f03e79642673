//! Containers: which programs run in a pod, when they run again, and whether they are well.
//!
//! # Theory of operation
//! A container is a host process in a pod's namespaces. Three parts, each knowing only the one below:
//! - [`Runner`] is a thread that does what has to be done: it talks to the helper, starts probes and waits;
//! - [`Supervisor`] decides, without a clock or a process of its own: it is told what ended, what a probe found and what
//!   time it is, and answers with [`Action`]s and the time at which it wants to be asked again;
//! - the helper ([`crate::helper::Containers`]) starts and signals processes and remembers what became of them.
//!
//! Containers are the helper's children, so they outlive a vswitch that is killed. The next one asks the helper what
//! runs and what has ended, and goes on from there: nothing is restarted that need not be.
//!
//! The rules are Kubernetes' (<https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/>): restart policies,
//! back-off, init containers, probes, graceful ends.

mod check;
mod grpc;
pub mod image;
mod pod;
mod prober;
mod probing;
mod runner;
mod spec;
mod status;
mod supervisor;
mod unit;

#[cfg(test)]
mod tests;

pub(crate) use check::main as check_main;
pub use runner::Runner;
pub use spec::{
    Check, Container, Images, PodSpec, PreStop, Probe, Probes, Program, RestartPolicy, log_path, remove_logs,
};
pub use status::{ContainerState, ContainerStatus, Ended, Phase, PodStatus};
pub use supervisor::{Action, Finding, Kind, ProbeId, Supervisor};

/// The role in which this executable checks a port of a pod from inside.
pub(crate) const CHECK_ROLE: &str = "__check";
