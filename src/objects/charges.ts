/** What a closing charged each object: kept with the closing, read as the detail of an invoice. */
import type { ClientBase, Pool } from 'pg'
import type { ObjectCharge } from '../invoicing/fleet.js'
import { limits } from '../limits.js'
import type { Period } from '../period.js'

/** In the closing's transaction. Of a period that is counted again, only the objects that come to something else than before. */
export async function keepCharges(
  client: Pick<ClientBase, 'query'>,
  closing: string,
  charges: readonly ObjectCharge[],
  parent: string,
  period: Period,
): Promise<void> {
  if (charges.length === 0) return
  await client.query(
    `INSERT INTO object_charges (closing, period_from, parent, item, subject, covers_from, covers_to, fee, usage, amount)
     SELECT $2, $3, $4, item, subject, (covers ->> 'from')::bigint, (covers ->> 'to')::bigint, fee, usage, amount
     FROM jsonb_to_recordset($1::jsonb) AS v (item text, subject text, covers jsonb, fee numeric, usage jsonb, amount numeric)
     WHERE NOT EXISTS (
       SELECT 1 FROM (
         SELECT h.* FROM object_charges h JOIN closings c ON c.id = h.closing
         WHERE h.item = v.item AND h.period_from = $3 AND h.parent = $4 AND h.closing <> $2 ORDER BY c.place DESC NULLS LAST LIMIT 1
       ) AS last
       WHERE (last.subject, last.covers_from, last.covers_to, last.fee, last.usage, last.amount) IS NOT DISTINCT FROM
         (v.subject, (v.covers ->> 'from')::bigint, (v.covers ->> 'to')::bigint, v.fee, v.usage, v.amount))`,
    [JSON.stringify(charges), closing, period.from, parent],
  )
}

export interface KeptCharge extends ObjectCharge {
  readonly parent: string
  readonly periodFrom: number
}

/** In the order of periods and subjects, a page in memory. */
export async function* chargesOf(postgres: Pool, closing: string): AsyncGenerator<KeptCharge> {
  let after: [string, string] = ['-1', '']
  for (;;) {
    const { rows } = await postgres.query(
      `SELECT period_from, parent, item, subject, covers_from, covers_to, fee::text AS fee, usage, amount::text AS amount
       FROM object_charges WHERE closing = $1 AND (period_from, item) > ($2::bigint, $3) ORDER BY period_from, item LIMIT $4`,
      [closing, after[0], after[1], limits.objectsPageMax],
    )
    for (const row of rows) {
      yield {
        periodFrom: Number(row.period_from),
        parent: row.parent,
        item: row.item,
        subject: row.subject,
        covers: { from: Number(row.covers_from), to: Number(row.covers_to) },
        fee: row.fee,
        usage: row.usage,
        amount: row.amount,
      }
    }
    if (rows.length < limits.objectsPageMax) return
    after = [String(rows.at(-1).period_from), rows.at(-1).item]
  }
}
