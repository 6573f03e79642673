//! Which version it is.

use core::ffi::{CStr, c_char};

const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(text) => text,
    Err(_) => panic!("a version holds no NUL"),
};

/// The version of the linked library, such as "0.1.0": ends in NUL, static, never to be freed. NETSTACK_VERSION is that of
/// the header.
// SAFETY: the name carries the library's prefix, so it clashes with no other symbol.
#[unsafe(no_mangle)]
pub extern "C" fn netstack_version() -> *const c_char {
    VERSION.as_ptr()
}
