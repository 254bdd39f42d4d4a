/**
 * Inserts of the archive fail on their way from its thread to ClickHouse, in every manner in which a connection can. Between the two
 * stands a relay that does it, once per fault; what is in the archive is then compared with what was sent, event by event.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { Agent, createServer, request as httpRequest, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Engines, openEngines } from '../../src/engines/engines.js'
import { silentLogger } from '../../src/logger.js'
import { promises } from '../promises.js'
import { type EventInput, openTestSystem, type TestSystem } from '../system.js'

const faults = ['refused', 'cut in the body', 'answer lost', 'killed in the body', 'killed behind the body'] as const
type Fault = (typeof faults)[number]

const directory = mkdtempSync(join(tmpdir(), 'releve-relay-'))
let engines: Engines
let t: TestSystem
/** What the next insert of the archive meets. */
let fault: Fault | undefined
let inserts = 0
let next = 0
const sent = new Map<string, number>()
// Kept connections may be those of a ClickHouse that was killed.
const agent = new Agent({ keepAlive: false })

function relay(request: IncomingMessage, response: ServerResponse): void {
  const isArchive = new URL(request.url!, 'http://x').searchParams.get('query')?.startsWith('INSERT INTO usage_events')
  const met = isArchive ? fault : undefined
  if (isArchive) {
    inserts += 1
    fault = undefined
  }
  const cut = (): void => {
    response.destroy()
    onward.destroy()
  }
  const kill = (): void => {
    process.kill(engines.state().clickhouse.pid!, 'SIGKILL')
  }
  const onward = httpRequest(`${engines.clickhouseHttp.url}${request.url}`, {
    method: request.method,
    headers: request.headers,
    agent,
  })
  onward.on('error', cut)
  onward.on('response', (answer) => {
    if (met === 'answer lost') {
      answer.resume()
      answer.on('end', cut)
      return
    }
    response.writeHead(answer.statusCode!, answer.headers)
    answer.on('error', () => response.destroy())
    answer.pipe(response)
  })
  if (met === 'refused') {
    onward.removeAllListeners('error').on('error', () => {})
    onward.destroy()
    response.writeHead(500).end('Code: 252. DB::Exception: Too many parts')
    return
  }
  let bytes = 0
  request.on('data', (part: Buffer) => {
    bytes += part.length
    if (met === 'cut in the body' && bytes > 500_000) {
      // Half of this piece: behind what is whole for anyone who reads rows or blocks.
      onward.write(part.subarray(0, part.length >> 1), cut)
      return
    }
    if (met === 'killed in the body' && bytes > 500_000) kill()
    onward.write(part)
  })
  request.on('end', () => {
    if (met === 'killed behind the body') onward.end(kill)
    else onward.end()
  })
}

const server = createServer(relay)

beforeAll(async () => {
  const onFatal = (error: Error): void => {
    throw error
  }
  engines = await openEngines({ dataDirectory: directory, logger: silentLogger, onFatal })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { user, password, database } = engines.clickhouseHttp
  const { port } = server.address() as AddressInfo
  t = await openTestSystem({
    settings: {
      RELEVE_STREAMS: '1',
      RELEVE_EPOCH_MS: '200',
      CLICKHOUSE_URL: `http://${user}:${password}@127.0.0.1:${port}/${database}`,
    },
  })
}, 120_000)

afterAll(async () => {
  await t?.close()
  server.closeAllConnections()
  server.close()
  await engines?.close()
  rmSync(directory, { recursive: true, force: true })
}, 60_000)

async function send(count: number): Promise<void> {
  const events: EventInput[] = Array.from({ length: count }, () => {
    next += 1
    sent.set(`e${next}`, (next % 89) + 1)
    return {
      id: `e${next}`,
      tenant: 'gamma',
      metric: 'data',
      subject: `${'s'.repeat(150)}${next % 7}`,
      value: String((next % 89) + 1),
      dims: { region: 'abidjan' },
    }
  })
  const answer = await t.post(events)
  expect(answer.statusCode).toBe(202)
}

for (const one of faults) {
  test(`${promises('flow:exactly-once')} an insert of the archive is ${one} while events come in => the archive has every event once, as it was sent`, async () => {
    const before = inserts
    fault = one
    // Several epochs: what comes behind the failed one must not touch its rows, which wait to be sent again.
    for (let i = 0; i < 8; i += 1) await send(1_500)
    await t.system.settle()
    await expect.poll(() => fault).toBeUndefined()
    for (let i = 0; i < 4; i += 1) await send(500)
    await t.system.settle()
    // The one that failed, the same again, and another epoch.
    expect(inserts - before).toBeGreaterThan(2)

    const rows = await t.system.rollup.rowsOf<{ id: string; value: string; subject: string }>(
      `SELECT id, toString(value) AS value, subject FROM usage_events WHERE metric = 'data' ORDER BY id`,
      {},
    )
    expect(rows.length).toBe(sent.size)
    expect(new Map(rows.map(({ id, value }) => [id, Number(value)]))).toEqual(sent)
    expect((await t.system.audit()).checks.filter((check) => !check.ok)).toEqual([])
    expect(t.system.books()).toMatchObject({ balanced: true, onTheWay: 0 })
    const { values } = await t.system.metrics.surplus.get()
    expect(values.reduce((sum, { value }) => sum + value, 0)).toBe(0)
  })
}
