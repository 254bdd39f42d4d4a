/**
 * Errors of a whole call, in one table: code, HTTP status, what to do. Doors print code and message below 500 and only the
 * code at 500. What is wrong with one event of a batch is not an error but a verdict (ingest/verdict.ts).
 */
export const ErrorCode = {
  unauthorized: {
    status: 401,
    title: 'No valid API key',
    hint: 'Send «Authorization: Bearer rlv_…»; releve keys create makes one.',
  },
  forbidden: {
    status: 403,
    title: 'The key does not have this right',
    hint: 'Use a key with the scope or tenant named in the detail.',
  },
  not_found: { status: 404, title: 'Not found', hint: 'Check the identifier; /docs lists the routes.' },
  conflict: {
    status: 409,
    title: 'The state does not allow this',
    hint: 'Read the object again and decide on its present state.',
  },
  body_too_large: {
    status: 413,
    title: 'The body is too large',
    hint: 'Send smaller batches; limits.ts states the maxima.',
  },
  unsupported_format: {
    status: 415,
    title: 'Unknown content type or encoding',
    hint: 'The detail lists the accepted ones.',
  },
  malformed_body: { status: 400, title: 'The body cannot be read', hint: 'The detail says where reading stopped.' },
  invalid_request: {
    status: 400,
    title: 'A parameter is wrong',
    hint: 'The detail names the parameter and the reason.',
  },
  unprocessable: {
    status: 422,
    title: 'Well formed but not possible',
    hint: 'The detail names the rule that refuses it.',
  },
  too_many_requests: { status: 429, title: 'Too much load from this key', hint: 'Wait as Retry-After says.' },
  overloaded: {
    status: 503,
    title: 'Too much load',
    hint: 'Wait as Retry-After says and send the same batch again: duplicates cost nothing.',
  },
  unavailable: {
    status: 503,
    title: 'A part that this needs is away',
    hint: 'Wait as Retry-After says; /health/ready tells which part.',
  },
  internal: { status: 500, title: 'Internal error', hint: 'The server log has the cause under the same request id.' },
} as const

export type ErrorCode = keyof typeof ErrorCode

/** An expected failure of a whole call. `detail` is for people and names the field, the limit or the state. */
export class ReleveError extends Error {
  readonly code: ErrorCode
  readonly retryAfterS: number | undefined

  constructor(code: ErrorCode, detail: string, options: { cause?: unknown; retryAfterS?: number } = {}) {
    super(detail, options.cause === undefined ? {} : { cause: options.cause })
    this.name = 'ReleveError'
    this.code = code
    this.retryAfterS = options.retryAfterS
  }

  get status(): number {
    return ErrorCode[this.code].status
  }

  /** As every door answers it: the members of RFC 9457. Of an internal error only the code goes out. */
  get problem() {
    const { status, title, hint } = ErrorCode[this.code]
    const detail = status === 500 ? undefined : this.message
    return { type: 'about:blank', title, status, code: this.code, detail, hint }
  }
}
