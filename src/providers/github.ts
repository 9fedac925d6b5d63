/**
 * Credentials of GitHub: personal access tokens, which a person makes, and deploy keys,
 * which are made here (`_github-deploy-key.ts`).
 *
 * No API makes a personal access token
 * (https://docs.github.com/en/authentication/keeping-your-account-and-data-secure/managing-your-personal-access-tokens),
 * so a person makes one on the page that the error names and hands it over:
 * `rotate now PATH -`, or at a prompt. The rest is automatic. `GET /user` tells whether a
 * token is accepted, to whom it belongs, when it expires and, for a classic token, its
 * scopes. A token of another user, or with fewer scopes than the token in use, is refused
 * before anything is delivered. When its grace is over the old token is revoked by its
 * own value (https://docs.github.com/en/rest/credentials/revoke; that call needs no
 * token, can't be undone, and sends the owner a mail), and then tried until it is
 * refused.
 *
 * A proof is `GET /user` with the token: 200 shows that the token lives and to whom it
 * belongs, not that it may do what its consumers do; 401 shows that it is dead. After
 * several wrong tokens in a short time GitHub refuses everything of that user for a
 * while, even with living tokens
 * (https://docs.github.com/en/rest/authentication/authenticating-to-the-rest-api#failed-login-limit).
 * So one proof tries a refused token twice at most, and a 403 is never taken for an
 * answer about the token. Revoking ends only this one token; its user and the other
 * tokens, keys and applications of that user go on.
 *
 * Because a revocation can't be undone, a token is revoked only after this very session
 * has seen another token accepted in its place. A token that a person handed over and
 * that no rotation has made current is left to that person.
 */
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import type { HttpResponse } from '../core/ports.ts'
import {
  type AdapterContext,
  type Credential,
  defineProvider,
  type ProviderSession,
} from '../core/provider.ts'
import { secretField, urlField } from '../core/schema.ts'
import { type Fields, flatten, type Secret, singleValue } from '../core/secret.ts'
import { answer, GITHUB, github, REPOSITORY, scopesOf, siteOf } from '../net/github.ts'
import { openDeployKeys } from './_github-deploy-key.ts'

const CLASSIC = /^(?:ghp_\w{20,250}|[0-9a-f]{40})$/
const FINE_GRAINED = /^github_pat_\w{20,250}$/
/**
 * Tokens that GitHub revokes by value. Those without a prefix, from before 2021, are not
 * among them.
 */
const REVOCABLE = /^(?:ghp|github_pat)_\w+$/
/**
 * Pause in milliseconds; a new token is known everywhere within seconds. It is tried once
 * more and not oftener, because several wrong tokens in a row lock the user out (see
 * above).
 */
const SPREAD_MS = [3000]
/**
 * Pauses in milliseconds. A revocation is accepted (202) and carried out later; how much
 * later is not documented.
 */
const DYING_MS = [500, 1000, 2000, 4000, 8000, 15_000]
const DAY_MS = 86_400_000

/**
 * What a classic scope includes, besides the rule that `admin:x` includes `write:x`,
 * which includes `read:x`
 * (https://docs.github.com/en/apps/oauth-apps/building-oauth-apps/scopes-for-oauth-apps).
 */
const HOLDS: Readonly<Record<string, readonly string[]>> = {
  repo: ['repo:status', 'repo_deployment', 'public_repo', 'repo:invite', 'security_events'],
  user: ['read:user', 'user:email', 'user:follow'],
  project: ['read:project'],
  'admin:org': ['manage_runners:org'],
  'admin:enterprise': ['manage_runners:enterprise', 'manage_billing:enterprise', 'scim:enterprise'],
  codespace: ['codespace:secrets'],
  copilot: ['manage_billing:copilot'],
  audit_log: ['read:audit_log'],
}

const Config = z
  .strictObject({
    mode: z
      .enum(['assisted', 'deploy-key'])
      .default('assisted')
      .meta({
        description:
          'assisted: personal access tokens, made by a person; deploy-key: keys of a ' +
          'repository, made here',
      }),
    scopes: z
      .array(z.string().regex(/^[a-z_]+(?::[a-z_]+)?$/, 'is no scope'))
      .optional()
      .meta({
        description:
          'assisted: scopes that a new classic token must have; default: those of the token in use',
      }),
    user: z
      .string()
      .regex(/^[A-Za-z0-9](?:[A-Za-z0-9_-]{0,99})$/, 'is no user name')
      .optional()
      .meta({
        description: 'assisted: whose the tokens are; default: whoever has the token in use',
      }),
    minimumDays: z
      .int()
      .min(1)
      .max(366)
      .optional()
      .meta({
        description:
          'assisted: a new token must live so many days at least, more than interval and grace ' +
          'together',
      }),
    token: secretField(
      'deploy-key: who adds and deletes the keys; a token with Administration: write on the ' +
        'repository',
    ).optional(),
    repository: z
      .string()
      .regex(REPOSITORY, 'looks like owner/name')
      .optional()
      .meta({ description: 'deploy-key: owner/name' }),
    readOnly: z
      .boolean()
      .optional()
      .meta({
        description:
          'deploy-key: whether a key may only read; default: as the key in use, and true for ' +
          'the first',
      }),
    baseUrl: urlField('Of the API; of an Enterprise Server https://HOST/api/v3').default(GITHUB),
  })
  .superRefine((config, context) => {
    const fail = (field: string, message: string): void =>
      context.addIssue({ code: 'custom', path: [field], message })
    const keys = config.mode === 'deploy-key'
    for (const field of ['token', 'repository'] as const)
      if (keys && config[field] === undefined) fail(field, 'is needed with "mode": "deploy-key"')
    for (const field of keys
      ? (['scopes', 'user', 'minimumDays'] as const)
      : (['token', 'repository', 'readOnly'] as const))
      if (config[field] !== undefined)
        fail(field, `says nothing with "mode": "${config.mode}"; leave it out`)
  })
type Options = z.output<typeof Config>

export default defineProvider({
  id: 'github',
  title: 'GitHub personal access tokens and deploy keys',
  notes: [
    'No API makes a personal access token: a person makes it and hands it over with rotate ' +
      'now PATH -. Deploy keys ("mode":"deploy-key") are made here, without a person.',
    'A new token is refused if it belongs to another user, or lacks scopes of the one that it ' +
      'replaces.',
    'The old token is revoked by its own value when its grace ends, which nothing can undo.',
  ],
  example: {},
  config: Config,
  traits: ({ mode }) => ({
    mints: mode === 'deploy-key' ? 'client' : 'person',
    overlap: 'two-live',
    maxLive: Number.POSITIVE_INFINITY,
    fields: ['value'],
    idempotency: mode === 'deploy-key' ? 'named' : 'none',
    // With `assisted` the engine knows that a person makes these tokens and that this
    // program ends them.
    revoke: mode === 'deploy-key' ? 'delete' : 'assisted',
    suspend: false,
    lastUsed: mode === 'deploy-key',
  }),
  secretType: 'token',
  permissions: ({ mode, repository }) =>
    mode === 'deploy-key'
      ? `A fine-grained token for ${repository ?? ''} alone with "Administration: Read and ` +
        'write"; nothing else. Or a classic one with the scope repo, of an administrator.'
      : 'None: tokens are made by a person, and revoked by their own value. A new token needs ' +
        'only the rights that its consumers use.',
  open: (config, context) => {
    const { mode, token, repository, readOnly, baseUrl } = config
    if (mode === 'deploy-key' && token !== undefined && repository !== undefined)
      return Promise.resolve(openDeployKeys({ token, repository, readOnly, baseUrl }, context))
    return Promise.resolve(openTokens(config, context))
  },
})

interface Account {
  readonly login: string
  /** The scopes of a classic token; a fine-grained one has none. */
  readonly scopes: readonly string[] | undefined
  readonly expiresAt: number | undefined
}

function openTokens(config: Options, context: AdapterContext): ProviderSession {
  /**
   * The last token that this session has seen accepted: the replacement without which
   * nothing is revoked.
   */
  let accepted: Secret | undefined
  const byHand = async (current: Credential | undefined): Promise<AdapterError> => {
    const account =
      current === undefined
        ? undefined
        : await accountOf(config, context, tokenIn(current.fields)).catch(() => undefined)
    return new AdapterError(
      'by-hand',
      `GitHub lets no token make another one: the new token of ${context.path} has to be ` +
        'made by a person',
      {
        hints: [
          `create it at ${pageFor(config, current, account)} (leave the old one alive), ` +
            `then: rotate now ${context.path} - and paste it, or pipe it into that; the old ` +
            'one is revoked from here when its grace is over',
        ],
      },
    )
  }
  return {
    preflight: async (current) => {
      if (
        current !== undefined &&
        (await accountOf(config, context, tokenIn(current.fields))) === undefined
      )
        throw new AdapterError('refused', 'GitHub does not accept the token in use (401)', {
          hints: (await byHand(current)).hints,
        })
    },
    create: async (_intent, current) => {
      throw await byHand(current)
    },
    settle: () =>
      Promise.resolve({ outcome: 'none' as const, detail: 'a token of GitHub is never made here' }),
    verify: async (credential, expect, replaces) => {
      const token = tokenIn(credential.fields)
      const account = await verifyToken(config, context, token, expect)
      if (expect === 'dead') return
      if (replaces !== undefined)
        await compare(config, context, token, account, tokenIn(replaces.fields))
      accepted = token
    },
    revoke: async ({ fields }) => revoke(config, context, tokenIn(fields), accepted),
    close: () => Promise.resolve(),
  }
}

/**
 * The value as a token. Throws `refused` for a text that can't be a personal access
 * token; never quotes it.
 */
function tokenIn(fields: Fields): Secret {
  const token = singleValue(fields)
  const text = token?.isText() === true ? token.reveal() : ''
  if (token === undefined || !(CLASSIC.test(text) || FINE_GRAINED.test(text)))
    throw new AdapterError(
      'refused',
      'the value is no personal access token of GitHub (ghp_… or github_pat_…)',
    )
  return token
}

/**
 * The page on which a person makes the next token, filled in as far as possible: for a
 * token of the same kind and with the same scopes as the one in use.
 */
function pageFor(
  config: Options,
  current: Credential | undefined,
  account: Account | undefined,
): string {
  const scopes = config.scopes ?? account?.scopes
  const settings = `${siteOf(config.baseUrl)}/settings`
  if (scopes === undefined) {
    const classic = current !== undefined && CLASSIC.test(flatten(current.fields).reveal())
    return classic ? `${settings}/tokens/new` : `${settings}/personal-access-tokens/new`
  }
  const query = new URLSearchParams({ scopes: scopes.join(',') }).toString()
  return `${settings}/tokens/new?${query.replaceAll('%2C', ',').replaceAll('%3A', ':')}`
}

/**
 * The user of the token; `undefined` for a dead token. Throws for an answer that proves
 * nothing about it.
 */
async function accountOf(
  config: Options,
  context: AdapterContext,
  token: Secret,
): Promise<Account | undefined> {
  const response = await github(config.baseUrl, token, context).ask('GET', '/user')
  if (response.status === 401) return undefined
  if (response.status !== 200)
    throw new AdapterError(
      'failed',
      `GitHub answered ${response.status}, which says nothing about the token`,
    )
  const { login } = answer(response, z.object({ login: z.string().regex(/^[\w-]{1,100}$/) }))
  return { login, scopes: scopesOf(response.headers), expiresAt: expiryIn(response.headers) }
}

/**
 * The date of expiry, such as `2026-12-31 23:59:59 UTC`. It was also seen with an offset.
 */
function expiryIn(headers: HttpResponse['headers']): number | undefined {
  const at = Date.parse(
    (headers['github-authentication-token-expiration'] ?? '')
      .replace(/ UTC$/, 'Z')
      .replace(' ', 'T')
      .replace(' ', ''),
  )
  return Number.isNaN(at) ? undefined : at
}

async function verifyToken(
  config: Options,
  context: AdapterContext,
  token: Secret,
  expect: 'live' | 'dead',
): Promise<Account> {
  for (let attempt = 0; ; attempt++) {
    const account = await accountOf(config, context, token)
    if (account !== undefined) return account
    const pause = SPREAD_MS[attempt]
    if (expect === 'dead' || pause === undefined)
      throw new AdapterError('refused', 'GitHub does not accept the token (401)', {
        details: { status: 401 },
      })
    await context.clock.sleep(pause, context.signal)
  }
}

/**
 * Throws `refused` where the new token can do less than the one it replaces. A note says
 * what can't be compared.
 */
async function compare(
  config: Options,
  context: AdapterContext,
  token: Secret,
  made: Account,
  replaced: Secret,
): Promise<void> {
  const old = token.equals(replaced) ? made : await accountOf(config, context, replaced)
  const user = config.user ?? old?.login
  if (user !== undefined && user.toLowerCase() !== made.login.toLowerCase())
    throw new AdapterError('refused', `the new token is one of ${made.login}, not of ${user}`, {
      hints: ['if that is meant, set "user"'],
    })
  checkLifetime(config, context, made)
  const wanted = config.scopes ?? old?.scopes
  if (made.scopes === undefined || wanted === undefined) {
    if (config.scopes !== undefined)
      throw new AdapterError(
        'refused',
        'the new token is fine-grained, but "scopes" wants a classic one',
      )
    const why =
      old === undefined
        ? 'the old one is not accepted any more'
        : 'a fine-grained token does not tell its own'
    context.note(
      `GitHub: the rights of the new token can not be compared with those of the old one: ${why}`,
    )
    return
  }
  const { scopes } = made
  const missing = wanted.filter((scope) => !scopes.some((has) => holds(has, scope)))
  const whose = config.scopes === undefined ? 'the old one has' : '"scopes" wants'
  if (missing.length > 0)
    throw new AdapterError(
      'refused',
      `the new token lacks scopes that ${whose}: ${missing.join(', ')}`,
      {
        hints: [
          'create one with them at ' +
            `${pageFor(config, undefined, { ...made, scopes: wanted })}; if fewer are enough, ` +
            'set "scopes"',
        ],
      },
    )
  const more = scopes.filter((scope) => !wanted.some((has) => holds(has, scope)))
  if (more.length > 0)
    context.note(`GitHub: the new token has scopes beyond those that ${whose}: ${more.join(', ')}`)
}

function checkLifetime(
  { minimumDays }: Options,
  context: AdapterContext,
  { expiresAt }: Account,
): void {
  if (expiresAt === undefined) return context.note('GitHub: the new token never expires by itself')
  const days = Math.floor((expiresAt - context.clock.now()) / DAY_MS)
  if (minimumDays !== undefined && days < minimumDays)
    throw new AdapterError(
      'refused',
      `the new token expires in ${days} days; "minimumDays" is ${minimumDays}`,
    )
  context.note(
    `GitHub: the new token expires on ${new Date(expiresAt).toISOString().slice(0, 10)}, in ` +
      `${days} days`,
  )
}

/** Whether one scope includes another. */
function holds(has: string, wanted: string): boolean {
  if (has === wanted || HOLDS[has]?.includes(wanted) === true) return true
  const [level, what] = has.split(':')
  const lower = level === 'admin' ? ['write', 'read'] : level === 'write' ? ['read'] : []
  return what !== undefined && lower.some((below) => `${below}:${what}` === wanted)
}

async function revoke(
  config: Options,
  context: AdapterContext,
  token: Secret,
  accepted: Secret | undefined,
): Promise<void> {
  if ((await accountOf(config, context, token)) === undefined) return
  const page = `${siteOf(config.baseUrl)}/settings/tokens`
  if (accepted === undefined || accepted.equals(token))
    throw new AdapterError(
      'failed',
      `a person made this token, and no other one is in its place; GitHub still accepts it`,
      {
        hints: [`if nothing uses it, delete it at ${page}; the next run-due sees that it is dead`],
        retryable: false,
      },
    )
  const byValue = REVOCABLE.test(token.reveal())
  const { status } = byValue
    ? await github(config.baseUrl, undefined, context).ask(
        'POST',
        '/credentials/revoke',
        { credentials: [token.reveal()] },
        'idempotent',
      )
    : { status: 0 }
  if (status < 200 || status >= 300)
    throw new AdapterError(
      'failed',
      byValue
        ? `GitHub answered ${status} and did not revoke the token`
        : 'GitHub revokes no token of this old form by its value',
      {
        hints: [`delete it at ${page}; the next run-due sees that it is dead`],
        retryable: false,
      },
    )
  for (const pause of DYING_MS) {
    if ((await accountOf(config, context, token)) === undefined) return
    await context.clock.sleep(pause, context.signal)
  }
}
