//! The Envoy edge: turns proxy-wasm callbacks into calls of [`edgeweir::gate`], and
//! its verdicts into host calls.
//!
//! | module | what it does |
//! |---|---|
//! | [`entry`] | the exported callbacks, nothing else |
//! | [`plugin`] | configurations, streams and workers of this VM |
//! | [`host`] | the proxy-wasm ABI |
//!
//! The exports are named `edgeweir_*` here and get their ABI names (`proxy_*`)
//! when the module is linked for a host, because the SDK, which serves for its
//! types, defines those names itself. A callback that is exported is entered for
//! every request, so each module exports only what its features need.

mod entry;
mod host;
mod plugin;
