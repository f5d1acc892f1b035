// The same as platform-node.js with what browsers and Workers have.

export const randomBytes = (n) => crypto.getRandomValues(new Uint8Array(n));
