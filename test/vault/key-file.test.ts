import {
  chmodSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Secret } from '../../src/core/secret.ts'
import {
  createKeyFile,
  newRecoveryKey,
  parseRecoveryKey,
  readKeyFile,
} from '../../src/vault/index.ts'
import { codeOf, random, scratch } from './support.ts'

async function messageOf(action: Promise<unknown>): Promise<string> {
  try {
    await action
    return ''
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}

describe('a key file', () => {
  test('is one line, private, and reads back', async () => {
    const path = join(scratch(), 'keys', 'rotate.key')
    const key = await createKeyFile(path, random)
    expect(key.size).toBe(32)
    expect((await readKeyFile(path)).equals(key)).toBe(true)
    expect(statSync(path).mode & 0o777).toBe(0o600)
    expect(readFileSync(path, 'utf8')).toMatch(/^rotate-key-1:[A-Za-z0-9_-]{48}\n$/)
    expect(readdirSync(join(path, '..'))).toEqual(['rotate.key'])
    expect(await codeOf(createKeyFile(path, random))).toBe('conflict')
    expect((await readKeyFile(path)).equals(key)).toBe(true)
  })

  test('says what is wrong with it, each time in its own words', async () => {
    const directory = scratch()
    const good = join(directory, 'good')
    await createKeyFile(good, random)
    const line = readFileSync(good, 'utf8')
    const write = (name: string, text: string, mode = 0o600): string => {
      writeFileSync(join(directory, name), text, { mode })
      chmodSync(join(directory, name), mode)
      return join(directory, name)
    }
    mkdirSync(join(directory, 'dir'))
    execFileSync('mkfifo', [join(directory, 'pipe')])
    symlinkSync(join(directory, 'nothing'), join(directory, 'dangling'))
    const changed = line.replace(
      /.(.{10})\n$/,
      (all, rest: string) => `${all.startsWith('A') ? 'B' : 'A'}${rest}\n`,
    )
    const cases: [string, RegExp][] = [
      [join(directory, 'missing'), /does not exist/],
      [join(directory, 'dangling'), /does not exist/],
      [join(directory, 'dir'), /not a regular file/],
      [join(directory, 'pipe'), /not a regular file/],
      ['/dev/null', /not a regular file/],
      [write('empty', ''), /is empty/],
      [write('other', 'hello\n'), /not a key file/],
      [write('large', 'x'.repeat(5000)), /not a key file/],
      [write('cut', line.slice(0, 30)), /cut short/],
      [write('long', line.replace('\n', 'AAAA\n')), /too long/],
      [write('changed', changed), /check digits/],
      [write('newer', line.replace('key-1', 'key-2')), /version 2/],
      [write('open', line, 0o640), /by others/],
      [write('world', line, 0o604), /by others/],
    ]
    for (const [path, text] of cases) {
      expect(await messageOf(readKeyFile(path)), path).toMatch(text)
      expect(await codeOf(readKeyFile(path)), path).toBe('unlock-failed')
    }
    expect((await readKeyFile(write('no-newline', line.trimEnd()))).size).toBe(32)
    expect(
      new Set(
        await Promise.all(
          cases.map(async ([path]) => (await messageOf(readKeyFile(path))).replace(path, '')),
        ),
      ).size,
    ).toBeGreaterThan(7)
  })

  test('is not made where it can not be', async () => {
    const file = join(scratch(), 'file')
    writeFileSync(file, '')
    expect(await codeOf(createKeyFile(join(file, 'key'), random))).toBe('not-writable')
    expect(existsSync(join(file, 'key'))).toBe(false)
  })
})

describe('a recovery key', () => {
  test('reads back, however it was written down', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.uint8Array({ minLength: 20, maxLength: 20 }),
        fc.boolean(),
        async (bytes, lower) => {
          const { key, text } = await newRecoveryKey({ bytes: () => bytes })
          expect(text.reveal()).toMatch(/^rr1-([0-9A-HJKMNP-TV-Z]{4}-){8}[0-9A-HJKMNP-TV-Z]{4}$/)
          const sloppy = text
            .reveal()
            .replaceAll('1', 'l')
            .replace('rrl', 'rr1')
            .replaceAll('0', 'o')
            .replaceAll('-', ' ')
          const parsed = await parseRecoveryKey(new Secret(lower ? sloppy.toLowerCase() : sloppy))
          expect(parsed.equals(key)).toBe(true)
        },
      ),
    )
  })

  test('a slip in any one place is found', async () => {
    const { text } = await newRecoveryKey(random)
    const good = text.reveal()
    for (let at = 4; at < good.length; at++) {
      if (good[at] === '-') continue
      const slip = good.slice(0, at) + (good[at] === '7' ? '8' : '7') + good.slice(at + 1)
      expect(await codeOf(parseRecoveryKey(new Secret(slip))), slip).toBe('usage')
    }
    for (const bad of [
      '',
      'rr1-',
      'rr2-AAAA',
      good.slice(0, -1),
      `${good}A`,
      good.replace('-', '-U'),
    ]) {
      expect(await codeOf(parseRecoveryKey(new Secret(bad))), bad).toBe('usage')
    }
  })
})
