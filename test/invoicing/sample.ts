/** A finished document without a database: the March of Banque Atlantique by default, with any part exchanged. */
import type { Terms } from '../../src/catalog/book.js'
import type { Customer, LegalEntity } from '../../src/catalog/definition.js'
import { parsePrice } from '../../src/catalog/price.js'
import { seedContracts, seedCustomers, seedLegalEntity } from '../../src/catalog/seeds.js'
import type { Words } from '../../src/format.js'
import { draftInvoice, type ItemUsage } from '../../src/invoicing/draft.js'
import type { Invoice } from '../../src/invoicing/invoice.js'

export const march = { from: Date.UTC(2026, 2, 1), to: Date.UTC(2026, 3, 1) }

export const ivorySeller: LegalEntity = {
  ...seedLegalEntity,
  address: ['Immeuble Alpha 2000, Plateau', '01 BP 1234', 'Abidjan 01'],
  registrations: {
    RCCM: 'CI-ABJ-03-2019-B12-04321',
    NCC: '1912345 A',
    'Régime d’imposition': 'Réel normal',
    'Centre des impôts': 'Plateau I',
    IBAN: 'CI93 CI04 2012 3456 7890 1234 5678',
    BIC: 'BACICIAB',
  },
}
export const frenchSeller: LegalEntity = {
  ...seedLegalEntity,
  name: 'Orbus Numérique & Cie SAS',
  country: 'FR',
  address: ['12 rue de la Paix', '75002 Paris'],
  registrations: {
    SIREN: '812 345 678',
    TVA: 'FR40812345678',
    RCS: 'Paris B 812 345 678',
    'Capital social': '50 000 €',
    IBAN: 'FR76 3000 6000 0112 3456 7890 189',
    BIC: 'AGRIFRPP',
  },
}
export const bank: Customer = {
  ...seedCustomers[0]!,
  address: ['Avenue Terrasson de Fougères', '04 BP 1036', 'Abidjan 04'],
  registrations: { RCCM: 'CI-ABJ-1978-B-31285', NCC: '7801234 B' },
}

interface SampleMetric {
  readonly metric: string
  readonly name?: Words
  readonly limit: string | null
  readonly quantity: string
  readonly rule: Record<string, unknown> | null
}
const tiers = (price: number) => [
  { from: 51, to: 100, unit_price: price },
  { from: 101, to: null, unit_price: price - 0.12 },
]
export const oidMetrics: readonly SampleMetric[] = [
  { metric: 'auth_login', limit: null, quantity: '12450', rule: null },
  {
    metric: 'kyc_verification',
    limit: '50',
    quantity: '112',
    rule: { rule_id: 'overage_oid_kyc', type: 'tiered', tiers: tiers(2.5) },
  },
  { metric: 'certificate_enrolled', limit: '20', quantity: '25', rule: null },
  {
    metric: 'mcp_call',
    limit: '500',
    quantity: '850',
    rule: { rule_id: 'overage_oid_mcp', type: 'per_unit', unit_price: 0.05 },
  },
  {
    metric: 'documents_processed',
    limit: '1000',
    quantity: '847',
    rule: { rule_id: 'clm', type: 'per_unit', unit_price: 0.2 },
  },
]

/** The same metrics at prices that hold the tax. */
export const inclusiveMetrics: readonly SampleMetric[] = oidMetrics.map((one) => ({
  ...one,
  rule: one.rule === null ? null : { ...one.rule, tax_behavior: 'inclusive' },
}))

export function sampleInvoice(
  options: {
    readonly seller?: LegalEntity
    readonly customer?: Customer
    readonly metrics?: readonly SampleMetric[]
    readonly fee?: string
    /** The fee holds the tax; those of the metrics say it in their rules. */
    readonly feeBehavior?: 'inclusive'
    readonly number?: string | null
    /** Of the prices, when not the customer's. */
    readonly priceCurrency?: string
    /** Items with the same metrics. */
    readonly items?: number
  } = {},
): Invoice {
  const { seller = ivorySeller, customer = bank, metrics = oidMetrics, fee = '200', number = 'FA-2026-0142' } = options
  const { feeBehavior = 'exclusive' } = options
  const { priceCurrency: currency = customer.currency } = options
  const contract = seedContracts[1]!
  const names = Array.from({ length: options.items ?? 1 }, (_, i) => `${contract.id}/${i + 1}`)
  const terms = {
    catalogVersion: 12,
    contract: { ...contract, items: [] },
    customer,
    legalEntity: seller,
    items: names.map((item) => ({
      item,
      product: { key: 'OID', name: 'OID' },
      plan: { key: 'oid-business', version: 1, name: 'OID Business' },
      feeRule: 'pricing_oid_business_base',
      fee: parsePrice(
        { rule_id: 'pricing_oid_business_base', type: 'flat_fee', amount: fee, currency, tax_behavior: feeBehavior },
        '3.1',
      ),
      metrics: metrics.map(({ metric, name, limit, rule }) => ({
        metric,
        ...(name === undefined ? {} : { name }),
        unit: metric,
        limit,
        rule: rule === null ? null : String(rule.rule_id),
        price: rule === null ? null : parsePrice({ ...rule, metric, currency }, '2.0'),
      })),
    })),
  } as Terms
  const usage = names.flatMap((item) =>
    metrics.map(
      ({ metric, quantity }): ItemUsage => ({
        item,
        metric,
        quantity,
        cut: { 0: 41 },
        query: `SELECT … ${metric}`,
        count: Number.parseInt(quantity, 10),
        digest: '5f'.repeat(32),
      }),
    ),
  )
  const draft = draftInvoice('inv_sample', terms, march, usage)
  return number === null ? draft : { ...draft, number, issuedOn: '2026-04-01', dueOn: '2026-05-01' }
}
