// Options are checked once, where they come in: after that nothing is optional.
//
// `readOptions('RateLimiter', given, { rateLimit: whole({ min: 0, default: 100 }) })`
// gives a frozen object with every name of the table. Own enumerable names only,
// so neither a polluted prototype nor `__proto__` in a parsed JSON text gets in.
import { OptionError } from './errors.js';

/** What was given, short enough for a message. */
export function show(value) {
  if (typeof value === 'string') return JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}…` : value);
  if (typeof value === 'bigint') return `${value}n`;
  if (typeof value === 'function') return 'a function';
  if (Array.isArray(value)) return `an array of ${value.length}`;
  if (typeof value === 'object' && value !== null) return 'an object';
  return String(value);
}

const number = (kind, test) => ({ min = -Infinity, max = Number.MAX_SAFE_INTEGER, ...rest } = {}) => ({
  ...rest,
  read(value, path) {
    if (typeof value === 'number' && test(value) && value >= min && value <= max) return value;
    const range = min === -Infinity ? `at most ${max}` : max === Infinity ? `at least ${min}` : `from ${min} to ${max}`;
    throw new OptionError(path, `must be ${kind} ${range}, got ${show(value)}`, value);
  },
});

/** A whole number within `min` and `max`. */
export const whole = number('a whole number', Number.isInteger);

/** A number within `min` and `max`; Infinity only if `max` is. */
export const real = number('a number', (value) => !Number.isNaN(value));

/** A duration in milliseconds, at least 0. */
export const millis = (rule = {}) => real({ min: 0, max: Infinity, ...rule });

/** true or false, and nothing that only looks like it. */
export const bool = (rule = {}) => ({
  ...rest(rule),
  read(value, path) {
    if (typeof value === 'boolean') return value;
    throw new OptionError(path, `must be true or false, got ${show(value)}`, value);
  },
});

/** One of some words. */
export const word = (words, rule = {}) => ({
  ...rest(rule),
  read(value, path) {
    if (words.includes(value)) return value;
    const near = typeof value === 'string' ? nearest(value, words) : undefined;
    const list = words.map((w) => `'${w}'`).join(', ');
    throw new OptionError(path, `must be one of ${list}, got ${show(value)}${near ? `; did you mean '${near}'?` : ''}`, value);
  },
});

/** A string that is not empty. */
export const text = (rule = {}) => ({
  ...rest(rule),
  read(value, path) {
    if (typeof value === 'string' && value !== '') return value;
    throw new OptionError(path, `must be a string that is not empty, got ${show(value)}`, value);
  },
});

/** A function. */
export const func = (rule = {}) => ({
  ...rest(rule),
  read(value, path) {
    if (typeof value === 'function') return value;
    throw new OptionError(path, `must be a function, got ${show(value)}`, value);
  },
});

/** An object with these methods. */
export const having = (methods, rule = {}) => ({
  ...rest(rule),
  read(value, path) {
    const lacks = methods.find((m) => typeof value?.[m] !== 'function');
    if (lacks === undefined) return value;
    throw new OptionError(path, `must be an object with the methods ${methods.join(', ')}; ${lacks} is missing in ${show(value)}`, value);
  },
});

/** An array whose members are read by `rule`. */
export const list = (rule, outer = {}) => ({
  ...rest(outer),
  read(value, path) {
    if (!Array.isArray(value)) throw new OptionError(path, `must be an array, got ${show(value)}`, value);
    return Object.freeze(value.map((member, n) => rule.read(member, `${path}[${n}]`)));
  },
});

/** An object with options of its own. */
export const group = (table, rule = {}) => ({
  ...rest(rule),
  read: (value, path) => readOptions(path, value, table),
});

const rest = (rule) => rule;

/**
 * Reads `given` by `table` (name -> rule). `undefined` takes the rule's `default`,
 * null and 0 do not: 0 means 0.
 */
export function readOptions(owner, given, table) {
  const read = {};
  if (given === undefined) given = {};
  if (typeof given !== 'object' || given === null || Array.isArray(given)) {
    throw new OptionError(owner, `options must be an object, got ${show(given)}`, given);
  }
  for (const name of Object.keys(given)) {
    if (!Object.hasOwn(table, name)) {
      const near = nearest(name, Object.keys(table));
      const hint = near ? `did you mean "${near}"?` : `it takes ${Object.keys(table).join(', ')}`;
      throw new OptionError(`${owner}.${name}`, `there is no such option; ${hint}`, given[name]);
    }
  }
  for (const [name, rule] of Object.entries(table)) {
    const value = Object.hasOwn(given, name) ? given[name] : undefined;
    read[name] = value === undefined ? rule.default : rule.read(value, `${owner}.${name}`);
  }
  return Object.freeze(read);
}

/** The name that is at most a third of its letters away, if there is one. */
export function nearest(name, names) {
  let best;
  let least = Infinity;
  for (const candidate of names) {
    const distance = edits(name.slice(0, 64).toLowerCase(), candidate.toLowerCase());
    if (distance < least) [best, least] = [candidate, distance];
  }
  return least <= Math.max(2, Math.ceil((best?.length ?? 0) / 3)) ? best : undefined;
}

/** Levenshtein's distance; both are short. */
function edits(a, b) {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      next[j] = Math.min(next[j - 1] + 1, row[j] + 1, row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1));
    }
    row = next;
  }
  return row[b.length];
}
