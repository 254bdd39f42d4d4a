/**
 * The child of the kill -9 test: appends to a log without end, several at a time, and prints each sequence with its seed once it
 * was acknowledged. Deletes old segments on its way, so that files are used again.
 */
import { writeSync } from 'node:fs'
import { openFileLog } from '../../src/log/files.js'
import { silentLogger } from '../../src/logger.js'
import { payloadOf, tinySegmentBytes } from './payload.js'

const [directory, seedText] = process.argv.slice(2)
let seed = Number(seedText)
const log = await openFileLog({
  directory: directory!,
  streams: 1,
  logger: silentLogger,
  segmentBytes: tinySegmentBytes,
  onFatal: (error) => {
    throw error
  },
})
writeSync(1, `open ${log.state(0).last}\n`)

async function appendForEver(): Promise<void> {
  while (true) {
    seed += 1
    const mine = seed
    const { sequence } = await log.append(0, Date.now(), payloadOf(mine, 8 + ((mine * 7919) % 2500)))
    writeSync(1, `ack ${sequence} ${mine}\n`)
    if (sequence % 40 === 0) {
      const below = sequence - 120
      writeSync(1, `delete ${below}\n`)
      await log.deleteBelow(0, below)
    }
  }
}
await Promise.all(Array.from({ length: 8 }, appendForEver))
