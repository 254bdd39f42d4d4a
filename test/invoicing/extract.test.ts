/** The detail of an invoice as CSV and XLSX: every line is there, spreadsheets open it, and no text runs as a formula. */
import { crc32 } from 'node:zlib'
import { expect, test } from 'vitest'
import { type Table, toCsv, toXlsx } from '../../src/invoicing/extract.js'
import { groupLines } from '../../src/invoicing/group.js'

const table: Table = {
  columns: ['label', 'amount'],
  numeric: new Set(['amount']),
  rows: [
    ['Régularisation, «mars»', '-2.50'],
    ['=HYPERLINK("x")', '10.00'],
    ['a\nb & <c>', '0.005'],
  ],
}

test('CSV quotes what must be quoted, disarms formulas and keeps negative amounts', () => {
  expect(toCsv(table)).toBe(
    '\ufefflabel,amount\r\n"Régularisation, «mars»",-2.50\r\n"\'=HYPERLINK(""x"")",10.00\r\n"a\nb & <c>",0.005\r\n',
  )
})

test('XLSX is a ZIP whose entries have the right length and checksum, and a row for each row', () => {
  const bytes = toXlsx({ ...table, rows: Array.from({ length: 2500 }, (_, i) => [`objet ${i}`, '1.00']) })
  const entries = new Map<string, Buffer>()
  // Read by the central directory, as every reader does.
  const end = bytes.subarray(bytes.length - 22)
  expect(end.subarray(0, 4).toString('latin1')).toBe('PK\x05\x06')
  let at = end.readUInt32LE(16)
  for (let i = 0; i < end.readUInt16LE(10); i += 1) {
    expect(bytes.readUInt32LE(at)).toBe(0x02014b50)
    const size = bytes.readUInt32LE(at + 20)
    const nameLength = bytes.readUInt16LE(at + 28)
    const local = bytes.readUInt32LE(at + 42)
    const name = bytes.subarray(at + 46, at + 46 + nameLength).toString('latin1')
    const from = local + 30 + bytes.readUInt16LE(local + 26) + bytes.readUInt16LE(local + 28)
    const data = bytes.subarray(from, from + size)
    expect(bytes.readUInt32LE(local)).toBe(0x04034b50)
    expect(crc32(data), name).toBe(bytes.readUInt32LE(at + 16))
    entries.set(name, data)
    at += 46 + nameLength
  }
  const sheet = entries.get('xl/worksheets/sheet1.xml')!.toString()
  expect(sheet.match(/<row /g)).toHaveLength(2501)
  expect(sheet).toContain('<c t="inlineStr"><is><t xml:space="preserve">objet 2499</t></is></c><c><v>1.00</v></c>')
})

test('grouping for paper loses no line and no cent, and stays within its bound', () => {
  const lines = Array.from({ length: 2500 }, (_, i) => ({ amount: (i / 100).toFixed(2), plan: `plan ${i % 70}` }))
  const { groups, detail } = groupLines(lines, (line) => line.plan, 'EUR')
  expect(groups).toHaveLength(50)
  expect(groups.reduce((all, group) => all + group.lines, 0)).toBe(2500)
  expect(groups.reduce((all, group) => all + Math.round(Number(group.amount) * 100), 0)).toBe((2500 * 2499) / 2)
  expect(detail).toHaveLength(2500)
  expect(groupLines(lines.slice(0, 5), (line) => line.plan, 'EUR').groups).toHaveLength(5)
})
