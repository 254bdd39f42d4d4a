/**
 * Results (charts/*.json) → charts (charts/*.svg) and the tables of the README between `<!-- bench:NAME -->` and `<!-- /bench -->`.
 * Nothing is measured here and nothing is drawn by hand: a test holds what is committed against what this makes of the figures.
 *
 *     node dist/bench/draw.js
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { rootDirectory } from '../src/paths.js'
import { type Bar, drawSheet, type Panel, short } from './chart.js'
import type { GrowthPoint } from './dedupe.bench.js'
import type { LoadPoint, StartPoint, UsagePoint } from './growth.bench.js'
import type { LimitFigures, LimitRow } from './limits.bench.js'
import type { NatsFigures } from './nats.bench.js'
import type { PeerFigures } from './peers.bench.js'
import { chartsFolder, describe, type Result, readResult } from './results.js'

export interface Drawing {
  readonly svg?: string
  /** Markdown. */
  readonly table?: string
}

const exact = (n: number): string => n.toLocaleString('en')
/** Three digits: more would be noise. */
const about = (n: number): string => exact(Number(n.toPrecision(3)))
const ms = (n: number): string => `${n < 10 ? Number(n.toPrecision(2)) : Math.round(n)} ms`
const table = (head: readonly string[], rows: readonly (readonly string[])[]): string =>
  [head, head.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n')

// ---- Against the limit ---------------------------------------------------------------------------------------------------

const WAY: Readonly<Record<LimitRow['way'], string>> = {
  memcpy: 'memcpy',
  log: 'log append, fdatasync',
  receive: 'fastify, only receives',
  parse: 'fastify, only parses',
  'releve off': 'releve, archive off',
  'releve on': 'releve, archive on',
}
const titleOf = ({ format, batch }: Pick<LimitRow, 'format' | 'batch'>): string =>
  `${format === 'json' ? 'JSON' : format}, ${exact(batch)} ${batch === 1 ? 'event' : 'events'} a request`

function loadsOf(figures: LimitFigures): LimitRow[][] {
  const loads = new Map<string, LimitRow[]>()
  for (const row of figures.rows) loads.set(titleOf(row), [...(loads.get(titleOf(row)) ?? []), row])
  return [...loads.values()]
}

function drawLimits({ figures, conditions }: Result<LimitFigures>): Drawing {
  const loads = loadsOf(figures)
  const panels = loads.map((rows): Panel => {
    const bars = rows.map(
      (row): Bar => ({
        label: WAY[row.way],
        value: row.perS,
        text: short(row.perS),
        range: [row.least, row.most],
        own: row.way.startsWith('releve'),
      }),
    )
    return {
      kind: 'dots',
      title: titleOf(rows[0]!),
      axis: { label: 'events a second, logarithmic', values: short },
      bars,
    }
  })
  const svg = drawSheet({
    title: 'The whole road against what its parts can do, the same bodies in one run',
    note: `${describe(conditions)}. Medians of ${figures.rounds} rounds, least to most behind.`,
    columns: 2,
    panels,
  })
  const rateOf = (rows: readonly LimitRow[], way: LimitRow['way']): number | undefined =>
    rows.find((row) => row.way === way)?.perS
  const lines = loads.map((rows) => {
    const cells = (['memcpy', 'log', 'receive', 'parse'] as const).map((way) => {
      const rate = rateOf(rows, way)
      if (rate === undefined) return '–'
      const [off, on] = [rateOf(rows, 'releve off')! / rate, rateOf(rows, 'releve on')! / rate]
      return `${about(rate)} (${times(off)} / ${times(on)})`
    })
    return [titleOf(rows[0]!), about(rateOf(rows, 'releve off')!), about(rateOf(rows, 'releve on')!), ...cells]
  })
  return {
    svg,
    table: table(
      [
        'events/s',
        'releve, archive off',
        'archive on',
        'memcpy (releve off / on is × of it)',
        'log append',
        'fastify, only receives',
        'fastify, only parses',
      ],
      lines,
    ),
  }
}

const times = (ratio: number): string => (ratio < 0.1 ? ratio.toPrecision(1) : ratio.toFixed(2))

// ---- Against the ways of others ------------------------------------------------------------------------------------------

const PEER: Readonly<Record<string, string>> = {
  releve: 'releve, HTTP JSON, archive on',
  postgres: 'PostgreSQL, unique index (as Lago)',
  clickhouse: 'raw events, single at query time (as Flexprice)',
  redis: 'Redis SET NX, then raw events into ClickHouse',
}
const PEER_SHORT: Readonly<Record<string, string>> = {
  releve: 'releve',
  postgres: 'PostgreSQL, unique index',
  clickhouse: 'ClickHouse, at query time',
  redis: 'Redis, then ClickHouse',
}

const afterKill = (off: number): string =>
  off === 0 ? 'right' : off > 0 ? `${exact(off)} too many` : `${exact(-off)} lost`

function drawPeers({ figures, conditions }: Result<PeerFigures>): Drawing {
  const all = figures.rows
  const panel = (
    title: string,
    label: string,
    value: (r: PeerFigures['rows'][number]) => number,
    words: (n: number) => string,
  ): Panel => ({
    ...{ kind: 'bars', title, axis: { label, values: words } },
    // Where fewer events were sent, a duration and a size would not compare.
    bars: all
      .filter((r) => r.events === all[0]!.events || label.startsWith('events'))
      .map((r) => ({
        label: `${PEER_SHORT[r.way]}, ${exact(r.batch)}`,
        value: value(r),
        text: words(value(r)),
        own: r.way === 'releve',
      })),
  })
  const svg = drawSheet({
    title: `The same ${short(all[0]!.events)} events in the ways that others take, on the same engines`,
    note: `${describe(conditions)}. Behind each way: events a batch.`,
    columns: 2,
    panels: [
      panel('Taken, durable', 'events a second', (r) => r.eventsPerS, short),
      panel(
        'From the first event until all totals are right',
        'seconds',
        (r) => r.rightAfterS,
        (n) => `${n.toFixed(n < 10 ? 1 : 0)} s`,
      ),
      panel(
        'One tenant’s month, live',
        'milliseconds',
        (r) => r.oneTenantMs,
        (n) => (n === 0 ? '0' : ms(n)),
      ),
      panel(
        'On disk',
        'megabytes',
        (r) => r.diskMb,
        (n) => `${exact(Math.round(n))} MB`,
      ),
    ],
  })
  const rows = all.map((r) => [
    r.events === all[0]!.events ? PEER[r.way]! : `${PEER[r.way]}, ${short(r.events)} events`,
    ...[exact(r.batch), about(r.eventsPerS), `${r.rightAfterS.toFixed(1)} s`],
    `${Math.round(r.oneTenantMs)} / ${exact(Math.round(r.allTenantsMs))} ms`,
    ...[`${exact(Math.round(r.diskMb))} MB`, r.right ? 'right' : 'WRONG', afterKill(r.offAfterKill)],
  ])
  return {
    svg,
    table: table(
      [
        'way',
        'batch',
        'events/s',
        'all totals right after',
        'one tenant / all, query',
        'disk',
        'totals',
        'after SIGKILL',
      ],
      rows,
    ),
  }
}

// ---- NATS ----------------------------------------------------------------------------------------------------------------

function drawNats({ figures }: Result<NatsFigures>): Drawing {
  const rows = figures.rows.map((row) => {
    const plain = figures.rows.find(({ way, format }) => way === 'plain' && format === row.format)!
    const cpu = Object.entries(row.cpuNs).filter(([, ns]) => ns >= 20)
    return [
      row.format,
      row.way === 'plain' ? 'JetStream alone: published, pulled' : row.way.replace(' ', ', archive '),
      ...[about(row.takenPerS), row.way === 'plain' ? '–' : about(row.flushedPerS)],
      (row.takenPerS / plain.takenPerS).toFixed(2),
      cpu.map(([name, ns]) => `${name} ${exact(ns)}`).join(', '),
    ]
  })
  return { table: table(['format', '', 'taken/s', 'flushed/s', '× of JetStream alone', 'CPU ns an event'], rows) }
}

// ---- Growth --------------------------------------------------------------------------------------------------------------

const line = (name: string, points: readonly LoadPoint[], value: (point: LoadPoint) => number) => ({
  name,
  points: points.map((point) => [point.x, value(point)] as const),
})

function loadPanels(points: readonly LoadPoint[], label: string, isLog = true): Panel[] {
  const x = { label, log: isLog, values: short }
  const stages = ['main', 'shards', 'v8 helpers', 'pool', 'clickhouse']
  const most = Math.max(...points.flatMap(({ cpuNs }) => Object.values(cpuNs)))
  // Over decades, as with one event a request and with thousands.
  const isWide = most > 20_000
  return [
    {
      ...{ kind: 'lines', title: 'Events a second', x, y: { label: 'events/s', values: short, log: isWide } },
      lines: [line('acknowledged', points, (p) => p.ackedPerS), line('flushed', points, (p) => p.flushedPerS)],
    },
    {
      ...{ kind: 'lines', title: 'What an event costs', x },
      y: { label: 'CPU ns an event', values: short, log: isWide },
      lines: stages
        .map((stage) => line(stage, points, (p) => p.cpuNs[stage] ?? (isWide ? 10 : 0)))
        .filter(({ points }) => points.some(([, y]) => y > most / 50 || isWide)),
    },
    {
      ...{ kind: 'lines', title: 'Memory', x, y: { label: 'MB', values: short } },
      lines: ['service', 'clickhouse'].map((part) => line(part, points, (p) => p.memoryMb[part] ?? 0)),
    },
  ]
}

const loadTable = (points: readonly LoadPoint[], name: string): string =>
  table(
    [name, ...points.map(({ x }) => short(x))],
    [
      ['acknowledged/s', ...points.map((p) => short(p.ackedPerS))],
      ['flushed/s', ...points.map((p) => short(p.flushedPerS))],
      ['CPU ns an event, all', ...points.map((p) => exact(Object.values(p.cpuNs).reduce((a, b) => a + b, 0)))],
      ['shard', ...points.map((p) => exact(p.cpuNs.shards ?? 0))],
      ['ClickHouse', ...points.map((p) => exact(p.cpuNs.clickhouse ?? 0))],
      ['service, MB', ...points.map((p) => exact(p.memoryMb.service ?? 0))],
    ],
  )

const growth =
  (title: string, label: string) =>
  ({ figures, conditions }: Result<LoadPoint[]>): Drawing => ({
    svg: drawSheet({ title, note: describe(conditions), columns: 3, panels: loadPanels(figures, label) }),
    table: loadTable(figures, label),
  })

function drawIds({ figures, conditions }: Result<{ table: GrowthPoint[]; service: LoadPoint[] }>): Drawing {
  const x = { label: 'ids in the table', log: true, values: short }
  const of = (name: string, value: (p: GrowthPoint) => number) => ({
    name,
    points: figures.table.map((p) => [p.ids, value(p)] as const),
  })
  const panels: Panel[] = [
    {
      ...{ kind: 'lines', title: 'The table: what an id costs', x, y: { label: 'ns an event', values: short } },
      lines: [of('new', (p) => p.newNs), of('duplicate', (p) => p.duplicateNs)],
    },
    {
      ...{ kind: 'lines', title: 'The table: memory of an id', x, y: { label: 'bytes', values: short } },
      lines: [of('bytes', (p) => p.tableBytesPerId)],
    },
    {
      ...{ kind: 'lines', title: 'The table: longest pauses', x, y: { label: 'ms', log: true, values: short } },
      lines: [of('a frame of 1,000', (p) => p.longestFrameMs), of('slice of reload', (p) => p.longestReloadSliceMs)],
    },
    ...loadPanels(figures.service, 'ids sent to the service', false),
  ]
  return {
    svg: drawSheet({ title: 'As live ids become many', note: describe(conditions), columns: 3, panels }),
    table: table(
      ['live ids', ...figures.table.map(({ ids }) => short(ids))],
      [
        ['new / duplicate, ns', ...figures.table.map((p) => `${Math.round(p.newNs)} / ${Math.round(p.duplicateNs)}`)],
        ['bytes an id', ...figures.table.map((p) => p.tableBytesPerId.toFixed(1))],
        ['longest frame, ms', ...figures.table.map((p) => String(p.longestFrameMs))],
        ['reload, ms', ...figures.table.map((p) => exact(p.reloadMs))],
      ],
    ),
  }
}

function drawStart({ figures, conditions }: Result<StartPoint[]>): Drawing {
  const x = { label: 'events in the log that are in no checkpoint', values: short }
  const of = (name: string, value: (p: StartPoint) => number) => ({
    name,
    points: figures.map((p) => [p.events, value(p) / 1000] as const),
  })
  const lines = [
    of('ready', (p) => p.readyMs),
    of('applied', (p) => p.appliedMs),
    of('in a checkpoint', (p) => p.flushedMs),
  ]
  return {
    svg: drawSheet({
      title: 'Start after a kill of everything, as the log to replay grows',
      note: describe(conditions),
      columns: 1,
      panels: [
        {
          kind: 'lines',
          title: 'From the start of the process',
          x,
          y: { label: 'seconds', values: (n) => String(Math.round(n * 10) / 10) },
          lines,
        },
      ],
    }),
    table: table(
      ['events to replay', ...figures.map(({ events }) => short(events))],
      [
        ['log, MB', ...figures.map((p) => exact(p.logMb))],
        ['ready, s', ...figures.map((p) => (p.readyMs / 1000).toFixed(1))],
        ['applied, s', ...figures.map((p) => (p.appliedMs / 1000).toFixed(1))],
        ['in a checkpoint, s', ...figures.map((p) => (p.flushedMs / 1000).toFixed(1))],
      ],
    ),
  }
}

function drawUsage({ figures, conditions }: Result<UsagePoint[]>): Drawing {
  const x = { label: 'rows of minutes', log: true, values: short }
  const whats = figures[0]!.asked.map(({ what }) => what)
  const of = (value: 'p50Ms' | 'p99Ms') =>
    whats.map((what) => ({
      name: what,
      points: figures.map((p) => [p.rows, p.asked.find((a) => a.what === what)![value]] as const),
    }))
  const y = { label: 'ms', values: short }
  const panels: Panel[] = [
    { kind: 'lines', title: 'p50 of 200 questions', x, y, lines: of('p50Ms') },
    { kind: 'lines', title: 'p99', x, y, lines: of('p99Ms') },
    {
      ...{ kind: 'lines', title: 'All 10,000 at once', x, y: { ...y, log: true } },
      lines: [{ name: 'all', points: figures.map((p) => [p.rows, p.allMs] as const) }],
    },
  ]
  return {
    svg: drawSheet({
      title: 'A month of one tenant’s metric, GET /v1/usage, as rollups grow',
      note: describe(conditions),
      columns: 3,
      panels,
    }),
    table: table(
      ['rows of minutes', ...figures.map(({ rows }) => short(rows))],
      [
        ['rows of hours', ...figures.map((p) => short(p.hourRows))],
        ...whats.map((what) => [
          `${what}, p50 / p99 ms`,
          ...figures.map((p) => {
            const { p50Ms, p99Ms, rows } = p.asked.find((a) => a.what === what)!
            return `${p50Ms} / ${p99Ms} (${short(rows)} rows)`
          }),
        ]),
        ['all 10,000 at once, ms', ...figures.map((p) => exact(p.allMs))],
      ],
    ),
  }
}

/** By the result's name; a chart has the same name. */
export const drawings: Readonly<Record<string, (result: Result<never>) => Drawing>> = {
  limits: drawLimits,
  peers: drawPeers,
  nats: drawNats,
  'growth-series': growth('As series become many, each touched as often as the others', 'series'),
  'growth-tenants': growth('As tenants become many, over 100,000 series', 'tenants'),
  'growth-batch': growth('As requests become large', 'events a request'),
  'growth-ids': drawIds,
  'growth-start': drawStart,
  'growth-usage': drawUsage,
}

/** The README with its tables made anew; tables without a result stay as they are. */
export function withTables(readme: string): string {
  return readme.replace(
    /(<!-- bench:([a-z-]+) -->\n)[\s\S]*?(<!-- \/bench -->)/g,
    (whole, begin: string, name: string, end: string) => {
      const result = readResult<never>(name)
      const made = result === undefined ? undefined : drawings[name]?.(result).table
      if (result === undefined || made === undefined) return whole
      return `${begin}${made}\n\n*${describe(result.conditions)}.*\n${end}`
    },
  )
}

export function drawAll(say: (line: string) => void): void {
  for (const [name, draw] of Object.entries(drawings)) {
    const result = readResult<never>(name)
    if (result === undefined) continue
    const { svg } = draw(result)
    if (svg === undefined) continue
    writeFileSync(join(chartsFolder, `${name}.svg`), svg)
    say(`bench/charts/${name}.svg`)
  }
  for (const path of [join(rootDirectory, 'README.md'), join(rootDirectory, 'bench', 'README.md')]) {
    if (!existsSync(path)) continue
    const readme = readFileSync(path, 'utf8')
    const made = withTables(readme)
    if (made !== readme) writeFileSync(path, made)
  }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) drawAll((line) => process.stdout.write(`${line}\n`))
