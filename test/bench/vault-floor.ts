/**
 * The lower bound with which `bench:vault` compares:
 * `vault-floor.ts <directory> [times]`. It times libsodium and SQLite alone: it opens the
 * file, reads as many rows of the same sizes, opens as many boxes and derives as many
 * keys as a verified read does (vault-read.ts), but has no tree, checks or records.
 * Prints the median milliseconds, without the first reads, which warm up.
 */
import { readFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import { derive, hash, ready, sodium } from '../../src/vault/sodium.ts'

/** The work of the floor program, which `vault.ts` derives from one real read. */
export interface Plan {
  readonly file: string
  readonly keyFile: string
  readonly path: string
  readonly value: string
  readonly floor: string
  readonly rows: readonly (readonly [string, number])[]
  readonly key: string
  readonly derived: number
}

const [, , directory = '', count = '1'] = process.argv
const plan = JSON.parse(readFileSync(join(directory, 'plan.json'), 'utf8')) as Plan

async function floor(): Promise<void> {
  const text = readFileSync(plan.keyFile, 'utf8')
  if (text.length < 40) throw new Error('no key file')
  const db = new Database(plan.floor, { readonly: true, fileMustExist: true })
  await ready()
  const kek = hash(32, new Uint8Array(Buffer.from(plan.key, 'hex')))
  const pair = sodium.crypto_box_seed_keypair(kek)
  const [box] =
    plan.rows[0] === undefined
      ? []
      : [db.prepare('SELECT b FROM head WHERE i=0').pluck().get() as Uint8Array]
  if (box === undefined) throw new Error('no box')
  const key = sodium.crypto_box_seal_open(box, pair.publicKey, pair.privateKey)
  for (let i = 1; i <= plan.derived; i++) derive(key, i, 'rotate/1')
  const statements = new Map(
    ['head', 'node', 'obj'].map((table) => [
      table,
      db.prepare(`SELECT b FROM ${table} WHERE i=?`).pluck(),
    ]),
  )
  let last: Uint8Array = new Uint8Array(0)
  const begin = db.prepare('BEGIN')
  const end = db.prepare('COMMIT')
  begin.run()
  for (const [table, i] of plan.rows) {
    const bytes = statements.get(table)?.get(i) as Uint8Array
    last = sodium.crypto_aead_xchacha20poly1305_ietf_decrypt(
      null,
      bytes.subarray(24),
      null,
      bytes.subarray(0, 24),
      key,
    )
  }
  end.run()
  db.close()
  if (last.length === 0) throw new Error('nothing was read')
}

const taken: number[] = []
for (let i = 0; i < Number(count); i++) {
  const before = performance.now()
  await floor()
  taken.push(performance.now() - before)
}
const later = taken.slice(Math.floor(taken.length / 5)).sort((a, b) => a - b)
writeSync(1, `${later[later.length >> 1]}\n`)
