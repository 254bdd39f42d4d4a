/**
 * What the document of the API says of every route beyond its own schema: how it answers, and by which errors. Made of the table of
 * errors and of what a route takes, so that no route can forget one. It documents only: answers are not filtered by it.
 */

import type { Scope } from '../access/keys.js'
import { ErrorCode } from '../errors.js'

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

/** The route's schema with all its answers. */
export function withAnswers(route: DocumentedRoute, schema: RouteSchema): RouteSchema {
  const response: Record<string, unknown> = {
    ...((schema.response as object | undefined) ?? {
      '2xx': { description: 'Done', type: 'object', additionalProperties: true },
    }),
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
