/**
 * The service dies by SIGKILL while a tenant with a limit names new subjects: what it has named is known afterwards, no more is let
 * in than the limit, and nothing takes two places.
 */
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { UsageAnswer } from '../../src/answers.js'
import type { CardinalityView } from '../../src/cardinality.js'
import { promises } from '../promises.js'
import { openService, type Service } from '../service-process.js'

const LIMIT = 120
/** RELEVE_TEST_SEED repeats a run, as far as a kernel lets it. */
const seed = Number(process.env.RELEVE_TEST_SEED ?? Math.floor(Math.random() * 2 ** 31))

let service: Service
beforeAll(async () => {
  service = await openService({ RELEVE_STREAMS: '2' })
})
afterAll(() => service?.close())

interface Answer {
  readonly refusals: readonly { readonly index: number; readonly code: string }[]
  readonly stored: number
}

test(`killed again and again under new names => the count is neither forgotten nor doubled ${promises('ingest:ack-after-disk')}`, {
  timeout: 240_000,
}, async () => {
  await service.call('PUT', '/v1/cardinality', { tenant: 'acme', subjects: LIMIT })
  let made = 0
  /** Subjects that were let in, and those whose answer died with the service. */
  const known = new Set<string>()
  const unsure = new Set<string>()
  let denied = 0
  const send = async (subjects: readonly string[]): Promise<void> => {
    const events = subjects.map((subject) => {
      made += 1
      return { id: `c${made}`, tenant: 'acme', metric: 'kyc', subject, time: Date.now() }
    })
    const { refusals } = await service.call<Answer>('POST', '/v1/events', events)
    const refused = new Map(refusals.map(({ index, code }) => [index, code]))
    for (const [i, subject] of subjects.entries()) {
      if (!refused.has(i)) {
        known.add(subject)
        unsure.delete(subject)
      } else {
        expect(refused.get(i), `seed ${seed}`).toBe('too_many_subjects')
        // What was once let in is never refused.
        expect(known.has(subject), `seed ${seed}: ${subject}`).toBe(false)
        denied += 1
      }
    }
  }
  /** Again until it is answered: right after a start the counts are still being read, and that is told with 503. */
  const sendAtLast = async (subjects: readonly string[]): Promise<void> => {
    for (;;) {
      try {
        await send(subjects)
        return
      } catch (error) {
        if (!String(error).includes('503') && !String(error).includes('422')) throw error
        if (String(error).includes('422')) {
          denied += subjects.length
          return
        }
      }
    }
  }
  for (let round = 0; round < 5; round += 1) {
    const from = known.size
    let dead = false
    const sending = (async () => {
      for (let n = 0; !dead; n += 1) {
        const names = Array.from({ length: 3 }, (_, i) => `round ${round}, ${3 * n + i}`)
        for (const one of names) unsure.add(one)
        try {
          await send([...names, ...[...known].slice(0, 5)])
          for (const one of names) unsure.delete(one)
        } catch (error) {
          // A body of nothing but what is refused, and the end of the service.
          if (!/422|503|fetch failed|terminated|other side closed|ECONN/.test(String(error))) throw error
        }
      }
    })()
    // Who was let in while the answer died has a place too: the last of the known may never come.
    while (known.size < from + 6 && denied === 0) await new Promise((resolve) => setTimeout(resolve, 1))
    await new Promise((resolve) => setTimeout(resolve, (seed * (round + 7919)) % 200))
    await service.kill()
    dead = true
    await sending
    await service.start()
    // All that were let in go on, at once.
    await sendAtLast([...known])
  }
  // The places that are left are filled, and not one more.
  for (let n = 0; n < LIMIT + 3; n += 1) await sendAtLast([`last ${n}`])
  expect(denied).toBeGreaterThan(0)
  let view = await service.call<CardinalityView>('GET', '/v1/cardinality?tenant=acme')
  while (!view.complete) view = await service.call<CardinalityView>('GET', '/v1/cardinality?tenant=acme')
  expect(view.counts.subjects, `seed ${seed}`).toBe(LIMIT)

  while ((await service.call<{ onTheWay: number }>('GET', '/v1/books')).onTheWay > 0)
    await new Promise((resolve) => setTimeout(resolve, 50))
  const day = 86_400_000
  const from = (Math.floor(Date.now() / day) - 1) * day
  const { windows } = await service.call<UsageAnswer>(
    'GET',
    `/v1/usage?tenant=acme&metric=kyc&from=${from}&to=${from + 3 * day}&group_by=subject`,
  )
  const counted = new Set(windows.map(({ groups }) => groups.subject!))
  expect(counted.size, `seed ${seed}`).toBe(LIMIT)
  for (const subject of known) expect(counted.has(subject), subject).toBe(true)
  for (const subject of counted) expect(known.has(subject) || unsure.has(subject), subject).toBe(true)
})
