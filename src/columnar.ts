/**
 * Columnar: where everything lies in a body of `application/vnd.releve.columnar`. src/ingest/columnar.md is the specification;
 * this is its picture as numbers, shared by the reader (ingest/columnar.ts), by the writer (client/encoder.ts) and, as the same
 * numbers once more, by the kernel (workers/kernel/columnar.as.ts). It reads and writes nothing itself.
 */
export const COLUMNAR_TYPE = 'application/vnd.releve.columnar'

/** «RCOL», little-endian. */
export const COLUMNAR_MAGIC = 0x4c4f4352
export const COLUMNAR_VERSION = 1
export const COLUMNAR_HEADER_BYTES = 32
/** tenant, source, metric, subject, pairs: u32 each. */
export const COLUMNAR_ROW_WORDS = 5

/** Bits of `kinds`. */
export const COLUMNAR_VOID = 1
export const COLUMNAR_UNTIMED = 2
export const COLUMNAR_TIME_TEXT = 4
/** Of `decimals`, above the 18 that a value may have: the value is a text, or there is none. */
export const COLUMNAR_DECIMALS_MAX = 18
export const COLUMNAR_VALUE_ABSENT = 254
export const COLUMNAR_VALUE_TEXT = 255

/** The header's counts, in its order. */
export interface ColumnarCounts {
  readonly events: number
  readonly texts: number
  readonly textBytes: number
  readonly rows: number
  readonly pairs: number
  readonly idBytes: number
}

/** Without bit operations: the counts of a hostile header go beyond 32 bits. */
const pad8 = (n: number): number => Math.ceil(n / 8) * 8

/** Where each section begins, and where the body ends. */
export function columnarLayout({ events, texts, textBytes, rows, pairs, idBytes }: ColumnarCounts) {
  const timesAt = COLUMNAR_HEADER_BYTES
  const valuesAt = timesAt + 8 * events
  const rowOfAt = valuesAt + 8 * events
  const textEndsAt = rowOfAt + pad8(4 * events)
  const rowsAt = textEndsAt + pad8(4 * texts)
  const pairsAt = rowsAt + pad8(4 * COLUMNAR_ROW_WORDS * rows)
  const idLengthsAt = pairsAt + 8 * pairs
  const decimalsAt = idLengthsAt + pad8(2 * events)
  const kindsAt = decimalsAt + pad8(events)
  const textsAt = kindsAt + pad8(events)
  const idsAt = textsAt + pad8(textBytes)
  const length = idsAt + pad8(idBytes)
  return {
    timesAt,
    valuesAt,
    rowOfAt,
    textEndsAt,
    rowsAt,
    pairsAt,
    idLengthsAt,
    decimalsAt,
    kindsAt,
    textsAt,
    idsAt,
    length,
  }
}
