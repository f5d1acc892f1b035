//! The `Cache-Status` field (RFC 9211): how a cache handled a request, and why.

use alloc::format;
use alloc::string::String;

use super::entry::Entry;
use crate::time::Instant;

/// Why a request went upstream (RFC 9211 section 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Forward {
    /// The cache stays out of it.
    Bypass,
    /// Of this method.
    Method,
    /// Nothing is stored for the target.
    UriMiss,
    /// Nothing is stored that `Vary` lets answer it.
    VaryMiss,
    /// The client wants it so.
    Request,
    /// What is stored is stale.
    Stale,
}

impl Forward {
    const fn token(self) -> &'static str {
        match self {
            Self::Bypass => "bypass",
            Self::Method => "method",
            Self::UriMiss => "uri-miss",
            Self::VaryMiss => "vary-miss",
            Self::Request => "request",
            Self::Stale => "stale",
        }
    }
}

/// For a request that was answered from the store. `ttl` is negative for a stale one.
#[must_use]
pub fn hit(entry: &Entry, now: Instant, detail: Option<&str>) -> String {
    let (age, lifetime) = (entry.age(now).as_secs(), entry.lifetime().as_secs());
    let ttl = i128::from(lifetime) - i128::from(age);
    match detail {
        Some(detail) => format!("edgeweir; hit; ttl={ttl}; detail={detail}"),
        None => format!("edgeweir; hit; ttl={ttl}"),
    }
}

/// For a request that went upstream; `stored` if the response was, or the word that
/// says why not.
#[must_use]
pub fn forwarded(why: Forward, status: u16, stored: Result<(), &str>) -> String {
    let why = why.token();
    match stored {
        Ok(()) => format!("edgeweir; fwd={why}; fwd-status={status}; stored"),
        Err("") => format!("edgeweir; fwd={why}; fwd-status={status}"),
        Err(detail) => format!("edgeweir; fwd={why}; fwd-status={status}; detail={detail}"),
    }
}
