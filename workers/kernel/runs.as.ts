/**
 * Runs in WASM: ids of closed generations are sorted, merged and put into filters here; src/dedupe/run-file.ts has the picture of
 * a run, src/dedupe/run-builder.ts and src/dedupe/runs.ts call this, each with an instance and a layout of its own.
 *
 * An entry is 16 bytes: u64 a, hash; u64 b, bit 0 set for a void, 31 bits of hash, 32 bits of content tag. Order is that of a,
 * then of b's low half: a void stands right behind its id.
 *
 * Filter: blocks of 64 bytes, one cache line. The high half of a chooses the block, so that a sorted run fills it from front to back;
 * 48 other bits of the hash choose one bit in each of its eight words. An id and its void have the same bits.
 */

const KEY_BITS: u64 = 0xffff_ffff
const VOID: u64 = 1
export const RUN_SOURCES_MAX: u32 = 256
/** Per source of a merge: u32 next entry, u32 end of what is loaded, u32 1 when nothing follows, u32 place in time. */
export const RUN_SOURCES: usize = 1_024
export const RUN_FIXED_BYTES: usize = RUN_SOURCES + 16 * (RUN_SOURCES_MAX as usize)
/** Entries of one page of a run; 16 bytes of the page are left for its checksum. */
const PAGE_ENTRIES: u32 = 255

function isBefore(a: u64, b: u64, otherA: u64, otherB: u64): bool {
  return a < otherA || (a === otherA && (b & KEY_BITS) < (otherB & KEY_BITS))
}

/**
 * Sorts `count` entries from `at` into `to`. `buckets`: room for 2^bits + 1 counters of 4 bytes; about 16 entries a bucket are
 * best. Hashes are even, so one pass spreads them and the rest is neighbours.
 */
export function runSort(at: usize, to: usize, count: u32, buckets: usize, bits: u32): void {
  const shift = 64 - (bits as u64)
  const size: usize = (1 as usize) << (bits as usize)
  memory.fill(buckets, 0, (size + 1) << 2)
  const end = at + ((count as usize) << 4)
  for (let from = at; from < end; from += 16) {
    const counter = buckets + (((load<u64>(from) >> shift) as usize) << 2) + 4
    store<u32>(counter, load<u32>(counter) + 1)
  }
  let sum: u32 = 0
  for (let i: usize = 1; i <= size; i += 1) {
    sum += load<u32>(buckets + (i << 2))
    store<u32>(buckets + (i << 2), sum)
  }
  for (let from = at; from < end; from += 16) {
    const counter = buckets + (((load<u64>(from) >> shift) as usize) << 2)
    const place = load<u32>(counter)
    store<u32>(counter, place + 1)
    const target = to + ((place as usize) << 4)
    store<u64>(target, load<u64>(from))
    store<u64>(target, load<u64>(from, 8), 8)
  }
  // Insertion over the whole: nobody has far to go.
  const last = to + ((count as usize) << 4)
  for (let from = to + 16; from < last; from += 16) {
    const a = load<u64>(from)
    const b = load<u64>(from, 8)
    let place = from
    while (place > to && isBefore(a, b, load<u64>(place - 16), load<u64>(place - 16, 8))) {
      store<u64>(place, load<u64>(place - 16))
      store<u64>(place, load<u64>(place - 16, 8), 8)
      place -= 16
    }
    store<u64>(place, a)
    store<u64>(place, b, 8)
  }
}

let out: usize = 0
let outEnd: usize = 0
let inPage: u32 = 0
let filterAt: usize = 0
let filterBlocks: u32 = 0
let ids: f64 = 0
let marks: f64 = 0

/** Before a merge: where its filter lies and how many blocks it has; 0 for none. */
export function runBegin(filter: usize, blocks: u32): void {
  filterAt = filter
  filterBlocks = blocks
  ids = 0
  marks = 0
  inPage = 0
}

/** Room for the next pages of the merge. The first `used` bytes are the page that was not filled yet. */
export function runOutput(at: usize, end: usize, used: u32): void {
  out = at + (used as usize)
  outEnd = end
  inPage = used >> 4
}

/** Where the next entry goes. */
export function runWritten(): usize {
  return out
}

export function runIds(): f64 {
  return ids
}

export function runMarks(): f64 {
  return marks
}

function emit(a: u64, b: u64): void {
  store<u64>(out, a)
  store<u64>(out, b, 8)
  out += 16
  inPage += 1
  if (inPage === PAGE_ENTRIES) {
    out += 16
    inPage = 0
  }
  if (filterBlocks !== 0) filterAdd(a, b)
}

/**
 * Merges until a source must be loaded (its number), the output is full (−1) or everything is merged (−2). Of an id at most one
 * life is among the sources: its void stays when it is not older than the id, and of voids the last one. Two lives: −3.
 */
export function runMerge(sources: u32): i32 {
  for (;;) {
    if (out + 48 > outEnd) return -1
    let least: u32 = RUN_SOURCES_MAX
    let leastA: u64 = 0
    let leastB: u64 = 0
    for (let i: u32 = 0; i < sources; i += 1) {
      const source = RUN_SOURCES + ((i as usize) << 4)
      const next = load<u32>(source) as usize
      const end = load<u32>(source, 4) as usize
      // An id and its void are taken together.
      if (next + 32 > end && load<u32>(source, 8) === 0) return i as i32
      if (next === end) continue
      const a = load<u64>(next)
      const b = load<u64>(next, 8)
      if (least === RUN_SOURCES_MAX || isBefore(a, b, leastA, leastB)) {
        least = i
        leastA = a
        leastB = b
      }
    }
    if (least === RUN_SOURCES_MAX) return -2
    const hashB = leastB & (KEY_BITS ^ VOID)
    let id: u64 = 0
    let idFrom: i64 = -1
    let mark: u64 = 0
    let markFrom: i64 = -1
    for (let i: u32 = 0; i < sources; i += 1) {
      const source = RUN_SOURCES + ((i as usize) << 4)
      const end = load<u32>(source, 4) as usize
      const place = load<u32>(source, 12) as i64
      for (let next = load<u32>(source) as usize; next !== end; next += 16) {
        const b = load<u64>(next, 8)
        if (load<u64>(next) !== leastA || (b & (KEY_BITS ^ VOID)) !== hashB) break
        if ((b & VOID) === 0) {
          if (idFrom >= 0) return -3
          id = b
          idFrom = place
        } else if (place >= markFrom) {
          mark = b
          markFrom = place
        }
        store<u32>(source, (next + 16) as u32)
      }
    }
    if (idFrom >= 0) {
      emit(leastA, id)
      ids += 1
    }
    if (markFrom >= 0 && markFrom >= idFrom) {
      emit(leastA, mark)
      marks += 1
    }
  }
  return 0
}

function blockOf(at: usize, blocks: u32, a: u64): usize {
  return (at + ((((a >> 32) * (blocks as u64)) >> 32) << 6)) as usize
}

/** 48 bits of the hash that do not choose the block. */
function bitsOf(a: u64, b: u64): u64 {
  return ((b & KEY_BITS) >> 1) | (a << 31)
}

function filterAdd(a: u64, b: u64): void {
  const block = blockOf(filterAt, filterBlocks, a)
  let bits = bitsOf(a, b)
  for (let word: usize = 0; word < 64; word += 8) {
    store<u64>(block + word, load<u64>(block + word) | ((1 as u64) << (bits & 63)))
    bits >>= 6
  }
}

/** Entries whose blocks are touched before they are asked, so that the waits for memory overlap. */
const AHEAD: u32 = 64
let touched: u64 = 0

/** Read by nobody: without a reader the compiler would leave out the loads that touch the memory ahead. */
export function filterTouched(): u64 {
  return touched
}

/** Numbers of those of the `count` entries at `at` that the filter does not exclude, u32 each from `hits`; answers how many. */
export function filterProbe(at: usize, count: u32, filter: usize, blocks: u32, hits: usize): u32 {
  let found = hits
  let sum: u64 = 0
  for (let begin: u32 = 0; begin < count; begin += AHEAD) {
    const to = min<u32>(begin + AHEAD, count)
    for (let i = begin; i < to; i += 1) sum += load<u64>(blockOf(filter, blocks, load<u64>(at + ((i as usize) << 4))))
    for (let i = begin; i < to; i += 1) {
      const a = load<u64>(at + ((i as usize) << 4))
      const bits = bitsOf(a, load<u64>(at + ((i as usize) << 4), 8))
      const block = blockOf(filter, blocks, a)
      const all =
        (load<u64>(block) >> (bits & 63)) &
        (load<u64>(block, 8) >> ((bits >> 6) & 63)) &
        (load<u64>(block, 16) >> ((bits >> 12) & 63)) &
        (load<u64>(block, 24) >> ((bits >> 18) & 63)) &
        (load<u64>(block, 32) >> ((bits >> 24) & 63)) &
        (load<u64>(block, 40) >> ((bits >> 30) & 63)) &
        (load<u64>(block, 48) >> ((bits >> 36) & 63)) &
        (load<u64>(block, 56) >> ((bits >> 42) & 63)) &
        1
      store<u32>(found, i)
      found += (all as usize) << 2
    }
  }
  touched += sum
  return ((found - hits) >> 2) as u32
}
