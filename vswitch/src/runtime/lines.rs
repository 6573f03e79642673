//! A capture as text: a line per frame as it passes.

use std::io::{self, Write};
use std::time::Duration;

use netstack::device::Direction;
use netstack::parse::Summary;

/// Writes the lines, under a head that names the columns.
pub(super) struct Lines<W: Write> {
    out: W,
    ports: Vec<String>,
    /// Of the longest port's name.
    width: usize,
    /// Frames that the reader knows to be missing.
    told: u64,
}

impl<W: Write> Lines<W> {
    pub(super) fn new<'a>(mut out: W, ports: impl Iterator<Item = &'a str>) -> io::Result<Self> {
        let ports: Vec<String> = ports.map(str::to_owned).collect();
        let width = ports.iter().map(String::len).max().unwrap_or_default().max(4);
        writeln!(out, "{:<15}  {:width$}  DIR  FRAME", "TIME (UTC)", "PORT")?;
        Ok(Self { out, ports, width, told: 0 })
    }

    /// `at` is the time since the UNIX epoch; `in` is into the switch.
    pub(super) fn frame(
        &mut self,
        port: usize,
        at: Duration,
        direction: Direction,
        bytes: &[u8],
    ) -> io::Result<()> {
        let (seconds, micros) = (at.as_secs() % 86_400, at.subsec_micros());
        let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        let direction = match direction {
            Direction::Inbound => "in",
            Direction::Outbound => "out",
        };
        let (name, width, summary) = (&self.ports[port], self.width, Summary::of(bytes));
        writeln!(
            self.out,
            "{hour:02}:{minute:02}:{second:02}.{micros:06}  {name:width$}  {direction:<3}  {summary}"
        )
    }

    /// Hands on what was written, and says how many frames are missing if there are more than before.
    pub(super) fn flush(&mut self, missed: u64) -> io::Result<()> {
        if missed > self.told {
            writeln!(self.out, "({} frames came faster than they were read)", missed - self.told)?;
            self.told = missed;
        }
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_per_frame_and_what_is_missing() {
        let mut out = Vec::new();
        let mut lines = Lines::new(&mut out, ["node-1:default/alpha", "node-1:up"].into_iter()).unwrap();
        let at = Duration::new(1_700_000_000, 1_234_567);
        lines.frame(1, at, Direction::Inbound, &[0; 5]).unwrap();
        lines.flush(3).unwrap();
        lines.flush(3).unwrap();
        lines.frame(0, at, Direction::Outbound, &[0; 5]).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "TIME (UTC)       PORT                  DIR  FRAME\n\
             22:13:20.001234  node-1:up             in   no Ethernet header, 5 octets\n\
             (3 frames came faster than they were read)\n\
             22:13:20.001234  node-1:default/alpha  out  no Ethernet header, 5 octets\n"
        );
    }
}
