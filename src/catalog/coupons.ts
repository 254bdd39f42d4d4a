/**
 * Coupons: a code that gives a contract a discount for some periods. What is redeemed becomes a discount of the contract, and its
 * invoices know nothing of coupons.
 *
 * A redemption is claimed first, under the coupon's lock, so that no more contracts have it than may; then the contract gets its
 * discount. Redeemed again, the same contract ends in the same state, also when the first time was killed between the two.
 */
import { DateTime } from 'luxon'
import type { Pool } from 'pg'
import type { Clock } from '../clock.js'
import { exponentOf } from '../currency.js'
import { Decimal, parseDecimal, printDecimal } from '../decimal.js'
import { ReleveError } from '../errors.js'
import { dateIn } from '../format.js'
import { limits } from '../limits.js'
import type { Catalog, Contract } from './catalog.js'
import { nextPeriodOf, periodAt } from './part.js'
import { midnightOf } from './schedule.js'

export interface Coupon {
  readonly code: string
  readonly name: string
  readonly kind: 'percent' | 'amount'
  readonly value: string
  /** Of an amount: it counts for customers that are billed in it. */
  readonly currency?: string
  readonly validFrom?: string
  readonly validUntil?: string
  readonly periods?: number
  readonly redemptionsMax?: number
}

interface Row {
  code: string
  name: string
  kind: 'percent' | 'amount'
  value: string
  currency: string | null
  valid_from: string | null
  valid_until: string | null
  periods: number | null
  redemptions_max: number | null
  redeemed: string
}

export class Coupons {
  readonly #postgres: Pool
  readonly #catalog: Catalog
  readonly #clock: Clock

  constructor(options: { readonly postgres: Pool; readonly catalog: Catalog; readonly clock: Clock }) {
    this.#postgres = options.postgres
    this.#catalog = options.catalog
    this.#clock = options.clock
  }

  /** A coupon is not changed: sent again with other content it is a `conflict`. */
  async create(coupon: Coupon): Promise<{ readonly created: boolean }> {
    const value = parseDecimal(coupon.value, 'value')
    if (value.lte(0) || (coupon.kind === 'percent' && value.gt(100)))
      throw new ReleveError('invalid_request', 'value: above 0, and a percentage at most 100')
    if ((coupon.kind === 'amount') !== (coupon.currency !== undefined))
      throw new ReleveError('invalid_request', 'currency: is given exactly for an amount')
    if (coupon.currency !== undefined && value.decimalPlaces() > exponentOf(coupon.currency))
      throw new ReleveError('invalid_request', `value: has more decimals than ${coupon.currency}`)
    for (const day of ['validFrom', 'validUntil'] as const)
      if (coupon[day] !== undefined) midnightOf(coupon[day], 'UTC', day)
    const { code, name, kind, currency, validFrom, validUntil, periods, redemptionsMax } = coupon
    const values = [code, name, kind, printDecimal(value), currency ?? null, validFrom ?? null, validUntil ?? null]
    const all = [...values, periods ?? null, redemptionsMax ?? null]
    const made = await this.#postgres.query(
      `INSERT INTO coupons (code, name, kind, value, currency, valid_from, valid_until, periods, redemptions_max, created_at)
       VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) ON CONFLICT DO NOTHING`,
      [...all, this.#clock.now()],
    )
    if (made.rowCount === 1) return { created: true }
    const same = await this.#postgres.query(
      `SELECT 1 FROM coupons WHERE code = $1 AND name = $2 AND kind = $3 AND value = $4::numeric
         AND (currency, valid_from, valid_until, periods, redemptions_max)
             IS NOT DISTINCT FROM ($5::text, $6::text, $7::text, $8::int, $9::int)`,
      all,
    )
    if (same.rowCount === 0) throw new ReleveError('conflict', `code: ${code} is another coupon`)
    return { created: false }
  }

  async list(): Promise<(Coupon & { readonly redemptions: number })[]> {
    const { rows } = await this.#postgres.query<Row>(
      `SELECT c.*, (SELECT count(*) FROM coupon_redemptions r WHERE r.code = c.code)::text AS redeemed
       FROM coupons c ORDER BY code LIMIT $1`,
      [limits.pageMax],
    )
    return rows.map((row) => ({ ...couponOf(row), redemptions: Number(row.redeemed) }))
  }

  /** Throws ReleveError `not_found`, and `unprocessable` when it may not be redeemed (any more). */
  async redeem(code: string, contractId: string): Promise<Contract> {
    const contract = this.#catalog.book().contractOf(contractId)
    const now = this.#clock.now()
    const coupon = await this.#claim(code, contract, now)
    const known = contract.adjustments?.discounts ?? []
    if (known.some((one) => one.name === code)) return contract
    let last = periodAt(contract, Math.max(now, midnightOf(contract.start, contract.timeZone)))
    const from = dateIn(last.from, contract.timeZone)
    for (let i = 1; i < (coupon.periods ?? 1); i += 1) last = nextPeriodOf(contract, last)
    const discount = {
      name: code,
      kind: coupon.kind,
      value: coupon.value,
      from,
      ...(coupon.periods === undefined ? {} : { until: dateIn(last.from, contract.timeZone) }),
    }
    const items = contract.items.map((item) => ({
      ...item,
      entitlements: item.entitlements.map(({ limitVersion: _, ...one }) => one),
    }))
    const adjustments = { ...contract.adjustments, discounts: [...known, discount] }
    return (await this.#catalog.putContract({ ...contract, items, adjustments })).value
  }

  async #claim(code: string, contract: Contract, now: number): Promise<Coupon> {
    const client = await this.#postgres.connect()
    try {
      await client.query('BEGIN')
      const { rows } = await client.query<Row>(`SELECT *, '0' AS redeemed FROM coupons WHERE code = $1 FOR UPDATE`, [
        code,
      ])
      if (rows[0] === undefined) throw new ReleveError('not_found', `coupon: there is no ${code}`)
      const coupon = couponOf(rows[0])
      const has = await client.query('SELECT contract FROM coupon_redemptions WHERE code = $1', [code])
      if (!has.rows.some((row) => row.contract === contract.id)) {
        this.#assertRedeemable(coupon, contract, now, has.rows.length)
        await client.query('INSERT INTO coupon_redemptions (code, contract, redeemed_at) VALUES ($1, $2, $3)', [
          code,
          contract.id,
          now,
        ])
      }
      await client.query('COMMIT')
      return coupon
    } catch (error) {
      await client.query('ROLLBACK').catch(() => undefined)
      throw error
    } finally {
      client.release()
    }
  }

  #assertRedeemable(coupon: Coupon, contract: Contract, now: number, redeemed: number): void {
    const refuse = (why: string): never => {
      throw new ReleveError('unprocessable', `coupon: ${coupon.code} ${why}`)
    }
    const today = DateTime.fromMillis(now, { zone: contract.timeZone }).toFormat('yyyy-MM-dd')
    if (coupon.validFrom !== undefined && today < coupon.validFrom) refuse(`is valid from ${coupon.validFrom} on`)
    if (coupon.validUntil !== undefined && today > coupon.validUntil) refuse(`was valid until ${coupon.validUntil}`)
    if (coupon.redemptionsMax !== undefined && redeemed >= coupon.redemptionsMax)
      refuse(`has been redeemed ${redeemed} times and may not be any more`)
    const { currency } = this.#catalog.book().customers.get(contract.tenant)!
    if (coupon.currency !== undefined && coupon.currency !== currency)
      refuse(`is in ${coupon.currency}, the customer is billed in ${currency}`)
    if (contract.state === 'cancelled') refuse('is not for a cancelled contract')
  }
}

function couponOf(row: Row): Coupon {
  return {
    code: row.code,
    name: row.name,
    kind: row.kind,
    value: printDecimal(new Decimal(row.value)),
    ...(row.currency === null ? {} : { currency: row.currency }),
    ...(row.valid_from === null ? {} : { validFrom: row.valid_from }),
    ...(row.valid_until === null ? {} : { validUntil: row.valid_until }),
    ...(row.periods === null ? {} : { periods: row.periods }),
    ...(row.redemptions_max === null ? {} : { redemptionsMax: row.redemptions_max }),
  }
}
