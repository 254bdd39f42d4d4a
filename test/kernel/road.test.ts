import { expect, test } from 'vitest'
import { promises } from '../promises.js'
import { fuzzRoad } from './road-fuzz.js'

test(`${promises('flow:books-balance')}: 200,000 generated and broken events => door, dedupe and epoch of the kernel give the bytes of the plain ones`, () => {
  const done = fuzzRoad(200_000, 20_260_311)
  expect(done.stored).toBe(done.accepted + done.duplicate + done.conflict)
  // Everything has happened.
  expect(done.accepted).toBeGreaterThan(50_000)
  expect(done.duplicate).toBeGreaterThan(5_000)
  expect(done.conflict).toBeGreaterThan(500)
  expect(done.voids).toBeGreaterThan(500)
  expect(done.epochs).toBeGreaterThan(10)
})
