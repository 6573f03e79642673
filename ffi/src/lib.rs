//! netstack: an embeddable network stack. Bridge, ARP and neighbour discovery, routing, connection tracking, address
//! translation and load balancing behind one object, a switch, which takes in batches of frames and a time and gives back
//! batches of frames. It does no I/O and reads no clock unless it is told to.
//!
//! THREADS. A handle may be used by one thread at a time, and moved from one to another. Functions that take a pointer to a
//! const handle may run at the same time as each other, on any threads. Whoever breaks these rules is told BUSY, or finds
//! that he was lucky. The library starts no thread but those of netstack_driver_start, one each, and installs no signal
//! handler and no logger.
//!
//! CALLBACKS run within the call that they were given to, unless it is said otherwise, on the same thread. The handles of
//! that call are in use meanwhile: every function answers BUSY for them. A callback must return; it must not throw, nor
//! jump out.
//!
//! OWNERSHIP. Every handle that a function writes to an argument is the caller's, who frees it with the function of its
//! kind; free functions take NULL as well. Arguments are read during the call and not kept, handles aside of which it is
//! said that they are taken: these are the library's once the call has succeeded. Texts that a function writes as `char **`
//! are freed with netstack_string_free. A handle that was freed or taken is recognised (INVALID_HANDLE), as one of another
//! kind is (WRONG_HANDLE), for as long as not some thousand others were freed after it; do not rely on it.
//!
//! BORROWED BUFFERS, the views of a batch, are good until the next call with that batch.
//!
//! TIME is the caller's: `now_us` is in microseconds since a moment of his choice, the same for all calls with one object,
//! and never goes back. NETSTACK_NEVER stands for no deadline. A driver has a clock of its own.
//!
//! CHANCE is the caller's too: 32 octets as a seed, and the same seed and calls give the same frames, to the octet. A seed
//! that is NULL is drawn from the operating system.
//!
//! ERRORS. Functions return a netstack_result, OK or a code that says what was wrong; then nothing was done, and nothing
//! written but what the function names. Where there is an argument `char **error`, it may be NULL; otherwise it gets words
//! for people, or NULL when all is well. If the library itself fails (a bug), words go to standard error, the call returns
//! PANIC, and so does every later call with the handles that this one was changing; free them. Nothing else is ever written
//! anywhere but where it is asked for.
//!
//! STRUCTS that begin with `struct_size` may grow in later versions: set it to the size that your compiler knows, or let
//! the init function do so. Zeros behind what this version knows are ignored, anything else there is refused.
//!
//! ABI. There is no promise before version 1.0: the shared library carries its whole version in its name, so that a program
//! runs with the version that it was built with.
#![allow(
    unsafe_code,
    reason = "a C ABI cannot be exported without it; `tests/tidy.rs` says where more than that is done"
)]
#![allow(non_camel_case_types, reason = "these are names in C")]
#![allow(
    clippy::missing_safety_doc,
    reason = "one contract holds for every function: the documentation above"
)]

#[macro_use]
pub mod caller;
#[macro_use]
pub mod panic;

pub mod result;

pub mod address;
pub mod batch;
pub mod capture;
pub mod config;
pub mod connections;
pub mod counters;
pub mod device;
pub mod driver;
pub mod event;
pub mod frames;
pub mod handle;
pub mod host;
pub mod host_event;
pub mod maglev;
pub mod nat;
pub mod ports;
pub mod rules;
pub mod services;
pub mod socket;
pub mod switch;
pub mod text;
pub mod trace;
pub mod version;
