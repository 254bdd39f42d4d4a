/**
 * A process of its own that issues drafts, for the tests that kill it: `node finaliser.js <postgres url> <die at pass> <id> …`.
 * Dies by SIGKILL right after the n-th number is taken, inside the transaction; 0 never. Prints each number issued.
 */
import pg from 'pg'
import { HandClock } from '../../src/clock.js'
import { Invoicing } from '../../src/invoicing/invoicing.js'

const [url, dieAt, ...ids] = process.argv.slice(2)
let left = Number(dieAt)
const pool = new pg.Pool({ connectionString: url, max: 4 })
pool.on('error', () => {})
const invoicing = new Invoicing({
  postgres: pool,
  clock: new HandClock('2026-04-01T08:00:00Z'),
  crashPoint: (name) => {
    if (name !== 'number-taken') return
    left -= 1
    if (left === 0) process.kill(process.pid, 'SIGKILL')
  },
})
for (const id of ids) process.stdout.write(`${(await invoicing.finalise(id)).invoice.number}\n`)
await pool.end()
