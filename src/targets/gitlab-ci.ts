/**
 * CI/CD variables of GitLab projects and groups
 * (https://docs.gitlab.com/api/project_level_variables).
 *
 * Only calls for single variables are used, which keep the variable's other attributes. A
 * name may stand once in each scope of environments, with a value of its own; if it
 * stands in several, the configuration must name one. The attributes of a variable (raw,
 * masked, protected, description …) are noted before the first write and put back with
 * the value. The value of a hidden variable is shown to nobody, and nothing shows when it
 * was written. Jobs take a new value when they begin; running jobs keep the old one,
 * which the grace has to cover.
 */
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import type { Prior } from '../core/model.ts'
import type { AdapterContext } from '../core/provider.ts'
import { secretField, urlField } from '../core/schema.ts'
import { Secret } from '../core/secret.ts'
import { defineTarget, type Delivery, type TargetSession } from '../core/target.ts'
import { type Api, api, listIn, plainText, textIn } from '../net/json-api.ts'
import {
  backsOf,
  changed,
  currentOf,
  awaitDeleted,
  missingIn,
  type Slot,
  standingOf,
} from './_places.ts'
import { pickDefined } from '../core/defined.ts'

const VENDOR = 'GitLab'
const PAGE = 100
/** A name has at most 255 characters. */
const NAME = /^\w{1,255}$/

const owners = (what: string) =>
  z
    .array(
      z
        .string()
        .regex(/^(?!.*\.\.)[\w][\w./-]{0,254}$/, 'is neither a number nor a path such as team/app'),
    )
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
      .optional()
      .meta({
        description:
          'Scope of environments of the variables that are meant; needed where a name stands ' +
          'in several. Without it a new one is made for all ("*")',
        examples: ['production'],
      }),
    token: secretField('Access token with the scope "api" and the role Maintainer, best of a bot'),
    create: z
      .boolean()
      .default(false)
      .meta({ description: 'Also write where the variable does not exist yet (masked)' }),
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
  /** Left out if the variable is hidden. */
  readonly value?: Secret
  readonly scope: string
  /** Its other attributes that can be set again. */
  readonly about: Readonly<Record<string, unknown>>
}

/** https://docs.gitlab.com/api/project_level_variables#update-a-variable */
const ABOUT = [
  'variable_type',
  'protected',
  'masked',
  'raw',
  'description',
  'environment_scope',
] as const

export default defineTarget({
  id: 'gitlab-ci',
  title: 'GitLab CI/CD variables',
  example: { projects: ['team/shop'], token: { secret: 'infra/gitlab/CI' } },
  config: Config,
  readable: true,
  slots: ({ baseUrl, projects = [], groups = [], environmentScope = '*' }, name) => [
    ...projects.map((project) => `${baseUrl} project ${project} ${environmentScope} ${name}`),
    ...groups.map((group) => `${baseUrl} group ${group} ${environmentScope} ${name}`),
  ],
  nameFault,
  describe: (config) => {
    const scope = (config.environmentScope ?? '*') === '*' ? '' : ` (${config.environmentScope})`
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
    probe: async () => void (await Promise.all(places.map((place) => variables(gitlab, place)))),
    current: async (names) =>
      currentOf(await slotsOf(gitlab, config, places, names), names, (name) =>
        context.note(`${VENDOR}: the places do not agree about ${name}`),
      ),
    standing: async (names) => {
      const slots = await slotsOf(gitlab, config, places, names)
      const missing = config.create ? undefined : missingIn(slots, names)
      if (missing !== undefined) throw nowhere(missing)
      return standingOf(slots, names)
    },
    put: (delivery) => put(gitlab, config, places, delivery, context),
    restore: (prior, old, rest) => restore(gitlab, config, places, { prior, old, rest }, context),
    close: () => Promise.resolve(),
  }
}

/** Reads the variables by name, one for each scope of environments. */
async function variables(
  gitlab: Api,
  { path }: Pick<Place, 'path'>,
): Promise<ReadonlyMap<string, readonly Variable[]>> {
  const found = new Map<string, Variable[]>()
  for (let page = 1; ; page++) {
    const rows = listIn(
      await gitlab.call('GET', `${path}/variables?per_page=${PAGE}&page=${page}`),
      VENDOR,
    )
    for (const row of rows) {
      const key = textIn(row, 'key', VENDOR)
      const scope = typeof row['environment_scope'] === 'string' ? row['environment_scope'] : '*'
      const about = Object.fromEntries(
        ABOUT.flatMap((name) => (row[name] === undefined ? [] : [[name, row[name]] as const])),
      )
      // https://docs.gitlab.com/ci/variables/#hide-a-cicd-variable
      const value =
        row['hidden'] === true ? {} : { value: new Secret(textIn(row, 'value', VENDOR)) }
      found.set(key, [...(found.get(key) ?? []), { ...value, scope, about }])
    }
    if (rows.length < PAGE) return found
  }
}

/**
 * Selects the variable that the configuration means. Throws `misconfigured` if it is
 * ambiguous.
 */
function meant(
  config: Options,
  place: Place,
  all: ReadonlyMap<string, readonly Variable[]>,
  name: string,
): Variable | undefined {
  const found = all.get(name) ?? []
  if (config.environmentScope !== undefined)
    return found.find(({ scope }) => scope === config.environmentScope)
  if (found.length <= 1) return found[0]
  throw new AdapterError(
    'misconfigured',
    `${name} stands ${found.length} times in ${place.name} on ${VENDOR}, for ` +
      `${found.map(({ scope }) => scope).join('; ')}. Each may hold another value`,
    { hints: ['say which one is meant: "environmentScope": "*", one target for each'] },
  )
}

/**
 * Reads what the places hold under these names. A place to which nothing is written is
 * left out.
 */
async function slotsOf(
  gitlab: Api,
  config: Options,
  places: readonly Place[],
  names: readonly string[],
): Promise<readonly Slot[]> {
  const slots: Slot[] = []
  for (const place of places) {
    const all = await variables(gitlab, place)
    for (const name of names) {
      const one = meant(config, place, all, name)
      if (one !== undefined)
        slots.push({
          path: place.path,
          name,
          kept: { ...pickDefined({ value: one.value }), more: one.about },
        })
      else if (config.create) slots.push({ path: place.path, name, kept: null })
    }
  }
  return slots
}

function nowhere(name: string): AdapterError {
  return new AdapterError(
    'misconfigured',
    `no chosen place on ${VENDOR} has the variable ${name}`,
    {
      hints: ['set it there once, or "create": true'],
    },
  )
}

function nameFault(name: string): string | undefined {
  return NAME.test(name) ? undefined : `${VENDOR} takes letters, digits and _ in a name`
}

const one = (path: string, name: string, scope: string): string =>
  `${path}/variables/${encodeURIComponent(name)}?` +
  new URLSearchParams({ 'filter[environment_scope]': scope }).toString()

async function put(
  gitlab: Api,
  config: Options,
  places: readonly Place[],
  delivery: Delivery,
  context: AdapterContext,
): Promise<void> {
  const entries = Object.entries(delivery.entries).map(
    ([name, value]) => [name, plainText(value)] as const,
  )
  for (const [name] of entries) {
    const fault = nameFault(name)
    if (fault !== undefined) throw new AdapterError('misconfigured', `${name}: ${fault}`)
  }
  const held = await Promise.all(places.map((place) => variables(gitlab, place)))
  for (const [name, value] of entries) {
    const at = places.flatMap((place, i) => {
      const has = meant(config, place, held[i] ?? new Map(), name)
      return has !== undefined || config.create ? [{ place, has }] : []
    })
    if (at.length === 0) throw nowhere(name)
    for (const [i, { place, has }] of at.entries()) {
      // Without `raw`, GitLab would expand a $ in the value.
      const raw = value.includes('$') ? { raw: true } : {}
      await explainRefusal(
        name,
        has !== undefined
          ? gitlab.call('PUT', one(place.path, name, has.scope), { value, ...raw })
          : gitlab.call('POST', `${place.path}/variables`, made(name, value, config), 'once'),
      )
      context.note(`${VENDOR}: ${name} in ${place.name} (${i + 1}/${at.length})`)
    }
  }
}

const made = (key: string, value: string, { environmentScope = '*' }: Options): object => ({
  key,
  value,
  masked: true,
  raw: true,
  environment_scope: environmentScope,
})

async function explainRefusal(name: string, call: Promise<unknown>): Promise<void> {
  try {
    await call
  } catch (thrown) {
    if (!(thrown instanceof AdapterError) || thrown.details['status'] !== 400) throw thrown
    throw new AdapterError('misconfigured', `${VENDOR} does not take the value of ${name}`, {
      hints: [
        'a masked variable takes no value that is short, has several lines or unusual ' +
          'characters: make it unmasked there',
      ],
    })
  }
}

interface Known {
  readonly prior: Prior | undefined
  readonly old: Delivery | undefined
  readonly rest: Secret | undefined
}

/**
 * Gives every place its own value and attributes back, and removes a variable that was
 * made.
 */
async function restore(
  gitlab: Api,
  config: Options,
  places: readonly Place[],
  { prior, old, rest }: Known,
  context: AdapterContext,
): Promise<void> {
  const held = new Map<string, ReadonlyMap<string, readonly Variable[]>>()
  const backs = backsOf(
    places.map(({ path }) => path),
    prior,
    old,
    rest,
  )
  for (const { path, name, value, more, stood } of backs) {
    const all = held.get(path) ?? (await variables(gitlab, { path }))
    held.set(path, all)
    const scope =
      typeof more['environment_scope'] === 'string'
        ? more['environment_scope']
        : (config.environmentScope ?? '*')
    const now = all.get(name)?.find((variable) => variable.scope === scope)
    if (value === undefined)
      context.note(`${VENDOR}: what ${name} held can not be read, so what was written to it stays`)
    if (value === undefined || (now === undefined && !stood)) continue
    if (value === null) await awaitDeleted(gitlab.call('DELETE', one(path, name, scope)))
    else if (now === undefined)
      await gitlab.call(
        'POST',
        `${path}/variables`,
        { key: name, value: plainText(value), ...more },
        'once',
      )
    else {
      const otherwise = changed(more, now.about)
      if (now.value?.equals(value) !== true || Object.keys(otherwise).length > 0)
        await gitlab.call('PUT', one(path, name, scope), { value: plainText(value), ...otherwise })
    }
  }
}
