/** The bench over NATS with its small sizes, so that it does not rot; it compares the totals itself. What it measures is not asserted. */
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { expect, test } from 'vitest'
import { rootDirectory } from '../../src/paths.js'

test('msgpack and columnar frames over JetStream, published while they are pulled => all of them are counted once', async () => {
  const { stdout } = await promisify(execFile)(process.execPath, [
    join(rootDirectory, 'dist', 'bench', 'nats.bench.js'),
    'small',
  ])
  expect(stdout.match(/^(msgpack|columnar) .* taken/gm)).toHaveLength(6)
  expect(stdout).toContain('totals right')
})
