/**
 * The schema: numbered files in sql/postgres and sql/clickhouse, applied once and in order, never taken back.
 *
 * Each store remembers in `schema_migrations` what it has, with a SHA-256. A file that was changed after it was applied, a store
 * that is newer than the code, and a new file that sorts before an applied one are errors, found before anything is changed in
 * that store.
 *
 * PostgreSQL: one transaction a file, together with its record. ClickHouse has no such transaction: each statement is recorded
 * after it, and a crash between the two repeats that one statement; so only statements that may be repeated are accepted, and
 * a file with another one is refused whole. A file that stopped half-way may be mended behind the statements that are done. One process migrates at a time: an advisory lock in PostgreSQL covers both stores.
 */
import { createHash } from 'node:crypto'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { ClickHouseClient } from '@clickhouse/client'
import type pg from 'pg'
import { limits } from '../limits.js'
import type { Logger } from '../logger.js'
import { sqlDirectory } from '../paths.js'

interface MigrationFile {
  readonly name: string
  readonly text: string
}

interface Applied {
  readonly name: string
  /** Whether the file still begins with, or is, what was applied. */
  readonly matches: (file: MigrationFile) => boolean
}

/** «releve» in ASCII: the key of the advisory lock. */
const advisoryLock = '125779935852133'
const fileName = /^\d{3}_[a-z0-9_]+\.sql$/

/** Statements that leave the same state when they are repeated. */
const repeatable: readonly RegExp[] = [
  /^CREATE\s+(TABLE|DATABASE|VIEW|MATERIALIZED\s+VIEW|DICTIONARY|FUNCTION)\s+IF\s+NOT\s+EXISTS\s/i,
  /^DROP\s+(TABLE|DATABASE|VIEW|DICTIONARY|FUNCTION)\s+IF\s+EXISTS\s/i,
  /^ALTER\s+TABLE\s+\S+\s+ADD\s+(COLUMN|INDEX|PROJECTION|CONSTRAINT|STATISTICS)\s+IF\s+NOT\s+EXISTS\s/i,
  /^ALTER\s+TABLE\s+\S+\s+(DROP|MODIFY|COMMENT|MATERIALIZE)\s+(COLUMN|INDEX|PROJECTION|CONSTRAINT|STATISTICS)\s+IF\s+EXISTS\s/i,
  /^ALTER\s+TABLE\s+\S+\s+(MODIFY|RESET)\s+SETTING\s/i,
]

/**
 * Brings both stores to the schema of this code. Quick when nothing is to be done.
 *
 * @param options.directory holds the folders postgres and clickhouse; the project's own by default.
 * @throws Error «cannot migrate …» with the file and the reason; PostgreSQL keeps the files applied before it, ClickHouse the
 * statements.
 */
export async function migrate(options: {
  readonly clickhouse: ClickHouseClient
  readonly postgres: pg.Pool
  readonly logger: Logger
  readonly directory?: string
}): Promise<void> {
  const directory = options.directory ?? sqlDirectory
  const postgresFiles = readFiles(join(directory, 'postgres'))
  const clickhouseFiles = readFiles(join(directory, 'clickhouse'))
  const client = await options.postgres.connect()
  try {
    await client.query(`SET statement_timeout = 0`)
    await client.query(`SET lock_timeout = ${limits.engineStartMs}`)
    await client.query(`SELECT pg_advisory_lock(${advisoryLock})`)
    await migratePostgres(client, postgresFiles, options.logger)
    await migrateClickHouse(options.clickhouse, clickhouseFiles, options.logger)
  } finally {
    // The connection is closed instead of returned: that drops the lock, its settings and whatever transaction is open.
    client.release(true)
  }
}

function readFiles(directory: string): MigrationFile[] {
  const names = readdirSync(directory)
    .filter((name) => name.endsWith('.sql'))
    .sort()
  for (const [index, name] of names.entries()) {
    if (!fileName.test(name)) throw new Error(`cannot migrate: ${name} is not named like 001_what_it_adds.sql`)
    if (index > 0 && names[index - 1]!.slice(0, 3) === name.slice(0, 3)) {
      throw new Error(`cannot migrate: ${names[index - 1]} and ${name} have the same number`)
    }
  }
  return names.map((name) => ({ name, text: readFileSync(join(directory, name), 'utf8') }))
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}

/** What is still to be applied, in order. */
function pending(store: string, files: readonly MigrationFile[], applied: readonly Applied[]): MigrationFile[] {
  const known = new Map(files.map((file) => [file.name, file]))
  for (const { name, matches } of applied) {
    const file = known.get(name)
    if (!file) {
      throw new Error(
        `cannot migrate ${store}: it has ${name}, which this version of releve does not know; run the newer version`,
      )
    }
    if (!matches(file)) {
      throw new Error(
        `cannot migrate ${store}: ${name} was changed after it had been applied; put it back and add a new file`,
      )
    }
  }
  const done = new Set(applied.map(({ name }) => name))
  const last = applied.map(({ name }) => name).sort()[applied.length - 1] ?? ''
  const rest = files.filter(({ name }) => !done.has(name))
  for (const { name } of rest) {
    if (name < last) throw new Error(`cannot migrate ${store}: ${name} sorts before ${last}, which is already applied`)
  }
  return rest
}

async function migratePostgres(client: pg.PoolClient, files: readonly MigrationFile[], logger: Logger): Promise<void> {
  await client.query(
    `CREATE TABLE IF NOT EXISTS schema_migrations (
       name text PRIMARY KEY, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())`,
  )
  const applied = await client.query<{ name: string; sha256: string }>(`SELECT name, sha256 FROM schema_migrations`)
  const rows = applied.rows.map((row) => ({
    name: row.name,
    matches: (file: MigrationFile) => sha256(file.text) === row.sha256,
  }))
  for (const file of pending('PostgreSQL', files, rows)) {
    try {
      await client.query('BEGIN')
      await client.query(file.text)
      await client.query(`INSERT INTO schema_migrations (name, sha256) VALUES ($1, $2)`, [file.name, sha256(file.text)])
      await client.query('COMMIT')
    } catch (error) {
      throw new Error(`cannot migrate PostgreSQL: ${file.name}: ${(error as Error).message}`, { cause: error })
    }
    logger.info({ store: 'postgres', file: file.name }, 'migration applied')
  }
}

async function migrateClickHouse(
  client: ClickHouseClient,
  files: readonly MigrationFile[],
  logger: Logger,
): Promise<void> {
  const statements = new Map(files.map((file) => [file.name, splitStatements(file.text)]))
  for (const [name, list] of statements) {
    for (const statement of list) {
      if (repeatable.some((pattern) => pattern.test(statement))) continue
      throw new Error(
        `cannot migrate ClickHouse: ${name}: a crash could repeat «${statement.slice(0, 60)}», which is not of a kind that may be ` +
          'repeated; write it with IF [NOT] EXISTS',
      )
    }
  }
  await client.command({
    query: `CREATE TABLE IF NOT EXISTS schema_migrations (
              name String,
              sha256 String COMMENT 'of the statements that are done',
              statement UInt32 COMMENT 'statements of the file that are done',
              statements UInt32 COMMENT 'statements that the file has',
              applied_at DateTime64(3, 'UTC') DEFAULT now64(3))
            ENGINE = MergeTree ORDER BY (name, statement)
            SETTINGS non_replicated_deduplication_window = 1000`,
  })
  const answer = await client.query({
    query: `SELECT name, max(statement) AS done, argMax(statements, statement) AS total, argMax(sha256, statement) AS digest
            FROM schema_migrations GROUP BY name`,
    format: 'JSONEachRow',
  })
  const rows = await answer.json<{ name: string; done: number; total: number; digest: string }>()
  const done = new Map(rows.map((row) => [row.name, row.done]))
  pending(
    'ClickHouse',
    files,
    rows.map((row) => ({
      name: row.name,
      matches: ({ name }) => {
        const list = statements.get(name)!
        return digestOf(list, row.done) === row.digest && (row.done < row.total || list.length === row.total)
      },
    })),
  )
  for (const file of files) {
    const list = statements.get(file.name)!
    const from = done.get(file.name) ?? 0
    if (from >= list.length) continue
    for (let index = from; index < list.length; index++) {
      try {
        await client.command({ query: list[index]! })
        await client.insert({
          table: 'schema_migrations',
          values: [
            { name: file.name, sha256: digestOf(list, index + 1), statement: index + 1, statements: list.length },
          ],
          columns: ['name', 'sha256', 'statement', 'statements'],
          format: 'JSONEachRow',
          clickhouse_settings: { insert_deduplication_token: `${file.name}/${index + 1}/${digestOf(list, index + 1)}` },
        })
      } catch (error) {
        throw new Error(
          `cannot migrate ClickHouse: ${file.name}, statement ${index + 1} of ${list.length}: ${(error as Error).message}`,
          { cause: error },
        )
      }
    }
    logger.info({ store: 'clickhouse', file: file.name, statements: list.length - from }, 'migration applied')
  }
}

/** Of the first `count` statements: comments between statements may change, what was run may not. */
function digestOf(statements: readonly string[], count: number): string {
  return sha256(statements.slice(0, count).join(';\n'))
}

/**
 * The statements of a ClickHouse script, without their semicolons and without the comments before them. Knows quotes
 * ('…', "…", `…`, with backslash and with doubling), line comments and block comments.
 */
export function splitStatements(text: string): string[] {
  const statements: string[] = []
  let current = ''
  for (const [token] of text.matchAll(
    /--[^\n]*|\/\*[\s\S]*?\*\/|'(?:[^'\\]|\\[\s\S]|'')*'|"(?:[^"\\]|\\[\s\S]|"")*"|`(?:[^`\\]|\\[\s\S])*`|;|[\s\S]/g,
  )) {
    if (token === ';') {
      if (current.trim() !== '') statements.push(current.trim())
      current = ''
    } else if (token.startsWith('--') || token.startsWith('/*')) {
      current += ' '
    } else {
      current += token
    }
  }
  if (current.trim() !== '') statements.push(current.trim())
  return statements
}
