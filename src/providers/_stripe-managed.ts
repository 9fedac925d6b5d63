/**
 * Stripe keys that are made and expired through the API. These "managed API keys" are a
 * preview that is open to approved Stripe Apps with the right `api_key_write` on the
 * account (https://docs.stripe.com/stripe-apps/api-authentication/managed-api-keys).
 *
 * Stripe encrypts a new key to a public key of ours. The private half exists only in the
 * sealed intent. The tag of the intent is both the idempotency key and the name of the
 * new key: a create whose answer was lost is repeated under the same idempotency key,
 * gives the same answer, and can be decrypted. Where that is impossible (too long ago,
 * other parameters), what the call made is found by its name. The `rotate` call of the
 * API is not used, because the old key would die with it. A create that is carried out
 * after it was given up can't surprise anybody: to Stripe it and its repetition are the
 * same call.
 *
 * The calls go through the HTTP client of this program and not through `rawRequest` of
 * Stripe's SDK, although that would work: the SDK repeats a create after a reset even
 * with retries off, reports no effect, follows its own clock, and prints the header
 * `stripe-notice` of the server. The two forms of an answer would have to be parsed here
 * anyway.
 */
import { createPublicKey, generateKeyPairSync } from 'node:crypto'
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import type { Handle, Intent } from '../core/model.ts'
import type { HttpRequest, HttpResponse } from '../core/ports.ts'
import type {
  AdapterContext,
  Credential,
  Issued,
  ProviderSession,
  Settlement,
  Traits,
} from '../core/provider.ts'
import { secretField } from '../core/schema.ts'
import { Secret, single } from '../core/secret.ts'
import { answeredBy } from '../net/answered.ts'
import { parseObject } from '../net/json.ts'
import { openJwe } from '../net/jwe.ts'
import { ATTEMPTS, pauseMs, retryAfterMs } from '../net/retry.ts'
import { checkLook, common, mustBeEndedByHand, faultOf, isAlive, verify } from './_stripe-key.ts'
import { pickDefined } from '../core/defined.ts'
import { throwIfInterrupted } from '../net/interrupt.ts'
import { withJson } from '../net/json-api.ts'

const KEYS = '/v2/iam/api_keys'
/** The only API version in which these calls exist today. */
const API_VERSION = '2026-08-26.preview'
/** Stripe asks for at least 2048 bits. The key pair protects one answer only. */
const RSA_BITS = 2048
/** Room for a page of a hundred keys with all 158 permissions each. */
const MAX_BYTES = 8 * 1024 * 1024
const MAX_PAGES = 100
/**
 * How long a create is repeated under its idempotency key. Version 1 of the API forgets
 * such keys after 24 hours. Version 2 keeps them longer, but Stripe does not say how
 * long. One hour is left for clocks that differ.
 */
const REPLAY_MS = 23 * 3_600_000
/**
 * Pauses, in milliseconds, before an absent name counts as proof that nothing was made.
 */
const LOOK_MS = [1000, 3000]
/**
 * Pauses while an expired key may still work, in milliseconds: in the one case that is
 * known it did for about nine seconds.
 */
const DEATH_MS = [1000, 2000, 4000, 8000]

const permissions = z
  .array(
    z
      .string()
      .regex(/^[a-z][a-z0-9_]{1,99}$/, 'is not the name of a permission, such as charge_read'),
  )
  .max(200)

export const Managed = z
  .strictObject({
    mode: z.literal('api').meta({
      description:
        'api: an approved Stripe App makes and expires them (managed API keys, a preview of ' +
        'Stripe)',
    }),
    ...common,
    apiKey: secretField('api: secret key of the approved Stripe App; it needs api_key_write'),
    account: z
      .string()
      .regex(/^acct_\w{1,100}$/, 'looks like acct_…')
      .meta({
        description: 'api: account on which the app is installed and whose keys are rotated',
      }),
    permissions: permissions.min(1).meta({
      description:
        'api: what a new key may do, such as ["charge_read","customer_write"]; there is no ' +
        'wildcard',
    }),
    connectPermissions: permissions
      .optional()
      .meta({ description: 'api: what it may do on connected accounts' }),
    apiVersion: z
      .string()
      .regex(/^\d{4}-\d{2}-\d{2}\.preview$/, `looks like ${API_VERSION}`)
      .default(API_VERSION)
      .meta({ description: 'api: version of the preview' }),
  })
  .superRefine(checkLook)
type Options = z.output<typeof Managed>

export const managedTraits: Traits = {
  mints: 'service',
  overlap: 'two-live',
  maxLive: Number.POSITIVE_INFINITY,
  fields: ['value'],
  idempotency: 'replay-key',
  revoke: 'expire',
  suspend: false,
  lastUsed: true,
}

export function managedRights({ account }: Pick<Options, 'account'>): string {
  return (
    'The secret key of a Stripe App that Stripe has approved for managed API keys, that is ' +
    `installed on ${account} and has the permission "api_key_write"; nothing else.`
  )
}

/**
 * A date in the form of version 2 (RFC 3339) or of version 1 (epoch seconds), in
 * milliseconds. An invalid date is ignored, so that the rest of the answer stays usable.
 */
const moment = z
  .union([
    z.number().transform((seconds) => seconds * 1000),
    z.iso.datetime({ offset: true }).transform((text) => Date.parse(text)),
  ])
  .optional()
  .catch(undefined)

/**
 * Only the fields that are needed are kept, because in test mode the list holds every key
 * of the account in plain text.
 */
const ListedKey = z.object({
  id: z.string().regex(/^[\w-]{1,200}$/),
  name: z.string().nullish(),
  status: z.string(),
  created: moment,
  expires_at: moment,
  last_used: moment,
})
const MadeKey = ListedKey.extend({
  secret_key: z
    .object({
      token: z.string().min(1).nullish(),
      encrypted_secret: z.object({ ciphertext: z.string() }).nullish(),
    })
    .nullish(),
})
const Page = z.object({ data: z.array(ListedKey), next_page_url: z.string().nullish() })
const Failure = z.object({ error: z.object({ code: z.string().regex(/^[a-z0-9_]{1,60}$/) }) })

/** The API of Stripe with one configuration. */
interface Far {
  readonly config: Options
  readonly context: AdapterContext
}

export function managedSession(config: Options, context: AdapterContext): ProviderSession {
  const far: Far = { config, context }
  return {
    preflight: () => preflight(far),
    prepare: () => ({ privateKey: newPrivateKey() }),
    list: async () => (await keysOf(far)).map(handleIn),
    create: (intent) => create(far, intent),
    settle: (intent) => settle(far, intent),
    verify: (credential, expect) => verify(config, context, credential, expect),
    lastUsed: ({ handle }) => lastUsed(far, handle),
    revoke: (credential) => revoke(far, credential),
    close: () => Promise.resolve(),
  }
}

/**
 * Reads one key, which shows whether the key of the app works, is of the right mode, and
 * has access to the preview. The right to write shows only when something is written.
 */
async function preflight(far: Far): Promise<void> {
  const fault = faultOf(far.config.apiKey, far.config.keyType)
  if (fault !== undefined) throw new AdapterError('misconfigured', `the field "apiKey" ${fault}`)
  await page(far, `${KEYS}?limit=1&include_expired=false`)
}

/**
 * A private key in PKCS 8, PEM. Node generates it with its own randomness, because its
 * generator accepts no other source.
 */
function newPrivateKey(): Secret {
  const { privateKey } = generateKeyPairSync('rsa', {
    modulusLength: RSA_BITS,
    publicKeyEncoding: { type: 'spki', format: 'pem' },
    privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
  })
  return new Secret(privateKey)
}

/** Sends the create once. After a 429 nothing was done, so the call may be repeated. */
async function create(far: Far, intent: Intent): Promise<Issued> {
  const { context } = far
  throwIfInterrupted(context.signal, 'the key was made')
  for (let attempt = 1; ; attempt++) {
    try {
      return await ask(far, intent, 'once')
    } catch (thrown) {
      if (!(thrown instanceof AdapterError) || thrown.code !== 'throttled' || attempt >= ATTEMPTS)
        throw thrown
      await context.clock
        .sleep(thrown.retryAfterMs ?? pauseMs(attempt, context.random), context.signal)
        .catch(() => {
          throw new AdapterError(
            'failed',
            'interrupted after Stripe answered 429 and did nothing',
            { retryable: false },
          )
        })
    }
  }
}

/**
 * Sends the create. Its parameters come from the intent and the configuration only, so
 * that a repetition has the same ones.
 */
async function ask(far: Far, intent: Intent, effect: 'once' | 'idempotent'): Promise<Issued> {
  const { permissions: rights, connectPermissions } = far.config
  const privateKey = intent.material['privateKey']
  if (privateKey === undefined)
    throw new AdapterError('failed', 'the intent holds no private key', { retryable: false })
  const body = {
    type: 'secret_key',
    name: intent.tag,
    permissions: rights,
    ...pickDefined({ connect_permissions: connectPermissions }),
    public_key: {
      pem_key: {
        algorithm: 'RSA',
        data: createPublicKey(privateKey.reveal()).export({ type: 'spki', format: 'pem' }),
      },
    },
  }
  const response = await send(far, 'POST', KEYS, effect, { key: intent.tag, body })
  if (!isGood(response)) throw failure(far, response, 'unknown')
  return issuedFrom(far, response, privateKey)
}

/**
 * After a 2xx a key exists, so an answer that can't be used has the effect `unknown`. The
 * error names the id of the key where that can be read.
 */
function issuedFrom(far: Far, response: HttpResponse, privateKey: Secret): Issued {
  const made = MadeKey.safeParse(parseObject(textOf(response)))
  const unusable = (what: string): AdapterError =>
    new AdapterError('bad-answer', `Stripe answered ${response.status}, but ${what}`, {
      effect: 'unknown',
      retryable: false,
      details: { status: response.status, ...(made.success ? { id: made.data.id } : {}) },
    })
  if (!made.success) throw unusable('not with a key in the promised form')
  const { expires_at: expiresAt } = made.data
  const value = valueOf(made.data, privateKey, unusable)
  const fault = faultOf(value, far.config.keyType)
  if (fault !== undefined) throw unusable(`the value ${fault}`)
  return { fields: single(value), handle: handleIn(made.data), ...pickDefined({ expiresAt }) }
}

/**
 * The value of a new key, which Stripe encrypts in live mode and sends in plain text in
 * test mode.
 */
function valueOf(
  { secret_key: secret }: z.output<typeof MadeKey>,
  privateKey: Secret,
  unusable: (what: string) => AdapterError,
): Secret {
  const sealed = secret?.encrypted_secret?.ciphertext
  if (sealed === undefined) {
    if (secret?.token === undefined || secret.token === null) throw unusable('without its value')
    return new Secret(secret.token)
  }
  try {
    return openJwe(sealed, privateKey)
  } catch (thrown) {
    throw thrown instanceof AdapterError ? unusable(thrown.message) : thrown
  }
}

/**
 * Repeats the create under the same idempotency key: Stripe gives the same answer, or
 * does now what had not been done. Where the call can't be repeated or its answer can't
 * be used, the name decides. A key whose value is lost is a stray.
 */
async function settle(far: Far, intent: Intent): Promise<Settlement> {
  const { clock } = far.context
  const found = await madeFor(far, intent)
  let lost: readonly Handle[] = []
  if (clock.now() - intent.at <= REPLAY_MS) {
    try {
      const issued = await ask(far, intent, 'idempotent')
      const others = found.filter(({ id }) => id !== issued.handle?.id)
      if (others.length === 0 || issued.handle === undefined)
        return {
          outcome: 'applied',
          issued,
          detail: 'Stripe gave the same answer under the same idempotency key',
        }
      return stray(intent, [...others, issued.handle])
    } catch (thrown) {
      if (!(thrown instanceof AdapterError)) throw thrown
      if (isOpen(thrown, found)) throw thrown
      const id = thrown.details['id']
      if (typeof id === 'string') lost = [{ id, name: intent.tag, live: true }]
    }
  }
  for (let attempt = 0; ; attempt++) {
    const again = attempt === 0 ? found : await madeFor(far, intent)
    const handles = [...again, ...lost.filter(({ id }) => !again.some((other) => other.id === id))]
    if (handles.length > 0) return stray(intent, handles)
    const pause = LOOK_MS[attempt]
    if (pause === undefined) return { outcome: 'none', detail: `no key is named ${intent.tag}` }
    await clock.sleep(pause, far.context.signal)
  }
}

/**
 * Whether the answer leaves open what was made, so that `settle` must be asked again.
 * After an error of the server it is open only while no key with the name of the intent
 * was found; such a key is cleaned up.
 */
function isOpen(
  { code, effect, retryable, details }: AdapterError,
  found: readonly Handle[],
): boolean {
  const status = Number(details['status'])
  if (code === 'bad-answer' || status >= 500)
    return found.length === 0 && typeof details['id'] !== 'string'
  return retryable || effect === 'unknown' || code === 'denied'
}

function stray({ tag }: Intent, handles: readonly Handle[]): Settlement {
  return { outcome: 'stray', handles, detail: `found by its name ${tag}` }
}

async function madeFor(far: Far, { tag, before }: Intent): Promise<readonly Handle[]> {
  const known = new Set(before.map(({ id }) => id))
  return (await keysOf(far)).map(handleIn).filter(({ id, name }) => name === tag && !known.has(id))
}

async function lastUsed(far: Far, handle: Handle | undefined): Promise<number | undefined> {
  return handle === undefined ? undefined : (await one(far, handle.id))?.last_used
}

/**
 * Expires the key and waits for some seconds until Stripe refuses its value. Whether it
 * is dead is for `verify` to say. A key without an id was made by a person, who must end
 * it.
 */
async function revoke(far: Far, credential: Credential): Promise<void> {
  const { config, context } = far
  const { handle, fields } = credential
  if (handle === undefined) return mustBeEndedByHand(config, context, credential)
  const key = `expire-${Buffer.from(context.random.bytes(16)).toString('hex')}`
  const response = await send(
    far,
    'POST',
    `${KEYS}/${encodeURIComponent(handle.id)}/expire`,
    'idempotent',
    { key, body: {} },
  )
  if (!isGood(response) && response.status !== 404) {
    // How Stripe answers a second expire is not documented, so the key itself is asked
    // whether it is expired.
    const dead = response.status === 400 && (await one(far, handle.id))?.status !== 'active'
    if (!dead) throw failure(far, response, 'unknown')
  }
  if (Object.keys(fields).length === 0) return
  for (const pause of DEATH_MS) {
    if (!(await isAlive(config, context, credential))) return
    await context.clock.sleep(pause, context.signal)
  }
}

/** Reads one key; `undefined` when it does not exist any more. */
async function one(far: Far, id: string): Promise<z.output<typeof ListedKey> | undefined> {
  const response = await send(far, 'GET', `${KEYS}/${encodeURIComponent(id)}`, 'read')
  if (response.status === 404) return undefined
  if (!isGood(response)) throw failure(far, response, 'none')
  return shaped(ListedKey, response)
}

/**
 * All keys of the account that are not expired, including those that this program did not
 * make.
 */
async function keysOf(far: Far): Promise<readonly z.output<typeof ListedKey>[]> {
  const all: z.output<typeof ListedKey>[] = []
  let path = `${KEYS}?limit=100&include_expired=false`
  for (let count = 0; count < MAX_PAGES; count++) {
    const { data, next_page_url: next } = await page(far, path)
    all.push(...data)
    if (next === undefined || next === null) return all
    path = nextPath(far, next)
  }
  throw new AdapterError('bad-answer', `Stripe listed more than ${MAX_PAGES} pages of keys`)
}

/**
 * The path of the next page. The key of the app is sent to the configured address only.
 */
function nextPath({ config }: Far, next: string): string {
  const base = new URL(config.baseUrl)
  const url = URL.canParse(next, base) ? new URL(next, base) : undefined
  const path = `${base.pathname.replace(/\/$/, '')}${KEYS}`
  if (url === undefined || url.origin !== base.origin || url.pathname !== path)
    throw new AdapterError(
      'bad-answer',
      'Stripe named a next page at another address, which is not followed',
    )
  return `${KEYS}${url.search}`
}

async function page(far: Far, path: string): Promise<z.output<typeof Page>> {
  const response = await send(far, 'GET', path, 'read')
  if (!isGood(response)) throw failure(far, response, 'none')
  return shaped(Page, response)
}

function shaped<T extends z.ZodType>(schema: T, response: HttpResponse): z.output<T> {
  const parsed = schema.safeParse(parseObject(textOf(response)))
  if (parsed.success) return parsed.data
  throw new AdapterError('bad-answer', 'Stripe answered in another form than promised')
}

function handleIn({ id, name, status, created }: z.output<typeof ListedKey>): Handle {
  return {
    id,
    live: status !== 'expired',
    ...pickDefined({ createdAt: created }),
    ...(name === undefined || name === null ? {} : { name }),
  }
}

function send(
  { config, context }: Far,
  method: 'GET' | 'POST',
  path: string,
  effect: HttpRequest['effect'],
  post?: { readonly key: string; readonly body: unknown },
): Promise<HttpResponse> {
  return context.http.send({
    method,
    url: `${config.baseUrl.replace(/\/$/, '')}${path}`,
    ...withJson(
      {
        authorization: `Bearer ${config.apiKey.reveal()}`,
        accept: 'application/json',
        'stripe-version': config.apiVersion,
        'stripe-context': config.account,
        ...(post === undefined ? {} : { 'idempotency-key': post.key }),
      },
      post?.body,
    ),
    effect,
    // The engine repeats a settlement three times. If the HTTP client repeated each of
    // them, there would be nine calls.
    ...(path === KEYS && effect === 'idempotent' ? { attempts: 1 } : {}),
    maxBytes: MAX_BYTES,
    signal: context.signal,
  })
}

function isGood({ status }: HttpResponse): boolean {
  return status >= 200 && status < 300
}

function textOf({ body }: HttpResponse): string {
  return body.isText() ? body.reveal() : ''
}

/**
 * The error for an answer other than 2xx. Its code is shown, its message is not, because
 * it may quote what was sent.
 *
 * @param effect what a server error may have done
 */
function failure(
  { config, context }: Far,
  response: HttpResponse,
  effect: 'none' | 'unknown',
): AdapterError {
  const { status, headers } = response
  const known = Failure.safeParse(parseObject(textOf(response)))
  const details = { status, ...(known.success ? { code: known.data.error.code } : {}) }
  const said = `Stripe answered ${status}${known.success ? ` (${known.data.error.code})` : ''}`
  const wait = retryAfterMs(headers['retry-after'], context.clock.now())
  if (status === 429)
    return new AdapterError('throttled', said, { details, ...pickDefined({ retryAfterMs: wait }) })
  if (status >= 500)
    return new AdapterError('unavailable', said, {
      details,
      effect,
      ...answeredBy(status, known.success),
    })
  // The first call under this idempotency key is still running.
  if (status === 409)
    return new AdapterError('unavailable', `${said}: an earlier call is not finished`, {
      details,
      effect,
    })
  if (status === 401)
    return new AdapterError('denied', `${said}: the key of the app is not accepted`, {
      details,
      hints: ['check "apiKey" in the configuration'],
    })
  if (status === 403)
    return new AdapterError(
      'denied',
      `${said}: the app may not manage the keys of ${config.account}`,
      {
        details,
        hints: [`what it needs: ${managedRights(config)} Where it was removed, install it again`],
      },
    )
  if (status === 404)
    return new AdapterError(
      'denied',
      `${said}: the preview of managed API keys is not open to this app`,
      {
        details,
        hints: ['ask Stripe for it, or use "mode": "assisted"'],
      },
    )
  const hints =
    status === 400
      ? ['check "permissions", "connectPermissions" and "apiVersion" in the configuration']
      : []
  return new AdapterError('failed', `${said}: the call is not accepted as it is`, {
    details,
    retryable: false,
    hints,
  })
}
