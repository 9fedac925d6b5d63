/**
 * OpenAI service-account keys through the admin API
 * (https://developers.openai.com/api/docs/guides/api-keys).
 *
 * With `serviceAccountId` each rotation makes another key of that account, so that
 * identity and limits stay. Without it, or where that call does not exist (404, 405),
 * each key gets a service account of its own, which is deleted together with the key.
 * Keys and accounts carry the tag of the intent as their name. The API has no idempotency
 * keys, so after a lost answer that name is looked for; the value is shown only once.
 * OpenAI may refuse to delete a single key of a service account (400, 403; its own
 * documentation contradicts itself). An account that was made for one key is deleted
 * instead of the key, and only while it holds no other key, because deleting an account
 * ends all of its keys.
 *
 * A proof lists the models with the key itself, which costs nothing: 200 or 403 (a
 * restricted key) means that the key is accepted, 401 that it is not, and anything else
 * proves nothing. A proof shows that the key lives, not what it may do. It counts as a
 * use, so the old key is not tried after it was replaced. A key opens what every other
 * key of its account opens, and none of those is touched.
 */
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import type { Handle, Intent } from '../core/model.ts'
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
import { type Api, api, listIn, objectIn, textIn } from '../net/json-api.ts'
import { throwIfInterrupted } from '../net/interrupt.ts'

const VENDOR = 'OpenAI'
const YEAR_S = 31_536_000
/**
 * Pauses in milliseconds, half a minute in all. How long a new key takes to be known
 * everywhere is not documented.
 */
const SPREAD_MS = [1000, 2000, 4000, 8000, 15_000]
/**
 * Pauses, in milliseconds, before an absent name counts as proof that nothing was made.
 */
const LOOK_MS = [1000, 3000]

const Config = z.strictObject({
  adminKey: secretField('Admin key (sk-admin-…) with the right to manage the project'),
  projectId: z
    .string()
    .regex(/^proj_[\w-]{1,80}$/, 'looks like proj_…')
    .meta({ description: 'Project; the default project takes no service accounts' }),
  serviceAccountId: z
    .string()
    .regex(/^[\w-]{1,100}$/, 'is not an id')
    .optional()
    .meta({
      description:
        'Service account that gets another key; without it each key has an account of its own',
    }),
  expiresInSeconds: z
    .int()
    .min(3600)
    .max(YEAR_S)
    .optional()
    .meta({
      description:
        'Life of a new key, more than interval and grace together; needed where the ' +
        'organization limits it',
    }),
  baseUrl: urlField('Of the API').default('https://api.openai.com/v1'),
})
type Options = z.output<typeof Config>

/** A key as the list of the project shows it. */
interface Key {
  readonly handle: Handle
  readonly lastUsed: number | undefined
  /** Beginning and end of its value, where they are shown. */
  readonly shown: readonly [string, string] | undefined
  readonly account: { readonly id: string; readonly name: string } | undefined
}

export default defineProvider({
  id: 'openai',
  title: 'OpenAI service-account keys',
  notes: [
    'A value does not carry the id of its key. When a key is adopted, beginning and end as ' +
      'OpenAI shows them must be those of the value.',
  ],
  example: { adminKey: { secret: 'infra/openai/ADMIN' }, projectId: 'proj_abc123' },
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
  secretType: 'api_key',
  permissions: () =>
    'A restricted admin key with "Organization Administration: Write" (api.management.write); ' +
    'nothing else.',
  open: (config, context) => Promise.resolve(openSession(config, context)),
})

function openSession(config: Options, context: AdapterContext): ProviderSession {
  const admin = api(VENDOR, config.baseUrl, config.adminKey, context)
  const project = `/organization/projects/${config.projectId}`
  const keys = (): Promise<readonly Key[]> => keysOf(admin, project)
  return {
    preflight: async () => {
      const accounts = await accountsOf(admin, project)
      const { serviceAccountId } = config
      if (serviceAccountId !== undefined && !accounts.some(({ id }) => id === serviceAccountId))
        throw new AdapterError(
          'misconfigured',
          `project ${config.projectId} has no service account ${serviceAccountId}`,
        )
    },
    list: async () => (await keys()).map(({ handle }) => handle),
    resembles: async ({ id }, fields) => {
      const [start, end] = (await keys()).find(({ handle }) => handle.id === id)?.shown ?? []
      const value = flatten(fields).reveal()
      return (
        start !== undefined && end !== undefined && value.startsWith(start) && value.endsWith(end)
      )
    },
    create: (intent) => create(config, context, admin, project, intent),
    settle: (intent) => settle(context, admin, project, intent),
    verify: (credential, expect) => verify(config, context, credential, expect),
    lastUsed: async ({ handle }) =>
      (await keys()).find((key) => key.handle.id === handle?.id)?.lastUsed,
    revoke: ({ handle }) => revoke(admin, project, handle),
    close: () => Promise.resolve(),
  }
}

async function create(
  config: Options,
  context: AdapterContext,
  admin: Api,
  project: string,
  intent: Intent,
): Promise<Issued> {
  throwIfInterrupted(context.signal, 'the key was made')
  const life =
    config.expiresInSeconds === undefined ? {} : { expires_in_seconds: config.expiresInSeconds }
  const body = { name: intent.tag, ...life }
  if (config.serviceAccountId !== undefined) {
    const path = `${project}/service_accounts/${encodeURIComponent(config.serviceAccountId)}/api_keys`
    try {
      return issuedFrom(await createOnce(admin, path, body))
    } catch (thrown) {
      const absent =
        thrown instanceof AdapterError && [404, 405].includes(Number(thrown.details['status']))
      if (!absent) throw thrown
      context.note(
        'OpenAI does not offer further keys for a service account here; the key gets an ' +
          'account of its own',
      )
    }
  }
  const { api_key: key } = await createOnce(admin, `${project}/service_accounts`, body)
  return issuedFrom(objectIn(key, VENDOR, 'unknown'))
}

/**
 * Sends a create once, without repetition. After a 2xx something exists, so an answer
 * that is no object has the effect `unknown`.
 */
async function createOnce(
  admin: Api,
  path: string,
  body: unknown,
): Promise<Readonly<Record<string, unknown>>> {
  return objectIn(await admin.call('POST', path, body, 'once'), VENDOR, 'unknown')
}

function issuedFrom(key: Readonly<Record<string, unknown>>): Issued {
  const { id, value, expires_at: expires } = key
  if (typeof id !== 'string' || typeof value !== 'string' || value === '')
    throw new AdapterError('bad-answer', `${VENDOR} answered without the new key's id and value`, {
      effect: 'unknown',
    })
  return {
    fields: single(new Secret(value)),
    handle: { id, live: true },
    ...(typeof expires === 'number' ? { expiresAt: expires * 1000 } : {}),
  }
}

/**
 * Looks for a key or an account with the name of the intent. Its value is never shown
 * again, so it is a stray. An account without a key counts too.
 */
async function settle(
  context: AdapterContext,
  admin: Api,
  project: string,
  intent: Intent,
): Promise<Settlement> {
  for (let attempt = 0; ; attempt++) {
    const known = new Set(intent.before.map(({ id }) => id))
    const made = (await keysOf(admin, project)).filter(
      ({ handle, account }) => handle.name === intent.tag || account?.name === intent.tag,
    )
    const found = made.filter(({ handle }) => !known.has(handle.id))
    // An account whose key is known is deleted together with that key, so it is never
    // called a stray.
    const bare = (await accountsOf(admin, project)).filter(
      ({ id, name }) =>
        name === intent.tag && !known.has(id) && !made.some(({ account }) => account?.id === id),
    )
    const handles = [
      ...found.map(({ handle }) => handle),
      ...bare.map(({ id, name }): Handle => ({ id, name, live: true })),
    ]
    if (handles.length > 0)
      return { outcome: 'stray', handles, detail: `found by its name ${intent.tag}` }
    const pause = LOOK_MS[attempt]
    if (pause === undefined) return { outcome: 'none', detail: `nothing is named ${intent.tag}` }
    await context.clock.sleep(pause, context.signal)
  }
}

/**
 * Tries the key by listing models, which costs nothing. A 403 means that the key is alive
 * and may not list them.
 */
async function verify(
  config: Options,
  context: AdapterContext,
  credential: Credential,
  expect: 'live' | 'dead',
): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    const { status } = await context.http.send({
      method: 'GET',
      url: `${config.baseUrl.replace(/\/$/, '')}/models`,
      headers: {
        authorization: `Bearer ${flatten(credential.fields).reveal()}`,
        accept: 'application/json',
      },
      effect: 'read',
      maxBytes: 8 * 1024 * 1024,
      signal: context.signal,
    })
    if ((status >= 200 && status < 300) || status === 403) return
    if (status !== 401)
      throw new AdapterError(
        status === 429 ? 'throttled' : 'unavailable',
        `${VENDOR} answered ${status}, which says nothing about the key`,
      )
    const pause = SPREAD_MS[attempt]
    if (expect === 'dead' || pause === undefined)
      throw new AdapterError('refused', `${VENDOR} does not accept the key (401)`, {
        details: { status },
      })
    await context.clock.sleep(pause, context.signal)
  }
}

async function revoke(admin: Api, project: string, handle: Handle | undefined): Promise<void> {
  if (handle === undefined)
    throw new AdapterError(
      'misconfigured',
      'the key has no id here; adopt it first: rotate adopt PATH --key-id ID',
    )
  const all = await keysOf(admin, project)
  const key = all.find((one) => one.handle.id === handle.id)
  const accounts = key === undefined ? await accountsOf(admin, project) : []
  if (key === undefined && !accounts.some(({ id }) => id === handle.id)) return
  const owner = key?.account?.id ?? handle.id
  // Deleting an account ends all its keys. So it is deleted only where it was made for
  // this one key (it is named after an intent) and nobody has given it another key.
  const others = all.filter((one) => one.account?.id === owner && one.handle.id !== handle.id)
  if (key === undefined && others.length > 0) throw alsoOthers(handle.id, others)
  if (others.length === 0 && (key === undefined || isOurs(key.account?.name)))
    return ignoreMissing(
      admin.call('DELETE', `${project}/service_accounts/${encodeURIComponent(owner)}`),
    )
  await ignoreMissing(
    admin.call('DELETE', `${project}/api_keys/${encodeURIComponent(handle.id)}`),
  ).catch((thrown: unknown) => {
    const refused =
      thrown instanceof AdapterError && [400, 403].includes(Number(thrown.details['status']))
    throw refused
      ? new AdapterError(
          'denied',
          `${VENDOR} does not let keys of a service account be deleted one by one; delete ` +
            `${handle.id} in the dashboard`,
          {
            retryable: false,
            hints: ['leave "serviceAccountId" out, so that each key has an account of its own'],
          },
        )
      : thrown
  })
}

function alsoOthers(account: string, keys: readonly Key[]): AdapterError {
  const ids = keys.map(({ handle }) => handle.id).join(', ')
  return new AdapterError(
    'denied',
    `the service account ${account} holds keys that are not recorded here (${ids}); ending ` +
      'it would end them too',
    {
      retryable: false,
      hints: ['delete those keys in the dashboard once nothing uses them, or the account by hand'],
    },
  )
}

function isOurs(name: string | undefined): boolean {
  return name !== undefined && /^rotate-[\w-]+$/.test(name)
}

async function ignoreMissing(call: Promise<unknown>): Promise<void> {
  try {
    await call
  } catch (thrown) {
    if (!(thrown instanceof AdapterError && thrown.code === 'missing')) throw thrown
  }
}

async function keysOf(admin: Api, project: string): Promise<readonly Key[]> {
  const rows = await pages(admin, `${project}/api_keys?limit=100&owner_project_access=any`)
  return rows.map((row) => {
    const { name, created_at: created, last_used_at: used, owner } = row
    const account = (
      owner as
        | { readonly service_account?: { readonly id?: unknown; readonly name?: unknown } }
        | undefined
    )?.service_account
    return {
      handle: {
        id: textIn(row, 'id', VENDOR),
        live: true,
        ...(typeof name === 'string' ? { name } : {}),
        ...(typeof created === 'number' ? { createdAt: created * 1000 } : {}),
      },
      lastUsed: typeof used === 'number' && used > 0 ? used * 1000 : undefined,
      shown: shownOf(row['redacted_value']),
      account:
        typeof account?.id === 'string'
          ? { id: account.id, name: typeof account.name === 'string' ? account.name : '' }
          : undefined,
    }
  })
}

/**
 * The shown parts of a value, such as `sk-abc...def`; `undefined` where less is shown,
 * because that could not tell keys apart.
 */
function shownOf(redacted: unknown): Key['shown'] {
  const [, start, end] =
    /^(sk-[\w-]*?)(?:\.{3,}|…|\*{3,})([\w-]{3,12})$/.exec(
      typeof redacted === 'string' ? redacted : '',
    ) ?? []
  return start === undefined || end === undefined ? undefined : [start, end]
}

async function accountsOf(
  admin: Api,
  project: string,
): Promise<readonly { readonly id: string; readonly name: string }[]> {
  const rows = await pages(admin, `${project}/service_accounts?limit=100`)
  return rows.map((row) => ({
    id: textIn(row, 'id', VENDOR),
    name: typeof row['name'] === 'string' ? row['name'] : '',
  }))
}

async function pages(
  admin: Api,
  path: string,
): Promise<readonly Readonly<Record<string, unknown>>[]> {
  const all: Readonly<Record<string, unknown>>[] = []
  for (let after = ''; ;) {
    const page = objectIn(
      await admin.call(
        'GET',
        `${path}${after === '' ? '' : `&after=${encodeURIComponent(after)}`}`,
      ),
      VENDOR,
    )
    all.push(...listIn(page['data'], VENDOR))
    const { has_more: more, last_id: last } = page
    if (more !== true || typeof last !== 'string' || last === after) return all
    after = last
  }
}
