/**
 * Run: the entries of some closed generations on disk, sorted, never changed. Little-endian.
 *
 *      0  head, one page: u32 magic «DRN1»  u32 stream  u32 first  u32 last (generations)  u32 pages  u32 filter blocks
 *         f64 ids  f64 marks (voids that are here)  f64 voids (as the state counts them)  u32 crc of the fences  u32 crc of the filter
 *         u32 crc of the head so far
 *   4096  pages of 4,096 bytes: 255 entries of 16 bytes (identity.ts) in order, then u32 its number, u32 its entries, u32 last
 *         generation of the run, u32 crc of all of it
 *         fences: u32 per page, the high 32 bits of its first hash; filled up to a whole page
 *         filter: blocks of 64 bytes (workers/kernel/runs.as.ts)
 *
 * Memory of an open run, per id: 1.5 bytes of filter and 4 / 255 of fence. An id that a run does not have is let through by the
 * filter once in 237; then, as for an id that is there, one page is read and its checksum compared. Whatever cannot be read as it
 * was written is refused by name and offset, never taken for an unknown id.
 */
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import { crc32 } from 'node:zlib'
import { VOID_BIT } from './identity.js'
import { ENTRY_WORDS } from './key-block.js'

export const PAGE_BYTES = 4_096
export const PAGE_ENTRIES = 255
export const ENTRY_BYTES = 16
export const FILTER_BLOCK_BYTES = 64
/** Measured against fewer and more: README.md of this folder. */
const FILTER_BITS = 12
const MAGIC = 0x314e5244
const HEAD_BYTES = 60
/** What one id takes of the disk bound, at most: entry, fence and filter, and a quarter more for the building of the next run. */
const DISK_BYTES_PER_ENTRY = 1.25 * (PAGE_BYTES / PAGE_ENTRIES + 4 / PAGE_ENTRIES + FILTER_BITS / 8)

/** Entries that may lie in runs when they may take so many bytes. */
export const runEntriesIn = (bytes: number): number => Math.floor(bytes / DISK_BYTES_PER_ENTRY)

export const filterBlocksFor = (entries: number): number =>
  Math.max(1, Math.ceil((entries * FILTER_BITS) / 8 / FILTER_BLOCK_BYTES))

const NAME = /^([0-9]{10})-([0-9]{10})\.run$/
export const runName = (first: number, last: number): string =>
  `${String(first).padStart(10, '0')}-${String(last).padStart(10, '0')}.run`
/** First and last generation, or null when the name is not a run's. */
export function parseRunName(name: string): { first: number; last: number } | null {
  const match = NAME.exec(name)
  return match === null ? null : { first: Number(match[1]), last: Number(match[2]) }
}

export interface RunHead {
  readonly stream: number
  readonly first: number
  readonly last: number
  readonly pages: number
  readonly filterBlocks: number
  readonly ids: number
  readonly marks: number
  readonly voids: number
  readonly fencesCrc: number
  readonly filterCrc: number
}

const padToPage = (bytes: number): number => Math.ceil(bytes / PAGE_BYTES) * PAGE_BYTES
export const fencesAt = (pages: number): number => PAGE_BYTES * (1 + pages)
export const filterAt = (pages: number): number => fencesAt(pages) + padToPage(4 * pages)
const sizeOf = ({ pages, filterBlocks }: RunHead): number => filterAt(pages) + FILTER_BLOCK_BYTES * filterBlocks

export function encodeRunHead(head: RunHead): Buffer {
  const bytes = Buffer.alloc(PAGE_BYTES)
  const words = [MAGIC, head.stream, head.first, head.last, head.pages, head.filterBlocks]
  for (const [i, word] of words.entries()) bytes.writeUInt32LE(word, 4 * i)
  for (const [i, value] of [head.ids, head.marks, head.voids].entries()) bytes.writeDoubleLE(value, 24 + 8 * i)
  bytes.writeUInt32LE(head.fencesCrc, 48)
  bytes.writeUInt32LE(head.filterCrc, 52)
  bytes.writeUInt32LE(crc32(bytes.subarray(0, HEAD_BYTES - 4)), HEAD_BYTES - 4)
  return bytes
}

function decodeRunHead(bytes: Buffer): RunHead | null {
  if (bytes.length < HEAD_BYTES || bytes.readUInt32LE(0) !== MAGIC) return null
  if (bytes.readUInt32LE(HEAD_BYTES - 4) !== crc32(bytes.subarray(0, HEAD_BYTES - 4))) return null
  const [stream, first, last, pages, filterBlocks] = [1, 2, 3, 4, 5].map((i) => bytes.readUInt32LE(4 * i))
  return {
    stream: stream!,
    first: first!,
    last: last!,
    pages: pages!,
    filterBlocks: filterBlocks!,
    ids: bytes.readDoubleLE(24),
    marks: bytes.readDoubleLE(32),
    voids: bytes.readDoubleLE(40),
    fencesCrc: bytes.readUInt32LE(48),
    filterCrc: bytes.readUInt32LE(52),
  }
}

/** Behind the entries of a page. */
const SEAL_AT = PAGE_ENTRIES * ENTRY_BYTES
const CRC_AT = PAGE_BYTES - 4

/** Writes what stands behind the entries of a page. */
export function sealPage(page: Buffer, number: number, entries: number, last: number): void {
  page.writeUInt32LE(number, SEAL_AT)
  page.writeUInt32LE(entries, SEAL_AT + 4)
  page.writeUInt32LE(last, SEAL_AT + 8)
  page.writeUInt32LE(crc32(page.subarray(0, CRC_AT)), CRC_AT)
}

/** Entries of a page, or −1 when it is not what was written. */
export function readSealedPage(page: Buffer, number: number, last: number): number {
  if (page.readUInt32LE(CRC_AT) !== crc32(page.subarray(0, CRC_AT))) return -1
  const entries = page.readUInt32LE(SEAL_AT + 4)
  const isIts = page.readUInt32LE(SEAL_AT) === number && page.readUInt32LE(SEAL_AT + 8) === last
  return isIts && entries > 0 && entries <= PAGE_ENTRIES ? entries : -1
}

/** An open run, without its filter. Synchronous: it is read in the shard's thread, and in the builder's. */
export class RunFile {
  readonly path: string
  readonly head: RunHead
  readonly fences: Uint32Array
  readonly #file: number
  readonly #page = Buffer.from(new ArrayBuffer(PAGE_BYTES))
  readonly #words = new Uint32Array(this.#page.buffer)
  #inPage = -1
  #entries = 0
  /** Pages read. */
  reads = 0

  /** Throws «FATAL: …» when it is not a whole run of this stream. */
  constructor(path: string, stream: number) {
    this.path = path
    this.#file = openSync(path, 'r')
    try {
      const bytes = Buffer.alloc(PAGE_BYTES)
      const read = readSync(this.#file, bytes, 0, PAGE_BYTES, 0)
      const head = decodeRunHead(bytes.subarray(0, read))
      const { size } = fstatSync(this.#file)
      if (head === null || head.stream !== stream || sizeOf(head) !== size) {
        throw new Error(`FATAL: ${path} is damaged at offset 0: not a whole run of ids of stream ${stream}`)
      }
      this.head = head
      const fences = Buffer.from(new ArrayBuffer(4 * head.pages))
      this.readInto(fences, fencesAt(head.pages))
      if (crc32(fences) !== head.fencesCrc) this.damaged(fencesAt(head.pages))
      this.fences = new Uint32Array(fences.buffer)
    } catch (error) {
      closeSync(this.#file)
      throw error
    }
  }

  damaged(offset: number): never {
    const { first, last, ids } = this.head
    throw new Error(
      `FATAL: ${this.path} is damaged at offset ${offset}: it holds ${ids} ids of the generations ${first} to ${last}, and which ` +
        'of them were there cannot be told any more. Restore the file from a backup.',
    )
  }

  readInto(bytes: Uint8Array, at: number): void {
    for (let done = 0; done < bytes.length; ) {
      const read = readSync(this.#file, bytes, done, bytes.length - done, at + done)
      if (read === 0) this.damaged(at + done)
      done += read
    }
  }

  /** `count` pages from `from` on into `bytes`, checked; answers their entries. */
  readPages(bytes: Buffer, from: number, count: number): number {
    this.readInto(bytes.subarray(0, PAGE_BYTES * count), PAGE_BYTES * (1 + from))
    let entries = 0
    for (let i = 0; i < count; i += 1) {
      const found = readSealedPage(bytes.subarray(PAGE_BYTES * i, PAGE_BYTES * (i + 1)), from + i, this.head.last)
      if (found < 0) this.damaged(PAGE_BYTES * (1 + from + i))
      entries += found
    }
    return entries
  }

  /** The id at words[at, at + 4), and its void. Answers bit 0: the id is here, bit 1: a void of it; `tag` is then the id's. */
  find(words: Int32Array, at: number): number {
    const low = words[at]! >>> 0
    const high = words[at + 1]! >>> 0
    const rest = (words[at + 2]! & ~VOID_BIT) >>> 0
    const { fences } = this
    // The last page that begins below; its followers that begin with the very same 32 bits may hold it as well.
    let from = 0
    for (let to = fences.length; from < to; ) {
      const middle = (from + to) >>> 1
      if (fences[middle]! < high) from = middle + 1
      else to = middle
    }
    let found = 0
    for (let page = Math.max(0, from - 1); page < fences.length && (page < from || fences[page]! <= high); page += 1) {
      found |= this.#findIn(page, low, high, rest)
    }
    return found
  }

  tag = 0

  #findIn(page: number, low: number, high: number, rest: number): number {
    if (this.#inPage !== page) {
      this.#inPage = -1
      this.#entries = this.readPages(this.#page, page, 1)
      this.#inPage = page
      this.reads += 1
    }
    const words = this.#words
    let from = 0
    for (let to = this.#entries; from < to; ) {
      const middle = (from + to) >>> 1
      const at = ENTRY_WORDS * middle
      const isBelow =
        words[at + 1]! < high ||
        (words[at + 1] === high && (words[at]! < low || (words[at] === low && words[at + 2]! < rest)))
      if (isBelow) from = middle + 1
      else to = middle
    }
    let found = 0
    for (let entry = from; entry < this.#entries && entry < from + 2; entry += 1) {
      const at = ENTRY_WORDS * entry
      if (words[at + 1] !== high || words[at] !== low || (words[at + 2]! & ~VOID_BIT) >>> 0 !== rest) break
      if ((words[at + 2]! & VOID_BIT) === 0) {
        this.tag = words[at + 3]! | 0
        found |= 1
      } else {
        found |= 2
      }
    }
    return found
  }

  close(): void {
    closeSync(this.#file)
  }
}
