/** The table of formats over NATS of src/ingest/README.md, cell by cell, against the real server, its MQTT listener included. */
import * as zlib from 'node:zlib'
import mqtt, { type MqttClient } from 'mqtt'
import { connect, headers as makeHeaders, type NatsConnection } from 'nats'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { limits } from '../../src/limits.js'
import { type NatsDoor, openNatsDoor } from '../../src/nats/nats.js'
import type { IngestAnswer } from '../../src/system.js'
import { headersOf, makers, tableOf } from '../doors/bodies.js'
import { type DoorSystem, openDoorSystem } from '../doors/door-system.js'
import { freePort, NatsServer, until } from './server.js'

const server = new NatsServer(await freePort())
const mqttPort = await freePort()
let doors: DoorSystem
let door: NatsDoor
let client: NatsConnection
let gateway: MqttClient

beforeAll(async () => {
  await server.start(`server_name: formats\nmqtt { listen: "127.0.0.1:${mqttPort}" }`)
  doors = await openDoorSystem({ RELEVE_NATS_URL: server.url })
  door = openNatsDoor(doors.system, doors.system.config.nats!)
  await until(() => door.state().up)
  client = await connect({ servers: server.url })
  gateway = await mqtt.connectAsync(`mqtt://127.0.0.1:${mqttPort}`, { protocolVersion: 4 })
})
afterAll(async () => {
  await gateway?.endAsync()
  await client?.close()
  await door?.close()
  await doors?.close()
  await server.close()
})

const types = new Map(tableOf('format ').map(([format, type]) => [format!, type!]))
const rows = tableOf('format                 | read by')
const { zstdCompressSync } = zlib as unknown as { zstdCompressSync?: (body: Uint8Array | string) => Buffer }

function natsHeaders(entries: Record<string, string>) {
  const headers = makeHeaders()
  for (const [name, value] of Object.entries(entries)) headers.set(name, value)
  return headers
}

type Reply = Partial<IngestAnswer> & { readonly status: number; readonly code?: string }

async function ask(body: Uint8Array | string, entries: Record<string, string>): Promise<Reply> {
  const headers = natsHeaders(entries)
  const message = await client.request('usage.req.acme', body, { headers, timeout: 60_000 })
  return { ...message.json<Reply>(), status: Number(message.headers!.get('status')) }
}

/** What a message without an answer became: counts are told by their change. */
async function became(publish: () => Promise<unknown>): Promise<{ stored: number; refused: number }> {
  const now = async (): Promise<{ stored: number; refused: number }> => {
    await doors.system.settle()
    return doors.system.books().totals
  }
  const before = await now()
  await publish()
  let after = before
  await until(async () => {
    after = await now()
    return after.stored + after.refused > before.stored + before.refused
  })
  return { stored: after.stored - before.stored, refused: after.refused - before.refused }
}

test('the table has the formats of the other one, each once', () => {
  expect(rows.map(([format]) => format)).toEqual([...new Set(types.keys())])
})

test.each(rows)('%s: read by its bytes %s, over MQTT %s, a larger message costs %s', async (...row) => {
  const [format = '', bare = '', overMqtt = '', large = ''] = row
  const maker = makers[format]!
  const isOne = format.startsWith('CloudEvents') && format !== 'CloudEvents batch'
  const several = isOne ? 1 : 3
  const headers = (): Record<string, string> => headersOf(format, types.get(format)!)

  expect(await ask(maker.of(several), headers())).toMatchObject({ status: 202, stored: several, refused: 0 })
  const zipped = { 'content-encoding': 'gzip' }
  expect(await ask(zlib.gzipSync(maker.of(several)), { ...headers(), ...zipped })).toMatchObject({ stored: several })
  const zstd = await ask(zstdCompressSync?.(maker.of(several)) ?? 'x', { ...headers(), 'content-encoding': 'zstd' })
  expect(zstd).toMatchObject(zstdCompressSync === undefined ? { status: 415 } : { status: 202, stored: several })

  const stream = client.jetstream()
  const published = await became(() =>
    stream.publish('usage.in.acme', maker.of(several), { headers: natsHeaders(headers()) }),
  )
  expect(published).toEqual({ stored: several, refused: 0 })

  // The largest body of whole events that a message holds.
  if (!isOne) {
    const [few, more] = [maker.of(100), maker.of(200)].map((body) => Buffer.byteLength(body))
    const each = (more! - few!) / 100
    const count = Math.min(limits.batchEventsMax, Math.floor((0.97 * limits.natsMessageBytesMax) / each))
    const body = maker.of(count)
    expect(Buffer.byteLength(body)).toBeLessThanOrEqual(limits.natsMessageBytesMax)
    expect(await ask(body, headers())).toMatchObject({ status: 202, stored: count })
  }
  expect(large).toBe('the body')
  const tooLarge = Buffer.alloc(limits.natsMessageBytesMax + 1, maker.of(several) as string)
  expect(await ask(tooLarge, headers())).toMatchObject({ status: 413, code: 'body_too_large' })

  const alone = await ask(maker.of(several), {})
  expect(bare).toMatch(/^(yes|no)$/)
  expect({ bare, stored: alone.stored ?? 0 }).toEqual({ bare, stored: bare === 'yes' ? several : 0 })

  expect(overMqtt).toMatch(/^(yes|no)$/)
  const body = maker.of(several)
  const came = await became(() => gateway.publishAsync('usage/in/acme', Buffer.from(body as string), { qos: 1 }))
  expect({ overMqtt, stored: came.stored }).toEqual({ overMqtt, stored: overMqtt === 'yes' ? several : 0 })
})
