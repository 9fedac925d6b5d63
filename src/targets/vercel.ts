/**
 * Environment variables of Vercel projects
 * (https://vercel.com/docs/environment-variables/rotating-secrets).
 *
 * A key may stand in a project several times, each with its own value: per environment,
 * per branch of preview, per custom environment. Only the variables that the
 * configuration means are written, by their ids and without touching their other
 * attributes. A key that stands there several times is refused unless the configuration
 * says which one is meant, and so is a key that comes from a variable shared by the team.
 * Plain and encrypted variables can be read one by one, sensitive ones never: there the
 * time of the last change shows whether somebody has written.
 *
 * A change reaches new deployments only, so the latest production deployment is made
 * again (`forceNew`) and waited for until it is ready *and* has its aliases. Earlier
 * deployments keep the old value for as long as they live; their number is reported. The
 * answer to a create can be 201 and still report failures.
 */
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import type { Prior } from '../core/model.ts'
import type { AdapterContext } from '../core/provider.ts'
import { secretField, urlField } from '../core/schema.ts'
import type { Secret } from '../core/secret.ts'
import { defineTarget, type Delivery, type TargetSession } from '../core/target.ts'
import { type Api, api, objectIn, plainText } from '../net/json-api.ts'
import {
  type Back,
  backsOf,
  changed,
  awaitDeleted,
  missingIn,
  type Slot,
  standingOf,
} from './_places.ts'
import { redeploy } from './_vercel-deployments.ts'
import {
  type About,
  at,
  COMMENT,
  environmentsOf,
  isOf,
  meant,
  type Project,
  projectsOf,
  refuseShared,
  valueOf,
  type Variable,
  variables,
  VENDOR,
} from './_vercel-variables.ts'

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
        'Only the variables of these environments: production, preview, development, or ' +
        'custom ones by slug or id. ' +
        'Needed where a project has several variables of the name; without it a new one is ' +
        'made for production',
      examples: [['production', 'preview']],
    }),
  gitBranch: z.string().min(1).max(250).optional().meta({
    description:
      'Of preview, only the variable of this branch; otherwise only the one of all branches',
  }),
  create: z
    .boolean()
    .default(false)
    .meta({ description: 'Also write where the variable does not exist yet' }),
  deploy: z
    .boolean()
    .default(true)
    .meta({ description: 'Make the production deployments again and wait until they are ready' }),
  baseUrl: urlField('Of the API').default('https://api.vercel.com'),
})
type Options = z.output<typeof Config>

export default defineTarget({
  id: 'vercel',
  title: 'Vercel projects',
  example: { projects: ['shop'], token: { secret: 'infra/vercel/TOKEN' } },
  config: Config,
  readable: false,
  deploys: ({ deploy }) => deploy,
  slots: ({ projects, teamId = '', environments = ['every environment'], gitBranch = '' }, name) =>
    [projects]
      .flat()
      .flatMap((project) =>
        environments.map(
          (environment) => `${teamId} ${project} ${environment} ${gitBranch} ${name}`,
        ),
      ),
  describe: ({ projects, teamId, environments, gitBranch }) => {
    const which = [
      ...(environments ?? []),
      ...(gitBranch === undefined ? [] : [`branch ${gitBranch}`]),
    ]
    return `Vercel projects ${projects === '*' ? '(all)' : projects.join(', ')}${teamId === undefined ? '' : ` of ${teamId}`}${
      which.length === 0 ? '' : ` (${which.join(', ')})`
    }`
  },
  open: (config, context) => Promise.resolve(openSession(config, context)),
})

function openSession(config: Options, context: AdapterContext): TargetSession {
  const vercel = scoped(api(VENDOR, config.baseUrl, config.token, context), config.teamId)
  let known: readonly Project[] | undefined
  const projects = async (): Promise<readonly Project[]> =>
    (known ??= await projectsOf(vercel, config))
  const session: TargetSession = {
    probe: async () => {
      for (const project of await projects()) await variables(vercel, project)
    },
    standing: async (names) =>
      standingOf(await slotsOf(vercel, config, await projects(), names), names),
    put: async (delivery) => put(vercel, config, await projects(), delivery, context),
    restore: async (prior, old, rest) =>
      restore(vercel, config, await projects(), { prior, old, rest }, context),
    close: () => Promise.resolve(),
  }
  if (config.deploy)
    session.deploy = async (delivery) => deploy(vercel, config, await projects(), delivery, context)
  return session
}

/** Adds the team to the query of every call. */
function scoped(inner: Api, teamId: string | undefined): Api {
  if (teamId === undefined) return inner
  return {
    call: (method, path, body, effect) =>
      inner.call(
        method,
        `${path}${path.includes('?') ? '&' : '?'}teamId=${encodeURIComponent(teamId)}`,
        body,
        effect,
      ),
  }
}

/** Reads what stands under these names, variable by variable. */
async function slotsOf(
  vercel: Api,
  config: Options,
  projects: readonly Project[],
  names: readonly string[],
): Promise<readonly Slot[]> {
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

function nowhere(name: string): AdapterError {
  return new AdapterError(
    'misconfigured',
    `no chosen project on ${VENDOR} has the variable ${name}`,
    {
      hints: ['set it there once, or "create": true'],
    },
  )
}

async function put(
  vercel: Api,
  config: Options,
  projects: readonly Project[],
  delivery: Delivery,
  context: AdapterContext,
): Promise<void> {
  const entries = Object.entries(delivery.entries)
  for (const [, value] of entries) plainText(value)
  const writes: {
    readonly project: Project
    readonly name: string
    readonly value: Secret
    readonly found: readonly Variable[]
  }[] = []
  for (const project of projects) {
    const all = await variables(vercel, project)
    for (const [name, value] of entries) {
      const found = meant(config, project, all, name)
      if (found.length > 0 || config.create) writes.push({ project, name, value, found })
    }
  }
  for (const [name] of entries)
    if (!writes.some((write) => write.name === name)) throw nowhere(name)
  for (const [i, { project, name, value, found }] of writes.entries()) {
    for (const { id } of found) await edit(vercel, project.id, id, value)
    if (found.length === 0) await add(vercel, project, name, value, newOnes(config, project))
    context.note(`${VENDOR}: ${name} in ${project.name} (${i + 1}/${writes.length})`)
  }
}

/**
 * Changes a variable. The call names neither `key` nor the attributes that stay, because
 * Vercel refuses them for a sensitive variable.
 */
async function edit(
  vercel: Api,
  projectId: string,
  id: string,
  value: Secret,
  more: Readonly<Record<string, unknown>> = {},
): Promise<void> {
  await vercel.call('PATCH', `${at(projectId)}/env/${encodeURIComponent(id)}`, {
    value: plainText(value),
    ...more,
  })
}

/**
 * Describes the variables to make. A sensitive variable can't exist for development, and
 * only a variable of preview alone can have a branch.
 */
function newOnes(
  config: Options,
  { custom }: Project,
): readonly Readonly<Record<string, unknown>>[] {
  const { gitBranch } = config
  const wanted = environmentsOf(config) ?? ['production']
  const target = wanted.filter(
    (name) => name === 'production' || (name === 'preview' && gitBranch === undefined),
  )
  const customEnvironmentIds = [...new Set(custom.values())]
  return [
    ...(target.length === 0 ? [] : [{ type: 'sensitive', target }]),
    ...(gitBranch !== undefined && wanted.includes('preview')
      ? [{ type: 'sensitive', target: ['preview'], gitBranch }]
      : []),
    ...(customEnvironmentIds.length === 0
      ? []
      : [{ type: 'sensitive', target: [], customEnvironmentIds }]),
    ...(wanted.includes('development') ? [{ type: 'encrypted', target: ['development'] }] : []),
  ].map((part) => ({ ...part, comment: COMMENT }))
}

/**
 * Makes variables. If somebody has made one meanwhile it is not overwritten, because
 * Vercel refuses a second one.
 */
async function add(
  vercel: Api,
  project: Pick<Project, 'id' | 'name'>,
  key: string,
  value: Secret,
  wanted: readonly Readonly<Record<string, unknown>>[],
): Promise<void> {
  const body = wanted.map((part) => ({ key, value: plainText(value), ...part }))
  const answer = await vercel.call(
    'POST',
    `/v10/projects/${encodeURIComponent(project.id)}/env`,
    body,
    'once',
  )
  const list =
    typeof answer === 'object' && answer !== null && 'failed' in answer ? answer.failed : undefined
  const failed: unknown = Array.isArray(list) ? list[0] : undefined
  if (failed === undefined) return
  const { code } = objectIn(objectIn(failed, VENDOR)['error'] ?? {}, VENDOR)
  const why = typeof code === 'string' && /^[A-Za-z_]{1,60}$/.test(code) ? code : 'no reason given'
  throw new AdapterError('failed', `${VENDOR} did not take ${key} in ${project.name}: ${why}`, {
    effect: 'unknown',
    retryable: false,
  })
}

interface Known {
  readonly prior: Prior | undefined
  readonly old: Delivery | undefined
  readonly rest: Secret | undefined
}

/**
 * Gives every variable its own value and attributes back, by its id, and removes those
 * that were made.
 */
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
    const project = projects.find((one) => one.id === projectId) ?? {
      id: projectId,
      name: projectId,
      account: '',
      custom: new Map(),
    }
    if (back.value !== null) await putBack(vercel, project, back, all, id, context)
    else if (await removeMade(vercel, config, project, back.name, all, context))
      emptied.add(project)
  }
  if (config.deploy && emptied.size > 0) await redeploy(vercel, [...emptied], old?.id, context)
}

async function putBack(
  vercel: Api,
  project: Project,
  { name, value, sign, more }: Back,
  all: readonly Variable[],
  id: string,
  context: AdapterContext,
): Promise<void> {
  const now =
    all.find((one) => one.id === id) ?? all.find((one) => one.key === name && same(one.about, more))
  // The time shows that nobody has written to it since it was looked at.
  if (now?.id === id && sign !== undefined && sign === now.updated) return
  if (value === undefined || value === null)
    return context.note(
      `${VENDOR}: what ${name} held in ${project.name} can not be read, so what was written ` +
        'to it stays',
    )
  if (now === undefined) {
    const wanted = Object.fromEntries(
      Object.entries(more).filter(([, part]) => part !== null && part !== ''),
    )
    return add(vercel, project, name, value, [wanted])
  }
  const otherwise = changed(more, { ...now.about })
  const held = await valueOf(vercel, project.id, now.id, now.about)
  if (held?.equals(value) === true && Object.keys(otherwise).length === 0) return
  await edit(vercel, project.id, now.id, value, otherwise)
}

/**
 * Tells whether a variable is for the same environments and branch, for which a key can
 * stand only once.
 */
function same(about: About, more: Readonly<Record<string, unknown>>): boolean {
  const { target, gitBranch, customEnvironmentIds } = about
  return Object.keys(changed({ target, gitBranch, customEnvironmentIds }, more)).length === 0
}

/**
 * Removes the variables that this configuration makes and whose comment marks them as
 * made by this program. Returns whether there was one.
 */
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
  for (const { id } of mine)
    await awaitDeleted(vercel.call('DELETE', `${at(project.id)}/env/${encodeURIComponent(id)}`))
  if (mine.length > 0) context.note(`${VENDOR}: ${name} removed from ${project.name}`)
  return mine.length > 0
}

/**
 * Undoes a run of an earlier version of this program, which noted nothing of what stood
 * there.
 */
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
      if (value !== undefined)
        for (const { id } of meant(config, project, all, name))
          await edit(vercel, project.id, id, value)
    }
    if (old === undefined)
      context.note(
        `${VENDOR}: what was written to ${project.name} stays, because nothing was noted of ` +
          'what stood there',
      )
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
    else if (found.length > 0)
      context.note(
        `${VENDOR}: ${project.name} takes the value with its next deployments; none is of ` +
          'production',
      )
  }
  await redeploy(vercel, having, delivery.id, context)
}
