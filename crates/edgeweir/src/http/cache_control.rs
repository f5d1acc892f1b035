//! `Cache-Control` (RFC 9111 section 5.2), and `Pragma` where it is missing.

use alloc::string::String;
use alloc::vec::Vec;

use super::Fields;

/// Lifetimes above this are this (RFC 9111 section 1.2.2).
pub const MAX_SECONDS: u32 = 1 << 31;

/// The directives of a message, in order; a name in lower case, its argument without
/// quotes.
///
/// A part that is not a directive makes the list [`Directives::is_doubtful`]: what
/// was meant there could have been anything, `no-store` too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Directives {
    list: Vec<(String, Option<Vec<u8>>)>,
    doubtful: bool,
}

/// The directives of one header line are at most this many; more are doubtful.
const MAX_DIRECTIVES: usize = 64;

impl Directives {
    /// Those of all lines of the field `name` (`cache-control`).
    #[must_use]
    pub fn of(fields: Fields<'_>, name: &str) -> Self {
        let mut directives = Self::default();
        for line in fields.all(name) {
            directives.read(line);
        }
        directives
    }

    /// Those of a request: `Pragma: no-cache` counts if there is no `Cache-Control`
    /// (RFC 9111 section 5.4).
    #[must_use]
    pub fn of_request(fields: Fields<'_>) -> Self {
        if fields.has("cache-control") {
            return Self::of(fields, "cache-control");
        }
        let mut pragma = Self::of(fields, "pragma");
        pragma.list.retain(|(name, _)| name == "no-cache");
        pragma
    }

    /// Directives that were read elsewhere, such as a targeted field (RFC 9213).
    #[must_use]
    pub fn from_list(list: Vec<(String, Option<Vec<u8>>)>) -> Self {
        Self { list, doubtful: false }
    }

    fn read(&mut self, line: &[u8]) {
        for part in super::list::members(line) {
            let at = part.iter().position(|byte| *byte == b'=');
            let (name, argument) = match at {
                Some(at) => (part.get(..at).unwrap_or_default(), part.get(at + 1..)),
                None => (part, None),
            };
            let argument = argument.map(|argument| match super::list::unquote(argument) {
                Some(text) => text.into_owned(),
                None => {
                    self.doubtful = true;
                    argument.to_vec()
                }
            });
            match core::str::from_utf8(name) {
                Ok(text) if super::emit::is_name(name) && !text.starts_with(':') => {
                    if self.list.len() < MAX_DIRECTIVES {
                        self.list.push((text.to_ascii_lowercase(), argument));
                    } else {
                        self.doubtful = true;
                    }
                }
                _ => self.doubtful = true,
            }
        }
    }

    /// Whether something in the list could not be understood.
    #[must_use]
    pub fn is_doubtful(&self) -> bool {
        self.doubtful
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether there is such a directive, with an argument or without.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.list.iter().any(|(other, _)| other == name)
    }

    /// Whether there is such a directive without an argument: one that holds for the
    /// whole message. One whose argument names no field holds for it as well.
    #[must_use]
    pub fn has_whole(&self, name: &str) -> bool {
        self.list.iter().any(|(other, argument)| {
            other == name && argument.as_deref().is_none_or(|names| field_names(names).is_empty())
        })
    }

    /// The field names that the directive is limited to, in lower case.
    #[must_use]
    pub fn fields_of(&self, name: &str) -> Vec<Vec<u8>> {
        let named = self.list.iter().filter(|(other, _)| other == name);
        named.filter_map(|(_, argument)| argument.as_deref()).flat_map(field_names).collect()
    }

    /// The seconds of a directive. Said twice, the shorter holds; an argument that is
    /// no whole number is `Some(None)`: there, and invalid.
    #[must_use]
    pub fn seconds(&self, name: &str) -> Option<Option<u32>> {
        let mut found = None;
        for (_, argument) in self.list.iter().filter(|(other, _)| other == name) {
            let seconds = argument.as_deref().and_then(delta_seconds);
            found = match found {
                None => Some(seconds),
                Some(before) => Some(before.zip(seconds).map(|(a, b): (u32, u32)| a.min(b))),
            };
        }
        found
    }
}

fn field_names(text: &[u8]) -> Vec<Vec<u8>> {
    super::list::members(text)
        .map(<[u8]>::to_ascii_lowercase)
        .filter(|name| super::emit::is_name(name))
        .collect()
}

/// delta-seconds (RFC 9111 section 1.2.2): digits and nothing else.
#[must_use]
pub fn delta_seconds(text: &[u8]) -> Option<u32> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = text.iter().fold(0_u32, |number, digit| {
        number.saturating_mul(10).saturating_add(u32::from(digit - b'0'))
    });
    Some(number.min(MAX_SECONDS))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    fn of(lines: &[&str]) -> Directives {
        let pairs: Vec<_> =
            lines.iter().map(|line| (&b"cache-control"[..], line.as_bytes())).collect();
        Directives::of(Fields::new(&pairs), "cache-control")
    }

    #[test]
    fn rfc_9111_5_2_seconds_and_their_malformed_forms() {
        for (line, seconds) in [
            ("max-age=60", Some(Some(60))),
            ("MAX-AGE=60", Some(Some(60))),
            ("public , max-age=60", Some(Some(60))),
            ("max-age=\"60\"", Some(Some(60))),
            ("max-age=0060", Some(Some(60))),
            ("max-age=2147483648", Some(Some(MAX_SECONDS))),
            ("max-age=99999999999999999999999999", Some(Some(MAX_SECONDS))),
            ("max-age=60, max-age=1", Some(Some(1))),
            ("max-age=1,max-age=x", Some(None)),
            ("max-age", Some(None)),
            ("max-age=", Some(None)),
            ("max-age=-1", Some(None)),
            ("max-age=+1", Some(None)),
            ("max-age=1.5", Some(None)),
            ("max-age=60s", Some(None)),
            ("max-age=0x10", Some(None)),
            ("max-age='60'", Some(None)),
            ("max-age= 60", Some(None)),
            ("max-age =60", None),
            ("x=\"max-age=60\"", None),
            ("x=\"a, max-age=60\"", None),
            ("s-maxage=60", None),
        ] {
            assert_eq!(of(&[line]).seconds("max-age"), seconds, "{line}");
        }
        assert_eq!(of(&["max-age=9", "max-age=5"]).seconds("max-age"), Some(Some(5)));
    }

    #[test]
    fn what_cannot_be_read_is_doubtful() {
        for line in
            ["a=\"b", "no store", "a=b\"c", "=1", "max-age =60", "private;x", "\"no-store\""]
        {
            assert!(of(&[line]).is_doubtful(), "{line}");
        }
        for line in ["", ",,", "no-store", "a=\"b, \\\"c\"", "x=1 , y"] {
            assert!(!of(&[line]).is_doubtful(), "{line}");
        }
        let many = vec!["x"; 65].join(",");
        assert!(of(&[&many]).is_doubtful());
    }

    #[test]
    fn rfc_9111_5_2_2_arguments_limit_a_directive_to_fields() {
        let directives = of(&["private=\"Set-Cookie, X-User\", no-cache"]);
        assert_eq!(directives.fields_of("private"), [&b"set-cookie"[..], b"x-user"]);
        assert!(!directives.has_whole("private"));
        assert!(directives.has_whole("no-cache"));
        assert!(of(&["private=\"\""]).has_whole("private"));
    }

    #[test]
    fn rfc_9111_5_4_pragma_counts_only_alone() {
        let pragma = (&b"pragma"[..], &b"no-cache"[..]);
        assert!(Directives::of_request(Fields::new(&[pragma])).has("no-cache"));
        let both = [pragma, (&b"cache-control"[..], &b"max-age=1"[..])];
        assert!(!Directives::of_request(Fields::new(&both)).has("no-cache"));
    }
}
