/**
 * What the document of the API says of every route beyond its own schema: how it answers, and by which errors. Made of the types of
 * the handlers, of the table of errors and of what a route takes, so that no route can forget one. It documents only: answers are
 * not filtered by it.
 */

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Scope } from '../access/keys.js'
import { ErrorCode } from '../errors.js'
import { DOCUMENT_TYPES } from '../invoicing/print.js'
import { rootDirectory } from '../paths.js'

/** What the handlers answer by their types, as JSON Schema: build-answers.mjs. A component is named `Name#`. */
interface Answers {
  readonly routes: Readonly<Record<string, { readonly statuses: readonly number[]; readonly schema: object | null }>>
  readonly components: Readonly<Record<string, object>>
}
const answers = JSON.parse(readFileSync(join(rootDirectory, 'src', 'http', 'answers.json'), 'utf8')) as Answers

/** The components, to be known to the server before its routes. */
export const answerSchemas: readonly ({ readonly $id: string } & object)[] = Object.entries(answers.components).map(
  ([$id, schema]) => ({ ...schema, $id }),
)

/** RFC 9457, as the error handler writes it. */
export const problemSchema = {
  $id: 'Problem',
  type: 'object',
  required: ['type', 'title', 'status', 'code', 'hint', 'instance'],
  properties: {
    type: { type: 'string', const: 'about:blank' },
    title: { type: 'string' },
    status: { type: 'integer' },
    code: { type: 'string', enum: Object.keys(ErrorCode), description: 'decide by this' },
    detail: { type: 'string', description: 'names the field, the limit or the state; for people' },
    hint: { type: 'string', description: 'what to do' },
    instance: { type: 'string', description: 'the request, as x-request-id and the log have it' },
  },
} as const

interface RouteSchema {
  readonly body?: unknown
  readonly querystring?: unknown
  readonly response?: unknown
  readonly [member: string]: unknown
}

export interface DocumentedRoute {
  readonly method: string
  readonly url: string
  readonly scope: Scope | 'public' | undefined
}

/** The codes that a route may answer with, beside its own good ones. */
function errorsOf({ method, url, scope }: DocumentedRoute, schema: RouteSchema): ErrorCode[] {
  const takesBody = ['POST', 'PUT', 'PATCH'].includes(method)
  return [
    ...(takesBody || schema.querystring !== undefined ? (['invalid_request'] as const) : []),
    ...(takesBody
      ? (['malformed_body', 'conflict', 'body_too_large', 'unsupported_format', 'unprocessable', 'overloaded'] as const)
      : []),
    ...(scope === 'public' ? [] : (['unauthorized', 'forbidden', 'too_many_requests', 'unavailable'] as const)),
    ...(/[:{]/.test(url) ? (['not_found'] as const) : []),
    ...(method === 'DELETE' ? (['conflict'] as const) : []),
    'internal',
  ]
}

const typeOnly = (type: string): string => type.split(';')[0]!

/** The answers that are files or streams, instead of JSON or beside it. */
const FILES: Readonly<Record<string, readonly string[]>> = {
  'GET /metrics': ['text/plain'],
  'GET /v1/alerts/stream': ['text/event-stream'],
  'GET /v1/invoices/:id': Object.values(DOCUMENT_TYPES).map(typeOnly),
  'GET /v1/invoices/:id/objects': [DOCUMENT_TYPES.csv, DOCUMENT_TYPES.xlsx].map(typeOnly),
  'GET /v1/rejects/export': ['application/x-ndjson', 'text/csv'],
}
const GOOD: Readonly<Record<number, string>> = { 200: 'Done', 201: 'Made', 202: 'Taken', 204: 'Done; no body' }

/** The route's schema with all its answers: the good ones as answers.json has them, the problems by the table of errors. */
export function withAnswers(route: DocumentedRoute, schema: RouteSchema): RouteSchema {
  const response: Record<string, unknown> = {}
  const name = `${route.method} ${route.url}`
  const { statuses, schema: answer } = answers.routes[name] ?? { statuses: [200], schema: null }
  const types = [...(answer === null ? [] : ['application/json']), ...(FILES[name] ?? [])]
  for (const status of statuses) {
    response[status] = {
      description: GOOD[status] ?? 'As the good answer; it says what is wrong',
      ...(types.length === 0
        ? {}
        : {
            content: Object.fromEntries(
              types.map((type) => [type, { schema: type === 'application/json' ? answer : { type: 'string' } }]),
            ),
          }),
    }
  }
  const byStatus = new Map<number, ErrorCode[]>()
  for (const code of errorsOf(route, schema)) {
    const { status } = ErrorCode[code]
    byStatus.set(status, [...(byStatus.get(status) ?? []), code])
  }
  for (const [status, codes] of byStatus) {
    response[status] ??= {
      description: codes.map((code) => `\`${code}\`: ${ErrorCode[code].title}. ${ErrorCode[code].hint}`).join('\n\n'),
      ...(status === 429 || status === 503
        ? { headers: { 'retry-after': { type: 'integer', description: 'seconds' } } }
        : {}),
      content: { 'application/problem+json': { schema: { $ref: 'Problem#' } } },
    }
  }
  return { ...schema, response }
}
