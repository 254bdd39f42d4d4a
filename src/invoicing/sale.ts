/**
 * A pack that is billed when it is bought, on an invoice of its own, instead of with the period. Its closing stands beside that of the
 * period (a part, as a correction's does), counts nothing, and keeps what the invoice is a function of, so that it can be verified.
 *
 * One transaction makes closing, draft and the ledger's word that the pack is billed; issuing follows, and is repeated harmlessly. A
 * pack whose invoice was never made is billed with its period: nothing is billed twice or lost. What is agreed on for the charges of
 * a period in all (discounts, minimum, cap) is not applied to it.
 */
import type { PoolClient } from 'pg'
import type { Terms } from '../catalog/catalog.js'
import { periodAt } from '../catalog/part.js'
import { ReleveError } from '../errors.js'
import { inTransaction } from '../transaction.js'
import type { CloseOptions, Measured } from './close.js'
import { contractBehaviorOf, draftInvoice } from './draft.js'
import type { PackPurchase } from './funding.js'
import type { KeptInvoice, Mover } from './invoicing.js'
import { packJson } from './pack.js'

export interface SalePort {
  /** The pack locked until the client's transaction ends; null when it was never to be billed here. */
  sale(
    client: PoolClient,
    pack: string,
  ): Promise<{
    readonly contract: string
    readonly purchase: PackPurchase
    /** The closing that has billed it. */
    readonly billedBy: string | null
  } | null>
  settleSale(
    client: PoolClient,
    pack: string,
    terms: Terms,
    closing: { readonly id: string; readonly attempt: number; readonly at: number },
  ): Promise<void>
}

/** Throws ReleveError `unprocessable` for a pack without an amount, and `conflict` when the period's invoice has it already. */
export async function invoiceSale(
  options: CloseOptions & { readonly packs: SalePort },
  pack: string,
  by: Mover,
): Promise<KeptInvoice> {
  const { postgres, invoicing } = options
  const invoice = await inTransaction(postgres, (client) => draftSale(options, client, pack))
  await options.crashPoint?.('drafted')
  const issued = await invoicing.finalise(invoice, by)
  await postgres.query(`UPDATE closings SET state = 'done', updated_at = $2 WHERE invoice = $1 AND state = 'drafted'`, [
    invoice,
    options.clock.now(),
  ])
  return issued
}

/** The id of the draft, or of what an earlier attempt has made. */
async function draftSale(
  { clock, catalog, invoicing, packs }: CloseOptions & { readonly packs: SalePort },
  client: PoolClient,
  pack: string,
): Promise<string> {
  const sale = await packs.sale(client, pack)
  if (sale === null)
    throw new ReleveError('unprocessable', `amount: ${pack} has none, so that there is nothing to bill of it`)
  if (sale.billedBy !== null) {
    const { rows } = await client.query('SELECT part, invoice FROM closings WHERE id = $1', [sale.billedBy])
    if (rows[0]?.part > 0) return rows[0].invoice
    throw new ReleveError('conflict', `${pack} is on the invoice of its period`)
  }
  const now = clock.now()
  const contract = catalog.book().contractOf(sale.contract)
  const period = periodAt(contract, now)
  const { rows } = await client.query<{ part: number; place: number | null; period_from: string }>(
    'SELECT part, place, period_from FROM closings WHERE contract = $1 ORDER BY id FOR UPDATE',
    [contract.id],
  )
  const part = 1 + Math.max(0, ...rows.map((row) => (Number(row.period_from) === period.from ? row.part : 0)))
  const order = 1 + Math.max(0, ...rows.map((row) => row.place ?? 0))
  const terms = termsOfSale(catalog.terms(contract.id, period), sale.purchase.item)
  const prepaid = { fundings: [], purchases: [sale.purchase] }
  const measured: Measured = { order, terms, usage: [], late: [], prepaid, sale: true }
  const closing = `${contract.id}/${period.from}/${part}`
  const invoice = draftInvoice(invoicing.newId(), terms, period, [], [], [], prepaid)
  await client.query(
    `INSERT INTO closings (id, contract, period_from, period_to, part, state, place, measured, invoice, created_at, updated_at)
     VALUES ($1, $2, $3, $4, $5, 'drafted', $6, $7, $8, $9, $9)`,
    [
      ...[closing, contract.id, period.from, period.to, part, order, packJson(JSON.stringify(measured))],
      ...[invoice.id, now],
    ],
  )
  await packs.settleSale(client, pack, terms, { id: closing, attempt: 1, at: period.to })
  await invoicing.keepDraft(client, invoice, part)
  return invoice.id
}

/** The item alone, without fee, usage and what the contract adds to its charges. */
function termsOfSale({ ahead: _, billedAhead: __, ...terms }: Terms, item: string): Terms {
  // The prices that would say whether amounts are with tax are left out below.
  const { adjustments: ___, ...contract } = { ...terms.contract, ...contractBehaviorOf(terms) }
  const own = terms.items.find((one) => one.item === item)
  if (own === undefined) throw new ReleveError('unprocessable', `item: ${item} covers nothing of the running period`)
  const { addOns: ____, fees: _____, ...rest } = own
  return { ...terms, contract, items: [{ ...rest, feeRule: null, fee: null, metrics: [] }] }
}
