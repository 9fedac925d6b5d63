/**
 * Calls to AWS IAM and STS: the official SDK signs and parses, our own HTTP client
 * (core/ports.ts) carries.
 *
 * So the rules of the transport hold here too: no redirects, no metadata addresses, size
 * and time limits, and a create that is never repeated. The SDK left to itself sends
 * CreateAccessKey three times on a 500, a 503 or a dropped connection, and every one of
 * them can mint a key (measured; test/adapters/aws.test.ts repeats the measurement). Each
 * default that would read the environment, ~/.aws or the metadata service is set
 * explicitly: whose credential signs is said in the vault and nowhere else.
 *
 * Endpoints and partitions:
 * https://docs.aws.amazon.com/general/latest/gr/iam-service.html
 */
import type { IAMClient } from '@aws-sdk/client-iam'
import { AdapterError } from '../core/errors.ts'
import type { Clock } from '../core/ports.ts'
import { type AdapterContext, type Credential, SETTLES_AFTER_MS } from '../core/provider.ts'
import type { Secret } from '../core/secret.ts'
import { type Exchange, explain } from './aws-errors.ts'
import type { AwsEffect, AwsKey } from './aws-key.ts'
import { pickDefined } from '../core/defined.ts'

/** For one exchange. The connection itself is bounded by the HTTP client. */
const REQUEST_TIMEOUT_MS = 15_000
/**
 * Throttling mostly arrives as HTTP 400, which the transport does not repeat; what may be
 * repeated is, after these pauses.
 */
const THROTTLE_PAUSES_MS = [1000, 3000]

export interface AwsSite {
  readonly region: string
  readonly endpoint?: string | undefined
  readonly stsEndpoint?: string | undefined
}

/**
 * By first letters of the region. IAM is one service per partition and wants its own
 * signing region, whatever region else is configured.
 */
const PARTITIONS = [
  { prefix: 'cn-', name: 'aws-cn', iamRegion: 'cn-north-1' },
  { prefix: 'us-gov-', name: 'aws-us-gov', iamRegion: 'us-gov-west-1' },
  { prefix: 'eusc-', name: 'aws-eusc', iamRegion: 'eusc-de-east-1' },
  { prefix: '', name: 'aws', iamRegion: 'us-east-1' },
] as const

function partitionOf(region: string): (typeof PARTITIONS)[number] {
  return PARTITIONS.find((partition) => region.startsWith(partition.prefix)) ?? PARTITIONS[3]
}

/**
 * A policy that allows these IAM actions on one user, ready to paste. User names are
 * unique in an account, whatever their path. With `self` it is the user's own, and its
 * `Sid` says so.
 */
export function userPolicy(
  region: string,
  userName: string,
  actions: readonly string[],
  self: boolean,
): string {
  const statement = {
    ...(self ? { Sid: 'AttachThisToTheUserItself' } : {}),
    Effect: 'Allow',
    Action: actions.map((action) => `iam:${action}`),
    Resource: userResources(region, userName),
  }
  return JSON.stringify({ Version: '2012-10-17', Statement: [statement] }, null, 2)
}

/** One user in any account, as the resources of a policy. */
export function userResources(region: string, userName: string): readonly string[] {
  const resource = `arn:${partitionOf(region).name}:iam::*:user`
  return [`${resource}/${userName}`, `${resource}/*/${userName}`]
}

type IamSdk = typeof import('@aws-sdk/client-iam')

/**
 * One IAM call, or several pages of one, signed by `key`. `action` is for messages and
 * hints, such as `iam:ListAccessKeys`.
 */
export async function callIam<T>(
  context: AdapterContext,
  site: AwsSite,
  key: AwsKey,
  action: string,
  effect: AwsEffect,
  run: (client: IAMClient, sdk: IamSdk) => Promise<T>,
): Promise<T> {
  const sdk = await import('@aws-sdk/client-iam')
  const region = site.endpoint === undefined ? site.region : partitionOf(site.region).iamRegion
  return repeat(context, key, action, effect, (handler) =>
    run(
      new sdk.IAMClient({ ...settings(key, region, site.endpoint), requestHandler: handler }),
      sdk,
    ),
  )
}

/** A create is sent right after its intent is committed. */
const CALL_WINDOW_MS = REQUEST_TIMEOUT_MS + SETTLES_AFTER_MS
/** AWS dates to the second, and so does the answer by which the clocks are compared. */
const DATE_TOLERANCE_MS = 5000

/**
 * Was a credential with this CreateDate made by the call that was sent at `sentAt` (by
 * the clock here)? Not what came into being before it, or after AWS can still have worked
 * on it. The two clocks are compared where that is possible.
 */
export function isOfCall(createdAt: number | undefined, sentAt: number, clock: Clock): boolean {
  if (createdAt === undefined) return false
  const after = createdAt + (clock.skew?.() ?? 0) - sentAt
  return after >= -DATE_TOLERANCE_MS && after <= CALL_WINDOW_MS + DATE_TOLERANCE_MS
}

/** The access key id of a credential, from its value or else its handle. */
export function idOf(credential: Credential): string {
  const [inValue, inHandle] = [credential.fields['accessKeyId']?.reveal(), credential.handle?.id]
  if (inValue !== undefined && inHandle !== undefined && inValue !== inHandle)
    throw new AdapterError(
      'misconfigured',
      `the secret holds the key ${short(inValue)}, but is recorded as ${short(inHandle)}`,
    )
  const id = inValue ?? inHandle
  if (id === undefined)
    throw new AdapterError(
      'misconfigured',
      'the secret has no field accessKeyId: it is not an AWS access key',
    )
  return id
}

/**
 * Checks what goes into a header, so that a stray newline is named here and not by the
 * transport.
 */
export function signingKey(
  id: Secret,
  secret: Secret,
  sessionToken: Secret | undefined,
  whose: string,
): AwsKey {
  const faulty = (field: string): AdapterError =>
    new AdapterError(
      'misconfigured',
      `${whose} ${field} is not one (wrong characters or length; perhaps a space or a line ` +
        'break was pasted with it)',
    )
  const accessKeyId = id.reveal()
  if (!/^\w{1,128}$/.test(accessKeyId)) throw faulty('accessKeyId')
  if (!/^[\x21-\x7e]{1,256}$/.test(secret.reveal())) throw faulty('secretAccessKey')
  if (sessionToken !== undefined && !/^[\x21-\x7e]+$/.test(sessionToken.reveal()))
    throw faulty('sessionToken')
  return { accessKeyId, secretAccessKey: secret, ...pickDefined({ sessionToken }) }
}

/** A key id is public, but four characters are enough to find it. */
export function short(id: string): string {
  return `${id.slice(0, 4)}…${id.slice(-4)}`
}

/** IAM compares user names without regard to case. */
export function sameName(a: string, b: string): boolean {
  return a.toLowerCase() === b.toLowerCase()
}

/** Stops before anything is sent once the operator has interrupted us. */
export function stopIfAborted(context: AdapterContext, what: string): void {
  if (context.signal.aborted)
    throw new AdapterError('failed', `${what}: interrupted before it was sent`, { effect: 'none' })
}

/**
 * A pause by the clock of the context; an interrupt ends it as an `AdapterError` without
 * effect.
 */
export async function pause(context: AdapterContext, ms: number, what: string): Promise<void> {
  try {
    await context.clock.sleep(ms, context.signal)
  } catch {
    throw new AdapterError('failed', `${what}: interrupted while waiting`, { effect: 'none' })
  }
}

/**
 * Every option whose default the SDK would look up in the environment, in ~/.aws or at
 * the metadata service.
 */
export function settings(key: AwsKey, region: string, endpoint: string | undefined) {
  return {
    region,
    credentials: {
      accessKeyId: key.accessKeyId,
      secretAccessKey: key.secretAccessKey.reveal(),
      ...(key.sessionToken === undefined ? {} : { sessionToken: key.sessionToken.reveal() }),
    },
    ...pickDefined({ endpoint }),
    ignoreConfiguredEndpointUrls: true,
    useDualstackEndpoint: false,
    useFipsEndpoint: false,
    maxAttempts: 1,
    retryMode: 'standard',
    defaultsMode: 'standard' as const,
    authSchemePreference: [],
    // The SDK would sign with the far side's time after a first refusal; a wrong clock
    // would then go unnoticed half of the time.
    disableClockSkewCorrection: true,
    userAgentAppId: () => Promise.resolve(undefined),
    defaultUserAgentProvider: () => Promise.resolve([['rotate', '1'] as [string, string]]),
  }
}

/** What the SDK needs of a request handler, and what came back. */
export interface Carrier extends Exchange {
  handle(request: SdkRequest): Promise<{ response: SdkResponse }>
}
interface SdkRequest {
  readonly method: string
  readonly protocol: string
  readonly hostname: string
  readonly port?: number
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
  readonly body?: unknown
}
interface SdkResponse {
  readonly statusCode: number
  readonly headers: Record<string, string>
  readonly body: Uint8Array
}

function carrier(context: AdapterContext, effect: AwsEffect): Carrier {
  const self = {
    sent: false,
    status: undefined as number | undefined,
    async handle(request: SdkRequest): Promise<{ response: SdkResponse }> {
      // Both are set by the transport from URL and body, to the very values that were
      // signed.
      const { host: _host, 'content-length': _length, ...headers } = request.headers
      self.sent = true
      const answer = await context.http.send({
        method: 'POST',
        url: `${request.protocol}//${request.hostname}${request.port === undefined ? '' : `:${request.port}`}${request.path}`,
        headers,
        body: String(request.body ?? ''),
        effect,
        timeoutMs: REQUEST_TIMEOUT_MS,
        // Once a create is sent its answer is waited for: it holds the only copy of the
        // new value.
        ...(effect === 'once' ? {} : { signal: context.signal }),
      })
      self.status = answer.status
      return {
        response: {
          statusCode: answer.status,
          headers: { ...answer.headers },
          body: answer.body.bytes(),
        },
      }
    },
  }
  return self
}

/**
 * Sends, and maps what goes wrong. Only throttling is repeated here, and never for
 * `once`.
 */
export async function repeat<T>(
  context: AdapterContext,
  key: AwsKey,
  action: string,
  effect: AwsEffect,
  send: (handler: Carrier) => Promise<T>,
): Promise<T> {
  for (let attempt = 0; ; attempt++) {
    stopIfAborted(context, action)
    const handler = carrier(context, effect)
    try {
      return await send(handler)
    } catch (thrown) {
      const error = explain(thrown, handler, key, action, effect)
      const again = effect !== 'once' && error.code === 'throttled' && handler.status === 400
      const wait = again ? THROTTLE_PAUSES_MS[attempt] : undefined
      if (wait === undefined) throw error
      await pause(context, wait, action)
    }
  }
}
