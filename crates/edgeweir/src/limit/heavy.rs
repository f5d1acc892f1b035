//! The keys that cost most, found in little memory.
//!
//! Space-Saving (Metwally, Agrawal and El Abbadi, 2005) with `n` counters: every key
//! with more than `1 / n` of all that was counted is among them, and a count is too
//! high by at most the `error` told beside it.

use alloc::vec::Vec;

use hashbrown::HashMap;

use crate::hash::HashSeed;

/// The longest key that is kept whole, in bytes; a longer one is cut.
const KEY_BYTES: usize = 64;

/// A key and how much it was counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeavyKey {
    /// The key, or its first 64 bytes.
    pub key: Vec<u8>,
    /// How much was counted for it, and perhaps for keys before it.
    pub count: u64,
    /// How much of `count` may belong to keys before it.
    pub error: u64,
}

/// The heaviest keys. Counting is O(1) for a key that is among them, else O(n) in
/// the number of counters.
#[derive(Clone, Debug)]
pub struct HeavyKeys {
    capacity: usize,
    seed: HashSeed,
    keys: Vec<HeavyKey>,
    places: HashMap<u64, usize, HashSeed>,
}

impl HeavyKeys {
    /// Counters for `capacity` keys.
    #[must_use]
    pub const fn new(capacity: usize, seed: HashSeed) -> Self {
        Self { capacity, seed, keys: Vec::new(), places: HashMap::with_hasher(seed) }
    }

    /// Counts `weight` for `key`.
    pub fn count(&mut self, key: &[u8], weight: u64) {
        let hash = self.seed.hash64(key);
        if let Some(entry) = self.places.get(&hash).and_then(|place| self.keys.get_mut(*place)) {
            entry.count = entry.count.saturating_add(weight);
            return;
        }
        let shown = key.get(..KEY_BYTES).unwrap_or(key).to_vec();
        if self.keys.len() < self.capacity {
            self.places.insert(hash, self.keys.len());
            self.keys.push(HeavyKey { key: shown, count: weight, error: 0 });
            return;
        }
        let lightest = self.keys.iter_mut().enumerate().min_by_key(|(_, entry)| entry.count);
        let Some((place, entry)) = lightest else { return };
        let error = entry.count;
        *entry = HeavyKey { key: shown, count: error.saturating_add(weight), error };
        self.places.retain(|_, taken| *taken != place);
        self.places.insert(hash, place);
    }

    /// The heaviest keys, heaviest first.
    #[must_use]
    pub fn heaviest(&self) -> Vec<HeavyKey> {
        let mut keys = self.keys.clone();
        keys.sort_unstable_by(|a, b| b.count.cmp(&a.count).then_with(|| a.key.cmp(&b.key)));
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_heavy_key_is_found_in_a_crowd_and_no_count_is_too_low() {
        let mut heavy = HeavyKeys::new(20, HashSeed::from_bytes([4; 16]));
        for n in 0..20_000_u32 {
            heavy.count(&n.to_le_bytes(), 1);
            if n % 8 == 0 {
                heavy.count(b"a", 1);
            }
            if n % 9 == 0 {
                heavy.count(b"b", 1);
            }
        }
        let found = heavy.heaviest();
        assert_eq!(found.len(), 20);
        for (place, (key, truth)) in [(b"a", 2500), (b"b", 2223)].into_iter().enumerate() {
            assert_eq!(found[place].key, key);
            assert!(
                truth <= found[place].count && found[place].count - found[place].error <= truth
            );
        }
    }

    #[test]
    fn long_keys_are_cut_only_for_showing() {
        let mut heavy = HeavyKeys::new(4, HashSeed::from_bytes([4; 16]));
        heavy.count(&[b'x'; 1000], 1);
        heavy.count(&[b'x'; 999], 2);
        let found = heavy.heaviest();
        assert_eq!(found.len(), 2);
        assert_eq!((found[0].key.len(), found[0].count), (64, 2));
    }

    #[test]
    fn no_counters_count_nothing() {
        let mut heavy = HeavyKeys::new(0, HashSeed::from_bytes([4; 16]));
        heavy.count(b"a", 1);
        assert!(heavy.heaviest().is_empty());
    }
}
