// One timer for everything an object waits for.
//
// The object tells its next deadline; the driver arms one timer for it. The timer
// keeps the process alive only while somebody waits. Timers of Node truncate and
// may come early, so the callback checks its own clock and the driver arms again;
// what is due is decided by the core, never by the wake.

/** The longest delay that setTimeout takes; a later one would fire at once. */
const LONGEST = 2 ** 31 - 1;

export class Driver {
  #wake;
  #clock;
  #timer;
  #due = Infinity;
  #held = false;

  /** `wake()` is called when the deadline may have come. */
  constructor(wake, clock) {
    this.#wake = wake;
    this.#clock = clock;
  }

  /**
   * Sets the next deadline in milliseconds of the clock (Infinity: none).
   * `holds`: whether a caller waits for it, so the process must not end before.
   */
  arm(due, holds) {
    if (due === Infinity) return this.stop();
    if (this.#timer !== undefined && due === this.#due) {
      this.#hold(holds);
      return;
    }
    this.#clear();
    this.#due = due;
    const delay = Math.min(Math.max(1, Math.ceil(due - this.#clock.now())), LONGEST);
    this.#timer = (this.#clock.setTimeout ?? setTimeout)(() => {
      this.#timer = undefined;
      this.#due = Infinity;
      this.#wake();
    }, delay);
    // A browser's timer is a number, and holds nothing.
    this.#held = true;
    this.#hold(holds);
  }

  stop() {
    this.#clear();
    this.#due = Infinity;
  }

  #clear() {
    if (this.#timer !== undefined) (this.#clock.clearTimeout ?? clearTimeout)(this.#timer);
    this.#timer = undefined;
  }

  #hold(holds) {
    if (holds === this.#held || typeof this.#timer !== 'object') return;
    if (holds) this.#timer.ref?.();
    else this.#timer.unref?.();
    this.#held = holds;
  }
}
