//! Many keys under one limit, in memory of a fixed size.

use alloc::collections::TryReserveError;
use core::time::Duration;

use hashbrown::HashMap;

use super::quota::{Decision, Level, Limit, Quota};
use super::states::{Full, States};
use crate::hash::HashSeed;
use crate::time::Instant;

/// One limit, applied to each of many keys.
///
/// The table is allocated once, 24 bytes for each key (and for each quota of the
/// limit), and never grows. When it is full, the key whose bucket is fullest is
/// forgotten, which mostly loses nothing; a key that is exhausted is never
/// forgotten to make room, rather a *new* key is denied. A check is O(1).
///
/// ```
/// use core::time::Duration;
/// use edgeweir::{hash::HashSeed, limit::{Limiter, Quota}, time::Instant};
///
/// let quota = Quota::new(10, Duration::from_secs(1), 2).unwrap();
/// let mut limiter = Limiter::new(quota, 1000, HashSeed::from_bytes([7; 16])).unwrap();
/// let now = Instant::from_nanos(1);
/// assert!(limiter.check(b"alice", 2, now).is_allowed());
/// let denied = limiter.check(b"alice", 1, now);
/// assert_eq!(denied.retry_after(), Some(Duration::from_millis(100)));
/// assert!(limiter.check(b"bob", 1, now).is_allowed());
/// ```
#[derive(Clone, Debug)]
pub struct Limiter {
    limit: Limit,
    overrides: HashMap<u64, Limit, HashSeed>,
    states: States,
    seed: HashSeed,
    counts: Counts,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    allowed: u64,
    denied: u64,
    too_large: u64,
}

/// What a limiter did so far. Every decision is counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimiterCounts {
    /// Requests that passed.
    pub allowed: u64,
    /// Requests that were denied.
    pub denied: u64,
    /// Requests whose cost can never pass.
    pub too_large: u64,
    /// New keys that were denied because the table held only exhausted ones. Also
    /// counted in `denied`.
    pub refused: u64,
    /// Keys that were forgotten while part of their burst was spent.
    pub evicted: u64,
    /// Entries of the table that hold a key, one for each quota.
    pub keys: usize,
}

impl Limiter {
    /// The most keys with a limit of their own.
    pub const MAX_OVERRIDES: usize = 100_000;

    /// A limiter for about `keys` keys that are active at one time.
    ///
    /// # Errors
    ///
    /// There is not enough memory.
    pub fn new(
        limit: impl Into<Limit>,
        keys: usize,
        seed: HashSeed,
    ) -> Result<Self, TryReserveError> {
        let limit = limit.into();
        let states = States::new(keys.saturating_mul(limit.quotas().len()))?;
        let overrides = HashMap::with_hasher(seed);
        Ok(Self { limit, overrides, states, seed, counts: Counts::default() })
    }

    /// The limit of keys that have none of their own.
    #[must_use]
    pub const fn limit(&self) -> &Limit {
        &self.limit
    }

    /// The limit that applies to `key`.
    #[must_use]
    pub fn limit_of(&self, key: &[u8]) -> &Limit {
        if self.overrides.is_empty() {
            return &self.limit;
        }
        self.overrides.get(&self.seed.hash64(key)).unwrap_or(&self.limit)
    }

    pub(super) const fn seed(&self) -> HashSeed {
        self.seed
    }

    /// The number under which `key` is known here; a secret of this process.
    #[must_use]
    pub fn hash(&self, key: &[u8]) -> u64 {
        self.seed.hash64(key)
    }

    /// Decides a request of `key` that costs `cost`, and spends it if it passes.
    pub fn check(&mut self, key: &[u8], cost: u32, now: Instant) -> Decision {
        let hash = self.seed.hash64(key);
        let limit = limit_of(&self.overrides, &self.limit, hash);
        let decision = match limit.single() {
            Some(quota) => check_one(&mut self.states, quota, hash, cost, now),
            None => check_all(&mut self.states, limit, hash, cost, now),
        };
        let count = match decision {
            Decision::Allow(_) => &mut self.counts.allowed,
            Decision::Deny { .. } => &mut self.counts.denied,
            Decision::TooLarge(_) => &mut self.counts.too_large,
        };
        *count = count.saturating_add(1);
        decision
    }

    /// What is left for `key`. Spends nothing and makes no entry.
    #[must_use]
    pub fn peek(&self, key: &[u8], now: Instant) -> Level {
        let hash = self.seed.hash64(key);
        let limit = limit_of(&self.overrides, &self.limit, hash);
        Limit::tightest(each(limit, hash).map(|(quota, h)| quota.level(self.states.get(h), now)))
    }

    /// Spends `cost` without asking: what a request cost beyond what was reserved
    /// for it. The key may end up in debt, by one burst at most.
    pub fn charge(&mut self, key: &[u8], cost: u32, now: Instant) {
        let hash = self.seed.hash64(key);
        let limit = limit_of(&self.overrides, &self.limit, hash);
        for (quota, h) in each(limit, hash) {
            let step = |state| ((), quota.charge(state, cost, now));
            // A key for which there is no room cannot be charged.
            let _ = self.states.update(h, quota.tolerance(), now, step);
        }
    }

    /// Gives back `cost` that was reserved and not used.
    pub fn refund(&mut self, key: &[u8], cost: u32, now: Instant) {
        let hash = self.seed.hash64(key);
        let limit = limit_of(&self.overrides, &self.limit, hash);
        for (quota, h) in each(limit, hash) {
            self.states.change(h, |state| quota.refund(state, cost, now));
        }
    }

    /// Gives `key` a limit of its own, or with `None` the common one again.
    ///
    /// What was left stays, cut to the new burst: nothing is refilled. Gives false,
    /// and changes nothing, when [`Limiter::MAX_OVERRIDES`] keys have their own.
    pub fn set_limit(&mut self, key: &[u8], limit: Option<Limit>, now: Instant) -> bool {
        let hash = self.seed.hash64(key);
        if limit.is_some()
            && Self::MAX_OVERRIDES <= self.overrides.len()
            && !self.overrides.contains_key(&hash)
        {
            return false;
        }
        let old = limit_of(&self.overrides, &self.limit, hash).clone();
        let new = limit.as_ref().unwrap_or(&self.limit);
        for ((quota, h), before) in each(new, hash).zip(old.quotas()) {
            self.states.change(h, |state| quota.carry_over(*before, state, now));
        }
        match limit {
            Some(limit) => self.overrides.insert(hash, limit),
            None => self.overrides.remove(&hash),
        };
        true
    }

    /// Gives `key` its full burst again.
    pub fn reset(&mut self, key: &[u8]) {
        let hash = self.seed.hash64(key);
        let limit = limit_of(&self.overrides, &self.limit, hash);
        for (_, h) in each(limit, hash) {
            self.states.change(h, |_| Instant::ZERO);
        }
    }

    /// What the limiter did so far.
    #[must_use]
    pub const fn counts(&self) -> LimiterCounts {
        LimiterCounts {
            allowed: self.counts.allowed,
            denied: self.counts.denied,
            too_large: self.counts.too_large,
            refused: self.states.refused(),
            evicted: self.states.evicted(),
            keys: self.states.used(),
        }
    }

    /// The size of the table in bytes. It never changes.
    #[must_use]
    pub fn table_bytes(&self) -> usize {
        self.states.bytes()
    }
}

fn limit_of<'a>(
    overrides: &'a HashMap<u64, Limit, HashSeed>,
    common: &'a Limit,
    hash: u64,
) -> &'a Limit {
    if overrides.is_empty() {
        return common;
    }
    overrides.get(&hash).unwrap_or(common)
}

/// The quotas of a limit, each with the hash under which a key's state for it is kept.
pub(super) fn each(limit: &Limit, hash: u64) -> impl Iterator<Item = (Quota, u64)> + '_ {
    (0..).zip(limit.quotas()).map(move |(n, quota)| (*quota, quota_hash(hash, n)))
}

/// The hash under which the state of a key for the `n`-th quota is kept. Never 0.
fn quota_hash(hash: u64, n: u64) -> u64 {
    hash.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).max(1)
}

fn check_one(states: &mut States, quota: Quota, hash: u64, cost: u32, now: Instant) -> Decision {
    let step = |state| quota.check(state, cost, now);
    states.update(hash, quota.tolerance(), now, step).unwrap_or_else(|full| no_room(full, now))
}

/// Asks every quota first, and spends only if all agree.
fn check_all(states: &mut States, limit: &Limit, hash: u64, cost: u32, now: Instant) -> Decision {
    let answers = || each(limit, hash).map(|(quota, h)| quota.check(states.get(h), cost, now).0);
    let level = Limit::tightest(answers().map(Decision::level));
    if answers().any(|answer| matches!(answer, Decision::TooLarge(_))) {
        return Decision::TooLarge(level);
    }
    if let Some(retry_after) = answers().filter_map(Decision::retry_after).max() {
        return Decision::Deny { level, retry_after };
    }
    for (n, (quota, h)) in each(limit, hash).enumerate() {
        let step = |state| quota.check(state, cost, now);
        if let Err(full) = states.update(h, quota.tolerance(), now, step) {
            for (quota, h) in each(limit, hash).take(n) {
                states.change(h, |state| quota.refund(state, cost, now));
            }
            return no_room(full, now);
        }
    }
    Decision::Allow(level)
}

fn no_room(full: Full, now: Instant) -> Decision {
    let retry_after = full.0.since(now).max(Duration::from_nanos(1));
    Decision::Deny { level: Level { remaining: 0, reset: retry_after }, retry_after }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    fn quota(requests: u32, per_ms: u64, burst: u32) -> Quota {
        Quota::new(requests, Duration::from_millis(per_ms), burst).unwrap()
    }

    fn limiter(limit: impl Into<Limit>, keys: usize) -> Limiter {
        Limiter::new(limit, keys, HashSeed::from_bytes([3; 16])).unwrap()
    }

    fn ms(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    #[test]
    fn a_denial_by_one_quota_is_charged_to_none() {
        let limit = Limit::new(vec![quota(10, 1000, 10), quota(2, 1000, 2)]).unwrap();
        let mut limiter = limiter(limit, 100);
        for allowed in [true, true, false, false, false] {
            assert_eq!(limiter.check(b"a", 1, ms(1)).is_allowed(), allowed);
        }
        // Half a second later one more passes the second quota, and the first still
        // holds what the denied ones did not take: 8, and 5 that came back, less 1.
        assert!(limiter.check(b"a", 1, ms(501)).is_allowed());
        let first = each(&limiter.limit, limiter.seed.hash64(b"a")).next().unwrap();
        assert_eq!(first.0.level(limiter.states.get(first.1), ms(501)).remaining, 9);
        assert_eq!(limiter.counts().allowed, 3);
        assert_eq!(limiter.counts().denied, 3);
    }

    #[test]
    fn an_override_changes_one_key_and_refills_nothing() {
        let mut limiter = limiter(quota(1, 1000, 5), 100);
        for _ in 0..5 {
            assert!(limiter.check(b"a", 1, ms(1)).is_allowed());
        }
        assert!(limiter.set_limit(b"a", Some(quota(10, 1000, 50).into()), ms(1)));
        assert!(!limiter.check(b"a", 1, ms(1)).is_allowed());
        assert!(limiter.check(b"a", 1, ms(101)).is_allowed(), "but the new rate helps at once");
        assert_eq!(limiter.peek(b"b", ms(1)).remaining, 5);
        assert!(limiter.set_limit(b"a", None, ms(101)));
        assert_eq!(limiter.limit_of(b"a"), limiter.limit());
        assert!(!limiter.check(b"a", 1, ms(101)).is_allowed());
        limiter.reset(b"a");
        assert_eq!(limiter.peek(b"a", ms(101)).remaining, 5);
    }

    #[test]
    fn an_exhausted_key_is_not_forgotten_for_a_flood_of_new_ones() {
        let mut limiter = limiter(quota(10, 60_000, 10), 1000);
        for _ in 0..10 {
            assert!(limiter.check(b"attacker", 1, ms(1)).is_allowed());
        }
        for n in 0..100_000_u32 {
            let _ = limiter.check(&n.to_le_bytes(), 1, ms(2));
        }
        assert!(!limiter.check(b"attacker", 1, ms(3)).is_allowed());
        assert_eq!(limiter.table_bytes(), 1500 * 16);
    }

    #[test]
    fn a_table_of_exhausted_keys_denies_new_ones() {
        let mut limiter = limiter(quota(1, 60_000, 1), 4);
        let passed =
            (0..1000_u32).filter(|n| limiter.check(&n.to_le_bytes(), 1, ms(1)).is_allowed());
        assert_eq!(passed.count(), 8);
        let counts = limiter.counts();
        assert_eq!((counts.allowed, counts.refused, counts.evicted, counts.keys), (8, 992, 0, 8));
        assert!(limiter.check(b"later", 1, ms(60_001)).is_allowed());
    }

    #[test]
    fn the_configured_number_of_keys_fits() {
        let mut limiter = limiter(quota(1, 60_000, 2), 50_000);
        for n in 0..50_000_u32 {
            let _ = limiter.check(&n.to_le_bytes(), 1, ms(1));
        }
        let evicted = limiter.counts().evicted;
        assert!(evicted < 50, "{evicted} of 50000 forgotten");
    }
}
