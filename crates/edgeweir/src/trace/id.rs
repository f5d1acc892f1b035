//! Names of traces and spans: random bytes that are not all zero, in lower-case hex.

use core::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $type:ident, $size:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type([u8; $size]);

        impl $type {
            /// An id of these bytes; `None` if all are zero, which means "no id".
            #[must_use]
            pub fn from_bytes(bytes: [u8; $size]) -> Option<Self> {
                (bytes != [0; $size]).then_some(Self(bytes))
            }

            /// An id of random bytes. All zero, which comes once in 2⁶⁴ spans at the
            /// most, becomes one that is not.
            #[must_use]
            pub fn from_random(mut bytes: [u8; $size]) -> Self {
                if bytes == [0; $size] {
                    bytes = [1; $size];
                }
                Self(bytes)
            }

            /// An id written in lower-case hexadecimal digits, two for each byte.
            #[must_use]
            pub fn from_hex(text: &[u8]) -> Option<Self> {
                Self::from_bytes(from_hex(text)?)
            }

            /// The bytes.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; $size] {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

id!(
    /// The name of a trace: 16 bytes.
    TraceId,
    16
);
id!(
    /// The name of a span in its trace: 8 bytes.
    SpanId,
    8
);

/// `N` bytes from 2·`N` lower-case hexadecimal digits.
pub(super) fn from_hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    // Upper case is not allowed in traceparent (W3C Trace Context, section 3.2.2).
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = (digit(*high)? << 4) | digit(*low)?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    #[test]
    fn an_id_reads_as_it_is_written() {
        let text = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(
            TraceId::from_hex(text.as_bytes()).map(|id| id.to_string()).as_deref(),
            Some(text)
        );
    }

    #[test]
    fn what_is_no_id_is_none() {
        let bad = [
            "",
            "0",
            "0000000000000000",
            "00F067AA0BA902B7",
            "00f067aa0ba902b",
            "00f067aa0ba902bg",
        ];
        for text in bad {
            assert_eq!(SpanId::from_hex(text.as_bytes()), None, "{text}");
        }
        assert_ne!(SpanId::from_random([0; 8]).as_bytes(), &[0; 8]);
    }
}
