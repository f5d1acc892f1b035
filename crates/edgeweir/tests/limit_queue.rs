//! Waiting: fair under every load that was tried, and nothing is ever lost or left over.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test may stop at the first surprise, in its own functions too"
)]

use core::time::Duration;
use std::collections::{BTreeMap, BTreeSet};

use edgeweir::hash::HashSeed;
use edgeweir::limit::queue::{Action, Answer, Refusal, WaitingLimiter};
use edgeweir::limit::{Limiter, Quota};
use edgeweir::random::Random;
use edgeweir::time::Instant;
use proptest::prelude::*;

const MS: u64 = 1_000_000;

fn limiter(requests: u32, per: Duration, burst: u32, capacity: usize) -> WaitingLimiter {
    let quota = Quota::new(requests, per, burst).unwrap();
    let limiter = Limiter::new(quota, 100, HashSeed::from_bytes([5; 16])).unwrap();
    WaitingLimiter::new(limiter, capacity)
}

/// A client of the pool: how often it asks, and what each request costs.
#[derive(Clone, Copy)]
struct Client {
    per_second: u64,
    cost: u32,
}

/// What the light clients got: the share served of all, of the worst one, and the wait
/// that 99 of 100 did not exceed, in milliseconds.
fn serve(heavy: &[Client], seconds: u64) -> (f64, f64, u64) {
    const LIGHT: usize = 40;
    let clients: Vec<Client> =
        [Client { per_second: 1, cost: 1 }; LIGHT].iter().chain(heavy).copied().collect();
    let mut pool = limiter(100, Duration::from_secs(1), 10, 400);
    let mut random = Random::from_seed([11; 32]);
    let gap =
        |random: &mut Random, client: Client| 1 + random.below(2 * 1_000 * MS / client.per_second);
    let mut next: BTreeSet<(u64, usize)> = BTreeSet::new();
    for (number, client) in clients.iter().enumerate() {
        next.insert((1_000 * MS + gap(&mut random, *client), number));
    }
    let mut asked = vec![0_u64; clients.len()];
    let mut served = vec![0_u64; clients.len()];
    let mut owners = BTreeMap::new();
    let mut waits = Vec::new();
    let end = 1_000 * MS * (1 + seconds);
    loop {
        let arrival = next.first().copied().filter(|(at, _)| *at < end);
        let due = pool.deadline().map(Instant::as_nanos);
        let now = match (arrival.map(|(at, _)| at), due) {
            (Some(arrival), Some(due)) => arrival.min(due),
            (Some(at), None) | (None, Some(at)) => at,
            (None, None) => break,
        };
        let at = Instant::from_nanos(now);
        if due.is_some_and(|due| due <= now) {
            pool.handle_deadline(at);
        }
        if let Some((_, number)) = arrival.filter(|(at, _)| *at == now) {
            next.pop_first();
            next.insert((now + gap(&mut random, clients[number]), number));
            asked[number] += 1;
            let deadline = at.after(Duration::from_secs(2));
            let name = number.to_le_bytes();
            match pool.request(b"pool", &name, clients[number].cost, deadline, at) {
                Answer::Pass(_) => {
                    served[number] += 1;
                    waits.extend((number < LIGHT).then_some(0));
                }
                Answer::Wait(ticket) => {
                    owners.insert(ticket, number);
                }
                Answer::Refuse(..) => {}
            }
        }
        while let Some(action) = pool.next_action() {
            match action {
                Action::Pass { ticket, waited } => {
                    let number = owners.remove(&ticket).unwrap();
                    served[number] += 1;
                    waits.extend((number < LIGHT).then_some(waited.as_millis() as u64));
                }
                Action::Refuse { ticket, .. } => {
                    owners.remove(&ticket).unwrap();
                }
            }
        }
    }
    assert!(owners.is_empty());
    waits.sort_unstable();
    let share = |number: usize| served[number] as f64 / asked[number] as f64;
    let light = |of: &[u64]| of[..LIGHT].iter().sum::<u64>() as f64;
    let worst = (0..LIGHT).map(share).fold(1.0, f64::min);
    (light(&served) / light(&asked), worst, waits[waits.len() * 99 / 100])
}

#[test]
fn light_clients_are_served_whatever_the_heavy_ones_do() {
    let table = [
        ("1 at 500/s", vec![Client { per_second: 500, cost: 1 }]),
        ("1 at 50/s, cost 10", vec![Client { per_second: 50, cost: 10 }]),
        ("8 at 100/s", vec![Client { per_second: 100, cost: 1 }; 8]),
    ];
    println!("heavy clients        served   worst   p99 wait");
    for (name, heavy) in table {
        let (all, worst, wait) = serve(&heavy, 100);
        println!("{name:20} {:5.1}%  {:5.1}%  {wait:5} ms", all * 100.0, worst * 100.0);
        assert!(0.99 <= worst, "{name}: {worst}");
        assert!(wait <= 500, "{name}: {wait} ms");
    }
}

/// One thing that happens to a queue.
#[derive(Clone, Debug)]
enum Event {
    Ask { client: u8, cost: u32, wait_ms: u64 },
    Cancel(usize),
    Pass { ms: u64 },
    Serve,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        5 => (0_u8..5, 1_u32..6, 0_u64..3_000)
            .prop_map(|(client, cost, wait_ms)| Event::Ask { client, cost, wait_ms }),
        1 => any::<usize>().prop_map(Event::Cancel),
        2 => (0_u64..400).prop_map(|ms| Event::Pass { ms }),
        2 => Just(Event::Serve),
    ];
    prop::collection::vec(event, 1..200)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: if std::env::var_os("EDGEWEIR_DEEP").is_some() { 10_000 } else { 300 },
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_waiter_ends_once_in_order_within_the_limit_and_nothing_is_left(
        events in events(),
        shared in any::<bool>(),
    ) {
        const CAPACITY: usize = 12;
        let quota = Quota::new(10, Duration::from_secs(1), 5).unwrap();
        let mut pool = limiter(10, Duration::from_secs(1), 5, CAPACITY);
        let mut now = Instant::from_nanos(1_000 * MS);
        // Ticket: client, cost, deadline.
        let mut waiting = BTreeMap::new();
        let mut passed: Vec<(u8, u32, Instant)> = Vec::new();
        let mut last_served: BTreeMap<u8, u64> = BTreeMap::new();
        for event in events.into_iter().chain([Event::Pass { ms: 100_000 }, Event::Serve]) {
            let before: BTreeSet<u8> =
                waiting.values().map(|(client, ..): &(u8, u32, Instant)| *client).collect();
            match event {
                Event::Ask { client, cost, wait_ms } => {
                    let deadline = now.after(Duration::from_millis(wait_ms));
                    let key = if shared { &b"pool"[..] } else { &[client][..] };
                    match pool.request(key, &[client], cost, deadline, now) {
                        Answer::Pass(_) => {
                            prop_assert!(!before.contains(&client), "passed one that waits");
                            passed.push((client, cost, now));
                        }
                        Answer::Wait(ticket) => {
                            prop_assert!(cost <= 5);
                            waiting.insert(ticket, (client, cost, deadline));
                        }
                        Answer::Refuse(reason, _) => {
                            prop_assert_eq!(reason == Refusal::TooLarge, 5 < cost);
                        }
                    }
                }
                Event::Cancel(at) => {
                    let ticket = waiting.keys().nth(at % (waiting.len() + 1)).copied();
                    if let Some(ticket) = ticket {
                        prop_assert!(pool.cancel(ticket));
                        waiting.remove(&ticket);
                    }
                }
                Event::Pass { ms } => now = now.after(Duration::from_millis(ms)),
                Event::Serve => pool.handle_deadline(now),
            }
            while let Some(action) = pool.next_action() {
                match action {
                    Action::Pass { ticket, .. } => {
                        let (client, cost, deadline) = waiting.remove(&ticket).unwrap();
                        prop_assert!(now <= deadline, "served after its deadline");
                        let before = last_served.insert(client, ticket.number());
                        prop_assert!(before < Some(ticket.number()), "out of order");
                        passed.push((client, cost, now));
                    }
                    Action::Refuse { ticket, reason } => {
                        let (_, _, deadline) = waiting.remove(&ticket).unwrap();
                        prop_assert!(reason == Refusal::Full || deadline <= now);
                    }
                }
            }
            prop_assert_eq!(pool.counts().waiting, waiting.len());
            prop_assert!(waiting.len() <= CAPACITY);
        }
        prop_assert_eq!((pool.counts().waiting, pool.deadline()), (0, None));
        // What passed is within the limit: of the pool, or of each client.
        for client in 0..5 {
            let mut state = Instant::ZERO;
            for (_, cost, at) in passed.iter().filter(|(by, ..)| shared || *by == client) {
                let (decision, next) = quota.check(state, *cost, *at);
                prop_assert!(decision.is_allowed());
                state = next;
            }
        }
    }
}
