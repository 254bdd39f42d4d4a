/**
 * Where a stream's ids are kept in memory, and how a frame is judged against them and against the runs on disk: the part of dedupe
 * that costs time. Two real sides, which give the same verdicts, the same entries and the same counts: `PlainStore` here, and
 * `KernelStore` in WASM.
 *
 * A void is an entry of its own, with the hash of its id and the void bit, in the generation in which it came. It counts for the
 * id when it is not older than it: an id may be forgotten and come again, and then the void of its earlier life means nothing.
 * Thus nothing on disk is ever changed, and a void moves, expires and is found again like any id.
 *
 * A store knows generations as bytes, 1 to 255, a ring whose newest is the one that is judged; which of them live, and until
 * when, is dedupe.ts' business.
 */
import { type Frame, KIND_VOID } from '../frame.js'
import { ShardVerdict } from '../ingest/verdict.js'
import { Identity, VOID_BIT } from './identity.js'
import { ENTRY_WORDS, EntryList } from './key-block.js'
import { Known } from './runs.js'
import { IdTable } from './table.js'

/** What a frame did to the store. */
export interface FrameCounts {
  /** Ids added. */
  readonly accepted: number
  readonly voided: number
  /** Unknown ids with an eventTime at or below what was forgotten: answered with `conflict`. */
  readonly behind: number
  /** Latest eventTime among the ids added; −1 when there are none. */
  readonly lastTime: number
}

/** The ids on disk, as a store asks for them. */
export interface IdRuns {
  /** Runs that are asked; 0: nobody needs to ask. */
  readonly length: number
  /** Looks for `count` entries; writes a Known and, of a known id, its content tag for each. */
  find(words: Int32Array, count: number, known: Uint8Array, tags: Int32Array): void
}

export interface IdStore {
  /** Slots, taken or not. */
  readonly capacity: number
  readonly bytes: number
  /** Entries alive: ids and voids. */
  readonly held: number
  /**
   * One verdict for each event of the frame; new entries get the generation. `forgottenTime`: the latest eventTime that was
   * forgotten, −Infinity when none was. `seriesKeys`: the content keys of its series (identity.ts), 16 bytes each, where somebody has
   * them; else they are made.
   */
  judge(
    frame: Frame,
    verdicts: Uint8Array,
    generation: number,
    forgottenTime: number,
    runs: IdRuns,
    seriesKeys: Uint8Array | null,
  ): FrameCounts
  /** Before a restore: so many entries will come. */
  reserve(entries: number): void
  /** Adds the keys of a key block; the place of the first that is held already, or their number. */
  addKeys(words: Int32Array, generation: number): number
  /** Adds the voids of a key block; those that are held go to this generation. */
  addVoids(words: Int32Array, generation: number): void
  /** Forgets every entry of a generation. */
  drop(generation: number): void
  /** Makes a generation's byte usable: no slot carries it any more. */
  open(generation: number): void
  /** Entries of keys and of voids since the last clear(), four words each, in the order of acceptance; valid until the next call. */
  entries(): { readonly keys: Int32Array; readonly voids: Int32Array }
  clear(): void
}

/** The plain side: the oracle, and the fallback where the kernel cannot be used. */
export class PlainStore implements IdStore {
  readonly #identity: Identity
  readonly #table: IdTable
  readonly #keys = new EntryList()
  readonly #voids = new EntryList()
  #known = new Uint8Array(0)
  #knownTags = new Int32Array(0)
  #accepted = 0
  #voided = 0
  #behind = 0
  #lastTime = -1

  constructor(secret: Uint8Array, idsMax: number) {
    this.#identity = new Identity(secret)
    this.#table = new IdTable(idsMax)
  }

  get capacity(): number {
    return this.#table.capacity
  }

  get bytes(): number {
    return this.#table.bytes
  }

  get held(): number {
    return this.#table.held
  }

  judge(frame: Frame, verdicts: Uint8Array, generation: number, forgottenTime: number, runs: IdRuns): FrameCounts {
    this.#table.sweep(1)
    this.#identity.hash(frame)
    const { entries } = this.#identity
    const { kinds, times, events } = frame
    this.#askRuns(entries, events, runs)
    this.#accepted = 0
    this.#voided = 0
    this.#behind = 0
    this.#lastTime = -1
    for (let i = 0; i < events; i += 1) {
      verdicts[i] =
        (kinds[i]! & KIND_VOID) !== 0
          ? this.#judgeVoid(entries, i, generation)
          : this.#judgeUsage(entries, i, times[i]!, generation, forgottenTime)
    }
    return { accepted: this.#accepted, voided: this.#voided, behind: this.#behind, lastTime: this.#lastTime }
  }

  /** Into #known and #knownTags. What memory knows is not on disk: a generation is in one place. */
  #askRuns(entries: Int32Array, events: number, runs: IdRuns): void {
    if (this.#known.length < events) {
      this.#known = new Uint8Array(events)
      this.#knownTags = new Int32Array(events)
    }
    this.#known.fill(Known.nothing)
    if (runs.length > 0) runs.find(entries, events, this.#known, this.#knownTags)
  }

  #judgeUsage(
    entries: Int32Array,
    i: number,
    eventTime: number,
    generation: number,
    forgottenTime: number,
  ): ShardVerdict {
    const at = ENTRY_WORDS * i
    const table = this.#table
    const tag = entries[at + 3]!
    if (this.#known[i] !== Known.nothing)
      return this.#knownTags[i] === tag ? ShardVerdict.duplicate : ShardVerdict.conflict
    if (table.find(entries, at, 0)) return table.tag === tag ? ShardVerdict.duplicate : ShardVerdict.conflict
    if (eventTime <= forgottenTime) {
      // The door should have refused it. Nobody can tell any more whether it is the first, and it must not count twice.
      this.#behind += 1
      return ShardVerdict.conflict
    }
    table.add(entries, at, 0, generation)
    this.#accepted += 1
    if (eventTime > this.#lastTime) this.#lastTime = eventTime
    this.#keys.push(entries, at, 0)
    return ShardVerdict.accepted
  }

  #judgeVoid(entries: Int32Array, i: number, generation: number): ShardVerdict {
    const at = ENTRY_WORDS * i
    const table = this.#table
    const known = this.#known[i]!
    if (known === Known.nothing && !table.find(entries, at, 0)) return ShardVerdict.conflict
    const tag = known === Known.nothing ? table.tag : this.#knownTags[i]!
    const of = known === Known.nothing ? age(table.generation, generation) : -1
    if (tag !== entries[at + 3]!) return ShardVerdict.conflict
    const isVoided =
      known === Known.voided || (table.find(entries, at, VOID_BIT) && age(table.generation, generation) >= of)
    if (isVoided) return ShardVerdict.duplicate
    table.set(entries, at, VOID_BIT, generation)
    this.#voided += 1
    this.#voids.push(entries, at, VOID_BIT)
    return ShardVerdict.accepted
  }

  reserve(): void {}

  addKeys(words: Int32Array, generation: number): number {
    for (let at = 0; at < words.length; at += ENTRY_WORDS) {
      if (!this.#table.add(words, at, 0, generation)) return at / ENTRY_WORDS
    }
    return words.length / ENTRY_WORDS
  }

  addVoids(words: Int32Array, generation: number): void {
    for (let at = 0; at < words.length; at += ENTRY_WORDS) this.#table.set(words, at, VOID_BIT, generation)
  }

  drop(generation: number): void {
    this.#table.drop(generation)
  }

  open(generation: number): void {
    this.#table.open(generation)
  }

  entries(): { keys: Int32Array; voids: Int32Array } {
    return { keys: this.#keys.words, voids: this.#voids.words }
  }

  clear(): void {
    this.#keys.clear()
    this.#voids.clear()
  }
}

/** The place of a generation's byte in time, the current one's last. */
function age(generation: number, current: number): number {
  return (generation + 255 - current - 1) % 255
}
