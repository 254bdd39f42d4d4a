/**
 * A stream's records from a position on, as a log of their own: one segment file that a new service opens like any other. For
 * backups. It reads through the log's port, so it never touches a file that is being written; the caller sees to it that nothing
 * from `from` on is deleted meanwhile. A record that comes in during the copy is not part of it.
 */
import { mkdir } from 'node:fs/promises'
import { realDisk } from './disk.js'
import type { Log } from './log.js'
import { encodeRecordHeader, recordBytes, recordHeaderBytes } from './record.js'
import { dataStart, newSegmentId, segmentName, writeHeader } from './segment.js'

const readBytes = 4 * 1024 * 1024

/**
 * @param from the first record of the copy; everything before it has a checkpoint.
 * @param receivedAt of the record before `from`.
 * @returns the last sequence that the copy holds; from − 1 when there was none.
 * @throws Error when the log has lost a record from `from` on: a copy would hide the gap.
 */
export async function copyRecords(
  log: Log,
  stream: number,
  from: number,
  receivedAt: number,
  directory: string,
): Promise<number> {
  await mkdir(directory, { recursive: true, mode: 0o700 })
  const { last } = log.state(stream)
  const id = newSegmentId()
  const file = await realDisk.open(`${directory}/${segmentName(from)}`, 'create')
  try {
    await writeHeader(file, { id, stream, first: from, previousFirst: 0, receivedAt })
    let at = dataStart
    let next = from
    while (next <= last) {
      const records = await log.read(stream, next, readBytes)
      const buffers: Buffer[] = []
      let bytes = 0
      for (const record of records) {
        if (record.sequence > last) break
        if (record.sequence !== next)
          throw new Error(`cannot copy stream ${stream}: its records from ${next} on are lost`)
        const buffer = Buffer.alloc(recordBytes(record.payload.byteLength))
        // Each record says that the one before it is on disk; all of them are, once the copy is synced.
        encodeRecordHeader(buffer, 0, id, record.sequence, record.receivedAt, record.sequence - 1, record.payload)
        buffer.set(record.payload, recordHeaderBytes)
        buffers.push(buffer)
        bytes += buffer.length
        next += 1
      }
      if (buffers.length === 0) throw new Error(`cannot copy stream ${stream}: its records from ${next} on are lost`)
      await file.writev(buffers, at)
      at += bytes
    }
    await file.sync()
  } finally {
    await file.close()
  }
  await realDisk.syncDirectory(directory)
  return last
}
