//! The tracer's part of an exchange.

use alloc::borrow::Cow;
use alloc::format;
use alloc::vec::Vec;

use super::{Change, Metric, MetricKind, Now, Request};
use crate::random::Random;
use crate::trace::{Context, Extracted, Flags, SpanId, TraceId, TraceState};

/// How the tracer is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceSettings {
    /// Whether the response tells the client the trace's id, in `Server-Timing`.
    pub server_timing: bool,
}

/// What the tracer knows of one exchange.
#[derive(Clone, Debug)]
pub(super) struct Traced {
    /// For the next hop: the span is ours.
    context: Context,
    state: State,
}

/// What becomes of the request's `tracestate`.
#[derive(Clone, Debug)]
enum State {
    /// It is as it should be, or there is none.
    Keep,
    /// It came in several lines, or with a key twice, and goes on in one.
    Join(TraceState),
    /// It belongs to another trace, or is malformed.
    Drop,
}

impl Traced {
    /// The context for the next hop.
    pub(super) fn inject(&self, changes: &mut Vec<Change>) {
        changes.push(Change::Set("traceparent", self.context.traceparent().into_bytes()));
        match &self.state {
            State::Keep => {}
            State::Join(state) => {
                changes.push(Change::Set("tracestate", state.as_bytes().to_vec()));
            }
            State::Drop => changes.push(Change::Remove("tracestate")),
        }
    }

    /// The trace's id for the client, as the W3C's Server-Timing convention writes it.
    pub(super) fn server_timing(&self) -> Change {
        let value = format!("traceparent;desc=\"{}\"", self.context.traceparent());
        Change::Add("server-timing", value.into_bytes())
    }
}

#[derive(Debug)]
pub(super) struct TraceGate {
    settings: TraceSettings,
    random: Random,
    continued: u64,
    started: u64,
    malformed: u64,
}

impl TraceGate {
    pub(super) fn new(settings: TraceSettings, random: Random) -> Self {
        Self { settings, random, continued: 0, started: 0, malformed: 0 }
    }

    pub(super) fn settings(&self) -> &TraceSettings {
        &self.settings
    }

    pub(super) fn metrics(&self, metrics: &mut Vec<Metric>) {
        for (name, value) in [
            ("edgeweir.trace.continued", self.continued),
            ("edgeweir.trace.started", self.started),
            ("edgeweir.trace.malformed", self.malformed),
        ] {
            metrics.push(Metric { name: Cow::from(name), kind: MetricKind::Counter, value });
        }
    }

    /// Continues the caller's trace, or begins one if the caller sends none that is
    /// well-formed.
    pub(super) fn begin(&mut self, request: &Request<'_>, _now: Now) -> Traced {
        let span = SpanId::from_random(self.random.bytes());
        let Extracted { context, state, malformed } = Extracted::from_fields(request.fields);
        self.malformed += u64::from(malformed);
        let mut lines = request.fields.all("tracestate");
        let (first, second) = (lines.next(), lines.next());
        let state = match (state, first, second) {
            (None, None, _) => State::Keep,
            (None, Some(_), _) => State::Drop,
            (Some(state), Some(line), None) if line == state.as_bytes() => State::Keep,
            (Some(state), ..) => State::Join(state),
        };
        let context = match context {
            Some(context) => {
                self.continued += 1;
                Context { span, ..context }
            }
            None => {
                self.started += 1;
                let trace = TraceId::from_random(self.random.bytes());
                Context { trace, span, flags: Flags::of_root(true) }
            }
        };
        Traced { context, state }
    }
}
