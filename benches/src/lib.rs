//! What the measurements stand on: a switch with known stations, a switch that does nothing, and the turn of a driver
//! that both go through.

pub mod compare;
pub mod flows;
pub mod lb;
pub mod nat;
pub mod services;
pub mod swap;
pub mod work;

use std::sync::Arc;
use std::time::Duration;

use netstack::addr::{MacAddr, PortId, SegmentId};
use netstack::config::{
    Config, GatewayConfig, Limits, PortConfig, SegmentConfig, Snapshot, Station, VlanMode,
};
use netstack::frame::{Checksum, FrameBatch, FramePool, Offload, OffloadFeatures, SegmentKind, Segmentation};
use netstack::seed::Seed;
use netstack::switch::Switch;

/// Frames per batch: what a driver takes from a device in one turn under load.
pub const BATCH: u64 = 32;
/// Managed stations on each of the two segments; station n is behind port n.
pub const STATIONS: u16 = 8;
/// Foreign ports of the third segment, whose stations have been learned.
pub const FOREIGN: u16 = 8;

const NOW: Duration = Duration::from_secs(1000);
const ROUTER: MacAddr = MacAddr([2, 0, 0, 0, 0xff, 1]);

/// The MAC address of the station behind a port.
pub const fn mac(port: u16) -> MacAddr {
    let [high, low] = port.to_be_bytes();
    MacAddr([2, 0, 0, 0, high, low])
}

/// Stations 0 to 7 on segment 0, 8 to 15 on segment 1, routed between; 16 to 23 foreign on segment 2, bridged. `taking`
/// is what the device of every odd port takes over; those of even ports take everything.
pub fn config(taking: OffloadFeatures) -> Config {
    let segment = |id: u16, gateway: Option<GatewayConfig>| SegmentConfig {
        gateway,
        ..SegmentConfig::new(SegmentId(id), format!("segment-{id}"))
    };
    let gateway = |addresses: [&str; 2]| {
        GatewayConfig::new(ROUTER, addresses.iter().map(|a| a.parse().expect("a prefix")).collect())
    };
    let port = |id: u16| {
        let on = (id / STATIONS).min(2);
        let station = match on {
            2 => Station::Foreign,
            _ => Station::Managed {
                mac: mac(id),
                addresses: vec![
                    format!("10.{on}.0.{}", id + 10).parse().expect("an address"),
                    format!("fd00:{on}::{}", id + 10).parse().expect("an address"),
                ],
            },
        };
        PortConfig {
            offload: if id.is_multiple_of(2) { OffloadFeatures::ALL } else { taking },
            station,
            ..PortConfig::new(PortId(id), format!("port-{id}"), VlanMode::Access(SegmentId(on)))
        }
    };
    Config {
        ports: (0..2 * STATIONS + FOREIGN).map(port).collect(),
        segments: vec![
            segment(0, Some(gateway(["10.0.0.1/24", "fd00::1/64"]))),
            segment(1, Some(gateway(["10.1.0.1/24", "fd00:1::1/64"]))),
            segment(2, None),
        ],
        ..Config::default()
    }
}

/// A frame and the state it has when its device hands it over.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The port it comes in by.
    pub port: PortId,
    /// Its octets.
    pub bytes: Vec<u8>,
    /// Checksum and segmentation state.
    pub offload: Offload,
}

/// A TCP segment of `len` octets with its Ethernet header, between the stations of two ports: to the router's MAC address
/// when they are on different segments. Its checksum is what a capable device leaves to be finished, so it may be cut.
pub fn tcp(from: u16, to: u16, v6: bool, len: usize) -> Sample {
    let on = |port: u16| u8::from(port >= STATIONS);
    let destination = if on(from) == on(to) { mac(to) } else { ROUTER };
    let mut bytes = [&destination.0[..], &mac(from).0].concat();
    let host = |port: u16| u8::try_from(port + 10).expect("few stations");
    match v6 {
        false => {
            let total = u16::try_from(len - 14).expect("fits a packet").to_be_bytes();
            bytes.extend([8, 0, 0x45, 0, total[0], total[1], 0, 1, 0x40, 0, 64, 6, 0, 0]);
            bytes.extend([10, on(from), 0, host(from), 10, on(to), 0, host(to)]);
            let sum = bytes[14..].chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum::<u32>();
            let sum = (sum & 0xffff) + (sum >> 16);
            let folded = u16::try_from((sum & 0xffff) + (sum >> 16)).expect("folded twice");
            bytes[24..26].copy_from_slice(&(!folded).to_be_bytes());
        }
        true => {
            let payload = u16::try_from(len - 54).expect("fits a packet").to_be_bytes();
            bytes.extend([0x86, 0xdd, 0x60, 0, 0, 0, payload[0], payload[1], 6, 64]);
            for port in [from, to] {
                // Written in decimal in the configuration, so in hexadecimal digits here.
                let decimal = u8::from_str_radix(&(port + 10).to_string(), 16).expect("two digits");
                bytes.extend([0xfd, 0, 0, on(port), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, decimal]);
            }
        }
    }
    bytes.extend([0x03, 0xe8, 0, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 16, 0, 0, 0, 0, 0]);
    bytes.resize(len, 7);
    Sample { port: PortId(from), bytes, offload: Offload::default() }
}

/// The same as a super-frame, to be cut into pieces of `size` octets of payload.
pub fn super_frame(from: u16, to: u16, v6: bool, len: usize, size: u16) -> Sample {
    let (start, kind) = if v6 { (54, SegmentKind::TcpV6) } else { (34, SegmentKind::TcpV4) };
    let checksum = Checksum::Partial { start, offset: 16 };
    let segmentation = Some(Segmentation { kind, size, ecn: false });
    Sample { offload: Offload { checksum, segmentation }, ..tcp(from, to, v6, len) }
}

/// A frame that says nothing to anybody but bridges.
pub fn ethernet(from: u16, destination: MacAddr, len: usize) -> Sample {
    let mut bytes = [&destination.0[..], &mac(from).0, &[0x88, 0xb5]].concat();
    bytes.resize(len, 7);
    Sample { port: PortId(from), bytes, offload: Offload::default() }
}

/// What goes through the turn of a driver.
pub trait Forwards {
    /// Where its frames come from.
    fn pool(&mut self) -> &mut FramePool;
    /// Takes in a batch.
    fn take(&mut self, port: PortId, batch: &mut FrameBatch);
    /// Gives out a batch; whether there was one.
    fn give(&mut self, batch: &mut FrameBatch) -> bool;
}

impl Forwards for Switch {
    fn pool(&mut self) -> &mut FramePool {
        Self::pool(self)
    }

    fn take(&mut self, port: PortId, batch: &mut FrameBatch) {
        self.handle_frames(NOW, port, batch);
    }

    fn give(&mut self, batch: &mut FrameBatch) -> bool {
        self.poll_transmit(batch).is_some()
    }
}

/// A switch that looks at nothing: what comes in goes out. What it costs is what the measurement itself costs.
#[derive(Debug, Default)]
pub struct NullSwitch {
    pool: FramePool,
    held: Option<FrameBatch>,
    spare: Option<FrameBatch>,
}

impl Forwards for NullSwitch {
    fn pool(&mut self) -> &mut FramePool {
        &mut self.pool
    }

    fn take(&mut self, _: PortId, batch: &mut FrameBatch) {
        let empty = self.spare.take().unwrap_or_default();
        self.held = Some(std::mem::replace(batch, empty));
    }

    fn give(&mut self, batch: &mut FrameBatch) -> bool {
        let Some(held) = self.held.take() else { return false };
        self.spare = Some(std::mem::replace(batch, held));
        true
    }
}

/// Something that forwards, between a device that hands in one sample again and again and a device that takes anything.
#[derive(Debug)]
pub struct Bed<F> {
    /// What is measured.
    pub forwards: F,
    batch: FrameBatch,
    /// Frames handed in so far.
    pub sent: u64,
    /// Frames taken out so far.
    pub received: u64,
}

impl<F: Forwards> Bed<F> {
    /// With nothing sent yet.
    pub fn of(forwards: F) -> Self {
        Self { forwards, batch: FrameBatch::new(), sent: 0, received: 0 }
    }

    /// One turn: `frames` copies in, everything out. The copying in and the recycling of what comes out are the parts of
    /// it that are not the switch's.
    pub fn turn(&mut self, sample: &Sample, frames: u64) {
        for _ in 0..frames {
            let mut frame = self.forwards.pool().copy_of(&sample.bytes);
            frame.offload = sample.offload;
            if let Err(frame) = self.batch.push(frame) {
                self.forwards.pool().recycle(frame);
            }
        }
        self.sent += self.batch.len() as u64;
        self.forwards.take(sample.port, &mut self.batch);
        while self.forwards.give(&mut self.batch) {
            self.received += self.batch.len() as u64;
            self.forwards.pool().recycle_all(&mut self.batch);
        }
    }
}

impl Bed<NullSwitch> {
    /// Around a switch that does nothing.
    pub fn null() -> Self {
        Self::of(NullSwitch::default())
    }
}

impl Bed<Switch> {
    /// Around a switch with [`config`], whose foreign stations have been learned.
    pub fn switch(taking: OffloadFeatures) -> Self {
        let snapshot: Arc<Snapshot> = Snapshot::compile(config(taking), None).expect("a good configuration");
        let mut switch = Switch::new(Limits::default(), &Seed::from_u64(1), FramePool::new());
        switch.install(snapshot);
        let mut bed = Self::of(switch);
        for port in 2 * STATIONS..2 * STATIONS + FOREIGN {
            bed.turn(&ethernet(port, MacAddr::BROADCAST, 60), 1);
        }
        (bed.sent, bed.received) = (0, 0);
        bed
    }

    /// Fails unless every frame sent came out as `out_per_frame` frames and all is accounted for.
    ///
    /// # Panics
    /// If not: then the measurement measured something else than its name says.
    pub fn check(&self, out_per_frame: u64) {
        self.forwards.check().expect("every frame is accounted for");
        assert_eq!(
            self.received,
            self.sent * out_per_frame,
            "{:?}",
            self.forwards.counters().drops_by_name()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_forwarded_as_their_names_say() {
        for (sample, out) in [
            (tcp(0, 1, false, 64), 1),
            (tcp(0, 1, true, 74), 1),
            (tcp(0, 9, false, 64), 1),
            (tcp(0, 9, true, 74), 1),
            (ethernet(16, mac(17), 64), 1),
            (ethernet(16, MacAddr::BROADCAST, 64), 7),
            (super_frame(0, 1, false, 54 + 5600, 1400), 4),
            (super_frame(0, 9, true, 74 + 5600, 1400), 4),
            (super_frame(0, 2, false, 54 + 5600, 1400), 1),
        ] {
            let mut bed = Bed::switch(OffloadFeatures::NONE);
            bed.turn(&sample, BATCH);
            assert!(bed.sent > 0);
            bed.check(out);
        }
        let mut null = Bed::null();
        null.turn(&tcp(0, 1, false, 64), BATCH);
        assert_eq!((null.sent, null.received), (BATCH, BATCH));
    }
}
