/**
 * Figures → one SVG: a sheet of panels, each with bars (from zero), dots (a logarithmic axis, where bars would lie) or lines. Pure:
 * the same figures give the same text, so a test can hold a chart against its figures.
 *
 * The sheet brings its own ground and its own colours for light and for dark, so it is legible wherever it is shown; lines differ
 * in their marks too, not by colour alone. Fonts are the reader's. It is a drawing for a page, not a library: what the benches
 * need is there, and nothing else.
 */

export interface Bar {
  readonly label: string
  readonly value: number
  /** Printed at its end; default: the value. */
  readonly text?: string
  /** Least and most of the rounds; with dots only. */
  readonly range?: readonly [least: number, most: number]
  /** Ours, drawn in the first colour; the others are grey. */
  readonly own?: boolean
}

export interface Axis {
  readonly label: string
  readonly log?: boolean
  readonly values: (value: number) => string
}

export interface Line {
  readonly name: string
  readonly points: readonly (readonly [x: number, y: number])[]
}

export type Panel =
  | {
      readonly kind: 'bars' | 'dots'
      readonly title: string
      readonly axis: Omit<Axis, 'log'>
      readonly bars: readonly Bar[]
    }
  | {
      readonly kind: 'lines'
      readonly title: string
      readonly x: Axis
      readonly y: Axis
      readonly lines: readonly Line[]
    }

export interface Sheet {
  readonly title: string
  /** Under the title: the machine and the conditions. */
  readonly note: string
  readonly columns: number
  readonly panels: readonly Panel[]
}

const WIDTH = 940
const MARGIN = 24
const GAP = 28
const HEAD = 74
const ROW = 26
const PLOT = 190
/** Width of a character of 12 px, about: fonts are the reader's. */
const CHARACTER = 6.4

const STYLE = `
  svg { color-scheme: light dark; }
  .ground { fill: #ffffff; stroke: #d0d7de; }
  text { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; font-size: 12px; fill: #1f2328; font-variant-numeric: tabular-nums; }
  .title { font-size: 18px; font-weight: 600; }
  .panel { font-size: 13px; font-weight: 600; }
  .quiet { fill: #59636e; font-size: 11px; }
  .grid { stroke: #d8dee4; stroke-width: 1; }
  .axis { stroke: #8c959f; stroke-width: 1; }
  .line { fill: none; stroke-width: 2.25; stroke-linejoin: round; stroke-linecap: round; }
  .range { stroke-width: 3; opacity: 0.45; stroke-linecap: round; }
  .other { fill: #afb8c1; } .sother { stroke: #afb8c1; }
  .c0 { fill: #0969da; } .s0 { stroke: #0969da; }
  .c1 { fill: #bc4c00; } .s1 { stroke: #bc4c00; }
  .c2 { fill: #1a7f37; } .s2 { stroke: #1a7f37; }
  .c3 { fill: #8250df; } .s3 { stroke: #8250df; }
  .c4 { fill: #57606a; } .s4 { stroke: #57606a; }
  .c5 { fill: #bf3989; } .s5 { stroke: #bf3989; }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #0d1117; stroke: #30363d; }
    text { fill: #e6edf3; }
    .quiet { fill: #9198a1; }
    .grid { stroke: #262c36; }
    .axis { stroke: #6e7681; }
    .other { fill: #6e7681; } .sother { stroke: #6e7681; }
    .c0 { fill: #4493f8; } .s0 { stroke: #4493f8; }
    .c1 { fill: #f0883e; } .s1 { stroke: #f0883e; }
    .c2 { fill: #3fb950; } .s2 { stroke: #3fb950; }
    .c3 { fill: #ab7df8; } .s3 { stroke: #ab7df8; }
    .c4 { fill: #9198a1; } .s4 { stroke: #9198a1; }
    .c5 { fill: #f778ba; } .s5 { stroke: #f778ba; }
  }`

const quoted = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('"', '&quot;')
const round = (n: number): string => String(Math.round(n * 10) / 10)
const widthOf = (text: string): number => text.length * CHARACTER

type Anchor = 'start' | 'middle' | 'end'
const text = (x: number, y: number, words: string, style = '', anchor: Anchor = 'start'): string =>
  `<text x="${round(x)}" y="${round(y)}"${style === '' ? '' : ` class="${style}"`}${anchor === 'start' ? '' : ` text-anchor="${anchor}"`}>${quoted(words)}</text>`
const stroke = (x1: number, y1: number, x2: number, y2: number, style: string): string =>
  `<line x1="${round(x1)}" y1="${round(y1)}" x2="${round(x2)}" y2="${round(y2)}" class="${style}"/>`

/** 1, 2, 2.5 or 5 times a power of ten, so that about `count` of them lie below `max`. */
function ticksTo(max: number, count: number): number[] {
  const raw = max / count
  const power = 10 ** Math.floor(Math.log10(raw))
  const step = [1, 2, 2.5, 5, 10].map((n) => n * power).find((n) => n >= raw * 0.999)!
  return Array.from({ length: Math.floor((max * 1.0001) / step) + 1 }, (_, i) => i * step)
}

/** Powers of ten around [low, high]; with 2 and 5 between them where there are few. */
function decades(low: number, high: number): number[] {
  const [first, last] = [Math.floor(Math.log10(low)), Math.ceil(Math.log10(high) - 1e-9)]
  const powers = Array.from({ length: Math.max(1, last - first) + 1 }, (_, i) => 10 ** (first + i))
  if (powers.length > 3) return powers
  const fine = powers.flatMap((power) => [power, 2 * power, 5 * power])
  const from = fine.findLastIndex((n) => n <= low * 1.0001)
  const to = fine.findIndex((n) => n >= high * 0.9999)
  return fine.slice(Math.max(0, from), to < 0 ? fine.length : to + 1)
}

interface Scale {
  readonly ticks: readonly number[]
  at(value: number): number
}

function scaleOf(values: readonly number[], log: boolean, from: number, to: number, count: number): Scale {
  const high = Math.max(...values)
  if (!log) {
    const ticks = ticksTo(high <= 0 ? 1 : high * 1.04, count)
    const end = Math.max(high * 1.04, ticks.at(-1)!)
    return { ticks, at: (value) => from + (value / end) * (to - from) }
  }
  const ticks = decades(Math.min(...values.filter((n) => n > 0)), high)
  const [first, last] = [Math.log10(ticks[0]!), Math.log10(ticks.at(-1)!)]
  const span = last - first || 1
  return { ticks, at: (value) => from + ((Math.log10(Math.max(value, ticks[0]!)) - first) / span) * (to - from) }
}

/** A mark of its own for each line. */
function mark(x: number, y: number, i: number): string {
  const style = `class="c${i % 6}"`
  if (i % 3 === 1) return `<rect x="${round(x - 3.5)}" y="${round(y - 3.5)}" width="7" height="7" ${style}/>`
  if (i % 3 === 2) return `<path d="M${round(x)} ${round(y - 4.6)} l4.6 8 h-9.2 z" ${style}/>`
  return `<circle cx="${round(x)}" cy="${round(y)}" r="3.9" ${style}/>`
}

function drawBars(panel: Panel & { kind: 'bars' | 'dots' }, left: number, top: number, width: number): string[] {
  const out: string[] = []
  const isDots = panel.kind === 'dots'
  const names = Math.max(...panel.bars.map(({ label }) => widthOf(label))) + 10
  const texts = panel.bars.map((bar) => bar.text ?? panel.axis.values(bar.value))
  const [from, to] = [left + names, left + width - Math.max(...texts.map(widthOf)) - 12]
  const bottom = top + ROW * panel.bars.length + 4
  const scale = scaleOf(
    panel.bars.flatMap(({ value, range }) => (isDots ? [value, ...(range ?? [])] : [value])),
    isDots,
    from,
    to,
    width > 500 ? 6 : 3,
  )
  for (const tick of scale.ticks) {
    const x = scale.at(tick)
    out.push(stroke(x, top, x, bottom, 'grid'), text(x, bottom + 15, panel.axis.values(tick), 'quiet', 'middle'))
  }
  if (!isDots) out.push(stroke(from, top, from, bottom, 'axis'))
  panel.bars.forEach((bar, i) => {
    const y = top + ROW * i + ROW / 2 + 2
    const x = scale.at(bar.value)
    const colour = bar.own === true ? 'c0' : 'other'
    out.push(text(from - 8, y + 4, bar.label, '', 'end'))
    const [least, most] = bar.range ?? [bar.value, bar.value]
    const end = isDots ? scale.at(most) : x
    if (isDots)
      out.push(
        stroke(scale.at(least), y, end, y, `range ${bar.own === true ? 's0' : 'sother'}`),
        stroke(from, y, x, y, 'grid'),
        `<circle cx="${round(x)}" cy="${round(y)}" r="5" class="${colour}"/>`,
      )
    else
      out.push(
        `<rect x="${round(from)}" y="${round(y - 8)}" width="${round(Math.max(1, x - from))}" height="16" rx="2" class="${colour}"/>`,
      )
    out.push(text(end + 9, y + 4, texts[i]!))
  })
  out.push(text((from + to) / 2, bottom + 31, panel.axis.label, 'quiet', 'middle'))
  return out
}

function drawLines(panel: Panel & { kind: 'lines' }, left: number, top: number, width: number): string[] {
  const out: string[] = []
  const points = panel.lines.flatMap(({ points }) => points)
  const hasLegend = panel.lines.length > 1
  // Names of lines in rows, as many as fit.
  let [legendX, legendY] = [left, top + 2]
  if (hasLegend) {
    panel.lines.forEach(({ name }, i) => {
      const wide = widthOf(name) + 26
      if (legendX > left && legendX + wide > left + width) [legendX, legendY] = [left, legendY + 17]
      out.push(mark(legendX + 5, legendY, i), text(legendX + 14, legendY + 4, name, 'quiet'))
      legendX += wide
    })
  }
  const high = hasLegend ? legendY + 34 : top + 14
  const bottom = top + PLOT
  const ys = scaleOf(
    points.map(([, y]) => y),
    panel.y.log === true,
    bottom,
    high,
    4,
  )
  const from = left + Math.max(...ys.ticks.map((tick) => widthOf(panel.y.values(tick)))) + 6
  const to = left + width - 10
  const xs = scaleOf(
    points.map(([x]) => x),
    panel.x.log === true,
    from,
    to,
    width > 500 ? 8 : 4,
  )
  for (const tick of ys.ticks) {
    const y = ys.at(tick)
    out.push(stroke(from, y, to, y, 'grid'), text(from - 6, y + 4, panel.y.values(tick), 'quiet', 'end'))
  }
  for (const tick of xs.ticks) {
    const x = xs.at(tick)
    out.push(stroke(x, bottom, x, bottom + 4, 'axis'), text(x, bottom + 17, panel.x.values(tick), 'quiet', 'middle'))
  }
  out.push(stroke(from, bottom, to, bottom, 'axis'))
  panel.lines.forEach(({ points }, i) => {
    const at = points.map(([x, y]) => [xs.at(x), ys.at(y)] as const)
    out.push(`<polyline points="${at.map(([x, y]) => `${round(x)},${round(y)}`).join(' ')}" class="line s${i % 6}"/>`)
    for (const [x, y] of at) out.push(mark(x, y, i))
  })
  out.push(
    text(left, high - 11, panel.y.log === true ? `${panel.y.label}, logarithmic` : panel.y.label, 'quiet'),
    text(
      (from + to) / 2,
      bottom + 34,
      panel.x.log === true ? `${panel.x.label}, logarithmic` : panel.x.label,
      'quiet',
      'middle',
    ),
  )
  return out
}

const heightOf = (panel: Panel): number => (panel.kind === 'lines' ? PLOT + 40 : ROW * panel.bars.length + 40)

export function drawSheet(sheet: Sheet): string {
  const wide = (WIDTH - 2 * MARGIN - GAP * (sheet.columns - 1)) / sheet.columns
  const out: string[] = []
  let top = HEAD
  for (let first = 0; first < sheet.panels.length; first += sheet.columns) {
    const row = sheet.panels.slice(first, first + sheet.columns)
    row.forEach((panel, i) => {
      const left = MARGIN + i * (wide + GAP)
      out.push(text(left, top + 14, panel.title, 'panel'))
      out.push(
        ...(panel.kind === 'lines' ? drawLines(panel, left, top + 32, wide) : drawBars(panel, left, top + 26, wide)),
      )
    })
    top += Math.max(...row.map(heightOf)) + 26 + GAP
  }
  const height = Math.round(top - GAP + MARGIN)
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img">
<title>${quoted(sheet.title)}</title>
<style>${STYLE}
</style>
<rect x="0.5" y="0.5" width="${WIDTH - 1}" height="${height - 1}" rx="8" class="ground"/>
${text(MARGIN, 34, sheet.title, 'title')}
${text(MARGIN, 54, sheet.note, 'quiet')}
${out.join('\n')}
</svg>
`
}

/** 1.2 M, 620 k, 35. */
export function short(value: number): string {
  if (value === 0) return '0'
  const [size, unit] = value >= 999_500 ? [1e6, ' M'] : value >= 999.5 ? [1e3, ' k'] : [1, '']
  const n = value / size
  return `${n >= 99.5 ? Math.round(n) : Number(n.toPrecision(2))}${unit}`
}
