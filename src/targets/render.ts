/**
 * Environment variables of Render services and environment groups
 * (https://api-docs.render.com).
 *
 * Only the calls for one key are used: `PUT …/env-vars` with a list deletes every
 * variable that is not in it. A change reaches a service with its next deploy only, so
 * each service is deployed (`deploy_only`: the last successful build) and waited for.
 * Values can be read back.
 */
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import type { Prior } from '../core/model.ts'
import type { AdapterContext } from '../core/provider.ts'
import { secretField, urlField } from '../core/schema.ts'
import { Secret } from '../core/secret.ts'
import { defineTarget, type Delivery, type TargetSession } from '../core/target.ts'
import { deployFailed, type Started, startDeploy, waitForDeploys } from './_deploys.ts'
import { backsOf, currentOf, awaitDeleted, missingIn, type Slot, standingOf } from './_places.ts'
import { type Api, api, listIn, objectIn, plainText, textIn } from '../net/json-api.ts'

const VENDOR = 'Render'
const PAGE = 100
/** Ample, because a deploy of the last build takes a few minutes. */
const DEPLOY_LIMIT_MS = 15 * 60_000
const RUNNING = [
  'created',
  'queued',
  'build_in_progress',
  'update_in_progress',
  'pre_deploy_in_progress',
]
/** `deactivated` means that it was live and a later deploy has replaced it already. */
const DONE = ['live', 'deactivated']

const selection = (what: string) =>
  z
    .union([z.literal('*'), z.array(z.string().min(1).max(200)).min(1)])
    .meta({ description: `${what}: "*" for all, or a list of ids or names` })

const Config = z
  .strictObject({
    services: selection('Services').optional(),
    envGroups: selection('Environment groups; the services linked to them are deployed').optional(),
    token: secretField('API key of a dedicated user'),
    create: z
      .boolean()
      .default(false)
      .meta({ description: 'Also write where the variable does not exist yet' }),
    deploy: z
      .boolean()
      .default(true)
      .meta({ description: 'Deploy the services and wait until they are live' }),
    baseUrl: urlField('Of the API').default('https://api.render.com/v1'),
  })
  .refine(
    (config) => config.services !== undefined || config.envGroups !== undefined,
    'needs "services" or "envGroups"',
  )
type Options = z.output<typeof Config>

/**
 * A service or a group: the path of its variables, and the services that must be deployed
 * after a change.
 */
interface Place {
  readonly path: string
  readonly name: string
  readonly deploys: readonly { readonly id: string; readonly name: string }[]
}

export default defineTarget({
  id: 'render',
  title: 'Render services and environment groups',
  example: { services: ['shop'], token: { secret: 'infra/render/TOKEN' } },
  config: Config,
  readable: true,
  deploys: ({ deploy }) => deploy,
  slots: ({ services = [], envGroups = [] }, name) => [
    ...[services].flat().map((service) => `service ${service} ${name}`),
    ...[envGroups].flat().map((group) => `group ${group} ${name}`),
  ],
  describe: ({ services, envGroups }) => {
    const words = (what: string, chosen: Options['services']): readonly string[] =>
      chosen === undefined ? [] : [`Render ${what} ${chosen === '*' ? '(all)' : chosen.join(', ')}`]
    return [...words('services', services), ...words('groups', envGroups)].join('; ')
  },
  open: (config, context) => Promise.resolve(openSession(config, context)),
})

function openSession(config: Options, context: AdapterContext): TargetSession {
  const render = api(VENDOR, config.baseUrl, config.token, context)
  let known: readonly Place[] | undefined
  const places = async (): Promise<readonly Place[]> => (known ??= await placesOf(render, config))
  const session: TargetSession = {
    probe: async () => void (await places()),
    current: async (names) =>
      currentOf(await slotsOf(render, config, await places(), names), names, (name) =>
        context.note(`${VENDOR}: the places do not agree about ${name}`),
      ),
    put: async (delivery) => put(render, config, await places(), delivery, context),
    standing: async (names) => {
      const slots = await slotsOf(render, config, await places(), names)
      const missing = config.create ? undefined : missingIn(slots, names)
      if (missing !== undefined) throw nowhere(missing)
      return standingOf(slots, names)
    },
    restore: async (prior, old, rest) =>
      restore(render, config, await places(), { prior, old, rest }, context),
    close: () => Promise.resolve(),
  }
  if (config.deploy)
    session.deploy = async (delivery) =>
      deploy(render, await places(), Object.keys(delivery.entries), context)
  return session
}

async function placesOf(render: Api, config: Options): Promise<readonly Place[]> {
  const places: Place[] = []
  if (config.services !== undefined) {
    const all = await pages(render, '/services', 'service')
    const found = all.map((service) => ({
      id: textIn(service, 'id', VENDOR),
      name: textIn(service, 'name', VENDOR),
      off: service['suspended'] === 'suspended',
    }))
    for (const { id, name, off } of chosen(found, config.services, 'service'))
      places.push({
        path: `/services/${encodeURIComponent(id)}`,
        name,
        deploys: off ? [] : [{ id, name }],
      })
  }
  if (config.envGroups !== undefined) {
    const all = await pages(render, '/env-groups', 'envGroup')
    const found = all.map((group) => ({
      id: textIn(group, 'id', VENDOR),
      name: textIn(group, 'name', VENDOR),
    }))
    for (const { id, name } of chosen(found, config.envGroups, 'environment group')) {
      const path = `/env-groups/${encodeURIComponent(id)}`
      const links = listIn(
        objectIn(await render.call('GET', path), VENDOR)['serviceLinks'] ?? [],
        VENDOR,
      )
      places.push({
        path,
        name,
        deploys: links.map((link) => ({
          id: textIn(link, 'id', VENDOR),
          name: textIn(link, 'name', VENDOR),
        })),
      })
    }
  }
  if (places.length === 0)
    throw new AdapterError('misconfigured', 'the token sees no service and no environment group')
  return places
}

function chosen<T extends { readonly id: string; readonly name: string }>(
  all: readonly T[],
  wanted: '*' | readonly string[],
  what: string,
): readonly T[] {
  if (wanted === '*') return all
  return wanted.map((want) => {
    const found = all.filter(({ id, name }) => id === want || name === want)
    const [one] = found
    if (one === undefined || found.length > 1)
      throw new AdapterError(
        'misconfigured',
        `${found.length === 0 ? 'there is no' : 'there is more than one'} ${what} "${want}" ` +
          'that the token can see',
      )
    return one
  })
}

/**
 * Reads all pages of a list. Each element carries the cursor of the page after it; an
 * empty page is the last.
 */
async function pages(
  render: Api,
  path: string,
  key: string,
): Promise<readonly Readonly<Record<string, unknown>>[]> {
  const all: Readonly<Record<string, unknown>>[] = []
  for (let cursor = ''; ;) {
    const page = listIn(
      await render.call(
        'GET',
        `${path}?limit=${PAGE}${cursor === '' ? '' : `&cursor=${encodeURIComponent(cursor)}`}`,
      ),
      VENDOR,
    )
    all.push(...page.map((row) => objectIn(row[key] ?? row, VENDOR)))
    const next = page.at(-1)?.['cursor']
    if (typeof next !== 'string' || next === cursor || page.length === 0) return all
    cursor = next
  }
}

/**
 * Reads the variables of one place by name. A group's list holds no other variables than
 * its own.
 */
async function variables(render: Api, place: Place): Promise<ReadonlyMap<string, Secret>> {
  const rows = place.path.startsWith('/env-groups/')
    ? listIn(objectIn(await render.call('GET', place.path), VENDOR)['envVars'] ?? [], VENDOR)
    : await pages(render, `${place.path}/env-vars`, 'envVar')
  return new Map(
    rows.map((row) => [textIn(row, 'key', VENDOR), new Secret(textIn(row, 'value', VENDOR))]),
  )
}

/**
 * Reads what the places hold under these names. A place to which nothing is written is
 * left out.
 */
async function slotsOf(
  render: Api,
  config: Options,
  places: readonly Place[],
  names: readonly string[],
): Promise<readonly Slot[]> {
  const slots: Slot[] = []
  for (const { path, ...place } of places) {
    const held = await variables(render, { path, ...place })
    for (const name of names) {
      const value = held.get(name)
      if (value !== undefined) slots.push({ path, name, kept: { value } })
      else if (config.create) slots.push({ path, name, kept: null })
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

async function put(
  render: Api,
  config: Options,
  places: readonly Place[],
  delivery: Delivery,
  context: AdapterContext,
): Promise<void> {
  const entries = Object.entries(delivery.entries).map(
    ([name, value]) => [name, plainText(value)] as const,
  )
  for (const [name, value] of entries)
    if (value === '')
      throw new AdapterError('misconfigured', `${VENDOR} takes no empty value (${name})`)
  const held = await Promise.all(places.map((place) => variables(render, place)))
  for (const [name, value] of entries) {
    const at = places.filter((_place, i) => config.create || held[i]?.has(name) === true)
    if (at.length === 0) throw nowhere(name)
    for (const [i, place] of at.entries()) {
      await render.call('PUT', `${place.path}/env-vars/${encodeURIComponent(name)}`, { value })
      context.note(`${VENDOR}: ${name} in ${place.name} (${i + 1}/${at.length})`)
    }
  }
}

interface Known {
  readonly prior: Prior | undefined
  readonly old: Delivery | undefined
  readonly rest: Secret | undefined
}

/**
 * Gives every place its own value back. A variable that was made is removed, and its
 * services are deployed without it.
 */
async function restore(
  render: Api,
  config: Options,
  places: readonly Place[],
  { prior, old, rest }: Known,
  context: AdapterContext,
): Promise<void> {
  const held = new Map<string, ReadonlyMap<string, Secret>>()
  const emptied = new Set<Place>()
  const backs = backsOf(
    places.map(({ path }) => path),
    prior,
    old,
    rest,
  )
  for (const { path, name, value, stood } of backs) {
    const place = places.find((one) => one.path === path) ?? { path, name: path, deploys: [] }
    const all = held.get(path) ?? (await variables(render, place))
    held.set(path, all)
    const now = all.get(name)
    if (
      value === undefined ||
      (now === undefined && !stood) ||
      (value !== null && now?.equals(value) === true)
    )
      continue
    const address = `${path}/env-vars/${encodeURIComponent(name)}`
    if (value !== null) await render.call('PUT', address, { value: plainText(value) })
    else {
      await awaitDeleted(render.call('DELETE', address))
      emptied.add(place)
    }
  }
  if (config.deploy) await deployTo(render, servicesOf([...emptied]), context)
}

/**
 * Starts a deploy, once, and returns its id. It may be queued without being named in the
 * answer (202), and the answer may be lost: then the newest deploy is taken for it, if it
 * was not the newest before.
 * https://api-docs.render.com/reference/create-deploy,
 * https://api-docs.render.com/reference/list-deploys
 */
async function start(
  render: Api,
  id: string,
  name: string,
  context: AdapterContext,
): Promise<string> {
  const path = `/services/${encodeURIComponent(id)}/deploys`
  const newest = async (): Promise<string | undefined> => {
    const [row] = listIn(await render.call('GET', `${path}?limit=1`), VENDOR)
    return row === undefined
      ? undefined
      : textIn(objectIn(row['deploy'] ?? row, VENDOR), 'id', VENDOR)
  }
  const before = await newest()
  return startDeploy(
    {
      ask: () => render.call('POST', path, { deployMode: 'deploy_only' }, 'once'),
      key: 'id',
      find: async () => {
        const now = await newest()
        return now === before ? undefined : now
      },
      unlisted: `${VENDOR} took the deploy of ${name}, but no new one is listed`,
    },
    context,
  )
}

/** Deploys every service that has one of the variables, by itself or by a group. */
async function deploy(
  render: Api,
  places: readonly Place[],
  names: readonly string[],
  context: AdapterContext,
): Promise<void> {
  const having: Place[] = []
  for (const place of places) {
    const held = await variables(render, place)
    if (names.some((name) => held.has(name))) having.push(place)
  }
  await deployTo(render, servicesOf(having), context)
}

function servicesOf(places: readonly Place[]): ReadonlyMap<string, string> {
  return new Map(
    places.flatMap(({ deploys }) => deploys.map(({ id, name }) => [id, name] as const)),
  )
}

/** Starts all deploys first and then waits for them. */
async function deployTo(
  render: Api,
  services: ReadonlyMap<string, string>,
  context: AdapterContext,
): Promise<void> {
  const started: Started[] = []
  for (const [id, name] of services) {
    const what = `the deploy of ${name} on ${VENDOR}`
    const deployId = encodeURIComponent(await start(render, id, name, context))
    const path = `/services/${encodeURIComponent(id)}/deploys/${deployId}`
    started.push({
      what,
      isDone: async () => {
        const status = textIn(objectIn(await render.call('GET', path), VENDOR), 'status', VENDOR)
        if (DONE.includes(status)) return true
        if (RUNNING.includes(status)) return false
        throw deployFailed(what, status, /^[a-z_]{1,40}$/)
      },
      notes: (count) => [`${VENDOR}: ${name} is live (${count})`],
    })
  }
  await waitForDeploys(started, DEPLOY_LIMIT_MS, context)
}
