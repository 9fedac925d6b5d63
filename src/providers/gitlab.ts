/**
 * Access tokens of a GitLab project or group
 * (https://docs.gitlab.com/api/project_access_tokens,
 * https://docs.gitlab.com/api/group_access_tokens).
 *
 * GitLab's own `rotate` ends the old token at once, and a repetition after a lost answer
 * ends the new one too, with all tokens of its family. So it is never called. Instead a
 * second token is made with the scopes and the role of the first, and the first one is
 * revoked after its grace. The value is shown once; after a lost answer the token is
 * found by its name, which is the tag of the intent. A token can be asked for its own id,
 * so one that was stored by hand need not be adopted. GitLab gives every token a date of
 * expiry.
 *
 * A proof asks the token about itself: it is active, or it is accepted but its scopes
 * don't allow the question (403), or it is refused (401). A proof shows that the token
 * lives, not what it may do. Each token has a bot user of its own, and revoking ends only
 * this token: only `rotate` makes families of tokens, and it is never called here. A
 * token that was rotated elsewhere has another id by then and is not touched.
 *
 * This was tested against a stand-in only, never against GitLab. Personal access tokens
 * are left out, because gitlab.com has no API that makes them.
 */
import { z } from 'zod'
import { DAY } from '../core/duration.ts'
import { AdapterError } from '../core/errors.ts'
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
import { type Api, api } from '../net/json-api.ts'
import { settleByName, verifyWithin } from './_named.ts'
import { throwIfInterrupted } from '../net/interrupt.ts'

const VENDOR = 'GitLab'
const PAGE = 100
/**
 * Pauses, in milliseconds, before an absent name counts as proof that nothing was made: a
 * list may come from a replica that lags.
 */
const LOOK_MS = [1000, 3000]
/** Pauses, in milliseconds, until a new token is known and a revoked one is refused. */
const SPREAD_MS = [1000, 2000, 4000]
/**
 * The access levels (https://docs.gitlab.com/api/access_requests/#valid-access-levels).
 * Only an owner may give 50.
 */
const ROLES = {
  guest: 10,
  planner: 15,
  reporter: 20,
  developer: 30,
  maintainer: 40,
  owner: 50,
} as const
const DATE = /^\d{4}-\d{2}-\d{2}$/

const owner = (what: string) =>
  z
    .string()
    .regex(/^(?!.*\.\.)\w[\w./-]{0,254}$/, 'is neither a number nor a path such as team/app')
    .optional()
    .meta({ description: `${what} that owns the tokens, by number or by full path` })

const Config = z
  .strictObject({
    project: owner('Project'),
    group: owner('Group'),
    managerToken: secretField(
      'Token with the scope "api" of somebody who is Maintainer of the project, or Owner of ' +
        'the group',
    ),
    scopes: z
      .array(z.string().regex(/^[a-z_]{1,60}$/))
      .min(1)
      .optional()
      .meta({ description: 'Scopes of a new token; default: those of the current one' }),
    role: z
      .enum(['guest', 'planner', 'reporter', 'developer', 'maintainer', 'owner'])
      .optional()
      .meta({
        description: 'Role of a new token; default: that of the current one',
      }),
    lifetimeDays: z
      .int()
      .min(2)
      .max(400)
      .default(364)
      .meta({
        description:
          'Life of a new token, more than interval, grace and quarantine together; an instance ' +
          'may allow less',
      }),
    baseUrl: urlField('Of the API').default('https://gitlab.com/api/v4'),
  })
  .superRefine(({ project, group }, context) => {
    if ((project === undefined) === (group === undefined))
      context.addIssue({
        code: 'custom',
        path: ['project'],
        message: 'or "group" is needed, and not both',
      })
  })
type Options = z.output<typeof Config>

const Token = z.object({
  id: z.int(),
  name: z.string(),
  active: z.boolean(),
  created_at: z.string().nullish(),
  last_used_at: z.string().nullish(),
  scopes: z.array(z.string()),
  access_level: z.int().optional(),
})
type Token = z.output<typeof Token>
const Made = Token.extend({ token: z.string().min(1), expires_at: z.string().regex(DATE) })

interface Site {
  readonly config: Options
  readonly context: AdapterContext
  readonly manager: Api
  /** The path of the tokens of the configured project or group. */
  readonly tokens: string
}

export default defineProvider({
  id: 'gitlab',
  title: 'GitLab project and group access tokens',
  notes: [
    "A second token is made and the first one revoked after its grace. GitLab's own rotate is " +
      'never called, because a repeated one ends every token of the family.',
    'Tokens of projects and groups only: on gitlab.com no API makes personal ones.',
    'Tried against a counterpart only, never against GitLab.',
  ],
  example: { project: 'team/shop', managerToken: { secret: 'infra/gitlab/MANAGER' } },
  config: Config,
  traits: () => ({
    mints: 'service',
    overlap: 'two-live',
    maxLive: Number.POSITIVE_INFINITY,
    fields: ['value'],
    idempotency: 'named',
    revoke: 'delete',
    suspend: false,
    lastUsed: true,
  }),
  secretType: 'token',
  permissions: ({ project, group }) =>
    project === undefined
      ? `A token with the scope "api" of an Owner of the group ${group}, best of a service ` +
        'account; nothing narrower may make tokens.'
      : `A token with the scope "api" of a Maintainer of the project ${project}, best of a ` +
        'service account; nothing narrower may make tokens.',
  open: (config, context) => Promise.resolve(openSession(config, context)),
})

function openSession(config: Options, context: AdapterContext): ProviderSession {
  const { project, group = '' } = config
  const place =
    project === undefined
      ? `/groups/${encodeURIComponent(group)}`
      : `/projects/${encodeURIComponent(project)}`
  const site: Site = {
    config,
    context,
    manager: api(VENDOR, config.baseUrl, config.managerToken, context, 'managerToken'),
    tokens: `${place}/access_tokens`,
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
      const used = Date.parse((await findToken(site, credential))?.last_used_at ?? '')
      return Number.isNaN(used) ? undefined : used
    },
    revoke: (credential) => revoke(site, credential),
    close: () => Promise.resolve(),
  }
}

function shaped<T extends z.ZodType>(
  schema: T,
  answer: unknown,
  effect: 'none' | 'unknown' = 'none',
): z.output<T> {
  const parsed = schema.safeParse(answer)
  if (parsed.success) return parsed.data
  throw new AdapterError('bad-answer', `${VENDOR} answered in another shape than promised`, {
    effect,
  })
}

function handleFrom({ id, name, active, created_at: made }: Token): Handle {
  const created = Date.parse(made ?? '')
  return {
    id: String(id),
    name,
    live: active,
    ...(Number.isNaN(created) ? {} : { createdAt: created }),
  }
}

/** The active tokens. */
async function listTokens({ manager, tokens }: Site): Promise<readonly Token[]> {
  const all: Token[] = []
  for (let page = 1; ; page++) {
    const rows = shaped(
      z.array(Token),
      await manager.call('GET', `${tokens}?state=active&per_page=${PAGE}&page=${page}`),
    )
    all.push(...rows.filter(({ active }) => active))
    if (rows.length < PAGE) return all
  }
}

async function get({ manager, tokens }: Site, id: string): Promise<Token | undefined> {
  try {
    return shaped(Token, await manager.call('GET', `${tokens}/${id}`))
  } catch (thrown) {
    if (thrown instanceof AdapterError && thrown.code === 'missing') return undefined
    throw thrown
  }
}

/**
 * The id of the token, which it can be asked for; `alive` where its scopes don't allow
 * that question (403); `undefined` where it is not accepted (401).
 * https://docs.gitlab.com/api/personal_access_tokens/#get-details-on-a-personal-access-token
 */
async function ask(
  { config, context }: Site,
  fields: Fields,
): Promise<{ readonly id: string } | 'alive' | undefined> {
  const value = flatten(fields)
  if (!value.isText() || !/^[\x21-\x7e]{8,500}$/.test(value.reveal())) return undefined
  try {
    const token = shaped(
      Token,
      await api(VENDOR, config.baseUrl, value, context).call('GET', '/personal_access_tokens/self'),
    )
    return token.active ? { id: String(token.id) } : undefined
  } catch (thrown) {
    const status = thrown instanceof AdapterError ? thrown.details['status'] : undefined
    if (status === 401) return undefined
    if (status === 403) return 'alive'
    throw thrown
  }
}

async function idOfValue(site: Site, fields: Fields): Promise<string | undefined> {
  if (Object.keys(fields).length === 0) return undefined
  const said = await ask(site, fields)
  return typeof said === 'object' ? said.id : undefined
}

/**
 * Finds the token by its recorded id, or else by the id that it returns for itself. A
 * token of another owner is not found.
 */
async function findToken(site: Site, { handle, fields }: Credential): Promise<Token | undefined> {
  const id = handle?.id ?? (await idOfValue(site, fields))
  return id === undefined || !/^\d{1,20}$/.test(id) ? undefined : get(site, id)
}

async function preflight(site: Site, current: Credential | undefined): Promise<void> {
  await listTokens(site)
  if (current !== undefined && (await ask(site, current.fields)) === undefined)
    throw new AdapterError('refused', `${VENDOR} does not accept the current token`, {
      hints: ['store the one that is in use now with "rotate set"'],
    })
  await rightsOf(site, current)
}

/** Scopes and role of a new token: the configured ones, or those of the current token. */
async function rightsOf(
  site: Site,
  current: Credential | undefined,
): Promise<{ readonly scopes: readonly string[]; readonly access_level: number }> {
  const { scopes, role } = site.config
  if (scopes !== undefined && role !== undefined) return { scopes, access_level: ROLES[role] }
  const old = current === undefined ? undefined : await findToken(site, current)
  const given = {
    scopes: scopes ?? old?.scopes,
    access_level: role === undefined ? old?.access_level : ROLES[role],
  }
  if (given.scopes !== undefined && given.access_level !== undefined)
    return { scopes: given.scopes, access_level: given.access_level }
  throw new AdapterError(
    'misconfigured',
    'there is no token of this owner whose scopes and role the new one could have',
    {
      hints: ['store the token that is in use with "rotate set", or give "scopes" and "role"'],
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
  const rights = await rightsOf(site, current)
  const end = new Date(context.clock.now() + config.lifetimeDays * DAY).toISOString().slice(0, 10)
  const answer = await manager.call(
    'POST',
    tokens,
    { name: intent.tag, ...rights, expires_at: end },
    'once',
  )
  const { token, expires_at: ends, ...made } = shaped(Made, answer, 'unknown')
  // A token expires at the beginning of that day, UTC
  // (https://docs.gitlab.com/user/project/settings/project_access_tokens).
  return {
    fields: single(new Secret(token)),
    handle: handleFrom(made),
    expiresAt: Date.parse(ends),
  }
}

async function verify(site: Site, fields: Fields, expect: 'live' | 'dead'): Promise<void> {
  const detail = `${VENDOR} does not accept the token`
  await verifyWithin(
    async () => ({ alive: (await ask(site, fields)) !== undefined, detail }),
    expect,
    SPREAD_MS,
    site.context,
  )
}

async function revoke(site: Site, credential: Credential): Promise<void> {
  const token = await findToken(site, credential)
  if (token?.active !== true) return
  try {
    await site.manager.call('DELETE', `${site.tokens}/${token.id}`)
  } catch (thrown) {
    // The call was refused, or its answer was lost: the state of the token decides.
    if (!(thrown instanceof AdapterError) || (await get(site, String(token.id)))?.active === true)
      throw thrown
  }
}
