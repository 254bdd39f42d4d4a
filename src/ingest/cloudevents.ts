/**
 * CloudEvents 1.0, JSON format, structured: an event, or a batch of them.
 *
 * `type` is the metric; id, source, subject and time are as they are; the tenant is the extension attribute `tenant`, `kind` the
 * extension `kind`; `data.value` is the value (default 1) and never a dimension; the members of `data` that the metric names
 * are its dimensions and the others are no concern of ours. An attribute that is null is absent, as the format says.
 * Required: id, source, type, specversion "1.0". Other extensions are checked for their form (a name of small letters and
 * digits; a string, a boolean or a whole number) and ignored. `data` must be a JSON object: data_base64 and other content
 * types are refused and not guessed at. The same name twice, anywhere in the event, is a fault.
 */
import { type Draft, type FieldNames, readDim, readText, readValue } from './draft.js'
import { BRACE, BRACKET, isNumberStart, type JsonReader, kindName, QUOTE } from './json.js'

const NAMES: FieldNames = { metric: 'type', value: 'data.value', dims: 'data.' }
const EXTENSION_NAME = /^[a-z0-9]+$/
const WHOLE = /^-?[0-9]+$/
/** RFC 2046: type/subtype and parameters; the names are tokens. */
const MEDIA_TYPE = /^([!#$%&'*+.^_`|~0-9A-Za-z-]+\/[!#$%&'*+.^_`|~0-9A-Za-z-]+)\s*(?:;.*)?$/
const JSON_TYPE = /^(?:application|text)\/json$|\+json$/i
const NULL = 0x6e

/** Reads one element of the body, whatever it is. Throws on broken syntax only. */
export function readCloudEvent(reader: JsonReader, draft: Draft): void {
  draft.clear(NAMES, false)
  const first = reader.peek()
  if (first !== BRACE) {
    draft.fail('malformed', '', `an event is an object, this is ${kindName(first)}`)
    reader.skip()
    reader.fault = null
    return
  }
  let seen = 0
  let version: string | null = null
  let contentType: string | null = null
  let hasData = false
  reader.enterObject()
  for (let name = reader.nextName(); name !== null; name = reader.nextName()) {
    if (reader.fault !== null) draft.failText(reader, name)
    let bit = 0
    switch (name) {
      case 'id':
        bit = 1
        draft.id = readAttribute(reader, draft, name, false)
        break
      case 'source':
        bit = 2
        draft.source = readAttribute(reader, draft, name, true)
        break
      case 'specversion':
        bit = 4
        version = readAttribute(reader, draft, name, true)
        break
      case 'type':
        bit = 8
        draft.metric = readAttribute(reader, draft, name, true)
        break
      case 'subject':
        bit = 16
        draft.subject = readAttribute(reader, draft, name, true)
        break
      case 'time':
        bit = 32
        readTime(reader, draft)
        break
      case 'data':
        bit = 64
        hasData = readData(reader, draft)
        break
      case 'data_base64':
        bit = 128
        if (reader.peek() !== NULL) draft.fail('malformed', name, 'is not read: send a JSON object in data')
        reader.skip()
        break
      case 'datacontenttype':
        bit = 256
        contentType = readAttribute(reader, draft, name, true)
        break
      case 'dataschema':
        bit = 512
        readAttribute(reader, draft, name, true)
        break
      case 'tenant':
        bit = 1024
        draft.tenant = readAttribute(reader, draft, name, true)
        break
      case 'kind':
        bit = 2048
        draft.kind = readAttribute(reader, draft, name, true)
        break
      default:
        if (!draft.extraNames.add(name)) draft.fail('malformed', name, 'appears twice')
        readExtension(reader, draft, name)
    }
    if (reader.fault !== null) draft.failText(reader, name)
    if ((seen & bit) !== 0) draft.fail('malformed', name, 'appears twice')
    seen |= bit
  }
  if (draft.code !== null) return
  if (version === null) draft.fail('missing_field', 'specversion', 'a CloudEvent has one, "1.0"')
  else if (version !== '1.0') draft.fail('malformed', 'specversion', 'only "1.0" is known')
  if (draft.source === null) draft.fail('missing_field', 'source', 'a CloudEvent has one')
  if (contentType !== null) {
    const type = MEDIA_TYPE.exec(contentType)?.[1]
    if (type === undefined) draft.fail('malformed', 'datacontenttype', 'is no media type')
    else if (hasData && !JSON_TYPE.test(type)) draft.fail('malformed', 'datacontenttype', 'data must be JSON')
  }
}

/** A string that is not empty, or null for one that is absent. */
function readAttribute(reader: JsonReader, draft: Draft, field: string, shared: boolean): string | null {
  if (reader.peek() === NULL) {
    reader.literal()
    return null
  }
  const text = readText(reader, draft, field, shared)
  if (text === '') draft.fail('malformed', field, 'is empty')
  return text
}

function readTime(reader: JsonReader, draft: Draft): void {
  const first = reader.peek()
  if (first === QUOTE) draft.time = reader.text()
  else {
    if (first !== NULL) draft.fail('invalid_time', 'time', `must be RFC 3339 text, is ${kindName(first)}`)
    reader.skip()
  }
}

/** Whether there is data, of whatever kind. */
function readData(reader: JsonReader, draft: Draft): boolean {
  const first = reader.peek()
  if (first === NULL) {
    reader.literal()
    return false
  }
  if (first !== BRACE) {
    draft.fail('malformed', 'data', `must be an object, is ${kindName(first)}`)
    reader.skip()
    return true
  }
  reader.enterObject()
  for (let name = reader.nextName(); name !== null; name = reader.nextName()) {
    if (!draft.dimNames.add(name)) draft.fail('malformed', `data.${name}`, 'appears twice')
    if (name === 'value') readValue(reader, draft, NAMES.value)
    else readDim(reader, draft, name)
    if (reader.fault !== null) draft.failText(reader, `data.${name}`)
  }
  return true
}

function readExtension(reader: JsonReader, draft: Draft, name: string): void {
  if (!EXTENSION_NAME.test(name)) {
    draft.fail('malformed', name, 'an attribute has a name of small letters and digits')
  }
  const first = reader.peek()
  if (isNumberStart(first)) {
    if (!WHOLE.test(reader.number())) draft.fail('malformed', name, 'an attribute that is a number must be whole')
    return
  }
  if (first === BRACE || first === BRACKET) {
    draft.fail('malformed', name, `an attribute is a string, a boolean or a whole number, this is ${kindName(first)}`)
  }
  reader.skip()
}
