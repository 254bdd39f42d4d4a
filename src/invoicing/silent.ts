/**
 * A meter that spoke in the period before and says nothing in this one is told on the draft, and to those who listen for it: a person
 * looks before it is issued.
 */
import type { ClientBase } from 'pg'
import type { Terms } from '../catalog/book.js'
import { formatNumber } from '../format.js'
import type { Period } from '../period.js'
import type { ItemUsage } from './draft.js'
import type { Notice } from './invoice.js'

const events = (one: ItemUsage): number => one.count + (one.data?.count ?? 0)

/** `before` is the usage of the period before; empty when there is none. */
export function silentMeters(terms: Terms, usage: readonly ItemUsage[], before: readonly ItemUsage[]): Notice[] {
  return usage.flatMap((one): Notice[] => {
    if (one.charge === true) return []
    const { mute = 0 } = one.fleet ?? {}
    if (one.fleet !== undefined) {
      if (mute === 0 || one.metric !== terms.items.find((item) => item.item === one.item)?.metrics[0]?.metric) return []
      const quantity = String(mute)
      return [
        {
          code: 'meter_silent',
          item: one.item,
          metric: null,
          quantity,
          text: {
            fr: `compteurs muets : ${formatNumber(quantity, 'fr')} objet(s) actif(s) sans aucune mesure de la période`,
            en: `silent meters: ${formatNumber(quantity, 'en')} active object(s) without any usage in the period`,
          },
        },
      ]
    }
    const last = before.find((other) => other.item === one.item && other.metric === one.metric)
    if (events(one) > 0 || last === undefined || events(last) === 0) return []
    return [
      {
        code: 'meter_silent',
        item: one.item,
        metric: one.metric,
        quantity: null,
        text: {
          fr: `compteur muet : aucun événement ${one.metric} de la période, ${formatNumber(String(events(last)), 'fr')} la période d’avant`,
          en: `silent meter: no ${one.metric} event in the period, ${formatNumber(String(events(last)), 'en')} in the one before`,
        },
      },
    ]
  })
}

/** To the outbox, one for each silent meter of a draft that was kept in the same transaction. */
export async function tellSilent(
  client: Pick<ClientBase, 'query'>,
  draft: {
    readonly id: string
    readonly tenant: string
    readonly contract: string
    readonly period: Period
    readonly notices: readonly Notice[]
  },
  at: number,
): Promise<void> {
  const { id: invoice, tenant, contract, period } = draft
  for (const { code, item, metric, quantity } of draft.notices) {
    if (code !== 'meter_silent') continue
    const data = { invoice, tenant, contract, item, metric, period, objects: quantity }
    await client.query(`SELECT tell('meter.silent', $1, $2, $3, $4)`, [tenant, metric, data, at])
  }
}
