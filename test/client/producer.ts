/**
 * A sender to be killed: node producer.js URL KEY SPOOL TENANT PREFIX. Sends one event after the other through a client whose spool
 * comes first, and prints after each flush how many are safe, a line each.
 */
import { openClient } from '../../src/client/client.js'

const [url = '', key = '', directory = '', tenant = '', prefix = ''] = process.argv.slice(2)
const client = openClient({ url, key, spool: { directory, always: true }, batchEvents: 100, lingerMs: 5 })
for (let i = 0; ; i += 1) {
  const wait = client.send({ id: `${prefix}-${i}`, tenant, metric: 'kyc', time: Date.now(), value: '0.001' })
  if (wait !== undefined) await wait
  if (i % 250 === 249) {
    await client.flush()
    process.stdout.write(`${i + 1}\n`)
  }
}
