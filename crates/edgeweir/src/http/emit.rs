//! What may be written into a header: the check that hosts leave to us.
//!
//! Envoy puts a CR LF in a value on the wire as it is, which lets whoever chose the
//! value write headers of their own. So each field that an edge writes passes here.

/// Whether `name` is a field name: a token (RFC 9110 section 5.1), or one of the
/// pseudo-header fields (RFC 9113 section 8.3).
#[must_use]
pub fn is_name(name: &[u8]) -> bool {
    let token = name.strip_prefix(b":").unwrap_or(name);
    !token.is_empty() && token.iter().all(|byte| is_token(*byte))
}

/// Whether `value` is a field value (RFC 9110 section 5.5): visible characters,
/// spaces and tabs, and bytes above 0x7F, which are opaque.
#[must_use]
pub fn is_value(value: &[u8]) -> bool {
    value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~' | 0x80..))
}

/// Whether `status` can end an exchange: 200 to 599. 1xx would leave the client
/// waiting, and what is above 599 is no class of RFC 9110 section 15.
#[must_use]
pub fn is_final_status(status: u16) -> bool {
    (200..600).contains(&status)
}

/// A token character (RFC 9110 section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_begin_another_header_is_refused() {
        for value in [&b"a\r\nset-cookie: x=1"[..], b"a\nb", b"a\0b", b"\x7f", b"\x1b[31m"] {
            assert!(!is_value(value), "{value:?}");
        }
        for value in [&b""[..], b"a b\tc", b"caf\xc3\xa9", b"\xff"] {
            assert!(is_value(value), "{value:?}");
        }
    }

    #[test]
    fn names_are_tokens() {
        for name in [&b""[..], b":", b"a b", b"a:b", b"x\r\ny", b"\xff", b"(x)"] {
            assert!(!is_name(name), "{name:?}");
        }
        for name in [&b"x"[..], b":status", b"Cache-Control", b"x_y"] {
            assert!(is_name(name), "{name:?}");
        }
    }

    #[test]
    fn a_status_ends_the_exchange() {
        for (status, good) in
            [(0, false), (101, false), (199, false), (200, true), (599, true), (600, false)]
        {
            assert_eq!(is_final_status(status), good, "{status}");
        }
    }
}
