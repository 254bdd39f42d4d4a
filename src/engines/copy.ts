/**
 * Copies of the embedded engines' files while they run, each as at one moment.
 *
 * PostgreSQL: its own low-level backup. Files are copied while they change; pg_backup_stop() says up to where its write-ahead
 * log must be replayed to make them whole, and ends a log file there. Exactly the log files up to that one are copied, so that
 * the copy is the database as at that call and not a moment later.
 *
 * ClickHouse: FREEZE, which links the parts of a table as they are, within milliseconds; parts never change, so they are copied
 * afterwards at leisure. What FREEZE does not take (table definitions and names) is small and only changes with a migration.
 *
 * Not for engines outside: their files are not ours.
 */
import { chown, copyFile, lstat, mkdir, readdir, readlink, rm, symlink, writeFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { ClickHouseClient } from '@clickhouse/client'
import type { Pool, PoolClient } from 'pg'

/** Told of every file that was copied, with its bytes. */
export type OnFile = (bytes: number) => void

export interface CopyOptions {
  readonly onFile: OnFile
  /** By the path below the tree's root. */
  readonly leaveOut?: (path: string, isDirectory: boolean) => boolean
  /** A file that goes away meanwhile was not part of any state that is needed. */
  readonly mayVanish?: boolean
}

/**
 * One file, which is ours afterwards, whoever the source belongs to: newer releases of Node copy the owner too when they run as root,
 * and PostgreSQL's user is chosen anew by each start. Answers the bytes.
 */
export async function copyOne(source: string, target: string): Promise<number> {
  await copyFile(source, target)
  if (process.getuid?.() === 0) await chown(target, 0, 0)
  return (await lstat(target)).size
}

/** A tree, with its links as links. */
export async function copyTree(from: string, to: string, options: CopyOptions, below = ''): Promise<void> {
  await mkdir(to, { recursive: true, mode: 0o700 })
  for (const entry of await readdir(from, { withFileTypes: true })) {
    const path = below === '' ? entry.name : `${below}/${entry.name}`
    if (options.leaveOut?.(path, entry.isDirectory())) continue
    const [source, target] = [join(from, entry.name), join(to, entry.name)]
    try {
      if (entry.isDirectory()) await copyTree(source, target, options, path)
      else if (entry.isSymbolicLink()) await symlink(await readlink(source), target)
      else if (entry.isFile()) {
        options.onFile(await copyOne(source, target))
      }
    } catch (error) {
      if (!options.mayVanish || (error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    }
  }
}

// ---- PostgreSQL ----------------------------------------------------------------------------------------------------------

/** Directories whose contents a new start makes anew; PostgreSQL wants the directories themselves. */
const emptied = [
  ...['pg_wal/', 'pg_dynshmem/', 'pg_notify/', 'pg_replslot/', 'pg_serial/', 'pg_snapshots/', 'pg_stat_tmp/'],
  'pg_subtrans/',
]
const leftOut = /^(postmaster\.(pid|opts)|backup_label.*|tablespace_map.*|global\/pg_control)$|(^|\/)pgsql_tmp/

export class PostgresCopy {
  readonly #client: PoolClient
  readonly #data: string
  readonly #target: string

  private constructor(client: PoolClient, data: string, target: string) {
    this.#client = client
    this.#data = data
    this.#target = target
  }

  /** @param dataDirectory the service's; the target becomes a PostgreSQL data directory. */
  static async begin(postgres: Pool, dataDirectory: string, target: string): Promise<PostgresCopy> {
    const client = await postgres.connect()
    try {
      await client.query('SET statement_timeout = 0')
      // Keeps the log files from the start on, however many checkpoints come meanwhile; ends with the connection.
      await client.query(`SELECT pg_create_physical_replication_slot('releve_backup', true, true)`)
      await client.query(`SELECT pg_backup_start('releve', true)`)
      return new PostgresCopy(client, join(dataDirectory, 'postgres', 'data'), target)
    } catch (error) {
      client.release(true)
      throw error
    }
  }

  /** The files as they are; takes as long as it takes. */
  async copyFiles(onFile: OnFile): Promise<void> {
    await copyTree(this.#data, this.#target, {
      onFile,
      mayVanish: true,
      leaveOut: (path, isDirectory) =>
        emptied.some((directory) => path.startsWith(directory)) || (!isDirectory && leftOut.test(path)),
    })
    await copyOne(join(this.#data, 'global/pg_control'), join(this.#target, 'global/pg_control'))
  }

  /** The moment of the copy. Quick. Answers what copies the log files, which may be done later. */
  async stop(): Promise<(onFile: OnFile) => Promise<void>> {
    const { rows } = await this.#client.query(
      `SELECT labelfile, spcmapfile, pg_walfile_name(lsn) AS wal FROM pg_backup_stop(false)`,
    )
    const { labelfile, wal } = rows[0] as { labelfile: string; wal: string }
    const first = /START WAL LOCATION: .* \(file ([0-9A-F]{24})\)/.exec(labelfile)?.[1]
    if (first === undefined) throw new Error(`cannot back up: PostgreSQL's label names no log file: ${labelfile}`)
    return async (onFile) => {
      await writeFile(join(this.#target, 'backup_label'), labelfile, { mode: 0o600 })
      const names = (await readdir(join(this.#data, 'pg_wal'))).filter(
        (name) => /^[0-9A-F]{24}$/.test(name) && name >= first && name <= wal,
      )
      if (!names.includes(first) || !names.includes(wal))
        throw new Error(`cannot back up: the log files ${first} to ${wal} of PostgreSQL are not all there`)
      for (const name of names) {
        onFile(await copyOne(join(this.#data, 'pg_wal', name), join(this.#target, 'pg_wal', name)))
      }
    }
  }

  /** Ends the connection, and with it whatever was begun. */
  close(): void {
    this.#client.release(true)
  }
}

// ---- ClickHouse ----------------------------------------------------------------------------------------------------------

const FROZEN = 'releve_backup'
const clickhouseData = (dataDirectory: string): string => join(dataDirectory, 'clickhouse', 'data')

/** The moment of the copy. Quick. Answers what copies the frozen parts and lets them go. */
export async function freezeClickHouse(
  clickhouse: ClickHouseClient,
  dataDirectory: string,
): Promise<{ copy(target: string, onFile: OnFile): Promise<void>; release(): Promise<void> }> {
  const data = clickhouseData(dataDirectory)
  const shadow = join(data, 'shadow', FROZEN)
  const answer = await clickhouse.query({
    query: `SELECT name, data_paths[1] AS path FROM system.tables WHERE database = currentDatabase() AND engine LIKE '%MergeTree'`,
    format: 'JSONEachRow',
  })
  const tables = await answer.json<{ name: string; path: string }>()
  for (const table of tables) {
    await clickhouse.command({
      // The name must be a literal; it is ours.
      query: `ALTER TABLE {table:Identifier} FREEZE WITH NAME '${FROZEN}'`,
      query_params: { table: table.name },
    })
  }
  const stores = tables.map(({ path }) => path.slice(path.indexOf('/store/') + 1).replace(/\/$/, ''))
  return {
    async copy(target, onFile) {
      await copyTree(data, target, {
        onFile,
        mayVanish: true,
        leaveOut: (path, isDirectory) =>
          /^(shadow|tmp|status|preprocessed_configs)(\/|$)/.test(path) ||
          // The parts of a table, which are taken from the frozen ones; an empty «detached» is wanted.
          (isDirectory && stores.includes(dirname(path)) && !path.endsWith('/detached')),
      })
      for (const store of stores) {
        const frozen = join(shadow, store)
        const there = await lstat(frozen).catch(() => undefined)
        if (there !== undefined) await copyTree(frozen, join(target, store), { onFile })
      }
    },
    async release() {
      await rm(shadow, { recursive: true, force: true })
    },
  }
}

/** What a backup that was killed has left frozen. */
export async function dropFrozen(dataDirectory: string): Promise<void> {
  await rm(join(clickhouseData(dataDirectory), 'shadow'), { recursive: true, force: true })
}
