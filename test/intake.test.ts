/**
 * Bodies that come together share a task of the shard, a record of the log and a sync. Everything that a sender was promised holds as
 * if it had come alone: its verdicts, its places, its tenant, its errors, and who waits for whom.
 */
import { setImmediate as turn } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { limits } from '../src/limits.js'
import type { EventFormat, IngestAnswer } from '../src/system.js'
import { promises } from './promises.js'
import { openTestSystem } from './system.js'

const t = await openTestSystem({ settings: { RELEVE_STREAMS: '1' } })

let next = 1
const event = (more: Record<string, unknown> = {}): Record<string, unknown> => ({
  id: `i${next++}`,
  tenant: 'alpha',
  metric: 'data',
  value: '1',
  ...more,
})

const ingest = (
  body: unknown,
  options: { tenant?: string | null; wait?: boolean; format?: EventFormat } = {},
): Promise<IngestAnswer> =>
  t.system.ingest({
    body: Buffer.from(typeof body === 'string' ? body : JSON.stringify(body)),
    format: options.format ?? 'json',
    tenant: options.tenant ?? null,
    wait: options.wait ?? false,
  })

/** Records that the log got while `run` ran. */
async function recordsOf(run: () => Promise<unknown>): Promise<number> {
  await t.system.settle()
  await run()
  return t.system.books().onTheWay
}

test('small bodies that come in one turn => one record of the log', async () => {
  let answers: IngestAnswer[] = []
  const records = await recordsOf(async () => {
    answers = await Promise.all(Array.from({ length: 300 }, () => ingest(event())))
  })
  expect(records).toBe(1)
  for (const answer of answers) expect(answer).toEqual({ received: 1, stored: 1, refused: 0, refusals: [] })
})

test(`${promises('ingest:verdict-per-event')} bodies judged together => each has its own verdicts, with places of its own`, async () => {
  const twice = event()
  const records = await recordsOf(async () => {
    const [one, bad, broken, both, again, lines, cloud, none] = await Promise.all([
      ingest([event(), event()], { wait: true }),
      ingest([event(), event({ metric: 'nothing' }), event(), event({ value: 'x' })], { wait: true }),
      ingest('[{"id":"never","tenant":"alpha"').catch((error: { code: string }) => error.code),
      ingest([twice, twice], { wait: true }),
      ingest(twice, { wait: true }),
      ingest(`${JSON.stringify(event())}\n{broken\n${JSON.stringify(event())}\n`, { format: 'ndjson', wait: true }),
      ingest(
        { specversion: '1.0', id: `c${next++}`, source: 's', type: 'data', tenant: 'alpha', data: { value: 2 } },
        { format: 'cloudevents', wait: true },
      ),
      ingest([], { wait: true }),
    ])
    expect(one!.applied!.verdicts).toEqual(['accepted', 'accepted'])
    expect(bad).toMatchObject({ received: 4, stored: 2, refused: 2 })
    expect((bad as IngestAnswer).refusals.map(({ index, code }) => [index, code])).toEqual([
      [1, 'unknown_metric'],
      [3, 'value_not_a_number'],
    ])
    expect((bad as IngestAnswer).applied!.verdicts).toEqual(['accepted', 'refused', 'accepted', 'refused'])
    expect(broken).toBe('malformed_body')
    expect(both!.applied!.verdicts).toEqual(['accepted', 'duplicate'])
    expect(again!.applied).toMatchObject({ duplicate: 1, verdicts: ['duplicate'] })
    expect(lines).toMatchObject({ received: 3, stored: 2, refusals: [{ index: 1, code: 'malformed' }] })
    expect(lines!.applied!.verdicts).toEqual(['accepted', 'refused', 'accepted'])
    expect(cloud!.applied!.verdicts).toEqual(['accepted'])
    expect(none).toMatchObject({ received: 0, stored: 0, refused: 0, applied: { verdicts: [] } })
  })
  // The broken one was found by halves; the others still share.
  expect(records).toBeLessThan(7)
})

test(`${promises('tenant:isolated')} bodies under the keys of different tenants, judged together => each speaks for its own`, async () => {
  const bare = (tenant?: string): Record<string, unknown> => {
    const { tenant: _, ...rest } = event()
    return tenant === undefined ? rest : { ...rest, tenant }
  }
  const before = await usage('sigma')
  const records = await recordsOf(async () => {
    const answers = await Promise.all([
      ingest(bare(), { tenant: 'alpha' }),
      ingest(bare(), { tenant: 'sigma' }),
      ingest(bare('alpha'), { tenant: 'sigma' }),
      ingest(bare(), { tenant: null }),
      ingest(bare('sigma'), { tenant: null }),
      ingest(bare(), { tenant: 'unheard' }),
    ])
    expect(answers.map((answer) => answer.refusals.map(({ code }) => code))).toEqual([
      [],
      [],
      ['forbidden_tenant'],
      ['missing_field'],
      [],
      ['unknown_tenant'],
    ])
  })
  expect(records).toBeLessThan(6)
  expect((await usage('sigma')) - before).toBe(2)
})

async function usage(tenant: string): Promise<number> {
  await t.system.settle()
  const answer = await t.app.inject({
    url: `/v1/usage?tenant=${tenant}&metric=data&from=2026-03-31T00:00:00Z&to=2026-04-01T00:00:00Z`,
    headers: t.admin,
  })
  return (answer.json().windows as { value: string }[]).reduce((sum, { value }) => sum + Number(value), 0)
}

test('more events than a record may have => several records, and every event is counted', async () => {
  const before = await usage('gamma')
  const some = (): Record<string, unknown>[] => Array.from({ length: 500 }, () => event({ tenant: 'gamma' }))
  const bodies = Array.from({ length: 50 }, some)
  const records = await recordsOf(() => Promise.all(bodies.map((body) => ingest(body))))
  expect(records).toBeGreaterThan(2)
  expect(records).toBeLessThan(50)
  expect((await usage('gamma')) - before).toBe(25_000)
})

test(`${promises('system:bounded')} a small body behind many large ones => it waits for those in hand, not for all`, async () => {
  const large = (): Record<string, unknown>[] =>
    Array.from({ length: 5_000 }, () => event({ subject: 'x'.repeat(100), tenant: 'gamma' }))
  let done = 0
  const many = Array.from({ length: 24 }, async () => {
    await ingest(large())
    done += 1
  })
  // Some are on their way by now.
  await turn()
  await turn()
  await ingest(event())
  expect(done).toBeLessThan(8)
  await Promise.all(many)
})

test(`${promises('system:bounded')} more bodies than may wait => the surplus is refused as overloaded, the others are taken`, async () => {
  const surplus = 10
  const settled = await Promise.allSettled(
    Array.from({ length: limits.bodiesWaitingMax + surplus }, () => ingest(event())),
  )
  const refused = settled.filter((one) => one.status === 'rejected')
  expect(refused.length).toBe(surplus)
  for (const { reason } of refused) expect(reason).toMatchObject({ code: 'overloaded', retryAfterS: 1 })
})

test('one body larger than the shared memory, one in pieces => taken like any other', async () => {
  const wide = Array.from({ length: 9_000 }, () => event({ subject: 'y'.repeat(200) }))
  const text = Buffer.from(JSON.stringify(wide))
  expect(text.length).toBeGreaterThan(limits.slabBytes)
  const pieces = Array.from({ length: Math.ceil(text.length / 65_536) }, (_, i) =>
    text.subarray(65_536 * i, 65_536 * (i + 1)),
  )
  const answer = await t.system.ingest({ body: pieces, format: 'json', tenant: null, wait: true })
  expect(answer).toMatchObject({ received: 9_000, stored: 9_000, applied: { accepted: 9_000, duplicate: 0 } })
})

test('frames that find no room in the shared memory are handed over, and the shard still has its own => every event is counted', async () => {
  // Bodies that say little for each event: what is made of ten of them is larger than what is left behind them.
  const bodies = Array.from({ length: 20 }, (_, b) =>
    Array.from({ length: 2_000 }, (_, i) => `{"id":"b${b}-${i}","metric":"calls","subject":"${b}-${i}"}`).join('\n'),
  )
  const answers = await Promise.all(
    bodies.map((body) => ingest(body, { tenant: 'alpha', wait: true, format: 'ndjson' })),
  )
  for (const { applied } of answers) expect([applied!.accepted, applied!.duplicate]).toEqual([2_000, 0])
})
