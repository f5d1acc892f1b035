// Two clocks, because mixing them is a real bug: rates and timeouts need one that
// only goes forward, dates and expiry on disk need the calendar.
import { having } from './options.js';

export const systemClock = Object.freeze({
  /** Milliseconds of a clock that never steps back. */
  now: () => performance.now(),
  /** Milliseconds since 1970. */
  unixMs: () => Date.now(),
});

/** The option `clock`: `{ now(), unixMs() }`, both in milliseconds. */
export const clockOption = having(['now', 'unixMs'], { default: systemClock });
