/**
 * A connection that is bad without being gone: releve too slow for the server, which then cuts it off; and pulls to which nothing
 * comes. Both are seen, counted and told, the door goes on, and every acknowledged event is counted once.
 */
import { once } from 'node:events'
import { createServer, connect as dial, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { connect } from 'nats'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { UsageAnswer } from '../../src/answers.js'
import { openNatsDoor } from '../../src/nats/nats.js'
import type { Health } from '../../src/system.js'
import { type DoorSystem, openDoorSystem } from '../doors/door-system.js'
import { promises } from '../promises.js'
import { openService } from '../service-process.js'
import { freePort, NatsServer, until } from './server.js'

const today = Math.floor(Date.now() / 86_400_000)
const range = { from: (today - 1) * 86_400_000, to: (today + 2) * 86_400_000 }

test(`a service that is slower than the server bears => cut off, counted, told by health, open again, and nothing acknowledged is lost ${promises('ingest:ack-after-disk')}`, {
  timeout: 180_000,
}, async () => {
  const server = new NatsServer(await freePort())
  await server.start('max_pending: 1MB')
  const service = await openService({ RELEVE_NATS_URL: server.url })
  const client = await connect({ servers: server.url })
  const figure = async (name: string): Promise<number> => {
    const text = await service.text('/metrics')
    return Number(new RegExp(`^${name} (\\S+)$`, 'm').exec(text)?.[1] ?? Number.NaN)
  }
  const health = (): Promise<Health> => service.call('GET', '/health/ready')
  try {
    await until(async () => (await health()).doors.nats?.up === true)
    expect(await figure('releve_nats_slow_consumer_total')).toBe(0)
    expect(JSON.stringify((await health()).notes)).not.toContain('slow consumer')

    // What nobody reads fills the sockets, and then what the server keeps for the connection.
    process.kill(service.pid, 'SIGSTOP')
    const pad = 'p'.repeat(200)
    const bodies = Array.from({ length: 150 }, (_, b) =>
      JSON.stringify(
        Array.from({ length: 1_000 }, (_, i) => ({
          id: `${b}-${i}`,
          metric: 'kyc',
          dims: { region: pad },
          time: Date.now(),
        })),
      ),
    )
    const answered = new Set<number>()
    const send = async (b: number): Promise<void> => {
      for (;;) {
        const answer = await client.request('usage.req.acme', bodies[b]!, { timeout: 5_000 }).catch(() => undefined)
        if (answer?.headers?.get('status') === '202') {
          answered.add(b)
          return
        }
        await sleep(100)
      }
    }
    // The rest is published to the stream meanwhile.
    const stream = client.jetstream()
    const sending = Promise.all(bodies.map((_, b) => send(b)))
    for (let i = 0; i < 5; i += 1) {
      const body = JSON.stringify([{ id: `stream ${i}`, metric: 'kyc', time: Date.now() }])
      await stream.publish('usage.in.acme', body, { timeout: 30_000 })
    }
    await until(() => server.log.includes('Slow Consumer Detected'))
    process.kill(service.pid, 'SIGCONT')
    await sending
    expect(answered.size).toBe(150)
    await until(async () => (await health()).doors.nats?.up === true)
    expect(await figure('releve_nats_slow_consumer_total')).toBeGreaterThanOrEqual(1)
    expect(await figure('releve_nats_stalls_total')).toBe(0)
    const { ready, notes } = await health()
    expect(ready).toBe(true)
    expect(notes.join()).toMatch(
      /the nats door: the server cut the connection off .* slow consumer.*\(\d+ since the start\)/,
    )

    const manager = await client.jetstreamManager()
    await until(async () => (await manager.streams.info('RELEVE_USAGE')).state.messages === 0)
    await until(async () => (await service.call<{ onTheWay: number }>('GET', '/v1/books')).onTheWay === 0)
    const { windows } = await service.call<UsageAnswer>(
      'GET',
      `/v1/usage?tenant=acme&metric=kyc&from=${range.from}&to=${range.to}`,
    )
    expect(windows[0]).toMatchObject({ count: '150005' })
  } finally {
    await client.close()
    await service.close()
    await server.close()
  }
})

/** A network between the door and the server, which may change what the door says. */
class Between {
  change: (text: string) => string = (text) => text
  readonly #server = createServer((from) => this.#join(from))
  readonly #sockets = new Set<Socket>()
  readonly #to: number
  port = 0

  constructor(to: number) {
    this.#to = to
  }

  async open(): Promise<void> {
    this.#server.listen(0, '127.0.0.1')
    await once(this.#server, 'listening')
    this.port = (this.#server.address() as { port: number }).port
  }

  #join(from: Socket): void {
    const to = dial(this.#to, '127.0.0.1')
    for (const socket of [from, to]) {
      this.#sockets.add(socket)
      socket.on('error', () => {})
      socket.on('close', () => {
        this.#sockets.delete(socket)
        from.destroy()
        to.destroy()
      })
    }
    // Lengths stay as they are, or the server would lose its place.
    from.on('data', (bytes) => to.write(Buffer.from(this.change(bytes.toString('latin1')), 'latin1')))
    to.pipe(from)
  }

  close(): void {
    for (const socket of this.#sockets) socket.destroy()
    this.#server.close()
  }
}

let doors: DoorSystem
const server = new NatsServer(await freePort())
const between = new Between(server.port)
beforeAll(async () => {
  await server.start()
  await between.open()
  doors = await openDoorSystem({ RELEVE_NATS_URL: `nats://127.0.0.1:${between.port}` })
})
afterAll(async () => {
  await doors?.close()
  between.close()
  await server.close()
})

test.each([
  [
    'a pull that neither ends nor fails',
    // The server answers where nobody listens.
    (text: string) =>
      text.replaceAll(
        /(MSG\.NEXT\.RELEVE_USAGE\.releve _INBOX\.)(.)/g,
        (_, head: string, first: string) => head + (first === 'A' ? 'B' : 'A'),
      ),
    'a pull did not end',
  ],
  [
    'pulls that end with nothing though messages wait',
    // So few bytes that no message fits.
    (text: string) => text.replaceAll('"max_bytes":4194304', '"max_bytes":1      '),
    'though 1 messages wait',
  ],
])(
  '%s => the watchdog gives the connection up and says why; the next one takes what waits',
  { timeout: 120_000 },
  async (_, change, why) => {
    const { system } = doors
    const stalls = async (): Promise<number> => (await system.metrics.natsStalls.get()).values[0]!.value
    const before = await stalls()
    between.change = change
    const door = openNatsDoor(system, { ...system.config.nats!, stallMs: 2_000 })
    await until(() => door.state().up)
    const client = await connect({ servers: server.url })
    await client.jetstream().publish('usage.in.acme', JSON.stringify([{ id: why, metric: 'kyc' }]))
    const { accepted } = system.books().totals
    await until(() => door.state().reason?.includes(why) === true)
    expect(system.health().notes.join()).toContain(why)
    expect(system.health().ready).toBe(true)
    between.change = (text) => text
    await until(() => door.state().up)
    expect(await stalls()).toBeGreaterThan(before)
    expect((await system.metrics.natsSlow.get()).values[0]!.value).toBe(0)
    await until(async () => {
      await system.settle()
      return system.books().totals.accepted === accepted + 1
    })
    await client.close()
    await door.close()
  },
)
