/** The commands that ask a service: the real program against a real service, over real sockets. */
import { execFile, execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Exit } from '../../src/cli/exit.js'
import { buildHttp } from '../../src/http/http.js'
import { rootDirectory } from '../../src/paths.js'
import { crossThreshold, customer, type DoorSystem, openDoorSystem } from '../doors/door-system.js'
import { promises } from '../promises.js'
import { type Run, start } from './binary.js'

let doors: DoorSystem
let env: Record<string, string>
const folder = mkdtempSync(join(tmpdir(), 'releve-cli-'))
const children = new Set<Run>()

beforeAll(async () => {
  doors = await openDoorSystem()
  env = { RELEVE_URL: doors.url, RELEVE_KEY: doors.adminKey }
  const { catalog } = doors.system
  await catalog.putProduct({ key: 'P', name: 'Product' })
  await catalog.putPlan({
    key: 'plan',
    product: 'P',
    name: 'Plan',
    metrics: [{ metric: 'kyc', included: '50', rule: null }],
  })
  await catalog.putLegalEntity({ key: 'seller', name: 'Seller', country: 'CI' })
  for (const [tenant, limit] of [
    ['cli', '1000000'],
    ['over', '10'],
  ] as const) {
    await catalog.putCustomer(customer(tenant))
    await catalog.putContract({
      id: `contract-${tenant}`,
      tenant,
      legalEntity: 'seller',
      start: '2026-01-01',
      timeZone: 'Africa/Abidjan',
      items: [{ id: `item-${tenant}`, plan: 'plan', entitlements: [{ metric: 'kyc', limit }] }],
    })
  }
  await doors.system.catalogSettled()
})

afterAll(async () => {
  for (const { child } of children) child.kill('SIGKILL')
  await doors?.close()
  rmSync(folder, { recursive: true, force: true })
})

interface Ended {
  readonly code: number | null
  readonly out: string
  readonly err: string
}

async function run(args: readonly string[], more: Record<string, string> = {}, input?: string): Promise<Ended> {
  const started = start(args, { ...env, ...more }, input ?? '')
  children.add(started)
  const code = await started.ended
  children.delete(started)
  return { code, out: started.out(), err: started.err() }
}

const json = async <T = Record<string, unknown>>(args: readonly string[], code = 0, input?: string): Promise<T> => {
  const ended = await run([...args, '--json'], {}, input)
  expect(ended.code, ended.err + ended.out).toBe(code)
  return JSON.parse(ended.out) as T
}

const file = (name: string, text: string): string => {
  const path = join(folder, name)
  writeFileSync(path, text)
  return path
}

const lines = (count: number, prefix: string, over: Record<string, unknown> = {}): string[] =>
  Array.from({ length: count }, (_, i) =>
    JSON.stringify({ id: `${prefix}${i}`, tenant: 'cli', metric: 'kyc', ...over }),
  )

const total = async (tenant: string): Promise<string> => {
  await doors.system.settle()
  const { windows } = await json<{ windows: { count: string }[] }>(['usage', 'kyc', '--tenant', tenant])
  return windows[0]?.count ?? '0'
}

test('the exit codes => one table, in help, in README and as it is in force', async () => {
  const help = await run(['help', 'exit-codes'])
  expect(help.code).toBe(0)
  expect((await run(['exit-codes'])).out).toBe(help.out)
  const readme = readFileSync(join(rootDirectory, 'README.md'), 'utf8')
  for (const { code, when } of Object.values(Exit)) {
    expect(help.out).toContain(`  ${code}  ${when}\n`)
    expect(readme).toContain(`| ${code} | ${when} |`)
  }
})

test('a file of NDJSON in batches => each event once, however often it is sent; progress on stderr, the summary on stdout', async () => {
  const path = file('good.ndjson', `\n${lines(2_500, 'a').join('\n\n')}\n  \n`)
  expect(await json(['events', 'send', path, '--batch', '400', '--concurrency', '3'])).toEqual({
    sent: 2_500,
    stored: 2_500,
    refused: 0,
    accepted: 2_500,
    duplicate: 0,
    conflict: 0,
    refusals: {},
    batches: 7,
    retries: 0,
    complete: true,
  })
  const again = await run(['events', 'send', path])
  expect(again.code).toBe(0)
  expect(again.out).toBe('2500 events sent, 2500 stored: 0 counted, 2500 known already, 0 in conflict\n')
  expect(again.err).toMatch(/^2500 events sent, 0 refused, \d+ events\/s$/m)
  expect(await total('cli')).toBe('2500')
})

test('CSV from stdin, with its first line before each batch; without waiting no verdicts are told', async () => {
  const rows = Array.from({ length: 25 }, (_, i) => `c${i};cli;kyc;2;ci`)
  const csv = `id;tenant;metric;value;dims.region\r\n${rows.join('\r\n')}\r\n`
  expect(await json(['events', 'send', '-', '--format', 'csv', '--batch', '10'], 0, csv)).toMatchObject({
    sent: 25,
    accepted: 25,
    batches: 3,
  })
  const ended = await run(['events', 'send', file('again.CSV', csv), '--no-wait'])
  expect([ended.code, ended.out]).toEqual([0, '25 events sent, 25 stored\n'])
})

test('some events refused => exit 7, their lines and reasons on stderr, counted by reason', async () => {
  const input = [
    ...lines(3, 'b'),
    '',
    '{"id":"x","tenant":"cli","metric":"none"}',
    '{"id":',
    ...lines(1, 'a', { value: '99' }),
  ].join('\n')
  const ended = await run(['events', 'send', '--batch', '2'], {}, input)
  expect(ended.code).toBe(7)
  expect(ended.err).toContain('line 5: unknown_metric: metric "none" is not in the catalogue (id x)')
  expect(ended.err).toContain('line 6: malformed:')
  expect(ended.out).toContain('6 events sent, 4 stored: 3 counted, 0 known already, 1 in conflict\n2 refused: 1 ')
  expect(await json(['events', 'send'], 7, input)).toMatchObject({
    refused: 2,
    conflict: 1,
    duplicate: 3,
    refusals: { unknown_metric: 1, malformed: 1 },
  })
  // Nothing stored is still an answer with verdicts.
  expect(await json(['events', 'send'], 7, '{"id":"x","tenant":"cli","metric":"none"}')).toMatchObject({ refused: 1 })
  // What a stranger wrote does not steer the terminal.
  const sly = await run(['events', 'send'], {}, '{"id":"\\u001b[2J","tenant":"cli","metric":"none"}')
  expect(sly.err).not.toContain('\u001b')
})

test(`a service that says 429 => the batch is sent again when it says, and nothing is lost ${promises('system:bounded')}`, async () => {
  const made = await json<{ key: { id: string }; secret: string }>([
    ...['keys', 'create', 'slow', '--scopes', 'ingest', '--tenant', 'cli'],
    ...['--requests-per-second', '2', '--events-per-second', '100000', '--bytes-per-second', '1000000'],
  ])
  const ended = await run(
    ['events', 'send', '--batch', '10', '--concurrency', '8', '--json', '--key', made.secret],
    {},
    lines(60, 'd').join('\n'),
  )
  expect(ended.code, ended.err).toBe(0)
  const summary = JSON.parse(ended.out)
  expect(summary).toMatchObject({ sent: 60, accepted: 60, complete: true })
  expect(summary.retries).toBeGreaterThan(0)
  expect(ended.err).toContain('again: requests: this key may send 2 a second')
  // Without retries it ends, says so, and what was sent is told.
  const impatient = await run(
    ['events', 'send', '--batch', '1', '--retries', '0', '--key', made.secret],
    {},
    lines(60, 'd').join('\n'),
  )
  expect(impatient.code).toBe(1)
  expect(impatient.err).toContain('Send the same file again')
  expect(impatient.out).toMatch(/^\d+ events sent/)
})

test('a large input => never more than a few batches in memory', async () => {
  // Lines of 10 KB that are refused, 120 MB of them.
  const started = start(['events', 'send', '--json'], env)
  children.add(started)
  const line = `{"id":"x","tenant":"cli","metric":"none","pad":"${'p'.repeat(10_000)}"}\n`
  const block = line.repeat(100)
  for (let i = 0; i < 120; i += 1) {
    if (!started.child.stdin!.write(block)) await new Promise((resolve) => started.child.stdin!.once('drain', resolve))
  }
  const peak = /^VmHWM:\s+(\d+) kB/m.exec(readFileSync(`/proc/${started.child.pid}/status`, 'utf8'))
  started.child.stdin!.end()
  expect(await started.ended, started.err().slice(-500)).toBe(7)
  children.delete(started)
  expect(JSON.parse(started.out())).toMatchObject({ sent: 12_000, refused: 12_000 })
  // The program alone takes about 110 MB, and 4 batches of up to 8 MiB are under way.
  expect(Number(peak![1]) / 1024).toBeLessThan(320)
})

test('no service, a wrong key, a missing scope, a wrong command line => 1, 3, 3, 2, and each says what to do', async () => {
  const away = await run(['usage', 'kyc', '--url', 'http://127.0.0.1:9'])
  expect(away.code).toBe(1)
  expect(away.err).toContain('cannot reach the service at http://127.0.0.1:9: ')
  const none = await run(['usage', 'kyc'], { RELEVE_KEY: '' })
  expect([none.code, none.err]).toEqual([3, 'there is no key: give --key-file, RELEVE_KEY_FILE or RELEVE_KEY\n'])
  expect((await run(['usage', 'kyc', '--key', 'rlv_wrong'])).code).toBe(3)
  const key = file('acme.key', `${doors.acmeKey}\n`)
  expect((await run(['keys', 'list', '--key-file', key])).code).toBe(3)
  expect((await run(['keys', 'list'], { RELEVE_KEY: '', RELEVE_KEY_FILE: key })).code).toBe(3)
  expect((await run(['usage', 'kyc', '--tenant', 'cli', '--key-file', key])).code).toBe(3)
  expect((await run(['usage', 'kyc', '--key-file', join(folder, 'none')])).err).toContain('cannot read the key')
  expect((await run(['usage', 'none', '--tenant', 'cli'])).code).toBe(4)
  for (const wrong of [
    ['events', 'send', '--batch', '0'],
    ['events', 'send', '--format', 'xml'],
    ['quota'],
    ['quota', 'cli', '--interval', '0'],
    ['keys', 'rotate', 'x', '--overlap', 'long'],
    ['completion', 'fish'],
    ['usage', 'kyc', '--dim', 'x'],
  ])
    expect((await run(wrong)).code, wrong.join(' ')).toBe(2)
})

test('usage => a table of windows and groups, or the answer as it is', async () => {
  await doors.system.settle()
  const text = await run([
    'usage',
    'kyc',
    '--tenant',
    'cli',
    '--window',
    'day',
    '--group-by',
    'region',
    '--dim',
    'region=ci',
  ])
  expect(text.code, text.err).toBe(0)
  const [head, row] = text.out.split('\n')
  expect(head).toMatch(/^FROM +REGION +DOCUMENT +EVENTS$/)
  expect(row).toMatch(/^\d{4}-\d\d-\d\dT00:00:00Z +ci +50 +25$/)
  expect(text.out).toMatch(/sum, as of epoch \d+ of stream \d/)
})

test('quota => where it stands; --fail-over => 6 when over; --watch reads again', async () => {
  await run(['events', 'send'], {}, lines(12, 'o', { tenant: 'over' }).join('\n'))
  const { quotas } = await json<{ quotas: { usage: string; status: string }[] }>(['quota', 'over'])
  expect(quotas).toMatchObject([
    { metric: 'kyc', usage: '12', limit: '10', percent: '120.0', overage: '2', status: 'over' },
  ])
  const text = await run(['quota', 'over', '--fail-over'])
  expect(text.code).toBe(6)
  expect(text.out).toMatch(/^Product|PRODUCT +METRIC +USED +LIMIT/)
  expect(text.out).toMatch(/kyc +12 +10 +120.0 +2 +\d+ ms +#{20}\n1 of 1 over their limit\n$/)
  expect((await run(['quota', 'cli', '--fail-over'])).code).toBe(0)
  expect((await run(['quota', 'cli'])).out).toMatch(/kyc +\d+ +1000000 /)
  expect((await run(['quota', 'cli', '--compact'])).out).toMatch(/kyc +[\d.]+k +1M /)
  const watched = await run(['quota', 'over', '--watch', '--interval', '0.2', '--count', '3', '--json'])
  expect(watched.code).toBe(0)
  expect(
    watched.out
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line).tenant),
  ).toEqual(['over', 'over', 'over'])
  // Without a terminal neither colour nor cursor.
  const plain = await run(['quota', 'over', '--watch', '--interval', '0.2', '--count', '2'])
  expect(plain.out).not.toContain('\u001b')
  expect(plain.out.match(/over their limit/g)).toHaveLength(2)
})

test('a terminal => colour, but not with NO_COLOR', async () => {
  const shown = async (more: Record<string, string>): Promise<string> => {
    const command = `${process.execPath} ${join(rootDirectory, 'dist/src/main.js')} quota over`
    const { stdout } = await promisify(execFile)('script', ['-qec', command, '/dev/null'], {
      env: { PATH: process.env.PATH, TERM: 'xterm-256color', ...env, ...more },
    })
    return stdout
  }
  expect(await shown({})).toContain('\u001b[31m')
  expect(await shown({ NO_COLOR: '1' })).not.toContain('\u001b[')
})

test('keys => made, limited, rotated and revoked; a secret stands alone on stdout', async () => {
  const made = await run([
    'keys',
    'create',
    'gw',
    '--scopes',
    'ingest,read',
    '--tenant',
    'cli',
    '--expires',
    '2100-01-01T00:00:00Z',
  ])
  expect(made.code, made.err).toBe(0)
  expect(made.out).toMatch(/^rlv_[0-9a-f]{12}_[\w-]{32}\n$/)
  const id = made.out.slice(4, 16)
  expect(made.err).toContain(`key ${id}, cli, ingest read`)
  const use = async (secret: string): Promise<number | null> =>
    (await run(['quota', 'cli', '--key', secret.trim()])).code
  expect(await use(made.out)).toBe(0)
  const limited = await run(['keys', 'change', id, '--events-per-second', '5', '--never'])
  expect(limited.out).toBe(`key ${id}: valid, expires -, limits events 5/s\n`)
  expect((await run(['keys', 'change', id, '--no-limits'])).out).toContain('limits -')
  const turned = await run(['keys', 'rotate', id, '--overlap', '3600'])
  expect(turned.err).toContain('the secret before it is valid until ')
  expect([await use(made.out), await use(turned.out)]).toEqual([0, 0])
  const now = await run(['keys', 'rotate', id, '--overlap', '0'])
  expect([await use(made.out), await use(turned.out), await use(now.out)]).toEqual([3, 3, 0])
  expect((await run(['keys', 'list'])).out).toMatch(new RegExp(`^${id}  gw +cli +ingest read +valid`, 'm'))
  expect((await run(['keys', 'revoke', id])).out).toContain(`key ${id}: revoked `)
  expect(await use(now.out)).toBe(3)
  expect((await run(['keys', 'rotate', id])).code).toBe(5)
  expect((await run(['keys', 'revoke', 'nothing'])).code).toBe(4)
})

test('rates => set, listed page after page, taken away; who is meant must be said', async () => {
  const none = await run(['rates', 'list'])
  expect([none.code, none.out]).toEqual([0, 'TENANT         RATES\n(every other)  -\n'])
  const set = await run(['rates', 'set', 'cli', '--events-per-second', '5', '--bytes-per-second', '900000000'])
  expect([set.code, set.out]).toEqual([0, 'cli: events 5/s, bytes 900000000/s\n'])
  expect(doors.system.rates.view('cli').limits).toEqual({ eventsPerSecond: 5, bytesPerSecond: 900_000_000 })
  // All of them are replaced.
  expect((await run(['rates', 'set', 'cli', '--requests-per-second', '7'])).out).toBe('cli: requests 7/s\n')
  expect((await run(['rates', 'set', '--default', '--events-per-second', '3'])).out).toBe(
    'every tenant without its own: events 3/s\n',
  )
  // More than a page holds, some of them with names that steer a terminal or look like something else.
  const many = [
    ...Array.from({ length: 1_001 }, (_, i) => `many-${String(i).padStart(4, '0')}`),
    'a b/é?&',
    '\u001b[2J',
  ]
  for (const tenant of many) await doors.system.rates.set(tenant, { eventsPerSecond: 1 })
  const { default: others, tenants } = await json<{ default: object; tenants: { tenant: string }[] }>(['rates', 'list'])
  expect(others).toEqual({ eventsPerSecond: 3 })
  expect(tenants.map(({ tenant }) => tenant).sort()).toEqual([...many, 'cli'].sort())
  const listed = await run(['rates', 'list'])
  expect(listed.out).toMatch(/^cli {2,}requests 7\/s$/m)
  expect(listed.out).toMatch(/^\(every other\) {2,}events 3\/s$/m)
  expect(listed.out).not.toContain('\u001b')
  expect((await run(['rates', 'delete', '\u001b[2J'])).out).toBe('·[2J: none of its own\n')
  for (const tenant of many) await doors.system.rates.set(tenant, {})

  for (const wrong of [
    ['set', '--events-per-second', '5'],
    ['set', '', '--events-per-second', '5'],
    ['set', 'cli', '--default', '--events-per-second', '5'],
    ['set', 'cli'],
    ['set', 'cli', '--events-per-second', '0'],
    ['set', 'cli', '--events-per-second', '1.5'],
    ['delete'],
    ['delete', ''],
    ['delete', 'cli', '--default'],
  ]) {
    const ended = await run(['rates', ...wrong])
    expect([ended.code, ended.out], wrong.join(' ')).toEqual([2, ''])
  }
  expect((await run(['rates', 'list', '--key', doors.acmeKey])).code).toBe(3)
  expect((await run(['rates', 'delete', 'cli', '--key', doors.acmeKey])).code).toBe(3)
  expect(doors.system.rates.view('cli')).toMatchObject({ limits: { requestsPerSecond: 7 }, isDefault: false })
  expect((await run(['rates', 'delete', 'cli'])).out).toBe('cli: none of its own\n')
  expect(doors.system.rates.view('cli')).toMatchObject({ limits: { eventsPerSecond: 3 }, isDefault: true })
  expect((await run(['rates', 'delete', '--default'])).out).toBe('every tenant without its own: none\n')
  expect((await run(['rates', 'list'])).out).toBe(none.out)
})

test('rejects => listed, exported, mended by another program, sent again', async () => {
  const bad = lines(3, 'r', { metric: 'kcy', tenant: 'banque' })
  await run(['events', 'send'], {}, bad.join('\n'))
  await doors.system.settle()
  const page = await json<{ rejects: { id: string }[]; next: string }>([
    'rejects',
    'list',
    '--tenant',
    'banque',
    '--limit',
    '2',
  ])
  expect(page.rejects).toHaveLength(2)
  const rest = await run(['rejects', 'list', '--tenant', 'banque', '--after', page.next])
  expect(rest.out).toMatch(
    /^REJECT +RECEIVED +TENANT +CODE +ID +STATE +WHY\n\S+ +\S+ +banque +unknown_metric +r0 +open +metric "kcy"/,
  )

  const exported = join(folder, 'rejects.ndjson')
  expect((await run(['rejects', 'export', '--tenant', 'banque', '--output', exported])).code).toBe(0)
  const mended = readFileSync(exported, 'utf8').replaceAll('"kcy"', '"kyc"')
  const sent = await run(['rejects', 'resend'], {}, mended)
  expect([sent.code, sent.out]).toEqual([0, '3 sent again, 3 accepted\n'])
  expect((await run(['rejects', 'resend', file('mended.ndjson', mended)])).out).toBe('0 sent again, 3 already\n')
  const csv = await run(['rejects', 'export', '--tenant', 'banque', '--format', 'csv', '--state', 'resent'])
  expect(csv.out.split('\r\n')).toHaveLength(5)

  await run(['events', 'send'], {}, lines(1, 's', { metric: 'kcy', tenant: 'banque' }).join('\n'))
  await doors.system.settle()
  const still = await run(['rejects', 'export', '--tenant', 'banque', '--state', 'open'])
  const refused = await run(['rejects', 'resend'], {}, still.out)
  expect(refused.code).toBe(7)
  expect(refused.err).toContain('refused unknown_metric metric')
})

test('a reader that leaves before the end, of a list, an export, help or progress => no fault; a disk that is full => 1 and why', async () => {
  await run(['events', 'send'], {}, lines(2_000, 'p', { metric: 'kcy', tenant: 'banque' }).join('\n'))
  await doors.system.settle()
  const binary = join(rootDirectory, 'dist', 'src', 'main.js')
  const shell = (command: string): Promise<{ stdout: string; stderr: string }> =>
    promisify(execFile)(
      'bash',
      ['--norc', '-o', 'pipefail', '-c', command.replaceAll('RELEVE', `${process.execPath} ${binary}`)],
      {
        env: { PATH: process.env.PATH, ...env },
      },
    )
  // `true` reads nothing at all, so that the first write finds nobody.
  for (const command of [
    'rejects list --limit 1000',
    'rejects list --limit 1000 --json',
    'rejects export',
    'rejects export --format csv',
    'quota cli --watch --interval 0.05',
    '--help',
  ])
    for (const reader of ['true', 'head -1'])
      expect((await shell(`RELEVE ${command} | ${reader}`)).stderr, `${command} | ${reader}`).not.toMatch(/EPIPE|at /)
  // What changes something is done to its end, and says how it went by its code.
  const more = file('left.ndjson', lines(3_000, 'left', { tenant: 'acme' }).join('\n'))
  await shell(`RELEVE events send ${more} --batch 100 2>&1 | true`)
  const { accepted, duplicate } = await json(['events', 'send', more])
  expect([accepted, duplicate]).toEqual([0, 3_000])
  for (const command of ['rejects export', 'keys list --json', 'exit-codes'])
    await expect(shell(`RELEVE ${command} > /dev/full`), command).rejects.toMatchObject({
      code: 1,
      stderr: expect.stringMatching(/^cannot write the output: ENOSPC[^\n]*\n$/m),
    })
})

test(`alerts tail => each alert once, also those of the time while the service was away ${promises('alert:once-per-crossing')}`, async () => {
  const cross = (threshold: string): Promise<void> => crossThreshold(doors, threshold)
  // The service's door alone goes away and comes back, on the same port.
  const { port } = new URL(doors.url)
  let app = await buildHttp(doors.system)
  const open = async (to: number): Promise<string> => app.listen({ host: '127.0.0.1', port: to })
  const url = await open(0)
  expect(new URL(url).port).not.toBe(port)
  const tail = start(['alerts', 'tail', '--tenant', 'acme', '--count', '4', '--json', '--url', url], env)
  children.add(tail)
  const until = async (question: () => boolean): Promise<void> => {
    while (!question()) {
      if (tail.child.exitCode !== null) throw new Error(`the tail ended: ${tail.err()}`)
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }
  await until(() => tail.err().includes('following'))
  await cross('60')
  await until(() => tail.out().includes('"60"'))
  await app.close()
  await cross('70')
  await until(() => tail.err().includes('again in a moment'))
  await cross('80')
  app = await buildHttp(doors.system)
  await open(Number(new URL(url).port))
  await until(() => tail.out().includes('"80"'))
  await cross('90')
  expect(await tail.ended).toBe(0)
  children.delete(tail)
  await app.close()
  const printed = tail
    .out()
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
  expect(printed.map(({ threshold }) => threshold)).toEqual(['60', '70', '80', '90'])

  const all = await run(['alerts', 'tail', '--tenant', 'acme', '--after', '0', '--count', '4'])
  expect(
    all.out
      .split('\n')
      .slice(0, 4)
      .every((line) => /triggered {2}acme {2}kyc {2}\d\d {2}at 9 of 10/.test(line)),
  ).toBe(true)
  const { alerts } = await json<{ alerts: { threshold: string }[] }>([
    'alerts',
    'list',
    '--tenant',
    'acme',
    '--limit',
    '2',
  ])
  expect(alerts.map(({ threshold }) => threshold)).toEqual(['60', '70'])
  expect((await run(['alerts', 'tail', '--key', 'rlv_wrong'])).code).toBe(3)
  expect((await run(['alerts', 'tail', '--url', 'http://127.0.0.1:9'])).code).toBe(1)
})

test('completion => the shell proposes commands, subcommands and options; the one for zsh is the same function', async () => {
  const bash = await run(['completion', 'bash'])
  const script = file('completion.bash', bash.out)
  const proposed = (...words: string[]): string[] =>
    execFileSync(
      'bash',
      [
        '-c',
        `source ${script}; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _releve; printf '%s\\n' "\${COMPREPLY[@]}"`,
        'x',
        'ods-billing',
        ...words,
      ],
      { encoding: 'utf8', cwd: folder },
    )
      .trim()
      .split('\n')
  expect(proposed('ev')).toEqual(['events'])
  expect(proposed('events', '')).toEqual(['send', '--help'])
  expect(proposed('keys', 'ro')).toEqual(['rotate'])
  expect(proposed('keys', 'create', 'name', '--sc')).toEqual(['--scopes'])
  expect(proposed('quota', 'acme', '--wa')).toEqual(['--watch'])
  expect(proposed('events', 'send', 'goo')).toEqual(['good.ndjson'])
  const zsh = await run(['completion', 'zsh'])
  expect(zsh.out).toContain('bashcompinit')
  expect(zsh.out).toContain(bash.out.slice(bash.out.indexOf('_releve()')))
})
