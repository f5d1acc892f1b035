//! `cache`: what is stored, and how much of it.

use alloc::format;

use super::reader::{ConfigError, Reader};
use crate::gate::CacheSettings;

pub(super) fn read(cache: Reader<'_>) -> Result<CacheSettings, ConfigError> {
    cache.only(&["max_bytes", "max_entry_bytes"])?;
    let bytes = |name: &str, default: u64| -> Result<u64, ConfigError> {
        cache.optional(name).map_or(Ok(default), |field| field.number(4096..=536_870_912))
    };
    let max_bytes = bytes("max_bytes", 64 << 20)?;
    let max_entry_bytes = bytes("max_entry_bytes", (8 << 20).min(max_bytes))?;
    if max_bytes < max_entry_bytes {
        let field = cache.required("max_entry_bytes")?;
        return Err(field.wrong(&format!("must be at most max_bytes ({max_bytes})")));
    }
    let size = |bytes| usize::try_from(bytes).unwrap_or(usize::MAX);
    Ok(CacheSettings { max_bytes: size(max_bytes), max_entry_bytes: size(max_entry_bytes) })
}
