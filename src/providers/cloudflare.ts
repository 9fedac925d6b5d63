/**
 * API tokens of Cloudflare that belong to a user or to an account
 * (https://developers.cloudflare.com/fundamentals/api/how-to/create-via-api).
 *
 * Rolling a token would replace its value at once. So a second token is made with the
 * policies of the first, and both live side by side. The value is shown once; after a
 * lost answer the token is found by its name, which is the tag of the intent. The verify
 * call returns the id of a token, so a token that was stored by hand need not be adopted.
 * Disabling a token can be undone and serves as the quarantine.
 *
 * A proof is Cloudflare's verify call, which returns the status of the token; it must be
 * `active`. The call shows that the token lives, not what it may do, and costs nothing.
 * Deleting a token ends only this one; its owner's other tokens and Global API Key go on.
 */
import { z } from 'zod'
import { DAY, iso } from '../core/duration.ts'
import { AdapterError, type Effect } from '../core/errors.ts'
import type { Handle, Intent } from '../core/model.ts'
import {
  type AdapterContext,
  type Credential,
  defineProvider,
  type Issued,
  type ProviderSession,
} from '../core/provider.ts'
import { secretField, urlField } from '../core/schema.ts'
import { type Fields, flatten, Secret, single } from '../core/secret.ts'
import { CLOUDFLARE, ID, resultIn, VENDOR } from '../net/cloudflare.ts'
import { type Api, api, objectIn } from '../net/json-api.ts'
import { settleByName, verifyWithin } from './_named.ts'
import { pickDefined } from '../core/defined.ts'
import { throwIfInterrupted } from '../net/interrupt.ts'

const PAGE = 50
/**
 * Pauses in milliseconds, half a minute in all. How long a change takes to be known
 * everywhere is not documented.
 */
const SPREAD_MS = [1000, 2000, 4000, 8000, 15_000]
/**
 * Pauses, in milliseconds, before an absent name counts as proof that nothing was made.
 */
const LOOK_MS = [1000, 3000]

const Config = z.strictObject({
  managerToken: secretField(
    'API token with "API Tokens: Edit" (of the user), or "Account API Tokens: Edit" with ' +
      '"accountId"',
  ),
  accountId: z
    .string()
    .regex(ID, 'is not the id of an account')
    .optional()
    .meta({ description: 'Account that owns the tokens; default: the user of the manager token' }),
  templateId: z
    .string()
    .regex(ID, 'is not the id of a token')
    .optional()
    .meta({ description: 'Token whose policies the first one gets, where there is no value yet' }),
  lifetimeDays: z.int().min(1).max(3650).optional().meta({
    description:
      'Life of a new token, more than interval, grace and quarantine together; default: no end',
  }),
  baseUrl: urlField('Of the API').default(CLOUDFLARE),
})
type Options = z.output<typeof Config>

const Policy = z.looseObject({
  effect: z.enum(['allow', 'deny']),
  permission_groups: z.array(z.looseObject({ id: z.string() })),
  resources: z.record(z.string(), z.unknown()),
})
const Token = z.looseObject({
  id: z.string().regex(ID),
  name: z.string().default(''),
  status: z.string().default(''),
  issued_on: z.string().optional(),
  last_used_on: z.string().nullish(),
  expires_on: z.string().nullish(),
  not_before: z.string().nullish(),
  condition: z.record(z.string(), z.unknown()).nullish(),
  policies: z.array(Policy).default([]),
})
type Token = z.output<typeof Token>

interface Site {
  readonly config: Options
  readonly context: AdapterContext
  readonly manager: Api
  /** The path of the tokens of the configured owner. */
  readonly tokens: string
}

export default defineProvider({
  id: 'cloudflare',
  title: 'Cloudflare API tokens',
  notes: [
    'Rolling a token would replace its value at once, so a second token with the policies of ' +
      'the first is made, and both live until the grace ends.',
  ],
  example: { managerToken: { secret: 'infra/cloudflare/MANAGER' } },
  config: Config,
  traits: () => ({
    mints: 'service',
    overlap: 'two-live',
    // A user may have fifty tokens. Cloudflare refuses one more with an error of its own.
    maxLive: Number.POSITIVE_INFINITY,
    fields: ['value'],
    idempotency: 'named',
    revoke: 'delete',
    suspend: true,
    lastUsed: true,
  }),
  secretType: 'token',
  permissions: ({ accountId }) =>
    accountId === undefined
      ? 'An API token with "User → API Tokens → Edit"; nothing else.'
      : `An account-owned token of ${accountId} with "Account → Account API Tokens → Edit"; ` +
        'nothing else.',
  open: (config, context) => Promise.resolve(openSession(config, context)),
})

function openSession(config: Options, context: AdapterContext): ProviderSession {
  const tokens =
    config.accountId === undefined ? '/user/tokens' : `/accounts/${config.accountId}/tokens`
  const site: Site = {
    config,
    context,
    manager: api(VENDOR, config.baseUrl, config.managerToken, context, 'managerToken'),
    tokens,
  }
  return {
    preflight: (current) => preflight(site, current),
    list: async () => (await listTokens(site)).map(handleFrom),
    resembles: async ({ id }, fields) => (await idOfValue(site, fields)) === id,
    create: (intent, current) => create(site, intent, current),
    settle: (intent) =>
      settleByName(async () => (await listTokens(site)).map(handleFrom), intent, LOOK_MS, context),
    verify: (credential, expect) => verify(site, credential.fields, expect),
    lastUsed: async (credential) => {
      const used = Date.parse((await findToken(site, credential))?.last_used_on ?? '')
      return Number.isNaN(used) ? undefined : used
    },
    suspend: (credential) => setStatus(site, credential, 'disabled'),
    resume: (credential) => setStatus(site, credential, 'active'),
    revoke: (credential) => revoke(site, credential),
    close: () => Promise.resolve(),
  }
}

function tokenIn(answer: unknown, effect: Effect = 'none'): Token {
  const token = Token.safeParse(resultIn(answer, effect))
  if (token.success) return token.data
  throw new AdapterError('bad-answer', `${VENDOR} answered in another shape than promised`, {
    effect,
  })
}

function handleFrom({ id, name, status, issued_on: issued }: Token): Handle {
  const created = Date.parse(issued ?? '')
  return {
    id,
    name,
    live: status === 'active',
    ...(Number.isNaN(created) ? {} : { createdAt: created }),
  }
}

async function listTokens({ manager, tokens }: Site): Promise<readonly Token[]> {
  const all: Token[] = []
  for (let page = 1; ; page++) {
    const rows = z
      .array(Token)
      .safeParse(
        resultIn(await manager.call('GET', `${tokens}?per_page=${PAGE}&page=${page}`), 'none'),
      )
    if (!rows.success)
      throw new AdapterError('bad-answer', `${VENDOR} answered in another shape than promised`)
    all.push(...rows.data)
    if (rows.data.length < PAGE) return all
  }
}

async function get({ manager, tokens }: Site, id: string): Promise<Token | undefined> {
  try {
    return tokenIn(await manager.call('GET', `${tokens}/${id}`))
  } catch (thrown) {
    if (thrown instanceof AdapterError && thrown.code === 'missing') return undefined
    throw thrown
  }
}

/**
 * Id and status that Cloudflare returns for this token; `undefined` where the token is
 * not accepted. Throws for an answer that proves nothing.
 */
async function ask(
  { config, context, tokens }: Site,
  fields: Fields,
): Promise<{ readonly id: string; readonly status: string } | undefined> {
  const value = flatten(fields)
  if (!value.isText() || !/^[\w-]{20,200}$/.test(value.reveal())) return undefined
  try {
    const { id, status } = tokenIn(
      await api(VENDOR, config.baseUrl, value, context).call('GET', `${tokens}/verify`),
    )
    return { id, status }
  } catch (thrown) {
    if (
      thrown instanceof AdapterError &&
      (thrown.code === 'denied' || thrown.details['status'] === 400)
    )
      return undefined
    throw thrown
  }
}

async function idOfValue(site: Site, fields: Fields): Promise<string | undefined> {
  return Object.keys(fields).length === 0 ? undefined : (await ask(site, fields))?.id
}

/**
 * Finds the token by its recorded id, or else by the id that the verify call returns for
 * the value.
 */
async function findToken(site: Site, { handle, fields }: Credential): Promise<Token | undefined> {
  const id = handle?.id ?? (await idOfValue(site, fields))
  return id === undefined || !ID.test(id) ? undefined : get(site, id)
}

async function preflight(site: Site, current: Credential | undefined): Promise<void> {
  await listTokens(site)
  if (current !== undefined && (await ask(site, current.fields)) === undefined)
    throw new AdapterError('refused', `${VENDOR} does not accept the current token`, {
      hints: [
        'store the one that is in use now with "rotate set"; "accountId" must be that of its owner',
      ],
    })
  await findTemplate(site, current)
}

/** The token whose policies a new token gets. */
async function findTemplate(site: Site, current: Credential | undefined): Promise<Token> {
  const { templateId } = site.config
  const token =
    (current === undefined ? undefined : await findToken(site, current)) ??
    (templateId === undefined ? undefined : await get(site, templateId))
  if (token !== undefined && token.policies.length > 0) return token
  throw new AdapterError(
    'misconfigured',
    'there is no token here whose policies the new one could have',
    {
      hints: ['store the token that is in use with "rotate set", or name one with "templateId"'],
    },
  )
}

async function create(
  site: Site,
  intent: Intent,
  current: Credential | undefined,
): Promise<Issued> {
  const { config, context, manager, tokens } = site
  throwIfInterrupted(context.signal, 'the token was made')
  const old = await findTemplate(site, current)
  const policies = old.policies.map(({ effect, permission_groups: groups, resources }) => ({
    effect,
    permission_groups: groups.map(({ id }) => ({ id })),
    resources,
  }))
  const end =
    config.lifetimeDays === undefined ? undefined : context.clock.now() + config.lifetimeDays * DAY
  const body = {
    name: intent.tag,
    policies,
    ...(old.condition === undefined || old.condition === null ? {} : { condition: old.condition }),
    ...(end === undefined ? {} : { expires_on: iso(end).replace(/\.\d+Z$/, 'Z') }),
  }
  if (end === undefined && typeof old.expires_on === 'string')
    context.note('the old token has an end and the new one has none: "lifetimeDays" gives it one')
  const result = objectIn(
    resultIn(await manager.call('POST', tokens, body, 'once'), 'unknown'),
    VENDOR,
    'unknown',
  )
  const { id, value } = result
  if (typeof id !== 'string' || !ID.test(id) || typeof value !== 'string' || value === '')
    throw new AdapterError(
      'bad-answer',
      `${VENDOR} answered without the new token's id and value`,
      { effect: 'unknown' },
    )
  const made = Token.safeParse(result)
  return {
    fields: single(new Secret(value)),
    handle: made.success ? handleFrom(made.data) : { id, live: true },
    ...pickDefined({ expiresAt: end }),
  }
}

async function verify(site: Site, fields: Fields, expect: 'live' | 'dead'): Promise<void> {
  const asked = async (): Promise<{ readonly alive: boolean; readonly detail: string }> => {
    const said = await ask(site, fields)
    const status =
      said === undefined
        ? ''
        : ` (${/^[a-z]{1,20}$/.test(said.status) ? said.status : 'not active'})`
    return {
      alive: said?.status === 'active',
      detail: `${VENDOR} does not accept the token${status}`,
    }
  }
  await verifyWithin(asked, expect, SPREAD_MS, site.context)
}

/**
 * Sets the status. Cloudflare replaces the whole token in an update, so the token is read
 * first. A disabled token can't verify itself, so it is found only by its recorded id.
 */
async function setStatus(
  site: Site,
  credential: Credential,
  status: 'active' | 'disabled',
): Promise<void> {
  const token = await findToken(site, credential)
  if (token === undefined) throw new AdapterError('missing', 'there is no such token')
  if (token.status === status) return
  const { name, policies, condition, expires_on: end, not_before: start } = token
  const kept = Object.fromEntries(
    Object.entries({ condition, expires_on: end, not_before: start }).filter(
      ([, value]) => value !== undefined && value !== null,
    ),
  )
  tokenIn(
    await site.manager.call('PUT', `${site.tokens}/${token.id}`, {
      name,
      policies,
      status,
      ...kept,
    }),
    'unknown',
  )
}

async function revoke(site: Site, credential: Credential): Promise<void> {
  const token = await findToken(site, credential)
  if (token === undefined) return
  try {
    resultIn(await site.manager.call('DELETE', `${site.tokens}/${token.id}`), 'unknown')
  } catch (thrown) {
    if (
      !(thrown instanceof AdapterError) ||
      (thrown.code !== 'missing' && (await get(site, token.id)) !== undefined)
    )
      throw thrown
  }
}
