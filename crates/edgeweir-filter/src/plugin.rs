//! What one VM holds: its configurations, the streams between them, and the calls
//! that are out.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use edgeweir::config;
use edgeweir::gate::{
    Action as Todo, Answer, Ask, CallOutcome, Change, Features, Gate, Level, MetricKind, Now,
    Reply, Request, Response, Seeds, SharedKey, Step, StreamId, Verdict,
};
use edgeweir::hash::HashSeed;
use edgeweir::http::{Fields, emit};
use edgeweir::random::Random;
use edgeweir::time::Instant;
use proxy_wasm::types::{Action, BufferType, LogLevel, MapType, MetricType};

use crate::host;

/// Which features this module has, where the tool that links it can change it:
/// `l`, `c`, `t` stand for limit, cache and trace, `-` for none.
#[used]
static FEATURES: [u8; 32] = *b"edgeweir-features:lct\0\0\0\0\0\0\0\0\0\0\0";

fn features() -> Features {
    // Read as if it could change: the bytes are patched after compilation.
    let bytes = core::hint::black_box(&FEATURES);
    let has = |at: usize, letter: u8| bytes.get(at) == Some(&letter);
    Features { limit: has(18, b'l'), cache: has(19, b'c'), trace: has(20, b't') }
}

/// The name under which the workers agree on one seed for their hashes.
const SEED_KEY: &[u8] = b"edgeweir-seed";

/// The shared list of the queues on which workers listen: ids, u32, little endian.
const DIRECTORY_KEY: &[u8] = b"edgeweir-workers";

/// The most queues in the list; beyond, the oldest go. VMs that are gone stay in it
/// until then: nothing tells a VM that it ends.
const MAX_WORKERS: usize = 256;

/// How often the host's metrics are brought up to date: a little less than a second, so
/// that a tick each second does it each time.
const REPORT_EACH: Duration = Duration::from_millis(900);

/// How often a compare-and-swap is tried before it counts as failed.
const CAS_TRIES: usize = 16;

/// One configuration of this VM.
#[derive(Debug)]
struct Root {
    /// The host's number of it.
    id: u32,
    /// `plugin_root_id`: tells plugins apart that share this VM.
    name: Vec<u8>,
    gate: Gate,
    /// The queue on which this VM hears the others.
    queue: Option<u32>,
    /// Tokens of calls that are out: the host's to the gate's.
    calls: BTreeMap<u32, u64>,
    /// The host's id of each metric, and what was reported so far.
    metrics: BTreeMap<String, (u32, u64)>,
    /// When that was.
    reported: Instant,
}

/// Everything that this VM knows.
#[derive(Debug, Default)]
pub(crate) struct Plugin {
    roots: Vec<Root>,
}

thread_local! {
    static PLUGIN: RefCell<Plugin> = RefCell::default();
}

/// Runs `act` on this VM's plugin; not at all if a host calls back while another
/// callback runs, which Envoy does not.
pub(crate) fn with_plugin<T>(act: impl FnOnce(&mut Plugin) -> T) -> Option<T> {
    PLUGIN.with(|plugin| plugin.try_borrow_mut().ok().map(|mut plugin| act(&mut plugin)))
}

fn now() -> Now {
    Now { instant: host::now(), unix: host::unix_time() }
}

impl Plugin {
    /// A new configuration. It must depend on nothing but its bytes: a worker that
    /// refuses what the first VM accepted would run without any filter.
    pub(crate) fn configure(&mut self, id: u32, size: usize) -> bool {
        let document = match host::buffer(BufferType::PluginConfiguration, size) {
            Ok(document) => document,
            Err(host::Error::NOT_FOUND) => Vec::new(),
            Err(error) => {
                host::log(LogLevel::Error, &format!("edgeweir: no configuration: {error:?}"));
                return false;
            }
        };
        let gate = match config::build(&document, features(), seeds()) {
            Ok(gate) => gate,
            Err(error) => {
                host::log(LogLevel::Error, &format!("edgeweir: {error}"));
                return false;
            }
        };
        let period = u32::try_from(gate.tick_period().as_millis()).unwrap_or(u32::MAX);
        if let Err(error) = host::set_tick_period(period) {
            host::log(LogLevel::Warn, &format!("edgeweir: no timer: {error:?}"));
        }
        let name = host::property(b"plugin_root_id").unwrap_or_default();
        // The newest configuration of a name gets its streams from now on; an older
        // one stays until its last stream has ended.
        self.roots.retain(|root| root.name != name || root.gate.streams() > 0);
        let queue = if gate.wants_messages() { join() } else { None };
        let (calls, metrics) = (BTreeMap::new(), BTreeMap::new());
        let reported = Instant::ZERO;
        self.roots.push(Root { id, name, gate, queue, calls, metrics, reported });
        true
    }

    /// The configuration that a new stream belongs to.
    fn newest(&mut self) -> Option<&mut Root> {
        let first = self.roots.first().map(|root| &root.name)?;
        if self.roots.iter().all(|root| root.name == *first) {
            return self.roots.last_mut();
        }
        // Asked only where plugins share a VM: each property costs microseconds.
        let name = host::property(b"plugin_root_id").unwrap_or_default();
        self.roots.iter_mut().rev().find(|root| root.name == name)
    }

    fn of_stream(&mut self, stream: StreamId) -> Option<&mut Root> {
        self.roots.iter_mut().rev().find(|root| root.gate.has(stream))
    }

    fn of_id(&mut self, id: u32) -> Option<&mut Root> {
        self.roots.iter_mut().rev().find(|root| root.id == id)
    }

    pub(crate) fn request(&mut self, stream: u32, end: bool) -> Action {
        let Some(root) = self.newest() else { return Action::Continue };
        let Ok(map) = host::header_map(MapType::HttpRequestHeaders) else {
            return Action::Continue;
        };
        let pairs = host::pairs(&map);
        let request = Request { fields: Fields::new(&pairs), end };
        let (id, now) = (StreamId(stream), root.now());
        let mut step = root.gate.request(id, &request, now);
        let verdict = loop {
            match step {
                Step::Ask(ask) => step = root.ask(id, &request, ask, now),
                Step::Verdict(verdict) => break verdict,
            }
        };
        let action = act(verdict, MapType::HttpRequestHeaders);
        root.drain(stream);
        action
    }

    pub(crate) fn response(&mut self, stream: u32, end: bool) -> Action {
        let id = StreamId(stream);
        let Some(root) = self.of_stream(id) else { return Action::Continue };
        if let Some(fields) = root.gate.replay(id) {
            let _ = host::set_header_map(MapType::HttpResponseHeaders, &writable(&fields));
            return Action::Continue;
        }
        if !root.gate.wants_response(id) {
            return Action::Continue;
        }
        let Ok(map) = host::header_map(MapType::HttpResponseHeaders) else {
            return Action::Continue;
        };
        let pairs = host::pairs(&map);
        let now = root.now();
        let verdict = root.gate.response(id, &Response { fields: Fields::new(&pairs), end }, now);
        let action = act(verdict, MapType::HttpResponseHeaders);
        root.drain(stream);
        action
    }

    pub(crate) fn body(&mut self, stream: u32, size: usize, end: bool) {
        let id = StreamId(stream);
        let Some(root) = self.of_stream(id) else { return };
        if !root.gate.wants_body(id) {
            return;
        }
        let piece = match size {
            0 => Ok(Vec::new()),
            size => host::buffer(BufferType::HttpResponseBody, size),
        };
        match piece {
            Ok(piece) if piece.len() == size => root.gate.body(id, &piece, end, now()),
            _ => root.gate.body_lost(id),
        }
        root.drain(stream);
    }

    pub(crate) fn finished(&mut self, stream: u32) {
        let id = StreamId(stream);
        let Some(root) = self.of_stream(id) else { return };
        // The end of an exchange has no time for a gate that only limits.
        let now = if root.gate.wants_unix_time() { now() } else { Now::default() };
        root.gate.finished(id, now);
        root.drain(stream);
        if let Some((newest, old)) = self.roots.split_last() {
            let (name, done) = (&newest.name, |root: &Root| root.gate.streams() == 0);
            if old.iter().any(|root| root.name == *name && done(root)) {
                let (name, id) = (newest.name.clone(), newest.id);
                self.roots.retain(|root| root.id == id || root.name != name || !done(root));
            }
        }
    }

    pub(crate) fn tick(&mut self, id: u32) {
        let Some(root) = self.of_id(id) else { return };
        let now = now();
        root.gate.tick(now);
        root.drain(id);
        // A gate may want ticks each few milliseconds; operators do not.
        if REPORT_EACH <= now.instant.since(root.reported) {
            root.reported = now.instant;
            root.report();
        }
    }

    pub(crate) fn called(&mut self, id: u32, token: u32, headers: u32, body_size: usize) {
        let Some(root) = self.of_id(id) else { return };
        let Some(token) = root.calls.remove(&token) else { return };
        let map = match headers {
            0 => None,
            _ => host::header_map(MapType::HttpCallResponseHeaders).ok(),
        };
        let body = match body_size {
            0 => Some(Vec::new()),
            size => host::buffer(BufferType::HttpCallResponseBody, size).ok(),
        };
        match (map, body) {
            (Some(map), Some(body)) => {
                let pairs = host::pairs(&map);
                let outcome = CallOutcome::Response { fields: Fields::new(&pairs), body: &body };
                root.gate.called(token, outcome, now());
            }
            _ => root.gate.called(token, CallOutcome::Failed, now()),
        }
        root.drain(id);
    }

    pub(crate) fn message(&mut self, id: u32, queue: u32) {
        let root = self.of_id(id);
        let (mut ours, now) = (root.filter(|root| root.queue == Some(queue)), now());
        // One callback can stand for several messages; a bound keeps a flood from
        // holding the worker. A queue that is not ours was registered by the VM that
        // only tried the configuration: its messages end here, or they would pile up.
        for _ in 0..1024 {
            let Ok(message) = host::dequeue(queue) else { break };
            if let Some(root) = &mut ours {
                root.gate.message(&message, now);
            }
        }
        if let Some(root) = ours {
            root.drain(id);
        }
    }
}

impl Root {
    /// Finds out what the gate asks for and gives it the answer.
    fn ask(&mut self, id: StreamId, request: &Request<'_>, ask: Ask, now: Now) -> Step {
        match ask {
            Ask::Property(path) => {
                let value = host::property(&path).ok();
                self.gate.answer(id, request, Answer::Property(value.as_deref()), now)
            }
            Ask::Read(key) => match host::shared(key.as_bytes()) {
                Ok((value, cas)) => {
                    self.gate.answer(id, request, Answer::Shared(Some((&value, cas))), now)
                }
                Err(host::Error::NOT_FOUND) => {
                    self.gate.answer(id, request, Answer::Shared(None), now)
                }
                Err(_) => self.gate.answer(id, request, Answer::Failed, now),
            },
            Ask::Write { key, value, cas } => {
                let answer = match host::set_shared(key.as_bytes(), &value, cas) {
                    Ok(()) => Answer::Written(true),
                    Err(host::Error::CAS_MISMATCH) => Answer::Written(false),
                    Err(_) => Answer::Failed,
                };
                self.gate.answer(id, request, answer, now)
            }
        }
    }

    /// Does what the gate has left to do. `context` is the one whose callback runs:
    /// the host's calls must be directed back at it.
    fn drain(&mut self, context: u32) {
        let mut moved = false;
        while let Some(action) = self.gate.next_action() {
            match action {
                Todo::Resume(stream, changes) => {
                    moved = true;
                    if host::set_effective_context(stream.0).is_ok() {
                        change(changes, MapType::HttpRequestHeaders);
                        let _ = host::continue_request();
                    }
                }
                Todo::Reply(stream, reply) => {
                    moved = true;
                    if host::set_effective_context(stream.0).is_ok() {
                        send(&reply);
                    }
                }
                Todo::Call(call) => {
                    // On the root context: a call of a stream dies with its client.
                    moved = true;
                    let fields = writable(&call.fields);
                    let timeout = u32::try_from(call.timeout.as_millis()).unwrap_or(u32::MAX);
                    let made = host::set_effective_context(self.id).and_then(|()| {
                        host::http_call(&call.cluster, &fields, &call.body, timeout)
                    });
                    match made {
                        Ok(token) => {
                            self.calls.insert(token, call.token);
                        }
                        Err(_) => self.gate.called(call.token, CallOutcome::Failed, now()),
                    }
                }
                Todo::Write(key, value) => {
                    let _ = host::set_shared(key.as_bytes(), &value, 0);
                }
                Todo::Update(key, token) => self.update(key, token),
                Todo::Tell(message) => tell(&message),
                Todo::Log(level, line) => host::log(log_level(level), &line),
            }
        }
        if moved {
            let _ = host::set_effective_context(context);
        }
    }
}

impl Root {
    /// The time as far as the gate needs it: each clock is a call to the host.
    fn now(&self) -> Now {
        match self.gate.wants_unix_time() {
            true => now(),
            false => Now { instant: host::now(), ..Now::default() },
        }
    }

    /// Changes a shared value as the gate says, whoever else changes it.
    fn update(&mut self, key: SharedKey, token: u64) {
        for _ in 0..CAS_TRIES {
            let read = match host::shared(key.as_bytes()) {
                Ok(read) => Some(read),
                Err(host::Error::NOT_FOUND) => None,
                Err(_) => break,
            };
            let now = now();
            let old = read.as_ref().map(|(value, _)| value.as_slice());
            let Some(value) = self.gate.update(token, old, now) else { return };
            let cas = read.as_ref().map_or(SharedKey::ABSENT, |(_, cas)| *cas);
            match host::set_shared(key.as_bytes(), &value, cas) {
                Ok(()) => return self.gate.updated(token, true, now),
                Err(host::Error::CAS_MISMATCH) => {}
                Err(_) => break,
            }
        }
        self.gate.updated(token, false, now());
    }

    /// Brings the host's metrics up to date with the gate's: once a tick and not once
    /// a request, so counting costs a request nothing.
    fn report(&mut self) {
        for metric in self.gate.metrics() {
            let kind = match metric.kind {
                MetricKind::Counter => MetricType::Counter,
                MetricKind::Gauge => MetricType::Gauge,
            };
            let known = self.metrics.get(metric.name.as_ref()).copied();
            let Some((id, before)) =
                known.or_else(|| Some((host::define_metric(kind, &metric.name).ok()?, 0)))
            else {
                continue;
            };
            // A gauge is added to as well: its value is the sum over the workers.
            let change = i64::try_from(i128::from(metric.value) - i128::from(before));
            if change.is_ok_and(|change| change != 0 && host::increment_metric(id, change).is_ok())
            {
                self.metrics.insert(metric.name.into_owned(), (id, metric.value));
            } else if known.is_none() {
                self.metrics.insert(metric.name.into_owned(), (id, before));
            }
        }
    }
}

/// Registers a queue for this VM and adds it to the list that [`tell`] reads.
fn join() -> Option<u32> {
    let name: [u8; 16] = host::entropy().ok()?;
    let queue = host::register_queue(&name).ok()?;
    for _ in 0..CAS_TRIES {
        let (mut list, cas) =
            host::shared(DIRECTORY_KEY).unwrap_or((Vec::new(), SharedKey::ABSENT));
        list.extend_from_slice(&queue.to_le_bytes());
        let oldest = list.len().saturating_sub(MAX_WORKERS * 4);
        list.drain(..oldest);
        match host::set_shared(DIRECTORY_KEY, &list, cas) {
            Err(host::Error::CAS_MISMATCH) => {}
            Ok(()) => return Some(queue),
            Err(_) => break,
        }
    }
    host::log(LogLevel::Warn, "edgeweir: this worker will not hear the others");
    None
}

/// Puts a message into every worker's queue, this one's too.
fn tell(message: &[u8]) {
    let (list, _) = host::shared(DIRECTORY_KEY).unwrap_or_default();
    for id in list.chunks_exact(4) {
        if let Ok(id) = <[u8; 4]>::try_from(id) {
            // A queue whose VM is gone does not take it.
            let _ = host::enqueue(u32::from_le_bytes(id), message);
        }
    }
}

/// Seeds from the host's entropy. The hash seed is agreed on through shared data,
/// so that all workers find a key in the same place; whoever writes first wins.
fn seeds() -> Seeds {
    // A host without entropy gets fixed seeds: predictable, but not down.
    let own: [u8; 16] = host::entropy().unwrap_or([0x5e; 16]);
    let _ = host::set_shared(SEED_KEY, &own, SharedKey::ABSENT);
    let agreed = host::shared(SEED_KEY).ok();
    let hash = agreed.and_then(|(seed, _)| seed.try_into().ok()).unwrap_or(own);
    let random: [u8; 32] = host::entropy().unwrap_or([0xa7; 32]);
    Seeds { hash: HashSeed::from_bytes(hash), random: Random::from_seed(random) }
}

fn act(verdict: Verdict, map: MapType) -> Action {
    match verdict {
        Verdict::Pass(changes) => {
            change(changes, map);
            Action::Continue
        }
        Verdict::Reply(reply) => {
            send(&reply);
            Action::Pause
        }
        Verdict::Wait => Action::Pause,
    }
}

fn change(changes: Vec<Change>, map: MapType) {
    for change in changes {
        // A host that refuses one change may take the others; what could not stand in
        // a header is left out here, for the host would write it all the same.
        let _ = match change {
            Change::Set(name, value) if emit::is_value(&value) => {
                host::replace_header(map, name.as_bytes(), &value)
            }
            Change::Add(name, value) if emit::is_value(&value) => {
                host::add_header(map, name.as_bytes(), &value)
            }
            Change::Set(..) | Change::Add(..) => Ok(()),
            Change::Remove(name) => host::remove_header(map, name.as_bytes()),
            Change::Replace(fields) => host::set_header_map(map, &writable(&fields)),
        };
    }
}

fn send(reply: &Reply) {
    let fields = writable(&reply.fields);
    let status = if emit::is_final_status(reply.status) { reply.status } else { 502 };
    // A body after a status that has none would be read as the next response.
    let body = if matches!(status, 204 | 304) { &[][..] } else { &reply.body };
    let _ = host::send_response(status, reply.details, &fields, body, reply.grpc_status);
}

/// The fields that can stand in a header.
fn writable(fields: &[(Vec<u8>, Vec<u8>)]) -> Vec<(&[u8], &[u8])> {
    fields
        .iter()
        .filter(|(name, value)| emit::is_name(name) && emit::is_value(value))
        .map(|(name, value)| (name.as_slice(), value.as_slice()))
        .collect()
}

fn log_level(level: Level) -> LogLevel {
    match level {
        Level::Debug => LogLevel::Debug,
        Level::Info => LogLevel::Info,
        Level::Warn => LogLevel::Warn,
    }
}
