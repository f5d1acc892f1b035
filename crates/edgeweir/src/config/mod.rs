//! The JSON document that sets up the [`Gate`], and the one place where JSON is known.
//!
//! ```json
//! {
//!   "limits": [{ "name": "per-client", "requests": 100, "per_ms": 1000, "burst": 200 }],
//!   "cache": { "max_bytes": 67108864 },
//!   "trace": {}
//! }
//! ```
//!
//! A feature that is not named is off. Every number has its unit in its name.
//! Whatever is wrong is one [`ConfigError`] that names the path, what stands
//! there, and what would be right; the first one found stops the start.
//!
//! The document is read through [`Reader`], a cursor that knows its path, and not
//! through derived structs: those know a line and a column, but an operator whose
//! JSON sits inside YAML has neither.

mod cache;
mod limit;
mod reader;
mod trace;

use alloc::string::{String, ToString};

pub use reader::{ConfigError, Reader};

use crate::gate::{Features, Gate, Seeds};

/// The largest document that is read, in bytes.
pub const MAX_BYTES: usize = 1 << 20;

/// Builds the gate that `document` describes.
///
/// `built_in` are the features that this build of the edge can serve; a document
/// that asks for another is refused.
///
/// # Errors
///
/// The first thing that is wrong, with its path.
pub fn build(document: &[u8], built_in: Features, seeds: Seeds) -> Result<Gate, ConfigError> {
    if document.len() > MAX_BYTES {
        return Err(ConfigError::new(
            "configuration",
            &alloc::format!("must be at most {MAX_BYTES} bytes, got {}", document.len()),
        ));
    }
    let text = core::str::from_utf8(document).map_err(|error| {
        let at = error.valid_up_to();
        ConfigError::new("configuration", &alloc::format!("is not UTF-8 at byte {at}"))
    })?;
    if text.trim().is_empty() {
        return Err(ConfigError::new(
            "configuration",
            "is empty; give a JSON object with at least one of \"limits\", \"cache\", \"trace\" \
             (in Envoy as a google.protobuf.StringValue)",
        ));
    }
    let value: serde_json::Value = serde_json::from_str(text).map_err(|error| {
        ConfigError::new("configuration", &alloc::format!("is not JSON: {error}"))
    })?;
    let root = Reader::root(&value);
    root.only(&["limits", "client", "admin", "cache", "trace"])?;

    let limits = root.optional("limits");
    let settings = limit::read(
        limits.as_ref(),
        root.optional("client").as_ref(),
        root.optional("admin").as_ref(),
    )?;
    let cache = root.optional("cache").map(|cache| cache::read(cache)).transpose()?;
    let trace = root.optional("trace").map(|trace| trace::read(trace)).transpose()?;
    let asked =
        Features { limit: limits.is_some(), cache: cache.is_some(), trace: trace.is_some() };
    if asked == Features::NONE {
        return Err(root.wrong("must have at least one of \"limits\", \"cache\", \"trace\""));
    }
    for (name, asked, built_in) in [
        ("limits", asked.limit, built_in.limit),
        ("cache", asked.cache, built_in.cache),
        ("trace", asked.trace, built_in.trace),
    ] {
        if asked && !built_in {
            return Err(ConfigError::new(
                name,
                "is not part of this module, which was built without it; load edgeweir.wasm",
            ));
        }
    }
    Ok(Gate::new(settings, cache, trace, seeds))
}

/// A name that goes into metrics and headers: 1 to 64 of `a-z A-Z 0-9 _ - .`
fn name(reader: Reader<'_>) -> Result<String, ConfigError> {
    let text = reader.text()?;
    let fits = (1..=64).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte));
    if !fits {
        return Err(reader.wrong("must be 1 to 64 letters, digits, \"_\", \"-\" or \".\""));
    }
    Ok(text.to_string())
}
