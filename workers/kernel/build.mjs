/**
 * Builds the kernel: workers/kernel/*.as.ts to dist/workers/kernel.wasm, unless that is newer than every source. `--force` builds
 * always. Run by `npm run build:kernel`, which `npm run build` calls. No runtime, no collector: the sources lay out the memory.
 */
import { mkdirSync, readdirSync, statSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import asc from 'assemblyscript/asc'

const here = dirname(fileURLToPath(import.meta.url))
const root = join(here, '../..')
const target = join(root, 'dist/workers/kernel.wasm')

const sources = readdirSync(here).map((name) => join(here, name))
const builtAt = statSync(target, { throwIfNoEntry: false })?.mtimeMs ?? 0
const isStale = sources.some((source) => statSync(source).mtimeMs >= builtAt)

if (isStale || process.argv.includes('--force')) {
  mkdirSync(dirname(target), { recursive: true })
  const { error, stderr } = await asc.main([
    'workers/kernel/kernel.as.ts',
    ...['--baseDir', root, '--outFile', 'dist/workers/kernel.wasm'],
    ...['--runtime', 'stub', '--enable', 'simd', '--enable', 'bulk-memory', '--use', 'abort='],
    ...['-O3', '--noAssert'],
  ])
  if (error) throw new Error(`cannot build the kernel: ${error.message}\n${stderr.toString()}`)
}
