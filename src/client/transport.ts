/**
 * Transport: one body to the service, once, and what became of it. Whether and when it is tried again is delivery.ts's business.
 */
export interface ClientRefusal {
  /** Place of the event in its batch. */
  readonly index: number
  readonly id: string
  /** As in the table of refusals: unknown_metric, too_old, … */
  readonly code: string
  readonly field: string
  readonly message: string
}

/** received = stored + refused; the refusals are the first ones. */
export interface ServiceAnswer {
  readonly received: number
  readonly stored: number
  readonly refused: number
  readonly refusals: readonly ClientRefusal[]
}

export type Outcome =
  /** Durable. Null: a stream has it, and its verdicts come later, in the service's rejects. */
  | { readonly kind: 'taken'; readonly answer: ServiceAnswer | null }
  /** Nobody knows, or not now: the same body again. */
  | { readonly kind: 'again'; readonly why: string; readonly afterMs?: number }
  /** This body will never be taken. */
  | { readonly kind: 'refused'; readonly why: string }

export interface Transport {
  /** Never rejects. */
  send(body: Uint8Array): Promise<Outcome>
  close(): Promise<void>
}

/** What a status and a body of the service mean, over HTTP and over NATS alike. */
export function outcomeOf(status: number, body: string, afterMs?: number): Outcome {
  const why = `status ${status}: ${body.slice(0, 300)}`
  if (status === 202 || status === 422) {
    const answer = parseAnswer(body)
    if (answer !== null) return { kind: 'taken', answer }
  }
  // A body that cannot be read, is too large or of an unknown type stays so. A key can be mended, a proxy comes back.
  if ([400, 413, 415, 422].includes(status)) return { kind: 'refused', why }
  return { kind: 'again', why, ...(afterMs === undefined ? {} : { afterMs }) }
}

function parseAnswer(body: string): ServiceAnswer | null {
  try {
    const answer = JSON.parse(body) as Partial<ServiceAnswer> | null
    return typeof answer?.stored === 'number' && Array.isArray(answer.refusals) ? (answer as ServiceAnswer) : null
  } catch {
    return null
  }
}
