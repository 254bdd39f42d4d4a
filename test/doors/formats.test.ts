/**
 * The tables of src/ingest/README.md, row by row, through the HTTP door of a real service; and the CloudEvents SDK as a client
 * that knows nothing of releve.
 */
import * as zlib from 'node:zlib'
import { CloudEvent, emitterFor, HTTP, httpTransport, Mode } from 'cloudevents'
import { Packr } from 'msgpackr'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { contentTypes } from '../../src/ingest/content-type.js'
import { limits } from '../../src/limits.js'
import type { IngestAnswer } from '../../src/system.js'
import { event, headersOf, json, makers, tableOf, times } from './bodies.js'
import { type DoorSystem, openDoorSystem } from './door-system.js'

let doors: DoorSystem
beforeAll(async () => {
  doors = await openDoorSystem()
})
afterAll(() => doors.close())

interface Answer extends IngestAnswer {
  readonly status: number
  readonly code?: string
  readonly detail?: string
}

async function send(body: Uint8Array | string, headers: Record<string, string>): Promise<Answer> {
  const answer = await fetch(`${doors.url}/v1/events`, {
    method: 'POST',
    headers: { authorization: `Bearer ${doors.acmeKey}`, ...headers },
    body,
  })
  return { ...((await answer.json()) as Answer), status: answer.status }
}

const rows = tableOf('format ')

test('the table names every content type that the door reads, and no other', () => {
  const named = rows.map(([, type]) => type!.split('`')[1]!)
  expect(new Set(named)).toEqual(new Set(contentTypes))
  expect(Object.keys(makers)).toEqual([...new Set(rows.map(([format]) => format!))])
})

test.each(rows)('%s as %s: %s; broken costs %s; too deep costs %s; too many cost %s', async (...row) => {
  const [format = '', type = '', events = '', broken = '', deep = '', many = ''] = row
  const maker = makers[format]!
  const headers = (): Record<string, string> => headersOf(format, type)
  const several = events === 'one' ? 1 : 3
  expect(await send(maker.of(several), headers())).toMatchObject({ status: 202, stored: several, refused: 0 })

  const checkCost = async (body: Uint8Array | string, cost: string): Promise<void> => {
    const answer = await send(body, headers())
    if (cost === 'itself')
      expect(answer).toMatchObject({ status: 202, stored: 2, refused: 1, refusals: [{ index: 1 }] })
    else {
      expect(cost).toBe('the body')
      expect(answer).toMatchObject({ status: 400, code: 'malformed_body' })
    }
  }
  await checkCost(maker.broken, broken)
  expect(maker.deep === null).toBe(deep === 'cannot be')
  if (maker.deep !== null) await checkCost(maker.deep, deep)

  expect(many).toBe(several === 1 ? 'cannot be' : 'the body')
  if (several > 1) {
    expect(await send(maker.of(limits.batchEventsMax), headers())).toMatchObject({ stored: limits.batchEventsMax })
    const answer = await send(maker.of(limits.batchEventsMax + 1), headers())
    expect(answer).toMatchObject({ status: 413, code: 'body_too_large' })
  }

  const zipped = { ...headers(), 'content-encoding': 'gzip' }
  expect(await send(zlib.gzipSync(maker.of(several)), zipped)).toMatchObject({ status: 202, stored: several })
  expect(await send(maker.of(several), zipped)).toMatchObject({ status: 400, code: 'malformed_body' })
})

test.each(tableOf('content-encoding '))('content-encoding %s: %s', async (encoding) => {
  const name = encoding.replaceAll('`', '')
  const body = json.of(2)
  const { zstdCompressSync } = zlib as unknown as { zstdCompressSync?: (body: Uint8Array | string) => Buffer }
  const packed: Record<string, () => Uint8Array | string> = {
    none: () => body,
    gzip: () => zlib.gzipSync(body),
    zstd: () => zstdCompressSync?.(body) ?? body,
  }
  const headers = { 'content-type': 'application/json', ...(name === 'none' ? {} : { 'content-encoding': name }) }
  const answer = await send(packed[name]!(), headers)
  if (name === 'zstd' && zstdCompressSync === undefined) {
    expect(answer).toMatchObject({ status: 415, code: 'unsupported_format' })
    expect(answer.detail).toContain('gzip')
  } else expect(answer).toMatchObject({ status: 202, stored: 2 })
})

test('a body that inflates beyond the bound => 413, and an encoding or a charset that is unknown => 415', async () => {
  const headers = { 'content-type': 'application/x-ndjson', 'content-encoding': 'gzip' }
  const bomb = zlib.gzipSync(Buffer.alloc(limits.bodyBytesMax + 1, 0x20))
  expect(await send(bomb, headers)).toMatchObject({ status: 413, code: 'body_too_large' })
  for (const wrong of [
    { 'content-type': 'application/json', 'content-encoding': 'br' },
    { 'content-type': 'application/json', 'content-encoding': 'constructor' },
    { 'content-type': 'text/csv; charset=iso-8859-1' },
    { 'content-type': 'constructor' },
    { 'content-type': 'application/xml' },
  ]) {
    expect(await send(json.of(1), wrong)).toMatchObject({ status: 415, code: 'unsupported_format' })
  }
  expect(await send(json.of(1), { 'content-type': 'application/json; charset="UTF-8"' })).toMatchObject({ stored: 1 })
})

test('records of msgpackr that keeps its structures between bodies => each body defines what it uses', async () => {
  const packr = new Packr({ maxOwnStructures: 64 })
  for (let i = 0; i < 3; i += 1) {
    expect(await send(packr.pack(times(3, event)), { 'content-type': 'application/msgpack' })).toMatchObject({
      stored: 3,
    })
  }
})

test('the CloudEvents SDK as it is, structured, batch and binary => stored, and a second try is a duplicate', async () => {
  const cloud = (id: string): CloudEvent<unknown> =>
    new CloudEvent({
      id,
      source: '/sdk',
      type: 'kyc',
      subject: 'line 1',
      time: new Date().toISOString(),
      kind: 'usage',
      data: { value: '1.5', region: 'ci' },
    })
  const post = async (message: { headers: unknown; body: unknown }): Promise<Answer> => {
    const answer = await fetch(`${doors.url}/v1/events?wait=applied`, {
      method: 'POST',
      headers: { ...(message.headers as Record<string, string>), authorization: `Bearer ${doors.acmeKey}` },
      body: message.body as string,
    })
    return { ...((await answer.json()) as Answer), status: answer.status }
  }
  const first = cloud('sdk-1')
  expect(await post(HTTP.binary(first))).toMatchObject({ status: 202, applied: { accepted: 1 } })
  expect(await post(HTTP.structured(first))).toMatchObject({ status: 202, applied: { duplicate: 1 } })

  const statuses: number[] = []
  for (const mode of [Mode.BINARY, Mode.STRUCTURED]) {
    const emit = emitterFor(httpTransport(`${doors.url}/v1/events`), { mode })
    const answer = (await emit(cloud(`sdk-${mode}`), {
      headers: { authorization: `Bearer ${doors.acmeKey}` },
    })) as { body: string }
    statuses.push((JSON.parse(answer.body) as IngestAnswer).stored)
  }
  expect(statuses).toEqual([1, 1])
})
