/**
 * The API page in a real browser, as a developer meets it on the first day: it asks for the key, lists what there is, shows the members
 * of an answer, and «Try it out» gets a real one. Nothing leaves the host.
 */
import { type Browser, chromium, type Page } from 'playwright-core'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type DoorSystem, openDoorSystem } from '../doors/door-system.js'
import { findProgram } from '../programs.js'

let door: DoorSystem
let browser: Browser
beforeAll(async () => {
  door = await openDoorSystem()
  browser = await chromium.launch({ executablePath: findProgram('chromium')!, args: ['--no-sandbox'] })
})
afterAll(async () => {
  await browser?.close()
  await door?.close()
})

/** The page, opened with the key as the password, and what the browser asked for and complained of. */
async function openPage(key: string): Promise<{ page: Page; asked: string[]; complaints: string[] }> {
  const context = await browser.newContext({ httpCredentials: { username: 'any', password: key } })
  const page = await context.newPage()
  const asked: string[] = []
  const complaints: string[] = []
  page.on('request', (request) => asked.push(request.url()))
  page.on('console', (message) => {
    if (message.type() === 'error') complaints.push(message.text())
  })
  page.on('pageerror', (error) => complaints.push(String(error)))
  await page.goto(`${door.url}/docs/`)
  await page.waitForSelector('.opblock')
  return { page, asked, complaints }
}

test('with the key as password => every route, members of an answer, a real answer; nothing from another host', async () => {
  const { page, asked, complaints } = await openPage(door.adminKey)
  const document = (await (
    await fetch(`${door.url}/docs/json`, { headers: { authorization: `Bearer ${door.adminKey}` } })
  ).json()) as { paths: Record<string, object> }
  const operations = Object.values(document.paths).flatMap((methods) => Object.keys(methods))
  expect(await page.locator('.opblock').count()).toBe(operations.length)

  const quotas = page.locator('.opblock', { has: page.locator('[data-path="/v1/quotas/{tenant}"]') })
  await quotas.locator('.opblock-summary').click()
  // An example of the answer, made of its schema: its members by name.
  const example = quotas.locator('.responses-table .response[data-code="200"] .highlight-code')
  await example.waitFor()
  for (const member of ['tenant', 'quotas', 'contract', 'percent', 'overage'])
    expect(await example.textContent()).toContain(`"${member}"`)

  await page.locator('.btn.authorize').first().click()
  await page.locator('.auth-container input').fill(door.adminKey)
  await page.locator('.auth-btn-wrapper .authorize').click()
  await page.locator('.auth-btn-wrapper .btn-done').click()
  await quotas.locator('.try-out__btn').click()
  await quotas.locator('input[placeholder="tenant"]').fill('acme')
  await quotas.locator('.execute').click()
  const live = quotas.locator('.live-responses-table .response')
  await live.waitFor()
  expect(await live.locator('.response-col_status').textContent()).toContain('200')
  expect(JSON.parse((await live.locator('.highlight-code code').first().textContent()) ?? '')).toEqual({
    tenant: 'acme',
    quotas: [],
  })

  const origin = new URL(door.url).origin
  expect(asked.filter((url) => !url.startsWith(origin) && !url.startsWith('data:'))).toEqual([])
  expect(complaints).toEqual([])
})

test('without a key => the browser is asked for one, and sees nothing', async () => {
  const page = await browser.newPage()
  const answer = await page.goto(`${door.url}/docs/`).catch(() => null)
  expect(answer?.status() ?? 401).toBe(401)
  expect(await page.locator('.opblock').count()).toBe(0)
})
