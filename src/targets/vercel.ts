/**
 * Environment variables of Vercel projects (reference/providers.md 11; https://vercel.com/docs/environment-variables/rotating-secrets).
 *
 * A key may stand in a project several times, each with its own value: per environment, per branch of
 * preview, per custom environment. Only the variables that the configuration means are written, by their
 * ids, with everything else on them left as it is; a key that stands there several times without a word
 * about which is meant is refused, and so is one that comes from a variable shared by the team. Plain and
 * encrypted variables can be read one by one, sensitive ones never: then the time of the last change is
 * the sign of it.
 *
 * A change reaches new deployments only, so the latest production deployment is made again (`forceNew`)
 * and waited for until it is ready *and* has its aliases. Earlier deployments keep the old value for as
 * long as they live; they are counted and named. The answer to a create can be 201 and still hold failures.
 */
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import type { Prior } from '../core/model.ts'
import type { AdapterContext } from '../core/provider.ts'
import { secretField, urlField } from '../core/schema.ts'
import { Secret } from '../core/secret.ts'
import { defineTarget, type Delivery, type TargetSession } from '../core/target.ts'
import { type Api, api, listIn, objectIn, plainText, textIn, until } from '../net/json-api.ts'
import { type Back, backsOf, changed, gone, missingIn, type Slot, standingOf } from './_places.ts'

const VENDOR = 'Vercel'
const DEPLOY_LIMIT_MS = 30 * 60_000
/** How often, and how far apart, a deployment is looked for whose answer was lost. */
const LOOKS = 4
const LOOK_PAUSE_MS = 2000
/** Marks what we made, so that an undo deletes nothing else. */
const COMMENT = 'made by rotate'

const FAILED: readonly string[] = ['ERROR', 'CANCELED', 'BLOCKED', 'DELETED']
const STANDARD: readonly string[] = ['production', 'preview', 'development']

const Config = z.strictObject({
  projects: z
    .union([z.literal('*'), z.array(z.string().min(1).max(200)).min(1)])
    .meta({ description: 'Projects: "*" for all, or a list of ids or names' }),
  token: secretField('Access token, best of a dedicated member and scoped to the team'),
  teamId: z
    .string()
    .regex(/^team_\w+$/, 'looks like team_…')
    .optional()
    .meta({ description: 'Team to which the projects belong' }),
  environments: z
    .array(z.string().min(1).max(100))
    .min(1)
    .optional()
    .meta({
      description:
        'Only the variables of these environments: production, preview, development, or custom ones by slug or id. ' +
        'Needed where a project has several variables of the name; without it a new one is made for production',
      examples: [['production', 'preview']],
    }),
  gitBranch: z
    .string()
    .min(1)
    .max(250)
    .optional()
    .meta({ description: 'Of preview, only the variable of this branch; otherwise only the one of all branches' }),
  create: z.boolean().default(false).meta({ description: 'Also write where the variable does not exist yet' }),
  deploy: z.boolean().default(true).meta({ description: 'Make the production deployments again and wait until they are ready' }),
  baseUrl: urlField('Of the API').default('https://api.vercel.com'),
})
type Options = z.output<typeof Config>

interface Project {
  readonly id: string
  readonly name: string
  /** Who owns it: a team or a user. */
  readonly account: string
  /** By slug and by id, where the configuration names some. */
  readonly custom: ReadonlyMap<string, string>
}

interface Variable {
  readonly id: string
  readonly key: string
  readonly made: boolean
  readonly updated: string | null
  readonly about: About
}

/** What else is set on a variable. */
interface About {
  readonly type: string
  readonly target: readonly string[]
  readonly gitBranch: string | null
  readonly customEnvironmentIds: readonly string[]
  readonly comment: string
}

export default defineTarget({
  id: 'vercel',
  title: 'Vercel projects',
  config: Config,
  readable: false,
  deploys: true,
  describe: ({ projects, teamId, environments, gitBranch }) => {
    const which = [...(environments ?? []), ...(gitBranch === undefined ? [] : [`branch ${gitBranch}`])]
    return `Vercel projects ${projects === '*' ? '(all)' : projects.join(', ')}${teamId === undefined ? '' : ` of ${teamId}`}${
      which.length === 0 ? '' : ` (${which.join(', ')})`
    }`
  },
  open: (config, context) => Promise.resolve(openSession(config, context)),
})

function openSession(config: Options, context: AdapterContext): TargetSession {
  const vercel = scoped(api(VENDOR, config.baseUrl, config.token, context), config.teamId)
  let known: readonly Project[] | undefined
  const projects = async (): Promise<readonly Project[]> => (known ??= await projectsOf(vercel, config))
  const session: TargetSession = {
    probe: async () => {
      for (const project of await projects()) await variables(vercel, project)
    },
    standing: async (names) => standingOf(await slotsOf(vercel, config, await projects(), names), names),
    put: async (delivery) => put(vercel, config, await projects(), delivery, context),
    restore: async (prior, old, rest) => restore(vercel, config, await projects(), { prior, old, rest }, context),
    close: () => Promise.resolve(),
  }
  if (config.deploy) session.deploy = async (delivery) => deploy(vercel, config, await projects(), delivery, context)
  return session
}

/** The team stands in the query of every call. */
function scoped(inner: Api, teamId: string | undefined): Api {
  if (teamId === undefined) return inner
  return {
    call: (method, path, body, effect) =>
      inner.call(method, `${path}${path.includes('?') ? '&' : '?'}teamId=${encodeURIComponent(teamId)}`, body, effect),
  }
}

async function projectsOf(vercel: Api, config: Options): Promise<readonly Project[]> {
  const all: Omit<Project, 'custom'>[] = []
  for (let from = ''; ;) {
    const page = objectIn(
      await vercel.call('GET', `/v10/projects?limit=100${from === '' ? '' : `&from=${encodeURIComponent(from)}`}`),
      VENDOR,
    )
    for (const project of listIn(page['projects'], VENDOR)) {
      const { accountId } = project
      const account = typeof accountId === 'string' ? accountId : ''
      all.push({ id: textIn(project, 'id', VENDOR), name: textIn(project, 'name', VENDOR), account })
    }
    const next = objectIn(page['pagination'] ?? {}, VENDOR)['next']
    if ((typeof next !== 'number' && typeof next !== 'string') || String(next) === from) break
    from = String(next)
  }
  const wanted = config.projects
  if (wanted === '*' && all.length === 0)
    throw new AdapterError('misconfigured', 'the token sees no project', { hints: ['a team needs "teamId"'] })
  const chosen =
    wanted === '*'
      ? all
      : wanted.map((want) => {
          const project = all.find(({ id, name }) => id === want || name === want)
          if (project === undefined)
            throw new AdapterError('misconfigured', `there is no project "${want}" that the token can see`, {
              hints: ['a team needs "teamId"'],
            })
          return project
        })
  return withCustom(vercel, config, chosen)
}

/** Throws `misconfigured` for an environment that none of the projects has. */
async function withCustom(
  vercel: Api,
  { environments = [] }: Options,
  projects: readonly Omit<Project, 'custom'>[],
): Promise<readonly Project[]> {
  const named = environments.filter((name) => !STANDARD.includes(name))
  const found: Project[] = []
  for (const project of projects) {
    const custom = new Map<string, string>()
    if (named.length > 0) {
      // https://vercel.com/docs/rest-api/environment/retrieve-custom-environments
      const answer = objectIn(await vercel.call('GET', `${at(project.id)}/custom-environments`), VENDOR)
      for (const one of listIn(answer['environments'], VENDOR)) {
        const id = textIn(one, 'id', VENDOR)
        for (const name of [id, textIn(one, 'slug', VENDOR)]) if (named.includes(name)) custom.set(name, id)
      }
    }
    found.push({ ...project, custom })
  }
  for (const name of named)
    if (!found.some(({ custom }) => custom.has(name)))
      throw new AdapterError('misconfigured', `no chosen project on ${VENDOR} has the environment "${name}"`, {
        hints: ['"environments" takes production, preview, development, and custom ones by slug or id'],
      })
  return found
}

const at = (projectId: string): string => `/v9/projects/${encodeURIComponent(projectId)}`
const textsIn = (list: unknown): readonly string[] => (Array.isArray(list) ? list : [list]).filter((one) => typeof one === 'string')

/** All that people have made; variables of the system have no value of their own. */
async function variables(vercel: Api, { id: project }: Pick<Project, 'id'>): Promise<readonly Variable[]> {
  const answer = objectIn(await vercel.call('GET', `/v10/projects/${encodeURIComponent(project)}/env`), VENDOR)
  return listIn(answer['envs'], VENDOR).flatMap((env) => {
    const { target, comment, gitBranch, updatedAt, customEnvironmentIds } = env
    const type = textIn(env, 'type', VENDOR)
    const about: About = {
      type,
      target: textsIn(target),
      gitBranch: typeof gitBranch === 'string' && gitBranch !== '' ? gitBranch : null,
      customEnvironmentIds: textsIn(customEnvironmentIds),
      comment: typeof comment === 'string' ? comment : '',
    }
    const updated = typeof updatedAt === 'number' || typeof updatedAt === 'string' ? String(updatedAt) : null
    return type === 'system'
      ? []
      : [{ id: textIn(env, 'id', VENDOR), key: textIn(env, 'key', VENDOR), made: comment === COMMENT, updated, about }]
  })
}

/** The variables of this key that are meant. Throws `misconfigured` where that can't be told. */
function meant(config: Options, project: Project, all: readonly Variable[], key: string): readonly Variable[] {
  const same = all.filter((variable) => variable.key === key)
  const wanted = environmentsOf(config)
  if (wanted === undefined) {
    if (same.length > 1) throw several(key, project, same)
    return same
  }
  const found = new Set<Variable>()
  for (const environment of wanted) {
    const of = same.filter((variable) => isOf(variable, environment, config, project))
    if (of.length > 1) throw several(key, project, of)
    for (const variable of of) found.add(variable)
  }
  return [...found]
}

/** A branch is one of preview. */
function environmentsOf({ environments, gitBranch }: Options): readonly string[] | undefined {
  return environments ?? (gitBranch === undefined ? undefined : ['preview'])
}

function isOf({ about }: Variable, environment: string, { gitBranch }: Options, { custom }: Project): boolean {
  const id = custom.get(environment)
  if (id !== undefined) return about.customEnvironmentIds.includes(id)
  return about.target.includes(environment) && about.gitBranch === (environment === 'preview' ? (gitBranch ?? null) : null)
}

function several(key: string, project: Project, found: readonly Variable[]): AdapterError {
  const words = found.map(({ about: { target, customEnvironmentIds, gitBranch } }) => {
    const where = [...target, ...customEnvironmentIds].join(' and ')
    return gitBranch === null ? where : `${where} of the branch ${gitBranch}`
  })
  return new AdapterError(
    'misconfigured',
    `${key} stands ${found.length} times in ${project.name} on ${VENDOR}: ${words.join('; ')}. Each may hold another value`,
    {
      hints: ['say which are meant: "environments": ["production"], and "gitBranch" for the preview of one branch'],
    },
  )
}

/** What stands under these names, variable by variable. */
async function slotsOf(vercel: Api, config: Options, projects: readonly Project[], names: readonly string[]): Promise<readonly Slot[]> {
  const slots: Slot[] = []
  for (const project of projects) {
    const all = await variables(vercel, project)
    for (const name of names) {
      const found = meant(config, project, all, name)
      if (found.length === 0 && config.create) slots.push({ path: project.id, name, kept: null })
      for (const { id, updated, about } of found) {
        const value = await valueOf(vercel, project.id, id, about)
        slots.push({
          path: `${project.id}/${id}`,
          name,
          kept: { ...(value === undefined ? { sign: updated } : { value }), more: { ...about } },
        })
      }
    }
  }
  await refuseShared(vercel, config, projects, names)
  const missing = config.create ? undefined : missingIn(slots, names)
  if (missing !== undefined) throw nowhere(missing)
  return slots
}

/**
 * What a variable holds; `undefined` where nobody, or not this token, is shown it.
 * https://vercel.com/docs/rest-api/projects/retrieve-the-decrypted-value-of-an-environment-variable-of-a-project-by-id
 */
async function valueOf(vercel: Api, project: string, id: string, { type }: About): Promise<Secret | undefined> {
  if (type !== 'plain' && type !== 'encrypted') return undefined
  try {
    const answer = objectIn(await vercel.call('GET', `/v1/projects/${encodeURIComponent(project)}/env/${encodeURIComponent(id)}`), VENDOR)
    const { value, decrypted } = answer
    return typeof value !== 'string' || (type === 'encrypted' && decrypted !== true) ? undefined : new Secret(value)
  } catch (thrown) {
    if (thrown instanceof AdapterError && thrown.code === 'denied') return undefined
    throw thrown
  }
}

/**
 * A variable that the team shares with a project gives it a value that no variable of the project shows,
 * and other projects have it too. https://vercel.com/docs/environment-variables/shared-environment-variables
 */
async function refuseShared(vercel: Api, config: Options, projects: readonly Project[], names: readonly string[]): Promise<void> {
  const wanted = environmentsOf(config)
  const teams = new Set(projects.map(({ account }) => config.teamId ?? account).filter((id) => id.startsWith('team_')))
  for (const team of teams)
    for (const { key, target, linked } of await sharedBy(vercel, team, config)) {
      const project = projects.find(({ id }) => linked.includes(id))
      if (project === undefined || !names.includes(key) || !(wanted?.some((name) => target.includes(name)) ?? true)) continue
      throw new AdapterError(
        'misconfigured',
        `${project.name} on ${VENDOR} has ${key} from a variable that ${team} shares (${target.join(', ')}): this target writes variables of projects only`,
        { hints: [`unlink the shared variable ${key} from ${project.name}, and give the project a variable of its own`] },
      )
    }
}

interface Shared {
  readonly key: string
  readonly target: readonly string[]
  /** Ids of the projects that have it. */
  readonly linked: readonly string[]
}

async function sharedBy(vercel: Api, team: string, { teamId }: Options): Promise<readonly Shared[]> {
  const all: Shared[] = []
  for (let from = ''; ;) {
    const query = { ...(teamId === undefined ? { teamId: team } : {}), ...(from === '' ? {} : { until: from }) }
    const asked = new URLSearchParams(query).toString()
    const page = objectIn(await vercel.call('GET', `/v1/env${asked === '' ? '' : `?${asked}`}`), VENDOR)
    for (const row of listIn(page['data'], VENDOR))
      all.push({ key: textIn(row, 'key', VENDOR), target: textsIn(row['target']), linked: textsIn(row['projectId']) })
    const next = objectIn(page['pagination'] ?? {}, VENDOR)['next']
    if ((typeof next !== 'number' && typeof next !== 'string') || String(next) === from) return all
    from = String(next)
  }
}

function nowhere(name: string): AdapterError {
  return new AdapterError('misconfigured', `no chosen project on ${VENDOR} has the variable ${name}`, {
    hints: ['set it there once, or "create": true'],
  })
}

async function put(vercel: Api, config: Options, projects: readonly Project[], delivery: Delivery, context: AdapterContext): Promise<void> {
  const entries = Object.entries(delivery.entries)
  for (const [, value] of entries) plainText(value)
  const writes: { readonly project: Project; readonly name: string; readonly value: Secret; readonly found: readonly Variable[] }[] = []
  for (const project of projects) {
    const all = await variables(vercel, project)
    for (const [name, value] of entries) {
      const found = meant(config, project, all, name)
      if (found.length > 0 || config.create) writes.push({ project, name, value, found })
    }
  }
  for (const [name] of entries) if (!writes.some((write) => write.name === name)) throw nowhere(name)
  for (const [i, { project, name, value, found }] of writes.entries()) {
    for (const { id } of found) await edit(vercel, project.id, id, value)
    if (found.length === 0) await add(vercel, project, name, value, newOnes(config, project))
    context.note(`${VENDOR}: ${name} in ${project.name} (${i + 1}/${writes.length})`)
  }
}

/** Without `key`, and without what is to stay: a sensitive variable refuses them. */
async function edit(
  vercel: Api,
  projectId: string,
  id: string,
  value: Secret,
  more: Readonly<Record<string, unknown>> = {},
): Promise<void> {
  await vercel.call('PATCH', `${at(projectId)}/env/${encodeURIComponent(id)}`, { value: plainText(value), ...more })
}

/** A sensitive variable can't exist for development, and only one of preview alone has a branch. */
function newOnes(config: Options, { custom }: Project): readonly Readonly<Record<string, unknown>>[] {
  const { gitBranch } = config
  const wanted = environmentsOf(config) ?? ['production']
  const target = wanted.filter((name) => name === 'production' || (name === 'preview' && gitBranch === undefined))
  const customEnvironmentIds = [...new Set(custom.values())]
  return [
    ...(target.length === 0 ? [] : [{ type: 'sensitive', target }]),
    ...(gitBranch !== undefined && wanted.includes('preview') ? [{ type: 'sensitive', target: ['preview'], gitBranch }] : []),
    ...(customEnvironmentIds.length === 0 ? [] : [{ type: 'sensitive', target: [], customEnvironmentIds }]),
    ...(wanted.includes('development') ? [{ type: 'encrypted', target: ['development'] }] : []),
  ].map((part) => ({ ...part, comment: COMMENT }))
}

/** One that was made meanwhile is not overwritten: the vendor refuses the second. */
async function add(
  vercel: Api,
  project: Pick<Project, 'id' | 'name'>,
  key: string,
  value: Secret,
  wanted: readonly Readonly<Record<string, unknown>>[],
): Promise<void> {
  const body = wanted.map((part) => ({ key, value: plainText(value), ...part }))
  const answer = await vercel.call('POST', `/v10/projects/${encodeURIComponent(project.id)}/env`, body, 'once')
  const list = typeof answer === 'object' && answer !== null && 'failed' in answer ? answer.failed : undefined
  const failed: unknown = Array.isArray(list) ? list[0] : undefined
  if (failed === undefined) return
  const { code } = objectIn(objectIn(failed, VENDOR)['error'] ?? {}, VENDOR)
  const why = typeof code === 'string' && /^[A-Za-z_]{1,60}$/.test(code) ? code : 'no reason given'
  throw new AdapterError('failed', `${VENDOR} did not take ${key} in ${project.name}: ${why}`, { effect: 'unknown', retryable: false })
}

interface Known {
  readonly prior: Prior | undefined
  readonly old: Delivery | undefined
  readonly rest: Secret | undefined
}

/** Every variable gets its own value and attributes back, by its id; what we made goes. */
async function restore(
  vercel: Api,
  config: Options,
  projects: readonly Project[],
  { prior, old, rest }: Known,
  context: AdapterContext,
): Promise<void> {
  if (rest === undefined) return restoreOlder(vercel, config, projects, old, context)
  const lists = new Map<string, readonly Variable[]>()
  const emptied = new Set<Project>()
  for (const back of backsOf([], prior, old, rest)) {
    const [projectId = '', id = ''] = back.path.split('/')
    const all = lists.get(projectId) ?? (await variables(vercel, { id: projectId }))
    lists.set(projectId, all)
    const project = projects.find((one) => one.id === projectId) ?? { id: projectId, name: projectId, account: '', custom: new Map() }
    if (back.value !== null) await putBack(vercel, project, back, all, id, context)
    else if (await removeMade(vercel, config, project, back.name, all, context)) emptied.add(project)
  }
  if (config.deploy && emptied.size > 0) await redeploy(vercel, config, [...emptied], old?.id, context)
}

async function putBack(
  vercel: Api,
  project: Project,
  { name, value, sign, more }: Back,
  all: readonly Variable[],
  id: string,
  context: AdapterContext,
): Promise<void> {
  const now = all.find((one) => one.id === id) ?? all.find((one) => one.key === name && same(one.about, more))
  // Nobody has written to it since it was looked at.
  if (now?.id === id && sign !== undefined && sign === now.updated) return
  if (value === undefined || value === null)
    return context.note(`${VENDOR}: what ${name} held in ${project.name} can not be read, so what was written to it stays`)
  if (now === undefined) {
    const wanted = Object.fromEntries(Object.entries(more).filter(([, part]) => part !== null && part !== ''))
    return add(vercel, project, name, value, [wanted])
  }
  const otherwise = changed(more, { ...now.about })
  const held = await valueOf(vercel, project.id, now.id, now.about)
  if (held?.equals(value) === true && Object.keys(otherwise).length === 0) return
  await edit(vercel, project.id, now.id, value, otherwise)
}

/** For the same environments and branch: a key stands only once for each. */
function same(about: About, more: Readonly<Record<string, unknown>>): boolean {
  const { target, gitBranch, customEnvironmentIds } = about
  return Object.keys(changed({ target, gitBranch, customEnvironmentIds }, more)).length === 0
}

/** Those that this configuration makes, and that are marked as made by it. Was there one? */
async function removeMade(
  vercel: Api,
  config: Options,
  project: Project,
  name: string,
  all: readonly Variable[],
  context: AdapterContext,
): Promise<boolean> {
  const wanted = environmentsOf(config)
  const mine = all
    .filter(({ key, made }) => key === name && made)
    .filter((one) => wanted?.some((environment) => isOf(one, environment, config, project)) ?? true)
  for (const { id } of mine) await gone(vercel.call('DELETE', `${at(project.id)}/env/${encodeURIComponent(id)}`))
  if (mine.length > 0) context.note(`${VENDOR}: ${name} removed from ${project.name}`)
  return mine.length > 0
}

/** A run of an older program has noted nothing of what stood there. */
async function restoreOlder(
  vercel: Api,
  config: Options,
  projects: readonly Project[],
  old: Delivery | undefined,
  context: AdapterContext,
): Promise<void> {
  for (const project of projects) {
    const all = await variables(vercel, project)
    for (const name of new Set(all.map(({ key }) => key))) {
      const value = old?.entries[name]
      if (value !== undefined) for (const { id } of meant(config, project, all, name)) await edit(vercel, project.id, id, value)
    }
    if (old === undefined)
      context.note(`${VENDOR}: what was written to ${project.name} stays, because nothing was noted of what stood there`)
  }
}

async function deploy(
  vercel: Api,
  config: Options,
  projects: readonly Project[],
  delivery: Delivery,
  context: AdapterContext,
): Promise<void> {
  const having: Project[] = []
  for (const project of projects) {
    const all = await variables(vercel, project)
    const found = Object.keys(delivery.entries).flatMap((name) => meant(config, project, all, name))
    if (found.some(({ about }) => about.target.includes('production'))) having.push(project)
    else if (found.length > 0) context.note(`${VENDOR}: ${project.name} takes the value with its next deployments; none is of production`)
  }
  await redeploy(vercel, config, having, delivery.id, context)
}

/** Makes the production deployments of these projects again, once for each delivery, and waits for them. */
async function redeploy(
  vercel: Api,
  config: Options,
  projects: readonly Project[],
  delivery: string | undefined,
  context: AdapterContext,
): Promise<void> {
  const started: { readonly project: Project; readonly id: string; readonly earlier: number }[] = []
  for (const project of projects) {
    const production = await deployments(vercel, project)
    const ready = production.filter(({ state }) => state === 'READY')
    const mine = madeFor(production, delivery)
    const base = ready.find(({ substate }) => substate === 'PROMOTED') ?? ready[0]
    if (mine !== undefined) started.push({ project, id: mine.id, earlier: ready.length - (mine.state === 'READY' ? 1 : 0) })
    else if (base === undefined)
      context.note(`${VENDOR}: ${project.name} has no production deployment yet; its first one will take the value`)
    else started.push({ project, id: await again(vercel, project, base.id, delivery, context), earlier: ready.length })
  }
  for (const [i, { project, id, earlier }] of started.entries()) {
    await until(`the deployment of ${project.name} on ${VENDOR}`, context, DEPLOY_LIMIT_MS, () => isLive(vercel, project, id))
    context.note(`${VENDOR}: ${project.name} is deployed (${i + 1}/${started.length})`)
    if (earlier > 0)
      context.note(
        `${VENDOR}: ${earlier} earlier production deployments of ${project.name} (instant rollback), and its previews, still hold the value they were made with`,
      )
  }
}

interface Deployment {
  readonly id: string
  readonly state: string
  readonly substate: unknown
  readonly meta: Readonly<Record<string, unknown>>
}

/** The newest hundred of production, newest first, in whatever state: among all kinds they may be hidden by a hundred previews. */
async function deployments(vercel: Api, project: Project): Promise<readonly Deployment[]> {
  const answer = objectIn(
    await vercel.call('GET', `/v7/deployments?projectId=${encodeURIComponent(project.id)}&limit=100&target=production`),
    VENDOR,
  )
  return listIn(answer['deployments'], VENDOR).map((one) => ({
    id: textIn(one, 'uid', VENDOR),
    state: textIn(one, 'readyState', VENDOR),
    substate: one['readySubstate'],
    meta: objectIn(one['meta'] ?? {}, VENDOR),
  }))
}

function madeFor(found: readonly Deployment[], delivery: string | undefined): Deployment | undefined {
  return found.find(({ state, meta }) => delivery !== undefined && meta['rotateDelivery'] === delivery && !FAILED.includes(state))
}

/**
 * As the vendor's own `vercel redeploy` does it; without `target` it would be a preview. Asked for once:
 * where the answer is lost, the deployment is looked for by the delivery that is noted on it.
 */
async function again(
  vercel: Api,
  project: Project,
  deploymentId: string,
  delivery: string | undefined,
  context: AdapterContext,
): Promise<string> {
  const meta = { action: 'redeploy', ...(delivery === undefined ? {} : { rotateDelivery: delivery }) }
  let failure: AdapterError | undefined
  try {
    const body = { deploymentId, meta, name: project.name, target: 'production' }
    const answer = await vercel.call('POST', '/v13/deployments?forceNew=1', body, 'once')
    const made = typeof answer === 'object' && answer !== null && 'id' in answer ? answer.id : undefined
    if (typeof made === 'string') return made
  } catch (thrown) {
    if (!(thrown instanceof AdapterError) || thrown.effect !== 'unknown') throw thrown
    failure = thrown
  }
  for (let look = 0; look < LOOKS; look++) {
    if (look > 0) await context.clock.sleep(LOOK_PAUSE_MS, context.signal)
    const mine = madeFor(await deployments(vercel, project), delivery)
    if (mine !== undefined) return mine.id
  }
  throw (
    failure ??
    new AdapterError('bad-answer', `${VENDOR} took the deployment of ${project.name}, but no new one is listed`, { effect: 'unknown' })
  )
}

async function isLive(vercel: Api, project: Project, id: string): Promise<boolean> {
  const answer = objectIn(await vercel.call('GET', `/v13/deployments/${encodeURIComponent(id)}`), VENDOR)
  const state = textIn(answer, 'readyState', VENDOR)
  const failed =
    ['ERROR', 'CANCELED', 'BLOCKED', 'DELETED'].includes(state) || (answer['aliasError'] !== undefined && answer['aliasError'] !== null)
  if (failed)
    throw new AdapterError(
      'failed',
      `the deployment of ${project.name} on ${VENDOR} ended as ${/^[A-Z]{1,40}$/.test(state) ? state : 'unknown'}`,
      {
        effect: 'applied',
        retryable: false,
      },
    )
  return state === 'READY' && Boolean(answer['aliasAssigned'])
}
