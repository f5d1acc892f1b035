// One WebAssembly instance, and a fresh one when it failed.
//
// A trap (a bug of ours, or memory that ran out) leaves an instance that must not
// be used again. `Engine.run` turns it into an EngineError, drops the instance and
// lets each object build its state anew at its next call. One engine per class, so
// that a fault of one takes no other with it.
import { createGlue } from '#glue';
import { compile } from '#wasm';
import { randomBytes } from '#platform';
import { EngineError } from './errors.js';

let module;

export class Engine {
  /** Counts the instances, so an object can tell that its own is gone. */
  generation = 0;
  #raw;
  #memory;

  /** The raw classes of the current instance. */
  get raw() {
    if (this.#raw === undefined) {
      module ??= compile();
      const glue = createGlue();
      const { exports } = new WebAssembly.Instance(module, { './edgeweir_js_bg.js': glue });
      glue.__wbg_set_wasm(exports);
      exports.__wbindgen_start?.();
      this.#memory = exports.memory;
      this.#raw = glue;
      this.generation += 1;
    }
    return this.#raw;
  }

  /** The memory of the current instance; its buffer changes when it grows. */
  get memory() {
    return this.raw && this.#memory;
  }

  /**
   * Whatever a raw call threw, as what the caller gets. An Error from the core is
   * a refusal and stays; a trap is an EngineError, and the instance is gone.
   */
  fault(error) {
    const trapped = error instanceof WebAssembly.RuntimeError || error instanceof RangeError || /recursive use of an object|null pointer passed/.test(error?.message);
    if (!trapped) return error;
    this.#raw = undefined;
    this.#memory = undefined;
    return new EngineError('the WebAssembly module failed and was started anew; the state of its objects is lost', error);
  }
}

/** A secret for keyed hashing. */
export const seed = () => randomBytes(16);

/** Longer keys than this are refused, in UTF-16 code units. */
export const MAX_KEY = 1 << 20;

/**
 * Writes `key` at word `at` of `words` and gives the number of bytes, or -1 if
 * there may not be room for it within `room` bytes.
 *
 * ASCII is packed four to a word; at the first other character the key is written
 * again as a mark and its UTF-16 code units (see `border.rs`).
 */
export function writeKey(words, at, room, key) {
  const length = key.length;
  if (length + 4 > room) return -1;
  let all = 0;
  let i = 0;
  let word = at;
  for (const end = length - 3; i < end; i += 4) {
    const a = key.charCodeAt(i);
    const b = key.charCodeAt(i + 1);
    const c = key.charCodeAt(i + 2);
    const d = key.charCodeAt(i + 3);
    all |= a | b | c | d;
    words[word++] = a | (b << 8) | (c << 16) | (d << 24);
  }
  let last = 0;
  for (let shift = 0; i < length; i++, shift += 8) {
    const a = key.charCodeAt(i);
    all |= a;
    last |= a << shift;
  }
  words[word] = last;
  return all < 0x80 ? length : writeWide(words, at, room, key);
}

function writeWide(words, at, room, key) {
  const length = key.length;
  if (length * 2 + 8 > room) return -1;
  words[at] = -1;
  let word = at + 1;
  for (let i = 0; i < length; i += 2) {
    words[word++] = key.charCodeAt(i) | (i + 1 < length ? key.charCodeAt(i + 1) << 16 : 0);
  }
  return 4 + length * 2;
}
