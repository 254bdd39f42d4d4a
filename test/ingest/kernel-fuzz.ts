/**
 * Fuzz of the kernel's door against the plain one: generated bodies, whole and broken, must give the same answer, or the same
 * error, from both. Everything follows from one seed, which a failure names together with the body.
 *
 * Run by kernel-door.test.ts with few events, or: node dist/test/ingest/kernel-fuzz.js EVENTS [SEED]
 */
import { pathToFileURL } from 'node:url'
import type { CatalogSnapshot, Metric } from '../../src/catalog/metric.js'
import { ReleveError } from '../../src/errors.js'
import { buildDoor, type Door, type IngestRequest, type Judged, judge } from '../../src/ingest/ingest.js'
import { type KernelDoor, type KernelJudged, openKernelDoor } from '../../src/ingest/kernel-door.js'
import { AHEAD_MS, FLOOR_TIME, RECEIVED_AT, snapshot } from './door.js'

/** The door's metrics, and some whose names are made to be difficult. */
export const fuzzSnapshot: CatalogSnapshot = {
  version: 9,
  metrics: [
    ...snapshot.metrics,
    { ...snapshot.metrics[0]!, key: 'odd', dims: ['é', 'a"b', '', 'z\u007f', '😀'] },
    { ...snapshot.metrics[0]!, key: 'nine', scale: 9, dims: ['B', 'a', 'Z', 'ab'] },
    { ...snapshot.metrics[2]!, key: 'both', dims: ['user', 'x'], uniqueBy: 'user' },
    { ...snapshot.metrics[2]!, key: 'zero', dims: ['subject'], uniqueBy: 'subject' },
  ],
  tenants: [...snapshot.tenants, '', '😀', 't'.repeat(300), ...Array.from({ length: 40 }, (_, i) => `tenant-${i}`)],
}

/** mulberry32: small, and the same everywhere. */
export function random(seed: number): (below: number) => number {
  let state = seed | 0
  return (below) => {
    state = (state + 0x6d2b79f5) | 0
    let t = Math.imul(state ^ (state >>> 15), 1 | state)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 0x1_0000_0000) * below)
  }
}

export type Random = ReturnType<typeof random>
export const pick = <T>(next: Random, of: readonly T[]): T => of[next(of.length)]!

export const odd = [
  'é',
  '€',
  '😀',
  '\\u00e9',
  '\\ud83d\\ude00',
  '\\ud83d',
  '\\"',
  '\\/',
  '\\n',
  '\u007f',
  '\u0080',
  '\u009f',
  '\u00a0',
  '\\u0000',
  '\u2028',
  '\ufeff',
  '/',
  ' ',
]
export const numbers = [
  '0',
  '-0',
  '1',
  '12.5',
  '0.001',
  '0.0001',
  '1.500',
  '1.5000',
  '01',
  '00',
  '-',
  '+1',
  '.5',
  '5.',
  '1e3',
  '1E-3',
  '999999999999999',
  '1000000000000000',
  '999999999999999999',
  '1000000000000000000',
  '1000000000000000001',
  '9223372036854775807',
  '9223372036854775808',
  '18446744073709551616',
  '-1000000000000000000',
  '123456789.123456789',
  '1000000000.000000000',
  '1000000000.000000001',
  '999999999.999999999',
  '99999999999999.999',
  '999999999999999.999',
  '1000000000000000.000',
  '-999999999999999.999',
  'NaN',
  '1_0',
  ' 1',
  '1 ',
  `0.${'0'.repeat(70)}1`,
  '9'.repeat(70),
]
/** Those that may stand without quotes; the others break the body. */
export const bareNumbers = numbers.filter((text) => /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/.test(text))

export const times = [
  ...[0, 1, -1].flatMap((d) => [FLOOR_TIME + d, RECEIVED_AT + AHEAD_MS + d]).map((t) => new Date(t).toISOString()),
  '2026-03-10T09:15:00Z',
  '2026-03-10t09:15:00.1z',
  '2026-03-10T09:15:00.12+23:59',
  '2026-03-10T09:15:00.123456789-00:00',
  '2026-03-10T09:15:00.1234567891Z',
  '2026-03-10T23:59:60Z',
  '2026-02-28T23:59:59.999Z',
  '2026-02-29T00:00:00Z',
  '2024-02-29T00:00:00Z',
  '2026-03-32T00:00:00Z',
  '2026-03-10T24:00:00Z',
  '2026-03-10T09:15:00',
  '2026-03-10T09:15:00.Z',
  '2026-03-10 09:15:00Z',
  '2026-03-10T09:15:00+24:00',
  '2026-03-10T09:15:00+01:60',
  '1969-12-31T23:59:59Z',
  '0000-01-01T00:00:00Z',
  '9999-12-31T23:59:59Z',
  '2026-13-01T00:00:00Z',
  '2026-00-01T00:00:00Z',
  '2026-03-00T00:00:00Z',
  '',
]

export function name(next: Random, max: number): string {
  const kind = next(30)
  if (kind === 0) return ''
  if (kind === 1) return 'x'.repeat(pick(next, [15, 16, 17, 31, 32, 33, 255, 256, 257, 300]))
  if (kind === 2) return 'é'.repeat(pick(next, [127, 128, 129]))
  if (kind < 6) return `${'y'.repeat(next(20))}${pick(next, odd)}${'z'.repeat(next(20))}`
  return `n${next(max)}`
}

export const blank = (next: Random): string =>
  next(12) > 0 ? '' : next(2_000) === 0 ? '\f' : pick(next, [' ', '\n', '\t', '\r\n', '  '])

/** A value without quotes, seldom one that is no JSON. */
export const bare = (next: Random, values: readonly string[]): string =>
  next(300) === 0 ? pick(next, [...numbers, 'tru', 'falsy', '']) : pick(next, values)

export function member(next: Random, key: string, value: string): string {
  return `${blank(next)}"${key}"${blank(next)}:${blank(next)}${value}${blank(next)}`
}

export function shuffle<T>(next: Random, list: T[]): T[] {
  if (next(3) > 0) return list
  for (let i = list.length - 1; i > 0; i -= 1) {
    const j = next(i + 1)
    ;[list[i], list[j]] = [list[j]!, list[i]!]
  }
  return list
}

function dimsOf(next: Random, metric: Metric): string {
  const names = [...metric.dims]
  if (metric.uniqueBy !== null && metric.uniqueBy !== 'subject' && next(20) > 0) names.push(metric.uniqueBy)
  const members = shuffle(next, names)
    .filter(() => next(5) > 0)
    .map((key) => {
      const kind = next(20)
      const text = name(next, 8)
      const value =
        kind === 0
          ? bare(next, ['true', 'false', 'true', 'null', '[1]', '{"a":1}'])
          : kind === 1
            ? String(next(1_000))
            : `"${text}"`
      return member(next, next(40) === 0 ? pick(next, odd) : JSON.stringify(key).slice(1, -1), value)
    })
  if (next(60) === 0) members.push(member(next, pick(next, ['region', 'plan', 'other']), '"r"'))
  return `{${blank(next)}${members.join(',')}${blank(next)}}`
}

/** One event as text; mostly sound. */
export function fuzzEvent(next: Random): string {
  const metric = pick(next, fuzzSnapshot.metrics)
  const members = [
    member(next, 'id', next(40) === 0 ? pick(next, ['1', 'null', '""']) : `"${name(next, 1_000_000)}"`),
    member(next, 'metric', `"${next(40) === 0 ? name(next, 3) : metric.key}"`),
  ]
  if (next(20) > 0) {
    const tenant = next(30) === 0 ? name(next, 3) : pick(next, fuzzSnapshot.tenants)
    members.push(member(next, 'tenant', `"${tenant}"`))
  }
  if (next(3) === 0) members.push(member(next, 'source', `"${name(next, 3)}"`))
  if (next(3) > 0) members.push(member(next, 'subject', `"${name(next, 20)}"`))
  if (next(3) > 0) {
    const time =
      next(10) === 0 ? pick(next, times) : new Date(FLOOR_TIME + next(RECEIVED_AT - FLOOR_TIME)).toISOString()
    const millis = FLOOR_TIME + next(RECEIVED_AT - FLOOR_TIME)
    members.push(
      member(next, 'time', next(4) === 0 ? (next(10) === 0 ? bare(next, bareNumbers) : String(millis)) : `"${time}"`),
    )
  }
  if (next(3) > 0) {
    const usual = `${next(2) === 0 ? '-' : ''}${next(1_000)}.${next(100)}`
    const value =
      next(2) === 0
        ? `"${next(8) === 0 ? pick(next, numbers) : usual}"`
        : next(8) === 0
          ? bare(next, bareNumbers)
          : usual
    members.push(member(next, 'value', value))
  }
  if (next(3) > 0) members.push(member(next, 'dims', dimsOf(next, metric)))
  if (next(6) === 0)
    members.push(
      member(
        next,
        'kind',
        pick(next, ['"usage"', '"void"', '"void"', '"void"', '"usage"', next(5) === 0 ? '"other"' : '"void"']),
      ),
    )
  if (next(80) === 0) members.push(member(next, pick(next, ['vlaue', 'id', 'dims', 'i\\u0064', '']), '"x"'))
  return `${blank(next)}{${blank(next)}${shuffle(next, members).join(',')}}${blank(next)}`
}

/** One event that nothing is wrong with, so that long bodies are stored as a whole. */
export function soundEvent(next: Random): string {
  const metric = fuzzSnapshot.metrics[next(7)]!
  const names = metric.uniqueBy === 'user' ? [...metric.dims, 'user'] : [...metric.dims]
  const dims = shuffle(next, names)
    .filter((dim) => dim === 'user' || next(3) > 0)
    .map((dim) => `"${dim}":${next(10) === 0 ? next(5) : `"${pick(next, ['r', 'é', ''])}${next(6)}"`}`)
  const members = shuffle(next, [
    `"id":"${'0123456789abcdef-'.repeat(2).slice(next(17))}${next(1_000_000)}"`,
    `"tenant":"${fuzzSnapshot.tenants[next(4)]!}"`,
    `"metric":"${metric.key}"`,
    `"subject":"${pick(next, ['s', 'sübject', 'a-longer-subject-of-more-than-32-bytes-'])}${next(30)}"`,
    `"time":${next(2) === 0 ? RECEIVED_AT - next(1e9) : `"${new Date(RECEIVED_AT - next(1e9)).toISOString()}"`}`,
    `"value":"${next(1_000)}"`,
    `"dims":{${dims.join(',')}}`,
  ])
  if (next(4) === 0) members.push(`"source":"gw${next(3)}"`)
  if (next(9) === 0 && metric.archive) members.push('"kind":"void"')
  return `{${members.join(',')}}`
}

/** A body of so many events. */
export function fuzzBody(next: Random, events: number): Buffer {
  if (events === 1 && next(2) === 0) return Buffer.from(fuzzEvent(next))
  const oddness = pick(next, [0, 0, 10, 100])
  const list = Array.from({ length: events }, () =>
    next(100) >= oddness
      ? soundEvent(next)
      : next(100) === 0
        ? pick(next, ['1', 'null', '"x"', '[]', '{}', '[{}]'])
        : fuzzEvent(next),
  )
  return Buffer.from(`${blank(next)}[${blank(next)}${list.join(',')}]${blank(next)}`)
}

const bytes = [
  0, 0x09, 0x0a, 0x1f, 0x20, 0x22, 0x2c, 0x2d, 0x2e, 0x30, 0x39, 0x3a, 0x5b, 0x5c, 0x5d, 0x65, 0x7b, 0x7d, 0x7f,
]

/** Text at the borders of UTF-8, sound and not. */
export const utf8Borders = [
  'c280',
  'c29f',
  'c2a0',
  'dfbf',
  'c080',
  'c1bf',
  'c2',
  'c241',
  'e0a080',
  'e09fbf',
  'e08080',
  'ed9fbf',
  'eda080',
  'edadbf',
  'edae80',
  'edbfbf',
  'ee8080',
  'efbfbf',
  'efbbbf',
  'e282',
  'e28241',
  'f0908080',
  'f08fbfbf',
  'f0808080',
  'f48fbfbf',
  'f4908080',
  'f5808080',
  'f09f98',
  'f09f9841',
  '80',
  'bf',
  'ff',
  'fe',
  'f8888080',
].map((hex) => Buffer.from(hex, 'hex'))

/** Breaks a few bytes of a body: changed, left out, doubled, moved, cut off. */
export function mutate(next: Random, body: Buffer): Buffer {
  let broken = Buffer.from(body)
  for (let i = 0, n = 1 + next(3); i < n; i += 1) {
    const at = next(broken.length + 1)
    const before = broken.subarray(0, at)
    switch (next(8)) {
      case 6:
        broken = Buffer.concat([before, pick(next, utf8Borders), broken.subarray(at)])
        break
      case 0:
        broken = Buffer.concat([before, Buffer.of(next(256)), broken.subarray(at)])
        break
      case 1:
        broken = Buffer.concat([before, broken.subarray(at + 1 + next(3))])
        break
      case 2:
        if (at < broken.length) broken[at] = next(256)
        break
      case 3:
        if (at < broken.length) broken[at] = pick(next, bytes)
        break
      case 4:
        if (at < broken.length) broken[at]! ^= 1 << next(8)
        break
      case 5:
        broken = Buffer.concat([before, broken.subarray(Math.max(0, at - next(40)))])
        break
      default:
        if (next(4) === 0) broken = Buffer.from(before)
        else broken = Buffer.concat([before, Buffer.of(pick(next, bytes)), broken.subarray(at + 1)])
    }
  }
  return broken
}

/** What a door says, in a form that two of them can be compared in. */
function answerOf(ask: () => Judged): { text: string; parts: Judged['parts'] } {
  try {
    const { parts, ...rest } = ask()
    const { received, stored, refused, refusals } = rest
    return { text: JSON.stringify({ received, stored, refused, refusals }), parts }
  } catch (error) {
    if (!(error instanceof ReleveError)) throw error
    return { text: `${error.code}: ${error.message}`, parts: [] }
  }
}

export interface Pair {
  readonly door: Door
  readonly kernel: KernelDoor
}

export function openPair(streams: number, of: CatalogSnapshot = fuzzSnapshot): Pair {
  const kernel = openKernelDoor()
  if (kernel === null) throw new Error('cannot compare: the kernel is not built')
  return { door: buildDoor(of, streams), kernel }
}

/** Null, or how the two differ; `plain` is the share that the plain path took. */
export function compare(
  pair: Pair,
  body: Uint8Array,
  over: Partial<IngestRequest> = {},
): { difference: string | null; judged: KernelJudged | null } {
  const request = {
    format: 'json' as const,
    tenant: null,
    receivedAt: RECEIVED_AT,
    floorTime: FLOOR_TIME,
    aheadMs: AHEAD_MS,
    ...over,
  }
  let judged: KernelJudged | null = null
  const plain = answerOf(() => judge(pair.door, body, request))
  const fast = answerOf(() => {
    judged = pair.kernel.judge(pair.door, body, request)
    return judged
  })
  let difference: string | null = null
  if (plain.text !== fast.text) difference = `plain ${plain.text}\nfast  ${fast.text}`
  else if (plain.parts.length !== fast.parts.length)
    difference = `${plain.parts.length} parts, ${fast.parts.length} parts`
  else {
    for (const [i, part] of plain.parts.entries()) {
      const other = fast.parts[i]!
      const isSame =
        part.stream === other.stream &&
        part.events === other.events &&
        Buffer.from(part.indices.buffer).equals(Buffer.from(other.indices.buffer)) &&
        Buffer.from(part.frame).equals(Buffer.from(other.frame)) &&
        other.frame.byteLength === other.frame.buffer.byteLength
      if (!isSame) {
        difference = `stream ${part.stream}:\nplain ${Buffer.from(part.frame).toString('hex')}\nfast  ${Buffer.from(other.frame).toString('hex')}`
        break
      }
    }
  }
  return { difference, judged }
}

/** Compares at least so many events, half of them in broken bodies. Throws with the seed and the body at the first difference. */
export function fuzz(events: number, seed: number): { events: number; bodies: number; stored: number; plain: number } {
  const next = random(seed)
  const pairs = [openPair(1), openPair(4), openPair(16)]
  const done = { events: 0, bodies: 0, stored: 0, plain: 0 }
  while (done.events < events) {
    const size = 1 + next(next(10) === 0 ? 200 : 12)
    let body = fuzzBody(next, size)
    if (next(2) === 0) body = mutate(next, body)
    const pair = pairs[next(pairs.length)]!
    const over = { tenant: next(4) === 0 ? pick(next, ['acme', 'café-crème', 'tenant-1', 'nobody']) : null }
    const { difference, judged } = compare(pair, body, over)
    if (difference !== null) {
      throw new Error(
        `seed ${seed}, body ${done.bodies}: ${JSON.stringify(over)}\n${body.toString('latin1')}\n${difference}`,
      )
    }
    done.events += size
    done.bodies += 1
    done.stored += judged?.stored ?? 0
    done.plain += judged?.plain ?? 0
  }
  return done
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const seed = Number(process.argv[3] ?? Date.now() % 1_000_000_007)
  console.log(`seed ${seed}`)
  console.log(fuzz(Number(process.argv[2] ?? 10_000_000), seed))
}
