/**
 * The driver of the crash test: a process of its own that sends a seeded stream of events over the public HTTP API, while others
 * kill what it talks to. It writes what it is going to send to its own file, synced, BEFORE sending, and what was acknowledged
 * AFTER. The oracle reads this file and nothing else.
 *
 *   node driver.js --url URL --admin-key KEY --tenant-key KEY --seed N --now MS --file FILE --batches N [--close-after N] [--spikes P] [--nats URL]
 *
 * Three connections with disjoint tenants, one outstanding request each. A request that fails is sent again, the very same bytes,
 * until it is acknowledged; so a batch is in the log at least once, the first time before everything that comes later, and what
 * counts within a tenant is a function of this file. The stream therefore keeps one rule: judging a whole batch a second time
 * right after the first changes nothing (no void stands before its event within one batch). The oracle asserts it.
 *
 * With --nats, the connection that has one tenant sends some batches as NATS requests, and some of those that have no void into the
 * JetStream stream; then it waits until the stream is empty, so that nothing overtakes them. A killed server may deliver a message
 * again much later: an event is then a duplicate, but a void that stood before its event would take effect.
 *
 * Every event carries its time: without one it would be dated by its arrival, and a retry would be another content.
 *
 * `--close-after`: the batch before which the previous month is closed (at the end at the latest); −1 closes nothing.
 *
 * SIGTERM ends the stream early: open batches are finished, the closings are done, the file gets its last line.
 *
 * Lines of the file (JSON): head {world, seed, connections}; send {c, n, format, wait, gzip, key, events: text of each}; ack {c, n,
 * tries, status, answer}; close {c, n, contract, at}; closed {c, n, tries, answer}; end.
 */
import { closeSync, fdatasyncSync, openSync, writeSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { gzipSync } from 'node:zlib'
import { connect, type MsgHdrs, headers as makeHeaders, type NatsConnection } from 'nats'
import { buildWorld, Dice, SPIKES, TENANTS, type World, type WorldMetric } from './world.js'

/** A request that is not acknowledged after so long ends the test. A closing may have to wait until the kills are over. */
const BATCH_DEADLINE_MS = 300_000
/** Longer than anything that a living service takes: a request that is given up might be counted after its successor. */
const REQUEST_MS = 90_000
const DAY = 86_400_000
const MINUTE = 60_000

/** An event before it is written in one format or the other. Texts as they will stand on the wire. */
interface Draft {
  readonly tenant: string
  readonly source: string
  readonly id: string
  readonly metric: string
  readonly subject: string
  readonly time: number
  /** Decimal text; null leaves the value away. */
  readonly value: string | null
  readonly dims: Readonly<Record<string, string>>
  readonly kind: 'usage' | 'void'
}

/** What an event becomes on the wire: a draft, or something that is no event. */
type Slot = { readonly draft: Draft } | { readonly native: unknown; readonly cloud: unknown }

const REGIONS = ['north', 'south', 'östlich', 'a"b\\c']
const KNOWN_MAX = 4_000
/** A content tag has 16 bits, so one in 65,536 of these is taken for the same content, as designed. Few are sent. */
const CONFLICTS_MAX = 20
const OTHER_VOIDS_MAX = 5

class Tenant {
  readonly name: string
  readonly known: Draft[] = []
  /** Events whose void was sent before them. */
  readonly owed: Draft[] = []
  serial = 0
  spike = 0

  constructor(name: string) {
    this.name = name
  }

  remember(draft: Draft, dice: Dice): void {
    if (this.known.length < KNOWN_MAX) this.known.push(draft)
    else this.known[dice.int(0, KNOWN_MAX - 1)] = draft
  }
}

class Stream {
  readonly #dice: Dice
  readonly #world: World
  readonly #tenants: readonly Tenant[]
  readonly #spikes: number
  readonly #previousMonth: { readonly from: number; readonly to: number }
  #conflicts = 0
  #otherVoids = 0

  constructor(world: World, tenants: readonly string[], seed: number, spikes: number) {
    this.#world = world
    this.#dice = new Dice(seed)
    this.#spikes = spikes
    this.#tenants = tenants.map((name) => new Tenant(name))
    const today = new Date(world.now)
    const to = Date.UTC(today.getUTCFullYear(), today.getUTCMonth(), 1)
    // Two days inside the age limit of 34 days; at least two days of the previous month are left even on the 31st.
    this.#previousMonth = {
      from: Math.max(Date.UTC(today.getUTCFullYear(), today.getUTCMonth() - 1, 1), world.now - 32 * DAY),
      to,
    }
  }

  /** The next batch. */
  slots(): Slot[] {
    const dice = this.#dice
    const roll = dice.next()
    const size = roll < 0.02 ? 500 : roll < 0.1 ? 1 : roll < 0.75 ? dice.int(2, 40) : dice.int(40, 160)
    const slots: Slot[] = []
    const tenant = (): Tenant => dice.pick(this.#tenants)
    // Identities that this batch must not void any more: their void would stand before their event.
    const blocked = new Set<string>()
    while (slots.length < size) this.#add(slots, tenant(), blocked)
    if (dice.chance(this.#spikes)) this.#addSpike(slots, tenant())
    return slots
  }

  #add(slots: Slot[], tenant: Tenant, blocked: Set<string>): void {
    const dice = this.#dice
    const roll = dice.next()
    if (tenant.owed.length > 0 && dice.chance(0.2)) {
      const owed = tenant.owed.shift()!
      if (blocked.has(identity(owed))) tenant.owed.push(owed)
      else this.#send(slots, tenant, owed)
      return
    }
    if (roll < 0.72 || tenant.known.length === 0) {
      this.#send(slots, tenant, this.#fresh(tenant))
    } else if (roll < 0.84) {
      this.#send(slots, tenant, this.#rewritten(dice.pick(tenant.known)))
    } else if (roll < 0.86) {
      if (this.#conflicts >= CONFLICTS_MAX || !dice.chance(0.2)) return
      this.#conflicts += 1
      this.#send(slots, tenant, this.#otherContent(dice.pick(tenant.known)))
    } else if (roll < 0.91) {
      // A void of something earlier, perhaps for the second time.
      const of = dice.pick(tenant.known)
      if (!blocked.has(identity(of))) slots.push({ draft: { ...of, kind: 'void' } })
    } else if (roll < 0.93) {
      const draft = this.#fresh(tenant)
      this.#send(slots, tenant, draft)
      slots.push({ draft: { ...draft, kind: 'void' } })
    } else if (roll < 0.935) {
      if (this.#otherVoids >= OTHER_VOIDS_MAX) return
      this.#otherVoids += 1
      slots.push({ draft: { ...this.#otherContent(dice.pick(tenant.known)), kind: 'void' } })
    } else if (roll < 0.955) {
      // Its void now, the event in a later batch.
      const draft = this.#fresh(tenant)
      blocked.add(identity(draft))
      slots.push({ draft: { ...draft, kind: 'void' } })
      tenant.owed.push(draft)
    } else if (roll < 0.985) {
      this.#addMalformed(slots, tenant)
    } else {
      // The same event twice in one batch.
      const draft = this.#fresh(tenant)
      this.#send(slots, tenant, draft)
      slots.push({ draft: this.#rewritten(draft) })
    }
  }

  #send(slots: Slot[], tenant: Tenant, draft: Draft): void {
    slots.push({ draft })
    tenant.remember(draft, this.#dice)
  }

  /** Up over the next high threshold and back, within the batch. */
  #addSpike(slots: Slot[], tenant: Tenant): void {
    if (tenant.spike >= 2 * SPIKES.length) return
    const metric = tenant.spike % 2 === 0 ? 'energy' : 'tokens'
    // A token's value has nine decimals, so a single event reaches 10^9 at most: many of them would be needed beyond the first.
    const height = metric === 'energy' ? SPIKES[Math.floor(tenant.spike / 2)]! + 50_000_000 : 999_999_999
    tenant.spike += 1
    const base = this.#fresh(tenant)
    const metricOf = this.#world.metrics.find((m) => m.key === metric)!
    const up: Draft = {
      ...base,
      metric,
      dims: this.#dims(metricOf, tenant),
      value: String(height),
      time: this.#world.now - this.#dice.int(0, 60_000),
    }
    slots.push({ draft: up })
    const more: Draft = { ...up, id: `${up.id}+` }
    if (metric === 'tokens') slots.push({ draft: more })
    slots.push({ draft: { ...up, kind: 'void' } })
    if (metric === 'tokens') slots.push({ draft: { ...more, kind: 'void' } })
  }

  #fresh(tenant: Tenant): Draft {
    const dice = this.#dice
    const metric = dice.pick(this.#world.metrics)
    tenant.serial += 1
    const source = dice.pick(['', 'gw-1', 'gw-1', 'gw-2'])
    return {
      tenant: tenant.name,
      source,
      // Tenants share ids, and so do sources: neither may meet the other.
      id: `e${Math.floor(tenant.serial / 2)}${source === '' ? 'x' : ''}${tenant.serial % 2}`,
      metric: metric.key,
      subject: dice.chance(0.1) && metric.uniqueBy !== 'subject' ? '' : `device-${dice.int(0, 14)}`,
      time: this.#time(),
      value: this.#value(metric),
      dims: this.#dims(metric, tenant),
      kind: 'usage',
    }
  }

  #time(): number {
    const dice = this.#dice
    const { now } = this.#world
    const roll = dice.next()
    if (roll < 0.5) return now - dice.int(0, 10 * MINUTE)
    if (roll < 0.62) return now - dice.int(0, 6 * 60 * MINUTE)
    if (roll < 0.72) return now - dice.int(0, 12 * DAY)
    if (roll < 0.95) return dice.int(this.#previousMonth.from, this.#previousMonth.to - 1)
    return now + dice.int(0, 10 * 60 * MINUTE)
  }

  #value(metric: WorldMetric): string | null {
    const dice = this.#dice
    if (metric.aggregation === 'count' || metric.aggregation === 'unique') return dice.chance(0.5) ? null : '1'
    if (dice.chance(0.05)) return null
    const whole = dice.int(0, metric.aggregation === 'latest' ? 60 : 400)
    const decimals = dice.int(0, Math.min(metric.scale, 3))
    const fraction = decimals === 0 ? '' : `.${String(dice.int(0, 10 ** decimals - 1)).padStart(decimals, '0')}`
    return `${dice.chance(0.06) ? '-' : ''}${whole}${fraction}`
  }

  #dims(metric: WorldMetric, tenant: Tenant): Record<string, string> {
    const dice = this.#dice
    const dims: Record<string, string> = {}
    for (const name of metric.dims)
      if (dice.chance(0.9)) dims[name] = name === 'region' ? dice.pick(REGIONS) : `t${dice.int(1, 3)}`
    if (metric.uniqueBy === 'user') dims.user = `${tenant.name.slice(0, 1)}-user-${dice.int(1, 60)}`
    return dims
  }

  /** The same event, its value written otherwise. */
  #rewritten(draft: Draft): Draft {
    const { value } = draft
    if (value === null || !this.#dice.chance(0.5)) return draft
    const counted = this.#world.metrics.find((m) => m.key === draft.metric)!
    if (counted.scale === 0) return draft
    return { ...draft, value: value.includes('.') ? `${value}00` : `${value}.0` }
  }

  #otherContent(draft: Draft): Draft {
    return this.#dice.chance(0.5) ? { ...draft, subject: `${draft.subject}-other` } : { ...draft, time: draft.time - 1 }
  }

  #addMalformed(slots: Slot[], tenant: Tenant): void {
    const dice = this.#dice
    const draft = { ...this.#fresh(tenant), metric: 'energy', value: '1', dims: {} }
    const native = toNative(draft, true, dice)
    const cloud = toCloudEvent({ ...draft, source: 'gw-1' }, true)
    const both = (change: (event: Record<string, unknown>, isCloud: boolean) => void): void => {
      change(native, false)
      change(cloud, true)
      slots.push({ native, cloud })
    }
    const value = (event: Record<string, unknown>, isCloud: boolean, to: unknown): void => {
      if (isCloud) event.data = { value: to }
      else event.value = to
    }
    switch (dice.int(0, 8)) {
      case 0:
        both((event) => delete event.id)
        break
      case 1:
        both((event, isCloud) => (event[isCloud ? 'type' : 'metric'] = 'no_such_metric'))
        break
      case 2:
        both((event) => (event.tenant = 'nobody'))
        break
      case 3:
        both((event, isCloud) => value(event, isCloud, 'many'))
        break
      case 4:
        both((event, isCloud) => value(event, isCloud, '1.23456'))
        break
      case 5:
        both((event) => (event.time = new Date(this.#world.now - 60 * DAY).toISOString()))
        break
      case 6:
        both((event) => (event.time = new Date(this.#world.now + 5 * DAY).toISOString()))
        break
      case 7:
        both((event) => (event.kind = 'gift'))
        break
      default:
        slots.push({ native: 'no event', cloud: 7 })
        return
    }
    // The mended event may come later under the same id: a refused id is not known to dedupe.
    if (dice.chance(0.5)) tenant.owed.push(draft)
  }
}

const identity = (draft: Draft): string => JSON.stringify([draft.source, draft.id])

function toNative(draft: Draft, withTenant: boolean, dice: Dice): Record<string, unknown> {
  const event: Record<string, unknown> = { id: draft.id }
  if (withTenant) event.tenant = draft.tenant
  if (draft.source !== '') event.source = draft.source
  event.metric = draft.metric
  if (draft.subject !== '') event.subject = draft.subject
  event.time = dice.chance(0.5) ? draft.time : new Date(draft.time).toISOString()
  if (draft.value !== null) event.value = draft.value
  if (Object.keys(draft.dims).length > 0) event.dims = draft.dims
  if (draft.kind === 'void') event.kind = 'void'
  return event
}

function toCloudEvent(draft: Draft, withTenant: boolean): Record<string, unknown> {
  const event: Record<string, unknown> = { specversion: '1.0', id: draft.id, source: draft.source, type: draft.metric }
  if (withTenant) event.tenant = draft.tenant
  if (draft.subject !== '') event.subject = draft.subject
  event.time = new Date(draft.time).toISOString()
  event.data = { ...draft.dims, ...(draft.value === null ? {} : { value: draft.value }), comment: 'not a dimension' }
  if (draft.kind === 'void') event.kind = 'void'
  return event
}

const FORMATS = {
  json: 'application/json',
  cloudevents: 'application/cloudevents+json',
  'cloudevents-batch': 'application/cloudevents-batch+json',
} as const
type Format = keyof typeof FORMATS

/** A request as it goes out, and goes out again. */
interface Batch {
  readonly format: Format
  readonly wait: boolean
  readonly gzip: boolean
  /** JSON text of each event. */
  readonly events: readonly string[]
}

/** A body of one event must be an object; in a list anything may stand. */
const isObject = (text: string): boolean => text.startsWith('{')

const { values: args } = parseArgs({
  options: {
    url: { type: 'string' },
    'admin-key': { type: 'string' },
    'tenant-key': { type: 'string' },
    seed: { type: 'string' },
    now: { type: 'string' },
    file: { type: 'string' },
    batches: { type: 'string', default: '100' },
    'close-after': { type: 'string', default: '25' },
    spikes: { type: 'string', default: '0.1' },
    pause: { type: 'string', default: '120' },
    nats: { type: 'string' },
  },
})
const url = args.url!
const seed = Number(args.seed)
const world = buildWorld(Number(args.now))
const batchesMax = Number(args.batches)
const closeAfter = Number(args['close-after'])
const pauseMs = Number(args.pause)
let ending = false
process.on('SIGTERM', () => {
  ending = true
})

const file = openSync(args.file!, 'a')
function note(line: unknown): void {
  writeSync(file, `${JSON.stringify(line)}\n`)
  fdatasyncSync(file)
}

interface Acknowledged {
  readonly tries: number
  readonly status: number
  readonly answer: unknown
}

interface Posted {
  readonly headers: Record<string, string>
  readonly body: string | Uint8Array<ArrayBuffer>
}

/** One try: the status and the text of an answer. Throws when there is none. */
type Try = () => Promise<{ readonly status: number; readonly text: string }>

const overHttp =
  (path: string, init: Posted): Try =>
  async () => {
    const answer = await fetch(`${url}${path}`, { method: 'POST', ...init, signal: AbortSignal.timeout(REQUEST_MS) })
    return { status: answer.status, text: await answer.text() }
  }

const isAccepted = (status: number): boolean => status === 202 || status === 422

let nats: NatsConnection | undefined

function natsHeaders({ headers }: Posted, wait: boolean): MsgHdrs {
  const made = makeHeaders()
  for (const name of ['content-type', 'content-encoding']) if (headers[name]) made.set(name, headers[name])
  if (wait) made.set('wait', 'applied')
  return made
}

/** Without a service the server says so at once; a try that nobody answers is over long before the next batch. */
const asRequest =
  (tenant: string, wait: boolean, init: Posted): Try =>
  async () => {
    const answer = await nats!.request(`usage.req.${tenant}`, init.body, {
      headers: natsHeaders(init, wait),
      timeout: 20_000,
    })
    return { status: Number(answer.headers!.get('status')), text: answer.string() }
  }

/** Acknowledged by the server; and taken into the log of the service before anything else is sent. */
const intoStream =
  (tenant: string, init: Posted): Try =>
  async () => {
    await nats!
      .jetstream()
      .publish(`usage.in.${tenant}`, init.body, { headers: natsHeaders(init, false), timeout: 5_000 })
    const deadline = performance.now() + BATCH_DEADLINE_MS
    while (performance.now() < deadline) {
      const left = await nats!
        .jetstreamManager()
        .then((manager) => manager.streams.info('RELEVE_USAGE'))
        .then(({ state }) => state.messages)
        .catch(() => 1)
      // No verdicts come this way.
      if (left === 0) return { status: 202, text: 'null' }
      await sleep(30)
    }
    throw new Error('FATAL: the stream is not emptied')
  }

/** The same request until it is acknowledged. A refusal that no retry can change ends the driver. */
async function untilAcknowledged(
  what: string,
  attempt: Try,
  isAnswer: (status: number) => boolean,
): Promise<Acknowledged> {
  const deadline = performance.now() + BATCH_DEADLINE_MS
  let tries = 0
  let trouble = ''
  while (performance.now() < deadline) {
    tries += 1
    const begun = performance.now()
    try {
      const { status, text } = await attempt()
      if (isAnswer(status)) return { tries, status, answer: JSON.parse(text) }
      trouble = `${status} ${text}`
      if (status < 500 && status !== 429) throw new Error(`FATAL: ${what} is refused: ${trouble}`)
    } catch (error) {
      if (error instanceof Error && error.message.startsWith('FATAL:')) throw error
      if (performance.now() - begun > REQUEST_MS - 1_000)
        throw new Error(`FATAL: ${what} hung for ${REQUEST_MS} ms on a service that lived`)
      trouble = String((error as { cause?: unknown }).cause ?? error)
    }
    await sleep(Math.min(20 * tries, 250))
  }
  throw new Error(`FATAL: ${what} was not acknowledged in ${BATCH_DEADLINE_MS} ms: ${trouble}`)
}

async function connection(c: number): Promise<void> {
  const tenants = TENANTS[c]!
  const own = tenants.length === 1
  const key = own ? args['tenant-key']! : args['admin-key']!
  const dice = new Dice(seed * 31 + c)
  const stream = new Stream(world, tenants, seed * 17 + c, Number(args.spikes))
  const sent: Batch[] = []
  let n = 0

  const makeBatch = (): Batch => {
    const wait = dice.chance(0.3)
    const gzip = dice.chance(0.25)
    // A whole batch once more, as a sender does that lost an answer; perhaps long after.
    if (sent.length > 0 && dice.chance(0.12)) return { ...dice.pick(sent), wait, gzip }
    const slots = stream.slots()
    // A CloudEvent has a source, so batches with events without one are native.
    const cloud = slots.every((slot) => !('draft' in slot) || slot.draft.source !== '') || dice.chance(0.3)
    const fit = cloud ? slots.map((slot) => ('draft' in slot && slot.draft.source === '' ? null : slot)) : slots
    const events: string[] = []
    for (const [i, slot] of slots.entries()) {
      if (cloud && fit[i] === null) {
        // Sent natively later: nothing is lost of the stream, and a void never goes before its event within a batch.
        left.push(slot)
        continue
      }
      if (!('draft' in slot)) events.push(JSON.stringify(cloud ? slot.cloud : slot.native))
      else
        events.push(
          JSON.stringify(
            cloud
              ? toCloudEvent(slot.draft, !own || dice.chance(0.5))
              : toNative(slot.draft, !own || dice.chance(0.5), dice),
          ),
        )
    }
    return {
      format: !cloud ? 'json' : events.length === 1 && isObject(events[0]!) ? 'cloudevents' : 'cloudevents-batch',
      wait,
      gzip,
      events,
    }
  }
  const left: Slot[] = []
  const leftBatch = (): Batch => ({
    format: 'json',
    wait: false,
    gzip: false,
    events: left
      .splice(0)
      .map((slot) => JSON.stringify('draft' in slot ? toNative(slot.draft, true, dice) : slot.native)),
  })

  const send = async (batch: Batch): Promise<void> => {
    n += 1
    note({ type: 'send', c, n, key: own ? tenants[0] : null, ...batch })
    const text =
      batch.format === 'cloudevents' ||
      (batch.format === 'json' && batch.events.length === 1 && isObject(batch.events[0]!) && n % 2 === 0)
        ? batch.events[0]!
        : `[${batch.events.join(',')}]`
    const headers: Record<string, string> = { authorization: `Bearer ${key}`, 'content-type': FORMATS[batch.format] }
    if (batch.gzip) headers['content-encoding'] = 'gzip'
    const body = batch.gzip ? new Uint8Array(gzipSync(text)) : text
    const init = { headers, body }
    const way = own && nats !== undefined ? dice.next() : 1
    const hasVoid = batch.events.some((event) => event.includes('"kind":"void"'))
    const attempt =
      way < 0.4 && !hasVoid
        ? intoStream(tenants[0]!, init)
        : way < 0.7
          ? asRequest(tenants[0]!, batch.wait, init)
          : overHttp(`/v1/events${batch.wait ? '?wait=applied' : ''}`, init)
    const acknowledged = await untilAcknowledged(`batch ${c}/${n}`, attempt, isAccepted)
    note({ type: 'ack', c, n, ...acknowledged })
    if (sent.length < 200) sent.push(batch)
    else sent[dice.int(0, 199)] = batch
  }

  const close = async (): Promise<void> => {
    for (const contract of world.contracts.filter((one) => tenants.includes(one.tenant))) {
      n += 1
      const zone = world.zoneMinutes[contract.timeZone]! * MINUTE
      const local = new Date(world.now + zone)
      // Noon of the first day of the previous month, in the contract's zone.
      const at = Date.UTC(local.getUTCFullYear(), local.getUTCMonth() - 1, 1, 12) - zone
      note({ type: 'close', c, n, contract: contract.id, at })
      const headers = { authorization: `Bearer ${args['admin-key']}`, 'content-type': 'application/json' }
      const body = JSON.stringify({ contract: contract.id, at: String(at) })
      const acknowledged = await untilAcknowledged(
        `closing of ${contract.id}`,
        overHttp('/v1/periods/close', { headers, body }),
        (status) => status === 200,
      )
      note({ type: 'closed', c, n, ...acknowledged })
    }
  }

  let isClosed = false
  for (let made = 0; made < batchesMax && !ending; made += 1) {
    if (made === closeAfter) {
      await close()
      isClosed = true
    }
    const batch = makeBatch()
    if (batch.events.length > 0) await send(batch)
    if (left.length > 0) await send(leftBatch())
    await sleep(dice.int(0, 2 * pauseMs))
  }
  if (!isClosed && closeAfter >= 0) await close()
}

try {
  if (args.nats !== undefined)
    nats = await connect({
      servers: args.nats,
      maxReconnectAttempts: -1,
      reconnectTimeWait: 100,
      waitOnFirstConnect: true,
    })
  note({ type: 'head', seed, world, connections: TENANTS.length })
  await Promise.all(TENANTS.map((_, c) => connection(c)))
  await nats?.close()
  note({ type: 'end' })
  closeSync(file)
} catch (error) {
  process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`)
  process.exit(1)
}
