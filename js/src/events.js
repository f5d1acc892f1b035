// Typed events without `node:events`, so that they are the same in a browser.
import { OptionError } from './errors.js';
import { nearest, show } from './options.js';

export class Events {
  #listeners = new Map();
  #names;

  constructor(names) {
    this.#names = names;
  }

  /** Calls `listener` at each `name`; gives the function that ends this. */
  on(name, listener) {
    if (!this.#names.includes(name)) {
      const near = nearest(String(name), this.#names);
      throw new OptionError('event', `there is no ${show(name)}; ${near ? `did you mean '${near}'?` : `there are ${this.#names.join(', ')}`}`, name);
    }
    if (typeof listener !== 'function') throw new OptionError('listener', `must be a function, got ${show(listener)}`, listener);
    const set = this.#listeners.get(name) ?? new Set();
    this.#listeners.set(name, set.add(listener));
    return () => this.off(name, listener);
  }

  off(name, listener) {
    const set = this.#listeners.get(name);
    set?.delete(listener);
    if (set?.size === 0) this.#listeners.delete(name);
  }

  /** Whether anyone listens: an event that costs something to describe asks first. */
  has(name) {
    return this.#listeners.has(name);
  }

  /** A listener that throws is its owner's bug: it is reported, and stops nobody. */
  emit(name, detail) {
    const set = this.#listeners.get(name);
    if (set === undefined) return;
    for (const listener of [...set]) {
      try {
        listener(detail);
      } catch (error) {
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }
}
