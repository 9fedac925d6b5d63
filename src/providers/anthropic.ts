/**
 * API keys of the Claude API (https://platform.claude.com/docs/en/api/admin/api_keys).
 *
 * The Admin API can neither make nor delete keys. So a person makes each key in the
 * Console and hands it over. The rest is automatic: the new key is tried and delivered,
 * and the old one is set to `inactive` after its grace (which can be undone, so this is
 * the quarantine) and to `archived` after that (which is believed to be final; this was
 * not tested). The API shows the beginning and the end of each value, and by these a
 * stored value is matched with its key. Where two keys look alike, none is touched until
 * the operator adopts one by its id.
 *
 * A proof lists one model with the key itself, which costs nothing: 200 or 403 (no right
 * to list models) means that the key is accepted, 401 that it is not, and anything else
 * proves nothing. A proof shows that the key lives, not what it may do. Ending a key ends
 * only this one; the workspace and its other keys go on. Nothing is created here, so a
 * call that was given up can't make a key later.
 */
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import type { Handle } from '../core/model.ts'
import type { HttpRequest } from '../core/ports.ts'
import {
  type AdapterContext,
  type Credential,
  defineProvider,
  type ProviderSession,
} from '../core/provider.ts'
import { secretField, urlField } from '../core/schema.ts'
import { type Fields, flatten, type Secret } from '../core/secret.ts'
import { parseObject } from '../net/json.ts'
import { retryAfterMs } from '../net/retry.ts'
import { pickDefined } from '../core/defined.ts'
import { withJson } from '../net/json-api.ts'

const VENDOR = 'Anthropic'
const CONSOLE = 'https://platform.claude.com/settings/keys'
const PAGE = 100
const KEY = /^sk-ant-(?!admin)[\w-]{20,250}$/
/**
 * Pauses in milliseconds, half a minute in all. How long a change takes to be known
 * everywhere is not documented.
 */
const SPREAD_MS = [1000, 2000, 4000, 8000, 15_000]

const Config = z.strictObject({
  adminKey: secretField('Admin key (sk-ant-admin…) of the organization; it switches old keys off'),
  workspaceId: z
    .string()
    .regex(/^wrkspc_\w{1,80}$/, 'looks like wrkspc_…')
    .optional()
    .meta({ description: 'Workspace of the keys; default: all of the organization' }),
  baseUrl: urlField('Of the API').default('https://api.anthropic.com'),
})
type Options = z.output<typeof Config>

const Key = z.looseObject({
  id: z.string().regex(/^[\w-]{1,100}$/),
  name: z.string().default(''),
  status: z.string(),
  created_at: z.string().optional(),
  partial_key_hint: z.string().nullish(),
})
type Key = z.output<typeof Key>
const Page = z.looseObject({
  data: z.array(Key),
  has_more: z.boolean().default(false),
  last_id: z.string().nullish(),
})

interface Site {
  readonly config: Options
  readonly context: AdapterContext
}

export default defineProvider({
  id: 'anthropic',
  title: 'Claude API keys, made by a person and ended here',
  notes: [
    'The Admin API makes no keys and deletes none: a person makes each in the Console and ' +
      'hands it over with rotate now PATH -.',
    'The old one is switched off when its grace ends, and archived after its quarantine.',
  ],
  example: { adminKey: { secret: 'infra/anthropic/ADMIN' } },
  config: Config,
  traits: () => ({
    mints: 'person',
    overlap: 'two-live',
    maxLive: Number.POSITIVE_INFINITY,
    fields: ['value'],
    idempotency: 'none',
    revoke: 'assisted',
    suspend: true,
    lastUsed: false,
    settlesAfterMs: 0,
  }),
  secretType: 'api_key',
  permissions: () =>
    'An admin key, made by an administrator of the organization at ' +
    `${CONSOLE.replace('keys', 'admin-keys')}; there are none with fewer rights.`,
  open: (config, context) => Promise.resolve(openSession({ config, context })),
})

function openSession(site: Site): ProviderSession {
  const byHand = (): Promise<never> =>
    Promise.reject(
      new AdapterError(
        'by-hand',
        `${VENDOR} lets no key make another one: the new key of ${site.context.path} has to ` +
          'be made by a person',
        {
          hints: [
            `create it at ${CONSOLE} in the same workspace (leave the old one alive), then: ` +
              `rotate now ${site.context.path} - and paste it, or pipe it into that`,
          ],
        },
      ),
    )
  return {
    preflight: byHand,
    create: byHand,
    settle: () =>
      Promise.resolve({
        outcome: 'none' as const,
        detail: `a key of ${VENDOR} is never made here`,
      }),
    list: async () =>
      (await keysOf(site))
        .filter(({ status }) => status === 'active' || status === 'inactive')
        .map(handleFrom),
    resembles: async ({ id }, fields) => {
      const key = (await keysOf(site)).find((one) => one.id === id)
      return key !== undefined && fits(key, fields)
    },
    verify: (credential, expect) => verify(site, credential.fields, expect),
    suspend: async (credential) => {
      const key = await keyOf(site, credential)
      if (key === undefined) throw new AdapterError('missing', 'there is no such key')
      if (key.status === 'active') await setStatus(site, key, 'inactive')
    },
    resume: async (credential) => {
      const key = await keyOf(site, credential)
      if (key === undefined || key.status === 'archived')
        throw new AdapterError('missing', 'there is no such key any more')
      if (key.status !== 'active') await setStatus(site, key, 'active')
    },
    revoke: async (credential) => {
      const key = await keyOf(site, credential)
      if (key !== undefined && key.status !== 'archived') await setStatus(site, key, 'archived')
    },
    close: () => Promise.resolve(),
  }
}

async function call(
  { config, context }: Site,
  key: Secret,
  method: HttpRequest['method'],
  path: string,
  body?: unknown,
) {
  return context.http.send({
    method,
    url: `${config.baseUrl.replace(/\/$/, '')}${path}`,
    ...withJson(
      {
        'x-api-key': key.reveal(),
        'anthropic-version': '2023-06-01',
        accept: 'application/json',
      },
      body,
    ),
    effect: method === 'GET' ? 'read' : 'idempotent',
    maxBytes: 8 * 1024 * 1024,
    signal: context.signal,
  })
}

/**
 * Calls the Admin API and returns the parsed body of a 2xx. Bodies are never quoted in
 * errors.
 */
async function admin(
  site: Site,
  method: HttpRequest['method'],
  path: string,
  body?: unknown,
): Promise<unknown> {
  const response = await call(site, site.config.adminKey, method, path, body)
  const { status, headers } = response
  if (status >= 200 && status < 300)
    return parseObject(response.body.isText() ? response.body.reveal() : '')
  const message = `${VENDOR} answered ${status}`
  const effect = method === 'GET' ? 'none' : 'unknown'
  const wait = retryAfterMs(headers['retry-after'], site.context.clock.now())
  if (status === 429)
    throw new AdapterError('throttled', message, wait === undefined ? {} : { retryAfterMs: wait })
  // This includes 529, by which Anthropic says that it is overloaded.
  if (status >= 500) throw new AdapterError('unavailable', message, { effect })
  if (status === 401 || status === 403)
    throw new AdapterError(
      'denied',
      `${message}: the admin key is not accepted, or may not do this`,
      {
        hints: ['check "adminKey"'],
        details: { status },
      },
    )
  if (status === 404) throw new AdapterError('missing', message, { details: { status } })
  throw new AdapterError('failed', message, { retryable: false, details: { status } })
}

function handleFrom({ id, name, status, created_at: created }: Key): Handle {
  const at = Date.parse(created ?? '')
  return { id, name, live: status === 'active', ...(Number.isNaN(at) ? {} : { createdAt: at }) }
}

async function keysOf(site: Site): Promise<readonly Key[]> {
  const { workspaceId } = site.config
  const all: Key[] = []
  for (let after: string | undefined; ;) {
    const query = new URLSearchParams({
      limit: String(PAGE),
      ...pickDefined({ workspace_id: workspaceId, after_id: after }),
    })
    const page = Page.safeParse(
      await admin(site, 'GET', `/v1/organizations/api_keys?${query.toString()}`),
    )
    if (!page.success)
      throw new AdapterError('bad-answer', `${VENDOR} answered in another shape than promised`)
    all.push(...page.data.data)
    if (!page.data.has_more) return all
    const next = page.data.last_id ?? undefined
    if (next === undefined || next === after)
      throw new AdapterError(
        'bad-answer',
        `${VENDOR} answered with a page of keys that leads nowhere`,
      )
    after = next
  }
}

/**
 * Whether the shown parts of the key, such as `sk-ant-api03-R2D...igAA`, are the
 * beginning and the end of this value.
 */
function fits({ partial_key_hint: hint }: Key, fields: Fields): boolean {
  const [start, end, more] = (hint ?? '').split(/\.{3}|…/)
  if (
    start === undefined ||
    end === undefined ||
    more !== undefined ||
    start.length < 8 ||
    end.length < 4 ||
    Object.keys(fields).length === 0
  )
    return false
  const value = flatten(fields).reveal()
  return value.length > start.length + end.length && value.startsWith(start) && value.endsWith(end)
}

/**
 * The key with the recorded id, or else the only one that looks like the value;
 * `undefined` where there is none. Throws `misconfigured` where several look like it.
 */
async function keyOf(site: Site, { handle, fields }: Credential): Promise<Key | undefined> {
  const keys = await keysOf(site)
  if (handle !== undefined) return keys.find(({ id }) => id === handle.id)
  const [key, ...others] = keys.filter((one) => fits(one, fields))
  if (others.length === 0) return key
  throw new AdapterError(
    'misconfigured',
    `${others.length + 1} keys of ${VENDOR} look like this one, so none is touched`,
    {
      hints: [
        `say which it is: rotate adopt ${site.context.path} --key-id ID, with one of ` +
          `${[key, ...others].map((one) => one?.id).join(', ')}`,
      ],
    },
  )
}

async function setStatus(
  site: Site,
  { id }: Key,
  status: 'active' | 'inactive' | 'archived',
): Promise<void> {
  const answer = Key.safeParse(
    await admin(site, 'POST', `/v1/organizations/api_keys/${encodeURIComponent(id)}`, { status }),
  )
  if (!answer.success || answer.data.status !== status)
    throw new AdapterError('bad-answer', `${VENDOR} did not say that the key is ${status}`, {
      effect: 'unknown',
    })
}

/**
 * Tries the key by listing models, which costs nothing. A key that may not list models is
 * alive.
 */
async function verify(site: Site, fields: Fields, expect: 'live' | 'dead'): Promise<void> {
  const key = flatten(fields)
  if (!key.isText() || !KEY.test(key.reveal()))
    throw new AdapterError('refused', `the value is no API key of ${VENDOR} (sk-ant-api…)`)
  for (let attempt = 0; ; attempt++) {
    const { status } = await call(site, key, 'GET', '/v1/models?limit=1')
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
    await site.context.clock.sleep(pause, site.context.signal)
  }
}
