import type { Decision, RateLimiter } from './rate-limiter.js';

/** A decision about a request, with the header fields that tell it. */
export interface HttpDecision extends Decision {
  clientId: string;
  fields: Record<string, string>;
}

export interface HttpLimitOptions<Request, Response> {
  /**
   * Whose turn a request is. Default: the network of `req.ip` or the peer's address.
   * Behind a proxy tell your framework which proxies to trust: a client can write
   * any `X-Forwarded-For`.
   */
  key?: ((req: Request) => string) | undefined;
  /** Tokens of a request. Default: 1. */
  cost?: ((req: Request) => number) | undefined;
  /** Requests that are not limited. Default: none. */
  skip?: ((req: Request) => boolean) | undefined;
  /** The status of a denial, 400 to 599. Default: 429. */
  statusCode?: number | undefined;
  /** Whether to send `RateLimit` and `RateLimit-Policy`. Default: true. */
  fields?: boolean | undefined;
  /** Whether to send `X-RateLimit-Limit`, `-Remaining` and `-Reset`. Default: false. */
  legacyFields?: boolean | undefined;
  /** Leading bits of an IPv4 address that make a client, 8 to 32. Default: 32. */
  ipv4Prefix?: number | undefined;
  /** Leading bits of an IPv6 address that make a client, 16 to 128. Default: 64. */
  ipv6Prefix?: number | undefined;
  /** Answers a denial instead of the default problem document. */
  onDenied?: ((req: Request, res: Response, next: (error?: unknown) => void, decision: HttpDecision) => unknown) | undefined;
}

interface AnyRequest {
  socket?: unknown;
}
interface AnyResponse {
  setHeader(name: string, value: string): unknown;
}

/** Middleware `(req, res, next)` for Express, Connect and their kin. */
export declare function rateLimit<Request extends AnyRequest = any, Response extends AnyResponse = any>(
  limiter: RateLimiter,
  options?: HttpLimitOptions<Request, Response>,
): (req: Request, res: Response, next: (error?: unknown) => void) => void;

/** For plain `http`: `if (!guarded(req, res)) return;` has answered the denied. */
export declare function guard<Request extends AnyRequest = any, Response extends AnyResponse = any>(
  limiter: RateLimiter,
  options?: HttpLimitOptions<Request, Response>,
): (req: Request, res: Response) => boolean;

/** A Fastify plugin: `app.register(fastifyRateLimit(limiter))`. */
export declare function fastifyRateLimit<Request = any, Reply = any>(
  limiter: RateLimiter,
  options?: HttpLimitOptions<Request, Reply>,
): (app: any) => Promise<void>;
