/**
 * Epoch: the rows of one stream's open epoch, from frames and verdicts to the chunks of all four tables. Two real sides with the
 * same bytes: `PlainEpoch` here, made of aggregate/ and archive.ts, and `KernelEpoch` in WASM (kernel-epoch.ts).
 *
 * Pure: what comes out depends on frames, sequences and verdicts alone, and rows come out in the order in which they were first
 * touched. The caller seals at the bounds of limits.ts: `seriesTouched`, `bytes`, and its own count of events.
 */
import type { Aggregate, Override } from '../aggregate/aggregate.js'
import { type Frame, KIND_VOID } from '../frame.js'
import { ShardVerdict } from '../ingest/verdict.js'
import { limits } from '../limits.js'
import { MINUTE_MS, type Period } from '../period.js'
import { type Archive, openArchive } from './archive.js'
import { type Chunk, encodeMembers, encodeMinutes } from './chunks.js'

/** What one frame added; stored = accepted + duplicate + conflict. */
export interface FrameBooks {
  readonly accepted: number
  readonly duplicate: number
  readonly conflict: number
  /** Among the accepted. */
  readonly voids: number
  readonly archived: number
}

export interface DrainedEpoch {
  /** usage_minute, usage_members, usage_events, ingest_rejects. */
  readonly chunks: Chunk[]
  readonly overrides: Override[]
  /** From the start of the earliest window to the end of the latest; null when there is none. */
  readonly windows: Period | null
}

export interface Epoch {
  /** Rows applied from now on carry this epoch. Called when an epoch opens, with nothing buffered. */
  open(epoch: number): void
  /**
   * The content keys (dedupe/identity.ts) of the frame's series, 16 bytes each, valid until the next call; null when this side does not
   * keep them. It changes nothing. Asked just before the frame is applied, it also saves reading its tables twice.
   */
  seriesKeys(frame: Frame): Uint8Array | null
  /** Adds the frame with this log sequence. `verdicts` holds one ShardVerdict per event. */
  apply(frame: Frame, sequence: number, verdicts: Uint8Array): FrameBooks
  readonly seriesTouched: number
  /** Encoded bytes of archive and reject rows. */
  readonly bytes: number
  /** The epoch's content; afterwards an epoch must be opened again. */
  drain(): DrainedEpoch
  /** Shared memory of chunks whose rows have landed. */
  giveBack(blocks: readonly SharedArrayBuffer[]): void
}

/** The plain side: the oracle, and the fallback where the kernel cannot be used. */
export class PlainEpoch implements Epoch {
  readonly #stream: number
  readonly #rowsMax: number
  readonly #aggregate: Aggregate
  readonly #archive: Archive
  #epoch = 0

  /** `aggregate`: of this stream, with nothing in it. */
  constructor(stream: number, aggregate: Aggregate, rowsMax: number = limits.chunkRowsMax) {
    this.#stream = stream
    this.#rowsMax = rowsMax
    this.#aggregate = aggregate
    this.#archive = openArchive(stream, rowsMax)
  }

  get seriesTouched(): number {
    return this.#aggregate.seriesTouched
  }

  get bytes(): number {
    return this.#archive.bytes
  }

  open(epoch: number): void {
    this.#epoch = epoch
    this.#archive.openEpoch(epoch)
  }

  /** Who needs them makes them. */
  seriesKeys(): null {
    return null
  }

  apply(frame: Frame, sequence: number, verdicts: Uint8Array): FrameBooks {
    this.#aggregate.apply(frame, sequence, verdicts)
    this.#archive.apply(frame, sequence, verdicts)
    const books = { accepted: 0, duplicate: 0, conflict: 0, voids: 0, archived: 0 }
    for (let i = 0; i < frame.events; i += 1) {
      if (verdicts[i] === ShardVerdict.accepted) {
        books.accepted += 1
        if ((frame.kinds[i]! & KIND_VOID) !== 0) books.voids += 1
        if (frame.metrics[frame.series[frame.seriesOf[i]!]!.metric]!.archive) books.archived += 1
      } else if (verdicts[i] === ShardVerdict.duplicate) books.duplicate += 1
      else books.conflict += 1
    }
    return books
  }

  drain(): DrainedEpoch {
    const id = { stream: this.#stream, epoch: this.#epoch }
    const { minutes, members, overrides } = this.#aggregate.drain()
    const chunks = [
      ...encodeMinutes(minutes, id, this.#rowsMax),
      ...encodeMembers(members, id, this.#rowsMax),
      ...this.#archive.drain(),
    ]
    let [from, to] = [Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY]
    for (const { window } of minutes) {
      from = Math.min(from, window)
      to = Math.max(to, window + MINUTE_MS)
    }
    return { chunks, overrides, windows: minutes.length === 0 ? null : { from, to } }
  }

  /** It shares none. */
  giveBack(): void {}
}
