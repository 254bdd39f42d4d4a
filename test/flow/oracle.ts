/**
 * Usage counted another way than src does: a plain list of what the senders sent, verdicts from maps by identity, windows from
 * Intl's wall-clock fields instead of luxon's arithmetic, and BigInt sums over single events instead of rows of minutes.
 */
import type { Aggregation } from '../../src/catalog/metric.js'
import type { EventInput } from '../system.js'

interface Kept {
  readonly event: EventInput
  readonly time: number
  /** In thousandths. */
  readonly value: bigint
  readonly order: number
  voided: boolean
}

export interface Question {
  readonly tenant: string
  readonly metric: string
  readonly aggregation: Aggregation
  readonly from: number
  readonly to: number
  readonly window: 'minute' | 'hour' | 'day' | 'month' | null
  readonly timeZone: string
  readonly groupBy: readonly string[]
  readonly subject?: string
  readonly dims?: Readonly<Record<string, string>>
}

export interface Figure {
  /** Wall-clock label of the window; empty for the whole range. */
  readonly window: string
  readonly groups: Readonly<Record<string, string>>
  readonly value: string | null
  readonly count: string
}

const thousandths = (text: string): bigint => {
  const [, sign = '', whole = '0', decimals = ''] = /^(-?)(\d+)(?:\.(\d+))?$/.exec(text)!
  const magnitude = BigInt(whole) * 1000n + BigInt(decimals.padEnd(3, '0'))
  return sign === '-' ? -magnitude : magnitude
}

const decimal = (value: bigint): string => {
  const digits = String(value < 0n ? -value : value).padStart(4, '0')
  const decimals = digits.slice(-3).replace(/0+$/, '')
  return `${value < 0n ? '-' : ''}${digits.slice(0, -3)}${decimals === '' ? '' : `.${decimals}`}`
}

/** sum / n with nine decimals, half to even. */
const quotient = (sum: bigint, n: bigint): string => {
  const scaled = (sum < 0n ? -sum : sum) * 1_000_000n
  let [whole, rest] = [scaled / n, scaled % n]
  if (2n * rest > n || (2n * rest === n && whole % 2n === 1n)) whole += 1n
  const digits = String(whole).padStart(10, '0')
  const decimals = digits.slice(-9).replace(/0+$/, '')
  return `${sum < 0n && whole !== 0n ? '-' : ''}${digits.slice(0, -9)}${decimals === '' ? '' : `.${decimals}`}`
}

const formats = new Map<string, Intl.DateTimeFormat>()
const labels = new Map<string, string>()

/** Wall clock of a zone, as YYYY-MM-DDTHH:MM and its offset in minutes. */
function wall(time: number, timeZone: string): string {
  const minute = Math.floor(time / 60_000) * 60_000
  const known = labels.get(`${timeZone}${minute}`)
  if (known !== undefined) return known
  let format = formats.get(timeZone)
  if (format === undefined) {
    format = new Intl.DateTimeFormat('en-GB', {
      timeZone,
      hourCycle: 'h23',
      year: 'numeric',
      month: '2-digit',
      day: '2-digit',
      hour: '2-digit',
      minute: '2-digit',
    })
    formats.set(timeZone, format)
  }
  const part = Object.fromEntries(format.formatToParts(minute).map(({ type, value }) => [type, value]))
  const local = `${part.year}-${part.month}-${part.day}T${part.hour}:${part.minute}`
  const label = `${local} ${(Date.parse(`${local}Z`) - minute) / 60_000}`
  labels.set(`${timeZone}${minute}`, label)
  return label
}

/** The label of the window that holds a time. Hours and minutes that the clock shows twice are told apart by their offset. */
export function windowLabel(time: number, window: Question['window'], timeZone: string): string {
  if (window === null) return ''
  const label = wall(time, timeZone)
  if (window === 'minute') return label
  if (window === 'hour') return `${label.slice(0, 13)}${label.slice(16)}`
  return label.slice(0, window === 'day' ? 10 : 7)
}

export class Oracle {
  readonly #byIdentity = new Map<string, Kept>()
  readonly #kept: Kept[] = []
  #order = 0

  /** What the shard must say of it. Events have a time. */
  take(event: EventInput): 'accepted' | 'duplicate' | 'conflict' {
    const identity = JSON.stringify([event.tenant, event.source ?? '', event.id])
    const content = (e: EventInput): string =>
      JSON.stringify([e.metric, e.subject ?? '', e.time, thousandths(e.value ?? '1').toString(), e.dims ?? {}])
    const known = this.#byIdentity.get(identity)
    if (event.kind === 'void') {
      if (known === undefined || content(known.event) !== content(event)) return 'conflict'
      if (known.voided) return 'duplicate'
      known.voided = true
      return 'accepted'
    }
    if (known !== undefined) return content(known.event) === content(event) ? 'duplicate' : 'conflict'
    this.#order += 1
    const kept = {
      event,
      time: Date.parse(event.time as string),
      value: thousandths(event.value ?? '1'),
      order: this.#order,
      voided: false,
    }
    this.#byIdentity.set(identity, kept)
    this.#kept.push(kept)
    return 'accepted'
  }

  /** Sorted by window and groups. A window whose events were all voided is in it, with the count 0. */
  answer(question: Question): Figure[] {
    const found = new Map<string, { figure: Pick<Figure, 'window' | 'groups'>; all: Kept[] }>()
    for (const kept of this.#kept) {
      const { event, time } = kept
      if (event.tenant !== question.tenant || event.metric !== question.metric) continue
      if (time < question.from || time >= question.to) continue
      if (question.subject !== undefined && (event.subject ?? '') !== question.subject) continue
      if (Object.entries(question.dims ?? {}).some(([name, value]) => (event.dims?.[name] ?? '') !== value)) continue
      const window = windowLabel(time, question.window, question.timeZone)
      const groups = Object.fromEntries(
        question.groupBy.map((name) => [name, name === 'subject' ? (event.subject ?? '') : (event.dims?.[name] ?? '')]),
      )
      const key = JSON.stringify([window, groups])
      const entry = found.get(key) ?? { figure: { window, groups }, all: [] }
      entry.all.push(kept)
      found.set(key, entry)
    }
    return [...found.entries()]
      .sort(([a], [b]) => (a < b ? -1 : 1))
      .map(([, { figure, all }]) => {
        const valid = all.filter((kept) => !kept.voided)
        return { ...figure, value: figureOf(question.aggregation, valid), count: String(valid.length) }
      })
  }
}

function figureOf(aggregation: Aggregation, kept: readonly Kept[]): string | null {
  const values = kept.map(({ value }) => value)
  const inOrder = [...values].sort((a, b) => (a < b ? -1 : 1))
  const sum = values.reduce((total, value) => total + value, 0n)
  switch (aggregation) {
    case 'sum':
      return decimal(sum)
    case 'count':
      return String(kept.length)
    case 'unique':
      return String(new Set(kept.map(({ event }) => event.dims!.user)).size)
    case 'average':
      return kept.length === 0 ? null : quotient(sum, BigInt(kept.length))
    case 'max':
      return kept.length === 0 ? null : decimal(inOrder.at(-1)!)
    case 'min':
      return kept.length === 0 ? null : decimal(inOrder[0]!)
    case 'latest':
      return kept.length === 0
        ? null
        : decimal(kept.reduce((a, b) => (b.time > a.time || (b.time === a.time && b.order > a.order) ? b : a)).value)
    // Not by window: test/rollup/measure.test.ts.
    case 'weighted_sum':
    case 'percentile':
      return null
  }
}
