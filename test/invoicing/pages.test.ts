/** The printed page as a reader of PDF sees it (pdftotext): page breaks, carried sums, the seal of a clearance system. */
import { expect, test } from 'vitest'
import { toPdf } from '../../src/invoicing/pdf.js'
import { contentsOf, pagesOf } from './read-pdf.js'
import { sampleInvoice } from './sample.js'

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
