/**
 * Usage that changes after its period was closed, on the real road: late events and voids, by every policy, before and after the
 * invoice is issued; always so that everything billed together is what one invoice over the final usage would be.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { seedContracts, seedCustomers } from '../../src/catalog/seeds.js'
import { Decimal } from '../../src/decimal.js'
import type { KeptInvoice } from '../../src/invoicing/invoicing.js'
import { promises } from '../promises.js'
import { MARCH, openTestService, type TestService } from './service.js'

let service: TestService

/** Contracts of a test's own, each with 60 verifications in March: a fee of 200.00 and 10 × 2.50. */
const policies = {
  stale: null,
  grace: null,
  batched: null,
  unproved: null,
  plain: null,
  complementary: { usage: 'complementary_invoice' },
  alone: { usage: 'complementary_invoice', corrections: 'credit_note' },
  credited: { corrections: 'credit_note' },
  refused: { usage: 'reject' },
  killed: { usage: 'complementary_invoice' },
} as const
type Name = keyof typeof policies
const names = Object.keys(policies) as Name[]

function of(name: Name): { tenant: string; contract: string } {
  const { tenant } = seedCustomers[names.indexOf(name)]!
  return { tenant, contract: `${tenant}-late` }
}
const close = async (contract: string, at = MARCH.from): Promise<KeptInvoice | null> =>
  (await service.system.billing.closePeriod({ contract, at })).invoice
async function more(tenant: string, count: number): Promise<void> {
  await service.send({ tenant, metric: 'kyc_verification', count, first: 1_000 })
  await service.system.settle()
}
/** Takes back events of the month, as their senders would. */
async function voids(tenant: string, count: number): Promise<void> {
  const events = Array.from({ length: count }, (_, i) => ({
    id: `kyc_verification-${i}`,
    metric: 'kyc_verification',
    subject: `agent-${i % 7}`,
    time: MARCH.from + i * 60_000,
    value: '1',
    kind: 'void',
  }))
  const answer = await service.system.ingest({
    body: Buffer.from(JSON.stringify(events)),
    format: 'json',
    tenant,
    wait: true,
  })
  expect(answer.applied).toMatchObject({ accepted: count })
  await service.system.settle()
}
const lines = (kept: KeptInvoice | null) => kept?.invoice.lines.map((line) => [line.type, line.amount])
const late = (contract: string) => service.system.billing.previewLate({ contract, at: MARCH.from })
const settle = (contract: string) =>
  service.system.billing.settleLate({ contract, at: MARCH.from, by: { actor: 'key:ops' } })
/** All documents of a contract together. */
async function billed(contract: string): Promise<string> {
  const all = await service.system.invoicing.list({ contract })
  return all
    .filter((one) => one.state !== 'discarded')
    .reduce((sum, one) => sum.plus(one.invoice.ht), new Decimal(0))
    .toFixed(2)
}
async function equal(id: string): Promise<void> {
  const found = await service.system.billing.verifyInvoice(id)
  expect([found.equal, found.document, found.lines.filter((line) => !line.equal)]).toEqual([true, [], []])
}

// The clock goes forward only: the tests go through March's end, the days behind it, and the closing of April, in this order.
beforeAll(async () => {
  service = await openTestService()
  for (const name of names) {
    const { tenant, contract } = of(name)
    const late = policies[name]
    await service.system.catalog.putContract({
      ...seedContracts[1]!,
      id: contract,
      tenant,
      items: [{ id: `${contract}/1`, plan: 'oid-business' }],
      ...(late === null ? {} : { late }),
    })
  }
  await service.system.catalogSettled()
  for (const name of names) await service.send({ tenant: of(name).tenant, metric: 'kyc_verification', count: 60 })
  await service.system.settle()
}, 120_000)
afterAll(async () => service?.close())

describe('before the invoice is issued', () => {
  test('of all contracts in a batch => drafts in grace, which no batch issues early', async () => {
    const { tenant, contract } = of('batched')
    const { billing, invoicing } = service.system
    service.clock.set(MARCH.to + 1_000)
    const early = { at: MARCH.from, tenant, early: true }
    expect(await billing.closeDuePeriods(early)).toMatchObject({ drafted: 1, issued: 0, failed: 0 })
    expect((await invoicing.ofPeriod(contract, MARCH.from))!.state).toBe('grace')
    expect(await billing.closeDuePeriods(early)).toMatchObject({ before: 1, drafted: 0, issued: 0 })
    expect(await billing.closeDuePeriods({ at: MARCH.from, tenant })).toMatchObject({ due: 0 })
    await service.send({ tenant, metric: 'kyc_verification', count: 4, first: 500 })
    await service.system.settle()
  })

  test('in its grace => a draft in grace that nobody can issue early; at the end it is counted again', async () => {
    const { tenant, contract } = of('grace')
    const { billing } = service.system
    service.clock.set(MARCH.to + 1_000)
    await expect(billing.closePeriod({ contract, at: MARCH.from })).rejects.toThrow(/it can be closed from/)
    const draft = (await billing.closePeriod({ contract, at: MARCH.from, early: true })).invoice!
    expect([draft.state, draft.invoice.number]).toEqual(['grace', null])
    await service.send({ tenant, metric: 'kyc_verification', count: 2, first: 500 })
    await service.system.settle()
    service.endMarch()
    expect(lines(await close(contract))).toEqual([
      ['fee', '200.00'],
      ['usage', '30.00'],
    ])
  })

  test('behind the grace the batch counts its drafts again and issues them', async () => {
    const { tenant, contract } = of('batched')
    const { billing, invoicing } = service.system
    expect(await billing.closeDuePeriods({ at: MARCH.from, tenant })).toMatchObject({ issued: 1, failed: 0 })
    expect(lines(await invoicing.ofPeriod(contract, MARCH.from))).toEqual([
      ['fee', '200.00'],
      ['usage', '35.00'],
    ])
  })

  test('late events and voids make a draft stale: it is counted again before it is issued', async () => {
    const { tenant, contract } = of('stale')
    const { billing, invoicing } = service.system
    const draft = (await billing.closePeriod({ contract, at: MARCH.from, finalise: false })).invoice!
    expect(lines(draft)).toEqual([
      ['fee', '200.00'],
      ['usage', '25.00'],
    ])
    expect(await late(contract)).toMatchObject({ goes: 'nothing', differences: [] })
    await more(tenant, 4)
    expect(await late(contract)).toMatchObject({
      goes: 'draft',
      differences: [{ metric: 'kyc_verification', billed: '60', now: '64' }],
    })
    const again = (await billing.refreshInvoice(draft.invoice.id, { actor: 'key:ops' })).invoice!
    expect(lines(again)).toEqual([
      ['fee', '200.00'],
      ['usage', '35.00'],
    ])
    expect((await invoicing.moves(draft.invoice.id)).at(-1)).toMatchObject({
      to: 'discarded',
      actor: 'key:ops',
      reason: 'counted again',
    })
    await voids(tenant, 8)
    const issued = (await close(contract))!
    expect([issued.state, lines(issued)]).toEqual([
      'finalised',
      [
        ['fee', '200.00'],
        ['usage', '15.00'],
      ],
    ])
    await equal(issued.invoice.id)
    await expect(billing.refreshInvoice(issued.invoice.id, { actor: 'x' })).rejects.toThrow(/immutable/)
  })

  test(`one rollup row altered before the closing => refused; as an unproved draft, verify says not equal ${promises('invoice:explains-itself')}`, async () => {
    const { tenant, contract } = of('unproved')
    const { billing, engines } = service.system
    await engines.clickhouse.command({
      query: `ALTER TABLE usage_minute UPDATE sum = sum + 5, count = count + 5
        WHERE tenant = '${tenant}' AND metric = 'kyc_verification' AND window = toDateTime('2026-03-01 00:05:00', 'UTC')`,
      clickhouse_settings: { mutations_sync: '2' },
    })
    await expect(close(contract)).rejects.toThrow(/the rollups say 65, the archive says 60/)
    const draft = (await billing.closePeriod({ contract, at: MARCH.from, unproved: true })).invoice!
    expect([draft.state, lines(draft)]).toEqual([
      'draft',
      [
        ['fee', '200.00'],
        ['usage', '37.50'],
      ],
    ])
    const found = await billing.verifyInvoice(draft.invoice.id)
    expect(found.equal).toBe(false)
    expect(found.lines[1]!.differences).toContainEqual({ what: 'quantity', stored: '65', found: '60' })
    expect(found.lines[1]!.differences).toContainEqual({ what: 'amount', stored: '37.50', found: '25.00' })
  })
})

describe('after it', () => {
  test('by default more is on the next invoice, and so is less; the preview says so and keeps nothing', async () => {
    const { tenant, contract } = of('plain')
    await close(contract)
    // Stored and counted, but in no checkpoint yet: a preview waits for that, each of many at once.
    await service.send({ tenant, metric: 'kyc_verification', count: 4, first: 1_000 })
    const early = await Promise.all([late(contract), late(contract), late(contract)])
    expect(early.map(({ document }) => document?.ht)).toEqual(['10.00', '10.00', '10.00'])
    await service.send({ tenant, metric: 'kyc_verification', count: 6, first: 2_000 })
    const found = await late(contract)
    expect([found.goes, found.document?.ht, found.document?.lines[0]?.type]).toEqual([
      'next_invoice',
      '25.00',
      'regularisation',
    ])
    expect((await settle(contract)).made).toBeNull()
    await voids(tenant, 4)
  })

  test(`complementary invoice: of its own number, once, verified; the next invoice has nothing of it ${promises('invoice:explains-itself')}`, async () => {
    const { tenant, contract } = of('complementary')
    const first = (await close(contract))!
    await more(tenant, 10)
    const { made, goes } = await settle(contract)
    expect([goes, made?.state, made?.invoice.kind, lines(made)]).toEqual([
      'complementary_invoice',
      'finalised',
      'invoice',
      [['regularisation', '25.00']],
    ])
    expect(made!.invoice.number).not.toBe(first.invoice.number)
    await equal(made!.invoice.id)
    await equal(first.invoice.id)
    expect((await settle(contract)).made).toBeNull()
    // Two settlers at once over more usage: one document.
    await more(tenant, 12)
    const both = await Promise.allSettled([settle(contract), settle(contract), settle(contract)])
    const documents = both.flatMap((one) =>
      one.status === 'fulfilled' && one.value.made !== null ? [one.value.made.invoice.id] : [],
    )
    expect(new Set(documents).size).toBe(1)
  })

  test(`voids after the invoice => a credit note of its own series, tied to it, verified ${promises('invoice:issued-never-changes')}`, async () => {
    const { tenant, contract } = of('credited')
    const first = (await close(contract))!
    await voids(tenant, 4)
    const found = await late(contract)
    expect([found.goes, found.document?.ht]).toEqual(['credit_note', '-10.00'])
    const { made } = await settle(contract)
    expect(made).toMatchObject({
      state: 'finalised',
      invoice: {
        kind: 'credit_note',
        refersTo: { id: first.invoice.id, number: first.invoice.number },
        ht: '-10.00',
        ttc: '-11.80',
      },
    })
    expect(made!.invoice.number).toMatch(/^AV-2026-/)
    expect((await service.system.invoicing.moves(made!.invoice.id)).at(-1)).toMatchObject({ actor: 'key:ops' })
    await equal(made!.invoice.id)
    expect((await service.system.invoicing.get(first.invoice.id)).hash).toBe(first.hash)
    // What is credited can no longer be credited again: 265.50 less 11.80 are left.
    await expect(service.system.invoicing.credit(first.invoice.id, '253.71')).rejects.toThrow(
      /exceeds_creditable: 253\.70/,
    )
    expect((await settle(contract)).made).toBeNull()
  })

  test('refused => said before anybody asks for it to be billed', async () => {
    const { tenant, contract } = of('refused')
    await close(contract)
    await more(tenant, 10)
    expect(await late(contract)).toMatchObject({ goes: 'rejected' })
  })

  test('killed between the draft of a correction and its issue => the next settling issues it, and makes no second one', async () => {
    const { tenant, contract } = of('killed')
    await close(contract)
    await more(tenant, 10)
    const left = await service.system.billing.settleLate({ contract, at: MARCH.from, finalise: false })
    expect(left.made?.state).toBe('draft')
    const { made } = await settle(contract)
    expect([made?.state, made?.invoice.id]).toEqual(['finalised', left.made?.invoice.id])
    expect((await settle(contract)).made).toBeNull()
    // A correction that is dropped instead leaves its usage late.
    await more(tenant, 12)
    const dropped = await service.system.billing.settleLate({ contract, at: MARCH.from, finalise: false })
    await service.system.invoicing.discard(dropped.made!.invoice.id)
    expect((await late(contract)).document?.ht).toBe(dropped.made!.invoice.ht)
  })
})

describe('the closing of the next period', () => {
  beforeAll(async () => {
    const { tenant, contract } = of('alone')
    await close(contract)
    await more(tenant, 10)
    service.clock.set('2026-05-01T02:00:00Z')
  })
  const APRIL = MARCH.to

  test('has the difference as a regularisation, by default', async () => {
    const { contract } = of('plain')
    expect(lines(await close(contract, APRIL))).toEqual([
      ['fee', '200.00'],
      ['regularisation', '15.00'],
    ])
    expect(await billed(contract)).toBe('440.00')
    expect((await late(contract)).goes).toBe('nothing')
  })

  test('has nothing of what corrections have billed or credited', async () => {
    for (const [name, all] of [
      ['complementary', '455.00'],
      ['credited', '415.00'],
    ] as const) {
      const { contract } = of(name)
      expect(lines(await close(contract, APRIL))).toEqual([['fee', '200.00']])
      expect(await billed(contract)).toBe(all)
    }
  })

  test('makes the corrections that nobody has asked for, in the batch too', async () => {
    const report = await service.system.billing.closeDuePeriods({ at: APRIL, tenant: of('alone').tenant })
    expect(report.failures).toEqual([])
    const { contract } = of('alone')
    const all = await service.system.invoicing.list({ contract })
    expect(all.map((one) => [one.state, one.invoice.ht]).sort()).toEqual([
      ['finalised', '200.00'],
      ['finalised', '225.00'],
      ['finalised', '25.00'],
    ])
    for (const one of all) await equal(one.invoice.id)
  })

  test('tells once what the contract does not bill', async () => {
    const { contract } = of('refused')
    const april = (await close(contract, APRIL))!
    expect([lines(april), april.invoice.notices.map((one) => [one.code, one.quantity])]).toEqual([
      [['fee', '200.00']],
      [['late_refused', '10']],
    ])
    await equal(april.invoice.id)
    service.clock.set('2026-06-01T02:00:00Z')
    const may = (await close(contract, Date.UTC(2026, 4, 1)))!
    expect([lines(may), may.invoice.notices.filter((one) => one.code === 'late_refused')]).toEqual([
      [['fee', '200.00']],
      [],
    ])
  })
})
