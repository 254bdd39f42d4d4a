/**
 * Which addresses releve may be sent to by a customer: none of its own network. A name is resolved and its addresses are checked
 * within the connection itself, and the connection goes to the checked address: a name that answers otherwise the second time
 * gains nothing. The configuration may allow ranges, for receivers of one's own; plain http is only for those.
 *
 * Everything that is not a public unicast address is refused, so that a range nobody thought of is refused as well.
 */
import { type LookupAddress, type LookupAllOptions, lookup } from 'node:dns'
import { isIP, type LookupFunction } from 'node:net'
import { ReleveError } from '../errors.js'
import { listOf } from '../ranges.js'

const PRIVATE_V4 = [
  '0.0.0.0/8',
  '10.0.0.0/8',
  '100.64.0.0/10',
  '127.0.0.0/8',
  '169.254.0.0/16',
  '172.16.0.0/12',
  '192.0.0.0/24',
  '192.0.2.0/24',
  '192.88.99.0/24',
  '192.168.0.0/16',
  '198.18.0.0/15',
  '198.51.100.0/24',
  '203.0.113.0/24',
  '224.0.0.0/3',
]
/** Public is 2000::/3 alone, and of it not what carries another address inside (Teredo, 6to4) or is for documents. */
const PUBLIC_V6 = '2000::/3'
const PRIVATE_V6 = ['2001::/23', '2001:db8::/32', '2002::/16', '3fff::/20']

export interface AddressGuard {
  /** Throws ReleveError `unprocessable` for a URL that nothing may be sent to, as far as its text tells. */
  check(url: URL): void
  /** The same after a look at what the name stands for now; a name that stands for nothing yet is no fault. */
  checkResolved(url: URL): Promise<void>
  /** For the connection itself: answers checked addresses, or an error. */
  lookupFor(url: URL): LookupFunction
}

/** What a name stands for. The system's own, but for tests of names that change their mind. */
export type Resolve = (
  hostname: string,
  options: LookupAllOptions,
  callback: (error: NodeJS.ErrnoException | null, addresses: LookupAddress[]) => void,
) => void

export function openAddressGuard(allowedRanges: readonly string[], resolve: Resolve = lookup): AddressGuard {
  const privateV4 = listOf(PRIVATE_V4)
  const publicV6 = listOf([PUBLIC_V6])
  const privateV6 = listOf(PRIVATE_V6)
  const allowed = listOf(allowedRanges)

  const isPublic = (address: string): boolean => {
    const family = isIP(address)
    if (family === 4) return !privateV4.check(address)
    return family === 6 && publicV6.check(address, 'ipv6') && !privateV6.check(address, 'ipv6')
  }
  const mayReach = (address: string, isPlain: boolean): boolean =>
    allowed.check(address, isIP(address) === 4 ? 'ipv4' : 'ipv6') || (!isPlain && isPublic(address))

  const refusal = (url: URL, address: string): ReleveError =>
    new ReleveError(
      'unprocessable',
      url.protocol === 'http:' && isPublic(address)
        ? 'url: http:// is only for addresses that RELEVE_WEBHOOK_ALLOW names; use https://'
        : `url: ${url.hostname} is not a public address, and RELEVE_WEBHOOK_ALLOW does not name it`,
    )
  const hostOf = (url: URL): string => url.hostname.replace(/^\[|\]$/g, '')

  const check = (url: URL): void => {
    if (url.protocol !== 'https:' && url.protocol !== 'http:')
      throw new ReleveError('unprocessable', 'url: begins with https://')
    if (url.username !== '' || url.password !== '')
      throw new ReleveError('unprocessable', 'url: holds no user and no password; the signature proves the sender')
    const host = hostOf(url)
    if (isIP(host) !== 0 && !mayReach(host, url.protocol === 'http:')) throw refusal(url, host)
  }

  const lookupFor = (url: URL): LookupFunction => {
    const isPlain = url.protocol === 'http:'
    return (hostname, options, callback) => {
      resolve(hostname, { family: options.family ?? 0, all: true, verbatim: true }, (error, addresses) => {
        if (error !== null) return callback(error, '', 0)
        const bad = addresses.find(({ address }) => !mayReach(address, isPlain))
        if (bad !== undefined) return callback(refusal(url, bad.address), '', 0)
        if (options.all) return callback(null, addresses)
        callback(null, addresses[0]!.address, addresses[0]!.family)
      })
    }
  }

  return {
    check,
    lookupFor,
    async checkResolved(url) {
      check(url)
      const host = hostOf(url)
      if (isIP(host) !== 0) return
      await new Promise<void>((done, fail) => {
        lookupFor(url)(host, { all: true }, (error) => (error instanceof ReleveError ? fail(error) : done()))
      })
    },
  }
}
