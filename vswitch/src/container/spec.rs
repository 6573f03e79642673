//! What a pod is asked to run: plain data.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::image;
use crate::helper::ContainerSpec;
use crate::state::StatePaths;

/// What programs get as `PATH` if they are given none, as container runtimes have it.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What runs in one pod.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct PodSpec {
    /// The name of the pod's network namespace, by which the helper knows it.
    pub namespace: String,
    /// What the names of its logs begin with, such as `default_web`.
    pub log_prefix: String,
    /// The namespace whose Services its containers find in their environment, if any are.
    pub links: Option<String>,
    /// The pod's address, to which probes go that name no host; localhost if absent.
    pub address: Option<IpAddr>,
    /// The namespace from which probes of the network come, as the kubelet's come from the node; the pod's own if absent.
    pub probed_from: Option<String>,
    /// Whether containers that ended are run again.
    pub restart_policy: RestartPolicy,
    /// Run one after the other, each to its end with status 0, before the others start.
    pub init_containers: Vec<Container>,
    /// Run side by side.
    pub containers: Vec<Container>,
    /// How long a container has between SIGTERM and SIGKILL when its pod is removed; 30 s in Kubernetes.
    pub termination_grace: Duration,
}

impl PodSpec {
    /// A pod that runs nothing yet, with Kubernetes' defaults.
    pub fn new(namespace: impl Into<String>) -> Self {
        let namespace = namespace.into();
        Self {
            log_prefix: namespace.clone(),
            links: None,
            namespace,
            address: None,
            probed_from: None,
            restart_policy: RestartPolicy::default(),
            init_containers: Vec::new(),
            containers: Vec::new(),
            termination_grace: Duration::from_secs(30),
        }
    }

    /// Whether what runs has to end for `next` to run.
    pub fn is_replaced_by(&self, next: &Self) -> bool {
        self.init_containers != next.init_containers || self.containers != next.containers
    }
}

/// Whether containers that ended are run again.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub enum RestartPolicy {
    /// Whatever their status was.
    #[default]
    Always,
    /// Unless their status was 0.
    OnFailure,
    /// Never.
    Never,
}

/// One container.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Container {
    /// Its name, unique in its pod.
    pub name: String,
    /// Its image, to be shown only: `program` is what came of it.
    pub image: String,
    /// What runs.
    pub program: Program,
    /// Its environment. `PATH` is added if it is not there; `$(NAME)` in the program's arguments is replaced from it.
    pub env: Vec<(String, String)>,
    /// Where it starts; `/` if absent.
    pub working_dir: Option<PathBuf>,
    /// User and group; those of vswitch if absent.
    pub user: Option<(u32, u32)>,
    /// Whether it can never gain rights by executing a file.
    pub no_new_privs: bool,
    /// How to know that it is well.
    pub probes: Probes,
    /// What comes before SIGTERM when it is told to end.
    pub pre_stop: Option<PreStop>,
}

impl Container {
    /// One that runs `program`, with nothing else said.
    pub fn new(name: impl Into<String>, image: impl Into<String>, program: Program) -> Self {
        Self {
            name: name.into(),
            image: image.into(),
            program,
            env: Vec::new(),
            working_dir: None,
            user: None,
            no_new_privs: false,
            probes: Probes::default(),
            pre_stop: None,
        }
    }

    /// The whole environment of its processes.
    pub(super) fn environment(&self) -> Vec<(String, String)> {
        let mut env = self.env.clone();
        if !env.iter().any(|(name, _)| name == "PATH") {
            env.push(("PATH".to_owned(), PATH.to_owned()));
        }
        env
    }

    /// What tells a run of it from one of something else, if it can be run.
    pub(crate) fn made_of(&self, log: PathBuf) -> Option<String> {
        self.helper_spec(log).ok().map(|spec| spec.made_of())
    }

    /// What the helper is to be told, or why nothing can be run.
    pub(super) fn helper_spec(&self, log: PathBuf) -> Result<ContainerSpec, &str> {
        let env = self.environment();
        let argv = match &self.program {
            Program::Command(argv) => image::expand(argv, &env),
            Program::Builtin(argv) => image::builtin_argv(&image::expand(argv, &env)),
            Program::None(why) => return Err(why),
        };
        Ok(ContainerSpec {
            name: self.name.clone(),
            argv,
            env,
            links: Vec::new(),
            working_dir: self.working_dir.clone(),
            user: self.user,
            no_new_privs: self.no_new_privs,
            log,
        })
    }
}

/// What a container runs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Program {
    /// A program of the host and its arguments.
    Command(Vec<String>),
    /// A program of this executable and its arguments: `["http", "--port", "8080"]`.
    Builtin(Vec<String>),
    /// Nothing, and why, in a sentence.
    None(String),
}

/// How to know that a container is well.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Probes {
    /// Until this has succeeded the others wait; when it fails the container is ended.
    pub startup: Option<Probe>,
    /// While this fails the container is not ready.
    pub readiness: Option<Probe>,
    /// When this fails the container is ended.
    pub liveness: Option<Probe>,
}

/// One way to ask, with its times. Zero counts and a zero period or timeout are taken as one.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Probe {
    /// What to ask.
    pub check: Check,
    /// How long after the container's start.
    pub initial_delay: Duration,
    /// How often.
    pub period: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Successes in a row after failures that make a success. Kubernetes allows only 1 but for readiness.
    pub success_threshold: u32,
    /// Failures in a row that make a failure.
    pub failure_threshold: u32,
    /// How long a container has between SIGTERM and SIGKILL when this fails; the pod's if absent.
    pub termination_grace: Option<Duration>,
}

impl Probe {
    /// With Kubernetes' defaults: at once, every 10 s, 1 s to answer, one success, three failures.
    pub fn new(check: Check) -> Self {
        Self {
            check,
            initial_delay: Duration::ZERO,
            period: Duration::from_secs(10),
            timeout: Duration::from_secs(1),
            success_threshold: 1,
            failure_threshold: 3,
            termination_grace: None,
        }
    }
}

/// What comes before SIGTERM, within the time that a container has to end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum PreStop {
    /// Something is asked; whatever the answer is, SIGTERM follows it.
    Ask(Check),
    /// Time passes.
    Sleep(Duration),
}

/// What a probe asks: a command in the pod, or its network from [`PodSpec::probed_from`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Check {
    /// A command with the container's environment, directory and user; well if its status is 0. It runs in the pod but
    /// outside the container's PID namespace, and so sees the processes of the whole pod.
    Exec(Vec<String>),
    /// A plain HTTP request; well if the status is from 200 to 399.
    HttpGet {
        /// Whom to ask; the pod's address if absent.
        host: Option<String>,
        /// Where.
        port: u16,
        /// For what, beginning with `/`.
        path: String,
        /// Header fields to send along.
        headers: Vec<(String, String)>,
    },
    /// A TCP connection; well if it is accepted.
    TcpSocket {
        /// Whom to ask; the pod's address if absent.
        host: Option<String>,
        /// Where.
        port: u16,
    },
    /// `grpc.health.v1.Health/Check` without TLS, at the pod's address; well if the answer is `SERVING`.
    Grpc {
        /// Where.
        port: u16,
        /// Which service to ask for; the empty name is the server as a whole.
        service: String,
    },
}

/// Where the log of a container is. When it is full it gets `.1` behind its name and a new one is begun.
pub fn log_path(state: &StatePaths, log_prefix: &str, container: &str) -> PathBuf {
    state.logs().join(format!("{log_prefix}_{container}.log"))
}

/// Removes the logs of a pod; it is no error if there are none.
///
/// # Errors
/// Those of the file system.
pub fn remove_logs(state: &StatePaths, pod: &PodSpec) -> io::Result<()> {
    let remove = |path: &Path| match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    };
    for container in pod.init_containers.iter().chain(&pod.containers) {
        let path = log_path(state, &pod.log_prefix, &container.name);
        remove(&path)?;
        remove(&path.with_added_extension("1"))?;
    }
    Ok(())
}

/// The images of a cluster: from a name to the command that stands for it.
pub type Images = BTreeMap<String, Vec<String>>;
