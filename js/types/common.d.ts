/** Every error of the package: `code` is for programs, `message` for people. */
export declare class EdgeweirError extends Error {
  readonly code: string;
}
/** `EDGEWEIR_OPTION`: an option or argument is wrong; the message says what would do. */
export declare class OptionError extends EdgeweirError {
  readonly code: 'EDGEWEIR_OPTION';
  /** Where, as in `RateLimiter.quotas[0].burst`. */
  readonly path: string;
  /** What was given. */
  readonly value: unknown;
}
/** `EDGEWEIR_TIMEOUT`: something was not ready before its deadline. */
export declare class TimeoutError extends EdgeweirError {
  readonly code: 'EDGEWEIR_TIMEOUT';
  /** Milliseconds after which a try is worth it, where that is known. */
  readonly retryAfterMs?: number;
}
/** `EDGEWEIR_QUEUE_FULL`: a bounded queue is full, and this caller had to go. */
export declare class QueueFullError extends EdgeweirError {
  readonly code: 'EDGEWEIR_QUEUE_FULL';
}
/** `EDGEWEIR_IMPOSSIBLE`: the request can never be met, however long one waits. */
export declare class ImpossibleError extends EdgeweirError {
  readonly code: 'EDGEWEIR_IMPOSSIBLE';
}
/** `EDGEWEIR_SHUTDOWN`: the object was shut down. */
export declare class ShutdownError extends EdgeweirError {
  readonly code: 'EDGEWEIR_SHUTDOWN';
}
/** `EDGEWEIR_ENGINE`: the WebAssembly module failed. The object starts anew and stays usable. */
export declare class EngineError extends EdgeweirError {
  readonly code: 'EDGEWEIR_ENGINE';
}

/** Where time comes from. Give your own in tests, such as a {@link ManualClock}. */
export interface Clock {
  /** Milliseconds of a clock that never steps back. Default: `performance.now()`. */
  now(): number;
  /** Milliseconds since 1970. Default: `Date.now()`. */
  unixMs(): number;
  /** Timers, if they should follow this clock too. Default: the platform's. */
  setTimeout?(run: () => void, ms: number): unknown;
  clearTimeout?(timer: never): void;
}

/** A clock for tests: time passes only in {@link ManualClock.advance}, and timers fire there. */
export declare class ManualClock implements Clock {
  /** Starts at 0, and at `unixMs` of the calendar. */
  constructor(unixMs?: number);
  now(): number;
  unixMs(): number;
  /** Lets `ms` pass: each timer fires at its time, and promises settle in between. */
  advance(ms: number): Promise<void>;
  /** How many timers are armed. */
  readonly timers: number;
  setTimeout(run: () => void, ms: number): number;
  clearTimeout(timer: number): void;
}

/** Typed events: each name has one kind of detail. */
export interface Emitter<Events> {
  /** Calls `listener` at each event of that name; the function it gives ends this. */
  on<Name extends keyof Events>(name: Name, listener: (detail: Events[Name]) => void): () => void;
  off<Name extends keyof Events>(name: Name, listener: (detail: Events[Name]) => void): void;
}

/** How to wait. */
export interface WaitOptions {
  /** Ends the wait with the signal's reason. */
  signal?: AbortSignal | undefined;
  /** Milliseconds until the wait ends with a {@link TimeoutError}. */
  timeoutMs?: number | undefined;
}

/**
 * The network of a client's address, as text: the first `v4` bits (default 32) of
 * an IPv4, the first `v6` bits (default 64) of an IPv6 address, with or without a
 * port. Undefined if the text is no address.
 */
export declare function addressKey(address: string, v4?: number, v6?: number): string | undefined;
