/**
 * Usage that comes after its period was closed, behind prepaid packs, on the real road: packs pay it while they have something, also
 * of what they had forfeited; the rest is billed; voids give back. Every document is verified with its ledger.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { KeptInvoice } from '../../src/invoicing/invoicing.js'
import { MARCH, openTestService, type TestService } from '../invoicing/service.js'
import { promises } from '../promises.js'

const plain = (text: string): string => text.replaceAll('\u00a0', ' ')
const at = (day: number, hour = 0): number => Date.UTC(2026, 2, day, hour)
const APRIL = Date.UTC(2026, 3, 1)
let service: TestService

const TENANTS = {
  next: 'nsia-assurances',
  alone: 'bicici',
  rejects: 'orange-ci',
  blocks: 'bridge-bank',
  again: 'coris-bank',
} as const

const buy = (tenant: string, pack: object) =>
  service.system.prepaid.buy({ contract: tenant, item: `${tenant}/1`, metric: 'mcp_call', quantity: '1', ...pack })
const balances = async (tenant: string): Promise<string[][]> =>
  (await service.system.prepaid.list({ tenant }))
    .map(({ id, balance, debited, forfeited }) => [id, balance, debited, forfeited])
    .sort((a, b) => (a[0]! < b[0]! ? -1 : 1))
const close = async (tenant: string, from: number = MARCH.from): Promise<KeptInvoice> =>
  (await service.system.billing.closePeriod({ contract: tenant, at: from })).invoice as KeptInvoice
const calls = async (tenant: string, count: number, first: number, from: number): Promise<void> => {
  await service.send({ tenant, metric: 'mcp_call', count, first, from })
  await service.system.settle()
}
/** Takes calls back, as their sender would. */
async function voids(tenant: string, count: number, first: number, from: number): Promise<void> {
  const events = Array.from({ length: count }, (_, i) => ({
    ...{ id: `mcp_call-${first + i}`, metric: 'mcp_call', subject: `agent-${i % 7}`, time: from + i * 60_000 },
    ...{ value: '1', kind: 'void' },
  }))
  const body = Buffer.from(JSON.stringify(events))
  expect((await service.system.ingest({ body, format: 'json', tenant, wait: true })).applied).toMatchObject({
    accepted: count,
  })
  await service.system.settle()
}
const amounts = (kept: KeptInvoice): string[][] => kept.invoice.lines.map((line) => [line.type, line.amount])
async function equal(kept: KeptInvoice): Promise<void> {
  const found = await service.system.billing.verifyInvoice(kept.invoice.id)
  expect([found.document, found.lines.flatMap((line) => line.differences), found.equal]).toEqual([[], [], true])
}
async function tampered(sql: string, work: () => Promise<void>): Promise<void> {
  const { postgres } = service.system.engines
  const alter = async (statement: string): Promise<void> => {
    await postgres.query('ALTER TABLE prepaid_entries DISABLE TRIGGER prepaid_entries_stay')
    await postgres.query(statement)
    await postgres.query('ALTER TABLE prepaid_entries ENABLE TRIGGER prepaid_entries_stay')
  }
  await postgres.query('CREATE TABLE kept_entries AS SELECT * FROM prepaid_entries')
  await alter(sql)
  await work()
  await alter('DELETE FROM prepaid_entries')
  await alter('INSERT INTO prepaid_entries OVERRIDING SYSTEM VALUE SELECT * FROM kept_entries')
  await postgres.query('DROP TABLE kept_entries')
}

beforeAll(async () => {
  service = await openTestService()
  const { catalog } = service.system
  const rule = { rule_id: 'call', type: 'per_unit', metric: 'mcp_call', unit_price: '0.10', currency: 'EUR' }
  await catalog.putPrice({ rule, version: '1.0', status: 'active', effectiveFrom: 0 })
  await catalog.putPrice({
    rule: { rule_id: 'fee', type: 'flat_fee', amount: '5.00', currency: 'EUR', billing_cycle: 'monthly' },
    ...{ version: '1.0', status: 'active', effectiveFrom: 0 },
  })
  const plan = { product: 'OID', name: 'Packs', metrics: [{ metric: 'mcp_call', included: '10', rule: 'call' }] }
  await catalog.putPlan({ key: 'packs', ...plan })
  await catalog.putPlan({ key: 'packs-fee', ...plan, feeRule: 'fee' })
  const more: Readonly<Record<string, object>> = {
    [TENANTS.alone]: { late: { usage: 'complementary_invoice', corrections: 'credit_note' } },
    [TENANTS.rejects]: { late: { usage: 'reject' } },
  }
  for (const tenant of Object.values(TENANTS)) {
    const exhaustion = tenant === TENANTS.blocks ? 'block' : tenant === TENANTS.again ? 'auto_recharge' : null
    const recharge = exhaustion === 'auto_recharge' ? { recharge: { quantity: '50', amount: '4.00' } } : {}
    const prepaid = exhaustion === null ? {} : { prepaid: [{ metric: 'mcp_call', exhaustion, ...recharge }] }
    await catalog.putContract({
      ...{ id: tenant, tenant, legalEntity: 'orbus-digital', start: '2026-01-01', timeZone: 'Africa/Abidjan' },
      ...more[tenant],
      items: [{ id: `${tenant}/1`, plan: tenant === TENANTS.alone ? 'packs-fee' : 'packs', ...prepaid }],
    })
    // 10 March, 9:00: A ends on the 15th, B does not.
    await buy(tenant, { id: `${tenant} A`, quantity: '40', expires: '2026-03-15', priority: 1 })
    await buy(tenant, { id: `${tenant} B`, quantity: '30', priority: 2 })
  }
  await service.system.catalogSettled()
  service.clock.set(at(21))
  for (const tenant of Object.values(TENANTS)) {
    await calls(tenant, 40, 0, at(12))
    await calls(tenant, 20, 100, at(20))
  }
  service.endMarch()
  // 60 used, 10 included: A pays 30 and loses 10, B pays 20 and has 10.
  for (const tenant of Object.values(TENANTS))
    await service.system.billing.closePeriod({ contract: tenant, at: MARCH.from })
}, 180_000)
afterAll(async () => service?.close())

test('as closed, and late usage behind it', async () => {
  for (const tenant of Object.values(TENANTS))
    expect(await balances(tenant)).toEqual([
      [`${tenant} A`, '0', '30', '10'],
      [`${tenant} B`, '10', '20', '0'],
    ])
  await calls(TENANTS.next, 12, 200, at(13))
  await calls(TENANTS.again, 40, 200, at(13))
  await calls(TENANTS.blocks, 40, 200, at(13))
  await calls(TENANTS.rejects, 15, 200, at(13))
})

describe('on an invoice of its own', () => {
  test('packs pay what they had forfeited and what they have, the rest is billed; the preview says so and debits nothing', async () => {
    const tenant = TENANTS.alone
    // Before A ended: 10 of what it lost, then 10 of B, and 5 that nobody pays.
    await calls(tenant, 25, 200, at(13))
    const preview = await service.system.billing.previewLate({ contract: tenant, at: MARCH.from })
    expect([preview.goes, preview.document!.ht]).toEqual(['complementary_invoice', '0.50'])
    expect((await balances(tenant))[1]).toEqual([`${tenant} B`, '10', '20', '0'])
    const { made } = await service.system.billing.settleLate({ contract: tenant, at: MARCH.from })
    expect(amounts(made!)).toEqual([['regularisation', '0.50']])
    expect(plain(made!.invoice.lines[0]!.explanation.fr)).toBe(
      '85 appels MCP au lieu de 60, dont 70 payés par des packs au lieu de 50 : 0,50 € − 0,00 € déjà facturés = 0,50 €',
    )
    expect(made!.invoice.notices.map((notice) => plain(notice.text.fr))).toEqual([
      'pack 40 call : 10 de plus utilisés pour mars 2026, après sa facture',
      'pack 30 call : 10 de plus utilisés pour mars 2026, après sa facture',
    ])
    expect(await balances(tenant)).toEqual([
      [`${tenant} A`, '0', '40', '0'],
      [`${tenant} B`, '0', '30', '0'],
    ])
    await equal(made!)
  })

  test('a correction that is dropped gives back what it took; made again it takes it again', async () => {
    const tenant = TENANTS.alone
    await voids(tenant, 15, 100, at(20))
    const request = { contract: tenant, at: MARCH.from }
    const draft = (await service.system.billing.settleLate({ ...request, finalise: false })).made!
    // 70 used: the 5 that were billed come back as money, 10 go back to B.
    expect([draft.invoice.kind, ...amounts(draft)]).toEqual(['credit_note', ['regularisation', '-0.50']])
    expect((await balances(tenant))[1]).toEqual([`${tenant} B`, '10', '20', '0'])
    await service.system.invoicing.discard(draft.invoice.id)
    expect((await balances(tenant))[1]).toEqual([`${tenant} B`, '0', '30', '0'])
    const { made } = await service.system.billing.settleLate(request)
    expect((await balances(tenant))[1]).toEqual([`${tenant} B`, '10', '20', '0'])
    await equal(made!)
  })
})

describe('on the next invoice', () => {
  test('late usage is paid before that of the period itself, and both stand in the ledger once', async () => {
    const tenant = TENANTS.next
    service.clock.set(Date.UTC(2026, 3, 20))
    await calls(tenant, 25, 300, Date.UTC(2026, 3, 12))
    service.clock.set(Date.UTC(2026, 4, 3))
    const invoice = await close(tenant, APRIL)
    // March: 10 by A, 2 by B. April: 15 behind its quota, 8 by what B still has.
    expect(amounts(invoice)).toEqual([['usage', '0.70']])
    expect(await balances(tenant)).toEqual([
      [`${tenant} A`, '0', '40', '0'],
      [`${tenant} B`, '0', '30', '0'],
    ])
    const entries = await service.system.prepaid.ledger(`${tenant} B`, null)
    expect(entries.map(({ kind, quantity, at: time }) => [kind, quantity, new Date(time).getUTCMonth()])).toEqual([
      ['grant', '30', 2],
      ['debit', '-20', 2],
      ['debit', '-2', 2],
      ['debit', '-8', 3],
    ])
    await equal(invoice)
  }, 60_000)

  test('bought again by itself: late usage buys what it needs, and what comes back stays in packs', async () => {
    const tenant = TENANTS.again
    const invoice = await close(tenant, APRIL)
    // 40 more: 10 by A, 10 by B, 20 by a pack that is bought again.
    expect(amounts(invoice)).toEqual([['add_on', '4.00']])
    expect((await balances(tenant)).map(([, ...figures]) => figures)).toEqual(
      expect.arrayContaining([
        ['30', '20', '0'],
        ['0', '40', '0'],
        ['0', '30', '0'],
      ]),
    )
    await equal(invoice)
  })

  test('behind packs that block: they pay what they have, nothing is billed', async () => {
    const tenant = TENANTS.blocks
    expect(await close(tenant, APRIL)).toBeNull()
    expect((await balances(tenant)).map(([, ...figures]) => figures)).toEqual([
      ['0', '40', '0'],
      ['0', '30', '0'],
    ])
  })

  test('refused by the contract: packs pay nothing of it either, and what is taken back later is given back once', async () => {
    const tenant = TENANTS.rejects
    expect(await close(tenant, APRIL)).toBeNull()
    expect((await balances(tenant)).map(([, ...figures]) => figures)).toEqual([
      ['0', '30', '10'],
      ['10', '20', '0'],
    ])
  })
})

describe('counted again and again', () => {
  test(`a month billed in three parts costs what its twin costs at once, packs and all ${promises('rating:lines-sum-to-total')}`, async () => {
    const { catalog, billing, prepaid, invoicing } = service.system
    const seed = Math.floor(Math.random() * 2 ** 31)
    let state = seed
    const random = (below: number): number => {
      state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fffffff
      return Math.floor((state / 0x80000000) * below)
    }
    const june = (day: number, hour = 0): number => Date.UTC(2026, 5, day, hour)
    const [JUNE, JULY] = [june(1), Date.UTC(2026, 6, 1)]
    const tiers = [
      { from: 1, to: 60, unit_price: '0.31' },
      { from: 61, to: null, unit_price: '0.17', flat_fee: '3.00' },
    ]
    await catalog.putPrice({
      rule: { rule_id: 'twin', type: 'tiered', metric: 'mcp_call', tiers, currency: 'EUR' },
      ...{ version: '1.0', status: 'active', effectiveFrom: 0 },
    })
    const metrics = [{ metric: 'mcp_call', included: '10', rule: 'twin' }]
    await catalog.putPlan({ key: 'twins', product: 'OID', name: 'Twins', metrics })
    const pairs = [0, 1, 2, 3, 4, 5].map((n) => ({
      names: [`pair-${n}`, `twin-${n}`] as const,
      recharge: n % 3 !== 0,
      adjustments: {
        discounts: [{ name: 'P', kind: 'percent' as const, value: String(5 + random(40)) }],
        ...(n % 2 === 0 ? { maximum: String(6 + random(20)) } : { minimum: String(3 + random(30)) }),
      },
      packs: [10 + random(30), 10 + random(30)],
      rounds: [0, 1, 2].map(() => [random(50), random(50)] as const),
    }))
    service.clock.set(june(1, 9))
    for (const { names, recharge, adjustments } of pairs) {
      const again = { metric: 'mcp_call', exhaustion: 'auto_recharge', recharge: { quantity: '20', amount: '2.00' } }
      for (const tenant of names) {
        const customer = { name: tenant, country: 'CI', taxRate: '18', currency: 'EUR', timeZone: 'Africa/Abidjan' }
        await catalog.putCustomer({ tenant, ...customer })
        await catalog.putContract({
          ...{ id: tenant, tenant, legalEntity: 'orbus-digital', start: '2026-06-01', timeZone: 'Africa/Abidjan' },
          ...{ adjustments, late: { usage: 'complementary_invoice' } },
          items: [{ id: `${tenant}/1`, plan: 'twins', ...(recharge ? { prepaid: [again] } : {}) }],
        })
      }
    }
    await service.system.catalogSettled()
    for (const [hour, which, expires] of [
      [10, 0, '2026-06-15'],
      [11, 1, undefined],
    ] as const) {
      service.clock.set(june(1, hour))
      for (const { names, packs } of pairs)
        for (const tenant of names)
          await buy(tenant, {
            id: `${tenant} ${which}`,
            quantity: String(packs[which]),
            ...(expires === undefined ? {} : { expires }),
          })
    }
    const send = async (round: number): Promise<void> => {
      for (const { names, rounds } of pairs)
        for (const tenant of names)
          for (const [half, day] of [5, 20].entries())
            if (rounds[round]![half]! > 0)
              await service.send({
                ...{ tenant, metric: 'mcp_call', count: rounds[round]![half]! },
                ...{ first: 1_000 * (2 * round + half), from: june(day, 2 + round) },
              })
      await service.system.settle()
    }
    service.clock.set(june(28))
    await send(0)
    service.clock.set(Date.UTC(2026, 6, 4))
    for (const { names } of pairs) await billing.closePeriod({ contract: names[0], at: JUNE })
    await send(1)
    for (const { names } of pairs) await billing.settleLate({ contract: names[0], at: JUNE })
    // A correction that is dropped leaves nothing behind.
    await send(2)
    for (const { names } of pairs) {
      const { made } = await billing.settleLate({ contract: names[0], at: JUNE, finalise: false })
      if (made !== null) await invoicing.discard(made.invoice.id)
    }
    service.clock.set(Date.UTC(2026, 7, 4))
    for (const { names } of pairs) {
      await billing.closePeriod({ contract: names[0], at: JULY })
      await billing.closePeriod({ contract: names[1], at: JUNE })
    }
    for (const { names, ...pair } of pairs) {
      const sums: string[] = []
      for (const tenant of names) {
        const documents = (await invoicing.list({ contract: tenant })).filter(({ state: at }) => at !== 'discarded')
        let sum = 0
        for (const kept of documents) {
          const { invoice } = await invoicing.get(kept.invoice.id)
          // In cents, exactly.
          for (const line of invoice.lines) if (line.period.from === JUNE) sum += Number(line.amount.replace('.', ''))
          await equal(kept)
        }
        const held = (await prepaid.list({ tenant })).map(({ balance, forfeited }) => [
          Number(balance),
          Number(forfeited),
        ])
        sums.push(
          `${sum} ${held.reduce((all, [left]) => all + left!, 0)} ${held.reduce((all, [, lost]) => all + lost!, 0)}`,
        )
      }
      expect(sums[0], `seed ${seed}, ${JSON.stringify(pair)}`).toBe(sums[1])
    }
  }, 240_000)
})

describe('the ledger is a part of what is verified', () => {
  const invoiceOf = async (): Promise<string> =>
    (await service.system.invoicing.list({ contract: TENANTS.next }))[0]!.invoice.id
  const differences = async (): Promise<string[]> =>
    (await service.system.billing.verifyInvoice(await invoiceOf())).document.map((one) => one.what)
  const B = `${TENANTS.next} B`

  test.each([
    ['a debit altered', `UPDATE prepaid_entries SET quantity = -7 WHERE pack = '${B}' AND quantity = -8`, 'ledger of'],
    [
      'a late debit altered',
      `UPDATE prepaid_entries SET quantity = -1 WHERE pack = '${B}' AND quantity = -2`,
      'ledger of',
    ],
    ['a debit deleted', `DELETE FROM prepaid_entries WHERE pack = '${B}' AND quantity = -8`, 'ledger of'],
    [
      'a debit that nobody made',
      `INSERT INTO prepaid_entries (pack, kind, quantity, at, closing, attempt, made_at)
       SELECT pack, kind, quantity, at + 1, closing, attempt, made_at FROM prepaid_entries WHERE pack = '${B}' AND quantity = -8`,
      'ledger of',
    ],
    [
      'the purchase altered',
      `UPDATE prepaid_entries SET quantity = 31 WHERE pack = '${B}' AND kind = 'grant'`,
      'balance of',
    ],
  ])(`%s => not equal ${promises('invoice:explains-itself')}`, async (_, sql, what) => {
    expect(await differences()).toEqual([])
    await tampered(sql, async () => {
      expect(await differences()).toEqual([`${what} pack ${B}`])
    })
    expect(await differences()).toEqual([])
  })
})
