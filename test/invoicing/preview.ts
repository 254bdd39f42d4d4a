/** The draft of a period by usage that a test names. */
import type { Catalog, Terms } from '../../src/catalog/catalog.js'
import { draftInvoice, type ItemUsage } from '../../src/invoicing/draft.js'
import type { Invoice } from '../../src/invoicing/invoice.js'
import type { Period } from '../../src/period.js'

export function previewInvoice(
  catalog: Catalog,
  contract: string,
  period: Period,
  usage: readonly ItemUsage[],
  terms: Terms = catalog.terms(contract, period),
): Invoice {
  return draftInvoice('preview', terms, period, usage, [], [])
}
