/** One transaction of PostgreSQL: committed when the work ends, rolled back when it throws; its error is what the caller sees. */
import type { Pool, PoolClient } from 'pg'

export async function inTransaction<T>(postgres: Pool, work: (client: PoolClient) => Promise<T>): Promise<T> {
  const client = await postgres.connect()
  try {
    await client.query('BEGIN')
    const result = await work(client)
    await client.query('COMMIT')
    return result
  } catch (error) {
    await client.query('ROLLBACK').catch(() => undefined)
    throw error
  } finally {
    client.release()
  }
}
