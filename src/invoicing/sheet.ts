/**
 * A table of any length as CSV or XLSX, row by row: memory holds one piece of it. The same content as extract.ts writes at once; the
 * sheet is deflated as it goes, and its sizes stand behind it (a ZIP entry with a data descriptor).
 */
import { once } from 'node:events'
import { crc32, createDeflateRaw } from 'node:zlib'
import { ReleveError } from '../errors.js'
import { csvRow, sheetParts, sheetRow } from './extract.js'

export interface StreamedTable {
  readonly columns: readonly string[]
  readonly rows: AsyncIterable<readonly string[]>
  /** Columns that hold numbers. */
  readonly numeric: ReadonlySet<string>
}

const PIECE = 64 * 1024
/** What a sheet may have, by its own format. */
const SHEET_ROWS_MAX = 1_048_576

async function* pieces(lines: AsyncIterable<string>): AsyncGenerator<Buffer> {
  let text = ''
  for await (const line of lines) {
    text += line
    if (text.length < PIECE) continue
    yield Buffer.from(text)
    text = ''
  }
  if (text !== '') yield Buffer.from(text)
}

export async function* streamCsv(table: StreamedTable): AsyncGenerator<Buffer> {
  async function* lines(): AsyncGenerator<string> {
    yield `\ufeff${table.columns.join(',')}\r\n`
    for await (const row of table.rows) yield `${csvRow(table, row)}\r\n`
  }
  yield* pieces(lines())
}

export async function* streamXlsx(table: StreamedTable): AsyncGenerator<Buffer> {
  const { files, sheet, before, after } = sheetParts()
  const directory: Buffer[] = []
  let offset = 0
  const emit = (bytes: Buffer): Buffer => {
    offset += bytes.length
    return bytes
  }
  for (const [name, content] of files) {
    const data = Buffer.from(content)
    const entry = { name, crc: crc32(data), size: data.length, packed: data.length, at: offset, streamed: false }
    directory.push(centralOf(entry))
    yield emit(localOf(entry))
    yield emit(data)
  }
  const entry = { name: sheet, crc: 0, size: 0, packed: 0, at: offset, streamed: true }
  yield emit(localOf(entry))
  async function* xml(): AsyncGenerator<string> {
    yield before
    let at = 1
    yield sheetRow(table, table.columns, at)
    for await (const row of table.rows) {
      at += 1
      if (at > SHEET_ROWS_MAX)
        throw new ReleveError('unprocessable', `a sheet has at most ${SHEET_ROWS_MAX} rows: take the CSV`)
      yield sheetRow(table, row, at)
    }
    yield after
  }
  const deflate = createDeflateRaw({ level: 6 })
  const packed: Buffer[] = []
  deflate.on('data', (piece: Buffer) => packed.push(piece))
  for await (const piece of pieces(xml())) {
    entry.crc = crc32(piece, entry.crc)
    entry.size += piece.length
    if (!deflate.write(piece)) await once(deflate, 'drain')
    for (const one of packed.splice(0)) {
      entry.packed += one.length
      yield emit(one)
    }
  }
  deflate.end()
  await once(deflate, 'end')
  for (const one of packed.splice(0)) {
    entry.packed += one.length
    yield emit(one)
  }
  if (Math.max(entry.size, entry.packed) >= 2 ** 32)
    throw new ReleveError('unprocessable', 'the sheet is larger than 4 GiB: take the CSV')
  const descriptor = Buffer.alloc(16)
  descriptor.write('PK\x07\x08', 0, 'latin1')
  descriptor.writeUInt32LE(entry.crc, 4)
  descriptor.writeUInt32LE(entry.packed, 8)
  descriptor.writeUInt32LE(entry.size, 12)
  yield emit(descriptor)
  directory.push(centralOf(entry))
  const central = Buffer.concat(directory)
  const end = Buffer.alloc(22)
  end.write('PK\x05\x06', 0, 'latin1')
  end.writeUInt16LE(directory.length, 8)
  end.writeUInt16LE(directory.length, 10)
  end.writeUInt32LE(central.length, 12)
  end.writeUInt32LE(offset, 16)
  yield Buffer.concat([central, end])
}

interface Entry {
  readonly name: string
  readonly crc: number
  readonly size: number
  readonly packed: number
  readonly at: number
  /** Deflated, with its sizes behind it. */
  readonly streamed: boolean
}

function sharedOf(entry: Entry, known: boolean): Buffer {
  const shared = Buffer.alloc(26)
  shared.writeUInt16LE(20, 0) // version needed
  if (entry.streamed) shared.writeUInt16LE(8, 2)
  if (entry.streamed) shared.writeUInt16LE(8, 4)
  shared.writeUInt16LE(0x21, 8) // 1 January 1980
  if (known) {
    shared.writeUInt32LE(entry.crc, 10)
    shared.writeUInt32LE(entry.packed, 14)
    shared.writeUInt32LE(entry.size, 18)
  }
  shared.writeUInt16LE(entry.name.length, 22)
  return shared
}

const localOf = (entry: Entry): Buffer =>
  Buffer.concat([
    Buffer.from('PK\x03\x04', 'latin1'),
    sharedOf(entry, !entry.streamed),
    Buffer.from(entry.name, 'latin1'),
  ])

function centralOf(entry: Entry): Buffer {
  const tail = Buffer.alloc(14)
  tail.writeUInt32LE(entry.at, 10)
  return Buffer.concat([
    Buffer.from('PK\x01\x02\x14\x00', 'latin1'),
    sharedOf(entry, true),
    tail,
    Buffer.from(entry.name, 'latin1'),
  ])
}
