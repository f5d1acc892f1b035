//! W3C Trace Context level 2: `traceparent` and `tracestate`.
//!
//! A caller's context is believed as a whole or not at all. A `traceparent` that is
//! missing, sent twice or malformed restarts the trace, and then `tracestate`, which
//! belongs to the old one, goes as well (section 4.3). A malformed `tracestate`
//! alone is dropped, and the trace continues (section 3.3.1.1).

use alloc::string::String;
use alloc::vec::Vec;

use super::id::{SpanId, TraceId, from_hex};
use crate::http::Fields;
use crate::http::list::trim;

/// The most members of a `tracestate` (section 3.3.1.1).
pub const MAX_MEMBERS: usize = 32;

/// The most bytes of `tracestate` that are carried on. The specification asks for at
/// least 512; what is longer than this is dropped whole.
pub const MAX_STATE_BYTES: usize = 8192;

/// The flags of a context (section 3.2.2.5). Unknown ones are not carried on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u8);

impl Flags {
    const SAMPLED: u8 = 1;
    const RANDOM: u8 = 2;

    /// The flags that are known of this byte.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Self {
        Self(byte & (Self::SAMPLED | Self::RANDOM))
    }

    /// Flags of a trace that begins here, with a random id.
    #[must_use]
    pub const fn of_root(sampled: bool) -> Self {
        Self(Self::RANDOM | if sampled { Self::SAMPLED } else { 0 })
    }

    /// The same flags with another decision on sampling.
    #[must_use]
    pub const fn with_sampled(self, sampled: bool) -> Self {
        Self((self.0 & !Self::SAMPLED) | if sampled { Self::SAMPLED } else { 0 })
    }

    /// Whether the caller records its span.
    #[must_use]
    pub const fn is_sampled(self) -> bool {
        self.0 & Self::SAMPLED != 0
    }

    /// Whether the last 7 bytes of the trace id are random, so that it can decide on
    /// sampling.
    #[must_use]
    pub const fn is_random(self) -> bool {
        self.0 & Self::RANDOM != 0
    }

    /// As it stands in `traceparent`.
    #[must_use]
    pub const fn as_byte(self) -> u8 {
        self.0
    }
}

/// A trace, one span of it, and what travels with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Context {
    /// The trace.
    pub trace: TraceId,
    /// The span that whoever gets this context is a child of.
    pub span: SpanId,
    /// What is known of the trace.
    pub flags: Flags,
}

impl Context {
    /// The context in the values of `traceparent`; `None` if there is none, more than
    /// one, or one that is malformed.
    #[must_use]
    pub fn from_traceparent<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let (Some(value), None) = (values.next(), values.next()) else { return None };
        let value = value.trim_ascii();
        let (head, rest) = value.split_at_checked(55)?;
        let mut parts = head.split(|byte| *byte == b'-');
        let [version] = from_hex::<1>(parts.next()?)?;
        let trace = TraceId::from_hex(parts.next()?)?;
        let span = SpanId::from_hex(parts.next()?)?;
        let [flags] = from_hex::<1>(parts.next()?)?;
        let whole = match version {
            0 => rest.is_empty(),
            // Forbidden (section 3.2.2.1).
            0xff => false,
            // A later version may say more after a dash (section 3.2.4).
            _ => rest.first().is_none_or(|byte| *byte == b'-'),
        };
        (whole && parts.next().is_none()).then_some(Self {
            trace,
            span,
            flags: Flags::from_byte(flags),
        })
    }

    /// The value of `traceparent`: 55 characters.
    #[must_use]
    pub fn traceparent(&self) -> String {
        alloc::format!("00-{}-{}-{:02x}", self.trace, self.span, self.flags.0)
    }
}

/// A well-formed `tracestate`: 1 to [`MAX_MEMBERS`] members of other tracers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceState(Vec<u8>);

impl TraceState {
    /// The members of all `tracestate` lines, joined in order. Of two members with
    /// one key the first stays. `None` if there is none, or a line is malformed, too
    /// long, or has too many members.
    #[must_use]
    pub fn from_lines<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Option<Self> {
        let (mut text, mut keys) = (Vec::new(), Vec::<&[u8]>::new());
        let mut count = 0;
        for member in lines.flat_map(|line| line.split(|byte| *byte == b',')) {
            let member = trim(member);
            if member.is_empty() {
                // Empty members are allowed (section 3.3.1.2).
                continue;
            }
            count += 1;
            let at = member.iter().position(|byte| *byte == b'=')?;
            let (key, value) = (member.get(..at)?, member.get(at + 1..)?);
            if MAX_MEMBERS < count || !is_key(key) || !is_value(value) {
                return None;
            }
            if keys.contains(&key) {
                continue;
            }
            keys.push(key);
            if !text.is_empty() {
                text.push(b',');
            }
            text.extend_from_slice(member);
            if MAX_STATE_BYTES < text.len() {
                return None;
            }
        }
        (!text.is_empty()).then_some(Self(text))
    }

    /// The value of `tracestate`.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The value of one member.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        self.0.split(|byte| *byte == b',').find_map(|member| {
            member.strip_prefix(key.as_bytes()).and_then(|rest| rest.strip_prefix(b"="))
        })
    }
}

/// What a request's headers say about its trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extracted {
    /// The caller's context.
    pub context: Option<Context>,
    /// What other tracers said; only beside a context.
    pub state: Option<TraceState>,
    /// There was a header that had to be dropped.
    pub malformed: bool,
}

impl Extracted {
    /// Reads `traceparent` and `tracestate`.
    #[must_use]
    pub fn from_fields(fields: Fields<'_>) -> Self {
        let context = Context::from_traceparent(fields.all("traceparent"));
        let state = match context {
            Some(_) => TraceState::from_lines(fields.all("tracestate")),
            None => None,
        };
        let malformed = (context.is_none() && fields.has("traceparent"))
            || (context.is_some()
                && state.is_none()
                && fields.all("tracestate").any(|line| !trim(line).is_empty()));
        Self { context, state, malformed }
    }
}

/// Level 2's keys (section 3.3.1.3.1): a lower-case letter or a digit, and up to 255
/// more, among them `_ - * / @`.
fn is_key(key: &[u8]) -> bool {
    let first = key.first().is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let more =
        |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-*/@".contains(byte);
    first && key.len() <= 256 && key.iter().all(more)
}

/// A member's value (section 3.3.1.3.2): 1 to 256 printable characters without `,`
/// and `=`, the last one no space.
fn is_value(value: &[u8]) -> bool {
    let fits = |byte: &u8| matches!(byte, b' '..=b'~') && !matches!(byte, b',' | b'=');
    (1..=256).contains(&value.len())
        && value.iter().all(fits)
        && value.last().is_some_and(|byte| *byte != b' ')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::format;
    use std::string::ToString;
    use std::vec;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn parent(value: &str) -> Option<Context> {
        Context::from_traceparent([value.as_bytes()].into_iter())
    }

    fn state(lines: &[&str]) -> Option<String> {
        let state = TraceState::from_lines(lines.iter().map(|line| line.as_bytes()))?;
        Some(String::from_utf8(state.0).unwrap())
    }

    #[test]
    fn good_traceparents() {
        for (value, flags) in [
            (format!("00-{TRACE}-{SPAN}-00"), 0),
            (format!("00-{TRACE}-{SPAN}-01"), 1),
            (format!("00-{TRACE}-{SPAN}-03"), 3),
            (format!("00-{TRACE}-{SPAN}-ff"), 3),
            (format!(" \t00-{TRACE}-{SPAN}-02 "), 2),
            (format!("01-{TRACE}-{SPAN}-01"), 1),
            (format!("cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like"), 1),
            (format!("cc-{TRACE}-{SPAN}-01-"), 1),
        ] {
            let context = parent(&value).unwrap_or_else(|| panic!("{value}"));
            assert_eq!(context.traceparent(), format!("00-{TRACE}-{SPAN}-{flags:02x}"), "{value}");
        }
    }

    #[test]
    fn bad_traceparents_restart_the_trace() {
        for value in [
            String::new(),
            TRACE.to_string(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-"),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("00-{TRACE}-{SPAN}-011"),
            format!("00-{TRACE}-{SPAN}-01-"),
            format!("00-{TRACE}-{SPAN}-01-x"),
            format!("00-{TRACE}-{SPAN}-.1"),
            format!("00-{TRACE}-{SPAN}-0X"),
            format!("00-{}-{SPAN}-01", "0".repeat(32)),
            format!("00-{TRACE}-{}-01", "0".repeat(16)),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{TRACE}-{}-01", SPAN.to_uppercase()),
            format!("00-{}-{SPAN}-01", &TRACE[1..]),
            format!("00-{TRACE}0-{SPAN}-01"),
            format!("00-{TRACE}-{SPAN}0-01"),
            format!("00-{TRACE}-{}-01", &SPAN[1..]),
            format!("00_{TRACE}_{SPAN}_01"),
            format!("0-{TRACE}-{SPAN}-01"),
            format!("000-{TRACE}-{SPAN}-01"),
            format!(".0-{TRACE}-{SPAN}-01"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("cc-{TRACE}-{SPAN}-01.what"),
            format!("00-{TRACE}-{SPAN}-01,00-{TRACE}-{SPAN}-01"),
        ] {
            assert_eq!(parent(&value), None, "{value}");
        }
        assert_eq!(Context::from_traceparent([&[0xff; 55][..]].into_iter()), None);
        let good = format!("00-{TRACE}-{SPAN}-01");
        assert_eq!(Context::from_traceparent([good.as_bytes(); 2].into_iter()), None, "twice");
    }

    #[test]
    fn good_tracestates() {
        let most = (0..32).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        let (key, value) = ("k".repeat(256), "v".repeat(256));
        let long = format!("{key}={value}");
        for (lines, expected) in [
            (vec!["foo=1"], "foo=1"),
            (vec!["foo=1,bar=2"], "foo=1,bar=2"),
            (vec!["foo=1", "bar=2,rojo=3"], "foo=1,bar=2,rojo=3"),
            (vec![" foo=1 \t,\t bar=2 "], "foo=1,bar=2"),
            (vec!["", "foo=1,,bar=2,"], "foo=1,bar=2"),
            (vec!["foo@=1,foo@@bar=2,0a=3,a-_*/@=4"], "foo@=1,foo@@bar=2,0a=3,a-_*/@=4"),
            (vec!["foo= a b"], "foo= a b"),
            (vec!["foo=1,foo=2", "foo=3,bar=4"], "foo=1,bar=4"),
            (vec![&most], &most),
            (vec![&long], &long),
        ] {
            assert_eq!(state(&lines).as_deref(), Some(expected), "{lines:?}");
        }
    }

    #[test]
    fn a_bad_member_drops_the_whole_tracestate() {
        let many = (0..33).map(|n| format!("k{n}=v")).collect::<Vec<_>>().join(",");
        let long_key = format!("{}=v", "k".repeat(257));
        let long_value = format!("k={}", "v".repeat(257));
        for line in [
            "foo",
            "foo=,bar=3",
            "=1",
            "foo =1",
            "Foo=1",
            "fOo=1",
            "foo=1=2",
            "@foo=1",
            "_a=1",
            "foo.bar=1",
            "foo=b\u{e9}",
            "foo=1;bar=2 baz",
            "ok=1,foo=\u{7f}",
            &many,
            &long_key,
            &long_value,
        ] {
            assert_eq!(state(&[line]), None, "{line}");
            assert_eq!(state(&["good=1", line]), None, "{line}");
        }
        assert_eq!(state(&[""]), None);
        assert_eq!(state(&[]), None);
    }

    #[test]
    fn a_tracestate_goes_with_its_traceparent() {
        let good = format!("00-{TRACE}-{SPAN}-01");
        for (fields, context, members, malformed) in [
            (vec![("traceparent", &*good), ("tracestate", "a=1")], true, true, false),
            (vec![("traceparent", &*good), ("tracestate", "a")], true, false, true),
            (vec![("traceparent", &*good), ("tracestate", " ")], true, false, false),
            (vec![("traceparent", "x"), ("tracestate", "a=1")], false, false, true),
            (vec![("tracestate", "a=1")], false, false, false),
            (vec![], false, false, false),
        ] {
            let pairs: Vec<_> = fields.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
            let found = Extracted::from_fields(Fields::new(&pairs));
            let seen = (found.context.is_some(), found.state.is_some(), found.malformed);
            assert_eq!(seen, (context, members, malformed), "{fields:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic_and_what_is_kept_reads_the_same_again(
            lines in prop::collection::vec(prop::collection::vec(prop_oneof![
                Just(b'a'), Just(b'='), Just(b','), Just(b' '), Just(b'0'), any::<u8>()
            ], 0..60), 0..4),
        ) {
            let _ = Context::from_traceparent(lines.iter().map(Vec::as_slice));
            if let Some(state) = TraceState::from_lines(lines.iter().map(Vec::as_slice)) {
                prop_assert_eq!(TraceState::from_lines([state.as_bytes()].into_iter()), Some(state));
            }
        }
    }
}
