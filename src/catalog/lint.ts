/**
 * What is allowed in a catalogue but probably not meant: each finding with a code, where it is, and a sentence. Errors (gaps,
 * overlaps, no open tier) are refused when a price is parsed; these are warnings. Pure.
 */
import { exponentOf, fixedRate } from '../currency.js'
import { Decimal } from '../decimal.js'
import type { Book } from './book.js'
import type { Plan } from './definition.js'
import { type Price, parsePrice, type TieredPrice } from './price.js'
import { missingRegistrations } from './registration.js'
import { isRateOf } from './tax-table.js'
import { converts, convertsExactly, convertUnit, isKnownUnit } from './unit.js'

export interface Finding {
  readonly code:
    | 'overage_without_price'
    | 'unlimited_with_price'
    | 'tiers_do_not_meet_quota'
    | 'volume_price_falls'
    | 'price_is_zero'
    | 'price_finer_than_currency'
    | 'conversion_does_not_end'
    | 'units_do_not_convert'
    | 'currencies_differ'
    | 'includes_differ'
    | 'tax_behaviors_differ'
    | 'tax_behavior_unsaid'
    | 'tax_rate_unknown'
    | 'registrations_missing'
    | 'currency_of_other_customer'
    | 'rule_missing'
    | 'rule_not_in_force'
    | 'rule_of_other_metric'
    | 'metric_missing_from_plan'
    | 'metric_unknown'
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
  for (const versions of book.prices.values()) {
    const price = parsePrice(versions.at(-1)?.definition, versions.at(-1)?.version)
    findings.push(...lintPrice(price, 'metric' in price ? book.metrics.get(price.metric)?.at(-1)?.unit : undefined))
    findings.push(...lintMetric(book, price))
  }
  for (const versions of book.plans.values()) {
    const plan = versions.at(-1)!
    const at = `plan ${plan.key}`
    findings.push(...lintFee(book, plan, at))
    for (const rule of new Set([plan.feeRule, ...plan.metrics.map((metric) => metric.rule)])) {
      const versions = rule === null ? undefined : book.prices.get(rule)
      if (versions === undefined || versions.some((one) => one.status === 'active')) continue
      const message = `no version of ${rule} is active: nothing of it is billed, and invoices say so`
      findings.push({ code: 'rule_not_in_force', at, message })
    }
    for (const { metric, included, rule, cardPrice } of plan.metrics) {
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
      const card = cardPrice === undefined ? null : lintCard(plan.key, cardPrice, price)
      if (card !== null) findings.push(card)
      if (included === null) {
        findings.push({ code: 'unlimited_with_price', at, message: `${metric} is unlimited, so ${rule} never bills` })
      } else if (
        'tiers' in price &&
        new Decimal(price.tiers[0]?.after ?? 0).gt(inUnitOf(book, price, metric, included))
      ) {
        const unit = price.unit === undefined ? '' : ` ${price.unit}`
        findings.push({
          code: 'tiers_do_not_meet_quota',
          at,
          message: `${rule} begins above ${price.tiers[0]?.after}${unit}, but ${included} of ${metric} are included: units between have no price`,
        })
      }
    }
  }
  for (const { tenant, country, taxRate } of book.customers.values()) {
    if (isRateOf(country, taxRate)) continue
    const message = `${taxRate} % is no rate of ${country}`
    findings.push({ code: 'tax_rate_unknown', at: `customer ${tenant}`, message })
  }
  for (const seller of book.legalEntities.values()) {
    const missing = missingRegistrations(seller)
    if (missing.length === 0) continue
    const message = `invoices of ${seller.country} carry ${missing.join(', ')} of their seller`
    findings.push({ code: 'registrations_missing', at: `legal entity ${seller.key}`, message })
  }
  for (const contract of book.contracts.values()) {
    const { currency } = book.customers.get(contract.tenant) ?? { currency: '' }
    const all = contract.items.flatMap(({ plan: key, planVersion, addOns = [] }) => {
      const plan = book.planOf(key, planVersion)
      return [plan.feeRule, ...plan.metrics.map((metric) => metric.rule), ...addOns.map((addOn) => addOn.rule)]
    })
    const prices = [...new Set(all)].map((rule) => {
      const version = rule === null ? undefined : book.prices.get(rule)?.at(-1)
      return version === undefined ? null : parsePrice(version.definition, version.version)
    })
    if (contract.adjustments !== undefined && contract.taxBehavior === undefined && behaviorsOf(prices).size > 1) {
      const message =
        'its prices are partly with tax, and nothing says whether its discounts, cap and minimum are: they are without'
      findings.push({ code: 'tax_behavior_unsaid', at: `contract ${contract.id}`, message })
    }
    for (const item of contract.items) {
      const plan = book.planOf(item.plan, item.planVersion)
      const addOns = (item.addOns ?? []).map((addOn) => addOn.rule)
      for (const rule of new Set([plan.feeRule, ...plan.metrics.map((metric) => metric.rule), ...addOns])) {
        const version = rule === null ? undefined : book.prices.get(rule)?.at(-1)
        const price = version === undefined ? null : parsePrice(version.definition, version.version)
        if (price === null || price.currency === currency) continue
        const fixed = fixedRate(price.currency, currency) !== null
        const then = fixed
          ? 'converted at the fixed parity'
          : 'there is no fixed parity, so nothing of it can be billed'
        const message = `${price.rule} is in ${price.currency}, the customer is billed in ${currency}: ${then}`
        findings.push({ code: 'currency_of_other_customer', at: `contract ${contract.id}`, message })
      }
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

/**
 * What is probably not meant in one price; `metricUnit` is that of the metric it prices, if there is such a metric. The catalogue
 * refuses a price whose unit cannot be converted; a metric that is defined after its price may still be such.
 */
export function lintPrice(price: Price, metricUnit?: string): Finding[] {
  const at = `price ${price.rule}`
  const findings: Finding[] = price.model === 'volume' ? lintVolume(price, at) : []
  const amounts = amountsOf(price)
  if (amounts.every((amount) => new Decimal(amount).isZero()))
    findings.push({ code: 'price_is_zero', at, message: 'every price of the rule is 0: it never bills anything' })
  // A price of a unit may be finer than the currency (0.005); a fee that is due as it stands may not.
  const fees = price.model === 'flat' ? [price.amount] : price.model === 'package' ? [price.packagePrice] : []
  for (const fee of fees) {
    if (new Decimal(fee).decimalPlaces() > exponentOf(price.currency)) {
      const message = `${fee} has more decimals than ${price.currency} and is rounded on each invoice`
      findings.push({ code: 'price_finer_than_currency', at, message })
    }
  }
  if (price.unit === undefined || metricUnit === undefined) return findings
  if (!converts(metricUnit, price.unit)) {
    const message = `${metricUnit} does not convert to ${price.unit}: nothing of it can be billed`
    findings.push({ code: 'units_do_not_convert', at, message })
  } else if (!convertsExactly(metricUnit, price.unit)) {
    const message = `${metricUnit} as ${price.unit} is no finite decimal: the quantity is cut far behind the point`
    findings.push({ code: 'conversion_does_not_end', at, message })
  }
  return findings
}

function amountsOf(price: Price): string[] {
  switch (price.model) {
    case 'flat':
      return [price.amount]
    case 'unit':
      return [price.unitPrice]
    case 'graduated':
    case 'volume':
      return price.tiers.flatMap((tier) => [tier.unitPrice, tier.flat])
    case 'graduated_percentage':
      return price.tiers.flatMap((tier) => [tier.rate, tier.flat])
    case 'package':
      return [price.packagePrice]
    case 'percentage':
      return [price.rate, price.perEvent, price.minimum ?? '0', price.minimumPerEvent ?? '0']
    case 'dynamic':
      return [price.factor]
  }
}

/** A quantity of a metric in what the price is for; as it is where the units do not convert, which is a finding of its own. */
function inUnitOf(book: Book, { unit }: Price, metric: string, quantity: string): string {
  const own = book.metrics.get(metric)?.at(-1)?.unit
  return unit === undefined || own === undefined || !converts(own, unit) ? quantity : convertUnit(quantity, own, unit)
}

/** A price of a metric that nobody counts. */
export function lintMetric(book: Pick<Book, 'metrics'>, price: Price): Finding[] {
  if (price.model === 'flat' || book.metrics.has(price.metric)) return []
  const message = `there is no metric ${price.metric}: define it, or the rule prices nothing`
  return [{ code: 'metric_unknown', at: `price ${price.rule}`, message }]
}

function behaviorsOf(prices: readonly (Price | null)[]): Set<string> {
  return new Set(prices.flatMap((price) => (price === null ? [] : [price.taxBehavior ?? 'exclusive'])))
}

/** The fee of a plan against the rest of it. */
function lintFee(book: Book, plan: Plan, at: string): Finding[] {
  const latest = (rule: string | null): Price | null => {
    const version = rule === null ? undefined : book.prices.get(rule)?.at(-1)
    return version === undefined ? null : parsePrice(version.definition, version.version)
  }
  const prices = [plan.feeRule, ...plan.metrics.map((metric) => metric.rule)].map(latest)
  const currencies = new Set(prices.flatMap((price) => (price === null ? [] : [price.currency])))
  const findings: Finding[] =
    currencies.size > 1
      ? [{ code: 'currencies_differ', at, message: `its prices are in ${[...currencies].join(' and ')}` }]
      : []
  if (behaviorsOf(prices).size > 1) {
    const message =
      'some of its prices are with tax and some without: its invoices say both, and print amounts without tax'
    findings.push({ code: 'tax_behaviors_differ', at, message })
  }
  const fee = prices[0]
  if (fee?.model !== 'flat') return findings
  for (const { metric, included } of plan.metrics) {
    const said = fee.includes[metric]
    if (said === undefined || (included !== null && new Decimal(said).eq(included))) continue
    const message = `${fee.rule} says ${said} of ${metric}, the plan ${included ?? 'unlimited'}: the plan counts`
    findings.push({ code: 'includes_differ', at, message })
  }
  return findings
}

/** All units fall to the next tier's price at a boundary: a larger usage may cost less. */
function lintVolume(price: TieredPrice, at: string): Finding[] {
  return price.tiers.slice(1).flatMap((tier, index) => {
    const before = price.tiers[index]!
    // What lies below the first tier is free and counts only for the choice of the tier.
    const edge = new Decimal(tier.after).minus(price.tiers[0]!.after)
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
  if (price.model !== 'graduated' && price.model !== 'volume') return null
  const shows = new Decimal(price.tiers[0]?.unitPrice ?? 0).eq(cardPrice)
  return shows && price.tiers.length > 1
    ? { code: 'card_shows_first_tier', at: `plan ${plan}`, message: 'card shows only the first tier' }
    : null
}
