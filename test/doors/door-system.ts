/**
 * A service for the tests of the doors: real engines in a directory of its own, in this process, with a metric and two tenants.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { FastifyInstance } from 'fastify'
import { systemClock } from '../../src/clock.js'
import { parseConfig } from '../../src/config.js'
import { buildHttp } from '../../src/http/http.js'
import { silentLogger } from '../../src/logger.js'
import { openSystem, type System } from '../../src/system.js'

export interface DoorSystem {
  readonly system: System
  readonly app: FastifyInstance
  readonly url: string
  /** Platform-wide, all scopes. */
  readonly adminKey: string
  /** Bound to acme: ingest and read. */
  readonly acmeKey: string
  close(): Promise<void>
}

export const kyc = {
  key: 'kyc',
  aggregation: 'sum',
  unit: 'document',
  scale: 3,
  dims: ['plan', 'region'],
  archive: true,
}

export const customer = (tenant: string): Record<string, unknown> => ({
  tenant,
  name: tenant,
  country: 'CI',
  address: [],
  registrations: {},
  taxRate: '18',
  taxCategory: 'S',
  currency: 'EUR',
  timeZone: 'Africa/Abidjan',
  language: 'fr',
  termDays: 30,
})

export async function openDoorSystem(env: Record<string, string> = {}): Promise<DoorSystem> {
  const data = mkdtempSync(join(tmpdir(), 'releve-doors-'))
  const remove = (): void => rmSync(data, { recursive: true, force: true })
  try {
    const system = await openSystem({
      config: parseConfig({
        RELEVE_DATA: data,
        RELEVE_PORT: '0',
        RELEVE_STREAMS: '2',
        RELEVE_EPOCH_MS: '200',
        RELEVE_LOG: 'silent',
        ...env,
      }),
      clock: systemClock,
      logger: silentLogger,
      onFatal: (error) => {
        throw error
      },
    })
    const app = await buildHttp(system)
    const url = await app.listen({ host: '127.0.0.1', port: 0 })
    await system.catalog.putMetric(kyc)
    for (const tenant of ['acme', 'banque']) await system.catalog.putCustomer(customer(tenant))
    await system.catalogSettled()
    const { secret } = await system.keys.create({ name: 'acme', tenant: 'acme', scopes: ['ingest', 'read'] })
    return {
      system,
      app,
      url,
      adminKey: readFileSync(system.keys.adminKeyFile, 'utf8').trim(),
      acmeKey: secret,
      close: async () => {
        await app.close()
        await system.close()
        remove()
      },
    }
  } catch (error) {
    remove()
    throw error
  }
}

/** Records one crossing of acme's, as a shard would: what goes out of a door is the test's concern, not how it came about. */
export async function crossThreshold({ system }: DoorSystem, threshold: string): Promise<void> {
  const { rows } = await system.engines.postgres.query('SELECT fence FROM streams WHERE stream = 0')
  await system.alerts.record(0, Number(rows[0].fence), [
    {
      type: 'alert.triggered',
      kind: 'threshold',
      rule: null,
      subject: null,
      forecast: null,
      tenant: 'acme',
      contract: 'c',
      item: 'i',
      product: 'p',
      metric: 'kyc',
      period: { from: 0, to: 1 },
      threshold,
      limitVersion: 1,
      limit: '10',
      balance: '9',
      sequence: 1,
      position: null,
      eventTime: null,
      receivedAt: Date.now(),
    },
  ])
}
