//! The state directory: where it is, who holds it, and how files in it change.
//!
//! # Theory of operation
//! One directory belongs to one running instance. The instance holds an exclusive `flock` on the file `lock` in it,
//! which the kernel releases however the process ends, so that a stale lock cannot exist; the file's content, the
//! holder's pid, is only there to be told to the user. Everything in the directory is replaced by renaming, so that
//! a reader and a restarted instance see either the old file or the new one.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Where things are in a state directory. Knowing this needs no lock: clients use it to find the sockets.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StatePaths {
    root: PathBuf,
}

impl StatePaths {
    /// The paths under `root`, which need not exist.
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// `/run/vswitch` for root; for others `$XDG_RUNTIME_DIR/vswitch`, or `/tmp/vswitch-UID` if that is not set.
    pub fn standard() -> Self {
        let uid = nix::unistd::geteuid();
        if uid.is_root() {
            return Self::new("/run/vswitch");
        }
        match std::env::var_os("XDG_RUNTIME_DIR").filter(|value| !value.is_empty()) {
            Some(runtime) => Self::new(Path::new(&runtime).join("vswitch")),
            None => Self::new(format!("/tmp/vswitch-{uid}")),
        }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The socket of the control API.
    pub fn control_socket(&self) -> PathBuf {
        self.root.join("control.sock")
    }

    /// The socket on which a helper waits for a later instance.
    pub fn helper_socket(&self) -> PathBuf {
        self.root.join("helper.sock")
    }

    /// The socket on which the agents of nodes are told what to do.
    pub fn agents_socket(&self) -> PathBuf {
        self.root.join("agents.sock")
    }

    /// What the helper writes to its standard error.
    pub fn helper_log(&self) -> PathBuf {
        self.root.join("helper.log")
    }

    /// What the user wants: every object, and what was given out for it.
    pub fn desired(&self) -> PathBuf {
        self.root.join("desired.json")
    }

    /// What has changed of it since it was written as a whole.
    pub fn journal(&self) -> PathBuf {
        self.root.join("desired.journal")
    }

    /// One record per namespace the helper made or was about to make.
    pub fn namespaces(&self) -> PathBuf {
        self.root.join("namespaces")
    }

    /// The logs of containers.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }

    /// What name servers are asked, if that is logged.
    pub fn query_log(&self) -> PathBuf {
        self.logs().join("kube-dns.log")
    }

    fn lock(&self) -> PathBuf {
        self.root.join("lock")
    }
}

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// Another instance holds the directory.
    #[error("{}", held_by(path, *pid))]
    Held {
        /// The directory.
        path: PathBuf,
        /// The holder's pid, if it could be read.
        pid: Option<u32>,
    },
    /// The directory belongs to somebody else or others may enter it.
    #[error("the state directory {path} is not private: owner {owner}, mode {mode:03o}; it must be yours, mode 700", path = path.display())]
    NotPrivate {
        /// The directory.
        path: PathBuf,
        /// Its owner's uid.
        owner: u32,
        /// Its permission bits.
        mode: u32,
    },
    /// The operating system refused.
    #[error("cannot use the state directory {path}: {source}", path = path.display())]
    Io {
        /// The path that could not be used.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

fn held_by(path: &Path, pid: Option<u32>) -> String {
    let who = pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
    format!(
        "{who} is already running a cluster in {}; stop it with `vswitch down`, or choose another --state-dir",
        path.display()
    )
}

/// A state directory held by this process until it is dropped or the process ends.
#[derive(Debug)]
pub struct StateDir {
    paths: StatePaths,
    lock: File,
}

impl StateDir {
    /// Creates the directory with mode 0700 if it does not exist, and takes its lock.
    ///
    /// # Errors
    /// [`StateError::Held`] if another process has the lock, [`StateError::NotPrivate`] if the directory is not this
    /// user's alone, [`StateError::Io`] otherwise.
    pub fn open(root: impl AsRef<Path>) -> Result<Self, StateError> {
        let root = root.as_ref();
        let io = |source| StateError::Io { path: root.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(root).map_err(io)?;
        // An absolute path, because the helper does not share our working directory.
        let paths = StatePaths::new(fs::canonicalize(root).map_err(io)?);
        let metadata = fs::metadata(paths.root()).map_err(io)?;
        let mode = metadata.mode() & 0o777;
        if metadata.uid() != nix::unistd::geteuid().as_raw() || mode & 0o077 != 0 {
            return Err(StateError::NotPrivate { path: root.to_owned(), owner: metadata.uid(), mode });
        }
        let mut lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(paths.lock())
            .map_err(io)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let pid = match lock.read_to_string(&mut text) {
                    Ok(_) => text.trim().parse().ok(),
                    Err(_) => None,
                };
                return Err(StateError::Held { path: root.to_owned(), pid });
            }
            Err(TryLockError::Error(source)) => return Err(io(source)),
        }
        lock.set_len(0).and_then(|()| lock.rewind()).map_err(io)?;
        writeln!(lock, "{}", std::process::id()).map_err(io)?;
        Ok(Self { paths, lock })
    }

    /// Where things are.
    pub fn paths(&self) -> &StatePaths {
        &self.paths
    }

    /// Replaces the file `name` of the directory; see [`write_atomically`].
    ///
    /// # Errors
    /// Those of the file system.
    pub fn write(&self, name: &str, content: &[u8]) -> io::Result<()> {
        write_atomically(&self.paths.root.join(name), content)
    }
}

impl Drop for StateDir {
    fn drop(&mut self) {
        // The pid is emptied so that nobody is told of a process that is gone; the kernel drops the lock itself.
        let _ = self.lock.set_len(0);
    }
}

/// Replaces a file with mode 0600: after a crash at any moment, either the old or the new content is there, whole.
///
/// # Errors
/// Those of the file system; the old file is then untouched.
pub fn write_atomically(path: &Path, content: &[u8]) -> io::Result<()> {
    let directory = path.parent().ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
    let name = path.file_name().ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}.tmp", std::process::id()));
    let temporary = directory.join(temporary);
    let written = (|| {
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        // The rename itself is durable only once the directory is.
        File::open(directory)?.sync_all()
    })();
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn scratch(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("vswitch-state-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        path
    }

    #[test]
    fn a_second_instance_is_told_who_holds_the_directory() {
        let path = scratch("held");
        let first = StateDir::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        let error = StateDir::open(&path).unwrap_err();
        assert!(
            matches!(&error, StateError::Held { pid: Some(pid), .. } if *pid == std::process::id()),
            "{error}"
        );
        assert!(error.to_string().contains(&std::process::id().to_string()));
        drop(first);
        drop(StateDir::open(&path).unwrap());
        fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn a_directory_that_others_may_enter_is_refused() {
        let path = scratch("open");
        fs::create_dir(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        assert!(matches!(StateDir::open(&path), Err(StateError::NotPrivate { mode: 0o755, .. })));
        fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn a_write_replaces_the_whole_file_and_leaves_no_temporary() {
        let path = scratch("write");
        let state = StateDir::open(&path).unwrap();
        state.write("x", b"a long first content").unwrap();
        state.write("x", b"short").unwrap();
        assert_eq!(fs::read(path.join("x")).unwrap(), b"short");
        let names: Vec<_> = fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        assert!(state.write("no/such/place", b"").is_err());
        drop(state);
        fs::remove_dir_all(&path).unwrap();
    }
}
