/**
 * Every route of the door, tried with every kind of key. The table below is held against the routes that fastify has: a new
 * route without an entry fails the first test.
 */
import { beforeAll, describe, expect, test } from 'vitest'
import { Scope } from '../../src/access/keys.js'
import { ErrorCode } from '../../src/errors.js'
import { promises } from '../promises.js'
import { openTestSystem, type TestSystem } from '../system.js'

type Who = Scope | 'own' | 'other'

interface Route {
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
  /** As fastify prints it. */
  readonly route: string
  readonly scope: 'public' | 'any' | Scope
  /** An address that works. */
  readonly url: string
  readonly body?: unknown
  /** Status for whoever may; 200 unless said. */
  readonly status?: number
  /**
   * What the key of the tenant alpha may ask and what is another's: addresses, and the status of the latter. `filtered` answers
   * both alike, without anything of another tenant.
   */
  readonly tenants?: { readonly own: string; readonly other: string; readonly refused: 403 | 404 }
  readonly filtered?: boolean
  /** Works a single time: tried by the first key that may. */
  readonly once?: boolean
  /** Not tried here: it has no end of its own. */
  readonly streams?: boolean
}

const range = 'from=2026-03-01T00:00:00Z&to=2026-04-01T00:00:00Z'
const json = (body: unknown) => ({ body })
const usage = (tenant: string) => `/v1/usage?metric=data&${range}&tenant=${tenant}`

/** An address of this machine where nobody listens. */
const nobody = 'http://127.0.0.1:1/hook'

/** A route of one object, asked for an object that is not there; whose it may be is tested where such objects are made. */
const absent = (method: Route['method'], route: string, scope: Scope, body?: unknown): Route => ({
  method,
  route,
  scope,
  url: route.replace(':id', 'nothing'),
  status: 404,
  ...(body === undefined ? {} : { body }),
})

/** Filled by beforeAll, since ids are made by the service. */
const ids: Record<string, string> = {}

const routes: readonly Route[] = [
  { method: 'GET', route: '/health/live', scope: 'public', url: '/health/live' },
  { method: 'GET', route: '/health/ready', scope: 'public', url: '/health/ready' },
  { method: 'GET', route: '/metrics', scope: 'admin', url: '/metrics' },
  {
    method: 'POST',
    route: '/v1/events',
    scope: 'ingest',
    url: '/v1/events',
    status: 202,
    ...json([]),
  },
  {
    method: 'GET',
    route: '/v1/usage',
    scope: 'read',
    url: usage('alpha'),
    tenants: { own: usage('alpha'), other: usage('gamma'), refused: 403 },
  },
  {
    method: 'GET',
    route: '/v1/quotas/:tenant',
    scope: 'read',
    url: '/v1/quotas/alpha',
    tenants: { own: '/v1/quotas/alpha', other: '/v1/quotas/gamma', refused: 403 },
  },
  {
    method: 'GET',
    route: '/v1/rejects',
    scope: 'read',
    url: '/v1/rejects',
    tenants: { own: '/v1/rejects?tenant=alpha', other: '/v1/rejects?tenant=gamma', refused: 403 },
    filtered: true,
  },
  {
    method: 'GET',
    route: '/v1/rejects/export',
    scope: 'read',
    url: '/v1/rejects/export',
    tenants: { own: '/v1/rejects/export?tenant=alpha', other: '/v1/rejects/export?tenant=gamma', refused: 403 },
    filtered: true,
  },
  { method: 'POST', route: '/v1/rejects/resend', scope: 'ingest', url: '/v1/rejects/resend', ...json([]) },
  { method: 'GET', route: '/v1/books', scope: 'admin', url: '/v1/books' },
  {
    method: 'GET',
    route: '/v1/alerts',
    scope: 'read',
    url: '/v1/alerts',
    tenants: { own: '/v1/alerts?tenant=alpha', other: '/v1/alerts?tenant=gamma', refused: 403 },
    filtered: true,
  },
  {
    method: 'GET',
    route: '/v1/alerts/stream',
    scope: 'read',
    url: '/v1/alerts/stream',
    tenants: { own: '/v1/alerts/stream', other: '/v1/alerts/stream?tenant=gamma', refused: 403 },
    streams: true,
  },
  { method: 'GET', route: '/v1/keys', scope: 'admin', url: '/v1/keys' },
  {
    method: 'POST',
    route: '/v1/keys',
    scope: 'admin',
    url: '/v1/keys',
    status: 201,
    ...json({ name: 'made', scopes: ['read'] }),
  },
  {
    method: 'PATCH',
    route: '/v1/keys/:id',
    scope: 'admin',
    url: '/v1/keys/KEY',
    ...json({ limits: { eventsPerSecond: 5 } }),
  },
  {
    method: 'POST',
    route: '/v1/keys/:id/rotate',
    scope: 'admin',
    url: '/v1/keys/KEY/rotate',
    ...json({ overlapSeconds: 60 }),
  },
  { method: 'DELETE', route: '/v1/keys/:id', scope: 'admin', url: '/v1/keys/KEY' },
  { method: 'GET', route: '/v1/metrics-catalog', scope: 'read', url: '/v1/metrics-catalog' },
  {
    method: 'PUT',
    route: '/v1/metrics-catalog',
    scope: 'admin',
    url: '/v1/metrics-catalog',
    ...json({ key: 'made', aggregation: 'sum', unit: 'piece' }),
  },
  { method: 'GET', route: '/v1/plans', scope: 'read', url: '/v1/plans' },
  {
    method: 'PUT',
    route: '/v1/plans',
    scope: 'admin',
    url: '/v1/plans',
    ...json({ key: 'made', product: 'P', name: 'Made' }),
  },
  { method: 'PUT', route: '/v1/products', scope: 'admin', url: '/v1/products', ...json({ key: 'made', name: 'Made' }) },
  {
    method: 'PUT',
    route: '/v1/legal-entities',
    scope: 'admin',
    url: '/v1/legal-entities',
    ...json({ key: 'made', name: 'Made', country: 'CI' }),
  },
  { method: 'GET', route: '/v1/prices', scope: 'read', url: '/v1/prices' },
  {
    method: 'PUT',
    route: '/v1/prices',
    scope: 'admin',
    url: '/v1/prices',
    ...json({ rule: { rule_id: 'made', type: 'per_unit', metric: 'data', unit_price: '1', currency: 'EUR' } }),
  },
  {
    method: 'POST',
    route: '/v1/prices',
    scope: 'admin',
    url: '/v1/prices',
    ...json({ rule: { rule_id: 'made', type: 'per_unit', metric: 'data', unit_price: '1', currency: 'EUR' } }),
  },
  {
    method: 'POST',
    route: '/v1/prices/:rule/:version/activate',
    scope: 'admin',
    url: '/v1/prices/nothing/1.0/activate',
    status: 404,
    ...json({}),
  },
  {
    method: 'POST',
    route: '/v1/prices/:rule/:version/archive',
    scope: 'admin',
    url: '/v1/prices/nothing/1.0/archive',
    status: 404,
  },
  { method: 'GET', route: '/v1/taxes', scope: 'read', url: '/v1/taxes' },
  { method: 'GET', route: '/v1/catalog/lint', scope: 'admin', url: '/v1/catalog/lint' },
  { method: 'GET', route: '/v1/customers', scope: 'read', url: '/v1/customers', filtered: true },
  {
    method: 'PUT',
    route: '/v1/customers',
    scope: 'admin',
    url: '/v1/customers',
    ...json({ tenant: 'made', name: 'Made', country: 'CI', taxRate: '0', currency: 'EUR', timeZone: 'UTC' }),
  },
  { method: 'GET', route: '/v1/contracts', scope: 'read', url: '/v1/contracts', filtered: true },
  {
    method: 'PUT',
    route: '/v1/contracts',
    scope: 'admin',
    url: '/v1/contracts',
    ...json({
      id: 'contract-gamma',
      tenant: 'gamma',
      legalEntity: 'seller',
      start: '2026-01-01',
      timeZone: 'UTC',
      items: [{ id: 'item-gamma', plan: 'plan' }],
    }),
  },
  {
    method: 'POST',
    route: '/v1/rating/preview',
    scope: 'read',
    url: '/v1/rating/preview',
    ...json({
      price: { rule_id: 'x', type: 'per_unit', metric: 'data', unit_price: '1.50', currency: 'EUR' },
      quantity: '3',
    }),
  },
  {
    method: 'POST',
    route: '/v1/rating/compare',
    scope: 'read',
    url: '/v1/rating/compare',
    ...json({ plans: [{ key: 'plan' }], usage: { data: '3' }, currency: 'EUR' }),
  },
  {
    method: 'GET',
    route: '/v1/invoices',
    scope: 'read',
    url: '/v1/invoices',
    tenants: { own: '/v1/invoices?tenant=alpha', other: '/v1/invoices?tenant=gamma', refused: 403 },
    filtered: true,
  },
  {
    method: 'GET',
    route: '/v1/invoices/:id',
    scope: 'read',
    url: '/v1/invoices/ALPHA-INVOICE',
    tenants: { own: '/v1/invoices/ALPHA-INVOICE', other: '/v1/invoices/GAMMA-INVOICE', refused: 404 },
  },
  {
    method: 'POST',
    route: '/v1/invoices/:id/verify',
    scope: 'read',
    url: '/v1/invoices/ALPHA-INVOICE/verify',
    tenants: {
      own: '/v1/invoices/ALPHA-INVOICE/verify',
      other: '/v1/invoices/GAMMA-INVOICE/verify',
      refused: 404,
    },
  },
  {
    method: 'GET',
    route: '/v1/invoices/:id/lines/:no/events',
    scope: 'read',
    url: '/v1/invoices/ALPHA-INVOICE/lines/1/events',
    tenants: {
      own: '/v1/invoices/ALPHA-INVOICE/lines/1/events',
      other: '/v1/invoices/GAMMA-INVOICE/lines/1/events',
      refused: 404,
    },
  },
  {
    method: 'GET',
    route: '/v1/invoices/:id/lines/:no/usage-data',
    scope: 'read',
    url: '/v1/invoices/ALPHA-INVOICE/lines/1/usage-data',
    tenants: {
      own: '/v1/invoices/ALPHA-INVOICE/lines/1/usage-data',
      other: '/v1/invoices/GAMMA-INVOICE/lines/1/usage-data',
      refused: 404,
    },
  },
  {
    method: 'POST',
    route: '/v1/rating/shadow',
    scope: 'admin',
    url: '/v1/rating/shadow',
    ...json({ plans: [{ from: 'plan', to: 'plan' }], from: '2026-03-01T00:00:00Z', to: '2026-04-01T00:00:00Z' }),
  },
  {
    method: 'GET',
    route: '/v1/invoices/:id/moves',
    scope: 'read',
    url: '/v1/invoices/ALPHA-INVOICE/moves',
    tenants: {
      own: '/v1/invoices/ALPHA-INVOICE/moves',
      other: '/v1/invoices/GAMMA-INVOICE/moves',
      refused: 404,
    },
  },
  {
    method: 'POST',
    route: '/v1/invoices/:id/moves',
    scope: 'admin',
    url: '/v1/invoices/ALPHA-INVOICE/moves',
    ...json({ to: 'sent' }),
  },
  {
    method: 'POST',
    route: '/v1/invoices/:id/refresh',
    scope: 'admin',
    url: '/v1/invoices/ALPHA-INVOICE/refresh',
    status: 409,
    ...json({}),
  },
  {
    method: 'GET',
    route: '/v1/invoices/:id/late',
    scope: 'read',
    url: '/v1/invoices/ALPHA-INVOICE/late',
    tenants: {
      own: '/v1/invoices/ALPHA-INVOICE/late',
      other: '/v1/invoices/GAMMA-INVOICE/late',
      refused: 404,
    },
  },
  {
    method: 'POST',
    route: '/v1/invoices/:id/settle-late',
    scope: 'admin',
    url: '/v1/invoices/ALPHA-INVOICE/settle-late',
    ...json({}),
  },
  {
    method: 'POST',
    route: '/v1/invoices/:id/credit',
    scope: 'admin',
    url: '/v1/invoices/ALPHA-INVOICE/credit',
    status: 422,
    ...json({ amount: '999999.00' }),
  },
  {
    method: 'POST',
    route: '/v1/invoices/:id/certification',
    scope: 'admin',
    url: '/v1/invoices/ALPHA-INVOICE/certification',
    status: 409,
    ...json({ outcome: 'not_taken' }),
  },
  {
    method: 'GET',
    route: '/v1/contracts/:contract/invoice-preview',
    scope: 'read',
    url: '/v1/contracts/contract-alpha/invoice-preview',
    tenants: {
      own: '/v1/contracts/contract-alpha/invoice-preview',
      other: '/v1/contracts/contract-gamma/invoice-preview',
      refused: 404,
    },
  },
  {
    method: 'POST',
    route: '/v1/periods/close',
    scope: 'admin',
    url: '/v1/periods/close',
    ...json({ contract: 'contract-alpha', at: '2026-02-10T00:00:00Z' }),
  },
  {
    method: 'POST',
    route: '/v1/prepaid/packs',
    scope: 'admin',
    url: '/v1/prepaid/packs',
    status: 201,
    ...json({ contract: 'contract-alpha', item: 'item-alpha', metric: 'data', quantity: '5', id: 'alpha-pack' }),
  },
  {
    method: 'GET',
    route: '/v1/prepaid/packs',
    scope: 'read',
    url: '/v1/prepaid/packs',
    tenants: { own: '/v1/prepaid/packs?tenant=alpha', other: '/v1/prepaid/packs?tenant=gamma', refused: 403 },
  },
  {
    method: 'GET',
    route: '/v1/prepaid/packs/:id/ledger',
    scope: 'read',
    url: '/v1/prepaid/packs/alpha-pack/ledger',
  },
  {
    method: 'GET',
    route: '/v1/contracts/:contract',
    scope: 'read',
    url: '/v1/contracts/contract-alpha',
    tenants: { own: '/v1/contracts/contract-alpha', other: '/v1/contracts/contract-gamma', refused: 404 },
  },
  {
    method: 'POST',
    route: '/v1/contracts/:contract/move',
    scope: 'admin',
    url: '/v1/contracts/contract-sigma/move',
    ...json({ state: 'suspended', reason: 'unpaid' }),
  },
  {
    method: 'POST',
    route: '/v1/contracts/:contract/notice',
    scope: 'admin',
    url: '/v1/contracts/contract-sigma/notice',
    ...json({ reason: 'leaves' }),
  },
  { method: 'GET', route: '/v1/coupons', scope: 'admin', url: '/v1/coupons' },
  {
    method: 'POST',
    route: '/v1/coupons',
    scope: 'admin',
    url: '/v1/coupons',
    status: 201,
    ...json({ code: 'DIX', name: 'Ten', kind: 'percent', value: '10' }),
  },
  {
    method: 'POST',
    route: '/v1/contracts/:contract/coupons',
    scope: 'admin',
    url: '/v1/contracts/contract-sigma/coupons',
    ...json({ code: 'DIX' }),
  },
  { method: 'GET', route: '/v1/renewals', scope: 'read', url: '/v1/renewals?days=60', filtered: true },
  { method: 'GET', route: '/v1/trials', scope: 'read', url: '/v1/trials' },
  {
    method: 'POST',
    route: '/v1/trials/:contract/extend',
    scope: 'admin',
    url: '/v1/trials/contract-sigma/extend',
    status: 409,
    ...json({ reason: 'asked' }),
  },
  {
    method: 'POST',
    route: '/v1/trials/:contract/convert',
    scope: 'admin',
    url: '/v1/trials/contract-sigma/convert',
    status: 409,
    ...json({ reason: 'signed' }),
  },
  {
    method: 'POST',
    route: '/v1/contracts/:contract/change-plan',
    scope: 'admin',
    url: '/v1/contracts/contract-sigma/change-plan',
    ...json({ item: 'item-sigma', plan: 'plan', from: '2026-04-15' }),
  },
  {
    method: 'GET',
    route: '/v1/webhooks',
    scope: 'read',
    url: '/v1/webhooks',
    tenants: { own: '/v1/webhooks?tenant=alpha', other: '/v1/webhooks?tenant=gamma', refused: 403 },
  },
  {
    method: 'POST',
    route: '/v1/webhooks',
    scope: 'manage',
    url: '/v1/webhooks',
    status: 201,
    ...json({ tenant: 'alpha', url: nobody }),
  },
  {
    method: 'GET',
    route: '/v1/webhooks/:id',
    scope: 'read',
    url: '/v1/webhooks/ALPHA-HOOK',
    tenants: { own: '/v1/webhooks/ALPHA-HOOK', other: '/v1/webhooks/GAMMA-HOOK', refused: 404 },
  },
  {
    method: 'PATCH',
    route: '/v1/webhooks/:id',
    scope: 'manage',
    url: '/v1/webhooks/ALPHA-HOOK',
    ...json({ description: 'x' }),
  },
  { method: 'POST', route: '/v1/webhooks/:id/test', scope: 'manage', url: '/v1/webhooks/ALPHA-HOOK/test' },
  {
    method: 'POST',
    route: '/v1/webhooks/:id/rotate-secret',
    scope: 'manage',
    url: '/v1/webhooks/ALPHA-HOOK/rotate-secret',
    ...json({}),
  },
  { method: 'DELETE', route: '/v1/webhooks/:id', scope: 'manage', url: '/v1/webhooks/ALPHA-HOOK', once: true },
  {
    method: 'GET',
    route: '/v1/email-recipients',
    scope: 'read',
    url: '/v1/email-recipients',
    tenants: { own: '/v1/email-recipients?tenant=alpha', other: '/v1/email-recipients?tenant=gamma', refused: 403 },
  },
  {
    method: 'POST',
    route: '/v1/email-recipients',
    scope: 'manage',
    url: '/v1/email-recipients',
    status: 201,
    ...json({ tenant: 'alpha', address: 'b@example.com' }),
  },
  {
    method: 'GET',
    route: '/v1/email-recipients/:id',
    scope: 'read',
    url: '/v1/email-recipients/ALPHA-MAIL',
    tenants: { own: '/v1/email-recipients/ALPHA-MAIL', other: '/v1/email-recipients/GAMMA-MAIL', refused: 404 },
  },
  {
    method: 'PATCH',
    route: '/v1/email-recipients/:id',
    scope: 'manage',
    url: '/v1/email-recipients/ALPHA-MAIL',
    ...json({ description: 'x' }),
  },
  {
    method: 'POST',
    route: '/v1/email-recipients/:id/test',
    scope: 'manage',
    url: '/v1/email-recipients/ALPHA-MAIL/test',
  },
  {
    method: 'DELETE',
    route: '/v1/email-recipients/:id',
    scope: 'manage',
    url: '/v1/email-recipients/ALPHA-MAIL',
    once: true,
  },
  { method: 'GET', route: '/v1/webhooks/event-types', scope: 'read', url: '/v1/webhooks/event-types' },
  {
    method: 'GET',
    route: '/v1/webhooks/dead-letters',
    scope: 'read',
    url: '/v1/webhooks/dead-letters',
    tenants: {
      own: '/v1/webhooks/dead-letters?tenant=alpha',
      other: '/v1/webhooks/dead-letters?tenant=gamma',
      refused: 403,
    },
  },
  {
    method: 'POST',
    route: '/v1/webhooks/dead-letters/replay',
    scope: 'manage',
    url: '/v1/webhooks/dead-letters/replay',
    ...json({}),
  },
  {
    method: 'GET',
    route: '/v1/alert-rules',
    scope: 'read',
    url: '/v1/alert-rules',
    tenants: { own: '/v1/alert-rules?tenant=alpha', other: '/v1/alert-rules?tenant=gamma', refused: 403 },
  },
  {
    method: 'POST',
    route: '/v1/alert-rules',
    scope: 'manage',
    url: '/v1/alert-rules',
    status: 201,
    ...json({ tenant: 'alpha', metric: 'data', kind: 'percent', percent: '99' }),
  },
  {
    method: 'GET',
    route: '/v1/alert-rules/:id',
    scope: 'read',
    url: '/v1/alert-rules/ALPHA-RULE',
    tenants: { own: '/v1/alert-rules/ALPHA-RULE', other: '/v1/alert-rules/GAMMA-RULE', refused: 404 },
  },
  {
    method: 'PATCH',
    route: '/v1/alert-rules/:id',
    scope: 'manage',
    url: '/v1/alert-rules/ALPHA-RULE',
    ...json({ name: 'x' }),
  },
  { method: 'DELETE', route: '/v1/alert-rules/:id', scope: 'manage', url: '/v1/alert-rules/ALPHA-RULE', once: true },
  {
    method: 'POST',
    route: '/v1/quotas/check',
    scope: 'read',
    url: '/v1/quotas/check',
    ...json({ tenant: 'alpha', metric: 'data', n: '1' }),
  },
  {
    method: 'PUT',
    route: '/v1/limits',
    scope: 'manage',
    url: '/v1/limits',
    ...json({ tenant: 'alpha', metric: 'data', soft: '10' }),
  },
  {
    method: 'GET',
    route: '/v1/limits',
    scope: 'read',
    url: '/v1/limits',
    tenants: { own: '/v1/limits?tenant=alpha', other: '/v1/limits?tenant=gamma', refused: 403 },
  },
  { method: 'DELETE', route: '/v1/limits', scope: 'manage', url: '/v1/limits?tenant=alpha&metric=data', once: true },
  {
    method: 'GET',
    route: '/v1/reservations',
    scope: 'read',
    url: '/v1/reservations',
    tenants: { own: '/v1/reservations?tenant=alpha', other: '/v1/reservations?tenant=gamma', refused: 403 },
  },
  {
    method: 'POST',
    route: '/v1/reservations',
    scope: 'ingest',
    url: '/v1/reservations',
    status: 201,
    ...json({ tenant: 'alpha', metric: 'data', n: '1', key: 'door' }),
  },
  {
    method: 'GET',
    route: '/v1/reservations/:id',
    scope: 'read',
    url: '/v1/reservations/ALPHA-RESERVATION',
    tenants: { own: '/v1/reservations/ALPHA-RESERVATION', other: '/v1/reservations/GAMMA-RESERVATION', refused: 404 },
  },
  {
    method: 'POST',
    route: '/v1/reservations/:id/commit',
    scope: 'ingest',
    url: '/v1/reservations/ALPHA-RESERVATION/commit',
    tenants: {
      own: '/v1/reservations/ALPHA-RESERVATION/commit',
      other: '/v1/reservations/GAMMA-RESERVATION/commit',
      refused: 404,
    },
    ...json({}),
  },
  {
    method: 'POST',
    route: '/v1/reservations/:id/release',
    scope: 'ingest',
    url: '/v1/reservations/ALPHA-RELEASE/release',
    tenants: {
      own: '/v1/reservations/ALPHA-RELEASE/release',
      other: '/v1/reservations/GAMMA-RELEASE/release',
      refused: 404,
    },
  },
  { method: 'POST', route: '/v1/audit', scope: 'admin', url: '/v1/audit' },
  { method: 'POST', route: '/v1/objects', scope: 'admin', url: '/v1/objects', status: 201, ...json({ id: 'made' }) },
  {
    method: 'GET',
    route: '/v1/meters/silent',
    scope: 'read',
    url: '/v1/meters/silent?tenant=alpha',
    tenants: { own: '/v1/meters/silent?tenant=alpha', other: '/v1/meters/silent?tenant=gamma', refused: 403 },
  },
  { method: 'GET', route: '/v1/objects', scope: 'read', url: '/v1/objects' },
  absent('GET', '/v1/objects/:id', 'read'),
  absent('POST', '/v1/objects/:id/events', 'admin', { type: 'note' }),
  absent('POST', '/v1/objects/activate', 'admin', { objects: ['nothing'], at: '2026-03-01T00:00:00Z' }),
  {
    method: 'GET',
    route: '/v1/invoices/:id/objects',
    scope: 'read',
    url: '/v1/invoices/ALPHA-INVOICE/objects',
    tenants: {
      own: '/v1/invoices/ALPHA-INVOICE/objects',
      other: '/v1/invoices/GAMMA-INVOICE/objects',
      refused: 404,
    },
  },
  { method: 'POST', route: '/v1/backups', scope: 'admin', url: '/v1/backups', status: 202 },
  { method: 'GET', route: '/v1/backups/current', scope: 'admin', url: '/v1/backups/current' },
  { method: 'GET', route: '/v1/backups', scope: 'admin', url: '/v1/backups' },
  {
    method: 'GET',
    route: '/v1/cardinality',
    scope: 'read',
    url: '/v1/cardinality?tenant=alpha',
    tenants: { own: '/v1/cardinality?tenant=alpha', other: '/v1/cardinality?tenant=gamma', refused: 403 },
  },
  {
    method: 'GET',
    route: '/v1/rates',
    scope: 'read',
    url: '/v1/rates?tenant=alpha',
    tenants: { own: '/v1/rates?tenant=alpha', other: '/v1/rates?tenant=gamma', refused: 403 },
  },
  { method: 'GET', route: '/v1/rates/tenants', scope: 'admin', url: '/v1/rates/tenants' },
  { method: 'PUT', route: '/v1/rates', scope: 'admin', url: '/v1/rates', ...json({}) },
  { method: 'PUT', route: '/v1/cardinality', scope: 'admin', url: '/v1/cardinality', ...json({ series: null }) },
  {
    method: 'POST',
    route: '/v1/usage-data',
    scope: 'ingest',
    url: '/v1/usage-data',
    status: 201,
    ...json({ contract: 'contract-alpha', start: '2026-03-01', value: '1' }),
  },
  { method: 'GET', route: '/v1/usage-data', scope: 'read', url: '/v1/usage-data' },
  absent('GET', '/v1/usage-data/:id', 'read'),
  absent('PATCH', '/v1/usage-data/:id', 'admin', { notes: 'x' }),
  absent('DELETE', '/v1/usage-data/:id', 'admin'),
  // Any bytes are a file of rows; what is wrong with them is told later.
  {
    method: 'POST',
    route: '/v1/usage-data-imports',
    scope: 'ingest',
    url: '/v1/usage-data-imports',
    status: 202,
    ...json({}),
  },
  { method: 'GET', route: '/v1/usage-data-imports', scope: 'read', url: '/v1/usage-data-imports' },
  absent('GET', '/v1/usage-data-imports/:id', 'read'),
  {
    method: 'GET',
    route: '/v1/usage-data-imports/:id/rejects',
    scope: 'read',
    url: '/v1/usage-data-imports/nothing/rejects',
  },
  absent('POST', '/v1/usage-data-imports/:id/undo', 'admin'),
  { method: 'GET', route: '/docs', scope: 'any', url: '/docs/' },
  { method: 'GET', route: '/docs/', scope: 'any', url: '/docs/' },
  { method: 'GET', route: '/docs/json', scope: 'any', url: '/docs/json' },
  { method: 'GET', route: '/docs/yaml', scope: 'any', url: '/docs/yaml' },
  { method: 'GET', route: '/docs/static/index.html', scope: 'any', url: '/docs/static/index.html', status: 302 },
  {
    method: 'GET',
    route: '/docs/static/swagger-initializer.js',
    scope: 'any',
    url: '/docs/static/swagger-initializer.js',
  },
  { method: 'GET', route: '/docs/*', scope: 'any', url: '/docs/static/swagger-ui.css' },
]

let t: TestSystem
const keys = {} as Record<Who | 'revoked' | 'expired' | 'rotated', { authorization: string }>

const addressOf = (url: string): string => url.replace(/(ALPHA|GAMMA)-[A-Z]+|KEY/, (name) => ids[name] ?? name)

/** Failed attempts are counted by address: a request of this test comes from one of its own. */
let calls = 0

async function call(route: Pick<Route, 'method' | 'url' | 'body'>, headers: Record<string, string> = {}) {
  calls += 1
  return t.app.inject({
    remoteAddress: `10.0.${calls >> 8}.${calls & 255}`,
    method: route.method,
    url: addressOf(route.url),
    headers: { ...headers, ...(route.body === undefined ? {} : { 'content-type': 'application/json' }) },
    ...(route.body === undefined ? {} : { payload: JSON.stringify(route.body) }),
  })
}

const may = (route: Route, scopes: readonly string[]): boolean =>
  route.scope === 'public' ||
  route.scope === 'any' ||
  scopes.includes(route.scope) ||
  (route.scope === 'manage' && scopes.includes('admin'))

beforeAll(async () => {
  t = await openTestSystem({ settings: { RELEVE_GRACE_MS: '0', RELEVE_WEBHOOK_ALLOW: '127.0.0.0/8' } })
  await t.system.catalog.putContract(routes.find((r) => r.method === 'PUT' && r.route === '/v1/contracts')!.body)
  await t.system.catalogSettled()
  await t.send([
    { id: '1', tenant: 'alpha', metric: 'data', value: '1500', time: '2026-03-02T00:00:00Z' },
    { id: '2', tenant: 'gamma', metric: 'data', value: '1500', time: '2026-03-02T00:00:00Z' },
  ])
  // Refused events of both.
  for (const tenant of ['alpha', 'gamma']) {
    await call({ method: 'POST', url: '/v1/events', body: [{ id: 'x', tenant, metric: 'none' }] }, t.admin)
  }
  await t.system.settle()
  t.clock.set('2026-04-02T00:00:00Z')
  const close = async (contract: string): Promise<string> => {
    const { invoice } = await t.system.billing.closePeriod({ contract, at: Date.parse('2026-03-10T00:00:00Z') })
    return invoice!.invoice.id
  }
  ids['ALPHA-INVOICE'] = await close('contract-alpha')
  ids['GAMMA-INVOICE'] = await close('contract-gamma')
  for (const tenant of ['alpha', 'gamma']) {
    const of = tenant.toUpperCase()
    const { endpoints } = t.system.delivery
    ids[`${of}-HOOK`] = (await endpoints.create('webhook', { tenant, target: nobody })).endpoint.id
    ids[`${of}-MAIL`] = (await endpoints.create('email', { tenant, target: 'a@example.com' })).endpoint.id
    const terms = { quantity: '1000000' }
    ids[`${of}-RULE`] = (await t.system.alerting.create({ tenant, metric: 'data', kind: 'absolute', terms })).id
    for (const name of ['RESERVATION', 'RELEASE']) {
      const done = await t.system.guard.reserve({
        tenant,
        metric: 'data',
        quantity: '1',
        leaseSeconds: 3600,
        key: name,
      })
      if ('reservation' in done) ids[`${of}-${name}`] = done.reservation.id
    }
  }
  keys.ingest = await t.key(null, ['ingest'])
  keys.read = await t.key(null, ['read'])
  keys.manage = await t.key(null, ['manage'])
  keys.admin = await t.key(null, ['admin'])
  keys.own = await t.key('alpha', ['ingest', 'read'])
  keys.other = await t.key('gamma', ['ingest', 'read'])
  const revoked = await t.system.keys.create({ name: 'revoked', tenant: null, scopes: ['ingest', 'read', 'admin'] })
  await t.system.keys.revoke(revoked.key.id)
  keys.revoked = { authorization: `Bearer ${revoked.secret}` }
  const all = { tenant: null, scopes: ['ingest', 'read', 'admin'] } as const
  const short = await t.system.keys.create({ ...all, name: 'short', expiresAt: t.clock.now() + 1 })
  keys.expired = { authorization: `Bearer ${short.secret}` }
  const turned = await t.system.keys.create({ ...all, name: 'turned' })
  await t.system.keys.rotate(turned.key.id, 1)
  keys.rotated = { authorization: `Bearer ${turned.secret}` }
  t.clock.advance(1)
})

test('every route of the application is in the table, and nothing else', () => {
  const found = new Set<string>()
  let path: string[] = []
  for (const line of t.app.printRoutes({ commonPrefix: false, includeHooks: false }).split('\n')) {
    const match = /^([│ ]*)[├└]── (\S+)(?: \(([A-Z, ]+)\))?/.exec(line)
    if (match === null) continue
    const depth = match[1]!.length / 4
    path = [...path.slice(0, depth), match[2]!]
    for (const method of match[3]?.split(', ') ?? []) if (method !== 'HEAD') found.add(`${method} ${path.join('')}`)
  }
  expect([...found].sort()).toEqual(routes.map(({ method, route }) => `${method} ${route}`).sort())
})

describe(`${promises('tenant:isolated')} every route with every key`, () => {
  for (const route of routes) {
    test(`${route.method} ${route.route}`, async () => {
      const made = await t.system.keys.create({ name: 'to end', tenant: null, scopes: ['read'] })
      ids.KEY = made.key.id

      for (const [name, headers] of [
        ['no key', {}],
        ['a wrong key', { authorization: `Bearer rlv_${'0'.repeat(12)}_${'a'.repeat(32)}` }],
        ['another scheme', { authorization: keys.admin.authorization.replace('Bearer', 'Basic') }],
        ['a key with one letter changed', { authorization: `${keys.admin.authorization.slice(0, -1)}!` }],
        ['a revoked key', keys.revoked],
        ['an expired key', keys.expired],
        ['a secret from before the overlap of a rotation', keys.rotated],
      ] as const) {
        const answer = await call(route, headers)
        if (route.scope === 'public') expect(answer.statusCode, name).toBe(200)
        else {
          expect(answer.statusCode, name).toBe(401)
          expect(answer.json(), name).toMatchObject({ code: 'unauthorized', status: 401 })
          // A browser asks its user for the key of the API page.
          const scheme = route.url.startsWith('/docs') ? 'Basic' : 'Bearer'
          expect(answer.headers['www-authenticate']).toMatch(new RegExp(`^${scheme} realm="releve"`))
        }
      }

      let tried = false
      for (const scope of Scope) {
        if (may(route, [scope])) {
          if (route.streams || (route.once && tried)) continue
          tried = true
          const answer = await call(route, keys[scope])
          expect(answer.statusCode, `${scope}: ${answer.body.slice(0, 300)}`).toBe(route.status ?? 200)
        } else {
          const answer = await call(route, keys[scope])
          expect(answer.statusCode, scope).toBe(403)
          expect(answer.json(), scope).toMatchObject({
            code: 'forbidden',
            detail: expect.stringContaining(route.scope),
          })
        }
      }

      if (route.scope === 'admin') expect((await call(route, keys.own)).statusCode).toBe(403)
      if (route.tenants !== undefined) {
        const { own, other, refused } = route.tenants
        if (!route.streams) expect((await call({ ...route, url: own }, keys.own)).statusCode).toBe(200)
        const answer = await call({ ...route, url: other }, keys.own)
        expect(answer.statusCode).toBe(refused)
        expect(answer.body).not.toContain('contract-gamma')
        // A tenant that does not exist is answered the same.
        const unknown = await call({ ...route, url: other.replace(/gamma|GAMMA-[A-Z]+/, 'nobody') }, keys.own)
        const { instance: _a, ...first } = answer.json()
        const { instance: _b, ...second } = unknown.json()
        expect(JSON.stringify(second).replaceAll('nobody', '·')).toEqual(
          Object.entries(ids)
            .filter(([name]) => name.startsWith('GAMMA'))
            .reduce((text, [, id]) => text.replaceAll(id, '·'), JSON.stringify(first))
            .replaceAll('gamma', '·'),
        )
      }
      if (route.filtered) {
        const all = await call(route, keys.read)
        expect(all.body).toContain('gamma')
        expect(all.body).toContain('alpha')
        const own = await call(route, keys.own)
        expect(own.statusCode).toBe(200)
        expect(own.body).toContain('alpha')
        expect(own.body).not.toContain('gamma')
      }
    })
  }
})

test(`${promises('tenant:isolated')} a tenant's key with every scope that it may have, on each route that names a tenant or an object of one => another's is refused, and stays as it was`, async () => {
  const key = await t.key('alpha', ['ingest', 'read', 'manage'])
  const foreign = (text: string): string =>
    text
      .replace(/ALPHA-/, 'GAMMA-')
      .replace('tenant=alpha', 'tenant=gamma')
      .replace(/\/alpha(?=$|[/?])/, '/gamma')
  const mine = () => Promise.all(['HOOK', 'MAIL', 'RULE'].map((name) => seen(`GAMMA-${name}`)))
  const seen = async (id: string): Promise<string> => {
    const of = { HOOK: 'webhooks', MAIL: 'email-recipients', RULE: 'alert-rules' }[id.slice(6)]
    const answer = await call({ method: 'GET', url: `/v1/${of}/${id}` }, t.admin)
    expect(answer.statusCode, id).toBe(200)
    return answer.body
  }
  const limitsOf = async () => (await call({ method: 'GET', url: '/v1/limits?tenant=gamma' }, t.admin)).body
  await call({ method: 'PUT', url: '/v1/limits', body: { tenant: 'gamma', metric: 'data', soft: '7' } }, t.admin)
  const before = [...(await mine()), await limitsOf()]
  const tried: string[] = []
  for (const route of routes) {
    if (!may(route, ['ingest', 'read', 'manage']) || ['public', 'any'].includes(route.scope)) continue
    const body = route.body as { tenant?: string } | undefined
    const url = foreign(route.url)
    const names = body?.tenant === 'alpha'
    if (url === route.url && !names) continue
    tried.push(`${route.method} ${route.route}`)
    const answer = await call({ ...route, url, ...(names ? { body: { ...body, tenant: 'gamma' } } : {}) }, key)
    const what = `${route.method} ${url}: ${answer.body.slice(0, 200)}`
    // What is named by its id is not there; what is named by its tenant is not this key's.
    expect(answer.statusCode, what).toBe(url.includes('GAMMA-') ? 404 : 403)
  }
  // Every one that writes, and the list is not empty by a change of names.
  for (const route of [
    'PATCH /v1/webhooks/:id',
    'DELETE /v1/webhooks/:id',
    'POST /v1/webhooks/:id/test',
    'POST /v1/webhooks/:id/rotate-secret',
    'PATCH /v1/email-recipients/:id',
    'DELETE /v1/email-recipients/:id',
    'POST /v1/email-recipients',
    'PATCH /v1/alert-rules/:id',
    'POST /v1/alert-rules',
    'PUT /v1/limits',
    'DELETE /v1/limits',
    'POST /v1/quotas/check',
    'POST /v1/reservations',
    'POST /v1/reservations/:id/commit',
    'POST /v1/reservations/:id/release',
    'GET /v1/usage',
  ])
    expect(tried).toContain(route)
  expect([...(await mine()), await limitsOf()]).toEqual(before)
})

test(`${promises('tenant:isolated')} events for another tenant with a tenant's key => refused each, and nothing is counted there`, async () => {
  const answer = await call(
    {
      method: 'POST',
      url: '/v1/events?wait=applied',
      body: [
        { id: 'mine', metric: 'data', value: '1' },
        { id: 'theirs', tenant: 'gamma', metric: 'data', value: '1' },
        { id: 'nobodys', tenant: 'nobody', metric: 'data', value: '1' },
        { id: '2', metric: 'data', value: '1500', time: '2026-03-02T00:00:00Z' },
      ],
    },
    keys.own,
  )
  expect(answer.statusCode).toBe(202)
  const { refusals, applied } = answer.json()
  expect(refusals.map((r: { code: string }) => r.code)).toEqual(['forbidden_tenant', 'forbidden_tenant'])
  // Gamma's event with this id does not make alpha's a duplicate.
  expect(applied.verdicts).toEqual(['accepted', 'refused', 'refused', 'accepted'])
  await t.system.settle()
  const mine = await call({ method: 'GET', url: '/v1/rejects' }, keys.own)
  expect(mine.json().rejects.map((r: { id: string }) => r.id)).toContain('theirs')
  const theirs = await call({ method: 'GET', url: '/v1/rejects' }, keys.other)
  expect(theirs.body).not.toContain('theirs')
})

test('a key of a tenant cannot be made an admin', async () => {
  const body = { name: 'x', tenant: 'alpha', scopes: ['admin'] }
  const answer = await call({ method: 'POST', url: '/v1/keys', body }, t.admin)
  expect(answer.statusCode).toBe(422)
  expect(answer.json().code).toBe('unprocessable')
})

test('an address that is not there => 404 with a key, 401 without', async () => {
  expect((await call({ method: 'GET', url: '/v1/nothing' })).statusCode).toBe(401)
  const answer = await call({ method: 'GET', url: '/v1/nothing' }, keys.read)
  expect(answer.statusCode).toBe(404)
  expect(answer.json()).toMatchObject({ code: 'not_found', status: 404 })
})

test('errors are problem details: type, title, status, code, detail, hint and the id of the request', async () => {
  const requests: readonly [code: keyof typeof ErrorCode, route: Pick<Route, 'method' | 'url' | 'body'>, who: Who][] = [
    ['forbidden', { method: 'GET', url: '/v1/books' }, 'read'],
    ['not_found', { method: 'GET', url: '/v1/usage?tenant=alpha&metric=nothing&from=0&to=60000' }, 'read'],
    ['not_found', { method: 'DELETE', url: '/v1/keys/nothing' }, 'admin'],
    ['invalid_request', { method: 'GET', url: '/v1/usage?tenant=alpha&metric=data&from=1&to=60000' }, 'read'],
    ['invalid_request', { method: 'GET', url: '/v1/usage?tenant=alpha&metric=data&from=x&to=60000' }, 'read'],
    ['invalid_request', { method: 'GET', url: '/v1/usage?metric=data&from=0&to=60000' }, 'read'],
    ['invalid_request', { method: 'GET', url: '/v1/usage?tenant=alpha&from=0&to=60000' }, 'read'],
    ['invalid_request', { method: 'GET', url: '/v1/usage?tenant=alpha&metric=data&from=0&to=60000&x=1' }, 'read'],
    ['invalid_request', { method: 'GET', url: '/v1/usage?tenant=alpha&metric=data&from=0&to=60000&tz=Mars' }, 'read'],
    [
      'invalid_request',
      { method: 'GET', url: '/v1/usage?tenant=alpha&metric=data&from=0&to=60000&group_by=x' },
      'read',
    ],
    ['invalid_request', { method: 'GET', url: '/v1/usage?tenant=alpha&metric=users&from=0&to=60000' }, 'read'],
    ['invalid_request', { method: 'GET', url: '/v1/alerts?limit=0' }, 'read'],
    ['invalid_request', { method: 'GET', url: '/v1/rejects?from=yesterday' }, 'read'],
    ['invalid_request', { method: 'POST', url: '/v1/keys', body: { name: 'x', scopes: ['all'] } }, 'admin'],
    ['invalid_request', { method: 'PUT', url: '/v1/metrics-catalog', body: { key: 'x' } }, 'admin'],
    ['invalid_request', { method: 'PUT', url: '/v1/prices', body: { rule: 3 } }, 'admin'],
    [
      'unprocessable',
      { method: 'POST', url: '/v1/keys', body: { name: 'x', tenant: 'a', scopes: ['admin'] } },
      'admin',
    ],
    [
      'conflict',
      { method: 'POST', url: '/v1/periods/close', body: { contract: 'contract-alpha', at: '2026-04-10T00:00:00Z' } },
      'admin',
    ],
    ['malformed_body', { method: 'POST', url: '/v1/events', body: 3 }, 'ingest'],
  ]
  for (const [code, route, who] of requests) {
    const answer = await call(route, keys[who])
    const { status, title, hint } = ErrorCode[code]
    expect(answer.json(), route.url).toEqual({
      type: 'about:blank',
      title,
      status,
      code,
      detail: expect.stringMatching(/./),
      hint,
      instance: answer.headers['x-request-id'],
    })
    expect(answer.statusCode).toBe(status)
    expect(answer.headers['content-type']).toMatch(/^application\/problem\+json/)
  }
})

test('the OpenAPI document is JSON and has every route with a summary', async () => {
  const document = (await call({ method: 'GET', url: '/docs/json' }, keys.read)).json()
  expect(document.openapi).toBe('3.1.0')
  expect(document.components.securitySchemes.key).toMatchObject({ type: 'http', scheme: 'bearer' })
  for (const { method, route } of routes.filter((r) => r.route.startsWith('/v1/'))) {
    const operation = document.paths[route.replaceAll(/:(\w+)/g, '{$1}')]?.[method.toLowerCase()]
    expect(operation?.summary, `${method} ${route}`).toMatch(/./)
    expect(operation.tags).toHaveLength(1)
  }
})

test('/metrics has every metric', async () => {
  const text = (await call({ method: 'GET', url: '/metrics' }, keys.admin)).body
  const { registry, ...named } = t.system.metrics
  const names = Object.values(named).map((metric) => (metric as unknown as { name: string }).name)
  expect(names.length).toBeGreaterThan(30)
  for (const name of names) expect(text, name).toMatch(new RegExp(`^# HELP ${name} \\S`, 'm'))
  // A tenant, a subject or an id is never a label.
  expect(text).not.toMatch(/alpha|gamma/)
})

test(`${promises('tenant:isolated')} plans and prices: a tenant sees those of its contracts, one without a contract none`, async () => {
  const seen = async (tenant: string | null): Promise<[plans: string[], rules: string[]]> => {
    const headers = await t.key(tenant, ['read'])
    const plans = (await t.app.inject({ url: '/v1/plans', headers })).json().plans as { key: string }[]
    const prices = (await t.app.inject({ url: '/v1/prices', headers })).json().prices as { rule: string }[]
    return [plans.map(({ key }) => key), prices.map(({ rule }) => rule)]
  }
  expect(await seen('alpha')).toEqual([['plan'], ['price-data']])
  await t.system.catalog.putCustomer({
    tenant: 'uncontracted',
    name: 'U',
    country: 'CI',
    taxRate: '18',
    currency: 'EUR',
    timeZone: 'Africa/Abidjan',
  })
  expect(await seen('uncontracted')).toEqual([[], []])
  expect((await seen(null))[1]).toContain('price-data')
})
