//! A control plane on memory links, in the process of the test.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use vswitch::control::api::ApplyView;
use vswitch::control::plane::{Desired, Frame, Plane};
use vswitch::manifest::{Source, Strictness};
use vswitch::objects::Store;
use vswitch::runtime::{Mode, Options};
use vswitch::state::StatePaths;

/// A plane, and where it keeps what is wanted.
pub(crate) struct InMemory {
    pub(crate) plane: Arc<Plane>,
    directory: PathBuf,
}

/// A text as a manifest.
pub(crate) fn sources(text: &str) -> [Source; 1] {
    [Source { name: "x".into(), text: text.to_owned() }]
}

impl InMemory {
    /// One that runs what a manifest says, under a name that no other test of the file uses.
    pub(crate) fn start(label: &str, text: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("vswitch-{label}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let options = Options {
            mode: Mode::Memory,
            offload: true,
            plain: Vec::new(),
            state: StatePaths::new(&directory),
            grace: Duration::from_secs(1),
            latency: netstack::driver::Latency::default(),
            threads: std::num::NonZeroUsize::MIN,
            confined: true,
        };
        let (store, _) = Store::read(&sources(text), Strictness::Strict).unwrap();
        let desired = Desired { store, ..Desired::default() };
        let frame = Frame { name: label.to_owned(), mtu: None };
        Self { plane: Plane::start(desired, frame, &options, None).unwrap().0, directory }
    }

    /// Changes what it runs.
    pub(crate) fn apply(&self, text: &str) -> ApplyView {
        self.plane.apply(&sources(text), Strictness::Strict).unwrap()
    }

    /// What it keeps, octet by octet.
    pub(crate) fn kept(&self) -> Vec<u8> {
        std::fs::read(StatePaths::new(&self.directory).desired()).unwrap()
    }

    /// Ends it, which has to leave nothing behind.
    pub(crate) fn stop(self) {
        assert_eq!(self.plane.stop(), [""; 0]);
        std::fs::remove_dir_all(self.directory).unwrap();
    }
}
