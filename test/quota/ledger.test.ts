/**
 * Rows of reservations against plain objects: the same calls on both, thousands of them at random, with few rows so that these are
 * used again and again, and with a clock that runs, stands, leaps over the wheel and goes back. Pure memory; guard.test.ts has the service.
 */
import { expect, test } from 'vitest'
import { Chains } from '../../src/quota/chains.js'
import { COMMITTED, EXPIRED, HELD, Ledger, RELEASED } from '../../src/quota/ledger.js'

/** Repeatable: mulberry32. */
function randomOf(seed: number): (below: number) => number {
  let state = seed
  return (below) => {
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296) * below)
  }
}

const DAY = 86_400_000
const START = Date.UTC(2026, 2, 10)
const tick = (time: number): number => Math.floor(time / 250) * 250

interface Plain {
  readonly id: string
  readonly tenant: string
  readonly metric: string
  readonly quotas: readonly string[]
  readonly subject: string | null
  readonly key: string
  readonly quantity: bigint
  readonly createdAt: number
  readonly expiresAt: number
  readonly row: number
  state: number
  actual: bigint
  counts: boolean
}

const texts = [
  'k',
  'a key of thirty-six characters, say',
  '',
  'é'.repeat(256),
  '日本'.repeat(128),
  'x'.repeat(256),
  '\ud800 alone',
  '\ud801 alone',
  '🙂'.repeat(256),
  'e\u0000nul',
]

for (const seed of [1, 20261125, 77]) {
  test(`rows, texts, keys, what is held and leases are those of plain objects (seed ${seed})`, () => {
    const random = randomOf(seed)
    const rows = 300
    const ledger = new Ledger({ rows, streams: 2, nameBytesMax: 256 })
    const plain: Plain[] = []
    let now = START
    let made = 0
    const holdsOf = (quota: string): bigint =>
      plain
        .filter(({ counts, quotas }) => counts && quotas.includes(quota))
        .reduce((sum, { state, actual, quantity }) => sum + (state === COMMITTED ? actual : quantity), 0n)
    const compare = (one: Plain): void => {
      const { row } = one
      expect(ledger.byId(one.id)).toBe(row)
      expect({
        id: ledger.id(row),
        tenant: ledger.account(row).tenant,
        metric: ledger.account(row).metric,
        quotas: ledger.account(row).quotas,
        subject: ledger.subject(row),
        key: ledger.key(row),
        quantity: ledger.quantity(row),
        createdAt: ledger.createdAt[row],
        expiresAt: ledger.expiresAt[row],
        row,
        state: ledger.state[row],
        actual: ledger.actual(row),
        counts: ledger.counts[row] === 1,
      }).toEqual(one)
    }
    const endedOf = (): Plain[] => plain.filter(({ counts }) => !counts)
    const refusals = { rows: 0, texts: 0 }
    let [expired, leaps] = [0, 0]
    for (let step = 0; step < 6_000; step += 1) {
      const does = random(100)
      if (does < 45) {
        if (!ledger.hasRoom) {
          if (ledger.size < rows) refusals.texts += 1
          else refusals.rows += 1
          // What the guard does: the one that ended first goes.
          const row = ledger.firstEnded
          if (row >= 0) {
            expect(endedOf().map((one) => one.row)).toContain(row)
            ledger.remove(row)
            plain.splice(
              plain.findIndex((one) => one.row === row),
              1,
            )
          }
          continue
        }
        made += 1
        // Long texts come in spells, so that both bounds are met: rows and blocks.
        const text = (): string => texts[Math.floor(step / 1_000) % 2 === 0 ? random(3) : random(texts.length)]!
        const metric = `metric ${random(2)}`
        const fixed = {
          id: ledger.newId(),
          tenant: `tenant ${random(3)}`,
          metric,
          quotas: Array.from({ length: random(3) }, (_, i) => `${metric} quota ${i}`),
          subject: random(2) === 0 ? null : text(),
          key: `${made}${text()}`.slice(0, 256),
          quantity: random(10) === 0 ? 10n ** 27n - BigInt(random(1_000)) : BigInt(random(1_000_000)),
          createdAt: now,
          expiresAt: now + (1 + random(random(4) === 0 ? 86_400 : 30)) * 1_000,
        }
        const row = ledger.add(fixed)
        expect(plain.every((other) => other.row !== row)).toBe(true)
        ledger.hold(row)
        ledger.lease(row)
        plain.push({ ...fixed, row, state: HELD, actual: 0n, counts: true })
      } else if (does < 75) {
        const held = plain.filter(({ state }) => state === HELD)
        const one = held[random(held.length)]
        if (one === undefined) continue
        if (random(2) === 0) {
          one.actual = BigInt(random(2_000_000)) * 10n ** BigInt(random(20))
          one.state = COMMITTED
          ledger.unhold(one.row)
          ledger.state[one.row] = COMMITTED
          ledger.setActual(one.row, one.actual)
          ledger.hold(one.row)
          ledger.settle(one.row, random(2))
        } else {
          one.state = RELEASED
          one.counts = false
          ledger.unhold(one.row)
          ledger.state[one.row] = RELEASED
          ledger.end(one.row)
        }
      } else if (does < 85) {
        const stream = random(2)
        const row = ledger.settling(stream)
        if (row < 0) continue
        const one = plain.find((other) => other.row === row)!
        expect(one).toMatchObject({ state: COMMITTED, counts: true })
        one.counts = false
        ledger.unhold(row)
        ledger.end(row)
      } else {
        // Mostly onwards; now and then over more than a day and a half, which is the wheel, or back.
        const leap = random(40)
        if (leap < 2) leaps += 1
        now += leap === 0 ? 2 * DAY : leap === 1 ? -DAY : random(8_000)
        const due = new Set(
          plain.filter(({ state, expiresAt }) => state === HELD && expiresAt <= tick(now)).map(({ row }) => row),
        )
        const ended = new Set<number>()
        ledger.sweep(now, (row) => {
          ended.add(row)
          ledger.state[row] = EXPIRED
          ledger.unhold(row)
          ledger.end(row)
        })
        expect([...ended].sort()).toEqual([...due].sort())
        expired += ended.size
        for (const one of plain) if (due.has(one.row)) Object.assign(one, { state: EXPIRED, counts: false })
      }
      expect(ledger.size).toBe(plain.length)
      const one = plain[random(plain.length)]
      if (one !== undefined) {
        compare(one)
        const sameKey = plain.filter(({ tenant, key }) => tenant === one.tenant && key === one.key)
        expect(sameKey.map(({ row }) => row)).toContain(ledger.byKey(one.tenant, one.key))
      }
      const quota = `metric ${random(2)} quota ${random(2)}`
      expect(ledger.heldOf(quota)).toBe(holdsOf(quota))
    }
    for (const one of plain) compare(one)
    // The order is that of making, whatever was forgotten in between.
    const order: number[] = []
    for (let row = ledger.oldest; row >= 0; row = ledger.after(row)) order.push(row)
    expect(order).toEqual(plain.map(({ row }) => row))
    expect(ledger.byId('rsv_000000000000000000000000')).toBe(-1)
    expect(ledger.byId('rsv_')).toBe(-1)
    expect(ledger.byKey('tenant 0', 'nobody has it')).toBe(-1)
    // The run met what it is about.
    expect(expired).toBeGreaterThan(50)
    expect(leaps).toBeGreaterThan(5)
    expect(refusals.rows + refusals.texts).toBeGreaterThan(0)
  })
}

test('a lease that is over when it is written down ends with the next tick, not a turn of the wheel later', () => {
  const ledger = new Ledger({ rows: 200, streams: 1, nameBytesMax: 256 })
  const ended: number[] = []
  const fixed = { tenant: 't', metric: 'm', quotas: [], subject: null, key: 'k', quantity: 1n, createdAt: START }
  ledger.sweep(START + 60_000, () => {})
  const row = ledger.add({ ...fixed, id: ledger.newId(), expiresAt: START + 1_000 })
  ledger.lease(row)
  ledger.sweep(START + 60_250, (one) => {
    ended.push(one)
    ledger.end(one)
  })
  expect(ended).toEqual([row])
})

test('texts take blocks, and there is no more room when these are gone; forgetting gives them back', () => {
  const ledger = new Ledger({ rows: 200, streams: 1, nameBytesMax: 256 })
  const fixed = { tenant: 't', metric: 'm', quotas: [], quantity: 1n, createdAt: START, expiresAt: START + 1_000 }
  const fill = (): number[] => {
    const made: number[] = []
    for (let i = 0; ledger.hasRoom; i += 1) {
      const text = `${i}`.padEnd(256, '日')
      made.push(ledger.add({ ...fixed, id: ledger.newId(), subject: text, key: text }))
    }
    return made
  }
  const made = fill()
  expect(made.length).toBeLessThan(200)
  expect(made.length).toBeGreaterThan(5)
  for (const [i, row] of made.entries()) expect(ledger.key(row)).toBe(`${i}`.padEnd(256, '日'))
  for (const row of made) ledger.remove(row)
  expect(ledger.size).toBe(0)
  expect(fill()).toHaveLength(made.length)
})

test('chains: a member is in one at most, and each keeps its order', () => {
  const random = randomOf(5)
  const chains = new Chains(50, 6)
  const plain: number[][] = Array.from({ length: 6 }, () => [])
  for (let step = 0; step < 5_000; step += 1) {
    const [member, chain] = [random(50), random(6)]
    for (const list of plain) if (list.includes(member)) list.splice(list.indexOf(member), 1)
    const does = random(3)
    if (does === 0) chains.remove(member)
    else if (does === 1) {
      chains.add(member, chain)
      plain[chain]!.push(member)
    } else {
      chains.addFirst(member, chain)
      plain[chain]!.unshift(member)
    }
    const found: number[] = []
    for (let at = chains.first(chain); at >= 0; at = chains.after(at)) found.push(at)
    expect(found).toEqual(plain[chain])
  }
})
