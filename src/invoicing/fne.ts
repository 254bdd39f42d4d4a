/**
 * Côte d'Ivoire's clearance system (FNE) as a certifier: one HTTP call per document, in the words of its external API.
 *
 *   POST {base}/external/invoices/sign           an invoice → {reference, token, balance_sticker, warning, invoice: {id, items: [{id}]}}
 *   POST {base}/external/invoices/{id}/refund    a credit note of the whole: {items: [{id, quantity}]}
 *
 * The API has no idempotency and each call uses a sticker. So an answer is believed only when it says clearly what happened: taken
 * (2xx that can be read), refused (400, 404, 422), surely not taken (401, 403, 429, no connection). Everything else (a time-out, a
 * connection that broke, 5xx, an answer that cannot be read) is unknown.
 *
 * Each line goes as one item of quantity 1 with its net amount, since tiers have no unit price; discounts are spread over the
 * lines that they lower. Amounts are whole CFA francs.
 */
import { readFileSync } from 'node:fs'
import type { Config } from '../config.js'
import { Decimal } from '../decimal.js'
import { ReleveError } from '../errors.js'
import { limits } from '../limits.js'
import { spread } from '../rating/adjust.js'
import type { Certifier, CertifyOutcome } from './certification.js'
import { type Invoice, netOf } from './invoice.js'
import { opposite } from './state.js'

export interface FneOptions {
  /** Such as https://…/ws, without a slash at its end. */
  readonly base: string
  readonly token: string
  readonly timeoutMs?: number
}

/** By the name that legal entities use. */
export function openCertifiers(config: Pick<Config, 'fne'>): Readonly<Record<string, Certifier>> {
  if (config.fne === undefined) return {}
  return { fne: openFne({ base: config.fne.url, token: readFileSync(config.fne.tokenFile, 'utf8').trim() }) }
}

/** What a refund needs. */
interface Details {
  readonly id: string
  readonly items: readonly string[]
  readonly ttc: string
}

export function openFne(options: FneOptions): Certifier {
  return {
    assertCertifiable(invoice, original) {
      if (invoice.currency !== 'XOF')
        throw new ReleveError('unprocessable', `fne: takes CFA francs, the invoice is in ${invoice.currency}`)
      if (original === null) itemsOf(invoice)
      else refundOf(invoice, original.details)
    },
    certify(invoice, original) {
      if (original === null) return call(options, '/external/invoices/sign', signBody(invoice), invoice)
      const { id, body } = refundOf(invoice, original.details)
      return call(options, `/external/invoices/${encodeURIComponent(id)}/refund`, body, invoice)
    },
  }
}

function signBody(invoice: Invoice): string {
  const { customer, seller } = invoice
  const { certification } = seller
  const ncc = customer.registrations.NCC
  const template = customer.country !== 'CI' ? 'B2F' : ncc === undefined ? 'B2C' : 'B2B'
  return jsonOf({
    invoiceType: 'sale',
    paymentMethod: certification?.paymentMethod,
    template,
    ...(template === 'B2B' ? { clientNcc: ncc } : {}),
    pointOfSale: certification?.pointOfSale,
    establishment: certification?.establishment,
    items: itemsOf(invoice),
  })
}

interface Item {
  readonly description: string
  readonly quantity: number
  readonly amount: Amount
  readonly taxes: readonly string[]
}

/** The lines with a positive amount, less their share of the negative ones of the same rate. They sum to the invoice's HT. */
function itemsOf(invoice: Invoice): Item[] {
  const rates = [...new Set(invoice.lines.map((line) => line.taxRate))]
  return rates.flatMap((rate) => {
    const lines = invoice.lines
      .filter((line) => line.taxRate === rate)
      .map((line) => ({ ...line, amount: netOf(line) }))
    const charged = lines.filter((line) => !line.amount.startsWith('-') && !new Decimal(line.amount).isZero())
    const off = lines
      .filter((line) => line.amount.startsWith('-'))
      .reduce((all, line) => all.minus(line.amount), new Decimal(0))
    const amounts = charged.map((line) => line.amount)
    const whole = amounts.reduce((all, amount) => all.plus(amount), new Decimal(0))
    if (off.gt(whole))
      throw new ReleveError('unprocessable', 'fne: discounts are more than the lines of their tax rate')
    const shares = spread(off.toFixed(), amounts, invoice.currency)
    return charged.flatMap((line, i): Item[] => {
      const amount = new Decimal(line.amount).minus(shares[i]!).toFixed()
      if (amount === '0') return []
      return [
        {
          description: `${line.label.fr} — ${line.explanation.fr}`.slice(0, 255),
          quantity: 1,
          amount: new Amount(amount),
          taxes: [taxCode(rate, invoice.customer.taxCategory)],
        },
      ]
    })
  })
}

/** TVA 18 %, TVAB 9 %; without tax by an agreement (TVAC) or by law (TVAD). */
function taxCode(rate: string, category: string): string {
  const percent = new Decimal(rate)
  if (percent.eq(18)) return 'TVA'
  if (percent.eq(9)) return 'TVAB'
  if (percent.isZero()) return category === 'E' ? 'TVAD' : 'TVAC'
  throw new ReleveError('unprocessable', `fne: there is no tax of ${rate} %`)
}

function refundOf(note: Invoice, details: unknown): { readonly id: string; readonly body: string } {
  const original = details as Details | null
  if (original === null)
    throw new ReleveError(
      'unprocessable',
      'fne: the items of this invoice are not known here; refund it in the system itself',
    )
  if (opposite(note.ttc) !== original.ttc)
    throw new ReleveError('unprocessable', 'fne: refunds whole items; credit the whole invoice')
  return { id: original.id, body: jsonOf({ items: original.items.map((id) => ({ id, quantity: 1 })) }) }
}

async function call(
  { base, token, timeoutMs = limits.certifyTimeoutMs }: FneOptions,
  path: string,
  body: string,
  invoice: Invoice,
): Promise<CertifyOutcome> {
  let answer: Response
  try {
    answer = await fetch(`${base}${path}`, {
      method: 'POST',
      headers: { authorization: `Bearer ${token}`, 'content-type': 'application/json', accept: 'application/json' },
      body,
      redirect: 'manual',
      signal: AbortSignal.timeout(timeoutMs),
    })
  } catch (error) {
    return notReached(error)
  }
  let text: string
  try {
    text = await textOf(answer)
  } catch (error) {
    // Refusals are clear by their status alone.
    if (answer.ok) return { outcome: 'unknown', reason: `the answer broke off: ${messageOf(error)}` }
    text = ''
  }
  const { status } = answer
  const said = `${status} ${text.slice(0, limits.certifyReasonMax)}`.trim()
  if (answer.ok) return certifiedOf(text, invoice) ?? { outcome: 'unknown', reason: `cannot read the answer: ${said}` }
  if (status === 429) {
    const seconds = Number(answer.headers.get('retry-after') ?? Number.NaN)
    return { outcome: 'not_taken', reason: said, ...(seconds > 0 ? { retryAfterMs: seconds * 1000 } : {}) }
  }
  if (status === 401 || status === 403)
    return { outcome: 'not_taken', reason: said, retryAfterMs: limits.certifyRetryMaxMs }
  if (status === 400 || status === 404 || status === 422) return { outcome: 'rejected', reason: said }
  return { outcome: 'unknown', reason: said }
}

/** Errors that come before a byte of the request has left. */
const BEFORE = ['ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN', 'ENETUNREACH', 'EHOSTUNREACH', 'UND_ERR_CONNECT_TIMEOUT']

function notReached(error: unknown): CertifyOutcome {
  const cause = (error as { cause?: { code?: string; errors?: readonly { code?: string }[] } }).cause
  const codes = cause?.errors?.map((one) => one.code) ?? [cause?.code]
  const before = codes.length > 0 && codes.every((code) => code !== undefined && BEFORE.includes(code))
  return { outcome: before ? 'not_taken' : 'unknown', reason: [messageOf(error), ...codes.filter(Boolean)].join(', ') }
}

function certifiedOf(text: string, invoice: Invoice): CertifyOutcome | null {
  try {
    const answer = JSON.parse(text) as {
      reference?: unknown
      token?: unknown
      invoice?: { id?: unknown; items?: { id?: unknown }[] }
    }
    const { reference, token } = answer
    if (typeof reference !== 'string' || reference === '' || typeof token !== 'string') return null
    const id = answer.invoice?.id
    const items = answer.invoice?.items?.map((item) => item.id)
    const details: Details | null =
      typeof id === 'string' && items?.every((item) => typeof item === 'string') === true
        ? { id, items: items as string[], ttc: invoice.ttc }
        : null
    return { outcome: 'certified', reference, token, details }
  } catch {
    return null
  }
}

async function textOf(answer: Response): Promise<string> {
  const parts: Uint8Array[] = []
  let length = 0
  for await (const part of answer.body ?? []) {
    length += part.length
    if (length > limits.certifyAnswerBytesMax) throw new Error('the answer is too long')
    parts.push(part)
  }
  return Buffer.concat(parts).toString()
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))

/** Decimal text that goes into JSON as a number, digit by digit: no float carries an amount. */
class Amount {
  readonly digits: string
  constructor(digits: string) {
    this.digits = digits
  }
  toJSON(): string {
    return `\u0001${this.digits}`
  }
}

const jsonOf = (value: unknown): string => JSON.stringify(value).replaceAll(/"\\u0001([0-9.]+)"/g, '$1')
