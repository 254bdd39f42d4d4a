/**
 * The demo's senders: a process of its own that speaks to the service only through the public HTTP door, as gateways do. Every
 * event is a function of its number, so a second run sends the very same events and all of them are duplicates.
 *
 * Sent: an IoT fleet (10,000 devices of three operators, in the order in which gateways flush and not in the order of time, some
 * days late), the OID and CLM platforms of Banque Atlantique with exactly the usage of the screens, a share of batches twice
 * (a gateway that saw no answer), and some events that no one could count.
 */
import { Agent, request } from 'node:http'
import type { FleetReport, FleetStart } from './messages.js'

const BATCH = 1_000
const CONNECTIONS = 4
/** Every n-th batch is sent twice. */
const RETRIED = 33
/** Every n-th IoT event is malformed in one of several ways. */
const MALFORMED = 4_000
const DEVICES = 10_000
const DAY = 86_400_000

/** A small mixing function: one number in, one well spread number in [0, 2^32) out. */
function mix(n: number): number {
  let x = Math.imul(n ^ (n >>> 16), 0x45d9f3b)
  x = Math.imul(x ^ (x >>> 15), 0x2c1b3c6d)
  return (x ^ (x >>> 13)) >>> 0
}

const operators = ['ecobank-togo', 'moov-africa', 'orange-ci'] as const
const regions = ['abidjan', 'bouake', 'dakar', 'lome', 'yamoussoukro'] as const

/** The i-th event of the fleet, as JSON text. */
function iotEvent(i: number, now: number): string {
  const r = mix(i)
  const device = r % DEVICES
  const tenant = operators[device % operators.length]!
  const region = regions[device % regions.length]!
  // Most within the last nine days; one in fifty up to thirty days late.
  const age = r % 50 === 0 ? mix(i + 1) % (30 * DAY) : mix(i + 1) % (9 * DAY)
  const time = now - age
  const head = `{"id":"iot-${i}","source":"gw-${device % 97}","tenant":"${tenant}","subject":"dev-${device}","time":${time}`
  if (i % MALFORMED === MALFORMED - 1) {
    switch (Math.floor(i / MALFORMED) % 5) {
      case 0:
        return `${head},"metric":"iot_data","value":"douze"}`
      case 1:
        return `${head},"metric":"iot_humidity","value":"1"}`
      case 2:
        return `${head.replace(String(time), String(now - 60 * DAY))},"metric":"iot_message"}`
      case 3:
        return `${head.replace(tenant, 'inconnu')},"metric":"iot_message"}`
      default:
        return `${head},"metric":"iot_data","value":"0.0000001"}`
    }
  }
  switch (r % 4) {
    case 0:
      return `${head},"metric":"iot_data","value":"${(mix(i + 2) % 5_000_000) / 1_000_000}","dims":{"region":"${region}"}}`
    case 1:
      return `${head},"metric":"iot_temperature","value":"${((mix(i + 2) % 60_000) - 10_000) / 1_000}","dims":{"region":"${region}"}}`
    default:
      return `${head},"metric":"iot_message","dims":{"region":"${region}"}}`
  }
}

/** The platforms of Banque Atlantique: what the screens show, event by event. */
function platformEvents(now: number): string[] {
  const events: string[] = []
  const monthStart = Date.UTC(2026, 2, 1)
  const add = (metric: string, count: number, rest: (i: number) => string): void => {
    for (let i = 0; i < count; i += 1) {
      const time = monthStart + (mix(i * 31 + metric.length) % (now - monthStart))
      events.push(
        `{"id":"${metric}-${i}","source":"platform","tenant":"banque-atlantique","metric":"${metric}","time":${time}${rest(i)}}`,
      )
    }
  }
  add('documents_processed', 847, (i) => `,"dims":{"format":"${i % 3 === 0 ? 'pdf' : 'docx'}"}`)
  add('ai_tokens', 370, (i) => `,"value":"500","dims":{"model":"${i % 2 === 0 ? 'resume' : 'extraction'}"}`)
  add('user_active', 540, (i) => `,"dims":{"user":"user-${i % 18}"}`)
  add(
    'auth_login',
    12_450,
    (i) => `,"subject":"user-${i % 400}","dims":{"method":"${i % 5 === 0 ? 'otp' : 'password'}"}`,
  )
  add('kyc_verification', 62, (i) => `,"dims":{"region":"${i % 2 === 0 ? 'ci' : 'sn'}"}`)
  add('certificate_enrolled', 25, () => '')
  add('mcp_call', 850, (i) => `,"dims":{"tool":"${i % 2 === 0 ? 'get_current_usage' : 'check_quota_status'}"}`)
  return events
}

interface Answer {
  readonly stored: number
  readonly refused: number
}

/** One batch until it is acknowledged; the same bytes each time. */
async function send(agent: Agent, start: FleetStart, body: Buffer): Promise<Answer> {
  for (let attempt = 0; attempt < 60; attempt += 1) {
    const answer = await new Promise<Answer | undefined>((resolve) => {
      const sent = request(
        `${start.url}/v1/events`,
        {
          agent,
          method: 'POST',
          headers: {
            authorization: `Bearer ${start.key}`,
            'content-type': 'application/json',
            'content-length': body.length,
          },
        },
        (response) => {
          const parts: Buffer[] = []
          response.on('data', (part: Buffer) => parts.push(part))
          response.on('error', () => resolve(undefined))
          response.on('end', () => {
            const status = response.statusCode ?? 0
            if (status === 202 || status === 422) return resolve(JSON.parse(Buffer.concat(parts).toString()) as Answer)
            if (status === 503 || status === 429) return resolve(undefined)
            throw new Error(`cannot send: the service answers ${status} ${Buffer.concat(parts).toString()}`)
          })
        },
      )
      sent.on('error', () => resolve(undefined))
      sent.end(body)
    })
    if (answer !== undefined) return answer
    await new Promise((resolve) => setTimeout(resolve, 100 * Math.min(attempt + 1, 10)))
  }
  throw new Error('cannot send: the service gave no answer to 60 tries')
}

async function run(start: FleetStart): Promise<void> {
  const agent = new Agent({ keepAlive: true, maxSockets: CONNECTIONS })
  const report: FleetReport = { type: 'progress', sent: 0, stored: 0, refused: 0 }
  const tell = (): void => void process.send?.({ ...report })
  const timer = setInterval(tell, 200)

  const platform = platformEvents(start.now)
  const batches = Math.ceil(start.events / BATCH) + Math.ceil(platform.length / BATCH)
  let next = 0
  const bodyOf = (batch: number): Buffer => {
    const events: string[] = []
    const fleetBatches = Math.ceil(start.events / BATCH)
    if (batch < fleetBatches) {
      for (let i = batch * BATCH; i < Math.min((batch + 1) * BATCH, start.events); i += 1)
        events.push(iotEvent(i, start.now))
    } else {
      events.push(...platform.slice((batch - fleetBatches) * BATCH, (batch - fleetBatches + 1) * BATCH))
    }
    return Buffer.from(`[${events.join(',\n')}]`)
  }
  const sender = async (): Promise<void> => {
    while (next < batches) {
      const batch = next
      next += 1
      const body = bodyOf(batch)
      const times = batch % RETRIED === RETRIED - 1 ? 2 : 1
      for (let i = 0; i < times; i += 1) {
        const answer = await send(agent, start, body)
        report.stored += answer.stored
        report.refused += answer.refused
        report.sent += answer.stored + answer.refused
      }
    }
  }
  await Promise.all(Array.from({ length: CONNECTIONS * 2 }, sender))
  clearInterval(timer)
  agent.destroy()
  report.type = 'done'
  tell()
}

process.once('message', (start: FleetStart) => {
  run(start).then(
    () => process.disconnect(),
    (error: unknown) => {
      process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`)
      process.exit(1)
    },
  )
})
// Whoever started this is gone: nobody counts on what is sent.
process.on('disconnect', () => process.exit(0))
