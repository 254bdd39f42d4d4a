/**
 * Packs and usage that comes after the period was settled, against a naive oracle: a ledger of single units, each given to the first
 * pack that may pay it. Pure; the same on engines is test/prepaid/late.test.ts.
 */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { type FundingPack, fund, type LedgerStep, lateLedgerOf, ledgerOf } from '../../src/invoicing/funding.js'

const metric = { unit: 'call' }
const PERIOD = { from: 0, to: 30 }

interface PlainPack {
  readonly id: string
  readonly units: number
  readonly priority: number
  readonly from: number
  readonly to: number | null
}

/** Unit by unit, in the order of the days: what each pack pays. `days[d]` is the usage of a day. */
function naive(packs: readonly PlainPack[], quota: number, days: readonly number[]): Map<string, number> {
  const left = new Map(packs.map((pack) => [pack.id, pack.units]))
  const paid = new Map<string, number>()
  const order = [...packs].sort(
    (a, b) => a.priority - b.priority || (a.to ?? 1_000) - (b.to ?? 1_000) || (a.id < b.id ? -1 : 1),
  )
  let used = 0
  for (const [day, count] of days.entries()) {
    for (let unit = 0; unit < count; unit += 1) {
      used += 1
      if (used <= quota) continue
      const pack = order.find((one) => one.from <= day && (one.to ?? 1_000) > day && left.get(one.id)! > 0)
      if (pack === undefined) continue
      left.set(pack.id, left.get(pack.id)! - 1)
      paid.set(pack.id, (paid.get(pack.id) ?? 0) + 1)
    }
  }
  return paid
}

const cutsOf = (packs: readonly PlainPack[]): number[] =>
  [...new Set(packs.flatMap(({ from, to }) => [from, to ?? 0]))].filter((at) => at > 0 && at < 30).sort((a, b) => a - b)

/** The parts that purchases and ends of packs cut the days into. */
function partsOf(packs: readonly PlainPack[], days: readonly number[]) {
  const cuts = cutsOf(packs)
  return cuts.map((to, i) => {
    const period = { from: cuts[i - 1] ?? 0, to }
    const quantity = days.slice(period.from, period.to).reduce((all, one) => all + one, 0)
    return { period, quantity: String(quantity) }
  })
}

const total = (days: readonly number[]): string => String(days.reduce((all, one) => all + one, 0))
const sumOf = (steps: readonly LedgerStep[], kind: LedgerStep['kind'], pack?: string): number =>
  steps
    .filter((step) => step.kind === kind && (pack === undefined || step.pack === pack))
    .reduce((all, step) => all + Number(step.quantity), 0)

const packsOf = fc
  .array(
    fc.record({
      units: fc.integer({ min: 1, max: 40 }),
      priority: fc.nat(2),
      from: fc.nat(25),
      length: fc.option(fc.integer({ min: 1, max: 30 })),
    }),
    { minLength: 1, maxLength: 4 },
  )
  .map((all) =>
    all.map(
      ({ units, priority, from, length }, i): PlainPack => ({
        ...{ id: `p${i}`, units, priority, from },
        to: length === null ? null : from + length,
      }),
    ),
  )
const daysOf = fc.array(fc.nat(5), { minLength: 30, maxLength: 30 })

const asFunding = (
  packs: readonly PlainPack[],
  days: readonly number[],
  balanceOf: (pack: PlainPack) => number,
): {
  item: string
  metric: string
  exhaustion: 'standard_price'
  packs: FundingPack[]
  parts: ReturnType<typeof partsOf>
} => ({
  item: 'i',
  metric: 'm',
  exhaustion: 'standard_price',
  packs: packs.map((pack) => ({
    id: pack.id,
    name: pack.id,
    balance: String(balanceOf(pack)),
    priority: pack.priority,
    validFrom: pack.from,
    ...(pack.to === null ? {} : { expires: pack.to }),
  })),
  parts: partsOf(packs, days),
})

test('the first funding pays unit by unit as the oracle does', () => {
  fc.assert(
    fc.property(packsOf, fc.nat(30), daysOf, (packs, quota, days) => {
      const funded = fund(
        asFunding(packs, days, (one) => one.units),
        metric,
        String(quota),
        total(days),
        PERIOD,
      )
      const steps = ledgerOf(
        asFunding(packs, days, () => 0),
        funded,
        PERIOD,
      )
      const expected = naive(packs, quota, days)
      for (const pack of packs) {
        expect(sumOf(steps, 'debit', pack.id) + (expected.get(pack.id) ?? 0), pack.id).toBe(0)
        const over = pack.to !== null && pack.to <= PERIOD.to
        const rest = pack.units - (expected.get(pack.id) ?? 0)
        expect(sumOf(steps, 'forfeit', pack.id) + (over ? rest : 0)).toBe(0)
      }
    }),
  )
})

test('usage that comes and goes after it ends as if it had been known, less what later periods have taken', () => {
  const share = fc.integer({ min: 0, max: 100 })
  fc.assert(
    fc.property(packsOf, fc.nat(30), daysOf, daysOf, daysOf, share, (packs, quota, days, more, less, taken) => {
      const ledger: LedgerStep[] = packs.map(({ id, units, from }) => ({
        ...{ pack: id, kind: 'grant', quantity: String(units), at: from },
      }))
      const balance = (id: string): number =>
        ledger.filter((step) => step.pack === id).reduce((all, step) => all + Number(step.quantity), 0)
      const first = asFunding(packs, days, (one) => one.units)
      ledger.push(...ledgerOf(first, fund(first, metric, String(quota), total(days), PERIOD), PERIOD))
      // The next period takes a share of what is left.
      const later = new Map(packs.map(({ id }) => [id, Math.floor((balance(id) * taken) / 100)]))
      for (const [pack, units] of later) ledger.push({ pack, kind: 'debit', quantity: String(-units), at: 40 })

      let now = days
      for (const change of [more, less.map((one) => -one), more]) {
        now = now.map((one, day) => Math.max(one + change[day]!, 0))
        const here = (pack: string): number =>
          ledger
            .filter((step) => step.pack === pack && step.kind === 'debit' && step.at < 30)
            .reduce((all, step) => all - Number(step.quantity), 0)
        const again = {
          ...asFunding(packs, now, ({ id }) => balance(id) + here(id) - sumOf(ledger, 'forfeit', id)),
          debited: Object.fromEntries(packs.map(({ id }) => [id, String(here(id))])),
          left: Object.fromEntries(packs.map(({ id }) => [id, String(balance(id))])),
        }
        const funded = fund(again, metric, String(quota), total(now), PERIOD)
        ledger.push(...lateLedgerOf(again, funded, PERIOD))
        const expected = naive(
          packs.map((pack) => ({ ...pack, units: pack.units - later.get(pack.id)! })),
          quota,
          now,
        )
        for (const { id, units } of packs) {
          expect(here(id), `${id} pays`).toBe(expected.get(id) ?? 0)
          expect(balance(id), `${id} is never overdrawn`).toBeGreaterThanOrEqual(0)
          const all = here(id) + later.get(id)! - sumOf(ledger, 'forfeit', id) + balance(id)
          expect(all, `${id}: nothing is made or lost`).toBe(units)
        }
      }
    }),
    { numRuns: 200 },
  )
})
