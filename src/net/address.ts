/**
 * Which addresses are never connected to. The URL rule of `core/schema.ts` sees names and
 * literals; this one sees what a name resolved to, so that a DNS answer can't lead a
 * secret to a metadata service, or plain http off this machine.
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
 * `169.254.0.0/16`, `fe80::/10`, the AWS and Alibaba metadata addresses, and the same in
 * their IPv6 spellings.
 */
function isLinkLocal(address: string): boolean {
  const plain = unmapped(address)
  return /^169\.254\.|^fe[89ab][0-9a-f]:|^fd00:ec2:|^100\.100\.100\.200$/i.test(plain)
}

/** An address of this machine only. */
export function isLoopback(address: string): boolean {
  const plain = unmapped(address)
  return /^127\./.test(plain) || plain === '::1'
}

/**
 * `::ffff:a9fe:a9fe`, `::ffff:169.254.169.254` and the NAT64 and compatible forms → the
 * IPv4 address inside.
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
 * A resolver for sockets that refuses forbidden answers. One forbidden address among
 * several refuses all: somebody is playing with the name.
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
