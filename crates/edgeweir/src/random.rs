//! Random numbers from a seed: for trace ids, sampling and jitter.
//!
//! The edge draws 32 bytes from its host once; after that the core needs no
//! entropy. xoshiro256++ (Blackman and Vigna, 2018) is fast and even, and not
//! meant for secrets: nothing that must not be guessed may come from here.

use core::time::Duration;

use rand_core::{Rng, SeedableRng};
use rand_xoshiro::Xoshiro256PlusPlus;

/// A stream of random numbers; the same seed gives the same stream.
#[derive(Clone, Debug)]
pub struct Random(Xoshiro256PlusPlus);

impl Random {
    /// The stream that follows from 32 random bytes.
    #[must_use]
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(Xoshiro256PlusPlus::from_seed(seed))
    }

    /// The next 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// `N` random bytes.
    pub fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    /// A number below `end`; zero if `end` is zero.
    pub fn below(&mut self, end: u64) -> u64 {
        // The high half of the product: a bias below 2⁻³² for every `end` in use here.
        ((u128::from(self.next_u64()) * u128::from(end)) >> 64) as u64
    }

    /// A duration below `end`, even over its nanoseconds ("full jitter").
    pub fn duration_below(&mut self, end: Duration) -> Duration {
        Duration::from_nanos(self.below(crate::time::nanos(end)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stay_below_their_end() {
        let mut random = Random::from_seed([7; 32]);
        for end in [0, 1, 2, 3, 1000, u64::MAX] {
            for _ in 0..100 {
                let number = random.below(end);
                assert!(number < end.max(1), "{number} for end {end}");
            }
        }
    }

    #[test]
    fn a_seed_fixes_the_stream() {
        let (mut a, mut b) = (Random::from_seed([9; 32]), Random::from_seed([9; 32]));
        assert_eq!(a.bytes::<16>(), b.bytes::<16>());
        assert_eq!(a.next_u64(), b.next_u64());
    }
}
