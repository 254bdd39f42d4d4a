/**
 * What contracts add to the prices of their plans: parts of periods, changes of plan, add-ons, discounts, cap and minimum. The
 * catalogue is on a real PostgreSQL; the usage is given.
 */

import { Decimal } from 'decimal.js'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Catalog, openCatalog } from '../../src/catalog/catalog.js'
import type { ContractInput } from '../../src/catalog/contract.js'
import { changePlan, partOf } from '../../src/catalog/part.js'
import { parsePrice } from '../../src/catalog/price.js'
import { loadSeeds, seedContracts } from '../../src/catalog/seeds.js'
import { HandClock } from '../../src/clock.js'
import { closePeriod } from '../../src/invoicing/close.js'
import type { ItemUsage } from '../../src/invoicing/draft.js'
import { draftInvoice } from '../../src/invoicing/draft.js'
import { type Invoice, Invoicing } from '../../src/invoicing/invoicing.js'
import { promises } from '../promises.js'
import { usageOf } from './march.js'
import { openTestPostgres, type TestPostgres } from './postgres.js'
import { previewInvoice } from './preview.js'

const march = { from: Date.UTC(2026, 2, 1), to: Date.UTC(2026, 3, 1) }
const clock = new HandClock('2026-04-01T02:00:00Z')
let postgres: TestPostgres
let catalog: Catalog

beforeAll(async () => {
  postgres = await openTestPostgres()
  catalog = await openCatalog({ postgres: postgres.pool, clock })
  await loadSeeds(catalog)
}, 120_000)
afterAll(async () => postgres?.close())

/** Every metric of every item, 0 where nothing is given: by item, or for all items. */
function usageFor(contract: string, given: Readonly<Record<string, string>>, period = march): ItemUsage[] {
  return catalog.terms(contract, period).items.flatMap(({ item, metrics }) =>
    metrics.map(({ metric }) => {
      const quantity = given[`${item} ${metric}`] ?? given[metric] ?? '0'
      return { item, metric, quantity, cut: { 0: 1 }, query: 'q', count: Number.parseInt(quantity, 10), digest: '0' }
    }),
  )
}
async function draftOf(
  id: string,
  change: Partial<ContractInput>,
  usage: Readonly<Record<string, string>> = {},
): Promise<Invoice> {
  const items = change.items ?? [{ id: `${id}/1`, plan: 'oid-business' }]
  await catalog.putContract({ ...seedContracts[1]!, id, ...change, items })
  return previewInvoice(catalog, id, march, usageFor(id, usage))
}
const shown = (invoice: Invoice): string[][] =>
  invoice.lines.map((line) => [line.type, line.amount, line.explanation.fr.replaceAll('\u00a0', ' ')])

test('versions with the same tiers within a period cost what one version costs, wherever the changes lie', async () => {
  await draftOf('two-versions', {})
  const terms = catalog.terms('two-versions', march)
  const price = (version: string) =>
    parsePrice(
      {
        rule_id: 'r',
        type: 'tiered',
        metric: 'kyc_verification',
        currency: 'EUR',
        tiers: [
          { up_to: 50, unit_price: '0.333', flat_fee: '2' },
          { up_to: null, unit_price: '0.1', flat_fee: '3' },
        ],
      },
      version,
    )
  const edges = [march.from, Date.UTC(2026, 2, 11), Date.UTC(2026, 2, 21), march.to]
  const rated = (quantities: readonly string[], quantity: string): string => {
    const metric = { metric: 'kyc_verification', unit: 'verification', limit: '0', rule: 'r', price: price('1.0') }
    const later = quantities.slice(1).map((_, i) => ({ from: edges[i + 1]!, price: price(`1.${i + 1}`) }))
    const priced = later.length === 0 ? metric : { ...metric, later }
    const item = { ...terms.items[0]!, fee: null, feeRule: null, metrics: [priced] }
    const usage = {
      ...{ item: item.item, metric: metric.metric, quantity, cut: {}, query: '', count: 0, digest: '' },
      parts: quantities.map((part, i) => ({ period: { from: edges[i]!, to: edges[i + 1]! }, quantity: part })),
    }
    return draftInvoice('x', { ...terms, items: [item] }, march, [usage]).ht
  }
  fc.assert(
    fc.property(fc.tuple(fc.nat(80), fc.nat(80), fc.nat(80)), (parts) => {
      const whole = String(parts.reduce((all, part) => all + part, 0))
      expect(rated(parts.map(String), whole)).toBe(rated([], whole))
    }),
  )
})

describe('parts of a period', () => {
  test('a plan changed on 11 March => both fees by their days, in words, and each part its own usage and quota', async () => {
    const id = 'changed'
    await draftOf(id, {})
    await catalog.putContract(
      changePlan(catalog.book().contractOf(id), { item: `${id}/1`, plan: 'oid-enterprise', from: '2026-03-11' }),
    )
    const invoice = previewInvoice(
      catalog,
      id,
      march,
      usageFor(id, { [`${id}/1 kyc_verification`]: '62', [`${id}/1@2026-03-11 kyc_verification`]: '201' }),
    )
    expect(shown(invoice)).toEqual([
      ['fee', '64.52', 'du 01/03/2026 au 10/03/2026 : 200,00 € × 10 jours sur 31 = 64,52 €'],
      ['usage', '30.00', expect.stringContaining('12 × 2,50 €')],
      ['fee', '338.71', 'du 11/03/2026 au 31/03/2026 : 500,00 € × 21 jours sur 31 = 338,71 €'],
      ['usage', '1.50', expect.stringContaining('201 vérifications KYC')],
    ])
    expect(invoice.lines[1]!.period).toEqual({ from: march.from, to: Date.UTC(2026, 2, 11) })
    expect(invoice.lines[3]!.period).toEqual({ from: Date.UTC(2026, 2, 11), to: march.to })
  })

  test('an item activated on the 20th pays 12 of 31 days; by seconds if the contract says so', async () => {
    const items = [{ id: 'late-item/1', plan: 'oid-business', from: '2026-03-20' }]
    expect((await draftOf('late-item', { items })).ht).toBe('77.42')
    const dst = { from: Date.UTC(2026, 2, 1) - 3_600_000, to: Date.UTC(2026, 3, 1) - 7_200_000 }
    for (const [prorate, ht] of [
      ['day', '19.35'],
      ['second', '19.11'],
    ] as const) {
      const id = `paris-${prorate}`
      await catalog.putContract({
        ...seedContracts[1]!,
        id,
        timeZone: 'Europe/Paris',
        prorate,
        items: [{ id, plan: 'oid-business', from: '2026-03-29' }],
      })
      const fee = previewInvoice(catalog, id, dst, usageFor(id, {})).lines[0]!
      // 200 × 3/31 or 71/743: the golden figures of 29 March in Paris.
      expect(fee.amount).toBe(ht)
      expect(fee.explanation.fr).toContain(prorate === 'day' ? '3 jours sur 31' : '71 heures sur 743')
      expect(fee.explanation.en).toContain(prorate === 'day' ? '3 of 31 days' : '71 of 743 hours')
    }
    // A clock change of half an hour: the month is no whole number of hours, and people are told seconds.
    const id = 'lord-howe'
    const contract = { ...seedContracts[1]!, id, timeZone: 'Australia/Lord_Howe', prorate: 'second' as const }
    await catalog.putContract({ ...contract, items: [{ id, plan: 'oid-business', from: '2026-04-30' }] })
    const april = { from: Date.parse('2026-03-31T13:00:00Z'), to: Date.parse('2026-04-30T13:30:00Z') }
    const [fee] = previewInvoice(catalog, id, april, usageFor(id, {}, april)).lines
    expect(fee!.explanation.en).toContain('86,400 of 2,593,800 seconds')
  })

  test('a contract that ends on 15 March: its fee until then, and no period after', async () => {
    const id = 'ended'
    expect((await draftOf(id, { end: '2026-03-15' })).ht).toBe('96.77')
    const late = { postgres: postgres.pool, clock: new HandClock('2026-06-01'), catalog }
    const invoicing = new Invoicing(late)
    const close = closePeriod({ ...late, invoicing, usageAtCut: usageOf({}) }, { contract: id, at: march.to })
    await expect(close).rejects.toThrow(/ended on 2026-03-15/)
    expect(partOf(catalog.book().contractOf(id), {}, { from: march.to, to: march.to + 1 })).toBeNull()
  })

  test('included quantities are prorated only if the plan says so', async () => {
    const plan = { product: 'OID', metrics: [{ metric: 'kyc_verification', included: '62', rule: 'overage_oid_kyc' }] }
    for (const prorateIncluded of [true, false]) {
      await catalog.putPlan({ key: `part-${prorateIncluded}`, name: 'Part', feeRule: null, ...plan, prorateIncluded })
      const id = `part-${prorateIncluded}`
      const items = [{ id, plan: id, from: '2026-03-17' }]
      const invoice = await draftOf(id, { items }, { kyc_verification: '10' })
      expect(invoice.usage[0]!.limit).toBe(prorateIncluded ? '30' : '62')
    }
  })

  test('two parts with one boundary cost together what the whole costs, to one unit, wherever the boundary is', async () => {
    await draftOf('split', {})
    for (let day = 2; day <= 31; day += 1) {
      const from = `2026-03-${String(day).padStart(2, '0')}`
      const parts = changePlan(catalog.book().contractOf('split'), { item: 'split/1', plan: 'oid-business', from })
      const terms = catalog.terms('split', march)
      const [one] = terms.items
      const cut = Date.parse(`${from}T00:00:00Z`)
      const items = [
        { ...one!, period: { from: march.from, to: cut } },
        { ...one!, item: parts.items[1]!.id, period: { from: cut, to: march.to } },
      ]
      const usage = items.flatMap(({ item }) => usageFor('split', {}).map((entry) => ({ ...entry, item })))
      const { ht } = draftInvoice('x', { ...terms, items }, march, usage)
      expect(new Decimal(ht).minus(200).abs().lte('0.01'), `${from}: ${ht}`).toBe(true)
    }
  })
})

describe('add-ons', () => {
  test('each period, by the part, and once: a line each; a rule without a price is a notice', async () => {
    for (const rule of [
      { rule_id: 'addon_seats', type: 'per_unit', metric: 'seat', unit_price: '12', currency: 'EUR' },
      { rule_id: 'addon_setup', type: 'flat_fee', amount: '500', currency: 'EUR' },
    ])
      await catalog.putPrice({ rule, version: '1.0', status: 'active', effectiveFrom: 0 })
    const draft = { rule_id: 'addon_draft', type: 'flat_fee', amount: '5', currency: 'EUR' }
    await catalog.putPrice({ rule: draft, version: '1.0', status: 'draft', effectiveFrom: 0 })
    const id = 'add-ons'
    const addOn = { rule: 'addon_seats', quantity: '3', once: false }
    const items = [
      {
        id,
        plan: 'oid-business',
        addOns: [
          { ...addOn, name: 'Sièges' },
          { ...addOn, name: 'Sièges (renfort)', from: '2026-03-11', until: '2026-03-20' },
          { name: 'Mise en service', rule: 'addon_setup', quantity: '1', once: true, from: '2026-03-05' },
          { name: 'Sans prix', rule: 'addon_draft', quantity: '1', once: false },
          { name: 'Autre mise en service', rule: 'addon_setup', quantity: '1', once: true, from: '2026-04-05' },
        ],
      },
    ]
    const invoice = await draftOf(id, { items })
    expect(invoice.lines.map((line) => [line.type, line.label.fr, line.amount])).toEqual([
      ['fee', 'Business — abonnement, mars 2026', '200.00'],
      ['add_on', 'Business — Sièges, mars 2026', '36.00'],
      ['add_on', 'Business — Sièges (renfort), mars 2026', '11.61'],
      ['add_on', 'Business — Mise en service, mars 2026', '500.00'],
    ])
    expect(invoice.notices.map((notice) => notice.code)).toEqual(['add_on_unpriced'])
    await expect(
      draftOf('add-ons-2', {
        items: [{ ...items[0]!, id: 'add-ons-2', addOns: [{ ...addOn, name: 'x', rule: 'no-such' }] }],
      }),
    ).rejects.toThrow(/no price rule no-such/)
  })
})

describe('a flat add-on', () => {
  test('is due as many times as there are of it, also by the part of a period, and its words say so', async () => {
    const rule = { rule_id: 'addon_line', type: 'flat_fee', amount: '9.99', currency: 'EUR' }
    await catalog.putPrice({ rule, version: '1.0', status: 'active', effectiveFrom: 0 })
    const id = 'add-ons-flat'
    const addOn = { name: 'Ligne', rule: 'addon_line', once: false }
    const invoice = await draftOf(id, {
      items: [
        {
          id,
          plan: 'oid-business',
          addOns: [
            { ...addOn, quantity: '3' },
            { ...addOn, quantity: '3', from: '2026-03-11', until: '2026-03-20' },
            { ...addOn, quantity: '1' },
            { ...addOn, quantity: '0' },
            { ...addOn, quantity: '2', once: true, from: '2026-03-05' },
          ],
        },
      ],
    })
    const lines = invoice.lines.filter((line) => line.type === 'add_on')
    // 29.97 × 10 / 31 = 9.6677…
    expect(lines.map((line) => [line.quantity, line.amount])).toEqual([
      ['3', '29.97'],
      ['3', '9.67'],
      ['1', '9.99'],
      ['2', '19.98'],
    ])
    expect(lines[0]!.explanation.fr).toBe('3 × abonnement mensuel 9,99\u00a0€ = 29,97\u00a0€')
    expect(lines[0]!.steps).toEqual([expect.objectContaining({ quantity: '3', unitPrice: '9.99', amount: '29.97' })])
  })
})

describe('discounts, cap and minimum', () => {
  test('percent, then a coupon, then the cap: lines in this order, each with its words', async () => {
    const adjustments = {
      discounts: [
        { name: 'AMI', kind: 'amount' as const, value: '20' },
        { name: 'fidélité', kind: 'percent' as const, value: '10' },
        { name: 'expirée', kind: 'percent' as const, value: '50', until: '2026-02-28' },
      ],
      maximum: '190',
    }
    const invoice = await draftOf('discounted', { adjustments }, { kyc_verification: '62', mcp_call: '850' })
    expect(shown(invoice).slice(3)).toEqual([
      ['discount', '-24.75', '10 % de 247,50 € = 24,75 €'],
      ['discount', '-20.00', 'remise de 20,00 €'],
      ['cap', '-12.75', '202,75 € ramenés au plafond de 190,00 €'],
    ])
    expect([invoice.ht, invoice.tva, invoice.ttc]).toEqual(['190.00', '34.20', '224.20'])
  })

  test('minimum: the true-up to it; by days when the contract ends; nothing when it is reached', async () => {
    const adjustments = { minimum: '1000' }
    const invoice = await draftOf('committed', { adjustments })
    expect(shown(invoice).at(-1)).toEqual(['minimum', '800.00', 'minimum de 1 000,00 €, 200,00 € atteints : 800,00 €'])
    const ended = await draftOf('committed-ended', { adjustments, end: '2026-03-15' })
    expect(shown(ended).at(-1)).toEqual([
      'minimum',
      '387.10',
      'minimum de 483,87 € (15 jours sur 31), 96,77 € atteints : 387,10 €',
    ])
    const reached = await draftOf('committed-reached', { adjustments: { minimum: '200' } })
    expect(reached.lines.map((line) => line.type)).toEqual(['fee'])
  })

  test('minimum of a suspended contract: without the days of the suspension, and none for a month of it; in full when it bills fees', async () => {
    const adjustments = { minimum: '1000' }
    const pauses = [{ from: '2026-03-11', until: '2026-03-20' }]
    const part = await draftOf('committed-paused', { adjustments, pauses })
    expect(shown(part)).toEqual([
      ['fee', '135.48', 'du 01/03/2026 au 31/03/2026 : 200,00 € × 21 jours sur 31 (sans 10 suspendus) = 135,48 €'],
      ['minimum', '541.94', 'minimum de 677,42 € (21 jours sur 31, sans 10 suspendus), 135,48 € atteints : 541,94 €'],
    ])
    expect(part.lines[1]!.explanation.en).toContain('(21 of 31 days, without 10 suspended)')
    // Days that two suspensions have are no days twice; and the end comes on top.
    const twice = [...pauses, { from: '2026-03-15', until: '2026-03-25' }]
    const ended = await draftOf('committed-paused-ended', { adjustments, pauses: twice, end: '2026-03-28' })
    expect(shown(ended).map(([type, amount]) => [type, amount])).toEqual([
      ['fee', '83.87'],
      ['minimum', '335.48'],
    ])
    expect(shown(ended)[1]![2]).toContain('minimum de 419,35 € (13 jours sur 31, sans 15 suspendus)')
    const whole = [{ from: '2026-02-20' }]
    expect((await draftOf('committed-asleep', { adjustments, pauses: whole })).lines).toEqual([])
    const awake = { adjustments, pauses: whole, suspension: 'bills_fees' as const }
    expect(shown(await draftOf('committed-awake', awake)).at(-1)).toEqual([
      'minimum',
      '800.00',
      'minimum de 1 000,00 €, 200,00 € atteints : 800,00 €',
    ])
  })

  test('a coupon larger than the charges leaves 0, never less', async () => {
    const adjustments = { discounts: [{ name: 'GROS', kind: 'amount' as const, value: '5000' }] }
    expect((await draftOf('coupon', { adjustments })).ttc).toBe('0.00')
  })

  test('what cannot be is refused with its field', async () => {
    const put = (change: object) => catalog.putContract({ ...seedContracts[1]!, id: 'wrong', ...change })
    await expect(put({ adjustments: { minimum: '2', maximum: '1' } })).rejects.toThrow(/adjustments.minimum/)
    await expect(put({ end: '2025-12-31' })).rejects.toThrow(/end: lies before/)
    await expect(put({ adjustments: { discounts: [{ name: 'a', kind: 'percent', value: '101' }] } })).rejects.toThrow(
      /percent from 0 to 100/,
    )
    const items = [{ id: 'w', plan: 'oid-business', from: '2026-03-02', until: '2026-03-01' }]
    await expect(put({ items })).rejects.toThrow(/until: lies before from/)
  })

  test(`any adjustments, and late usage: all invoices together are what one invoice over the whole says ${promises('rating:lines-sum-to-total')}`, async () => {
    await draftOf('any', {})
    const base = catalog.terms('any', march)
    const april = { from: march.to, to: Date.UTC(2026, 4, 1) }
    const none = usageFor('any', {})
    const cents = fc.integer({ min: 0, max: 100_000 }).map((n) => (n / 100).toFixed(2))
    const adjustments = fc.record(
      {
        discounts: fc.tuple(
          fc.record({
            name: fc.constant('p'),
            kind: fc.constant('percent' as const),
            value: fc.integer({ min: 0, max: 100 }).map(String),
          }),
          fc.record({ name: fc.constant('a'), kind: fc.constant('amount' as const), value: cents }),
        ),
        maximum: cents,
        minimum: cents,
      },
      { requiredKeys: [] },
    )
    const quantity = fc.integer({ min: 0, max: 3_000 }).map(String)
    fc.assert(
      fc.property(adjustments, quantity, quantity, (agreed, first, then) => {
        const terms = { ...base, contract: { ...base.contract, adjustments: agreed } }
        const of = (kyc: string) =>
          none.map((one) => (one.metric === 'kyc_verification' ? { ...one, quantity: kyc, count: Number(kyc) } : one))
        const invoice = draftInvoice('i', terms, march, of(first))
        expect(new Decimal(invoice.ht).isNegative()).toBe(false)
        expect(invoice.lines.reduce((all, line) => all.plus(line.amount), new Decimal(0)).toFixed(2)).toBe(invoice.ht)
        const whole = draftInvoice('w', terms, march, of(then))
        const late = [{ period: march, terms, billed: of(first), usage: of(then) }]
        // April's own charges are those of an April without anything late.
        const next = draftInvoice('n', terms, april, none, late)
        const own = draftInvoice('o', terms, april, none)
        const together = new Decimal(invoice.ht).plus(next.ht).minus(own.ht)
        expect(together.toFixed(2)).toBe(whole.ht)
      }),
      { numRuns: 300 },
    )
  })
})
