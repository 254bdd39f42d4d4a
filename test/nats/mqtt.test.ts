/**
 * MQTT 3.1.1 through the listener of the real nats-server, with the configuration file that docker-compose.yml uses: gateways
 * publish to usage/in/<tenant> with QoS 1, bound to their tenant by the server.
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { gzipSync } from 'node:zlib'
import mqtt, { type MqttClient } from 'mqtt'
import { pack } from 'msgpackr'
import { connect } from 'nats'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { sniffEncoding, sniffFormat } from '../../src/ingest/sniff.js'
import { limits } from '../../src/limits.js'
import { type NatsDoor, openNatsDoor } from '../../src/nats/nats.js'
import { rootDirectory } from '../../src/paths.js'
import { type DoorSystem, openDoorSystem } from '../doors/door-system.js'
import { promises } from '../promises.js'
import { freePort, NatsServer, until } from './server.js'

const server = new NatsServer(await freePort())
const mqttPort = await freePort()
let doors: DoorSystem
let door: NatsDoor

/** The file of docker-compose.yml, but for its ports, its directory, and a setting that the server of Debian does not know. */
const lines = readFileSync(join(rootDirectory, 'nats-server.conf'), 'utf8')
  .replace('port: 4222', '')
  .replace('port: 1883', `listen: "127.0.0.1:${mqttPort}"`)
  .replace(/^jetstream .*$/m, '')
  .replace('$NATS_RELEVE_PASSWORD', '"r3leve"')
  .replace('$NATS_ACME_PASSWORD', '"acm3"')

const open = async (user = 'acme', password = 'acm3', more: object = {}): Promise<MqttClient> => {
  const client = await mqtt.connectAsync(`mqtt://127.0.0.1:${mqttPort}`, {
    protocolVersion: 4,
    username: user,
    password,
    reconnectPeriod: 100,
    ...more,
  })
  client.on('error', () => {})
  return client
}

beforeAll(async () => {
  await server.start(lines)
  doors = await openDoorSystem({ RELEVE_NATS_URL: server.url.replace('//', '//releve:r3leve@') })
  door = openNatsDoor(doors.system, doors.system.config.nats!)
  await until(() => door.state().up)
})
afterAll(async () => {
  await door?.close()
  await doors?.close()
  await server.close()
})

let made = 0
const event = (over: Record<string, unknown> = {}): Record<string, unknown> => {
  made += 1
  return { id: `q${made}`, metric: 'kyc', value: '1', ...over }
}
const ce = (): Record<string, unknown> => {
  made += 1
  return { specversion: '1.0', id: `q${made}`, source: '/gw', type: 'kyc', data: { value: 1 } }
}

/** Everything that the server has was taken and counted. */
async function books() {
  const client = await connect({ servers: server.url, user: 'releve', pass: 'r3leve' })
  const manager = await client.jetstreamManager()
  await until(async () => (await manager.streams.info('RELEVE_USAGE')).state.messages === 0)
  await client.close()
  await doors.system.settle()
  const { totals, balanced } = doors.system.books()
  expect(balanced).toBe(true)
  return totals
}

test('every format without a word about it => read by its bytes, and counted', async () => {
  const before = await books()
  const gateway = await open()
  const json = (value: unknown): string => JSON.stringify(value)
  const bodies: [events: number, body: string | Buffer][] = [
    [1, json(event())],
    [2, json([event(), event()])],
    [1, JSON.stringify(event({ dims: { region: 'ci' } }), null, 2)],
    [2, `${json(event())}\n${json(event())}\n`],
    [1, pack(event())],
    [2, pack([event(), event()])],
    [2, `id,metric\nq-csv-1,kyc\nq-csv-2,kyc\n`],
    [1, json(ce())],
    [2, json([ce(), ce()])],
    [2, gzipSync(json([event(), event()]))],
  ]
  for (const [, body] of bodies) await gateway.publishAsync('usage/in/acme', body, { qos: 1 })
  const wanted = bodies.reduce((sum, [events]) => sum + events, 0)
  await until(async () => (await books()).accepted === before.accepted + wanted)
  expect((await books()).refused).toBe(before.refused)
  await gateway.endAsync()
})

test.each([
  ['json', ''],
  ['json', ' \n '],
  ['json', '"text"'],
  ['json', '[]'],
  ['json', '{"id":"}\\n{"}'],
  ['json', '{"dims":\n{"a":"b"}\n}'],
  ['json', '{"dims":{"specversion":"x"}}'],
  ['ndjson', '{"id":1}\r\n\n {"id":2}'],
  ['cloudevents', '{"data":{"x":[1]},"specversion":"1.0"}'],
  ['cloudevents-batch', '[{"specversion":"1.0"}]'],
  ['csv', 'id;metric\n'],
  ['msgpack', Buffer.from([0x81])],
  ['msgpack', Buffer.from([0xd4, 0x72, 0x40])],
] as const)('the bytes of %s => found', (format, body) => {
  expect(sniffFormat(Buffer.from(body as string))).toBe(format)
})

test('compressed bytes => found', () => {
  expect(sniffEncoding(gzipSync('x'))).toBe('gzip')
  expect(sniffEncoding(Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0]))).toBe('zstd')
  expect([sniffEncoding(Buffer.from('{}')), sniffEncoding(Buffer.alloc(0))]).toEqual([undefined, undefined])
})

test(`the same message twice => one event; what nobody can read => a refusal with its position, and blocks nothing ${promises('dedupe:first-only')}`, async () => {
  const before = await books()
  const gateway = await open()
  const body = JSON.stringify([event(), event()])
  await gateway.publishAsync('usage/in/acme', body, { qos: 1 })
  await gateway.publishAsync('usage/in/acme', body, { qos: 1, dup: true })
  await gateway.publishAsync('usage/in/acme', '{"id":', { qos: 1 })
  await gateway.publishAsync('usage/in/acme', JSON.stringify({ ...event(), tenant: 'banque' }), { qos: 1 })
  await until(async () => (await books()).refused === before.refused + 2)
  const totals = await books()
  expect(totals.accepted - before.accepted).toBe(2)
  expect(totals.duplicate - before.duplicate).toBe(2)
  const { rejects } = await doors.system.refusals.list({ tenant: 'acme', limit: 10 })
  expect(rejects.map(({ code }) => code).sort()).toEqual(['forbidden_tenant', 'malformed'])
  expect(rejects.find(({ code }) => code === 'malformed')!.message).toMatch(/^message \d+ on usage\.in\.acme: byte 6/)
  await gateway.endAsync()
})

test(`a gateway that names another tenant's topic, or has no password => nothing comes in ${promises('tenant:isolated')}`, async () => {
  const before = await books()
  await expect(open('acme', 'wrong')).rejects.toThrow()
  const gateway = await open()
  // The server drops it, and whether it says so is its own affair: the publisher must not be waited for.
  gateway.publish('usage/in/banque', JSON.stringify(event()), { qos: 1 })
  gateway.publish('usage/in/acme/deeper', JSON.stringify(event()), { qos: 1 })
  gateway.publish('$JS/API/STREAM/PURGE/RELEVE_USAGE', '', { qos: 1 })
  await sleep(300)
  const other = await open()
  await other.publishAsync('usage/in/acme', JSON.stringify(event()), { qos: 1 })
  await until(async () => (await books()).accepted === before.accepted + 1)
  expect((await books()).received).toBe(before.received + 1)
  await gateway.endAsync(true)
  await other.endAsync()
})

test(`SIGKILL of nats-server under gateways => what was acknowledged before the last message is counted, and nothing twice ${promises('flow:exactly-once')}`, {
  timeout: 180_000,
}, async () => {
  const before = await books()
  const sent: string[] = []
  const acknowledged: string[] = []
  const gateway = await open('acme', 'acm3', { clean: false, clientId: 'gw-1' })
  let stop = false
  const publishing = (async () => {
    for (let n = 0; !stop; n += 1) {
      const id = `k${n}`
      sent.push(id)
      // The client sends it again, with the DUP flag, until a server acknowledges it.
      await gateway.publishAsync(
        'usage/in/acme',
        JSON.stringify({ id, metric: 'kyc', time: new Date().toISOString() }),
        {
          qos: 1,
        },
      )
      acknowledged.push(id)
    }
  })()
  let lastBeforeKill = 0
  for (let round = 0; round < 3; round += 1) {
    const from = acknowledged.length
    await until(() => acknowledged.length > from + 50)
    await server.kill()
    lastBeforeKill += 1
    await server.start(lines)
  }
  const from = acknowledged.length
  await until(() => acknowledged.length > from + 50)
  stop = true
  await publishing
  await gateway.endAsync()
  await until(() => door.state().up)
  const totals = await books()
  const counted = totals.accepted - before.accepted
  expect(counted).toBeLessThanOrEqual(sent.length)
  // PUBACK says that the server has it, not that its disk has: the last one before each death is not promised.
  expect(counted).toBeGreaterThanOrEqual(acknowledged.length - lastBeforeKill)
})

test('a stream that is full => the publisher over MQTT is not told, so health warns before', async () => {
  await door.close()
  const client = await connect({ servers: server.url, user: 'releve', pass: 'r3leve' })
  const manager = await client.jetstreamManager()
  const { config } = await manager.streams.info('RELEVE_USAGE')
  await manager.streams.update('RELEVE_USAGE', { ...config, max_bytes: limits.natsPullBytesMax })
  const gateway = await open()
  const body = JSON.stringify(event({ id: 'full', subject: 's'.repeat(200), pad: 'x'.repeat(500_000) }))
  for (let i = 0; i < 10; i += 1) await gateway.publishAsync('usage/in/acme', body, { qos: 1 })
  expect((await manager.streams.info('RELEVE_USAGE')).state.messages).toBeLessThan(10)
  await gateway.endAsync()
  await client.close()
  const warned = openNatsDoor(doors.system, doors.system.config.nats!)
  door = warned
  await until(() => warned.state().warning !== undefined)
  expect(doors.system.health().notes.join()).toContain('the stream RELEVE_USAGE is 9')
  await books()
  await warned.close()
  door = openNatsDoor(doors.system, doors.system.config.nats!)
  await until(() => door.state().up && door.state().warning === undefined)
})
