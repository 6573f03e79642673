//! Texts that the library gives away.

use core::ffi::c_char;

use crate::result::netstack_result;

/// Frees a text that a function of this library gave away as `char **`. NULL is allowed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_string_free(text: *mut c_char) -> netstack_result {
    boundary!(caller, {
        caller.free_string(text);
        Ok(())
    })
}
