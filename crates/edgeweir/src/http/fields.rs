//! Header fields as the edge sees them: names and values are bytes.

use alloc::boxed::Box;
use alloc::vec::Vec;

/// A borrowed list of header fields, in the order received.
///
/// Names are compared without case. Values are bytes: Envoy passes 0x80 to 0xFF
/// through, so a value need not be UTF-8. A name may come more than once, and
/// every decision must look at all of its values ([`Fields::all`]).
#[derive(Clone, Copy, Debug, Default)]
pub struct Fields<'a>(&'a [(&'a [u8], &'a [u8])]);

impl<'a> Fields<'a> {
    /// A view of `fields`, pairs of name and value.
    #[must_use]
    pub const fn new(fields: &'a [(&'a [u8], &'a [u8])]) -> Self {
        Self(fields)
    }

    /// The first value of `name`. O(n) in the fields.
    #[must_use]
    pub fn first(self, name: &str) -> Option<&'a [u8]> {
        self.all(name).next()
    }

    /// Every value of `name`, one for each field line, in order.
    pub fn all<'n>(self, name: &'n str) -> impl Iterator<Item = &'a [u8]> + use<'a, 'n> {
        self.0.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name.as_bytes())).map(|(_, v)| *v)
    }

    /// Whether there is a field of that name.
    #[must_use]
    pub fn has(self, name: &str) -> bool {
        self.first(name).is_some()
    }

    /// All fields, pairs of name and value, in order.
    pub fn iter(self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.0.iter().copied()
    }
}

/// A list of header fields that is kept: one piece of memory for the text, and eight
/// bytes for each field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldList {
    text: Box<[u8]>,
    // Where each name and each value ends.
    ends: Box<[(u32, u32)]>,
}

impl FieldList {
    /// A copy of these fields, in their order. Text beyond 4 GiB is left out.
    pub fn new<'a>(fields: impl IntoIterator<Item = (&'a [u8], &'a [u8])>) -> Self {
        let (mut text, mut ends) = (Vec::new(), Vec::new());
        for (name, value) in fields {
            text.extend_from_slice(name);
            let name_end = u32::try_from(text.len());
            text.extend_from_slice(value);
            let (Ok(name), Ok(value)) = (name_end, u32::try_from(text.len())) else { break };
            ends.push((name, value));
        }
        Self { text: text.into(), ends: ends.into() }
    }

    /// All fields, pairs of name and value, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut start = 0;
        self.ends.iter().map(move |(name, value)| {
            let (name, value) = (*name as usize, *value as usize);
            let pair = (self.text.get(start..name), self.text.get(name..value));
            start = value;
            (pair.0.unwrap_or_default(), pair.1.unwrap_or_default())
        })
    }

    /// The pairs, for a [`Fields`] of them.
    #[must_use]
    pub fn pairs(&self) -> Vec<(&[u8], &[u8])> {
        self.iter().collect()
    }

    /// The first value of `name`. O(n) in the fields.
    #[must_use]
    pub fn first(&self, name: &str) -> Option<&[u8]> {
        self.iter().find(|(n, _)| n.eq_ignore_ascii_case(name.as_bytes())).map(|(_, v)| v)
    }

    /// The bytes that it takes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.text.len() + self.ends.len() * 8
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    #[test]
    fn names_have_no_case_and_repeats_are_all_seen() {
        let pairs: [(&[u8], &[u8]); 3] = [(b"Via", b"a"), (b"x", b"\xff"), (b"via", b"b")];
        let fields = Fields::new(&pairs);
        assert_eq!(fields.first("VIA"), Some(&b"a"[..]));
        assert_eq!(fields.all("via").collect::<Vec<_>>(), [b"a", b"b"]);
        assert!(!fields.has("y"));
    }

    #[test]
    fn a_list_keeps_what_it_was_made_of() {
        let pairs: [(&[u8], &[u8]); 3] = [(b"a", b""), (b"", b"x"), (b"b", b"\xff\0")];
        let list = FieldList::new(pairs);
        assert_eq!(list.pairs(), pairs);
        assert_eq!(list.first("B"), Some(&b"\xff\0"[..]));
        assert_eq!(list.bytes(), 5 + 24);
    }
}
