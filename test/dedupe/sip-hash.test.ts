/**
 * SipHash against the outside: the reference vectors of SipHash-2-4-128 (key 00 01 … 0f, message 00 01 … of length 0 to 63),
 * a few of SipHash-1-3-128 from OpenSSL, and an implementation written another way (BigInt, message as a padded whole).
 */
import * as fc from 'fast-check'
import { expect, test } from 'vitest'
import { sipHash128, sipHex, sipKey } from '../../src/dedupe/sip-hash.js'

const REFERENCE_2_4 = `
  a3817f04ba25a8e66df67214c7550293
  da87c1d86b99af44347659119b22fc45
  8177228da4a45dc7fca38bdef60affe4
  9c70b60c5267a94e5f33b6b02985ed51
  f88164c12d9c8faf7d0f6e7c7bcd5579
  1368875980776f8854527a07690e9627
  14eeca338b208613485ea0308fd7a15e
  a1f1ebbed8dbc153c0b84aa61ff08239
  3b62a9ba6258f5610f83e264f31497b4
  264499060ad9baabc47f8b02bb6d71ed
  00110dc378146956c95447d3f3d0fbba
  0151c568386b6677a2b4dc6f81e5dc18
  d626b266905ef35882634df68532c125
  9869e247e9c08b10d029934fc4b952f7
  31fcefac66d7de9c7ec7485fe4494902
  5493e99933b0a8117e08ec0f97cfc3d9
  6ee2a4ca67b054bbfd3315bf85230577
  473d06e8738db89854c066c47ae47740
  a426e5e423bf4885294da481feaef723
  78017731cf65fab074d5208952512eb1
  9e25fc833f2290733e9344a5e83839eb
  568e495abe525a218a2214cd3e071d12
  4a29b54552d16b9a469c10528eff0aae
  c9d184ddd5a9f5e0cf8ce29a9abf691c
  2db479ae78bd50d8882a8a178a6132ad
  8ece5f042d5e447b5051b9eacb8d8f6f
  9c0b53b4b3c307e87eaee08678141f66
  abf248af69a6eae4bfd3eb2f129eeb94
  0664da1668574b88b935f3027358aef4
  aa4b9dc4bf337de90cd4fd3c467c6ab7
  ea5c7f471faf6bde2b1ad7d4686d2287
  2939b0183223fafc1723de4f52c43d35
  7c3956ca5eeafc3e363e9d556546eb68
  77c6077146f01c32b6b69d5f4ea9ffcf
  37a6986cb8847edf0925f0f1309b54de
  a705f0e69da9a8f907241a2e923c8cc8
  3dc47d1f29c448461e9e76ed904f6711
  0d62bf01e6fc0e1a0d3c4751c5d3692b
  8c03468bca7c669ee4fd5e084bbee7b5
  528a5bb93baf2c9c4473cce5d0d22bd9
  df6a301e95c95dad97ae0cc8c6913bd8
  801189902c857f39e73591285e70b6db
  e617346ac9c231bb3650ae34ccca0c5b
  27d93437efb721aa401821dcec5adf89
  89237d9ded9c5e78d8b1c9b166cc7342
  4a6d8091bf5e7d651189fa94a250b14c
  0e33f96055e7ae893ffc0e3dcf492902
  e61c432b720b19d18ec8d84bdc63151b
  f7e5aef549f782cf379055a608269b16
  438d030fd0b7a54fa837f2ad201a6403
  a590d3ee4fbf04e3247e0d27f286423f
  5fe2c1a172fe93c4b15cd37caef9f538
  2c97325cbd06b36eb2133dd08b3a017c
  92c814227a6bca949ff0659f002ad39e
  dce850110bd8328cfbd50841d6911d87
  67f14984c7da791248e32bb5922583da
  1938f2cf72d54ee97e94166fa91d2a36
  74481e9646ed49fe0f6224301604698e
  57fca5de98a9d6d8006438d0583d8a1d
  9fecde1cefdc1cbed4763674d9575359
  e3040c00eb28f15366ca73cbd872e740
  7697009a6a831dfecca91c5993670f7a
  5853542321f567a005d547a4f04759bd
  5150d1772f50834a503e069a973fbd7c
`
  .trim()
  .split(/\s+/)

const OPENSSL_1_3: readonly (readonly [length: number, hex: string])[] = [
  [0, 'e77ebcb22788a5befd62db6add303001'],
  [1, 'fc6f370460d3eda85e0573cc2b2ff063'],
  [7, '1084b923f2aae0c3a62f2ec80848ab77'],
  [8, 'aa12fee1d5e3dab4724f16ab35f9c799'],
  [15, 'c17e5505b2bd526c2921cdec1e7e0109'],
  [36, '37a110f002718edad24b3f9ee453f140'],
]

const counting = (length: number): Uint8Array => Uint8Array.from({ length }, (_, i) => i)

function hash(key: Uint8Array, bytes: Uint8Array, c: number, d: number): string {
  const out = new Int32Array(4)
  sipHash128(sipKey(key), 0, bytes, 0, bytes.length, out, 0, c, d)
  return sipHex(out)
}

/** The same function over one padded buffer and 64-bit integers. */
function oracle(key: Uint8Array, bytes: Uint8Array, c: number, d: number): string {
  const u64 = (value: bigint): bigint => BigInt.asUintN(64, value)
  const rotate = (value: bigint, by: bigint): bigint => u64(value << by) | (value >> (64n - by))
  const keys = Buffer.from(key)
  const [k0, k1] = [keys.readBigUInt64LE(0), keys.readBigUInt64LE(8)]
  const v = [
    k0 ^ 0x736f6d6570736575n,
    k1 ^ 0x646f72616e646f6dn ^ 0xeen,
    k0 ^ 0x6c7967656e657261n,
    k1 ^ 0x7465646279746573n,
  ] as [bigint, bigint, bigint, bigint]
  const half = (a: 0 | 2, b: 1 | 3, by: bigint): void => {
    v[a] = u64(v[a] + v[b])
    v[b] = rotate(v[b], by) ^ v[a]
  }
  const rounds = (count: number): void => {
    for (let i = 0; i < count; i += 1) {
      half(0, 1, 13n)
      v[0] = rotate(v[0], 32n)
      half(2, 3, 16n)
      half(0, 3, 21n)
      half(2, 1, 17n)
      v[2] = rotate(v[2], 32n)
    }
  }
  const padded = Buffer.alloc(8 * (Math.floor(bytes.length / 8) + 1))
  padded.set(bytes)
  padded[padded.length - 1] = bytes.length % 256
  for (let at = 0; at < padded.length; at += 8) {
    const word = padded.readBigUInt64LE(at)
    v[3] ^= word
    rounds(c)
    v[0] ^= word
  }
  const result = Buffer.alloc(16)
  v[2] ^= 0xeen
  rounds(d)
  result.writeBigUInt64LE(v[0] ^ v[1] ^ v[2] ^ v[3], 0)
  v[1] ^= 0xddn
  rounds(d)
  result.writeBigUInt64LE(v[0] ^ v[1] ^ v[2] ^ v[3], 8)
  return result.toString('hex')
}

test('SipHash-2-4-128 gives all 64 reference vectors', () => {
  expect(REFERENCE_2_4).toHaveLength(64)
  const got = REFERENCE_2_4.map((_, length) => hash(counting(16), counting(length), 2, 4))
  expect(got).toEqual(REFERENCE_2_4)
})

test('SipHash-1-3-128 gives what OpenSSL gives', () => {
  for (const [length, hex] of OPENSSL_1_3) expect(hash(counting(16), counting(length), 1, 3)).toBe(hex)
})

test('any key, message and number of rounds gives what a BigInt implementation gives', () => {
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 16, maxLength: 16 }),
      fc.uint8Array({ maxLength: 300 }),
      fc.integer({ min: 1, max: 4 }),
      fc.integer({ min: 1, max: 4 }),
      (key, bytes, c, d) => {
        expect(hash(key, bytes, c, d)).toBe(oracle(key, bytes, c, d))
      },
    ),
    { numRuns: 500 },
  )
})

test('a range inside of larger bytes, key and result at an offset, gives the same as bytes of their own', () => {
  const bytes = Uint8Array.from({ length: 100 }, (_, i) => (i * 37) % 256)
  const words = new Int32Array(12)
  words.set(sipKey(counting(16)), 3)
  sipHash128(words, 3, bytes, 11, 58, words, 7)
  expect(sipHex(words, 7)).toBe(hash(counting(16), bytes.slice(11, 58), 1, 3))
  expect([...words.subarray(0, 3), words[11]]).toEqual([0, 0, 0, 0])
})
