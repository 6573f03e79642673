//! What this machine allows, found out by trying, with a remedy for what it does not.

use std::fmt::Write as _;
use std::fs::{self, DirBuilder, OpenOptions};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use netstack::addr::MacAddr;
use netstack::driver::Driver;
use nix::sys::resource::{Resource, getrlimit};
use serde::Serialize;

use crate::confine;
use crate::helper::{DOCTOR_KNOWS, Helper, HelperError, HelperOptions, NamespaceSpec, tun_remedy};
use crate::state::StatePaths;

/// A hundred pods with their TAPs, sockets and probes stay below this.
const ENOUGH_DESCRIPTORS: u64 = 4096;

/// How a check ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// As it should be.
    Ok,
    /// Something optional is missing.
    Warn,
    /// Pods with TAP devices do not work.
    Fail,
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Check {
    /// What was looked at, in two or three words.
    pub name: &'static str,
    /// How it is.
    pub status: Status,
    /// What was found.
    pub found: String,
    /// What to do about it, unless all is well.
    pub remedy: Option<String>,
}

impl Check {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, status: Status::Ok, found: found.into(), remedy: None }
    }

    fn warn(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, status: Status::Warn, found: found.into(), remedy: Some(remedy.into()) }
    }

    fn fail(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { name, status: Status::Fail, found: found.into(), remedy: Some(remedy.into()) }
    }
}

/// Every check, with a helper of this process's own executable.
pub fn checks() -> Vec<Check> {
    checks_with(None)
}

/// Every check, with a helper started from `executable` (see [`HelperOptions::executable`]).
pub fn checks_with(executable: Option<PathBuf>) -> Vec<Check> {
    let mut checks = vec![
        tun_device(),
        user_namespaces(),
        pods(executable),
        ipv6(),
        ring(),
        ping(),
        confinement(),
        descriptors(),
        cgroups(),
    ];
    checks.push(tool("tcpdump", "to read captures on the command line"));
    checks.push(tool("tshark", "to read captures in depth"));
    checks
}

/// Whether no check failed.
pub fn all_usable(checks: &[Check]) -> bool {
    checks.iter().all(|check| check.status != Status::Fail)
}

/// The checks as text, one line each and a line for each remedy.
pub fn report(checks: &[Check]) -> String {
    let mut text = String::new();
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    for check in checks {
        let mark = match check.status {
            Status::Ok => "ok  ",
            Status::Warn => "warn",
            Status::Fail => "FAIL",
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{mark}  {:width$}  {}", check.name, check.found);
        if let Some(remedy) = &check.remedy {
            let _ = writeln!(text, "      {:width$}  -> {remedy}", "");
        }
    }
    text
}

fn tun_device() -> Check {
    const NAME: &str = "TUN/TAP";
    const PATH: &str = "/dev/net/tun";
    match OpenOptions::new().read(true).write(true).open(PATH) {
        Ok(_) => Check::ok(NAME, format!("{PATH} can be opened")),
        Err(error) => {
            let remedy = tun_remedy(&error).unwrap_or("as root: modprobe tun");
            Check::fail(NAME, format!("{PATH}: {error}"), remedy)
        }
    }
}

fn user_namespaces() -> Check {
    const NAME: &str = "user namespaces";
    let uid = nix::unistd::geteuid();
    if uid.is_root() {
        return Check::ok(NAME, "not needed by root");
    }
    let switches = [
        ("kernel/unprivileged_userns_clone", "0", "1"),
        ("user/max_user_namespaces", "0", "15000"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
    ];
    for (option, off, on) in switches {
        let value = fs::read_to_string(Path::new("/proc/sys").join(option));
        if value.is_ok_and(|value| value.trim() == off) {
            let option = option.replace('/', ".");
            let mut remedy = format!("as root: sysctl -w {option}={on}");
            if option.contains("apparmor") {
                remedy.push_str(", or give vswitch an AppArmor profile with `userns,`");
            }
            return Check::fail(NAME, format!("{option} = {off}"), remedy);
        }
    }
    Check::ok(NAME, format!("allowed to user {uid} as far as the settings say"))
}

/// Makes a pod, for it is the only way to know that one can be made.
fn pods(executable: Option<PathBuf>) -> Check {
    const NAME: &str = "pods";
    let directory = std::env::temp_dir().join(format!("vswitch-doctor-{}", std::process::id()));
    let check = match DirBuilder::new().mode(0o700).create(&directory) {
        Ok(()) => try_pod(&directory, executable),
        Err(error) => return Check::fail(NAME, format!("{}: {error}", directory.display()), "set TMPDIR"),
    };
    // An empty directory in the temporary one is the worst that can stay.
    let _ = fs::remove_dir_all(&directory);
    match check {
        Ok((found, warnings)) if warnings.is_empty() => Check::ok(NAME, found),
        Ok((found, warnings)) => Check::warn(
            NAME,
            format!("{found}, but: {}", warnings.join("; ")),
            "inside a container: run it with a full /proc and /sys, with docker by --security-opt systempaths=unconfined",
        ),
        Err(error) => Check::fail(
            NAME,
            error.to_string().replace(DOCTOR_KNOWS, ""),
            "if nothing else here has failed, a sandbox is in the way: a container needs the system calls unshare, \
             setns and mount (with docker by --security-opt seccomp=unconfined), or run as root",
        ),
    }
}

fn try_pod(directory: &Path, executable: Option<PathBuf>) -> Result<(String, Vec<String>), HelperError> {
    let mut options = HelperOptions::new(StatePaths::new(directory));
    options.grace = std::time::Duration::ZERO;
    options.executable = executable;
    let mut helper = Helper::start(&options)?;
    let how = if helper.info().user_namespace { "in a user namespace" } else { "as root" };
    let spec = NamespaceSpec::new(format!("vswitch-doctor-{}", std::process::id()), MacAddr::local(1));
    let created = helper.create(&spec);
    let left_behind = helper.shutdown()?;
    let namespace = created?.namespace;
    let header = if namespace.vnet_hdr { "with" } else { "without" };
    let mut warnings = namespace.warnings;
    warnings.extend(left_behind);
    Ok((format!("made and removed one {how}, {header} offload"), warnings))
}

fn ipv6() -> Check {
    const NAME: &str = "IPv6";
    if Path::new("/proc/sys/net/ipv6").is_dir() {
        Check::ok(NAME, "the kernel has it")
    } else {
        Check::warn(
            NAME,
            "the kernel has no IPv6",
            "boot without ipv6.disable=1, or give pods IPv4 addresses only",
        )
    }
}

fn ring() -> Check {
    const NAME: &str = "io_uring";
    match Driver::try_ring() {
        Ok(()) => Check::ok(NAME, "floods of small packets are read through it"),
        Err(error) => Check::warn(
            NAME,
            error.to_string(),
            "optional, for floods of small packets: Linux 6.7 or newer, with kernel.io_uring_disabled = 0 and no seccomp \
             profile in its way",
        ),
    }
}

fn ping() -> Check {
    const NAME: &str = "ping sockets";
    const PATH: &str = "/proc/sys/net/ipv4/ping_group_range";
    let gid = nix::unistd::getegid().as_raw();
    let text = match fs::read_to_string(PATH) {
        Ok(text) => text,
        Err(error) => {
            return Check::warn(NAME, format!("{PATH}: {error}"), "needs a kernel with ping sockets");
        }
    };
    let mut range = text.split_whitespace().map(str::parse::<u32>);
    match (range.next(), range.next()) {
        (Some(Ok(low)), Some(Ok(high))) if (low..=high).contains(&gid) => {
            Check::ok(NAME, format!("allowed to group {gid}"))
        }
        _ => Check::warn(
            NAME,
            format!("net.ipv4.ping_group_range = {} leaves out group {gid}", text.trim().replace('\t', " ")),
            "pods cannot ping beyond this machine; as root: sysctl -w net.ipv4.ping_group_range='0 2147483647'",
        ),
    }
}

fn confinement() -> Check {
    const NAME: &str = "confinement";
    let lacks = confine::lacks();
    if lacks.is_empty() {
        return Check::ok(NAME, "threads that move frames have neither files nor programs");
    }
    Check::warn(
        NAME,
        lacks.join("; "),
        "optional, a second line of defence: Linux 6.12 or newer with landlock among CONFIG_LSM or lsm=, and seccomp",
    )
}

fn descriptors() -> Check {
    const NAME: &str = "open files";
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((_, hard)) if hard >= ENOUGH_DESCRIPTORS => Check::ok(NAME, format!("up to {hard}")),
        Ok((_, hard)) => Check::warn(
            NAME,
            format!("up to {hard}"),
            format!(
                "large clusters need more: ulimit -Hn {ENOUGH_DESCRIPTORS}, or LimitNOFILE= in the service"
            ),
        ),
        Err(errno) => Check::warn(NAME, errno.to_string(), "look at ulimit -Hn"),
    }
}

fn cgroups() -> Check {
    const NAME: &str = "cgroup v2";
    let root = nix::sys::statfs::statfs("/sys/fs/cgroup").map(|status| status.filesystem_type());
    if root == Ok(nix::sys::statfs::CGROUP2_SUPER_MAGIC) {
        Check::ok(NAME, "mounted at /sys/fs/cgroup")
    } else {
        Check::warn(
            NAME,
            "/sys/fs/cgroup is not a cgroup2 file system",
            "resource limits of pods have no effect; boot with systemd.unified_cgroup_hierarchy=1",
        )
    }
}

fn tool(name: &'static str, purpose: &str) -> Check {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Administrators' tools are often not in the path of others.
    let more = ["/usr/sbin", "/sbin"].into_iter().map(PathBuf::from);
    match std::env::split_paths(&path).chain(more).map(|d| d.join(name)).find(|file| file.is_file()) {
        Some(file) => Check::ok(name, file.display().to_string()),
        None => Check::warn(name, "not installed", format!("optional, {purpose}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_names_every_check_and_each_remedy() {
        let checks = [
            Check::ok("one", "fine"),
            Check::warn("second", "odd", "do this"),
            Check::fail("x", "bad", "do that"),
        ];
        let text = report(&checks);
        assert_eq!(text.lines().count(), 5, "{text}");
        assert!(text.contains("ok    one     fine\n"), "{text}");
        assert!(text.contains("-> do this") && text.contains("-> do that"));
        assert!(!all_usable(&checks));
        assert!(all_usable(&checks[..2]));
    }
}
