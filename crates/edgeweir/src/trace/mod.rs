//! Which trace a request belongs to, what is recorded of it, and how it is exported.
//!
//! | module | what it decides |
//! |---|---|
//! | [`id`] | names of traces and spans |
//! | [`context`] | W3C Trace Context level 2: which trace a caller's headers continue |

pub mod context;
pub mod id;

pub use context::{Context, Extracted, Flags, TraceState};
pub use id::{SpanId, TraceId};
