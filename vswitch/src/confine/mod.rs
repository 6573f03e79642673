//! Threads that read what strangers send have the rights that this takes, and no others.
//!
//! # Theory of operation
//! On Linux rights are a thread's, and threads that it starts have no more than it. So whoever starts the data path does it
//! from a thread that has given up, for good, what frames and sockets do not need: capabilities, all files (landlock), and
//! all system calls but some sixty (seccomp). It is not done to the whole process, because its other threads start probes,
//! which are programs of the user's and would inherit it.
//!
//! This holds up who makes a confined thread do what he likes *by system calls*. Threads share their memory, so it is a
//! second line and no sandbox: the first is that all of them are safe Rust.
//!
//! Where the kernel lacks one of these the rest is done all the same, and it is said what is missing.

mod calls;
mod files;

use std::path::Path;

use crate::sys;

/// `CAP_NET_BIND_SERVICE`: doors below port 1024 are opened by the data path.
const NET_BIND_SERVICE: u32 = 10;
/// `CAP_IPC_LOCK`: of users without it the kernel counts the memory of rings.
const IPC_LOCK: u32 = 14;

/// What confined threads are for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Work<'a> {
    /// Frames, and sockets that carry what is in them.
    Frames,
    /// Asking other name servers, whom a file names that may be any; what is asked is logged in this directory.
    Names(&'a Path),
}

/// Runs `start` on a thread that is confined to its work, and so is every thread that it starts. Says as well what could
/// not be given up, in sentences.
pub(crate) fn confined<R: Send>(work: Work<'_>, start: impl FnOnce() -> R + Send) -> (R, Vec<String>) {
    std::thread::scope(|scope| {
        let confined = scope.spawn(|| {
            let problems = confine(work);
            (start(), problems)
        });
        confined.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Whether this machine lets threads be confined; why not, in sentences.
pub(crate) fn lacks() -> Vec<String> {
    confined(Work::Frames, || ()).1
}

fn confine(work: Work<'_>) -> Vec<String> {
    let kept: &[u32] = match work {
        Work::Frames => &[NET_BIND_SERVICE, IPC_LOCK],
        Work::Names(_) => &[],
    };
    let (logs, calls) = match work {
        Work::Frames => (None, &[][..]),
        Work::Names(logs) => (Some(logs), calls::FILES),
    };
    // In this order: the later ones forbid what the earlier ones do.
    let capabilities =
        sys::keep_capabilities(kept).map_err(|error| format!("capabilities are kept: {error}"));
    let files = files::keep(logs);
    let calls = calls::keep(calls).map_err(|error| format!("all system calls are left: {error}"));
    [capabilities, files, calls].into_iter().filter_map(Result::err).collect()
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::{Ipv4Addr, UdpSocket};
    use std::process::Command;

    use super::*;

    fn is_forbidden<T>(done: io::Result<T>) -> bool {
        done.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
    }

    fn is_lacking() -> bool {
        let lacks = lacks();
        if !lacks.is_empty() {
            eprintln!("not tested: {lacks:?}");
        }
        !lacks.is_empty()
    }

    #[test]
    fn a_confined_thread_has_sockets_and_threads_but_neither_files_nor_programs() {
        if is_lacking() {
            return;
        }
        let tried = || {
            assert!(is_forbidden(std::fs::read("/etc/passwd")), "it reads files");
            assert!(is_forbidden(std::fs::write("/tmp/vswitch-confined", "")), "it writes files");
            assert!(Command::new("/bin/true").status().is_err(), "it runs programs");
            assert!(
                is_forbidden(std::os::unix::net::UnixStream::connect("/run/nobody")),
                "it has other sockets"
            );
            assert_eq!(nix::unistd::sethostname("other"), Err(nix::errno::Errno::EPERM));
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            socket.send_to(b"x", socket.local_addr().unwrap()).unwrap();
            assert_eq!(socket.recv(&mut [0; 2]).unwrap(), 1);
            let large = vec![1u8; 64 << 20];
            std::thread::spawn(move || large.len()).join().unwrap()
        };
        let (octets, problems) = confined(Work::Frames, move || {
            // It, and those that it starts.
            tried();
            std::thread::spawn(tried).join().unwrap()
        });
        assert_eq!((octets, problems), (64 << 20, Vec::new()));
        std::fs::read("/etc/passwd").unwrap();
        assert!(Command::new("/bin/true").status().unwrap().success(), "nobody else is confined");
    }

    #[test]
    fn who_asks_for_names_reads_any_file_and_writes_its_log_alone() {
        if is_lacking() {
            return;
        }
        let directory = std::env::temp_dir().join(format!("vswitch-confined-{}", std::process::id()));
        let logs = directory.join("logs");
        std::fs::create_dir_all(&logs).unwrap();
        let other = directory.join("other");
        let ((), problems) = confined(Work::Names(&logs), || {
            std::fs::read_to_string("/etc/passwd").unwrap();
            assert!(is_forbidden(std::fs::write(&other, "x")));
            std::fs::write(logs.join("log"), "x").unwrap();
            std::fs::rename(logs.join("log"), logs.join("log.1")).unwrap();
            assert!(std::fs::rename(logs.join("log.1"), &other).is_err());
            assert!(Command::new("/bin/true").status().is_err());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let socket = tokio::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
                socket.send_to(b"x", socket.local_addr().unwrap()).await.unwrap();
                assert_eq!(socket.recv(&mut [0; 2]).await.unwrap(), 1);
            });
        });
        assert_eq!(problems, [""; 0]);
        std::fs::remove_dir_all(directory).unwrap();
    }
}
