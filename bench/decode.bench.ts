/**
 * Decode: what one event costs from bytes to a frame, in each format, 1,000 events a body, by the kernel and by the plain path,
 * against JSON.parse alone, which neither judges nor encodes and loses digits; and what it costs its sender to write it. The
 * question: what does a format leave for everything else, on both sides?
 *
 * Run: node dist/bench/decode.bench.js [small]. One line for each way: median and least of the rounds. The ways take turns within
 * each round, so that whatever else the machine does falls on all of them.
 */
import { Packr } from 'msgpackr'
import type { CatalogSnapshot } from '../src/catalog/metric.js'
import { BatchEncoder } from '../src/client/encoder.js'
import type { ClientEvent } from '../src/client/event.js'
import { encodeFrame } from '../src/frame.js'
import { type BodyFormat, buildDoor, judge } from '../src/ingest/ingest.js'
import { openKernelDoor } from '../src/ingest/kernel-door.js'

const EVENTS = 1_000
/** Bodies of one round. */
const BODIES = 10
const ROUNDS = process.argv[2] === 'small' ? 3 : 40
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

interface Way {
  readonly name: string
  readonly bytes: number
  readonly run: () => unknown
  readonly rounds: number[]
}

const ways: Way[] = []
const add = (name: string, bytes: number, run: () => unknown): void => void ways.push({ name, bytes, run, rounds: [] })

/** CPU time and not wall time: the machine may be shared. Helper threads of the collector are in it. */
function measure(): void {
  for (const { run } of ways) for (let i = 0; i < 2 * ROUNDS; i += 1) run()
  for (let round = 0; round < ROUNDS; round += 1) {
    for (const { run, rounds } of ways) {
      const before = process.cpuUsage()
      for (let j = 0; j < BODIES; j += 1) run()
      const { user, system } = process.cpuUsage(before)
      rounds.push(((user + system) * 1_000) / (BODIES * EVENTS))
    }
  }
  for (const { name, bytes, rounds } of ways) {
    rounds.sort((a, b) => a - b)
    const median = rounds[ROUNDS >> 1]!.toFixed(0).padStart(6)
    const least = rounds[0]!.toFixed(0).padStart(6)
    console.log(`${name.padEnd(38)} ${median} median ${least} least, ns/event of CPU, ${(bytes / EVENTS).toFixed(0)} B`)
  }
  const medianOf = (wanted: string): number => ways.find(({ name }) => name === wanted)!.rounds[ROUNDS >> 1]!
  const ratio = (slow: string, fast: string): string =>
    `${fast}: ${(medianOf(slow) / medianOf(fast)).toFixed(1)} × as fast as ${slow}`
  console.log(ratio('to write JSON.stringify', 'to write columnar'))
  console.log(ratio('native JSON, JSON.parse alone', 'native JSON, by the kernel'))
  console.log(ratio('native JSON, JSON.parse alone', 'columnar, 1,000 rows, by the kernel'))
}

function body(events: readonly string[]): Buffer {
  return Buffer.from(`[${events.join(',')}]`)
}

function byKernel(bytes: Uint8Array, streams: number, format: BodyFormat = 'json'): () => unknown {
  const kernel = openKernelDoor()
  if (kernel === null) throw new Error('cannot measure: the kernel is not built')
  const door = buildDoor(snapshot, streams)
  const request = {
    format,
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
const lineBody = Buffer.from(native.join('\n'))
const objects = native.map((text) => JSON.parse(text) as ClientEvent)
const maps = new Packr({ useRecords: false })
const records = new Packr()
const mapBody = maps.pack(objects)
const recordBody = records.pack(objects)
const encoder = new BatchEncoder(EVENTS)
const encode = (): Uint8Array => {
  for (const event of objects) encoder.add(event)
  return encoder.take()
}
const columnarBody = encode()
/** A fifth of the rows: what a gateway with some hundred customers sends. */
for (const [i, event] of objects.entries()) encoder.add({ ...event, subject: `subj-${i % 100}` })
const fewBody = encoder.take()
const kernelBodies: [string, Uint8Array, BodyFormat][] = [
  ['native JSON', nativeBody, 'json'],
  ['NDJSON', lineBody, 'ndjson'],
  ['CloudEvents', cloudBody, 'cloudevents-batch'],
  ['msgpack maps', mapBody, 'msgpack'],
  ['msgpack records', recordBody, 'msgpack'],
  ['columnar, 1,000 rows', columnarBody, 'columnar'],
  ['columnar, 200 rows', fewBody, 'columnar'],
]
for (const [name, bytes, format] of kernelBodies)
  add(`${name}, by the kernel`, bytes.length, byKernel(bytes, 1, format))
add('native JSON, kernel, 4 streams', nativeBody.length, byKernel(nativeBody, 4))
add('columnar, kernel, 4 streams', columnarBody.length, byKernel(columnarBody, 4, 'columnar'))
add('native JSON, JSON.parse alone', nativeBody.length, () => JSON.parse(nativeBody.toString()))
add('CloudEvents, JSON.parse alone', cloudBody.length, () => JSON.parse(cloudBody.toString()))
add('msgpack records, msgpackr alone', recordBody.length, () => records.unpack(recordBody))
for (const [name, bytes, format] of kernelBodies) add(`${name}, plain path`, bytes.length, judged(bytes, format))
add('to write columnar', columnarBody.length, encode)
add('to write JSON.stringify', nativeBody.length, () => Buffer.from(JSON.stringify(objects)))
add('to write msgpackr records', recordBody.length, () => records.pack(objects))
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
add('plain path, of which encodeFrame', nativeBody.length, () => encodeFrame(head, events, []))
measure()
