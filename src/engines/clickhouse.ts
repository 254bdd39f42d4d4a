/**
 * ClickHouse, embedded or outside: how the embedded one is configured and started, how either is reached and checked.
 *
 * The embedded server is clickhouse-local out of libchdb, told to listen (clickhouse-child.ts). Its own session is logged in as
 * `default` without a password, so `default` may do nothing but start the listener, and releve has its own user. That right also
 * stops the listener, so a request without our password (header X-ClickHouse-Key, or Authorization) finds no handler at all,
 * and only /ping is open. Credentials as URL parameters do not work there. There is no
 * Keeper and no SQL access control in it, hence no CREATE USER and no replicated tables. It listens on 127.0.0.1 only, has
 * fsync on for inserts, and keeps none of the system log tables.
 *
 * Promise: the settings that exactly-once depends on are set for every request of the client, whatever the server's defaults.
 */
import { createHash } from 'node:crypto'
import { chmodSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type ClickHouseClient, ClickHouseLogLevel, createClient } from '@clickhouse/client'
import { limits } from '../limits.js'
import type { Logger } from '../logger.js'
import { type Access, chooseFreePort, isPortFree } from './access.js'
import { EngineProcess } from './engine-process.js'
import { stopLeftovers } from './leftovers.js'

/** For those who POST bytes (RowBinary) themselves. The URL carries neither credentials nor a path to a database. */
export interface ClickHouseHttp {
  /** Origin and, behind a proxy, the path; no slash at the end. */
  readonly url: string
  readonly user: string
  readonly password: string
  readonly database: string
  /**
   * Settings that every request must carry as URL parameters. A caller that inserts adds its insert_deduplication_token.
   */
  readonly settings: Readonly<Record<string, string>>
}

const versionMin = [24, 8] as const

/** What every request says, so that nothing depends on a server's defaults (26.7 changed several of them). */
const requestSettings = {
  // An insert is answered when its rows are in the table, not when they are in a buffer.
  async_insert: 0,
  // The token of an insert decides; an insert without one is deduplicated by content.
  insert_deduplicate: 1,
  // JSON numbers are doubles to most readers: decimals and 64-bit integers travel as text.
  output_format_json_quote_decimals: 1,
  output_format_json_quote_64bit_integers: 1,
  // A reader that hung up stops its query.
  cancel_http_readonly_queries_on_client_close: 1,
  max_execution_time: limits.insertTimeoutMs / 1000,
} as const

const settingsAsText: Readonly<Record<string, string>> = Object.fromEntries(
  Object.entries(requestSettings).map(([name, value]) => [name, String(value)]),
)

/** The client, every option written out. Requests are not retried by it: callers that may repeat send a token. */
export function openClickHouseClient(http: ClickHouseHttp): ClickHouseClient {
  return createClient({
    url: http.url,
    username: http.user,
    password: http.password,
    database: http.database,
    application: 'releve',
    request_timeout: limits.insertTimeoutMs,
    max_open_connections: limits.clickhouseConnectionsMax,
    // Loopback and local networks are faster than gzip.
    compression: { request: false, response: false },
    // Below every server's keep-alive time (3 s in old ones), else a request meets a socket that is just being closed.
    keep_alive: { enabled: true, idle_socket_ttl: 2_500, eagerly_destroy_stale_sockets: true },
    // Errors reach the caller; the library's own lines would be a second voice.
    log: { level: ClickHouseLogLevel.OFF },
    // Parameters of long lists go into the body instead of an URL that is too long.
    use_multipart_params_auto: true,
    clickhouse_settings: { ...requestSettings },
  })
}

/** Reads CLICKHOUSE_URL: http(s)://user:password@host:port/database. */
export function parseClickHouseUrl(text: string): ClickHouseHttp {
  let url: URL
  try {
    url = new URL(text)
  } catch {
    throw new Error('cannot read CLICKHOUSE_URL: it must look like http://user:password@host:8123/database')
  }
  if (url.protocol !== 'http:' && url.protocol !== 'https:') {
    throw new Error(`cannot use CLICKHOUSE_URL with ${url.protocol}//: ClickHouse is spoken to over http or https`)
  }
  return {
    url: url.origin,
    user: decodeURIComponent(url.username) || 'default',
    password: decodeURIComponent(url.password),
    database: decodeURIComponent(url.pathname.replace(/^\//, '')) || 'default',
    settings: settingsAsText,
  }
}

/** The version of a server that answers, after checking that it is one releve can work with. */
export async function checkClickHouse(client: ClickHouseClient, http: ClickHouseHttp): Promise<string> {
  let version: string
  try {
    const answer = await client.query({
      query:
        'SELECT version() AS version, currentDatabase() AS database, toDecimal64(1, 2) AS decimal, toInt64(1) AS int64',
      format: 'JSONEachRow',
    })
    const [row] = await answer.json<{ version: string; decimal: unknown; int64: unknown }>()
    if (!row) throw new Error('it gave no row')
    if (row.decimal !== '1' && row.decimal !== '1.00') throw new Error('it does not write decimals as text')
    if (row.int64 !== '1') throw new Error('it does not write 64-bit integers as text')
    version = row.version
  } catch (error) {
    throw new Error(`cannot use ClickHouse at ${http.url}: ${error instanceof Error ? error.message : String(error)}`, {
      cause: error,
    })
  }
  const [major = 0, minor = 0] = version.split('.').map(Number)
  if (major < versionMin[0] || (major === versionMin[0] && minor < versionMin[1])) {
    throw new Error(`cannot use ClickHouse ${version} at ${http.url}: ${versionMin.join('.')} or later is needed`)
  }
  return version
}

/** `http` is complete once start() has resolved: the port may be chosen by it. */
export function buildEmbeddedClickHouse(options: {
  readonly dataDirectory: string
  readonly access: Access
  readonly saveAccess: () => void
  readonly memoryBytes: number
  readonly logger: Logger
  readonly onFatal: (error: Error) => void
}): { process: EngineProcess; http: () => ClickHouseHttp } {
  const { access, logger } = options
  const directory = join(options.dataDirectory, 'clickhouse')
  const http = (): ClickHouseHttp => ({
    url: `http://127.0.0.1:${access.port}`,
    user: access.user,
    password: access.password,
    database: 'default',
    settings: settingsAsText,
  })
  const engine = new EngineProcess({
    name: 'clickhouse',
    directory,
    // About two seconds; what was acknowledged is synced anyway.
    stopSignal: 'SIGTERM',
    leashSignal: 'SIGKILL',
    logger,
    onFatal: options.onFatal,
    prepare: async (first) => {
      const libraryPath = findLibrary()
      mkdirSync(join(directory, 'data'), { recursive: true, mode: 0o700 })
      await stopLeftovers(directory, [process.execPath], {
        polite: undefined,
        signal: 'SIGTERM',
        politeMs: limits.engineStopMs,
        logger,
      })
      if (access.port === 0 || !(await isPortFree(access.port))) {
        if (!first) throw new Error(`cannot start clickhouse: port ${access.port} is in use`)
        access.port = await chooseFreePort()
        options.saveAccess()
      }
      rmSync(join(directory, 'tmp'), { recursive: true, force: true })
      writePrivate(join(directory, 'users.xml'), usersXml(access))
      writePrivate(join(directory, 'config.xml'), configXml(directory, access, options.memoryBytes))
      return {
        command: process.execPath,
        args: [
          fileURLToPath(new URL('./clickhouse-child.js', import.meta.url)),
          libraryPath,
          join(directory, 'data'),
          join(directory, 'config.xml'),
        ],
        env: {},
      }
    },
    probe: async () => {
      const { url, user, password } = http()
      const response = await fetch(`${url}/?query=${encodeURIComponent('SELECT version()')}`, {
        headers: { 'x-clickhouse-user': user, 'x-clickhouse-key': password, connection: 'close' },
        signal: AbortSignal.timeout(2_000),
      })
      const text = await response.text()
      if (!response.ok) throw new Error(text.slice(0, 500))
      return text.trim()
    },
  })
  return { process: engine, http }
}

/** The library of the embedded ClickHouse. */
export function findLibrary(): string {
  const require = createRequire(import.meta.url)
  const name = `@chdb/lib-${process.platform}-${process.arch}${process.platform === 'linux' ? '-gnu' : ''}`
  try {
    return join(dirname(require.resolve(`${name}/package.json`)), 'libchdb.so')
  } catch (error) {
    throw new Error(
      `cannot start the embedded ClickHouse: the package ${name} is not installed (it exists for glibc Linux and macOS); ` +
        'set CLICKHOUSE_URL to use a server instead',
      { cause: error },
    )
  }
}

function writePrivate(path: string, text: string): void {
  writeFileSync(path, text, { mode: 0o600 })
  chmodSync(path, 0o600)
}

function xml(text: string): string {
  return text.replace(/[<>&'"]/g, (char) => `&#${char.charCodeAt(0)};`)
}

function configXml(directory: string, access: Access, memoryBytes: number): string {
  const basic = Buffer.from(`${access.user}:${access.password}`).toString('base64')
  const handler = '<handler><type>dynamic_query_handler</type><query_param_name>query</query_param_name></handler>'
  // Merges of more parts at once, so that a row goes through fewer of them: 12 million rows of the archive in inserts of 500,000 took
  // 1,156 CPU ns a row with 5, the default, and 849 with 10. And events come before merges, which can wait for some hundred parts.
  // A settled month becomes one part (148_settled_months.sql) unless that would be larger than any part may be.
  // Sections that are absent stay off: query_log, trace_log, metric_log, text_log, part_log and their kin write for ever.
  return `<clickhouse>
  <http_port>${access.port}</http_port>
  <listen_host>127.0.0.1</listen_host>
  <keep_alive_timeout>30</keep_alive_timeout>
  <max_connections>256</max_connections>
  <timezone>UTC</timezone>
  <log-level>warning</log-level>
  <logger>
    <log>${xml(join(directory, 'server.log'))}</log>
    <errorlog>${xml(join(directory, 'server.err.log'))}</errorlog>
    <size>10M</size>
    <count>2</count>
    <console>0</console>
  </logger>
  <tmp_path>${xml(join(directory, 'tmp/'))}</tmp_path>
  <user_directories><users_xml><path>${xml(join(directory, 'users.xml'))}</path></users_xml></user_directories>
  <remote_servers></remote_servers>
  <http_handlers>
    <rule><headers><X-ClickHouse-Key>${xml(access.password)}</X-ClickHouse-Key></headers>${handler}</rule>
    <rule><headers><Authorization>Basic ${xml(basic)}</Authorization></headers>${handler}</rule>
    <rule><url>/ping</url><handler><type>ping</type></handler></rule>
  </http_handlers>
  <merge_tree>
    <fsync_after_insert>1</fsync_after_insert>
    <fsync_part_directory>1</fsync_part_directory>
    <merge_selector_base>10</merge_selector_base>
    <enable_max_bytes_limit_for_min_age_to_force_merge>1</enable_max_bytes_limit_for_min_age_to_force_merge>
  </merge_tree>
  <os_threads_nice_value_merge_mutate>10</os_threads_nice_value_merge_mutate>
  <max_server_memory_usage>${memoryBytes}</max_server_memory_usage>
  <mark_cache_size>268435456</mark_cache_size>
  <uncompressed_cache_size>0</uncompressed_cache_size>
  <background_pool_size>4</background_pool_size>
  <background_merges_mutations_concurrency_ratio>2</background_merges_mutations_concurrency_ratio>
  <background_schedule_pool_size>8</background_schedule_pool_size>
  <background_common_pool_size>2</background_common_pool_size>
  <background_move_pool_size>1</background_move_pool_size>
  <background_fetches_pool_size>1</background_fetches_pool_size>
  <background_message_broker_schedule_pool_size>1</background_message_broker_schedule_pool_size>
  <background_distributed_schedule_pool_size>1</background_distributed_schedule_pool_size>
  <send_crash_reports><enabled>false</enabled></send_crash_reports>
</clickhouse>
`
}

function usersXml(access: Access): string {
  const hash = createHash('sha256').update(access.password).digest('hex')
  return `<clickhouse>
  <profiles>
    <default>
      <fsync_metadata>1</fsync_metadata>
    </default>
  </profiles>
  <quotas><default></default></quotas>
  <users>
    <default>
      <password></password>
      <networks><ip>127.0.0.1</ip><ip>::1</ip></networks>
      <profile>default</profile>
      <quota>default</quota>
      <grants><query>GRANT SYSTEM LISTEN ON *.*</query></grants>
    </default>
    <${access.user}>
      <password_sha256_hex>${hash}</password_sha256_hex>
      <networks><ip>127.0.0.1</ip><ip>::1</ip></networks>
      <profile>default</profile>
      <quota>default</quota>
      <access_management>0</access_management>
    </${access.user}>
  </users>
</clickhouse>
`
}
