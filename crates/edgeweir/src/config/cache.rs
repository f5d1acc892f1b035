//! `cache`: what is stored, for how long, and how much of it.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use super::reader::{ConfigError, Reader};
use crate::cache::policy::Policy;
use crate::gate::CacheSettings;
use crate::http::emit;

/// The longest time that a setting may name: a year, in milliseconds.
const YEAR: u64 = 31_536_000_000;

pub(super) fn read(cache: Reader<'_>) -> Result<CacheSettings, ConfigError> {
    cache.only(&[
        "max_bytes",
        "max_entry_bytes",
        "targets",
        "heuristic_percent",
        "heuristic_max_ms",
        "stale_while_revalidate_ms",
        "stale_if_error_ms",
    ])?;
    let bytes = |name: &str, default: u64| -> Result<u64, ConfigError> {
        cache.optional(name).map_or(Ok(default), |field| field.number(4096..=536_870_912))
    };
    let max_bytes = bytes("max_bytes", 64 << 20)?;
    let max_entry_bytes = bytes("max_entry_bytes", (8 << 20).min(max_bytes))?;
    if max_bytes < max_entry_bytes {
        let field = cache.required("max_entry_bytes")?;
        return Err(field.wrong(&format!("must be at most max_bytes ({max_bytes})")));
    }
    let default = Policy::default();
    let millis = |name: &str, default: Duration| -> Result<Duration, ConfigError> {
        cache.optional(name).map_or(Ok(default), |field| field.millis(0..=YEAR))
    };
    let percent = match cache.optional("heuristic_percent") {
        Some(field) => field.number(0..=100)?,
        None => default.heuristic_percent.into(),
    };
    let policy = Policy {
        targets: match cache.optional("targets") {
            Some(field) => targets(&field)?,
            None => default.targets,
        },
        heuristic_percent: u32::try_from(percent).unwrap_or(0),
        heuristic_most: millis("heuristic_max_ms", default.heuristic_most)?,
        stale_while_revalidate: millis(
            "stale_while_revalidate_ms",
            default.stale_while_revalidate,
        )?,
        stale_if_error: millis("stale_if_error_ms", default.stale_if_error)?,
    };
    let size = |bytes| usize::try_from(bytes).unwrap_or(usize::MAX);
    Ok(CacheSettings { max_bytes: size(max_bytes), max_entry_bytes: size(max_entry_bytes), policy })
}

/// Names of fields that stand in for `Cache-Control`, the most specific first.
fn targets(list: &Reader<'_>) -> Result<Vec<String>, ConfigError> {
    let mut targets = Vec::new();
    for item in list.items(8)? {
        let name = item.text()?;
        if !emit::is_name(name.as_bytes()) || name.starts_with(':') || name != name.to_lowercase() {
            return Err(item.wrong("must be the name of a field in lower case"));
        }
        targets.push(name.to_string());
    }
    Ok(targets)
}
