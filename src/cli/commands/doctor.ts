/**
 * `releve doctor`: what is wrong with this machine, its settings and its data directory, and what to do about it. It looks and
 * changes nothing; a service may run meanwhile, and is asked as well.
 */
import { accessSync, constants, existsSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { createServer } from 'node:net'
import { totalmem } from 'node:os'
import { join } from 'node:path'
import type { ApiKey } from '../../access/keys.js'
import { systemClock } from '../../clock.js'
import { type Config, loadConfig } from '../../config.js'
import { lockDataDirectory } from '../../engines/engines.js'
import { probeClickHouse, probePostgres } from '../../engines/probe.js'
import { openKernel } from '../../kernel.js'
import { probeNats } from '../../nats/probe.js'
import { roomIn } from '../../room.js'
import { serviceOf } from '../call.js'
import { Exit } from '../exit.js'
import { clean, paint, say, sayJson } from '../terminal.js'

export interface Finding {
  readonly check: string
  /** `warn`: it runs, but look at it. */
  readonly state: 'ok' | 'warn' | 'wrong'
  readonly detail: string
  /** Empty when there is nothing to do. */
  readonly todo: string
}

const SOON_MS = 7 * 86_400_000

const ok = (check: string, detail: string): Finding => ({ check, state: 'ok', detail, todo: '' })
const warn = (check: string, detail: string, todo: string): Finding => ({ check, state: 'warn', detail, todo })
const wrong = (check: string, detail: string, todo: string): Finding => ({ check, state: 'wrong', detail, todo })
const gigabytes = (bytes: number): string => `${(bytes / 1e9).toFixed(1)} GB`
const reasonOf = (error: unknown): string => clean(error instanceof Error ? error.message : String(error))

function runtime(): Finding[] {
  // One that is too old does not come so far (main.ts).
  const found: Finding[] = [ok('node', `Node ${process.versions.node}`)]
  const { header } = process.report.getReport() as unknown as { header: { glibcVersionRuntime?: string } }
  const glibc = header.glibcVersionRuntime
  if (process.platform === 'linux' && process.arch === 'x64' && glibc !== undefined)
    found.push(ok('platform', `Linux x86-64, glibc ${glibc}`))
  else
    found.push(
      warn(
        'platform',
        `${process.platform} ${process.arch}, ${glibc === undefined ? 'no glibc' : `glibc ${glibc}`}`,
        'releve is tried on Linux x86-64 with glibc alone; elsewhere use outside engines (CLICKHOUSE_URL, POSTGRES_URL)',
      ),
    )
  found.push(
    openKernel() === null
      ? warn('kernel', 'the WASM kernel was not built: right, but several times slower', 'npm run build')
      : ok('kernel', 'the WASM kernel is there'),
  )
  const memory = totalmem()
  found.push(
    memory < 2e9
      ? warn('memory', `${gigabytes(memory)} of memory`, 'the embedded engines and the ids need about 2 GB')
      : ok('memory', `${gigabytes(memory)} of memory`),
  )
  const files = openFilesMax()
  if (files !== undefined)
    found.push(
      files < 4_096
        ? warn('open files', `at most ${files} open files`, 'ulimit -n 65536, or LimitNOFILE of the unit')
        : ok('open files', `at most ${files} open files`),
    )
  return found
}

function openFilesMax(): number | undefined {
  try {
    const match = /^Max open files\s+(\d+|unlimited)/m.exec(readFileSync('/proc/self/limits', 'utf8'))
    return match?.[1] === 'unlimited' ? Number.POSITIVE_INFINITY : match === null ? undefined : Number(match[1])
  } catch {
    return undefined
  }
}

/** Rights, room and clock of the data directory. */
function directory(config: Config): Finding[] {
  const path = config.dataDirectory
  if (!existsSync(path)) return [ok('data directory', `${path} is not there yet; the first start makes it`)]
  const found: Finding[] = []
  try {
    accessSync(path, constants.R_OK | constants.W_OK | constants.X_OK)
    const { mode, uid } = statSync(path)
    const me = process.getuid?.()
    // The group may pass through and see nothing: so it is where PostgreSQL runs as a user of its own, because this one is root.
    if ((mode & 0o067) !== 0)
      found.push(
        warn('data directory', `${path} is open to others (mode ${(mode & 0o777).toString(8)})`, `chmod 700 ${path}`),
      )
    else if (me !== undefined && uid !== me)
      found.push(
        warn('data directory', `${path} belongs to user ${uid}, this is user ${me}`, 'run the service as its owner'),
      )
    else found.push(ok('data directory', path))
  } catch (error) {
    return [wrong('data directory', `${path}: ${reasonOf(error)}`, 'make it a directory that this user may write to')]
  }
  for (const name of ['admin.key', 'engines.json', 'delivery.key']) {
    const file = join(path, name)
    if (!existsSync(file)) continue
    const { mode, uid } = statSync(file)
    const me = process.getuid?.()
    if ((mode & 0o077) !== 0)
      found.push(
        wrong('secrets', `${file} may be read by others (mode ${(mode & 0o777).toString(8)})`, `chmod 600 ${file}`),
      )
    else if (me !== undefined && uid !== me)
      found.push(wrong('secrets', `${file} belongs to user ${uid}, this is user ${me}`, `chown ${me} ${file}`))
  }
  const room = roomIn(path, config.streams)
  found.push(
    room.state === 'ok'
      ? ok('disk', room.detail)
      : room.state === 'little'
        ? warn('disk', room.detail, 'make room before events are answered 503')
        : wrong(
            'disk',
            room.detail,
            `the log of ${config.streams} stream(s) alone takes ${gigabytes(room.wanted)} before it is cut: make room`,
          ),
  )

  // Records carry the time of this machine; one that runs behind what was written before makes them wait for it.
  const now = systemClock.now()
  const log = join(path, 'log')
  const newest = existsSync(log)
    ? Math.max(
        0,
        ...readdirSync(log, { recursive: true, encoding: 'utf8' }).map((file) => statSync(join(log, file)).mtimeMs),
      )
    : 0
  if (now < Date.UTC(2026, 0, 1))
    found.push(wrong('clock', `it is ${new Date(now).toISOString()}`, 'set the clock (chrony, NTP)'))
  else if (newest > now + 60_000)
    found.push(
      wrong(
        'clock',
        `it is ${new Date(now).toISOString()}, but the log was written until ${new Date(newest).toISOString()}`,
        'set the clock (chrony, NTP): events are judged by it',
      ),
    )
  else found.push(ok('clock', new Date(now).toISOString()))
  return found
}

/** The lock, the running service, the port. */
async function service(config: Config): Promise<Finding[]> {
  const { dataDirectory: path, host, port } = config
  let holder: string | undefined
  if (existsSync(path)) {
    try {
      lockDataDirectory(path).release()
    } catch (error) {
      holder = reasonOf(error)
    }
  }
  if (holder === undefined) {
    const left = serviceOf(path)
    const found: Finding[] = [
      left === undefined
        ? ok('lock', 'no service runs on the data directory')
        : ok('lock', 'no service runs; the last one was killed, and the next start replays the log'),
    ]
    if (port !== 0)
      found.push(
        (await isFree(host, port))
          ? ok('port', `${host}:${port} is free`)
          : wrong(
              'port',
              `${host}:${port} is taken by another program, or cannot be had`,
              'RELEVE_PORT chooses another, 0 any free one',
            ),
      )
    return found
  }
  const running = serviceOf(path)
  if (running === undefined)
    return [warn('lock', holder, 'a service is starting or stopping, or a command works on the directory: wait for it')]
  try {
    const answer = await fetch(`${running.url}/health/ready`, { signal: AbortSignal.timeout(5_000) })
    const { notes } = (await answer.json()) as { notes: readonly string[] }
    const state = `process ${running.pid} serves ${running.url}`
    if (answer.status !== 200)
      return [
        wrong(
          'service',
          `${state} and is not ready: ${notes.map(clean).join('; ')}`,
          'its log on stderr has the cause',
        ),
      ]
    return [
      notes.length === 0
        ? ok('service', `${state} and is ready`)
        : warn(
            'service',
            `${state} and is ready, but: ${notes.map(clean).join('; ')}`,
            'its log on stderr has the cause',
          ),
      ...(await keys(running.url, path)),
    ]
  } catch (error) {
    return [
      wrong(
        'service',
        `${holder}, and does not answer at ${running.url}: ${reasonOf(error)}`,
        'look at its log; end it, and start it again: the log replays',
      ),
    ]
  }
}

/** Keys that have ended by themselves, or will soon: their senders are answered 401. */
async function keys(url: string, path: string): Promise<Finding[]> {
  const file = join(path, 'admin.key')
  if (!existsSync(file)) return []
  const headers = { authorization: `Bearer ${readFileSync(file, 'utf8').trim()}` }
  const answer = await fetch(`${url}/v1/keys`, { headers, signal: AbortSignal.timeout(5_000) })
  if (answer.status === 401)
    return [
      wrong(
        'keys',
        `${file} is not a valid key of the service`,
        'start the service again, which writes it, and look there',
      ),
    ]
  const { keys = [] } = (await answer.json()) as { keys?: readonly ApiKey[] }
  const soon = systemClock.now() + SOON_MS
  const ends = keys.filter(({ revokedAt, expiresAt }) => revokedAt === null && expiresAt !== null && expiresAt <= soon)
  if (ends.length === 0) return [ok('keys', `${keys.length} keys, none ends within a week`)]
  const told = ends.slice(0, 5).map(({ id, name, expiresAt }) => {
    const verb = expiresAt! <= systemClock.now() ? 'ended' : 'ends'
    return `${id} (${clean(name)}) ${verb} ${new Date(expiresAt!).toISOString()}`
  })
  return [warn('keys', told.join('; '), 'releve keys change <id> --expires <time> or --never; releve keys revoke <id>')]
}

function isFree(host: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false))
    server.listen({ host, port, exclusive: true }, () => server.close(() => resolve(true)))
  })
}

async function probe(check: string, todo: string, run: () => Promise<string>): Promise<Finding> {
  try {
    return ok(check, await run())
  } catch (error) {
    return wrong(check, reasonOf(error), todo)
  }
}

export async function examine(): Promise<Finding[]> {
  const found = runtime()
  let config: Config
  try {
    config = loadConfig()
    found.push(ok('settings', 'all settings can be read'))
  } catch (error) {
    const [, ...faults] = (error as Error).message.split('\n')
    for (const fault of faults.filter((line) => line.startsWith('  ')))
      found.push(wrong('settings', fault.trim(), '.env.example explains each setting'))
    return found
  }
  const { nats } = config
  found.push(
    ...directory(config),
    ...(await service(config)),
    await probe('ClickHouse', 'npm install again, or set CLICKHOUSE_URL to a server that answers', () =>
      probeClickHouse(config.clickhouseUrl),
    ),
    await probe('PostgreSQL', 'npm install again, or set POSTGRES_URL to a server that answers', () =>
      probePostgres(config.postgresUrl),
    ),
    ...(nats === undefined
      ? []
      : [
          await probe('NATS', 'start the server, or correct RELEVE_NATS_…; the other doors work without it', () =>
            probeNats(nats),
          ),
        ]),
  )
  return found
}

/** Writes the findings, and says whether nothing is wrong. */
export async function doctorCommand(json: boolean): Promise<number> {
  const findings = await examine()
  const bad = findings.filter(({ state }) => state === 'wrong').length
  const doubtful = findings.filter(({ state }) => state === 'warn').length
  if (json) sayJson({ ok: bad === 0, findings })
  else {
    const mark = { ok: paint('green', 'ok   '), warn: paint('yellow', 'look '), wrong: paint('red', 'WRONG') }
    for (const { check, state, detail, todo } of findings) {
      say(`${mark[state]} ${check.padEnd(15)} ${detail}`)
      if (todo !== '') say(`${' '.repeat(22)}-> ${todo}`)
    }
    say(bad + doubtful === 0 ? 'Nothing is wrong.' : `${bad} wrong, ${doubtful} to look at.`)
  }
  return bad === 0 ? Exit.ok.code : Exit.failed.code
}
