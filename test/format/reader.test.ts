/**
 * The second reader (reader.py, written from FORMAT.md): it agrees with the published
 * vectors and reads what the built program writes.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, test } from 'vitest'
import { Secret } from '../../src/core/secret.ts'
import {
  createKeyFile,
  createVault,
  newRecoveryKey,
  openVault,
  parseRecoveryKey,
  readKeyFile,
} from '../../src/vault/index.ts'
import { ready } from '../../src/vault/sodium.ts'
import type { Unlock } from '../../src/vault/types.ts'
import { TestClock, aScheduled, aSecret, anEntry, random, scratch } from '../vault/support.ts'
import { summaryOf } from './ops.ts'

await ready()

const here = (name: string): string => fileURLToPath(new URL(name, import.meta.url))
const program = here('../../bin/rotate')
const isBuilt = existsSync(here('../../dist/main.js')) || existsSync(here('../../dist'))
/**
 * Debian's own Python is tried first, because it alone finds the packages that Debian
 * installs.
 */
const python = ['/usr/bin/python3', 'python3'].find(
  (name) => spawnSync(name, ['-c', 'import nacl.bindings, sqlite3']).status === 0,
)
if (python === undefined)
  process.stderr.write(
    'SKIPPED: the second reader of the vault format needs python3 and PyNaCl (apt-get install ' +
      'python3-nacl)\n',
  )

function reader(...args: readonly string[]): unknown {
  const { stdout, stderr } = spawnSync(python ?? '', [here('reader.py'), ...args], {
    encoding: 'utf8',
    maxBuffer: 64 * 1024 * 1024,
  })
  expect(stderr).toBe('')
  return JSON.parse(stdout)
}

/** Checks that both readers see the same, and returns it as text. */
async function compareReaders(
  file: string,
  option: string,
  keyPath: string,
  unlock: Unlock,
): Promise<string> {
  const found = reader('open', file, option, keyPath)
  expect(found).toEqual(await summaryOf(file, unlock))
  return JSON.stringify(found)
}

test('is there where CI runs', () => {
  if (process.env['CI'] !== undefined) expect(python, 'python3 with PyNaCl').toBeDefined()
})

describe.skipIf(python === undefined)('the second reader', () => {
  test('agrees with every published vector', { timeout: 120_000 }, () => {
    const report = reader('vectors', here('vectors')) as {
      readonly vectors: number
      readonly wrong: readonly unknown[]
    }
    expect(report.wrong).toEqual([])
    expect(report.vectors).toBeGreaterThan(300)
  })

  test('says what a vault refuses', async () => {
    const file = join(scratch(), 'vault.db')
    const key = new Secret(new Uint8Array(32).fill(1))
    const vault = await createVault({
      file,
      clock: new TestClock(),
      random,
      unlockers: [{ kind: 'key-file', key }],
      actor: 'test',
    })
    vault.close()
    const other = join(scratch(), 'key')
    await createKeyFile(other, random)
    expect(reader('open', file, '--key-file', other)).toEqual({
      refused: { code: 'unlock-failed', kind: 'wrong-key' },
    })
    const bytes = readFileSync(file)
    bytes[68] = 0
    writeFileSync(file, bytes)
    expect(reader('open', file, '--key-file', other)).toEqual({
      refused: { code: 'tampered', kind: 'container' },
    })
  })

  test(
    'reads fresh vaults as we do, by each unlocker, during and after a rekey',
    { timeout: 120_000 },
    async () => {
      const home = scratch()
      const file = join(home, 'vault.db')
      const clock = new TestClock()
      const at = (name: string): string => join(home, name)
      const keyFile: Unlock = { kind: 'key-file', key: await createKeyFile(at('key'), random) }
      const words = await newRecoveryKey(random)
      writeFileSync(at('recovery'), words.text.reveal())
      const recovery: Unlock = { kind: 'recovery', key: await parseRecoveryKey(words.text) }
      writeFileSync(at('passphrase'), 'Zwölf Boxkämpfer\n')
      const passphrase: Unlock = { kind: 'passphrase', passphrase: new Secret('Zwölf Boxkämpfer') }
      const params = { memory: 64 * 1024 * 1024, passes: 2 }
      const vault = await createVault({
        file,
        clock,
        random,
        unlockers: [{ ...passphrase, params }, keyFile, recovery],
        actor: 'test',
      })
      const fill = async (from: number): Promise<void> => {
        await vault.transact(async (tx) => {
          for (let i = from; i < from + 12; i++) {
            const secret =
              i % 2 === 0 ? aSecret(`p/größe/${i}`) : aScheduled(`p/dev/${i}`, i * 1000)
            await tx.putSecret(secret)
            await tx.putValue(secret.id, 1, {
              value: new Secret(random.bytes(i * 37)),
              user: new Secret('ä'),
            })
            tx.audit(anEntry(secret.path, { metadata: { i, half: i / 2, text: '\u2028"\\' } }))
          }
        })
      }
      const each = async (): Promise<void> => {
        const seen = [
          await compareReaders(file, '--key-file', at('key'), keyFile),
          await compareReaders(file, '--recovery-file', at('recovery'), recovery),
          await compareReaders(file, '--passphrase-file', at('passphrase'), passphrase),
        ]
        expect(new Set(seen).size).toBe(1)
      }
      await fill(1)
      await each()
      const keys = await vault.keys()
      await keys.begin({ actor: 'test' })
      await each()
      await fill(20)
      await (await vault.keys()).finish({ actor: 'test' })
      vault.close()
      await each()
      const again = await openVault({ file, unlock: keyFile, clock, random, policy: params })
      const pause = (): Promise<void> => Promise.resolve()
      await (
        await again.trail()
      ).prune({ before: clock.now() + 1, entry: () => anEntry(null), pause, dryRun: false })
      again.close()
      expect(await compareReaders(file, '--key-file', at('key'), keyFile)).not.toContain(
        '"auditBase":0',
      )
    },
  )

  test.skipIf(!isBuilt)('reads what the built program made', { timeout: 120_000 }, async () => {
    const home = scratch()
    const [vault, key] = [join(home, 'vault.db'), join(home, 'key')]
    const env = {
      PATH: process.env['PATH'],
      HOME: home,
      ROTATE_VAULT: vault,
      ROTATE_KEY_FILE: key,
      ROTATE_NO_INPUT: '1',
    }
    const rotate = (input: string, ...args: readonly string[]): string =>
      execFileSync(program, args, {
        cwd: home,
        env,
        input,
        encoding: 'utf8',
        stdio: ['pipe', 'pipe', 'ignore'],
      })
    rotate('', 'init', '--recovery-out', join(home, 'recovery'))
    rotate('value from stdin', 'set', 'shop/dev/API_KEY')
    const found = await compareReaders(vault, '--key-file', key, {
      kind: 'key-file',
      key: await readKeyFile(key),
    })
    expect(found).toContain(Buffer.from('value from stdin').toString('hex'))
    const words = new Secret(readFileSync(join(home, 'recovery'), 'utf8'))
    expect(
      await compareReaders(vault, '--recovery-file', join(home, 'recovery'), {
        kind: 'recovery',
        key: await parseRecoveryKey(words),
      }),
    ).toBe(found)
  })
})
