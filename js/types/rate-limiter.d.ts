import type { Clock, Emitter, WaitOptions } from './common.js';

/** `requests` each `perMs`, and up to `burst` at once (GCRA). */
export interface Quota {
  /** Requests in the long run, at least 1; at most one each microsecond. */
  requests: number;
  /** In this many milliseconds. */
  perMs: number;
  /** How many pass at once after a pause. Default: `requests`. */
  burst?: number | undefined;
  /**
   * Never more than `requests` in any window of `perMs`, wherever it starts. The
   * price is the long-run rate, `requests + 1 - burst` each `perMs`. Default: false.
   */
  strict?: boolean | undefined;
  /** The name shown to clients in `RateLimit-Policy`. Default: `default`, `quota1`, ... */
  name?: string | undefined;
}

export interface RateLimiterOptions {
  /** Tokens that a client may spend at once. 0: nothing ever passes. Default: 100. */
  rateLimit?: number | undefined;
  /** Tokens that come back each second, evenly, 0 to 1,000,000. 0: none. Default: 10. */
  refillRate?: number | undefined;
  /** Taken for compatibility, without effect: tokens come back evenly, not in steps. */
  refillInterval?: number | undefined;
  /** How long `acquire` waits, in milliseconds. Default: 30,000. */
  maxWaitTime?: number | undefined;
  /** Whether `acquire` waits at all. Default: true. */
  fairQueueing?: boolean | undefined;
  /** One to four quotas that a request must all meet, instead of `rateLimit`. */
  quotas?: readonly Quota[] | undefined;
  /**
   * How many clients are known at one time. The memory is taken at once, some 24
   * bytes for each client and quota. Default: 100,000.
   */
  maxClients?: number | undefined;
  /** How many may wait in all. Beyond it the longest client loses its last. Default: 10,000. */
  maxQueue?: number | undefined;
  /** How many clients `getStats().buckets` lists, the first ones seen. Default: 1000. */
  namedClients?: number | undefined;
  /** How many `enter`s of one client may be under way. Default: no bound. */
  concurrency?: number | undefined;
  /** How many `enter`s of all clients may be under way. Default: no bound. */
  totalConcurrency?: number | undefined;
  /** Where time comes from. Default: the system's. */
  clock?: Clock | undefined;
}

/** A client: text, or a whole number, which is the same as its text. */
export type ClientId = string | number | bigint;

export interface Decision {
  allowed: boolean;
  /** Tokens left after this decision. */
  remaining: number;
  /** Milliseconds until the whole burst is back. */
  resetMs: number;
  /** Milliseconds until the same request passes; 0 if it passed, Infinity if it never can. */
  retryAfterMs: number;
}

/** A bucket; `tokens` can be written. */
export interface Bucket {
  /** Tokens left. Writing is cut to the limit. */
  tokens: number;
  readonly limit: number;
  /** Tokens that come back each second. */
  readonly refillRate: number;
  readonly lastAccessTime: number;
}

export type Acquired =
  | { acquired: true; /** Milliseconds. */ waitTime: number }
  | { acquired: false; /** Milliseconds after which a try is worth it. */ waitTime: number; retryAfterMs: number };

export interface AcquireOptions extends WaitOptions {
  /** Whose limit to wait for; clients of one pool share it fairly. Default: the client's own. */
  pool?: ClientId | undefined;
}

/** A client that asks often. */
export interface LimiterHandle {
  readonly clientId: ClientId;
  isAllowed(tokens?: number, now?: number): boolean;
  check(tokens?: number, now?: number): Decision;
}

/** A permit of `enter`. */
export interface Permit {
  readonly clientId: ClientId;
  /** Gives it back; a second time does nothing. */
  leave(): void;
}

export interface RateLimiterStats {
  totalRequests: number;
  allowedRequests: number;
  deniedRequests: number;
  /** As `"50.00%"`. */
  allowRate: string;
  /** 0 to 1. */
  allowRatio: number;
  deniedBy: { limit: number; tooLarge: number; closed: number; timeout: number; queueFull: number; concurrency: number };
  /** Waiting now. */
  queuedRequests: number;
  cancelledRequests: number;
  concurrentRequests: number;
  activeBuckets: number;
  /** Forgotten while part of the burst was spent. */
  evictedBuckets: number;
  /** Denied because the table held only exhausted clients. */
  refusedBuckets: number;
  tableBytes: number;
  /** Times the module failed and was started anew. */
  restarts: number;
  buckets: Record<string, { tokens: number; limit: number; utilization: string; utilizationRatio: number; queueSize: number }>;
}

export interface RateLimiterEvents {
  denied: { clientId: ClientId; tokens: number; reason: 'limit' | 'too-large' | 'closed' | 'concurrency'; retryAfterMs: number };
  queued: { clientId: ClientId; tokens: number; waiting: number };
  dropped: { clientId: ClientId; tokens: number };
  timeout: { clientId: ClientId; tokens: number };
  /** The module failed; all buckets are full again. */
  restarted: object;
}

/**
 * Limits how often each client may do something.
 *
 * ```js
 * const limiter = new RateLimiter({ rateLimit: 10, refillRate: 5 });
 * if (!limiter.isAllowed('alice')) throw new Error('too many requests');
 * ```
 */
export declare class RateLimiter implements Emitter<RateLimiterEvents> {
  constructor(options?: RateLimiterOptions);
  /**
   * Whether a request of `tokens` (default 1) passes now; if so, they are spent.
   * `now` in milliseconds of the clock saves reading it.
   */
  isAllowed(clientId: ClientId, tokens?: number, now?: number): boolean;
  /** As {@link RateLimiter.isAllowed}, and tells what is left and when to come again. */
  check(clientId: ClientId, tokens?: number, now?: number): Decision;
  /** What is left; spends nothing. */
  peek(clientId: ClientId, now?: number): { remaining: number; resetMs: number };
  /** A client that asks often: its key is not written again each time. */
  handle(clientId: ClientId): LimiterHandle;
  /**
   * Waits until a request of `tokens` passes: in order within a client, fairly
   * between the clients of one pool. Rejects with a {@link TimeoutError} as soon as
   * it certainly would be late, with an {@link ImpossibleError} if it can never pass,
   * a {@link QueueFullError}, a {@link ShutdownError}, or the signal's reason.
   */
  acquire(clientId: ClientId, tokens?: number, options?: AcquireOptions): Promise<Acquired>;
  /** Spends what a request cost beyond its tokens; the client may end up in debt, by a burst at most. */
  charge(clientId: ClientId, tokens: number, now?: number): void;
  /** Gives back what was taken and not used. */
  refund(clientId: ClientId, tokens: number, now?: number): void;
  /** Takes one of the client's `concurrency` permits; undefined if there is none. */
  enter(clientId: ClientId): Permit | undefined;
  /**
   * Gives a client a limit of its own. What is left stays, cut to the new limit;
   * nothing is refilled. `null`: the common limit again. At most 100,000 clients.
   */
  setLimit(clientId: ClientId, limit: number, refillRate?: number): void;
  setLimit(clientId: ClientId, limit: { quotas: readonly Quota[] } | null): void;
  /** Gives a client its full burst. */
  resetBucket(clientId: ClientId): void;
  getBucket(clientId: ClientId): Bucket;
  getStats(): RateLimiterStats;
  /** The counters in Prometheus' text format. */
  prometheus(labels?: Record<string, string>): string;
  /** Forgets the names of clients whose bucket is full; gives how many. */
  cleanupIdleBuckets(idleTime?: number): number;
  /** The quotas of clients without their own. */
  readonly quotas: readonly Required<Quota>[];
  on<Name extends keyof RateLimiterEvents>(name: Name, listener: (detail: RateLimiterEvents[Name]) => void): () => void;
  off<Name extends keyof RateLimiterEvents>(name: Name, listener: (detail: RateLimiterEvents[Name]) => void): void;
  /**
   * Takes no more waiters. Those who wait are served until `deadlineMs` from now
   * (default 0: at once), then rejected with a {@link ShutdownError}. Decisions go on.
   */
  shutdown(options?: { deadlineMs?: number | undefined }): Promise<void>;
}
