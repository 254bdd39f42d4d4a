/**
 * Ledger: the reservations that are known, in columns outside of the heap. A reservation is a number, its row. What it is of (tenant,
 * metric, quotas) is an object that all reservations of the same share; its texts lie in blocks of bytes. So a reservation adds nothing
 * to what the collector of garbage copies and marks: as objects, those of the last moments survived each collection of the young heap and
 * made it several milliseconds long, which was the tail of all answers, and maps of them stopped everything whenever they doubled.
 *
 * It keeps rows and finds them; what a state means and when it changes is in guard.ts. Its memory is reserved at once and taken from
 * the system as rows are first used.
 */
import { randomBytes } from 'node:crypto'
import { assert } from '../assert.js'
import { SIP_WORDS, sipHash128, sipKey } from '../dedupe/sip-hash.js'
import { Chains } from './chains.js'

export const HELD = 1
export const COMMITTED = 2
export const RELEASED = 3
export const EXPIRED = 4
export type State = typeof HELD | typeof COMMITTED | typeof RELEASED | typeof EXPIRED

/** What is held of one quota, at ROLLUP_SCALE. */
export interface Hold {
  readonly quota: string
  amount: bigint
  /** Accounts that name it. */
  uses: number
}

/** What reservations are of. */
export interface Account {
  readonly tenant: string
  readonly metric: string
  readonly quotas: readonly string[]
  readonly holds: readonly Hold[]
  readonly number: number
  /** Rows. */
  uses: number
}

export interface NewReservation {
  /** `rsv_` and 24 hexadecimal digits. */
  readonly id: string
  readonly tenant: string
  readonly metric: string
  readonly quotas: readonly string[]
  readonly subject: string | null
  readonly key: string
  readonly quantity: bigint
  readonly createdAt: number
  readonly expiresAt: number
}

const ID = /^rsv_[0-9a-f]{24}$/
const ID_WORDS = 3
/** A wheel of leases: as many ticks as the longest lease has, and more. */
const TICK_MS = 250
const WHEEL = 2 ** 19
/** Texts: 28 bytes, and the number of the block that follows. */
const BLOCK_WORDS = 8
const BLOCK_BYTES = 4 * (BLOCK_WORDS - 1)
/** A text's length column: bytes times two, and whether a character has two bytes. */
const NO_TEXT = 0xffff
const IDS_AHEAD = 256

export class Ledger {
  readonly rowsMax: number
  readonly state: Uint8Array
  /** Whether it counts against its quotas. */
  readonly counts: Uint8Array
  readonly createdAt: Float64Array
  readonly expiresAt: Float64Array
  readonly endedAt: Float64Array
  /** The record of the stream at which the hold of a committed one ends. */
  readonly until: Float64Array
  /** Its first record in the journal; 0 until that is on disk. */
  readonly sequence: Float64Array

  readonly #account: Int32Array
  /** Amounts, low and high 64 bits. */
  readonly #quantity: BigUint64Array
  readonly #quantityHigh: BigInt64Array
  readonly #actual: BigUint64Array
  readonly #actualHigh: BigInt64Array
  readonly #id: Uint32Array
  readonly #keyHash: Int32Array
  readonly #keyLength: Uint16Array
  readonly #subjectLength: Uint16Array
  /** First block of its texts, key and subject; plus one. */
  readonly #text: Int32Array
  /** Rows by id and by tenant and key: heads, and the next of the same head; plus one. */
  readonly #idHeads: Int32Array
  readonly #idNext: Int32Array
  readonly #keyHeads: Int32Array
  readonly #keyNext: Int32Array
  readonly #mask: number

  readonly #blocks: Int32Array
  readonly #blockBytes: Uint8Array
  readonly #blocksMax: number
  #blocksUsed = 0
  #freeBlock = 0
  #blocksFree: number

  #rowsUsed = 0
  /** Rows that were given back, by #idNext; plus one. */
  #freeRow = 0
  #size = 0

  readonly #accounts: (Account | undefined)[] = []
  readonly #freeAccounts: number[] = []
  readonly #accountsOf = new Map<string, Map<string, Account[]>>()
  readonly #holds = new Map<string, Hold>()

  /** All, in the order of their first records in the journal. */
  readonly #order: Chains
  /** Held ones by the tick at which their lease ends, then those that have ended, then by stream those that settle. */
  readonly #phase: Chains
  readonly #streams: number
  #sweptTick = 0

  readonly #hashKey = sipKey(randomBytes(16))
  readonly #hash = new Int32Array(SIP_WORDS)
  readonly #scratch: Buffer
  #ids = ''
  #idsAt = 0

  constructor(options: { readonly rows: number; readonly streams: number; readonly nameBytesMax: number }) {
    const { rows, streams, nameBytesMax } = options
    this.rowsMax = rows
    this.#streams = streams
    this.state = new Uint8Array(rows)
    this.counts = new Uint8Array(rows)
    this.createdAt = new Float64Array(rows)
    this.expiresAt = new Float64Array(rows)
    this.endedAt = new Float64Array(rows)
    this.until = new Float64Array(rows)
    this.sequence = new Float64Array(rows)
    this.#account = new Int32Array(rows)
    this.#quantity = new BigUint64Array(rows)
    this.#quantityHigh = new BigInt64Array(rows)
    this.#actual = new BigUint64Array(rows)
    this.#actualHigh = new BigInt64Array(rows)
    this.#id = new Uint32Array(rows * ID_WORDS)
    this.#keyHash = new Int32Array(rows)
    this.#keyLength = new Uint16Array(rows)
    this.#subjectLength = new Uint16Array(rows)
    this.#text = new Int32Array(rows)
    const heads = 2 ** Math.ceil(Math.log2(rows))
    this.#mask = heads - 1
    this.#idHeads = new Int32Array(heads)
    this.#idNext = new Int32Array(rows)
    this.#keyHeads = new Int32Array(heads)
    this.#keyNext = new Int32Array(rows)
    // A key of 36 characters and a subject of as many, on the average; longer ones leave room for fewer.
    this.#blocksMax = 3 * rows
    this.#blocksFree = this.#blocksMax
    this.#blocks = new Int32Array(this.#blocksMax * BLOCK_WORDS)
    this.#blockBytes = new Uint8Array(this.#blocks.buffer)
    this.#order = new Chains(rows, 1)
    this.#phase = new Chains(rows, WHEEL + 1 + streams)
    // Tenant, key and subject; a character may be two code units of two bytes.
    this.#scratch = Buffer.alloc(3 * 4 * nameBytesMax + 8)
  }

  get size(): number {
    return this.#size
  }

  // ---- Rows --------------------------------------------------------------------------------------------------------------

  newId(): string {
    if (this.#idsAt === this.#ids.length) {
      this.#ids = randomBytes(IDS_AHEAD * 4 * ID_WORDS).toString('hex')
      this.#idsAt = 0
    }
    this.#idsAt += 8 * ID_WORDS
    return `rsv_${this.#ids.slice(this.#idsAt - 8 * ID_WORDS, this.#idsAt)}`
  }

  /** Whether another one finds room, however long its texts. */
  get hasRoom(): boolean {
    return this.#size < this.rowsMax && this.#blocksFree * BLOCK_BYTES >= this.#scratch.length + BLOCK_BYTES
  }

  /** A held one, counted against nothing yet and in no chain but the order. There must be room. */
  add(fixed: NewReservation): number {
    assert(this.hasRoom, 'a reservation without room')
    assert(ID.test(fixed.id), `${fixed.id} is no id of a reservation`)
    let row = this.#freeRow - 1
    if (row < 0) {
      row = this.#rowsUsed
      this.#rowsUsed += 1
    } else this.#freeRow = this.#idNext[row]!
    this.#size += 1

    const account = this.#accountOf(fixed)
    account.uses += 1
    this.#account[row] = account.number
    this.state[row] = HELD
    this.counts[row] = 0
    this.createdAt[row] = fixed.createdAt
    this.expiresAt[row] = fixed.expiresAt
    this.endedAt[row] = 0
    this.until[row] = 0
    this.sequence[row] = 0
    this.#quantity[row] = BigInt.asUintN(64, fixed.quantity)
    this.#quantityHigh[row] = fixed.quantity >> 64n
    this.#actual[row] = 0n
    this.#actualHigh[row] = 0n

    for (let word = 0; word < ID_WORDS; word += 1)
      this.#id[row * ID_WORDS + word] = Number.parseInt(fixed.id.slice(4 + 8 * word, 12 + 8 * word), 16)
    const idHead = this.#id[row * ID_WORDS]! & this.#mask
    this.#idNext[row] = this.#idHeads[idHead]!
    this.#idHeads[idHead] = row + 1

    this.#keyHash[row] = this.#hashOf(fixed.tenant, fixed.key)
    const keyHead = this.#keyHash[row]! & this.#mask
    this.#keyNext[row] = this.#keyHeads[keyHead]!
    this.#keyHeads[keyHead] = row + 1

    const keyLength = this.#write(fixed.key, 0)
    const keyEnd = keyLength >>> 1
    this.#keyLength[row] = keyLength
    let end = keyEnd
    if (fixed.subject === null) this.#subjectLength[row] = NO_TEXT
    else {
      const length = this.#write(fixed.subject, keyEnd)
      this.#subjectLength[row] = length
      end += length >>> 1
    }
    this.#text[row] = this.#keepText(end)
    this.#order.add(row, 0)
    return row
  }

  /** Forgets a row, which must not count. */
  remove(row: number): void {
    assert(this.state[row] !== 0 && this.counts[row] === 0, `row ${row} cannot be forgotten`)
    this.#order.remove(row)
    this.#phase.remove(row)
    unlink(this.#idHeads, this.#idNext, this.#id[row * ID_WORDS]! & this.#mask, row)
    unlink(this.#keyHeads, this.#keyNext, this.#keyHash[row]! & this.#mask, row)
    this.#dropText(row)
    const account = this.#accounts[this.#account[row]!]!
    account.uses -= 1
    if (account.uses === 0) this.#dropAccount(account)
    this.state[row] = 0
    this.#idNext[row] = this.#freeRow
    this.#freeRow = row + 1
    this.#size -= 1
  }

  /** -1: there is none. */
  byId(id: string): number {
    if (!ID.test(id)) return -1
    const [a, b, c] = [0, 1, 2].map((word) => Number.parseInt(id.slice(4 + 8 * word, 12 + 8 * word), 16))
    for (let row = this.#idHeads[a! & this.#mask]! - 1; row >= 0; row = this.#idNext[row]! - 1) {
      const at = row * ID_WORDS
      if (this.#id[at] === a && this.#id[at + 1] === b && this.#id[at + 2] === c) return row
    }
    return -1
  }

  /** The newest of this key; -1: there is none. */
  byKey(tenant: string, key: string): number {
    const hash = this.#hashOf(tenant, key)
    for (let row = this.#keyHeads[hash & this.#mask]! - 1; row >= 0; row = this.#keyNext[row]! - 1)
      if (this.#keyHash[row] === hash && this.account(row).tenant === tenant && this.key(row) === key) return row
    return -1
  }

  id(row: number): string {
    let id = 'rsv_'
    for (let word = 0; word < ID_WORDS; word += 1) id += this.#id[row * ID_WORDS + word]!.toString(16).padStart(8, '0')
    return id
  }

  account(row: number): Account {
    return this.#accounts[this.#account[row]!]!
  }

  quantity(row: number): bigint {
    return (this.#quantityHigh[row]! << 64n) | this.#quantity[row]!
  }

  actual(row: number): bigint {
    return (this.#actualHigh[row]! << 64n) | this.#actual[row]!
  }

  setActual(row: number, amount: bigint): void {
    this.#actual[row] = BigInt.asUintN(64, amount)
    this.#actualHigh[row] = amount >> 64n
  }

  key(row: number): string {
    const length = this.#keyLength[row]!
    this.#readText(row, length >>> 1)
    return this.#textAt(0, length)
  }

  subject(row: number): string | null {
    const length = this.#subjectLength[row]!
    if (length === NO_TEXT) return null
    const keyEnd = this.#keyLength[row]! >>> 1
    this.#readText(row, keyEnd + (length >>> 1))
    return this.#textAt(keyEnd, length)
  }

  // ---- What is held ------------------------------------------------------------------------------------------------------

  /** It counts with what was really used once it is committed, else with what was reserved. */
  #amount(row: number): bigint {
    return this.state[row] === COMMITTED ? this.actual(row) : this.quantity(row)
  }

  hold(row: number): void {
    if (this.counts[row] === 1) return
    this.counts[row] = 1
    const amount = this.#amount(row)
    for (const hold of this.account(row).holds) hold.amount += amount
  }

  unhold(row: number): void {
    if (this.counts[row] === 0) return
    this.counts[row] = 0
    const amount = this.#amount(row)
    for (const hold of this.account(row).holds) hold.amount -= amount
  }

  heldOf(quota: string): bigint {
    return this.#holds.get(quota)?.amount ?? 0n
  }

  // ---- Order and phase ---------------------------------------------------------------------------------------------------

  /** The one whose first record lies furthest behind; -1: there is none. */
  get oldest(): number {
    return this.#order.first(0)
  }

  after(row: number): number {
    return this.#order.after(row)
  }

  /** Its first record is being written anew. */
  moveToEnd(row: number): void {
    this.#order.add(row, 0)
  }

  moveToBeginning(row: number): void {
    this.#order.addFirst(row, 0)
  }

  /** Its lease runs. One that is over already ends with the next tick. */
  lease(row: number): void {
    const tick = Math.max(Math.ceil(this.expiresAt[row]! / TICK_MS), this.#sweptTick + 1)
    this.#phase.add(row, tick % WHEEL)
  }

  /**
   * Hands over those whose lease has ended, with the tick that is over: the lease of one lasts at most a tick longer than it says. Each
   * must be put into another phase. Whatever the clock does: forward over more than the wheel looks at each row once; one that is
   * met before its time, since the clock went back, stays.
   */
  sweep(now: number, onEnd: (row: number) => void): void {
    const tick = Math.floor(now / TICK_MS)
    if (tick === this.#sweptTick) return
    const from = Math.max(this.#sweptTick + 1, tick - WHEEL + 1)
    this.#sweptTick = tick
    for (let at = from; at <= tick; at += 1) {
      for (let row = this.#phase.first(at % WHEEL); row >= 0; ) {
        const next = this.#phase.after(row)
        if (this.expiresAt[row]! <= tick * TICK_MS) onEnd(row)
        row = next
      }
    }
  }

  /** It has ended and does not count any more. */
  end(row: number): void {
    this.#phase.add(row, WHEEL)
  }

  /** The first that ended; -1: there is none. */
  get firstEnded(): number {
    return this.#phase.first(WHEEL)
  }

  /** Committed, and counted until its stream has applied `until`; called in the order of that. */
  settle(row: number, stream: number): void {
    assert(stream < this.#streams, `there is no stream ${stream}`)
    this.#phase.add(row, WHEEL + 1 + stream)
  }

  /** The next of a stream to be settled; -1: there is none. */
  settling(stream: number): number {
    return this.#phase.first(WHEEL + 1 + stream)
  }

  /** In no phase while its end is being written. */
  pause(row: number): void {
    this.#phase.remove(row)
  }

  // ---- Inside ------------------------------------------------------------------------------------------------------------

  #accountOf({ tenant, metric, quotas }: NewReservation): Account {
    let byMetric = this.#accountsOf.get(tenant)
    if (byMetric === undefined) {
      byMetric = new Map()
      this.#accountsOf.set(tenant, byMetric)
    }
    let accounts = byMetric.get(metric)
    if (accounts === undefined) {
      accounts = []
      byMetric.set(metric, accounts)
    }
    for (const account of accounts)
      if (account.quotas.length === quotas.length && account.quotas.every((quota, i) => quota === quotas[i]))
        return account
    const holds = quotas.map((quota) => {
      let hold = this.#holds.get(quota)
      if (hold === undefined) {
        hold = { quota, amount: 0n, uses: 0 }
        this.#holds.set(quota, hold)
      }
      hold.uses += 1
      return hold
    })
    const number = this.#freeAccounts.pop() ?? this.#accounts.length
    const account: Account = { tenant, metric, quotas, holds, number, uses: 0 }
    this.#accounts[number] = account
    accounts.push(account)
    return account
  }

  #dropAccount(account: Account): void {
    const { tenant, metric, number, holds } = account
    this.#accounts[number] = undefined
    this.#freeAccounts.push(number)
    const byMetric = this.#accountsOf.get(tenant)!
    const left = byMetric.get(metric)!.filter((other) => other !== account)
    if (left.length > 0) byMetric.set(metric, left)
    else byMetric.delete(metric)
    if (byMetric.size === 0) this.#accountsOf.delete(tenant)
    for (const hold of holds) {
      hold.uses -= 1
      if (hold.uses === 0) this.#holds.delete(hold.quota)
    }
  }

  /** Keyed, so that nobody can make many keys meet. */
  #hashOf(tenant: string, key: string): number {
    const tenantLength = this.#write(tenant, 4)
    this.#scratch.writeUInt32LE(tenantLength, 0)
    const at = 4 + (tenantLength >>> 1)
    const keyLength = this.#write(key, at)
    const end = at + (keyLength >>> 1)
    // Narrow and wide forms of one text never meet: a text has one form.
    this.#scratch[end] = keyLength & 1
    sipHash128(this.#hashKey, 0, this.#scratch, 0, end + 1, this.#hash, 0)
    return this.#hash[0]!
  }

  /** Into the scratch; answers the length as columns have it. A text comes back to the last code unit, whatever is in it. */
  #write(text: string, at: number): number {
    const { length } = text
    for (let i = 0; i < length; i += 1) {
      const code = text.charCodeAt(i)
      if (code > 0xff) return (this.#scratch.write(text, at, 'utf16le') << 1) | 1
      this.#scratch[at + i] = code
    }
    return length << 1
  }

  #textAt(at: number, length: number): string {
    return this.#scratch.toString((length & 1) === 1 ? 'utf16le' : 'latin1', at, at + (length >>> 1))
  }

  /** Moves so many bytes of the scratch into blocks; answers the first, plus one. */
  #keepText(bytes: number): number {
    let first = 0
    // From the end, so that each block knows the one behind it.
    for (let at = (Math.ceil(bytes / BLOCK_BYTES) - 1) * BLOCK_BYTES; at >= 0; at -= BLOCK_BYTES) {
      let block = this.#freeBlock - 1
      if (block < 0) {
        block = this.#blocksUsed
        this.#blocksUsed += 1
      } else this.#freeBlock = this.#blocks[block * BLOCK_WORDS]!
      this.#blocksFree -= 1
      this.#blocks[block * BLOCK_WORDS] = first
      const to = 4 * (block * BLOCK_WORDS + 1)
      const end = Math.min(BLOCK_BYTES, bytes - at)
      for (let i = 0; i < end; i += 1) this.#blockBytes[to + i] = this.#scratch[at + i]!
      first = block + 1
    }
    return first
  }

  #readText(row: number, bytes: number): void {
    let block = this.#text[row]! - 1
    for (let at = 0; at < bytes; at += BLOCK_BYTES) {
      const from = 4 * (block * BLOCK_WORDS + 1)
      const end = Math.min(BLOCK_BYTES, bytes - at)
      for (let i = 0; i < end; i += 1) this.#scratch[at + i] = this.#blockBytes[from + i]!
      block = this.#blocks[block * BLOCK_WORDS]! - 1
    }
  }

  #dropText(row: number): void {
    for (let block = this.#text[row]! - 1; block >= 0; ) {
      const next = this.#blocks[block * BLOCK_WORDS]! - 1
      this.#blocks[block * BLOCK_WORDS] = this.#freeBlock
      this.#freeBlock = block + 1
      this.#blocksFree += 1
      block = next
    }
    this.#text[row] = 0
  }
}

/** Takes a row out of the list of its head. */
function unlink(heads: Int32Array, nexts: Int32Array, head: number, row: number): void {
  let at = heads[head]! - 1
  if (at === row) {
    heads[head] = nexts[row]!
    return
  }
  while (nexts[at]! - 1 !== row) at = nexts[at]! - 1
  nexts[at] = nexts[row]!
}
