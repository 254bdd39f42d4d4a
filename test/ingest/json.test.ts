import fc from 'fast-check'
import { expect, test, vi } from 'vitest'
import { ReleveError } from '../../src/errors.js'
import { BRACE, BRACKET, isNumberStart, JsonReader, QUOTE } from '../../src/ingest/json.js'
import { limits } from '../../src/limits.js'

// Much data, on a machine that other tests use as well.
vi.setConfig({ testTimeout: 60_000 })

const reader = new JsonReader()

/** A number, by its digits. */
class Digits {
  readonly text: string
  constructor(text: string) {
    this.text = text
  }
}

/** Any value through the reader; of two equal names the last, as JSON.parse does. */
function read(): unknown {
  const first = reader.peek()
  if (first === QUOTE) return reader.at % 2 === 0 ? reader.text() : reader.sharedText()
  if (first === BRACE) {
    const entries: [string, unknown][] = []
    reader.enterObject()
    for (let name = reader.nextName(); name !== null; name = reader.nextName()) entries.push([name, read()])
    return Object.fromEntries(entries)
  }
  if (first === BRACKET) {
    const elements: unknown[] = []
    reader.enterArray()
    while (reader.nextElement()) elements.push(read())
    return elements
  }
  if (isNumberStart(first)) return new Digits(reader.number())
  const word = reader.literal()
  return word === 'null' ? null : word === 'true'
}

function readWhole(bytes: Uint8Array): unknown {
  reader.begin(bytes)
  const value = read()
  reader.finish()
  return value
}

function skipWhole(bytes: Uint8Array): string | null {
  reader.begin(bytes)
  reader.skip()
  reader.finish()
  return reader.fault
}

/** Our value against the one of JSON.parse: numbers by what their digits mean, texts without lone surrogates. */
function same(ours: unknown, theirs: unknown): void {
  if (ours instanceof Digits) expect(Object.is(Number(ours.text), theirs), `${ours.text} and ${theirs}`).toBe(true)
  else if (typeof ours === 'string') expect(ours).toBe((theirs as string).replace(/\p{Cs}/gu, '\ufffd'))
  else if (Array.isArray(ours)) {
    expect(ours.length).toBe((theirs as unknown[]).length)
    for (const [i, one] of ours.entries()) same(one, (theirs as unknown[])[i])
  } else if (ours !== null && typeof ours === 'object') {
    const wanted = new Map(
      Object.entries(theirs as object).map(([name, value]) => [name.replace(/\p{Cs}/gu, '\ufffd'), value]),
    )
    expect(new Set(Object.keys(ours))).toEqual(new Set(wanted.keys()))
    for (const [name, value] of Object.entries(ours)) same(value, wanted.get(name))
  } else expect(ours).toBe(theirs)
}

function parse(text: string): { value: unknown } | null {
  try {
    return { value: JSON.parse(text) }
  } catch {
    return null
  }
}

const isTooDeep = (error: unknown): boolean => error instanceof ReleveError && error.message.includes('nested deeper')

/** Reads and skips; both must agree with JSON.parse on whether it is JSON, and reading on what it says. */
function agree(bytes: Buffer): void {
  const theirs = parse(bytes.toString())
  let ours: { value: unknown } | null = null
  try {
    ours = { value: readWhole(bytes) }
  } catch (error) {
    if (!(error instanceof ReleveError) || error.code !== 'malformed_body') throw error
    if (isTooDeep(error)) return
  }
  let skipped = true
  try {
    skipWhole(bytes)
  } catch {
    skipped = false
  }
  expect(ours === null, bytes.toString()).toBe(theirs === null)
  expect(skipped, bytes.toString()).toBe(theirs !== null)
  if (ours !== null) same(ours.value, theirs!.value)
}

const jsonTexts = fc.oneof(
  fc.json({ maxDepth: 6, stringUnit: 'binary' }),
  fc.json({ maxDepth: 4 }).map((text) => JSON.stringify(JSON.parse(text), null, ' \n\t\r')),
  fc.jsonValue({ maxDepth: 3 }).map((value) => {
    // Many characters of a text as escapes.
    const escaped = (text: string): string =>
      text.replace(/[a-m]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`)
    return typeof value === 'string'
      ? escaped(JSON.stringify(value))
      : JSON.stringify({ 'k/é"\\': value, n: [1.5e-7, -0, 1e21] })
  }),
)

test('generated JSON => the same values as JSON.parse, numbers by their digits', () => {
  fc.assert(
    fc.property(jsonTexts, (text) => agree(Buffer.from(text))),
    { numRuns: 3_000 },
  )
})

test('mutated JSON => accepted exactly when JSON.parse accepts it', () => {
  const soup = Buffer.from('{}[]":,\\ute0-+.1E/ \n\t\rnalsr\u0000\u001f\u007fé\ufeff', 'utf8')
  const byte = fc.oneof(
    fc.integer({ min: 0, max: soup.length - 1 }).map((i) => soup[i]!),
    fc.integer({ min: 0, max: 255 }),
  )
  const change = fc.record({ place: fc.nat(), byte, way: fc.constantFrom('put', 'insert', 'drop', 'cut') })
  fc.assert(
    fc.property(jsonTexts, fc.array(change, { minLength: 1, maxLength: 3 }), (text, changes) => {
      let bytes = Buffer.from(text)
      for (const { place, byte: value, way } of changes) {
        const at = place % (bytes.length + 1)
        const rest = way === 'insert' ? at : at + 1
        bytes =
          way === 'cut'
            ? bytes.subarray(0, at)
            : Buffer.concat([
                bytes.subarray(0, at),
                way === 'drop' ? Buffer.alloc(0) : Buffer.from([value]),
                bytes.subarray(rest),
              ])
      }
      agree(bytes)
    }),
    { numRuns: 10_000 },
  )
})

test('the small texts where parsers differ => as RFC 8259 says', () => {
  for (const text of [
    '',
    ' ',
    '-',
    '01',
    '-01',
    '1.',
    '.1',
    '1e',
    '1e+',
    '1.e1',
    '+1',
    '0x1',
    'NaN',
    'Infinity',
    '-Infinity',
    'nul',
    'nullx',
    'True',
    "'a'",
    '"\t"',
    '"\\x"',
    '"\\u12"',
    '"\\u12g4"',
    '"a',
    '"\\',
    '"\\u',
    '[1,]',
    '[,1]',
    '[1 2]',
    '[',
    ']',
    '{',
    '{"a"}',
    '{"a":}',
    '{"a":1,}',
    '{,}',
    '{a:1}',
    '1 2',
    '[1]]',
    '\ufeff1',
    '1\u00a0',
    '//1',
    '1//',
    '\v1',
    '\f1',
  ]) {
    agree(Buffer.from(text))
    expect(() => readWhole(Buffer.from(text)), text).toThrow(ReleveError)
  }
  for (const text of [
    '0',
    '-0',
    '-0.0e-0',
    '1E+2',
    '1e400',
    '""',
    '"\\/"',
    '"\u2028"',
    '[]',
    '{}',
    ' [ ] ',
    '{"":{"":[]}}',
    '"\x7f"',
  ])
    agree(Buffer.from(text))
})

test('a number of 40 digits and 1e400 => their digits, untouched', () => {
  for (const text of ['1234567890123456789012345678901234567890', '1e400', '-0', '0.1000', '1E-7']) {
    expect(readWhole(Buffer.from(`[${text}]`))).toEqual([new Digits(text)])
  }
})

test('broken syntax => the byte where it broke', () => {
  const check = (text: string | Buffer, message: string): void => {
    expect(() => readWhole(Buffer.from(text))).toThrow(message)
  }
  check('[1,', 'byte 3: the body ends where a value is expected')
  check('{"a" 1}', 'byte 5: "1" where ":" is expected')
  check('["é" x]', 'byte 6: "x" where "," or "]" is expected')
  check('[NaN]', 'byte 1: "N" where a value is expected')
  check('["a\nb"]', 'byte 3: byte 0x0a where an escape (a control character in a string) is expected')
  check('\ufeff[]', 'byte 0: byte 0xef where a value is expected (a byte order mark is not JSON)')
  check('[] []', 'byte 3: "[" where the end of the body is expected')
  check('["\\u12x4"]', 'byte 6: "x" where four hexadecimal digits is expected')
})

test('depth: at the limit it is read, one deeper it is refused, and a million deep as well', () => {
  const nested = (depth: number): Buffer => Buffer.from('['.repeat(depth) + ']'.repeat(depth))
  expect(() => readWhole(nested(limits.jsonDepthMax))).not.toThrow()
  expect(() => readWhole(nested(limits.jsonDepthMax + 1))).toThrow(`nested deeper than ${limits.jsonDepthMax}`)
  expect(() => skipWhole(nested(1_000_000))).toThrow('nested deeper')
  expect(() => skipWhole(Buffer.from('{"a":'.repeat(1_000_000)))).toThrow('nested deeper')
})

test('faults of a text => noted, and reading goes on behind them', () => {
  expect(skipWhole(Buffer.from('{"a":"\\ud800","b":1}'))).toBe('has half of a surrogate pair')
  expect(skipWhole(Buffer.from('{"a":{"b":1,"\\u0062":2}}'))).toBe('has the name "b" twice')
  expect(skipWhole(Buffer.from([0x22, 0xff, 0x22]))).toBe('has invalid UTF-8')
  // Surrogates written in UTF-8, an overlong slash, a character cut by the end of the string.
  for (const bad of [
    [0xed, 0xa0, 0x80],
    [0xc0, 0xaf],
    [0xe2, 0x82],
    [0xf4, 0x90, 0x80, 0x80],
  ]) {
    expect(skipWhole(Buffer.from([0x22, ...bad, 0x22]))).toBe('has invalid UTF-8')
  }
  const many = Array.from({ length: 50 }, (_, i) => `"n${i}":${i}`).join(',')
  expect(skipWhole(Buffer.from(`{${many}}`))).toBeNull()
  expect(skipWhole(Buffer.from(`{${many},"n3":1}`))).toBe('has the name "n3" twice')
})

test('texts that share a slot of the tables => each comes out as itself', () => {
  const names = Array.from({ length: 20_000 }, (_, i) => `k${(i * 7919) % 20_011}`)
  const body = Buffer.from(`[${names.map((name) => `{"${name}":"${name}"}`).join(',')}]`)
  for (let round = 0; round < 2; round += 1) {
    expect(readWhole(body)).toEqual(names.map((name) => ({ [name]: name })))
  }
})
