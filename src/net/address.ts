/**
 * Addresses to which this program never connects. The rule for URLs in `core/schema.ts`
 * sees names and literal addresses. This rule sees what a name resolves to, so that a DNS
 * answer can't lead a secret to a metadata service of a cloud, or unencrypted to another
 * machine.
 */
import type { LookupAddress, LookupOptions } from 'node:dns'
import { AdapterError } from '../core/errors.ts'

type LookupCallback = (
  error: NodeJS.ErrnoException | null,
  address: string | LookupAddress[],
  family?: number,
) => void
export type Lookup = (hostname: string, options: LookupOptions, callback: LookupCallback) => void

/**
 * Link-local addresses and those of metadata services: `169.254.0.0/16`, `fe80::/10`, the
 * ones of AWS and Alibaba, and the same in their IPv6 spellings.
 */
function isLinkLocal(address: string): boolean {
  const plain = unmapped(address)
  return /^169\.254\.|^fe[89ab][0-9a-f]:|^fd00:ec2:|^100\.100\.100\.200$/i.test(plain)
}

/** Whether the address belongs to this machine only. */
export function isLoopback(address: string): boolean {
  const plain = unmapped(address)
  return /^127\./.test(plain) || plain === '::1'
}

/**
 * The IPv4 address inside an IPv6 spelling such as `::ffff:a9fe:a9fe` or
 * `::ffff:169.254.169.254`, also in the NAT64 and the compatible form. Other addresses
 * are returned without brackets and zone.
 */
function unmapped(address: string): string {
  const bare = address.replace(/^\[|\]$/g, '').replace(/%.*$/, '')
  const dotted = /^(?:::ffff:|::|64:ff9b::)(\d{1,3}(?:\.\d{1,3}){3})$/i.exec(bare)
  if (dotted?.[1] !== undefined) return dotted[1]
  const hex = /^(?:::ffff:|64:ff9b::)([0-9a-f]{1,4}):([0-9a-f]{1,4})$/i.exec(bare)
  if (hex === null) return bare
  const high = Number.parseInt(hex[1] ?? '0', 16)
  const low = Number.parseInt(hex[2] ?? '0', 16)
  return [high >> 8, high & 255, low >> 8, low & 255].join('.')
}

/** Why an address may not be connected to, or `undefined`. */
export function addressFault(address: string, plain: boolean): string | undefined {
  if (isLinkLocal(address)) return 'leads to a link-local metadata address'
  if (plain && !isLoopback(address))
    return 'is plain http and leads to an address that is not loopback (use https:)'
  return undefined
}

/**
 * A resolver for sockets that refuses forbidden addresses. One forbidden address among
 * several refuses all of them, because such an answer is probably an attack.
 */
export function guardedLookup(resolve: Lookup, plain: boolean): Lookup {
  return (hostname, options, callback) => {
    resolve(hostname, { ...options, all: true }, (error, found) => {
      if (error !== null) return callback(error, [])
      const addresses: LookupAddress[] =
        typeof found === 'string' ? [{ address: found, family: 4 }] : found
      for (const { address } of addresses) {
        const fault = addressFault(address, plain)
        if (fault !== undefined)
          return callback(new AdapterError('misconfigured', `the host ${hostname} ${fault}`), [])
      }
      const first = addresses[0]
      if (options.all === true || first === undefined) return callback(null, addresses)
      callback(null, first.address, first.family)
    })
  }
}
