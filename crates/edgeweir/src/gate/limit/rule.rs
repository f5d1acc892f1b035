//! What a rule says: settings as values, with nothing left to default.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::key::{KeyPart, Matcher};
use crate::limit::{AdaptiveBounds, AddressPrefix, FieldsVersion, Limit, Networks, TrustedProxies};

/// How the limiter is set up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitSettings {
    /// The rules, in the order in which a request meets them.
    pub rules: Vec<LimitRule>,
    /// Which proxies are believed about their clients.
    pub proxies: TrustedProxies,
    /// How much of an address makes a client.
    pub prefix: AddressPrefix,
    /// Where operators look and change things, if anywhere.
    pub admin: Option<LimitAdmin>,
}

/// A path on which operators see counts and heavy keys, and reset or change the limit
/// of a key.
#[derive(Clone, PartialEq, Eq)]
pub struct LimitAdmin {
    /// The path, in canonical form, without what follows it.
    pub path: String,
    /// What must stand in `Authorization: Bearer`.
    pub token: String,
}

impl core::fmt::Debug for LimitAdmin {
    /// Does not show the token.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("LimitAdmin").field("path", &self.path).finish_non_exhaustive()
    }
}

/// What a rule does with a request that it cannot decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// Let it pass.
    Allow,
    /// Refuse it.
    Deny,
}

/// What a rule does with a request that lacks a part of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// All that lack the same parts draw from one bucket.
    Share,
    /// The rule is not about it.
    Skip,
    /// Refuse it.
    Deny,
}

/// What a request costs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cost {
    /// Always the same.
    Fixed(u32),
    /// What a request header says: only behind a proxy that sets it, because whoever
    /// can write it chooses its own price, from 1 up.
    Header {
        /// The field's name.
        name: String,
        /// The cost without a valid value.
        default: u32,
        /// No more than this is taken.
        max: u32,
    },
    /// What the response says, for prices known only afterwards.
    Response {
        /// The response field's name.
        name: String,
        /// What is taken when the request comes. Without a valid value it stays.
        reserve: u32,
        /// No more than this is taken in the end.
        max: u32,
    },
}

/// How many requests may be under way at once, in each worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Concurrency {
    /// Of one key.
    pub per_key: u32,
    /// Of all keys.
    pub total: u32,
    /// Bounds of a total that follows the upstream's latency.
    pub adaptive: Option<AdaptiveBounds>,
}

/// How requests may wait for their turn, in each worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay {
    /// How many at once.
    pub max_waiting: usize,
    /// How long each.
    pub max_wait: Duration,
}

/// What a refused client gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The status code, 400 to 599.
    pub status: u16,
    /// More header fields.
    pub fields: Vec<(String, String)>,
    /// The content, instead of a problem document.
    pub body: Option<String>,
    /// The status for gRPC clients.
    pub grpc_status: u8,
}

impl Default for Denial {
    /// 429 with a problem document; `RESOURCE_EXHAUSTED` for gRPC.
    fn default() -> Self {
        Self { status: 429, fields: Vec::new(), body: None, grpc_status: 8 }
    }
}

/// One limit, for each key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitRule {
    /// Its name, in header fields and metrics.
    pub name: String,
    /// What is allowed in a time, if that is limited.
    pub limit: Option<Limit>,
    /// What is allowed at once, if that is limited.
    pub concurrency: Option<Concurrency>,
    /// Whose bucket it is. Without parts there is one for all.
    pub key: Vec<KeyPart>,
    /// What a request without a part of the key gets.
    pub missing: Missing,
    /// Which requests it is about.
    pub applies: Matcher,
    /// Which of them not.
    pub except: Option<Matcher>,
    /// Clients that always pass.
    pub allow: Networks,
    /// Clients that never pass.
    pub deny: Networks,
    /// What a request costs.
    pub cost: Cost,
    /// Whether it only counts what it would do.
    pub shadow: bool,
    /// For which share of keys it is enforced, in percent; for the others it counts.
    pub percent: u8,
    /// Whether requests may wait.
    pub delay: Option<Delay>,
    /// What happens when the host fails.
    pub on_error: OnError,
    /// How many shared pages of 256 bytes (16 keys each) hold its state.
    pub pages: u32,
    /// Which fields tell clients about it.
    pub version: FieldsVersion,
    /// Whether responses to requests that passed carry these fields, too.
    pub announce: bool,
    /// What a refused client gets.
    pub denial: Denial,
    /// Keys with another limit: the texts of their parts, and the limit.
    pub overrides: Vec<(Vec<String>, Limit)>,
}
