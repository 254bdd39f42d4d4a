/**
 * Prepaid packs on real engines: in which order they pay, what is forfeited, what happens when they are used up, and that a closing
 * debits once whatever becomes of it.
 */
import type { FastifyInstance } from 'fastify'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { buildHttp } from '../../src/http/http.js'
import { closePeriod, type UsageAtCut } from '../../src/invoicing/close.js'
import type { Invoice } from '../../src/invoicing/invoice.js'
import { invoiceSale } from '../../src/invoicing/sale.js'
import { MARCH, openTestService, type TestService } from '../invoicing/service.js'
import { promises } from '../promises.js'

const plain = (text: string): string => text.replaceAll('\u00a0', ' ')
const at = (day: number, hour = 0): number => Date.UTC(2026, 2, day, hour)
let service: TestService
let app: FastifyInstance

async function contract(tenant: string, prepaid?: object): Promise<void> {
  await service.system.catalog.putContract({
    id: tenant,
    tenant,
    legalEntity: 'orbus-digital',
    start: '2026-01-01',
    timeZone: 'Africa/Abidjan',
    items: [{ id: `${tenant}/1`, plan: 'packs', ...(prepaid === undefined ? {} : { prepaid: [prepaid] }) }],
  })
}
const buy = (tenant: string, pack: object) =>
  service.system.prepaid.buy({ contract: tenant, item: `${tenant}/1`, metric: 'mcp_call', quantity: '1', ...pack })
const balances = async (tenant: string): Promise<string[][]> =>
  (await service.system.prepaid.list({ tenant }))
    .map(({ id, balance, debited, forfeited }) => [id, balance, debited, forfeited])
    .sort((a, b) => (a[0]! < b[0]! ? -1 : 1))
const close = (tenant: string, finalise = true) =>
  service.system.billing.closePeriod({ contract: tenant, at: MARCH.from, finalise })
const shown = (invoice: Invoice): string[][] =>
  invoice.lines.map((line) => [line.type, line.amount, plain(line.explanation.fr)])

beforeAll(async () => {
  service = await openTestService()
  app = await buildHttp(service.system)
  const { catalog } = service.system
  const rule = { rule_id: 'call', type: 'per_unit', metric: 'mcp_call', unit_price: '0.10', currency: 'EUR' }
  await catalog.putPrice({ rule, version: '1.0', status: 'active', effectiveFrom: 0 })
  await catalog.putPlan({
    key: 'packs',
    product: 'OID',
    name: 'Packs',
    metrics: [{ metric: 'mcp_call', included: '10', rule: 'call' }],
  })
  const recharge = { quantity: '50', amount: '4.00' }
  await contract('nsia-assurances')
  await contract('bicici', { metric: 'mcp_call', exhaustion: 'block' })
  await contract('orange-ci', { metric: 'mcp_call', exhaustion: 'auto_recharge', recharge })
  await contract('bridge-bank')
  await contract('coris-bank')
  await contract('moov-africa')
  // 10 March, 9:00.
  await buy('nsia-assurances', { id: 'A', quantity: '40', expires: '2026-03-15', priority: 1 })
  await buy('nsia-assurances', { id: 'B', name: 'Pack 100', quantity: '100', amount: '8', priority: 2 })
  for (const tenant of ['bicici', 'orange-ci']) await buy(tenant, { id: `${tenant} pack`, quantity: '20' })
  for (const tenant of ['bridge-bank', 'coris-bank', 'moov-africa'])
    await buy(tenant, { id: `${tenant} pack`, quantity: '100', amount: '8' })
  await catalog.putCustomer({ ...catalog.book().customers.get('bridge-bank')!, termDays: 10 })
  await service.system.catalogSettled()
  service.clock.set(at(21))
  const calls = (tenant: string, count: number, first: number, from: number) =>
    service.send({ tenant, metric: 'mcp_call', count, first, from })
  await calls('nsia-assurances', 5, 0, at(1))
  await calls('nsia-assurances', 20, 100, at(10, 7))
  await calls('nsia-assurances', 30, 200, at(12))
  await calls('nsia-assurances', 40, 300, at(20))
  for (const tenant of ['bicici', 'orange-ci']) await calls(tenant, 145, 0, at(12))
  for (const tenant of ['bridge-bank', 'coris-bank', 'moov-africa']) await calls(tenant, 60, 0, at(12))
  await service.system.settle()
}, 120_000)
afterAll(async () => {
  await app?.close()
  await service?.close()
})

describe('before the closing', () => {
  test('the preview shows what packs would pay, and debits nothing', async () => {
    const invoice = await service.system.billing.previewInvoice('nsia-assurances')
    expect(shown(invoice).map(([, amount]) => amount)).toEqual(['1.50', '8.00'])
    expect(await balances('nsia-assurances')).toEqual([
      ['A', '40', '0', '0'],
      ['B', '100', '0', '0'],
    ])
  })

  test('POST /v1/quotas/check asks the packs of an item that blocks', async () => {
    const headers = { authorization: `Bearer ${service.adminKey}`, 'content-type': 'application/json' }
    const ask = async (tenant: string, n: string) =>
      (
        await app.inject({
          method: 'POST',
          url: '/v1/quotas/check',
          headers,
          payload: JSON.stringify({ tenant, metric: 'mcp_call', n }),
        })
      ).json()
    // 145 used of 10 included and a pack of 20.
    expect(await ask('bicici', '1')).toMatchObject({
      allowed: false,
      why: 'blocked',
      quotas: [{ usage: '145', prepaid: { left: '0', exhaustion: 'block' } }],
    })
    expect((await ask('orange-ci', '1')).allowed).toBe(true)
  })

  test('bought again with the same id it is the same pack; what cannot be is refused', async () => {
    const again = await buy('nsia-assurances', {
      id: 'B',
      name: 'Pack 100',
      quantity: '100.0',
      amount: '8.00',
      priority: 2,
    })
    expect([again.created, again.pack.balance]).toEqual([false, '100'])
    await expect(buy('nsia-assurances', { id: 'B', quantity: '101' })).rejects.toThrow(/B is another pack/)
    await expect(buy('nsia-assurances', { metric: 'kyc_verification' })).rejects.toThrow(/has no kyc_verification/)
    await expect(buy('nsia-assurances', { expires: '2026-03-01' })).rejects.toThrow(/expires: lies in the past/)
    await expect(buy('nsia-assurances', { quantity: '0' })).rejects.toThrow(/quantity: above 0/)
    await expect(buy('nsia-assurances', { amount: '1.005' })).rejects.toThrow(/decimals of EUR/)
  })
})

describe('closed', () => {
  beforeAll(() => service.endMarch())

  test('usage before the purchase is priced, then packs pay by priority, an expired one forfeits, and each debit is told', async () => {
    const { invoice } = (await close('nsia-assurances')).invoice!
    // 95 used, 10 included: 15 before any pack, 30 by A until the 15th, 40 by B.
    expect(shown(invoice)).toEqual([
      ['usage', '1.50', '95 appels MCP, dont 10 inclus, 70 payés par packs : 15 × 0,10 € = 1,50 €'],
      ['add_on', '8.00', 'Pack prépayé — Pack 100'],
    ])
    expect(invoice.usage[0]!.prepaid).toEqual({
      covered: '70',
      blocked: '0',
      packs: [
        { id: 'A', name: '40 call', debited: '30', left: '0', forfeited: '10' },
        { id: 'B', name: 'Pack 100', debited: '40', left: '60', forfeited: '0' },
      ],
    })
    expect(invoice.notices.map((notice) => plain(notice.text.fr))).toEqual([
      'pack 40 call : 30 utilisés, 0 restants, 10 perdus à l’échéance',
      'pack Pack 100 : 40 utilisés, 60 restants',
    ])
    const ledger = await service.system.prepaid.ledger('A', null)
    expect(ledger.map(({ kind, quantity, at: time, stands }) => [kind, quantity, time, stands])).toEqual([
      ['grant', '40', at(10, 9), true],
      ['debit', '-30', at(10, 9), true],
      ['forfeit', '-10', at(15), true],
    ])
    expect((await service.system.billing.verifyInvoice(invoice.id)).equal).toBe(true)
  })

  test('a part of the period altered in the archive => the debits are not proved any more', async () => {
    const [number] = (await service.system.invoicing.list({ contract: 'nsia-assurances' })).map((one) => one.invoice.id)
    await service.system.engines.clickhouse.command({
      query: `ALTER TABLE usage_events UPDATE value = 2 WHERE id = 'mcp_call-200' AND tenant = 'nsia-assurances'`,
      clickhouse_settings: { mutations_sync: '2' },
    })
    expect((await service.system.billing.verifyInvoice(number!)).equal).toBe(false)
  })

  test('block: what is beyond is not billed, and said', async () => {
    const { invoice } = await close('bicici')
    expect(invoice).toBeNull()
    expect(await balances('bicici')).toEqual([['bicici pack', '0', '20', '0']])
  })

  test('auto-recharge: as many packs as it takes, a line for them, and the rest stays', async () => {
    const { invoice } = (await close('orange-ci')).invoice!
    // 145 used, 10 included, 20 by the pack: 115 more are three packs of 50.
    expect(shown(invoice)).toEqual([['add_on', '12.00', '3 × 4,00 € = 12,00 €']])
    const packs = await service.system.prepaid.list({ tenant: 'orange-ci' })
    expect(packs.map(({ recharge, quantity, balance }) => [recharge, quantity, balance])).toEqual([
      [true, '150', '35'],
      [false, '20', '0'],
    ])
    expect((await service.system.billing.verifyInvoice(invoice.id)).equal).toBe(true)
  })

  test(`a closing repeated, by two at once, killed after its measure, or made again debits once ${promises('invoice:issued-never-changes')}`, async () => {
    const debited = [['bridge-bank pack', '50', '50', '0']]
    const both = await Promise.all([close('bridge-bank'), close('bridge-bank'), close('bridge-bank')])
    expect(new Set(both.map((one) => one.invoice!.invoice.number)).size).toBe(1)
    await close('bridge-bank')
    expect(await balances('bridge-bank')).toEqual(debited)

    // A draft that is discarded gives back what its attempt debited; the next attempt debits again.
    const draft = (await close('coris-bank', false)).invoice!
    expect(await balances('coris-bank')).toEqual([['coris-bank pack', '50', '50', '0']])
    await service.system.invoicing.discard(draft.invoice.id)
    expect(await balances('coris-bank')).toEqual([['coris-bank pack', '100', '0', '0']])
    const { invoice } = (await close('coris-bank')).invoice!
    expect(shown(invoice).map(([, amount]) => amount)).toEqual(['8.00'])
    expect(await balances('coris-bank')).toEqual([['coris-bank pack', '50', '50', '0']])
    const kinds = (await service.system.prepaid.ledger('coris-bank pack', null)).map((one) => [one.kind, one.stands])
    expect(kinds).toEqual([
      ['grant', true],
      ['billed', false],
      ['debit', false],
      ['billed', true],
      ['debit', true],
    ])

    const { postgres } = service.system.engines
    const { catalog, invoicing, prepaid } = service.system
    const { clock } = service
    const dying = {
      postgres,
      clock,
      catalog,
      invoicing,
      prepaid,
      // All of it after the purchase.
      usageAtCut: async ({ items, period }: Parameters<UsageAtCut>[0]) =>
        items.flatMap(({ item, metrics }) =>
          metrics.map((metric) => ({
            item,
            metric,
            quantity: period.to === MARCH.to ? '60' : '0',
            cut: {},
            query: '',
            count: 60,
            digest: '',
          })),
        ),
      crashPoint: (name: string) => {
        if (name === 'measured') throw new Error('killed')
      },
    }
    await expect(closePeriod(dying, { contract: 'moov-africa', at: MARCH.from })).rejects.toThrow(/killed/)
    await close('moov-africa')
    expect(await balances('moov-africa')).toEqual([['moov-africa pack', '50', '50', '0']])
  })

  test('the batch of all that is due closes contracts with packs as one alone does', async () => {
    service.clock.set(Date.UTC(2026, 4, 2))
    await contract('ecobank-togo')
    await service.system.catalogSettled()
    const report = await service.system.billing.closeDuePeriods({ at: Date.UTC(2026, 3, 10), tenant: 'coris-bank' })
    expect([report.due, report.failed]).toEqual([1, 0])
    // April used nothing, so the pack keeps what March left.
    expect(await balances('coris-bank')).toEqual([['coris-bank pack', '50', '50', '0']])
  })

  test('billed when it is bought: an invoice of its own, once, verified; the closing does not bill it again', async () => {
    const headers = { authorization: `Bearer ${service.adminKey}`, 'content-type': 'application/json' }
    const sell = (pack: object) =>
      app.inject({
        ...{ method: 'POST', url: '/v1/prepaid/packs', headers },
        payload: JSON.stringify({ contract: 'coris-bank', item: 'coris-bank/1', metric: 'mcp_call', ...pack }),
      })
    expect((await sell({ id: 'now', quantity: '10', billing: 'now' })).json().detail).toMatch(/amount: is needed/)
    const pack = { id: 'now', quantity: '10', amount: '3.00', billing: 'now' }
    const answers = await Promise.all([0, 1, 2].map(() => sell(pack)))
    const numbers = answers.map((answer) => answer.json().invoice.number)
    expect([new Set(numbers).size, numbers[0]]).toEqual([1, expect.stringMatching(/^FA-2026-/)])
    expect(answers.map((answer) => answer.statusCode).sort()).toEqual([200, 200, 201])
    const { invoice } = await service.system.invoicing.get(numbers[0])
    expect([shown(invoice), invoice.period.firstDay]).toEqual([
      [['add_on', '3.00', 'Pack prépayé — 10 call']],
      '2026-05-01',
    ])
    expect(await service.system.billing.verifyInvoice(invoice.id)).toMatchObject({ equal: true, document: [] })

    // Killed between its draft and its number: sent again, the same draft is issued.
    const { postgres } = service.system.engines
    const { catalog, invoicing, prepaid } = service.system
    await prepaid.buy({ ...pack, id: 'killed', contract: 'coris-bank', item: 'coris-bank/1', metric: 'mcp_call' })
    const dying = {
      ...{ postgres, clock: service.clock, catalog, invoicing, packs: prepaid },
      usageAtCut: () => Promise.reject(new Error('a sale counts nothing')),
      crashPoint: () => Promise.reject(new Error('killed')),
    }
    await expect(invoiceSale(dying, 'killed', { actor: 'test' })).rejects.toThrow(/killed/)
    expect((await sell({ ...pack, id: 'killed' })).json().invoice.number).toMatch(/^FA-2026-/)
    // Dropped as a draft, its pack is to be billed with the period again.
    await prepaid.buy({ ...pack, id: 'dropped', contract: 'coris-bank', item: 'coris-bank/1', metric: 'mcp_call' })
    await expect(invoiceSale(dying, 'dropped', { actor: 'test' })).rejects.toThrow(/killed/)
    const draft = (await invoicing.list({ contract: 'coris-bank', state: 'draft' }))[0]!
    await invoicing.discard(draft.invoice.id)

    service.clock.set(Date.UTC(2026, 5, 2))
    const may = (await service.system.billing.closePeriod({ contract: 'coris-bank', at: Date.UTC(2026, 4, 10) }))
      .invoice!
    expect(shown(may.invoice)).toEqual([['add_on', '3.00', 'Pack prépayé — 10 call']])
    expect(await service.system.billing.verifyInvoice(may.invoice.id)).toMatchObject({ equal: true, document: [] })
    await expect(
      service.system.billing.sellPack(
        { ...pack, id: 'dropped', contract: 'coris-bank', item: 'coris-bank/1', metric: 'mcp_call', billing: 'now' },
        { actor: 'test' },
      ),
    ).rejects.toThrow(/on the invoice of its period/)
    const billed = (await service.system.invoicing.list({ contract: 'coris-bank' }))
      .filter((one) => one.state !== 'discarded')
      .flatMap((one) => one.invoice.lines.filter((line) => line.label.fr === 'Pack prépayé — 10 call'))
    expect(billed.map((line) => line.amount)).toEqual(['3.00', '3.00', '3.00'])
  })

  test(`a customer sees its own packs alone ${promises('tenant:isolated')}`, async () => {
    const { secret } = await service.system.keys.create({ name: 'k', tenant: 'bicici', scopes: ['read'] })
    const get = (url: string) => app.inject({ url, headers: { authorization: `Bearer ${secret}` } })
    const own = await get('/v1/prepaid/packs')
    expect(own.json().packs.map((pack: { id: string }) => pack.id)).toEqual(['bicici pack'])
    expect((await get('/v1/prepaid/packs?tenant=orange-ci')).statusCode).toBe(403)
    expect((await get('/v1/prepaid/packs/A/ledger')).statusCode).toBe(404)
    expect((await get('/v1/prepaid/packs/bicici%20pack/ledger')).json().entries).toHaveLength(2)
  })
})
