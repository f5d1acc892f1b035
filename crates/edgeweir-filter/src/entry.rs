//! The callbacks of proxy-wasm ABI 0.2.1 that this filter needs.
//!
//! `proxy_on_context_create`, `_on_done` and `_on_delete` are missing on purpose:
//! each costs every request, and `_on_log` comes for every stream anyway.
#![allow(unsafe_code, reason = "`export_name` is an unsafe attribute")]

use proxy_wasm::types::Action;

use crate::plugin::with_plugin;

/// Tells the host which version of the ABI this module speaks.
#[unsafe(export_name = "edgeweir_abi_version_0_2_1")]
extern "C" fn abi_version() {}

#[unsafe(export_name = "edgeweir_on_vm_start")]
extern "C" fn on_vm_start(_root: u32, _size: usize) -> u32 {
    1
}

#[unsafe(export_name = "edgeweir_on_configure")]
extern "C" fn on_configure(root: u32, size: usize) -> u32 {
    with_plugin(|plugin| u32::from(plugin.configure(root, size))).unwrap_or(0)
}

#[unsafe(export_name = "edgeweir_on_tick")]
extern "C" fn on_tick(root: u32) {
    with_plugin(|plugin| plugin.tick(root));
}

#[unsafe(export_name = "edgeweir_on_request_headers")]
extern "C" fn on_request_headers(stream: u32, _count: u32, end: u32) -> u32 {
    let action = with_plugin(|plugin| plugin.request(stream, end != 0));
    action.unwrap_or(Action::Continue) as u32
}

#[unsafe(export_name = "edgeweir_on_response_headers")]
extern "C" fn on_response_headers(stream: u32, _count: u32, end: u32) -> u32 {
    let action = with_plugin(|plugin| plugin.response(stream, end != 0));
    action.unwrap_or(Action::Continue) as u32
}

#[unsafe(export_name = "edgeweir_on_response_body")]
extern "C" fn on_response_body(stream: u32, size: usize, end: u32) -> u32 {
    with_plugin(|plugin| plugin.body(stream, size, end != 0));
    Action::Continue as u32
}

#[unsafe(export_name = "edgeweir_on_response_trailers")]
extern "C" fn on_response_trailers(stream: u32, _count: u32) -> u32 {
    with_plugin(|plugin| plugin.body(stream, 0, true));
    Action::Continue as u32
}

#[unsafe(export_name = "edgeweir_on_log")]
extern "C" fn on_log(stream: u32) {
    with_plugin(|plugin| plugin.finished(stream));
}

#[unsafe(export_name = "edgeweir_on_http_call_response")]
extern "C" fn on_http_call_response(
    root: u32,
    token: u32,
    headers: u32,
    body_size: usize,
    _trailers: u32,
) {
    with_plugin(|plugin| plugin.called(root, token, headers, body_size));
}

#[unsafe(export_name = "edgeweir_on_queue_ready")]
extern "C" fn on_queue_ready(root: u32, queue: u32) {
    with_plugin(|plugin| plugin.message(root, queue));
}
