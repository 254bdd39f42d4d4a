/**
 * The native JSON event: {"id", "tenant", "source", "metric", "subject", "time", "value", "dims", "kind"}.
 *
 * `id` and `metric` are required, `tenant` with a key of the whole platform; a missing `time` is the time of arrival, a missing
 * `value` is 1, the rest is empty. A member that no event has is refused by its name, because a misspelt `vlaue` would
 * otherwise count as 1. null is not «absent»: it is a wrong type. `time` is RFC 3339 text or whole epoch milliseconds; `value`
 * is a decimal, quoted or not; `dims` holds strings, and numbers and booleans as they are written.
 */
import { type Draft, type FieldNames, readDim, readText, readValue } from './draft.js'
import { BRACE, isNumberStart, type JsonReader, kindName, QUOTE } from './json.js'

const NAMES: FieldNames = { metric: 'metric', value: 'value', dims: 'dims.' }

/** Reads one element of the body, whatever it is. Throws on broken syntax only. */
export function readNative(reader: JsonReader, draft: Draft): void {
  draft.clear(NAMES, true)
  const first = reader.peek()
  if (first !== BRACE) {
    draft.fail('malformed', '', `an event is an object, this is ${kindName(first)}`)
    reader.skip()
    reader.fault = null
    return
  }
  // One bit for each known member: the second of two equal names is noticed without a set.
  let seen = 0
  reader.enterObject()
  for (let name = reader.nextName(); name !== null; name = reader.nextName()) {
    if (reader.fault !== null) draft.failText(reader, name)
    let bit = 0
    switch (name) {
      case 'id':
        bit = 1
        draft.id = readText(reader, draft, name, false)
        break
      case 'tenant':
        bit = 2
        draft.tenant = readText(reader, draft, name, true)
        break
      case 'source':
        bit = 4
        draft.source = readText(reader, draft, name, true)
        break
      case 'metric':
        bit = 8
        draft.metric = readText(reader, draft, name, true)
        break
      case 'subject':
        bit = 16
        draft.subject = readText(reader, draft, name, true)
        break
      case 'time':
        bit = 32
        readTime(reader, draft)
        break
      case 'value':
        bit = 64
        readValue(reader, draft, name)
        break
      case 'dims':
        bit = 128
        readDims(reader, draft)
        break
      case 'kind':
        bit = 256
        draft.kind = readText(reader, draft, name, true)
        break
      default:
        draft.fail('unknown_field', name, 'no event has this member')
        reader.skip()
    }
    if (reader.fault !== null) draft.failText(reader, name)
    if ((seen & bit) !== 0) draft.fail('malformed', name, 'appears twice')
    seen |= bit
  }
}

function readTime(reader: JsonReader, draft: Draft): void {
  const first = reader.peek()
  draft.timeIsNumber = first !== QUOTE
  if (first === QUOTE) draft.time = reader.text()
  else if (isNumberStart(first)) draft.time = reader.number()
  else {
    draft.fail('invalid_time', 'time', `must be RFC 3339 text or epoch milliseconds, is ${kindName(first)}`)
    reader.skip()
  }
}

function readDims(reader: JsonReader, draft: Draft): void {
  const first = reader.peek()
  if (first !== BRACE) {
    draft.fail('malformed', 'dims', `must be an object of strings, is ${kindName(first)}`)
    reader.skip()
    return
  }
  reader.enterObject()
  for (let name = reader.nextName(); name !== null; name = reader.nextName()) {
    if (!draft.dimNames.add(name)) draft.fail('malformed', `dims.${name}`, 'appears twice')
    readDim(reader, draft, name)
    if (reader.fault !== null) draft.failText(reader, `dims.${name}`)
  }
}
