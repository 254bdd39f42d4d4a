/**
 * Every command of the program against a service elsewhere: another directory, only --url and --key-file. With --json stdout is JSON and
 * nothing else, progress goes to stderr; each exit code of the table is given by a real command. A command that is missing here fails.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Exit } from '../../src/cli/exit.js'
import { openService, type Service } from '../service-process.js'
import { start } from './binary.js'

const folder = mkdtempSync(join(tmpdir(), 'releve-commands-'))
let service: Service
let draft = ''
let keyId = ''
let backup = ''

/** The last day of the month before this one: its period has ended, and the door still takes it. */
const month = new Date()
month.setUTCDate(0)
const [from, to] = [
  Date.UTC(month.getUTCFullYear(), month.getUTCMonth(), 1),
  Date.UTC(month.getUTCFullYear(), month.getUTCMonth() + 1, 1),
]
const time = `${month.toISOString().slice(0, 10)}T12:00:00Z`

const file = (name: string, text: string): string => {
  writeFileSync(join(folder, name), text)
  return join(folder, name)
}

beforeAll(async () => {
  service = await openService({ RELEVE_GRACE_MS: '0', RELEVE_WEBHOOK_ALLOW: '127.0.0.0/8' })
  await service.call('POST', '/v1/prices', {
    rule: { rule_id: 'price', type: 'per_unit', metric: 'kyc', unit_price: '2.00', currency: 'EUR' },
    status: 'active',
    effectiveFrom: Date.UTC(2026, 0, 1),
  })
  await service.call('PUT', '/v1/plans', {
    key: 'priced',
    product: 'P',
    name: 'Priced',
    metrics: [{ metric: 'kyc', included: '1', rule: 'price' }],
  })
  for (const tenant of ['bank', 'other', 'third']) {
    await service.call('PUT', '/v1/customers', {
      ...{ tenant, name: tenant, country: 'CI', taxRate: '18', currency: 'EUR', timeZone: 'Africa/Abidjan' },
    })
    await service.call('PUT', '/v1/contracts', {
      id: `contract-${tenant}`,
      tenant,
      legalEntity: 'seller',
      start: '2025-01-01',
      timeZone: 'Africa/Abidjan',
      items: [{ id: `item-${tenant}`, plan: 'priced', entitlements: [{ metric: 'kyc', limit: '10' }] }],
    })
    await service.call('POST', '/v1/events?wait=applied', [
      { id: `${tenant}-1`, tenant, metric: 'kyc', value: '20', time },
    ])
  }
  await service.call('POST', '/v1/periods/close', { finalise: false, at: new Date(from).toISOString() })
  const { invoices } = await service.call<{ invoices: { invoice: { id: string; contract: string } }[] }>(
    'GET',
    '/v1/invoices?limit=100',
  )
  draft = invoices.find(({ invoice }) => invoice.contract === 'contract-bank')!.invoice.id
  const third = invoices.find(({ invoice }) => invoice.contract === 'contract-third')!.invoice.id
  drop = third
  file('admin.key', service.adminKey)
})
let drop = ''
afterAll(async () => {
  await service?.close()
  rmSync(folder, { recursive: true, force: true })
})

interface Ended {
  readonly code: number | null
  readonly out: string
  readonly err: string
}
async function run(args: readonly string[], input = '', env: Record<string, string> = {}): Promise<Ended> {
  const started = start(args, { RELEVE_DATA: join(folder, 'nothing-here'), ...env }, input)
  const code = await started.ended
  return { code, out: started.out(), err: started.err() }
}
const there = (): string[] => ['--url', service.url, '--key-file', join(folder, 'admin.key')]

type Json = Record<string, unknown>
interface Case {
  readonly args: () => readonly string[]
  readonly input?: string
  readonly code?: number
  /** A line of JSON for each of something. */
  readonly lines?: true
  /** Works on this machine alone, and says so when it is asked of another. */
  readonly local?: true
  readonly env?: () => Record<string, string>
  readonly look?: (value: Json) => unknown
}
const event = '{"id":"e1","tenant":"acme","metric":"kyc"}'

/** In this order: some need what those before them have made. */
const cases: Readonly<Record<string, Case>> = {
  'events send': {
    args: () => ['-'],
    input: `${event}\n{"id":"e2","tenant":"acme","metric":"none"}\n`,
    code: 7,
    look: ({ stored }) => expect(stored).toBe(1),
  },
  // Of the period that is closed: what was sent just now may not be in an epoch yet.
  usage: {
    args: () => ['kyc', '--tenant', 'bank', '--from', new Date(from).toISOString(), '--to', new Date(to).toISOString()],
    look: ({ windows }) => expect(windows).toMatchObject([{ value: '20' }]),
  },
  quota: { args: () => ['other'], look: ({ tenant }) => expect(tenant).toBe('other') },
  'alerts list': { args: () => [], look: ({ alerts }) => expect((alerts as unknown[]).length).toBeGreaterThan(0) },
  'alerts tail': { args: () => ['--after', '0', '--count', '2'], lines: true },
  'rejects list': { args: () => ['--tenant', 'acme'], look: ({ rejects }) => expect(rejects).toHaveLength(1) },
  'rejects export': { args: () => ['--tenant', 'acme'], lines: true },
  'rejects resend': { args: () => [], input: '', look: ({ resent }) => expect(resent).toBe(0) },
  'keys create': {
    args: () => ['gateway', '--scopes', 'ingest', '--tenant', 'acme'],
    look: ({ key }) => (keyId = (key as { id: string }).id),
  },
  'keys list': { args: () => [], look: ({ keys }) => expect((keys as unknown[]).length).toBeGreaterThan(1) },
  'keys change': { args: () => [keyId, '--events-per-second', '5'] },
  'keys rotate': { args: () => [keyId, '--overlap', '0'] },
  'keys revoke': { args: () => [keyId] },
  'rates set': {
    args: () => ['acme', '--events-per-second', '500'],
    look: (set) => expect(set).toEqual({ tenant: 'acme', limits: { eventsPerSecond: 500 } }),
  },
  'rates list': {
    args: () => [],
    look: (found) =>
      expect(found).toEqual({ default: null, tenants: [{ tenant: 'acme', limits: { eventsPerSecond: 500 } }] }),
  },
  'rates delete': { args: () => ['acme'], look: (gone) => expect(gone).toEqual({ tenant: 'acme', limits: {} }) },
  'invoice list': { args: () => [], look: ({ invoices }) => expect((invoices as unknown[]).length).toBeGreaterThan(1) },
  'invoice preview': { args: () => ['contract-other'] },
  'invoice refresh': {
    args: () => [draft],
    look: ({ invoice }) => (draft = (invoice as { invoice: { id: string } }).invoice.id),
  },
  'invoice issue': { args: () => [draft], look: ({ state }) => expect(state).toBe('finalised') },
  'invoice show': { args: () => [draft], look: ({ state }) => expect(state).toBe('finalised') },
  'invoice verify': { args: () => [draft], look: ({ equal }) => expect(equal).toBe(true) },
  'invoice sent': { args: () => [draft] },
  'invoice paid': { args: () => [draft], look: ({ state }) => expect(state).toBe('paid') },
  'invoice late': { args: () => [draft] },
  'invoice credit': { args: () => [draft, '--reason', 'all of it'] },
  'invoice journal': { args: () => [draft], look: ({ moves }) => expect(moves).toHaveLength(4) },
  'invoice discard': { args: () => [drop], look: ({ state }) => expect(state).toBe('discarded') },
  'invoice shadow': {
    args: () => ['--from', new Date(from).toISOString(), '--to', new Date(to).toISOString(), '--price', 'price@1.0'],
    lines: true,
  },
  'import usage-data': {
    args: () => [file('data.csv', 'contract;start;value;reference\nnobody;2026-04-19;1;D-1\n'), '--dry-run'],
    code: 7,
    look: ({ rowsRefused }) => expect(rowsRefused).toBe(1),
  },
  audit: { args: () => [], look: ({ ok }) => expect(ok).toBe(true) },
  backup: { args: () => [], look: ({ directory }) => (backup = directory as string) },
  restore: {
    args: () => [backup, '--data', join(folder, 'restored')],
    local: true,
    look: ({ directory }) => expect(directory).toBe(join(folder, 'restored')),
  },
  rebuild: {
    args: () => ['--dry-run'],
    local: true,
    env: () => ({ RELEVE_DATA: join(folder, 'restored'), RELEVE_STREAMS: '1' }),
    look: ({ replaced }) => expect(replaced).toBe(false),
  },
  doctor: { args: () => [], local: true, env: () => ({ RELEVE_PORT: '0' }) },
}
/** Programs, not questions. */
const without = ['serve', 'demo', 'completion', 'exit-codes']

test('the table has every command that the program has', async () => {
  const { out } = await run(['completion', 'bash'])
  const words = new Map(
    [...out.matchAll(/^ {4}'([^']*)'\) words='([^']*)'/gm)].map(([, path, list]) => [path!, list!.split(' ')]),
  )
  const leaves = [...words.keys()].filter(
    (path) => ![...words.keys()].some((other) => (path === '' ? other !== '' : other.startsWith(`${path} `))),
  )
  expect([...Object.keys(cases), ...without].sort()).toEqual(leaves.sort())
  for (const [path, { local }] of Object.entries(cases)) {
    expect(words.get(path), path).toContain('--json')
    if (local !== true) expect(words.get(path), path).toEqual(expect.arrayContaining(['--url', '--key', '--key-file']))
  }
})

for (const [path, { args, input, code = 0, lines, local, env, look }] of Object.entries(cases)) {
  test(`${path} --json => JSON and nothing else on stdout`, async () => {
    const words = path.split(' ')
    const ended = await run([...words, ...args(), '--json', ...(local === true ? [] : there())], input, env?.())
    expect(ended.code, ended.err + ended.out).toBe(code)
    if (lines === true) {
      const printed = ended.out.trimEnd().split('\n')
      expect(printed.length).toBeGreaterThan(0)
      for (const line of printed) JSON.parse(line)
    } else look?.(JSON.parse(ended.out) as Json)
    if (local !== true) {
      // It speaks to the service that was named and to no other: this one is not there.
      const away = await run(
        [
          ...words,
          ...args(),
          '--json',
          '--url',
          'http://127.0.0.1:9',
          '--key',
          'rlv_x',
          ...(path === 'events send' ? ['--retries', '0'] : []),
        ],
        input,
      )
      if (!(path === 'rejects resend' && input === '')) {
        expect(away.code, `${path}: ${away.err}${away.out}`).toBe(1)
        expect(away.err).toContain('http://127.0.0.1:9')
      }
      if (away.out !== '') JSON.parse(away.out)
    } else {
      const asked = await run([...words, ...args(), '--url', service.url], input, env?.())
      expect([asked.code, asked.out]).toEqual([2, ''])
      expect(asked.err).toContain(`${words.at(-1)} cannot be asked of a service elsewhere`)
    }
  })
}

test('progress is on stderr, and stdout holds the result alone', async () => {
  const made = await run(['backup', ...there()])
  expect([made.code, made.out]).toEqual([0, expect.stringMatching(/^\/[^\n]+\n$/)])
  expect(made.err).toMatch(/\d+ files, [\d.]+ MB/)
  const restored = await run(['restore', made.out.trim(), '--data', join(folder, 'again')])
  expect([restored.code, restored.out]).toEqual([0, `${join(folder, 'again')}\n`])
  expect(restored.err).toContain('files are as they were')
  const audited = await run(['audit'], '', { RELEVE_DATA: join(folder, 'again'), RELEVE_STREAMS: '1' })
  expect(audited.code).toBe(0)
  expect(audited.err).toContain('opening: ')
  expect(audited.out).toMatch(/^ok {3}/)
})

test('every exit code of the table is given by a command', async () => {
  const seen: Record<string, Ended> = {
    ok: await run(['keys', 'list', ...there()]),
    failed: await run(['keys', 'list', '--url', 'http://127.0.0.1:9', '--key', 'x']),
    usage: await run(['keys', 'list', '--colour']),
    key: await run(['keys', 'list', '--url', service.url, '--key', 'rlv_wrong']),
    missing: await run(['invoice', 'show', 'FA-0000', ...there()]),
    conflict: await run(['invoice', 'paid', draft, ...there()]),
    differs: await run(['quota', 'other', '--fail-over', ...there()]),
    partial: await run(['events', 'send', ...there()], '{"id":"e3","tenant":"acme","metric":"none"}\n'),
  }
  // The quota of another month is not over: this one's.
  await run(['events', 'send', ...there()], '{"id":"o9","tenant":"other","metric":"kyc","value":"11"}\n')
  seen.differs = await run(['quota', 'other', '--fail-over', ...there()])
  expect(Object.fromEntries(Object.entries(seen).map(([name, { code }]) => [name, code]))).toEqual(
    Object.fromEntries(Object.entries(Exit).map(([name, { code }]) => [name, code])),
  )
  for (const [name, { err }] of Object.entries(seen))
    if (name !== 'ok' && name !== 'differs') expect(err, name).not.toBe('')
})
