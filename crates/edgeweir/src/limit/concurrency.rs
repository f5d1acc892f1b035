//! How many requests may be under way at once: per key, in total, and a total that
//! adapts to what the upstream can take.

use core::time::Duration;

use hashbrown::HashMap;

use crate::hash::HashSeed;
use crate::time::{Instant, nanos};

/// Requests under way, counted per key and in total.
///
/// A key has an entry only while it has a request under way, so the memory is bounded
/// by the total. A permit is a number; the edge gives it back with
/// [`Permits::release`] when the exchange ends, however it ends.
#[derive(Clone, Debug)]
pub struct Permits {
    per_key: u32,
    total: u32,
    under_way: u32,
    keys: HashMap<u64, u32, HashSeed>,
    denied_key: u64,
    denied_total: u64,
}

/// Why there is no permit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Busy {
    /// The key has as many requests under way as it may.
    Key,
    /// All keys together have.
    Total,
}

impl Permits {
    /// At most `per_key` requests of one key, and `total` of all, under way at once.
    #[must_use]
    pub const fn new(per_key: u32, total: u32, seed: HashSeed) -> Self {
        let keys = HashMap::with_hasher(seed);
        Self { per_key, total, under_way: 0, keys, denied_key: 0, denied_total: 0 }
    }

    /// Takes a permit for the key with this hash.
    ///
    /// # Errors
    ///
    /// There is none, for the reason told. Nothing is taken then.
    pub fn acquire(&mut self, hash: u64) -> Result<(), Busy> {
        let held = self.keys.get(&hash).copied().unwrap_or(0);
        if self.per_key <= held {
            self.denied_key = self.denied_key.saturating_add(1);
            return Err(Busy::Key);
        }
        if self.total <= self.under_way {
            self.denied_total = self.denied_total.saturating_add(1);
            return Err(Busy::Total);
        }
        self.under_way = self.under_way.saturating_add(1);
        self.keys.insert(hash, held.saturating_add(1));
        Ok(())
    }

    /// Gives a permit back. One that was never taken changes nothing.
    pub fn release(&mut self, hash: u64) {
        let Some(held) = self.keys.get_mut(&hash) else { return };
        *held = held.saturating_sub(1);
        if *held == 0 {
            self.keys.remove(&hash);
        }
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// Changes the total, for an adaptive limit. Permits that are out stay out.
    pub const fn set_total(&mut self, total: u32) {
        self.total = total;
    }

    /// How many requests are under way.
    #[must_use]
    pub const fn under_way(&self) -> u32 {
        self.under_way
    }

    /// How many keys have a request under way.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.keys.len()
    }

    /// How many requests found no permit: for their key's sake, and for the total's.
    #[must_use]
    pub const fn denied(&self) -> (u64, u64) {
        (self.denied_key, self.denied_total)
    }
}

/// What an adaptive limit may be, and how it finds out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdaptiveBounds {
    /// Never fewer requests under way than this; also the number during a probe.
    pub min: u32,
    /// Never more than this.
    pub max: u32,
    /// How often the latency of an idle upstream is measured anew.
    pub probe_each: Duration,
    /// How many responses make one sample.
    pub samples: u32,
    /// How much slower than idle, in thousandths, is not yet a queue: 1250 is a quarter.
    pub tolerance: u32,
}

impl Default for AdaptiveBounds {
    /// 3 to 1000 requests, a probe each minute, 50 responses a sample, a quarter slower.
    fn default() -> Self {
        Self {
            min: 3,
            max: 1000,
            probe_each: Duration::from_secs(60),
            samples: 50,
            tolerance: 1250,
        }
    }
}

/// A concurrency limit that follows the upstream's latency.
///
/// As in Envoy's `adaptive_concurrency` and Netflix's gradient limits: an upstream
/// that is not overloaded answers in its idle latency; when answers take longer,
/// requests queue in it, and the limit shrinks in proportion. It grows by its square
/// root, the room for a burst. The idle latency is measured now and then, by
/// lowering the limit to its minimum until a sample is full.
#[derive(Clone, Debug)]
pub struct Adaptive {
    bounds: AdaptiveBounds,
    limit: u32,
    // Nanoseconds; 0 until the first probe is over.
    idle: u64,
    probing: bool,
    // Samples that started before this do not count.
    since: Instant,
    next_probe: Instant,
    sum: u64,
    count: u32,
}

impl Adaptive {
    /// A limit that starts with a probe. Zero bounds are taken as 1.
    #[must_use]
    pub fn new(bounds: AdaptiveBounds, now: Instant) -> Self {
        let min = bounds.min.max(1);
        let bounds = AdaptiveBounds {
            min,
            max: bounds.max.max(min),
            samples: bounds.samples.max(1),
            ..bounds
        };
        Self {
            bounds,
            limit: min,
            idle: 0,
            probing: true,
            since: now,
            next_probe: now.after(bounds.probe_each),
            sum: 0,
            count: 0,
        }
    }

    /// How many requests may be under way now.
    #[must_use]
    pub const fn limit(&self) -> u32 {
        if self.probing { self.bounds.min } else { self.limit }
    }

    /// The latency of the idle upstream, as measured last.
    #[must_use]
    pub const fn idle_latency(&self) -> Option<Duration> {
        match self.idle {
            0 => None,
            idle => Some(Duration::from_nanos(idle)),
        }
    }

    /// A request that was sent at `started` got its response now. Requests that were
    /// reset or that this proxy answered itself say nothing about the upstream and
    /// are not told.
    ///
    /// `jitter` is a random number: probes of several workers should not coincide.
    pub fn handle_response(&mut self, started: Instant, jitter: u32, now: Instant) {
        // What was sent before the limit changed says nothing about the new one.
        if started < self.since {
            return;
        }
        self.sum = self.sum.saturating_add(nanos(now.since(started)));
        self.count = self.count.saturating_add(1);
        if self.count < self.bounds.samples {
            return;
        }
        let sample = (self.sum / u64::from(self.count)).max(1);
        (self.sum, self.count) = (0, 0);
        if self.probing {
            self.idle = sample;
            self.probing = false;
            self.since = now;
            // A tenth more at most, so that workers drift apart.
            let each = nanos(self.bounds.probe_each);
            let extra = u64::try_from((u128::from(each / 10) * u128::from(jitter)) >> 32);
            self.next_probe =
                now.after(Duration::from_nanos(each.saturating_add(extra.unwrap_or(0))));
            return;
        }
        self.limit = self.next_limit(sample);
        if self.next_probe <= now {
            self.probing = true;
            self.since = now;
        }
    }

    fn next_limit(&self, sample: u64) -> u32 {
        let tolerated = u128::from(self.idle) * u128::from(self.bounds.tolerance);
        // In thousandths, between a half and one: one bad sample must not stop all.
        let gradient = (tolerated / u128::from(sample)).clamp(500, 1000);
        let shrunk = u128::from(self.limit) * gradient / 1000;
        let next = u32::try_from(shrunk).unwrap_or(u32::MAX).saturating_add(self.limit.isqrt());
        next.clamp(self.bounds.min, self.bounds.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BinaryHeap;
    use core::cmp::Reverse;

    fn permits(per_key: u32, total: u32) -> Permits {
        Permits::new(per_key, total, HashSeed::from_bytes([1; 16]))
    }

    #[test]
    fn permits_are_counted_by_key_and_in_total_and_come_back() {
        let mut permits = permits(2, 3);
        assert_eq!([permits.acquire(1), permits.acquire(1)], [Ok(()), Ok(())]);
        assert_eq!(permits.acquire(1), Err(Busy::Key));
        assert_eq!(permits.acquire(2), Ok(()));
        assert_eq!(permits.acquire(3), Err(Busy::Total));
        permits.release(3);
        assert_eq!(permits.under_way(), 3, "a permit never taken is not given back");
        permits.release(1);
        assert_eq!(permits.acquire(3), Ok(()));
        for hash in [1, 2, 3] {
            permits.release(hash);
        }
        assert_eq!((permits.under_way(), permits.keys()), (0, 0));
        assert_eq!(permits.denied(), (1, 1));
    }

    /// An upstream that works on `servers` requests at once, each for `service_ms`;
    /// there is always one more request to send. Gives the limit after `seconds`.
    fn limit_after(adaptive: &mut Adaptive, servers: usize, service_ms: u64, seconds: u64) -> u32 {
        let mut now = adaptive.since;
        let end = now.after(Duration::from_secs(seconds));
        let mut free: BinaryHeap<Reverse<Instant>> = (0..servers).map(|_| Reverse(now)).collect();
        let mut under_way: BinaryHeap<Reverse<(Instant, Instant)>> = BinaryHeap::new();
        while now < end {
            while under_way.len() < adaptive.limit() as usize {
                let start = free.pop().unwrap().0.max(now);
                let done = start.after(Duration::from_millis(service_ms));
                free.push(Reverse(done));
                under_way.push(Reverse((done, now)));
            }
            let Reverse((done, started)) = under_way.pop().unwrap();
            now = done;
            adaptive.handle_response(started, 0, now);
        }
        adaptive.limit
    }

    #[test]
    fn the_limit_finds_what_the_upstream_can_take() {
        let mut adaptive = Adaptive::new(AdaptiveBounds::default(), Instant::from_nanos(1));
        let limit = limit_after(&mut adaptive, 40, 10, 50);
        assert_eq!(adaptive.idle_latency(), Some(Duration::from_millis(10)));
        // A quarter of tolerated queue, and the square root for bursts.
        assert!((40..=90).contains(&limit), "{limit} for 40 servers");
    }

    #[test]
    fn the_limit_follows_an_upstream_that_becomes_slower_and_recovers() {
        let mut adaptive = Adaptive::new(AdaptiveBounds::default(), Instant::from_nanos(1));
        let before = limit_after(&mut adaptive, 100, 10, 20);
        let slow = limit_after(&mut adaptive, 10, 10, 20);
        assert!(slow < before / 3, "{before} then {slow}");
        let after = limit_after(&mut adaptive, 100, 10, 20);
        assert!(before * 2 / 3 < after, "{before} then {after}");
    }

    #[test]
    fn a_probe_lowers_the_limit_to_its_minimum() {
        let bounds = AdaptiveBounds { samples: 1, ..AdaptiveBounds::default() };
        let mut adaptive = Adaptive::new(bounds, Instant::ZERO);
        let at = Instant::from_nanos;
        adaptive.handle_response(at(1_000_000), 0, at(2_000_000));
        for n in 0..50 {
            adaptive.handle_response(at(3_000_000 + n), 0, at(4_000_000 + n));
        }
        assert!(100 < adaptive.limit());
        let late = 61_000_000_000;
        adaptive.handle_response(at(late), 0, at(late + 1_000_000));
        assert_eq!(adaptive.limit(), 3);
        adaptive.handle_response(at(late), 0, at(late + 9_000_000));
        assert_eq!(adaptive.limit(), 3, "sent before the probe began");
        adaptive.handle_response(at(late + 9_000_000), 0, at(late + 10_000_000));
        assert!(100 < adaptive.limit());
    }
}
