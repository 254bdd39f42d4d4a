/**
 * A file of usage data as text: which encoding, separator and decimal mark it has, which column is which field, and a row as the
 * fields that datum.ts reads. Pure. What a row says is judged by the rules of every other door; here only its writing is undone.
 *
 * Columns are named as the fields of the API, in camel or snake case, or in French; `data.NAME` columns make up the JSON. Case and
 * accents do not matter. The separator is «;», «,» or a tab, as the first line has it. With «;» a decimal comma is understood.
 */
import { ReleveError } from '../errors.js'
import { limits } from '../limits.js'
import { DatumFields, parseUsageData } from './datum.js'

export const Encodings = ['utf-8', 'utf-16le', 'utf-16be', 'windows-1252'] as const
export type Encoding = (typeof Encodings)[number]
export const Separators = [';', ',', '\t'] as const
export type Separator = (typeof Separators)[number]

export interface Writing {
  readonly encoding: Encoding
  readonly separator: Separator
  /** Whether 12,5 is twelve and a half. */
  readonly decimalComma: boolean
}

type Field = (typeof DatumFields)[number]

const FRENCH: Readonly<Record<string, Field>> = {
  contrat: 'contract',
  article: 'item',
  contractitem: 'item',
  referenceexterne: 'externalReference',
  reference: 'externalReference',
  debut: 'start',
  fin: 'end',
  valeur: 'value',
  json: 'data',
  jsondata: 'data',
  donnees: 'data',
  unite: 'qualifier',
  libelle: 'description',
  axe1: 'axis1',
  axe2: 'axis2',
  nepasfacturer: 'doNotInvoice',
  notesdefacturation: 'invoicingNotes',
  notesfacturation: 'invoicingNotes',
  etat: 'state',
  statut: 'state',
}

const plain = (name: string): string =>
  name
    .normalize('NFD')
    .replaceAll(/[\p{M}\s_.'’-]/gu, '')
    .toLowerCase()
const FIELDS = new Map<string, Field>([
  ...DatumFields.map((field) => [plain(field), field] as const),
  ...Object.entries(FRENCH),
])

export interface Column {
  readonly field: Field
  /** Of a `data.NAME` column. */
  readonly member: string | null
}

/** By its mark or by what it is valid in; a file of an old spreadsheet is windows-1252. `utf8` says whether all of it is UTF-8. */
export function encodingOf(start: Uint8Array, utf8: boolean): Encoding {
  if (start[0] === 0xff && start[1] === 0xfe) return 'utf-16le'
  if (start[0] === 0xfe && start[1] === 0xff) return 'utf-16be'
  return utf8 ? 'utf-8' : 'windows-1252'
}

/** The one that the first line has most of, outside of quotes. */
export function separatorOf(text: string): Separator {
  const line = (/^[^\r\n]*/.exec(text)?.[0] ?? '').replaceAll(/"[^"]*"/g, '')
  const count = (one: string): number => line.split(one).length
  return Separators.reduce<Separator>((best, one) => (count(one) > count(best) ? one : best), ';')
}

/** Throws ReleveError `unprocessable` for a column that is unknown or there twice: every row would mean something else. */
export function columnsOf(names: readonly string[]): Column[] {
  const wrong = (why: string): never => {
    throw new ReleveError('unprocessable', `line 1: ${why}`)
  }
  if (names.length > limits.importColumnsMax) wrong(`${names.length} columns; at most ${limits.importColumnsMax}`)
  const columns = names.map((name): Column => {
    const member = /^data\.(.+)$/s.exec(name.trim())?.[1]
    if (member !== undefined) return { field: 'data', member }
    const field = FIELDS.get(plain(name))
    if (field === undefined)
      return wrong(`no usage datum has ${JSON.stringify(name.slice(0, 64))}: ${DatumFields.join(', ')}, data.NAME`)
    return { field, member: null }
  })
  const whole = columns.some((column) => column.field === 'data' && column.member === null)
  const seen = new Set<string>()
  for (const { field, member } of columns) {
    const key = member === null || whole ? field : `${field}.${member}`
    if (seen.has(key)) wrong(`${key} is there twice`)
    seen.add(key)
  }
  for (const needed of ['contract', 'start'])
    if (!columns.some((column) => column.field === needed)) wrong(`the column ${needed} is missing`)
  return columns
}

const YES = new Set(['true', '1', 'yes', 'oui', 'x', 'vrai'])
const NO = new Set(['false', '0', 'no', 'non', 'faux'])
const STATES: Readonly<Record<string, string>> = { brouillon: 'draft', 'en attente': 'pending', exclu: 'excluded' }

/** The fields of a row. An empty cell is a field that is absent. Throws ReleveError naming the field. */
export function fieldsOf(
  columns: readonly Column[],
  cells: readonly string[],
  { decimalComma }: Writing,
  state: 'draft' | 'pending',
): Record<string, unknown> {
  if (cells.length !== columns.length)
    throw new ReleveError('invalid_request', `has ${cells.length} cells, the first line has ${columns.length}`)
  const fields: Record<string, unknown> = { state }
  for (const [i, { field, member }] of columns.entries()) {
    const cell = cells[i]!.trim()
    if (cell === '') continue
    if (member !== null) {
      fields.data ??= {}
      Object.defineProperty(fields.data, member, {
        value: decimal(cell, decimalComma),
        enumerable: true,
        configurable: true,
      })
    } else if (field === 'value') fields.value = decimal(cell, decimalComma)
    else if (field === 'data') fields.data = parseUsageData(cell)
    else if (field === 'doNotInvoice') {
      const word = cell.toLowerCase()
      fields.doNotInvoice = YES.has(word) ? true : NO.has(word) ? false : cell
    } else if (field === 'state') fields.state = STATES[cell.toLowerCase()] ?? cell.toLowerCase()
    else fields[field] = cell
  }
  return fields
}

/** 1 234,50 with a decimal comma; else the text as it is, to be judged. A point stays a point: 1.234,50 is refused as what it is. */
function decimal(cell: string, comma: boolean): string {
  const text = cell.replace(/^\+/, '')
  if (!comma) return text
  const joined = /^-?\d{1,3}(?:[ \u00a0\u202f]\d{3})+(?:[.,]\d+)?$/.test(text)
    ? text.replaceAll(/[ \u00a0\u202f]/g, '')
    : text
  return /^-?\d+,\d+$/.test(joined) ? joined.replace(',', '.') : joined
}
