// Never run: `tsc --strict` accepts the good lines and refuses the bad ones.
import { createServer } from 'node:http';
import { ManualClock, RateLimiter, TimeoutError, guard, rateLimit } from 'edgeweir';

const limiter = new RateLimiter({ rateLimit: 10, refillRate: 0.5, clock: new ManualClock() });
const allowed: boolean = limiter.isAllowed('alice', 2, 5);
const { remaining, retryAfterMs } = limiter.check(7n);
const got = await limiter.acquire('alice', 1, { signal: AbortSignal.timeout(5), timeoutMs: 5, pool: 'db' });
if (!got.acquired) got.retryAfterMs.toFixed();
limiter.getBucket('alice').tokens = 0;
limiter.setLimit('alice', null);
limiter.setLimit('alice', { quotas: [{ requests: 1, perMs: 1000 }] });
const off: () => void = limiter.on('denied', ({ reason }) => reason === 'limit');
createServer((req, res) => {
  if (!guard(limiter, { key: (r: typeof req) => r.url ?? '' })(req, res)) return;
  rateLimit(limiter)(req, res, () => res.end());
});
try {
  limiter.isAllowed('a');
} catch (error) {
  if (error instanceof TimeoutError) error.code satisfies 'EDGEWEIR_TIMEOUT';
}
void [allowed, remaining, retryAfterMs, off];

// @ts-expect-error no such option
new RateLimiter({ ratelimit: 10 });
// @ts-expect-error a client must be said
limiter.isAllowed(undefined);
// @ts-expect-error no such event
limiter.on('deny', () => {});
// @ts-expect-error the limit is not written
limiter.getBucket('alice').limit = 5;
