//! Frames in buffers of the library, lent to the caller: nothing is copied on their way through a switch.

use netstack::frame::{BATCH_FRAMES, Checksum, FrameBatch, FramePool, MAX_FRAME, SegmentKind, Segmentation};

use crate::caller::{Caller, Out, Outcome};
use crate::handle::Opaque;
use crate::result::{Code, found, netstack_result};

/// Most frames that a batch holds. It also counts as full once it holds 48 KiB.
pub const NETSTACK_BATCH_FRAMES: usize = 64;
const _: () = assert!(NETSTACK_BATCH_FRAMES == BATCH_FRAMES);

/// Frames on their way between devices, switches, hosts and the caller, and free buffers for more. One that is used again
/// and again allocates nothing.
pub struct netstack_batch(());

/// See [`netstack_batch`].
#[derive(Debug, Default)]
pub struct Batch {
    pub(crate) frames: FrameBatch,
    pub(crate) pool: FramePool,
}

impl Opaque for netstack_batch {
    type Value = Batch;
    const KIND: u16 = 2;
}

impl Batch {
    /// Gives the buffers of all frames back.
    pub(crate) fn clear(&mut self) {
        self.pool.recycle_all(&mut self.frames);
    }
}

/// A frame in a buffer of the library: good until the next call with its batch.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct netstack_view {
    /// Its octets, from the Ethernet header on, without FCS.
    pub data: *mut u8,
    /// How many.
    pub len: usize,
}

/// Checksum and segmentation state of a frame: what a virtio-net header says.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct netstack_offload {
    /// 0: the L4 checksum is complete. 1: a device has verified it. 2: the field holds the sum of the pseudo-header, and
    /// the sum from `checksum_start` on is to be added.
    pub checksum: u8,
    /// 0: one packet. 1, 2: a TCP super-frame over IPv4, IPv6. 3: one of UDP.
    pub segmentation: u8,
    /// Whether CWR is to be set on the first segment alone; 0 or 1.
    pub ecn: u8,
    /// Where summing begins, in octets from the frame's first.
    pub checksum_start: u16,
    /// Where the checksum is, in octets from there.
    pub checksum_offset: u16,
    /// Octets of payload in each segment of a super-frame.
    pub segment_size: u16,
}

/// A batch without frames.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_batch_new(batch: *mut *mut netstack_batch) -> netstack_result {
    boundary!(caller, {
        let mut out = caller.out(batch)?;
        out.put(caller.give(Batch::default()));
        Ok(())
    })
}

/// Frees a batch with its frames; NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_batch_free(batch: *mut netstack_batch) -> netstack_result {
    boundary!(caller, { caller.free(batch) })
}

/// Adds up to `count` frames of `length` octets each, for the caller to write, and says in `views` where they are and in
/// `added` how many there are: fewer when the batch is full. What they hold at first means nothing.
/// TOO_LONG: a frame has at most 65600 octets.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_batch_reserve(
    batch: *mut netstack_batch,
    count: usize,
    length: usize,
    views: *mut netstack_view,
    added: *mut usize,
) -> netstack_result {
    boundary!(caller, {
        let mut added = caller.out(added)?;
        let mut views = caller.out_slice(views, count)?;
        let mut batch = caller.write(batch)?;
        if length > MAX_FRAME {
            return Err(Code::TooLong);
        }
        let Batch { frames, pool } = &mut *batch;
        let before = frames.len();
        added.put(pool.fill(frames, count, length));
        show(frames.bytes_mut().skip(before), &mut views);
        Ok(())
    })
}

/// Adds a copy of a frame.
/// TOO_LONG: a frame has at most 65600 octets. TABLE_FULL: the batch is full.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_batch_push(
    batch: *mut netstack_batch,
    data: *const u8,
    length: usize,
) -> netstack_result {
    boundary!(caller, {
        let mut batch = caller.write(batch)?;
        let bytes = caller.slice(data, length)?;
        if length > MAX_FRAME {
            return Err(Code::TooLong);
        }
        let frame = batch.pool.copy_of(bytes);
        if let Err(frame) = batch.frames.push(frame) {
            batch.pool.recycle(frame);
            return Err(Code::TableFull);
        }
        Ok(())
    })
}

/// Makes a frame shorter, or longer as far as its buffer goes; what is new in it means nothing.
/// NOT_FOUND: there is no frame at this place. TOO_LONG: its buffer is shorter.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_batch_set_length(
    batch: *mut netstack_batch,
    index: usize,
    length: usize,
) -> netstack_result {
    boundary!(caller, {
        let mut batch = caller.write(batch)?;
        if index >= batch.frames.len() {
            return Err(Code::NotFound);
        }
        if batch.frames.set_len(index, length) { Ok(()) } else { Err(Code::TooLong) }
    })
}

/// Says where the frames are, in order, for as many as `capacity`; `count` gets how many there are.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_batch_frames(
    batch: *mut netstack_batch,
    views: *mut netstack_view,
    capacity: usize,
    count: *mut usize,
) -> netstack_result {
    boundary!(caller, {
        let mut count = caller.out(count)?;
        let mut views = caller.out_slice(views, capacity)?;
        let mut batch = caller.write(batch)?;
        count.put(batch.frames.len());
        show(batch.frames.bytes_mut(), &mut views);
        Ok(())
    })
}

/// How many frames there are.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_batch_count(
    batch: *const netstack_batch,
    count: *mut usize,
) -> netstack_result {
    boundary!(caller, {
        let mut out = caller.out(count)?;
        out.put(caller.read(batch)?.frames.len());
        Ok(())
    })
}

/// Takes all frames out and keeps their buffers for the next.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_batch_clear(batch: *mut netstack_batch) -> netstack_result {
    boundary!(caller, {
        caller.write(batch)?.clear();
        Ok(())
    })
}

/// What is known of a frame's checksum, and whether it is a super-frame.
/// NOT_FOUND: there is no frame at this place.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_batch_offload(
    batch: *const netstack_batch,
    index: usize,
    offload: *mut netstack_offload,
) -> netstack_result {
    boundary!(caller, {
        let mut out = caller.out(offload)?;
        let batch = caller.read(batch)?;
        let frame = found(batch.frames.iter().nth(index))?;
        let mut offload = netstack_offload::default();
        match frame.offload.checksum {
            Checksum::Complete => {}
            Checksum::Verified => offload.checksum = 1,
            Checksum::Partial { start, offset } => {
                offload.checksum = 2;
                offload.checksum_start = start;
                offload.checksum_offset = offset;
            }
        }
        if let Some(segmentation) = frame.offload.segmentation {
            offload.segmentation = match segmentation.kind {
                SegmentKind::TcpV4 => 1,
                SegmentKind::TcpV6 => 2,
                SegmentKind::Udp => 3,
            };
            offload.segment_size = segmentation.size;
            offload.ecn = segmentation.ecn.into();
        }
        out.put(offload);
        Ok(())
    })
}

/// Says what is known of a frame's checksum, and whether it is a super-frame. A frame that is new has a complete checksum
/// and is none.
/// NOT_FOUND: there is no frame at this place. INVALID_ARGUMENT: a number that means nothing, or segments of 0 octets.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_batch_set_offload(
    batch: *mut netstack_batch,
    index: usize,
    offload: *const netstack_offload,
) -> netstack_result {
    boundary!(caller, {
        let given = caller.value(offload)?;
        let mut batch = caller.write(batch)?;
        let frame = found(batch.frames.offload_mut(index))?;
        let checksum = match given.checksum {
            0 => Checksum::Complete,
            1 => Checksum::Verified,
            2 => Checksum::Partial { start: given.checksum_start, offset: given.checksum_offset },
            _ => return Err(Code::InvalidArgument),
        };
        let kind = match given.segmentation {
            0 => None,
            1 => Some(SegmentKind::TcpV4),
            2 => Some(SegmentKind::TcpV6),
            3 => Some(SegmentKind::Udp),
            _ => return Err(Code::InvalidArgument),
        };
        if kind.is_some() && given.segment_size == 0 {
            return Err(Code::InvalidArgument);
        }
        frame.checksum = checksum;
        frame.segmentation =
            kind.map(|kind| Segmentation { kind, size: given.segment_size, ecn: given.ecn != 0 });
        Ok(())
    })
}

/// Where the frames are, from this one on.
fn show<'a>(frames: impl Iterator<Item = &'a mut [u8]>, views: &mut Out<'_, netstack_view>) {
    for bytes in frames.take(views.room()) {
        views.put(netstack_view { data: bytes.as_mut_ptr(), len: bytes.len() });
    }
}

/// A batch that is to be filled, which must be empty.
pub(crate) fn check_empty(batch: &Batch) -> Outcome {
    if batch.frames.is_empty() { Ok(()) } else { Err(Code::InvalidArgument) }
}

/// Puts copies of frames into the batch until it is full; returns how many of them.
///
/// # Errors
/// TOO_LONG at one that no buffer holds; those before it are in the batch.
pub(crate) fn copy_in(
    caller: &Caller,
    batch: &mut FrameBatch,
    pool: &mut FramePool,
    frames: &[crate::frames::netstack_frame],
) -> (usize, Outcome) {
    for (at, frame) in frames.iter().enumerate() {
        if batch.is_full() {
            return (at, Ok(()));
        }
        let bytes = match caller.slice(frame.data, frame.len) {
            Ok(bytes) if bytes.len() <= MAX_FRAME => bytes,
            Ok(_) => return (at, Err(Code::TooLong)),
            Err(code) => return (at, Err(code)),
        };
        let refused = batch.push(pool.copy_of(bytes));
        debug_assert!(refused.is_ok(), "the batch was not full");
    }
    (frames.len(), Ok(()))
}
