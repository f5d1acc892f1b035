//! May an entry answer this request now (RFC 9111 sections 4, 4.2.4, 5.2.1).

use alloc::vec::Vec;
use core::time::Duration;

use super::entry::Entry;
use crate::http::cache_control::Directives;
use crate::time::Instant;

/// What an entry is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reuse {
    /// It answers.
    Fresh,
    /// It answers although it is stale: the client allows it (`max-stale`).
    Stale,
    /// It answers, and is fetched anew meanwhile (RFC 5861 section 3).
    StaleWhileRevalidate,
    /// Upstream has to say whether it still holds.
    Validate,
}

/// Decides for a request with these directives.
#[must_use]
pub fn decide(entry: &Entry, request: &Directives, now: Instant) -> Reuse {
    let (age, lifetime) = (entry.age(now), entry.lifetime());
    if entry.no_cache || request.has_whole("no-cache") {
        return Reuse::Validate;
    }
    let seconds = |name: &str| request.seconds(name).flatten();
    let seconds = |name| seconds(name).map(|seconds| Duration::from_secs(seconds.into()));
    let stale = age.saturating_sub(lifetime);
    let max_stale = match request.seconds("max-stale") {
        None => None,
        // Without an argument, any staleness will do.
        Some(None) => Some(Duration::MAX),
        Some(Some(seconds)) => Some(Duration::from_secs(seconds.into())),
    };
    if seconds("max-age").is_some_and(|most| most < age) && max_stale.is_none() {
        return Reuse::Validate;
    }
    let needed = age.saturating_add(seconds("min-fresh").unwrap_or_default());
    if needed < lifetime || (needed == lifetime && age < lifetime) {
        return Reuse::Fresh;
    }
    if age < lifetime || entry.must_revalidate {
        // Fresh, but not for as long as the client wants; or never to be served stale.
        return Reuse::Validate;
    }
    if max_stale.is_some_and(|most| stale <= most) {
        return Reuse::Stale;
    }
    if stale < entry.stale_while_revalidate() {
        return Reuse::StaleWhileRevalidate;
    }
    Reuse::Validate
}

/// Whether it may answer because upstream cannot (RFC 5861 section 4): within the
/// window that the response or the request gives.
#[must_use]
pub fn may_stand_in(entry: &Entry, request: &Directives, now: Instant) -> bool {
    if entry.no_cache || entry.must_revalidate {
        return false;
    }
    let stale = entry.age(now).saturating_sub(entry.lifetime());
    let asked = request.seconds("stale-if-error").flatten().unwrap_or(0);
    let window = entry.stale_if_error().max(Duration::from_secs(asked.into()));
    stale < window
}

/// Whether a status means that upstream failed (RFC 5861 section 4).
#[must_use]
pub const fn is_failure(status: u16) -> bool {
    matches!(status, 500 | 502 | 503 | 504)
}

/// The request fields that ask upstream whether an entry still holds (RFC 9111 section
/// 4.3.1); none if it has no validator.
#[must_use]
pub fn conditions(entry: &Entry) -> Vec<(&'static str, Vec<u8>)> {
    let mut fields = Vec::new();
    if let Some(etag) = entry.fields.first("etag") {
        fields.push(("if-none-match", etag.to_vec()));
    }
    if let Some(modified) = entry.fields.first("last-modified") {
        fields.push(("if-modified-since", modified.to_vec()));
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::policy::{Policy, judge};
    use crate::cache::vary::Selection;
    use crate::http::Fields;
    use crate::time::UnixTime;
    use alloc::rc::Rc;

    fn directives(value: &str) -> Directives {
        Directives::of_request(Fields::new(&[(b"cache-control", value.as_bytes())]))
    }

    fn entry(value: &str) -> Entry {
        let pairs = [(&b"cache-control"[..], value.as_bytes()), (b"etag", b"\"a\"")];
        let response = Fields::new(&pairs);
        let policy = Policy::default();
        let terms =
            judge(&policy, Fields::default(), 200, response, UnixTime::from_secs(1)).unwrap();
        Entry::new(200, response, Rc::default(), &terms, Selection::default(), Instant::ZERO)
    }

    fn check(response: &str, request: &str, age: u64) -> Reuse {
        let now = Instant::from_nanos(age * 1_000_000_000);
        decide(&entry(response), &directives(request), now)
    }

    #[test]
    fn rfc_9111_4_2_an_entry_is_fresh_while_its_lifetime_exceeds_its_age() {
        assert_eq!(check("max-age=10", "", 9), Reuse::Fresh);
        assert_eq!(check("max-age=10", "", 10), Reuse::Validate);
        assert_eq!(check("max-age=0", "", 0), Reuse::Validate);
        assert_eq!(check("max-age=10, no-cache", "", 0), Reuse::Validate);
        assert_eq!(check("max-age=10, no-cache=\"x\"", "", 0), Reuse::Fresh);
    }

    #[test]
    fn rfc_9111_5_2_1_what_the_client_asks_for() {
        for (request, age, expected) in [
            ("no-cache", 1, Reuse::Validate),
            ("max-age=5", 5, Reuse::Fresh),
            ("max-age=5", 6, Reuse::Validate),
            ("max-age=0", 1, Reuse::Validate),
            ("max-age=x", 6, Reuse::Fresh),
            ("min-fresh=5", 5, Reuse::Fresh),
            ("min-fresh=5", 6, Reuse::Validate),
            ("max-stale", 1000, Reuse::Stale),
            ("max-stale=5", 15, Reuse::Stale),
            ("max-stale=5", 16, Reuse::Validate),
            ("max-age=5, max-stale=5", 15, Reuse::Stale),
        ] {
            assert_eq!(check("max-age=10", request, age), expected, "{request} at {age}");
        }
    }

    #[test]
    fn rfc_9111_4_2_4_some_responses_are_never_served_stale() {
        for value in ["must-revalidate", "proxy-revalidate", "s-maxage=10"] {
            let value = std::format!("max-age=10, stale-while-revalidate=99, {value}");
            assert_eq!(check(&value, "max-stale", 11), Reuse::Validate, "{value}");
        }
    }

    #[test]
    fn rfc_5861_3_and_4_windows() {
        let value = "max-age=10, stale-while-revalidate=5, stale-if-error=20";
        assert_eq!(check(value, "", 14), Reuse::StaleWhileRevalidate);
        assert_eq!(check(value, "", 15), Reuse::Validate);
        let at = |age: u64, request: &str| {
            let now = Instant::from_nanos(age * 1_000_000_000);
            may_stand_in(&entry(value), &directives(request), now)
        };
        assert!(at(29, "") && !at(30, "") && at(30, "stale-if-error=60"));
        assert!(is_failure(503) && !is_failure(501) && !is_failure(404));
    }

    #[test]
    fn rfc_9111_4_3_1_both_validators_are_sent() {
        assert_eq!(conditions(&entry("max-age=1")), [("if-none-match", b"\"a\"".to_vec())]);
    }
}
