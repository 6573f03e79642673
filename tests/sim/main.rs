//! More than a thousand random laboratories: random networks of both families, links of every quality, TCP, UDP and pings,
//! hostile frames, configurations swapped and cables cut under traffic. Every frame is accounted for after every step;
//! what arrives is what was sent; where the links allow it, everything arrives.
//!
//! A run follows from its number alone. One that fails says how to run it again:
//! `SIM_SEED=17 cargo test -p vswitch-tests --test sim -- --nocapture`. `SIM_RUNS=100000` makes more of them.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by panicking, and says how to repeat it"
)]

mod mischief;
mod partition;
mod policies;
mod services;
mod traffic;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use netstack::seed::Seed;
use netstack::sim::{LabError, LineCounters, Side};
use netstack::verdict::{DropReason, Fate};

use crate::mischief::{Act, Change};
use crate::traffic::Traffic;
use crate::world::{FLOWS, Weather, World, below, chance};

/// Runs in all, in `PARTS` tests that share the processors.
const RUNS: u64 = 4096;
const PARTS: u64 = 4;
/// By when every transfer must be over in fair weather, in the laboratory's time: an answer that was lost and a neighbour
/// that was lied about cost seconds each.
const PATIENCE: Duration = Duration::from_secs(900);
/// How long a run in foul weather is watched.
const FOUL: Duration = Duration::from_secs(60);

/// What a run met.
#[derive(Default, Debug)]
struct Report {
    steps: u64,
    time: Duration,
    lines: LineCounters,
    transfers: u64,
    transferred: u64,
    attempts: u64,
    answers: u64,
    unanswered: u64,
    vlans: u64,
    swaps: u64,
    hostile: u64,
    dropped: u64,
    parked: u64,
    connections: u64,
    balanced: u64,
    /// Frames of flows that were known.
    known: u64,
    /// Configurations with other services.
    reloads: u64,
    /// Frames that policies have stopped.
    forbidden: u64,
}

impl Report {
    fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.time += other.time;
        self.transfers += other.transfers;
        self.transferred += other.transferred;
        self.attempts += other.attempts;
        self.answers += other.answers;
        self.unanswered += other.unanswered;
        self.vlans += other.vlans;
        self.swaps += other.swaps;
        self.hostile += other.hostile;
        self.dropped += other.dropped;
        self.parked += other.parked;
        self.connections += other.connections;
        self.balanced += other.balanced;
        self.known += other.known;
        self.reloads += other.reloads;
        self.forbidden += other.forbidden;
        self.add_line(&other.lines);
    }

    fn add_line(&mut self, line: &LineCounters) {
        self.lines.offered += line.offered;
        self.lines.duplicated += line.duplicated;
        self.lines.corrupted += line.corrupted;
        self.lines.late += line.late;
        self.lines.lost += line.lost;
        self.lines.overflowed += line.overflowed;
        self.lines.delivered += line.delivered;
    }
}

/// A run under way.
struct Run {
    world: World,
    traffic: Traffic,
    failure: Option<String>,
}

impl Run {
    /// Runs until `deadline`, or until everything is done if that is to end it.
    fn until(&mut self, deadline: Duration, stop_when_done: bool) -> Result<(), String> {
        while self.world.lab.now() < deadline {
            let (members, traffic, failure) = (&self.world.members, &mut self.traffic, &mut self.failure);
            if stop_when_done && traffic.is_done() {
                return Ok(());
            }
            let wake = traffic.next_at().map_or(deadline, |at| at.min(deadline));
            let lab = &mut self.world.lab;
            if wake <= lab.now() {
                for at in 0..members.len() {
                    traffic.turn(lab, members, at)?;
                }
            }
            let wake = traffic.next_at().map_or(deadline, |at| at.min(deadline)).max(lab.now());
            let next = lab.run_until(wake, |lab| {
                let Some(last) = lab.last_host() else { return false };
                let at = members.iter().position(|m| m.id == last).unwrap();
                if let Err(text) = traffic.turn(lab, members, at) {
                    *failure = Some(text);
                }
                failure.is_some()
                    || (stop_when_done && traffic.is_done())
                    || traffic.next_at().is_some_and(|at| at < wake)
            });
            next.map_err(|e: LabError| e.to_string())?;
            if let Some(text) = self.failure.take() {
                return Err(format!("at {:?}: {text}", self.world.lab.now()));
            }
        }
        Ok(())
    }
}

/// One laboratory from beginning to end. `log` sees every frame.
fn run(
    seed: u64,
    tamper: bool,
    flows: u32,
    log: Option<netstack::sim::Observer>,
) -> Result<Report, (String, String)> {
    let mut rng = Seed::from_u64(seed).rng("scenario");
    let mut world = World::new(seed, &mut rng, flows);
    world.lab.set_observer(log);
    world.lab.set_trace_capacity(if alone().is_some() { 100_000 } else { 512 });
    let traffic = Traffic::new(&mut world, &mut rng, tamper);
    let mut acts = mischief::plan(&mut rng);
    if world.weather != Weather::Clear && chance(&mut rng, 30) {
        let links: Vec<_> = world.lab.links().collect();
        let at = Duration::from_millis(u64::from(rng.below(5000)));
        acts.push((at, Act::Cut(links[below(&mut rng, links.len())])));
    }
    let mut report = Report { vlans: u64::from(world.vlans), ..Report::default() };
    let mut run = Run { world, traffic, failure: None };
    let result = play(&mut run, &mut rng, acts, &mut report);
    let lab = &run.world.lab;
    result.map_err(|text| (format!("{:?} weather, {text}", run.world.weather), lab.trace()))?;
    (report.steps, report.time) = (lab.steps(), lab.now());
    for link in lab.links() {
        for side in [Side::First, Side::Second] {
            report.add_line(lab.line(link, side).counters());
        }
    }
    for (id, _) in &run.world.switches {
        let counters = lab.switch(*id).counters();
        report.dropped += counters.fate(Fate::Dropped);
        report.parked += counters.fate(Fate::Parked);
        report.forbidden += counters.dropped(DropReason::PolicyDenied);
        report.balanced += lab.switch(*id).balanced();
        report.known += lab.switch(*id).known();
        if let Some((v4, v6)) = lab.switch(*id).connections() {
            report.connections += v4.counters().opened + v6.counters().opened;
        }
    }
    for transfer in &run.traffic.transfers {
        report.transfers += 1;
        report.transferred += u64::from(transfer.done);
        report.attempts += u64::from(transfer.attempts);
    }
    (report.answers, report.unanswered) = (run.traffic.answers(), run.traffic.unanswered() as u64);
    Ok(report)
}

fn play(
    run: &mut Run,
    rng: &mut netstack::seed::Rng,
    mut acts: Vec<(Duration, Act)>,
    report: &mut Report,
) -> Result<(), String> {
    let calm = acts.is_empty();
    let violation = |e: LabError| e.to_string();
    for at in 0..run.world.members.len() {
        run.traffic.turn(&mut run.world.lab, &run.world.members, at)?;
    }
    while !acts.is_empty() {
        acts.sort_by_key(|(at, _)| *at);
        let (at, act) = acts.remove(0);
        run.until(at, false)?;
        report.hostile += u64::from(matches!(act, Act::Hostile));
        report.swaps += u64::from(matches!(act, Act::Install { .. }));
        let reloads = matches!(act, Act::Install { change: Change::Services, .. });
        report.reloads += u64::from(reloads && !run.world.services.is_empty());
        acts.extend(mischief::act(&mut run.world, rng, act));
    }
    let foul = run.world.weather == Weather::Foul;
    run.until(if foul { FOUL } else { PATIENCE }, true)?;
    let rest = run.world.lab.now() + Duration::from_secs(2);
    run.until(rest, false)?;
    run.world.lab.check().map_err(violation)?;
    if let Some(stuck) = run.traffic.transfers.iter().find(|t| !foul && !t.done) {
        return Err(format!(
            "a transfer did not get through: {}",
            stuck.describe(&run.world.lab, &run.world.members)
        ));
    }
    if run.world.weather == Weather::Clear && calm && run.traffic.unanswered() > 0 {
        return Err(format!("{} questions were not answered", run.traffic.unanswered()));
    }
    if chance(rng, 5) && !foul {
        run.world.lab.run_until_idle(1_000_000).map_err(violation)?;
    }
    Ok(())
}

/// Runs one seed; a failure says how to run it again.
fn checked(seed: u64) -> Result<Report, String> {
    let again = format!("SIM_SEED={seed} cargo test -p vswitch-tests --test sim -- --nocapture");
    match catch_unwind(AssertUnwindSafe(|| run(seed, false, FLOWS, None))) {
        Ok(Ok(report)) => Ok(report),
        Ok(Err((text, trace))) => {
            let frames = || trace.lines().filter(|line| !line.ends_with("does what is due"));
            let shown = if alone().is_some() { usize::MAX } else { 12 };
            let last: Vec<&str> = frames().skip(frames().count().saturating_sub(shown)).collect();
            Err(format!("seed {seed}: {text}\n{}\nrun it again: {again}", last.join("\n")))
        }
        Err(_) => Err(format!("seed {seed} panicked\nrun it again: {again}")),
    }
}

fn alone() -> Option<u64> {
    std::env::var("SIM_SEED").ok().map(|text| text.parse().expect("SIM_SEED is a number"))
}

fn runs(part: u64) {
    if let Some(seed) = alone() {
        if part == 0 {
            let report = checked(seed).unwrap_or_else(|text| panic!("{text}"));
            eprintln!("{report:#?}");
        }
        return;
    }
    let count = std::env::var("SIM_RUNS").map_or(RUNS, |text| text.parse().expect("SIM_RUNS is a number"));
    let mut sum = Report::default();
    let mut failures = Vec::new();
    for seed in (part..count).step_by(usize::try_from(PARTS).unwrap()) {
        match checked(seed) {
            Ok(report) => sum.add(&report),
            Err(text) => failures.push(text),
        }
        assert!(failures.len() < 5, "{}", failures.join("\n\n"));
    }
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
    eprintln!("{sum:?}");
    // The runs meet what they are for.
    let l = &sum.lines;
    for (what, count) in [
        ("lost", l.lost),
        ("duplicated", l.duplicated),
        ("damaged", l.corrupted),
        ("late", l.late),
        ("refused", l.overflowed),
        ("answers", sum.answers),
        ("unanswered", sum.unanswered),
        ("VLANs", sum.vlans),
        ("swaps", sum.swaps),
        ("hostile", sum.hostile),
        ("dropped", sum.dropped),
        ("parked", sum.parked),
        ("connections", sum.connections),
        ("balanced", sum.balanced),
        ("known", sum.known),
        ("other services", sum.reloads),
        ("forbidden", sum.forbidden),
        ("tried again", sum.attempts - sum.transfers),
    ] {
        assert!(count >= 10, "{what}: {count}");
    }
}

#[test]
fn every_frame_is_accounted_for_in_a_thousand_laboratories_part_1() {
    runs(0);
}

#[test]
fn every_frame_is_accounted_for_in_a_thousand_laboratories_part_2() {
    runs(1);
}

#[test]
fn every_frame_is_accounted_for_in_a_thousand_laboratories_part_3() {
    runs(2);
}

#[test]
fn every_frame_is_accounted_for_in_a_thousand_laboratories_part_4() {
    runs(3);
}

/// Everything that was on a wire: time, link's ends, and octets.
fn tape(seed: u64, flows: u32) -> Vec<u8> {
    let tape = Arc::new(Mutex::new(Vec::new()));
    let writer = tape.clone();
    let log = move |seen: &netstack::sim::Seen<'_>| {
        let mut tape = writer.lock().unwrap();
        tape.extend(format!("{:?} {:?} {:?} {} ", seen.at, seen.from, seen.to, seen.arrived).bytes());
        tape.extend(seen.frame.bytes());
    };
    run(seed, false, flows, Some(Box::new(log))).unwrap_or_else(|(text, trace)| panic!("{text}\n{trace}"));
    std::mem::take(&mut *tape.lock().unwrap())
}

#[test]
fn the_same_seed_gives_the_same_octets_at_the_same_times() {
    for seed in 0..12 {
        let first = tape(seed, FLOWS);
        assert!(first.len() > 1000);
        assert!(first == tape(seed, FLOWS), "seed {seed}");
        assert!(first != tape(seed + 1000, FLOWS));
    }
}

/// Faults, mischief and services included.
#[test]
fn flows_that_are_known_change_no_octet() {
    for seed in 100..160 {
        let without = tape(seed, 0);
        for flows in [8, FLOWS, 4096] {
            assert!(without == tape(seed, flows), "seed {seed}, {flows} flows");
        }
    }
}

#[test]
fn one_wrong_bit_in_what_a_server_reads_is_found() {
    let found = (0..20)
        .filter(|&seed| {
            run(seed, true, FLOWS, None).is_err_and(|(text, _)| text.contains("are not those that were sent"))
        })
        .count();
    assert!(found >= 15, "{found}");
}
