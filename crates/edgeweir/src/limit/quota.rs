//! The Generic Cell Rate Algorithm (ITU-T I.371): one request against one key.
//!
//! A key's whole state is one [`Instant`], its theoretical arrival time (TAT). The
//! time between the TAT and now is how much of the burst is used; nothing has to
//! tick between requests. A key that was never seen has the state
//! [`Instant::ZERO`], and so has one whose state was lost: a full bucket.
//!
//! What is promised: in any span of length `w`, at most `burst + w / interval`
//! requests pass. Users who must never exceed `q` in any `w` want
//! [`Quota::strict`].

use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use crate::time::{Instant, nanos};

/// A state further ahead of now than twice the burst and this much comes from a
/// clock that jumped back: the key then starts anew, from an empty bucket.
const CLOCK_FAULT: u64 = 3_600_000_000_000;

/// The shortest interval: one request each microsecond. Intervals are whole
/// nanoseconds, rounded up, so a rate is met within one part in a thousand and
/// never exceeded.
const MIN_INTERVAL: u64 = 1_000;

/// The longest time in which a full burst may come back: ten years.
const MAX_REFILL: u64 = 10 * 365 * 86_400 * 1_000_000_000;

/// How many requests a key may make: `burst` at once, then one each `interval`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quota {
    // Nanoseconds, at least MIN_INTERVAL.
    interval: u64,
    // At least 1, and interval * burst is at most MAX_REFILL.
    burst: u32,
    // As configured, for the header fields that tell it.
    requests: u32,
    window: u64,
}

/// A quota that cannot be: which part, and what would be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuotaError {
    /// No requests at all; to refuse everything, use a deny list.
    #[error("requests: must be at least 1, got 0")]
    NoRequests,
    /// A period of zero.
    #[error("per: must be longer than 0")]
    NoTime,
    /// A burst of zero admits nothing, ever.
    #[error("burst: must be at least 1, got 0")]
    NoBurst,
    /// More than a million requests each second.
    #[error("requests: must be at most {most} in this time (one each microsecond), got {requests}")]
    TooFast {
        /// What was asked.
        requests: u32,
        /// What would be accepted.
        most: u64,
    },
    /// A burst that takes more than ten years to come back.
    #[error("burst: must come back within ten years, got one that takes {days} days")]
    TooSlow {
        /// How long a full burst would take, in days.
        days: u64,
    },
    /// A strict quota whose burst is larger than the quota.
    #[error("burst: must be at most requests ({requests}) in a strict window, got {burst}")]
    StrictBurst {
        /// The quota.
        requests: u32,
        /// The burst at fault.
        burst: u32,
    },
}

/// How much of a quota is left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Level {
    /// Requests (of cost 1) that would pass now, one after the other.
    pub remaining: u32,
    /// Time until the whole burst is back, if nothing else is spent.
    pub reset: Duration,
}

/// The answer to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The request passes, and its cost is spent.
    Allow(Level),
    /// The request does not pass, and costs nothing.
    Deny {
        /// What is left for requests of a lower cost.
        level: Level,
        /// After this time the same request passes, if nothing else is spent.
        /// One nanosecond earlier it does not.
        retry_after: Duration,
    },
    /// The cost is larger than the burst: this request can never pass.
    TooLarge(Level),
}

impl Decision {
    /// Whether the request passes.
    #[must_use]
    pub const fn is_allowed(self) -> bool {
        matches!(self, Self::Allow(_))
    }

    /// What is left after this decision.
    #[must_use]
    pub const fn level(self) -> Level {
        match self {
            Self::Allow(level) | Self::Deny { level, .. } | Self::TooLarge(level) => level,
        }
    }

    /// When to try again; `None` if the request passed or never can.
    #[must_use]
    pub const fn retry_after(self) -> Option<Duration> {
        match self {
            Self::Deny { retry_after, .. } => Some(retry_after),
            Self::Allow(_) | Self::TooLarge(_) => None,
        }
    }
}

impl Quota {
    /// `requests` each `per` in the long run, and up to `burst` at once.
    ///
    /// In any span of length `per` this passes up to `burst + requests` requests.
    ///
    /// # Errors
    ///
    /// A part that is zero, more than one request each microsecond, or a burst that
    /// takes more than ten years to come back.
    pub fn new(requests: u32, per: Duration, burst: u32) -> Result<Self, QuotaError> {
        if requests == 0 {
            return Err(QuotaError::NoRequests);
        }
        let window = nanos(per);
        if window == 0 {
            return Err(QuotaError::NoTime);
        }
        if burst == 0 {
            return Err(QuotaError::NoBurst);
        }
        let interval = window.div_ceil(u64::from(requests));
        if interval < MIN_INTERVAL {
            return Err(QuotaError::TooFast { requests, most: window / MIN_INTERVAL });
        }
        let refill = interval.saturating_mul(u64::from(burst));
        if MAX_REFILL < refill {
            return Err(QuotaError::TooSlow { days: refill / 86_400_000_000_000 });
        }
        Ok(Self { interval, burst, requests, window })
    }

    /// Never more than `requests` in any span of length `per`, half open, wherever it
    /// starts; up to `burst` of them at once.
    ///
    /// The price is the long-run rate, `requests + 1 - burst` each `per`: a burst
    /// of 1 gives evenly spaced requests at the full rate; a burst of half the
    /// requests gives about half the rate. (`n` requests that pass lie in slots
    /// `interval` apart, all within `per` and the burst's tolerance, so
    /// `n ≤ ⌈per / interval⌉ + burst - 1`.)
    ///
    /// # Errors
    ///
    /// As [`Quota::new`], and a burst above `requests`.
    pub fn strict(requests: u32, per: Duration, burst: u32) -> Result<Self, QuotaError> {
        if requests != 0 && requests < burst {
            return Err(QuotaError::StrictBurst { requests, burst });
        }
        let spaced = requests.saturating_sub(burst.saturating_sub(1));
        let quota = Self::new(spaced, per, burst)?;
        Ok(Self { requests, ..quota })
    }

    /// The time between two requests at the long-run rate.
    #[must_use]
    pub const fn interval(self) -> Duration {
        Duration::from_nanos(self.interval)
    }

    /// How many requests pass at once after a long pause.
    #[must_use]
    pub const fn burst(self) -> u32 {
        self.burst
    }

    /// The requests of the quota, as configured.
    #[must_use]
    pub const fn requests(self) -> u32 {
        self.requests
    }

    /// The time span of the quota, as configured.
    #[must_use]
    pub const fn per(self) -> Duration {
        Duration::from_nanos(self.window)
    }

    pub(super) const fn interval_nanos(self) -> u64 {
        self.interval
    }

    /// How far ahead of now a state may be for a request of cost 1 to pass, in
    /// nanoseconds. (The tolerance τ of the algorithm.)
    pub(super) const fn tolerance(self) -> u64 {
        self.interval.saturating_mul(self.burst.saturating_sub(1) as u64)
    }

    /// How long `cost` requests take at the long-run rate, in nanoseconds.
    const fn span(self, cost: u32) -> u64 {
        self.interval.saturating_mul(cost as u64)
    }

    /// Whether no working clock can have left `state`.
    pub(super) const fn is_clock_fault(self, state: Instant, now: Instant) -> bool {
        let most = self.span(self.burst).saturating_mul(2).saturating_add(CLOCK_FAULT);
        most < state.as_nanos().saturating_sub(now.as_nanos())
    }

    /// The state as of `now`: never before it.
    ///
    /// A clock that steps back by less than an hour means that no time passed: nothing
    /// comes back until it has caught up. After a larger step the old state says
    /// nothing; an empty bucket is the safe guess.
    pub(super) fn settled(self, state: Instant, now: Instant) -> Instant {
        if self.is_clock_fault(state, now) {
            return now.after(Duration::from_nanos(self.span(self.burst)));
        }
        state.max(now)
    }

    /// Decides a request of `cost` at `now` and gives the state to store.
    ///
    /// A cost of 0 passes whenever the state is legal, and changes nothing.
    #[must_use]
    pub fn check(self, state: Instant, cost: u32, now: Instant) -> (Decision, Instant) {
        let base = self.settled(state, now);
        if self.burst < cost {
            return (Decision::TooLarge(self.level(base, now)), base);
        }
        if let Some(retry_after) = self.wait(base, cost, now) {
            return (Decision::Deny { level: self.level(base, now), retry_after }, base);
        }
        let next = base.after(Duration::from_nanos(self.span(cost)));
        (Decision::Allow(self.level(next, now)), next)
    }

    /// How long a request of `cost` must wait; `None` if it need not.
    pub(super) fn wait(self, base: Instant, cost: u32, now: Instant) -> Option<Duration> {
        if cost == 0 {
            return None;
        }
        let lead = base.as_nanos().saturating_sub(now.as_nanos());
        let last = lead.saturating_add(self.span(cost.saturating_sub(1)));
        let wait = last.saturating_sub(self.tolerance());
        (0 < wait).then_some(Duration::from_nanos(wait))
    }

    /// What is left at `now`.
    #[must_use]
    pub fn level(self, state: Instant, now: Instant) -> Level {
        let lead = self.settled(state, now).as_nanos().saturating_sub(now.as_nanos());
        let left = self.span(self.burst).saturating_sub(lead) / self.interval;
        Level {
            remaining: u32::try_from(left).unwrap_or(u32::MAX),
            reset: Duration::from_nanos(lead),
        }
    }

    /// Spends `cost` without asking: for a cost that is known only afterwards.
    ///
    /// The key may end up in debt, by one burst at most; it is denied until the debt
    /// is paid.
    #[must_use]
    pub fn charge(self, state: Instant, cost: u32, now: Instant) -> Instant {
        let base = self.settled(state, now);
        let most = now.after(Duration::from_nanos(self.span(self.burst).saturating_mul(2)));
        base.after(Duration::from_nanos(self.span(cost))).min(most.max(base))
    }

    /// Gives back `cost` that was spent for nothing; never beyond a full bucket.
    #[must_use]
    pub fn refund(self, state: Instant, cost: u32, now: Instant) -> Instant {
        self.settled(state, now).before(Duration::from_nanos(self.span(cost))).max(now)
    }

    /// The state under this quota of a key that had `state` under `old`.
    ///
    /// What was left stays, cut to the new burst; nothing is refilled. A debt stays too.
    #[must_use]
    pub fn carry_over(self, old: Self, state: Instant, now: Instant) -> Instant {
        let lead = old.settled(state, now).as_nanos().saturating_sub(now.as_nanos());
        let (full, debt) = (old.span(old.burst), lead.saturating_sub(old.span(old.burst)));
        // In new nanoseconds, rounded so that the key never gains.
        let left = u128::from(full.saturating_sub(lead)) * u128::from(self.interval);
        let left = u64::try_from(left / u128::from(old.interval)).unwrap_or(u64::MAX);
        let owed = u128::from(debt) * u128::from(self.interval);
        let owed = u64::try_from(owed.div_ceil(u128::from(old.interval))).unwrap_or(u64::MAX);
        let full = self.span(self.burst);
        let lead = full.saturating_sub(left).saturating_add(owed.min(full));
        now.after(Duration::from_nanos(lead))
    }
}

/// One or several quotas that a request must all meet: "10 a second and 1000 a day".
///
/// All or nothing: a request that one quota denies is charged to none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Limit {
    // 1 to MAX_QUOTAS of them.
    quotas: Vec<Quota>,
}

/// A limit that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LimitError {
    /// None, or too many.
    #[error("quotas: must be 1 to {} of them, got {}", Limit::MAX_QUOTAS, .0)]
    Quotas(usize),
}

impl From<Quota> for Limit {
    fn from(quota: Quota) -> Self {
        Self { quotas: vec![quota] }
    }
}

impl Limit {
    /// The most quotas in one limit.
    pub const MAX_QUOTAS: usize = 4;

    /// A limit of several quotas, in the order in which they are shown to clients.
    ///
    /// # Errors
    ///
    /// None, or more than [`Limit::MAX_QUOTAS`].
    pub fn new(quotas: Vec<Quota>) -> Result<Self, LimitError> {
        if quotas.is_empty() || Self::MAX_QUOTAS < quotas.len() {
            return Err(LimitError::Quotas(quotas.len()));
        }
        Ok(Self { quotas })
    }

    /// The quotas, at least one.
    #[must_use]
    pub fn quotas(&self) -> &[Quota] {
        &self.quotas
    }

    /// The one quota, if there is only one.
    pub(super) fn single(&self) -> Option<Quota> {
        match self.quotas.as_slice() {
            [quota] => Some(*quota),
            _ => None,
        }
    }

    /// The largest cost that can ever pass.
    #[must_use]
    pub fn max_cost(&self) -> u32 {
        self.quotas.iter().map(|quota| quota.burst).min().unwrap_or(0)
    }

    /// The level of the quota that is nearest to its end.
    pub(super) fn tightest(levels: impl Iterator<Item = Level>) -> Level {
        levels
            .min_by_key(|level| (level.remaining, core::cmp::Reverse(level.reset)))
            .unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    fn quota(requests: u32, per_ms: u64, burst: u32) -> Quota {
        Quota::new(requests, Duration::from_millis(per_ms), burst).unwrap()
    }

    fn ms(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    /// Runs `(ms, cost, allowed?)` against one key.
    fn check(quota: Quota, requests: &[(u64, u32, bool)]) {
        let mut state = Instant::ZERO;
        for (row, &(at, cost, allowed)) in requests.iter().enumerate() {
            let (decision, next) = quota.check(state, cost, ms(at));
            assert_eq!(decision.is_allowed(), allowed, "row {row}: {decision:?}");
            state = next;
        }
    }

    #[test]
    fn a_burst_passes_at_once_and_then_one_each_interval() {
        check(
            quota(2, 1000, 3),
            &[
                (1_000, 1, true),
                (1_000, 1, true),
                (1_000, 1, true),
                (1_000, 1, false),
                (1_499, 1, false),
                (1_500, 1, true),
                (1_500, 1, false),
                (9_000, 3, true),
                (9_000, 1, false),
            ],
        );
    }

    #[test]
    fn a_clock_that_steps_back_neither_panics_nor_refills() {
        check(quota(1, 1000, 1), &[(5_000, 1, true), (4_000, 1, false), (6_000, 1, true)]);
    }

    #[test]
    fn a_clock_that_jumps_far_back_leaves_an_empty_bucket_not_a_year_of_denials() {
        let year = 365 * 86_400_000;
        check(quota(1, 1000, 2), &[(year, 1, true), (5_000, 1, false), (6_000, 1, true)]);
    }

    #[test]
    fn a_cost_above_the_burst_never_passes_and_costs_nothing() {
        let (decision, state) = quota(1, 1000, 5).check(Instant::ZERO, 6, ms(1));
        let level = Level { remaining: 5, reset: Duration::ZERO };
        assert_eq!(decision, Decision::TooLarge(level));
        assert_eq!(state, ms(1));
    }

    #[test]
    fn quotas_that_cannot_be_say_what_would() {
        let minute = Duration::from_secs(60);
        let table = [
            (Quota::new(0, minute, 1), "requests: must be at least 1, got 0"),
            (Quota::new(1, Duration::ZERO, 1), "per: must be longer than 0"),
            (Quota::new(1, minute, 0), "burst: must be at least 1, got 0"),
            (
                Quota::new(2_000_000, Duration::from_secs(1), 1),
                "requests: must be at most 1000000 in this time (one each microsecond), \
                 got 2000000",
            ),
            (
                Quota::new(1, Duration::from_secs(86_400), 4_000),
                "burst: must come back within ten years, got one that takes 4000 days",
            ),
            (
                Quota::strict(5, minute, 6),
                "burst: must be at most requests (5) in a strict window, got 6",
            ),
            (Quota::strict(0, minute, 1), "requests: must be at least 1, got 0"),
            (Quota::strict(3, minute, 0), "burst: must be at least 1, got 0"),
        ];
        for (quota, message) in table {
            assert_eq!(quota.unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn a_cost_known_afterwards_makes_a_debt_of_one_burst_at_most() {
        let quota = quota(1, 1000, 10);
        let now = ms(50_000);
        let state = quota.charge(Instant::ZERO, 25, now);
        assert_eq!(state, ms(70_000));
        assert_eq!(quota.level(state, now).remaining, 0);
        let (decision, _) = quota.check(state, 1, now);
        assert_eq!(decision.retry_after(), Some(Duration::from_secs(11)));
        // And what was reserved in vain comes back, up to the burst.
        assert_eq!(quota.refund(state, 15, now), ms(55_000));
        assert_eq!(quota.refund(state, u32::MAX, now), now);
    }

    #[test]
    fn another_quota_refills_nothing() {
        let (small, large) = (quota(10, 1000, 10), quota(100, 1000, 1000));
        let now = ms(1_000);
        let spent = small.check(Instant::ZERO, 7, now).1;
        let raised = large.carry_over(small, spent, now);
        assert_eq!(large.level(raised, now).remaining, 3);
        let lowered = small.carry_over(large, Instant::ZERO, now);
        assert_eq!(small.level(lowered, now).remaining, 10);
        let same = small.carry_over(small, spent, now);
        assert_eq!(same, spent);
    }

    #[test]
    fn several_quotas_are_one_to_four() {
        let one = quota(1, 1, 1);
        assert_eq!(Limit::new(vec![]), Err(LimitError::Quotas(0)));
        assert_eq!(Limit::new(vec![one; 5]), Err(LimitError::Quotas(5)));
        assert_eq!(Limit::new(vec![one; 4]).unwrap().quotas().len(), 4);
        assert_eq!(LimitError::Quotas(5).to_string(), "quotas: must be 1 to 4 of them, got 5");
    }
}
