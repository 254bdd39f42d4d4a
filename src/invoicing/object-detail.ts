/** The detail of a fleet's invoice as a table: one row per object for its fee and one per metric; the amounts are exact and sum to
 * the grouped lines before these are rounded. */
import { dateIn } from '../format.js'
import type { ObjectCharge } from './fleet.js'
import type { Invoice } from './invoice.js'
import type { StreamedTable } from './sheet.js'

const COLUMNS = [
  'invoice',
  'period',
  'item',
  'object',
  'subject',
  'first_day',
  'last_day',
  'metric',
  'quantity',
  'included',
  'billable',
  'events',
  'amount',
  'currency',
]

export function chargesTable(
  invoice: Invoice,
  charges: AsyncIterable<ObjectCharge & { readonly parent: string; readonly periodFrom: number }>,
): StreamedTable {
  const day = (at: number): string => dateIn(at, invoice.period.timeZone)
  async function* rows(): AsyncGenerator<readonly string[]> {
    for await (const one of charges) {
      const base = [
        invoice.number ?? invoice.id,
        day(one.periodFrom),
        one.parent,
        one.item,
        one.subject,
        day(one.covers.from),
        day(one.covers.to - 1),
      ]
      yield [...base, '', '1', '0', '1', '', one.fee, invoice.currency]
      for (const { metric, quantity, included, billable, events, amount } of one.usage) {
        if (events > 0 || quantity !== '0')
          yield [...base, metric, quantity, included, billable, String(events), amount, invoice.currency]
      }
    }
  }
  return {
    columns: COLUMNS,
    numeric: new Set(['quantity', 'included', 'billable', 'events', 'amount']),
    rows: rows(),
  }
}
