//! One HTTP exchange at a proxy: the only place where limit, cache and trace meet.
//!
//! An edge drives a [`Gate`] with these calls, and after each of them drains
//! [`Gate::next_action`]:
//!
//! | when | call |
//! |---|---|
//! | the head of a request is here | [`Gate::request`], then [`Gate::answer`] until there is a [`Verdict`] |
//! | the head of its response is here | [`Gate::response`] |
//! | a reply of the gate passes by on its way to the client | [`Gate::replay`] |
//! | a piece of the response's body, or its end | [`Gate::body`], if [`Gate::wants_body`] |
//! | the exchange is over | [`Gate::finished`], for every stream whatever happened |
//! | time has passed | [`Gate::tick`], every [`Gate::tick_period`] |
//! | an HTTP call that the gate asked for has ended | [`Gate::called`] |
//! | another worker said something | [`Gate::message`] |
//! | an [`Action::Update`] | [`Gate::update`], then [`Gate::updated`] |
//!
//! Nothing that a peer sends makes any of these fail: a header that is not as it
//! should be counts as absent, and a feature that cannot do its work lets the
//! request pass or not as its `on_error` says, and is counted.

mod cache;
mod limit;
mod trace;
mod verdict;

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use hashbrown::HashMap;

pub use cache::CacheSettings;
pub use limit::{
    Concurrency, Cost, Delay, Denial, KeyPart, LimitAdmin, LimitRule, LimitSettings, Matcher,
    Missing, OnError, PathPattern,
};
pub use trace::TraceSettings;
pub use verdict::*;

use crate::hash::HashSeed;
use crate::random::Random;

/// Which features a gate, or a build of an edge, has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Rate limiting.
    pub limit: bool,
    /// HTTP caching.
    pub cache: bool,
    /// Tracing.
    pub trace: bool,
}

impl Features {
    /// No feature.
    pub const NONE: Self = Self { limit: false, cache: false, trace: false };
    /// Every feature.
    pub const ALL: Self = Self { limit: true, cache: true, trace: true };
}

/// The random bytes that a gate starts from.
#[derive(Clone, Debug)]
pub struct Seeds {
    /// Makes hashes unpredictable; one for all workers, or their shared tables
    /// would not agree.
    pub hash: HashSeed,
    /// For ids and jitter; another in each worker.
    pub random: Random,
}

/// What one feature says to a request.
enum Flow<T> {
    /// It has to know something first.
    Ask(Ask),
    /// It is done.
    Done(T),
}

/// Where an exchange is in its walk through the gate.
#[derive(Debug)]
struct Exchange {
    phase: Phase,
    trace: Option<trace::Traced>,
    limit: limit::Progress,
    cache: cache::Progress,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Limit,
    Cache,
    /// Upstream has the request.
    Upstream,
    /// The gate has answered.
    Answered,
}

/// The state of one worker.
#[derive(Debug)]
pub struct Gate {
    limit: limit::LimitGate,
    cache: Option<cache::CacheGate>,
    trace: Option<trace::TraceGate>,
    streams: HashMap<StreamId, Exchange, HashSeed>,
    actions: VecDeque<Action>,
}

impl Gate {
    /// A gate for these settings. Use [`crate::config::build`], which checks them.
    #[must_use]
    pub fn new(
        limits: LimitSettings,
        cache: Option<CacheSettings>,
        trace: Option<TraceSettings>,
        seeds: Seeds,
    ) -> Self {
        Self {
            limit: limit::LimitGate::new(limits, seeds.hash),
            cache: cache.map(|settings| cache::CacheGate::new(settings, seeds.hash)),
            trace: trace.map(|settings| trace::TraceGate::new(settings, seeds.random)),
            streams: HashMap::with_hasher(seeds.hash),
            actions: VecDeque::new(),
        }
    }

    /// How often [`Gate::tick`] wants to be called.
    #[must_use]
    pub fn tick_period(&self) -> Duration {
        // Those who wait are let go from a tick: a host's timer is no finer than this.
        if self.limit.delays() { Duration::from_millis(10) } else { Duration::from_secs(1) }
    }

    /// A request's head has arrived.
    pub fn request(&mut self, stream: StreamId, request: &Request<'_>, now: Now) -> Step {
        let exchange = Exchange {
            phase: Phase::Limit,
            trace: self.trace.as_mut().map(|trace| trace.begin(request, now)),
            limit: limit::Progress::default(),
            cache: cache::Progress::default(),
        };
        self.streams.insert(stream, exchange);
        self.walk(stream, request, None, now)
    }

    /// What an [`Ask`] asked for is here.
    pub fn answer(
        &mut self,
        stream: StreamId,
        request: &Request<'_>,
        answer: Answer<'_>,
        now: Now,
    ) -> Step {
        self.walk(stream, request, Some(answer), now)
    }

    fn walk(
        &mut self,
        stream: StreamId,
        request: &Request<'_>,
        mut answer: Option<Answer<'_>>,
        now: Now,
    ) -> Step {
        let Some(exchange) = self.streams.get_mut(&stream) else {
            return Step::Verdict(Verdict::Pass(Vec::new()));
        };
        loop {
            match exchange.phase {
                Phase::Limit => {
                    let progress = &mut exchange.limit;
                    let flow = self.limit.step(progress, stream, request, answer.take(), now);
                    match flow {
                        Flow::Ask(ask) => return Step::Ask(ask),
                        Flow::Done(limit::Outcome::Pass) => exchange.phase = Phase::Cache,
                        Flow::Done(limit::Outcome::Reply(reply)) => {
                            exchange.phase = Phase::Answered;
                            self.act_on_limit();
                            return Step::Verdict(Verdict::Reply(reply));
                        }
                        Flow::Done(limit::Outcome::Wait) => {
                            self.act_on_limit();
                            return Step::Verdict(Verdict::Wait);
                        }
                    }
                }
                Phase::Cache => {
                    let Some(cache) = &mut self.cache else {
                        exchange.phase = Phase::Upstream;
                        continue;
                    };
                    let flow = cache.step(&mut exchange.cache, request, answer.take(), now);
                    self.actions.extend(cache.take_actions());
                    match flow {
                        Flow::Ask(ask) => return Step::Ask(ask),
                        Flow::Done(Verdict::Reply(reply)) => {
                            exchange.phase = Phase::Answered;
                            return Step::Verdict(Verdict::Reply(reply));
                        }
                        Flow::Done(Verdict::Wait) => return Step::Verdict(Verdict::Wait),
                        Flow::Done(Verdict::Pass(mut changes)) => {
                            exchange.phase = Phase::Upstream;
                            if let Some(traced) = &exchange.trace {
                                traced.inject(&mut changes);
                            }
                            return Step::Verdict(Verdict::Pass(changes));
                        }
                    }
                }
                Phase::Upstream | Phase::Answered => {
                    let mut changes = Vec::new();
                    if let Some(traced) = &exchange.trace {
                        traced.inject(&mut changes);
                    }
                    return Step::Verdict(Verdict::Pass(changes));
                }
            }
        }
    }

    /// The head of the response has arrived, from upstream or from the host itself,
    /// or the gate's own reply passes by.
    pub fn response(&mut self, stream: StreamId, response: &Response<'_>, now: Now) -> Verdict {
        let Some(exchange) = self.streams.get_mut(&stream) else {
            return Verdict::Pass(Vec::new());
        };
        let mut changes = Vec::new();
        let mut limited = Vec::new();
        if exchange.phase == Phase::Upstream {
            limited = self.limit.response(&mut exchange.limit, stream, response, now);
            self.actions.extend(self.limit.take_actions());
        }
        if exchange.phase == Phase::Upstream
            && let Some(cache) = &mut self.cache
        {
            let verdict = cache.response(&mut exchange.cache, response, now);
            self.actions.extend(cache.take_actions());
            match verdict {
                Verdict::Pass(more) => changes = more,
                verdict => {
                    exchange.phase = Phase::Answered;
                    return verdict;
                }
            }
        }
        changes.extend(limited);
        if let (Some(trace), Some(traced)) = (&self.trace, &exchange.trace)
            && trace.settings().server_timing
        {
            changes.push(traced.server_timing());
        }
        Verdict::Pass(changes)
    }

    /// Whether [`Gate::body`] has to see this stream's response.
    #[must_use]
    pub fn wants_body(&self, stream: StreamId) -> bool {
        self.streams.get(&stream).is_some_and(|exchange| exchange.cache.wants_body())
    }

    /// A piece of the response's body; `end` says that it is the last, and that
    /// the response is complete.
    pub fn body(&mut self, stream: StreamId, piece: &[u8], end: bool, now: Now) {
        if let Some(exchange) = self.streams.get_mut(&stream)
            && let Some(cache) = &mut self.cache
        {
            cache.body(&mut exchange.cache, piece, end, now);
        }
    }

    /// The exchange is over, complete or not.
    pub fn finished(&mut self, stream: StreamId, _now: Now) {
        if let Some(mut exchange) = self.streams.remove(&stream) {
            self.limit.finished(&mut exchange.limit);
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Now) {
        self.limit.tick(now);
        self.act_on_limit();
    }

    /// The shared value of an [`Action::Update`] is here, or that there is none; gives
    /// what to write in its place, if it has not changed since. Nothing to write ends
    /// the update; a value that changed is brought again.
    pub fn update(&mut self, token: u64, value: Option<&[u8]>, now: Now) -> Option<Vec<u8>> {
        let written = self.limit.update(token, value, now);
        self.act_on_limit();
        written
    }

    /// How an [`Action::Update`] ended: what [`Gate::update`] gave was written, or it
    /// could not be, because the host failed or others were faster too often.
    pub fn updated(&mut self, token: u64, written: bool, now: Now) {
        self.limit.updated(token, written, now);
        self.act_on_limit();
    }

    /// Lets those go on, or not, whose waiting is over.
    fn act_on_limit(&mut self) {
        for stream in self.limit.take_resumed() {
            let Some(exchange) = self.streams.get_mut(&stream) else { continue };
            // Its request's head is not at hand any more, so the cache is not asked.
            exchange.phase = Phase::Upstream;
            let mut changes = Vec::new();
            if let Some(traced) = &exchange.trace {
                traced.inject(&mut changes);
            }
            self.actions.push_back(Action::Resume(stream, changes));
        }
        for (stream, reply) in self.limit.take_refused() {
            if let Some(exchange) = self.streams.get_mut(&stream) {
                exchange.phase = Phase::Answered;
                self.actions.push_back(Action::Reply(stream, reply));
            }
        }
        self.actions.extend(self.limit.take_actions());
    }

    /// An HTTP call has ended.
    pub fn called(&mut self, token: u64, outcome: CallOutcome<'_>, now: Now) {
        if let Some(cache) = &mut self.cache {
            cache.called(token, outcome, now);
            self.actions.extend(cache.take_actions());
        }
    }

    /// A worker's [`Action::Tell`] has arrived.
    pub fn message(&mut self, message: &[u8], _now: Now) {
        if !self.limit.heed(message)
            && let Some(cache) = &mut self.cache
        {
            cache.heed(message);
        }
    }

    /// Whether this worker has to hear what others [`Action::Tell`].
    #[must_use]
    pub fn wants_messages(&self) -> bool {
        self.cache.is_some() || self.limit.has_admin()
    }

    /// Whether [`Now::unix`] matters to what is set up here, and the time of
    /// [`Gate::finished`]: rates need neither.
    #[must_use]
    pub const fn wants_unix_time(&self) -> bool {
        self.cache.is_some() || self.trace.is_some()
    }

    /// What has been counted so far, for the host's own metrics.
    #[must_use]
    pub fn metrics(&self) -> Vec<Metric> {
        let mut metrics = Vec::new();
        self.limit.metrics(&mut metrics);
        if let Some(cache) = &self.cache {
            cache.metrics(&mut metrics);
        }
        if let Some(trace) = &self.trace {
            trace.metrics(&mut metrics);
        }
        metrics
    }

    /// The next thing to do for other streams or for none.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Part of a body could not be read: it will not be whole.
    pub fn body_lost(&mut self, stream: StreamId) {
        if let Some(exchange) = self.streams.get_mut(&stream) {
            exchange.cache.body_lost();
        }
    }

    /// Whether this stream began here and has not ended.
    #[must_use]
    pub fn has(&self, stream: StreamId) -> bool {
        self.streams.contains_key(&stream)
    }

    /// All the fields, with `:status`, that the gate's own reply must have and that a
    /// host may have added to. Once for each reply; `None` for one that may stay as it
    /// is.
    pub fn replay(&mut self, stream: StreamId) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
        let exchange = self.streams.get_mut(&stream)?;
        let mut fields = exchange.cache.take_replay()?;
        if let (Some(trace), Some(traced)) = (&self.trace, &exchange.trace)
            && trace.settings().server_timing
            && let Change::Add(name, value) = traced.server_timing()
        {
            fields.push((name.as_bytes().to_vec(), value));
        }
        Some(fields)
    }

    /// Whether [`Gate::response`] has to see this stream's response.
    #[must_use]
    pub fn wants_response(&self, stream: StreamId) -> bool {
        let tells = self.trace.as_ref().is_some_and(|trace| trace.settings().server_timing);
        self.streams.get(&stream).is_some_and(|exchange| {
            tells
                || (exchange.phase == Phase::Upstream
                    && (self.cache.is_some() || self.limit.wants_response(&exchange.limit)))
        })
    }

    /// How many streams are between their beginning and their end.
    #[must_use]
    pub fn streams(&self) -> usize {
        self.streams.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::Fields;
    use std::collections::BTreeMap;
    use std::string::String;

    /// Workers with one gate each, and what they share.
    struct Proxy {
        workers: Vec<Gate>,
        shared: BTreeMap<SharedKey, (Vec<u8>, u32)>,
        writes: u32,
        streams: u32,
        now: Now,
    }

    impl Proxy {
        fn new(workers: u8, config: &str) -> Self {
            let seeds = |worker| Seeds {
                hash: HashSeed::from_bytes([7; 16]),
                random: Random::from_seed([worker; 32]),
            };
            let build = |worker| {
                crate::config::build(config.as_bytes(), Features::ALL, seeds(worker)).unwrap()
            };
            Self {
                workers: (0..workers).map(build).collect(),
                shared: BTreeMap::new(),
                writes: 0,
                streams: 0,
                now: Now::default(),
            }
        }

        /// The verdict on a GET from a client, in one worker.
        fn get(&mut self, worker: usize, client: &str) -> Verdict {
            self.request(worker, client, &[])
        }

        /// A GET with more fields; its stream is the last one begun.
        fn request(&mut self, worker: usize, client: &str, more: &[(&str, &str)]) -> Verdict {
            self.request_of("/", worker, client, more)
        }

        fn send(&mut self, method: &str, worker: usize) -> Verdict {
            self.send_with(method, worker, &[])
        }

        fn send_with(&mut self, method: &str, worker: usize, more: &[(&str, &str)]) -> Verdict {
            self.begin(method, "/", worker, "", more)
        }

        fn request_of(
            &mut self,
            path: &str,
            worker: usize,
            client: &str,
            more: &[(&str, &str)],
        ) -> Verdict {
            self.begin("GET", path, worker, client, more)
        }

        fn begin(
            &mut self,
            method: &str,
            path: &str,
            worker: usize,
            client: &str,
            more: &[(&str, &str)],
        ) -> Verdict {
            self.streams += 1;
            let (stream, gate) = (StreamId(self.streams), &mut self.workers[worker]);
            let head = [
                (":method", method),
                (":scheme", "http"),
                (":authority", "a.example"),
                (":path", path),
            ];
            let fields: Vec<(&[u8], &[u8])> =
                head.iter().chain(more).map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
            let request = Request { fields: Fields::new(&fields), end: true };
            let mut step = gate.request(stream, &request, self.now);
            loop {
                let ask = match step {
                    Step::Verdict(verdict) => return verdict,
                    Step::Ask(ask) => ask,
                };
                let value;
                let answer = match ask {
                    Ask::Property(path) => {
                        let known: &[u8] = match &*path {
                            b"source\0address" => client.as_bytes(),
                            b"xds\0cluster_name" => b"upstream",
                            other => panic!("{other:?}"),
                        };
                        Answer::Property(Some(known))
                    }
                    Ask::Read(key) => {
                        value = self.shared.get(&key).cloned();
                        Answer::Shared(value.as_ref().map(|(value, cas)| (&value[..], *cas)))
                    }
                    Ask::Write { key, value, cas } => {
                        let found = self.shared.get(&key).map(|(_, cas)| *cas);
                        let fits = found.is_none_or(|found| cas == 0 || cas == found);
                        if fits {
                            self.writes += 1;
                            self.shared.insert(key, (value, self.writes));
                        }
                        Answer::Written(fits)
                    }
                };
                step = gate.answer(stream, &request, answer, self.now);
            }
        }
    }

    impl Proxy {
        /// Upstream's whole response to the last request.
        fn respond(&mut self, worker: usize, fields: &[(&str, &str)], body: &[u8]) -> Verdict {
            let (stream, gate) = (StreamId(self.streams), &mut self.workers[worker]);
            let fields: Vec<(&[u8], &[u8])> =
                fields.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
            let response = Response { fields: Fields::new(&fields), end: body.is_empty() };
            let verdict = gate.response(stream, &response, self.now);
            if gate.wants_body(stream) {
                gate.body(stream, body, false, self.now);
                gate.body(stream, b"", true, self.now);
            }
            gate.finished(stream, self.now);
            verdict
        }
    }

    fn status(verdict: &Verdict) -> u16 {
        match verdict {
            Verdict::Pass(_) => 0,
            Verdict::Reply(reply) => reply.status,
            Verdict::Wait => 1,
        }
    }

    const LIMIT: &str =
        r#"{"limits": [{"name": "per-client", "requests": 1, "per_ms": 1000, "burst": 3}]}"#;

    #[test]
    fn a_limit_holds_over_all_workers_and_for_each_client() {
        let mut proxy = Proxy::new(3, LIMIT);
        let verdicts: Vec<_> =
            (0..5).map(|worker| status(&proxy.get(worker % 3, "10.0.0.1:1"))).collect();
        assert_eq!(verdicts, [0, 0, 0, 429, 429]);
        assert_eq!(status(&proxy.get(0, "10.0.0.2:1")), 0);
        proxy.now.instant = proxy.now.instant.after(Duration::from_secs(1));
        assert_eq!(status(&proxy.get(1, "10.0.0.1:2")), 0);
        assert_eq!(status(&proxy.get(2, "10.0.0.1:3")), 429);
    }

    #[test]
    fn a_refusal_says_when_to_come_back() {
        let mut proxy = Proxy::new(1, LIMIT);
        let reply = loop {
            if let Verdict::Reply(reply) = proxy.get(0, "10.0.0.1:1") {
                break reply;
            }
        };
        let fields: Vec<_> = reply
            .fields
            .iter()
            .map(|(name, value)| {
                (String::from_utf8_lossy(name).into_owned(), String::from_utf8_lossy(value))
            })
            .collect();
        assert!(fields.contains(&("retry-after".into(), "1".into())), "{fields:?}");
        let policy = ("ratelimit-policy".into(), r#""per-client";q=1;w=1"#.into());
        assert!(fields.contains(&policy), "{fields:?}");
        assert_eq!(reply.grpc_status, 8);
    }

    #[test]
    fn a_stream_that_ended_leaves_nothing() {
        let mut proxy = Proxy::new(1, LIMIT);
        proxy.get(0, "10.0.0.1:1");
        assert_eq!(proxy.workers[0].streams(), 1);
        let now = proxy.now;
        proxy.workers[0].finished(StreamId(1), now);
        assert_eq!(proxy.workers[0].streams(), 0);
    }

    #[test]
    fn a_response_that_says_how_long_it_is_fresh_is_served_that_long() {
        let mut proxy = Proxy::new(1, r#"{"cache": {}}"#);
        assert_eq!(status(&proxy.get(0, "")), 0);
        let fields = [(":status", "200"), ("cache-control", "max-age=10"), ("x", "y")];
        proxy.respond(0, &fields, b"hello");
        proxy.now.instant = proxy.now.instant.after(Duration::from_millis(9_999));
        let Verdict::Reply(reply) = proxy.get(0, "") else { panic!("a miss") };
        assert_eq!((reply.status, &*reply.body), (200, &b"hello"[..]));
        assert!(reply.fields.contains(&(b"age".to_vec(), b"9".to_vec())), "{:?}", reply.fields);
        proxy.now.instant = proxy.now.instant.after(Duration::from_millis(1));
        assert_eq!(status(&proxy.get(0, "")), 0);
    }

    #[test]
    fn what_may_be_for_one_user_is_neither_stored_nor_served() {
        let public = [(":status", "200"), ("cache-control", "max-age=10")];
        for (more, fields) in [
            (&[("authorization", "Basic x")][..], &public[..]),
            (&[("x-forwarded-host", "evil.example")], &public),
            (&[], &[(":status", "200"), ("cache-control", "private, max-age=10")]),
            (&[], &[(":status", "200"), ("cache-control", "max-age=10, no-store")]),
            (&[], &[(":status", "200"), ("cache-control", "max-age=10"), ("set-cookie", "a=b")]),
            (&[], &[(":status", "200"), ("cache-control", "max-age=10"), ("vary", "*")]),
            (&[], &[(":status", "200")]),
            (&[], &[(":status", "206"), ("cache-control", "max-age=10")]),
        ] {
            let mut proxy = Proxy::new(1, r#"{"cache": {}}"#);
            proxy.request(0, "", more);
            proxy.respond(0, fields, b"secret");
            assert_eq!(status(&proxy.get(0, "")), 0, "{more:?} {fields:?}");
        }
    }

    #[test]
    fn a_body_that_was_cut_short_is_not_stored() {
        let mut proxy = Proxy::new(1, r#"{"cache": {}}"#);
        proxy.get(0, "");
        let fields =
            [(":status", "200"), ("cache-control", "max-age=10"), ("content-length", "99")];
        proxy.respond(0, &fields, b"short");
        assert_eq!(status(&proxy.get(0, "")), 0);
    }

    #[test]
    fn the_oldest_entries_go_when_the_budget_is_used() {
        let mut proxy = Proxy::new(1, r#"{"cache": {"max_bytes": 4096}}"#);
        let fields = [(":status", "200"), ("cache-control", "max-age=10")];
        for path in ["/a", "/b", "/c"] {
            proxy.request_of(path, 0, "", &[]);
            proxy.respond(0, &fields, &[0; 3000]);
        }
        let bytes =
            proxy.workers[0].metrics().into_iter().find(|m| m.name == "edgeweir.cache.bytes");
        assert!(bytes.is_some_and(|metric| (3000..=4096).contains(&metric.value)));
    }

    #[test]
    fn one_trace_runs_through_and_each_hop_has_its_span() {
        let mut proxy = Proxy::new(1, r#"{"trace": {"server_timing": true}}"#);
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let sent = std::format!("00-{trace}-00f067aa0ba902b7-01");
        let Verdict::Pass(changes) = proxy.request(0, "", &[("traceparent", &sent)]) else {
            panic!("not passed")
        };
        let [Change::Set("traceparent", value)] = &changes[..] else { panic!("{changes:?}") };
        let value = String::from_utf8(value.clone()).unwrap();
        assert!(value.starts_with(&std::format!("00-{trace}-")) && value != sent, "{value}");
        let Verdict::Pass(told) = proxy.respond(0, &[(":status", "200")], b"") else { panic!() };
        let expected = std::format!("traceparent;desc=\"{value}\"").into_bytes();
        assert_eq!(told, [Change::Add("server-timing", expected)]);
        // Sent twice: neither is believed.
        let twice = [("traceparent", &*sent), ("traceparent", &*sent), ("tracestate", "a=b")];
        let Verdict::Pass(changes) = proxy.request(0, "", &twice) else { panic!() };
        assert!(matches!(
            &changes[..],
            [Change::Set("traceparent", value), Change::Remove("tracestate")]
                if !value.starts_with(b"00-4bf92f")
        ));
    }

    fn field<'a>(reply: &'a Reply, name: &str) -> Option<&'a str> {
        let found = reply.fields.iter().find(|(other, _)| other == name.as_bytes())?;
        core::str::from_utf8(&found.1).ok()
    }

    fn later(proxy: &mut Proxy, secs: u64) {
        let passed = Duration::from_secs(secs);
        proxy.now.instant = proxy.now.instant.after(passed);
        proxy.now.unix = proxy.now.unix.after(passed);
    }

    const CACHE: &str = r#"{"cache": {}}"#;

    #[test]
    fn rfc_9111_4_3_a_stale_entry_is_validated_and_answers_the_client() {
        let mut proxy = Proxy::new(1, CACHE);
        proxy.get(0, "");
        let fields =
            [(":status", "200"), ("cache-control", "max-age=10"), ("etag", "\"a\""), ("x", "1")];
        proxy.respond(0, &fields, b"hello");
        later(&mut proxy, 11);
        let asked = [("if-none-match", "\"b\""), ("range", "bytes=0-1")];
        let Verdict::Pass(changes) = proxy.request(0, "", &asked) else { panic!() };
        let expected = [Change::Remove("range"), Change::Set("if-none-match", b"\"a\"".to_vec())];
        assert_eq!(changes, expected);
        let new = [(":status", "304"), ("cache-control", "max-age=20"), ("x", "2")];
        let Verdict::Reply(reply) = proxy.respond(0, &new, b"") else { panic!("no reply") };
        assert_eq!((reply.status, &*reply.body), (206, &b"he"[..]));
        assert_eq!(field(&reply, "x"), Some("2"));
        let expected = "edgeweir; fwd=stale; fwd-status=304; stored";
        assert_eq!(field(&reply, "cache-status"), Some(expected));
        later(&mut proxy, 19);
        let Verdict::Reply(reply) = proxy.request(0, "", &[("if-none-match", "\"a\"")]) else {
            panic!("not fresh")
        };
        assert_eq!((reply.status, reply.body.len()), (304, 0));
    }

    #[test]
    fn rfc_5861_4_a_stale_entry_stands_in_when_upstream_fails() {
        let mut proxy = Proxy::new(1, CACHE);
        proxy.get(0, "");
        let value = "max-age=10, stale-if-error=60";
        proxy.respond(0, &[(":status", "200"), ("cache-control", value)], b"hello");
        later(&mut proxy, 30);
        assert_eq!(status(&proxy.get(0, "")), 0);
        let Verdict::Reply(reply) = proxy.respond(0, &[(":status", "503")], b"down") else {
            panic!("not replaced")
        };
        assert_eq!((reply.status, &*reply.body), (200, &b"hello"[..]));
        later(&mut proxy, 60);
        proxy.get(0, "");
        assert_eq!(status(&proxy.respond(0, &[(":status", "503")], b"down")), 0);
    }

    #[test]
    fn rfc_5861_3_a_stale_entry_answers_while_it_is_fetched_anew() {
        let mut proxy = Proxy::new(1, CACHE);
        proxy.get(0, "");
        let value = "max-age=10, stale-while-revalidate=60";
        proxy.respond(0, &[(":status", "200"), ("cache-control", value)], b"old");
        later(&mut proxy, 30);
        for _ in 0..3 {
            let Verdict::Reply(reply) = proxy.get(0, "") else { panic!("waited") };
            assert_eq!(&*reply.body, b"old");
        }
        let gate = &mut proxy.workers[0];
        let Some(Action::Call(call)) = gate.next_action() else { panic!("no call") };
        assert_eq!((call.cluster.as_str(), gate.next_action()), ("upstream", None));
        let fields: [(&[u8], &[u8]); 2] = [(b":status", b"200"), (b"cache-control", b"max-age=10")];
        let outcome = CallOutcome::Response { fields: Fields::new(&fields), body: b"new" };
        gate.called(call.token, outcome, proxy.now);
        let Verdict::Reply(reply) = proxy.get(0, "") else { panic!("a miss") };
        assert_eq!(&*reply.body, b"new");
    }

    #[test]
    fn rfc_9111_4_4_a_change_makes_it_invalid_in_all_workers() {
        let mut proxy = Proxy::new(2, CACHE);
        let fields =
            [(":status", "200"), ("cache-control", "max-age=10"), ("cache-groups", "\"g\"")];
        for worker in [0, 1] {
            for path in ["/", "/b"] {
                proxy.request_of(path, worker, "", &[]);
                proxy.respond(worker, &fields, b"old");
            }
        }
        proxy.send("POST", 0);
        let invalidation = [(":status", "200"), ("cache-group-invalidation", "\"g\"")];
        proxy.respond(0, &invalidation, b"");
        while let Some(Action::Tell(message)) = proxy.workers[0].next_action() {
            let now = proxy.now;
            proxy.workers[1].message(&message, now);
        }
        for worker in [0, 1] {
            for path in ["/", "/b"] {
                assert_eq!(status(&proxy.request_of(path, worker, "", &[])), 0, "{worker} {path}");
            }
        }
    }

    #[test]
    fn a_response_on_its_way_while_it_is_made_invalid_is_not_stored() {
        let mut proxy = Proxy::new(1, CACHE);
        proxy.get(0, "");
        let (stream, now) = (StreamId(proxy.streams), proxy.now);
        let fields: [(&[u8], &[u8]); 2] = [(b":status", b"200"), (b"cache-control", b"max-age=10")];
        let response = Response { fields: Fields::new(&fields), end: false };
        proxy.workers[0].response(stream, &response, now);
        proxy.send("DELETE", 0);
        proxy.respond(0, &[(":status", "204")], b"");
        proxy.workers[0].body(stream, b"old", true, now);
        assert_eq!(status(&proxy.get(0, "")), 0);
    }

    #[test]
    fn rfc_9111_5_2_1_7_only_if_cached_never_goes_upstream() {
        let mut proxy = Proxy::new(1, CACHE);
        assert_eq!(status(&proxy.request(0, "", &[("cache-control", "only-if-cached")])), 504);
    }

    #[test]
    fn rfc_9111_4_3_5_a_head_updates_or_ends_the_entry() {
        for (etag, stays) in [("\"a\"", true), ("\"b\"", false)] {
            let mut proxy = Proxy::new(1, CACHE);
            proxy.get(0, "");
            let fields = [(":status", "200"), ("cache-control", "max-age=10"), ("etag", "\"a\"")];
            proxy.respond(0, &fields, b"hello");
            later(&mut proxy, 5);
            proxy.send_with("HEAD", 0, &[("cache-control", "no-cache")]);
            let new = [(":status", "200"), ("cache-control", "max-age=90"), ("etag", etag)];
            proxy.respond(0, &new, b"");
            later(&mut proxy, 50);
            assert_eq!(status(&proxy.get(0, "")) == 200, stays, "{etag}");
        }
    }
}
