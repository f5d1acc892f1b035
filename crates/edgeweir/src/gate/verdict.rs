//! What the gate and its edge say to each other.
//!
//! The gate never calls out. While it decides, it may [`Ask`] for a value; the
//! edge brings an [`Answer`]. In the end there is a [`Verdict`]. What is to be
//! done for other streams, or at no stream's expense, waits as an [`Action`].

use alloc::borrow::Cow;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use crate::http::Fields;
use crate::time::{Instant, UnixTime};

/// One HTTP exchange, as the edge numbers them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u32);

/// The two clocks at one moment.
#[derive(Clone, Copy, Debug, Default)]
pub struct Now {
    /// For rates, waits and ages.
    pub instant: Instant,
    /// For dates and spans.
    pub unix: UnixTime,
}

/// The head of a request, with its pseudo-header fields (`:method`, `:path` ...).
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// All header fields, in order.
    pub fields: Fields<'a>,
    /// Whether there is no body.
    pub end: bool,
}

/// The head of a response, with `:status`.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    /// All header fields, in order.
    pub fields: Fields<'a>,
    /// Whether there is no body.
    pub end: bool,
}

/// The name of a value that all workers share: 16 bytes.
///
/// The host can neither delete nor list shared values, so names are made from
/// bounded numbers only, never from what a client sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SharedKey([u8; 16]);

impl SharedKey {
    /// The compare-and-swap number that writes a value only if there is none yet.
    ///
    /// A host inserts a missing value whatever the number, and gives no value this
    /// one before four billion writes; 0 would overwrite another worker's.
    pub const ABSENT: u32 = u32::MAX;

    /// The key of the `index`-th value that belongs to `owner` (a fingerprint of
    /// its configuration), in the space of one kind of value.
    #[must_use]
    pub const fn new(space: [u8; 4], owner: u64, index: u32) -> Self {
        let [a, b, c, d] = space;
        let [e, f, g, h, i, j, k, l] = owner.to_le_bytes();
        let [m, n, o, p] = index.to_le_bytes();
        Self([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p])
    }

    /// The name as the host gets it.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What the gate needs to know or to have written before it can go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// A property of the request; the parts of its path are joined by NUL.
    Property(Cow<'static, [u8]>),
    /// A shared value.
    Read(SharedKey),
    /// Writing a shared value, if it is still the one read as `cas` (0: in any case).
    Write {
        /// Which value.
        key: SharedKey,
        /// What to write.
        value: Vec<u8>,
        /// The number that came with the value read, 0, or [`SharedKey::ABSENT`].
        cas: u32,
    },
}

/// What the edge brings back for an [`Ask`].
#[derive(Clone, Copy, Debug)]
pub enum Answer<'a> {
    /// A property's value, or that there is none.
    Property(Option<&'a [u8]>),
    /// A shared value and its compare-and-swap number, or that there is none.
    Shared(Option<(&'a [u8], u32)>),
    /// Whether it was written; not, if another worker was faster.
    Written(bool),
    /// The host failed.
    Failed,
}

/// The next thing to do for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Find something out, then come back with [`super::Gate::answer`].
    Ask(Ask),
    /// The decision.
    Verdict(Verdict),
}

/// What happens to a request or a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on, with some header fields changed.
    Pass(Vec<Change>),
    /// The client gets this answer instead.
    Reply(Reply),
    /// The request stands still until an [`Action`] lets it go on or answers it.
    Wait,
}

/// One change of the header fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The field has this value and no other.
    Set(&'static str, Vec<u8>),
    /// One more line of the field.
    Add(&'static str, Vec<u8>),
    /// The field is gone.
    Remove(&'static str),
    /// These are all the fields; nothing else stays.
    Replace(Vec<(Vec<u8>, Vec<u8>)>),
}

/// A whole answer to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status code, 200 to 599.
    pub status: u16,
    /// The header fields, without pseudo-header fields.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// The content.
    pub body: Rc<[u8]>,
    /// One word for the access log (`%RESPONSE_CODE_DETAILS%`).
    pub details: &'static str,
    /// For gRPC clients, the status in the trailers; -1 lets the host map it.
    pub grpc_status: i32,
}

/// Something to do for other streams or for none, drained by
/// [`super::Gate::next_action`] after each call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A request that stood still goes on, with some header fields changed.
    Resume(StreamId, Vec<Change>),
    /// A request that stood still is answered.
    Reply(StreamId, Reply),
    /// An HTTP call; its outcome comes to [`super::Gate::called`].
    Call(Call),
    /// Writing a shared value, in any case.
    Write(SharedKey, Vec<u8>),
    /// Changing a shared value: read it, bring it to [`super::Gate::update`] with this
    /// number, write what that gives with a compare-and-swap, and again if another
    /// worker was faster; in the end [`super::Gate::updated`].
    Update(SharedKey, u64),
    /// A message for every worker, this one too: to [`super::Gate::message`].
    Tell(Vec<u8>),
    /// A line for the log.
    Log(Level, String),
}

/// An HTTP call that the gate wants made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The gate's number for it.
    pub token: u64,
    /// The name of the cluster to call.
    pub cluster: String,
    /// The header fields, with `:method`, `:path`, `:authority`.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// The content.
    pub body: Vec<u8>,
    /// How long to wait for the answer.
    pub timeout: Duration,
}

/// How a [`Call`] ended.
#[derive(Clone, Copy, Debug)]
pub enum CallOutcome<'a> {
    /// With a response; a host may make its own for a refused connection (503) or
    /// an answer that came too late (504).
    Response {
        /// The header fields, with `:status`.
        fields: Fields<'a>,
        /// The content.
        body: &'a [u8],
    },
    /// The call could not be made, or no answer can be had.
    Failed,
}

/// A number that the host shows to operators.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Its name, parts joined by dots: `edgeweir.limit.per-client.denied`.
    pub name: Cow<'static, str>,
    /// Whether it only grows.
    pub kind: MetricKind,
    /// Its value in this worker.
    pub value: u64,
}

/// Whether a metric only grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetricKind {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
}

/// How loud a log line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// For those who look into one request.
    Debug,
    /// What an operator may want to know.
    Info,
    /// What an operator should look at.
    Warn,
}
