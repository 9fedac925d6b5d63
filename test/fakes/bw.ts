/**
 * The program `bw` of Bitwarden with its copy of the vault and the server behind it, run
 * as a process (what it prints and does is from its source,
 * apps/cli/src of https://github.com/bitwarden/clients: base-program.ts,
 * commands/{get,edit,list}.command.ts, vault/create.command.ts, and
 * libs/common/src/models/export/cipher.export.ts).
 */
import { randomUUID } from 'node:crypto'
import { fileURLToPath } from 'node:url'
import { FakeProgram, type Invocation, play, type Reply } from './program.ts'

export interface BwItem {
  id: string
  object?: 'item'
  type: number
  name: string
  notes?: string | null
  deletedDate?: string | null
  revisionDate: string
  login?: {
    username?: string | null
    password?: string | null
    totp?: string | null
    uris?: { uri: string }[]
    fido2Credentials?: { credentialId: string }[]
  }
  secureNote?: { type: number }
  fields?: { name: string; value: string | null; type: number }[]
  attachments?: { id: string; url: string }[]
  passwordHistory?: { password: string; lastUsedDate: string }[]
}

interface BwState {
  status: 'unlocked' | 'unauthenticated'
  session: string
  rights: 'read' | 'write'
  server: BwItem[]
  local: BwItem[]
  /** Counts the changes, so that dates differ. */
  ticks: number
  /** Names of fields that go with the next edit. */
  loses: string[]
}

const dateOf = (tick: number): string =>
  new Date(Date.UTC(2026, 10, 21) + tick * 1000).toISOString()

export class FakeBw extends FakeProgram<BwState> {
  constructor() {
    const session = 'c2Vzc2lvbi1rZXktb2YtYS1mYWtl=='
    super('bw', fileURLToPath(import.meta.url), {
      status: 'unlocked',
      session,
      rights: 'write',
      server: [],
      local: [],
      ticks: 0,
      loses: [],
    })
  }

  /** On the server; the copy has it after the next sync. */
  add(name: string, item: Partial<BwItem> = {}): string {
    const id = randomUUID()
    this.change(
      ({ server }) =>
        void server.push({
          object: 'item',
          id,
          type: 1,
          name,
          revisionDate: dateOf(0),
          login: {},
          fields: [],
          ...item,
        }),
    )
    return id
  }

  item(name: string): BwItem | undefined {
    return this.state.server.find((item) => item.name === name)
  }

  field(item: string, name: string): string | null | undefined {
    return this.item(item)?.fields?.find((field) => field.name === name)?.value
  }
}

// base-program.ts: errors go to stderr in one piece without a line end, exit code 1.
const error = (text: string): Reply => ({ code: 1, stderr: text })
const done = (value: unknown): Reply => ({ code: 0, stdout: JSON.stringify(value) })

function answer(call: Invocation, state: BwState): Reply {
  const argv = call.argv.filter((arg) => arg !== '--nointeraction')
  const quiet = argv.length < call.argv.length || call.env['BW_NOINTERACTION'] === 'true'
  if (state.status === 'unauthenticated') return error('You are not logged in.')
  if (call.env['BW_SESSION'] !== state.session)
    // handleLockedUser: with a person it asks for the master password, and would wait
    // here for ever.
    return error(quiet ? 'Vault is locked.' : '? Master password: [input is hidden]')
  const [verb, kind, subject = ''] = argv
  if (verb === 'sync') {
    // Each answer of the server has addresses for attachments of its own.
    state.local = structuredClone(state.server).map((item) => withUrls(item, state))
    return { code: 0, stdout: 'Syncing complete.' }
  }
  if (verb === 'list' && kind === 'items') {
    const wanted = (call.flag('--search') ?? '').toLowerCase()
    return done(
      state.local.filter((item) => !item.deletedDate && item.name.toLowerCase().includes(wanted)),
    )
  }
  if (verb === 'create' && kind === 'item') {
    const sent = decoded(call)
    if (sent === undefined) return error('Error parsing the encoded request data.')
    const item: BwItem = {
      ...sent,
      object: 'item',
      id: randomUUID(),
      revisionDate: dateOf(++state.ticks),
    }
    state.server.push(item)
    state.local.push(structuredClone(item))
    return done(item)
  }
  // `bw get item` also takes a part of a name; the adapter must not rely on that.
  const item = state.local.find(({ id }) => id === subject.toLowerCase())
  if (item === undefined) return error('Not found.')
  if (verb === 'get') return done(item)
  if (verb !== 'edit') return error('Unknown command.')
  return edit(call, state, item)
}

function withUrls(item: BwItem, state: BwState): BwItem {
  state.ticks++
  return item.attachments === undefined
    ? item
    : {
        ...item,
        attachments: item.attachments.map(({ id }) => ({
          id,
          url: `https://files.test/${id}?token=${state.ticks}`,
        })),
      }
}

/** Plain base64 by stdin (13c: `bw encode`); readStdin takes what is no terminal. */
function decoded({ argv, piped }: Invocation): BwItem | undefined {
  if (argv.some((arg) => arg.length > 60)) throw new Error('an item on the command line')
  try {
    return JSON.parse(Buffer.from(piped ?? '', 'base64').toString()) as BwItem
  } catch {
    return undefined
  }
}

function edit(call: Invocation, state: BwState, local: BwItem): Reply {
  const sent = decoded(call)
  if (sent === undefined)
    return error(
      call.piped === ''
        ? '`requestJson` was not provided.'
        : 'Error parsing the encoded request data.',
    )
  if (local.deletedDate)
    return error('You may not edit a deleted item. Use the restore command first.')
  const item = state.server.find(({ id }) => id === local.id)
  // The server's own words for both are from memory (UNVERIFIED), except the second,
  // which is in public issues.
  if (item === undefined || state.rights === 'read') return error('Resource not found.')
  if (sent.revisionDate !== item.revisionDate)
    return error(
      'The cipher you are updating is out of date. Please save your work, sync your vault, ' +
        'and try again.',
    )
  // toView: fields and login are replaced by what is sent, null or absent lists stay.
  const old = [
    item.login?.password,
    ...(item.fields ?? []).filter(({ type }) => type === 1).map(({ value }) => value),
  ]
  item.name = sent.name
  item.notes = sent.notes ?? null
  if (sent.fields) item.fields = sent.fields.filter(({ name }) => !state.loses.includes(name))
  if (item.type === 1 && sent.login) item.login = sent.login
  item.revisionDate = dateOf(++state.ticks)
  // Passwords and hidden fields that changed go to the history, five at most.
  const now = [item.login?.password, ...(item.fields ?? []).map(({ value }) => value)]
  const gone = old.flatMap((value) =>
    value && !now.includes(value) ? [{ password: value, lastUsedDate: item.revisionDate }] : [],
  )
  item.passwordHistory = [...gone, ...(item.passwordHistory ?? [])].slice(0, 5)
  Object.assign(local, structuredClone(item))
  return done(item)
}

if (process.argv[1] === fileURLToPath(import.meta.url)) play<BwState>(answer)
