/**
 * THE ROAD, part one: from a record in the log to usage in ClickHouse. One StreamFlow per stream, on the main thread; the work
 * itself is in the stream's shard thread. All branching of the road is here.
 *
 *   log ──► apply ──► (epoch full, or 5 s) seal ──► flush: manifest ► key file ► chunks ► checkpoint ──► fold now and then
 *
 * States of a StreamFlow:
 *   opening   the stream is taken over (fence + 1), key files and balances are loaded, an unfinished epoch is re-done with
 *             exactly its bounds, an unfinished fold likewise. Nothing is applied from the door yet; appends already may come.
 *   running   records are applied in order of their sequence; epochs are sealed and flushed one after the other.
 *   draining  nothing new is taken; what the log has is applied, sealed and checkpointed.
 *   closed    no timer, no task, no query of this flow is left.
 *   failed    an invariant broke or another owner has the stream; the process must end, and the log replays.
 *
 * Exactly once, crash by crash: architecture.md. In one sentence: an epoch's bounds are written before anything of it leaves
 * the process, everything that it writes is a function of the log within these bounds, and each write can be told apart from
 * its repetition, by its token and by counting.
 */
import { randomUUID } from 'node:crypto'
import type { Pool } from 'pg'
import { assert } from './assert.js'
import type { Clock } from './clock.js'
import type { Crash } from './crash-points.js'
import type { DedupeStats } from './dedupe/dedupe.js'
import type { DedupeState } from './dedupe/generations.js'
import type { IdFiles } from './dedupe/id-files.js'
import { ReleveError } from './errors.js'
import { limits } from './limits.js'
import type { Log } from './log/log.js'
import type { Logger } from './logger.js'
import type { Metrics } from './metrics.js'
import type { Period } from './period.js'
import type { Alerts } from './quota/alerts.js'
import type { AsOf, GuardedUsage, ItemMetric, LiveEntitlement, RungThreshold } from './quota/balance.js'
import type { HeardMeter, Listening } from './quota/heard.js'
import type { ArchivePool } from './rollup/archive-pool.js'
import type { ChunkKey, Repair } from './rollup/repair.js'
import type { ChunkRecord, Rollup, StoreChunk, UsageTable } from './rollup/rollup.js'
import {
  type ApplyRecord,
  type ApplyReply,
  type BalanceView,
  type Counts,
  FLOOR_SLACK_MS,
  type NeededBase,
  type SealedEpoch,
  ShardPart,
  type ShardThread,
  zeroCounts,
} from './shard.js'
import { span } from './tracing.js'

/** What one record became in the shard, for `?wait=applied`. */
export interface Applied {
  /** One ShardVerdict per stored event of the record. */
  readonly verdicts: Uint8Array
}

export interface FlowOptions {
  readonly stream: number
  readonly owner: string
  readonly log: Log
  readonly shard: ShardThread
  readonly ids: IdFiles
  readonly rollup: Rollup
  readonly repair: Repair
  readonly archive: ArchivePool
  readonly postgres: Pool
  readonly alerts: Alerts
  readonly clock: Clock
  readonly crash: Crash
  readonly logger: Logger
  readonly metrics: Metrics
  readonly epochMs: number
  readonly lateMs: number
  /** Frames kept in memory between log and shard, bytes. */
  readonly tailBytesMax: number
  /** After each hand-over: records up to this sequence are in the balances, and what they made of guarded tenants' usage. */
  readonly onApplied: (stream: number, sequence: number, guarded: readonly GuardedUsage[]) => void
  /** The stream cannot go on: the process ends and the log replays. */
  readonly onFatal: (error: Error) => void
}

/** The books of a stream up to its last checkpoint. */
export type Totals = Counts & { readonly epochs: number }

const ZERO: Totals = { ...zeroCounts(), epochs: 0 }

/** Times that a chunk is taken back and inserted anew before the stream gives up. */
const REPAIRS_MAX = 5
const ALWAYS: Period = { from: Number.NEGATIVE_INFINITY, to: Number.POSITIVE_INFINITY }
/** One hand-over to the shard: bodies that come meanwhile wait for it, so it is 2 to 4 ms and not the 10 to 27 of a whole MiB. */
const APPLY_RECORDS_MAX = 16
const APPLY_BYTES_MAX = 256 * 1024
/** One reading of the log, when the shard is behind. */
const READ_BYTES_MAX = 4 * 1024 * 1024

type TailRecord = ApplyRecord & { readonly bytes: number }

interface Waiter {
  resolve(applied: Applied): void
  reject(error: Error): void
}

/** Runs between two epochs, once everything up to `until` is applied. */
interface BarrierJob {
  readonly until: number
  run(): Promise<void>
  resolve(): void
  reject(error: Error): void
}

export async function openFlow(options: FlowOptions, entitlements: readonly LiveEntitlement[]): Promise<StreamFlow> {
  const flow = new StreamFlow(options)
  await flow.recover(entitlements)
  return flow
}

export class StreamFlow {
  readonly stream: number
  readonly #o: FlowOptions
  #state: 'opening' | 'running' | 'draining' | 'closed' | 'failed' = 'opening'
  #fence = 0
  /** The epoch that is open in the shard. */
  #epoch = 1
  /** First sequence that the shard has not applied. */
  #next = 1
  /** First sequence of the open epoch. */
  #epochFrom = 1
  #epochFull = false
  #checkpointEpoch = 0
  #checkpointSequence = 0
  #checkpointAt = 0
  /** receivedAt of the first record of the open or flushing epochs, as far as it is known. */
  #pendingSince = 0
  #folded = 0
  #fold = 0
  /** Where the minutes lie of the epochs that are in a checkpoint and in no fold; an entry stands for the epochs up to its own. */
  #unfolded: { readonly epoch: number; readonly windows: Period | null }[] = []
  #totals: Totals = ZERO
  #announcedFloor = Number.NEGATIVE_INFINITY
  #lastFloor = Number.NEGATIVE_INFINITY
  #lastReceivedAt = 0
  /** Records on disk that wait to be applied, contiguous. The log has them too, so they may be dropped. */
  #tail: TailRecord[] = []
  #tailBytes = 0
  /** Numbers of frames that the shard need not keep any more. */
  #forgotten: number[] = []
  #waiters = new Map<number, Waiter>()
  #jobs: BarrierJob[] = []
  #sealWanted = false
  #inFlight = 0
  #fault: string | null = null
  /** What the flush began last. */
  #step = ''
  #idsWait = false
  #flushes: Promise<void> = Promise.resolve()
  #alertsPending: Promise<void> = Promise.resolve()
  #wake: (() => void) | null = null
  #loop: Promise<void> = Promise.resolve()
  #epochTimer: NodeJS.Timeout | undefined
  #foldTimer: NodeJS.Timeout | undefined
  #folding: Promise<void> = Promise.resolve()

  constructor(options: FlowOptions) {
    this.#o = options
    this.stream = options.stream
  }

  // ---- What the door asks ------------------------------------------------------------------------------------------------

  /** The oldest eventTime that may come in now. */
  floorAt(receivedAt: number): number {
    return Math.max(receivedAt - this.#o.lateMs, this.#announcedFloor)
  }

  /**
   * A frame into the log. Resolves when it is on disk; `applied` resolves when the shard has judged it, and is only there when
   * asked for. Rejects with `overloaded` when the frame was judged under an age limit that has moved since.
   * `kept`: the shard's number of this frame; then its memory is the caller's again when this resolves, else it is the flow's.
   */
  async append(
    receivedAt: number,
    floorTime: number,
    frame: Uint8Array,
    wait: boolean,
    kept = 0,
  ): Promise<{ sequence: number; applied: Promise<Applied> | undefined }> {
    if (this.#state !== 'running')
      throw new ReleveError('unavailable', `stream ${this.stream} is ${this.#state}`, { retryAfterS: 1 })
    if (floorTime < this.#lastFloor - FLOOR_SLACK_MS) {
      throw new ReleveError('overloaded', 'the age limit moved while the batch was read: send it again', {
        retryAfterS: 1,
      })
    }
    this.#lastFloor = Math.max(this.#lastFloor, floorTime)
    if (this.position.last === this.#checkpointSequence) this.#pendingSince = receivedAt
    const written = await this.#o.log.append(this.stream, receivedAt, frame)
    this.#o.crash('after-log-sync')
    let applied: Promise<Applied> | undefined
    if (wait) {
      applied = new Promise<Applied>((resolve, reject) => this.#waiters.set(written.sequence, { resolve, reject }))
      applied.catch(() => {})
    }
    const bytes = frame.byteLength
    this.#push(kept > 0 ? { ...written, bytes, kept } : { ...written, bytes, payload: frame })
    return { sequence: written.sequence, applied }
  }

  /** A frame that the shard keeps will not come. */
  forget(kept: number): void {
    this.#forgotten.push(kept)
    if (this.#forgotten.length > 1) return
    setImmediate(() => {
      // Only a thread that is closed refuses.
      this.#o.shard.forget(this.#forgotten.splice(0)).catch(() => {})
    })
  }

  /** `unfolded`: all windows of epochs in (folded, epoch] lie in it, and it may be too wide; null: these epochs have none. */
  get position(): {
    applied: number
    last: number
    checkpoint: number
    epoch: number
    folded: number
    unfolded: Period | null
  } {
    return {
      applied: this.#next - 1,
      last: this.#o.log.state(this.stream).last,
      checkpoint: this.#checkpointSequence,
      epoch: this.#checkpointEpoch,
      folded: this.#folded,
      unfolded: this.#unfolded.reduce<Period | null>((all, { windows }) => union(all, windows), null),
    }
  }

  get state(): string {
    return this.#state
  }

  /** Up to the last checkpoint. */
  get totals(): Totals {
    return this.#totals
  }

  /** Whether everything that the log has is in a checkpoint. */
  get isFlushed(): boolean {
    return this.position.last <= this.#checkpointSequence
  }

  /** Age of the oldest record that no checkpoint covers, milliseconds on the service's clock. */
  flushLagMs(): number {
    return this.position.last > this.#checkpointSequence ? Math.max(0, this.#o.clock.now() - this.#pendingSince) : 0
  }

  /** What a flush that takes long waits in. */
  get step(): string {
    return this.#step
  }

  /** What the flush stumbles over at present, and tries again; null when all is well. */
  get fault(): string | null {
    const { ids } = this.#o
    return this.#fault ?? ids.fault ?? (this.#idsWait ? 'dedupe is full: events wait in the log' : null)
  }

  /** Live balances of a tenant, behind everything that the log had when asked. */
  async balances(tenant: string): Promise<readonly BalanceView[]> {
    return this.#o.shard.balances(tenant)
  }

  /** receivedAt of the last record of the last checkpoint. */
  get checkpointAt(): number {
    return this.#checkpointAt
  }

  /**
   * Resolves when no flush and no fold runs, and none begins until what it answers is called: neither store changes meanwhile.
   * Events are taken and applied as far as their bounds allow.
   */
  async holdWrites(): Promise<() => void> {
    let release = (): void => {}
    const held = new Promise<void>((resolve) => {
      release = resolve
    })
    const [flushes, folding] = [this.#flushes, this.#folding]
    this.#flushes = flushes.then(() => held)
    this.#flushes.catch(() => {})
    this.#folding = folding.then(() => held)
    const ids = this.#o.ids.hold()
    try {
      await Promise.all([flushes, folding, ids])
    } catch (error) {
      release()
      throw error
    }
    const releaseIds = await ids
    return () => {
      release()
      releaseIds()
    }
  }

  /** Resolves when everything that the log has now is in a checkpoint; answers that epoch. A closing's cut. */
  async cut(): Promise<number> {
    const until = this.#o.log.state(this.stream).last
    await this.#barrier(until, async () => {})
    await this.#flushes
    assert(
      this.#checkpointSequence >= until,
      `cut of stream ${this.stream} at ${until} has checkpoint ${this.#checkpointSequence}`,
    )
    return this.#checkpointEpoch
  }

  /** New limits and thresholds; they act from the next epoch on. */
  async setEntitlements(entitlements: readonly LiveEntitlement[]): Promise<void> {
    let loaded: Promise<void> = Promise.resolve()
    await this.#barrier(0, async () => {
      // Wrapped, because the barrier must not wait for the checkpoint that the bases wait for.
      loaded = (await this.#loadEntitlements(entitlements)).done
    })
    await loaded
  }

  // ---- Opening -----------------------------------------------------------------------------------------------------------

  async recover(entitlements: readonly LiveEntitlement[]): Promise<void> {
    const { postgres, log, shard, ids, logger } = this.#o
    const started = performance.now()
    await postgres.query(
      `INSERT INTO streams (stream, fence, owner, epoch, position, received_at, dedupe, totals) VALUES ($1, 0, $2, 0, 0, 0, 'null', $3)
       ON CONFLICT DO NOTHING`,
      [this.stream, this.#o.owner, JSON.stringify(ZERO)],
    )
    const { rows } = await postgres.query(
      'UPDATE streams SET fence = fence + 1, owner = $2 WHERE stream = $1 RETURNING *',
      [this.stream, this.#o.owner],
    )
    const row = rows[0]
    this.#fence = Number(row.fence)
    this.#checkpointEpoch = Number(row.epoch)
    this.#checkpointSequence = Number(row.position)
    this.#checkpointAt = Number(row.received_at)
    this.#lastReceivedAt = Number(row.received_at)
    this.#totals = { ...ZERO, ...row.totals }
    this.#pendingSince = this.#checkpointAt
    this.#epoch = this.#checkpointEpoch + 1
    this.#next = this.#checkpointSequence + 1
    this.#epochFrom = this.#next

    const held = log.state(this.stream)
    if (held.first > this.#next) {
      throw new Error(
        `FATAL: stream ${this.stream} has its checkpoint at ${this.#checkpointSequence}, but the log begins at ${held.first}: records are missing. Restore the log from a backup.`,
      )
    }
    await shard.beginRestore(row.dedupe)
    for await (const block of ids.load(row.dedupe)) await shard.restoreBlock(block)
    const opened = await shard.open({
      epoch: this.#epoch,
      sequence: this.#checkpointSequence,
      receivedAt: this.#checkpointAt,
      restored: row.dedupe !== null,
    })
    this.#takeDedupe(row.dedupe, opened.stats)
    for (const part of ShardPart) {
      this.#o.metrics.plainParts.set({ stream: String(this.stream), part }, opened.plain.includes(part) ? 1 : 0)
    }
    if (opened.plain.length > 0) {
      logger.warn({ stream: this.stream, parts: opened.plain }, 'without the kernel: right, but several times slower')
    }

    const { rows: folds } = await postgres.query('SELECT * FROM folds WHERE stream = $1 ORDER BY fold DESC LIMIT 2', [
      this.stream,
    ])
    const lastDone = folds.find((f) => f.done_at !== null)
    this.#folded = lastDone === undefined ? 0 : Number(lastDone.to_epoch)
    this.#fold = folds.length === 0 ? 0 : Number(folds[0].fold)
    // Of epochs before the start nothing is known but their rows: they may lie anywhere.
    if (this.#checkpointEpoch > this.#folded) this.#noteWindows(this.#checkpointEpoch, ALWAYS)
    const openFold = folds.find((f) => f.done_at === null)
    if (openFold !== undefined)
      await this.#runFold(Number(openFold.fold), Number(openFold.from_epoch), Number(openFold.to_epoch))

    const { done } = await this.#loadEntitlements(entitlements)
    await done

    const { rows: manifests } = await postgres.query(
      'SELECT * FROM epoch_manifests WHERE stream = $1 AND epoch > $2 ORDER BY epoch',
      [this.stream, this.#checkpointEpoch],
    )
    assert(manifests.length <= 1, `stream ${this.stream} has ${manifests.length} manifests without a checkpoint`)
    const manifest = manifests[0]
    if (manifest !== undefined) {
      assert(
        Number(manifest.epoch) === this.#epoch && Number(manifest.from_seq) === this.#next,
        'a manifest follows its checkpoint',
      )
      const to = Number(manifest.to_seq)
      logger.info(
        { stream: this.stream, epoch: this.#epoch, from: this.#next, to },
        'an epoch has a manifest and no checkpoint: done again',
      )
      while (this.#next <= to) await this.#applySome(to)
      await this.#flush(await this.#seal())
    }
    this.#state = 'running'
    this.#loop = this.#run().catch((error: Error) => this.#fail(error))
    this.#epochTimer = setInterval(() => {
      this.#sealWanted = true
      this.#wakeUp()
    }, this.#o.epochMs)
    this.#foldTimer = setInterval(() => this.#foldSoon(), 20 * this.#o.epochMs)
    logger.info(
      {
        stream: this.stream,
        fence: this.#fence,
        checkpoint: this.#checkpointSequence,
        replay: log.state(this.stream).last - this.#next + 1,
        ms: Math.round(performance.now() - started),
      },
      'stream open',
    )
  }

  // ---- The loop ----------------------------------------------------------------------------------------------------------

  async #run(): Promise<void> {
    for (;;) {
      if (this.#state === 'failed' || this.#state === 'closed') return
      const empty = this.#next === this.#epochFrom
      const due = this.#jobs.length > 0 && this.#jobs[0]!.until < this.#next
      if (due && empty) {
        const job = this.#jobs.shift()!
        await job.run().then(job.resolve, job.reject)
        continue
      }
      if (!empty && (this.#sealWanted || this.#epochFull || due)) {
        if (this.#inFlight < limits.epochsInFlightMax) {
          this.#sealWanted = false
          this.#enqueueFlush(await this.#seal())
          continue
        }
        if (this.#epochFull || due) {
          // The store is behind: the log grows, the shard waits.
          await this.#sleep()
          continue
        }
      }
      this.#sealWanted &&= !empty
      if (this.#next <= this.#o.log.state(this.stream).last) {
        await this.#applySome(Number.POSITIVE_INFINITY)
        continue
      }
      if (this.#state === 'draining') {
        if (empty) return
        this.#sealWanted = true
        // With as many flushes as may be, one of them must end first: without the wait this loop would never let it.
        if (this.#inFlight >= limits.epochsInFlightMax) await this.#sleep()
        continue
      }
      await this.#sleep()
    }
  }

  #wakeUp(): void {
    this.#wake?.()
    this.#wake = null
  }

  async #sleep(): Promise<void> {
    await new Promise<void>((resolve) => {
      this.#wake = resolve
    })
  }

  #push(record: TailRecord): void {
    // After a gap (records dropped for the bound) the log is read until it meets the tail again.
    if (this.#tail.length > 0 && record.sequence !== this.#tail[this.#tail.length - 1]!.sequence + 1) this.#dropTail()
    this.#tail.push(record)
    this.#tailBytes += record.bytes
    if (this.#tailBytes > this.#o.tailBytesMax) this.#dropTail()
    this.#wakeUp()
  }

  #dropTail(): void {
    for (const record of this.#tail) this.#dropped(record)
    this.#tail = []
    this.#tailBytes = 0
  }

  #dropped(record: TailRecord): void {
    if ('kept' in record) this.forget(record.kept)
  }

  /** The next records, from memory or from disk. */
  async #take(until: number): Promise<ApplyRecord[]> {
    const taken: ApplyRecord[] = []
    let bytes = 0
    while (this.#tail.length > 0 && this.#tail[0]!.sequence < this.#next) {
      const record = this.#tail.shift()!
      this.#tailBytes -= record.bytes
      this.#dropped(record)
    }
    while (this.#tail.length > 0 && taken.length < APPLY_RECORDS_MAX && bytes < APPLY_BYTES_MAX) {
      const record = this.#tail[0]!
      if (record.sequence !== this.#next + taken.length || record.sequence > until) break
      this.#tail.shift()
      this.#tailBytes -= record.bytes
      taken.push(record)
      bytes += record.bytes
    }
    if (taken.length > 0) return taken
    const read = await this.#o.log.read(this.stream, this.#next, READ_BYTES_MAX)
    return read.filter((record) => record.sequence <= until)
  }

  async #applySome(until: number): Promise<void> {
    const records = await this.#take(until)
    if (records.length === 0) {
      // Only possible over a range that the log has lost; log.lost() names it and the service has alarmed.
      this.#next = this.#skipLost()
      return
    }
    if (records[0]!.sequence > this.#next) this.#next = records[0]!.sequence
    const end = this.#o.metrics.applySeconds.startTimer()
    const reply = await this.#o.shard.apply(records)
    end()
    const last = records[reply.done - 1]
    if (last !== undefined) {
      this.#next = last.sequence + 1
      this.#lastReceivedAt = last.receivedAt
    }
    // What the shard had no room for is read from the log again.
    if (reply.done < records.length) this.#dropTail()
    // Ids wait for room in memory: a run is on its way to disk, or an epoch must be sealed first.
    this.#idsWait = reply.done === 0
    if (this.#idsWait) await this.#o.ids.room()
    this.#epochFull = reply.full
    this.#o.metrics.accepted.inc(reply.counts.accepted)
    this.#o.metrics.duplicates.inc(reply.counts.duplicate)
    this.#o.metrics.conflicts.inc(reply.counts.conflict)
    this.#raise(reply)
    this.#o.onApplied(this.stream, this.#next - 1, reply.guarded)
    records.slice(0, reply.done).forEach((record, i) => {
      const waiter = this.#waiters.get(record.sequence)
      if (waiter === undefined) return
      this.#waiters.delete(record.sequence)
      waiter.resolve({ verdicts: reply.verdicts[i]! })
    })
  }

  #skipLost(): number {
    const range = this.#o.log.lost().find((l) => l.stream === this.stream && l.from <= this.#next && this.#next <= l.to)
    assert(range !== undefined, `the log of stream ${this.stream} gives nothing at ${this.#next}`)
    return range.to + 1
  }

  /** Crossings are recorded now, alone; the epoch's checkpoint waits for them. */
  #raise(reply: Pick<ApplyReply, 'crossings'>): void {
    if (reply.crossings.length === 0) return
    const recorded = this.#o.alerts.record(this.stream, this.#fence, reply.crossings)
    this.#alertsPending = this.#alertsPending.then(() => recorded)
    this.#alertsPending.catch((error: Error) => this.#fail(error))
  }

  #barrier(until: number, run: () => Promise<void>): Promise<void> {
    if (this.#state !== 'running') {
      return Promise.reject(
        new ReleveError('unavailable', `stream ${this.stream} is ${this.#state}`, { retryAfterS: 1 }),
      )
    }
    return new Promise((resolve, reject) => {
      this.#jobs.push({ until, run, resolve, reject })
      this.#wakeUp()
    })
  }

  // ---- Epochs ------------------------------------------------------------------------------------------------------------

  async #seal(): Promise<SealedEpoch> {
    const sealed = await this.#o.shard.seal()
    assert(sealed.epoch === this.#epoch, `sealed epoch ${sealed.epoch}, expected ${this.#epoch}`)
    const from = this.#epochFrom
    this.#epoch += 1
    this.#epochFrom = this.#next
    this.#epochFull = false
    this.#takeDedupe(sealed.dedupe, sealed.stats)
    return { ...sealed, from, to: this.#next - 1, receivedAt: this.#lastReceivedAt }
  }

  #takeDedupe(state: DedupeState | null, stats: DedupeStats): void {
    this.#announcedFloor = state?.announcedFloor ?? Number.NEGATIVE_INFINITY
    const windowFrom = state?.windowFrom ?? null
    const { metrics, clock } = this.#o
    const stream = String(this.stream)
    const now = clock.now()
    metrics.dedupeIds.set({ stream }, stats.entries)
    metrics.dedupeMemoryIds.set({ stream }, stats.memoryEntries)
    metrics.dedupeDiskIds.set({ stream }, stats.diskEntries)
    metrics.dedupeRuns.set({ stream }, stats.runs)
    metrics.dedupeRunBytes.set({ stream }, stats.runBytes)
    metrics.dedupeFilterHits.set({ stream }, stats.filterHits)
    metrics.dedupePageReads.set({ stream }, stats.pageReads)
    metrics.dedupeBytes.set({ stream }, stats.bytes)
    metrics.dedupeWindowSeconds.set(
      { stream },
      windowFrom === null ? Number.POSITIVE_INFINITY : (now - windowFrom) / 1000,
    )
    metrics.lateSeconds.set({ stream }, (now - this.floorAt(now)) / 1000)
  }

  #enqueueFlush(sealed: SealedEpoch): void {
    this.#inFlight += 1
    const alerts = this.#alertsPending
    this.#flushes = this.#flushes
      .then(() => alerts)
      .then(() => span('flush', { stream: this.stream, epoch: sealed.epoch }, () => this.#flush(sealed)))
      .finally(() => {
        this.#inFlight -= 1
        this.#wakeUp()
      })
    this.#flushes.catch((error: Error) => this.#fail(error))
  }

  /** Steps 1 to 4 of the protocol. Each step is repeated until it holds; a repeated step changes nothing. */
  async #flush(sealed: SealedEpoch): Promise<void> {
    const { ids, rollup, crash, metrics } = this.#o
    const { epoch } = sealed
    const end = metrics.flushSeconds.startTimer()

    await this.#retry('manifest', () => this.#writeManifest(sealed))
    crash('after-manifest')

    if (sealed.keys !== null) await this.#retry('keys', () => ids.append(sealed.keys!))
    crash('after-key-file')

    const chunks: StoreChunk[] = [...sealed.chunks]
    const landed = await this.#retry('count', () => rollup.landed(this.stream, epoch, tablesOf(chunks)))
    for (const chunk of chunks) await this.#insert(chunk, epoch, landed)
    if (sealed.overrides.length > 0) {
      const number = chunks.filter((c) => c.table === 'usage_minute').length
      const override = await this.#retry('override', () =>
        rollup.overrideChunk(this.stream, epoch, number, sealed.overrides),
      )
      await this.#insert(override, epoch, landed)
      chunks.push(override)
    }
    await this.#alertsPending

    crash('before-checkpoint')
    await this.#retry('checkpoint', () => this.#writeCheckpoint(sealed, chunks.map(recordOf)))
    crash('after-checkpoint')
    this.#checkpointEpoch = epoch
    this.#noteWindows(epoch, sealed.windows)
    this.#checkpointSequence = sealed.to
    this.#checkpointAt = sealed.receivedAt
    this.#pendingSince = sealed.receivedAt
    this.#totals = add(this.#totals, sealed.counts)
    metrics.epochs.inc({ stream: String(this.stream) })
    end()
    await ids.settled(sealed.dedupe, sealed.dropped)
    if (sealed.needed.length > 0) await this.#loadBases(sealed.needed)
    await this.#o.log.deleteBelow(this.stream, sealed.to + 1)
  }

  /** Folds may wait long for a cut: then the oldest epochs share an entry, which is as wide as they are and goes with the last of them. */
  #noteWindows(epoch: number, windows: Period | null): void {
    this.#unfolded.push({ epoch, windows })
    if (this.#unfolded.length <= limits.unfoldedEpochsMax) return
    const [first, second] = this.#unfolded.splice(0, 2)
    this.#unfolded.unshift({ epoch: second!.epoch, windows: union(first!.windows, second!.windows) })
  }

  async #insert(chunk: StoreChunk, epoch: number, landed: ReadonlyMap<string, number>): Promise<void> {
    const key = { table: chunk.table, stream: this.stream, epoch, chunk: chunk.chunk }
    const there = landed.get(`${chunk.table}/${chunk.chunk}`) ?? 0
    // An epoch that is flushed for the first time has no rows and no tokens anywhere.
    const isFirst = there === 0 && this.#state !== 'opening'
    await this.#land(chunk, key, `${this.stream}/${epoch}/${chunk.table}/${chunk.chunk}`, there, isFirst)
    this.#o.crash('after-chunk')
    // Its rows are there: nobody will send them again. Only a thread that is closed refuses.
    if (chunk.table === 'usage_events') this.#o.shard.giveBack(chunk.pieces).catch(() => {})
  }

  /**
   * Resolves when exactly the rows of a chunk are there; `there` of them were counted. A first insert that is answered has landed;
   * after any doubt the rows are counted again. A surplus is taken out. When rows are missing although ClickHouse knows the token
   * (see rollup.ts), what is there is taken back and the chunk goes in under a token of its own.
   */
  async #land(chunk: StoreChunk, key: ChunkKey, token: string, there: number, isFirst: boolean): Promise<void> {
    const { rollup, archive, metrics, logger } = this.#o
    for (let round = 0; there !== chunk.rows; round += 1) {
      if (round > REPAIRS_MAX) {
        throw new Error(
          `FATAL: ${chunk.table} of stream ${this.stream} holds ${there} rows of epoch ${key.epoch}, chunk ${chunk.chunk}, instead of ${chunk.rows}, whatever is done`,
        )
      }
      if (there > chunk.rows) {
        await this.#takeOutSurplus(key, there, chunk.rows)
        return
      }
      let name = token
      if (round > 0) {
        logger.error(
          { ...key, there, expected: chunk.rows },
          'a known token stands for missing rows: the chunk is inserted anew',
        )
        await this.#retry('repair', () => rollup.remove(chunk.table, this.stream, key.epoch, chunk.chunk))
        name = `${token}/${randomUUID()}`
      }
      let tries = 0
      await this.#retry('insert', () => {
        tries += 1
        return chunk.table === 'usage_events' ? archive.insert(chunk, name) : rollup.insert(chunk, name)
      })
      metrics.rows.inc({ table: chunk.table }, chunk.rows)
      if (isFirst && tries === 1) return
      const counted = await this.#retry('count', () => rollup.landed(this.stream, key.epoch, [chunk.table]))
      there = counted.get(`${chunk.table}/${chunk.chunk}`) ?? 0
    }
  }

  async #takeOutSurplus(key: ChunkKey, there: number, expected: number): Promise<void> {
    this.#o.metrics.surplus.inc(there - expected)
    this.#o.logger.error(
      { ...key, there, expected },
      'surplus rows: another owner wrote this chunk too; they are taken out',
    )
    await this.#retry('repair', () => this.#o.repair.takeOutSurplus(key, expected))
  }

  /**
   * Counts in ClickHouse what the checkpoints say, for every epoch that was not yet found right. A surplus is repaired and
   * alarmed; rows that are missing cannot be made here. Called before a closing, so that no invoice stands on a wrong count.
   */
  async verify(): Promise<void> {
    const { postgres, rollup } = this.#o
    const to = this.#checkpointEpoch
    const { rows: streams } = await postgres.query('SELECT verified_epoch FROM streams WHERE stream = $1', [
      this.stream,
    ])
    const from = Number(streams[0].verified_epoch)
    if (from >= to) return
    const { rows: checkpoints } = await postgres.query(
      'SELECT epoch, chunks FROM epoch_checkpoints WHERE stream = $1 AND epoch > $2 AND epoch <= $3',
      [this.stream, from, to],
    )
    for (const table of ['usage_minute', 'usage_members', 'usage_events', 'ingest_rejects'] as const) {
      const there = await rollup.rowsByChunk(table, this.stream, from, to)
      for (const { epoch, chunks } of checkpoints as { epoch: number; chunks: ChunkRecord[] }[]) {
        for (const chunk of chunks.filter((one) => one.table === table)) {
          const key = { table, stream: this.stream, epoch: Number(epoch), chunk: chunk.chunk }
          const name = `${key.epoch}/${key.chunk}`
          const found = there.get(name) ?? 0
          there.delete(name)
          if (found > chunk.rows) await this.#takeOutSurplus(key, found, chunk.rows)
          if (found < chunk.rows) {
            throw new ReleveError(
              'conflict',
              `${table} holds ${found} rows of stream ${this.stream}, epoch ${key.epoch}, chunk ${key.chunk}; its checkpoint has ${chunk.rows}: run releve audit, then releve rebuild`,
            )
          }
        }
      }
      const unknown = [...there.keys()][0]
      if (unknown !== undefined) {
        throw new ReleveError(
          'conflict',
          `${table} holds rows of stream ${this.stream}, epoch/chunk ${unknown}, that no checkpoint has: run releve audit`,
        )
      }
    }
    await postgres.query('UPDATE streams SET verified_epoch = $2 WHERE stream = $1 AND verified_epoch < $2', [
      this.stream,
      to,
    ])
  }

  async #writeManifest(sealed: SealedEpoch): Promise<void> {
    // Compare-and-set on the checkpoint and the owner. The same manifest again (after a crash) takes the new fence.
    const { rowCount } = await this.#o.postgres.query(
      `INSERT INTO epoch_manifests (stream, epoch, from_seq, to_seq, fence, created_at)
       SELECT stream, $3::bigint, $4::bigint, $5::bigint, fence, $6::bigint FROM streams
       WHERE stream = $1 AND fence = $2 AND epoch = $3::bigint - 1
       ON CONFLICT (stream, epoch) DO UPDATE SET fence = excluded.fence
       WHERE epoch_manifests.from_seq = excluded.from_seq AND epoch_manifests.to_seq = excluded.to_seq`,
      [this.stream, this.#fence, sealed.epoch, sealed.from, sealed.to, this.#o.clock.now()],
    )
    if (rowCount !== 1) throw new Fenced(this.stream, sealed.epoch)
  }

  async #writeCheckpoint(sealed: SealedEpoch, chunks: readonly ChunkRecord[]): Promise<void> {
    const { postgres, clock } = this.#o
    const client = await postgres.connect()
    try {
      await client.query('BEGIN')
      const { rowCount } = await client.query(
        `UPDATE streams SET epoch = $3::bigint, position = $4, received_at = $5, dedupe = $6, totals = $7
         WHERE stream = $1 AND fence = $2 AND epoch = $3::bigint - 1`,
        [
          this.stream,
          this.#fence,
          sealed.epoch,
          sealed.to,
          sealed.receivedAt,
          JSON.stringify(sealed.dedupe),
          JSON.stringify(add(this.#totals, sealed.counts)),
        ],
      )
      if (rowCount === 1) {
        await client.query(
          `INSERT INTO epoch_checkpoints (stream, epoch, from_seq, to_seq, received_at, counts, chunks, created_at)
           VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`,
          [
            this.stream,
            sealed.epoch,
            sealed.from,
            sealed.to,
            sealed.receivedAt,
            JSON.stringify(sealed.counts),
            JSON.stringify(chunks),
            clock.now(),
          ],
        )
        await client.query('COMMIT')
        return
      }
      await client.query('ROLLBACK')
    } catch (error) {
      await client.query('ROLLBACK').catch(() => {})
      throw error
    } finally {
      client.release()
    }
    // An answer that was lost on the way: the checkpoint may be there already, by this very owner.
    const { rows } = await postgres.query(
      'SELECT 1 FROM streams WHERE stream = $1 AND fence = $2 AND epoch = $3 AND position = $4',
      [this.stream, this.#fence, sealed.epoch, sealed.to],
    )
    if (rows.length !== 1) throw new Fenced(this.stream, sealed.epoch)
  }

  /**
   * One step of a flush until it holds. An engine that is away comes back (engines/ restarts it); meanwhile the log takes what
   * comes, at most epochsInFlightMax epochs wait in memory, and health says so.
   */
  async #retry<T>(step: string, run: () => Promise<T>): Promise<T> {
    for (let delay = 50; ; delay = Math.min(2 * delay, 2_000)) {
      try {
        this.#step = step
        const result = await run()
        this.#fault = null
        return result
      } catch (error) {
        const final = error instanceof Fenced || (error instanceof ReleveError && error.code === 'unavailable')
        const ended = this.#state === 'failed' || this.#state === 'closed'
        if (final || ended || (error instanceof Error && /^(BUG|FATAL):/.test(error.message))) throw error
        this.#fault = `${step}: ${error instanceof Error ? error.message : String(error)}`
        this.#o.metrics.flushRetries.inc({ step })
        this.#o.logger.warn(
          { stream: this.stream, step, error: String(error) },
          'a step of the flush failed, done again',
        )
        await new Promise((resolve) => setTimeout(resolve, delay))
      }
    }
  }

  // ---- Folds -------------------------------------------------------------------------------------------------------------

  #foldSoon(): void {
    const pending = this.#checkpointEpoch - this.#folded
    if (pending <= 0 || this.#state !== 'running') return
    this.fold().catch((error: Error) => this.#fail(error))
  }

  /** Takes the minutes of the epochs behind the last fold into hours; never across an open cut. One after the other. */
  fold(): Promise<void> {
    const done = this.#folding.then(() => this.#foldOnce())
    this.#folding = done.catch(() => {})
    return done
  }

  async #foldOnce(): Promise<void> {
    const { postgres } = this.#o
    const from = this.#folded
    const { rows } = await this.#retry('fold', () =>
      postgres.query(
        `SELECT min((epochs ->> $1::text)::bigint) AS epoch FROM cuts WHERE released_at IS NULL AND epochs ? $1::text`,
        [String(this.stream)],
      ),
    )
    const openCut = rows[0]?.epoch === null || rows[0] === undefined ? Number.POSITIVE_INFINITY : Number(rows[0].epoch)
    const to = Math.min(this.#checkpointEpoch, from + limits.foldEpochsMax, openCut)
    if (to <= from) return
    const fold = this.#fold + 1
    const written = await this.#retry('fold', () =>
      postgres.query(
        `INSERT INTO folds (stream, fold, from_epoch, to_epoch, fence, created_at)
         SELECT stream, $3::bigint, $4::bigint, $5::bigint, fence, $6::bigint FROM streams
         WHERE stream = $1 AND fence = $2 ON CONFLICT DO NOTHING`,
        [this.stream, this.#fence, fold, from, to, this.#o.clock.now()],
      ),
    )
    if (written.rowCount === 0) {
      const { rows: mine } = await postgres.query(
        'SELECT 1 FROM folds WHERE stream = $1 AND fold = $2 AND fence = $3',
        [this.stream, fold, this.#fence],
      )
      if (mine.length !== 1) throw new Fenced(this.stream, to)
    }
    this.#o.crash('after-fold-manifest')
    await span('fold', { stream: this.stream, from, to }, () => this.#runFold(fold, from, to))
  }

  async #runFold(fold: number, from: number, to: number): Promise<void> {
    const { postgres, rollup, crash } = this.#o
    // A fold that was begun before may have rows and tokens in ClickHouse already.
    let isFirst = this.#state !== 'opening'
    const records = await this.#retry('fold', async () => {
      const first = isFirst
      isFirst = false
      const landed = await rollup.landed(this.stream, to, ['usage_hour'])
      const made: ChunkRecord[] = []
      for await (const chunk of rollup.foldChunks(this.stream, from, to)) {
        const there = landed.get(`usage_hour/${chunk.chunk}`) ?? 0
        const key = { table: chunk.table, stream: this.stream, epoch: to, chunk: chunk.chunk }
        await this.#land(chunk, key, `${this.stream}/fold/${to}/${chunk.chunk}`, there, first && there === 0)
        made.push(recordOf(chunk))
        crash('after-fold-chunk')
      }
      return made
    })
    await this.#retry('fold', () =>
      postgres.query('UPDATE folds SET chunks = $3, done_at = $4 WHERE stream = $1 AND fold = $2', [
        this.stream,
        fold,
        JSON.stringify(records),
        this.#o.clock.now(),
      ]),
    )
    this.#fold = fold
    this.#folded = to
    this.#unfolded = this.#unfolded.filter((one) => one.epoch > to)
    this.#o.metrics.folds.inc({ stream: String(this.stream) })
  }

  /** No fold runs any more, until the process ends. */
  async stopFolds(): Promise<void> {
    clearInterval(this.#foldTimer)
    await this.#folding
  }

  // ---- Balances ----------------------------------------------------------------------------------------------------------

  /** At a barrier. `done` resolves when the bases are there: they wait for the checkpoint of the epoch before. */
  async #loadEntitlements(entitlements: readonly LiveEntitlement[]): Promise<{ done: Promise<void> }> {
    const { shard } = this.#o
    const receivedAt = Math.max(this.#o.clock.now(), this.#lastReceivedAt)
    const { needed, crossings } = await shard.setEntitlements(entitlements, receivedAt)
    this.#raise({ crossings })
    return { done: this.#flushes.then(() => this.#loadBases(needed)) }
  }

  /** Usage up to the epoch before the one that each balance began to count in; that epoch has its checkpoint. */
  async #loadBases(needed: readonly NeededBase[]): Promise<void> {
    const { shard, rollup, alerts } = this.#o
    if (needed.length === 0) return
    // Told twice after a fault in the middle: a balance that has its base ignores the second one.
    await this.#retry('base', async () => {
      const rung = new Map<string, RungThreshold[]>()
      // What rang behind the checkpoint is not in the bases yet; the replay comes to it.
      const items = [...new Set(needed.map((need) => need.item))]
      const from = Math.min(...needed.map(({ period }) => period.from))
      const unresolved = await alerts.unresolved(this.stream, items, this.#checkpointSequence, from)
      for (const { item, metric, periodFrom, ...threshold } of unresolved) {
        const key = JSON.stringify([item, metric, periodFrom])
        rung.set(key, [...(rung.get(key) ?? []), threshold])
      }
      for await (const { need, base } of rollup.bases(this.stream, needed, limits.liveMembersMax)) {
        const key = JSON.stringify([need.item, need.metric, need.period.from])
        this.#raise({ crossings: await shard.setBase(need, base, rung.get(key) ?? []) })
      }
    })
  }

  /** Usage of a balance that the shard does not know, as ClickHouse has it: its thresholds ring from it. */
  async observe(of: ItemMetric, periodFrom: number, usage: string, asOf: AsOf): Promise<void> {
    this.#raise({ crossings: await this.#o.shard.observe(of, periodFrom, usage, asOf) })
  }

  /** The meters whose silence is watched, from now on. */
  async listen(list: readonly Listening[]): Promise<void> {
    await this.#o.shard.listen(list)
  }

  /**
   * On a clock: raises what the balances foresee, and what `judge` makes of who spoke. While records wait to be applied nobody
   * is known to be silent.
   */
  async tick(
    now: number,
    judge: (heard: readonly HeardMeter[], at: { sequence: number; isBehind: boolean }) => ApplyReply['crossings'],
  ): Promise<void> {
    if (this.#state !== 'running') return
    const { crossings, heard } = await this.#o.shard.tick(now)
    const isBehind = this.#next <= this.#o.log.state(this.stream).last
    this.#raise({ crossings: [...crossings, ...judge(heard, { sequence: this.#next - 1, isBehind })] })
  }

  /** Records what was found beside the balances, under this stream's fence. */
  tell(crossings: ApplyReply['crossings']): void {
    if (this.#state === 'running') this.#raise({ crossings })
  }

  /** Usage of a tenant that is told after each hand-over from now on. */
  async guard(tenant: string, now: number): Promise<{ sequence: number; usages: readonly GuardedUsage[] }> {
    return this.#o.shard.guard(tenant, now)
  }

  // ---- End ---------------------------------------------------------------------------------------------------------------

  /** Drain, seal, checkpoint, fold nothing more. Ends within limits.stopMs; what it does not finish, the log replays. */
  async close(): Promise<void> {
    clearInterval(this.#epochTimer)
    clearInterval(this.#foldTimer)
    if (this.#state === 'running') {
      this.#state = 'draining'
      this.#wakeUp()
      const drained = this.#loop
        .then(() => this.#flushes)
        .then(() => this.#folding)
        .then(() => this.#alertsPending)
        .catch(() => {})
      let timer: NodeJS.Timeout | undefined
      await Promise.race([drained, new Promise((resolve) => (timer = setTimeout(resolve, limits.stopMs)))])
      clearTimeout(timer)
    }
    if (this.#state !== 'failed') this.#state = 'closed'
    this.#wakeUp()
    for (const job of this.#jobs) job.reject(new ReleveError('unavailable', 'the service stops', { retryAfterS: 5 }))
    for (const waiter of this.#waiters.values())
      waiter.reject(new ReleveError('unavailable', 'the service stops', { retryAfterS: 5 }))
    this.#waiters.clear()
  }

  #fail(error: Error): void {
    if (this.#state === 'failed' || this.#state === 'closed') return
    this.#state = 'failed'
    this.#o.logger.fatal({ stream: this.stream, error: error.stack ?? String(error) }, 'the stream cannot go on')
    for (const waiter of this.#waiters.values()) waiter.reject(error)
    this.#waiters.clear()
    this.#wakeUp()
    this.#o.onFatal(error)
  }
}

/** Another owner has the stream, or its checkpoint is not where this one left it. */
class Fenced extends Error {
  constructor(stream: number, epoch: number) {
    super(
      `FATAL: stream ${stream} has another owner or another checkpoint than epoch ${epoch - 1}: this process must not write any more`,
    )
  }
}

function add(totals: Totals, counts: Counts): Totals {
  return {
    received: totals.received + counts.received,
    stored: totals.stored + counts.stored,
    refused: totals.refused + counts.refused,
    accepted: totals.accepted + counts.accepted,
    duplicate: totals.duplicate + counts.duplicate,
    conflict: totals.conflict + counts.conflict,
    voids: totals.voids + counts.voids,
    archived: totals.archived + counts.archived,
    epochs: totals.epochs + 1,
  }
}

/** A period around both. */
function union(one: Period | null, other: Period | null): Period | null {
  if (one === null || other === null) return one ?? other
  return { from: Math.min(one.from, other.from), to: Math.max(one.to, other.to) }
}

const recordOf = ({ table, chunk, rows, digest }: StoreChunk): ChunkRecord => ({ table, chunk, rows, digest })

function tablesOf(chunks: readonly StoreChunk[]): UsageTable[] {
  return [...new Set<UsageTable>(chunks.map((c) => c.table)).add('usage_minute')]
}
