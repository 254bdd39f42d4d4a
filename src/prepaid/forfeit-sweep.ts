/**
 * Packs that are over and that no closing will come for: of a contract or an item that ended before them, or that got something back
 * after their last closing. What they hold is forfeited here, so that of every pack grant − debits − forfeits is what it has, and that
 * is nothing once it is over. All others are left to the closing of the period in which they end: until then usage from before may come.
 *
 * Looked at every hour, each pack in a transaction of its own that locks it, so that neither a second sweep nor a closing beside it
 * counts on the same units. Usage of a settled period that comes later still takes back what was forfeited (funding.ts).
 */
import type { Pool } from 'pg'
import type { Catalog } from '../catalog/catalog.js'
import { isBilled, nextPeriodOf, periodAt } from '../catalog/part.js'
import type { Clock } from '../clock.js'
import { limits } from '../limits.js'
import type { Logger } from '../logger.js'
import { type Sweep, sweepEvery } from '../sweep.js'
import { inTransaction } from '../transaction.js'

export interface ForfeitOptions {
  readonly postgres: Pool
  readonly catalog: Catalog
  readonly clock: Clock
}

export interface Forfeited {
  readonly packs: number
  /** Packs that are over and wait for their closing. */
  readonly waiting: number
}

interface Over {
  id: string
  contract: string
  /** bigint, so text or number by the pool. */
  valid_from: number | string
  expires: number | string
}

/** Of packs that stand and are over, a page behind the one before. */
const OVER = `SELECT p.id, p.contract, p.valid_from, p.expires FROM prepaid_packs p JOIN prepaid_balances b ON b.pack = p.id
  LEFT JOIN closings k ON k.id = p.closing
  WHERE p.expires <= $1 AND b.balance > 0 AND (p.closing IS NULL OR k.attempt = p.attempt) AND p.id > $2
  ORDER BY p.id LIMIT $3`

export async function forfeitEnded(options: ForfeitOptions, page: number = limits.packSweepMax): Promise<Forfeited> {
  const { postgres, clock } = options
  const now = clock.now()
  let [packs, waiting] = [0, 0]
  for (let after = ''; ; ) {
    const { rows } = await postgres.query<Over>(OVER, [now, after, page])
    for (const row of rows) {
      if (await forfeit(options, row, now)) packs += 1
      else waiting += 1
    }
    if (rows.length < page) return { packs, waiting }
    after = rows.at(-1)!.id
  }
}

/** False: a closing will come for it. */
async function forfeit({ postgres, catalog }: ForfeitOptions, pack: Over, now: number): Promise<boolean> {
  const periods = closingsOf(catalog, pack)
  return inTransaction(postgres, async (client) => {
    await client.query('SELECT 1 FROM prepaid_packs WHERE id = $1 FOR UPDATE', [pack.id])
    // A sale of the pack is a closing too, but has nothing to do with its units.
    const done = await client.query(`SELECT 1 FROM closings WHERE id = ANY($1) AND state = 'done'`, [periods])
    if (done.rowCount !== periods.length) return false
    // The first time at its end; what came back since then, now.
    await client.query(
      `INSERT INTO prepaid_entries (pack, kind, quantity, at, made_at)
       SELECT b.pack, 'forfeit', -b.balance, CASE WHEN EXISTS (
           SELECT 1 FROM prepaid_entries e WHERE e.pack = b.pack AND e.kind = 'forfeit' AND e.closing IS NULL
         ) THEN $3 ELSE $2::bigint END, $3
       FROM prepaid_balances b WHERE b.pack = $1 AND b.balance > 0`,
      [pack.id, pack.expires, now],
    )
    return true
  })
}

/** The closings that can still debit it: of the billed periods from its beginning to its end. */
function closingsOf(catalog: Catalog, { contract: id, valid_from, expires }: Over): string[] {
  const contract = catalog.book().contractOf(id)
  const found: string[] = []
  for (
    let period = periodAt(contract, Number(valid_from));
    period.from < Number(expires);
    period = nextPeriodOf(contract, period)
  )
    if (isBilled(contract, period)) found.push(`${id}/${period.from}`)
  return found
}

/** Looks now and every hour until it is closed; `changed` hears of balances that are others now. */
export function watchPacks(options: ForfeitOptions & { readonly logger: Logger; readonly changed: () => void }): Sweep {
  const { logger, changed } = options
  const look = async (): Promise<void> => {
    const found = await forfeitEnded(options)
    if (found.packs === 0) return
    changed()
    logger.info(found, 'prepaid packs that were over are forfeited')
  }
  return sweepEvery(limits.packSweepMs, look, (error) =>
    logger.warn({ error: String(error) }, 'prepaid packs could not be looked at'),
  )
}
