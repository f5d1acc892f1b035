//! A table of fixed size from hashed keys to theoretical arrival times.
//!
//! Sets of four entries of 16 bytes fill one cache line. A key has two sets; the
//! second is looked at only when the first is full, so a check mostly touches one
//! line. When both are full, one of their entries moves to its other set; when
//! that does not help, the entry with the smallest TAT goes: the fullest bucket. If its TAT has passed, nothing is lost at all, because a key that is
//! not there counts as full. An exhausted key is never dropped to make room.

use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::time::Duration;

use crate::time::Instant;

const WAYS: usize = 4;

/// One cache line. A hash of 0 marks an entry that was never used.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Set {
    hashes: [u64; WAYS],
    states: [u64; WAYS],
}

impl Set {
    fn find(&self, hash: u64) -> Option<usize> {
        self.hashes.iter().position(|&h| h == hash)
    }

    fn is_full(&self) -> bool {
        self.hashes.iter().all(|&h| h != 0)
    }

    /// The entry to give up first: how far ahead of `now` it is, and where.
    fn fullest(&self, now: Instant) -> (u64, usize) {
        let mut best = (u64::MAX, 0);
        for (way, (&hash, &state)) in self.hashes.iter().zip(&self.states).enumerate() {
            let lead = if hash == 0 { 0 } else { state.saturating_sub(now.as_nanos()) };
            if lead < best.0 {
                best = (lead, way);
            }
        }
        best
    }
}

/// The table. See the module.
#[derive(Clone, Debug)]
pub(super) struct States {
    sets: Vec<Set>,
    used: usize,
    evicted: u64,
    refused: u64,
}

/// No room: every entry that could go belongs to an exhausted key. The newcomer
/// may try again at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full(pub(super) Instant);

impl States {
    /// A table that holds `keys` keys with room to spare, 24 bytes for each.
    pub(super) fn new(keys: usize) -> Result<Self, TryReserveError> {
        let count = keys.saturating_add(keys / 2).div_ceil(WAYS).max(2);
        let mut sets = Vec::new();
        sets.try_reserve_exact(count)?;
        sets.resize(count, Set::default());
        Ok(Self { sets, used: 0, evicted: 0, refused: 0 })
    }

    /// How many entries hold a key, fresh or long past.
    pub(super) const fn used(&self) -> usize {
        self.used
    }

    /// How many entries were dropped while they still said something.
    pub(super) const fn evicted(&self) -> u64 {
        self.evicted
    }

    /// How many new keys were refused because only exhausted ones could go.
    pub(super) const fn refused(&self) -> u64 {
        self.refused
    }

    pub(super) fn bytes(&self) -> usize {
        self.sets.len().saturating_mul(size_of::<Set>())
    }

    /// The two sets of a key. High bits choose the first, low bits the second.
    fn places(&self, hash: u64) -> (usize, usize) {
        let scale = |h: u64| {
            let product = u128::from(h) * self.sets.len() as u128;
            usize::try_from(product >> 64).unwrap_or(0)
        };
        (scale(hash), scale(hash.rotate_left(32).wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    fn find(&self, hash: u64) -> Option<(usize, usize)> {
        let (first, second) = self.places(hash);
        let set = self.sets.get(first)?;
        if let Some(way) = set.find(hash) {
            return Some((first, way));
        }
        // Entries are never emptied, so a key goes to its second set only when the
        // first is full, and an empty entry there proves that it is nowhere.
        if !set.is_full() {
            return None;
        }
        self.sets.get(second)?.find(hash).map(|way| (second, way))
    }

    /// The state of a key; [`Instant::ZERO`] if it is not there.
    pub(super) fn get(&self, hash: u64) -> Instant {
        let hash = hash.max(1);
        let found = self.find(hash).and_then(|(set, way)| self.sets.get(set)?.states.get(way));
        Instant::from_nanos(found.copied().unwrap_or(0))
    }

    fn fullest(&self, set: usize, now: Instant) -> (u64, usize) {
        self.sets.get(set).map_or((u64::MAX, 0), |set| set.fullest(now))
    }

    /// Makes room in a full set by moving one of its entries to that one's other set.
    fn move_one(&mut self, set: usize, now: Instant) -> Option<(usize, usize)> {
        for way in 0..WAYS {
            let from = self.sets.get(set)?;
            let (hash, state) = (*from.hashes.get(way)?, *from.states.get(way)?);
            let (first, second) = self.places(hash);
            let other = if first == set { second } else { first };
            let (lead, free) = self.fullest(other, now);
            if lead == 0 && other != set {
                let to = self.sets.get_mut(other)?;
                let (h, s) = (to.hashes.get_mut(free)?, to.states.get_mut(free)?);
                if *h == 0 {
                    // The entry that it leaves is counted already.
                    self.used = self.used.saturating_add(1);
                }
                (*h, *s) = (hash, state);
                return Some((set, way));
            }
        }
        None
    }

    /// Where a key is or shall be.
    ///
    /// `tolerance` is how far ahead a state may be without being exhausted.
    fn place(&mut self, hash: u64, tolerance: u64, now: Instant) -> Result<(usize, usize), Full> {
        if let Some(found) = self.find(hash) {
            return Ok(found);
        }
        let (first, second) = self.places(hash);
        let (mut set, (mut lead, mut way)) = (first, self.fullest(first, now));
        if 0 < lead {
            let other = self.fullest(second, now);
            if other.0 < lead {
                (set, (lead, way)) = (second, other);
            }
        }
        if 0 < lead
            && let Some(free) = self.move_one(first, now).or_else(|| self.move_one(second, now))
        {
            (lead, (set, way)) = (0, free);
        }
        if tolerance < lead {
            self.refused = self.refused.saturating_add(1);
            return Err(Full(now.after(Duration::from_nanos(lead - tolerance))));
        }
        if 0 < lead {
            self.evicted = self.evicted.saturating_add(1);
        }
        if let Some(entry) = self.sets.get_mut(set) {
            if entry.hashes.get(way) == Some(&0) {
                self.used = self.used.saturating_add(1);
            }
            if let (Some(h), Some(s)) = (entry.hashes.get_mut(way), entry.states.get_mut(way)) {
                (*h, *s) = (hash, 0);
            }
        }
        Ok((set, way))
    }

    /// Changes the state of a key by `step`, which gets the old one and gives its
    /// answer and the new one.
    pub(super) fn update<R>(
        &mut self,
        hash: u64,
        tolerance: u64,
        now: Instant,
        step: impl FnOnce(Instant) -> (R, Instant),
    ) -> Result<R, Full> {
        let (set, way) = self.place(hash.max(1), tolerance, now)?;
        let mut lost = 0;
        let state = self.sets.get_mut(set).and_then(|set| set.states.get_mut(way));
        let state = state.unwrap_or(&mut lost);
        let (answer, next) = step(Instant::from_nanos(*state));
        *state = next.as_nanos();
        Ok(answer)
    }

    /// Changes the state of a key that is there; a key that is not stays away.
    pub(super) fn change(&mut self, hash: u64, step: impl FnOnce(Instant) -> Instant) {
        let Some((set, way)) = self.find(hash.max(1)) else { return };
        if let Some(state) = self.sets.get_mut(set).and_then(|set| set.states.get_mut(way)) {
            *state = step(Instant::from_nanos(*state)).as_nanos();
        }
    }
}
