export * from './common.js';
export * from './rate-limiter.js';
export * from './rate-limit-http.js';
