/**
 * Environment variables of Vercel projects (reference/providers.md 11; https://vercel.com/docs/environment-variables/rotating-secrets).
 *
 * A change reaches new deployments only, so the latest production deployment is made again (`forceNew`) and waited for until it is ready *and* has its aliases.
 * Earlier deployments keep the old value for as long as they live; they are counted and named. Existing variables are changed by their id, with their targets
 * and type left as they are, because an upsert of one that has several targets can conflict; new ones are `sensitive`. The answer to a create can be 201 and still
 * hold failures. Values of sensitive variables can't be read back, so none is: write-only.
 */
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import type { AdapterContext } from '../core/provider.ts'
import { secretField, urlField } from '../core/schema.ts'
import type { Secret } from '../core/secret.ts'
import { defineTarget, type Delivery, type TargetSession } from '../core/target.ts'
import { type Api, api, listIn, objectIn, plainText, textIn, until } from '../net/json-api.ts'

const VENDOR = 'Vercel'
const DEPLOY_LIMIT_MS = 30 * 60_000
/** Marks what we made, so that an undo deletes nothing else. */
const COMMENT = 'made by rotate'

const FAILED: readonly string[] = ['ERROR', 'CANCELED', 'BLOCKED', 'DELETED']

const environments = ['production', 'preview', 'development'] as const

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
    .array(z.enum(environments))
    .min(1)
    .optional()
    .meta({ description: 'Only variables of these environments; default: all that exist, and production and preview for new ones' }),
  create: z.boolean().default(false).meta({ description: 'Also write where the variable does not exist yet' }),
  deploy: z.boolean().default(true).meta({ description: 'Make the production deployments again and wait until they are ready' }),
  baseUrl: urlField('Of the API').default('https://api.vercel.com'),
})
type Options = z.output<typeof Config>

interface Project {
  readonly id: string
  readonly name: string
}

interface Variable {
  readonly id: string
  readonly key: string
  readonly made: boolean
}

export default defineTarget({
  id: 'vercel',
  title: 'Vercel projects',
  config: Config,
  readable: false,
  deploys: true,
  describe: ({ projects, teamId }) =>
    `Vercel projects ${projects === '*' ? '(all)' : projects.join(', ')}${teamId === undefined ? '' : ` of ${teamId}`}`,
  open: (config, context) => Promise.resolve(openSession(config, context)),
})

function openSession(config: Options, context: AdapterContext): TargetSession {
  const vercel = scoped(api(VENDOR, config.baseUrl, config.token, context), config.teamId)
  let known: readonly Project[] | undefined
  const projects = async (): Promise<readonly Project[]> => (known ??= await projectsOf(vercel, config))
  const session: TargetSession = {
    probe: async () => {
      for (const project of await projects()) await variables(vercel, config, project)
    },
    put: async (delivery) => put(vercel, config, await projects(), delivery, context),
    restore: async (_prior, old) => restore(vercel, config, await projects(), old, context),
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
  const all: Project[] = []
  for (let from = ''; ;) {
    const page = objectIn(
      await vercel.call('GET', `/v10/projects?limit=100${from === '' ? '' : `&from=${encodeURIComponent(from)}`}`),
      VENDOR,
    )
    for (const project of listIn(page['projects'], VENDOR))
      all.push({ id: textIn(project, 'id', VENDOR), name: textIn(project, 'name', VENDOR) })
    const next = objectIn(page['pagination'] ?? {}, VENDOR)['next']
    if ((typeof next !== 'number' && typeof next !== 'string') || String(next) === from) break
    from = String(next)
  }
  const wanted = config.projects
  if (wanted === '*') {
    if (all.length === 0) throw new AdapterError('misconfigured', 'the token sees no project', { hints: ['a team needs "teamId"'] })
    return all
  }
  return wanted.map((want) => {
    const project = all.find(({ id, name }) => id === want || name === want)
    if (project === undefined)
      throw new AdapterError('misconfigured', `there is no project "${want}" that the token can see`, { hints: ['a team needs "teamId"'] })
    return project
  })
}

/** Of the chosen environments. */
async function variables(vercel: Api, config: Options, project: Project): Promise<readonly Variable[]> {
  const answer = objectIn(await vercel.call('GET', `/v10/projects/${encodeURIComponent(project.id)}/env`), VENDOR)
  return listIn(answer['envs'], VENDOR).flatMap((env) => {
    const { target, comment } = env
    const targets: readonly unknown[] = Array.isArray(target) ? target : [target]
    // Variables of a custom environment have no target of the three.
    const fits = config.environments === undefined || targets.some((one) => config.environments?.some((name) => name === one))
    return fits ? [{ id: textIn(env, 'id', VENDOR), key: textIn(env, 'key', VENDOR), made: comment === COMMENT }] : []
  })
}

async function put(vercel: Api, config: Options, projects: readonly Project[], delivery: Delivery, context: AdapterContext): Promise<void> {
  const entries = Object.entries(delivery.entries)
  for (const [, value] of entries) plainText(value)
  const held = await Promise.all(projects.map(async (project) => ({ project, variables: await variables(vercel, config, project) })))
  const touched = config.create
    ? held
    : held.filter(({ variables: have }) => entries.some(([name]) => have.some(({ key }) => key === name)))
  for (const [name] of entries)
    if (!config.create && !touched.some(({ variables: have }) => have.some(({ key }) => key === name)))
      throw new AdapterError('misconfigured', `no chosen project on ${VENDOR} has the variable ${name}`, {
        hints: ['set it there once, or "create": true'],
      })
  for (const [i, { project, variables: have }] of touched.entries()) {
    for (const [name, value] of entries) {
      const same = have.filter(({ key }) => key === name)
      for (const { id } of same) await edit(vercel, project, id, value)
      if (same.length === 0 && config.create) await add(vercel, config, project, name, value)
    }
    context.note(`${VENDOR}: variables of ${project.name} (${i + 1}/${touched.length})`)
  }
}

/** Without `key`, `type` and `target`: they stay, and a sensitive variable refuses them. */
async function edit(vercel: Api, project: Project, id: string, value: Secret): Promise<void> {
  await vercel.call('PATCH', `/v9/projects/${encodeURIComponent(project.id)}/env/${encodeURIComponent(id)}`, { value: plainText(value) })
}

async function add(vercel: Api, config: Options, project: Project, key: string, value: Secret): Promise<void> {
  const target = (config.environments ?? ['production', 'preview']).filter((one) => one !== 'development')
  // A sensitive variable can't exist for development.
  const wanted = [
    ...(target.length === 0 ? [] : [{ type: 'sensitive', target }]),
    ...(config.environments?.includes('development') === true ? [{ type: 'encrypted', target: ['development'] }] : []),
  ]
  const body = wanted.map((part) => ({ key, value: plainText(value), comment: COMMENT, ...part }))
  const answer = objectIn(await vercel.call('POST', `/v10/projects/${encodeURIComponent(project.id)}/env?upsert=true`, body), VENDOR)
  const [failed] = listIn(answer['failed'] ?? [], VENDOR)
  if (failed === undefined) return
  const { code } = objectIn(failed['error'] ?? {}, VENDOR)
  const why = typeof code === 'string' && /^[A-Za-z_]{1,60}$/.test(code) ? code : 'no reason given'
  throw new AdapterError('failed', `${VENDOR} did not take ${key} in ${project.name}: ${why}`, { effect: 'unknown', retryable: false })
}

/** Without an old version only what we made ourselves goes; what somebody else put there can't be read, so it can't be put back, and is left. */
async function restore(
  vercel: Api,
  config: Options,
  projects: readonly Project[],
  old: Delivery | undefined,
  context: AdapterContext,
): Promise<void> {
  for (const project of projects) {
    for (const { id, key, made } of await variables(vercel, config, project)) {
      const value = old?.entries[key]
      if (value !== undefined) await edit(vercel, project, id, value)
      else if (old === undefined && made) {
        await vercel.call('DELETE', `/v9/projects/${encodeURIComponent(project.id)}/env/${encodeURIComponent(id)}`)
        context.note(`${VENDOR}: ${key} removed from ${project.name}`)
      }
    }
  }
}

async function deploy(
  vercel: Api,
  config: Options,
  projects: readonly Project[],
  delivery: Delivery,
  context: AdapterContext,
): Promise<void> {
  const started: { readonly project: Project; readonly id: string; readonly earlier: number }[] = []
  for (const project of projects) {
    const have = await variables(vercel, config, project)
    if (!have.some(({ key }) => Object.hasOwn(delivery.entries, key))) continue
    // Asked for by themselves: among the newest of all kinds a production deployment may be hidden by a hundred previews.
    const production = await deployments(vercel, project, '&target=production')
    const ready = production.filter(({ state }) => state === 'READY')
    const mine = production.find(({ state, meta }) => meta['rotateDelivery'] === delivery.id && !FAILED.includes(state))
    const base = ready.find(({ substate }) => substate === 'PROMOTED') ?? ready[0]
    if (mine !== undefined) started.push({ project, id: mine.id, earlier: ready.length - (mine.state === 'READY' ? 1 : 0) })
    else if (base === undefined)
      context.note(`${VENDOR}: ${project.name} has no production deployment yet; its first one will take the value`)
    else started.push({ project, id: await again(vercel, project, base.id, delivery.id), earlier: ready.length })
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

/** The newest hundred, newest first, in whatever state. */
async function deployments(vercel: Api, project: Project, filter: string): Promise<readonly Deployment[]> {
  const answer = objectIn(
    await vercel.call('GET', `/v7/deployments?projectId=${encodeURIComponent(project.id)}&limit=100${filter}`),
    VENDOR,
  )
  return listIn(answer['deployments'], VENDOR).map((one) => ({
    id: textIn(one, 'uid', VENDOR),
    state: textIn(one, 'readyState', VENDOR),
    substate: one['readySubstate'],
    meta: objectIn(one['meta'] ?? {}, VENDOR),
  }))
}

/** As the vendor's own `vercel redeploy` does it; without `target` it would be a preview. */
async function again(vercel: Api, project: Project, deploymentId: string, delivery: string): Promise<string> {
  const body = { deploymentId, meta: { action: 'redeploy', rotateDelivery: delivery }, name: project.name, target: 'production' }
  return textIn(objectIn(await vercel.call('POST', '/v13/deployments?forceNew=1', body), VENDOR), 'id', VENDOR)
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
