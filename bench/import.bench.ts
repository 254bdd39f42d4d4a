/**
 * A file of a million usage data through the HTTP door: rows a second, progress, and memory of the service's process.
 * `node dist/bench/import.bench.js [rows]`. Prints one line of JSON.
 */
import { createReadStream, createWriteStream, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import { systemClock } from '../src/clock.js'
import { parseConfig } from '../src/config.js'
import { buildHttp } from '../src/http/http.js'
import { silentLogger } from '../src/logger.js'
import { openSystem } from '../src/system.js'
import type { ImportReport } from '../src/usage-data/import.js'

const rows = Number(process.argv[2] ?? 1_000_000)
const data = mkdtempSync(join(tmpdir(), 'releve-import-bench-'))
const system = await openSystem({
  config: parseConfig({ RELEVE_DATA: data, RELEVE_PORT: '0', RELEVE_LOG: 'silent' }),
  clock: systemClock,
  logger: silentLogger,
  onFatal: (error) => {
    throw error
  },
})
const { catalog } = system
await catalog.putMetric({ key: 'mesures', aggregation: 'sum', unit: 'mesure', scale: 3 })
await catalog.putProduct({ key: 'P', name: 'P' })
await catalog.putPlan({
  key: 'plan',
  product: 'P',
  name: 'P',
  metrics: [{ metric: 'mesures', included: '0', rule: null }],
})
await catalog.putLegalEntity({ key: 'seller', name: 'Seller', country: 'CI' })
await catalog.putCustomer({
  tenant: 't',
  name: 't',
  country: 'CI',
  taxRate: '18',
  currency: 'EUR',
  timeZone: 'Africa/Abidjan',
})
for (let i = 0; i < 100; i += 1)
  await catalog.putContract({
    id: `contract-${i}`,
    tenant: 't',
    legalEntity: 'seller',
    start: '2026-01-01',
    timeZone: 'Africa/Abidjan',
    items: [{ id: `item-${i}`, plan: 'plan', calculators: [{ name: 'm', reads: 'values', metric: 'mesures' }] }],
  })
const app = await buildHttp(system)
const url = await app.listen({ host: '127.0.0.1', port: 0 })
const { secret } = await system.keys.create({ name: 'bench', scopes: ['ingest', 'read'], tenant: 't' })
const headers = { authorization: `Bearer ${secret}` }

const file = join(data, 'file.csv')
const out = createWriteStream(file)
out.write('contrat;référence;début;valeur;unité;notes\n')
for (let i = 0; i < rows; i += 1) {
  const day = String(1 + (i % 28)).padStart(2, '0')
  const line = `contract-${i % 100};ref-${i};${day}/02/2026 08:${String(i % 60).padStart(2, '0')};${i % 1000},25;mesure;relevé ${i % 7}\n`
  if (!out.write(line)) await new Promise<void>((resolve) => out.once('drain', () => resolve()))
}
await new Promise<void>((resolve) => out.end(() => resolve()))

const started = performance.now()
let peak = 0
let flat = 0
const watch = setInterval(() => {
  const { rss } = process.memoryUsage()
  peak = Math.max(peak, rss)
}, 200)
const answer = await fetch(`${url}/v1/usage-data-imports?name=bench`, {
  method: 'POST',
  headers: { ...headers, 'content-type': 'text/csv' },
  body: Readable.toWeb(createReadStream(file)) as ReadableStream,
  duplex: 'half',
} as RequestInit)
let report = (await answer.json()) as ImportReport
const received = performance.now()
while (report.state === 'running') {
  await sleep(500)
  report = (await (await fetch(`${url}/v1/usage-data-imports/${report.id}`, { headers })).json()) as ImportReport
  if (flat === 0 && report.rowsRead >= rows / 5) flat = process.memoryUsage().rss
}
clearInterval(watch)
const seconds = (performance.now() - started) / 1000
process.stdout.write(
  `${JSON.stringify({
    rows,
    bytes: report.bytes,
    taken: report.rowsTaken,
    refused: report.rowsRefused,
    receivedSeconds: Number(((received - started) / 1000).toFixed(2)),
    seconds: Number(seconds.toFixed(2)),
    rowsPerSecond: Math.round(rows / seconds),
    rssAtAFifthMiB: Math.round(flat / 2 ** 20),
    rssPeakMiB: Math.round(peak / 2 ** 20),
  })}\n`,
)
await app.close()
await system.close()
rmSync(data, { recursive: true, force: true })
