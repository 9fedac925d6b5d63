/**
 * CI/CD variables of GitLab projects and groups (reference/providers.md 14; https://docs.gitlab.com/api/project_level_variables). Per-variable calls only, which keep
 * what else is set on a variable. One scope of environments, because a name may stand once in each. A hidden variable can't be read, so neither checked nor
 * put back: it is refused. Jobs take a new value when they begin; those that run keep the old one, for which the grace is there.
 */
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import type { Prior } from '../core/model.ts'
import type { AdapterContext } from '../core/provider.ts'
import { secretField, urlField } from '../core/schema.ts'
import { Secret } from '../core/secret.ts'
import { defineTarget, type Delivery, type TargetSession } from '../core/target.ts'
import { type Api, api, listIn, plainText, textIn } from '../net/json-api.ts'
import { backOf, priorOf } from './_places.ts'

const VENDOR = 'GitLab'
const PAGE = 100
/** A name has at most 255 characters. */
const NAME = /^\w{1,255}$/

const owners = (what: string) =>
  z
    .array(z.string().regex(/^(?!.*\.\.)[\w][\w./-]{0,254}$/, 'is neither a number nor a path such as team/app'))
    .min(1)
    .optional()
    .meta({ description: `${what}, by number or by full path` })

const Config = z
  .strictObject({
    projects: owners('Projects'),
    groups: owners('Groups, whose variables all of their projects have'),
    environmentScope: z
      .string()
      .regex(/^[\w */${}.-]{1,255}$/, 'is not a scope of environments')
      .default('*')
      .meta({ description: 'Scope of environments of the variables that are meant', examples: ['production'] }),
    token: secretField('Access token with the scope "api" and the role Maintainer, best of a bot'),
    create: z.boolean().default(false).meta({ description: 'Also write where the variable does not exist yet (masked)' }),
    baseUrl: urlField('Of the API').default('https://gitlab.com/api/v4'),
  })
  .superRefine(({ projects, groups }, context) => {
    if (projects === undefined && groups === undefined)
      context.addIssue({ code: 'custom', path: ['projects'], message: 'is missing (or "groups")' })
  })
type Options = z.output<typeof Config>

interface Place {
  readonly path: string
  readonly name: string
}

interface Variable {
  readonly value: Secret
  readonly hidden: boolean
}

export default defineTarget({
  id: 'gitlab-ci',
  title: 'GitLab CI/CD variables',
  config: Config,
  readable: true,
  describe: (config) => {
    const scope = config.environmentScope === '*' ? '' : ` (${config.environmentScope})`
    return `GitLab ${placesOf(config)
      .map(({ name }) => name)
      .join(', ')}${scope}`
  },
  open: (config, context) => Promise.resolve(openSession(config, context)),
})

function placesOf({ projects = [], groups = [] }: Options): readonly Place[] {
  const at = (kind: string, ids: readonly string[]): readonly Place[] =>
    ids.map((id) => ({ path: `/${kind}/${encodeURIComponent(id)}`, name: id }))
  return [...at('projects', projects), ...at('groups', groups)]
}

function openSession(config: Options, context: AdapterContext): TargetSession {
  const gitlab = api(VENDOR, config.baseUrl, config.token, context)
  const places = placesOf(config)
  return {
    probe: async () => void (await Promise.all(places.map((place) => variables(gitlab, config, place)))),
    current: async (names) => {
      const held = await Promise.all(
        places.map(async ({ path, name }) => {
          const all = await variables(gitlab, config, { path, name })
          for (const asked of names) if (all.get(asked)?.hidden === true) throw hiddenError(asked, name)
          return { path, values: new Map([...all].map(([key, { value }]) => [key, value] as const)) }
        }),
      )
      return priorOf(held, names, (name) => context.note(`${VENDOR}: the places do not agree about ${name}`))
    },
    put: (delivery) => put(gitlab, config, places, delivery, context),
    restore: (prior, old) => restore(gitlab, config, places, { ...old?.entries, ...prior }),
    close: () => Promise.resolve(),
  }
}

/** Those of the scope, by name. */
async function variables(gitlab: Api, { environmentScope }: Options, { path }: Place): Promise<ReadonlyMap<string, Variable>> {
  const found = new Map<string, Variable>()
  for (let page = 1; ; page++) {
    const rows = listIn(await gitlab.call('GET', `${path}/variables?per_page=${PAGE}&page=${page}`), VENDOR)
    for (const row of rows) {
      if ((row['environment_scope'] ?? '*') !== environmentScope) continue
      const hidden = row['hidden'] === true
      found.set(textIn(row, 'key', VENDOR), { hidden, value: new Secret(hidden ? '' : textIn(row, 'value', VENDOR)) })
    }
    if (rows.length < PAGE) return found
  }
}

function hiddenError(name: string, place: string): AdapterError {
  return new AdapterError(
    'misconfigured',
    `${name} in ${place} is hidden: ${VENDOR} shows it to nobody, so it can be neither checked nor put back`,
    {
      hints: ['delete it and make it anew as masked, not hidden'],
    },
  )
}

const one = (place: Place, name: string, { environmentScope }: Options): string =>
  `${place.path}/variables/${encodeURIComponent(name)}?${new URLSearchParams({ 'filter[environment_scope]': environmentScope }).toString()}`

async function put(gitlab: Api, config: Options, places: readonly Place[], delivery: Delivery, context: AdapterContext): Promise<void> {
  const entries = Object.entries(delivery.entries).map(([name, value]) => [name, plainText(value)] as const)
  for (const [name] of entries)
    if (!NAME.test(name)) throw new AdapterError('misconfigured', `${VENDOR} takes letters, digits and _ in a name, not ${name}`)
  const held = await Promise.all(places.map((place) => variables(gitlab, config, place)))
  for (const [name, value] of entries) {
    const at = places.flatMap((place, i) => {
      const has = held[i]?.get(name)
      if (has?.hidden === true) throw hiddenError(name, place.name)
      return has !== undefined || config.create ? [{ place, exists: has !== undefined }] : []
    })
    if (at.length === 0)
      throw new AdapterError('misconfigured', `no chosen place on ${VENDOR} has the variable ${name}`, {
        hints: ['set it there once, or "create": true'],
      })
    for (const [i, { place, exists }] of at.entries()) {
      // Otherwise a $ in the value would be expanded.
      const raw = value.includes('$') ? { raw: true } : {}
      await taken(
        name,
        exists
          ? gitlab.call('PUT', one(place, name, config), { value, ...raw })
          : gitlab.call('POST', `${place.path}/variables`, made(name, value, config), 'once'),
      )
      context.note(`${VENDOR}: ${name} in ${place.name} (${i + 1}/${at.length})`)
    }
  }
}

const made = (key: string, value: string, { environmentScope }: Options): object => ({
  key,
  value,
  masked: true,
  raw: true,
  environment_scope: environmentScope,
})

async function taken(name: string, call: Promise<unknown>): Promise<void> {
  try {
    await call
  } catch (thrown) {
    if (!(thrown instanceof AdapterError) || thrown.details['status'] !== 400) throw thrown
    throw new AdapterError('misconfigured', `${VENDOR} does not take the value of ${name}`, {
      hints: ['a masked variable takes no value that is short, has several lines or unusual characters: make it unmasked there'],
    })
  }
}

async function restore(gitlab: Api, config: Options, places: readonly Place[], known: Prior): Promise<void> {
  for (const place of places) {
    const held = await variables(gitlab, config, place)
    for (const [name, value] of backOf(place.path, known)) {
      if (!held.has(name)) continue
      if (value === null) await gitlab.call('DELETE', one(place, name, config))
      else await gitlab.call('PUT', one(place, name, config), { value: plainText(value) })
    }
  }
}
