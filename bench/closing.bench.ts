/**
 * Question: how many contracts with five metrics each are counted, proved, rated and drafted in a second? The real engines, with
 * the month's usage in them; what is timed is one batch closing, from the cut to the last draft in PostgreSQL. Prints where the
 * time went (busy seconds per part, summed over the chunks that ran at once) and the memory of the process.
 *
 * Not timed: loading the catalogue and the usage, and issuing, which takes numbers one after the other by its nature.
 *
 *     node dist/bench/closing.bench.js               small: 500 contracts
 *     node dist/bench/closing.bench.js large         100,000 contracts, 1,000,000 events
 *     node dist/bench/closing.bench.js 20000         so many
 */
import { readFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { availableParallelism, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { openCatalog } from '../src/catalog/catalog.js'
import { loadSeeds, seedCustomers } from '../src/catalog/seeds.js'
import { HandClock } from '../src/clock.js'
import { openEngines } from '../src/engines/engines.js'
import { migrate } from '../src/engines/migrate.js'
import { type CountRequest, closeMany } from '../src/invoicing/close-many.js'
import type { ItemUsage } from '../src/invoicing/draft.js'
import { openDraftPool } from '../src/invoicing/draft-batch.js'
import { Invoicing } from '../src/invoicing/invoicing.js'
import { silentLogger } from '../src/logger.js'
import { sqlDirectory } from '../src/paths.js'
import { measureMany } from '../src/rollup/measure.js'
import { openRollup } from '../src/rollup/rollup.js'

const METRICS = ['auth_login', 'kyc_verification', 'certificate_enrolled', 'mcp_call', 'documents_processed']

export interface ClosingBenchResult {
  readonly contracts: number
  readonly contractsPerS: number
  readonly seconds: number
  /** Busy seconds, by part; chunks overlap. */
  readonly countS: number
  readonly draftS: number
  /** Processor seconds of this process with its threads, of ClickHouse, and of PostgreSQL with its backends. */
  readonly nodeCpuS: number
  readonly clickhouseCpuS: number
  readonly postgresCpuS: number
  readonly peakMiB: number
  /** Resident MiB of this process at the begin and after each tenth of the contracts, and the part of it that is JavaScript's heap in use. */
  readonly memoryMiB: readonly number[]
  readonly heapMiB: readonly number[]
  /** Sum of all drafts, to be the same in every run. */
  readonly ht: string
}

export async function benchClosing(contracts: number): Promise<ClosingBenchResult> {
  const directory = await mkdtemp(join(tmpdir(), 'releve-closing-bench-'))
  const fail = (error: Error): void => {
    throw error
  }
  const engines = await openEngines({ dataDirectory: directory, logger: silentLogger, onFatal: fail })
  const pool = openDraftPool(availableParallelism())
  const clock = new HandClock('2026-04-01T02:00:00Z')
  try {
    const { postgres, clickhouse } = engines
    await migrate({ clickhouse, postgres, directory: sqlDirectory, logger: silentLogger })
    await loadSeeds(await openCatalog({ postgres, clock }))
    await postgres.query('DELETE FROM catalog_contracts')
    await loadContracts(postgres, contracts)
    await loadUsage(clickhouse, contracts)
    const catalog = await openCatalog({ postgres, clock })
    const rollup = openRollup({ clickhouse })
    const invoicing = new Invoicing({ postgres, clock })
    const busy = { count: 0, draft: 0 }
    const timed = async <T>(part: keyof typeof busy, work: () => Promise<T>): Promise<T> => {
      const at = performance.now()
      const value = await work()
      busy[part] += (performance.now() - at) / 1000
      return value
    }
    const count = async (requests: readonly CountRequest[]): Promise<ItemUsage[][]> => {
      const asked = requests.flatMap(({ tenant, items, period }, request) =>
        items.flatMap(({ item, metrics }) =>
          metrics.map((key) => ({ request, item, metric: catalog.book().metricOf(key), tenant, period })),
        ),
      )
      const answers: ItemUsage[][] = requests.map(() => [])
      const found = await measureMany(rollup, asked, { stream: 0, epoch: 1, folded: 0 })
      for (const [i, { mismatch, ...usage }] of found.entries()) {
        if (mismatch !== null) throw new Error(`cannot bench: ${mismatch}`)
        const { request, item, metric } = asked[i]!
        answers[request]!.push({ item, metric: metric.key, cut: { 0: 1 }, ...usage })
      }
      return answers
    }
    let peak = 0
    let drafted = 0
    const [memory, heap]: [number[], number[]] = [[], []]
    const sample = (): void => {
      const { rss, heapUsed } = process.memoryUsage()
      memory.push(Math.round(rss / 1024 / 1024))
      heap.push(Math.round(heapUsed / 1024 / 1024))
    }
    sample()
    const watch = setInterval(() => {
      peak = Math.max(peak, process.memoryUsage.rss())
    }, 100)
    const begun = performance.now()
    const cpu = process.cpuUsage()
    const { clickhouse: click, postgres: elephant } = engines.state()
    const engineCpu = (): [number, number] => [cpuSecondsOf(click.pid), cpuSecondsOf(elephant.pid)]
    const before = engineCpu()
    const report = await closeMany(
      {
        postgres,
        clock,
        catalog,
        invoicing,
        usageAtCut: () => Promise.reject(new Error('BUG: the bench has no single closings')),
        pool: {
          ...pool,
          draft: async (tasks) => {
            const reply = await timed('draft', () => pool.draft(tasks))
            drafted += tasks.length
            while (memory.length <= Math.floor((drafted * 10) / contracts)) sample()
            return reply
          },
        },
        openCut: async () => ({ count: (requests) => timed('count', () => count(requests)), release: async () => {} }),
      },
      { at: null, finalise: false },
    )
    const seconds = (performance.now() - begun) / 1000
    const used = process.cpuUsage(cpu)
    const after = engineCpu()
    clearInterval(watch)
    if (report.drafted !== contracts || report.failed > 0) throw new Error(`cannot bench: ${JSON.stringify(report)}`)
    const { rows } = await postgres.query('SELECT sum(ht)::text AS ht, count(*)::int AS drafts FROM invoices')
    if (rows[0].drafts !== contracts) throw new Error(`cannot bench: ${rows[0].drafts} drafts of ${contracts}`)
    return {
      contracts,
      contractsPerS: Math.round(contracts / seconds),
      seconds: round2(seconds),
      countS: round2(busy.count),
      draftS: round2(busy.draft),
      nodeCpuS: round2((used.user + used.system) / 1e6),
      clickhouseCpuS: round2(after[0] - before[0]),
      postgresCpuS: round2(after[1] - before[1]),
      peakMiB: Math.round(peak / 1024 / 1024),
      memoryMiB: memory,
      heapMiB: heap,
      ht: rows[0].ht,
    }
  } finally {
    await pool.close()
    await engines.close()
    await rm(directory, { recursive: true, force: true })
  }
}

const round2 = (value: number): number => Math.round(value * 100) / 100

/** Of a process and its children, those that ended included; Linux only, else 0. */
function cpuSecondsOf(pid: number | undefined): number {
  try {
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ').filter(Boolean)
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ')
    const own = [11, 12, 13, 14].reduce((all, i) => all + Number(fields[i]), 0) / 100
    return children.reduce((all, child) => all + cpuSecondsOf(Number(child)), own)
  } catch {
    return 0
  }
}

/** Straight into the tables: what is measured is the closing, not a hundred thousand changes of the catalogue. */
async function loadContracts(postgres: Awaited<ReturnType<typeof openEngines>>['postgres'], contracts: number) {
  await postgres.query(
    `INSERT INTO catalog_customers (tenant, definition, changed_in)
     SELECT 'tenant-' || n, $2::jsonb || jsonb_build_object('tenant', 'tenant-' || n, 'name', 'Client ' || n),
       (SELECT version FROM catalog_head) FROM generate_series(1, $1::int) AS n`,
    [contracts, seedCustomers[0]],
  )
  const contract = {
    legalEntity: 'orbus-digital',
    start: '2026-01-01',
    timeZone: 'Africa/Abidjan',
    cycle: 'monthly',
    state: 'active',
  }
  const entitlements = METRICS.map((metric) => ({
    metric,
    limit: metric === 'auth_login' ? null : '50',
    limitVersion: 1,
    thresholds: [],
  }))
  await postgres.query(
    `INSERT INTO catalog_contracts (id, tenant, definition, changed_in)
     SELECT 'contract-' || n, 'tenant-' || n, $2::jsonb || jsonb_build_object('id', 'contract-' || n, 'tenant', 'tenant-' || n,
       'name', 'Contrat ' || n, 'items', jsonb_build_array(jsonb_build_object('id', 'contract-' || n || '/1',
       'plan', 'oid-business', 'planVersion', 1, 'entitlements', $3::jsonb))),
       (SELECT version FROM catalog_head) FROM generate_series(1, $1::int) AS n`,
    [contracts, contract, JSON.stringify(entitlements)],
  )
}

/** Two events for each contract and metric, of 30 and of n mod 50, so that most contracts are above some quota. */
async function loadUsage(clickhouse: Awaited<ReturnType<typeof openEngines>>['clickhouse'], contracts: number) {
  const events = `SELECT concat('tenant-', toString(1 + intDiv(number, 10))) AS tenant,
    [${METRICS.map((metric) => `'${metric}'`).join(', ')}][1 + intDiv(number, 2) % 5] AS metric,
    toDateTime('2026-03-05 10:00:00', 'UTC') + toIntervalMinute(number % 2) AS at,
    toDecimal128(if(number % 2 = 0, 30, intDiv(number, 10) % 50), 9) AS value, number
    FROM numbers(${contracts * 10})`
  await clickhouse.command({
    query: `INSERT INTO usage_minute SELECT tenant, metric, 'agent', '{}', at, value, 1, 1, value, value, value, at, number, 0, 0, 0, 1, 0
      FROM (${events})`,
  })
  await clickhouse.command({
    query: `INSERT INTO usage_events SELECT tenant, '', toString(number), metric, 1, 'agent', at, value, '{}', '', 1, at, number, 0, 1, 0
      FROM (${events})`,
  })
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const asked = process.argv[2] ?? 'small'
  const contracts = asked === 'small' ? 500 : asked === 'large' ? 100_000 : Number(asked)
  console.log(JSON.stringify(await benchClosing(contracts), null, 2))
}
