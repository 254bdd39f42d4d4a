/**
 * Ids that exceed memory several times over, through a real service on its own engines. Given: the smallest memory for ids (160,000 a
 * stream), 1.1 million events of which every tenth batch is one that came long before, and two kill -9: one while runs are being
 * built, one when most ids are on disk. Then: the usage in ClickHouse is the sum of the distinct events, and a stop and a start
 * change nothing.
 */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { rootDirectory } from '../../src/paths.js'
import { adminKey, freePort, leftAfter, runCommand, Service, type ServiceOptions } from '../crash/service.js'
import { promises } from '../promises.js'

const BATCH = 10_000
const BATCHES = 100
const TIMEOUT_MS = 400_000

const directory = mkdtempSync(join(tmpdir(), 'releve-ids-'))
let options: ServiceOptions
let service: Service
const now = Date.now()
const minute = now - (now % 60_000)

beforeAll(async () => {
  options = {
    root: rootDirectory,
    directory,
    port: await freePort(),
    env: {
      RELEVE_STREAMS: '1',
      RELEVE_DEDUPE_IDS: '160000',
      RELEVE_DEDUPE_DISK_BYTES: String(2 ** 30),
      RELEVE_EPOCH_MS: '500',
      RELEVE_LOG: 'warn',
    },
  }
  await start()
  await put('/v1/metrics-catalog', { key: 'call', aggregation: 'sum', unit: 'call', scale: 0, dims: [] })
  await put('/v1/customers', {
    ...{ tenant: 'acme', name: 'Acme', country: 'FR', address: [], registrations: {}, taxRate: '20', taxCategory: 'S' },
    ...{ currency: 'EUR', timeZone: 'Europe/Paris', language: 'fr', termDays: 30 },
  })
}, 120_000)

afterAll(async () => {
  if (service?.running) await service.kill('all')
  await leftAfter(directory, 20_000)
  rmSync(directory, { recursive: true, force: true })
}, 60_000)

async function start(): Promise<void> {
  service = new Service(options)
  expect(await service.ready()).toBe(true)
}

const headers = (): Record<string, string> => ({
  authorization: `Bearer ${adminKey(directory)}`,
  'content-type': 'application/json',
})

async function put(path: string, body: unknown): Promise<void> {
  const answer = await fetch(service.url + path, { method: 'PUT', headers: headers(), body: JSON.stringify(body) })
  expect(answer.status, await answer.text()).toBeLessThan(300)
}

const worth = (number: number): number => (number % 7) + 1

function bodyOf(batch: number): string {
  const events = Array.from({ length: BATCH }, (_, i) => {
    const number = batch * BATCH + i
    return `{"id":"e${number}","tenant":"acme","metric":"call","subject":"s${number % 20}","time":${now - (number % 60_000)},"value":${worth(number)}}`
  })
  return `[${events.join(',')}]`
}

/** Sent until it is acknowledged, whatever dies meanwhile. */
async function send(batch: number): Promise<void> {
  const body = bodyOf(batch)
  for (let tries = 0; tries < 600; tries += 1) {
    const answer = await fetch(`${service.url}/v1/events`, { method: 'POST', headers: headers(), body }).catch(
      () => null,
    )
    const text = await answer?.text().catch(() => null)
    if (answer?.status === 202 && text != null) {
      expect(JSON.parse(text)).toMatchObject({ received: BATCH, stored: BATCH })
      return
    }
    await sleep(100)
  }
  throw new Error(`batch ${batch} was never acknowledged`)
}

async function metric(name: string): Promise<number> {
  const text = await fetch(`${service.url}/metrics`, { headers: headers() }).then((answer) => answer.text())
  const line = text.split('\n').find((one) => one.startsWith(`${name}{`) || one.startsWith(`${name} `))
  return line === undefined ? Number.NaN : Number(line.slice(line.lastIndexOf(' ') + 1))
}

async function usage(): Promise<number> {
  const query = new URLSearchParams({
    ...{ tenant: 'acme', metric: 'call' },
    ...{ from: String(minute - 3_600_000), to: String(minute + 3_600_000) },
  })
  const answer = await fetch(`${service.url}/v1/usage?${query}`, { headers: headers() })
  const text = await answer.text()
  expect(answer.status, text).toBe(200)
  const { windows } = JSON.parse(text) as { windows: { value: string | null }[] }
  return windows.reduce((sum, { value }) => sum + Number(value), 0)
}

test(
  `${promises('flow:exactly-once')} ${promises('dedupe:first-only')} ids six times beyond memory, kill -9 twice => the usage of the distinct events`,
  async () => {
    const keys = join(directory, 'data', 'keys', 'stream-0')
    let sent = 0
    const until = async (to: number): Promise<void> => {
      const sender = async (): Promise<void> => {
        while (sent < to) {
          const batch = sent
          sent += 1
          await send(batch)
          // One that came long ago, and is on disk by now.
          if (batch % 10 === 9) await send((batch * 31) % (batch - 4))
        }
      }
      await Promise.all([sender(), sender(), sender()])
    }
    const killed = async (when: () => Promise<boolean>): Promise<void> => {
      for (let i = 0; i < 3_000 && !(await when()); i += 1) await sleep(10)
      await service.kill('service')
      await start()
    }
    // While a run is being built, if one can be met, and something is on disk.
    await Promise.all([until(50), killed(async () => readdirSync(keys).some((name) => name.endsWith('.tmp')))])
    await until(BATCHES)
    await killed(async () => (await metric('releve_dedupe_disk_ids')) > 500_000)
    for (let batch = 0; batch < BATCHES; batch += 9) await send(batch)

    let expected = 0
    for (let number = 0; number < BATCH * BATCHES; number += 1) expected += worth(number)
    const settled = async (): Promise<void> => {
      for (let i = 0; i < 600; i += 1) {
        if ((await metric('releve_flush_lag_seconds')) === 0 && (await metric('releve_log_lag_records')) === 0) return
        await sleep(100)
      }
      throw new Error('the stream does not come to rest')
    }
    await settled()
    expect(await usage()).toBe(expected)
    expect(await metric('releve_dedupe_ids')).toBe(BATCH * BATCHES)
    expect(await metric('releve_dedupe_memory_ids')).toBeLessThanOrEqual(160_000)
    expect(await metric('releve_dedupe_disk_ids')).toBeGreaterThanOrEqual(BATCH * BATCHES - 160_000)
    expect(await metric('releve_dedupe_page_reads')).toBeGreaterThan(0)

    await service.stop()
    const audit = runCommand(options, ['audit'])
    expect(audit.code, audit.out).toBe(0)
    await start()
    for (let batch = 5; batch < BATCHES; batch += 30) await send(batch)
    await settled()
    expect(await usage()).toBe(expected)
    await service.stop()
  },
  TIMEOUT_MS,
)
