//! What the helper writes to the state directory so that its names can be removed even if it is killed.
//!
//! # Theory of operation
//! One file per namespace, written before the name under `/run/netns` is made and written again, with the inode of
//! the namespace, once it is known. Whoever reads a record later removes the name only if it is still the one that
//! was made: a namespace with another inode belongs to somebody who used the name since.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::spec::validate_name;
use super::{etc, netns};
use crate::state::write_atomically;

/// The content of one record.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    /// The name under `/run/netns`.
    pub(super) name: String,
    /// Whether nothing on the host has the name: it is in the helper's own mount namespace and so vanishes with the
    /// helper, or the network namespace is somebody else's and gets no name from us.
    pub(super) private: bool,
    /// The inode of the network namespace once it exists.
    pub(super) netns_inode: Option<u64>,
}

fn record_path(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.json"))
}

/// Where the contents of a namespace's files are.
pub(super) fn files_directory(directory: &Path, name: &str) -> PathBuf {
    directory.join(format!("{name}.files"))
}

pub(super) fn write(directory: &Path, record: &Record) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    write_atomically(&record_path(directory, &record.name), &serde_json::to_vec(record)?)
}

/// Removes a record and its files; it is no error if there are none.
pub(super) fn remove(directory: &Path, name: &str) -> io::Result<()> {
    let absent = |error: io::Error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) };
    fs::remove_dir_all(files_directory(directory, name)).or_else(absent)?;
    fs::remove_file(record_path(directory, name)).or_else(absent)
}

/// Removes everything that the records in `directory` name and that is still the same, then the records. To be
/// called only when no helper is left. Returns the names removed and what could not be done.
pub(super) fn remove_stale(directory: &Path) -> (Vec<String>, Vec<String>) {
    let (mut removed, mut problems) = (Vec::new(), Vec::new());
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return (removed, problems),
        Err(error) => {
            problems.push(format!("{}: {error}", directory.display()));
            return (removed, problems);
        }
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".json")) else {
            continue;
        };
        if validate_name(name).is_err() {
            continue;
        }
        // A record that cannot be read (a crash cannot cause that) is treated like one made before its namespace.
        let record = fs::read(&path).ok().and_then(|text| serde_json::from_slice::<Record>(&text).ok());
        let (private, inode) = record.map_or((false, None), |record| (record.private, record.netns_inode));
        if !private && is_ours(name, inode) {
            if let Err(error) = etc::remove(name) {
                problems.push(format!("the files of {name}: {error}"));
            }
            match netns::unname(name) {
                Ok(()) => removed.push(name.to_owned()),
                Err(error) => {
                    problems.push(format!("{}: {error}", netns::name_path(name).display()));
                    continue;
                }
            }
        }
        if let Err(error) = remove(directory, name) {
            problems.push(format!("{}: {error}", path.display()));
        }
    }
    removed.sort();
    (removed, problems)
}

/// Whether the name exists and is still what the record speaks of.
fn is_ours(name: &str, netns_inode: Option<u64>) -> bool {
    let path = netns::name_path(name);
    let Ok(metadata) = fs::symlink_metadata(&path) else { return false };
    match netns_inode {
        Some(inode) => metadata.ino() == inode || !netns::is_namespace(&path),
        // The helper was killed between making the name and learning its inode.
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_and_go_with_their_files_and_reclaiming_twice_is_fine() {
        let directory = std::env::temp_dir().join(format!("vswitch-record-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        assert_eq!(remove_stale(&directory), (vec![], vec![]));
        let name = format!("vswitch-no-such-{}", std::process::id());
        write(&directory, &Record { name: name.clone(), private: false, netns_inode: Some(1) }).unwrap();
        fs::create_dir(files_directory(&directory, &name)).unwrap();
        fs::write(directory.join("garbage.txt"), "").unwrap();
        // The name does not exist on this machine, so that nothing but the record goes.
        assert_eq!(remove_stale(&directory), (vec![], vec![]));
        assert!(!record_path(&directory, &name).exists());
        assert!(!files_directory(&directory, &name).exists());
        assert_eq!(remove_stale(&directory), (vec![], vec![]));
        fs::remove_dir_all(&directory).unwrap();
    }
}
