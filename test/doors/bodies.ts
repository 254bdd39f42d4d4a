/** Bodies of every format that the tables of src/ingest/README.md name, and the rows of those tables. For the tests of the doors. */
import { randomUUID } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { pack } from 'msgpackr'
import { expect } from 'vitest'
import { BatchEncoder } from '../../src/client/encoder.js'
import type { ClientEvent } from '../../src/client/event.js'
import { limits } from '../../src/limits.js'
import { rootDirectory } from '../../src/paths.js'

/** Rows of the table behind a heading of the first column. */
export function tableOf(heading: string): string[][] {
  const lines = readFileSync(join(rootDirectory, 'src/ingest/README.md'), 'utf8').split('\n')
  const start = lines.findIndex((line) => line.startsWith(`| ${heading}`))
  expect(start).toBeGreaterThan(0)
  const rows: string[][] = []
  for (const line of lines.slice(start + 2)) {
    if (!line.startsWith('|')) break
    rows.push(
      line
        .split('|')
        .slice(1, -1)
        .map((cell) => cell.trim()),
    )
  }
  return rows
}

export interface Maker {
  /** A body of so many events with new ids. */
  of(count: number): Uint8Array | string
  /** Two good events around one whose syntax is broken; null where a body has one event: then that one is broken. */
  readonly broken: Uint8Array | string
  /** The same with one that is nested too deep; null where nothing nests. */
  readonly deep: Uint8Array | string | null
}

export const event = (): Record<string, unknown> => ({
  id: randomUUID(),
  metric: 'kyc',
  value: '2',
  dims: { region: 'ci' },
})
const ce = (): Record<string, unknown> => ({
  specversion: '1.0',
  id: randomUUID(),
  source: '/gw',
  type: 'kyc',
  data: { value: 2, region: 'ci' },
})
export const times = <T>(count: number, make: () => T): T[] => Array.from({ length: count }, make)
const nest = '['.repeat(40) + ']'.repeat(40)
const text = (make: () => unknown): string => JSON.stringify(make())

export const json: Maker = {
  of: (count) => JSON.stringify(times(count, event)),
  broken: `[${text(event)},{"id":,${text(event)}]`,
  deep: `[${text(event)},{"x":${nest}},${text(event)}]`,
}
const msgpack: Maker = {
  of: (count) => pack(times(count, event)),
  broken: Buffer.concat([pack(event()), Buffer.from([0xc1]), pack(event())]),
  deep: Buffer.concat([pack(event()), Buffer.alloc(40, 0x91), pack(event())]),
}
/** The encoder makes no body of too many events: there the header claims one more. */
function columnar(count: number): Buffer {
  const sound = Math.min(count, limits.batchEventsMax)
  const encoder = new BatchEncoder(sound)
  for (const one of times(sound, event)) encoder.add(one as unknown as ClientEvent)
  const body = Buffer.from(encoder.take())
  body.writeUInt32LE(count, 8)
  return body
}
export const makers: Readonly<Record<string, Maker>> = {
  'native JSON': json,
  NDJSON: {
    of: (count) =>
      times(count, event)
        .map((one) => JSON.stringify(one))
        .join('\n'),
    broken: [text(event), '{"id":', text(event)].join('\n'),
    deep: [text(event), `{"x":${nest}}`, text(event)].join('\n'),
  },
  msgpack,
  'columnar frame': { of: columnar, broken: columnar(3).fill(0xff, 100), deep: null },
  CSV: {
    of: (count) => ['id;metric;value;dims.region', ...times(count, () => `${randomUUID()};kyc;2;ci`)].join('\n'),
    broken: ['id,metric', `${randomUUID()},kyc`, '"x,kyc', `${randomUUID()},kyc`].join('\n'),
    deep: null,
  },
  CloudEvents: { of: () => text(ce), broken: '{"specversion":', deep: `{"x":${nest}}` },
  'CloudEvents batch': {
    of: (count) => JSON.stringify(times(count, ce)),
    broken: `[${text(ce)},{"id":,${text(ce)}]`,
    deep: `[${text(ce)},{"x":${nest}},${text(ce)}]`,
  },
  'CloudEvents in headers': { of: () => '{"value":2,"region":"ci"}', broken: '{"value":', deep: nest },
}

/** The headers that say what a body is; of a CloudEvent in headers, with a new id. */
export function headersOf(format: string, type: string): Record<string, string> {
  const contentType = type.split('`')[1]!
  if (format !== 'CloudEvents in headers') return { 'content-type': contentType }
  return {
    'content-type': contentType,
    'ce-specversion': '1.0',
    'ce-id': randomUUID(),
    'ce-source': '/gw',
    'ce-type': 'kyc',
  }
}
