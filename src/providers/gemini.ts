/**
 * Google API keys, of Gemini and others, through the API Keys API v2 (reference/providers.md 7a; https://cloud.google.com/api-keys/docs/reference/rest/v2/projects.locations.keys).
 *
 * The id of a new key is ours to choose, so it is that of the intent, and a lost answer is settled by getting that very key: its value can be read again. The new key
 * has the restrictions and the service account of the old one unless the configuration says otherwise; what differs is said and kept with the version. To delete is
 * reversible for thirty days, so the quarantine of an old key is its deletion, and a rollback undeletes it. Which key a value belongs to can only be asked with the value in
 * the URL, so it is not asked: a key that was stored by hand is adopted by its id.
 *
 * A key is tried by listing one model. https://ai.google.dev/gemini-api/docs/api-key: keys without restrictions are not accepted any more, and those bound to a service
 * account are to replace the others; the date is not certain.
 */
import { z } from 'zod'
import { DAY, MINUTE } from '../core/duration.ts'
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
import { fateUnknown, google, keyFileFault, readyToken, reasonsOf, serviceAccountTokens } from './_google.ts'
import { compared, deleteKey, find, type Key, listed, makeKey, type Project, type Scope, undeleteKey, valueOf } from './_google-keys.ts'

const GEMINI = 'generativelanguage.googleapis.com'
const PERMISSIONS = ['create', 'get', 'getKeyString', 'list', 'delete', 'undelete'].map((verb) => `apikeys.keys.${verb}`)
/** Pauses before an absent id means that nothing was made: the operation may go on after its answer was lost. */
const LOOK_MS = [1000, 2000, 4000, 8000, 16_000, 32_000]
/** Google names no figure for propagation; five minutes are reported for new keys and new restrictions. */
const SPREAD = { freshMs: 5 * MINUTE, knownMs: MINUTE, youngMs: 10 * MINUTE, calmPauseMs: 500, pauseMs: 5000, inARow: 3 } as const

const Config = z
  .strictObject({
    project: z
      .string()
      .regex(/^(?:[a-z][a-z0-9.:-]{4,80}[a-z0-9]|\d{6,20})$/, 'is not the id or number of a project')
      .meta({ description: 'Project that owns the keys, by id or number', examples: ['my-project-123'] }),
    credentials: secretField(
      'Key file (JSON) of a service account that may manage API keys, best as a reference to another secret',
    ).optional(),
    accessToken: secretField('Ready OAuth access token in its place; it lives for an hour and is not renewed').optional(),
    serviceAccountEmail: z
      .string()
      .regex(/^[\w.-]{1,100}@[\w.-]{1,150}\.gserviceaccount\.com$/, 'is not the e-mail address of a service account')
      .optional()
      .meta({ description: 'Service account to which a new key is bound; default: that of the old key' }),
    apiTargets: z
      .array(
        z
          .string()
          .regex(/^[a-z][a-z0-9.-]{2,100}\.[a-z]{2,20}$/, 'is not the name of a service, such as generativelanguage.googleapis.com'),
      )
      .min(1)
      .max(100)
      .optional()
      .meta({ description: `Services that a new key may call; default: those of the old key, or ${GEMINI} where it has no limit` }),
    baseUrl: urlField('Of the API Keys API').default('https://apikeys.googleapis.com/v2'),
    geminiUrl: urlField('Of the API with which a key is tried').default('https://generativelanguage.googleapis.com'),
    resourceManagerUrl: urlField('Of the API that says which permissions the caller has').default(
      'https://cloudresourcemanager.googleapis.com',
    ),
  })
  .superRefine(({ credentials, accessToken }, context) => {
    if ((credentials === undefined) === (accessToken === undefined))
      return context.addIssue({ code: 'custom', path: ['credentials'], message: 'is needed, or "accessToken" in its place, but not both' })
    // A reference is looked up later, and examined then.
    const fault = credentials instanceof Secret ? keyFileFault(credentials) : undefined
    if (fault !== undefined) context.addIssue({ code: 'custom', path: ['credentials'], message: fault })
  })
type Options = z.output<typeof Config>

/** A session's far side. */
interface Site extends Project {
  readonly config: Options
  /** Ids of keys that came to life in this session. */
  readonly fresh: Set<string>
}

const Held = z.looseObject({ permissions: z.array(z.string()).default([]) })

export default defineProvider({
  id: 'gemini',
  title: 'Google API keys (Gemini)',
  aliases: ['google-api-key'],
  config: Config,
  traits: () => ({
    mints: 'service',
    overlap: 'two-live',
    // There is a quota per project, but which one is not documented: Google says when it is reached.
    maxLive: Number.POSITIVE_INFINITY,
    fields: ['value'],
    idempotency: 'named',
    revoke: 'delete',
    suspend: true,
    lastUsed: false,
  }),
  secretType: 'api_key',
  permissions: ({ project }) =>
    [
      `gcloud iam roles create rotateApiKeys --project=${project} --permissions=${PERMISSIONS.join(',')},serviceusage.operations.get`,
      `gcloud projects add-iam-policy-binding ${project} --member=serviceAccount:EMAIL --role=projects/${project}/roles/rotateApiKeys`,
    ].join('\n'),
  open: (config, context) => Promise.resolve(openSession(config, context)),
})

function openSession(config: Options, context: AdapterContext): ProviderSession {
  const { credentials, accessToken } = config
  const tokens = credentials === undefined ? accessToken && readyToken(accessToken) : serviceAccountTokens(credentials, context)
  if (tokens === undefined) throw new AdapterError('misconfigured', 'neither "credentials" nor "accessToken" is configured')
  const base = config.baseUrl.replace(/\/$/, '')
  const keys = `${base}/projects/${encodeURIComponent(config.project)}/locations/global/keys`
  const site: Site = { config, context, api: google(tokens, context), base, keys, fresh: new Set() }
  return {
    preflight: (current) => preflight(site, current),
    list: async () => (await listed(site, false)).map(({ handle }) => handle),
    resembles: async (handle, fields) =>
      (await find(site, handle.id)) !== undefined && (await valueOf(site, handle.id)).equals(flatten(fields)),
    create: (intent, current) => create(site, intent, current),
    settle: (intent, current) => settle(site, intent, current),
    verify: (credential, expect) => verify(site, credential, expect),
    suspend: (credential) => remove(site, credential, 'suspend'),
    resume: (credential) => undelete(site, credential),
    revoke: (credential) => remove(site, credential, 'revoke'),
    close: () => Promise.resolve(),
  }
}

/** Reads only. The value of the current key is compared, so that a wrong id that was adopted is found before the wrong key ends. */
async function preflight(site: Site, current: Credential | undefined): Promise<void> {
  await permitted(site)
  await listed(site, false)
  if (current === undefined) return
  const { handle } = current
  if (handle === undefined) {
    return site.context.note(
      `which key of ${site.config.project} the current value belongs to is not known here, so its restrictions can not be compared and it will not be deleted; to change that: rotate adopt ${site.context.path} --key-id ID`,
    )
  }
  const key = await find(site, handle.id)
  if (key === undefined || key.deleted)
    throw new AdapterError(
      'refused',
      `the stored current key ${handle.id} ${key === undefined ? 'does not exist' : 'is deleted'} in project ${site.config.project}`,
      {
        hints: [
          key === undefined
            ? 'correct "project", or store the key that is in use now with "rotate set"'
            : 'undelete it, or store the key that is in use now with "rotate set"',
        ],
      },
    )
  await sameValue(site, key, current)
}

/** Google says which rights the caller has, where that API is enabled; where it is not, the reads that follow find out about the others. */
async function permitted(site: Site): Promise<void> {
  const { resourceManagerUrl, project } = site.config
  const url = `${resourceManagerUrl.replace(/\/$/, '')}/v1/projects/${encodeURIComponent(project)}:testIamPermissions`
  let answer: unknown
  try {
    answer = await site.api.call('POST', url, { permissions: PERMISSIONS }, 'read')
  } catch (thrown) {
    if (!(thrown instanceof AdapterError) || thrown.details['status'] === undefined || thrown.details['status'] === 401) throw thrown
    return site.context.note(`whether the caller may make and delete keys could not be asked (${thrown.message})`)
  }
  const held = Held.safeParse(answer).data?.permissions ?? []
  const missing = PERMISSIONS.filter((permission) => !held.includes(permission))
  if (missing.length > 0)
    throw new AdapterError('denied', `the caller lacks ${missing.join(', ')} in project ${project}`, {
      hints: ['a role with the rights that are needed is in: rotate provider test PATH; roles/serviceusage.apiKeysAdmin has them all'],
      details: { missing },
    })
}

async function sameValue(site: Site, { handle }: Key, { fields }: Credential): Promise<void> {
  if (Object.keys(fields).length === 0 || (await valueOf(site, handle.id)).equals(flatten(fields))) return
  throw new AdapterError(
    'misconfigured',
    `the key ${handle.id} of project ${site.config.project} has another value than the one stored here`,
    {
      hints: [`adopt the key that has it: rotate adopt ${site.context.path} --key-id ID`],
    },
  )
}

/** Sent once, under the id of the intent. `quota`, `denied`, `throttled`, or a refusal that Google gives a code: nothing was made. Else unknown: ask `settle`. */
async function create(site: Site, intent: Intent, current: Credential | undefined): Promise<Issued> {
  const { config, context } = site
  if (context.signal.aborted) throw new AdapterError('failed', 'interrupted before the key was made', { retryable: false })
  const id = idFor(intent)
  const old = await replaced(site, current)
  const wanted = wantedScope(config, old)
  let made: Handle
  try {
    made = await makeKey(site, id, wanted)
  } catch (thrown) {
    throw await explained(site, thrown, wanted)
  }
  return issued(site, made.id, old)
}

/** Also the end of a settlement: the key exists, and its value can be read as often as needed. */
async function issued(site: Site, id: string, old: Key | undefined): Promise<Issued> {
  const value = await fateUnknown(valueOf(site, id))
  site.fresh.add(id)
  // What the key may do is what Google says it may, not what was asked for. That it can't be read now is no reason to lose the key.
  const key = await find(site, id).catch(() => undefined)
  const differences = key === undefined || old === undefined ? [] : compared(old, key)
  for (const difference of differences) site.context.note(`the new key ${id} differs from the old one: ${difference}`)
  if (key === undefined) site.context.note(`what the new key ${id} may do could not be read, so it was not compared with the old one`)
  const scope =
    key === undefined || old === undefined
      ? 'not compared'
      : differences.length === 0
        ? 'as the old key'
        : differences.join('; ').slice(0, 500)
  return { fields: single(value), handle: key?.handle ?? { id, live: true }, metadata: { scope } }
}

/** The key whose place the new one takes, where it is known. */
async function replaced(site: Site, current: Credential | undefined): Promise<Key | undefined> {
  return current?.handle === undefined ? undefined : find(site, current.handle.id)
}

/** At most 63 characters of a-z, 0-9 and hyphens; a tag is unique in any case, so no two of them become the same. */
function idFor({ tag }: Intent): string {
  const id = tag.toLowerCase()
  if (!/^[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?$/.test(id))
    throw new AdapterError('failed', 'the mark of this attempt can not be the id of a key', { retryable: false })
  return id
}

function wantedScope({ apiTargets, serviceAccountEmail }: Options, old: Key | undefined): Scope {
  const email = serviceAccountEmail ?? old?.serviceAccountEmail
  const { apiTargets: before, ...rest } = old?.restrictions ?? {}
  const unlimited = !Array.isArray(before) || before.length === 0
  const services = apiTargets ?? (unlimited ? [GEMINI] : undefined)
  const targets = services === undefined ? before : services.map((service) => ({ service }))
  return { restrictions: { ...rest, apiTargets: targets }, serviceAccountEmail: email }
}

/** What a refused create means for the operator. */
async function explained(site: Site, thrown: unknown, wanted: Scope): Promise<unknown> {
  if (!(thrown instanceof AdapterError)) return thrown
  const { code, message, effect, details } = thrown
  if (code === 'quota') return full(site, message)
  if (details['status'] !== 400 || effect !== 'none') return thrown
  const bound =
    wanted.serviceAccountEmail === undefined ? [] : ['the policy of the organization may forbid keys that are bound to a service account']
  return new AdapterError('misconfigured', `${message}: the key was not made`, {
    details,
    hints: [...bound, 'check "apiTargets" and "serviceAccountEmail"'],
  })
}

/** `quota`, with what helps to decide which key may go. */
async function full(site: Site, message: string): Promise<AdapterError> {
  const keys = await listed(site, false).catch(() => [])
  const age = ({ createdAt }: Handle): string =>
    createdAt === undefined ? 'age unknown' : `${Math.floor((site.context.clock.now() - createdAt) / DAY)} days old`
  const oldest = keys.map(({ handle }) => handle).toSorted((a, b) => (a.createdAt ?? 0) - (b.createdAt ?? 0))
  const named = oldest.slice(0, 5).map((handle) => `${handle.id} (${age(handle)})`)
  const which = named.length === 0 ? '' : `; project ${site.config.project} has ${keys.length} keys, the oldest are ${named.join(', ')}`
  return new AdapterError('quota', `${message}${which}`, {
    hints: ['delete keys that nothing uses (deleted ones may count for thirty days), or ask Google for more'],
  })
}

/** Gets the very key that the intent names. A deleted one is a stray: there is nothing that it could be used for. */
async function settle(site: Site, intent: Intent, current: Credential | undefined): Promise<Settlement> {
  const id = idFor(intent)
  for (let attempt = 0; ; attempt++) {
    const key = await find(site, id)
    if (key !== undefined) return settled(site, intent, key, await replaced(site, current).catch(() => undefined))
    const pause = LOOK_MS[attempt]
    if (pause === undefined) return { outcome: 'none', detail: `there is no key ${id}` }
    await site.context.clock.sleep(pause, site.context.signal)
  }
}

async function settled(site: Site, intent: Intent, key: Key, old: Key | undefined): Promise<Settlement> {
  const { handle, deleted } = key
  if (intent.before.some(({ id }) => id === handle.id))
    return { outcome: 'ambiguous', candidates: [handle], detail: `the key ${handle.id} existed before the create` }
  if (deleted) return { outcome: 'stray', handles: [handle], detail: `the key ${handle.id} was made, and is deleted` }
  try {
    return { outcome: 'applied', issued: await issued(site, handle.id, old), detail: `the key ${handle.id} was made` }
  } catch (thrown) {
    if (!(thrown instanceof AdapterError) || (thrown.code !== 'denied' && thrown.code !== 'missing')) throw thrown
    return {
      outcome: 'stray',
      handles: [handle],
      detail: `the key ${handle.id} was made, and its value can not be read: ${thrown.message}`,
    }
  }
}

/** Steady answers count, not single ones. See `ProviderSession`. */
async function verify(site: Site, credential: Credential, expect: 'live' | 'dead'): Promise<void> {
  const { clock, signal, note } = site.context
  const { handle, fields } = credential
  if (Object.keys(fields).length === 0) return verifyById(site, handle, expect)
  const young = handle !== undefined && (site.fresh.has(handle.id) || clock.now() - (handle.createdAt ?? 0) < SPREAD.youngMs)
  const deadline = clock.monotonic() + (expect === 'live' && young ? SPREAD.freshMs : SPREAD.knownMs)
  let inARow = 0
  let waited = false
  for (;;) {
    const answer = await ask(site, credential)
    // By its restrictions it may not do this: it lives, and that is all that can be known.
    if (answer === 'blocked' && expect === 'live' && !(await mayCallGemini(site, handle))) return
    const alive = answer !== 'dead'
    inARow = (expect === 'live' ? answer === 'live' : !alive) ? inARow + 1 : 0
    if (inARow === SPREAD.inARow || clock.monotonic() + SPREAD.pauseMs > deadline) {
      if (answer === 'blocked' && expect === 'live')
        throw new AdapterError(
          'failed',
          'Google knows the key but does not let it call the Gemini API, although its restrictions allow that',
          { retryable: false },
        )
      if (alive) return
      throw new AdapterError('refused', 'Google does not accept the key')
    }
    if (inARow === 0 && !waited) {
      waited = true
      note(`waiting until Google ${expect === 'live' ? 'accepts the key' : 'refuses the deleted key'} everywhere`)
    }
    await clock.sleep(inARow === 0 ? SPREAD.pauseMs : SPREAD.calmPauseMs, signal)
  }
}

/** A key without its value can only be looked up. */
async function verifyById(site: Site, handle: Handle | undefined, expect: 'live' | 'dead'): Promise<void> {
  if (handle === undefined || expect === 'live')
    throw new AdapterError('misconfigured', "the key's value is not known, so it can't be tried")
  const key = await find(site, handle.id)
  if (key === undefined || key.deleted) throw new AdapterError('refused', `the key ${handle.id} is deleted`)
}

async function mayCallGemini(site: Site, handle: Handle | undefined): Promise<boolean> {
  const targets = handle === undefined ? undefined : (await find(site, handle.id))?.restrictions['apiTargets']
  return JSON.stringify(targets ?? []).includes(`"${GEMINI}"`)
}

/**
 * One call of the key. `dead`: it is not known. `blocked`: it is known, and its restrictions do not let it do this from here. Anything else that is not a success says
 * nothing about the key and throws. Among it is a 401 that names the kind of token, which keys bound to a service account are reported to get while they live.
 */
async function ask(site: Site, { fields }: Credential): Promise<'live' | 'blocked' | 'dead'> {
  const { context, config } = site
  const value = flatten(fields)
  if (!value.isText() || !/^[\w.-]{1,500}$/.test(value.reveal())) throw new AdapterError('refused', 'the value is no API key of Google')
  const response = await context.http.send({
    method: 'GET',
    url: `${config.geminiUrl.replace(/\/$/, '')}/v1beta/models?pageSize=1`,
    headers: { 'x-goog-api-key': value.reveal(), accept: 'application/json' },
    effect: 'read',
    signal: context.signal,
  })
  const { status, reasons } = reasonsOf(response)
  if (status >= 200 && status < 300) return 'live'
  if (status === 400 && reasons.includes('API_KEY_INVALID')) return 'dead'
  if (status === 401 && !reasons.includes('ACCESS_TOKEN_TYPE_UNSUPPORTED')) return 'dead'
  if (status === 403 && reasons.some((reason) => /^API_KEY_\w+_BLOCKED$/.test(reason))) return 'blocked'
  const code = status === 429 ? 'throttled' : status >= 500 ? 'unavailable' : 'failed'
  const disabled = reasons.includes('SERVICE_DISABLED') ? ['enable the Gemini API in the project'] : []
  throw new AdapterError(code, `Google answered ${[status, ...reasons].join(' ')}, which says nothing about the key`, { hints: disabled })
}

/** Idempotent: a deleted key stays deleted. Only a key whose value is the one stored here, or that was found by the id of an intent, is touched. */
async function remove(site: Site, credential: Credential, why: 'suspend' | 'revoke'): Promise<void> {
  const id = idOf(site, credential)
  const key = await find(site, id)
  if (key === undefined && why === 'suspend') throw new AdapterError('missing', `there is no key ${id}`)
  if (key === undefined || key.deleted) return
  await sameValue(site, key, credential)
  await deleteKey(site, id)
  site.fresh.delete(id)
}

async function undelete(site: Site, credential: Credential): Promise<void> {
  const id = idOf(site, credential)
  const key = await find(site, id)
  if (key === undefined) throw new AdapterError('missing', `there is no key ${id}; Google keeps a deleted one for thirty days`)
  if (key.deleted) await undeleteKey(site, id)
  site.fresh.add(id)
}

function idOf({ context }: Site, { handle }: Credential): string {
  if (handle !== undefined) return handle.id
  throw new AdapterError('misconfigured', `the key has no id here; adopt it first: rotate adopt ${context.path} --key-id ID`)
}
