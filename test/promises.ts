/**
 * The promises, each with a name and one sentence. A test that attacks one cites it: `promises('dedupe:first-only')` in its
 * title. test/promises.test.ts checks that every promise is cited and that src/README.md lists the same.
 */
export const Promises = {
  'ingest:ack-after-disk': 'An acknowledged event is on disk and survives kill -9.',
  'ingest:verdict-per-event': 'A bad event never costs its neighbours, and says which field is wrong and why.',
  'dedupe:first-only':
    'The same (tenant, source, id) counts once within the window in force; tenants never meet; nothing distinct is dropped.',
  'flow:exactly-once': 'After any crash the rollups equal those of a run without crashes, to the last digit.',
  'flow:replay-equals-live': 'Usage rebuilt from the archive and the remaining log equals usage as served.',
  'flow:late-is-correction': 'A late event changes a figure visibly or is refused visibly.',
  'flow:books-balance':
    'received = stored + refused; stored = accepted + duplicate + conflict; accepted = counted = archived.',
  'quota:bounded-staleness': 'A quota answer carries its age.',
  'alert:once-per-crossing': 'A threshold crossed in a period is recorded once and delivered at least once.',
  'limit:never-oversold': 'Reservations never grant more than a hard limit leaves, whoever races and whatever dies.',
  'rating:pure': 'Same input, same lines, for ever.',
  'rating:lines-sum-to-total': 'The lines sum to the total, to the last unit, with any model and any rounding.',
  'invoice:issued-never-changes': 'An issued invoice never changes; corrections are new documents.',
  'invoice:numbers-have-no-gap': 'Numbers of a series have no gap and no double, whatever dies and whoever races.',
  'invoice:explains-itself': 'From a line to its price version, cut, query, count, digest and events.',
  'tenant:isolated': 'No key reads or writes another tenant.',
  'system:bounded': 'No queue, map or retry without a maximum; too much load gets 429 or 503, never memory.',
} as const

export type PromiseName = keyof typeof Promises

/** For test titles: keeps the citation checked by the compiler. */
export function promises(name: PromiseName): string {
  return `[${name}]`
}
