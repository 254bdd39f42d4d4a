/** The doctor: what is wrong with a machine and a data directory is named, with what to do; it changes nothing. */
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import type { Finding } from '../../src/cli/commands/doctor.js'
import { freePort, NatsServer } from '../nats/server.js'
import { start } from './binary.js'

const root = mkdtempSync(join(tmpdir(), 'releve-doctor-'))
afterAll(() => rmSync(root, { recursive: true, force: true }))

interface Report {
  readonly code: number | null
  readonly ok: boolean
  readonly of: Record<string, Finding>
}

async function examine(env: Record<string, string>): Promise<Report> {
  const doctor = start(['doctor', '--json'], { RELEVE_PORT: '0', ...env }, '')
  const code = await doctor.ended
  expect(doctor.err()).toBe('')
  const { ok, findings } = JSON.parse(doctor.out()) as { ok: boolean; findings: Finding[] }
  for (const { state, todo, check } of findings) expect(todo !== '', check).toBe(state !== 'ok')
  return { code, ok, of: Object.fromEntries(findings.map((finding) => [finding.check, finding])) }
}

const directory = (name: string): string => {
  const path = join(root, name)
  mkdirSync(path, { mode: 0o700 })
  return path
}

test('nothing is wrong => 0, and a directory that is not there is not made', async () => {
  const path = join(root, 'fresh')
  const report = await examine({ RELEVE_DATA: path })
  expect([report.code, report.ok]).toEqual([0, true])
  expect(report.of).toMatchObject({
    node: { state: 'ok', detail: `Node ${process.versions.node}` },
    settings: { state: 'ok' },
    'data directory': { state: 'ok' },
    lock: { state: 'ok' },
    ClickHouse: { state: 'ok', detail: expect.stringMatching(/^embedded \d/) },
    PostgreSQL: { state: 'ok', detail: expect.stringMatching(/^embedded 18/) },
  })
  expect(existsSync(path)).toBe(false)
  const text = start(['doctor'], { RELEVE_DATA: path, RELEVE_PORT: '0' }, '')
  expect(await text.ended).toBe(0)
  expect(text.out()).toMatch(/^ok {4}node {12}Node /)
})

test('wrong settings => each named, exit 1', async () => {
  const doctor = start(['doctor', '--json'], { RELEVE_PORT: 'x', RELEVE_LOG: 'y' }, '')
  expect(await doctor.ended).toBe(1)
  const { findings } = JSON.parse(doctor.out()) as { findings: Finding[] }
  const faults = findings.filter(({ check }) => check === 'settings')
  expect(faults.map(({ detail }) => detail.split(' ')[0])).toEqual(['RELEVE_PORT', 'RELEVE_LOG'])
})

test('secrets open to others, a directory open to others, a clock that went back => told, with the command', async () => {
  const path = directory('open')
  chmodSync(path, 0o755)
  writeFileSync(join(path, 'admin.key'), 'x', { mode: 0o644 })
  chmodSync(join(path, 'admin.key'), 0o644)
  mkdirSync(join(path, 'log'))
  writeFileSync(join(path, 'log', 'segment'), '')
  const tomorrow = new Date(Date.now() + 86_400_000)
  utimesSync(join(path, 'log', 'segment'), tomorrow, tomorrow)
  const report = await examine({ RELEVE_DATA: path })
  expect(report.code).toBe(1)
  expect(report.of).toMatchObject({
    'data directory': { state: 'warn', todo: `chmod 700 ${path}` },
    secrets: { state: 'wrong', todo: `chmod 600 ${join(path, 'admin.key')}` },
    clock: { state: 'wrong' },
  })
})

test('a path that is no directory, a port that is taken, engines and a NATS server that do not answer => told', async () => {
  const path = join(root, 'plain-file')
  writeFileSync(path, '')
  const taken = createServer().listen(0, '127.0.0.1')
  await new Promise((resolve) => taken.once('listening', resolve))
  const { port } = taken.address() as { port: number }
  try {
    const report = await examine({
      RELEVE_DATA: directory('engines'),
      RELEVE_PORT: String(port),
      CLICKHOUSE_URL: 'http://127.0.0.1:9/x',
      POSTGRES_URL: 'postgres://u:s3cret@127.0.0.1:9/x',
      RELEVE_NATS_URL: 'nats://127.0.0.1:9',
    })
    expect(report.code).toBe(1)
    expect(report.of).toMatchObject({
      port: { state: 'wrong', detail: expect.stringContaining(String(port)) },
      ClickHouse: { state: 'wrong' },
      PostgreSQL: { state: 'wrong' },
      NATS: { state: 'wrong' },
    })
    expect(JSON.stringify(report)).not.toContain('s3cret')
  } finally {
    taken.close()
  }
  expect((await examine({ RELEVE_DATA: path })).of['data directory']).toMatchObject({ state: 'wrong' })
})

test('a NATS server => its version, and what its stream has otherwise', async () => {
  const server = new NatsServer(await freePort())
  try {
    await server.start()
    const env = { RELEVE_DATA: join(root, 'nats'), RELEVE_NATS_URL: server.url }
    expect((await examine(env)).of.NATS).toMatchObject({
      state: 'ok',
      detail: expect.stringMatching(/^nats-server \d.*will be made$/),
    })
    await server.kill()
    await server.start('', false)
    expect((await examine(env)).of.NATS).toMatchObject({ state: 'wrong', detail: expect.stringContaining('JetStream') })
  } finally {
    await server.close()
  }
})

test('a service that runs => it is asked, and its port is not called taken', async () => {
  const path = directory('running')
  const service = start(['serve'], { RELEVE_DATA: path, RELEVE_PORT: '0', RELEVE_LOG: 'error' })
  try {
    while (!service.err().includes('releve is ready')) await new Promise((resolve) => setTimeout(resolve, 50))
    const report = await examine({ RELEVE_DATA: path })
    expect([report.code, report.of.service?.state], JSON.stringify(report)).toEqual([0, 'ok'])
    expect(report.of.service!.detail).toContain(`process ${service.child.pid} serves http://127.0.0.1:`)
    expect(report.of.port).toBeUndefined()
  } finally {
    service.child.kill('SIGTERM')
    await service.ended
  }
  expect((await examine({ RELEVE_DATA: path })).of.lock).toMatchObject({ state: 'ok' })
})
