/**
 * The program `op` of 1Password with a service account, run as a process
 * (help text of `op item edit`,
 * https://developer.1password.com/docs/cli). What the vendor does not document is said to
 * be so.
 */
import { randomBytes } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import { FakeProgram, type Invocation, play, type Reply } from './program.ts'

export interface OpField {
  id: string
  type?: string
  purpose?: string
  label?: string
  value?: string
  section?: { id: string; label?: string }
}

export interface OpItem {
  id: string
  title: string
  version: number
  vault: { id: string; name: string }
  category: string
  tags?: string[]
  sections?: { id: string; label: string }[]
  fields: OpField[]
  files?: { id: string; name: string }[]
  state?: string
}

interface OpState {
  token: string
  rights: 'read' | 'write'
  vaults: { id: string; name: string }[]
  items: OpItem[]
  /**
   * Items that have a passkey, by id. It does not show in their JSON (not documented
   * whether it does).
   */
  passkeys: string[]
  /**
   * Ids of fields that go with the next edit by a template: somebody else's change, or
   * what a template can not hold.
   */
  loses: string[]
}

const VAULT = { id: 'vaultaaaaaaaaaaaaaaaaaaaaa', name: 'Production' }

export function opId(): string {
  return [...randomBytes(26)].map((byte) => 'abcdefghijklmnopqrstuvwxyz234567'[byte % 32]).join('')
}

export class FakeOp extends FakeProgram<OpState> {
  constructor() {
    super('op', fileURLToPath(import.meta.url), {
      token: 'ops_eyJzaWduSW4iOiJ0ZXN0',
      rights: 'write',
      vaults: [VAULT],
      items: [],
      passkeys: [],
      loses: [],
    })
  }

  add(title: string, fields: OpField[], more: Partial<OpItem> = {}): string {
    const id = opId()
    const item: OpItem = {
      id,
      title,
      version: 1,
      vault: VAULT,
      category: 'API_CREDENTIAL',
      fields,
      ...more,
    }
    this.change(({ items }) => void items.push(item))
    return id
  }

  item(title: string): OpItem | undefined {
    return this.state.items.find((item) => item.title === title)
  }

  value(title: string, label: string): string | undefined {
    return this.item(title)?.fields.find((field) => field.label === label)?.value
  }
}

// The form of the line is from the vendor's error messages as they are cited in public
// issues; the texts for a refused token, a missing right and the rate limit are not
// documented (13b: figures UNVERIFIED).
const error = (text: string): Reply => ({
  code: 1,
  stderr: `[ERROR] 2026/11/21 10:30:00 ${text}\n`,
})
const done = (value: unknown): Reply => ({ code: 0, stdout: `${JSON.stringify(value, null, 2)}\n` })

function answer(call: Invocation, state: OpState): Reply {
  // 13b: OP_CONNECT_HOST and OP_CONNECT_TOKEN take precedence over the service account.
  if (call.env['OP_CONNECT_HOST'] !== undefined) return error('invalid Connect configuration')
  if (call.env['OP_SERVICE_ACCOUNT_TOKEN'] !== state.token)
    return error('Signin credentials are not compatible: invalid service account token (401)')
  const [group, action, subject = ''] = call.argv
  if (group !== 'item') return error(`unknown command "${group}" for "op"`)
  const wanted = call.flag('--vault')
  // 13b: `--vault` is mandatory for a service account.
  if (wanted === undefined)
    return error(
      'a vault query must be provided when this command is called by a service account. ' +
        'Please specify one',
    )
  const vault = state.vaults.find(({ id, name }) => id === wanted || name === wanted)
  if (vault === undefined)
    return error(
      `"${wanted}" isn't a vault in this account. Specify the vault with its ID or name.`,
    )
  const items = state.items.filter(
    (item) => item.vault.id === vault.id && item.state !== 'ARCHIVED',
  )
  if (action === 'list')
    return done(
      items.map(({ fields: _fields, sections: _sections, files: _files, ...overview }) => overview),
    )
  if (action !== 'get' && state.rights === 'read')
    return error("(403) Forbidden: You don't have permission to perform this action.")
  if (action === 'create') return create(call, state, vault)
  const found = items.filter(({ id, title }) => id === subject || title === subject)
  const [item] = found
  if (found.length > 1)
    return error(
      `More than one item matches "${subject}". Try again and specify the item by its ID:`,
    )
  if (item === undefined)
    return error(
      `"${subject}" isn't an item in the "${vault.name}" vault. Specify the item with its ` +
        'UUID, name, or domain.',
    )
  return action === 'get' ? done(item) : edit(call, state, item)
}

function create({ argv, piped }: Invocation, state: OpState, vault: OpItem['vault']): Reply {
  // "op item create -": the template comes by stdin.
  if (argv[2] !== '-' || piped === undefined) return error('invalid JSON')
  const sent = JSON.parse(piped) as Pick<OpItem, 'title' | 'category' | 'fields' | 'sections'>
  const item: OpItem = {
    ...sent,
    id: opId(),
    version: 1,
    vault,
    fields: sent.fields.map((field) => ({ ...field, id: opId() })),
  }
  state.items.push(item)
  return done(item)
}

function edit({ argv, piped }: Invocation, state: OpState, item: OpItem): Reply {
  item.version++
  const [assignment] = argv
    .slice(3)
    .filter((arg, i, all) => !arg.startsWith('--') && all[i - 1]?.startsWith('--') !== true)
  if (assignment !== undefined) {
    // Help of `op item edit`: "To delete a custom field, specify '[delete]' in place of
    // the fieldType"; points and equal signs are escaped with a backslash.
    const path = /^(.*)\[delete\]$/.exec(assignment)?.[1]
    if (path === undefined) return error('this fake takes no values on the command line')
    const parts = path.split(/(?<!\\)\./).map((part) => part.replace(/\\(.)/g, '$1'))
    const labels = new Map(item.sections?.map(({ id, label }) => [id, label]))
    const at = item.fields.findIndex(
      ({ label, section }) =>
        label === parts.at(-1) &&
        (parts.length === 1 ||
          parts[0] === (section?.label ?? labels.get(section?.id ?? '') ?? section?.id)),
    )
    if (at < 0) return error(`"${path}" isn't a field in the item`)
    // "You can't delete built-in fields".
    if (item.fields[at]?.purpose !== undefined) return error('built-in fields can not be deleted')
    item.fields.splice(at, 1)
    return done(item)
  }
  // A stdin that is no pipe is not read: an empty edit, which succeeds (seen with op
  // 2.34; not documented).
  if (piped === undefined || piped === '') return done(item)
  const sent = JSON.parse(piped) as OpItem
  // The template replaces the item: what is not in it is gone, a field without value is
  // emptied, a new field gets an id.
  item.title = sent.title
  item.fields = sent.fields
    .map((field) => ({ ...field, id: field.id ?? opId() }))
    .filter(({ id }) => !state.loses.includes(id))
  for (const key of ['tags', 'sections'] as const) {
    if (sent[key] === undefined) delete item[key]
    else Object.assign(item, { [key]: sent[key] })
  }
  // Vendor's page on editing items: JSON templates do not support passkeys; the passkey
  // is overwritten.
  state.passkeys = state.passkeys.filter((id) => id !== item.id)
  return done(item)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) play<OpState>(answer)
