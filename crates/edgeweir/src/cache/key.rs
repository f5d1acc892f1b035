//! What a request asks for, and when the cache must stay out of it.

use alloc::rc::Rc;
use alloc::vec::Vec;

use crate::http::Fields;

/// Where a request goes: what makes two requests ask for the same thing (RFC 9111
/// section 2), in a form that is the same for all its spellings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    scheme: Vec<u8>,
    authority: Vec<u8>,
    path: Vec<u8>,
}

/// Request fields that change what many servers answer, although no cache keys on
/// them: a response to one must reach nobody else (cache poisoning).
pub const UNKEYED: [&str; 14] = [
    "x-forwarded-host",
    "x-forwarded-scheme",
    "x-forwarded-server",
    "x-forwarded-prefix",
    "x-host",
    "x-http-host-override",
    "x-original-host",
    "x-original-url",
    "x-rewrite-url",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "x-middleware-prefetch",
    "forwarded",
];

impl Target {
    /// The target in a request's pseudo-header fields; `None` if it has none that
    /// one could rely on.
    #[must_use]
    pub fn of(fields: Fields<'_>) -> Option<Self> {
        let scheme = fields.first(":scheme").unwrap_or(b"http").to_ascii_lowercase();
        let path = fields.first(":path")?;
        if !path.starts_with(b"/") {
            return None;
        }
        Some(Self {
            authority: authority(fields.first(":authority")?, &scheme)?,
            scheme,
            path: path.split(|byte| *byte == b'#').next()?.to_vec(),
        })
    }

    /// The key: each part with its length, so that no two targets run into one.
    #[must_use]
    pub fn key(&self) -> Rc<[u8]> {
        let mut key = Vec::new();
        for part in [&self.scheme, &self.authority, &self.path] {
            // A part is a header, far below 4 GiB.
            key.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
            key.extend_from_slice(part);
        }
        key.into()
    }

    /// The part of a key that all targets of one origin begin with.
    #[must_use]
    pub fn origin(&self) -> Vec<u8> {
        let origin = Self { path: Vec::new(), ..self.clone() };
        let key = origin.key();
        key.get(..key.len().saturating_sub(4)).unwrap_or_default().to_vec()
    }

    /// What a reference (RFC 3986 section 4.1) in a response to this target means, if
    /// it has the same origin.
    #[must_use]
    pub fn resolve(&self, reference: &[u8]) -> Option<Self> {
        let reference = reference.split(|byte| *byte == b'#').next()?;
        let colon = reference.iter().position(|byte| *byte == b':');
        let stop = reference.iter().position(|byte| matches!(byte, b'/' | b'?'));
        let (scheme, rest) = match colon {
            Some(at) if stop.is_none_or(|stop| at < stop) => {
                (reference.get(..at)?.to_ascii_lowercase(), reference.get(at + 1..)?)
            }
            _ => (self.scheme.clone(), reference),
        };
        if scheme != self.scheme {
            return None;
        }
        let path = match rest.strip_prefix(b"//") {
            Some(rest) => {
                let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?'));
                let (host, path) = rest.split_at(end.unwrap_or(rest.len()));
                if authority(host, &scheme)? != self.authority {
                    return None;
                }
                match path.first() {
                    Some(b'/') => path.to_vec(),
                    _ => [b"/", path].concat(),
                }
            }
            None if rest.len() != reference.len() => return None,
            None => self.relative(rest)?,
        };
        Some(Self { path, ..self.clone() })
    }

    fn relative(&self, reference: &[u8]) -> Option<Vec<u8>> {
        let base = self.path.split(|byte| *byte == b'?').next()?;
        let whole = match reference.first() {
            None => return Some(self.path.clone()),
            Some(b'/') => reference.to_vec(),
            Some(b'?') => [base, reference].concat(),
            Some(_) => {
                let folder = base.iter().rposition(|byte| *byte == b'/')?;
                [base.get(..=folder)?, reference].concat()
            }
        };
        let (path, query) = match whole.iter().position(|byte| *byte == b'?') {
            Some(at) => whole.split_at(at),
            None => (&whole[..], &b""[..]),
        };
        // RFC 3986 section 5.2.4.
        let mut parts: Vec<&[u8]> = Vec::new();
        let mut segments = path.split(|byte| *byte == b'/').skip(1).peekable();
        while let Some(segment) = segments.next() {
            let last = segments.peek().is_none();
            match segment {
                b"." | b".." => {
                    if segment == b".." {
                        parts.pop();
                    }
                    if last {
                        parts.push(b"");
                    }
                }
                segment => parts.push(segment),
            }
        }
        let mut path = Vec::new();
        for part in parts {
            path.push(b'/');
            path.extend_from_slice(part);
        }
        path.extend_from_slice(query);
        Some(path)
    }
}

/// An authority in lower case, without the scheme's own port and a final dot; `None`
/// if it is empty, or two that were joined.
fn authority(text: &[u8], scheme: &[u8]) -> Option<Vec<u8>> {
    let mut text = text.to_ascii_lowercase();
    let port: &[u8] = if scheme == b"https" { b":443" } else { b":80" };
    if let Some(host) = text.strip_suffix(port) {
        text = host.to_vec();
    }
    if let Some(host) = text.strip_suffix(b".") {
        text = host.to_vec();
    }
    let whole = !text.is_empty() && !text.iter().any(|byte| matches!(byte, b',' | b'@' | b' '));
    whole.then_some(text)
}

/// What a method is to a cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Answered from the store, and stored.
    Get,
    /// Answered from the store.
    Head,
    /// Safe, but neither stored nor answered.
    Safe,
    /// Makes what it is sent to invalid (RFC 9111 section 4.4); so does a method that
    /// is not known.
    Unsafe,
}

impl Method {
    /// The method in a request's `:method`. Methods have case.
    #[must_use]
    pub fn of(fields: Fields<'_>) -> Self {
        match fields.first(":method") {
            Some(b"GET") => Self::Get,
            Some(b"HEAD") => Self::Head,
            Some(b"OPTIONS" | b"TRACE" | b"CONNECT" | b"PROPFIND" | b"REPORT" | b"SEARCH")
            | None => Self::Safe,
            Some(_) => Self::Unsafe,
        }
    }
}

/// Why the cache stays out of a request for a target that it could answer; a word for
/// `Cache-Status`. `None` if it need not.
#[must_use]
pub fn bypass(fields: Fields<'_>, end: bool) -> Option<&'static str> {
    // A body could change the answer, and what stays of it on the connection must not
    // be read as the next request.
    let length = fields.first("content-length").is_some_and(|length| length != b"0");
    if !end || length || fields.has("transfer-encoding") {
        return Some("request-body");
    }
    if fields.has("upgrade") {
        return Some("upgrade");
    }
    // Preconditions that only the origin can judge (RFC 9110 section 13.2.1).
    if fields.has("if-match") || fields.has("if-unmodified-since") {
        return Some("precondition");
    }
    if UNKEYED.iter().any(|name| fields.has(name)) {
        return Some("unkeyed-field");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn target(scheme: &str, authority: &str, path: &str) -> Option<Target> {
        let pairs = [(":scheme", scheme), (":authority", authority), (":path", path)];
        let pairs = pairs.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        Target::of(Fields::new(&pairs))
    }

    #[test]
    fn spellings_of_one_authority_are_one_key() {
        let key = |authority| target("http", authority, "/").map(|target| target.key());
        for other in ["A.Example", "a.example:80", "a.example.", "a.example.:80"] {
            assert_eq!(key("a.example"), key(other), "{other}");
        }
        for other in ["a.example:8080", "a.example:443", "b.example"] {
            assert_ne!(key("a.example"), key(other), "{other}");
        }
        for bad in ["", ".", "a,b", "u@a"] {
            assert_eq!(key(bad), None, "{bad}");
        }
        assert_ne!(
            target("http", "a", "/").map(|target| target.key()),
            target("https", "a", "/").map(|target| target.key())
        );
    }

    #[test]
    fn rfc_3986_5_references_of_the_same_origin() {
        let base = target("http", "a.example", "/b/c?q").unwrap();
        for (reference, path) in [
            ("/x", Some("/x")),
            ("x?y=/z", Some("/b/x?y=/z")),
            ("../x", Some("/x")),
            ("./", Some("/b/")),
            ("..", Some("/")),
            ("../../../x", Some("/x")),
            ("?r", Some("/b/c?r")),
            ("", Some("/b/c?q")),
            ("/x#y", Some("/x")),
            ("http://a.example/x", Some("/x")),
            ("HTTP://A.Example:80/x", Some("/x")),
            ("http://a.example", Some("/")),
            ("http://a.example?x", Some("/?x")),
            ("//a.example/x", Some("/x")),
            ("https://a.example/x", None),
            ("http://b.example/x", None),
            ("//b.example/x", None),
            ("mailto:x", None),
            ("http:x", None),
        ] {
            let found = base.resolve(reference.as_bytes()).map(|target| target.path);
            assert_eq!(found.as_deref(), path.map(str::as_bytes), "{reference}");
        }
    }

    #[test]
    fn requests_that_the_cache_stays_out_of() {
        for (name, value, end, why) in [
            ("x", "y", true, None),
            ("content-length", "0", true, None),
            ("content-length", "5", true, Some("request-body")),
            ("x", "y", false, Some("request-body")),
            ("X-Forwarded-Host", "evil.example", true, Some("unkeyed-field")),
            ("x-http-method-override", "DELETE", true, Some("unkeyed-field")),
            ("if-match", "\"a\"", true, Some("precondition")),
            ("upgrade", "websocket", true, Some("upgrade")),
        ] {
            let pairs = [(name.as_bytes(), value.as_bytes())];
            assert_eq!(bypass(Fields::new(&pairs), end), why, "{name}");
        }
    }

    proptest! {
        #[test]
        fn two_targets_never_share_a_key(a in "[a-z]{1,4}", p in "[a-z/?]{0,6}", b in "[a-z]{1,4}", q in "[a-z/?]{0,6}") {
            let x = target("http", &a, &std::format!("/{p}")).unwrap();
            let y = target("http", &b, &std::format!("/{q}")).unwrap();
            prop_assert_eq!(x == y, x.key() == y.key());
            prop_assert!(x.key().starts_with(&x.origin()));
        }

        #[test]
        fn no_reference_panics(reference in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'/'), Just(b'.'), Just(b':')], 0..30)) {
            let _ = target("http", "a", "/b/c").unwrap().resolve(&reference);
        }
    }
}
