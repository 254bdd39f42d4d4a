/**
 * Environment → checked, frozen Config. The only reader of process.env. All faults are reported together, with what to write
 * instead. `.env.example` lists the same variables.
 */
import { availableParallelism } from 'node:os'
import { resolve } from 'node:path'
import { limits } from './limits.js'

export interface Config {
  /** Everything that releve keeps on this machine: log, engines, key files, secrets. */
  readonly dataDirectory: string
  readonly host: string
  readonly port: number
  /** undefined: the embedded engine. */
  readonly clickhouseUrl: string | undefined
  readonly postgresUrl: string | undefined
  readonly logLevel: string
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
    }
  }

  const config: Config = {
    dataDirectory: resolve(env.RELEVE_DATA || '.data'),
    host: env.RELEVE_HOST || '127.0.0.1',
    port: integer('RELEVE_PORT', 8484, 0, 65_535),
    clickhouseUrl: url('CLICKHOUSE_URL', ['http:', 'https:']),
    postgresUrl: url('POSTGRES_URL', ['postgres:', 'postgresql:']),
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
  'RELEVE_HOST',
  'RELEVE_PORT',
  'RELEVE_LOG',
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
  'RELEVE_NATS_URL',
  'RELEVE_NATS_NKEY_FILE',
  'RELEVE_NATS_CA_FILE',
  'RELEVE_NATS_CERT_FILE',
  'RELEVE_NATS_KEY_FILE',
  'RELEVE_NATS_JETSTREAM',
  'RELEVE_NATS_STREAM',
  'RELEVE_NATS_STREAM_BYTES',
]

/** The environment as it is. Callers outside tests pass nothing. */
export function loadConfig(): Config {
  return parseConfig(process.env)
}
