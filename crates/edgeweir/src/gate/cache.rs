//! The cache's part of an exchange.
//!
//! Stores what says how long it is fresh (RFC 9111 section 5.2.2: `s-maxage`,
//! `max-age`), in the worker's memory, and nothing that could be meant for one user:
//! any doubt means that it is not stored.

use alloc::borrow::Cow;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::time::Duration;

use super::{Answer, Change, Flow, Metric, MetricKind, Now, Reply, Request, Response, Verdict};
use crate::hash::HashSeed;
use crate::http::Fields;
use crate::time::Instant;

/// How the cache is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheSettings {
    /// The most bytes that entries may take in one worker.
    pub max_bytes: usize,
    /// The most bytes of one body; a larger one passes by.
    pub max_entry_bytes: usize,
}

/// What an entry takes beyond its bytes: an estimate that is charged to the budget.
const OVERHEAD: usize = 256;

/// A request field that makes a response hard to tell from another's: such requests
/// go past the cache.
const UNKEYED: [&str; 10] = [
    "authorization",
    "range",
    "x-forwarded-host",
    "x-forwarded-scheme",
    "x-original-url",
    "x-rewrite-url",
    "x-http-method-override",
    "x-http-method",
    "x-method-override",
    "upgrade",
];

/// Fields that belong to one connection, or that the host writes itself.
const NOT_STORED: [&str; 11] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authentication-info",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "content-length",
    "age",
];

/// What the cache knows of one exchange.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Where the response may go.
    key: Option<Rc<[u8]>>,
    /// The response that is being stored.
    capture: Option<Capture>,
}

#[derive(Debug)]
struct Capture {
    entry: Entry,
    body: Vec<u8>,
    /// What `content-length` announced.
    announced: Option<usize>,
}

impl Progress {
    pub(super) fn wants_body(&self) -> bool {
        self.capture.is_some()
    }

    pub(super) fn body_lost(&mut self) {
        self.capture = None;
    }
}

#[derive(Clone, Debug)]
struct Entry {
    status: u16,
    fields: Vec<(Vec<u8>, Vec<u8>)>,
    body: Rc<[u8]>,
    /// When it was received, and its age then.
    received: Instant,
    age: Duration,
    lifetime: Duration,
    bytes: usize,
}

#[derive(Debug)]
pub(super) struct CacheGate {
    settings: CacheSettings,
    entries: BTreeMap<Rc<[u8]>, Entry>,
    // In order of arrival: the oldest goes first.
    order: VecDeque<Rc<[u8]>>,
    bytes: usize,
    hits: u64,
    misses: u64,
    stored: u64,
    evicted: u64,
}

impl CacheGate {
    pub(super) fn new(settings: CacheSettings, _seed: HashSeed) -> Self {
        Self {
            settings,
            entries: BTreeMap::new(),
            order: VecDeque::new(),
            bytes: 0,
            hits: 0,
            misses: 0,
            stored: 0,
            evicted: 0,
        }
    }

    pub(super) fn metrics(&self, metrics: &mut Vec<Metric>) {
        for (name, kind, value) in [
            ("edgeweir.cache.hits", MetricKind::Counter, self.hits),
            ("edgeweir.cache.misses", MetricKind::Counter, self.misses),
            ("edgeweir.cache.stored", MetricKind::Counter, self.stored),
            ("edgeweir.cache.evicted", MetricKind::Counter, self.evicted),
            ("edgeweir.cache.bytes", MetricKind::Gauge, self.bytes as u64),
        ] {
            metrics.push(Metric { name: Cow::from(name), kind, value });
        }
    }

    /// Looks for an answer.
    pub(super) fn step(
        &mut self,
        progress: &mut Progress,
        request: &Request<'_>,
        _answer: Option<Answer<'_>>,
        now: Now,
    ) -> Flow<Verdict> {
        let pass = Flow::Done(Verdict::Pass(Vec::new()));
        let Some((key, head)) = key(request) else { return pass };
        let found = self.entries.get(&key).filter(|entry| entry.age(now) < entry.lifetime);
        match found {
            Some(entry) => {
                self.hits += 1;
                Flow::Done(Verdict::Reply(entry.reply(now)))
            }
            None => {
                self.misses += 1;
                if !head {
                    progress.key = Some(key);
                }
                pass
            }
        }
    }

    /// Begins to store a response that may be stored.
    pub(super) fn response(
        &mut self,
        progress: &mut Progress,
        response: &Response<'_>,
        now: Now,
    ) -> Verdict {
        let entry = progress.key.as_ref().and_then(|_| storable(response.fields, now.instant));
        let announced = response
            .fields
            .first("content-length")
            .and_then(|text| core::str::from_utf8(text).ok()?.parse().ok());
        let fits = announced.is_none_or(|size| size <= self.settings.max_entry_bytes);
        let status: &[u8] = match (entry, fits) {
            (Some(entry), true) => {
                progress.capture = Some(Capture { entry, body: Vec::new(), announced });
                if response.end {
                    self.body(progress, &[], true, now);
                }
                b"edgeweir; fwd=uri-miss; stored"
            }
            _ if progress.key.is_some() => b"edgeweir; fwd=uri-miss",
            _ => b"edgeweir; fwd=bypass",
        };
        Verdict::Pass([Change::Add("cache-status", status.to_vec())].into())
    }

    /// Takes a piece of the body; stores the response at its end.
    pub(super) fn body(&mut self, progress: &mut Progress, piece: &[u8], end: bool, _now: Now) {
        let Some(capture) = &mut progress.capture else { return };
        let room = self.settings.max_entry_bytes.saturating_sub(capture.body.len());
        if room < piece.len() || capture.body.try_reserve(piece.len()).is_err() {
            progress.capture = None;
            return;
        }
        capture.body.extend_from_slice(piece);
        if end && let (Some(capture), Some(key)) = (progress.capture.take(), progress.key.take()) {
            // A response that was cut short is not the response (RFC 9111 section 3.3).
            if capture.announced.is_none_or(|size| size == capture.body.len()) {
                self.store(key, Entry { body: capture.body.into(), ..capture.entry });
            }
        }
    }

    fn store(&mut self, key: Rc<[u8]>, mut entry: Entry) {
        let text: usize = entry.fields.iter().map(|(name, value)| name.len() + value.len()).sum();
        entry.bytes = key.len() + text + entry.body.len() + OVERHEAD;
        if self.settings.max_bytes < entry.bytes {
            return;
        }
        self.bytes += entry.bytes;
        match self.entries.insert(key.clone(), entry) {
            Some(old) => self.bytes -= old.bytes,
            None => self.order.push_back(key),
        }
        self.stored += 1;
        while self.settings.max_bytes < self.bytes
            && let Some(oldest) = self.order.pop_front()
        {
            if let Some(old) = self.entries.remove(&oldest) {
                self.bytes -= old.bytes;
                self.evicted += 1;
            }
        }
    }
}

impl Entry {
    fn age(&self, now: Now) -> Duration {
        self.age.saturating_add(now.instant.since(self.received))
    }

    fn reply(&self, now: Now) -> Reply {
        let age = self.age(now);
        let ttl = self.lifetime.saturating_sub(age).as_secs();
        let mut fields = self.fields.clone();
        fields.push((b"age".to_vec(), format!("{}", age.as_secs()).into_bytes()));
        let status = format!("edgeweir; hit; ttl={ttl}");
        fields.push((b"cache-status".to_vec(), status.into_bytes()));
        Reply {
            status: self.status,
            fields,
            body: self.body.clone(),
            details: "edgeweir_hit",
            grpc_status: -1,
        }
    }
}

/// The key of a request that the cache may answer, and whether it is a HEAD.
///
/// Scheme, authority and path with the query, each with its length, so that no two
/// requests run into one.
fn key(request: &Request<'_>) -> Option<(Rc<[u8]>, bool)> {
    let fields = request.fields;
    let method = fields.first(":method")?;
    let head = method == b"HEAD";
    let body = !request.end || fields.has("content-length") || fields.has("transfer-encoding");
    let special = UNKEYED.iter().any(|name| fields.has(name));
    let refuses = fields.all("cache-control").chain(fields.all("pragma")).next().is_some();
    if !(head || method == b"GET") || body || special || refuses {
        return None;
    }
    let authority = fields.first(":authority")?.to_ascii_lowercase();
    if authority.contains(&b',') {
        return None;
    }
    let mut key = Vec::new();
    for part in [fields.first(":scheme")?, &authority, fields.first(":path")?] {
        key.extend_from_slice(&u32::try_from(part.len()).ok()?.to_le_bytes());
        key.extend_from_slice(part);
    }
    Some((key.into(), head))
}

/// The entry of a response that every client may have and that says for how long.
fn storable(fields: Fields<'_>, now: Instant) -> Option<Entry> {
    let status: u16 = core::str::from_utf8(fields.first(":status")?).ok()?.parse().ok()?;
    // Those whose meaning is known here; 206 and 304 are not whole responses.
    if ![200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501].contains(&status) {
        return None;
    }
    if ["set-cookie", "vary", "content-range", "trailer"].iter().any(|name| fields.has(name)) {
        return None;
    }
    let (mut max_age, mut s_maxage) = (None, None);
    for line in fields.all("cache-control") {
        for directive in line.split(|byte| *byte == b',') {
            let directive = directive.trim_ascii().to_ascii_lowercase();
            let (name, value) = match directive.iter().position(|byte| *byte == b'=') {
                Some(at) => (directive.get(..at)?, directive.get(at + 1..)?),
                None => (&directive[..], &b""[..]),
            };
            match name {
                b"max-age" | b"s-maxage" => {
                    let seconds = seconds(value)?;
                    let slot = if name == b"max-age" { &mut max_age } else { &mut s_maxage };
                    // Said twice: the shorter holds.
                    *slot = Some(slot.unwrap_or(seconds).min(seconds));
                }
                b"public" | b"immutable" | b"must-revalidate" | b"proxy-revalidate"
                | b"no-transform" => {}
                // no-store, no-cache, private, and whatever is not known here.
                _ => return None,
            }
        }
    }
    let lifetime = s_maxage.or(max_age).filter(|seconds| 0 < *seconds)?;
    let mut ages = fields.all("age");
    let age = match (ages.next(), ages.next()) {
        (None, _) => 0,
        (Some(age), None) => seconds(age)?,
        _ => return None,
    };
    let connection: Vec<Vec<u8>> = fields
        .all("connection")
        .flat_map(|line| line.split(|byte| *byte == b','))
        .map(|name| name.trim_ascii().to_ascii_lowercase())
        .collect();
    let kept = |name: &[u8]| {
        !name.starts_with(b":")
            && !NOT_STORED.iter().any(|other| other.as_bytes() == name)
            && !connection.iter().any(|other| other == name)
    };
    Some(Entry {
        status,
        fields: fields
            .iter()
            .filter(|(name, _)| kept(name))
            .map(|(name, value)| (name.to_vec(), value.to_vec()))
            .collect(),
        body: Rc::default(),
        received: now,
        age: Duration::from_secs(age.into()),
        lifetime: Duration::from_secs(lifetime.into()),
        bytes: 0,
    })
}

/// delta-seconds (RFC 9111 section 1.2.2): digits; too many of them mean 2³¹.
fn seconds(text: &[u8]) -> Option<u32> {
    let text = text.trim_ascii();
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = text.iter().fold(0_u32, |number, digit| {
        number.saturating_mul(10).saturating_add(u32::from(digit - b'0'))
    });
    Some(number.min(1 << 31))
}
