/**
 * A process of its own that issues drafts, for the tests that kill it: `node finaliser.js <postgres url> <now> <die at
 * pass> <id> …`. Dies by SIGKILL right after the n-th number is taken, inside the transaction; 0 never. Prints each number issued.
 */
import pg from 'pg'
import { HandClock } from '../../src/clock.js'
import { Invoicing } from '../../src/invoicing/invoicing.js'

const [url, now, dieAt, ...ids] = process.argv.slice(2)
let left = Number(dieAt)
const pool = new pg.Pool({ connectionString: url, max: 4 })
pool.on('error', () => {})
const invoicing = new Invoicing({
  postgres: pool,
  clock: new HandClock(now!),
  crashPoint: (name) => {
    if (name !== 'number-taken') return
    left -= 1
    if (left === 0) process.kill(process.pid, 'SIGKILL')
  },
})
/** More processes than the server has backends: who gets none waits for one. */
async function issue(id: string): Promise<string | null> {
  for (let tries = 0; ; tries += 1) {
    try {
      return (await invoicing.finalise(id)).invoice.number
    } catch (error) {
      if ((error as { code?: string }).code !== '53300' || tries === 1_000) throw error
      await new Promise((resolve) => setTimeout(resolve, 20 + Math.random() * 60))
    }
  }
}
for (const id of ids) process.stdout.write(`${await issue(id)}\n`)
await pool.end()
