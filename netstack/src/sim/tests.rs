//! The laboratory itself: what it promises of time, seeds, accounts and ends of runs.

use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use super::*;
use crate::host::{HostEvent, TcpHandle, TcpListener};
use crate::verdict::DropReason;

const MS: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

fn config(id: u8) -> HostConfig {
    let net = |text: String| text.parse().unwrap();
    let nets = vec![net(format!("10.0.0.{id}/24")), net(format!("fd00::{id}/64"))];
    HostConfig::new(crate::addr::MacAddr::local(u64::from(id)), nets)
}

/// Hosts 1 to `hosts` at ports 0 and up of one bridge.
fn star(seed: u64, hosts: u8, profile: LinkProfile) -> (Lab, SwitchId, Vec<HostId>, Vec<LinkId>) {
    let mut lab = Lab::new(Seed::from_u64(seed));
    let bridge = lab.add_bridge("bridge", u16::from(hosts)).unwrap();
    let hosts: Vec<HostId> =
        (1..=hosts).map(|id| lab.add_host(&format!("h{id}"), config(id)).unwrap()).collect();
    let links = (0..)
        .zip(&hosts)
        .map(|(port, &host)| lab.connect(host, (bridge, PortId(port)), profile).unwrap())
        .collect();
    (lab, bridge, hosts, links)
}

/// Sends `len` octets from one host to another, which reads them all.
struct Transfer {
    from: HostId,
    to: HostId,
    client: TcpHandle,
    listener: TcpListener,
    server: Option<TcpHandle>,
    left: usize,
    got: usize,
    ended: bool,
}

impl Transfer {
    fn begin(lab: &mut Lab, from: HostId, to: HostId, address: &str, len: usize) -> Self {
        let (now, address): (Duration, SocketAddr) = (lab.now(), address.parse().unwrap());
        let listener = lab.host_mut(to).tcp_listen(address).unwrap();
        let client = lab.host_mut(from).tcp_connect(now, address).unwrap();
        Self { from, to, client, listener, server: None, left: len, got: 0, ended: false }
    }

    fn turn(&mut self, lab: &mut Lab) -> bool {
        let now = lab.now();
        while self.left > 0 {
            let data = [7; 1000];
            let most = data.len().min(self.left);
            let Ok(count) = lab.host_mut(self.from).tcp_send(now, self.client, &data[..most]) else { break };
            self.left -= count;
            if self.left == 0 {
                lab.host_mut(self.from).tcp_close(now, self.client);
            }
        }
        let host = lab.host_mut(self.to);
        self.server = self.server.or_else(|| host.tcp_accept(self.listener));
        let mut buffer = [0; 2000];
        while let Some(server) = self.server.filter(|_| !self.ended) {
            match host.tcp_recv(now, server, &mut buffer) {
                Ok(0) => {
                    self.ended = true;
                    host.tcp_close(now, server);
                }
                Ok(count) => self.got += count,
                Err(_) => break,
            }
        }
        self.ended
    }
}

fn bad() -> LinkProfile {
    LinkProfile {
        loss: Probability::percent(3),
        duplication: Probability::percent(5),
        reordering: Probability::percent(5),
        late_by: 3 * MS,
        delay: MS,
        jitter: MS,
        rate: 2_000_000,
        ..LinkProfile::PERFECT
    }
}

/// Everything that was on a wire, in order.
type Tape = Vec<(Duration, End, End, bool, Vec<u8>)>;

fn recorded(seed: u64) -> (Tape, String) {
    let tape = Arc::new(std::sync::Mutex::new(Tape::new()));
    let (mut lab, _, hosts, _) = star(seed, 3, bad());
    lab.set_trace_capacity(100_000);
    let writer = tape.clone();
    lab.set_observer(Some(Box::new(move |seen| {
        writer.lock().unwrap().push((seen.at, seen.from, seen.to, seen.arrived, seen.frame.bytes().to_vec()));
    })));
    let mut one = Transfer::begin(&mut lab, hosts[0], hosts[1], "[fd00::2]:80", 50_000);
    let mut two = Transfer::begin(&mut lab, hosts[1], hosts[2], "10.0.0.3:80", 50_000);
    let done = lab.run_until(200 * SECOND, |lab| one.turn(lab) & two.turn(lab)).unwrap();
    assert!(done && one.got == 50_000 && two.got == 50_000);
    let tape = core::mem::take(&mut *tape.lock().unwrap());
    (tape, lab.trace())
}

#[test]
fn the_same_seed_gives_the_same_log_to_the_octet() {
    let (tape, trace) = recorded(1);
    assert!(tape.len() > 200 && trace.lines().count() > tape.len() / 2);
    for part in ["[lost]", "again", "TCP", "ARP", "fd00::1 > fd00::2", "h1 receives", "does what is due"] {
        assert!(trace.contains(part), "{part}");
    }
    assert_eq!((tape, trace), recorded(1));
    assert_ne!(recorded(1).1, recorded(2).1);
}

#[test]
fn one_frame_lost_in_secret_is_found_with_link_step_and_seed() {
    let (mut lab, _, hosts, links) = star(42, 2, LinkProfile::delayed(MS));
    lab.host_mut(hosts[0]).ping(Duration::ZERO, "10.0.0.2".parse().unwrap(), 1, 1, b"x").unwrap();
    assert!(lab.step().unwrap());
    // The question has reached the bridge, which sends it on.
    lab.cables[links[1].0].lines[Side::Second.index()].lose_secretly().unwrap();
    let error = lab.run_for(SECOND).unwrap_err();
    let LabError::Violation(violation) = &error else { panic!("{error}") };
    assert_eq!((violation.step, violation.at, violation.seed), (1, MS, Seed::from_u64(42)));
    let text = error.to_string();
    for part in ["link 1 from bridge port 1 to h2", "step 1", "seed 42", "1 + 0 != 0 + 0 + 0 + 0"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn a_frame_past_the_links_is_found() {
    let (mut lab, _, hosts, _) = star(1, 2, LinkProfile::PERFECT);
    let mut batch = FrameBatch::new();
    batch.push(FramePool::new().copy_of(&[0; 60])).unwrap();
    lab.host_mut(hosts[0]).handle_frames(Duration::ZERO, &mut batch);
    let text = lab.run_for(SECOND).unwrap_err().to_string();
    assert!(text.starts_with("h1 ") && text.contains("received 1"), "{text}");
}

#[test]
fn a_run_ends_when_it_is_done_or_at_its_deadline() {
    let (mut lab, _, hosts, _) = star(1, 2, LinkProfile::delayed(MS));
    assert!(!lab.step().unwrap(), "an empty laboratory stands still");
    assert!(!lab.run_until(SECOND, |_| false).unwrap());
    assert_eq!(lab.now(), SECOND);
    lab.host_mut(hosts[0]).ping(SECOND, "fd00::2".parse().unwrap(), 1, 1, b"x").unwrap();
    let mut asked = 0;
    assert!(
        lab.run_until(2 * SECOND, |lab| {
            asked += 1;
            matches!(lab.host_mut(hosts[0]).poll_event(), Some(HostEvent::EchoReply { .. }))
        })
        .unwrap()
    );
    assert_eq!(lab.now(), SECOND + 8 * MS);
    assert_eq!(lab.last_host(), Some(hosts[0]));
    assert_eq!(asked, lab.steps() + 1, "once at the start and once after each step");
    lab.run_for(SECOND).unwrap();
    assert_eq!(lab.now(), 2 * SECOND + 8 * MS);
}

#[test]
fn a_laboratory_comes_to_rest_or_says_what_keeps_it() {
    let (mut lab, bridge, hosts, _) = star(1, 2, bad());
    let mut transfer = Transfer::begin(&mut lab, hosts[0], hosts[1], "10.0.0.2:80", 20_000);
    lab.run_until(100 * SECOND, |lab| transfer.turn(lab)).unwrap();
    assert!(transfer.ended && !lab.is_idle());
    let Err(LabError::NotIdle { steps: 10, timers, .. }) = lab.run_until_idle(10) else {
        panic!("there is more to do than that")
    };
    assert!(timers > 0);
    let steps = lab.run_until_idle(100_000).unwrap();
    assert!(steps > 300 && lab.is_idle(), "{steps}");
    assert!(lab.switch(bridge).fdb().is_empty());
    assert_eq!(hosts.iter().map(|&h| lab.host(h).tcp_connections()).sum::<usize>(), 0);
    assert_eq!(lab.run_until_idle(0).unwrap(), 0);
}

#[test]
fn what_is_under_way_on_a_link_that_is_taken_away_is_lost_and_counted() {
    let (mut lab, bridge, hosts, links) = star(1, 2, LinkProfile::delayed(10 * MS));
    let to = "10.0.0.2".parse().unwrap();
    lab.host_mut(hosts[0]).ping(Duration::ZERO, to, 1, 1, b"x").unwrap();
    lab.run_for(15 * MS).unwrap();
    assert_eq!(lab.in_flight(), 1);
    lab.disconnect(links[1]);
    lab.disconnect(links[1]);
    assert_eq!((lab.in_flight(), lab.line(links[1], Side::Second).counters().lost), (0, 1));
    assert_eq!(lab.link_at(hosts[1]), None);
    // The bridge floods the next two questions into the void.
    lab.run_for(3 * SECOND).unwrap();
    assert_eq!(lab.unplugged((bridge, PortId(1))), 2);
    assert_eq!(lab.unplugged((bridge, PortId(0))), 0);
    let again = lab.connect(hosts[1], (bridge, PortId(1)), LinkProfile::PERFECT).unwrap();
    assert_ne!(again, links[1]);
    let now = lab.now();
    lab.host_mut(hosts[0]).ping(now, to, 1, 2, b"x").unwrap();
    lab.run_for(SECOND).unwrap();
    let events: Vec<HostEvent> = core::iter::from_fn(|| lab.host_mut(hosts[0]).poll_event()).collect();
    assert!(matches!(events.last(), Some(HostEvent::EchoReply { sequence: 2, .. })), "{events:?}");
}

#[test]
fn a_link_needs_two_free_ends() {
    let (mut lab, bridge, hosts, _) = star(1, 2, LinkProfile::PERFECT);
    let taken = End::from((bridge, PortId(0)));
    let free = End::from((bridge, PortId(7)));
    assert_eq!(lab.connect(taken, free, LinkProfile::PERFECT), Err(ConnectError::Occupied(taken)));
    assert_eq!(lab.connect(free, taken, LinkProfile::PERFECT), Err(ConnectError::Occupied(taken)));
    assert_eq!(lab.connect(free, free, LinkProfile::PERFECT), Err(ConnectError::SameEnd));
    assert_eq!(
        lab.connect(free, hosts[0], LinkProfile::PERFECT),
        Err(ConnectError::Occupied(hosts[0].into()))
    );
    assert_eq!(lab.links().count(), 2);
}

#[test]
fn directions_are_apart_and_can_be_changed() {
    let mut lab = Lab::new(Seed::from_u64(1));
    let [a, b] = [1, 2].map(|id| lab.add_host(&format!("h{id}"), config(id)).unwrap());
    let link = lab.connect_asymmetric(a, b, LinkProfile::delayed(MS), LinkProfile::delayed(10 * MS)).unwrap();
    let ping = |lab: &mut Lab, sequence| {
        let now = lab.now();
        lab.host_mut(a).ping(now, "10.0.0.2".parse().unwrap(), 1, sequence, b"").unwrap();
        lab.run_until(now + SECOND, |lab| lab.host_mut(a).poll_event().is_some()).unwrap();
        lab.now() - now
    };
    assert_eq!(ping(&mut lab, 1), 22 * MS);
    lab.set_profile(link, Side::Second, LinkProfile::PERFECT);
    assert_eq!(ping(&mut lab, 2), MS);
    lab.set_profile(link, Side::First, LinkProfile::DEAD);
    assert_eq!(ping(&mut lab, 3), SECOND);
    assert_eq!(lab.line(link, Side::First).counters().lost, 1);
    // Its MAC address, two answers, and its own question whether we are still there.
    assert_eq!(lab.line(link, Side::Second).counters().delivered, 4);
}

#[test]
fn a_switch_does_what_is_due_though_nothing_happens_to_it() {
    let mut lab = Lab::new(Seed::from_u64(1));
    let mut port = PortConfig::new(PortId(0), "port-0", VlanMode::Access(SegmentId(0)));
    port.loop_guard = true;
    let segments = vec![SegmentConfig::new(SegmentId(0), "lan")];
    let snapshot = Snapshot::compile(Config { ports: vec![port], segments, ..Config::default() }, None);
    let switch = lab.add_switch("switch", snapshot.unwrap(), Limits::default()).unwrap();
    lab.run_for(10 * SECOND).unwrap();
    assert!(lab.unplugged((switch, PortId(0))) >= 4, "a probe every two seconds");
}

#[test]
fn no_two_have_one_name() {
    let (mut lab, ..) = star(1, 2, LinkProfile::PERFECT);
    for taken in ["h1", "bridge"] {
        let error = AddError::NameTaken(taken.to_string());
        assert_eq!(lab.add_host(taken, config(9)).unwrap_err(), error);
        assert_eq!(lab.add_bridge(taken, 1).unwrap_err(), error);
    }
    lab.add_host("h3", config(3)).unwrap();
}

#[test]
fn frames_put_in_by_hand_are_accounted_for() {
    let (mut lab, bridge, hosts, _) = star(1, 2, LinkProfile::PERFECT);
    lab.inject((bridge, PortId(0)), &[0xff; 5]);
    lab.inject((bridge, PortId(9)), &[0xff; 60]);
    lab.inject(hosts[1], b"");
    assert!(!lab.is_idle());
    assert_eq!(lab.run_until_idle(100).unwrap(), 3);
    let counters = lab.switch(bridge).counters();
    assert_eq!(
        (counters.dropped(DropReason::FrameTooShort), counters.dropped(DropReason::PortClosed)),
        (1, 1)
    );
    assert_eq!(lab.host(hosts[1]).counters().dropped(DropReason::FrameTooShort), 1);
    assert!(lab.trace().contains("bridge is given no Ethernet header, 5 octets"), "{}", lab.trace());
}

#[test]
fn a_configuration_is_swapped_in_mid_run() {
    let (mut lab, bridge, hosts, _) = star(1, 2, LinkProfile::delayed(MS));
    lab.host_mut(hosts[0]).ping(Duration::ZERO, "10.0.0.2".parse().unwrap(), 1, 1, b"").unwrap();
    assert!(lab.step().unwrap());
    let full = lab.install(bridge, Snapshot::empty());
    lab.run_for(SECOND / 2).unwrap();
    assert!(lab.host_mut(hosts[0]).poll_event().is_none());
    lab.install(bridge, full);
    lab.run_for(3 * SECOND).unwrap();
    assert!(matches!(lab.host_mut(hosts[0]).poll_event(), Some(HostEvent::EchoReply { .. })));
    assert!(lab.trace().contains("bridge gets generation 1"), "{}", lab.trace());
}

#[test]
fn a_loop_without_time_ends_with_an_error() {
    // Two ports of a bridge patched together: a broadcast goes round for ever, in no time.
    let mut lab = Lab::new(Seed::from_u64(1));
    let bridge = lab.add_bridge("bridge", 2).unwrap();
    lab.connect((bridge, PortId(0)), (bridge, PortId(1)), LinkProfile::PERFECT).unwrap();
    let mut frame = [0xff; 60];
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
    lab.inject((bridge, PortId(0)), &frame);
    lab.set_trace_capacity(0);
    lab.steps_at_once = MAX_STEPS_AT_ONCE - 1000;
    let text = lab.run_for(SECOND).unwrap_err().to_string();
    assert!(text.starts_with("time stands still at 0ns") && text.ends_with("bridge"), "{text}");
    assert_eq!(lab.trace(), "");
}

#[test]
fn a_seed_that_is_no_number_is_shown_whole() {
    let mut text = String::new();
    error::write_seed(&mut text, &Seed([0xab; 32])).unwrap();
    assert_eq!(text, "ab".repeat(32));
}

#[test]
fn a_laboratory_can_move_between_threads() {
    fn send<T: Send>() {}
    send::<Lab>();
}
