/**
 * A process of its own that closes all contracts of March, for the tests that kill it: `node closer.js <postgres url> <point>
 * <n> <single|batch>`. Dies by SIGKILL at the n-th pass of the named point (`measured`, `drafted`, `number-taken`, and in a batch
 * `rated`); 0 never. Usage is 62 of each metric.
 */
import pg from 'pg'
import { openCatalog } from '../../src/catalog/catalog.js'
import { HandClock } from '../../src/clock.js'
import { type CloseOptions, closePeriod, type ItemUsage } from '../../src/invoicing/close.js'
import { closeMany } from '../../src/invoicing/close-many.js'
import { draftBatch } from '../../src/invoicing/draft-batch.js'
import { Invoicing } from '../../src/invoicing/invoicing.js'

const [url, point, n, way] = process.argv.slice(2)
let left = Number(n)
const crashPoint = (name: string): void => {
  if (name !== point) return
  left -= 1
  if (left === 0) process.kill(process.pid, 'SIGKILL')
}
const postgres = new pg.Pool({ connectionString: url, max: 4 })
postgres.on('error', () => {})
const clock = new HandClock('2026-04-01T02:00:00Z')
const catalog = await openCatalog({ postgres, clock })
const usage = (items: readonly { readonly item: string; readonly metrics: readonly string[] }[]): ItemUsage[] =>
  items.flatMap(({ item, metrics }) =>
    metrics.map((metric) => ({
      item,
      metric,
      quantity: '62',
      count: 62,
      cut: { 0: 1 },
      query: 'q',
      digest: '0'.repeat(64),
    })),
  )
const options: CloseOptions = {
  postgres,
  clock,
  catalog,
  invoicing: new Invoicing({ postgres, clock, crashPoint }),
  usageAtCut: async ({ items }) => usage(items),
  crashPoint,
}
if (way === 'batch') {
  const pool = {
    draft: async (tasks: Parameters<typeof draftBatch>[0]) => {
      crashPoint('rated')
      return draftBatch(tasks)
    },
    close: async () => {},
  }
  const openCut = async () => ({
    count: async (requests: readonly { readonly items: Parameters<typeof usage>[0] }[]) =>
      requests.map(({ items }) => usage(items)),
    release: async () => {},
  })
  const report = await closeMany({ ...options, pool, openCut }, { at: null })
  if (report.failed > 0) throw new Error(`cannot close: ${JSON.stringify(report.failures)}`)
} else {
  for (const contract of catalog.book().contracts.keys())
    await closePeriod(options, { contract, at: Date.UTC(2026, 2, 10) })
}
await postgres.end()
