/**
 * Makes the production deployments of Vercel projects again, so that they take the
 * present values of the variables.
 */
import { AdapterError } from '../core/errors.ts'
import type { AdapterContext } from '../core/provider.ts'
import { type Api, listIn, objectIn, textIn, until } from '../net/json-api.ts'
import { type Project, VENDOR } from './_vercel-variables.ts'
import { pickDefined } from '../core/defined.ts'

const DEPLOY_LIMIT_MS = 30 * 60_000
/** How often, and how far apart, a deployment is looked for whose answer was lost. */
const LOOKS = 4
const LOOK_PAUSE_MS = 2000
const FAILED: readonly string[] = ['ERROR', 'CANCELED', 'BLOCKED', 'DELETED']

/**
 * Makes the production deployments of these projects again, once per delivery, and waits
 * for them.
 */
export async function redeploy(
  vercel: Api,
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
    if (mine !== undefined)
      started.push({
        project,
        id: mine.id,
        earlier: ready.length - (mine.state === 'READY' ? 1 : 0),
      })
    else if (base === undefined)
      context.note(
        `${VENDOR}: ${project.name} has no production deployment yet; its first one will ` +
          'take the value',
      )
    else
      started.push({
        project,
        id: await again(vercel, project, base.id, delivery, context),
        earlier: ready.length,
      })
  }
  for (const [i, { project, id, earlier }] of started.entries()) {
    await until(`the deployment of ${project.name} on ${VENDOR}`, context, DEPLOY_LIMIT_MS, () =>
      isLive(vercel, project, id),
    )
    context.note(`${VENDOR}: ${project.name} is deployed (${i + 1}/${started.length})`)
    if (earlier > 0)
      context.note(
        `${VENDOR}: ${earlier} earlier production deployments of ${project.name} (instant ` +
          'rollback), and its previews, still hold the value they were made with',
      )
  }
}

interface Deployment {
  readonly id: string
  readonly state: string
  readonly substate: unknown
  readonly meta: Readonly<Record<string, unknown>>
}

/**
 * The hundred newest production deployments in any state, newest first. Without the
 * filter, a hundred previews could hide them.
 */
async function deployments(vercel: Api, project: Project): Promise<readonly Deployment[]> {
  const answer = objectIn(
    await vercel.call(
      'GET',
      `/v7/deployments?projectId=${encodeURIComponent(project.id)}&limit=100&target=production`,
    ),
    VENDOR,
  )
  return listIn(answer['deployments'], VENDOR).map((one) => ({
    id: textIn(one, 'uid', VENDOR),
    state: textIn(one, 'readyState', VENDOR),
    substate: one['readySubstate'],
    meta: objectIn(one['meta'] ?? {}, VENDOR),
  }))
}

function madeFor(
  found: readonly Deployment[],
  delivery: string | undefined,
): Deployment | undefined {
  return found.find(
    ({ state, meta }) =>
      delivery !== undefined && meta['rotateDelivery'] === delivery && !FAILED.includes(state),
  )
}

/**
 * Makes a deployment again, as the vendor's own `vercel redeploy` does; without `target`
 * it would be a preview. It is requested only once: if the answer is lost, the deployment
 * is looked for by the delivery id that is noted on it.
 */
async function again(
  vercel: Api,
  project: Project,
  deploymentId: string,
  delivery: string | undefined,
  context: AdapterContext,
): Promise<string> {
  const meta = { action: 'redeploy', ...pickDefined({ rotateDelivery: delivery }) }
  let failure: AdapterError | undefined
  try {
    const body = { deploymentId, meta, name: project.name, target: 'production' }
    const answer = await vercel.call('POST', '/v13/deployments?forceNew=1', body, 'once')
    const made =
      typeof answer === 'object' && answer !== null && 'id' in answer ? answer.id : undefined
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
    new AdapterError(
      'bad-answer',
      `${VENDOR} took the deployment of ${project.name}, but no new one is listed`,
      { effect: 'unknown' },
    )
  )
}

async function isLive(vercel: Api, project: Project, id: string): Promise<boolean> {
  const answer = objectIn(
    await vercel.call('GET', `/v13/deployments/${encodeURIComponent(id)}`),
    VENDOR,
  )
  const state = textIn(answer, 'readyState', VENDOR)
  const failed =
    ['ERROR', 'CANCELED', 'BLOCKED', 'DELETED'].includes(state) ||
    (answer['aliasError'] !== undefined && answer['aliasError'] !== null)
  if (failed)
    throw new AdapterError(
      'failed',
      `the deployment of ${project.name} on ${VENDOR} ended as ` +
        `${/^[A-Z]{1,40}$/.test(state) ? state : 'unknown'}`,
      {
        effect: 'applied',
        retryable: false,
      },
    )
  return state === 'READY' && Boolean(answer['aliasAssigned'])
}
