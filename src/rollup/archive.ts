/**
 * Archive: accepted events of an epoch straight from the frame into RowBinary of usage_events, the proof behind every line;
 * refusals and conflicts go to rejects.ts. No object per event is kept.
 *
 * Memory: the epoch's encoded rows. The caller seals the epoch when `bytes` reaches limits.epochBytesMax; what one frame adds
 * above that is bounded by limits.batchEventsMax rows.
 *
 * Positions: an event's is its place in the log, positionOf(sequence, index in the frame).
 */
import { powerOfTen, ROLLUP_SCALE } from '../amount.js'
import { assert } from '../assert.js'
import { positionOf } from '../event.js'
import { type Frame, KIND_VOID } from '../frame.js'
import { ShardVerdict } from '../ingest/verdict.js'
import { limits } from '../limits.js'
import { type Chunk, ChunkWriter, type EpochId } from './chunks.js'
import { Rejects } from './rejects.js'
import { RowBinary } from './row-binary.js'

export interface Archive {
  /** Rows applied from now on carry this epoch. Called when an epoch opens, with nothing buffered. */
  openEpoch(epoch: number): void
  /** Adds the frame with this log sequence. `verdicts` holds one ShardVerdict per event. */
  apply(frame: Frame, sequence: number, verdicts: Uint8Array): void
  /** Encoded bytes of the open epoch, both tables. */
  readonly bytes: number
  /** Rows of usage_events in the open epoch. */
  readonly events: number
  /** Rows of ingest_rejects in the open epoch. */
  readonly rejects: number
  /** The epoch's chunks of usage_events, then those of ingest_rejects. Afterwards an epoch must be opened again. */
  drain(): Chunk[]
}

/** The archive of one stream. */
export function openArchive(stream: number, rowsMax: number = limits.chunkRowsMax): Archive {
  return new StreamArchive(stream, rowsMax)
}

class StreamArchive implements Archive {
  readonly #stream: number
  readonly #events: ChunkWriter
  readonly #rejects: Rejects
  /** For the parts of a row that many events of a frame share. */
  readonly #part = new RowBinary()
  #id: EpochId | undefined

  constructor(stream: number, rowsMax: number) {
    this.#stream = stream
    this.#events = new ChunkWriter('usage_events', rowsMax)
    this.#rejects = new Rejects(rowsMax)
  }

  get bytes(): number {
    return this.#events.bytes + this.#rejects.bytes
  }

  get events(): number {
    return this.#events.rows
  }

  get rejects(): number {
    return this.#rejects.rows
  }

  openEpoch(epoch: number): void {
    assert(this.#events.rows + this.#rejects.rows === 0, `epoch ${epoch} opens with rows of another`)
    this.#id = { stream: this.#stream, epoch }
  }

  apply(frame: Frame, sequence: number, verdicts: Uint8Array): void {
    assert(verdicts.length === frame.events, `${verdicts.length} verdicts for ${frame.events} events`)
    const id = this.#id
    assert(id !== undefined, 'a frame reached the archive outside an epoch')
    this.#archive(id, frame, sequence, verdicts)
    this.#rejects.apply(id, frame, sequence, verdicts)
  }

  drain(): Chunk[] {
    this.#id = undefined
    return [...this.#events.drain(), ...this.#rejects.drain()]
  }

  #archive(id: EpochId, frame: Frame, sequence: number, verdicts: Uint8Array): void {
    const factors = frame.metrics.map((metric) => powerOfTen(ROLLUP_SCALE - metric.scale))
    // Columns that many events share, encoded once a frame: first those of the origins, then those of the metrics.
    const part = this.#part
    const originEnds = frame.origins.map((origin) => {
      part.string(origin.tenant)
      part.string(origin.source)
      return part.length
    })
    const metricsAt = part.length
    const metricEnds = frame.metrics.map((metric) => {
      part.string(metric.key)
      part.u32(metric.version)
      return part.length
    })
    const parts = part.take()
    for (let i = 0; i < frame.events; i += 1) {
      if (verdicts[i] !== ShardVerdict.accepted) continue
      const series = frame.series[frame.seriesOf[i]!]!
      if (!frame.metrics[series.metric]!.archive) continue
      const row = this.#events.begin()
      const origin = frame.originOf[i]!
      row.raw(parts, origin === 0 ? 0 : originEnds[origin - 1]!, originEnds[origin]!)
      row.stringBytes(frame.ids, i === 0 ? 0 : frame.idEnds[i - 1]!, frame.idEnds[i]!)
      row.raw(parts, series.metric === 0 ? metricsAt : metricEnds[series.metric - 1]!, metricEnds[series.metric]!)
      row.string(series.subject)
      row.i64(frame.times[i]!)
      row.decimal(frame.values[i]! * factors[series.metric]!)
      row.string(series.dims)
      row.stringBytes(frame.members, i === 0 ? 0 : frame.memberEnds[i - 1]!, frame.memberEnds[i]!)
      row.i8((frame.kinds[i]! & KIND_VOID) !== 0 ? -1 : 1)
      row.i64(frame.receivedAt)
      row.i64(positionOf(sequence, i))
      this.#events.end(id)
    }
  }
}
