/**
 * Usage data of golden cases on the service's own road: a catalogue, rows in PostgreSQL, and the closing that collects them. The
 * stream has no events here; what is counted is what the rows say.
 */
import type { Pool } from 'pg'
import { openCatalog } from '../../src/catalog/catalog.js'
import { midnightOf } from '../../src/catalog/schedule.js'
import { HandClock } from '../../src/clock.js'
import { dateIn } from '../../src/format.js'
import { type CloseOptions, closePeriod, type DataPort, type ItemUsage } from '../../src/invoicing/close.js'
import { previewLate } from '../../src/invoicing/correct.js'
import { Invoicing } from '../../src/invoicing/invoicing.js'
import { type Period, windowOf } from '../../src/period.js'
import { claim, withData } from '../../src/usage-data/collect.js'
import { UsageData } from '../../src/usage-data/usage-data.js'

export interface GoldenRecord {
  /** Epoch ms; absent: somewhere in the period. */
  readonly at?: number
  readonly value?: string
  readonly data?: object
  readonly state: 'draft' | 'pending' | 'collected' | 'excluded'
  readonly doNotInvoice?: boolean
}

/** An item id is of one contract. */
const itemOf = (contract: string): string => `${contract}/IOT_NS542`
let serial = 0

/** The calendar month YYYY-MM of a zone. */
export const monthNamed = (name: string, zone: string): Period =>
  windowOf(midnightOf(`${name}-01`, zone), 'month', zone)

/** A contract of a series of its own, a month before the first of its cases' periods. */
async function openContract(
  postgres: Pool,
  month: string,
  {
    late,
    calculator = { name: 'mesures', reads: 'values', metric: 'mesures' },
  }: { late?: object; calculator?: object } = {},
) {
  serial += 1
  const id = `golden-${serial}`
  const period = monthNamed(month, 'UTC')
  const before = monthNamed(dateIn(period.from - 1, 'UTC').slice(0, 7), 'UTC')
  const clock = new HandClock(dateIn(before.from, 'UTC'))
  const catalog = await openCatalog({ postgres, clock })
  await catalog.putMetric({ key: 'mesures', aggregation: 'sum', unit: 'mesure', scale: 9 })
  await catalog.putProduct({ key: 'IOT', name: 'Objets connectés' })
  await catalog.putPrice({
    rule: { rule_id: 'mesure', type: 'per_unit', metric: 'mesures', unit_price: '0.50', currency: 'EUR' },
    version: '1.0',
    status: 'active',
    effectiveFrom: 0,
  })
  const metrics = [{ metric: 'mesures', included: '0', rule: 'mesure' }]
  await catalog.putPlan({ key: 'flotte', product: 'IOT', name: 'Flotte', feeRule: null, metrics })
  // When a month of the contract ends it is still the month's last day where the seller is: the day of issue says which number.
  await catalog.putLegalEntity({
    key: id,
    name: 'Orbus',
    country: 'CI',
    invoicePattern: 'INV/{YYYY}/{MM}/{NNNN}',
    timeZone: 'Pacific/Honolulu',
  })
  await catalog.putCustomer({
    tenant: id,
    name: id,
    country: 'CI',
    taxRate: '18',
    currency: 'EUR',
    timeZone: 'UTC',
  })
  await catalog.putContract({
    id,
    tenant: id,
    legalEntity: id,
    name: 'Contrat flotte IOT',
    start: dateIn(before.from, 'UTC'),
    timeZone: 'UTC',
    ...(late === undefined ? {} : { late }),
    items: [{ id: itemOf(id), plan: 'flotte', calculators: [calculator] }],
  } as Parameters<typeof catalog.putContract>[0])
  const data = new UsageData({ postgres, clock, catalog })
  const collect: DataPort['collect'] = async (client, { parts, ...request }) => {
    const usage: (readonly ItemUsage[])[] = []
    for (const part of parts) {
      await claim(client, { ...request, ...part })
      usage.push(await withData(client, part, { upTo: request.order }))
    }
    return { usage, notices: [] }
  }
  const nothing = (item: string, metric: string): ItemUsage => ({
    item,
    metric,
    quantity: '0',
    cut: {},
    query: '',
    count: 0,
    digest: '0'.repeat(64),
  })
  const options: CloseOptions = {
    postgres,
    clock,
    catalog,
    invoicing: new Invoicing({ postgres, clock }),
    usageAtCut: async ({ items }) =>
      items.flatMap(({ item, metrics }) => metrics.map((metric) => nothing(item, metric))),
    data: { collect, waiting: (contracts) => data.waiting(contracts) },
  }
  const record = async ({
    at = period.from,
    state,
    doNotInvoice = false,
    ...content
  }: GoldenRecord): Promise<string> => {
    const one = { contract: id, item: itemOf(id), start: at, ...content, doNotInvoice, state }
    const [taken] = await data.create([one], null)
    if (taken?.outcome !== 'created') throw new Error(`cannot record ${JSON.stringify(one)}`)
    return taken.id
  }
  const close = (of: Period, finalise: boolean) =>
    closePeriod(options, { contract: id, at: of.from, finalise, early: true, graceMs: 0 })
  return { id, period, before, clock, options, data, record, close }
}

/** What a closing of the month collects, what becomes of the first record, and the number when it is issued as the month ends. */
export async function collectThroughService(postgres: Pool, month: string, records: readonly GoldenRecord[]) {
  const { period, before, clock, options, data, record, close } = await openContract(postgres, month)
  const ids: string[] = []
  // What is collected already belongs to the closing of the month before.
  for (const one of records)
    ids.push(await record(one.state === 'collected' ? { ...one, at: before.from, state: 'pending' } : one))
  clock.set(period.from)
  await close(before, true)
  clock.set(period.to)
  const { invoice } = await close(period, false)
  const line = invoice?.invoice.lines.find((one) => one.metric === 'mesures' && one.type === 'usage')
  const issued = invoice === null ? null : await options.invoicing.finalise(invoice.invoice.id)
  return {
    quantity: line?.quantity ?? '0',
    state: (await data.get(ids[0]!, null)).state,
    number: issued?.invoice.number ?? null,
  }
}

/** The amount on the invoice for one record that a calculator's formula reads. */
export async function calculateThroughService(postgres: Pool, formula: string, json: object): Promise<string | null> {
  const calculator = { name: 'calcul', reads: 'json', formula, metric: null }
  const { period, clock, record, close } = await openContract(postgres, '2022-04', { calculator })
  await record({ data: json, state: 'pending' })
  clock.set(period.to)
  const { invoice } = await close(period, false)
  return invoice?.invoice.lines.find((one) => one.proof?.data?.calculators.includes('calcul'))?.amount ?? null
}

/** Where a datum goes that comes when its month has a draft or an issued invoice. */
export async function lateThroughService(
  postgres: Pool,
  month: string,
  invoiceState: 'draft' | 'finalized',
  policy: string,
): Promise<{ readonly goes: string; readonly month: string; readonly line: string | null }> {
  const { id, period, clock, options, record, close } = await openContract(postgres, month, { late: { usage: policy } })
  await record({ value: '3', state: 'pending' })
  clock.set(period.to)
  await close(period, invoiceState === 'finalized')
  await record({ value: '5', state: 'pending' })
  const found = await previewLate(
    options,
    { contract: id, at: period.from },
    {
      part: () => async () => '0',
      whole: async (terms, own) =>
        withData(
          postgres,
          {
            terms,
            period: own,
            usage: await options.usageAtCut({
              closing: 'preview',
              tenant: id,
              contract: id,
              items: terms.items.map(({ item, metrics }) => ({ item, metrics: metrics.map((one) => one.metric) })),
              period: own,
            }),
          },
          'all',
        ),
    },
  )
  if (found.goes !== 'next_invoice') return { goes: found.goes, month, line: null }
  const next = monthNamed(dateIn(period.to, 'UTC').slice(0, 7), 'UTC')
  clock.set(next.to)
  const { invoice } = await close(next, true)
  const line = invoice?.invoice.lines.find((one) => one.type === 'regularisation')
  return { goes: found.goes, month: dateIn(next.from, 'UTC').slice(0, 7), line: line?.label.fr ?? null }
}
