import fc from 'fast-check'
import { expect, test } from 'vitest'
import { canonicalDims, streamOf } from '../src/event.js'

test('streamOf => FNV-1a 32, by its published vectors', () => {
  const check = (text: string, hash: number): void => expect(streamOf(text, 2 ** 32)).toBe(hash)
  check('', 0x811c9dc5)
  check('a', 0xe40c292c)
  check('b', 0xe70c2de5)
  check('fo', 0x6222e842)
  check('foo', 0xa9f37ed7)
  check('foobar', 0xbf9cf968)
  // Behind ASCII the bytes of UTF-8 count: here reckoned by hand over c3 a9.
  const byHand = [0xc3, 0xa9].reduce(
    (hash, byte) => Number(((BigInt(hash ^ byte) & 0xffffffffn) * 0x01000193n) % 2n ** 32n),
    0x811c9dc5,
  )
  check('é', byHand)
})

test('streamOf => within the streams, for any tenant', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme' }), fc.integer({ min: 1, max: 64 }), (tenant, streams) => {
      const stream = streamOf(tenant, streams)
      expect(Number.isInteger(stream) && stream >= 0 && stream < streams).toBe(true)
    }),
  )
})

test('canonicalDims => one text for every order', () => {
  fc.assert(
    fc.property(fc.dictionary(fc.string(), fc.string()), (dims) => {
      const entries = Object.entries(dims)
      const text = canonicalDims(entries)
      expect(canonicalDims(entries.toReversed())).toBe(text)
      expect(Object.entries(JSON.parse(text) as object).length).toBe(entries.length)
    }),
  )
})
