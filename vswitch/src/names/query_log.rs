//! What name servers are asked, for who wants to know: a line for each query, in the form that CoreDNS writes.
//!
//! Off unless the cluster's manifest asks for it (`spec.dns.logQueries`). Name servers hand queries to the forwarder's thread
//! and go on; what that cannot take is counted and not written, so nobody waits for a disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dns::{Transport, journal};

use crate::clock;

/// Octets of a log before another is begun. The one before is kept.
const FULL: u64 = 16 << 20;

/// A query and its answer.
#[derive(Debug)]
pub(super) struct Logged {
    pub(super) from: SocketAddr,
    pub(super) transport: Transport,
    pub(super) query: Vec<u8>,
    pub(super) answer: Vec<u8>,
    /// How long the client has waited.
    pub(super) took: Duration,
}

/// The file, as long as anything is written to it.
#[derive(Debug)]
pub(super) struct QueryLog {
    path: PathBuf,
    file: Option<(File, u64)>,
}

impl QueryLog {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path, file: None }
    }

    /// Writes some. Whether it can be written does not matter to names.
    pub(super) fn write(&mut self, all: &[Logged]) {
        let text: String = all.iter().map(line).collect();
        if self.append(text.as_bytes()).is_err() {
            self.file = None;
        }
    }

    /// Closes it.
    pub(super) fn close(&mut self) {
        self.file = None;
    }

    fn append(&mut self, text: &[u8]) -> io::Result<()> {
        if matches!(self.file, Some((_, length)) if length >= FULL) {
            self.file = None;
            fs::rename(&self.path, self.path.with_added_extension("1"))?;
        }
        if self.file.is_none() {
            self.file = Some(open(&self.path)?);
        }
        if let Some((file, length)) = &mut self.file {
            file.write_all(text)?;
            *length += text.len() as u64;
        }
        Ok(())
    }
}

/// Readable for this user alone, like the logs of containers.
fn open(path: &Path) -> io::Result<(File, u64)> {
    if let Some(directory) = path.parent() {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    }
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let length = file.metadata()?.len();
    Ok((file, length))
}

fn line(logged: &Logged) -> String {
    let Logged { from, transport, query, answer, took } = logged;
    let now = i64::try_from(clock::since_epoch().as_millis()).unwrap_or(i64::MAX);
    let now =
        jiff::Timestamp::from_millisecond(now).map_or_else(|_| "-".to_owned(), |now| format!("{now:.3}"));
    let what = journal(query, answer, *transport);
    format!("{now} [DEBUG] {from} - {what} {:.6}s\n", took.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged() -> Logged {
        let query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x03web\x07default\x00\x00\x01\x00\x01"
            .to_vec();
        let mut answer = query.clone();
        answer[2..4].copy_from_slice(&[0x85, 0x83]);
        let took = Duration::from_micros(250);
        Logged { from: "10.244.0.1:4711".parse().unwrap(), transport: Transport::Udp, query, answer, took }
    }

    #[test]
    fn a_line_is_as_those_of_coredns() {
        let line = line(&logged());
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(time.parse::<jiff::Timestamp>().is_ok(), "{time}");
        let expected = "[DEBUG] 10.244.0.1:4711 - 4660 \"A IN web.default. udp 29 false 512\" NXDOMAIN qr,aa,rd,ra 29 0.000250s\n";
        assert_eq!(rest, expected);
    }

    #[test]
    fn a_full_log_makes_room() {
        let directory = std::env::temp_dir().join(format!("vswitch-query-log-{}", std::process::id()));
        let path = directory.join("logs/dns.log");
        let mut log = QueryLog::new(path.clone());
        log.write(&[logged(), logged()]);
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 2);
        log.close();
        log.write(&[logged()]);
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 3);
        if let Some((_, length)) = &mut log.file {
            *length = FULL;
        }
        log.write(&[logged()]);
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), 1);
        assert_eq!(fs::read_to_string(path.with_added_extension("1")).unwrap().lines().count(), 3);
        fs::remove_dir_all(&directory).unwrap();
    }
}
