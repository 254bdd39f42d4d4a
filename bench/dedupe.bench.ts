/**
 * Dedupe: what judge() costs per event while ids go from none to a million, and then for repetitions of them.
 *
 * Goals: nanoseconds per event, memory per id, and the longest frame, which shows the rebuild of a partition. CPU time is the
 * process's, collector and compiler included; on a busy machine it says more than the wall clock.
 * Not a goal: decoding of frames, key files, generations that come and go.
 * Run: npm run build && node dist/bench/dedupe.bench.js [ids] [plain]; `plain` measures the TypeScript side.
 */
import { randomUUID } from 'node:crypto'
import { openDedupe } from '../src/dedupe/dedupe.js'
import { decodeFrame, encodeFrame, type Frame } from '../src/frame.js'
import { limits } from '../src/limits.js'

const FRAME_EVENTS = 1_000
const ids = Number(process.argv[2] ?? 1_000_000)
const metric = {
  key: 'kyc_verification',
  version: 1,
  aggregation: 'sum',
  unit: 'document',
  scale: 2,
  dims: ['region'],
  uniqueBy: null,
  archive: true,
} as const

/** 36-byte ids, 100 series and 4 origins a frame. */
function nextFrame(receivedAt: number): Frame {
  const events = Array.from({ length: FRAME_EVENTS }, (_, i) => ({
    tenant: `tenant-${i % 4}`,
    source: 'gateway-1',
    id: randomUUID(),
    metric,
    subject: `line-${i % 100}`,
    eventTime: receivedAt - i,
    value: BigInt(100 + i),
    dims: '{"region":"ci"}',
    member: '',
    kind: 'usage' as const,
  }))
  return decodeFrame(encodeFrame({ receivedAt, floorTime: 0, catalogVersion: 1 }, events, []))
}

const dedupe = openDedupe({ stream: 0, secret: new Uint8Array(16).fill(7), plain: process.argv[3] === 'plain' })
const verdicts = new Uint8Array(FRAME_EVENTS)
const tally = [0, 0, 0]

interface Took {
  readonly wallMs: number
  readonly cpuMs: number
}

function measure(frame: Frame): Took {
  const cpu = process.cpuUsage()
  const start = performance.now()
  dedupe.judge(frame, verdicts)
  const wallMs = performance.now() - start
  const { user, system } = process.cpuUsage(cpu)
  const took = { wallMs, cpuMs: (user + system) / 1_000 }
  for (const verdict of verdicts) tally[verdict]! += 1
  return took
}

function report(title: string, frames: readonly Took[]): void {
  const perEvent = (ms: number): string => ((ms * 1e6) / FRAME_EVENTS).toFixed(0)
  const mean = (of: keyof Took): string => perEvent(frames.reduce((sum, took) => sum + took[of], 0) / frames.length)
  const sorted = frames.map(({ wallMs }) => wallMs).toSorted((a, b) => a - b)
  console.log(
    `${title}: ${mean('cpuMs')} ns CPU an event, ${mean('wallMs')} by the wall (median ${perEvent(sorted[sorted.length >> 1]!)}), ` +
      `longest frame ${sorted.at(-1)!.toFixed(2)} ms`,
  )
}

let epoch = 0
const fresh: Took[] = []
// Made beforehand, so that their garbage is not collected while judge() is measured.
const frames = Array.from({ length: Math.ceil(ids / FRAME_EVENTS) }, (_, i) => nextFrame(1_000_000 + i))
for (const [i, frame] of frames.entries()) {
  fresh.push(measure(frame))
  if ((i + 1) * FRAME_EVENTS - epoch * limits.epochEventsMax >= limits.epochEventsMax) {
    epoch += 1
    dedupe.takeBlock(epoch)
    dedupe.barrier({ epoch, receivedAt: frame.receivedAt, floorTime: 0 })
  }
}
report(`new ids, 0 to ${ids}`, fresh)
report('last tenth of them', fresh.slice(-Math.ceil(fresh.length / 10)))
report('repetitions', frames.filter((_, i) => i % 10 === 0).map(measure))
const { entries, bytes } = dedupe.stats()
console.log(
  `${entries} ids, ${(bytes / entries).toFixed(1)} bytes an id; accepted, duplicate, conflict: ${tally.join(', ')}`,
)
