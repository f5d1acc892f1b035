//! One limit, exact over all workers of a process, without asking for each request.
//!
//! The truth is TATs in a fixed number of pages that the workers share and change
//! by compare-and-swap (CAS). A worker takes from it a *lease*: `k` future slots,
//! one interval apart, by moving the TAT ahead by `k` intervals. A slot `v` may be
//! used while `v - tolerance ≤ now ≤ v` and is lost after that.
//!
//! **Never too many.** Slots are disjoint spans of one interval. Whoever passes in
//! `(s, e]` has its slot in `[s, e + tolerance]`, so at most
//! `burst + (e - s) / interval` pass: for every window, any number of workers, any
//! size of lease, and crashes too (they only lose slots). Plain GCRA is `k = 1`.
//!
//! **Few too few.** Lost are only slots that were leased and not used in time. `k`
//! is about what the worker saw asked for in the last 10 ms, and at most 10 ms of the
//! rate. If that is less than two slots, `k` is 1 and every decision is GCRA's.
//!
//! The time of a request is the reading of the clock with which it was decided; what
//! delays it after that, in the write of a page or in the proxy, is not seen here.
//!
//! **Denied at no cost.** A TAT never goes back, so while the last one seen denies,
//! the true one does. Then nobody can have moved it since, and the `retry_after`
//! told from it is exact.
//!
//! An edge calls [`Leases::decide`]; if that needs a page, it reads the page, calls
//! [`Leases::attempt`], writes what that gives with a CAS, and hands it back with
//! [`Leases::accept`], or tries again if another worker was first:
//!
//! ```
//! # use core::time::Duration;
//! # use edgeweir::{limit::{Attempt, Decision, Leases, Limit, Quota, Step}, time::Instant};
//! # let (mut pages, now) = (std::collections::HashMap::<u32, Vec<u8>>::new(), Instant::from_nanos(1));
//! # let limit = Limit::from(Quota::new(10, Duration::from_secs(1), 2).unwrap());
//! # let mut leases = Leases::new(16, 1024).unwrap();
//! # let hash = 7;
//! let decision = 'decided: {
//!     let page = match leases.decide(&limit, hash, 1, now) {
//!         Step::Decided(decision) => break 'decided decision,
//!         Step::Page(page) => page,
//!     };
//!     for _ in 0..Leases::ATTEMPTS {
//!         let bytes = pages.get(&page).cloned(); // and the CAS token of the page
//!         match leases.attempt(&limit, hash, 1, bytes.as_deref(), now) {
//!             Attempt::Decided(decision) => break 'decided decision,
//!             Attempt::Write(lease) => {
//!                 pages.insert(page, lease.page().to_vec()); // if the token still holds
//!                 break 'decided leases.accept(&limit, lease, now);
//!             }
//!         }
//!     }
//!     leases.give_up(&limit)
//! };
//! assert!(decision.is_allowed());
//! ```

use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::time::Duration;

use super::limiter::each;
use super::quota::{Decision, Level, Limit, Quota};
use crate::time::Instant;

/// Demand is measured over this span, and no lease reaches further ahead.
const HORIZON: u64 = 10_000_000;

const WAYS: usize = 4;

/// An entry of a page: hash and TAT, little endian.
const ENTRY: usize = 16;

/// What a worker knows of one key's quota.
#[derive(Clone, Copy, Debug, Default)]
struct Cell {
    // 0: never used.
    hash: u64,
    // The last TAT seen. Nobody's is ever smaller.
    seen: u64,
    // The slots held: next, next + interval, .. below end.
    next: u64,
    end: u64,
    // The span of HORIZON that the counts belong to, and the counts: in it, before it.
    span: u64,
    offered: Demand,
    admitted: Demand,
}

/// How much came in the current span of HORIZON, and in the one before.
#[derive(Clone, Copy, Debug, Default)]
struct Demand {
    this: u32,
    last: u32,
}

impl Demand {
    fn add(&mut self, cost: u32) {
        self.this = self.this.saturating_add(cost);
    }

    fn most(self) -> u64 {
        u64::from(self.this.max(self.last))
    }
}

impl Cell {
    /// Counts `cost` as offered at `now`.
    fn offer(&mut self, cost: u32, now: Instant) {
        let span = now.as_nanos() / HORIZON;
        if span != self.span {
            let next = span == self.span.saturating_add(1);
            for demand in [&mut self.offered, &mut self.admitted] {
                *demand = Demand { this: 0, last: if next { demand.this } else { 0 } };
            }
            self.span = span;
        }
        self.offered.add(cost);
    }

    /// Forgets slots whose time has passed.
    fn skip_lost(&mut self, quota: Quota, now: Instant) -> u64 {
        let now = now.as_nanos();
        if self.next < now && self.next < self.end {
            let interval = quota.interval_nanos();
            let lost = (now - self.next).div_ceil(interval).min(self.held(quota));
            self.next = self.next.saturating_add(lost.saturating_mul(interval));
            return lost;
        }
        0
    }

    /// Slots held.
    fn held(&self, quota: Quota) -> u64 {
        self.end.saturating_sub(self.next).div_ceil(quota.interval_nanos())
    }

    /// Slots held that may be used at `now`.
    fn usable(&self, quota: Quota, now: Instant) -> u64 {
        let latest = now.as_nanos().saturating_add(quota.tolerance());
        if self.end <= self.next || latest < self.next {
            return 0;
        }
        ((latest - self.next) / quota.interval_nanos()).saturating_add(1).min(self.held(quota))
    }

    fn spend(&mut self, quota: Quota, slots: u64) {
        let step = quota.interval_nanos().saturating_mul(slots);
        self.next = self.next.saturating_add(step).min(self.end);
    }

    /// Which slots to take for a request that needs `missing` of them: the first one,
    /// and how many. `base` is the TAT, or now if that is later.
    fn slots(&self, quota: Quota, base: Instant, missing: u32, now: Instant) -> (u64, u64) {
        let interval = quota.interval_nanos();
        let most = HORIZON / interval;
        if most < 2 {
            return (base.as_nanos(), u64::from(missing));
        }
        // Slots that begin now expire one interval after the other, faster than a
        // worker with a part of the load can use them. Under a steady load it leaves
        // out the next ones, which costs a little of the burst, once.
        let margin = HORIZON.min(quota.tolerance() / 16);
        let later = now.after(Duration::from_nanos(margin));
        let steady = self.offered.last != 0 && quota.wait(later, missing, now).is_none();
        let first = if steady { base.max(later) } else { base };
        let lead = first.as_nanos().saturating_sub(now.as_nanos());
        // In quarters of what it saw asked for. While nobody is near the limit, a few
        // slots that expire do no harm; when the burst is being used up, they do.
        let quarters = match lead {
            lead if lead <= margin => 8,
            lead if lead <= margin.saturating_mul(2) => 4,
            _ => 1,
        };
        let offered = self.offered.most().saturating_mul(quarters) / 4;
        let admitted = self.admitted.most().saturating_mul(quarters) / 2;
        // Only slots that may be used now: one that falls due later would be lost if
        // the load moved to another worker before.
        let due = (quota.tolerance().saturating_sub(lead) / interval).saturating_add(1);
        let take =
            most.min(offered).min(admitted.saturating_add(1)).min(due).max(u64::from(missing));
        (first.as_nanos(), take)
    }

    /// What is left: in the shared truth as last seen, and in the lease.
    fn level(&self, quota: Quota, now: Instant) -> Level {
        let level = quota.level(Instant::from_nanos(self.seen), now);
        let held = u32::try_from(self.usable(quota, now)).unwrap_or(u32::MAX);
        let remaining = level.remaining.saturating_add(held).min(quota.burst());
        Level { remaining, ..level }
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Set([Cell; WAYS]);

/// What a worker holds and knows: leases, last states seen, demand. Fixed memory.
///
/// Losing any of it (it is a cache) can lose slots, never admit too many.
#[derive(Clone, Debug)]
pub struct Leases {
    sets: Vec<Set>,
    pages: u32,
    // Stands in where no set is; there always is one.
    spare: Cell,
    counts: LeaseCounts,
}

/// What the leases of a worker did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseCounts {
    /// Decisions taken without a page.
    pub local: u64,
    /// Pages read.
    pub reads: u64,
    /// Pages written.
    pub writes: u64,
    /// Attempts that gave up because other workers were first each time.
    pub gave_up: u64,
    /// Slots that were leased and whose time passed.
    pub lost: u64,
    /// Entries of pages that were dropped while they still said something.
    pub evicted: u64,
    /// New keys that were denied because their page held only exhausted ones.
    pub refused: u64,
}

/// The first step of a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Decided without the shared pages.
    Decided(Decision),
    /// The page of this number is needed.
    Page(u32),
}

/// What a page led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// Decided; nothing is to be written.
    Decided(Decision),
    /// To be written, if the page has not changed since it was read.
    Write(Lease),
}

/// A change of a page, and the slots that come with it if it is written in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    page: Vec<u8>,
    hash: u64,
    cost: u32,
    // For each quota: the first slot, and how many.
    slots: [(u64, u64); Limit::MAX_QUOTAS],
    evicted: u64,
}

impl Lease {
    /// The page to write.
    #[must_use]
    pub fn page(&self) -> &[u8] {
        &self.page
    }
}

impl Leases {
    /// How often to try before [`Leases::give_up`]. Each failure means that another
    /// worker succeeded, so this many in a row is a fault, not a race.
    pub const ATTEMPTS: u32 = 64;

    /// The size of a page in bytes: 16 entries.
    pub const PAGE_BYTES: usize = 16 * ENTRY;

    /// A worker's view of `pages` shared pages, which remembers up to about `keys`
    /// keys in 64 bytes each. The memory is taken at once.
    ///
    /// # Errors
    ///
    /// There is not enough memory.
    pub fn new(pages: u32, keys: usize) -> Result<Self, TryReserveError> {
        let count = keys.div_ceil(WAYS).max(1);
        let mut sets = Vec::new();
        sets.try_reserve_exact(count)?;
        sets.resize(count, Set::default());
        Ok(Self {
            sets,
            pages: pages.max(1),
            spare: Cell::default(),
            counts: LeaseCounts::default(),
        })
    }

    /// What happened so far.
    #[must_use]
    pub const fn counts(&self) -> LeaseCounts {
        self.counts
    }

    /// Decides a request of the key with this hash from what is known here, if
    /// that suffices.
    ///
    /// The hash must be the same in all workers, keyed by one secret seed, and cover
    /// what identifies the limit as well as the key.
    pub fn decide(&mut self, limit: &Limit, hash: u64, cost: u32, now: Instant) -> Step {
        let (mut held, mut wait, mut too_large) = (cost != 0, None, false);
        let mut level = None;
        for (quota, h) in each(limit, hash) {
            let cell = self.cell(h, now);
            if quota.is_clock_fault(Instant::from_nanos(cell.seen), now) {
                *cell = Cell { hash: h, ..Cell::default() };
            }
            cell.offer(cost, now);
            let lost = cell.skip_lost(quota, now);
            let usable = cell.usable(quota, now);
            held &= u64::from(cost) <= usable;
            too_large |= quota.burst() < cost;
            // Only what denies a cost of 1 denies every worker, so that the TAT stays.
            let seen = Instant::from_nanos(cell.seen);
            if usable == 0 && quota.wait(seen, 1, now).is_some() {
                wait = wait.max(quota.wait(seen, cost, now));
            }
            level = tighter(level, cell.level(quota, now));
            self.counts.lost = self.counts.lost.saturating_add(lost);
        }
        let known = level.unwrap_or_default();
        if too_large {
            return self.local(Decision::TooLarge(known));
        }
        if let Some(retry_after) = wait {
            return self.local(Decision::Deny { level: known, retry_after });
        }
        if !held {
            return Step::Page(self.page_of(hash));
        }
        let mut level = None;
        for (quota, h) in each(limit, hash) {
            let cell = self.cell(h, now);
            cell.spend(quota, u64::from(cost));
            cell.admitted.add(cost);
            level = tighter(level, cell.level(quota, now));
        }
        self.local(Decision::Allow(level.unwrap_or_default()))
    }

    fn local(&mut self, decision: Decision) -> Step {
        self.counts.local = self.counts.local.saturating_add(1);
        Step::Decided(decision)
    }

    /// Decides with the key's page as it was just read; `None` if there is none yet.
    pub fn attempt(
        &mut self,
        limit: &Limit,
        hash: u64,
        cost: u32,
        page: Option<&[u8]>,
        now: Instant,
    ) -> Attempt {
        self.counts.reads = self.counts.reads.saturating_add(1);
        let mut page = Page::read(page);
        let mut slots = [(0, 0); Limit::MAX_QUOTAS];
        let (mut level, mut wait) = (None, None);
        for ((quota, h), slots) in each(limit, hash).zip(&mut slots) {
            let state = page.get(h);
            let base = quota.settled(state, now);
            let cell = self.cell(h, now);
            cell.seen = if quota.is_clock_fault(state, now) { base } else { state }.as_nanos();
            let missing = u64::from(cost).saturating_sub(cell.usable(quota, now));
            let missing = u32::try_from(missing).unwrap_or(u32::MAX);
            if quota.wait(base, missing, now).is_some() {
                // Told for the whole cost: the slots held may be lost by then.
                wait = wait.max(quota.wait(base, cost, now));
            }
            level = tighter(level, cell.level(quota, now));
            if 0 < missing {
                *slots = cell.slots(quota, base, missing, now);
            }
        }
        let level = level.unwrap_or_default();
        if let Some(retry_after) = wait {
            return Attempt::Decided(Decision::Deny { level, retry_after });
        }
        if cost == 0 {
            return Attempt::Decided(Decision::Allow(level));
        }
        let mut evicted = 0_u64;
        for ((quota, h), (first, take)) in each(limit, hash).zip(slots) {
            if take == 0 {
                continue;
            }
            let next = first.saturating_add(quota.interval_nanos().saturating_mul(take));
            match page.set(h, next, quota.tolerance(), now) {
                Ok(dropped) => evicted = evicted.saturating_add(u64::from(dropped)),
                Err(retry_after) => {
                    self.counts.refused = self.counts.refused.saturating_add(1);
                    let level = Level { remaining: 0, reset: retry_after };
                    return Attempt::Decided(Decision::Deny { level, retry_after });
                }
            }
        }
        Attempt::Write(Lease { page: page.0, hash, cost, slots, evicted })
    }

    /// Takes the slots of a page that was written, and lets the request pass.
    pub fn accept(&mut self, limit: &Limit, lease: Lease, now: Instant) -> Decision {
        self.counts.writes = self.counts.writes.saturating_add(1);
        self.counts.evicted = self.counts.evicted.saturating_add(lease.evicted);
        let mut level = None;
        for ((quota, h), (first, take)) in each(limit, lease.hash).zip(lease.slots) {
            let cell = self.cell(h, now);
            let held = cell.usable(quota, now).min(u64::from(lease.cost));
            cell.spend(quota, held);
            if 0 < take {
                // All slots held before are spent: were one left for later, the page,
                // which is further ahead, would have denied.
                let step = |n: u64| first.saturating_add(quota.interval_nanos().saturating_mul(n));
                let used = u64::from(lease.cost).saturating_sub(held);
                (cell.next, cell.end) = (step(used), step(take));
                cell.seen = cell.end;
            }
            cell.admitted.add(lease.cost);
            level = tighter(level, cell.level(quota, now));
        }
        Decision::Allow(level.unwrap_or_default())
    }

    /// The answer when every attempt came too late: denied, for one interval.
    /// To let it pass would break the one promise that this module makes.
    pub fn give_up(&mut self, limit: &Limit) -> Decision {
        self.counts.gave_up = self.counts.gave_up.saturating_add(1);
        let retry_after = limit.quotas().iter().map(|q| q.interval()).max().unwrap_or_default();
        Decision::Deny { level: Level { remaining: 0, reset: retry_after }, retry_after }
    }

    /// Gives back what a request took that in the end did not use it, to this worker's
    /// lease: the shared TAT cannot go back. Only slots that were taken last and have
    /// not expired come back; the others are lost, as any slot that is not used.
    pub fn give_back(&mut self, limit: &Limit, hash: u64, cost: u32, now: Instant) {
        for (quota, h) in each(limit, hash) {
            let cell = self.cell(h, now);
            if cell.next <= cell.end && cell.end != 0 {
                let step = quota.interval_nanos().saturating_mul(u64::from(cost));
                cell.next = cell.next.saturating_sub(step);
                cell.skip_lost(quota, now);
            }
        }
    }

    /// What this worker knows of each quota of a key, in their order.
    pub fn levels(&mut self, limit: &Limit, hash: u64, now: Instant) -> Vec<Level> {
        let levels = each(limit, hash).map(|(quota, h)| self.cell(h, now).level(quota, now));
        levels.collect()
    }

    /// The number of the page that holds a key.
    #[must_use]
    pub fn page_of(&self, hash: u64) -> u32 {
        u32::try_from(scale(hash, self.pages as usize)).unwrap_or(0)
    }

    /// The page with a key charged `cost` more than it was asked for: it may end up in
    /// debt, by one burst at most. To be written as a lease's page is.
    #[must_use]
    pub fn charged(
        limit: &Limit,
        hash: u64,
        cost: u32,
        page: Option<&[u8]>,
        now: Instant,
    ) -> Vec<u8> {
        Self::changed(limit, hash, page, now, |_, quota, state| quota.charge(state, cost, now))
    }

    /// The page with a key's full burst restored. Every worker must [`Leases::forget`]
    /// then.
    #[must_use]
    pub fn reset(limit: &Limit, hash: u64, page: Option<&[u8]>, now: Instant) -> Vec<u8> {
        Self::changed(limit, hash, page, now, |_, _, _| now)
    }

    /// The page with a key's state brought from the limit `old` to the limit `new`:
    /// what was left stays, nothing is refilled. Every worker must [`Leases::forget`]
    /// then.
    #[must_use]
    pub fn carried_over(
        old: &Limit,
        new: &Limit,
        hash: u64,
        page: Option<&[u8]>,
        now: Instant,
    ) -> Vec<u8> {
        Self::changed(new, hash, page, now, |n, quota, state| {
            old.quotas().get(n).map_or(state, |old| quota.carry_over(*old, state, now))
        })
    }

    fn changed(
        limit: &Limit,
        hash: u64,
        page: Option<&[u8]>,
        now: Instant,
        step: impl Fn(usize, Quota, Instant) -> Instant,
    ) -> Vec<u8> {
        let mut page = Page::read(page);
        for (n, (quota, h)) in each(limit, hash).enumerate() {
            let next = step(n, quota, page.get(h)).as_nanos();
            // A key for which the page has no room keeps what it had: nothing.
            let _ = page.set(h, next, quota.tolerance(), now);
        }
        page.0
    }

    /// Forgets all leases and states seen: after somebody reset a key or gave it
    /// another limit, for only then may a TAT go back.
    pub fn forget(&mut self) {
        self.sets.fill(Set::default());
    }

    /// The cell of a key. If there is none, one of its set is given up: one without
    /// slots if possible, then the one that is least ahead.
    fn cell(&mut self, hash: u64, now: Instant) -> &mut Cell {
        let now = now.as_nanos();
        // Not the bits that choose the page, or the keys of a page would crowd.
        let set = scale(hash.rotate_left(32), self.sets.len());
        let worth = |cell: &&mut Cell| {
            (cell.hash != hash, cell.next < cell.end && now <= cell.end, cell.seen)
        };
        let set = self.sets.get_mut(set).into_iter().flat_map(|set| &mut set.0);
        let cell = set.min_by_key(worth).unwrap_or(&mut self.spare);
        if cell.hash != hash {
            *cell = Cell { hash, ..Cell::default() };
        }
        cell
    }
}

/// The level that is nearer to its end.
fn tighter(one: Option<Level>, other: Level) -> Option<Level> {
    Some(Limit::tightest(one.into_iter().chain([other])))
}

/// Spreads hashes evenly over `count` places.
fn scale(hash: u64, count: usize) -> usize {
    usize::try_from((u128::from(hash) * count as u128) >> 64).unwrap_or(0)
}

/// A shared page: entries of hash and TAT. A page of another size is read as far as
/// it goes, and an entry with the hash 0 is empty.
struct Page(Vec<u8>);

impl Page {
    fn read(bytes: Option<&[u8]>) -> Self {
        let mut page = bytes.unwrap_or_default().to_vec();
        page.resize(Leases::PAGE_BYTES, 0);
        Self(page)
    }

    fn entries(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.chunks_exact(ENTRY).map(|entry| {
            let (hash, state) = entry.split_at(ENTRY / 2);
            let number = |bytes: &[u8]| bytes.try_into().map_or(0, u64::from_le_bytes);
            (number(hash), number(state))
        })
    }

    fn get(&self, hash: u64) -> Instant {
        let found = self.entries().find(|(h, _)| *h == hash);
        Instant::from_nanos(found.map_or(0, |(_, state)| state))
    }

    /// Writes a state, in the place of the fullest bucket if the key is new. Gives
    /// whether that one still said something; or if it is exhausted, and so must
    /// stay, when it will not be.
    fn set(
        &mut self,
        hash: u64,
        state: u64,
        tolerance: u64,
        now: Instant,
    ) -> Result<bool, Duration> {
        let lead = |state: u64| state.saturating_sub(now.as_nanos());
        let place = self.entries().enumerate().min_by_key(|(_, (h, s))| (*h != hash, lead(*s)));
        let (place, (there, old)) = place.unwrap_or_default();
        let lost = if there == hash || there == 0 { 0 } else { lead(old) };
        if tolerance < lost {
            return Err(Duration::from_nanos(lost - tolerance));
        }
        let entry = self.0.chunks_exact_mut(ENTRY).nth(place).into_iter().flatten();
        let bytes = hash.to_le_bytes().into_iter().chain(state.to_le_bytes());
        entry.zip(bytes).for_each(|(old, new)| *old = new);
        Ok(0 < lost)
    }
}
