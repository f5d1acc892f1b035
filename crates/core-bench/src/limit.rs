//! Decisions of a rate limit per key, against `governor`.

use std::hint::black_box;
use std::num::NonZeroU32;
use std::time::Duration;

use edgeweir::hash::HashSeed;
use edgeweir::limit::{Limiter, Quota};
use edgeweir::time::Instant;
use governor::clock::FakeRelativeClock;
use governor::{Quota as TheirQuota, RateLimiter};

use crate::Row;

/// As an address comes out of Envoy or a socket.
type Key = [u8; 16];

const PER_SECOND: NonZeroU32 = NonZeroU32::MIN.saturating_add(999);

pub(crate) fn subjects() -> Vec<(&'static str, Vec<Row>)> {
    vec![
        ("One decision, 1 key, the time is given", given_time(1)),
        ("One decision, 100 000 keys, the time is given", given_time(100_000)),
        ("One decision, 100 000 keys, the clock is read each time", read_clock(100_000)),
    ]
}

fn given_time(keys: u64) -> Vec<Row> {
    let mut ours = limiter(keys);
    let mut now = 1;
    let clock = FakeRelativeClock::default();
    let theirs = RateLimiter::hashmap_with_clock(TheirQuota::per_second(PER_SECOND), clock.clone());
    let sharded_clock = FakeRelativeClock::default();
    let sharded =
        RateLimiter::dashmap_with_clock(TheirQuota::per_second(PER_SECOND), sharded_clock.clone());
    vec![
        row("Edgeweir Limiter", keys, move |key| {
            now += 1000;
            ours.check(key, 1, Instant::from_nanos(now)).is_allowed()
        }),
        row("governor, HashMap with a mutex", keys, move |key| {
            clock.advance(Duration::from_micros(1));
            theirs.check_key(key).is_ok()
        }),
        row("governor, DashMap", keys, move |key| {
            sharded_clock.advance(Duration::from_micros(1));
            sharded.check_key(key).is_ok()
        }),
    ]
}

fn read_clock(keys: u64) -> Vec<Row> {
    let mut ours = limiter(keys);
    let start = std::time::Instant::now();
    let theirs = RateLimiter::hashmap(TheirQuota::per_second(PER_SECOND));
    let sharded = RateLimiter::dashmap(TheirQuota::per_second(PER_SECOND));
    vec![
        row("Edgeweir Limiter, std clock", keys, move |key| {
            let nanos = u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX);
            ours.check(key, 1, Instant::from_nanos(nanos)).is_allowed()
        }),
        row("governor, HashMap, its clock", keys, move |key| theirs.check_key(key).is_ok()),
        row("governor, DashMap, its clock", keys, move |key| sharded.check_key(key).is_ok()),
    ]
}

fn limiter(keys: u64) -> Limiter {
    let quota = Quota::new(PER_SECOND.get(), Duration::from_secs(1), PER_SECOND.get());
    let keys = usize::try_from(keys).unwrap_or(usize::MAX).saturating_mul(2);
    let limiter =
        quota.ok().and_then(|quota| Limiter::new(quota, keys, HashSeed::from_bytes([7; 16])).ok());
    match limiter {
        Some(limiter) => limiter,
        None => std::process::exit(1),
    }
}

/// A row whose keys come in an order without a pattern, the same for every row.
fn row(name: &'static str, keys: u64, mut check: impl FnMut(&Key) -> bool + 'static) -> Row {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let work = move |times| {
        for _ in 0..times {
            // xorshift64: two nanoseconds, alike for all.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            let mut key = [0; 16];
            for (byte, from) in key.iter_mut().zip((state % keys).to_be_bytes()) {
                *byte = from;
            }
            black_box(check(&key));
        }
    };
    Row { name, work: Box::new(work) }
}
