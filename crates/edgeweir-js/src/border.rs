//! How keys come in and answers go out without strings or objects.

use edgeweir::time::Instant;

const HOUR: u64 = 3_600_000_000_000;

/// Keys longer than this are refused by JS with a typed error, in bytes.
const MAX_KEY: usize = 4 << 20;

/// Memory into which JS writes the key of the next call.
///
/// A key of ASCII characters is one byte each. Any other is four bytes 0xFF and then
/// its UTF-16 code units, so that lone surrogates stay apart (in UTF-8 they would
/// all be U+FFFD, and two keys one) and no key of one kind looks like one of the
/// other.
pub(crate) struct KeyBuffer(Vec<u8>);

impl KeyBuffer {
    pub(crate) fn new() -> Self {
        Self(vec![0; 1024])
    }

    /// Where JS writes. Changes only in [`KeyBuffer::reserve`].
    pub(crate) fn address(&self) -> usize {
        self.0.as_ptr() as usize
    }

    /// How many bytes fit.
    pub(crate) fn capacity(&self) -> usize {
        self.0.len()
    }

    /// Makes room for `bytes`; false if that is more than any key may have.
    pub(crate) fn reserve(&mut self, bytes: usize) -> bool {
        if MAX_KEY < bytes {
            return false;
        }
        if self.0.len() < bytes {
            // Even, so that JS can write whole words.
            let room = bytes.next_power_of_two();
            let Ok(()) = self.0.try_reserve_exact(room - self.0.len()) else { return false };
            self.0.resize(room, 0);
        }
        true
    }

    /// The first `len` bytes, as JS wrote them.
    pub(crate) fn get(&self, len: usize) -> &[u8] {
        // JS writes this memory between two calls, which the compiler cannot see.
        core::hint::black_box(self.0.get(..len).unwrap_or(&self.0))
    }
}

/// Numbers that JS reads after a call, through a `Float64Array`.
pub(crate) struct Answer<const N: usize>(Box<[f64; N]>);

impl<const N: usize> Answer<N> {
    pub(crate) fn new() -> Self {
        Self(Box::new([0.0; N]))
    }

    /// Where JS reads. Never changes.
    pub(crate) fn address(&self) -> usize {
        self.0.as_ptr() as usize
    }

    pub(crate) fn set(&mut self, numbers: [f64; N]) {
        *self.0 = numbers;
        // JS reads this memory between two calls, which the compiler cannot see.
        core::hint::black_box(&self.0);
    }
}

/// A moment of the caller's clock in milliseconds, as the core's.
///
/// One hour is added, so that a clock that starts at 0 is away from the moment 0,
/// which the core takes for "never". Negative and NaN become the start.
pub(crate) fn instant(ms: f64) -> Instant {
    Instant::from_nanos(HOUR.saturating_add(nanos(ms)))
}

/// The reverse of [`instant`].
pub(crate) fn moment(instant: Instant) -> f64 {
    count(instant.as_nanos().saturating_sub(HOUR)) / 1e6
}

/// Milliseconds as whole nanoseconds; negative and NaN are 0, too many saturate.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
pub(crate) fn nanos(ms: f64) -> u64 {
    (ms * 1e6) as u64
}

/// A duration in milliseconds.
#[expect(clippy::cast_precision_loss, reason = "exact for 104 days, and close after that")]
pub(crate) fn millis(duration: core::time::Duration) -> f64 {
    edgeweir::time::nanos(duration) as f64 / 1e6
}

/// A count, as a number of JS.
#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
pub(crate) fn count(n: u64) -> f64 {
    n as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_are_no_time_become_the_start() {
        for ms in [f64::NAN, -1.0, f64::NEG_INFINITY, 0.0] {
            assert_eq!(nanos(ms), 0, "{ms}");
        }
        assert_eq!(nanos(f64::INFINITY), u64::MAX);
        assert_eq!(nanos(1.5), 1_500_000);
    }

    #[test]
    fn a_key_buffer_grows_to_its_bound_and_no_further() {
        let mut keys = KeyBuffer::new();
        assert!(keys.reserve(MAX_KEY));
        assert_eq!(keys.capacity(), MAX_KEY);
        assert!(!keys.reserve(MAX_KEY + 1));
        assert_eq!(keys.get(usize::MAX).len(), MAX_KEY);
    }
}
