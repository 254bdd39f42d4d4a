/**
 * Alerting: the alert rules between the API, the catalogue and the shards. Thresholds, steps and forecasts go to the balances with
 * the entitlements; silences are judged here. The clock's tick looks at what only time brings about; usage is never polled.
 */
import type { Pool } from 'pg'
import type { Catalog } from './catalog/catalog.js'
import { isLive } from './catalog/metric.js'
import { midnightOf } from './catalog/schedule.js'
import type { Clock } from './clock.js'
import { ReleveError } from './errors.js'
import type { StreamFlow } from './flow.js'
import type { ItemAlerts } from './item-alerts.js'
import { limits } from './limits.js'
import type { Logger } from './logger.js'
import type { Alerts } from './quota/alerts.js'
import type { LiveEntitlement } from './quota/balance.js'
import type { Listening } from './quota/heard.js'
import {
  type AlertRule,
  openRules,
  parseTerms,
  type RuleKind,
  type Rules,
  type RuleTerms,
  withRules,
} from './quota/rules.js'
import { Silences } from './quota/silence.js'

export interface RuleInput {
  readonly tenant: string
  readonly metric: string
  readonly kind: RuleKind
  readonly name?: string | undefined
  readonly enabled?: boolean | undefined
  readonly terms: RuleTerms
}

interface AlertingOptions {
  readonly postgres: Pool
  readonly clock: Clock
  readonly logger: Logger
  readonly catalog: Catalog
  readonly alerts: Alerts
  readonly items: ItemAlerts
  /** Resolves when the rules act in the shards. */
  readonly onChange: () => Promise<void>
}

/** Calendar months of an item without a contract are counted from here. */
const BARE_START = '2020-01-01'

export class Alerting {
  readonly #o: AlertingOptions
  readonly #rules: Rules
  readonly #silences: Silences
  #flows: readonly StreamFlow[] = []
  #streamOf: (tenant: string) => number = () => 0
  #timer: NodeJS.Timeout | undefined
  #ticking: Promise<void> = Promise.resolve()

  private constructor(options: AlertingOptions, rules: Rules) {
    this.#o = options
    this.#rules = rules
    this.#silences = new Silences(options.postgres)
  }

  static async open(options: AlertingOptions): Promise<Alerting> {
    const alerting = new Alerting(options, await openRules(options))
    await alerting.#silences.open(alerting.#rules.all(), await options.alerts.silent(), options.clock.now())
    return alerting
  }

  start(flows: readonly StreamFlow[], streamOf: (tenant: string) => number): void {
    this.#flows = flows
    this.#streamOf = streamOf
    this.#timer = setInterval(() => {
      this.tick().catch((error: unknown) => {
        this.#o.logger.warn({ error: String(error) }, 'forecasts and silences could not be looked at, done again')
      })
    }, limits.alertTickMs)
    this.#timer.unref()
  }

  /** The entitlements with what the rules ask for, as far as balances judge it. */
  add(entitlements: readonly LiveEntitlement[]): LiveEntitlement[] {
    const all = withRules(entitlements, this.#rules.all(), (tenant, metric) => this.bareEntitlement(tenant, metric))
    return this.#o.items.take(all)
  }

  /** A metric of a tenant that no contract item gives: unlimited, by calendar months in the tenant's zone. */
  bareEntitlement(tenant: string, metric: string): LiveEntitlement | undefined {
    const book = this.#o.catalog.book()
    const customer = book.customers.get(tenant)
    const known = book.snapshot.metrics.find(({ key }) => key === metric)
    if (customer === undefined || known === undefined || !isLive(known.aggregation)) return undefined
    const { timeZone } = customer
    const anchor = midnightOf(BARE_START, timeZone)
    const none = { contract: '', product: '', limit: null, limitVersion: 1, thresholds: [] }
    return { item: `of ${tenant}`, tenant, metric, aggregation: known.aggregation, anchor, timeZone, ...none }
  }

  listening(): Listening[] {
    return this.#silences.listening()
  }

  list(tenant: string | null, metric?: string): AlertRule[] {
    return this.#rules.list(tenant, metric)
  }

  get(id: string, tenant: string | null): AlertRule {
    return this.#rules.get(id, tenant)
  }

  async create({ name = '', enabled = true, ...input }: RuleInput): Promise<AlertRule> {
    const { catalog } = this.#o
    if (!catalog.book().customers.has(input.tenant))
      throw new ReleveError('unprocessable', `tenant: there is no customer ${input.tenant}`)
    const { aggregation } = catalog.metric(input.metric)
    if (input.kind !== 'silence' && !isLive(aggregation))
      throw new ReleveError(
        'unprocessable',
        `metric: a ${aggregation} has no live figure, so only its silence can be told`,
      )
    const terms = parseTerms(input.kind, input.terms, aggregation)
    const rule = await this.#rules.create({ ...input, name, enabled, terms })
    await this.#changed()
    return rule
  }

  async change(
    id: string,
    tenant: string | null,
    to: { name?: string | undefined; enabled?: boolean | undefined; terms: RuleTerms },
  ): Promise<AlertRule> {
    const { name, enabled, terms, kind, metric } = this.#rules.get(id, tenant)
    // A forecast has either of its two members.
    const given =
      Object.keys(to.terms).length === 0 ? terms : kind === 'forecast' ? to.terms : { ...terms, ...to.terms }
    const checked = parseTerms(kind, given, this.#o.catalog.metric(metric).aggregation)
    const rule = await this.#rules.change(id, { name: to.name ?? name, enabled: to.enabled ?? enabled, terms: checked })
    await this.#changed()
    return rule
  }

  async remove(id: string, tenant: string | null): Promise<AlertRule> {
    const rule = this.#rules.get(id, tenant)
    await this.#rules.remove(id)
    await this.#changed()
    return rule
  }

  async #changed(): Promise<void> {
    this.#silences.setRules(this.#rules.all())
    await this.#o.onChange()
  }

  /** One look at forecasts and silences; one after the other. */
  tick(): Promise<void> {
    const done = this.#ticking.then(() => this.#look())
    this.#ticking = done.catch(() => {})
    return done
  }

  async #look(): Promise<void> {
    const now = this.#o.clock.now()
    for (const flow of this.#flows) {
      const isMine = (tenant: string): boolean => this.#streamOf(tenant) === flow.stream
      await flow.tick(now, (heard, at) => this.#silences.judge({ heard, now, isMine, ...at }))
    }
    // Who fell silent is known from the alerts, so those come first.
    await this.#o.alerts.settled()
    await this.#silences.save(now)
    for (const flow of this.#flows) {
      await this.#o.items.look(flow, (tenant) => this.#streamOf(tenant) === flow.stream)
    }
    await this.#o.alerts.settled()
  }

  notes(): string[] {
    const { refused } = this.#silences
    return refused === 0
      ? []
      : [`subjects whose silence is not watched, for more than ${limits.silentSubjectsMax} are: ${refused}`]
  }

  /** What was heard so far is written, if it can be. */
  async close(): Promise<void> {
    clearInterval(this.#timer)
    if (this.#flows.length > 0) await this.tick().catch(() => {})
  }
}
