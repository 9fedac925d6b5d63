/**
 * Restarts workloads so that their pods take a new value, and waits until they have. This
 * follows `kubectl rollout restart` and `kubectl rollout status`: an annotation of the
 * pod template changes, and the controller's status tells how far it is.
 * https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#deployment-status
 */
import { AdapterError } from '../core/errors.ts'
import type { AdapterContext } from '../core/provider.ts'
import type { KubeObject, Kubernetes } from '../net/kubernetes.ts'
import { until } from '../net/json-api.ts'

const LIMIT_MS = 15 * 60_000
const RESTARTED = 'kubectl.kubernetes.io/restartedAt'
/**
 * The annotation that names the delivery for which the pods were restarted, so that
 * repeating a delivery restarts nothing.
 */
const DELIVERY = 'rotate-delivery'

export interface Workload {
  readonly kind: 'deployment' | 'statefulset' | 'daemonset'
  readonly name: string
  readonly path: string
}

export function workloadOf(text: string, namespace: string): Workload {
  const [kind = '', name = ''] = text.split('/')
  return {
    kind: kind as Workload['kind'],
    name,
    path: `/apis/apps/v1/namespaces/${namespace}/${kind}s/${name}`,
  }
}

const within = (from: unknown, ...keys: readonly string[]): unknown =>
  keys.reduce<unknown>(
    (at, key) => (typeof at === 'object' && at !== null ? (at as KubeObject)[key] : undefined),
    from,
  )
/** Kubernetes leaves a count out of the status when it is zero. */
const count = (from: unknown, ...keys: readonly string[]): number => {
  const found = within(from, ...keys)
  return typeof found === 'number' ? found : 0
}

/**
 * Checks that the workload exists and that its controller replaces all pods when the
 * template changes.
 */
export async function probeWorkload(
  kube: Kubernetes,
  { kind, name, path }: Workload,
): Promise<void> {
  const found = await kube.get(path).catch((thrown: unknown) => {
    if (!(thrown instanceof AdapterError) || thrown.code !== 'missing') throw thrown
    throw new AdapterError('misconfigured', `there is no ${kind} ${name} in this namespace`, {
      hints: ['correct "restart" or "namespace"'],
    })
  })
  const stuck = (why: string): never => {
    throw new AdapterError(
      'misconfigured',
      `the ${kind} ${name} ${why}, so a restart would never end`,
    )
  }
  if (within(found, 'spec', 'paused') === true) stuck('is paused')
  if (within(found, 'spec', 'updateStrategy', 'type') === 'OnDelete')
    stuck('replaces its pods only when they are deleted')
  if (count(found, 'spec', 'updateStrategy', 'rollingUpdate', 'partition') > 0)
    stuck('has a partition, below which no pod is replaced')
}

/** Restarts all workloads first and then waits for each. */
export async function rollOut(
  kube: Kubernetes,
  workloads: readonly Workload[],
  deliveryId: string,
  context: AdapterContext,
): Promise<void> {
  const started: { readonly workload: Workload; readonly generation: number }[] = []
  for (const workload of workloads) {
    const before = await kube.get(workload.path)
    const now =
      within(before, 'spec', 'template', 'metadata', 'annotations', DELIVERY) === deliveryId
        ? before
        : await restart(kube, workload, deliveryId, context)
    started.push({ workload, generation: count(now, 'metadata', 'generation') })
  }
  for (const [i, { workload, generation }] of started.entries()) {
    const what = `the ${workload.kind} ${workload.name}`
    await until(`the roll-out of ${what}`, context, LIMIT_MS, async () =>
      finished(workload, await kube.get(workload.path), generation),
    )
    context.note(`Kubernetes: ${what} runs with it (${i + 1}/${started.length})`)
  }
}

function restart(
  kube: Kubernetes,
  { path }: Workload,
  deliveryId: string,
  context: AdapterContext,
): Promise<KubeObject> {
  const annotations = {
    [RESTARTED]: new Date(context.clock.now()).toISOString().replace(/\.\d+/, ''),
    [DELIVERY]: deliveryId,
  }
  return kube.patch(path, {
    type: 'application/strategic-merge-patch+json',
    body: { spec: { template: { metadata: { annotations } } } },
  })
}

function finished({ kind, name }: Workload, object: KubeObject, generation: number): boolean {
  // Until the controller has seen the change, its status describes the state before it.
  if (count(object, 'status', 'observedGeneration') < generation) return false
  const status = (key: string): number => count(object, 'status', key)
  if (kind === 'daemonset') {
    const wanted = status('desiredNumberScheduled')
    return status('updatedNumberScheduled') >= wanted && status('numberAvailable') >= wanted
  }
  const replicas = within(object, 'spec', 'replicas')
  const wanted = typeof replicas === 'number' ? replicas : 1
  if (kind === 'statefulset')
    return (
      status('updatedReplicas') >= wanted &&
      status('readyReplicas') >= wanted &&
      within(object, 'status', 'currentRevision') === within(object, 'status', 'updateRevision')
    )
  const conditions = within(object, 'status', 'conditions')
  if (
    Array.isArray(conditions) &&
    conditions.some((condition) => within(condition, 'reason') === 'ProgressDeadlineExceeded')
  )
    throw new AdapterError(
      'failed',
      `the roll-out of the deployment ${name} does not get on (ProgressDeadlineExceeded)`,
      {
        effect: 'applied',
        retryable: false,
        hints: [`kubectl rollout status deployment/${name}`],
      },
    )
  // Old pods use the old value until they have ended.
  const updated = status('updatedReplicas')
  return (
    updated >= wanted && status('replicas') <= updated && status('availableReplicas') >= updated
  )
}
