/**
 * Environment variables of Netlify sites (reference/providers.md 18; https://open-api.netlify.com, getEnvVars to deleteEnvVarValue).
 *
 * A variable has a value per deploy context. Only the value of a chosen context is written (PATCH); `PUT` replaces all values and is not used. Functions and pages get a
 * value when they are built, so each site is built and waited for. A variable that "contains secret values" is shown to nobody, so it can be neither checked nor put
 * back: it is refused.
 */
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import type { Prior } from '../core/model.ts'
import type { AdapterContext } from '../core/provider.ts'
import { secretField, urlField } from '../core/schema.ts'
import { Secret } from '../core/secret.ts'
import { defineTarget, type Delivery, type TargetSession } from '../core/target.ts'
import { type Api, api, listIn, objectIn, plainText, textIn, until } from '../net/json-api.ts'
import { backOf, priorOf } from './_places.ts'

const VENDOR = 'Netlify'
const BUILD_LIMIT_MS = 30 * 60_000
/** States of a deploy at which nothing more will happen: https://open-api.netlify.com, definition deploy. */
const OVER = ['error', 'rejected', 'cancelled', 'deleted']

const id = (what: string) => z.string().regex(/^[\w-]{1,100}$/, `is not the id of ${what}`)

const Config = z.strictObject({
  account: id('a team').meta({ description: 'Team that owns the sites, by id or slug' }),
  sites: z.array(id('a site')).min(1).max(100).meta({ description: 'Sites, by their ids (API ID in the site configuration)' }),
  context: z
    .enum(['all', 'production', 'deploy-preview', 'branch-deploy'])
    .default('all')
    .meta({ description: 'Deploy context whose value is meant; "all" is the one value of a variable that has no others' }),
  token: secretField('Personal access token of a dedicated user'),
  create: z.boolean().default(false).meta({ description: 'Also write where the variable has no value for the context yet' }),
  deploy: z.boolean().default(true).meta({ description: 'Build the sites and wait until they are live' }),
  baseUrl: urlField('Of the API').default('https://api.netlify.com/api/v1'),
})
type Options = z.output<typeof Config>

interface Variable {
  readonly secret: boolean
  /** Contexts in which it has a value. */
  readonly contexts: readonly string[]
  /** Its value in the chosen context. */
  readonly own: { readonly id: string; readonly value: Secret } | undefined
}

export default defineTarget({
  id: 'netlify',
  title: 'Netlify environment variables',
  config: Config,
  readable: true,
  deploys: true,
  describe: ({ sites, context }) => `Netlify ${sites.join(', ')}${context === 'all' ? '' : ` (${context})`}`,
  open: (config, context) => Promise.resolve(openSession(config, context)),
})

function openSession(config: Options, context: AdapterContext): TargetSession {
  const netlify = api(VENDOR, config.baseUrl, config.token, context)
  const session: TargetSession = {
    probe: async () => void (await Promise.all(config.sites.map((site) => variables(netlify, config, site)))),
    current: (names) => current(netlify, config, names, context),
    put: (delivery) => put(netlify, config, delivery, context),
    restore: (prior, old) => restore(netlify, config, { ...old?.entries, ...prior }),
    close: () => Promise.resolve(),
  }
  if (config.deploy) session.deploy = (delivery) => deploy(netlify, config, Object.keys(delivery.entries), context)
  return session
}

const place = (site: string): string => `/${site}`
const all = ({ account }: Options): string => `/accounts/${account}/env`
const one = (config: Options, site: string, name: string, rest = ''): string =>
  `${all(config)}/${encodeURIComponent(name)}${rest}?site_id=${site}`

async function variables(netlify: Api, config: Options, site: string): Promise<ReadonlyMap<string, Variable>> {
  const rows = listIn(await netlify.call('GET', `${all(config)}?site_id=${site}`), VENDOR)
  return new Map(
    rows.map((row) => {
      const values = listIn(row['values'] ?? [], VENDOR)
      const mine = values.find((value) => value['context'] === config.context)
      const variable: Variable = {
        secret: row['is_secret'] === true,
        contexts: values.map((value) => textIn(value, 'context', VENDOR)),
        own: mine === undefined ? undefined : { id: textIn(mine, 'id', VENDOR), value: new Secret(String(mine['value'] ?? '')) },
      }
      return [textIn(row, 'key', VENDOR), variable] as const
    }),
  )
}

/** Throws `misconfigured` for what can't be read, and for "all" where contexts have values of their own. */
function usable(variable: Variable | undefined, name: string, site: string, { context }: Options): void {
  if (variable === undefined) return
  if (variable.secret)
    throw new AdapterError(
      'misconfigured',
      `${name} of ${site} contains secret values: ${VENDOR} shows them to nobody, so they can't be put back`,
      {
        hints: ['make it anew without "Contains secret values"'],
      },
    )
  const others = variable.contexts.filter((other) => other !== 'all')
  if (context === 'all' && others.length > 0)
    throw new AdapterError('misconfigured', `${name} of ${site} has values of its own for ${[...new Set(others)].join(', ')}`, {
      hints: ['say which one is meant with "context", one target for each'],
    })
}

async function current(netlify: Api, config: Options, names: readonly string[], context: AdapterContext): Promise<Prior> {
  const held = await Promise.all(
    config.sites.map(async (site) => {
      const found = await variables(netlify, config, site)
      for (const name of names) usable(found.get(name), name, site, config)
      const values = [...found].flatMap(([name, { own }]) => (own === undefined ? [] : [[name, own.value] as const]))
      return { path: place(site), values: new Map(values) }
    }),
  )
  return priorOf(held, names, (name) => context.note(`${VENDOR}: the sites do not agree about ${name}`))
}

async function put(netlify: Api, config: Options, delivery: Delivery, context: AdapterContext): Promise<void> {
  const entries = Object.entries(delivery.entries).map(([name, value]) => [name, plainText(value)] as const)
  for (const [name, value] of entries) if (value === '') throw new AdapterError('misconfigured', `${VENDOR} takes no empty value (${name})`)
  const held = await Promise.all(config.sites.map((site) => variables(netlify, config, site)))
  const writes = entries.flatMap(([name, value]) => {
    const at = config.sites.flatMap((site, i) => {
      const variable = held[i]?.get(name)
      usable(variable, name, site, config)
      return variable?.own !== undefined || config.create ? [{ site, name, value, isNew: variable === undefined }] : []
    })
    if (at.length === 0)
      throw new AdapterError('misconfigured', `no chosen site on ${VENDOR} has ${name} in the context ${config.context}`, {
        hints: ['set it there once, or "create": true'],
      })
    return at
  })
  for (const [i, { site, name, value, isNew }] of writes.entries()) {
    if (isNew)
      await netlify.call('POST', `${all(config)}?site_id=${site}`, [{ key: name, values: [{ context: config.context, value }] }], 'once')
    else await netlify.call('PATCH', one(config, site, name), { context: config.context, value })
    context.note(`${VENDOR}: ${name} of ${site} (${i + 1}/${writes.length})`)
  }
}

async function restore(netlify: Api, config: Options, known: Prior): Promise<void> {
  for (const site of config.sites) {
    const held = await variables(netlify, config, site)
    for (const [name, value] of backOf(place(site), known)) {
      const own = held.get(name)?.own
      if (own === undefined) continue
      if (value === null) await netlify.call('DELETE', one(config, site, name, `/value/${encodeURIComponent(own.id)}`))
      else await netlify.call('PATCH', one(config, site, name), { context: config.context, value: plainText(value) })
    }
  }
}

/** Every site that has one of the variables; all builds are started first, then waited for. A second build of the same is harmless. */
async function deploy(netlify: Api, config: Options, names: readonly string[], context: AdapterContext): Promise<void> {
  const started: { readonly site: string; readonly path: string }[] = []
  for (const site of config.sites) {
    const held = await variables(netlify, config, site)
    if (!names.some((name) => held.get(name)?.own !== undefined)) continue
    const build = objectIn(await netlify.call('POST', `/sites/${site}/builds`, {}), VENDOR)
    started.push({ site, path: `/sites/${site}/deploys/${encodeURIComponent(textIn(build, 'deploy_id', VENDOR))}` })
  }
  for (const [i, { site, path }] of started.entries()) {
    await until(`the build of ${site} on ${VENDOR}`, context, BUILD_LIMIT_MS, async () => {
      const state = textIn(objectIn(await netlify.call('GET', path), VENDOR), 'state', VENDOR)
      if (OVER.includes(state))
        throw new AdapterError('failed', `the build of ${site} on ${VENDOR} ended as ${state}`, { effect: 'applied', retryable: false })
      return state === 'ready'
    })
    context.note(`${VENDOR}: ${site} is live (${i + 1}/${started.length})`)
  }
}
