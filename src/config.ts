/**
 * Environment → checked, frozen Config. The only reader of process.env. All faults are reported together, with what to write
 * instead. `.env.example` lists the same variables.
 */
import { isIP } from 'node:net'
import { availableParallelism } from 'node:os'
import { join, resolve } from 'node:path'
import { limits } from './limits.js'
import { rangeFault } from './ranges.js'

export interface Config {
  /** Everything that releve keeps on this machine: log, engines, key files, secrets. */
  readonly dataDirectory: string
  /** Where backups are made, one directory each. */
  readonly backupDirectory: string
  readonly host: string
  readonly port: number
  /** Addresses and networks of proxies whose X-Forwarded-For is believed; undefined: none. */
  readonly trustProxy: string | undefined
  /** undefined: the embedded engine. */
  readonly clickhouseUrl: string | undefined
  readonly postgresUrl: string | undefined
  readonly logLevel: string
  /** Where traces go, by OTLP over HTTP; undefined: none are made. */
  readonly otlpEndpoint: string | undefined
  /** Streams (= shards). Fixed at first start; a later value is ignored with a warning. */
  readonly streams: number
  readonly epochMs: number
  readonly graceMs: number
  readonly lateMs: number
  readonly aheadMs: number
  readonly dedupeIdsMax: number
  /** Disk of ids that memory has no room for, per stream; 0: none go there. */
  readonly dedupeDiskBytes: number
  readonly logBytesMax: number
  readonly segmentBytes: number
  /** Frames kept in memory between log and shard, per stream; not a setting, but tests make it small. */
  readonly tailBytesMax: number
  /** undefined: no NATS door. */
  readonly nats: NatsConfig | undefined
  /** Côte d'Ivoire's clearance system; undefined: documents that need it wait. */
  readonly fne: { readonly url: string; readonly tokenFile: string } | undefined
  /** Ranges of addresses that webhooks may go to although they are not public, and by plain http. */
  readonly webhookAllow: readonly string[]
  /** Whether a reservation is answered when the disk has it (each), or when the kernel has it and the disk will soon. */
  readonly reservationSync: string
  /** undefined: no e-mail. */
  readonly smtp: { readonly url: string; readonly from: string; readonly caFile: string | undefined } | undefined
  /** Waits between the attempts at a delivery; not a setting, but tests make them short. */
  readonly deliveryRetryMs: readonly number[]
  /** Test hook: die by SIGKILL at the n-th pass of a named point, «after-manifest» or «after-chunk:3». Empty in production. */
  readonly crashAt: string
}

export interface NatsConfig {
  /** nats:// or tls://, with user:password@ or token@ where the server asks for one. */
  readonly url: string
  /** Files; the seed of an nkey, and certificates in PEM. */
  readonly nkeyFile: string | undefined
  readonly caFile: string | undefined
  readonly certificateFile: string | undefined
  readonly keyFile: string | undefined
  /** Name of the JetStream stream of usage.in.>; undefined: none, and usage.in.<tenant> is request and reply. */
  readonly stream: string | undefined
  readonly streamBytes: number
  /** Not a setting, but tests make it short (limits.natsStallMs). */
  readonly stallMs: number
}

interface Fault {
  readonly name: string
  readonly reason: string
}

/** Throws one Error that lists every fault. */
export function parseConfig(env: Readonly<Record<string, string | undefined>>): Config {
  const faults: Fault[] = []

  const integer = (name: string, fallback: number, min: number, max: number): number => {
    const text = env[name]
    if (text === undefined || text === '') return fallback
    const value = /^[0-9]{1,15}$/.test(text) ? Number(text) : Number.NaN
    if (Number.isNaN(value) || value < min || value > max) {
      faults.push({ name, reason: `is «${text}», must be a whole number from ${min} to ${max}` })
      return fallback
    }
    return value
  }
  const oneOf = (name: string, fallback: string, allowed: readonly string[]): string => {
    const text = env[name]
    if (text === undefined || text === '') return fallback
    if (!allowed.includes(text)) faults.push({ name, reason: `is «${text}», must be one of ${allowed.join(', ')}` })
    return text
  }
  const url = (name: string, protocols: readonly string[]): string | undefined => {
    const text = env[name]
    if (text === undefined || text === '') return undefined
    const parsed = URL.canParse(text) ? new URL(text) : undefined
    if (parsed === undefined || !protocols.includes(parsed.protocol)) {
      // The value may hold a password, so it is not shown.
      faults.push({ name, reason: `is not a URL that begins with ${protocols.map((p) => `${p}//`).join(' or ')}` })
    }
    return text
  }

  /** Addresses or networks, with commas. */
  const networks = (name: string): string | undefined => {
    const text = env[name]
    if (text === undefined || text === '') return undefined
    for (const one of text.split(',')) {
      const [address = '', bits] = one.trim().split('/')
      const width = isIP(address) === 4 ? 32 : isIP(address) === 6 ? 128 : -1
      if (width < 0 || (bits !== undefined && !(/^[0-9]{1,3}$/.test(bits) && Number(bits) <= width)))
        faults.push({ name, reason: `names «${one.trim()}», must be addresses or networks such as 10.0.0.0/8` })
    }
    return text
  }

  const nats = (): NatsConfig | undefined => {
    const address = url('RELEVE_NATS_URL', ['nats:', 'tls:'])
    const jetStream = oneOf('RELEVE_NATS_JETSTREAM', 'on', ['on', 'off'])
    const name = env.RELEVE_NATS_STREAM || 'RELEVE_USAGE'
    if (!/^[A-Za-z0-9_-]{1,32}$/.test(name)) {
      faults.push({ name: 'RELEVE_NATS_STREAM', reason: `is «${name}», must be 1 to 32 letters, digits, _ and -` })
    }
    const [certificateFile, keyFile] = [env.RELEVE_NATS_CERT_FILE || undefined, env.RELEVE_NATS_KEY_FILE || undefined]
    if ((certificateFile === undefined) !== (keyFile === undefined)) {
      faults.push({
        name: 'RELEVE_NATS_CERT_FILE',
        reason: 'and RELEVE_NATS_KEY_FILE are given together or not at all',
      })
    }
    const streamBytes = integer('RELEVE_NATS_STREAM_BYTES', limits.natsStreamBytesMax, limits.natsPullBytesMax, 2 ** 44)
    if (address === undefined) {
      const other = Object.keys(env).find((key) => key.startsWith('RELEVE_NATS_') && env[key])
      if (other !== undefined) faults.push({ name: other, reason: 'means nothing without RELEVE_NATS_URL' })
      return undefined
    }
    return {
      url: address,
      nkeyFile: env.RELEVE_NATS_NKEY_FILE || undefined,
      caFile: env.RELEVE_NATS_CA_FILE || undefined,
      certificateFile,
      keyFile,
      stream: jetStream === 'on' ? name : undefined,
      streamBytes,
      stallMs: limits.natsStallMs,
    }
  }

  const fne = (): Config['fne'] => {
    const [address, tokenFile] = [url('RELEVE_FNE_URL', ['http:', 'https:']), env.RELEVE_FNE_TOKEN_FILE || undefined]
    if ((address === undefined) !== (tokenFile === undefined))
      faults.push({ name: 'RELEVE_FNE_URL', reason: 'and RELEVE_FNE_TOKEN_FILE are given together or not at all' })
    return address === undefined || tokenFile === undefined
      ? undefined
      : { url: address.replace(/\/+$/, ''), tokenFile }
  }
  const webhookAllow = (): readonly string[] => {
    const ranges = (env.RELEVE_WEBHOOK_ALLOW ?? '').split(',').filter((range) => range !== '')
    for (const range of ranges) {
      const reason = rangeFault(range)
      if (reason !== undefined) faults.push({ name: 'RELEVE_WEBHOOK_ALLOW', reason })
    }
    return ranges
  }
  const smtp = (): Config['smtp'] => {
    const address = url('RELEVE_SMTP_URL', ['smtp:', 'smtps:'])
    const from = env.RELEVE_SMTP_FROM || ''
    if ((address === undefined) !== (from === ''))
      faults.push({ name: 'RELEVE_SMTP_FROM', reason: 'and RELEVE_SMTP_URL are given together or not at all' })
    if (from !== '' && !/^(?:[^<>\p{Cc}]{0,100}<[^<>@\s]+@[^<>@\s]+>|[^<>@\s]+@[^<>@\s]+)$/u.test(from))
      faults.push({
        name: 'RELEVE_SMTP_FROM',
        reason: 'is no address such as releve@example.com or Releve <releve@example.com>',
      })
    const caFile = env.RELEVE_SMTP_CA_FILE || undefined
    if (caFile !== undefined && address === undefined)
      faults.push({ name: 'RELEVE_SMTP_CA_FILE', reason: 'means nothing without RELEVE_SMTP_URL' })
    return address === undefined ? undefined : { url: address, from, caFile }
  }

  const config: Config = {
    dataDirectory: resolve(env.RELEVE_DATA || '.data'),
    backupDirectory: resolve(env.RELEVE_BACKUPS || join(env.RELEVE_DATA || '.data', 'backups')),
    host: env.RELEVE_HOST || '127.0.0.1',
    port: integer('RELEVE_PORT', 8484, 0, 65_535),
    trustProxy: networks('RELEVE_TRUST_PROXY'),
    clickhouseUrl: url('CLICKHOUSE_URL', ['http:', 'https:']),
    postgresUrl: url('POSTGRES_URL', ['postgres:', 'postgresql:']),
    otlpEndpoint: url('OTEL_EXPORTER_OTLP_ENDPOINT', ['http:', 'https:']),
    logLevel: oneOf('RELEVE_LOG', 'info', ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent']),
    streams: integer('RELEVE_STREAMS', Math.max(1, Math.min(8, availableParallelism() - 1)), 1, limits.streamsMax),
    epochMs: integer('RELEVE_EPOCH_MS', limits.epochMs, 50, 60_000),
    graceMs: integer('RELEVE_GRACE_MS', limits.graceMs, 0, 30 * 86_400_000),
    lateMs: integer('RELEVE_LATE_MS', limits.lateMs, 60_000, 366 * 86_400_000),
    aheadMs: integer('RELEVE_AHEAD_MS', limits.aheadMs, 0, 7 * 86_400_000),
    dedupeIdsMax: integer(
      'RELEVE_DEDUPE_IDS',
      limits.dedupeIdsMax,
      16 * limits.batchEventsMax,
      limits.dedupeIdsCeiling,
    ),
    dedupeDiskBytes: integer('RELEVE_DEDUPE_DISK_BYTES', limits.dedupeDiskBytes, 0, 2 ** 44),
    logBytesMax: integer('RELEVE_LOG_BYTES', limits.logBytesMax, 8 * limits.segmentBytes, 2 ** 44),
    segmentBytes: limits.segmentBytes,
    tailBytesMax: limits.tailBytesMax,
    nats: nats(),
    fne: fne(),
    webhookAllow: webhookAllow(),
    reservationSync: oneOf('RELEVE_RESERVATIONS_SYNC', 'soon', ['each', 'soon']),
    smtp: smtp(),
    deliveryRetryMs: limits.deliveryRetryMs,
    crashAt: env.RELEVE_CRASH_AT || '',
  }

  const generationsNeeded = (config.lateMs + config.aheadMs) / limits.generationMs
  if (generationsNeeded > limits.generationsMax / 2) {
    const days = Math.floor(((limits.generationsMax / 2) * limits.generationMs) / 86_400_000)
    faults.push({
      name: 'RELEVE_LATE_MS',
      reason: `with RELEVE_AHEAD_MS asks for a dedupe window of more than ${days} days`,
    })
  }
  for (const name of Object.keys(env)) {
    if (name.startsWith('RELEVE_') && !settings.includes(name))
      faults.push({ name, reason: 'is not a setting of releve' })
  }
  if (faults.length > 0) {
    throw new Error(
      `cannot start, ${faults.length} setting${faults.length > 1 ? 's are' : ' is'} wrong:\n${faults.map((f) => `  ${f.name} ${f.reason}`).join('\n')}\n.env.example explains each.`,
    )
  }
  return Object.freeze(config)
}

/** Every variable that is read. */
export const settings: readonly string[] = [
  'RELEVE_DATA',
  'RELEVE_BACKUPS',
  'RELEVE_HOST',
  'RELEVE_PORT',
  'RELEVE_TRUST_PROXY',
  'RELEVE_LOG',
  'OTEL_EXPORTER_OTLP_ENDPOINT',
  'CLICKHOUSE_URL',
  'POSTGRES_URL',
  'RELEVE_STREAMS',
  'RELEVE_EPOCH_MS',
  'RELEVE_GRACE_MS',
  'RELEVE_LATE_MS',
  'RELEVE_AHEAD_MS',
  'RELEVE_DEDUPE_IDS',
  'RELEVE_DEDUPE_DISK_BYTES',
  'RELEVE_LOG_BYTES',
  'RELEVE_CRASH_AT',
  'RELEVE_URL',
  'RELEVE_KEY',
  'RELEVE_KEY_FILE',
  'RELEVE_FNE_URL',
  'RELEVE_FNE_TOKEN_FILE',
  'RELEVE_NATS_URL',
  'RELEVE_NATS_NKEY_FILE',
  'RELEVE_NATS_CA_FILE',
  'RELEVE_NATS_CERT_FILE',
  'RELEVE_NATS_KEY_FILE',
  'RELEVE_NATS_JETSTREAM',
  'RELEVE_NATS_STREAM',
  'RELEVE_NATS_STREAM_BYTES',
  'RELEVE_WEBHOOK_ALLOW',
  'RELEVE_RESERVATIONS_SYNC',
  'RELEVE_SMTP_URL',
  'RELEVE_SMTP_FROM',
  'RELEVE_SMTP_CA_FILE',
]

/** The environment as it is. Callers outside tests pass nothing. */
export function loadConfig(): Config {
  return parseConfig(process.env)
}

/** What the commands that ask a service read; a machine without a service needs nothing else. */
export interface ClientConfig {
  readonly url: string | undefined
  readonly key: string | undefined
  readonly keyFile: string | undefined
  readonly dataDirectory: string
}

export function loadClientConfig(): ClientConfig {
  const { env } = process
  return {
    url: env.RELEVE_URL || undefined,
    key: env.RELEVE_KEY || undefined,
    keyFile: env.RELEVE_KEY_FILE || undefined,
    dataDirectory: resolve(env.RELEVE_DATA || '.data'),
  }
}
