/**
 * What a contract adds to its charges: percentage discounts, coupons of an amount, a cap, a minimum commitment, in this order,
 * each a line of its own with its reason in words. Pure; the arithmetic is rating/adjust.ts.
 *
 * A discount never exceeds what is left of the charges. The minimum is due once a period: by days when the contract begins or ends
 * within it, and without the days of a suspension, as fees are (unless the contract bills these all the same). The cap is not prorated.
 */
import type { Terms } from '../catalog/book.js'
import { partOf, pausesIn } from '../catalog/part.js'
import { midnightOf } from '../catalog/schedule.js'
import { Decimal, printDecimal } from '../decimal.js'
import { formatMoney, formatPercent, type Language, type Words } from '../format.js'
import type { Period } from '../period.js'
import { applyCap, applyMinimum } from '../rating/adjust.js'
import { daysOf, prorate } from '../rating/prorate.js'
import type { InvoiceLine } from './invoice.js'

export interface Adjustment {
  readonly type: Extract<InvoiceLine['type'], 'discount' | 'cap' | 'minimum'>
  /** Signed: a discount is negative. */
  readonly amount: string
  readonly label: Words
  readonly explanation: Words
}

/** `charges` of the period in all, decimal text. Adjustments of 0 are left out. */
export function adjust(terms: Terms, period: Period, charges: string): Adjustment[] {
  const { contract, customer } = terms
  const { currency } = customer
  const { discounts = [], maximum, minimum } = contract.adjustments ?? {}
  const found: Adjustment[] = []
  const words = (say: (money: (amount: string) => string, language: Language) => string): Words => ({
    fr: say((amount) => formatMoney(amount, currency, 'fr'), 'fr'),
    en: say((amount) => formatMoney(amount, currency, 'en'), 'en'),
  })
  let left = charges
  const take = (type: Adjustment['type'], amount: string, label: Words, explanation: Words): void => {
    if (new Decimal(amount).isZero()) return
    const off = printDecimal(new Decimal(amount).negated())
    found.push({ type, amount: new Decimal(off).toFixed(new Decimal(amount).decimalPlaces()), label, explanation })
    left = printDecimal(new Decimal(left).minus(amount))
  }
  const inForce = discounts.filter(
    (one) =>
      (one.from === undefined || midnightOf(one.from, contract.timeZone) <= period.from) &&
      (one.until === undefined || midnightOf(one.until, contract.timeZone) >= period.from),
  )
  // Percentages are of the charges; amounts come off what these leave.
  for (const one of [...inForce].sort((a, b) => Number(a.kind === 'amount') - Number(b.kind === 'amount'))) {
    const off =
      one.kind === 'amount'
        ? one.value
        : applyCap({ charges, discountPercent: one.value, previous: '0', maximum: charges, currency }).percentDiscount
    const amount = applyCap({
      charges: left,
      previous: '0',
      maximum: printDecimal(Decimal.max(new Decimal(left).minus(off), 0)),
      currency,
    }).capDiscount
    take(
      'discount',
      amount,
      { fr: `Remise ${one.name}`, en: `Discount ${one.name}` },
      words((money, language) => {
        if (one.kind === 'amount')
          return language === 'fr' ? `remise de ${money(one.value)}` : `${money(one.value)} off`
        const percent = formatPercent(one.value, language)
        return language === 'fr'
          ? `${percent} de ${money(charges)} = ${money(amount)}`
          : `${percent} of ${money(charges)} = ${money(amount)}`
      }),
    )
  }
  if (maximum !== undefined) {
    const before = left
    take(
      'cap',
      applyCap({ charges: left, previous: '0', maximum, currency }).capDiscount,
      { fr: 'Plafond de la période', en: 'Cap of the period' },
      words((money, language) =>
        language === 'fr'
          ? `${money(before)} ramenés au plafond de ${money(maximum)}`
          : `${money(before)} brought down to the cap of ${money(maximum)}`,
      ),
    )
  }
  if (minimum !== undefined) {
    const part = partOf(contract, {}, period) ?? period
    const count = (range: Period): number => daysOf(range, contract.timeZone)
    const paused = contract.suspension === 'bills_fees' ? [] : pausesIn(contract, part)
    const off = paused.reduce((all, one) => all + count(one), 0)
    const [days, whole] = [count(part) - off, count(period)]
    const due = days === whole ? minimum : prorate(minimum, days, whole, currency)
    const { trueUp } = applyMinimum({ charges: left, previous: '0', minimum: due, lastOfPeriod: true, currency })
    if (!new Decimal(trueUp).isZero()) {
      const reached = left
      found.push({
        type: 'minimum',
        amount: trueUp,
        label: { fr: 'Complément au minimum garanti', en: 'True-up to the minimum commitment' },
        explanation: words((money, language) => {
          if (days === whole)
            return language === 'fr'
              ? `minimum de ${money(due)}, ${money(reached)} atteints : ${money(trueUp)}`
              : `minimum of ${money(due)}, ${money(reached)} reached: ${money(trueUp)}`
          const without = off === 0 ? '' : language === 'fr' ? `, sans ${off} suspendus` : `, without ${off} suspended`
          return language === 'fr'
            ? `minimum de ${money(due)} (${days} jours sur ${whole}${without}), ${money(reached)} atteints : ${money(trueUp)}`
            : `minimum of ${money(due)} (${days} of ${whole} days${without}), ${money(reached)} reached: ${money(trueUp)}`
        }),
      })
    }
  }
  return found
}
