/** The golden cases as a test: what passes stays passing, what is not built is named, and no case is dropped in silence. */
import { describe, expect, test } from 'vitest'
import { goldenFile, readCases, runGolden } from './golden.js'

/** Cases that fail today, each with its reason. The list may only become shorter. */
const failing: readonly string[] = []

/** Areas of which some cases belong to parts that do not exist yet. Everything else must pass. */
const areasNotBuilt = ['dunning', 'kpi', 'mcp', 'payment', 'security']

describe('golden cases', () => {
  test('every case has one verdict, and only what is listed fails or is not built', async () => {
    const cases = readCases(goldenFile)
    const results = await runGolden(cases)
    expect(results.map((result) => result.id)).toEqual(cases.map((one) => one.id))
    expect(new Set(cases.map((one) => one.id)).size).toBe(cases.length)
    expect(cases.length).toBe(154)
    expect(results.filter((result) => result.verdict === 'fail').map((result) => result.id)).toEqual(failing)
    const notBuilt = new Set(results.filter((result) => result.verdict === 'not_built').map((result) => result.id))
    const areas = new Set(cases.filter((one) => notBuilt.has(one.id)).map((one) => one.area))
    expect([...areas].sort()).toEqual(areasNotBuilt)
    expect(notBuilt.size).toBe(38)
  }, 120_000)

  test('an unknown op, a wrong number, and an expectation of nothing all fail', async () => {
    const given = { metric: 'm', usage: '62', limit: '50' }
    const base = { id: 'x', area: 'quota', given }
    const results = await runGolden([
      { ...base, op: 'no_such_op', expect: { percent: '124.0' } },
      { ...base, op: 'quota_status', expect: { percent: '124.1' } },
      { ...base, op: 'quota_status', expect: { percent: '124' } },
      { ...base, op: 'quota_status', expect: {} },
      { ...base, op: 'quota_status', expect: { percent: '124.0', surprise: '1' } },
      { ...base, op: 'quota_status', expect: { percent: '124.0' } },
    ])
    expect(results.map((result) => result.verdict)).toEqual(['fail', 'fail', 'fail', 'fail', 'fail', 'pass'])
  })

  test('other numbers, other currencies and fields left out, reckoned by hand', async () => {
    const kyc = [
      { from: 51, to: 100, unit_price: 2.5 },
      { from: 101, to: null, unit_price: 2 },
    ]
    const packs = [
      { id: 'late', balance: '100', expires: '2026-06-01' },
      { id: 'soon', balance: '100', expires: '2026-05-01' },
    ]
    const cases: [area: string, op: string, given: object, expect: Record<string, unknown>][] = [
      ['quota', 'quota_status', { usage: '3' }, { percent: null, overage: null, status: 'unlimited' }],
      ['quota', 'quota_status', { usage: 1.5, limit: 2 }, { percent: '75.0', overage: '0', status: 'within' }],
      ['quota', 'count_over', { metrics: [{ usage: '2', limit: '1' }, ['1', '1']] }, { over: 1 }],
      ['tax', 'split_inclusive', { ttc: '118.00', rate: '18' }, { ht: '100.00', tva: '18.00', ttc: '118.00' }],
      ['tax', 'add_tax', { ht: '1000', rate: '9', currency: 'XOF' }, { ht: '1000', tva: '90', ttc: '1090' }],
      [
        'tax',
        'tax_total',
        { lines_ht: ['1.25', '1.25', '1.25'], rate: '18', rounding: 'per_line' },
        { ht: '3.75', tva: '0.69', ttc: '4.44' },
      ],
      [
        'tax',
        'tax_with_coupon',
        { lines: [{ ht: '1000', rate: '18' }], coupon: '100', currency: 'XOF' },
        { coupon_by_line: ['100'], tax_by_line: ['162'], tva: '162', ht_after_coupon: '900', ttc: '1062' },
      ],
      [
        'rating',
        'rate_graduated',
        { quantity: 150, tiers: kyc, currency: 'XOF' },
        {
          lines: [
            ['50', '2.5', '125'],
            ['50', '2', '100'],
          ],
          total: '225',
        },
      ],
      ['rating', 'rate_volume', { quantity: '3', tiers: [{ up_to: null, flat: '7' }] }, { total: '7' }],
      ['rating', 'rate_graduated_flat', { quantity: '3', tiers: [{ up_to: null, unit: '2' }] }, { total: '6' }],
      ['rating', 'rate_package', { quantity: '121', package_size: '10', package_price: 100 }, { total: '1300' }],
      [
        'rating',
        'rate_volume_package',
        { quantity: '0', package_size: 10, package_price: '1' },
        { packages: 0, total: '0' },
      ],
      ['rating', 'rate_percentage', { amount: '800', rate: '1.5' }, { total: '12' }],
      ['rating', 'rate_percentage', { amount: '100', rate: '1', events: 3, minimum: '5' }, { total: '5' }],
      [
        'rating',
        'rate_percentage',
        { amount: '101', rate: '1', amounts: ['1', '100'], minimum_per_event: '0.5', maximum_per_event: '0.9' },
        { total: '1.4' },
      ],
      ['rating', 'apply_commitment', { charges: '100', minimum: '1000' }, { true_up: '900' }],
      ['rating', 'apply_cap', { charges: '50', maximum: '30' }, { discount: '20', net: '30' }],
      [
        'rating',
        'rule_version',
        {
          versions: [{ v: '1.0', from: '2026-01-01', price: '100' }],
          usage: [{ at: '2026-03-20', value: 3 }],
          currency: 'XOF',
        },
        { pin_to_period_start: '300', by_event_time: '300' },
      ],
      ['rounding', 'round', { value: '2.5', mode: 'half_even' }, { value: '2' }],
      [
        'proration',
        'prorate_days',
        { amount: '910', used_days: 32, period_days: 91, currency: 'XOF' },
        { amount: '320' },
      ],
      [
        'proration',
        'upgrade',
        { old: '200', new: '500', days_left: 16, period_days: 31 },
        { credit: '-103.23', charge: '258.06', net: '154.83' },
      ],
      [
        'proration',
        'prorate_window',
        { amount: '310', start: '2026-03-11', end: '2026-03-21', period: ['2026-03-01', '2026-04-01'] },
        { by_day: '100.00', by_second: '100.00' },
      ],
      ['prepaid', 'burn_down', { grants: packs, usage: 120 }, { balances: { soon: '0', late: '80' }, overage: '0' }],
      [
        'prepaid',
        'exhaust',
        { pack: '100', pack_price: '800', usage: '301', policy: 'auto_recharge', currency: 'XOF' },
        { amount: '2400', recharges: 3 },
      ],
      [
        'window',
        'next_renewal',
        { start: '2026-01-31', cycle: 'quarterly', today: '2026-02-10' },
        { next: '2026-04-30' },
      ],
      ['window', 'next_renewal', { start: '2024-02-29', cycle: 'yearly', today: '2026-03-10' }, { next: '2027-02-28' }],
      [
        'window',
        'anniversary_windows',
        { anchor: '2026-03-26', count: 2, cycle: 'weekly' },
        {
          windows: [
            ['2026-03-26', '2026-04-02'],
            ['2026-04-02', '2026-04-09'],
          ],
        },
      ],
      ['invoice', 'next_number', { last: 'INV/2022/04/0017', date: '2022-05-02' }, { number: 'INV/2022/05/0001' }],
      [
        'invoice',
        'finalize_concurrently',
        { start: 'INV/2022/04/0009', invoices: 3 },
        { first: 'INV/2022/04/0010', last: 'INV/2022/04/0012', gaps: 0, duplicates: 0 },
      ],
      [
        'invoice',
        'build_invoice',
        { contract: 'OID Starter', usage: { kyc_verification: 12, users: '7' }, tax_rate: '20' },
        {
          lines: ['50.00', '6.00'],
          unpriced_overage: [{ metric: 'user_active', quantity: '2' }],
          ht: '56.00',
          tva: '11.20',
          ttc: '67.20',
        },
      ],
      [
        'usage',
        'ingest',
        {
          events: [
            { id: '1', value: '1.5' },
            { id: '1', value: '1.5' },
          ],
        },
        { accepted: 1, duplicates: 1, conflicts: 0, total: '1.5' },
      ],
      ['usage', 'convert', { value: '90', from_unit: 'min', to_unit: 'h' }, { value: '1.5' }],
      ['payment', 'convert', { amount: '10.00', from: 'EUR', to: 'XOF' }, { amount: '6560' }],
      ['subscription', 'transition', { from: 'cancelled', to: 'active' }, { error: 'illegal_transition' }],
      ['subscription', 'transition', { from: 'trial', to: 'active' }, { error: null }],
      [
        'simulation',
        'compare_plans',
        { usage: { kyc_verification: '20', users: '6' }, include_limits: true },
        { starter: '80.00', business: '200.00', cheapest: 'business' },
      ],
      [
        'simulation',
        'lint_catalog',
        { plan: 'P', card_overage_kyc: '2', rule_tiers: [{ up_to: null, unit_price: '2' }] },
        { warning: null },
      ],
      ['catalog', 'rate_with', { rule: 'r', version: '1.0', status: 'active' }, { error: null }],
      ['trial', 'trial_status', { start: '2026-03-01', today: '2026-03-10' }, { ends: '2026-03-15', days_left: 5 }],
      [
        'usage',
        'collect_usage',
        {
          usage: [
            { at: '2024-02-29', value: '1.5', state: 'pending' },
            { at: '2024-03-01', value: '2', state: 'pending' },
          ],
          period: '2024-02',
        },
        { quantity: '1.5', state_after: 'collected', invoice: 'INV/2024/02/0001' },
      ],
      [
        'usage',
        'collect_usage',
        {
          usage: [
            { value: '-2', state: 'pending' },
            { value: '5.25', state: 'pending' },
          ],
          period: '2026-12',
        },
        { quantity: '3.25', invoice: 'INV/2026/12/0001' },
      ],
      [
        'usage',
        'collect_usage',
        { usage: [{ value: '5', state: 'draft' }], period: '2026-03' },
        { quantity: '0', state_after: 'draft', invoice: null },
      ],
      [
        'usage',
        'late_usage',
        { event_period: '2026-12', invoice_state: 'finalized' },
        { goes_to: '2027-01 invoice, line "regularisation decembre 2026"' },
      ],
      [
        'usage',
        'late_usage',
        { event_period: '2026-02', invoice_state: 'finalized', policy: 'complementary_invoice' },
        { goes_to: 'complementary_invoice' },
      ],
      [
        'usage',
        'late_usage',
        { event_period: '2026-02', invoice_state: 'finalized', policy: 'reject' },
        { goes_to: 'rejected' },
      ],
      [
        'usage',
        'late_usage',
        { event_period: '2026-02', invoice_state: 'draft', policy: 'reject' },
        { goes_to: '2026-02 draft invoice' },
      ],
      ['usage', 'parse_json', { text: '[1,' }, { error: 'invalid_json' }],
      ['usage', 'validate_usage', {}, { error: 'empty' }],
      ['usage', 'calculate_json', { json: { cpu: 8, ram: '0.5' }, formula: 'cpu * 2 + ram / 4' }, { amount: '16.13' }],
      ['invoice', 'next_number', { last: null, date: '2026-03-11' }, { number: 'FA-2026-0001' }],
      ['invoice', 'next_number', { last: 'INV/2022/12/0031', date: '2023-01-01' }, { number: 'INV/2023/01/0001' }],
      [
        'invoice',
        'next_number',
        { last: '26/0007', date: '2026-12-31', pattern: '{YY}/{NNNN}' },
        { number: '26/0008' },
      ],
      [
        'invoice',
        'finalize_concurrently',
        { start: 'FA-2026-9990', invoices: 20 },
        { first: 'FA-2026-9991', last: 'FA-2026-10010', gaps: 0, duplicates: 0 },
      ],
      [
        'invoice',
        'finalize_with_failure',
        { start: 'INV/2022/04/0001', outcomes: ['fail', 'fail', 'ok', 'fail', 'ok'] },
        { numbers: ['INV/2022/04/0002', 'INV/2022/04/0003'], gaps: 0 },
      ],
      ['invoice', 'delete_invoice', { state: 'certifying' }, { error: 'immutable', remedy: 'credit_note' }],
      [
        'invoice',
        'credit_unused',
        { amount: '31000', unused_days: 10, period_days: 31, tax_rate: '18', currency: 'XOF' },
        { ht: '10000', tva: '1800', ttc: '11800' },
      ],
      ['invoice', 'days_late', { due_date: '2024-02-28', today: '2024-03-01' }, { days: 2 }],
      [
        'contract',
        'schedules',
        { start: '2024-02-29', months: 12 },
        { count: 12, first: ['2024-02-29', '2024-03-29'], last: ['2025-01-29', '2025-02-28'] },
      ],
      ['trial', 'trial_status', { start: '2026-02-24', grace_days: 7, today: '2026-03-17' }, { status: 'expired' }],
      [
        'trial',
        'funnel',
        { started: 10, active: 4, converting: 1, converted: 3, expired: 2 },
        { sum_ok: true, conversion_percent: '30.0' },
      ],
      ['subscription', 'transition', { from: 'nothing', to: 'active' }, { error: 'illegal_transition' }],
      ['alert', 'thresholds_crossed', { previous: '1450', value: '1399', thresholds: ['500'] }, { fired: [] }],
      ['format', 'format', { value: '84.7', style: 'percent' }, { text: '84,7 %' }],
      ['format', 'format', { value: '442771', currency: 'XOF' }, { text: '442 771 F CFA' }],
    ]
    const results = await runGolden(
      cases.map(([area, op, given, expected], i) => ({ id: `${i} ${op}`, area, op, given, expect: expected })),
    )
    expect(results.filter((result) => result.verdict !== 'pass')).toEqual([])
  }, 120_000)
})
