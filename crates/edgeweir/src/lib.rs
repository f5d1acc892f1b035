//! Edgeweir's core: it decides, and never acts.
//!
//! Every function takes what it needs as an argument (the time, random bytes,
//! header fields) and returns a value (a decision, an action, bytes). There is no
//! clock, no entropy, no I/O, no log, no lock and no global in this crate, so the
//! same code runs in an Envoy worker, in Node and in a test that lives through a
//! year in a microsecond.
//!
//! In reading order:
//!
//! | module | what it decides |
//! |---|---|
//! | [`time`] | what "now" and "later" mean: a monotonic and a wall clock that never wrap |
//! | [`hash`], [`random`] | keyed hashing and jitter from a seed that the edge provides |
//! | [`http`] | what the text of HTTP fields means: dates, lists, structured fields |
//! | [`table`] | bounded keyed storage and what to evict |
//! | [`stats`] | counters and latency histograms |
//! | [`limit`] | may this request pass now, and if not, when |
//! | [`cache`] | may this response be stored, may that entry be reused |
//! | [`trace`] | which trace a request belongs to, what is recorded and exported |
//! | [`pool`] | who gets a connection; when a target is healthy |
//! | [`query`] | what a SQL text is, what is wrong with it, what can be batched |
//! | [`gate`] | one HTTP exchange at a proxy: limit, cache and trace together |
//! | [`config`] | the JSON document that sets all of it up |
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod cache;
pub mod config;
pub mod gate;
pub mod hash;
pub mod http;
pub mod limit;
pub mod pool;
pub mod query;
pub mod random;
pub mod stats;
pub mod table;
pub mod time;
pub mod trace;
