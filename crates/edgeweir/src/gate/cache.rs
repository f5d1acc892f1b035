//! The cache's part of an exchange: what [`crate::cache`] decides, in the order in
//! which a proxy needs it.

use alloc::borrow::Cow;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use hashbrown::HashMap;

use super::{
    Action, Answer, Ask, Call, CallOutcome, Change, Flow, Metric, MetricKind, Now, Reply, Request,
    Response, Verdict,
};
use crate::cache::answer::answer;
use crate::cache::entry::{Entry, groups};
use crate::cache::key::{Method, Target, bypass};
use crate::cache::policy::{Policy, judge};
use crate::cache::reuse::{self, Reuse};
use crate::cache::status::{self, Forward};
use crate::cache::store::{Found, Store};
use crate::cache::vary::Selection;
use crate::cache::{invalidate, policy};
use crate::hash::HashSeed;
use crate::http::cache_control::Directives;
use crate::http::{FieldList, Fields, date};

/// How the cache is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheSettings {
    /// The most bytes that entries may take in one worker.
    pub max_bytes: usize,
    /// The most bytes of one body; a larger one passes by.
    pub max_entry_bytes: usize,
    /// What is stored, and for how long.
    pub policy: Policy,
}

/// The property that names the cluster of the request's route.
const CLUSTER_NAME: &[u8] = b"xds\0cluster_name";

/// Refreshes in the background at one time; beyond, requests refresh on their own.
const MAX_REFRESHES: usize = 256;

/// How long a refresh in the background may take.
const REFRESH_TIMEOUT: Duration = Duration::from_secs(30);

/// What a message of the cache to other workers begins with.
const MESSAGE: &[u8] = b"cache\0";

/// What the cache knows of one exchange.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// What was asked, if the cache has to see the response.
    asked: Option<Asked>,
    /// The response that is being stored.
    capture: Option<Capture>,
    /// The fields that the gate's own reply must have, and no others.
    replay: Option<Vec<(Vec<u8>, Vec<u8>)>>,
}

#[derive(Debug)]
struct Asked {
    target: Target,
    method: Method,
    /// Why it went upstream, and a word on that.
    forward: Forward,
    detail: &'static str,
    /// The request's fields, if the response may be stored.
    fields: Option<FieldList>,
    /// The entry that upstream is asked about.
    entry: Option<Rc<Entry>>,
}

#[derive(Debug)]
struct Capture {
    key: Rc<[u8]>,
    request: FieldList,
    status: u16,
    response: FieldList,
    terms: policy::Terms,
    selection: Selection,
    body: Vec<u8>,
    /// What `content-length` announced.
    announced: Option<usize>,
    /// How many times anything was made invalid before it was asked for.
    generation: u64,
}

impl Progress {
    pub(super) fn wants_body(&self) -> bool {
        self.capture.is_some()
    }

    pub(super) fn body_lost(&mut self) {
        self.capture = None;
    }

    pub(super) fn take_replay(&mut self) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
        self.replay.take()
    }
}

/// A call in the background.
#[derive(Debug)]
struct Refresh {
    key: Rc<[u8]>,
    request: FieldList,
    entry: Rc<Entry>,
}

#[derive(Debug, Default)]
struct Counts {
    hits: u64,
    stale: u64,
    misses: u64,
    revalidated: u64,
    bypassed: u64,
    refreshes: u64,
    failed_refreshes: u64,
    too_large: u64,
    incomplete: u64,
}

#[derive(Debug)]
pub(super) struct CacheGate {
    settings: CacheSettings,
    store: Store,
    refreshes: HashMap<u64, Refresh, HashSeed>,
    next_token: u64,
    generation: u64,
    actions: Vec<Action>,
    counts: Counts,
}

impl CacheGate {
    pub(super) fn new(settings: CacheSettings, seed: HashSeed) -> Self {
        Self {
            store: Store::new(settings.max_bytes),
            settings,
            refreshes: HashMap::with_hasher(seed),
            next_token: 0,
            generation: 0,
            actions: Vec::new(),
            counts: Counts::default(),
        }
    }

    pub(super) fn metrics(&self, metrics: &mut Vec<Metric>) {
        let (counts, store) = (&self.counts, self.store.counts());
        for (name, value) in [
            ("edgeweir.cache.hits", counts.hits),
            ("edgeweir.cache.stale", counts.stale),
            ("edgeweir.cache.misses", counts.misses),
            ("edgeweir.cache.revalidated", counts.revalidated),
            ("edgeweir.cache.bypassed", counts.bypassed),
            ("edgeweir.cache.refreshes", counts.refreshes),
            ("edgeweir.cache.failed_refreshes", counts.failed_refreshes),
            ("edgeweir.cache.too_large", counts.too_large),
            ("edgeweir.cache.incomplete", counts.incomplete),
            ("edgeweir.cache.stored", store.stored),
            ("edgeweir.cache.evicted", store.evicted),
            ("edgeweir.cache.invalidated", store.invalidated),
        ] {
            metrics.push(Metric { name: Cow::from(name), kind: MetricKind::Counter, value });
        }
        for (name, value) in
            [("edgeweir.cache.entries", store.entries), ("edgeweir.cache.bytes", store.bytes)]
        {
            let (name, value) = (Cow::from(name), value as u64);
            metrics.push(Metric { name, kind: MetricKind::Gauge, value });
        }
    }

    pub(super) fn take_actions(&mut self) -> Vec<Action> {
        core::mem::take(&mut self.actions)
    }

    /// Looks for an answer.
    pub(super) fn step(
        &mut self,
        progress: &mut Progress,
        request: &Request<'_>,
        given: Option<Answer<'_>>,
        now: Now,
    ) -> Flow<Verdict> {
        let pass = Flow::Done(Verdict::Pass(Vec::new()));
        let fields = request.fields;
        let Some(target) = Target::of(fields) else { return pass };
        let method = Method::of(fields);
        let mut asked = Asked {
            target,
            method,
            forward: Forward::Method,
            detail: "",
            fields: None,
            entry: None,
        };
        if !matches!(method, Method::Get | Method::Head) {
            progress.asked = Some(asked);
            return pass;
        }
        if let Some(why) = bypass(fields, request.end) {
            self.counts.bypassed += 1;
            (asked.forward, asked.detail) = (Forward::Bypass, why);
            progress.asked = Some(asked);
            return pass;
        }
        let directives = Directives::of_request(fields);
        let key = asked.target.key();
        asked.forward = match self.store.find(&key, fields) {
            Found::Nothing => Forward::UriMiss,
            Found::Other => Forward::VaryMiss,
            Found::Entry(entry) => match reuse::decide(&entry, &directives, now.instant) {
                Reuse::Fresh => {
                    self.counts.hits += 1;
                    return self.reply(progress, &entry, fields, method, None, now);
                }
                Reuse::Stale => {
                    self.counts.stale += 1;
                    return self.reply(progress, &entry, fields, method, Some("max-stale"), now);
                }
                Reuse::StaleWhileRevalidate => {
                    let refreshed = self.refreshes.values().any(|refresh| refresh.key == key);
                    let cluster = match given {
                        _ if refreshed => None,
                        None => return Flow::Ask(Ask::Property(Cow::Borrowed(CLUSTER_NAME))),
                        Some(Answer::Property(name)) => name.and_then(text),
                        Some(_) => None,
                    };
                    if let Some(cluster) = cluster {
                        self.refresh(cluster, &key, fields, &entry);
                    }
                    if refreshed || cluster.is_some() {
                        self.counts.stale += 1;
                        let why = Some("stale-while-revalidate");
                        return self.reply(progress, &entry, fields, method, why, now);
                    }
                    // No call can be made: this request asks upstream.
                    asked.entry = Some(entry);
                    Forward::Stale
                }
                Reuse::Validate => {
                    let fresh = entry.age(now.instant) < entry.lifetime();
                    let why =
                        if fresh && !entry.no_cache { Forward::Request } else { Forward::Stale };
                    asked.entry = Some(entry);
                    why
                }
            },
        };
        if directives.has("only-if-cached") {
            // RFC 9111 section 5.2.1.7.
            return Flow::Done(Verdict::Reply(gateway_timeout(asked.forward)));
        }
        self.counts.misses += 1;
        let conditions = asked.entry.as_ref().map(|entry| reuse::conditions(entry));
        let conditions = conditions.unwrap_or_default();
        asked.fields = Some(FieldList::new(fields.iter()));
        progress.asked = Some(asked);
        Flow::Done(Verdict::Pass(conditional(conditions, fields)))
    }

    /// The answer of an entry.
    fn reply(
        &mut self,
        progress: &mut Progress,
        entry: &Entry,
        request: Fields<'_>,
        method: Method,
        detail: Option<&str>,
        now: Now,
    ) -> Flow<Verdict> {
        let status = status::hit(entry, now.instant, detail);
        let reply = reply_of(entry, request, method, status, "edgeweir_hit", now);
        // A host adds fields to what it takes for its own reply: those of the route,
        // which are in the entry already, and a content type.
        let mut exact = Vec::with_capacity(reply.fields.len() + 2);
        exact.push((b":status".to_vec(), format!("{}", reply.status).into_bytes()));
        exact.extend(reply.fields.iter().cloned());
        if !matches!(reply.status, 204 | 304) {
            let length = format!("{}", reply.body.len()).into_bytes();
            exact.push((b"content-length".to_vec(), length));
        }
        progress.replay = Some(exact);
        Flow::Done(Verdict::Reply(reply))
    }

    /// Fetches an entry anew without a client.
    fn refresh(&mut self, cluster: &str, key: &Rc<[u8]>, request: Fields<'_>, entry: &Rc<Entry>) {
        if MAX_REFRESHES <= self.refreshes.len() {
            return;
        }
        const OMITTED: [&str; 9] = [
            ":method",
            "if-none-match",
            "if-modified-since",
            "if-range",
            "range",
            "cache-control",
            "pragma",
            "connection",
            "x-envoy-expected-rq-timeout-ms",
        ];
        let kept = |name: &[u8]| !OMITTED.iter().any(|other| other.as_bytes() == name);
        let mut fields = Vec::new();
        fields.push((b":method".to_vec(), b"GET".to_vec()));
        fields
            .extend(request.iter().filter(|(n, _)| kept(n)).map(|(n, v)| (n.to_vec(), v.to_vec())));
        for (name, value) in reuse::conditions(entry) {
            fields.push((name.as_bytes().to_vec(), value));
        }
        self.next_token += 1;
        self.counts.refreshes += 1;
        let request = FieldList::new(request.iter());
        let (key, entry) = (key.clone(), entry.clone());
        self.refreshes.insert(self.next_token, Refresh { key, request, entry });
        self.actions.push(Action::Call(Call {
            token: self.next_token,
            cluster: cluster.into(),
            fields,
            body: Vec::new(),
            timeout: REFRESH_TIMEOUT,
        }));
    }

    /// A refresh has ended. Gives whether it was one of the cache's.
    pub(super) fn called(&mut self, token: u64, outcome: CallOutcome<'_>, now: Now) -> bool {
        let Some(Refresh { key, request, entry }) = self.refreshes.remove(&token) else {
            return false;
        };
        let CallOutcome::Response { fields, body } = outcome else {
            self.counts.failed_refreshes += 1;
            return true;
        };
        let pairs = request.pairs();
        let request = Fields::new(&pairs);
        match status_of(fields) {
            Some(304) => {
                self.revalidate(&key, &entry, request, fields, now);
            }
            Some(status) if !reuse::is_failure(status) => {
                // What is too large is not stored, nor what was cut short.
                let whole = announced(fields).is_none_or(|length| length == body.len());
                let fits = whole && body.len() <= self.settings.max_entry_bytes;
                let terms = judge(&self.settings.policy, request, status, fields, now.unix);
                match (terms, Selection::of(fields, request)) {
                    (Ok(terms), Some(selection)) if fits => {
                        let dated = with_date(fields, now);
                        let dated = dated.pairs();
                        let response = Fields::new(&dated);
                        let instant = now.instant;
                        let entry =
                            Entry::new(status, response, body.into(), &terms, selection, instant);
                        self.store.insert(&key, entry, request);
                    }
                    _ => self.store.remove_fitting(&key, request),
                }
            }
            _ => self.counts.failed_refreshes += 1,
        }
        true
    }

    /// An entry after a 304 about it: stored anew if it still may be.
    fn revalidate(
        &mut self,
        key: &Rc<[u8]>,
        entry: &Entry,
        request: Fields<'_>,
        response: Fields<'_>,
        now: Now,
    ) -> Entry {
        self.counts.revalidated += 1;
        if !entry.is_told_of_by(response) {
            // It answers this request, which was told so, and no other.
            self.store.remove_fitting(key, request);
            return entry.clone();
        }
        let dated = with_date(response, now);
        let merged = entry.refreshed(Fields::new(&dated.pairs()));
        let pairs = merged.pairs();
        let fields = Fields::new(&pairs);
        let terms = judge(&self.settings.policy, request, entry.status, fields, now.unix);
        let selection = Selection::of(fields, request);
        let body = entry.body.clone();
        match (terms, selection) {
            (Ok(terms), Some(selection)) => {
                let new = Entry::new(entry.status, fields, body, &terms, selection, now.instant);
                self.store.insert(key, new.clone(), request);
                new
            }
            _ => {
                self.store.remove_fitting(key, request);
                entry.clone()
            }
        }
    }

    /// Begins to store a response that may be stored, or puts what is stored in its
    /// place.
    pub(super) fn response(
        &mut self,
        progress: &mut Progress,
        response: &Response<'_>,
        now: Now,
    ) -> Verdict {
        let Some(asked) = progress.asked.take() else { return Verdict::Pass(Vec::new()) };
        let fields = response.fields;
        let Some(code) = status_of(fields) else { return Verdict::Pass(Vec::new()) };
        let told = |stored: Result<(), &str>| {
            let value = status::forwarded(asked.forward, code, stored);
            Verdict::Pass([Change::Add("cache-status", value.into_bytes())].into())
        };
        if asked.method == Method::Unsafe {
            self.change(&asked.target, code, fields);
            return told(Err(""));
        }
        let Some(request_list) = &asked.fields else { return told(Err(asked.detail)) };
        let pairs = request_list.pairs();
        let request = Fields::new(&pairs);
        let key = asked.target.key();
        if let Some(entry) = &asked.entry {
            if code == 304 && !reuse::conditions(entry).is_empty() {
                let entry = self.revalidate(&key, entry, request, fields, now);
                let status = status::forwarded(asked.forward, code, Ok(()));
                let details = "edgeweir_revalidated";
                let reply = reply_of(&entry, request, asked.method, status, details, now);
                return Verdict::Reply(reply);
            }
            let directives = Directives::of_request(request);
            if reuse::is_failure(code) && reuse::may_stand_in(entry, &directives, now.instant) {
                self.counts.stale += 1;
                let status = status::forwarded(asked.forward, code, Err("stale-if-error"));
                let details = "edgeweir_stale";
                let reply = reply_of(entry, request, asked.method, status, details, now);
                return Verdict::Reply(reply);
            }
        }
        if asked.method == Method::Head {
            self.head(&key, request, code, fields, now);
            return told(Err(""));
        }
        let judged = judge(&self.settings.policy, request, code, fields, now.unix);
        let selection = Selection::of(fields, request).ok_or("vary");
        let announced = announced(fields);
        let fits = announced.is_none_or(|length| length <= self.settings.max_entry_bytes);
        match judged.and_then(|terms| Ok((terms, selection?))) {
            Ok((terms, selection)) if fits => {
                progress.capture = Some(Capture {
                    key,
                    request: request_list.clone(),
                    status: code,
                    response: with_date(fields, now),
                    terms,
                    selection,
                    body: Vec::new(),
                    announced,
                    generation: self.generation,
                });
                if response.end {
                    self.body(progress, &[], true, now);
                }
                told(Ok(()))
            }
            Ok(_) => {
                self.counts.too_large += 1;
                told(Err("too-large"))
            }
            Err(why) => {
                // The newer answer must not be followed by the older one.
                if asked.entry.is_some() && !reuse::is_failure(code) && code != 304 {
                    self.store.remove_fitting(&key, request);
                }
                told(Err(why))
            }
        }
    }

    /// What the response to a HEAD says about the entry for GET (RFC 9111 section 4.3.5).
    fn head(
        &mut self,
        key: &Rc<[u8]>,
        request: Fields<'_>,
        code: u16,
        fields: Fields<'_>,
        now: Now,
    ) {
        if code != 200 {
            return;
        }
        let Found::Entry(entry) = self.store.find(key, request) else { return };
        let same =
            |name: &str| fields.first(name).is_none_or(|new| entry.fields.first(name) == Some(new));
        let length = announced(fields).is_none_or(|length| length == entry.body.len());
        if entry.status == 200 && same("etag") && same("last-modified") && length {
            self.revalidate(key, &entry, request, fields, now);
        } else {
            self.store.remove_fitting(key, request);
        }
    }

    /// What a request that changes things makes invalid, here and in all workers.
    fn change(&mut self, target: &Target, code: u16, fields: Fields<'_>) {
        for key in invalidate::targets(target, code, fields) {
            self.forget(&key, None);
            self.tell(b'k', &key, None);
        }
        if (200..400).contains(&code) {
            let origin = target.origin();
            for group in groups(fields, "cache-group-invalidation") {
                self.forget(&origin, Some(&group));
                self.tell(b'g', &origin, Some(&group));
            }
        }
    }

    fn forget(&mut self, key: &[u8], group: Option<&str>) {
        self.generation += 1;
        match group {
            None => self.store.invalidate(key),
            Some(group) => self.store.invalidate_within(key, Some(group)),
        };
    }

    fn tell(&mut self, kind: u8, key: &[u8], group: Option<&str>) {
        let mut message = MESSAGE.to_vec();
        message.push(kind);
        message.extend_from_slice(&u32::try_from(key.len()).unwrap_or(u32::MAX).to_le_bytes());
        message.extend_from_slice(key);
        message.extend_from_slice(group.unwrap_or_default().as_bytes());
        self.actions.push(Action::Tell(message));
    }

    /// What another worker, or this one, has told.
    pub(super) fn heed(&mut self, message: &[u8]) {
        let Some((kind, rest)) = message.strip_prefix(MESSAGE).and_then(<[u8]>::split_first) else {
            return;
        };
        let Some((length, rest)) = rest.split_first_chunk::<4>() else { return };
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let Some((key, group)) = rest.split_at_checked(length) else { return };
        match kind {
            b'k' => self.forget(key, None),
            b'g' => self.forget(key, core::str::from_utf8(group).ok()),
            _ => {}
        }
    }

    /// Takes a piece of the body; stores the response at its end.
    pub(super) fn body(&mut self, progress: &mut Progress, piece: &[u8], end: bool, now: Now) {
        let Some(capture) = &mut progress.capture else { return };
        let room = self.settings.max_entry_bytes.saturating_sub(capture.body.len());
        if room < piece.len() || capture.body.try_reserve(piece.len()).is_err() {
            self.counts.too_large += 1;
            progress.capture = None;
            return;
        }
        capture.body.extend_from_slice(piece);
        if !end {
            return;
        }
        let Some(capture) = progress.capture.take() else { return };
        // A response that was cut short is not the response (RFC 9111 section 3.3).
        if capture.announced.is_some_and(|length| length != capture.body.len()) {
            self.counts.incomplete += 1;
            return;
        }
        // Something was made invalid while this was on its way: it may be that.
        if capture.generation != self.generation {
            return;
        }
        let (response, request) = (capture.response.pairs(), capture.request.pairs());
        let (response, request) = (Fields::new(&response), Fields::new(&request));
        let body = capture.body.into();
        let (terms, selection) = (&capture.terms, capture.selection);
        let entry = Entry::new(capture.status, response, body, terms, selection, now.instant);
        self.store.insert(&capture.key, entry, request);
    }
}

/// The changes that make a request ask whether an entry still holds; none without
/// conditions.
fn conditional(conditions: Vec<(&'static str, Vec<u8>)>, fields: Fields<'_>) -> Vec<Change> {
    if conditions.is_empty() {
        return Vec::new();
    }
    let mut changes = Vec::new();
    // The client's own are answered from what comes back.
    for name in ["if-none-match", "if-modified-since", "if-range", "range"] {
        if fields.has(name) && !conditions.iter().any(|(other, _)| *other == name) {
            changes.push(Change::Remove(name));
        }
    }
    changes.extend(conditions.into_iter().map(|(name, value)| Change::Set(name, value)));
    changes
}

fn reply_of(
    entry: &Entry,
    request: Fields<'_>,
    method: Method,
    status: String,
    details: &'static str,
    now: Now,
) -> Reply {
    let head = method == Method::Head;
    let answer = answer(entry, request, head, now.instant, now.unix);
    let mut fields = answer.fields;
    fields.push((b"cache-status".to_vec(), status.into_bytes()));
    Reply { status: answer.status, fields, body: answer.body, details, grpc_status: -1 }
}

fn gateway_timeout(forward: Forward) -> Reply {
    let status = match forward {
        Forward::Stale => "edgeweir; fwd=stale; detail=only-if-cached",
        _ => "edgeweir; fwd=uri-miss; detail=only-if-cached",
    };
    Reply {
        status: 504,
        fields: [
            (b"cache-control".to_vec(), b"no-store".to_vec()),
            (b"cache-status".to_vec(), status.as_bytes().to_vec()),
        ]
        .into(),
        body: Rc::default(),
        details: "edgeweir_only_if_cached",
        grpc_status: -1,
    }
}

fn status_of(fields: Fields<'_>) -> Option<u16> {
    text(fields.first(":status")?)?.parse().ok()
}

fn text(bytes: &[u8]) -> Option<&str> {
    core::str::from_utf8(bytes).ok()
}

/// The length that a response says it has.
fn announced(fields: Fields<'_>) -> Option<usize> {
    text(fields.first("content-length")?)?.parse().ok()
}

/// A response's fields and a `Date`, which is added if there is none (RFC 9110 section
/// 6.6.1: whoever stores a response does that).
fn with_date(fields: Fields<'_>, now: Now) -> FieldList {
    let date = date::format(now.unix);
    let mut pairs: Vec<(&[u8], &[u8])> = fields.iter().collect();
    if !fields.has("date") {
        pairs.push((b"date", date.as_bytes()));
    }
    FieldList::new(pairs)
}
