/**
 * Render and Vercel on loopback, stateful: variables, and what each running deployment
 * took with it, after https://api-docs.render.com and
 * https://vercel.com/docs/rest-api. A request without the right token
 * is 401; `faults` are used up by the next calls that fit.
 */
import { createServer, type IncomingHttpHeaders, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'

export interface Fault {
  readonly method: string
  readonly path: RegExp
  readonly status: number
  /** Do the work before the answer is given. */
  readonly after?: true
}

export interface Asked {
  readonly method: string
  readonly url: URL
  readonly headers: IncomingHttpHeaders
  readonly body: unknown
}

export interface Answer {
  readonly status: number
  readonly body?: unknown
}

export abstract class FakeHost {
  readonly token = 'hosting-token-0123456789'
  readonly calls: string[] = []
  readonly faults: Fault[] = []
  /**
   * What somebody else does just before, or just after, the next call that fits is
   * carried out.
   */
  readonly others: {
    readonly method: string
    readonly path: RegExp
    readonly when: 'before' | 'after'
    readonly act: () => void
  }[] = []
  /**
   * So many questions find a deployment still at work; with 0 it is live at the first.
   */
  work = 2
  #server: Server | undefined
  #serial = 0

  get url(): string {
    const address = this.#server?.address() as AddressInfo
    return `http://127.0.0.1:${address.port}`
  }

  id(prefix: string): string {
    return `${prefix}${++this.#serial}`
  }

  async start(): Promise<this> {
    this.#server = createServer((request, response) => {
      const parts: Buffer[] = []
      request.on('data', (part: Buffer) => parts.push(part))
      request.on('end', () => {
        const { method = '', headers } = request
        const url = new URL(request.url ?? '', 'http://x')
        this.calls.push(`${method} ${url.pathname}`)
        const text = Buffer.concat(parts).toString()
        const asked: Asked = {
          method,
          url,
          headers,
          body: text === '' ? undefined : JSON.parse(text),
        }
        const at = this.faults.findIndex(
          (fault) => fault.method === method && fault.path.test(url.pathname),
        )
        const [fault] = at < 0 ? [] : this.faults.splice(at, 1)
        const { status, body } =
          headers.authorization !== `Bearer ${this.token}`
            ? { status: 401, body: { error: { code: 'forbidden' } } }
            : fault !== undefined && fault.after !== true
              ? { status: fault.status, body: {} }
              : this.#amongOthers(asked)
        response.writeHead(fault?.after === true ? fault.status : status, {
          'content-type': 'application/json',
        })
        response.end(body === undefined ? '' : JSON.stringify(body))
      })
    })
    await new Promise<void>((resolve) => this.#server?.listen(0, '127.0.0.1', resolve))
    return this
  }

  async stop(): Promise<void> {
    this.#server?.closeAllConnections()
    await new Promise((resolve) => this.#server?.close(resolve))
  }

  #amongOthers(asked: Asked): Answer {
    const elsewhere = (when: 'before' | 'after'): void => {
      const at = this.others.findIndex(
        (other) =>
          other.when === when &&
          other.method === asked.method &&
          other.path.test(asked.url.pathname),
      )
      for (const { act } of at < 0 ? [] : this.others.splice(at, 1)) act()
    }
    elsewhere('before')
    const answer = structuredClone(this.answer(asked))
    elsewhere('after')
    return answer
  }

  protected abstract answer(asked: Asked): Answer
}

const copy = (of: ReadonlyMap<string, string>): Map<string, string> => new Map(of)

export class FakeRender extends FakeHost {
  readonly services = new Map<
    string,
    {
      readonly name: string
      suspended: boolean
      readonly env: Map<string, string>
      running: Map<string, string>
    }
  >()
  readonly groups = new Map<
    string,
    { readonly name: string; readonly env: Map<string, string>; readonly links: string[] }
  >()
  readonly deploys = new Map<string, { readonly service: string; polls: number; ends: string }>()
  /** A deploy is taken without being named. */
  queues = false
  /** How the next deploys end. */
  ending = 'live'
  pageSize = 1

  service(name: string, env: Readonly<Record<string, string>> = {}): string {
    const id = this.id('srv-')
    this.services.set(id, {
      name,
      suspended: false,
      env: new Map(Object.entries(env)),
      running: new Map(Object.entries(env)),
    })
    return id
  }

  group(name: string, env: Readonly<Record<string, string>>, links: string[]): string {
    const id = this.id('evg-')
    this.groups.set(id, { name, env: new Map(Object.entries(env)), links })
    return id
  }

  protected answer({ method, url, body }: Asked): Answer {
    const [kind = '', id = '', part = '', key = ''] = url.pathname
      .split('/')
      .slice(1)
      .map(decodeURIComponent)
    const page = <T>(all: readonly T[], shape: (item: T) => object): Answer => {
      const from = Number(url.searchParams.get('cursor') ?? '0')
      return {
        status: 200,
        body: all
          .slice(from, from + this.pageSize)
          .map((item, i) => ({ cursor: String(from + i + 1), ...shape(item) })),
      }
    }
    if (method === 'GET' && id === '') {
      return kind === 'services'
        ? page([...this.services], ([srv, { name, suspended }]) => ({
            service: { id: srv, name, suspended: suspended ? 'suspended' : 'not_suspended' },
          }))
        : page([...this.groups], ([evg, { name }]) => ({ envGroup: { id: evg, name } }))
    }
    const place = kind === 'services' ? this.services.get(id) : this.groups.get(id)
    if (place === undefined) return { status: 404, body: { message: 'not found' } }
    if (part === 'env-vars') {
      if (method === 'GET')
        return page([...place.env], ([name, value]) => ({ envVar: { key: name, value } }))
      // The call that deletes everything else must never be made.
      if (key === '') throw new Error('PUT of the whole list')
      if (method === 'DELETE') return { status: place.env.delete(key) ? 204 : 404 }
      const { value } = body as { value: string }
      if (value === '') return { status: 400, body: { message: 'empty' } }
      place.env.set(key, value)
      return { status: 200, body: { key, value } }
    }
    const group = this.groups.get(id)
    if (group !== undefined)
      return {
        status: 200,
        body: {
          id,
          name: group.name,
          envVars: [...group.env].map(([name, value]) => ({ key: name, value })),
          serviceLinks: group.links.map((srv) => ({
            id: srv,
            name: this.services.get(srv)?.name ?? '',
            type: 'web_service',
          })),
        },
      }
    if (method === 'POST') {
      const dep = this.id('dep-')
      this.deploys.set(dep, { service: id, polls: this.work, ends: this.ending })
      // 201 with the deploy, 202 when it is queued:
      // https://api-docs.render.com/reference/create-deploy
      return this.queues ? { status: 202 } : { status: 201, body: { id: dep, status: 'created' } }
    }
    if (key === '') {
      const [newest] = [...this.deploys].filter(([, deploy]) => deploy.service === id).toReversed()
      return {
        status: 200,
        body:
          newest === undefined
            ? []
            : [{ cursor: '1', deploy: { id: newest[0], status: 'created' } }],
      }
    }
    const deploy = this.deploys.get(key)
    if (deploy === undefined) return { status: 404, body: {} }
    if (deploy.polls-- > 0) return { status: 200, body: { id: key, status: 'update_in_progress' } }
    const service = this.services.get(id)
    if (service !== undefined && deploy.ends === 'live') {
      const linked = [...this.groups.values()]
        .filter(({ links }) => links.includes(id))
        .flatMap(({ env }) => [...env])
      service.running = new Map([...linked, ...service.env])
    }
    return { status: 200, body: { id: key, status: deploy.ends } }
  }
}

export interface VercelVariable {
  readonly id: string
  readonly key: string
  value: string
  type: string
  target: readonly string[]
  gitBranch?: string | null
  customEnvironmentIds?: readonly string[]
  comment?: string
  updatedAt: number
}

export class FakeVercel extends FakeHost {
  readonly projects = new Map<
    string,
    { readonly name: string; readonly env: VercelVariable[]; running: Map<string, string> }
  >()
  readonly deployments: {
    uid: string
    projectId: string
    name: string
    target: string
    state: string
    substate: string
    polls: number
    meta: object
    env: Map<string, string>
  }[] = []
  ending = 'READY'
  /** Refuses new variables inside a 201. */
  failing: string | undefined
  /** Deployments that are made again keep the variables of the one they are made from. */
  inherits = false
  teamId: string | undefined
  /** Slug by id, in every project. */
  readonly custom = new Map<string, string>()
  readonly shared: {
    readonly key: string
    readonly target: readonly string[]
    readonly projectId: readonly string[]
  }[] = []
  #clock = 1_700_000_000_000

  /** One more variable, as people make it. */
  variable(
    project: string,
    key: string,
    value: string,
    about: Partial<VercelVariable> = {},
  ): VercelVariable {
    const made = {
      id: this.id('env_'),
      key,
      value,
      type: 'encrypted',
      target: ['production'],
      updatedAt: ++this.#clock,
      ...about,
    }
    this.projects.get(project)?.env.push(made)
    return made
  }

  project(name: string, env: Readonly<Record<string, string>> = {}, type = 'sensitive'): string {
    const id = this.id('prj_')
    const list = Object.entries(env).map(([key, value]): VercelVariable => ({
      id: this.id('env_'),
      key,
      value,
      type,
      target: ['production', 'preview'],
      updatedAt: ++this.#clock,
    }))
    const running = new Map(Object.entries(env))
    this.projects.set(id, { name, env: list, running })
    this.deployments.unshift({
      uid: this.id('dpl_'),
      projectId: id,
      name,
      target: 'production',
      state: 'READY',
      substate: 'PROMOTED',
      polls: 0,
      meta: {},
      env: copy(running),
    })
    return id
  }

  protected answer({ method, url, body }: Asked): Answer {
    if (this.teamId !== undefined && url.searchParams.get('teamId') !== this.teamId)
      return { status: 403, body: { error: { code: 'forbidden' } } }
    const [version = '', kind = '', id = '', part = '', env = ''] = url.pathname
      .split('/')
      .slice(1)
      .map(decodeURIComponent)
    if (version === 'v1' && kind === 'env')
      return {
        status: 200,
        body: {
          data: this.shared.map((one) => ({ id: 'env_s', type: 'encrypted', ...one })),
          pagination: { count: 1, next: null },
        },
      }
    if (kind === 'projects' && id === '') {
      const accountId = this.teamId ?? 'user'
      const all = [...this.projects].map(([projectId, { name }]) => ({
        id: projectId,
        name,
        accountId,
      }))
      const from = Number(url.searchParams.get('from') ?? '0')
      return {
        status: 200,
        body: {
          projects: all.slice(from, from + 1),
          pagination: { count: 1, next: from + 1 < all.length ? from + 1 : null },
        },
      }
    }
    if (kind === 'projects' && part === 'custom-environments')
      return {
        status: 200,
        body: { environments: [...this.custom].map(([custom, slug]) => ({ id: custom, slug })) },
      }
    if (kind === 'projects') return this.#variables(method, version, id, part, env, body)
    if (method === 'POST') return this.#deploy(url, body as Record<string, unknown>)
    if (version === 'v7') {
      const [wanted, state] = [url.searchParams.get('target'), url.searchParams.get('state')]
      const list = this.deployments
        .filter((one) => one.projectId === url.searchParams.get('projectId'))
        .filter(
          (one) =>
            (wanted === null || one.target === wanted) && (state === null || one.state === state),
        )
        .slice(0, Number(url.searchParams.get('limit') ?? '20'))
      return {
        status: 200,
        body: {
          deployments: list.map(({ uid, name, target, state, substate, meta }) => ({
            uid,
            name,
            target,
            readyState: state,
            readySubstate: substate,
            meta,
          })),
          pagination: {},
        },
      }
    }
    const one =
      version === 'v13' && kind === 'deployments'
        ? this.deployments.find(({ uid }) => uid === id)
        : undefined
    if (one === undefined) return { status: 404, body: {} }
    if (one.polls-- > 0) return { status: 200, body: { id, readyState: 'BUILDING' } }
    one.state = this.ending
    if (one.state !== 'READY') return { status: 200, body: { id, readyState: one.state } }
    // Ready first; its aliases follow.
    const promoted = one.substate === 'PROMOTED'
    one.substate = 'PROMOTED'
    if (!promoted && this.work > 0)
      return { status: 200, body: { id, readyState: 'READY', aliasAssigned: false } }
    const project = this.projects.get(one.projectId)
    if (project !== undefined && one.target === 'production') project.running = one.env
    return { status: 200, body: { id, readyState: 'READY', aliasAssigned: 1, aliasError: null } }
  }

  #variables(
    method: string,
    version: string,
    id: string,
    part: string,
    env: string,
    body: unknown,
  ): Answer {
    const project = this.projects.get(id)
    if (project === undefined || part !== 'env')
      return { status: 404, body: { error: { code: 'not_found' } } }
    if (method === 'GET' && env === '')
      return {
        status: 200,
        body: {
          envs: project.env.map(({ value: _hidden, ...rest }) => ({
            ...rest,
            value: 'ciphertext',
          })),
        },
      }
    if (method === 'POST') {
      if (this.failing !== undefined)
        return {
          status: 201,
          body: { created: [], failed: [{ error: { code: this.failing, message: 'no' } }] },
        }
      for (const { key, value, ...about } of body as Omit<VercelVariable, 'id' | 'updatedAt'>[]) {
        if (about.type === 'sensitive' && about.target.includes('development'))
          return { status: 400, body: { error: { code: 'BAD_REQUEST' } } }
        const taken = project.env.some(
          (one) =>
            one.key === key &&
            (one.gitBranch ?? null) === (about.gitBranch ?? null) &&
            (one.target.some((name) => about.target.includes(name)) ||
              (one.customEnvironmentIds ?? []).some((name) =>
                about.customEnvironmentIds?.includes(name),
              )),
        )
        if (taken)
          return {
            status: 201,
            body: { created: [], failed: [{ error: { code: 'ENV_CONFLICT', message: 'exists' } }] },
          }
        this.variable(id, key, value, about)
      }
      return { status: 201, body: { created: [], failed: [] } }
    }
    const at = project.env.findIndex((variable) => variable.id === env)
    const variable = project.env[at]
    if (variable === undefined) return { status: 404, body: { error: { code: 'ENV_NOT_FOUND' } } }
    if (method === 'GET') {
      if (version !== 'v1') return { status: 404, body: { error: { code: 'not_found' } } }
      const { value, ...about } = variable
      return {
        status: 200,
        body:
          variable.type === 'sensitive'
            ? { ...about, decrypted: false, value: '' }
            : { ...about, decrypted: true, value },
      }
    }
    if (method === 'DELETE') project.env.splice(at, 1)
    else {
      // "when PATCHing a sensitive one do not send key" (providers.md 11).
      const { value, ...about } = body as Partial<VercelVariable>
      if ('key' in about || (variable.type === 'sensitive' && 'type' in about))
        return { status: 400, body: { error: { code: 'BAD_REQUEST' } } }
      Object.assign(variable, about, { value: value ?? variable.value, updatedAt: ++this.#clock })
    }
    return { status: 200, body: {} }
  }

  #deploy(url: URL, body: Record<string, unknown>): Answer {
    const base = this.deployments.find(({ uid }) => uid === body['deploymentId'])
    if (base === undefined || url.searchParams.get('forceNew') !== '1')
      return { status: 400, body: { error: { code: 'BAD_REQUEST' } } }
    const target = typeof body['target'] === 'string' ? body['target'] : 'preview'
    const all = this.projects.get(base.projectId)?.env ?? []
    const variables = all.filter(
      (variable) => variable.target.includes(target) && (variable.gitBranch ?? null) === null,
    )
    const env = this.inherits
      ? copy(base.env)
      : new Map(variables.map(({ key, value }) => [key, value]))
    const uid = this.id('dpl_')
    this.deployments.unshift({
      uid,
      projectId: base.projectId,
      name: base.name,
      target,
      state: 'BUILDING',
      substate: 'STAGED',
      polls: this.work,
      meta: body['meta'] as object,
      env,
    })
    return { status: 200, body: { id: uid, readyState: 'QUEUED' } }
  }
}
