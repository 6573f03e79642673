//! The programs in the two pods, and one measurement between them.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::load::{Asked, Load, Order, Question, Served};
use crate::helper::Namespace;
use crate::helper::exec::Enter;

/// A program in a pod, killed when this is dropped.
struct Program {
    name: &'static str,
    process: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Program {
    /// Starts `vswitch __probe NAME` in a pod, and waits for the first line that it says.
    fn start(pod: &Namespace, name: &'static str, input: Stdio) -> Result<Self, String> {
        let cannot = |error: std::io::Error| format!("cannot start {name} in a pod: {error}");
        let executable = std::env::current_exe().map_err(cannot)?;
        let mut command = Enter::new(pod.target(), executable).arguments(["__probe", name]).command();
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = command.spawn().map_err(cannot)?;
        let (input, output) = (process.stdin.take(), process.stdout.take());
        let output = BufReader::new(output.ok_or("a program has a standard output")?);
        let mut program = Self { name, process, input, output };
        program.line()?;
        Ok(program)
    }

    fn line(&mut self) -> Result<String, String> {
        let mut line = String::new();
        match self.output.read_line(&mut line) {
            Ok(0) => Err(self.last_words()),
            Ok(_) => Ok(line),
            Err(error) => Err(format!("{}: {error}", self.name)),
        }
    }

    /// Why it has ended.
    fn last_words(&mut self) -> String {
        let said = self.process.stderr.take().and_then(|stderr| BufReader::new(stderr).lines().next()?.ok());
        let said = said.unwrap_or_else(|| "it has ended".to_owned());
        format!("{}: {}", self.name, said.trim_start_matches("vswitch: "))
    }

    fn ask<T: DeserializeOwned>(&mut self, what: &impl Serialize) -> Result<T, String> {
        let mut question = serde_json::to_string(what).map_err(|error| error.to_string())?;
        question.push('\n');
        if let Some(input) = &mut self.input {
            // If it has ended there is no answer either.
            let _ = input.write_all(question.as_bytes());
        }
        let answer = self.line()?;
        serde_json::from_str(&answer).map_err(|error| format!("{} said {answer:?}: {error}", self.name))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It ends with its pod anyway.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What stands as long as is measured.
pub(super) struct Ends {
    client: Program,
    server: Program,
    /// Last, so that it outlives the others.
    _bridge: Program,
}

/// What one measurement has found.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Found {
    /// In the row's unit.
    pub(super) value: f64,
    /// What part of what was sent has come.
    pub(super) delivered: f64,
}

impl Ends {
    /// Starts both, and the kernel's bridge beside our switch.
    pub(super) fn start(client: &Namespace, server: &Namespace) -> Result<Self, String> {
        let path = format!("/proc/{}/ns/net", server.pause_pid);
        let netns = File::open(&path).map_err(|error| format!("{path}: {error}"))?;
        Ok(Self {
            _bridge: Program::start(client, "bridge", netns.into())?,
            server: Program::start(server, "serve-load", Stdio::piped())?,
            client: Program::start(client, "load", Stdio::piped())?,
        })
    }

    /// Measures once.
    pub(super) fn measure(&mut self, load: Load, to: SocketAddr, seconds: f64) -> Result<Found, String> {
        let order = Order { load, to, seconds };
        let asked: Result<Asked, String> = self.client.ask(&order)?;
        let question = if load == Load::Flood { Question::CountsAtRest } else { Question::Counts };
        // Even if that failed, so that the next count begins at nothing.
        let served: Served = self.server.ask(&question)?;
        compare(load, &asked?, &served)
    }
}

/// Holds both ends' counts against each other.
fn compare(load: Load, asked: &Asked, served: &Served) -> Result<Found, String> {
    let Asked { sent, confirmed, seconds } = *asked;
    let whole = |value| Found { value, delivered: 1.0 };
    let confirms = |what: &str, right: bool| match right && confirmed == sent && sent > 0 {
        true => Ok(()),
        false => Err(format!(
            "of {sent} {what} {confirmed} arrived or were answered, the server counts {served:?}"
        )),
    };
    let requests = |connections: u64| {
        let right = served.answered == sent && served.connections == connections && served.broken == 0;
        confirms("requests", right).map(|()| whole(sent as f64 / seconds / 1e3))
    };
    match load {
        Load::Streams(_) => confirms("octets", true).map(|()| whole(sent as f64 * 8.0 / seconds / 1e9)),
        Load::Requests(count) => requests(u64::from(count)),
        Load::Connections(_) => requests(sent),
        Load::Flood => {
            let Served { datagrams, twice, changed, .. } = *served;
            if twice > 0 || changed > 0 || datagrams > sent || datagrams == 0 {
                return Err(format!(
                    "of {sent} datagrams {datagrams} arrived, {twice} of them twice, and {changed} that were not sent"
                ));
            }
            let value = datagrams as f64 / seconds.max(served.seconds) / 1e3;
            Ok(Found { value, delivered: datagrams as f64 / sent as f64 })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_that_agree_are_a_figure() {
        let asked = Asked { sent: 4_000, confirmed: 4_000, seconds: 2.0 };
        let served = |connections| Served { connections, answered: 4_000, ..Served::default() };
        let found = |load, served| compare(load, &asked, &served).unwrap();
        assert_eq!(found(Load::Requests(16), served(16)), Found { value: 2.0, delivered: 1.0 });
        assert_eq!(found(Load::Connections(16), served(4_000)).value, 2.0);
        assert_eq!(found(Load::Streams(1), Served::default()).value, 16e-6);
        let arrived = Served { datagrams: 1_000, seconds: 0.5, ..Served::default() };
        assert_eq!(found(Load::Flood, arrived), Found { value: 0.5, delivered: 0.25 });
        // What arrives later than it was sent takes as long as it takes to arrive.
        assert_eq!(found(Load::Flood, Served { seconds: 4.0, ..arrived }).value, 0.25);
    }

    #[test]
    fn counts_that_do_not_agree_are_none() {
        let asked = Asked { sent: 4_000, confirmed: 4_000, seconds: 2.0 };
        let served = Served { connections: 16, answered: 4_000, datagrams: 4_000, ..Served::default() };
        let lost = Asked { confirmed: 3_999, ..asked };
        let nothing = Asked { sent: 0, confirmed: 0, ..asked };
        for (load, asked, served) in [
            (Load::Streams(1), lost, served),
            (Load::Streams(1), nothing, served),
            (Load::Requests(16), lost, served),
            (Load::Requests(15), asked, served),
            (Load::Requests(16), asked, Served { answered: 4_001, ..served }),
            (Load::Requests(16), asked, Served { broken: 1, ..served }),
            (Load::Connections(16), asked, served),
            (Load::Flood, asked, Served { twice: 1, ..served }),
            (Load::Flood, asked, Served { changed: 1, ..served }),
            (Load::Flood, asked, Served { datagrams: 4_001, ..served }),
            (Load::Flood, asked, Served { datagrams: 0, ..served }),
        ] {
            assert!(compare(load, &asked, &served).is_err(), "{load:?} {asked:?} {served:?}");
        }
    }
}
