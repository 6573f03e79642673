//! What stands in a laboratory: switches and hosts, turned by the same five verbs.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;
use core::time::Duration;

use crate::addr::PortId;
use crate::frame::{Checksum, Frame, FrameBatch};
use crate::host::Host;
use crate::switch::Switch;

/// A switch of a laboratory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SwitchId(pub(super) usize);

/// A host of a laboratory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct HostId(pub(super) usize);

/// Where a link can be plugged in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum End {
    /// A port of a switch.
    Switch(SwitchId, PortId),
    /// The only port of a host.
    Host(HostId),
}

impl End {
    pub(super) fn place(self) -> (usize, PortId) {
        match self {
            Self::Switch(id, port) => (id.0, port),
            Self::Host(id) => (id.0, HOST_PORT),
        }
    }
}

impl From<HostId> for End {
    fn from(id: HostId) -> Self {
        Self::Host(id)
    }
}

impl From<(SwitchId, PortId)> for End {
    fn from((id, port): (SwitchId, PortId)) -> Self {
        Self::Switch(id, port)
    }
}

/// A host has one port.
pub(super) const HOST_PORT: PortId = PortId(0);

#[derive(Debug)]
pub(super) enum Engine {
    Switch(Box<Switch>),
    Host(Box<Host>),
}

impl Engine {
    pub(super) fn handle_frames(&mut self, now: Duration, port: PortId, batch: &mut FrameBatch) {
        match self {
            Self::Switch(switch) => switch.handle_frames(now, port, batch),
            Self::Host(host) => host.handle_frames(now, batch),
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Duration) {
        match self {
            Self::Switch(switch) => switch.handle_timeout(now),
            Self::Host(host) => host.handle_timeout(now),
        }
    }

    pub(super) fn poll_transmit(&mut self, batch: &mut FrameBatch) -> Option<PortId> {
        match self {
            Self::Switch(switch) => switch.poll_transmit(batch),
            Self::Host(host) => host.poll_transmit(batch).then_some(HOST_PORT),
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        match self {
            Self::Switch(switch) => switch.poll_timeout(),
            Self::Host(host) => host.poll_timeout(),
        }
    }

    /// Frames that came in and went out, by the engine's own account.
    pub(super) fn totals(&self) -> (u64, u64) {
        match self {
            Self::Switch(switch) => {
                let counters = switch.counters();
                (counters.rx_frames, counters.tx_frames)
            }
            Self::Host(host) => (host.counters().rx_frames, host.counters().tx_frames),
        }
    }

    /// Whether every frame that came in is accounted for.
    pub(super) fn check(&self) -> Result<(), String> {
        match self {
            Self::Switch(switch) => switch.check().map_err(|text| text.trim_end().to_string()),
            Self::Host(host) if host.counters().balanced() => Ok(()),
            Self::Host(host) => Err(format!("frames in = fates does not hold: {:?}", host.counters())),
        }
    }

    /// Whether a frame that leaves by a port is what the device there takes.
    pub(super) fn check_fit(&self, port: PortId, frame: &Frame) -> Result<(), String> {
        let features = match self {
            Self::Switch(switch) => {
                let named = switch.snapshot().port(port);
                named.ok_or_else(|| format!("{port} is not configured and sends a frame"))?.offload()
            }
            Self::Host(_) => crate::frame::OffloadFeatures::NONE,
        };
        if let Some(segmentation) = frame.offload.segmentation
            && !features.takes(segmentation.kind)
        {
            return Err(format!("{port} takes no super-frame of kind {:?}", segmentation.kind));
        }
        match frame.offload.checksum {
            Checksum::Partial { .. } if !features.checksum => {
                Err(format!("{port} takes no unfinished checksum"))
            }
            Checksum::Partial { .. } | Checksum::Complete | Checksum::Verified => Ok(()),
        }
    }
}

/// A switch or host and what is plugged into it.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: String,
    pub(super) engine: Engine,
    /// Port to link and the link's side here.
    pub(super) plugs: BTreeMap<PortId, (usize, Side)>,
    /// Frames it sent where nothing was plugged in, by port.
    pub(super) unplugged: BTreeMap<PortId, u64>,
    /// Frames put in by hand.
    pub(super) injected: u64,
    /// When the earliest event that will look at its timers takes place.
    pub(super) armed: Option<Duration>,
    /// Whether the owner has had hold of it since it was last asked for frames.
    pub(super) touched: bool,
}

impl Node {
    pub(super) fn new(name: &str, engine: Engine) -> Self {
        Self {
            name: name.to_string(),
            engine,
            plugs: BTreeMap::new(),
            unplugged: BTreeMap::new(),
            injected: 0,
            armed: None,
            touched: false,
        }
    }
}

/// A side of a link, by the order in which the ends were named.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Side {
    /// The end named first.
    First,
    /// The end named second.
    Second,
}

impl Side {
    /// The side across.
    pub const fn other(self) -> Self {
        match self {
            Self::First => Self::Second,
            Self::Second => Self::First,
        }
    }

    pub(super) const fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::First => "first",
            Self::Second => "second",
        })
    }
}
