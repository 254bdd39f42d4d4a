/**
 * Every bench once with its small sizes, so that none rots: it must end well and print a line. What it measures is not asserted;
 * those that count compare their totals themselves and fail when they are wrong. The one over NATS stands with the tests of that door.
 */
import { execFile } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { otherBenches } from '../../bench/bench.js'
import { rootDirectory } from '../../src/paths.js'

const run = promisify(execFile)
const folder = join(rootDirectory, 'dist', 'bench')
// bench.ts is the table of the canonical one; the one over NATS needs a server.
const elsewhere = ['canonical.bench.ts', 'nats.bench.ts']
const benches = readdirSync(join(rootDirectory, 'bench')).filter(
  (name) => name === 'bench.ts' || (name.endsWith('.bench.ts') && !elsewhere.includes(name)),
)

test('there are benches', () => {
  expect(benches.length).toBeGreaterThan(3)
})

test('bench/README.md and the last lines of the table name every bench', () => {
  const readme = readFileSync(join(rootDirectory, 'bench', 'README.md'), 'utf8')
  for (const name of readdirSync(join(rootDirectory, 'bench')).filter((name) => name.endsWith('.bench.ts'))) {
    const command = name.replace(/\.ts$/, '.js')
    expect(readme).toContain(command)
    if (name !== 'canonical.bench.ts') expect(otherBenches.map(([, command]) => command).join('\n')).toContain(command)
  }
})

for (const bench of benches) {
  test(`${bench} runs with its small sizes`, async () => {
    const args = bench === 'dedupe.bench.ts' ? ['20000'] : ['small']
    const { stdout } = await run(process.execPath, [join(folder, bench.replace(/\.ts$/, '.js')), ...args])
    expect(stdout.trim()).not.toBe('')
    expect(stdout).not.toContain('WRONG')
    // Several services one after the other: half a minute, and minutes on a machine that does other things too.
  }, 600_000)
}
