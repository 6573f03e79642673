//! Why a frame would go where it would go.

use core::ffi::c_char;

use netstack::addr::PortId;

use crate::result::{Code, netstack_result};
use crate::switch::{netstack_switch, time};

/// Says where a frame from a port would go and why, a line for each decision. Nothing is changed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_switch_trace_text(
    sw: *const netstack_switch,
    now_us: u64,
    port: u16,
    data: *const u8,
    length: usize,
    text: *mut *mut c_char,
) -> netstack_result {
    boundary!(caller, {
        let mut out = caller.out(text)?;
        let frame = caller.slice(data, length)?;
        let state = caller.read(sw)?;
        out.put(caller.string(state.switch.explain(time(now_us), PortId(port), frame)));
        Ok(())
    })
}

/// The same as JSON: "steps", each with "stage" and "text", "outcome", and "ports".
#[unsafe(no_mangle)]
pub unsafe extern "C" fn netstack_switch_trace_json(
    sw: *const netstack_switch,
    now_us: u64,
    port: u16,
    data: *const u8,
    length: usize,
    json: *mut *mut c_char,
) -> netstack_result {
    boundary!(caller, {
        let mut out = caller.out(json)?;
        let frame = caller.slice(data, length)?;
        let state = caller.read(sw)?;
        let trace = state.switch.explain(time(now_us), PortId(port), frame);
        let text = serde_json::to_string(&trace).map_err(|_| Code::InvalidJson)?;
        out.put(caller.string(text));
        Ok(())
    })
}
