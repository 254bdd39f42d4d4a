/** Thresholds of golden cases on the live balance that the shard keeps: each value is an event, what rings is what it tells. */
import { type Crossing, openBalances } from '../../src/quota/balance.js'
import type { Recurring, Threshold } from '../../src/quota/entitlement.js'
import { parseFigure } from '../../src/quota/level.js'
import { eventOf, frameOf, metricOf, testMemberHash } from '../aggregate/event-list.js'

export interface Watched {
  readonly limit?: string
  readonly thresholds: readonly Threshold[]
  readonly recurring?: readonly Recurring[]
}

/** What each value of a metric that is its latest value tells, in their order. */
export function watchValues({ limit, ...watched }: Watched, values: readonly string[]): Crossing[][] {
  const metric = metricOf('units', 'latest', 9)
  const { eventTime, tenant } = eventOf({ metric })
  const balances = openBalances({ memberHash: testMemberHash })
  const entitlement = {
    item: 'case',
    contract: 'case',
    tenant,
    product: 'case',
    metric: metric.key,
    aggregation: metric.aggregation,
    limit: limit ?? null,
    limitVersion: 1,
    anchor: eventTime,
    timeZone: 'UTC',
    ...watched,
  }
  const { needed } = balances.setEntitlements([entitlement], { epoch: 1, receivedAt: eventTime, sequence: 0 })
  const nothing = { sum: '0', count: 0, samples: 0, min: '0', max: '0', last: '0', lastTime: 0, lastPosition: 0 }
  for (const need of needed) balances.setBase(need, nothing)
  return values.map((text, i) => {
    const event = eventOf({ metric, value: parseFigure(text) })
    const { frame, verdicts } = frameOf({ sequence: i + 1, receivedAt: eventTime, events: [event] })
    return balances.apply(frame, i + 1, verdicts)
  })
}
