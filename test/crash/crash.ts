/**
 * THE CRASH TEST: whatever dies, and whenever, what is counted, archived, alarmed and billed in the end equals what the oracle makes
 * of the driver's file. Nothing acknowledged is missing, nothing is counted twice.
 *
 *   node dist/test/crash/crash.js [--seed N] [--kills N] [--victims service,clickhouse,postgres,all,service-and-leashes]
 *     [--streams N] [--points all|none|name[:pass]|token-without-rows] [--mutant all|name] [--parallel N] [--keep]
 *
 * Random kills (30 by default) hit the service, ClickHouse, PostgreSQL, all three, or the service with its leashes, while it works
 * and while it recovers. Each named point of src/crash-points.ts is passed once, with a second kill during the recovery. A mutant is
 * a copy of dist/ with a part of the protocol taken out: it must be found out. The seed is printed first; a failed run keeps its
 * directory and says where.
 */
import { rmSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { CrashPoint } from '../../src/crash-points.js'
import { findProgram } from '../programs.js'
import { loseRows } from './check.js'
import { buildMutant, type Mutant, mutants } from './mutants.js'
import { Difference, type DriverOptions, Run, type RunOptions } from './scenario.js'
import type { Victim } from './service.js'
import { Dice } from './world.js'

const TOKEN = 'token-without-rows'
/** As often as they stand here. */
const VICTIMS: readonly Victim[] = [
  'service',
  'service',
  'service',
  'clickhouse',
  'clickhouse',
  'postgres',
  'postgres',
  'all',
  'service-and-leashes',
  'nats',
  'nats',
]
/** A service that a crash point should kill does it within this, or the point was not passed. */
const POINT_MS = 60_000

export interface Outcome {
  readonly name: string
  readonly ok: boolean
  readonly detail: string
  /** Of a failed run: kept for whoever looks into it. */
  readonly directory?: string | undefined
}

async function attempt(
  name: string,
  options: Omit<RunOptions, 'name' | 'say'> & { readonly env?: Readonly<Record<string, string>> },
  work: (run: Run, say: (text: string) => void) => Promise<string>,
  keepAlways: boolean,
): Promise<Outcome> {
  const begun = performance.now()
  const say = (text: string): void =>
    console.log(`  [${name} ${((performance.now() - begun) / 1000).toFixed(0).padStart(3)} s] ${text}`)
  let run: Run | undefined
  try {
    run = await Run.open({ ...options, name: name.replaceAll(/[^a-z0-9]+/gi, '-'), say }, options.env)
    const detail = await work(run, say)
    await run.discard(keepAlways)
    return { name, ok: true, detail: `${detail}, ${((performance.now() - begun) / 1000).toFixed(0)} s` }
  } catch (error) {
    const text =
      error instanceof Difference
        ? error.message
        : error instanceof Error
          ? (error.stack ?? error.message)
          : String(error)
    await run?.discard(true).catch(() => undefined)
    return {
      name,
      ok: false,
      directory: run?.directory,
      detail: `seed ${options.seed}, kept in ${run?.directory ?? 'nothing'}:\n${text}`,
    }
  }
}

/** Starts the service again after a kill; an engine killed under a starting service may take it along, and a supervisor starts it again. */
async function startAgain(run: Run, dice: Dice, say: (text: string) => void): Promise<number> {
  let kills = 0
  for (let tries = 0; tries < 8; tries += 1) {
    const service = run.launch()
    if (tries < 3 && dice.chance(0.3)) {
      const after = dice.int(100, 4_000)
      await Promise.race([sleep(after), service.ended])
      const victim = dice.pick<Victim>(['service', 'service', 'all', 'clickhouse', 'postgres'])
      if (service.running && (await service.kill(victim))) {
        kills += 1
        say(`killed ${victim} ${after} ms after its start`)
        if (victim === 'service' || victim === 'all') continue
        if (await service.ready()) return kills
        const { code, signal } = await service.ended
        say(`the starting service ended with ${signal ?? code}`)
        if (code !== 1) break
        continue
      }
    }
    if (await service.ready()) return kills
    break
  }
  throw new Difference([`the service does not start again: ${run.lastWords()}`])
}

export function randomKills(options: {
  seed: number
  kills: number
  streams: number
  keep: boolean
  victims: readonly Victim[]
}): Promise<Outcome> {
  const { seed, kills: wanted, streams, victims } = options
  const hasNats = findProgram('nats-server') !== undefined
  if (!hasNats) console.log('!!! nats-server is not installed: this run drives HTTP alone')
  return attempt(
    `${wanted} kills, ${streams} streams`,
    { seed, streams, nats: hasNats },
    async (run, say) => {
      const dice = new Dice(seed ^ 0x5eed)
      await run.startDriver({ batches: 1_000_000, closeAfter: dice.int(5, 40) })
      let kills = 0
      let engineKills = 0
      let natsKills = 0
      while (kills < wanted) {
        // Now and then a quiet moment, in which a closing comes through.
        await sleep(dice.chance(0.15) ? dice.int(3_000, 6_000) : dice.int(100, 2_500))
        if (!run.driverRuns) await run.driverDone(false)
        if (!run.service.running) throw new Difference([`the service ended by itself: ${run.lastWords()}`])
        // An engine that keeps dying takes the service along after limits.engineRestartsMax.
        const victim = engineKills < 8 ? dice.pick(victims) : 'service'
        if (victim === 'nats') {
          if (!hasNats) continue
          await run.killNats()
          natsKills += 1
        } else if (!(await run.service.kill(victim))) continue
        kills += 1
        engineKills = victim === 'clickhouse' || victim === 'postgres' ? engineKills + 1 : 0
        if (kills % 5 === 0 || kills === wanted) say(`${kills} kills`)
        if (victim !== 'clickhouse' && victim !== 'postgres' && victim !== 'nats')
          kills += await startAgain(run, dice, say)
      }
      await run.driverDone(true)
      const { batches, events, retries } = await run.verify('full')
      return `${kills} kills, ${natsKills} of them of nats-server, ${batches} batches with ${events} events, ${retries} requests sent again`
    },
    options.keep,
  )
}

/** What happens at a named point: which pass dies, and how the recovery is killed too. */
interface Plan {
  readonly pass: number
  readonly second: { readonly crashAt: string } | { readonly afterMs: number } | null
}

function planOf(point: CrashPoint, dice: Dice): Plan {
  const pass = {
    'after-log-sync': dice.int(5, 25),
    'after-manifest': dice.int(2, 6),
    'after-key-file': dice.int(2, 6),
    'after-chunk': dice.int(3, 14),
    'before-checkpoint': dice.int(2, 6),
    'after-checkpoint': dice.int(2, 6),
    'after-alert-row': dice.int(1, 8),
    'after-fold-manifest': 1,
    'after-fold-chunk': 1,
    'after-number-taken': dice.int(1, 3),
  }[point]
  // A recovery that has an epoch to do again passes these points; others may not, so they are killed by the clock.
  const epochPoint =
    point === 'after-manifest' || point === 'after-key-file' || point === 'after-chunk' || point === 'before-checkpoint'
  if (epochPoint)
    return {
      pass,
      second: {
        crashAt: dice.pick([
          'after-manifest',
          'after-key-file',
          'after-chunk:1',
          'after-chunk:2',
          'before-checkpoint',
          'after-checkpoint',
        ]),
      },
    }
  if (point === 'after-fold-manifest' || point === 'after-fold-chunk')
    return { pass, second: { crashAt: 'after-fold-chunk' } }
  return { pass, second: { afterMs: dice.int(300, 6_000) } }
}

/** Nothing of the set-up passes a point, so the very first start may carry it. */
const crashAt = (point: CrashPoint, { pass }: Plan): Record<string, string> => ({ RELEVE_CRASH_AT: `${point}:${pass}` })

/** The work of a named point, at which the running service dies; a mutant of it must fail in here. */
export async function passPoint(
  run: Run,
  say: (text: string) => void,
  point: CrashPoint,
  dice: Dice,
  plan: Plan,
  driver: Partial<DriverOptions>,
  depth: 'running' | 'again',
  meanwhile?: () => Promise<void>,
): Promise<string> {
  await run.startDriver({ batches: 45, closeAfter: 12, pauseMs: 70, spikes: 0.2, ...driver })
  const first = await run.service.endWithin(POINT_MS)
  if (first?.signal !== 'SIGKILL')
    throw new Difference([
      `${point}:${plan.pass} was not passed: ${first === undefined ? 'the service still runs' : `it ended with ${first.code}: ${run.lastWords()}`}`,
    ])
  // The driver goes on knocking meanwhile; what it has logged already waits.
  await meanwhile?.()
  if (plan.second === null) {
    say(`died at ${point}:${plan.pass}`)
  } else if ('crashAt' in plan.second) {
    const service = run.launch({ RELEVE_CRASH_AT: plan.second.crashAt })
    const second = await service.endWithin(POINT_MS)
    if (second?.signal !== 'SIGKILL')
      throw new Difference([
        `${plan.second.crashAt} was not passed in the recovery: ${second === undefined ? 'the service still runs' : `it ended with ${second.code}: ${run.lastWords()}`}`,
      ])
    say(`died at ${point}:${plan.pass}, then at ${plan.second.crashAt}`)
  } else {
    const service = run.launch()
    await Promise.race([sleep(plan.second.afterMs), service.ended])
    if (!service.running) throw new Difference([`the service ended instead of starting: ${run.lastWords()}`])
    await service.kill(dice.pick<Victim>(['service', 'all', 'service-and-leashes']))
    say(`died at ${point}:${plan.pass}, then ${plan.second.afterMs} ms after its start`)
  }
  await run.start()
  await run.driverDone(false)
  const { batches, events, retries } = await run.verify(depth)
  return `${batches} batches with ${events} events, ${retries} requests sent again`
}

export function namedPoint(
  point: CrashPoint,
  options: { seed: number; streams: number; keep: boolean; pass?: number },
): Promise<Outcome> {
  const dice = new Dice(options.seed ^ 0x9017)
  const planned = planOf(point, dice)
  const plan = options.pass === undefined ? planned : { ...planned, pass: options.pass }
  return attempt(
    point,
    { ...options, env: crashAt(point, plan) },
    (run, say) => passPoint(run, say, point, dice, plan, {}, 'again'),
    options.keep,
  )
}

/**
 * What a kill of ClickHouse between its note of a token and the rows' arrival leaves: the token of a chunk that is not there, or
 * only in part. Too short a moment to hit, so the rows are taken away while nobody runs.
 */
export function tokenWithoutRows(options: { seed: number; keep: boolean }): Promise<Outcome> {
  const dice = new Dice(options.seed ^ 0x70ca)
  const plan: Plan = { pass: dice.int(4, 9), second: { crashAt: 'after-chunk:1' } }
  return attempt(
    TOKEN,
    { ...options, streams: 1, env: crashAt('after-chunk', plan) },
    (run, say) =>
      passPoint(run, say, 'after-chunk', dice, plan, {}, 'again', async () =>
        say(`took away ${await loseRows(run.directory, run.now, dice.chance(0.5))}`),
      ),
    options.keep,
  )
}

/** A mutant must fail, and for the reason that it was made for. */
export async function mutantIsFound(mutant: Mutant, options: { seed: number; keep: boolean }): Promise<Outcome> {
  const name = `mutant ${mutant.name}`
  const built = buildMutant(mutant)
  try {
    const dice = new Dice(options.seed ^ 0x3a7a)
    const plan: Plan = { pass: mutant.pass, second: null }
    const outcome = await attempt(
      name,
      { seed: options.seed, streams: 1, root: built.root, env: crashAt(mutant.point, plan) },
      // Nothing is closed: an invoice is refused where rollups and archive disagree, and the difference itself must be seen.
      (run, say) =>
        passPoint(
          run,
          say,
          mutant.point,
          dice,
          plan,
          { closeAfter: -1, batches: 30, spikes: mutant.spikes ?? 0.2 },
          'running',
          mutant.losesRows ? async () => void (await loseRows(run.directory, run.now, false)) : undefined,
        ),
      options.keep,
    )
    if (outcome.ok) return { name, ok: false, detail: `it survived: ${outcome.detail}` }
    const sign = mutant.sign.exec(outcome.detail)
    if (sign === null)
      return { name, ok: false, detail: `it failed for another reason than ${mutant.sign}: ${outcome.detail}` }
    if (!options.keep && outcome.directory !== undefined)
      rmSync(outcome.directory, { recursive: true, force: true, maxRetries: 5 })
    return { name, ok: true, detail: `found: ${sign[0].slice(0, 160)}` }
  } finally {
    built.remove()
  }
}

export interface Flags {
  readonly seed: number
  readonly kills: number
  /** undefined: two for random kills, one or two for points. */
  readonly streams: number | undefined
  readonly points: string
  readonly mutant: string
  readonly victims: readonly Victim[]
  /** Points and mutants at a time. */
  readonly parallel: number
  readonly keep: boolean
}

/** What the command line asks for: first the random kills alone, then points and mutants. */
export async function runAll(flags: Flags): Promise<Outcome[]> {
  const { seed, keep, streams } = flags
  const jobs: (() => Promise<Outcome>)[] = []
  const [pointName, passText] = flags.points.split(':')
  const pass = passText === undefined ? {} : { pass: Number(passText) }
  const points = flags.points === 'all' ? CrashPoint : CrashPoint.filter((one) => one === pointName)
  for (const [i, point] of points.entries()) {
    jobs.push(() => namedPoint(point, { seed: seed + i, streams: streams ?? 1 + (i % 2), keep, ...pass }))
  }
  if (flags.points === 'all' || flags.points === TOKEN) jobs.push(() => tokenWithoutRows({ seed, keep }))
  if (jobs.length === 0 && flags.points !== 'none') throw new Error(`there is no crash point ${flags.points}`)
  const wanted = flags.mutant === 'all' ? mutants : mutants.filter((one) => one.name === flags.mutant)
  if (wanted.length === 0 && flags.mutant !== 'none') throw new Error(`there is no mutant ${flags.mutant}`)
  for (const one of wanted) jobs.push(() => mutantIsFound(one, { seed, keep }))

  const outcomes: Outcome[] = []
  const add = async (job: () => Promise<Outcome>): Promise<void> => {
    const outcome = await job()
    console.log(`${outcome.ok ? 'ok  ' : 'FAIL'} ${outcome.name}: ${outcome.detail}`)
    outcomes.push(outcome)
  }
  console.log(`crash test, seed ${seed}`)
  const { kills, victims } = flags
  if (kills > 0) await add(() => randomKills({ seed, kills, streams: streams ?? 2, keep, victims }))
  const work = async (): Promise<void> => {
    for (let job = jobs.shift(); job !== undefined; job = jobs.shift()) await add(job)
  }
  await Promise.all(Array.from({ length: flags.parallel }, work))
  return outcomes
}

/** Flags of crash.js and run.js; they differ in what is done without any. */
export function parseFlags(defaults: Pick<Flags, 'kills' | 'points' | 'mutant' | 'parallel'>): Flags {
  const { values } = parseArgs({
    options: {
      seed: { type: 'string' },
      kills: { type: 'string' },
      streams: { type: 'string' },
      parallel: { type: 'string' },
      points: { type: 'string' },
      mutant: { type: 'string' },
      keep: { type: 'boolean', default: false },
      victims: { type: 'string' },
    },
  })
  // A point or a mutant that is named stands for itself.
  const only = values.kills === undefined && (values.points !== undefined || values.mutant !== undefined)
  return {
    seed: values.seed === undefined ? Math.floor(Math.random() * 1_000_000_000) : Number(values.seed),
    kills: values.kills === undefined ? (only ? 0 : defaults.kills) : Number(values.kills),
    streams: values.streams === undefined ? undefined : Number(values.streams),
    points: values.points ?? (only || values.kills !== undefined ? 'none' : defaults.points),
    mutant: values.mutant ?? (only || values.kills !== undefined ? 'none' : defaults.mutant),
    parallel: values.parallel === undefined ? defaults.parallel : Number(values.parallel),
    keep: values.keep,
    victims: values.victims === undefined ? VICTIMS : (values.victims.split(',') as Victim[]),
  }
}

export async function main(defaults: Parameters<typeof parseFlags>[0]): Promise<void> {
  const outcomes = await runAll(parseFlags(defaults))
  const failed = outcomes.filter((one) => !one.ok)
  console.log(`${outcomes.length - failed.length} passed, ${failed.length} failed`)
  process.exitCode = failed.length === 0 ? 0 : 1
}

if (process.argv[1] === fileURLToPath(import.meta.url))
  await main({ kills: 30, points: 'none', mutant: 'none', parallel: 1 })
