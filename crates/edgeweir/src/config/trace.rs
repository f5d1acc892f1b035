//! `trace`: which traces are continued, and who learns of them.

use super::reader::{ConfigError, Reader};
use crate::gate::TraceSettings;

pub(super) fn read(trace: Reader<'_>) -> Result<TraceSettings, ConfigError> {
    trace.only(&["server_timing"])?;
    let server_timing = match trace.optional("server_timing") {
        Some(field) => field.boolean()?,
        None => false,
    };
    Ok(TraceSettings { server_timing })
}
