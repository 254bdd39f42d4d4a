/**
 * Identity: from names to the hashes that the table, the key files and the unique counts keep.
 *
 *   id hash      95 bits of sip(origin key, id), origin key = sip(K identity, u32 length ‖ tenant ‖ u32 length ‖ source)
 *   content tag  32 bits of sip(series key, eventTime ‖ value ‖ member),
 *                series key = sip(K content, u32 length ‖ metric ‖ u32 version ‖ u32 length ‖ subject ‖ u32 length ‖ dims)
 *   member hash  sip(member key, member), member key = sip(K member, tenant)
 *
 * Lengths stand in front, so no two tuples are written alike; the tenant is in the key, so two tenants never meet. The kind is
 * not content: a void takes back the usage event with the same identity and content. The three keys K come from one secret by
 * label. Keys of origins and tenants are kept, at most limits.dedupeKeysMax of them; this changes no result.
 *
 * An entry is four words, in memory, key blocks and runs alike: 64 bits of the hash; the void bit (bit 0) and 31 bits more of the
 * hash; the content tag. What that means for verdicts: README.md of this folder, «False duplicates».
 */
import { assert } from '../assert.js'
import { type Frame, KIND_UNTIMED } from '../frame.js'
import { limits } from '../limits.js'
import { SIP_WORDS, sipHash128, sipKey } from './sip-hash.js'

/** In the third word of an entry: the entry of a void, beside the one of its id. */
export const VOID_BIT = 1

/** Derives the key of one purpose from the 16-byte secret. */
export function purposeKey(secret: Uint8Array, label: 'identity' | 'content' | 'member'): Int32Array {
  const key = new Int32Array(SIP_WORDS)
  const text = Buffer.from(`releve ${label}`)
  // 2-4, the variant for authentication: this happens once, and the secret stands behind everything.
  sipHash128(sipKey(secret), 0, text, 0, text.length, key, 0, 2, 4)
  return key
}

/** The key under which the content keys of series are made, 16 bytes: for whoever keeps those elsewhere. */
export const contentKeyBytes = (secret: Uint8Array): Uint8Array => new Uint8Array(purposeKey(secret, 'content').buffer)

/** Growing bytes that a text of several parts is written into before it is hashed. */
class Scratch {
  bytes = Buffer.allocUnsafe(4_096)
  length = 0

  reset(): void {
    this.length = 0
  }

  u32(value: number): void {
    this.#reserve(4)
    this.length = this.bytes.writeUInt32LE(value, this.length)
  }

  text(value: string): void {
    this.#reserve(4 + 3 * value.length)
    const written = this.bytes.write(value, this.length + 4)
    this.bytes.writeUInt32LE(written, this.length)
    this.length += 4 + written
  }

  #reserve(more: number): void {
    if (this.length + more <= this.bytes.length) return
    const grown = Buffer.allocUnsafe(2 * (this.length + more))
    this.bytes.copy(grown, 0, 0, this.length)
    this.bytes = grown
  }
}

/** Hashes of a frame's events. Results stay valid until the next call. */
export class Identity {
  readonly #identityKey: Int32Array
  readonly #contentKey: Int32Array
  readonly #originKeys = new Map<string, Int32Array>()
  readonly #scratch = new Scratch()
  #seriesKeys = new Int32Array(0)
  /** eventTime, value and member of one event. */
  #content = new Int32Array(64)
  #contentBytes = new Uint8Array(this.#content.buffer)
  /** An entry of four words per event. */
  entries = new Int32Array(0)

  /** `secret`: 16 bytes, the same for ever and on every node. */
  constructor(secret: Uint8Array) {
    this.#identityKey = purposeKey(secret, 'identity')
    this.#contentKey = purposeKey(secret, 'content')
  }

  /** Fills `entries` for the events of a frame. */
  hash(frame: Frame): void {
    const n = frame.events
    if (this.entries.length < SIP_WORDS * n) this.entries = new Int32Array(SIP_WORDS * n)
    const { entries } = this
    const { idEnds, ids, originOf, seriesOf, memberEnds, members, kinds } = frame
    const originKeys = frame.origins.map(({ tenant, source }) => this.#originKey(tenant, source))
    this.#hashSeries(frame)
    const seriesKeys = this.#seriesKeys
    const times = new Int32Array(frame.times.buffer, frame.times.byteOffset, 2 * n)
    const values = new Int32Array(frame.values.buffer, frame.values.byteOffset, 2 * n)
    const result = new Int32Array(SIP_WORDS)
    let idFrom = 0
    let memberFrom = 0
    for (let i = 0; i < n; i += 1) {
      const idTo = idEnds[i]!
      sipHash128(originKeys[originOf[i]!]!, 0, ids, idFrom, idTo, entries, SIP_WORDS * i)
      idFrom = idTo

      const memberTo = memberEnds[i]!
      if (16 + memberTo - memberFrom > this.#contentBytes.length) {
        this.#content = new Int32Array(16 + memberTo - memberFrom)
        this.#contentBytes = new Uint8Array(this.#content.buffer)
      }
      const content = this.#content
      const bytes = this.#contentBytes
      // Without a time from the sender, each try has another one: it is not part of the content. No double has these words.
      const untimed = (kinds[i]! & KIND_UNTIMED) !== 0
      content[0] = untimed ? -1 : times[2 * i]!
      content[1] = untimed ? -1 : times[2 * i + 1]!
      content[2] = values[2 * i]!
      content[3] = values[2 * i + 1]!
      let length = 16
      for (; memberFrom < memberTo; memberFrom += 1, length += 1) bytes[length] = members[memberFrom]!
      sipHash128(seriesKeys, SIP_WORDS * seriesOf[i]!, bytes, 0, length, result, 0)
      entries[SIP_WORDS * i + 2]! &= ~VOID_BIT
      entries[SIP_WORDS * i + 3] = result[0]!
    }
    assert(idFrom === ids.length && memberFrom === members.length, 'ids or members of a frame have another length')
  }

  #originKey(tenant: string, source: string): Int32Array {
    const name = `${tenant.length}\0${tenant}${source}`
    const known = this.#originKeys.get(name)
    if (known !== undefined) return known
    const scratch = this.#scratch
    scratch.reset()
    scratch.text(tenant)
    scratch.text(source)
    const key = new Int32Array(SIP_WORDS)
    sipHash128(this.#identityKey, 0, scratch.bytes, 0, scratch.length, key, 0)
    // Beginning anew is cheap and keeps the bound without a list of uses.
    if (this.#originKeys.size >= limits.dedupeKeysMax) this.#originKeys.clear()
    this.#originKeys.set(name, key)
    return key
  }

  #hashSeries(frame: Frame): void {
    const count = frame.series.length
    if (this.#seriesKeys.length < SIP_WORDS * count) this.#seriesKeys = new Int32Array(SIP_WORDS * count)
    const scratch = this.#scratch
    for (let i = 0; i < count; i += 1) {
      const { metric, subject, dims } = frame.series[i]!
      const { key, version } = frame.metrics[metric]!
      scratch.reset()
      scratch.text(key)
      scratch.u32(version)
      scratch.text(subject)
      scratch.text(dims)
      sipHash128(this.#contentKey, 0, scratch.bytes, 0, scratch.length, this.#seriesKeys, SIP_WORDS * i)
    }
  }
}

/** Hashes of members of unique counts, 128 bits, another key for each tenant. */
export class MemberHash {
  readonly #memberKey: Int32Array
  readonly #tenantKeys = new Map<string, Int32Array>()

  /** `secret`: the secret of the identities. */
  constructor(secret: Uint8Array) {
    this.#memberKey = purposeKey(secret, 'member')
  }

  /** The key under which the keys of tenants are made, 16 bytes: for whoever hashes members elsewhere. */
  get keyBytes(): Uint8Array {
    return new Uint8Array(this.#memberKey.slice().buffer)
  }

  /** The key words of a tenant, to be given to memberHash(). Never written by the caller. */
  keyOf(tenant: string): Int32Array {
    const known = this.#tenantKeys.get(tenant)
    if (known !== undefined) return known
    const text = Buffer.from(tenant)
    const key = new Int32Array(SIP_WORDS)
    sipHash128(this.#memberKey, 0, text, 0, text.length, key, 0)
    if (this.#tenantKeys.size >= limits.dedupeKeysMax) this.#tenantKeys.clear()
    this.#tenantKeys.set(tenant, key)
    return key
  }
}

/** Hash of the member members[from, to) into out[outAt .. outAt + 4); sipHex() prints it. */
export function memberHash(
  tenantKey: Int32Array,
  members: Uint8Array,
  from: number,
  to: number,
  out: Int32Array,
  outAt: number,
): void {
  sipHash128(tenantKey, 0, members, from, to, out, outAt)
}
