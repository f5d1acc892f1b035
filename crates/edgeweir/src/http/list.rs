//! Comma-separated lists (RFC 9110 section 5.6.1) with quoted strings (5.6.4) in them.

use alloc::borrow::Cow;
use alloc::vec::Vec;

/// The members of a list, without white space around them and without empty ones. A
/// comma inside a quoted string does not separate; a quote that is not closed runs to
/// the end.
pub fn members(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let (mut quoted, mut escaped) = (false, false);
    line.split(move |byte| {
        if escaped {
            escaped = false;
        } else if *byte == b'"' {
            quoted = !quoted;
        } else if quoted && *byte == b'\\' {
            escaped = true;
        }
        *byte == b',' && !quoted
    })
    .map(trim)
    .filter(|member| !member.is_empty())
}

/// Without optional white space (RFC 9110 section 5.6.3) at both ends.
#[must_use]
pub fn trim(text: &[u8]) -> &[u8] {
    let ows = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = text.iter().position(|byte| !ows(byte)).unwrap_or(text.len());
    let end = text.iter().rposition(|byte| !ows(byte)).map_or(start, |last| last + 1);
    text.get(start..end).unwrap_or_default()
}

/// The text of a token or a quoted string; `None` if it is neither whole.
#[must_use]
pub fn unquote(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    let Some(inner) = text.strip_prefix(b"\"") else {
        return (!text.contains(&b'"')).then_some(Cow::Borrowed(text));
    };
    let inner = inner.strip_suffix(b"\"")?;
    if !inner.iter().any(|byte| matches!(byte, b'\\' | b'"')) {
        return Some(Cow::Borrowed(inner));
    }
    let (mut out, mut bytes) = (Vec::with_capacity(inner.len()), inner.iter());
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => out.push(*bytes.next()?),
            b'"' => return None,
            _ => out.push(*byte),
        }
    }
    Some(Cow::Owned(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc_9110_5_6_1_members() {
        for (line, expected) in [
            ("", &[][..]),
            (" , ,a ,\tb c,", &["a", "b c"]),
            ("a=\"x,y\",b", &["a=\"x,y\"", "b"]),
            ("a=\"x\\\",y\",b", &["a=\"x\\\",y\"", "b"]),
            ("a=\"x,y", &["a=\"x,y"]),
        ] {
            let found: Vec<_> = members(line.as_bytes()).collect();
            let expected: Vec<_> = expected.iter().map(|text| text.as_bytes()).collect();
            assert_eq!(found, expected, "{line}");
        }
    }

    #[test]
    fn rfc_9110_5_6_4_quoted_strings() {
        for (text, expected) in [
            ("a", Some("a")),
            ("\"a b\"", Some("a b")),
            ("\"a\\\"b\\\\\"", Some("a\"b\\")),
            ("\"\"", Some("")),
            ("\"", None),
            ("\"a", None),
            ("a\"b\"", None),
            ("\"a\"b\"", None),
            ("\"a\\\"", None),
        ] {
            let found = unquote(text.as_bytes());
            assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{text}");
        }
    }
}
