/**
 * Draft: one event as it was read, before anybody judged what it means. A format's reader fills it, `vouch` judges it.
 * One draft is kept and used for event after event; nothing that leaves the room refers to it.
 *
 * States: `clear` makes it empty and sound. The first `fail` makes it refused, and every later one is ignored: of several
 * faults the first in the text is told, and what is readable behind it is still read, for the refusal to name.
 */
import { isNumberStart, type JsonReader, kindName, NameSet, QUOTE } from './json.js'
import type { RefusalCode } from './verdict.js'

/** How a format spells the fields whose faults are found only by their meaning. */
export interface FieldNames {
  readonly metric: string
  readonly value: string
  /** Before a dimension's name. */
  readonly dims: string
}

/** A member of `dims` or `data`. Its text is null when it is not text, a number or a boolean; `trouble` then says what it is. */
export interface DraftDim {
  name: string
  text: string | null
  trouble: string
}

export class Draft {
  code: RefusalCode | null = null
  field = ''
  message = ''

  names: FieldNames = { metric: '', value: '', dims: '' }
  /** Whether a member that the metric does not name is a fault (native) or no concern of ours (CloudEvents data). */
  strictDims = true
  tenant: string | null = null
  source: string | null = null
  id: string | null = null
  metric: string | null = null
  subject: string | null = null
  kind: string | null = null
  time: string | null = null
  timeIsNumber = false
  value: string | null = null
  dims: DraftDim[] = []
  dimCount = 0

  readonly dimNames = new NameSet()
  readonly extraNames = new NameSet()

  clear(names: FieldNames, strictDims: boolean): void {
    this.code = null
    this.field = ''
    this.message = ''
    this.names = names
    this.strictDims = strictDims
    this.tenant = null
    this.source = null
    this.id = null
    this.metric = null
    this.subject = null
    this.kind = null
    this.time = null
    this.timeIsNumber = false
    this.value = null
    this.dimCount = 0
    // A single event with very many members must not be remembered for ever.
    if (this.dims.length > 64) this.dims = []
    this.dimNames.clear()
    this.extraNames.clear()
  }

  fail(code: RefusalCode, field: string, message: string): void {
    if (this.code !== null) return
    this.code = code
    this.field = field
    this.message = message
  }

  /** Takes over a fault of the text, which belongs to the field just read. */
  failText(reader: JsonReader, field: string): void {
    if (reader.fault === null) return
    this.fail('malformed', field, reader.fault)
    reader.fault = null
  }

  addDim(name: string, text: string | null, trouble: string): void {
    const dim = this.dims[this.dimCount]
    if (dim === undefined) this.dims.push({ name, text, trouble })
    else {
      dim.name = name
      dim.text = text
      dim.trouble = trouble
    }
    this.dimCount += 1
  }
}

/** A member that must be a string without control characters; null, with a fault, when it is not. `shared`: it repeats. */
export function readText(reader: JsonReader, draft: Draft, field: string, shared: boolean): string | null {
  const first = reader.peek()
  if (first !== QUOTE) {
    draft.fail('malformed', field, `must be a string, is ${kindName(first)}`)
    reader.skip()
    return null
  }
  const text = shared ? reader.sharedText() : reader.text()
  if (reader.control) draft.fail('malformed', field, 'has a control character')
  return text
}

/** The value: decimal text, quoted or not. */
export function readValue(reader: JsonReader, draft: Draft, field: string): void {
  const first = reader.peek()
  if (isNumberStart(first)) draft.value = reader.number()
  else if (first === QUOTE) draft.value = reader.sharedText()
  else {
    draft.fail('value_not_a_number', field, `must be a decimal string or a number, is ${kindName(first)}`)
    reader.skip()
  }
}

/** A member that may be a dimension. What is wrong with it counts only if the metric names it. */
export function readDim(reader: JsonReader, draft: Draft, name: string): void {
  const first = reader.peek()
  if (first === QUOTE) {
    const text = reader.sharedText()
    if (reader.control) draft.addDim(name, null, 'has a control character')
    else draft.addDim(name, text, '')
  } else if (isNumberStart(first)) draft.addDim(name, reader.number(), '')
  else if (first === 0x74 || first === 0x66) draft.addDim(name, reader.literal(), '')
  else {
    draft.addDim(name, null, `must be a string, is ${kindName(first)}`)
    reader.skip()
  }
}
