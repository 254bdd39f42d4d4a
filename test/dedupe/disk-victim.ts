/**
 * A process that lives a life (disk-life.ts) from its last checkpoint on, with the real thread that builds runs, and dies by SIGKILL
 * where it is told to. Used by disk-kill.test.ts.
 *
 *   node disk-victim.js DIRECTORY EPOCHS [STEP:N]
 *
 * checkpoint.json stands for the transaction in PostgreSQL: it is there whole or as it was before. It has the state and a digest of all
 * verdicts so far, so that two lives that end with the same file gave the same verdicts.
 */
import { createHash } from 'node:crypto'
import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { openRunPool } from '../../src/dedupe/run-pool.js'
import { Life } from './disk-life.js'

const [directory, epochs, death = ''] = process.argv.slice(2)
const [step, count = '1'] = death.split(':')
let left = Number(count)
const file = join(directory!, 'checkpoint.json')
const at = existsSync(file)
  ? JSON.parse(readFileSync(file, 'utf8'))
  : { epoch: 0, digest: '', accepted: 0, state: null }

const pool = openRunPool()
const life = await Life.open(
  { seed: 7, idsMax: 1_024, diskIdsMax: 20_000, lateMs: 60_000, waits: true },
  {
    directory: join(directory!, 'keys'),
    pool,
    onStep: (reached) => {
      if (reached !== step) return
      left -= 1
      if (left === 0) process.kill(process.pid, 'SIGKILL')
    },
  },
  at.state,
)
console.log('open')
for (let epoch = at.epoch + 1; epoch <= Number(epochs); epoch += 1) {
  const { verdicts, state, dropped } = await life.epoch(epoch)
  at.epoch = epoch
  at.state = state
  at.digest = createHash('sha256').update(at.digest).update(verdicts.join()).digest('hex')
  at.accepted += verdicts.filter((verdict) => verdict === 'accepted').length
  writeFileSync(`${file}.tmp`, JSON.stringify(at))
  renameSync(`${file}.tmp`, file)
  await life.settle(state, dropped)
}
await life.files.idle()
const { runs, diskEntries } = life.dedupe.stats()
await pool.close()
await life.close()
console.log(JSON.stringify({ runs, diskEntries }))
