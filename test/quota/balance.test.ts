/**
 * Live balances against an oracle that keeps every event and recomputes usage and crossings from the list after each event.
 * The oracle compares fractions; the room compares precomputed levels.
 */
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { printQuantity } from '../../src/amount.js'
import { Aggregation, isLive, type Metric } from '../../src/catalog/metric.js'
import { limits } from '../../src/limits.js'
import { billingPeriodOf, DAY_MS, type Period } from '../../src/period.js'
import {
  type Balances,
  type Crossing,
  type LiveEntitlement,
  type NeededBase,
  openBalances,
} from '../../src/quota/balance.js'
import type { BalanceBase } from '../../src/quota/figures.js'
import {
  eventOf,
  frameOf,
  histories,
  metricOf,
  type TestEvent,
  type TestRecord,
  testMemberHash,
} from '../aggregate/event-list.js'
import { promises } from '../promises.js'

const START = Date.UTC(2026, 2, 31, 23, 0)
const ZONE = 'Africa/Casablanca'
const ANCHOR = Date.UTC(2025, 11, 31)
const metrics = Aggregation.filter(isLive).map((aggregation, i) =>
  metricOf(aggregation, aggregation, aggregation === 'count' ? 0 : i % 4),
)

function entitlementOf(
  part: Partial<LiveEntitlement> & Pick<LiveEntitlement, 'metric' | 'aggregation'>,
): LiveEntitlement {
  const { tenant = 'acme', metric } = part
  return {
    item: `${tenant}/${metric}`,
    contract: 'contract',
    tenant,
    product: 'product',
    limit: '10',
    limitVersion: 1,
    thresholds: [
      { code: '80%', kind: 'percent', value: '80' },
      { code: '100%', kind: 'percent', value: '100' },
      { code: '33.3%', kind: 'percent', value: '33.3' },
      { code: '2', kind: 'absolute', value: '2' },
      { code: '0', kind: 'absolute', value: '0' },
    ],
    anchor: ANCHOR,
    timeZone: ZONE,
    ...part,
  }
}

const everyEntitlement = ['acme', 'zeta'].flatMap((tenant) =>
  metrics.map(({ key, aggregation }) => entitlementOf({ tenant, metric: key, aggregation })),
)

/** Times around a change of period; late by up to 30 days, which a month is not always. */
const wide = histories({
  metrics,
  start: START - DAY_MS,
  stepMsMax: 20 * DAY_MS,
  lateMs: 30 * DAY_MS,
  aheadMs: DAY_MS,
  valueMax: 20_000n,
  eventsMax: 20,
})

const zeroBase: BalanceBase = {
  ...{ sum: '0', count: 0, samples: 0, min: '0', max: '0', last: '0', lastTime: 0, lastPosition: 0 },
  members: { hashes: new Uint8Array(), counts: [] },
}

const known: Period[] = []
/** Of every entitlement here; found again in a list, because the zone's arithmetic is slow. */
function periodOf(time: number): Period {
  let period = known.find(({ from, to }) => time >= from && time < to)
  if (period === undefined) {
    period = billingPeriodOf(time, ANCHOR, ZONE, 'monthly')
    known.push(period)
  }
  return period
}

const open = (): Balances => openBalances({ memberHash: testMemberHash })

interface Placed {
  readonly event: TestEvent
  readonly position: number
}

const placed = ({ sequence, events }: TestRecord): Placed[] =>
  events.map((event, i) => ({ event, position: sequence * 2 ** 14 + i })).filter(({ event }) => event.verdict === 0)

interface Fraction {
  readonly numerator: bigint
  readonly denominator: bigint
}

const at9 = ({ value, metric }: TestEvent): bigint => value * 10n ** BigInt(9 - metric.scale)
const signOf = ({ kind }: TestEvent): bigint => (kind === 'void' ? -1n : 1n)

/** Usage at nine decimals, as a fraction; null when nothing is counted. Voids of extremes are left to their own tests. */
function usageOf(aggregation: Aggregation, events: readonly Placed[]): Fraction | null {
  const total = events.reduce((sum, { event }) => sum + signOf(event) * at9(event), 0n)
  const count = events.reduce((sum, { event }) => sum + signOf(event), 0n)
  const whole = (numerator: bigint): Fraction => ({ numerator, denominator: 1n })
  const ordered = events.map(({ event }) => at9(event)).sort((a, b) => (a < b ? -1 : a > b ? 1 : 0))
  const members = new Map<string, bigint>()
  for (const { event } of events) members.set(event.member, (members.get(event.member) ?? 0n) + signOf(event))
  const present = BigInt([...members.values()].filter((n) => n > 0n).length)
  if (events.length === 0 || (aggregation === 'unique' ? present === 0n : count === 0n)) return null
  switch (aggregation) {
    // Never live.
    case 'weighted_sum':
    case 'percentile':
      return null
    case 'sum':
      return whole(total)
    case 'count':
      return whole(count * 10n ** 9n)
    case 'average':
      return { numerator: total, denominator: count }
    case 'unique':
      return whole(present * 10n ** 9n)
    case 'max':
      return whole(ordered.at(-1)!)
    case 'min':
      return whole(ordered[0]!)
    case 'latest':
      return whole(
        at9(events.toSorted((a, b) => a.event.eventTime - b.event.eventTime || a.position - b.position).at(-1)!.event),
      )
  }
}

function roundedText(usage: Fraction | null): string {
  if (usage === null) return '0'
  const { numerator, denominator } = usage
  const size = numerator < 0n ? -numerator : numerator
  const rounded = size / denominator + (2n * (size % denominator) >= denominator ? 1n : 0n)
  return printQuantity(numerator < 0n ? -rounded : rounded, 9)
}

/** Usage ≥ level, by cross-multiplication of the texts. */
function reached(
  usage: Fraction | null,
  threshold: LiveEntitlement['thresholds'][number],
  limit: string | null,
): boolean {
  if (usage === null || (threshold.kind === 'percent' && limit === null)) return false
  const tenths = (text: string): bigint => BigInt(Math.round(Number(text) * 1000))
  // In thousandths, and percentages in thousandths of a hundredth.
  const level =
    threshold.kind === 'absolute'
      ? { numerator: tenths(threshold.value), denominator: 1000n }
      : { numerator: tenths(threshold.value) * tenths(limit!), denominator: 1000n * 1000n * 100n }
  return usage.numerator * level.denominator >= level.numerator * 10n ** 9n * usage.denominator
}

const isCounted = (entitlement: LiveEntitlement, period: Period, { event }: Placed): boolean =>
  event.tenant === entitlement.tenant &&
  event.metric.key === entitlement.metric &&
  event.eventTime >= period.from &&
  event.eventTime < period.to

/** Every change of «reached» after every event; the first rise and the first fall of each threshold and period count. */
function oracleCrossings(entitlement: LiveEntitlement, events: readonly Placed[]): string[] {
  const said = new Set<string>()
  const crossings: string[] = []
  const soFar: Placed[] = []
  for (const item of events) {
    const period = periodOf(item.event.eventTime)
    if (!isCounted(entitlement, period, item)) continue
    soFar.push(item)
    const counted = soFar.filter((other) => isCounted(entitlement, period, other))
    const usage = usageOf(entitlement.aggregation, counted)
    for (const threshold of entitlement.thresholds) {
      const rung = `${period.from} ${threshold.code} alert.triggered`
      const resolved = `${period.from} ${threshold.code} alert.resolved`
      const is = reached(usage, threshold, entitlement.limit)
      const say = is && !said.has(rung) ? rung : !is && said.has(rung) && !said.has(resolved) ? resolved : undefined
      if (say === undefined) continue
      said.add(say)
      crossings.push(`${entitlement.item} ${say} ${item.position} ${roundedText(usage)}`)
    }
  }
  return crossings
}

const textOf = (crossing: Crossing): string =>
  `${crossing.item} ${crossing.period.from} ${crossing.threshold} ${crossing.type} ${crossing.position} ${crossing.balance}`

const isExtreme = ({ aggregation }: Pick<Metric, 'aggregation'>): boolean =>
  aggregation === 'max' || aggregation === 'min' || aggregation === 'latest'

const withoutVoidedExtremes = (records: readonly TestRecord[]): TestRecord[] =>
  records.map((record) => ({
    ...record,
    events: record.events.filter((event) => event.kind === 'usage' || !isExtreme(event.metric)),
  }))

/** Live from an empty stream on. */
function follow(records: readonly TestRecord[], barrierEach = 1): { balances: Balances; crossings: Crossing[] } {
  const balances = open()
  const crossings: Crossing[] = []
  const { needed } = balances.setEntitlements(everyEntitlement, {
    epoch: 1,
    receivedAt: START - 2 * DAY_MS,
    sequence: 0,
  })
  for (const need of needed) balances.setBase(need, zeroBase)
  records.forEach((record, i) => {
    const { frame, verdicts } = frameOf(record)
    crossings.push(...balances.apply(frame, record.sequence, verdicts))
    const at = { epoch: i + 2, receivedAt: record.receivedAt, sequence: record.sequence }
    if (i % barrierEach === barrierEach - 1) expect(balances.barrier(at).needed).toEqual([])
  })
  return { balances, crossings }
}

const periodsRead = (balances: Balances) =>
  ['acme', 'zeta']
    .flatMap((tenant) => balances.read(tenant))
    .map(({ entitlement, period, usage, state }) => ({
      entitlement,
      period,
      usage,
      state,
    }))

test(`any history => usage of every open period is that of its events, late ones in the period before ${promises('flow:late-is-correction')}`, () => {
  fc.assert(
    fc.property(wide, fc.integer({ min: 1, max: 4 }), (drawn, barrierEach) => {
      const records = withoutVoidedExtremes(drawn)
      const events = records.flatMap(placed)
      const { balances } = follow(records, barrierEach)
      const read = periodsRead(balances)
      for (const { entitlement, period, usage, state } of read) {
        expect(state).toBe('live')
        const counted = events.filter((item) => isCounted(entitlement, period, item))
        expect(usage).toBe(roundedText(usageOf(entitlement.aggregation, counted)))
      }
      // And no period that an event may still enter is missing.
      const now = records.at(-1)?.receivedAt ?? START - 2 * DAY_MS
      for (const entitlement of everyEntitlement) {
        for (const item of events.filter(({ event }) => event.eventTime >= now - limits.lateMs)) {
          const period = periodOf(item.event.eventTime)
          if (!isCounted(entitlement, period, item)) continue
          const { from } = period
          expect(read.some((view) => view.entitlement === entitlement && view.period.from === from)).toBe(true)
        }
      }
    }),
    { numRuns: 100 },
  )
}, 60_000)

test(`any history => each threshold rings once a period, at the event that reaches it ${promises('alert:once-per-crossing')}`, () => {
  fc.assert(
    fc.property(wide, fc.integer({ min: 1, max: 4 }), (drawn, barrierEach) => {
      const records = withoutVoidedExtremes(drawn)
      const events = records.flatMap(placed)
      const { crossings } = follow(records, barrierEach)
      const expected = everyEntitlement.flatMap((entitlement) => oracleCrossings(entitlement, events))
      expect(crossings.map(textOf).sort()).toEqual(expected.sort())
    }),
    { numRuns: 100 },
  )
}, 60_000)

test(`rising usage in any order and splitting => the same thresholds, each exactly once ${promises('alert:once-per-crossing')}`, () => {
  const metric = metricOf('sum', 'sum')
  const values = fc.array(fc.integer({ min: 0, max: 4 }), { minLength: 1, maxLength: 12 })
  const shuffled = values.chain((list) =>
    fc.tuple(
      fc.constant(list),
      fc.shuffledSubarray(list, { minLength: list.length, maxLength: list.length }),
      fc.infiniteStream(fc.integer({ min: 1, max: 4 })),
    ),
  )
  fc.assert(
    fc.property(shuffled, ([list, other, sizes]) => {
      const total = list.reduce((a, b) => a + b, 0)
      const expected = [
        ['80%', 8],
        ['100%', 10],
        ['33.3%', 3.33],
        ['2', 2],
        ['0', 0],
      ].filter(([, level]) => total >= (level as number))
      for (const order of [list, other]) {
        const records: TestRecord[] = []
        for (let at = 0; at < order.length; ) {
          const part = order.slice(at, at + (sizes.next().value as number))
          const events = part.map((value) => eventOf({ metric, value: BigInt(value), eventTime: START }))
          at += part.length
          records.push({ sequence: records.length + 1, receivedAt: START, events })
        }
        const said = follow(records).crossings.map(({ type, threshold }) => `${type} ${threshold}`)
        expect(said.sort()).toEqual(expected.map(([code]) => `alert.triggered ${code}`).sort())
      }
    }),
    { numRuns: 100 },
  )
}, 60_000)

/** The base that the store would answer, from the events of earlier epochs. */
function baseOf(need: NeededBase, events: readonly Placed[]): BalanceBase {
  const counted = events.filter(
    ({ event }) =>
      event.tenant === need.tenant &&
      event.metric.key === need.metric &&
      event.eventTime >= need.period.from &&
      event.eventTime < need.period.to,
  )
  const usages = counted.filter(({ event }) => event.kind === 'usage')
  const newest = usages.toSorted((a, b) => a.event.eventTime - b.event.eventTime || a.position - b.position).at(-1)
  const text = (usage: Fraction | null): string => (usage === null ? '0' : printQuantity(usage.numerator, 9))
  const members = new Map<string, { hash: Uint8Array; n: number }>()
  for (const { event } of counted) {
    const hash = testMemberHash(event.tenant, Buffer.from(event.member))
    const key = Buffer.from(hash).toString('hex')
    const before = members.get(key)?.n ?? 0
    members.set(key, { hash, n: before + Number(signOf(event)) })
  }
  const held = [...members.values()].filter(({ n }) => n !== 0)
  return {
    sum: printQuantity(
      counted.reduce((sum, { event }) => sum + signOf(event) * at9(event), 0n),
      9,
    ),
    count: counted.reduce((sum, { event }) => sum + Number(signOf(event)), 0),
    samples: usages.length,
    min: text(usageOf('min', usages)),
    max: text(usageOf('max', usages)),
    last: newest === undefined ? '0' : printQuantity(at9(newest.event), 9),
    lastTime: newest?.event.eventTime ?? 0,
    lastPosition: newest?.position ?? 0,
    ...(need.aggregation === 'unique'
      ? { members: { hashes: Buffer.concat(held.map(({ hash }) => hash)), counts: held.map(({ n }) => n) } }
      : {}),
  }
}

test(`opened in the middle, base told late => the usage, and every threshold reached, of a balance that was live from the start ${promises('flow:replay-equals-live')}`, () => {
  fc.assert(
    fc.property(wide, fc.nat(12), fc.nat(12), (drawn, cut, waits) => {
      const records = withoutVoidedExtremes(drawn)
      const opened = Math.min(cut, records.length)
      const { balances: always, crossings } = follow(records)
      const balances = open()
      const before = records[opened - 1]
      const receivedAt = before?.receivedAt ?? START - 2 * DAY_MS
      const at = { epoch: opened + 1, receivedAt, sequence: before?.sequence ?? 0 }
      const { needed } = balances.setEntitlements(everyEntitlement, at)
      const rung: Crossing[] = []
      const tell = (): void => {
        const events = records.slice(0, opened).flatMap(placed)
        for (const need of needed) rung.push(...balances.setBase(need, baseOf(need, events)))
      }
      if (waits === 0) tell()
      records.slice(opened).forEach((record, i) => {
        const { frame, verdicts } = frameOf(record)
        rung.push(...balances.apply(frame, record.sequence, verdicts))
        expect(
          balances.barrier({ epoch: opened + i + 2, receivedAt: record.receivedAt, sequence: record.sequence }).needed,
        ).toEqual([])
        if (i + 1 === waits) tell()
      })
      if (waits > records.length - opened) tell()
      expect(periodsRead(balances)).toEqual(periodsRead(always))
      expect(balances.membersHeld).toBe(always.membersHeld)
      // No threshold is silent that stands reached at the end, and nothing rings twice.
      const identity = ({ item, period, threshold }: Crossing): string => `${item} ${period.from} ${threshold}`
      const ringing = (list: readonly Crossing[]): Set<string> => {
        const set = new Set(list.filter(({ type }) => type === 'alert.triggered').map(identity))
        expect(set.size).toBe(list.filter(({ type }) => type === 'alert.triggered').length)
        return set
      }
      const all = ringing(crossings)
      for (const id of ringing(rung)) expect(all).toContain(id)
      for (const view of periodsRead(balances)) {
        const events = records.flatMap(placed).filter((item) => isCounted(view.entitlement, view.period, item))
        const usage = usageOf(view.entitlement.aggregation, events)
        for (const threshold of view.entitlement.thresholds) {
          if (!reached(usage, threshold, view.entitlement.limit)) continue
          expect([...ringing(rung)]).toContain(`${view.entitlement.item} ${view.period.from} ${threshold.code}`)
        }
      }
    }),
    { numRuns: 100 },
  )
}, 60_000)

// Single cases.

const at = { epoch: 1, receivedAt: START, sequence: 0 }

function liveWith(entitlement: LiveEntitlement, options: { membersMax?: number; balancesMax?: number } = {}): Balances {
  const balances = openBalances({ memberHash: testMemberHash, ...options })
  for (const need of balances.setEntitlements([entitlement], at).needed) {
    balances.setBase(need, zeroBase)
  }
  return balances
}

let sequence = 0
function send(balances: Balances, receivedAt: number, ...events: TestEvent[]): Crossing[] {
  sequence += 1
  const { frame, verdicts } = frameOf({ sequence, receivedAt, events })
  return balances.apply(frame, sequence, verdicts)
}

const shortOf = ({ type, threshold, balance, limitVersion }: Crossing): string =>
  `${type} ${threshold} at ${balance} v${limitVersion}`
const april = billingPeriodOf(START, ANCHOR, ZONE, 'monthly')

test('up, down, up and down again => one alarm and one resolution', () => {
  const metric = metricOf('sum', 'sum')
  const balances = liveWith(
    entitlementOf({ metric: 'sum', aggregation: 'sum', thresholds: [{ code: '100%', kind: 'percent', value: '100' }] }),
  )
  const usage = eventOf({ metric, value: 10n, eventTime: START })
  const said = [usage, { ...usage, kind: 'void' as const }, usage, { ...usage, kind: 'void' as const }].flatMap(
    (event) => send(balances, START, event),
  )
  expect(said.map(shortOf)).toEqual(['alert.triggered 100% at 10 v1', 'alert.resolved 100% at 0 v1'])
})

test('a third of a limit => reached at the first value that is not below it, to the last decimal', () => {
  const metric = metricOf('sum', 'sum', 9)
  const thresholds = [{ code: 'third', kind: 'percent' as const, value: '33.333333333' }]
  const check = (value: bigint, expected: string[]): void => {
    const balances = liveWith(entitlementOf({ metric: 'sum', aggregation: 'sum', limit: '1', thresholds }))
    expect(send(balances, START, eventOf({ metric, value, eventTime: START })).map(shortOf)).toEqual(expected)
  }
  check(333_333_333n, [])
  check(333_333_334n, ['alert.triggered third at 0.333333334 v1'])
})

test('an average just below a threshold that it would reach when rounded => silent', () => {
  const metric = metricOf('average', 'average', 9)
  const thresholds = [{ code: '1', kind: 'absolute' as const, value: '1' }]
  const balances = liveWith(entitlementOf({ metric: 'average', aggregation: 'average', thresholds }))
  const values = [999_999_999n, 1_000_000_000n, 1_000_000_000n]
  const said = values.flatMap((value) => send(balances, START, eventOf({ metric, value, eventTime: START })))
  expect(said).toEqual([])
  expect(balances.read('acme').at(-1)!.usage).toBe('1')
})

test('an unlimited item => percentages are silent, absolute thresholds ring', () => {
  const metric = metricOf('count', 'count')
  const balances = liveWith(entitlementOf({ metric: 'count', aggregation: 'count', limit: null }))
  const said = [1, 2, 3].flatMap(() => send(balances, START, eventOf({ metric, eventTime: START })))
  expect(said.map(shortOf)).toEqual(['alert.triggered 0 at 1 v1', 'alert.triggered 2 at 2 v1'])
})

test('a limit of nothing => silent without usage, rings at the first event', () => {
  const metric = metricOf('count', 'count')
  const thresholds = [{ code: '100%', kind: 'percent' as const, value: '100' }]
  const balances = liveWith(entitlementOf({ metric: 'count', aggregation: 'count', limit: '0', thresholds }))
  expect(balances.barrier({ epoch: 2, receivedAt: START, sequence: 0 }).needed).toEqual([])
  expect(send(balances, START, eventOf({ metric, eventTime: START })).map(shortOf)).toEqual([
    'alert.triggered 100% at 1 v1',
  ])
})

test('a limit far beyond what one event may say => exact', () => {
  const limit = '123456789012345678901'
  const thresholds = [{ code: '100%', kind: 'percent' as const, value: '100' }]
  const balances = open()
  const entitlement = entitlementOf({ metric: 'sum', aggregation: 'sum', limit, thresholds })
  const needed = balances.setEntitlements([entitlement], at).needed
  const said = needed.flatMap((need) =>
    balances.setBase(need, {
      ...zeroBase,
      sum: '123456789012345678900.999999999',
      count: 2,
    }),
  )
  expect(said).toEqual([])
  const metric = metricOf('sum', 'sum', 9)
  expect(send(balances, START, eventOf({ metric, value: 1n, eventTime: START })).map(shortOf)).toEqual([
    `alert.triggered 100% at ${limit} v1`,
  ])
})

test('a new limit version => the figures stay and the new thresholds ring, with the new version', () => {
  const metric = metricOf('count', 'count')
  const thresholds = [{ code: '100%', kind: 'percent' as const, value: '100' }]
  const entitlement = entitlementOf({ metric: 'count', aggregation: 'count', limit: '3', thresholds })
  const balances = liveWith(entitlement)
  for (let i = 0; i < 5; i += 1) send(balances, START, eventOf({ metric, eventTime: START }))
  const raised = { ...entitlement, limit: '6', limitVersion: 2 }
  expect(balances.setEntitlements([raised], at)).toEqual({ needed: [], crossings: [] })
  expect(send(balances, START, eventOf({ metric, eventTime: START })).map(shortOf)).toEqual([
    'alert.triggered 100% at 6 v2',
  ])
  const lowered = { ...entitlement, limit: '4', limitVersion: 3 }
  const { needed, crossings } = balances.setEntitlements([lowered], at)
  expect(needed).toEqual([])
  expect(crossings.map(shortOf)).toEqual(['alert.triggered 100% at 6 v3'])
  expect(balances.setEntitlements([lowered], at)).toEqual({ needed: [], crossings: [] })
})

test('an item that counts something else now => its figures are asked for again; one that is gone holds nothing', () => {
  const entitlement = entitlementOf({ metric: 'count', aggregation: 'count' })
  const balances = liveWith(entitlement)
  const held = balances.balancesHeld
  expect(held).toBeGreaterThan(0)
  expect(balances.setEntitlements([{ ...entitlement, metric: 'sum', aggregation: 'sum' }], at).needed).toHaveLength(
    held,
  )
  expect(balances.balancesHeld).toBe(held)
  balances.setEntitlements([], at)
  expect([balances.balancesHeld, balances.membersHeld, balances.read('acme')]).toEqual([0, 0, []])
})

test('a void of an extreme => stale at once, asked for at the next barrier, live with the base and what came after it', () => {
  const metric = metricOf('max', 'max')
  const thresholds = [{ code: '5', kind: 'absolute' as const, value: '5' }]
  const balances = liveWith(entitlementOf({ metric: 'max', aggregation: 'max', thresholds }))
  const usage = eventOf({ metric, value: 9n, eventTime: START })
  expect(send(balances, START, usage).map(shortOf)).toEqual(['alert.triggered 5 at 9 v1'])
  send(balances, START, { ...usage, kind: 'void' })
  const current = () => balances.read('acme').find(({ period }) => period.from === april.from)!
  expect([current().state, current().usage]).toEqual(['stale', null])
  const { needed } = balances.barrier({ epoch: 7, receivedAt: START, sequence })
  expect(needed).toEqual([
    { item: 'acme/max', tenant: 'acme', metric: 'max', aggregation: 'max', period: april, epoch: 7 },
  ])
  send(balances, START, eventOf({ metric, value: 4n, eventTime: START }))
  expect(current().state).toBe('pending')
  // An answer to an older question is not this one.
  expect(balances.setBase({ ...needed[0]!, epoch: 1 }, { ...zeroBase, samples: 1, max: '100' })).toEqual([])
  const said = balances.setBase(needed[0]!, { ...zeroBase, samples: 1, max: '3' })
  expect(said.map(shortOf)).toEqual(['alert.resolved 5 at 4 v1'])
  expect([current().state, current().usage]).toEqual(['live', '4'])
})

test(`a threshold rang before the process began and lies above the base => resolved once; not of another version, not one that is reached ${promises('alert:once-per-crossing')}`, () => {
  const thresholds = ['3', '5', '7'].map((value) => ({ code: value, kind: 'absolute' as const, value }))
  const entitlement = entitlementOf({ metric: 'max', aggregation: 'max', thresholds, limitVersion: 2 })
  const balances = openBalances({ memberHash: testMemberHash })
  const { needed } = balances.setEntitlements([entitlement], at)
  const need = needed.find(({ period }) => period.from === april.from)!
  const rung = [
    { threshold: '3', limitVersion: 2 },
    { threshold: '5', limitVersion: 2 },
    { threshold: '7', limitVersion: 1 },
    { threshold: 'gone', limitVersion: 2 },
  ]
  const base = { ...zeroBase, samples: 1, max: '4' }
  // What is reached had rung already, and is not told again.
  expect(balances.setBase(need, base, rung).map(shortOf)).toEqual(['alert.resolved 5 at 4 v2'])
  expect(balances.setBase(need, base, rung)).toEqual([])
  const metric = metricOf('max', 'max')
  const rise = send(balances, START, eventOf({ metric, value: 9n, eventTime: START }))
  expect(rise.map(shortOf)).toEqual(['alert.triggered 7 at 9 v2'])
})

test(`more members than the bound => the balance is stale and holds none; what ClickHouse says rings its thresholds ${promises('system:bounded')}`, () => {
  const metric = metricOf('unique', 'unique')
  const thresholds = [{ code: '5', kind: 'absolute' as const, value: '5' }]
  const balances = liveWith(entitlementOf({ metric: 'unique', aggregation: 'unique', thresholds }), { membersMax: 3 })
  for (let i = 0; i < 10; i += 1) {
    expect(send(balances, START, eventOf({ metric, member: `m${i}`, eventTime: START }))).toEqual([])
    expect(balances.membersHeld).toBeLessThanOrEqual(3)
  }
  expect(balances.membersHeld).toBe(0)
  const current = () => balances.read('acme').find(({ period }) => period.from === april.from)!
  expect([current().state, current().usage]).toEqual(['stale', null])
  const asOf = { receivedAt: START + 1, sequence, epoch: 1 }
  expect(balances.observe({ item: 'acme/unique', metric: 'unique' }, april.from, '10', asOf).map(shortOf)).toEqual([
    'alert.triggered 5 at 10 v1',
  ])
  expect(balances.observe({ item: 'acme/unique', metric: 'unique' }, april.from, '11', asOf)).toEqual([])
  expect(current()).toMatchObject({ state: 'stale', usage: '11', asOf })
  expect(balances.barrier({ epoch: 2, receivedAt: START, sequence }).needed).toEqual([])
})

test(`a base with more members than fit, or without them => stale ${promises('system:bounded')}`, () => {
  const entitlement = entitlementOf({ metric: 'unique', aggregation: 'unique' })
  for (const members of [undefined, { hashes: Buffer.from('0123456789abcdef'.repeat(4)), counts: [1, 1, 1, 1] }]) {
    const balances = openBalances({ memberHash: testMemberHash, membersMax: 3 })
    const [need] = balances.setEntitlements([entitlement], at).needed
    const { members: _, ...rest } = zeroBase
    balances.setBase(need!, members === undefined ? rest : { ...rest, members })
    expect([balances.read('acme')[0]!.state, balances.membersHeld]).toEqual(['stale', 0])
  }
})

test(`more items than balances fit => the others are refused and counted, and get a base when there is room ${promises('system:bounded')}`, () => {
  const metric = metricOf('count', 'count')
  const entitlements = ['a', 'b', 'c'].map((item) => entitlementOf({ item, metric: 'count', aggregation: 'count' }))
  const balances = openBalances({ memberHash: testMemberHash, balancesMax: 2 })
  balances.setEntitlements(entitlements, at)
  send(balances, START, eventOf({ metric, eventTime: START }))
  expect(balances.balancesHeld).toBe(2)
  expect(balances.balancesRefused).toBeGreaterThan(0)
  const { needed } = balances.setEntitlements([entitlements[2]!], { epoch: 2, receivedAt: START, sequence })
  expect(needed.map(({ item, epoch }) => `${item} ${epoch}`)).toEqual(['c 2', 'c 2'])
  expect(balances.balancesHeld).toBe(2)
})

test(`a year of months => periods that no event may enter any more are dropped, with their members ${promises('system:bounded')}`, () => {
  const metric = metricOf('unique', 'unique')
  const balances = liveWith(entitlementOf({ metric: 'unique', aggregation: 'unique' }))
  for (let day = 0; day < 365; day += 1) {
    const time = START + day * DAY_MS
    send(balances, time, eventOf({ metric, member: `m${day}`, eventTime: time }))
    expect(balances.barrier({ epoch: day + 2, receivedAt: time, sequence }).needed).toEqual([])
    expect(balances.balancesHeld).toBeLessThanOrEqual(3)
    expect(balances.membersHeld).toBeLessThanOrEqual(93)
  }
})

test('one item with two metrics => two balances, and a base reaches the one it was asked for', () => {
  const balances = open()
  const entitlements = [
    entitlementOf({ item: 'bundle', metric: 'count', aggregation: 'count' }),
    entitlementOf({ item: 'bundle', metric: 'sum', aggregation: 'sum' }),
  ]
  for (const need of balances.setEntitlements(entitlements, at).needed) {
    balances.setBase(need, { ...zeroBase, count: 3, sum: '7.5' })
  }
  send(balances, START, eventOf({ metric: metricOf('sum', 'sum'), value: 2n, eventTime: START }))
  const current = balances.read('acme').filter(({ period }) => period.from === april.from)
  expect(current.map(({ entitlement, usage }) => `${entitlement.metric} ${usage}`)).toEqual(['count 3', 'sum 9.5'])
})

test('silence of months, then events of two new periods, the later one first => both begin at zero and count', () => {
  const metric = metricOf('count', 'count')
  const balances = liveWith(entitlementOf({ metric: 'count', aggregation: 'count' }))
  const later = START + 100 * DAY_MS
  send(balances, later, eventOf({ metric, eventTime: later }), eventOf({ metric, eventTime: later - 32 * DAY_MS }))
  expect(balances.barrier({ epoch: 2, receivedAt: later, sequence }).needed).toEqual([])
  send(balances, later, eventOf({ metric, eventTime: later - 32 * DAY_MS }))
  const used = balances.read('acme').filter(({ usage }) => usage !== '0')
  expect(used.map(({ usage, state }) => `${usage} ${state}`)).toEqual(['2 live', '1 live'])
})

test('a contract that begins tomorrow => earlier events do not count', () => {
  const metric = metricOf('count', 'count')
  const anchor = START + 2 * DAY_MS
  const balances = liveWith(entitlementOf({ metric: 'count', aggregation: 'count', anchor }))
  send(balances, START, eventOf({ metric, eventTime: START }))
  const later = anchor + DAY_MS
  send(balances, later, eventOf({ metric, eventTime: anchor - 1 }), eventOf({ metric, eventTime: anchor }))
  expect(balances.read('acme').map(({ period, usage }) => [period.from, usage])).toEqual([[anchor, '1']])
})

test(`an answer => carries the record, time and epoch up to which it counts ${promises('quota:bounded-staleness')}`, () => {
  const metric = metricOf('count', 'count')
  const balances = liveWith(entitlementOf({ metric: 'count', aggregation: 'count' }))
  send(balances, START + 5, eventOf({ metric, eventTime: START }))
  expect(balances.read('acme').at(-1)!.asOf).toEqual({ receivedAt: START + 5, sequence, epoch: 1 })
  balances.barrier({ epoch: 2, receivedAt: START + 6, sequence })
  expect(balances.read('acme').at(-1)!.asOf).toEqual({ receivedAt: START + 6, sequence, epoch: 2 })
  expect(balances.read('zeta')).toEqual([])
})

test(`totals of a frame instead of its events one by one => the same figures and the same crossings ${promises('alert:once-per-crossing')}`, () => {
  const versions = [...metrics, metricOf('sum', 'sum', 5, 2)]
  const all = histories({
    metrics: versions,
    start: START - DAY_MS,
    stepMsMax: 10 * DAY_MS,
    lateMs: 20 * DAY_MS,
    aheadMs: DAY_MS,
    valueMax: 2n ** 41n,
    eventsMax: 30,
  })
  let crossed = 0
  fc.assert(
    fc.property(all, fc.constantFrom('0', '10', '1000', '100000000', '10000000000000'), (records, limit) => {
      const [first, second] = [false, true].map((oneByOne) => {
        const balances = openBalances({ memberHash: testMemberHash, oneByOne })
        const at = { epoch: 1, receivedAt: START - 2 * DAY_MS, sequence: 0 }
        const { needed } = balances.setEntitlements(
          everyEntitlement.map((entitlement) => ({ ...entitlement, limit })),
          at,
        )
        // Every second one stays pending: a delta is added up as well.
        for (const [i, need] of needed.entries()) if (i % 2 === 0) balances.setBase(need, zeroBase)
        const crossings = records.flatMap((record) => {
          const { frame, verdicts } = frameOf(record)
          return balances.apply(frame, record.sequence, verdicts)
        })
        for (const need of needed) crossings.push(...balances.setBase(need, zeroBase))
        return { crossings, views: ['acme', 'zeta'].flatMap((tenant) => balances.read(tenant)) }
      })
      expect(first).toEqual(second)
      crossed += first!.crossings.length
    }),
    { numRuns: 300 },
  )
  expect(crossed).toBeGreaterThan(1_000)
}, 60_000)
