/**
 * Bytes: hashing, comparing and copying of short texts. Part of the kernel; knows no layout.
 *
 * Every function may read up to 16 bytes behind a text, and `copy` may write up to 15 behind its target, so whoever places
 * texts in memory leaves SLACK bytes behind the last one. What is read there never changes a result.
 */

export const SLACK: usize = 64

const MIX_A: u64 = 0x9e3779b97f4a7c15
const MIX_B: u64 = 0xd6e8feb86659fd93

/** Random for each instance, so that nobody outside can tell which texts meet. */
let seed: u64 = 0

export function setSeed(value: u64): void {
  seed = value
}

export function hashStart(a: u32, b: u32): u64 {
  return (seed ^ (((a as u64) << 32) | (b as u64))) * MIX_A
}

/** Not for identities: it only spreads texts over a table whose probes are counted. */
export function hashBytes(start: u64, at: usize, length: usize): u64 {
  let hash = start ^ ((length as u64) * MIX_B)
  while (length >= 8) {
    hash = (hash ^ load<u64>(at)) * MIX_A
    hash ^= hash >> 29
    at += 8
    length -= 8
  }
  if (length > 0) {
    hash = (hash ^ (load<u64>(at) & (((1 as u64) << ((length as u64) << 3)) - 1))) * MIX_A
    hash ^= hash >> 29
  }
  return hash
}

export function hashEnd(hash: u64): u32 {
  const mixed = (hash ^ (hash >> 32)) * MIX_B
  return (mixed >> 32) as u32
}

export function equal(a: usize, b: usize, length: usize): bool {
  while (length >= 8) {
    if (load<u64>(a) !== load<u64>(b)) return false
    a += 8
    b += 8
    length -= 8
  }
  if (length === 0) return true
  return ((load<u64>(a) ^ load<u64>(b)) & (((1 as u64) << ((length as u64) << 3)) - 1)) === 0
}

export function copy(target: usize, source: usize, length: usize): void {
  if (length > 256) {
    memory.copy(target, source, length)
    return
  }
  for (let i: usize = 0; i < length; i += 16) v128.store(target + i, v128.load(source + i))
}
