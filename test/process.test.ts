/** The command line and the service as processes: what a person or a supervisor meets. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import pg from 'pg'
import { afterAll, expect, test } from 'vitest'
import { rootDirectory } from '../src/paths.js'
import { enginesIn } from './processes.js'

const directory = mkdtempSync(join(tmpdir(), 'releve-process-'))
const children = new Set<ChildProcess>()

afterAll(async () => {
  for (const child of children) child.kill('SIGKILL')
  while (enginesIn(directory).length > 0) await sleep(50)
  rmSync(directory, { recursive: true, force: true })
})

interface Started {
  readonly child: ChildProcess
  out(): string
  err(): string
  readonly ended: Promise<number | null>
}

function start(args: readonly string[], env: Record<string, string> = {}): Started {
  const child = spawn(process.execPath, [join(rootDirectory, 'dist', 'src', 'main.js'), ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: { PATH: process.env.PATH, RELEVE_DATA: directory, RELEVE_PORT: '0', RELEVE_LOG: 'warn', ...env },
  })
  children.add(child)
  let [out, err] = ['', '']
  child.stdout!.setEncoding('utf8').on('data', (text: string) => (out += text))
  child.stderr!.setEncoding('utf8').on('data', (text: string) => (err += text))
  const ended = once(child, 'close').then(([code]) => {
    children.delete(child)
    return code as number | null
  })
  return { child, out: () => out, err: () => err, ended }
}

async function run(args: readonly string[], env: Record<string, string> = {}) {
  const started = start(args, env)
  const code = await started.ended
  return { code, out: started.out(), err: started.err() }
}

async function serve(env: Record<string, string> = {}): Promise<Started & { url: string; authorization: string }> {
  const service = start(['serve'], env)
  const where = env.RELEVE_DATA ?? directory
  while (!service.err().includes('releve is ready')) {
    if (service.child.exitCode !== null) throw new Error(`the service ended instead of starting: ${service.err()}`)
    await sleep(50)
  }
  const { url } = JSON.parse(readFileSync(join(where, 'service.json'), 'utf8')) as { url: string }
  return { ...service, url, authorization: `Bearer ${readFileSync(join(where, 'admin.key'), 'utf8').trim()}` }
}

test('releve --help => what it is and every command; an unknown command or option => exit 2 and where help is', async () => {
  const help = await run(['--help'])
  expect(help.code).toBe(0)
  for (const command of ['serve', 'demo', 'audit', 'rebuild', 'keys'])
    expect(help.out).toMatch(new RegExp(`^  ${command}`, 'm'))
  expect(help.out).toContain('Exit codes')
  for (const args of [['nothing'], ['serve', '--fast'], ['keys', 'create', 'x'], ['keys', 'nothing']]) {
    const wrong = await run(args)
    expect(wrong.code, args.join(' ')).toBe(2)
    expect(wrong.err).toContain('releve --help')
    expect(wrong.out).toBe('')
  }
  expect((await run(['--version'])).out).toMatch(/^\d+\.\d+\.\d+\n$/)
})

test('wrong settings => all of them on stderr and exit 1, nothing is started', async () => {
  const wrong = await run(['serve'], { RELEVE_PORT: 'x', RELEVE_LOG: 'y', RELEVE_DATA: join(directory, 'never') })
  expect(wrong.code).toBe(1)
  expect(wrong.err).toMatch(/2 settings are wrong:\n {2}RELEVE_PORT .*\n {2}RELEVE_LOG /)
  expect(existsSync(join(directory, 'never'))).toBe(false)
})

test('keys without a service => exit 1 and how to run one', async () => {
  const keys = await run(['keys', 'list'])
  expect(keys.code).toBe(1)
  expect(keys.err).toContain('none runs')
})

test('the life of a service: it answers, a second one on its directory gives up, keys and audit reach it, SIGTERM drains it', async () => {
  // No epoch ends by itself in this test, so what is in a checkpoint was drained.
  const service = await serve({ RELEVE_EPOCH_MS: '60000' })
  const call = async (method: string, path: string, body?: unknown): Promise<Response> =>
    fetch(`${service.url}${path}`, {
      method,
      headers: { authorization: service.authorization, 'content-type': 'application/json' },
      ...(body === undefined ? {} : { body: JSON.stringify(body) }),
    })
  expect(await (await fetch(`${service.url}/health/live`)).json()).toEqual({ status: 'live' })
  expect((await fetch(`${service.url}/health/ready`)).status).toBe(200)
  expect(statSync(join(directory, 'admin.key')).mode & 0o777).toBe(0o600)
  expect(statSync(join(directory, 'service.json')).mode & 0o777).toBe(0o600)

  const second = await run(['serve'])
  expect(second.code).toBe(1)
  expect(second.err).toContain(directory)
  expect(second.err).toMatch(/in use|another|already/i)
  expect((await fetch(`${service.url}/health/ready`)).status).toBe(200)

  const made = await run(['keys', 'create', 'reader', '--scopes', 'read', '--json'])
  expect(made.code, made.err).toBe(0)
  const { key, secret } = JSON.parse(made.out)
  expect(secret).toMatch(/^rlv_/)
  const usable = (): Promise<Response> =>
    fetch(`${service.url}/v1/plans`, { headers: { authorization: `Bearer ${secret}` } })
  expect((await usable()).status).toBe(200)
  const list = await run(['keys', 'list', '--json'])
  expect(JSON.parse(list.out).keys.map((k: { name: string }) => k.name)).toContain('reader')
  expect(list.out).not.toContain(secret)
  expect((await run(['keys', 'revoke', key.id])).code).toBe(0)
  expect((await usable()).status).toBe(401)
  expect((await run(['keys', 'revoke', 'nothing'])).code).toBe(4)
  expect((await run(['keys', 'create', 'x', '--scopes', 'admin', '--tenant', 't'])).code).toBe(1)

  await call('PUT', '/v1/metrics-catalog', { key: 'calls', aggregation: 'count', unit: 'call' })
  await call('PUT', '/v1/customers', {
    tenant: 'acme',
    name: 'Acme',
    country: 'CI',
    taxRate: '18',
    currency: 'EUR',
    timeZone: 'UTC',
  })
  const audit = await run(['audit', '--json'])
  expect(audit.code).toBe(0)
  expect(JSON.parse(audit.out).ok).toBe(true)

  const sent = Array.from({ length: 500 }, (_, i) => ({ id: `e${i}`, tenant: 'acme', metric: 'calls' }))
  const answer = await call('POST', '/v1/events', sent)
  expect(answer.status).toBe(202)
  // A stream that never ends by itself must not hold the stop up.
  const stream = await fetch(`${service.url}/v1/alerts/stream`, { headers: { authorization: service.authorization } })
  const reader = stream.body!.getReader()
  // Nor must peers that say nothing, have said all, or say half of it; none of them hangs up by itself.
  const head = `POST /v1/events HTTP/1.1\r\nhost: x\r\nauthorization: ${service.authorization}\r\n`
  const peers = ['', 'GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n', `${head}content-length: 100\r\n\r\n[`, head]
  const { hostname, port } = new URL(service.url)
  const sockets = await Promise.all(
    peers.map(async (said) => {
      const socket = connect({ host: hostname, port: Number(port), allowHalfOpen: true })
      socket.on('error', () => {})
      await once(socket, 'connect')
      if (said !== '') await new Promise((resolve) => socket.write(said, resolve))
      if (said.startsWith('GET')) await once(socket, 'data')
      return socket
    }),
  )
  // Connections are taken in their order: when a later one is answered, what the earlier ones have said is read.
  expect((await fetch(`${service.url}/health/live`, { headers: { connection: 'close' } })).status).toBe(200)
  service.child.kill('SIGTERM')
  expect(await service.ended, service.err()).toBe(0)
  await reader.cancel().catch(() => {})
  for (const socket of sockets) socket.destroy()
  expect(service.err()).toMatch(/"requests":2,"silent":1,"msg":"requests that did not end are cut at the stop"/)
  expect(existsSync(join(directory, 'service.json'))).toBe(false)
  expect(enginesIn(directory)).toEqual([])

  // With no service the audit opens the directory itself; the books it reads are those of the checkpoints.
  const after = await run(['audit', '--json'])
  expect(after.code, after.err).toBe(0)
  const report = JSON.parse(after.out)
  expect(report.ok).toBe(true)
  expect(report.checks.map((c: { detail: string }) => c.detail).join('\n')).toContain(
    'received 500 = stored 500 + refused 0',
  )

  const rebuild = await run(['rebuild', '--dry-run', '--json'])
  expect(rebuild.code, rebuild.err).toBe(0)
  expect(JSON.parse(rebuild.out).tables.map((table: { differences: number }) => table.differences)).toEqual([0, 0, 0])
  expect(enginesIn(directory)).toEqual([])
})

test('a port that is taken => the service says so, ends, and leaves no engine', async () => {
  const other = createServer().listen(0, '127.0.0.1')
  await once(other, 'listening')
  const { port } = other.address() as { port: number }
  try {
    const service = await run(['serve'], { RELEVE_PORT: String(port) })
    expect(service.code).toBe(1)
    expect(service.err).toContain('the port is taken')
    expect(enginesIn(directory)).toEqual([])
  } finally {
    other.close()
  }
})

test('one stream cannot be opened while another already runs => the start fails with the reason, and the process ends', async () => {
  const data = join(directory, 'half-open')
  const env = { RELEVE_DATA: data, RELEVE_STREAMS: '2', RELEVE_EPOCH_MS: '200' }
  const first = await serve(env)
  const { postgres } = JSON.parse(readFileSync(join(data, 'engines.json'), 'utf8')) as {
    postgres: { port: number; user: string; password: string }
  }
  const client = new pg.Client({ host: '127.0.0.1', database: 'postgres', ...postgres })
  await client.connect()
  // Later than the other stream needs to be open.
  await client.query(`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN PERFORM pg_sleep(2); RAISE EXCEPTION 'stream 1 is not to be had'; END $$`)
  await client.query(`CREATE TRIGGER refuse BEFORE UPDATE ON streams FOR EACH ROW
    WHEN (NEW.stream = 1 AND NEW.fence <> OLD.fence) EXECUTE FUNCTION refuse()`)
  await client.end()
  first.child.kill('SIGTERM')
  expect(await first.ended).toBe(0)
  const second = start(['serve'], env)
  expect(await second.ended).toBe(1)
  expect(second.err()).toContain('stream 1 is not to be had')
})
