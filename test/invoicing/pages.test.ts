/** The printed page as a reader of PDF sees it (pdftotext): page breaks, carried sums, the seal of a clearance system. */
import { expect, test } from 'vitest'
import { toPdf } from '../../src/invoicing/pdf.js'
import { contentsOf, pagesOf } from './read-pdf.js'
import { oidMetrics, sampleInvoice } from './sample.js'

test('many lines => each page closes with the sum so far and the next opens with it; totals and foot have company', async () => {
  for (let items = 5; items <= 16; items += 1) {
    const pages = await pagesOf(await toPdf(sampleInvoice({ items })))
    const sums = (label: string): string[] =>
      pages.flatMap((page) => [...page.matchAll(new RegExp(`^ *${label} +(.*)$`, 'gm'))].map((match) => match[1]!))
    expect(sums('À reporter').length, `${items}`).toBeGreaterThan(0)
    expect(sums('Report')).toEqual(sums('À reporter'))
    const totals = pages.find((page) => page.includes('Total TTC'))!
    expect(totals, `${items}`).toMatch(/OID Business — \w+, mars 2026[\s\S]*Total HT/)
    expect(pages.at(-1), `${items}`).toMatch(/(documents_processed|Total TTC)[\s\S]*Chaque quantité est comptée/)
    // The statement's title is never the last thing of a page.
    const title = pages.find((page) => page.includes('Relevé de consommations'))!
    expect(title, `${items}`).toMatch(/Relevé de consommations\s+Métrique .*\s+OID Business — n° 1\s+auth_login/)
    for (const [i, page] of pages.entries()) expect(page).toContain(`page ${i + 1} / ${pages.length}`)
  }
})

test('certified => reference, token and a QR code on the page; nothing of it when there is none', async () => {
  const certification = { system: 'fne', reference: '9606123E26000000142', token: 'http://fne.example/verification/42' }
  const [plain, sealed] = [await toPdf(sampleInvoice()), await toPdf(sampleInvoice(), 'fr', certification)]
  // A module run is a rectangle: hundreds of them, and in the plain page a few boxes.
  const rectangles = (pdf: Buffer): number =>
    contentsOf(pdf).reduce((all, text) => all + [...text.matchAll(/ re\n/g)].length, 0)
  expect([rectangles(plain) < 40, rectangles(sealed) > 200]).toEqual([true, true])
  const [page] = await pagesOf(sealed)
  for (const part of ['Facture certifiée FNE', certification.reference, certification.token.slice(0, 20)])
    expect(page).toContain(part)
  expect((await pagesOf(plain))[0]).not.toContain('certifiée')
})

test('items of one plan are told apart without the contract’s id; lines that are printed as one say quantity, price and rate', async () => {
  const few = (await pagesOf(await toPdf(sampleInvoice({ items: 2 })))).join('\n')
  expect(few).toMatch(/n° 2 · abonnement mensuel 200,00 €/)
  expect(few).toMatch(/OID Business — n° 2\s+auth_login/)
  expect(few).not.toContain('banque-atlantique-oid')
  expect((await pagesOf(await toPdf(sampleInvoice())))[0]).toMatch(/mars 2026 .*\n+ *abonnement mensuel 200,00 €/)
  const grouped = (await pagesOf(await toPdf(sampleInvoice({ items: 20 }))))[0]
  expect(grouped).toMatch(/OID Business — abonnement +20 +200,00 € +18 % +4 000,00 €/)
  expect(grouped).toMatch(/OID Business — kyc_verification +1 240 +selon détail +18 % +3 071,20 €/)
  expect(grouped).toMatch(/OID Business — mcp_call +7 000 +0,05 € +18 % +350,00 €/)
})

test('a long name of a metric takes its lines in the statement, and never runs into the figures', async () => {
  const words = 'vérifications d’identité approfondies avec contrôle documentaire et rapprochement biométrique'
  const name = { fr: words, en: words }
  const metrics = [{ ...oidMetrics[1]!, name, quantity: '7' }, oidMetrics[3]!]
  const pages = (await pagesOf(await toPdf(sampleInvoice({ metrics })))).join('\n')
  const [, statement] = pages.split('Relevé de consommations')
  const lines = statement!.split('\n').map((line) => line.trim().split(/ {2,}/))
  const first = lines.findIndex(([title]) => title?.startsWith('vérifications'))
  expect(lines[first]!.slice(1, 3)).toEqual(['7', '50'])
  const after = lines.findIndex(([title]) => title === 'mcp_call')
  const printed = lines.slice(first, after).flatMap(([title]) => (title === '' ? [] : [title]))
  expect(printed.join(' ')).toBe(words)
  expect(printed.length).toBeGreaterThan(1)
})
