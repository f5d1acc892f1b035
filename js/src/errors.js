// Every error of the package is an EdgeweirError with a `code` that programs test
// and a message that people read: what was given, and what would do.

export class EdgeweirError extends Error {
  constructor(code, message, options) {
    super(message, options);
    this.code = code;
  }

  get name() {
    return this.constructor.name;
  }
}

/** An option or argument is wrong. `path` names it, `value` is what was given. */
export class OptionError extends EdgeweirError {
  constructor(path, message, value) {
    super('EDGEWEIR_OPTION', `${path}: ${message}`);
    this.path = path;
    this.value = value;
  }
}

/** Something was not ready before its deadline. */
export class TimeoutError extends EdgeweirError {
  constructor(message) {
    super('EDGEWEIR_TIMEOUT', message);
  }
}

/** A bounded queue is full, and this caller was chosen to go. */
export class QueueFullError extends EdgeweirError {
  constructor(message) {
    super('EDGEWEIR_QUEUE_FULL', message);
  }
}

/** The request can never be met, however long one waits. */
export class ImpossibleError extends EdgeweirError {
  constructor(message) {
    super('EDGEWEIR_IMPOSSIBLE', message);
  }
}

/** The object was shut down. */
export class ShutdownError extends EdgeweirError {
  constructor(message) {
    super('EDGEWEIR_SHUTDOWN', message);
  }
}

/** The WebAssembly module failed. The object starts anew and stays usable. */
export class EngineError extends EdgeweirError {
  constructor(message, cause) {
    super('EDGEWEIR_ENGINE', message, { cause });
  }
}
