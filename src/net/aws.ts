/**
 * Calls to AWS IAM and STS. The official SDK signs and parses, and the HTTP client of
 * this program (core/ports.ts) sends.
 *
 * So the rules of that client hold here too: no redirects, no metadata addresses, limits
 * of size and time, and a create that is never repeated. The SDK by itself sends
 * CreateAccessKey three times on a 500, a 503 or a dropped connection, and each of them
 * may make a key (test/adapters/aws.fake.test.ts measures it). Every option whose default
 * the SDK would take from the environment, ~/.aws or the metadata service is set
 * explicitly: the signing credential comes from the vault and from nowhere else.
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
import { throwIfInterrupted } from './interrupt.ts'

/**
 * Time limit of one request and its answer. The HTTP client limits the time for the
 * connection itself.
 */
const REQUEST_TIMEOUT_MS = 15_000
/**
 * Pauses between repetitions of a throttled call. AWS mostly answers it with 400, which
 * the HTTP client does not repeat; a call that may be repeated is repeated here.
 */
const THROTTLE_PAUSES_MS = [1000, 3000]

export interface AwsSite {
  readonly region: string
  readonly endpoint?: string | undefined
  readonly stsEndpoint?: string | undefined
}

/**
 * Partitions of AWS by the beginning of the region. IAM is one service per partition and
 * wants its own signing region, whatever other region is configured.
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
 * A policy, ready to paste, that allows these IAM actions on one user. User names are
 * unique in an account, whatever their path. With `self` the policy belongs to the user
 * itself, and its `Sid` says so.
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

/** One user, in any account, as resources of a policy. */
export function userResources(region: string, userName: string): readonly string[] {
  const resource = `arn:${partitionOf(region).name}:iam::*:user`
  return [`${resource}/${userName}`, `${resource}/*/${userName}`]
}

type IamSdk = typeof import('@aws-sdk/client-iam')

/**
 * Makes one IAM call, or reads several pages of one, signed by `key`. `action`, such as
 * `iam:ListAccessKeys`, is for messages and hints.
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

/**
 * The longest time between the commit of an intent and the moment at which AWS carries
 * out its create, which is sent right after that commit.
 */
const CALL_WINDOW_MS = REQUEST_TIMEOUT_MS + SETTLES_AFTER_MS
/**
 * The tolerance for dates: AWS dates to the second, and so does the answer by which the
 * clocks are compared.
 */
const DATE_TOLERANCE_MS = 5000

/**
 * Whether a credential with this CreateDate may have been made by the call that was sent
 * at `sentAt` (by the clock of this machine). Credentials from before the call, or from
 * after the time in which AWS may still work on it, were not. The difference of the two
 * clocks is taken into account where it is known.
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
 * The parts of an access key, checked. A stray newline is reported here as such and not
 * by the HTTP client.
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

/**
 * The first and last four characters of a key id. The id is public, but these are enough
 * to recognise it.
 */
export function short(id: string): string {
  return `${id.slice(0, 4)}…${id.slice(-4)}`
}

/** IAM compares user names without regard to case. */
export function sameName(a: string, b: string): boolean {
  return a.toLowerCase() === b.toLowerCase()
}

/** Throws if the operator has interrupted the command, before anything is sent. */
export function stopIfAborted(context: AdapterContext, what: string): void {
  throwIfInterrupted(context.signal, 'it was sent', what)
}

/**
 * Pauses by the clock of the context. An interrupt ends the pause with an `AdapterError`
 * that has no effect.
 */
export async function pause(context: AdapterContext, ms: number, what: string): Promise<void> {
  try {
    await context.clock.sleep(ms, context.signal)
  } catch {
    throw new AdapterError('failed', `${what}: interrupted while waiting`, { effect: 'none' })
  }
}

/**
 * Options of an SDK client. Every option whose default the SDK would take from the
 * environment, ~/.aws or the metadata service is set.
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
    // After a first refusal the SDK would sign with the time of AWS, and a wrong clock of
    // this machine would go unnoticed half of the time.
    disableClockSkewCorrection: true,
    userAgentAppId: () => Promise.resolve(undefined),
    defaultUserAgentProvider: () => Promise.resolve([['rotate', '1'] as [string, string]]),
  }
}

/** A request handler for the SDK, and how far its call got. */
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
      // The HTTP client sets both headers from URL and body, to the very values that were
      // signed.
      const { host: _host, 'content-length': _length, ...headers } = request.headers
      self.sent = true
      const { protocol, hostname, port, path } = request
      const answer = await context.http.send({
        method: 'POST',
        url: `${protocol}//${hostname}${port === undefined ? '' : `:${port}`}${path}`,
        headers,
        body: String(request.body ?? ''),
        effect,
        timeoutMs: REQUEST_TIMEOUT_MS,
        // The answer to a create is awaited even after an interrupt, because it holds the
        // only copy of the new value.
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
 * Sends a call and translates its errors. Only throttling is repeated here, and never for
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
