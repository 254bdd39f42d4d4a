/**
 * The event as a sender has it: the native event of src/ingest/README.md. Nothing is judged here but its types; whether it is
 * stored is the service's verdict.
 */
export interface ClientEvent {
  /** Unique within (tenant, source); the same on every try. */
  readonly id: string
  /** Needed with a key of the whole platform only. */
  readonly tenant?: string | undefined
  readonly source?: string | undefined
  readonly metric: string
  readonly subject?: string | undefined
  /** RFC 3339, epoch milliseconds or a Date. Without one the time of arrival counts, which after an outage is late. */
  readonly time?: string | number | Date | undefined
  /** Decimal text, bigint, or a number, which is taken by its shortest decimal text. 1 when absent. */
  readonly value?: string | number | bigint | undefined
  readonly dims?: Readonly<Record<string, string | number | boolean | undefined>> | undefined
  readonly kind?: 'usage' | 'void' | undefined
}

/** An event of a wrong type, or one that no body can carry. It has not been sent. */
export class EventError extends TypeError {
  override readonly name = 'EventError'
}
