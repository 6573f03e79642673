//! `/etc/netns/NAME`: files that `ip netns exec NAME` lays over those of the machine.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::spec::PodFile;

/// Begins every file of ours. Whoever puts others there keeps them.
pub(crate) const MADE_BY: &str = "# Made by vswitch for this pod.";
/// Where `ip` looks.
const DIRECTORY: &str = "/etc/netns";

fn directory(name: &str) -> PathBuf {
    Path::new(DIRECTORY).join(name)
}

/// Writes those of a namespace's files that are in `/etc` itself, unless there are others.
pub(super) fn write(name: &str, files: &[PodFile]) -> io::Result<()> {
    write_in(&directory(name), files)
}

/// Has a namespace's files go with it to another name.
pub(super) fn rename(name: &str, to: &str) -> io::Result<()> {
    match fs::rename(directory(name), directory(to)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Removes what was written, and the directories if nothing else is in them.
pub(super) fn remove(name: &str) -> io::Result<()> {
    remove_in(&directory(name))?;
    // Others may have theirs there.
    let _ = fs::remove_dir(DIRECTORY);
    Ok(())
}

fn write_in(directory: &Path, files: &[PodFile]) -> io::Result<()> {
    let ours = files.iter().filter(|file| file.content.starts_with(MADE_BY));
    for file in ours.filter(|file| file.path.parent() == Some(Path::new("/etc"))) {
        let Some(name) = file.path.file_name() else { continue };
        let path = directory.join(name);
        if fs::symlink_metadata(&path).is_ok() && !is_ours(&path) {
            continue;
        }
        fs::create_dir_all(directory)?;
        fs::write(path, &file.content)?;
    }
    Ok(())
}

fn is_ours(path: &Path) -> bool {
    fs::read_to_string(path).is_ok_and(|text| text.starts_with(MADE_BY))
}

fn remove_in(directory: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        let path = entry?.path();
        if is_ours(&path) {
            fs::remove_file(path)?;
        }
    }
    match fs::remove_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_come_and_go_and_those_of_others_stay() {
        let directory = std::env::temp_dir().join(format!("vswitch-etc-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        let file = |path: &str, content: &str| PodFile { path: path.into(), content: content.to_owned() };
        let ours = format!("{MADE_BY}\nnameserver 10.96.0.10\n");
        let files =
            [file("/etc/resolv.conf", &ours), file("/etc/a/b", &ours), file("/etc/hosts", "of no mark\n")];
        write_in(&directory, &files).unwrap();
        let found = |directory: &Path| {
            let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name());
            names.map(|name| name.to_string_lossy().into_owned()).collect::<Vec<_>>()
        };
        assert_eq!(found(&directory), ["resolv.conf"]);
        remove_in(&directory).unwrap();
        remove_in(&directory).unwrap();
        assert!(!directory.exists());
        fs::create_dir(&directory).unwrap();
        fs::write(directory.join("resolv.conf"), "nameserver 192.0.2.1\n").unwrap();
        write_in(&directory, &files).unwrap();
        remove_in(&directory).unwrap();
        assert_eq!(fs::read_to_string(directory.join("resolv.conf")).unwrap(), "nameserver 192.0.2.1\n");
        fs::remove_dir_all(directory).unwrap();
    }
}
