/**
 * Broken invariants. A failed assertion means that the code is wrong, not the input: the message begins with «BUG:», nobody
 * catches it and goes on, the thread stops and the log replays.
 */
export function assert(condition: unknown, message: string): asserts condition {
  if (!condition) throw new Error(`BUG: ${message}`)
}

export function unreachable(value: never): never {
  throw new Error(`BUG: unreachable, got ${JSON.stringify(value)}`)
}
