//! Waiting instead of being denied: in order, fairly, and not for ever.
//!
//! What "fair" means here:
//!
//! - within a client first come, first served, and a newcomer never passes those
//!   of its client who wait;
//! - clients who wait for the *same* pool get equal shares of it, whatever their
//!   backlog and the cost of their requests: deficit round robin (Shreedhar and
//!   Varghese, SIGCOMM 1995);
//! - every waiter has a deadline; one that is cancelled or late gives up its place
//!   and spends nothing;
//! - the number of waiters is bounded. When it is reached, the client with most of
//!   them loses its last one.
//!
//! Clients with a pool each have nothing to share, so between them only the bound
//! matters.
//!
//! [`Queue`] only keeps the order. It does not know the limit, so that it works with
//! a limiter that has to ask others: it says whom to try ([`Queue::next_try`]) and
//! is told the decision ([`Queue::settle`]). [`WaitingLimiter`] is the two together
//! for a limiter that is at hand.

use alloc::boxed::Box;
use alloc::collections::{BTreeSet, VecDeque};
use core::time::Duration;

use hashbrown::HashMap;

use super::limiter::Limiter;
use super::quota::Decision;
use crate::hash::HashSeed;
use crate::time::Instant;

/// A place in a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

impl Ticket {
    /// The number of this ticket: tickets are numbered as they come.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The ticket of this number.
    #[must_use]
    pub const fn from_number(number: u64) -> Self {
        Self(number)
    }
}

/// What has become of a waiter. Each ticket gets exactly one of these, unless it is
/// cancelled: then none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is its turn, and its cost is spent.
    Pass {
        /// Whose turn.
        ticket: Ticket,
        /// How long it waited.
        waited: Duration,
    },
    /// It does not get a turn.
    Refuse {
        /// Who does not.
        ticket: Ticket,
        /// Why.
        reason: Refusal,
    },
}

/// Why a request that would have waited is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Its deadline came first, or certainly would.
    Timeout,
    /// The queue is full and its client has the most waiters.
    Full,
    /// It costs more than can ever pass at once.
    TooLarge,
    /// The queue was closed.
    Closed,
}

/// What waited how far: counted once each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueCounts {
    /// Waiting now.
    pub waiting: usize,
    /// Passed after waiting.
    pub passed: u64,
    /// Refused because their deadline came.
    pub timed_out: u64,
    /// Refused because the queue was full.
    pub dropped: u64,
    /// Cancelled by those who waited.
    pub cancelled: u64,
}

#[derive(Clone, Copy, Debug)]
struct Waiter {
    pool: u64,
    client: u64,
    cost: u32,
    since: Instant,
    deadline: Instant,
}

#[derive(Clone, Copy, Debug, Default)]
struct Client {
    waiting: u64,
    deficit: u64,
}

#[derive(Clone, Debug)]
struct Pool {
    // Clients who wait, the one whose turn it is in front.
    ring: VecDeque<u64>,
    // Whether the one in front has got its share of this round.
    in_turn: bool,
    retry_at: Instant,
    // At least the largest cost that waits, so that each turn serves somebody.
    quantum: u32,
}

/// Who waits for which pool, and whose turn it is. See the module.
#[derive(Clone, Debug)]
pub struct Queue {
    capacity: usize,
    next: u64,
    closed: bool,
    waiters: HashMap<Ticket, Waiter, HashSeed>,
    clients: HashMap<(u64, u64), Client, HashSeed>,
    pools: HashMap<u64, Pool, HashSeed>,
    // The same waiters, by what has to be found quickly. One type for all of them: the
    // code of a tree is large.
    //
    // Pool, client, ticket.
    order: BTreeSet<[u64; 3]>,
    // Number of waiters, pool, client.
    lengths: BTreeSet<[u64; 3]>,
    // Deadline, ticket, 0.
    deadlines: BTreeSet<[u64; 3]>,
    // When to try, pool, 0.
    due: BTreeSet<[u64; 3]>,
    actions: VecDeque<Action>,
    counts: QueueCounts,
}

/// The waiter that should be tried next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Try {
    /// Its ticket.
    pub ticket: Ticket,
    /// The pool it waits for.
    pub pool: u64,
    /// What it costs.
    pub cost: u32,
}

impl Queue {
    /// A queue for at most `capacity` waiters.
    #[must_use]
    pub const fn new(capacity: usize, seed: HashSeed) -> Self {
        Self {
            capacity,
            next: 0,
            closed: false,
            waiters: HashMap::with_hasher(seed),
            clients: HashMap::with_hasher(seed),
            pools: HashMap::with_hasher(seed),
            order: BTreeSet::new(),
            lengths: BTreeSet::new(),
            deadlines: BTreeSet::new(),
            due: BTreeSet::new(),
            actions: VecDeque::new(),
            counts: QueueCounts { waiting: 0, passed: 0, timed_out: 0, dropped: 0, cancelled: 0 },
        }
    }

    /// Whether anybody waits for `pool`: then a newcomer has to wait, too.
    #[must_use]
    pub fn is_waited_for(&self, pool: u64) -> bool {
        self.pools.contains_key(&pool)
    }

    /// Lets a request of `client` wait for `pool` until `deadline`.
    ///
    /// If nobody waits for the pool, `retry_after` is when it is worth a try; else it
    /// has no meaning. A full queue may refuse somebody else: see the actions.
    ///
    /// # Errors
    ///
    /// The deadline is no later than the first possible try, the queue is full, or
    /// it is closed.
    pub fn push(
        &mut self,
        (pool, client): (u64, u64),
        cost: u32,
        retry_after: Duration,
        deadline: Instant,
        now: Instant,
    ) -> Result<Ticket, Refusal> {
        if self.closed {
            return Err(Refusal::Closed);
        }
        let retry_at = self.pools.get(&pool).map_or(now.after(retry_after), |pool| pool.retry_at);
        if deadline < retry_at || deadline <= now {
            self.counts.timed_out = self.counts.timed_out.saturating_add(1);
            return Err(Refusal::Timeout);
        }
        let key = (pool, client);
        if self.capacity <= self.waiters.len() {
            let own = self.clients.get(&key).map_or(0, |client| client.waiting);
            let longest = self.lengths.last().filter(|[length, ..]| own < *length);
            let loser = longest.and_then(|&[_, pool, client]| self.last_of(pool, client));
            let Some(loser) = loser else {
                self.counts.dropped = self.counts.dropped.saturating_add(1);
                return Err(Refusal::Full);
            };
            self.refuse(loser, Refusal::Full);
        }
        let ticket = Ticket(self.next);
        self.next = self.next.saturating_add(1);
        self.waiters.insert(ticket, Waiter { pool, client, cost, since: now, deadline });
        self.order.insert([pool, client, ticket.0]);
        self.deadlines.insert([deadline.as_nanos(), ticket.0, 0]);
        let place = self.pools.entry(pool).or_insert_with(|| {
            self.due.insert([retry_at.as_nanos(), pool, 0]);
            Pool { ring: VecDeque::new(), in_turn: false, retry_at, quantum: 1 }
        });
        place.quantum = place.quantum.max(cost);
        let entry = self.clients.entry(key).or_insert_with(|| {
            place.ring.push_back(client);
            Client::default()
        });
        self.lengths.remove(&[entry.waiting, pool, client]);
        entry.waiting = entry.waiting.saturating_add(1);
        self.lengths.insert([entry.waiting, pool, client]);
        Ok(ticket)
    }

    fn first_of(&self, pool: u64, client: u64) -> Option<Ticket> {
        let mut own = self.order.range([pool, client, 0]..=[pool, client, u64::MAX]);
        own.next().map(|[.., ticket]| Ticket(*ticket))
    }

    fn last_of(&self, pool: u64, client: u64) -> Option<Ticket> {
        let own = self.order.range([pool, client, 0]..=[pool, client, u64::MAX]);
        own.last().map(|[.., ticket]| Ticket(*ticket))
    }

    /// The ticket whose deadline comes first, if that is before `end`.
    fn late(&self, end: u64) -> Option<Ticket> {
        let &[deadline, ticket, _] = self.deadlines.first()?;
        (deadline < end).then_some(Ticket(ticket))
    }

    /// Makes a pool due at another time.
    fn retry(&mut self, pool: u64, at: impl FnOnce(Instant) -> Instant) {
        if let Some(place) = self.pools.get_mut(&pool) {
            self.due.remove(&[place.retry_at.as_nanos(), pool, 0]);
            place.retry_at = at(place.retry_at);
            self.due.insert([place.retry_at.as_nanos(), pool, 0]);
        }
    }

    /// The waiter whose turn it is, if its pool is worth a try. Those whose deadline
    /// has passed are refused first.
    ///
    /// The decision must be told with [`Queue::settle`]; until then the answer stays
    /// the same.
    pub fn next_try(&mut self, now: Instant) -> Option<Try> {
        while let Some(ticket) = self.late(now.as_nanos()) {
            self.refuse(ticket, Refusal::Timeout);
        }
        let &[at, pool, _] = self.due.first()?;
        if now.as_nanos() < at {
            return None;
        }
        // At most once around the ring and one more: a quantum covers every cost.
        for _ in 0..=self.pools.get(&pool)?.ring.len() {
            let client = *self.pools.get(&pool)?.ring.front()?;
            let ticket = self.first_of(pool, client)?;
            let cost = self.waiters.get(&ticket)?.cost;
            let place = self.pools.get_mut(&pool)?;
            let entry = self.clients.get_mut(&(pool, client))?;
            if !place.in_turn {
                entry.deficit = entry.deficit.saturating_add(u64::from(place.quantum));
                place.in_turn = true;
            }
            if u64::from(cost) <= entry.deficit {
                return Some(Try { ticket, pool, cost });
            }
            place.ring.rotate_left(1);
            place.in_turn = false;
        }
        None
    }

    /// Tells what the limit decided about the waiter that was to be tried.
    pub fn settle(&mut self, tried: Try, decision: Decision, now: Instant) {
        match decision {
            Decision::Allow(_) => {
                let Some(waiter) = self.remove(tried.ticket) else { return };
                if let Some(client) = self.clients.get_mut(&(waiter.pool, waiter.client)) {
                    client.deficit = client.deficit.saturating_sub(u64::from(waiter.cost));
                }
                self.counts.passed = self.counts.passed.saturating_add(1);
                let waited = now.since(waiter.since);
                self.actions.push_back(Action::Pass { ticket: tried.ticket, waited });
            }
            Decision::Deny { retry_after, .. } => {
                // A limit that says "now" is asked again a moment later, not for ever.
                let retry_at = now.after(retry_after.max(Duration::from_nanos(1)));
                self.retry(tried.pool, |_| retry_at);
            }
            Decision::TooLarge(_) => self.refuse(tried.ticket, Refusal::TooLarge),
        }
    }

    /// Refuses those whose deadline is `now` or before. Call it after all tries.
    pub fn expire(&mut self, now: Instant) {
        while let Some(ticket) = self.late(now.as_nanos().saturating_add(1)) {
            self.refuse(ticket, Refusal::Timeout);
        }
    }

    /// Takes a waiter out: it gets no action. False if it is not waiting any more.
    pub fn cancel(&mut self, ticket: Ticket) -> bool {
        let gone = self.remove(ticket).is_some();
        if gone {
            self.counts.cancelled = self.counts.cancelled.saturating_add(1);
        }
        gone
    }

    /// Refuses all waiters, and every later one.
    pub fn close(&mut self) {
        self.closed = true;
        while let Some(&[.., ticket]) = self.order.first() {
            self.refuse(Ticket(ticket), Refusal::Closed);
        }
    }

    /// Makes a pool worth a try now: its limit was raised or reset.
    pub fn wake(&mut self, pool: u64, now: Instant) {
        self.retry(pool, |at| at.min(now));
    }

    /// What has become of waiters since the last call. Drain it until `None`.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// When something is due next: a try or a deadline.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        let due = self.due.first().map(|[at, ..]| *at);
        let deadline = self.deadlines.first().map(|[at, ..]| *at);
        due.into_iter().chain(deadline).min().map(Instant::from_nanos)
    }

    /// What happened so far.
    #[must_use]
    pub fn counts(&self) -> QueueCounts {
        QueueCounts { waiting: self.waiters.len(), ..self.counts }
    }

    /// How many requests of `client` wait for `pool`.
    #[must_use]
    pub fn waiting(&self, pool: u64, client: u64) -> usize {
        let waiting = self.clients.get(&(pool, client)).map_or(0, |client| client.waiting);
        usize::try_from(waiting).unwrap_or(usize::MAX)
    }

    fn refuse(&mut self, ticket: Ticket, reason: Refusal) {
        if self.remove(ticket).is_none() {
            return;
        }
        match reason {
            Refusal::Timeout => self.counts.timed_out = self.counts.timed_out.saturating_add(1),
            Refusal::Full => self.counts.dropped = self.counts.dropped.saturating_add(1),
            Refusal::TooLarge | Refusal::Closed => {}
        }
        self.actions.push_back(Action::Refuse { ticket, reason });
    }

    fn remove(&mut self, ticket: Ticket) -> Option<Waiter> {
        let waiter = self.waiters.remove(&ticket)?;
        let Waiter { pool, client, deadline, .. } = waiter;
        self.deadlines.remove(&[deadline.as_nanos(), ticket.0, 0]);
        self.order.remove(&[pool, client, ticket.0]);
        let key = (pool, client);
        let client = self.clients.get_mut(&key)?;
        self.lengths.remove(&[client.waiting, key.0, key.1]);
        client.waiting = client.waiting.saturating_sub(1);
        if client.waiting != 0 {
            self.lengths.insert([client.waiting, key.0, key.1]);
            return Some(waiter);
        }
        // A client that does not wait has no claim to what it did not use.
        self.clients.remove(&key);
        if let Some(pool) = self.pools.get_mut(&waiter.pool) {
            if let Some(at) = pool.ring.iter().position(|client| *client == waiter.client) {
                pool.ring.remove(at);
                pool.in_turn &= at != 0;
            }
            if pool.ring.is_empty() {
                self.due.remove(&[pool.retry_at.as_nanos(), waiter.pool, 0]);
                self.pools.remove(&waiter.pool);
            }
        }
        Some(waiter)
    }
}

/// A [`Limiter`] whose requests may wait for their turn.
///
/// Drive it like every state machine here: after each call drain
/// [`WaitingLimiter::next_action`], and call [`WaitingLimiter::handle_deadline`] at
/// [`WaitingLimiter::deadline`].
#[derive(Clone, Debug)]
pub struct WaitingLimiter {
    limiter: Limiter,
    queue: Queue,
    // The keys of pools for which somebody waits.
    keys: HashMap<u64, Box<[u8]>, HashSeed>,
}

/// The answer to a request that may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It passes now.
    Pass(Decision),
    /// It waits; an action will tell.
    Wait(Ticket),
    /// It neither passes nor waits. The decision says when it could pass.
    Refuse(Refusal, Decision),
}

impl WaitingLimiter {
    /// A limiter in front of which at most `capacity` requests wait.
    #[must_use]
    pub const fn new(limiter: Limiter, capacity: usize) -> Self {
        let seed = limiter.seed();
        let queue = Queue::new(capacity, seed);
        Self { limiter, queue, keys: HashMap::with_hasher(seed) }
    }

    /// The limiter, to ask and to change. Follow a change that helps a key with
    /// [`WaitingLimiter::wake`].
    pub const fn limiter(&mut self) -> &mut Limiter {
        &mut self.limiter
    }

    /// The queue's counts.
    #[must_use]
    pub fn counts(&self) -> QueueCounts {
        self.queue.counts()
    }

    /// A request on behalf of `client` against the limit of `key`, which may wait
    /// until `deadline`. Clients that share a key share its limit fairly; for a
    /// limit that each client has to itself, both are the same.
    pub fn request(
        &mut self,
        key: &[u8],
        client: &[u8],
        cost: u32,
        deadline: Instant,
        now: Instant,
    ) -> Answer {
        let pool = self.limiter.hash(key);
        let client = self.limiter.hash(client);
        let decision = if self.queue.is_waited_for(pool) {
            let level = self.limiter.peek(key, now);
            if self.limiter.limit_of(key).max_cost() < cost {
                Decision::TooLarge(level)
            } else {
                Decision::Deny { level, retry_after: level.reset }
            }
        } else {
            self.limiter.check(key, cost, now)
        };
        let retry_after = match decision {
            Decision::Allow(_) => return Answer::Pass(decision),
            Decision::TooLarge(_) => return Answer::Refuse(Refusal::TooLarge, decision),
            Decision::Deny { retry_after, .. } => retry_after,
        };
        match self.queue.push((pool, client), cost, retry_after, deadline, now) {
            Ok(ticket) => {
                self.keys.entry(pool).or_insert_with(|| key.into());
                Answer::Wait(ticket)
            }
            Err(refusal) => Answer::Refuse(refusal, decision),
        }
    }

    /// Serves and refuses those who are due.
    pub fn handle_deadline(&mut self, now: Instant) {
        while let Some(tried) = self.queue.next_try(now) {
            let key = self.keys.get(&tried.pool).map_or(&[][..], |key| key);
            let decision = self.limiter.check(key, tried.cost, now);
            self.queue.settle(tried, decision, now);
            self.forget(tried.pool);
        }
        self.queue.expire(now);
        if self.queue.pools.len() < self.keys.len() {
            self.keys.retain(|pool, _| self.queue.pools.contains_key(pool));
        }
    }

    /// Takes a waiter out; false if it is not waiting any more.
    pub fn cancel(&mut self, ticket: Ticket) -> bool {
        let pool = self.queue.waiters.get(&ticket).map(|waiter| waiter.pool);
        let gone = self.queue.cancel(ticket);
        if let Some(pool) = pool {
            self.forget(pool);
        }
        gone
    }

    /// Tries the waiters of `key` again, because its limit was raised or reset.
    pub fn wake(&mut self, key: &[u8], now: Instant) {
        self.queue.wake(self.limiter.hash(key), now);
        self.handle_deadline(now);
    }

    /// Refuses all waiters, and every later one.
    pub fn close(&mut self) {
        self.queue.close();
        self.keys.clear();
    }

    /// What has become of waiters since the last call. Drain it until `None`.
    pub fn next_action(&mut self) -> Option<Action> {
        self.queue.next_action()
    }

    /// When to call [`WaitingLimiter::handle_deadline`].
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.queue.deadline()
    }

    /// Whether anybody waits for the limit of `key`: then a newcomer must not pass.
    #[must_use]
    pub fn is_waited_for(&self, key: &[u8]) -> bool {
        self.queue.is_waited_for(self.limiter.hash(key))
    }

    /// How many requests of `client` wait for `key`.
    #[must_use]
    pub fn waiting(&self, key: &[u8], client: &[u8]) -> usize {
        self.queue.waiting(self.limiter.hash(key), self.limiter.hash(client))
    }

    fn forget(&mut self, pool: u64) {
        if !self.queue.is_waited_for(pool) {
            self.keys.remove(&pool);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hash::HashSeed;
    use crate::limit::Quota;
    use std::vec::Vec;

    fn ms(millis: u64) -> Instant {
        Instant::from_nanos(millis * 1_000_000)
    }

    fn waiting(requests: u32, per_ms: u64, burst: u32, capacity: usize) -> WaitingLimiter {
        let quota = Quota::new(requests, Duration::from_millis(per_ms), burst).unwrap();
        let limiter = Limiter::new(quota, 100, HashSeed::from_bytes([5; 16])).unwrap();
        WaitingLimiter::new(limiter, capacity)
    }

    /// Runs to the end; `(ms, ticket, passed?)` in order.
    fn run(limiter: &mut WaitingLimiter) -> Vec<(u64, u64, Result<(), Refusal>)> {
        let mut seen = Vec::new();
        let mut now = Instant::ZERO;
        loop {
            while let Some(action) = limiter.next_action() {
                let (ticket, result) = match action {
                    Action::Pass { ticket, .. } => (ticket, Ok(())),
                    Action::Refuse { ticket, reason } => (ticket, Err(reason)),
                };
                seen.push((now.as_nanos() / 1_000_000, ticket.number(), result));
            }
            let Some(deadline) = limiter.deadline() else { return seen };
            now = now.max(deadline);
            limiter.handle_deadline(now);
        }
    }

    fn wait(limiter: &mut WaitingLimiter, client: &str, cost: u32, until: u64, now: u64) -> Answer {
        limiter.request(b"pool", client.as_bytes(), cost, ms(until), ms(now))
    }

    #[test]
    fn a_client_is_served_in_order_at_the_rate_and_newcomers_do_not_pass() {
        let mut limiter = waiting(10, 1000, 1, 100);
        assert!(matches!(wait(&mut limiter, "a", 1, 9000, 0), Answer::Pass(_)));
        for _ in 0..3 {
            assert!(matches!(wait(&mut limiter, "a", 1, 9000, 0), Answer::Wait(_)));
        }
        // At 100 ms a token is back, but it belongs to the first who waits.
        assert!(matches!(wait(&mut limiter, "a", 1, 9000, 100), Answer::Wait(_)));
        let expected = [(100, 0, Ok(())), (200, 1, Ok(())), (300, 2, Ok(())), (400, 3, Ok(()))];
        assert_eq!(run(&mut limiter), expected);
        assert_eq!(limiter.counts().waiting, 0);
        assert!(limiter.keys.is_empty());
    }

    #[test]
    fn one_timeout_leaves_the_others_waiting() {
        let mut limiter = waiting(1, 1000, 1, 100);
        let _ = wait(&mut limiter, "a", 1, 9000, 0);
        for until in [9000, 1500, 9000] {
            assert!(matches!(wait(&mut limiter, "a", 1, until, 0), Answer::Wait(_)));
        }
        let expected = [(1000, 0, Ok(())), (1500, 1, Err(Refusal::Timeout)), (2000, 2, Ok(()))];
        assert_eq!(run(&mut limiter), expected);
    }

    #[test]
    fn what_cannot_be_in_time_or_ever_fails_at_once() {
        let mut limiter = waiting(1, 1000, 2, 100);
        let _ = wait(&mut limiter, "a", 2, 9000, 0);
        assert!(matches!(
            wait(&mut limiter, "a", 1, 999, 0),
            Answer::Refuse(Refusal::Timeout, Decision::Deny { .. })
        ));
        assert!(matches!(
            wait(&mut limiter, "a", 3, 9000, 0),
            Answer::Refuse(Refusal::TooLarge, Decision::TooLarge(_))
        ));
    }

    #[test]
    fn a_full_queue_drops_the_last_of_the_longest_client() {
        let mut limiter = waiting(1, 1000, 1, 3);
        let _ = wait(&mut limiter, "a", 1, 9000, 0);
        for _ in 0..3 {
            assert!(matches!(wait(&mut limiter, "a", 1, 9000, 0), Answer::Wait(_)));
        }
        assert!(matches!(wait(&mut limiter, "a", 1, 9000, 0), Answer::Refuse(Refusal::Full, _)));
        assert!(matches!(wait(&mut limiter, "b", 1, 9000, 0), Answer::Wait(_)));
        let expected =
            [(0, 2, Err(Refusal::Full)), (1000, 3, Ok(())), (2000, 0, Ok(())), (3000, 1, Ok(()))];
        let mut seen = run(&mut limiter);
        seen.sort_by_key(|(at, ..)| *at);
        // Clients take turns; which one starts is no promise.
        assert_eq!(seen.len(), 4);
        assert_eq!(seen[0], expected[0]);
        assert_eq!(limiter.counts().dropped, 2);
    }

    #[test]
    fn a_cancelled_waiter_spends_nothing() {
        let mut limiter = waiting(1, 1000, 1, 100);
        let _ = wait(&mut limiter, "a", 1, 9000, 0);
        let Answer::Wait(first) = wait(&mut limiter, "a", 1, 9000, 0) else { panic!() };
        let Answer::Wait(second) = wait(&mut limiter, "b", 1, 9000, 0) else { panic!() };
        assert!(limiter.cancel(first));
        assert!(!limiter.cancel(first));
        assert_eq!(run(&mut limiter), [(1000, second.number(), Ok(()))]);
    }

    #[test]
    fn closing_refuses_everybody() {
        let mut limiter = waiting(1, 1000, 1, 100);
        let _ = wait(&mut limiter, "a", 1, 9000, 0);
        let _ = wait(&mut limiter, "a", 1, 9000, 0);
        limiter.close();
        assert_eq!(run(&mut limiter), [(0, 0, Err(Refusal::Closed))]);
        assert!(matches!(wait(&mut limiter, "a", 1, 9000, 1), Answer::Refuse(Refusal::Closed, _)));
    }

    #[test]
    fn shares_are_equal_in_cost_not_in_requests() {
        let mut limiter = waiting(100, 1000, 10, 1000);
        let _ = wait(&mut limiter, "x", 10, 100_000, 0);
        for _ in 0..10 {
            let _ = wait(&mut limiter, "heavy", 10, 100_000, 0);
        }
        for _ in 0..100 {
            let _ = wait(&mut limiter, "light", 1, 100_000, 0);
        }
        let seen = run(&mut limiter);
        let passed_by = |at: u64, heavy: bool| {
            seen.iter().filter(|(t, n, _)| *t <= at && (*n < 10) == heavy).count()
        };
        // After one second 100 tokens went out: half to each, within a quantum.
        assert!((4..=6).contains(&passed_by(1000, true)), "{}", passed_by(1000, true));
        assert!((40..=60).contains(&passed_by(1000, false)), "{}", passed_by(1000, false));
    }

    #[test]
    fn clients_that_come_and_go_do_not_starve_one_that_stays() {
        let mut limiter = waiting(10, 1000, 1, 100);
        let _ = wait(&mut limiter, "x", 1, 100_000, 0);
        let Answer::Wait(patient) = wait(&mut limiter, "a", 1, 100_000, 0) else { panic!() };
        for step in 0..10 {
            // Each is alone in its client, so it leaves the ring when it is served.
            let _ = wait(&mut limiter, "b", 1, 100_000, step * 100);
            let _ = wait(&mut limiter, "c", 1, 100_000, step * 100);
            limiter.handle_deadline(ms(step * 100 + 100));
            if let Some(Action::Pass { ticket, .. }) = limiter.next_action()
                && ticket == patient
            {
                assert!(step <= 2);
                return;
            }
        }
        panic!("starved");
    }

    #[test]
    fn a_raised_limit_serves_those_who_wait() {
        let mut limiter = waiting(1, 60_000, 1, 100);
        let _ = wait(&mut limiter, "a", 1, 9_000_000, 0);
        let _ = wait(&mut limiter, "a", 1, 9_000_000, 0);
        limiter.limiter().reset(b"pool");
        limiter.wake(b"pool", ms(1));
        assert!(matches!(limiter.next_action(), Some(Action::Pass { .. })));
    }
}
