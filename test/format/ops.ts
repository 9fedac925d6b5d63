/**
 * What the product answers to a published vector: one function per operation, in the
 * shapes that `reader.py` gives too.
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { deflateSync, inflateSync } from 'node:zlib'
import Database from 'better-sqlite3'
import { RotateError } from '../../src/core/errors.ts'
import { Secret } from '../../src/core/secret.ts'
import { openSqliteStore } from '../../src/store/sqlite.ts'
import type { TableName } from '../../src/store/port.ts'
import { auditEvents, auditVerify } from '../../src/vault/audit.ts'
import { chain, leafHash, openAudit } from '../../src/vault/audit-row.ts'
import { Malformed, hex, utf8 } from '../../src/vault/bytes.ts'
import { bucketSize, decodeObject, decodeRecord, objects } from '../../src/vault/codec.ts'
import { decoded, tampered } from '../../src/vault/damage.ts'
import { verifyExport } from '../../src/vault/export-verify.ts'
import { parseHeader, unsealHeader, vaultIdOf } from '../../src/vault/header.ts'
import { readKeyFile } from '../../src/vault/key-file.ts'
import {
  type Keyring,
  type Keys,
  assembleKeys,
  decodeKeyring,
  epochKeys,
  kindNumber,
  objectKey,
} from '../../src/vault/keys.ts'
import { Marks, markKey } from '../../src/vault/marks.ts'
import {
  type Note,
  decodeVerifier,
  encodeVerifier,
  parseLine,
  parseNote,
  signedBy,
  signerOf,
} from '../../src/vault/note.ts'
import { parseRecipient } from '../../src/vault/recipient.ts'
import { parseRecoveryKey } from '../../src/vault/recovery-key.ts'
import { decodeRoot } from '../../src/vault/root.ts'
import { Sealer, associated, openRow } from '../../src/vault/seal.ts'
import { Session } from '../../src/vault/session.ts'
import { derive } from '../../src/vault/sodium.ts'
import { decodeLeaf, decodeMid, refHash } from '../../src/vault/tree.ts'
import type { Unlock } from '../../src/vault/types.ts'
import {
  commitment,
  fromKek,
  kekOfKey,
  kekOfPassphrase,
  opener,
  wrapData,
} from '../../src/vault/unlockers.ts'
import { verifyVault } from '../../src/vault/verify.ts'

export type Json =
  | string
  | number
  | boolean
  | null
  | readonly Json[]
  | { readonly [key: string]: Json }
export type Given = Readonly<Record<string, Json>>

export interface Vector {
  readonly name: string
  readonly op: string
  readonly in: Given
  readonly gives?: Json
  readonly refused?: { readonly code: string; readonly kind: string }
}

export interface VectorFile {
  readonly about: string
  readonly vaults?: Readonly<Record<string, { readonly file: string }>>
  readonly vectors: readonly Vector[]
}

export type Vaults = Readonly<Record<string, { readonly file: string }>>

const text = (given: Given, name: string): string => String(given[name])
const number = (given: Given, name: string): number => Number(given[name])
export const unhex = (value: Json | undefined): Uint8Array =>
  new Uint8Array(Buffer.from(String(value), 'hex'))
const bytes = (given: Given, name: string): Uint8Array => unhex(given[name])
const record = (value: Json | undefined): Given => value as Given

/** Shows a record with its secrets and the order of its keys. */
export function shown(value: unknown): Json {
  if (value instanceof Secret) return ['secret', hex(value.bytes())]
  if (Array.isArray(value)) return ['list', ...value.map(shown)]
  if (value !== null && typeof value === 'object')
    return ['object', ...Object.entries(value).map(([key, inner]): Json => [key, shown(inner)])]
  return value as Json
}

/** Replaces bytes by hex at any depth. */
export function hexed(value: unknown): Json {
  if (value instanceof Uint8Array) return hex(value)
  if (Array.isArray(value)) return value.map(hexed)
  if (value !== null && typeof value === 'object')
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, hexed(inner)]))
  return value as Json
}

function keysOf(given: Given): Keys {
  const zero = new Uint8Array(32)
  const list = (of: Json | undefined): (readonly [number, Uint8Array])[] =>
    Object.entries(record(of)).map(([epoch, key]) => [Number(epoch), unhex(key)])
  const roots = list(given['roots'])
  const ring: Keyring = {
    index: zero,
    fingerprint: zero,
    signSeed: zero,
    audit: list(given['audit']).map(([epoch, key]) => ({ epoch, key })),
    roots: roots.map(([epoch, root]) => ({ epoch, root })),
    unlockers: [],
  }
  const epoch = number(given, 'epoch')
  const current = roots.find(([of]) => of === epoch)?.[1] ?? zero
  return assembleKeys(bytes(given, 'vault'), epoch, epochKeys(current), ring)
}

function unlockOf(given: Given): Unlock {
  const kind = text(given, 'kind')
  if (kind === 'passphrase') return { kind, passphrase: new Secret(text(given, 'passphrase')) }
  if (kind === 'key-file' || kind === 'recovery')
    return { kind, key: new Secret(bytes(given, 'key')) }
  throw new Error(`no such unlocker: ${kind}`)
}

/** Works in a temporary directory, which is removed afterwards. */
async function within<T>(work: (directory: string) => Promise<T> | T): Promise<T> {
  const directory = mkdtempSync(join(tmpdir(), 'rotate-format-'))
  try {
    return await work(directory)
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

async function keyFile(content: string): Promise<Uint8Array> {
  return within(async (directory) => {
    const path = join(directory, 'key')
    writeFileSync(path, content, { mode: 0o600 })
    return (await readKeyFile(path)).bytes()
  })
}

function signed(note: Note, key: Parameters<typeof signedBy>[1]): Json {
  if (note.claim.origin !== key.name) throw tampered('the note is of another origin')
  if (!signedBy(note, key)) throw tampered('the note is not signed by this key')
  const { origin, size, hash: of, more } = note.claim
  return [origin, size, hex(of), [...more]]
}

async function* whole(content: string): AsyncGenerator<Uint8Array> {
  yield utf8(content)
}

async function markOf(given: Given): Promise<unknown> {
  return within((directory) => {
    const marks = new Marks(directory, bytes(given, 'vault'), text(given, 'path'))
    mkdirSync(dirname(marks.file), { recursive: true })
    writeFileSync(marks.file, bytes(given, 'record'))
    const found = marks.load().highest(markKey({ index: bytes(given, 'index') } as Keyring)).mark
    if (found === undefined) throw tampered('its record does not verify')
    const { trusted, tag, commit, auditCount, auditHash } = found
    return { trusted, tag, commit, auditCount, auditHash }
  })
}

/** References, in the form that both sides use. */
const refs = (
  children: ReadonlyMap<number, { readonly hash: Uint8Array; readonly wake: number }>,
): unknown[] => [...children].map(([position, { hash: of, wake }]) => [position, of, wake])

const operations: Readonly<Record<string, (given: Given, vaults: Vaults) => unknown>> = {
  kdf: (given) =>
    derive(bytes(given, 'key'), number(given, 'id'), text(given, 'context') as 'rotate/1'),
  kek: (given) => kekOfKey(text(given, 'kind') as 'recovery', bytes(given, 'key')),
  'kek-passphrase': (given) =>
    kekOfPassphrase(new Secret(text(given, 'text')), bytes(given, 'salt'), {
      memory: number(given, 'kib') * 1024,
      passes: number(given, 'passes'),
    }),
  holder: (given) => {
    const { publicKey, psk, commitKey } = fromKek(bytes(given, 'kek'))
    return { pk: publicKey, psk, commitKey }
  },
  'key-file': (given) => keyFile(text(given, 'text')),
  recovery: async (given) => (await parseRecoveryKey(new Secret(text(given, 'text')))).bytes(),
  recipient: (given) => parseRecipient(text(given, 'text')),
  commitment: (given) =>
    commitment({ commitKey: bytes(given, 'commitKey') }, bytes(given, 'vault'), {
      rawId: bytes(given, 'id'),
      kind: number(given, 'kind'),
      params: bytes(given, 'params'),
    }),
  header: (given) => {
    const { format, minimumReader, vault, epoch, fingerprint, stanzas } = parseHeader(
      bytes(given, 'stored'),
    )
    const each = stanzas.map(({ rawId, kind, params, commit, box }) => [
      rawId,
      kind,
      params,
      commit,
      box,
    ])
    return [format, minimumReader, vault, epoch, fingerprint, each]
  },
  unlock: async (given) =>
    (await opener(unlockOf(record(given['unlock'])))(parseHeader(bytes(given, 'stored')))).root,
  unseal: (given) =>
    ringOf(unsealHeader(parseHeader(bytes(given, 'stored')), bytes(given, 'root')).ring),
  keyring: (given) =>
    ringOf(decoded('the keyring', () => decodeKeyring(bytes(given, 'plaintext')))),
  associated: (given) =>
    associated(
      bytes(given, 'vault'),
      text(given, 'table') as TableName,
      number(given, 'epoch'),
      BigInt(text(given, 'row')),
    ),
  'wrap-data': (given) =>
    wrapData(bytes(given, 'vault'), bytes(given, 'id'), number(given, 'epoch')),
  nonce: (given) => {
    const ring = { audit: [], roots: [] } as unknown as Keyring
    const sealer = new Sealer(
      assembleKeys(
        new Uint8Array(16),
        1,
        { ...epochKeys(new Uint8Array(32)), nonce: bytes(given, 'key') },
        ring,
      ),
      bytes(given, 'random'),
    )
    for (let i = 0; i < number(given, 'counter'); i++) sealer.fresh('skipped')
    return sealer
      .sealUnder(new Uint8Array(32), bytes(given, 'data'), bytes(given, 'plaintext'))
      .slice(0, 24)
  },
  row: (given) =>
    openRow(
      keysOf(record(given['keys'])),
      text(given, 'table') as TableName,
      BigInt(text(given, 'row')),
      bytes(given, 'stored'),
    ),
  bucket: (given) => bucketSize(number(given, 'length')),
  object: (given) => {
    const { kind, owner, sub, body } = decoded('an object', () =>
      decodeObject(bytes(given, 'plaintext')),
    )
    return [kind, owner, sub, body]
  },
  record: (given) => shown(decoded('a record', () => decodeRecord(bytes(given, 'body')))),
  index: (given) =>
    String(
      objectKey(
        { index: bytes(given, 'key') } as Keyring,
        number(given, 'kind'),
        text(given, 'owner'),
        number(given, 'sub'),
      ),
    ),
  ref: (given) => refHash(bytes(given, 'stored')),
  leaf: (given) =>
    decoded('a node', () => decodeLeaf(number(given, 'node'), bytes(given, 'plaintext'))).map(
      (one) => [String(one.key), one.kind, one.hash, one.wake],
    ),
  mid: (given) =>
    refs(decoded('a node', () => decodeMid(number(given, 'node'), bytes(given, 'plaintext')))),
  root: (given) => {
    const root = decoded('its state root', () => decodeRoot(bytes(given, 'plaintext')))
    const layout = Buffer.from(root.layout)
    return {
      commit: root.commit,
      tags: root.recent,
      highestTime: root.highestTime,
      auditCount: root.auditCount,
      auditHash: root.auditHash,
      auditBase: root.auditBase,
      auditBaseHash: root.auditBaseHash,
      objects: root.objects,
      nodes: root.nodes,
      runs: root.runs,
      pages: layout.readUInt32BE(0),
      freePages: layout.readUInt32BE(4),
      headerHash: root.headerHash,
      cursor: root.rekeyCursor,
      flags: root.flags,
      mids: refs(root.mids),
    }
  },
  'audit-leaf': (given) => leafHash(bytes(given, 'salt'), utf8(text(given, 'text'))),
  audit: (given) => {
    const { event, previous } = openAudit(
      keysOf(record(given['keys'])),
      number(given, 'seq'),
      bytes(given, 'stored'),
    )
    return [eventOf(event), previous]
  },
  chain: (given) => chain(bytes(given, 'previous'), bytes(given, 'stored')),
  verifier: async (given) => {
    const { name, id, publicKey } = await decodeVerifier(text(given, 'text'))
    return [name, id, publicKey]
  },
  note: async (given) =>
    signed(parseNote(text(given, 'text')), await decodeVerifier(text(given, 'verifier'))),
  line: async (given) =>
    signed(parseLine(text(given, 'text')), await decodeVerifier(text(given, 'verifier'))),
  export: async (given) => {
    const {
      from,
      to,
      shown: seen,
      withheld,
    } = await verifyExport({ chunks: whole(text(given, 'text')), pubkey: text(given, 'verifier') })
    return [from, to, seen, withheld]
  },
  mark: (given) => markOf(given),
  vault: (given, vaults) => wholeVault(given, vaults),
}

function ringOf(ring: Keyring): unknown {
  return {
    index: ring.index,
    fingerprint: ring.fingerprint,
    seed: ring.signSeed,
    audit: Object.fromEntries(ring.audit.map(({ epoch, key }) => [epoch, key])),
    roots: Object.fromEntries(ring.roots.map(({ epoch, root }) => [epoch, root])),
    unlockers: ring.unlockers.map(({ rawId, kind, createdAt, publicKey, psk }) => ({
      id: rawId,
      kind: kindNumber(kind),
      created: createdAt,
      pk: publicKey,
      psk,
    })),
  }
}

function eventOf({
  seq,
  at,
  action,
  path,
  actor,
  triggeredBy,
  status,
  runId,
  metadata,
}: Awaited<ReturnType<typeof openAudit>>['event']): Json {
  return shown({ seq, at, action, path, actor, triggeredBy, status, runId, metadata })
}

/** Packs a vault file for a published vector. */
export function packed(file: Uint8Array): string {
  return deflateSync(file, { level: 9 }).toString('base64')
}

export function unpacked(vaults: Vaults, name: string): Buffer {
  return inflateSync(Buffer.from(vaults[name]?.file ?? '', 'base64'))
}

/** Writes a vault of the vectors, with the given edits, to that path. */
export function place(path: string, given: Given, vaults: Vaults): void {
  writeFileSync(path, unpacked(vaults, text(given, 'vault')), { mode: 0o600 })
  const edits = (given['edits'] ?? []) as readonly Given[]
  const inRows = edits.filter((edit) => edit['byte'] === undefined && edit['cut'] === undefined)
  if (inRows.length > 0) {
    const db = new Database(path)
    db.pragma('journal_mode=MEMORY')
    for (const edit of inRows) editRows(db, path, edit, vaults)
    db.close()
  }
  const inBytes = edits.filter((edit) => !inRows.includes(edit))
  if (inBytes.length === 0) return
  let file = readFileSync(path)
  for (const edit of inBytes) {
    if (edit['cut'] !== undefined) file = file.subarray(0, number(edit, 'cut'))
    else file[number(edit, 'byte')] = (file[number(edit, 'byte')] ?? 0) ^ number(edit, 'xor')
  }
  writeFileSync(path, file)
}

function editRows(db: Database.Database, path: string, edit: Given, vaults: Vaults): void {
  const put = (table: string, key: string, value: Uint8Array): void => {
    db.prepare(`INSERT OR REPLACE INTO ${table}(i,b) VALUES(?,?)`).run(BigInt(key), value)
  }
  if (edit['sql'] !== undefined) db.exec(text(edit, 'sql'))
  else if (edit['row'] !== undefined) {
    const [table = '', key = ''] = edit['row'] as readonly string[]
    const stored = Buffer.from(
      db.prepare(`SELECT b FROM ${table} WHERE i=?`).pluck().get(BigInt(key)) as Uint8Array,
    )
    const at = number(edit, 'at') >= 0 ? number(edit, 'at') : stored.length + number(edit, 'at')
    stored[at] = (stored[at] ?? 0) ^ number(edit, 'xor')
    put(table, key, stored)
  } else if (edit['put'] !== undefined) {
    const [table = '', key = ''] = edit['put'] as readonly string[]
    put(table, key, bytes(edit, 'bytes'))
  } else {
    writeFileSync(`${path}.other`, unpacked(vaults, text(edit, 'from')))
    const other = new Database(`${path}.other`, { readonly: true })
    for (const [table = '', key = ''] of edit['rows'] as readonly (readonly string[])[])
      put(
        table,
        key,
        other.prepare(`SELECT b FROM ${table} WHERE i=?`).pluck().get(BigInt(key)) as Uint8Array,
      )
    other.close()
  }
}

const still = {
  clock: { now: () => 0, monotonic: () => 0, sleep: () => Promise.resolve() },
  random: { bytes: (count: number) => new Uint8Array(count) },
}

/** Summarises the whole content of a vault, which must verify. */
export async function summaryOf(path: string, unlock: Unlock): Promise<Json> {
  const store = await openSqliteStore(path)
  try {
    const session = new Session({ store, ...still, openRoot: opener(unlock) })
    await session.open()
    const report = await verifyVault(session, true, undefined)
    if (!report.ok) throw tampered(report.problems.join('; '))
    const { ring, vault, epoch } = session.keys
    const found = await session.consistent(async (snapshot) => {
      const all = []
      for (const kind of Object.values(objects)) all.push(...(await snapshot.ofKind(kind, 0, 128)))
      return { root: await snapshot.root(), all }
    })
    const events: Json[] = []
    for await (const event of auditEvents(session, {})) events.push(eventOf(event))
    const { ok } = await auditVerify(session)
    if (!ok) throw tampered('its audit chain does not lead to its state root')
    const compare = (a: readonly Json[], b: readonly Json[]): number =>
      Number(a[0]) - Number(b[0]) ||
      Buffer.compare(Buffer.from(String(a[1])), Buffer.from(String(b[1]))) ||
      Number(a[2]) - Number(b[2])
    const { root } = found
    return {
      vault: vaultIdOf(vault),
      epoch,
      commit: root.commit,
      highestTime: root.highestTime,
      flags: root.flags,
      unlockers: ring.unlockers.map(({ id, kind }) => [id, kindNumber(kind)]),
      objects: found.all
        .map(({ kind, owner, sub, wake, body }) => [
          kind,
          owner,
          sub,
          wake,
          shown(decodeRecord(body)),
        ])
        .toSorted(compare),
      auditCount: root.auditCount,
      auditBase: root.auditBase,
      auditHash: hex(root.auditHash),
      events,
      verifier: encodeVerifier(await signerOf(vaultIdOf(vault), ring.signSeed)),
    }
  } finally {
    store.close()
  }
}

function wholeVault(given: Given, vaults: Vaults): Promise<Json> {
  return within(async (directory) => {
    const path = join(directory, 'vault.db')
    place(path, given, vaults)
    return summaryOf(path, unlockOf(record(given['unlock'])))
  })
}

/**
 * The product's answer to a vector: its result, or the code of its refusal together with
 * the message.
 */
export async function answer(
  vector: Pick<Vector, 'op' | 'in'>,
  vaults: Vaults,
): Promise<{ gives: Json } | { code: string; says: string }> {
  const operation = operations[vector.op]
  if (operation === undefined) throw new Error(`unknown operation ${vector.op}`)
  try {
    return { gives: hexed(await operation(vector.in, vaults)) }
  } catch (error) {
    if (error instanceof Malformed) return { code: 'malformed', says: error.message }
    if (!(error instanceof RotateError)) throw error
    const cause = error.cause instanceof Error ? `: ${error.cause.message}` : ''
    return { code: error.code, says: `${error.message}${cause}` }
  }
}

/** A pattern of the product's message for each kind of refusal in FORMAT.md. */
export const sayings: Readonly<Record<string, RegExp>> = {
  'key-file-text': /is not a key file|is empty/,
  'key-file-version': /has version/,
  'key-file-length': /cut short|too long/,
  'key-file-check': /check digits/,
  'recovery-prefix': /does not begin with rr1-/,
  'recovery-length': /not 36/,
  'recovery-digit': /can not occur in one/,
  'recovery-check': /last group does not fit/,
  'recipient-private': /private key file/,
  'recipient-prefix': /begins with rp1-/,
  'recipient-length': /cut short|too long/,
  'recipient-digit': /can not occur in one/,
  'recipient-check': /check digits/,
  'recipient-point': /no usable public key/,
  'wrong-key': /does not open this vault/,
  'no-such-unlocker': /it has none/,
  'kdf-params': /passphrase entry has the wrong layout/,
  'kdf-cost': /cost of its password hash is out of bounds/,
  box: /entry of this unlocker was changed/,
  'header-missing': /header is missing/,
  'header-magic': /unknown beginning/,
  'header-format': /impossible format number/,
  'header-layout': /header has the wrong layout/,
  'header-mac': /header was changed/,
  fingerprint: /names another root key/,
  'keyring-seal': /the keyring can't be opened/,
  'keyring-version': /keyring has an unknown layout/,
  'keyring-kind': /unlocker of an unknown kind/,
  'keyring-layout': /the keyring has the wrong layout/,
  'row-length': /is too short/,
  'row-epoch': /unknown key/,
  'row-seal': /can't be opened/,
  'object-layout': /wrong layout.*: (too short|too long|not UTF-8)/,
  'object-kind': /unknown kind of object/,
  padding: /padd(ed|ing)/,
  'record-layout': /wrong layout.*: too (short|long)/,
  'record-json': /not JSON|not a record/,
  'record-secret': /secret/,
  'node-number': /another node/,
  'leaf-layout': /too short/,
  'leaf-order': /entries out of order/,
  'leaf-kind': /unknown kind of object/,
  'mid-layout': /too short/,
  'mid-order': /positions out of order/,
  'root-version': /unknown layout of the state root/,
  'root-layout': /state root has the wrong layout/,
  'root-missing': /state root is missing/,
  'root-epoch': /header is not the one that belongs/,
  'root-header': /header is not the one that belongs/,
  'node-ref': /a node of its tree is not the one its parent names|a row of table node is missing/,
  'object-ref': /an object is not the one its parent names|a row of table obj is missing/,
  'object-place': /lies in the place of another/,
  'audit-missing': /audit event \d+ (is missing|does not verify)/,
  'audit-chain': /audit event \d+ does not verify/,
  'audit-leaf': /does not match its leaf/,
  'audit-layout': /has the wrong layout/,
  'audit-number': /has another number/,
  'verifier-text': /not a verifier key|canonical/,
  'verifier-id': /does not fit its own hash/,
  'note-text': /not a (note|checkpoint)|canonical/,
  'note-signature': /without signature|too short|canonical/,
  'note-origin': /another origin/,
  'note-unsigned': /not signed by this key/,
  'line-text': /not a checkpoint line/,
  'export-cut': /cut|not a line of an export/,
  'export-line': /not a line of an export/,
  'export-note': /note (can not be read|is not the note of an export)|belongs to a/,
  'export-order': /follows event|begins with event|lines are missing/,
  'export-chain': /does not match its hash/,
  'export-counts': /hidden or shown/,
  'export-origin': /another vault than the key/,
  'export-unsigned': /note is not signed by this key/,
  'export-digest': /bytes are not those/,
  'mark-mac': /record does not verify/,
  container: /file header|not a vault|cut short|empty/,
  sqlite: /damaged or was changed/,
  schema: /does not belong there/,
  'format-number': /format number/,
  'newer-format': /this program knows format 1/,
}
