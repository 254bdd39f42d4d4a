/** A process of its own that sends what is due to the clearance system, for the test that kills it: `node certifier.js <postgres url> <base> <token>`. */
import pg from 'pg'
import { HandClock } from '../../src/clock.js'
import { Certifications } from '../../src/invoicing/certification.js'
import { openFne } from '../../src/invoicing/fne.js'
import { silentLogger } from '../../src/logger.js'

const [url, base, token] = process.argv.slice(2) as [string, string, string]
const postgres = new pg.Pool({ connectionString: url, max: 2 })
const fne = openFne({ base, token })
await new Certifications({
  postgres,
  clock: new HandClock('2030-12-01T00:00:00Z'),
  certifiers: { fne },
  logger: silentLogger,
}).sendDue()
