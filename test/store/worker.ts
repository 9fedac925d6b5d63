/**
 * A process that the storage tests start: `worker.ts <what> <directory> [arguments]`. Its
 * random source is seeded, so that two runs perform the same file operations under the
 * same names. It prints each acknowledged commit on stdout, and nothing else.
 */
import { readSync, writeSync } from 'node:fs'
import { Secret } from '../../src/core/secret.ts'
import { createKeyFile, createVault, openVault, readKeyFile } from '../../src/vault/index.ts'
import { clock, commit, keyOf, look, randomFrom, stateOf, vaultOf } from './vaults.ts'

const [, , what = '', directory = '', ...rest] = process.argv
const random = randomFrom(Number(process.env['SEED'] ?? 1))

function say(line: string): void {
  writeSync(1, `${line}\n`)
}

async function open(file: string, key: Secret, readonly: boolean) {
  return openVault({ file, unlock: { kind: 'key-file', key }, clock, random, readonly })
}

const jobs: Readonly<Record<string, () => Promise<void>>> = {
  /** Makes a key file, a vault, and a number of commits. */
  async life() {
    const key = await createKeyFile(keyOf(directory), random)
    say('key')
    const file = vaultOf(directory)
    const vault = await createVault({
      file,
      clock,
      random,
      unlockers: [{ kind: 'key-file', key }],
      actor: 'test',
      stateDir: stateOf(directory),
    })
    say('vault')
    for (let n = 1; n <= Number(rest[0]); n++) {
      await commit(vault, n)
      say(`commit ${n}`)
    }
    vault.close()
    say('end')
  },
  /** Makes one more commit in an existing vault. */
  async next() {
    const vault = await openVault({
      file: vaultOf(directory),
      unlock: { kind: 'key-file', key: await readKeyFile(keyOf(directory)) },
      clock,
      random,
      stateDir: stateOf(directory),
    })
    const { count } = await look(vault)
    say(`found ${count}`)
    await commit(vault, count + 1)
    say(`commit ${count + 1}`)
    vault.close()
    say('end')
  },
  /**
   * For each path that arrives on stdin, answers what a fresh `get` there would see.
   * Tests run it as another user, or where nothing may be written.
   */
  async serve() {
    say('ready')
    const buffer = Buffer.alloc(4096)
    let text = ''
    for (;;) {
      const length = readSync(0, buffer)
      if (length === 0) return
      const lines = (text + buffer.toString('utf8', 0, length)).split('\n')
      text = lines.pop() ?? ''
      for (const file of lines) {
        try {
          const vault = await open(file, new Secret(Buffer.from(rest[0] ?? '', 'hex')), true)
          const seen = await look(vault)
          vault.close()
          say(JSON.stringify(seen))
        } catch (error) {
          say(JSON.stringify(describe(error)))
        }
      }
    }
  },
}

function describe(error: unknown): { readonly code: string; readonly message: string } {
  const code =
    error !== null && typeof error === 'object' && 'code' in error ? String(error.code) : 'none'
  return { code, message: error instanceof Error ? error.message : String(error) }
}

try {
  await jobs[what]?.()
} catch (error) {
  say(`error ${JSON.stringify(describe(error))}`)
  process.exitCode = 1
}
