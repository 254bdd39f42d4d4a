/** The month of the seeds as usage at a cut: what Banque Atlantique used of OID in March 2026. */
import type { ItemUsage, UsageAtCut } from '../../src/invoicing/close.js'

export const marchQuantities: Readonly<Record<string, string>> = {
  auth_login: '12450',
  kyc_verification: '62',
  certificate_enrolled: '25',
  mcp_call: '850',
  documents_processed: '847',
  ai_tokens: '185000',
  user_active: '18',
}

export function usageOf(quantities: Readonly<Record<string, string>>): UsageAtCut {
  return async ({ closing, items }) =>
    items.flatMap(({ item, metrics }) =>
      metrics.map(
        (metric): ItemUsage => ({
          item,
          metric,
          quantity: quantities[metric] ?? '0',
          count: Number.parseInt(quantities[metric] ?? '0', 10),
          digest: Buffer.from(`${item} ${metric}`).toString('hex').padEnd(64, '0').slice(0, 64),
          query: `usage of ${metric} at ${closing}`,
          cut: { 0: 41, 1: 40 },
        }),
      ),
    )
}
