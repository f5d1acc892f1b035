//! The tracer's part of an exchange.

use alloc::borrow::Cow;
use alloc::vec::Vec;

use super::{Change, Metric, MetricKind, Now, Request};
use crate::random::Random;

/// How the tracer is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceSettings {
    /// Whether the response tells the client the trace's id, in `Server-Timing`.
    pub server_timing: bool,
}

/// What the tracer knows of one exchange.
#[derive(Clone, Copy, Debug)]
pub(super) struct Traced {
    trace: [u8; 16],
    span: [u8; 8],
    flags: u8,
    /// Whether `tracestate` must go: it belongs to a trace that is not continued.
    restarted: bool,
}

/// W3C Trace Context level 2, section 3.2: the flags that are defined.
const SAMPLED: u8 = 1;
const RANDOM: u8 = 2;

impl Traced {
    /// The context for the next hop.
    pub(super) fn inject(&self, changes: &mut Vec<Change>) {
        changes.push(Change::Set("traceparent", self.traceparent()));
        if self.restarted {
            changes.push(Change::Remove("tracestate"));
        }
    }

    /// The trace's id for the client, as the W3C's Server-Timing convention writes it.
    pub(super) fn server_timing(&self) -> Change {
        let mut value = b"traceparent;desc=\"".to_vec();
        value.extend_from_slice(&self.traceparent());
        value.push(b'"');
        Change::Add("server-timing", value)
    }

    fn traceparent(&self) -> Vec<u8> {
        let mut text = b"00-".to_vec();
        push_hex(&mut text, &self.trace);
        text.push(b'-');
        push_hex(&mut text, &self.span);
        text.push(b'-');
        push_hex(&mut text, &[self.flags]);
        text
    }
}

#[derive(Debug)]
pub(super) struct TraceGate {
    settings: TraceSettings,
    random: Random,
    continued: u64,
    started: u64,
    malformed: u64,
}

impl TraceGate {
    pub(super) fn new(settings: TraceSettings, random: Random) -> Self {
        Self { settings, random, continued: 0, started: 0, malformed: 0 }
    }

    pub(super) fn settings(&self) -> &TraceSettings {
        &self.settings
    }

    pub(super) fn metrics(&self, metrics: &mut Vec<Metric>) {
        for (name, value) in [
            ("edgeweir.trace.continued", self.continued),
            ("edgeweir.trace.started", self.started),
            ("edgeweir.trace.malformed", self.malformed),
        ] {
            metrics.push(Metric { name: Cow::from(name), kind: MetricKind::Counter, value });
        }
    }

    /// Continues the caller's trace, or begins one if the caller sends none that is
    /// well-formed.
    pub(super) fn begin(&mut self, request: &Request<'_>, _now: Now) -> Traced {
        let span = self.random.bytes::<8>();
        let mut values = request.fields.all("traceparent");
        let (first, second) = (values.next(), values.next());
        if let (Some(value), None) = (first, second)
            && let Some((trace, flags)) = parse(value)
        {
            self.continued += 1;
            return Traced { trace, span, flags, restarted: false };
        }
        self.malformed += u64::from(first.is_some());
        self.started += 1;
        let trace = self.random.bytes::<16>();
        Traced { trace, span, flags: SAMPLED | RANDOM, restarted: true }
    }
}

/// The trace id and the known flags of a `traceparent` (section 3.2). A version above
/// 00 may have more after the flags; this one does not look at it.
fn parse(value: &[u8]) -> Option<([u8; 16], u8)> {
    let value = value.trim_ascii();
    let (head, rest) = value.split_at_checked(55)?;
    let mut parts = head.split(|byte| *byte == b'-');
    let [version] = hex::<1>(parts.next()?)?;
    let trace = hex::<16>(parts.next()?)?;
    let parent = hex::<8>(parts.next()?)?;
    let [flags] = hex::<1>(parts.next()?)?;
    let tail = match version {
        0 => rest.is_empty(),
        0xff => false,
        _ => rest.first().is_none_or(|byte| *byte == b'-'),
    };
    let valid = tail && parts.next().is_none() && trace != [0; 16] && parent != [0; 8];
    valid.then_some((trace, flags & (SAMPLED | RANDOM)))
}

/// `N` bytes from 2·`N` lower-case hexadecimal digits.
fn hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

fn push_hex(text: &mut Vec<u8>, bytes: &[u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            text.extend(DIGITS.get(usize::from(nibble)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_continued_only_if_every_part_is_as_it_should_be() {
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        let parent = "00f067aa0ba902b7";
        for (value, flags) in [
            (std::format!("00-{trace}-{parent}-01"), Some(1)),
            (std::format!("00-{trace}-{parent}-03"), Some(3)),
            (std::format!("00-{trace}-{parent}-ff"), Some(3)),
            (std::format!(" 00-{trace}-{parent}-00\t"), Some(0)),
            (std::format!("cc-{trace}-{parent}-01-what-the-future-brings"), Some(1)),
            (std::format!("cc-{trace}-{parent}-01"), Some(1)),
            (std::format!("cc-{trace}-{parent}-01.x"), None),
            (std::format!("00-{trace}-{parent}-01-x"), None),
            (std::format!("ff-{trace}-{parent}-01"), None),
            (std::format!("00-{trace}-{}-01", "0".repeat(16)), None),
            (std::format!("00-{}-{parent}-01", "0".repeat(32)), None),
            (std::format!("00-{}-{parent}-01", trace.to_uppercase()), None),
            (std::format!("00-{trace}-{parent}-1"), None),
            (std::format!("00-{trace}-{parent}"), None),
            (std::format!("00-{trace}x{parent}-01"), None),
            (std::string::String::new(), None),
        ] {
            assert_eq!(parse(value.as_bytes()).map(|(_, flags)| flags), flags, "{value}");
        }
        assert_eq!(parse(&[0xff; 55]), None);
    }
}
