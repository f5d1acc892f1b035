//! `trace`: which traces are continued and recorded.

use super::reader::{ConfigError, Reader};
use crate::gate::TraceSettings;

pub(super) fn read(trace: Reader<'_>) -> Result<TraceSettings, ConfigError> {
    trace.only(&[])?;
    Ok(TraceSettings {})
}
