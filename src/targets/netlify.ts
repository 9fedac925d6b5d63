/**
 * Environment variables of Netlify sites (https://open-api.netlify.com, getEnvVars to
 * deleteEnvVarValue).
 *
 * A variable has a value per deploy context. Only the value of the chosen context is
 * written (PATCH); `PUT` replaces all values and is not used. Functions and pages take a
 * value when they are built, so each site is built and waited for. The value of a
 * variable that "contains secret values" is shown to nobody; the time of its last change
 * shows whether somebody has written.
 *
 * This target was tested with a simulated Netlify only, never with the real one.
 */
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import type { Prior } from '../core/model.ts'
import type { AdapterContext } from '../core/provider.ts'
import { secretField, urlField } from '../core/schema.ts'
import { Secret } from '../core/secret.ts'
import { defineTarget, type Delivery, type TargetSession } from '../core/target.ts'
import { type Api, api, listIn, objectIn, plainText, textIn } from '../net/json-api.ts'
import { deployFailed, type Started, startDeploy, waitForDeploys } from './_deploys.ts'
import {
  type Back,
  backsOf,
  currentOf,
  awaitDeleted,
  missingIn,
  type Slot,
  standingOf,
} from './_places.ts'

const VENDOR = 'Netlify'
const BUILD_LIMIT_MS = 30 * 60_000
/**
 * States of a deploy at which nothing more will happen: https://open-api.netlify.com,
 * definition deploy.
 */
const OVER = ['error', 'rejected', 'cancelled', 'deleted']

const id = (what: string) => z.string().regex(/^[\w-]{1,100}$/, `is not the id of ${what}`)

const Config = z.strictObject({
  account: id('a team').meta({ description: 'Team that owns the sites, by id or slug' }),
  sites: z
    .array(id('a site'))
    .min(1)
    .max(100)
    .meta({ description: 'Sites, by their ids (API ID in the site configuration)' }),
  context: z
    .enum(['all', 'production', 'deploy-preview', 'branch-deploy'])
    .default('all')
    .meta({
      description:
        'Deploy context whose value is meant; "all" is the one value of a variable that has no ' +
        'others',
    }),
  token: secretField('Personal access token of a dedicated user'),
  create: z
    .boolean()
    .default(false)
    .meta({ description: 'Also write where the variable has no value for the context yet' }),
  deploy: z
    .boolean()
    .default(true)
    .meta({ description: 'Build the sites and wait until they are live' }),
  baseUrl: urlField('Of the API').default('https://api.netlify.com/api/v1'),
})
type Options = z.output<typeof Config>

interface Variable {
  readonly updated: string | null
  /** Its other attributes. */
  readonly about: Readonly<Record<string, unknown>>
  /** The contexts in which it has a value. */
  readonly contexts: readonly string[]
  /** Its value in the chosen context. */
  readonly own: { readonly id: string; readonly value?: Secret } | undefined
}

export default defineTarget({
  id: 'netlify',
  title: 'Netlify environment variables',
  notes: [
    'The value of one deploy context is written.',
    'A variable that "contains secret values" is refused, because nobody can put it back.',
    'Tried against a counterpart only, never against Netlify.',
  ],
  example: {
    account: 'team',
    sites: ['0123abcd-4567-89ef-0123-456789abcdef'],
    token: { secret: 'infra/netlify/TOKEN' },
  },
  config: Config,
  readable: true,
  deploys: ({ deploy }) => deploy,
  slots: ({ sites, context }, name) => sites.map((site) => `${site} ${context} ${name}`),
  describe: ({ sites, context }) =>
    `Netlify ${sites.join(', ')}${context === 'all' ? '' : ` (${context})`}`,
  open: (config, context) => Promise.resolve(openSession(config, context)),
})

function openSession(config: Options, context: AdapterContext): TargetSession {
  const netlify = api(VENDOR, config.baseUrl, config.token, context)
  const session: TargetSession = {
    probe: async () =>
      void (await Promise.all(config.sites.map((site) => variables(netlify, config, site)))),
    current: async (names) =>
      currentOf(await slotsOf(netlify, config, names), names, (name) =>
        context.note(`${VENDOR}: the sites do not agree about ${name}`),
      ),
    standing: async (names) => {
      const slots = await slotsOf(netlify, config, names)
      const missing = config.create ? undefined : missingIn(slots, names)
      if (missing !== undefined) throw nowhere(missing, config)
      return standingOf(slots, names)
    },
    put: (delivery) => put(netlify, config, delivery, context),
    restore: (prior, old, rest) => restore(netlify, config, { prior, old, rest }, context),
    close: () => Promise.resolve(),
  }
  if (config.deploy)
    session.deploy = (delivery) => deploy(netlify, config, Object.keys(delivery.entries), context)
  return session
}

const place = (site: string): string => `/${site}`
const all = ({ account }: Options): string => `/accounts/${account}/env`
const one = (config: Options, site: string, name: string, rest = ''): string =>
  `${all(config)}/${encodeURIComponent(name)}${rest}?site_id=${site}`

async function variables(
  netlify: Api,
  config: Options,
  site: string,
): Promise<ReadonlyMap<string, Variable>> {
  const rows = listIn(await netlify.call('GET', `${all(config)}?site_id=${site}`), VENDOR)
  return new Map(
    rows.map((row) => {
      const values = listIn(row['values'] ?? [], VENDOR)
      const mine = values.find((value) => value['context'] === config.context)
      const hidden = row['is_secret'] === true
      const variable: Variable = {
        updated: typeof row['updated_at'] === 'string' ? row['updated_at'] : null,
        about: {
          ...(row['scopes'] === undefined ? {} : { scopes: row['scopes'] }),
          ...(hidden ? { is_secret: true } : {}),
        },
        contexts: values.map((value) => textIn(value, 'context', VENDOR)),
        own:
          mine === undefined
            ? undefined
            : {
                id: textIn(mine, 'id', VENDOR),
                ...(hidden ? {} : { value: new Secret(String(mine['value'] ?? '')) }),
              },
      }
      return [textIn(row, 'key', VENDOR), variable] as const
    }),
  )
}

/** Throws `misconfigured` for "all" where contexts have values of their own. */
function refuseSeveral(
  variable: Variable | undefined,
  name: string,
  site: string,
  { context }: Options,
): void {
  const others = variable?.contexts.filter((other) => other !== 'all') ?? []
  if (context === 'all' && others.length > 0)
    throw new AdapterError(
      'misconfigured',
      `${name} of ${site} has values of its own for ${[...new Set(others)].join(', ')}`,
      {
        hints: ['say which one is meant with "context", one target for each'],
      },
    )
}

/**
 * Reads what the sites hold under these names. A site to which nothing is written is left
 * out.
 */
async function slotsOf(
  netlify: Api,
  config: Options,
  names: readonly string[],
): Promise<readonly Slot[]> {
  const slots: Slot[] = []
  for (const site of config.sites) {
    const found = await variables(netlify, config, site)
    for (const name of names) {
      const variable = found.get(name)
      refuseSeveral(variable, name, site, config)
      const value = variable?.own?.value
      if (variable?.own !== undefined)
        slots.push({
          path: place(site),
          name,
          kept: {
            ...(value === undefined ? { sign: variable.updated } : { value }),
            more: variable.about,
          },
        })
      else if (config.create) slots.push({ path: place(site), name, kept: null })
    }
  }
  return slots
}

function nowhere(name: string, { context }: Options): AdapterError {
  return new AdapterError(
    'misconfigured',
    `no chosen site on ${VENDOR} has ${name} in the context ${context}`,
    {
      hints: ['set it there once, or "create": true'],
    },
  )
}

async function put(
  netlify: Api,
  config: Options,
  delivery: Delivery,
  context: AdapterContext,
): Promise<void> {
  const entries = Object.entries(delivery.entries).map(
    ([name, value]) => [name, plainText(value)] as const,
  )
  for (const [name, value] of entries)
    if (value === '')
      throw new AdapterError('misconfigured', `${VENDOR} takes no empty value (${name})`)
  const held = await Promise.all(config.sites.map((site) => variables(netlify, config, site)))
  const writes = entries.flatMap(([name, value]) => {
    const at = config.sites.flatMap((site, i) => {
      const variable = held[i]?.get(name)
      refuseSeveral(variable, name, site, config)
      return variable?.own !== undefined || config.create
        ? [{ site, name, value, isNew: variable === undefined }]
        : []
    })
    if (at.length === 0) throw nowhere(name, config)
    return at
  })
  for (const [i, { site, name, value, isNew }] of writes.entries()) {
    if (isNew)
      await netlify.call(
        'POST',
        `${all(config)}?site_id=${site}`,
        [{ key: name, values: [{ context: config.context, value }] }],
        'once',
      )
    else await netlify.call('PATCH', one(config, site, name), { context: config.context, value })
    context.note(`${VENDOR}: ${name} of ${site} (${i + 1}/${writes.length})`)
  }
}

interface Known {
  readonly prior: Prior | undefined
  readonly old: Delivery | undefined
  readonly rest: Secret | undefined
}

/**
 * Gives every site its own value of the context back. A value that was made is removed,
 * and its site is built without it.
 */
async function restore(
  netlify: Api,
  config: Options,
  { prior, old, rest }: Known,
  context: AdapterContext,
): Promise<void> {
  const held = new Map<string, ReadonlyMap<string, Variable>>()
  const emptied = new Set<string>()
  for (const back of backsOf(config.sites.map(place), prior, old, rest)) {
    const site = back.path.slice(1)
    const all = held.get(site) ?? (await variables(netlify, config, site))
    held.set(site, all)
    const variable = all.get(back.name)
    if (back.value !== null) await putBack(netlify, config, site, back, variable, context)
    else if (variable?.own !== undefined) {
      await awaitDeleted(
        netlify.call(
          'DELETE',
          one(config, site, back.name, `/value/${encodeURIComponent(variable.own.id)}`),
        ),
      )
      emptied.add(site)
    }
  }
  if (config.deploy) await build(netlify, [...emptied], context)
}

async function putBack(
  netlify: Api,
  config: Options,
  site: string,
  { name, value, sign, more, stood }: Back,
  variable: Variable | undefined,
  context: AdapterContext,
): Promise<void> {
  // The time shows that nobody has written to it since it was looked at.
  if (sign !== undefined && sign === variable?.updated) return
  if (value === undefined || value === null)
    return context.note(
      `${VENDOR}: what ${name} of ${site} held can not be read, so what was written to it stays`,
    )
  if (variable?.own === undefined ? !stood : variable.own.value?.equals(value) === true) return
  const text = plainText(value)
  if (variable !== undefined)
    await netlify.call('PATCH', one(config, site, name), { context: config.context, value: text })
  else
    await netlify.call(
      'POST',
      `${all(config)}?site_id=${site}`,
      [{ key: name, ...more, values: [{ context: config.context, value: text }] }],
      'once',
    )
}

/** Builds every site that has one of the variables. */
async function deploy(
  netlify: Api,
  config: Options,
  names: readonly string[],
  context: AdapterContext,
): Promise<void> {
  const having: string[] = []
  for (const site of config.sites) {
    const held = await variables(netlify, config, site)
    if (names.some((name) => held.get(name)?.own !== undefined)) having.push(site)
  }
  await build(netlify, having, context)
}

/** Starts all builds first and then waits for them. */
async function build(
  netlify: Api,
  sites: readonly string[],
  context: AdapterContext,
): Promise<void> {
  const started: Started[] = []
  for (const site of sites) {
    const what = `the build of ${site} on ${VENDOR}`
    const path = `/sites/${site}/deploys/${encodeURIComponent(await start(netlify, site, context))}`
    started.push({
      what,
      isDone: async () => {
        const state = textIn(objectIn(await netlify.call('GET', path), VENDOR), 'state', VENDOR)
        if (OVER.includes(state)) throw deployFailed(what, state, /^[a-z]+$/)
        return state === 'ready'
      },
      notes: (count) => [`${VENDOR}: ${site} is live (${count})`],
    })
  }
  await waitForDeploys(started, BUILD_LIMIT_MS, context)
}

/**
 * Starts a build, once, and returns the id of its deploy. If the answer is lost, the
 * deploy of production that was not listed before is taken for it: whoever asked for that
 * one, it takes the value with it.
 * https://open-api.netlify.com, createSiteBuild and listSiteDeploys
 */
async function start(netlify: Api, site: string, context: AdapterContext): Promise<string> {
  const list = async (): Promise<readonly string[]> =>
    listIn(
      await netlify.call('GET', `/sites/${site}/deploys?production=true&per_page=20`),
      VENDOR,
    ).map((row) => textIn(row, 'id', VENDOR))
  const before = await list()
  return startDeploy(
    {
      ask: () => netlify.call('POST', `/sites/${site}/builds`, {}, 'once'),
      key: 'deploy_id',
      find: async () => (await list()).find((id) => !before.includes(id)),
      unlisted: `${VENDOR} took the build of ${site}, but no new deploy is listed`,
    },
    context,
  )
}
