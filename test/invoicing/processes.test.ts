/** Real processes that issue and close at once and are killed with -9 in the middle, on a real PostgreSQL. */
import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { openCatalog } from '../../src/catalog/catalog.js'
import { loadSeeds, seedContracts, seedLegalEntity } from '../../src/catalog/seeds.js'
import { HandClock } from '../../src/clock.js'
import { Invoicing } from '../../src/invoicing/invoicing.js'
import { promises } from '../promises.js'
import { openTestPostgres, type TestPostgres } from './postgres.js'
import { sampleInvoice } from './sample.js'

const run = promisify(execFile)
const at = (name: string): string => fileURLToPath(new URL(`./${name}.js`, import.meta.url))
const clock = new HandClock('2026-04-01T02:00:00Z')
let postgres: TestPostgres

const countersOf = async (legalEntity: string, kind = 'invoice'): Promise<number[]> => {
  const { rows } = await postgres.pool.query(
    'SELECT counter FROM invoices WHERE legal_entity = $1 AND kind = $2 AND counter IS NOT NULL ORDER BY counter',
    [legalEntity, kind],
  )
  return rows.map((row) => Number(row.counter))
}
const upTo = (count: number): number[] => Array.from({ length: count }, (_, i) => i + 1)

beforeAll(async () => {
  postgres = await openTestPostgres()
}, 120_000)
afterAll(async () => postgres?.close())

test(`fifty processes issue the same 150 drafts at once over the turn of a year, a third of them killed with a number in hand => each series from 1 on, without gap or double ${promises('invoice:numbers-have-no-gap')}`, async () => {
  const invoicing = new Invoicing({ postgres: postgres.pool, clock })
  const patterns = { yearly: 'FA-{YYYY}-{NNNN}', monthly: 'INV/{YYYY}/{MM}/{NNNN}', endless: 'F{NNN}' }
  const sellers = Object.entries(patterns).map(([key, invoicePattern]) => ({
    ...seedLegalEntity,
    key,
    invoicePattern,
    timeZone: 'Europe/Paris',
  }))
  const ids: string[] = []
  for (let i = 0; i < 150; i += 1) {
    const draft = sampleInvoice({ seller: sellers[i % 3]!, number: null })
    ids.push((await invoicing.draft({ ...draft, id: invoicing.newId(), contract: `fifty-${i}` })).invoice.id)
  }
  const ended = await Promise.allSettled(
    Array.from({ length: 50 }, (_, i) => {
      // Each begins elsewhere, so that they meet at every draft; a third dies at its first to fourth number.
      const own = [...ids.slice(i * 3), ...ids.slice(0, i * 3)]
      // Every second one is behind midnight of the seller; for the world clock both are in December.
      const now = i % 2 === 0 ? '2026-12-31T22:59:59Z' : '2026-12-31T23:00:00Z'
      return run(process.execPath, [at('finaliser'), postgres.url, now, String(i % 3 === 0 ? 1 + (i % 4) : 0), ...own])
    }),
  )
  const killed = ended.filter((one) => one.status === 'rejected' && one.reason.signal === 'SIGKILL')
  const others = ended.filter((one) => one.status === 'rejected' && one.reason.signal !== 'SIGKILL')
  expect(others).toEqual([])
  expect(killed.length).toBeGreaterThan(0)
  const numbers = async (key: string, form: RegExp) => {
    const { rows } = await postgres.pool.query(
      'SELECT number, counter, issued_on, series FROM invoices WHERE legal_entity = $1 AND counter IS NOT NULL ORDER BY series, counter',
      [key],
    )
    const found = rows.filter((row) => form.test(row.number))
    expect(found.map((row) => Number(row.counter))).toEqual(upTo(found.length))
    expect(found.map((row) => Number(/\d+$/.exec(row.number)![0]))).toEqual(upTo(found.length))
    // Within a series the days never fall.
    expect(found.map((row) => row.issued_on)).toEqual(found.map((row) => row.issued_on).sort())
    const { rows: kept } = await postgres.pool.query(
      'SELECT last FROM number_series WHERE legal_entity = $1 AND series = $2',
      [key, found[0]?.series],
    )
    expect(Number(kept[0]?.last)).toBe(found.length)
    return { count: found.length, days: [...new Set(found.map((row) => row.issued_on))] }
  }
  for (const [key, before, after] of [
    ['yearly', /^FA-2026-\d{4}$/, /^FA-2027-\d{4}$/],
    ['monthly', /^INV\/2026\/12\/\d{4}$/, /^INV\/2027\/01\/\d{4}$/],
  ] as const) {
    const [old, fresh] = [await numbers(key, before), await numbers(key, after)]
    expect([old.days, fresh.days], key).toEqual([['2026-12-31'], ['2027-01-01']])
    expect(old.count + fresh.count).toBe(50)
  }
  expect((await numbers('endless', /^F\d{3}$/)).count).toBe(50)
}, 240_000)

test(`closings killed at every step, the single way and in batches, two at once => one invoice each, numbered without a gap ${promises('invoice:numbers-have-no-gap')}`, async () => {
  const catalog = await openCatalog({ postgres: postgres.pool, clock })
  await loadSeeds(catalog)
  await postgres.pool.query('DELETE FROM catalog_contracts')
  await catalog.putLegalEntity({ ...seedLegalEntity, key: 'closers' })
  for (let i = 0; i < 12; i += 1) {
    await catalog.putContract({
      ...seedContracts[1]!,
      id: `closed-${String(i).padStart(2, '0')}`,
      legalEntity: 'closers',
      items: [{ id: `closed-${i}/1`, plan: 'oid-business' }],
    })
  }
  const closer = (point: string, n: number, way: string) =>
    run(process.execPath, [at('closer'), postgres.url, point, String(n), way])
  for (const [point, way] of [
    ['measured', 'single'],
    ['drafted', 'single'],
    ['number-taken', 'single'],
    ['measured', 'single'],
    ['drafted', 'single'],
    ['rated', 'batch'],
    ['number-taken', 'batch'],
    ['number-taken', 'single'],
  ] as const)
    await expect(closer(point, 1, way), `${point} ${way}`).rejects.toMatchObject({ signal: 'SIGKILL' })
  // Two at once, one of which dies on the way; then two that live.
  await Promise.allSettled([closer('number-taken', 3, 'single'), closer('-', 0, 'batch')])
  await Promise.all([closer('-', 0, 'batch'), closer('-', 0, 'single')])
  expect(await countersOf('closers')).toEqual(upTo(12))
  const { rows } = await postgres.pool.query(
    `SELECT count(*)::int AS n, count(DISTINCT contract)::int AS contracts, min(ttc)::text AS low, max(ttc)::text AS high
     FROM invoices WHERE legal_entity = 'closers'`,
  )
  expect(rows).toEqual([{ n: 12, contracts: 12, low: '271.40', high: '271.40' }])
  const open = await postgres.pool.query(`SELECT id, state FROM closings WHERE state <> 'done'`)
  expect(open.rows).toEqual([])
}, 240_000)
