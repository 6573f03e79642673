//! Capture files in the pcapng format (draft-ietf-opsawg-pcapng): one section, any number of interfaces, nanoseconds.
//!
//! Whoever captures completes checksums on a copy first: a reader cannot know that a sum is only partial.

use std::io::{self, Write};
use std::time::Duration;

use super::Direction;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
/// Tells a reader the byte order of the section.
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
/// LINKTYPE_ETHERNET.
const ETHERNET: u16 = 1;
const OPTION_END: u16 = 0;
const OPTION_IF_NAME: u16 = 2;
const OPTION_IF_TSRESOL: u16 = 9;
const OPTION_EPB_FLAGS: u16 = 2;
/// The longest option, in octets: its length is 16 bits.
const MAX_OPTION: usize = u16::MAX as usize;

/// An interface of one capture file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct InterfaceId(u32);

/// Writes a capture file. Each block goes to the writer in one call, so a file that is cut off by the end of the
/// process ends at a block; buffering is up to the writer.
#[derive(Debug)]
pub struct PcapNg<W: Write> {
    writer: W,
    interfaces: u32,
    /// The block being put together; kept, so that a packet costs no allocation.
    block: Vec<u8>,
}

impl<W: Write> PcapNg<W> {
    /// Begins a file.
    pub fn new(writer: W) -> io::Result<Self> {
        let mut file = Self { writer, interfaces: 0, block: Vec::new() };
        file.begin(SECTION_HEADER);
        file.put(&BYTE_ORDER_MAGIC.to_le_bytes());
        // Version 1.0, of a length that is not known in advance.
        file.put(&1u16.to_le_bytes());
        file.put(&0u16.to_le_bytes());
        file.put(&u64::MAX.to_le_bytes());
        file.end()?;
        Ok(file)
    }

    /// Adds an Ethernet interface.
    pub fn interface(&mut self, name: &str) -> io::Result<InterfaceId> {
        self.begin(INTERFACE_DESCRIPTION);
        self.put(&ETHERNET.to_le_bytes());
        self.put(&[0; 2]);
        // No limit on the length of a packet.
        self.put(&0u32.to_le_bytes());
        let mut cut = name.len().min(MAX_OPTION);
        while !name.is_char_boundary(cut) {
            cut -= 1;
        }
        self.option(OPTION_IF_NAME, &name.as_bytes()[..cut]);
        // Timestamps are in units of 10^-9 seconds.
        self.option(OPTION_IF_TSRESOL, &[9]);
        self.option(OPTION_END, &[]);
        self.end()?;
        let id = InterfaceId(self.interfaces);
        self.interfaces += 1;
        Ok(id)
    }

    /// Adds a packet: `timestamp` since the UNIX epoch, `bytes` of `original_len` octets that it had.
    pub fn packet(
        &mut self,
        interface: InterfaceId,
        timestamp: Duration,
        direction: Direction,
        original_len: usize,
        bytes: &[u8],
    ) -> io::Result<()> {
        // 64 bits of nanoseconds last until the year 2554.
        let nanos = u64::try_from(timestamp.as_nanos()).unwrap_or(u64::MAX).to_le_bytes();
        let len = |octets: usize| u32::try_from(octets).unwrap_or(u32::MAX).to_le_bytes();
        self.begin(ENHANCED_PACKET);
        self.put(&interface.0.to_le_bytes());
        // The upper half first, each half in the section's byte order.
        self.put(&nanos[4..]);
        self.put(&nanos[..4]);
        self.put(&len(bytes.len()));
        self.put(&len(original_len));
        self.put(bytes);
        self.pad();
        let flags: u32 = match direction {
            Direction::Inbound => 1,
            Direction::Outbound => 2,
        };
        self.option(OPTION_EPB_FLAGS, &flags.to_le_bytes());
        self.option(OPTION_END, &[]);
        self.end()
    }

    /// Hands buffered blocks on.
    pub fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }

    /// Gives the writer back.
    pub fn into_inner(self) -> W {
        self.writer
    }

    fn begin(&mut self, kind: u32) {
        self.block.clear();
        self.put(&kind.to_le_bytes());
        // The length, known at the end.
        self.put(&[0; 4]);
    }

    fn put(&mut self, bytes: &[u8]) {
        self.block.extend_from_slice(bytes);
    }

    fn pad(&mut self) {
        self.block.resize(self.block.len().next_multiple_of(4), 0);
    }

    fn option(&mut self, code: u16, value: &[u8]) {
        let len = u16::try_from(value.len()).unwrap_or(u16::MAX);
        self.put(&code.to_le_bytes());
        self.put(&len.to_le_bytes());
        self.put(&value[..usize::from(len)]);
        self.pad();
    }

    fn end(&mut self) -> io::Result<()> {
        let too_long = |_| io::Error::new(io::ErrorKind::InvalidInput, "a packet of 4 GiB");
        let len = u32::try_from(self.block.len() + 4).map_err(too_long)?.to_le_bytes();
        self.block[4..8].copy_from_slice(&len);
        self.put(&len);
        self.writer.write_all(&self.block)
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn sample() -> Vec<u8> {
        let mut file = PcapNg::new(Vec::new()).unwrap();
        let first = file.interface("node-a/eth0").unwrap();
        let second = file.interface("uplink").unwrap();
        let arp = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 1], &[8, 6], &[0; 47]].concat();
        let time = Duration::new(1_700_000_000, 123_456_789);
        file.packet(first, time, Direction::Inbound, arp.len(), &arp).unwrap();
        file.packet(second, time + Duration::from_nanos(1), Direction::Outbound, 1514, &arp[..42]).unwrap();
        file.into_inner()
    }

    #[test]
    fn blocks_are_aligned_and_say_their_length_twice() {
        let bytes = sample();
        let word = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
        let (mut at, mut kinds) = (0, Vec::new());
        while at < bytes.len() {
            let len = word(at + 4) as usize;
            assert_eq!(len % 4, 0);
            assert_eq!(word(at + len - 4) as usize, len);
            kinds.push(word(at));
            at += len;
        }
        assert_eq!(at, bytes.len());
        assert_eq!(kinds, [SECTION_HEADER, 1, 1, 6, 6]);
    }

    #[test]
    fn a_reader_of_another_make_agrees() {
        let path = std::env::temp_dir().join(format!("netstack-pcapng-{}.pcapng", std::process::id()));
        std::fs::write(&path, sample()).unwrap();
        let fields = ["interface_name", "packet_flags_direction", "time_epoch", "len", "cap_len"];
        let mut tshark = Command::new("tshark");
        tshark.args(["-T", "fields", "-r"]).arg(&path);
        for field in fields {
            tshark.args(["-e", &format!("frame.{field}")]);
        }
        let output = tshark.output();
        std::fs::remove_file(&path).unwrap();
        let Ok(output) = output else {
            eprintln!("skipped: tshark is not installed");
            return;
        };
        let text = String::from_utf8(output.stdout).unwrap();
        let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
        assert_eq!(rows.len(), 2, "{text}{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(rows[0][0], "node-a/eth0");
        assert_eq!(rows[1][0], "uplink");
        assert!(rows[0][1].ends_with('1') && rows[1][1].ends_with('2'), "{text}");
        assert_eq!(&rows[0][2..], ["1700000000.123456789", "61", "61"]);
        assert_eq!(&rows[1][2..], ["1700000000.123456790", "1514", "42"]);
    }
}
