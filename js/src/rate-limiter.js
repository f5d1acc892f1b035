// RateLimiter. In the words of the core: a client id is a key, a bucket is a key's
// state under one or several quotas, `tokens` is the cost of a request.
//
// The hot path is `isAllowed`: the key is packed into the module's memory, one call
// with three numbers decides, nothing is allocated.
import { onAbort, throwIfAborted } from './abort.js';
import { clockOption } from './clock.js';
import { Driver } from './driver.js';
import { Engine, MAX_KEY, seed, writeKey } from './engine.js';
import { ImpossibleError, OptionError, QueueFullError, ShutdownError, TimeoutError } from './errors.js';
import { Events } from './events.js';
import { percent, prometheusText } from './metrics.js';
import { bool, group, list, millis, readOptions, real, show, text, whole } from './options.js';

const MAX_TOKENS = 2 ** 32 - 1;
/** A bucket that never refills: one that needs ten years for its whole burst. */
const NEVER_MS = 10 * 365 * 86_400_000 - 1;

const engine = new Engine();

const QUOTA = {
  requests: whole({ min: 1, max: MAX_TOKENS }),
  perMs: real({ min: 0.001 }),
  burst: whole({ min: 1, max: MAX_TOKENS }),
  strict: bool({ default: false }),
  name: text(),
};

const OPTIONS = {
  rateLimit: whole({ min: 0, max: MAX_TOKENS, default: 100 }),
  refillRate: real({ min: 0, max: 1e6, default: 10 }),
  refillInterval: millis({ default: 1000 }),
  maxWaitTime: millis({ default: 30_000 }),
  fairQueueing: bool({ default: true }),
  quotas: list(group(QUOTA)),
  maxClients: whole({ min: 1, max: 50_000_000, default: 100_000 }),
  maxQueue: whole({ min: 0, max: 10_000_000, default: 10_000 }),
  namedClients: whole({ min: 0, max: 1_000_000, default: 1000 }),
  concurrency: whole({ min: 1, max: MAX_TOKENS, default: MAX_TOKENS }),
  totalConcurrency: whole({ min: 1, max: MAX_TOKENS, default: MAX_TOKENS }),
  clock: clockOption,
};

const ALLOWED = 0;
const DENIED = 1;
const TOO_LARGE = 2;
const WAITS = 3;
const NEW = 8;

/** The numbers that the raw layer takes for a list of quotas. */
function numbers(quotas) {
  return Float64Array.from(quotas.flatMap((q) => [q.requests, q.perMs, q.burst, q.strict ? 1 : 0]));
}

/** `limit` tokens at once, `rate` of them back each second, as one quota. */
function simpleQuota(limit, rate, path) {
  if (!(rate >= 0 && rate <= 1e6)) throw new OptionError(path, `must be a number from 0 to 1000000 (tokens each second), got ${show(rate)}`, rate);
  const perMs = rate === 0 ? Math.floor(NEVER_MS / limit) : 1000;
  const whole = rate !== 0 && Number.isInteger(rate);
  return {
    requests: whole ? rate : 1,
    perMs: whole || rate === 0 ? perMs : 1000 / rate,
    burst: limit,
    strict: false,
    name: 'default',
  };
}

export class RateLimiter {
  #options;
  #clock;
  #quotas;
  #raw;
  #generation = 0;
  #words = new Int32Array(0);
  #answers;
  #at = 0;
  #room = 0;
  #closedToAll;
  // Clients with a limit of their own, for a new instance; `undefined`: nothing passes.
  #own = new Map();
  #shut = new Set();
  #names = new Set();
  #waiters = new Map();
  #driver;
  #events = new Events(['denied', 'queued', 'dropped', 'timeout', 'restarted']);
  #shutdown = false;
  #idle;
  #counts = { closed: 0, restarts: 0, keyless: 0 };

  constructor(options) {
    this.#options = readOptions('RateLimiter', options, OPTIONS);
    const { clock, quotas, rateLimit, refillRate } = this.#options;
    if (quotas !== undefined && options.rateLimit !== undefined) {
      throw new OptionError('RateLimiter.quotas', 'cannot be given together with rateLimit: say it in one of them', quotas);
    }
    this.#clock = clock;
    this.#closedToAll = quotas === undefined && rateLimit === 0;
    this.#quotas = readQuotas(quotas) ?? [simpleQuota(Math.max(1, rateLimit), refillRate, 'RateLimiter.refillRate')];
    this.#driver = new Driver(() => this.#wake(), clock);
    this.#attach();
  }

  /** Whether a request of `tokens` passes now; if so, they are spent. */
  isAllowed(clientId, tokens = 1, now = this.#clock.now()) {
    return this.#decide(clientId, tokens, now) === ALLOWED;
  }

  /** As `isAllowed`, and tells what is left and when to come again. */
  check(clientId, tokens = 1, now = this.#clock.now()) {
    return this.#decision(this.#decide(clientId, tokens, now));
  }

  /** What is left for a client; spends nothing. */
  peek(clientId, now = this.#clock.now()) {
    const key = this.#key(clientId);
    if (this.#closedFor(clientId)) return { remaining: 0, resetMs: Infinity };
    this.#run((raw) => raw.peek(key, now));
    return { remaining: this.#answers[0], resetMs: this.#answers[1] };
  }

  /** A client that asks often: its key is hashed from memory, not written again. */
  handle(clientId) {
    let generation = 0;
    let handle = 0;
    const decide = (tokens, now) => {
      checkTokens(tokens);
      if (this.#closedToAll || (this.#shut.size !== 0 && this.#shut.has(clientId))) return this.#closed(clientId, tokens);
      if (generation !== this.#generation || this.#generation !== engine.generation) {
        const key = this.#key(clientId);
        handle = this.#run((raw) => raw.handle(key));
        generation = this.#generation;
      }
      let code;
      try {
        code = this.#raw.check_handle(handle, tokens, now);
      } catch (error) {
        throw this.#fault(error);
      }
      return code === ALLOWED ? code : this.#after(code, clientId, tokens);
    };
    this.#key(clientId);
    return Object.freeze({
      clientId,
      isAllowed: (tokens = 1, now = this.#clock.now()) => decide(tokens, now) === ALLOWED,
      check: (tokens = 1, now = this.#clock.now()) => this.#decision(decide(tokens, now)),
    });
  }

  /**
   * Waits until a request of `tokens` passes: in order within a client, fairly
   * between the clients of one `pool`.
   */
  async acquire(clientId, tokens = 1, options) {
    const { signal, timeoutMs = this.#options.maxWaitTime, pool } = options ?? {};
    throwIfAborted(signal);
    checkTokens(tokens);
    if (!(timeoutMs >= 0)) throw new OptionError('timeoutMs', `must be a number of milliseconds, at least 0, got ${show(timeoutMs)}`, timeoutMs);
    if (this.#shutdown) throw new ShutdownError('Rate limiter shutdown');
    if (this.#closedFor(pool ?? clientId)) {
      this.#closed(clientId, tokens);
      throw new ImpossibleError(`the limit of ${show(pool ?? clientId)} is 0: a request can never pass`);
    }
    const now = this.#clock.now();
    if (!this.#options.fairQueueing) return this.#acquireNow(pool ?? clientId, tokens, now);

    const [key, poolBytes] = this.#twoKeys(clientId, pool);
    const code = this.#run((raw) => raw.request(key, poolBytes, tokens, now + Math.min(timeoutMs, 1e15), now));
    if (code !== WAITS) this.#name(pool ?? clientId);
    if (code === ALLOWED) return { acquired: true, waitTime: 0 };
    if (code !== WAITS) {
      const retryAfterMs = this.#answers[2];
      this.#settle();
      throw this.#refusal(code, clientId, tokens, retryAfterMs);
    }
    const ticket = this.#answers[3];
    this.#name(pool ?? clientId);
    if (this.#events.has('queued')) this.#events.emit('queued', { clientId, tokens, waiting: this.#waiters.size + 1 });
    return new Promise((resolve, reject) => {
      const forget = onAbort(signal, (reason) => {
        if (!this.#waiters.delete(ticket)) return;
        this.#run((raw) => raw.cancel(ticket));
        this.#settle();
        reject(reason);
      });
      this.#waiters.set(ticket, { resolve, reject, forget, clientId, tokens });
      this.#settle();
    });
  }

  /** Spends what a request cost beyond its tokens, known only afterwards. */
  charge(clientId, tokens, now = this.#clock.now()) {
    checkTokens(tokens);
    const key = this.#key(clientId);
    this.#run((raw) => raw.charge(key, tokens, now));
  }

  /** Gives back what was taken and not used. */
  refund(clientId, tokens, now = this.#clock.now()) {
    checkTokens(tokens);
    const key = this.#key(clientId);
    this.#run((raw) => raw.refund(key, tokens, now));
    this.#settle();
  }

  /**
   * Takes one of the client's `concurrency` permits, or gives undefined. Give it
   * back with `leave()`, which may be called twice, or let `using` do it.
   */
  enter(clientId) {
    const key = this.#key(clientId);
    if (this.#run((raw) => raw.enter(key)) !== 0) {
      if (this.#events.has('denied')) this.#events.emit('denied', { clientId, tokens: 0, reason: 'concurrency', retryAfterMs: 0 });
      return undefined;
    }
    const generation = this.#generation;
    let held = true;
    const leave = () => {
      if (!held) return;
      held = false;
      // The counts of an instance that failed are gone with it.
      if (generation !== engine.generation) return;
      const key = this.#key(clientId);
      this.#run((raw) => raw.leave(key));
    };
    return { clientId, leave, [Symbol.dispose ?? Symbol.for('Symbol.dispose')]: leave };
  }

  /**
   * Gives a client a limit of its own: what is left stays, cut to the new limit;
   * nothing is refilled. `null`: the common limit again.
   */
  setLimit(clientId, limit, refillRate) {
    const key = this.#key(clientId);
    if (limit === null) return this.#setOwn(key, clientId, undefined, false);
    if (typeof limit === 'object') {
      const { quotas } = readOptions('limit', limit, { quotas: list(group(QUOTA)) });
      if (quotas === undefined) throw new OptionError('limit.quotas', 'must be an array of quotas, got undefined', limit);
      return this.#setOwn(key, clientId, readQuotas(quotas), false);
    }
    OPTIONS.rateLimit.read(limit, 'limit');
    const rate = refillRate ?? this.#rateOf(clientId);
    const quotas = [simpleQuota(Math.max(1, limit), rate, 'refillRate')];
    return this.#setOwn(key, clientId, quotas, limit === 0);
  }

  /** Gives a client its full burst. */
  resetBucket(clientId) {
    const key = this.#key(clientId);
    const now = this.#clock.now();
    this.#run((raw) => raw.reset(key, now));
    this.#settle();
  }

  /** A client's bucket: `tokens` can be read and written. */
  getBucket(clientId) {
    this.#key(clientId);
    this.#name(clientId);
    const limiter = this;
    const quotas = () => limiter.#quotasOf(clientId);
    return {
      get tokens() {
        return limiter.peek(clientId).remaining;
      },
      set tokens(tokens) {
        limiter.#setTokens(clientId, tokens);
      },
      get limit() {
        return limiter.#closedFor(clientId) ? 0 : Math.min(...quotas().map((q) => q.burst));
      },
      get refillRate() {
        return limiter.#rateOf(clientId);
      },
      get lastAccessTime() {
        return limiter.#clock.unixMs();
      },
    };
  }

  /** What happened so far; every decision is counted once. */
  getStats() {
    const c = this.#numbers();
    const denied = c.denied + c.tooLarge + c.closed + c.timedOut + c.dropped;
    const allowed = c.allowed;
    const total = allowed + denied;
    const buckets = Object.create(null);
    const now = this.#clock.now();
    for (const id of this.#names) {
      const key = this.#key(id);
      const limit = this.#closedFor(id) ? 0 : Math.min(...this.#quotasOf(id).map((q) => q.burst));
      const { remaining } = this.peek(id, now);
      const used = limit === 0 ? 1 : 1 - Math.min(remaining, limit) / limit;
      buckets[id] = {
        tokens: remaining,
        limit,
        utilization: percent(used),
        utilizationRatio: used,
        queueSize: this.#run((raw) => raw.waiting(key)),
      };
    }
    return {
      totalRequests: total,
      allowedRequests: allowed,
      deniedRequests: denied,
      allowRate: percent(total === 0 ? 0 : allowed / total),
      allowRatio: total === 0 ? 0 : allowed / total,
      deniedBy: {
        limit: c.denied,
        tooLarge: c.tooLarge,
        closed: c.closed,
        timeout: c.timedOut,
        queueFull: c.dropped,
        concurrency: c.busyClient + c.busyTotal,
      },
      queuedRequests: c.waiting,
      cancelledRequests: c.cancelled,
      concurrentRequests: c.underWay,
      activeBuckets: c.keys / this.#quotas.length,
      evictedBuckets: c.evicted,
      refusedBuckets: c.refused,
      tableBytes: c.tableBytes,
      restarts: c.restarts,
      buckets,
    };
  }

  /** The counters as Prometheus text. */
  prometheus(labels = {}) {
    const c = this.#numbers();
    const decisions = Object.entries({
      allow: c.allowed,
      deny: c.denied,
      too_large: c.tooLarge,
      closed: c.closed,
      timeout: c.timedOut,
      queue_full: c.dropped,
      concurrency: c.busyClient + c.busyTotal,
    });
    return prometheusText([
      ...decisions.map(([decision, n]) => ['edgeweir_limit_decisions_total', 'counter', 'Requests by decision.', n, { ...labels, decision }]),
      ['edgeweir_limit_waiting', 'gauge', 'Requests that wait for their turn.', c.waiting, labels],
      ['edgeweir_limit_keys', 'gauge', 'Keys in the table.', c.keys, labels],
      ['edgeweir_limit_evicted_total', 'counter', 'Keys forgotten while part of their burst was spent.', c.evicted, labels],
      ['edgeweir_limit_restarts_total', 'counter', 'Times the module failed and was started anew.', c.restarts, labels],
    ]);
  }

  /**
   * Forgets the names of clients whose bucket is full. The table needs no cleaning:
   * its size is fixed, and a full bucket takes no place. Gives how many.
   */
  cleanupIdleBuckets() {
    const now = this.#clock.now();
    let dropped = 0;
    for (const id of this.#names) {
      const key = this.#key(id);
      if (this.#own.has(id) || this.#closedFor(id) || this.#run((raw) => raw.waiting(key)) > 0) continue;
      if (this.peek(id, now).resetMs > 0) continue;
      this.#names.delete(id);
      dropped += 1;
    }
    return dropped;
  }

  /** The quotas of all clients without their own, for header fields. */
  get quotas() {
    return this.#quotas;
  }

  on(name, listener) {
    return this.#events.on(name, listener);
  }

  off(name, listener) {
    this.#events.off(name, listener);
  }

  /**
   * Takes no more waiters; those who wait are served until `deadlineMs` from now
   * (default: at once) and rejected then. Decisions go on.
   */
  shutdown({ deadlineMs = 0 } = {}) {
    if (!(deadlineMs >= 0)) throw new OptionError('deadlineMs', `must be a number of milliseconds, at least 0, got ${show(deadlineMs)}`, deadlineMs);
    this.#shutdown = true;
    if (deadlineMs === 0 || this.#waiters.size === 0) {
      this.#end();
      return Promise.resolve();
    }
    return new Promise((resolve) => {
      const end = new Driver(() => this.#end(), this.#clock);
      end.arm(this.#clock.now() + deadlineMs, true);
      this.#idle = () => {
        end.stop();
        resolve();
      };
    });
  }

  [Symbol.dispose ?? Symbol.for('Symbol.dispose')]() {
    this.shutdown();
  }

  [Symbol.asyncDispose ?? Symbol.for('Symbol.asyncDispose')]() {
    return this.shutdown();
  }

  // The hot path: nothing is allocated, and nothing but numbers crosses.
  #decide(clientId, tokens, now) {
    if (tokens !== 1) checkTokens(tokens);
    if (this.#closedToAll || this.#shut.size !== 0) {
      if (this.#closedFor(clientId)) return this.#closed(clientId, tokens);
    }
    const key = typeof clientId === 'string' && this.#generation === engine.generation && this.#words.length !== 0
      ? writeKey(this.#words, this.#at, this.#room, clientId)
      : -1;
    let code;
    try {
      code = this.#raw.check(key < 0 ? this.#key(clientId) : key, tokens, now);
    } catch (error) {
      throw this.#fault(error);
    }
    return code === ALLOWED ? code : this.#after(code, clientId, tokens);
  }

  /** What is left to do after a check that did not simply pass. */
  #after(code, clientId, tokens) {
    if (code >= NEW) {
      this.#name(clientId);
      code -= NEW;
    }
    if (code !== ALLOWED && this.#events.has('denied')) {
      const reason = code === TOO_LARGE ? 'too-large' : 'limit';
      this.#events.emit('denied', { clientId, tokens, reason, retryAfterMs: code === TOO_LARGE ? Infinity : this.#answers[2] });
    }
    return code;
  }

  #decision(code) {
    if (code === -1) return { allowed: false, remaining: 0, resetMs: Infinity, retryAfterMs: Infinity };
    const answers = this.#answers;
    return {
      allowed: code === ALLOWED,
      remaining: answers[0],
      resetMs: answers[1],
      retryAfterMs: code === TOO_LARGE ? Infinity : answers[2],
    };
  }

  #acquireNow(id, tokens, now) {
    const code = this.#decide(id, tokens, now);
    if (code === ALLOWED) return { acquired: true, waitTime: 0 };
    const retryAfterMs = code === DENIED ? this.#answers[2] : Infinity;
    return { acquired: false, waitTime: retryAfterMs, retryAfterMs };
  }

  #closedFor(id) {
    return (this.#closedToAll && !this.#own.has(id)) || this.#shut.has(id);
  }

  #closed(clientId, tokens) {
    this.#counts.closed += 1;
    if (this.#events.has('denied')) this.#events.emit('denied', { clientId, tokens, reason: 'closed', retryAfterMs: Infinity });
    return -1;
  }

  #setOwn(key, clientId, quotas, shut) {
    const now = this.#clock.now();
    const set = this.#run((raw) => raw.set_limit(key, quotas === undefined ? new Float64Array(0) : numbers(quotas), now));
    if (!set) throw new OptionError('clientId', 'too many clients have a limit of their own (100000): take one back with setLimit(id, null)', clientId);
    if (quotas === undefined) this.#own.delete(clientId);
    else this.#own.set(clientId, quotas);
    if (shut) this.#shut.add(clientId);
    else this.#shut.delete(clientId);
    this.#name(clientId);
    this.#settle();
  }

  #setTokens(clientId, tokens) {
    if (typeof tokens !== 'number' || Number.isNaN(tokens)) throw new OptionError('tokens', `must be a number, got ${show(tokens)}`, tokens);
    const key = this.#key(clientId);
    const now = this.#clock.now();
    const most = Math.min(...this.#quotasOf(clientId).map((q) => q.burst));
    const spent = Math.min(most - Math.floor(Math.min(tokens, most)), most * 2, MAX_TOKENS);
    this.#run((raw) => raw.set_spent(key, spent, now));
    this.#settle();
  }

  #quotasOf(id) {
    return this.#own.get(id) ?? this.#quotas;
  }

  #rateOf(id) {
    const [{ requests, perMs, burst }] = this.#quotasOf(id);
    return perMs === Math.floor(NEVER_MS / burst) ? 0 : (requests * 1000) / perMs;
  }

  /** Remembers a client's name for `getStats`, the first `namedClients` of them. */
  #name(id) {
    if (this.#names.size < this.#options.namedClients) this.#names.add(String(id));
  }

  /** Writes the key and gives its length, whatever it takes. */
  #key(clientId) {
    const id = keyText(clientId);
    this.#attach();
    const key = writeKey(this.#words, this.#at, this.#room, id);
    return key < 0 ? this.#longKey(id) : key;
  }

  #longKey(id) {
    if (id.length > MAX_KEY) throw new OptionError('clientId', `must be at most ${MAX_KEY} characters, got ${id.length}`, id);
    this.#reserve(id.length * 2 + 8);
    return writeKey(this.#words, this.#at, this.#room, id);
  }

  #reserve(bytes) {
    this.#run((raw) => raw.reserve_key(bytes));
    this.#view();
  }

  /** The client and behind it the pool, if that is another. */
  #twoKeys(clientId, pool) {
    if (pool === undefined) return [this.#key(clientId), 0];
    const [client, shared] = [keyText(clientId), keyText(pool)];
    this.#key(client);
    this.#key(shared);
    this.#reserve((client.length + shared.length) * 2 + 32);
    const key = writeKey(this.#words, this.#at, this.#room, client);
    const words = (key + 3) >> 2;
    return [key, writeKey(this.#words, this.#at + words, this.#room - words * 4, shared)];
  }

  /** Makes sure that there is an instance, and views over its memory. */
  #attach() {
    if (this.#generation === engine.generation && this.#generation !== 0 && this.#words.length !== 0) return;
    const { RawLimiter } = engine.raw;
    if (this.#generation !== engine.generation) {
      const o = this.#options;
      const restarted = this.#generation !== 0;
      try {
        this.#raw = new RawLimiter(numbers(this.#quotas), o.maxClients, o.maxQueue, o.concurrency, o.totalConcurrency, seed());
      } catch (error) {
        const found = engine.fault(error);
        throw found === error ? new OptionError('RateLimiter', error.message, undefined) : found;
      }
      this.#generation = engine.generation;
      this.#view();
      if (restarted) this.#restore();
    }
    this.#view();
  }

  #view() {
    const { buffer } = engine.memory;
    this.#words = new Int32Array(buffer);
    this.#at = this.#raw.key_address() >> 2;
    this.#room = this.#raw.key_capacity();
    this.#answers = new Float64Array(buffer, this.#raw.answer_address(), 4);
  }

  /** After a fault: own limits are set again, buckets start full, waiters are told. */
  #restore() {
    this.#counts.restarts += 1;
    for (const [id, quotas] of this.#own) {
      this.#raw.set_limit(this.#key(id), numbers(quotas), this.#clock.now());
    }
    this.#events.emit('restarted', {});
  }

  #run(call) {
    this.#attach();
    try {
      const result = call(this.#raw);
      // A call may have grown the memory, which ends the views.
      if (this.#words.length === 0) this.#view();
      return result;
    } catch (error) {
      throw this.#fault(error);
    }
  }

  #fault(error) {
    const found = engine.fault(error);
    if (found === error) return new OptionError('RateLimiter', error.message, undefined);
    for (const waiter of this.#waiters.values()) {
      waiter.forget?.();
      waiter.reject(found);
    }
    this.#waiters.clear();
    this.#driver.stop();
    return found;
  }

  #wake() {
    const now = this.#clock.now();
    this.#run((raw) => raw.handle_deadline(now));
    this.#settle();
  }

  /** Tells those who are done, and arms the timer for the others. */
  #settle() {
    for (;;) {
      const code = this.#run((raw) => raw.next_action());
      if (code === 0) break;
      const [, , waitTime, ticket] = this.#answers;
      const waiter = this.#waiters.get(ticket);
      if (waiter === undefined) continue;
      this.#waiters.delete(ticket);
      waiter.forget?.();
      if (code === 1) waiter.resolve({ acquired: true, waitTime });
      else waiter.reject(this.#refusal(code, waiter.clientId, waiter.tokens, 0));
    }
    this.#driver.arm(this.#waiters.size === 0 ? Infinity : this.#run((raw) => raw.deadline()), true);
    if (this.#waiters.size === 0) {
      this.#idle?.();
      this.#idle = undefined;
    }
  }

  #refusal(code, clientId, tokens, retryAfterMs) {
    if (code === TOO_LARGE) {
      const most = Math.min(...this.#quotasOf(clientId).map((q) => q.burst));
      return new ImpossibleError(`a request of ${tokens} tokens can never pass: the limit of ${show(clientId)} is ${most}`);
    }
    if (code === 5) {
      this.#events.emit('dropped', { clientId, tokens });
      return new QueueFullError(`Rate limit queue full for ${clientId}: ${this.#options.maxQueue} requests wait (maxQueue)`);
    }
    if (code === 6) return new ShutdownError('Rate limiter shutdown');
    this.#events.emit('timeout', { clientId, tokens });
    const error = new TimeoutError(`Rate limit queue timeout for ${clientId}`);
    if (retryAfterMs > 0) error.retryAfterMs = retryAfterMs;
    return error;
  }

  #end() {
    this.#run((raw) => raw.close());
    this.#settle();
  }

  #numbers() {
    const [allowed, denied, tooLarge, refused, evicted, keys, tableBytes, waiting, passed, timedOut, dropped, cancelled, underWay, busyClient, busyTotal] =
      this.#run((raw) => raw.counts());
    return {
      allowed,
      denied,
      tooLarge,
      refused,
      evicted,
      keys,
      tableBytes,
      waiting,
      passed,
      timedOut,
      dropped,
      cancelled,
      underWay,
      busyClient,
      busyTotal,
      closed: this.#counts.closed,
      restarts: this.#counts.restarts,
    };
  }
}

function readQuotas(quotas) {
  return quotas?.map((q, n) => {
    for (const name of ['requests', 'perMs']) {
      if (q[name] === undefined) throw new OptionError(`quotas[${n}].${name}`, 'is missing', undefined);
    }
    return { ...q, burst: q.burst ?? q.requests, name: q.name ?? (n === 0 ? 'default' : `quota${n}`) };
  });
}

function checkTokens(tokens) {
  if (Number.isInteger(tokens) && tokens >= 0 && tokens <= MAX_TOKENS) return;
  throw new OptionError('tokens', `must be a whole number from 0 to ${MAX_TOKENS}, got ${show(tokens)}`, tokens);
}

/** A client id as text: strings, and numbers that are exact. */
function keyText(clientId) {
  if (typeof clientId === 'string') return clientId;
  if (Number.isSafeInteger(clientId) || typeof clientId === 'bigint') return String(clientId);
  throw new OptionError('clientId', `must be a string (or a whole number), got ${show(clientId)}: all such clients would share one bucket`, clientId);
}

export default RateLimiter;
