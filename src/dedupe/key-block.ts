/**
 * Key block: what one epoch adds to dedupe, as bytes for the key file of its generation. Little-endian.
 *
 *    0 u32 magic «DKB2»   4 u32 stream   8 u32 epoch   12 u32 generation   16 u32 keys   20 u32 voids   24 u32 reserved, 0
 *   28 u32 crc32 of everything else
 *   32 keys    entries of 16 bytes (identity.ts), in the order of acceptance
 *      voids   the same with the void bit, for ids that were voided in this epoch; the id may belong to an older generation
 *
 * Written in the shard, kept by key-files.ts, read by the shard at the next start, or by the run builder.
 */
import { crc32 } from 'node:zlib'
import { assert } from '../assert.js'
import { limits } from '../limits.js'

const MAGIC = 0x32424b44
/** «DKB1»: entries with fewer bits, which cannot be made up. */
const EARLIER_MAGIC = 0x31424b44
export const BLOCK_HEADER_BYTES = 32
export const ENTRY_WORDS = 4
const ENTRY_BYTES = 4 * ENTRY_WORDS
/** Keys, and voids, of one block: an epoch is sealed at epochEventsMax, after the frame that reached it. */
export const blockEntriesMax = limits.epochEventsMax + limits.batchEventsMax

export interface KeyBlockHead {
  readonly stream: number
  readonly epoch: number
  readonly generation: number
  readonly keys: number
  readonly voids: number
  /** Of the whole block. */
  readonly bytes: number
}

export interface KeyBlock extends KeyBlockHead {
  /** Four words per entry. */
  readonly keyWords: Int32Array
  readonly voidWords: Int32Array
}

/** A fresh buffer of its own, so that it can be transferred to the main thread. */
export function encodeKeyBlock(
  head: { readonly stream: number; readonly epoch: number; readonly generation: number },
  keyWords: Int32Array,
  voidWords: Int32Array,
): Uint8Array {
  const bytes = Buffer.from(new ArrayBuffer(BLOCK_HEADER_BYTES + 4 * (keyWords.length + voidWords.length)))
  bytes.writeUInt32LE(MAGIC, 0)
  bytes.writeUInt32LE(head.stream, 4)
  bytes.writeUInt32LE(head.epoch, 8)
  bytes.writeUInt32LE(head.generation, 12)
  bytes.writeUInt32LE(keyWords.length / ENTRY_WORDS, 16)
  bytes.writeUInt32LE(voidWords.length / ENTRY_WORDS, 20)
  const words = new Int32Array(bytes.buffer, bytes.byteOffset + BLOCK_HEADER_BYTES)
  words.set(keyWords)
  words.set(voidWords, keyWords.length)
  bytes.writeUInt32LE(checksum(bytes), 28)
  return bytes
}

/** The head of a block from its first 32 bytes, or null when they are not one. Says nothing about the rest of the block. */
export function readKeyBlockHead(bytes: Buffer): KeyBlockHead | null {
  if (bytes.length < BLOCK_HEADER_BYTES) return null
  const magic = bytes.readUInt32LE(0)
  if (magic === EARLIER_MAGIC) {
    throw new Error(
      'FATAL: the key files are of an earlier version, whose ids cannot be read: begin with an empty directory',
    )
  }
  if (magic !== MAGIC) return null
  const keys = bytes.readUInt32LE(16)
  const voids = bytes.readUInt32LE(20)
  if (keys > blockEntriesMax || voids > blockEntriesMax) return null
  return {
    stream: bytes.readUInt32LE(4),
    epoch: bytes.readUInt32LE(8),
    generation: bytes.readUInt32LE(12),
    keys,
    voids,
    bytes: BLOCK_HEADER_BYTES + ENTRY_BYTES * (keys + voids),
  }
}

/** A whole block, or null when its bytes are not what was written. */
export function decodeKeyBlock(block: Uint8Array): KeyBlock | null {
  const aligned = block.byteOffset % 4 === 0 ? block : block.slice()
  const bytes = Buffer.from(aligned.buffer, aligned.byteOffset, aligned.byteLength)
  const head = readKeyBlockHead(bytes)
  if (head === null || head.bytes !== bytes.length || bytes.readUInt32LE(28) !== checksum(bytes)) return null
  const keysAt = bytes.byteOffset + BLOCK_HEADER_BYTES
  return {
    ...head,
    keyWords: new Int32Array(bytes.buffer, keysAt, ENTRY_WORDS * head.keys),
    voidWords: new Int32Array(bytes.buffer, keysAt + ENTRY_BYTES * head.keys, ENTRY_WORDS * head.voids),
  }
}

function checksum(bytes: Buffer): number {
  return crc32(bytes.subarray(BLOCK_HEADER_BYTES), crc32(bytes.subarray(0, BLOCK_HEADER_BYTES - 4)))
}

/** Entries of an epoch as they gather; bounded by what one block may hold. */
export class EntryList {
  #words = new Int32Array(ENTRY_WORDS * 1_024)
  #length = 0

  get words(): Int32Array {
    return this.#words.subarray(0, this.#length)
  }

  push(entries: Int32Array, at: number, voidBit: number): void {
    assert(this.#length < ENTRY_WORDS * blockEntriesMax, 'an epoch was not sealed at its bound')
    if (this.#length === this.#words.length) {
      const grown = new Int32Array(2 * this.#length)
      grown.set(this.#words)
      this.#words = grown
    }
    const words = this.#words
    words[this.#length] = entries[at]!
    words[this.#length + 1] = entries[at + 1]!
    words[this.#length + 2] = entries[at + 2]! | voidBit
    words[this.#length + 3] = entries[at + 3]!
    this.#length += ENTRY_WORDS
  }

  clear(): void {
    this.#length = 0
  }
}
