/** What the tests of the log write, and the child process of the kill -9 test with them: no test runner in here. */

/** The smallest segments that the log takes: many rotations with little data. */
export const tinySegmentBytes = 16 * 1024

/** Bytes that say which record they are, of any length from 8 on. */
export function payloadOf(seed: number, bytes: number): Buffer {
  const payload = Buffer.alloc(bytes)
  for (let at = 0; at < bytes; at += 1) payload[at] = (seed * 31 + at * 7 + (at >> 8)) & 0xff
  if (bytes >= 4) payload.writeUInt32LE(seed, 0)
  return payload
}
