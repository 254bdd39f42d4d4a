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

test(`fifty processes issue the same 150 drafts at once, a third of them killed with a number in hand => 1 to 150 ${promises('invoice:numbers-have-no-gap')}`, async () => {
  const invoicing = new Invoicing({ postgres: postgres.pool, clock })
  const seller = { ...seedLegalEntity, key: 'fifty' }
  const ids: string[] = []
  for (let i = 0; i < 150; i += 1) {
    const draft = { ...sampleInvoice({ seller, number: null }), id: invoicing.newId(), contract: `fifty-${i}` }
    ids.push((await invoicing.draft(draft)).invoice.id)
  }
  const ended = await Promise.allSettled(
    Array.from({ length: 50 }, (_, i) => {
      // Each begins elsewhere, so that they meet at every draft; a third dies at its first to fourth number.
      const own = [...ids.slice(i * 3), ...ids.slice(0, i * 3)]
      return run(process.execPath, [at('finaliser'), postgres.url, String(i % 3 === 0 ? 1 + (i % 4) : 0), ...own])
    }),
  )
  const killed = ended.filter((one) => one.status === 'rejected' && one.reason.signal === 'SIGKILL')
  const others = ended.filter((one) => one.status === 'rejected' && one.reason.signal !== 'SIGKILL')
  expect(others).toEqual([])
  expect(killed.length).toBeGreaterThan(0)
  expect(await countersOf('fifty')).toEqual(upTo(150))
  const { rows } = await postgres.pool.query(`SELECT last FROM number_series WHERE legal_entity = 'fifty'`)
  expect(Number(rows[0].last)).toBe(150)
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
