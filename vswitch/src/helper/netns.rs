//! The helper's own namespaces, and names under `/run/netns`.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{getegid, geteuid};

use super::NETNS_DIRECTORY;
use super::protocol::{Failure, FailureKind};
use super::spec::Existing;

/// For `mount(2)` arguments that are not used.
pub(super) const NONE: Option<&str> = None;
/// Ends a message about what the machine may simply not allow.
pub(crate) const DOCTOR_KNOWS: &str = "; `vswitch doctor` says what the machine allows";

/// Ends a message about a namespace of somebody else.
pub(super) const ROOT_ONLY: &str = "; only root can use one that vswitch did not make";

/// Takes the calling process, which must have a single thread, into a network namespace of its own. As root its
/// mount namespace stays the host's, so that the host sees the names it makes; otherwise it enters a user and a
/// mount namespace too. Returns whether it did.
pub(super) fn enter_own_namespaces() -> Result<bool, Failure> {
    let (uid, gid) = (geteuid(), getegid());
    if uid.is_root() {
        match unshare(CloneFlags::CLONE_NEWNET) {
            Ok(()) => return Ok(false),
            // Root without CAP_SYS_ADMIN, as in most containers, is an ordinary user.
            Err(Errno::EPERM) => {}
            Err(errno) => return Err(Failure::system("cannot make a network namespace", &errno.into())),
        }
    }
    let refused = |what: &str, errno: Errno| {
        let mut failure = Failure::system(what, &errno.into());
        failure.message.push_str(DOCTOR_KNOWS);
        failure
    };
    unshare(CloneFlags::CLONE_NEWUSER).map_err(|errno| refused("cannot make a user namespace", errno))?;
    // Without the right to drop groups: the kernel asks for this before it lets a process map its own gid.
    write_self("setgroups", "deny")?;
    write_self("uid_map", &format!("0 {uid} 1"))?;
    write_self("gid_map", &format!("0 {gid} 1"))?;
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)
        .map_err(|errno| refused("cannot make a mount and a network namespace", errno))?;
    keep_mounts_to_ourselves()?;
    Ok(true)
}

fn write_self(name: &str, text: &str) -> Result<(), Failure> {
    let path = Path::new("/proc/self").join(name);
    fs::write(&path, text)
        .map_err(|error| Failure::system(format!("cannot write {text:?} to {}", path.display()), &error))
}

/// From now on mounts made here are not seen outside; those made outside still arrive.
pub(super) fn keep_mounts_to_ourselves() -> Result<(), Failure> {
    mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_SLAVE, NONE)
        .map_err(|errno| Failure::system("cannot detach from the host's mounts", &errno.into()))
}

/// Makes `/run/netns` a place where namespaces can be named.
pub(super) fn prepare_directory(user_namespace: bool) -> Result<(), Failure> {
    if user_namespace { prepare_private_directory() } else { prepare_host_directory() }
        .map_err(|error| Failure::system(format!("cannot prepare {NETNS_DIRECTORY}"), &error))
}

/// As `ip netns add` does it: shared, so that names appear in, and above all disappear from, mount namespaces that
/// were copied meanwhile.
fn prepare_host_directory() -> io::Result<()> {
    if !Path::new(NETNS_DIRECTORY).is_dir() {
        fs::create_dir_all(NETNS_DIRECTORY)?;
        fs::set_permissions(NETNS_DIRECTORY, Permissions::from_mode(0o755))?;
    }
    let share = || mount(Some(""), NETNS_DIRECTORY, Some("none"), MsFlags::MS_SHARED | MsFlags::MS_REC, NONE);
    match share() {
        // Not a mount point yet.
        Err(Errno::EINVAL) => {
            let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
            mount(Some(NETNS_DIRECTORY), NETNS_DIRECTORY, Some("none"), flags, NONE)?;
            share()?;
        }
        other => other?,
    }
    Ok(())
}

/// An empty file system that only the helper and its pods see, and that vanishes with them.
fn prepare_private_directory() -> io::Result<()> {
    if !Path::new(NETNS_DIRECTORY).is_dir() {
        // An ordinary user cannot make a directory in the host's `/run`.
        copy_up(Path::new("/run"))?;
        fs::create_dir(NETNS_DIRECTORY)?;
    }
    mount_tmpfs(Path::new(NETNS_DIRECTORY))
}

fn mount_tmpfs(path: &Path) -> io::Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    Ok(mount(Some("tmpfs"), path, Some("tmpfs"), flags, Some("mode=755,size=1m"))?)
}

/// Lays a writable directory over `directory` in which everything that was there is found again.
fn copy_up(directory: &Path) -> io::Result<()> {
    let below = fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(directory)?;
    let entries: Vec<_> = fs::read_dir(directory)?.collect::<io::Result<_>>()?;
    mount_tmpfs(directory)?;
    for entry in entries {
        let name = entry.file_name();
        // The link leads below the new mount.
        let old = PathBuf::from(format!("/proc/self/fd/{}", below.as_raw_fd())).join(&name);
        let new = directory.join(&name);
        let kind = entry.file_type()?;
        let copied = if kind.is_symlink() {
            fs::read_link(&old).and_then(|target| std::os::unix::fs::symlink(target, &new))
        } else {
            let made = if kind.is_dir() { fs::create_dir(&new) } else { File::create(&new).map(drop) };
            made.and_then(|()| Ok(mount(Some(&old), &new, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)?))
        };
        // What an ordinary user cannot reach there would have been of no use to the pods either.
        drop(copied);
    }
    Ok(())
}

/// Where the namespace `name` is found.
pub(super) fn name_path(name: &str) -> PathBuf {
    Path::new(NETNS_DIRECTORY).join(name)
}

/// Opens a network namespace that somebody else made.
pub(super) fn open_existing(existing: &Existing) -> Result<OwnedFd, Failure> {
    let path = existing.location();
    let file = File::open(&path).map_err(|error| {
        let mut failure = Failure::system(format!("cannot open {existing}: {}", path.display()), &error);
        if error.kind() == io::ErrorKind::NotFound {
            failure.kind = FailureKind::NotFound;
        }
        if error.kind() == io::ErrorKind::PermissionDenied {
            failure.message.push_str(ROOT_ONLY);
        }
        failure
    })?;
    let status = nix::sys::statfs::fstatfs(&file);
    if status.is_ok_and(|status| status.filesystem_type() == nix::sys::statfs::NSFS_MAGIC) {
        return Ok(file.into());
    }
    let why = format!("{existing}: {} is not a namespace", path.display());
    Err(Failure::new(FailureKind::Invalid, why))
}

/// Whether a namespace is mounted at `path`.
pub(super) fn is_namespace(path: &Path) -> bool {
    nix::sys::statfs::statfs(path)
        .is_ok_and(|status| status.filesystem_type() == nix::sys::statfs::NSFS_MAGIC)
}

/// Reserves a name, failing if it is taken; [`give_name`] fills it.
pub(super) fn reserve_name(name: &str) -> Result<(), Failure> {
    let path = name_path(name);
    match fs::OpenOptions::new().write(true).create_new(true).mode(0o444).open(&path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let why = format!("a network namespace named {name:?} exists already ({})", path.display());
            Err(Failure::new(FailureKind::Exists, why))
        }
        Err(error) => Err(Failure::system(format!("cannot create {}", path.display()), &error)),
    }
}

/// Mounts the network namespace of the process `pid` at a reserved name.
pub(super) fn give_name(name: &str, pid: u32) -> Result<(), Failure> {
    let (source, target) = (PathBuf::from(format!("/proc/{pid}/ns/net")), name_path(name));
    mount(Some(&source), &target, Some("none"), MsFlags::MS_BIND, NONE).map_err(|errno| {
        Failure::system(format!("cannot mount {} at {}", source.display(), target.display()), &errno.into())
    })
}

/// Removes a name and what is mounted there; it is no error if there is nothing.
pub(super) fn unname(name: &str) -> io::Result<()> {
    let path = name_path(name);
    loop {
        match umount2(&path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
            // Mounts may lie on top of each other.
            Ok(()) => {}
            Err(Errno::EINVAL | Errno::ENOENT) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
