//! GCRA against a token bucket in exact arithmetic, and against what it promises.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::panic,
    clippy::unreachable,
    clippy::cast_possible_truncation,
    reason = "a test may stop at the first surprise, in its own functions too"
)]

use core::time::Duration;

use edgeweir::hash::HashSeed;
use edgeweir::limit::{Decision, Limit, Limiter, Quota};
use edgeweir::time::Instant;
use proptest::prelude::*;

const SECOND: u64 = 1_000_000_000;

fn cases() -> ProptestConfig {
    let deep = std::env::var_os("EDGEWEIR_DEEP").is_some();
    ProptestConfig {
        cases: if deep { 20_000 } else { 500 },
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

/// A token bucket, kept in 1/`per` of a token so that nothing is ever rounded. It
/// refills at the exact rate, which need not be a whole number of nanoseconds.
struct Bucket {
    requests: u128,
    per: u128,
    burst: u128,
    level: u128,
    last: u64,
}

impl Bucket {
    fn full(requests: u32, per: u64, burst: u32) -> Self {
        let (requests, per, burst) = (requests.into(), per.into(), burst.into());
        Self { requests, per, burst, level: burst * per, last: 0 }
    }

    /// After a step back of more than an hour and twice the burst the bucket starts
    /// anew, empty.
    fn advance(&mut self, now: u64) {
        let missing = (self.burst * self.per - self.level).div_ceil(self.requests);
        let whole = (self.burst * self.per).div_ceil(self.requests);
        let fault = 2 * whole + 3600 * u128::from(SECOND);
        if u128::from(now) + fault < u128::from(self.last) + missing {
            (self.level, self.last) = (0, now);
        }
        let elapsed = now.saturating_sub(self.last);
        self.level = (self.level + u128::from(elapsed) * self.requests).min(self.burst * self.per);
        self.last = self.last.max(now);
    }

    fn take(&mut self, cost: u32, now: u64) -> bool {
        self.advance(now);
        let cost = u128::from(cost) * self.per;
        // What came back in a time that the clock says is still to come, does not count.
        let future = u128::from(self.last - now) * self.requests;
        let enough = cost == 0 || cost + future <= self.level;
        if enough {
            self.level -= cost;
        }
        enough
    }
}

fn quotas() -> impl Strategy<Value = (u32, u64, u32)> {
    let per = prop_oneof![Just(SECOND), Just(60 * SECOND), Just(3600 * SECOND), 1_000..10 * SECOND];
    (1_u32..2_000, per, 1_u32..2_000).prop_filter("one each microsecond", |(requests, per, _)| {
        per / u64::from(*requests) >= 1_000
    })
}

/// Steps of a clock that mostly goes forward, sometimes back, sometimes very far.
fn steps() -> impl Strategy<Value = Vec<(i64, u32)>> {
    let year = 365 * 86_400 * SECOND as i64;
    let step = prop_oneof![
        6 => 0_i64..100_000_000,
        3 => 0..10 * SECOND as i64,
        1 => -(5 * SECOND as i64)..0,
        1 => prop_oneof![Just(year), Just(-year), Just(-2 * 3600 * SECOND as i64)],
    ];
    let cost = prop_oneof![8 => Just(1_u32), 3 => 0_u32..30, 1 => Just(u32::MAX)];
    prop::collection::vec((step, cost), 1..200)
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn decisions_are_those_of_an_exact_token_bucket(
        (requests, interval, burst) in (1_u32..2_000, 1_000_u64..SECOND, 1_u32..2_000),
        steps in steps(),
    ) {
        // Intervals that are whole nanoseconds, so that both rates are the same.
        let per = interval * u64::from(requests);
        let quota = Quota::new(requests, Duration::from_nanos(per), burst).unwrap();
        let mut bucket = Bucket::full(requests, per, burst);
        let (mut state, mut now) = (Instant::ZERO, 2_u64 << 60);
        for (row, (step, cost)) in steps.into_iter().enumerate() {
            now = now.saturating_add_signed(step);
            let (decision, next) = quota.check(state, cost, Instant::from_nanos(now));
            prop_assert_eq!(decision.is_allowed(), bucket.take(cost, now), "row {}", row);
            // While the clock is behind what was seen, the bucket's level is of then.
            if bucket.last == now {
                let remaining = bucket.level / u128::from(per);
                prop_assert_eq!(u128::from(decision.level().remaining), remaining, "row {}", row);
            }
            state = next;
        }
    }

    #[test]
    fn no_rate_that_needs_rounding_lets_one_too_many_pass(
        (requests, per, burst) in quotas(),
        steps in steps(),
    ) {
        let quota = Quota::new(requests, Duration::from_nanos(per), burst).unwrap();
        let mut meter = Bucket::full(requests, per, burst);
        let (mut state, mut now) = (Instant::ZERO, 2_u64 << 60);
        for (step, cost) in steps {
            // Forward only: what a far step back means is the test above.
            now = now.saturating_add(step.unsigned_abs());
            let (decision, next) = quota.check(state, cost, Instant::from_nanos(now));
            if decision.is_allowed() {
                prop_assert!(meter.take(cost, now), "one too many");
            }
            state = next;
        }
    }

    #[test]
    fn a_denied_request_passes_at_the_promised_instant_and_no_sooner(
        (requests, per, burst) in quotas(),
        steps in steps(),
    ) {
        let quota = Quota::new(requests, Duration::from_nanos(per), burst).unwrap();
        let (mut state, mut now) = (Instant::ZERO, Instant::from_nanos(SECOND));
        for (step, cost) in steps {
            now = now.after(Duration::from_nanos(step.unsigned_abs() % SECOND));
            let (decision, next) = quota.check(state, cost, now);
            if let Some(wait) = decision.retry_after() {
                let promised = now.after(wait);
                for share in 1..=20 {
                    let early = promised.before((wait / 20) * share);
                    if early < promised {
                        prop_assert!(!quota.check(next, cost, early).0.is_allowed());
                    }
                }
                let last = promised.before(Duration::from_nanos(1));
                prop_assert!(!quota.check(next, cost, last).0.is_allowed());
                prop_assert!(quota.check(next, cost, promised).0.is_allowed());
            }
            state = next;
        }
    }

    #[test]
    fn a_strict_quota_never_passes_more_in_any_window(
        (requests, window, burst) in (1_u32..50).prop_flat_map(|requests| {
            (Just(requests), 1_000_000..10 * SECOND, 1..=requests)
        }),
        gaps in prop::collection::vec(0_u64..1000, 300),
    ) {
        let quota = Quota::strict(requests, Duration::from_nanos(window), burst).unwrap();
        let (mut state, mut now) = (Instant::ZERO, SECOND);
        let mut passed = Vec::new();
        for gap in gaps {
            // Mostly in bursts, with pauses about as long as the window.
            now += if gap < 900 { gap } else { window * gap / 950 };
            let (decision, next) = quota.check(state, 1, Instant::from_nanos(now));
            if decision.is_allowed() {
                passed.push(now);
            }
            state = next;
        }
        for (at, first) in passed.iter().enumerate() {
            let within = passed[at..].iter().take_while(|time| *time - first < window).count();
            prop_assert!(within <= requests as usize, "{} from {}", within, first);
        }
    }

    #[test]
    fn every_quota_that_is_built_admits_its_burst_and_then_its_rate(
        (requests, per, burst) in quotas(),
    ) {
        let quota = Quota::new(requests, Duration::from_nanos(per), burst).unwrap();
        let now = Instant::from_nanos(SECOND);
        let (decision, state) = quota.check(Instant::ZERO, burst, now);
        prop_assert!(decision.is_allowed());
        // Rounding the interval up costs less than one part in a thousand.
        let interval = quota.interval().as_nanos();
        let product = interval * u128::from(requests);
        prop_assert!(u128::from(per) <= product && product <= u128::from(per) * 1001 / 1000 + 1);
        let full = now.after(quota.interval() * burst);
        prop_assert_eq!(quota.level(state, full).remaining, burst);
    }

    #[test]
    fn a_table_with_room_decides_as_each_key_alone_would(
        requests in prop::collection::vec((0_u8..40, 0_u64..200_000_000, 1_u32..4), 1..300),
    ) {
        let second = Duration::from_secs(1);
        let quotas = [Quota::new(5, second, 5).unwrap(), Quota::new(9, second, 3).unwrap()];
        let limit = Limit::new(quotas.to_vec()).unwrap();
        let mut limiter = Limiter::new(limit, 64, HashSeed::from_bytes([9; 16])).unwrap();
        let mut states = std::collections::HashMap::<u8, [Instant; 2]>::new();
        let mut now = Instant::from_nanos(SECOND);
        for (key, gap, cost) in requests {
            now = now.after(Duration::from_nanos(gap));
            let own = states.entry(key).or_default();
            let answers = [0, 1].map(|n| quotas[n].check(own[n], cost, now));
            let expected = answers.iter().all(|(decision, _)| decision.is_allowed());
            if expected {
                *own = answers.map(|(_, next)| next);
            }
            prop_assert_eq!(limiter.check(&[key], cost, now).is_allowed(), expected);
        }
    }
}

#[test]
fn no_cost_however_large_overflows() {
    let second = Duration::from_secs(1);
    let quota = Quota::new(1, Duration::from_secs(3600), u32::MAX / 100_000).unwrap();
    let mut limiter = Limiter::new(quota, 16, HashSeed::from_bytes([9; 16])).unwrap();
    for now in [Instant::ZERO, Instant::from_nanos(u64::MAX / 2), Instant::MAX] {
        assert!(matches!(limiter.check(b"a", u32::MAX, now), Decision::TooLarge(_)));
        limiter.charge(b"a", u32::MAX, now);
        limiter.refund(b"a", u32::MAX, now);
        let _ = limiter.check(b"a", 1, now);
        let _ = limiter.peek(b"a", now);
    }
    // Free requests are the rule's to give, and cost nothing.
    let mut limiter =
        Limiter::new(Quota::new(1, second, 1).unwrap(), 16, HashSeed::from_bytes([9; 16])).unwrap();
    for _ in 0..10 {
        assert!(limiter.check(b"a", 0, Instant::from_nanos(1)).is_allowed());
    }
    assert_eq!(limiter.peek(b"a", Instant::from_nanos(1)).remaining, 1);
}

/// Ten abusers and honest clients, with and without a flood of new keys that fills
/// the table many times over.
#[test]
fn a_flood_of_keys_changes_nothing_for_honest_clients_or_abusers() {
    let deep = std::env::var_os("EDGEWEIR_DEEP").is_some();
    // The full size is 65,536 keys, 5000 honest clients, 50,000 new keys a second.
    let (table, honest, flood, seconds) =
        if deep { (65_536, 5_000, 50_000, 120) } else { (6_554, 500, 5_000, 120) };
    for flood in [0, flood] {
        let quota = Quota::new(10, Duration::from_secs(60), 10).unwrap();
        let mut limiter = Limiter::new(quota, table, HashSeed::from_bytes([2; 16])).unwrap();
        let (mut wrongly_denied, mut abuse, mut next_key) = (0, 0, 0_u64);
        for ms in 0..seconds * 1000_u64 {
            let now = Instant::from_nanos(SECOND + ms * 1_000_000);
            for client in (0..honest).filter(|client| (client * 7919 + ms) % 10_000 == 0) {
                let key = [b'h', client as u8, (client >> 8) as u8];
                wrongly_denied += u32::from(!limiter.check(&key, 1, now).is_allowed());
            }
            for abuser in (0..10).filter(|abuser| (abuser * 17 + ms) % 200 == 0) {
                abuse += u32::from(limiter.check(&[b'a', abuser as u8], 1, now).is_allowed());
            }
            for _ in 0..flood / 1000 {
                next_key += 1;
                let _ = limiter.check(&next_key.to_le_bytes(), 1, now);
            }
        }
        assert_eq!(wrongly_denied, 0, "flood of {flood}");
        // The burst and the rate over the time, for each of ten.
        let fair = 10 * (10 + seconds as u32 / 6);
        assert!((fair - 10..=fair).contains(&abuse), "{abuse} of {fair}, flood of {flood}");
        println!(
            "flood of {flood} keys/s: {wrongly_denied} honest denied, abusers got {abuse} of {fair}, {:?}",
            limiter.counts()
        );
    }
}
