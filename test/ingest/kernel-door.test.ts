import { expect, test } from 'vitest'
import { buildDoor } from '../../src/ingest/ingest.js'
import { limits } from '../../src/limits.js'
import { promises } from '../promises.js'
import { RECEIVED_AT, snapshot } from './door.js'
import { compare, fuzz, fuzzBody, fuzzSnapshot, mutate, openPair, random, utf8Borders } from './kernel-fuzz.js'

/** Compares, and returns what the kernel's door said. */
function same(pair: ReturnType<typeof openPair>, body: string | Uint8Array, tenant: string | null = null) {
  const bytes = typeof body === 'string' ? Buffer.from(body) : body
  const { difference, judged } = compare(pair, bytes, { tenant })
  expect(difference, Buffer.from(bytes).toString('latin1').slice(0, 2_000)).toBeNull()
  return judged
}

const event = (over: object) => ({ id: 'e', tenant: 'acme', metric: 'kyc', ...over })

test(`${promises('ingest:verdict-per-event')}: 200,000 generated and broken events => the kernel and the plain door answer alike`, () => {
  const seed = 20_260_310
  const done = fuzz(200_000, seed)
  // The fuzz is worth something only if much is stored, and much of that by the kernel itself.
  expect(done.stored).toBeGreaterThan(50_000)
  expect(done.plain).toBeLessThan(done.events / 2)
})

test('a body cut off behind each of its bytes => the same answer every time', () => {
  const next = random(7)
  for (const streams of [1, 4]) {
    const pair = openPair(streams)
    for (let i = 0; i < 12; i += 1) {
      const body = fuzzBody(next, 4)
      for (let end = 0; end <= body.length; end += 1) same(pair, body.subarray(0, end))
    }
  }
})

test('each byte of a body replaced by each of 256 => the same answer every time', () => {
  const pair = openPair(4)
  const body = Buffer.from(
    '[{"id":"a1","tenant":"acme","metric":"kyc","time":"2026-03-10T09:15:00.123Z","value":"-1.5","dims":{"region":"r"}}]',
  )
  for (let at = 0; at < body.length; at += 1) {
    const before = body[at]!
    for (let byte = 0; byte < 256; byte += 1) {
      body[at] = byte
      same(pair, body)
    }
    body[at] = before
  }
})

test('bytes at the borders of UTF-8, in every text and at every distance from its end => the same answer', () => {
  const pair = openPair(4)
  const texts = ['"id":"#"', '"id":"i","subject":"#"', '"id":"i","source":"#"', '"id":"i","dims":{"region":"#"}']
  for (const text of texts) {
    for (const border of utf8Borders) {
      for (let behind = 0; behind < 20; behind += 1) {
        const [head, tail] = `{"tenant":"acme","metric":"kyc",${text}}`.split('#') as [string, string]
        same(pair, Buffer.concat([Buffer.from(head), border, Buffer.from(`${'x'.repeat(behind)}${tail}`)]))
      }
    }
  }
})

test('ordinary events => the kernel alone judges them', () => {
  const pair = openPair(4)
  const body = JSON.stringify([
    event({ id: '1', time: RECEIVED_AT, value: '12.5', dims: { region: 'ci', plan: 'pro' } }),
    event({ id: '2', time: '2026-03-10T09:15:00.123+01:00', value: 3, dims: { plan: 'é', region: '€😀' } }),
    event({ id: '3', metric: 'users', dims: { user: 'u', region: 'ci' }, source: 'gw' }),
    event({ id: '4', metric: 'lines', subject: 's', tenant: 'd' }),
    event({ id: '5', kind: 'void', time: '2026-03-10T09:15:00Z', dims: { region: true, plan: 12 } }),
  ])
  expect(same(pair, body)).toMatchObject({ received: 5, stored: 5, plain: 0 })
})

test('one bad event among good ones => it alone takes the plain path', () => {
  const pair = openPair(4)
  const list = Array.from({ length: 100 }, (_, i) => event({ id: `e${i}`, subject: `s${i % 7}` }))
  list[50] = event({ value: 'many' })
  list[60] = event({ subject: 'with "quotes"' })
  expect(same(pair, JSON.stringify(list))).toMatchObject({ received: 100, stored: 99, refused: 1, plain: 2 })
})

test('more events than a body may have, and exactly as many => the same answer', () => {
  const pair = openPair(4)
  const list = (n: number) =>
    JSON.stringify(Array.from({ length: n }, (_, i) => event({ id: `e${i}`, subject: `s${i}` })))
  expect(same(pair, list(limits.batchEventsMax))).toMatchObject({ stored: limits.batchEventsMax, plain: 0 })
  expect(same(pair, list(limits.batchEventsMax + 1))).toBeNull()
})

test('small bodies behind a large one => nothing of it is left over', () => {
  const pair = openPair(4)
  const next = random(11)
  for (let i = 0; i < 20; i += 1) {
    same(pair, fuzzBody(next, 2_000))
    for (let j = 0; j < 20; j += 1) same(pair, mutate(next, fuzzBody(next, 2)))
  }
})

test('texts of the largest sizes, whole bodies of one text => the same answer', () => {
  const pair = openPair(1)
  const long = 'x'.repeat(1_000_000)
  for (const text of [`"${long}"`, `"${long}`, '['.repeat(100_000), ' '.repeat(100_000), `{"id":"${long}"}`]) {
    same(pair, text)
    same(pair, `[${text}]`)
    same(pair, `[${JSON.stringify(event({}))},${text}`)
  }
  const wide = Object.fromEntries(
    Array.from({ length: 16 }, (_, i) => [`d${String(15 - i).padStart(2, '0')}`, 'é'.repeat(128)]),
  )
  const list = Array.from({ length: 500 }, (_, i) =>
    event({ id: `${i}`, metric: 'wide', dims: { ...wide, d03: `v${i}` } }),
  )
  expect(same(pair, JSON.stringify(list))).toMatchObject({ stored: 500, plain: 0 })
})

test('a catalogue that grows and changes => the kernel follows it', () => {
  const pair = openPair(4, snapshot)
  let { door } = pair
  const body = (tenant: string) => JSON.stringify([event({ tenant }), event({ tenant: 'acme', metric: 'new' })])
  const judge = (tenant: string) => same({ ...pair, door }, body(tenant))
  expect(judge('late')).toMatchObject({ stored: 0, refused: 2 })
  // One tenant after the other, then very many, then another metric, then fewer tenants and other streams.
  const tenants = [...snapshot.tenants]
  for (let i = 0; i < 5; i += 1) {
    tenants.push(`late-${i}`)
    door = buildDoor({ ...snapshot, version: 8 + i, tenants: [...tenants] }, 4, door)
    expect(judge(`late-${i}`)).toMatchObject({ stored: 1, plain: 1 })
  }
  for (let i = 0; i < 5_000; i += 1) tenants.push(`many-${i}`)
  door = buildDoor({ ...snapshot, version: 20, tenants: [...tenants] }, 4, door)
  expect(judge('many-4999')).toMatchObject({ stored: 1, plain: 1 })
  const metrics = [{ ...snapshot.metrics[0]!, key: 'new', scale: 0 }, ...snapshot.metrics]
  door = buildDoor({ version: 21, metrics, tenants: [...tenants] }, 4, door)
  expect(judge('many-17')).toMatchObject({ stored: 2, plain: 0 })
  door = buildDoor({ version: 22, metrics, tenants: ['d', 'acme'] }, 7, door)
  expect(judge('many-17')).toMatchObject({ stored: 1, refused: 1, plain: 1 })
  expect(judge('d')).toMatchObject({ stored: 2, plain: 0 })
})

test('other formats, and a catalogue with more streams than the kernel has => the plain path', () => {
  const pair = openPair(4)
  const csv = Buffer.from('id,metric,tenant\n1,kyc,acme')
  const { difference, judged } = compare(pair, csv, { format: 'csv' })
  expect(difference).toBeNull()
  expect(judged).toMatchObject({ stored: 1, plain: 1 })
  expect(same(openPair(5_000), JSON.stringify(event({})))).toMatchObject({ stored: 1, plain: 1 })
  expect(fuzzSnapshot.metrics.length).toBeGreaterThan(snapshot.metrics.length)
})
