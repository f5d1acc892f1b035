//! A circuit breaker: after too many failures calls are refused for a while, then a
//! few probes find out whether the target is back.
//!
//! ```text
//!            too many failures                  open time over
//!  closed ----------------------> open ----------------------------> half-open
//!    ^                             ^   a probe failed, or did not       |
//!    |                             +---- come back in time -------------+
//!    +---------------- every probe succeeded ---------------------------+
//! ```
//!
//! Outcomes are counted in a window of fixed memory: the last `n` calls, or the
//! last span of time in ten pieces. Each change of state begins a new *epoch*; a
//! call carries the epoch that admitted it, and the outcome of an older one changes
//! nothing. So a slow call from before the failure can neither close nor open it.

use alloc::vec::Vec;
use core::time::Duration;

use crate::random::Random;
use crate::time::Instant;

/// Which past calls count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// The last calls, 1 to 65,536 of them (more count as that), two bits each.
    Calls(u32),
    /// The calls of the last span, counted in ten pieces of it.
    Time(Duration),
}

/// When a breaker opens, and how it finds its way back.
///
/// Rates are in permille: 500 opens at half. A rate of 0 never opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerSettings {
    /// Which past calls count.
    pub window: Window,
    /// Rates are looked at only when the window has this many calls.
    pub minimum_calls: u32,
    /// Failed calls in the window that open it, in permille.
    pub failure_rate: u16,
    /// Slow calls in the window that open it, in permille.
    pub slow_rate: u16,
    /// A call that takes at least this long is slow, however it ended.
    pub slow_after: Duration,
    /// Failures in a row that open it; 0 for never.
    pub consecutive_failures: u32,
    /// How long it stays open the first time; doubles each time it opens again
    /// without having closed.
    pub open_for: Duration,
    /// The longest it stays open.
    pub open_at_most: Duration,
    /// How many probes are let through in the half-open state, no more, and how many
    /// must succeed; at least 1.
    pub probes: u32,
    /// A probe that has not come back after this long counts as failed.
    pub probe_timeout: Duration,
}

impl Default for BreakerSettings {
    /// Half of at least 20 calls within ten seconds, or ten failures in a row; open
    /// for 30 seconds up to ten minutes; three probes of at most 30 seconds.
    fn default() -> Self {
        Self {
            window: Window::Time(Duration::from_secs(10)),
            minimum_calls: 20,
            failure_rate: 500,
            slow_rate: 0,
            slow_after: Duration::from_secs(60),
            consecutive_failures: 10,
            open_for: Duration::from_secs(30),
            open_at_most: Duration::from_secs(600),
            probes: 3,
            probe_timeout: Duration::from_secs(30),
        }
    }
}

/// What a breaker lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Everything.
    Closed,
    /// Nothing, until a moment.
    Open {
        /// From when on probes are let through.
        until: Instant,
    },
    /// As many probes as are set.
    HalfOpen,
    /// Nothing, until somebody says otherwise.
    Isolated,
}

/// Leave to make one call; brought back with its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Permit {
    epoch: u64,
}

impl Permit {
    /// The epoch in which the call was admitted; an edge can keep a permit as this.
    #[must_use]
    pub const fn epoch(self) -> u64 {
        self.epoch
    }

    /// The permit of a call that was admitted in `epoch`.
    #[must_use]
    pub const fn of_epoch(epoch: u64) -> Self {
        Self { epoch }
    }
}

/// The answer to a call that must not go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// After this time a call may be let through as a probe; `None` if only
    /// [`Breaker::reset`] or the outcome of a probe can tell.
    pub retry_after: Option<Duration>,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As it should.
    Success,
    /// By the target's fault.
    Failure,
    /// By nobody's fault, or the caller's: counts for nothing.
    Ignored,
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BreakerCounts {
    /// Calls let through.
    pub admitted: u64,
    /// Calls refused.
    pub refused: u64,
    /// Outcomes of calls of an earlier epoch, which changed nothing.
    pub late: u64,
    /// How often it opened.
    pub opened: u64,
}

/// One target's breaker.
#[derive(Clone, Debug)]
pub struct Breaker {
    settings: BreakerSettings,
    state: State,
    epoch: u64,
    calls: Calls,
    failures_in_a_row: u32,
    // Openings since it was last closed.
    openings: u32,
    probes_out: u32,
    probes_done: u32,
    // When the last probe went out.
    probed_at: Instant,
    counts: BreakerCounts,
}

impl Breaker {
    /// A closed breaker.
    #[must_use]
    pub fn new(settings: BreakerSettings) -> Self {
        Self {
            settings,
            state: State::Closed,
            epoch: 0,
            calls: Calls::new(settings.window),
            failures_in_a_row: 0,
            openings: 0,
            probes_out: 0,
            probes_done: 0,
            probed_at: Instant::ZERO,
            counts: BreakerCounts::default(),
        }
    }

    /// The state at `now`: an open breaker whose time is over is half-open.
    pub fn state(&mut self, now: Instant, random: &mut Random) -> State {
        match self.state {
            State::Open { until } if until <= now => {
                self.change(State::HalfOpen);
            }
            // Probes that never come back must not keep everybody out for ever.
            State::HalfOpen
                if 0 < self.probes_out
                    && self.settings.probe_timeout <= now.since(self.probed_at) =>
            {
                self.open(now, random);
            }
            _ => {}
        }
        self.state
    }

    /// What happened so far.
    #[must_use]
    pub const fn counts(&self) -> BreakerCounts {
        self.counts
    }

    /// May a call go out?
    ///
    /// # Errors
    ///
    /// It must not: the breaker is open, or its probes are out.
    pub fn admit(&mut self, now: Instant, random: &mut Random) -> Result<Permit, Refused> {
        let retry_after = match self.state(now, random) {
            State::Closed => {
                self.counts.admitted = self.counts.admitted.saturating_add(1);
                return Ok(Permit { epoch: self.epoch });
            }
            State::HalfOpen if self.probes_out + self.probes_done < self.probes() => {
                self.probes_out += 1;
                self.probed_at = now;
                self.counts.admitted = self.counts.admitted.saturating_add(1);
                return Ok(Permit { epoch: self.epoch });
            }
            State::Open { until } => Some(until.since(now)),
            State::HalfOpen | State::Isolated => None,
        };
        self.counts.refused = self.counts.refused.saturating_add(1);
        Err(Refused { retry_after })
    }

    /// A call has ended after `took`. Gives whether that changed the state.
    pub fn record(
        &mut self,
        permit: Permit,
        outcome: Outcome,
        took: Duration,
        now: Instant,
        random: &mut Random,
    ) -> bool {
        if permit.epoch != self.epoch {
            self.counts.late = self.counts.late.saturating_add(1);
            return false;
        }
        match self.state {
            State::Closed => self.record_closed(outcome, took, now, random),
            State::HalfOpen => {
                // More outcomes than probes: a permit was brought back twice.
                if self.probes_out == 0 {
                    self.counts.late = self.counts.late.saturating_add(1);
                    return false;
                }
                self.probes_out -= 1;
                match outcome {
                    // A probe that says nothing makes room for another.
                    Outcome::Ignored => return false,
                    Outcome::Failure => self.open(now, random),
                    Outcome::Success => {
                        self.probes_done += 1;
                        if self.probes_done < self.probes() {
                            return false;
                        }
                        self.close();
                    }
                }
                true
            }
            State::Open { .. } | State::Isolated => false,
        }
    }

    fn record_closed(
        &mut self,
        outcome: Outcome,
        took: Duration,
        now: Instant,
        random: &mut Random,
    ) -> bool {
        let failed = match outcome {
            Outcome::Ignored => return false,
            Outcome::Success => false,
            Outcome::Failure => true,
        };
        let settings = self.settings;
        self.failures_in_a_row = if failed { self.failures_in_a_row.saturating_add(1) } else { 0 };
        let sum = self.calls.add(failed, settings.slow_after <= took, now);
        let over = |count: u32, rate: u16| {
            0 < rate && u64::from(sum.calls) * u64::from(rate) <= u64::from(count) * 1000
        };
        let enough = settings.minimum_calls.max(1) <= sum.calls;
        let in_a_row = settings.consecutive_failures;
        let opens = (enough
            && (over(sum.failed, settings.failure_rate) || over(sum.slow, settings.slow_rate)))
            || (0 < in_a_row && in_a_row <= self.failures_in_a_row);
        if opens {
            self.open(now, random);
        }
        opens
    }

    /// Closes it, whatever it was, and forgets the past.
    pub fn reset(&mut self) {
        self.close();
    }

    /// Opens it until [`Breaker::reset`].
    pub fn isolate(&mut self) {
        self.change(State::Isolated);
    }

    fn probes(&self) -> u32 {
        self.settings.probes.max(1)
    }

    fn close(&mut self) {
        self.openings = 0;
        self.change(State::Closed);
    }

    fn open(&mut self, now: Instant, random: &mut Random) {
        let factor = 1_u32.checked_shl(self.openings).unwrap_or(u32::MAX).max(1);
        let whole = self.settings.open_for.saturating_mul(factor).min(self.settings.open_at_most);
        // Up to a tenth longer, so that many breakers do not probe at one moment.
        let until = now.after(whole).after(random.duration_below(whole / 10));
        self.openings = self.openings.saturating_add(1).min(31);
        self.counts.opened = self.counts.opened.saturating_add(1);
        self.change(State::Open { until });
    }

    fn change(&mut self, state: State) {
        self.state = state;
        self.epoch = self.epoch.wrapping_add(1);
        self.calls.clear();
        self.failures_in_a_row = 0;
        self.probes_out = 0;
        self.probes_done = 0;
    }
}

/// How many calls there were, and of which kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sum {
    calls: u32,
    failed: u32,
    slow: u32,
}

impl Sum {
    fn add(&mut self, other: Self) {
        self.calls = self.calls.saturating_add(other.calls);
        self.failed = self.failed.saturating_add(other.failed);
        self.slow = self.slow.saturating_add(other.slow);
    }

    fn subtract(&mut self, other: Self) {
        self.calls = self.calls.saturating_sub(other.calls);
        self.failed = self.failed.saturating_sub(other.failed);
        self.slow = self.slow.saturating_sub(other.slow);
    }
}

/// The calls of a window, in fixed memory.
#[derive(Clone, Debug)]
struct Calls {
    kind: Window,
    // For a count: one for each of the last calls. For a time: one for each piece.
    ring: Vec<Sum>,
    at: usize,
    // For a time: the number of the piece that `at` stands for.
    piece: u64,
    sum: Sum,
}

const PIECES: usize = 10;

impl Calls {
    fn new(kind: Window) -> Self {
        let slots = match kind {
            Window::Calls(calls) => usize::try_from(calls.clamp(1, 65_536)).unwrap_or(1),
            Window::Time(_) => PIECES,
        };
        Self {
            kind,
            ring: alloc::vec![Sum::default(); slots],
            at: 0,
            piece: 0,
            sum: Sum::default(),
        }
    }

    fn clear(&mut self) {
        self.ring.fill(Sum::default());
        self.sum = Sum::default();
    }

    fn add(&mut self, failed: bool, slow: bool, now: Instant) -> Sum {
        let call = Sum { calls: 1, failed: u32::from(failed), slow: u32::from(slow) };
        match self.kind {
            Window::Calls(_) => self.step(),
            Window::Time(span) => {
                let nanos = (crate::time::nanos(span) / PIECES as u64).max(1);
                let piece = now.as_nanos() / nanos;
                // A clock that steps back adds to the newest piece.
                let steps = piece.saturating_sub(self.piece);
                for _ in 0..steps.min(PIECES as u64) {
                    self.step();
                }
                self.piece = self.piece.max(piece);
            }
        }
        if let Some(slot) = self.ring.get_mut(self.at) {
            slot.add(call);
        }
        self.sum.add(call);
        self.sum
    }

    /// Turns to the oldest place of the ring and empties it.
    fn step(&mut self) {
        self.at = (self.at + 1) % self.ring.len().max(1);
        if let Some(slot) = self.ring.get_mut(self.at) {
            self.sum.subtract(*slot);
            *slot = Sum::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    fn random() -> Random {
        Random::from_seed([3; 32])
    }

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    fn quick() -> BreakerSettings {
        BreakerSettings {
            window: Window::Calls(10),
            minimum_calls: 4,
            consecutive_failures: 0,
            open_for: Duration::from_millis(100),
            open_at_most: Duration::from_millis(1000),
            probe_timeout: Duration::from_millis(500),
            probes: 2,
            ..BreakerSettings::default()
        }
    }

    /// Makes calls that fail (`f`), succeed (`s`) or are ignored (`i`) at a moment.
    fn calls(breaker: &mut Breaker, outcomes: &str, now: Instant) {
        let random = &mut random();
        for outcome in outcomes.chars() {
            let Ok(permit) = breaker.admit(now, random) else { continue };
            let outcome = match outcome {
                'f' => Outcome::Failure,
                's' => Outcome::Success,
                _ => Outcome::Ignored,
            };
            breaker.record(permit, outcome, Duration::ZERO, now, random);
        }
    }

    #[test]
    fn it_opens_at_the_rate_and_not_before_the_minimum() {
        for (outcomes, opens) in [
            ("fff", false),
            ("ffff", true),
            ("sffs", true),
            ("sfss", false),
            ("sfsssssf", false),
            ("iiiiffii", false),
            // The window is the last ten: old successes are forgotten.
            ("ssssssssssssssssssssffff", false),
            ("ssssssssssssssssssssfffff", true),
        ] {
            let mut breaker = Breaker::new(quick());
            calls(&mut breaker, outcomes, at(1));
            let open = breaker.state(at(1), &mut random()) != State::Closed;
            assert_eq!(open, opens, "{outcomes}");
        }
    }

    #[test]
    fn slow_calls_open_it_too() {
        let settings =
            BreakerSettings { slow_rate: 500, slow_after: Duration::from_millis(9), ..quick() };
        let (mut breaker, random) = (Breaker::new(settings), &mut random());
        for took in [1, 9, 9, 1] {
            let permit = breaker.admit(at(1), random).unwrap();
            breaker.record(permit, Outcome::Success, Duration::from_millis(took), at(1), random);
        }
        assert!(matches!(breaker.state(at(1), random), State::Open { .. }));
    }

    #[test]
    fn half_open_admits_exactly_its_probes_and_closes_when_all_succeed() {
        let (mut breaker, random) = (Breaker::new(quick()), &mut random());
        calls(&mut breaker, "ffff", at(0));
        let refused = breaker.admit(at(50), random).unwrap_err();
        assert!(refused.retry_after.is_some_and(|wait| wait <= Duration::from_millis(60)));
        let now = at(200);
        let probes: Vec<_> = (0..20).filter_map(|_| breaker.admit(now, random).ok()).collect();
        assert_eq!(probes.len(), 2);
        assert!(!breaker.record(probes[0], Outcome::Success, Duration::ZERO, now, random));
        assert!(breaker.admit(now, random).is_err());
        assert!(breaker.record(probes[1], Outcome::Success, Duration::ZERO, now, random));
        assert_eq!(breaker.state(now, random), State::Closed);
    }

    #[test]
    fn a_failed_probe_opens_it_for_twice_as_long() {
        let (mut breaker, random) = (Breaker::new(quick()), &mut random());
        calls(&mut breaker, "ffff", at(0));
        let mut now = at(0);
        for expected in [200, 400, 800, 1000, 1000] {
            let State::Open { until } = breaker.state(now, random) else { panic!("not open") };
            now = until;
            calls(&mut breaker, "f", now);
            let State::Open { until } = breaker.state(now, random) else { panic!("not open") };
            let millis = until.since(now).as_millis();
            assert!((expected..=expected + expected / 10).contains(&millis), "{millis}");
        }
    }

    #[test]
    fn a_late_outcome_of_an_earlier_epoch_changes_nothing() {
        let (mut breaker, random) = (Breaker::new(quick()), &mut random());
        let old = breaker.admit(at(0), random).unwrap();
        calls(&mut breaker, "ffff", at(0));
        let now = at(200);
        let probe = breaker.admit(now, random).unwrap();
        assert!(!breaker.record(old, Outcome::Failure, Duration::ZERO, now, random));
        assert_eq!(breaker.state(now, random), State::HalfOpen);
        breaker.record(probe, Outcome::Success, Duration::ZERO, now, random);
        assert!(!breaker.record(old, Outcome::Success, Duration::ZERO, now, random));
        assert_eq!(breaker.state(now, random), State::HalfOpen);
        assert_eq!(breaker.counts().late, 2);
    }

    #[test]
    fn probes_that_never_come_back_do_not_hold_it_half_open_for_ever() {
        let (mut breaker, random) = (Breaker::new(quick()), &mut random());
        calls(&mut breaker, "ffff", at(0));
        assert!(breaker.admit(at(200), random).is_ok());
        assert!(breaker.admit(at(200), random).is_ok());
        assert!(breaker.admit(at(699), random).is_err());
        assert!(matches!(breaker.state(at(700), random), State::Open { .. }));
        assert!(breaker.admit(at(1000), random).is_ok());
    }

    #[test]
    fn an_isolated_breaker_stays_so_until_it_is_reset() {
        let (mut breaker, random) = (Breaker::new(quick()), &mut random());
        breaker.isolate();
        assert_eq!(breaker.admit(Instant::MAX, random), Err(Refused { retry_after: None }));
        breaker.reset();
        assert!(breaker.admit(at(0), random).is_ok());
    }

    #[test]
    fn a_clock_that_steps_back_neither_panics_nor_forgets() {
        let settings = BreakerSettings { window: Window::Time(Duration::from_secs(1)), ..quick() };
        let mut breaker = Breaker::new(settings);
        calls(&mut breaker, "ff", at(5000));
        calls(&mut breaker, "ff", at(0));
        assert_ne!(breaker.state(at(0), &mut random()), State::Closed);
    }

    proptest! {
        /// The window against a plain list of calls.
        #[test]
        fn a_window_counts_what_a_list_counts(
            span in prop_oneof![Just(None), Just(Some(1000_u64))],
            calls in prop::collection::vec((0_u64..300, any::<bool>(), any::<bool>()), 0..200),
        ) {
            let kind = span.map_or(Window::Calls(16), |span| Window::Time(Duration::from_millis(span)));
            let (mut window, mut list, mut now) = (Calls::new(kind), VecDeque::new(), 0);
            for (wait, failed, slow) in calls {
                now += wait;
                let sum = window.add(failed, slow, at(now));
                list.push_back((now / 100, failed, slow));
                match span {
                    None => while list.len() > 16 { list.pop_front(); },
                    Some(_) => list.retain(|(piece, ..)| now / 100 < piece + 10),
                }
                let count = |of: fn(&(u64, bool, bool)) -> bool| {
                    u32::try_from(list.iter().filter(|call| of(call)).count()).unwrap()
                };
                prop_assert_eq!(sum, Sum { calls: count(|_| true), failed: count(|c| c.1), slow: count(|c| c.2) });
            }
        }

        /// However calls come and go, no more probes are out than are set, and an open
        /// breaker always becomes half-open.
        #[test]
        fn never_more_probes_than_set_and_never_stuck(
            steps in prop::collection::vec((0_u64..400, 0_u8..5, any::<prop::sample::Index>()), 0..300),
        ) {
            let (mut breaker, random) = (Breaker::new(quick()), &mut random());
            let (mut out, mut now): (Vec<Permit>, u64) = (Vec::new(), 0);
            for (wait, what, which) in steps {
                now += wait;
                match what {
                    0 | 1 => {
                        if let Ok(permit) = breaker.admit(at(now), random) {
                            out.push(permit);
                            if breaker.state == State::HalfOpen {
                                let probes = out.iter().filter(|p| p.epoch == breaker.epoch).count();
                                prop_assert!(probes <= 2);
                            }
                        }
                    }
                    _ if out.is_empty() => {}
                    2 | 3 => {
                        let permit = out.swap_remove(which.index(out.len()));
                        let outcome = if what == 2 { Outcome::Failure } else { Outcome::Success };
                        breaker.record(permit, outcome, Duration::ZERO, at(now), random);
                    }
                    // A caller that forgets its permit.
                    _ => drop(out.swap_remove(which.index(out.len()))),
                }
            }
            let later = at(now).after(Duration::from_secs(10));
            breaker.state(later, random);
            let state = breaker.state(later.after(Duration::from_secs(10)), random);
            prop_assert!(matches!(state, State::Closed | State::HalfOpen), "{state:?}");
        }
    }
}
