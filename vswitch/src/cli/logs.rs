//! `logs`.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::{Failure, Logs};
use crate::control::api::LogView;
use crate::control::client::Client;

/// How often `-f` looks.
const FOLLOW_INTERVAL: Duration = Duration::from_millis(200);

pub(super) fn logs(client: &Client, what: &Logs) -> Result<ExitCode, Failure> {
    let pod = what.namespace.of(&what.pod)?;
    let logs: Vec<LogView> = client.get(&format!("/v1/logs?pod={pod}"))?;
    let names: Vec<&str> = logs.iter().map(|log| log.container.as_str()).collect();
    let log = match (&what.container, &logs[..]) {
        (Some(wanted), all) => all.iter().find(|log| log.container == *wanted),
        (None, [one]) => Some(one),
        (None, _) => {
            return Err(
                format!("{pod} has several containers: say which with -c: {}", names.join(", ")).into()
            );
        }
    };
    let Some(log) = log else {
        return Err(format!("{pod} has no such container; it has {}", names.join(", ")).into());
    };
    let mut out = io::stdout().lock();
    // What it held before it was full the last time.
    if let Ok(mut older) = File::open(log.path.with_added_extension("1")) {
        io::copy(&mut older, &mut out)?;
    }
    let Some(mut file) = open(&log.path)? else { return Ok(ExitCode::SUCCESS) };
    io::copy(&mut file, &mut out)?;
    if !what.follow {
        return Ok(ExitCode::SUCCESS);
    }
    loop {
        out.flush()?;
        std::thread::sleep(FOLLOW_INTERVAL);
        io::copy(&mut file, &mut out)?;
        // A full log gets another name, and a new one is begun.
        if let Some(next) = open(&log.path)?.filter(|next| differs(next, &file)) {
            io::copy(&mut file, &mut out)?;
            file = next;
        } else if file.metadata()?.len() < file.stream_position()? {
            file.seek(SeekFrom::Start(0))?;
        }
    }
}

/// The log, if anything was written yet.
fn open(path: &Path) -> io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn differs(one: &File, other: &File) -> bool {
    let inode = |file: &File| file.metadata().map(|metadata| metadata.ino()).ok();
    inode(one) != inode(other)
}
