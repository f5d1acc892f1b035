//! A database and its borrowers against the pool.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

fn millis(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn at(n: u64) -> Instant {
    Instant::ZERO.after(millis(n))
}

fn random() -> Random {
    Random::from_seed([5; 32])
}

fn settings() -> PoolSettings {
    PoolSettings {
        min: 0,
        max: 3,
        max_waiters: 50,
        connect_timeout: millis(1000),
        validate_timeout: millis(200),
        validate_after: millis(500),
        keepalive: Duration::MAX,
        idle_timeout: millis(10_000),
        max_lifetime: Duration::MAX,
        max_uses: 0,
        backoff: millis(100),
        backoff_at_most: millis(1000),
        leak_after: Duration::MAX,
    }
}

fn actions(pool: &mut Connections) -> Vec<Action> {
    core::iter::from_fn(|| pool.next_action()).collect()
}

/// A pool with `n` idle connections at the time 0.
fn with_idle(n: usize, settings: PoolSettings) -> (Connections, Vec<Connection>) {
    let mut pool = Connections::new(settings);
    let mut leases = Vec::new();
    for _ in 0..n {
        assert!(matches!(pool.acquire(0, Instant::MAX, at(0)), Acquired::Waiting(_)));
        let opening = actions(&mut pool);
        let [Action::Open(connection)] = opening[..] else { panic!("{opening:?}") };
        pool.opened(connection, at(0), &mut random());
        let granted = actions(&mut pool);
        let [Action::Grant(_, _, lease)] = granted[..] else { panic!("{granted:?}") };
        leases.push((connection, lease));
    }
    for (_, lease) in &leases {
        pool.release(*lease, false, at(0)).unwrap();
    }
    (pool, leases.into_iter().map(|(connection, _)| connection).collect())
}

#[test]
fn a_lease_given_back_twice_changes_nothing() {
    let (mut pool, _) = with_idle(1, settings());
    let Acquired::Granted(connection, lease) = pool.acquire(0, at(9), at(1)) else { panic!() };
    pool.release(lease, false, at(2)).unwrap();
    let Acquired::Granted(again, next) = pool.acquire(0, at(9), at(3)) else { panic!() };
    assert_eq!((again, next == lease), (connection, false));
    assert_eq!(pool.release(lease, false, at(4)), Err(StaleLease));
    assert_eq!(pool.release(Lease::from_number(u64::MAX), true, at(4)), Err(StaleLease));
    assert_eq!((pool.counts().idle, pool.counts().leased, pool.counts().stale), (0, 1, 2));
}

#[test]
fn twenty_who_want_one_open_no_more_than_max() {
    let mut pool = Connections::new(settings());
    for _ in 0..20 {
        assert!(matches!(pool.acquire(0, at(100), at(0)), Acquired::Waiting(_)));
    }
    let opening = actions(&mut pool);
    assert_eq!(opening.len(), 3, "{opening:?}");
    assert_eq!(pool.counts().total, 3);
}

#[test]
fn waiters_are_served_by_priority_then_by_arrival() {
    let (mut pool, _) = with_idle(1, PoolSettings { max: 1, ..settings() });
    let Acquired::Granted(_, mut lease) = pool.acquire(0, at(9), at(1)) else { panic!() };
    let mut waiters = Vec::new();
    for priority in [0, 7, 0, 7, 255] {
        let Acquired::Waiting(waiter) = pool.acquire(priority, at(99), at(1)) else { panic!() };
        waiters.push(waiter);
    }
    for expected in [4, 1, 3, 0, 2] {
        pool.release(lease, false, at(2)).unwrap();
        let granted = actions(&mut pool);
        let [Action::Grant(waiter, _, next)] = granted[..] else { panic!("{granted:?}") };
        assert_eq!(waiter, waiters[expected]);
        lease = next;
    }
}

#[test]
fn a_connection_idle_for_long_is_tested_before_it_is_lent() {
    let (mut pool, connections) = with_idle(2, settings());
    assert!(matches!(pool.acquire(0, at(5000), at(600)), Acquired::Waiting(_)));
    assert!(matches!(pool.acquire(0, at(5000), at(600)), Acquired::Waiting(_)));
    let tests = actions(&mut pool);
    assert_eq!(tests, [Action::Validate(connections[1]), Action::Validate(connections[0])]);
    pool.validated(connections[1], true, at(601));
    let granted = actions(&mut pool);
    assert!(matches!(granted[..], [Action::Grant(_, c, _)] if c == connections[1]), "{granted:?}");
    pool.validated(connections[0], false, at(601));
    let replaced = actions(&mut pool);
    assert!(
        matches!(replaced[..], [Action::Close(c, Reason::Broken), Action::Open(_)] if c == connections[0]),
        "{replaced:?}"
    );
}

#[test]
fn a_test_that_does_not_end_is_a_broken_connection() {
    let (mut pool, connections) = with_idle(1, settings());
    pool.acquire(0, at(5000), at(600));
    assert_eq!(actions(&mut pool), [Action::Validate(connections[0])]);
    assert_eq!(pool.deadline(), at(800));
    pool.handle_deadline(at(800), &mut random());
    let replaced = actions(&mut pool);
    assert!(matches!(replaced[..], [Action::Close(..), Action::Open(_)]), "{replaced:?}");
}

#[test]
fn while_the_target_is_down_one_connection_is_tried_at_a_time_and_later_each_time() {
    let (mut pool, random) = (Connections::new(settings()), &mut random());
    for _ in 0..10 {
        pool.acquire(0, at(60_000), at(0));
    }
    let mut now = 0;
    for action in actions(&mut pool) {
        let Action::Open(connection) = action else { panic!("{action:?}") };
        pool.failed(connection, at(now), random);
    }
    let mut waits = Vec::new();
    for _ in 0..6 {
        assert_eq!(actions(&mut pool), []);
        let next = pool.deadline().since(at(now));
        waits.push(next);
        now += u64::try_from(next.as_millis()).unwrap() + 1;
        pool.handle_deadline(at(now), random);
        let tried = actions(&mut pool);
        let [Action::Open(connection)] = tried[..] else { panic!("{tried:?}") };
        pool.failed(connection, at(now), random);
    }
    assert!(waits[4..].iter().all(|wait| (millis(490)..=millis(1001)).contains(wait)), "{waits:?}");
    // The first that opens brings the others at once.
    pool.handle_deadline(at(now + 2000), random);
    let tried = actions(&mut pool);
    let [Action::Open(connection)] = tried[..] else { panic!("{tried:?}") };
    pool.opened(connection, at(now + 2000), random);
    let after = actions(&mut pool);
    assert!(
        matches!(after[..], [Action::Grant(..), Action::Open(_), Action::Open(_)]),
        "{after:?}"
    );
}

#[test]
fn a_waiter_learns_whether_the_pool_was_busy_or_the_target_down() {
    let (mut busy, _) = with_idle(1, PoolSettings { max: 1, ..settings() });
    busy.acquire(0, at(9), at(1));
    let Acquired::Waiting(waiter) = busy.acquire(0, at(50), at(1)) else { panic!() };
    assert_eq!(busy.deadline(), at(50));
    busy.handle_deadline(at(50), &mut random());
    assert_eq!(actions(&mut busy), [Action::Fail(waiter, Failure::Busy)]);

    let mut down = Connections::new(settings());
    let Acquired::Waiting(waiter) = down.acquire(0, at(50), at(0)) else { panic!() };
    let opening = actions(&mut down);
    let [Action::Open(connection)] = opening[..] else { panic!() };
    down.failed(connection, at(1), &mut random());
    down.handle_deadline(at(50), &mut random());
    assert_eq!(actions(&mut down), [Action::Fail(waiter, Failure::Down)]);
}

#[test]
fn what_is_idle_too_old_or_used_up_is_closed() {
    let (mut pool, _) = with_idle(3, PoolSettings { min: 1, ..settings() });
    pool.handle_deadline(at(10_000), &mut random());
    let closed = actions(&mut pool);
    assert_eq!(closed.len(), 2, "min stays: {closed:?}");
    assert!(closed.iter().all(|a| matches!(a, Action::Close(_, Reason::Idle))));

    let (mut pool, _) = with_idle(1, PoolSettings { max_uses: 2, ..settings() });
    let Acquired::Granted(_, lease) = pool.acquire(0, at(9), at(1)) else { panic!() };
    pool.release(lease, false, at(1)).unwrap();
    assert!(matches!(actions(&mut pool)[..], [Action::Close(_, Reason::Uses)]));

    let (mut pool, _) = with_idle(1, PoolSettings { max_lifetime: millis(1000), ..settings() });
    assert!((at(900)..=at(1000)).contains(&pool.deadline()));
    pool.handle_deadline(at(1000), &mut random());
    assert!(matches!(actions(&mut pool)[..], [Action::Close(_, Reason::Lifetime)]));
}

#[test]
fn a_keepalive_tests_idle_connections_and_a_long_loan_is_reported_once() {
    let (mut pool, connections) =
        with_idle(1, PoolSettings { keepalive: millis(300), ..settings() });
    pool.handle_deadline(at(300), &mut random());
    assert_eq!(actions(&mut pool), [Action::Validate(connections[0])]);
    pool.validated(connections[0], true, at(310));
    assert_eq!(pool.counts().idle, 1);

    let (mut pool, _) = with_idle(1, PoolSettings { leak_after: millis(100), ..settings() });
    let Acquired::Granted(connection, lease) = pool.acquire(0, at(9), at(1)) else { panic!() };
    for now in [101, 150, 300] {
        pool.handle_deadline(at(now), &mut random());
    }
    assert_eq!(actions(&mut pool), [Action::Leak(connection, lease)]);
}

#[test]
fn a_drain_settles_every_waiter_and_ends_when_the_last_loan_does() {
    let (mut pool, _) = with_idle(2, PoolSettings { max: 2, ..settings() });
    let Acquired::Granted(_, a) = pool.acquire(0, at(9), at(1)) else { panic!() };
    let Acquired::Granted(_, b) = pool.acquire(0, at(9), at(1)) else { panic!() };
    let Acquired::Waiting(waiter) = pool.acquire(0, at(9), at(1)) else { panic!() };
    pool.drain();
    assert_eq!(actions(&mut pool), [Action::Fail(waiter, Failure::Draining)]);
    assert_eq!(pool.acquire(0, at(9), at(1)), Acquired::Draining);
    pool.release(a, false, at(2)).unwrap();
    assert!(!pool.is_drained());
    pool.revoke();
    assert!(pool.is_drained());
    assert_eq!(pool.release(b, false, at(3)), Err(StaleLease));
}

#[test]
fn an_opening_that_was_given_up_keeps_its_place_until_it_ends() {
    let (mut pool, random) =
        (Connections::new(PoolSettings { max: 1, ..settings() }), &mut random());
    pool.acquire(0, at(60_000), at(0));
    let opening = actions(&mut pool);
    let [Action::Open(connection)] = opening[..] else { panic!() };
    pool.handle_deadline(at(1000), random);
    assert_eq!((actions(&mut pool), pool.counts().total), (Vec::new(), 1));
    pool.opened(connection, at(1500), random);
    let then = actions(&mut pool);
    assert!(matches!(then[..], [Action::Close(_, Reason::Timeout), Action::Open(_)]), "{then:?}");
}

/// What the edge and the database know, told only through actions.
#[derive(Default)]
struct World {
    opening: Vec<Connection>,
    testing: Vec<Connection>,
    open: BTreeSet<Connection>,
    // Who holds what, by our own books.
    loans: BTreeMap<Lease, Connection>,
    waiting: BTreeMap<Waiter, u64>,
    order: VecDeque<Waiter>,
}

impl World {
    fn carry_out(&mut self, pool: &mut Connections) -> Result<(), TestCaseError> {
        while let Some(action) = pool.next_action() {
            match action {
                Action::Open(c) => self.opening.push(c),
                Action::Validate(c) => {
                    prop_assert!(self.open.contains(&c));
                    prop_assert!(!self.loans.values().any(|lent| *lent == c));
                    self.testing.push(c);
                }
                Action::Close(c, _) => {
                    prop_assert!(self.open.remove(&c), "closed what was not open");
                    prop_assert!(!self.loans.values().any(|lent| *lent == c), "closed in use");
                    self.testing.retain(|t| *t != c);
                }
                Action::Grant(w, c, lease) => {
                    prop_assert_eq!(self.order.pop_front(), Some(w), "not the first in line");
                    prop_assert!(self.waiting.remove(&w).is_some());
                    self.lend(c, lease)?;
                }
                Action::Fail(w, _) => {
                    prop_assert!(self.waiting.remove(&w).is_some());
                    self.order.retain(|other| *other != w);
                }
                Action::Leak(c, lease) => prop_assert_eq!(self.loans.get(&lease), Some(&c)),
            }
        }
        Ok(())
    }

    fn lend(&mut self, c: Connection, lease: Lease) -> Result<(), TestCaseError> {
        prop_assert!(self.open.contains(&c));
        prop_assert!(!self.testing.contains(&c));
        prop_assert!(!self.loans.values().any(|lent| *lent == c), "in two hands");
        prop_assert!(self.loans.insert(lease, c).is_none(), "a lease twice");
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if option_env!("EDGEWEIR_DEEP").is_some() { 20_000 } else { 1000 }))]

    /// Random borrowers, a target that fails, hangs and comes back, against every
    /// invariant of the module.
    #[test]
    fn the_invariants_hold_whatever_happens(
        max in 1_u32..5,
        min in 0_u32..3,
        steps in prop::collection::vec((0_u64..400, 0_u8..10, any::<prop::sample::Index>()), 1..200),
    ) {
        let settings = PoolSettings {
            min, max, max_waiters: 5, max_uses: 7, keepalive: millis(900),
            idle_timeout: millis(1500), max_lifetime: millis(5000), leak_after: millis(2000), ..settings()
        };
        let (mut pool, mut world, random) = (Connections::new(settings), World::default(), &mut random());
        let mut now = 0;
        pool.fill(at(now));
        for (wait, what, which) in steps {
            // The edge's timer: every deadline on the way is handled on time.
            let end = now + wait;
            loop {
                let due = pool.deadline();
                if at(end) < due { break; }
                let due = due.max(at(now));
                now = due.as_nanos().div_ceil(1_000_000).max(now);
                pool.handle_deadline(at(now), random);
                world.carry_out(&mut pool)?;
                prop_assert!(at(now) < pool.deadline(), "a deadline that is not handled");
            }
            now = end;
            let pick = |n: usize| which.index(n);
            match what {
                0..=2 => match pool.acquire(0, at(now + 1200), at(now)) {
                    Acquired::Granted(c, lease) => {
                        prop_assert!(world.waiting.is_empty(), "passed those who wait");
                        world.lend(c, lease)?;
                    }
                    Acquired::Waiting(w) => {
                        world.waiting.insert(w, now + 1200);
                        world.order.push_back(w);
                    }
                    Acquired::Full => prop_assert_eq!(world.waiting.len(), 5),
                    Acquired::Draining => prop_assert!(false),
                },
                3..=4 if !world.loans.is_empty() => {
                    let lease = *world.loans.keys().nth(pick(world.loans.len())).unwrap();
                    world.loans.remove(&lease);
                    prop_assert!(pool.release(lease, pick(9) == 0, at(now)).is_ok());
                    prop_assert!(pool.release(lease, false, at(now)).is_err());
                }
                5..=6 if !world.opening.is_empty() => {
                    let c = world.opening.swap_remove(pick(world.opening.len()));
                    world.open.insert(c);
                    pool.opened(c, at(now), random);
                }
                7 if !world.opening.is_empty() => {
                    let c = world.opening.swap_remove(pick(world.opening.len()));
                    pool.failed(c, at(now), random);
                }
                8 if !world.testing.is_empty() => {
                    let c = world.testing.swap_remove(pick(world.testing.len()));
                    pool.validated(c, pick(3) != 0, at(now));
                }
                9 if !world.waiting.is_empty() => {
                    let w = world.order.remove(pick(world.order.len())).unwrap();
                    world.waiting.remove(&w);
                    prop_assert!(pool.cancel(w));
                    prop_assert!(!pool.cancel(w));
                }
                _ => {}
            }
            world.carry_out(&mut pool)?;

            let counts = pool.counts();
            prop_assert!(counts.total <= max);
            prop_assert!(world.open.len() + world.opening.len() <= max as usize);
            prop_assert_eq!(counts.leased as usize, world.loans.len());
            prop_assert_eq!(counts.waiting as usize, world.waiting.len());
            prop_assert_eq!(
                counts.total as usize,
                world.open.len() + world.opening.len(),
                "books differ"
            );
            // Tests of keep-alive can hold all but one; else nobody waits beside idle ones.
            prop_assert!(counts.idle == 0 || world.waiting.len() <= world.testing.len() + world.opening.len());
            for deadline in world.waiting.values() {
                prop_assert!(now <= *deadline, "nobody told a waiter");
            }
        }
        pool.drain();
        pool.revoke();
        world.loans.clear();
        world.carry_out(&mut pool)?;
        for c in world.opening.clone() { pool.failed(c, at(now), random); }
        for c in world.testing.clone() { pool.validated(c, true, at(now)); }
        world.carry_out(&mut pool)?;
        prop_assert!(pool.is_drained(), "{:?}", pool.counts());
        prop_assert!(world.waiting.is_empty() && world.open.is_empty());
    }
}
