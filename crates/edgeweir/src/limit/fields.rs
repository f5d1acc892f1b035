//! What a client is told: `RateLimit`, `RateLimit-Policy`, `Retry-After`, and a
//! problem document.
//!
//! The newest text is draft-ietf-httpapi-ratelimit-headers-11 (May 2026). Drafts 08
//! to 11 have one syntax; older ones and the `X-RateLimit-*` convention are written
//! for clients that know only these.
//!
//! Seconds are rounded up everywhere: who comes back after them is not early.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use super::quota::{Level, Quota};
use crate::time::nanos;

/// Which fields are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FieldsVersion {
    /// `RateLimit-Policy: "name";q=100;w=60` and `RateLimit: "name";r=50;t=30`, as in
    /// drafts 08 to 11.
    #[default]
    Draft11,
    /// `RateLimit: limit=100, remaining=50, reset=30` and `RateLimit-Policy: 100;w=60`.
    Draft7,
    /// `RateLimit-Limit: 100`, `-Remaining`, `-Reset` and `-Policy: 100;w=60`.
    Draft6,
    /// `RateLimit-Limit: 100, 100;w=60`, `-Remaining`, `-Reset`.
    Draft3,
    /// `X-RateLimit-Limit`, `-Remaining`, `-Reset`, the last in seconds from now.
    XRateLimit,
    /// None; `Retry-After` still comes with a denial.
    None,
}

/// One quota as it is shown to a client.
#[derive(Clone, Copy, Debug)]
pub struct Shown<'a> {
    /// The name of the policy. Bytes that a structured field's string cannot hold are
    /// shown as `?`.
    pub name: &'a str,
    /// What is allowed.
    pub quota: Quota,
    /// What is left.
    pub level: Level,
    /// When the request would pass, if it was denied.
    pub retry_after: Option<Duration>,
}

impl Shown<'_> {
    /// The seconds in which the client should not use more than what remains: those
    /// until the request would pass, or else until all is back.
    fn window(&self) -> u64 {
        seconds(self.retry_after.unwrap_or(self.level.reset)).max(1)
    }

    /// The quota as "requests in seconds"; a shorter time than a second becomes one,
    /// with as many requests as fit into it.
    fn policy(&self) -> (u64, u64) {
        let (requests, per) = (u64::from(self.quota.requests()), nanos(self.quota.per()));
        let (whole, rest) = (per / 1_000_000_000, per % 1_000_000_000);
        if rest == 0 {
            return (requests, whole);
        }
        let window = whole + 1;
        let fitting = u128::from(requests) * u128::from(window) * 1_000_000_000 / u128::from(per);
        (u64::try_from(fitting).unwrap_or(u64::MAX), window)
    }
}

/// Whole seconds, rounded up.
#[must_use]
pub const fn seconds(duration: Duration) -> u64 {
    nanos(duration).div_ceil(1_000_000_000)
}

/// The fields about the quotas that a request met, in the order given.
///
/// The versions that know only one quota show the one that is nearest to its end.
#[must_use]
pub fn rate_limit_fields(
    version: FieldsVersion,
    shown: &[Shown<'_>],
) -> Vec<(&'static str, String)> {
    // Denied before allowed, then least left, then longest wait.
    let tightest = shown.iter().min_by_key(|shown| {
        let reset = core::cmp::Reverse(shown.window());
        (shown.retry_after.is_none(), shown.level.remaining, reset)
    });
    let Some(tightest) = tightest else { return Vec::new() };
    let (limit, _) = tightest.policy();
    let (remaining, reset) = (tightest.level.remaining, tightest.window());
    let list = |write: &dyn Fn(&Shown<'_>) -> String| {
        shown.iter().map(write).collect::<Vec<_>>().join(", ")
    };
    let old_policy = list(&|shown| {
        let (requests, window) = shown.policy();
        format!("{requests};w={window}")
    });
    let three = |limit: &'static str, left: &'static str, when: &'static str, value: String| {
        Vec::from([(limit, value), (left, remaining.to_string()), (when, reset.to_string())])
    };
    match version {
        FieldsVersion::Draft11 => Vec::from([
            (
                "ratelimit-policy",
                list(&|shown| {
                    let (requests, window) = shown.policy();
                    format!("{};q={requests};w={window}", string(shown.name))
                }),
            ),
            (
                "ratelimit",
                list(&|shown| {
                    let (r, t) = (shown.level.remaining, shown.window());
                    format!("{};r={r};t={t}", string(shown.name))
                }),
            ),
        ]),
        FieldsVersion::Draft7 => Vec::from([
            ("ratelimit-policy", old_policy),
            ("ratelimit", format!("limit={limit}, remaining={remaining}, reset={reset}")),
        ]),
        FieldsVersion::Draft6 => {
            let mut fields = three(
                "ratelimit-limit",
                "ratelimit-remaining",
                "ratelimit-reset",
                limit.to_string(),
            );
            fields.push(("ratelimit-policy", old_policy));
            fields
        }
        FieldsVersion::Draft3 => three(
            "ratelimit-limit",
            "ratelimit-remaining",
            "ratelimit-reset",
            format!("{limit}, {old_policy}"),
        ),
        FieldsVersion::XRateLimit => three(
            "x-ratelimit-limit",
            "x-ratelimit-remaining",
            "x-ratelimit-reset",
            limit.to_string(),
        ),
        FieldsVersion::None => Vec::new(),
    }
}

/// The value of `Retry-After` (RFC 9110, section 10.2.3): at least one second, and
/// never earlier than the truth.
#[must_use]
pub fn retry_after(wait: Duration) -> String {
    seconds(wait).max(1).to_string()
}

/// The kinds of problem that the draft registers (section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The client spent its quota.
    QuotaExceeded,
    /// The server can take less than usual: too many requests under way.
    ReducedCapacity,
}

/// A problem document (RFC 9457), `application/problem+json`, about the policies that
/// a request violated.
#[must_use]
pub fn problem_json(problem: Problem, status: u16, policies: &[&str]) -> String {
    let (kind, title) = match problem {
        Problem::QuotaExceeded => ("quota-exceeded", "Too many requests"),
        Problem::ReducedCapacity => {
            ("temporary-reduced-capacity", "Too many requests are under way")
        }
    };
    // Names are written as in the fields, and that happens to be JSON.
    let names: Vec<_> = policies.iter().map(|name| string(name)).collect();
    format!(
        "{{\"type\":\"https://iana.org/assignments/http-problem-types#{kind}\",\
         \"title\":\"{title}\",\"status\":{status},\"violated-policies\":[{}]}}\n",
        names.join(",")
    )
}

/// A string of a structured field (RFC 9651, section 4.1.6).
fn string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            ' '..='~' => out.push(character),
            _ => out.push('?'),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    fn shown(name: &str, requests: u32, secs: u64, remaining: u32, reset: u64) -> Shown<'_> {
        let quota = Quota::new(requests, Duration::from_secs(secs), requests).unwrap();
        let level = Level { remaining, reset: Duration::from_secs(reset) };
        Shown { name, quota, level, retry_after: None }
    }

    fn check(version: FieldsVersion, shown: &[Shown<'_>], expected: &[(&str, &str)]) {
        let fields = rate_limit_fields(version, shown);
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        assert_eq!(fields, expected, "{version:?}");
    }

    /// The values are those of the drafts' own examples.
    #[test]
    fn each_version_has_its_own_syntax() {
        let one = [shown("default", 100, 60, 50, 30)];
        check(
            FieldsVersion::Draft11,
            &one,
            &[
                ("ratelimit-policy", "\"default\";q=100;w=60"),
                ("ratelimit", "\"default\";r=50;t=30"),
            ],
        );
        check(
            FieldsVersion::Draft7,
            &one,
            &[("ratelimit-policy", "100;w=60"), ("ratelimit", "limit=100, remaining=50, reset=30")],
        );
        check(
            FieldsVersion::Draft6,
            &one,
            &[
                ("ratelimit-limit", "100"),
                ("ratelimit-remaining", "50"),
                ("ratelimit-reset", "30"),
                ("ratelimit-policy", "100;w=60"),
            ],
        );
        check(
            FieldsVersion::Draft3,
            &one,
            &[
                ("ratelimit-limit", "100, 100;w=60"),
                ("ratelimit-remaining", "50"),
                ("ratelimit-reset", "30"),
            ],
        );
        check(
            FieldsVersion::XRateLimit,
            &one,
            &[
                ("x-ratelimit-limit", "100"),
                ("x-ratelimit-remaining", "50"),
                ("x-ratelimit-reset", "30"),
            ],
        );
        check(FieldsVersion::None, &one, &[]);
        check(FieldsVersion::Draft11, &[], &[]);
    }

    #[test]
    fn several_quotas_are_a_list_or_the_tightest() {
        let hour_and_day =
            [shown("hour", 1000, 3600, 900, 360), shown("day", 5000, 86400, 100, 36000)];
        check(
            FieldsVersion::Draft11,
            &hour_and_day,
            &[
                ("ratelimit-policy", "\"hour\";q=1000;w=3600, \"day\";q=5000;w=86400"),
                ("ratelimit", "\"hour\";r=900;t=360, \"day\";r=100;t=36000"),
            ],
        );
        check(
            FieldsVersion::XRateLimit,
            &hour_and_day,
            &[
                ("x-ratelimit-limit", "5000"),
                ("x-ratelimit-remaining", "100"),
                ("x-ratelimit-reset", "36000"),
            ],
        );
    }

    #[test]
    fn a_denial_is_shown_with_its_own_wait_rounded_up() {
        let mut denied = shown("a", 10, 1, 0, 1);
        denied.retry_after = Some(Duration::from_millis(2001));
        let fields = rate_limit_fields(FieldsVersion::Draft11, &[denied]);
        assert_eq!(fields[1], ("ratelimit", "\"a\";r=0;t=3".into()));
        for (nanos, value) in [(0, "1"), (1, "1"), (1_000_000_000, "1"), (1_000_000_001, "2")] {
            assert_eq!(retry_after(Duration::from_nanos(nanos)), value);
        }
    }

    #[test]
    fn a_window_of_less_than_a_second_is_told_in_whole_ones() {
        let quota = Quota::new(3, Duration::from_millis(250), 3).unwrap();
        let shown = Shown { name: "a", quota, level: Level::default(), retry_after: None };
        assert_eq!(shown.policy(), (12, 1));
        let quota = Quota::new(3, Duration::from_millis(1500), 3).unwrap();
        assert_eq!(Shown { quota, ..shown }.policy(), (4, 2));
    }

    /// The serialisations of strings from RFC 9651 that matter here.
    #[test]
    fn names_are_strings_of_structured_fields() {
        let table = [
            ("foo bar", "\"foo bar\""),
            ("", "\"\""),
            ("b\"a\\r", "\"b\\\"a\\\\r\""),
            ("\r\nset-cookie: a=b\u{7f}\u{e9}", "\"??set-cookie: a=b??\""),
        ];
        for (name, value) in table {
            assert_eq!(string(name), value);
        }
    }

    #[test]
    fn a_problem_names_the_policies() {
        let json = problem_json(Problem::QuotaExceeded, 429, &["daily", "a\"b"]);
        let value: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
        assert_eq!(value["status"], 429);
        assert_eq!(value["violated-policies"], serde_json::json!(vec!["daily", "a\"b"]));
    }
}
