// What Node (and Bun, and Deno) give beyond the web's standards.
import { randomFillSync } from 'node:crypto';

export const randomBytes = (n) => randomFillSync(new Uint8Array(n));
