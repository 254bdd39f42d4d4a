/**
 * The catalogue of the ODS screens as data: products, plans with their contents, price rules, customers, and two contracts of
 * Banque Atlantique. Loaded as often as one likes: the same definitions again are no change.
 *
 * What the screens print is here as printed (amounts, tiers, quotas, versions, states). What they leave out is ours and is marked:
 * the unit prices of pricing_clm_usage, pricing_sig_enterprise and pricing_iot_events, the terms in days, the addresses' absence.
 * There is no price for certificates above the quota on the screens, so there is none here, and invoices say so.
 */
import type { Catalog, PriceInput } from './catalog.js'
import type { ContractInput } from './contract.js'
import { DEFAULT_THRESHOLDS } from './contract.js'
import type { Customer, LegalEntity, MetricInput, PlanInput, Product } from './definition.js'

const JANUARY_2026 = Date.UTC(2026, 0, 1)

const counted = (key: string, fr: string, en: string, unit: string, dims: readonly string[] = []): MetricInput => ({
  key,
  name: { fr, en },
  aggregation: 'sum',
  unit,
  scale: 0,
  dims,
  uniqueBy: null,
  archive: true,
})

export const seedMetrics: readonly MetricInput[] = [
  counted('documents_processed', 'documents traités', 'documents processed', 'document', ['format']),
  counted('ai_tokens', 'jetons IA', 'AI tokens', 'token', ['model']),
  {
    key: 'user_active',
    name: { fr: 'utilisateurs actifs', en: 'active users' },
    aggregation: 'unique',
    unit: 'user',
    scale: 0,
    dims: [],
    uniqueBy: 'user',
    archive: true,
  },
  counted('auth_login', 'connexions', 'logins', 'login', ['method']),
  counted('kyc_verification', 'vérifications KYC', 'KYC verifications', 'verification', ['region']),
  counted('certificate_enrolled', 'certificats enrôlés', 'certificates enrolled', 'certificate'),
  counted('mcp_call', 'appels MCP', 'MCP calls', 'call', ['tool']),
  {
    key: 'scim',
    name: { fr: 'appels SCIM', en: 'SCIM calls' },
    aggregation: 'count',
    unit: 'call',
    scale: 0,
    dims: ['operation'],
    uniqueBy: null,
    archive: true,
  },
  counted('signature_completed', 'signatures', 'signatures', 'signature', ['level']),
  {
    key: 'iot_message',
    name: { fr: 'messages', en: 'messages' },
    aggregation: 'count',
    unit: 'message',
    scale: 0,
    dims: ['region'],
    uniqueBy: null,
    archive: true,
  },
  {
    key: 'iot_data',
    name: { fr: 'Mo transférés', en: 'MB transferred' },
    aggregation: 'sum',
    unit: 'Mo',
    scale: 6,
    dims: ['region'],
    uniqueBy: null,
    archive: true,
  },
  {
    key: 'iot_temperature',
    name: { fr: 'température', en: 'temperature' },
    aggregation: 'latest',
    unit: '°C',
    scale: 3,
    dims: ['region'],
    uniqueBy: null,
    archive: true,
  },
  {
    key: 'iot_temperature_max',
    name: { fr: 'température maximale', en: 'highest temperature' },
    aggregation: 'max',
    unit: '°C',
    scale: 3,
    dims: ['region'],
    uniqueBy: null,
    archive: true,
  },
]

export const seedProducts: readonly Product[] = [
  { key: 'CLM', name: 'Contract Lifecycle Management' },
  { key: 'Signature', name: 'Signature électronique' },
  { key: 'IoT', name: 'Objets connectés' },
  { key: 'OID', name: 'Orbus ID' },
]

const from2026 = (rule: unknown, version: string, status: 'active' | 'draft' = 'active'): PriceInput => ({
  rule,
  version,
  status,
  effectiveFrom: JANUARY_2026,
})

export const seedPrices: readonly PriceInput[] = [
  from2026(
    {
      rule_id: 'pricing_oid_business_base',
      type: 'flat_fee',
      amount: '200.00',
      currency: 'EUR',
      billing_cycle: 'monthly',
      includes: { users: 20, kyc_verification: 50, certificate_enrolled: 20, mcp_call: 500 },
    },
    '3.1',
  ),
  from2026(
    {
      rule_id: 'overage_oid_kyc',
      type: 'per_unit',
      metric: 'kyc_verification',
      tiers: [
        { from: 51, to: 100, unit_price: '2.50' },
        { from: 101, to: null, unit_price: '2.00' },
      ],
      currency: 'EUR',
    },
    '2.0',
  ),
  from2026(
    {
      rule_id: 'overage_oid_mcp',
      type: 'tiered',
      metric: 'mcp_call',
      tiers: [
        { from: 501, to: 1000, unit_price: '0.05' },
        { from: 1001, to: null, unit_price: '0.03' },
      ],
      currency: 'EUR',
    },
    '1.0',
  ),
  // The cards of the plans: base fees and one overage price each.
  from2026(
    {
      rule_id: 'pricing_oid_starter_base',
      type: 'flat_fee',
      amount: '50.00',
      currency: 'EUR',
      billing_cycle: 'monthly',
      includes: { users: 5, kyc_verification: 10, certificate_enrolled: 5, mcp_call: 100 },
    },
    '1.0',
  ),
  from2026(
    {
      rule_id: 'overage_oid_kyc_starter',
      type: 'per_unit',
      metric: 'kyc_verification',
      tiers: [{ from: 11, to: null, unit_price: '3.00' }],
      currency: 'EUR',
    },
    '1.0',
  ),
  from2026(
    {
      rule_id: 'pricing_oid_enterprise_base',
      type: 'flat_fee',
      amount: '500.00',
      currency: 'EUR',
      billing_cycle: 'monthly',
      includes: { kyc_verification: 200, certificate_enrolled: 100, mcp_call: 2000 },
    },
    '1.0',
  ),
  from2026(
    {
      rule_id: 'overage_oid_kyc_enterprise',
      type: 'per_unit',
      metric: 'kyc_verification',
      tiers: [{ from: 201, to: null, unit_price: '1.50' }],
      currency: 'EUR',
    },
    '1.0',
  ),
  // Named with version and state on the screens, without their content: the prices are ours.
  from2026(
    {
      rule_id: 'pricing_clm_usage',
      type: 'tiered',
      metric: 'documents_processed',
      tiers: [
        { from: 1001, to: 5000, unit_price: '0.10' },
        { from: 5001, to: null, unit_price: '0.08' },
      ],
      currency: 'EUR',
    },
    '1.4',
  ),
  from2026(
    {
      rule_id: 'pricing_sig_enterprise',
      type: 'flat_fee',
      amount: '400.00',
      currency: 'EUR',
      billing_cycle: 'monthly',
    },
    '4.0',
    'draft',
  ),
  from2026(
    {
      rule_id: 'pricing_iot_events',
      type: 'volume',
      metric: 'iot_message',
      tiers: [
        { from: 1, to: 100000, unit_price: '0.002' },
        { from: 100001, to: null, unit_price: '0.0015' },
      ],
      currency: 'EUR',
    },
    '2.2',
  ),
]

export const seedPlans: readonly PlanInput[] = [
  {
    key: 'oid-starter',
    product: 'OID',
    name: 'Starter',
    feeRule: 'pricing_oid_starter_base',
    metrics: [
      { metric: 'user_active', included: '5', rule: null },
      { metric: 'auth_login', included: null, rule: null },
      { metric: 'kyc_verification', included: '10', rule: 'overage_oid_kyc_starter' },
      { metric: 'certificate_enrolled', included: '5', rule: null },
      { metric: 'mcp_call', included: '100', rule: null },
    ],
    features: ['Support email'],
  },
  {
    key: 'oid-business',
    product: 'OID',
    name: 'Business',
    feeRule: 'pricing_oid_business_base',
    metrics: [
      { metric: 'user_active', included: '20', rule: null },
      { metric: 'auth_login', included: null, rule: null },
      { metric: 'kyc_verification', included: '50', rule: 'overage_oid_kyc' },
      { metric: 'certificate_enrolled', included: '20', rule: null },
      { metric: 'mcp_call', included: '500', rule: 'overage_oid_mcp' },
    ],
    features: ['Support prioritaire', 'API avancée'],
  },
  {
    key: 'oid-enterprise',
    product: 'OID',
    name: 'Enterprise',
    feeRule: 'pricing_oid_enterprise_base',
    metrics: [
      { metric: 'user_active', included: null, rule: null },
      { metric: 'auth_login', included: null, rule: null },
      { metric: 'kyc_verification', included: '200', rule: 'overage_oid_kyc_enterprise' },
      { metric: 'certificate_enrolled', included: '100', rule: null },
      { metric: 'mcp_call', included: '2000', rule: null },
      { metric: 'scim', included: null, rule: null },
    ],
    features: ['Support dédié 24/7', 'SSO & SCIM', 'SLA 99,9 %'],
  },
  {
    key: 'oid-custom',
    product: 'OID',
    name: 'Custom',
    feeRule: null,
    onQuote: true,
    metrics: [],
    features: [
      'Support dédié 24/7',
      'SSO & SCIM',
      'SLA 99,9 %',
      'Quotas personnalisés',
      'Pricing sur mesure',
      'Déploiement dédié',
      'Account manager',
      'Audit & conformité',
    ],
  },
  {
    key: 'clm-usage',
    product: 'CLM',
    name: 'CLM à l’usage',
    feeRule: null,
    metrics: [
      { metric: 'documents_processed', included: '1000', rule: 'pricing_clm_usage' },
      { metric: 'ai_tokens', included: '200000', rule: null },
      { metric: 'user_active', included: '20', rule: null },
    ],
    features: [],
  },
  {
    key: 'sig-enterprise',
    product: 'Signature',
    name: 'Signature Enterprise',
    feeRule: 'pricing_sig_enterprise',
    metrics: [{ metric: 'signature_completed', included: null, rule: null }],
    features: [],
  },
  {
    key: 'iot-events',
    product: 'IoT',
    name: 'IoT à l’événement',
    feeRule: null,
    metrics: [
      { metric: 'iot_message', included: '0', rule: 'pricing_iot_events' },
      { metric: 'iot_data', included: null, rule: null },
      { metric: 'iot_temperature', included: null, rule: null },
      { metric: 'iot_temperature_max', included: null, rule: null },
    ],
    features: [],
  },
]

export const seedLegalEntity: LegalEntity = {
  key: 'orbus-digital',
  name: 'Orbus Digital Services',
  country: 'CI',
  address: [],
  registrations: {},
  invoicePattern: 'FA-{YYYY}-{NNNN}',
  creditNotePattern: 'AV-{YYYY}-{NNNN}',
  timeZone: 'Africa/Abidjan',
}

const customer = (tenant: string, name: string, country: string, timeZone: string, termDays = 30): Customer => ({
  tenant,
  name,
  country,
  address: [],
  registrations: {},
  // The screens tax every invoice at 18 %, whatever the customer's country.
  taxRate: '18',
  taxCategory: 'S',
  currency: 'EUR',
  timeZone,
  language: 'fr',
  termDays,
})

export const seedCustomers: readonly Customer[] = [
  customer('banque-atlantique', 'Banque Atlantique', 'CI', 'Africa/Abidjan'),
  customer('nsia-assurances', 'NSIA Assurances', 'CI', 'Africa/Abidjan'),
  customer('orange-ci', 'Orange CI', 'CI', 'Africa/Abidjan'),
  customer('ecobank-togo', 'Ecobank Togo', 'TG', 'Africa/Lome', 0),
  customer('mtn-cameroun', 'MTN Cameroun', 'CM', 'Africa/Douala'),
  customer('societe-generale-ci', 'Société Générale CI', 'CI', 'Africa/Abidjan'),
  customer('bicici', 'BICICI', 'CI', 'Africa/Abidjan'),
  customer('moov-africa', 'Moov Africa', 'CI', 'Africa/Abidjan', 0),
  customer('coris-bank', 'Coris Bank', 'BF', 'Africa/Ouagadougou'),
  customer('bridge-bank', 'Bridge Bank', 'CI', 'Africa/Abidjan'),
]

export const seedContracts: readonly ContractInput[] = [
  {
    id: 'banque-atlantique-clm',
    tenant: 'banque-atlantique',
    legalEntity: 'orbus-digital',
    name: 'Banque Atlantique — CLM',
    start: '2026-01-01',
    timeZone: 'Africa/Abidjan',
    cycle: 'monthly',
    state: 'active',
    items: [
      {
        id: 'banque-atlantique-clm/1',
        plan: 'clm-usage',
        entitlements: [
          { metric: 'documents_processed', limit: '1000', thresholds: DEFAULT_THRESHOLDS },
          {
            metric: 'ai_tokens',
            limit: '200000',
            thresholds: [...DEFAULT_THRESHOLDS, { code: '190000', kind: 'absolute', value: '190000' }],
          },
          { metric: 'user_active', limit: '20', thresholds: DEFAULT_THRESHOLDS },
        ],
      },
    ],
  },
  {
    id: 'banque-atlantique-oid',
    tenant: 'banque-atlantique',
    legalEntity: 'orbus-digital',
    name: 'Banque Atlantique — OID Business',
    start: '2026-01-01',
    timeZone: 'Africa/Abidjan',
    cycle: 'monthly',
    state: 'active',
    items: [
      {
        id: 'banque-atlantique-oid/1',
        plan: 'oid-business',
        entitlements: [
          { metric: 'auth_login', limit: null, thresholds: [{ code: '10000', kind: 'absolute', value: '10000' }] },
          { metric: 'kyc_verification', limit: '50', thresholds: DEFAULT_THRESHOLDS },
          { metric: 'certificate_enrolled', limit: '20', thresholds: DEFAULT_THRESHOLDS },
          { metric: 'mcp_call', limit: '500', thresholds: DEFAULT_THRESHOLDS },
        ],
      },
    ],
  },
]

/** Puts all of it into a catalogue. Returns how many definitions were new or different. */
export async function loadSeeds(catalog: Catalog): Promise<number> {
  let changed = 0
  const count = (put: { readonly changed: boolean }): void => {
    if (put.changed) changed += 1
  }
  for (const metric of seedMetrics) count(await catalog.putMetric(metric))
  for (const product of seedProducts) count(await catalog.putProduct(product))
  for (const price of seedPrices) count(await catalog.putPrice(price))
  for (const plan of seedPlans) count(await catalog.putPlan(plan))
  count(await catalog.putLegalEntity(seedLegalEntity))
  for (const one of seedCustomers) count(await catalog.putCustomer(one))
  for (const contract of seedContracts) count(await catalog.putContract(contract))
  return changed
}
