/**
 * The API of a Kubernetes cluster on loopback, stateful: Secrets, workloads with their
 * controllers, and what each running pod took with it (
 * https://kubernetes.io/docs/reference/using-api/api-concepts/).
 */
import { type Answer, type Asked, FakeHost } from './hosting.ts'

type Json = Record<string, unknown>

interface FakeSecret {
  readonly metadata: Json
  type: string
  immutable?: boolean
  data?: Record<string, string>
}

export interface FakeWorkload {
  readonly kind: string
  readonly name: string
  readonly spec: Json & {
    replicas: number
    template: { metadata: { annotations?: Record<string, string> } }
  }
  generation: number
  observed: number
  /** Reads that a roll-out still takes. */
  steps: number
  /** Data of all Secrets at the time when its pods were started. */
  running: string
  restarts: number
}

/** RFC 7396. */
function merge(into: unknown, patch: unknown): unknown {
  if (typeof patch !== 'object' || patch === null || Array.isArray(patch)) return patch
  const out: Json =
    typeof into === 'object' && into !== null && !Array.isArray(into) ? { ...(into as Json) } : {}
  for (const [key, value] of Object.entries(patch))
    if (value === null) delete out[key]
    else out[key] = merge(out[key], value)
  return out
}

const status = (code: number, reason: string, message: string): Answer => ({
  status: code,
  body: { kind: 'Status', status: 'Failure', reason, message, code },
})

export class FakeKubernetes extends FakeHost {
  readonly namespace = 'production'
  readonly secrets = new Map<string, FakeSecret>()
  readonly workloads = new Map<string, FakeWorkload>()
  /**
   * What the account may not: `patch secrets/app`, `create secrets`,
   * `patch deployments/api`.
   */
  readonly denied = new Set<string>()
  readonly bodies: unknown[] = []
  /** An admission hook that writes something else. */
  mutates = false
  /** An admission hook that refuses with this status, and quotes what it refuses. */
  refuses: number | undefined
  /** Roll-outs do not end: `stuck`, or are given up by the controller: `deadline`. */
  ending: 'done' | 'stuck' | 'deadline' = 'done'
  /** How long roll-outs take, in reads. */
  steps = 3

  add(
    name: string,
    data: Readonly<Record<string, string | Uint8Array>>,
    more: Partial<FakeSecret> = {},
  ): void {
    const encoded = Object.fromEntries(
      Object.entries(data).map(([key, value]) => [key, Buffer.from(value).toString('base64')]),
    )
    this.secrets.set(name, {
      metadata: this.#stamped({ name, namespace: this.namespace }),
      type: 'Opaque',
      ...(Object.keys(data).length === 0 ? {} : { data: encoded }),
      ...more,
    })
  }

  #serial = 0
  /** Every object has an id of its own, and a number that changes with every write. */
  #stamped = (metadata: Json): Json => {
    const version = String(++this.#serial)
    return { uid: `uid-${version}`, ...metadata, resourceVersion: version }
  }

  /** Somebody else sets a key. */
  set(name: string, key: string, value: string): void {
    const held = this.secrets.get(name)
    const data = { ...held?.data, [key]: Buffer.from(value).toString('base64') }
    if (held !== undefined)
      this.secrets.set(name, { ...held, metadata: this.#stamped(held.metadata), data })
  }

  value(name: string, key: string): string | undefined {
    const found = this.secrets.get(name)?.data?.[key]
    return found === undefined ? undefined : Buffer.from(found, 'base64').toString()
  }

  workload(kind: string, name: string, spec: Json = {}): FakeWorkload {
    const fresh: FakeWorkload = {
      kind,
      name,
      spec: { replicas: 2, template: { metadata: {} }, ...spec },
      generation: 1,
      observed: 1,
      steps: 0,
      running: this.#snapshot(),
      restarts: 0,
    }
    this.workloads.set(`${kind}s/${name}`, fresh)
    return fresh
  }

  #snapshot = (): string =>
    JSON.stringify([...this.secrets].map(([name, { data }]) => [name, data]))
  /** Do its pods run with what the Secrets hold now? */
  isFresh = (workload: FakeWorkload): boolean =>
    workload.running === this.#snapshot() && workload.steps === 0

  protected answer(asked: Asked): Answer {
    const { method, url, body } = asked
    this.bodies.push(body)
    if (url.pathname === '/apis/authorization.k8s.io/v1/selfsubjectaccessreviews') {
      const { verb, resource, name, namespace } = (
        body as { spec: { resourceAttributes: Record<string, string> } }
      ).spec.resourceAttributes
      const allowed =
        namespace === this.namespace &&
        !this.denied.has(`${verb} ${resource}${name === undefined ? '' : `/${name}`}`)
      return { status: 201, body: { kind: 'SelfSubjectAccessReview', status: { allowed } } }
    }
    const match = /^\/(?:api\/v1|apis\/apps\/v1)\/namespaces\/([^/]+)\/([^/]+)(?:\/([^/]+))?$/.exec(
      url.pathname,
    )
    const [, namespace, resource = '', name] = match ?? []
    const verb = method === 'POST' ? 'create' : method.toLowerCase()
    const what = `${resource}${name === undefined ? '' : `/${name}`}`
    if (match === null)
      return status(404, 'NotFound', 'the server could not find the requested resource')
    if (namespace !== this.namespace || this.denied.has(`${verb} ${what}`))
      return status(
        403,
        'Forbidden',
        `${resource} "${name}" is forbidden: User "rotate" cannot ${verb} resource ` +
          `"${resource}" in the namespace "${namespace}"`,
      )
    return resource === 'secrets' ? this.#secret(asked, name) : this.#workload(asked, what)
  }

  #secret({ method, headers, body }: Asked, name: string | undefined): Answer {
    if (method === 'POST') {
      const sent = body as FakeSecret & { metadata: { name: string } }
      if (this.secrets.has(sent.metadata.name))
        return status(409, 'AlreadyExists', `secrets "${sent.metadata.name}" already exists`)
      const made = { ...sent, metadata: this.#stamped(sent.metadata) }
      this.secrets.set(sent.metadata.name, made)
      return { status: 201, body: made }
    }
    const held = this.secrets.get(name ?? '')
    if (held === undefined) return status(404, 'NotFound', `secrets "${name}" not found`)
    if (method === 'GET') return { status: 200, body: held }
    if (method === 'DELETE') return this.#remove(name ?? '', held, body)
    if (headers['content-type'] !== 'application/merge-patch+json')
      return status(415, 'UnsupportedMediaType', '')
    if (held.immutable === true)
      return status(422, 'Invalid', 'data: Forbidden: field is immutable when `immutable` is set')
    if (this.refuses !== undefined)
      return status(
        this.refuses,
        'Forbidden',
        `admission webhook "policy" denied the request: ${JSON.stringify(body)}`,
      )
    const patched = merge(held, body) as FakeSecret
    for (const value of Object.values(patched.data ?? {}))
      if (!/^[A-Za-z0-9+/]*={0,2}$/.test(value))
        return status(400, 'BadRequest', `illegal base64 data: ${value}`)
    if (this.mutates && patched.data !== undefined)
      for (const key of Object.keys(patched.data)) patched.data[key] = 'bXV0YXRlZA=='
    const stored = { ...patched, metadata: this.#stamped(patched.metadata) }
    this.secrets.set(name ?? '', stored)
    return { status: 200, body: stored }
  }

  /**
   * https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/delete-options/:
   * "If not possible, a 409 Conflict status will be returned."
   */
  #remove(name: string, held: FakeSecret, body: unknown): Answer {
    const { preconditions } = body as { preconditions: Record<string, string> }
    for (const [key, value] of Object.entries(preconditions))
      if (held.metadata[key] !== value)
        return status(
          409,
          'Conflict',
          `Operation cannot be fulfilled on secrets "${name}": the ${key} in the precondition`,
        )
    this.secrets.delete(name)
    return { status: 200, body: { kind: 'Status', status: 'Success' } }
  }

  #workload({ method, headers, body }: Asked, what: string): Answer {
    const held = this.workloads.get(what)
    if (held === undefined) return status(404, 'NotFound', `${what} not found`)
    if (method === 'PATCH') {
      if (headers['content-type'] !== 'application/strategic-merge-patch+json')
        return status(415, 'UnsupportedMediaType', '')
      const before = JSON.stringify(held.spec)
      Object.assign(held.spec, merge(held.spec, (body as { spec: Json }).spec))
      // A patch that changes nothing starts nothing.
      if (JSON.stringify(held.spec) !== before) {
        held.generation++
        held.restarts++
        held.steps = this.steps
        this.#pending.set(held, this.#snapshot())
      }
      return { status: 200, body: this.#show(held) }
    }
    const shown = this.#show(held)
    this.#advance(held)
    return { status: 200, body: shown }
  }

  readonly #pending = new Map<FakeWorkload, string>()

  #advance(held: FakeWorkload): void {
    if (held.observed < held.generation) held.observed = held.generation
    else if (held.steps > 0 && (this.ending === 'done' || held.steps > 1)) held.steps--
    if (held.steps === 0) held.running = this.#pending.get(held) ?? held.running
  }

  /**
   * Before the controller has seen a change, its numbers are those of before it. Zeros
   * are left out.
   */
  #show(held: FakeWorkload): Json {
    const seen = held.observed === held.generation
    const { replicas } = held.spec
    const steps = seen ? held.steps : 0
    const [updated, available, all] = [
      steps === 3 ? 0 : replicas,
      steps === 1 ? replicas - 1 : replicas,
      steps >= 2 ? replicas + 1 : replicas,
    ]
    const numbers =
      held.kind === 'daemonset'
        ? {
            desiredNumberScheduled: replicas,
            updatedNumberScheduled: updated,
            numberAvailable: steps === 0 ? replicas : 1,
          }
        : held.kind === 'statefulset'
          ? {
              updatedReplicas: updated,
              readyReplicas: available,
              currentRevision: steps >= 2 ? 'old' : 'new',
              updateRevision: 'new',
            }
          : { updatedReplicas: updated, availableReplicas: available, replicas: all }
    const conditions =
      this.ending === 'deadline' && steps === 1
        ? [{ type: 'Progressing', status: 'False', reason: 'ProgressDeadlineExceeded' }]
        : []
    return {
      metadata: { name: held.name, generation: held.generation },
      spec: held.spec,
      status: {
        observedGeneration: held.observed,
        conditions,
        ...Object.fromEntries(Object.entries(numbers).filter(([, value]) => value !== 0)),
      },
    }
  }
}
