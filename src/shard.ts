/**
 * Shard: one stream's state in one worker thread: door, dedupe, aggregate, archive, live balances. Synchronous and pure: no
 * clock, no I/O, no current catalogue behind the door. What it does after the door is a function of the log's records and of
 * the epoch's bounds.
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
import { MemberHash, memberHash } from './dedupe/identity.js'
import { type ErrorCode, ReleveError } from './errors.js'
import { decodeFrame } from './frame.js'
import { buildDoor, type Door, type IngestRequest, judge } from './ingest/ingest.js'
import { type KernelDoor, type KernelJudged, openKernelDoor } from './ingest/kernel-door.js'
import { limits } from './limits.js'
import type { LogRecord } from './log/log.js'
import { workersDirectory } from './paths.js'
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
  readonly aheadMs: number
  readonly lateMs: number
}

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
  readonly #heard = new Heard()
  #door: Door | undefined
  /** Null when the kernel was not built: then the plain path does all. */
  readonly #kernelDoor: KernelDoor | null = openKernelDoor()
  #epoch = 0
  #counts = zeroCounts()
  #sequence = 0
  #receivedAt = 0
  /** Of the epoch's records; never falls. */
  #floorTime = Number.NEGATIVE_INFINITY

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
      aheadMs: options.aheadMs,
    })
    this.#rows =
      openKernelEpoch(options.stream, members.keyBytes) ?? new PlainEpoch(options.stream, openAggregate(hash))
    this.#balances = openBalances({ memberHash: hash, lateMs: options.lateMs, aheadMs: options.aheadMs })
  }

  setCatalog(snapshot: CatalogSnapshot): void {
    this.#door = buildDoor(snapshot, this.#options.streams, this.#door)
  }

  judge(body: Uint8Array, request: IngestRequest): KernelJudged {
    assert(this.#door !== undefined, 'a body came before the catalogue')
    if (this.#kernelDoor !== null) return this.#kernelDoor.judge(this.#door, body, request)
    const judged = judge(this.#door, body, request)
    return { ...judged, plain: judged.received }
  }

  // Opening: beginRestore, restoreBlock…, open. `state` is null for a stream without a checkpoint.

  beginRestore(state: DedupeState | null): void {
    if (state !== null) this.#dedupe.beginRestore(state)
  }

  restoreBlock(block: Uint8Array): void {
    this.#dedupe.restoreBlock(block)
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

  apply(records: readonly LogRecord[]): ApplyReply {
    const counts = zeroCounts()
    const verdicts: Uint8Array[] = []
    const crossings: Crossing[] = []
    const tenants = new Set<string>()
    let done = 0
    for (const record of records) {
      if (this.full) break
      const frame = decodeFrame(record.payload)
      const verdict = new Uint8Array(frame.events)
      this.#dedupe.judge(frame, verdict)
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
    }
    for (const name of Object.keys(counts) as (keyof Counts)[]) this.#counts[name] += counts[name]
    const guarded = [...tenants].flatMap((tenant) => this.#balances.guarded(tenant))
    return { done, counts, verdicts, crossings, guarded, full: this.full }
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
    const { chunks, overrides } = this.#rows.drain()
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
      needed,
      stats: this.#dedupe.stats(),
    }
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

  guard(tenant: string, now: number): GuardedUsage[] {
    return this.#balances.guard(tenant, now)
  }

  balances(tenant: string): BalanceView[] {
    return this.#balances.read(tenant)
  }

  #barrier(): { epoch: number; receivedAt: number; sequence: number } {
    return { epoch: this.#epoch, receivedAt: this.#receivedAt, sequence: this.#sequence }
  }
}

/** What crosses into the thread: the name of a Shard method and its arguments. */
export interface ShardTask {
  readonly method: Exclude<keyof Shard, 'full'>
  readonly args: readonly unknown[]
}

export type ShardThread = ReturnType<typeof openShardThread>

const ownBuffer = (bytes: Uint8Array): ArrayBuffer[] =>
  bytes.byteLength === bytes.buffer.byteLength && bytes.buffer instanceof ArrayBuffer ? [bytes.buffer] : []

export function openShardThread(options: ShardOptions) {
  const pool = new Piscina({
    filename: join(workersDirectory, 'shard.js'),
    minThreads: 1,
    maxThreads: 1,
    idleTimeout: 2 ** 31 - 1,
    concurrentTasksPerWorker: 1,
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
    /** The body is handed over: its buffer is empty afterwards when it fills one. */
    judge: (body: Uint8Array, request: IngestRequest) => run<KernelJudged>('judge', [body, request], ownBuffer(body)),
    beginRestore: (state: DedupeState | null) => run<void>('beginRestore', [state]),
    restoreBlock: (block: Uint8Array) => run<void>('restoreBlock', [block], ownBuffer(block)),
    open: (at: Parameters<Shard['open']>[0]) => run<ShardOpened>('open', [at]),
    /** The payloads are handed over. */
    apply: (records: readonly LogRecord[]) =>
      run<ApplyReply>('apply', [records], [...new Set(records.flatMap((r) => ownBuffer(r.payload)))]),
    seal: () => run<ReturnType<Shard['seal']>>('seal', []),
    setEntitlements: (list: readonly LiveEntitlement[], receivedAt: number) =>
      run<ReturnType<Shard['setEntitlements']>>('setEntitlements', [list, receivedAt]),
    setBase: (need: NeededBase, base: BalanceBase, rung: readonly RungThreshold[]) =>
      run<Crossing[]>('setBase', [need, base, rung]),
    observe: (of: ItemMetric, periodFrom: number, usage: string, asOf: AsOf) =>
      run<Crossing[]>('observe', [of, periodFrom, usage, asOf]),
    listen: (list: readonly Listening[]) => run<void>('listen', [list]),
    tick: (now: number) => run<ReturnType<Shard['tick']>>('tick', [now]),
    guard: (tenant: string, now: number) => run<GuardedUsage[]>('guard', [tenant, now]),
    balances: (tenant: string) => run<BalanceView[]>('balances', [tenant]),
    close: () => pool.destroy(),
  }
}
