/**
 * Question: what does an event cost in the thread of a shard, with nothing else of the service: the door, counting, the seal? It is
 * the thread that bounds events a second where bodies are cheap to receive, so this is the bench to change the kernel by.
 *
 *     node dist/bench/shard.bench.js                              small
 *     node dist/bench/shard.bench.js large                        4 million events of each, archive off
 *     node dist/bench/shard.bench.js large 4000000 on json        so many events, archive on, one format
 *
 * Bodies of bench/producer.ts, 1,000 events, in a slab as they come from a socket; frames are kept and applied; an epoch is sealed
 * when it is full, and what it gives is dropped. CPU time around each call, that of V8's helpers with it; the caches are colder
 * in the service, where other threads use them too. Not measured: the log, the hand-over between threads, ClickHouse.
 */
import { fileURLToPath } from 'node:url'
import type { BodyFormat } from '../src/ingest/ingest.js'
import { limits } from '../src/limits.js'
import { Shard } from '../src/shard.js'
import { type BenchFormat, Bodies } from './producer.js'
import { TENANTS } from './service.js'

export interface ShardResult {
  readonly format: BenchFormat
  readonly archive: boolean
  readonly events: number
  /** Nanoseconds an event. */
  readonly judgeNs: number
  readonly applyNs: number
  readonly sealNs: number
  readonly longestApplyMs: number
  readonly rssMb: number
}

const BATCH = 1_000

const cpuMs = (): number => {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1000
}

export async function benchShard(options: {
  format: BenchFormat
  archive: boolean
  events: number
}): Promise<ShardResult> {
  const { format, archive, events } = options
  const slab = new SharedArrayBuffer(limits.slabBytes)
  const bytes = new Uint8Array(slab)
  const shard = new Shard({
    ...{ stream: 0, streams: 1, secret: new Uint8Array(16).fill(7) },
    ...{ idsMax: limits.dedupeIdsMax, diskIdsMax: 0, aheadMs: 86_400_000, lateMs: 34 * 86_400_000, slabs: [slab] },
  })
  const metric = {
    ...{ key: 'data', version: 1, unit: 'Mo', scale: 6, dims: ['region'], uniqueBy: null },
    aggregation: 'sum',
    archive,
  } as const
  shard.setCatalog({ version: 1, metrics: [metric], tenants: Array.from({ length: TENANTS }, (_, i) => `bench-${i}`) })
  const now = Date.now()
  shard.open({ epoch: 1, sequence: 0, receivedAt: now, restored: false })
  const bodies = new Bodies(BATCH, format)
  const head = { receivedAt: now, floorTime: now - 86_400_000, aheadMs: 86_400_000 }
  const time = { judge: 0, apply: 0, seal: 0, longest: 0 }
  let accepted = 0
  let sequence = 0
  const one = async (): Promise<void> => {
    const body = bodies.next()
    bytes.set(body)
    const began = cpuMs()
    const [group] = shard.judge(
      0,
      [
        {
          at: 0,
          length: body.length,
          own: null,
          format: format as BodyFormat,
          attributes: undefined,
          tenant: null,
          wait: false,
        },
      ],
      head,
    )
    const judged = cpuMs()
    sequence += 1
    const { done, counts, full } = shard.apply([{ sequence, receivedAt: now, kept: group!.parts[0]!.kept }])
    const applied = cpuMs()
    if (done !== 1) throw new Error('cannot bench: a frame was not applied')
    accepted += counts.accepted
    time.judge += judged - began
    time.apply += applied - judged
    time.longest = Math.max(time.longest, applied - judged)
    if (!full) return
    const { chunks } = shard.seal()
    time.seal += cpuMs() - applied
    shard.giveBack(
      chunks.flatMap(({ pieces }) =>
        pieces.flatMap(({ buffer }) => (buffer instanceof SharedArrayBuffer ? [buffer] : [])),
      ),
    )
    await new Promise((resolve) => setImmediate(resolve))
  }
  const warmUp = Math.min(1_000, events / BATCH)
  for (let i = 0; i < warmUp; i += 1) await one()
  Object.assign(time, { judge: 0, apply: 0, seal: 0, longest: 0 })
  const rounds = events / BATCH
  for (let i = 0; i < rounds; i += 1) await one()
  // Every 33rd body is one before again.
  const retried = Math.floor((warmUp + rounds) / 33)
  if (accepted !== (warmUp + rounds - retried) * BATCH) throw new Error(`WRONG: ${accepted} accepted`)
  const ns = (ms: number): number => Math.round((ms * 1e6) / events)
  return {
    ...{ format, archive, events, judgeNs: ns(time.judge), applyNs: ns(time.apply), sealNs: ns(time.seal) },
    longestApplyMs: Math.round(time.longest * 10) / 10,
    rssMb: Math.round(process.memoryUsage.rss() / 2 ** 20),
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const large = process.argv[2] === 'large'
  const events = large ? Number(process.argv[3] ?? 4_000_000) : 20 * BATCH
  const archive = process.argv[4] === 'on'
  for (const format of process.argv[5] === undefined
    ? (['columnar', 'json'] as const)
    : [process.argv[5] as BenchFormat]) {
    const r = await benchShard({ format, archive, events })
    process.stdout.write(
      `${r.format}  archive ${r.archive ? 'on' : 'off'}  ${r.events} events: door ${r.judgeNs}, apply ${r.applyNs}, seal ${r.sealNs} ns an event; longest apply ${r.longestApplyMs} ms; resident ${r.rssMb} MB\n`,
    )
  }
}
