/**
 * The files for operators, held against the real programs: Prometheus loads the configuration and the rules, scrapes a real service
 * with a key, and answers every query of the dashboard; promtool runs the unit tests of the rules. Every metric that a rule or a
 * panel names is one that the service has.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { connect } from 'nats'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { openMetrics } from '../../src/metrics.js'
import { type NatsDoor, openNatsDoor } from '../../src/nats/nats.js'
import { rootDirectory } from '../../src/paths.js'
import { type DoorSystem, openDoorSystem } from '../doors/door-system.js'
import { freePort, NatsServer } from '../nats/server.js'
import { findProgram } from '../programs.js'

const monitoring = join(rootDirectory, 'monitoring')
const read = (name: string): string => readFileSync(join(monitoring, name), 'utf8')

interface Panel {
  readonly id: number
  readonly title: string
  readonly type: string
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number }
  readonly targets?: readonly { readonly expr: string; readonly refId: string }[]
}
const dashboard = JSON.parse(read('grafana-dashboard.json')) as { uid: string; title: string; panels: readonly Panel[] }
const queries = dashboard.panels.flatMap((panel) => (panel.targets ?? []).map(({ expr }) => expr))

let door: DoorSystem
let server: NatsServer
let nats: NatsDoor
let prometheus: ChildProcess
let api: string
let folder: string

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'releve-monitoring-'))
  server = new NatsServer(await freePort())
  await server.start()
  door = await openDoorSystem({ RELEVE_NATS_URL: server.url })
  nats = openNatsDoor(door.system, door.system.config.nats!)
  const port = await new Promise<number>((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as { port: number }
      server.close(() => resolve(port))
    })
  })
  cpSync(monitoring, folder, { recursive: true })
  writeFileSync(join(folder, 'key'), door.adminKey, { mode: 0o600 })
  writeFileSync(
    join(folder, 'prometheus.yml'),
    read('prometheus.yml')
      .replace('/etc/prometheus/releve.key', join(folder, 'key'))
      .replace('127.0.0.1:8484', new URL(door.url).host)
      .replace('scrape_interval: 5s', 'scrape_interval: 1s')
      .replace('evaluation_interval: 15s', 'evaluation_interval: 1s'),
  )
  api = `http://127.0.0.1:${port}/api/v1`
  prometheus = spawn(
    findProgram('prometheus')!,
    [
      `--config.file=${join(folder, 'prometheus.yml')}`,
      `--storage.tsdb.path=${join(folder, 'tsdb')}`,
      `--web.listen-address=127.0.0.1:${port}`,
    ],
    { stdio: 'ignore' },
  )
})
afterAll(async () => {
  if (prometheus.exitCode === null) {
    prometheus.kill('SIGKILL')
    await once(prometheus, 'exit')
  }
  await nats?.close()
  await door?.close()
  await server?.close()
  rmSync(folder, { recursive: true, force: true })
})

async function ask<T>(path: string): Promise<T> {
  const answer = await fetch(`${api}${path}`)
  const body = (await answer.json()) as { status: string; data: T; error?: string }
  expect(body.error, path).toBeUndefined()
  return body.data
}

test('Prometheus loads the configuration, scrapes the service with its key and evaluates every rule', async () => {
  const body = JSON.stringify([{ id: 'a', tenant: 'acme', metric: 'kyc', value: '1' }])
  await fetch(`${door.url}/v1/events?wait=applied`, {
    method: 'POST',
    headers: { authorization: `Bearer ${door.adminKey}`, 'content-type': 'application/json' },
    body,
  })
  type Targets = { activeTargets: { health: string; lastError: string }[] }
  let target: Targets['activeTargets'][number] | undefined
  while (target?.health !== 'up') {
    if (prometheus.exitCode !== null) throw new Error('prometheus ended')
    target = await ask<Targets>('/targets').then(
      ({ activeTargets }) => activeTargets[0],
      () => undefined,
    )
    if (target?.health === 'down') throw new Error(target.lastError)
    await sleep(100)
  }
  type Rules = { groups: { rules: { name: string; health: string; lastError?: string }[] }[] }
  let rules: Rules['groups'][number]['rules'] = []
  while (rules.length === 0 || rules.some(({ health }) => health === 'unknown')) {
    await sleep(100)
    rules = (await ask<Rules>('/rules')).groups.flatMap((group) => group.rules)
  }
  expect(rules.filter(({ health }) => health !== 'ok')).toEqual([])
  expect(rules.length).toBe(read('alerts.yml').match(/- alert:/g)!.length)
  // What the service says of itself has arrived.
  const stored = await ask<{ result: { value: [number, string] }[] }>('/query?query=releve_events_stored_total')
  expect(stored.result[0]?.value[1]).toBe('1')
})

interface Series {
  readonly metric: Readonly<Record<string, string>>
  readonly value: readonly [number, string]
}
const query = async (expr: string): Promise<Series[]> =>
  (await ask<{ result: Series[] }>(`/query?query=${encodeURIComponent(expr)}`)).result

/** Answers when the query has series, with all of them. */
async function series(expr: string): Promise<Series[]> {
  for (;;) {
    const found = await query(expr)
    if (found.length > 0) return found
    await sleep(100)
  }
}

async function send(body: string, authorization = `Bearer ${door.adminKey}`): Promise<number> {
  const headers = { authorization, 'content-type': 'application/json' }
  return (await fetch(`${door.url}/v1/events`, { method: 'POST', headers, body })).status
}

test('after some traffic, wrong and right, each query of the dashboard has an answer, and each rule looks at series that are there, with the labels that it prints', async () => {
  const event = { id: 'b', tenant: 'acme', metric: 'kyc', value: '1' }
  expect(await send(JSON.stringify([event, event, { ...event, value: '2' }, { ...event, metric: 'kcy' }]))).toBe(202)
  expect(await send('nothing')).toBe(400)
  expect(await send('[]', 'Bearer nobody')).toBe(401)
  const connection = await connect({ servers: server.url })
  for (;;) {
    // The door may still be opening.
    const answer = await connection.request('usage.req.acme', JSON.stringify({ ...event, id: 'c' })).catch(() => null)
    if (answer?.headers?.get('status') === '202') break
    await sleep(50)
  }
  await connection.close()
  // An engine dies while something is to be written: it is started again, and the step of the flush is done again.
  process.kill(door.system.engines.state().clickhouse.pid!, 'SIGKILL')
  expect(await send(JSON.stringify([{ ...event, id: 'd' }]))).toBe(202)
  while ((await query('releve_engine_restarts_total{engine="clickhouse"} == 1')).length === 0) await sleep(100)
  // A restart is seen as a rise, or its alert would sleep through the first one.
  while ((await query('increase(releve_engine_restarts_total{engine="clickhouse"}[5m]) > 0')).length === 0)
    await sleep(100)

  expect(queries.length).toBeGreaterThan(30)
  for (const expr of queries) await series(expr)
  const text = read('alerts.yml')
  for (const rule of text.split('- alert:').slice(1)) {
    const [, expr = ''] = /^ +expr: (.*)$/m.exec(rule) ?? []
    const selectors = [...expr.matchAll(/\b(?:releve_\w+|up)(?:\{[^}]*\})?/g)].map(([selector]) => selector)
    expect(selectors.length, rule).toBeGreaterThan(0)
    const labels = new Set<string>()
    for (const selector of selectors)
      for (const { metric } of await series(selector)) for (const name of Object.keys(metric)) labels.add(name)
    // What is left of an aggregation is what it is by.
    const [, by] = /\bsum by \(([^)]*)\)/.exec(expr) ?? []
    const left = by === undefined ? (/\bsum\(/.test(expr) ? [] : [...labels]) : by.split(/, */)
    for (const [, name] of rule.matchAll(/\$labels\.(\w+)/g)) {
      expect(left, `${name} of ${rule}`).toContain(name)
      expect([...labels], `${name} of ${rule}`).toContain(name)
    }
  }
})

test('every metric that a rule or a panel names is one that the service has', async () => {
  const text = await openMetrics().registry.metrics()
  const known = new Set([...text.matchAll(/^# TYPE (\S+)/gm)].map(([, name]) => name!))
  const named = [
    ...`${queries.join('\n')}\n${read('alerts.yml')}`.matchAll(/\b(?:releve|nodejs|process)_[a-z0-9_]+/g),
  ].map(([name]) => name.replace(/_(bucket|sum|count)$/, ''))
  expect([...new Set(named)].filter((name) => !known.has(name))).toEqual([])
})

test('promtool: each alert rings when it should and not before', () => {
  const file = join(folder, 'alerts.promtest.yml')
  writeFileSync(file, readFileSync(join(rootDirectory, 'test/monitoring/alerts.promtest.yml')))
  const ran = spawnSync(findProgram('promtool')!, ['test', 'rules', file], { encoding: 'utf8' })
  expect(ran.status, ran.stdout + ran.stderr).toBe(0)
})

test('the dashboard is one that Grafana can lay out: panels in its 24 columns, none over another, every id once', () => {
  const { panels } = dashboard
  expect(dashboard).toMatchObject({ uid: 'releve', title: 'releve' })
  expect(new Set(panels.map(({ id }) => id)).size).toBe(panels.length)
  const overlap = (a: Panel['gridPos'], b: Panel['gridPos']): boolean =>
    a.x < b.x + b.w && b.x < a.x + a.w && a.y < b.y + b.h && b.y < a.y + a.h
  for (const [i, { title, gridPos }] of panels.entries()) {
    expect(gridPos.x + gridPos.w, title).toBeLessThanOrEqual(24)
    expect(
      panels
        .slice(i + 1)
        .filter((other) => overlap(gridPos, other.gridPos))
        .map((p) => p.title),
    ).toEqual([])
  }
  for (const { targets = [] } of panels) expect(new Set(targets.map((t) => t.refId)).size).toBe(targets.length)
})
