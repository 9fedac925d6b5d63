/**
 * Makes the published vectors with the product's own code, a fixed random source and a
 * fixed clock: `node test/format/generate.ts [directory]`. `npm run format` gives them
 * their form afterwards. The vectors that must be refused are written by hand here; that
 * the product refuses them is checked when the file is made and again by every test.
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createHash } from 'node:crypto'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { AuditEntry, RunRecord, SecretRecord } from '../../src/core/model.ts'
import type { Clock, Random, Vault } from '../../src/core/ports.ts'
import { Secret } from '../../src/core/secret.ts'
import { CHAIN_START, canonical, chain, leafHash, sealAudit } from '../../src/vault/audit-row.ts'
import { concat, hex, utf8, Writer } from '../../src/vault/bytes.ts'
import { encodeObject, encodeRecord } from '../../src/vault/codec.ts'
import { type Stanza, buildHeader, parseHeader } from '../../src/vault/header.ts'
import { createVault, newRecoveryKey, openVault, proveCopy } from '../../src/vault/index.ts'
import {
  type Keyring,
  assembleKeys,
  encodeKeyring,
  epochKeys,
  unlockerId,
} from '../../src/vault/keys.ts'
import { Marks, markKey } from '../../src/vault/marks.ts'
import { encodeVerifier, signLine, signNote, signerOf } from '../../src/vault/note.ts'
import { formatRecipient } from '../../src/vault/recipient.ts'
import { encodeRoot } from '../../src/vault/root.ts'
import { Sealer } from '../../src/vault/seal.ts'
import { hash, ready, sodium } from '../../src/vault/sodium.ts'
import { NEVER, encodeLeaf, encodeMid } from '../../src/vault/tree.ts'
import type { NewUnlocker, Unlock } from '../../src/vault/types.ts'
import { newStanza, recipientOf } from '../../src/vault/unlockers.ts'
import {
  type Given,
  type Json,
  type Vector,
  type VectorFile,
  answer,
  packed,
  sayings,
} from './ops.ts'

await ready()

/** A random source that gives the same bytes at every run. */
function seeded(name: string): Random {
  let counter = 0
  return {
    bytes: (count) => {
      const parts: Uint8Array[] = []
      for (let have = 0; have < count; have += 32)
        parts.push(new Uint8Array(createHash('sha256').update(`${name} ${counter++}`).digest()))
      return concat(...parts).slice(0, count)
    },
  }
}

/** The ephemeral keys of libsodium's sealed boxes come from the same kind of source. */
function seedBoxes(name: string): void {
  const source = seeded(`boxes ${name}`)
  const inner = (sodium as unknown as { libsodium: { getRandomValue: () => number } }).libsodium
  inner.getRandomValue = () => new DataView(source.bytes(4).buffer).getUint32(0)
}

const clock: Clock = {
  now: () => 1_800_000_000_000,
  monotonic: () => 0,
  sleep: () => Promise.resolve(),
}
const made: Record<
  string,
  { about: string; vaults?: Record<string, { file: string }>; vectors: Vector[] }
> = {}
let current: Vector[] = []
let vaults: Record<string, { file: string }> = {}

function file(name: string, about: string): void {
  seedBoxes(name)
  current = []
  made[name] = { about, vectors: current }
}

async function accept(name: string, op: string, given: Given): Promise<Json> {
  const found = await answer({ op, in: given }, vaults)
  if (!('gives' in found)) throw new Error(`${name}: refused (${found.says})`)
  current.push({ name, op, in: given, gives: found.gives })
  return found.gives
}

async function refuse(name: string, op: string, given: Given, kind: string): Promise<void> {
  const found = await answer({ op, in: given }, vaults)
  if (!('code' in found)) throw new Error(`${name}: accepted`)
  if (sayings[kind]?.test(found.says) !== true)
    throw new Error(`${name}: "${found.says}" does not say ${kind}`)
  current.push({ name, op, in: given, refused: { code: found.code, kind } })
}

const b = (fill: number, length = 32): Uint8Array =>
  new Uint8Array(length).map((_, i) => (fill + i) & 255)
const h = (fill: number, length = 32): string => hex(b(fill, length))
const flipped = (bytes: Uint8Array, at: number, xor = 1): Uint8Array => {
  const out = bytes.slice()
  const place = at < 0 ? out.length + at : at
  out[place] = (out[place] ?? 0) ^ xor
  return out
}

// ---------------------------------------------------------------- keys

file('keys', 'Key derivations and the texts of keys (section 3)')
for (const [context, ids] of [
  ['rotate/1', [1, 2, 3, 4, 5, 7, 8]],
  ['unlock/1', [1, 2, 3]],
] as const)
  for (const id of ids)
    await accept(`subkey ${id} of ${context}`, 'kdf', { key: h(1), id, context })
for (const kind of ['key-file', 'recipient', 'recovery'])
  await accept(`KEK of a ${kind}`, 'kek', { kind, key: kind === 'recovery' ? h(9, 20) : h(9) })
const cheap = { salt: h(40, 16), kib: 65536, passes: 2 }
await accept('KEK of a passphrase', 'kek-passphrase', { text: 'correct horse', ...cheap })
await accept('KEK of a passphrase, composed', 'kek-passphrase', { text: 'caf\u00e9', ...cheap })
await accept('KEK of a passphrase, decomposed: the same', 'kek-passphrase', {
  text: 'cafe\u0301',
  ...cheap,
})
await accept('what a KEK yields', 'holder', { kek: h(3) })

const b64url = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64url')
const keyCheck = hash(16, b(7), utf8('rotate/1 key file check')).slice(0, 4)
const keyLine = `rotate-key-1:${b64url(concat(b(7), keyCheck))}`
await accept('key file', 'key-file', { text: `${keyLine}\n` })
await accept('key file without line end', 'key-file', { text: keyLine })
await accept('key file with the line end of Windows', 'key-file', { text: `${keyLine}\r\n` })
await refuse('key file, empty', 'key-file', { text: '' }, 'key-file-text')
await refuse(
  'key file, two lines',
  'key-file',
  { text: `${keyLine}\n${keyLine}\n` },
  'key-file-text',
)
await refuse('key file, space in front', 'key-file', { text: ` ${keyLine}\n` }, 'key-file-text')
await refuse('key file, padded base64', 'key-file', { text: `${keyLine}=\n` }, 'key-file-text')
await refuse(
  'key file, the other base64 alphabet',
  'key-file',
  { text: `${keyLine.slice(0, -1)}+\n` },
  'key-file-text',
)
await refuse(
  'key file, version 2',
  'key-file',
  { text: keyLine.replace('-1:', '-2:') },
  'key-file-version',
)
await refuse('key file, cut', 'key-file', { text: keyLine.slice(0, -1) }, 'key-file-length')
await refuse('key file, one digit more', 'key-file', { text: `${keyLine}A` }, 'key-file-length')
await refuse(
  'key file, one digit changed',
  'key-file',
  { text: keyLine.replace(/:./, ':x') },
  'key-file-check',
)

const { text: recoveryText } = await newRecoveryKey({ bytes: () => b(9, 20) })
const recovery = recoveryText.reveal()
await accept('recovery key', 'recovery', { text: recovery })
await accept('recovery key, lower case, spaces', 'recovery', {
  text: recovery.toLowerCase().replaceAll('-', ' '),
})
await accept('recovery key, without hyphens, O for 0, I and L for 1', 'recovery', {
  text: recovery
    .replaceAll('-', '')
    .slice(3)
    .replaceAll('0', 'O')
    .replace('1', 'I')
    .replaceAll('1', 'l')
    .replace(/^/, 'rr1'),
})
await refuse(
  'recovery key, other prefix',
  'recovery',
  { text: recovery.replace('rr1', 'rr2') },
  'recovery-prefix',
)
await refuse(
  'recovery key, a group missing',
  'recovery',
  { text: recovery.slice(0, -5) },
  'recovery-length',
)
await refuse(
  'recovery key, a U',
  'recovery',
  { text: recovery.replace(/-./, '-U') },
  'recovery-digit',
)
await refuse(
  'recovery key, a slip',
  'recovery',
  { text: recovery.replace(/-(.)/, (_, one: string) => (one === '2' ? '-3' : '-2')) },
  'recovery-check',
)
await refuse(
  'recovery key, a slip in the last group',
  'recovery',
  { text: `${recovery.slice(0, -1)}${recovery.endsWith('Z') ? 'Y' : 'Z'}` },
  'recovery-check',
)

const recipient = formatRecipient(recipientOf(b(11)))
await accept('recipient', 'recipient', { text: recipient })
await accept('recipient with blanks around it', 'recipient', { text: ` ${recipient}\n` })
await refuse('recipient: a private key', 'recipient', { text: keyLine }, 'recipient-private')
await refuse(
  'recipient, other prefix',
  'recipient',
  { text: recipient.replace('rp1', 'rp2') },
  'recipient-prefix',
)
await refuse('recipient, cut', 'recipient', { text: recipient.slice(0, -3) }, 'recipient-length')
await refuse(
  'recipient, foreign character',
  'recipient',
  { text: recipient.replace(/.$/, '+') },
  'recipient-digit',
)
await refuse(
  'recipient, mistyped',
  'recipient',
  { text: recipient.replace(/-(.)/, (_, one: string) => (one === 'a' ? '-b' : '-a')) },
  'recipient-check',
)
await refuse(
  'recipient, a point of small order',
  'recipient',
  { text: formatRecipient(new Uint8Array(32)) },
  'recipient-point',
)

// ---------------------------------------------------------------- header

file('header', 'Stanzas, boxes, the header with its MAC, and the keyring (section 4)')
const vault = b(60, 16)
const root = b(80)
const bare: Keyring = {
  index: b(1),
  fingerprint: b(2),
  signSeed: b(3),
  audit: [{ epoch: 1, key: b(4) }],
  roots: [],
  unlockers: [],
}
const sealer = new Sealer(assembleKeys(vault, 1, epochKeys(root), bare), b(5))
const holders: readonly NewUnlocker[] = [
  {
    kind: 'passphrase',
    passphrase: new Secret('correct horse'),
    params: { memory: 64 * 1024 * 1024, passes: 2 },
  },
  { kind: 'key-file', key: new Secret(b(7)) },
  { kind: 'recipient', publicKey: recipientOf(b(11)) },
  { kind: 'recovery', key: new Secret(b(9, 20)) },
]
const stanzas: Stanza[] = []
const unlockers = []
for (const [i, unlocker] of holders.entries()) {
  const rawId = b(100 + i * 20, 16)
  const { stanza, secret } = await newStanza(vault, 1, root, unlocker, sealer, rawId)
  stanzas.push(stanza)
  unlockers.push({
    id: unlockerId(rawId),
    rawId,
    kind: unlocker.kind,
    createdAt: 1_700_000_000_000 + i,
    publicKey: secret.publicKey,
    psk: secret.psk,
  })
}
const ring: Keyring = { ...bare, unlockers }
const stored = buildHeader(vault, 1, root, stanzas, ring, sealer)
for (const [i, kind] of [
  [0, 1],
  [1, 2],
  [3, 4],
] as const)
  await accept(`commitment of kind ${kind}`, 'commitment', {
    commitKey: h(30 + i),
    vault: hex(vault),
    id: hex(stanzas[i]?.rawId ?? b(0)),
    kind,
    params: hex(stanzas[i]?.params ?? b(0)),
  })
await accept('associated data of a wrap', 'wrap-data', {
  vault: hex(vault),
  id: h(100, 16),
  epoch: 7,
})
await accept('header', 'header', { stored: hex(stored) })
const unlocks: Record<string, Given> = {
  passphrase: { kind: 'passphrase', passphrase: 'correct horse' },
  'key file': { kind: 'key-file', key: h(7) },
  'key file of the recipient': { kind: 'key-file', key: h(11) },
  'recovery key': { kind: 'recovery', key: h(9, 20) },
}
for (const [name, unlock] of Object.entries(unlocks))
  await accept(`root key by ${name}`, 'unlock', { stored: hex(stored), unlock })
const byFile = { kind: 'key-file', key: h(7) }
await refuse(
  'another key file',
  'unlock',
  { stored: hex(stored), unlock: { kind: 'key-file', key: h(8) } },
  'wrong-key',
)
await refuse(
  'another recovery key',
  'unlock',
  { stored: hex(stored), unlock: { kind: 'recovery', key: h(8, 20) } },
  'wrong-key',
)
const header = parseHeader(stored)
const only = (...indexes: number[]): Uint8Array =>
  buildHeader(
    vault,
    1,
    root,
    indexes.flatMap((i) => stanzas[i] ?? []),
    ring,
    sealer,
  )
await refuse(
  'no such unlocker',
  'unlock',
  { stored: hex(only(1)), unlock: { kind: 'recovery', key: h(9, 20) } },
  'no-such-unlocker',
)
const withStanza = (i: number, change: object): string =>
  hex(
    buildHeader(
      vault,
      1,
      root,
      stanzas.map((one, at) => (at === i ? { ...one, ...change } : one)),
      ring,
      sealer,
    ),
  )
const [phrase, keyed] = stanzas
if (phrase === undefined || keyed === undefined) throw new Error('two stanzas')
await refuse(
  'own commitment changed',
  'unlock',
  { stored: withStanza(1, { commit: flipped(keyed.commit, 0) }), unlock: byFile },
  'wrong-key',
)
await refuse(
  'own id changed',
  'unlock',
  { stored: withStanza(1, { rawId: flipped(keyed.rawId, 0) }), unlock: byFile },
  'wrong-key',
)
await refuse(
  'own box changed',
  'unlock',
  { stored: withStanza(1, { box: flipped(keyed.box, 40) }), unlock: byFile },
  'box',
)
await refuse(
  'own box cut',
  'unlock',
  { stored: withStanza(1, { box: keyed.box.slice(0, 40) }), unlock: byFile },
  'box',
)
await refuse(
  'box of another epoch',
  'unlock',
  { stored: hex(buildHeader(vault, 2, root, stanzas, ring, sealer)), unlock: byFile },
  'box',
)
const cost = (memory: number, passes: number): Uint8Array =>
  new Writer().raw(phrase.params.subarray(0, 16)).u32(memory).u32(passes).done()
const byPhrase = { kind: 'passphrase', passphrase: 'correct horse' }
for (const [name, memory, passes] of [
  ['too little memory', 65_535, 2],
  ['too much memory', 1_048_577, 2],
  ['all the memory there is', 0xffff_ffff, 2],
  ['one pass', 65_536, 1],
  ['eleven passes', 65_536, 11],
] as const)
  await refuse(
    `cost of the password hash: ${name}`,
    'unlock',
    { stored: withStanza(0, { params: cost(memory, passes) }), unlock: byPhrase },
    'kdf-cost',
  )
await refuse(
  'parameters cut',
  'unlock',
  { stored: withStanza(0, { params: phrase.params.slice(0, 23) }), unlock: byPhrase },
  'kdf-params',
)
await refuse(
  'parameters with a byte more',
  'unlock',
  { stored: withStanza(0, { params: concat(phrase.params, b(0, 1)) }), unlock: byPhrase },
  'kdf-params',
)
await accept('a stanza of an unknown kind is kept', 'header', {
  stored: withStanza(2, { kind: 77 }),
})
await refuse('other beginning', 'header', { stored: hex(flipped(stored, 0)) }, 'header-magic')
await refuse('minimum reader 2', 'header', { stored: hex(flipped(stored, 11, 3)) }, 'header-format')
await refuse(
  'format below minimum reader',
  'header',
  { stored: hex(flipped(stored, 9)) },
  'header-format',
)
await refuse('header cut', 'header', { stored: hex(stored.slice(0, -1)) }, 'header-layout')
await refuse(
  'header with a byte more',
  'header',
  { stored: hex(concat(stored, b(0, 1))) },
  'header-layout',
)
await refuse(
  'one stanza more than there are',
  'header',
  { stored: hex(flipped(stored, 64, 1)) },
  'header-layout',
)
await accept('keyring of a header', 'unseal', { stored: hex(stored), root: hex(root) })
await refuse('another root key', 'unseal', { stored: hex(stored), root: h(81) }, 'fingerprint')
await refuse(
  'fingerprint changed',
  'unseal',
  { stored: hex(flipped(stored, 32)), root: hex(root) },
  'fingerprint',
)
await refuse(
  'a stanza of somebody else changed',
  'unseal',
  { stored: hex(flipped(stored, 70)), root: hex(root) },
  'header-mac',
)
await refuse(
  'a stanza removed, the MAC as it was',
  'unseal',
  { stored: hex(concat(only(1, 3).slice(0, -32), stored.slice(-32))), root: hex(root) },
  'header-mac',
)
await refuse(
  'the MAC changed',
  'unseal',
  { stored: hex(flipped(stored, -1)), root: hex(root) },
  'header-mac',
)
const foreign = new Sealer(assembleKeys(vault, 1, epochKeys(b(200)), bare), b(5))
const wrongRing = concat(
  stored.slice(0, stored.length - 36 - header.keyring.length),
  new Writer().long(foreign.sealUnder(b(200), b(0), encodeKeyring(ring))).done(),
)
await refuse(
  'a keyring under another key, with a good MAC',
  'unseal',
  {
    stored: hex(concat(wrongRing, hash(32, wrongRing, epochKeys(root).headerMac))),
    root: hex(root),
  },
  'keyring-seal',
)
const plainRing = encodeKeyring({
  ...ring,
  roots: [{ epoch: 1, root: b(90) }],
  audit: [...ring.audit, { epoch: 2, key: b(6) }],
})
await accept('keyring during a rekey', 'keyring', { plaintext: hex(plainRing) })
await refuse(
  'keyring of another layout',
  'keyring',
  { plaintext: hex(flipped(plainRing, 0, 3)) },
  'keyring-version',
)
await refuse(
  'keyring with a byte more',
  'keyring',
  { plaintext: hex(concat(plainRing, b(0, 1))) },
  'keyring-layout',
)
await refuse('keyring cut', 'keyring', { plaintext: hex(plainRing.slice(0, -1)) }, 'keyring-layout')
await refuse(
  'unlocker of kind 5 in the keyring',
  'keyring',
  { plaintext: hex(flipped(plainRing, plainRing.length - 71, 1)) },
  'keyring-kind',
)

// ---------------------------------------------------------------- rows

file('rows', 'Sealed rows, nonces, objects, records and the blind index (section 5)')
const keys = assembleKeys(vault, 2, epochKeys(root), {
  ...bare,
  audit: [
    { epoch: 1, key: b(4) },
    { epoch: 2, key: b(6) },
  ],
  roots: [{ epoch: 1, root: b(90) }],
})
const keysGiven: Given = {
  vault: hex(vault),
  epoch: 2,
  roots: { 1: h(90), 2: hex(root) },
  audit: { 1: h(4), 2: h(6) },
}
for (const [table, row] of [
  ['keyring', '0'],
  ['head', '2'],
  ['node', '16384'],
  ['obj', '18446744073709551615'],
  ['audit', '1'],
] as const)
  await accept(`associated data in ${table}`, 'associated', {
    vault: hex(vault),
    table,
    epoch: 2,
    row,
  })
await accept('nonce, first of a commit', 'nonce', {
  key: h(1),
  random: h(2),
  counter: 0,
  data: h(3, 37),
  plaintext: h(4, 64),
})
await accept('nonce, fourth of a commit', 'nonce', {
  key: h(1),
  random: h(2),
  counter: 3,
  data: h(3, 37),
  plaintext: h(4, 64),
})
await accept('nonce of nothing', 'nonce', {
  key: h(1),
  random: h(2),
  counter: 0,
  data: '',
  plaintext: '',
})
const rowSealer = new Sealer(keys, b(33))
for (const [table, row] of [
  ['head', 2n],
  ['node', 5n],
  ['obj', 0xffff_ffff_ffff_fffen],
  ['audit', 9n],
] as const) {
  const sealed = rowSealer.seal(table, row, utf8(`text in ${table}`))
  const given = (change: object): Given => ({
    keys: keysGiven,
    table,
    row: String(row),
    stored: hex(sealed),
    ...change,
  })
  await accept(`row of ${table}`, 'row', given({}))
  await refuse(
    `row of ${table}, bit flipped`,
    'row',
    given({ stored: hex(flipped(sealed, 40)) }),
    'row-seal',
  )
  await refuse(
    `row of ${table}, nonce flipped`,
    'row',
    given({ stored: hex(flipped(sealed, 4)) }),
    'row-seal',
  )
  await refuse(
    `row of ${table}, tag flipped`,
    'row',
    given({ stored: hex(flipped(sealed, -1)) }),
    'row-seal',
  )
  await refuse(`row of ${table}, moved`, 'row', given({ row: String(row - 1n) }), 'row-seal')
  await refuse(
    `row of ${table}, in another table`,
    'row',
    given({ table: table === 'obj' ? 'node' : 'obj' }),
    'row-seal',
  )
  await refuse(
    `row of ${table}, called older`,
    'row',
    given({ stored: hex(flipped(sealed, 3, 3)) }),
    'row-seal',
  )
  await refuse(
    `row of ${table}, of an unknown epoch`,
    'row',
    given({ stored: hex(flipped(sealed, 3, 4)) }),
    'row-epoch',
  )
  await refuse(
    `row of ${table}, in another vault`,
    'row',
    given({ keys: { ...keysGiven, vault: h(61, 16) } }),
    'row-seal',
  )
  await refuse(
    `row of ${table}, cut below its least length`,
    'row',
    given({ stored: hex(sealed.slice(0, 43)) }),
    'row-length',
  )
}
for (const length of [0, 1, 63, 64, 65, 128, 129, 1000, 65_536, 65_537])
  await accept(`size class of ${length}`, 'bucket', { length })
const object = encodeObject({ kind: 2, owner: 'sec_01KABX7D2M0000000000000001', sub: 3 }, b(0, 20))
await accept('object', 'object', { plaintext: hex(object) })
await accept('object that fills its class', 'object', {
  plaintext: hex(encodeObject({ kind: 5, owner: 'd', sub: 0 }, b(0, 64 - 12))),
})
await accept('object without owner and body', 'object', {
  plaintext: hex(encodeObject({ kind: 6, owner: '', sub: 0 }, b(0, 0))),
})
await accept('owner beyond ASCII', 'object', {
  plaintext: hex(encodeObject({ kind: 3, owner: 'größe/\u{1f511}', sub: 0 }, b(0, 1))),
})
await refuse('object of kind 0', 'object', { plaintext: hex(flipped(object, 0, 2)) }, 'object-kind')
await refuse('object of kind 7', 'object', { plaintext: hex(flipped(object, 0, 5)) }, 'object-kind')
await refuse('padding not zero', 'object', { plaintext: hex(flipped(object, -1)) }, 'padding')
await refuse(
  'padding not zero, first byte',
  'object',
  { plaintext: hex(flipped(object, 1 + 2 + 30 + 4 + 4 + 20)) },
  'padding',
)
await refuse(
  'a class too large',
  'object',
  { plaintext: hex(concat(object, new Uint8Array(64))) },
  'padding',
)
await refuse(
  'a byte too many',
  'object',
  { plaintext: hex(concat(object, new Uint8Array(1))) },
  'padding',
)
await refuse(
  'not padded',
  'object',
  { plaintext: hex(object.slice(0, 1 + 2 + 30 + 4 + 4 + 20)) },
  'padding',
)
await refuse(
  'owner not UTF-8',
  'object',
  { plaintext: hex(flipped(object, 5, 0x80)) },
  'object-layout',
)
await refuse('object cut', 'object', { plaintext: hex(object.slice(0, 20)) }, 'object-layout')

const records: Record<string, unknown> = {
  text: 'id',
  nothing: null,
  'numbers and lists': [1, -2.5, true, [], {}],
  'order of keys': { b: 1, a: 2 },
  'secrets in the order of the text': {
    value: new Secret(b(0, 3)),
    more: [new Secret('äö'), { deep: new Secret('') }],
  },
  'a secret alone': new Secret('x'),
  'what only looks like a secret': {
    a: { $secret: 0 },
    b: { $$secret: { $secret: 'x' } },
    c: { $secret: 1, d: 2 },
  },
}
for (const [name, value] of Object.entries(records))
  await accept(`record: ${name}`, 'record', { body: hex(encodeRecord(value)) })
const body = (json: string | Uint8Array, ...secrets: Uint8Array[]): string => {
  const out = new Writer().long(typeof json === 'string' ? utf8(json) : json).u16(secrets.length)
  for (const one of secrets) out.long(one)
  return hex(out.done())
}
await refuse('record: not JSON', 'record', { body: body('{"r":') }, 'record-json')
await refuse(
  'record: not UTF-8',
  'record',
  { body: body(concat(utf8('{"r":"'), Uint8Array.of(0xff), utf8('"}'))) },
  'record-json',
)
await refuse('record: no "r"', 'record', { body: body('{"s":1}') }, 'record-json')
await refuse(
  'record: a secret missing',
  'record',
  { body: body('{"r":{"$secret":0}}') },
  'record-secret',
)
await refuse(
  'record: a secret twice',
  'record',
  { body: body('{"r":[{"$secret":0},{"$secret":0}]}', b(1)) },
  'record-secret',
)
await refuse(
  'record: secrets in another order',
  'record',
  { body: body('{"r":[{"$secret":1},{"$secret":0}]}', b(1), b(2)) },
  'record-secret',
)
await refuse(
  'record: a secret that nothing names',
  'record',
  { body: body('{"r":1}', b(1)) },
  'record-secret',
)
await refuse('record: a byte more', 'record', { body: `${body('{"r":1}')}00` }, 'record-layout')
await refuse(
  'record: cut',
  'record',
  { body: body('{"r":{"$secret":0}}', b(1)).slice(0, -2) },
  'record-layout',
)
for (const [kind, owner, sub] of [
  [1, 'sec_01KABX7D2M0000000000000001', 0],
  [2, 'sec_01KABX7D2M0000000000000001', 1],
  [2, 'sec_01KABX7D2M0000000000000001', 2],
  [3, 'p/dev/A', 0],
  [3, 'größe/\u{1f511}', 0],
  [6, 'runs', 17],
] as const)
  await accept(`index of kind ${kind}, ${owner}, ${sub}`, 'index', { key: h(1), kind, owner, sub })

// ---------------------------------------------------------------- tree

file('tree', 'Leaves, mids and the state root (section 6)')
await accept('reference to a stored row', 'ref', { stored: h(1, 100) })
const entry = (low: number, wake: number) => ({
  key: (77n << 50n) | BigInt(low),
  kind: 2 as const,
  hash: b(low, 16),
  wake,
})
const fiveEntries = encodeLeaf(77, [
  entry(1, NEVER),
  entry(2, 0),
  entry(3, 5),
  entry(500, 1_800_000_000_000),
  entry(501, NEVER),
])
await accept('leaf of five', 'leaf', { node: 77, plaintext: hex(fiveEntries) })
await accept('leaf of four', 'leaf', {
  node: 77,
  plaintext: hex(encodeLeaf(77, [entry(1, 1), entry(2, 2), entry(3, 3), entry(4, 4)])),
})
await refuse(
  'leaf of another number',
  'leaf',
  { node: 78, plaintext: hex(fiveEntries) },
  'node-number',
)
await refuse(
  'leaf out of order',
  'leaf',
  { node: 77, plaintext: hex(encodeLeaf(77, [entry(2, 0), entry(1, 0)])) },
  'leaf-order',
)
await refuse(
  'leaf with an entry twice',
  'leaf',
  { node: 77, plaintext: hex(encodeLeaf(77, [entry(1, 0), entry(1, 0)])) },
  'leaf-order',
)
await refuse(
  'leaf with the entry of another',
  'leaf',
  { node: 77, plaintext: hex(encodeLeaf(77, [{ ...entry(1, 0), key: 78n << 50n }])) },
  'leaf-order',
)
await refuse(
  'leaf with an unknown kind',
  'leaf',
  { node: 77, plaintext: hex(flipped(fiveEntries, 12, 5)) },
  'leaf-kind',
)
await refuse(
  'leaf, padding not zero',
  'leaf',
  { node: 77, plaintext: hex(flipped(fiveEntries, -1)) },
  'padding',
)
await refuse(
  'leaf, padded too far',
  'leaf',
  { node: 77, plaintext: hex(concat(fiveEntries, new Uint8Array(124))) },
  'padding',
)
await refuse(
  'leaf, not padded',
  'leaf',
  { node: 77, plaintext: hex(fiveEntries.slice(0, 4 + 31 * 5)) },
  'padding',
)
await refuse(
  'leaf cut',
  'leaf',
  { node: 77, plaintext: hex(fiveEntries.slice(0, 50)) },
  'leaf-layout',
)
const children = new Map(
  [3, 0, 127].map((position) => [position, { hash: b(position, 16), wake: position }]),
)
const mid = encodeMid(5, children)
await accept('mid', 'mid', { node: 5, plaintext: hex(mid) })
await refuse('mid of another number', 'mid', { node: 6, plaintext: hex(mid) }, 'node-number')
await refuse(
  'mid, padding not zero',
  'mid',
  { node: 5, plaintext: hex(flipped(mid, -1)) },
  'padding',
)
await refuse(
  'mid with a byte more',
  'mid',
  { node: 5, plaintext: hex(concat(mid, new Uint8Array(1))) },
  'padding',
)
await refuse(
  'mid out of order',
  'mid',
  { node: 5, plaintext: hex(flipped(mid, 3, 7)) },
  'mid-order',
)
await refuse(
  'mid with position 128',
  'mid',
  { node: 5, plaintext: hex(flipped(mid, 3 + 46, 255)) },
  'mid-order',
)
await refuse('mid cut', 'mid', { node: 5, plaintext: hex(mid.slice(0, 30)) }, 'mid-layout')
const state = {
  commit: 3,
  recent: [b(1, 8), b(2, 8), b(3, 8)],
  highestTime: 1_800_000_000_000,
  auditCount: 4,
  auditHash: b(10),
  auditBase: 1,
  auditBaseHash: b(11),
  objects: 5,
  nodes: 6,
  runs: 7,
  layout: new Writer().u32(9).u32(0).done(),
  headerHash: b(12),
  rekeyCursor: 0xffff_ffff,
  flags: 1,
  mids: new Map([
    [0, { hash: b(13, 16), wake: NEVER }],
    [127, { hash: b(14, 16), wake: 0 }],
  ]),
}
const rootBytes = encodeRoot(state)
await accept('state root', 'root', { plaintext: hex(rootBytes) })
await accept('state root of an empty vault', 'root', {
  plaintext: hex(encodeRoot({ ...state, recent: [], mids: new Map() })),
})
await refuse(
  'state root of another layout',
  'root',
  { plaintext: hex(flipped(rootBytes, 0, 3)) },
  'root-version',
)
await refuse(
  'state root with a byte more',
  'root',
  { plaintext: hex(concat(rootBytes, b(0, 1))) },
  'root-layout',
)
await refuse('state root cut', 'root', { plaintext: hex(rootBytes.slice(0, -1)) }, 'root-layout')
await refuse(
  'an absent child with a wake time',
  'root',
  { plaintext: hex(flipped(rootBytes, rootBytes.length - 22 - 1)) },
  'root-layout',
)

// ---------------------------------------------------------------- audit

file(
  'audit',
  'Audit rows, the chain, verifier keys, checkpoints and exports (sections 7 and 8), ' +
    'high-water records (section 9)',
)
const entryOf = (path: string | null, more: Partial<AuditEntry> = {}): AuditEntry => ({
  action: 'secret_created',
  path,
  actor: 'anna',
  triggeredBy: 'manual',
  status: 'success',
  runId: null,
  metadata: {},
  ...more,
})
const auditSealer = new Sealer(keys, b(34))
await accept('leaf of an event', 'audit-leaf', {
  salt: h(1, 16),
  text: canonical(1, 5, entryOf('p/dev/A')),
})
let link: Uint8Array = CHAIN_START
const rows: Uint8Array[] = []
for (const [i, one] of [
  entryOf('p/dev/A'),
  entryOf(null, { metadata: { text: 'größe', mark: true } }),
  entryOf('x', { metadata: { long: 'y'.repeat(300) } }),
].entries()) {
  const row = sealAudit(auditSealer, i + 1, 1000 + i, one, link)
  await accept(`audit row ${i + 1}`, 'audit', { keys: keysGiven, seq: i + 1, stored: hex(row) })
  await accept(`link ${i + 1} of the chain`, 'chain', { previous: hex(link), stored: hex(row) })
  link = chain(link, row)
  rows.push(row)
}
const [firstRow = b(0)] = rows
const stub = concat(firstRow.slice(0, 32), hash(32, firstRow.slice(32)))
await accept('a pruned row makes the same link', 'chain', {
  previous: hex(CHAIN_START),
  stored: hex(stub),
})
await refuse(
  'audit row with another leaf',
  'audit',
  { keys: keysGiven, seq: 1, stored: hex(flipped(firstRow, 0)) },
  'audit-leaf',
)
await refuse(
  'audit row, bit flipped',
  'audit',
  { keys: keysGiven, seq: 1, stored: hex(flipped(firstRow, 100)) },
  'row-seal',
)
await refuse(
  'audit row under another number',
  'audit',
  { keys: keysGiven, seq: 2, stored: hex(firstRow) },
  'row-seal',
)
const lying = new Writer()
  .raw(CHAIN_START)
  .raw(b(1, 16))
  .long(utf8(canonical(3, 5, entryOf('a'))))
  .done()
const lyingRow = concat(
  leafHash(b(1, 16), utf8(canonical(3, 5, entryOf('a')))),
  auditSealer.seal('audit', 2n, concat(lying, new Uint8Array(256 - (lying.length % 256)))),
)
await refuse(
  'audit row that calls itself another',
  'audit',
  { keys: keysGiven, seq: 2, stored: hex(lyingRow) },
  'audit-number',
)
const shortRow = concat(b(0), auditSealer.seal('audit', 2n, new Uint8Array(40)))
await refuse(
  'audit row cut inside',
  'audit',
  { keys: keysGiven, seq: 2, stored: hex(shortRow) },
  'audit-layout',
)

const signer = await signerOf('vlt_3SPKMKSJKNWAGETYG49NPJ8D37', b(3))
const stranger = await signerOf('vlt_3SPKMKSJKNWAGETYG49NPJ8D37', b(4))
const elsewhere = await signerOf('vlt_00000000000000000000000000', b(3))
const verifier = encodeVerifier(signer)
await accept('verifier key', 'verifier', { text: verifier })
await refuse(
  'verifier key, id changed',
  'verifier',
  { text: verifier.replace(/\+(.)/, (_, one: string) => `+${one === '0' ? '1' : '0'}`) },
  'verifier-id',
)
await refuse(
  'verifier key, not of rotate',
  'verifier',
  { text: verifier.replace('rotate/', 'other/') },
  'verifier-text',
)
await refuse('verifier key, blank behind it', 'verifier', { text: `${verifier} ` }, 'verifier-text')
await refuse(
  'verifier key, base64 not padded',
  'verifier',
  { text: verifier.slice(0, -1) },
  'verifier-text',
)
const claim = { origin: signer.name, size: 3, hash: link, more: ['time 2027-01-15T08:00:00.000Z'] }
const note = signNote(signer, claim)
await accept('checkpoint', 'note', { text: note, verifier })
await accept('checkpoint with the signature of a witness below', 'note', {
  text: `${note}— witness.example ${Buffer.from(b(1, 68)).toString('base64')}\n`,
  verifier,
})
await refuse(
  'checkpoint of another key',
  'note',
  { text: signNote(stranger, claim), verifier },
  'note-unsigned',
)
await refuse(
  'checkpoint of another vault',
  'note',
  { text: signNote(elsewhere, { ...claim, origin: elsewhere.name }), verifier },
  'note-origin',
)
await refuse(
  'checkpoint with another size',
  'note',
  { text: note.replace('\n3\n', '\n4\n'), verifier },
  'note-unsigned',
)
await refuse(
  'checkpoint with another time',
  'note',
  { text: note.replace('2027', '2028'), verifier },
  'note-unsigned',
)
await refuse(
  'checkpoint, its signature twice',
  'note',
  { text: `${note}${note.split('\n').at(-2)}\n`, verifier },
  'note-unsigned',
)
await refuse(
  'checkpoint, not signed',
  'note',
  { text: `${note.split('\n\n')[0]}\n`, verifier },
  'note-signature',
)
await refuse(
  'checkpoint, size with a zero in front',
  'note',
  { text: note.replace('\n3\n', '\n03\n'), verifier },
  'note-text',
)
await refuse(
  'checkpoint with carriage returns',
  'note',
  { text: note.replaceAll('\n', '\r\n'), verifier },
  'note-text',
)
const line = signLine(signer, { origin: signer.name, size: 3, hash: link })
await accept('checkpoint in one line', 'line', { text: line, verifier })
await refuse(
  'line with another size',
  'line',
  { text: line.replace(' 3 ', ' 4 '), verifier },
  'note-unsigned',
)
await refuse(
  'line with two blanks',
  'line',
  { text: line.replace(' ', '  '), verifier },
  'line-text',
)

const marking = mkdtempSync(join(tmpdir(), 'rotate-vectors-'))
const marks = new Marks(marking, vault, '/home/anna/vault.db')
for (const trusted of [true, false])
  marks.raise(
    markKey(ring),
    { trusted, commit: 41 + Number(trusted), tag: b(1, 3), auditCount: 17, auditHash: b(2, 16) },
    'x',
  )
const markBytes = new Uint8Array(readFileSync(marks.file))
rmSync(marking, { recursive: true })
const trusting = markBytes.slice(0, 48)
const mark = (change: object): Given => ({
  index: hex(ring.index),
  vault: hex(vault),
  path: '/home/anna/vault.db',
  record: hex(trusting),
  ...change,
})
await accept('high-water record, trusted', 'mark', mark({}))
await accept('high-water record, not trusted', 'mark', mark({ record: hex(markBytes.slice(48)) }))
await refuse(
  'high-water record, its commit raised',
  'mark',
  mark({ record: hex(flipped(trusting, 9)) }),
  'mark-mac',
)
await refuse(
  'high-water record, made trusted',
  'mark',
  mark({ record: hex(flipped(markBytes.slice(48), 0)) }),
  'mark-mac',
)
await refuse(
  'high-water record of another path',
  'mark',
  mark({ path: '/home/anna/vault2.db' }),
  'mark-mac',
)
await refuse('high-water record of another vault', 'mark', mark({ vault: h(61, 16) }), 'mark-mac')
await refuse('high-water record under another key', 'mark', mark({ index: h(77) }), 'mark-mac')

// ---------------------------------------------------------------- whole vaults

const scratch = mkdtempSync(join(tmpdir(), 'rotate-vectors-'))
const keyFile: Unlock & NewUnlocker = { kind: 'key-file', key: new Secret(b(7)) }
const gives = { kind: 'key-file', key: h(7) }

function aSecret(n: number, path: string, more: Partial<SecretRecord> = {}): SecretRecord {
  const id = `sec_01KABX7D2M${String(n).padStart(16, '0')}`
  return {
    id,
    path,
    type: 'api_key',
    tier: 'standard',
    metadata: {},
    tags: [],
    createdAt: 1,
    updatedAt: 1,
    versions: [],
    nextVersion: 2,
    strays: [],
    ...more,
  }
}

function scheduled(n: number, path: string, nextAt: number): SecretRecord {
  const schedule = {
    id: `rot_01KABX7D2M${String(n).padStart(16, '0')}`,
    provider: { id: 'generated', config: { length: 32 } },
    intervalDays: 30,
    graceMs: 0,
    quarantineMs: 0,
    targets: [],
    checks: [],
    notify: [],
    notifyBefore: [],
    status: 'active',
    createdAt: 1,
    updatedAt: 1,
    nextAt,
    failures: 0,
  } as const
  return aSecret(n, path, { schedule })
}

async function fill(opened: Vault, marker: string): Promise<void> {
  await opened.transact(async (tx) => {
    for (const secret of [
      scheduled(1, 'p/dev/A', 500),
      aSecret(2, 'p/dev/B', { metadata: { marker } }),
    ]) {
      await tx.putSecret(secret)
      await tx.putValue(secret.id, 1, {
        value: new Secret(`${marker} ${secret.path}`),
        raw: new Secret(b(0, 9)),
      })
    }
    await tx.putDoc('settings', { marker, lookalike: { $secret: 0 } })
    tx.audit(entryOf('p/dev/A', { metadata: { marker } }))
  })
}

function aRun(secret: SecretRecord): RunRecord {
  const plan = {
    source: 'provider',
    provider: null,
    overlap: 'two-live',
    targets: [],
    checks: [],
    graceMs: 0,
    quarantineMs: 0,
    oldVersion: null,
    newVersion: null,
    emergency: false,
  } as const
  const { id: secretId, path } = secret
  return {
    id: 'run_01KABX7D2M0000000000000001',
    secretId,
    path,
    kind: 'rotate',
    trigger: 'manual',
    actor: 'anna',
    plan,
    startedAt: 1,
    status: 'open',
    events: [{ type: 'began', at: 1 }],
  }
}

async function collect(parts: AsyncIterable<string>): Promise<string> {
  let out = ''
  for await (const part of parts) out += part
  return out
}

const at = (name: string): string => join(scratch, `${name}.db`)
const keep = (name: string): void => void (vaults[name] = { file: packed(readFileSync(at(name))) })

/** Copies the file as it is now to another name, while the vault stays open. */
function keepOpen(name: string, as: string): void {
  vaults[as] = { file: packed(readFileSync(at(name))) }
}

async function fresh(
  name: string,
  source: string,
  ...holding: readonly [NewUnlocker, ...NewUnlocker[]]
): Promise<Vault> {
  return createVault({
    file: at(name),
    clock,
    random: seeded(source),
    unlockers: holding,
    actor: 'anna',
  })
}

async function reopen(
  from: string,
  name: string,
  source: string,
  work: (opened: Vault) => Promise<unknown>,
): Promise<void> {
  if (from !== name) writeFileSync(at(name), readFileSync(at(from)))
  const opened = await openVault({
    file: at(name),
    unlock: keyFile,
    clock,
    random: seeded(source),
    policy: { memory: 64 * 1024 * 1024, passes: 2 },
  })
  await work(opened)
  opened.close()
  keep(name)
}

file(
  'vaults',
  'Whole vaults (zlib, base64), each opened by both readers, and what must be refused after edits',
)
vaults = {}
const empty = await fresh('empty', 'empty', keyFile)
empty.close()
keep('empty')
const first = await fresh('older', 'small', keyFile, {
  kind: 'recovery',
  key: new Secret(b(9, 20)),
})
await fill(first, 'older')
first.close()
keep('older')
await reopen('older', 'small', 'now', async (opened) => {
  await fill(opened, 'now')
  await opened.transact((tx) => tx.putRun(aRun(scheduled(1, 'p/dev/A', 500))))
})
await reopen('older', 'fork', 'fork', async (opened) => {
  await fill(opened, 'fork')
  await opened.transact((tx) => tx.putRun(aRun(scheduled(1, 'p/dev/A', 500))))
})
const otherVault = await fresh('other', 'other', keyFile)
await fill(otherVault, 'other')
otherVault.close()
keep('other')
const withPhrase = await fresh('phrase', 'phrase', holders[0] ?? keyFile)
keepOpen('phrase', 'phrase-before')
const admin = await withPhrase.keys()
await admin.add({ kind: 'recipient', publicKey: recipientOf(b(11)) }, { actor: 'anna' })
await fill(withPhrase, 'phrase')
withPhrase.close()
keep('phrase')
await reopen('small', 'rekeying', 'rekeying', async (opened) =>
  (await opened.keys()).begin({ actor: 'anna' }),
)
await reopen('rekeying', 'rekeyed', 'rekeyed', async (opened) =>
  (await opened.keys()).finish({ actor: 'anna' }),
)
await reopen('small', 'pruned', 'pruned', async (opened) => {
  const entry = (): AuditEntry => entryOf(null, { action: 'audit_pruned' })
  await opened.transact(async (tx) => tx.audit(entryOf('later')))
  await (
    await opened.trail()
  ).prune({ before: clock.now() + 1, entry, pause: () => Promise.resolve(), dryRun: false })
})
await reopen('small', 'small', 'copier', async (opened) =>
  (await opened.care()).backup(at('copy'), proveCopy),
)
keep('copy')
const exporting = await openVault({
  file: at('small'),
  unlock: keyFile,
  clock,
  random: seeded('export'),
})
const exportTrail = await exporting.trail()
const exportKey = exportTrail.pubkey()
const { note: exportCheckpoint } = await exportTrail.checkpoint()
const exported = await collect(exportTrail.export({}, { kind: 'jsonl' }))
const exportedPart = await collect(exportTrail.export({ path: 'p/dev/A' }, { kind: 'jsonl' }))
exporting.close()
rmSync(scratch, { recursive: true })
const vaultFile = made['vaults']
if (vaultFile !== undefined) vaultFile.vaults = vaults

const whole: readonly (readonly [string, Given])[] = [
  ['empty', gives],
  ['older', gives],
  ['small', gives],
  ['small', { kind: 'recovery', key: h(9, 20) }],
  ['fork', gives],
  ['other', gives],
  ['phrase', byPhrase],
  ['phrase', { kind: 'key-file', key: h(11) }],
  ['rekeying', gives],
  ['rekeying', { kind: 'recovery', key: h(9, 20) }],
  ['rekeyed', gives],
  ['pruned', gives],
  ['copy', gives],
]
for (const [name, unlock] of whole)
  await accept(`${name}, by ${String(unlock['kind'])}`, 'vault', { vault: name, unlock })
const edited = (name: string, kind: string, ...edits: readonly Given[]): Promise<void> =>
  refuse(name, 'vault', { vault: 'small', unlock: gives, edits }, kind)
await refuse(
  'another key file',
  'vault',
  { vault: 'small', unlock: { kind: 'key-file', key: h(8) } },
  'wrong-key',
)
await refuse(
  'a passphrase where there is none',
  'vault',
  { vault: 'small', unlock: byPhrase },
  'no-such-unlocker',
)
await refuse(
  'another passphrase',
  'vault',
  { vault: 'phrase', unlock: { kind: 'passphrase', passphrase: 'Correct horse' } },
  'wrong-key',
)
await edited('header: bit of the recovery stanza', 'header-mac', {
  row: ['head', '1'],
  at: 300,
  xor: 1,
})
await edited('header: MAC', 'header-mac', { row: ['head', '1'], at: -1, xor: 128 })
await edited('header: missing', 'header-missing', { sql: 'DELETE FROM head WHERE i=1' })
await edited('header: text instead of bytes', 'header-layout', {
  sql: "UPDATE head SET b='text' WHERE i=1",
})
await edited('header: of a later epoch', 'root-epoch', { from: 'rekeyed', rows: [['head', '1']] })
await refuse(
  'header: an older one of the same epoch',
  'vault',
  { vault: 'phrase', unlock: byPhrase, edits: [{ from: 'phrase-before', rows: [['head', '1']] }] },
  'root-header',
)
await edited('state root: bit', 'row-seal', { row: ['head', '2'], at: 50, xor: 1 })
await edited('state root: missing', 'root-missing', { sql: 'DELETE FROM head WHERE i=2' })
await edited('state root: of an older state', 'node-ref', { from: 'older', rows: [['head', '2']] })
await edited('state root: of a fork with the same number', 'node-ref', {
  from: 'fork',
  rows: [['head', '2']],
})
await edited('state root: of another vault', 'row-seal', { from: 'other', rows: [['head', '2']] })
await refuse(
  'state root: under the old key during a rekey',
  'vault',
  { vault: 'rekeying', unlock: gives, edits: [{ from: 'small', rows: [['head', '2']] }] },
  'root-epoch',
)
await edited('header and state root of another vault for the same key', 'node-ref', {
  from: 'other',
  rows: [
    ['head', '1'],
    ['head', '2'],
  ],
})
await edited('audit: an event deleted', 'audit-missing', { sql: 'DELETE FROM audit WHERE i=2' })
await edited('audit: the newest event deleted', 'audit-missing', {
  sql: 'DELETE FROM audit WHERE i=3',
})
await edited(
  'audit: two events exchanged',
  'audit-chain',
  { sql: 'UPDATE audit SET i=-i WHERE i IN (1,2)' },
  { sql: 'UPDATE audit SET i=3+i WHERE i<0' },
)
await edited('audit: bit of a leaf', 'audit-chain', { row: ['audit', '2'], at: 0, xor: 1 })
await edited('audit: bit of a sealed event', 'audit-chain', { row: ['audit', '1'], at: 90, xor: 1 })
await edited('audit: event of a fork', 'audit-chain', { from: 'fork', rows: [['audit', '3']] })
await edited('audit: event of the other vault', 'audit-chain', {
  from: 'other',
  rows: [['audit', '2']],
})
await edited('audit: a stub that the root does not allow', 'audit-missing', {
  put: ['audit', '1'],
  bytes: h(0, 64),
})
await refuse(
  'audit: a stub changed',
  'vault',
  { vault: 'pruned', unlock: gives, edits: [{ row: ['audit', '1'], at: 5, xor: 1 }] },
  'audit-chain',
)
for (const table of ['node', 'obj']) {
  const [named, one] = table === 'node' ? ['node-ref', 'a node'] : ['object-ref', 'an object']
  const least = `(SELECT min(i) FROM ${table})`
  const most = `(SELECT max(i) FROM ${table})`
  await edited(`tree: ${one} deleted`, named, { sql: `DELETE FROM ${table} WHERE i=${least}` })
  await edited(`tree: ${one} emptied`, named, { sql: `UPDATE ${table} SET b=x'' WHERE i=${least}` })
  await edited(`tree: ${one} moved`, named, { sql: `UPDATE ${table} SET i=i+1 WHERE i=${most}` })
  await edited(`tree: ${one} duplicated over another`, named, {
    sql: `UPDATE ${table} SET b=(SELECT b FROM ${table} WHERE i=${least}) WHERE i=${most}`,
  })
}
await accept('a row that nothing refers to is ignored', 'vault', {
  vault: 'small',
  unlock: gives,
  edits: [{ put: ['obj', '12345'], bytes: h(1, 92) }],
})
await edited('schema: a trigger', 'schema', {
  sql: 'CREATE TRIGGER t AFTER INSERT ON audit BEGIN DELETE FROM audit; END',
})
await edited('schema: a view', 'schema', { sql: 'CREATE VIEW v AS SELECT * FROM obj' })
await edited('schema: an index', 'schema', { sql: 'CREATE INDEX x ON obj(b)' })
await edited('schema: a column', 'schema', { sql: 'ALTER TABLE node ADD COLUMN c' })
await edited('container: another application id', 'container', { byte: 68, xor: 1 })
await edited('container: file format numbers', 'container', { byte: 18, xor: 3 })
await edited('container: reserved bytes', 'container', { byte: 80, xor: 1 })
await edited('container: a list of free pages that begins outside', 'container', {
  byte: 32,
  xor: 255,
})
await edited('container: cut to 99 bytes', 'container', { cut: 99 })
await edited('container: not SQLite', 'container', { byte: 0, xor: 1 })
await edited('container: only its first page', 'sqlite', { cut: 4096 })
await edited(
  'a newer format',
  'newer-format',
  { byte: 63, xor: 3 },
  { row: ['head', '1'], at: 9, xor: 3 },
  { row: ['head', '1'], at: 11, xor: 3 },
)
await edited('a newer format that only the container claims', 'format-number', { byte: 63, xor: 3 })

file(
  'exports',
  'Exports of the audit chain, verified with nothing but the verifier key (section 8)',
)
const exportOf = (content: string): Given => ({ text: content, verifier: exportKey })
await accept('everything', 'export', exportOf(exported))
await accept(
  'only events of one path, the others by their hashes',
  'export',
  exportOf(exportedPart),
)
const lines = exported.trimEnd().split('\n')
const joined = (...chosen: readonly (string | undefined)[]): Given =>
  exportOf(chosen.map((one) => `${one ?? ''}\n`).join(''))
await refuse('another key', 'export', { text: exported, verifier }, 'export-origin')
await refuse('without its note', 'export', joined(...lines.slice(0, -1)), 'export-cut')
await refuse('without its first event', 'export', joined(...lines.slice(1)), 'export-order')
await refuse(
  'without its last event',
  'export',
  joined(...lines.slice(0, -2), lines.at(-1)),
  'export-order',
)
await refuse(
  'an event twice',
  'export',
  joined(lines[0], lines[0], ...lines.slice(1)),
  'export-order',
)
await refuse(
  'an event changed',
  'export',
  exportOf(exported.replace('anna', 'otto')),
  'export-chain',
)
await refuse(
  'a link changed',
  'export',
  exportOf(
    exported.replace(/"sealed":"(.)/, (_, one: string) => `"sealed":"${one === '0' ? '1' : '0'}`),
  ),
  'export-chain',
)
await refuse(
  'a line with a blank',
  'export',
  exportOf(exported.replace('"seq":2', '"seq": 2')),
  'export-line',
)
await refuse('no JSON', 'export', joined('x', ...lines), 'export-line')
await refuse(
  'a checkpoint instead of its note',
  'export',
  joined(...lines.slice(0, -1), JSON.stringify({ note: exportCheckpoint })),
  'export-note',
)
await refuse(
  'the note changed',
  'export',
  exportOf(exported.replace('shown 3', 'shown 2')),
  'export-unsigned',
)
await refuse(
  'the note of another export',
  'export',
  joined(...lines.slice(0, -1), exportedPart.trimEnd().split('\n').at(-1)),
  'export-counts',
)

/** Prints each vector on a line of its own, so that a change can be read. */
function printed({ about, vaults: files, vectors }: VectorFile): string {
  const packedVaults = files === undefined ? '' : ` "vaults": ${JSON.stringify(files)},\n`
  return (
    `{"about": ${JSON.stringify(about)},\n${packedVaults} "vectors": ` +
    `[\n${vectors.map((one) => JSON.stringify(one)).join(',\n')}\n]}\n`
  )
}

const directory = process.argv[2] ?? fileURLToPath(new URL('vectors', import.meta.url))
mkdirSync(directory, { recursive: true })
for (const [name, one] of Object.entries(made))
  writeFileSync(join(directory, `${name}.json`), printed(one))
const all = Object.values(made).flatMap(({ vectors }) => vectors)
process.stdout.write(
  `${all.length} vectors, ${all.filter(({ refused }) => refused !== undefined).length} of ` +
    `them refused\n`,
)
