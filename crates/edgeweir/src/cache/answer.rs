//! What the client gets of an entry: all of it, a part, or "not modified" (RFC 9110
//! sections 13 and 14).

use alloc::format;
use alloc::rc::Rc;
use alloc::vec::Vec;

use super::entry::Entry;
use crate::http::{Fields, date, list};
use crate::time::{Instant, UnixTime};

/// The most ranges of one request that are served; more, or ranges that together are
/// longer than the whole, get the whole (RFC 9110 section 14.2: against abuse).
pub const MAX_RANGES: usize = 16;

/// A whole answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The fields, `Age` among them.
    pub fields: Vec<(Vec<u8>, Vec<u8>)>,
    /// The content.
    pub body: Rc<[u8]>,
}

/// Fields of a 304 (RFC 9110 section 15.4.5).
const OF_304: [&str; 8] = [
    "cache-control",
    "content-location",
    "date",
    "etag",
    "expires",
    "vary",
    "last-modified",
    "cdn-cache-control",
];

/// Answers a GET or HEAD from an entry.
#[must_use]
pub fn answer(
    entry: &Entry,
    request: Fields<'_>,
    head: bool,
    now: Instant,
    unix: UnixTime,
) -> Answer {
    let age = (b"age".to_vec(), format!("{}", entry.age(now).as_secs()).into_bytes());
    let owned = |(name, value): (&[u8], &[u8])| (name.to_vec(), value.to_vec());
    if is_unmodified(entry, request, unix) {
        let kept =
            |name: &[u8]| OF_304.iter().any(|other| name.eq_ignore_ascii_case(other.as_bytes()));
        let fields = entry.fields.iter().filter(|(name, _)| kept(name)).map(owned);
        let fields = fields.chain([age]).collect();
        return Answer { status: 304, fields, body: Rc::default() };
    }
    let mut fields: Vec<_> = entry.fields.iter().map(owned).chain([age]).collect();
    let whole = |fields| Answer { status: entry.status, fields, body: entry.body.clone() };
    // Ranges are for GET only (RFC 9110 section 14.2).
    if head || entry.status != 200 || !request.has("range") || !range_holds(entry, request) {
        return whole(fields);
    }
    let size = entry.body.len();
    let content_range = |value| (b"content-range".to_vec(), value);
    match ranges(request, size) {
        Ranges::Ignored => whole(fields),
        Ranges::Unsatisfiable => {
            fields.retain(|(name, _)| !name.eq_ignore_ascii_case(b"content-type"));
            fields.push(content_range(format!("bytes */{size}").into_bytes()));
            Answer { status: 416, fields, body: Rc::default() }
        }
        Ranges::Some(parts) => match parts[..] {
            [(first, last)] => {
                let value = format!("bytes {first}-{last}/{size}");
                fields.push(content_range(value.into_bytes()));
                let body = entry.body.get(first..=last).unwrap_or_default().into();
                Answer { status: 206, fields, body }
            }
            _ => {
                let body = multipart(entry, &mut fields, &parts);
                Answer { status: 206, fields, body }
            }
        },
    }
}

/// Several parts in one body (RFC 9110 section 14.6).
fn multipart(
    entry: &Entry,
    fields: &mut Vec<(Vec<u8>, Vec<u8>)>,
    parts: &[(usize, usize)],
) -> Rc<[u8]> {
    let content_type = entry.fields.first("content-type").map(<[u8]>::to_vec);
    // A line that does not occur in the body: longer than any that begins with it.
    let mut boundary = b"edgeweir".to_vec();
    while entry.body.windows(boundary.len()).any(|window| window == boundary) {
        boundary.extend_from_slice(format!("-{}", boundary.len()).as_bytes());
        if 64 < boundary.len() {
            break;
        }
    }
    let mut body = Vec::new();
    for (first, last) in parts {
        body.extend_from_slice(b"--");
        body.extend_from_slice(&boundary);
        if let Some(content_type) = &content_type {
            body.extend_from_slice(b"\r\ncontent-type: ");
            body.extend_from_slice(content_type);
        }
        let size = entry.body.len();
        body.extend_from_slice(
            format!("\r\ncontent-range: bytes {first}-{last}/{size}\r\n\r\n").as_bytes(),
        );
        body.extend_from_slice(entry.body.get(*first..=*last).unwrap_or_default());
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(b"--");
    body.extend_from_slice(&boundary);
    body.extend_from_slice(b"--\r\n");
    fields.retain(|(name, _)| !name.eq_ignore_ascii_case(b"content-type"));
    let kind = [&b"multipart/byteranges; boundary="[..], &boundary].concat();
    fields.push((b"content-type".to_vec(), kind));
    body.into()
}

/// Whether the client already has it (RFC 9110 section 13.2.2: `If-None-Match` first,
/// `If-Modified-Since` only without it; RFC 9111 section 4.3.2).
fn is_unmodified(entry: &Entry, request: Fields<'_>, unix: UnixTime) -> bool {
    if entry.status != 200 {
        // A precondition is evaluated where the answer without it is a 2xx.
        return false;
    }
    if request.has("if-none-match") {
        let Some(etag) = entry.fields.first("etag") else {
            return request.all("if-none-match").any(|line| list::trim(line) == b"*");
        };
        let opaque = strong(etag);
        return request
            .all("if-none-match")
            .flat_map(list::members)
            // The weak comparison (RFC 9110 section 8.8.3.2).
            .any(|tag| tag == b"*" || strong(tag) == opaque);
    }
    let since = |text: &[u8]| date::parse(list::trim(text), unix);
    let Some(asked) = request.first("if-modified-since").and_then(since) else { return false };
    let modified = entry.fields.first("last-modified").or_else(|| entry.fields.first("date"));
    modified.and_then(since).is_some_and(|modified| modified <= asked)
}

/// An entity tag without the mark that it is weak.
fn strong(etag: &[u8]) -> &[u8] {
    etag.strip_prefix(b"W/").unwrap_or(etag)
}

/// Whether the client's part is of this entry (RFC 9110 section 13.1.5): `If-Range`
/// has its strong entity tag, or exactly its date.
fn range_holds(entry: &Entry, request: Fields<'_>) -> bool {
    let mut lines = request.all("if-range");
    let Some(value) = lines.next() else { return true };
    if lines.next().is_some() {
        return false;
    }
    let value = list::trim(value);
    if value.starts_with(b"\"") {
        return entry.fields.first("etag") == Some(value);
    }
    !value.starts_with(b"W/") && entry.fields.first("last-modified") == Some(value)
}

enum Ranges {
    /// There is no range that one must serve: the whole is the answer.
    Ignored,
    /// None of them is in the body.
    Unsatisfiable,
    /// First and last byte of each.
    Some(Vec<(usize, usize)>),
}

/// The ranges of a request (RFC 9110 section 14.1.2). A malformed field is no field.
fn ranges(request: Fields<'_>, size: usize) -> Ranges {
    let mut lines = request.all("range");
    let (Some(line), None) = (lines.next(), lines.next()) else { return Ranges::Ignored };
    let line = list::trim(line);
    let unit = line.get(..6).is_some_and(|unit| unit.eq_ignore_ascii_case(b"bytes="));
    let Some(specs) = line.get(6..).filter(|_| unit) else { return Ranges::Ignored };
    let (mut found, mut asked) = (Vec::new(), 0);
    for spec in specs.split(|byte| *byte == b',').map(list::trim) {
        if spec.is_empty() {
            continue;
        }
        asked += 1;
        let Some(dash) = spec.iter().position(|byte| *byte == b'-') else { return Ranges::Ignored };
        let (first, last) = (spec.get(..dash), spec.get(dash + 1..));
        let (Some(first), Some(last)) = (first.and_then(number), last.and_then(number)) else {
            return Ranges::Ignored;
        };
        let range = match (first, last) {
            (Some(first), Some(last)) if last < first => return Ranges::Ignored,
            (None, None) => return Ranges::Ignored,
            (Some(first), last) => (first, last.unwrap_or(usize::MAX).min(size.wrapping_sub(1))),
            // The last so many bytes.
            (None, Some(0)) => continue,
            (None, Some(count)) => (size.saturating_sub(count), size.wrapping_sub(1)),
        };
        if range.0 < size {
            found.push(range);
        }
    }
    // Sixteen times half a gigabyte is more than a 32-bit number holds.
    let total =
        found.iter().fold(0_usize, |total, (first, last)| total.saturating_add(last - first + 1));
    match (asked, found.len()) {
        (0, _) => Ranges::Ignored,
        (_, 0) => Ranges::Unsatisfiable,
        (_, count) if MAX_RANGES < count || size < total => Ranges::Ignored,
        _ => Ranges::Some(found),
    }
}

/// `Some(None)` for no digits; `None` if there is anything else. Too many saturate.
#[expect(clippy::option_option, reason = "absent and malformed are two things")]
fn number(digits: &[u8]) -> Option<Option<usize>> {
    if digits.is_empty() {
        return Some(None);
    }
    digits
        .iter()
        .try_fold(0_usize, |number, digit| {
            let digit = digit.is_ascii_digit().then(|| usize::from(digit - b'0'))?;
            Some(number.saturating_mul(10).saturating_add(digit))
        })
        .map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::policy::{Policy, judge};
    use crate::cache::vary::Selection;
    use proptest::prelude::*;
    use std::string::String;

    const ETAG: &str = "\"abc\"";
    const MODIFIED: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

    fn entry(body: &[u8]) -> Entry {
        let pairs: [(&[u8], &[u8]); 5] = [
            (b"cache-control", b"max-age=60"),
            (b"etag", ETAG.as_bytes()),
            (b"last-modified", MODIFIED.as_bytes()),
            (b"content-type", b"text/plain"),
            (b"x", b"y"),
        ];
        let response = Fields::new(&pairs);
        let unix = UnixTime::from_secs(1_795_000_000);
        let terms = judge(&Policy::default(), Fields::default(), 200, response, unix).unwrap();
        Entry::new(200, response, body.into(), &terms, Selection::default(), Instant::ZERO)
    }

    fn ask(body: &[u8], request: &[(&str, &str)]) -> Answer {
        let pairs: Vec<_> = request.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
        let unix = UnixTime::from_secs(1_795_000_000);
        answer(&entry(body), Fields::new(&pairs), false, Instant::ZERO, unix)
    }

    fn field<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
        let found = answer.fields.iter().find(|(n, _)| n == name.as_bytes())?;
        core::str::from_utf8(&found.1).ok()
    }

    #[test]
    fn rfc_9110_13_1_what_is_not_modified() {
        for (request, status) in [
            (&[("if-none-match", ETAG)][..], 304),
            (&[("if-none-match", "W/\"abc\"")], 304),
            (&[("if-none-match", "\"x\", \"abc\"")], 304),
            (&[("if-none-match", "\"x\""), ("if-none-match", "\"abc\"")], 304),
            (&[("if-none-match", "*")], 304),
            (&[("if-none-match", "\"x\"")], 200),
            (&[("if-none-match", "abc")], 200),
            (&[("if-none-match", "\"x\""), ("if-modified-since", MODIFIED)], 200),
            (&[("if-modified-since", MODIFIED)], 304),
            (&[("if-modified-since", "Mon, 07 Nov 1994 08:49:37 GMT")], 304),
            (&[("if-modified-since", "Sat, 05 Nov 1994 08:49:37 GMT")], 200),
            (&[("if-modified-since", "garbage")], 200),
        ] {
            let answer = ask(b"body", request);
            assert_eq!(answer.status, status, "{request:?}");
            assert_eq!(answer.body.is_empty(), status == 304);
            assert_eq!(field(&answer, "x").is_some(), status == 200);
            assert_eq!(field(&answer, "etag"), Some(ETAG));
        }
    }

    #[test]
    fn rfc_9110_14_2_one_range() {
        for (range, status, body, content_range) in [
            ("bytes=0-0", 206, "0", Some("bytes 0-0/10")),
            ("bytes=2-4", 206, "234", Some("bytes 2-4/10")),
            ("Bytes=2-4", 206, "234", Some("bytes 2-4/10")),
            ("bytes=7-", 206, "789", Some("bytes 7-9/10")),
            ("bytes=7-99", 206, "789", Some("bytes 7-9/10")),
            ("bytes=-3", 206, "789", Some("bytes 7-9/10")),
            ("bytes=-99", 206, "0123456789", Some("bytes 0-9/10")),
            ("bytes=10-", 416, "", Some("bytes */10")),
            ("bytes=-0", 416, "", Some("bytes */10")),
            ("bytes=18446744073709551616-", 416, "", Some("bytes */10")),
            ("bytes=", 200, "0123456789", None),
            ("bytes=4-2", 200, "0123456789", None),
            ("bytes=a-b", 200, "0123456789", None),
            ("bytes=-", 200, "0123456789", None),
            ("items=0-1", 200, "0123456789", None),
        ] {
            let answer = ask(b"0123456789", &[("range", range)]);
            assert_eq!(answer.status, status, "{range}");
            assert_eq!(&*answer.body, body.as_bytes(), "{range}");
            assert_eq!(field(&answer, "content-range"), content_range, "{range}");
        }
    }

    #[test]
    fn rfc_9110_13_1_5_a_part_of_another_version_is_no_part() {
        for (value, status) in [
            (ETAG, 206),
            ("W/\"abc\"", 200),
            ("\"x\"", 200),
            (MODIFIED, 206),
            ("Mon, 07 Nov 1994 08:49:37 GMT", 200),
        ] {
            let answer = ask(b"0123456789", &[("range", "bytes=0-1"), ("if-range", value)]);
            assert_eq!(answer.status, status, "{value}");
        }
    }

    #[test]
    fn rfc_9110_14_6_several_ranges_in_one_body() {
        let answer = ask(b"0123456789", &[("range", "bytes=0-1, -2,50-")]);
        assert_eq!(answer.status, 206);
        assert_eq!(field(&answer, "content-type"), Some("multipart/byteranges; boundary=edgeweir"));
        assert_eq!(field(&answer, "content-range"), None);
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        assert_eq!(
            text,
            "--edgeweir\r\ncontent-type: text/plain\r\ncontent-range: bytes 0-1/10\r\n\r\n01\r\n\
             --edgeweir\r\ncontent-type: text/plain\r\ncontent-range: bytes 8-9/10\r\n\r\n89\r\n\
             --edgeweir--\r\n"
        );
        let boundary = ask(b"an edgeweir in here", &[("range", "bytes=0-1,4-5")]);
        assert_eq!(
            field(&boundary, "content-type"),
            Some("multipart/byteranges; boundary=edgeweir-8")
        );
    }

    #[test]
    fn ranges_cannot_be_used_to_make_more_of_less() {
        let many = (0..17).map(|_| "0-0").collect::<Vec<_>>().join(",");
        for range in [&*std::format!("bytes={many}"), "bytes=0-,0-,0-"] {
            assert_eq!(ask(b"0123456789", &[("range", range)]).status, 200, "{range}");
        }
    }

    proptest! {
        #[test]
        fn no_range_reaches_beyond_the_body(range in "bytes=[0-9,\\-]{0,20}", size in 0_usize..40) {
            let body: Vec<u8> = (0..size).map(|n| u8::try_from(n).unwrap()).collect();
            let answer = ask(&body, &[("range", &range)]);
            prop_assert!([200, 206, 416].contains(&answer.status));
            if answer.status == 206 && field(&answer, "content-range").is_some() {
                prop_assert!(!answer.body.is_empty() && answer.body.len() <= size);
                let first = usize::from(answer.body[0]);
                prop_assert_eq!(&*answer.body, &body[first..first + answer.body.len()]);
            }
        }
    }
}
