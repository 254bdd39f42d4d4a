/**
 * Load for a bench: bodies of events made ahead, of which only the ids are written anew, so that the producer costs little; and two
 * ways of sending them over HTTP: autocannon, and plain sockets for what autocannon would bound. What was sent is counted for the
 * oracle: events, and the sum that must come out.
 *
 * Events of about 180 bytes as JSON, 36-byte ids, 10,000 series with a skew, 3 % of the batches sent twice.
 */
import { connect, type Socket } from 'node:net'
import autocannon from 'autocannon'
import { Packr } from 'msgpackr'
import { BatchEncoder } from '../src/client/encoder.js'
import type { ClientEvent } from '../src/client/event.js'
import { COLUMNAR_TYPE } from '../src/columnar.js'
import { TENANTS } from './service.js'

export interface Sent {
  readonly events: number
  /** What the sum over all tenants must be. */
  readonly sum: number
  readonly seconds: number
  readonly p50Ms: number
  readonly p99Ms: number
  readonly p999Ms: number
}

interface Body {
  readonly bytes: Buffer
  /** Where the twelve characters of each id that change begin. */
  readonly ids: readonly number[]
  readonly sum: number
  /** Of all its events, when the shape says so. */
  readonly tenant: string
}

/** More than there are connections with large bodies, so that none of those is in flight twice. */
const BODIES = 64
/** Every 33rd batch is the one before again: 3 %. */
const RETRIED = 33

export type BenchFormat = 'json' | 'msgpack' | 'columnar'

export const CONTENT_TYPE: Readonly<Record<BenchFormat, string>> = {
  json: 'application/json',
  msgpack: 'application/msgpack',
  columnar: COLUMNAR_TYPE,
}

function encode(events: readonly ClientEvent[], format: BenchFormat): Buffer {
  if (format === 'json') return Buffer.from(JSON.stringify(events))
  if (format === 'msgpack') return Buffer.from(new Packr({ useRecords: true }).pack(events))
  const encoder = new BatchEncoder(events.length)
  for (const event of events) encoder.add(event)
  return Buffer.from(encoder.take())
}

/** What the events are of. */
export interface Shape {
  /** @default 'data' */
  readonly metric?: string
  /** @default TENANTS */
  readonly tenants?: number
  /** Each body speaks for one tenant, by turns; else for all. */
  readonly isTenantOnly?: boolean
  /** As many, each as often as the others. @default 10,000 with a skew */
  readonly series?: number
  /** Tells apart the ids of those that send to one service. @default 0 */
  readonly run?: number
}

const tenantOf = (n: number): string => `bench-${n}`

function makeBody(batch: number, seed: number, format: BenchFormat, shape: Shape): Body {
  const { metric = 'data', tenants = TENANTS, isTenantOnly = false, run = 0 } = shape
  const events: ClientEvent[] = []
  const idHead = `${(0x5f0c3f6e + run).toString(16)}-8d1b-4a57-9a3e-`
  let sum = 0
  const now = Date.now()
  for (let i = 0; i < batch; i += 1) {
    const r = (seed * 7919 + i * 104_729) % 100_000
    // A square spreads the series unevenly: a tenth of them gets a third of the events.
    const any = shape.series === undefined ? Math.floor((r * r) / 1_000_000) : ((seed - 1) * batch + i) % shape.series
    // A series is of one tenant, whoever the body speaks for.
    const series = isTenantOnly ? any - (any % tenants) + ((seed - 1) % tenants) : any
    const value = (r % 997) + 1
    sum += value
    events.push({
      id: `${idHead}00000000${i.toString(16).padStart(4, '0')}`,
      tenant: tenantOf(series % tenants),
      metric,
      subject: `dev-${series}`,
      time: now - (r % 600_000),
      value: String(value),
      dims: { region: 'eu-west' },
    })
  }
  const bytes = encode(events, format)
  const ids: number[] = []
  for (let at = bytes.indexOf(idHead); at >= 0; at = bytes.indexOf(idHead, at + 36)) ids.push(at + idHead.length)
  if (ids.length !== batch) throw new Error(`cannot bench: ${ids.length} ids in a body of ${batch}`)
  return { bytes, ids, sum, tenant: tenantOf((seed - 1) % tenants) }
}

/** Bodies one after the other, each with ids of its own but for the retries. */
export class Bodies {
  readonly #bodies: readonly Body[]
  readonly #batch: number
  readonly #digits = Buffer.alloc(8)
  #made = 0
  events = 0
  sum = 0
  /** Of the body that was made last. */
  tenant = ''

  constructor(batch: number, format: BenchFormat = 'json', shape: Shape = {}) {
    this.#batch = batch
    // So many that every series has its place in one of them.
    const count = Math.max(BODIES, Math.ceil((shape.series ?? 0) / batch))
    this.#bodies = Array.from({ length: count }, (_, i) => makeBody(batch, i + 1, format, shape))
  }

  next(): Buffer {
    const count = this.#bodies.length
    const body = this.#bodies[this.#made % count]!
    this.events += this.#batch
    if (this.#made % RETRIED === RETRIED - 1) {
      const before = this.#bodies[(this.#made - 1) % count]!
      this.tenant = before.tenant
      this.#made += 1
      return before.bytes
    }
    this.tenant = body.tenant
    // Eight digits of the batch; the four behind them are the event's place.
    this.#digits.write(this.#made.toString(16).padStart(8, '0'), 'latin1')
    const { bytes } = body
    const [low, high] = [this.#digits.readUInt32LE(0), this.#digits.readUInt32LE(4)]
    for (const at of body.ids) {
      bytes.writeUInt32LE(low, at)
      bytes.writeUInt32LE(high, at + 4)
    }
    this.#made += 1
    this.sum += body.sum
    return bytes
  }
}

export interface Load {
  readonly url: string
  readonly key: string
  readonly batch: number
  readonly requests: number
  readonly connections: number
  /** @default 'json' */
  readonly format?: BenchFormat
  /** Goes on behind what these have made; events and sum of the answer are then theirs, from their beginning. */
  readonly bodies?: Bodies
}

/**
 * With autocannon, which is what others measure with. It looks once a second whether it is done, so the end is taken from the last
 * answer: two million events in 2.1 seconds were three seconds by its own account.
 */
export async function sendByAutocannon(load: Load): Promise<Sent> {
  const bodies = load.bodies ?? new Bodies(load.batch, load.format ?? 'json')
  const waits = new Float64Array(load.requests)
  let doneCount = 0
  const began = performance.now()
  await new Promise<void>((resolve, reject) => {
    const instance = autocannon(
      {
        url: `${load.url}/v1/events`,
        method: 'POST',
        headers: { authorization: `Bearer ${load.key}`, 'content-type': CONTENT_TYPE[load.format ?? 'json'] },
        connections: load.connections,
        amount: load.requests,
        requests: [{ setupRequest: (request) => ({ ...request, body: bodies.next() }) }],
      },
      (error) => {
        if (error || doneCount < load.requests) reject(error ?? new Error(`cannot bench: ${doneCount} answers`))
      },
    )
    instance.on('reqError', reject)
    instance.on('response', (_, status, _bytes, ms) => {
      if (status < 200 || status > 299) reject(new Error(`cannot bench: an answer is ${status}`))
      waits[doneCount] = ms
      doneCount += 1
      if (doneCount === load.requests) resolve()
    })
  })
  return { events: bodies.events, sum: bodies.sum, seconds: (performance.now() - began) / 1000, ...latenciesOf(waits) }
}

function latenciesOf(waits: Float64Array): Pick<Sent, 'p50Ms' | 'p99Ms' | 'p999Ms'> {
  waits.sort()
  const at = (q: number): number => Math.round(waits[Math.floor((waits.length - 1) * q)]! * 100) / 100
  return { p50Ms: at(0.5), p99Ms: at(0.99), p999Ms: at(0.999) }
}

/**
 * With plain sockets: one request after the other on each, the answer read as far as its status and length. `perSecond` holds the
 * rate of requests down; latency is then counted from when a request was due.
 */
export async function sendBySockets(load: Load & { readonly perSecond?: number }): Promise<Sent> {
  const bodies = load.bodies ?? new Bodies(load.batch, load.format ?? 'json')
  const { hostname, port, host } = new URL(load.url)
  const head = `POST /v1/events HTTP/1.1\r\nhost: ${host}\r\nauthorization: Bearer ${load.key}\r\ncontent-type: ${CONTENT_TYPE[load.format ?? 'json']}\r\n`
  const waits = new Float64Array(load.requests)
  let begunCount = 0
  let doneCount = 0
  const began = performance.now()
  const gap = load.perSecond === undefined ? 0 : 1000 / load.perSecond
  await new Promise<void>((resolve, reject) => {
    const sockets: Socket[] = []
    const fail = (error: Error): void => {
      for (const socket of sockets) socket.destroy()
      reject(error)
    }
    for (let i = 0; i < load.connections; i += 1) {
      const socket = connect(Number(port), hostname)
      sockets.push(socket)
      socket.setNoDelay(true)
      let sentAt = 0
      let text = ''
      let isEnded = false
      const send = (): void => {
        if (begunCount === load.requests) {
          isEnded = true
          socket.end()
          return
        }
        const due = began + begunCount * gap
        begunCount += 1
        const write = (): void => {
          sentAt = gap === 0 ? performance.now() : due
          const body = bodies.next()
          socket.cork()
          socket.write(`${head}content-length: ${body.length}\r\n\r\n`, 'latin1')
          socket.write(body)
          socket.uncork()
        }
        const early = due - performance.now()
        if (gap > 0 && early > 0.5) setTimeout(write, early)
        else write()
      }
      socket.on('connect', send)
      socket.on('error', fail)
      socket.on('close', () => {
        if (!isEnded) fail(new Error('cannot bench: the service has closed a connection'))
      })
      socket.on('data', (part: Buffer) => {
        text += part.toString('latin1')
        const end = text.indexOf('\r\n\r\n')
        if (end < 0) return
        const length = Number(/content-length: (\d+)/i.exec(text)?.[1] ?? 0)
        if (text.length < end + 4 + length) return
        if (!text.startsWith('HTTP/1.1 2')) {
          fail(new Error(`cannot bench: ${text.slice(0, 500)}`))
          return
        }
        text = ''
        waits[doneCount] = performance.now() - sentAt
        doneCount += 1
        if (doneCount === load.requests) resolve()
        send()
      })
    }
  })
  const seconds = (performance.now() - began) / 1000
  return { events: bodies.events, sum: bodies.sum, seconds, ...latenciesOf(waits) }
}
