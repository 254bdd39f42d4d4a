/**
 * Every bench that has a chart or a table in the README, one after the other in processes of their own, then the charts and tables. For a
 * machine that does nothing else. One that fails ends it, with exit code 1; what the ones before it found is kept.
 *
 *     node dist/bench/all.js                     about twenty minutes on two cores
 *     node dist/bench/all.js limits nats         some of them
 */
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { drawAll } from './draw.js'

const names = process.argv.slice(2)
const say = (line: string): void => {
  process.stdout.write(`${line}\n`)
}
for (const name of names.length > 0 ? names : ['limits', 'nats', 'growth', 'peers']) {
  const began = performance.now()
  const [file, ...args] = name.split('-')
  const script = fileURLToPath(new URL(`./${file}.bench.js`, import.meta.url))
  const { status } = spawnSync(process.execPath, [script, 'large', ...args], { stdio: 'inherit' })
  say(`${name}: ${Math.round((performance.now() - began) / 1000)} s`)
  if (status !== 0) {
    process.exitCode = 1
    break
  }
}
drawAll(say)
