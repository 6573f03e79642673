//! Doing what the supervisor decides.
//!
//! # Theory of operation
//! A thread of its own, because it waits for the helper's answers. It has a connection of its own to the helper, so that
//! it waits for nobody else's questions. It sleeps until the helper's pipe says that something has ended, a probe has
//! an answer, somebody asks for something, or the supervisor's next deadline comes: nothing is polled.
//!
//! A probe is a process: the command itself in the pod's namespaces, or this executable in the role `__check` in those of
//! the node, because that is where the kubelet's questions come from: the pod sees its node as peer, and a pod that the network
//! does not reach is not ready. Where there is no node, they come from inside the pod. Dropping the runner ends the probes and leaves the containers to whoever comes next.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use tokio::net::unix::pipe;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use super::probing;
use super::spec::{Check, Container, PodSpec, Probe, log_path, remove_logs};
use super::status::PodStatus;
use super::supervisor::{Action, Finding, Kind, ProbeId, Supervisor};
use crate::clock;
use crate::helper::exec::NamespaceRef;
use crate::helper::{ContainerSpec, Containers, HelperError, HelperOptions};
use crate::names::Variables;
use crate::state::StatePaths;

/// Probes that run at the same time; further ones wait for their turn, and not at the cost of their time.
const MAX_PROBES: usize = 32;

/// What the runner is asked for.
#[derive(Debug)]
enum Command {
    Add(Box<PodSpec>),
    Remove { namespace: String, grace: Option<Duration> },
}

/// What others see.
#[derive(Debug, Default)]
struct Shared {
    seen: Mutex<Seen>,
    changed: Condvar,
    /// What containers that are started find in their environment, by namespace and Service.
    links: Mutex<BTreeMap<String, BTreeMap<String, Variables>>>,
}

impl Shared {
    fn links_of(&self, namespace: &str) -> Variables {
        self.links.lock().get(namespace).into_iter().flat_map(BTreeMap::values).flatten().cloned().collect()
    }
}

#[derive(Debug, Default)]
struct Seen {
    /// Pods from the moment they are asked for until they are gone.
    pods: BTreeMap<String, Option<PodStatus>>,
    /// Counts changes.
    version: u64,
    /// Why the runner has ended.
    ended: Option<String>,
}

/// Runs the containers of all pods of one helper. Dropping it leaves them running.
#[derive(Debug)]
pub struct Runner {
    /// Closing it ends the thread.
    commands: Option<mpsc::UnboundedSender<Command>>,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Runner {
    /// Has containers that are started from now on find these variables of a Service in their environment, if they are of
    /// its namespace.
    pub(crate) fn link(&self, namespace: &str, service: &str, variables: Variables) {
        let mut links = self.shared.links.lock();
        let of = links.entry(namespace.to_owned()).or_default();
        of.remove(service);
        if !variables.is_empty() {
            of.insert(service.to_owned(), variables);
        } else if of.is_empty() {
            links.remove(namespace);
        }
    }

    /// Starts with no pod. Of `options` the state directory and the executable matter.
    ///
    /// # Errors
    /// [`HelperError::Gone`] if there is no helper, [`HelperError::Start`] if there can be no thread, otherwise those of
    /// the connection.
    pub fn start(options: &HelperOptions) -> Result<Self, HelperError> {
        let start = |what| move |source| HelperError::Start { what, source };
        let mut helper = Containers::connect(&options.state)?.ok_or(HelperError::Gone)?;
        let pipe = helper.watch()?;
        let shared = Arc::new(Shared::default());
        let (commands, orders) = mpsc::unbounded_channel();
        let mut work = Work {
            state: options.state.clone(),
            executable: options.executable.clone(),
            helper,
            supervisor: Supervisor::new(),
            targets: BTreeMap::new(),
            probes: JoinSet::new(),
            room: Arc::new(Semaphore::new(MAX_PROBES)),
            closing: Some(watch::channel(()).0),
            shared: Arc::clone(&shared),
            start: clock::now(),
            epoch: clock::since_epoch(),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(start("the runtime of the containers"))?;
        let thread = std::thread::Builder::new()
            .name("containers".to_owned())
            .spawn(move || {
                let ended = runtime.block_on(async {
                    let ended = work.serve(orders, pipe).await;
                    work.closing = None;
                    while work.probes.join_next().await.is_some() {}
                    ended
                });
                let why = ended.map_or_else(|error| error.to_string(), |()| "it was stopped".to_owned());
                work.shared.seen.lock().ended = Some(why);
                work.shared.changed.notify_all();
            })
            .map_err(start("the thread of the containers"))?;
        Ok(Self { commands: Some(commands), shared, thread: Some(thread) })
    }

    /// Takes a pod on, whose namespace must exist: starts its containers, or takes over those that run. A pod of the
    /// same namespace is replaced.
    pub fn add(&self, pod: PodSpec) {
        self.shared.seen.lock().pods.insert(pod.namespace.clone(), None);
        self.order(Command::Add(Box::new(pod)));
    }

    /// Ends a pod's containers, by SIGTERM and after `grace`, or what the pod says, by SIGKILL; then removes their
    /// logs. The namespace stays.
    pub fn remove(&self, namespace: &str, grace: Option<Duration>) {
        self.order(Command::Remove { namespace: namespace.to_owned(), grace });
    }

    fn order(&self, command: Command) {
        if let Some(commands) = &self.commands {
            // If the thread has ended, the helper and all containers have too.
            let _ = commands.send(command);
        }
    }

    /// Waits until a pod that was removed has no container left; false if that takes longer than `limit`.
    pub fn wait_removed(&self, namespace: &str, limit: Duration) -> bool {
        let gone = |seen: &mut Seen| seen.ended.is_some() || !seen.pods.contains_key(namespace);
        let mut seen = self.shared.seen.lock();
        !self.shared.changed.wait_while_for(&mut seen, |seen| !gone(seen), limit).timed_out()
    }

    /// How a pod is; `None` if it is not known, or has just been added.
    pub fn status(&self, namespace: &str) -> Option<PodStatus> {
        self.shared.seen.lock().pods.get(namespace).cloned().flatten()
    }

    /// How all pods are, in order of namespace. Times are since the Unix epoch.
    pub fn statuses(&self) -> Vec<PodStatus> {
        self.shared.seen.lock().pods.values().flatten().cloned().collect()
    }

    /// Waits until a status has changed since `version`, at most for `limit`, and returns the new version.
    pub fn wait_change(&self, version: u64, limit: Duration) -> u64 {
        let mut seen = self.shared.seen.lock();
        let unchanged = |seen: &mut Seen| seen.version == version && seen.ended.is_none();
        self.shared.changed.wait_while_for(&mut seen, unchanged, limit);
        seen.version
    }

    /// Why nothing is run any more, if so: the helper has ended.
    pub fn ended(&self) -> Option<String> {
        self.shared.seen.lock().ended.clone()
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            // A panic has been reported where it happened.
            let _ = thread.join();
        }
    }
}

/// What the thread has.
struct Work {
    state: StatePaths,
    executable: Option<PathBuf>,
    helper: Containers,
    supervisor: Supervisor,
    /// The namespaces that probes have been run in.
    targets: BTreeMap<String, NamespaceRef>,
    probes: JoinSet<(ProbeId, Finding)>,
    room: Arc<Semaphore>,
    /// Dropped to end the probes.
    closing: Option<watch::Sender<()>>,
    shared: Arc<Shared>,
    start: Instant,
    /// The time since the Unix epoch at `start`.
    epoch: Duration,
}

impl Work {
    fn now(&self) -> Duration {
        self.epoch + self.start.elapsed()
    }

    async fn serve(
        &mut self,
        mut orders: mpsc::UnboundedReceiver<Command>,
        watch: OwnedFd,
    ) -> Result<(), HelperError> {
        let watch = pipe::Receiver::from_owned_fd(watch)?;
        loop {
            let now = self.now();
            self.supervisor.advance(now);
            while let Some(action) = self.supervisor.poll_action() {
                self.act(action)?;
            }
            self.publish();
            let wake = self.supervisor.next_wake();
            let sleep = wake.map_or(Duration::MAX, |wake| wake.saturating_sub(self.now()));
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => self.obey(order, &mut orders)?,
                    None => return Ok(()),
                },
                ready = watch.readable() => {
                    ready?;
                    drain(&watch)?;
                    let all = self.helper.list()?;
                    let now = self.now();
                    self.supervisor.observe(&all, now);
                }
                Some(answer) = self.probes.join_next() => {
                    if let Ok((id, found)) = answer {
                        let now = self.now();
                        if found.is_err() {
                            // Where it was to come from may be another namespace of the same name by now.
                            self.targets.clear();
                        }
                        self.supervisor.probed(&id, found, now);
                    }
                }
                () = tokio::time::sleep(sleep) => {}
            }
        }
    }

    /// Does what was asked for, and what was asked for meanwhile, with one look at what there is.
    fn obey(
        &mut self,
        first: Command,
        orders: &mut mpsc::UnboundedReceiver<Command>,
    ) -> Result<(), HelperError> {
        let all = self.helper.list()?;
        let now = self.now();
        let mut next = Some(first);
        while let Some(order) = next {
            match order {
                Command::Add(pod) => {
                    // It may be another namespace of the same name.
                    self.targets.remove(&pod.namespace);
                    self.shared.seen.lock().pods.entry(pod.namespace.clone()).or_default();
                    self.supervisor.add(*pod, &all, now);
                }
                Command::Remove { namespace, grace } => self.supervisor.remove(&namespace, grace, now),
            }
            next = orders.try_recv().ok();
        }
        Ok(())
    }

    fn act(&mut self, action: Action) -> Result<(), HelperError> {
        match action {
            Action::Start { namespace, log_prefix, links, container } => {
                let log = log_path(&self.state, &log_prefix, &container.name);
                let links = links.map(|of| self.shared.links_of(&of)).unwrap_or_default();
                let result = match container.helper_spec(log).map(|spec| ContainerSpec { links, ..spec }) {
                    Ok(spec) => told(self.helper.run(&namespace, &spec).map(drop))?,
                    Err(why) => Err(why.to_owned()),
                };
                let now = self.now();
                self.supervisor.started(&namespace, &container.name, result, now);
            }
            Action::Signal { namespace, container, signal } => {
                // If it cannot be sent the container has ended just now.
                let _ = told(self.helper.signal(&namespace, &container, signal))?;
            }
            Action::Probe { id, address, from, probe, of } => {
                let inside = matches!(probe.check, Check::Exec(_));
                let place = from.filter(|_| !inside).unwrap_or_else(|| id.namespace.clone());
                match self.target(&place)? {
                    Ok(target) => self.ask(id, target, address, &probe, &of),
                    Err(why) => {
                        let now = self.now();
                        self.supervisor.probed(&id, Err(why), now);
                    }
                }
            }
            Action::Gone { pod } => {
                self.targets.remove(&pod.namespace);
                // If it cannot forget them, the namespace is gone.
                let _ = told(self.helper.forget(&pod.namespace))?;
                // What cannot be removed is in nobody's way.
                let _ = remove_logs(&self.state, &pod);
                self.shared.seen.lock().pods.remove(&pod.namespace);
            }
        }
        Ok(())
    }

    fn target(&mut self, namespace: &str) -> Result<Result<NamespaceRef, String>, HelperError> {
        if let Some(target) = self.targets.get(namespace) {
            return Ok(Ok(*target));
        }
        let found = told(self.helper.namespace(namespace))?;
        if let Ok(found) = &found {
            self.targets.insert(namespace.to_owned(), found.target());
        }
        Ok(found.map(|found| found.target()))
    }

    fn ask(
        &mut self,
        id: ProbeId,
        target: NamespaceRef,
        address: Option<std::net::IpAddr>,
        probe: &Probe,
        of: &Container,
    ) {
        let command = probing::command(target, &probe.check, address, of, self.executable.as_ref());
        let timeout = probe.timeout.max(Duration::from_secs(1));
        let room = Arc::clone(&self.room);
        let Some(closing) = self.closing.as_ref().map(watch::Sender::subscribe) else { return };
        self.probes.spawn(async move {
            // A hook may take long, and must not keep others waiting.
            let permit = if id.kind == Kind::PreStop { None } else { room.acquire_owned().await.ok() };
            let found = probing::ask(command, timeout, closing).await;
            drop(permit);
            (id, found)
        });
    }

    /// Shows what has changed.
    fn publish(&mut self) {
        let changed: BTreeSet<String> = self.supervisor.take_changed();
        if changed.is_empty() {
            return;
        }
        let mut seen = self.shared.seen.lock();
        for namespace in changed {
            if let Some(status) = self.supervisor.status(&namespace) {
                seen.pods.insert(namespace, Some(status));
            }
        }
        seen.version += 1;
        drop(seen);
        self.shared.changed.notify_all();
    }
}

/// What the helper refused is the container's trouble; that it is gone is ours.
fn told<T>(answer: Result<T, HelperError>) -> Result<Result<T, String>, HelperError> {
    match answer {
        Ok(answer) => Ok(Ok(answer)),
        Err(HelperError::Failed(failure)) => Ok(Err(failure.to_string())),
        Err(error) => Err(error),
    }
}

/// Reads what is in the pipe; an error when it has ended.
fn drain(watch: &pipe::Receiver) -> Result<(), HelperError> {
    let mut octets = [0; 512];
    match watch.try_read(&mut octets) {
        Ok(0) => Err(HelperError::Gone),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error.into()),
    }
}
