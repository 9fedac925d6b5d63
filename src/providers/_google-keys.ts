/**
 * The API keys of one Google Cloud project, as the API Keys API v2 lists and changes them
 * (https://cloud.google.com/api-keys/docs/reference/rest/v2/projects.locations.keys), and
 * how two keys are compared.
 *
 * Every change is a long-running operation, and its end is awaited. A deleted key can
 * still be read and then shows its time of deletion; its id becomes free only when Google
 * purges it after thirty days. That was observed in public
 * (GoogleCloudPlatform/k8s-config-connector#1211,
 * hashicorp/terraform-provider-google#11726) and is not documented.
 */
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import type { Handle } from '../core/model.ts'
import type { AdapterContext } from '../core/provider.ts'
import { Secret } from '../core/secret.ts'
import { fateUnknown, awaitOperation, type Google } from './_google.ts'
import { pickDefined } from '../core/defined.ts'

const Restrictions = z.record(z.string(), z.unknown())
const KeyAnswer = z.looseObject({
  name: z.string().regex(/\/keys\/[\w-]{1,80}$/),
  displayName: z.string().optional(),
  createTime: z.string().optional(),
  deleteTime: z.string().optional(),
  restrictions: Restrictions.optional(),
  serviceAccountEmail: z.string().optional(),
})
const Page = z.looseObject({
  keys: z.array(KeyAnswer).default([]),
  nextPageToken: z.string().default(''),
})
const KeyString = z.looseObject({
  keyString: z
    .string()
    .min(1)
    .transform((text) => new Secret(text)),
})

/** What a key may call, and the service account in whose name it acts. */
export interface Scope {
  readonly restrictions: Readonly<Record<string, unknown>>
  readonly serviceAccountEmail: string | undefined
}

export interface Key extends Scope {
  readonly handle: Handle
  readonly deleted: boolean
}

/**
 * Every method throws `AdapterError`. A change whose operation could not be followed to
 * its end has the effect `unknown`.
 */
export interface ProjectKeys {
  /** All keys of the project, over all pages; deleted ones only on request. */
  list(deletedToo: boolean): Promise<readonly Key[]>
  /** Finds deleted keys as well. */
  find(id: string): Promise<Key | undefined>
  value(id: string): Promise<Secret>
  /** The request is sent once, never repeated. */
  create(id: string, scope: Scope): Promise<void>
  /**
   * Deletes the key, which Google can undo for thirty days. A key that is deleted already
   * counts as success.
   */
  remove(id: string): Promise<void>
  undelete(id: string): Promise<void>
}

export function projectKeys(
  api: Google,
  baseUrl: string,
  project: string,
  context: AdapterContext,
): ProjectKeys {
  const base = baseUrl.replace(/\/$/, '')
  const all = `${base}/projects/${encodeURIComponent(project)}/locations/global/keys`
  const one = (id: string): string => `${all}/${encodeURIComponent(id)}`

  const list = async (deletedToo: boolean): Promise<readonly Key[]> => {
    const keys: Key[] = []
    for (let token = ''; ;) {
      const query = new URLSearchParams({
        pageSize: '300',
        showDeleted: String(deletedToo),
        ...(token === '' ? {} : { pageToken: token }),
      })
      const page = shaped(Page, await api.call('GET', `${all}?${query.toString()}`))
      keys.push(...page.keys.map(keyFrom))
      if (page.nextPageToken === '') return keys
      if (page.nextPageToken === token)
        throw new AdapterError(
          'bad-answer',
          'Google answered with a page of keys that leads nowhere',
        )
      token = page.nextPageToken
    }
  }
  const find = async (id: string): Promise<Key | undefined> => {
    try {
      return keyFrom(shaped(KeyAnswer, await api.call('GET', one(id))))
    } catch (thrown) {
      if (!(thrown instanceof AdapterError) || thrown.code !== 'missing') throw thrown
      // Reading a deleted key by its id worked when it was tried, but it is not
      // documented.
      return (await list(true)).find(({ handle }) => handle.id === id)
    }
  }
  /**
   * Google refuses a repeated change once the first one has worked. After a refusal the
   * state of the key decides.
   */
  const change = async (
    id: string,
    deleted: boolean,
    started: () => Promise<unknown>,
  ): Promise<void> => {
    try {
      await awaitOperation(api, base, await started(), context)
    } catch (thrown) {
      if (!(thrown instanceof AdapterError)) throw thrown
      const key = await find(id).catch(() => undefined)
      if (key?.deleted !== deleted) throw thrown
    }
  }
  return {
    list,
    find,
    value: async (id) => shaped(KeyString, await api.call('GET', `${one(id)}/keyString`)).keyString,
    create: async (id, scope) => {
      const started = await api.call(
        'POST',
        `${all}?keyId=${encodeURIComponent(id)}`,
        { displayName: id, ...scope },
        'once',
      )
      const made = shaped(KeyAnswer, await awaitOperation(api, base, started, context), 'unknown')
      if (keyFrom(made).handle.id !== id)
        throw new AdapterError('bad-answer', `Google answered with another key than ${id}`, {
          effect: 'unknown',
          retryable: false,
        })
    },
    // Without `checkExistingUsage` Google deletes a key even if it was used in the last
    // seven days (https://googleapis.dev/dotnet/Google.Apis.ApiKeysService.v2,
    // DeleteRequest). That is intended: our own proofs count as uses, and an emergency
    // can't wait a week.
    remove: (id) => change(id, true, () => api.call('DELETE', one(id))),
    undelete: (id) => change(id, false, () => api.call('POST', `${one(id)}:undelete`, {})),
  }
}

/**
 * Reads until something is found or the pauses are used up, because a new key may not be
 * visible at once. An error other than `missing` is final.
 */
export async function retryWhileMissing<T>(
  context: AdapterContext,
  pauses: readonly number[],
  read: () => Promise<T | undefined>,
): Promise<T | undefined> {
  for (const pause of pauses) {
    try {
      const found = await read()
      if (found !== undefined) return found
    } catch (thrown) {
      if (!(thrown instanceof AdapterError) || thrown.code !== 'missing') throw thrown
    }
    await context.clock.sleep(pause, context.signal)
  }
  return read()
}

/**
 * The value of a key that was just made. Every failure has the effect `unknown`, because
 * the key exists.
 */
export function readNewValue(
  keys: ProjectKeys,
  id: string,
  context: AdapterContext,
  pauses: readonly number[],
): Promise<Secret> {
  return fateUnknown(
    retryWhileMissing(context, pauses, () => keys.value(id)).then((value) => {
      if (value !== undefined) return value
      throw new AdapterError('bad-answer', `Google shows no value of the key ${id}`)
    }),
  )
}

/** One line for each part in which the two scopes differ. */
export function compared(old: Scope, made: Scope): readonly string[] {
  const parts = (scope: Scope): Record<string, unknown> => ({
    ...scope.restrictions,
    serviceAccountEmail: scope.serviceAccountEmail,
  })
  const [before, after] = [parts(old), parts(made)]
  return [...new Set([...Object.keys(before), ...Object.keys(after)])]
    .toSorted()
    .flatMap((part) => {
      const [from, to] = [canonical(before[part]), canonical(after[part])]
      return from === to ? [] : [`${part} ${from} → ${to}`]
    })
}

/**
 * The same text for scopes of the same meaning: the order of keys and of lists does not
 * matter, and an absent part equals an empty one.
 */
function canonical(value: unknown): string {
  if (Array.isArray(value))
    return value.length === 0 ? 'none' : `[${value.map(canonical).toSorted().join(', ')}]`
  if (typeof value !== 'object' || value === null)
    return value === undefined || value === null || value === '' ? 'none' : String(value)
  const entries = Object.entries(value).flatMap(([key, item]) => {
    const text = canonical(item)
    return text === 'none' ? [] : [`${key}: ${text}`]
  })
  return entries.length === 0 ? 'none' : `{${entries.toSorted().join(', ')}}`
}

function keyFrom({
  name,
  displayName,
  createTime,
  deleteTime,
  restrictions,
  serviceAccountEmail,
}: z.output<typeof KeyAnswer>): Key {
  const created = Date.parse(createTime ?? '')
  const deleted = deleteTime !== undefined
  return {
    handle: {
      id: name.slice(name.lastIndexOf('/') + 1),
      live: !deleted,
      ...(Number.isNaN(created) ? {} : { createdAt: created }),
      ...pickDefined({ name: displayName }),
    },
    deleted,
    restrictions: restrictions ?? {},
    serviceAccountEmail,
  }
}

function shaped<S extends z.ZodType>(
  schema: S,
  answer: unknown,
  effect: 'none' | 'unknown' = 'none',
): z.output<S> {
  const result = schema.safeParse(answer)
  if (result.success) return result.data
  throw new AdapterError('bad-answer', 'Google answered in another shape than promised', {
    effect,
    retryable: false,
  })
}
