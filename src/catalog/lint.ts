/**
 * What is allowed in a catalogue but probably not meant: each finding with a code, where it is, and a sentence. Errors (gaps,
 * overlaps, no open tier) are refused when a price is parsed; these are warnings. Pure.
 */
import { Decimal } from '../decimal.js'
import type { Book } from './book.js'
import { type Price, parsePrice, type TieredPrice } from './price.js'
import { isKnownUnit } from './unit.js'

export interface Finding {
  readonly code:
    | 'overage_without_price'
    | 'unlimited_with_price'
    | 'tiers_do_not_meet_quota'
    | 'volume_price_falls'
    | 'rule_missing'
    | 'rule_of_other_metric'
    | 'metric_missing_from_plan'
    | 'unit_unknown'
    | 'card_shows_first_tier'
  /** The object, such as plan business or contract banque-atlantique-oid. */
  readonly at: string
  readonly message: string
}

export function lint(book: Book): Finding[] {
  const findings: Finding[] = []
  for (const metric of book.snapshot.metrics) {
    if (!isKnownUnit(metric.unit)) {
      findings.push({
        code: 'unit_unknown',
        at: `metric ${metric.key}`,
        message: `unit ${metric.unit} is not in the table and converts to nothing`,
      })
    }
  }
  for (const [rule, versions] of book.prices) {
    const price = parsePrice(versions.at(-1)?.definition, versions.at(-1)?.version)
    if (price.model === 'volume') findings.push(...lintVolume(price, `price ${rule}`))
  }
  for (const versions of book.plans.values()) {
    const plan = versions.at(-1)!
    const at = `plan ${plan.key}`
    for (const { metric, included, rule } of plan.metrics) {
      if (rule === null) {
        if (included !== null) {
          findings.push({
            code: 'overage_without_price',
            at,
            message: `${metric} above ${included} has no price: it will be reported on invoices, not billed`,
          })
        }
        continue
      }
      const version = book.prices.get(rule)?.at(-1)
      if (version === undefined) {
        findings.push({ code: 'rule_missing', at, message: `${metric}: there is no rule ${rule}` })
        continue
      }
      const price = parsePrice(version.definition, version.version)
      if (price.model !== 'flat' && price.metric !== metric) {
        findings.push({ code: 'rule_of_other_metric', at, message: `${rule} prices ${price.metric}, not ${metric}` })
      }
      if (included === null) {
        findings.push({ code: 'unlimited_with_price', at, message: `${metric} is unlimited, so ${rule} never bills` })
      } else if ('tiers' in price && new Decimal(price.tiers[0]?.after ?? 0).gt(included)) {
        findings.push({
          code: 'tiers_do_not_meet_quota',
          at,
          message: `${rule} begins above ${price.tiers[0]?.after}, but ${included} of ${metric} are included: units between have no price`,
        })
      }
    }
  }
  for (const contract of book.contracts.values()) {
    for (const item of contract.items) {
      const plan = book.planOf(item.plan, item.planVersion)
      for (const entitlement of item.entitlements) {
        if (!plan.metrics.some((entry) => entry.metric === entitlement.metric)) {
          findings.push({
            code: 'metric_missing_from_plan',
            at: `contract ${contract.id}`,
            message: `${entitlement.metric} is not part of plan ${plan.key}, so nothing prices it`,
          })
        }
      }
    }
  }
  return findings
}

/** All units fall to the next tier's price at a boundary: a larger usage may cost less. */
function lintVolume(price: Price & TieredPrice, at: string): Finding[] {
  return price.tiers.slice(1).flatMap((tier, index) => {
    const before = price.tiers[index]!
    const edge = new Decimal(tier.after)
    const atEdge = edge.times(before.unitPrice).plus(before.flat)
    const behind = edge.times(tier.unitPrice).plus(tier.flat)
    return behind.lt(atEdge)
      ? [
          {
            code: 'volume_price_falls' as const,
            at,
            message: `just above ${tier.after} the whole costs ${behind.toFixed()}, at it ${atEdge.toFixed()}`,
          },
        ]
      : []
  })
}

/** A plan's card that prints one overage price, against the rule behind it. Null when the card says it all. */
export function lintCard(plan: string, cardPrice: string, price: Price): Finding | null {
  if (!('tiers' in price)) return null
  const shows = new Decimal(price.tiers[0]?.unitPrice ?? 0).eq(cardPrice)
  return shows && price.tiers.length > 1
    ? { code: 'card_shows_first_tier', at: `plan ${plan}`, message: 'card shows only the first tier' }
    : null
}
