/**
 * What a bench found, kept: figures with the machine and the conditions they were found under, as `bench/charts/NAME.json`. Charts
 * and the README's tables are made from these files alone (draw.ts), never by hand.
 */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { arch, availableParallelism, cpus, loadavg, release, totalmem, type } from 'node:os'
import { join } from 'node:path'
import { rootDirectory } from '../src/paths.js'

export const chartsFolder = join(rootDirectory, 'bench', 'charts')

export interface Conditions {
  readonly date: string
  /** With + when the tree had changes of its own. */
  readonly commit: string
  readonly node: string
  readonly cpu: string
  readonly cores: number
  readonly memoryGb: number
  readonly system: string
  /** What ran on the machine in the minute before: above a few tenths, something else was at work. */
  readonly loadBefore: number
}

export interface Result<Figures> {
  readonly bench: string
  readonly conditions: Conditions
  readonly figures: Figures
}

function commitOf(): string {
  const git = (...args: string[]): string =>
    execFileSync('git', args, { cwd: rootDirectory, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim()
  try {
    return (
      git('rev-parse', '--short', 'HEAD') +
      (git('status', '--porcelain', 'src', 'workers', 'bench/*.ts') === '' ? '' : '+')
    )
  } catch {
    return 'unknown'
  }
}

/** To be asked before the bench makes load of its own. */
export function conditionsNow(): Conditions {
  return {
    date: new Date().toISOString().slice(0, 16),
    commit: commitOf(),
    node: process.version,
    cpu: cpus()[0]?.model.trim() || arch(),
    cores: availableParallelism(),
    memoryGb: Math.round(totalmem() / 2 ** 30),
    system: `${type()} ${release().split('-')[0]}`,
    loadBefore: Math.round(loadavg()[0]! * 10) / 10,
  }
}

/** One line for people. */
export function describe(c: Conditions): string {
  const quiet = c.loadBefore <= 0.5 ? 'quiet before' : `NOT quiet: load ${c.loadBefore} before`
  return `${c.cpu}, ${c.cores} cores for everything, ${c.memoryGb} GB, ${c.system}, Node ${c.node.slice(1)}; ${c.date.slice(0, 10)}, ${c.commit}; ${quiet}`
}

export function writeResult<Figures>(bench: string, conditions: Conditions, figures: Figures): void {
  mkdirSync(chartsFolder, { recursive: true })
  const result: Result<Figures> = { bench, conditions, figures }
  writeFileSync(join(chartsFolder, `${bench}.json`), `${JSON.stringify(result, null, 1)}\n`)
}

/** Undefined when it was never run. */
export function readResult<Figures>(bench: string): Result<Figures> | undefined {
  const path = join(chartsFolder, `${bench}.json`)
  return existsSync(path) ? (JSON.parse(readFileSync(path, 'utf8')) as Result<Figures>) : undefined
}

/** Names of the results that are there. */
export const results = (): string[] =>
  existsSync(chartsFolder)
    ? readdirSync(chartsFolder)
        .filter((name) => name.endsWith('.json'))
        .map((name) => name.slice(0, -'.json'.length))
        .sort()
    : []

export const medianOf = (values: readonly number[]): number => quantileOf(values, 0.5)

/** The nearest rank. */
export function quantileOf(values: readonly number[], q: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(q * sorted.length) - 1))] ?? Number.NaN
}
