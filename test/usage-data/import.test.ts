/** Files of usage data on real engines: writing, journal, refusals, dry run, the same file again, killed in the middle, the CLI. */
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { gzipSync } from 'node:zlib'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { openCatalog } from '../../src/catalog/catalog.js'
import { loadSeeds, seedContracts } from '../../src/catalog/seeds.js'
import { serviceFile } from '../../src/cli/call.js'
import { limits } from '../../src/limits.js'
import { silentLogger } from '../../src/logger.js'
import { Imports } from '../../src/usage-data/import.js'
import { openTestPostgres } from '../invoicing/postgres.js'
import { promises } from '../promises.js'
import { type Fleet, fleetContract, openFleet } from './fleet.js'

const importer = fileURLToPath(new URL('./importer.js', import.meta.url))
let fleet: Fleet
beforeAll(async () => {
  fleet = await openFleet()
}, 180_000)
afterAll(async () => fleet?.close())

async function send(body: Buffer | string, query: Record<string, string> = {}, key = fleet.adminKey, headers = {}) {
  const answer = await fleet.app.inject({
    method: 'POST',
    url: `/v1/usage-data-imports?${new URLSearchParams({ wait: 'true', ...query })}`,
    headers: { authorization: `Bearer ${key}`, 'content-type': 'text/csv', ...headers },
    payload: body,
  })
  return { status: answer.statusCode, ...answer.json() }
}
const rowsOf = async (id: string) => {
  const { rows } = await fleet.system.engines.postgres.query(
    `SELECT item, external_reference AS reference, starts_at, value::text AS value, data, qualifier, notes, state, do_not_invoice AS blocked
     FROM usage_data WHERE import = $1 ORDER BY serial`,
    [id],
  )
  return rows
}

test('a file of a French spreadsheet, in each of its encodings => the same rows', async () => {
  const text = [
    'Contrat;Article;Référence externe;Début;Valeur;Unité;Ne pas facturer;Notes;État',
    'flotte-iot;IOT_NS542;A-1;14/04/2022;1 234,50;mesures;non;"relevé du 14 avril; signé\nà la main";en attente',
    'flotte-iot;;A-2;2022-04-15 08:30;-0,5;;oui;;brouillon',
    '',
  ].join('\r\n')
  const utf16 = Buffer.from(`\ufeff${text}`, 'utf16le')
  const files: [string, Buffer][] = [
    ['utf-8', Buffer.from(text)],
    ['utf-8', Buffer.from(`\ufeff${text}`)],
    ['utf-16le', utf16],
    ['utf-16be', Buffer.from(utf16).swap16()],
    ['windows-1252', Buffer.from(text, 'latin1')],
  ]
  for (const [encoding, file] of files) {
    const report = await send(file)
    expect(report).toMatchObject({
      status: 200,
      state: 'done',
      rowsRead: 2,
      rowsTaken: 2,
      rowsRefused: 0,
      writing: { encoding, separator: ';', decimalComma: true },
    })
    expect(await rowsOf(report.id)).toEqual([
      {
        item: 'IOT_NS542',
        reference: 'A-1',
        starts_at: Date.UTC(2022, 3, 14),
        value: '1234.5',
        data: null,
        qualifier: 'mesures',
        notes: 'relevé du 14 avril; signé\nà la main',
        state: 'pending',
        blocked: false,
      },
      {
        item: null,
        reference: 'A-2',
        starts_at: Date.UTC(2022, 3, 15, 8, 30),
        value: '-0.5',
        data: null,
        qualifier: null,
        notes: null,
        state: 'draft',
        blocked: true,
      },
    ])
    // Taken back, so that the next encoding is not known already.
    expect(await fleet.ask('POST', `/v1/usage-data-imports/${report.id}/undo`)).toMatchObject({ state: 'undone' })
    expect(await rowsOf(report.id)).toEqual([])
  }
})

test(`a bad row costs itself alone, and is in the journal with its line and reason ${promises('ingest:verdict-per-event')}`, async () => {
  const file = [
    'contract,start,value,data.cpu,data,external_reference',
    'flotte-iot,2022-04-14,12,,,B-1',
    'nobody,2022-04-14,12,,,B-2',
    'flotte-iot,2022-04-31,12,,,B-3',
    '"flotte-iot",2022-04-14,"12,5",,,B-4',
    'flotte-iot,2022-04-14,12',
    '"flotte-iot"x,2022-04-14,12,,,B-5',
    'flotte-iot,2022-04-14,,8,,B-6',
    'flotte-iot,2022-04-14,13,,,B-1',
    'flotte-iot,2022-04-14,12,,,B-1',
    '=cmd|x,2022-04-14,1,,,B-7',
    'flotte-iot,2022-04-14,99999999999999999999999999999999,,,B-8',
  ].join('\n')
  expect((await send(file)).reason).toContain('data is there twice')
  const fixed = file.replace('data.cpu,data,', 'data.cpu,data.ram,')
  const report = await send(fixed)
  expect(report).toMatchObject({ state: 'done', rowsTaken: 2, rowsKnown: 1, rowsRefused: 8, rowsRead: 11 })
  const { rejects } = await fleet.ask('GET', `/v1/usage-data-imports/${report.id}/rejects`)
  expect(rejects.map((one: { row: number; message: string }) => [one.row, one.message])).toEqual([
    [3, 'contract: there is no nobody'],
    [4, expect.stringContaining('start: there is no 2022-04-31')],
    [5, expect.stringContaining('value: a decimal such as "12.50" is expected, got "12,5"')],
    [6, 'has 3 cells, the first line has 6'],
    [7, 'contract: there is no "flotte-iot"x'],
    [9, expect.stringContaining('B-1 of this contract, item and start is there with other content')],
    [11, 'contract: there is no =cmd|x'],
    [12, expect.stringContaining('value: at most 29 digits')],
  ])
  expect(rejects[0].raw).toBe('nobody,2022-04-14,12,,,B-2')
  expect((await rowsOf(report.id)).map((row) => [row.value, row.data])).toEqual([
    ['12', null],
    [null, { cpu: '8' }],
  ])
  const page = await fleet.ask('GET', `/v1/usage-data-imports/${report.id}/rejects?after=5&limit=2`)
  expect(page.rejects.map((one: { row: number }) => one.row)).toEqual([6, 7])
})

test('what breaks the file ends it, with the line, and leaves no row', async () => {
  const cases: [string, string][] = [
    ['', 'line 1: the file is empty'],
    ['contract;start;total\nflotte-iot;2022-04-14;1', 'line 1: no usage datum has "total"'],
    ['start;value\n2022-04-14;1', 'line 1: the column contract is missing'],
    ['contract;start;value;valeur\n', 'line 1: value is there twice'],
    [
      `contract;start;value\n${'flotte-iot;2022-04-14;1\n'.repeat(limits.importBatchRows)}"flotte-iot;2022-04-14;1\n`,
      'line 5002: ',
    ],
  ]
  for (const [file, reason] of cases) {
    const report = await send(file)
    expect(report.reason).toContain(reason)
    expect(report.state).toBe('failed')
    expect(await rowsOf(report.id)).toEqual([])
    expect((await send(file, { dry_run: 'true' })).detail).toContain(reason)
  }
})

test(`a dry run judges as the import does, and keeps nothing; the same file is refused, or replayed ${promises('dedupe:first-only')}`, async () => {
  const file =
    'contract;start;value;reference\nflotte-iot;2022-04-16;1,5;C-1\nflotte-iot;2022-04-16;x;C-2\nflotte-iot;2022-04-17;2;\n'
  const count = async () =>
    Number((await fleet.system.engines.postgres.query('SELECT count(*) FROM usage_data')).rows[0].count)
  const journal = async () => (await fleet.ask('GET', '/v1/usage-data-imports')).imports.length
  const [rows, entries] = [await count(), await journal()]
  const dry = await send(file, { dry_run: 'true' })
  expect(dry).toMatchObject({ id: null, state: 'dry run', rowsTaken: 2, rowsRefused: 1 })
  expect([await count(), await journal()]).toEqual([rows, entries])
  const real = await send(file)
  expect(real).toMatchObject({ state: 'done', rowsTaken: 2, rowsRefused: 1, sha256: dry.sha256, rejects: dry.rejects })
  const again = await send(file)
  expect([again.status, again.detail]).toEqual([409, expect.stringContaining(`as ${real.id}; replay=true`)])
  expect(await count()).toBe(rows + 2)
  const replay = await send(file, { replay: 'true' })
  // What has a reference is known; the other row was asked for again.
  expect(replay).toMatchObject({ state: 'done', rowsTaken: 1, rowsKnown: 1, rowsRefused: 1 })
})

test(`a tenant's key imports for its own contracts and reads its own journal ${promises('tenant:isolated')}`, async () => {
  const { secret } = await fleet.system.keys.create({ name: 'o', tenant: 'autre', scopes: ['ingest', 'read'] })
  const report = await send('contract;start;value\nflotte-iot;2022-04-14;1\n', {}, secret)
  expect(report).toMatchObject({
    rowsTaken: 0,
    rowsRefused: 1,
    rejects: [{ message: 'contract: there is no flotte-iot' }],
  })
  const others = (await fleet.ask('GET', '/v1/usage-data-imports')).imports.find(
    (one: { tenant: string | null }) => one.tenant === null,
  )
  await fleet.ask('GET', `/v1/usage-data-imports/${others.id}`, undefined, 404, secret)
  const { rejects } = await fleet.ask('GET', `/v1/usage-data-imports/${others.id}/rejects`, undefined, 200, secret)
  expect(rejects).toEqual([])
  await fleet.ask('POST', `/v1/usage-data-imports/${report.id}/undo`, undefined, 403, secret)
  const { imports } = await fleet.ask('GET', '/v1/usage-data-imports', undefined, 200, secret)
  expect(imports.map((one: { id: string }) => one.id)).toEqual([report.id])
})

test('an import that is stopped in the middle is not there for billing, and goes on to the same end', async () => {
  await fleet.system.catalog.putContract({
    ...fleetContract,
    id: 'long',
    items: [{ ...fleetContract.items[0], id: 'l' }],
  })
  const N = 2 * limits.importBatchRows + 1_000
  const lines = Array.from({ length: N }, (_, i) => `long;2022-04-11;${i % 10 === 7 ? 'x' : '1'};L-${i}`)
  const file = `contract;start;value;reference\n${lines.join('\n')}\n`
  const directory = mkdtempSync(join(tmpdir(), 'releve-imports-'))
  const { postgres } = fleet.system.engines
  const options = { postgres, clock: fleet.clock, catalog: fleet.system.catalog, logger: silentLogger, directory }
  try {
    const first = new Imports(options)
    const { id } = await first.receive({
      body: Readable.from([Buffer.from(file)]),
      name: 'long.csv',
      tenant: null,
      state: 'pending',
      dryRun: false,
      replay: false,
    })
    await first.close()
    const stopped = await first.get(id!, null)
    expect(stopped.state).toBe('running')
    expect(stopped.rowsRead).toBeLessThan(N)
    const preview = () => fleet.ask('GET', '/v1/contracts/long/invoice-preview')
    expect((await preview()).lines).toEqual([])
    const second = new Imports(options)
    writeFileSync(join(directory, 'left.csv'), 'x')
    await second.resume()
    expect(readdirSync(directory)).toEqual([`${id}.csv`])
    await second.ended(id!)
    expect(await second.get(id!, null)).toMatchObject({
      state: 'done',
      rowsRead: N,
      rowsTaken: N * 0.9,
      rowsRefused: N * 0.1,
    })
    expect((await second.rejects(id!, null, 0, 2)).map((one) => one.row)).toEqual([9, 19])
    expect((await preview()).lines).toMatchObject([{ quantity: String(N * 0.9) }])
    expect(readdirSync(directory)).toEqual([])
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
})

test(`an import killed with -9 again and again ends with every row once, and every refusal once ${promises('flow:exactly-once')}`, async () => {
  const postgres = await openTestPostgres()
  const directory = mkdtempSync(join(tmpdir(), 'releve-killed-import-'))
  try {
    const catalog = await openCatalog({ postgres: postgres.pool, clock: fleet.clock })
    await loadSeeds(catalog)
    await catalog.putContract({
      ...seedContracts[1]!,
      id: 'killed',
      start: '2022-01-01',
      items: [{ id: 'killed/1', plan: 'oid-business' }],
    })
    const N = 8 * limits.importBatchRows + 1_000
    const lines = Array.from({ length: N }, (_, i) => `killed;2022-04-11;${i % 10 === 7 ? 'x' : '1'};K-${i}`)
    const file = join(directory, 'file')
    writeFileSync(file, `contract;start;value;reference\n${lines.join('\n')}\n`)
    const spool = join(directory, 'spool')
    const reached = async (): Promise<{ line: number; state: string | null }> => {
      const { rows } = await postgres.pool.query('SELECT line_reached::int AS line, state FROM usage_imports')
      return rows[0] ?? { line: 0, state: null }
    }
    let killed = 0
    for (let last = 0; killed < 3; ) {
      const child = spawn(process.execPath, [importer, postgres.url, spool, file], { stdio: 'inherit' })
      const exit = once(child, 'exit')
      // A little further than the one before it.
      let now = await reached()
      while (child.exitCode === null && now.line <= last) now = await reached()
      child.kill('SIGKILL')
      const [, signal] = await exit
      now = await reached()
      if (now.state === 'done') break
      expect(signal).toBe('SIGKILL')
      killed += 1
      last = now.line
    }
    expect(killed).toBeGreaterThan(0)
    const ended = spawn(process.execPath, [importer, postgres.url, spool, file], { stdio: 'inherit' })
    expect((await once(ended, 'exit'))[0]).toBe(0)
    const { rows } = await postgres.pool.query(
      `SELECT i.state, i.rows_taken::int AS taken, i.rows_known::int AS known, i.rows_refused::int AS refused,
         (SELECT count(*)::int FROM usage_data) AS rows, (SELECT count(DISTINCT external_reference)::int FROM usage_data) AS once,
         (SELECT count(*)::int FROM usage_import_rejects) AS rejects FROM usage_imports i`,
    )
    const [taken, refused] = [N * 0.9, N * 0.1]
    expect(rows).toEqual([{ state: 'done', taken, known: 0, refused, rows: taken, once: taken, rejects: refused }])
    expect(readdirSync(spool)).toEqual([])
  } finally {
    await postgres.close()
    rmSync(directory, { recursive: true, force: true })
  }
}, 120_000)

test('gzip; a body that is too large or no file is refused', async () => {
  const file = 'contract;start;value;reference\nflotte-iot;2022-04-18;1;Z-1\n'
  expect(await send(gzipSync(file), {}, fleet.adminKey, { 'content-encoding': 'gzip' })).toMatchObject({ rowsTaken: 1 })
  expect((await send(file, {}, fleet.adminKey, { 'content-encoding': 'br' })).status).toBe(415)
  expect((await send(file, { encoding: 'ebcdic' })).status).toBe(400)
})

test('ods-billing import usage-data => the file by the running service, exit code 7 for refused rows', async () => {
  const url = await fleet.app.listen({ host: '127.0.0.1', port: 0 })
  const data = fleet.system.config.dataDirectory
  writeFileSync(serviceFile(data), JSON.stringify({ url, pid: process.pid }))
  const path = join(data, 'relevés.csv')
  writeFileSync(path, 'contract;start;value;reference\nflotte-iot;2022-04-19;1;D-1\nflotte-iot;2022-04-19;?;D-2\n')
  const run = async (...args: string[]) => {
    const main = fileURLToPath(new URL('../../src/main.js', import.meta.url))
    try {
      const done = await promisify(execFile)(process.execPath, [main, 'import', 'usage-data', ...args], {
        env: { PATH: process.env.PATH, RELEVE_DATA: data },
      })
      return { code: 0, ...done }
    } catch (error) {
      return error as { code: number; stdout: string; stderr: string }
    }
  }
  const dry = await run(path, '--dry-run', '--json')
  expect([dry.code, JSON.parse(dry.stdout).state]).toEqual([7, 'dry run'])
  const real = await run(path)
  expect([real.code, real.stdout]).toEqual([7, expect.stringContaining('2 rows read: 1 taken, 0 known, 1 refused')])
  expect(real.stdout).toContain('line 3: value: a decimal such as "12.50" is expected, got "?"')
  const again = await run(path)
  expect([again.code, again.stderr]).toEqual([5, expect.stringContaining('the same file was imported')])
  expect((await run(join(data, 'nothing.csv'))).code).toBe(1)
})
