/**
 * Shard: one stream's state in one worker thread: door, dedupe, aggregate, archive, live balances. Synchronous and pure: no
 * clock, no I/O, no current catalogue behind the door. What it does after the door is a function of the log's records and of
 * the epoch's bounds.
 *
 * Bodies come in *slabs*, memory that both threads see: the main thread writes bodies to the front of one, the shard writes the
 * frames for the log behind them, and the slab is free again when the log has them. So nothing is allocated or handed over for a
 * request. The shard keeps each frame of its own stream under a number until it applies it. Measured with bodies and frames
 * handed over as buffers of their own: 500 ns an event of V8's helpers and 200 of the main thread went into collecting them, at a
 * third of the throughput of two cores.
 *
 * `Shard` is the thing, inside the thread (workers/shard.ts); `openShardThread` is its front on the main thread: one piscina
 * pool of one thread, so that tasks of a stream run in the order in which they were given.
 */
import { join } from 'node:path'
import { Piscina } from 'piscina'
import { type MemberHash as MemberHashFunction, openAggregate } from './aggregate/aggregate.js'
import { assert } from './assert.js'
import type { CatalogSnapshot } from './catalog/metric.js'
import { type Dedupe, type DedupeStats, openDedupe } from './dedupe/dedupe.js'
import type { DedupeState } from './dedupe/generations.js'
import { contentKeyBytes, MemberHash, memberHash } from './dedupe/identity.js'
import { blockEntriesMax } from './dedupe/key-block.js'
import { type ErrorCode, ReleveError } from './errors.js'
import { decodeFrame } from './frame.js'
import {
  type Admitted,
  Cardinality,
  type CardinalityCounts,
  type CardinalityLimits,
  type KnownSeries,
} from './ingest/cardinality.js'
import type { CloudEventHeaders } from './ingest/cloudevents-binary.js'
import { type BodyFormat, buildDoor, type Door, type IngestRequest, type Judged, judge } from './ingest/ingest.js'
import { type JudgedTogether, type KernelDoor, type KernelJudged, openKernelDoor } from './ingest/kernel-door.js'
import type { Refusal } from './ingest/verdict.js'
import { limits } from './limits.js'
import type { LogRecord } from './log/log.js'
import { workersDirectory } from './paths.js'
import type { Period } from './period.js'
import {
  type AsOf,
  type Balances,
  type BalanceView,
  type Crossing,
  type GuardedUsage,
  type ItemMetric,
  type LiveEntitlement,
  type NeededBase,
  openBalances,
  type RungThreshold,
} from './quota/balance.js'
import type { BalanceBase } from './quota/figures.js'
import { Heard, type HeardMeter, type Listening } from './quota/heard.js'
import type { Chunk } from './rollup/chunks.js'
import { type Epoch, PlainEpoch } from './rollup/epoch.js'
import { openKernelEpoch } from './rollup/kernel-epoch.js'
import type { Override } from './rollup/rollup.js'

export type { BalanceView, Crossing, NeededBase } from './quota/balance.js'

/** The books of some records. received = stored + refused; stored = accepted + duplicate + conflict. */
export interface Counts {
  readonly received: number
  readonly stored: number
  readonly refused: number
  readonly accepted: number
  readonly duplicate: number
  readonly conflict: number
  /** Among the accepted: voids, each counted −1 in rollups. */
  readonly voids: number
  /** Among the accepted: archived one by one. */
  readonly archived: number
}

export interface ShardOptions {
  readonly stream: number
  readonly streams: number
  /** 16 bytes. */
  readonly secret: Uint8Array
  readonly idsMax: number
  readonly diskIdsMax: number
  readonly aheadMs: number
  readonly lateMs: number
  /** Memory that the main thread sees too, each of limits.slabBytes. */
  readonly slabs: readonly SharedArrayBuffer[]
}

/** One body of a task. */
export interface JudgeJob {
  /** Where it lies in the slab; in `own` when it is larger than a slab. */
  readonly at: number
  readonly length: number
  readonly own: Uint8Array | null
  readonly format: BodyFormat
  readonly attributes: CloudEventHeaders | undefined
  readonly tenant: string | null
  /** Somebody waits for the verdict of each event. */
  readonly wait: boolean
}

export type JudgeHead = Pick<IngestRequest, 'receivedAt' | 'floorTime' | 'aheadMs'>

/** What one stream gets of a group of bodies. */
export interface JudgedPart {
  readonly stream: number
  /** The frame: in the slab at `at`, or in `own` when it does not fit there. */
  readonly at: number
  readonly length: number
  readonly own: Uint8Array | null
  /** The number under which the shard keeps it, 0 when the part is another shard's. */
  readonly kept: number
  /** Place in the group of each stored event; only when somebody waits, or when it is unjudged. */
  readonly indices: Uint32Array | null
  /** Its cardinality is still to be judged, in the thread of its stream. */
  readonly unjudged: boolean
}

/** Consecutive bodies of a task that were judged as one: mostly one body, or many small ones. */
export interface JudgedGroup {
  /** For each body, the events of the group up to its end. */
  readonly ends: readonly number[]
  readonly plain: number
  /** Their places count through the group. */
  readonly refusals: readonly Refusal[]
  readonly parts: readonly JudgedPart[]
  /** Why nothing of it counts; then it is one body. */
  readonly error: { readonly code: ErrorCode; readonly detail: string } | null
}

/** A record for apply(): as it was read, or as the shard keeps it. */
export type ApplyRecord = Pick<LogRecord, 'sequence' | 'receivedAt'> &
  ({ readonly payload: Uint8Array } | { readonly kept: number })

export interface ApplyReply {
  /** Records that were applied, from the first on; fewer than given when `full`. */
  readonly done: number
  readonly counts: Counts
  /** One ShardVerdict per stored event of each applied record. */
  readonly verdicts: readonly Uint8Array[]
  readonly crossings: readonly Crossing[]
  /** Usage of the guarded tenants that these records speak of. */
  readonly guarded: readonly GuardedUsage[]
  /** The epoch must be sealed before more is applied. */
  readonly full: boolean
}

export interface SealedEpoch {
  readonly epoch: number
  readonly from: number
  readonly to: number
  readonly receivedAt: number
  readonly counts: Counts
  readonly chunks: readonly Chunk[]
  /** The epoch's new dedupe keys; null when there are none. */
  readonly keys: Uint8Array | null
  readonly dedupe: DedupeState
  /** Generations whose key files may go after the checkpoint. */
  readonly dropped: readonly number[]
  readonly overrides: readonly Override[]
  /** In which its minutes lie; null when it has none. */
  readonly windows: Period | null
  /** Balances that must be read again, once this epoch has its checkpoint. */
  readonly needed: readonly NeededBase[]
  readonly stats: DedupeStats
}

export const zeroCounts = (): { -readonly [K in keyof Counts]: number } => ({
  received: 0,
  stored: 0,
  refused: 0,
  accepted: 0,
  duplicate: 0,
  conflict: 0,
  voids: 0,
  archived: 0,
})

/** Floors of records in the log may be out of order by this much: concurrent bodies are judged with slightly different ones. */
export const FLOOR_SLACK_MS = 60_000

/** What the kernel does for a shard, where it could be loaded. */
export const ShardPart = ['door', 'dedupe', 'epoch'] as const
export type ShardPart = (typeof ShardPart)[number]

export interface ShardOpened {
  readonly stats: DedupeStats
  /** Parts that work without the kernel: right, and several times slower. */
  readonly plain: readonly ShardPart[]
}

export class Shard {
  readonly #options: ShardOptions
  readonly #dedupe: Dedupe
  readonly #rows: Epoch
  readonly #balances: Balances
  readonly #cardinality = new Cardinality()
  readonly #heard = new Heard()
  #door: Door | undefined
  readonly #frames = new FramePool()
  /** Null when the kernel was not built: then the plain path does all. */
  readonly #kernelDoor: KernelDoor | null = openKernelDoor((bytes) => this.#frames.take(bytes))
  #epoch = 0
  #counts = zeroCounts()
  #sequence = 0
  #receivedAt = 0
  /** Of the epoch's records; never falls. */
  #floorTime = Number.NEGATIVE_INFINITY
  /** Frames that are on their way into the log, by number. The main thread bounds them (limits.tailBytesMax). */
  readonly #kept = new Map<number, Uint8Array>()
  #lastKept = 0

  constructor(options: ShardOptions) {
    this.#options = options
    const members = new MemberHash(options.secret)
    const words = new Int32Array(4)
    const bytes = new Uint8Array(words.buffer)
    const hash: MemberHashFunction = (tenant, member) => {
      memberHash(members.keyOf(tenant), member, 0, member.length, words, 0)
      return bytes
    }
    this.#dedupe = openDedupe({
      stream: options.stream,
      secret: options.secret,
      idsMax: options.idsMax,
      diskIdsMax: options.diskIdsMax,
      aheadMs: options.aheadMs,
      windowMs: options.lateMs + options.aheadMs,
    })
    this.#rows =
      openKernelEpoch(options.stream, { member: members.keyBytes, content: contentKeyBytes(options.secret) }) ??
      new PlainEpoch(options.stream, openAggregate(hash))
    this.#balances = openBalances({ memberHash: hash, lateMs: options.lateMs, aheadMs: options.aheadMs })
  }

  setCatalog(snapshot: CatalogSnapshot): void {
    this.#door = buildDoor(snapshot, this.#options.streams, this.#door)
  }

  /** Judges the bodies of a slab; small ones of native JSON that follow each other become one group, so that they cost one frame. */
  judge(slab: number, jobs: readonly JudgeJob[], head: JudgeHead): JudgedGroup[] {
    assert(this.#door !== undefined, 'a body came before the catalogue')
    const memory = this.#options.slabs[slab]
    assert(memory !== undefined, `there is no slab ${slab}`)
    const bytes = new Uint8Array(memory)
    const groups: JudgedGroup[] = []
    // Frames go behind the last body.
    let free = 0
    for (const { at, length, own } of jobs) if (own === null) free = Math.max(free, pad8(at + length))
    const put = (vouched: JudgedTogether, some: readonly JudgeJob[]): void => {
      const wait = some.some((job) => job.wait)
      const judged = this.#cardinality.isIdle ? vouched : this.#withinLimits(vouched)
      const { group, end } = this.#place(bytes, free, judged, wait)
      free = end
      groups.push(group)
    }
    const judgeAlone = (job: JudgeJob): void => {
      try {
        put(this.#judgeOne(bytes, job, head), [job])
      } catch (error) {
        if (!(error instanceof ReleveError)) throw error
        const { code, message: detail } = error
        groups.push({ ends: [0], plain: 0, refusals: [], parts: [], error: { code, detail } })
      }
    }
    // A broken one, or too many events: by halves, so that it costs its neighbours little.
    const judgeSmall = (some: readonly JudgeJob[]): void => {
      // With limits of cardinality a body may be told to come again, and its neighbours must not.
      const together = some.length > 1 && this.#cardinality.isIdle ? this.#judgeTogether(bytes, some, head) : null
      if (together !== null) put(together, some)
      else if (some.length === 1) judgeAlone(some[0]!)
      else {
        const half = some.length >> 1
        judgeSmall(some.slice(0, half))
        judgeSmall(some.slice(half))
      }
    }
    for (let i = 0; i < jobs.length; ) {
      let to = i + 1
      if (isSmall(jobs[i]!)) while (to < jobs.length && isSmall(jobs[to]!)) to += 1
      judgeSmall(jobs.slice(i, to))
      i = to
    }
    return groups
  }

  #judgeOne(bytes: Uint8Array, job: JudgeJob, head: JudgeHead): JudgedTogether {
    const door = this.#door!
    const { format, attributes, tenant } = job
    const body = bodyOf(bytes, job)
    const request = { ...head, format, tenant, ...(attributes === undefined ? {} : { attributes }) }
    // The plain path reads only memory of its own.
    const judged = this.#kernelDoor?.judge(door, body, request) ?? withPlain(judge(door, new Uint8Array(body), request))
    return { ...judged, ends: [judged.received] }
  }

  #judgeTogether(bytes: Uint8Array, jobs: readonly JudgeJob[], head: JudgeHead): JudgedTogether | null {
    const requests = jobs.map(({ format, tenant }) => ({ ...head, format, tenant }))
    const bodies = jobs.map((job) => bodyOf(bytes, job))
    return this.#kernelDoor?.judgeTogether(this.#door!, bodies, requests) ?? null
  }

  /** Keeps the frames of the own stream, and writes all of them into the slab, where the main thread takes them for the log. */
  #place(bytes: Uint8Array, free: number, judged: JudgedTogether, wait: boolean): { group: JudgedGroup; end: number } {
    let end = free
    const parts = judged.parts.map(({ stream, frame, indices }): JudgedPart => {
      const isMine = stream === this.#options.stream
      const fits = end + frame.length <= bytes.length
      let kept = 0
      if (isMine) {
        this.#lastKept += 1
        kept = this.#lastKept
        this.#kept.set(kept, frame)
      }
      const at = end
      if (fits) {
        bytes.set(frame, at)
        end = pad8(at + frame.length)
      }
      // What does not fit is handed over, and what is kept must stay. A frame may be a Buffer, whose slice() would be no copy.
      const own = fits ? null : isMine ? new Uint8Array(frame) : frame
      if (fits && !isMine) this.#frames.give(frame)
      const unjudged = !isMine && !this.#cardinality.isIdle
      return { stream, at, length: frame.length, own, kept, indices: wait || unjudged ? indices : null, unjudged }
    })
    const { ends, plain, refusals } = judged
    return { group: { ends, plain, refusals, parts, error: null }, end }
  }

  /** Parts of other streams are left to their threads, which alone know what their tenants have named. */
  #withinLimits(judged: JudgedTogether): JudgedTogether {
    const refusals = [...judged.refusals]
    const parts = judged.parts.map((part) => {
      if (part.stream !== this.#options.stream) return part
      const admitted = this.admit(part.frame, part.indices)
      if (admitted === null) return part
      const { refusals: more, ...rest } = admitted
      refusals.push(...more)
      return { ...part, ...rest }
    })
    refusals.sort((a, b) => a.index - b.index)
    return { ...judged, parts, refusals, refused: refusals.length, stored: judged.received - refusals.length }
  }

  /** A frame within the limits of cardinality of its tenants; null when it is. */
  admit(frame: Uint8Array, indices: Uint32Array): Admitted | null {
    return this.#cardinality.admit(decodeFrame(frame), indices, this.#door!.metrics)
  }

  setCardinality(fallback: CardinalityLimits | null, own: readonly (readonly [string, CardinalityLimits])[]): void {
    this.#cardinality.setLimits(fallback, new Map(own))
  }

  learnSeries(known: readonly KnownSeries[], at: number): void {
    this.#cardinality.learn(known, at)
  }

  cardinalityComplete(): void {
    this.#cardinality.complete()
  }

  cardinality(tenant: string): { counts: CardinalityCounts; month: string; complete: boolean } {
    return this.#cardinality.state(tenant)
  }

  // Opening: beginRestore, (restoreBlock, restoreSlice until it is in)…, open. `state` is null for a stream without a checkpoint.

  beginRestore(state: DedupeState | null): void {
    if (state !== null) this.#dedupe.beginRestore(state)
  }

  restoreBlock(block: Uint8Array): void {
    this.#dedupe.beginBlock(block)
  }

  /** Some ids of the last block; true when it is in. */
  restoreSlice(): boolean {
    return this.#dedupe.takeSlice()
  }

  /** One slice of taking in a run of ids; true when it is in. */
  attachRun(path: string): boolean {
    return this.#dedupe.attachRun(path)
  }

  open(at: { epoch: number; sequence: number; receivedAt: number; restored: boolean }): ShardOpened {
    if (at.restored) this.#dedupe.endRestore()
    this.#epoch = at.epoch
    this.#sequence = at.sequence
    this.#receivedAt = at.receivedAt
    this.#rows.open(at.epoch)
    const plain: ShardPart[] = []
    if (this.#kernelDoor === null) plain.push('door')
    if (this.#dedupe.isPlain) plain.push('dedupe')
    if (this.#rows instanceof PlainEpoch) plain.push('epoch')
    return { stats: this.#dedupe.stats(), plain }
  }

  /** Frames that will come from the log again, or never. */
  forget(kept: readonly number[]): void {
    for (const number of kept) {
      const frame = this.#kept.get(number)
      if (frame === undefined) continue
      this.#kept.delete(number)
      this.#frames.give(frame)
    }
  }

  apply(records: readonly ApplyRecord[]): ApplyReply {
    const frames = records.map((record) => ('kept' in record ? this.#takeKept(record.kept) : record.payload))
    const counts = zeroCounts()
    const verdicts: Uint8Array[] = []
    const crossings: Crossing[] = []
    const tenants = new Set<string>()
    let done = 0
    for (const [i, record] of records.entries()) {
      if (this.full) break
      const frame = decodeFrame(frames[i]!)
      // Its keys would not fit behind those of this call: the epoch is sealed first, and the log gives the rest again.
      if (this.#counts.stored + counts.stored + frame.events > blockEntriesMax) break
      if (!this.#cardinality.isIdle) this.#cardinality.learnFrame(frame)
      const verdict = new Uint8Array(frame.events)
      this.#dedupe.judge(frame, verdict, this.#rows.seriesKeys(frame))
      const books = this.#rows.apply(frame, record.sequence, verdict)
      for (const crossing of this.#balances.apply(frame, record.sequence, verdict)) crossings.push(crossing)
      this.#heard.apply(frame, verdict)
      if (this.#balances.isGuarding) for (const { tenant } of frame.origins) tenants.add(tenant)

      counts.received += frame.events + frame.refusals
      counts.stored += frame.events
      counts.refused += frame.refusals
      for (const name of Object.keys(books) as (keyof typeof books)[]) counts[name] += books[name]
      this.#sequence = record.sequence
      this.#receivedAt = record.receivedAt
      this.#floorTime = Math.max(this.#floorTime, frame.floorTime)
      verdicts.push(verdict)
      done += 1
      if ('kept' in record) this.#frames.give(frame.bytes)
    }
    for (const name of Object.keys(counts) as (keyof Counts)[]) this.#counts[name] += counts[name]
    const guarded = [...tenants].flatMap((tenant) => this.#balances.guarded(tenant))
    return { done, counts, verdicts, crossings, guarded, full: this.full }
  }

  #takeKept(kept: number): Uint8Array {
    const frame = this.#kept.get(kept)
    assert(frame !== undefined, `frame ${kept} is not kept`)
    this.#kept.delete(kept)
    return frame
  }

  get full(): boolean {
    return (
      this.#dedupe.full ||
      this.#counts.stored >= limits.epochEventsMax ||
      this.#rows.seriesTouched >= limits.epochSeriesMax ||
      this.#rows.bytes >= limits.epochBytesMax
    )
  }

  /** Ends the open epoch and opens the next one. The buffers in the reply belong to the caller. */
  seal(): Omit<SealedEpoch, 'from' | 'to' | 'receivedAt'> {
    const epoch = this.#epoch
    const { chunks, overrides, windows } = this.#rows.drain()
    const keys = this.#dedupe.takeBlock(epoch)
    const { state, dropped } = this.#dedupe.barrier({
      epoch,
      receivedAt: this.#receivedAt,
      floorTime: this.#floorTime - FLOOR_SLACK_MS,
    })
    const counts = this.#counts
    this.#counts = zeroCounts()
    this.#epoch = epoch + 1
    this.#rows.open(this.#epoch)
    const { needed } = this.#balances.barrier(this.#barrier())
    return {
      epoch,
      counts,
      chunks,
      keys,
      dedupe: state,
      dropped,
      overrides: overrides.map(({ series, window }) => ({ ...series, window: window / 1000 })),
      windows,
      needed,
      stats: this.#dedupe.stats(),
    }
  }

  /** Shared memory of the archive's rows that have landed. */
  giveBack(blocks: readonly SharedArrayBuffer[]): void {
    this.#rows.giveBack(blocks)
  }

  /** At a barrier only: the open epoch is empty. */
  setEntitlements(
    list: readonly LiveEntitlement[],
    receivedAt: number,
  ): { needed: NeededBase[]; crossings: Crossing[] } {
    assert(this.#counts.received === 0, 'entitlements change between two epochs')
    this.#receivedAt = Math.max(this.#receivedAt, receivedAt)
    return this.#balances.setEntitlements(list, this.#barrier())
  }

  setBase(need: NeededBase, base: BalanceBase, rung: readonly RungThreshold[]): Crossing[] {
    return this.#balances.setBase(need, base, rung)
  }

  observe(of: ItemMetric, periodFrom: number, usage: string, asOf: AsOf): Crossing[] {
    return this.#balances.observe(of, periodFrom, usage, asOf)
  }

  listen(list: readonly Listening[]): void {
    this.#heard.listen(list)
  }

  /** On a clock: what will cross, and who spoke since the last time. */
  tick(now: number): { crossings: Crossing[]; heard: HeardMeter[] } {
    return { crossings: this.#balances.forecast(now), heard: this.#heard.take() }
  }

  guard(tenant: string, now: number): { sequence: number; usages: GuardedUsage[] } {
    return { sequence: this.#sequence, usages: this.#balances.guard(tenant, now) }
  }

  balances(tenant: string): BalanceView[] {
    return this.#balances.read(tenant)
  }

  #barrier(): { epoch: number; receivedAt: number; sequence: number } {
    return { epoch: this.#epoch, receivedAt: this.#receivedAt, sequence: this.#sequence }
  }
}

const pad8 = (n: number): number => (n + 7) & ~7

/** A body as it lies in the slab, or by itself. */
const bodyOf = (bytes: Uint8Array, { at, length, own }: JudgeJob): Uint8Array => own ?? bytes.subarray(at, at + length)

/**
 * Memory of large frames, used again: as buffers of their own they cost 100 ns an event in fresh pages and in collecting them.
 * Sizes are powers of two; small frames are not worth it, and would take far more than they are.
 */
class FramePool {
  readonly #free = new Map<number, Uint8Array[]>()

  take(bytes: number): Uint8Array {
    if (bytes < limits.pooledFrameBytesMin) return Buffer.allocUnsafeSlow(bytes)
    const size = 2 ** Math.ceil(Math.log2(bytes))
    return (this.#free.get(size)?.pop() ?? Buffer.allocUnsafeSlow(size)).subarray(0, bytes)
  }

  /** Nobody reads it any more. One that did not come from here is left to the collector. */
  give(frame: Uint8Array): void {
    const size = frame.buffer.byteLength
    if (size < limits.pooledFrameBytesMin || !Number.isInteger(Math.log2(size))) return
    const free = this.#free.get(size) ?? []
    this.#free.set(size, free)
    if (free.length < limits.pooledFramesMax) free.push(new Uint8Array(frame.buffer))
  }
}

const withPlain = (judged: Judged): KernelJudged => ({ ...judged, plain: judged.received })

/** Formats that the kernel reads without tables of its own. */
const TOGETHER: readonly BodyFormat[] = ['json', 'ndjson', 'cloudevents', 'cloudevents-batch']

const isSmall = ({ format, length, own }: JudgeJob): boolean =>
  TOGETHER.includes(format) && length <= limits.smallBodyBytes && own === null

/** What crosses into the thread: the name of a Shard method and its arguments. */
export interface ShardTask {
  readonly method: Exclude<keyof Shard, 'full'>
  readonly args: readonly unknown[]
}

export type ShardThread = ReturnType<typeof openShardThread>

const ownBuffer = (bytes: Uint8Array): ArrayBuffer[] =>
  bytes.byteLength === bytes.buffer.byteLength && bytes.buffer instanceof ArrayBuffer ? [bytes.buffer] : []

export function openShardThread(own: Omit<ShardOptions, 'slabs'>) {
  const slabs = Array.from({ length: limits.slabs }, () => new SharedArrayBuffer(limits.slabBytes))
  const options: ShardOptions = { ...own, slabs }
  const pool = new Piscina({
    filename: join(workersDirectory, 'shard.js'),
    minThreads: 1,
    maxThreads: 1,
    idleTimeout: 2 ** 31 - 1,
    // Handed to the thread at once, which does them one after the other in this order: with 1 it would stand still after each task
    // until the main thread has come to its answer.
    concurrentTasksPerWorker: limits.shardTasksMax,
    // Measured for one pool of one thread: 27 µs a task instead of 48.
    atomics: 'disabled',
    maxQueue: limits.shardTasksMax,
    workerData: options,
  })

  // The loosest type once, here; every method below names its own.
  const run = async <Reply>(
    method: ShardTask['method'],
    args: readonly unknown[],
    transfer: ArrayBuffer[] = [],
  ): Promise<Reply> => {
    const reply = await pool.run({ method, args } satisfies ShardTask, { transferList: transfer })
    const refused = (reply as { refused?: unknown } | undefined)?.refused
    if (typeof refused === 'object' && refused !== null) {
      const { code, detail } = refused as { code: ErrorCode; detail: string }
      throw new ReleveError(code, detail)
    }
    return reply as Reply
  }

  return {
    setCatalog: (snapshot: CatalogSnapshot) => run<void>('setCatalog', [snapshot]),
    /** Memory that both threads see; whoever judges says which one is whose. */
    slabs: slabs.map((slab) => new Uint8Array(slab)),
    /** Bodies that are not in the slab are handed over. */
    judge: (slab: number, jobs: readonly JudgeJob[], head: JudgeHead) =>
      run<JudgedGroup[]>(
        'judge',
        [slab, jobs, head],
        jobs.flatMap(({ own }) => (own === null ? [] : ownBuffer(own))),
      ),
    /** Copies go over: the frame stays with whoever asks. */
    admit: (frame: Uint8Array, indices: Uint32Array) => run<Admitted | null>('admit', [frame, indices]),
    setCardinality: (...args: Parameters<Shard['setCardinality']>) => run<void>('setCardinality', args),
    learnSeries: (...args: Parameters<Shard['learnSeries']>) => run<void>('learnSeries', args),
    cardinalityComplete: () => run<void>('cardinalityComplete', []),
    cardinality: (tenant: string) => run<ReturnType<Shard['cardinality']>>('cardinality', [tenant]),
    beginRestore: (state: DedupeState | null) => run<void>('beginRestore', [state]),
    restoreBlock: async (block: Uint8Array) => {
      await run<void>('restoreBlock', [block], ownBuffer(block))
      while (!(await run<boolean>('restoreSlice', [])));
    },
    attachRun: (path: string) => run<boolean>('attachRun', [path]),
    open: (at: Parameters<Shard['open']>[0]) => run<ShardOpened>('open', [at]),
    /** The payloads are handed over. */
    apply: (records: readonly ApplyRecord[]) =>
      run<ApplyReply>(
        'apply',
        [records],
        [...new Set(records.flatMap((record) => ('payload' in record ? ownBuffer(record.payload) : [])))],
      ),
    forget: (kept: readonly number[]) => run<void>('forget', [kept]),
    seal: () => run<ReturnType<Shard['seal']>>('seal', []),
    /** What shared memory the pieces of a chunk lie in; those that lie in none stay with whoever has them. */
    giveBack: (pieces: readonly Uint8Array[]) =>
      run<void>('giveBack', [pieces.flatMap(({ buffer }) => (buffer instanceof SharedArrayBuffer ? [buffer] : []))]),
    setEntitlements: (list: readonly LiveEntitlement[], receivedAt: number) =>
      run<ReturnType<Shard['setEntitlements']>>('setEntitlements', [list, receivedAt]),
    setBase: (need: NeededBase, base: BalanceBase, rung: readonly RungThreshold[]) =>
      run<Crossing[]>('setBase', [need, base, rung]),
    observe: (of: ItemMetric, periodFrom: number, usage: string, asOf: AsOf) =>
      run<Crossing[]>('observe', [of, periodFrom, usage, asOf]),
    listen: (list: readonly Listening[]) => run<void>('listen', [list]),
    tick: (now: number) => run<ReturnType<Shard['tick']>>('tick', [now]),
    guard: (tenant: string, now: number) => run<ReturnType<Shard['guard']>>('guard', [tenant, now]),
    balances: (tenant: string) => run<BalanceView[]>('balances', [tenant]),
    close: () => pool.destroy(),
  }
}
