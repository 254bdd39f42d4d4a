/** Settings: what is wrong is told all at once, and .env.example lists exactly what is read. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { parseConfig, settings } from '../src/config.js'
import { limits } from '../src/limits.js'
import { rootDirectory } from '../src/paths.js'

const faultsOf = (env: Record<string, string>): string[] => {
  try {
    parseConfig(env)
  } catch (error) {
    return (error as Error).message.split('\n').slice(1, -1)
  }
  return []
}

const example = (): [name: string, value: string][] =>
  readFileSync(join(rootDirectory, '.env.example'), 'utf8')
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'))
    .map((line) => [line.slice(0, line.indexOf('=')), line.slice(line.indexOf('=') + 1)])

test('nothing set => the defaults of limits.ts, on this machine alone', () => {
  expect(parseConfig({})).toMatchObject({
    host: '127.0.0.1',
    port: 8484,
    clickhouseUrl: undefined,
    postgresUrl: undefined,
    epochMs: limits.epochMs,
    lateMs: limits.lateMs,
    aheadMs: limits.aheadMs,
    crashAt: '',
  })
  expect(parseConfig({})).toEqual(parseConfig(Object.fromEntries(settings.map((name) => [name, '']))))
})

test('ten wrong settings => ten faults in one message, and no password in it', () => {
  const env = {
    RELEVE_PORT: '65536',
    RELEVE_LOG: 'loud',
    RELEVE_STREAMS: '0',
    RELEVE_EPOCH_MS: '5s',
    RELEVE_GRACE_MS: '-1',
    RELEVE_LATE_MS: '1e9',
    RELEVE_DEDUPE_IDS: '1',
    RELEVE_LOG_BYTES: '1024',
    CLICKHOUSE_URL: 'tcp://user:secret@host:9000',
    POSTGRES_URL: 'secret',
  }
  const faults = faultsOf(env)
  expect(faults.map((line) => line.trim().split(' ')[0]).sort()).toEqual(Object.keys(env).sort())
  expect(faults.join()).not.toContain('secret')
})

test('a setting that does not exist => a fault, so that a misspelt one is not silently without effect', () => {
  expect(faultsOf({ RELEVE_PROT: '80', RELEVE_LOG: 'warn', HOME: '/' })).toEqual([
    '  RELEVE_PROT is not a setting of releve',
  ])
})

test('the bounds of each number are inside, their neighbours outside', () => {
  for (const [name, min, max] of [
    ['RELEVE_PORT', 0, 65_535],
    ['RELEVE_STREAMS', 1, 64],
    ['RELEVE_EPOCH_MS', 50, 60_000],
    ['RELEVE_GRACE_MS', 0, 30 * 86_400_000],
    ['RELEVE_AHEAD_MS', 0, 7 * 86_400_000],
    ['RELEVE_DEDUPE_IDS', 16 * limits.batchEventsMax, limits.dedupeIdsCeiling],
    ['RELEVE_DEDUPE_DISK_BYTES', 0, 2 ** 44],
    ['RELEVE_LOG_BYTES', 8 * limits.segmentBytes, 2 ** 44],
  ] as const) {
    expect(faultsOf({ [name]: String(min) }), name).toEqual([])
    expect(faultsOf({ [name]: String(max) }), name).toEqual([])
    expect(faultsOf({ [name]: String(max + 1) }), name).toHaveLength(1)
    expect(faultsOf({ [name]: String(min - 1) }), name).toHaveLength(1)
  }
})

test('ages that ask for a longer memory of ids than there is => a fault', () => {
  expect(faultsOf({ RELEVE_LATE_MS: String(99 * 86_400_000) })).toEqual([])
  expect(faultsOf({ RELEVE_LATE_MS: String(100 * 86_400_000) })).toHaveLength(1)
})

test('.env.example lists exactly the settings, each explained, with the values in force', () => {
  expect(example().map(([name]) => name)).toEqual(settings)
  expect(parseConfig(Object.fromEntries(example()))).toEqual(parseConfig({}))
  const lines = readFileSync(join(rootDirectory, '.env.example'), 'utf8').split('\n')
  for (const block of lines.join('\n').trim().split('\n\n').slice(1)) expect(block).toMatch(/^#/)
})
