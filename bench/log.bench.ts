/**
 * Question: how many MB/s and records/s does the group commit take at 50 KB a record with 16 appends outstanding, and what does
 * one append wait? Preallocated segments against plain growing files, one after the other in the same process, because runs on
 * a shared machine are only comparable next to each other.
 *
 * Non-goal: durability. A disk that lies about fdatasync looks fast here.
 *
 *     node dist/bench/log.bench.js            small: 400 records
 *     node dist/bench/log.bench.js large      20,000 records, 1 GB
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { openFileLog } from '../src/log/files.js'
import { silentLogger } from '../src/logger.js'

export interface LogBenchResult {
  readonly preallocate: boolean
  readonly megabytesPerS: number
  readonly recordsPerS: number
  readonly p50Ms: number
  readonly p99Ms: number
  readonly recordsPerSync: number
}

export async function benchLog(options: {
  readonly records: number
  readonly recordBytes: number
  readonly outstanding: number
  readonly preallocate: boolean
  /** Deletes every 250 MB what is older than 100 MB, several segments at once as a flush does, so that files are used again. */
  readonly recycle: boolean
}): Promise<LogBenchResult> {
  const directory = await mkdtemp(join(tmpdir(), 'releve-log-bench-'))
  const log = await openFileLog({
    directory,
    streams: 1,
    logger: silentLogger,
    preallocate: options.preallocate,
    onFatal: (error) => {
      throw error
    },
  })
  try {
    const payload = Buffer.alloc(options.recordBytes, 'releve ')
    const waits: number[] = []
    let left = options.records
    const begun = performance.now()
    const appendAll = async (): Promise<void> => {
      while (left > 0) {
        left -= 1
        const at = performance.now()
        const { sequence } = await log.append(0, 0, payload)
        waits.push(performance.now() - at)
        if (options.recycle && sequence % 5000 === 0) await log.deleteBelow(0, sequence - 2000)
      }
    }
    await Promise.all(Array.from({ length: options.outstanding }, appendAll))
    const seconds = (performance.now() - begun) / 1000
    waits.sort((a, b) => a - b)
    return {
      preallocate: options.preallocate,
      megabytesPerS: (options.records * options.recordBytes) / 1e6 / seconds,
      recordsPerS: options.records / seconds,
      p50Ms: waits[Math.floor(waits.length * 0.5)]!,
      p99Ms: waits[Math.floor(waits.length * 0.99)]!,
      recordsPerSync: options.records / log.stats().syncs,
    }
  } finally {
    await log.close()
    await rm(directory, { recursive: true })
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const records = process.argv[2] === 'large' ? 20_000 : 400
  const said: string[] = []
  for (const [name, preallocate, recycle] of [
    ['preallocated', true, false],
    ['recycled', true, true],
    ['plain', false, false],
  ] as const) {
    const result = await benchLog({ records, recordBytes: 50_000, outstanding: 16, preallocate, recycle })
    said.push(
      `${name} ${result.megabytesPerS.toFixed(0)} MB/s ${result.recordsPerS.toFixed(0)} records/s ` +
        `p50 ${result.p50Ms.toFixed(2)} ms p99 ${result.p99Ms.toFixed(2)} ms ${result.recordsPerSync.toFixed(1)} records/sync`,
    )
  }
  console.log(`log, ${records} records of 50 KB, 16 outstanding: ${said.join('; ')}`)
}
