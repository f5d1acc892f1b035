// RateLimiter in front of HTTP: Express and its kin, Fastify, plain `http`.
//
// Fields: `RateLimit-Policy` and `RateLimit` of draft-ietf-httpapi-ratelimit-headers
// (revision 10 syntax), and `Retry-After` (RFC 9110, section 10.2.3) when denied.
import { addressKey } from './address.js';
import { OptionError } from './errors.js';
import { bool, func, having, readOptions, show, whole } from './options.js';

const OPTIONS = {
  key: func(),
  cost: func({ default: () => 1 }),
  skip: func({ default: () => false }),
  statusCode: whole({ min: 400, max: 599, default: 429 }),
  fields: bool({ default: true }),
  legacyFields: bool({ default: false }),
  ipv4Prefix: whole({ min: 8, max: 32, default: 32 }),
  ipv6Prefix: whole({ min: 16, max: 128, default: 64 }),
  onDenied: func(),
};

const LIMITER = having(['check']);

function read(owner, limiter, options) {
  LIMITER.read(limiter, `${owner}.limiter`);
  const read = readOptions(owner, options, OPTIONS);
  return { limiter, ...read, key: read.key ?? ((req) => clientAddress(req, read)), policy: policy(limiter.quotas) };
}

/** Whose turn it is if nothing else is said: the network of the peer. */
function clientAddress(req, { ipv4Prefix, ipv6Prefix }) {
  const address = req.ip ?? req.socket?.remoteAddress;
  const key = typeof address === 'string' ? addressKey(address, ipv4Prefix, ipv6Prefix) : undefined;
  if (key !== undefined) return key;
  throw new OptionError('key', `the request has no client address (${show(address)}): give an option "key", a function of the request`, address);
}

/** `"default";q=100;w=60`: the quotas as a structured field. */
function policy(quotas) {
  return quotas?.map((q) => `${sfString(q.name)};q=${q.strict ? q.requests : q.burst};w=${Math.max(1, Math.ceil(refillMs(q) / 1000))}`).join(', ');
}

/** How long a whole burst takes to come back: the window that the quota amounts to. */
const refillMs = (q) => (q.strict ? q.perMs : (q.perMs / q.requests) * q.burst);

/** A string of structured fields (RFC 9651, section 3.3.3): visible ASCII only. */
const sfString = (text) => `"${text.replace(/[^ -~]/g, '?').replace(/["\\]/g, '\\$&')}"`;

const seconds = (ms) => Math.min(Math.max(0, Math.ceil(ms / 1000)), 999_999_999_999);

/** The header fields that tell a decision, as an object. */
function fieldsOf(decision, set) {
  const fields = {};
  const reset = seconds(decision.allowed ? decision.resetMs : Math.max(decision.retryAfterMs, 1));
  if (set.fields && set.policy !== undefined) {
    const name = sfString(set.limiter.quotas[0].name);
    fields['RateLimit-Policy'] = set.policy;
    fields.RateLimit = `${name};r=${decision.remaining}${Number.isFinite(decision.resetMs) ? `;t=${reset}` : ''}`;
  }
  if (set.legacyFields) {
    fields['X-RateLimit-Limit'] = String(set.limiter.quotas?.[0].burst ?? decision.remaining);
    fields['X-RateLimit-Remaining'] = String(decision.remaining);
    fields['X-RateLimit-Reset'] = String(reset);
  }
  // A request that can never pass is told no time to come again.
  if (!decision.allowed && Number.isFinite(decision.retryAfterMs)) fields['Retry-After'] = String(Math.max(1, reset));
  return fields;
}

function decide(set, req) {
  if (set.skip(req)) return undefined;
  const clientId = set.key(req);
  const decision = set.limiter.check(clientId, set.cost(req));
  return { ...decision, clientId, fields: fieldsOf(decision, set) };
}

const denial = (set, decision) => ({
  type: 'about:blank',
  title: 'Too Many Requests',
  status: set.statusCode,
  ...(Number.isFinite(decision.retryAfterMs) ? { retryAfter: Math.max(1, seconds(decision.retryAfterMs)) } : {}),
});

function send(res, set, decision) {
  const body = JSON.stringify(denial(set, decision));
  res.statusCode = set.statusCode;
  res.setHeader('Content-Type', 'application/problem+json');
  res.setHeader('Cache-Control', 'no-store');
  res.setHeader('Content-Length', String(body.length));
  res.end(body);
}

/** Middleware `(req, res, next)` for Express, Connect and their kin. */
export function rateLimit(limiter, options) {
  const set = read('rateLimit', limiter, options);
  return function edgeweirRateLimit(req, res, next) {
    let decision;
    try {
      decision = decide(set, req);
    } catch (error) {
      next(error);
      return;
    }
    if (decision === undefined) return void next();
    for (const [name, value] of Object.entries(decision.fields)) res.setHeader(name, value);
    req.rateLimit = decision;
    if (decision.allowed) next();
    else if (set.onDenied) set.onDenied(req, res, next, decision);
    else send(res, set, decision);
  };
}

/** For plain `http`: `if (!guarded(req, res)) return;` answers the denied itself. */
export function guard(limiter, options) {
  const set = read('guard', limiter, options);
  return function guarded(req, res) {
    const decision = decide(set, req);
    if (decision === undefined) return true;
    for (const [name, value] of Object.entries(decision.fields)) res.setHeader(name, value);
    if (decision.allowed) return true;
    if (set.onDenied) set.onDenied(req, res, () => {}, decision);
    else send(res, set, decision);
    return false;
  };
}

/** A Fastify plugin: `app.register(fastifyRateLimit(limiter, options))`. */
export function fastifyRateLimit(limiter, options) {
  const set = read('fastifyRateLimit', limiter, options);
  const plugin = async (app) => {
    app.addHook('onRequest', async (req, reply) => {
      const decision = decide(set, req);
      if (decision === undefined) return undefined;
      reply.headers(decision.fields);
      if (decision.allowed) return undefined;
      if (set.onDenied) return set.onDenied(req, reply, () => {}, decision);
      return reply.code(set.statusCode).headers({ 'cache-control': 'no-store' }).type('application/problem+json').send(JSON.stringify(denial(set, decision)));
    });
  };
  // Hooks are to hold for the whole application, not only inside the plugin.
  plugin[Symbol.for('skip-override')] = true;
  return plugin;
}
