/**
 * Chains: many lists of the same small numbers (members), in five arrays. A member is in one chain at most; putting it into one takes it
 * out of the other. Nothing is allocated after the start, and nothing is a heap object: see ledger.ts for why.
 */
export class Chains {
  /** By member: its neighbours and its chain, each plus one; 0 is none, so that memory that nobody has touched is right. */
  readonly #next: Int32Array
  readonly #previous: Int32Array
  readonly #of: Int32Array
  /** By chain. */
  readonly #first: Int32Array
  readonly #last: Int32Array

  constructor(members: number, chains: number) {
    this.#next = new Int32Array(members)
    this.#previous = new Int32Array(members)
    this.#of = new Int32Array(members)
    this.#first = new Int32Array(chains)
    this.#last = new Int32Array(chains)
  }

  /** The first of a chain; -1: it is empty. */
  first(chain: number): number {
    return this.#first[chain]! - 1
  }

  /** Which follows a member in its chain; -1: it is the last. */
  after(member: number): number {
    return this.#next[member]! - 1
  }

  /** At the chain's end. */
  add(member: number, chain: number): void {
    this.remove(member)
    const last = this.#last[chain]!
    this.#of[member] = chain + 1
    this.#previous[member] = last
    if (last === 0) this.#first[chain] = member + 1
    else this.#next[last - 1] = member + 1
    this.#last[chain] = member + 1
  }

  /** At the chain's beginning. */
  addFirst(member: number, chain: number): void {
    this.remove(member)
    const first = this.#first[chain]!
    this.#of[member] = chain + 1
    this.#next[member] = first
    if (first === 0) this.#last[chain] = member + 1
    else this.#previous[first - 1] = member + 1
    this.#first[chain] = member + 1
  }

  /** Out of whatever chain it is in. */
  remove(member: number): void {
    const chain = this.#of[member]! - 1
    if (chain < 0) return
    const next = this.#next[member]!
    const previous = this.#previous[member]!
    if (previous === 0) this.#first[chain] = next
    else this.#next[previous - 1] = next
    if (next === 0) this.#last[chain] = previous
    else this.#previous[next - 1] = previous
    this.#next[member] = 0
    this.#previous[member] = 0
    this.#of[member] = 0
  }
}
