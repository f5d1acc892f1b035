// The package's public names, one class a file.
export { addressKey } from './address.js';
export { ManualClock } from './clock.js';
export { EdgeweirError, EngineError, ImpossibleError, OptionError, QueueFullError, ShutdownError, TimeoutError } from './errors.js';
export { RateLimiter } from './rate-limiter.js';
export { fastifyRateLimit, guard, rateLimit } from './rate-limit-http.js';
