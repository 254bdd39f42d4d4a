/**
 * Lines of a body, for the formats where a line is an event (NDJSON, CSV): what is wrong in one never reaches into the next.
 * A line ends with LF or CR LF; the last one may have no end. Lines of blanks alone are no lines.
 */
const LF = 0x0a
const CR = 0x0d

/** Calls `take` with the bounds of every line that is not blank, in order. */
export function eachLine(body: Uint8Array, start: number, take: (from: number, to: number) => void): void {
  let from = start
  while (from < body.length) {
    let next = body.indexOf(LF, from)
    if (next < 0) next = body.length
    const to = lineEnd(body, from, next)
    if (!isBlank(body, from, to)) take(from, to)
    from = next + 1
  }
}

/** Where a line ends whose line feed, or the end of the body, is at `next`. */
export function lineEnd(body: Uint8Array, from: number, next: number): number {
  return next > from && body[next - 1] === CR ? next - 1 : next
}

function isBlank(body: Uint8Array, from: number, to: number): boolean {
  for (let at = from; at < to; at += 1) {
    const byte = body[at]!
    if (byte !== 0x20 && byte !== 0x09 && byte !== CR) return false
  }
  return true
}
