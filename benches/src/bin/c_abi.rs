//! `c_abi TURN.SO ROUNDS`: what a frame costs through the C API, beside the same frame through the Rust API, in turns.
//! `c_abi/run` builds what it loads.
#![allow(unsafe_code, reason = "the other side is C")]
#![expect(clippy::print_stdout, reason = "it tells what it measured")]

use std::ffi::{CString, c_char, c_void};

use netstack::addr::MacAddr;
use netstack::frame::OffloadFeatures;
use netstack::switch::Switch;
use vswitch_benches::compare::take_turns;
use vswitch_benches::work::{TURN, Work};
use vswitch_benches::{BATCH, Bed, FOREIGN, STATIONS, Sample, config, ethernet, mac, tcp};

/// Batches in a turn.
const BATCHES: u64 = TURN as u64 / BATCH;

type New = unsafe extern "C" fn(*const c_char, usize) -> *mut c_void;
type Turn = unsafe extern "C" fn(*mut c_void, u16, *const u8, usize, usize);
type Received = unsafe extern "C" fn(*const c_void) -> u64;

/// The functions of the shared object.
#[derive(Clone, Copy)]
struct Functions {
    new: New,
    lent: Turn,
    copied: Turn,
    received: Received,
}

impl Functions {
    fn load(path: &str) -> Self {
        let path = CString::new(path).expect("a path has no NUL");
        // SAFETY: the path ends in NUL; what the object does as it is loaded is what `c_abi/run` has built.
        let object = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
        assert!(!object.is_null(), "the shared object can be loaded");
        let find = |name: &str| {
            let name = CString::new(name).expect("a name has no NUL");
            // SAFETY: the object is loaded and stays so, and the name ends in NUL.
            let symbol = unsafe { libc::dlsym(object, name.as_ptr()) };
            assert!(!symbol.is_null(), "{name:?} is in the shared object");
            symbol
        };
        // SAFETY: these are the types with which `c_abi/turn.c` defines them.
        unsafe {
            Self {
                new: std::mem::transmute::<*mut c_void, New>(find("bed_new")),
                lent: std::mem::transmute::<*mut c_void, Turn>(find("bed_turn_lent")),
                copied: std::mem::transmute::<*mut c_void, Turn>(find("bed_turn_copied")),
                received: std::mem::transmute::<*mut c_void, Received>(find("bed_received")),
            }
        }
    }
}

/// Frames by way of C.
struct InC {
    functions: Functions,
    turn: Turn,
    bed: *mut c_void,
    sample: Sample,
    /// Frames handed in, and those that came out before.
    sent: u64,
    before: u64,
}

impl InC {
    fn new(functions: Functions, turn: Turn, sample: &Sample) -> Self {
        let json = serde_json::to_string(&config(OffloadFeatures::NONE)).expect("it can be written");
        // SAFETY: the text is as long as it is said to be.
        let bed = unsafe { (functions.new)(json.as_ptr().cast(), json.len()) };
        // Foreign stations are learned, as in `Bed::switch`.
        for port in 2 * STATIONS..2 * STATIONS + FOREIGN {
            let hello = ethernet(port, MacAddr::BROADCAST, 60).bytes;
            // SAFETY: `bed_new` made it, and the frame is as long as it is said to be.
            unsafe { (functions.lent)(bed, port, hello.as_ptr(), hello.len(), 1) };
        }
        // SAFETY: `bed_new` made it.
        let before = unsafe { (functions.received)(bed) };
        Self { functions, turn, bed, sample: sample.clone(), sent: 0, before }
    }
}

impl Work for InC {
    fn turn(&mut self) {
        let (port, bytes) = (self.sample.port.0, &self.sample.bytes);
        let frames = usize::try_from(BATCH).expect("a few");
        for _ in 0..BATCHES {
            // SAFETY: `bed_new` made it, nobody else has it, and the sample is as long as it is said to be.
            unsafe { (self.turn)(self.bed, port, bytes.as_ptr(), bytes.len(), frames) };
            self.sent += BATCH;
        }
    }
}

impl Drop for InC {
    fn drop(&mut self) {
        // SAFETY: `bed_new` made it.
        let received = unsafe { (self.functions.received)(self.bed) };
        assert_eq!(received - self.before, self.sent, "every frame came out");
    }
}

/// Frames by way of Rust.
struct InRust {
    bed: Bed<Switch>,
    sample: Sample,
}

impl Work for InRust {
    fn turn(&mut self) {
        for _ in 0..BATCHES {
            self.bed.turn(&self.sample, BATCH);
        }
    }
}

impl Drop for InRust {
    fn drop(&mut self) {
        self.bed.check(1);
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [path, rounds] = &arguments[..] else { panic!("usage: c_abi TURN.SO ROUNDS") };
    let rounds: usize = rounds.parse().expect("a number of rounds");
    let functions = Functions::load(path);
    println!("{:24} {:>9} {:>9} {:>9} {:>12}", "ns for a frame", "fastest", "tenth", "median", "frames/s");
    for (name, sample) in [
        ("routed, 64 octets", tcp(0, 9, false, 64)),
        ("routed, 1514 octets", tcp(0, 9, false, 1514)),
        ("bridged, 64 octets", ethernet(16, mac(17), 64)),
    ] {
        let rust = InRust { bed: Bed::switch(OffloadFeatures::NONE), sample: sample.clone() };
        let mut works: Vec<Box<dyn Work>> = vec![
            Box::new(rust),
            Box::new(InC::new(functions, functions.lent, &sample)),
            Box::new(InC::new(functions, functions.copied, &sample)),
        ];
        let times = take_turns(&mut works, 0..rounds);
        println!("{name}");
        for (way, of) in ["  Rust", "  C, lent buffers", "  C, copied"].iter().zip(&times) {
            // How many frames go through in the time in which as many hundredths go through Rust's.
            let frames = 100.0 / of.beside(&times[0]).quantile(1, 2);
            println!(
                "{way:24} {:9.1} {:9.1} {:9.1} {frames:10.1} %",
                of.quantile(0, 1),
                of.quantile(1, 10),
                of.quantile(1, 2),
            );
        }
    }
}
