//! The boundary that no panic crosses.
#![allow(unsafe_code, reason = "every exported function says here that it is one")]

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::caller::Outcome;
use crate::result::Code;

/// Runs the body of an exported function. A panic becomes [`Code::Panic`]; handles in use are poisoned as it passes them.
pub(crate) fn catch(body: impl FnOnce() -> Outcome) -> Code {
    match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(())) => Code::Ok,
        Ok(Err(code)) => code,
        Err(panic) => {
            // What was thrown may panic again as it is dropped; then it is left where it is.
            drop(catch_unwind(AssertUnwindSafe(|| drop(panic))));
            Code::Panic
        }
    }
}

/// The body of an exported function, which must be an `unsafe extern "C" fn`: gives it a [`Caller`](crate::caller::Caller)
/// by this name and makes of what it returns a result.
macro_rules! boundary {
    ($caller:ident, $body:block) => {
        $crate::panic::catch(|| {
            // SAFETY: this stands in an exported function, whose caller has promised what the header says; the value
            // does not leave this block.
            let $caller = &unsafe { $crate::caller::Caller::of_this_function() };
            $body
        })
    };
}

/// Exported for tests alone: panics with a switch in hand.
///
/// cbindgen:ignore
#[cfg(feature = "test-panic")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_test_panic(
    sw: *mut crate::switch::netstack_switch,
) -> crate::result::netstack_result {
    boundary!(caller, {
        let _switch = caller.write(sw)?;
        panic!("asked for by a test")
    })
}
