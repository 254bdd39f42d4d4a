import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { RefusalCode } from '../../src/ingest/verdict.js'
import { rootDirectory } from '../../src/paths.js'
import { promises } from '../promises.js'
import { ask, RECEIVED_AT, refusal, stored } from './door.js'

interface Case {
  readonly id: string
  readonly event: Record<string, unknown>
}

function cases(file: string): Case[] {
  const path = join(rootDirectory, 'test/ingest/conformance', file)
  return (JSON.parse(readFileSync(path, 'utf8')) as { tests: Case[] }).tests
}

const over = { format: 'cloudevents' as const, floorTime: 0 }

function check(members: string, code: RefusalCode, field: string): void {
  const body = `{"specversion":"1.0","id":"1","source":"/gw","type":"kyc"${members}}`
  const found = refusal(body, over)
  expect({ code: found.code, field: found.field }, JSON.stringify(found)).toEqual({ code, field })
}

function storedWith(members: string) {
  return stored(`{"specversion":"1.0","id":"1","source":"/gw","type":"kyc"${members}}`, over)
}

test('every valid event of the conformance cases => stored as it is; text data alone is refused, by its name', () => {
  const all = cases('valid-events.json')
  expect(all.length).toBe(10)
  for (const { id, event } of all) {
    if (id === 'validSimpleTextData') {
      expect(refusal(JSON.stringify(event), over)).toMatchObject({ code: 'malformed', field: 'data' })
      continue
    }
    const time = typeof event.time === 'string' ? Date.parse(event.time) : RECEIVED_AT
    expect(stored(JSON.stringify(event), over), id).toMatchObject({
      id: event.id,
      source: event.source,
      metric: event.type,
      subject: event.subject ?? '',
      eventTime: time,
    })
  }
})

/** The member that each invalid case is wrong in. */
const WRONG: Record<string, string> = {
  invalidNoSpecVersion: 'specversion',
  invalidNoId: 'id',
  invalidNoType: 'type',
  invalidNoSource: 'source',
  invalidTimeGarbage: 'time',
  invalidTimeToMinute: 'time',
  invalidTimeOffsetX: 'time',
  invalidTimeOffsetOutOfRange: 'time',
  invalidTimeOffsetNonInteger: 'time',
  invalidTimeOffsetHourOnly: 'time',
  invalidEmptyId: 'id',
  invalidEmptyType: 'type',
  invalidEmptySource: 'source',
  invalidEmptySpecVersion: 'specversion',
  invalidUnknownSpecVersion: 'specversion',
  invalidNonRfc2046DataContentType: 'datacontenttype',
  invalidEmptyDataContentType: 'datacontenttype',
  invalidEmptyDataSchema: 'dataschema',
  invalidEmptySubject: 'subject',
  invalidNumericId: 'id',
  invalidObjectId: 'id',
  invalidCapitalizedExtension: 'MyExtension',
  invalidPunctuatedExtension: 'my.extension',
  invalidNonIntegerExtensionValue: 'my.extension',
  invalidBothDataAndDataBase64: 'data',
}

test('every invalid event of the conformance cases => refused by the member that is wrong, its neighbours stored', () => {
  const all = cases('invalid-events.json')
  expect(all.map(({ id }) => id).sort()).toEqual(Object.keys(WRONG).sort())
  const good = { specversion: '1.0', id: 'good', source: '/gw', type: 'kyc' }
  const asked = ask(JSON.stringify(all.flatMap(({ event }) => [good, event])), { ...over, format: 'cloudevents-batch' })
  expect(asked).toMatchObject({ received: 2 * all.length, stored: all.length, refused: all.length })
  for (const [i, { id }] of all.entries()) {
    expect({ id, index: asked.refusals[i]!.index, field: asked.refusals[i]!.field }).toEqual({
      id,
      index: 2 * i + 1,
      field: WRONG[id],
    })
  }
})

test('the members of data that the metric names are its dimensions, the others are no concern of ours', () => {
  const event = storedWith(
    ',"data":{"value":"12.5","region":"ci","nested":{"a":[1,null]},"plan":3,"note":"a\\nb","x":null}',
  )
  expect(event).toMatchObject({ value: 12_500n, dims: '{"plan":"3","region":"ci"}' })
  expect(storedWith('').value).toBe(1_000n)
  expect(storedWith(',"data":{}')).toMatchObject({ value: 1_000n, dims: '{}' })
  expect(storedWith(',"data":null')).toMatchObject({ value: 1_000n, dims: '{}' })
  check(',"data":{"region":null}', 'malformed', 'data.region')
  check(',"data":{"region":["ci"]}', 'malformed', 'data.region')
  check(',"data":{"value":null}', 'value_not_a_number', 'data.value')
  check(',"data":{"value":"1.2345"}', 'value_too_precise', 'data.value')
})

test('what a unique metric counts is a member of data', () => {
  const body = (data: string): string => `{"specversion":"1.0","id":"1","source":"/gw","type":"users","data":${data}}`
  expect(stored(body('{"user":"u1","region":"ci","other":1}'), over)).toMatchObject({
    member: 'u1',
    dims: '{"region":"ci"}',
  })
  expect(refusal(body('{"region":"ci"}'), over)).toMatchObject({ code: 'missing_member', field: 'data.user' })
})

test('more members of data than a metric may have dimensions => stored, since they are no dimensions', () => {
  const data = Array.from({ length: 200 }, (_, i) => `"m${i}":${i}`).join(',')
  expect(storedWith(`,"data":{${data},"region":"ci"}`).dims).toBe('{"region":"ci"}')
})

test('kind and tenant are extension attributes', () => {
  expect(storedWith(`,"kind":"void","time":"${new Date(RECEIVED_AT).toISOString()}"`).kind).toBe('void')
  check(',"kind":"void"', 'missing_field', 'time')
  expect(storedWith(',"tenant":"acme"').tenant).toBe('acme')
  check(',"kind":"other"', 'malformed', 'kind')
  check(',"tenant":7', 'malformed', 'tenant')
  const body = '{"specversion":"1.0","id":"1","source":"/gw","type":"kyc","tenant":"banque"}'
  expect(stored(body, { ...over, tenant: null }).tenant).toBe('banque')
})

test(`a CloudEvent of another tenant than the key's => forbidden ${promises('tenant:isolated')}`, () => {
  check(',"tenant":"banque"', 'forbidden_tenant', 'tenant')
  check(',"tenant":"nobody"', 'forbidden_tenant', 'tenant')
})

test('content types: JSON by any of its names; anything else is refused when there is data', () => {
  for (const type of [
    'application/json',
    'text/json',
    'Application/JSON; charset=utf-8',
    'application/vnd.acme+json',
  ]) {
    expect(storedWith(`,"datacontenttype":"${type}","data":{"value":2}`).value).toBe(2_000n)
  }
  check(',"datacontenttype":"application/xml","data":{"value":2}', 'malformed', 'datacontenttype')
  check(',"datacontenttype":"application/jsonx","data":{"value":2}', 'malformed', 'datacontenttype')
  expect(storedWith(',"datacontenttype":"application/xml"').value).toBe(1_000n)
  check(',"data_base64":"e30="', 'malformed', 'data_base64')
  expect(storedWith(',"data_base64":null').value).toBe(1_000n)
})

test('the same name twice, in the event, in data, in what nobody reads => malformed', () => {
  check(',"id":"1"', 'malformed', 'id')
  check(',"ext":"1","ext":"1"', 'malformed', 'ext')
  check(',"data":{"value":1,"value":1}', 'malformed', 'data.value')
  check(',"data":{"a":{"b":1,"b":1}}', 'malformed', 'data.a')
})

test('a time that is a number => refused: the format has text only', () => {
  check(',"time":1773133200000', 'invalid_time', 'time')
})
