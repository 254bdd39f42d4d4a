/** The golden cases as a test: what passes stays passing, what is not built is named, and no case is dropped in silence. */
import { describe, expect, test } from 'vitest'
import { goldenFile, readCases, runGolden } from './golden.js'

/** Cases that fail today, each with its reason. The list may only become shorter. */
const failing: readonly string[] = []

/** Areas of which some cases belong to parts that do not exist yet. Everything else must pass. */
const areasNotBuilt = ['dunning', 'kpi', 'mcp', 'payment', 'security']

describe('golden cases', () => {
  test('every case has one verdict, and only what is listed fails or is not built', async () => {
    const cases = readCases(goldenFile)
    const results = await runGolden(cases)
    expect(results.map((result) => result.id)).toEqual(cases.map((one) => one.id))
    expect(new Set(cases.map((one) => one.id)).size).toBe(cases.length)
    expect(cases.length).toBe(154)
    expect(results.filter((result) => result.verdict === 'fail').map((result) => result.id)).toEqual(failing)
    const notBuilt = new Set(results.filter((result) => result.verdict === 'not_built').map((result) => result.id))
    const areas = new Set(cases.filter((one) => notBuilt.has(one.id)).map((one) => one.area))
    expect([...areas].sort()).toEqual(areasNotBuilt)
    expect(notBuilt.size).toBe(38)
  }, 120_000)

  test('an unknown op, a wrong number, and an expectation of nothing all fail', async () => {
    const given = { metric: 'm', usage: '62', limit: '50' }
    const base = { id: 'x', area: 'quota', given }
    const results = await runGolden([
      { ...base, op: 'no_such_op', expect: { percent: '124.0' } },
      { ...base, op: 'quota_status', expect: { percent: '124.1' } },
      { ...base, op: 'quota_status', expect: { percent: '124' } },
      { ...base, op: 'quota_status', expect: {} },
      { ...base, op: 'quota_status', expect: { percent: '124.0', surprise: '1' } },
      { ...base, op: 'quota_status', expect: { percent: '124.0' } },
    ])
    expect(results.map((result) => result.verdict)).toEqual(['fail', 'fail', 'fail', 'fail', 'fail', 'pass'])
  })
})
