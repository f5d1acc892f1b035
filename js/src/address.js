// Client addresses as keys.
import { Engine } from './engine.js';

const engine = new Engine();

/** The network of an address by its first bits, as text; undefined if it is none. */
export function addressKey(address, v4 = 32, v6 = 64) {
  try {
    return engine.raw.address_key(address, v4, v6);
  } catch (error) {
    throw engine.fault(error);
  }
}
