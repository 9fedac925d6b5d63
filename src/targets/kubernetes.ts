/**
 * Keys of a Secret in a Kubernetes cluster, and a restart of what uses it
 * (https://kubernetes.io/docs/reference/kubernetes-api/config-and-storage-resources/secret-v1/).
 *
 * A merge patch names the configured keys only. All other keys stay as they are, even if
 * somebody writes at the same time, and nobody's ownership of a field changes. The answer
 * is the Secret as it is stored, which proves the write. A pod takes variables of its
 * environment only at a restart, for which there is `restart`; mounted files follow by
 * themselves within about a minute, which the grace has to cover. A Secret that was made
 * for a delivery carries an annotation that says so. An undo deletes it if nothing else
 * has been added or changed; the deletion is bound to the state that was looked at.
 */
import { resolve } from 'node:path'
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import type { Prior } from '../core/model.ts'
import type { AdapterContext } from '../core/provider.ts'
import { secretField, urlField } from '../core/schema.ts'
import { Secret } from '../core/secret.ts'
import { defineTarget, type Delivery, type Standing, type TargetSession } from '../core/target.ts'
import { objectIn } from '../net/json-api.ts'
import { type KubeObject, kubernetes, type Kubernetes } from '../net/kubernetes.ts'
import { clusterOf } from './_kubeconfig.ts'
import { probeWorkload, rollOut, type Workload, workloadOf } from './_kubernetes-rollout.ts'

const VENDOR = 'Kubernetes'
/** The annotation of a Secret that a delivery made; it names the delivery. */
const MADE_FOR = 'rotate-made-for'
/** How often the Secret is read again if others change it at the same time. */
const TRIES = 5
const NAME = '[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?'

const file = (description: string) =>
  z
    .string()
    .min(1)
    .optional()
    .meta({ description: `${description}; made absolute when set` })

const Config = z
  .strictObject({
    namespace: z
      .string()
      .regex(/^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$/, 'is not the name of a namespace')
      .meta({ description: 'Namespace of the Secret and of the workloads' }),
    secret: z
      .string()
      .regex(new RegExp(`^${NAME}$`), 'is not the name of a Secret')
      .meta({ description: 'Name of the Secret' }),
    key: z
      .string()
      .regex(/^[A-Za-z0-9._{}-]{1,253}$/, 'is not a key of a Secret')
      .default('{name}')
      .meta({ description: 'Key in the Secret; {name} is the name of a value' }),
    create: z.boolean().default(false).meta({
      description: 'Also make the key, or the Secret (type Opaque), where it does not exist yet',
    }),
    restart: z
      .array(
        z
          .string()
          .regex(
            new RegExp(`^(deployment|statefulset|daemonset)/${NAME}$`),
            'looks like deployment/NAME',
          ),
      )
      .min(1)
      .optional()
      .meta({
        description:
          'Workloads to restart and to wait for: deployment/NAME, statefulset/NAME, daemonset/NAME',
      }),
    kubeconfig: file('A kubeconfig with a token or a client certificate'),
    context: z
      .string()
      .min(1)
      .optional()
      .meta({ description: 'Context in it; default: its current one' }),
    server: urlField('Of the API server, instead of a kubeconfig').optional(),
    token: secretField('Token of a service account').optional(),
    tokenFile: file('File with that token, as in a pod'),
    ca: z
      .string()
      .regex(/^-----BEGIN CERTIFICATE-----/, 'is not a certificate in PEM')
      .optional()
      .meta({
        description:
          'Certificate of the authority of the cluster, PEM; without it those of the system ' +
          'are trusted',
      }),
    caFile: file('File with that certificate'),
  })
  .superRefine((config, context) => {
    const fail = (field: string, message: string): void =>
      context.addIssue({ code: 'custom', path: [field], message })
    const { kubeconfig, server, token, tokenFile, ca, caFile } = config
    if ((kubeconfig === undefined) === (server === undefined))
      fail('kubeconfig', 'or "server" is needed, and not both')
    if (server !== undefined && (token === undefined) === (tokenFile === undefined))
      fail('token', 'or "tokenFile" is needed with "server", and not both')
    if (ca !== undefined && caFile !== undefined)
      fail('caFile', 'and "ca" are the same thing twice')
    if (server === undefined && [token, tokenFile, ca, caFile].some((value) => value !== undefined))
      fail('server', 'is missing')
    if (kubeconfig === undefined && config.context !== undefined)
      fail('context', 'is one of a kubeconfig')
  })
type Options = z.output<typeof Config>

export default defineTarget({
  id: 'kubernetes',
  title: 'Kubernetes Secret, with restart of workloads',
  aliases: ['k8s'],
  notes: ['Only our keys of the Secret are sent, so what others write at the same time stays.'],
  example: {
    namespace: 'shop',
    secret: 'shop-keys',
    restart: ['deployment/shop'],
    server: 'https://k8s.internal:6443',
    token: { secret: 'infra/kubernetes/TOKEN' },
  },
  config: Config,
  readable: true,
  deploys: true,
  describe: ({ namespace, secret, key, restart, server, kubeconfig }) =>
    `${VENDOR} Secret ${namespace}/${secret}, key ${key}, at ` +
    (server === undefined ? `the cluster of ${kubeconfig}` : new URL(server).host) +
    (restart === undefined ? '' : `; restarts ${restart.join(', ')}`),
  // A kubeconfig and an address may lead to the same Secret, so the cluster is not part
  // of the name of the place. Secrets of two clusters with the same names take turns too,
  // which costs only time.
  place: (config) => placeOf(config),
  slots: (config, name) => [
    [
      config.server ?? '',
      config.kubeconfig ?? '',
      ...(config.context === undefined ? [] : [config.context]),
      placeOf(config),
      keyOf(config, name),
    ].join(' '),
  ],
  nameIn: 'key',
  settleConfig: (config) => {
    const { kubeconfig, tokenFile, caFile, ...rest } = config
    const files = Object.entries({ kubeconfig, tokenFile, caFile }).flatMap(([key, path]) =>
      path === undefined ? [] : [[key, resolve(path)]],
    )
    return Promise.resolve({
      ...rest,
      ...(Object.fromEntries(files) as Pick<typeof config, 'kubeconfig' | 'tokenFile' | 'caFile'>),
    })
  },
  open: async (config, context) =>
    openSession(config, kubernetes(await clusterOf(config), context), context),
})

/** What an undo needs besides the values: whether the Secret did not exist. */
const Rest = z.object({ absent: z.boolean() })

interface Held {
  readonly data: ReadonlyMap<string, Secret>
  readonly object: KubeObject
}

function openSession(config: Options, kube: Kubernetes, context: AdapterContext): TargetSession {
  const workloads = (config.restart ?? []).map((text) => workloadOf(text, config.namespace))
  const session: TargetSession = {
    probe: () => probe(config, kube, workloads, context),
    current: async (names) => {
      const held = await read(config, kube)
      return Object.fromEntries(
        names.map((name) => [name, held?.data.get(keyOf(config, name)) ?? null]),
      )
    },
    standing: (names) => standing(config, kube, names),
    neighbours: async (names) => {
      const keys = new Set(names.map((name) => keyOf(config, name)))
      return Object.fromEntries(
        [...((await read(config, kube))?.data ?? [])].filter(([key]) => !keys.has(key)),
      )
    },
    put: (delivery) => put(config, kube, delivery, context),
    restore: async (prior, old, rest) => {
      const absent = rest !== undefined && Rest.parse(JSON.parse(rest.reveal())).absent
      if (!absent || !(await unmake(config, kube, prior ?? {}, context)))
        await restore(config, kube, prior, old)
    },
    close: () => Promise.resolve(),
  }
  if (workloads.length > 0)
    session.deploy = (delivery) => rollOut(kube, workloads, delivery.id, context)
  return session
}

const placeOf = ({ namespace, secret }: Options): string => `${namespace}/${secret}`
const secretsOf = ({ namespace }: Options): string => `/api/v1/namespaces/${namespace}/secrets`
const pathOf = (config: Options): string => `${secretsOf(config)}/${config.secret}`

function keyOf({ key }: Options, name: string): string {
  return key.replaceAll('{name}', name)
}

function heldIn(object: KubeObject): Held {
  const data = Object.entries(objectIn(object['data'] ?? {}, VENDOR))
  return {
    object,
    data: new Map(
      data.map(([key, value]) => [
        key,
        new Secret(Uint8Array.from(Buffer.from(String(value), 'base64'))),
      ]),
    ),
  }
}

async function read(config: Options, kube: Kubernetes): Promise<Held | undefined> {
  try {
    return heldIn(await kube.get(pathOf(config)))
  } catch (thrown) {
    if (thrown instanceof AdapterError && thrown.code === 'missing') return undefined
    throw thrown
  }
}

async function standing(
  config: Options,
  kube: Kubernetes,
  names: readonly string[],
): Promise<Standing> {
  const held = await read(config, kube)
  // Refused here, before a credential is made, and not only when the new value is to be
  // written.
  refuseLacking(config, held, names)
  return {
    values: Object.fromEntries(
      names.map((name) => [name, held?.data.get(keyOf(config, name)) ?? null]),
    ),
    rest: new Secret(JSON.stringify({ absent: held === undefined })),
  }
}

async function probe(
  config: Options,
  kube: Kubernetes,
  workloads: readonly Workload[],
  context: AdapterContext,
): Promise<void> {
  const held = await read(config, kube)
  if (held === undefined && !config.create) throw noSecret(config)
  if (held !== undefined) writable(config, held)
  const wanted = [
    { group: '', resource: 'secrets', verb: 'patch', name: config.secret },
    // The right to create is asked for without a name, because the API server does not
    // know the name of a new object when it decides.
    ...(held === undefined ? [{ group: '', resource: 'secrets', verb: 'create' }] : []),
    ...workloads.map(({ kind, name }) => ({
      group: 'apps',
      resource: `${kind}s`,
      verb: 'patch',
      name,
    })),
  ]
  for (const attributes of wanted) await mayI(config, kube, attributes)
  for (const workload of workloads) await probeWorkload(kube, workload)
  const metadata = objectIn(held?.object['metadata'] ?? {}, VENDOR)
  const owners = metadata['ownerReferences']
  if (Array.isArray(owners) && owners.length > 0)
    context.note(
      `${VENDOR}: ${placeOf(config)} belongs to another object (ownerReferences), whose ` +
        'controller may put its own value back',
    )
}

/**
 * https://kubernetes.io/docs/reference/access-authn-authz/authorization/#checking-api-access:
 * every user that the cluster knows may ask.
 */
async function mayI(
  config: Options,
  kube: Kubernetes,
  attributes: Readonly<Record<string, string>>,
): Promise<void> {
  const answer = await kube.post(
    '/apis/authorization.k8s.io/v1/selfsubjectaccessreviews',
    {
      apiVersion: 'authorization.k8s.io/v1',
      kind: 'SelfSubjectAccessReview',
      spec: { resourceAttributes: { namespace: config.namespace, ...attributes } },
    },
    'read',
  )
  if (objectIn(answer['status'] ?? {}, VENDOR)['allowed'] === true) return
  const { verb = '', resource = '', name } = attributes
  throw new AdapterError(
    'denied',
    `${VENDOR}: the account may not ${verb} ` +
      `${resource}${name === undefined ? '' : ` ${name}`} in ${config.namespace}`,
    {
      hints: [rightsFor(config)],
    },
  )
}

/** The least rights that are needed, as the rules of a Role. */
function rightsFor({ secret, create, restart }: Options): string {
  const rules = [
    `secrets (get, patch; resourceNames: ${secret})`,
    ...(create ? ['secrets (create)', `secrets (delete; resourceNames: ${secret})`] : []),
    ...(restart ?? []).map(
      (text) => `apps/${text.replace('/', 's (get, patch; resourceNames: ')})`,
    ),
  ]
  return `it needs a Role with ${rules.join(', ')}`
}

function noSecret(config: Options): AdapterError {
  return new AdapterError('misconfigured', `there is no Secret ${placeOf(config)}`, {
    hints: ['make it once, or "create": true'],
  })
}

/**
 * https://kubernetes.io/docs/concepts/configuration/secret/#secret-immutable: an
 * immutable Secret can only be deleted and made again, while pods use it.
 */
function writable(config: Options, { object }: Held): void {
  if (object['immutable'] === true)
    throw new AdapterError('misconfigured', `the Secret ${placeOf(config)} is immutable`, {
      hints: ['name one that is not in "secret"'],
    })
}

function refuseLacking(config: Options, held: Held | undefined, names: readonly string[]): void {
  const lacking =
    config.create || held === undefined
      ? undefined
      : names.find((name) => !held.data.has(keyOf(config, name)))
  if (lacking !== undefined)
    throw new AdapterError(
      'misconfigured',
      `the Secret ${placeOf(config)} has no key ${keyOf(config, lacking)}`,
      {
        hints: ['set it there once, or "create": true'],
      },
    )
}

async function put(
  config: Options,
  kube: Kubernetes,
  delivery: Delivery,
  context: AdapterContext,
): Promise<void> {
  const { entries } = delivery
  const names = Object.keys(entries)
  if (new Set(names.map((name) => keyOf(config, name))).size < names.length)
    throw new AdapterError(
      'misconfigured',
      'the secret has several values, and all would go to one key',
      {
        hints: ['put {name} into "key"'],
      },
    )
  const held = await read(config, kube)
  if (held === undefined && !config.create) throw noSecret(config)
  refuseLacking(config, held, names)
  const made = held === undefined && (await make(config, kube, delivery))
  if (!made) await change(config, kube, held ?? (await read(config, kube)), entries)
  context.note(
    `${VENDOR}: ${names.map((name) => keyOf(config, name)).join(', ')} in ${placeOf(config)}`,
  )
}

/**
 * Makes the Secret; returns `false` if it exists already, made by somebody else or by a
 * create whose answer was lost. Then it is changed instead.
 */
async function make(
  config: Options,
  kube: Kubernetes,
  { id, entries }: Delivery,
): Promise<boolean> {
  try {
    const metadata = {
      name: config.secret,
      namespace: config.namespace,
      annotations: { [MADE_FOR]: id },
    }
    expectStored(
      config,
      await kube.post(secretsOf(config), {
        apiVersion: 'v1',
        kind: 'Secret',
        metadata,
        type: 'Opaque',
        data: dataOf(config, entries),
      }),
      entries,
    )
    return true
  } catch (thrown) {
    if (!(thrown instanceof AdapterError)) throw thrown
    const exists = thrown.details['reason'] === 'AlreadyExists'
    if (!exists && (thrown.effect !== 'unknown' || (await read(config, kube)) === undefined))
      throw thrown
    return false
  }
}

function dataOf(config: Options, entries: Prior): Readonly<Record<string, string | null>> {
  return Object.fromEntries(
    Object.entries(entries).map(([name, value]) => [
      keyOf(config, name),
      value === null ? null : Buffer.from(value.bytes()).toString('base64'),
    ]),
  )
}

/** Sends one patch with the keys that differ; `null` removes a key (RFC 7396). */
async function change(
  config: Options,
  kube: Kubernetes,
  held: Held | undefined,
  entries: Prior,
): Promise<void> {
  if (held === undefined) throw noSecret(config)
  const same = (name: string, value: Secret | null): boolean => {
    const now = held.data.get(keyOf(config, name))
    return value === null ? now === undefined : now?.equals(value) === true
  }
  const differing = Object.fromEntries(
    Object.entries(entries).filter(([name, value]) => !same(name, value)),
  )
  if (Object.keys(differing).length === 0) return
  writable(config, held)
  expectStored(
    config,
    await kube.patch(pathOf(config), {
      type: 'application/merge-patch+json',
      body: { data: dataOf(config, differing) },
    }),
    differing,
  )
}

/** Checks the stored Secret, because an admission hook may have changed what was sent. */
function expectStored(config: Options, object: KubeObject, entries: Prior): void {
  const { data } = heldIn(object)
  for (const [name, value] of Object.entries(entries)) {
    const now = data.get(keyOf(config, name))
    if (value === null ? now === undefined : now?.equals(value) === true) continue
    throw new AdapterError(
      'bad-answer',
      `${VENDOR} took ${keyOf(config, name)} in ${placeOf(config)}, but holds something else`,
      {
        effect: 'unknown',
      },
    )
  }
}

async function restore(
  config: Options,
  kube: Kubernetes,
  prior: Prior | undefined,
  old: Delivery | undefined,
): Promise<void> {
  const held = await read(config, kube)
  if (held === undefined) return
  const known: Prior = { ...old?.entries, ...prior }
  // A value that is known only from the old version is written if its key still exists,
  // and not if somebody has removed that key.
  const wanted = Object.entries(known).filter(
    ([name]) => prior?.[name] !== undefined || held.data.has(keyOf(config, name)),
  )
  await change(config, kube, held, Object.fromEntries(wanted))
}

/**
 * Deletes a Secret that a delivery made, if it is still as it was made. Returns `false`
 * if it has to stay; then the configured keys are removed from it.
 */
async function unmake(
  config: Options,
  kube: Kubernetes,
  prior: Prior,
  context: AdapterContext,
): Promise<boolean> {
  for (let attempt = 1; attempt <= TRIES; attempt++) {
    const held = await read(config, kube)
    if (held === undefined) return true
    const { uid, resourceVersion } = objectIn(held.object['metadata'] ?? {}, VENDOR)
    if (
      !asWeMadeIt(config, held, prior) ||
      typeof uid !== 'string' ||
      typeof resourceVersion !== 'string'
    )
      return false
    try {
      await kube.delete(pathOf(config), { uid, resourceVersion })
      return true
    } catch (thrown) {
      if (!(thrown instanceof AdapterError)) throw thrown
      if (thrown.code === 'missing') return true
      if (thrown.code === 'denied') {
        context.note(
          `${VENDOR}: the Secret ${placeOf(config)} was made for this and stays, empty: the ` +
            'account may not delete it',
        )
        return false
      }
      if (thrown.details['reason'] !== 'Conflict') throw thrown
    }
  }
  return false
}

function asWeMadeIt(config: Options, { object, data }: Held, prior: Prior): boolean {
  const ours = new Set(Object.keys(prior).map((name) => keyOf(config, name)))
  const metadata = objectIn(object['metadata'] ?? {}, VENDOR)
  const annotations = Object.keys(objectIn(metadata['annotations'] ?? {}, VENDOR))
  const more = ['labels', 'ownerReferences', 'finalizers'].some(
    (key) => Object.keys(metadata[key] ?? {}).length > 0,
  )
  return (
    annotations.join() === MADE_FOR &&
    !more &&
    object['type'] === 'Opaque' &&
    Object.values(prior).every((value) => value === null) &&
    [...data.keys()].every((key) => ours.has(key))
  )
}
