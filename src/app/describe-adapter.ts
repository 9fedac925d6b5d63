/** An adapter's configuration in words and as JSON Schema, both from the one schema it declares. */
import { jsonSchema } from '../core/schema.ts'
import { loadProvider, loadTarget } from './adapters.ts'

export interface AdapterDescription {
  readonly id: string
  readonly title: string
  readonly schema: unknown
  readonly facts: Readonly<Record<string, unknown>>
  readonly lines: readonly string[]
  readonly fields: readonly { readonly name: string; readonly required: boolean; readonly meaning: string }[]
}

interface SchemaNode {
  readonly properties?: Readonly<Record<string, SchemaNode>>
  readonly required?: readonly string[]
  readonly description?: string
  readonly secret?: boolean
  readonly enum?: readonly unknown[]
  readonly default?: unknown
  readonly anyOf?: readonly SchemaNode[]
  readonly oneOf?: readonly SchemaNode[]
}

/** Throws `usage` for an unknown id, listing what exists. */
export async function describeAdapter(kind: 'provider' | 'target', id: string): Promise<AdapterDescription> {
  if (kind === 'provider') {
    const provider = await loadProvider(id)
    const schema = jsonSchema(provider.config)
    return {
      id: provider.id,
      title: provider.title,
      schema,
      facts: { secretType: provider.secretType, aliases: provider.aliases },
      lines: [],
      fields: fieldsOf(schema as SchemaNode),
    }
  }
  const target = await loadTarget(id)
  const schema = jsonSchema(target.config)
  return {
    id: target.id,
    title: target.title,
    schema,
    facts: { readable: target.readable, told: target.told, aliases: target.aliases },
    lines: [
      ...(target.readable
        ? ['can be read back']
        : ['write-only: what it holds can not be read back', ...(target.told ? undoIsTold : unread)]),
      ...target.notes,
    ],
    fields: [...fieldsOf(schema as SchemaNode), ...common],
  }
}

/** Law 4 for those whose values can't be read. */
const unread = [
  'a value that an undo could not put back (it was there before the first of ours, or somebody else wrote it since) is refused, unless "irreversible" is true',
]

/** Law 4 for those who are only told: who knows what stood there is told which version it was. */
const undoIsTold = [
  'an undo is a message too: the old version, or no version and no value where there was none; what stood there is for the receiver to know',
  'the same message may come several times, and repeating it must be harmless (rotate help programs)',
]

const common = [
  { name: 'name', required: false, meaning: 'name under which a single value is stored; default the last part of the path' },
  { name: 'fields', required: false, meaning: 'for several fields: field → name, all in one write' },
  {
    name: 'previous',
    required: false,
    meaning: 'true, or a name: keeps the value before this one there while it is in grace (true: name + _PREVIOUS), else the current one',
  },
  {
    name: 'irreversible',
    required: false,
    meaning: 'true: where what stands there can be neither read nor known, an undo may deliver the old version instead of putting it back',
  },
  { name: 'phase', required: false, meaning: 'after-promote: written once the new value is current (for consumers that pull)' },
]

/** A configuration that has several forms is shown as one list: a field that all of them need is required, and where they say different things both stand there. */
function fieldsOf(schema: SchemaNode): AdapterDescription['fields'] {
  const forms = schema.oneOf ?? schema.anyOf ?? []
  const nodes = [...(schema.properties === undefined ? [] : [schema]), ...forms]
  const names = [...new Set(nodes.flatMap(({ properties }) => Object.keys(properties ?? {})))]
  return names.map((name) => {
    const found = nodes.flatMap(({ properties, required }) => {
      const property = properties?.[name]
      return property === undefined ? [] : [{ property, required: required?.includes(name) === true && property.default === undefined }]
    })
    return {
      name,
      required: found.length === nodes.length && found.every(({ required }) => required),
      meaning: [...new Set(found.map(({ property }) => meaningOf(property)))].join('; '),
    }
  })
}

function meaningOf(property: SchemaNode): string {
  const choice = property.enum === undefined ? '' : ` (${property.enum.map(String).join(' | ')})`
  const preset = property.default === undefined ? '' : `; default ${JSON.stringify(property.default)}`
  const hidden = property.secret === true ? ' [secret: a literal, or {"secret":"PATH"}]' : ''
  return `${property.description ?? ''}${choice}${preset}${hidden}`
}
