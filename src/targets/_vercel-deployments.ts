/**
 * Makes the production deployments of Vercel projects again, so that they take the
 * present values of the variables.
 */
import type { AdapterContext } from '../core/provider.ts'
import { type Api, listIn, objectIn, textIn } from '../net/json-api.ts'
import { deployFailed, type Started, startDeploy, waitForDeploys } from './_deploys.ts'
import { type Project, VENDOR } from './_vercel-variables.ts'
import { pickDefined } from '../core/defined.ts'

const DEPLOY_LIMIT_MS = 30 * 60_000
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
  const started: Started[] = []
  for (const project of projects) {
    const production = await deployments(vercel, project)
    const ready = production.filter(({ state }) => state === 'READY')
    const mine = madeFor(production, delivery)
    const base = ready.find(({ substate }) => substate === 'PROMOTED') ?? ready[0]
    if (mine !== undefined)
      started.push(
        startedAs(vercel, project, mine.id, ready.length - (mine.state === 'READY' ? 1 : 0)),
      )
    else if (base === undefined)
      context.note(
        `${VENDOR}: ${project.name} has no production deployment yet; its first one will ` +
          'take the value',
      )
    else {
      const id = await again(vercel, project, base.id, delivery, context)
      started.push(startedAs(vercel, project, id, ready.length))
    }
  }
  await waitForDeploys(started, DEPLOY_LIMIT_MS, context)
}

/** @param earlier how many production deployments hold the value they were made with */
function startedAs(vercel: Api, project: Project, id: string, earlier: number): Started {
  const what = `the deployment of ${project.name} on ${VENDOR}`
  return {
    what,
    isDone: () => isLive(vercel, what, id),
    notes: (count) => [
      `${VENDOR}: ${project.name} is deployed (${count})`,
      ...(earlier > 0
        ? [
            `${VENDOR}: ${earlier} earlier production deployments of ${project.name} (instant ` +
              'rollback), and its previews, still hold the value they were made with',
          ]
        : []),
    ],
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
  const body = { deploymentId, meta, name: project.name, target: 'production' }
  return startDeploy(
    {
      ask: () => vercel.call('POST', '/v13/deployments?forceNew=1', body, 'once'),
      key: 'id',
      find: async () => madeFor(await deployments(vercel, project), delivery)?.id,
      unlisted: `${VENDOR} took the deployment of ${project.name}, but no new one is listed`,
    },
    context,
  )
}

async function isLive(vercel: Api, what: string, id: string): Promise<boolean> {
  const answer = objectIn(
    await vercel.call('GET', `/v13/deployments/${encodeURIComponent(id)}`),
    VENDOR,
  )
  const state = textIn(answer, 'readyState', VENDOR)
  const failed =
    FAILED.includes(state) || (answer['aliasError'] !== undefined && answer['aliasError'] !== null)
  if (failed) throw deployFailed(what, state, /^[A-Z]{1,40}$/)
  return state === 'READY' && Boolean(answer['aliasAssigned'])
}
