//! `capture`.

use std::fs::File;
use std::io::{self, IsTerminal as _, Write};
use std::process::ExitCode;

use super::{Capture, Failure};
use crate::control::client::{Client, ClientError};

pub(super) fn capture(client: &Client, capture: &Capture) -> Result<ExitCode, Failure> {
    let text = capture.text || (capture.write.is_none() && io::stdout().is_terminal());
    let path = format!(
        "/v1/capture?port={}&filter={}&format={}{}",
        escaped(&port(capture)?),
        escaped(&capture.filter.join(" ")),
        if text { "text" } else { "pcapng" },
        capture.count.map_or_else(String::new, |n| format!("&count={n}")),
    );
    let ended = match &capture.write {
        Some(file) => {
            let out = File::create(file).map_err(|e| format!("{}: {e}", file.display()))?;
            client.stream(&path, &mut Blocks { out, cut: Vec::new() })
        }
        None if text => client.stream(&path, &mut io::stdout().lock()),
        None => {
            let out = io::stdout().lock();
            client.stream(&path, &mut Blocks { out, cut: Vec::new() })
        }
    };
    match ended {
        Ok(()) => {}
        // Whoever read our output has seen enough.
        Err(ClientError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => {}
        // What was captured until then has been written.
        Err(ClientError::Connection(_)) => {
            writeln!(io::stderr(), "the cluster went down, and the capture with it")?
        }
        Err(error) => return Err(error.into()),
    }
    Ok(ExitCode::SUCCESS)
}

/// The port in full.
fn port(capture: &Capture) -> Result<String, Failure> {
    match &capture.namespace.namespace {
        Some(namespace) if capture.port == "any" || capture.port.contains(':') => {
            Err(format!("{} is in no namespace: leave -n {namespace} out", capture.port).into())
        }
        Some(_) => Ok(capture.namespace.of(&capture.port.parse()?)?.to_string()),
        None => Ok(capture.port.clone()),
    }
}

/// Hands on whole blocks of pcapng, so that a file ends at one wherever the capture is interrupted.
struct Blocks<W> {
    out: W,
    /// The beginning of a block whose end is yet to come.
    cut: Vec<u8>,
}

impl<W: Write> Write for Blocks<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.cut.extend_from_slice(bytes);
        let mut whole = 0;
        // A block's length, which counts the block's type and itself, stands behind its type.
        while let Some(&[_, _, _, _, a, b, c, d]) = self.cut.get(whole..).and_then(<[u8]>::first_chunk) {
            let end =
                whole.saturating_add(usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX));
            if end <= whole || end > self.cut.len() {
                break;
            }
            whole = end;
        }
        self.out.write_all(&self.cut[..whole])?;
        self.cut.drain(..whole);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A part of a query (RFC 3986 section 2.1).
pub(super) fn escaped(text: &str) -> String {
    let escape = |octet: u8| {
        if octet.is_ascii_alphanumeric() || b"-._~/:".contains(&octet) {
            char::from(octet).to_string()
        } else {
            format!("%{octet:02X}")
        }
    };
    text.bytes().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_blocks_are_handed_on() {
        let block = |len: u8| {
            let mut block = vec![0; usize::from(len)];
            block[4] = len;
            block
        };
        let whole = [block(12), block(20), block(16)].concat();
        for cut in 0..=whole.len() {
            let mut blocks = Blocks { out: Vec::new(), cut: Vec::new() };
            blocks.write_all(&whole[..cut]).unwrap();
            let expected = [0, 12, 32, 48].into_iter().rfind(|end| *end <= cut).unwrap();
            assert_eq!(blocks.out, whole[..expected], "cut at {cut}");
            blocks.write_all(&whole[cut..]).unwrap();
            assert_eq!(blocks.out, whole, "cut at {cut}");
        }
    }

    #[test]
    fn a_query_holds_any_filter() {
        assert_eq!(escaped("(tcp && port 80)"), "%28tcp%20%26%26%20port%2080%29");
    }
}
