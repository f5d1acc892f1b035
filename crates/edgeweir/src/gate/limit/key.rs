//! Which requests a rule is about, and whose bucket they draw from.
//!
//! A path counts in one spelling only: percent-encoding undone as often as it was
//! done, `\` as `/`, `//`, `/.`, `/..`, `;parameters` and a last `/` gone. Two
//! services may tell some of these apart, but no rule can be slipped past by them.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::cell::OnceCell;
use core::net::IpAddr;

use crate::http::Fields;

/// One part of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyPart {
    /// The client's address, behind trusted proxies, cut to its prefix.
    ClientAddress,
    /// All values of a header field.
    Header(String),
    /// All values of a cookie.
    Cookie(String),
    /// All values of a query parameter.
    Query(String),
    /// The path.
    Path,
    /// The first of these templates that the path matches; none is a key of its own.
    Template(Vec<PathPattern>),
    /// The method.
    Method,
    /// The host, without case, default port and final dot.
    Host,
    /// A property of the host; the parts of its path are joined by NUL.
    Property(Vec<u8>),
}

/// A pattern of paths: `/users/{id}/orders`, `/static/*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    segments: Vec<Segment>,
    /// Whether more segments may follow.
    open: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Exact(Vec<u8>),
    Any,
}

impl PathPattern {
    /// The pattern that `text` spells: `{name}` is any one segment, a last `*` any
    /// number of them. `None` if it does not begin with `/`, or has `*` elsewhere.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if !text.starts_with('/') {
            return None;
        }
        let canonical = canonical_path(text.as_bytes());
        let mut segments = Vec::new();
        let mut open = false;
        for segment in canonical.split(|byte| *byte == b'/').skip(1) {
            if open {
                return None;
            }
            match segment {
                b"" => {}
                b"*" => open = true,
                [b'{', .., b'}'] => segments.push(Segment::Any),
                exact if exact.contains(&b'*') => return None,
                exact => segments.push(Segment::Exact(exact.to_vec())),
            }
        }
        Some(Self { segments, open })
    }

    fn matches(&self, canonical: &[u8]) -> bool {
        let mut given = canonical.split(|byte| *byte == b'/').skip(1).filter(|s| !s.is_empty());
        for segment in &self.segments {
            let Some(there) = given.next() else { return false };
            if matches!(segment, Segment::Exact(exact) if exact != there) {
                return false;
            }
        }
        self.open || given.next().is_none()
    }
}

/// Which requests a rule is about. What is empty matches every request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matcher {
    /// One of these methods.
    pub methods: Vec<String>,
    /// One of these hosts; `*.example.com` is every name below.
    pub hosts: Vec<String>,
    /// One of these paths.
    pub paths: Vec<PathPattern>,
    /// All of these header fields: any value, or one line with this value.
    pub headers: Vec<(String, Option<String>)>,
}

impl Matcher {
    pub(super) fn matches(&self, head: &Head<'_>) -> bool {
        let host = || head.host();
        (self.methods.is_empty()
            || self.methods.iter().any(|method| head.method() == Some(method.as_bytes())))
            && (self.hosts.is_empty()
                || host().is_some_and(|host| self.hosts.iter().any(|p| host_matches(p, &host))))
            && (self.paths.is_empty()
                || self.paths.iter().any(|pattern| pattern.matches(head.path())))
            && self.headers.iter().all(|(name, value)| match value {
                None => head.fields.has(name),
                Some(value) => head.fields.all(name).any(|there| there == value.as_bytes()),
            })
    }
}

fn host_matches(pattern: &str, host: &[u8]) -> bool {
    match pattern.strip_prefix('*') {
        Some(below) => {
            let (below, dots) = (below.as_bytes(), below.starts_with('.'));
            dots && below.len() < host.len()
                && host.get(host.len() - below.len()..).is_some_and(|end| end == below)
        }
        None => host == pattern.as_bytes(),
    }
}

/// The head of a request, as rules see it.
pub(super) struct Head<'a> {
    pub(super) fields: Fields<'a>,
    path: OnceCell<Vec<u8>>,
}

impl<'a> Head<'a> {
    pub(super) const fn new(fields: Fields<'a>) -> Self {
        Self { fields, path: OnceCell::new() }
    }

    pub(super) fn method(&self) -> Option<&'a [u8]> {
        self.fields.first(":method")
    }

    pub(super) fn path(&self) -> &[u8] {
        self.path.get_or_init(|| canonical_path(self.fields.first(":path").unwrap_or_default()))
    }

    fn host(&self) -> Option<Vec<u8>> {
        let host = self.fields.first(":authority").or_else(|| self.fields.first("host"))?;
        canonical_host(host)
    }

    /// The bytes of one part of a key that needs nothing but the head; `None` if the
    /// request does not have it.
    pub(super) fn part(&self, part: &KeyPart) -> Option<Cow<'_, [u8]>> {
        match part {
            KeyPart::Header(name) => joined(self.fields.all(name)),
            KeyPart::Cookie(name) => joined(self.fields.all("cookie").flat_map(|line| {
                line.split(|byte| *byte == b';').filter_map(|pair| {
                    let (key, value) = split_once(pair.trim_ascii(), b'=')?;
                    (key == name.as_bytes()).then_some(value)
                })
            })),
            KeyPart::Query(name) => {
                let target = self.fields.first(":path")?;
                let (_, query) = split_once(target, b'?')?;
                let query = query.split(|byte| *byte == b'#').next()?;
                let values: Vec<_> = query
                    .split(|byte| *byte == b'&')
                    .filter_map(|pair| {
                        let (key, value) = split_once(pair, b'=').unwrap_or((pair, b""));
                        (decoded(key, b"") == name.as_bytes()).then(|| decoded(value, b""))
                    })
                    .collect();
                joined(values.iter().map(Vec::as_slice)).map(|value| value.into_owned().into())
            }
            KeyPart::Path => Some(self.path().into()),
            KeyPart::Template(patterns) => {
                let at = patterns.iter().position(|pattern| pattern.matches(self.path()));
                let at = at.and_then(|at| u32::try_from(at).ok()).unwrap_or(u32::MAX);
                Some(at.to_le_bytes().to_vec().into())
            }
            KeyPart::Method => self.method().map(Into::into),
            KeyPart::Host => self.host().map(Into::into),
            KeyPart::ClientAddress | KeyPart::Property(_) => None,
        }
    }
}

/// All values, so that a second one cannot hide behind the first; none if there is
/// none or all are empty.
fn joined<'v>(values: impl Iterator<Item = &'v [u8]>) -> Option<Cow<'v, [u8]>> {
    let mut all: Option<Cow<'v, [u8]>> = None;
    for value in values {
        match &mut all {
            None => all = Some(Cow::Borrowed(value)),
            Some(before) => {
                let before = before.to_mut();
                before.extend_from_slice(b", ");
                before.extend_from_slice(value);
            }
        }
    }
    all.filter(|value| !value.is_empty())
}

fn split_once(bytes: &[u8], at: u8) -> Option<(&[u8], &[u8])> {
    let place = bytes.iter().position(|byte| *byte == at)?;
    Some((bytes.get(..place)?, bytes.get(place + 1..)?))
}

/// Adds a part to a key such that no two different lists of parts give the same key.
pub(super) fn push_part(key: &mut Vec<u8>, part: Option<&[u8]>) {
    match part {
        None => key.push(0),
        Some(part) => {
            key.push(1);
            key.extend_from_slice(&(part.len() as u64).to_le_bytes());
            key.extend_from_slice(part);
        }
    }
}

/// Whether an address is written the way [`crate::limit::AddressPrefix::key`] cuts it.
pub(super) fn shown_address(key: [u8; 16]) -> IpAddr {
    IpAddr::V6(core::net::Ipv6Addr::from(key)).to_canonical()
}

/// Percent-decoded, again and again, in one pass; what decodes to a byte of `keep`
/// stays as it is.
fn decoded(text: &[u8], keep: &[u8]) -> Vec<u8> {
    let hex = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut out: Vec<u8> = Vec::with_capacity(text.len());
    for &byte in text {
        out.push(byte);
        // A decoded byte may be the end of another encoding.
        while let [.., b'%', high, low] = out[..] {
            let Some(byte) = hex(high).zip(hex(low)).map(|(h, l)| h << 4 | l) else { break };
            if keep.contains(&byte) {
                break;
            }
            out.truncate(out.len() - 3);
            out.push(byte);
        }
    }
    out
}

/// One spelling for all forms of a path, without its query. It begins with `/` and
/// ends without, unless it is `/`. A path that is in this form stays as it is.
fn canonical_path(target: &[u8]) -> Vec<u8> {
    let path = target.split(|byte| *byte == b'?' || *byte == b'#').next().unwrap_or_default();
    let path = decoded(path, b"?#");
    let mut segments: Vec<&[u8]> = Vec::new();
    for segment in path.split(|byte| *byte == b'/' || *byte == b'\\') {
        let segment = segment.split(|byte| *byte == b';').next().unwrap_or_default();
        match segment {
            b"" | b"." => {}
            b".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    let mut out = Vec::with_capacity(path.len());
    for segment in segments {
        out.push(b'/');
        out.extend_from_slice(segment);
    }
    if out.is_empty() {
        out.push(b'/');
    }
    out
}

/// A host without case, default port and final dot; `None` for one that is empty or
/// was joined from two.
fn canonical_host(host: &[u8]) -> Option<Vec<u8>> {
    let host = host.trim_ascii();
    let host = host.strip_suffix(b":80").or_else(|| host.strip_suffix(b":443")).unwrap_or(host);
    let host = host.strip_suffix(b".").unwrap_or(host);
    (!host.is_empty() && !host.contains(&b',')).then(|| host.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_form_of_a_path_is_one() {
        let table = [
            ("/a/b", "/a/b"),
            ("//a///b/", "/a/b"),
            ("/a/./b", "/a/b"),
            ("/x/../a/b", "/a/b"),
            ("/../../a/b", "/a/b"),
            ("/a%2fb", "/a/b"),
            ("/a\\b", "/a/b"),
            ("/a/b;p=1", "/a/b"),
            ("/a;x/b;y=/c/..", "/a/b"),
            ("/%61/b", "/a/b"),
            ("/%2561/b", "/a/b"),
            ("/%252525612f/..%2fa/b", "/a/b"),
            ("/a/%2e%2E/a/b?q=/c", "/a/b"),
            ("/a/b#f", "/a/b"),
            ("/A/b", "/A/b"),
            ("", "/"),
            ("*", "/*"),
            ("/a%3fb", "/a%3fb"),
            ("/a%zz%4", "/a%zz%4"),
        ];
        for (path, canonical) in table {
            let there = canonical_path(path.as_bytes());
            assert_eq!(core::str::from_utf8(&there).unwrap(), canonical, "{path}");
        }
    }

    proptest! {
        #[test]
        fn a_canonical_path_stays_as_it_is(path in "[/a.%25eEfF;?\\\\]{0,24}") {
            let once = canonical_path(path.as_bytes());
            prop_assert_eq!(canonical_path(&once), once);
        }

        #[test]
        fn no_two_lists_of_parts_share_a_key(
            a in prop::collection::vec(prop::option::of(prop::collection::vec(0_u8..3, 0..4)), 2),
            b in prop::collection::vec(prop::option::of(prop::collection::vec(0_u8..3, 0..4)), 2),
        ) {
            let key = |parts: &[Option<Vec<u8>>]| {
                let mut key = Vec::new();
                parts.iter().for_each(|part| push_part(&mut key, part.as_deref()));
                key
            };
            prop_assert_eq!(key(&a) == key(&b), a == b);
        }
    }

    #[test]
    fn decoding_what_was_encoded_many_times_takes_one_pass() {
        // 60 KiB of "%252525..": as many decodings as bytes, each of them cheap.
        let mut path = b"/%".to_vec();
        path.extend(b"25".repeat(30_000));
        path.extend(b"61");
        assert_eq!(canonical_path(&path), b"/a");
    }

    fn head_part(fields: &[(&str, &str)], part: KeyPart) -> Option<Vec<u8>> {
        let fields: Vec<(&[u8], &[u8])> =
            fields.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
        Head::new(Fields::new(&fields)).part(&part).map(Cow::into_owned)
    }

    #[test]
    fn parts_of_a_key_are_read_from_all_values() {
        let name = |name: &str| String::from(name);
        type Row<'a> = (&'a [(&'a str, &'a str)], KeyPart, Option<&'a str>);
        let table: [Row<'_>; 14] = [
            (&[("x-key", "a")], KeyPart::Header(name("X-Key")), Some("a")),
            (&[("x-key", "a"), ("x-key", "b")], KeyPart::Header(name("x-key")), Some("a, b")),
            (&[("x-key", "")], KeyPart::Header(name("x-key")), None),
            (&[], KeyPart::Header(name("x-key")), None),
            (&[("cookie", "a=1; b=2")], KeyPart::Cookie(name("b")), Some("2")),
            (&[("cookie", "b=1"), ("cookie", " b=2;c")], KeyPart::Cookie(name("b")), Some("1, 2")),
            (&[("cookie", "bb=1")], KeyPart::Cookie(name("b")), None),
            (&[(":path", "/?k=%61&k=b#k=c")], KeyPart::Query(name("k")), Some("a, b")),
            (&[(":path", "/?%6b=1")], KeyPart::Query(name("k")), Some("1")),
            (&[(":path", "/k=1")], KeyPart::Query(name("k")), None),
            (&[(":authority", "A.Example:443")], KeyPart::Host, Some("a.example")),
            (&[(":authority", "a.example.")], KeyPart::Host, Some("a.example")),
            (&[(":authority", "a,b")], KeyPart::Host, None),
            (&[(":method", "GET")], KeyPart::Method, Some("GET")),
        ];
        for (row, (fields, part, value)) in table.into_iter().enumerate() {
            let expected = value.map(|value| value.as_bytes().to_vec());
            assert_eq!(head_part(fields, part), expected, "row {row}");
        }
    }

    #[test]
    fn templates_match_whole_segments() {
        let table = [
            ("/users/{id}", "/users/7", true),
            ("/users/{id}", "/users/7/", true),
            ("/users/{id}", "/users", false),
            ("/users/{id}", "/users/7/orders", false),
            ("/users/{id}/orders", "/users/7/orders", true),
            ("/static/*", "/static", true),
            ("/static/*", "/static/a/b", true),
            ("/static/*", "/statics", false),
            ("/", "/", true),
            ("/", "/a", false),
            ("/*", "/", true),
        ];
        for (pattern, path, matches) in table {
            let pattern_value = PathPattern::parse(pattern).unwrap();
            assert_eq!(
                pattern_value.matches(&canonical_path(path.as_bytes())),
                matches,
                "{pattern} {path}"
            );
        }
        for bad in ["", "a", "/a*", "/*/a"] {
            assert_eq!(PathPattern::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_matcher_asks_for_one_of_each_kind() {
        let matcher = Matcher {
            methods: [String::from("POST"), String::from("PUT")].into(),
            hosts: [String::from("*.example.com")].into(),
            paths: [PathPattern::parse("/api/*").unwrap()].into(),
            headers: [(String::from("x-a"), None), (String::from("x-b"), Some(String::from("1")))]
                .into(),
        };
        let check = |method, host, path, b, expected| {
            let fields: [(&[u8], &[u8]); 6] = [
                (b":method", method),
                (b":authority", host),
                (b":path", path),
                (b"x-a", b""),
                (b"x-b", b"0"),
                (b"x-b", b),
            ];
            assert_eq!(matcher.matches(&Head::new(Fields::new(&fields))), expected);
        };
        check(b"POST", b"a.Example.com", b"/api/x", b"1", true);
        check(b"GET", b"a.example.com", b"/api/x", b"1", false);
        check(b"PUT", b"example.com", b"/api/x", b"1", false);
        check(b"PUT", b"a.b.example.com", b"/apis", b"1", false);
        check(b"PUT", b"a.b.example.com", b"/%61pi", b"2", false);
        check(b"PUT", b"a.b.example.com", b"/x/..//%61pi/", b"1", true);
        assert!(Matcher::default().matches(&Head::new(Fields::default())));
    }
}
