/**
 * One contract with a fleet: objects created, activated and closed, with one event for each of most of them. Seconds of each step,
 * lines of the invoice, size of its detail, and memory. `node dist/bench/fleet.bench.js [objects|small]`. Prints one line of JSON.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { HandClock } from '../src/clock.js'
import { parseConfig } from '../src/config.js'
import { chargesTable } from '../src/invoicing/object-detail.js'
import { streamXlsx } from '../src/invoicing/sheet.js'
import { silentLogger } from '../src/logger.js'
import { chargesOf } from '../src/objects/charges.js'
import { openSystem } from '../src/system.js'

const [size = '100000'] = process.argv.slice(2)
const count = size === 'small' ? 500 : Number(size)
const data = mkdtempSync(join(tmpdir(), 'releve-fleet-bench-'))
const clock = new HandClock('2026-03-10T09:00:00Z')
const system = await openSystem({
  config: parseConfig({ RELEVE_DATA: data, RELEVE_PORT: '0', RELEVE_LOG: 'silent' }),
  clock,
  logger: silentLogger,
  onFatal: (error) => {
    throw error
  },
})
const { catalog } = system
await catalog.putMetric({ key: 'mo', aggregation: 'sum', unit: 'Mo', scale: 3 })
await catalog.putProduct({ key: 'P', name: 'P' })
const active = { status: 'active' as const, effectiveFrom: Date.UTC(2026, 0, 1) }
await catalog.putPrice({ rule: { rule_id: 'fee', type: 'flat_fee', amount: '2.50', currency: 'EUR' }, ...active })
await catalog.putPrice({
  rule: { rule_id: 'mo', type: 'per_unit', metric: 'mo', unit_price: '0.013', currency: 'EUR' },
  ...active,
})
await catalog.putPlan({
  key: 'plan',
  product: 'P',
  name: 'Flotte',
  feeRule: 'fee',
  metrics: [{ metric: 'mo', included: '5', rule: 'mo' }],
})
await catalog.putLegalEntity({ key: 'seller', name: 'Seller', country: 'CI' })
await catalog.putCustomer({
  tenant: 't',
  name: 't',
  country: 'CI',
  taxRate: '18',
  currency: 'EUR',
  timeZone: 'Africa/Abidjan',
})
await catalog.putContract({
  id: 'flotte',
  tenant: 't',
  legalEntity: 'seller',
  start: '2026-01-01',
  timeZone: 'Africa/Abidjan',
  items: [{ id: 'objets', plan: 'plan', fleet: { months: 12 } }],
})
await system.catalogSettled()
const seconds = async (work: () => Promise<unknown>): Promise<number> => {
  const from = performance.now()
  await work()
  return Number(((performance.now() - from) / 1000).toFixed(2))
}
const ids = Array.from({ length: count }, (_, i) => `obj-${i}`)
const pages = Array.from({ length: Math.ceil(count / 10_000) }, (_, i) => ids.slice(i * 10_000, (i + 1) * 10_000))
const create = await seconds(async () => {
  for (const page of pages) await system.objects.create(page.map((id) => ({ id, contract: 'flotte', item: 'objets' })))
})
const activate = await seconds(async () => {
  for (const [i, objects] of pages.entries())
    await system.objects.activate({ objects, at: Date.UTC(2026, 2, i % 2 === 0 ? 1 : 9) })
})
for (const [i, page] of pages.entries()) {
  const events = page.map((id, j) => ({
    id: `e-${id}`,
    metric: 'mo',
    subject: id,
    value: `${1 + ((i + j) % 12)}.25`,
    time: Date.UTC(2026, 2, 10, 8) + (j % 1000) * 1000,
  }))
  await system.ingest({ body: Buffer.from(JSON.stringify(events)), format: 'json', tenant: 't', wait: true })
}
await system.settle()
clock.set('2026-04-01T02:00:00Z')
let peak = 0
const watch = setInterval(() => {
  peak = Math.max(peak, process.memoryUsage().rss)
}, 50)
const rss = process.memoryUsage().rss
let issued: Awaited<ReturnType<typeof system.billing.closePeriod>> | undefined
const close = await seconds(async () => {
  issued = await system.billing.closePeriod({ contract: 'flotte', at: Date.UTC(2026, 2, 1) })
})
const { invoice } = issued!.invoice!
let equal = false
const verify = await seconds(async () => {
  equal = (await system.billing.verifyInvoice(invoice.id)).equal
})
let bytes = 0
const detail = await seconds(async () => {
  const table = chargesTable(invoice, chargesOf(system.engines.postgres, issued!.closing))
  for await (const piece of streamXlsx(table)) bytes += piece.length
})
clearInterval(watch)
process.stdout.write(
  `${JSON.stringify({
    objects: count,
    createSeconds: create,
    activateSeconds: activate,
    closeSeconds: close,
    verifySeconds: verify,
    equal,
    xlsxSeconds: detail,
    xlsxMiB: Number((bytes / 2 ** 20).toFixed(1)),
    lines: invoice.lines.map((line) => [line.type, line.objects, line.amount]),
    rssBeforeMiB: Math.round(rss / 2 ** 20),
    rssPeakMiB: Math.round(peak / 2 ** 20),
  })}\n`,
)
await system.close()
rmSync(data, { recursive: true, force: true })
