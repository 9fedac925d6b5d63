/**
 * Checks AWS Signature Version 4 as the far side does:
 * https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
 */
import { createHash, createHmac, timingSafeEqual } from 'node:crypto'

export interface SignedRequest {
  readonly method: string
  /** Path and query as received. */
  readonly target: string
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly body: Uint8Array
}

export interface Signature {
  readonly accessKeyId: string
  readonly date: string
  readonly region: string
  readonly service: string
  /** Epoch milliseconds of `x-amz-date`. */
  readonly at: number
  readonly sessionToken: string | undefined
  /** Was it made with this secret? */
  matches(secretAccessKey: string): boolean
}

const sha256 = (data: string | Uint8Array): string =>
  createHash('sha256').update(data).digest('hex')
const hmac = (key: string | Uint8Array, data: string): Buffer =>
  createHmac('sha256', key).update(data).digest()
const encode = (text: string): string =>
  encodeURIComponent(text).replace(
    /[!'()*]/g,
    (char) => `%${char.charCodeAt(0).toString(16).toUpperCase()}`,
  )

/** Key id, day, region, service, names of the signed headers, signature. */
const AUTHORIZATION = new RegExp(
  '^AWS4-HMAC-SHA256 Credential=([^/]+)/(\\d{8})/([^/]+)/([^/]+)/aws4_request, ' +
    'SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})$',
)

/**
 * The parts of the `authorization` header; `undefined` if it is not a complete one that
 * covers host and date.
 */
export function readSignature(request: SignedRequest): Signature | undefined {
  const header = (name: string): string => {
    const value = request.headers[name]
    return (Array.isArray(value) ? value.join(',') : (value ?? '')).trim().replace(/ +/g, ' ')
  }
  const match = AUTHORIZATION.exec(header('authorization'))
  const stamp = /^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/.exec(header('x-amz-date'))
  if (!match || !stamp) return undefined
  const [, accessKeyId = '', date = '', region = '', service = '', names = '', signature = ''] =
    match
  const signed = names.split(';')
  if (
    !signed.includes('host') ||
    !signed.includes('x-amz-date') ||
    !header('x-amz-date').startsWith(date)
  )
    return undefined
  const [path = '/', query = ''] = request.target.split('?')
  const canonical = [
    request.method,
    path.split('/').map(encode).join('/'),
    [...new URLSearchParams(query)]
      .map(([key, value]) => `${encode(key)}=${encode(value)}`)
      .sort()
      .join('&'),
    ...signed.map((name) => `${name}:${header(name)}`),
    '',
    names,
    sha256(request.body),
  ].join('\n')
  const toSign = [
    'AWS4-HMAC-SHA256',
    header('x-amz-date'),
    `${date}/${region}/${service}/aws4_request`,
    sha256(canonical),
  ].join('\n')
  const [, year, month, day, hour, minute, second] = stamp.map(Number)
  const token = header('x-amz-security-token')
  return {
    accessKeyId,
    date,
    region,
    service,
    at: Date.UTC(year ?? 0, (month ?? 1) - 1, day, hour, minute, second),
    sessionToken: token === '' ? undefined : token,
    matches: (secret) => {
      const key = [date, region, service, 'aws4_request'].reduce<string | Uint8Array>(
        (chained, part) => hmac(chained, part),
        `AWS4${secret}`,
      )
      return timingSafeEqual(hmac(key, toSign), Buffer.from(signature, 'hex'))
    },
  }
}
