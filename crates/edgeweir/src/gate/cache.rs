//! The cache's part of an exchange.

use alloc::vec::Vec;

use super::{Answer, Flow, Metric, Now, Request, Response, Verdict};
use crate::hash::HashSeed;

/// How the cache is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheSettings {
    /// The most bytes that entries may take in one worker.
    pub max_bytes: usize,
}

/// What the cache knows of one exchange.
#[derive(Debug, Default)]
pub(super) struct Progress {}

impl Progress {
    pub(super) fn wants_body(&self) -> bool {
        false
    }

    pub(super) fn body_lost(&mut self) {}
}

#[derive(Debug)]
pub(super) struct CacheGate {}

impl CacheGate {
    pub(super) fn metrics(&self, _metrics: &mut Vec<Metric>) {}

    pub(super) fn new(_settings: CacheSettings, _seed: HashSeed) -> Self {
        Self {}
    }

    pub(super) fn step(
        &mut self,
        _progress: &mut Progress,
        _request: &Request<'_>,
        _answer: Option<Answer<'_>>,
        _now: Now,
    ) -> Flow<Verdict> {
        Flow::Done(Verdict::Pass(Vec::new()))
    }

    pub(super) fn response(
        &mut self,
        _progress: &mut Progress,
        _response: &Response<'_>,
        _now: Now,
    ) -> Verdict {
        Verdict::Pass(Vec::new())
    }

    pub(super) fn body(&mut self, _progress: &mut Progress, _piece: &[u8], _end: bool, _now: Now) {}
}
