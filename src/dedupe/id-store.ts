/**
 * Where a stream's ids are kept, and how a frame is judged against them: the part of dedupe that costs time. Two real sides,
 * which give the same verdicts, the same entries and the same counts: `PlainStore` here, and `KernelStore` in WASM.
 *
 * A store knows generations as bytes, 1 to 255; which of them live, and until when, is dedupe.ts' business.
 */
import { type Frame, KIND_VOID } from '../frame.js'
import { ShardVerdict } from '../ingest/verdict.js'
import { Identity } from './identity.js'
import { EntryList } from './key-block.js'
import { SIP_WORDS } from './sip-hash.js'
import { entryTag, entryVoided, HASH_REST, IdTable } from './table.js'

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

export interface IdStore {
  /** Slots, taken or not. */
  readonly capacity: number
  readonly bytes: number
  /**
   * One verdict for each event of the frame; new ids get the generation. `forgottenTime`: the latest eventTime that was
   * forgotten, −Infinity when none was.
   */
  judge(frame: Frame, verdicts: Uint8Array, generation: number, forgottenTime: number): FrameCounts
  /** Adds the entry of a key block at words[at, at + 4); false when its id is held already. */
  add(words: Int32Array, at: number, generation: number): boolean
  /** Marks an id as voided; false when it is not held. */
  markVoided(words: Int32Array, at: number): boolean
  /** Ids of a generation. */
  count(generation: number): number
  /** Forgets every id of a generation. */
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

  judge(frame: Frame, verdicts: Uint8Array, generation: number, forgottenTime: number): FrameCounts {
    this.#table.sweep(1)
    this.#identity.hash(frame)
    const { hashes, tags } = this.#identity
    const { kinds, times, events } = frame
    this.#accepted = 0
    this.#voided = 0
    this.#behind = 0
    this.#lastTime = -1
    for (let i = 0; i < events; i += 1) {
      const at = SIP_WORDS * i
      const tag = tags[i]!
      verdicts[i] =
        (kinds[i]! & KIND_VOID) !== 0
          ? this.#judgeVoid(hashes, at, tag)
          : this.#judgeUsage(hashes, at, tag, times[i]!, generation, forgottenTime)
    }
    return { accepted: this.#accepted, voided: this.#voided, behind: this.#behind, lastTime: this.#lastTime }
  }

  #judgeUsage(
    hashes: Int32Array,
    at: number,
    tag: number,
    eventTime: number,
    generation: number,
    forgottenTime: number,
  ): ShardVerdict {
    if (eventTime <= forgottenTime && this.#table.find(hashes, at) === 0) {
      // The door should have refused it. Nobody can tell any more whether it is the first, and it must not count twice.
      this.#behind += 1
      return ShardVerdict.conflict
    }
    const entry = this.#table.add(hashes, at, tag, generation)
    if (entry !== 0) return entryTag(entry) === tag ? ShardVerdict.duplicate : ShardVerdict.conflict
    this.#accepted += 1
    if (eventTime > this.#lastTime) this.#lastTime = eventTime
    this.#keys.push(hashes, at, (hashes[at + 3]! & HASH_REST) | tag)
    return ShardVerdict.accepted
  }

  #judgeVoid(hashes: Int32Array, at: number, tag: number): ShardVerdict {
    const entry = this.#table.find(hashes, at)
    if (entry === 0 || entryTag(entry) !== tag) return ShardVerdict.conflict
    if (entryVoided(entry)) return ShardVerdict.duplicate
    this.#table.markVoided(hashes, at)
    this.#voided += 1
    this.#voids.push(hashes, at, (hashes[at + 3]! & HASH_REST) | tag)
    return ShardVerdict.accepted
  }

  add(words: Int32Array, at: number, generation: number): boolean {
    return this.#table.add(words, at, words[at + 3]! & 0xffff, generation) === 0
  }

  markVoided(words: Int32Array, at: number): boolean {
    return this.#table.markVoided(words, at)
  }

  count(generation: number): number {
    return this.#table.count(generation)
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
