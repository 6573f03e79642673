//! The log of one container: what it writes, in a file of bounded size.
//!
//! # Theory of operation
//! The container writes into a pipe, and the process that stands for it on the host copies from there into the file.
//! It opened the file's directory before it entered the pod, and reaches the file through that. When the file is
//! full it gets `.1` behind its name, in place of the one that had it, and a new one is begun: so at most twice
//! [`MAX_LOG`] is kept, and never less than the last [`MAX_LOG`] octets. What cannot be written, because the disk is
//! full, is dropped: a container is not to stop for its log.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use nix::fcntl::{FcntlArg, OFlag, fcntl, openat, renameat};
use nix::sys::stat::Mode;

/// Octets after which a log is renamed and begun anew.
pub const MAX_LOG: u64 = 10 << 20;
/// Octets copied at once: what a pipe holds.
const CHUNK: usize = 64 * 1024;
/// Chunks copied when the container has ended: more than any pipe holds, and an end if a stranger goes on writing.
const LAST_CHUNKS: usize = 64;

/// Opens a log to write at its end, and makes it if it does not exist.
///
/// # Errors
/// Those of the file system.
pub(super) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// The file, reachable from any mount namespace.
#[derive(Debug)]
struct LogFile {
    directory: File,
    name: OsString,
    file: File,
    size: u64,
    limit: u64,
}

impl LogFile {
    fn open(path: &Path, limit: u64) -> io::Result<Self> {
        let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
        let directory = File::open(path.parent().ok_or_else(invalid)?)?;
        let name = path.file_name().ok_or_else(invalid)?.to_owned();
        let file = open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { directory, name, file, size, limit })
    }

    fn write(&mut self, octets: &[u8]) {
        if self.size.saturating_add(octets.len() as u64) > self.limit {
            // Then the old file grows further, which is better than losing what is said.
            let _ = self.turn_over();
        }
        if self.file.write_all(octets).is_ok() {
            self.size += octets.len() as u64;
        }
    }

    fn turn_over(&mut self) -> io::Result<()> {
        let mut old = self.name.clone();
        old.push(".1");
        renameat(&self.directory, self.name.as_os_str(), &self.directory, old.as_os_str())?;
        let flags = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CREAT | OFlag::O_CLOEXEC;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        self.file = openat(&self.directory, self.name.as_os_str(), flags, mode)?.into();
        self.size = self.file.metadata()?.len();
        Ok(())
    }
}

/// Copies from a container's pipe to its log.
#[derive(Debug)]
pub(super) struct Pump {
    log: LogFile,
    /// Closed at the end of the stream.
    source: Option<File>,
    buffer: Vec<u8>,
}

impl Pump {
    /// A pump and what the container is to write to.
    ///
    /// # Errors
    /// Those of the file system and of `pipe(2)`.
    pub(super) fn new(path: &Path) -> io::Result<(Self, OwnedFd)> {
        Self::with_limit(path, MAX_LOG)
    }

    fn with_limit(path: &Path, limit: u64) -> io::Result<(Self, OwnedFd)> {
        let (source, sink) = io::pipe()?;
        let source = OwnedFd::from(source);
        fcntl(&source, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        let pump =
            Self { log: LogFile::open(path, limit)?, source: Some(source.into()), buffer: vec![0; CHUNK] };
        Ok((pump, sink.into()))
    }

    /// What becomes readable when there is something to copy; `None` at the end of the stream.
    pub(super) fn source(&self) -> Option<BorrowedFd<'_>> {
        self.source.as_ref().map(AsFd::as_fd)
    }

    /// Copies what is there, at most one chunk; false if there was nothing.
    pub(super) fn copy(&mut self) -> bool {
        let Some(source) = &mut self.source else { return false };
        match source.read(&mut self.buffer) {
            Ok(length) if length > 0 => {
                self.log.write(self.buffer.get(..length).unwrap_or_default());
                true
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => true,
            Ok(_) | Err(_) => {
                self.source = None;
                false
            }
        }
    }

    /// Copies what the container wrote last.
    pub(super) fn finish(&mut self) {
        for _ in 0..LAST_CHUNKS {
            if !self.copy() {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_log_is_appended_to_and_turned_over_once_when_it_is_full() {
        let directory = std::env::temp_dir().join(format!("vswitch-log-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir(&directory).unwrap();
        let path = directory.join("a.log");
        fs::write(&path, "before\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let (mut pump, sink) = Pump::with_limit(&path, 1000).unwrap();
        let mut sink = File::from(sink);
        assert!(!pump.copy(), "there is nothing yet");
        sink.write_all(b"first\n").unwrap();
        assert!(pump.copy());
        assert_eq!(fs::read_to_string(&path).unwrap(), "before\nfirst\n");
        for _ in 0..5 {
            sink.write_all(&[b'x'; 600]).unwrap();
            assert!(pump.copy());
        }
        sink.write_all(b"last\n").unwrap();
        drop(sink);
        pump.finish();
        assert!(pump.source().is_none(), "the end of the stream has been seen");
        assert_eq!(fs::read(&path).unwrap().len(), 605);
        assert_eq!(fs::read(directory.join("a.log.1")).unwrap().len(), 600);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 2);
        fs::remove_dir_all(&directory).unwrap();
    }
}
