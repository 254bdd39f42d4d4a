/**
 * Rejects: refusals of the door and conflicts of the shard, as rows of ingest_rejects. They are few, and spelled out for people.
 *
 * Positions: a conflict's is its place in the log, positionOf(sequence, index in the frame). A refused event has no place in the
 * frame; its row takes the frame's sequence with the index in the request.
 */
import { printQuantity } from '../amount.js'
import { positionOf } from '../event.js'
import { type Frame, frameRefusals, KIND_VOID } from '../frame.js'
import { ShardVerdict } from '../ingest/verdict.js'
import { type Chunk, ChunkWriter, type EpochId } from './chunks.js'

export class Rejects {
  readonly #chunks: ChunkWriter

  constructor(rowsMax: number) {
    this.#chunks = new ChunkWriter('ingest_rejects', rowsMax)
  }

  get rows(): number {
    return this.#chunks.rows
  }

  get bytes(): number {
    return this.#chunks.bytes
  }

  /** Adds the conflicts and the refusals of the frame with this log sequence. */
  apply(id: EpochId, frame: Frame, sequence: number, verdicts: Uint8Array): void {
    for (let i = verdicts.indexOf(ShardVerdict.conflict); i >= 0; i = verdicts.indexOf(ShardVerdict.conflict, i + 1)) {
      this.#conflict(id, frame, sequence, i)
    }
    if (frame.refusals > 0) this.#refuse(id, frame, sequence)
  }

  drain(): Chunk[] {
    return this.#chunks.drain()
  }

  #refuse(id: EpochId, frame: Frame, sequence: number): void {
    for (const refusal of frameRefusals(frame)) {
      const row = this.#chunks.begin()
      row.string(refusal.tenant)
      row.string(refusal.code)
      row.string(refusal.field)
      row.string(refusal.message)
      row.string(refusal.source)
      row.string(refusal.id)
      row.string(refusal.metric)
      row.string(refusal.raw)
      row.i64(frame.receivedAt)
      row.i64(positionOf(sequence, refusal.index))
      this.#chunks.end(id)
    }
  }

  /** The event is nowhere else but in the log, so the message says what was not counted. */
  #conflict(id: EpochId, frame: Frame, sequence: number, i: number): void {
    const series = frame.series[frame.seriesOf[i]!]!
    const metric = frame.metrics[series.metric]!
    const origin = frame.origins[frame.originOf[i]!]!
    const kind = (frame.kinds[i]! & KIND_VOID) !== 0 ? 'void' : 'usage'
    const value = printQuantity(frame.values[i]!, metric.scale)
    const time = new Date(frame.times[i]!).toISOString()
    const row = this.#chunks.begin()
    row.string(origin.tenant)
    row.string('conflict')
    row.string('id')
    row.string(`the same identity came with other content before; not counted: ${kind} of ${value} at ${time}`)
    row.string(origin.source)
    row.stringBytes(frame.ids, i === 0 ? 0 : frame.idEnds[i - 1]!, frame.idEnds[i]!)
    row.string(metric.key)
    row.string('')
    row.i64(frame.receivedAt)
    row.i64(positionOf(sequence, i))
    this.#chunks.end(id)
  }
}
