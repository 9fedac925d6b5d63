/**
 * GitLab's variables on loopback, after
 * https://docs.gitlab.com/api/project_level_variables/: the same name once per
 * scope, masked ones that refuse odd values, hidden ones that show nothing.
 */
import { type Answer, type Asked, FakeHost } from './hosting.ts'

export interface FakeVariable {
  readonly key: string
  value: string
  readonly scope: string
  masked: boolean
  readonly hidden: boolean
  raw: boolean
  protected: boolean
  variable_type: string
  description: string | null
}

const PLAIN = {
  value: '',
  scope: '*',
  masked: false,
  hidden: false,
  raw: false,
  protected: false,
  variable_type: 'env_var',
  description: null,
}

export class FakeGitlab extends FakeHost {
  /** By `projects/ID` or `groups/ID`. */
  readonly owners = new Map<string, FakeVariable[]>()
  pageSize = 100

  owner(
    id: string,
    ...variables: readonly (Partial<FakeVariable> & { readonly key: string })[]
  ): FakeVariable[] {
    const all = variables.map((one) => this.variable(one))
    this.owners.set(id, all)
    return all
  }

  variable(given: Partial<FakeVariable> & { readonly key: string }): FakeVariable {
    return { ...PLAIN, ...given }
  }

  protected answer({ method, url, body }: Asked): Answer {
    const [kind = '', id = '', part = '', key = ''] = url.pathname
      .split('/')
      .slice(1)
      .map(decodeURIComponent)
    const all = this.owners.get(`${kind}/${id}`)
    if (all === undefined || part !== 'variables')
      return { status: 404, body: { message: '404 Project Not Found' } }
    const shown = ({ value, scope, ...rest }: FakeVariable): object => ({
      ...rest,
      value: rest.hidden ? null : value,
      environment_scope: scope,
    })
    if (key === '' && method === 'GET') {
      const size = Math.min(this.pageSize, Number(url.searchParams.get('per_page') ?? '20'))
      const from = (Number(url.searchParams.get('page') ?? '1') - 1) * size
      return { status: 200, body: all.slice(from, from + size).map(shown) }
    }
    const given = body as (Partial<FakeVariable> & { environment_scope?: string }) | undefined
    const { masked, raw, protected: guarded, variable_type: type, description } = given ?? {}
    const set = Object.fromEntries(
      Object.entries({ masked, raw, protected: guarded, variable_type: type, description }).filter(
        ([, one]) => one !== undefined,
      ),
    )
    const odd = (masked: boolean): boolean =>
      masked && !/^[\w+/=@:.~$"# -]{8,}$/.test(given?.value ?? '')
    if (key === '') {
      const scope = given?.environment_scope ?? '*'
      if (all.some((one) => one.key === given?.key && one.scope === scope))
        return { status: 400, body: { message: { key: ['has already been taken'] } } }
      if (odd(given?.masked === true))
        return { status: 400, body: { message: { value: ['is invalid'] } } }
      const made: FakeVariable = {
        ...PLAIN,
        key: given?.key ?? '',
        value: given?.value ?? '',
        scope,
        ...set,
      }
      all.push(made)
      return { status: 201, body: shown(made) }
    }
    const scope = url.searchParams.get('filter[environment_scope]')
    const found = all.filter((one) => one.key === key && (scope === null || one.scope === scope))
    const [variable] = found
    if (variable === undefined) return { status: 404, body: { message: '404 Variable Not Found' } }
    if (found.length > 1)
      return {
        status: 409,
        body: {
          message:
            'There are multiple variables with provided parameters. Please use ' +
            "'filter[environment_scope]'",
        },
      }
    if (method === 'DELETE') {
      all.splice(all.indexOf(variable), 1)
      return { status: 204 }
    }
    if (odd(given?.masked ?? variable.masked))
      return { status: 400, body: { message: { value: ['is invalid'] } } }
    Object.assign(variable, set, { value: given?.value ?? variable.value })
    return { status: 200, body: shown(variable) }
  }
}
