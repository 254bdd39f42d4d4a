/**
 * bench/load.ts against a real service: every profile ends with right totals, and totals that are not right are told: an event that
 * another sender slips into the run makes its answer «wrong».
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type LoadReport, profiles, runLoad } from '../../bench/load.js'
import { rootDirectory } from '../../src/paths.js'
import { type DoorSystem, openDoorSystem } from '../doors/door-system.js'

let door: DoorSystem
beforeAll(async () => {
  door = await openDoorSystem()
})
afterAll(() => door.close())

const load = (profile: string, seconds = 1): Promise<LoadReport> =>
  runLoad({
    url: door.url,
    key: door.adminKey,
    profile,
    seconds,
    batch: 10,
    connections: 4,
    metric: null,
    tenants: null,
  })

test('each profile: what was sent is what is counted, to the last digit', async () => {
  for (const profile of Object.keys(profiles)) {
    const report = await load(profile)
    expect(report.right, JSON.stringify(report)).toBe(true)
    expect(report.found).toEqual(report.expected)
    expect(report.distinctEvents).toBeGreaterThan(0)
    if (profile === 'duplicates') expect(report.eventsSent).toBeGreaterThan(1.2 * report.distinctEvents)
  }
})

test('an event too many under the run of a load => its totals are wrong, and it says so', async () => {
  let slipped = false
  const report = await runLoad({
    url: door.url,
    key: door.adminKey,
    profile: 'platform',
    seconds: 2,
    batch: 10,
    connections: 2,
    metric: null,
    tenants: null,
    onProgress: () => {
      if (slipped) return
      slipped = true
      // The run's name is the only dimension value that its metric has had within this second.
      void slip()
    },
  })
  expect(slipped).toBe(true)
  expect(report.right).toBe(false)
  expect(BigInt(report.found.count)).toBe(BigInt(report.expected.count) + 1n)
})

test('a door that lies: it says «stored» for a batch that it drops => the totals are wrong, and the exit code is 1', async () => {
  let dropped = 0
  // Between the load and the service; all but one batch goes through as it is.
  const liar = createServer(async (request, response) => {
    const parts: Buffer[] = []
    for await (const part of request) parts.push(part as Buffer)
    const body = Buffer.concat(parts)
    const { method = 'GET', url = '', headers } = request
    const isBatch = method === 'POST' && url.startsWith('/v1/events') && body.includes('"id"')
    if (isBatch && dropped === 0) {
      dropped = (JSON.parse(body.toString()) as unknown[]).length
      response.writeHead(202, { 'content-type': 'application/json' })
      return response.end(JSON.stringify({ received: dropped, stored: dropped, refused: 0, refusals: [] }))
    }
    const kept = Object.entries(headers).filter(([name]) =>
      ['authorization', 'content-type', 'content-encoding'].includes(name),
    )
    const answer = await fetch(`${door.url}${url}`, {
      method,
      headers: Object.fromEntries(kept) as Record<string, string>,
      ...(body.length > 0 ? { body } : {}),
    })
    response.writeHead(answer.status, { 'content-type': answer.headers.get('content-type') ?? 'application/json' })
    response.end(Buffer.from(await answer.arrayBuffer()))
  }).listen(0, '127.0.0.1')
  await once(liar, 'listening')
  try {
    const { port } = liar.address() as AddressInfo
    const url = `http://127.0.0.1:${port}`
    const child = spawn(
      process.execPath,
      [
        join(rootDirectory, 'dist/bench/load.js'),
        '--url',
        url,
        '--key',
        door.adminKey,
        '--profile',
        'platform',
        '--seconds',
        '1',
        '--batch',
        '10',
      ],
      { stdio: ['ignore', 'pipe', 'ignore'] },
    )
    let out = ''
    child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text))
    const [code] = (await once(child, 'close')) as [number]
    expect(dropped).toBeGreaterThan(0)
    expect([code, out]).toEqual([1, expect.stringContaining('THE TOTALS ARE WRONG')])
  } finally {
    liar.closeAllConnections()
    liar.close()
  }
})

async function slip(): Promise<void> {
  await door.system.settle()
  const rows = await door.system.engines.clickhouse
    .query({
      query: `SELECT dims FROM usage_minute WHERE metric = 'releve_load' ORDER BY epoch DESC LIMIT 1`,
      format: 'JSONEachRow',
    })
    .then((answer) => answer.json<{ dims: string }>())
  const dims = JSON.parse(rows[0]!.dims) as Record<string, string>
  await door.system.ingest({
    body: Buffer.from(JSON.stringify({ id: 'slipped', tenant: 'load-1', metric: 'releve_load', value: '0.001', dims })),
    format: 'json',
    tenant: null,
    wait: true,
  })
}

test('the command: a report on stdout, progress on stderr, exit 0; a wrong key is said in words, exit 2', async () => {
  const run = async (args: readonly string[]): Promise<{ code: number; out: string; err: string }> => {
    const child = spawn(process.execPath, [join(rootDirectory, 'dist', 'bench', 'load.js'), ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let [out, err] = ['', '']
    child.stdout.setEncoding('utf8').on('data', (text: string) => (out += text))
    child.stderr.setEncoding('utf8').on('data', (text: string) => (err += text))
    const [code] = (await once(child, 'close')) as [number]
    return { code, out, err }
  }
  const where = ['--url', door.url, '--seconds', '1', '--batch', '10']
  const good = await run([...where, '--key', door.adminKey])
  expect(good.out).toContain('THE TOTALS ARE RIGHT')
  expect(good.err).toContain('events sent')
  expect(good.code).toBe(0)
  const wrong = await run([...where, '--key', 'rlv_nothing'])
  expect(wrong.code).toBe(2)
  expect(wrong.err).toContain('401')
  const none = await run([...where, '--key', door.adminKey, '--profile', 'none'])
  expect(none.err).toContain('platform')
  expect(none.code).toBe(2)
})
