/**
 * The clearance system on loopback, as its contract is documented: it takes a document, uses a sticker and answers, or does what a
 * test tells it to do with the next call. It remembers every call, so that a second one for the same document is seen.
 */
import { createServer, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'

/** What the next calls get; after the last one calls are answered as they should be. */
export type Behaviour =
  | { readonly status: number; readonly body?: unknown; readonly headers?: Record<string, string> }
  /** Taken, but the answer never comes, comes late, or breaks off. */
  | { readonly taken: 'silent' | 'broken' | 'late'; readonly ms?: number }

interface FneBody {
  readonly invoiceType?: string
  readonly paymentMethod?: string
  readonly template?: string
  readonly clientNcc?: string
  readonly pointOfSale?: string
  readonly establishment?: string
  readonly items: readonly {
    readonly id?: string
    readonly description?: string
    readonly quantity?: number
    readonly amount: number
    readonly taxes?: readonly string[]
  }[]
}

export interface FneCall {
  readonly path: string
  readonly authorization: string | undefined
  /** As it came: numbers keep their digits. */
  readonly text: string
  readonly body: FneBody
}

export interface FneServer {
  readonly base: string
  readonly token: string
  readonly calls: FneCall[]
  /** Documents that used a sticker. */
  readonly taken: FneCall[]
  next(...behaviours: Behaviour[]): void
  close(): Promise<void>
}

export async function openFneServer(): Promise<FneServer> {
  const token = 'fne-secret-token'
  const calls: FneCall[] = []
  const taken: FneCall[] = []
  const planned: Behaviour[] = []
  const json = (
    response: ServerResponse,
    status: number,
    body: unknown,
    headers: Record<string, string> = {},
  ): void => {
    response.writeHead(status, { 'content-type': 'application/json', ...headers })
    response.end(typeof body === 'string' ? body : JSON.stringify(body))
  }
  const server = createServer((request, response) => {
    const parts: Buffer[] = []
    request.on('data', (part: Buffer) => parts.push(part))
    request.on('end', () => {
      const text = Buffer.concat(parts).toString()
      const call: FneCall = {
        path: request.url ?? '',
        authorization: request.headers.authorization,
        text,
        body: JSON.parse(text),
      }
      calls.push(call)
      const plan = planned.shift()
      if (plan !== undefined && 'status' in plan)
        return json(response, plan.status, plan.body ?? { message: 'no' }, plan.headers)
      if (call.authorization !== `Bearer ${token}`) return json(response, 401, { message: 'Unauthorized' })
      const fault = faultOf(call)
      if (fault !== null) return json(response, 400, { message: fault })
      taken.push(call)
      const n = taken.length
      const answer = {
        ncc: '9606123E',
        reference: `9606123E2600000${String(n).padStart(4, '0')}`,
        token: `http://fne.example/fr/verification/019465c1-${n}`,
        warning: false,
        balance_sticker: 1000 - n,
        invoice: {
          id: `e2b2d8da-${n}`,
          items: call.body.items.map((_, i) => ({ id: `item-${n}-${i}` })),
        },
      }
      if (plan === undefined) return json(response, 201, answer)
      if (plan.taken === 'silent') return
      if (plan.taken === 'late') return void setTimeout(() => json(response, 201, answer), plan.ms ?? 100)
      response.writeHead(201, { 'content-type': 'application/json', 'content-length': '5000' })
      response.write(JSON.stringify(answer).slice(0, 40), () => request.socket.destroy())
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    base: `http://127.0.0.1:${(server.address() as AddressInfo).port}/ws`,
    token,
    calls,
    taken,
    next: (...behaviours) => planned.push(...behaviours),
    close: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

const METHODS = ['cash', 'card', 'check', 'mobile-money', 'transfer', 'deferred']

function faultOf({ path, body }: FneCall): string | null {
  const { items } = body
  if (items === undefined || items.length === 0) return 'items is required'
  if (/^\/ws\/external\/invoices\/[^/]+\/refund$/.test(path))
    return items.every((item) => typeof item.id === 'string' && Number(item.quantity) > 0)
      ? null
      : 'items: id, quantity'
  if (path !== '/ws/external/invoices/sign') return 'no such path'
  if (body.invoiceType !== 'sale') return 'invoiceType'
  if (!METHODS.includes(body.paymentMethod ?? '')) return 'paymentMethod'
  if (!['B2B', 'B2C', 'B2G', 'B2F'].includes(body.template ?? '')) return 'template'
  if (body.template === 'B2B' && typeof body.clientNcc !== 'string') return 'clientNcc is required'
  if (!body.pointOfSale || !body.establishment) return 'pointOfSale, establishment'
  for (const item of items) {
    if (typeof item.amount !== 'number' || item.amount <= 0) return 'items.amount'
    if (typeof item.quantity !== 'number' || typeof item.description !== 'string') return 'items.quantity'
    if (!(item.taxes ?? ['none']).every((tax: string) => ['TVA', 'TVAB', 'TVAC', 'TVAD'].includes(tax)))
      return 'items.taxes'
  }
  return null
}
