//! Keyed hashing: turns a key that a peer chose into a number that it cannot.
//!
//! SipHash-1-3 (Aumasson and Bernstein, 2012) with a seed that the edge draws from
//! the host's entropy. Without a secret seed a peer can compute keys that fall
//! into one slot; on `wasm32-unknown-unknown` the standard library's own maps have
//! a constant one.

use core::hash::{BuildHasher, Hasher};

use siphasher::sip::SipHasher13;
use siphasher::sip128::{Hasher128, SipHasher13 as SipHasher13x128};

/// A secret of 128 bits that makes hashes unpredictable to peers.
///
/// Also a [`BuildHasher`], for the `hashbrown` maps of this crate.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HashSeed(u64, u64);

impl HashSeed {
    /// A seed of 16 random bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        let both = u128::from_le_bytes(bytes);
        #[expect(clippy::cast_possible_truncation, reason = "the two halves of the 128 bits")]
        Self(both as u64, (both >> 64) as u64)
    }

    /// The 64-bit hash of `bytes`.
    #[must_use]
    pub fn hash64(self, bytes: &[u8]) -> u64 {
        SipHasher13::new_with_keys(self.0, self.1).hash(bytes)
    }

    /// The 128-bit hash of `bytes`: two different keys share one with a
    /// probability of 2⁻¹²⁸, so it can stand for the key.
    #[must_use]
    pub fn hash128(self, bytes: &[u8]) -> u128 {
        let mut hasher = SipHasher13x128::new_with_keys(self.0, self.1);
        hasher.write(bytes);
        hasher.finish128().as_u128()
    }
}

impl BuildHasher for HashSeed {
    type Hasher = SipHasher13;

    fn build_hasher(&self) -> SipHasher13 {
        SipHasher13::new_with_keys(self.0, self.1)
    }
}

impl core::fmt::Debug for HashSeed {
    /// Does not show the secret.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("HashSeed(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_seeds_give_two_hashes_and_one_gives_one() {
        let (a, b) = (HashSeed::from_bytes([1; 16]), HashSeed::from_bytes([2; 16]));
        assert_eq!(a.hash64(b"key"), a.hash64(b"key"));
        assert_ne!(a.hash64(b"key"), b.hash64(b"key"));
        assert_ne!(a.hash128(b"key"), a.hash128(b"kez"));
    }
}
