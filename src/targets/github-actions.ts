/**
 * Secrets of GitHub Actions: of repositories, of an environment of repositories, or of an
 * organization (https://docs.github.com/en/rest/actions/secrets).
 *
 * A value is sent in a sealed box under the public key of its place and can never be read
 * back. `updated_at`, compared with GitHub's own clock, proves that a write was taken,
 * and later shows whether somebody else has written. Workflows take a new value with
 * their next run; runs that have begun keep the old one, which the grace has to cover.
 * The access of an organization's secret is part of every write, so it is read first and
 * sent again unchanged.
 */
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import type { Prior } from '../core/model.ts'
import type { HttpResponse } from '../core/ports.ts'
import type { AdapterContext } from '../core/provider.ts'
import { secretField, urlField } from '../core/schema.ts'
import type { Secret } from '../core/secret.ts'
import { defineTarget, type Delivery, type TargetSession } from '../core/target.ts'
import { answer, GITHUB, type Github, github, OWNER, REPOSITORY, scopesOf } from '../net/github.ts'
import { plainText } from '../net/json-api.ts'
import { sealedBox } from '../net/sealed-box.ts'
import { backsOf, awaitDeleted, missingIn, type Slot, standingOf } from './_places.ts'

const NAME = /^(?!GITHUB_)[A-Z_][A-Z0-9_]*$/i
const MAX_BYTES = 48 * 1024
/**
 * Pauses before the date is read again, after which an unchanged date means that nothing
 * was written.
 */
const LOOK_MS = [500, 2000]
/**
 * The greatest difference between the time of the answer to a write and the date of what
 * was written.
 */
const TOLERANCE_MS = 60_000

const visibilities = ['all', 'private', 'selected'] as const

const Config = z
  .strictObject({
    repositories: z
      .array(z.string().regex(REPOSITORY, 'looks like owner/name'))
      .min(1)
      .optional()
      .meta({ description: 'Repositories, owner/name' }),
    environment: z
      .string()
      .regex(/^(?!\.{1,2}$)[^\0-\x1f\x7f]{1,255}$/, 'is not the name of an environment')
      .optional()
      .meta({
        description:
          'Environment of the repositories; default: the secrets of the repositories themselves',
      }),
    organization: z
      .string()
      .regex(OWNER, 'is not the name of an organization')
      .optional()
      .meta({ description: 'Organization, instead of repositories' }),
    token: secretField(
      'Fine-grained token with "Secrets: Read and write" ("Environments" for an environment), ' +
        'or a classic one',
    ),
    create: z
      .boolean()
      .default(false)
      .meta({ description: 'Also write where the secret does not exist yet' }),
    visibility: z.enum(visibilities).optional().meta({
      description:
        'Which repositories may use a new secret of the organization; those that exist keep theirs',
    }),
    selectedRepositoryIds: z
      .array(z.int().positive())
      .min(1)
      .optional()
      .meta({ description: 'With "visibility": "selected": the numbers of the repositories' }),
    baseUrl: urlField('Of the API; of an Enterprise Server https://HOST/api/v3').default(GITHUB),
  })
  .superRefine((config, context) => {
    const fail = (field: string, message: string): void =>
      context.addIssue({ code: 'custom', path: [field], message })
    const { repositories, organization, environment, create, visibility, selectedRepositoryIds } =
      config
    if ((repositories === undefined) === (organization === undefined))
      fail('repositories', 'or "organization" is needed, and not both')
    if (organization !== undefined && environment !== undefined)
      fail('environment', 'is one of "repositories"; an organization has none')
    if (organization === undefined && visibility !== undefined)
      fail('visibility', 'is for the secrets of an organization')
    if (organization !== undefined && create && visibility === undefined)
      fail('visibility', 'is needed with "create" for an organization')
    if ((visibility === 'selected') !== (selectedRepositoryIds !== undefined))
      fail('selectedRepositoryIds', 'is needed with "visibility": "selected", and only then')
  })
type Options = z.output<typeof Config>

interface Place {
  readonly name: string
  /** The path of its secrets in the API. */
  readonly path: string
}

/** What the API shows of a secret. */
const Seen = z.object({
  updated_at: z.iso.datetime({ offset: true }),
  visibility: z.enum(visibilities).optional(),
})
interface Held extends z.output<typeof Seen> {
  /**
   * Whether any write from now on must get another date. Dates count whole seconds only.
   */
  readonly settled: boolean
}
/** Who may use a secret of an organization, in the form of a write. */
const Access = z.object({
  visibility: z.enum(visibilities),
  selected_repository_ids: z.array(z.int()).optional(),
})

export default defineTarget({
  id: 'github-actions',
  title: 'GitHub Actions secrets',
  example: { repositories: ['team/shop'], token: { secret: 'infra/github/ACTIONS' } },
  config: Config,
  readable: false,
  slots: ({ baseUrl, repositories = [], organization, environment = '' }, name) =>
    [...repositories, ...(organization === undefined ? [] : [organization])].map(
      (owner) =>
        // GitHub stores names in capital letters.
        `${baseUrl} ${owner.toLowerCase()} ${environment} ${name.toUpperCase()}`,
    ),
  nameFault,
  describe: (config) =>
    `GitHub Actions secrets of ${placesOf(config)
      .map(({ name }) => name)
      .join(', ')}`,
  open: (config, context) => Promise.resolve(openSession(config, context)),
})

function openSession(config: Options, context: AdapterContext): TargetSession {
  const api = github(config.baseUrl, config.token, context)
  const places = placesOf(config)
  return {
    probe: async () => {
      for (const place of places) mayWrite(config, (await publicKey(config, api, place)).response)
    },
    put: (delivery) => put(config, context, api, places, delivery),
    standing: async (names) => {
      const slots = await slotsOf(config, api, places, names)
      const missing = config.create ? undefined : missingIn(slots, names)
      if (missing !== undefined) throw nowhere(missing, places)
      return standingOf(slots, names)
    },
    restore: (prior, old, rest) => restore(config, context, api, places, { prior, old, rest }),
    close: () => Promise.resolve(),
  }
}

function placesOf({ repositories = [], environment, organization }: Options): readonly Place[] {
  if (organization !== undefined)
    return [{ name: `organization ${organization}`, path: `/orgs/${organization}/actions/secrets` }]
  return repositories.map((repository) =>
    environment === undefined
      ? { name: repository, path: `/repos/${repository}/actions/secrets` }
      : {
          name: `${repository} (environment ${environment})`,
          path: `/repos/${repository}/environments/${encodeURIComponent(environment)}/secrets`,
        },
  )
}

/**
 * Refuses a classic token that lacks the scopes. Whether a fine-grained token may write
 * shows only at the first write.
 */
function mayWrite(config: Options, { headers }: HttpResponse): void {
  const scopes = scopesOf(headers)
  const wanted = config.organization === undefined ? ['repo', 'public_repo'] : ['admin:org']
  if (scopes !== undefined && !scopes.some((scope) => wanted.includes(scope)))
    throw new AdapterError('denied', `the token lacks the scope ${wanted[0] ?? ''}`, {
      hints: [rightsFor(config)],
    })
}

/** The least rights that "token" needs, in the words of the page on which it is made. */
function rightsFor({ organization, environment }: Options): string {
  if (organization !== undefined)
    return (
      '"token" needs the organization\'s "Secrets: Read and write", or the classic scope ' +
      'admin:org'
    )
  const rights =
    environment === undefined
      ? '"Secrets: Read and write"'
      : '"Environments: Read and write" and "Secrets: Read and write"'
  return `"token" needs ${rights} on the repository, or the classic scope repo`
}

async function publicKey(
  config: Options,
  api: Github,
  place: Place,
): Promise<{ readonly id: string; readonly key: Uint8Array; readonly response: HttpResponse }> {
  let response: HttpResponse
  try {
    response = await api.call('GET', `${place.path}/public-key`)
  } catch (thrown) {
    if (!(thrown instanceof AdapterError) || !['denied', 'missing'].includes(thrown.code))
      throw thrown
    throw new AdapterError(thrown.code, `${place.name}: ${thrown.message}`, {
      hints: [rightsFor(config)],
      details: thrown.details,
    })
  }
  const { key_id: id, key: text } = answer(
    response,
    z.object({ key_id: z.string().min(1), key: z.base64() }),
  )
  const key = Buffer.from(text, 'base64')
  if (key.length !== 32)
    throw new AdapterError(
      'bad-answer',
      `${place.name}: GitHub's public key is not one of 32 bytes`,
    )
  return { id, key, response }
}

async function put(
  config: Options,
  context: AdapterContext,
  api: Github,
  places: readonly Place[],
  { entries }: Delivery,
): Promise<void> {
  const values = Object.entries(entries)
  for (const [name, value] of values) fits(name, value)
  const known = await look(config, api, places, Object.keys(entries))
  for (const name of Object.keys(entries))
    if (!config.create && !known.some(({ held }) => held.get(name) !== undefined))
      throw nowhere(name, places)
  for (const { place, held } of known)
    for (const [name, value] of values) {
      const before = held.get(name)
      if (before === undefined && !config.create) continue
      const access =
        config.organization === undefined ? {} : await accessOf(config, api, place, name, before)
      await write(config, context, api, place, name, value, before, access)
    }
}

function nowhere(name: string, places: readonly Place[]): AdapterError {
  return new AdapterError(
    'misconfigured',
    `there is no secret ${name} in ${places.map((place) => place.name).join(', ')}`,
    {
      hints: ['set it there once, or "create": true'],
    },
  )
}

/**
 * Reads, for each name, when it was last written and who may use it. A place to which
 * nothing is written is left out.
 */
async function slotsOf(
  config: Options,
  api: Github,
  places: readonly Place[],
  names: readonly string[],
): Promise<readonly Slot[]> {
  const slots: Slot[] = []
  for (const { place, held } of await look(config, api, places, names))
    for (const name of names) {
      const now = held.get(name)
      if (now !== undefined) {
        const access =
          config.organization === undefined ? {} : await accessOf(config, api, place, name, now)
        slots.push({
          path: place.path,
          name,
          kept: { sign: now.updated_at, more: { access, settled: now.settled } },
        })
      } else if (config.create) slots.push({ path: place.path, name, kept: null })
    }
  return slots
}

function nameFault(name: string): string | undefined {
  return NAME.test(name)
    ? undefined
    : 'a secret of GitHub Actions has letters, digits and _, no digit first, and does not ' +
        'begin with GITHUB_'
}

/** Refuses, before anything is sent, a name or value that GitHub does not take. */
function fits(name: string, value: Secret): void {
  const fault = nameFault(name)
  if (fault !== undefined)
    throw new AdapterError('misconfigured', `${name} is no name of a secret of GitHub Actions`, {
      hints: [`${fault}; give another "name" in the target`],
    })
  plainText(value)
  if (value.size > MAX_BYTES)
    throw new AdapterError(
      'misconfigured',
      `the value of ${name} is larger than 48 KB, which GitHub Actions does not take`,
    )
}

/**
 * Reads what every place holds under these names. The public key is asked for first, so
 * that a place that can't be seen at all is not taken for one that holds nothing.
 */
async function look(
  config: Options,
  api: Github,
  places: readonly Place[],
  names: readonly string[],
): Promise<
  readonly { readonly place: Place; readonly held: ReadonlyMap<string, Held | undefined> }[]
> {
  const known = []
  for (const place of places) {
    await publicKey(config, api, place)
    const held = new Map<string, Held | undefined>()
    for (const name of names) held.set(name, await heldAt(api, place, name))
    known.push({ place, held })
  }
  return known
}

async function heldAt(api: Github, place: Place, name: string): Promise<Held | undefined> {
  try {
    const response = await api.call('GET', `${place.path}/${name}`)
    const seen = answer(response, Seen)
    return {
      ...seen,
      settled: Date.parse(response.headers['date'] ?? '') - Date.parse(seen.updated_at) >= 2000,
    }
  } catch (thrown) {
    if (thrown instanceof AdapterError && thrown.code === 'missing') return undefined
    throw thrown
  }
}

async function write(
  config: Options,
  context: AdapterContext,
  api: Github,
  place: Place,
  name: string,
  value: Secret,
  before: Held | undefined,
  access: Readonly<Record<string, unknown>>,
): Promise<void> {
  const send = async (): Promise<{ readonly response: HttpResponse; readonly keyId: string }> => {
    const { id, key } = await publicKey(config, api, place)
    const box = Buffer.from(await sealedBox(value.bytes(), key)).toString('base64')
    return {
      response: await api.ask('PUT', `${place.path}/${name}`, {
        encrypted_value: box,
        key_id: id,
        ...access,
      }),
      keyId: id,
    }
  }
  let { response, keyId } = await send()
  // 422 may mean that the public key has changed since it was read.
  if (response.status === 422 && (await publicKey(config, api, place)).id !== keyId)
    ({ response, keyId } = await send())
  const { status } = response
  if (status !== 201 && status !== 204)
    throw new AdapterError(
      status === 401 || status === 403 || status === 404 ? 'denied' : 'failed',
      `${place.name}: GitHub answered ${status} and did not take ${name}`,
      {
        retryable: false,
        details: { status },
        hints: [rightsFor(config)],
      },
    )
  const at = await waitForDate(context, api, place, name, before, response)
  context.note(
    `GitHub: ${name} in ${place.name} ${status === 201 ? 'created' : 'updated'} at ${at} ` +
      '(write-only: its value can not be read back)',
  )
}

/**
 * The access of a secret that exists is repeated, because a write without it takes it
 * away.
 */
async function accessOf(
  config: Options,
  api: Github,
  place: Place,
  name: string,
  before: Held | undefined,
): Promise<{ readonly visibility: string; readonly selected_repository_ids?: readonly number[] }> {
  const visibility = before === undefined ? config.visibility : before.visibility
  if (visibility === undefined)
    throw new AdapterError('bad-answer', `${place.name}: GitHub does not say who may use ${name}`)
  if (visibility !== 'selected') return { visibility }
  if (before === undefined)
    return { visibility, selected_repository_ids: config.selectedRepositoryIds ?? [] }
  const page = z
    .object({ repositories: z.array(z.object({ id: z.int() })) })
    .transform(({ repositories }) => repositories.map(({ id }) => id))
  return {
    visibility,
    selected_repository_ids: await api.rows(`${place.path}/${name}/repositories`, page),
  }
}

/**
 * Waits for the date of a write, which is the only evidence of it. Throws `bad-answer`,
 * which may be tried again, if the date has not moved.
 */
async function waitForDate(
  context: AdapterContext,
  api: Github,
  place: Place,
  name: string,
  before: Held | undefined,
  { headers }: HttpResponse,
): Promise<string> {
  const written = Date.parse(headers['date'] ?? '')
  for (let attempt = 0; ; attempt++) {
    const after = await heldAt(api, place, name)
    const at = Date.parse(after?.updated_at ?? '')
    // Two writes within one second have the same date, so the date need not have moved;
    // it must only be about as recent as this write.
    const moved = Number.isNaN(written)
      ? before === undefined || after?.updated_at !== before.updated_at
      : at >= written - TOLERANCE_MS
    if (after !== undefined && moved) return after.updated_at
    const pause = LOOK_MS[attempt]
    if (pause === undefined)
      throw new AdapterError(
        'bad-answer',
        `${place.name}: GitHub took ${name}, but does not say that it was updated`,
        {
          effect: 'unknown',
          retryable: true,
        },
      )
    await context.clock.sleep(pause, context.signal)
  }
}

interface Known {
  readonly prior: Prior | undefined
  readonly old: Delivery | undefined
  readonly rest: Secret | undefined
}

/**
 * Writes what stood there before where it is known, with the access that it had, and
 * removes what was made.
 */
async function restore(
  config: Options,
  context: AdapterContext,
  api: Github,
  places: readonly Place[],
  { prior, old, rest }: Known,
): Promise<void> {
  const backs = backsOf(
    places.map(({ path }) => path),
    prior,
    old,
    rest,
  )
  if (rest === undefined && backs.length === 0)
    return context.note(
      'GitHub: what was written stays, because nothing was noted of what stood there',
    )
  for (const place of places) {
    const mine = backs.filter(({ path }) => path === place.path)
    if (mine.length === 0) continue
    const names = mine.map(({ name }) => name)
    for (const { held } of await look(config, api, [place], names))
      for (const { name, value, sign, more, stood } of mine) {
        const now = held.get(name)
        // The date shows that nobody has written to it since it was looked at.
        if (more['settled'] === true && now?.updated_at === sign) continue
        if (value === undefined)
          context.note(
            `GitHub: what ${name} in ${place.name} held can not be read, so what was written ` +
              'to it stays',
          )
        else if (value !== null) {
          const noted = Access.safeParse(more['access'])
          const access =
            config.organization === undefined
              ? {}
              : noted.success
                ? noted.data
                : await accessOf(config, api, place, name, now)
          if (stood || now !== undefined)
            await write(config, context, api, place, name, value, now, access)
        } else if (now !== undefined)
          await awaitDeleted(api.call('DELETE', `${place.path}/${name}`))
      }
  }
}
