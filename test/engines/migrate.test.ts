/**
 * Migrations, on the real engines, one pair for the whole file; every test brings its own folder of files and its own database.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import type { Engines } from '../../src/engines/engines.js'
import { migrate, splitStatements } from '../../src/engines/migrate.js'
import { silentLogger } from '../../src/logger.js'
import { makeDirectory, open, rows } from './running.js'

type Files = Record<string, string>

function writeFiles(postgres: Files, clickhouse: Files): string {
  const directory = makeDirectory()
  for (const [store, files] of Object.entries({ postgres, clickhouse })) {
    mkdirSync(join(directory, store))
    for (const [name, text] of Object.entries(files)) writeFileSync(join(directory, store, name), text)
  }
  return directory
}

function run(engines: Engines, postgres: Files, clickhouse: Files): Promise<void> {
  const { clickhouse: client, postgres: pool } = engines
  return migrate({
    clickhouse: client,
    postgres: pool,
    logger: silentLogger,
    directory: writeFiles(postgres, clickhouse),
  })
}

const one = { '001_a.sql': 'CREATE TABLE a (n int); -- «accents» é\nINSERT INTO a VALUES (1);' }
const chOne = {
  '001_a.sql': `-- ; in a comment
CREATE TABLE IF NOT EXISTS a (n UInt8 COMMENT 'é; it''s') ENGINE = MergeTree ORDER BY n;
CREATE TABLE IF NOT EXISTS b (n UInt8) ENGINE = MergeTree ORDER BY n;`,
}

test('the schema of the project is applied once, and a second run finds nothing to do', async () => {
  const engines = await open(makeDirectory())
  const { clickhouse, postgres } = engines
  await Promise.all([
    migrate({ clickhouse, postgres, logger: silentLogger }),
    migrate({ clickhouse, postgres, logger: silentLogger }),
  ])
  const applied = await rows(engines, 'SELECT name, statement FROM schema_migrations ORDER BY ALL')
  expect(applied.length).toBeGreaterThan(3)
  await migrate({ clickhouse, postgres, logger: silentLogger })
  expect(await rows(engines, 'SELECT name, statement FROM schema_migrations ORDER BY ALL')).toEqual(applied)
  expect(await rows(engines, 'SELECT count() FROM usage_minute')).toEqual([['0']])
  expect((await postgres.query('SELECT count(*) AS n FROM streams')).rows).toEqual([{ n: 0 }])
})

test('new files are applied behind the old ones; changed, unknown and belated files are refused and change nothing', async () => {
  const engines = await open(makeDirectory())
  const second = { '002_b.sql': 'ALTER TABLE a ADD COLUMN m int' }
  const chSecond = { '002_b.sql': 'ALTER TABLE a ADD COLUMN IF NOT EXISTS m UInt8' }
  await run(engines, one, chOne)
  await run(engines, { ...one, ...second }, { ...chOne, ...chSecond })
  expect((await engines.postgres.query('SELECT n, m FROM a')).rows).toEqual([{ n: 1, m: null }])
  expect(await rows(engines, 'SELECT n, m FROM a')).toEqual([])

  const all = { ...one, ...second }
  const chAll = { ...chOne, ...chSecond }
  await expect(run(engines, { ...all, '001_a.sql': 'CREATE TABLE a (n bigint)' }, chAll)).rejects.toThrow(
    'cannot migrate PostgreSQL: 001_a.sql was changed after it had been applied',
  )
  await expect(run(engines, one, chAll)).rejects.toThrow(
    /it has 002_b\.sql, which this version of releve does not know/,
  )
  await expect(run(engines, { '000_z.sql': 'SELECT 1', ...all }, chAll)).rejects.toThrow(
    /000_z\.sql sorts before 002_b\.sql/,
  )
  await expect(
    run(engines, all, { ...chAll, '002_b.sql': 'ALTER TABLE a ADD COLUMN IF NOT EXISTS k UInt8' }),
  ).rejects.toThrow('cannot migrate ClickHouse: 002_b.sql was changed after it had been applied')
  await expect(
    run(engines, all, { ...chAll, '002_b.sql': `${chSecond['002_b.sql']}; ${chOne['001_a.sql']}` }),
  ).rejects.toThrow(/002_b\.sql was changed/)
  await expect(run(engines, all, chOne)).rejects.toThrow(
    /it has 002_b\.sql, which this version of releve does not know/,
  )
  await run(engines, all, { ...chAll, '001_a.sql': `-- a new comment\n${chOne['001_a.sql']}` })
})

test('a PostgreSQL file that fails half-way leaves nothing of itself, and the files before it stay', async () => {
  const engines = await open(makeDirectory())
  const broken = { '002_b.sql': 'CREATE TABLE b (n int); SELECT 1 / 0;' }
  await expect(run(engines, { ...one, ...broken }, {})).rejects.toThrow(/002_b\.sql: division by zero/)
  expect((await engines.postgres.query(`SELECT to_regclass('a') AS a, to_regclass('b') AS b`)).rows).toEqual([
    { a: 'a', b: null },
  ])
  await run(engines, { ...one, '002_b.sql': 'CREATE TABLE b (n int)' }, {})
  expect((await engines.postgres.query('SELECT count(*) AS n FROM b')).rows).toEqual([{ n: 0 }])
})

test('a ClickHouse file that stopped half-way goes on behind what is done, and repeats what was done but not recorded', async () => {
  const engines = await open(makeDirectory())
  const create = (name: string, extra = '') =>
    `CREATE TABLE IF NOT EXISTS ${name} (n UInt8 ${extra}) ENGINE = MergeTree ORDER BY n;`
  await expect(
    run(engines, {}, { '001_a.sql': [create('a'), create('b', 'CODEC(Nonsense)'), create('c')].join('\n') }),
  ).rejects.toThrow(/001_a\.sql, statement 2 of 3/)
  // As a crash between a statement and its record leaves it.
  await engines.clickhouse.command({ query: create('b').slice(0, -1) })
  await expect(run(engines, {}, { '001_a.sql': [create('z'), create('b'), create('c')].join('\n') })).rejects.toThrow(
    /001_a\.sql was changed/,
  )
  await run(engines, {}, { '001_a.sql': [create('a'), create('b'), create('c')].join('\n') })
  expect(await rows(engines, 'SELECT statement, statements FROM schema_migrations ORDER BY statement')).toEqual([
    [1, 3],
    [2, 3],
    [3, 3],
  ])
  expect(await rows(engines, 'SELECT count() FROM c')).toEqual([['0']])
})

test('a statement that must not run twice is refused before anything runs', async () => {
  const engines = await open(makeDirectory())
  for (const statement of [
    'CREATE TABLE d (n UInt8) ENGINE = MergeTree ORDER BY n',
    'INSERT INTO a VALUES (1)',
    'ALTER TABLE a ADD COLUMN m UInt8',
    'DROP TABLE a',
    'TRUNCATE TABLE a',
  ]) {
    await expect(run(engines, {}, { '001_a.sql': `${chOne['001_a.sql']}\n${statement};` })).rejects.toThrow(
      /may be repeated/,
    )
  }
  expect(await rows(engines, `SELECT name FROM system.tables WHERE database = 'default'`)).toEqual([])
})

test('file names that would sort ambiguously are refused', async () => {
  const engines = await open(makeDirectory())
  await expect(run(engines, { '1_a.sql': '' }, {})).rejects.toThrow(/1_a\.sql is not named like/)
  await expect(run(engines, { '001_a.sql': '', '001_b.sql': '' }, {})).rejects.toThrow(/have the same number/)
})

test('a script is split at its semicolons, not at those inside quotes and comments', () => {
  const check = (text: string, expected: string[]): void => expect(splitStatements(text)).toEqual(expected)
  check('', [])
  check(' ;; \n;', [])
  check('a; b', ['a', 'b'])
  check('a -- ; no\n; b', ['a', 'b'])
  check('a /* ; \n ; */ x;', ['a   x'])
  check(`a 'it''s; \\'; ' "x;" \`y;\`; b`, [`a 'it''s; \\'; ' "x;" \`y;\``, 'b'])
  check(`a 'é;«»'; b`, [`a 'é;«»'`, 'b'])
  check(`a '-- not a comment; '; b`, [`a '-- not a comment; '`, 'b'])
})
