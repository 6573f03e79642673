//! In memory, and without rights.

use super::*;

#[test]
fn the_demo_in_memory_needs_nothing_and_leaves_nothing() {
    let _alone = alone();
    let mut demo = Command::new(executable());
    demo.args(["demo", "--require", "memory", "--mib", "2"]);
    let demo = demo.stdout(Stdio::piped()).spawn().unwrap();
    let directory = demo_directory(demo.id());
    let text = success("demo", &demo.wait_with_output().unwrap());
    assert!(!directory.exists());
    assert!(text.contains("All conversations were intact."), "{text}");
    let conversations = text.lines().filter(|line| line.contains("Gbit/s")).count();
    assert_eq!(conversations, 12, "six pairs, two families: {text}");
    assert!(!text.contains("FAILED") && text.contains("accounted for"), "{text}");
}

fn demo_directory(pid: u32) -> PathBuf {
    std::env::temp_dir().join(format!("vswitch-demo-{pid}"))
}

#[test]
fn a_demo_that_is_interrupted_leaves_nothing() {
    let _alone = alone();
    if !ready(&[]) {
        return;
    }
    for (signal, delay) in [(Signal::SIGINT, 100), (Signal::SIGTERM, 1500), (Signal::SIGKILL, 1500)] {
        let mut demo = Command::new(executable());
        demo.args(["demo", "--require", "tap", "--mib", "1024"]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut demo = Running::start(&mut demo);
        let name = format!("demo-{}", demo.pid());
        sleep(delay);
        kill(demo.pid(), signal).unwrap();
        let status = demo.status();
        if signal == Signal::SIGKILL {
            // The helper cannot remove a directory that is not its own.
            fs::remove_dir_all(demo_directory(demo.0.id())).unwrap();
        } else {
            assert_eq!(status.code(), Some(128 + signal as i32));
        }
        until("all processes and namespaces are gone", || left_of(&name).is_empty());
        assert!(!demo_directory(demo.0.id()).exists());
    }
}

/// An ordinary user with a home of its own, and `/dev/net/tun` as udev leaves it or closed, until it is dropped.
struct User {
    home: PathBuf,
    tun: fs::Permissions,
}

impl User {
    fn new(tun: u32) -> Self {
        let home = std::env::temp_dir().join(format!("vst-user-{}", std::process::id()));
        let _ = fs::remove_dir_all(&home);
        fs::create_dir(&home).unwrap();
        fs::set_permissions(&home, fs::Permissions::from_mode(0o755)).unwrap();
        fs::copy(executable(), home.join("vswitch")).unwrap();
        fs::create_dir(home.join("tmp")).unwrap();
        std::os::unix::fs::chown(home.join("tmp"), Some(65534), Some(65534)).unwrap();
        let before = fs::metadata("/dev/net/tun").unwrap().permissions();
        fs::set_permissions("/dev/net/tun", fs::Permissions::from_mode(tun)).unwrap();
        Self { home, tun: before }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(self.home.join("vswitch"))
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("HOME", &self.home)
            .env("TMPDIR", self.home.join("tmp"))
            .env("VSWITCH_STATE_DIR", self.state())
            .current_dir("/")
            .stdin(Stdio::null());
        command
    }

    fn state(&self) -> PathBuf {
        self.home.join("tmp/state")
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn demo(&self, arguments: &[&str]) -> Output {
        let output = self.run(&[&["demo", "--mib", "2"], arguments].concat());
        let left: Vec<_> = fs::read_dir(self.home.join("tmp")).unwrap().flatten().collect();
        assert!(left.is_empty(), "{left:?} after {arguments:?}");
        output
    }
}

impl Drop for User {
    fn drop(&mut self) {
        fs::set_permissions("/dev/net/tun", self.tun.clone()).unwrap();
        let _ = fs::remove_dir_all(&self.home);
    }
}

#[test]
fn an_ordinary_user_has_pods_of_its_own() {
    let _alone = alone();
    if !ready(&["setpriv", "ping"]) {
        return;
    }
    let user = User::new(0o666);
    let text = success("demo", &user.demo(&["--require", "tap"]));
    assert!(text.contains("on network namespaces with TAP devices"), "{text}");
    assert!(text.contains("All conversations were intact."), "{text}");
    let text = success("bench", &user.run(&["bench", "--only", "tap", "--seconds", "0.1"]));
    assert!(text.contains("KERNEL") && !text.contains("failed"), "{text}");

    let name = format!("vst-u-{}", std::process::id());
    let log = user.home.join("log");
    let mut up = user.command(&["up", "--require", "tap", "--name", &name]);
    let mut up = Running::start(up.stdout(Stdio::null()).stderr(fs::File::create(&log).unwrap()));
    until("the cluster answers", || user.run(&["get", "pods"]).status.success());
    let ping = ["exec", "alpha", "--", "ping", "-c", "3", "-i", "0.2", "-W", "10"];
    for to in ["10.244.1.2", "fd00:10:244:1::2", "192.168.10.200"] {
        let text = success("ping", &user.run(&[&ping[..], &[to]].concat()));
        assert!(text.contains(" 0% packet loss"), "{text}");
    }
    assert_eq!(user.run(&["exec", "alpha", "--", "no-such-program"]).status.code(), Some(127));
    // A pod that vanishes is noticed here as well.
    let places: serde_json::Value =
        serde_json::from_str(&success("get", &user.run(&["get", "places", "-o", "json"]))).unwrap();
    let gamma = places.as_array().unwrap().iter().find(|p| p["place"] == "default/gamma").unwrap();
    kill(Pid::from_raw(gamma["pause_pid"].as_i64().unwrap().try_into().unwrap()), Signal::SIGKILL).unwrap();
    until("it is told", || both(&user.run(&["get", "events"])).contains("default/gamma has ended"));
    assert!(both(&user.run(&["get", "ports"])).contains("gone"));
    success("ping", &user.run(&[&ping[..], &["10.244.0.3"]].concat()));
    assert_eq!(success("down", &user.run(&["down"])), format!("cluster {name} is down\n"));
    assert!(up.status().success(), "{}", fs::read_to_string(&log).unwrap());
    assert_nothing_left(&name, &user.state());
    success("doctor", &user.run(&["doctor"]));
}

#[test]
fn a_user_without_tun_is_told_and_has_memory_links() {
    let _alone = alone();
    if !ready(&["setpriv"]) {
        return;
    }
    let user = User::new(0o600);
    let output = user.demo(&[]);
    let text = success("demo", &output);
    assert!(text.contains("in-process pods on memory links"), "{text}");
    assert!(text.contains("no TAP devices") && text.contains("/dev/net/tun"), "{text}");
    assert!(text.contains("All conversations were intact."), "{text}");
    for arguments in [&["demo", "--require", "tap"][..], &["up", "--require", "tap"]] {
        let refused = user.run(arguments);
        assert_eq!(refused.status.code(), Some(1), "{}", both(&refused));
        let text = both(&refused);
        assert!(text.contains("/dev/net/tun") && text.contains("vswitch doctor"), "{text}");
        assert!(text.contains("chmod 0666 /dev/net/tun"), "{text}");
    }
    let bench = user.run(&["bench", "--seconds", "0.01"]);
    let text = success("bench", &bench);
    assert!(text.contains("bridged") && text.contains("Nothing was measured over TAPs"), "{text}");
    assert!(text.contains("chmod 0666 /dev/net/tun") && text.contains("vswitch doctor"), "{text}");
    let refused = user.run(&["bench", "--only", "tap"]);
    assert_eq!(refused.status.code(), Some(1), "{}", both(&refused));
    assert!(both(&refused).contains("chmod 0666 /dev/net/tun"), "{}", both(&refused));
    let doctor = user.run(&["doctor"]);
    assert_eq!(doctor.status.code(), Some(1));
    let text = both(&doctor);
    assert!(text.contains("FAIL  TUN/TAP") && text.contains("-> as root: chmod 0666 /dev/net/tun"), "{text}");

    // `up` says what it does instead, and what does not work then.
    let mut up = user.command(&["up"]);
    let mut up = Running::start(up.stdout(Stdio::piped()));
    until("the cluster answers", || user.run(&["get", "pods"]).status.success());
    let refused = user.run(&["exec", "alpha", "--", "true"]);
    assert!(both(&refused).contains("in-process pod on a memory link"), "{}", both(&refused));
    success("trace", &user.run(&["trace", "alpha", "icmp 10.244.0.3"]));
    success("down", &user.run(&["down"]));
    let mut said = String::new();
    up.0.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(up.status().success());
    assert!(said.contains("because TAPs cannot be used") && said.contains("vswitch doctor"), "{said}");
}
