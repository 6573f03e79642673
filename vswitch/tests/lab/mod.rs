//! What tests with real namespaces have in common: a state directory whose name marks everything that a test makes.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "test code, of which each file uses its part"
)]

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use netstack::addr::MacAddr;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use serde_json::Value;
use vswitch::helper::exec::Enter;
use vswitch::helper::{Failure, Helper, HelperError, HelperOptions, Namespace, NamespaceSpec};
use vswitch::state::StateDir;

/// Tests look at all processes of the machine, so one runs at a time.
pub(crate) static ALONE: Mutex<()> = Mutex::new(());

pub(crate) fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A test that cannot run says so; where everything has to run that is a failure.
pub(crate) fn skip(why: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "skipped under CI: {why}");
    eprintln!("skipped: {why}");
}

pub(crate) fn root() -> bool {
    let root = geteuid().is_root();
    if !root {
        skip("needs root");
    }
    root
}

/// Runs one test as root, in a lab of its own.
pub(crate) fn as_root(label: &str, test: impl FnOnce(&mut Lab)) {
    let _alone = alone();
    if root() {
        test(&mut Lab::new(label));
    }
}

/// Runs `all` tests of a file here if this is an ordinary user, and `as_another` if it is root and can become one.
pub(crate) fn as_user(all: fn(&Path), as_another: impl FnOnce()) {
    let _alone = alone();
    if geteuid().is_root() {
        return as_another();
    }
    if fs::OpenOptions::new().read(true).write(true).open("/dev/net/tun").is_err() {
        return skip("/dev/net/tun cannot be opened");
    }
    all(&std::env::current_exe().unwrap());
}

/// What [`OrdinaryUser::run`] starts.
pub(crate) fn in_role_of_user(all: fn(&Path)) {
    if let Some(test) = std::env::var_os("VSWITCH_TEST_USER") {
        all(Path::new(&test));
    }
}

pub(crate) fn executable() -> PathBuf {
    std::env::var_os("VSWITCH_TEST_EXECUTABLE")
        .map_or_else(|| env!("CARGO_BIN_EXE_vswitch").into(), PathBuf::from)
}

/// A state directory of its own, whose last path component marks every process and namespace of the test.
pub(crate) struct Lab {
    pub(crate) mark: String,
    pub(crate) state: Option<StateDir>,
    pub(crate) options: HelperOptions,
}

impl Lab {
    pub(crate) fn new(test: &str) -> Self {
        let mark = format!("vst-{test}-{}", std::process::id());
        Self::at(std::env::temp_dir().join(&mark), mark)
    }

    pub(crate) fn at(path: PathBuf, mark: String) -> Self {
        let state = StateDir::open(&path).unwrap();
        let mut options = HelperOptions::new(state.paths().clone());
        options.executable = Some(executable());
        options.grace = Duration::from_secs(1);
        Self { mark, state: Some(state), options }
    }

    pub(crate) fn start(&self) -> Helper {
        Helper::start(&self.options).unwrap()
    }

    pub(crate) fn name(&self, pod: &str) -> String {
        format!("{}-{pod}", self.mark)
    }

    pub(crate) fn spec(&self, pod: &str, id: u8) -> NamespaceSpec {
        let mut spec = NamespaceSpec::new(self.name(pod), MacAddr::local(u64::from(id)));
        spec.addresses = vec![
            format!("10.244.0.{id}/24").parse().unwrap(),
            format!("fd00:10:244::{id}/64").parse().unwrap(),
        ];
        spec.gateway_v4 = Some(Ipv4Addr::new(10, 244, 0, 1));
        spec.gateway_v6 = Some("fd00:10:244::1".parse().unwrap());
        spec
    }

    pub(crate) fn processes(&self) -> Vec<u32> {
        processes_with(&self.mark)
    }

    /// Nothing of the test is left: no name, no process, no interface, no file but the lock.
    pub(crate) fn assert_clean(&self) {
        until("the test's processes are gone", || self.processes().is_empty());
        assert_eq!(self.names(), Vec::<String>::new());
        let mut files: Vec<_> = walk(self.options.state.root());
        files.retain(|file| !file.ends_with("lock") && !file.ends_with("helper.log") && !file.is_dir());
        assert_eq!(files, Vec::<PathBuf>::new());
        let log = fs::read_to_string(self.options.state.helper_log()).unwrap_or_default();
        assert_eq!(log, "", "helper.log");
    }

    pub(crate) fn names(&self) -> Vec<String> {
        let Ok(entries) = fs::read_dir("/run/netns") else { return Vec::new() };
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with(&self.mark)).collect()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // Also after a failed assertion: end what is left.
        let _ = Helper::reclaim(&self.options.state);
        for pid in self.processes() {
            let _ = kill(pid_of(pid), Signal::SIGKILL);
        }
        self.state = None;
        let _ = fs::remove_dir_all(self.options.state.root());
    }
}

pub(crate) fn walk(path: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.path().is_dir() {
            all.extend(walk(&entry.path()));
        }
        all.push(entry.path());
    }
    all
}

/// Living processes with `mark` in an argument, other than this one.
pub(crate) fn processes_with(mark: &str) -> Vec<u32> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if pid != std::process::id() && String::from_utf8_lossy(&line).contains(mark) && lives(pid) {
            found.push(pid);
        }
    }
    found
}

/// Whether a process exists and is not a zombie.
pub(crate) fn lives(pid: u32) -> bool {
    let Ok(text) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    text.rsplit(") ").next().is_some_and(|rest| !rest.starts_with(['Z', 'X']))
}

pub(crate) fn pid_of(pid: u32) -> Pid {
    Pid::from_raw(pid.try_into().unwrap())
}

pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("it did not happen within ten seconds that {what}");
}

pub(crate) fn success(output: &Output) -> String {
    assert!(
        output.status.success(),
        "{:?}: {}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout.clone()).unwrap()
}

pub(crate) fn enter(namespace: &Namespace, words: &str) -> Enter {
    let mut words = words.split_whitespace();
    Enter::new(namespace.target(), words.next().unwrap()).arguments(words).executable(executable())
}

pub(crate) fn shell(namespace: &Namespace, script: &str) -> Enter {
    Enter::new(namespace.target(), "/bin/sh").arguments(["-c", script]).executable(executable())
}

pub(crate) fn output(enter: &Enter) -> Output {
    enter.command().stdin(Stdio::null()).output().unwrap()
}

/// Runs `ip -j …` in a pod the way our users do (root: `ip netns exec`) and reads its answer.
pub(crate) fn ip(namespace: &Namespace, words: &str) -> Value {
    // Not in the path of ordinary users.
    let ip = if Path::new("/usr/sbin/ip").exists() { "/usr/sbin/ip" } else { "ip" };
    let text = if geteuid().is_root() {
        let mut command = Command::new(ip);
        command.args(["netns", "exec", &namespace.name, ip, "-j"]).args(words.split_whitespace());
        success(&command.output().unwrap())
    } else {
        success(&output(&enter(namespace, &format!("{ip} -j {words}"))))
    };
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// The route to `destination`, as `ip -j route` prints it.
pub(crate) fn route(namespace: &Namespace, family: &str, destination: &str) -> Value {
    let routes = ip(namespace, &format!("{family} route"));
    let found = routes.as_array().unwrap().iter().find(|route| route["dst"] == destination);
    found.unwrap_or_else(|| panic!("no route to {destination} in {routes}")).clone()
}

pub(crate) fn failure(error: HelperError) -> Failure {
    if let HelperError::Failed(failure) = error {
        return failure;
    }
    panic!("{error}");
}

pub(crate) fn children_of(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).collect()
}

/// Lets everybody open `/dev/net/tun`, as udev does, until it is dropped.
pub(crate) struct OpenTun(fs::Permissions);

impl OpenTun {
    pub(crate) fn new() -> Self {
        let before = fs::metadata("/dev/net/tun").unwrap().permissions();
        fs::set_permissions("/dev/net/tun", fs::Permissions::from_mode(0o666)).unwrap();
        Self(before)
    }
}

impl Drop for OpenTun {
    fn drop(&mut self) {
        fs::set_permissions("/dev/net/tun", self.0.clone()).unwrap();
    }
}

/// Copies of the test and of the command where an ordinary user can reach them, until it is dropped.
pub(crate) struct OrdinaryUser {
    directory: PathBuf,
    _open: OpenTun,
}

impl OrdinaryUser {
    pub(crate) fn new(label: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("vst-{label}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        fs::DirBuilder::new().mode(0o755).create(&directory).unwrap();
        fs::copy(std::env::current_exe().unwrap(), directory.join("test")).unwrap();
        fs::copy(executable(), directory.join("vswitch")).unwrap();
        Self { directory, _open: OpenTun::new() }
    }

    /// Runs the ignored test `role_user` as user 65534, `through` another command if one is given.
    pub(crate) fn run(&self, through: &[&str]) -> Output {
        let test = self.directory.join("test");
        Command::new("unshare")
            .args(["--mount", "--propagation", "private"])
            .args(through)
            .args(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&test)
            .args(["--ignored", "--exact", "role_user", "--nocapture"])
            .current_dir("/")
            .env("VSWITCH_TEST_EXECUTABLE", self.directory.join("vswitch"))
            .env("VSWITCH_TEST_USER", &test)
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }
}

impl Drop for OrdinaryUser {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}
