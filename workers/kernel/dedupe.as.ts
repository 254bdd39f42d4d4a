/**
 * Dedupe in WASM: identities, content tags and the table of ids. The twin of src/dedupe/identity.ts and table.ts, with the same
 * hashes, the same entries and the same comparison of 95 bits; src/dedupe/dedupe.ts keeps the generations, and
 * src/dedupe/kernel-store.ts calls this.
 *
 * Memory, from the bottom:
 *
 *      KEYS        the purpose keys «identity» and «content», 16 bytes each
 *      COUNTS      entries alive by generation, u32
 *      DEAD        1: the generation was dropped and may still have entries; u8
 *      LADDER      the sizes that a partition may have within an octave, f64
 *      TEXT        a text of several parts, put together before it is hashed
 *      ORIGIN_KEYS, SERIES_KEYS   of the frame, 16 bytes each
 *      HASHES      of the frame's events, 16 bytes each: entries without their tag
 *      TAGS        u32 each
 *      METRICS     where each row of the frame's metric table begins, u32
 *      PENDING     hashes that memory does not know, 16 bytes each, and PENDING_OF, their events, u32
 *      KNOWN       what the runs on disk know of an event: 0 nothing, 1 its id, 3 its id and that it was voided; u8
 *      KNOWN_TAGS  the content tag of such an id, u32
 *      FOUND       of entries that are looked for together: the slot or 0, u32
 *      PLACES      and the group where it would go with its empty lanes, u32 each
 *      HITS, QUEUE, NUMBERS   lanes that may be it, the entries that go on, and the number of each one's group; u32
 *      PARTS       per partition: u32 groups, u32 taken slots
 *      MOVED       per partition: the number of the last seekAll() before it was rebuilt, u32
 *      -- from here on where dedupeLayOut puts it
 *      entries     the epoch's keys, then its voids: 16 bytes each
 *      pieces      of 16 groups: the first of every partition, then the second of every partition, and so on to what one may
 *                  ever have; memory that nobody touched costs nothing
 *      scratch     the groups of the partition that is being rebuilt, one behind the other; then a byte for each of its new groups
 *      frame       its bytes, SLACK
 *
 * An entry (16 bytes, as in key blocks and runs): u64 a, hash; u64 b, bit 0 set for a void, 31 bits of hash, 32 bits of content tag.
 *
 * A group: 256 bytes, 16 control bytes (0 empty, else 128 + the low 7 bits of a) and 16 slots of 15 bytes. One comparison of the
 * control bytes answers for 16 slots, so that the table works at a load of 0.93. A slot:
 *
 *      bits   0-46   bits 7-53 of a: 54-63 are the partition, 0-6 the control byte
 *           47-110   b
 *              111   0
 *          112-119   generation
 *
 * Partitions grow at about the same pace, so pieces in this order keep together what is in use.
 *
 * An entry is looked for in its first group, then in two more of the same piece, whose page is at hand, then in steps of its own. One
 * group after the other would be simpler, and costs 3.0 groups a new entry instead of 1.9, since full ones gather.
 *
 * The partition that is full, or has dead slots, is rebuilt through the scratch; the longest pause is one of them. Sizes of
 * partitions are staggered, so that they do not all grow at the same time.
 */
import { copy } from './bytes.as'
import { contentHead, contentKey, text32 } from './content.as'
import * as frame from './frame.as'
import { sip } from './sip.as'

/** Entries that are looked for together, so that the waits for memory overlap. */
const AHEAD: u32 = 512

const KEYS: usize = 1_024
const CONTENT_KEY: usize = KEYS + 16
const COUNTS: usize = 2_048
const DEAD: usize = COUNTS + 4 * 256
const LADDER: usize = DEAD + 256
const LADDER_STEPS: u32 = 40
const TEXT: usize = 4_096
const TEXT_BYTES: usize = 4 * 65_536
const ORIGIN_KEYS: usize = TEXT + TEXT_BYTES
const SERIES_KEYS: usize = ORIGIN_KEYS + 16 * (frame.FRAME_EVENTS_MAX as usize)
const HASHES: usize = SERIES_KEYS + 16 * (frame.FRAME_EVENTS_MAX as usize)
const TAGS: usize = HASHES + 16 * (frame.FRAME_EVENTS_MAX as usize)
const METRICS: usize = TAGS + 4 * (frame.FRAME_EVENTS_MAX as usize)
const PENDING: usize = METRICS + 4 * (frame.FRAME_EVENTS_MAX as usize)
const PENDING_OF: usize = PENDING + 16 * (frame.FRAME_EVENTS_MAX as usize)
const KNOWN: usize = PENDING_OF + 4 * (frame.FRAME_EVENTS_MAX as usize)
const KNOWN_TAGS: usize = KNOWN + (frame.FRAME_EVENTS_MAX as usize)
const FOUND: usize = KNOWN_TAGS + 4 * (frame.FRAME_EVENTS_MAX as usize)
const PLACES: usize = FOUND + 4 * (AHEAD as usize)
const HITS: usize = PLACES + 8 * (AHEAD as usize)
const QUEUE: usize = HITS + 4 * (AHEAD as usize)
const NUMBERS: usize = QUEUE + 4 * (AHEAD as usize)
const ASKED: usize = NUMBERS + 4 * (AHEAD as usize)
const PARTS: usize = ASKED + 4 * (AHEAD as usize)
const PARTITIONS: u32 = 1_024
export const DEDUPE_PARTITIONS: u32 = PARTITIONS
const MOVED: usize = PARTS + 8 * (PARTITIONS as usize)
export const DEDUPE_FIXED_BYTES: usize = MOVED + 4 * (PARTITIONS as usize)
export const DEDUPE_KEYS: usize = KEYS
export const DEDUPE_PENDING: usize = PENDING
export const DEDUPE_PENDING_OF: usize = PENDING_OF
export const DEDUPE_SERIES_KEYS: usize = SERIES_KEYS
export const DEDUPE_KNOWN: usize = KNOWN
export const DEDUPE_KNOWN_TAGS: usize = KNOWN_TAGS

/** The hash and the void bit of an entry's second half. */
const KEY_BITS: u64 = 0xffff_ffff
const VOID: u64 = 1
const GROUP_SHIFT: usize = 8
const PIECE_SHIFT: usize = 4
const PIECE_BYTES: usize = 1 << (PIECE_SHIFT + GROUP_SHIFT)
/** From a piece to the next one of its partition. */
const STRIDE: usize = (PARTITIONS as usize) * PIECE_BYTES
export const DEDUPE_PIECE_GROUPS: u32 = 1 << (PIECE_SHIFT as u32)
const SLOT_BYTES: usize = 15
/** Of the slots, taken ones; beyond it the partition is rebuilt. Groups of 16 work well up to here. */
const LOAD_MAX: f64 = 0.93
/** Groups of the same piece that are looked into, and groups before the search goes by one. */
const NEAR_PROBES: u32 = 3
const FAR_PROBES: u32 = 24
/** A rebuild with more than this alive grows. */
const LOAD_GROW: f64 = 0.85

const ACCEPTED: u8 = 0
const DUPLICATE: u8 = 1
const CONFLICT: u8 = 2

let partitions: usize = 0
let groupsMost: u32 = 0
let groupsAtBound: u32 = 0
let scratch: usize = 0
/** Slots taken per group while a partition is rebuilt: asking the control bytes just written would wait for them each time. */
let fills: usize = 0
let keyEntries: usize = 0
let voidEntries: usize = 0
let keys: u32 = 0
let voids: u32 = 0
let unswept: u32 = 0
let capacity: f64 = 0
let held: f64 = 0
let touched: u64 = 0
/** The group and the slot of it where the last unsuccessful seek() ended. */
let emptyGroup: usize = 0
let emptyLane: u32 = 0
/** Number of the last seekAll(); a partition that was rebuilt since then carries it in MOVED. */
let lookUps: u32 = 0

// Of the last frame.
let accepted: u32 = 0
let voided: u32 = 0
let behind: u32 = 0
let lastTime: f64 = 0

/** `atBound` is what a partition has when all ids are held, `most` what it may ever have, in groups; `most` is whole pieces. */
export function dedupeLayOut(keysAt: usize, voidsAt: usize, partitionsAt: usize, atBound: u32, most: u32): void {
  keyEntries = keysAt
  voidEntries = voidsAt
  partitions = partitionsAt
  groupsAtBound = atBound
  groupsMost = most
  const bytes = (most as usize) << GROUP_SHIFT
  scratch = partitions + (PARTITIONS as usize) * bytes
  fills = scratch + bytes
  let size: f64 = 1
  for (let i: u32 = 0; i < LADDER_STEPS; i += 1) {
    store<f64>(LADDER + ((i as usize) << 3), size)
    size *= 1.0174796921026863
  }
  for (let i: u32 = 0; i < PARTITIONS; i += 1) store<u32>(PARTS + ((i as usize) << 3), 1)
  capacity = 16 * (PARTITIONS as f64)
}

/** Before anything is held: room for so many entries a partition, so that a restore does not grow step by step. */
export function dedupeReserve(entries: u32): void {
  for (let i: u32 = 0; i < PARTITIONS; i += 1) {
    const part = PARTS + ((i as usize) << 3)
    let groups = load<u32>(part)
    while ((entries as f64) > LOAD_MAX * 16 * (groups as f64) && groups < groupsAtBound) {
      groups = min(groupsAtBound, grown(groups, i))
    }
    capacity += 16 * ((groups as f64) - (load<u32>(part) as f64))
    store<u32>(part, groups)
  }
}

/** The number of the group where an entry with these bits would lie first, of so many. */
function homeOf(word: u32, groups: u32): u32 {
  return (((word as u64) * (groups as u64)) >> 32) as u32
}

/** Where a group of a partition lies. */
function placeOf(partition: usize, group: u32): usize {
  const piece = (group >> (PIECE_SHIFT as u32)) as usize
  const within = (group & ((1 << (PIECE_SHIFT as u32)) - 1)) as usize
  return partitions + piece * STRIDE + partition * PIECE_BYTES + (within << GROUP_SHIFT)
}

/** The slot of an entry in a group, of those lanes whose control byte is its own; 0 when it is none of them. */
function slotOf(group: usize, hits: i32, a: u64, b: u64): usize {
  const x = bitsOf(a, b)
  const y = ((b & KEY_BITS) >> 17) as u32
  while (hits !== 0) {
    const slot = group + 16 + (ctz(hits) as usize) * SLOT_BYTES
    if (
      load<u64>(slot) === x &&
      (load<u16>(slot, 8) & 0x7fff) === y &&
      load<u8>(DEAD + (load<u8>(slot, 14) as usize)) === 0
    )
      return slot
    hits &= hits - 1
  }
  return 0
}

/** Bits of an entry as they stand in the first 8 bytes of its slot: all that says where it may lie in its partition. */
function bitsOf(a: u64, b: u64): u64 {
  return ((a << 10) >> 17) | (b << 47)
}

/** The number of the group where an entry is looked for first. */
function firstOf(bits: u64, groups: u32): u32 {
  return homeOf(((bits << 17) >> 32) as u32, groups)
}

/**
 * The group that is looked into behind `number`, the `probe`-th one. Two in the same piece, whose page is at hand; then in steps of the
 * entry's own; then, to be sure to come by each, one after the other.
 */
function nextOf(number: u32, probe: u32, bits: u64, groups: u32): u32 {
  if (probe < NEAR_PROBES) {
    const odd = ((bits >> 10) as u32) | 1
    const near = (number & ~(DEDUPE_PIECE_GROUPS - 1)) | ((number + odd) & (DEDUPE_PIECE_GROUPS - 1))
    if (near < groups) return near
  }
  const step = probe < FAR_PROBES ? homeOf(((bits << 17) as u32) | ((bits >> 47) as u32), groups) | 1 : 1
  const next = number + step
  return next < groups ? next : next - groups
}

/** The slot of an entry, or 0 when it is not held; then emptyGroup and emptyLane say where it would go. */
function seek(a: u64, b: u64): usize {
  const control = i8x16.splat(((a & 0x7f) | 0x80) as i8)
  const partition = (a >> 54) as usize
  const groups = load<u32>(PARTS + (partition << 3))
  const bits = bitsOf(a, b)
  let number = firstOf(bits, groups)
  for (let probe: u32 = 1; ; probe += 1) {
    const group = placeOf(partition, number)
    const controls = v128.load(group)
    const hits = i8x16.bitmask(i8x16.eq(controls, control))
    const slot: usize = hits === 0 ? 0 : slotOf(group, hits, a, b)
    if (slot !== 0) return slot
    const empty = i8x16.bitmask(i8x16.eq(controls, i8x16.splat(0)))
    if (empty !== 0) {
      emptyGroup = group
      emptyLane = ctz(empty)
      return 0
    }
    number = nextOf(number, probe, bits, groups)
  }
  return 0
}

function tagOf(slot: usize): u32 {
  return (load<u64>(slot, 7) >> 23) as u32
}

function generationOf(slot: usize): u32 {
  return load<u8>(slot, 14)
}

/** Behind a seek() that did not find the entry. */
function put(a: u64, b: u64, generation: u32): void {
  const partition = (a >> 54) as usize
  const part = PARTS + (partition << 3)
  if (((load<u32>(part, 4) + 1) as f64) > LOAD_MAX * 16 * (load<u32>(part) as f64)) {
    rebuild(partition as u32)
    // Beyond what the hash can do: the host has bounded the ids, and a partition has room for many more than its share.
    if (load<u32>(part, 4) + 1 >= load<u32>(part) << 4) unreachable()
    seek(a, b)
  }
  const slot = emptyGroup + 16 + (emptyLane as usize) * SLOT_BYTES
  store<u8>(emptyGroup + (emptyLane as usize), ((a & 0x7f) | 0x80) as u8)
  store<u64>(slot, bitsOf(a, b))
  store<u32>(slot, (b >> 17) as u32, 8)
  store<u16>(slot, (b >> 49) as u16, 12)
  store<u8>(slot, generation as u8, 14)
  store<u32>(part, load<u32>(part, 4) + 1, 4)
  const count = COUNTS + ((generation as usize) << 2)
  store<u32>(count, load<u32>(count) + 1)
  held += 1
}

/** The next size above `groups` that partitions of this kind have. */
function grown(groups: u32, partition: u32): u32 {
  let octave: f64 = 1
  while (octave <= groups) octave *= 2
  octave /= 2
  let step = partition & 7
  for (;;) {
    const size = ceil(load<f64>(LADDER + ((step as usize) << 3)) * octave) as u32
    if (size > groups) return size
    step += 8
    if (step >= LADDER_STEPS) {
      step -= LADDER_STEPS
      octave *= 2
    }
  }
  return groups + 1
}

/** Memory is never given back by the kernel, so a partition does not shrink. */
function groupsFor(alive: u32, groups: u32, partition: u32): u32 {
  if ((alive as f64) <= LOAD_GROW * 16 * (groups as f64)) return groups
  const next = grown(groups, partition)
  // Near the bound the last step is cut short.
  if (next > groupsAtBound && (alive as f64) < 0.97 * LOAD_MAX * 16 * (groupsAtBound as f64))
    return max(groups, groupsAtBound)
  return min(next, groupsMost)
}

/** What lies behind the groups of a partition is always zero. */
function rebuild(partition: u32): void {
  store<u32>(MOVED + ((partition as usize) << 2), lookUps)
  const part = PARTS + ((partition as usize) << 3)
  const before = load<u32>(part)
  const bytes = (before as usize) << GROUP_SHIFT
  const first = placeOf(partition as usize, 0)
  for (let done: usize = 0, piece = first; done < bytes; done += PIECE_BYTES, piece += STRIDE) {
    const some = min(PIECE_BYTES, bytes - done)
    memory.copy(scratch + done, piece, some)
    memory.fill(piece, 0, some)
  }
  let alive = load<u32>(part, 4)
  if (unswept !== 0) {
    alive = 0
    for (let group = scratch; group < scratch + bytes; group += 256) {
      for (let lane: usize = 0; lane < 16; lane += 1) {
        if (load<u8>(group + lane) === 0) continue
        if (load<u8>(DEAD + (load<u8>(group + 16 + lane * SLOT_BYTES, 14) as usize)) !== 0) store<u8>(group + lane, 0)
        else alive += 1
      }
    }
  }
  const groups = groupsFor(alive, before, partition)
  memory.fill(fills, 0, groups as usize)
  for (let from = scratch; from < scratch + bytes; from += 256) {
    let lanes = i8x16.bitmask(v128.load(from))
    while (lanes !== 0) {
      const lane = ctz(lanes) as usize
      lanes &= lanes - 1
      const slot = from + 16 + lane * SLOT_BYTES
      const x = load<u64>(slot)
      let number = firstOf(x, groups)
      let place = load<u8>(fills + (number as usize)) as usize
      for (let probe: u32 = 1; place === 16; probe += 1) {
        number = nextOf(number, probe, x, groups)
        place = load<u8>(fills + (number as usize)) as usize
      }
      store<u8>(fills + (number as usize), (place + 1) as u8)
      const group = placeOf(partition as usize, number)
      const target = group + 16 + place * SLOT_BYTES
      store<u8>(group + place, load<u8>(from + lane))
      store<u64>(target, x)
      store<u64>(target, load<u64>(slot, 7), 7)
    }
  }
  store<u32>(part, groups)
  store<u32>(part, alive, 4)
  capacity += 16 * ((groups as f64) - (before as f64))
}

/** Entries of a key block, 16 bytes each, into the table; the place of the first that is held already, or `count`. */
export function dedupeAddAll(at: usize, count: u32, generation: u32): u32 {
  for (let begin: u32 = 0; begin < count; begin += AHEAD) {
    const to = min<u32>(begin + AHEAD, count)
    seekAll(at + ((begin as usize) << 4), to - begin)
    for (let i = begin; i < to; i += 1) {
      const a = load<u64>(at + ((i as usize) << 4))
      const b = load<u64>(at + ((i as usize) << 4), 8)
      if (sought(i - begin, a, b) !== 0) return i
      put(a, b, generation)
    }
  }
  return count
}

/** Voids of a key block: a later void of the same id takes the place of an earlier one. */
export function dedupeAddVoids(at: usize, count: u32, generation: u32): void {
  for (let i: u32 = 0; i < count; i += 1) {
    const a = load<u64>(at + ((i as usize) << 4))
    const b = load<u64>(at + ((i as usize) << 4), 8)
    const mark = seek(a, b)
    if (mark !== 0) store<u8>(mark, takeOver(generationOf(mark), generation), 14)
    else put(a, b, generation)
  }
}

/**
 * seek() for so many entries at `entries`, at most AHEAD of them: fills FOUND, and PLACES for those that are not held. It waits for
 * memory once for many of them: each pass asks for the control bytes of all, then for the slots that these point to, and
 * entries whose group is full go to the next pass with the next group. That is a third of them near a load of 0.93.
 */
function seekAll(entries: usize, count: u32): void {
  lookUps += 1
  for (let i: usize = 0; i < (count as usize); i += 1) {
    const a = load<u64>(entries + (i << 4))
    const partition = (a >> 54) as usize
    const number = homeOf((a >> 22) as u32, load<u32>(PARTS + (partition << 3)))
    const group = placeOf(partition, number)
    store<u32>(NUMBERS + (i << 2), number)
    store<u32>(ASKED + (i << 2), group as u32)
    store<u32>(QUEUE + (i << 2), i as u32)
    store<u32>(PLACES + (i << 3), group as u32)
  }
  ask(count)
  for (let probe: u32 = 1; count > 0; probe += 1) {
    for (let j: usize = 0; j < (count as usize); j += 1) {
      const i = load<u32>(QUEUE + (j << 2)) as usize
      const group = load<u32>(PLACES + (i << 3)) as usize
      const controls = v128.load(group)
      const control = (load<u64>(entries + (i << 4)) & 0x7f) | 0x80
      const hits = i8x16.bitmask(i8x16.eq(controls, i8x16.splat(control as i8)))
      const empty = i8x16.bitmask(i8x16.eq(controls, i8x16.splat(0)))
      store<u32>(HITS + (i << 2), hits as u32)
      store<u32>(PLACES + (i << 3), empty as u32, 4)
      const lanes = hits !== 0 ? hits : empty
      const slot = group + 16 + (ctz(lanes) as usize) * SLOT_BYTES
      store<u32>(ASKED + (j << 2), (lanes !== 0 ? slot : group) as u32)
    }
    ask(count)
    let full: usize = 0
    for (let j: usize = 0; j < (count as usize); j += 1) {
      const i = load<u32>(QUEUE + (j << 2))
      const entry = entries + ((i as usize) << 4)
      const place = PLACES + ((i as usize) << 3)
      const group = load<u32>(place) as usize
      const hits = load<u32>(HITS + ((i as usize) << 2)) as i32
      const found: usize = hits === 0 ? 0 : slotOf(group, hits, load<u64>(entry), load<u64>(entry, 8))
      store<u32>(FOUND + ((i as usize) << 2), found as u32)
      if (found !== 0 || load<u32>(place, 4) !== 0) continue
      const a = load<u64>(entry)
      const partition = (a >> 54) as usize
      const at = NUMBERS + ((i as usize) << 2)
      const groups = load<u32>(PARTS + (partition << 3))
      const number = nextOf(load<u32>(at), probe, bitsOf(a, load<u64>(entry, 8)), groups)
      store<u32>(at, number)
      const next = placeOf(partition, number)
      store<u32>(place, next as u32)
      store<u32>(ASKED + (full << 2), next as u32)
      store<u32>(QUEUE + (full << 2), i)
      full += 1
    }
    count = full as u32
    ask(count)
  }
}

/** Asks for the memory at so many addresses of ASKED; in a loop of nothing else, so that as many loads as can be are under way. */
function ask(count: u32): void {
  let sum: u64 = 0
  let p = ASKED
  const end = ASKED + ((count as usize) << 2)
  for (const to = ASKED + (((count & ~7) as usize) << 2); p < to; p += 32) {
    sum += load<u64>(load<u32>(p) as usize)
    sum += load<u64>(load<u32>(p, 4) as usize)
    sum += load<u64>(load<u32>(p, 8) as usize)
    sum += load<u64>(load<u32>(p, 12) as usize)
    sum += load<u64>(load<u32>(p, 16) as usize)
    sum += load<u64>(load<u32>(p, 20) as usize)
    sum += load<u64>(load<u32>(p, 24) as usize)
    sum += load<u64>(load<u32>(p, 28) as usize)
  }
  for (; p < end; p += 4) sum += load<u64>(load<u32>(p) as usize)
  touched += sum
}

/** What seek() would answer for number `i` of the last seekAll(): nothing is put before that place, so it is free or all is as it was. */
function sought(i: u32, a: u64, b: u64): usize {
  const found = load<u32>(FOUND + ((i as usize) << 2)) as usize
  if (load<u32>(MOVED + (((a >> 54) as usize) << 2)) === lookUps) return seek(a, b)
  if (found !== 0) return found
  const place = PLACES + ((i as usize) << 3)
  emptyGroup = load<u32>(place) as usize
  emptyLane = ctz(load<u32>(place, 4))
  return load<u8>(emptyGroup + (emptyLane as usize)) === 0 ? 0 : seek(a, b)
}

/** Entries of a generation. */
export function dedupeCount(generation: u32): u32 {
  return load<u32>(COUNTS + ((generation as usize) << 2))
}

/** Forgets every entry of a generation from this call on; false when that was done already. */
export function dedupeDrop(generation: u32): bool {
  if (load<u8>(DEAD + (generation as usize)) !== 0) return false
  held -= dedupeCount(generation) as f64
  store<u8>(DEAD + (generation as usize), 1)
  store<u32>(COUNTS + ((generation as usize) << 2), 0)
  unswept = PARTITIONS
  return true
}

export function dedupeIsDead(generation: u32): bool {
  return load<u8>(DEAD + (generation as usize)) !== 0
}

export function dedupeSweep(count: u32): void {
  for (let i: u32 = 0; i < count && unswept > 0; i += 1) {
    rebuild(PARTITIONS - unswept)
    unswept -= 1
    if (unswept === 0) memory.fill(DEAD, 0, 256)
  }
}

/** Slots, taken or not. */
export function dedupeCapacity(): f64 {
  return capacity
}

/** Entries alive, of all generations. */
export function dedupeHeld(): f64 {
  return held
}

/** Entries since dedupeClear(). */
export function dedupeKeys(): u32 {
  return keys
}

export function dedupeVoids(): u32 {
  return voids
}

export function dedupeClear(): void {
  keys = 0
  voids = 0
}

export function dedupeAccepted(): u32 {
  return accepted
}

export function dedupeVoided(): u32 {
  return voided
}

export function dedupeBehind(): u32 {
  return behind
}

/** The latest eventTime among the ids that the last frame added; −1 when it added none. */
export function dedupeLastTime(): f64 {
  return lastTime
}

/** Read by nobody: without a reader the compiler would leave out the loads that touch the memory ahead. */
export function dedupeTouched(): u64 {
  return touched
}

/** Fills SERIES_KEYS; false when the tables are not what the head says. */
function hashSeries(): bool {
  let p = frame.metricsAt
  for (let i: u32 = 0; i < frame.metricCount; i += 1) {
    if (p + 10 > frame.metricsEnd || !frame.fits16(p + 8, frame.metricsEnd)) return false
    store<u32>(METRICS + ((i as usize) << 2), p as u32)
    p += 10 + (load<u16>(p, 8) as usize)
  }
  p = frame.seriesAt
  let lastMetric: u32 = 0xffff_ffff
  let head: usize = TEXT
  for (let i: u32 = 0; i < frame.seriesCount; i += 1) {
    if (p + 4 > frame.seriesEnd) return false
    const metric = load<u32>(p)
    if (metric !== lastMetric) {
      // Neighbours mostly share their metric: its text stays in front.
      if (metric >= frame.metricCount) return false
      head = contentHead(TEXT, load<u32>(METRICS + ((metric as usize) << 2)) as usize)
      lastMetric = metric
    }
    p += 4
    if (!frame.fits16(p, frame.seriesEnd)) return false
    p += 2 + (load<u16>(p) as usize)
    if (!frame.fits16(p, frame.seriesEnd)) return false
    const subject = p
    p += 2 + (load<u16>(p) as usize)
    if (!frame.fits32(p, frame.seriesEnd)) return false
    const length = load<u32>(p) as usize
    if (length > 65_536) return false
    p += 4 + length
    contentKey(CONTENT_KEY, TEXT, head, subject, SERIES_KEYS + ((i as usize) << 4))
  }
  return true
}

/**
 * Fills HASHES and TAGS of the frame at [at, at + length); false when it is not one. `given`: so many content keys stand in
 * SERIES_KEYS already, one for each series; 0: they are made here.
 */
export function dedupeHash(at: usize, length: usize, given: u32): bool {
  if (!frame.open(at, length)) return false
  if (given !== 0 ? given !== frame.seriesCount : !hashSeries()) return false
  let p = frame.originsAt
  for (let i: u32 = 0; i < frame.originCount; i += 1) {
    if (!frame.fits16(p, frame.originsEnd)) return false
    let out = text32(TEXT, p)
    p += 2 + (load<u16>(p) as usize)
    if (!frame.fits16(p, frame.originsEnd)) return false
    out = text32(out, p)
    p += 2 + (load<u16>(p) as usize)
    sip(KEYS, TEXT, out - TEXT, ORIGIN_KEYS + ((i as usize) << 4))
  }
  let idFrom: u32 = 0
  let memberFrom: u32 = 0
  const result = TEXT
  const content = TEXT + 16
  for (let i: usize = 0; i < (frame.events as usize); i += 1) {
    const idTo = load<u32>(frame.idEnds + (i << 2))
    const memberTo = load<u32>(frame.memberEnds + (i << 2))
    const origin = load<u32>(frame.originOf + (i << 2))
    const series = load<u32>(frame.seriesOf + (i << 2))
    if (idTo < idFrom || idTo > frame.idBytes || memberTo < memberFrom || memberTo > frame.memberBytes) return false
    if (origin >= frame.originCount || series >= frame.seriesCount) return false
    sip(
      ORIGIN_KEYS + ((origin as usize) << 4),
      frame.ids + (idFrom as usize),
      (idTo - idFrom) as usize,
      HASHES + (i << 4),
    )
    idFrom = idTo
    // Without a time from the sender each try has another one: it is not part of the content.
    const isUntimed = (load<u8>(frame.kinds + i) & 2) !== 0
    store<u64>(content, isUntimed ? 0xffff_ffff_ffff_ffff : load<u64>(frame.times + (i << 3)))
    store<u64>(content, load<u64>(frame.values + (i << 3)), 8)
    const memberLength = (memberTo - memberFrom) as usize
    if (memberLength > 65_536) return false
    if (memberLength > 0) copy(content + 16, frame.members + (memberFrom as usize), memberLength)
    memberFrom = memberTo
    sip(SERIES_KEYS + ((series as usize) << 4), content, 16 + memberLength, result, true)
    store<u64>(HASHES + (i << 4), load<u64>(HASHES + (i << 4), 8) & (KEY_BITS ^ VOID), 8)
    store<u32>(TAGS + (i << 2), load<u32>(result))
  }
  return idFrom === frame.idBytes && memberFrom === frame.memberBytes
}

function pushEntry(entries: usize, number: u32, a: u64, b: u64): void {
  const at = entries + ((number as usize) << 4)
  store<u64>(at, a)
  store<u64>(at, b, 8)
}

/**
 * After dedupeHash(), where there are runs on disk: lists the events whose ids memory does not know in PENDING, for the host to
 * look for in the runs. It writes what it finds to KNOWN and KNOWN_TAGS, which are cleared here.
 */
export function dedupeFind(): u32 {
  memory.fill(KNOWN, 0, frame.events as usize)
  let pending: u32 = 0
  for (let begin: u32 = 0; begin < frame.events; begin += AHEAD) {
    const to = min<u32>(begin + AHEAD, frame.events)
    seekAll(HASHES + ((begin as usize) << 4), to - begin)
    for (let i = begin; i < to; i += 1) {
      if (load<u32>(FOUND + (((i - begin) as usize) << 2)) !== 0) continue
      const a = load<u64>(HASHES + ((i as usize) << 4))
      const b = load<u64>(HASHES + ((i as usize) << 4), 8)
      pushEntry(PENDING, pending, a, b)
      store<u32>(PENDING_OF + ((pending as usize) << 2), i)
      pending += 1
    }
  }
  return pending
}

/** The place of a generation in time, the current one last. */
function age(generation: u32, current: u32): u32 {
  return (generation + 255 - current - 1) % 255
}

/**
 * Judges the events of the hashed frame into `verdicts`, one byte each, and keeps the first of every identity. `forgotten` is
 * the latest eventTime among ids that were forgotten; −Infinity when none were. `hasRuns`: KNOWN says what the runs know. The
 * host has made sure that the entries fit.
 */
export function dedupeJudge(verdicts: usize, generation: u32, forgotten: f64, hasRuns: bool): void {
  accepted = 0
  voided = 0
  behind = 0
  lastTime = -1
  for (let begin: u32 = 0; begin < frame.events; begin += AHEAD) {
    const to = min<u32>(begin + AHEAD, frame.events)
    // With runs dedupeFind() has been through the same memory.
    if (!hasRuns) seekAll(HASHES + ((begin as usize) << 4), to - begin)
    for (let i = begin; i < to; i += 1) {
      const a = load<u64>(HASHES + ((i as usize) << 4))
      const b = load<u64>(HASHES + ((i as usize) << 4), 8)
      const tag = load<u32>(TAGS + ((i as usize) << 2))
      const known: u8 = hasRuns ? load<u8>(KNOWN + (i as usize)) : 0
      let verdict = CONFLICT
      if ((load<u8>(frame.kinds + (i as usize)) & 1) !== 0) {
        const slot: usize = known !== 0 ? 0 : seek(a, b)
        const isKnown = known !== 0 || slot !== 0
        const knownTag = known !== 0 ? load<u32>(KNOWN_TAGS + ((i as usize) << 2)) : slot !== 0 ? tagOf(slot) : 0
        if (isKnown && knownTag === tag) {
          const mark = seek(a, b | VOID)
          // A void of an earlier life of the id is older than the id.
          const isVoided =
            known === 3 ||
            (mark !== 0 && (known !== 0 || age(generationOf(mark), generation) >= age(generationOf(slot), generation)))
          if (isVoided) verdict = DUPLICATE
          else {
            if (mark !== 0) store<u8>(mark, takeOver(generationOf(mark), generation), 14)
            else put(a, b | VOID | ((tag as u64) << 32), generation)
            pushEntry(voidEntries, voids, a, b | VOID | ((tag as u64) << 32))
            voids += 1
            voided += 1
            verdict = ACCEPTED
          }
        }
      } else if (known !== 0) {
        verdict = load<u32>(KNOWN_TAGS + ((i as usize) << 2)) === tag ? DUPLICATE : CONFLICT
      } else {
        const slot = hasRuns ? seek(a, b) : sought(i - begin, a, b)
        const time = load<f64>(frame.times + ((i as usize) << 3))
        if (slot !== 0) verdict = tagOf(slot) === tag ? DUPLICATE : CONFLICT
        else if (time <= forgotten) behind += 1
        else {
          put(a, b | ((tag as u64) << 32), generation)
          accepted += 1
          if (time > lastTime) lastTime = time
          pushEntry(keyEntries, keys, a, b | ((tag as u64) << 32))
          keys += 1
          verdict = ACCEPTED
        }
      }
      store<u8>(verdicts + (i as usize), verdict)
    }
  }
}

/** An entry goes from one generation to another. */
function takeOver(from: u32, to: u32): u8 {
  const source = COUNTS + ((from as usize) << 2)
  const target = COUNTS + ((to as usize) << 2)
  store<u32>(source, load<u32>(source) - 1)
  store<u32>(target, load<u32>(target) + 1)
  return to as u8
}
