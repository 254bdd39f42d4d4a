/**
 * Cases of the harness's form at the edges: here by hand, in edges.json by a small program with fractions that shares nothing with
 * the product. `npm run golden -- test/golden/edges.json` prints them one by one.
 */
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { rootDirectory } from '../../src/paths.js'
import { readCases, runGolden } from './golden.js'

const cases: [area: string, op: string, given: Record<string, unknown>, expect: Record<string, unknown>][] = [
  [
    'rating',
    'rate_graduated_flat',
    {
      quantity: '5.5',
      tiers: [
        { up_to: 5, unit: '1' },
        { up_to: null, unit: '2' },
      ],
    },
    { total: '6' },
  ],
  [
    'rating',
    'rate_volume',
    {
      quantity: '100.5',
      tiers: [
        { up_to: 100, unit: '2' },
        { up_to: null, unit: '1' },
      ],
    },
    { total: '100.5' },
  ],
  [
    'rating',
    'rate_volume',
    {
      quantity: '100',
      tiers: [
        { up_to: 100, unit: '2' },
        { up_to: null, unit: '1' },
      ],
    },
    { total: '200' },
  ],
  [
    'rating',
    'rate_package',
    { quantity: '121', package_size: 10, package_price: '100', free_units: 150 },
    { total: '0' },
  ],
  ['rating', 'rate_package', { quantity: '120.0001', package_size: 10, package_price: '1' }, { total: '13' }],
  ['rating', 'rate_percentage', { amount: '0', rate: '5', events: 0, fixed_per_event: '2' }, { total: '0' }],
  [
    'prepaid',
    'burn_down',
    {
      grants: [
        { id: 'a', balance: '0.25', priority: 1 },
        { id: 'b', balance: '1', priority: 2 },
      ],
      usage: '0.5',
    },
    { balances: { a: '0', b: '0.75' }, overage: '0' },
  ],
  ['prepaid', 'burn_down', { grants: [], usage: '3' }, { balances: {}, overage: '3' }],
  [
    'prepaid',
    'burn_down',
    {
      grants: [
        { id: 'b', balance: '5' },
        { id: 'a', balance: '5' },
      ],
      usage: '5',
    },
    { balances: { a: '0', b: '5' }, overage: '0' },
  ],
  [
    'prepaid',
    'burn_down_timeline',
    { packs: [{ id: 'A', balance: '50', expires: '2026-04-01' }], usage: [{ at: '2026-04-01', value: '10' }] },
    { balances: { A: '0' }, forfeited: { A: '50' }, overage: '10' },
  ],
  [
    'prepaid',
    'burn_down_timeline',
    {
      packs: [{ id: 'A', balance: '50', expires: '2026-04-01' }],
      usage: [
        { at: '2026-04-05', value: '10' },
        { at: '2026-03-31', value: '20' },
      ],
    },
    { balances: { A: '0' }, forfeited: { A: '30' }, overage: '10' },
  ],
  [
    'prepaid',
    'exhaust',
    { pack: '100', pack_price: '8', usage: '50', policy: 'block' },
    { accepted: '50', rejected: '0', amount: '0.00', billed_overage: '0' },
  ],
  [
    'prepaid',
    'exhaust',
    { pack: '100', pack_price: '8', usage: '100.5', policy: 'auto_recharge' },
    { recharges: 1, amount: '8.00', accepted: '100.5' },
  ],
  ['proration', 'prorate_days', { amount: '1000', used_days: 1, period_days: 3, currency: 'XOF' }, { amount: '333' }],
  [
    'proration',
    'prorate_window',
    { amount: '745', start: '2026-10-25', period: ['2026-10-01', '2026-11-01'], zone: 'Europe/Paris' },
    { by_second: '169.00', by_day: '168.23', hours_left: 169, hours_total: 745 },
  ],
  [
    'proration',
    'prorate_window',
    { amount: '290', start: '2028-02-29', period: ['2028-02-01', '2028-03-01'] },
    { by_day: '10.00', by_second: '10.00' },
  ],
  [
    'invoice',
    'credit_unused',
    { amount: '160.00', unused_days: 0, period_days: 30, tax_rate: '20' },
    { ht: '0.00', tva: '0.00', ttc: '0.00' },
  ],
  [
    'window',
    'month_window',
    { zone: 'Asia/Kolkata', year: 2026, month: 3 },
    { from_utc: '2026-02-28T18:30:00Z', to_utc: '2026-03-31T18:30:00Z', hours: 744 },
  ],
  [
    'window',
    'month_window',
    { zone: 'Asia/Kathmandu', year: 2026, month: 3 },
    { from_utc: '2026-02-28T18:15:00Z', to_utc: '2026-03-31T18:15:00Z', hours: 744 },
  ],
  [
    'window',
    'month_window',
    { zone: 'Australia/Lord_Howe', year: 2026, month: 4 },
    { from_utc: '2026-03-31T13:00:00Z', to_utc: '2026-04-30T13:30:00Z', hours: 720.5 },
  ],
  [
    'window',
    'anniversary_windows',
    { anchor: '2023-12-31', count: 3 },
    {
      windows: [
        ['2023-12-31', '2024-01-31'],
        ['2024-01-31', '2024-02-29'],
        ['2024-02-29', '2024-03-31'],
      ],
    },
  ],
  [
    'window',
    'anniversary_windows',
    { anchor: '2024-02-29', count: 2, cycle: 'yearly' },
    {
      windows: [
        ['2024-02-29', '2025-02-28'],
        ['2025-02-28', '2026-02-28'],
      ],
    },
  ],
  ['quota', 'quota_status', { usage: '0', limit: '0' }, { percent: null, overage: '0', status: 'at_limit' }],
  ['quota', 'quota_status', { usage: '0.5', limit: '0' }, { percent: null, overage: '0.5', status: 'over' }],
  ['rating', 'apply_cap', { charges: '50', previous: '120', maximum: '100' }, { discount: '50', net: '0' }],
  ['rating', 'apply_commitment', { charges: '900', previous: '200', minimum: '1000' }, { true_up: '0' }],
  ['alert', 'thresholds_crossed', { previous: '500', value: '500', thresholds: ['500'] }, { fired: [] }],
  ['alert', 'thresholds_crossed', { previous: '499.999', value: '500', thresholds: ['500'] }, { fired: ['500'] }],
  ['rounding', 'round', { value: '-2.5', mode: 'half_up' }, { value: '-3' }],
  ['rounding', 'round', { value: '-2.5', mode: 'half_even' }, { value: '-2' }],
  ['rounding', 'round', { value: '1.005', places: 2, mode: 'half_up' }, { value: '1.01' }],
  [
    'usage',
    'late_usage_rating',
    {
      billed_quantity: '62',
      late_quantity: '0',
      tiers: [
        { from: 51, to: 100, unit_price: '2.50' },
        { from: 101, to: null, unit_price: '2.00' },
      ],
    },
    { amount: '0.00' },
  ],
  ['tax', 'split_inclusive', { ttc: '0.01', rate: '20' }, { ht: '0.01', tva: '0.00', ttc: '0.01' }],
  [
    'rating',
    'rate_graduated',
    {
      quantity: '100.5',
      tiers: [
        { from: 51, to: 100, unit_price: '2.50' },
        { from: 101, to: null, unit_price: '2.00' },
      ],
    },
    {
      lines: [
        ['50', '2.50', '125.00'],
        ['0.5', '2.00', '1.00'],
      ],
      total: '126.00',
    },
  ],
]

test('at the edges', async () => {
  const results = await runGolden(
    cases.map(([area, op, given, expected], i) => ({ id: `${i} ${op}`, area, op, given, expect: expected })),
  )
  expect(results.filter((result) => result.verdict !== 'pass')).toEqual([])
})

test('every case of edges.json', async () => {
  const edges = readCases(join(rootDirectory, 'test/golden/edges.json'))
  expect(new Set(edges.map((one) => one.id)).size).toBe(edges.length)
  expect(edges.length).toBe(383)
  const results = await runGolden(edges)
  expect(results.filter((result) => result.verdict !== 'pass')).toEqual([])
}, 120_000)

test('an adapter takes what the thresholds tell, not only what a value says of itself', async () => {
  const [wrong] = await runGolden([
    {
      id: 'x',
      area: 'alert',
      op: 'threshold_state',
      given: { threshold: '10', values: ['9', '10', '9', '10'] },
      expect: { states: ['ok', 'alarm', 'ok', 'ok'] },
    },
  ])
  expect(wrong!.verdict).toBe('fail')
})
