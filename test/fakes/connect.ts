/**
 * A 1Password Connect server on loopback, stateful (PATCH
 * after the vendor's OpenAPI file, `Items_updateSubsetAttributes`, and
 * https://github.com/1Password/connect/issues/58 for the path of a field's value).
 */
import { type Answer, type Asked, FakeHost } from './hosting.ts'
import { opId, type OpField, type OpItem } from './op.ts'

interface Patch {
  readonly op: string
  readonly path: string
  readonly value?: unknown
}

export class FakeConnect extends FakeHost {
  readonly vault = { id: 'vaultaaaaaaaaaaaaaaaaaaaaa', name: 'Production' }
  readonly items: OpItem[] = []
  readonly patches: Patch[][] = []
  rights: 'read' | 'write' = 'write'
  /**
   * So many reads after a write still see what was there before it: 13a, "Connect syncs
   * asynchronously (seconds)".
   */
  lag = 0
  #before: { items: OpItem[]; reads: number } = { items: [], reads: 0 }

  add(title: string, fields: OpField[], more: Partial<OpItem> = {}): string {
    const id = opId()
    this.items.push({
      id,
      title,
      version: 1,
      vault: this.vault,
      category: 'API_CREDENTIAL',
      fields,
      ...more,
    })
    return id
  }

  value(title: string, label: string): string | undefined {
    return this.items
      .find((item) => item.title === title)
      ?.fields.find((field) => field.label === label)?.value
  }

  protected answer({ method, url, body }: Asked): Answer {
    const [version, kind, vault, part, id] = url.pathname
      .split('/')
      .slice(1)
      .map(decodeURIComponent)
    if (version !== 'v1' || kind !== 'vaults')
      return { status: 404, body: { status: 404, message: 'not found' } }
    if (vault === undefined) return { status: 200, body: [this.vault] }
    if (vault !== this.vault.id || part !== 'items')
      return { status: 404, body: { status: 404, message: 'Vault not found' } }
    if (method === 'GET') return this.#read(id)
    // The OpenAPI file: 403 "Unauthorized access".
    if (this.rights === 'read')
      return { status: 403, body: { status: 403, message: 'Unauthorized access' } }
    this.#before = { items: structuredClone(this.items), reads: this.lag }
    if (method === 'POST') {
      const sent = body as Pick<OpItem, 'title' | 'category' | 'fields' | 'vault'>
      if (sent.vault.id !== vault) return { status: 400, body: { status: 400, message: 'vault' } }
      this.add(sent.title, [], {
        ...sent,
        fields: sent.fields.map((field) => ({ ...field, id: opId() })),
      })
      return { status: 200, body: this.items.at(-1) }
    }
    const item = this.items.find((one) => one.id === id)
    if (item === undefined) return { status: 404, body: { status: 404, message: 'Item not found' } }
    // 13a: PUT replaces the whole item; nobody here may want that.
    if (method !== 'PATCH') throw new Error(`${method} of a whole item`)
    const patches = body as Patch[]
    this.patches.push(patches)
    for (const patch of patches)
      if (!apply(item, patch))
        return { status: 400, body: { status: 400, message: 'Invalid patch' } }
    item.version++
    return { status: 200, body: item }
  }

  #read(id: string | undefined): Answer {
    const items = this.#before.reads-- > 0 ? this.#before.items : this.items
    // 13a: the list gives overviews without values.
    if (id === undefined)
      return {
        status: 200,
        body: items.map(({ fields: _fields, sections: _sections, ...overview }) => overview),
      }
    const item = items.find((one) => one.id === id)
    return item === undefined
      ? { status: 404, body: { status: 404, message: 'Item not found' } }
      : { status: 200, body: item }
  }
}

/**
 * `/fields`, `/fields/{id}` and `/fields/{id}/value` only; "only supports add, remove and
 * replace".
 */
function apply(item: OpItem, { op, path, value }: Patch): boolean {
  const [root, id, attribute, ...more] = path.split('/').slice(1)
  if (root !== 'fields' || more.length > 0) return false
  if (id === undefined) {
    if (op !== 'add') return false
    item.fields.push({ ...(value as OpField), id: opId() })
    return true
  }
  const at = item.fields.findIndex(
    (field) => field.id === id.replaceAll('~1', '/').replaceAll('~0', '~'),
  )
  const field = item.fields[at]
  if (field === undefined) return false
  if (attribute === undefined && op === 'remove') {
    item.fields.splice(at, 1)
    return true
  }
  // RFC 6902, 4.3: the target of a replace must exist.
  if (
    attribute !== 'value' ||
    (op === 'replace' && field.value === undefined) ||
    typeof value !== 'string'
  )
    return false
  field.value = value
  return true
}
