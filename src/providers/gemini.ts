/**
 * Google API keys, of Gemini and other services, through the API Keys API v2
 * (https://cloud.google.com/api-keys/docs/reference/rest/v2/projects.locations.keys).
 *
 * - The caller chooses the id of a new key, so it is the tag of the intent. After a lost
 *   answer, or a 409 to a repeated create, that very key is read; its value can be read
 *   again at any time.
 * - The new key gets the restrictions and the service account of the old one, unless the
 *   configuration says otherwise. Differences are reported and kept with the version.
 *   According to https://ai.google.dev/gemini-api/docs/api-key keys without restrictions
 *   are not accepted any more, and keys that are bound to a service account will replace
 *   the others (their date is UNVERIFIED). So `apiTargets` is never empty.
 * - Google can't switch a key off, but it keeps a deleted key for thirty days. So
 *   `suspend` deletes, `resume` undeletes, and `revoke` finds the key deleted and leaves
 *   it so. As a consequence the value is refused from the beginning of the quarantine on,
 *   not from its end. A rollback can bring the key back for thirty days from that
 *   beginning and no longer, whatever the quarantine is. Until then whoever has
 *   `apikeys.keys.undelete` can also bring back a version that counts as revoked, because
 *   nobody can purge a key sooner. `list` leaves deleted keys out: for the engine's proof
 *   that a key is dead they are gone.
 * - The key that a value belongs to could be asked for only with the value in the URL
 *   (`keys:lookupKey`), so this is never done. A key that was stored by hand is adopted
 *   by its id.
 * - Google does not say when a key was last used.
 * - A proof lists one model with the key itself (_google-probe.ts). Ending a key ends
 *   only this one: the service account to which it is bound and the other keys of the
 *   project go on.
 *
 * This was tested against a stand-in for Google only (test/fakes/google.ts), never
 * against Google.
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
import { awaitDeath, awaitLife, GEMINI, type KeyFacts } from './_google-probe.ts'
import {
  compared,
  type Key,
  readNewValue,
  retryWhileMissing,
  type ProjectKeys,
  projectKeys,
  type Scope,
} from './_google-keys.ts'
import { type Google, google, keyFileFault, readyToken, serviceAccountTokens } from './_google.ts'
import { pickDefined } from '../core/defined.ts'

/**
 * The permissions of the calls that are made here
 * (https://cloud.google.com/api-keys/docs/access-control); the last one is for reading
 * operations.
 */
const PERMISSIONS = [
  ...['create', 'get', 'getKeyString', 'list', 'delete', 'undelete'].map(
    (verb) => `apikeys.keys.${verb}`,
  ),
  'serviceusage.operations.get',
]
/**
 * The permission on the service account to which keys are bound
 * (https://ai.google.dev/gemini-api/docs/api-key). Whether a custom role may contain it
 * is UNVERIFIED.
 */
const BINDING = 'iam.serviceAccountApiKeyBindings.create'
/**
 * Pauses, in milliseconds, before an absent id counts as proof that nothing was made: the
 * operation may go on after its answer was lost.
 */
const LOOK_MS = [1000, 2000, 4000, 8000, 16_000, 32_000]
/**
 * Pauses, in milliseconds, before a key that was made is believed to have no readable
 * value.
 */
const VALUE_MS = [1000, 2000, 4000, 8000]
/**
 * How long a create that was given up may still take effect: its operation goes on when
 * nobody follows it. Operations on API keys take seconds.
 */
const SETTLES_AFTER_MS = 2 * MINUTE
/**
 * The largest assumed difference between the clock of Google, which dates keys, and the
 * clock of this machine.
 */
const CLOCK_SKEW_MS = 5 * MINUTE
/** How long a key counts as new, that is, possibly not known everywhere. */
const YOUNG_MS = 10 * MINUTE

const Config = z
  .strictObject({
    project: z
      .string()
      .regex(
        /^(?:[a-z][a-z0-9.:-]{4,80}[a-z0-9]|\d{6,20})$/,
        'is not the id or number of a project',
      )
      .meta({
        description: 'Project that owns the keys, by id or number',
        examples: ['my-project-123'],
      }),
    credentials: secretField(
      'Key file (JSON) of a service account that may manage API keys, best as a reference to ' +
        'another secret',
    ).optional(),
    accessToken: secretField(
      'Ready OAuth access token in its place; it lives for an hour and is not renewed',
    ).optional(),
    serviceAccountEmail: z
      .string()
      .regex(
        /^[\w.-]{1,100}@[\w.-]{1,150}\.gserviceaccount\.com$/,
        'is not the e-mail address of a service account',
      )
      .optional()
      .meta({
        description: 'Service account to which a new key is bound; default: that of the old key',
      }),
    apiTargets: z
      .array(
        z
          .string()
          .regex(
            /^[a-z][a-z0-9.-]{2,100}\.[a-z]{2,20}$/,
            'is not the name of a service, such as generativelanguage.googleapis.com',
          ),
      )
      .min(1)
      .max(100)
      .optional()
      .meta({
        description:
          `Services that a new key may call; default: those of the old key, or ${GEMINI} ` +
          'where it has no limit',
      }),
    baseUrl: urlField('Of the API Keys API').default('https://apikeys.googleapis.com/v2'),
    geminiUrl: urlField('Of the API with which a key is tried').default(
      'https://generativelanguage.googleapis.com',
    ),
    resourceManagerUrl: urlField('Of the API that says which permissions the caller has').default(
      'https://cloudresourcemanager.googleapis.com',
    ),
  })
  .superRefine(({ credentials, accessToken }, context) => {
    if ((credentials === undefined) === (accessToken === undefined))
      return context.addIssue({
        code: 'custom',
        path: ['credentials'],
        message: 'is needed, or "accessToken" in its place, but not both',
      })
    // A reference to another secret is resolved later, and checked then.
    const fault = credentials instanceof Secret ? keyFileFault(credentials) : undefined
    if (fault !== undefined)
      context.addIssue({ code: 'custom', path: ['credentials'], message: fault })
  })
type Options = z.output<typeof Config>

const Held = z.looseObject({ permissions: z.array(z.string()).default([]) })

/** What the functions of one session work with: the keys of one project. */
interface Site {
  readonly config: Options
  readonly context: AdapterContext
  readonly api: Google
  readonly keys: ProjectKeys
  /** Ids of the keys that were created or restored in this session. */
  readonly fresh: Set<string>
}

export default defineProvider({
  id: 'gemini',
  title: 'Google API keys (Gemini)',
  aliases: ['google-api-key'],
  notes: [
    "Google can't switch a key off, so its quarantine is Google's own deletion: the value is " +
      'refused from then on, Google undoes it for thirty days, and nobody can make it final ' +
      'sooner.',
    'A key that was stored by hand is ended only once its id is told: rotate adopt PATH ' +
      '--key-id ID.',
    'Tried against a counterpart only, never against Google.',
  ],
  example: { project: 'my-project', credentials: { secret: 'infra/google/KEY_ADMIN' } },
  config: Config,
  traits: () => ({
    mints: 'service',
    overlap: 'two-live',
    // There is a quota per project, but its size is not documented: Google refuses a
    // create when it is reached.
    maxLive: Number.POSITIVE_INFINITY,
    fields: ['value'],
    idempotency: 'named',
    revoke: 'delete',
    suspend: true,
    lastUsed: false,
    settlesAfterMs: SETTLES_AFTER_MS,
  }),
  secretType: 'api_key',
  permissions: ({ project, serviceAccountEmail }) => permissions(project, serviceAccountEmail),
  open: (config, context) => Promise.resolve(openSession(config, context)),
})

/**
 * The commands that give the caller the least rights. They define custom roles, because
 * the smallest role of Google that has all these permissions can also change every key.
 */
function permissions(project: string, serviceAccountEmail: string | undefined): string {
  const role = (id: string, rights: readonly string[]): string =>
    `gcloud iam roles create ${id} --project=${project} --permissions=${rights.join(',')}`
  const caller = '--member=serviceAccount:CALLER'
  return [
    role('rotateApiKeys', PERMISSIONS),
    `gcloud projects add-iam-policy-binding ${project} ${caller} ` +
      `--role=projects/${project}/roles/rotateApiKeys`,
    ...(serviceAccountEmail === undefined
      ? []
      : [
          role('rotateApiKeyBinding', [BINDING]),
          `gcloud iam service-accounts add-iam-policy-binding ${serviceAccountEmail} ` +
            `${caller} --role=projects/${project}/roles/rotateApiKeyBinding`,
        ]),
  ].join('\n')
}

function openSession(config: Options, context: AdapterContext): ProviderSession {
  const { credentials, accessToken, project } = config
  const tokens =
    credentials === undefined
      ? accessToken && readyToken(accessToken)
      : serviceAccountTokens(credentials, context)
  if (tokens === undefined)
    throw new AdapterError('misconfigured', 'neither "credentials" nor "accessToken" is configured')
  const api = google(tokens, context)
  const site: Site = {
    config,
    context,
    api,
    keys: projectKeys(api, config.baseUrl, project, context),
    fresh: new Set(),
  }
  return {
    preflight: (current) => preflight(site, current),
    list: async () => (await site.keys.list(false)).map(({ handle }) => handle),
    resembles: async ({ id }, fields) =>
      (await site.keys.find(id)) !== undefined &&
      (await site.keys.value(id)).equals(flatten(fields)),
    create: (intent, current) => create(site, intent, current),
    settle: (intent, current) => settle(site, intent, current),
    verify: (credential, expect) => verify(site, credential, expect),
    suspend: (credential) => remove(site, credential, 'suspend'),
    resume: (credential) => undelete(site, credential),
    revoke: (credential) => remove(site, credential, 'revoke'),
    close: () => Promise.resolve(),
  }
}

/**
 * Reads only. The value of the current key is compared with the stored one, so that a
 * wrongly adopted id is noticed before the wrong key is ended.
 */
async function preflight(site: Site, current: Credential | undefined): Promise<void> {
  const { config, context, keys } = site
  await checkPermissions(site)
  await keys.list(false)
  if (current === undefined) return
  const { handle } = current
  if (handle === undefined) {
    return context.note(
      `which key of ${config.project} the current value belongs to is not known here, so its ` +
        'restrictions can not be compared and it will not be deleted; to change that: rotate ' +
        `adopt ${context.path} --key-id ID`,
    )
  }
  const key = await keys.find(handle.id)
  if (key === undefined)
    throw new AdapterError(
      'refused',
      `the stored current key ${handle.id} does not exist in project ${config.project}`,
      {
        hints: ['correct "project", or store the key that is in use now with "rotate set"'],
      },
    )
  if (key.deleted)
    throw new AdapterError(
      'refused',
      `the stored current key ${handle.id} is deleted in project ${config.project}`,
      {
        hints: ['undelete it, or store the key that is in use now with "rotate set"'],
      },
    )
  await mustHaveValue(site, key, current)
}

/**
 * Asks Google which permissions the caller has. Where the API for that is not enabled, a
 * note says so, and the reads that follow show whether some of the rights exist.
 * Permissions on single service accounts are not part of the answer. That the API accepts
 * a project by its number is UNVERIFIED.
 */
async function checkPermissions(site: Site): Promise<void> {
  const { resourceManagerUrl, project } = site.config
  const base = `${resourceManagerUrl.replace(/\/$/, '')}/v1/projects`
  const url = `${base}/${encodeURIComponent(project)}:testIamPermissions`
  let answer: unknown
  try {
    answer = await site.api.call('POST', url, { permissions: PERMISSIONS }, 'read')
  } catch (thrown) {
    if (!(thrown instanceof AdapterError) || thrown.details['reasons'] === undefined) throw thrown
    return site.context.note(
      `whether the caller may make and delete keys could not be asked (${thrown.message})`,
    )
  }
  const held = Held.safeParse(answer)
  if (!held.success)
    throw new AdapterError('bad-answer', 'Google does not say which permissions the caller has')
  const missing = PERMISSIONS.filter((permission) => !held.data.permissions.includes(permission))
  if (missing.length === 0) return
  throw new AdapterError('denied', `the caller lacks ${missing.join(', ')} in project ${project}`, {
    hints: [
      `a role with these rights is in: rotate provider test ${site.context.path}; ` +
        'roles/serviceusage.apiKeysAdmin has them all',
    ],
    details: { missing },
  })
}

async function mustHaveValue(site: Site, { handle }: Key, { fields }: Credential): Promise<void> {
  if (
    Object.keys(fields).length === 0 ||
    (await site.keys.value(handle.id)).equals(flatten(fields))
  )
    return
  throw new AdapterError(
    'misconfigured',
    `the key ${handle.id} of project ${site.config.project} has another value than the one ` +
      'stored here',
    {
      hints: [`adopt the key that has it: rotate adopt ${site.context.path} --key-id ID`],
    },
  )
}

/**
 * Sends the create once, under the id of the intent. The errors `quota`, `denied` and
 * `throttled`, and a refusal with a code of Google, mean that nothing was made. Otherwise
 * this is unknown, and `settle` must be asked.
 */
async function create(
  site: Site,
  intent: Intent,
  current: Credential | undefined,
): Promise<Issued> {
  const { config, keys } = site
  const id = idFor(intent)
  const old = current?.handle === undefined ? undefined : await keys.find(current.handle.id)
  const wanted = wantedScope(config, old)
  try {
    await keys.create(id, wanted)
  } catch (thrown) {
    throw await explainRefusal(site, thrown, wanted)
  }
  return readIssued(site, id, old)
}

/**
 * Reads what was made. This also ends a settlement: the key exists, and its value can be
 * read as often as needed.
 */
async function readIssued(site: Site, id: string, old: Key | undefined): Promise<Issued> {
  const { context, keys, fresh } = site
  const value = await readNewValue(keys, id, context, VALUE_MS)
  fresh.add(id)
  // The restrictions are read back, because what the key may do is what Google says and
  // not what was asked for. A failure of this read is no reason to lose the key.
  const key = await retryWhileMissing(context, VALUE_MS, () => keys.find(id)).catch(() => undefined)
  const differences = key === undefined || old === undefined ? [] : compared(old, key)
  for (const difference of differences)
    context.note(`the new key ${id} differs from the old one: ${difference}`)
  if (key === undefined)
    context.note(
      `what the new key ${id} may do could not be read, so it was not compared with the old one`,
    )
  const scope =
    key === undefined || old === undefined
      ? 'not compared'
      : differences.length === 0
        ? 'as the old key'
        : differences.join('; ').slice(0, 500)
  return { fields: single(value), handle: key?.handle ?? { id, live: true }, metadata: { scope } }
}

/**
 * The id of the new key: at most 63 characters of a-z, 0-9 and hyphens. Tags are unique
 * without regard to case, so no two of them give the same id.
 */
function idFor({ tag }: Intent): string {
  const id = tag.toLowerCase()
  if (!/^[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?$/.test(id))
    throw new AdapterError('failed', 'the mark of this attempt can not be the id of a key', {
      retryable: false,
    })
  return id
}

function wantedScope({ apiTargets, serviceAccountEmail }: Options, old: Key | undefined): Scope {
  const { apiTargets: before, ...rest } = old?.restrictions ?? {}
  const unlimited = !Array.isArray(before) || before.length === 0
  const services = apiTargets ?? (unlimited ? [GEMINI] : undefined)
  const targets = services === undefined ? before : services.map((service) => ({ service }))
  return {
    restrictions: { ...rest, apiTargets: targets },
    serviceAccountEmail: serviceAccountEmail ?? old?.serviceAccountEmail,
  }
}

/**
 * The error that tells the operator why a create was refused. An error whose effect is
 * not `none` is returned as it is, because only `settle` can tell what happened.
 */
async function explainRefusal(site: Site, thrown: unknown, wanted: Scope): Promise<unknown> {
  if (!(thrown instanceof AdapterError) || thrown.effect !== 'none') return thrown
  const { code, message, details } = thrown
  if (code === 'quota' || (code === 'throttled' && details['rate'] !== true))
    return explainFull(site, thrown)
  const hints = [
    ...(wanted.serviceAccountEmail === undefined
      ? []
      : [
          `the caller needs ${BINDING} on ${wanted.serviceAccountEmail}, and the policy of ` +
            'the organization may forbid keys that are bound to a service account',
        ]),
    'check "apiTargets" and "serviceAccountEmail"',
  ]
  if (code === 'denied')
    return new AdapterError(code, message, {
      details,
      hints: [...thrown.hints, ...hints.slice(0, -1)],
    })
  if (details['status'] !== 400) return thrown
  return new AdapterError('misconfigured', `${message}: the key was not made`, { details, hints })
}

/** The refusal with everything that helps the operator to decide which key may go. */
async function explainFull(
  site: Site,
  { code, message, retryAfterMs, details }: AdapterError,
): Promise<AdapterError> {
  const { config, context } = site
  const keys = await site.keys.list(false).catch(() => [])
  const age = ({ createdAt }: Handle): string =>
    createdAt === undefined
      ? 'age unknown'
      : `${Math.max(0, Math.floor((context.clock.now() - createdAt) / DAY))} days old`
  const oldest = keys
    .map(({ handle }) => handle)
    .toSorted((a, b) => (a.createdAt ?? 0) - (b.createdAt ?? 0))
  const named = oldest.slice(0, 5).map((handle) => `${handle.id} (${age(handle)})`)
  const which =
    named.length === 0
      ? ''
      : `; project ${config.project} has ${keys.length} keys, the oldest: ${named.join(', ')}`
  return new AdapterError(code, `${message}${which}`, {
    details,
    ...pickDefined({ retryAfterMs }),
    hints: [
      ...(code === 'quota'
        ? []
        : ['Google does not say whether that was too many calls or too many keys']),
      'delete keys that nothing uses (deleted ones may count for thirty days), or ask Google ' +
        'for more',
    ],
  })
}

/**
 * Reads the key that the intent names. A deleted one is a stray, because it can't be used
 * for anything.
 */
async function settle(
  site: Site,
  intent: Intent,
  current: Credential | undefined,
): Promise<Settlement> {
  const { context, keys } = site
  const id = idFor(intent)
  const key = await retryWhileMissing(context, LOOK_MS, () => keys.find(id))
  if (key === undefined) return { outcome: 'none', detail: `there is no key ${id}` }
  const { handle, deleted } = key
  if (intent.before.some((earlier) => earlier.id === id)) {
    // When this is asked hours later, the list of known keys may contain the key of this
    // very intent.
    if (handle.createdAt !== undefined && handle.createdAt > intent.at - CLOCK_SKEW_MS)
      return { outcome: 'none', detail: `of the key ${id}, which was made, is known already` }
    return {
      outcome: 'ambiguous',
      candidates: [handle],
      detail: `the key ${id} existed before the create`,
    }
  }
  if (deleted)
    return { outcome: 'stray', handles: [handle], detail: `the key ${id} was made, and is deleted` }
  const old =
    current?.handle === undefined
      ? undefined
      : await keys.find(current.handle.id).catch(() => undefined)
  try {
    return {
      outcome: 'applied',
      issued: await readIssued(site, id, old),
      detail: `the key ${id} was made`,
    }
  } catch (thrown) {
    if (
      !(thrown instanceof AdapterError) ||
      (thrown.code !== 'denied' && thrown.code !== 'missing')
    )
      throw thrown
    const detail = `the key ${id} was made, and its value can not be read: ${thrown.message}`
    return { outcome: 'stray', handles: [handle], detail }
  }
}

/**
 * See `ProviderSession` and `_google-probe.ts`. A key whose value is not known can only
 * be looked up, and only for `dead`.
 */
async function verify(
  site: Site,
  { fields, handle }: Credential,
  expect: 'live' | 'dead',
): Promise<void> {
  const { config, context, keys, fresh } = site
  if (Object.keys(fields).length === 0) {
    if (handle === undefined || expect === 'live')
      throw new AdapterError('misconfigured', "the key's value is not known, so it can't be tried")
    const key = await keys.find(handle.id)
    if (key === undefined || key.deleted)
      throw new AdapterError('refused', `the key ${handle.id} is deleted`)
    return
  }
  const known = async (): Promise<Key | undefined> =>
    handle === undefined ? undefined : keys.find(handle.id)
  const facts: KeyFacts = {
    young:
      handle !== undefined &&
      (fresh.has(handle.id) || context.clock.now() - (handle.createdAt ?? 0) < YOUNG_MS),
    mayCall: async () =>
      JSON.stringify((await known())?.restrictions['apiTargets'] ?? []).includes(`"${GEMINI}"`),
    isGone: async () => (handle === undefined ? undefined : (await known())?.deleted !== false),
  }
  return (expect === 'live' ? awaitLife : awaitDeath)(
    context,
    config.geminiUrl,
    flatten(fields),
    facts,
  )
}

/**
 * Idempotent: a deleted key stays deleted. Only a key whose value equals the stored one,
 * or that was found by the id of an intent, is touched.
 */
async function remove(
  site: Site,
  credential: Credential,
  why: 'suspend' | 'revoke',
): Promise<void> {
  const id = idOf(site, credential)
  const key = await site.keys.find(id)
  if (key === undefined && why === 'suspend')
    throw new AdapterError('missing', `there is no key ${id}`)
  if (key === undefined || key.deleted) return
  await mustHaveValue(site, key, credential)
  await site.keys.remove(id)
  site.fresh.delete(id)
}

async function undelete(site: Site, credential: Credential): Promise<void> {
  const id = idOf(site, credential)
  const key = await site.keys.find(id)
  if (key === undefined)
    throw new AdapterError(
      'missing',
      `there is no key ${id}; Google keeps a deleted one for thirty days`,
    )
  if (key.deleted) await site.keys.undelete(id)
  site.fresh.add(id)
}

function idOf({ context }: Site, { handle }: Credential): string {
  if (handle !== undefined) return handle.id
  throw new AdapterError(
    'misconfigured',
    `the key has no id here; adopt it first: rotate adopt ${context.path} --key-id ID`,
  )
}
