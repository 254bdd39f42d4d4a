/**
 * Whether the engines can be had: the embedded ones are installed, or the outside ones answer and are of a version that serves.
 * For the doctor, who starts nothing. Each gives its version, or throws with the reason.
 */
import { accessSync, constants, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { silentLogger } from '../logger.js'
import { checkClickHouse, findLibrary, openClickHouseClient, parseClickHouseUrl } from './clickhouse.js'
import { checkPostgres, findPrograms, openPostgresPool } from './postgres.js'

export async function probeClickHouse(url: string | undefined): Promise<string> {
  if (url === undefined) {
    const { version } = JSON.parse(readFileSync(join(dirname(findLibrary()), 'package.json'), 'utf8'))
    return `embedded ${version}`
  }
  const http = parseClickHouseUrl(url)
  const client = openClickHouseClient(http)
  try {
    return `outside ${await checkClickHouse(client, http)}`
  } finally {
    await client.close()
  }
}

export async function probePostgres(url: string | undefined): Promise<string> {
  if (url === undefined) {
    const { native, postgres } = findPrograms()
    accessSync(postgres, constants.X_OK)
    const { version } = JSON.parse(readFileSync(join(dirname(native), 'package.json'), 'utf8'))
    return `embedded ${version}`
  }
  const pool = openPostgresPool(url, silentLogger)
  try {
    return `outside ${await checkPostgres(pool)}`
  } finally {
    await pool.end()
  }
}
