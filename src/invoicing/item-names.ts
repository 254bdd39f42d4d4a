/**
 * What a document calls the items of a contract: by the plan that each has; those of one plan are told apart by their ids, without
 * the contract's, which stands on the page already. Pure.
 */
import type { Language } from '../format.js'
import type { Invoice } from './invoice.js'

/** By the item's id. */
export function itemNames(
  invoice: Pick<Invoice, 'contract' | 'lines' | 'usage'>,
  language: Language,
): Map<string, string> {
  const names = new Map<string, string>()
  for (const { item, plan } of invoice.lines) names.set(item, plan.name)
  // Documents of before name the product alone where nothing of an item is due.
  for (const { item, itemName, product } of invoice.usage) names.set(item, itemName ?? names.get(item) ?? product)
  const items = new Map<string, number>()
  for (const name of names.values()) items.set(name, (items.get(name) ?? 0) + 1)
  for (const [item, name] of names) {
    if (items.get(name) === 1) continue
    const prefix = `${invoice.contract}/`
    const own = item.startsWith(prefix) ? item.slice(prefix.length) : item
    const place = /^[0-9]+$/.test(own) ? `${language === 'fr' ? 'n°' : 'no.'}\u00a0${own}` : own
    names.set(item, `${name} — ${place}`)
  }
  return names
}
