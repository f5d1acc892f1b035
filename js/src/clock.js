// Two clocks, because mixing them is a real bug: rates and timeouts need one that
// only goes forward, dates and expiry on disk need the calendar.
import { OptionError } from './errors.js';
import { having, show } from './options.js';

export const systemClock = Object.freeze({
  /** Milliseconds of a clock that never steps back. */
  now: () => performance.now(),
  /** Milliseconds since 1970. */
  unixMs: () => Date.now(),
});

/**
 * The option `clock`: `{ now(), unixMs() }`, both in milliseconds, and for those who
 * also want the timers: `setTimeout` and `clearTimeout`.
 */
export const clockOption = having(['now', 'unixMs'], { default: systemClock });

/** A clock for tests: time passes only in `advance`, and timers fire there, in order. */
export class ManualClock {
  #now = 0;
  #epoch;
  #timers = new Map();
  #next = 1;

  constructor(unixMs = 1_700_000_000_000) {
    this.#epoch = unixMs;
    this.setTimeout = this.setTimeout.bind(this);
    this.clearTimeout = this.clearTimeout.bind(this);
  }

  now() {
    return this.#now;
  }

  unixMs() {
    return this.#epoch + this.#now;
  }

  /** Lets `ms` pass: each timer fires at its time, and promises settle in between. */
  async advance(ms) {
    if (!(ms >= 0)) throw new OptionError('ms', `must be a number, at least 0, got ${show(ms)}`, ms);
    const end = this.#now + ms;
    for (;;) {
      await settled();
      const due = [...this.#timers].filter(([, t]) => t.at <= end).sort(([a, s], [b, t]) => s.at - t.at || a - b)[0];
      if (due === undefined) break;
      const [id, timer] = due;
      this.#timers.delete(id);
      this.#now = Math.max(this.#now, timer.at);
      timer.run();
    }
    this.#now = end;
    await settled();
  }

  /** How many timers are armed. */
  get timers() {
    return this.#timers.size;
  }

  setTimeout(run, ms) {
    this.#timers.set(this.#next, { at: this.#now + ms, run });
    return this.#next++;
  }

  clearTimeout(id) {
    this.#timers.delete(id);
  }
}

/** A turn of the event loop: every promise that can settle has. */
const settled = () => new Promise((resolve) => (globalThis.setImmediate ?? setTimeout)(resolve));
