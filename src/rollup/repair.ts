/**
 * Repair: rows of a chunk that are in ClickHouse more than once. A token drops a repeated insert only within a window of blocks,
 * so an owner that was stopped for long and wakes up in the middle of an insert may write a chunk again. Counting by (stream,
 * epoch, chunk) finds it; here the surplus is taken out, and the caller alarms.
 *
 * The rows of one chunk differ from each other, so the distinct ones are what the chunk was. They are copied aside first, and a
 * row in PostgreSQL says that a repair has begun: whatever dies in between, the next start ends it. One repair at a time.
 */
import type { ClickHouseClient } from '@clickhouse/client'
import type { Pool } from 'pg'
import type { Clock } from '../clock.js'
import type { Rollup, UsageTable } from './rollup.js'

export interface ChunkKey {
  readonly table: UsageTable
  readonly stream: number
  readonly epoch: number
  readonly chunk: number
}

export type Repair = ReturnType<typeof openRepair>

const WHERE = 'stream = {stream:UInt16} AND epoch = {epoch:UInt64} AND chunk = {chunk:UInt16}'

export function openRepair(options: { clickhouse: ClickHouseClient; rollup: Rollup; postgres: Pool; clock: Clock }) {
  const { clickhouse, rollup, postgres, clock } = options
  let queue: Promise<void> = Promise.resolve()

  const command = async (query: string, key?: ChunkKey): Promise<void> => {
    await clickhouse.command({
      query,
      ...(key === undefined ? {} : { query_params: { stream: key.stream, epoch: key.epoch, chunk: key.chunk } }),
      clickhouse_settings: { insert_deduplicate: 0, mutations_sync: '2' },
    })
  }
  const count = async (table: string, key: ChunkKey): Promise<number> => {
    const [row] = await rollup.rowsOf<{ n: string }>(`SELECT count() AS n FROM ${table} WHERE ${WHERE}`, {
      stream: key.stream,
      epoch: key.epoch,
      chunk: key.chunk,
    })
    return Number(row!.n)
  }
  const asideOf = (key: ChunkKey): string => `${key.table}_repair`

  /** From the moment that the rows stand aside. Done again after a crash, it gives the same. */
  async function finish(key: ChunkKey, rows: number): Promise<void> {
    if ((await count(key.table, key)) !== rows) {
      const aside = await count(asideOf(key), key)
      if (aside !== rows) {
        throw new Error(
          `cannot repair ${key.table} of stream ${key.stream}, epoch ${key.epoch}, chunk ${key.chunk}: ${aside} rows stand aside instead of ${rows}; releve rebuild makes the table again`,
        )
      }
      await command(`ALTER TABLE ${key.table} DELETE WHERE ${WHERE}`, key)
      await command(`INSERT INTO ${key.table} SELECT * FROM ${asideOf(key)} WHERE ${WHERE}`, key)
    }
    await postgres.query('DELETE FROM repairs WHERE table_name = $1 AND stream = $2 AND epoch = $3 AND chunk = $4', [
      key.table,
      key.stream,
      key.epoch,
      key.chunk,
    ])
    await command(`DROP TABLE ${asideOf(key)} SYNC`)
  }

  async function begin(key: ChunkKey, rows: number): Promise<void> {
    await command(`DROP TABLE IF EXISTS ${asideOf(key)} SYNC`)
    await command(`CREATE TABLE ${asideOf(key)} AS ${key.table}`)
    await command(`INSERT INTO ${asideOf(key)} SELECT DISTINCT * FROM ${key.table} WHERE ${WHERE}`, key)
    const aside = await count(asideOf(key), key)
    if (aside !== rows) {
      throw new Error(
        `cannot repair ${key.table} of stream ${key.stream}, epoch ${key.epoch}, chunk ${key.chunk}: ${aside} different rows where its checkpoint has ${rows}`,
      )
    }
    await postgres.query(
      `INSERT INTO repairs (table_name, stream, epoch, chunk, rows, started_at) VALUES ($1, $2, $3, $4, $5, $6)
       ON CONFLICT DO NOTHING`,
      [key.table, key.stream, key.epoch, key.chunk, rows, clock.now()],
    )
  }

  const inTurn = (run: () => Promise<void>): Promise<void> => {
    const done = queue.then(run)
    queue = done.catch(() => {})
    return done
  }

  return {
    /** Leaves exactly `rows` rows of the chunk. Rejects, with nothing changed, when its different rows are not that many. */
    takeOutSurplus: (key: ChunkKey, rows: number): Promise<void> =>
      inTurn(async () => {
        await begin(key, rows)
        await finish(key, rows)
      }),

    /** At start: ends what a crash left in the middle. */
    finishBegun: (): Promise<void> =>
      inTurn(async () => {
        const { rows } = await postgres.query('SELECT * FROM repairs ORDER BY started_at')
        for (const row of rows) {
          const key = {
            table: row.table_name,
            stream: Number(row.stream),
            epoch: Number(row.epoch),
            chunk: Number(row.chunk),
          }
          await finish(key, Number(row.rows))
        }
      }),
  }
}
