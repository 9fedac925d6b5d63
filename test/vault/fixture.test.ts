/**
 * A vault of every released format is kept and must always open. Format 1 is the only one
 * so far.
 */
import { copyFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import { Secret } from '../../src/core/secret.ts'
import { inspectVault, openVault, readKeyFile } from '../../src/vault/index.ts'
import { TestClock, all, random, scratch } from './support.ts'

const fixtures = fileURLToPath(new URL('../fixtures', import.meta.url))
const clock = new TestClock()

test.each([1])(
  'the kept vault of format %i opens with its key and its passphrase, verifies, and can be written',
  async (format) => {
    const home = scratch()
    const file = join(home, 'vault.db')
    copyFileSync(join(fixtures, `vault-format-${format}.db`), file)
    const keyFile = join(home, 'key')
    copyFileSync(join(fixtures, `vault-format-${format}.key`), keyFile)
    const { chmodSync } = await import('node:fs')
    for (const path of [file, keyFile]) chmodSync(path, 0o600)
    expect(await inspectVault(file)).toMatchObject({
      format,
      unlockers: [{ kind: 'key-file' }, { kind: 'passphrase' }],
    })
    const passphrase = {
      kind: 'passphrase',
      passphrase: new Secret(`fixture of format ${format}`),
    } as const
    for (const unlock of [
      { kind: 'key-file', key: await readKeyFile(keyFile) } as const,
      passphrase,
    ]) {
      const vault = await openVault({ file, unlock, clock, random })
      expect(await (await vault.care()).verify({ deep: true })).toMatchObject({
        ok: true,
        problems: [],
        versions: 3,
        auditRows: 4,
      })
      for (const i of [1, 2, 3]) {
        const secret = await vault.read((reader) =>
          reader.resolve(`fixture/format-${format}/SECRET_${i}`),
        )
        expect(secret).toMatchObject({ metadata: { kept: 'for ever' }, tags: ['fixture'] })
        const value = await vault.read((reader) => reader.value(secret?.id ?? '', 1))
        expect(value?.['value']?.reveal()).toBe(`value ${i} of format ${format}`)
      }
      expect(
        (await vault.read((reader) => reader.doc<{ secret: Secret }>('fixture')))?.secret.reveal(),
      ).toBe('in a document')
      expect(
        (await all(vault.auditEvents({}))).map(({ seq, action }) => [seq, action]).at(-1),
      ).toEqual([4, 'secret_created'])
      vault.close()
    }
    const vault = await openVault({ file, unlock: passphrase, clock, random })
    await vault.transact((tx) => tx.putDoc('written', true))
    expect((await (await vault.care()).verify({ deep: true })).ok).toBe(true)
    vault.close()
  },
  120_000,
)
