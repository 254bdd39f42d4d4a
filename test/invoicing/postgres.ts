/**
 * A real PostgreSQL of a test's own: embedded, in a new directory, on a free port, with releve's schema. Stopped and removed by
 * close().
 */
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type pg from 'pg'
import { openAccessBook, saveAccessBook } from '../../src/engines/access.js'
import { buildEmbeddedPostgres, openPostgresPool } from '../../src/engines/postgres.js'
import { silentLogger } from '../../src/logger.js'
import { sqlDirectory } from '../../src/paths.js'

export interface TestPostgres {
  readonly pool: pg.Pool
  /** postgres://… for a child process. */
  readonly url: string
  close(): Promise<void>
}

export async function openTestPostgres(): Promise<TestPostgres> {
  const directory = mkdtempSync(join(tmpdir(), 'releve-postgres-'))
  mkdirSync(directory, { recursive: true })
  const book = openAccessBook(directory)
  const engine = buildEmbeddedPostgres({
    dataDirectory: directory,
    access: book.postgres,
    saveAccess: () => saveAccessBook(directory, book),
    logger: silentLogger,
    onFatal: (error) => {
      throw error
    },
  })
  try {
    await engine.start()
    const pool = openPostgresPool(book.postgres, silentLogger)
    const folder = join(sqlDirectory, 'postgres')
    for (const name of readdirSync(folder).sort()) await pool.query(readFileSync(join(folder, name), 'utf8'))
    const { user, password, port } = book.postgres
    return {
      pool,
      url: `postgres://${user}:${encodeURIComponent(password)}@127.0.0.1:${port}/postgres`,
      close: async () => {
        await pool.end()
        await engine.close()
        rmSync(directory, { recursive: true, force: true })
      },
    }
  } catch (error) {
    await engine.close()
    rmSync(directory, { recursive: true, force: true })
    throw error
  }
}
