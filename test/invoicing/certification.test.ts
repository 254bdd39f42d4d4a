/** Documents that a clearance system has to take first: a real PostgreSQL, a server on loopback that speaks FNE's contract. */
import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { HandClock } from '../../src/clock.js'
import { Certifications } from '../../src/invoicing/certification.js'
import { openFne } from '../../src/invoicing/fne.js'
import type { Invoice } from '../../src/invoicing/invoice.js'
import { Invoicing, type InvoicingOptions } from '../../src/invoicing/invoicing.js'
import { assertPrintable } from '../../src/invoicing/print.js'
import { assertInvoiceMove, InvoiceMoves, type InvoiceState } from '../../src/invoicing/state.js'
import { limits } from '../../src/limits.js'
import { silentLogger } from '../../src/logger.js'
import { promises } from '../promises.js'
import { type FneServer, openFneServer } from './fne-server.js'
import { openTestPostgres, type TestPostgres } from './postgres.js'
import { bank, inclusiveMetrics, ivorySeller, sampleInvoice } from './sample.js'

const clock = new HandClock('2026-04-01T02:00:00Z')
let postgres: TestPostgres
let server: FneServer
let made = 0

const seller = (key: string) =>
  ({
    ...ivorySeller,
    key,
    certification: { system: 'fne', pointOfSale: `Plateau ${key}`, establishment: 'Siège', paymentMethod: 'transfer' },
  }) as const
const francs = { ...bank, currency: 'XOF' }

beforeAll(async () => {
  postgres = await openTestPostgres()
  server = await openFneServer()
}, 120_000)
afterAll(async () => {
  await server?.close()
  await postgres?.close()
})
afterEach(() => {
  expect(new Set(server.taken.map((call) => call.text)).size, 'no document was taken twice').toBe(server.taken.length)
})

function open(timeoutMs = 5_000, base = server.base, token = server.token) {
  const fne = openFne({ base, token, timeoutMs })
  const certifications = new Certifications({
    postgres: postgres.pool,
    clock,
    certifiers: { fne },
    logger: silentLogger,
  })
  const options: InvoicingOptions = {
    postgres: postgres.pool,
    clock,
    assertCertifiable: (invoice, original) => fne.assertCertifiable(invoice, original),
  }
  return { certifications, invoicing: new Invoicing(options) }
}

async function draft(invoicing: Invoicing, extra: Partial<Invoice> = {}): Promise<string> {
  made += 1
  const sample = sampleInvoice({ seller: seller(`e${made}`), customer: francs, fee: '50000', number: null })
  const invoice: Invoice = { ...sample, id: invoicing.newId(), contract: `c-${made}`, ...extra }
  return (await invoicing.draft(invoice)).invoice.id
}

describe('FNE', () => {
  test('issued => numbered and certifying, nothing is handed out; taken => finalised, with reference and token beside it', async () => {
    const { certifications, invoicing } = open()
    const id = await draft(invoicing)
    const waiting = await invoicing.finalise(id, { actor: 'key:ops' })
    expect([waiting.state, waiting.invoice.number]).toEqual(['certifying', 'FA-2026-0001'])
    expect(() => assertPrintable('certifying', null)).toThrow(/handed out after/)
    await expect(invoicing.get(id, 'banque-atlantique')).rejects.toThrow(/waits for its clearance system/)
    expect((await invoicing.list({ contract: waiting.invoice.contract, handedOut: true })).length).toBe(0)
    for (const move of [() => invoicing.markSent(id), () => invoicing.markPaid(id), () => invoicing.credit(id)])
      await expect(move()).rejects.toThrow(/certifying cannot/)

    await certifications.sendDue()
    const kept = await invoicing.get(id, 'banque-atlantique')
    expect([kept.state, kept.hash]).toEqual(['finalised', waiting.hash])
    expect(await certifications.of(id)).toMatchObject({
      state: 'certified',
      attempts: 1,
      reference: expect.stringMatching(/^9606123E/),
    })
    const call = server.calls.at(-1)!
    expect([call.path, call.authorization]).toEqual(['/ws/external/invoices/sign', `Bearer ${server.token}`])
    expect(call.body).toMatchObject({
      invoiceType: 'sale',
      template: 'B2B',
      clientNcc: '7801234 B',
      pointOfSale: expect.stringContaining('Plateau'),
    })
    const sumOf = (items: readonly { amount: number }[]) => String(items.reduce((all, item) => all + item.amount, 0))
    expect(sumOf(call.body.items)).toBe(kept.invoice.ht)
    expect(await invoicing.moves(id)).toEqual([
      { from: 'draft', to: 'certifying', actor: 'key:ops', reason: null, at: clock.now() },
      { from: 'certifying', to: 'finalised', actor: 'system:fne', reason: null, at: clock.now() },
    ])
  })

  test('prices with tax go without it, and sum to the HT of the invoice', async () => {
    const { certifications, invoicing } = open()
    const { lines, taxes, ht, tva, ttc } = sampleInvoice({
      ...{ customer: francs, fee: '50000', number: null },
      ...{ metrics: inclusiveMetrics, feeBehavior: 'inclusive' },
    })
    await invoicing.finalise(await draft(invoicing, { lines, taxes, ht, tva, ttc }))
    await certifications.sendDue()
    const amounts = server.calls.at(-1)!.body.items.map((item: { amount: number }) => String(item.amount))
    expect(amounts).toEqual(lines.map((line) => line.net))
    expect(String(amounts.reduce((all: number, amount: string) => all + Number(amount), 0))).toBe(ht)
  })

  test('discounts lower the items of their rate, to the last franc; what FNE cannot take has no number', async () => {
    const { certifications, invoicing } = open()
    const base = sampleInvoice({ customer: francs, fee: '50000', number: null })
    const off = {
      ...base.lines[0]!,
      type: 'discount' as const,
      amount: '-10001',
      label: { fr: 'Remise', en: 'Discount' },
    }
    const ht = String(Number(base.ht) - 10_001)
    const id = await draft(invoicing, { lines: [...base.lines, off], ht })
    await invoicing.finalise(id)
    await certifications.sendDue()
    const { items } = server.calls.at(-1)!.body
    expect(items.length).toBe(base.lines.length)
    expect(String(items.reduce((all: number, item: { amount: number }) => all + item.amount, 0))).toBe(ht)
    expect(server.calls.at(-1)!.text).not.toMatch(/"amount":"/)

    const euro = await draft(invoicing, { currency: 'EUR' })
    await expect(invoicing.finalise(euro)).rejects.toThrow(/CFA francs, the invoice is in EUR/)
    expect((await invoicing.get(euro)).state).toBe('draft')
    const rate = await draft(invoicing, { lines: base.lines.map((line) => ({ ...line, taxRate: '20' })) })
    await expect(invoicing.finalise(rate)).rejects.toThrow(/no tax of 20 %/)
  })

  test('busy (429) => sent again when it says, not before; a wrong token waits for a person to mend it', async () => {
    const { certifications, invoicing } = open()
    const id = await draft(invoicing)
    await invoicing.finalise(id)
    const before = server.calls.length
    server.next({ status: 429, headers: { 'retry-after': '120' } })
    await certifications.sendDue()
    clock.advance(119_000)
    await certifications.sendDue()
    expect([server.calls.length - before, (await certifications.of(id))?.state]).toEqual([1, 'pending'])
    clock.advance(1_000)
    await certifications.sendDue()
    expect(await certifications.of(id)).toMatchObject({ state: 'certified', attempts: 2 })

    const other = open(5_000, server.base, 'wrong')
    const locked = await draft(other.invoicing)
    await other.invoicing.finalise(locked)
    await other.certifications.sendDue()
    expect(await certifications.of(locked)).toMatchObject({ state: 'pending', reason: expect.stringContaining('401') })
    clock.advance(limits.certifyRetryMaxMs)
    await certifications.sendDue()
    expect((await certifications.of(locked))?.state).toBe('certified')
  })

  test('nobody listens => surely not taken, tried later and later', async () => {
    const nobody = await openFneServer()
    await nobody.close()
    const { certifications, invoicing } = open(5_000, nobody.base)
    const id = await draft(invoicing)
    await invoicing.finalise(id)
    for (let attempt = 1; attempt <= 3; attempt += 1) {
      await certifications.sendDue()
      expect(await certifications.of(id)).toMatchObject({
        state: 'pending',
        attempts: attempt,
        reason: expect.stringContaining('ECONNREFUSED'),
      })
      clock.advance(limits.certifyRetryMs * 2 ** (attempt - 1) - 1)
      await certifications.sendDue()
      expect((await certifications.of(id))?.attempts).toBe(attempt)
      clock.advance(1)
    }
    await open().certifications.sendDue()
    expect((await certifications.of(id))?.state).toBe('certified')
  })

  for (const [name, behaviour] of [
    ['the answer never comes', { taken: 'silent' }],
    ['the answer breaks off', { taken: 'broken' }],
    ['the answer comes after the time-out', { taken: 'late', ms: 1_000 }],
    ['500', { status: 500 }],
    ['503', { status: 503 }],
    ['409, a duplicate', { status: 409, body: { message: 'already certified' } }],
    ['200 without a reference', { status: 200, body: { ok: true } }],
    ['200 that is no JSON', { status: 200, body: '<html>' }],
    ['a redirect', { status: 302, headers: { location: 'http://127.0.0.1:1/' } }],
  ] as const) {
    test(`${name} => unknown, and never sent again until a person says so`, async () => {
      const { certifications, invoicing } = open(400)
      const id = await draft(invoicing)
      await invoicing.finalise(id)
      const before = server.calls.length
      server.next(behaviour)
      await certifications.sendDue()
      clock.advance(30 * 86_400_000)
      await certifications.sendDue()
      await open().certifications.open()
      expect([server.calls.length - before, (await certifications.of(id))?.state]).toEqual([1, 'unknown'])
      expect((await invoicing.get(id)).state).toBe('certifying')
      if (name.startsWith('the answer')) {
        const found = { outcome: 'certified', reference: '9606123E-found', token: 'http://verify/found' } as const
        await certifications.resolve(id, found, { actor: 'key:ops', reason: 'seen in the portal' })
        expect((await invoicing.moves(id)).at(-1)).toMatchObject({
          to: 'finalised',
          actor: 'key:ops',
          reason: 'seen in the portal',
        })
      } else {
        await certifications.resolve(id, { outcome: 'not_taken' }, { actor: 'key:ops' })
        await expect.poll(async () => (await certifications.of(id))?.state).toBe('certified')
      }
      await expect(certifications.resolve(id, { outcome: 'not_taken' }, { actor: 'key:ops' })).rejects.toThrow(
        /nothing is to be resolved/,
      )
      expect((await invoicing.get(id)).state).toBe('finalised')
      await certifications.close()
    })
  }

  test('refused => rejected: sent again by a person, or credited without ever having been handed out', async () => {
    const { certifications, invoicing } = open()
    const [again, dropped] = [await draft(invoicing), await draft(invoicing)]
    for (const id of [again, dropped]) {
      await invoicing.finalise(id)
      server.next({ status: 400, body: { message: 'clientNcc unknown' } })
      await certifications.sendDue()
      expect((await invoicing.get(id)).state).toBe('rejected')
      expect((await certifications.of(id))?.reason).toContain('clientNcc unknown')
    }
    await certifications.resolve(again, { outcome: 'not_taken' }, { actor: 'key:ops' })
    await expect.poll(async () => (await invoicing.get(again)).state).toBe('finalised')
    const note = await invoicing.credit(dropped)
    expect([note.state, note.invoice.kind, (await invoicing.get(dropped)).state]).toEqual([
      'finalised',
      'credit_note',
      'credited',
    ])
    await certifications.close()
  })

  test('a credit note of the whole is a refund of its items; of a part it is refused before it has a number', async () => {
    const { certifications, invoicing } = open()
    const id = await draft(invoicing)
    await invoicing.finalise(id)
    await certifications.sendDue()
    await expect(invoicing.credit(id, '1000')).rejects.toThrow(/credit the whole invoice/)
    const note = await invoicing.credit(id)
    expect([note.state, note.invoice.number]).toEqual(['certifying', 'AV-2026-0001'])
    await certifications.sendDue()
    expect((await invoicing.get(note.invoice.id)).state).toBe('finalised')
    const call = server.calls.at(-1)!
    expect(call.path).toMatch(/\/external\/invoices\/e2b2d8da-\d+\/refund$/)
    expect(call.body.items).toEqual(
      note.invoice.lines.map((_, i) => ({ id: expect.stringMatching(`-${i}$`), quantity: 1 })),
    )
  })

  test('two services at once over twenty documents => each is sent once', async () => {
    const [one, two] = [open(), open()]
    const ids: string[] = []
    for (let i = 0; i < 20; i += 1) ids.push(await draft(one.invoicing))
    await Promise.all(ids.map((id) => one.invoicing.finalise(id)))
    const before = server.calls.length
    await Promise.all([one.certifications.sendDue(), two.certifications.sendDue(), two.certifications.sendDue()])
    expect(server.calls.length - before).toBe(20)
    for (const id of ids) expect((await one.invoicing.get(id)).state).toBe('finalised')
  })

  test('killed while the call is on its way => unknown at the next start, not sent again', async () => {
    const { certifications, invoicing } = open()
    const id = await draft(invoicing)
    await invoicing.finalise(id)
    const before = server.calls.length
    server.next({ taken: 'silent' })
    const child = execFile(process.execPath, [
      fileURLToPath(new URL('./certifier.js', import.meta.url)),
      postgres.url,
      server.base,
      server.token,
    ])
    const died = new Promise((resolve) => child.once('exit', (_, signal) => resolve(signal)))
    await expect.poll(() => server.calls.length, { timeout: 20_000 }).toBe(before + 1)
    child.kill('SIGKILL')
    expect(await died).toBe('SIGKILL')
    await certifications.open()
    expect(await certifications.of(id)).toMatchObject({ state: 'unknown', reason: expect.stringContaining('stopped') })
    await certifications.close()
    expect(server.calls.length).toBe(before + 1)
    await certifications.resolve(id, { outcome: 'certified', reference: 'r', token: 't' }, { actor: 'x' })
  }, 60_000)
})

describe('moves', () => {
  const states = Object.keys(InvoiceMoves) as InvoiceState[]

  test(`the database and the table allow the same moves, and each is in the journal ${promises('invoice:issued-never-changes')}`, async () => {
    const client = await postgres.pool.connect()
    try {
      for (const from of states) {
        for (const to of states) {
          if (from === to) continue
          await client.query('BEGIN')
          await client.query('ALTER TABLE invoices DROP CONSTRAINT invoices_numbered')
          await client.query(
            `INSERT INTO invoices (id, kind, state, legal_entity, tenant, contract, period_from, period_to, currency, ht, tva, ttc,
               draft, created_at, changed_at) VALUES ('m', 'invoice', $1, 'e', 't', 'm', 0, 1, 'XOF', 1, 0, 1, '\\x00', 1, 1)`,
            [from],
          )
          const moved = await client.query(`UPDATE invoices SET state = $1, changed_at = 7 WHERE id = 'm'`, [to]).then(
            () => true,
            () => false,
          )
          const allowed = (InvoiceMoves[from] as readonly string[]).includes(to)
          expect(moved, `${from} to ${to}`).toBe(allowed)
          if (allowed) {
            expect(() => assertInvoiceMove(from, to)).not.toThrow()
            const { rows } = await client.query(
              `SELECT from_state, to_state, actor, at FROM invoice_moves WHERE invoice = 'm'`,
            )
            expect(rows).toEqual([{ from_state: from, to_state: to, actor: 'system', at: 7 }])
          } else expect(() => assertInvoiceMove(from, to)).toThrow(/cannot become/)
          await client.query('ROLLBACK')
        }
      }
    } finally {
      client.release()
    }
  })

  test('the journal is only added to, and a certification stays', async () => {
    for (const sql of [
      `UPDATE invoice_moves SET actor = 'nobody'`,
      'DELETE FROM invoice_moves',
      'TRUNCATE invoice_moves',
      `UPDATE invoice_certifications SET reference = 'x' WHERE state = 'certified'`,
      'DELETE FROM invoice_certifications',
      'DELETE FROM invoice_certification_attempts',
    ])
      await expect(postgres.pool.query(sql), sql).rejects.toThrow(/never changed|stays/)
  })

  test('draft, issued, sent, paid, credited: who and why, in order; every move twice is once', async () => {
    const invoicing = new Invoicing({ postgres: postgres.pool, clock })
    const id = await draft(invoicing, { seller: { ...ivorySeller, key: 'moved' } })
    const by = (actor: string, reason?: string) => ({ actor, reason })
    for (let twice = 0; twice < 2; twice += 1) await invoicing.finalise(id, by('key:a'))
    for (let twice = 0; twice < 2; twice += 1) await invoicing.markSent(id, by('key:b', 'by e-mail'))
    for (let twice = 0; twice < 2; twice += 1) await invoicing.markPaid(id, by('key:c'))
    await expect(invoicing.markSent(id)).rejects.toThrow(/paid cannot become sent/)
    const note = await invoicing.credit(id, null, by('key:d', 'billed twice'))
    expect((await invoicing.moves(id)).map(({ from, to, actor, reason }) => [from, to, actor, reason])).toEqual([
      ['draft', 'finalised', 'key:a', null],
      ['finalised', 'sent', 'key:b', 'by e-mail'],
      ['sent', 'paid', 'key:c', null],
      ['paid', 'credited', 'key:d', 'billed twice'],
    ])
    expect((await invoicing.moves(note.invoice.id)).map(({ to, actor }) => [to, actor])).toEqual([
      ['finalised', 'key:d'],
    ])
  })
})
