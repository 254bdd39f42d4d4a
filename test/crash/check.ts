/**
 * Holds what the service says against what the oracle says. Every function returns its differences as sentences; none means that
 * all is well.
 */

import { join } from 'node:path'
import { openEngines } from '../../src/engines/engines.js'
import { silentLogger } from '../../src/logger.js'
import type { Expected, ExpectedInvoice, Question } from './oracle.js'

export interface Api {
  readonly url: string
  readonly key: string
}

async function get<T>(api: Api, path: string, method: 'GET' | 'POST' = 'GET'): Promise<T> {
  const answer = await fetch(`${api.url}${path}`, {
    method,
    headers: { authorization: `Bearer ${api.key}` },
    signal: AbortSignal.timeout(60_000),
  })
  const text = await answer.text()
  if (answer.status !== 200) throw new Error(`${method} ${path} answers ${answer.status}: ${text}`)
  return JSON.parse(text) as T
}

/** First differences of two sets of texts. */
function compare(what: string, found: readonly string[], expected: readonly string[]): string[] {
  const have = new Map<string, number>()
  for (const one of found) have.set(one, (have.get(one) ?? 0) + 1)
  for (const one of expected) have.set(one, (have.get(one) ?? 0) - 1)
  const wrong = [...have].filter(([, n]) => n !== 0)
  if (wrong.length === 0) return []
  return [
    `${what}: ${wrong.length} differences of ${expected.length}: ${wrong
      .slice(0, 4)
      .map(([one, n]) => `${n > 0 ? `${n} too many` : `${-n} missing`} ${one.slice(0, 400)}`)
      .join('; ')}`,
  ]
}

interface UsageAnswer {
  readonly windows: readonly {
    readonly from: string
    readonly groups: Record<string, string>
    readonly value: string | null
    readonly count: string
  }[]
}

async function checkUsage(api: Api, expected: Expected, depth: 'all' | 'totals'): Promise<string[]> {
  const wrong: string[] = []
  const questions = expected.questions.filter((q) => depth === 'all' || q.isTotal)
  const sorted = (groups: Readonly<Record<string, string>>): unknown =>
    Object.entries(groups).sort(([a], [b]) => (a < b ? -1 : 1))
  const ask = async ({ query, rows }: Question): Promise<void> => {
    const answer = await get<UsageAnswer>(api, `/v1/usage?${query}`)
    wrong.push(
      ...compare(
        `usage ${query}`,
        answer.windows.map((w) => JSON.stringify([Date.parse(w.from), sorted(w.groups), w.value, w.count])),
        rows.map((r) => JSON.stringify([r.from, sorted(r.groups), r.value, r.count])),
      ),
    )
  }
  for (let i = 0; i < questions.length; i += 4) await Promise.all(questions.slice(i, i + 4).map(ask))
  return wrong
}

async function checkQuotas(api: Api, expected: Expected): Promise<string[]> {
  const found: string[] = []
  for (const tenant of new Set(expected.quotas.map((q) => q.tenant))) {
    const { quotas } = await get<{
      quotas: { item: string; metric: string; usage: string; state: string; asOf: { ageMs: number } }[]
    }>(api, `/v1/quotas/${tenant}`)
    for (const q of quotas) found.push(JSON.stringify([tenant, q.item, q.metric, q.usage, q.state, q.asOf.ageMs]))
  }
  return compare(
    'quotas',
    found,
    expected.quotas.map((q) => JSON.stringify([q.tenant, q.item, q.metric, q.usage, 'live', 0])),
  )
}

interface Alert {
  readonly id: string
  readonly serial: number
  readonly type: string
  readonly tenant: string
  readonly item: string
  readonly metric: string
  readonly period: { readonly from: number }
  readonly threshold: string
  readonly balance: string
}

async function checkAlerts(api: Api, expected: Expected): Promise<string[]> {
  const alerts: Alert[] = []
  for (;;) {
    const { alerts: page } = await get<{ alerts: Alert[] }>(
      api,
      `/v1/alerts?after=${alerts.at(-1)?.serial ?? 0}&limit=1000`,
    )
    alerts.push(...page)
    if (page.length < 1000) break
  }
  const wrong: string[] = []
  const keyOf = (type: string, item: string, metric: string, from: number, threshold: string): string =>
    JSON.stringify([type, item, metric, from, threshold])
  const found = new Map<string, Alert>()
  for (const alert of alerts) {
    const key = keyOf(alert.type, alert.item, alert.metric, alert.period.from, alert.threshold)
    if (found.has(key)) wrong.push(`alert ${key} is there twice`)
    found.set(key, alert)
  }
  const known = new Set<string>()
  for (const alert of expected.alerts) {
    const key = keyOf(alert.type, alert.item, alert.metric, alert.periodFrom, alert.threshold)
    known.add(key)
    const there = found.get(key)
    if (there === undefined) {
      const triggered = found.has(keyOf('alert.triggered', alert.item, alert.metric, alert.periodFrom, alert.threshold))
      if (alert.must || (alert.mustIfTriggered && triggered)) wrong.push(`alert ${key} is missing`)
    } else if (alert.balance !== null && there.balance !== alert.balance) {
      wrong.push(`alert ${key} rang at ${there.balance} instead of ${alert.balance}`)
    }
  }
  for (const key of found.keys()) if (!known.has(key)) wrong.push(`alert ${key} should not be there`)
  return wrong
}

async function checkBooks(api: Api, expected: Expected): Promise<string[]> {
  const { totals, balanced, onTheWay } = await get<{
    totals: Record<string, number>
    balanced: boolean
    onTheWay: number
  }>(api, '/v1/books')
  const wrong = balanced ? [] : ['the books do not balance']
  if (onTheWay !== 0) wrong.push(`${onTheWay} records are not in a checkpoint`)
  for (const [name, [min, max]] of Object.entries(expected.books)) {
    const value = totals[name]!
    if (value < min || value > max)
      wrong.push(`books: ${name} is ${value}, expected ${min === max ? min : `${min} to ${max}`}`)
  }
  return wrong
}

interface Kept {
  readonly state: string
  readonly hash: string
  readonly invoice: {
    readonly contract: string
    readonly number: string | null
    readonly lines: readonly {
      readonly type: string
      readonly metric: string | null
      readonly quantity: string
      readonly amount: string
      readonly proof: { readonly count: number } | null
    }[]
    readonly usage: readonly {
      readonly metric: string
      readonly quantity: string
      readonly proof: { readonly count: number }
    }[]
    readonly notices: readonly {
      readonly metric: string | null
      readonly quantity: string | null
      readonly code: string
    }[]
    readonly ht: string
    readonly tva: string
    readonly ttc: string
  }
}

/** Invoices without their texts, and the gapless numbers of the year. `hashes` are those seen before: they must not change. */
async function checkInvoices(api: Api, expected: Expected, hashes: Map<string, string>): Promise<string[]> {
  const { invoices } = await get<{ invoices: Kept[] }>(api, '/v1/invoices?limit=1000')
  const wrong: string[] = []
  const plain = (i: ExpectedInvoice): string =>
    JSON.stringify([i.contract, i.lines, i.statement, i.notices, i.ht, i.tva, i.ttc])
  wrong.push(
    ...compare(
      'invoices',
      invoices.map(({ invoice: i }) =>
        plain({
          contract: i.contract,
          lines: i.lines.map((l) => ({
            type: l.type,
            metric: l.metric,
            quantity: l.quantity,
            amount: l.amount,
            count: l.proof?.count ?? null,
          })),
          statement: i.usage.map((u) => ({ metric: u.metric, quantity: u.quantity, count: u.proof.count })),
          notices: i.notices.map((n) => ({ code: n.code, metric: n.metric, quantity: n.quantity })),
          ht: i.ht,
          tva: i.tva,
          ttc: i.ttc,
        }),
      ),
      expected.invoices.map(plain),
    ),
  )
  for (const { state } of invoices) if (state !== 'finalised') wrong.push(`an invoice is ${state}`)
  const numbers = invoices
    .map(({ invoice }) => Number(/-(\d+)$/.exec(invoice.number ?? '')?.[1] ?? Number.NaN))
    .sort((a, b) => a - b)
  if (numbers.some((number, i) => number !== i + 1))
    wrong.push(`invoice numbers are ${numbers.join(', ')}, expected 1 to ${invoices.length} without a gap`)
  for (const { invoice, hash } of invoices) {
    const before = hashes.get(invoice.contract)
    if (before !== undefined && before !== hash) wrong.push(`the issued invoice of ${invoice.contract} has changed`)
    hashes.set(invoice.contract, hash)
  }
  return wrong
}

async function checkAudit(api: Api): Promise<string[]> {
  const report = await get<{ ok: boolean; checks: { name: string; ok: boolean; detail: string }[] }>(
    api,
    '/v1/audit',
    'POST',
  )
  return report.checks.filter((c) => !c.ok).map((c) => `audit ${c.name}: ${c.detail}`)
}

/** All that the running service can be asked; of usage perhaps only the totals. The audit comes first: it brings everything into a checkpoint. */
export async function checkService(
  api: Api,
  expected: Expected,
  hashes: Map<string, string>,
  depth: 'all' | 'totals',
): Promise<string[]> {
  return [
    ...(await checkAudit(api)),
    ...(await checkBooks(api, expected)),
    ...(await checkQuotas(api, expected)),
    ...(await checkAlerts(api, expected)),
    ...(await checkUsage(api, expected, depth)),
    ...(await checkInvoices(api, expected, hashes)),
  ]
}

/** Takes away minutes of the epoch that has no checkpoint, all or those of the running month; their tokens stay. Says what went. */
export async function loseRows(directory: string, now: number, onlyThisMonth: boolean): Promise<string> {
  const engines = await openEngines({
    dataDirectory: join(directory, 'data'),
    logger: silentLogger,
    onFatal: (error) => {
      throw error
    },
  })
  try {
    const { rows } = await engines.postgres.query(
      'SELECT stream, epoch FROM epoch_manifests m WHERE NOT EXISTS (SELECT 1 FROM epoch_checkpoints c WHERE (c.stream, c.epoch) = (m.stream, m.epoch))',
    )
    const { stream, epoch } = rows[0]
    const today = new Date(now)
    const from = onlyThisMonth ? Date.UTC(today.getUTCFullYear(), today.getUTCMonth(), 1) / 1000 : 0
    const where = `stream = ${stream} AND epoch = ${epoch} AND window >= ${from}`
    const result = await engines.clickhouse.query({
      query: `SELECT count() AS n FROM usage_minute WHERE ${where}`,
      format: 'JSONEachRow',
    })
    const [found] = await result.json<{ n: string }>()
    if (Number(found!.n) === 0) throw new Error('no row was there to be taken away')
    await engines.clickhouse.command({
      query: `ALTER TABLE usage_minute DELETE WHERE ${where}`,
      clickhouse_settings: { mutations_sync: '2' },
    })
    return `${found!.n} minutes of epoch ${epoch}`
  } finally {
    await engines.close()
  }
}

/** What lies in the stores of a stopped service, read from the engines themselves. */
export async function checkStores(directory: string, expected: Expected): Promise<string[]> {
  const engines = await openEngines({
    dataDirectory: join(directory, 'data'),
    logger: silentLogger,
    onFatal: (error) => {
      throw error
    },
  })
  try {
    const result = await engines.clickhouse.query({
      query: `SELECT tenant, source, id, kind, metric, subject, dims, member, toString(toUnixTimestamp64Milli(event_time)) AS time, toString(value) AS value FROM usage_events`,
      format: 'JSONEachRow',
    })
    const rows = await result.json<Record<string, string | number>>()
    const wrong = compare(
      'archive',
      rows.map((r) =>
        JSON.stringify([
          r.tenant,
          r.source,
          r.id,
          r.kind,
          r.metric,
          r.subject,
          r.dims,
          r.member,
          Number(r.time),
          r.value,
        ]),
      ),
      expected.archive,
    )
    const count = async (name: string, query: string): Promise<void> => {
      const { rows: found } = await engines.postgres.query<{ n: unknown }>(query)
      if (Number(found[0]!.n) !== 0) wrong.push(`${found[0]!.n} ${name}`)
    }
    await count('alerts were never sent', 'SELECT count(*) AS n FROM alerts WHERE sent_at IS NULL')
    await count(
      'manifests have no checkpoint',
      'SELECT count(*) AS n FROM epoch_manifests m WHERE NOT EXISTS (SELECT 1 FROM epoch_checkpoints c WHERE (c.stream, c.epoch) = (m.stream, m.epoch))',
    )
    await count(
      'checkpoints have no manifest',
      'SELECT count(*) AS n FROM epoch_checkpoints c WHERE NOT EXISTS (SELECT 1 FROM epoch_manifests m WHERE (c.stream, c.epoch, c.from_seq, c.to_seq) = (m.stream, m.epoch, m.from_seq, m.to_seq))',
    )
    await count('folds were never done', 'SELECT count(*) AS n FROM folds WHERE done_at IS NULL')
    await count('cuts are still open', 'SELECT count(*) AS n FROM cuts WHERE released_at IS NULL')
    return wrong
  } finally {
    await engines.close()
  }
}
