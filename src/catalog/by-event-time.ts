/**
 * A version of a price that takes effect within a period cuts the usage of it in two, and each part costs its own price. So the figure
 * of the whole must be the sum of those of its parts: a sum, a count, or a level over time. The largest of a month is not that of its
 * halves added up, nor is a number of different members, a last value, a mean or a percentile: for these a version waits for the next
 * period, and asking otherwise is refused when it is put, with the reason. Pure.
 */
import { ReleveError } from '../errors.js'
import type { Metric } from './metric.js'

const CUT: readonly Metric['aggregation'][] = ['sum', 'count', 'weighted_sum']

/** Throws ReleveError `unprocessable`. */
export function assertMetricByEventTime({ key, aggregation }: Pick<Metric, 'key' | 'aggregation'>): void {
  if (!CUT.includes(aggregation))
    throw new ReleveError(
      'unprocessable',
      `takesEffect: ${key} is a ${aggregation}, and that of a period is not the sum of those of its parts, so that a price cannot change within it; let the version take effect with the next period`,
    )
}
