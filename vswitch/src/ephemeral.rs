//! A cluster that a command starts for itself, and that goes when the command ends, however it does.

use std::io::{self, Write as _};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use netstack::driver::Latency;
use tokio::signal::unix::{SignalKind, signal};

use crate::cluster::Cluster;
use crate::runtime::{Mode, Options, Runtime};
use crate::state::StateDir;

/// The name of the cluster that a verb of this process starts.
pub(crate) fn name(verb: &str) -> String {
    format!("{verb}-{}", std::process::id())
}

/// See the module. There is one at a time in a process.
pub(crate) struct Ephemeral {
    runtime: Arc<Runtime>,
    interrupt: Interrupt,
    root: Root,
    /// Its lock is held as long as the cluster stands.
    _directory: StateDir,
}

impl Ephemeral {
    /// Starts `cluster` on a state directory of its own.
    ///
    /// # Errors
    /// When it cannot be started; nothing of it stands then.
    pub(crate) fn start(
        cluster: Cluster,
        mode: Mode,
        offload: bool,
        latency: Latency,
        threads: NonZeroUsize,
    ) -> Result<Self, Box<dyn std::error::Error>> {
        let directory = StateDir::open(std::env::temp_dir().join(format!("vswitch-{}", cluster.name)))?;
        let root = Root(directory.paths().root().to_owned());
        let interrupt = Interrupt::watch(root.0.clone())?;
        let options = Options {
            mode,
            offload,
            plain: Vec::new(),
            state: directory.paths().clone(),
            // Nobody will ever adopt these pods.
            grace: Duration::ZERO,
            latency,
            threads,
            confined: true,
        };
        let runtime = Arc::new(Runtime::start(cluster, &options, None)?);
        interrupt.ends(&runtime);
        Ok(Self { runtime, interrupt, root, _directory: directory })
    }

    /// What stands.
    pub(crate) fn runtime(&self) -> &Arc<Runtime> {
        &self.runtime
    }

    /// Ends it, and says what could not be removed.
    pub(crate) fn stop(self) -> Vec<String> {
        self.interrupt.wait_if_interrupted();
        let problems = self.runtime.stop();
        drop(self.root);
        problems
    }
}

/// The state directory, removed when this is dropped.
struct Root(PathBuf);

impl Drop for Root {
    fn drop(&mut self) {
        // A directory in the temporary one with a lock file in it is the worst that can stay.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Ends the cluster in order on Ctrl-C and SIGTERM, wherever the command is.
struct Interrupt(Arc<Interrupted>);

#[derive(Default)]
struct Interrupted {
    cluster: OnceLock<Arc<Runtime>>,
    ending: AtomicBool,
}

impl Interrupt {
    fn watch(root: PathBuf) -> io::Result<Self> {
        let shared = Arc::new(Interrupted::default());
        let executor = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
        // Registered here, so that a signal from now on is not lost.
        let (mut interrupt, mut terminate) = {
            let _context = executor.enter();
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)
        };
        let there = Arc::clone(&shared);
        std::thread::Builder::new().name("interrupt".to_owned()).spawn(move || {
            let number = executor.block_on(async {
                tokio::select! {
                    _ = interrupt.recv() => SignalKind::interrupt(),
                    _ = terminate.recv() => SignalKind::terminate(),
                }
            });
            // A cluster that is just being made is waited for; if that fails the process ends by itself.
            let cluster = there.cluster.wait();
            there.ending.store(true, Ordering::SeqCst);
            for problem in cluster.stop() {
                let _ = writeln!(io::stderr(), "vswitch: left behind: {problem}");
            }
            drop(Root(root));
            std::process::exit(128 + number.as_raw_value());
        })?;
        Ok(Self(shared))
    }

    /// What failed because the cluster was being ended is not told: the process is about to end.
    fn wait_if_interrupted(&self) {
        while self.0.ending.load(Ordering::SeqCst) {
            std::thread::park();
        }
    }

    fn ends(&self, runtime: &Arc<Runtime>) {
        // The first is the only one.
        let _ = self.0.cluster.set(Arc::clone(runtime));
    }
}
