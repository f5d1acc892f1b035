//! Which callbacks each shipped filter exports, and which host calls it may import.
//!
//! The host enters every exported callback for every request, and that is most of what
//! a filter costs. So there is one module with everything, and one per feature that
//! exports only what that feature needs.
//!
//! The filter's crate exports its entry points as `edgeweir_*`: the crate proxy-wasm,
//! which it has for its types, already defines `proxy_*`. Shaping drops the latter and
//! renames the former.

/// What the filter's crate calls its entry points.
pub(crate) const OURS: &str = "edgeweir_";

/// What the host looks for.
pub(crate) const HOSTS: &str = "proxy_";

/// Precedes the three letters in the module that say which features it has.
pub(crate) const MARKER: &[u8] = b"edgeweir-features:";

/// The letters of all features, in the order in which they follow the marker:
/// limit, cache, trace.
pub(crate) const FEATURES: &str = "lct";

/// A filter that is shipped: its name, and the letters of its features.
pub(crate) struct Shipped {
    pub(crate) name: &'static str,
    pub(crate) features: &'static str,
}

pub(crate) const SHIPPED: [Shipped; 4] = [
    Shipped { name: "edgeweir", features: FEATURES },
    Shipped { name: "edgeweir-limit", features: "l" },
    Shipped { name: "edgeweir-cache", features: "c" },
    Shipped { name: "edgeweir-trace", features: "t" },
];

/// Every callback that the filter exports, and the features that need it.
const CALLBACKS: [(&str, &str); 12] = [
    // Start-up and memory: everybody.
    ("abi_version_0_2_1", "lct"),
    ("on_memory_allocate", "lct"),
    ("on_vm_start", "lct"),
    ("on_configure", "lct"),
    // Not part of a request: metrics, deadlines, export.
    ("on_tick", "lct"),
    ("on_request_headers", "lct"),
    // The limit announces what is left; the cache stores; the trace notes the status.
    ("on_response_headers", "lct"),
    ("on_response_body", "c"),
    ("on_response_trailers", "c"),
    // A stream's state must go when the stream does.
    ("on_log", "lct"),
    ("on_http_call_response", "ct"),
    ("on_queue_ready", "c"),
];

/// The features that need the callback `name` (without a prefix); `None` if unknown.
pub(crate) fn features_of(name: &str) -> Option<&'static str> {
    CALLBACKS.iter().find(|(callback, _)| *callback == name).map(|(_, features)| *features)
}

/// What else a module exports: the memory, and the constructor of a reactor.
pub(crate) const PLAIN_EXPORTS: [&str; 2] = ["memory", "_initialize"];

/// Every host call that a shipped module may import, as `module.name`. An Envoy that
/// lacks one refuses the whole module, so a new line here is a decision.
pub(crate) const IMPORTS: [&str; 30] = [
    "env.proxy_add_header_map_value",
    "env.proxy_call_foreign_function",
    "env.proxy_close_stream",
    "env.proxy_continue_stream",
    "env.proxy_define_metric",
    "env.proxy_dequeue_shared_queue",
    "env.proxy_done",
    "env.proxy_enqueue_shared_queue",
    "env.proxy_get_buffer_bytes",
    "env.proxy_get_current_time_nanoseconds",
    "env.proxy_get_header_map_pairs",
    "env.proxy_get_header_map_value",
    "env.proxy_get_property",
    "env.proxy_get_shared_data",
    "env.proxy_http_call",
    "env.proxy_increment_metric",
    "env.proxy_log",
    "env.proxy_record_metric",
    "env.proxy_register_shared_queue",
    "env.proxy_remove_header_map_value",
    "env.proxy_replace_header_map_value",
    "env.proxy_resolve_shared_queue",
    "env.proxy_send_local_response",
    "env.proxy_set_buffer_bytes",
    "env.proxy_set_effective_context",
    "env.proxy_set_header_map_pairs",
    "env.proxy_set_shared_data",
    "env.proxy_set_tick_period_milliseconds",
    "wasi_snapshot_preview1.clock_time_get",
    "wasi_snapshot_preview1.random_get",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_callback_serves_a_known_feature() {
        for (callback, features) in CALLBACKS {
            assert!(!features.is_empty(), "{callback}");
            assert!(features.chars().all(|letter| FEATURES.contains(letter)), "{callback}");
        }
    }

    #[test]
    fn the_lists_hold_nothing_twice() {
        let mut callbacks: Vec<&str> = CALLBACKS.iter().map(|(name, _)| *name).collect();
        callbacks.sort_unstable();
        callbacks.dedup();
        assert_eq!(callbacks.len(), CALLBACKS.len());
        assert!(IMPORTS.is_sorted_by(|one, next| one < next));
    }
}
