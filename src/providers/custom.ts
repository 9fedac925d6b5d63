/**
 * A web hook of the operator's own that makes values. It follows the custom-webhook
 * contract of the DotVault documentation, so that hooks written for DotVault work
 * unchanged: `POST webhookUrl` with the header `X-Webhook-Secret` and the body
 * `{"action":"rotate","currentValue":"…","timestamp":"2024-01-15T10:30:00Z"}`; the answer
 * is `{"newValue":"…","expiresAt"?,"metadata"?}`.
 *
 * That contract has no idempotency, no verification and no revocation. In its sample code
 * the hook stores the new secret *before* it answers: the old value dies at once, and a
 * lost answer loses the new one. So a call whose outcome is unknown is never repeated
 * blindly. Whatever goes beyond the contract happens only when it is configured:
 * `overlap`, `idempotent` (header `Idempotency-Key`), `actions`, `signingSecret` (headers
 * of Standard Webhooks,
 * https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md)
 * and `sendCurrentValue`. The chapter for authors of hooks is EXEC.md.
 *
 * What a proof shows, and what ends with a value, depends on the hook. A hook that
 * answers 2xx to every `verify` proves nothing, and a hook must not lock anybody out for
 * the four refused calls in a row that a `verify` may make. With `verify`, a current
 * value that the hook does not accept stops a rotation before anything is done. `revoke`
 * names the value, so it also ends a value that was issued before the hook knew that
 * action.
 */
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import type { Intent } from '../core/model.ts'
import type { HttpResponse } from '../core/ports.ts'
import {
  type AdapterContext,
  type Credential,
  defineProvider,
  type Issued,
  type ProviderSession,
  type Settlement,
} from '../core/provider.ts'
import { secretField, urlField } from '../core/schema.ts'
import { flatten, Secret, single } from '../core/secret.ts'
import { answeredBy } from '../net/answered.ts'
import { parseObject } from '../net/json.ts'
import { ATTEMPTS, pauseMs, retryAfterMs } from '../net/retry.ts'
import { signature } from '../net/standard-webhooks.ts'
import { settlesAfterField, settlesAfterOf } from '../core/settles-after.ts'
import { pickDefined } from '../core/defined.ts'

const MAX_VALUE_BYTES = 1024 * 1024
/**
 * Room for the largest value with every character escaped, plus the rest of the answer.
 */
const MAX_ANSWER_BYTES = 7 * 1024 * 1024
const MAX_METADATA = { entries: 64, length: 1024 }
/** Pauses, in milliseconds, while a new value spreads at the far side. */
const SPREAD_MS = [1000, 2000, 4000]

const Config = z.strictObject({
  webhookUrl: urlField('Address that is called; https, or http to this machine'),
  secret: secretField('Sent in the header X-Webhook-Secret'),
  overlap: z.boolean().optional().meta({
    description: 'The old value keeps working beside the new one; default false: it dies at once',
  }),
  idempotent: z
    .boolean()
    .optional()
    .meta({
      description:
        'The hook answers a repeated Idempotency-Key with the same value, so that a lost answer ' +
        'can be asked for again',
    }),
  actions: z
    .array(z.enum(['verify', 'revoke']))
    .optional()
    .meta({
      description:
        'What else the hook understands: "verify", "revoke", sent as action with the value as ' +
        'currentValue; both may be repeated',
    }),
  sendCurrentValue: z
    .boolean()
    .optional()
    .meta({
      description:
        'false: a rotate call carries an empty string as currentValue, so that the hook never ' +
        'sees the old value',
    }),
  settlesAfter: settlesAfterField('hook'),
  signingSecret: secretField(
    'Signs each call with Standard Webhooks headers; whsec_… or any text',
  ).optional(),
})
type Options = z.output<typeof Config>

export default defineProvider({
  id: 'custom',
  title: 'Your own web hook',
  aliases: ['webhook'],
  notes: [
    'After a lost answer an idempotent hook may see one rotate call and up to three ' +
      'repetitions, all under the same Idempotency-Key. Without "idempotent" it is called once.',
    'Where an idempotent hook has refused to repeat, each run-due of the next day asks once ' +
      'more under that key: with "overlap" and the action "revoke", and in place once "verify" ' +
      'or a check shows that the current value is dead. What comes of it late is ended, or made ' +
      'current.',
    'Without "overlap" the old value dies with the call: there is no grace, and a failure ' +
      'after it goes forward.',
  ],
  example: {
    webhookUrl: 'https://app.example.com/rotate',
    secret: { secret: 'infra/hook/SECRET' },
    overlap: true,
    actions: ['verify', 'revoke'],
  },
  config: Config,
  traits: (config) => ({
    mints: 'service',
    overlap: config.overlap === true ? 'two-live' : 'in-place',
    maxLive: Number.POSITIVE_INFINITY,
    fields: ['value'],
    idempotency: config.idempotent === true ? 'replay-key' : 'none',
    revoke: config.actions?.includes('revoke') === true ? 'delete' : 'none',
    suspend: false,
    lastUsed: false,
    settlesAfterMs: settlesAfterOf(config.settlesAfter),
    verifies: config.actions?.includes('verify') === true,
  }),
  secretType: 'generic',
  permissions: () => 'The hook checks X-Webhook-Secret and may replace this one secret only.',
  open: (config, context) => Promise.resolve(openSession(config, context)),
})

function openSession(config: Options, context: AdapterContext): ProviderSession {
  const session: ProviderSession = {
    // The bare contract has no call without an effect, so only the configuration is
    // checked.
    preflight: async (current) => {
      mustBeSendable(config, current)
      if (current !== undefined && config.actions?.includes('verify') === true)
        await mustBeAccepted(config, context, current)
    },
    create: (intent, current) => create(config, context, intent, current, 'once'),
    settle: (intent, current) => settle(config, context, intent, current),
    close: () => Promise.resolve(),
  }
  if (config.actions?.includes('verify') === true)
    session.verify = (credential, expect) => verify(config, context, credential, expect)
  if (config.actions?.includes('revoke') === true)
    session.revoke = (credential) => revoke(config, context, credential)
  return session
}

/**
 * By the contract of the hook 429 and 503 say that nothing was done, and they are the
 * only answers after which it is called again. Where a router in front of the hook
 * answers 503 when the hook takes too long, the hook needs an idempotency key
 * (`"idempotent": true`). Every other answer without a new value leaves open whether the
 * hook has rotated, unless its status refuses the call.
 */
async function create(
  config: Options,
  context: AdapterContext,
  intent: Intent,
  current: Credential | undefined,
  effect: 'once' | 'idempotent',
): Promise<Issued> {
  const sent = valueToSend(config, current)
  // The body has the time of the intent and not of the call, because a repetition under
  // the same key must have the same body.
  const body = bodyOf('rotate', sent, intent.at)
  for (let attempt = 1; ; attempt++) {
    const response = await call(
      config,
      context,
      body,
      intent.tag,
      effect,
      config.idempotent === true,
    )
    const { status } = response
    if (status >= 200 && status < 300)
      return issuedFrom(
        response,
        current === undefined ? undefined : flatten(current.fields),
        context,
      )
    const wait = retryAfterMs(response.headers['retry-after'], context.clock.now())
    if (status === 429 || status === 503) {
      if (attempt >= ATTEMPTS || effect === 'idempotent') {
        const code = status === 429 ? 'throttled' : 'unavailable'
        throw new AdapterError(
          code,
          `the web hook answered ${status} and did nothing`,
          wait === undefined ? {} : { retryAfterMs: wait },
        )
      }
      await context.clock
        .sleep(wait ?? pauseMs(attempt, context.random), context.signal)
        .catch(() => {
          throw new AdapterError(
            'failed',
            `interrupted after the web hook answered ${status} and did nothing`,
            { retryable: false },
          )
        })
      continue
    }
    throw statusError(status)
  }
}

async function settle(
  config: Options,
  context: AdapterContext,
  intent: Intent,
  current: Credential | undefined,
): Promise<Settlement> {
  if (config.idempotent !== true)
    return {
      outcome: 'ambiguous',
      candidates: [],
      detail: 'the web hook can not be asked whether it rotated (it is not marked idempotent)',
    }
  try {
    const issued = await create(config, context, intent, current, 'idempotent')
    return { outcome: 'applied', issued, detail: 'the web hook gave the same answer again' }
  } catch (thrown) {
    if (!(thrown instanceof AdapterError)) throw thrown
    // The hook was not reached, was busy, or its answer was lost again. Nothing was
    // learned, so the question stays open and may be asked again.
    if (thrown.retryable || thrown.effect === 'unknown') throw thrown
    // The call was refused before the hook looked at the idempotency key, which says
    // nothing about the first call.
    if (thrown.code === 'denied' || thrown.code === 'missing' || thrown.details['status'] === 409)
      return { outcome: 'ambiguous', candidates: [], detail: `asked again, ${thrown.message}` }
    return { outcome: 'none', detail: `asked again, ${thrown.message}` }
  }
}

async function verify(
  config: Options,
  context: AdapterContext,
  credential: Credential,
  expect: 'live' | 'dead',
): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    const { status } = await act(config, context, 'verify', credential)
    if (status >= 200 && status < 300) return
    if (![401, 403, 404, 410].includes(status)) throw actionError('verify', status)
    const pause = SPREAD_MS[attempt]
    if (expect === 'dead' || pause === undefined)
      throw new AdapterError('refused', `the web hook does not accept the value (${status})`, {
        details: { status },
      })
    await context.clock.sleep(pause, context.signal)
  }
}

/**
 * Throws `refused` where the hook does not accept the current value: somebody has ended
 * it, and a new value would open again what was shut. Asks once.
 */
async function mustBeAccepted(
  config: Options,
  context: AdapterContext,
  current: Credential,
): Promise<void> {
  try {
    await verify(config, context, current, 'dead')
  } catch (thrown) {
    if (!(thrown instanceof AdapterError) || thrown.code !== 'refused') throw thrown
    throw new AdapterError('refused', `${thrown.message} that is current`, {
      details: thrown.details,
      hints: ['find out who ended it; then store the value that is in use now with "rotate set"'],
    })
  }
}

/** A value that is gone already counts as ended. */
async function revoke(
  config: Options,
  context: AdapterContext,
  credential: Credential,
): Promise<void> {
  const { status } = await act(config, context, 'revoke', credential)
  if ((status >= 200 && status < 300) || status === 404 || status === 410) return
  throw actionError('revoke', status)
}

function act(
  config: Options,
  context: AdapterContext,
  action: 'verify' | 'revoke',
  credential: Credential,
): Promise<HttpResponse> {
  const body = bodyOf(action, textOf(flatten(credential.fields)), context.clock.now())
  const id = `${action}-${Buffer.from(context.random.bytes(12)).toString('hex')}`
  return call(config, context, body, id, action === 'verify' ? 'read' : 'idempotent', false)
}

function actionError(action: string, status: number): AdapterError {
  if (status === 429)
    return new AdapterError('throttled', `the web hook answered ${status} to ${action}`)
  if (status >= 500)
    return new AdapterError('unavailable', `the web hook answered ${status} to ${action}`, {
      effect: 'unknown',
    })
  const code = status === 401 || status === 403 ? 'denied' : 'failed'
  return new AdapterError(code, `the web hook answered ${status} to ${action}`, {
    details: { status },
  })
}

function call(
  config: Options,
  context: AdapterContext,
  body: string,
  id: string,
  effect: 'once' | 'read' | 'idempotent',
  keyed: boolean,
): Promise<HttpResponse> {
  const headers: Record<string, string> = {
    'content-type': 'application/json',
    'x-webhook-secret': config.secret.reveal(),
  }
  if (keyed) headers['idempotency-key'] = id
  if (config.signingSecret !== undefined)
    Object.assign(headers, signature(config.signingSecret, id, context.clock.now(), body))
  return context.http.send({
    method: 'POST',
    url: config.webhookUrl,
    headers,
    body,
    effect,
    // The engine repeats a settlement three times. If the HTTP client repeated each of
    // them, there would be nine calls.
    ...(keyed && effect === 'idempotent' ? { attempts: 1 } : {}),
    maxBytes: MAX_ANSWER_BYTES,
    signal: context.signal,
  })
}

/** The body with the order of keys and the time format of the contract. */
function bodyOf(action: 'rotate' | 'verify' | 'revoke', currentValue: string, at: number): string {
  return JSON.stringify({
    action,
    currentValue,
    timestamp: new Date(at).toISOString().replace(/\.\d{3}Z$/, 'Z'),
  })
}

/** Throws for faults that would otherwise show only when the call is made. */
function mustBeSendable(config: Options, current: Credential | undefined): void {
  valueToSend(config, current)
  if (!/^[\x21-\x7e]([\x20-\x7e]*[\x21-\x7e])?$/.test(config.secret.reveal()))
    throw new AdapterError(
      'misconfigured',
      'the field "secret" has a line break, outer spaces or other characters that a header ' +
        'can not carry',
    )
}

/**
 * The text that is sent as `currentValue`. It is empty where there is no value or it must
 * not be sent; the key itself is part of the contract.
 */
function valueToSend(config: Options, current: Credential | undefined): string {
  return current === undefined || config.sendCurrentValue === false
    ? ''
    : textOf(flatten(current.fields))
}

function textOf(value: Secret): string {
  if (value.isText()) return value.reveal()
  throw new AdapterError(
    'misconfigured',
    'the value is not UTF-8 text and can not be sent in JSON',
    {
      hints: ['set "sendCurrentValue": false if the hook does not need the old value'],
    },
  )
}

/**
 * After a 2xx the hook may have rotated. So an answer that can't be used has the effect
 * `unknown`, and a bad optional field never costs the value.
 */
function issuedFrom(
  response: HttpResponse,
  old: Secret | undefined,
  context: AdapterContext,
): Issued {
  const answer = parseObject(response.body.isText() ? response.body.reveal() : '')
  const unusable = (what: string): AdapterError =>
    new AdapterError('bad-answer', `the web hook answered ${response.status}, but ${what}`, {
      effect: 'unknown',
      details: { status: response.status },
      // One JSON object is an answer of the hook itself; anything else may come from a
      // proxy.
      answered: answer !== undefined,
    })
  if (answer === undefined) throw unusable('not with one JSON object')
  const raw = answer['newValue']
  if (raw === undefined) throw unusable('without newValue')
  if (typeof raw !== 'string') throw unusable('newValue is not a string')
  if (raw === '') throw unusable('newValue is empty')
  if (!raw.isWellFormed()) throw unusable('newValue is not valid Unicode')
  const value = new Secret(raw)
  if (value.size > MAX_VALUE_BYTES) throw unusable('newValue is longer than 1 MiB')
  if (old?.equals(value) === true)
    throw new AdapterError(
      'bad-answer',
      'the web hook answered with the value that is current already, so nothing was rotated',
      {
        details: { same: true },
      },
    )
  const expiresAt = expiryFrom(answer['expiresAt'], context)
  const metadata = metadataFrom(answer['metadata'], value, context)
  return { fields: single(value), ...pickDefined({ expiresAt, metadata }) }
}

function expiryFrom(raw: unknown, context: AdapterContext): number | undefined {
  if (raw === undefined || raw === null) return undefined
  const at =
    typeof raw === 'string' &&
    /^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:\d{2}))?$/.test(raw)
      ? Date.parse(raw)
      : Number.NaN
  if (!Number.isNaN(at)) {
    if (at <= context.clock.now())
      context.note(
        'warning: the web hook gave an expiresAt in the past; the next rotation stays where ' +
          'the schedule puts it',
      )
    return at
  }
  context.note(
    'the web hook gave an expiresAt that is not an ISO-8601 date with a zone; it is ignored',
  )
  return undefined
}

function metadataFrom(
  raw: unknown,
  value: Secret,
  context: AdapterContext,
): Record<string, string> | undefined {
  if (raw === undefined || raw === null) return undefined
  if (typeof raw !== 'object' || Array.isArray(raw)) {
    context.note('the web hook gave metadata that is not an object; it is ignored')
    return undefined
  }
  const secret = value.reveal()
  const kept: [string, string][] = []
  let dropped = 0
  for (const [key, item] of Object.entries(raw)) {
    const text =
      typeof item === 'string'
        ? item
        : typeof item === 'number' || typeof item === 'boolean'
          ? String(item)
          : undefined
    // Metadata is shown and exported, so a value that comes back in it must not be kept.
    const leaks = text !== undefined && (text.includes(secret) || key.includes(secret))
    if (
      text === undefined ||
      leaks ||
      key.length + text.length > MAX_METADATA.length ||
      kept.length >= MAX_METADATA.entries
    )
      dropped++
    else kept.push([key.toWellFormed(), text.toWellFormed()])
  }
  if (dropped > 0)
    context.note(
      `${dropped} entries of the web hook's metadata were not kept (not flat text, too long, ` +
        'or holding the value)',
    )
  return Object.fromEntries(kept)
}

function statusError(status: number): AdapterError {
  const details = { status }
  if (status === 401 || status === 403)
    return new AdapterError('denied', `the web hook refused the call (${status})`, {
      details,
      hints: [
        'check "secret" in the configuration: it must be what the hook expects in X-Webhook-Secret',
      ],
    })
  if (status === 404 || status === 410)
    return new AdapterError('missing', `there is no web hook at this address (${status})`, {
      details,
      hints: ['check "webhookUrl"'],
    })
  if (status >= 400 && status < 500 && status !== 408 && status !== 425)
    return new AdapterError('failed', `the web hook refused to rotate (${status})`, {
      details,
      retryable: false,
    })
  return new AdapterError(
    'unavailable',
    `the web hook answered ${status}; whether it rotated is not known`,
    {
      effect: 'unknown',
      retryable: false,
      details,
      ...answeredBy(status),
    },
  )
}
