/**
 * Calls to services of AWS that use the protocol AWS JSON 1.1
 * (https://smithy.io/2.0/aws/protocols/aws-json-1_1-protocol.html). The signer of the
 * official SDK signs, and the HTTP client of this program sends.
 *
 * As in aws.ts, the signing credential comes from the vault and from nowhere else. The
 * text of an error is shown only where rights are missing, because a complaint about a
 * parameter quotes its value.
 * https://docs.aws.amazon.com/secretsmanager/latest/apireference/CommonErrors.html
 */
import { type AdapterCode, AdapterError, type Effect } from '../core/errors.ts'
import { visible } from '../core/names.ts'
import type { HttpResponse } from '../core/ports.ts'
import type { AdapterContext } from '../core/provider.ts'
import { answeredBy } from './answered.ts'
import { pause, stopIfAborted } from './aws.ts'
import type { AwsEffect, AwsKey } from './aws-key.ts'
import { parseObject } from './json.ts'
import { retryAfterMs } from './retry.ts'
import { scrub } from './scrub.ts'
import { pickDefined } from '../core/defined.ts'

const TIMEOUT_MS = 15_000
/**
 * Pauses between repetitions of a throttled call. AWS answers it with 400, which the HTTP
 * client does not repeat. The call did nothing, so even one that changes something may be
 * repeated.
 */
const THROTTLE_PAUSES_MS = [1000, 3000]

const TARGETS = { secretsmanager: 'secretsmanager', ssm: 'AmazonSSM' } as const

export interface AwsJsonSite {
  readonly service: keyof typeof TARGETS
  readonly region: string
  /** An address in place of the one of AWS. */
  readonly endpoint: string | undefined
  /** The hint for an error about missing rights. */
  readonly rights: string
}

export interface AwsJson {
  /**
   * The parsed answer. Throws an `AdapterError` that has the error code of AWS as
   * `details.awsCode`.
   */
  call(
    operation: string,
    body: Readonly<Record<string, unknown>>,
    effect: AwsEffect,
  ): Promise<Readonly<Record<string, unknown>>>
}

/**
 * Base URL of a regional service.
 * https://docs.aws.amazon.com/general/latest/gr/rande.html
 */
function regionalUrl(service: string, region: string): string {
  const suffix = region.startsWith('cn-')
    ? 'amazonaws.com.cn'
    : region.startsWith('eusc-')
      ? 'amazonaws.eu'
      : 'amazonaws.com'
  return `https://${service}.${region}.${suffix}`
}

export function awsJson(context: AdapterContext, site: AwsJsonSite, key: AwsKey): AwsJson {
  return {
    async call(operation, body, effect) {
      const action = `${site.service}:${operation}`
      for (let attempt = 0; ; attempt++) {
        stopIfAborted(context, action)
        const response = await send(context, site, key, operation, JSON.stringify(body), effect)
        try {
          return parsed(response, site, key, action, effect, context)
        } catch (thrown) {
          const again =
            thrown instanceof AdapterError && thrown.code === 'throttled' && response.status === 400
          const wait = again ? THROTTLE_PAUSES_MS[attempt] : undefined
          if (wait === undefined) throw thrown
          await pause(context, wait, action)
        }
      }
    },
  }
}

async function send(
  context: AdapterContext,
  site: AwsJsonSite,
  key: AwsKey,
  operation: string,
  body: string,
  effect: AwsEffect,
): Promise<HttpResponse> {
  const [{ SignatureV4 }, { Hash }] = await Promise.all([
    import('@smithy/signature-v4'),
    import('@smithy/core/serde'),
  ])
  const url = new URL(site.endpoint ?? regionalUrl(site.service, site.region))
  const signer = new SignatureV4({
    service: site.service,
    region: site.region,
    sha256: Hash.bind(null, 'sha256'),
    credentials: {
      accessKeyId: key.accessKeyId,
      secretAccessKey: key.secretAccessKey.reveal(),
      ...(key.sessionToken === undefined ? {} : { sessionToken: key.sessionToken.reveal() }),
    },
  })
  const signed = await signer.sign(
    {
      method: 'POST',
      protocol: url.protocol,
      hostname: url.hostname,
      path: url.pathname,
      headers: {
        host: url.host,
        'content-type': 'application/x-amz-json-1.1',
        'x-amz-target': `${TARGETS[site.service]}.${operation}`,
      },
      body,
    },
    { signingDate: new Date(context.clock.now()) },
  )
  // The HTTP client sets the header `host` from the URL, to the very value that was
  // signed.
  const { host: _host, ...headers } = signed.headers
  return context.http.send({
    method: 'POST',
    url: url.href,
    headers,
    body,
    effect,
    timeoutMs: TIMEOUT_MS,
    ...(effect === 'once' ? {} : { signal: context.signal }),
  })
}

interface Meaning {
  readonly code: AdapterCode
  readonly effect?: Effect
  readonly hint?: string
}

const denied: Meaning = { code: 'denied' }
const badKey: Meaning = {
  code: 'denied',
  hint: 'AWS does not take the access key of the target: it is deleted, inactive, or mistyped',
}
const throttled: Meaning = { code: 'throttled' }
const misused: Meaning = { code: 'misconfigured' }
const missing: Meaning = { code: 'missing' }
const down: Meaning = { code: 'unavailable', effect: 'unknown' }
const clock: Meaning = {
  code: 'misconfigured',
  hint:
    'the clock of this machine differs from that of AWS by more than a few minutes: set it ' +
    '(NTP) and try again',
}

/**
 * The meaning of each error code without its trailing `Exception`. Unless an effect is
 * named, the call was refused and did nothing.
 */
const MEANINGS: Readonly<Record<string, Meaning>> = {
  AccessDenied: denied,
  NotAuthorized: denied,
  OptInRequired: denied,
  UnrecognizedClient: badKey,
  InvalidClientTokenId: badKey,
  InvalidSignature: badKey,
  IncompleteSignature: badKey,
  MissingAuthenticationToken: badKey,
  ExpiredToken: {
    code: 'denied',
    hint: 'the session token has expired: configure a fresh one, or a long-term credential',
  },
  Throttling: throttled,
  TooManyRequests: throttled,
  TooManyUpdates: { code: 'unavailable' },
  RequestExpired: clock,
  Validation: misused,
  InvalidParameter: misused,
  InvalidRequest: misused,
  InvalidKeyId: misused,
  EncryptionFailure: {
    code: 'denied',
    hint: 'the key in KMS must be enabled, and the credential may use it: kms:GenerateDataKey',
  },
  DecryptionFailure: {
    code: 'denied',
    hint: 'the key in KMS must be enabled, and the credential may use it: kms:Decrypt',
  },
  LimitExceeded: { code: 'quota' },
  ParameterLimitExceeded: { code: 'quota' },
  ParameterMaxVersionLimitExceeded: { code: 'quota' },
  ResourceNotFound: missing,
  ParameterNotFound: missing,
  InternalServiceError: down,
  InternalServerError: down,
  InternalFailure: down,
  ServiceUnavailable: down,
}

function byStatus(status: number, named: boolean): Meaning {
  if (status === 429) return throttled
  if (status >= 500) return down
  // An answer without an error code of AWS may come from a proxy, which says nothing
  // about what AWS did.
  const effect = named ? 'none' : 'unknown'
  return { code: status === 401 || status === 403 ? 'denied' : 'failed', effect }
}

function parsed(
  response: HttpResponse,
  site: AwsJsonSite,
  key: AwsKey,
  action: string,
  effect: AwsEffect,
  context: AdapterContext,
): Readonly<Record<string, unknown>> {
  const { status, headers, body } = response
  const answer = body.isText()
    ? parseObject(body.reveal() === '' ? '{}' : body.reveal())
    : undefined
  if (status >= 200 && status < 300) {
    if (answer !== undefined) return answer
    throw new AdapterError('bad-answer', `${action}: AWS answered ${status}, but not with JSON`, {
      effect: effect === 'read' ? 'none' : 'unknown',
    })
  }
  // `__type` may carry a namespace before and a link after the code.
  const type = answer?.['__type'] ?? headers['x-amzn-errortype']
  const code =
    typeof type === 'string'
      ? /^(?:[\w.]+#)?(\w{2,60})(?::|$)/.exec(type)?.[1]?.replace(/Exception$/, '')
      : undefined
  const text = answer?.['message'] ?? answer?.['Message']
  const said = typeof text === 'string' ? text : ''
  const skewed = code === 'InvalidSignature' && /^Signature (expired|not yet current)/i.test(said)
  const meaning = skewed
    ? clock
    : ((code === undefined ? undefined : MEANINGS[code]) ?? byStatus(status, code !== undefined))
  const secrets = [
    key.secretAccessKey,
    ...(key.sessionToken === undefined ? [] : [key.sessionToken]),
  ]
  const shown =
    code === 'AccessDenied' && said !== ''
      ? `: ${visible(scrub(said, secrets).split('\n')[0] ?? '', 240)}`
      : ''
  const wait = retryAfterMs(headers['retry-after'], context.clock.now())
  const hints = [
    ...(meaning.hint === undefined ? [] : [meaning.hint]),
    ...(meaning === denied ? [site.rights] : []),
  ]
  const what = code === undefined ? `HTTP ${status}, not an answer of AWS` : `AWS answered ${code}`
  throw new AdapterError(meaning.code, `${action}: ${what}${shown}`, {
    effect: effect === 'read' ? 'none' : (meaning.effect ?? 'none'),
    hints,
    details: { awsCode: code ?? null, status },
    ...answeredBy(status, code !== undefined),
    ...pickDefined({ retryAfterMs: wait }),
  })
}
