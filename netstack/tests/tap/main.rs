//! What we assume of the kernel's TAP, each in a network namespace of its own. Needs root (or CAP_SYS_ADMIN and
//! CAP_NET_ADMIN), `/dev/net/tun` and iproute2; says so when it skips, and refuses to skip under CI.
#![cfg(all(feature = "tap", not(loom)))]
#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "the helpers of a test are a test")]

mod device;
mod driver;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use netstack::device::tap::Mode;
use nix::sched::{CloneFlags, unshare};

fn skip(why: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "must not be skipped under CI: {why}");
    eprintln!("skipped: {why}");
}

/// Runs `test` on a thread in a new network namespace, which ends with the thread.
fn in_namespace(test: impl FnOnce() + Send + 'static) {
    if !Path::new("/dev/net/tun").exists() {
        return skip("/dev/net/tun does not exist");
    }
    if Command::new("ip").arg("-V").stdout(Stdio::null()).status().is_err() {
        return skip("iproute2 is not installed");
    }
    let run = thread::spawn(move || {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
            return skip(&format!("no permission to make a network namespace ({error})"));
        }
        test();
    });
    if let Err(panic) = run.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs `ip` in the calling thread's namespace, which a child inherits.
fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split_whitespace()).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

fn each_mode(test: impl Fn(Mode) + Send + Copy + 'static) {
    for mode in [Mode::Plain, Mode::Offload] {
        in_namespace(move || test(mode));
    }
}

/// Ends the process also when the test panics.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process in a network namespace of its own, which ends with it; `None` where it cannot be started.
fn namespace_of_a_child() -> Option<Killed> {
    let Ok(child) = Command::new("unshare").args(["--net", "sleep", "60"]).spawn() else {
        skip("unshare (util-linux) is not installed");
        return None;
    };
    let child = Killed(child);
    let namespace = |path: &str| std::fs::read_link(path).unwrap();
    let theirs = format!("/proc/{}/ns/net", child.0.id());
    while namespace(&theirs) == namespace("/proc/thread-self/ns/net") {
        thread::sleep(Duration::from_millis(1));
    }
    Some(child)
}
