/** The life of a contract, pure: terms and notices, moves and what they leave, trials and their funnel. */
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Book } from '../../src/catalog/book.js'
import { type Contract, parseContract } from '../../src/catalog/contract.js'
import { extendTrial, giveNotice, moveContract } from '../../src/catalog/moves.js'
import { changePlan, isBilled, partOf, pausesIn } from '../../src/catalog/part.js'
import { endAfterNotice, renewalOf } from '../../src/catalog/renewal.js'
import { SubscriptionMoves, type SubscriptionState } from '../../src/catalog/subscription.js'
import { trialsOf } from '../../src/catalog/trials.js'
import { billingPeriodOf, Cycle, DAY_MS } from '../../src/period.js'

const base = {
  id: 'c',
  tenant: 't',
  legalEntity: 'e',
  start: '2026-01-01',
  timeZone: 'Africa/Abidjan',
  items: [],
}
const contract = (changes: object = {}): Contract => parseContract({ ...base, ...changes }) as unknown as Contract
const at = (day: string): number => Date.parse(`${day}T12:00:00Z`)

describe('cycles', () => {
  test('periods of every cycle meet, hold their time, and come back to the day of the anchor', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...Cycle),
        fc.integer({ min: 0, max: 3_000 }),
        fc.integer({ min: -2_000, max: 6_000 }),
        fc.constantFrom('Africa/Abidjan', 'Europe/Paris', 'America/New_York'),
        (cycle, start, days, zone) => {
          const anchor = Date.UTC(2020, 0, 1, 5) + start * DAY_MS
          const time = anchor + days * DAY_MS
          const period = billingPeriodOf(time, anchor, zone, cycle)
          expect(period.from <= time && time < period.to).toBe(true)
          expect(billingPeriodOf(period.to, anchor, zone, cycle).from).toBe(period.to)
          expect(billingPeriodOf(period.from - 1, anchor, zone, cycle).to).toBe(period.from)
        },
      ),
    )
    const ends = (cycle: Cycle): string[] =>
      [0, 1, 2].map((i) => {
        let period = billingPeriodOf(Date.UTC(2024, 0, 31), Date.UTC(2024, 0, 31), 'UTC', cycle)
        for (let n = 0; n < i; n += 1) period = billingPeriodOf(period.to, Date.UTC(2024, 0, 31), 'UTC', cycle)
        return new Date(period.to).toISOString().slice(0, 10)
      })
    expect(ends('monthly')).toEqual(['2024-02-29', '2024-03-31', '2024-04-30'])
    expect(ends('quarterly')).toEqual(['2024-04-30', '2024-07-31', '2024-10-31'])
    expect(ends('yearly')).toEqual(['2025-01-31', '2026-01-31', '2027-01-31'])
    expect(ends('weekly')).toEqual(['2024-02-07', '2024-02-14', '2024-02-21'])
  })
})

describe('renewal', () => {
  test("the screen's contract renews on 1 April", () => {
    expect(renewalOf(contract(), at('2026-03-10'))).toEqual({
      term: { from: '2026-03-01', until: '2026-03-31' },
      nextRenewal: '2026-04-01',
      noticeBy: '2026-03-31',
      endsOn: null,
    })
  })

  test('a year of months, with two months of notice; too late is a year later', () => {
    const yearly = contract({ renewal: { periods: 12, noticeDays: 60 } })
    const state = renewalOf(yearly, at('2026-03-10'))
    expect([state.nextRenewal, state.noticeBy]).toEqual(['2027-01-01', '2026-11-02'])
    expect(endAfterNotice(yearly, '2026-11-02')).toBe('2026-12-31')
    expect(endAfterNotice(yearly, '2026-11-03')).toBe('2027-12-31')
    const noticed = giveNotice(yearly, '2026-06-01').contract
    expect([noticed.end, renewalOf(noticed, at('2026-06-02')).nextRenewal]).toEqual(['2026-12-31', null])
  })

  test('notice on the last day that is told ends the term, a day later the next one', () => {
    for (const cycle of Cycle) {
      for (const noticeDays of [0, 1, 2, 6]) {
        const one = contract({ start: '2024-01-31', cycle, renewal: { noticeDays } })
        const { noticeBy, term, nextRenewal } = renewalOf(one, at('2026-03-10'))
        expect(endAfterNotice(one, noticeBy!), `${cycle} ${noticeDays}`).toBe(term.until)
        const late = new Date(Date.parse(noticeBy!) + DAY_MS).toISOString().slice(0, 10)
        expect(endAfterNotice(one, late) > nextRenewal!, `${cycle} ${noticeDays}, a day late`).toBe(true)
      }
    }
  })

  test('of one that is over the last term is told, not one behind its end', () => {
    const once = contract({ cycle: 'quarterly', renewal: { auto: false } })
    expect(renewalOf(once, at('2026-11-10')).term).toEqual({ from: '2026-01-01', until: '2026-03-31' })
  })

  test('one that does not renew ends with its term, and nothing is billed behind it', () => {
    const once = contract({ cycle: 'quarterly', renewal: { auto: false } })
    expect(renewalOf(once, at('2026-02-01'))).toMatchObject({ nextRenewal: null, noticeBy: null, endsOn: '2026-03-31' })
    const second = { from: Date.UTC(2026, 3, 1), to: Date.UTC(2026, 6, 1) }
    expect([isBilled(once, { from: Date.UTC(2026, 0, 1), to: second.from }), isBilled(once, second)]).toEqual([
      true,
      false,
    ])
  })
})

describe('moves', () => {
  const march = { from: Date.UTC(2026, 2, 1), to: Date.UTC(2026, 3, 1) }
  const days = (range: { from: number; to: number } | null) => range && (range.to - range.from) / DAY_MS

  test('only those of the table are allowed, from any state to any other', () => {
    const states = Object.keys(SubscriptionMoves) as SubscriptionState[]
    for (const from of states) {
      for (const to of states) {
        const act = () => moveContract(contract({ state: from }), to, '2026-03-05')
        if ((SubscriptionMoves[from] as readonly string[]).includes(to)) expect(act().contract.state).toBe(to)
        else expect(act, `${from} to ${to}`).toThrow(/cannot become/)
      }
    }
  })

  test('provisioned and trial are not billed; converted on the 11th, March is billed from there', () => {
    const provisioned = contract({ state: 'provisioned' })
    expect(partOf(provisioned, {}, march)).toBeNull()
    const trial = moveContract(provisioned, 'trial', '2026-03-01').contract
    expect([trial.trial, partOf(trial, {}, march)]).toEqual([{ start: '2026-03-01', lengthDays: 14 }, null])
    const active = moveContract(trial, 'active', '2026-03-11').contract
    expect([active.trial?.convertedOn, days(partOf(active, {}, march))]).toEqual(['2026-03-11', 21])
    expect(days(partOf(moveContract(provisioned, 'active', '2026-03-20').contract, {}, march))).toBe(12)
  })

  test('cancelled before it was ever active, it is billed for no day; put again, likewise', () => {
    const gone = moveContract(contract({ state: 'provisioned' }), 'cancelled', '2026-03-20').contract
    expect([gone.state, gone.end, partOf(gone, {}, march)]).toEqual(['cancelled', '2026-03-20', null])
    expect(isBilled({ ...gone, fees: 'in_advance' }, { from: Date.UTC(2026, 1, 1), to: march.from })).toBe(false)
    const tried = moveContract(contract({ state: 'provisioned' }), 'trial', '2026-03-01').contract
    expect(partOf(moveContract(tried, 'cancelled', '2026-03-20').contract, {}, march)).toBeNull()
  })

  test('made as suspended, it is so from its start, and lifting that ends it', () => {
    const made = contract({ state: 'suspended' })
    expect(pausesIn(made, march).map(days)).toEqual([31])
    expect(moveContract(made, 'active', '2026-03-11').contract.pauses).toEqual([
      { from: '2026-01-01', until: '2026-03-10' },
    ])
  })

  test('a suspension lasts until the day before it is lifted; lifted the same day it was none', () => {
    const suspended = moveContract(contract(), 'suspended', '2026-03-10').contract
    expect(pausesIn(suspended, march).map(days)).toEqual([22])
    const again = moveContract(suspended, 'active', '2026-03-20').contract
    expect([again.pauses, pausesIn(again, march).map(days)]).toEqual([
      [{ from: '2026-03-10', until: '2026-03-19' }],
      [10],
    ])
    expect(moveContract(suspended, 'active', '2026-03-10').contract.pauses).toBeUndefined()
  })

  test('cancelled: the day is the last one, and an end agreed on before stays', () => {
    expect(moveContract(contract(), 'cancelled', '2026-03-15').contract.end).toBe('2026-03-15')
    expect(moveContract(contract({ end: '2026-03-12' }), 'cancelled', '2026-03-15').contract.end).toBe('2026-03-12')
    expect(() => giveNotice(contract({ state: 'cancelled' }), '2026-03-01')).toThrow(/is cancelled/)
  })

  test('a trial is extended while it runs or is in its grace, never when it has expired', () => {
    const trial = contract({ state: 'trial', trial: { start: '2026-02-25', graceDays: 7 } })
    expect(extendTrial(trial, 7, '2026-03-09').contract.trial?.extensionDays).toBe(7)
    expect(extendTrial(trial, 7, '2026-03-17').move.detail).toBe('+7 d')
    expect(() => extendTrial(trial, 7, '2026-03-18')).toThrow(/has expired/)
    expect(() => extendTrial(contract(), 7, '2026-03-09')).toThrow(/is active/)
  })
})

test('a plan is changed behind the first day of its item and not behind its last, and the old part ends the day before', () => {
  const one = contract({ end: '2026-12-31', items: [{ id: 'a', plan: 'p', entitlements: [] }] })
  const change = (item: string, from: string, of = one) => changePlan(of, { item, plan: 'q', from })
  const changed = parseContract(change('a', '2026-03-11')) as unknown as Contract
  expect(changed.items.map(({ id, plan, from, until }) => [id, plan, from, until])).toEqual([
    ['a', 'p', undefined, '2026-03-10'],
    ['a@2026-03-11', 'q', '2026-03-11', undefined],
  ])
  expect(() => change('a', '2026-01-01')).toThrow(/^from: a begins on 2026-01-01/)
  expect(() => change('a', '2027-01-01')).toThrow(/^from: c ends on 2026-12-31$/)
  expect(() => change('a', '2026-02-30')).toThrow(/^from: YYYY-MM-DD/)
  expect(() => change('b', '2026-03-11')).toThrow(/its items are a$/)
  const again = { ...changed, items: changed.items.map((item) => ({ ...item, entitlements: [] })) } as Contract
  expect(() => change('a', '2026-04-01', again)).toThrow(/^from: a ends on 2026-03-10/)
})

test('the funnel: every trial is counted once, and the share is of those that began', () => {
  const trial = (id: number, changes: object): Contract =>
    contract({ id: `c${id}`, state: 'trial', trial: { start: '2026-03-01', graceDays: 7, ...changes } })
  const many = (from: number, count: number, changes: object): Contract[] =>
    Array.from({ length: count }, (_, i) => trial(from + i, changes))
  // The seeds' figures: 23 began, 15 run, 4 are to be decided on, 4 were converted.
  const contracts = [
    ...many(0, 15, {}),
    ...many(100, 4, { start: '2026-02-21' }),
    ...many(200, 4, { start: '2026-02-20', convertedOn: '2026-03-06' }).map((one) => ({
      ...one,
      state: 'active' as const,
    })),
  ]
  const parts = { version: 1, metrics: [], products: [], plans: [], prices: [], legalEntities: [], customers: [] }
  const now = at('2026-03-10')
  expect(trialsOf(new Book({ ...parts, contracts }), now, null).funnel).toEqual({
    started: 23,
    active: 15,
    converting: 4,
    converted: 4,
    expired: 0,
    conversionPercent: '17.4',
  })
  const expired = trialsOf(
    new Book({ ...parts, contracts: [...contracts, trial(300, { start: '2026-02-01' })] }),
    now,
    null,
  )
  expect([expired.funnel.expired, expired.trials[0]!.daysLeft, expired.trials[0]!.ends]).toEqual([1, 5, '2026-03-15'])
  expect(trialsOf(new Book({ ...parts, contracts }), now, 'other').funnel.started).toBe(0)
})
