/**
 * The address of a Kubernetes cluster and the credential for it, from a kubeconfig, or
 * from a configured address with the token of a service account.
 * https://kubernetes.io/docs/reference/config-api/kubeconfig.v1/
 *
 * A setting of a kubeconfig that is not supported here is refused by its name, so that no
 * cluster is addressed in another way than kubectl would.
 */
import { readFile } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import { visible } from '../core/names.ts'
import { urlFault } from '../core/schema.ts'
import { Secret } from '../core/secret.ts'
import type { Cluster } from '../net/kubernetes.ts'
import { pickDefined } from '../core/defined.ts'

export interface ClusterOptions {
  readonly kubeconfig?: string | undefined
  readonly context?: string | undefined
  readonly server?: string | undefined
  readonly token?: Secret | undefined
  readonly tokenFile?: string | undefined
  readonly ca?: string | undefined
  readonly caFile?: string | undefined
}

const Entry = z.record(z.string(), z.unknown())
const Kubeconfig = z.object({
  'current-context': z.string().optional(),
  contexts: z.array(z.object({ name: z.string(), context: Entry })),
  clusters: z.array(z.object({ name: z.string(), cluster: Entry })),
  users: z.array(z.object({ name: z.string(), user: Entry.nullish() })),
})

const KNOWN = {
  context: ['cluster', 'user', 'namespace', 'extensions'],
  cluster: [
    'server',
    'certificate-authority',
    'certificate-authority-data',
    'extensions',
    'disable-compression',
  ],
  user: [
    'token',
    'tokenFile',
    'client-certificate',
    'client-certificate-data',
    'client-key',
    'client-key-data',
    'extensions',
  ],
} as const

const HINT =
  'give "server", "ca" and the "token" of a service account that may do just this (kubectl ' +
  'create token, or a Secret of type kubernetes.io/service-account-token)'

const fault = (message: string, hints: readonly string[] = []): AdapterError =>
  new AdapterError('misconfigured', message, { hints })

/**
 * Reads the files anew at each call, because the token of a service account in a pod
 * changes about every hour.
 */
export async function clusterOf(options: ClusterOptions): Promise<Cluster> {
  if (options.kubeconfig !== undefined) return fromKubeconfig(options.kubeconfig, options.context)
  const token =
    options.token ??
    (options.tokenFile === undefined ? undefined : await tokenIn(options.tokenFile))
  const ca = options.ca ?? (options.caFile === undefined ? undefined : await textOf(options.caFile))
  return {
    server: options.server ?? '',
    ...pickDefined({ token }),
    tls: ca === undefined ? {} : { ca },
  }
}

async function textOf(path: string): Promise<string> {
  try {
    return await readFile(path, 'utf8')
  } catch (thrown) {
    throw fault(
      `${visible(path, 200)} can not be read ` +
        `(${(thrown as NodeJS.ErrnoException).code ?? 'error'})`,
    )
  }
}

const tokenIn = async (path: string): Promise<Secret> => new Secret((await textOf(path)).trim())

async function fromKubeconfig(path: string, wanted: string | undefined): Promise<Cluster> {
  const { parse } = await import('yaml')
  let document: unknown
  try {
    document = parse(await textOf(path))
  } catch (thrown) {
    // The parser's own message is dropped, because it quotes the file.
    throw thrown instanceof AdapterError ? thrown : fault(`${path} is not YAML`)
  }
  const read = Kubeconfig.safeParse(document)
  if (!read.success) throw fault(`${path} is not a kubeconfig`)
  const config = read.data
  const name = wanted ?? config['current-context'] ?? ''
  const entry = (
    list: readonly { readonly name: string }[],
    kind: keyof typeof KNOWN,
    of: string,
  ): Readonly<Record<string, unknown>> => {
    const found = list.find((item) => item.name === of) as
      | Readonly<Record<string, unknown>>
      | undefined
    if (found === undefined)
      throw fault(
        `${path} has no ${kind} "${visible(of)}"`,
        kind === 'context' ? ['say which with "context"'] : [],
      )
    const fields = (found[kind] ?? {}) as Readonly<Record<string, unknown>>
    for (const [key, value] of Object.entries(fields))
      if (!(KNOWN[kind] as readonly string[]).includes(key) && value !== false && value !== '')
        throw fault(
          `${path} wants "${visible(key)}" for the ${kind} "${visible(of)}", which is not ` +
            'done here',
          [HINT],
        )
    return fields
  }
  const context = entry(config.contexts, 'context', name)
  const cluster = entry(config.clusters, 'cluster', String(context['cluster'] ?? ''))
  const user = entry(config.users, 'user', String(context['user'] ?? ''))
  /** The data stands in the kubeconfig itself, as base64, or in a file that it names. */
  const pem = async (
    from: Readonly<Record<string, unknown>>,
    key: string,
  ): Promise<string | undefined> => {
    const [data, file] = [from[`${key}-data`], from[key]]
    if (typeof data === 'string' && data !== '') return Buffer.from(data, 'base64').toString()
    return typeof file === 'string' && file !== ''
      ? textOf(resolve(dirname(path), file))
      : undefined
  }
  const server = String(cluster['server'] ?? '')
  const bad = urlFault(server)
  if (bad !== undefined) throw fault(`${path}: the server ${bad}`)
  const [ca, cert, key] = [
    await pem(cluster, 'certificate-authority'),
    await pem(user, 'client-certificate'),
    await pem(user, 'client-key'),
  ]
  const { token: inline, tokenFile } = user
  // If both are given, the file counts, as it does for kubectl.
  const token =
    typeof tokenFile === 'string' && tokenFile !== ''
      ? await tokenIn(resolve(dirname(path), tokenFile))
      : typeof inline === 'string' && inline !== ''
        ? new Secret(inline)
        : undefined
  if (token === undefined && (cert === undefined || key === undefined))
    throw fault(
      `${path} has neither a token nor a certificate with its key for the user of ` +
        `"${visible(name)}"`,
      [HINT],
    )
  return {
    server,
    ...pickDefined({ token }),
    tls: {
      ...pickDefined({ ca, cert }),
      ...(key === undefined ? {} : { key: new Secret(key) }),
    },
  }
}
