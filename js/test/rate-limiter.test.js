import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ImpossibleError, ManualClock, OptionError, QueueFullError, RateLimiter, ShutdownError, TimeoutError } from '../src/index.js';

const limiter = (options) => {
  const clock = new ManualClock();
  return [new RateLimiter({ clock, ...options }), clock];
};

test('a burst passes at once, then one token comes back at a time', async () => {
  const [l, clock] = limiter({ rateLimit: 3, refillRate: 2 });
  assert.deepEqual([1, 2, 3, 4].map(() => l.isAllowed('a')), [true, true, true, false]);
  assert.deepEqual(l.check('a'), { allowed: false, remaining: 0, resetMs: 1500, retryAfterMs: 500 });
  await clock.advance(499);
  assert.equal(l.isAllowed('a'), false);
  await clock.advance(1);
  assert.equal(l.isAllowed('a'), true);
  assert.equal(l.isAllowed('b'), true, 'another client is untouched');
});

test('now may be passed, and one that steps back refills nothing', () => {
  const [l] = limiter({ rateLimit: 1, refillRate: 1 });
  assert.equal(l.isAllowed('a', 1, 5000), true);
  assert.equal(l.isAllowed('a', 1, 4000), false);
  assert.equal(l.isAllowed('a', 1, 6000), true);
});

test('zero means zero', () => {
  const [none] = limiter({ rateLimit: 0 });
  assert.equal(none.isAllowed('a'), false);
  assert.equal(none.getStats().deniedBy.closed, 1);
  const [still, clock] = limiter({ rateLimit: 2, refillRate: 0 });
  assert.deepEqual([still.isAllowed('a'), still.isAllowed('a')], [true, true]);
  return clock.advance(365 * 86_400_000).then(() => assert.equal(still.isAllowed('a'), false));
});

test('tokens that could mint tokens are refused', () => {
  const [l] = limiter({ rateLimit: 10 });
  for (const tokens of [-1000, 0.5, NaN, Infinity, '1', null, 2 ** 32]) {
    assert.throws(() => l.isAllowed('a', tokens), OptionError, String(tokens));
  }
  assert.equal(l.getBucket('a').tokens, 10);
});

test('a client id that would be shared by mistake is refused', () => {
  const [l] = limiter({ rateLimit: 1 });
  for (const id of [undefined, null, {}, [], 1.5, NaN, true]) assert.throws(() => l.isAllowed(id), /clientId: must be a string/);
  assert.equal(l.isAllowed(7), true);
  assert.equal(l.isAllowed('7'), false, 'a number is its text');
});

test('hostile client ids are each their own', () => {
  const ids = ['__proto__', 'constructor', 'toString', '', ' ', '\0', '\ud800', '\ud801', '\ufffd', 'é', 'e\u0301', 'a'.repeat(3), 'a\0', 'a\0\0', '\u00ff\u00ff\u00ff\u00ffa',
    '\u0101', 'x'.repeat(100_000), `${'x'.repeat(99_999)}y`, 'é'.repeat(50_000), 'ab', 'a', 'abcd', 'abcde'];
  const [l] = limiter({ rateLimit: 1, refillRate: 0 });
  for (const id of ids) assert.equal(l.isAllowed(id), true, JSON.stringify(id.slice(0, 20)));
  for (const id of ids) assert.equal(l.isAllowed(id), false, JSON.stringify(id.slice(0, 20)));
  assert.equal(Object.hasOwn(l.getStats().buckets, '__proto__'), true);
  assert.throws(() => l.isAllowed('x'.repeat(2 ** 20 + 1)), /at most 1048576 characters/);
  assert.equal({}.polluted, undefined);
});

test('a handle is the same client', () => {
  const [l] = limiter({ rateLimit: 2 });
  const h = l.handle('hot');
  assert.equal(h.isAllowed(), true);
  assert.equal(l.isAllowed('hot'), true);
  assert.equal(h.isAllowed(), false);
  assert.equal(h.check().remaining, 0);
});

test('several quotas: a request that one denies is charged to none', async () => {
  const [l, clock] = limiter({ quotas: [{ requests: 2, perMs: 1000 }, { requests: 3, perMs: 60_000 }] });
  assert.deepEqual([1, 2, 3].map(() => l.isAllowed('a')), [true, true, false]);
  await clock.advance(1000);
  assert.deepEqual([1, 2].map(() => l.isAllowed('a')), [true, false]);
});

test('a strict quota never passes more than its requests in any window', async () => {
  const [l, clock] = limiter({ quotas: [{ requests: 10, perMs: 1000, burst: 5, strict: true }] });
  const passed = [];
  for (let ms = 0; ms < 5000; ms += 10) {
    if (l.isAllowed('a', 1, ms)) passed.push(ms);
  }
  for (const start of passed) assert.ok(passed.filter((ms) => ms >= start && ms < start + 1000).length <= 10);
  assert.ok(passed.length >= 25);
  void clock;
});

test('who waits is served when tokens come back, in order (seed: never served, and last first)', async () => {
  const [l, clock] = limiter({ rateLimit: 1, refillRate: 100 });
  l.isAllowed('a');
  const order = [];
  const waits = [1, 2, 3].map((n) => l.acquire('a').then((got) => order.push([n, got.waitTime])));
  assert.equal(l.isAllowed('a'), false, 'a newcomer does not pass those who wait');
  await clock.advance(10);
  assert.equal(l.isAllowed('a'), false, 'not even when a token is there');
  await clock.advance(20);
  await Promise.all(waits);
  assert.deepEqual(order, [[1, 10], [2, 20], [3, 30]]);
  assert.equal(clock.timers, 0);
});

test('one that is late does not take the others with it', async () => {
  const [l, clock] = limiter({ rateLimit: 1, refillRate: 10 });
  l.isAllowed('a');
  const first = l.acquire('a', 1, { timeoutMs: 150 });
  const second = assert.rejects(l.acquire('a', 1, { timeoutMs: 150 }), (e) => e instanceof TimeoutError && /Rate limit queue timeout for a/.test(e.message));
  const third = l.acquire('a', 1, { timeoutMs: 1000 });
  await clock.advance(300);
  assert.equal((await first).acquired, true);
  await second;
  assert.equal((await third).waitTime, 200);
});

test('a request that can never pass fails at once', async () => {
  const [l] = limiter({ rateLimit: 5 });
  await assert.rejects(l.acquire('a', 6), (e) => e instanceof ImpossibleError && /6 tokens can never pass: the limit of "a" is 5/.test(e.message));
  assert.equal(l.isAllowed('a', 6), false);
  assert.equal(l.check('a', 6).retryAfterMs, Infinity);
});

test('one that would be too late fails at once, and says when it could pass', async () => {
  const [l] = limiter({ rateLimit: 10, refillRate: 1, maxWaitTime: 100 });
  l.getBucket('a').tokens = 0;
  await assert.rejects(l.acquire('a', 10), (e) => e instanceof TimeoutError && /timeout/.test(e.message) && e.retryAfterMs === 10_000);
});

test('a full queue drops the last of the longest client', async () => {
  const [l, clock] = limiter({ rateLimit: 1, refillRate: 10, maxQueue: 3 });
  const [pool, dropped] = ['pool', []];
  l.on('dropped', ({ clientId }) => dropped.push(clientId));
  l.isAllowed(pool);
  const hog = [1, 2, 3].map(() => l.acquire('hog', 1, { pool }).then(() => 'hog', (e) => e));
  const mouse = l.acquire('mouse', 1, { pool }).then(() => 'mouse');
  assert.ok((await hog[2]) instanceof QueueFullError);
  await clock.advance(1000);
  assert.deepEqual(await Promise.all([hog[0], hog[1], mouse]), ['hog', 'hog', 'mouse']);
  assert.deepEqual(dropped, ['hog']);
});

test('clients of one pool get equal shares, whatever their backlog', async () => {
  const [l, clock] = limiter({ rateLimit: 1, refillRate: 10, maxWaitTime: 60_000 });
  l.isAllowed('pool');
  const order = [];
  for (let i = 0; i < 6; i++) l.acquire('hog', 1, { pool: 'pool' }).then(() => order.push('hog'));
  for (let i = 0; i < 2; i++) l.acquire('mouse', 1, { pool: 'pool' }).then(() => order.push('mouse'));
  await clock.advance(1000);
  assert.deepEqual(order.slice(0, 4), ['hog', 'mouse', 'hog', 'mouse']);
});

test('an aborted wait gives up its place and spends nothing', async () => {
  const [l, clock] = limiter({ rateLimit: 1, refillRate: 10 });
  l.isAllowed('a');
  const abort = new AbortController();
  const first = l.acquire('a', 1, { signal: abort.signal });
  const second = l.acquire('a');
  abort.abort(new Error('gone'));
  await assert.rejects(first, /gone/);
  await clock.advance(100);
  assert.equal((await second).waitTime, 100);
  await assert.rejects(l.acquire('a', 1, { signal: AbortSignal.abort(new Error('before')) }), /before/);
  await assert.rejects(l.acquire('a', 1, { signal: {} }), OptionError);
  assert.equal(clock.timers, 0);
  assert.equal(l.getStats().cancelledRequests, 1);
});

test('cleaning up does not touch who waits (seed: an uncaught TypeError)', async () => {
  const [l, clock] = limiter({ rateLimit: 1, refillRate: 10 });
  l.isAllowed('a');
  l.isAllowed('b');
  const waits = l.acquire('a');
  await clock.advance(50);
  l.cleanupIdleBuckets(0);
  await clock.advance(50);
  assert.equal((await waits).acquired, true);
});

test('without a queue a refusal says when to come again (seed: 0)', async () => {
  const [l] = limiter({ rateLimit: 1, refillRate: 2, fairQueueing: false });
  assert.deepEqual(await l.acquire('a'), { acquired: true, waitTime: 0 });
  assert.deepEqual(await l.acquire('a'), { acquired: false, waitTime: 500, retryAfterMs: 500 });
});

test('setLimit refills nothing, needs no rate, and survives cleaning', async () => {
  const [l, clock] = limiter({ rateLimit: 10, refillRate: 1 });
  l.isAllowed('a', 10);
  l.setLimit('a', 100);
  assert.equal(l.getBucket('a').tokens, 0, 'no free burst');
  assert.equal(l.getBucket('a').refillRate, 1, 'the rate stays');
  await clock.advance(1000);
  assert.equal(l.getBucket('a').tokens, 1);
  l.setLimit('b', 2, 0.5);
  assert.equal(l.isAllowed('b', 3), false);
  l.cleanupIdleBuckets();
  assert.equal(l.getBucket('b').limit, 2);
  l.setLimit('b', 0);
  assert.equal(l.isAllowed('b'), false);
  await assert.rejects(l.acquire('b'), ImpossibleError);
  l.setLimit('b', null);
  assert.equal(l.getBucket('b').limit, 10);
  assert.throws(() => l.setLimit('b', -1), /limit: must be a whole number/);
  assert.throws(() => l.setLimit('b', 5, NaN), /refillRate: must be a number/);
});

test('a raised limit serves who waits', async () => {
  const [l, clock] = limiter({ rateLimit: 1, refillRate: 0.1 });
  l.isAllowed('a');
  const waits = l.acquire('a');
  l.resetBucket('a');
  await clock.advance(0);
  assert.equal((await waits).acquired, true);
});

test('a bucket can be read and written', () => {
  const [l] = limiter({ rateLimit: 10 });
  const bucket = l.getBucket('a');
  bucket.tokens = 0;
  assert.equal(l.isAllowed('a'), false);
  bucket.tokens = 4;
  assert.equal(bucket.tokens, 4);
  bucket.tokens = 1e9;
  assert.equal(bucket.tokens, 10);
  assert.deepEqual([bucket.limit, bucket.refillRate], [10, 10]);
});

test('every decision is counted once (seed: "500.00%")', async () => {
  const [l, clock] = limiter({ rateLimit: 1, refillRate: 10 });
  l.isAllowed('a');
  l.isAllowed('a');
  const waits = l.acquire('a');
  await clock.advance(100);
  await waits;
  const stats = l.getStats();
  assert.deepEqual([stats.totalRequests, stats.allowedRequests, stats.deniedRequests, stats.allowRate], [3, 2, 1, '66.67%']);
  assert.equal(stats.buckets.a.utilization, '100.00%');
  assert.match(l.prometheus({ app: 'x"y' }), /edgeweir_limit_decisions_total\{app="x\\"y",decision="allow"\} 2\n/);
});

test('memory is bounded whatever the clients are called', () => {
  const [l] = limiter({ rateLimit: 5, maxClients: 1000 });
  for (let i = 0; i < 50_000; i++) l.isAllowed(`flood-${i}`);
  const stats = l.getStats();
  assert.ok(stats.activeBuckets <= 2048, String(stats.activeBuckets));
  assert.ok(Object.keys(stats.buckets).length <= 1000);
});

test('concurrency permits come back, once', () => {
  const [l] = limiter({ concurrency: 1, totalConcurrency: 2 });
  const a = l.enter('a');
  assert.equal(l.enter('a'), undefined);
  const b = l.enter('b');
  assert.equal(l.enter('c'), undefined);
  a.leave();
  a.leave();
  assert.equal(l.getStats().concurrentRequests, 1);
  b.leave();
  assert.equal(l.getStats().deniedBy.concurrency, 2);
});

test('shutdown rejects who waits, at once or after a deadline', async () => {
  const [now] = limiter({ rateLimit: 1, refillRate: 10 });
  now.isAllowed('a');
  const rejected = assert.rejects(now.acquire('a'), (e) => e instanceof ShutdownError && e.message === 'Rate limiter shutdown');
  now.shutdown();
  await rejected;
  await assert.rejects(now.acquire('a'), ShutdownError);

  const [later, clock] = limiter({ rateLimit: 1, refillRate: 10 });
  later.isAllowed('a');
  const served = later.acquire('a');
  const late = assert.rejects(later.acquire('a'), ShutdownError);
  const done = later.shutdown({ deadlineMs: 150 });
  await clock.advance(200);
  await Promise.all([served, late, done]);
  assert.equal(clock.timers, 0);
});

test('wrong options say what was given and what would do', () => {
  const table = [
    [{ ratelimit: 5 }, /RateLimiter\.ratelimit: there is no such option; did you mean "rateLimit"\?/],
    [{ rateLimit: -1 }, /RateLimiter\.rateLimit: must be a whole number from 0 to 4294967295, got -1/],
    [{ rateLimit: '5' }, /got "5"/],
    [{ refillRate: 2e6 }, /refillRate: must be a number from 0 to 1000000, got 2000000/],
    [{ fairQueueing: 'yes' }, /must be true or false, got "yes"/],
    [{ clock: {} }, /clock: must be an object with the methods now, unixMs/],
    [{ quotas: [] }, /quotas: must be 1 to 4 of them, got 0/],
    [{ quotas: [{ requests: 5 }] }, /quotas\[0\]\.perMs: is missing/],
    [{ quotas: [{ requests: 5, perMs: 1000, burst: 6, strict: true }] }, /quotas\[0\]\.burst: must be at most requests \(5\) in a strict window, got 6/],
    [{ quotas: [{ requests: 5, perMs: 1000, brust: 6 }] }, /quotas\[0\]\.brust: there is no such option; did you mean "burst"/],
    [{ rateLimit: 1, quotas: [{ requests: 5, perMs: 1000 }] }, /cannot be given together with rateLimit/],
    [null, /options must be an object, got null/],
    [JSON.parse('{"__proto__": 1}'), /__proto__: there is no such option/],
  ];
  for (const [options, message] of table) assert.throws(() => new RateLimiter(options), message);
});

test('events are typed, and a wrong name is refused', () => {
  const [l] = limiter({ rateLimit: 1 });
  const seen = [];
  const off = l.on('denied', (detail) => seen.push(detail));
  l.isAllowed('a');
  l.isAllowed('a');
  off();
  l.isAllowed('a');
  assert.deepEqual(seen, [{ clientId: 'a', tokens: 1, reason: 'limit', retryAfterMs: 100 }]);
  assert.throws(() => l.on('denid', () => {}), /did you mean 'denied'/);
});
