/**
 * Decode: what one event costs from bytes to a frame, 1,000 events a body, against JSON.parse alone, which neither judges nor
 * encodes and loses digits. The question: may the plain TypeScript door carry a node until the kernel takes over?
 *
 * Run: node dist/bench/decode.bench.js [small]. One line for each way: median and least of the rounds.
 */
import type { CatalogSnapshot } from '../src/catalog/metric.js'
import { encodeFrame } from '../src/frame.js'
import { type BodyFormat, buildDoor, judge } from '../src/ingest/ingest.js'
import { openKernelDoor } from '../src/ingest/kernel-door.js'

const EVENTS = 1_000
/** Bodies of one round. */
const BODIES = 10
const ROUNDS = process.argv[2] === 'small' ? 3 : 50
const RECEIVED_AT = Date.UTC(2026, 2, 10, 12)

const snapshot: CatalogSnapshot = {
  version: 1,
  metrics: [
    {
      key: 'kyc_verification',
      version: 1,
      aggregation: 'sum',
      unit: 'document',
      scale: 3,
      dims: ['region'],
      uniqueBy: null,
      archive: true,
    },
  ],
  tenants: Array.from({ length: 100 }, (_, i) => `tenant-${i}`),
}

function uuid(i: number): string {
  const hex = (n: number, width: number): string => (Math.imul(n, 0x9e3779b1) >>> 0).toString(16).padStart(width, '0')
  return `${hex(i, 8)}-4b1d-4c3e-9f00-${hex(i + 7, 8)}a1b2`
}

const native: string[] = []
const clouds: string[] = []
for (let i = 0; i < EVENTS; i += 1) {
  const id = uuid(i)
  const tenant = `tenant-${i % 100}`
  const subject = `subj-${i % 500}`
  const time = new Date(RECEIVED_AT - i * 977).toISOString()
  const value = `${i % 50}.${i % 10}`
  const region = `r${i % 8}`
  native.push(
    `{"id":"${id}","tenant":"${tenant}","metric":"kyc_verification","subject":"${subject}","time":"${time}","value":"${value}","dims":{"region":"${region}"}}`,
  )
  clouds.push(
    `{"specversion":"1.0","id":"${id}","source":"/gw/1","type":"kyc_verification","subject":"${subject}","time":"${time}","tenant":"${tenant}","data":{"value":"${value}","region":"${region}"}}`,
  )
}

/** CPU time and not wall time: the machine may be shared. Helper threads of the collector are in it. */
function measure(name: string, bytes: number, run: () => unknown): void {
  for (let i = 0; i < 2 * ROUNDS; i += 1) run()
  const rounds: number[] = []
  for (let i = 0; i < ROUNDS; i += 1) {
    const before = process.cpuUsage()
    for (let j = 0; j < BODIES; j += 1) run()
    const { user, system } = process.cpuUsage(before)
    rounds.push(((user + system) * 1_000) / (BODIES * EVENTS))
  }
  rounds.sort((a, b) => a - b)
  const median = rounds[ROUNDS >> 1]!.toFixed(0).padStart(6)
  const least = rounds[0]!.toFixed(0).padStart(6)
  console.log(`${name.padEnd(30)} ${median} median ${least} least, ns/event of CPU, ${(bytes / EVENTS).toFixed(0)} B`)
}

function body(events: readonly string[]): Buffer {
  return Buffer.from(`[${events.join(',')}]`)
}

function byKernel(bytes: Uint8Array, streams: number): () => unknown {
  const kernel = openKernelDoor()
  if (kernel === null) throw new Error('cannot measure: the kernel is not built')
  const door = buildDoor(snapshot, streams)
  const request = {
    format: 'json' as const,
    tenant: null,
    receivedAt: RECEIVED_AT,
    floorTime: RECEIVED_AT - 86_400_000,
    aheadMs: 60_000,
  }
  return () => {
    const answer = kernel.judge(door, bytes, request)
    if (answer.stored !== EVENTS || answer.plain !== 0)
      throw new Error(`cannot measure: ${answer.plain} by the plain path`)
    return answer
  }
}

function judged(bytes: Uint8Array, format: BodyFormat): () => unknown {
  const door = buildDoor(snapshot, 4)
  const request = {
    format,
    tenant: null,
    receivedAt: RECEIVED_AT,
    floorTime: RECEIVED_AT - 86_400_000,
    aheadMs: 60_000,
  }
  return () => {
    const answer = judge(door, bytes, request)
    if (answer.stored !== EVENTS) throw new Error(`cannot measure: ${JSON.stringify(answer.refusals[0])}`)
    return answer
  }
}

const nativeBody = body(native)
const cloudBody = body(clouds)
measure('native, door to frame', nativeBody.length, judged(nativeBody, 'json'))
measure('native, by the kernel', nativeBody.length, byKernel(nativeBody, 4))
measure('native, by the kernel, 1 stream', nativeBody.length, byKernel(nativeBody, 1))
measure('native, JSON.parse alone', nativeBody.length, () => JSON.parse(nativeBody.toString()))
measure('CloudEvents, door to frame', cloudBody.length, judged(cloudBody, 'cloudevents-batch'))
measure('CloudEvents, JSON.parse alone', cloudBody.length, () => JSON.parse(cloudBody.toString()))
const metric = snapshot.metrics[0]!
const events = native.map((text) => {
  const event = JSON.parse(text) as { id: string; tenant: string; subject: string }
  const { id, tenant, subject } = event
  return {
    id,
    tenant,
    subject,
    source: '',
    metric,
    eventTime: 1,
    value: 1n,
    dims: '{"region":"r1"}',
    member: '',
    kind: 'usage' as const,
  }
})
const head = { receivedAt: RECEIVED_AT, floorTime: 0, catalogVersion: 1 }
measure('of which encodeFrame', nativeBody.length, () => encodeFrame(head, events, []))
