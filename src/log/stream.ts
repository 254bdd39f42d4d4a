/**
 * One stream of the log on disk: the group commit on one side, reading on the other, segments in between.
 *
 * A record's way: append() gives it a sequence and a place, in order, or refuses it at once; the commit loop writes what waits
 * for the active segment with one call and syncs it with one call, while the next group gathers; then the records become
 * readable and their appends resolve.
 *
 * Places are planned at append, so that a refusal costs nothing: a record that does not fit behind those before it begins a new
 * segment of a stated capacity, and is refused if the disk bound has no room for that file. `#planUsed` and `#planCapacity` are
 * the place behind the last queued record; `#planned` are the capacities of the segments that the queue will still begin.
 *
 * States: open → failed (a write or a sync failed: no more appends, reading goes on) and open → closing → closed.
 * The spare is the next segment's file, being zeroed or ready, never read; at most one. Behind it lie files of deleted segments
 * that will be used again: a flush deletes several at once, and their blocks need no zeros. Two runs of bench/log.bench.ts large, 1 GB
 * each, MB/s and p50 of an append: reused files 617 and 810 (0.95 and 0.76 ms), files that simply grow 510 and 554 (1.38 and
 * 1.13 ms), every segment zeroed first 199 and 373 (2.01 and 0.90 ms). Zeros only pay when the disk has time for them.
 */
import { assert } from '../assert.js'
import { ReleveError } from '../errors.js'
import { limits } from '../limits.js'
import type { Logger } from '../logger.js'
import { type Disk, errnoOf, isDiskFull, type LogFile } from './disk.js'
import type { LogRecord, LostRange, StreamState } from './log.js'
import { encodeRecordHeader, recordBytes, recordHeaderBytes, type SegmentId } from './record.js'
import { type LostInSegment, type Recovered, recoverStream } from './recover.js'
import {
  dataStart,
  extendRun,
  gapsOf,
  newRun,
  newSegmentId,
  preallocate,
  type Run,
  type RunRecord,
  readRun,
  type Segment,
  type SegmentHeader,
  scanSegment,
  segmentName,
  withFile,
  writeHeader,
} from './segment.js'

/** A payload up to this size is copied next to its header; a larger one is handed to the kernel where it lies. */
const copyBytesMax = 4096
const alignBytes = 4096
/** A full queue empties within a sync or two; a full disk waits for a flush and a deletion. */
const retryAfterQueueS = 1
const retryAfterDiskS = 10
/** After a full disk no new segment is tried for this long: each try fills what little is left before it fails. */
const diskPauseMs = 1_000
/** Scans of one segment within one read: bytes that change every time they are read are not worth more. */
const rescansMax = 3

export interface StreamOptions {
  readonly disk: Disk
  readonly directory: string
  readonly stream: number
  readonly logger: Logger
  readonly segmentBytes: number
  readonly bytesMax: number
  readonly preallocate: boolean
  readonly knownPosition: number
  readonly onFatal: (error: Error, stream: number) => void
}

export interface StreamStats {
  /** Groups written, each with one data sync. */
  syncs: number
  records: number
  /** Record bytes, headers and padding included. */
  bytes: number
}

interface Waiting {
  readonly sequence: number
  readonly receivedAt: number
  readonly payload: Uint8Array
  readonly bytes: number
  /** Above 0: this record begins a new segment of this capacity. */
  capacity: number
  readonly resolve: (stored: { sequence: number; receivedAt: number }) => void
  readonly reject: (error: Error) => void
}

interface Spare {
  readonly path: string
  bytes: number
  /** Resolves to the open file, zeroed and synced. */
  readonly ready: Promise<LogFile>
}

export class Stream {
  readonly #options: StreamOptions
  readonly #segments: Segment[]
  readonly stats: StreamStats = { syncs: 0, records: 0, bytes: 0 }
  #lost: LostInSegment[]

  // The writer.
  #activeFile: LogFile | undefined
  #activeUsed = dataStart
  #activeCapacity = dataStart
  #spare: Spare | undefined
  /** Closed files of deleted segments, each of segmentBytes. */
  readonly #reusable: string[] = []
  #reusedCount = 0
  /** performance.now() until which the disk counts as full. */
  #diskFullUntil = 0
  #queue: Waiting[] = []
  #queuedBytes = 0
  #nextSequence: number
  #receivedAt: number
  #planUsed = dataStart
  #planCapacity = dataStart
  #planned: number[] = []
  #segmentsBytes = 0
  #committing: Promise<void> | undefined

  // What readers may see.
  #last: number
  readonly #reads = new Set<Promise<unknown>>()
  #deleting: Promise<void> = Promise.resolve()

  #failed: Error | undefined
  #closing: Promise<void> | undefined

  private constructor(options: StreamOptions, recovered: Recovered) {
    this.#options = options
    this.#segments = recovered.segments
    this.#lost = recovered.lost
    this.#last = recovered.syncedSequence
    this.#nextSequence = recovered.syncedSequence + 1
    this.#receivedAt = recovered.receivedAt
  }

  /** Recovers what is there and begins a new segment. Rejects with «cannot open …» when the directory cannot be used. */
  static async open(options: StreamOptions): Promise<Stream> {
    const { disk, directory, stream, logger } = options
    try {
      const recovered = await recoverStream(disk, directory, stream, options.knownPosition, logger)
      const opened = new Stream(options, recovered)
      for (const lost of recovered.lost) opened.#report(lost)
      try {
        await opened.#begin(recovered)
      } catch (error) {
        if (opened.#activeFile !== undefined) opened.#release(opened.#segments.at(-1)!)
        await opened.#dropSpare()
        throw error
      }
      return opened
    } catch (error) {
      throw new Error(`cannot open the log stream ${directory}`, { cause: error })
    }
  }

  append(receivedAt: number, payload: Uint8Array): Promise<{ sequence: number; receivedAt: number }> {
    return new Promise((resolve, reject) => {
      const { stream } = this.#options
      assert(payload.byteLength <= limits.recordBytesMax, `record of ${payload.byteLength} bytes is above the limit`)
      assert(Number.isSafeInteger(receivedAt) && receivedAt >= 0, `receivedAt ${receivedAt} is no time`)
      if (this.#failed !== undefined) {
        throw new ReleveError('unavailable', `stream ${stream} takes no more after a disk error`, {
          cause: this.#failed,
        })
      }
      if (this.#closing !== undefined) throw new ReleveError('unavailable', `the log is closing`)
      const bytes = recordBytes(payload.byteLength)
      if (this.#queuedBytes + bytes > limits.logQueueBytesMax) {
        const detail = `${limits.logQueueBytesMax} bytes wait for the disk already`
        throw new ReleveError('overloaded', detail, { retryAfterS: retryAfterQueueS })
      }
      const capacity = this.#place(bytes)
      this.#receivedAt = Math.max(this.#receivedAt, receivedAt)
      const sequence = this.#nextSequence
      this.#nextSequence += 1
      this.#queuedBytes += bytes
      this.#queue.push({ sequence, receivedAt: this.#receivedAt, payload, bytes, capacity, resolve, reject })
      this.#committing ??= this.#commit()
    })
  }

  /** Plans the place of the next record. Answers the capacity of the segment that it begins, or 0. */
  #place(bytes: number): number {
    if (this.#planUsed + bytes <= this.#planCapacity) {
      this.#planUsed += bytes
      return 0
    }
    if (performance.now() < this.#diskFullUntil) {
      throw new ReleveError('overloaded', 'the disk is full', { retryAfterS: retryAfterDiskS })
    }
    const capacity = this.#nextCapacity(bytes)
    let planned = this.#segmentsBytes + capacity
    for (const other of this.#planned) planned += other
    // A file that lies ready becomes one of the planned segments and takes no disk of its own.
    const ready = this.#reusable.length + (this.#spare === undefined ? 0 : 1)
    planned += Math.max(0, ready - this.#planned.length - 1) * this.#options.segmentBytes
    if (planned > this.#options.bytesMax) {
      const detail = `the log of stream ${this.#options.stream} has reached ${this.#options.bytesMax} bytes`
      throw new ReleveError('overloaded', detail, { retryAfterS: retryAfterDiskS })
    }
    this.#planned.push(capacity)
    this.#planCapacity = capacity
    this.#planUsed = dataStart + bytes
    return capacity
  }

  /** Segments grow fourfold up to the full size, so that a small log takes little disk. A file that lies ready is used whole. */
  #nextCapacity(bytes: number): number {
    const { segmentBytes } = this.#options
    const grown = Math.min(segmentBytes, this.#planCapacity * 4)
    const needed = Math.ceil((dataStart + bytes) / alignBytes) * alignBytes
    let ready = 0
    if (this.#planned.length === 0 && this.#spare !== undefined) ready = this.#spare.bytes
    else if (this.#planned.length < this.#reusable.length) ready = segmentBytes
    return Math.max(grown, ready, needed)
  }

  // The group commit.

  async #commit(): Promise<void> {
    // What is appended in this same turn of the event loop belongs to the first group already.
    await null
    try {
      while (this.#queue.length > 0 && this.#failed === undefined) {
        if (this.#queue[0]!.capacity > 0 && !(await this.#rotate())) continue
        await this.#writeGroup()
        this.#prepareSpare()
      }
    } catch (error) {
      this.#fail(error)
    } finally {
      this.#committing = undefined
    }
  }

  /** One write and one sync for all records that wait for the active segment. */
  async #writeGroup(): Promise<void> {
    const file = this.#activeFile
    const segment = this.#segments.at(-1)!
    assert(file !== undefined && segment.header !== undefined, 'a group is written without an active segment')
    let count = 1
    while (count < this.#queue.length && this.#queue[count]!.capacity === 0) count += 1
    const group = this.#queue.slice(0, count)
    assert(group[0]!.sequence === this.#last + 1, `group begins at ${group[0]!.sequence}, on disk is ${this.#last}`)
    const { buffers, bytes } = encodeGroup(group, segment.header.id, this.#last)
    assert(this.#activeUsed + bytes <= this.#activeCapacity, 'a group is larger than the rest of its segment')
    await file.writev(buffers, this.#activeUsed)
    await file.sync()
    this.#queue.splice(0, count)
    for (const record of group) {
      this.#activeUsed += record.bytes
      extendRun(this.#openRun(segment, record.sequence, this.#activeUsed - record.bytes), this.#activeUsed)
    }
    if (!this.#options.preallocate) this.#grew(segment, this.#activeUsed)
    this.#queuedBytes -= bytes
    this.#last = group.at(-1)!.sequence
    this.stats.syncs += 1
    this.stats.records += count
    this.stats.bytes += bytes
    for (const { resolve, sequence, receivedAt } of group) resolve({ sequence, receivedAt })
  }

  /** The run that the next record of the active segment continues; a new one behind damage. */
  #openRun(segment: Segment, sequence: number, offset: number): Run {
    assert(segment.runs !== undefined, 'the active segment has no runs')
    const run = segment.runs.at(-1)
    if (run !== undefined && run.last + 1 === sequence && run.end === offset) return run
    const next = newRun(sequence, offset)
    segment.runs.push(next)
    return next
  }

  /** A write or a sync failed: nobody knows what is on disk behind #last. This segment is never written again. */
  #fail(cause: unknown): void {
    const { stream, logger, onFatal } = this.#options
    const error = new Error(`FATAL: the log stream ${stream} cannot be written`, { cause })
    this.#failed = error
    logger.fatal({ err: error, cause, stream, last: this.#last }, 'the log stream takes no more appends')
    const detail = `stream ${stream} failed to write: nothing is known about this record`
    this.#rejectQueue(new ReleveError('unavailable', detail, { cause }))
    onFatal(error, stream)
  }

  #rejectQueue(error: ReleveError): void {
    const waiting = this.#queue
    this.#queue = []
    this.#queuedBytes = 0
    this.#planned = []
    this.#planUsed = this.#activeUsed
    this.#planCapacity = this.#activeCapacity
    this.#nextSequence = this.#last + 1
    for (const { reject } of waiting) reject(error)
  }

  // Segments.

  /** Begins the segment that the first waiting record needs. False when the disk is full: then the queue was refused. */
  async #rotate(): Promise<boolean> {
    const head = this.#queue[0]!
    try {
      await this.#activate(head.capacity, [])
    } catch (error) {
      if (!isDiskFull(error)) throw error
      this.#diskFullUntil = performance.now() + diskPauseMs
      this.#options.logger.warn({ err: error, stream: this.#options.stream }, 'no disk for the next log segment')
      this.#rejectQueue(
        new ReleveError('overloaded', 'the disk is full', { cause: error, retryAfterS: retryAfterDiskS }),
      )
      return false
    }
    assert(this.#planned[0] === head.capacity, 'segments begin out of plan')
    this.#planned.shift()
    head.capacity = 0
    return true
  }

  /**
   * Makes the next segment, with `tail` as its first records, and gives it its name only when all of that is on disk.
   * A crash before the rename leaves a file called spare, after it a whole segment.
   */
  async #activate(capacity: number, tail: readonly Waiting[]): Promise<void> {
    const { disk, directory, stream } = this.#options
    const spare = this.#spare ?? this.#newSpare(capacity)
    let file: LogFile
    try {
      file = await spare.ready
      if (spare.bytes < capacity) {
        if (this.#options.preallocate) await preallocate(file, spare.bytes, capacity, () => false)
        spare.bytes = capacity
      }
    } catch (error) {
      await this.#dropSpare()
      throw error
    }
    const first = this.#last + 1
    const header: SegmentHeader = {
      id: newSegmentId(),
      stream,
      first,
      previousFirst: this.#segments.findLast((segment) => segment.first < first)?.first ?? 0,
      receivedAt: tail[0]?.receivedAt ?? this.#queue[0]?.receivedAt ?? this.#receivedAt,
    }
    await writeHeader(file, header)
    const runs: Run[] = []
    let used = dataStart
    if (tail.length > 0) {
      const { buffers } = encodeGroup(tail, header.id, this.#last)
      await file.writev(buffers, dataStart)
      const run = newRun(first, dataStart)
      for (const record of tail) {
        used += record.bytes
        extendRun(run, used)
      }
      runs.push(run)
    }
    await file.sync()
    const path = `${directory}/${segmentName(first)}`
    await disk.rename(spare.path, path)
    this.#spare = undefined
    try {
      await disk.syncDirectory(directory)
    } catch (error) {
      await file.close()
      throw error
    }
    const previous = this.#segments.at(-1)
    // An empty segment that was too small for its first record has the same name: the rename replaced its file.
    if (previous?.first === first) {
      this.#segments.pop()
      this.#segmentsBytes -= previous.fileBytes
    }
    const fileBytes = this.#options.preallocate ? spare.bytes : used
    const ready = Promise.resolve(file)
    this.#segments.push({ first, path, header, fileBytes, runs, readers: 1, file: ready })
    this.#segmentsBytes += fileBytes
    if (previous !== undefined && this.#activeFile !== undefined) this.#release(previous)
    this.#activeFile = file
    this.#activeUsed = used
    this.#activeCapacity = capacity
    if (tail.length > 0) this.#last = tail.at(-1)!.sequence
  }

  /** The first segment after opening: takes over the tail, then ends the segment it came from. */
  async #begin(recovered: Recovered): Promise<void> {
    const { disk, directory, segmentBytes } = this.#options
    const tail = await this.#readTail(recovered)
    let bytes = dataStart
    for (const record of tail) bytes += record.bytes
    for (const segment of this.#segments) this.#segmentsBytes += segment.fileBytes
    const capacity = Math.max(
      Math.min(limits.segmentFirstBytes, segmentBytes),
      Math.ceil(bytes / alignBytes) * alignBytes,
    )
    const ended = this.#segments.at(-1)
    await this.#activate(capacity, tail)
    this.#nextSequence = this.#last + 1
    this.#planUsed = this.#activeUsed
    this.#planCapacity = this.#activeCapacity
    const end = ended?.runs?.at(-1)
    if (ended === undefined || end === undefined || end.last !== recovered.syncedSequence) return
    if (end.end >= ended.fileBytes) return
    const file = await disk.open(ended.path, 'write')
    try {
      await file.truncate(end.end)
    } finally {
      await file.close()
    }
    await disk.syncDirectory(directory)
    this.#segmentsBytes -= ended.fileBytes - end.end
    ended.fileBytes = end.end
  }

  async #readTail(recovered: Recovered): Promise<Waiting[]> {
    const { tail, syncedSequence, lastSequence } = recovered
    const records: Waiting[] = []
    if (tail === undefined) return records
    await withFile(this.#options.disk, tail.path, async (file) => {
      let next = syncedSequence + 1
      for (const run of tail.runs) {
        while (next <= Math.min(run.last, lastSequence)) {
          const read = await readRun(file, tail.header.id, run, next, run.last, limits.logQueueBytesMax)
          if (read === undefined) throw new Error('cannot read the tail of the log twice in the same way')
          for (const { sequence, receivedAt, payload } of read) {
            const bytes = recordBytes(payload.length)
            records.push({ sequence, receivedAt, payload, bytes, capacity: 0, resolve: () => {}, reject: () => {} })
          }
          next = read.at(-1)!.sequence + 1
        }
      }
    })
    return records
  }

  /** Once an eighth of the active segment is used, the next one is made ready in the background. */
  #prepareSpare(): void {
    if (this.#spare !== undefined || this.#failed !== undefined || this.#closing !== undefined) return
    if (performance.now() < this.#diskFullUntil) return
    if (!this.#options.preallocate || this.#activeUsed < this.#activeCapacity / 8) return
    const capacity = this.#planned[0] ?? this.#nextCapacity(0)
    const zeroed = this.#reusable.length === 0
    if (zeroed && this.#planned.length === 0 && this.#segmentsBytes + capacity > this.#options.bytesMax) return
    const spare = this.#newSpare(capacity)
    spare.ready.catch(async (error) => {
      // The rotation that needs it tries again and answers for it.
      if (isDiskFull(error)) this.#diskFullUntil = performance.now() + diskPauseMs
      if (this.#spare === spare) await this.#dropSpare().catch(() => {})
      this.#options.logger.warn(
        { err: error, stream: this.#options.stream },
        'cannot make the next log segment ready yet',
      )
    })
  }

  #newSpare(bytes: number): Spare {
    const { disk, directory, segmentBytes } = this.#options
    const reused = this.#reusable.shift()
    if (reused !== undefined) {
      this.#spare = { path: reused, bytes: segmentBytes, ready: disk.open(reused, 'write') }
      return this.#spare
    }
    const path = `${directory}/spare`
    const make = async (): Promise<LogFile> => {
      const file = await disk.open(path, 'create')
      try {
        if (this.#options.preallocate) await preallocate(file, 0, bytes, () => this.#closing !== undefined)
        return file
      } catch (error) {
        await file.close()
        throw error
      }
    }
    this.#spare = { path, bytes, ready: make() }
    return this.#spare
  }

  async #dropSpare(): Promise<void> {
    const spare = this.#spare
    if (spare === undefined) return
    this.#spare = undefined
    const file = await spare.ready.catch(() => undefined)
    await file?.close()
    await this.#options.disk.remove(spare.path).catch((error) => {
      if (errnoOf(error) !== 'ENOENT') throw error
    })
  }

  #grew(segment: Segment, bytes: number): void {
    this.#segmentsBytes += bytes - segment.fileBytes
    segment.fileBytes = bytes
  }

  /**
   * Deletes whole segments whose records all lie below `sequence`, oldest first. Each deletion lasts before the next begins: if a
   * later file went first, the earlier one would look like a loss.
   */
  deleteBelow(sequence: number): Promise<void> {
    const deleted = this.#deleting.then(() => this.#deleteBelow(sequence))
    this.#deleting = deleted.catch(() => {})
    return deleted
  }

  async #deleteBelow(sequence: number): Promise<void> {
    const { disk, directory } = this.#options
    while (this.#segments.length > 1 && this.#segments[1]!.first <= sequence && this.#closing === undefined) {
      const segment = this.#segments.shift()!
      const reused = this.#mayReuse(segment) ? `${directory}/spare-${++this.#reusedCount}` : undefined
      if (reused === undefined) await disk.remove(segment.path)
      else await disk.rename(segment.path, reused)
      await disk.syncDirectory(directory)
      // Its next header comes with another random id, which makes every old record in it noise, and before its next name.
      if (reused !== undefined) this.#reusable.push(reused)
      this.#segmentsBytes -= segment.fileBytes
    }
  }

  #mayReuse(segment: Segment): boolean {
    const { segmentBytes, bytesMax, preallocate } = this.#options
    const reusableMax = Math.min(limits.logReusableMax, Math.floor(bytesMax / segmentBytes / 4))
    return (
      preallocate &&
      this.#reusable.length < reusableMax &&
      this.#failed === undefined &&
      segment.readers === 0 &&
      segment.fileBytes === segmentBytes
    )
  }

  // Reading.

  state(): StreamState {
    return {
      first: this.#segments[0]!.first,
      last: this.#last,
      bytes: this.#segmentsBytes + (this.#spare?.bytes ?? 0) + this.#reusable.length * this.#options.segmentBytes,
    }
  }

  lost(): LostRange[] {
    return this.#lost.map(({ from, to, reason }) => ({ stream: this.#options.stream, from, to, reason }))
  }

  read(from: number, bytesMax: number): Promise<LogRecord[]> {
    assert(Number.isSafeInteger(from) && bytesMax > 0, `read from ${from} of ${bytesMax} bytes`)
    if (this.#closing !== undefined) return Promise.reject(new ReleveError('unavailable', 'the log is closing'))
    if (from > this.#last) return Promise.resolve([])
    const read = this.#read(from, bytesMax)
    this.#reads.add(read)
    const done = (): void => {
      this.#reads.delete(read)
    }
    read.then(done, done)
    return read
  }

  async #read(from: number, bytesMax: number): Promise<LogRecord[]> {
    const records: LogRecord[] = []
    const last = this.#last
    let room = bytesMax
    let next = from
    let rescans = 0
    while (next <= last && room > 0) {
      const segment = this.#segmentOf(next)
      next = Math.max(next, segment.first)
      const through = Math.min(this.#throughOf(segment), last)
      const read = await this.#readSegment(segment, next, through, room)
      if (read === 'damaged') {
        rescans += 1
        if (rescans > rescansMax) throw new Error(`cannot read ${segment.path}: it reads differently every time`)
        await this.#rescan(segment)
      } else if (read !== 'deleted') {
        rescans = 0
        for (const record of read) {
          records.push(record)
          room -= recordHeaderBytes + record.payload.length
        }
        // A run ended, or nothing more of this segment can be read.
        next = read.length > 0 ? read.at(-1)!.sequence + 1 : through + 1
      }
    }
    return records
  }

  async #readSegment(
    segment: Segment,
    from: number,
    through: number,
    bytesMax: number,
  ): Promise<RunRecord[] | 'damaged' | 'deleted'> {
    if (segment.header === undefined) return []
    if (segment.runs === undefined) return 'damaged'
    const run = segment.runs.find((candidate) => candidate.last >= from)
    if (run === undefined || run.first > through) return []
    try {
      const file = await this.#acquire(segment)
      try {
        const start = Math.max(from, run.first)
        const records = await readRun(file, segment.header.id, run, start, Math.min(run.last, through), bytesMax)
        return records ?? (this.#segments.includes(segment) ? 'damaged' : 'deleted')
      } finally {
        this.#release(segment)
      }
    } catch (error) {
      if (errnoOf(error) === 'ENOENT' && !this.#segments.includes(segment)) return 'deleted'
      throw error
    }
  }

  /** Reads a whole segment again and says anew what of it is lost. Also the first reading of a segment after opening. */
  async #rescan(segment: Segment): Promise<void> {
    const header = segment.header
    const active = segment === this.#segments.at(-1)
    const through = Math.min(this.#throughOf(segment), this.#last)
    const end = active ? this.#activeUsed : segment.fileBytes
    if (header === undefined) return
    let scan: { runs: Run[] }
    try {
      const file = await this.#acquire(segment)
      try {
        scan = await scanSegment(file, header, through, end)
      } finally {
        this.#release(segment)
      }
    } catch (error) {
      if (errnoOf(error) === 'ENOENT' && !this.#segments.includes(segment)) return
      throw error
    }
    // Deleted meanwhile: its bytes may belong to another segment by now.
    if (!this.#segments.includes(segment)) return
    const runs = scan.runs
    if (active) {
      // Groups that were committed during the scan.
      const before = segment.runs?.at(-1)
      if (before !== undefined && before.last > through) {
        const added = newRun(through + 1, end)
        added.last = before.last
        added.end = before.end
        added.markSequences.push(added.first, ...before.markSequences.filter((sequence) => sequence > added.first))
        added.markOffsets.push(end, ...before.markOffsets.filter((offset) => offset > end))
        runs.push(added)
      }
    }
    segment.runs = runs
    this.#lost = this.#lost.filter((lost) => lost.segmentFirst !== segment.first)
    for (const gap of gapsOf(scan.runs, segment.first, through)) {
      const lost = { segmentFirst: segment.first, ...gap, reason: `damaged in ${segmentName(segment.first)}` }
      this.#lost.push(lost)
      this.#report(lost)
    }
  }

  #report(lost: LostInSegment): void {
    const { stream, logger } = this.#options
    const { from, to, reason } = lost
    logger.error({ stream, from, to, reason }, 'acknowledged log records are lost')
  }

  #segmentOf(sequence: number): Segment {
    let low = 0
    let high = this.#segments.length - 1
    while (low < high) {
      const middle = (low + high + 1) >>> 1
      if (this.#segments[middle]!.first <= sequence) low = middle
      else high = middle - 1
    }
    return this.#segments[low]!
  }

  /** The last sequence that belongs into this segment, as far as is known: a segment ends where the next one begins. */
  #throughOf(segment: Segment): number {
    const next = this.#segments[this.#segments.indexOf(segment) + 1]
    return next === undefined ? Number.MAX_SAFE_INTEGER : next.first - 1
  }

  async #acquire(segment: Segment): Promise<LogFile> {
    segment.readers += 1
    try {
      segment.file ??= this.#options.disk.open(segment.path, 'read')
      return await segment.file
    } catch (error) {
      segment.file = undefined
      segment.readers -= 1
      throw error
    }
  }

  #release(segment: Segment): void {
    segment.readers -= 1
    if (segment.readers > 0) return
    const file = segment.file
    segment.file = undefined
    file
      ?.then((open) => open.close())
      .catch((error) => this.#options.logger.warn({ err: error }, 'cannot close a segment'))
  }

  // The end.

  close(): Promise<void> {
    this.#closing ??= this.#close()
    return this.#closing
  }

  async #close(): Promise<void> {
    // #closing is set only when this returns for the first time: nothing is appended from then on.
    await this.#committing
    await this.#deleting
    await Promise.allSettled(this.#reads)
    const { disk, directory } = this.#options
    const active = this.#segments.at(-1)!
    try {
      await this.#dropSpare()
      for (const path of this.#reusable.splice(0)) await disk.remove(path)
      if (this.#failed === undefined) {
        // An empty successor says that all before it is on disk: opening then has no tail to doubt.
        if (this.#activeUsed > dataStart) await this.#seal()
        await this.#activeFile!.truncate(this.#activeUsed)
        await disk.syncDirectory(directory)
      }
    } catch (error) {
      // Every record is on disk already: opening again does without what is missing here.
      this.#options.logger.warn({ err: error, stream: this.#options.stream }, 'cannot close the log stream tidily')
    } finally {
      this.#release(active)
    }
  }

  async #seal(): Promise<void> {
    const { disk, directory, stream } = this.#options
    const first = this.#last + 1
    const previousFirst = this.#segments.at(-1)!.first
    const file = await disk.open(`${directory}/spare`, 'create')
    try {
      await writeHeader(file, { id: newSegmentId(), stream, first, previousFirst, receivedAt: this.#receivedAt })
      await file.sync()
    } finally {
      await file.close()
    }
    await disk.rename(`${directory}/spare`, `${directory}/${segmentName(first)}`)
  }
}

/** The bytes of a group, in as few pieces as need be: small payloads are copied beside their headers. */
function encodeGroup(
  group: readonly Waiting[],
  id: SegmentId,
  syncedSequence: number,
): { buffers: Uint8Array[]; bytes: number } {
  let staged = 0
  let bytes = 0
  for (const record of group) {
    bytes += record.bytes
    staged += record.payload.byteLength <= copyBytesMax ? record.bytes : record.bytes - record.payload.byteLength
  }
  const stage = Buffer.alloc(staged)
  const buffers: Uint8Array[] = []
  let at = 0
  let begun = 0
  for (const { sequence, receivedAt, payload, bytes: length } of group) {
    encodeRecordHeader(stage, at, id, sequence, receivedAt, syncedSequence, payload)
    at += recordHeaderBytes
    if (payload.byteLength <= copyBytesMax) {
      stage.set(payload, at)
      at += length - recordHeaderBytes
    } else {
      buffers.push(stage.subarray(begun, at), payload)
      begun = at
      at += length - recordHeaderBytes - payload.byteLength
    }
  }
  if (at > begun) buffers.push(stage.subarray(begun, at))
  return { buffers, bytes }
}
