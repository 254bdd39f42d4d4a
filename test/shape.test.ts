/**
 * Which way the imports point: doors → system → flow and close → rooms → ground. A mirror of the tree, cheap to change when the tree
 * does; the exceptions stand here with their reasons.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import { expect, test } from 'vitest'
import { rootDirectory } from '../src/paths.js'

const files = readdirSync(join(rootDirectory, 'src'), { recursive: true, encoding: 'utf8' }).filter((file) =>
  file.endsWith('.ts'),
)
const textOf = (file: string): string => readFileSync(join(rootDirectory, 'src', file), 'utf8')

const roads = ['ingest', 'log', 'dedupe', 'aggregate', 'rollup', 'quota', 'rating', 'invoicing']
const doors = ['http', 'nats', 'cli', 'demo']
/** Rooms beside the road, and what they may know of each other. */
const beside = ['access', 'catalog', 'client', 'delivery', 'engines', 'prepaid', 'usage-data', 'objects']

/** 0 ground, 1 rooms, 2 the road written out, 3 system, 4 doors, 5 the process. */
function level(file: string): number {
  const room = roomOf(file)
  if (file === 'main.ts') return 5
  if (doors.includes(room)) return 4
  if (file === 'system.ts') return 3
  if (
    [
      'flow.ts',
      'intake.ts',
      'shard.ts',
      'answers.ts',
      'alerting.ts',
      'refusals.ts',
      'cardinality.ts',
      'billing.ts',
      'counting.ts',
      'shadow-rating.ts',
      'shared-usage.ts',
      'item-alerts.ts',
      'live-items.ts',
      'meters.ts',
      'backup.ts',
      'invoicing/close.ts',
      'invoicing/close-many.ts',
      'invoicing/correct.ts',
      'invoicing/sale.ts',
    ].includes(file)
  )
    return 2
  return room === '' ? 0 : 1
}

const roomOf = (file: string): string => (file.includes('/') ? file.slice(0, file.indexOf('/')) : '')

interface Import {
  readonly from: string
  readonly to: string
  readonly typeOnly: boolean
}

const imports: Import[] = files.flatMap((from) =>
  [
    ...textOf(from).matchAll(/^(?:import|export)( type)? (\{[^}]*\}|\* as \w+|\w+(?:, \{[^}]*\})?) from '(\.[^']+)'/gm),
  ].map(([, type, names, path]) => ({
    from,
    to: normalize(join(dirname(from), path!.replace(/\.js$/, '.ts'))),
    // «{ type A, type B }» brings no code either.
    typeOnly: type !== undefined || /^\{(\s*type \w+( as \w+)?,?)*\s*\}$/.test(names!),
  })),
)

/** Files that name a type or a code table of a higher level, which is otherwise closed to them. */
const upward: Readonly<Record<string, string>> = {
  'event.ts → catalog/metric.ts': 'an event has a metric',
  'frame.ts → catalog/metric.ts': 'a frame carries the metrics it was judged under',
  'frame.ts → ingest/verdict.ts': 'a frame carries refusals',
  'client/nats.ts → nats/subjects.ts': 'the subjects are the same on both sides of the door',
  'invoicing/verify.ts → invoicing/close.ts': 'an invoice is verified by the very reckoning that made it',
}

test('imports point down: doors → system → flow, close → rooms → ground', () => {
  const wrong = imports
    .filter(({ from, to }) => level(to) > level(from))
    .filter(({ from, to }) => !(`${from} → ${to}` in upward))
  expect(wrong).toEqual([])
})

test('the exceptions of the ground are still needed', () => {
  const there = imports.map(({ from, to }) => `${from} → ${to}`)
  expect(Object.keys(upward).filter((exception) => !there.includes(exception))).toEqual([])
})

/** Code of another room that a room may run. Each is a small pure file, and the reason is why it is not handed over. */
const neighbours: Readonly<Record<string, string>> = {
  'client → ingest/time.ts': 'a time means the same at the sender and at the door',
  'client → engines/lock.ts': 'two clients must not replay one spool',
  'client → nats/subjects.ts': 'the subjects are the same on both sides of the door',
  'dedupe → ingest/verdict.ts': 'the numbers of verdicts',
  'aggregate → ingest/verdict.ts': 'the numbers of verdicts',
  'rollup → ingest/verdict.ts': 'the numbers of verdicts',
  'quota → ingest/verdict.ts': 'the numbers of verdicts',
  'quota → dedupe/sip-hash.ts': 'one keyed hash for what strangers choose',
  'ingest → catalog/metric.ts': 'the numbers of aggregations, as the kernel has them',
  'invoicing → rating/': 'an invoice is rated usage: close.ts hands no line over that rating did not make',
  'rating → catalog/price.ts': 'the price book is read by all',
  'rating → catalog/unit.ts': 'a quantity is converted to the unit of its price',
  'invoicing → catalog/': 'the price book is read by all',
  'catalog → rating/formula.ts': 'a formula that cannot be read is refused when its calculator is defined',
  'usage-data → objects/objects.ts': 'whether an item is that of an object',
  'objects → catalog/': 'contracts and their days are read by all',
  'prepaid → invoicing/pack-ledger.ts': 'what is written is what is verified',
  'prepaid → invoicing/funding.ts': 'what packs have at present is reckoned as a closing does',
  'prepaid → invoicing/draft.ts': 'the quota of a part of a period',
  'prepaid → catalog/schedule.ts': 'a day is a midnight of the contract’s zone',
  'prepaid → catalog/part.ts': 'which closings are still to come',
  'usage-data → rating/formula.ts': 'what a calculator says',
  'rating → quota/status.ts': 'over, near and ok mean the same on a line as on a screen',
  'invoicing → quota/status.ts': 'over, near and ok mean the same on a line as on a screen',
}

test('a room runs no code of another room, but for the small files named here', () => {
  const wrong = imports.filter(({ from, to, typeOnly }) => {
    const [mine, other] = [roomOf(from), roomOf(to)]
    if (typeOnly || mine === other || mine === '' || other === '') return false
    if (![...roads, ...beside].includes(mine) || level(from) > 1) return false
    return !Object.keys(neighbours).some((allowed) => {
      const [room, prefix] = allowed.split(' → ')
      return room === mine && to.startsWith(prefix!)
    })
  })
  expect(wrong).toEqual([])
})

test('nothing on the usage side knows prices, rating or invoices', () => {
  const usageSide = ['ingest', 'log', 'dedupe', 'aggregate', 'rollup', 'quota']
  const wrong = imports.filter(
    ({ from, to }) =>
      (usageSide.includes(roomOf(from)) || from === 'flow.ts' || from === 'shard.ts') &&
      (['rating', 'invoicing', ...doors].includes(roomOf(to)) || /^catalog\/(?!metric\.ts)/.test(to)),
  )
  expect(wrong).toEqual([])
})

/** A word that only some files may say, so that a reader can trust the «only». */
const onlys: readonly [what: string, pattern: RegExp, allowed: Readonly<Record<string, string>>][] = [
  [
    'reads the environment',
    /\bprocess\.env\b/,
    {
      'config.ts': 'the place',
      'engines/engine-process.ts': 'PATH for a child that gets no other variable',
      'engines/postgres.ts': 'PATH for a child that gets no other variable',
      'demo/demo.ts': 'hands the environment on to parseConfig with its own directory',
    },
  ],
  ['asks the time', /\bDate\.now\b|new Date\(\)/, { 'clock.ts': 'the place' }],
  ['knows fastify', /from '(@fastify\/|fastify)/, { 'http/': 'the place' }],
  [
    'knows NATS',
    /from '(nats|@nats-io\/)/,
    { 'nats/': 'the place', 'client/nats.ts': 'the sender’s side of that door' },
  ],
  ['knows a mail library', /from 'nodemailer'/, { 'delivery/email.ts': 'the place' }],
  [
    'knows piscina',
    /from 'piscina'/,
    {
      'shard.ts': 'the place',
      'invoicing/draft-batch.ts': 'the rating threads',
      'dedupe/run-pool.ts': 'the thread that builds runs of ids',
      'rollup/archive-pool.ts': 'the thread that sorts the archive',
    },
  ],
  [
    'ends the process',
    /\bprocess\.exit\b/,
    { 'main.ts': 'the place', 'cli/': 'the place', 'demo/': 'a command', 'engines/clickhouse-child.ts': 'a process' },
  ],
]
for (const [what, pattern, allowed] of onlys) {
  test(`nobody else ${what}`, () => {
    const code = (file: string): string => textOf(file).replaceAll(/\/\*[\s\S]*?\*\/|\/\/.*$/gm, '')
    const found = files.filter((file) => pattern.test(code(file)))
    expect(found.filter((file) => !Object.keys(allowed).some((start) => file.startsWith(start)))).toEqual([])
  })
}

test('no file is called after nothing: utils, helpers, manager, service, common, types', () => {
  expect(files.filter((file) => /(^|[/-])(utils?|helpers?|managers?|services?|common|types)\.ts$/i.test(file))).toEqual(
    [],
  )
})

test('every file says at its top what it is', () => {
  expect(files.filter((file) => !/^(#!.*\n)?\/\*\*/.test(textOf(file)))).toEqual([])
})
