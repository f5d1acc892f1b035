//! The proxy-wasm ABI 0.2.1, and nothing else in this crate knows it.
//!
//! Written here and not taken from the SDK for three reasons, each seen in Envoy
//! 1.40: the SDK's string getters panic on a header that is not UTF-8, its other
//! calls panic on any status they do not expect, and a panic takes the worker's
//! filter down for every later request. Here everything is bytes, every status
//! that is not "ok" is an [`Error`], and a failed allocation is reported to the
//! host as such. This is the only file with `unsafe` and `extern`.
#![allow(unsafe_code, reason = "the one file that talks to the host through pointers")]

use core::ptr;

use edgeweir::time::{Instant, UnixTime};
use proxy_wasm::types::{BufferType, LogLevel, MapType, MetricType};

/// A host call that did not succeed, with the host's status code.
///
/// The codes are those of the ABI: 1 not found, 2 bad argument, 3 serialization
/// failure, 7 empty, 8 compare-and-swap mismatch, 10 internal failure ...
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Error(pub(crate) u32);

impl Error {
    /// The thing asked for is not there.
    pub(crate) const NOT_FOUND: Self = Self(1);
    /// The shared value changed since it was read.
    pub(crate) const CAS_MISMATCH: Self = Self(8);
}

mod abi {
    #[link(wasm_import_module = "env")]
    unsafe extern "C" {
        pub(super) fn proxy_log(level: u32, message: *const u8, size: usize) -> u32;
        pub(super) fn proxy_set_tick_period_milliseconds(period: u32) -> u32;
        pub(super) fn proxy_get_buffer_bytes(
            buffer: u32,
            start: usize,
            max: usize,
            data: *mut *mut u8,
            size: *mut usize,
        ) -> u32;
        pub(super) fn proxy_get_header_map_pairs(
            map: u32,
            data: *mut *mut u8,
            size: *mut usize,
        ) -> u32;
        pub(super) fn proxy_set_header_map_pairs(map: u32, data: *const u8, size: usize) -> u32;
        pub(super) fn proxy_replace_header_map_value(
            map: u32,
            name: *const u8,
            name_size: usize,
            value: *const u8,
            value_size: usize,
        ) -> u32;
        pub(super) fn proxy_add_header_map_value(
            map: u32,
            name: *const u8,
            name_size: usize,
            value: *const u8,
            value_size: usize,
        ) -> u32;
        pub(super) fn proxy_remove_header_map_value(
            map: u32,
            name: *const u8,
            name_size: usize,
        ) -> u32;
        pub(super) fn proxy_get_property(
            path: *const u8,
            path_size: usize,
            data: *mut *mut u8,
            size: *mut usize,
        ) -> u32;
        pub(super) fn proxy_get_shared_data(
            key: *const u8,
            key_size: usize,
            data: *mut *mut u8,
            size: *mut usize,
            cas: *mut u32,
        ) -> u32;
        pub(super) fn proxy_set_shared_data(
            key: *const u8,
            key_size: usize,
            value: *const u8,
            value_size: usize,
            cas: u32,
        ) -> u32;
        pub(super) fn proxy_register_shared_queue(
            name: *const u8,
            name_size: usize,
            id: *mut u32,
        ) -> u32;
        pub(super) fn proxy_enqueue_shared_queue(id: u32, value: *const u8, size: usize) -> u32;
        pub(super) fn proxy_dequeue_shared_queue(
            id: u32,
            data: *mut *mut u8,
            size: *mut usize,
        ) -> u32;
        pub(super) fn proxy_continue_stream(stream: u32) -> u32;
        pub(super) fn proxy_send_local_response(
            status: u32,
            details: *const u8,
            details_size: usize,
            body: *const u8,
            body_size: usize,
            headers: *const u8,
            headers_size: usize,
            grpc_status: i32,
        ) -> u32;
        pub(super) fn proxy_http_call(
            cluster: *const u8,
            cluster_size: usize,
            headers: *const u8,
            headers_size: usize,
            body: *const u8,
            body_size: usize,
            trailers: *const u8,
            trailers_size: usize,
            timeout_ms: u32,
            token: *mut u32,
        ) -> u32;
        pub(super) fn proxy_set_effective_context(context: u32) -> u32;
        pub(super) fn proxy_define_metric(
            kind: u32,
            name: *const u8,
            name_size: usize,
            id: *mut u32,
        ) -> u32;
        pub(super) fn proxy_increment_metric(id: u32, offset: i64) -> u32;
    }

    #[link(wasm_import_module = "wasi_snapshot_preview1")]
    unsafe extern "C" {
        pub(super) fn clock_time_get(clock: u32, precision: u64, time: *mut u64) -> u32;
        pub(super) fn random_get(data: *mut u8, size: usize) -> u32;
    }
}

/// Gives the host `size` bytes to write into; null when there is no memory.
///
/// The host asks for each value that it returns; [`take`] gets it back.
#[unsafe(export_name = "edgeweir_on_memory_allocate")]
extern "C" fn on_memory_allocate(size: usize) -> *mut u8 {
    let mut bytes: Vec<u8> = Vec::new();
    // One byte at the least: the pointer of an empty vector is not an allocation.
    if bytes.try_reserve_exact(size.max(1)).is_err() {
        return ptr::null_mut();
    }
    let data = bytes.as_mut_ptr();
    core::mem::forget(bytes);
    data
}

/// Takes over bytes that the host wrote into memory from [`on_memory_allocate`].
fn take(data: *mut u8, size: usize) -> Vec<u8> {
    if data.is_null() {
        return Vec::new();
    }
    // SAFETY: the host fills exactly what `on_memory_allocate(size)` reserved, with
    // a capacity of `size.max(1)`, and gives each allocation back once.
    unsafe { Vec::from_raw_parts(data, size, size.max(1)) }
}

fn check(status: u32) -> Result<(), Error> {
    if status == 0 { Ok(()) } else { Err(Error(status)) }
}

/// Calls `get`, which writes a pointer and a size, and takes what it returned.
fn fetch(get: impl FnOnce(*mut *mut u8, *mut usize) -> u32) -> Result<Vec<u8>, Error> {
    let (mut data, mut size) = (ptr::null_mut(), 0);
    check(get(&raw mut data, &raw mut size))?;
    Ok(take(data, size))
}

/// Writes a line to Envoy's log; a host that refuses is not asked again.
pub(crate) fn log(level: LogLevel, message: &str) {
    // SAFETY: pointer and size are of one string, which the host only reads.
    let _ = unsafe { abi::proxy_log(level as u32, message.as_ptr(), message.len()) };
}

/// Asks for a call of `on_tick` every `period_ms` milliseconds.
pub(crate) fn set_tick_period(period_ms: u32) -> Result<(), Error> {
    // SAFETY: no pointers.
    check(unsafe { abi::proxy_set_tick_period_milliseconds(period_ms) })
}

/// Up to `max` bytes of a buffer.
pub(crate) fn buffer(buffer: BufferType, max: usize) -> Result<Vec<u8>, Error> {
    // SAFETY: the out pointers are of locals that outlive the call.
    fetch(|data, size| unsafe { abi::proxy_get_buffer_bytes(buffer as u32, 0, max, data, size) })
}

/// A whole header map, still in the host's encoding: see [`pairs`].
pub(crate) fn header_map(map: MapType) -> Result<Vec<u8>, Error> {
    // SAFETY: as in `buffer`.
    fetch(|data, size| unsafe { abi::proxy_get_header_map_pairs(map as u32, data, size) })
}

/// Replaces a whole header map.
pub(crate) fn set_header_map(map: MapType, pairs: &[(&[u8], &[u8])]) -> Result<(), Error> {
    let bytes = encode(pairs);
    // SAFETY: pointer and size are of one slice, which the host only reads.
    check(unsafe { abi::proxy_set_header_map_pairs(map as u32, bytes.as_ptr(), bytes.len()) })
}

/// Sets one header: all its values are replaced by this one.
pub(crate) fn replace_header(map: MapType, name: &[u8], value: &[u8]) -> Result<(), Error> {
    // SAFETY: as in `set_header_map`.
    check(unsafe {
        abi::proxy_replace_header_map_value(
            map as u32,
            name.as_ptr(),
            name.len(),
            value.as_ptr(),
            value.len(),
        )
    })
}

/// Adds one header line.
pub(crate) fn add_header(map: MapType, name: &[u8], value: &[u8]) -> Result<(), Error> {
    // SAFETY: as in `set_header_map`.
    check(unsafe {
        abi::proxy_add_header_map_value(
            map as u32,
            name.as_ptr(),
            name.len(),
            value.as_ptr(),
            value.len(),
        )
    })
}

/// Removes a header, all its lines.
pub(crate) fn remove_header(map: MapType, name: &[u8]) -> Result<(), Error> {
    // SAFETY: as in `set_header_map`.
    check(unsafe { abi::proxy_remove_header_map_value(map as u32, name.as_ptr(), name.len()) })
}

/// A property; the parts of its path are joined by NUL.
pub(crate) fn property(path: &[u8]) -> Result<Vec<u8>, Error> {
    // SAFETY: as in `buffer`; the path is only read.
    fetch(|data, size| unsafe { abi::proxy_get_property(path.as_ptr(), path.len(), data, size) })
}

/// A shared value and the number that a [`set_shared`] of it must carry.
pub(crate) fn shared(key: &[u8]) -> Result<(Vec<u8>, u32), Error> {
    let mut cas = 0;
    // SAFETY: as in `property`; `cas` outlives the call.
    let value = fetch(|data, size| unsafe {
        abi::proxy_get_shared_data(key.as_ptr(), key.len(), data, size, &raw mut cas)
    })?;
    Ok((value, cas))
}

/// Writes a shared value if it has not changed since `cas` was read; zero always writes.
pub(crate) fn set_shared(key: &[u8], value: &[u8], cas: u32) -> Result<(), Error> {
    // SAFETY: as in `set_header_map`.
    check(unsafe {
        abi::proxy_set_shared_data(key.as_ptr(), key.len(), value.as_ptr(), value.len(), cas)
    })
}

/// Makes this VM the owner of the queue of that name; gives the queue's id.
pub(crate) fn register_queue(name: &[u8]) -> Result<u32, Error> {
    let mut id = 0;
    // SAFETY: `id` outlives the call.
    check(unsafe { abi::proxy_register_shared_queue(name.as_ptr(), name.len(), &raw mut id) })?;
    Ok(id)
}

/// Appends a message to a queue of any VM.
pub(crate) fn enqueue(id: u32, message: &[u8]) -> Result<(), Error> {
    // SAFETY: as in `set_header_map`.
    check(unsafe { abi::proxy_enqueue_shared_queue(id, message.as_ptr(), message.len()) })
}

/// The next message of a queue.
pub(crate) fn dequeue(id: u32) -> Result<Vec<u8>, Error> {
    // SAFETY: as in `buffer`.
    fetch(|data, size| unsafe { abi::proxy_dequeue_shared_queue(id, data, size) })
}

/// Lets the paused request of the effective context go on.
pub(crate) fn continue_request() -> Result<(), Error> {
    // SAFETY: no pointers.
    check(unsafe { abi::proxy_continue_stream(0) })
}

/// Answers the request of the effective context.
///
/// `details` shows up in access logs as `%RESPONSE_CODE_DETAILS%`.
pub(crate) fn send_response(
    status: u16,
    details: &str,
    headers: &[(&[u8], &[u8])],
    body: &[u8],
    grpc_status: i32,
) -> Result<(), Error> {
    let headers = encode(headers);
    // SAFETY: each pointer and size are of one slice, which the host only reads.
    check(unsafe {
        abi::proxy_send_local_response(
            u32::from(status),
            details.as_ptr(),
            details.len(),
            body.as_ptr(),
            body.len(),
            headers.as_ptr(),
            headers.len(),
            grpc_status,
        )
    })
}

/// Starts an HTTP call to a cluster; gives the token that its answer will carry.
pub(crate) fn http_call(
    cluster: &str,
    headers: &[(&[u8], &[u8])],
    body: &[u8],
    timeout_ms: u32,
) -> Result<u32, Error> {
    let headers = encode(headers);
    let trailers = encode(&[]);
    let mut token = 0;
    // SAFETY: as in `send_response`; `token` outlives the call.
    check(unsafe {
        abi::proxy_http_call(
            cluster.as_ptr(),
            cluster.len(),
            headers.as_ptr(),
            headers.len(),
            body.as_ptr(),
            body.len(),
            trailers.as_ptr(),
            trailers.len(),
            timeout_ms,
            &raw mut token,
        )
    })?;
    Ok(token)
}

/// Directs the following calls at another stream; an error if it is gone.
pub(crate) fn set_effective_context(context: u32) -> Result<(), Error> {
    // SAFETY: no pointers.
    check(unsafe { abi::proxy_set_effective_context(context) })
}

/// Defines a metric, or finds the one of that name; gives its id in this VM.
pub(crate) fn define_metric(kind: MetricType, name: &str) -> Result<u32, Error> {
    let mut id = 0;
    // SAFETY: `id` outlives the call.
    check(unsafe {
        abi::proxy_define_metric(kind as u32, name.as_ptr(), name.len(), &raw mut id)
    })?;
    Ok(id)
}

/// Adds to a counter (more than zero) or a gauge (any).
pub(crate) fn increment_metric(id: u32, offset: i64) -> Result<(), Error> {
    // SAFETY: no pointers.
    check(unsafe { abi::proxy_increment_metric(id, offset) })
}

fn clock(id: u32) -> u64 {
    let mut time = 0;
    // SAFETY: `time` outlives the call. A host without the clock leaves zero.
    let _ = unsafe { abi::clock_time_get(id, 0, &raw mut time) };
    time
}

/// The monotonic clock.
pub(crate) fn now() -> Instant {
    Instant::from_nanos(clock(1))
}

/// The wall clock.
pub(crate) fn unix_time() -> UnixTime {
    UnixTime::from_nanos(clock(0))
}

/// `N` random bytes from the host.
pub(crate) fn entropy<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    // SAFETY: the array outlives the call and has that size.
    check(unsafe { abi::random_get(bytes.as_mut_ptr(), N) })?;
    Ok(bytes)
}

/// The pairs of a header map in the host's encoding: a count, then the sizes of
/// each name and value (all u32, little endian), then the bytes, each followed by
/// a NUL. Bytes that are not such an encoding give the pairs before the fault.
pub(crate) fn pairs(map: &[u8]) -> Vec<(&[u8], &[u8])> {
    let Some((count, rest)) = u32_at(map) else { return Vec::new() };
    let Some((mut sizes, mut data)) = rest.split_at_checked(count.saturating_mul(8)) else {
        return Vec::new();
    };
    let mut pairs = Vec::with_capacity(count);
    while let Some((name_size, rest)) = u32_at(sizes) {
        let Some((value_size, rest)) = u32_at(rest) else { break };
        sizes = rest;
        let Some((name, rest)) = text_at(data, name_size) else { break };
        let Some((value, rest)) = text_at(rest, value_size) else { break };
        data = rest;
        pairs.push((name, value));
    }
    pairs
}

fn u32_at(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (first, rest) = bytes.split_first_chunk::<4>()?;
    Some((usize::try_from(u32::from_le_bytes(*first)).ok()?, rest))
}

fn text_at(bytes: &[u8], size: usize) -> Option<(&[u8], &[u8])> {
    let (text, rest) = bytes.split_at_checked(size)?;
    Some((text, rest.get(1..)?))
}

fn encode(pairs: &[(&[u8], &[u8])]) -> Vec<u8> {
    let size = |n: usize| u32::try_from(n).unwrap_or(u32::MAX).to_le_bytes();
    let text: usize = pairs.iter().map(|(name, value)| name.len() + value.len() + 10).sum();
    let mut bytes = Vec::with_capacity(4 + text);
    bytes.extend_from_slice(&size(pairs.len()));
    for (name, value) in pairs {
        bytes.extend_from_slice(&size(name.len()));
        bytes.extend_from_slice(&size(value.len()));
    }
    for (name, value) in pairs {
        for text in [name, value] {
            bytes.extend_from_slice(text);
            bytes.push(0);
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_come_back_as_they_were_encoded() {
        let list: [(&[u8], &[u8]); 3] = [(b":path", b"/"), (b"x", b""), (b"y", b"\xff\0z")];
        assert_eq!(pairs(&encode(&list)), list);
    }

    #[test]
    fn a_broken_encoding_gives_what_came_before_the_fault() {
        let whole = encode(&[(b"a", b"b"), (b"cc", b"dd")]);
        for end in 0..whole.len() {
            let part = pairs(&whole[..end]);
            assert!(part.len() < 2, "{part:?}");
        }
        assert_eq!(pairs(&[255; 64]), []);
    }
}
