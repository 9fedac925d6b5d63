/**
 * Netlify's variables and builds on loopback, after
 * https://open-api.netlify.com: a value
 * per context, secret ones that show nothing, a build that takes with it what was there.
 */
import { type Answer, type Asked, FakeHost } from './hosting.ts'

interface FakeValue {
  readonly id: string
  readonly context: string
  value: string
}

interface FakeVariable {
  readonly values: FakeValue[]
  readonly secret: boolean
  scopes: readonly string[]
  updated: number
}

const SCOPES = ['builds', 'functions']

export interface FakeSite {
  readonly variables: Map<string, FakeVariable>
  /** What the live deploy was built with, in its own context or in all. */
  running: Map<string, string>
  readonly deploys: Map<string, { asked: number; readonly taken: Map<string, string> }>
}

export class FakeNetlify extends FakeHost {
  readonly account = 'team'
  readonly sites = new Map<string, FakeSite>()
  /** The next build ends like this. */
  outcome = 'ready'
  #clock = 1_700_000_000_000

  site(
    id: string,
    variables: Readonly<Record<string, Readonly<Record<string, string>>>> = {},
    secret = false,
  ): FakeSite {
    const made: FakeSite = { variables: new Map(), running: new Map(), deploys: new Map() }
    for (const [key, values] of Object.entries(variables)) this.variable(made, key, values, secret)
    made.running = this.#live(made)
    this.sites.set(id, made)
    return made
  }

  /** A variable as people make it. */
  variable(
    site: FakeSite,
    key: string,
    values: Readonly<Record<string, string>>,
    secret = false,
  ): void {
    site.variables.set(key, {
      secret,
      scopes: SCOPES,
      updated: ++this.#clock,
      values: Object.entries(values).map(([context, value]) => ({
        id: this.id('val'),
        context,
        value,
      })),
    })
  }

  value(site: string, key: string, context = 'all'): string | undefined {
    return this.sites
      .get(site)
      ?.variables.get(key)
      ?.values.find((value) => value.context === context)?.value
  }

  #live({ variables }: FakeSite): Map<string, string> {
    const effective = ({ values }: FakeVariable): string | undefined =>
      (
        values.find(({ context }) => context === 'production') ??
        values.find(({ context }) => context === 'all')
      )?.value
    return new Map(
      [...variables].flatMap(([key, variable]) => {
        const value = effective(variable)
        return value === undefined ? [] : [[key, value] as const]
      }),
    )
  }

  protected answer({ method, url, body }: Asked): Answer {
    const [kind = '', owner = '', part = '', key = '', word = '', valueId = ''] = url.pathname
      .split('/')
      .slice(1)
      .map(decodeURIComponent)
    if (kind === 'sites') return this.#build(method, owner, part, key)
    const site = this.sites.get(url.searchParams.get('site_id') ?? '')
    if (kind !== 'accounts' || owner !== this.account || part !== 'env' || site === undefined)
      return { status: 404, body: { message: 'Not Found' } }
    const shown = ([name, { values, secret, scopes, updated }]: readonly [
      string,
      FakeVariable,
    ]): object => ({
      key: name,
      scopes,
      is_secret: secret,
      updated_at: new Date(updated).toISOString(),
      values: values.map((value) => ({ ...value, value: secret ? '' : value.value })),
    })
    if (key === '' && method === 'GET') return { status: 200, body: [...site.variables].map(shown) }
    if (key === '') {
      const given = body as readonly {
        key: string
        scopes?: readonly string[]
        is_secret?: boolean
        values: { context: string; value: string }[]
      }[]
      for (const { key: name, values, scopes = SCOPES, is_secret: secret = false } of given) {
        if (site.variables.has(name)) return { status: 422, body: { message: 'already exists' } }
        const updated = ++this.#clock
        site.variables.set(name, {
          secret,
          scopes,
          updated,
          values: values.map((value) => ({ id: this.id('val'), ...value })),
        })
      }
      return { status: 201, body: [] }
    }
    const variable = site.variables.get(key)
    if (variable === undefined) return { status: 404, body: { message: 'Not Found' } }
    if (method === 'DELETE') {
      const at = variable.values.findIndex(({ id }) => word === 'value' && id === valueId)
      if (at < 0) return { status: 404, body: { message: 'Not Found' } }
      variable.values.splice(at, 1)
      if (variable.values.length === 0) site.variables.delete(key)
      return { status: 204 }
    }
    if (method !== 'PATCH') throw new Error('PUT would replace the values of all contexts')
    const { context, value } = body as { context: string; value: string }
    const own = variable.values.find((one) => one.context === context)
    if (own === undefined) variable.values.push({ id: this.id('val'), context, value })
    else own.value = value
    variable.updated = ++this.#clock
    return { status: 201, body: shown([key, variable]) }
  }

  #build(method: string, id: string, part: string, deployId: string): Answer {
    const site = this.sites.get(id)
    if (site === undefined) return { status: 404, body: { message: 'Not Found' } }
    if (method === 'POST' && part === 'builds') {
      const made = this.id('deploy')
      site.deploys.set(made, { asked: 0, taken: this.#live(site) })
      return { status: 200, body: { id: this.id('build'), deploy_id: made, done: false } }
    }
    if (method === 'GET' && part === 'deploys' && deployId === '')
      return {
        status: 200,
        body: [...site.deploys.keys()]
          .toReversed()
          .map((one) => ({ id: one, state: 'ready', context: 'production' })),
      }
    const deploy = site.deploys.get(deployId)
    if (part !== 'deploys' || deploy === undefined)
      return { status: 404, body: { message: 'Not Found' } }
    if (deploy.asked++ < this.work)
      return {
        status: 200,
        body: { id: deployId, state: deploy.asked === 1 ? 'enqueued' : 'building' },
      }
    if (this.outcome === 'ready') site.running = deploy.taken
    return { status: 200, body: { id: deployId, state: this.outcome } }
  }
}
