//! Lines by their figures, and a device behind a bad link.

use alloc::vec::Vec;
use core::time::Duration;

use super::*;
use crate::frame::{BATCH_FRAMES, Checksum, Frame, Offload, SegmentKind, Segmentation};

const MS: Duration = Duration::from_millis(1);

fn line(profile: LinkProfile, seed: u64) -> Line {
    Line::new(profile, Seed::from_u64(seed).rng("line"))
}

/// Offers `count` frames of 100 octets, each with its number in front, `gap` apart, and takes out what ever arrives:
/// when, and which.
fn run(line: &mut Line, count: u32, gap: Duration) -> Vec<(Duration, u32)> {
    let mut pool = FramePool::new();
    let mut arrived = Vec::new();
    let mut now = Duration::ZERO;
    let mut take = |line: &mut Line, until: Duration, pool: &mut FramePool| {
        while let Some(due) = line.next_due().filter(|&due| due <= until) {
            let before = due.checked_sub(Duration::from_nanos(1));
            assert!(before.is_none_or(|before| line.take(before).is_none()), "not before it is due");
            let frame = line.take(due).unwrap();
            arrived.push((due, u32::from_be_bytes(*frame.bytes().first_chunk().unwrap())));
            pool.recycle(frame);
            line.check().unwrap();
        }
    };
    for number in 0..count {
        take(line, now, &mut pool);
        let mut frame = pool.copy_of(&[0; 100]);
        frame.bytes_mut()[..4].copy_from_slice(&number.to_be_bytes());
        line.offer(now, frame, &mut pool);
        line.check().unwrap();
        now += gap;
    }
    take(line, Duration::MAX, &mut pool);
    assert_eq!(line.in_flight(), 0);
    arrived
}

#[test]
fn a_perfect_line_carries_everything_at_once_and_in_order() {
    let mut line = line(LinkProfile::PERFECT, 1);
    let arrived = run(&mut line, 1000, MS);
    assert!((0u32..).zip(&arrived).all(|(n, got)| *got == (MS * n, n)));
    assert_eq!(line.counters().delivered_bytes, 100_000);
}

#[test]
fn what_is_likely_happens_about_as_often() {
    let fifth = Probability::percent(20);
    let profile = LinkProfile {
        loss: fifth,
        duplication: fifth,
        corruption: fifth,
        reordering: fifth,
        ..LinkProfile::PERFECT
    };
    let mut line = line(profile, 2);
    run(&mut line, 10_000, MS);
    let c = *line.counters();
    for (what, count, of) in [
        ("lost", c.lost, c.offered),
        ("duplicated", c.duplicated, c.offered - c.lost),
        ("corrupted", c.corrupted, c.offered - c.lost),
        ("late", c.late, c.offered - c.lost),
    ] {
        assert!(count * 100 > of * 18 && count * 100 < of * 22, "{what}: {count} of {of}");
    }
}

#[test]
fn never_and_always_are_exact() {
    for (loss, lost) in [(Probability::NEVER, 0), (Probability::ALWAYS, 5000)] {
        let mut line = line(LinkProfile { loss, ..LinkProfile::PERFECT }, 3);
        run(&mut line, 5000, MS);
        assert_eq!(line.counters().lost, lost);
    }
    assert_eq!(Probability::percent(300), Probability::ALWAYS);
}

#[test]
fn jitter_varies_the_delay_and_keeps_the_order() {
    let profile = LinkProfile { jitter: 10 * MS, ..LinkProfile::delayed(5 * MS) };
    let arrived = run(&mut line(profile, 4), 1000, MS);
    assert_eq!(arrived.len(), 1000);
    let delays = (0u32..).zip(&arrived).map(|(n, (at, got))| {
        assert_eq!(*got, n);
        *at - MS * n
    });
    let (least, most) =
        delays.fold((Duration::MAX, Duration::ZERO), |(least, most), d| (least.min(d), most.max(d)));
    assert!(least >= 5 * MS && most <= 15 * MS && most - least > 5 * MS, "{least:?} {most:?}");
}

#[test]
fn late_frames_are_overtaken_and_nobody_else_waits() {
    let profile = LinkProfile {
        reordering: Probability::percent(10),
        late_by: 20 * MS,
        ..LinkProfile::delayed(5 * MS)
    };
    let mut line = line(profile, 5);
    let arrived = run(&mut line, 1000, MS);
    assert!(arrived.windows(2).any(|pair| pair[0].1 > pair[1].1));
    let on_time = arrived.iter().filter(|(at, n)| *at == MS * *n + 5 * MS).count();
    assert!(on_time >= 890 && on_time as u64 >= 1000 - line.counters().late, "{on_time}");
}

#[test]
fn a_rate_spaces_frames_and_its_queue_is_bounded() {
    // 100 octets take a millisecond, and five more frames may wait.
    let profile = LinkProfile { rate: 100_000, queue_bytes: 500, ..LinkProfile::PERFECT };
    let mut slow = line(profile, 6);
    let arrived = run(&mut slow, 100, Duration::ZERO);
    assert_eq!(
        arrived.iter().map(|(at, _)| *at).collect::<Vec<_>>(),
        (1..=5).map(|n| MS * n).collect::<Vec<_>>()
    );
    assert_eq!(slow.counters().overflowed, 95);
    // As fast as it sends, it refuses nothing.
    assert_eq!(run(&mut line(profile, 6), 100, MS).len(), 100);
    // An idle interface takes what would not fit the queue.
    let tiny = LinkProfile { queue_bytes: 1, ..profile };
    assert_eq!(run(&mut line(tiny, 6), 10, MS).len(), 10);
}

#[test]
fn what_is_under_way_is_bounded() {
    let mut pool = FramePool::new();
    let mut line = line(LinkProfile { duplication: Probability::ALWAYS, ..LinkProfile::delayed(MS) }, 7);
    for _ in 0..MAX_IN_FLIGHT {
        let frame = pool.take(10);
        line.offer(Duration::ZERO, frame, &mut pool);
    }
    assert_eq!(line.in_flight(), MAX_IN_FLIGHT);
    assert_eq!(line.counters().overflowed, MAX_IN_FLIGHT as u64 / 2);
    line.check().unwrap();
    line.cut(&mut pool);
    line.check().unwrap();
    assert_eq!(line.in_flight(), 0);
}

#[test]
fn a_damaged_frame_differs_in_one_bit() {
    let mut pool = FramePool::new();
    let profile = LinkProfile { corruption: Probability::ALWAYS, ..LinkProfile::PERFECT };
    let mut line = line(profile, 8);
    let mut places = [false; 64];
    for _ in 0..2000 {
        let frame = pool.copy_of(&[0x55; 8]);
        line.offer(Duration::ZERO, frame, &mut pool);
        let frame = line.take(Duration::ZERO).unwrap();
        let difference = u64::from_be_bytes(*frame.bytes().first_chunk().unwrap()) ^ 0x5555_5555_5555_5555;
        assert_eq!(difference.count_ones(), 1);
        places[difference.trailing_zeros() as usize] = true;
        pool.recycle(frame);
    }
    assert!(places.iter().all(|&hit| hit), "any bit may be hit");
}

/// Whoever trusts a checksum that a device has verified, or is to finish, would take a damaged frame for a good one.
#[test]
fn nobody_trusts_the_checksum_of_a_damaged_frame() {
    let mut pool = FramePool::new();
    let profile = LinkProfile { corruption: Probability::ALWAYS, ..LinkProfile::PERFECT };
    for checksum in [Checksum::Complete, Checksum::Verified, Checksum::Partial { start: 34, offset: 16 }] {
        let mut line = line(profile, 9);
        let mut frame = pool.copy_of(&[7; 80]);
        frame.bytes_mut()[12..16].copy_from_slice(&[8, 0, 0x45, 0]);
        frame.bytes_mut()[16..18].copy_from_slice(&[0, 60]);
        frame.offload = Offload { checksum, segmentation: None };
        line.offer(Duration::ZERO, frame, &mut pool);
        assert_eq!(line.take(Duration::ZERO).unwrap().offload.checksum, Checksum::Complete, "{checksum:?}");
    }
    let mut line = line(profile, 10);
    let mut frame = pool.take(3000);
    frame.offload.segmentation = Some(Segmentation { kind: SegmentKind::TcpV4, size: 1000, ecn: false });
    assert_eq!(line.offer(Duration::ZERO, frame, &mut pool), Offered::Lost);
}

#[test]
fn one_figure_does_not_reshuffle_the_others() {
    let base = LinkProfile { loss: Probability::percent(30), ..LinkProfile::PERFECT };
    let numbers = |profile| -> Vec<u32> {
        run(&mut line(profile, 11), 500, MS).into_iter().map(|(_, number)| number).collect()
    };
    let plain = numbers(base);
    assert_eq!(plain, numbers(LinkProfile { delay: MS, jitter: MS, ..base }));
    assert!(
        numbers(LinkProfile { loss: Probability::percent(60), ..base }).iter().all(|n| plain.contains(n))
    );
}

#[test]
fn the_check_finds_one_frame_lost_in_secret() {
    let mut pool = FramePool::new();
    let mut line = line(LinkProfile::delayed(MS), 12);
    for _ in 0..10 {
        let frame = pool.take(60);
        line.offer(Duration::ZERO, frame, &mut pool);
    }
    line.check().unwrap();
    line.lose_secretly().unwrap();
    let text = line.check().unwrap_err();
    assert!(text.contains("10 + 0 != 0 + 0 + 0 + 9"), "{text}");
}

/// A device that gives what it was given, as a plug that joins both wires.
#[derive(Debug, Default)]
struct Loopback {
    held: Vec<Frame>,
    gone: bool,
}

impl Device for Loopback {
    fn mtu(&self) -> usize {
        1500
    }

    fn offload(&self) -> OffloadFeatures {
        OffloadFeatures::ALL
    }

    fn recv_batch(&mut self, _: &mut FramePool, batch: &mut FrameBatch) -> Result<usize, DeviceError> {
        if self.gone && self.held.is_empty() {
            return Err(DeviceError::Gone);
        }
        let count = self.held.len().min(BATCH_FRAMES);
        self.held.drain(..count).for_each(|frame| batch.push(frame).unwrap());
        Ok(count)
    }

    fn send_batch(&mut self, _: &mut FramePool, batch: &mut FrameBatch) -> Result<Sent, DeviceError> {
        let sent = Sent { frames: batch.len() as u64, bytes: batch.bytes() as u64, refused: 0 };
        self.held.extend(batch.drain());
        Ok(sent)
    }

    #[cfg(feature = "std")]
    fn raw_fd(&self) -> Option<std::os::fd::RawFd> {
        None
    }
}

/// A clock that the test sets.
#[derive(Clone, Default)]
struct Hand(alloc::sync::Arc<core::sync::atomic::AtomicU64>);

impl Hand {
    fn set(&self, at: Duration) {
        self.0.store(u64::try_from(at.as_nanos()).unwrap(), core::sync::atomic::Ordering::Relaxed);
    }

    fn get(&self) -> Duration {
        Duration::from_nanos(self.0.load(core::sync::atomic::Ordering::Relaxed))
    }
}

fn fault(inbound: LinkProfile, outbound: LinkProfile) -> (Fault<Loopback>, Hand) {
    let hand = Hand::default();
    let clock = hand.clone();
    (Fault::new(Loopback::default(), inbound, outbound, &Seed::from_u64(1), move || clock.get()), hand)
}

#[test]
fn a_device_gets_and_gives_frames_when_they_are_due() {
    let (mut device, hand) = fault(LinkProfile::delayed(2 * MS), LinkProfile::delayed(3 * MS));
    let (mut pool, mut batch) = (FramePool::new(), FrameBatch::new());
    assert!(device.is_polled() && device.prepare_sleep() && device.wake_within().is_none());
    batch.push(pool.take(60)).unwrap();
    let sent = device.send_batch(&mut pool, &mut batch).unwrap();
    assert_eq!(sent, Sent { frames: 1, bytes: 60, refused: 0 });
    assert_eq!(device.wake_within(), Some(3 * MS));
    hand.set(2 * MS);
    assert_eq!(device.recv_batch(&mut pool, &mut batch), Ok(0));
    assert_eq!(device.wake_within(), Some(MS));
    assert!(device.prepare_sleep());
    hand.set(3 * MS);
    assert!(!device.prepare_sleep(), "a frame is due");
    assert_eq!(device.recv_batch(&mut pool, &mut batch), Ok(0));
    assert_eq!(device.wake_within(), Some(2 * MS), "it has come back and is under way to us");
    hand.set(5 * MS);
    assert_eq!(device.recv_batch(&mut pool, &mut batch), Ok(1));
    assert_eq!(device.counters().inbound.delivered, 1);
    device.check().unwrap();
}

#[test]
fn what_is_under_way_arrives_before_the_end() {
    let (mut device, hand) = fault(LinkProfile::delayed(MS), LinkProfile::PERFECT);
    let (mut pool, mut batch) = (FramePool::new(), FrameBatch::new());
    batch.push(pool.take(60)).unwrap();
    device.send_batch(&mut pool, &mut batch).unwrap();
    device.device.gone = true;
    assert_eq!(device.recv_batch(&mut pool, &mut batch), Ok(0));
    assert_eq!(device.recv_batch(&mut pool, &mut batch), Ok(0));
    hand.set(MS);
    assert_eq!(device.recv_batch(&mut pool, &mut batch), Ok(1));
    assert_eq!(device.recv_batch(&mut pool, &mut batch), Err(DeviceError::Gone));
}

#[test]
fn a_full_line_refuses_as_a_full_ring_does() {
    let slow = LinkProfile { rate: 1000, queue_bytes: 200, ..LinkProfile::PERFECT };
    let (mut device, _) = fault(LinkProfile::PERFECT, slow);
    let (mut pool, mut batch) = (FramePool::new(), FrameBatch::new());
    for _ in 0..10 {
        batch.push(pool.take(100)).unwrap();
    }
    let sent = device.send_batch(&mut pool, &mut batch).unwrap();
    assert_eq!(sent, Sent { frames: 2, bytes: 200, refused: 8 });
    assert!(batch.is_empty());
    device.check().unwrap();
}
