/**
 * Deploy keys of a GitHub repository
 * (https://docs.github.com/en/rest/deploy-keys/deploy-keys). The key pair is generated
 * here and sealed in the vault before its public half is sent, so a lost answer loses
 * nothing: the key is found again by its fingerprint. For people it carries a title,
 * which is the tag of the intent.
 *
 * The handle of a key is its fingerprint, because the fingerprint can be computed from a
 * private key that somebody has stored. GitHub's own number is looked up when a call
 * needs it. GitHub can't change a deploy key, only add and delete it.
 *
 * Proving that a key opens the repository would need SSH. Instead it is verified that
 * GitHub lists the key, that it is enabled and that it has the configured right. The key
 * itself is never used for that, so a proof can't lock anybody out. GitHub accepts a
 * deploy key for one repository only, so deleting it ends access to nothing else at
 * GitHub; if the private half is also used for other hosts, it keeps working there.
 */
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import type { Handle, Intent } from '../core/model.ts'
import type {
  AdapterContext,
  Credential,
  Issued,
  ProviderSession,
  Settlement,
} from '../core/provider.ts'
import { type Fields, flatten, type Secret, single } from '../core/secret.ts'
import { answer, type Github, github, scopesOf } from '../net/github.ts'
import { ed25519Pair, fingerprintOf, publicKeyIn } from '../net/openssh.ts'
import { pickDefined } from '../core/defined.ts'
import { throwIfInterrupted } from '../net/interrupt.ts'

/**
 * Pauses between looks, in milliseconds. Only a key that is still absent after the last
 * one counts as not made, or as not working.
 */
const LOOK_MS = [1000, 3000]

export interface DeployKeyOptions {
  readonly token: Secret
  readonly repository: string
  readonly readOnly: boolean | undefined
  readonly baseUrl: string
}

/** A key of the repository as GitHub lists it. */
const Row = z
  .object({
    id: z.int(),
    key: z.string(),
    title: z.string().default(''),
    read_only: z.boolean(),
    created_at: z.string().optional(),
    last_used: z.string().nullish(),
    enabled: z.boolean().default(true),
  })
  .transform((row) => ({ ...row, fingerprint: fingerprintOf(row.key) ?? `id:${row.id}` }))
type Key = z.output<typeof Row>

export function openDeployKeys(
  options: DeployKeyOptions,
  context: AdapterContext,
): ProviderSession {
  const api = github(options.baseUrl, options.token, context)
  const path = `/repos/${options.repository}`
  const keys = (): Promise<readonly Key[]> => api.rows(`${path}/keys`, z.array(Row))
  const find = async (id: string | undefined): Promise<Key | undefined> =>
    id === undefined ? undefined : (await keys()).find(({ fingerprint }) => fingerprint === id)
  return {
    preflight: async (current) => {
      await mayManage(api, path)
      const all = await keys()
      const own =
        current === undefined ? undefined : (current.handle?.id ?? handleOf(current.fields)?.id)
      if (current !== undefined && !all.some(({ fingerprint }) => fingerprint === own))
        context.note(
          `GitHub: the current value is no deploy key of ${options.repository}; it will not ` +
            'be ended there',
        )
    },
    prepare: (random) => single(ed25519Pair(random, `rotate ${options.repository}`).privateKey),
    list: async () => (await keys()).map(handleFrom),
    handleOf,
    create: async (intent, current) => {
      throwIfInterrupted(context.signal, 'the key was added')
      const old = options.readOnly === undefined ? await find(current?.handle?.id) : undefined
      return create(api, path, intent, options.readOnly ?? old?.read_only ?? true)
    },
    settle: (intent) => settle(context, keys, intent),
    verify: (credential, expect) => verify(options, context, find, credential, expect),
    lastUsed: async ({ handle }) => dateIn((await find(handle?.id))?.last_used),
    revoke: async ({ handle }) => {
      if (handle === undefined)
        throw new AdapterError(
          'misconfigured',
          'the key has no id here; adopt it first: rotate adopt PATH --key-id SHA256:…',
        )
      const key = await find(handle.id)
      if (key === undefined) return
      const { status } = await api.ask('DELETE', `${path}/keys/${key.id}`)
      if (status !== 204 && status !== 404)
        throw new AdapterError(
          status === 403 || status === 401 ? 'denied' : 'failed',
          `GitHub answered ${status} and did not delete the key`,
        )
    },
    close: () => Promise.resolve(),
  }
}

/**
 * Listing keys needs fewer rights than adding one, so the right to add is checked
 * separately.
 */
async function mayManage(api: Github, path: string): Promise<void> {
  const response = await api.call('GET', path)
  const Repository = z.object({
    archived: z.boolean().default(false),
    permissions: z.object({ admin: z.boolean() }).optional(),
  })
  const { archived, permissions } = answer(response, Repository)
  const scopes = scopesOf(response.headers)
  if (archived)
    throw new AdapterError(
      'misconfigured',
      'the repository is archived: it takes no new deploy key',
    )
  const scoped =
    scopes === undefined || scopes.some((scope) => scope === 'repo' || scope === 'public_repo')
  if (permissions?.admin === false || !scoped)
    throw new AdapterError('denied', 'the token may not manage deploy keys', {
      hints: [
        scoped
          ? 'its user must be an administrator of the repository'
          : 'a classic token needs the scope repo',
      ],
    })
}

async function create(
  api: Github,
  path: string,
  intent: Intent,
  readOnly: boolean,
): Promise<Issued> {
  const { privateKey, publicKey } = prepared(intent)
  const response = await api.ask(
    'POST',
    `${path}/keys`,
    { title: intent.tag, key: publicKey, read_only: readOnly },
    'once',
  )
  const { status } = response
  if (status < 200 || status >= 300) {
    const code = status === 401 || status === 403 ? 'denied' : status === 404 ? 'missing' : 'failed'
    throw new AdapterError(code, `GitHub answered ${status} and did not add the deploy key`, {
      retryable: false,
      hints: [
        '"token" needs Administration: write on the repository, and its organization must ' +
          'allow deploy keys',
      ],
    })
  }
  const made = answer(response, Row, 'unknown')
  if (made.fingerprint !== fingerprintOf(publicKey))
    throw new AdapterError('bad-answer', 'GitHub answered with another key than it was sent', {
      effect: 'unknown',
    })
  return issuedFrom(privateKey, made)
}

function prepared(intent: Intent): { readonly privateKey: Secret; readonly publicKey: string } {
  const privateKey = flatten(intent.material)
  const publicKey = publicKeyIn(privateKey)
  if (publicKey === undefined) throw new Error('the intent holds no key')
  return { privateKey, publicKey }
}

function issuedFrom(privateKey: Secret, key: Key): Issued {
  return {
    fields: single(privateKey),
    handle: handleFrom(key),
    metadata: { deploy_key: String(key.id), read_only: String(key.read_only) },
  }
}

function handleFrom({ fingerprint, title, enabled, created_at: created }: Key): Handle {
  const createdAt = dateIn(created)
  return { id: fingerprint, live: enabled, name: title, ...pickDefined({ createdAt }) }
}

/**
 * The key is found by its fingerprint alone: nobody else can have made this key pair, so
 * comparing the title as well would prove nothing more.
 */
async function settle(
  context: AdapterContext,
  keys: () => Promise<readonly Key[]>,
  intent: Intent,
): Promise<Settlement> {
  const { privateKey, publicKey } = prepared(intent)
  const wanted = fingerprintOf(publicKey)
  for (let attempt = 0; ; attempt++) {
    const found = (await keys()).find(({ fingerprint }) => fingerprint === wanted)
    if (found !== undefined)
      return {
        outcome: 'applied',
        issued: issuedFrom(privateKey, found),
        detail: `found by its public key, titled ${intent.tag}`,
      }
    const pause = LOOK_MS[attempt]
    if (pause === undefined)
      return { outcome: 'none', detail: `the repository does not have the key of ${intent.tag}` }
    await context.clock.sleep(pause, context.signal)
  }
}

async function verify(
  { readOnly, repository }: DeployKeyOptions,
  context: AdapterContext,
  find: (id: string | undefined) => Promise<Key | undefined>,
  { fields, handle }: Credential,
  expect: 'live' | 'dead',
): Promise<void> {
  const id = Object.keys(fields).length === 0 ? handle?.id : handleOf(fields)?.id
  if (id === undefined)
    throw new AdapterError('refused', 'the value is no private key that could be a deploy key')
  for (let attempt = 0; ; attempt++) {
    const key = await find(id)
    if (key?.enabled === true) {
      if (expect === 'live' && readOnly !== undefined && key.read_only !== readOnly)
        context.note(
          `GitHub: the deploy key may ${key.read_only ? 'not ' : ''}write, which "readOnly" ` +
            'does not say',
        )
      return
    }
    const pause = LOOK_MS[attempt]
    if (expect === 'dead' || pause === undefined)
      throw new AdapterError(
        'refused',
        `the key is ${key === undefined ? 'no' : 'a disabled'} deploy key of ${repository}`,
      )
    await context.clock.sleep(pause, context.signal)
  }
}

function handleOf(fields: Fields): Handle | undefined {
  const publicKey = publicKeyIn(flatten(fields))
  const id = publicKey === undefined ? undefined : fingerprintOf(publicKey)
  return id === undefined ? undefined : { id, live: true }
}

function dateIn(text: string | null | undefined): number | undefined {
  const at = Date.parse(text ?? '')
  return Number.isNaN(at) ? undefined : at
}
