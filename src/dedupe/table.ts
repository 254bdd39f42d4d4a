/**
 * Table of entries: open addressing over typed arrays, 20 bytes a slot, cut into partitions. The plain side, and the oracle of the
 * kernel's table.
 *
 *   word 0, 1, 2   95 bits of the id hash and the void bit; word 0 places the slot in its partition, the low bits of word 1 choose it
 *   word 3         content tag
 *   word 4         generation, 0 = empty slot
 *
 * A partition grows, and is rid of dropped generations, by being rebuilt alone; the longest pause is one partition. A dropped
 * generation is marked dead at once (its entries are no longer found) and swept out partition by partition. The bound on the
 * number of entries is the caller's duty.
 */
import { assert } from '../assert.js'
import { VOID_BIT } from './identity.js'

const SLOT_WORDS = 5
const PARTITIONS_MAX = 256
const PARTITION_IDS_MIN = 4_096
const SLOTS_MIN = 256
/** Of the slots, taken ones; beyond it the partition is rebuilt. */
const LOAD_MAX = 0.85
/** A rebuild with more than this alive grows, with less than the other shrinks. */
const LOAD_GROW = 0.75
const LOAD_SHRINK = 0.5
const GROWTH = 1.5

export class IdTable {
  readonly #partitions: Int32Array[]
  readonly #mask: number
  /** Slots that are not empty, dead ones included, per partition. */
  readonly #taken: Uint32Array
  /** Entries alive per generation. */
  readonly #counts = new Float64Array(256)
  /** 1: the generation was dropped and may still have slots. */
  readonly #dead = new Uint8Array(256)
  /** Partitions that may still hold dead slots: the last ones. */
  #unswept = 0
  #slots: number
  #held = 0
  /** Of the entry that the last find() or add() came upon. */
  tag = 0
  generation = 0

  constructor(idsMax: number) {
    let partitions = 1
    while (partitions < PARTITIONS_MAX && idsMax >= 2 * partitions * PARTITION_IDS_MIN) partitions *= 2
    this.#partitions = Array.from({ length: partitions }, () => new Int32Array(SLOT_WORDS * SLOTS_MIN))
    this.#mask = partitions - 1
    this.#taken = new Uint32Array(partitions)
    this.#slots = partitions * SLOTS_MIN
  }

  /** Slots, taken or not. */
  get capacity(): number {
    return this.#slots
  }

  get bytes(): number {
    return 4 * SLOT_WORDS * this.#slots
  }

  /** Entries alive. */
  get held(): number {
    return this.#held
  }

  count(generation: number): number {
    return this.#counts[generation]!
  }

  /** Whether the entry at words[at, at + 4) is held, with this void bit in place of its own. */
  find(words: Int32Array, at: number, voidBit: number): boolean {
    const slots = this.#partitions[words[at + 1]! & this.#mask]!
    return this.#take(slots, this.#seek(slots, words, at, voidBit))
  }

  /** False when the entry is held already. */
  add(words: Int32Array, at: number, voidBit: number, generation: number): boolean {
    const partition = words[at + 1]! & this.#mask
    let slots = this.#partitions[partition]!
    let slot = this.#seek(slots, words, at, voidBit)
    if (this.#take(slots, slot)) return false
    if (SLOT_WORDS * (this.#taken[partition]! + 1) > LOAD_MAX * slots.length) {
      slots = this.#rebuild(partition)
      slot = this.#seek(slots, words, at, voidBit)
    }
    for (let i = 0; i < 4; i += 1) slots[slot + i] = words[at + i]!
    slots[slot + 2]! |= voidBit
    slots[slot + 4] = generation
    this.#taken[partition]! += 1
    this.#counts[generation]! += 1
    this.#held += 1
    return true
  }

  /** The entry goes to this generation, whether it is held or not. */
  set(words: Int32Array, at: number, voidBit: number, generation: number): void {
    if (this.add(words, at, voidBit, generation)) return
    const slots = this.#partitions[words[at + 1]! & this.#mask]!
    this.#counts[this.generation]! -= 1
    this.#counts[generation]! += 1
    slots[this.#seek(slots, words, at, voidBit) + 4] = generation
  }

  /** Forgets every entry of a generation, from this call on. The slots go with the sweeps. */
  drop(generation: number): void {
    assert(generation > 0 && this.#dead[generation] === 0, `generation ${generation} cannot be dropped`)
    this.#dead[generation] = 1
    this.#held -= this.#counts[generation]!
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

  #take(slots: Int32Array, slot: number): boolean {
    this.tag = slots[slot + 3]!
    this.generation = slots[slot + 4]!
    return this.generation !== 0
  }

  /** Place of the entry, or of the empty slot where the search for it ended. */
  #seek(slots: Int32Array, words: Int32Array, at: number, voidBit: number): number {
    const a = words[at]!
    const b = words[at + 1]!
    const c = (words[at + 2]! & ~VOID_BIT) | voidBit
    let slot = SLOT_WORDS * placeOf(a, slots.length / SLOT_WORDS)
    for (;;) {
      const generation = slots[slot + 4]!
      if (generation === 0) return slot
      if (slots[slot] === a && slots[slot + 1] === b && slots[slot + 2] === c && this.#dead[generation] === 0)
        return slot
      slot += SLOT_WORDS
      if (slot === slots.length) slot = 0
    }
  }

  #rebuild(partition: number): Int32Array {
    const old = this.#partitions[partition]!
    const isAlive = (slot: number): boolean => old[slot + 4] !== 0 && this.#dead[old[slot + 4]!] === 0
    let alive = 0
    for (let slot = 0; slot < old.length; slot += SLOT_WORDS) if (isAlive(slot)) alive += 1
    const count = slotsFor(alive, old.length / SLOT_WORDS)
    const slots = new Int32Array(SLOT_WORDS * count)
    for (let from = 0; from < old.length; from += SLOT_WORDS) {
      if (!isAlive(from)) continue
      let slot = SLOT_WORDS * placeOf(old[from]!, count)
      while (slots[slot + 4] !== 0) {
        slot += SLOT_WORDS
        if (slot === slots.length) slot = 0
      }
      for (let i = 0; i < SLOT_WORDS; i += 1) slots[slot + i] = old[from + i]!
    }
    this.#slots += count - old.length / SLOT_WORDS
    this.#partitions[partition] = slots
    this.#taken[partition] = alive
    return slots
  }
}

function slotsFor(alive: number, slots: number): number {
  if (alive > LOAD_GROW * slots) return Math.ceil(GROWTH * slots)
  if (alive < LOAD_SHRINK * slots) return Math.max(SLOTS_MIN, Math.ceil(alive / 0.65))
  return slots
}

/** Where the search for a hash begins: its share of the slots, below `slots` also after the rounding of the product. */
function placeOf(word: number, slots: number): number {
  return Math.floor(((word >>> 0) * slots) / 0x1_0000_0000)
}
