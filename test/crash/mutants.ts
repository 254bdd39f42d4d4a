/**
 * Mutants: copies of dist/ with one mechanism of the exactly-once protocol taken out. Each must be found by the crash test, at the
 * crash point that shows it, and by the difference that it makes; one that survives means that the test is blind, or that
 * another mechanism protects as well.
 *
 * Where two mechanisms protect against the same loss, one alone may go unnoticed, and the mutant takes both out:
 *   skip-manifest  the rows of a chunk are counted after each insert that may be a repetition, and made anew when they are not as
 *                 many; that mends most epochs with other bounds, though not one with as many rows and other sums. So the count
 *                 behind the insert goes too.
 *   random-token  with the rows counted before the insert, a repetition of what is there is not even sent; counted behind it, the
 *                 surplus is taken out. So both counts go too. (The counts cover what the bounded token window has forgotten, the
 *                 token an insert that landed in some partitions only or is still on its way.)
 *   no-dedupe-restore  with the state restored and the ids left out, the restored counts contradict the empty table and the
 *                 service refuses to start. So the state goes too.
 */
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { CrashPoint } from '../../src/crash-points.js'
import { projectRoot } from './scenario.js'

export interface Mutant {
  readonly name: string
  /** The service dies here, once, at this pass. */
  readonly point: CrashPoint
  readonly pass: number
  /** Rows of the unfinished epoch are taken away after the crash, their tokens stay. */
  readonly losesRows?: boolean
  /** Share of batches with a crossing that leaves no trace in the balance. */
  readonly spikes?: number
  /** What the failed run must say. */
  readonly sign: RegExp
  readonly file: string
  /** Compiled text and what stands there instead; each must be found exactly once. */
  readonly changes: readonly (readonly [from: string, to: string])[]
}

const KEYS = `if (sealed.keys !== null)
            await this.#retry('keys', () => ids.append(sealed.keys));`
const RECORD = `const recorded = this.#o.alerts.record(this.stream, this.#fence, reply.crossings);
        this.#alertsPending = this.#alertsPending.then(() => recorded);
        this.#alertsPending.catch((error) => this.#fail(error));`

export const mutants: readonly Mutant[] = [
  {
    // Some chunks have landed; the epoch is done again with whatever the log has by then.
    name: 'skip-manifest',
    point: 'after-chunk',
    pass: 6,
    sign: /audit (rows|counted|archived|replay)|usage tenant/,
    file: 'dist/src/flow.js',
    changes: [
      [`await this.#retry('manifest', () => this.#writeManifest(sealed));`, ''],
      ['if (isFirst && tries === 1)', 'if (tries === 1)'],
    ],
  },
  {
    // The checkpoint names ids that no file has: the service must see it and not start, rather than count repeats anew.
    name: 'keys-after-checkpoint',
    point: 'after-checkpoint',
    pass: 3,
    sign: /FATAL: [^"]* should hold/,
    file: 'dist/src/flow.js',
    changes: [
      [KEYS, ''],
      [`crash('after-checkpoint');`, `crash('after-checkpoint'); ${KEYS}`],
    ],
  },
  {
    name: 'random-token',
    point: 'after-chunk',
    pass: 6,
    sign: /audit (rows|counted|archived|replay)/,
    file: 'dist/src/flow.js',
    changes: [
      [
        'async #land(chunk, key, token, there, isFirst) {',
        'async #land(chunk, key, _, there, isFirst) { const token = String(Math.random());',
      ],
      [
        `const landed = await this.#retry('count', () => rollup.landed(this.stream, epoch, tablesOf(chunks)));`,
        'const landed = new Map();',
      ],
      [`const isFirst = there === 0 && this.#state !== 'opening';`, 'const isFirst = true;'],
    ],
  },
  {
    // Crossings that were voided again before the epoch ended: no later look at the balance finds them.
    name: 'checkpoint-before-alert',
    point: 'after-checkpoint',
    pass: 3,
    spikes: 1,
    sign: /alert .* (is missing|rang at)/,
    file: 'dist/src/flow.js',
    changes: [
      [RECORD, '(this.late ??= []).push(reply.crossings);'],
      // By epoch: the flush of one runs while the next one is applied.
      ['return { ...sealed, from, to:', 'return { ...sealed, late: this.late?.splice(0) ?? [], from, to:'],
      [
        `crash('after-checkpoint');`,
        `crash('after-checkpoint'); for (const late of sealed.late) await this.#o.alerts.record(this.stream, this.#fence, late);`,
      ],
    ],
  },
  {
    name: 'no-dedupe-restore',
    point: 'after-checkpoint',
    pass: 4,
    sign: /: accepted, expected duplicate|books: accepted|usage tenant/,
    file: 'dist/src/flow.js',
    changes: [
      ['await shard.beginRestore(row.dedupe);', ''],
      ['await shard.restoreBlock(block);', 'void block;'],
      ['restored: row.dedupe !== null,', 'restored: false,'],
    ],
  },
  {
    // An insert that ClickHouse ignores, for it knows the token, is answered like one that lands.
    name: 'trust-the-token',
    point: 'after-chunk',
    pass: 6,
    losesRows: true,
    sign: /audit (rows|counted|replay)/,
    file: 'dist/src/flow.js',
    changes: [['if (isFirst && tries === 1)', 'if (tries === 1)']],
  },
]

/** A project directory with the mutant's dist/; node_modules and sql are the real ones. */
export function buildMutant(mutant: Mutant): { readonly root: string; remove(): void } {
  const root = mkdtempSync(join(tmpdir(), `releve-mutant-${mutant.name}-`))
  cpSync(join(projectRoot, 'dist/src'), join(root, 'dist/src'), { recursive: true })
  cpSync(join(projectRoot, 'dist/workers'), join(root, 'dist/workers'), { recursive: true })
  cpSync(join(projectRoot, 'package.json'), join(root, 'package.json'))
  for (const name of ['node_modules', 'sql', 'src']) symlinkSync(join(projectRoot, name), join(root, name))
  const file = join(root, mutant.file)
  let text = readFileSync(file, 'utf8')
  for (const [from, to] of mutant.changes) {
    const found = text.split(from).length - 1
    if (found !== 1)
      throw new Error(`mutant ${mutant.name}: «${from}» is ${found} times in ${mutant.file}, must be there once`)
    text = text.replace(from, () => to)
  }
  writeFileSync(file, text)
  return { root, remove: () => rmSync(root, { recursive: true, force: true }) }
}
