//! A connection pool as a state machine over opaque connections.
//!
//! The edge opens, tests and closes connections and hands them to borrowers; this
//! module decides when. What always holds, checked after every step of the model
//! test:
//!
//! - never more than `max` connections, those being opened and closed counted;
//! - a connection is in one hand: each loan has a [`Lease`] of its own, and a lease
//!   that was already given back changes nothing;
//! - nobody waits while a connection is idle, and nobody who came later is served
//!   earlier in the same class of priority;
//! - every waiter is granted a connection or told why not, by its deadline.
//!
//! An edge calls a method, then drains [`Connections::next_action`]; it calls
//! [`Connections::handle_deadline`] when [`Connections::deadline`] comes.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

use crate::random::Random;
use crate::time::Instant;

/// The most connections that one pool can have.
pub const MAX_CONNECTIONS: u32 = 65_536;

/// How a pool is set up. [`Duration::MAX`] turns off what a duration belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolSettings {
    /// Connections kept open even if nobody needs them.
    pub min: u32,
    /// Connections at the most, 1 to [`MAX_CONNECTIONS`].
    pub max: u32,
    /// Waiters at the most; one more is refused.
    pub max_waiters: u32,
    /// How long opening may take before it counts as failed.
    pub connect_timeout: Duration,
    /// How long a test may take before the connection counts as broken.
    pub validate_timeout: Duration,
    /// A connection that has not proved alive for longer than this (by a loan that
    /// ended well, or a test) is tested before it is lent.
    pub validate_after: Duration,
    /// A connection idle for this long is tested to keep it alive.
    pub keepalive: Duration,
    /// A connection above `min` that is idle for this long is closed.
    pub idle_timeout: Duration,
    /// A connection is closed this long after it was opened, or up to a tenth
    /// earlier, so that connections opened together do not end together.
    pub max_lifetime: Duration,
    /// A connection is closed after this many loans; 0 for never.
    pub max_uses: u32,
    /// After a failed opening the next waits this long; doubles up to
    /// `backoff_at_most`, and starts anew with the first that succeeds.
    pub backoff: Duration,
    /// The longest wait between two openings.
    pub backoff_at_most: Duration,
    /// A loan that lasts longer than this is reported, once.
    pub leak_after: Duration,
}

impl Default for PoolSettings {
    /// Up to 10 connections, none kept; 30 s to open, tests after 30 s of idleness,
    /// closed after 10 min of it or 30 min of life; backoff from 100 ms to 10 s.
    fn default() -> Self {
        Self {
            min: 0,
            max: 10,
            max_waiters: 10_000,
            connect_timeout: Duration::from_secs(30),
            validate_timeout: Duration::from_secs(5),
            validate_after: Duration::from_secs(30),
            keepalive: Duration::MAX,
            idle_timeout: Duration::from_secs(600),
            max_lifetime: Duration::from_secs(1800),
            max_uses: 0,
            backoff: Duration::from_millis(100),
            backoff_at_most: Duration::from_secs(10),
            leak_after: Duration::MAX,
        }
    }
}

/// One connection, as the edge knows it: a place (below `max`) and which connection
/// in that place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Connection(u64);

/// One loan. A number that is never used again, below 2⁵³.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lease(u64);

/// One waiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Waiter(u64);

macro_rules! number {
    ($type:ident) => {
        impl $type {
            /// The number that an edge keeps.
            #[must_use]
            pub const fn number(self) -> u64 {
                self.0
            }

            /// From a number that an edge kept; a wrong one finds nothing.
            #[must_use]
            pub const fn from_number(number: u64) -> Self {
                Self(number)
            }
        }
    };
}

number!(Connection);
number!(Lease);
number!(Waiter);

// Connection and lease: a counter, and the place in the low 16 bits.
const PLACE_BITS: u32 = 16;

fn place(number: u64) -> usize {
    usize::try_from(number & ((1 << PLACE_BITS) - 1)).unwrap_or(usize::MAX)
}

impl Connection {
    /// Its place: two connections that exist at one time have two.
    #[must_use]
    pub fn place(self) -> usize {
        place(self.0)
    }
}

/// The answer to one who wants a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acquired {
    /// Here it is.
    Granted(Connection, Lease),
    /// An action will grant it or say why not.
    Waiting(Waiter),
    /// As many wait as may.
    Full,
    /// The pool is closing.
    Draining,
}

/// Why a waiter got nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Its deadline came while all connections were lent.
    Busy,
    /// Its deadline came while no connection could be opened.
    Down,
    /// The pool is closing.
    Draining,
}

/// Why a connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The borrower or a test said so.
    Broken,
    /// Idle for too long.
    Idle,
    /// Too old.
    Lifetime,
    /// Lent often enough.
    Uses,
    /// Opening it took too long.
    Timeout,
    /// The pool is closing, or was made smaller.
    Surplus,
}

/// What the edge has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open a connection, then [`Connections::opened`] or [`Connections::failed`].
    Open(Connection),
    /// Test it, then [`Connections::validated`].
    Validate(Connection),
    /// Close it; its place is free at once if it was open, else when the opening
    /// comes to its end.
    Close(Connection, Reason),
    /// Give the waiter its connection.
    Grant(Waiter, Connection, Lease),
    /// Tell the waiter that it gets none.
    Fail(Waiter, Failure),
    /// Report a loan that lasts too long.
    Leak(Connection, Lease),
}

/// A lease that is not out: given back before, or taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this lease is not out: it was given back before, or the pool took it away")]
pub struct StaleLease;

/// How many there are now, and what happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoolCounts {
    /// Connections, of every kind.
    pub total: u32,
    /// Ready to be lent.
    pub idle: u32,
    /// Lent.
    pub leased: u32,
    /// Being opened.
    pub opening: u32,
    /// Waiters.
    pub waiting: u32,
    /// Connections opened.
    pub opened: u64,
    /// Openings that failed.
    pub failed: u64,
    /// Connections closed.
    pub closed: u64,
    /// Loans granted.
    pub granted: u64,
    /// Loans given back.
    pub released: u64,
    /// Leases given back that were not out.
    pub stale: u64,
    /// Waiters whose deadline came.
    pub timed_out: u64,
    /// Waiters that left.
    pub cancelled: u64,
    /// Refused because as many waited as may.
    pub refused: u64,
    /// Loans reported for lasting too long.
    pub leaked: u64,
    /// Tests that failed.
    pub invalid: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Opening {
        since: Instant,
    },
    /// Given up while it was opened: closed as soon as it is there.
    Abandoned,
    Idle {
        since: Instant,
    },
    Validating {
        since: Instant,
        idle_since: Instant,
    },
    Leased {
        lease: u64,
        since: Instant,
        reported: bool,
    },
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    connection: Connection,
    state: State,
    uses: u32,
    retire_at: Instant,
    // When it last proved to be alive: kept alive from then.
    proven_at: Instant,
}

/// The state of one pool.
#[derive(Clone, Debug)]
pub struct Connections {
    settings: PoolSettings,
    slots: Vec<Option<Slot>>,
    // Places of idle connections; the last one used is lent first, so that a pool
    // that is too large shrinks.
    idle: Vec<u16>,
    // By class of priority, then by arrival.
    waiters: BTreeMap<Waiter, Instant>,
    deadlines: BTreeSet<(Instant, Waiter)>,
    serial: u64,
    failures: u32,
    retry_at: Instant,
    validating: u32,
    draining: bool,
    wake: Instant,
    actions: VecDeque<Action>,
    counts: PoolCounts,
}

impl Connections {
    /// An empty pool; [`Connections::fill`] opens its first connections.
    #[must_use]
    pub fn new(settings: PoolSettings) -> Self {
        let max = settings.max.clamp(1, MAX_CONNECTIONS);
        let settings = PoolSettings { max, min: settings.min.min(max), ..settings };
        Self {
            settings,
            slots: Vec::new(),
            idle: Vec::new(),
            waiters: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            serial: 0,
            failures: 0,
            retry_at: Instant::ZERO,
            validating: 0,
            draining: false,
            wake: Instant::MAX,
            actions: VecDeque::new(),
            counts: PoolCounts::default(),
        }
    }

    /// Numbers now and so far.
    #[must_use]
    pub fn counts(&self) -> PoolCounts {
        PoolCounts {
            idle: u32::try_from(self.idle.len()).unwrap_or(u32::MAX),
            waiting: u32::try_from(self.waiters.len()).unwrap_or(u32::MAX),
            ..self.counts
        }
    }

    /// The next moment at which [`Connections::handle_deadline`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        match self.deadlines.first() {
            Some((deadline, _)) => self.wake.min(*deadline),
            None => self.wake,
        }
    }

    /// The next thing for the edge to do.
    pub fn next_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    /// Sees to what is missing: idle connections are tested for those who wait, and
    /// new ones opened, up to `min` and for each waiter that is left.
    pub fn fill(&mut self, now: Instant) {
        while self.on_their_way() < self.waiters.len()
            && let Some(at) = self.idle.pop()
        {
            self.ready(usize::from(at), now);
        }
        if self.draining || self.wants() == 0 {
            return;
        }
        if now < self.retry_at {
            self.wake = self.wake.min(self.retry_at);
            return;
        }
        for _ in 0..self.wants() {
            self.open(now);
        }
    }

    /// How many connections to open now.
    fn wants(&self) -> u32 {
        let room = self.settings.max.saturating_sub(self.counts.total);
        let waiting = self.waiters.len().saturating_sub(self.on_their_way());
        let waiting = u32::try_from(waiting).unwrap_or(u32::MAX);
        let missing = self.settings.min.saturating_sub(self.counts.total);
        let wanted = waiting.max(missing).min(room);
        // A target that just failed is tried with one connection, not with many.
        if self.failures == 0 {
            wanted
        } else {
            wanted.min(1_u32.saturating_sub(self.counts.opening))
        }
    }

    /// Connections that will be offered to waiters.
    fn on_their_way(&self) -> usize {
        usize::try_from(self.counts.opening.saturating_add(self.validating)).unwrap_or(usize::MAX)
    }

    /// Takes a connection from the idle ones: closes it if it is too old, tests it if
    /// it was idle for long, else offers it.
    fn ready(&mut self, at: usize, now: Instant) {
        let Some(slot) = self.slot(at) else { return };
        if slot.retire_at <= now {
            self.close(at, Reason::Lifetime);
        } else if self.settings.validate_after < now.since(slot.proven_at) {
            self.validate(at, now);
        } else {
            self.offer(at, now);
        }
    }

    fn open(&mut self, now: Instant) {
        let free = self.slots.iter().position(Option::is_none);
        let at = free.unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        let Some(slot) = self.slots.get_mut(at) else { return };
        self.serial += 1;
        let connection = Connection((self.serial << PLACE_BITS) | at as u64);
        *slot = Some(Slot {
            connection,
            state: State::Opening { since: now },
            uses: 0,
            retire_at: Instant::MAX,
            proven_at: now,
        });
        self.counts.total += 1;
        self.counts.opening += 1;
        self.wake = self.wake.min(now.after(self.settings.connect_timeout));
        self.actions.push_back(Action::Open(connection));
    }

    /// Somebody wants a connection, and would wait for it until `deadline`. Among
    /// waiters a higher `priority` goes first, whoever waits longer within one.
    pub fn acquire(&mut self, priority: u8, deadline: Instant, now: Instant) -> Acquired {
        if self.draining {
            return Acquired::Draining;
        }
        if self.waiters.is_empty()
            && let Some(at) = self.idle.last().copied()
            && let Some(slot) = self.slot(usize::from(at))
            && now < slot.retire_at
            && now.since(slot.proven_at) <= self.settings.validate_after
        {
            self.idle.pop();
            let lease = self.lend(usize::from(at), now);
            return Acquired::Granted(slot.connection, lease);
        }
        if self.settings.max_waiters <= u32::try_from(self.waiters.len()).unwrap_or(u32::MAX) {
            self.counts.refused += 1;
            return Acquired::Full;
        }
        self.serial += 1;
        let waiter =
            Waiter((u64::from(u8::MAX - priority) << 45) | (self.serial & ((1 << 45) - 1)));
        self.waiters.insert(waiter, deadline);
        self.deadlines.insert((deadline, waiter));
        self.fill(now);
        Acquired::Waiting(waiter)
    }

    /// A waiter has left. Gives whether it was waiting; if not, its grant is under way
    /// and must be given back.
    pub fn cancel(&mut self, waiter: Waiter) -> bool {
        let Some(deadline) = self.waiters.remove(&waiter) else { return false };
        self.deadlines.remove(&(deadline, waiter));
        self.counts.cancelled += 1;
        true
    }

    /// A loan has ended; `broken` if the connection must not be lent again.
    ///
    /// # Errors
    ///
    /// The lease is not out. Nothing has changed.
    pub fn release(&mut self, lease: Lease, broken: bool, now: Instant) -> Result<(), StaleLease> {
        let at = place(lease.0);
        let leased =
            |slot: &&mut Slot| matches!(slot.state, State::Leased { lease: l, .. } if l == lease.0);
        let Some(slot) = self.slots.get_mut(at).and_then(Option::as_mut).filter(leased) else {
            self.counts.stale += 1;
            return Err(StaleLease);
        };
        slot.state = State::Idle { since: now };
        slot.proven_at = now;
        let (uses, retire_at) = (slot.uses, slot.retire_at);
        self.counts.leased -= 1;
        self.counts.released += 1;
        if broken {
            self.close(at, Reason::Broken);
        } else if self.draining || self.settings.max < self.counts.total {
            self.close(at, Reason::Surplus);
        } else if retire_at <= now {
            self.close(at, Reason::Lifetime);
        } else if 0 < self.settings.max_uses && self.settings.max_uses <= uses {
            self.close(at, Reason::Uses);
        } else {
            self.offer(at, now);
            return Ok(());
        }
        self.fill(now);
        Ok(())
    }

    /// A connection is open.
    pub fn opened(&mut self, connection: Connection, now: Instant, random: &mut Random) {
        let max_lifetime = self.settings.max_lifetime;
        let Some(slot) = self.find(connection) else { return };
        match slot.state {
            State::Opening { .. } => {
                slot.state = State::Idle { since: now };
                slot.proven_at = now;
                slot.retire_at = match max_lifetime {
                    Duration::MAX => Instant::MAX,
                    whole => now.after(whole).before(random.duration_below(whole / 10)),
                };
                let retire_at = slot.retire_at;
                self.wake = self.wake.min(retire_at);
                self.counts.opening -= 1;
                self.counts.opened += 1;
                self.failures = 0;
                self.retry_at = Instant::ZERO;
                self.offer(connection.place(), now);
                // The target is back: whoever still waits may get one as well.
                self.fill(now);
            }
            State::Abandoned => {
                self.counts.opened += 1;
                self.close(connection.place(), Reason::Timeout);
                self.fill(now);
            }
            _ => {}
        }
    }

    /// A connection could not be opened.
    pub fn failed(&mut self, connection: Connection, now: Instant, random: &mut Random) {
        let Some(slot) = self.find(connection) else { return };
        match slot.state {
            State::Opening { .. } => {
                self.counts.opening -= 1;
                self.remove(connection.place());
                self.back_off(now, random);
            }
            State::Abandoned => self.remove(connection.place()),
            _ => return,
        }
        self.fill(now);
    }

    fn back_off(&mut self, now: Instant, random: &mut Random) {
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX).max(1);
        let whole = self.settings.backoff.saturating_mul(factor).min(self.settings.backoff_at_most);
        // Between half and all of it: many pools must not come back as one.
        self.retry_at = now.after(whole / 2).after(random.duration_below(whole / 2));
        self.failures = self.failures.saturating_add(1).min(31);
        self.counts.failed += 1;
    }

    /// A test has ended; `good` if the connection may be lent.
    pub fn validated(&mut self, connection: Connection, good: bool, now: Instant) {
        let draining = self.draining;
        let Some(slot) = self.find(connection) else { return };
        let State::Validating { idle_since, .. } = slot.state else { return };
        slot.state = State::Idle { since: idle_since };
        slot.proven_at = now;
        self.validating -= 1;
        if !good {
            self.counts.invalid += 1;
            self.close(connection.place(), Reason::Broken);
        } else if draining {
            self.close(connection.place(), Reason::Surplus);
        } else {
            self.offer(connection.place(), now);
        }
        self.fill(now);
    }

    /// Changes the limits of a running pool; what is too many is closed when idle.
    pub fn resize(&mut self, min: u32, max: u32, now: Instant) {
        let max = max.clamp(1, MAX_CONNECTIONS);
        self.settings.max = max;
        self.settings.min = min.min(max);
        while self.settings.max < self.counts.total
            && let Some(at) = self.idle.pop()
        {
            self.close(usize::from(at), Reason::Surplus);
        }
        self.fill(now);
    }

    /// Begins to close: nobody new is let in, waiters are told, idle connections are
    /// closed, lent ones when they come back.
    pub fn drain(&mut self) {
        self.draining = true;
        self.deadlines.clear();
        while let Some((waiter, _)) = self.waiters.pop_first() {
            self.actions.push_back(Action::Fail(waiter, Failure::Draining));
        }
        while let Some(at) = self.idle.pop() {
            self.close(usize::from(at), Reason::Surplus);
        }
        for at in 0..self.slots.len() {
            self.abandon(at);
        }
    }

    /// Takes lent connections away and closes them: the last resort of a drain.
    pub fn revoke(&mut self) {
        for at in 0..self.slots.len() {
            if self.slot(at).is_some_and(|slot| matches!(slot.state, State::Leased { .. })) {
                self.counts.leased -= 1;
                self.close(at, Reason::Surplus);
            }
        }
    }

    /// Whether a drain is complete.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.draining && self.counts.total == 0
    }

    /// Does what has come due, and finds the next deadline.
    pub fn handle_deadline(&mut self, now: Instant, random: &mut Random) {
        while let Some(&(deadline, waiter)) = self.deadlines.first()
            && deadline <= now
        {
            self.deadlines.pop_first();
            self.waiters.remove(&waiter);
            self.counts.timed_out += 1;
            let why = if self.failures == 0 { Failure::Busy } else { Failure::Down };
            self.actions.push_back(Action::Fail(waiter, why));
        }
        self.wake = Instant::MAX;
        for at in 0..self.slots.len() {
            self.check(at, now, random);
        }
        self.fill(now);
    }

    /// What is due for one connection, and when the next thing will be.
    fn check(&mut self, at: usize, now: Instant, random: &mut Random) {
        let Some(slot) = self.slot(at) else { return };
        let settings = self.settings;
        let (connection, retire_at, proven_at) = (slot.connection, slot.retire_at, slot.proven_at);
        let mut due = |when: Instant| {
            let over = when <= now && when != Instant::MAX;
            if !over {
                self.wake = self.wake.min(when);
            }
            over
        };
        match slot.state {
            State::Opening { since } => {
                if due(since.after(settings.connect_timeout)) {
                    self.abandon(at);
                    self.back_off(now, random);
                }
            }
            State::Abandoned => {}
            State::Idle { since } => {
                let surplus = settings.min < self.counts.total;
                if due(retire_at) {
                    self.close_idle(at, Reason::Lifetime);
                } else if surplus && due(since.after(settings.idle_timeout)) {
                    self.close_idle(at, Reason::Idle);
                } else if due(proven_at.after(settings.keepalive)) {
                    self.idle.retain(|idle| usize::from(*idle) != at);
                    self.validate(at, now);
                }
            }
            State::Validating { since, .. } => {
                if due(since.after(settings.validate_timeout)) {
                    self.counts.invalid += 1;
                    self.close(at, Reason::Broken);
                }
            }
            State::Leased { lease, since, reported } => {
                if !reported && due(since.after(settings.leak_after)) {
                    self.counts.leaked += 1;
                    self.actions.push_back(Action::Leak(connection, Lease(lease)));
                    if let Some(slot) = self.slots.get_mut(at).and_then(Option::as_mut) {
                        slot.state = State::Leased { lease, since, reported: true };
                    }
                }
            }
        }
    }

    /// Gives an idle connection to the first waiter, or keeps it ready.
    fn offer(&mut self, at: usize, now: Instant) {
        let Some(slot) = self.slot(at) else { return };
        let connection = slot.connection;
        if let Some((waiter, deadline)) = self.waiters.pop_first() {
            self.deadlines.remove(&(deadline, waiter));
            let lease = self.lend(at, now);
            self.actions.push_back(Action::Grant(waiter, connection, lease));
        } else if let Ok(at) = u16::try_from(at) {
            self.idle.push(at);
            let next = self.settings.idle_timeout.min(self.settings.keepalive);
            self.wake = self.wake.min(now.after(next));
        }
    }

    fn lend(&mut self, at: usize, now: Instant) -> Lease {
        self.serial += 1;
        let lease = (self.serial << PLACE_BITS) | at as u64;
        if let Some(slot) = self.slots.get_mut(at).and_then(Option::as_mut) {
            slot.state = State::Leased { lease, since: now, reported: false };
            slot.uses = slot.uses.saturating_add(1);
        }
        self.counts.leased += 1;
        self.counts.granted += 1;
        if self.settings.leak_after != Duration::MAX {
            self.wake = self.wake.min(now.after(self.settings.leak_after));
        }
        Lease(lease)
    }

    fn validate(&mut self, at: usize, now: Instant) {
        let Some(slot) = self.slots.get_mut(at).and_then(Option::as_mut) else { return };
        let State::Idle { since: idle_since } = slot.state else { return };
        slot.state = State::Validating { since: now, idle_since };
        self.validating += 1;
        self.actions.push_back(Action::Validate(slot.connection));
        self.wake = self.wake.min(now.after(self.settings.validate_timeout));
    }

    /// Gives up an opening: its place stays taken until the edge says how it ended,
    /// for until then the target may have the connection.
    fn abandon(&mut self, at: usize) {
        let Some(slot) = self.slots.get_mut(at).and_then(Option::as_mut) else { return };
        if matches!(slot.state, State::Opening { .. }) {
            slot.state = State::Abandoned;
            self.counts.opening -= 1;
        }
    }

    fn close_idle(&mut self, at: usize, reason: Reason) {
        self.idle.retain(|idle| usize::from(*idle) != at);
        self.close(at, reason);
    }

    fn close(&mut self, at: usize, reason: Reason) {
        if let Some(slot) = self.slot(at) {
            if matches!(slot.state, State::Validating { .. }) {
                self.validating -= 1;
            }
            self.actions.push_back(Action::Close(slot.connection, reason));
            self.counts.closed += 1;
            self.remove(at);
        }
    }

    fn remove(&mut self, at: usize) {
        if self.slots.get_mut(at).and_then(Option::take).is_some() {
            self.counts.total -= 1;
        }
    }

    fn slot(&self, at: usize) -> Option<Slot> {
        self.slots.get(at).copied().flatten()
    }

    fn find(&mut self, connection: Connection) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(connection.place())?.as_mut()?;
        (slot.connection == connection).then_some(slot)
    }
}

#[cfg(test)]
mod tests;
