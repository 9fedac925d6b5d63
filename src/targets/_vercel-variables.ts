/**
 * Reads Vercel projects and their environment variables, and selects the variables that a
 * configuration means.
 */
import { AdapterError } from '../core/errors.ts'
import { Secret } from '../core/secret.ts'
import { type Api, listIn, objectIn, textIn } from '../net/json-api.ts'

export const VENDOR = 'Vercel'
/**
 * The comment that marks a variable as made by this program, so that an undo deletes no
 * other.
 */
export const COMMENT = 'made by rotate'
const STANDARD: readonly string[] = ['production', 'preview', 'development']

/** The part of the configuration that selects variables. */
interface Choice {
  readonly projects: '*' | readonly string[]
  readonly teamId?: string | undefined
  readonly environments?: readonly string[] | undefined
  readonly gitBranch?: string | undefined
}

export interface Project {
  readonly id: string
  readonly name: string
  /** The id of the team or user that owns the project. */
  readonly account: string
  /**
   * The ids of the custom environments, by slug and by id; read only if the configuration
   * names such an environment.
   */
  readonly custom: ReadonlyMap<string, string>
}

export interface Variable {
  readonly id: string
  readonly key: string
  readonly made: boolean
  readonly updated: string | null
  readonly about: About
}

/** The attributes of a variable besides its value. */
export interface About {
  readonly type: string
  readonly target: readonly string[]
  readonly gitBranch: string | null
  readonly customEnvironmentIds: readonly string[]
  readonly comment: string
}

export async function projectsOf(vercel: Api, config: Choice): Promise<readonly Project[]> {
  const all: Omit<Project, 'custom'>[] = []
  for (let from = ''; ;) {
    const page = objectIn(
      await vercel.call(
        'GET',
        `/v10/projects?limit=100${from === '' ? '' : `&from=${encodeURIComponent(from)}`}`,
      ),
      VENDOR,
    )
    for (const project of listIn(page['projects'], VENDOR)) {
      const { accountId } = project
      const account = typeof accountId === 'string' ? accountId : ''
      all.push({
        id: textIn(project, 'id', VENDOR),
        name: textIn(project, 'name', VENDOR),
        account,
      })
    }
    const next = objectIn(page['pagination'] ?? {}, VENDOR)['next']
    if ((typeof next !== 'number' && typeof next !== 'string') || String(next) === from) break
    from = String(next)
  }
  const wanted = config.projects
  if (wanted === '*' && all.length === 0)
    throw new AdapterError('misconfigured', 'the token sees no project', {
      hints: ['a team needs "teamId"'],
    })
  const chosen =
    wanted === '*'
      ? all
      : wanted.map((want) => {
          const project = all.find(({ id, name }) => id === want || name === want)
          if (project === undefined)
            throw new AdapterError(
              'misconfigured',
              `there is no project "${want}" that the token can see`,
              {
                hints: ['a team needs "teamId"'],
              },
            )
          return project
        })
  return withCustom(vercel, config, chosen)
}

/** Throws `misconfigured` for an environment that none of the projects has. */
async function withCustom(
  vercel: Api,
  { environments = [] }: Choice,
  projects: readonly Omit<Project, 'custom'>[],
): Promise<readonly Project[]> {
  const named = environments.filter((name) => !STANDARD.includes(name))
  const found: Project[] = []
  for (const project of projects) {
    const custom = new Map<string, string>()
    if (named.length > 0) {
      // https://vercel.com/docs/rest-api/environment/retrieve-custom-environments
      const answer = objectIn(
        await vercel.call('GET', `${at(project.id)}/custom-environments`),
        VENDOR,
      )
      for (const one of listIn(answer['environments'], VENDOR)) {
        const id = textIn(one, 'id', VENDOR)
        for (const name of [id, textIn(one, 'slug', VENDOR)])
          if (named.includes(name)) custom.set(name, id)
      }
    }
    found.push({ ...project, custom })
  }
  for (const name of named)
    if (!found.some(({ custom }) => custom.has(name)))
      throw new AdapterError(
        'misconfigured',
        `no chosen project on ${VENDOR} has the environment "${name}"`,
        {
          hints: [
            '"environments" takes production, preview, development, and custom ones by slug or id',
          ],
        },
      )
  return found
}

export const at = (projectId: string): string => `/v9/projects/${encodeURIComponent(projectId)}`
const textsIn = (list: unknown): readonly string[] =>
  (Array.isArray(list) ? list : [list]).filter((one) => typeof one === 'string')

/**
 * Reads all variables that people have made. Those that the system provides have no value
 * of their own and are skipped.
 */
export async function variables(
  vercel: Api,
  { id: project }: Pick<Project, 'id'>,
): Promise<readonly Variable[]> {
  const answer = objectIn(
    await vercel.call('GET', `/v10/projects/${encodeURIComponent(project)}/env`),
    VENDOR,
  )
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
    const updated =
      typeof updatedAt === 'number' || typeof updatedAt === 'string' ? String(updatedAt) : null
    return type === 'system'
      ? []
      : [
          {
            id: textIn(env, 'id', VENDOR),
            key: textIn(env, 'key', VENDOR),
            made: comment === COMMENT,
            updated,
            about,
          },
        ]
  })
}

/**
 * Selects the variables of this key that the configuration means. Throws `misconfigured`
 * if it is ambiguous.
 */
export function meant(
  config: Choice,
  project: Project,
  all: readonly Variable[],
  key: string,
): readonly Variable[] {
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

/** The configured environments. A Git branch implies the environment preview. */
export function environmentsOf({ environments, gitBranch }: Choice): readonly string[] | undefined {
  return environments ?? (gitBranch === undefined ? undefined : ['preview'])
}

export function isOf(
  { about }: Variable,
  environment: string,
  { gitBranch }: Choice,
  { custom }: Project,
): boolean {
  const id = custom.get(environment)
  if (id !== undefined) return about.customEnvironmentIds.includes(id)
  return (
    about.target.includes(environment) &&
    about.gitBranch === (environment === 'preview' ? (gitBranch ?? null) : null)
  )
}

function several(key: string, project: Project, found: readonly Variable[]): AdapterError {
  const words = found.map(({ about: { target, customEnvironmentIds, gitBranch } }) => {
    const where = [...target, ...customEnvironmentIds].join(' and ')
    return gitBranch === null ? where : `${where} of the branch ${gitBranch}`
  })
  return new AdapterError(
    'misconfigured',
    `${key} stands ${found.length} times in ${project.name} on ${VENDOR}: ` +
      `${words.join('; ')}. Each may hold another value`,
    {
      hints: [
        'say which are meant: "environments": ["production"], and "gitBranch" for the preview ' +
          'of one branch',
      ],
    },
  )
}

/**
 * Reads a variable's value; `undefined` if it is shown to nobody or not to this token.
 * https://vercel.com/docs/rest-api/projects/retrieve-the-decrypted-value-of-an-environment-variable-of-a-project-by-id
 */
export async function valueOf(
  vercel: Api,
  project: string,
  id: string,
  { type }: About,
): Promise<Secret | undefined> {
  if (type !== 'plain' && type !== 'encrypted') return undefined
  try {
    const answer = objectIn(
      await vercel.call(
        'GET',
        `/v1/projects/${encodeURIComponent(project)}/env/${encodeURIComponent(id)}`,
      ),
      VENDOR,
    )
    const { value, decrypted } = answer
    return typeof value !== 'string' || (type === 'encrypted' && decrypted !== true)
      ? undefined
      : new Secret(value)
  } catch (thrown) {
    if (thrown instanceof AdapterError && thrown.code === 'denied') return undefined
    throw thrown
  }
}

/**
 * Refuses a key that comes from a variable which the team shares: no variable of the
 * project shows its value, and other projects have it too.
 * https://vercel.com/docs/environment-variables/shared-environment-variables
 */
export async function refuseShared(
  vercel: Api,
  config: Choice,
  projects: readonly Project[],
  names: readonly string[],
): Promise<void> {
  const wanted = environmentsOf(config)
  const teams = new Set(
    projects.map(({ account }) => config.teamId ?? account).filter((id) => id.startsWith('team_')),
  )
  for (const team of teams)
    for (const { key, target, linked } of await sharedBy(vercel, team, config)) {
      const project = projects.find(({ id }) => linked.includes(id))
      if (
        project === undefined ||
        !names.includes(key) ||
        !(wanted?.some((name) => target.includes(name)) ?? true)
      )
        continue
      throw new AdapterError(
        'misconfigured',
        `${project.name} on ${VENDOR} has ${key} from a variable that ${team} shares ` +
          `(${target.join(', ')}): this target writes variables of projects only`,
        {
          hints: [
            `unlink the shared variable ${key} from ${project.name}, and give the project a ` +
              'variable of its own',
          ],
        },
      )
    }
}

interface Shared {
  readonly key: string
  readonly target: readonly string[]
  /** Ids of the projects with which the variable is shared. */
  readonly linked: readonly string[]
}

async function sharedBy(vercel: Api, team: string, { teamId }: Choice): Promise<readonly Shared[]> {
  const all: Shared[] = []
  for (let from = ''; ;) {
    const query = {
      ...(teamId === undefined ? { teamId: team } : {}),
      ...(from === '' ? {} : { until: from }),
    }
    const asked = new URLSearchParams(query).toString()
    const page = objectIn(
      await vercel.call('GET', `/v1/env${asked === '' ? '' : `?${asked}`}`),
      VENDOR,
    )
    for (const row of listIn(page['data'], VENDOR))
      all.push({
        key: textIn(row, 'key', VENDOR),
        target: textsIn(row['target']),
        linked: textsIn(row['projectId']),
      })
    const next = objectIn(page['pagination'] ?? {}, VENDOR)['next']
    if ((typeof next !== 'number' && typeof next !== 'string') || String(next) === from) return all
    from = String(next)
  }
}
