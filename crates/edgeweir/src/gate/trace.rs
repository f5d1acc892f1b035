//! The tracer's part of an exchange.

use alloc::vec::Vec;

use super::{Change, Metric, Now, Request};
use crate::random::Random;

/// How the tracer is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceSettings {}

/// What the tracer knows of one exchange.
#[derive(Debug)]
pub(super) struct Traced {}

impl Traced {
    /// The context for the next hop.
    pub(super) fn inject(&self, _changes: &mut Vec<Change>) {}
}

#[derive(Debug)]
pub(super) struct TraceGate {
    random: Random,
}

impl TraceGate {
    pub(super) fn metrics(&self, _metrics: &mut Vec<Metric>) {}

    pub(super) fn new(_settings: TraceSettings, random: Random) -> Self {
        Self { random }
    }

    pub(super) fn begin(&mut self, _request: &Request<'_>, _now: Now) -> Traced {
        let _ = self.random.next_u64();
        Traced {}
    }
}
