/**
 * The engines: ClickHouse and PostgreSQL, as child processes from npm or as servers outside, behind the same clients.
 *
 * Opens both at once and resolves when both answer and are checked. Embedded ones live in the data directory, which is locked
 * for as long as they are open; they listen on 127.0.0.1 only, with random passwords. One that dies is started again on its
 * port, so clients and pool go on working: a request in flight fails, the next one is served. One that keeps dying ends in
 * `onFatal`. Outside servers are checked at start and otherwise their operator's business.
 *
 * Not done here: schema (migrate.ts), retries of requests (each edge has its own), health of outside servers after the start.
 */
import { chmodSync, mkdirSync, statSync } from 'node:fs'
import { resolve } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { ClickHouseClient } from '@clickhouse/client'
import type pg from 'pg'
import { limits } from '../limits.js'
import type { Logger } from '../logger.js'
import { openAccessBook, saveAccessBook } from './access.js'
import {
  buildEmbeddedClickHouse,
  type ClickHouseHttp,
  checkClickHouse,
  openClickHouseClient,
  parseClickHouseUrl,
} from './clickhouse.js'
import type { EngineProcess } from './engine-process.js'
import { lockDataDirectory } from './lock.js'
import { buildEmbeddedPostgres, checkPostgres, openPostgresPool } from './postgres.js'

export type { ClickHouseHttp } from './clickhouse.js'
export { lockDataDirectory } from './lock.js'

type Closer = () => Promise<unknown>

export interface EnginesOptions {
  /** Locked by openEngines, unless `locked`. */
  readonly dataDirectory: string
  /** The caller already holds lockDataDirectory(dataDirectory) and releases it after close(). */
  readonly locked?: boolean
  /** http(s)://user:password@host:port/database; the embedded ClickHouse is not started then. */
  readonly clickhouseUrl?: string | undefined
  /** postgres://user:password@host:port/database; the embedded PostgreSQL is not started then. */
  readonly postgresUrl?: string | undefined
  /** Memory of the embedded ClickHouse, bytes. */
  readonly clickhouseMemoryBytes?: number
  /** Of the embedded PostgreSQL, instead of those that it has here; none may lessen durability. */
  readonly postgresSettings?: Readonly<Record<string, string>>
  readonly logger: Logger
  /** Called at most once per engine, when it died more often than limits.engineRestartsMax. The service should end. */
  readonly onFatal: (error: Error) => void
}

export interface EngineState {
  readonly kind: 'embedded' | 'outside'
  readonly version: string
  /** Of the embedded engine, while it runs. */
  readonly pid?: number
  /** Embedded: it runs and has answered. Outside: it answered when it was asked last. */
  readonly up: boolean
  readonly restarts: number
}

/** Whether an error of a request says that the engine is away rather than that the request is wrong. */
export function isAway(error: unknown): boolean {
  for (let at = error; at instanceof Error; at = at.cause) {
    const { code = '' } = at as { code?: unknown }
    if (awayCodes.has(String(code)) || awayMessages.test(at.message)) return true
  }
  return false
}

const awayCodes = new Set([
  ...['ECONNREFUSED', 'ECONNRESET', 'EPIPE', 'ETIMEDOUT', 'ENOTFOUND', 'EHOSTUNREACH'],
  // PostgreSQL: is stopped, has crashed, is not ready yet, has no connection left; and a connection that broke.
  ...['57P01', '57P02', '57P03', '53300', '08000', '08003', '08006'],
])
const awayMessages =
  /^(Timeout error\.|socket hang up|Connection terminated|timeout exceeded when trying to connect|Query read timeout)/

export interface Engines {
  readonly clickhouse: ClickHouseClient
  readonly clickhouseHttp: ClickHouseHttp
  /** Bounded. bigint columns are numbers, an unsafe one fails its query. */
  readonly postgres: pg.Pool
  state(): { readonly clickhouse: EngineState; readonly postgres: EngineState }
  /** Closes clients and pool, stops what is embedded, drops the lock. Always finishes; never rejects; may be called twice. */
  close(): Promise<void>
}

/**
 * @throws Error when the directory is in use, an engine cannot be started (with its last words), or an outside server is not
 * reachable, too old or without durability. Nothing is left running then.
 */
export async function openEngines(options: EnginesOptions): Promise<Engines> {
  const { logger } = options
  const dataDirectory = resolve(options.dataDirectory)
  const lock = options.locked ? undefined : lockDataDirectory(dataDirectory)
  const clientClosers: Closer[] = []
  const engineClosers: Closer[] = []
  const watching: Watched[] = []
  let closed: Promise<void> | undefined
  const close = (): Promise<void> => {
    for (const watched of watching) watched.end()
    closed ??= closeAll(clientClosers, logger)
      .then(() => closeAll(engineClosers, logger))
      .finally(() => lock?.release())
    return closed
  }
  try {
    makePrivate(dataDirectory)
    const embedded = !options.clickhouseUrl || !options.postgresUrl
    const book = embedded ? openAccessBook(dataDirectory) : undefined
    const saveAccess = (): void => saveAccessBook(dataDirectory, book!)
    const begun = performance.now()

    const watch = (answers: () => Promise<boolean>): Watched => {
      const watched = watchOutside(answers)
      watching.push(watched)
      return watched
    }

    const startClickHouse = async () => {
      let engine: EngineProcess | undefined
      let http: ClickHouseHttp
      if (options.clickhouseUrl) {
        http = parseClickHouseUrl(options.clickhouseUrl)
      } else {
        const built = buildEmbeddedClickHouse({
          dataDirectory,
          access: book!.clickhouse,
          saveAccess,
          memoryBytes: options.clickhouseMemoryBytes ?? limits.clickhouseMemoryBytes,
          logger,
          onFatal: options.onFatal,
        })
        engine = built.process
        engineClosers.push(() => built.process.close())
        logger.info('starting the embedded ClickHouse')
        await engine.start()
        http = built.http()
      }
      const client = openClickHouseClient(http)
      clientClosers.push(() => client.close())
      const version = await checkClickHouse(client, http)
      const outside =
        engine === undefined ? watch(async () => (await client.ping({ select: true })).success) : undefined
      return { engine, http, client, version, outside }
    }

    const startPostgres = async () => {
      let engine: EngineProcess | undefined
      if (!options.postgresUrl) {
        engine = buildEmbeddedPostgres({
          dataDirectory,
          access: book!.postgres,
          saveAccess,
          settings: options.postgresSettings ?? {},
          logger,
          onFatal: options.onFatal,
        })
        engineClosers.push(() => engine!.close())
        logger.info('starting the embedded PostgreSQL')
        await engine.start()
      }
      const pool = openPostgresPool(options.postgresUrl ?? book!.postgres, logger)
      clientClosers.push(() => pool.end())
      const version = await checkPostgres(pool)
      const outside =
        engine === undefined ? watch(async () => (await pool.query('SELECT 1')).rowCount === 1) : undefined
      return { engine, pool, version, outside }
    }

    const [clickhouse, postgres] = await both(startClickHouse(), startPostgres())
    logger.info(
      {
        clickhouse: clickhouse.version,
        postgres: postgres.version,
        startMs: Math.round(performance.now() - begun),
      },
      'engines are ready',
    )
    return {
      clickhouse: clickhouse.client,
      clickhouseHttp: clickhouse.http,
      postgres: postgres.pool,
      state: () => ({
        clickhouse: stateOf(clickhouse.engine, clickhouse.version, clickhouse.outside),
        postgres: stateOf(postgres.engine, postgres.version, postgres.outside),
      }),
      close,
    }
  } catch (error) {
    await close()
    throw error
  }
}

/** Waits for both even when one fails, so that the one that goes on starting is known to close(). */
async function both<A, B>(first: Promise<A>, second: Promise<B>): Promise<[A, B]> {
  const [a, b] = await Promise.allSettled([first, second])
  if (a.status === 'rejected') throw a.reason
  if (b.status === 'rejected') throw b.reason
  return [a.value, b.value]
}

/**
 * Nothing stops the rest. A connection that somebody still holds keeps a pool from ending: the engine's own stop ends it then,
 * hence the bound. Engines bound themselves, with SIGKILL.
 */
async function closeAll(closers: readonly Closer[], logger: Logger): Promise<void> {
  const complain = (error: unknown): void => logger.warn({ err: error }, 'an engine did not close cleanly')
  const bound = new AbortController()
  await Promise.race([
    Promise.all(closers.map((closer) => closer().catch(complain))),
    sleep(2 * limits.engineStopMs, undefined, { signal: bound.signal }).catch(() => undefined),
  ])
  bound.abort()
}

interface Watched {
  readonly up: boolean
  end(): void
}

/**
 * Nobody tells this process that a server elsewhere has died, so it is asked now and then. One that has not answered when the next
 * question is due is away as well.
 */
function watchOutside(answers: () => Promise<boolean>): Watched {
  let up = true
  let isAsking = false
  const timer = setInterval(() => {
    if (isAsking) {
      up = false
      return
    }
    isAsking = true
    answers()
      .catch(() => false)
      .then((answered) => {
        up = answered
        isAsking = false
      })
  }, limits.outsideAskMs)
  timer.unref()
  return {
    get up() {
      return up
    },
    end: () => clearInterval(timer),
  }
}

function stateOf(engine: EngineProcess | undefined, version: string, outside: Watched | undefined): EngineState {
  if (!engine) return { kind: 'outside', version, up: outside?.up ?? true, restarts: 0 }
  const { up, pid, restarts } = engine
  return {
    kind: 'embedded',
    version: engine.version,
    up,
    restarts,
    ...(up && pid !== undefined ? { pid } : {}),
  }
}

/** Mode 0700; PostgreSQL's group may pass when the service runs as root (postgres.ts). */
function makePrivate(directory: string): void {
  mkdirSync(directory, { recursive: true, mode: 0o700 })
  if ((statSync(directory).mode & 0o077) !== 0) chmodSync(directory, 0o700)
}
