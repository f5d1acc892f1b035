// AbortSignal where something waits: looked at first, listened to only if one
// must wait (a listener costs some hundred nanoseconds, and leaks if forgotten).
import { OptionError } from './errors.js';
import { show } from './options.js';

/** Throws what the signal was aborted with; refuses what is no signal. */
export function throwIfAborted(signal) {
  if (signal === undefined) return;
  if (typeof signal?.addEventListener !== 'function') {
    throw new OptionError('signal', `must be an AbortSignal, got ${show(signal)}`, signal);
  }
  if (signal.aborted) throw signal.reason;
}

/** Calls `abort(reason)` once if the signal aborts; gives the function that stops listening. */
export function onAbort(signal, abort) {
  if (signal === undefined) return undefined;
  const listener = () => abort(signal.reason);
  signal.addEventListener('abort', listener, { once: true });
  return () => signal.removeEventListener('abort', listener);
}

/**
 * The promise's outcome, or the signal's reason if that comes first. The promise
 * itself goes on for others; a late rejection of it is not unhandled.
 */
export function abortable(promise, signal) {
  if (signal === undefined) return promise;
  return new Promise((resolve, reject) => {
    const forget = onAbort(signal, reject);
    promise.then(
      (value) => {
        forget();
        resolve(value);
      },
      (error) => {
        forget();
        reject(error);
      },
    );
  });
}
