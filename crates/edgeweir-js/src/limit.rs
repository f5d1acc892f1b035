//! The core's limiter for JS: `RateLimiter` in the package.

use core::time::Duration;

use edgeweir::hash::HashSeed;
use edgeweir::limit::address::parse_address;
use edgeweir::limit::{
    Action, AddressPrefix, Answer as Asked, Busy, Decision, Level, Limit, Limiter, Permits, Quota,
    Refusal, Ticket, WaitingLimiter,
};
use wasm_bindgen::prelude::*;

use crate::border::{Answer, KeyBuffer, count, instant, millis, moment, nanos};

const ALLOWED: u32 = 0;
const DENIED: u32 = 1;
const TOO_LARGE: u32 = 2;
const WAITS: u32 = 3;
/// Added to an answer when the key took a place that was empty: JS may note its name.
const NEW: u32 = 8;

/// Many keys under one limit, those who wait for their turn, and those under way.
///
/// A check answers 0 (allowed), 1 (denied) or 2 (the cost can never pass), plus 8 if
/// the key was not known, and writes `[remaining, resetMs, retryMs, ticket]` for JS
/// to read.
#[wasm_bindgen]
pub struct RawLimiter {
    limiter: WaitingLimiter,
    permits: Permits,
    keys: KeyBuffer,
    answer: Answer<4>,
    handles: Vec<Box<[u8]>>,
    // Whether anybody waits: a check without waiters does not look for them.
    waits: bool,
    tally: Tally,
}

/// Decisions as callers see them. The core's limiter also counts each try on behalf
/// of one who waits, so a request that waited would be there twice.
#[derive(Default)]
struct Tally {
    allowed: u64,
    denied: u64,
    too_large: u64,
}

impl Tally {
    const fn count(&mut self, code: u32) -> u32 {
        match code {
            ALLOWED => self.allowed += 1,
            DENIED => self.denied += 1,
            _ => self.too_large += 1,
        }
        code
    }
}

#[wasm_bindgen]
impl RawLimiter {
    /// A limiter for about `max_keys` keys in front of which at most `max_waiting`
    /// requests wait; `quotas` is four numbers each: requests, milliseconds, burst,
    /// strict (0 or 1). `per_key` and `total` bound what is under way.
    ///
    /// # Errors
    ///
    /// A quota that cannot be, as `quotas[n].field: ...`, or too little memory.
    #[wasm_bindgen(constructor)]
    pub fn new(
        quotas: &[f64],
        max_keys: u32,
        max_waiting: u32,
        per_key: u32,
        total: u32,
        seed: &[u8],
    ) -> Result<Self, JsError> {
        let limit = limit(quotas)?;
        let seed = seed.try_into().map_err(|_| JsError::new("seed: must be 16 bytes"))?;
        let seed = HashSeed::from_bytes(seed);
        let limiter = Limiter::new(limit, max_keys as usize, seed)
            .map_err(|_| JsError::new(&format!("maxClients: no memory for {max_keys} clients")))?;
        Ok(Self {
            limiter: WaitingLimiter::new(limiter, max_waiting as usize),
            permits: Permits::new(per_key, total, seed),
            keys: KeyBuffer::new(),
            answer: Answer::new(),
            handles: Vec::new(),
            waits: false,
            tally: Tally::default(),
        })
    }

    /// Where JS writes the key.
    #[must_use]
    pub fn key_address(&self) -> usize {
        self.keys.address()
    }

    /// How many bytes of key fit.
    #[must_use]
    pub fn key_capacity(&self) -> usize {
        self.keys.capacity()
    }

    /// Makes room for a key of `bytes`; false if keys are never that long.
    pub fn reserve_key(&mut self, bytes: usize) -> bool {
        self.keys.reserve(bytes)
    }

    /// Where JS reads the numbers of the last call.
    #[must_use]
    pub fn answer_address(&self) -> usize {
        self.answer.address()
    }

    /// Decides a request of the key in the buffer. Who waits for this key goes first.
    pub fn check(&mut self, key: usize, cost: u32, now: f64) -> u32 {
        let key = self.keys.get(key);
        let known = self.limiter.limiter().counts().keys;
        let code = check(&mut self.limiter, self.waits, &mut self.answer, key, cost, now);
        let new = known < self.limiter.limiter().counts().keys;
        self.tally.count(code) | if new { NEW } else { 0 }
    }

    /// A number that stands for the key in the buffer from now on.
    pub fn handle(&mut self, key: usize) -> u32 {
        self.handles.push(self.keys.get(key).into());
        u32::try_from(self.handles.len() - 1).unwrap_or(u32::MAX)
    }

    /// As [`RawLimiter::check`], for a handle.
    pub fn check_handle(&mut self, handle: u32, cost: u32, now: f64) -> u32 {
        let key = self.handles.get(handle as usize).map_or(&[][..], |key| key);
        self.tally.count(check(&mut self.limiter, self.waits, &mut self.answer, key, cost, now))
    }

    /// A request of the key whose bytes come first in the buffer, against the pool
    /// whose `pool` bytes follow it at the next word (none: the key's own), that may
    /// wait until `deadline`. Answers as a check does, or 3: it waits as `ticket`.
    pub fn request(&mut self, key: usize, pool: usize, cost: u32, deadline: f64, now: f64) -> u32 {
        let client = self.keys.get(key);
        let all = self.keys.get(key.next_multiple_of(4).saturating_add(pool));
        let key = if pool == 0 { client } else { all.get(all.len() - pool..).unwrap_or(client) };
        let now = instant(now);
        let asked = self.limiter.request(key, client, cost, instant(deadline), now);
        self.waits = 0 < self.limiter.counts().waiting;
        match asked {
            Asked::Pass(decision) => self.tally.count(tell(&mut self.answer, decision)),
            Asked::Wait(ticket) => {
                self.answer.set([0.0, 0.0, 0.0, count(ticket.number())]);
                WAITS
            }
            Asked::Refuse(refusal, decision) => {
                tell(&mut self.answer, decision);
                if matches!(refusal, Refusal::TooLarge) {
                    self.tally.count(TOO_LARGE);
                }
                refused(refusal)
            }
        }
    }

    /// Takes a waiter out; false if it does not wait any more.
    pub fn cancel(&mut self, ticket: f64) -> bool {
        let gone = self.limiter.cancel(Ticket::from_number(number(ticket)));
        self.waits = 0 < self.limiter.counts().waiting;
        gone
    }

    /// Serves and refuses those who are due.
    pub fn handle_deadline(&mut self, now: f64) {
        self.limiter.handle_deadline(instant(now));
        self.waits = 0 < self.limiter.counts().waiting;
    }

    /// When [`RawLimiter::handle_deadline`] is due, in milliseconds of the caller's
    /// clock; infinite if never.
    #[must_use]
    pub fn deadline(&self) -> f64 {
        self.limiter.deadline().map_or(f64::INFINITY, moment)
    }

    /// The next waiter that is done: 0 (none), 1 (it passed), or why it did not: 2
    /// (too large), 4 (its time is over), 5 (the queue is full), 6 (closed). Writes
    /// the ticket and how many milliseconds it waited.
    pub fn next_action(&mut self) -> u32 {
        let Some(action) = self.limiter.next_action() else { return 0 };
        let (code, ticket, waited) = match action {
            Action::Pass { ticket, waited } => (1, ticket, waited),
            Action::Refuse { ticket, reason } => (refused(reason), ticket, Duration::ZERO),
        };
        self.answer.set([0.0, 0.0, millis(waited), count(ticket.number())]);
        code
    }

    /// How many requests of the key in the buffer wait for its own limit.
    #[must_use]
    pub fn waiting(&self, key: usize) -> usize {
        let key = self.keys.get(key);
        self.limiter.waiting(key, key)
    }

    /// Refuses all who wait, and every later one.
    pub fn close(&mut self) {
        self.limiter.close();
        self.waits = false;
    }

    /// Writes what is left for the key in the buffer; spends nothing.
    pub fn peek(&mut self, key: usize, now: f64) {
        let level = self.limiter.limiter().peek(self.keys.get(key), instant(now));
        write(&mut self.answer, level, Duration::ZERO);
    }

    /// Spends `cost` of the key in the buffer without asking.
    pub fn charge(&mut self, key: usize, cost: u32, now: f64) {
        self.limiter.limiter().charge(self.keys.get(key), cost, instant(now));
    }

    /// Gives back `cost` to the key in the buffer.
    pub fn refund(&mut self, key: usize, cost: u32, now: f64) {
        let key = self.keys.get(key);
        self.limiter.limiter().refund(key, cost, instant(now));
        self.limiter.wake(key, instant(now));
    }

    /// Gives the key in the buffer its full burst again.
    pub fn reset(&mut self, key: usize, now: f64) {
        let key = self.keys.get(key);
        self.limiter.limiter().reset(key);
        self.limiter.wake(key, instant(now));
    }

    /// Sets what is spent of the key in the buffer, by a burst of debt at most.
    pub fn set_spent(&mut self, key: usize, spent: u32, now: f64) {
        let key = self.keys.get(key);
        let limiter = self.limiter.limiter();
        limiter.reset(key);
        limiter.charge(key, spent, instant(now));
        self.limiter.wake(key, instant(now));
    }

    /// Gives the key in the buffer a limit of its own; no numbers: the common one.
    /// False if too many keys have their own.
    ///
    /// # Errors
    ///
    /// A quota that cannot be.
    pub fn set_limit(&mut self, key: usize, quotas: &[f64], now: f64) -> Result<bool, JsError> {
        let own = if quotas.is_empty() { None } else { Some(limit(quotas)?) };
        let key = self.keys.get(key);
        let set = self.limiter.limiter().set_limit(key, own, instant(now));
        self.limiter.wake(key, instant(now));
        Ok(set)
    }

    /// Takes a permit for the key in the buffer: 0, or 1 if the key and 2 if all
    /// together have as many under way as they may.
    pub fn enter(&mut self, key: usize) -> u32 {
        let hash = self.limiter.limiter().hash(self.keys.get(key));
        match self.permits.acquire(hash) {
            Ok(()) => 0,
            Err(Busy::Key) => 1,
            Err(Busy::Total) => 2,
        }
    }

    /// Gives the permit of the key in the buffer back.
    pub fn leave(&mut self, key: usize) {
        let hash = self.limiter.limiter().hash(self.keys.get(key));
        self.permits.release(hash);
    }

    /// `[allowed, denied, tooLarge, refused, evicted, keys, tableBytes, waiting,
    /// passedAfterWaiting, timedOut, dropped, cancelled, underWay, busyKey, busyTotal]`.
    pub fn counts(&mut self) -> Vec<f64> {
        let queue = self.limiter.counts();
        let limiter = self.limiter.limiter();
        let counts = limiter.counts();
        let (busy_key, busy_total) = self.permits.denied();
        [
            self.tally.allowed + queue.passed,
            self.tally.denied,
            self.tally.too_large,
            counts.refused,
            counts.evicted,
            counts.keys as u64,
            limiter.table_bytes() as u64,
            queue.waiting as u64,
            queue.passed,
            queue.timed_out,
            queue.dropped,
            queue.cancelled,
            u64::from(self.permits.under_way()),
            busy_key,
            busy_total,
        ]
        .into_iter()
        .map(count)
        .collect()
    }
}

/// The network of a client's address as text, its first `v4` or `v6` bits: what a
/// limiter should count by. `None` if the text is no address.
#[wasm_bindgen]
#[must_use]
pub fn address_key(address: &str, v4: u8, v6: u8) -> Option<String> {
    let address = parse_address(address.as_bytes())?;
    let key = AddressPrefix::new(v4, v6).key(address);
    let network = core::net::Ipv6Addr::from(key);
    Some(match network.to_ipv4_mapped() {
        Some(v4) => v4.to_string(),
        None => network.to_string(),
    })
}

fn check(
    limiter: &mut WaitingLimiter,
    waits: bool,
    answer: &mut Answer<4>,
    key: &[u8],
    cost: u32,
    now: f64,
) -> u32 {
    let now = instant(now);
    if waits && limiter.is_waited_for(key) {
        // A newcomer never passes those who wait for the same limit.
        let level = limiter.limiter().peek(key, now);
        write(answer, level, level.reset);
        return DENIED;
    }
    tell(answer, limiter.limiter().check(key, cost, now))
}

fn tell(answer: &mut Answer<4>, decision: Decision) -> u32 {
    write(answer, decision.level(), decision.retry_after().unwrap_or_default());
    match decision {
        Decision::Allow(_) => ALLOWED,
        Decision::Deny { .. } => DENIED,
        Decision::TooLarge(_) => TOO_LARGE,
    }
}

const fn refused(refusal: Refusal) -> u32 {
    match refusal {
        Refusal::TooLarge => TOO_LARGE,
        Refusal::Timeout => 4,
        Refusal::Full => 5,
        Refusal::Closed => 6,
    }
}

fn write(answer: &mut Answer<4>, level: Level, retry_after: Duration) {
    answer.set([f64::from(level.remaining), millis(level.reset), millis(retry_after), 0.0]);
}

fn limit(quotas: &[f64]) -> Result<Limit, JsError> {
    let mut all = Vec::new();
    for (n, quota) in quotas.chunks_exact(4).enumerate() {
        let &[requests, ms, burst, strict] = quota else { continue };
        let (requests, burst) = (whole(requests), whole(burst));
        let per = Duration::from_nanos(nanos(ms));
        let quota = if strict == 0.0 {
            Quota::new(requests, per, burst)
        } else {
            Quota::strict(requests, per, burst)
        };
        all.push(quota.map_err(|error| JsError::new(&format!("quotas[{n}].{error}")))?);
    }
    Limit::new(all).map_err(|error| JsError::new(&error.to_string()))
}

/// JS has checked that these are whole numbers; what is not saturates.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
fn whole(number: f64) -> u32 {
    number as u32
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "saturates")]
fn number(ticket: f64) -> u64 {
    ticket as u64
}
