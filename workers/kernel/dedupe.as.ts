/**
 * Dedupe in WASM: identities, content tags and the table of ids. The twin of src/dedupe/identity.ts and table.ts, with the same
 * hashes, the same entries and the same comparison of 103 bits; src/dedupe/dedupe.ts keeps the generations, and
 * src/dedupe/kernel-store.ts calls this.
 *
 * Memory, from the bottom:
 *
 *      KEYS        the purpose keys «identity» and «content», 16 bytes each
 *      COUNTS      ids alive by generation, u32
 *      DEAD        1: the generation was dropped and may still have slots; u8
 *      TEXT        a text of several parts, put together before it is hashed
 *      ORIGIN_KEYS, SERIES_KEYS   of the frame, 16 bytes each
 *      HASHES      of the frame's events, 16 bytes each
 *      TAGS        u16 each
 *      METRICS     where each row of the frame's metric table begins, u32
 *      PARTS       per partition: u32 slots, u32 taken
 *      -- from here on where dedupeLayOut puts it
 *      entries     the epoch's keys, then its voids: 16 bytes each
 *      partitions  one stride each, as large as one may ever grow; memory that nobody touched costs nothing
 *      scratch     one stride: the slots of the partition that is being rebuilt
 *      frame       its bytes, SLACK
 *
 * A slot: u64 words 0 and 1 of the hash; u64 word 2 | content tag at bit 32 | generation at 48 | voided at 56 | 7 more bits.
 * A partition is rebuilt in place, through the scratch, when it is full or has dead slots; the longest pause is one of them.
 */
import { copy } from './bytes.as'
import * as frame from './frame.as'
import { sip } from './sip.as'

const KEYS: usize = 1_024
const CONTENT_KEY: usize = KEYS + 16
const COUNTS: usize = 2_048
const DEAD: usize = COUNTS + 4 * 256
const TEXT: usize = 4_096
const TEXT_BYTES: usize = 4 * 65_536
const ORIGIN_KEYS: usize = TEXT + TEXT_BYTES
const SERIES_KEYS: usize = ORIGIN_KEYS + 16 * (frame.FRAME_EVENTS_MAX as usize)
const HASHES: usize = SERIES_KEYS + 16 * (frame.FRAME_EVENTS_MAX as usize)
const TAGS: usize = HASHES + 16 * (frame.FRAME_EVENTS_MAX as usize)
const METRICS: usize = TAGS + 2 * (frame.FRAME_EVENTS_MAX as usize)
const PARTS: usize = METRICS + 4 * (frame.FRAME_EVENTS_MAX as usize)
export const DEDUPE_PARTITIONS_MAX: u32 = 1_024
export const DEDUPE_FIXED_BYTES: usize = PARTS + 8 * (DEDUPE_PARTITIONS_MAX as usize)
export const DEDUPE_KEYS: usize = KEYS

const REST: u64 = 0xfe00_0000_ffff_ffff
const VOIDED: u64 = 1 << 56
/** Events whose slots are touched before they are judged, so that the waits for memory overlap. */
const AHEAD: u32 = 64

const ACCEPTED: u8 = 0
const DUPLICATE: u8 = 1
const CONFLICT: u8 = 2

let partitions: usize = 0
let partitionCount: u32 = 0
let mask: u32 = 0
let stride: usize = 0
let strideSlots: u32 = 0
let slotsAtBound: u32 = 0
let scratch: usize = 0
let keyEntries: usize = 0
let voidEntries: usize = 0
let keys: u32 = 0
let voids: u32 = 0
let unswept: u32 = 0
let capacity: f64 = 0
let touched: u64 = 0

// Of the last frame.
let accepted: u32 = 0
let voided: u32 = 0
let behind: u32 = 0
let lastTime: f64 = 0

/** `slots` is what a partition begins with, `atBound` what it has when all ids are held, `most` what it may ever have. */
export function dedupeLayOut(
  keysAt: usize,
  voidsAt: usize,
  partitionsAt: usize,
  count: u32,
  slots: u32,
  atBound: u32,
  most: u32,
): void {
  keyEntries = keysAt
  voidEntries = voidsAt
  partitions = partitionsAt
  partitionCount = count
  mask = count - 1
  slotsAtBound = atBound
  strideSlots = most
  stride = (most as usize) << 4
  scratch = partitions + (count as usize) * stride
  for (let i: u32 = 0; i < count; i += 1) {
    store<u32>(PARTS + ((i as usize) << 3), slots)
    store<u32>(PARTS + ((i as usize) << 3), 0, 4)
  }
  capacity = (count as f64) * (slots as f64)
}

function placeOf(word: u32, slots: u32): u32 {
  return (((word as u64) * (slots as u64)) >> 32) as u32
}

/** Place of the id, or of the empty slot where the search for it ended. */
function seek(partition: u32, a: u64, b: u64): usize {
  const slots = load<u32>(PARTS + ((partition as usize) << 3))
  const base = partitions + (partition as usize) * stride
  const end = base + ((slots as usize) << 4)
  let at = base + ((placeOf(a as u32, slots) as usize) << 4)
  for (;;) {
    const entry = load<u64>(at, 8)
    const generation = (entry >> 48) & 0xff
    if (generation === 0) return at
    if (load<u64>(at) === a && ((entry ^ b) & REST) === 0 && load<u8>(DEAD + (generation as usize)) === 0) return at
    at += 16
    if (at === end) at = base
  }
  return 0
}

/** The entry of an id that is held already, or 0 after it has been added. */
function add(a: u64, b: u64, tag: u64, generation: u32): u64 {
  const partition = ((a >> 32) as u32) & mask
  const part = PARTS + ((partition as usize) << 3)
  let at = seek(partition, a, b)
  const entry = load<u64>(at, 8)
  if (entry !== 0) return entry
  const slots = load<u32>(part)
  const taken = load<u32>(part, 4)
  if (((taken + 1) as f64) > 0.85 * (slots as f64)) {
    rebuild(partition)
    at = seek(partition, a, b)
    // Beyond what the hash can do: the host has bounded the ids, and a partition has room for many more than its share.
    if (load<u32>(part, 4) + 1 >= load<u32>(part)) unreachable()
  }
  store<u64>(at, a)
  store<u64>(at, (b & REST) | ((generation as u64) << 48) | (tag << 32), 8)
  store<u32>(part, load<u32>(part, 4) + 1, 4)
  const count = COUNTS + ((generation as usize) << 2)
  store<u32>(count, load<u32>(count) + 1)
  return 0
}

function slotsFor(alive: u32, slots: u32): u32 {
  const taken = alive as f64
  if (taken > 0.75 * (slots as f64)) {
    const grown = ceil(1.5 * (slots as f64)) as u32
    if (grown > slotsAtBound && taken <= 0.8 * (slotsAtBound as f64)) return max(slots, slotsAtBound)
    return min(grown, strideSlots)
  }
  if (taken < 0.5 * (slots as f64)) return max<u32>(256, ceil(taken / 0.65) as u32)
  return slots
}

function isAlive(entry: u64): bool {
  const generation = (entry >> 48) & 0xff
  return generation !== 0 && load<u8>(DEAD + (generation as usize)) === 0
}

/** What lies behind the slots of a partition is always zero. */
function rebuild(partition: u32): void {
  const part = PARTS + ((partition as usize) << 3)
  const base = partitions + (partition as usize) * stride
  const before = load<u32>(part)
  const bytes = (before as usize) << 4
  memory.copy(scratch, base, bytes)
  memory.fill(base, 0, bytes)
  let alive: u32 = 0
  for (let at = scratch; at < scratch + bytes; at += 16) if (isAlive(load<u64>(at, 8))) alive += 1
  const slots = slotsFor(alive, before)
  const end = base + ((slots as usize) << 4)
  for (let from = scratch; from < scratch + bytes; from += 16) {
    const entry = load<u64>(from, 8)
    if (!isAlive(entry)) continue
    const a = load<u64>(from)
    let at = base + ((placeOf(a as u32, slots) as usize) << 4)
    while (load<u64>(at, 8) !== 0) {
      at += 16
      if (at === end) at = base
    }
    store<u64>(at, a)
    store<u64>(at, entry, 8)
  }
  store<u32>(part, slots)
  store<u32>(part, alive, 4)
  capacity += (slots as f64) - (before as f64)
}

/** A key of a key block (16 bytes) into the table; false when it is held already. */
export function dedupeAdd(key: usize, generation: u32): bool {
  const b = load<u64>(key, 8)
  return add(load<u64>(key), b, (b >> 32) & 0xffff, generation) === 0
}

/** False when it is not held. */
export function dedupeVoid(key: usize): bool {
  const a = load<u64>(key)
  const at = seek(((a >> 32) as u32) & mask, a, load<u64>(key, 8))
  if (load<u64>(at, 8) === 0) return false
  store<u64>(at, load<u64>(at, 8) | VOIDED, 8)
  return true
}

export function dedupeCount(generation: u32): u32 {
  return load<u32>(COUNTS + ((generation as usize) << 2))
}

/** Forgets every id of a generation from this call on; false when that was done already. */
export function dedupeDrop(generation: u32): bool {
  if (load<u8>(DEAD + (generation as usize)) !== 0) return false
  store<u8>(DEAD + (generation as usize), 1)
  store<u32>(COUNTS + ((generation as usize) << 2), 0)
  unswept = partitionCount
  return true
}

export function dedupeIsDead(generation: u32): bool {
  return load<u8>(DEAD + (generation as usize)) !== 0
}

export function dedupeSweep(count: u32): void {
  for (let i: u32 = 0; i < count && unswept > 0; i += 1) {
    rebuild(partitionCount - unswept)
    unswept -= 1
    if (unswept === 0) memory.fill(DEAD, 0, 256)
  }
}

export function dedupeCapacity(): f64 {
  return capacity
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

function text16(out: usize, from: usize): usize {
  const length = load<u16>(from) as usize
  store<u32>(out, length as u32)
  copy(out + 4, from + 2, length)
  return out + 4 + length
}

/** Fills HASHES and TAGS; false when the frame's tables are not what its head says. */
function hash(): bool {
  let p = frame.originsAt
  for (let i: u32 = 0; i < frame.originCount; i += 1) {
    if (!frame.fits16(p, frame.originsEnd)) return false
    let out = text16(TEXT, p)
    p += 2 + (load<u16>(p) as usize)
    if (!frame.fits16(p, frame.originsEnd)) return false
    out = text16(out, p)
    p += 2 + (load<u16>(p) as usize)
    sip(KEYS, TEXT, out - TEXT, ORIGIN_KEYS + ((i as usize) << 4))
  }
  p = frame.metricsAt
  for (let i: u32 = 0; i < frame.metricCount; i += 1) {
    if (p + 10 > frame.metricsEnd || !frame.fits16(p + 8, frame.metricsEnd)) return false
    store<u32>(METRICS + ((i as usize) << 2), p as u32)
    p += 10 + (load<u16>(p, 8) as usize)
  }
  p = frame.seriesAt
  let lastMetric: u32 = 0xffff_ffff
  let prefix: usize = TEXT
  for (let i: u32 = 0; i < frame.seriesCount; i += 1) {
    if (p + 4 > frame.seriesEnd) return false
    const metric = load<u32>(p)
    if (metric !== lastMetric) {
      // Neighbours mostly share their metric: its text stays in front.
      if (metric >= frame.metricCount) return false
      const m = load<u32>(METRICS + ((metric as usize) << 2)) as usize
      prefix = text16(TEXT, m + 8)
      store<u32>(prefix, load<u32>(m, 4))
      prefix += 4
      lastMetric = metric
    }
    p += 4
    if (!frame.fits16(p, frame.seriesEnd)) return false
    p += 2 + (load<u16>(p) as usize)
    if (!frame.fits16(p, frame.seriesEnd)) return false
    let out = text16(prefix, p)
    p += 2 + (load<u16>(p) as usize)
    if (!frame.fits32(p, frame.seriesEnd)) return false
    const length = load<u32>(p) as usize
    if (length > 65_536) return false
    copy(out, p, 4 + length)
    out += 4 + length
    p += 4 + length
    sip(CONTENT_KEY, TEXT, out - TEXT, SERIES_KEYS + ((i as usize) << 4))
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
    sip(SERIES_KEYS + ((series as usize) << 4), content, 16 + memberLength, result)
    store<u16>(TAGS + (i << 1), load<u16>(result))
  }
  return idFrom === frame.idBytes && memberFrom === frame.memberBytes
}

function pushEntry(entries: usize, number: u32, a: u64, b: u64, tag: u64): void {
  const at = entries + ((number as usize) << 4)
  store<u64>(at, a)
  store<u64>(at, (b & REST) | (tag << 32), 8)
}

/**
 * Judges the events of the frame at [at, at + length) into `verdicts`, one byte each, and keeps the first of every identity.
 * `forgotten` is the latest eventTime among ids that were forgotten; −Infinity when none were. False: not a frame; nothing has
 * changed then. The host has made sure that the entries fit.
 */
export function dedupeJudge(at: usize, length: usize, verdicts: usize, generation: u32, forgotten: f64): bool {
  if (!frame.open(at, length) || !hash()) return false
  accepted = 0
  voided = 0
  behind = 0
  lastTime = -1
  let sum: u64 = 0
  for (let group: u32 = 0; group < frame.events; group += AHEAD) {
    const to = min<u32>(group + AHEAD, frame.events)
    for (let i = group; i < to; i += 1) {
      const a = load<u64>(HASHES + ((i as usize) << 4))
      const partition = ((a >> 32) as u32) & mask
      const slots = load<u32>(PARTS + ((partition as usize) << 3))
      sum += load<u64>(partitions + (partition as usize) * stride + ((placeOf(a as u32, slots) as usize) << 4))
    }
    for (let i = group; i < to; i += 1) {
      const a = load<u64>(HASHES + ((i as usize) << 4))
      const b = load<u64>(HASHES + ((i as usize) << 4), 8)
      const tag = load<u16>(TAGS + ((i as usize) << 1)) as u64
      let verdict = CONFLICT
      if ((load<u8>(frame.kinds + (i as usize)) & 1) !== 0) {
        const slot = seek(((a >> 32) as u32) & mask, a, b)
        const entry = load<u64>(slot, 8)
        if (entry !== 0 && ((entry >> 32) & 0xffff) === tag) {
          if ((entry & VOIDED) !== 0) verdict = DUPLICATE
          else {
            store<u64>(slot, entry | VOIDED, 8)
            pushEntry(voidEntries, voids, a, b, tag)
            voids += 1
            voided += 1
            verdict = ACCEPTED
          }
        }
      } else {
        const time = load<f64>(frame.times + ((i as usize) << 3))
        if (time <= forgotten && load<u64>(seek(((a >> 32) as u32) & mask, a, b), 8) === 0) behind += 1
        else {
          const entry = add(a, b, tag, generation)
          if (entry !== 0) verdict = ((entry >> 32) & 0xffff) === tag ? DUPLICATE : CONFLICT
          else {
            accepted += 1
            if (time > lastTime) lastTime = time
            pushEntry(keyEntries, keys, a, b, tag)
            keys += 1
            verdict = ACCEPTED
          }
        }
      }
      store<u8>(verdicts + (i as usize), verdict)
    }
  }
  touched += sum
  return true
}
