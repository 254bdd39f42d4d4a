/** Mutants. */
import type { CrashPoint } from '../../src/crash-points.js'

export interface Mutant {
  readonly name: string
  readonly point: CrashPoint
  readonly pass: number
  readonly sign: RegExp
  readonly spikes?: number
}

export const mutants: readonly Mutant[] = []

export function buildMutant(_: Mutant): { readonly root: string; remove(): void } {
  throw new Error('not yet')
}
