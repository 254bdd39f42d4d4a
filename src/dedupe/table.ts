/**
 * Table of ids: open addressing over typed arrays, 16 bytes a slot, cut into partitions.
 *
 *   word 0, 1, 2   96 bits of the id hash; word 0 places the slot in its partition, the low bits of word 1 choose the partition
 *   word 3         16 bits content tag | 8 bits generation, 0 = empty slot | 1 bit voided | 7 more bits of the hash
 *
 * So 103 bits of a keyed hash are compared: with 64 million ids held, a new id meets an old one with probability 2^-77.
 * A partition grows, and is rid of dropped generations, by being rebuilt alone; the longest pause is one partition. A dropped
 * generation is marked dead at once (its ids are no longer found) and swept out partition by partition.
 *
 * Memory: at most 0.85 of the slots are taken, and a rebuild leaves at least half of them taken, so 19 to 32 bytes an id, and
 * never more than about 20 bytes × idsMax once idsMax is near. The bound on the number of ids is the caller's duty.
 */
import { assert } from '../assert.js'

const TAG = 0xffff
const GENERATION = 0xff_0000
const VOIDED = 0x100_0000
/** The bits of the hash's last word that are kept. */
export const HASH_REST = 0xfe00_0000 | 0
const SLOT_WORDS = 4

const PARTITIONS_MAX = 256
const PARTITION_IDS_MIN = 4_096
const SLOTS_MIN = 256
/** Of the slots, taken ones; beyond it the partition is rebuilt. */
const LOAD_MAX = 0.85
/** A rebuild with more than this alive grows, with less than the other shrinks. */
const LOAD_GROW = 0.75
const LOAD_SHRINK = 0.5
const GROWTH = 1.5

/** Content tag, generation and voided bit of an entry, as find() and add() return them. */
export const entryTag = (entry: number): number => entry & TAG
export const entryGeneration = (entry: number): number => (entry & GENERATION) >>> 16
export const entryVoided = (entry: number): boolean => (entry & VOIDED) !== 0

export class IdTable {
  readonly #partitions: Int32Array[]
  readonly #mask: number
  /** Slots that are not empty, dead ones included, per partition. */
  readonly #taken: Uint32Array
  /** Slots of a partition when idsMax ids are held: the growth stops there if it can. */
  readonly #slotsAtBound: number
  /** Ids alive per generation. */
  readonly #counts = new Float64Array(256)
  /** 1: the generation was dropped and may still have slots. */
  readonly #dead = new Uint8Array(256)
  /** Partitions that may still hold dead slots: the last ones. */
  #unswept = 0
  #slots: number

  constructor(idsMax: number) {
    let partitions = 1
    while (partitions < PARTITIONS_MAX && idsMax >= 2 * partitions * PARTITION_IDS_MIN) partitions *= 2
    this.#partitions = Array.from({ length: partitions }, () => new Int32Array(SLOT_WORDS * SLOTS_MIN))
    this.#mask = partitions - 1
    this.#taken = new Uint32Array(partitions)
    // Five percent for the unevenness of the partitions.
    this.#slotsAtBound = Math.ceil((1.05 * idsMax) / partitions / LOAD_MAX)
    this.#slots = partitions * SLOTS_MIN
  }

  /** Slots, taken or not. */
  get capacity(): number {
    return this.#slots
  }

  get bytes(): number {
    return 4 * SLOT_WORDS * this.#slots
  }

  count(generation: number): number {
    return this.#counts[generation]!
  }

  /** The entry of an id, or 0 when it is not held. */
  find(hashes: Int32Array, at: number): number {
    const partition = hashes[at + 1]! & this.#mask
    const slots = this.#partitions[partition]!
    const slot = this.#seek(slots, hashes, at)
    return slots[slot + 3]!
  }

  /** The entry of an id that is held already, or 0 after it has been added. */
  add(hashes: Int32Array, at: number, tag: number, generation: number): number {
    const partition = hashes[at + 1]! & this.#mask
    let slots = this.#partitions[partition]!
    let slot = this.#seek(slots, hashes, at)
    const entry = slots[slot + 3]!
    if (entry !== 0) return entry
    if (SLOT_WORDS * (this.#taken[partition]! + 1) > LOAD_MAX * slots.length) {
      slots = this.#rebuild(partition)
      slot = this.#seek(slots, hashes, at)
    }
    slots[slot] = hashes[at]!
    slots[slot + 1] = hashes[at + 1]!
    slots[slot + 2] = hashes[at + 2]!
    slots[slot + 3] = (hashes[at + 3]! & HASH_REST) | (generation << 16) | tag
    this.#taken[partition]! += 1
    this.#counts[generation]! += 1
    return 0
  }

  /** Marks a held id as voided; false when it is not held. */
  markVoided(hashes: Int32Array, at: number): boolean {
    const slots = this.#partitions[hashes[at + 1]! & this.#mask]!
    const slot = this.#seek(slots, hashes, at)
    if (slots[slot + 3] === 0) return false
    slots[slot + 3]! |= VOIDED
    return true
  }

  /** Forgets every id of a generation, from this call on. The slots go with the sweeps. */
  drop(generation: number): void {
    assert(generation > 0 && this.#dead[generation] === 0, `generation ${generation} cannot be dropped`)
    this.#dead[generation] = 1
    this.#counts[generation] = 0
    this.#unswept = this.#partitions.length
  }

  /** Rids up to so many partitions of dead slots. */
  sweep(partitions: number): void {
    for (let i = 0; i < partitions && this.#unswept > 0; i += 1) {
      this.#rebuild(this.#partitions.length - this.#unswept)
      this.#unswept -= 1
      if (this.#unswept === 0) this.#dead.fill(0)
    }
  }

  /** Makes a generation's number usable: no slot carries it any more. */
  open(generation: number): void {
    if (this.#dead[generation] === 1) this.sweep(this.#partitions.length)
    assert(this.#counts[generation] === 0, `generation ${generation} is still in the table`)
  }

  /** Place of the id, or of the empty slot where the search for it ended. */
  #seek(slots: Int32Array, hashes: Int32Array, at: number): number {
    const a = hashes[at]!
    const b = hashes[at + 1]!
    const c = hashes[at + 2]!
    const d = hashes[at + 3]!
    const dead = this.#dead
    let slot = SLOT_WORDS * placeOf(a, slots.length / SLOT_WORDS)
    for (;;) {
      const entry = slots[slot + 3]!
      if ((entry & GENERATION) === 0) return slot
      if (
        slots[slot] === a &&
        slots[slot + 1] === b &&
        slots[slot + 2] === c &&
        ((entry ^ d) & HASH_REST) === 0 &&
        dead[(entry & GENERATION) >>> 16] === 0
      ) {
        return slot
      }
      slot += SLOT_WORDS
      if (slot === slots.length) slot = 0
    }
  }

  #rebuild(partition: number): Int32Array {
    const old = this.#partitions[partition]!
    const dead = this.#dead
    let alive = 0
    for (let slot = 3; slot < old.length; slot += SLOT_WORDS) {
      const generation = (old[slot]! & GENERATION) >>> 16
      if (generation !== 0 && dead[generation] === 0) alive += 1
    }
    const count = this.#slotsFor(alive, old.length / SLOT_WORDS)
    const slots = new Int32Array(SLOT_WORDS * count)
    for (let from = 0; from < old.length; from += SLOT_WORDS) {
      const entry = old[from + 3]!
      const generation = (entry & GENERATION) >>> 16
      if (generation === 0 || dead[generation] !== 0) continue
      let slot = SLOT_WORDS * placeOf(old[from]!, count)
      while (slots[slot + 3] !== 0) {
        slot += SLOT_WORDS
        if (slot === slots.length) slot = 0
      }
      slots[slot] = old[from]!
      slots[slot + 1] = old[from + 1]!
      slots[slot + 2] = old[from + 2]!
      slots[slot + 3] = entry
    }
    this.#slots += count - old.length / SLOT_WORDS
    this.#partitions[partition] = slots
    this.#taken[partition] = alive
    return slots
  }

  #slotsFor(alive: number, slots: number): number {
    if (alive > LOAD_GROW * slots) {
      const grown = Math.ceil(GROWTH * slots)
      // Near the bound the last step is cut short; what dead slots took does not count.
      if (grown > this.#slotsAtBound && alive <= 0.8 * this.#slotsAtBound) return Math.max(slots, this.#slotsAtBound)
      return grown
    }
    if (alive < LOAD_SHRINK * slots) return Math.max(SLOTS_MIN, Math.ceil(alive / 0.65))
    return slots
  }
}

/** Where the search for a hash begins: its share of the slots, below `slots` also after the rounding of the product. */
function placeOf(word: number, slots: number): number {
  return Math.floor(((word >>> 0) * slots) / 0x1_0000_0000)
}
