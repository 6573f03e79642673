//! Handles: what C holds of the things that live in here.
//!
//! # Theory of operation
//! A handle is the address of a *header*, which says of what kind it is, who uses it at the moment, and where the value
//! lies. Headers are never given back to the allocator: one whose value is gone is marked as free and waits in a queue
//! until [`QUARANTINE`] others have come after it. So a handle that was freed is told from one that lives, without a look
//! at memory that belongs to somebody else; only after so many others may its header stand for another value.
//!
//! *Who uses it.* A call that changes a value takes the header for itself, one that only looks shares it. Nobody waits: who
//! finds it taken is told so (`Busy`). That refuses calls from within a callback, and keeps two threads that use one handle
//! against the rules from harm. It costs an atomic instruction for each handle of a call to take it, and a second one only
//! where it is shared: nobody but the call that has a header for itself changes who uses it, so it leaves by a plain store.
//!
//! *Poison.* When a call panics, the values that it was changing may be half changed: their headers answer `Panic` from then
//! on, and can only be freed.
//!
//! The queue is under a lock of pthread's, not one of Rust's: so tools that watch threads of C programs, helgrind above
//! all, understand why one thread's header may become another's. Atomic variables are changed by read-modify-write
//! instructions alone wherever two threads that keep to the rules may meet, for the same reason.
#![allow(
    unsafe_code,
    reason = "handles are raw pointers that C gives back; this file is where they are followed"
)]

use core::cell::UnsafeCell;
use core::ops::{Deref, DerefMut};
use core::ptr;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicIsize, AtomicPtr, AtomicU32, Ordering};

use crate::caller::{Caller, Outcome};
use crate::result::Code;

/// Headers that are free and not used again before as many more have come.
const QUARANTINE: usize = 4096;

/// What is in front of each kind's number, so that memory of another use is hardly taken for a header.
const MARK: u32 = 0x6e73_0000;
/// The kind of a header without a value.
const FREE: u32 = MARK;
/// Who uses a header when one call has it for itself; otherwise the number of calls that look.
const WRITER: isize = -1;

/// What handles of C lead to. The type that C sees is this one's opaque name.
pub(crate) trait Opaque {
    /// What it leads to. It may be looked at by several threads at once, and go from one to another.
    type Value: Send + Sync + 'static;
    /// The kind's number: 1 to 65535, another for each.
    const KIND: u16;
}

struct Header {
    kind: AtomicU32,
    poisoned: AtomicBool,
    /// Whether the value belongs to somebody else, for as long as a callback runs.
    lent: AtomicBool,
    users: AtomicIsize,
    value: AtomicPtr<()>,
}

/// Headers that are free.
struct Queue {
    lock: UnsafeCell<libc::pthread_mutex_t>,
    free: UnsafeCell<VecDeque<&'static Header>>,
}

// SAFETY: `free` is touched with `lock` held alone, and `lock` is made for several threads.
unsafe impl Sync for Queue {}

static QUEUE: Queue =
    Queue { lock: UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER), free: UnsafeCell::new(VecDeque::new()) };

impl Queue {
    /// Runs something under the lock.
    fn with<R>(&self, work: impl FnOnce(&mut VecDeque<&'static Header>) -> R) -> R {
        struct Unlock(*mut libc::pthread_mutex_t);
        impl Drop for Unlock {
            fn drop(&mut self) {
                // SAFETY: it was locked by this thread.
                unsafe { libc::pthread_mutex_unlock(self.0) };
            }
        }
        // SAFETY: the lock was initialised, stays where it is, and is never locked twice by one thread: `work` is ours.
        unsafe { libc::pthread_mutex_lock(self.lock.get()) };
        let _unlock = Unlock(self.lock.get());
        // SAFETY: under the lock nobody else has it.
        work(unsafe { &mut *self.free.get() })
    }
}

fn kind_of<O: Opaque>() -> u32 {
    MARK | u32::from(O::KIND)
}

/// A header for a value, as a handle.
fn make<O: Opaque>(value: *mut O::Value, lent: bool) -> *mut O {
    let header = QUEUE.with(|free| {
        let header = if free.len() > QUARANTINE { free.pop_front() } else { None };
        let header = header.unwrap_or_else(|| {
            Box::leak(Box::new(Header {
                kind: AtomicU32::new(FREE),
                poisoned: AtomicBool::new(false),
                lent: AtomicBool::new(false),
                users: AtomicIsize::new(0),
                value: AtomicPtr::new(ptr::null_mut()),
            }))
        });
        header.poisoned.store(false, Ordering::Relaxed);
        header.lent.store(lent, Ordering::Relaxed);
        header.users.store(0, Ordering::Relaxed);
        header.value.store(value.cast(), Ordering::Relaxed);
        header.kind.store(kind_of::<O>(), Ordering::Relaxed);
        header
    });
    ptr::from_ref(header).cast_mut().cast()
}

/// Marks a header as one without a value and puts it at the end of the queue.
fn retire(header: &'static Header) {
    QUEUE.with(|free| {
        header.kind.store(FREE, Ordering::Relaxed);
        header.value.store(ptr::null_mut(), Ordering::Relaxed);
        free.push_back(header);
    });
}

/// The header that a handle leads to.
fn header_of<O: Opaque>(handle: *const O) -> Outcome<&'static Header> {
    if handle.is_null() {
        return Err(Code::NullPointer);
    }
    let header: *const Header = handle.cast();
    if !header.is_aligned() {
        return Err(Code::InvalidHandle);
    }
    // SAFETY: the caller of the C function has promised that it is a handle of this library or was one: then it is the
    // address of a header, and headers live forever.
    let header = unsafe { &*header };
    match header.kind.load(Ordering::Relaxed) {
        FREE => Err(Code::InvalidHandle),
        kind if kind == kind_of::<O>() => Ok(header),
        kind if kind & 0xffff_0000 == MARK => Err(Code::WrongHandle),
        _ => Err(Code::InvalidHandle),
    }
}

impl Header {
    /// Takes it for the caller alone.
    fn enter_alone(&self) -> Outcome {
        let taken = self.users.compare_exchange(0, WRITER, Ordering::Acquire, Ordering::Relaxed);
        taken.map(drop).map_err(|_| Code::Busy)
    }

    /// Shares it with others who look. What is taken is left as it is: see [`Header::leave_alone`].
    fn enter_shared(&self) -> Outcome {
        let one_more = |users: isize| (users >= 0).then_some(users + 1);
        let shared = self.users.fetch_update(Ordering::Acquire, Ordering::Relaxed, one_more);
        shared.map(drop).map_err(|_| Code::Busy)
    }

    fn check_sound(&self) -> Outcome {
        if self.poisoned.load(Ordering::Relaxed) { Err(Code::Panic) } else { Ok(()) }
    }

    /// Ends what [`Header::enter_alone`] began. Whoever finds it taken changes nothing, so there is nothing to add to.
    fn leave_alone(&self) {
        self.users.store(0, Ordering::Release);
    }

    /// Ends what [`Header::enter_shared`] began.
    fn leave_shared(&self) {
        self.users.fetch_sub(1, Ordering::Release);
    }

    /// A use that a panic ends poisons.
    fn poison_if_panicking(&self) {
        if std::thread::panicking() {
            self.poisoned.swap(true, Ordering::Relaxed);
        }
    }
}

/// A value that one call has for itself.
pub(crate) struct Writing<'a, O: Opaque> {
    header: &'static Header,
    value: &'a mut O::Value,
}

impl<O: Opaque> Deref for Writing<'_, O> {
    type Target = O::Value;

    fn deref(&self) -> &O::Value {
        self.value
    }
}

impl<O: Opaque> DerefMut for Writing<'_, O> {
    fn deref_mut(&mut self) -> &mut O::Value {
        self.value
    }
}

impl<O: Opaque> Drop for Writing<'_, O> {
    fn drop(&mut self) {
        self.header.poison_if_panicking();
        self.header.leave_alone();
    }
}

/// A value that a call looks at.
pub(crate) struct Reading<'a, O: Opaque> {
    header: &'static Header,
    value: &'a O::Value,
}

impl<O: Opaque> Deref for Reading<'_, O> {
    type Target = O::Value;

    fn deref(&self) -> &O::Value {
        self.value
    }
}

impl<O: Opaque> Drop for Reading<'_, O> {
    fn drop(&mut self) {
        self.header.poison_if_panicking();
        self.header.leave_shared();
    }
}

impl Caller {
    /// A handle for a value, which the library then keeps until [`Caller::take`].
    pub(crate) fn give<O: Opaque>(&self, value: O::Value) -> *mut O {
        make(Box::into_raw(Box::new(value)), false)
    }

    /// The value of a handle, for this call alone.
    pub(crate) fn write<O: Opaque>(&self, handle: *mut O) -> Outcome<Writing<'_, O>> {
        let header = header_of(handle.cast_const())?;
        header.enter_alone()?;
        if let Err(code) = header.check_sound() {
            header.leave_alone();
            return Err(code);
        }
        let value: *mut O::Value = header.value.load(Ordering::Relaxed).cast();
        // SAFETY: a header of this kind has a value of this type, which lives until the header is retired, for which it
        // has to be entered alone as it is now.
        Ok(Writing { header, value: unsafe { &mut *value } })
    }

    /// The value of a handle, to look at.
    pub(crate) fn read<O: Opaque>(&self, handle: *const O) -> Outcome<Reading<'_, O>> {
        let header = header_of(handle)?;
        header.enter_shared()?;
        if let Err(code) = header.check_sound() {
            header.leave_shared();
            return Err(code);
        }
        let value: *const O::Value = header.value.load(Ordering::Relaxed).cast();
        // SAFETY: as in `write`; who is in here now and later only looks.
        Ok(Reading { header, value: unsafe { &*value } })
    }

    /// The value of a handle, which is none any more from here on.
    pub(crate) fn take<O: Opaque>(&self, handle: *mut O) -> Outcome<Box<O::Value>> {
        let header = header_of(handle.cast_const())?;
        header.enter_alone()?;
        if header.lent.load(Ordering::Relaxed) {
            header.leave_alone();
            return Err(Code::Busy);
        }
        let value: *mut O::Value = header.value.load(Ordering::Relaxed).cast();
        retire(header);
        // SAFETY: `give` made it of a box, it was not lent, and the header that led to it does so no more.
        Ok(unsafe { Box::from_raw(value) })
    }

    /// The value of a handle for something that cannot be undone, unless a panic has left it half changed.
    pub(crate) fn take_sound<O: Opaque>(&self, handle: *mut O) -> Outcome<Box<O::Value>> {
        header_of(handle.cast_const())?.check_sound()?;
        self.take(handle)
    }

    /// Frees a handle and what it leads to; NULL is nothing.
    pub(crate) fn free<O: Opaque>(&self, handle: *mut O) -> Outcome {
        if handle.is_null() {
            return Ok(());
        }
        self.take(handle).map(drop)
    }
}

/// Runs something with a handle of a value that belongs to somebody else, and is no handle any more afterwards.
///
/// # Errors
/// PANIC when a call with this handle has failed inside, so that the value may be half changed.
pub(crate) fn lend<O: Opaque, R>(value: &mut O::Value, work: impl FnOnce(*mut O) -> R) -> Outcome<R> {
    struct Retire(&'static Header);
    impl Drop for Retire {
        fn drop(&mut self) {
            retire(self.0);
        }
    }
    let handle = make::<O>(value, true);
    // SAFETY: `make` returns the address of a header, which lives forever.
    let lent = Retire(unsafe { &*handle.cast_const().cast::<Header>() });
    let result = work(handle);
    lent.0.check_sound().map(|()| result)
}
