//! May this response be stored, and for how long is it fresh (RFC 9111 sections 3, 4.2).

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use crate::http::cache_control::{Directives, MAX_SECONDS, delta_seconds};
use crate::http::structured::{self, Bare, Member};
use crate::http::{Fields, date, list};
use crate::time::UnixTime;

/// What an operator decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Targeted fields (RFC 9213) that stand in for `Cache-Control`, the most specific
    /// first, in lower case.
    pub targets: Vec<String>,
    /// How fresh a response without a lifetime is, in percent of the time since it was
    /// last modified (RFC 9111 section 4.2.2); 0 for not at all.
    pub heuristic_percent: u32,
    /// The longest such lifetime.
    pub heuristic_most: Duration,
    /// How long a stale response may be served while it is fetched anew, where the
    /// response does not say (RFC 5861 section 3).
    pub stale_while_revalidate: Duration,
    /// How long a stale response may be served when upstream fails, where the response
    /// does not say (RFC 5861 section 4).
    pub stale_if_error: Duration,
}

impl Default for Policy {
    /// `CDN-Cache-Control`; a tenth of the age, a day at the most; nothing stale that
    /// does not say so.
    fn default() -> Self {
        Self {
            targets: [String::from("cdn-cache-control")].into(),
            heuristic_percent: 10,
            heuristic_most: Duration::from_secs(86_400),
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
        }
    }
}

/// On what terms a response may be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Terms {
    /// How long it is fresh.
    pub lifetime: Duration,
    /// Its age when it came (RFC 9111 section 4.2.3).
    pub age: Duration,
    /// It must be validated before each use.
    pub no_cache: bool,
    /// It must not be served stale.
    pub must_revalidate: bool,
    /// How long after that it may be served while it is fetched anew.
    pub stale_while_revalidate: Duration,
    /// How long after that it may be served when upstream fails.
    pub stale_if_error: Duration,
    /// Fields that must not be stored with it, in lower case.
    pub without: Vec<Vec<u8>>,
}

/// Statuses whose responses may be fresh without saying so (RFC 9110 section 15.1).
/// 206 is not here: parts are not stored.
const HEURISTIC: [u16; 11] = [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501];

/// Statuses whose caching requirements are known and met here (`must-understand`).
const UNDERSTOOD: [u16; 23] = [
    200, 201, 202, 203, 204, 300, 301, 302, 303, 307, 308, 400, 403, 404, 405, 410, 414, 451, 500,
    501, 502, 503, 504,
];

/// Judges the response to a GET. The error is a word for `Cache-Status` that says why
/// it must not be stored.
///
/// # Errors
///
/// It must not be stored.
pub fn judge(
    policy: &Policy,
    request: Fields<'_>,
    status: u16,
    response: Fields<'_>,
    now: UnixTime,
) -> Result<Terms, &'static str> {
    // Parts and "not modified" are no whole responses; 1xx does not end anything.
    if !(200..600).contains(&status) || matches!(status, 206 | 304 | 416) {
        return Err("status");
    }
    let (directives, targeted) = directives(policy, response);
    if directives.is_doubtful() {
        return Err("malformed-cache-control");
    }
    if directives.has("must-understand") {
        // Section 5.2.2.3: no-store is for those who do not understand the status.
        if !UNDERSTOOD.contains(&status) {
            return Err("must-understand");
        }
    } else if directives.has("no-store") {
        return Err("no-store");
    }
    if Directives::of_request(request).has("no-store") {
        return Err("request-no-store");
    }
    if directives.has_whole("private") {
        return Err("private");
    }
    let shared =
        directives.has("public") || directives.has("s-maxage") || directives.has("must-revalidate");
    if request.has("authorization") && !shared {
        // Section 3.5.
        return Err("authorization");
    }
    let mut without = directives.fields_of("private");
    without.extend(directives.fields_of("no-cache"));
    if response.has("set-cookie") && !without.iter().any(|name| name == b"set-cookie") {
        // Not forbidden, but what sets a cookie is made for whoever gets it.
        return Err("set-cookie");
    }
    if response.has("content-range") {
        return Err("content-range");
    }
    let explicit = explicit_lifetime(&directives, targeted, response, now);
    let no_cache = directives.has_whole("no-cache");
    let lifetime = match explicit {
        Some(lifetime) => lifetime,
        None => match heuristic(policy, &directives, status, response, now) {
            Some(lifetime) => lifetime,
            // Only for validation, and only if it says that it is for that.
            None if no_cache || directives.has("public") => Duration::ZERO,
            None => return Err("no-lifetime"),
        },
    };
    let stale = |name: &str, default: Duration| match directives.seconds(name) {
        Some(seconds) => Duration::from_secs(seconds.unwrap_or(0).into()),
        None => default,
    };
    let stale_while_revalidate = stale("stale-while-revalidate", policy.stale_while_revalidate);
    let stale_if_error = stale("stale-if-error", policy.stale_if_error);
    let useful = !lifetime.is_zero()
        || response.has("etag")
        || response.has("last-modified")
        || !stale_while_revalidate.is_zero()
        || !stale_if_error.is_zero();
    if !useful {
        return Err("not-fresh");
    }
    Ok(Terms {
        lifetime,
        age: initial_age(response, now),
        no_cache,
        // Section 5.2.2.10: s-maxage means proxy-revalidate as well.
        must_revalidate: ["must-revalidate", "proxy-revalidate", "s-maxage"]
            .iter()
            .any(|name| directives.has(name)),
        stale_while_revalidate,
        stale_if_error,
        without,
    })
}

/// The directives that hold for this cache, and whether they are from a targeted field
/// (RFC 9213 section 2.2: the first that is valid and not empty, and nothing else).
fn directives(policy: &Policy, response: Fields<'_>) -> (Directives, bool) {
    for name in &policy.targets {
        if !response.has(name) {
            continue;
        }
        // Surrogate-Control is older than structured fields.
        if name == "surrogate-control" {
            let directives = Directives::of(response, name);
            if !directives.is_doubtful() && !directives.is_empty() {
                return (directives, true);
            }
            continue;
        }
        let Some(members) = structured::dictionary(response, name) else { continue };
        if members.is_empty() {
            continue;
        }
        let list = members.into_iter().filter_map(|(key, member)| {
            let argument = match member {
                Member::Item(item) => match item.bare {
                    Bare::Boolean(true) => None,
                    Bare::Boolean(false) => return None,
                    Bare::Integer(number) => Some(number.to_string().into_bytes()),
                    Bare::String(text) | Bare::Token(text) => Some(text.into_bytes()),
                    // Of a type that no directive has: there, and invalid.
                    _ => Some(b"invalid".to_vec()),
                },
                Member::Inner(..) => Some(b"invalid".to_vec()),
            };
            // In a structured field the case of keys is fixed, so these are lower.
            Some((key, argument))
        });
        return (Directives::from_list(list.collect()), true);
    }
    (Directives::of(response, "cache-control"), false)
}

/// How long the response says that it is fresh (section 4.2.1). A lifetime that is
/// there and invalid is zero.
fn explicit_lifetime(
    directives: &Directives,
    targeted: bool,
    response: Fields<'_>,
    now: UnixTime,
) -> Option<Duration> {
    for name in ["s-maxage", "max-age"] {
        if let Some(seconds) = directives.seconds(name) {
            return Some(Duration::from_secs(seconds.unwrap_or(0).into()));
        }
    }
    if targeted {
        return None;
    }
    let mut lines = response.all("expires");
    let (first, second) = (lines.next()?, lines.next());
    // Section 5.3: an invalid date, "0" above all, is in the past; of two that differ
    // none can be trusted.
    if second.is_some_and(|second| second != first) {
        return Some(Duration::ZERO);
    }
    let Some(expires) = date::parse(list::trim(first), now) else { return Some(Duration::ZERO) };
    let most = Duration::from_secs(MAX_SECONDS.into());
    Some(expires.since(sent_at(response, now)).min(most))
}

/// When the response was made: its `Date`, or when it came.
fn sent_at(response: Fields<'_>, now: UnixTime) -> UnixTime {
    response.first("date").and_then(|text| date::parse(list::trim(text), now)).unwrap_or(now)
}

/// A guess for what does not say (section 4.2.2).
fn heuristic(
    policy: &Policy,
    directives: &Directives,
    status: u16,
    response: Fields<'_>,
    now: UnixTime,
) -> Option<Duration> {
    if !HEURISTIC.contains(&status) && !directives.has("public") {
        return None;
    }
    let modified = date::parse(list::trim(response.first("last-modified")?), now)?;
    let age = sent_at(response, now).since(modified);
    let part = (age / 100).saturating_mul(policy.heuristic_percent);
    let lifetime = part.min(policy.heuristic_most);
    (!lifetime.is_zero()).then_some(lifetime)
}

/// The age with which a response comes (section 4.2.3). The time that it was on its
/// way is not known here and counts as none.
fn initial_age(response: Fields<'_>, now: UnixTime) -> Duration {
    // Section 5.1: the first of several; one that is no number is ignored.
    let told = response
        .all("age")
        .next()
        .and_then(|line| list::members(line).next())
        .and_then(delta_seconds)
        .unwrap_or(0);
    // Whole seconds, as Date has them.
    let apparent = now.since(sent_at(response, now)).as_secs();
    let apparent = Duration::from_secs(apparent.min(MAX_SECONDS.into()));
    Duration::from_secs(told.into()).max(apparent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;

    const NOW: UnixTime = UnixTime::from_secs(1_795_000_000);

    fn judged(
        request: &[(&str, &str)],
        status: u16,
        response: &[(&str, &str)],
    ) -> Result<Terms, &'static str> {
        fn bytes<'a>(pairs: &[(&'a str, &'a str)]) -> Vec<(&'a [u8], &'a [u8])> {
            pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect()
        }
        let (request, response) = (bytes(request), bytes(response));
        judge(&Policy::default(), Fields::new(&request), status, Fields::new(&response), NOW)
    }

    fn lifetime(response: &[(&str, &str)]) -> Result<u64, &'static str> {
        judged(&[], 200, response).map(|terms| terms.lifetime.as_secs())
    }

    fn day(offset: i64) -> String {
        date::format(UnixTime::from_secs(NOW.as_secs().saturating_add_signed(offset)))
    }

    #[test]
    fn rfc_9111_3_what_is_not_stored_and_why() {
        for (request, status, response, why) in [
            (&[][..], 200, &[("cache-control", "no-store, max-age=60")][..], "no-store"),
            (&[], 200, &[("cache-control", "NO-STORE")], "no-store"),
            (
                &[],
                200,
                &[("cache-control", "max-age=60"), ("cache-control", "no-store")],
                "no-store",
            ),
            (&[], 200, &[("cache-control", "private, max-age=60")], "private"),
            (&[], 200, &[("cache-control", "max-age=60"), ("set-cookie", "a=b")], "set-cookie"),
            (&[], 206, &[("cache-control", "max-age=60")], "status"),
            (&[], 304, &[("cache-control", "max-age=60")], "status"),
            (&[], 999, &[("cache-control", "max-age=60")], "status"),
            (
                &[],
                200,
                &[("cache-control", "max-age=60, must-understand=\"")],
                "malformed-cache-control",
            ),
            (&[], 499, &[("cache-control", "max-age=60, must-understand")], "must-understand"),
            (&[], 200, &[("cache-control", "max-age=0")], "not-fresh"),
            (&[], 200, &[("cache-control", "max-age=x")], "not-fresh"),
            (&[], 200, &[], "no-lifetime"),
            (&[], 200, &[("etag", "\"a\"")], "no-lifetime"),
            (&[], 500, &[("last-modified", "Sun, 06 Nov 1994 08:49:37 GMT")], "no-lifetime"),
            (&[("authorization", "x")], 200, &[("cache-control", "max-age=60")], "authorization"),
            (
                &[("cache-control", "no-store")],
                200,
                &[("cache-control", "max-age=60")],
                "request-no-store",
            ),
            (
                &[],
                200,
                &[("cdn-cache-control", "no-store"), ("cache-control", "max-age=60")],
                "no-store",
            ),
        ] {
            assert_eq!(judged(request, status, response).unwrap_err(), why, "{response:?}");
        }
    }

    #[test]
    fn rfc_9111_3_5_what_lets_authorized_responses_be_stored() {
        for directive in ["public", "s-maxage=60", "must-revalidate"] {
            let value = format!("max-age=60, {directive}");
            let response = [("cache-control", &*value)];
            assert!(judged(&[("authorization", "x")], 200, &response).is_ok(), "{directive}");
        }
    }

    #[test]
    fn rfc_9111_4_2_1_the_first_of_s_maxage_max_age_and_expires() {
        let later = day(500);
        for (response, seconds) in [
            (&[("cache-control", "max-age=60")][..], 60),
            (&[("cache-control", "s-maxage=30, max-age=60")], 30),
            (&[("cache-control", "max-age=60"), ("expires", &*later)], 60),
            (&[("expires", &*later)], 500),
            (&[("expires", &*later), ("date", &*day(-100))], 600),
            (&[("expires", &*later), ("date", "garbage")], 500),
        ] {
            assert_eq!(lifetime(response), Ok(seconds), "{response:?}");
        }
        for expires in ["0", "-1", "garbage", &day(-1), &format!("{later}, {later}")] {
            let response = [("expires", expires), ("etag", "\"a\"")];
            assert_eq!(lifetime(&response), Ok(0), "{expires}");
        }
        assert_eq!(lifetime(&[("expires", &later), ("expires", &day(9)), ("etag", "x")]), Ok(0));
        assert_eq!(
            lifetime(&[("cache-control", "max-age=0"), ("expires", &later), ("etag", "x")]),
            Ok(0)
        );
    }

    #[test]
    fn rfc_9213_2_2_a_targeted_field_stands_alone() {
        for (response, seconds) in [
            (&[("cdn-cache-control", "max-age=30"), ("cache-control", "max-age=60")][..], Ok(30)),
            (&[("cdn-cache-control", "max-age=30"), ("cache-control", "no-store")], Ok(30)),
            // Malformed or empty: as if it were not there.
            (&[("cdn-cache-control", "max-age=30,"), ("cache-control", "max-age=60")], Ok(60)),
            (&[("cdn-cache-control", "Max-Age=30"), ("cache-control", "max-age=60")], Ok(60)),
            (&[("cdn-cache-control", ""), ("cache-control", "max-age=60")], Ok(60)),
            // Valid but without a lifetime: Cache-Control and Expires do not fill in.
            (&[("cdn-cache-control", "x"), ("cache-control", "max-age=60")], Err("no-lifetime")),
            (&[("cdn-cache-control", "max-age=\"30\""), ("cache-control", "max-age=60")], Ok(30)),
            (&[("cdn-cache-control", "max-age=3.5"), ("etag", "x")], Ok(0)),
        ] {
            assert_eq!(lifetime(response), seconds, "{response:?}");
        }
    }

    #[test]
    fn rfc_9111_4_2_2_a_guess_from_the_last_modification() {
        let (old, older) = (day(-1000), day(-100_000_000));
        assert_eq!(lifetime(&[("last-modified", &old)]), Ok(100));
        assert_eq!(lifetime(&[("last-modified", &older)]), Ok(86_400));
        assert_eq!(lifetime(&[("last-modified", &day(1000))]), Err("no-lifetime"));
        assert_eq!(lifetime(&[("last-modified", "garbage")]), Err("no-lifetime"));
    }

    #[test]
    fn rfc_9111_4_2_3_the_age_with_which_a_response_comes() {
        let (old, new) = (day(-50), day(50));
        for (response, seconds) in [
            (&[][..], 0),
            (&[("age", "30")][..], 30),
            (&[("age", "30"), ("date", &*old)], 50),
            (&[("age", "80"), ("date", &*old)], 80),
            (&[("date", &*new)], 0),
            (&[("age", "30, 90")], 30),
            (&[("age", "30"), ("age", "90")], 30),
            (&[("age", "-30")], 0),
            (&[("age", "x")], 0),
            (&[("age", "1.5")], 0),
            (&[("age", "99999999999999999999")], u64::from(MAX_SECONDS)),
        ] {
            let mut response = response.to_vec();
            response.push(("cache-control", "max-age=60"));
            let terms = judged(&[], 200, &response).unwrap();
            assert_eq!(terms.age.as_secs(), seconds, "{response:?}");
        }
    }

    #[test]
    fn rfc_9111_5_2_2_what_the_directives_mean() {
        let value = "max-age=1, no-cache=\"X-A\", private=\"set-cookie\", stale-while-revalidate=5, stale-if-error=7";
        let terms = judged(&[], 200, &[("cache-control", value), ("set-cookie", "a=b")]).unwrap();
        assert_eq!(terms.without, [&b"set-cookie"[..], b"x-a"]);
        assert_eq!((terms.no_cache, terms.must_revalidate), (false, false));
        assert_eq!(terms.stale_while_revalidate.as_secs(), 5);
        assert_eq!(terms.stale_if_error.as_secs(), 7);
        for value in ["must-revalidate", "proxy-revalidate", "s-maxage=1"] {
            let value = format!("max-age=1, {value}");
            let terms = judged(&[], 200, &[("cache-control", &*value)]).unwrap();
            assert!(terms.must_revalidate, "{value}");
        }
        let terms = judged(&[], 200, &[("cache-control", "no-cache"), ("etag", "\"a\"")]).unwrap();
        assert!(terms.no_cache);
        // must-understand: no-store is for others.
        let value = "must-understand, no-store, max-age=5";
        assert_eq!(lifetime(&[("cache-control", value)]), Ok(5));
    }
}
