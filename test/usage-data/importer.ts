/**
 * A process of its own that reads a file of usage data, for the test that kills it: `node importer.js <postgres url> <directory>
 * <file>`. It goes on with what was running there; without anything it takes the file.
 */
import { createReadStream } from 'node:fs'
import pg from 'pg'
import { openCatalog } from '../../src/catalog/catalog.js'
import { HandClock } from '../../src/clock.js'
import { silentLogger } from '../../src/logger.js'
import { Imports } from '../../src/usage-data/import.js'

const [url, directory, file] = process.argv.slice(2)
const postgres = new pg.Pool({ connectionString: url, max: 4 })
postgres.on('error', () => {})
const clock = new HandClock('2022-04-12T09:00:00Z')
const catalog = await openCatalog({ postgres, clock })
const imports = new Imports({ postgres, clock, catalog, logger: silentLogger, directory: directory! })
await imports.resume()
const running = (await imports.list(null, 1))[0]
const { id } =
  running ??
  (await imports.receive({
    body: createReadStream(file!),
    name: 'killed.csv',
    tenant: null,
    state: 'pending',
    dryRun: false,
    replay: false,
  }))
await imports.ended(id!)
await postgres.end()
