//! The memory of the caller: what C functions are given besides handles.
//!
//! Every function that takes pointers asks for a [`Caller`]. There is one in each exported function and nowhere else, so
//! the promises of that function's caller (the header's first comment) stand behind everything in here: a pointer that is
//! not NULL leads to as much memory as its type or the length beside it says, and nobody else writes to it meanwhile.
#![allow(
    unsafe_code,
    reason = "the caller's memory is reached by raw pointers; this file is where that is done"
)]

use core::ffi::{CStr, c_char, c_void};
use core::fmt::Display;
use core::marker::PhantomData;
use core::ptr;
use core::slice;
use std::ffi::CString;
use std::os::fd::{BorrowedFd, RawFd};

use crate::result::Code;

/// What helpers return: a value, or what the function is to return in its place.
pub(crate) type Outcome<T = ()> = Result<T, Code>;

/// Stands for the caller of the exported function that runs.
pub(crate) struct Caller(());

impl Caller {
    /// The caller of an exported function.
    ///
    /// # Safety
    /// To be made in an exported function alone, with nothing but its own arguments to be asked about, and to be gone when
    /// that returns.
    pub(crate) unsafe fn of_this_function() -> Self {
        Self(())
    }

    /// What a pointer and a length say. NULL is nothing, if the length says so too.
    pub(crate) fn slice<T>(&self, data: *const T, length: usize) -> Outcome<&[T]> {
        if length == 0 {
            return Ok(&[]);
        }
        check(data, length)?;
        // SAFETY: it is not NULL, aligned and not too long; the caller has promised the rest.
        Ok(unsafe { slice::from_raw_parts(data, length) })
    }

    /// The same, to be written to: octets.
    pub(crate) fn slice_mut(&self, data: *mut u8, length: usize) -> Outcome<&mut [u8]> {
        self.elements_mut(data, length)
    }

    /// The same, to be read and written to.
    #[expect(clippy::mut_from_ref, reason = "it is the caller's memory, not this one's")]
    pub(crate) fn elements_mut<T>(&self, data: *mut T, length: usize) -> Outcome<&mut [T]> {
        if length == 0 {
            return Ok(&mut []);
        }
        check(data, length)?;
        // SAFETY: as in `slice`, and the caller has promised that nobody else uses it during the call.
        Ok(unsafe { slice::from_raw_parts_mut(data, length) })
    }

    /// A descriptor of the caller's, for the length of the call.
    pub(crate) fn descriptor(&self, descriptor: RawFd) -> Outcome<BorrowedFd<'_>> {
        if descriptor < 0 {
            return Err(Code::InvalidArgument);
        }
        // SAFETY: it is not -1; the caller has promised that it stays open during the call.
        Ok(unsafe { BorrowedFd::borrow_raw(descriptor) })
    }

    /// A text that ends in NUL.
    pub(crate) fn text(&self, text: *const c_char) -> Outcome<&str> {
        if text.is_null() {
            return Err(Code::NullPointer);
        }
        // SAFETY: the caller has promised that it ends in NUL.
        unsafe { CStr::from_ptr(text) }.to_str().map_err(|_| Code::NotUtf8)
    }

    /// A text that ends in NUL, or none.
    pub(crate) fn optional_text(&self, text: *const c_char) -> Outcome<Option<&str>> {
        if text.is_null() { Ok(None) } else { self.text(text).map(Some) }
    }

    /// A value behind a pointer.
    pub(crate) fn value<T: Copy>(&self, value: *const T) -> Outcome<T> {
        Ok(self.slice(value, 1)?[0])
    }

    /// Where one value is to be written. To be asked for before anything is done.
    pub(crate) fn out<T>(&self, place: *mut T) -> Outcome<Out<'_, T>> {
        check(place, 1)?;
        Ok(Out { place, room: 1, written: 0, caller: PhantomData })
    }

    /// Where a value is to be written, unless the caller does not want it.
    pub(crate) fn optional_out<T>(&self, place: *mut T) -> Outcome<Out<'_, T>> {
        if place.is_null() { self.out_slice(place, 0) } else { self.out(place) }
    }

    /// Where up to so many values are to be written.
    pub(crate) fn out_slice<T>(&self, place: *mut T, room: usize) -> Outcome<Out<'_, T>> {
        if room > 0 {
            check(place, room)?;
        }
        Ok(Out { place, room, written: 0, caller: PhantomData })
    }

    /// A struct of options that may be of an older or a newer header: what it does not have is as by default. NULL is all
    /// by default.
    pub(crate) fn options<T: Growable>(&self, options: *const T) -> Outcome<T> {
        let mut value = T::default();
        if options.is_null() {
            return Ok(value);
        }
        let size = self.value(options.cast::<usize>())?;
        if !(size_of::<usize>()..=LARGEST).contains(&size) {
            return Err(Code::InvalidArgument);
        }
        let bytes = self.slice(options.cast::<u8>(), size)?;
        let known = size.min(size_of::<T>());
        if bytes[known..].iter().any(|&byte| byte != 0) {
            return Err(Code::InvalidArgument);
        }
        // SAFETY: both are at least so long and do not overlap, and any octets make a `T`.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), ptr::from_mut(&mut value).cast::<u8>(), known) };
        Ok(value)
    }

    /// Writes a struct as far as the caller's, which says its size, has room. The size is left as it is.
    pub(crate) fn fill<T: Growable>(&self, place: *mut T, value: &T) -> Outcome {
        let size = self.value(place.cast_const().cast::<usize>())?;
        if !(size_of::<usize>()..=LARGEST).contains(&size) {
            return Err(Code::InvalidArgument);
        }
        let from = size_of::<usize>();
        let known = size.min(size_of::<T>());
        // SAFETY: the caller has promised so much room, `value` is as long, and they do not overlap.
        unsafe {
            let source = ptr::from_ref(value).cast::<u8>().add(from);
            ptr::copy_nonoverlapping(source, place.cast::<u8>().add(from), known - from);
        }
        Ok(())
    }

    /// A text that the caller frees by `netstack_string_free`. What stands behind a NUL inside it is left out.
    pub(crate) fn string(&self, text: impl Display) -> *mut c_char {
        let mut bytes = text.to_string().into_bytes();
        bytes.truncate(bytes.iter().position(|&byte| byte == 0).unwrap_or(bytes.len()));
        CString::new(bytes).unwrap_or_default().into_raw()
    }

    /// Takes back what [`Caller::string`] gave; NULL is nothing.
    pub(crate) fn free_string(&self, text: *mut c_char) {
        if !text.is_null() {
            // SAFETY: the caller has promised that it is of `string`, and that it frees it once.
            drop(unsafe { CString::from_raw(text) });
        }
    }

    /// Gives the caller an error's words, if it wants them, and the code that stands for it. Where all is well, the words
    /// are NULL.
    pub(crate) fn tell<T, E: Display>(
        &self,
        words: *mut *mut c_char,
        code: Code,
        result: Result<T, E>,
    ) -> Outcome<T> {
        let mut out = self.optional_out(words)?;
        match result {
            Ok(value) => {
                out.put(ptr::null_mut());
                Ok(value)
            }
            Err(error) => {
                if out.has_room() {
                    out.put(self.string(error));
                }
                Err(code)
            }
        }
    }

    /// Writes a text and a NUL into a buffer, and its length without the NUL to where it is wanted.
    pub(crate) fn copy_text(
        &self,
        text: &str,
        buffer: *mut c_char,
        capacity: usize,
        length: *mut usize,
    ) -> Outcome {
        let mut buffer = self.out_slice(buffer.cast::<u8>(), capacity)?;
        self.optional_out(length)?.put(text.len());
        if capacity <= text.len() {
            return Err(Code::BufferTooSmall);
        }
        buffer.put_all(text.as_bytes());
        buffer.put(0);
        Ok(())
    }
}

/// The largest struct of options that is believed.
const LARGEST: usize = 4096;

/// A struct that begins with its size and may grow behind: every field is a number or a pointer.
pub(crate) trait Growable: Default + Copy {}

fn check<T>(data: *const T, length: usize) -> Outcome {
    let size = size_of::<T>().checked_mul(length).ok_or(Code::InvalidArgument)?;
    if data.is_null() {
        Err(Code::NullPointer)
    } else if !data.is_aligned() || isize::try_from(size).is_err() {
        Err(Code::InvalidArgument)
    } else {
        Ok(())
    }
}

/// Room in the caller's memory, which may hold anything before.
pub(crate) struct Out<'a, T> {
    place: *mut T,
    room: usize,
    written: usize,
    caller: PhantomData<&'a Caller>,
}

impl<T> Out<'_, T> {
    /// Whether another one fits.
    pub(crate) fn has_room(&self) -> bool {
        self.written < self.room
    }

    /// How many more fit.
    pub(crate) fn room(&self) -> usize {
        self.room - self.written
    }

    /// How many were written.
    pub(crate) fn written(&self) -> usize {
        self.written
    }

    /// Writes the next one, if there is room.
    pub(crate) fn put(&mut self, value: T) {
        if self.has_room() {
            // SAFETY: there is room, as the caller has promised and `check` has seen as far as it can.
            unsafe { self.place.add(self.written).write(value) };
            self.written += 1;
        }
    }
}

impl Out<'_, u8> {
    /// Writes octets, as far as there is room.
    pub(crate) fn put_all(&mut self, bytes: &[u8]) {
        let count = bytes.len().min(self.room());
        // SAFETY: as in `put`; what the caller lends for writing is not what the library reads from.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.place.add(self.written), count) };
        self.written += count;
    }
}

/// What a caller wants to be given back when it is called. It is never looked at here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Userdata(pub(crate) *mut c_void);

// SAFETY: it is a number here. Callbacks that run on another thread say so in the header, and what the number means is up
// to who gave it.
unsafe impl Send for Userdata {}
// SAFETY: as above.
unsafe impl Sync for Userdata {}

/// Calls back. Rust calls a C function here and nowhere else.
macro_rules! call_back {
    ($callback:expr, $($argument:expr),+ $(,)?) => {{
        let callback = $callback;
        // SAFETY: the caller gave it as a function of this type, to be called with what it gets here.
        unsafe { callback($($argument),+) }
    }};
}
