/**
 * Every bench once with its small sizes, so that none rots: it must end well and print a line. What it measures is not asserted;
 * the canonical one compares the totals itself and fails when they are wrong.
 */
import { execFile } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { rootDirectory } from '../src/paths.js'

const run = promisify(execFile)
const folder = join(rootDirectory, 'dist', 'bench')
// bench.ts is the table of the canonical one.
const benches = readdirSync(join(rootDirectory, 'bench')).filter(
  (name) => name === 'bench.ts' || (name.endsWith('.bench.ts') && name !== 'canonical.bench.ts'),
)

test('there are benches', () => {
  expect(benches.length).toBeGreaterThan(3)
})

for (const bench of benches) {
  test(`${bench} runs with its small sizes`, async () => {
    const args = bench === 'dedupe.bench.ts' ? ['20000'] : ['small']
    const { stdout } = await run(process.execPath, [join(folder, bench.replace(/\.ts$/, '.js')), ...args])
    expect(stdout.trim()).not.toBe('')
    expect(stdout).not.toContain('WRONG')
  })
}
