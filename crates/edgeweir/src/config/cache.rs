//! `cache`: what is stored, and how much of it.

use super::reader::{ConfigError, Reader};
use crate::gate::CacheSettings;

pub(super) fn read(cache: Reader<'_>) -> Result<CacheSettings, ConfigError> {
    cache.only(&["max_bytes"])?;
    let max_bytes = match cache.optional("max_bytes") {
        Some(field) => field.number(65_536..=536_870_912)?,
        None => 67_108_864,
    };
    Ok(CacheSettings { max_bytes: usize::try_from(max_bytes).unwrap_or(usize::MAX) })
}
