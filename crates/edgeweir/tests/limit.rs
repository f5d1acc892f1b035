//! The limiter's arithmetic against other people's tables and promises.

use core::time::Duration;

use edgeweir::limit::{Decision, Level, Quota};
use edgeweir::time::Instant;

/// The rows of `TestRateLimit` of the Go package `throttled` (BSD licence), as data: one
/// request a second, burst 5. Milliseconds, cost, remaining, reset and retry in
/// milliseconds, allowed.
#[test]
fn decisions_agree_with_the_table_of_throttled() {
    let quota = Quota::new(1, Duration::from_secs(1), 5).unwrap();
    let rows: [(u64, u32, u32, u64, Option<u64>, bool); 16] = [
        (0, 6, 5, 0, None, false),
        (0, 1, 4, 1000, None, true),
        (0, 1, 3, 2000, None, true),
        (0, 1, 2, 3000, None, true),
        (0, 1, 1, 4000, None, true),
        (0, 1, 0, 5000, None, true),
        (0, 1, 0, 5000, Some(1000), false),
        (3000, 1, 2, 3000, None, true),
        (3100, 1, 1, 3900, None, true),
        (4000, 1, 1, 4000, None, true),
        (8000, 1, 4, 1000, None, true),
        (9500, 1, 4, 1000, None, true),
        (9500, 0, 4, 1000, None, true),
        (9500, 2, 2, 3000, None, true),
        (9500, 5, 2, 3000, Some(3000), false),
        (15000, 6, 5, 0, None, false),
    ];
    let mut state = Instant::ZERO;
    for (row, (at, cost, remaining, reset, retry, allowed)) in rows.into_iter().enumerate() {
        let (decision, next) = quota.check(state, cost, Instant::from_nanos(at * 1_000_000));
        let level = Level { remaining, reset: Duration::from_millis(reset) };
        let expected = match retry {
            _ if allowed => Decision::Allow(level),
            Some(retry) => Decision::Deny { level, retry_after: Duration::from_millis(retry) },
            None => Decision::TooLarge(level),
        };
        assert_eq!(decision, expected, "row {row}");
        state = next;
    }
}
