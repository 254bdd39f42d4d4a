/**
 * SipHash-1-3 with 128 bits of output, keyed: the twin of src/dedupe/sip-hash.ts, 64 bits at a time. Part of the kernel.
 */

/**
 * Hashes [from, from + length) under the 16 bytes at `key` into the 16 bytes at `out`, which may be the key's. Reads up to 7
 * bytes behind the text. `first`: only the first 8 bytes, for a quarter less.
 */
export function sip(key: usize, from: usize, length: usize, out: usize, first: bool = false): void {
  const k0 = load<u64>(key)
  const k1 = load<u64>(key, 8)
  let v0: u64 = 0x736f6d6570736575 ^ k0
  let v1: u64 = 0x646f72616e646f6d ^ k1 ^ 0xee
  let v2: u64 = 0x6c7967656e657261 ^ k0
  let v3: u64 = 0x7465646279746573 ^ k1
  const whole = from + (length & ~7)
  let m: u64
  for (; from < whole; from += 8) {
    m = load<u64>(from)
    v3 ^= m
    v0 += v1
    v1 = rotl<u64>(v1, 13) ^ v0
    v0 = rotl<u64>(v0, 32)
    v2 += v3
    v3 = rotl<u64>(v3, 16) ^ v2
    v0 += v3
    v3 = rotl<u64>(v3, 21) ^ v0
    v2 += v1
    v1 = rotl<u64>(v1, 17) ^ v2
    v2 = rotl<u64>(v2, 32)
    v0 ^= m
  }
  const rest = length & 7
  m = (length as u64) << 56
  if (rest !== 0) m |= load<u64>(from) & (((1 as u64) << ((rest as u64) << 3)) - 1)
  v3 ^= m
  v0 += v1
  v1 = rotl<u64>(v1, 13) ^ v0
  v0 = rotl<u64>(v0, 32)
  v2 += v3
  v3 = rotl<u64>(v3, 16) ^ v2
  v0 += v3
  v3 = rotl<u64>(v3, 21) ^ v0
  v2 += v1
  v1 = rotl<u64>(v1, 17) ^ v2
  v2 = rotl<u64>(v2, 32)
  v0 ^= m
  v2 ^= 0xee
  for (let i = 0; i < 3; i += 1) {
    v0 += v1
    v1 = rotl<u64>(v1, 13) ^ v0
    v0 = rotl<u64>(v0, 32)
    v2 += v3
    v3 = rotl<u64>(v3, 16) ^ v2
    v0 += v3
    v3 = rotl<u64>(v3, 21) ^ v0
    v2 += v1
    v1 = rotl<u64>(v1, 17) ^ v2
    v2 = rotl<u64>(v2, 32)
  }
  store<u64>(out, v0 ^ v1 ^ v2 ^ v3)
  if (first) return
  v1 ^= 0xdd
  for (let i = 0; i < 3; i += 1) {
    v0 += v1
    v1 = rotl<u64>(v1, 13) ^ v0
    v0 = rotl<u64>(v0, 32)
    v2 += v3
    v3 = rotl<u64>(v3, 16) ^ v2
    v0 += v3
    v3 = rotl<u64>(v3, 21) ^ v0
    v2 += v1
    v1 = rotl<u64>(v1, 17) ^ v2
    v2 = rotl<u64>(v2, 32)
  }
  store<u64>(out, v0 ^ v1 ^ v2 ^ v3, 8)
}
