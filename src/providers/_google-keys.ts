/**
 * The keys of one project as the API Keys API shows them, and what two keys differ in (reference/providers.md 7a;
 * https://cloud.google.com/api-keys/docs/reference/rest/v2/projects.locations.keys).
 */
import { z } from 'zod'
import { AdapterError } from '../core/errors.ts'
import type { Handle } from '../core/model.ts'
import { Secret } from '../core/secret.ts'
import { fateUnknown, finished, type Google } from './_google.ts'
import type { AdapterContext } from '../core/provider.ts'

const Restrictions = z.record(z.string(), z.unknown())
const KeyAnswer = z.looseObject({
  name: z.string().regex(/\/keys\/[\w-]{1,80}$/),
  displayName: z.string().optional(),
  createTime: z.string().optional(),
  deleteTime: z.string().optional(),
  restrictions: Restrictions.optional(),
  serviceAccountEmail: z.string().optional(),
})
const Page = z.looseObject({ keys: z.array(KeyAnswer).default([]), nextPageToken: z.string().default('') })
const KeyString = z.looseObject({
  keyString: z
    .string()
    .min(1)
    .transform((text) => new Secret(text)),
})
/** What a key may do, and for whom it speaks. */
export interface Scope {
  readonly restrictions: Readonly<Record<string, unknown>>
  readonly serviceAccountEmail: string | undefined
}

/** The keys of one project. */
export interface Project {
  readonly context: AdapterContext
  readonly api: Google
  /** Of the API, without a slash at its end. */
  readonly base: string
  /** Of the project's keys. */
  readonly keys: string
}

export interface Key extends Scope {
  readonly handle: Handle
  readonly deleted: boolean
}

/** Can be read as often as needed. */
export async function valueOf(project: Project, id: string): Promise<Secret> {
  return shaped(KeyString, await project.api.call('GET', `${project.keys}/${encodeURIComponent(id)}/keyString`)).keyString
}

/** Deleted ones are found too, for the thirty days that they can be undeleted. Whether a deleted key can be got is not documented, so the list is asked after a refusal. */
export async function find(project: Project, id: string): Promise<Key | undefined> {
  try {
    return fromAnswer(shaped(KeyAnswer, await project.api.call('GET', `${project.keys}/${encodeURIComponent(id)}`)))
  } catch (thrown) {
    if (!(thrown instanceof AdapterError) || thrown.code !== 'missing') throw thrown
    return (await listed(project, true)).find(({ handle }) => handle.id === id)
  }
}

/** Every page. */
export async function listed(project: Project, deletedToo: boolean): Promise<readonly Key[]> {
  const all: Key[] = []
  for (let token = ''; ;) {
    const query = new URLSearchParams({ pageSize: '300', showDeleted: String(deletedToo), ...(token === '' ? {} : { pageToken: token }) })
    const page = shaped(Page, await project.api.call('GET', `${project.keys}?${query.toString()}`))
    all.push(...page.keys.map(fromAnswer))
    if (page.nextPageToken === '' || page.nextPageToken === token) return all.filter(({ deleted }) => deletedToo || !deleted)
    token = page.nextPageToken
  }
}

function fromAnswer({ name, displayName, createTime, deleteTime, restrictions, serviceAccountEmail }: z.output<typeof KeyAnswer>): Key {
  const created = Date.parse(createTime ?? '')
  const deleted = deleteTime !== undefined
  return {
    handle: {
      id: name.slice(name.lastIndexOf('/') + 1),
      live: !deleted,
      ...(Number.isNaN(created) ? {} : { createdAt: created }),
      ...(displayName === undefined ? {} : { name: displayName }),
    },
    deleted,
    restrictions: restrictions ?? {},
    serviceAccountEmail,
  }
}

/** One line for each part that is not the same. */
export function compared(old: Scope, made: Scope): readonly string[] {
  const parts = (scope: Scope): Record<string, unknown> => ({ ...scope.restrictions, serviceAccountEmail: scope.serviceAccountEmail })
  const [before, after] = [parts(old), parts(made)]
  return [...new Set([...Object.keys(before), ...Object.keys(after)])].toSorted().flatMap((part) => {
    const [from, to] = [canonical(before[part]), canonical(after[part])]
    return from === to ? [] : [`${part} ${from} → ${to}`]
  })
}

/** The same text for the same meaning: the order of keys and of lists has none, and nothing is as good as empty. */
function canonical(value: unknown): string {
  if (Array.isArray(value)) return value.length === 0 ? 'none' : `[${value.map(canonical).toSorted().join(', ')}]`
  if (typeof value !== 'object' || value === null) return value === undefined || value === null || value === '' ? 'none' : String(value)
  const entries = Object.entries(value).map(([key, item]) => `${key}: ${canonical(item)}`)
  return entries.length === 0 ? 'none' : `{${entries.toSorted().join(', ')}}`
}

/** Makes a key under this id, once. Resolves to its handle as soon as Google says that it is there. */
export async function makeKey({ api, base, keys, context }: Project, id: string, scope: Scope): Promise<Handle> {
  const started = await api.call('POST', `${keys}?keyId=${id}`, { displayName: id, ...scope }, 'once')
  const response = await finished(api, base, started, context)
  return fateUnknown(Promise.resolve(response).then((answer) => fromAnswer(shaped(KeyAnswer, answer)).handle))
}

/** Softly: it can be undeleted for thirty days. A key that is deleted already stays so. */
export async function deleteKey(project: Project, id: string): Promise<void> {
  const { api, base, keys, context } = project
  try {
    await finished(api, base, await api.call('DELETE', `${keys}/${encodeURIComponent(id)}`), context)
  } catch (thrown) {
    // A repeated call is refused once the first one has worked.
    const after = thrown instanceof AdapterError ? await find(project, id).catch(() => undefined) : undefined
    if (after?.deleted !== true) throw thrown
  }
}

/** Brings it back. The same for one that lives. */
export async function undeleteKey(project: Project, id: string): Promise<void> {
  const { api, base, keys, context } = project
  try {
    await finished(api, base, await api.call('POST', `${keys}/${encodeURIComponent(id)}:undelete`, {}), context)
  } catch (thrown) {
    const after = thrown instanceof AdapterError ? await find(project, id).catch(() => undefined) : undefined
    if (after?.deleted !== false) throw thrown
  }
}

function shaped<S extends z.ZodType>(schema: S, answer: unknown): z.output<S> {
  const result = schema.safeParse(answer)
  if (result.success) return result.data
  throw new AdapterError('bad-answer', 'Google answered in another shape than promised')
}
