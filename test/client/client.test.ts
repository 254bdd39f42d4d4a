/**
 * The client against a real service: killed and started again, away, overloaded behind a proxy; the client killed in the middle.
 * What was sent is counted once, always.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { connect } from 'nats'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import {
  type Client,
  ClientFullError,
  type ClientOptions,
  type ClientRefusal,
  openClient,
} from '../../src/client/client.js'
import { EventError } from '../../src/client/event.js'
import { rootDirectory } from '../../src/paths.js'
import { freePort, NatsServer, until } from '../nats/server.js'
import { promises } from '../promises.js'
import { ServiceProcess } from './service.js'

vi.setConfig({ testTimeout: 120_000, hookTimeout: 60_000 })

let service: ServiceProcess
const spools = mkdtempSync(join(tmpdir(), 'releve-spools-'))
let spoolCount = 0
const newSpool = (): string => {
  spoolCount += 1
  return join(spools, String(spoolCount))
}

const nats = new NatsServer(await freePort())

beforeAll(async () => {
  await nats.start()
  service = await ServiceProcess.open({ RELEVE_NATS_URL: nats.url })
})
afterAll(async () => {
  await service.close()
  await nats.close()
  rmSync(spools, { recursive: true, force: true })
})

const open = (options: Partial<ClientOptions> = {}): Client =>
  openClient({ url: service.url, key: service.key, ...options })

/** Sends so many events of 0.001 each, waiting where it must. */
async function sendAll(client: Client, prefix: string, count: number, tenant = 'acme', from = 0): Promise<void> {
  for (let i = from; i < from + count; i += 1) {
    const event = {
      id: `${prefix}-${i}`,
      tenant,
      metric: 'kyc',
      subject: `s${i % 7}`,
      time: Date.now(),
      value: '0.001',
    }
    const wait = client.send(event)
    if (wait !== undefined) await wait
  }
}

/** What the tenant has more than before. */
async function counted(tenant: string, run: () => Promise<unknown>): Promise<number> {
  const before = await service.total(tenant)
  await run()
  const after = await service.total(tenant)
  const thousandths = (value: string): number => Math.round(Number(value) * 1_000)
  expect(thousandths(after.value) - thousandths(before.value)).toBe(after.count - before.count)
  return after.count - before.count
}

test('events over HTTP, plain and gzip, some of them wrong => stored and counted, each refusal told with its id', async () => {
  for (const gzip of [false, true]) {
    const refusals: ClientRefusal[] = []
    const client = open({ gzip, batchEvents: 500, onRefused: (list) => refusals.push(...list) })
    const count = await counted('acme', async () => {
      await sendAll(client, `plain-${gzip}`, 2_300)
      for (const [id, wrong] of Object.entries({
        metric: { metric: 'nope' },
        dims: { dims: { nope: 'x' } },
        time: { time: 'yesterday' },
        value: { value: '1e-9' },
        tenant: { tenant: 'nobody' },
      })) {
        client.send({ id: `bad-${id}`, tenant: 'acme', metric: 'kyc', ...wrong })
      }
      expect(() => client.send({ id: 5 as unknown as string, metric: 'kyc' })).toThrow(EventError)
      expect(await client.close()).toEqual({
        ...{ sent: 2_305, recovered: 0, stored: 2_300, refused: 5, published: 0 },
        ...{ undeliverable: 0, waiting: 0, spooled: 0 },
      })
    })
    expect(count).toBe(2_300)
    expect(refusals.map(({ id, code, field }) => [id, code, field])).toEqual([
      ['bad-metric', 'unknown_metric', 'metric'],
      ['bad-dims', 'unknown_dimension', 'dims.nope'],
      ['bad-time', 'invalid_time', 'time'],
      ['bad-value', 'value_too_precise', 'value'],
      ['bad-tenant', 'unknown_tenant', 'tenant'],
    ])
    expect(() => client.send({ id: 'late', metric: 'kyc' })).toThrow('the client is closed')
  }
})

test('a void behind its event, in the next batch => taken back', async () => {
  const client = open({ batchEvents: 1 })
  const event = { id: 'void-1', tenant: 'acme', metric: 'kyc', time: Date.now(), value: '5' }
  const count = await counted('acme', async () => {
    client.send({ ...event, id: 'void-0', value: '0.001' })
    client.send(event)
    client.send({ ...event, kind: 'void' })
    expect(await client.close()).toMatchObject({ stored: 3, refused: 0 })
  })
  expect(count).toBe(1)
})

test(`the service dies by SIGKILL, twice, under a client that sends on => every event is counted, none twice ${promises('ingest:ack-after-disk')} ${promises('flow:exactly-once')}`, async () => {
  for (const spool of [undefined, { directory: newSpool() }]) {
    const errors: Error[] = []
    const client = open({ ...(spool === undefined ? {} : { spool }), batchEvents: 50, onError: (e) => errors.push(e) })
    const prefix = `kill-${spool !== undefined}`
    let sent = 0
    const count = await counted('banque', async () => {
      let stop = false
      const sender = (async () => {
        while (!stop) {
          await sendAll(client, prefix, 50, 'banque', sent)
          sent += 50
          await sleep(5)
        }
      })()
      for (let round = 0; round < 2; round += 1) {
        const before = client.books.stored
        await until(() => client.books.stored > before + 500)
        await service.end('SIGKILL')
        await until(() => errors.length > round)
        if (spool !== undefined) await until(() => client.books.spooled > 0)
        await service.start()
      }
      const before = client.books.stored
      await until(() => client.books.stored > before + 500)
      stop = true
      await sender
      expect(await client.close(60_000)).toMatchObject({ sent, stored: sent, refused: 0, waiting: 0, spooled: 0 })
    })
    expect(count).toBe(sent)
    if (spool !== undefined) expect(readdirSync(spool.directory)).toEqual(['lock'])
  }
})

test(`the client dies by SIGKILL, while the service is there and while it is away => what was safe is counted once ${promises('flow:exactly-once')}`, async () => {
  const directory = newSpool()
  const count = await counted('acme', async () => {
    const run = async (url: string, prefix: string, atLeast: number): Promise<number> => {
      const file = join(rootDirectory, 'dist/test/client/producer.js')
      const child = spawn(process.execPath, [file, url, service.key, directory, 'acme', prefix], {
        stdio: ['ignore', 'pipe', 'inherit'],
      })
      let safe = 0
      for await (const line of createInterface(child.stdout)) {
        safe = Number(line)
        if (safe >= atLeast && !child.killed) child.kill('SIGKILL')
      }
      return safe
    }
    const nobody = `http://127.0.0.1:${await freePort()}`
    const safe = [
      await run(nobody, 'away', 2_000),
      await run(service.url, 'there', 3_000),
      await run(nobody, 'again', 1_000),
    ]
    const client = open({ spool: { directory } })
    const { recovered } = client.books
    // What was away is in the spool; what was there may have been taken, and taken again it is a duplicate.
    expect(recovered).toBeGreaterThanOrEqual(safe[2]!)
    const books = await client.close(60_000)
    expect(books).toMatchObject({ stored: recovered, spooled: 0, waiting: 0, refused: 0 })
    sentSafely = safe.reduce((sum, n) => sum + n, 0)
  })
  // Killed between two flushes: the batches sealed since then are safe as well, and counted.
  expect(count).toBeGreaterThanOrEqual(sentSafely)
  expect(count).toBeLessThan(sentSafely + 3 * 250 + 1)
})
let sentSafely = 0

test(`the service is away and the spool is full => send refuses or waits, memory and disk stay bounded; later all is counted ${promises('system:bounded')}`, async () => {
  const port = await freePort()
  const bytesMax = 60_000
  const memoryBytesMax = 30_000
  for (const whenFull of ['refuse', 'wait'] as const) {
    const directory = newSpool()
    const client = open({
      url: `http://127.0.0.1:${port}`,
      ...{ spool: { directory, bytesMax }, memoryBytesMax, whenFull, batchEvents: 50 },
    })
    let sent = 0
    let waiting: Promise<void> | undefined
    for (; sent < 20_000 && waiting === undefined; sent += 1) {
      try {
        const event = {
          id: `full-${whenFull}-${sent}`,
          tenant: 'acme',
          metric: 'kyc',
          time: Date.now(),
          value: '0.001',
        }
        const wait = client.send(event)
        // Let the tries fail and the spool fill, and see whether there is room then.
        if (
          wait !== undefined &&
          client.books.spooled > 0 &&
          (await Promise.race([wait, sleep(500, 'late')])) === 'late'
        ) {
          waiting = wait
        } else await wait
      } catch (error) {
        if (!(error instanceof ClientFullError)) throw error
        if (client.books.spooled > 0 && client.books.waiting >= 300) break
        sent -= 1
        await sleep(20)
      }
    }
    const { spooled, waiting: inMemory } = client.books
    expect(spooled).toBeGreaterThan(100)
    expect(inMemory).toBeGreaterThan(100)
    expect(sent).toBeLessThan(5_000)
    // A proxy on that port: the service is back.
    const proxy = await openProxy(port, () => null)
    const count = await counted('acme', async () => {
      await waiting
      expect(await client.close(60_000)).toMatchObject({ sent, stored: sent, waiting: 0, spooled: 0 })
    })
    expect(count).toBe(sent)
    proxy.close()
    proxy.closeAllConnections()
    await once(proxy, 'close')
  }
})

test('closed while the service is away => the spool has what was sent, and a second client of it is refused', async () => {
  const directory = newSpool()
  const away = { url: `http://127.0.0.1:${await freePort()}`, spool: { directory } }
  const client = open(away)
  await sendAll(client, 'closed', 777)
  expect(() => open(away)).toThrow('in use by process')
  expect(await client.close(200)).toMatchObject({ sent: 777, stored: 0, spooled: 777, waiting: 0 })
  const without = open({ url: away.url })
  await sendAll(without, 'lost', 10)
  expect(await without.close(200)).toMatchObject({ sent: 10, waiting: 10 })

  const count = await counted('acme', async () => {
    const next = open({ spool: { directory } })
    expect(next.books).toMatchObject({ recovered: 777, spooled: 777 })
    expect(await next.close(30_000)).toMatchObject({ stored: 777, spooled: 0 })
  })
  expect(count).toBe(777)
})

/** In front of the service; `deny` may answer in its place. */
async function openProxy(
  port: number,
  deny: (body: Buffer) => { status: number; retryAfter?: string } | null,
): Promise<Server> {
  const proxy = createServer(async (request, response) => {
    const parts: Buffer[] = []
    for await (const part of request as AsyncIterable<Buffer>) parts.push(part)
    const body = Buffer.concat(parts)
    const denied = deny(body)
    if (denied !== null) {
      const { status, retryAfter } = denied
      response.writeHead(status, retryAfter === undefined ? {} : { 'retry-after': retryAfter }).end('denied')
      return
    }
    const headers = request.headers as Record<string, string>
    const answer = await fetch(`${service.url}${request.url}`, {
      method: 'POST',
      headers: { 'content-type': headers['content-type']!, authorization: headers.authorization! },
      body,
    }).catch(() => null)
    response.writeHead(answer?.status ?? 502).end(await answer?.text())
  }).listen(port, '127.0.0.1')
  await once(proxy, 'listening')
  return proxy
}

test('503 with Retry-After, 401, 500, an answer that is lost => the same body again, until it is taken', async () => {
  const bodies: Buffer[] = []
  const denials = [{ status: 503, retryAfter: '0' }, { status: 401 }, { status: 500 }, { status: 200 }]
  const proxy = await openProxy(0, (body) => {
    bodies.push(body)
    return denials.shift() ?? null
  })
  const errors: string[] = []
  const { port } = proxy.address() as AddressInfo
  const client = open({ url: `http://127.0.0.1:${port}`, onError: ({ message }) => errors.push(message) })
  expect(
    await counted('acme', async () => {
      await sendAll(client, 'denied', 5)
      await client.flush()
    }),
  ).toBe(5)
  expect(await client.close()).toMatchObject({ sent: 5, stored: 5 })
  expect(bodies).toHaveLength(5)
  expect(new Set(bodies.map((body) => body.toString('base64'))).size).toBe(1)
  expect(errors.map((error) => error.slice(0, 10))).toEqual(['status 503', 'status 401', 'status 500', 'status 200'])
  proxy.close()
  proxy.closeAllConnections()
})

test('a body that the service will never take => told once, counted as undeliverable, and the next ones go on', async () => {
  const errors: string[] = []
  let first = true
  const proxy = await openProxy(0, () => {
    const denied = first ? { status: 413 } : null
    first = false
    return denied
  })
  const { port } = proxy.address() as AddressInfo
  const client = open({
    url: `http://127.0.0.1:${port}`,
    inFlight: 1,
    batchEvents: 10,
    onError: ({ message }) => errors.push(message),
  })
  await sendAll(client, 'never', 25)
  expect(await client.close()).toMatchObject({ sent: 25, stored: 15, undeliverable: 10, waiting: 0 })
  expect(errors).toEqual([expect.stringContaining('10 events will never be taken: status 413')])
  proxy.close()
  proxy.closeAllConnections()
})

test('over NATS, by request and by stream => counted; the stream keeps them while the service is away', async () => {
  const refusals: ClientRefusal[] = []
  const count = await counted('acme', async () => {
    const request = openClient({
      url: nats.url,
      tenant: 'acme',
      gzip: true,
      onRefused: (list) => refusals.push(...list),
    })
    await sendAll(request, 'nats-request', 1_234)
    request.send({ id: 'other', tenant: 'banque', metric: 'kyc' })
    expect(await request.close()).toMatchObject({ sent: 1_235, stored: 1_234, refused: 1, published: 0 })
    await service.end('SIGTERM')
    const stream = openClient({ url: nats.url, tenant: 'acme', via: 'stream' })
    await sendAll(stream, 'nats-stream', 4_321)
    expect(await stream.close()).toMatchObject({ sent: 4_321, published: 4_321, stored: 0, waiting: 0 })
    await service.start()
    const control = await connect({ servers: nats.url })
    const manager = await control.jetstreamManager()
    await until(async () => (await manager.streams.info('RELEVE_USAGE')).state.messages === 0)
    await control.close()
  })
  expect(count).toBe(1_234 + 4_321)
  expect(refusals).toMatchObject([{ id: 'other', code: 'forbidden_tenant' }])
})

test('nats-server dies and comes back => the client sends on, nothing is lost, nothing counts twice', async () => {
  const errors: Error[] = []
  const client = openClient({
    url: nats.url,
    tenant: 'banque',
    batchEvents: 20,
    onError: (error) => errors.push(error),
  })
  const count = await counted('banque', async () => {
    await sendAll(client, 'nats-kill', 400, 'banque')
    await client.flush()
    await nats.kill()
    await sendAll(client, 'nats-kill', 400, 'banque', 400)
    await until(() => errors.length > 0)
    await nats.start()
    expect(await client.close(60_000)).toMatchObject({ sent: 800, stored: 800, waiting: 0 })
  })
  expect(count).toBe(800)
})

test('options that are wrong => said at once', () => {
  expect(() => openClient({ url: 'ftp://x' })).toThrow('url must be')
  expect(() => openClient({ url: nats.url })).toThrow('the client needs its tenant')
  expect(() => open({ batchEvents: 0 })).toThrow('batchEvents must be')
  expect(() => openClient({ url: nats.url, tenant: 'acme', batchBytes: 1_000_000 })).toThrow('batchBytes must be')
})
