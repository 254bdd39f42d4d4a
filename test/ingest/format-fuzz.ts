/**
 * Fuzz of the kernel's other scanners against the plain path: NDJSON, CloudEvents (one, a batch), msgpack (maps, records, every
 * width of every number), the columnar frame. Whole and broken bodies must give the same answer, or the same error, from both.
 * Everything follows from one seed, which a failure names together with the body.
 *
 * Run by format-fuzz.test.ts with few events, or: node dist/test/ingest/format-fuzz.js FORMAT EVENTS [SEED]
 */
import { pathToFileURL } from 'node:url'
import { BatchEncoder } from '../../src/client/encoder.js'
import { type ClientEvent, EventError } from '../../src/client/event.js'
import { COLUMNAR_HEADER_BYTES } from '../../src/columnar.js'
import type { BodyFormat } from '../../src/ingest/ingest.js'
import { FLOOR_TIME, RECEIVED_AT } from './door.js'
import {
  bare,
  bareNumbers,
  blank,
  compare,
  fuzzEvent,
  fuzzSnapshot,
  member,
  mutate,
  name,
  numbers,
  odd,
  openPair,
  pick,
  type Random,
  random,
  shuffle,
  soundEvent,
  times,
} from './kernel-fuzz.js'

/** Of the body in hand: nothing is wrong with its events, so that long bodies are stored as a whole. */
let calm = false
const isRare = (next: Random): boolean => next(60) === 0 && !calm
const plainText = (next: Random, max: number): string =>
  `${pick(next, ['n', 'é', 'a-longer-text-of-more-than-32-bytes-'])}${next(max)}`

/** A text as a value of JavaScript; what is half of a surrogate pair or no JSON is kept as it is written. */
function textOf(next: Random, max: number): string {
  const text = calm ? plainText(next, max) : name(next, max)
  if (!text.includes('\\')) return text
  try {
    return JSON.parse(`"${text}"`) as string
  } catch {
    return text
  }
}

type Value = string | number | bigint | boolean | null | undefined | Date | { [name: string]: Value }

const oddNumbers = [
  ...[0, -0, 1, -1, 127, 128, -32, -33, 255, 256, 65_535, 65_536, 2 ** 31, 2 ** 32, 2 ** 53 - 1, 2 ** 53, -(2 ** 53)],
  ...[0.1, 0.001, 0.0001, 1.005, 12.5, 1e-7, 1e-9, 1e-10, 1e15, 1e21, 123456.789, 99999999999999.9, 999999999999999.9],
  ...[
    Number.NaN,
    Number.POSITIVE_INFINITY,
    Number.MIN_VALUE,
    Number.MAX_VALUE,
    4503599627370495.5,
    0.30000000000000004,
  ],
]
const oddBigints = [
  2n ** 63n - 1n,
  -(2n ** 63n),
  2n ** 63n,
  2n ** 64n - 1n,
  10n ** 18n,
  10n ** 18n + 1n,
  10n ** 15n,
  64n,
]

/** An event as members; mostly sound. */
function valuesOf(next: Random): [name: string, value: Value][] {
  const metric = fuzzSnapshot.metrics[next(!calm && next(3) === 0 ? fuzzSnapshot.metrics.length : 7)]!
  const rare = (): boolean => isRare(next)
  const members: [string, Value][] = [
    ['id', rare() ? pick<Value>(next, [1, null, '']) : textOf(next, 1_000_000)],
    ['metric', rare() ? textOf(next, 3) : metric.key],
  ]
  if (calm || next(20) > 0)
    members.push([
      'tenant',
      rare() ? textOf(next, 3) : pick(next, calm ? fuzzSnapshot.tenants.slice(0, 4) : fuzzSnapshot.tenants),
    ])
  if (next(3) === 0) members.push(['source', textOf(next, 3)])
  if (calm || next(3) > 0) members.push(['subject', textOf(next, 20)])
  const millis = FLOOR_TIME + next(RECEIVED_AT - FLOOR_TIME)
  if (next(4) > 0) {
    const time = pick<Value>(next, [millis, millis, new Date(millis), new Date(millis).toISOString()])
    members.push(['time', rare() ? pick<Value>(next, [...times, ...oddNumbers, ...oddBigints, null]) : time])
  }
  if (next(4) > 0) {
    const usual = (next(2) === 0 ? -1 : 1) * (calm ? 1_000 * next(1_000) : next(1_000_000))
    const value = pick<Value>(next, [usual, usual / 100, usual / 1_000, String(usual / 100), BigInt(usual)])
    members.push([
      'value',
      next(12) === 0 && !calm ? pick<Value>(next, [...numbers, ...oddNumbers, ...oddBigints, true]) : value,
    ])
  }
  const names = [
    ...metric.dims,
    ...(metric.uniqueBy !== null && metric.uniqueBy !== 'subject' ? [metric.uniqueBy] : []),
  ]
  if (names.length > 0 && (calm || next(5) > 0)) {
    const dims: { [name: string]: Value } = {}
    for (const dim of shuffle(next, names)) {
      if (next(8) === 0 && (!calm || dim !== metric.uniqueBy)) continue
      dims[dim] =
        next(25) === 0 && !calm ? pick<Value>(next, [true, 5, 1.5, null, undefined, { a: 1 }, '']) : textOf(next, 8)
    }
    if (rare()) dims[textOf(next, 2)] = 'r'
    members.push(['dims', dims])
  }
  if (next(8) === 0) members.push(['kind', rare() ? 'other' : pick(next, calm ? ['usage'] : ['void', 'usage', 'void'])])
  if (rare()) members.push([pick(next, ['vlaue', 'id', 'dims', 'x']), 'x'])
  if (next(15) === 0) members.push([pick(next, ['source', 'subject', 'y']), undefined])
  return shuffle(next, members)
}

/** Writes msgpack, each length and number in one of the forms that it may have. */
class Packer {
  readonly #parts: Buffer[] = []
  readonly #next: Random
  /** Names by the number of a record. */
  readonly #records = new Map<number, string>()

  constructor(next: Random) {
    this.#next = next
  }

  finish(): Buffer {
    return Buffer.concat(this.#parts)
  }

  head(
    short: number,
    shortMax: number,
    wide: readonly (readonly [marker: number, width: number])[],
    count: number,
  ): void {
    const fits = wide.filter(([, width]) => count < 2 ** (8 * width))
    if (count <= shortMax && this.#next(8) > 0) this.#parts.push(Buffer.of(short | count))
    else {
      const [marker, width] = this.#next(4) > 0 ? fits[0]! : pick(this.#next, fits)
      const bytes = Buffer.alloc(1 + width)
      bytes[0] = marker
      bytes.writeUIntBE(count, 1, width)
      this.#parts.push(bytes)
    }
  }

  array(count: number): void {
    this.head(
      0x90,
      15,
      [
        [0xdc, 2],
        [0xdd, 4],
      ],
      count,
    )
  }

  text(value: string): void {
    const bytes = Buffer.from(value)
    this.head(
      0xa0,
      31,
      [
        [0xd9, 1],
        [0xda, 2],
        [0xdb, 4],
      ],
      bytes.length,
    )
    this.#parts.push(bytes)
  }

  #integer(value: bigint): void {
    const forms: Buffer[] = []
    const form = (marker: number, width: number, min: bigint, max: bigint): void => {
      if (value < min || value > max) return
      const bytes = Buffer.alloc(1 + width)
      bytes[0] = marker
      const bits = BigInt.asUintN(8 * width, value)
      for (let i = 0; i < width; i += 1) bytes[width - i] = Number((bits >> BigInt(8 * i)) & 0xffn)
      forms.push(bytes)
    }
    if (value >= 0n && value < 128n) forms.push(Buffer.of(Number(value)))
    if (value < 0n && value >= -32n) forms.push(Buffer.of(256 + Number(value)))
    for (const [i, width] of [1, 2, 4, 8].entries()) {
      form(0xcc + i, width, 0n, 2n ** BigInt(8 * width) - 1n)
      form(0xd0 + i, width, -(2n ** BigInt(8 * width - 1)), 2n ** BigInt(8 * width - 1) - 1n)
    }
    this.#parts.push(forms.length === 0 ? Buffer.of(0xc0) : pick(this.#next, forms))
  }

  value(value: Value): void {
    const next = this.#next
    if (value === undefined) this.#parts.push(Buffer.from('d40000', 'hex'))
    else if (value === null) this.#parts.push(Buffer.of(0xc0))
    else if (typeof value === 'boolean') this.#parts.push(Buffer.of(value ? 0xc3 : 0xc2))
    else if (typeof value === 'string') {
      if (!calm && next(300) === 0) this.#parts.push(Buffer.from('c40161', 'hex'))
      else this.text(value)
    } else if (typeof value === 'bigint') this.#integer(value)
    else if (typeof value === 'number') {
      if (Number.isSafeInteger(value) && next(3) > 0) this.#integer(BigInt(value))
      else {
        const bytes = Buffer.alloc(next(8) === 0 ? 5 : 9)
        bytes[0] = bytes.length === 5 ? 0xca : 0xcb
        if (bytes.length === 5) bytes.writeFloatBE(Math.fround(value) || 0, 1)
        else bytes.writeDoubleBE(value, 1)
        this.#parts.push(bytes)
      }
    } else if (value instanceof Date) this.#timestamp(value)
    else this.members(Object.entries(value))
  }

  #timestamp(value: Date): void {
    const seconds = Math.floor(value.getTime() / 1_000)
    const nanoseconds = (value.getTime() - 1_000 * seconds) * 1_000_000 + this.#next(1_000_000)
    const kind = this.#next(8)
    if (kind === 0) {
      const bytes = Buffer.from('c70cff000000000000000000000000', 'hex')
      bytes.writeUInt32BE(nanoseconds, 3)
      bytes.writeBigInt64BE(BigInt(seconds), 7)
      this.#parts.push(bytes)
    } else if (kind < 3) {
      const bytes = Buffer.from('d6ff00000000', 'hex')
      bytes.writeUInt32BE(seconds, 2)
      this.#parts.push(bytes)
    } else {
      const bytes = Buffer.from('d7ff0000000000000000', 'hex')
      const odd = isRare(this.#next) ? 1_000_000_000 : nanoseconds
      bytes.writeBigUInt64BE((BigInt(odd) << 34n) | BigInt(seconds), 2)
      this.#parts.push(bytes)
    }
  }

  members(members: readonly (readonly [name: string, value: Value])[]): void {
    const next = this.#next
    if (next(2) === 0) {
      this.head(
        0x80,
        15,
        [
          [0xde, 2],
          [0xdf, 4],
        ],
        members.length,
      )
      for (const [key, value] of members) {
        if (!calm && next(2_000) === 0) this.#integer(5n)
        else this.text(key)
        this.value(value)
      }
      return
    }
    const names = members.map(([key]) => key)
    const shape = JSON.stringify(names)
    let number = [...this.#records].find(([, known]) => known === shape)?.[0]
    if (number === undefined || next(40) === 0) {
      number = !calm && next(200) === 0 ? next(256) : 64 + next(64)
      this.#records.set(number, shape)
      this.#parts.push(Buffer.of(0xd4, 0x72, number))
      this.array(names.length)
      for (const key of names) this.text(key)
    } else this.#parts.push(Buffer.of(number))
    for (const [, value] of members) this.value(value)
  }
}

function msgpackBody(next: Random, events: number): Buffer {
  const packer = new Packer(next)
  const asOne = next(4) > 0
  if (asOne) packer.array(!calm && next(300) === 0 ? events + 1 : events)
  for (let i = 0; i < events; i += 1) {
    if (!asOne && next(10) === 0) packer.array(next(2))
    if (!calm && next(300) === 0) packer.value(pick<Value>(next, [1, null, 'x', { a: { b: {} } }, 65]))
    else packer.members(valuesOf(next))
  }
  return packer.finish()
}

function columnarBody(next: Random, events: number): Buffer {
  const encoder = new BatchEncoder(Math.max(1, events))
  for (let i = 0; i < events; i += 1) {
    try {
      encoder.add(Object.fromEntries(valuesOf(next)) as unknown as ClientEvent)
    } catch (error) {
      if (!(error instanceof EventError)) throw error
    }
  }
  const body = Buffer.from(encoder.take())
  if (!calm && next(3) === 0) {
    // A number somewhere becomes another one that may be right; the length stays, so that more than the header is looked at.
    for (let i = 0, n = 1 + next(4); i < n; i += 1) {
      const at = next(6) === 0 ? 4 * next(COLUMNAR_HEADER_BYTES / 4) : 4 * next(body.length >> 2)
      body.writeUInt32LE(pick(next, [0, 1, next(8), next(1 << 16), 0xffff_ffff, body.readUInt32LE(at) + 1]) >>> 0, at)
    }
  }
  if (!calm && next(4) === 0) {
    // Bytes of ids and texts, kinds and decimals.
    const from = Math.floor(body.length / 2)
    for (let i = 0, n = 1 + next(4); i < n; i += 1) body[from + next(body.length - from)] = next(256)
  }
  return body
}

function cloudEvent(next: Random): string {
  const metric = calm ? fuzzSnapshot.metrics[next(7)]! : pick(next, fuzzSnapshot.metrics)
  const text = (max: number): string => (calm ? plainText(next, max) : name(next, max))
  const quoted = (value: string): string => `"${value}"`
  const rare = (): boolean => isRare(next)
  const members = [
    member(next, 'specversion', rare() ? pick(next, ['"0.3"', 'null', '1.0', '""']) : '"1.0"'),
    member(next, 'id', quoted(text(1_000_000))),
    member(next, 'source', rare() ? 'null' : quoted(text(5))),
    member(next, 'type', rare() ? quoted(text(3)) : quoted(metric.key)),
    member(
      next,
      'tenant',
      quoted(rare() ? name(next, 3) : pick(next, calm ? fuzzSnapshot.tenants.slice(0, 4) : fuzzSnapshot.tenants)),
    ),
  ]
  if (next(3) > 0) members.push(member(next, 'subject', rare() ? 'null' : quoted(text(20))))
  if (next(3) > 0) {
    const time = new Date(FLOOR_TIME + next(RECEIVED_AT - FLOOR_TIME)).toISOString()
    members.push(
      member(
        next,
        'time',
        rare() ? pick(next, ['1', 'null', '[]']) : quoted(next(15) === 0 && !calm ? pick(next, times) : time),
      ),
    )
  }
  if (next(4) === 0) {
    const types = [
      'application/json',
      'application/json',
      'application/json; charset=utf-8',
      'text/plain',
      'Application/JSON',
      'x',
    ]
    members.push(member(next, 'datacontenttype', quoted(calm ? types[0]! : pick(next, types))))
  }
  if (next(8) === 0) members.push(member(next, 'dataschema', rare() ? '""' : quoted('https://example.com/s')))
  if (next(80) === 0) members.push(member(next, 'data_base64', pick(next, ['null', '"aGk="'])))
  if (next(8) === 0)
    members.push(
      member(next, 'kind', rare() ? quoted('other') : quoted(pick(next, calm ? ['usage'] : ['void', 'usage']))),
    )
  for (let i = !calm && next(6) === 0 ? next(12) : 0; i > 0; i -= 1) {
    const key = pick(next, ['traceparent', 'a1', 'b', `e${next(9)}`, next(20) === 0 ? 'Wrong' : 'c'])
    members.push(
      member(
        next,
        key,
        pick(next, [
          '"x"',
          '5',
          '-7',
          'true',
          'false',
          '""',
          next(20) === 0 ? '1.5' : '0',
          next(30) === 0 ? '[1]' : 'null',
        ]),
      ),
    )
  }
  if (calm || next(6) > 0) {
    const names = [
      ...metric.dims,
      ...(metric.uniqueBy !== null && metric.uniqueBy !== 'subject' ? [metric.uniqueBy] : []),
    ]
    const data = shuffle(next, [...new Set(names)])
      .filter((dim) => next(6) > 0 || (calm && dim === metric.uniqueBy))
      .map((dim) => {
        const value =
          next(20) === 0 && !calm ? bare(next, ['true', 'null', '5', '1.5e3', '{"a":1}', '[]']) : quoted(text(8))
        return member(next, JSON.stringify(dim).slice(1, -1), value)
      })
    if (next(3) > 0) {
      const value = next(10) === 0 && !calm ? pick(next, numbers) : `${next(1_000)}${calm ? '' : `.${next(100)}`}`
      data.push(
        member(
          next,
          'value',
          next(2) === 0 ? quoted(value) : next(12) === 0 ? bare(next, bareNumbers) : `${next(1_000)}`,
        ),
      )
    }
    for (let i = !calm && next(4) === 0 ? next(5) : 0; i > 0; i -= 1) {
      const value = pick(next, [
        '"x"',
        '1',
        'true',
        next(10) === 0 ? 'null' : '2',
        next(10) === 0 ? '{"deep":[1]}' : '""',
      ])
      data.push(member(next, next(20) === 0 ? pick(next, odd) : `other${next(6)}`, value))
    }
    members.push(
      member(
        next,
        'data',
        rare() ? pick(next, ['null', '"x"', '5']) : `{${blank(next)}${shuffle(next, data).join(',')}}`,
      ),
    )
  }
  return `${blank(next)}{${blank(next)}${shuffle(next, members).join(',')}}${blank(next)}`
}

function lines(next: Random, events: number): Buffer {
  const end = pick(next, ['\n', '\n', '\r\n'])
  const list = Array.from({ length: events }, () => {
    const kind = next(calm ? 60 : 100)
    if (!calm && kind === 0) return pick(next, ['1', 'null', '[]', '{}', '{"id":', '}', '{} {}', '\u0000', '\f'])
    const line = kind < 60 ? soundEvent(next) : fuzzEvent(next)
    return kind > 97 ? `${line}${pick(next, ['x', ',', ' {}', '\t', '\u0000'])}` : line
  })
  for (let i = next(4); i > 0; i -= 1) list.splice(next(list.length + 1), 0, pick(next, ['', ' ', '\t \r', '  ']))
  return Buffer.from(`${list.join(end)}${next(2) === 0 ? end : ''}`)
}

export const fuzzFormats = ['ndjson', 'cloudevents', 'cloudevents-batch', 'msgpack', 'columnar'] as const
export type FuzzFormat = (typeof fuzzFormats)[number]

export function formatBody(next: Random, format: FuzzFormat, events: number): Buffer {
  calm = next(2) === 0
  switch (format) {
    case 'ndjson':
      return lines(next, events)
    case 'cloudevents':
      return Buffer.from(cloudEvent(next))
    case 'cloudevents-batch':
      return Buffer.from(
        `${blank(next)}[${Array.from({ length: events }, () => cloudEvent(next)).join(',')}]${blank(next)}`,
      )
    case 'msgpack':
      return msgpackBody(next, events)
    case 'columnar':
      return columnarBody(next, events)
  }
}

/** Compares at least so many events. Throws with the seed and the body at the first difference. */
export function fuzzFormat(
  format: FuzzFormat,
  events: number,
  seed: number,
): { events: number; bodies: number; stored: number; byKernel: number; broken: number } {
  const next = random(seed)
  const pairs = [openPair(1), openPair(4), openPair(16)]
  const done = { events: 0, bodies: 0, stored: 0, byKernel: 0, broken: 0 }
  while (done.events < events) {
    const size = format === 'cloudevents' ? 1 : 1 + next(next(10) === 0 ? 200 : 12)
    let body = formatBody(next, format, size)
    if (next(calm ? 4 : 2) === 0) body = mutate(next, body)
    const pair = pairs[next(pairs.length)]!
    const over = {
      format: format as BodyFormat,
      tenant: next(4) === 0 ? pick(next, ['acme', 'café-crème', 'tenant-1', 'nobody']) : null,
    }
    const { difference, judged } = compare(pair, body, over)
    if (difference !== null) {
      throw new Error(
        `seed ${seed}, body ${done.bodies}: ${JSON.stringify(over)}\n${body.toString('latin1')}\n${body.toString('hex')}\n${difference}`,
      )
    }
    done.events += size
    done.bodies += 1
    done.stored += judged?.stored ?? 0
    done.byKernel += (judged?.received ?? 0) - (judged?.plain ?? 0)
    if (judged === null) done.broken += 1
  }
  return done
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const format = fuzzFormats.find((one) => one === process.argv[2])
  if (format === undefined) throw new Error(`format-fuzz.js FORMAT EVENTS [SEED]; FORMAT is ${fuzzFormats.join(', ')}`)
  const seed = Number(process.argv[4] ?? Date.now() % 1_000_000_007)
  console.log(`${format}, seed ${seed}`)
  console.log(fuzzFormat(format, Number(process.argv[3] ?? 10_000_000), seed))
}
