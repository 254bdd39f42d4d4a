/**
 * An engine dies or stands still under a running service. Events are taken into the log meanwhile, within its bounds; what was
 * acknowledged is counted when the engine is back, once; what is not taken is told so with 503 and Retry-After.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeAll, expect, test } from 'vitest'
import { promises } from '../promises.js'
import { type EventInput, openTestSystem, type TestSystem } from '../system.js'

let t: TestSystem
let next = 0
/** Events that were answered 202, by tenant. */
const acknowledged = { alpha: 0, gamma: 0 }
const stopped = new Set<number>()

beforeAll(async () => {
  // Small bounds, so that a test reaches them with kilobytes: memory between log and shard, segments and disk of the log.
  t = await openTestSystem({
    settings: { RELEVE_EPOCH_MS: '200' },
    config: { tailBytesMax: 64 * 1024, segmentBytes: 256 * 1024, logBytesMax: 4 * 1024 * 1024 },
  })
})

afterEach(() => {
  for (const pid of stopped) process.kill(pid, 'SIGCONT')
  stopped.clear()
})

const pidOf = (engine: 'clickhouse' | 'postgres'): number => {
  const { pid } = t.system.engines.state()[engine]
  if (pid === undefined) throw new Error(`${engine} does not run`)
  return pid
}

interface Sent {
  readonly status: number
  readonly retryAfter: string | undefined
  readonly code: string | undefined
}

async function send(tenant: 'alpha' | 'gamma', count: number, width = 0): Promise<Sent> {
  const events: EventInput[] = Array.from({ length: count }, () => ({
    id: `e${next++}`,
    tenant,
    metric: 'calls',
    subject: 'x'.repeat(width),
    dims: { region: 'abidjan' },
  }))
  const answer = await t.post(events)
  if (answer.statusCode === 202) acknowledged[tenant] += count
  return {
    status: answer.statusCode,
    retryAfter: answer.headers['retry-after'] as string | undefined,
    code: answer.json().code,
  }
}

/** Usage from ClickHouse once everything has a checkpoint, and the audit: nothing lost, nothing twice. */
async function expectAllCounted(): Promise<void> {
  await t.system.settle()
  for (const tenant of ['alpha', 'gamma'] as const) {
    const { windows } = await t.system.answers.usage({
      tenant,
      metric: 'calls',
      from: '2026-03-01T00:00:00Z',
      to: '2026-05-01T00:00:00Z',
      window: null,
      timeZone: 'UTC',
    })
    expect(Number(windows[0]?.value ?? 0), tenant).toBe(acknowledged[tenant])
  }
  expect((await t.system.audit()).checks.filter((check) => !check.ok)).toEqual([])
  expect(t.system.books()).toMatchObject({ balanced: true, onTheWay: 0 })
}

/** Sends until the engine was away for `rounds` of it; every event must be taken. */
async function sendThrough(rounds: number): Promise<void> {
  for (let i = 0; i < rounds; i += 1) {
    expect(await send(i % 2 === 0 ? 'alpha' : 'gamma', 40)).toMatchObject({ status: 202 })
    await sleep(20)
  }
}

for (const engine of ['clickhouse', 'postgres'] as const) {
  test(`${promises('flow:exactly-once')} ${engine} is killed while events come in => all are taken, and all are counted once when it is back`, async () => {
    await sendThrough(5)
    const { restarts } = t.system.engines.state()[engine]
    process.kill(pidOf(engine), 'SIGKILL')
    await sendThrough(30)
    await expectAllCounted()
    expect(t.system.engines.state()[engine]).toMatchObject({ up: true, restarts: restarts + 1 })
  })

  test(`${promises('flow:exactly-once')} ${engine} stands still while events come in => all are taken, live quotas go on, and all are counted when it goes on`, async () => {
    const pid = pidOf(engine)
    stopped.add(pid)
    process.kill(pid, 'SIGSTOP')
    await sendThrough(30)
    const answer = await t.app.inject({ url: '/v1/quotas/alpha', headers: t.admin })
    expect(answer.statusCode).toBe(200)
    const health = (await t.app.inject({ url: '/health/ready' })).json()
    expect(health.ready).toBe(true)
    expect(health.streams.some((s: { flushLagMs: number; lagRecords: number }) => s.lagRecords >= 0)).toBe(true)
    process.kill(pid, 'SIGCONT')
    stopped.delete(pid)
    await expectAllCounted()
  })
}

test('usage is asked for while ClickHouse is away => 503 with Retry-After, not an internal error', async () => {
  const ask = () =>
    t.app.inject({
      url: '/v1/usage?tenant=alpha&metric=calls&from=2026-03-01T00:00:00Z&to=2026-04-01T00:00:00Z',
      headers: t.admin,
    })
  process.kill(pidOf('clickhouse'), 'SIGKILL')
  let away = await ask()
  while (away.statusCode === 200) away = await ask()
  expect(away.statusCode).toBe(503)
  expect(away.json()).toMatchObject({ code: 'unavailable', status: 503 })
  expect(away.headers['retry-after']).toMatch(/^[1-9]/)
  let back = await ask()
  while (back.statusCode !== 200) {
    expect(back.statusCode).toBe(503)
    await sleep(50)
    back = await ask()
  }
  await expectAllCounted()
})

test(`${promises('system:bounded')} the store stands still and the log fills its bound => 503 with Retry-After, memory stays, nothing acknowledged is lost, and it goes on when the store does`, async () => {
  const pid = pidOf('clickhouse')
  stopped.add(pid)
  process.kill(pid, 'SIGSTOP')
  const before = process.memoryUsage().rss
  const refusals: Sent[] = []
  let taken = 0
  // About 100 KiB a batch: far more than the tail in memory, and forty of them than the disk.
  while (refusals.length < 20) {
    const sent = await send('alpha', 400, 200)
    if (sent.status === 202) taken += 1
    else refusals.push(sent)
  }
  expect(taken).toBeGreaterThan(5)
  for (const refusal of refusals) {
    expect(refusal).toMatchObject({ status: 503, code: 'overloaded' })
    expect(refusal.retryAfter).toMatch(/^[1-9]/)
  }
  expect(process.memoryUsage().rss - before).toBeLessThan(200 * 1024 * 1024)
  // The other stream has its own log and goes on.
  expect(await send('gamma', 10)).toMatchObject({ status: 202 })
  process.kill(pid, 'SIGCONT')
  stopped.delete(pid)
  await expectAllCounted()
  expect(await send('alpha', 10)).toMatchObject({ status: 202 })
  await expectAllCounted()
})

test('the service stops while PostgreSQL is being started again => it ends, and the next start has everything', async () => {
  await sendThrough(4)
  process.kill(pidOf('postgres'), 'SIGKILL')
  await sendThrough(4)
  await t.reopen()
  await expectAllCounted()
})
