/**
 * The demo: the whole road on the embedded engines, through the public door, with a clock that is moved by hand: 10 March 2026,
 * then past 1 April and the grace time. Prints the live quotas of the ODS screens, the alerts, the books and the OID invoice.
 *
 * A second run on the same directory prints the same table and the same invoice: every event is a duplicate.
 */
import { fork } from 'node:child_process'
import { mkdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { QuotaLine } from '../answers.js'
import { loadSeeds } from '../catalog/seeds.js'
import { progressLine } from '../cli/terminal.js'
import { HandClock } from '../clock.js'
import { type Config, parseConfig } from '../config.js'
import { formatNumber, formatPercent } from '../format.js'
import { buildHttp, listen } from '../http/http.js'
import { renderInvoice } from '../invoicing/render.js'
import { openLogger } from '../logger.js'
import { countOver } from '../quota/status.js'
import { openSystem, type System } from '../system.js'
import type { FleetReport, FleetStart } from './messages.js'

const TENANT = 'banque-atlantique'
const CONTRACT = 'banque-atlantique-oid'
const DEMO_NOW = '2026-03-10T09:00:00Z'
const AFTER_MARCH = '2026-04-01T00:00:00Z'

export interface DemoOptions {
  readonly exit: boolean
  readonly events: number
  readonly data: string
}

const say = (line: string): void => void process.stdout.write(`${line}\n`)
const tell = (line: string): void => void process.stderr.write(`${line}\n`)

async function counted(metric: { get(): Promise<{ values: { value: number }[] }> }): Promise<number> {
  return (await metric.get()).values.reduce((sum, { value }) => sum + value, 0)
}

async function sendEverything(system: System, start: FleetStart): Promise<void> {
  const line = progressLine()
  const began = performance.now()
  const child = fork(fileURLToPath(new URL('./fleet.js', import.meta.url)), {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  })
  let last: FleetReport = { type: 'progress', sent: 0, stored: 0, refused: 0 }
  const show = async (): Promise<void> => {
    const seconds = (performance.now() - began) / 1000
    const duplicates = await counted(system.metrics.duplicates)
    const { streams } = system.health()
    const lag = streams.reduce((n, s) => n + s.lagRecords, 0)
    const n = (value: number): string => formatNumber(String(Math.round(value)), 'en')
    line.show(
      `  ${n(last.sent).padStart(9)} events  ${n(last.sent / seconds).padStart(8)} events/s  duplicates ${n(duplicates)}  refused ${n(last.refused)}  lag ${lag} batches`,
    )
  }
  await new Promise<void>((resolve, reject) => {
    child.on('message', (report: FleetReport) => {
      last = report
      void show().then(() => report.type === 'done' && resolve())
    })
    child.on('exit', (code) =>
      code === 0 ? resolve() : reject(new Error(`cannot go on: the senders ended with ${code}`)),
    )
    child.on('error', reject)
    child.send(start)
  })
  line.end()
}

function quotaTable(quotas: readonly QuotaLine[]): string[] {
  const header = ['Produit', 'Métrique', 'Usage courant', 'Quota', '% utilisé', 'Overage']
  const rows = quotas.map((q) => [
    q.product,
    q.metric,
    formatNumber(q.usage, 'fr'),
    q.limit === null ? 'Illimité' : formatNumber(q.limit, 'fr'),
    q.percent === null ? '-' : formatPercent(q.percent.replace(/\.0$/, ''), 'fr'),
    q.overage === null || q.overage === '0' ? '-' : `+${formatNumber(q.overage, 'fr')}`,
  ])
  const widths = header.map((title, i) => Math.max(title.length, ...rows.map((row) => row[i]!.length)))
  const print = (row: readonly string[]): string =>
    `  ${row.map((cell, i) => (i < 2 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!))).join('  ')}`
  return [print(header), print(widths.map((w) => '─'.repeat(w))), ...rows.map(print)]
}

/** The screens' order: CLM, then OID, each metric as it is listed in its contract. */
function inScreenOrder(quotas: readonly QuotaLine[]): QuotaLine[] {
  return [...quotas].sort((a, b) => (a.product < b.product ? -1 : a.product > b.product ? 1 : 0))
}

async function show(system: System, clock: HandClock): Promise<void> {
  const { quotas } = await system.answers.quotas(TENANT)
  const ordered = inScreenOrder(quotas)
  const over = countOver(ordered)
  say('')
  say(
    `Banque Atlantique, quotas en direct au ${new Date(clock.now()).toISOString().slice(0, 10)} — ${over} métriques en dépassement ce mois`,
  )
  for (const line of quotaTable(ordered)) say(line)

  const alerts = await system.alerts.list({ tenant: null, after: 0, limit: 1000 })
  say('')
  say(`Alertes (${alerts.length}), une par seuil et par période`)
  for (const alert of alerts) {
    say(
      `  ${alert.metric.padEnd(22)} seuil ${alert.threshold.padEnd(7)} franchi à ${formatNumber(alert.balance, 'fr')}`,
    )
  }

  await system.settle()
  const { totals, balanced } = system.books()
  const n = (value: number): string => formatNumber(String(value), 'fr')
  say('')
  say(`Les comptes ${balanced ? 'sont justes' : 'NE SONT PAS JUSTES'}`)
  say(`  reçus ${n(totals.received)} = enregistrés ${n(totals.stored)} + refusés ${n(totals.refused)}`)
  say(
    `  enregistrés ${n(totals.stored)} = comptés ${n(totals.accepted)} + doublons ${n(totals.duplicate)} + conflits ${n(totals.conflict)}`,
  )
  say(`  comptés ${n(totals.accepted)} = dans les agrégats et dans l’archive (${n(totals.archived)})`)
  const report = await system.audit()
  say(
    `  audit : ${report.checks.filter((c) => c.ok).length} contrôles sur ${report.checks.length} ${report.ok ? 'justes' : ''}`,
  )
  for (const check of report.checks.filter((c) => !c.ok)) say(`  DIFFÉRENCE ${check.name}: ${check.detail}`)
}

async function invoice(system: System, clock: HandClock, config: Config): Promise<void> {
  clock.set(Date.parse(AFTER_MARCH) + config.graceMs + 60_000)
  tell(`\nThe clock is moved to ${new Date(clock.now()).toISOString()}; March is closed.`)
  const closed = await system.billing.closePeriod({ contract: CONTRACT, at: Date.parse(DEMO_NOW) })
  if (closed.invoice === null) throw new Error('cannot show an invoice: nothing was due')
  say('')
  say(renderInvoice(closed.invoice.invoice, { language: 'fr' }))
  say('Les requêtes derrière les lignes, à refaire à la main :')
  for (const line of closed.invoice.invoice.lines) {
    if (line.proof === null) continue
    say(
      `  ${line.no}. ${line.metric} : ${line.proof.count} événements, coupe ${JSON.stringify(line.proof.cut)}, empreinte ${line.proof.digest}`,
    )
    say(`     ${line.proof.query}`)
  }
  say(`SHA-256 du document : ${closed.invoice.hash}`)
}

export async function runDemo(options: DemoOptions): Promise<number> {
  if (!Number.isSafeInteger(options.events) || options.events < 0)
    throw new Error('cannot run the demo: --events is a whole number')
  const config = parseConfig({
    ...process.env,
    RELEVE_DATA: options.data,
    RELEVE_LOG: process.env.RELEVE_LOG || 'warn',
  })
  const clock = new HandClock(DEMO_NOW)
  const logger = openLogger(config.logLevel)
  mkdirSync(config.dataDirectory, { recursive: true, mode: 0o700 })
  tell(`releve demo in ${config.dataDirectory}, clock at ${DEMO_NOW}`)
  const system = await openSystem({
    config,
    clock,
    logger,
    onFatal: (error) => {
      tell(error.message)
      process.exit(1)
    },
    onProgress: (step) => tell(`  opening: ${step}`),
  })
  const app = await buildHttp(system)
  let stop!: () => void
  const stopped = new Promise<void>((resolve) => {
    stop = resolve
  })
  process.once('SIGINT', stop)
  process.once('SIGTERM', stop)
  try {
    const url = await listen(app, config.host, config.port)
    const changed = await loadSeeds(system.catalog)
    await system.catalogSettled()
    tell(`  catalogue of the ODS screens: ${changed === 0 ? 'already there' : `${changed} definitions`}`)
    const key = readFileSync(system.keys.adminKeyFile, 'utf8').trim()
    tell(`  sending to ${url}/v1/events: 10,000 devices and the CLM and OID platforms`)
    await sendEverything(system, { url, key, events: options.events, now: clock.now() })
    // What is on disk is applied within moments; the table waits for it, so that it is the same in every run.
    await system.settle()
    await show(system, clock)
    await invoice(system, clock, config)
    if (!options.exit) {
      say('')
      say(
        `The service runs on ${url} (API page ${url}/docs), with its clock at ${new Date(clock.now()).toISOString()}.`,
      )
      say(`The admin key is in ${system.keys.adminKeyFile}; Ctrl-C stops.`)
      await stopped
    }
    return 0
  } finally {
    await app.close()
    await system.close()
  }
}
