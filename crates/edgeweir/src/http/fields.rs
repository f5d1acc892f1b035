//! Header fields as the edge sees them: names and values are bytes.

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
}
