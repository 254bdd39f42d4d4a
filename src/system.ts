/**
 * System: everything that the service can do, as plain functions. The doors (http, nats, cli) call these and
 * nothing behind them. Opens the rooms in the order of the road and closes them in reverse.
 */
import { randomBytes } from 'node:crypto'
import { hostname } from 'node:os'
import { join } from 'node:path'
import { type Keys, openKeys } from './access/keys.js'
import { TenantRates } from './access/rates.js'
import { Alerting } from './alerting.js'
import { Answers } from './answers.js'
import { Backups } from './backup.js'
import { Billing } from './billing.js'
import { CardinalityRules } from './cardinality.js'
import { type Catalog, openCatalog } from './catalog/catalog.js'
import { Coupons } from './catalog/coupons.js'
import { isLive } from './catalog/metric.js'
import { watchTrials } from './catalog/trial-sweep.js'
import { type Clock, systemClock } from './clock.js'
import type { Config } from './config.js'
import { openCrashPoints } from './crash-points.js'
import { IdFiles } from './dedupe/id-files.js'
import { runEntriesIn } from './dedupe/run-file.js'
import { openRunPool, type RunPool } from './dedupe/run-pool.js'
import { openAlertFeed } from './delivery/alert-feed.js'
import { type Delivery, openDelivery } from './delivery/delivery.js'
import { type OutboxFeed, openOutboxFeed } from './delivery/outbox.js'
import { type Engines, isAway, lockDataDirectory, openEngines } from './engines/engines.js'
import { migrate } from './engines/migrate.js'
import { ReleveError } from './errors.js'
import { streamOf } from './event.js'
import { openFlow, type StreamFlow, type Totals } from './flow.js'
import { encodeFrame } from './frame.js'
import type { CloudEventHeaders } from './ingest/cloudevents-binary.js'
import type { BodyFormat } from './ingest/ingest.js'
import { type RefusalCode, shardVerdictNames } from './ingest/verdict.js'
import { Intake } from './intake.js'
import { Certifications } from './invoicing/certification.js'
import { invoicedUntil } from './invoicing/close.js'
import { openCertifiers } from './invoicing/fne.js'
import { Invoicing } from './invoicing/invoicing.js'
import { ItemAlerts } from './item-alerts.js'
import { limits } from './limits.js'
import { LiveItems, roomsOf } from './live-items.js'
import { realDisk, syncingSoon } from './log/disk.js'
import { type FileLog, openFileLog } from './log/files.js'
import type { Logger } from './logger.js'
import { type Loop, watchLoop } from './loop.js'
import { Meters } from './meters.js'
import { type Metrics, openMetrics } from './metrics.js'
import { Objects } from './objects/objects.js'
import { sqlDirectory } from './paths.js'
import { watchPacks } from './prepaid/forfeit-sweep.js'
import { Prepaid } from './prepaid/prepaid.js'
import { type Alerts, openAlerts } from './quota/alerts.js'
import type { LiveEntitlement } from './quota/balance.js'
import { Guard, type ReservationView } from './quota/guard.js'
import { Journal } from './quota/journal.js'
import { openPolicies, type Policies, type Policy } from './quota/policy.js'
import { Refusals } from './refusals.js'
import { type ArchivePool, openArchivePool } from './rollup/archive-pool.js'
import { audit } from './rollup/audit.js'
import { type RebuildReport, rebuild } from './rollup/rebuild.js'
import { openRepair, type Repair } from './rollup/repair.js'
import { openRollup, type Rollup } from './rollup/rollup.js'
import { roomIn } from './room.js'
import { type JudgeHead, openShardThread, type ShardThread } from './shard.js'
import type { Sweep } from './sweep.js'
import { openTracing, type Tracing } from './tracing.js'
import { Imports } from './usage-data/import.js'
import { UsageData } from './usage-data/usage-data.js'
import { VERSION } from './version.js'

export type EventFormat = BodyFormat

export interface IngestAnswer {
  readonly received: number
  readonly stored: number
  readonly refused: number
  /** The first limits.answerRefusalsMax of them. */
  readonly refusals: readonly { index: number; code: RefusalCode; field: string; message: string; id: string }[]
  /** Only with `wait`: what the shard made of the stored events. */
  readonly applied?: {
    readonly accepted: number
    readonly duplicate: number
    readonly conflict: number
    /** Per event of the request: refused, accepted, duplicate or conflict. */
    readonly verdicts: readonly string[]
  }
}

/** The event of a reservation: what the reservation does not say itself. */
export interface ReservedEvent {
  readonly id: string
  readonly source?: string
  readonly time?: string | number
  readonly dims?: Readonly<Record<string, string>>
}

/** How a door beside HTTP is. */
export interface DoorState {
  readonly up: boolean
  readonly state: string
  /** Why it is not up, for an operator. */
  readonly reason?: string
  /** It works, and an operator should look at it before it does not. */
  readonly warning?: string
}

export interface Health {
  readonly ready: boolean
  readonly engines: Record<
    string,
    { readonly up: boolean; readonly kind: string; readonly version: string; readonly restarts: number }
  >
  readonly streams: readonly {
    readonly stream: number
    readonly state: string
    readonly lagRecords: number
    readonly flushLagMs: number
    readonly lostRecords: number
  }[]
  /** Doors beside HTTP, by name. A door that is away does not make the service unready: the others take events. */
  readonly doors: Readonly<Record<string, DoorState>>
  /** Why it is not ready, or what an operator should look at. */
  readonly notes: readonly string[]
}

export interface OpenSystemOptions {
  readonly config: Config
  readonly clock: Clock
  readonly logger: Logger
  /** The process must end; the log replays at the next start. */
  readonly onFatal: (error: Error) => void
  /** Called while opening, for a person who waits. */
  readonly onProgress?: (step: string) => void
}

export async function openSystem(options: OpenSystemOptions): Promise<System> {
  const system = new System(options)
  try {
    await system.open()
    return system
  } catch (error) {
    await system.close()
    throw error
  }
}

export class System {
  readonly version = VERSION
  readonly config: Config
  readonly clock: Clock
  readonly logger: Logger
  readonly metrics: Metrics = openMetrics()
  /** What the counter of restarts has already. */
  readonly #restartsCounted = new Map<string, number>()
  readonly #options: OpenSystemOptions
  #lock: { release(): void } | undefined
  #engines!: Engines
  #keys!: Keys
  #rates!: TenantRates
  #catalog!: Catalog
  #alerts!: Alerts
  #delivery!: Delivery
  #alertFeed: { close(): Promise<void> } | undefined
  #outboxFeed: OutboxFeed | undefined
  #rollup!: Rollup
  #repair!: Repair
  #invoicing!: Invoicing
  #certifications!: Certifications
  #trials: Sweep | undefined
  #packs: Sweep | undefined
  #answers!: Answers
  #alerting!: Alerting
  #limits!: Policies
  #guard!: Guard
  #journalLog: FileLog | undefined
  #refusals!: Refusals
  #cardinality: CardinalityRules | undefined
  #billing!: Billing
  #backups!: Backups
  #tracing: Tracing | undefined
  #usageData!: UsageData
  #prepaid!: Prepaid
  #coupons!: Coupons
  #imports!: Imports
  #objects!: Objects
  #meters!: Meters
  #log: FileLog | undefined
  #shards: ShardThread[] = []
  #flows: StreamFlow[] = []
  #intakes: Intake[] = []
  readonly #loop: Loop = watchLoop((kind, seconds) => this.metrics.gcPause.observe({ kind }, seconds))
  #idFiles: IdFiles[] = []
  readonly #runPool: RunPool = openRunPool()
  #archivePool: ArchivePool | undefined
  #streams = 1
  #inflight = 0
  #nextShard = 0
  #stopCatalog: (() => void) | undefined
  #catalogWork: Promise<void> = Promise.resolve()
  #catalogVersion = -1
  #entitlementsText = ''
  #closed: Promise<void> | undefined
  #ready = false
  readonly #doors = new Map<string, () => DoorState>()

  constructor(options: OpenSystemOptions) {
    this.#options = options
    this.config = options.config
    this.clock = options.clock
    this.logger = options.logger
  }

  get keys(): Keys {
    return this.#keys
  }
  /** What tenants may send where no key comes along. */
  get rates(): TenantRates {
    return this.#rates
  }
  get alerts(): Alerts {
    return this.#alerts
  }
  /** Webhooks and e-mail: who is told, and what became of it. */
  get delivery(): Delivery {
    return this.#delivery
  }
  get catalog(): Catalog {
    return this.#catalog
  }
  get invoicing(): Invoicing {
    return this.#invoicing
  }
  /** Alert rules: what is told of a metric besides the thresholds of its contract. */
  get alerting(): Alerting {
    return this.#alerting
  }
  /** What waits for a clearance system, and what it said. */
  get certifications(): Certifications {
    return this.#certifications
  }
  /** Limits that act, as they were set. */
  get limits(): Policies {
    return this.#limits
  }
  /** May a tenant use more, and reservations. */
  get guard(): Guard {
    return this.#guard
  }
  /** Usage, live quotas. */
  get answers(): Answers {
    return this.#answers
  }
  /** What a tenant may name in a month. */
  get cardinality(): CardinalityRules {
    return this.#cardinality!
  }
  /** Refused events: listed, taken out, sent again. */
  get refusals(): Refusals {
    return this.#refusals
  }
  /** Closing, previewing and verifying invoices. */
  get billing(): Billing {
    return this.#billing
  }
  get backups(): Backups {
    return this.#backups
  }
  /** Usage beside the stream, by hand, by API and by file. */
  get usageData(): UsageData {
    return this.#usageData
  }
  /** Meters that have stopped. */
  get meters(): Meters {
    return this.#meters
  }
  get coupons(): Coupons {
    return this.#coupons
  }
  /** Connected objects. */
  get objects(): Objects {
    return this.#objects
  }
  /** Packs bought ahead, and what became of them. */
  get prepaid(): Prepaid {
    return this.#prepaid
  }
  get imports(): Imports {
    return this.#imports
  }
  get engines(): Engines {
    return this.#engines
  }
  get rollup(): Rollup {
    return this.#rollup
  }

  // ---- Opening and closing -----------------------------------------------------------------------------------------------

  async open(): Promise<void> {
    const { config, clock, logger, metrics } = this
    const { onFatal, onProgress = () => {} } = this.#options
    const crash = openCrashPoints(config.crashAt)
    this.#lock = lockDataDirectory(config.dataDirectory)

    if (config.otlpEndpoint !== undefined) this.#tracing = await openTracing(config.otlpEndpoint, VERSION)

    onProgress('engines')
    this.#engines = await openEngines({
      dataDirectory: config.dataDirectory,
      locked: true,
      clickhouseUrl: config.clickhouseUrl,
      postgresUrl: config.postgresUrl,
      logger,
      onFatal,
    })
    const { clickhouse, clickhouseHttp, postgres } = this.#engines
    onProgress('schema')
    await migrate({ clickhouse, postgres, directory: sqlDirectory, logger })
    this.#keys = await openKeys({ postgres, clock, dataDirectory: config.dataDirectory })
    this.#rates = await TenantRates.open({ postgres, clock })
    this.#catalog = await openCatalog({ postgres, clock, invoicedUntil })
    this.#rollup = openRollup({ clickhouse })
    const archive = openArchivePool(clickhouseHttp)
    this.#archivePool = archive
    this.#repair = openRepair({ clickhouse, rollup: this.#rollup, postgres, clock })
    await this.#repair.finishBegun()
    this.#alerts = openAlerts({ postgres, clock, crash, metrics, logger })
    this.#delivery = await openDelivery({
      postgres,
      clock: systemClock,
      logger,
      metrics,
      dataDirectory: config.dataDirectory,
      version: VERSION,
      allowedRanges: config.webhookAllow,
      smtp: config.smtp,
      retryMs: config.deliveryRetryMs,
    })
    this.#alertFeed = openAlertFeed({ alerts: this.#alerts, delivery: this.#delivery, logger })
    this.#outboxFeed = openOutboxFeed({ postgres, delivery: this.#delivery, logger })

    const itemAlerts = new ItemAlerts({ catalog: this.#catalog, clock, alerts: this.#alerts })
    this.#alerting = await Alerting.open({
      postgres,
      clock,
      logger,
      catalog: this.#catalog,
      alerts: this.#alerts,
      items: itemAlerts,
      onChange: async () => {
        this.#catalogChanged()
        await this.#catalogWork
      },
    })

    const secret = Buffer.from(await this.#setting('dedupe_secret', randomBytes(16).toString('hex')), 'hex')
    this.#streams = Number(await this.#setting('streams', String(config.streams)))
    if (this.#streams !== config.streams) {
      logger.warn(
        { streams: this.#streams, asked: config.streams },
        'the number of streams is fixed at the first start',
      )
    }
    const { rows } = await postgres.query('SELECT stream, position FROM streams')
    const positions = new Map<number, number>(rows.map((r) => [Number(r.stream), Number(r.position)]))

    onProgress('log')
    this.#log = await openFileLog({
      directory: join(config.dataDirectory, 'log'),
      streams: this.#streams,
      logger,
      bytesMax: config.logBytesMax,
      segmentBytes: config.segmentBytes,
      knownPositions: Array.from({ length: this.#streams }, (_, stream) => positions.get(stream) ?? 0),
      onFatal,
    })

    this.#limits = await openPolicies({ postgres, clock })
    this.#journalLog = await openFileLog({
      directory: join(config.dataDirectory, 'reservations'),
      streams: 1,
      logger,
      bytesMax: limits.reservationJournalBytesMax,
      segmentBytes: limits.reservationSegmentBytes,
      disk: config.reservationSync === 'each' ? realDisk : syncingSoon(realDisk, limits.reservationSyncMs, onFatal),
      onFatal,
    })
    this.#guard = new Guard({
      clock,
      logger,
      metrics,
      policies: this.#limits,
      journal: new Journal(this.#journalLog),
      metricOf: (key) => this.#catalog.metric(key),
      streams: this.#streams,
    })
    await this.#guard.open((tenant) => positions.get(streamOf(tenant, this.#streams)) ?? 0)

    onProgress('streams')
    this.#cardinality = new CardinalityRules({ postgres, clock, logger, shards: this.#shards })
    await this.#cardinality.open()
    const owner = `${hostname()}/${process.pid}`
    const entitlements = this.#entitlements()
    this.#entitlementsText = JSON.stringify(entitlements)
    // All of them, also behind one that fails: what runs must be known to close().
    const opened = await Promise.allSettled(
      Array.from({ length: this.#streams }, async (_, stream) => {
        const shard = openShardThread({
          stream,
          streams: this.#streams,
          secret,
          idsMax: config.dedupeIdsMax,
          diskIdsMax: runEntriesIn(config.dedupeDiskBytes),
          aheadMs: config.aheadMs,
          lateMs: config.lateMs,
        })
        this.#shards[stream] = shard
        await shard.setCatalog(this.#catalog.snapshot())
        await this.#cardinality!.introduce(shard)
        const ids = await IdFiles.open({
          directory: join(config.dataDirectory, 'keys', `stream-${stream}`),
          stream,
          pool: this.#runPool,
          attachRun: shard.attachRun,
          logger,
          onFatal,
        })
        this.#idFiles[stream] = ids
        return openFlow(
          {
            stream,
            owner,
            log: this.#log!,
            shard,
            ids,
            rollup: this.#rollup,
            repair: this.#repair,
            archive,
            postgres,
            alerts: this.#alerts,
            clock,
            crash,
            logger,
            metrics,
            epochMs: config.epochMs,
            lateMs: config.lateMs,
            tailBytesMax: config.tailBytesMax,
            onApplied: (of, sequence, guarded) => this.#guard.applied(of, sequence, guarded),
            onFatal,
          },
          entitlements.filter((e) => streamOf(e.tenant, this.#streams) === stream),
        )
      }),
    )
    this.#flows = opened.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []))
    const failed = opened.find((one) => one.status === 'rejected')
    if (failed !== undefined) throw failed.reason
    this.#guard.setEntitlements(entitlements)
    this.#guard.start((tenant) => this.#flowOf(tenant))
    this.#intakes = this.#shards.map(
      (shard, stream) =>
        new Intake({
          admit: (to, frame, indices) => this.#shards[to]!.admit(frame, indices),
          shard,
          stream,
          flowOf: (part) => this.#flows[part]!,
          head: () => this.#judgeHead(),
          onJudged: (seconds, plain) => {
            metrics.judgeSeconds.observe(seconds)
            metrics.plain.inc(plain)
          },
        }),
    )
    await this.#alerts.sendUnsent()
    const certifiers = openCertifiers(config)
    this.#certifications = new Certifications({ postgres, clock, certifiers, logger })
    await this.#certifications.open()
    this.#invoicing = new Invoicing({
      postgres,
      clock,
      assertCertifiable: (invoice, original) =>
        certifiers[invoice.seller.certification?.system ?? '']?.assertCertifiable(invoice, original),
      onCertifying: () => this.#certifications.kick(),
      markBilled: (client, used) => this.#catalog.markBilled(client, used),
      crashPoint: (name) => {
        if (name === 'number-taken') crash('after-number-taken')
      },
    })
    const room = {
      clock,
      catalog: this.#catalog,
      rollup: this.#rollup,
      flowOf: (tenant: string) => this.#flowOf(tenant),
    }
    this.#cardinality.start(this.#flows, this.#rollup)
    this.#prepaid = new Prepaid({ postgres, clock, catalog: this.#catalog })
    await this.#prepaid.open()
    const items = new LiveItems({ ...room, postgres, prepaid: this.#prepaid })
    itemAlerts.start(items)
    this.#answers = new Answers({ ...room, items })
    this.#guard.setRooms(roomsOf(items))
    this.#meters = new Meters({ ...room, postgres })
    this.#refusals = new Refusals({ clock, postgres, rollup: this.#rollup, ingest: (again) => this.ingest(again) })
    this.#objects = new Objects({ postgres, clock, catalog: this.#catalog })
    this.#usageData = new UsageData({ postgres, clock, catalog: this.#catalog })
    this.#coupons = new Coupons({ postgres, clock, catalog: this.#catalog })
    this.#billing = new Billing({
      ...room,
      postgres,
      invoicing: this.#invoicing,
      usageData: this.#usageData,
      prepaid: this.#prepaid,
      flows: this.#flows,
      graceMs: config.graceMs,
    })
    this.#imports = new Imports({
      postgres,
      clock,
      catalog: this.#catalog,
      logger,
      directory: join(config.dataDirectory, 'imports'),
      onDone: () => this.#billing.redraft(null, limits.redraftMax),
    })
    await this.#imports.resume()
    this.#backups = new Backups({
      dataDirectory: config.dataDirectory,
      backupDirectory: config.backupDirectory,
      version: VERSION,
      engines: this.#engines,
      flows: this.#flows,
      log: () => this.#log!,
      clock,
    })
    this.#stopCatalog = this.#catalog.onChange(() => this.#catalogChanged())
    this.#trials = watchTrials(this.#catalog, clock, logger)
    this.#packs = watchPacks({
      postgres: this.#engines.postgres,
      catalog: this.#catalog,
      clock,
      logger,
      changed: () => this.#prepaid.changed(),
    })
    this.#ready = true
    await this.#listen()
    this.#alerting.start(this.#flows, (tenant) => streamOf(tenant, this.#streams))
  }

  /** A value that is fixed at the first start. */
  async #setting(name: string, initial: string): Promise<string> {
    const { postgres } = this.#engines
    await postgres.query('INSERT INTO settings (name, value) VALUES ($1, $2) ON CONFLICT DO NOTHING', [name, initial])
    const { rows } = await postgres.query('SELECT value FROM settings WHERE name = $1', [name])
    return rows[0].value
  }

  #entitlements(): LiveEntitlement[] {
    const metrics = new Map(this.#catalog.snapshot().metrics.map((m) => [m.key, m]))
    const live = this.#catalog.entitlements().flatMap((e) => {
      const metric = metrics.get(e.metric)
      return metric === undefined || !isLive(metric.aggregation) ? [] : [{ ...e, aggregation: metric.aggregation }]
    })
    const all = this.#alerting.add(live)
    // A limit of a metric that no contract gives needs a balance too.
    const there = new Set(all.map(({ tenant, metric }) => JSON.stringify([tenant, metric])))
    for (const { tenant, metric } of this.#limits.list(null)) {
      if (there.has(JSON.stringify([tenant, metric]))) continue
      const bare = this.#alerting.bareEntitlement(tenant, metric)
      if (bare !== undefined) all.push(bare)
    }
    return all
  }

  /** Shards listen for the meters whose silence is watched. */
  async #listen(): Promise<void> {
    const watched = this.#alerting.listening()
    await Promise.all(
      this.#flows.map((flow) => flow.listen(watched.filter((w) => streamOf(w.tenant, this.#streams) === flow.stream))),
    )
  }

  /** Also when alert rules have changed. Doors learn the catalogue at once, limits act from the next epoch. One change after the other. */
  #catalogChanged(): void {
    this.#catalogWork = this.#catalogWork
      .then(async () => {
        const snapshot = this.#catalog.snapshot()
        // Several changes that came meanwhile are one.
        if (snapshot.version !== this.#catalogVersion) {
          this.#catalogVersion = snapshot.version
          await Promise.all(this.#shards.map((shard) => shard.setCatalog(snapshot)))
        }
        await this.#listen()
        const entitlements = this.#entitlements()
        const text = JSON.stringify(entitlements)
        if (text === this.#entitlementsText) return
        this.#entitlementsText = text
        await Promise.all(
          this.#flows.map((flow) =>
            flow.setEntitlements(entitlements.filter((e) => streamOf(e.tenant, this.#streams) === flow.stream)),
          ),
        )
        this.#guard.setEntitlements(entitlements)
      })
      .catch((error: unknown) => {
        if (this.#closed === undefined)
          this.logger.error({ error: String(error) }, 'a change of the catalogue did not reach the shards')
      })
  }

  /** Resolves when every change so far acts at the doors and in the balances. */
  async catalogSettled(): Promise<void> {
    await this.#catalogWork
  }

  /** Drain, seal, checkpoint, stop. Always ends. */
  close(): Promise<void> {
    this.#closed ??= this.#close()
    return this.#closed
  }

  async #close(): Promise<void> {
    this.#ready = false
    this.#stopCatalog?.()
    const steps: (() => unknown)[] = [
      () => this.#trials?.close(),
      () => this.#packs?.close(),
      () => this.#certifications?.close(),
      () => this.#imports?.close(),
      () => this.#billing?.close(),
      () => this.#backups?.settled(),
      () => Promise.allSettled([this.#cardinality?.close(), ...this.#flows.map((flow) => flow.close())]),
      () => this.#alerts?.close(),
      () => this.#alertFeed?.close(),
      () => this.#outboxFeed?.close(),
      () => this.#delivery?.close(),
      () => this.#guard?.close(),
      () => this.#journalLog?.close(),
      () => this.#log?.close(),
      () =>
        Promise.allSettled([
          ...this.#idFiles.map((files) => files.close()),
          this.#runPool.close(),
          this.#archivePool?.close(),
        ]),
      () => Promise.allSettled(this.#shards.map((shard) => shard.close())),
      () => this.#keys?.close(),
      () => this.#loop.close(),
      () => this.#engines?.close(),
      () => this.#lock?.release(),
      () => this.#tracing?.close(),
    ]
    for (const step of steps) {
      try {
        await step()
      } catch (error) {
        this.logger.error({ error: String(error) }, 'closing goes on after a fault')
      }
    }
  }

  /** A door that health shows from now on. */
  addDoor(name: string, state: () => DoorState): void {
    this.#doors.set(name, state)
  }

  // ---- Events ------------------------------------------------------------------------------------------------------------

  /** Room for a body, or `overloaded`. The caller gives it back. */
  admit(bytes: number): () => void {
    if (!this.#ready) throw new ReleveError('unavailable', 'the service is starting or stopping', { retryAfterS: 1 })
    if (this.#inflight + bytes > limits.inflightBytesMax) {
      throw new ReleveError('overloaded', `${this.#inflight} bytes of bodies are being worked on`, { retryAfterS: 1 })
    }
    this.#inflight += bytes
    this.metrics.inflightBytes.set(this.#inflight)
    let given = false
    return () => {
      if (given) return
      given = true
      this.#inflight -= bytes
      this.metrics.inflightBytes.set(this.#inflight)
    }
  }

  /** Whether a call failed because an engine is away: then the same call may be made again. */
  isAway(error: unknown): boolean {
    return isAway(error)
  }

  /** Resolves when everything that is stored is on disk; with `wait`, when it is counted too. */
  async ingest(request: {
    /** Its bytes, whole or in pieces as they came; those are taken out of their array. They must not change until this resolves. */
    body: Uint8Array | Uint8Array[]
    format: EventFormat
    /** Only with `cloudevents-binary`. */
    attributes?: CloudEventHeaders
    tenant: string | null
    wait: boolean
  }): Promise<IngestAnswer> {
    const { metrics } = this
    const began = performance.now()
    const { body, format, attributes, tenant, wait } = request
    // A tenant's own key chooses its stream's shard; a platform-wide body is read by the shards in turn.
    const reader = tenant === null ? this.#nextShard++ % this.#streams : streamOf(tenant, this.#streams)
    const pieces = body instanceof Uint8Array ? [body] : body
    const taken = await this.#intakes[reader]!.take({ pieces, format, attributes, tenant, wait })
    metrics.ackSeconds.observe((performance.now() - began) / 1000)
    const { received, refusals } = taken
    const stored = received - refusals.length
    metrics.received.inc(received)
    metrics.stored.inc(stored)
    for (const { code } of refusals) metrics.refused.inc({ code })
    const answer: IngestAnswer = {
      received,
      stored,
      refused: refusals.length,
      refusals: refusals
        .slice(0, limits.answerRefusalsMax)
        .map(({ index, code, field, message, id }) => ({ index, code, field, message, id })),
    }
    if (taken.applied === undefined) return answer
    const totals = { accepted: 0, duplicate: 0, conflict: 0 }
    const verdicts = (await taken.applied).map((verdict) => {
      if (verdict === null) return 'refused'
      const name = shardVerdictNames[verdict]
      totals[name] += 1
      return name
    })
    return { ...answer, applied: { ...totals, verdicts } }
  }

  /** For bodies that are judged now. */
  #judgeHead(): JudgeHead {
    const receivedAt = this.clock.now()
    const floorTime = Math.max(...this.#flows.map((flow) => flow.floorAt(receivedAt)))
    return { receivedAt, floorTime, aheadMs: this.config.aheadMs }
  }

  /**
   * A whole body that nobody could read, from a door that cannot send it back: kept as one refusal of the tenant, so that it
   * blocks nothing and is not forgotten. Resolves when that is on disk. Rejects with `overloaded` or `unavailable`.
   */
  async refuseBody(refused: { tenant: string; message: string; body: Uint8Array }): Promise<void> {
    const receivedAt = this.clock.now()
    const floorTime = Math.max(...this.#flows.map((flow) => flow.floorAt(receivedAt)))
    const stream = streamOf(refused.tenant, this.#streams)
    // What is no text is kept as far as it is text: a broken byte is U+FFFD, and three bytes long.
    const raw = new TextDecoder().decode(refused.body.subarray(0, Math.floor(limits.refusalRawBytesMax / 3)), {
      stream: true,
    })
    const refusal = { index: 0, code: 'malformed' as const, field: '', message: refused.message.slice(0, 1_024) }
    const frame = encodeFrame(
      { receivedAt, floorTime, catalogVersion: this.#catalog.snapshot().version },
      [],
      [{ ...refusal, tenant: refused.tenant.slice(0, limits.nameBytesMax), source: '', id: '', metric: '', raw }],
    )
    await this.#flows[stream]!.append(receivedAt, floorTime, frame, false)
    this.metrics.received.inc()
    this.metrics.refused.inc({ code: refusal.code })
  }

  /** Resolves when the limit acts. */
  async putLimit(limit: Omit<Policy, 'changedAt'>): Promise<Policy> {
    if (!this.#catalog.book().customers.has(limit.tenant))
      throw new ReleveError('unprocessable', `tenant: there is no customer ${limit.tenant}`)
    this.#catalog.metric(limit.metric)
    const put = await this.#limits.put(limit)
    this.#catalogChanged()
    await this.#catalogWork
    return put
  }

  async removeLimit(tenant: string, metric: string): Promise<Policy> {
    const gone = await this.#limits.remove(tenant, metric)
    this.#catalogChanged()
    await this.#catalogWork
    return gone
  }

  /**
   * Commits a reservation; its event goes first, through the door that every event takes. When the commit then fails, the event
   * counts all the same, and the same call may be made again.
   */
  async commitReservation(
    id: string,
    tenant: string | null,
    amount: string | undefined,
    event: ReservedEvent | undefined,
  ): Promise<ReservationView> {
    if (event === undefined) return this.#guard.commit(id, tenant, amount)
    const reservation = this.#guard.get(id, tenant)
    const { metric, subject, quantity } = reservation
    const { aggregation } = this.#catalog.metric(metric)
    if (aggregation !== 'sum')
      throw new ReleveError('unprocessable', `event: ${metric} is a ${aggregation}: send its events, then commit`)
    const whole = {
      ...event,
      tenant: reservation.tenant,
      metric,
      value: amount ?? quantity,
      ...(subject === null ? {} : { subject }),
    }
    const { refusals } = await this.ingest({
      body: Buffer.from(JSON.stringify([whole])),
      format: 'json',
      tenant: reservation.tenant,
      wait: false,
    })
    const [refusal] = refusals
    if (refusal !== undefined)
      throw new ReleveError('unprocessable', `event: ${refusal.code}, ${refusal.field}: ${refusal.message}`)
    return this.#guard.commit(id, tenant, amount)
  }

  #flowOf(tenant: string): StreamFlow {
    return this.#flows[streamOf(tenant, this.#streams)]!
  }

  /** The books, up to the last checkpoints, and what is still on its way. */
  books(): { totals: Totals; balanced: boolean; onTheWay: number } {
    const totals = this.#flows.map((flow) => flow.totals).reduce((a, b) => sum(a, b))
    const balanced =
      totals.received === totals.stored + totals.refused &&
      totals.stored === totals.accepted + totals.duplicate + totals.conflict
    return { totals, balanced, onTheWay: this.#flows.reduce((n, { position: p }) => n + p.last - p.checkpoint, 0) }
  }

  /** Everything that the log has now is in a checkpoint. */
  async settle(): Promise<void> {
    await Promise.all(this.#flows.map((flow) => flow.cut()))
  }

  /** Folds now what has a checkpoint, instead of when it is due. */
  async fold(): Promise<void> {
    await Promise.all(this.#flows.map((flow) => flow.fold()))
  }

  /** Compares books, checkpoints, rows and archive. Reads all of ClickHouse: for operators, not for a request path. */
  async audit() {
    await this.settle()
    return audit({
      postgres: this.#engines.postgres,
      rollup: this.#rollup,
      streams: this.#flows.map((flow) => ({ stream: flow.stream, ...flow.position })),
      metrics: this.#catalog.snapshot().metrics,
    })
  }

  /** The rollups again from the archive. For a service that takes no events meanwhile: the command line runs it alone. */
  async rebuild(options: { dryRun: boolean; onProgress?: (step: string) => void }): Promise<RebuildReport> {
    await this.settle()
    // A fold meanwhile would be compared with hours from before it, or land in a table that is put aside.
    await Promise.all(this.#flows.map((flow) => flow.stopFolds()))
    const report = await rebuild({
      clickhouse: this.#engines.clickhouse,
      rollup: this.#rollup,
      metrics: this.#catalog.snapshot().metrics,
      streams: this.#flows.map((flow) => ({ stream: flow.stream, folded: flow.position.folded })),
      ...options,
    })
    // Rebuilt rows are not cut into the chunks that the checkpoints name, so they are not counted by them any more.
    if (report.replaced) await this.#engines.postgres.query('UPDATE streams SET verified_epoch = epoch')
    return report
  }

  // ---- Operators ---------------------------------------------------------------------------------------------------------

  health(): Health {
    const engines = this.#engines?.state()
    const notes: string[] = []
    const streams = this.#flows.map((flow) => {
      const { last, applied } = flow.position
      const lost = this.#log!.lost().filter((l) => l.stream === flow.stream)
      for (const range of lost)
        notes.push(`stream ${range.stream}: records ${range.from} to ${range.to} are lost: ${range.reason}`)
      if (flow.fault !== null) notes.push(`stream ${flow.stream} tries again: ${flow.fault}`)
      if (flow.state !== 'running') notes.push(`stream ${flow.stream} is ${flow.state}`)
      const late = flow.flushLagMs()
      if (late > limits.flushLateMs)
        notes.push(
          `stream ${flow.stream}: nothing was flushed for ${Math.floor(late / 1000)} s, it waits in «${flow.step}» for ${storeOf(flow.step)}; events are taken into the log`,
        )
      const { bytes } = this.#log!.state(flow.stream)
      if (bytes > 0.8 * this.config.logBytesMax)
        notes.push(
          `stream ${flow.stream}: the log takes ${Math.round((100 * bytes) / this.config.logBytesMax)} % of RELEVE_LOG_BYTES; at 100 % events are answered 503 until the stores have what is in it`,
        )
      return {
        stream: flow.stream,
        state: flow.state,
        lagRecords: last - applied,
        flushLagMs: flow.flushLagMs(),
        lostRecords: lost.reduce((n, l) => n + l.to - l.from + 1, 0),
      }
    })
    for (const [name, engine] of Object.entries(engines ?? {})) {
      if (!engine.up) notes.push(`${name} is away: events are taken into the log and counted when it is back`)
    }
    const room = roomIn(this.config.dataDirectory, this.#streams)
    if (room.state !== 'ok') notes.push(`${room.detail}: make room, or events are answered 503`)
    const doors = Object.fromEntries([...this.#doors].map(([name, state]) => [name, state()]))
    for (const [name, door] of Object.entries(doors)) {
      if (!door.up)
        notes.push(`the ${name} door is ${door.state}${door.reason === undefined ? '' : `: ${door.reason}`}`)
      if (door.warning !== undefined) notes.push(`the ${name} door: ${door.warning}`)
    }
    notes.push(...(this.#delivery?.notes() ?? []), ...(this.#alerting?.notes() ?? []))
    if (!this.#ready) notes.push('starting or stopping')
    return {
      ready: this.#ready && streams.every((s) => s.state === 'running'),
      engines: Object.fromEntries(
        Object.entries(engines ?? {}).map(([name, { up, kind, version, restarts }]) => [
          name,
          { up, kind, version, restarts },
        ]),
      ),
      streams,
      doors,
      notes,
    }
  }

  /** Gauges that are read rather than counted. */
  refreshGauges(): void {
    const { metrics } = this
    for (const [quantile, seconds] of Object.entries(this.#loop.delay())) metrics.loopDelay.set({ quantile }, seconds)
    const { streams } = this.health()
    for (const flow of this.#flows) {
      const stream = String(flow.stream)
      const { last, applied } = flow.position
      metrics.logBytes.set({ stream }, this.#log!.state(flow.stream).bytes)
      metrics.logLag.set({ stream }, last - applied)
      metrics.flushLagSeconds.set({ stream }, flow.flushLagMs() / 1000)
      metrics.logLost.set({ stream }, streams[flow.stream]!.lostRecords)
    }
    metrics.reservationsKnown.set(this.#guard.size)
    for (const [engine, { up, restarts }] of Object.entries(this.#engines.state())) {
      metrics.engineUp.set({ engine }, up ? 1 : 0)
      // From the first look on, so that Prometheus sees the first restart as a rise and not as a new series.
      metrics.engineRestarts.inc({ engine }, restarts - (this.#restartsCounted.get(engine) ?? 0))
      this.#restartsCounted.set(engine, restarts)
    }
  }
}

/** Which of the two a step of the flush is written to. */
const storeOf = (step: string): string =>
  ['manifest', 'checkpoint'].includes(step) ? 'PostgreSQL' : step === 'keys' ? 'the disk' : 'ClickHouse'

function sum(a: Totals, b: Totals): Totals {
  return Object.fromEntries(
    Object.entries(a).map(([name, value]) => [name, value + b[name as keyof Totals]]),
  ) as unknown as Totals
}
