//! Which requests a stored response answers: `Vary` (RFC 9111 section 4.1).

use alloc::boxed::Box;
use alloc::vec::Vec;

use crate::http::{Fields, list};

/// The most field names of a `Vary` that is still worth an entry.
const MAX_NAMES: usize = 16;

/// The fields of the request that chose a response, with the values they had; none if
/// the response answers every request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selection(Box<[Chosen]>);

/// A field's name, and its value if the request had it.
type Chosen = (Box<[u8]>, Option<Box<[u8]>>);

impl Selection {
    /// What a response to this request depends on. `None` if it may answer no other
    /// request at all: `Vary: *`, names that are none, or too many.
    #[must_use]
    pub fn of(response: Fields<'_>, request: Fields<'_>) -> Option<Self> {
        let mut chosen: Vec<Chosen> = Vec::new();
        for name in response.all("vary").flat_map(list::members) {
            if name == b"*" || !crate::http::emit::is_name(name) {
                return None;
            }
            let name = name.to_ascii_lowercase();
            if chosen.iter().any(|(other, _)| **other == *name) {
                continue;
            }
            if chosen.len() == MAX_NAMES {
                return None;
            }
            let value = normal(request, &name);
            chosen.push((name.into(), value));
        }
        Some(Self(chosen.into()))
    }

    /// Whether the response answers this request too.
    #[must_use]
    pub fn fits(&self, request: Fields<'_>) -> bool {
        self.0.iter().all(|(name, value)| normal(request, name) == *value)
    }

    /// Whether the response answers every request.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The bytes that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let text = |value: &Option<Box<[u8]>>| value.as_ref().map_or(0, |value| value.len());
        self.0.iter().map(|(name, value)| 32 + name.len() + text(value)).sum()
    }
}

/// Fields that are no lists: a comma and the space around it are part of what they say,
/// and most of them say who asks.
const EXACT: [&str; 6] =
    ["authorization", "cookie", "origin", "proxy-authorization", "referer", "user-agent"];

/// All values of a field as one text that is the same for requests that mean the same:
/// white space around commas does not count; languages, encodings and media types
/// have no case, and no order beyond their weights (RFC 9110 section 12.5).
fn normal(request: Fields<'_>, name: &[u8]) -> Option<Box<[u8]>> {
    let name = core::str::from_utf8(name).ok()?;
    if !request.has(name) {
        return None;
    }
    if EXACT.contains(&name) {
        return Some(request.all(name).collect::<Vec<_>>().join(&b"\0"[..]).into());
    }
    let mut members: Vec<Vec<u8>> =
        request.all(name).flat_map(list::members).map(<[u8]>::to_vec).collect();
    if matches!(name, "accept" | "accept-encoding" | "accept-language" | "accept-charset") {
        for member in &mut members {
            member.make_ascii_lowercase();
            member.retain(|byte| !matches!(byte, b' ' | b'\t'));
        }
        members.sort_unstable();
    }
    Some(members.join(&b","[..]).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(vary: &[&str], first: &[(&str, &str)], second: &[(&str, &str)]) -> Option<bool> {
        fn bytes<'a>(pairs: &[(&'a str, &'a str)]) -> Vec<(&'a [u8], &'a [u8])> {
            pairs.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect()
        }
        let vary: Vec<_> = vary.iter().map(|line| (&b"vary"[..], line.as_bytes())).collect();
        let selection = Selection::of(Fields::new(&vary), Fields::new(&bytes(first)))?;
        Some(selection.fits(Fields::new(&bytes(second))))
    }

    #[test]
    fn rfc_9111_4_1_every_nominated_field_must_match() {
        for (vary, first, second, expected) in [
            (&[][..], &[("a", "1")][..], &[("a", "2")][..], Some(true)),
            (&["a"], &[("a", "1")], &[("a", "1")], Some(true)),
            (&["A"], &[("a", "1")], &[("a", "2")], Some(false)),
            (&["a"], &[("a", "1")], &[], Some(false)),
            (&["a"], &[], &[("a", "")], Some(false)),
            (&["a"], &[], &[], Some(true)),
            (&["a, b"], &[("a", "1"), ("b", "2")], &[("a", "1"), ("b", "3")], Some(false)),
            (&["a", "b"], &[("b", "2")], &[("b", "2"), ("c", "3")], Some(true)),
            (&["*"], &[], &[], None),
            (&["a, *"], &[], &[], None),
            (&["a", "*"], &[], &[], None),
            (&["a b"], &[], &[], None),
        ] {
            assert_eq!(fits(vary, first, second), expected, "{vary:?} {first:?} {second:?}");
        }
        let many = (0..17).map(|n| std::format!("f{n}")).collect::<Vec<_>>().join(",");
        assert_eq!(fits(&[&many], &[], &[]), None);
    }

    #[test]
    fn rfc_9111_4_1_requests_that_mean_the_same_match() {
        for (name, first, second, expected) in [
            ("foo", "1, 2", "1,2", true),
            ("foo", "1 ,\t2", "1, 2", true),
            ("foo", "1,2", "2,1", false),
            ("foo", "a", "A", false),
            ("cookie", "id=a,", "id=a", false),
            ("cookie", "id=a , b", "id=a,b", false),
            ("authorization", "x a,,b", "x a,b", false),
            ("accept-language", "en, de", "de,en", true),
            ("accept-language", "EN; q=0.5", "en;q=0.5", true),
            ("accept-language", "en, de;q=0.5", "en;q=0.5, de", false),
            ("accept-encoding", "gzip, br", "br, GZIP", true),
        ] {
            assert_eq!(
                fits(&[name], &[(name, first)], &[(name, second)]),
                Some(expected),
                "{first}"
            );
        }
        let lines = [("foo", "1"), ("foo", "2")];
        assert_eq!(fits(&["foo"], &lines, &[("foo", "1, 2")]), Some(true));
    }
}
