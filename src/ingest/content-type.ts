/**
 * Content types of bodies with events, for every door. CloudEvents in headers have none of their own: the HTTP door knows them
 * by the headers.
 */
import { COLUMNAR_TYPE } from '../columnar.js'
import type { BodyFormat } from './ingest.js'

const formats: Readonly<Record<string, BodyFormat>> = {
  'application/json': 'json',
  'application/x-ndjson': 'ndjson',
  'application/msgpack': 'msgpack',
  'application/x-msgpack': 'msgpack',
  [COLUMNAR_TYPE]: 'columnar',
  'text/csv': 'csv',
  'application/cloudevents+json': 'cloudevents',
  'application/cloudevents-batch+json': 'cloudevents-batch',
}

export const contentTypes: readonly string[] = Object.keys(formats)

/** The format of a content type; undefined for an unknown one, and for text in another charset than UTF-8. */
export function formatOf(contentType: string): BodyFormat | undefined {
  // As nearly every sender writes it: no text is made of it.
  if (Object.hasOwn(formats, contentType)) return formats[contentType]
  const [type = '', ...parameters] = contentType.toLowerCase().split(';')
  for (const parameter of parameters) {
    const [name, value = ''] = parameter.split('=')
    const charset = value.trim().replace(/^"(.*)"$/, '$1')
    if (name!.trim() === 'charset' && !['utf-8', 'utf8', 'us-ascii'].includes(charset)) return undefined
  }
  const known = type.trim()
  return Object.hasOwn(formats, known) ? formats[known] : undefined
}
