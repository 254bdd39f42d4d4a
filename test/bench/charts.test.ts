/**
 * Charts and tables come from the figures alone: what is committed is what the committed results give. And the drawing itself: a
 * length is its value, a position on a logarithmic axis its logarithm, and text cannot break the file.
 */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'
import { drawSheet, type Panel, short } from '../../bench/chart.js'
import { drawings, withTables } from '../../bench/draw.js'
import { chartsFolder, quantileOf, readResult, results } from '../../bench/results.js'
import { rootDirectory } from '../../src/paths.js'

describe('what is committed', () => {
  test('there are results, and each has its drawing', () => {
    expect(results().length).toBeGreaterThan(0)
    for (const name of results()) expect(Object.keys(drawings)).toContain(name)
  })

  for (const name of results()) {
    test(`${name}.svg is what ${name}.json gives`, () => {
      const { svg } = drawings[name]!(readResult<never>(name)!)
      const path = join(chartsFolder, `${name}.svg`)
      if (svg === undefined) expect(existsSync(path)).toBe(false)
      else expect(readFileSync(path, 'utf8')).toBe(svg)
    })
  }

  test('the tables of the README are what the results give', () => {
    for (const path of ['README.md', 'bench/README.md']) {
      const readme = readFileSync(join(rootDirectory, path), 'utf8')
      expect(withTables(readme)).toBe(readme)
    }
  })

  test('a table without its figures is made anew', () => {
    const made = withTables('<!-- bench:limits -->\nold\n<!-- /bench -->\n')
    expect(made).not.toContain('old')
    expect(made).toContain('| memcpy')
    expect(withTables('<!-- bench:nothing -->\nold\n<!-- /bench -->\n')).toContain('old')
  })
})

describe('the drawing', () => {
  const sheet = (...panels: Panel[]): string => drawSheet({ title: 'a < b & "c"', note: '', columns: 1, panels })
  const axis = { label: 'ms', values: short }

  test('bars from zero: twice the value is twice the length', () => {
    const bars = [10, 20, 5].map((value) => ({ label: `way ${value}`, value, own: value === 20 }))
    const drawn = sheet({ kind: 'bars', title: 'bars', axis, bars })
    const widths = [...drawn.matchAll(/width="([0-9.]+)" height="16"/g)].map(([, width]) => Number(width))
    expect(widths).toHaveLength(3)
    expect(widths[1]! / widths[0]!).toBeCloseTo(2, 2)
    expect(widths[2]! / widths[0]!).toBeCloseTo(0.5, 2)
  })

  test('dots on a logarithmic axis: ten times the value is the same step, wherever', () => {
    const bars = [1, 10, 100, 1_000].map((value) => ({ label: 'x', value }))
    const drawn = sheet({ kind: 'dots', title: 'dots', axis, bars })
    const places = [...drawn.matchAll(/cx="([0-9.]+)"/g)].map(([, x]) => Number(x))
    expect(places).toHaveLength(4)
    expect(places[1]! - places[0]!).toBeCloseTo(places[3]! - places[2]!, 0)
    expect(places[3]!).toBeGreaterThan(places[0]!)
  })

  test('lines: a point for each figure, higher for more, names in a legend when there are several', () => {
    const x = { label: 'series', log: true, values: short }
    const lines = [
      { name: 'up', points: [[1, 1] as const, [10, 2] as const, [100, 4] as const] },
      { name: 'down', points: [[1, 4] as const, [10, 2] as const, [100, 1] as const] },
    ]
    const drawn = sheet({ kind: 'lines', title: 'lines', x, y: axis, lines })
    const [up, down] = [...drawn.matchAll(/polyline points="([^"]+)"/g)].map(([, text]) =>
      text!.split(' ').map((pair) => pair.split(',').map(Number) as [number, number]),
    )
    expect(up).toHaveLength(3)
    expect(up![2]![1]).toBeLessThan(up![0]![1])
    expect(down![2]![1]).toBeGreaterThan(down![0]![1])
    expect(up![1]![0] - up![0]![0]).toBeCloseTo(up![2]![0] - up![1]![0], 0)
    expect(drawn).toContain('>up</text>')
    expect(drawn).toContain('series, logarithmic')
  })

  test('text is text', () => {
    const drawn = sheet({ kind: 'bars', title: '</svg>', axis, bars: [{ label: '<script>', value: 0 }] })
    expect(drawn).toContain('a &lt; b &amp; &quot;c&quot;')
    expect(drawn).not.toContain('<script>')
    expect(drawn.match(/<\/svg>/g)).toHaveLength(1)
  })

  test('numbers for people', () => {
    expect([0, 7, 35, 1_200, 99_949, 620_000, 999_600, 1_234_567, 100_000_000].map(short)).toEqual([
      '0',
      '7',
      '35',
      '1.2 k',
      '100 k',
      '620 k',
      '1 M',
      '1.2 M',
      '100 M',
    ])
    expect(quantileOf([5, 1, 4, 2, 3], 0.5)).toBe(3)
    expect(quantileOf([1, 2, 3, 4], 0.99)).toBe(4)
  })
})
