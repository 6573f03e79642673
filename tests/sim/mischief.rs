//! What disturbs a run: hostile frames, configurations swapped under traffic, links that are cut.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use netstack::config::{Snapshot, Station};
use netstack::emit;
use netstack::frame::{Frame, FramePool};
use netstack::offload::{Checksum, Offload, SegmentKind, Segmentation};
use netstack::seed::Rng;
use netstack::sim::{End, LinkId, LinkProfile, Side};

use crate::world::{World, below, chance};
use crate::{policies, services};

/// The latest that anything disturbs.
const LATEST: u32 = 12_000;

/// A disturbance.
#[derive(Debug)]
pub(crate) enum Act {
    /// A frame that nobody should send arrives at a switch or host.
    Hostile,
    /// A switch gets this part of its configuration.
    Install { switch: usize, change: Change },
    /// A link carries nothing for a while: the profiles it had stand in the list of what is to be mended.
    Cut(LinkId),
    /// What was cut is mended, be it the same link by then or one that was plugged in since.
    Mend(End, [LinkProfile; 2]),
    /// A host's link is taken out and plugged in again.
    Replug(usize),
}

/// What a configuration lacks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Change {
    Nothing,
    Port,
    Routes,
    Managed,
    Mtu,
    Services,
    /// Nothing, but some are kept from each other.
    Policies,
    /// Nothing, and nobody is any more.
    NoPolicies,
}

const CHANGES: [Change; 11] = [
    Change::Nothing,
    Change::Port,
    Change::Routes,
    Change::Managed,
    Change::Mtu,
    Change::Services,
    Change::Services,
    Change::Services,
    Change::Policies,
    Change::Policies,
    Change::Policies,
];

/// What disturbs a run, in order of time.
pub(crate) fn plan(rng: &mut Rng) -> Vec<(Duration, Act)> {
    let mut acts = Vec::new();
    let time = |rng: &mut Rng| Duration::from_millis(u64::from(rng.below(LATEST)));
    if chance(rng, 40) {
        for _ in 0..below(rng, 40) {
            acts.push((time(rng), Act::Hostile));
        }
    }
    if chance(rng, 40) {
        for _ in 0..=below(rng, 3) {
            let change = CHANGES[below(rng, CHANGES.len())];
            let (switch, at) = (below(rng, 8), time(rng));
            acts.push((at, Act::Install { switch, change }));
            let back = at + Duration::from_millis(u64::from(rng.below(3000)));
            let again = if matches!(change, Change::Policies) { Change::NoPolicies } else { Change::Nothing };
            acts.push((back, Act::Install { switch, change: again }));
        }
    }
    if chance(rng, 20) {
        acts.push((time(rng), Act::Replug(below(rng, 8))));
    }
    acts.sort_by_key(|(at, _)| *at);
    acts
}

/// Does what is to be done; what follows from it later is put in `acts`.
pub(crate) fn act(world: &mut World, rng: &mut Rng, act: Act) -> Option<(Duration, Act)> {
    match act {
        Act::Hostile => hostile(world, rng),
        Act::Install { switch, change } => install(world, rng, switch % world.switches.len(), change),
        Act::Cut(link) => {
            let before = [Side::First, Side::Second].map(|side| *world.lab.line(link, side).profile());
            for side in [Side::First, Side::Second] {
                world.lab.set_profile(link, side, LinkProfile::DEAD);
            }
            let back = world.lab.now() + Duration::from_millis(u64::from(rng.below(4000)));
            return Some((back, Act::Mend(world.lab.ends(link)[0], before)));
        }
        Act::Mend(end, before) => {
            let (link, _) = world.lab.link_at(end).unwrap();
            for (side, profile) in [Side::First, Side::Second].into_iter().zip(before) {
                world.lab.set_profile(link, side, profile);
            }
        }
        Act::Replug(member) => {
            let member = &world.members[member % world.members.len()];
            if let Some((link, _)) = world.lab.link_at(member.id) {
                let [forth, back] =
                    [Side::First, Side::Second].map(|side| *world.lab.line(link, side).profile());
                world.lab.disconnect(link);
                world.lab.connect_asymmetric(member.id, member.at, forth, back).unwrap();
            }
        }
    }
    None
}

fn install(world: &mut World, rng: &mut Rng, switch: usize, change: Change) {
    let tracks = |at: &usize| world.switches[*at].1.nat.is_some();
    let switch = match change {
        // Policies are for who knows connections.
        Change::Policies | Change::NoPolicies => {
            let all = switch..switch + world.switches.len();
            all.map(|at| at % world.switches.len()).find(tracks).unwrap_or(switch)
        }
        Change::Nothing
        | Change::Port
        | Change::Routes
        | Change::Managed
        | Change::Mtu
        | Change::Services => switch,
    };
    let (id, config) = &world.switches[switch];
    let mut config = config.clone();
    match change {
        Change::Nothing | Change::Policies | Change::NoPolicies => {}
        Change::Port => drop(config.ports.pop()),
        Change::Routes => config.routes.clear(),
        Change::Managed => config.ports.iter_mut().for_each(|p| p.station = Station::Foreign),
        Change::Mtu => config.segments.iter_mut().for_each(|s| s.mtu = 1300),
        Change::Services => config.services = config.services.map(|before| services::fewer(&before, rng)),
    }
    let before = world.lab.switch(*id).snapshot();
    if matches!(change, Change::Services) && chance(rng, 50) {
        let next = before.with_services(config.services).unwrap();
        drop(world.lab.install(*id, next));
        return;
    }
    if matches!(change, Change::Policies) && config.nat.is_some() {
        let next = before.with_policies(Some(Arc::new(policies::some(&world.members, rng)))).unwrap();
        drop(world.lab.install(*id, next));
        return;
    }
    let next = Snapshot::compile(config, Some(before)).unwrap();
    // The others keep them.
    let next = if matches!(change, Change::Nothing | Change::NoPolicies) {
        next.with_policies(None).unwrap()
    } else {
        next
    };
    drop(world.lab.install(*id, next));
}

/// A frame that nobody should send: noise, a claim to another's address, a cut or stretched packet, a false offload state.
fn hostile(world: &mut World, rng: &mut Rng) {
    let mut pool = FramePool::new();
    let member = |world: &World, rng: &mut Rng| world.members[below(rng, world.members.len())].clone();
    let (liar, victim, target) = (member(world, rng), member(world, rng), member(world, rng));
    let mac = if chance(rng, 50) { liar.mac } else { victim.mac };
    let mut frame = match rng.below(5) {
        0 => noise(&mut pool, rng),
        1 => match victim.v4 {
            IpAddr::V4(v4) => emit::arp_announcement(&mut pool, mac, v4),
            IpAddr::V6(_) => noise(&mut pool, rng),
        },
        2 => {
            let address = victim.address(chance(rng, 50));
            let asker = (target.mac, Some(target.address(address.is_ipv6())));
            emit::neighbor_answer(&mut pool, address, mac, asker, chance(rng, 50), chance(rng, 50))
                .unwrap_or_else(|| noise(&mut pool, rng))
        }
        3 => {
            let v6 = chance(rng, 50);
            let (asked, asker) = (target.address(v6), victim.address(v6));
            emit::neighbor_question(&mut pool, mac, asker, asked, None)
                .unwrap_or_else(|| noise(&mut pool, rng))
        }
        _ => packet(&mut pool, rng, mac, &victim, &target),
    };
    if chance(rng, 30) {
        let len = below(rng, frame.len() + 1);
        let shorter = frame.set_len(len);
        assert!(shorter);
    }
    if chance(rng, 30) {
        frame.offload = Offload {
            checksum: Checksum::Partial { start: small(rng), offset: small(rng) },
            segmentation: chance(rng, 50).then(|| Segmentation {
                kind: [SegmentKind::TcpV4, SegmentKind::TcpV6, SegmentKind::Udp][below(rng, 3)],
                size: small(rng),
                ecn: false,
            }),
        };
    }
    if chance(rng, 70) {
        world.lab.inject_frame(liar.at, frame);
    } else {
        world.lab.inject_frame(target.id, frame);
    }
}

fn small(rng: &mut Rng) -> u16 {
    u16::try_from(rng.below(100)).unwrap()
}

fn noise(pool: &mut FramePool, rng: &mut Rng) -> Frame {
    let mut frame = pool.take(below(rng, 300));
    frame.bytes_mut().iter_mut().for_each(|octet| *octet = rng.next_u64().to_be_bytes()[0]);
    if frame.len() > 14 && chance(rng, 60) {
        let ethertype: u16 = [0x0800, 0x86dd, 0x0806, 0x8100][below(rng, 4)];
        frame.bytes_mut()[12..14].copy_from_slice(&ethertype.to_be_bytes());
        frame.bytes_mut()[0] &= 0xfe;
        frame.bytes_mut()[6] &= 0xfe;
    }
    frame
}

/// An IP packet with a header that holds together and anything behind it, from one who may not send it.
fn packet(
    pool: &mut FramePool,
    rng: &mut Rng,
    mac: netstack::addr::MacAddr,
    victim: &crate::world::Member,
    target: &crate::world::Member,
) -> Frame {
    let len = 20 + below(rng, 1400);
    let mut frame = pool.take(14 + 20 + len);
    frame.bytes_mut().iter_mut().for_each(|octet| *octet = rng.next_u64().to_be_bytes()[0]);
    let bytes = frame.bytes_mut();
    bytes[..6].copy_from_slice(&target.mac.0);
    bytes[6..12].copy_from_slice(&mac.0);
    bytes[12..14].copy_from_slice(&[8, 0]);
    let (IpAddr::V4(source), IpAddr::V4(destination)) = (victim.v4, target.v4) else { return frame };
    bytes[14..16].copy_from_slice(&[0x45, 0]);
    bytes[16..18].copy_from_slice(&u16::try_from(20 + len).unwrap().to_be_bytes());
    bytes[20..22].copy_from_slice(&[0, 0]);
    bytes[22..26].copy_from_slice(&[64, [1, 6, 17, 132][below(rng, 4)], 0, 0]);
    bytes[26..30].copy_from_slice(&source.octets());
    bytes[30..34].copy_from_slice(&destination.octets());
    let sum: u32 =
        bytes[14..34].chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !u16::try_from((folded & 0xffff) + (folded >> 16)).unwrap_or(0);
    bytes[24..26].copy_from_slice(&checksum.to_be_bytes());
    frame
}
