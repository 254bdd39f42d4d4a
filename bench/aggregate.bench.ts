/**
 * Aggregate: what one accepted event costs in the shard behind dedupe, stage by stage: decode the frame, aggregate, archive
 * bytes, live balances; and what the seal of an epoch costs, spread over its events. The question: which part of the plain
 * TypeScript shard must a kernel take over first?
 *
 * Frames of 1,000 events over 10,000 series (100 tenants), two minutes of event times, 36-byte ids, one dimension. An epoch is
 * 200 frames; the median of the epochs is printed, with a digest of all rows so that no work is optimised away.
 *
 * Run: node dist/bench/aggregate.bench.js [small]
 */
import { createHash } from 'node:crypto'
import { openAggregate } from '../src/aggregate/aggregate.js'
import type { Metric } from '../src/catalog/metric.js'
import type { UsageEvent } from '../src/event.js'
import { decodeFrame, encodeFrame } from '../src/frame.js'
import { openBalances } from '../src/quota/balance.js'
import { openArchive } from '../src/rollup/archive.js'
import { encodeMembers, encodeMinutes } from '../src/rollup/chunks.js'
import { openKernelEpoch } from '../src/rollup/kernel-epoch.js'

const small = process.argv[2] === 'small'
const EVENTS = 1_000
const FRAMES = small ? 5 : 200
const EPOCHS = small ? 2 : 9
const SERIES = 10_000
const RECEIVED_AT = Date.UTC(2026, 2, 10, 12)

const metric: Metric = {
  ...{ key: 'kyc_verification', version: 1, aggregation: 'sum', unit: 'document', scale: 3 },
  ...{ dims: ['region'], uniqueBy: null, archive: true },
}

let state = 1
function random(below: number): number {
  state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0
  return Math.floor((state / 2 ** 32) * below)
}

function event(): UsageEvent {
  const series = random(SERIES)
  const hex = (width: number): string =>
    random(2 ** 32)
      .toString(16)
      .padStart(8, '0')
      .slice(0, width)
  return {
    tenant: `tenant-${series % 100}`,
    source: '',
    id: `${hex(8)}-${hex(4)}-${hex(4)}-${hex(4)}-${hex(8)}${hex(4)}`,
    metric,
    subject: `subj-${series % 5_000}`,
    eventTime: RECEIVED_AT - random(90_000),
    value: BigInt(random(100_000)),
    dims: `{"region":"r${series % 8}"}`,
    member: '',
    kind: 'usage',
  }
}

const payloads = Array.from({ length: FRAMES }, () =>
  encodeFrame(
    { receivedAt: RECEIVED_AT, floorTime: 0, catalogVersion: 1 },
    Array.from({ length: EVENTS }, () => event()),
    [],
  ),
)
const verdicts = new Uint8Array(EVENTS)
const memberHash = (): Uint8Array => new Uint8Array(16)
const aggregate = openAggregate(memberHash)
const archive = openArchive(0)
const balances = openBalances({ memberHash })
const thresholds = [{ code: '80%', kind: 'percent' as const, value: '80' }]
const entitlements = Array.from({ length: 100 }, (_, i) => ({
  ...{
    item: `item-${i}`,
    contract: 'c',
    tenant: `tenant-${i}`,
    product: 'p',
    metric: metric.key,
    aggregation: metric.aggregation,
  },
  ...{ limit: '1000000000000', limitVersion: 1, thresholds, anchor: Date.UTC(2026, 0, 1), timeZone: 'UTC' },
}))
const zero = { sum: '0', count: 0, samples: 0, min: '0', max: '0', last: '0', lastTime: 0, lastPosition: 0 }
for (const need of balances.setEntitlements(entitlements, { epoch: 1, receivedAt: RECEIVED_AT, sequence: 0 }).needed) {
  balances.setBase(need, zero)
}

/** CPU and not wall time: the box is shared. Helper threads of the garbage collector count. */
function cpuNs(since: NodeJS.CpuUsage): number {
  const { user, system } = process.cpuUsage(since)
  return 1000 * (user + system)
}

const spent = new Map<string, number[]>()
function timed<T>(stage: string, epoch: number, run: () => T): T {
  const start = process.cpuUsage()
  const result = run()
  const rounds = spent.get(stage) ?? []
  spent.set(stage, rounds)
  rounds[epoch] = (rounds[epoch] ?? 0) + cpuNs(start)
  return result
}

const kernel = openKernelEpoch(0, { member: new Uint8Array(16), content: new Uint8Array(16) })
if (kernel === null) throw new Error('cannot measure: the kernel is not built')
const digest = createHash('sha256')
const kernelDigest = createHash('sha256')
let bytes = 0
for (let epoch = 0; epoch < EPOCHS; epoch += 1) {
  archive.openEpoch(epoch)
  kernel.open(epoch)
  payloads.forEach((payload, i) => {
    const frame = timed('decode frame', epoch, () => decodeFrame(payload))
    timed('aggregate', epoch, () => aggregate.apply(frame, i + 1, verdicts))
    timed('archive', epoch, () => archive.apply(frame, i + 1, verdicts))
    const bare = timed('kernel: decode frame', epoch, () => decodeFrame(payload))
    timed('kernel: aggregate, archive', epoch, () => kernel.apply(bare, i + 1, verdicts))
    timed('balances', epoch, () => balances.apply(frame, i + 1, verdicts))
  })
  const id = { stream: 0, epoch }
  const rows = aggregate.drain()
  const encoded = timed('seal: encode minutes', epoch, () => [
    ...encodeMinutes(rows.minutes, id),
    ...encodeMembers(rows.members, id),
  ])
  const archived = timed('seal: archive, digests', epoch, () => archive.drain())
  const drained = timed('kernel: seal', epoch, () => kernel.drain())
  for (const chunk of drained.chunks) kernelDigest.update(chunk.digest)
  bytes = 0
  for (const chunk of [...encoded, ...archived]) {
    digest.update(chunk.digest)
    for (const piece of chunk.pieces) bytes += piece.length
  }
}
for (const [stage, rounds] of spent) {
  const median = rounds.toSorted((a, b) => a - b)[EPOCHS >> 1]! / (FRAMES * EVENTS)
  console.log(`${stage.padEnd(28)} ${median.toFixed(0).padStart(6)} ns/event`)
}
const text = digest.digest('hex')
if (kernelDigest.digest('hex') !== text) throw new Error('BUG: the kernel made other bytes')
console.log(`${(bytes / (FRAMES * EVENTS)).toFixed(0)} B/event, digest ${text.slice(0, 16)}`)
