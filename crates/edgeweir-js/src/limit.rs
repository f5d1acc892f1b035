//! The core's limiter for JS: `RateLimiter` in the package.

use core::time::Duration;

use edgeweir::hash::HashSeed;
use edgeweir::limit::{Decision, Level, Limit, Limiter, Quota};
use wasm_bindgen::prelude::*;

use crate::border::{Answer, KeyBuffer, count, instant, millis, nanos};

/// Many keys under one limit, and handles for hot ones.
///
/// A check answers 0 (allowed), 1 (denied) or 2 (the cost can never pass), and
/// writes `[remaining, resetMs, retryMs]` for JS to read.
#[wasm_bindgen]
pub struct RawLimiter {
    limiter: Limiter,
    keys: KeyBuffer,
    answer: Answer<3>,
    handles: Vec<Box<[u8]>>,
}

#[wasm_bindgen]
impl RawLimiter {
    /// A limiter for about `max_keys` keys; `quotas` is four numbers each: requests,
    /// milliseconds, burst, strict (0 or 1).
    ///
    /// # Errors
    ///
    /// A quota that cannot be, as `quotas[n].field: ...`, or too little memory.
    #[wasm_bindgen(constructor)]
    pub fn new(quotas: &[f64], max_keys: u32, seed: &[u8]) -> Result<Self, JsError> {
        let limit = limit(quotas)?;
        let seed = HashSeed::from_bytes(seed.try_into().map_err(|_| JsError::new("seed: 16 bytes"))?);
        let limiter = Limiter::new(limit, max_keys as usize, seed)
            .map_err(|_| JsError::new(&format!("maxClients: no memory for {max_keys} clients")))?;
        Ok(Self { limiter, keys: KeyBuffer::new(), answer: Answer::new(), handles: Vec::new() })
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

    /// Where JS reads the numbers of the last check.
    #[must_use]
    pub fn answer_address(&self) -> usize {
        self.answer.address()
    }

    /// Decides a request of the key in the buffer.
    pub fn check(&mut self, key: usize, cost: u32, now: f64) -> u32 {
        let decision = self.limiter.check(self.keys.get(key), cost, instant(now));
        answer(&mut self.answer, decision)
    }

    /// A number that stands for the key in the buffer from now on.
    pub fn handle(&mut self, key: usize) -> u32 {
        self.handles.push(self.keys.get(key).into());
        u32::try_from(self.handles.len() - 1).unwrap_or(u32::MAX)
    }

    /// As [`RawLimiter::check`], for a handle.
    pub fn check_handle(&mut self, handle: u32, cost: u32, now: f64) -> u32 {
        let key = self.handles.get(handle as usize).map_or(&[][..], |key| key);
        let decision = self.limiter.check(key, cost, instant(now));
        answer(&mut self.answer, decision)
    }

    /// Writes what is left for the key in the buffer; spends nothing.
    pub fn peek(&mut self, key: usize, now: f64) {
        let level = self.limiter.peek(self.keys.get(key), instant(now));
        write(&mut self.answer, level, Duration::ZERO);
    }

    /// Spends `cost` of the key in the buffer without asking.
    pub fn charge(&mut self, key: usize, cost: u32, now: f64) {
        self.limiter.charge(self.keys.get(key), cost, instant(now));
    }

    /// Gives back `cost` to the key in the buffer.
    pub fn refund(&mut self, key: usize, cost: u32, now: f64) {
        self.limiter.refund(self.keys.get(key), cost, instant(now));
    }

    /// Gives the key in the buffer its full burst again.
    pub fn reset(&mut self, key: usize) {
        self.limiter.reset(self.keys.get(key));
    }

    /// Gives the key in the buffer a limit of its own; no numbers: the common one.
    /// False if too many keys have their own.
    ///
    /// # Errors
    ///
    /// A quota that cannot be.
    pub fn set_limit(&mut self, key: usize, quotas: &[f64], now: f64) -> Result<bool, JsError> {
        let own = if quotas.is_empty() { None } else { Some(limit(quotas)?) };
        Ok(self.limiter.set_limit(self.keys.get(key), own, instant(now)))
    }

    /// `[allowed, denied, tooLarge, refused, evicted, keys, tableBytes]`.
    #[must_use]
    pub fn counts(&self) -> Vec<f64> {
        let c = self.limiter.counts();
        let sizes = [c.keys as u64, self.limiter.table_bytes() as u64];
        let all = [c.allowed, c.denied, c.too_large, c.refused, c.evicted];
        all.into_iter().chain(sizes).map(count).collect()
    }
}

fn answer(answer: &mut Answer<3>, decision: Decision) -> u32 {
    write(answer, decision.level(), decision.retry_after().unwrap_or_default());
    match decision {
        Decision::Allow(_) => 0,
        Decision::Deny { .. } => 1,
        Decision::TooLarge(_) => 2,
    }
}

fn write(answer: &mut Answer<3>, level: Level, retry_after: Duration) {
    answer.set([f64::from(level.remaining), millis(level.reset), millis(retry_after)]);
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
