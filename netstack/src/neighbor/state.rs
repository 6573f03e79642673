//! One neighbour: its states, what can be heard of it, and what that changes.

use core::net::IpAddr;
use core::time::Duration;

use crate::addr::MacAddr;

/// What is known about a neighbour's MAC address (RFC 4861 section 7.3.2, with FAILED as Linux has it).
///
/// | state      | address  | left by                                                                                |
/// |------------|----------|----------------------------------------------------------------------------------------|
/// | INCOMPLETE | none     | an answer → REACHABLE or STALE; 3 multicast solicitations, 1 s apart, unanswered → FAILED |
/// | REACHABLE  | believed | 15 to 45 s after the last answer, or an answer that disagrees without override → STALE  |
/// | STALE      | believed | the first frame sent there → DELAY                                                      |
/// | DELAY      | believed | an answer → REACHABLE; 5 s → PROBE                                                      |
/// | PROBE      | believed | an answer → REACHABLE; 3 unicast solicitations, 1 s apart, unanswered → FAILED          |
/// | FAILED     | none     | being asked by the neighbour → STALE; being wanted again → INCOMPLETE                   |
///
/// REACHABLE turns STALE by the mere passing of time: nothing has to run for it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum NeighborState {
    /// Asked for, no answer so far. Frames for it wait.
    Incomplete,
    /// It has answered lately.
    Reachable,
    /// The address is on record and may be out of date.
    Stale,
    /// The address is out of date and in use; a hint that it holds may still come by itself.
    Delay,
    /// The address is in use and being verified.
    Probe,
    /// It did not answer. To the rules of RFC 826 and RFC 4861 this is the same as no entry.
    Failed,
}

impl NeighborState {
    /// Whether frames may be sent to the address on record.
    pub const fn is_usable(self) -> bool {
        match self {
            Self::Reachable | Self::Stale | Self::Delay | Self::Probe => true,
            Self::Incomplete | Self::Failed => false,
        }
    }

    /// The name that commands show.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Incomplete => "incomplete",
            Self::Reachable => "reachable",
            Self::Stale => "stale",
            Self::Delay => "delay",
            Self::Probe => "probe",
            Self::Failed => "failed",
        }
    }
}

/// The machine's times and counts, for ARP and neighbour discovery alike.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NeighborTimers {
    /// Between two solicitations of one neighbour (RFC 4861 section 10: RETRANS_TIMER, 1 s; RFC 1122 section 2.3.2.1:
    /// "The recommended maximum rate is 1 per second per destination").
    pub retransmit: Duration,
    /// Multicast solicitations before giving up (RFC 4861 section 10: MAX_MULTICAST_SOLICIT, 3). At least one is sent.
    pub max_multicast_solicit: u8,
    /// Unicast solicitations before giving up (RFC 4861 section 10: MAX_UNICAST_SOLICIT, 3). At least one is sent.
    pub max_unicast_solicit: u8,
    /// How long an answer is believed, before a random factor between 0.5 and 1.5 is applied (RFC 4861 section 10:
    /// REACHABLE_TIME, 30 s; sections 6.3.2 and 10: MIN_RANDOM_FACTOR and MAX_RANDOM_FACTOR). Drawn anew for every
    /// answer, so that probes of neighbours that were found together drift apart.
    pub reachable: Duration,
    /// How long to wait for a hint before probing (RFC 4861 section 10: DELAY_FIRST_PROBE_TIME, 5 s).
    pub delay_first_probe: Duration,
    /// How long a stale entry is safe from being evicted for a neighbour that nothing was sent to yet (Linux
    /// `gc_stale_time`, 60 s).
    pub gc_stale: Duration,
    /// How long a neighbour that did not answer is not asked again. Linux asks again with the next packet; the pause
    /// keeps the steady traffic to a dead address from being parked all the time, and tells its senders sooner.
    pub failed_hold: Duration,
    /// How long the first of two disagreeing ARP messages wins; a gratuitous one always does (Linux `locktime`, 100 ms).
    /// Neighbour discovery has the override flag for this.
    pub arp_lock: Duration,
}

impl Default for NeighborTimers {
    fn default() -> Self {
        Self {
            retransmit: Duration::from_secs(1),
            max_multicast_solicit: 3,
            max_unicast_solicit: 3,
            reachable: Duration::from_secs(30),
            delay_first_probe: Duration::from_secs(5),
            gc_stale: Duration::from_secs(60),
            failed_hold: Duration::from_secs(1),
            arp_lock: Duration::from_millis(100),
        }
    }
}

/// What kind of message was heard from a neighbour. The sender judges validity first: RFC 826, RFC 4861 sections 7.1.1
/// and 7.1.2, and that the neighbour's address belongs to the segment.
///
/// | generic                | ARP                                          | neighbour discovery                        |
/// |------------------------|----------------------------------------------|--------------------------------------------|
/// | solicitation, outgoing | request, to broadcast or to the known MAC    | NS, to the solicited-node group or unicast |
/// | `Solicitation`         | request for an address of ours               | NS with a source address and its MAC (SLLAO) |
/// | `Overheard`            | request or reply between others              | –                                          |
/// | `Answer`               | reply addressed to us                        | –                                          |
/// | `Advertisement`        | –                                            | NA, with its S and O flags                 |
/// | `Gratuitous`           | request or reply with sender = target address | – (an NA with S=0, O=1)                   |
///
/// | message                       | creates an entry | solicited (S) | override (O)                      |
/// |-------------------------------|------------------|---------------|-----------------------------------|
/// | `Solicitation`                | yes, STALE       | no            | yes (ARP: unless locked)          |
/// | `Overheard`                   | no               | no            | unless locked                     |
/// | `Answer`                      | no               | yes           | unless locked                     |
/// | `Advertisement`               | no               | its flag      | its flag                          |
/// | `Gratuitous`                  | no               | no            | yes                               |
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Hearing {
    /// It asks for an address of ours and names its own. It is likely to be answered soon, so it is worth an entry
    /// (RFC 826 "Packet Reception"; RFC 4861 section 7.2.3).
    Solicitation,
    /// It named itself to somebody else: merged into an entry that exists (RFC 826 "Packet Reception").
    Overheard,
    /// It answered us by ARP.
    Answer,
    /// It answered or announced itself by neighbour discovery.
    Advertisement {
        /// The S flag: it answers a solicitation of ours.
        solicited: bool,
        /// The O flag: it replaces another MAC address on record.
        override_flag: bool,
    },
    /// It announced itself by ARP (RFC 5944 section 4.6; Linux `arp_accept=0`: existing entries only).
    Gratuitous,
}

impl Hearing {
    const fn solicited(self) -> bool {
        match self {
            Self::Answer => true,
            Self::Advertisement { solicited, .. } => solicited,
            Self::Solicitation | Self::Overheard | Self::Gratuitous => false,
        }
    }

    const fn overrides(self) -> bool {
        match self {
            Self::Advertisement { override_flag, .. } => override_flag,
            Self::Solicitation | Self::Overheard | Self::Answer | Self::Gratuitous => true,
        }
    }

    /// Whether the first of two messages that disagree wins for a moment.
    const fn yields_to_the_first(self, address: IpAddr) -> bool {
        match self {
            Self::Solicitation | Self::Overheard | Self::Answer => address.is_ipv4(),
            Self::Advertisement { .. } | Self::Gratuitous => false,
        }
    }
}

/// What a message did to an entry.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Change {
    /// At most its state.
    None,
    /// It has an address, where it had none.
    Resolved,
    /// It has another address.
    Moved { from: MacAddr },
}

/// One neighbour on record.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    /// As last written; see [`Entry::state`].
    state: NeighborState,
    /// Of meaning in the usable states.
    pub(super) mac: MacAddr,
    /// When the state or the address changed last.
    since: Duration,
    /// REACHABLE: believed until then. FAILED: not asked again until then.
    until: Duration,
    /// Solicitations sent in this round of INCOMPLETE or PROBE.
    pub(super) solicits: u8,
    /// When it was last asked, in whatever state.
    pub(super) asked: Option<Duration>,
    /// Of the address; see [`super::Neighbors`].
    pub(super) generation: u32,
}

impl Entry {
    pub(super) fn new(now: Duration, state: NeighborState, mac: MacAddr, generation: u32) -> Self {
        Self { state, mac, since: now, until: now, solicits: 0, asked: None, generation }
    }

    /// The state at `now`.
    pub(super) fn state(&self, now: Duration) -> NeighborState {
        if self.has_lapsed(now) { NeighborState::Stale } else { self.state }
    }

    /// Whether frames may be sent to its address; the passing of time alone does not change that.
    pub(super) fn is_usable(&self) -> bool {
        self.state.is_usable()
    }

    /// When the state that holds at `now` began.
    pub(super) fn since(&self, now: Duration) -> Duration {
        if self.has_lapsed(now) { self.until } else { self.since }
    }

    /// Whether it failed so lately that it is not asked again.
    pub(super) fn is_held(&self, now: Duration) -> bool {
        self.state == NeighborState::Failed && now < self.until
    }

    /// When it may be asked next.
    pub(super) fn may_ask(&self, now: Duration, timers: &NeighborTimers) -> Duration {
        self.asked.map_or(now, |asked| now.max(asked.saturating_add(timers.retransmit)))
    }

    /// Goes to another state than REACHABLE or FAILED.
    pub(super) fn enter(&mut self, now: Duration, state: NeighborState) {
        self.state = state;
        self.since = now;
        self.solicits = 0;
    }

    /// Goes to FAILED for good or, after `hold`, until it is wanted again.
    pub(super) fn fail(&mut self, now: Duration, hold: Duration) {
        self.enter(now, NeighborState::Failed);
        self.until = now.saturating_add(hold);
    }

    /// Applies a message to a neighbour that is not FAILED: RFC 4861 section 7.2.5, with ARP's messages given the flags
    /// of the table at [`Hearing`]. `believed` is for how long an answer counts.
    ///
    /// | state             | MAC in message | S | O | address | state           |
    /// |-------------------|----------------|---|---|---------|-----------------|
    /// | INCOMPLETE        | none           | * | * | –       | INCOMPLETE      |
    /// | INCOMPLETE        | some           | 1 | * | taken   | REACHABLE       |
    /// | INCOMPLETE        | some           | 0 | * | taken   | STALE           |
    /// | REACHABLE         | different      | * | 0 | kept    | STALE           |
    /// | STALE DELAY PROBE | different      | * | 0 | kept    | kept            |
    /// | any of the four   | different      | 1 | 1 | taken   | REACHABLE       |
    /// | any of the four   | different      | 0 | 1 | taken   | STALE           |
    /// | any of the four   | same, none     | 1 | * | kept    | REACHABLE       |
    /// | any of the four   | same, none     | 0 | * | kept    | kept            |
    pub(super) fn hear(
        &mut self,
        now: Duration,
        address: IpAddr,
        mac: Option<MacAddr>,
        hearing: Hearing,
        believed: Duration,
        timers: &NeighborTimers,
    ) -> Change {
        let state = self.state(now);
        if state == NeighborState::Incomplete {
            let Some(mac) = mac else {
                return Change::None;
            };
            self.mac = mac;
            self.confirm_or_stale(now, hearing.solicited(), believed);
            return Change::Resolved;
        }
        let Some(mac) = mac.filter(|&mac| mac != self.mac) else {
            if hearing.solicited() {
                self.confirm(now, believed);
            }
            return Change::None;
        };
        let locked = now < self.since(now).saturating_add(timers.arp_lock);
        if locked && hearing.yields_to_the_first(address) {
            return Change::None;
        }
        if !hearing.overrides() {
            if state == NeighborState::Reachable {
                self.enter(now, NeighborState::Stale);
            }
            return Change::None;
        }
        let from = core::mem::replace(&mut self.mac, mac);
        self.confirm_or_stale(now, hearing.solicited(), believed);
        Change::Moved { from }
    }

    /// A new address: as good as the message that brought it.
    fn confirm_or_stale(&mut self, now: Duration, solicited: bool, believed: Duration) {
        self.enter(now, NeighborState::Stale);
        if solicited {
            self.confirm(now, believed);
        }
    }

    /// Whether it was REACHABLE and is STALE by the passing of time.
    fn has_lapsed(&self, now: Duration) -> bool {
        self.state == NeighborState::Reachable && now >= self.until
    }

    /// It has answered.
    fn confirm(&mut self, now: Duration, believed: Duration) {
        if self.state(now) != NeighborState::Reachable {
            self.enter(now, NeighborState::Reachable);
        }
        self.until = now.saturating_add(believed);
    }
}
