/**
 * CSV: a line of column names, then one event a line. Written down as JSON (transcript.ts) and read as the native event.
 *
 * Columns: id, tenant, source, metric, subject, time, value, kind and `dims.NAME`, in any order; the separator is «,» or «;», as
 * the first line has it. An empty cell is a member that is absent. Cells may be quoted, with a quote doubled inside. A line is a
 * row, always: no field of an event may hold a line break, so an unclosed quote costs its own row and no other. The decimal
 * point is a point: 1,5 is refused, not understood. A time of digits alone is epoch milliseconds. UTF-8, with or without the
 * mark that spreadsheets write in front.
 * A first line with an unknown or repeated column refuses the body, since it means something else in every row.
 */
import { ReleveError } from '../errors.js'
import { limits } from '../limits.js'
import { eachLine } from './lines.js'
import { Transcript } from './transcript.js'

const NAMES = ['id', 'tenant', 'source', 'metric', 'subject', 'time', 'value', 'kind']
const DIMS = 'dims.'
const QUOTE = 0x22
const COLUMNS_MAX = NAMES.length + limits.dimsMax + 1

interface Row {
  /** Each cell without its quotes; text from outside, so bytes and not a string. */
  readonly cells: Uint8Array[]
  readonly fault: string | null
}

/** Throws ReleveError only. */
export function readCsv(body: Uint8Array): Transcript {
  const out = new Transcript(body.byteLength)
  let columns: readonly string[] | null = null
  let separator = 0x2c
  const start = body.length >= 3 && body[0] === 0xef && body[1] === 0xbb && body[2] === 0xbf ? 3 : 0
  eachLine(body, start, (from, to) => {
    if (columns === null) {
      separator = body.subarray(from, to).includes(0x3b) ? 0x3b : 0x2c
      columns = readColumns(rowOf(body, from, to, separator))
    } else writeRow(out, columns, rowOf(body, from, to, separator))
  })
  if (columns === null) throw new ReleveError('malformed_body', 'byte 0: the body is empty, not even column names')
  return out
}

function readColumns(row: Row): readonly string[] {
  if (row.fault !== null) throw new ReleveError('malformed_body', `line 1: ${row.fault}`)
  if (row.cells.length > COLUMNS_MAX) {
    throw new ReleveError('malformed_body', `line 1: ${row.cells.length} columns; at most ${COLUMNS_MAX}`)
  }
  const columns = row.cells.map((cell) => Buffer.from(cell).toString())
  columns.forEach((name, i) => {
    const shown = JSON.stringify(name.length > 64 ? `${name.slice(0, 64)}…` : name)
    if (!NAMES.includes(name) && !(name.startsWith(DIMS) && name.length > DIMS.length)) {
      throw new ReleveError('malformed_body', `line 1: no event has ${shown}: ${NAMES.join(', ')}, dims.NAME`)
    }
    if (columns.indexOf(name) !== i) throw new ReleveError('malformed_body', `line 1: ${shown} appears twice`)
  })
  return columns
}

function writeRow(out: Transcript, columns: readonly string[], row: Row): void {
  out.event()
  if (row.fault !== null) out.fault('', row.fault)
  else if (row.cells.length !== columns.length) {
    out.fault('', `has ${row.cells.length} cells, the first line has ${columns.length}`)
  }
  let members = 0
  let dims = 0
  out.byte(0x7b)
  for (const ofDims of [false, true]) {
    columns.forEach((column, i) => {
      const cell = row.cells[i]
      if (cell === undefined || cell.length === 0 || column.startsWith(DIMS) !== ofDims) return
      if (members > 0 && (!ofDims || dims > 0)) out.byte(0x2c)
      if (ofDims && dims === 0) out.ascii(members > 0 ? ',"dims":{' : '"dims":{')
      if (ofDims) dims += 1
      members += 1
      const name = Buffer.from(ofDims ? column.slice(DIMS.length) : column)
      out.string(name, 0, name.length)
      out.byte(0x3a)
      if (column === 'time' && isEpoch(cell)) out.ascii(Buffer.from(cell).toString('latin1'))
      else out.string(cell, 0, cell.length)
    })
  }
  if (dims > 0) out.byte(0x7d)
  out.byte(0x7d)
}

/** Digits alone, without a leading zero, as JSON has them. */
function isEpoch(cell: Uint8Array): boolean {
  if (cell.length > 16) return false
  const start = cell[0] === 0x2d ? 1 : 0
  if (start === cell.length || (cell[start] === 0x30 && cell.length > start + 1)) return false
  for (let i = start; i < cell.length; i += 1) if (cell[i]! < 0x30 || cell[i]! > 0x39) return false
  return true
}

function rowOf(body: Uint8Array, from: number, to: number, separator: number): Row {
  const cells: Uint8Array[] = []
  // A row of separators alone must not become millions of cells.
  let at = from
  for (;;) {
    if (cells.length > COLUMNS_MAX) return { cells: [], fault: `has more than ${COLUMNS_MAX} cells` }
    if (at < to && body[at] === QUOTE) {
      const cell = quotedCell(body, at, to)
      if (cell === null) return { cells, fault: 'has a quote that is not closed' }
      cells.push(cell.bytes)
      at = cell.end
      if (at < to && body[at] !== separator) return { cells, fault: 'has text behind a closing quote' }
    } else {
      let end = at
      while (end < to && body[end] !== separator) {
        if (body[end] === QUOTE) return { cells, fault: 'has a quote inside a cell that does not begin with one' }
        end += 1
      }
      cells.push(body.subarray(at, end))
      at = end
    }
    if (at >= to) return { cells, fault: null }
    at += 1
  }
}

/** The cell that begins with this quote, quotes inside it made single; null when it is not closed. */
function quotedCell(body: Uint8Array, from: number, to: number): { bytes: Uint8Array; end: number } | null {
  const bytes: number[] = []
  let doubled = false
  let at = from + 1
  for (; at < to; at += 1) {
    if (body[at] !== QUOTE) continue
    if (at + 1 < to && body[at + 1] === QUOTE) {
      doubled = true
      at += 1
    } else break
  }
  if (at >= to) return null
  if (!doubled) return { bytes: body.subarray(from + 1, at), end: at + 1 }
  for (let i = from + 1; i < at; i += 1) {
    bytes.push(body[i]!)
    if (body[i] === QUOTE) i += 1
  }
  return { bytes: Uint8Array.from(bytes), end: at + 1 }
}
