/**
 * Spool: batches on disk while the service is away. Append-only segment files; what `append` has resolved for is synced and
 * survives kill -9 and, as far as the disk keeps its word, power loss. First in, first out; a segment whose batches have all been
 * taken is deleted, so after a crash at most one segment is sent again, and a duplicate costs nothing.
 *
 *   NNNNNNNNNNNN.spool    header «RSPL1\n\0\0», then records: u32 bytes, u32 events, u32 CRC-32 of the body, u32 0, body
 *
 * A record that is cut ends its segment: a torn tail is what kill -9 leaves, and nobody was told that it is safe. One that does
 * not match its checksum is left out. Both are reported. One client owns a directory, by a lock that the kernel drops with the
 * process.
 */
import { closeSync, fstatSync, openSync, readdirSync, readSync, unlinkSync } from 'node:fs'
import { type FileHandle, open } from 'node:fs/promises'
import { join } from 'node:path'
import { crc32 } from 'node:zlib'
import { lockDataDirectory } from '../engines/lock.js'
import { limits } from '../limits.js'

const MAGIC = Buffer.from('RSPL1\n\0\0')
const HEAD_BYTES = 16

export interface SpooledBatch {
  readonly body: Uint8Array
  readonly events: number
}

interface Segment {
  readonly path: string
  /** First byte that has not been taken. */
  at: number
  /** Behind the last record that is synced. */
  end: number
  records: number
}

export class Spool {
  readonly #directory: string
  readonly #bytesMax: number
  readonly #lock: { release(): void }
  readonly #onDamage: (what: string) => void
  readonly #segments: Segment[] = []
  #writer: { handle: FileHandle; segment: Segment } | null = null
  #number = 0
  #events = 0
  /** One operation after the other. */
  #turn: Promise<unknown> = Promise.resolve()

  /** Takes over what an earlier process has left. Throws when another process has the directory. */
  constructor(directory: string, bytesMax: number, onDamage: (what: string) => void) {
    this.#directory = directory
    this.#bytesMax = bytesMax
    this.#onDamage = onDamage
    this.#lock = lockDataDirectory(directory)
    try {
      for (const name of readdirSync(directory).sort()) {
        const number = /^(\d{12})\.spool$/.exec(name)?.[1]
        if (number === undefined) continue
        this.#number = Number(number)
        this.#adopt(join(directory, name))
      }
    } catch (error) {
      this.#lock.release()
      throw error
    }
  }

  /** Events that wait on disk. */
  get events(): number {
    return this.#events
  }

  get isEmpty(): boolean {
    return this.#segments.every(({ records }) => records === 0)
  }

  /** Bytes of the segments on disk. */
  get bytes(): number {
    return this.#segments.reduce((sum, { end }) => sum + end, 0)
  }

  /** Writes the first batches, as many as there is room for, syncs them, and resolves with their number. */
  append(batches: readonly SpooledBatch[]): Promise<number> {
    return this.#inTurn(async () => {
      const parts: Uint8Array[] = []
      let bytes = 0
      let events = 0
      let count = 0
      const room = this.#bytesMax - this.bytes - MAGIC.length
      for (const batch of batches) {
        const more = HEAD_BYTES + batch.body.length
        if (bytes + more > room) break
        parts.push(headOf(batch), batch.body)
        bytes += more
        events += batch.events
        count += 1
      }
      if (count === 0) return 0
      const { handle, segment } = await this.#openWriter()
      try {
        const whole = Buffer.concat(parts)
        for (let done = 0; done < whole.length; ) {
          done += (await handle.write(whole, done, whole.length - done, segment.end + done)).bytesWritten
        }
        await handle.datasync()
      } catch (error) {
        // What a failed sync leaves is unknown: nothing is written behind it.
        await this.#closeWriter()
        throw error
      }
      segment.end += bytes
      segment.records += count
      this.#events += events
      if (segment.end >= limits.clientSegmentBytes) await this.#closeWriter()
      return count
    })
  }

  /** The oldest batch; null when there is none. It stays until `shift`. */
  peek(): Promise<SpooledBatch | null> {
    return this.#inTurn(async () => {
      for (;;) {
        const segment = this.#segments.find(({ records }) => records > 0)
        if (segment === undefined) return null
        const record = await readRecord(segment)
        if (record.isSound) return record
        this.#onDamage(
          `${segment.path}, byte ${segment.at}: a batch of ${record.events} events does not match its checksum`,
        )
        await this.#pass(segment, record)
      }
    })
  }

  /** The oldest batch, which `peek` gave, has been taken. */
  shift(batch: SpooledBatch): Promise<void> {
    return this.#inTurn(async () => {
      const segment = this.#segments.find(({ records }) => records > 0)
      if (segment !== undefined) await this.#pass(segment, batch)
    })
  }

  async close(): Promise<void> {
    await this.#inTurn(() => this.#closeWriter())
    this.#lock.release()
  }

  /** Goes behind a record; behind the last one the segment goes. */
  async #pass(segment: Segment, { body, events }: SpooledBatch): Promise<void> {
    segment.at += HEAD_BYTES + body.length
    segment.records -= 1
    this.#events -= events
    if (segment.records > 0) return
    if (this.#writer?.segment === segment) await this.#closeWriter()
    this.#segments.splice(this.#segments.indexOf(segment), 1)
    unlinkSync(segment.path)
  }

  #inTurn<T>(run: () => Promise<T>): Promise<T> {
    const done = this.#turn.then(run)
    this.#turn = done.catch(() => {})
    return done
  }

  async #openWriter(): Promise<{ handle: FileHandle; segment: Segment }> {
    if (this.#writer !== null) return this.#writer
    this.#number += 1
    const path = join(this.#directory, `${String(this.#number).padStart(12, '0')}.spool`)
    const handle = await open(path, 'wx', 0o600)
    await handle.write(MAGIC)
    // The name must be on disk before anything in the file counts.
    const directory = await open(this.#directory)
    await directory.sync().finally(() => directory.close())
    const segment = { path, at: MAGIC.length, end: MAGIC.length, records: 0 }
    this.#segments.push(segment)
    this.#writer = { handle, segment }
    return this.#writer
  }

  async #closeWriter(): Promise<void> {
    const writer = this.#writer
    this.#writer = null
    await writer?.handle.close()
  }

  /** Counts the records of a segment that an earlier process has written, by their heads. */
  #adopt(path: string): void {
    const file = openSync(path, 'r')
    const segment = { path, at: MAGIC.length, end: MAGIC.length, records: 0 }
    let isEmpty = false
    try {
      const { size } = fstatSync(file)
      const head = Buffer.alloc(HEAD_BYTES)
      const isOurs = readSync(file, head, 0, MAGIC.length, 0) === MAGIC.length && head.subarray(0, 8).equals(MAGIC)
      while (isOurs && readSync(file, head, 0, HEAD_BYTES, segment.end) === HEAD_BYTES) {
        const length = head.readUInt32LE(0)
        if (length === 0 || segment.end + HEAD_BYTES + length > size) break
        segment.end += HEAD_BYTES + length
        segment.records += 1
        this.#events += head.readUInt32LE(4)
      }
      isEmpty = size <= MAGIC.length || (isOurs && segment.records === 0)
      if (segment.end < size) {
        this.#onDamage(
          `${path}, byte ${segment.end}: ${size - segment.end} bytes are no batch: cut by a crash, or damaged`,
        )
      }
    } finally {
      closeSync(file)
    }
    if (segment.records > 0) this.#segments.push(segment)
    else if (isEmpty) unlinkSync(path)
  }
}

function headOf({ body, events }: SpooledBatch): Uint8Array {
  const head = Buffer.alloc(HEAD_BYTES)
  head.writeUInt32LE(body.length, 0)
  head.writeUInt32LE(events, 4)
  head.writeUInt32LE(crc32(body), 8)
  return head
}

async function readRecord(segment: Segment): Promise<SpooledBatch & { isSound: boolean }> {
  const handle = await open(segment.path, 'r')
  try {
    const head = Buffer.alloc(HEAD_BYTES)
    await handle.read(head, 0, HEAD_BYTES, segment.at)
    // The length was followed when the segment was counted; a file that has changed since is cut at its end.
    const body = Buffer.alloc(Math.min(head.readUInt32LE(0), segment.end - segment.at - HEAD_BYTES))
    const { bytesRead } = await handle.read(body, 0, body.length, segment.at + HEAD_BYTES)
    const isSound = bytesRead === body.length && crc32(body) === head.readUInt32LE(8)
    return { body, events: head.readUInt32LE(4), isSound }
  } finally {
    await handle.close()
  }
}
