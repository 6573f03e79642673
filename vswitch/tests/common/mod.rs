//! A cluster of the real command for tests: started as a process, used through its verbs, and checked to leave nothing
//! behind.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "test code, of which each test file uses its own part"
)]

pub(crate) mod in_memory;
pub(crate) mod two_nodes;

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use serde_json::Value;

/// The command under test.
pub(crate) fn executable() -> &'static str {
    env!("CARGO_BIN_EXE_vswitch")
}

/// Whether tests with namespaces and these programs can run here. If not, it says why; where everything has to run
/// (`CI` is set), that is a failure.
pub(crate) fn ready(programs: &[&str]) -> bool {
    let why = if !geteuid().is_root() {
        "needs root".to_owned()
    } else if !Path::new("/dev/net/tun").exists() {
        "needs /dev/net/tun".to_owned()
    } else if let Some(missing) = programs.iter().find(|p| !installed(p)) {
        format!("needs the program {missing}")
    } else {
        return true;
    };
    assert!(std::env::var_os("CI").is_none_or(|v| v.is_empty()), "skipped under CI: {why}");
    // A captured line would not be seen when the test passes.
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
    false
}

fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut places: Vec<PathBuf> = std::env::split_paths(&path).collect();
    places.extend(["/usr/sbin", "/sbin"].map(PathBuf::from));
    places.iter().any(|directory| directory.join(program).exists())
}

/// Three echoes of `size` octets at once. Ping leaves when the third answer is there. For answers after the first it waits
/// no longer than its interval or two round trips: a short interval makes losses of a processor taken away for a moment.
pub(crate) fn three_pings<'a>(size: &'a str, to: &'a str) -> [&'a str; 11] {
    ["ping", "-n", "-c", "3", "-l", "3", "-i", "5", "-s", size, to]
}

/// What makes a program somebody's who owns nothing.
pub(crate) const USER: [&str; 4] = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];

/// Waits up to twenty seconds for `condition`.
pub(crate) fn until(what: &str, condition: impl FnMut() -> bool) {
    assert!(happens(condition), "it did not happen within twenty seconds that {what}");
}

/// The same, and says whether it did.
pub(crate) fn happens(mut condition: impl FnMut() -> bool) -> bool {
    for _ in 0..1000 {
        if condition() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    false
}

/// The built-in cluster with so many pods more on node-1, which do nothing: idle-0 is 10.244.0.4 and fd00:10:244::4, and so
/// on.
pub(crate) fn with_idle_pods(count: u16) -> String {
    format!(
        "{}---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: idle}}\nspec:\n  replicas: {count}\n  \
         selector: {{matchLabels: {{app: idle}}}}\n  template:\n    metadata: {{labels: {{app: idle}}}}\n    \
         spec: {{nodeName: node-1, containers: [{{name: idle, image: none}}]}}\n",
        include_str!("../../src/objects/builtin.yaml")
    )
}

/// A manifest in a file that goes with it.
pub(crate) struct ManifestFile(PathBuf);

impl ManifestFile {
    pub(crate) fn new(label: &str, text: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("vst-{label}-{}-{number}.yaml", std::process::id()));
        fs::write(&path, text).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for ManifestFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// What the program wrote, if it succeeded.
#[track_caller]
pub(crate) fn success(what: &str, output: &Output) -> String {
    assert!(output.status.success(), "{what}: {:?}\n{}", output.status, both(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Standard output and standard error.
pub(crate) fn both(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A running `vswitch up`. Dropping it ends it by `vswitch down` and fails the test if anything
/// is left or the switches' books do not balance.
pub(crate) struct Cluster {
    /// Its name, which begins the names of its namespaces and is part of its state directory's path.
    pub(crate) name: String,
    /// Its state directory.
    pub(crate) state: PathBuf,
    log: PathBuf,
    /// What comes before verbs.
    through: Vec<String>,
    process: Option<Child>,
    stdout: Option<BufReader<ChildStdout>>,
    /// Held open: the kernel gives the number of a namespace that is gone to the next one, another test's for example.
    namespaces: Vec<fs::File>,
    taps: BTreeSet<String>,
}

impl Cluster {
    /// Starts a cluster on TAPs with more `arguments` for `up`, and waits until it can be asked. `label` tells the
    /// tests of one process apart.
    pub(crate) fn up(label: &str, arguments: &[&str]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Self::up_as(&format!("vst-{label}-{}-{number}", std::process::id()), arguments)
    }

    /// Starts the cluster of a manifest.
    pub(crate) fn of(label: &str, manifest: &str, arguments: &[&str]) -> Self {
        let file = ManifestFile::new(label, manifest);
        Self::up(label, &[&["-f", file.path()], arguments].concat())
    }

    /// Starts the cluster of a manifest as a child of a program that becomes it, as `nsenter` does.
    pub(crate) fn of_by(label: &str, by: &[&str], manifest: &str, arguments: &[&str]) -> Self {
        let file = ManifestFile::new(label, manifest);
        let name = format!("vst-{label}-{}", std::process::id());
        Self::up_by(by, &name, &[&["-f", file.path()], arguments].concat())
    }

    /// The same with a given name: to start once more what was killed.
    pub(crate) fn up_as(name: &str, arguments: &[&str]) -> Self {
        Self::up_by(&[], name, arguments)
    }

    /// The same as a user who owns nothing, and with him every verb; `by` keeps who runs it.
    pub(crate) fn of_user(label: &str, by: &[&str], manifest: &str) -> Self {
        let file = ManifestFile::new(label, manifest);
        let name = format!("vst-{label}-{}", std::process::id());
        Self::up_through(by, &USER, &name, &["-f", file.path()])
    }

    fn up_by(by: &[&str], name: &str, arguments: &[&str]) -> Self {
        Self::up_through(by, &[], name, arguments)
    }

    /// Starts it by a program that becomes another, which becomes it, and is what runs verbs.
    fn up_through(by: &[&str], through: &[&str], name: &str, arguments: &[&str]) -> Self {
        let state = std::env::temp_dir().join(name);
        let log = std::env::temp_dir().join(format!("{name}.log"));
        let taps = host_taps();
        let line = [by, through, &[executable()]].concat();
        let mut process = Command::new(line[0])
            .args(&line[1..])
            .arg("up")
            .args(["--require", "tap", "--name", name, "--state-dir"])
            .arg(&state)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(process.stdout.take().unwrap());
        let (mut line, mut said) = (String::new(), String::new());
        while !line.contains(" is up: ") {
            line.clear();
            let more = stdout.read_line(&mut line).unwrap();
            said.push_str(&line);
            if more == 0 {
                let status = process.wait().unwrap();
                panic!("up: {status}\n{said}{}", fs::read_to_string(&log).unwrap_or_default());
            }
        }
        let mut cluster = Self {
            name: name.to_owned(),
            state,
            log,
            through: through.iter().map(|word| (*word).to_owned()).collect(),
            process: Some(process),
            stdout: Some(stdout),
            namespaces: Vec::new(),
            taps,
        };
        until("the cluster answers", || cluster.verb(&["get", "places", "-o", "json"]).status.success());
        for place in cluster.get("places") {
            // Whoever ends at this moment is replaced, and has nothing that could be left.
            let namespace = fs::File::open(format!("/proc/{}/ns/net", place["pause_pid"]));
            cluster
                .namespaces
                .extend(namespace.ok().filter(|n| inode(&n.metadata().unwrap()) == place["netns_inode"]));
        }
        cluster
    }

    /// The process id of `vswitch up`.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.process.as_ref().unwrap().id().try_into().unwrap())
    }

    /// What `vswitch up` has written to standard error.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// A command line of `vswitch` for this cluster.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut line = self.through.iter().map(String::as_str).chain([executable()]);
        let mut command = Command::new(line.next().unwrap());
        command.args(line).args(arguments).env("VSWITCH_STATE_DIR", &self.state).stdin(Stdio::null());
        command
    }

    /// Runs a verb of `vswitch` to its end.
    pub(crate) fn verb(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// `vswitch get WHAT -o json`, which must be a list.
    #[track_caller]
    pub(crate) fn get(&self, what: &str) -> Vec<Value> {
        let text = success(what, &self.verb(&["get", what, "-o", "json"]));
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("get {what}: {e}\n{text}"))
    }

    /// `vswitch exec PLACE -- ARGV`, ended after a minute.
    pub(crate) fn exec(&self, place: &str, argv: &[&str]) -> Output {
        self.verb(&[&["exec", place, "--", "timeout", "-k", "1", "60"], argv].concat())
    }

    /// The same for a program that must succeed; returns what it wrote.
    #[track_caller]
    pub(crate) fn must(&self, place: &str, argv: &[&str]) -> String {
        success(&format!("{place}: {}", argv.join(" ")), &self.exec(place, argv))
    }

    /// Whether all pods are ready and their web servers listen. A pod without probes is ready as soon as its programs have
    /// been started.
    pub(crate) fn serves(&self) -> bool {
        self.get("pods").iter().all(|pod| {
            let containers = pod["spec"]["containers"].as_array().unwrap();
            let servers = containers.iter().filter(|container| container["image"] == "vswitch/http").count();
            let name = pod["metadata"]["name"].as_str().unwrap();
            let listeners = || {
                let told = self.exec(name, &["ss", "-Hltn"]).stdout;
                String::from_utf8_lossy(&told).lines().count()
            };
            pod["status"]["conditions"][0]["status"] == "True" && (servers == 0 || listeners() >= servers)
        })
    }

    /// Starts a program that goes on until the value is dropped.
    pub(crate) fn spawn(&self, place: &str, argv: &[&str]) -> Background {
        let mut command = self.command(&[&["exec", place, "--"], argv].concat());
        Background(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// Starts a server and waits until it listens on this TCP port.
    pub(crate) fn serve(&self, place: &str, port: u16, argv: &[&str]) -> Background {
        let server = self.spawn(place, argv);
        let filter = format!("sport = :{port}");
        until(&format!("{} listens on {port} in {place}", argv.join(" ")), || {
            !self.must(place, &["ss", "-Hltn", &filter]).trim().is_empty()
        });
        server
    }

    /// The built-in server for TCP, UDP on `port`.
    pub(crate) fn probe_server(&self, place: &str, port: u16) -> Background {
        self.serve(place, port, &[executable(), "__probe", "serve", &port.to_string()])
    }

    /// Starts `vswitch capture PORT -w FILE -c COUNT` and returns once frames are being written.
    pub(crate) fn capture(&self, port: &str, file: &str, count: u32) -> Capture {
        let _ = fs::remove_file(file);
        let mut command = self.command(&["capture", port, "-w", file, "-c", &count.to_string()]);
        let process = command.stderr(Stdio::piped()).spawn().unwrap();
        until("the capture has begun", || {
            // Whatever crosses a port makes the first block of the file.
            self.exec("alpha", &["ping", "-n", "-c", "1", "-W", "1", "10.244.0.1"]);
            fs::metadata(file).is_ok_and(|m| m.len() > 0)
        });
        Capture(Some(process))
    }

    /// What does not add up in the switches' books: every frame taken is delivered, consumed or dropped for a reason.
    pub(crate) fn unaccounted(&self) -> Result<Vec<String>, String> {
        let ask = || -> std::io::Result<String> {
            let mut stream = UnixStream::connect(self.state.join("control.sock"))?;
            stream.write_all(b"GET /v1/check HTTP/1.1\r\nHost: vswitch\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        };
        let answer = ask().map_err(|e| e.to_string())?;
        let list = answer.split("\r\n\r\n").nth(1).and_then(|body| serde_json::from_str(body).ok());
        list.ok_or(answer)
    }

    /// Kills `vswitch up` as the kernel would, without any chance to clean up.
    pub(crate) fn kill(mut self) -> Killed {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
        Killed { name: self.name.clone(), state: self.state.clone() }
    }

    /// What of this cluster still exists.
    pub(crate) fn left(&self) -> Vec<String> {
        let mut left = left_of(&self.name);
        let own: BTreeSet<u64> = self.namespaces.iter().map(|n| inode(&n.metadata().unwrap())).collect();
        let held = |pid: &str| {
            let namespace = fs::metadata(format!("/proc/{pid}/ns/net"));
            namespace.is_ok_and(|metadata| own.contains(&inode(&metadata)))
        };
        left.extend(pids().filter(|pid| held(pid)).map(|pid| format!("process {pid} in a namespace")));
        left.extend(host_taps().difference(&self.taps).map(|tap| format!("TAP {tap}")));
        left
    }

    fn down(&mut self) -> Vec<String> {
        let Some(mut process) = self.process.take() else { return Vec::new() };
        let mut problems = match self.unaccounted() {
            Ok(problems) => problems,
            // The test has brought it down by itself.
            Err(_) if !self.state.join("control.sock").exists() => Vec::new(),
            Err(error) => vec![format!("check: {error}")],
        };
        let down = self.verb(&["down"]);
        if !down.status.success() {
            problems.push(format!("down: {:?} {}", down.status, both(&down)));
        }
        if !happens(|| process.try_wait().unwrap().is_some()) {
            problems.push("up goes on after down".to_owned());
            process.kill().unwrap();
        }
        let status = process.wait().unwrap();
        if !status.success() {
            problems.push(format!("up: {status}\n{}", self.log()));
        }
        if let Some(mut stdout) = self.stdout.take() {
            let _ = stdout.read_to_string(&mut String::new());
        }
        if !happens(|| self.left().is_empty()) {
            problems.extend(self.left());
        }
        problems
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.process.is_none() {
            return;
        }
        let problems = self.down();
        if std::thread::panicking() {
            eprintln!("{}: its log:\n{}", self.name, self.log());
        }
        let _ = fs::remove_file(&self.log);
        let _ = fs::remove_dir_all(&self.state);
        if problems.is_empty() {
            return;
        }
        if std::thread::panicking() {
            eprintln!("left behind: {problems:#?}");
        } else {
            panic!("left behind: {problems:#?}");
        }
    }
}

/// A `vswitch capture` that ends by itself.
pub(crate) struct Capture(Option<Child>);

impl Capture {
    /// Whether it has its frames.
    pub(crate) fn ended(&mut self) -> bool {
        self.0.as_mut().is_none_or(|process| process.try_wait().unwrap().is_some())
    }

    /// Waits until it has its frames.
    #[track_caller]
    pub(crate) fn finish(mut self) {
        let mut process = self.0.take().unwrap();
        let ended = happens(|| process.try_wait().unwrap().is_some());
        if !ended {
            process.kill().unwrap();
        }
        let output = process.wait_with_output().unwrap();
        assert!(ended, "the capture waits for more frames");
        success("capture", &output);
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        if let Some(process) = &mut self.0 {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// What tshark, verifying every checksum, prints of the frames in `file` that match `filter`. What is inside TCP and UDP is
/// data to it: by its port it would take a datagram for one of some application's, and find that malformed.
#[track_caller]
pub(crate) fn tshark(file: &str, filter: &str) -> String {
    let mut command = Command::new("tshark");
    for protocol in ["tcp", "udp"] {
        command.args(["-d", &format!("{protocol}.port==1-65535,data")]);
    }
    for protocol in ["ip", "tcp", "udp"] {
        command.args(["-o", &format!("{protocol}.check_checksum:TRUE")]);
    }
    success("tshark", &command.args(["-n", "-r", file, "-Y", filter]).output().unwrap())
}

/// A cluster whose `vswitch up` was killed. What it left is cleared up by `vswitch down` at the latest when dropped.
pub(crate) struct Killed {
    /// Its name.
    pub(crate) name: String,
    /// Its state directory.
    pub(crate) state: PathBuf,
}

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = Command::new(executable()).arg("down").arg("--state-dir").arg(&self.state).output();
        let _ = fs::remove_file(std::env::temp_dir().join(format!("{}.log", self.name)));
        let _ = fs::remove_dir_all(&self.state);
    }
}

/// Namespaces and living processes whose name or command line tells that they belong to cluster `name`.
pub(crate) fn left_of(name: &str) -> Vec<String> {
    let entries = fs::read_dir("/run/netns").into_iter().flatten().flatten();
    let mut left: Vec<String> = entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|entry| entry.starts_with(&format!("{name}.")))
        .map(|entry| format!("namespace {entry}"))
        .collect();
    for pid in pids().filter(|pid| *pid != std::process::id().to_string()) {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(name) && lives(&pid) {
            left.push(format!("process {pid}: {line}"));
        }
    }
    left
}

fn pids() -> impl Iterator<Item = String> {
    let names =
        fs::read_dir("/proc").unwrap().flatten().map(|e| e.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.bytes().all(|b| b.is_ascii_digit()))
}

/// Whether a process exists and is not a zombie.
fn lives(pid: &str) -> bool {
    let Ok(text) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    text.rsplit(") ").next().is_some_and(|rest| !rest.starts_with(['Z', 'X']))
}

fn inode(metadata: &fs::Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::ino(metadata)
}

/// TAP devices in the namespace of the test itself.
fn host_taps() -> BTreeSet<String> {
    let entries = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.path().join("tun_flags").exists())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}

/// A program in a pod that ends with the value.
pub(crate) struct Background(Child);

impl Background {
    /// Its process id.
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.0.id().try_into().unwrap())
    }

    /// Whether it still runs.
    pub(crate) fn runs(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        let _ = kill(self.pid(), Signal::SIGTERM);
        for _ in 0..50 {
            if !self.runs() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
