/**
 * Delivery: what happened is told to the outside, to each endpoint that asked for it, at least once and with an id that stays the
 * same. A message and its deliveries are rows in PostgreSQL before the first attempt; a crash between the receiver's answer and
 * the row sends it again, with the same id.
 *
 * Each endpoint has a lane of its own: so many attempts at once, the next ones are read from its rows, and one timer until the
 * next is due. A slow endpoint holds only its lane. A lane exists in memory only while it has something to do.
 *
 * States of a delivery: pending → delivered, or → dead (refused for good, tried often enough, the endpoint disabled, its queue
 * full). A dead letter can be listed and replayed: then it is pending again. Order is not promised.
 *
 * It does not know what a message says; alert-feed.ts brings the alerts, and any room may call `emit`.
 */
import { randomBytes } from 'node:crypto'
import type { Pool, PoolClient } from 'pg'
import type { Clock } from '../clock.js'
import { ReleveError } from '../errors.js'
import { limits } from '../limits.js'
import type { Logger } from '../logger.js'
import type { Metrics } from '../metrics.js'
import { openAddressGuard } from './address.js'
import { type Mailer, openMailer } from './email.js'
import { type Channel, type Endpoint, type Endpoints, openEndpoints } from './endpoints.js'
import { openSecretBox } from './secret-box.js'
import { postWebhook } from './webhook.js'

/** Something to tell. */
export interface Message {
  /** Stable: the same id is told once, however often it is emitted. */
  readonly id: string
  /** «alert.triggered», «invoice.finalized» … */
  readonly type: string
  /** null: of the platform itself; then only platform-wide endpoints are told. */
  readonly tenant: string | null
  readonly data: unknown
  /** What endpoints may choose by. */
  readonly metric?: string
  readonly rule?: string | null
}

/** What became of one attempt. */
export type Attempt =
  | { readonly outcome: 'delivered' }
  /** Worth another attempt, not before the receiver said so. */
  | { readonly outcome: 'failed'; readonly error: string; readonly retryAfterMs?: number }
  /** Refused for good. */
  | { readonly outcome: 'refused'; readonly error: string }
  /** The endpoint wants nothing any more. */
  | { readonly outcome: 'gone'; readonly error: string }

export interface DeadLetter {
  readonly id: string
  readonly endpoint: string
  readonly channel: Channel
  readonly tenant: string | null
  readonly message: string
  readonly type: string
  readonly attempts: number
  readonly error: string | null
  readonly createdAt: number
  readonly diedAt: number
}

export interface DeliveryOptions {
  readonly postgres: Pool
  /** The real one, also where the service's is moved by hand: receivers hold a signature's time against their own clocks. */
  readonly clock: Clock
  readonly logger: Logger
  readonly metrics: Metrics
  readonly dataDirectory: string
  readonly version: string
  /** Ranges of one's own network that webhooks may go to. */
  readonly allowedRanges: readonly string[]
  readonly smtp: { readonly url: string; readonly from: string; readonly caFile: string | undefined } | undefined
  readonly retryMs: readonly number[]
}

interface Due {
  readonly serial: string
  readonly attempts: number
  readonly message: string
  readonly type: string
  readonly body: string
  readonly nextAt: number
}

interface Lane {
  readonly endpoint: string
  readonly channel: Channel
  readonly inFlight: Set<string>
  timer: NodeJS.Timeout | undefined
  filling: boolean
  again: boolean
}

const inFlightMax: Readonly<Record<Channel, number>> = {
  webhook: limits.webhooksInFlightMax,
  email: limits.emailsInFlightMax,
}
const PRUNE_MS = 3_600_000
const GAUGES_MS = 10_000

export async function openDelivery(options: DeliveryOptions): Promise<Delivery> {
  const { postgres, clock, dataDirectory, allowedRanges, smtp } = options
  const guard = openAddressGuard(allowedRanges)
  const endpoints = await openEndpoints({ postgres, clock, box: openSecretBox(dataDirectory), guard })
  const mailer = smtp === undefined ? undefined : openMailer({ ...smtp, timeoutMs: limits.smtpTimeoutMs })
  const delivery = new Delivery(options, endpoints, guard, mailer)
  await delivery.open()
  return delivery
}

export class Delivery {
  readonly endpoints: Endpoints
  readonly #o: DeliveryOptions
  readonly #guard: ReturnType<typeof openAddressGuard>
  readonly #mailer: Mailer | undefined
  readonly #lanes = new Map<string, Lane>()
  readonly #inFlight: Record<Channel, number> = { webhook: 0, email: 0 }
  /** Lanes that found no room among all of their channel. */
  readonly #starved: Record<Channel, Set<Lane>> = { webhook: new Set(), email: new Set() }
  readonly #working = new Set<Promise<void>>()
  readonly #pings = new Set<string>()
  #timers: NodeJS.Timeout[] = []
  #closed = false
  readonly #stop = new AbortController()
  #waiting = { count: 0, oldest: 0, failing: 0, why: '' }

  constructor(
    options: DeliveryOptions,
    endpoints: Endpoints,
    guard: ReturnType<typeof openAddressGuard>,
    mailer: Mailer | undefined,
  ) {
    this.#o = options
    this.endpoints = endpoints
    this.#guard = guard
    this.#mailer = mailer
  }

  get hasMail(): boolean {
    return this.#mailer !== undefined
  }

  async open(): Promise<void> {
    const { rows } = await this.#o.postgres.query(`SELECT DISTINCT endpoint FROM deliveries WHERE state = 'pending'`)
    for (const { endpoint } of rows) this.#wake(endpoint)
    const every = (ms: number, work: () => Promise<void>): void => {
      const timer = setInterval(() => {
        work().catch((error: unknown) => this.#o.logger.debug({ error: String(error) }, 'delivery: a look failed'))
      }, ms)
      timer.unref()
      this.#timers.push(timer)
    }
    every(PRUNE_MS, () => this.prune())
    every(GAUGES_MS, () => this.refresh())
    await this.refresh()
  }

  // ---- What there is to tell ---------------------------------------------------------------------------------------------

  /**
   * Resolves when the message and its deliveries are rows; with `client`, in its transaction, and then `sent` must be called after
   * the commit. An endpoint whose queue is full gets a dead letter instead.
   */
  async emit(message: Message, client?: PoolClient): Promise<{ sent(): void }> {
    const { postgres, clock, metrics } = this.#o
    const now = clock.now()
    const { id, type, tenant, metric = null, rule = null } = message
    const family = `${type.slice(0, type.indexOf('.'))}.*`
    const body = JSON.stringify({ type, timestamp: new Date(now).toISOString(), data: message.data })
    const { rows } = await (client ?? postgres).query(
      `WITH told AS (
         SELECT e.id, (SELECT count(*) FROM (
             SELECT 1 FROM deliveries d WHERE d.endpoint = e.id AND d.state = 'pending' LIMIT $9) waiting) >= $9 AS is_full
         FROM delivery_endpoints e
         WHERE e.state = 'enabled' AND (e.tenant IS NULL OR e.tenant = $3) AND e.events && $4::text[]
           AND (e.metrics IS NULL OR $5::text = ANY (e.metrics)) AND (e.rules IS NULL OR $6::text = ANY (e.rules))
       ), message AS (
         INSERT INTO delivery_messages (id, type, tenant, body, created_at)
         SELECT $1, $2, $3, $7, $8 WHERE EXISTS (SELECT 1 FROM told) ON CONFLICT DO NOTHING
       )
       INSERT INTO deliveries (message, endpoint, state, next_at, error, created_at, changed_at)
       SELECT $1, id, CASE WHEN is_full THEN 'dead' ELSE 'pending' END, $8, CASE WHEN is_full THEN 'the queue is full' END, $8, $8 FROM told
       ON CONFLICT DO NOTHING RETURNING endpoint, state`,
      [id, type, tenant, [type, family, '*'], metric, rule, body, now, limits.endpointQueueMax],
    )
    const sent = (): void => {
      for (const { endpoint, state } of rows) {
        if (state === 'pending') this.#wake(endpoint)
        else metrics.deliveries.inc({ channel: this.endpoints.peek(endpoint)?.channel ?? 'webhook', outcome: 'dead' })
      }
    }
    if (client === undefined) sent()
    return { sent }
  }

  /** One attempt now, with a message that says only that it is a test. Nothing is kept of it. */
  async ping(channel: Channel, id: string, tenant: string | null): Promise<Attempt> {
    const endpoint = this.endpoints.get(channel, id, tenant)
    if (this.#pings.has(id) || this.#pings.size >= limits.pingsMax)
      throw new ReleveError('too_many_requests', 'a test is under way', { retryAfterS: 5 })
    this.#pings.add(id)
    try {
      const type = `${channel}.test`
      const timestamp = new Date(this.#o.clock.now()).toISOString()
      const data = { endpoint: id, text: 'releve says hello' }
      const body = JSON.stringify({ type, timestamp, data })
      return await this.#send(endpoint, { message: `msg_${randomBytes(12).toString('hex')}`, type, body })
    } finally {
      this.#pings.delete(id)
    }
  }

  // ---- Dead letters ------------------------------------------------------------------------------------------------------

  async deadLetters(query: {
    readonly tenant: string | null
    readonly endpoint?: string | undefined
    readonly after: string
    readonly limit: number
  }): Promise<DeadLetter[]> {
    const { rows } = await this.#o.postgres.query(
      `SELECT d.*, e.channel, e.tenant AS owner, m.type FROM deliveries d JOIN delivery_endpoints e ON e.id = d.endpoint
       JOIN delivery_messages m ON m.id = d.message
       WHERE d.state = 'dead' AND d.serial > $1 AND ($2::text IS NULL OR e.tenant = $2) AND ($3::text IS NULL OR d.endpoint = $3)
       ORDER BY d.serial LIMIT $4`,
      [query.after, query.tenant, query.endpoint ?? null, Math.min(query.limit, limits.pageMax)],
    )
    return rows.map((row) => ({
      id: String(row.serial),
      endpoint: row.endpoint as string,
      channel: row.channel as Channel,
      tenant: row.owner as string | null,
      message: row.message as string,
      type: row.type as string,
      attempts: row.attempts as number,
      error: row.error as string | null,
      createdAt: Number(row.created_at),
      diedAt: Number(row.changed_at),
    }))
  }

  /** Dead letters of enabled endpoints become pending, from their first attempt on; as many as the queue has room for. */
  async replay(query: {
    readonly tenant: string | null
    readonly endpoint?: string | undefined
    readonly ids?: readonly string[] | undefined
  }): Promise<{ replayed: number }> {
    const { postgres, clock } = this.#o
    const { rows } = await postgres.query(
      `UPDATE deliveries SET state = 'pending', attempts = 0, next_at = $4, changed_at = $4 WHERE serial IN (
         SELECT d.serial FROM deliveries d JOIN delivery_endpoints e ON e.id = d.endpoint
         WHERE d.state = 'dead' AND e.state = 'enabled' AND ($1::text IS NULL OR e.tenant = $1)
           AND ($2::text IS NULL OR d.endpoint = $2) AND ($3::bigint[] IS NULL OR d.serial = ANY ($3))
         ORDER BY d.serial LIMIT $5)
       RETURNING endpoint`,
      [query.tenant, query.endpoint ?? null, query.ids ?? null, clock.now(), limits.pageMax],
    )
    for (const endpoint of new Set(rows.map((row) => row.endpoint as string))) this.#wake(endpoint)
    return { replayed: rows.length }
  }

  /** What waits for an endpoint that was disabled dies, so that it is seen and can be replayed. */
  async buryPending(endpoint: string, reason: string): Promise<void> {
    await this.#o.postgres.query(
      `UPDATE deliveries SET state = 'dead', error = coalesce(error, $2), changed_at = $3 WHERE endpoint = $1 AND state = 'pending'`,
      [endpoint, reason, this.#o.clock.now()],
    )
  }

  /** Old ends: what was delivered, and dead letters that nobody replayed. */
  async prune(): Promise<void> {
    const { postgres, clock } = this.#o
    const now = clock.now()
    await postgres.query(
      `DELETE FROM deliveries WHERE (state = 'delivered' AND changed_at < $1) OR (state = 'dead' AND changed_at < $2)`,
      [now - limits.deliveredKeptMs, now - limits.deadLettersKeptMs],
    )
    await postgres.query(
      `DELETE FROM delivery_messages m WHERE created_at < $1 AND NOT EXISTS (SELECT 1 FROM deliveries d WHERE d.message = m.id)`,
      [now - limits.deliveredKeptMs],
    )
  }

  // ---- What an operator sees ---------------------------------------------------------------------------------------------

  async refresh(): Promise<void> {
    const { postgres, clock, metrics } = this.#o
    const { rows } = await postgres.query(
      // Each by its own small index: what was delivered is most of the table.
      `SELECT count(*) AS waiting, min(created_at) AS oldest, (SELECT count(*) FROM deliveries WHERE state = 'dead') AS dead,
         count(*) FILTER (WHERE attempts > 1) AS failing,
         (SELECT endpoint || ': ' || error FROM deliveries WHERE state = 'pending' AND attempts > 1 ORDER BY changed_at DESC LIMIT 1) AS why
       FROM deliveries WHERE state = 'pending'`,
    )
    const { waiting, oldest, dead, failing, why } = rows[0]
    this.#waiting = { count: Number(waiting), oldest: Number(oldest ?? 0), failing: Number(failing), why: why ?? '' }
    metrics.deliveriesWaiting.set(this.#waiting.count)
    metrics.deadLetters.set(Number(dead))
    metrics.deliveryAgeSeconds.set(oldest === null ? 0 : Math.max(0, (clock.now() - Number(oldest)) / 1000))
  }

  /** What an operator should look at. */
  notes(): string[] {
    const notes: string[] = []
    const { count, oldest, failing, why } = this.#waiting
    const ageMs = this.#o.clock.now() - oldest
    if (count > 0 && ageMs > limits.deliveryLateMs)
      notes.push(`${count} deliveries wait, the oldest for ${Math.floor(ageMs / 60_000)} minutes`)
    if (failing > 0)
      notes.push(
        `${failing === 1 ? '1 delivery fails and is' : `${failing} deliveries fail and are`} tried again, ${why}`,
      )
    const off = this.endpoints.all().filter((e) => e.state === 'disabled' && e.reason !== 'by request')
    if (off.length > 0) notes.push(`${off.length} endpoints are disabled, ${off[0]!.id}: ${off[0]!.reason}`)
    const mails = this.endpoints.all().some((e) => e.channel === 'email' && e.state === 'enabled')
    if (mails && this.#mailer === undefined) notes.push('there are e-mail recipients, and RELEVE_SMTP_URL is not set')
    return notes
  }

  // ---- Lanes -------------------------------------------------------------------------------------------------------------

  #wake(endpointId: string): void {
    if (this.#closed) return
    let lane = this.#lanes.get(endpointId)
    if (lane === undefined) {
      const endpoint = this.endpoints.peek(endpointId)
      if (endpoint === undefined) return
      const { channel } = endpoint
      lane = { endpoint: endpointId, channel, inFlight: new Set(), timer: undefined, filling: false, again: false }
      this.#lanes.set(endpointId, lane)
    }
    this.#fillSoon(lane)
  }

  /** One filling at a time for each lane; what comes meanwhile makes it look again. */
  #fillSoon(lane: Lane): void {
    if (this.#closed) return
    lane.again = true
    if (lane.filling) return
    lane.filling = true
    const work = (async () => {
      while (lane.again && !this.#closed) {
        lane.again = false
        await this.#fill(lane)
      }
    })()
      .catch((error: unknown) => {
        this.#o.logger.warn({ endpoint: lane.endpoint, error: String(error) }, 'delivery: cannot read what waits')
        this.#setTimer(lane, 1_000)
      })
      .finally(() => {
        lane.filling = false
        const isIdle = lane.inFlight.size === 0 && lane.timer === undefined && !this.#starved[lane.channel].has(lane)
        if (lane.again) this.#fillSoon(lane)
        else if (isIdle) this.#lanes.delete(lane.endpoint)
      })
    this.#track(work)
  }

  async #fill(lane: Lane): Promise<void> {
    clearTimeout(lane.timer)
    lane.timer = undefined
    const { channel } = lane
    const own = limits.endpointInFlightMax - lane.inFlight.size
    if (own <= 0) return
    if (this.#inFlight[channel] >= inFlightMax[channel]) {
      this.#starved[channel].add(lane)
      return
    }
    const { rows } = await this.#o.postgres.query(
      `SELECT d.serial, d.attempts, d.next_at, m.id, m.type, m.body FROM deliveries d JOIN delivery_messages m ON m.id = d.message
       WHERE d.endpoint = $1 AND d.state = 'pending' AND d.serial <> ALL ($2::bigint[]) ORDER BY d.next_at, d.serial LIMIT $3`,
      [lane.endpoint, [...lane.inFlight], own + 1],
    )
    for (const row of rows) {
      const { attempts, id: message, type, body } = row
      const due: Due = { serial: String(row.serial), attempts, message, type, body, nextAt: Number(row.next_at) }
      const waitMs = due.nextAt - this.#o.clock.now()
      if (waitMs > 0) {
        this.#setTimer(lane, waitMs)
        return
      }
      if (lane.inFlight.size >= limits.endpointInFlightMax) return
      if (this.#inFlight[channel] >= inFlightMax[channel]) {
        this.#starved[channel].add(lane)
        return
      }
      this.#start(lane, due)
    }
  }

  #setTimer(lane: Lane, ms: number): void {
    clearTimeout(lane.timer)
    lane.timer = setTimeout(() => this.#fillSoon(lane), Math.min(ms, 2 ** 31 - 1))
  }

  #start(lane: Lane, due: Due): void {
    const { channel } = lane
    lane.inFlight.add(due.serial)
    this.#inFlight[channel] += 1
    const work = this.#deliver(lane.endpoint, due)
      .catch((error: unknown) => {
        this.#o.logger.error({ endpoint: lane.endpoint, error: String(error) }, 'delivery: an attempt came to nothing')
      })
      .finally(() => {
        lane.inFlight.delete(due.serial)
        this.#inFlight[channel] -= 1
        this.#fillSoon(lane)
        const [next] = this.#starved[channel]
        if (next === undefined) return
        this.#starved[channel].delete(next)
        this.#fillSoon(next)
      })
    this.#track(work)
  }

  #track(work: Promise<void>): void {
    this.#working.add(work)
    void work.finally(() => this.#working.delete(work))
  }

  // ---- One attempt -------------------------------------------------------------------------------------------------------

  async #send(endpoint: Endpoint, due: Pick<Due, 'message' | 'type' | 'body'>): Promise<Attempt> {
    const { clock, version } = this.#o
    if (endpoint.channel === 'email') {
      if (this.#mailer === undefined) return { outcome: 'failed', error: 'RELEVE_SMTP_URL is not set' }
      return this.#mailer.send({ to: endpoint.target, language: endpoint.language, id: due.message, body: due.body })
    }
    let secrets: string[]
    try {
      secrets = this.endpoints.secretsOf(endpoint.id)
    } catch (error) {
      return { outcome: 'failed', error: (error as Error).message }
    }
    const timestamp = Math.floor(clock.now() / 1000)
    return postWebhook({
      url: endpoint.target,
      message: { id: due.message, timestamp, body: due.body },
      secrets,
      guard: this.#guard,
      timeoutMs: limits.webhookTimeoutMs,
      userAgent: `releve/${version}`,
      stop: this.#stop.signal,
    })
  }

  async #deliver(endpointId: string, due: Due): Promise<void> {
    const endpoint = this.endpoints.peek(endpointId)
    if (endpoint === undefined) return
    const { metrics } = this.#o
    if (endpoint.state === 'disabled') {
      await this.#insist(() => this.buryPending(endpointId, `disabled: ${endpoint.reason}`))
      return
    }
    const attempt = await this.#send(endpoint, due)
    // An attempt that the stop cut off is no attempt: it comes again at the next start.
    if (this.#stop.signal.aborted && attempt.outcome !== 'delivered') return
    const after = this.#judge(attempt, due.attempts + 1)
    metrics.deliveries.inc({ channel: endpoint.channel, outcome: after.state === 'pending' ? 'retried' : after.state })
    await this.#insist(() => this.#record(endpoint, due, attempt, after))
  }

  /** `attempts` with this one; `at` is when it was judged, and what is written later is of that moment. */
  #judge(
    attempt: Attempt,
    attempts: number,
  ): { state: 'delivered' | 'dead' | 'pending'; at: number; nextAt: number; error: string | null } {
    const at = this.#o.clock.now()
    if (attempt.outcome === 'delivered') return { state: 'delivered', at, nextAt: at, error: null }
    const { error } = attempt
    const delay = this.#o.retryMs[attempts - 1]
    if (attempt.outcome !== 'failed' || delay === undefined) return { state: 'dead', at, nextAt: at, error }
    // From 80 to 120 %: what failed together does not come back together.
    const jittered = Math.round(delay * (0.8 + 0.4 * Math.random()))
    const asked = Math.min(attempt.retryAfterMs ?? 0, limits.retryAfterMaxMs)
    return { state: 'pending', at, nextAt: at + Math.max(jittered, asked), error }
  }

  async #record(
    endpoint: Endpoint,
    due: Due,
    attempt: Attempt,
    { state, at: now, nextAt, error }: { state: string; at: number; nextAt: number; error: string | null },
  ): Promise<void> {
    await this.#o.postgres.query(
      `UPDATE deliveries SET state = $2, attempts = $3, next_at = $4, error = $5, changed_at = $6 WHERE serial = $1 AND state = 'pending'`,
      [due.serial, state, due.attempts + 1, nextAt, error, now],
    )
    const { failingSince = null } = this.endpoints.peek(endpoint.id) ?? {}
    if (attempt.outcome === 'delivered' ? failingSince !== null : failingSince === null)
      await this.endpoints.markFailing(endpoint.id, attempt.outcome === 'delivered' ? null : now)
    const days = Math.round(limits.endpointFailingMs / 86_400_000)
    const reason =
      attempt.outcome === 'gone'
        ? attempt.error
        : state === 'dead' && failingSince !== null && now - failingSince > limits.endpointFailingMs
          ? `nothing was delivered for ${days} days, last: ${error}`
          : undefined
    if (reason === undefined) return
    await this.endpoints.disable(endpoint.id, reason)
    await this.buryPending(endpoint.id, `disabled: ${reason}`)
    this.#o.logger.warn({ endpoint: endpoint.id, reason }, 'an endpoint is disabled')
  }

  /** What was answered must become a row; while PostgreSQL is away it waits here, and a crash sends once more. */
  async #insist(work: () => Promise<void>): Promise<void> {
    for (let delay = 50; ; delay = Math.min(2 * delay, 2_000)) {
      try {
        await work()
        return
      } catch (error) {
        if (this.#closed) throw error
        this.#o.logger.warn({ error: String(error) }, 'delivery: cannot record an attempt, done again')
        await new Promise((resolve) => setTimeout(resolve, delay))
      }
    }
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#stop.abort()
    for (const timer of this.#timers) clearInterval(timer)
    for (const lane of this.#lanes.values()) clearTimeout(lane.timer)
    await Promise.allSettled(this.#working)
    this.#mailer?.close()
  }
}
