//! What is kept of a response.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::policy::Terms;
use super::vary::Selection;
use crate::http::structured;
use crate::http::{FieldList, Fields, list};
use crate::time::Instant;

/// Fields that end at each hop (RFC 9111 section 3.1), are told anew for each answer,
/// or belong to the body as it is sent.
const NOT_STORED: [&str; 15] = [
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "age",
    "cache-status",
    "content-length",
    "x-envoy-upstream-service-time",
    "warning",
];

/// Fields that describe the stored body and so stay as they are when the rest is
/// refreshed (RFC 9111 section 3.2).
const OF_THE_BODY: [&str; 2] = ["content-encoding", "content-range"];

/// The most groups that a response may be in (RFC 9875 section 2 asks for 32).
const MAX_GROUPS: usize = 32;

/// A stored response.
#[derive(Clone, Debug)]
pub struct Entry {
    /// The status code.
    pub status: u16,
    /// The fields that are kept, without pseudo-header fields.
    pub fields: FieldList,
    /// The whole content.
    pub body: Rc<[u8]>,
    /// Which requests it answers.
    pub selection: Selection,
    /// The groups that it is in (RFC 9875).
    pub groups: Box<[String]>,
    /// It must be validated before each use.
    pub no_cache: bool,
    /// It must not be served stale.
    pub must_revalidate: bool,
    received: Instant,
    // In seconds, at most 2^31.
    age: u32,
    lifetime: u32,
    stale_while_revalidate: u32,
    stale_if_error: u32,
}

fn seconds(duration: Duration) -> u32 {
    u32::try_from(duration.as_secs()).unwrap_or(u32::MAX)
}

impl Entry {
    /// An entry of a response that came at `now`.
    #[must_use]
    pub fn new(
        status: u16,
        response: Fields<'_>,
        body: Rc<[u8]>,
        terms: &Terms,
        selection: Selection,
        now: Instant,
    ) -> Self {
        let hop = connection_names(response);
        let kept = response.iter().filter(|(name, _)| {
            !(name.starts_with(b":")
                || is_one_of(name, &NOT_STORED)
                || hop.iter().any(|other| name.eq_ignore_ascii_case(other))
                || terms.without.iter().any(|other| name.eq_ignore_ascii_case(other)))
        });
        Self {
            status,
            fields: FieldList::new(kept),
            body,
            selection,
            groups: groups(response, "cache-groups").into(),
            no_cache: terms.no_cache,
            must_revalidate: terms.must_revalidate,
            received: now,
            age: seconds(terms.age),
            lifetime: seconds(terms.lifetime),
            stale_while_revalidate: seconds(terms.stale_while_revalidate),
            stale_if_error: seconds(terms.stale_if_error),
        }
    }

    /// Its fields after a 304 (or the response to a HEAD) that is about it: what that
    /// says replaces what is stored (RFC 9111 section 3.2).
    #[must_use]
    pub fn refreshed(&self, response: Fields<'_>) -> FieldList {
        let hop = connection_names(response);
        let new: Vec<_> = response
            .iter()
            .filter(|(name, _)| {
                !(name.starts_with(b":")
                    || is_one_of(name, &OF_THE_BODY)
                    || name.eq_ignore_ascii_case(b"content-length")
                    || hop.iter().any(|other| name.eq_ignore_ascii_case(other)))
            })
            .collect();
        let replaced = |name: &[u8]| new.iter().any(|(other, _)| other.eq_ignore_ascii_case(name));
        let old = self.fields.iter().filter(|(name, _)| !replaced(name));
        FieldList::new(old.chain(new.iter().copied()))
    }

    /// Whether a 304 can be about it: one that names another `ETag` cannot (RFC 9111
    /// section 4.3.4).
    #[must_use]
    pub fn is_told_of_by(&self, response: Fields<'_>) -> bool {
        let opaque = |tag: &'_ [u8]| tag.strip_prefix(b"W/").unwrap_or(tag).to_vec();
        match (response.first("etag"), self.fields.first("etag")) {
            (Some(told), Some(own)) => opaque(told) == opaque(own),
            _ => true,
        }
    }

    /// Its age (RFC 9111 section 4.2.3).
    #[must_use]
    pub fn age(&self, now: Instant) -> Duration {
        Duration::from_secs(self.age.into()).saturating_add(now.since(self.received))
    }

    /// How long it is fresh.
    #[must_use]
    pub fn lifetime(&self) -> Duration {
        Duration::from_secs(self.lifetime.into())
    }

    /// How long it may be served stale while it is fetched anew.
    #[must_use]
    pub fn stale_while_revalidate(&self) -> Duration {
        Duration::from_secs(self.stale_while_revalidate.into())
    }

    /// How long it may be served stale when upstream fails.
    #[must_use]
    pub fn stale_if_error(&self) -> Duration {
        Duration::from_secs(self.stale_if_error.into())
    }

    /// Makes it stale from now on: a soft purge.
    pub fn expire(&mut self, now: Instant) {
        self.lifetime = self.lifetime.min(seconds(self.age(now)));
    }

    /// The bytes that it takes, its overhead included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let groups: usize = self.groups.iter().map(|group| group.len() + 24).sum();
        size_of::<Self>() + self.fields.bytes() + self.body.len() + self.selection.bytes() + groups
    }
}

/// The groups named in a field (RFC 9875): a list of strings, ignored whole if
/// malformed.
#[must_use]
pub fn groups(response: Fields<'_>, name: &str) -> Vec<String> {
    let members = structured::list(response, name).unwrap_or_default();
    let strings = members.iter().map(|member| match &member.as_item()?.bare {
        structured::Bare::String(text) => Some(text.clone()),
        _ => None,
    });
    let mut groups: Vec<String> = strings.collect::<Option<_>>().unwrap_or_default();
    groups.truncate(MAX_GROUPS);
    groups
}

fn connection_names(response: Fields<'_>) -> Vec<&[u8]> {
    response.all("connection").flat_map(list::members).collect()
}

fn is_one_of(name: &[u8], names: &[&str]) -> bool {
    names.iter().any(|other| name.eq_ignore_ascii_case(other.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::policy::{Policy, judge};
    use crate::time::UnixTime;

    fn entry(pairs: &[(&str, &str)]) -> Entry {
        let pairs: Vec<_> = pairs.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())).collect();
        let response = Fields::new(&pairs);
        let policy = Policy::default();
        let terms =
            judge(&policy, Fields::default(), 200, response, UnixTime::from_secs(1)).unwrap();
        Entry::new(200, response, Rc::default(), &terms, Selection::default(), Instant::ZERO)
    }

    fn names(fields: &FieldList) -> Vec<String> {
        fields.iter().map(|(name, _)| String::from_utf8(name.to_vec()).unwrap()).collect()
    }

    #[test]
    fn rfc_9111_3_1_fields_of_one_hop_are_not_stored() {
        let entry = entry(&[
            (":status", "200"),
            ("cache-control", "max-age=60, private=\"x-user\", no-cache=\"X-Once\""),
            ("connection", "X-Hop, close"),
            ("x-hop", "a"),
            ("keep-alive", "a"),
            ("transfer-encoding", "chunked"),
            ("proxy-authenticate", "a"),
            ("x-user", "alice"),
            ("x-once", "a"),
            ("age", "3"),
            ("content-length", "0"),
            ("x-a", "b"),
        ]);
        assert_eq!(names(&entry.fields), ["cache-control", "x-a"]);
        assert_eq!(entry.age(Instant::ZERO).as_secs(), 3);
    }

    #[test]
    fn rfc_9111_3_2_a_304_replaces_what_it_names() {
        let entry = entry(&[
            ("cache-control", "max-age=60"),
            ("x", "1"),
            ("x", "2"),
            ("content-encoding", "gzip"),
            ("y", "1"),
        ]);
        let new: [(&[u8], &[u8]); 5] = [
            (b":status", b"304"),
            (b"X", b"3"),
            (b"content-encoding", b"br"),
            (b"content-length", b"9"),
            (b"connection", b"close"),
        ];
        let fields = entry.refreshed(Fields::new(&new));
        assert_eq!(fields.first("x"), Some(&b"3"[..]));
        assert_eq!(fields.first("content-encoding"), Some(&b"gzip"[..]));
        assert_eq!(names(&fields), ["cache-control", "content-encoding", "y", "X", "connection"]);
    }

    #[test]
    fn rfc_9875_2_groups_are_strings_or_there_are_none() {
        for (value, expected) in [
            ("\"a\", \"b c\";x", &["a", "b c"][..]),
            ("a", &[]),
            ("\"a\", b", &[]),
            ("\"a\",", &[]),
            ("", &[]),
        ] {
            let pairs = [(&b"cache-groups"[..], value.as_bytes())];
            assert_eq!(groups(Fields::new(&pairs), "cache-groups"), expected, "{value}");
        }
    }

    #[test]
    fn an_entry_takes_little_beyond_its_bytes() {
        let overhead = size_of::<Entry>();
        assert!(overhead <= 192, "{overhead}");
    }
}
