/**
 * The log on local files: one directory per stream, one file per segment (segment.ts), one group commit per stream (stream.ts).
 * It promises that an append which resolved survives kill -9 and power loss, as far as the disk keeps what fdatasync said, and
 * that whatever is lost all the same has a name in lost().
 *
 * It does not guard against a second process on the same directory (the data directory's lock does) and keeps no reader's
 * position (the checkpoints in PostgreSQL do; the caller passes them in as `knownPositions`).
 */
import { dirname } from 'node:path'
import { assert } from '../assert.js'
import { limits } from '../limits.js'
import type { Logger } from '../logger.js'
import { type Disk, realDisk } from './disk.js'
import type { Log, LogRecord, LostRange, StreamState } from './log.js'
import { Stream, type StreamStats } from './stream.js'

export interface FileLogOptions {
  /** Made if it is not there. One process at a time. */
  readonly directory: string
  /** Number of streams, fixed at the first start. */
  readonly streams: number
  readonly logger: Logger
  /** Disk per stream, preallocated space included. Default limits.logBytesMax; at least four segments. */
  readonly bytesMax?: number
  /** One full segment; the first ones after opening are smaller. Default limits.segmentBytes; at least 16 KiB, in pages of 4 KiB. */
  readonly segmentBytes?: number
  /** Per stream, a sequence that is known to have been acknowledged (its checkpoint): what is missing up to it is lost, not torn. */
  readonly knownPositions?: readonly number[]
  /** Default true. False on file systems that write every block to a new place anyway, where zeros first are wasted. */
  readonly preallocate?: boolean
  /** Called once per stream when a write or a sync failed: the stream takes no more, and only opening again tells what it holds. */
  readonly onFatal: (error: Error, stream: number) => void
  readonly disk?: Disk
}

export interface FileLog extends Log {
  /** Counts since opening, over all streams or of one. */
  stats(stream?: number): StreamStats
}

/**
 * Opens the log, after a crash as after a clean close. Rejects with «cannot open …» when a directory cannot be used; damage to
 * records is no reason to reject: it is in lost() and in the logger.
 */
export async function openFileLog(options: FileLogOptions): Promise<FileLog> {
  const { directory, streams, logger, onFatal, disk = realDisk } = options
  const segmentBytes = options.segmentBytes ?? limits.segmentBytes
  const bytesMax = options.bytesMax ?? limits.logBytesMax
  assert(Number.isInteger(streams) && streams > 0, `a log of ${streams} streams`)
  if (segmentBytes < 16 * 1024 || segmentBytes % 4096 !== 0) {
    throw new Error(`cannot open a log with segments of ${segmentBytes} bytes: at least 16384, in steps of 4096`)
  }
  if (bytesMax < 4 * segmentBytes) {
    throw new Error(`cannot open a log of ${bytesMax} bytes: it must hold four segments of ${segmentBytes}`)
  }
  await disk.makeDirectory(directory)
  await disk.syncDirectory(dirname(directory))
  const opened: Stream[] = []
  try {
    for (let stream = 0; stream < streams; stream += 1) {
      const streamDirectory = `${directory}/stream-${stream}`
      await disk.makeDirectory(streamDirectory)
      await disk.syncDirectory(directory)
      const knownPosition = options.knownPositions?.[stream] ?? 0
      const preallocate = options.preallocate ?? true
      opened.push(
        await Stream.open({
          disk,
          directory: streamDirectory,
          stream,
          logger,
          segmentBytes,
          bytesMax,
          preallocate,
          knownPosition,
          onFatal,
        }),
      )
    }
  } catch (error) {
    await Promise.allSettled(opened.map((stream) => stream.close()))
    throw error
  }
  return new Files(opened)
}

class Files implements FileLog {
  readonly #streams: readonly Stream[]

  constructor(streams: readonly Stream[]) {
    this.#streams = streams
  }

  append(stream: number, receivedAt: number, payload: Uint8Array): Promise<{ sequence: number; receivedAt: number }> {
    return this.#stream(stream).append(receivedAt, payload)
  }

  read(stream: number, from: number, bytesMax: number): Promise<LogRecord[]> {
    return this.#stream(stream).read(from, bytesMax)
  }

  state(stream: number): StreamState {
    return this.#stream(stream).state()
  }

  deleteBelow(stream: number, sequence: number): Promise<void> {
    return this.#stream(stream).deleteBelow(sequence)
  }

  lost(): readonly LostRange[] {
    return this.#streams.flatMap((stream) => stream.lost())
  }

  stats(stream?: number): StreamStats {
    const total = { syncs: 0, records: 0, bytes: 0 }
    for (const { stats } of stream === undefined ? this.#streams : [this.#stream(stream)]) {
      total.syncs += stats.syncs
      total.records += stats.records
      total.bytes += stats.bytes
    }
    return total
  }

  async close(): Promise<void> {
    const results = await Promise.allSettled(this.#streams.map((stream) => stream.close()))
    for (const result of results) if (result.status === 'rejected') throw result.reason
  }

  #stream(index: number): Stream {
    const stream = this.#streams[index]
    assert(stream !== undefined, `there is no stream ${index}`)
    return stream
  }
}
