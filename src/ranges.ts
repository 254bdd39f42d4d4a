/** Ranges of addresses in the configuration, «10.0.0.0/8» or «fd00::/8». */
import { BlockList, isIP } from 'node:net'

/** Fault of one range «address/bits», or undefined. */
export function rangeFault(range: string): string | undefined {
  const [address = '', bits = ''] = range.split('/')
  const family = isIP(address)
  if (family === 0 || !/^[0-9]{1,3}$/.test(bits) || Number(bits) > (family === 4 ? 32 : 128))
    return `«${range}» is not a range such as 10.0.0.0/8`
  return undefined
}

/** Checked ranges as one list. */
export function listOf(ranges: readonly string[]): BlockList {
  const list = new BlockList()
  for (const range of ranges) {
    const [address = '', bits] = range.split('/')
    list.addSubnet(address, Number(bits), isIP(address) === 4 ? 'ipv4' : 'ipv6')
  }
  return list
}
