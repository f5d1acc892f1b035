//! Leases: several workers, one limit, and never one request too many.
//!
//! The first part tries every order in which two workers can read and write their
//! page. The second simulates up to 32 workers under loads that are even, skewed,
//! hopping and bursty, against one GCRA that sees all requests.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::panic,
    clippy::unreachable,
    clippy::cast_possible_truncation,
    reason = "a test may stop at the first surprise, in its own functions too"
)]

use core::time::Duration;
use std::collections::HashMap;

use edgeweir::hash::HashSeed;
use edgeweir::limit::{Attempt, Decision, Lease, Leases, Limit, Quota, Step};
use edgeweir::random::Random;
use edgeweir::time::Instant;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;

fn deep() -> bool {
    std::env::var_os("EDGEWEIR_DEEP").is_some()
}

/// What the workers share: pages with a token that changes with each write.
#[derive(Clone, Default)]
struct Pages {
    pages: HashMap<u32, (Vec<u8>, u32)>,
    calls: u64,
}

impl Pages {
    fn get(&mut self, page: u32) -> Option<(Vec<u8>, u32)> {
        self.calls += 1;
        self.pages.get(&page).cloned()
    }

    /// As Envoy does it: a page that is not there can be made with any token.
    fn set(&mut self, page: u32, bytes: &[u8], cas: u32) -> bool {
        self.calls += 1;
        let token = match self.pages.get(&page) {
            Some((_, token)) if *token != cas => return false,
            Some((_, token)) => token + 1,
            None => 1,
        };
        self.pages.insert(page, (bytes.to_vec(), token));
        true
    }
}

/// One request in the hands of a worker, between its read and its write.
#[derive(Clone)]
struct Pending {
    page: u32,
    lease: Lease,
    cas: u32,
    hash: u64,
    cost: u32,
    at: Instant,
}

enum Progress {
    Done(Decision),
    Pending(Pending),
}

fn read(
    leases: &mut Leases,
    pages: &mut Pages,
    limit: &Limit,
    (page, hash, cost): (u32, u64, u32),
    now: Instant,
) -> Progress {
    let read = pages.get(page);
    let bytes = read.as_ref().map(|(bytes, _)| bytes.as_slice());
    match leases.attempt(limit, hash, cost, bytes, now) {
        Attempt::Decided(decision) => Progress::Done(decision),
        Attempt::Write(lease) => {
            let cas = read.map_or(u32::MAX, |(_, cas)| cas);
            Progress::Pending(Pending { page, lease, cas, hash, cost, at: now })
        }
    }
}

fn begin(
    leases: &mut Leases,
    pages: &mut Pages,
    limit: &Limit,
    hash: u64,
    cost: u32,
    now: Instant,
) -> Progress {
    match leases.decide(limit, hash, cost, now) {
        Step::Decided(decision) => Progress::Done(decision),
        Step::Page(page) => read(leases, pages, limit, (page, hash, cost), now),
    }
}

/// Writes; if another worker was first, reads again.
fn finish(leases: &mut Leases, pages: &mut Pages, limit: &Limit, pending: Pending) -> Progress {
    let Pending { page, lease, cas, hash, cost, at } = pending;
    if pages.set(page, lease.page(), cas) {
        return Progress::Done(leases.accept(limit, lease, at));
    }
    read(leases, pages, limit, (page, hash, cost), at)
}

/// Checks that requests of these costs at these times are within a quota: a token
/// bucket that starts full never runs dry.
fn assert_conforms(quota: Quota, passed: &mut [(u64, u32)], what: &str) {
    passed.sort_unstable();
    let interval = quota.interval().as_nanos() as u64;
    let full = i128::from(interval) * i128::from(quota.burst());
    let (mut level, mut last) = (full, 0);
    for &(at, cost) in &*passed {
        level = (level + i128::from(at - last)).min(full);
        level -= i128::from(interval) * i128::from(cost);
        assert!(0 <= level, "one too many at {at}: {what}");
        last = at;
    }
}

/// Two workers that can do one step at a time, each with its own view of the time at
/// which its request began.
#[derive(Clone)]
struct Schedule {
    workers: [(Leases, Option<Pending>); 2],
    pages: Pages,
    now: u64,
    passed: Vec<(u64, u32)>,
}

fn explore(limit: &Limit, state: &Schedule, depth: u32, trail: &mut String, seen: &mut u64) {
    if depth == 0 {
        *seen += 1;
        for quota in limit.quotas() {
            assert_conforms(*quota, &mut state.passed.clone(), trail);
        }
        return;
    }
    // Either worker's next step, the time of one slot or of several, or a crash.
    for (name, action) in "ABtTXY".chars().zip(0..) {
        let mut next = state.clone();
        match action {
            0 | 1 => {
                let (leases, pending) = &mut next.workers[action];
                // A request is of the time at which it began.
                let at = pending.as_ref().map_or(Instant::from_nanos(next.now), |held| held.at);
                let progress = match pending.take() {
                    Some(pending) => finish(leases, &mut next.pages, limit, pending),
                    None => begin(leases, &mut next.pages, limit, 7, 1, at),
                };
                match progress {
                    Progress::Pending(more) => *pending = Some(more),
                    Progress::Done(Decision::Allow(_)) => next.passed.push((at.as_nanos(), 1)),
                    Progress::Done(_) => {}
                }
            }
            2 => next.now += 3 * MS,
            3 => next.now += 11 * MS,
            _ => {
                // A worker dies, with its leases and with the request in its hands.
                let worker = &mut next.workers[action - 4];
                if trail.ends_with(['X', 'Y']) || trail.is_empty() {
                    continue;
                }
                *worker = (Leases::new(1, 4).unwrap(), None);
            }
        }
        trail.push(name);
        explore(limit, &next, depth - 1, trail, seen);
        trail.pop();
    }
}

#[test]
fn no_order_of_two_workers_steps_lets_one_too_many_pass() {
    let quota = |ms, burst| Quota::new(1, Duration::from_millis(ms), burst).unwrap();
    let depth = if deep() { 9 } else { 6 };
    let limits = [
        // Leases of two slots; a burst of one; no leases at all; two quotas at once.
        Limit::from(quota(5, 2)),
        Limit::from(quota(4, 1)),
        Limit::from(quota(7, 3)),
        Limit::new(vec![quota(5, 3), quota(5, 1)]).unwrap(),
    ];
    let mut seen = 0;
    for limit in limits {
        // Some demand first, so that leases of two are asked for.
        let mut state = Schedule {
            workers: [(Leases::new(1, 4).unwrap(), None), (Leases::new(1, 4).unwrap(), None)],
            pages: Pages::default(),
            now: SECOND,
            passed: Vec::new(),
        };
        for worker in [0, 1, 0, 1] {
            let now = Instant::from_nanos(state.now);
            let leases = &mut state.workers[worker].0;
            let progress = match begin(leases, &mut state.pages, &limit, 7, 1, now) {
                Progress::Pending(pending) => finish(leases, &mut state.pages, &limit, pending),
                done => done,
            };
            if let Progress::Done(Decision::Allow(_)) = progress {
                state.passed.push((state.now, 1));
            }
            state.now += MS;
        }
        explore(&limit, &state, depth, &mut String::new(), &mut seen);
    }
    println!("{seen} schedules of {depth} steps");
}

/// How requests arrive.
#[derive(Clone, Copy, Debug)]
enum Load {
    /// Each worker gets the same.
    Even,
    /// All at one worker.
    One,
    /// Worker n gets 1/n.
    Zipf,
    /// All at one worker, another one each 200 ms.
    Hopping,
    /// Nothing, then ten times as much for a tenth of the time.
    Bursty,
}

struct Outcome {
    admitted: f64,
    calls: f64,
}

/// Runs `seconds` of a load of `percent` of the rate; the workers' admissions against
/// those of one GCRA that sees every request.
fn simulate(
    workers: usize,
    (rate, burst): (u32, u32),
    load: Load,
    percent: u64,
    seconds: u64,
) -> Outcome {
    let quota = Quota::new(rate, Duration::from_secs(1), burst).unwrap();
    let limit = Limit::from(quota);
    let what = format!("{workers} workers, {rate}/s burst {burst}, {load:?} at {percent}%");
    let mut random = Random::from_seed([workers as u8; 32]);
    let mut all: Vec<_> = (0..workers).map(|_| Leases::new(4, 64).unwrap()).collect();
    let mut pages = Pages::default();
    let hash = HashSeed::from_bytes([1; 16]).hash64(b"key");
    let zipf: Vec<u64> = (1..=workers as u64).map(|n| 1_000_000 / n).collect();
    let (mut ideal, mut ideal_passed) = (Instant::ZERO, 0);
    let (mut passed, mut requests, mut now) = (Vec::new(), 0_u64, SECOND);
    let gap = 100 * SECOND / (u64::from(rate) * percent);
    let end = now + seconds * SECOND;
    while now < end {
        now += match load {
            Load::Bursty if (now / MS) % 1000 >= 100 => 1000 * MS - now % SECOND,
            Load::Bursty => random.below(gap / 5 + 1),
            _ => random.below(2 * gap + 1),
        };
        let worker = match load {
            Load::Even | Load::Bursty => random.below(workers as u64) as usize,
            Load::One => 0,
            Load::Hopping => (now / (200 * MS)) as usize % workers,
            Load::Zipf => {
                let mut ticket = random.below(zipf.iter().sum());
                zipf.iter()
                    .position(|share| {
                        let here = ticket < *share;
                        ticket = ticket.saturating_sub(*share);
                        here
                    })
                    .unwrap_or(0)
            }
        };
        // In one of four cases two requests arrive at once, and the second gets in
        // between the first one's read and its write.
        let other = (worker + 1) % workers;
        let both = [worker, other];
        let arrivals = if random.below(4) == 0 { &both[..] } else { &both[..1] };
        let at = Instant::from_nanos(now);
        let mut under_way = Vec::new();
        for &worker in arrivals {
            requests += 1;
            let (decision, state) = quota.check(ideal, 1, at);
            ideal = state;
            ideal_passed += u64::from(decision.is_allowed());
            let progress = begin(&mut all[worker], &mut pages, &limit, hash, 1, at);
            under_way.push((worker, progress));
        }
        while let Some((worker, progress)) = under_way.pop() {
            match progress {
                Progress::Done(decision) => {
                    passed.extend(decision.is_allowed().then_some((now, 1)));
                }
                Progress::Pending(held) => {
                    let progress = finish(&mut all[worker], &mut pages, &limit, held);
                    under_way.push((worker, progress));
                }
            }
        }
    }
    let admitted = passed.len() as f64 / ideal_passed as f64;
    assert_conforms(quota, &mut passed, &what);
    Outcome { admitted, calls: pages.calls as f64 / requests as f64 }
}

#[test]
fn up_to_32_workers_pass_what_one_would_and_never_more() {
    let sizes = [(10, 10), (1000, 1000), (1000, 100), (20_000, 20_000), (20_000, 2_000)];
    let loads = [Load::Even, Load::One, Load::Zipf, Load::Hopping, Load::Bursty];
    let (all_workers, percents) = if deep() {
        (&[2, 8, 32][..], &[50, 90, 150, 500][..])
    } else {
        (&[8, 32][..], &[120][..])
    };
    println!("workers  rate burst   admitted/ideal (least)   calls/request (mean)");
    for &workers in all_workers {
        for (rate, burst) in sizes {
            let (mut least, mut calls, mut runs) = (f64::MAX, 0.0, 0.0);
            let seconds = if deep() {
                (20_000 / u64::from(rate)).max(10)
            } else {
                (10_000 / u64::from(rate)).max(1)
            };
            for load in loads {
                for &percent in percents {
                    let outcome = simulate(workers, (rate, burst), load, percent, seconds);
                    // Lost are slots in the hands of a worker that goes quiet.
                    let hops = matches!(load, Load::Hopping | Load::Bursty);
                    let bound = if hops { 0.99 } else { 0.997 };
                    let admitted = outcome.admitted;
                    // In a single second what is out on lease at its end weighs more.
                    if 10 <= seconds {
                        assert!(
                            bound <= admitted,
                            "{workers} {rate} {burst} {load:?} {percent}: {admitted}"
                        );
                    }
                    least = least.min(admitted);
                    calls += outcome.calls;
                    runs += 1.0;
                }
            }
            println!("{workers:7} {rate:5} {burst:5}   {least:22.4}   {:20.3}", calls / runs);
        }
    }
}

#[test]
fn far_below_the_limit_hardly_any_request_needs_a_call() {
    // 10,000 requests a second on 4 workers under a limit of 20,000.
    let outcome = simulate(4, (20_000, 20_000), Load::Even, 50, 4);
    println!("{:.4} shared-data calls a request", outcome.calls);
    assert_eq!(outcome.admitted, 1.0);
    assert!(outcome.calls <= 0.1, "{}", outcome.calls);
}

#[test]
fn while_denied_a_worker_asks_nobody() {
    let limit = Limit::from(Quota::new(1, Duration::from_secs(60), 5).unwrap());
    let mut leases = Leases::new(4, 64).unwrap();
    let mut pages = Pages::default();
    let mut passed = 0;
    for n in 0..100_000 {
        let now = Instant::from_nanos(SECOND + n * 100_000);
        let mut progress = begin(&mut leases, &mut pages, &limit, 7, 1, now);
        while let Progress::Pending(held) = progress {
            progress = finish(&mut leases, &mut pages, &limit, held);
        }
        let Progress::Done(decision) = progress else { unreachable!() };
        passed += u32::from(decision.is_allowed());
        if let Some(wait) = decision.retry_after() {
            let promised = now.after(wait);
            assert_eq!(promised, Instant::from_nanos(61 * SECOND), "exact, from memory");
        }
    }
    assert_eq!((passed, pages.calls), (5, 10));
}

#[test]
fn a_page_of_any_bytes_is_read_without_harm() {
    let limit = Limit::from(Quota::new(10, Duration::from_secs(1), 5).unwrap());
    let mut random = Random::from_seed([3; 32]);
    for length in [0, 1, 15, 16, 17, 255, 256, 257, 5000] {
        for _ in 0..20 {
            let mut leases = Leases::new(1, 4).unwrap();
            let bytes: Vec<u8> = (0..length).map(|_| random.below(256) as u8).collect();
            let now = Instant::from_nanos(SECOND);
            let Step::Page(0) = leases.decide(&limit, 7, 1, now) else { panic!() };
            match leases.attempt(&limit, 7, 1, Some(&bytes), now) {
                Attempt::Write(lease) => assert_eq!(lease.page().len(), Leases::PAGE_BYTES),
                // All entries are of exhausted keys, as far as one can see.
                Attempt::Decided(decision) => assert!(!decision.is_allowed()),
            }
        }
    }
}

#[test]
fn keys_that_share_a_page_do_not_share_a_limit_and_none_that_is_exhausted_is_dropped() {
    let limit = Limit::from(Quota::new(10, Duration::from_secs(60), 10).unwrap());
    let mut leases = Leases::new(1, 64).unwrap();
    let mut pages = Pages::default();
    let mut check = |hash, now: u64| {
        let now = Instant::from_nanos(now);
        let mut progress = begin(&mut leases, &mut pages, &limit, hash, 1, now);
        while let Progress::Pending(held) = progress {
            progress = finish(&mut leases, &mut pages, &limit, held);
        }
        let Progress::Done(decision) = progress else { unreachable!() };
        decision.is_allowed()
    };
    let mut random = Random::from_seed([8; 32]);
    for _ in 0..10 {
        assert!(check(42, SECOND));
    }
    assert!(!check(42, SECOND));
    for _ in 0..10_000 {
        check(random.next_u64(), SECOND + MS);
    }
    assert!(!check(42, SECOND + 2 * MS), "the flood got it a fresh burst");
}
