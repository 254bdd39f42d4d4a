/** Registrations of customers: what the law gives a form is held to it. */
import { expect, test } from 'vitest'
import { parseCustomer } from '../../src/catalog/definition.js'

const customer = (registrations: Record<string, string>) =>
  parseCustomer({
    tenant: 't',
    name: 'T',
    country: 'FR',
    registrations,
    taxRate: '20',
    currency: 'EUR',
    timeZone: 'Europe/Paris',
  })

test('numbers as people write them are taken as they are', () => {
  const good = {
    SIREN: '732 829 320',
    SIRET: '732 829 320 00074',
    TVA: 'FR 44 732829320',
    NCC: '7801234 B',
    RCCM: 'CI-ABJ-1978-B-31285',
    NINEA: '0012345 2G3',
    'Capital social': '50 000 €',
  }
  expect(customer(good).registrations).toEqual(good)
  expect(customer({ TVA: 'DE129273398', RCCM: 'SN-DKR-2020-A-12345' }).registrations.TVA).toBe('DE129273398')
})

test('a wrong digit or form is refused, and named', () => {
  for (const [name, text] of [
    ['SIREN', '732 829 321'],
    ['SIREN', '73282932'],
    ['SIRET', '732 829 320 00075'],
    ['TVA', 'FR45732829320'],
    ['VAT', '732829320'],
    ['NCC', '780123 B'],
    ['RCCM', '31285'],
    ['NINEA', '12345'],
  ] as const)
    expect(() => customer({ [name]: text })).toThrow(`registrations.${name}: `)
})
